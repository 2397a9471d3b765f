//! How much an action can break.
//!
//! Promise: it is reckoned from the action's own commands, paths and hosts and from the warrant, never from what the
//! agent says about it. It sorts questions for people; it is no wall.

mod table;

use crate::action::{Action, ActionKind};
use crate::approval::Risk;
use crate::policy::shell;
use crate::warrant::{DEFAULT_PORT, Warrant};

/// A risk, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// How much.
    pub risk: Risk,
    /// What makes it so, for people; empty when nothing is special.
    pub because: Vec<String>,
}

/// Where the sandbox shows the workspace to the agent, and what an action's paths are relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Its absolute path inside, such as `/work`.
    pub workspace: &'a str,
}

impl Place<'_> {
    /// The path within the repository; `None` where it leads outside of it.
    #[must_use]
    pub fn within(&self, path: &str) -> Option<String> {
        let inner = match path.strip_prefix(self.workspace) {
            Some("") => "",
            Some(rest) if rest.starts_with('/') => rest,
            _ if path.starts_with('/') || path.starts_with('~') => return None,
            _ => path,
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in inner.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop()?;
                }
                part => parts.push(part),
            }
        }
        Some(parts.join("/"))
    }
}

/// Most reasons that are told.
const MOST_REASONS: usize = 32;

/// The risk of an action under a warrant.
#[must_use]
pub fn assess(action: &Action, warrant: &Warrant, place: Place<'_>) -> Assessment {
    let mut found = Assessment {
        risk: if action.kind == ActionKind::Read { Risk::Low } else { Risk::Medium },
        because: Vec::new(),
    };
    let mut raise = |risk: Risk, why: String| {
        found.risk = found.risk.max(risk);
        if found.because.len() < MOST_REASONS && !found.because.contains(&why) {
            found.because.push(why);
        }
    };
    let mut paths: Vec<(String, bool)> = Vec::new();
    let mut hosts = action.hosts.clone();
    for text in &action.commands {
        for command in shell::commands(text) {
            if command.is_wrapper {
                continue;
            }
            let told = || title(&command);
            for (risk, why) in table::of_command(&command) {
                raise(risk, format!("{why}: {}", told()));
            }
            if command.is_piped_into_a_shell {
                raise(Risk::High, format!("it executes what another command prints: {}", told()));
            } else if command.is_hidden {
                raise(Risk::High, format!("what it executes can't be seen before it runs: {}", told()));
            }
            for one in command.redirections.iter().filter(|one| one.writes) {
                paths.push((one.path.clone(), true));
            }
            for path in command.mentioned_paths() {
                if let Some((risk, why)) = table::of_path(path, false) {
                    raise(risk, format!("{path} {why}"));
                }
            }
            hosts.extend(command.mentioned_hosts());
        }
    }
    paths.extend(action.paths.iter().map(|path| (path.clone(), action.kind != ActionKind::Read)));
    for (path, changes) in &paths {
        if let Some((risk, why)) = table::of_path(path, *changes) {
            raise(risk, format!("{path} {why}"));
        }
        match place.within(path) {
            None => raise(Risk::High, format!("{path} is outside the workspace")),
            Some(inner) if *changes && !inner.is_empty() => {
                if let Err(refusal) = warrant.permits_path_write(inner.as_bytes()) {
                    let rule = refusal.rule.id();
                    raise(Risk::High, format!("{inner}: a push of it would be refused ({rule})"));
                }
            }
            Some(_) => {}
        }
    }
    for host in &hosts {
        let (name, port) = host
            .rsplit_once(':')
            .and_then(|(name, port)| Some((name, port.parse().ok()?)))
            .unwrap_or((host.as_str(), DEFAULT_PORT));
        if warrant.permits_egress(name, port).is_err() {
            raise(Risk::High, format!("{host} is not granted: the broker refuses it"));
        }
    }
    found
}

/// A command in a reason: its beginning.
fn title(command: &shell::Command) -> String {
    const LONGEST: usize = 120;
    let text: String =
        command.text().chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    if text.chars().count() < LONGEST { text } else { format!("{text}…") }
}

#[cfg(test)]
mod tests;

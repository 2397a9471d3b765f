//! How much an action can break.
//!
//! Promise: it is reckoned from the action's own commands, paths and hosts and from the warrant, never from what the
//! agent says about it. It sorts questions for people; it is no wall.

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

/// Words that destroy, alone or with the word after them.
const DESTRUCTIVE: &[(&[&str], Risk, &str)] = &[
    (&["rm"], Risk::High, "it removes files"),
    (&["shred"], Risk::High, "it removes files"),
    (&["dd"], Risk::High, "it writes raw data"),
    (&["mkfs"], Risk::High, "it makes a file system"),
    (&["git", "push"], Risk::High, "it pushes"),
    (&["git", "reset"], Risk::High, "it throws changes away"),
    (&["git", "clean"], Risk::High, "it removes files"),
    (&["git", "checkout"], Risk::Medium, "it may overwrite changes"),
    (&["find", "-delete"], Risk::High, "it removes files"),
    (&["chmod", "-R"], Risk::High, "it changes permissions of a whole tree"),
    (&["chown", "-R"], Risk::High, "it changes owners of a whole tree"),
    (&["kill"], Risk::High, "it ends processes"),
    (&["pkill"], Risk::High, "it ends processes"),
    (&["npm", "publish"], Risk::Critical, "it publishes"),
    (&["cargo", "publish"], Risk::Critical, "it publishes"),
    (&["twine", "upload"], Risk::Critical, "it publishes"),
    (&["docker", "push"], Risk::Critical, "it publishes"),
    (&["terraform", "apply"], Risk::Critical, "it changes infrastructure"),
    (&["terraform", "destroy"], Risk::Critical, "it destroys infrastructure"),
    (&["kubectl", "apply"], Risk::Critical, "it changes a cluster"),
    (&["kubectl", "delete"], Risk::Critical, "it changes a cluster"),
    (&["helm", "upgrade"], Risk::Critical, "it changes a cluster"),
    (&["gh", "pr"], Risk::High, "it acts on the forge"),
    (&["gh", "repo"], Risk::Critical, "it acts on the forge"),
    (&["gh", "release"], Risk::Critical, "it publishes"),
    (&["aws"], Risk::High, "it acts on a cloud"),
    (&["gcloud"], Risk::High, "it acts on a cloud"),
    (&["az"], Risk::High, "it acts on a cloud"),
];

/// The risk of an action under a warrant.
#[must_use]
pub fn assess(action: &Action, warrant: &Warrant, place: Place<'_>) -> Assessment {
    let mut found = Assessment {
        risk: if action.kind == ActionKind::Read { Risk::Low } else { Risk::Medium },
        because: Vec::new(),
    };
    let mut raise = |risk: Risk, why: String| {
        found.risk = found.risk.max(risk);
        if !found.because.contains(&why) {
            found.because.push(why);
        }
    };
    for text in &action.commands {
        for command in shell::commands(text) {
            for (words, risk, why) in DESTRUCTIVE {
                let (first, rest) = words.split_first().unwrap_or((&"", &[]));
                let named = command.program() == *first
                    && rest.iter().all(|word| command.words.iter().any(|one| one == word));
                if named {
                    raise(*risk, format!("{why}: {}", command.text()));
                }
            }
            if command.is_piped_into_a_shell {
                raise(Risk::High, format!("it executes what another command prints: {}", command.text()));
            }
        }
    }
    for path in &action.paths {
        match place.within(path) {
            None => raise(Risk::High, format!("{path} is outside the workspace")),
            Some(inner) if action.kind != ActionKind::Read && !inner.is_empty() => {
                if let Err(refusal) = warrant.permits_path_write(inner.as_bytes()) {
                    raise(
                        Risk::High,
                        format!("{inner}: a push of it would be refused ({})", refusal.rule.id()),
                    );
                }
            }
            Some(_) => {}
        }
    }
    for host in &action.hosts {
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

//! Judging an action, part by part and layer by layer.

use super::shell::{self, Command};
use super::{Decision, Policies, PolicyLayer, PolicyRule, TextPattern};
use crate::action::{Action, ActionKind};
use crate::agent::AgentRole;
use crate::approval::Risk;
use crate::risk::Place;
use crate::warrant::{DEFAULT_PORT, HostPattern};

/// A decision about one action, and who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The strictest of all layers.
    pub decision: Decision,
    /// Which rules decided so, for people: `the org, rule 3: "no pushes by hand"`.
    pub because: Vec<String>,
}

/// What is judged, besides the action.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// The role of the agent.
    pub role: AgentRole,
    /// The risk, by our reckoning.
    pub risk: Risk,
    /// Where the workspace is.
    pub place: Place<'a>,
}

/// A part of an action that is judged by itself: nothing is let through in the company of something harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    object: Object,
    kind: ActionKind,
    /// It was only mentioned (a path among the words of a command, a shell around another command): rules that ask or deny
    /// and name it count, nothing else does.
    is_mentioned: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Object {
    Whole,
    Command { shape: String, by_name: Option<String>, is_hidden: bool },
    Path(String),
    Host(String),
}

/// Most parts of one action; what is more is judged as a whole besides.
const MOST_PARTS: usize = 4_096;

fn parts_of(action: &Action) -> Vec<Part> {
    let mut parts = Vec::new();
    let part = |object, kind, is_mentioned| Part { object, kind, is_mentioned };
    for text in &action.commands {
        for command in shell::commands(text) {
            parts_of_command(&command, action.kind, &mut parts);
        }
    }
    parts.extend(action.paths.iter().map(|path| part(Object::Path(path.clone()), action.kind, false)));
    parts.extend(
        action.hosts.iter().map(|host| part(Object::Host(host.to_ascii_lowercase()), action.kind, false)),
    );
    let is_whole = !parts.iter().any(|one| !one.is_mentioned);
    if is_whole || action.kind == ActionKind::Other || parts.len() > MOST_PARTS {
        parts.truncate(MOST_PARTS);
        parts.push(part(Object::Whole, action.kind, false));
    }
    parts
}

fn parts_of_command(command: &Command, kind: ActionKind, parts: &mut Vec<Part>) {
    let object = Object::Command {
        shape: command.shape(),
        by_name: command.shape_by_name(),
        is_hidden: command.is_hidden,
    };
    parts.push(Part { object, kind, is_mentioned: command.is_wrapper });
    for one in &command.redirections {
        let kind = if one.writes { ActionKind::Edit } else { ActionKind::Read };
        parts.push(Part { object: Object::Path(one.path.clone()), kind, is_mentioned: !one.writes });
    }
    if command.is_wrapper {
        return;
    }
    let mentioned = |object| Part { object, kind, is_mentioned: true };
    parts.extend(command.mentioned_hosts().map(|host| mentioned(Object::Host(host))));
    parts.extend(command.mentioned_paths().map(|path| mentioned(Object::Path(path.to_owned()))));
}

impl Policies {
    /// What is done with an action. Without any opinion it is let through: the warrant is the wall.
    #[must_use]
    pub fn judge(&self, action: &Action, circumstances: Circumstances<'_>) -> Judgement {
        let mut judged = Judgement { decision: Decision::Allow, because: Vec::new() };
        if self.0.is_empty() {
            return judged;
        }
        let parts = parts_of(action);
        for layer in &self.0 {
            for part in &parts {
                let Some((decision, because)) = layer.judge(action, part, circumstances) else { continue };
                if decision > judged.decision {
                    judged = Judgement { decision, because: vec![because] };
                } else if decision == judged.decision
                    && decision != Decision::Allow
                    && !judged.because.contains(&because)
                {
                    judged.because.push(because);
                }
            }
        }
        judged
    }
}

impl PolicyLayer {
    fn judge(&self, action: &Action, part: &Part, about: Circumstances<'_>) -> Option<(Decision, String)> {
        let found = self.policy.rules.iter().enumerate().find(|(_, rule)| rule.matches(action, part, about));
        if let Some((index, rule)) = found {
            return Some((rule.decision, self.source(index, rule)));
        }
        let default = self.policy.default.filter(|_| !part.is_mentioned)?;
        Some((default, format!("{}: what no rule names", self.origin)))
    }

    /// Which rule it is and why it is there: `the org, rule 3: no pushes by hand`.
    pub(super) fn source(&self, index: usize, rule: &PolicyRule) -> String {
        let why = rule.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("{}, rule {}{why}", self.origin, index + 1)
    }
}

impl PolicyRule {
    fn matches(&self, action: &Action, part: &Part, about: Circumstances<'_>) -> bool {
        let lets = self.decision == Decision::Allow;
        let tool = self.tools.is_empty() || self.tools.iter().any(|pattern| pattern.matches(&action.tool));
        let kind = self.kinds.is_empty() || self.kinds.contains(&part.kind);
        let role = self.roles.is_empty() || self.roles.contains(&about.role);
        let risk = self.risk.is_none_or(|least| about.risk >= least);
        if self.is_over || !(tool && kind && role && risk) {
            return false;
        }
        let names_any = !(self.commands.is_empty() && self.paths.is_empty() && self.hosts.is_empty());
        let command = self.commands.is_empty() || self.matches_command(&part.object, lets);
        let path = self.paths.is_empty() || self.matches_path(&part.object, about.place, lets);
        let host = self.hosts.is_empty() || self.matches_host(&part.object, lets);
        command && path && host && (names_any || !part.is_mentioned)
    }

    fn matches_command(&self, object: &Object, lets: bool) -> bool {
        let Object::Command { shape, by_name, is_hidden } = object else { return false };
        if lets {
            return !is_hidden && self.commands.iter().any(|pattern| pattern.matches_command(shape));
        }
        // Of a program that is put together when it runs, every rule could speak: then none does but those of everything.
        let is_built = shape.split(' ').next().is_some_and(|program| program.contains(shell::HOLE));
        let matched = |pattern: &TextPattern, shape: &str| match is_built {
            true => pattern.matches_command(shape),
            false => pattern.might_match_command(shape),
        };
        let mut shapes = std::iter::once(shape).chain(by_name);
        shapes.any(|shape| self.commands.iter().any(|pattern| matched(pattern, shape)))
    }

    fn matches_path(&self, object: &Object, place: Place<'_>, lets: bool) -> bool {
        let Object::Path(path) = object else { return false };
        let Some(inner) = place.within(path) else {
            // Outside the workspace only the pattern of everything speaks of it, and it lets nothing through there.
            return !lets && self.paths.iter().any(|pattern| pattern.as_str() == "**");
        };
        let inner = inner.as_bytes();
        self.paths.iter().any(|pattern| match lets {
            true => pattern.matches(inner),
            false => pattern.matches_ignoring_case(inner),
        })
    }

    fn matches_host(&self, object: &Object, lets: bool) -> bool {
        let Object::Host(host) = object else { return false };
        let (name, port) = host
            .rsplit_once(':')
            .and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)))
            .map_or((host.as_str(), None), |(name, port)| (name, Some(port)));
        self.hosts.iter().any(|pattern| {
            let any_port = !lets && means_any_port(pattern);
            pattern.matches_name(name) && (any_port || port.is_none_or(|port| port == pattern.port()))
        })
    }
}

/// Whether a rule that asks or denies means a host on every port: unless it names another one than the usual.
pub(super) const fn means_any_port(pattern: &HostPattern) -> bool {
    pattern.port() == DEFAULT_PORT
}

#[cfg(test)]
mod tests;

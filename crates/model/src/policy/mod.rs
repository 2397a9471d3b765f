//! Policies: which actions of an agent are let through, asked about, or denied.
//!
//! Promises: layers only add up: across them the strictest decision holds, so nobody weakens an org's policy from below;
//! within one layer the first rule that matches decides, as in a firewall; a compound command is as strict as its
//! strictest part; what can't be read is matched as a whole.
//!
//! A policy asks and advises through the agent's own protocol. The wall is the warrant: what it does not grant can't be
//! had with any answer.

pub mod shell;
pub mod urls;

use crate::action::{Action, ActionKind};
use crate::agent::{AgentRole, ChoiceError, choice};
use crate::approval::Risk;
use crate::risk::Place;
use crate::warrant::{HostPattern, PathPattern};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

choice!(
    /// What is done with an action, from lenient to strict.
    Decision, "a decision", {
        /// It goes on.
        Allow = "allow",
        /// A person is asked first.
        Ask = "ask",
        /// It does not happen.
        Deny = "deny",
    }
);

/// A pattern over a text without structure: `*` stands for any characters, none included.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TextPattern(String);

/// The text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has 1 to 1000 characters and no control characters")]
pub struct TextPatternError;

impl TextPattern {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether all of `text` is matched.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    retry = Some((p + 1, t));
                    p += 1;
                }
                Some(byte) if text.get(t) == Some(byte) => {
                    p += 1;
                    t += 1;
                }
                _ => match retry {
                    Some((after, from)) => {
                        retry = Some((after, from + 1));
                        p = after;
                        t = from + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
    }
}

impl FromStr for TextPattern {
    type Err = TextPatternError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = (1..=1000).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        good.then(|| Self(text.to_owned())).ok_or(TextPatternError)
    }
}

impl TryFrom<String> for TextPattern {
    type Error = TextPatternError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TextPattern> for String {
    fn from(pattern: TextPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for TextPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One rule. Every list that is not empty has to match; within a list one entry is enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    /// What is done.
    pub decision: Decision,
    /// Tools, in the agent's words: `Bash`, `mcp__*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<TextPattern>,
    /// Kinds of actions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<ActionKind>,
    /// Commands: `git push *`, `terraform *`. A simple command matches as its words joined by one space.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<TextPattern>,
    /// Paths in the repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathPattern>,
    /// Hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    /// Roles of the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<AgentRole>,
    /// Actions of at least this risk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
    /// Why, for people and for the agent that is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Most rules of one policy.
pub const MOST_RULES: usize = 500;

/// The rules of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// What is done with what no rule names; absent: this layer has no opinion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Decision>,
    /// The rules; the first that matches decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PolicyRule>,
}

impl Policy {
    /// Whether it says nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.default.is_none() && self.rules.is_empty()
    }

    /// Whether an action could be asked about or denied by it.
    #[must_use]
    pub fn restricts(&self) -> bool {
        self.default.is_some_and(|default| default != Decision::Allow)
            || self.rules.iter().any(|rule| rule.decision != Decision::Allow)
    }
}

/// Whose policy a layer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", content = "name", rename_all = "snake_case")]
pub enum PolicyOrigin {
    /// The org.
    Org,
    /// A project of it.
    Project(String),
    /// The repository's `tipstaff.toml` at the base commit.
    Repository,
    /// The agent's profile.
    Agent(String),
    /// The options of the run.
    Run,
}

impl fmt::Display for PolicyOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Org => f.write_str("the org"),
            Self::Project(name) => write!(f, "project {name}"),
            Self::Repository => f.write_str("the repository"),
            Self::Agent(name) => write!(f, "agent {name}"),
            Self::Run => f.write_str("the run"),
        }
    }
}

/// A policy and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLayer {
    /// Whose.
    pub origin: PolicyOrigin,
    /// The rules.
    pub policy: Policy,
}

/// All layers of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Policies(pub Vec<PolicyLayer>);

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
enum Part<'a> {
    Whole,
    Command(&'a str),
    Path(&'a str),
    Host(&'a str),
}

impl Policies {
    /// Whether any layer could ask about an action or deny one.
    #[must_use]
    pub fn restricts(&self) -> bool {
        self.0.iter().any(|layer| layer.policy.restricts())
    }

    /// What is done with an action. Without any opinion it is let through: the warrant is the wall.
    #[must_use]
    pub fn judge(&self, action: &Action, circumstances: Circumstances<'_>) -> Judgement {
        let commands: Vec<String> = action
            .commands
            .iter()
            .flat_map(|text| shell::commands(text))
            .map(|command| command.text())
            .collect();
        let mut parts: Vec<Part<'_>> = commands.iter().map(|text| Part::Command(text)).collect();
        parts.extend(action.paths.iter().map(|path| Part::Path(path)));
        parts.extend(action.hosts.iter().map(|host| Part::Host(host)));
        if parts.is_empty() {
            parts.push(Part::Whole);
        }
        let mut judged = Judgement { decision: Decision::Allow, because: Vec::new() };
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
    fn judge(
        &self,
        action: &Action,
        part: &Part<'_>,
        about: Circumstances<'_>,
    ) -> Option<(Decision, String)> {
        let found = self.policy.rules.iter().enumerate().find(|(_, rule)| rule.matches(action, part, about));
        if let Some((index, rule)) = found {
            let why = rule.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            return Some((rule.decision, format!("{}, rule {}{why}", self.origin, index + 1)));
        }
        let default = self.policy.default?;
        Some((default, format!("{}: what no rule names", self.origin)))
    }
}

impl PolicyRule {
    fn matches(&self, action: &Action, part: &Part<'_>, about: Circumstances<'_>) -> bool {
        let any = |list: &[TextPattern], text: &str| list.iter().any(|pattern| pattern.matches(text));
        let tool = self.tools.is_empty() || any(&self.tools, &action.tool);
        let kind = self.kinds.is_empty() || self.kinds.contains(&action.kind);
        let role = self.roles.is_empty() || self.roles.contains(&about.role);
        let risk = self.risk.is_none_or(|least| about.risk >= least);
        let command =
            self.commands.is_empty() || matches!(part, Part::Command(text) if any(&self.commands, text));
        let path =
            self.paths.is_empty() || matches!(part, Part::Path(path) if self.matches_path(path, about.place));
        let host = self.hosts.is_empty() || matches!(part, Part::Host(host) if self.matches_host(host));
        tool && kind && role && risk && command && path && host
    }

    fn matches_path(&self, path: &str, place: Place<'_>) -> bool {
        let inner = place.within(path);
        self.paths.iter().any(|pattern| match &inner {
            Some(inner) => pattern.matches_ignoring_case(inner.as_bytes()),
            // Outside the workspace only the pattern of everything speaks of it.
            None => pattern.as_str() == "**",
        })
    }

    fn matches_host(&self, host: &str) -> bool {
        let (name, port) = host
            .rsplit_once(':')
            .and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)))
            .map_or((host, None), |(name, port)| (name, Some(port)));
        self.hosts.iter().any(|pattern| pattern.matches(name, port.unwrap_or(pattern.port())))
    }
}

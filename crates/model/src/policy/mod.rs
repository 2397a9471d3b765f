//! Policies: which actions of an agent are let through, asked about, or denied.
//!
//! Promises: layers only add up: across them the strictest decision holds, so nobody weakens an org's policy from below;
//! within one layer the first rule that matches decides, as in a firewall; a compound command is as strict as its
//! strictest part; what can't be read is matched as a whole.
//!
//! A policy asks and advises through the agent's own protocol. The wall is the warrant: what it does not grant can't be
//! had with any answer.

mod check;
mod judge;
pub mod shell;
mod text;
pub mod urls;
mod walls;

pub use check::{PolicyError, PolicyFlaw, PolicyRemark, digest};
pub use judge::{Circumstances, Judgement};
pub use text::{TextPattern, TextPatternError};
pub use walls::{Wall, Walls};

use crate::action::ActionKind;
use crate::agent::{AgentRole, ChoiceError, choice};
use crate::approval::Risk;
use crate::budget::CalendarDay;
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

/// One rule. Every list that is not empty has to match; within a list one entry is enough. An action is judged part by
/// part (each command, path and host), so a rule names at most one of commands, paths and hosts.
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
    /// The last day, in UTC, on which it counts; else it counts until it is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "day")]
    pub until: Option<CalendarDay>,
    /// Why, for people and for the agent that is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether its last day is over, see [`Policies::at`].
    #[serde(skip)]
    pub is_over: bool,
}

impl PolicyRule {
    /// A rule about every action.
    #[must_use]
    pub const fn new(decision: Decision) -> Self {
        Self {
            decision,
            tools: Vec::new(),
            kinds: Vec::new(),
            commands: Vec::new(),
            paths: Vec::new(),
            hosts: Vec::new(),
            roles: Vec::new(),
            risk: None,
            until: None,
            reason: None,
            is_over: false,
        }
    }
}

mod day {
    use super::CalendarDay;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer>(day: &Option<CalendarDay>, to: S) -> Result<S::Ok, S::Error> {
        match day {
            Some(day) => to.collect_str(day),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<CalendarDay>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

/// Most rules of one policy.
pub const MOST_RULES: usize = 500;
/// Most entries of one list of a rule.
pub const MOST_ENTRIES: usize = 200;
/// Longest reason of a rule, in characters.
pub const LONGEST_REASON: usize = 300;
/// Largest file of a policy, in bytes.
pub const LARGEST_POLICY: usize = 256 * 1024;

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
    /// The options of a run above it.
    RunAbove,
    /// One that is tried out.
    Candidate,
}

impl fmt::Display for PolicyOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Org => f.write_str("the org"),
            Self::Project(name) => write!(f, "project {name}"),
            Self::Repository => f.write_str("the repository"),
            Self::Agent(name) => write!(f, "agent {name}"),
            Self::Run => f.write_str("the run"),
            Self::RunAbove => f.write_str("the run above"),
            Self::Candidate => f.write_str("the candidate"),
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

/// The decision of a whole policy's rules is taken in the order of the file; a policy that stands in a file of its own has
/// the same form as in `tipstaff.toml`: the table `[policy]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// The table.
    pub policy: Policy,
}

/// All layers of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Policies(pub Vec<PolicyLayer>);

impl Policies {
    /// Whether any layer could ask about an action or deny one.
    #[must_use]
    pub fn restricts(&self) -> bool {
        self.0.iter().any(|layer| layer.policy.restricts())
    }

    /// The same at a moment, in milliseconds since the Unix epoch: rules whose last day is over don't count any more.
    #[must_use]
    pub fn at(mut self, now_ms: i64) -> Self {
        let today = CalendarDay::at(now_ms);
        for rule in self.0.iter_mut().flat_map(|layer| &mut layer.policy.rules) {
            rule.is_over = rule.until.is_some_and(|last| last < today);
        }
        self
    }

    /// Adds a layer, unless it says nothing.
    pub fn add(&mut self, origin: PolicyOrigin, policy: Policy) {
        if !policy.is_empty() {
            self.0.push(PolicyLayer { origin, policy });
        }
    }
}

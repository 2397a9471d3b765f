//! The events of a run: its append-only story, as people watch and replay it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The run moved to another state.
    State,
    /// A line or piece of standard output.
    Stdout,
    /// A line or piece of standard error.
    Stderr,
    /// Something was refused.
    Refusal,
    /// A push was accepted.
    Push,
    /// The files that differ from the base.
    Files,
    /// A remark of ours: a limit was reached, output was dropped.
    Notice,
    /// An agent's event: the body is an [`AgentEvent`](crate::AgentEvent).
    Agent,
    /// A step of the verification: a command that began, a piece of its output, its end.
    Verify,
    /// A question to a person, or what became of it: the body is an [`Approval`](crate::Approval).
    Approval,
    /// What a person told the run: the body is a [`Steer`](crate::Steer) with its state.
    Steer,
    /// The set-up of the repository: its beginning, a piece of its output, its end.
    Setup,
}

impl EventKind {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Refusal => "refusal",
            Self::Push => "push",
            Self::Files => "files",
            Self::Notice => "notice",
            Self::Agent => "agent",
            Self::Verify => "verify",
            Self::Approval => "approval",
            Self::Steer => "steer",
            Self::Setup => "setup",
        }
    }

    /// The kind with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::State,
            Self::Stdout,
            Self::Stderr,
            Self::Refusal,
            Self::Push,
            Self::Files,
            Self::Notice,
            Self::Agent,
            Self::Verify,
            Self::Approval,
            Self::Steer,
            Self::Setup,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == word)
    }
}

/// An event before it has a sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventDraft {
    /// What kind.
    pub kind: EventKind,
    /// When, in milliseconds since the Unix epoch.
    pub at: i64,
    /// The body: for output `{"text": …}`.
    pub body: Value,
}

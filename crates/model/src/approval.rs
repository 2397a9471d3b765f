//! Approvals: what a person is asked, and what they answer.
//!
//! A question is bound to the digest of the exact action under one warrant. It is answered once, used once, and a question
//! that nobody answers in time means no.

use crate::action::{Action, ActionDigest};
use crate::agent::{ChoiceError, choice};
use crate::id::{ApprovalId, RunId, WarrantId};
use crate::warrant::PathPattern;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

choice!(
    /// How much an action can break, by our own reckoning; never by what the agent says of it.
    Risk, "a risk", {
        /// It looks, within the workspace.
        Low = "low",
        /// It changes or executes something within what the warrant grants.
        Medium = "medium",
        /// It destroys, reaches outside the workspace, or touches what the warrant does not grant.
        High = "high",
        /// It would take effect outside, and can't be taken back.
        Critical = "critical",
    }
);

choice!(
    /// Where a question stands.
    ApprovalState, "a state of an approval", {
        /// Nobody has answered.
        Pending = "pending",
        /// A person, or an answer that they gave before, said yes; the agent was not told yet.
        Allowed = "allowed",
        /// Somebody said no.
        Denied = "denied",
        /// Nobody answered in time, which means no.
        Expired = "expired",
        /// The agent no longer waits: its turn or its run ended.
        Withdrawn = "withdrawn",
        /// The yes was used: the agent was told, once.
        Used = "used",
    }
);

impl ApprovalState {
    /// Whether nothing follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Allowed)
    }
}

/// How far a yes reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scope", rename_all = "snake_case")]
pub enum ApprovalScope {
    /// This action, once.
    Once,
    /// Actions of the same kind and tool, with the same commands, paths and hosts, until the run ends.
    Run,
    /// Changes to paths that one of these patterns matches, until the run ends.
    Paths {
        /// The patterns; at least one.
        patterns: Vec<PathPattern>,
    },
}

/// What a person says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalAnswer {
    /// Yes or no.
    pub allow: bool,
    /// How far a yes reaches; a no is for this action.
    #[serde(flatten)]
    pub scope: ApprovalScope,
    /// Until when a yes that reaches further is good, in milliseconds since the Unix epoch; else until the run ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Why, in the person's words; the agent is told with a no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A question, as the worker puts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// Its id, made by the worker: asking twice with one id asks once.
    pub id: ApprovalId,
    /// The warrant in force.
    pub warrant: WarrantId,
    /// The digest of the exact action.
    pub digest: ActionDigest,
    /// The action, redacted: what a person reads.
    pub action: Action,
    /// How much it can break.
    pub risk: Risk,
    /// Why it is asked and why the risk is what it is; for people.
    pub because: Vec<String>,
    /// When it was asked, in milliseconds since the Unix epoch.
    pub asked_at: i64,
    /// From when on nobody's answer counts and it is denied, in milliseconds since the Unix epoch.
    pub expires_at: i64,
}

/// A question and where it stands, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The run.
    pub run: RunId,
    /// The question.
    #[serde(flatten)]
    pub request: ApprovalRequest,
    /// Where it stands.
    pub state: ApprovalState,
    /// The answer, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<ApprovalAnswer>,
    /// Who answered, such as `member:<id>`, or `approval:<id>` where an earlier answer covers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// When, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<i64>,
}

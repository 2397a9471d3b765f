//! Steering: what a person tells a run that goes on.

use crate::agent::{ChoiceError, choice};
use crate::id::SteerId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a person wants of a running agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SteerKind {
    /// It is told this; it reads it before its next turn, or at once where its engine can.
    Message {
        /// The words.
        text: String,
    },
    /// Its turn ends; it waits for what it is told next, and ends when there is nothing.
    Interrupt,
    /// Every process of the run stands still.
    Pause,
    /// It goes on.
    Resume,
}

impl SteerKind {
    /// The stable word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Message { .. } => "message",
            Self::Interrupt => "interrupt",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

choice!(
    /// What became of it.
    SteerState, "a state of steering", {
        /// The worker has not seen it.
        Waiting = "waiting",
        /// The agent was told, or the processes were stopped or let go.
        Taken = "taken",
        /// It can't be done with this engine or in this state; the note says why.
        Refused = "refused",
    }
);

/// One piece of steering on its way to a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steer {
    /// Its id.
    pub id: SteerId,
    /// What is wanted.
    #[serde(flatten)]
    pub kind: SteerKind,
    /// Who wants it, such as `member:<id>`.
    pub by: String,
    /// When it was said, in milliseconds since the Unix epoch.
    pub at: i64,
}

//! Steering: what a person tells a run that goes on.

use crate::agent::{ChoiceError, choice};
use crate::id::SteerId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest message, in bytes.
pub const LONGEST_MESSAGE: usize = 16 * 1024;
/// Most pieces of steering of one run that wait for its worker.
pub const MOST_WAITING: u64 = 64;

/// The words can't be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SteerError {
    /// Nothing is said.
    #[error("the message is empty: say something")]
    Empty,
    /// Too much is said.
    #[error(
        "the message has {0} bytes, and at most {LONGEST_MESSAGE} are sent: put long text into a file of the repository"
    )]
    TooLong(usize),
    /// Something that is no text is said.
    #[error("the message holds control characters: only line ends and tabs may be sent")]
    Control,
}

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
    /// Checks what is said: 1 byte to 16 KiB, no control characters but line ends and tabs.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), SteerError> {
        let Self::Message { text } = self else { return Ok(()) };
        if text.trim().is_empty() {
            return Err(SteerError::Empty);
        }
        if text.len() > LONGEST_MESSAGE {
            return Err(SteerError::TooLong(text.len()));
        }
        let control = text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
        if control { Err(SteerError::Control) } else { Ok(()) }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_text_of_a_bounded_length() {
        let check = |text: &str| SteerKind::Message { text: text.to_owned() }.check();
        assert_eq!(check("Look at\n\tsrc/main.rs – först"), Ok(()));
        assert_eq!(check(&"x".repeat(LONGEST_MESSAGE)), Ok(()));
        assert_eq!(check(" \n"), Err(SteerError::Empty));
        assert_eq!(check(&"x".repeat(LONGEST_MESSAGE + 1)), Err(SteerError::TooLong(LONGEST_MESSAGE + 1)));
        for bad in ["\u{1b}[2J", "a\rb", "\0", "a\u{85}", "\u{7f}"] {
            assert_eq!(check(bad), Err(SteerError::Control), "{bad:?}");
        }
        assert_eq!(SteerKind::Pause.check(), Ok(()));
    }
}

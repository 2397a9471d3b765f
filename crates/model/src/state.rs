//! The states of a task and of its runs, and which may follow which.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Accepted and waiting for a worker.
    Queued,
    /// A worker makes the workspace and the sandbox.
    Preparing,
    /// The command or agent works.
    Running,
    /// It waits for a person.
    NeedsInput,
    /// The result is collected and checked.
    Verifying,
    /// Ended well.
    Done,
    /// Ended badly.
    Failed,
    /// Ended by a person.
    Cancelled,
    /// Its process died; found by a later start.
    Interrupted,
}

/// A state was not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a state: queued, preparing, running, needs_input, verifying, done, failed, cancelled, interrupted"
)]
pub struct StateError(String);

impl RunState {
    /// All states, in the order of a good run.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Preparing,
        Self::Running,
        Self::NeedsInput,
        Self::Verifying,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
        Self::Interrupted,
    ];

    /// The word used in the database, the API and the terminal.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::NeedsInput => "needs_input",
            Self::Verifying => "verifying",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether nothing follows, except a new attempt of the task.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled | Self::Interrupted)
    }

    /// Whether a worker may move a run from this state to `next`.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use RunState::{
            Cancelled, Done, Failed, Interrupted, NeedsInput, Preparing, Queued, Running, Verifying,
        };
        match (self, next) {
            (Queued, Preparing | Cancelled)
            | (Preparing, Running)
            | (Running, NeedsInput | Verifying)
            | (NeedsInput, Running | Verifying)
            | (Verifying, Done) => true,
            (Preparing | Running | NeedsInput | Verifying, Failed | Cancelled | Interrupted) => true,
            // A refused start fails before anything was prepared.
            (Queued, Failed | Interrupted) => true,
            // A retry of a task whose worker died.
            (Interrupted, Queued) => true,
            _ => false,
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RunState {
    type Err = StateError;
    fn from_str(text: &str) -> Result<Self, StateError> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| StateError(text.chars().take(40).collect()))
    }
}

/// Why a run ended. The word is stable; it decides the exit code of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// The command ended with 0 and its result was kept.
    Completed,
    /// The command ended with another code.
    CommandFailed,
    /// A signal that was not ours ended the command.
    Signalled,
    /// The agent ended without having done the work, whatever its exit code.
    AgentFailed,
    /// The set-up of the repository failed; the command or agent never started.
    SetupFailed,
    /// A command of the verification failed.
    VerifyFailed,
    /// The time was over.
    TimedOut,
    /// The agent did nothing for too long.
    Stalled,
    /// The money was spent.
    BudgetExceeded,
    /// The memory bound was reached.
    OutOfMemory,
    /// The disk bound was reached.
    OutOfDisk,
    /// A person cancelled it.
    CancelledByPerson,
    /// The warrant was revoked.
    WarrantRevoked,
    /// The lease went to another worker.
    LeaseLost,
    /// The process that ran it died.
    ProcessDied,
    /// Policy, warrant or sandbox refused the start.
    Refused,
    /// The result could not leave the sandbox.
    CollectFailed,
    /// Something of ours broke.
    Internal,
}

impl ExitReason {
    /// All reasons.
    pub const ALL: [Self; 18] = [
        Self::Completed,
        Self::CommandFailed,
        Self::Signalled,
        Self::AgentFailed,
        Self::SetupFailed,
        Self::VerifyFailed,
        Self::TimedOut,
        Self::Stalled,
        Self::BudgetExceeded,
        Self::OutOfMemory,
        Self::OutOfDisk,
        Self::CancelledByPerson,
        Self::WarrantRevoked,
        Self::LeaseLost,
        Self::ProcessDied,
        Self::Refused,
        Self::CollectFailed,
        Self::Internal,
    ];

    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::CommandFailed => "command_failed",
            Self::Signalled => "signalled",
            Self::AgentFailed => "agent_failed",
            Self::SetupFailed => "setup_failed",
            Self::VerifyFailed => "verify_failed",
            Self::TimedOut => "timed_out",
            Self::Stalled => "stalled",
            Self::BudgetExceeded => "budget_exceeded",
            Self::OutOfMemory => "out_of_memory",
            Self::OutOfDisk => "out_of_disk",
            Self::CancelledByPerson => "cancelled_by_person",
            Self::WarrantRevoked => "warrant_revoked",
            Self::LeaseLost => "lease_lost",
            Self::ProcessDied => "process_died",
            Self::Refused => "refused",
            Self::CollectFailed => "collect_failed",
            Self::Internal => "internal",
        }
    }

    /// The exit code of `tipstaff run`: 0 done, 1 the work failed, 3 refused, 4 budget, 5 timed out, 7 internal.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Completed => 0,
            Self::CommandFailed
            | Self::Signalled
            | Self::AgentFailed
            | Self::SetupFailed
            | Self::VerifyFailed
            | Self::OutOfMemory
            | Self::OutOfDisk
            | Self::CancelledByPerson
            | Self::ProcessDied
            | Self::CollectFailed => 1,
            Self::Refused | Self::WarrantRevoked => 3,
            Self::BudgetExceeded => 4,
            Self::TimedOut | Self::Stalled => 5,
            Self::LeaseLost | Self::Internal => 7,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ExitReason {
    type Err = StateError;
    fn from_str(text: &str) -> Result<Self, StateError> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| StateError(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_transitions() {
        let mut table = String::new();
        for from in RunState::ALL {
            let next: Vec<&str> =
                RunState::ALL.into_iter().filter(|to| from.may_become(*to)).map(RunState::as_str).collect();
            table.push_str(&format!("{from} -> {}\n", next.join(" ")));
        }
        insta::assert_snapshot!(table, @r"
        queued -> preparing failed cancelled interrupted
        preparing -> running failed cancelled interrupted
        running -> needs_input verifying failed cancelled interrupted
        needs_input -> running verifying failed cancelled interrupted
        verifying -> done failed cancelled interrupted
        done -> 
        failed -> 
        cancelled -> 
        interrupted -> queued
        ");
    }

    #[test]
    fn words_round_trip() {
        for state in RunState::ALL {
            assert_eq!(state.as_str().parse::<RunState>().unwrap(), state);
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        for reason in ExitReason::ALL {
            assert_eq!(reason.as_str().parse::<ExitReason>().unwrap(), reason);
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}

//! Exit codes, and how an error is told.

use crate::output::Output;
use serde_json::json;
use std::process::ExitCode;
use tipstaff_broker::BrokerError;
use tipstaff_runner::RunnerError;
use tipstaff_sandbox::SandboxError;
use tipstaff_seal::SealError;
use tipstaff_store::StoreError;

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The work failed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// Refused by policy, warrant or sandbox.
    Refused = 3,
    /// Something of ours broke.
    Internal = 7,
}

/// An error of the command line itself.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Problem {
    exit: Exit,
    code: &'static str,
    message: String,
}

impl Problem {
    /// Wrong usage: exit code 2.
    pub(crate) fn usage(code: &'static str, message: impl Into<String>) -> anyhow::Error {
        Self { exit: Exit::Usage, code, message: message.into() }.into()
    }

    /// The work failed: exit code 1.
    pub(crate) fn failed(code: &'static str, message: impl Into<String>) -> anyhow::Error {
        Self { exit: Exit::Failed, code, message: message.into() }.into()
    }

    /// Refused: exit code 3.
    pub(crate) fn refused(code: &'static str, message: impl Into<String>) -> anyhow::Error {
        Self { exit: Exit::Refused, code, message: message.into() }.into()
    }
}

/// The stable code and the exit code of an error.
pub(crate) fn classify(error: &anyhow::Error) -> (String, Exit) {
    for cause in error.chain() {
        if let Some(problem) = cause.downcast_ref::<Problem>() {
            return (problem.code.to_owned(), problem.exit);
        }
        if let Some(runner) = cause.downcast_ref::<RunnerError>() {
            let exit = match runner {
                RunnerError::Broker(inner) => of_broker(inner),
                _ => match runner.exit_reason().exit_code() {
                    1 => Exit::Failed,
                    3 => Exit::Refused,
                    _ => Exit::Internal,
                },
            };
            return (runner.code().to_owned(), exit);
        }
        if let Some(broker) = cause.downcast_ref::<BrokerError>() {
            return (broker.code().to_owned(), of_broker(broker));
        }
        if let Some(sandbox) = cause.downcast_ref::<SandboxError>() {
            let exit = if matches!(sandbox, SandboxError::CommandUnusable { .. }) {
                Exit::Failed
            } else {
                Exit::Refused
            };
            return (sandbox.code().to_owned(), exit);
        }
        if let Some(store) = cause.downcast_ref::<StoreError>() {
            return (store.code().to_owned(), Exit::Internal);
        }
        if let Some(seal) = cause.downcast_ref::<SealError>() {
            return (seal.code().to_owned(), Exit::Internal);
        }
    }
    ("internal".to_owned(), Exit::Internal)
}

/// A repository that can't be used is a mistake in what was asked for; a broken mirror is ours.
const fn of_broker(error: &BrokerError) -> Exit {
    match error {
        BrokerError::SourceUnsupported { .. }
        | BrokerError::SourceMissing { .. }
        | BrokerError::NotARepository { .. }
        | BrokerError::SourceUnreadable { .. }
        | BrokerError::SourceObjectFormat { .. }
        | BrokerError::SourceEmpty { .. }
        | BrokerError::SourceUnborn { .. }
        | BrokerError::BaseNotFound { .. }
        | BrokerError::BaseNotCommit { .. }
        | BrokerError::PathUnusable { .. } => Exit::Usage,
        BrokerError::SourceTooLarge { .. } | BrokerError::TreeTooLarge { .. } => Exit::Refused,
        _ => Exit::Internal,
    }
}

/// Tells the error and gives the exit code.
pub(crate) fn report(error: &anyhow::Error, output: &Output) -> ExitCode {
    let (code, exit) = classify(error);
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // A transparent wrapper says the same as what it wraps.
        if causes.last().is_none_or(|last| !last.contains(&text)) {
            causes.push(text);
        }
    }
    let message = tipstaff_seal::scrub::scrub_terminal(
        causes.join(": ").as_bytes(),
        tipstaff_seal::scrub::Colours::Remove,
    );
    if output.json {
        output.object(&json!({ "error": { "code": code, "message": message, "exit_code": exit as u8 } }));
    } else {
        output.error(&format!("{message} [{code}]"));
    }
    ExitCode::from(exit as u8)
}

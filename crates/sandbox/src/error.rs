//! Every way in which starting or judging a sandbox can fail.

use std::io;
use std::path::PathBuf;

/// Why a sandbox could not be had. No variant ever means "run it unconfined instead".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// bubblewrap is not installed where the configuration says.
    #[error("bubblewrap was not found at {}: install the package `bubblewrap`, or set its path", path.display())]
    BubblewrapMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The kernel refuses to create user namespaces.
    #[error("this machine refuses user namespaces ({reason}), so no command can be confined: {remedy}")]
    UserNamespacesOff {
        /// What was found.
        reason: String,
        /// What an administrator does about it.
        remedy: String,
    },
    /// A layer that the sandbox stands on cannot be had here.
    #[error("the sandbox layer `{layer}` does not hold here: {detail}")]
    LayerMissing {
        /// The layer's name as in the probe.
        layer: &'static str,
        /// What was found and what to do.
        detail: String,
    },
    /// The workspace's filesystem cannot be mounted with another owner, as a server running as root needs.
    #[error(
        "the filesystem of {} cannot be mounted for another owner: give the run a copy owned by its uid instead",
        path.display()
    )]
    IdMapUnsupported {
        /// The workspace or the warm checkout.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The workspace's filesystem cannot carry an overlay.
    #[error("an overlay over {} cannot be mounted: use a plain directory as the workspace", path.display())]
    OverlayUnsupported {
        /// The warm checkout.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// All run uids are in use.
    #[error(
        "all {count} run identities in {} are in use: end some runs, or run fewer at a time",
        lock_dir.display()
    )]
    IdentitiesExhausted {
        /// The directory of the locks.
        lock_dir: PathBuf,
        /// How many there are.
        count: u32,
    },
    /// What was asked for contradicts itself or a rule of the sandbox.
    #[error("the sandbox cannot be described like that: {reason}")]
    SpecInvalid {
        /// Which part, and what is allowed.
        reason: String,
    },
    /// A variable may not enter the sandbox.
    #[error("the variable {name} may not enter a sandbox: {reason}")]
    EnvironmentRefused {
        /// The variable's name. Never its value.
        name: String,
        /// Which rule refuses it.
        reason: &'static str,
    },
    /// The command itself cannot be executed inside.
    #[error("{program} cannot be executed in the sandbox: {reason}")]
    CommandUnusable {
        /// The program as asked for.
        program: String,
        /// Not found, not executable, or not allowed.
        reason: String,
    },
    /// A step of the start failed.
    #[error("starting the sandbox failed at `{step}`: {detail}")]
    StartFailed {
        /// The step.
        step: &'static str,
        /// What the kernel or bubblewrap said.
        detail: String,
    },
    /// The processes of a run could not be made to stand still, or to go on.
    #[error("the run could not be paused or resumed: {detail}; cancel it, or leave it be")]
    PauseFailed {
        /// What was found.
        detail: String,
    },
    /// An operation of the host's system failed.
    #[error("{action} failed")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl SandboxError {
    /// The stable name of this error, for logs, the API and the documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BubblewrapMissing { .. } => "sandbox-bubblewrap-missing",
            Self::UserNamespacesOff { .. } => "sandbox-user-namespaces-off",
            Self::LayerMissing { .. } => "sandbox-layer-missing",
            Self::IdMapUnsupported { .. } => "sandbox-idmap-unsupported",
            Self::OverlayUnsupported { .. } => "sandbox-overlay-unsupported",
            Self::IdentitiesExhausted { .. } => "sandbox-identities-exhausted",
            Self::SpecInvalid { .. } => "sandbox-spec-invalid",
            Self::EnvironmentRefused { .. } => "sandbox-environment-refused",
            Self::CommandUnusable { .. } => "sandbox-command-unusable",
            Self::StartFailed { .. } => "sandbox-start-failed",
            Self::PauseFailed { .. } => "sandbox-pause-failed",
            Self::Io { .. } => "sandbox-io",
        }
    }

    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }

    pub(crate) fn spec(reason: impl Into<String>) -> Self {
        Self::SpecInvalid { reason: reason.into() }
    }
}

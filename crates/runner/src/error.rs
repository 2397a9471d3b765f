//! What can go wrong while a lease is carried out.

use tipstaff_broker::BrokerError;
use tipstaff_engine::EngineError;
use tipstaff_model::{ControlPlaneError, EngineKind, ExitReason, Refusal, RunId};
use tipstaff_sandbox::SandboxError;

/// Why a run could not be carried out to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunnerError {
    /// The sandbox refused or failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Our git, the mirror or the quarantine failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The engine made no command line of the task.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The control plane did not take what it was told.
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    /// Hosts can't be inspected.
    #[error(transparent)]
    Inspection(#[from] tipstaff_broker::InspectionError),
    /// The warrant refused the start.
    #[error("{0}; {next}", next = .0.rule.next_step())]
    Refused(Refusal),
    /// The signature on the warrant is not the control plane's.
    #[error("the warrant's signature does not verify: {0}; nothing was started")]
    WarrantForged(String),
    /// A file operation of ours failed.
    #[error("{action} failed: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine's program is not on this machine.
    #[error(
        "the engine {engine} needs the program '{program}', which was not found: {install}; `tipstaff doctor` shows where it is looked for"
    )]
    EngineMissing {
        /// Which engine.
        engine: EngineKind,
        /// Its program.
        program: &'static str,
        /// How to install it.
        install: &'static str,
    },
    /// The engine's program is older than what we can read.
    #[error("the engine {engine} is version {found} here, older than {oldest}: {install}")]
    EngineTooOld {
        /// Which engine.
        engine: EngineKind,
        /// What was found.
        found: String,
        /// What is needed.
        oldest: &'static str,
        /// How to install it.
        install: &'static str,
    },
    /// The repository's own settings can't be used.
    #[error(
        "tipstaff.toml of the base commit can't be used: {0}; correct it and commit, or base the run on a commit without it"
    )]
    ProjectFile(String),
    /// The set-up of the repository failed.
    #[error(
        "the set-up of the repository failed: {0}; nothing else was started. Its output is in `tipstaff runs show --transcript`; correct the set-up, or leave it out with --no-setup"
    )]
    SetupFailed(String),
    /// The set-up of the base commit can't be used.
    #[error("the set-up of the base commit can't be used: {0}; or leave it out with --no-setup")]
    SetupUnusable(String),
    /// A file that the set-up wants from the person's tree is not copied.
    #[error(
        "setup.copy in tipstaff.toml names {path}, which is not copied: {why}; name another file, or leave the set-up out with --no-setup"
    )]
    SetupCopy {
        /// Which.
        path: String,
        /// Why not.
        why: String,
    },
    /// The work of the run that is continued can't be brought back.
    #[error(
        "the work of run {short} can't be brought back: {why}; apply its change with `tipstaff runs apply {short}`, and begin a new run on top of it",
        short = .run.short()
    )]
    EarlierWork {
        /// The run that is continued.
        run: RunId,
        /// Why.
        why: String,
    },
    /// The session that was kept of a run can't be used.
    #[error("the session that was kept of run {} can't be used: {why}; begin a new run instead", .run.short())]
    SessionUnusable {
        /// The run.
        run: RunId,
        /// Why.
        why: String,
    },
    /// Less than the reserve is free on the disk that holds the state.
    #[error(
        "only {free_mib} MiB are free on the disk of {place}; {wanted_mib} MiB are needed to start a run: free some, or move TIPSTAFF_HOME"
    )]
    DiskNearlyFull {
        /// What is free.
        free_mib: u64,
        /// What is needed.
        wanted_mib: u64,
        /// Where.
        place: String,
    },
}

impl RunnerError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Sandbox(error) => error.code(),
            Self::Broker(error) => error.code(),
            Self::Inspection(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::ControlPlane(ControlPlaneError::LeaseLost) => "lease-lost",
            Self::ControlPlane(_) => "control-plane-unavailable",
            Self::Refused(refusal) => refusal.rule.id(),
            Self::WarrantForged(_) => "warrant-forged",
            Self::EngineMissing { .. } => "engine-missing",
            Self::EngineTooOld { .. } => "engine-too-old",
            Self::ProjectFile(_) => "project-file",
            Self::SetupFailed(_) => "setup-failed",
            Self::SetupUnusable(_) => "setup-unusable",
            Self::SetupCopy { .. } => "setup-copy-refused",
            Self::Io { .. } => "runner-io",
            Self::EarlierWork { .. } => "earlier-work",
            Self::SessionUnusable { .. } => "session-unusable",
            Self::DiskNearlyFull { .. } => "disk-nearly-full",
        }
    }

    /// The reason that the run ends with.
    #[must_use]
    pub fn exit_reason(&self) -> ExitReason {
        match self {
            Self::Sandbox(SandboxError::CommandUnusable { .. }) => ExitReason::CommandFailed,
            Self::Sandbox(_) | Self::Refused(_) | Self::WarrantForged(_) => ExitReason::Refused,
            Self::EngineMissing { .. } | Self::EngineTooOld { .. } => ExitReason::AgentFailed,
            Self::Engine(_) | Self::ProjectFile(_) => ExitReason::CommandFailed,
            Self::ControlPlane(ControlPlaneError::LeaseLost) => ExitReason::LeaseLost,
            Self::SetupFailed(_) | Self::SetupUnusable(_) => ExitReason::SetupFailed,
            Self::SetupCopy { .. } => ExitReason::Refused,
            Self::DiskNearlyFull { .. } => ExitReason::OutOfDisk,
            Self::EarlierWork { .. } | Self::SessionUnusable { .. } => ExitReason::Internal,
            Self::Broker(_) | Self::Inspection(_) | Self::ControlPlane(_) | Self::Io { .. } => {
                ExitReason::Internal
            }
        }
    }

    pub(crate) fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

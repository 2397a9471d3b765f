//! What one sandbox is asked to be. Plain data: nothing here touches the system.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{INSIDE_WORK, RunIdentity, SandboxLimits};

/// Where the command's files come from. Inside it is always `/work`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workspace {
    /// A disposable layer over a shared read-only checkout. It survives the server, not a failure of the machine:
    /// what is to last leaves by a push.
    Overlay {
        /// The warm checkout. Never written. Owned by the server's user.
        lower: PathBuf,
        /// A directory whose files lie over the checkout and under the run's own layer: what a set-up made. Never
        /// written. Owned by one user throughout, who need not be the checkout's.
        over: Option<PathBuf>,
        /// A directory of this run, for `upper` (what it has written) and the kernel's own. All sandboxes that share
        /// it must have the same identity and run one after the other. Remove it with
        /// [`remove_tree`](crate::remove_tree) after the run.
        state: PathBuf,
    },
    /// A directory that belongs to this run alone. Files the command makes belong, on disk, to its owner.
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// An empty tmpfs of `tmp_bytes` that ends with the run.
    Empty,
}

/// Whether the workspace may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Every write fails, whoever asks.
    ReadOnly,
    /// Writes land in the run's own layer or directory.
    ReadWrite,
}

/// Which files may be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecPolicy {
    /// Any, the workspace's included.
    Any,
    /// Only installed programs: nothing that lives in the workspace, a temporary directory or the home.
    InstalledOnly,
}

/// Whether the sandbox has a way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BrokerListener {
    /// No network peer at all.
    Absent,
    /// A listening socket on 127.0.0.1:8080 inside is handed out as [`Running::listener`](crate::Running).
    HandedOut,
}

/// Where one standard stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stdio {
    /// `/dev/null`.
    Null,
    /// A pipe whose other end is in [`Running`](crate::Running).
    Pipe,
    /// The caller's own. Safe on a terminal: new session, no controlling terminal, no input injection.
    Inherit,
}

/// Where the three standard streams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StdioPolicy {
    /// Standard input.
    pub stdin: Stdio,
    /// Standard output.
    pub stdout: Stdio,
    /// Standard error.
    pub stderr: Stdio,
}

impl StdioPolicy {
    /// No input, both outputs piped.
    pub const PIPED_OUTPUT: Self = Self { stdin: Stdio::Null, stdout: Stdio::Pipe, stderr: Stdio::Pipe };
    /// All three piped.
    pub const PIPED: Self = Self { stdin: Stdio::Pipe, stdout: Stdio::Pipe, stderr: Stdio::Pipe };
    /// All three the caller's own.
    pub const INHERITED: Self =
        Self { stdin: Stdio::Inherit, stdout: Stdio::Inherit, stderr: Stdio::Inherit };
}

/// One installed tool that the command may read and execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolchainGrant {
    /// What it is called in plans and reports, for example `rustup`.
    pub name: String,
    /// Absolute install directories, each read-only inside at the same path as outside.
    pub directories: Vec<PathBuf>,
    /// Directories to put at the front of `PATH`; each inside one of `directories`.
    pub path_entries: Vec<PathBuf>,
    /// Variables that the tool needs to find itself, for example `RUSTUP_HOME`.
    pub env: Vec<(String, String)>,
}

/// A file or directory of the host that is visible, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOnlyMount {
    /// The path on the host.
    pub host: PathBuf,
    /// The absolute path inside.
    pub inside: PathBuf,
}

/// A directory of the run's own that lies in its home folder and outlasts the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeFolder {
    /// The directory on the host: the run's alone, and the run's user's. What is in it is the command's to make.
    pub host: PathBuf,
    /// The absolute path inside, below the home folder.
    pub inside: PathBuf,
}

/// Everything about one sandbox.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// Whose uid the run has outside. Held until the [`Running`](crate::Running) is dropped.
    pub identity: RunIdentity,
    /// The files.
    pub workspace: Workspace,
    /// Whether they may be written.
    pub access: Access,
    /// What may be executed.
    pub exec: ExecPolicy,
    /// The way out.
    pub broker: BrokerListener,
    /// How much of the machine.
    pub limits: SandboxLimits,
    /// Tools from outside `/usr`.
    pub grants: Vec<ToolchainGrant>,
    /// Other read-only files.
    pub read_only_mounts: Vec<ReadOnlyMount>,
    /// Parts of the home folder that outlast the sandbox: always writable, and executable as the rest of it is.
    pub home_folders: Vec<HomeFolder>,
    /// Variables besides the fixed ones; see [`environment_check`](crate::environment_check).
    pub env: Vec<(String, String)>,
    /// The command: a program (looked up in `PATH` inside when it has no slash) and its arguments.
    pub argv: Vec<OsString>,
    /// The working directory inside.
    pub cwd: PathBuf,
    /// The standard streams.
    pub stdio: StdioPolicy,
}

impl SandboxSpec {
    /// A sandbox with default limits, no grants, no way out, piped output and a writable workspace.
    pub fn new<A: Into<OsString>>(
        identity: RunIdentity,
        workspace: Workspace,
        argv: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            identity,
            workspace,
            access: Access::ReadWrite,
            exec: ExecPolicy::Any,
            broker: BrokerListener::Absent,
            limits: SandboxLimits::default(),
            grants: Vec::new(),
            read_only_mounts: Vec::new(),
            home_folders: Vec::new(),
            env: Vec::new(),
            argv: argv.into_iter().map(Into::into).collect(),
            cwd: PathBuf::from(INSIDE_WORK),
            stdio: StdioPolicy::PIPED_OUTPUT,
        }
    }
}

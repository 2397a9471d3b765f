//! A started sandbox.

use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;

use crate::SandboxError;

/// Why the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitCause {
    /// It ended by itself.
    Exited,
    /// A signal ended it.
    Signalled,
    /// [`Running::kill`] ended it.
    Killed,
    /// The kernel ended a process of the tree because the memory limit was reached.
    OutOfMemory,
    /// The process limit was reached, and the command failed.
    PidsExceeded,
}

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// The exit code; 128 + the signal's number when a signal ended it.
    pub code: i32,
    /// The signal, where one ended it.
    pub signal: Option<i32>,
    /// Why.
    pub cause: ExitCause,
}

impl Exit {
    /// Whether the command ended by itself with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == 0
    }
}

/// What the tree has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Processor time of all processes, in microseconds, where the cgroup tells.
    pub cpu_microseconds: Option<u64>,
    /// The highest memory use of the tree, in bytes, where the cgroup tells.
    pub memory_peak_bytes: Option<u64>,
}

/// A command in its sandbox. Dropping it kills the whole tree.
#[derive(Debug)]
pub struct Running {
    /// The write end of the command's standard input, when piped.
    pub stdin: Option<OwnedFd>,
    /// The read end of the command's standard output, when piped.
    pub stdout: Option<OwnedFd>,
    /// The read end of the command's standard error, when piped.
    pub stderr: Option<OwnedFd>,
    /// The listener on 127.0.0.1:8080 of the sandbox's own network, when asked for. Blocking mode.
    pub listener: Option<TcpListener>,
    pidfd: OwnedFd,
}

impl Running {
    /// A descriptor that becomes readable when the command has ended; then [`Running::try_wait`] answers.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// How the command ended, if it has.
    ///
    /// # Errors
    /// [`SandboxError::Io`] when the kernel refuses the wait.
    pub fn try_wait(&mut self) -> Result<Option<Exit>, SandboxError> {
        Err(SandboxError::StartFailed { step: "wait", detail: "not built yet".into() })
    }

    /// Blocks until the command and its whole tree have ended. Closes our end of a piped standard input first.
    ///
    /// # Errors
    /// [`SandboxError::Io`] when the kernel refuses the wait.
    pub fn wait(&mut self) -> Result<Exit, SandboxError> {
        Err(SandboxError::StartFailed { step: "wait", detail: "not built yet".into() })
    }

    /// Kills the whole tree at once. Returns when none of it is left.
    ///
    /// # Errors
    /// [`SandboxError::Io`] when the kernel refuses.
    pub fn kill(&mut self) -> Result<(), SandboxError> {
        Ok(())
    }

    /// What the tree has used so far; still answers after the end.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage::default()
    }
}

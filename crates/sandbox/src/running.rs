//! A started sandbox.

use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde::Serialize;

use crate::cgroup::{Counters, RunCgroup};
use crate::{RunIdentity, SandboxError};

/// How long the last processes may take to go by themselves, in seconds.
const FAREWELL_SECONDS: i64 = 1;
/// How long the last processes of a killed tree may take to go, in seconds.
const REAP_SECONDS: i64 = 10;

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
    /// It failed, and the kernel had killed a process of the tree because the memory limit was reached.
    OutOfMemory,
    /// It failed, and the process limit had been reached.
    PidsExceeded,
}

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// The exit code; 128 + the signal's number when a signal ended it.
    pub code: i32,
    /// The signal, where one ended it. (A command that exits with 128 + n by itself looks the same, as in a shell.)
    pub signal: Option<i32>,
    /// Why.
    pub cause: ExitCause,
}

impl Exit {
    /// Whether the command ended by itself with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == 0 && self.cause == ExitCause::Exited
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
    pub(crate) tree: Tree,
}

/// The processes and groups of a run.
#[derive(Debug)]
pub(crate) struct Tree {
    /// bubblewrap's monitor, our child.
    pub(crate) monitor: OwnedFd,
    /// The first process of the pid namespace: when it ends, the kernel has ended all others.
    pub(crate) first: Option<OwnedFd>,
    pub(crate) cgroup: RunCgroup,
    /// Keeps the run's uid from being given to another run.
    pub(crate) _identity: RunIdentity,
    pub(crate) counters: Option<Counters>,
    pub(crate) killed: bool,
    pub(crate) paused: Option<crate::pause::Pause>,
    pub(crate) exit: Option<Exit>,
}

impl Running {
    /// A descriptor that becomes readable when the command has ended; then [`Running::try_wait`] answers.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.tree.monitor.as_fd()
    }

    /// How the command ended, if it has. Then nothing of its tree is left.
    ///
    /// # Errors
    /// [`SandboxError::Io`] when the kernel refuses the wait.
    pub fn try_wait(&mut self) -> Result<Option<Exit>, SandboxError> {
        self.tree.wait(WaitIdOptions::NOHANG)
    }

    /// Blocks until the command and its whole tree have ended. Closes our end of a piped standard input first.
    ///
    /// # Errors
    /// [`SandboxError::Io`] when the kernel refuses the wait.
    pub fn wait(&mut self) -> Result<Exit, SandboxError> {
        self.stdin = None;
        let unanswered =
            || SandboxError::StartFailed { step: "wait", detail: "the kernel did not answer".into() };
        self.tree.wait(WaitIdOptions::empty())?.ok_or_else(unanswered)
    }

    /// Kills the whole tree at once. Returns when none of it is left. After the end it does nothing.
    ///
    /// # Errors
    /// [`SandboxError::Io`] when the kernel refuses.
    pub fn kill(&mut self) -> Result<(), SandboxError> {
        self.tree.kill()
    }

    /// The uid of the namespace's first process, as the host's process table has it.
    pub(crate) fn outer_uid(&self) -> Option<u32> {
        let first = self.tree.first.as_ref()?.as_raw_fd();
        let field = |path: String, name: &str| {
            let text = std::fs::read_to_string(path).ok()?;
            let value = text.lines().find_map(|line| line.strip_prefix(name))?;
            value.split_whitespace().next()?.parse::<u32>().ok()
        };
        let pid = field(format!("/proc/self/fdinfo/{first}"), "Pid:")?;
        field(format!("/proc/{pid}/status"), "Uid:")
    }

    /// What the tree has used so far; still answers after the end.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let counters = self.tree.counters.unwrap_or_else(|| self.tree.cgroup.counters());
        Usage { cpu_microseconds: counters.cpu_microseconds, memory_peak_bytes: counters.memory_peak_bytes }
    }
}

impl Tree {
    pub(crate) fn kill(&mut self) -> Result<(), SandboxError> {
        if self.exit.is_some() {
            return Ok(());
        }
        self.killed = true;
        self.strike();
        self.wait(WaitIdOptions::empty()).map(|_| ())
    }

    /// Every way there is; each alone would do once the command runs.
    fn strike(&self) {
        self.cgroup.kill();
        for process in self.first.iter().chain([&self.monitor]) {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }

    pub(crate) fn wait(&mut self, how: WaitIdOptions) -> Result<Option<Exit>, SandboxError> {
        if self.exit.is_some() {
            return Ok(self.exit);
        }
        let status = loop {
            match waitid(WaitId::PidFd(self.monitor.as_fd()), WaitIdOptions::EXITED | how) {
                Err(rustix::io::Errno::INTR) => {}
                other => {
                    break other.map_err(|error| SandboxError::io("waiting for a sandbox")(error.into()))?;
                }
            }
        };
        let Some(status) = status else { return Ok(None) };
        // The monitor reports the command's end before the stragglers are gone. Its own end kills them; should
        // that not be enough, there are other ways.
        if !self.await_last(FAREWELL_SECONDS) {
            self.strike();
            self.await_last(REAP_SECONDS);
        }
        let counters = self.cgroup.counters();
        let code = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => 255,
        };
        let signal = (129..=192).contains(&code).then(|| code - 128);
        let cause = match (code, signal) {
            _ if self.killed => ExitCause::Killed,
            (0, _) => ExitCause::Exited,
            _ if counters.out_of_memory_kills > 0 => ExitCause::OutOfMemory,
            _ if counters.pids_refusals > 0 => ExitCause::PidsExceeded,
            (_, Some(_)) => ExitCause::Signalled,
            (_, None) => ExitCause::Exited,
        };
        self.counters = Some(counters);
        self.exit = Some(Exit { code, signal, cause });
        self.cgroup.remove();
        Ok(self.exit)
    }

    /// Whether the first process, and so all of the pid namespace, is gone.
    fn await_last(&self, seconds: i64) -> bool {
        let Some(first) = &self.first else { return false };
        let patience = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let mut watched = [PollFd::new(first, PollFlags::IN)];
        loop {
            match poll(&mut watched, Some(&patience)) {
                Err(rustix::io::Errno::INTR) => {}
                answer => return answer.is_ok_and(|ready| ready > 0),
            }
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

//! Making every process of a run stand still, and letting them go.
//!
//! Promise: when a pause returns well, nothing of the run's tree moves, whatever it forks; a kill still works. The kernel
//! freezes the run's v2 group where there is one. Where there is none, every process gets SIGSTOP, again and again until no
//! process is found that moves.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{Running, SandboxError};

/// How often is looked whether the processes stand still, with a millisecond between two looks.
const LOOKS: u32 = 2000;
/// Looks at the process table, one after the other, that find nothing that moves. A process that is born while the table
/// is read may be missed by one look.
const CALM_LOOKS: u32 = 3;

/// How a tree was made to stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Its group is frozen.
    Frozen,
    /// Its processes were stopped.
    Stopped,
}

impl Running {
    /// Makes every process of the tree stand still. Blocks for a few milliseconds, in the worst case for a few seconds. Time goes on: nothing of a limit, a lease
    /// or a deadline waits. Doing it twice changes nothing.
    ///
    /// # Errors
    /// [`SandboxError::PauseFailed`] when something still moves after that; then everything goes on.
    pub fn pause(&mut self) -> Result<(), SandboxError> {
        if self.tree.paused.is_some() || self.tree.exit.is_some() {
            return Ok(());
        }
        if self.tree.cgroup.can_freeze() {
            let frozen = self.tree.cgroup.freeze(true) && eventually(|| self.tree.cgroup.is_frozen());
            if !frozen {
                self.tree.cgroup.freeze(false);
                return Err(SandboxError::PauseFailed { detail: "its group does not freeze".into() });
            }
            self.tree.paused = Some(Pause::Frozen);
            return Ok(());
        }
        self.pause_by_signals()
    }

    /// What [`Running::pause`] does where no group can be frozen.
    ///
    /// # Errors
    /// As there.
    pub fn pause_by_signals(&mut self) -> Result<(), SandboxError> {
        if self.tree.paused.is_some() || self.tree.exit.is_some() {
            return Ok(());
        }
        let Some(first) = self.tree.first.as_ref().and_then(pid_of) else {
            return Err(SandboxError::PauseFailed { detail: "its first process is not known".into() });
        };
        self.tree.paused = Some(Pause::Stopped);
        let mut calm = 0;
        let still = eventually(|| {
            let mut moving = false;
            for process in tree_of(first) {
                if !stands_still(process.pid) {
                    moving = true;
                    signal(&process, Signal::STOP);
                }
            }
            calm = if moving { 0 } else { calm + 1 };
            calm >= CALM_LOOKS
        });
        if still {
            return Ok(());
        }
        self.unpause()?;
        Err(SandboxError::PauseFailed { detail: "its processes did not all stop".into() })
    }

    /// Lets everything go on. Without a pause it does nothing.
    ///
    /// # Errors
    /// [`SandboxError::PauseFailed`] when the kernel refuses; the tree still stands then.
    pub fn unpause(&mut self) -> Result<(), SandboxError> {
        match self.tree.paused {
            None => {}
            Some(Pause::Frozen) if !self.tree.cgroup.freeze(false) && self.tree.exit.is_none() => {
                return Err(SandboxError::PauseFailed { detail: "its group does not thaw".into() });
            }
            Some(Pause::Frozen) => {}
            Some(Pause::Stopped) => {
                if let Some(first) = self.tree.first.as_ref().and_then(pid_of) {
                    // From the leaves up: whoever waits for a child finds it running.
                    for process in tree_of(first).iter().rev() {
                        signal(process, Signal::CONT);
                    }
                }
            }
        }
        self.tree.paused = None;
        Ok(())
    }

    /// Whether the tree was made to stand still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.tree.paused.is_some()
    }
}

fn eventually(mut done: impl FnMut() -> bool) -> bool {
    for _ in 0..LOOKS {
        if done() {
            return true;
        }
        let step = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let _elapsed = poll(&mut [], Some(&step));
    }
    false
}

/// The process behind a descriptor, as the host numbers it.
fn pid_of(process: &OwnedFd) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).ok()?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}

/// One process of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    /// When it was born, in ticks: tells it from a later one with the same number.
    born: u64,
}

/// State, parent and birth of a process or thread.
fn read_stat(path: &str) -> Option<(char, i32, u64)> {
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // The name is in parentheses and may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let born = fields.nth(17)?.parse().ok()?;
    Some((state, parent, born))
}

/// `first` and everything that descends from it, parents before children. Within a pid namespace nothing descends from
/// anything else: orphans become children of its first process.
fn tree_of(first: i32) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    let mut out = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Some((_, parent, born)) = read_stat(&format!("/proc/{pid}/stat")) else { continue };
        let process = Process { pid, parent, born };
        if pid == first {
            out.push(process);
        } else {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut next = 0;
    while let Some(pid) = out.get(next).map(|process: &Process| process.pid) {
        out.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    out
}

/// Whether every thread of a process is stopped or gone.
fn stands_still(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let path = thread.path().join("stat");
        read_stat(&path.to_string_lossy()).is_none_or(|(state, ..)| matches!(state, 'T' | 't' | 'Z' | 'X'))
    })
}

/// Sends a signal to this very process, never to another that has its number by now.
fn signal(process: &Process, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let same =
        read_stat(&format!("/proc/{}/stat", process.pid)).is_some_and(|(_, _, born)| born == process.born);
    if same {
        let _gone = pidfd_send_signal(&held, signal);
    }
}

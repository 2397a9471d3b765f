//! How much of the machine one sandbox may use.

use serde::{Deserialize, Serialize};

/// The limits of one sandbox. Every limit is a hard one; none can be raised from inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxLimits {
    /// Processes and threads together (cgroup `pids.max`, and `RLIMIT_NPROC`).
    pub pids: u64,
    /// Memory of the whole tree in bytes, page cache and tmpfs included (cgroup).
    pub memory_bytes: u64,
    /// Processor time, in per cent of one processor: 200 is two whole processors (cgroup).
    pub cpu_percent: u32,
    /// Largest single file, in bytes (`RLIMIT_FSIZE`).
    pub file_bytes: u64,
    /// Open descriptors of one process (`RLIMIT_NOFILE`).
    pub open_files: u64,
    /// Size of `/tmp`, in bytes. An [`Empty`](crate::Workspace::Empty) workspace has this size too.
    pub tmp_bytes: u64,
    /// Size of `/dev/shm`, in bytes.
    pub shm_bytes: u64,
    /// Size of the home directory, in bytes.
    pub home_bytes: u64,
}

impl Default for SandboxLimits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            pids: 512,
            memory_bytes: 4096 * MIB,
            cpu_percent: 200,
            file_bytes: 4096 * MIB,
            open_files: 4096,
            tmp_bytes: 256 * MIB,
            shm_bytes: 64 * MIB,
            home_bytes: 64 * MIB,
        }
    }
}

/// The limits that every process carries itself: the kernel's number of each, and the value.
pub(crate) fn resource_limits(limits: &SandboxLimits) -> Vec<(u32, u64)> {
    vec![
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_NOFILE, limits.open_files),
        (libc::RLIMIT_FSIZE, limits.file_bytes),
        // Counted per user and user namespace since Linux 5.14, so it holds for ordinary users too.
        (libc::RLIMIT_NPROC, limits.pids),
        (libc::RLIMIT_RTPRIO, 0),
        (libc::RLIMIT_NICE, 0),
        (libc::RLIMIT_MEMLOCK, 8 * 1024 * 1024),
        (libc::RLIMIT_MSGQUEUE, 819_200),
    ]
}

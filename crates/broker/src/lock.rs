//! Locks between processes: `flock` on a file of ours, released by the kernel when its holder dies.

use crate::error::BrokerError;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

/// How long between two tries for a lock that someone else holds.
pub(crate) const RETRY: Duration = Duration::from_millis(20);

/// A held lock. Dropping it releases it.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Who else may hold it at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nobody.
    Alone,
    /// Others that also share.
    Shared,
}

fn open(path: &Path) -> Result<File, BrokerError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(BrokerError::state(path, "locked"))
}

/// Takes the lock when it is free.
pub(crate) fn try_take(path: &Path, mode: Mode) -> Result<Option<Lock>, BrokerError> {
    let file = open(path)?;
    let taken = match mode {
        Mode::Alone => file.try_lock(),
        Mode::Shared => file.try_lock_shared(),
    };
    match taken {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => {
            Err(BrokerError::State { path: path.to_owned(), doing: "locked", source })
        }
    }
}

/// Waits for the lock, at most `patience`.
pub(crate) async fn take(path: &Path, mode: Mode, patience: Duration) -> Result<Lock, BrokerError> {
    let waiting = async {
        loop {
            if let Some(lock) = try_take(path, mode)? {
                return Ok(lock);
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::time::timeout(patience, waiting)
        .await
        .unwrap_or_else(|_| Err(BrokerError::Locked { path: path.to_owned(), seconds: patience.as_secs() }))
}

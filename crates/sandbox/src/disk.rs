//! How full a disk is.

use std::io;
use std::path::Path;

/// Bytes that an ordinary user may still write on the filesystem of `path`.
///
/// # Errors
/// When the path can't be looked at.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let answer = rustix::fs::statvfs(path)?;
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}

//! Waiting for the end of a sandbox.

use crate::RunnerError;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tipstaff_sandbox::{Exit, Running};
use tokio::io::unix::AsyncFd;

/// Waits for the end of a sandbox, at most `limit`; kills it after that. `None` when it was killed.
///
/// # Errors
/// When the kernel refuses the wait.
pub async fn wait_for(running: &mut Running, limit: Duration) -> Result<Option<Exit>, RunnerError> {
    let ended = end_of(running)?;
    let waiting = async {
        loop {
            let mut guard = ended.readable().await.map_err(RunnerError::io("watching the sandbox"))?;
            if let Some(exit) = running.try_wait()? {
                return Ok::<Exit, RunnerError>(exit);
            }
            guard.clear_ready();
        }
    };
    match tokio::time::timeout(limit, waiting).await {
        Ok(exit) => exit.map(Some),
        Err(_) => {
            running.kill()?;
            running.wait()?;
            Ok(None)
        }
    }
}

/// A descriptor that is readable when the sandbox has ended.
pub(crate) fn end_of(running: &Running) -> Result<AsyncFd<OwnedFd>, RunnerError> {
    let descriptor = running.pidfd().try_clone_to_owned().map_err(RunnerError::io("watching the sandbox"))?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe; an OwnedFd stays open as long as it is registered"
    )]
    AsyncFd::new(descriptor).map_err(RunnerError::io("watching the sandbox"))
}

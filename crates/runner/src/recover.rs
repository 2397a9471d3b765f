//! What dead processes left behind.
//!
//! Order matters: the store marks the run as interrupted *first*, then its folder goes, then its lock. A second crash
//! in between leaves a marked run and a folder, which the next start removes.

use crate::{Layout, RunLock, RunnerError};
use tipstaff_model::RunId;

/// What is left of a run whose process is dead. Held, so that two recovering processes don't work on the same one.
#[derive(Debug)]
pub struct Leftover {
    /// The run.
    pub run: RunId,
    /// The name on the lease that died with its process.
    pub owner: String,
    lock: RunLock,
}

/// What is left of runs whose processes are dead.
///
/// # Errors
/// [`RunnerError::Io`] when the folder of runs can't be read.
pub fn leftovers(layout: &Layout) -> Result<Vec<Leftover>, RunnerError> {
    let mut found = Vec::new();
    let entries =
        std::fs::read_dir(layout.runs()).map_err(RunnerError::io("looking for interrupted runs"))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let (id, suffix) = name.split_once('.').unwrap_or((name, ""));
        let Ok(run) = id.parse::<RunId>() else { continue };
        // A lock that never got its name holds nothing: nothing of a run exists before.
        let wanted = matches!(suffix, "lock" | "lock-new");
        if wanted && let Some(lock) = RunLock::take_over(entry.path())? {
            let owner = std::fs::read_to_string(entry.path()).unwrap_or_default();
            found.push(Leftover { run, owner, lock });
        }
    }
    Ok(found)
}

/// Removes a leftover, after the store has marked its run.
///
/// # Errors
/// [`RunnerError::Io`] when something of it can't be removed.
pub fn remove_leftover(layout: &Layout, leftover: Leftover) -> Result<(), RunnerError> {
    remove_folder(layout, leftover.run)?;
    leftover.lock.remove()
}

/// Removes the folder of a run, whatever an agent made of it.
pub(crate) fn remove_folder(layout: &Layout, run: RunId) -> Result<(), RunnerError> {
    tipstaff_sandbox::remove_tree(&layout.run(run))
        .map_err(RunnerError::io("removing the workspace of a run"))
}

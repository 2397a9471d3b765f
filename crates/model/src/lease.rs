//! The lease: a worker's right to act for one task, fenced by a generation.

use crate::id::{OrgId, RunId, TaskId};
use serde::{Deserialize, Serialize};

/// What a worker shows with every write. The store compares owner and generation, so that a worker that lost its lease
/// can't write any more. Holding this value proves nothing: the store's own `Lease` type does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseToken {
    /// The tenant of the task.
    pub org: OrgId,
    /// The task.
    pub task: TaskId,
    /// The run of this attempt.
    pub run: RunId,
    /// The worker: host, process and a random part.
    pub owner: String,
    /// Grows by one with every claim.
    pub generation: i64,
    /// Which attempt this is, from 1.
    pub attempt: i64,
}

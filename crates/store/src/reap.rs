//! After a worker died: its run is marked, its warrants are revoked, and its task is tried again or given up.
//!
//! Promises: one transaction per task does all of it, with its audit record, under a lease of its own; a reaper that
//! dies leaves a task to the next one.

use crate::error::StoreError;
use crate::lease::{Lease, TakeOver};
use crate::ledger::RunEnd;
use crate::store::Store;
use crate::transaction::OrgTx;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    AuditAction, AuditDraft, AuditOutcome, EventDraft, EventKind, ExitReason, RunState, TaskId,
};

/// How long a reaper holds a task before the next one may try, in milliseconds.
const REAPER_LEASE_MS: i64 = 30_000;
/// Tasks taken over at once.
const REAPER_BATCH: u32 = 50;
/// The wait before the second attempt, in milliseconds; it doubles with every further one.
const RETRY_MS: i64 = 1_000;
/// The longest wait before an attempt, in milliseconds.
const RETRY_LIMIT_MS: i64 = 300_000;

/// A task whose worker died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// The reaper's lease: its scope, task and run. It is given up already.
    pub lease: Lease,
    /// The run that was marked; absent when the worker had not begun one.
    pub run: Option<tipstaff_model::RunId>,
    /// Where the task stands now: queued for another attempt, interrupted, or cancelled when a person had asked for it.
    pub task_state: RunState,
}

fn retry_at(now: i64, attempt: i64) -> i64 {
    let doublings = u32::try_from(attempt.saturating_sub(1).clamp(0, 20)).unwrap_or(0);
    now.saturating_add(RETRY_MS.saturating_mul(1 << doublings).min(RETRY_LIMIT_MS))
}

impl Store {
    /// Marks what dead workers left: their leases are over, or they are known to be dead. `worker` names this process.
    ///
    /// # Errors
    /// Errors of the database; what was done before stays done.
    pub async fn task_reap(&self, which: TakeOver<'_>, worker: &str) -> Result<Vec<Reaped>, StoreError> {
        let mut reaped = Vec::new();
        loop {
            let leases = self.task_take_over(which, worker, REAPER_LEASE_MS, REAPER_BATCH).await?;
            let last = leases.len() < REAPER_BATCH as usize;
            for lease in leases {
                let mut tx = self.begin(lease.scope()).await?;
                match tx.task_interrupt(&lease).await {
                    Ok(one) => {
                        tx.commit().await?;
                        reaped.push(one);
                    }
                    // Another one was faster.
                    Err(StoreError::LeaseLost) => {}
                    Err(error) => return Err(error),
                }
            }
            if last {
                return Ok(reaped);
            }
        }
    }
}

impl OrgTx {
    /// Marks the run and the task of a lease that was taken over.
    async fn task_interrupt(&mut self, lease: &Lease) -> Result<Reaped, StoreError> {
        const WHY: &str = "the process that ran it died";
        self.lease_guard(lease).await?;
        let lease = self.lease_of_attempt(lease).await?.unwrap_or_else(|| lease.clone());
        let run = self.run_get(lease.run()).await?;
        if let Some(run) = run.as_ref().filter(|run| !run.state.is_final()) {
            let update = RunUpdate {
                state: Some(RunState::Interrupted),
                exit_reason: Some(ExitReason::ProcessDied),
                error: Some(WHY.to_owned()),
                ..RunUpdate::default()
            };
            self.run_set(&lease, &update).await?;
            self.charge_close(&lease, RunEnd::Died).await?;
            self.warrant_revoke_run(run.id).await?;
            let body = serde_json::json!({ "state": RunState::Interrupted.as_str(), "reason": ExitReason::ProcessDied.as_str() });
            let event = EventDraft { kind: EventKind::State, at: self.inner.now(), body };
            self.event_add(&lease, &[event]).await?;
        }
        let task_state = self.task_give_back(&lease, WHY).await?;
        let subject =
            run.as_ref().map_or_else(|| format!("task:{}", lease.task()), |run| format!("run:{}", run.id));
        let draft = AuditDraft::new("system", AuditAction::RunState, subject)
            .outcome(AuditOutcome::Failed)
            .with("to", RunState::Interrupted)
            .with("reason", ExitReason::ProcessDied)
            .with("task", lease.task())
            .with("task_state", task_state)
            .with("attempt", lease.token().attempt);
        self.audit_note(draft);
        Ok(Reaped { run: run.map(|run| run.id), lease, task_state })
    }

    /// Queues the task again while attempts remain, else ends it.
    async fn task_give_back(&mut self, lease: &Lease, why: &str) -> Result<RunState, StoreError> {
        let task: TaskId = lease.task();
        let task = self.task_get(task).await?.ok_or(StoreError::LeaseLost)?;
        if task.state.is_final() {
            return Ok(task.state);
        }
        if task.cancel_requested {
            self.task_move(lease, RunState::Cancelled, Some(why)).await?;
            return Ok(RunState::Cancelled);
        }
        if task.attempt < task.max_attempts {
            let run_at = retry_at(self.inner.now(), task.attempt);
            self.task_requeue(lease, run_at, why).await?;
            return Ok(RunState::Queued);
        }
        self.task_move(lease, RunState::Interrupted, Some(why)).await?;
        Ok(RunState::Interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        let waits: Vec<i64> = [1, 2, 3, 9, 50].into_iter().map(|attempt| retry_at(0, attempt)).collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 256_000, 300_000]);
    }
}

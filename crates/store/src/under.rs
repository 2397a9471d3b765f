//! Sub-runs: the runs above a run, those under it, and whether the ones above still grant what it works under.

use crate::charge::NO_DAY;
use crate::error::StoreError;
use crate::run::{Run, run, run_columns};
use crate::sql::{statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::warrant::MOST_RUNS_ABOVE;
use tipstaff_model::{BudgetScope, CalendarDay, MicroUsd, RunId};

statements! {
    scoped RUN_ABOVE =
        "select under_run from task where org_id = $1 and under_run is not null and id = \
         (select task_id from run where org_id = $1 and id = $2)";
    scoped RUN_LIST_UNDER = concat!(
        "select ", run_columns!(), " from run where org_id = $1 and task_id in \
         (select id from task where org_id = $1 and under_run = $2) order by id limit $3"
    );
    scoped RUN_LIST_OPEN_UNDER = concat!(
        "select ", run_columns!(), " from run where org_id = $1 and ended_at is null and task_id in \
         (select id from task where org_id = $1 and under_run = $2) order by id"
    );
    scoped TASK_COUNT_UNDER =
        "select count(*) from task where org_id = $1 and under_run = $2 \
         and state in ('queued', 'preparing', 'running', 'needs_input', 'verifying')";
}

/// A run for a sentence.
fn named(run: RunId) -> String {
    format!("the run that it worked under, {},", run.short())
}

impl OrgRead {
    /// The run that a run works under, where it is a sub-run.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_above(&mut self, run: RunId) -> Result<Option<RunId>, StoreError> {
        self.first(RUN_ABOVE, values![run]).await?.map(|row| row.read("task").parsed("under_run")).transpose()
    }

    /// The runs above a run, nearest first; one more than there may be at most, so that too many show.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_list_above(&mut self, run: RunId) -> Result<Vec<RunId>, StoreError> {
        let (mut all, mut next) = (Vec::new(), run);
        while all.len() <= MOST_RUNS_ABOVE {
            let Some(above) = self.run_above(next).await? else { break };
            all.push(above);
            next = above;
        }
        Ok(all)
    }

    /// The sub-runs of a run, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_list_under(&mut self, above: RunId, limit: u32) -> Result<Vec<Run>, StoreError> {
        let rows = self.all(RUN_LIST_UNDER, values![above, i64::from(limit)]).await?;
        rows.iter().map(|row| run(row.read("run"))).collect()
    }

    /// The sub-runs of a run that have not ended, oldest first.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_list_open_under(&mut self, above: RunId) -> Result<Vec<Run>, StoreError> {
        self.all(RUN_LIST_OPEN_UNDER, values![above]).await?.iter().map(|row| run(row.read("run"))).collect()
    }

    /// How many tasks under a run are queued or at work.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn task_count_under(&mut self, above: RunId) -> Result<u64, StoreError> {
        let row = self.first(TASK_COUNT_UNDER, values![above]).await?;
        row.map_or(Ok(0), |row| row.read("task").count("count"))
    }

    /// What a run and everything under it spent and have reserved.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_used(&mut self, run: RunId) -> Result<MicroUsd, StoreError> {
        let day = CalendarDay::from_number(NO_DAY);
        let (spent, reserved) = self.charge_total(BudgetScope::Run, &run.to_string(), day, day).await?;
        Ok(MicroUsd::from_micro(spent.micro().saturating_add(reserved.micro())))
    }

    /// Why the runs above a run no longer grant what it works under; `None` while they do, and for a run of its own.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_ended_above(&mut self, below: RunId) -> Result<Option<String>, StoreError> {
        let mut under = below;
        for above in self.run_list_above(below).await? {
            let Some(found) = self.run_get(above).await? else {
                return Ok(Some(format!("{} is not on record", named(above))));
            };
            if found.state.is_final() {
                return Ok(Some(format!("{} ended ({})", named(above), found.state)));
            }
            if self.task_get(found.task).await?.is_none_or(|task| task.cancel_requested) {
                return Ok(Some(format!("{} was cancelled", named(above))));
            }
            let (mine, theirs) = (self.warrant_of_run(under).await?, self.warrant_of_run(above).await?);
            let Some(theirs) = theirs.filter(|one| one.revoked_at.is_none()) else {
                return Ok(Some(format!("{} has its warrant revoked", named(above))));
            };
            if theirs.signed.warrant.expires_at <= self.inner.now() {
                return Ok(Some(format!("{} has a warrant that expired", named(above))));
            }
            // Whoever narrows a run narrows those under it in the same breath; nothing rests on that here.
            if let Some(mine) = mine
                && let Err(error) = theirs.signed.warrant.admits_sub_run(&mine.signed.warrant)
            {
                return Ok(Some(format!("{} is granted less by now: {error}", named(above))));
            }
            under = above;
        }
        Ok(None)
    }
}

impl OrgTx {
    /// Makes this transaction the only one that changes what a run is granted, until it ends: nobody narrows or revokes its
    /// warrant meanwhile, and nobody else begins a run under it. Whether there is such a run.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_lock(&mut self, run: RunId) -> Result<bool, StoreError> {
        self.story_lock(run).await
    }
}

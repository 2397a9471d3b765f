//! Leases: a worker's right to act for one task, and the second door to a scope.
//!
//! Promises: a task has one lease at a time; each claim gets a larger generation, and every write of a worker is
//! compared with it under the task's row lock, so that a worker that lost its lease writes nothing; a worker that died
//! is noticed when its lease is over, or at once when somebody knows that it is dead.

use crate::error::StoreError;
use crate::run::RUN_OF_ATTEMPT;
use crate::scope::OrgScope;
use crate::sql::{Row, Scheduler, Value, statements, values};
use crate::store::{Db, Store};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::{Heartbeat, LeaseToken, RunId, TaskId};

macro_rules! claim {
    ($tail:literal) => {
        concat!(
            "with picked as materialized (select org_id, id from task where state = 'queued' and run_at <= $3 \
             order by run_at, id limit $4 ",
            $tail,
            ") update task set state = 'preparing', attempt = task.attempt + 1, generation = task.generation + 1, \
             lease_owner = $1, lease_until = $2, updated_at = $3 from picked \
             where task.org_id = picked.org_id and task.id = picked.id \
             returning task.org_id, task.id, task.generation, task.attempt"
        )
    };
}

macro_rules! take_over {
    ($tail:literal) => {
        concat!(
            "with picked as materialized (select org_id, id from task where lease_until is not null and \
             (case when $5 = '' then lease_until < $3 else lease_owner = $5 end) order by lease_until limit $4 ",
            $tail,
            ") update task set generation = task.generation + 1, lease_owner = $1, lease_until = $2, updated_at = $3 \
             from picked where task.org_id = picked.org_id and task.id = picked.id \
             returning task.org_id, task.id, task.generation, task.attempt"
        )
    };
}

statements! {
    // The only texts that differ by engine: SQLite has one writer and needs no row locks, nor has words for them.
    scheduler (engine Sqlite) TASK_CLAIM_SQLITE = claim!("");
    scheduler (engine Postgres) TASK_CLAIM_POSTGRES = claim!("for update skip locked");
    scheduler (engine Sqlite) TASK_TAKE_OVER_SQLITE = take_over!("");
    scheduler (engine Postgres) TASK_TAKE_OVER_POSTGRES = take_over!("for update skip locked");
    scheduler LEASE_OWNERS =
        "select distinct lease_owner from task where lease_until is not null order by lease_owner";
    scoped TASK_CLAIM_ONE =
        "update task set state = 'preparing', attempt = attempt + 1, generation = generation + 1, lease_owner = $3, \
         lease_until = $4, updated_at = $5 where org_id = $1 and id = $2 and state = 'queued' and run_at <= $5 \
         returning org_id, id, generation, attempt";
    // A write, not a read: it takes the row's lock on both engines, so that nobody can take the lease over before the
    // transaction ends.
    scoped LEASE_GUARD =
        "update task set updated_at = $5 where org_id = $1 and id = $2 and lease_owner = $3 and generation = $4 \
         returning id";
    // For what is asked several times a second and writes nothing.
    scoped LEASE_LOOK =
        "select id from task where org_id = $1 and id = $2 and lease_owner = $3 and generation = $4";
    scoped LEASE_RENEW =
        "update task set lease_until = $5 where org_id = $1 and id = $2 and lease_owner = $3 and generation = $4 \
         returning cancel_requested, \
         (select count(*) from warrant where org_id = $1 and run_id = $6 and revoked_at is not null), \
         cast(case when under_run is null then 0 else 1 end as bigint)";
}

/// How long a claim holds without a heartbeat, by default, in milliseconds.
pub const LEASE_MS: i64 = 60_000;

/// The right to act for one task. It comes from a claim only; a [`LeaseToken`] is only what it looks like outside:
///
/// ```compile_fail,E0277
/// # fn forge(token: tipstaff_model::LeaseToken) {
/// let lease: tipstaff_store::Lease = token.into();
/// # }
/// ```
/// ```compile_fail,E0277
/// let lease: tipstaff_store::Lease = serde_json::from_str("{}").unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    token: LeaseToken,
    scope: OrgScope,
}

impl Lease {
    fn granted(token: LeaseToken) -> Self {
        Self { scope: OrgScope::granted(token.org), token }
    }

    /// The scope of the task's org.
    #[must_use]
    pub const fn scope(&self) -> &OrgScope {
        &self.scope
    }

    /// What the worker shows.
    #[must_use]
    pub const fn token(&self) -> &LeaseToken {
        &self.token
    }

    /// The task.
    #[must_use]
    pub const fn task(&self) -> TaskId {
        self.token.task
    }

    /// The run of this attempt.
    #[must_use]
    pub const fn run(&self) -> RunId {
        self.token.run
    }

    /// The worker.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.token.owner
    }
}

/// Whose leases to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOver<'a> {
    /// Those that are over.
    Expired,
    /// Those of a worker that is known to be dead, whatever their time. Never name a worker that may live.
    Dead(&'a str),
}

impl Store {
    /// Claims the task that has waited longest, of any org. `worker` names this process in the table.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn task_claim(&self, worker: &str, lease_ms: i64) -> Result<Option<Lease>, StoreError> {
        Ok(self.task_claim_batch(worker, lease_ms, 1).await?.into_iter().next())
    }

    /// Claims up to `limit` tasks, of any orgs.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn task_claim_batch(
        &self,
        worker: &str,
        lease_ms: i64,
        limit: u32,
    ) -> Result<Vec<Lease>, StoreError> {
        let now = self.inner.now();
        let row: &[Value<'_>] = values![worker, now.saturating_add(lease_ms), now, i64::from(limit)];
        let rows = self.schedule(TASK_CLAIM_SQLITE, TASK_CLAIM_POSTGRES, row).await?;
        rows.iter().map(|row| self.claimed(row, worker)).collect()
    }

    fn claimed(&self, row: &Row, worker: &str) -> Result<Lease, StoreError> {
        let run = RunId::new(&*self.inner.clock, &*self.inner.entropy);
        lease(row, worker, run)
    }

    /// Takes leases over from workers that are gone, so that their tasks can be marked and tried again. The state of
    /// the tasks stays: see [`crate::reap`].
    pub(crate) async fn task_take_over(
        &self,
        which: TakeOver<'_>,
        worker: &str,
        lease_ms: i64,
        limit: u32,
    ) -> Result<Vec<Lease>, StoreError> {
        let now = self.inner.now();
        let dead = match which {
            TakeOver::Expired => "",
            TakeOver::Dead(owner) => owner,
        };
        let row: &[Value<'_>] = values![worker, now.saturating_add(lease_ms), now, i64::from(limit), dead];
        let rows = self.schedule(TASK_TAKE_OVER_SQLITE, TASK_TAKE_OVER_POSTGRES, row).await?;
        // The run of a lease that was taken over is looked up in the org's own rows.
        rows.iter().map(|row| self.claimed(row, worker)).collect()
    }

    /// Names of the workers that hold leases, in any org.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn lease_owner_list(&self) -> Result<Vec<String>, StoreError> {
        let rows = self.schedule(LEASE_OWNERS, LEASE_OWNERS, &[]).await?;
        rows.iter().map(|row| row.read("task").text()).collect()
    }

    async fn schedule(
        &self,
        on_sqlite: Scheduler,
        on_postgres: Scheduler,
        row: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let driver = |error| self.inner.driver(error);
        let (link, statement) = match &self.inner.db {
            Db::Sqlite { writer, .. } => (writer.begin().await, on_sqlite),
            Db::Postgres { scheduler, .. } => (scheduler.begin("begin").await, on_postgres),
        };
        let mut link = link.map_err(driver)?;
        let rows = link.fetch_all(statement.text, row).await.map_err(driver)?;
        link.commit().await.map_err(driver)?;
        Ok(rows)
    }

    /// Renews a lease for `lease_ms` milliseconds from now, and brings news. A lease that is over but that nobody has
    /// taken is renewed as well: the machine may have slept.
    ///
    /// # Errors
    /// `lease-lost` when another worker has it.
    pub async fn lease_renew(&self, lease: &Lease, lease_ms: i64) -> Result<Heartbeat, StoreError> {
        let mut tx = self.begin(lease.scope()).await?;
        let news = tx.lease_renew(lease, lease_ms).await?;
        tx.commit().await?;
        Ok(news)
    }
}

fn lease(row: &Row, worker: &str, run: RunId) -> Result<Lease, StoreError> {
    let mut columns = row.read("task");
    let (org, task) = (columns.parsed("org_id")?, columns.parsed("id")?);
    let (generation, attempt) = (columns.int()?, columns.int()?);
    Ok(Lease::granted(LeaseToken { org, task, run, owner: worker.to_owned(), generation, attempt }))
}

impl OrgRead {
    /// Fails unless the worker holds the lease as of this read.
    ///
    /// # Errors
    /// `lease-lost`.
    pub async fn lease_look(&mut self, lease: &Lease) -> Result<(), StoreError> {
        let token = lease.token();
        let row = values![token.task, &token.owner, token.generation];
        let held = token.org == self.org() && self.first(LEASE_LOOK, row).await?.is_some();
        if held { Ok(()) } else { Err(StoreError::LeaseLost) }
    }
}

impl OrgTx {
    /// Claims one task of this org, if it waits and its time has come.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn task_claim(
        &mut self,
        id: TaskId,
        worker: &str,
        lease_ms: i64,
    ) -> Result<Option<Lease>, StoreError> {
        let now = self.inner.now();
        let until = now.saturating_add(lease_ms);
        let row = self.first(TASK_CLAIM_ONE, values![id, worker, until, now]).await?;
        let run = RunId::new(&*self.inner.clock, &*self.inner.entropy);
        row.map(|row| lease(&row, worker, run)).transpose()
    }

    /// Fails unless the worker still holds the lease; nobody can take it over before this transaction ends.
    ///
    /// # Errors
    /// `lease-lost`.
    pub async fn lease_guard(&mut self, lease: &Lease) -> Result<(), StoreError> {
        let token = lease.token();
        if self.fenced == Some((token.task, token.generation)) {
            return Ok(());
        }
        if token.org != self.org() {
            return Err(StoreError::LeaseLost);
        }
        let now = self.inner.now();
        let row = values![token.task, &token.owner, token.generation, now];
        if self.first(LEASE_GUARD, row).await?.is_none() {
            return Err(StoreError::LeaseLost);
        }
        self.fenced = Some((token.task, token.generation));
        Ok(())
    }

    /// Renews a lease; see [`Store::lease_renew`].
    ///
    /// # Errors
    /// `lease-lost`.
    pub async fn lease_renew(&mut self, lease: &Lease, lease_ms: i64) -> Result<Heartbeat, StoreError> {
        let token = lease.token();
        let until = self.inner.now().saturating_add(lease_ms);
        let row = values![token.task, &token.owner, token.generation, until, token.run];
        let row = self.first(LEASE_RENEW, row).await?.ok_or(StoreError::LeaseLost)?;
        let mut columns = row.read("task");
        let (cancel_requested, warrant_revoked) = (columns.flag()?, columns.int()? > 0);
        let ended_above = if columns.flag()? { self.run_ended_above(token.run).await? } else { None };
        let warrant = match self.warrant_of_run(token.run).await {
            Ok(found) => found.map(|found| found.signed.to_json()).transpose()?,
            // Whoever wrote it, the worker is to see that it does not hold.
            Err(StoreError::Value { .. }) => Some(String::new()),
            Err(error) => return Err(error),
        };
        Ok(Heartbeat { cancel_requested, warrant_revoked, ended_above, warrant })
    }

    /// The lease with the run that the dead worker had begun in this attempt, if it got that far.
    pub(crate) async fn lease_of_attempt(&mut self, lease: &Lease) -> Result<Option<Lease>, StoreError> {
        let row = self.first(RUN_OF_ATTEMPT, values![lease.task(), lease.token.attempt]).await?;
        row.map(|row| {
            let run = row.read("run").parsed("id")?;
            Ok(Lease::granted(LeaseToken { run, ..lease.token.clone() }))
        })
        .transpose()
    }
}

//! Tasks: durable units of work, each at most once per dedup key.

use crate::error::StoreError;
use crate::lease::Lease;
use crate::signal::Topic;
use crate::sql::{Columns, Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::{MemberId, RepositoryId, RunState, TaskId, TaskSpec};

macro_rules! task_columns {
    () => {
        "id, repository_id, kind, state, spec, dedup_key, attempt, max_attempts, lease_owner, lease_until, generation, \
         run_at, last_error, cancel_requested, created_at, updated_at, person"
    };
}

statements! {
    rows (shared 2) TASK_ADD =
        "insert into task (org_id, created_at, updated_at, id, repository_id, kind, state, spec, dedup_key, \
         max_attempts, run_at, person, resumes, under_run) \
         values ($1, $2, $2, $3, $4, $5, 'queued', $6, $7, $8, $9, $10, $11, $12) \
         on conflict (org_id, dedup_key) do nothing";
    scoped TASK_GET = concat!("select ", task_columns!(), " from task where org_id = $1 and id = $2");
    scoped TASK_BY_DEDUP = "select id from task where org_id = $1 and dedup_key = $2";
    scoped TASK_LIST = concat!(
        "select ", task_columns!(), " from task where org_id = $1 and state = coalesce($2, state) and id < $3 \
         order by id desc limit $4"
    );
    scoped TASK_COUNT = "select state, count(*) from task where org_id = $1 group by state order by state";
    scoped TASK_CANCEL =
        "update task set cancel_requested = 1, updated_at = $3, \
         state = case when state = 'queued' then 'cancelled' else state end \
         where org_id = $1 and id = $2 and state in ('queued', 'preparing', 'running', 'needs_input', 'verifying') \
         returning state";
    scoped TASK_STATE_GET = "select state from task where org_id = $1 and id = $2";
    // Fence, legal step and write in one statement; what went wrong is looked up only when it changes nothing.
    // The end of a task gives up its lease in the same statement.
    scoped TASK_MOVE =
        "update task set state = $5, updated_at = $6, \
         last_error = case when $8 = 1 then $7 else last_error end, \
         lease_owner = case when $8 = 1 then null else lease_owner end, \
         lease_until = case when $8 = 1 then null else lease_until end \
         where org_id = $1 and id = $2 and lease_owner = $3 and generation = $4 and state in ($9, $10, $11, $12, $13) \
         returning id";
    rows (shared 10) TASK_END_MANY =
        "update task set state = $3, updated_at = $4, last_error = $5, lease_owner = null, lease_until = null \
         where org_id = $1 and lease_owner = $2 and state in ($6, $7, $8, $9, $10) \
         and (id, generation) in (values ($11, $12 + 0))";
    scoped TASK_REQUEUE =
        "update task set state = 'queued', updated_at = $3, last_error = $4, run_at = $5, lease_owner = null, \
         lease_until = null where org_id = $1 and id = $2";
}

/// The largest id: everything sorts before it.
pub(crate) const LAST_ID: &str = "ffffffff-ffff-ffff-ffff-ffffffffffff";

/// A task to be added.
#[derive(Debug, Clone)]
pub struct TaskDraft {
    /// The repository, where it is known already.
    pub repository: Option<RepositoryId>,
    /// What kind of work: `run`.
    pub kind: String,
    /// What to do.
    pub spec: TaskSpec,
    /// Where the same work may be asked for twice: its key, unique in the org.
    pub dedup_key: Option<String>,
    /// How often it may be tried, from 1.
    pub max_attempts: u32,
    /// Not before this moment, in milliseconds since the Unix epoch; now when absent.
    pub run_at: Option<i64>,
    /// Who asks for it; absent when nobody does.
    pub person: Option<MemberId>,
}

/// What adding a task did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskAdded {
    /// It is new.
    New(TaskId),
    /// There was one with this dedup key.
    Existing(TaskId),
}

impl TaskAdded {
    /// The task.
    #[must_use]
    pub const fn id(self) -> TaskId {
        match self {
            Self::New(id) | Self::Existing(id) => id,
        }
    }
}

/// A stored task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// The repository.
    pub repository: Option<RepositoryId>,
    /// What kind of work.
    pub kind: String,
    /// Where it stands.
    pub state: RunState,
    /// What to do.
    pub spec: TaskSpec,
    /// Its dedup key.
    pub dedup_key: Option<String>,
    /// Attempts begun.
    pub attempt: i64,
    /// Attempts at most.
    pub max_attempts: i64,
    /// The worker that holds it.
    pub lease_owner: Option<String>,
    /// Until when, in milliseconds since the Unix epoch.
    pub lease_until: Option<i64>,
    /// Counts the claims.
    pub generation: i64,
    /// Not before this moment, in milliseconds since the Unix epoch.
    pub run_at: i64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Whether a person asked for its end.
    pub cancel_requested: bool,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// When it changed last, in milliseconds since the Unix epoch.
    pub updated_at: i64,
    /// Who asked for it.
    pub person: Option<MemberId>,
}

/// Which tasks to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct TaskFilter {
    /// Only those in this state.
    pub state: Option<RunState>,
    /// Only those older than this one.
    pub before: Option<TaskId>,
}

/// What asking for the end of a task did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskCancel {
    /// It had not begun, and won't.
    Cancelled,
    /// Its worker will see it with the next heartbeat.
    Requested,
    /// It had ended.
    AlreadyEnded(RunState),
}

fn task(mut columns: Columns<'_>) -> Result<Task, StoreError> {
    Ok(Task {
        id: columns.parsed("id")?,
        repository: columns.parsed_opt("repository_id")?,
        kind: columns.text()?,
        state: columns.parsed("state")?,
        spec: columns.json("spec")?,
        dedup_key: columns.text_opt()?,
        attempt: columns.int()?,
        max_attempts: columns.int()?,
        lease_owner: columns.text_opt()?,
        lease_until: columns.int_opt()?,
        generation: columns.int()?,
        run_at: columns.int()?,
        last_error: columns.text_opt()?,
        cancel_requested: columns.flag()?,
        created_at: columns.int()?,
        updated_at: columns.int()?,
        person: columns.parsed_opt("person")?,
    })
}

/// The states that `state` may follow, filled up with a word that is none.
fn states_before(state: RunState) -> [&'static str; 5] {
    let mut words = RunState::ALL.into_iter().filter(|from| from.may_become(state)).map(RunState::as_str);
    [(); 5].map(|()| words.next().unwrap_or("-"))
}

impl OrgRead {
    /// A task.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn task_get(&mut self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.first(TASK_GET, values![id]).await?.map(|row| task(row.read("task"))).transpose()
    }

    /// Tasks, newest first, at most `limit`.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn task_list(&mut self, filter: TaskFilter, limit: u32) -> Result<Vec<Task>, StoreError> {
        let before = filter.before.map_or_else(|| LAST_ID.to_owned(), |id| id.to_string());
        let row: &[Value<'_>] = values![filter.state.map(RunState::as_str), &before, i64::from(limit)];
        self.all(TASK_LIST, row).await?.iter().map(|row| task(row.read("task"))).collect()
    }

    /// How many tasks are in which state; states without tasks are left out.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn task_count(&mut self) -> Result<Vec<(RunState, u64)>, StoreError> {
        let rows = self.all(TASK_COUNT, &[]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = row.read("task");
                Ok((columns.parsed("state")?, columns.count("count")?))
            })
            .collect()
    }
}

impl OrgTx {
    /// Adds a task, unless there is one with the same dedup key.
    ///
    /// # Errors
    /// `input` for a spec that isn't JSON or zero attempts; `reference` for a repository that isn't there.
    pub async fn task_add(&mut self, draft: TaskDraft) -> Result<TaskAdded, StoreError> {
        let added = self.task_add_batch(vec![draft]).await?;
        added.into_iter().next().ok_or(StoreError::Missing { what: "task" })
    }

    /// Adds many tasks with few statements; the answers are in the order of the drafts.
    ///
    /// # Errors
    /// As [`OrgTx::task_add`].
    pub async fn task_add_batch(&mut self, drafts: Vec<TaskDraft>) -> Result<Vec<TaskAdded>, StoreError> {
        let now = self.inner.now();
        let mut ids = Vec::with_capacity(drafts.len());
        let mut rows = Vec::with_capacity(drafts.len());
        for draft in &drafts {
            if draft.max_attempts == 0 {
                return Err(StoreError::Input {
                    what: "task",
                    why: "it needs at least one attempt".to_owned(),
                });
            }
            let spec = serde_json::to_string(&draft.spec)
                .map_err(|error| StoreError::Input { what: "task's spec", why: error.to_string() })?;
            let id = TaskId::new(&*self.inner.clock, &*self.inner.entropy);
            ids.push(id);
            rows.push(vec![
                Value::from(id),
                Value::from(draft.repository),
                Value::from(&draft.kind),
                Value::from(spec),
                Value::from(draft.dedup_key.as_deref()),
                Value::from(i64::from(draft.max_attempts)),
                Value::from(draft.run_at.unwrap_or(now)),
                Value::from(draft.person),
                Value::from(draft.spec.resumes.as_ref().map(|resumed| resumed.run)),
                Value::from(draft.spec.under),
            ]);
        }
        let inserted = self.insert_rows(&TASK_ADD, values![now], &rows).await?;
        self.announce(Topic::Task);
        if inserted == drafts.len() as u64 {
            return Ok(ids.into_iter().map(TaskAdded::New).collect());
        }
        let mut added = Vec::with_capacity(drafts.len());
        for (id, draft) in ids.into_iter().zip(&drafts) {
            added.push(match &draft.dedup_key {
                None => TaskAdded::New(id),
                Some(key) => {
                    let row = self.first(TASK_BY_DEDUP, values![key]).await?;
                    let row = row.ok_or(StoreError::Missing { what: "task" })?;
                    let there: TaskId = row.read("task").parsed("id")?;
                    if there == id { TaskAdded::New(id) } else { TaskAdded::Existing(there) }
                }
            });
        }
        Ok(added)
    }

    /// Asks for the end of a task. `None` when there is no such task.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn task_cancel(&mut self, id: TaskId) -> Result<Option<TaskCancel>, StoreError> {
        let now = self.inner.now();
        let changed = self.first(TASK_CANCEL, values![id, now]).await?;
        self.announce(Topic::Task);
        if let Some(row) = changed {
            let state: RunState = row.read("task").parsed("state")?;
            let answer =
                if state == RunState::Cancelled { TaskCancel::Cancelled } else { TaskCancel::Requested };
            return Ok(Some(answer));
        }
        let row = self.first(TASK_STATE_GET, values![id]).await?;
        row.map(|row| Ok(TaskCancel::AlreadyEnded(row.read("task").parsed("state")?))).transpose()
    }

    /// The state of a task that this transaction holds the lease of.
    pub(crate) async fn task_state(&mut self, lease: &Lease) -> Result<RunState, StoreError> {
        let row = self.first(TASK_STATE_GET, values![lease.task()]).await?;
        row.ok_or(StoreError::LeaseLost)?.read("task").parsed("state")
    }

    /// Moves a task on. The end of it gives up the lease.
    ///
    /// # Errors
    /// `lease-lost`; `transition` for a state that can't follow.
    pub async fn task_move(
        &mut self,
        lease: &Lease,
        state: RunState,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let (token, now) = (lease.token(), self.inner.now());
        let [a, b, c, d, e] = states_before(state);
        let last = i64::from(state.is_final());
        let row: &[Value<'_>] = values![
            token.task,
            &token.owner,
            token.generation,
            state.as_str(),
            now,
            error,
            last,
            a,
            b,
            c,
            d,
            e
        ];
        if token.org == self.org() && self.first(TASK_MOVE, row).await?.is_some() {
            self.fenced = Some((token.task, token.generation));
            self.announce(Topic::Run);
            return Ok(());
        }
        self.lease_guard(lease).await?;
        let from = self.task_state(lease).await?;
        if from == state { Ok(()) } else { Err(StoreError::Transition { what: "task", from, to: state }) }
    }

    /// Ends many tasks of one worker with few statements, all or none.
    ///
    /// # Errors
    /// `lease-lost` when one of them is not the worker's any more, is of another org, or stands in a state that `state`
    /// can't follow; `input` when `state` is no end, or the leases are of several workers. The transaction can't be
    /// committed then.
    pub async fn task_end_batch(
        &mut self,
        leases: &[Lease],
        state: RunState,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let Some(first) = leases.first() else { return Ok(()) };
        let input = |why: &str| StoreError::Input { what: "batch of tasks", why: why.to_owned() };
        if !state.is_final() {
            return Err(input("the state is no end"));
        }
        if leases.iter().any(|lease| lease.owner() != first.owner()) {
            return Err(input("the leases are of several workers"));
        }
        let now = self.inner.now();
        let [a, b, c, d, e] = states_before(state);
        let org = self.org();
        let rows: Vec<Vec<Value<'_>>> = leases
            .iter()
            .filter(|lease| lease.token().org == org)
            .map(|lease| vec![Value::from(lease.task()), Value::from(lease.token().generation)])
            .collect();
        let shared: &[Value<'_>] = values![first.owner(), state.as_str(), now, error, a, b, c, d, e];
        let ended = self.insert_rows(&TASK_END_MANY, shared, &rows).await?;
        if ended != leases.len() as u64 {
            self.broken = true;
            return Err(StoreError::LeaseLost);
        }
        self.announce(Topic::Run);
        Ok(())
    }

    /// Gives a task back to be tried again at `run_at` (milliseconds since the Unix epoch), and gives up the lease.
    pub(crate) async fn task_requeue(
        &mut self,
        lease: &Lease,
        run_at: i64,
        error: &str,
    ) -> Result<(), StoreError> {
        self.lease_guard(lease).await?;
        let now = self.inner.now();
        self.change(TASK_REQUEUE, values![lease.task(), now, error, run_at]).await?;
        self.announce(Topic::Task);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_places_hold_every_state_before() {
        for state in RunState::ALL {
            assert!(RunState::ALL.into_iter().filter(|from| from.may_become(state)).count() <= 5, "{state}");
        }
    }
}

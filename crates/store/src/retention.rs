//! How long what sessions said is kept, by privacy class; and erasing it.
//!
//! Promises: only runs that have ended are swept; a sweep erases texts (the bodies of events, what refusals wanted, questions
//! and answers, what a person said, errors, what the task was asked to do) and keeps the run, its counts, its warrants, its
//! charges and the audit log; it is done whole or not at all, and once.

use crate::approval::json_of;
use crate::error::StoreError;
use crate::run::Run;
use crate::sql::{Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::{Action, ActionKind, PrivacyClass, RunId, SteerKind};

statements! {
    scoped RETENTION_LIST = "select class, term_ms from retention where org_id = $1 order by class";
    scoped RETENTION_SET =
        "insert into retention (org_id, class, term_ms, updated_at) values ($1, $2, $3, $4) \
         on conflict (org_id, class) do update set term_ms = excluded.term_ms, updated_at = excluded.updated_at";
    scoped RETENTION_REMOVE = "delete from retention where org_id = $1 and class = $2";
    scoped RETENTION_SWEEP_GET = "select swept_at from retention_sweep where org_id = $1";
    scoped RETENTION_SWEEP_SET =
        "insert into retention_sweep (org_id, swept_at) values ($1, $2) \
         on conflict (org_id) do update set swept_at = excluded.swept_at";
    scoped RUN_LIST_UNSWEPT =
        "select id from run where org_id = $1 and swept_at is null and ended_at < $2 and id > $3 order by id limit $4";
    scoped RUN_SWEPT_AT = "select swept_at from run where org_id = $1 and id = $2";
    scoped RUN_SWEEP_SIZE =
        "select count(*), coalesce(sum(length(body)), 0) from event where org_id = $1 and run_id = $2";
    scoped RUN_SWEEP_MARK =
        "update run set swept_at = $3, error = null where org_id = $1 and id = $2 and ended_at is not null and swept_at is null";
    scoped EVENT_SWEEP = "update event set body = '{}' where org_id = $1 and run_id = $2";
    scoped REFUSAL_SWEEP = "update refusal set wanted = '', why = '' where org_id = $1 and run_id = $2";
    scoped APPROVAL_SWEEP =
        "update approval set action = $3, because = '[]', answer = null where org_id = $1 and run_id = $2";
    scoped STEERING_SWEEP = "update steering set kind = $3, note = null where org_id = $1 and run_id = $2";
    scoped TASK_SWEEP =
        "update task set spec = $3, last_error = null where org_id = $1 and id = $2 \
         and state in ('done', 'failed', 'cancelled', 'interrupted')";
}

/// What a sweep erases of a run, or has erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepSize {
    /// Events.
    pub events: u64,
    /// Characters of their bodies.
    pub characters: u64,
}

impl OrgRead {
    /// How long sessions are kept after their run's end, in milliseconds; a class that is not listed is kept for ever.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn retention_list(&mut self) -> Result<Vec<(PrivacyClass, i64)>, StoreError> {
        let rows = self.all(RETENTION_LIST, &[]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = row.read("retention");
                Ok((columns.parsed("class")?, columns.int()?))
            })
            .collect()
    }

    /// When the last sweep was, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn retention_swept_at(&mut self) -> Result<Option<i64>, StoreError> {
        let row = self.first(RETENTION_SWEEP_GET, &[]).await?;
        row.map(|row| row.read("retention_sweep").int()).transpose()
    }

    /// When the texts of a run were erased, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_swept_at(&mut self, run: RunId) -> Result<Option<i64>, StoreError> {
        let row = self.first(RUN_SWEPT_AT, values![run]).await?;
        row.map_or(Ok(None), |row| row.read("run").int_opt())
    }

    /// Runs that ended before `before` (milliseconds since the Unix epoch) and were not swept, in the order of their ids,
    /// after `after` where given, at most `limit`.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_list_unswept(
        &mut self,
        before: i64,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<Run>, StoreError> {
        let after = after.map_or_else(String::new, |id| id.to_string());
        let rows = self.all(RUN_LIST_UNSWEPT, values![before, &after, i64::from(limit)]).await?;
        let mut runs = Vec::with_capacity(rows.len());
        for row in rows {
            let id: RunId = row.read("run").parsed("id")?;
            runs.extend(self.run_get(id).await?);
        }
        Ok(runs)
    }

    /// What a sweep would erase of a run.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_sweep_size(&mut self, run: RunId) -> Result<SweepSize, StoreError> {
        let row =
            self.first(RUN_SWEEP_SIZE, values![run]).await?.ok_or(StoreError::Missing { what: "run" })?;
        let mut columns = row.read("event");
        Ok(SweepSize { events: columns.count("count")?, characters: columns.count("sum")? })
    }
}

impl OrgTx {
    /// Sets how long sessions of a class are kept after their run's end, in milliseconds; `None` for ever.
    ///
    /// # Errors
    /// `input` for a term that is not above zero; errors of the database.
    pub async fn retention_set(
        &mut self,
        class: PrivacyClass,
        term_ms: Option<i64>,
    ) -> Result<(), StoreError> {
        let now = self.inner.now();
        match term_ms {
            Some(term) if term <= 0 => {
                return Err(StoreError::Input { what: "retention", why: "a term is above zero".to_owned() });
            }
            Some(term) => self.change(RETENTION_SET, values![class.as_str(), term, now]).await?,
            None => self.change(RETENTION_REMOVE, values![class.as_str()]).await?,
        };
        Ok(())
    }

    /// Notes that a sweep was done now.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn retention_swept(&mut self) -> Result<(), StoreError> {
        let now = self.inner.now();
        self.change(RETENTION_SWEEP_SET, values![now]).await?;
        Ok(())
    }

    /// Erases the texts of a run that has ended; `None` when it goes on, or was swept already.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_sweep(&mut self, id: RunId) -> Result<Option<SweepSize>, StoreError> {
        let Some(run) = self.run_get(id).await? else { return Ok(None) };
        let now = self.inner.now();
        if self.change(RUN_SWEEP_MARK, values![id, now]).await? == 0 {
            return Ok(None);
        }
        let size = self.run_sweep_size(id).await?;
        self.change(EVENT_SWEEP, values![id]).await?;
        self.change(REFUSAL_SWEEP, values![id]).await?;
        let action = Action {
            kind: ActionKind::Other,
            tool: String::new(),
            title: "(erased)".to_owned(),
            commands: Vec::new(),
            paths: Vec::new(),
            hosts: Vec::new(),
            input: serde_json::Value::Null,
        };
        let said = SteerKind::Message { text: "(erased)".to_owned() };
        let (action, said) = (json_of("action", &action)?, json_of("steering", &said)?);
        self.change(APPROVAL_SWEEP, values![id, &action]).await?;
        self.change(STEERING_SWEEP, values![id, &said]).await?;
        if let Some(task) = self.task_get(run.task).await? {
            let spec = serde_json::to_string(&task.spec.without_text())
                .map_err(|error| StoreError::Input { what: "task's spec", why: error.to_string() })?;
            // Another attempt may be under way: it is the last one's sweep that erases what was asked.
            let row: &[Value<'_>] = values![run.task, &spec];
            self.change(TASK_SWEEP, row).await?;
        }
        Ok(Some(size))
    }
}

//! Runs: attempts at tasks. Written by the worker that holds the lease, and by nobody else while it goes on.

use crate::error::StoreError;
use crate::lease::Lease;
use crate::ledger::RunEnd;
use crate::signal::Topic;
use crate::sql::{Columns, Value, statements, values};
use crate::task::LAST_ID;
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    CommitId, ExitReason, RefName, RunId, RunState, RunSummary, SetupReport, TaskId, TaskSpec, WarrantId,
};

macro_rules! run_columns {
    () => {
        "id, task_id, attempt, warrant_id, state, exit_reason, exit_code, branch, base_commit, commit_id, \
         files_changed, additions, deletions, cost_micro_usd, tokens, started_at, ended_at, error, workspace, decision, \
         host"
    };
}

pub(crate) use run_columns;

statements! {
    scoped RUN_ADD =
        "insert into run (org_id, id, task_id, attempt, state, branch, base_commit, workspace, host, started_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    scoped RUN_GET = concat!("select ", run_columns!(), " from run where org_id = $1 and id = $2");
    scoped RUN_LIST = concat!(
        "select ", run_columns!(), " from run where org_id = $1 and id < $2 order by id desc limit $3"
    );
    scoped RUN_LIST_OPEN = concat!(
        "select ", run_columns!(), " from run where org_id = $1 and ended_at is null order by started_at, id"
    );
    scoped RUN_LIST_OF_TASK = concat!(
        "select ", run_columns!(), " from run where org_id = $1 and task_id = $2 order by attempt"
    );
    scoped RUN_LIST_RESUMING =
        "select id from run where org_id = $1 and task_id in (select id from task where org_id = $1 and resumes = $2) \
         order by id";
    scoped RUN_LIST_WITH_WORKSPACE = concat!(
        "select ", run_columns!(), " from run where org_id = $1 and host = $2 and workspace is not null order by id"
    );
    scoped RUN_FIND = "select id from run where org_id = $1 and substr(id, 29) = $2 order by id limit 2";
    scoped RUN_OF_ATTEMPT = "select id from run where org_id = $1 and task_id = $2 and attempt = $3";
    // Absent values leave the column as it is.
    scoped RUN_SET =
        "update run set state = $3, exit_reason = coalesce($4, exit_reason), exit_code = coalesce($5, exit_code), \
         error = coalesce($6, error), commit_id = coalesce($7, commit_id), branch = coalesce($8, branch), \
         files_changed = coalesce($9, files_changed), additions = coalesce($10, additions), \
         deletions = coalesce($11, deletions), workspace = coalesce($12, workspace), ended_at = coalesce($13, ended_at) \
         where org_id = $1 and id = $2";
    scoped RUN_CHARGE =
        "update run set cost_micro_usd = cost_micro_usd + $3, tokens = tokens + $4 where org_id = $1 and id = $2";
    scoped RUN_WORKSPACE_GONE =
        "update run set workspace = null where org_id = $1 and id = $2 and ended_at is not null";
    scoped RUN_DECIDE = "update run set decision = $3 where org_id = $1 and id = $2 and ended_at is not null";
}

/// Sub-runs that a summary names at most.
const MOST_TOLD: u32 = 100;

/// A run to be begun; its id, task and attempt are the lease's.
#[derive(Debug, Clone)]
pub struct RunDraft {
    /// The branch that it works on.
    pub branch: Option<RefName>,
    /// The commit that it is based on.
    pub base_commit: Option<CommitId>,
    /// Where its workspace will lie, so that it can be found after a crash.
    pub workspace: Option<String>,
    /// The machine.
    pub host: String,
}

/// A stored run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its task.
    pub task: TaskId,
    /// Which attempt at it, from 1.
    pub attempt: i64,
    /// The warrant it ran under.
    pub warrant: Option<WarrantId>,
    /// Where it stands.
    pub state: RunState,
    /// Why it ended.
    pub exit_reason: Option<ExitReason>,
    /// The command's own exit code.
    pub exit_code: Option<i64>,
    /// The branch.
    pub branch: Option<RefName>,
    /// The commit that it was based on.
    pub base_commit: Option<CommitId>,
    /// The commit at the branch's tip.
    pub commit: Option<CommitId>,
    /// Files that differ from the base.
    pub files_changed: u64,
    /// Lines added.
    pub additions: u64,
    /// Lines deleted.
    pub deletions: u64,
    /// What it cost, in micro-US-dollars.
    pub cost_micro_usd: u64,
    /// Tokens of all kinds.
    pub tokens: u64,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_at: i64,
    /// When it ended, in milliseconds since the Unix epoch.
    pub ended_at: Option<i64>,
    /// What went wrong.
    pub error: Option<String>,
    /// Where its workspace lies, until it is destroyed.
    pub workspace: Option<String>,
    /// What a person did with its change.
    pub decision: Option<RunDecision>,
    /// The machine.
    pub host: String,
}

/// What a person did with a run's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunDecision {
    /// Brought it into a repository.
    Applied,
    /// Had it pushed upstream.
    Published,
    /// Threw it away.
    Discarded,
}

impl RunDecision {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Published => "published",
            Self::Discarded => "discarded",
        }
    }
}

impl std::str::FromStr for RunDecision {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "applied" => Ok(Self::Applied),
            "published" => Ok(Self::Published),
            "discarded" => Ok(Self::Discarded),
            _ => Err("neither applied, published nor discarded"),
        }
    }
}

/// What looking for a run by the end of its id found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunFound {
    /// One.
    One(RunId),
    /// Several: more of the id is needed.
    Several,
    /// None.
    None,
}

pub(crate) fn run(mut columns: Columns<'_>) -> Result<Run, StoreError> {
    Ok(Run {
        id: columns.parsed("id")?,
        task: columns.parsed("task_id")?,
        attempt: columns.int()?,
        warrant: columns.parsed_opt("warrant_id")?,
        state: columns.parsed("state")?,
        exit_reason: columns.parsed_opt("exit_reason")?,
        exit_code: columns.int_opt()?,
        branch: columns.parsed_opt("branch")?,
        base_commit: columns.parsed_opt("base_commit")?,
        commit: columns.parsed_opt("commit_id")?,
        files_changed: columns.count("files_changed")?,
        additions: columns.count("additions")?,
        deletions: columns.count("deletions")?,
        cost_micro_usd: columns.count("cost_micro_usd")?,
        tokens: columns.count("tokens")?,
        started_at: columns.int()?,
        ended_at: columns.int_opt()?,
        error: columns.text_opt()?,
        workspace: columns.text_opt()?,
        decision: columns.parsed_opt("decision")?,
        host: columns.text()?,
    })
}

/// A count as the column holds it.
fn stored(count: Option<u64>) -> Option<i64> {
    count.map(|count| i64::try_from(count).unwrap_or(i64::MAX))
}

impl OrgRead {
    /// A run.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_get(&mut self, id: RunId) -> Result<Option<Run>, StoreError> {
        self.first(RUN_GET, values![id]).await?.map(|row| run(row.read("run"))).transpose()
    }

    /// The run whose id ends in these eight digits (or is this id).
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_find(&mut self, short: &str) -> Result<RunFound, StoreError> {
        if let Ok(id) = short.parse::<RunId>() {
            let there = self.run_get(id).await?;
            return Ok(there.map_or(RunFound::None, |run| RunFound::One(run.id)));
        }
        let rows = self.all(RUN_FIND, values![short]).await?;
        match rows.as_slice() {
            [] => Ok(RunFound::None),
            [row] => Ok(RunFound::One(row.read("run").parsed("id")?)),
            _ => Ok(RunFound::Several),
        }
    }

    /// Runs, newest first, older than `before` where given, at most `limit`.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_list(&mut self, before: Option<RunId>, limit: u32) -> Result<Vec<Run>, StoreError> {
        let before = before.map_or_else(|| LAST_ID.to_owned(), |id| id.to_string());
        let rows = self.all(RUN_LIST, values![&before, i64::from(limit)]).await?;
        rows.iter().map(|row| run(row.read("run"))).collect()
    }

    /// Runs that have not ended, oldest first.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_list_open(&mut self) -> Result<Vec<Run>, StoreError> {
        self.all(RUN_LIST_OPEN, &[]).await?.iter().map(|row| run(row.read("run"))).collect()
    }

    /// The attempts at a task, in order.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_list_of_task(&mut self, task: TaskId) -> Result<Vec<Run>, StoreError> {
        self.all(RUN_LIST_OF_TASK, values![task]).await?.iter().map(|row| run(row.read("run"))).collect()
    }

    /// The runs that continue the session of this one, oldest first.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_list_resuming(&mut self, id: RunId) -> Result<Vec<RunId>, StoreError> {
        let rows = self.all(RUN_LIST_RESUMING, values![id]).await?;
        rows.iter().map(|row| row.read("run").parsed("id")).collect()
    }

    /// Runs on a machine whose workspace was not destroyed yet, ended or not.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_list_with_workspace(&mut self, host: &str) -> Result<Vec<Run>, StoreError> {
        let rows = self.all(RUN_LIST_WITH_WORKSPACE, values![host]).await?;
        rows.iter().map(|row| run(row.read("run"))).collect()
    }

    /// The one object that describes a run, refusals included. `None` when there is no such run.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn run_summary(&mut self, id: RunId) -> Result<Option<RunSummary>, StoreError> {
        let Some(run) = self.run_get(id).await? else { return Ok(None) };
        let refusals = self.refusal_list(id).await?.into_iter().map(|stored| stored.refusal).collect();
        let setup = self.setup_report(id).await?;
        let spec = self.task_get(run.task).await?.ok_or(StoreError::Missing { what: "task" })?.spec;
        let sub_runs = self.run_list_under(id, MOST_TOLD).await?.into_iter().map(|run| run.id).collect();
        Ok(Some(RunSummary { sub_runs, ..self.summary(run, &spec, refusals, setup) }))
    }

    fn summary(
        &self,
        run: Run,
        spec: &TaskSpec,
        refusals: Vec<tipstaff_model::Refusal>,
        setup: Option<SetupReport>,
    ) -> RunSummary {
        let until = run.ended_at.unwrap_or_else(|| self.inner.now());
        // A branch without a commit holds no change.
        let branch = run.commit.as_ref().and(run.branch.as_ref()).map(|branch| branch.short().to_owned());
        RunSummary {
            run: run.id,
            task: run.task,
            state: run.state,
            exit_reason: run.exit_reason,
            exit_code: run.exit_code,
            branch,
            commit: run.commit,
            base_commit: run.base_commit.unwrap_or_else(|| spec.base_commit.clone()),
            files_changed: run.files_changed,
            additions: run.additions,
            deletions: run.deletions,
            cost_micro_usd: run.cost_micro_usd,
            tokens: run.tokens,
            duration_ms: u64::try_from(until.saturating_sub(run.started_at)).unwrap_or(0),
            privacy: spec.privacy,
            under: spec.under,
            sub_runs: Vec::new(),
            setup,
            refusals,
            error: run.error,
        }
    }
}

impl OrgTx {
    /// Begins the run of a lease, in state preparing.
    ///
    /// # Errors
    /// `lease-lost`; `conflict` when it was begun already.
    pub async fn run_add(&mut self, lease: &Lease, draft: &RunDraft) -> Result<RunId, StoreError> {
        self.lease_guard(lease).await?;
        let (token, now) = (lease.token(), self.inner.now());
        let row: &[Value<'_>] = values![
            token.run,
            token.task,
            token.attempt,
            RunState::Preparing.as_str(),
            draft.branch.as_ref().map(RefName::as_str),
            draft.base_commit.as_ref().map(CommitId::as_str),
            draft.workspace.as_deref(),
            &draft.host,
            now,
        ];
        self.change(RUN_ADD, row).await?;
        self.announce(Topic::Run);
        Ok(token.run)
    }

    /// Moves a run on, or notes facts about it. Its task follows; the end of the run ends the task and gives up the
    /// lease. A run that ended keeps its state.
    ///
    /// # Errors
    /// `lease-lost`; `transition` for a state that can't follow; `missing` for a run that was not begun.
    pub async fn run_update(&mut self, lease: &Lease, update: &RunUpdate) -> Result<(), StoreError> {
        self.lease_guard(lease).await?;
        let from = self.run_set(lease, update).await?;
        if let Some(state) = update.state.filter(|state| *state != from) {
            if state.is_final() {
                self.charge_close(lease, RunEnd::InOrder).await?;
            }
            self.task_move(lease, state, update.error.as_deref()).await?;
        }
        Ok(())
    }

    /// Writes a run's own row; the state it had.
    pub(crate) async fn run_set(
        &mut self,
        lease: &Lease,
        update: &RunUpdate,
    ) -> Result<RunState, StoreError> {
        let id = lease.run();
        let current = self.run_get(id).await?.ok_or(StoreError::Missing { what: "run" })?;
        let (from, to) = (current.state, update.state.unwrap_or(current.state));
        if from != to && !from.may_become(to) {
            return Err(StoreError::Transition { what: "run", from, to });
        }
        let ended_at = (to.is_final() && !from.is_final()).then(|| self.inner.now());
        let row: &[Value<'_>] = values![
            id,
            to.as_str(),
            update.exit_reason.map(ExitReason::as_str),
            update.exit_code,
            update.error.as_deref(),
            update.commit.as_ref().map(CommitId::as_str),
            update.branch.as_ref().map(RefName::as_str),
            stored(update.files_changed),
            stored(update.additions),
            stored(update.deletions),
            update.workspace.as_deref(),
            ended_at,
        ];
        self.change(RUN_SET, row).await?;
        if ended_at.is_some() {
            self.approval_close(id, None, "the run ended").await?;
            self.steer_close(id).await?;
        }
        self.announce(Topic::Run);
        Ok(from)
    }

    /// Adds to what a run cost.
    ///
    /// # Errors
    /// `lease-lost`.
    pub async fn run_charge(
        &mut self,
        lease: &Lease,
        cost_micro_usd: u64,
        tokens: u64,
    ) -> Result<(), StoreError> {
        self.lease_guard(lease).await?;
        let (cost, tokens) = (stored(Some(cost_micro_usd)), stored(Some(tokens)));
        self.change(RUN_CHARGE, values![lease.run(), cost, tokens]).await?;
        Ok(())
    }

    /// Adds to what a run cost, or takes from it what was presumed; see [`crate::charge`].
    pub(crate) async fn run_charge_add(
        &mut self,
        run: RunId,
        cost: i64,
        tokens: i64,
    ) -> Result<(), StoreError> {
        self.change(RUN_CHARGE, values![run, cost, tokens]).await?;
        Ok(())
    }

    /// Notes that the workspace of a run that ended is gone. Whoever removes it needs no lease: the run is over.
    ///
    /// # Errors
    /// `missing` when there is no such run, or it goes on.
    pub async fn run_workspace_destroyed(&mut self, id: RunId) -> Result<(), StoreError> {
        if self.change(RUN_WORKSPACE_GONE, values![id]).await? == 0 {
            return Err(StoreError::Missing { what: "run that ended" });
        }
        Ok(())
    }

    /// Notes what a person did with the change of a run that ended.
    ///
    /// # Errors
    /// `missing` when there is no such run, or it goes on.
    pub async fn run_decide(&mut self, id: RunId, decision: RunDecision) -> Result<(), StoreError> {
        if self.change(RUN_DECIDE, values![id, decision.as_str()]).await? == 0 {
            return Err(StoreError::Missing { what: "run that ended" });
        }
        self.announce(Topic::Run);
        Ok(())
    }
}

//! Sub-runs: what `tipstaff run --under RUN` asks of the run above, and what its narrowing does to those under it.
//!
//! Promises: a sub-run begins under a living run of the same org, on its repository and base, with nothing that the run
//! above is not granted; whoever narrows a run narrows or ends everything under it in the same transaction.

use crate::bound::BoundSecret;
use crate::cli::{RunArgs, RunChoice};
use crate::commands::runs::find;
use crate::context::Context;
use crate::exit::Problem;
use crate::output::span;
use crate::policies::Laws;
use crate::setup::PlannedSetup;
use tipstaff_broker::Source;
use tipstaff_model::warrant::{MOST_RUNS_ABOVE, MOST_SUB_RUNS, ModelGrant, SHORTEST_RUN_MS, SubRunError};
use tipstaff_model::{
    AgentRole, AuditAction, AuditDraft, CommitId, MicroUsd, Policy, PrivacyClass, RunId, SetupChoice, TaskId,
    TaskSpec, Warrant, WarrantId,
};
use tipstaff_seal::SignedWarrant;
use tipstaff_store::{KeyPurpose, OrgRead, OrgTx};

/// A run at work, as one that works under it sees it.
pub(crate) struct Above {
    pub(crate) run: RunId,
    pub(crate) spec: TaskSpec,
    pub(crate) warrant: Warrant,
    /// What it and everything under it spent and have reserved.
    used: MicroUsd,
    /// How long a sub-run may still take, in milliseconds.
    left_ms: u64,
}

fn over(run: RunId, why: &str) -> anyhow::Error {
    Problem::refused(
        "run-above-ended",
        format!(
            "run {} {why}, and a sub-run works under a run that is at work: start it without --under, or under another run (`tipstaff runs list --state running`)",
            run.short()
        ),
    )
}

fn widening(error: &SubRunError) -> anyhow::Error {
    Problem::refused(error.code(), error.to_string())
}

/// Reads the run above, which must be at work and have time left.
async fn read(read: &mut OrgRead, run: RunId, now_ms: i64) -> anyhow::Result<Above> {
    let found = read.run_get(run).await?.ok_or_else(|| over(run, "is not on record"))?;
    if found.state.is_final() {
        return Err(over(run, &format!("has ended ({})", found.state)));
    }
    let task = read.task_get(found.task).await?.ok_or_else(|| over(run, "has no task on record"))?;
    if task.cancel_requested {
        return Err(over(run, "was cancelled"));
    }
    if let Some(why) = read.run_ended_above(run).await? {
        return Err(over(run, &format!("is ending, since {why}")));
    }
    let stored = read.warrant_of_run(run).await?.ok_or_else(|| over(run, "has no warrant"))?;
    if stored.revoked_at.is_some() {
        return Err(over(run, "has its warrant revoked"));
    }
    let keys = read.verifying_keys(KeyPurpose::Warrant).await?;
    if !keys.iter().any(|key| stored.signed.verify(key).is_ok()) {
        return Err(Problem::refused(
            "warrant-forged",
            format!(
                "the signature of the warrant of run {} does not hold: look at the audit log",
                run.short()
            ),
        ));
    }
    let warrant = stored.signed.warrant;
    let left_ms = warrant.time_for_sub_run(now_ms);
    if left_ms < SHORTEST_RUN_MS {
        return Err(over(run, "has no time left"));
    }
    let used = read.run_used(run).await?;
    Ok(Above { run, spec: task.spec, warrant, used, left_ms })
}

/// The run that a person named with `--under`, where they did.
pub(crate) async fn chosen(context: &Context, arguments: &RunArgs) -> anyhow::Result<Option<Above>> {
    let Some(text) = &arguments.under else { return Ok(None) };
    let run = find(context, &RunChoice { run: Some(text.clone()) }).await?.0.id;
    let mut store = context.store.read(context.scope()).await?;
    Ok(Some(read(&mut store, run, context.clock.wall_ms()).await?))
}

impl Above {
    /// The source that both work on.
    pub(crate) fn source(&self) -> anyhow::Result<Source> {
        crate::begin::source_from(&self.spec.source)
    }

    /// Refuses a repository that is not the one of this run.
    pub(crate) fn same_source(&self, source: &str) -> anyhow::Result<()> {
        if source == self.spec.source {
            return Ok(());
        }
        Err(widening(&self.warrant.more("repositories", &source)))
    }

    /// Refuses a base that is not the one of this run.
    pub(crate) fn same_base(&self, base: &CommitId) -> anyhow::Result<()> {
        if *base == self.spec.base_commit {
            return Ok(());
        }
        Err(widening(&self.warrant.more("repositories", &format!("the base {}", base.short()))))
    }

    /// The role where nobody chose one.
    pub(crate) const fn role(&self) -> AgentRole {
        self.spec.role
    }

    /// The budget: as it was asked for, or at most what is left of this run's.
    pub(crate) fn budget(&self, asked: Option<MicroUsd>, usual: MicroUsd) -> MicroUsd {
        asked.unwrap_or_else(|| self.warrant.budget_for_sub_run(usual, self.used))
    }

    /// The time: as it was asked for, or at most what is left of this run's.
    pub(crate) fn timeout_ms(&self, asked: Option<u64>, usual: u64) -> anyhow::Result<u64> {
        match asked {
            Some(asked) if asked > self.left_ms => Err(widening(&SubRunError {
                dimension: "time",
                wanted: span(asked),
                granted: format!("at most {} from now", span(self.left_ms)),
            })),
            Some(asked) => Ok(asked),
            None => Ok(usual.min(self.left_ms)),
        }
    }

    /// What is kept of the session where nobody said.
    pub(crate) const fn privacy(&self) -> PrivacyClass {
        self.spec.privacy
    }

    /// Whether the set-up is done where nobody said.
    pub(crate) fn setup(&self) -> SetupChoice {
        if self.spec.setup == SetupChoice::Skip { SetupChoice::Skip } else { SetupChoice::Usual }
    }
}

/// The policies that the options of the runs above a task laid down, which bind it, too.
pub(crate) async fn policies(read: &mut OrgRead, task: &TaskSpec) -> anyhow::Result<Vec<Policy>> {
    let Some(above) = task.under else { return Ok(Vec::new()) };
    let mut line = vec![above];
    line.extend(read.run_list_above(above).await?);
    let mut all = Vec::new();
    for run in line {
        let Some(run) = read.run_get(run).await? else { continue };
        all.extend(read.task_get(run.task).await?.map(|task| task.spec.policy));
    }
    Ok(all)
}

/// Refuses a sub-run where there are too many already, beside it or above it. The transaction is the only one, until it
/// ends, that adds one or changes what the run above is granted.
pub(crate) async fn room(tx: &mut OrgTx, task: &TaskSpec) -> anyhow::Result<()> {
    let Some(above) = task.under else { return Ok(()) };
    tx.run_lock(above).await?;
    let height = tx.run_list_above(above).await?.len().saturating_add(1);
    if height > MOST_RUNS_ABOVE {
        return Err(Problem::refused(
            "sub-run-depth",
            format!(
                "run {} stands {MOST_RUNS_ABOVE} runs below the first one, and nothing may stand deeper: start this one under one of those above it, or without --under",
                above.short()
            ),
        ));
    }
    let beside = tx.task_count_under(above).await?;
    if usize::try_from(beside).unwrap_or(usize::MAX) >= MOST_SUB_RUNS {
        return Err(Problem::refused(
            "sub-run-count",
            format!(
                "{MOST_SUB_RUNS} sub-runs of run {} are queued or at work, as many as there may be: wait until one ends, or cancel one",
                above.short()
            ),
        ));
    }
    Ok(())
}

/// The warrant that a task asks for, as it is issued: one of a sub-run is a narrowing of the one above. Within a
/// transaction nobody changes that one until it ends.
pub(crate) async fn granted(
    tx: &mut OrgTx,
    task: &TaskSpec,
    asked: Warrant,
    now_ms: i64,
) -> anyhow::Result<Warrant> {
    let Some(above) = task.under else { return Ok(asked) };
    tx.run_lock(above).await?;
    seen(tx, task, asked, now_ms).await
}

/// The same for looking at it.
pub(crate) async fn seen(
    store: &mut OrgRead,
    task: &TaskSpec,
    asked: Warrant,
    now_ms: i64,
) -> anyhow::Result<Warrant> {
    let Some(above) = task.under else { return Ok(asked) };
    let above = read(store, above, now_ms).await?;
    above.warrant.for_sub_run(asked).map_err(|error| widening(&error))
}

/// Whether the warrant of a task could be issued now; for what begins later, and before anything is on record.
pub(crate) async fn possible(
    context: &Context,
    tx: &mut OrgTx,
    task: &TaskSpec,
    bound: &[BoundSecret],
    (models, laws, setup): (&[ModelGrant], &Laws, Option<&PlannedSetup>),
) -> anyhow::Result<()> {
    if task.under.is_none() {
        return Ok(());
    }
    let (clock, entropy) = (context.clock.as_ref(), context.entropy.as_ref());
    let ids = (TaskId::new(clock, entropy), RunId::new(clock, entropy));
    let laid_over = (models.to_vec(), &laws.push, &laws.walls);
    let mut asked = crate::begin::warrant_of(context, task, bound, ids, laid_over)?;
    asked.setup = setup.map(|setup| laws.without_denied(setup.grant.clone()));
    granted(tx, task, asked, clock.wall_ms()).await.map(|_| ())
}

/// Narrows the warrants of everything under a run whose warrant is `above` by now, or ends it where that can't be done; one
/// sentence for each.
pub(crate) async fn follow(
    context: &Context,
    tx: &mut OrgTx,
    above: &Warrant,
    actor: &str,
) -> anyhow::Result<Vec<String>> {
    let (mut told, mut above) = (Vec::new(), vec![above.clone()]);
    // Bounded: there are only so many above each other, and so many beside each other.
    while let Some(warrant) = above.pop() {
        for run in tx.run_list_open_under(warrant.run).await? {
            let Some(current) = tx.warrant_of_run(run.id).await?.filter(|one| one.revoked_at.is_none())
            else {
                continue;
            };
            let current = current.signed.warrant;
            let id = WarrantId::new(context.clock.as_ref(), context.entropy.as_ref());
            match current.narrowed_under(id, &warrant) {
                Ok(None) => {}
                Ok(Some(less)) => {
                    let signed = SignedWarrant::sign(&less, &tx.signing_key(KeyPurpose::Warrant).await?)?;
                    tx.warrant_narrow(&signed).await?;
                    tx.audit_note(
                        AuditDraft::new(actor, AuditAction::WarrantNarrowed, format!("warrant:{id}"))
                            .with("run", run.id)
                            .with("parent", current.id)
                            .with("digest", signed.digest)
                            .with("under", warrant.run)
                            .with("above", warrant.id),
                    );
                    told.push(format!("its sub-run {} is narrowed with it: warrant {id}", run.id.short()));
                    above.push(less);
                }
                Err(error) => {
                    tx.warrant_revoke(current.id).await?;
                    tx.audit_note(
                        AuditDraft::new(
                            actor,
                            AuditAction::WarrantRevoked,
                            format!("warrant:{}", current.id),
                        )
                        .with("run", run.id)
                        .with("under", warrant.run)
                        .with("above", warrant.id),
                    );
                    told.push(format!("its sub-run {} ends: {error}", run.id.short()));
                }
            }
        }
    }
    Ok(told)
}

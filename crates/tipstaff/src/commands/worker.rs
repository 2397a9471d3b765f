//! `tipstaff worker`: carries out queued tasks.

use crate::begin::{begin, source_from};
use crate::cli::WorkerArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::models::keys::Asker;
use crate::transcript::{Piece, of_approval, of_steer};
use crate::watch::plain;
use std::process::ExitCode;
use std::sync::Arc;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{ExitReason, RunState};
use tipstaff_runner::{Cancel, Notice, Observer, Project, Runner};
use tipstaff_store::{LEASE_MS, Lease, RunDraft, TakeOver, TaskFilter, Topic};
use tokio::task::JoinSet;

/// How long the worker waits for news before it looks again, in milliseconds.
const POLL_MS: u64 = 5_000;

/// One line per change of state; the output of runs is in their logs.
struct Quiet {
    context: Arc<Context>,
    run: String,
}

impl Observer for Quiet {
    fn notice(&self, notice: Notice) {
        let text = match notice {
            Notice::Output(..) | Notice::Agent(_) | Notice::Spent { .. } => return,
            Notice::Verify { code: None, .. } => return,
            Notice::Verify { step, command, code: Some(code) } => {
                format!("verify {step} ended with {code}: {command}")
            }
            Notice::State(state) => state.to_string(),
            Notice::Refused(refusal) => format!("refused {} ({})", refusal.wanted, refusal.rule),
            Notice::Remark(text) => text,
            Notice::Approval(approval) => match of_approval(&approval) {
                Piece::Line(_, text) => text,
                _ => return,
            },
            Notice::Steer { steer, state, note } => {
                match of_steer(&steer, state.as_str(), note.as_deref().unwrap_or_default()) {
                    Piece::Line(_, text) => text,
                    _ => return,
                }
            }
        };
        self.context.output.note(&format!("run {}: {}", self.run, plain(&text)));
    }
}

/// Carries out `tipstaff worker`.
pub(crate) async fn worker(arguments: &WorkerArgs, context: Context) -> anyhow::Result<ExitCode> {
    let runner = context.runner().await?;
    let context = Arc::new(context);
    let mut news = context.store.subscribe(Topic::Task);
    let mut runs: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let cancel = Cancel::default();
    let stop = stop_on_signal(&context);
    context.output.note(&format!("worker with {} slots; Ctrl-C ends it after its runs", arguments.slots));
    loop {
        // Tasks of workers that are gone come back first.
        context.store.task_reap(TakeOver::Expired, &context.worker_name()).await?;
        if runs.is_empty() {
            crate::privacy::prompts_forget(&context).await?;
            super::retention::sweep_quietly(&context).await;
            crate::kept::prune(&context).await;
        }
        while runs.len() < usize::from(arguments.slots) && !stop.is_cancelled() {
            let Some(lease) = context.store.task_claim(&context.worker_name(), LEASE_MS).await? else {
                break;
            };
            let (context, runner, cancel) = (Arc::clone(&context), Arc::clone(&runner), cancel.clone());
            runs.spawn(async move { carry(&context, &runner, lease, cancel).await });
        }
        let idle = runs.is_empty();
        if stop.is_cancelled() && idle {
            break;
        }
        if arguments.once && idle && !waiting(&context).await? {
            break;
        }
        tokio::select! {
            Some(ended) = runs.join_next(), if !idle => {
                if let Err(error) = ended.map_err(anyhow::Error::from).and_then(|result| result) {
                    context.output.error(&format!("{error:#}"));
                }
                context.pin_checkpoint().await?;
            }
            () = news.wait(if arguments.once { 200 } else { POLL_MS }) => {}
        }
    }
    context.pin_checkpoint().await?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a task waits, be it for a later attempt.
async fn waiting(context: &Context) -> anyhow::Result<bool> {
    let mut read = context.store.read(context.scope()).await?;
    let filter = TaskFilter { state: Some(RunState::Queued), before: None };
    Ok(!read.task_list(filter, 1).await?.is_empty())
}

fn stop_on_signal(context: &Arc<Context>) -> Cancel {
    let stop = Cancel::default();
    let (seen, output) = (stop.clone(), context.output);
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        output.note("taking no more tasks; waiting for the runs under way");
        seen.cancel();
    });
    stop
}

async fn carry(context: &Arc<Context>, runner: &Runner, lease: Lease, cancel: Cancel) -> anyhow::Result<()> {
    let mut tx = context.store.begin(lease.scope()).await?;
    let task = tx.task_get(lease.task()).await?.map(|task| task.spec);
    let Some(task) = task else { return Ok(()) };
    let task = crate::privacy::prompt_of(&mut tx, lease.task(), task).await?;
    let opened = async {
        let source = source_from(&task.source)?;
        let mirror = runner.mirrors(lease.token().org)?.open(&source).await?;
        mirror.pin(Some(task.base_commit.as_str())).await?;
        let gateway = crate::models::prepare(context, &task, Asker::Worker).await?;
        let project = Project::of_commit(&mirror, &task.base_commit).await?;
        let setup = crate::setup::planned(context, &mirror, &task, &project.setup).await?;
        let bound = crate::bound::read(&mut tx, &task.secrets).await?;
        let now = context.clock.wall_ms();
        let laws = crate::policies::laws(&mut tx, &task, &bound, project, now).await?;
        // What the run above grants may be less by now, or gone.
        let planned = (gateway.grants.as_slice(), &laws, setup.as_ref());
        crate::under::possible(context, &mut tx, &task, &bound, planned).await?;
        Ok::<_, anyhow::Error>((mirror, laws, gateway, setup))
    };
    match opened.await {
        Ok((mirror, laws, gateway, setup)) => {
            let begun = begin(context, tx, lease, task, mirror, cancel, laws, gateway, setup).await?;
            let observer = Quiet { context: Arc::clone(context), run: begun.run.short() };
            let observer = Arc::new(observer);
            begun.control.teller.watched_by(Arc::clone(&observer) as _);
            let ended = runner.carry_out(begun.job, begun.control, observer).await;
            crate::privacy::prompts_forget(context).await?;
            ended?;
        }
        Err(error) => {
            // The repository is gone or unreadable: on record as a run that failed before it prepared anything.
            let draft = RunDraft {
                branch: None,
                base_commit: Some(task.base_commit.clone()),
                workspace: None,
                host: context.host(),
            };
            tx.run_add(&lease, &draft).await?;
            let update = RunUpdate {
                state: Some(RunState::Failed),
                exit_reason: Some(match crate::exit::classify(&error).1 {
                    Exit::Refused => ExitReason::Refused,
                    _ => ExitReason::Internal,
                }),
                error: Some(format!("{error:#}")),
                ..RunUpdate::default()
            };
            tx.run_update(&lease, &update).await?;
            tx.commit().await?;
            context.output.error(&format!("run {}: {error:#}", lease.run().short()));
        }
    }
    Ok(())
}

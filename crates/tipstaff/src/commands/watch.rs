//! `tipstaff watch`: a run that goes on, on a screen or line by line.

use crate::cli::{RunChoice, WatchArgs};
use crate::commands::runs::{find, lines, what_of};
use crate::context::Context;
use crate::exit::Problem;
use crate::output::span;
use crate::tui::{self, Choice};
use std::process::ExitCode;
use tipstaff_model::RunId;

/// Carries out `tipstaff watch`.
pub(crate) async fn watch(arguments: &WatchArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let screen = tui::wanted(context, arguments.screen.chosen())?;
    let run = match &arguments.run {
        Some(_) => Some(find(context, &RunChoice { run: arguments.run.clone() }).await?.0.id),
        None => going_on(context, screen).await?,
    };
    let Some(run) = run else { return Ok(ExitCode::SUCCESS) };
    if !screen {
        let run = context.store.read(context.scope()).await?.run_get(run).await?;
        let run =
            run.ok_or_else(|| Problem::failed("run-unknown", "the run is not in the store any more"))?;
        return lines(context, &run, true).await;
    }
    tui::show(context, run, None).await?;
    let run = context.store.read(context.scope()).await?.run_get(run).await?;
    if let Some(run) = run {
        let id = run.id.short();
        if run.state.is_final() {
            context.output.note(&format!("run {id}: {}; `tipstaff runs show {id}` says more", run.state));
        } else {
            context
                .output
                .note(&format!("run {id} goes on: {}; `tipstaff watch {id}` comes back", run.state));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The run that goes on, or the one that a person chooses; `None` when they choose none.
async fn going_on(context: &Context, screen: bool) -> anyhow::Result<Option<RunId>> {
    let mut read = context.store.read(context.scope()).await?;
    let mut open = read.run_list_open().await?;
    // The newest first.
    open.sort_unstable_by_key(|run| std::cmp::Reverse((run.started_at, run.id)));
    let Some(newest) = open.first().map(|run| run.id) else {
        return Err(Problem::usage(
            "run-none-live",
            "no run goes on; `tipstaff watch RUN` shows one that ended, `tipstaff runs list` lists them",
        ));
    };
    if open.len() == 1 {
        return Ok(Some(newest));
    }
    if !screen {
        context.output.note(&format!(
            "{} runs go on; this is the newest, {}; `tipstaff watch RUN` chooses another",
            open.len(),
            newest.short()
        ));
        return Ok(Some(newest));
    }
    let now = context.clock.wall_ms();
    let mut choices = Vec::with_capacity(open.len());
    for run in open {
        let task = read.task_get(run.task).await?;
        let (repository, what) = task
            .map_or_else(Default::default, |task| (task.spec.repository.to_string(), what_of(&task.spec)));
        let took = span(u64::try_from(now.saturating_sub(run.started_at)).unwrap_or(0));
        let state = run.state;
        choices.push(Choice { run: run.id, what: format!("{state:<11}  {took:>7}  {repository}  {what}") });
    }
    drop(read);
    tui::choose(context, &choices).await
}

//! The session of a run: as a transcript, replayed in time, exported.

use crate::cli::ExportFormat;
use crate::context::Context;
use crate::output::time;
use crate::transcript::{Markdown, escaped, of_event};
use crate::watch::{Live, plain};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tipstaff_store::{Event, Run, Task};

/// Events that are read at once.
const PAGE: u32 = 500;
/// The longest pause of a replay, however long the agent thought.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Calls `each` for every event of a run, in order.
pub(super) async fn events(
    context: &Context,
    run: &Run,
    mut each: impl AsyncFnMut(Event) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let mut read = context.store.read(context.scope()).await?;
        let page = read.event_list(run.id, after, PAGE).await?;
        drop(read);
        let Some(last) = page.last() else { return Ok(()) };
        after = last.seq;
        for event in page {
            each(event).await?;
        }
    }
}

fn object(event: &Event) -> serde_json::Value {
    json!({ "seq": event.seq, "at": event.at, "kind": event.kind, "body": event.body })
}

/// The whole session at once.
pub(crate) async fn transcript(context: &Context, run: &Run) -> anyhow::Result<ExitCode> {
    let live = Live::new(context.output);
    events(context, run, async |event| {
        if context.output.json {
            context.output.object(&object(&event));
        } else {
            live.piece(of_event(&event));
        }
        Ok(())
    })
    .await?;
    live.end();
    Ok(ExitCode::SUCCESS)
}

/// The session again, as fast as it was, `speed` times as fast, or at once when `speed` is 0.
pub(crate) async fn replay(context: &Context, run: &Run, speed: f64) -> anyhow::Result<ExitCode> {
    let live = Live::new(context.output);
    let mut before = None;
    events(context, run, async |event| {
        let passed = event.at.saturating_sub(before.unwrap_or(event.at)).max(0);
        before = Some(event.at);
        if speed > 0.0 {
            let passed = Duration::from_millis(u64::try_from(passed).unwrap_or(0));
            tokio::time::sleep(passed.div_f64(speed).min(LONGEST_PAUSE)).await;
        }
        if context.output.json {
            context.output.object(&object(&event));
        } else {
            live.piece(of_event(&event));
        }
        Ok(())
    })
    .await?;
    live.end();
    Ok(ExitCode::SUCCESS)
}

/// The session as a file.
pub(crate) async fn export(
    context: &Context,
    (run, task): (&Run, &Task),
    format: ExportFormat,
    path: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let mut file = match path {
        Some(path) => Some(std::fs::File::create(path).map_err(|error| {
            crate::exit::Problem::usage(
                "export-file",
                format!("{} can't be written: {error}", path.display()),
            )
        })?),
        None => None,
    };
    let mut write = |text: &str| match &mut file {
        Some(file) => file.write_all(text.as_bytes()),
        None => {
            context.output.raw(text);
            Ok(())
        }
    };
    match format {
        ExportFormat::Jsonl => {
            events(context, run, async |event| Ok(write(&format!("{}\n", object(&event)))?)).await?;
        }
        ExportFormat::Markdown => {
            write(&head(run, task))?;
            let mut page = Markdown::default();
            events(context, run, async |event| {
                page.event(&event);
                Ok(write(&page.take())?)
            })
            .await?;
            write("\n")?;
        }
    }
    if let (Some(path), Some(file)) = (path, file) {
        file.sync_all()?;
        context.output.note(&format!("the session of run {} is in {}", run.id.short(), path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

fn head(run: &Run, task: &Task) -> String {
    let what = task.spec.prompt.clone().unwrap_or_else(|| task.spec.argv.join(" "));
    let reason = run.exit_reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!(
        "# Run {}\n\n- task: {}\n- repository: {} at {}\n- role: {}, engine {}\n- started: {} UTC\n- state: {}{reason}\n\
         - cost: {}\n\n## Session\n\n",
        run.id.short(),
        escaped(&plain(&what).replace('\n', " ")),
        escaped(&task.spec.repository.to_string()),
        task.spec.base_commit.short(),
        task.spec.role,
        task.spec.engine,
        time(run.started_at),
        run.state,
        tipstaff_model::MicroUsd::from_micro(run.cost_micro_usd),
    )
}

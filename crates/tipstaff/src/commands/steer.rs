//! `tipstaff runs say | interrupt | pause | resume`: telling something to a run that goes on.

use crate::cli::{RunChoice, SayArgs};
use crate::commands::runs::find;
use crate::context::Context;
use crate::exit::Problem;
use crate::watch::plain;
use serde_json::json;
use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;
use tipstaff_model::steer::{LONGEST_MESSAGE, MOST_WAITING};
use tipstaff_model::{PrivacyClass, RunId, RunState, Steer, SteerId, SteerKind, SteerState};
use tipstaff_store::{Run, Steering, SteeringAdded, Topic};

/// How long to wait for the worker to take it, before saying that it waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// Carries out `tipstaff runs say`.
pub(crate) async fn say(context: &Context, arguments: &SayArgs) -> anyhow::Result<ExitCode> {
    let (run, _) = find(context, &arguments.choice()).await?;
    let text = if arguments.text == "-" { from_input()? } else { arguments.text.clone() };
    tell(context, &run, SteerKind::Message { text }).await
}

/// Carries out `tipstaff runs interrupt`.
pub(crate) async fn interrupt(context: &Context, choice: &RunChoice) -> anyhow::Result<ExitCode> {
    tell(context, &find(context, choice).await?.0, SteerKind::Interrupt).await
}

/// Carries out `tipstaff runs pause`.
pub(crate) async fn pause(context: &Context, choice: &RunChoice) -> anyhow::Result<ExitCode> {
    tell(context, &find(context, choice).await?.0, SteerKind::Pause).await
}

/// Lets the processes of a run that has not ended go on.
pub(crate) async fn unpause(context: &Context, run: &Run) -> anyhow::Result<ExitCode> {
    tell(context, run, SteerKind::Resume).await
}

/// A message from standard input.
pub(crate) fn from_input() -> anyhow::Result<String> {
    let most = u64::try_from(LONGEST_MESSAGE)?.saturating_add(1);
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Problem::usage("message-unusable", "the message on standard input is not UTF-8 text"))?;
    // A file's last line end is not part of what is said.
    Ok(text.strip_suffix('\n').map(ToOwned::to_owned).unwrap_or(text))
}

async fn tell(context: &Context, run: &Run, kind: SteerKind) -> anyhow::Result<ExitCode> {
    let (word, short) = (kind.as_str(), run.id.short());
    let mut news = context.store.subscribe(Topic::Run);
    let steer = add(context, run.id, kind).await?;
    let taken = async {
        loop {
            let found = look(context, run.id, steer.id).await?;
            if found.state != SteerState::Waiting {
                return Ok::<_, anyhow::Error>(found);
            }
            news.wait(100).await;
        }
    };
    let found = match tokio::time::timeout(PATIENCE, taken).await {
        Ok(found) => found?,
        Err(_) => look(context, run.id, steer.id).await?,
    };
    let note = found.note.as_deref().map(plain).unwrap_or_default();
    let why = if note.is_empty() { String::new() } else { format!(": {note}") };
    if found.state == SteerState::Refused {
        let text = format!("run {short} did not take the {word}{why}");
        return Err(Problem::failed("steering-refused", text));
    }
    if context.output.json {
        context.output.object(&json!({
            "steer": steer.id, "run": run.id, "kind": word, "state": found.state, "note": found.note,
        }));
    }
    match found.state {
        _ if context.output.json => {}
        SteerState::Waiting => context.output.line(&format!(
            "the {word} waits for run {short}; `tipstaff runs logs --follow {short}` shows when it is taken"
        )),
        _ => context.output.line(&format!("run {short} took the {word}{why}")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells a run something; it waits for the worker then.
pub(crate) async fn add(context: &Context, run: RunId, kind: SteerKind) -> anyhow::Result<Steer> {
    kind.check().map_err(|error| Problem::usage("message-unusable", error.to_string()))?;
    let short = run.short();
    let mut tx = context.store.begin(context.scope()).await?;
    if let (SteerKind::Message { .. }, Some(found)) = (&kind, tx.run_get(run).await?) {
        // What is said would be stored.
        let meta = tx.task_get(found.task).await?.is_some_and(|task| task.spec.privacy == PrivacyClass::Meta);
        if meta {
            let text = "the run is of the class meta, and a message would be stored; `tipstaff runs interrupt | pause | cancel` work";
            return Err(Problem::refused("privacy-meta-no-text", text));
        }
    }
    let added = tx.steer_add(context.principal.member, run, kind).await?;
    let steer = match added {
        Some(SteeringAdded::Waiting(steer)) => steer,
        Some(SteeringAdded::NotRunning(state)) if state.is_final() => {
            return Err(Problem::usage("run-ended", format!("run {short} has ended: {state}")));
        }
        Some(SteeringAdded::NotRunning(RunState::Verifying)) => {
            return Err(Problem::usage(
                "run-not-at-work",
                format!(
                    "the agent of run {short} is done and its change is verified: nobody reads what is said now. When it has ended, `tipstaff runs resume {short} TEXT` continues it"
                ),
            ));
        }
        Some(SteeringAdded::NotRunning(state)) => {
            return Err(Problem::usage(
                "run-not-at-work",
                format!("run {short} is {state}: it can be told something while its agent works"),
            ));
        }
        Some(SteeringAdded::Full) => {
            return Err(Problem::failed(
                "steering-full",
                format!("{MOST_WAITING} messages wait for run {short} already: wait until it took some"),
            ));
        }
        None => return Err(Problem::usage("run-unknown", format!("there is no run {short}"))),
    };
    tx.commit().await?;
    context.pin_checkpoint().await?;
    Ok(steer)
}

async fn look(context: &Context, run: RunId, id: SteerId) -> anyhow::Result<Steering> {
    let mut read = context.store.read(context.scope()).await?;
    let all = read.steer_list(run).await?;
    all.into_iter()
        .find(|one| one.steer.id == id)
        .ok_or_else(|| Problem::failed("steering-gone", "what was said is not in the store any more"))
}

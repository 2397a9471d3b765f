//! What a person ordered on the screen, carried out through the same functions as the commands.

use crate::commands::{approvals, runs, steer as steering};
use crate::context::Context;
use crate::learn::toml;
use crate::output::Tone;
use crate::tui::screen::{Order, Screen};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use tipstaff_broker::Color;
use tipstaff_model::{ApprovalAnswer, ApprovalId, SteerKind};

/// A longer change is cut on the screen, in bytes.
const LONGEST_PATCH: usize = 1024 * 1024;

/// Carries an order out and says on the screen what came of it.
pub(crate) async fn carry_out(context: &Context, screen: &mut Screen, order: Order) {
    let done = match order {
        Order::Cancel => cancel(context, screen).await,
        Order::Propose => propose(context, screen),
        Order::ReadChange => read_change(context, screen).await,
        Order::Answer(id, answer) => answered(context, id, &answer).await,
        Order::Steer(kind) => steer(context, screen, kind).await,
        Order::Leave | Order::Interrupt => Ok(None),
    };
    match done {
        Ok(None) => {}
        Ok(Some(text)) => screen.say(Tone::Bold, text),
        Err(error) => screen.say(Tone::Bad, format!("{error:#} [{}]", crate::exit::classify(&error).0)),
    }
}

async fn answered(
    context: &Context,
    id: ApprovalId,
    answer: &ApprovalAnswer,
) -> anyhow::Result<Option<String>> {
    let (_, already) = approvals::give(context, id, answer).await?;
    let word = if answer.allow { "allowed" } else { "denied" };
    let before = if already { " already" } else { "" };
    let reach = approvals::reach(answer);
    Ok(Some(format!("approval {} is {word}{before}{reach}", id.short())))
}

async fn steer(context: &Context, screen: &Screen, kind: SteerKind) -> anyhow::Result<Option<String>> {
    let word = kind.as_str();
    steering::add(context, screen.facts.run, kind).await?;
    Ok(Some(format!("the {word} waits for the run")))
}

async fn cancel(context: &Context, screen: &Screen) -> anyhow::Result<Option<String>> {
    let facts = &screen.facts;
    runs::task_cancel(context, facts.task, &format!("run:{}", facts.run)).await?;
    Ok(Some("it ends within seconds; its work so far is kept".to_owned()))
}

/// Keeps the proposal as a file outside of the repository, for review and `--allow-from`.
fn propose(context: &Context, screen: &Screen) -> anyhow::Result<Option<String>> {
    let wishes = screen.now.wishes();
    if wishes.is_empty() {
        return Ok(Some("nothing was refused: there is nothing to propose".to_owned()));
    }
    let folder = context.layout.home().join("proposals");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let path: PathBuf = folder.join(format!("{}.toml", screen.facts.run));
    let mut file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
    file.write_all(toml(&wishes).as_bytes())?;
    file.sync_all()?;
    Ok(Some(format!("review it, then: tipstaff run --allow-from {}", path.display())))
}

async fn read_change(context: &Context, screen: &mut Screen) -> anyhow::Result<Option<String>> {
    let run = context.store.read(context.scope()).await?.run_get(screen.facts.run).await?;
    let Some(run) = run.filter(|run| run.commit.is_some()) else {
        return Ok(Some("nothing was pushed, so there is no change to show".to_owned()));
    };
    let quarantine = runs::quarantine(context, &run).await?;
    let patch = quarantine.diff(runs::branch_of(&run)?, Color::Never).await?;
    let part = patch.get(..LONGEST_PATCH).unwrap_or(&patch);
    screen.show_patch(&String::from_utf8_lossy(part));
    let cut = part.len() < patch.len();
    Ok(cut.then(|| format!("only its beginning: tipstaff runs diff {}", run.id.short())))
}

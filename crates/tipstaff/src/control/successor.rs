//! What a dead process had spooled, written by the next one.

use super::ledger::write_entries;
use super::spool::{Left, folder};
use crate::context::Context;

/// Writes what dead processes of this state folder could not tell the store, and gives back what is left of their
/// reserves. Comes before their runs are marked, so that nothing is presumed that is known. A spool that can't be
/// written now waits for the next command.
pub(crate) async fn spools_written(context: &Context) -> anyhow::Result<()> {
    let place = folder(context.layout.home());
    let (found, unreadable) = tokio::task::spawn_blocking(move || Left::find(&place)).await?;
    for trouble in unreadable {
        context.output.warn(&format!("a spool of settlements can't be read and is left alone: {trouble}"));
    }
    for left in found.into_iter().filter(|left| left.head.org == context.scope().org()) {
        let (run, count) = (left.head.run, left.entries.len());
        match written(context, left).await {
            Ok(()) if count > 0 => context.output.note(&format!(
                "run {}: {count} entries that had waited for the store are written",
                run.short()
            )),
            Ok(()) => {}
            Err(error) => context
                .output
                .warn(&format!("run {}: {count} entries still wait for the store: {error:#}", run.short())),
        }
    }
    Ok(())
}

async fn written(context: &Context, left: Left) -> anyhow::Result<()> {
    let run = left.head.run;
    let mut tx = context.store.begin(context.scope()).await?;
    let draft = write_entries(&mut tx, run, left.head.hold, &left.entries).await?;
    if let Some(hold) = left.head.hold {
        tx.charge_release(run, hold).await?;
    }
    if !left.entries.is_empty() {
        tx.audit_note(draft);
    }
    tx.commit().await?;
    left.remove()?;
    Ok(())
}

//! The last push of a run whose process died: whether it came to pass as the log says.
//!
//! A push is on record before its ref moves, so that nothing moves without a record. A process that is killed between the
//! two leaves a record of something that did not happen. The next start compares the two and says so in the log, once.

use crate::context::{Context, git};
use tipstaff_broker::Quarantine;
use tipstaff_model::{AuditAction, AuditDraft, AuditOutcome, AuditRecord, RefName, RunId};

/// Records read at once.
const PAGE: u32 = 500;

/// Compares the newest push on record with the run's branch in quarantine, and puts on record when it did not land.
/// Whether it did that. The run's process is dead and the caller holds its lock.
///
/// # Errors
/// Errors of the store and of git; nothing was written then.
pub(crate) async fn correct(context: &Context, run: RunId) -> anyhow::Result<bool> {
    let path = context.layout.result(run);
    if !path.is_dir() {
        return Ok(false);
    }
    let Some(push) = newest_push(context, run).await? else { return Ok(false) };
    let read = |name: &str| push.detail.get(name).cloned().unwrap_or_default();
    let Ok(reference) = read("ref").parse::<RefName>() else { return Ok(false) };
    let quarantine = Quarantine::open(git(&context.env, &context.layout).await?, &path).await?;
    let found = quarantine.tip(&reference).await?.map_or_else(|| "none".to_owned(), |tip| tip.to_string());
    if push.outcome != AuditOutcome::Ok || found == read("new") {
        return Ok(false);
    }
    let mut draft = AuditDraft::new("system", AuditAction::PushAccepted, format!("run:{run}"))
        .outcome(AuditOutcome::Failed)
        .with("record", push.seq)
        .with("found", found)
        .with("why", "the process died before the ref moved");
    for name in ["repository", "ref", "old", "new", "warrant"] {
        draft = draft.with(name, read(name));
    }
    let mut tx = context.store.begin(context.scope()).await?;
    tx.audit_note(draft);
    tx.commit().await?;
    Ok(true)
}

/// The newest record about a push of the run. Nothing of a run is older than its warrant.
async fn newest_push(context: &Context, run: RunId) -> anyhow::Result<Option<AuditRecord>> {
    let mut read = context.store.read(context.scope()).await?;
    if read.run_get(run).await?.is_none() {
        return Ok(None);
    }
    let (subject, run) = (format!("run:{run}"), run.to_string());
    let mut before = None;
    loop {
        let page = read.audit_list(before, PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        before = Some(last.seq);
        for record in page.iter().filter_map(|entry| entry.record()) {
            match record.action {
                AuditAction::PushAccepted if record.subject == subject => return Ok(Some(record)),
                AuditAction::WarrantIssued if record.detail.get("run") == Some(&run) => return Ok(None),
                _ => {}
            }
        }
    }
}

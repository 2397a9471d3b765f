//! Landing: how the objects of a push come into quarantine, and what is checked before its ref moves.
//!
//! Promises, in this order: the objects are held in a folder of their own, where nothing else sees them; `git
//! index-pack --strict` checks each; sizes, chains and shapes are within bounds before anything walks them; the new tip
//! is a commit whose history is whole, descends from the base and from what was pushed before, and leads to all that
//! came; every changed path is granted, every name plain, every link within, every commit the run's own, no secret new;
//! the audit record is durable; then, and only then, the objects move into the repository and the ref is swapped against
//! its old value. Whatever ends early leaves nothing.

mod arrivals;
mod checks;
mod contents;
mod folders;
mod hold;
mod looks;
mod secrets;

use super::body::BodyReader;
use super::push::{Update, internal};
use super::view::View;
use super::{Shared, git_read};
use crate::broker::PushRecord;
use crate::error::BrokerError;
use crate::quarantine::Quarantine;
use bytes::Bytes;
use checks::Checks;
use hold::{Held, hold};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use tipstaff_model::{AuditAction, AuditDraft, AuditOutcome, CommitId, Refusal, RepositoryName, Rule};

/// Takes a push whose commands were judged.
pub(super) async fn land(
    shared: &Arc<Shared>,
    view: &View,
    update: &Update,
    body: &mut BodyReader,
    first: Bytes,
) -> Result<(), Refusal> {
    let _permit = git_read::permit(shared).await;
    let failed = |error: &BrokerError| internal(&update.reference, error);
    let held = hold(shared, view, update, body, first).await?;
    let checks = Checks { shared, quarantine: &view.quarantine, held: &held, update };
    let inventory = checks.inventory().await?;
    let arrivals = checks.arrivals(&inventory).await?;
    // From here on one push at a time: what is compared must not move before it is written.
    let turn = Arc::clone(&view.landing).lock_owned().await;
    let tip = view.quarantine.tip(&update.reference).await.map_err(|error| failed(&error))?;
    checks.history(tip.as_ref(), &inventory).await?;
    let commits = checks.commits(tip.as_ref()).await?;
    let changes = checks.paths(&commits).await?;
    checks.names(&arrivals).await?;
    checks.own_commits(&arrivals.commits, &commits)?;
    checks.collisions(&arrivals, &commits).await?;
    let others = checks.others(&changes, &inventory.ids).await?;
    checks.secrets(&changes, &arrivals, &others).await?;
    let files = changes.net.len();
    shared.warrant.in_force()?;
    let settle = settle(
        Arc::clone(shared),
        view.name.clone(),
        view.quarantine.clone(),
        update.clone(),
        tip,
        held,
        files,
    );
    // On a task of its own: a client that goes away now, or a warrant that lapses, must not part the record from the
    // ref.
    let settled = tokio::spawn(async move {
        let result = settle.await;
        drop(turn);
        result
    });
    settled.await.unwrap_or_else(|_| {
        Err(Refusal::new(
            Rule::LimitReached,
            update.reference.as_str(),
            "the broker failed while it wrote the push down",
        ))
    })
}

/// Writes the push down: the audit record first, then the objects, then the ref.
async fn settle(
    shared: Arc<Shared>,
    repository: RepositoryName,
    quarantine: Quarantine,
    update: Update,
    tip: Option<CommitId>,
    held: Held,
    files: usize,
) -> Result<(), Refusal> {
    let Update { reference, new, .. } = update;
    let run = shared.warrant.warrant().run;
    let old = tip.as_ref().map_or("none", CommitId::as_str).to_owned();
    let draft = |outcome| {
        AuditDraft::new(format!("run:{run}"), AuditAction::PushAccepted, format!("run:{run}"))
            .outcome(outcome)
            .with("repository", &repository)
            .with("ref", &reference)
            .with("old", &old)
            .with("new", &new)
            .with("base", quarantine.base())
            .with("warrant", shared.warrant.warrant().id)
            .with("objects", held.objects)
            .with("bytes", held.bytes)
            .with("files", files)
    };
    if shared.control.record(draft(AuditOutcome::Ok)).await.is_err() {
        return Err(Refusal::new(
            Rule::AuditUnavailable,
            reference.as_str(),
            "the push could not be written to the audit log",
        ));
    }
    let zeros = "0".repeat(40);
    let moved = match move_objects(&held, &quarantine) {
        Ok(()) => quarantine
            .command("update-ref")
            .args(["--no-deref", reference.as_str(), new.as_str()])
            .arg(tip.as_ref().map_or(zeros.as_str(), CommitId::as_str))
            .run()
            .await
            .map(|_| ()),
        Err(error) => Err(error),
    };
    match moved {
        Ok(()) => {
            shared.pushed(PushRecord { repository, reference, old: tip, new });
            Ok(())
        }
        Err(error) => {
            // The log says that it did not come to pass; if even that fails, the refusal below still says so.
            let _ = shared.control.record(draft(AuditOutcome::Failed)).await;
            Err(internal(&reference, &error))
        }
    }
}

/// Moves the held packs into the repository, the index last: a pack counts from the moment its index is there.
fn move_objects(held: &Held, quarantine: &Quarantine) -> Result<(), BrokerError> {
    let from = held.path.join("pack");
    let to = quarantine.path().join("objects/pack");
    let mut files: Vec<PathBuf> = fs::read_dir(&from)
        .map_err(BrokerError::state(&from, "read"))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_none_or(|extension| extension != "keep"))
        .collect();
    files.sort_by_key(|path| path.extension().is_some_and(|extension| extension == "idx"));
    for file in files {
        let target = to.join(file.file_name().unwrap_or_default());
        fs::rename(&file, &target).map_err(BrokerError::state(target, "written"))?;
    }
    fs::File::open(&to).and_then(|folder| folder.sync_all()).map_err(BrokerError::state(to, "written"))
}

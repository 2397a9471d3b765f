//! The sessions of agents that are kept so that another run can continue them: their keys, what of them goes, and when.
//!
//! Promises: only a run of the class `org` keeps one; it is sealed under a key of its own, which is sealed in the database,
//! and whoever removes the key has erased the session; what is kept is bounded.

use crate::context::Context;
use crate::exit::Problem;
use tipstaff_engine::engine;
use tipstaff_model::{PrivacyClass, RunId, TaskSpec};
use tipstaff_runner::{EarlierWork, JobResumed, Keeping, KeptSession, Layout, keep_session};
use tipstaff_sandbox::remove_tree;
use tipstaff_seal::FileKey;
use tipstaff_store::{OrgRead, OrgTx, Run, RunDecision};

/// Names of sealed keys begin so.
pub(crate) const KEY: &str = "tipstaff.session.";
/// Sessions that are kept of one org at most; the oldest go first.
const MOST: usize = 100;
/// Bytes of all of them at most.
const MOST_BYTES: u64 = 2 * 1024 * 1024 * 1024;

fn name_of(run: RunId) -> String {
    format!("{KEY}{run}")
}

/// Whether the session of a run is kept: where the agent has one, and text may be kept.
fn keeps(task: &TaskSpec) -> bool {
    task.privacy == PrivacyClass::Org && !engine(task.engine).session_folders().is_empty()
}

/// Makes the key of a run that begins, where its session is kept.
pub(crate) async fn key_new(
    context: &Context,
    tx: &mut OrgTx,
    run: RunId,
    task: &TaskSpec,
) -> anyhow::Result<Option<FileKey>> {
    if !keeps(task) {
        return Ok(None);
    }
    let key = FileKey::new(context.entropy.as_ref());
    tx.secret_set(&name_of(run), &key.to_bytes()).await?;
    Ok(Some(key))
}

async fn key_of(read: &mut OrgRead, run: RunId) -> anyhow::Result<Option<FileKey>> {
    Ok(read.secret_get(&name_of(run)).await?.and_then(|bytes| FileKey::from_bytes(&bytes)))
}

/// Whether a session of the run is kept on this machine.
pub(crate) async fn is_there(context: &Context, read: &mut OrgRead, run: RunId) -> anyhow::Result<bool> {
    let file = context.layout.session(context.scope().org(), run).exists();
    Ok(file && key_of(read, run).await?.is_some())
}

/// What a task continues: the session that was kept, and the work so far.
pub(crate) async fn resumed(
    context: &Context,
    read: &mut OrgRead,
    task: &TaskSpec,
) -> anyhow::Result<Option<JobResumed>> {
    let Some(resumed) = &task.resumes else { return Ok(None) };
    let gone = || {
        Problem::usage(
            "session-not-resumable",
            format!("the session of run {} is not kept any more: begin a new run", resumed.run.short()),
        )
    };
    let run = read.run_get(resumed.run).await?.ok_or_else(gone)?;
    let key = key_of(read, run.id).await?.ok_or_else(gone)?;
    let (layout, org, id) = (context.layout.clone(), context.scope().org(), run.id);
    let session = tokio::task::spawn_blocking(move || KeptSession::open(&layout, org, id, &key)).await??;
    let session = session.ok_or_else(gone)?;
    Ok(Some(JobResumed { session, work: work_of(&context.layout, &run) }))
}

/// What a run left that can be built on; `None` where nothing was pushed, or it was thrown away.
pub(crate) fn work_of(layout: &Layout, run: &Run) -> Option<EarlierWork> {
    let there = run.decision != Some(RunDecision::Discarded) && layout.result(run.id).exists();
    let commit = run.commit.clone().filter(|_| there)?;
    Some(EarlierWork { run: run.id, commit })
}

/// Keeps the session of a run whose process died, before its folder goes.
pub(crate) async fn keep_leftover(context: &Context, run: RunId) {
    let kept = async {
        let mut read = context.store.read(context.scope()).await?;
        let Some(key) = key_of(&mut read, run).await? else { return Ok(Keeping::Nothing) };
        drop(read);
        let (layout, org) = (context.layout.clone(), context.scope().org());
        let entropy = std::sync::Arc::clone(&context.entropy);
        let kept =
            tokio::task::spawn_blocking(move || keep_session(&layout, org, run, &key, entropy.as_ref()))
                .await??;
        Ok::<_, anyhow::Error>(kept)
    };
    let why = match kept.await {
        Ok(Keeping::Kept(_) | Keeping::Nothing) => return,
        Ok(Keeping::Not(why)) => why,
        Err(error) => format!("{error:#}"),
    };
    context.output.warn(&format!("the session of run {} is not kept: {why}", run.short()));
}

/// Erases the session of a run: the file, and with its key whatever copy of the file there may be.
pub(crate) async fn erase(context: &Context, tx: &mut OrgTx, run: RunId) -> anyhow::Result<()> {
    remove_tree(&context.layout.session(context.scope().org(), run))?;
    tx.secret_remove(&name_of(run)).await?;
    Ok(())
}

/// Erases the oldest sessions beyond the bounds, and keys that seal nothing. What goes wrong is said and is no reason to
/// fail.
pub(crate) async fn prune(context: &Context) {
    if let Err(error) = prune_now(context).await {
        context.output.warn(&format!("old sessions of agents could not be erased: {error:#}"));
    }
}

async fn prune_now(context: &Context) -> anyhow::Result<()> {
    let folder = context.layout.sessions().join(context.scope().org().to_string());
    let mut there: Vec<(RunId, u64)> = Vec::new();
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let run = name.to_str().and_then(|name| name.strip_suffix(".sealed")).and_then(|id| id.parse().ok());
        if let (Some(run), Ok(status)) = (run, entry.metadata()) {
            there.push((run, status.len()));
        }
    }
    // Ids are in the order of time.
    there.sort_by(|(one, _), (other, _)| other.cmp(one));
    let mut gone: Vec<RunId> = beyond(&there);
    let mut read = context.store.read(context.scope()).await?;
    for secret in read.secret_list().await? {
        let Some(run) = secret.name.strip_prefix(KEY).and_then(|id| id.parse::<RunId>().ok()) else {
            continue;
        };
        let seals_something = there.iter().any(|(one, _)| *one == run);
        // Kept before the run is on record as ended; and what a dead process left is kept before its folder goes.
        if !seals_something
            && !context.layout.run(run).exists()
            && read.run_get(run).await?.is_none_or(|found| found.state.is_final())
        {
            gone.push(run);
        }
    }
    drop(read);
    if gone.is_empty() {
        return Ok(());
    }
    let mut tx = context.store.begin(context.scope()).await?;
    for run in gone {
        erase(context, &mut tx, run).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The sessions beyond the bounds, of a list that begins with the newest.
fn beyond(there: &[(RunId, u64)]) -> Vec<RunId> {
    let mut bytes = 0_u64;
    let mut gone = Vec::new();
    for (index, (run, size)) in there.iter().enumerate() {
        bytes = bytes.saturating_add(*size);
        if index >= MOST || bytes > MOST_BYTES {
            gone.push(*run);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipstaff_model::FixedClock;
    use tipstaff_seal::SystemEntropy;

    #[test]
    fn the_newest_stay_up_to_a_count_and_a_size() {
        let runs: Vec<RunId> =
            (0..150).rev().map(|at| RunId::new(&FixedClock::at(at), &SystemEntropy)).collect();
        let of = |size: u64| runs.iter().map(|run| (*run, size)).collect::<Vec<_>>();
        assert_eq!(beyond(&of(1)), runs[MOST..]);
        assert_eq!(beyond(&of(MOST_BYTES / 2)), runs[2..]);
        assert_eq!(beyond(&of(u64::MAX)), runs);
        assert_eq!(beyond(&[]), []);
    }
}

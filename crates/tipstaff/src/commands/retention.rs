//! `tipstaff retention`: how long sessions are kept, and erasing what is kept too long.

use crate::cli::{RetentionCommand, Term};
use crate::context::Context;
use crate::exit::Problem;
use crate::output::time;
use crate::setup::bytes;
use serde_json::json;
use std::process::ExitCode;
use tipstaff_model::{AuditAction, AuditDraft, PrivacyClass};
use tipstaff_sandbox::{remove_tree, tree_usage};
use tipstaff_store::Run;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Runs that are read at once.
const PAGE: u32 = 200;
/// Runs that a sweep beside other work erases at most.
const QUIET: usize = 50;

/// Carries out `tipstaff retention …`.
pub(crate) async fn retention(command: RetentionCommand, context: Context) -> anyhow::Result<ExitCode> {
    match command {
        RetentionCommand::Show => show(&context).await,
        RetentionCommand::Set { class, term } => set(&context, class, term).await,
        RetentionCommand::Sweep { dry_run } => sweep(&context, dry_run).await,
    }
}

async fn show(context: &Context) -> anyhow::Result<ExitCode> {
    let mut read = context.store.read(context.scope()).await?;
    let (terms, swept_at) = (read.retention_list().await?, read.retention_swept_at().await?);
    let of = |class| terms.iter().find(|(one, _)| *one == class).map(|(_, term)| term / DAY_MS);
    let output = &context.output;
    if output.json {
        let days = |class| json!({ "days": of(class) });
        output.object(&json!({
            "org": days(PrivacyClass::Org), "meta": days(PrivacyClass::Meta), "swept_at": swept_at,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    for class in [PrivacyClass::Org, PrivacyClass::Meta] {
        let term = of(class)
            .map_or_else(|| "for ever".to_owned(), |days| format!("{days} days after the run's end"));
        output.line(&format!("{:<5} {term}", class.as_str()));
    }
    let last = swept_at.map_or_else(|| "never".to_owned(), time);
    output.line(&format!("swept {last}"));
    Ok(ExitCode::SUCCESS)
}

async fn set(context: &Context, class: PrivacyClass, term: Term) -> anyhow::Result<ExitCode> {
    if class == PrivacyClass::Sealed {
        let text = "this version has no sealed sessions; set a term for org or meta";
        return Err(Problem::usage("privacy-sealed-unavailable", text));
    }
    let (term_ms, said) = match term {
        Term::Days(days) => (Some(i64::from(days) * DAY_MS), format!("{days} days")),
        Term::Forever => (None, "for ever".to_owned()),
    };
    let mut tx = context.store.begin(context.scope()).await?;
    tx.retention_set(class, term_ms).await?;
    tx.audit_note(
        AuditDraft::new(context.principal.actor(), AuditAction::RetentionSet, format!("retention:{class}"))
            .with("term", &said),
    );
    tx.commit().await?;
    context.pin_checkpoint().await?;
    if context.output.json {
        context.output.object(&json!({ "class": class, "days": term_ms.map(|term| term / DAY_MS) }));
    } else {
        context.output.line(&format!(
            "sessions of the class {class} are kept {said}; `tipstaff retention sweep --dry-run` shows what would go now"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A run whose time is over.
struct Due {
    run: Run,
    class: PrivacyClass,
    events: u64,
    /// Bytes of its change in quarantine, of a change that was refused, and of the agent's session.
    bytes: u64,
    undecided: bool,
}

/// Runs whose time is over, at most `most`.
async fn due(context: &Context, most: usize) -> anyhow::Result<Vec<Due>> {
    let mut read = context.store.read(context.scope()).await?;
    let terms = read.retention_list().await?;
    let now = context.clock.wall_ms();
    let Some(shortest) = terms.iter().map(|(_, term)| *term).min() else { return Ok(Vec::new()) };
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = read.run_list_unswept(now.saturating_sub(shortest), after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.id);
        for run in page {
            let Some(task) = read.task_get(run.task).await? else { continue };
            let class = task.spec.privacy;
            let Some((_, term)) = terms.iter().find(|(one, _)| *one == class) else { continue };
            if run.ended_at.is_none_or(|end| end > now.saturating_sub(*term)) {
                continue;
            }
            let size = read.run_sweep_size(run.id).await?;
            let quarantine = tree_usage(&context.layout.result(run.id), Default::default());
            let patch = std::fs::metadata(context.layout.refused_patch(run.id));
            let session = std::fs::metadata(context.layout.session(context.scope().org(), run.id));
            let files = [patch, session].into_iter().flatten().map(|status| status.len()).sum::<u64>();
            let bytes = quarantine.map_or(0, |usage| usage.bytes) + files;
            let undecided = run.commit.is_some() && run.decision.is_none();
            found.push(Due { run, class, events: size.events, bytes, undecided });
            if found.len() >= most {
                return Ok(found);
            }
        }
    }
}

/// Erases what is due. The files go first: after a crash in between the row says that there is something left to do.
async fn erase(context: &Context, due: &[Due], actor: &str) -> anyhow::Result<()> {
    for one in due {
        let id = one.run.id;
        remove_tree(&context.layout.result(id))?;
        remove_tree(&context.layout.refused_patch(id))?;
        let mut tx = context.store.begin(context.scope()).await?;
        crate::kept::erase(context, &mut tx, id).await?;
        if let Some(size) = tx.run_sweep(id).await? {
            tx.audit_note(
                AuditDraft::new(actor, AuditAction::RunSwept, format!("run:{id}"))
                    .with("class", one.class)
                    .with("events", size.events)
                    .with("bytes", one.bytes)
                    .with("undecided", one.undecided),
            );
        }
        tx.commit().await?;
    }
    let mut tx = context.store.begin(context.scope()).await?;
    tx.retention_swept().await?;
    tx.commit().await?;
    Ok(())
}

async fn sweep(context: &Context, dry_run: bool) -> anyhow::Result<ExitCode> {
    let due = due(context, usize::MAX).await?;
    if !dry_run {
        erase(context, &due, &context.principal.actor()).await?;
        context.pin_checkpoint().await?;
    }
    let output = &context.output;
    if output.json {
        let runs: Vec<_> = due
            .iter()
            .map(|one| {
                json!({
                    "run": one.run.id, "class": one.class, "ended_at": one.run.ended_at, "events": one.events,
                    "bytes": one.bytes, "undecided": one.undecided,
                })
            })
            .collect();
        output.object(&json!({ "erased": !dry_run, "runs": runs }));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = due
        .iter()
        .map(|one| {
            vec![
                one.run.id.short(),
                one.run.ended_at.map(time).unwrap_or_default(),
                one.class.to_string(),
                one.events.to_string(),
                bytes(one.bytes),
                if one.undecided {
                    "its change was neither applied nor discarded".to_owned()
                } else {
                    String::new()
                },
            ]
        })
        .collect();
    if !rows.is_empty() {
        output.table(&["RUN", "ENDED (UTC)", "CLASS", "EVENTS", "CHANGE", ""], &rows);
    }
    let plural = if due.len() == 1 { "" } else { "s" };
    let verb = if dry_run { "would be swept" } else { "swept" };
    output.line(&format!("{} run{plural} {verb}", due.len()));
    Ok(ExitCode::SUCCESS)
}

/// Sweeps a little beside other work, once a day. What goes wrong is said and is no reason to fail.
pub(crate) async fn sweep_quietly(context: &Context) {
    let swept = async {
        let mut read = context.store.read(context.scope()).await?;
        let last = read.retention_swept_at().await?;
        if read.retention_list().await?.is_empty()
            || last.is_some_and(|last| context.clock.wall_ms().saturating_sub(last) < DAY_MS)
        {
            return Ok(());
        }
        drop(read);
        let due = due(context, QUIET).await?;
        erase(context, &due, "system").await
    };
    let swept: anyhow::Result<()> = swept.await;
    if let Err(error) = swept {
        context.output.warn(&format!("old sessions could not be swept: {error:#}"));
    }
}

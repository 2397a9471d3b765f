//! `tipstaff setup`: what set-ups made, kept for later runs.

use crate::cli::SetupCommand;
use crate::context::Context;
use crate::exit::Problem;
use crate::output::{span, time};
use crate::setup::bytes;
use serde_json::json;
use std::process::ExitCode;
use tipstaff_model::{AuditAction, AuditDraft};
use tipstaff_runner::SetupCache;

/// Digits of a key that are shown.
const SHOWN: usize = 12;
/// Digits of a key that are enough to name an entry.
const FEWEST: usize = 4;

/// Carries out `tipstaff setup …`.
pub(crate) async fn setup(command: SetupCommand, context: Context) -> anyhow::Result<ExitCode> {
    let cache = SetupCache::open(&context.layout.setups(), context.scope().org())?;
    match command {
        SetupCommand::List => list(&context, &cache),
        SetupCommand::Clear { key, repository } => clear(&context, &cache, key, repository).await,
    }
}

fn list(context: &Context, cache: &SetupCache) -> anyhow::Result<ExitCode> {
    let listed = cache.list()?;
    let output = &context.output;
    if output.json {
        for one in &listed {
            let entry = &one.entry;
            output.object(&json!({
                "key": entry.key, "repository": entry.repository, "script": entry.script, "made_at": entry.made_at,
                "used_at": one.used_at, "duration_ms": entry.duration_ms, "entries": entry.entries,
                "bytes": entry.bytes, "in_use": one.in_use,
            }));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if listed.is_empty() {
        output.note(
            "no set-up is kept; one is .tipstaff/setup in a repository, see `tipstaff setup list --help`",
        );
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = listed
        .iter()
        .map(|one| {
            let entry = &one.entry;
            vec![
                entry.key.chars().take(SHOWN).collect(),
                entry.repository.clone(),
                time(entry.made_at),
                time(one.used_at),
                span(entry.duration_ms),
                entry.entries.to_string(),
                bytes(entry.bytes),
                if one.in_use { "in use".to_owned() } else { String::new() },
            ]
        })
        .collect();
    output.table(&["KEY", "REPOSITORY", "MADE (UTC)", "USED (UTC)", "TOOK", "FILES", "SIZE", ""], &rows);
    Ok(ExitCode::SUCCESS)
}

async fn clear(
    context: &Context,
    cache: &SetupCache,
    key: Option<String>,
    repository: Option<String>,
) -> anyhow::Result<ExitCode> {
    if let Some(key) = &key {
        let is_key = key.len() >= FEWEST && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let count = cache.list()?.iter().filter(|one| one.entry.key.starts_with(key.as_str())).count();
        if !is_key || count != 1 {
            let why = if is_key && count > 1 { "names several" } else { "names no" };
            let text = format!("'{}' {why} set-up; `tipstaff setup list` shows them", key.escape_debug());
            return Err(Problem::usage("setup-unknown", text));
        }
    }
    if let Some(name) = &repository
        && !cache.list()?.iter().any(|one| one.entry.repository == *name)
    {
        let text =
            format!("no set-up of '{}' is kept; `tipstaff setup list` shows them", name.escape_debug());
        return Err(Problem::usage("setup-unknown", text));
    }
    let all = key.is_none() && repository.is_none();
    let (removed, busy) = cache.clear(
        &|entry| {
            key.as_ref().is_some_and(|key| entry.key.starts_with(key.as_str()))
                || repository.as_ref().is_some_and(|name| entry.repository == *name)
        },
        all,
    )?;
    if !removed.is_empty() {
        let mut tx = context.store.begin(context.scope()).await?;
        let subject = repository.map_or_else(|| "setups".to_owned(), |name| format!("repository:{name}"));
        tx.audit_note(
            AuditDraft::new(context.principal.actor(), AuditAction::SetupCleared, subject)
                .with("removed", removed.len())
                .with("in_use", busy.len()),
        );
        tx.commit().await?;
        context.pin_checkpoint().await?;
    }
    if context.output.json {
        context.output.object(&json!({ "removed": removed, "in_use": busy }));
    } else {
        let rest = if busy.is_empty() { String::new() } else { format!("; {} in use stay", busy.len()) };
        let plural = if removed.len() == 1 { "" } else { "s" };
        context.output.line(&format!("{} set-up{plural} removed{rest}", removed.len()));
    }
    Ok(ExitCode::SUCCESS)
}

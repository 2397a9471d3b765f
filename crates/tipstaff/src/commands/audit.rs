//! `tipstaff audit`: read, verify and export the log.

use crate::cli::AuditCommand;
use crate::context::{Context, write_whole};
use crate::exit::Problem;
use crate::output::{Output, Tone, time};
use anyhow::Context as _;
use serde_json::json;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tipstaff_seal::log::{LogKey, LogVerifier, Tail, VerifyReport, verify_export};
use tipstaff_store::AuditEntry;

/// Records and checkpoints that are read at once.
const PAGE: u32 = 5_000;

/// Carries out `tipstaff audit …` on the database.
pub(crate) async fn audit(command: AuditCommand, context: Context) -> anyhow::Result<ExitCode> {
    match command {
        AuditCommand::List { limit, about } => list(&context, limit, about.as_deref()).await,
        AuditCommand::Verify { checkpoint, .. } => {
            let kept = checkpoint.as_deref().map(read_checkpoint).transpose()?;
            let report = verify(&context, kept.as_deref()).await?;
            Ok(tell(&context.output, &report))
        }
        AuditCommand::Export { output } => export(&context, output.as_deref()).await,
        AuditCommand::Checkpoint { output } => checkpoint(&context, output.as_deref()).await,
    }
}

/// Carries out `tipstaff audit verify --export FILE`, which needs no database.
pub(crate) fn offline(command: AuditCommand, output: &Output) -> anyhow::Result<ExitCode> {
    let AuditCommand::Verify { checkpoint, export: Some(export), key } = command else {
        return Err(Problem::usage("usage", "name the export with --export"));
    };
    let key = log_key(key, &export)?;
    let kept = checkpoint.as_deref().map(read_checkpoint).transpose()?;
    let file = File::open(&export).map_err(|error| {
        Problem::usage("export-unreadable", format!("{} can't be read: {error}", export.display()))
    })?;
    let report = verify_export(BufReader::new(file), key, Tail::Sealed, kept.as_deref())?;
    Ok(tell(output, &report))
}

/// The key to an export: as given, else from the file beside it.
pub(crate) fn log_key(given: Option<String>, export: &Path) -> anyhow::Result<LogKey> {
    let key = match given {
        Some(key) => key,
        None => std::fs::read_to_string(beside(export)).map_err(|_| {
            let text = format!(
                "the log's public key is needed: give it with --key, or put it into {}",
                beside(export).display()
            );
            Problem::usage("audit-key-missing", text)
        })?,
    };
    Ok(key.trim().parse()?)
}

fn beside(export: &Path) -> PathBuf {
    let mut name = export.as_os_str().to_owned();
    name.push(".key");
    PathBuf::from(name)
}

fn read_checkpoint(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Problem::usage(
            "checkpoint-unreadable",
            format!("{} can't be read as a checkpoint: {error}", path.display()),
        )
    })
}

/// Verifies the whole log against its stored checkpoints, the one pinned beside the database, and one kept elsewhere.
pub(crate) async fn verify(context: &Context, kept: Option<&str>) -> anyhow::Result<VerifyReport> {
    let mut read = context.store.read(context.scope()).await?;
    let key = read.audit_key().await?;
    pinned_key(context, &key)?;
    let mut verifier = LogVerifier::new(key, Tail::Sealed);
    if let Some(note) = kept {
        verifier.pin(note).map_err(|error| {
            Problem::failed("checkpoint-foreign", format!("the checkpoint is not one of this log: {error}"))
        })?;
    }
    if let Ok(note) = std::fs::read_to_string(context.layout.pinned_checkpoint(context.scope().org())) {
        verifier.pin(&note).map_err(|error| {
            Problem::failed(
                "checkpoint-pinned-bad",
                format!("the checkpoint pinned beside the database is not one of this log: {error}"),
            )
        })?;
    }
    Ok(read.audit_verify(verifier).await?)
}

/// The log's public key is pinned beside the database at first sight: who can write the database can't swap it.
fn pinned_key(context: &Context, key: &LogKey) -> anyhow::Result<()> {
    let path = context.layout.pinned_checkpoint(context.scope().org()).with_extension("key");
    match std::fs::read_to_string(&path) {
        Ok(pinned) if pinned.trim() == key.to_string() => Ok(()),
        Ok(_) => Err(Problem::failed(
            "audit-key-changed",
            format!(
                "the log's key in the database is not the one pinned in {}: position 0 on can't be trusted",
                path.display()
            ),
        )),
        Err(_) => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            write_whole(&path, key.to_string().as_bytes())
                .with_context(|| format!("{} can't be written", path.display()))
        }
    }
}

fn tell(output: &Output, report: &VerifyReport) -> ExitCode {
    if output.json {
        output.object(report);
    } else if let Some(bad) = &report.first_bad {
        let until = bad.until.map(|until| format!(" to {}", until.saturating_sub(1))).unwrap_or_default();
        output.error(&format!(
            "the log can't be trusted from position {}{until} on: {} [audit-{}]",
            bad.position,
            bad.explanation,
            word(bad)
        ));
    } else {
        output.line(&format!(
            "{} {} records, {} checkpoints, {} erased; root {}",
            output.tone(Tone::Good, "verified:"),
            report.records,
            report.checkpoints,
            report.erased,
            report.root
        ));
    }
    ExitCode::from(u8::from(!report.is_good()))
}

fn word(bad: &tipstaff_seal::log::FirstBad) -> String {
    serde_json::to_value(bad.kind)
        .ok()
        .and_then(|value| value.as_str().map(ToOwned::to_owned))
        .unwrap_or_default()
}

async fn list(context: &Context, limit: u32, about: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut read = context.store.read(context.scope()).await?;
    let mut found = Vec::new();
    let mut before = None;
    let wanted = usize::try_from(limit)?;
    while found.len() < wanted {
        let page = read.audit_list(before, limit.clamp(100, PAGE)).await?;
        let Some(last) = page.last() else { break };
        before = Some(last.seq);
        let matches = |entry: &AuditEntry| match about {
            None => true,
            Some(about) => entry.record().is_some_and(|record| {
                record.subject.ends_with(about)
                    || record.detail.values().any(|value| value == about || value.ends_with(about))
            }),
        };
        found.extend(page.into_iter().filter(matches));
    }
    found.truncate(wanted);
    found.reverse();
    if context.output.json {
        for entry in &found {
            match entry.record() {
                Some(record) => context.output.object(&record),
                None => context.output.object(&json!({ "seq": entry.seq, "at": entry.at, "erased": true })),
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|entry| match entry.record() {
            Some(record) => {
                let detail: Vec<String> =
                    record.detail.iter().map(|(key, value)| format!("{key}={}", brief(value))).collect();
                vec![
                    entry.seq.to_string(),
                    time(entry.at),
                    record.action.to_string(),
                    record.outcome.as_str().to_owned(),
                    brief(&record.subject),
                    detail.join(" "),
                ]
            }
            None => vec![
                entry.seq.to_string(),
                time(entry.at),
                entry.action.clone(),
                "erased".to_owned(),
                String::new(),
                String::new(),
            ],
        })
        .collect();
    context.output.table(&["SEQ", "TIME (UTC)", "ACTION", "OUTCOME", "SUBJECT", "DETAIL"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// Ids and digests shortened to what tells them apart.
fn brief(text: &str) -> String {
    let (kind, id) = text.split_once(':').unwrap_or(("", text));
    let is_id = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let is_digest = matches!(id.len(), 40 | 64) && id.bytes().all(|b| b.is_ascii_hexdigit());
    let short = match (is_id, is_digest) {
        (true, _) => id.get(28..).unwrap_or(id),
        (_, true) => id.get(..10).unwrap_or(id),
        _ => id,
    };
    let text = if kind.is_empty() { short.to_owned() } else { format!("{kind}:{short}") };
    crate::watch::plain(&text)
}

async fn export(context: &Context, to: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut read = context.store.read(context.scope()).await?;
    let key = read.audit_key().await?;
    let mut file = to
        .map(|path| File::create(path).with_context(|| format!("{} can't be written", path.display())))
        .transpose()?
        .map(BufWriter::new);
    let mut lines = 0_u64;
    read.audit_export(|line| {
        lines += 1;
        match &mut file {
            Some(file) => file.write_all(line.as_bytes()),
            None => {
                context.output.raw(line);
                Ok(())
            }
        }
    })
    .await
    .context("the log can't be exported; `tipstaff audit verify` says more")?;
    if let Some(mut file) = file {
        file.flush()?;
        file.get_ref().sync_all()?;
    }
    if let Some(path) = to {
        std::fs::write(beside(path), format!("{key}\n"))?;
        context.output.note(&format!("{lines} lines in {}, the public key beside it: {key}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

async fn checkpoint(context: &Context, to: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut read = context.store.read(context.scope()).await?;
    let newest = read.audit_checkpoint().await?;
    let newest =
        newest.ok_or_else(|| Problem::failed("audit-empty", "the log is empty: nothing was done yet"))?;
    let key = read.audit_key().await?;
    match to {
        Some(path) => {
            write_whole(path, newest.note.as_bytes())
                .with_context(|| format!("{} can't be written", path.display()))?;
            context.output.note(&format!(
                "checkpoint over {} records in {}; the log's key is {key}",
                newest.size,
                path.display()
            ));
        }
        None if context.output.json => {
            context
                .output
                .object(&json!({ "size": newest.size, "checkpoint": newest.note, "key": key.to_string() }));
        }
        None => context.output.raw(&newest.note),
    }
    Ok(ExitCode::SUCCESS)
}

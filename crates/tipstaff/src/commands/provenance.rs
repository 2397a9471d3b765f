//! `tipstaff provenance`: whether a commit came out of quarantine as it is, and under which warrant.

use crate::begin::source_of;
use crate::cli::ProvenanceCommand;
use crate::commands::audit::{log_key, verify as verify_log};
use crate::context::{Context, git, layout};
use crate::env::Environment;
use crate::exit::Problem;
use crate::output::{Output, Tone};
use serde::Serialize;
use serde_json::json;
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tipstaff_broker::attest::Vouched;
use tipstaff_broker::{CommitEvidence, CommitReader, Git, Source};
use tipstaff_model::{AuditAction, AuditOutcome, AuditRecord, CommitId, RunId, Warrant};
use tipstaff_seal::log::{Tail, verify_export_reading};
use tipstaff_seal::{SignedWarrant, WarrantDigest, ssh};
use tipstaff_store::KeyPurpose;

/// Records of the log that are read at once.
const PAGE: u32 = 5_000;
/// The largest file with a warrant that is read, in bytes.
const LARGEST_WARRANT: u64 = 1 << 20;

/// One thing that was checked.
#[derive(Debug, Serialize)]
struct Check {
    /// What.
    check: &'static str,
    /// Whether it holds; absent when it could not be checked.
    holds: Option<bool>,
    /// Whether the commit can't be vouched for without it.
    #[serde(skip)]
    needed: bool,
    /// Why, or what was found.
    says: String,
}

/// All that was checked, in order.
#[derive(Debug, Default)]
struct Findings(Vec<Check>);

impl Findings {
    fn note(&mut self, check: &'static str, holds: bool, says: impl Into<String>) -> bool {
        self.0.push(Check { check, holds: Some(holds), needed: true, says: says.into() });
        holds
    }

    fn unknown(&mut self, check: &'static str, needed: bool, says: impl Into<String>) {
        self.0.push(Check { check, holds: None, needed, says: says.into() });
    }

    /// What can't be checked, since something before it does not hold.
    fn skip(&mut self, checks: &[&'static str]) {
        for check in checks {
            self.unknown(check, true, "not checked");
        }
    }

    fn hold(&self) -> bool {
        self.0.iter().all(|check| check.holds == Some(true) || (check.holds.is_none() && !check.needed))
    }

    fn tell(&self, output: &Output, evidence: &CommitEvidence) -> ExitCode {
        let vouched = evidence.vouched.as_ref().ok();
        if output.json {
            output.object(&json!({
                "commit": evidence.id, "holds": self.hold(), "checks": self.0,
                "run": vouched.map(|one| one.run), "warrant": vouched.map(|one| one.warrant),
                "signer": vouched.map(|one| ssh::fingerprint(&one.key)),
            }));
        } else {
            output.line(&format!("commit {} {}", evidence.id, crate::watch::plain(&evidence.subject)));
            for check in &self.0 {
                let (tone, word) = match check.holds {
                    Some(true) => (Tone::Good, "holds"),
                    Some(false) => (Tone::Bad, "DOES NOT HOLD"),
                    None => (Tone::Warn, "unknown"),
                };
                let says = crate::watch::plain(&check.says);
                output.line(&format!("  {:<10} {}: {says}", check.check, output.tone(tone, word)));
            }
            let (tone, word) =
                if self.hold() { (Tone::Good, "verified") } else { (Tone::Bad, "NOT VERIFIED") };
            output.line(&output.tone(tone, word));
        }
        ExitCode::from(u8::from(!self.hold()))
    }
}

/// Who an org is in an `allowed_signers` file.
fn principal(context: &Context) -> String {
    format!("{}@tipstaff", context.scope().org())
}

/// Carries out `tipstaff provenance …` with the database.
pub(crate) async fn provenance(command: ProvenanceCommand, context: Context) -> anyhow::Result<ExitCode> {
    match command {
        ProvenanceCommand::Signers => signers(&context).await,
        ProvenanceCommand::Verify { commit, repo, .. } => verify(&context, &commit, &repo).await,
        ProvenanceCommand::Show { .. } => offline(command, &context.env, &context.output).await,
    }
}

/// Carries out what needs no database.
pub(crate) async fn offline(
    command: ProvenanceCommand,
    env: &Environment,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let layout = layout(env)?;
    match command {
        ProvenanceCommand::Show { commit, repo } => {
            let (_, evidence) = look(git(env, &layout).await?, &commit, &repo).await?;
            Ok(show(output, &evidence))
        }
        ProvenanceCommand::Verify { commit, repo, export: Some(export), key, warrant } => {
            let (reader, evidence) = look(git(env, &layout).await?, &commit, &repo).await?;
            let files = Files { export: &export, key, warrant: warrant.as_deref() };
            let findings = verify_offline(&reader, &evidence, files).await?;
            Ok(findings.tell(output, &evidence))
        }
        ProvenanceCommand::Verify { .. } | ProvenanceCommand::Signers => {
            Err(Problem::usage("usage", "name the export with --export"))
        }
    }
}

async fn look(git: Arc<Git>, commit: &str, repo: &OsStr) -> anyhow::Result<(CommitReader, CommitEvidence)> {
    let Source::Local(local) = source_of(repo)? else {
        let text = "commits are read in a folder of this machine; name a clone with --repo PATH";
        return Err(Problem::usage("provenance-needs-repository", text));
    };
    let root = local.root.display().to_string();
    let reader = CommitReader::new(git, local);
    let found = reader.find(commit).await?.ok_or_else(|| {
        let shown: String = commit.chars().take(60).collect();
        let text = format!(
            "there is no commit '{}' in {root}; name its repository with --repo",
            shown.escape_debug()
        );
        Problem::usage("commit-unknown", text)
    })?;
    let evidence = reader.read(&found).await?;
    Ok((reader, evidence))
}

fn show(output: &Output, evidence: &CommitEvidence) -> ExitCode {
    let (run, warrant) = evidence.claims.unzip();
    let (key, why) = match &evidence.vouched {
        Ok(vouched) => (Some(&vouched.key), None),
        Err(why) => (None, Some(why.to_string())),
    };
    if output.json {
        output.object(&json!({
            "commit": evidence.id, "intact": evidence.intact, "author": evidence.author, "subject": evidence.subject,
            "run": run, "warrant": warrant, "signature_holds": key.is_some(), "why": why,
            "signer": key.map(ssh::fingerprint), "key": key.map(ssh::public_text),
        }));
        return ExitCode::SUCCESS;
    }
    let line = |name: &str, value: &str| output.line(&format!("{name:<10} {}", crate::watch::plain(value)));
    line("commit", evidence.id.as_str());
    line("author", &evidence.author);
    line("subject", &evidence.subject);
    line("run", &run.map_or_else(|| "none is named".to_owned(), |run| run.to_string()));
    line("warrant", &warrant.map_or_else(|| "none is named".to_owned(), |one| format!("sha256:{one}")));
    match (key, why) {
        (Some(key), _) => line("signature", &format!("is over this commit, by {}", ssh::fingerprint(key))),
        (None, why) => line("signature", &why.unwrap_or_default()),
    }
    output.note("whose key that is, and what the log says: tipstaff provenance verify");
    ExitCode::SUCCESS
}

async fn signers(context: &Context) -> anyhow::Result<ExitCode> {
    // An org that is older than its key for commits gets one now, so that the file is good for what comes.
    let mut tx = context.store.begin(context.scope()).await?;
    tx.signing_key_ensure(KeyPurpose::Commit).await?;
    let keys = tx.verifying_keys(KeyPurpose::Commit).await?;
    tx.commit().await?;
    let principal = principal(context);
    for key in &keys {
        if context.output.json {
            context.output.object(&json!({
                "principal": principal, "key": ssh::public_text(key), "fingerprint": ssh::fingerprint(key),
                "line": ssh::allowed_signer(&principal, key),
            }));
        } else {
            context.output.line(&ssh::allowed_signer(&principal, key));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Object and signature: what a commit shows by itself. `None` when nothing further can be trusted.
fn by_itself<'e>(findings: &mut Findings, evidence: &'e CommitEvidence) -> Option<&'e Vouched> {
    let intact = evidence.intact;
    let says = if intact {
        "its bytes hash to its id (SHA-1, with git's collision check)"
    } else {
        "its bytes do not hash to its id: the repository is damaged or was tampered with; run git fsck"
    };
    findings.note("object", intact, says);
    match &evidence.vouched {
        Ok(vouched) => {
            findings.note(
                "signature",
                true,
                format!("over this commit, by {}", ssh::fingerprint(&vouched.key)),
            );
            intact.then_some(vouched)
        }
        Err(why) => {
            findings.note("signature", false, why.to_string());
            None
        }
    }
}

async fn verify(context: &Context, commit: &str, repo: &OsStr) -> anyhow::Result<ExitCode> {
    let (reader, evidence) = look(git(&context.env, &context.layout).await?, commit, repo).await?;
    let mut findings = Findings::default();
    let Some(vouched) = by_itself(&mut findings, &evidence) else {
        findings.skip(&["signer", "warrant", "audit", "paths"]);
        return Ok(findings.tell(&context.output, &evidence));
    };
    let mut read = context.store.read(context.scope()).await?;
    let own = read.verifying_keys(KeyPurpose::Commit).await?.contains(&vouched.key);
    let says = if own { "a key of this org" } else { "not a key of this org: somebody else signed this" };
    findings.note("signer", own, says);
    let warrant = match read.run_get(vouched.run).await? {
        Some(run) => match crate::commands::publish::warrant_of(&mut read, &run).await {
            Ok(signed) => Ok(signed),
            Err(error) => Err(error.to_string()),
        },
        None => Err(format!("this org has no run {}", vouched.run)),
    };
    drop(read);
    let warrant = check_warrant(&mut findings, vouched, warrant);
    let records =
        if check_log(context, &mut findings).await? { exits(context, vouched.run).await? } else { None };
    match records {
        Some(records) => check_exits(&mut findings, &reader, &evidence.id, vouched, &records).await?,
        None => findings.skip(&["audit"]),
    }
    check_paths(&mut findings, &reader, &evidence.id, warrant.as_ref(), true).await?;
    Ok(findings.tell(&context.output, &evidence))
}

/// The warrant that the commit names is the one that the run had, and its signature holds.
fn check_warrant(
    findings: &mut Findings,
    vouched: &Vouched,
    warrant: Result<SignedWarrant, String>,
) -> Option<Warrant> {
    match warrant {
        Ok(signed) if signed.digest == vouched.warrant => {
            let says = format!("sha256:{} of run {}, and its signature holds", signed.digest, vouched.run);
            findings.note("warrant", true, says);
            Some(signed.warrant)
        }
        Ok(signed) => {
            let says = format!(
                "the commit names sha256:{}, but run {} had sha256:{}",
                vouched.warrant, vouched.run, signed.digest
            );
            findings.note("warrant", false, says);
            None
        }
        Err(why) => {
            findings.note("warrant", false, why);
            None
        }
    }
}

async fn check_log(context: &Context, findings: &mut Findings) -> anyhow::Result<bool> {
    let report = verify_log(context, None).await?;
    if let Some(bad) = &report.first_bad {
        let says = format!("the log can't be trusted from position {} on: {}", bad.position, bad.explanation);
        return Ok(findings.note("log", false, says));
    }
    Ok(findings.note("log", true, format!("{} records, root {}", report.records, report.root)))
}

/// What the log says about changes of a run that left quarantine.
#[derive(Debug)]
struct Exit {
    commit: CommitId,
    warrant: Option<String>,
    signer: Option<String>,
    says: String,
}

/// Reads an exit of `run` from a record, if it is one.
fn exit_of(record: &AuditRecord, run: RunId) -> Option<Exit> {
    let left = matches!(record.action, AuditAction::PushPublished | AuditAction::RunApplied);
    if !left || record.outcome != AuditOutcome::Ok || record.subject != format!("run:{run}") {
        return None;
    }
    let commit: CommitId = record.detail.get("commit")?.parse().ok()?;
    let to = record.detail.get("url").map(|url| format!(" to {url}")).unwrap_or_default();
    Some(Exit {
        says: format!("{} of {} at position {}{to}", record.action, commit.short(), record.seq),
        commit,
        warrant: record.detail.get("warrant").cloned(),
        signer: record.detail.get("signer").cloned(),
    })
}

async fn exits(context: &Context, run: RunId) -> anyhow::Result<Option<Vec<Exit>>> {
    let mut read = context.store.read(context.scope()).await?;
    let (mut found, mut from) = (Vec::new(), 0);
    loop {
        let page = read.audit_stream(from, PAGE).await?;
        let Some(last) = page.last() else { return Ok(Some(found)) };
        from = last.seq + 1;
        found.extend(page.iter().filter_map(|entry| exit_of(&entry.record()?, run)));
    }
}

/// The log tells that this commit, or a tip that it leads to, left quarantine with this warrant and key.
async fn check_exits(
    findings: &mut Findings,
    reader: &CommitReader,
    commit: &CommitId,
    vouched: &Vouched,
    exits: &[Exit],
) -> anyhow::Result<()> {
    let warrant = format!("sha256:{}", vouched.warrant);
    let signer = ssh::public_text(&vouched.key);
    let mut elsewhere = None;
    for exit in exits {
        if exit.warrant.as_ref() != Some(&warrant) || exit.signer.as_ref() != Some(&signer) {
            continue;
        }
        match reader.leads_to(commit, &exit.commit).await? {
            Some(true) => {
                findings.note("audit", true, exit.says.clone());
                return Ok(());
            }
            Some(false) => {}
            None => elsewhere = Some(&exit.commit),
        }
    }
    match elsewhere {
        Some(tip) => findings.unknown(
            "audit",
            true,
            format!("the log has {tip} of this run, which is not in this repository; fetch it to compare"),
        ),
        None => {
            let says = format!("no record tells that this commit of run {} left quarantine", vouched.run);
            findings.note("audit", false, says);
        }
    }
    Ok(())
}

async fn check_paths(
    findings: &mut Findings,
    reader: &CommitReader,
    commit: &CommitId,
    warrant: Option<&Warrant>,
    needed: bool,
) -> anyhow::Result<()> {
    let Some(warrant) = warrant else {
        findings.unknown("paths", needed, "not checked: the warrant is not here");
        return Ok(());
    };
    let Some(paths) = reader.changed_paths(commit).await? else {
        findings.unknown("paths", true, "a parent of the commit is not in this repository; fetch it");
        return Ok(());
    };
    match paths.iter().find_map(|path| warrant.permits_path_write(path).err()) {
        Some(refusal) => findings.note("paths", false, refusal.why),
        None => findings.note("paths", true, format!("all {} changed paths were granted", paths.len())),
    };
    Ok(())
}

/// What an offline verification stands on.
struct Files<'a> {
    export: &'a Path,
    key: Option<String>,
    warrant: Option<&'a Path>,
}

async fn verify_offline(
    reader: &CommitReader,
    evidence: &CommitEvidence,
    files: Files<'_>,
) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let Some(vouched) = by_itself(&mut findings, evidence) else {
        findings.skip(&["signer", "warrant", "audit", "paths"]);
        return Ok(findings);
    };
    let key = log_key(files.key, files.export)?;
    let file = File::open(files.export).map_err(|error| {
        Problem::usage("export-unreadable", format!("{} can't be read: {error}", files.export.display()))
    })?;
    let (mut exits, mut issued) = (Vec::new(), None);
    let report = verify_export_reading(BufReader::new(file), key, Tail::Sealed, None, |canonical| {
        let Ok(record) = serde_json::from_slice::<AuditRecord>(canonical) else { return };
        exits.extend(exit_of(&record, vouched.run));
        let of_run = record.detail.get("run").is_some_and(|run| *run == vouched.run.to_string());
        if record.action == AuditAction::WarrantIssued && of_run {
            issued = issued.take().or_else(|| record.detail.get("digest").cloned());
        }
    })?;
    if let Some(bad) = &report.first_bad {
        let says =
            format!("the export can't be trusted from position {} on: {}", bad.position, bad.explanation);
        findings.note("log", false, says);
        findings.skip(&["signer", "warrant", "audit", "paths"]);
        return Ok(findings);
    }
    findings.note("log", true, format!("{} records, root {}", report.records, report.root));
    let own = exits.iter().any(|exit| exit.signer == Some(ssh::public_text(&vouched.key)));
    let says = if own { "the key that the log names" } else { "not a key that the log names for this run" };
    findings.note("signer", own, says);
    let same = issued.as_deref() == Some(vouched.warrant.to_string().as_str());
    let says = match &issued {
        Some(_) if same => format!("sha256:{} was issued to run {}", vouched.warrant, vouched.run),
        Some(other) => format!("the commit names sha256:{}, but the log sha256:{other}", vouched.warrant),
        None => format!("the log has no warrant of run {}", vouched.run),
    };
    findings.note("warrant", same, says);
    check_exits(&mut findings, reader, &evidence.id, vouched, &exits).await?;
    let warrant = files.warrant.map(|path| read_warrant(path, &vouched.warrant)).transpose()?;
    check_paths(&mut findings, reader, &evidence.id, warrant.as_ref(), false).await?;
    Ok(findings)
}

/// The warrant in a file, whose digest is the one that the commit names: the log vouches for the digest.
fn read_warrant(path: &Path, wanted: &WarrantDigest) -> anyhow::Result<Warrant> {
    let unusable = |why: &str| {
        let text = format!("{} is not the warrant that the commit names: {why}", path.display());
        Problem::usage("warrant-file", text)
    };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| unusable(&format!("it can't be read: {error}")))?;
    std::io::Read::read_to_string(&mut std::io::Read::take(file, LARGEST_WARRANT), &mut text)
        .map_err(|error| unusable(&format!("it can't be read: {error}")))?;
    let mut value: serde_json::Value = serde_json::from_str(&text)
        .map_err(|_| unusable("it is no JSON; save what `warrants show --json` prints"))?;
    let signed = value.get_mut("signed").map(serde_json::Value::take).unwrap_or(value);
    let canonical = signed.get("canonical").and_then(serde_json::Value::as_str);
    let canonical = canonical.ok_or_else(|| unusable("it holds no signed warrant"))?;
    if WarrantDigest::of(canonical.as_bytes()) != *wanted {
        return Err(unusable("its digest is another"));
    }
    // What was signed is what is read, not what stands beside it.
    serde_json::from_str(canonical).map_err(|_| unusable("it is from a newer version"))
}

//! Beginning a run: the lease, the run's row, the signed warrant and their audit records, in one transaction.

use crate::bound::BoundSecret;
use crate::context::Context;
use crate::control::teller::Teller;
use crate::control::{LedgerParts, LocalControlPlane};
use crate::exit::Problem;
use crate::models::RunModels;
use crate::policies::Laws;
use crate::setup::PlannedSetup;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use tipstaff_broker::{Mirror, PlainHttp, Source};
use tipstaff_model::policy::Walls;
use tipstaff_model::warrant::{HostChoice, HostPattern, IssueRequest, ModelGrant, RepositoryGrant};
use tipstaff_model::{
    AuditAction, AuditDraft, MicroUsd, Policies, RepositoryName, RunId, TaskSpec, Warrant, WarrantId,
};
use tipstaff_runner::{Cancel, Job, PushRules, RunLock};
use tipstaff_seal::SignedWarrant;
use tipstaff_store::{KeyPurpose, Lease, OrgTx, RunDraft};

/// Text of a source that survives JSON: `%` and bytes that are not UTF-8 are written as `%XX`.
pub(crate) fn source_text(source: &Source) -> String {
    let bytes = match source {
        Source::Local(local) => local.root.as_os_str().as_bytes().to_vec(),
        Source::Remote(remote) => remote.url().as_bytes().to_vec(),
    };
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// The source of such a text.
pub(crate) fn source_from(text: &str) -> anyhow::Result<Source> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let escaped = (*byte == b'%')
            .then(|| tail.get(..2).and_then(|two| std::str::from_utf8(two).ok()))
            .flatten()
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match escaped {
            Some(value) => {
                bytes.push(value);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    source_of(&OsString::from_vec(bytes))
}

/// The source that a person named.
pub(crate) fn source_of(given: &OsStr) -> anyhow::Result<Source> {
    let here = std::env::current_dir()?;
    Ok(Source::parse(given, &here, PlainHttp::LoopbackOnly)?)
}

/// The branch of the base, where it is one.
pub(crate) fn base_branch(task: &TaskSpec) -> Option<String> {
    task.base.as_deref()?.strip_prefix("refs/heads/").map(ToOwned::to_owned)
}

/// The hosts of what a person chose, each once.
pub(crate) fn egress_of(choices: &[HostChoice]) -> Vec<HostPattern> {
    let mut hosts: Vec<HostPattern> = Vec::new();
    for host in choices.iter().flat_map(HostChoice::hosts) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

/// The warrant that a task asks for, narrowed by what the repository says of pushes in its base and by what policies deny.
pub(crate) fn warrant_of(
    context: &Context,
    task: &TaskSpec,
    bound: &[BoundSecret],
    ids: (tipstaff_model::TaskId, RunId),
    (models, rules, walls): (Vec<ModelGrant>, &PushRules, &Walls),
) -> anyhow::Result<Warrant> {
    let mut egress = egress_of(&crate::policies::chosen(task)?);
    let mut hosts = task.host_rules.clone();
    let secrets = crate::bound::grants(bound, &mut egress, &mut hosts);
    crate::policies::keep_out(&mut egress, task, walls)?;
    let request = IssueRequest {
        ids: (
            WarrantId::new(context.clock.as_ref(), context.entropy.as_ref()),
            context.scope().org(),
            ids.0,
            ids.1,
        ),
        subject: context.principal.actor(),
        role: task.role,
        repository: RepositoryGrant { name: task.repository.clone(), base: task.base_commit.clone() },
        budget: Some(MicroUsd::from_micro(task.budget_micro_usd)),
        wall_ms: Some(task.timeout_ms),
        egress,
        hosts,
        secrets,
        models,
        submodules: task.submodules,
        lfs: task.lfs,
        now_ms: context.clock.wall_ms(),
    };
    let mut warrant =
        Warrant::issue(request).map_err(|error| Problem::usage("warrant-impossible", error.to_string()))?;
    rules.lay_over(&mut warrant.paths);
    walls.lay_over(&mut warrant.paths);
    warrant.paths.protect(task.protect.iter().cloned());
    Ok(warrant)
}

/// The models of a warrant, for the log.
fn models(warrant: &Warrant) -> String {
    let names: Vec<String> =
        warrant.models.iter().map(|grant| format!("{}/{}", grant.provider, grant.model)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

/// The secrets of a warrant, for the log: names and places, never a value.
fn secrets(warrant: &Warrant) -> String {
    let places: Vec<String> =
        warrant.secrets.iter().map(|one| format!("{}@{}{}", one.name, one.host, one.path)).collect();
    if places.is_empty() { "none".to_owned() } else { places.join(" ") }
}

/// The run and the warrant above those of a sub-run, for the log.
fn lineage(task: &TaskSpec, warrant: &Warrant, draft: AuditDraft) -> AuditDraft {
    match (task.under, warrant.parent) {
        (Some(run), Some(parent)) => draft.with("under", run).with("parent", parent),
        _ => draft,
    }
}

/// Whose policies a run is under, for the log; the repository's own stands in its base.
fn policies(layers: &Policies) -> String {
    let names: Vec<String> = layers.0.iter().map(|layer| layer.origin.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A run that has begun: what the runner needs, and the control plane that it speaks to.
pub(crate) struct Begun {
    pub(crate) run: RunId,
    pub(crate) job: Job,
    pub(crate) control: Arc<LocalControlPlane>,
}

/// Begins the run of a lease within `tx` and commits: when this returns, the run is on record, and its lock is held.
#[expect(clippy::too_many_arguments, reason = "one call, each argument is another thing")]
pub(crate) async fn begin(
    context: &Context,
    mut tx: OrgTx,
    lease: Lease,
    task: TaskSpec,
    mirror: Mirror,
    cancel: Cancel,
    laws: Laws,
    asked: RunModels,
    setup: Option<PlannedSetup>,
) -> anyhow::Result<Begun> {
    let run = lease.run();
    let bound = crate::bound::read(&mut tx, &task.secrets).await?;
    let resumed = crate::kept::resumed(context, &mut tx, &task).await?;
    let session_key = crate::kept::key_new(context, &mut tx, run, &task).await?;
    let RunModels { grants, gateway, redactor } = asked;
    let laid_over = (grants, &laws.push, &laws.walls);
    let mut warrant = warrant_of(context, &task, &bound, (lease.task(), run), laid_over)?;
    warrant.setup = setup.as_ref().map(|setup| laws.without_denied(setup.grant.clone()));
    let warrant = crate::under::granted(&mut tx, &task, warrant, context.clock.wall_ms()).await?;
    let inspection = crate::bound::inspection(context, &warrant, bound)?;
    let values = inspection.iter().flat_map(|inspection| &inspection.secrets).map(|(_, held)| held.value());
    let redactor = redactor.and_values(values);
    // Before the run is on record, so that whoever finds it there can tell whether its process lives.
    let lock = RunLock::create(&context.layout, run, lease.owner())?;
    let draft = RunDraft {
        branch: warrant.push_ref().cloned(),
        base_commit: Some(task.base_commit.clone()),
        workspace: Some(context.layout.run(run).to_string_lossy().into_owned()),
        host: context.host(),
    };
    let begun = async {
        tx.run_add(&lease, &draft).await?;
        let key = tx.signing_key(KeyPurpose::Warrant).await?;
        let signed = SignedWarrant::sign(&warrant, &key)?;
        tx.warrant_add(&lease, &signed).await?;
        let worker = format!("worker:{}", lease.owner());
        tx.audit_note(
            AuditDraft::new(worker, AuditAction::TaskClaimed, format!("task:{}", lease.task()))
                .with("run", run)
                .with("attempt", lease.token().attempt)
                .with("generation", lease.token().generation),
        );
        let issued = format!("warrant:{}", warrant.id);
        let draft = AuditDraft::new(context.principal.actor(), AuditAction::WarrantIssued, issued);
        let draft = match &task.resumes {
            Some(earlier) => draft.with("resumes", earlier.run),
            None => draft,
        };
        let draft = lineage(&task, &warrant, draft);
        tx.audit_note(
            draft
                .with("run", run)
                .with("digest", signed.digest)
                .with("kind", warrant.kind)
                .with("role", warrant.role)
                .with("repository", &task.repository)
                .with("base", &task.base_commit)
                .with("branch", warrant.push_ref().map_or_else(|| "none".to_owned(), ToString::to_string))
                .with("budget_micro_usd", warrant.budget.micro())
                .with("models", models(&warrant))
                .with("secrets", secrets(&warrant))
                .with("policies", policies(&laws.layers))
                .with("expires_at", warrant.expires_at),
        );
        tx.commit().await?;
        Ok::<_, anyhow::Error>((signed, key.verifying_key()))
    }
    .await;
    let (signed, key) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            lock.remove()?;
            return Err(error);
        }
    };
    let base_branch = base_branch(&task);
    let parts = LedgerParts {
        store: context.store.clone(),
        clock: Arc::clone(&context.clock),
        entropy: Arc::clone(&context.entropy),
        teller: Teller::new(context.notifier()),
        spool: crate::control::spool::folder(context.layout.home()),
        reserve: context.config.money.reserve()?,
    };
    let control = LocalControlPlane::new(parts, lease);
    Ok(Begun {
        run,
        job: Job {
            task,
            warrant: signed,
            key,
            lock,
            mirror,
            base_branch,
            cancel,
            gateway,
            inspection,
            redactor,
            setup: setup.map(|setup| setup.job),
            session_key,
            resumed,
            policies: laws.layers,
        },
        control: Arc::new(control),
    })
}

/// A name for the source that no other source of the org has.
pub(crate) async fn repository_name(
    tx: &mut OrgTx,
    source: &Source,
    text: &str,
) -> anyhow::Result<RepositoryName> {
    if let Some(known) = tx.repository_by_source(text).await? {
        return Ok(known.name);
    }
    let wanted = source.repository_name();
    let mut name = wanted.clone();
    let mut number = 1;
    while tx.repository_by_name(&name).await?.is_some() {
        number += 1;
        name = format!("{wanted}-{number}").parse().map_err(
            |error: tipstaff_model::repository::NameError| {
                Problem::usage("repository-name", error.to_string())
            },
        )?;
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_any_bytes_survive_as_text() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().canonicalize().unwrap().join(OsStr::from_bytes(b"100% caf\xe9"));
        std::fs::create_dir_all(odd.join(".git/objects")).unwrap();
        std::fs::create_dir_all(odd.join(".git/refs")).unwrap();
        std::fs::write(odd.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
        let source = source_of(odd.as_os_str()).unwrap();
        let text = source_text(&source);
        assert!(text.ends_with("100%25 caf%E9"), "{text}");
        assert_eq!(source_from(&text).unwrap(), source);
    }
}

//! `tipstaff runs publish`, and what every way out of quarantine has in common: the commits are attested first.

use crate::begin::{base_branch, source_from, source_of, source_text};
use crate::cli::PublishArgs;
use crate::commands::runs::{branch_of, find, quarantine};
use crate::context::{Context, git};
use crate::env::Environment;
use crate::exit::Problem;
use crate::git_credential::SealedCredentials;
use crate::output::Output;
use anyhow::Context as _;
use serde_json::json;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use tipstaff_broker::publish::{CredentialRequest, ask, decided_by};
use tipstaff_broker::{
    Attestation, Attested, CredentialSource, GitCredential, PublishError, Publisher, Publishing, Pushed,
    Quarantine, Source,
};
use tipstaff_model::id::RowId;
use tipstaff_model::{
    AuditAction, AuditDraft, AuditOutcome, ExitReason, RefName, RunState, TaskSpec, Warrant,
};
use tipstaff_seal::{SignedWarrant, VerifyingKey, ssh};
use tipstaff_store::{KeyPurpose, OrgRead, PublicationDraft, PublicationState, Run, RunDecision, Task};

/// A change that is vouched for, and what vouches for it.
pub(crate) struct Leaving {
    pub(crate) attested: Attested,
    pub(crate) warrant: SignedWarrant,
    pub(crate) signer: VerifyingKey,
}

impl Leaving {
    /// Adds what a verifier looks for to a record of the log.
    pub(crate) fn told(&self, draft: AuditDraft) -> AuditDraft {
        draft
            .with("commit", &self.attested.tip)
            .with("original", &self.attested.original)
            .with("warrant", format!("sha256:{}", self.warrant.digest))
            .with("signer", ssh::public_text(&self.signer))
    }
}

/// The warrant that a run had, as it was signed; its signature holds.
pub(crate) async fn warrant_of(read: &mut OrgRead, run: &Run) -> anyhow::Result<SignedWarrant> {
    let missing = || {
        let text =
            format!("the warrant of run {} is not in the store; its change can't leave", run.id.short());
        Problem::refused("warrant-missing", text)
    };
    let stored = read.warrant_get(run.warrant.ok_or_else(missing)?).await?.ok_or_else(missing)?;
    let keys = read.verifying_keys(KeyPurpose::Warrant).await?;
    let holds = keys.iter().any(|key| stored.signed.verify(key).is_ok());
    if holds && stored.run == run.id && stored.signed.warrant.run == run.id {
        return Ok(stored.signed);
    }
    let text = format!(
        "the warrant of run {} does not hold: it was altered in the store; `tipstaff audit verify` tells more",
        run.id.short()
    );
    Err(Problem::refused("warrant-altered", text))
}

/// Attests the change of a run: its commits get trailers and a signature, trees and authors stay.
pub(crate) async fn attest(context: &Context, run: &Run, quarantine: &Quarantine) -> anyhow::Result<Leaving> {
    let reference = branch_of(run)?;
    let mut tx = context.store.begin(context.scope()).await?;
    let warrant = warrant_of(&mut tx, run).await?;
    let key = tx.signing_key_ensure(KeyPurpose::Commit).await?;
    tx.commit().await?;
    let attestation = Attestation { run: run.id, warrant: warrant.digest, key: &key };
    let attested = quarantine.attest(reference, &attestation).await?;
    let attested = attested.filter(|attested| run.commit.as_ref() == Some(&attested.original));
    let attested = attested.ok_or_else(|| {
        let text = format!(
            "what is in quarantine is not what run {} ended with; look at it with `tipstaff runs diff`",
            run.id.short()
        );
        Problem::refused("result-changed", text)
    })?;
    Ok(Leaving { attested, warrant, signer: key.verifying_key() })
}

/// Carries out `tipstaff runs publish`.
pub(crate) async fn publish(context: &Context, arguments: &PublishArgs) -> anyhow::Result<ExitCode> {
    let (run, task) = find(context, &arguments.run).await?;
    may_leave(&run, arguments.unverified)?;
    let quarantine = quarantine(context, &run).await?;
    // Gone with its process, so that what is on record as begun was interrupted.
    let _lock = one_at_a_time(&quarantine, &run)?;
    let leaving = attest(context, &run, &quarantine).await?;
    judge(&leaving.warrant.warrant, &run, &task.spec, &quarantine, &leaving.attested).await?;
    let target = match &arguments.to {
        Some(to) => source_of(to)?,
        None => source_from(&task.spec.source)?,
    };
    let publishing = publishing_of(arguments, &run, &task.spec, &leaving)?;
    let publication = Publication {
        context,
        run: &run,
        task: &task,
        quarantine: &quarantine,
        leaving: &leaving,
        target: &target,
        publishing: &publishing,
        publisher: Publisher::new(
            git(&context.env, &context.layout).await?,
            Arc::clone(&context.entropy),
            std::env::current_exe().context("our own program can't be named")?,
        ),
    };
    publication.carry_out(arguments.dry_run).await
}

/// Whether the state of a run lets its change go upstream.
fn may_leave(run: &Run, unverified: bool) -> anyhow::Result<()> {
    let short = run.id.short();
    if !run.state.is_final() {
        let text = format!("run {short} is {}; wait for its end", run.state);
        return Err(Problem::usage("run-going-on", text));
    }
    if run.exit_reason == Some(ExitReason::WarrantRevoked) {
        let text = format!("the warrant of run {short} was revoked; its change is not published");
        return Err(Problem::refused("publish-warrant-revoked", text));
    }
    branch_of(run)?;
    if run.state == RunState::Done || unverified {
        return Ok(());
    }
    let why = match run.exit_reason {
        Some(ExitReason::VerifyFailed) => "its verification failed".to_owned(),
        Some(reason) => format!("it ended as {} ({reason})", run.state),
        None => format!("it ended as {}", run.state),
    };
    let text = format!(
        "run {short} is not published: {why}; look at `tipstaff runs diff {short}`, and publish it with --unverified if you want it all the same"
    );
    Err(Problem::refused("publish-unverified", text))
}

/// Two processes that publish the same run would take each other for dead.
fn one_at_a_time(quarantine: &Quarantine, run: &Run) -> anyhow::Result<File> {
    let path = quarantine.path().join("publishing.lock");
    let lock = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let lock = lock.with_context(|| format!("{} can't be made", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => {
            let text = format!("run {} is being published by another process; wait for it", run.id.short());
            Err(Problem::failed("publish-going-on", text))
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(anyhow::Error::from(error).context(format!("{} can't be locked", path.display())))
        }
    }
}

/// Asks the warrant again, as when the push landed.
async fn judge(
    warrant: &Warrant,
    run: &Run,
    spec: &TaskSpec,
    quarantine: &Quarantine,
    attested: &Attested,
) -> anyhow::Result<()> {
    let refused = |refusal: tipstaff_model::Refusal| {
        Problem::refused(refusal.rule.id(), format!("{}; {}", refusal.why, refusal.rule.next_step()))
    };
    let reference = branch_of(run)?;
    let base = &warrant.permits_read(&spec.repository).map_err(refused)?.base;
    warrant.permits_push(&spec.repository, reference.as_str()).map_err(refused)?;
    if base != quarantine.base() {
        let text = "the base in quarantine is not the one that the warrant pins";
        return Err(Problem::refused("result-changed", text));
    }
    for path in quarantine.changed_paths(&attested.tip).await? {
        warrant.permits_path_write(&path).map_err(refused)?;
    }
    Ok(())
}

fn publishing_of(
    arguments: &PublishArgs,
    run: &Run,
    spec: &TaskSpec,
    leaving: &Leaving,
) -> anyhow::Result<Publishing> {
    let branch = match &arguments.branch {
        Some(name) => {
            let name = name.strip_prefix("refs/heads/").unwrap_or(name);
            RefName::branch(name).map_err(|error| Problem::usage("branch-name", error.to_string()))?
        }
        None => branch_of(run)?.clone(),
    };
    let base = base_branch(spec).and_then(|name| RefName::branch(&name).ok());
    Ok(Publishing { tip: leaving.attested.tip.clone(), branch, base })
}

/// One publication, from the first look upstream to the last record.
struct Publication<'a> {
    context: &'a Context,
    run: &'a Run,
    task: &'a Task,
    quarantine: &'a Quarantine,
    leaving: &'a Leaving,
    target: &'a Source,
    publishing: &'a Publishing,
    publisher: Publisher,
}

/// How a publication ended, for people and programs.
#[derive(Clone, Copy)]
enum Ended {
    New,
    AlreadyThere,
    Reconciled,
}

impl Ended {
    const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::AlreadyThere => "already_there",
            Self::Reconciled => "reconciled",
        }
    }
}

impl Publication<'_> {
    async fn carry_out(&self, dry_run: bool) -> anyhow::Result<ExitCode> {
        // What needs no look upstream is said before one.
        Publisher::permits(self.publishing, &Default::default()).map_err(told)?;
        let (source, credential) = self.credential().await?;
        let ended = self.with(dry_run, credential.as_ref()).await;
        // Also after a push that failed, and whatever the forge says of it: it expires by itself.
        if let Some(credential) = &credential
            && let Err(error) = source.give_back(credential).await
        {
            let until = credential.minted_until.as_deref().unwrap_or("it expires");
            let text =
                format!("the token of this push could not be taken back and holds until {until}: {error}");
            self.context.output.warn(&text);
        }
        ended
    }

    async fn with(&self, dry_run: bool, credential: Option<&GitCredential>) -> anyhow::Result<ExitCode> {
        let (target, publishing) = (self.target, self.publishing);
        let look = self.publisher.look(target, &publishing.branch, credential).await.map_err(told)?;
        Publisher::permits(publishing, &look).map_err(told)?;
        let decided = decided_by(&look, publishing, target);
        if dry_run {
            return self.tell_plan(credential, decided.map_err(told)?.is_some());
        }
        let interrupted = self.interrupted().await?;
        match decided {
            Ok(Some(_)) => {
                let ended = if interrupted.is_empty() { Ended::AlreadyThere } else { Ended::Reconciled };
                self.on_record(&interrupted, ended).await?;
                return self.tell(ended);
            }
            Ok(None) => {
                self.close(&interrupted, PublicationState::Failed, "interrupted before it was there").await?
            }
            Err(error) => {
                self.close(&interrupted, PublicationState::Failed, "interrupted before it was there").await?;
                return Err(told(error));
            }
        }
        let id = self.begin(credential).await?;
        let pushed = self.publisher.push(self.quarantine, target, publishing, credential).await;
        match pushed {
            Ok(pushed) => {
                let ended = if pushed == Pushed::New { Ended::New } else { Ended::AlreadyThere };
                self.on_record(&[id], ended).await?;
                self.tell(ended)
            }
            // Nobody knows: it stays on record as begun, and the next try looks first.
            Err(error @ PublishError::Unknown { .. }) => Err(told(error)),
            Err(error) => {
                self.failed(id, &error).await?;
                Err(told(error))
            }
        }
    }

    fn url(&self) -> String {
        source_text(self.target)
    }

    async fn credential(&self) -> anyhow::Result<(SealedCredentials, Option<GitCredential>)> {
        let context = self.context;
        let source = SealedCredentials::new(
            context.store.clone(),
            context.scope().clone(),
            context.gateway_client()?.clone(),
            Arc::clone(&context.clock),
        );
        let Source::Remote(remote) = self.target else { return Ok((source, None)) };
        let request = CredentialRequest {
            host: remote.authority().to_owned(),
            path: remote.path().to_owned(),
            repository: self.task.spec.repository.clone(),
            reference: self.publishing.branch.clone(),
            run: self.run.id,
        };
        let found = source.credential(&request).await.map_err(|error| {
            told(PublishError::CredentialUnavailable { host: request.host, why: error.0 })
        })?;
        Ok((source, found))
    }

    /// Publications of this change to this place that have no end on record: their process died.
    async fn interrupted(&self) -> anyhow::Result<Vec<RowId>> {
        let mut read = self.context.store.read(self.context.scope()).await?;
        let all = read.publication_list_of_run(self.run.id).await?;
        let same = all.into_iter().filter(|one| {
            one.state == PublicationState::Begun
                && one.url == self.url()
                && one.reference == self.publishing.branch
                && one.commit == self.publishing.tip
        });
        Ok(same.map(|one| one.id).collect())
    }

    fn draft(&self, action: AuditAction) -> AuditDraft {
        let draft = AuditDraft::new(self.context.principal.actor(), action, format!("run:{}", self.run.id))
            .with("url", self.url())
            .with("branch", &self.publishing.branch);
        self.leaving.told(draft)
    }

    /// Puts on record what is about to be done; only then it is done.
    async fn begin(&self, credential: Option<&GitCredential>) -> anyhow::Result<RowId> {
        let mut tx = self.context.store.begin(self.context.scope()).await?;
        let id = tx.publication_begin(&self.row()).await?;
        tx.audit_note(self.draft(AuditAction::PushPublishing).with("credential", in_words(credential)));
        tx.commit().await?;
        self.context.pin_checkpoint().await?;
        Ok(id)
    }

    fn row(&self) -> PublicationDraft {
        PublicationDraft {
            run: self.run.id,
            url: self.url(),
            reference: self.publishing.branch.clone(),
            commit: self.publishing.tip.clone(),
        }
    }

    /// Puts on record that the commit is upstream.
    async fn on_record(&self, begun: &[RowId], ended: Ended) -> anyhow::Result<()> {
        let mut tx = self.context.store.begin(self.context.scope()).await?;
        let known = tx.publication_list_of_run(self.run.id).await?.into_iter().any(|one| {
            one.state == PublicationState::Done
                && one.url == self.url()
                && one.reference == self.publishing.branch
                && one.commit == self.publishing.tip
        });
        if begun.is_empty() && known {
            // It was on record before: publishing again changes nothing.
            return Ok(());
        }
        let mut ids = begun.to_vec();
        if ids.is_empty() {
            ids.push(tx.publication_begin(&self.row()).await?);
        }
        for id in ids {
            tx.publication_end(id, PublicationState::Done, None).await?;
        }
        if self.run.decision.is_none() {
            tx.run_decide(self.run.id, RunDecision::Published).await?;
        }
        tx.audit_note(self.draft(AuditAction::PushPublished).with("how", ended.as_str()));
        tx.commit().await?;
        self.context.pin_checkpoint().await
    }

    /// Ends publications that were interrupted and came to nothing.
    async fn close(&self, ids: &[RowId], state: PublicationState, why: &str) -> anyhow::Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut tx = self.context.store.begin(self.context.scope()).await?;
        for id in ids {
            tx.publication_end(*id, state, Some(why)).await?;
        }
        tx.audit_note(self.draft(AuditAction::PushPublished).outcome(AuditOutcome::Failed).with("why", why));
        tx.commit().await?;
        Ok(())
    }

    async fn failed(&self, id: RowId, error: &PublishError) -> anyhow::Result<()> {
        let (state, outcome) = if error.is_refusal() {
            (PublicationState::Refused, AuditOutcome::Refused)
        } else {
            (PublicationState::Failed, AuditOutcome::Failed)
        };
        let mut tx = self.context.store.begin(self.context.scope()).await?;
        tx.publication_end(id, state, Some(&error.to_string())).await?;
        tx.audit_note(self.draft(AuditAction::PushPublished).outcome(outcome).with("why", error.code()));
        tx.commit().await?;
        self.context.pin_checkpoint().await
    }

    fn facts(&self) -> serde_json::Value {
        json!({
            "run": self.run.id, "url": self.url(), "branch": self.publishing.branch.short(),
            "commit": self.publishing.tip, "original": self.leaving.attested.original,
            "commits": self.leaving.attested.commits, "warrant": self.leaving.warrant.digest,
            "signer": ssh::fingerprint(&self.leaving.signer),
        })
    }

    fn tell_plan(&self, credential: Option<&GitCredential>, there: bool) -> anyhow::Result<ExitCode> {
        let output = self.context.output;
        if output.json {
            let mut facts = self.facts();
            if let Some(object) = facts.as_object_mut() {
                object.extend([
                    ("dry_run".to_owned(), json!(true)),
                    ("credential".to_owned(), json!(credential.is_some())),
                    (
                        "credential_minted".to_owned(),
                        json!(credential.is_some_and(|one| one.minted_until.is_some())),
                    ),
                    ("already_there".to_owned(), json!(there)),
                ]);
            }
            output.object(&facts);
            return Ok(ExitCode::SUCCESS);
        }
        let line = |name: &str, value: &str| output.line(&format!("{name:<12} {value}"));
        line("to", &crate::watch::plain(&self.target.to_string()));
        line(
            "branch",
            &format!(
                "{}{}",
                self.publishing.branch.short(),
                if there { " (there already)" } else { ", new" }
            ),
        );
        let attested = &self.leaving.attested;
        line(
            "commit",
            &format!("{} ({} commits, from {})", attested.tip, attested.commits, attested.original.short()),
        );
        line("signed by", &ssh::fingerprint(&self.leaving.signer));
        line("warrant", &format!("sha256:{}", self.leaving.warrant.digest));
        line("credential", &in_words(credential));
        output.note("nothing was pushed");
        Ok(ExitCode::SUCCESS)
    }

    fn tell(&self, ended: Ended) -> anyhow::Result<ExitCode> {
        let output = self.context.output;
        if output.json {
            let mut facts = self.facts();
            if let Some(object) = facts.as_object_mut() {
                object.insert("published".to_owned(), json!(ended.as_str()));
            }
            output.object(&facts);
            return Ok(ExitCode::SUCCESS);
        }
        let (branch, url) = (self.publishing.branch.short(), crate::watch::plain(&self.target.to_string()));
        let commit = self.publishing.tip.short();
        output.line(&match ended {
            Ended::New => format!("published as {branch} at {commit} to {url}"),
            Ended::AlreadyThere => format!("{branch} at {commit} was at {url} already"),
            Ended::Reconciled => {
                format!(
                    "{branch} at {commit} is at {url}: an earlier try got there before it was interrupted"
                )
            }
        });
        Ok(ExitCode::SUCCESS)
    }
}

/// What kind of credential a push has; never the credential.
fn in_words(credential: Option<&GitCredential>) -> String {
    match credential.map(|one| &one.minted_until) {
        None => "none".to_owned(),
        Some(None) => "sealed in the store".to_owned(),
        Some(Some(until)) => format!("minted for this push, until {until}"),
    }
}

fn told(error: PublishError) -> anyhow::Error {
    match error {
        PublishError::Broker(error) => error.into(),
        PublishError::Branch { .. } => Problem::usage(error.code(), error.to_string()),
        other if other.is_refusal() => Problem::refused(other.code(), other.to_string()),
        other => Problem::failed(other.code(), other.to_string()),
    }
}

/// Carries out the hidden `tipstaff git-credential`: git asks, and what the process that started git knows is passed on.
pub(crate) fn git_credential(operation: &str, env: &Environment, output: &Output) -> ExitCode {
    let (Some(socket), Some(ticket), "get") = (&env.credential_socket, &env.credential_ticket, operation)
    else {
        // To keep or to forget something is not ours to do.
        return ExitCode::SUCCESS;
    };
    let mut attributes = String::new();
    let read = std::io::stdin().lock().take(4096).read_to_string(&mut attributes);
    match read.and_then(|_| ask(socket, ticket, &attributes)) {
        Ok(answer) => {
            // Not through the terminal's door: this goes to git.
            let mut out = std::io::stdout().lock();
            let _git_is_gone = out.write_all(answer.as_bytes()).and_then(|()| out.flush());
            ExitCode::SUCCESS
        }
        Err(error) => {
            output.error(&format!("the credential can't be had: {error}"));
            ExitCode::FAILURE
        }
    }
}

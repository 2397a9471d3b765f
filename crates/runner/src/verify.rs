//! The verification: the repository's own checks on the run's result, in another sandbox.
//!
//! Promises: the commands are the base commit's, never the run's; unless the repository says otherwise they run on a new
//! checkout of the commit that was pushed, so that nothing else the run left has a say; the warrant is narrowed for them:
//! nothing can be pushed and no model asked, so what was verified is what stays; what the commands write is kept as
//! evidence, and its digest is in the audit log.

use crate::announce::{Notice, Observer};
use crate::compile::{SandboxRules, compile_spec};
use crate::prepare::Prepared;
use crate::project::Verification;
use crate::runner::Runner;
use crate::session::Session;
use crate::supervise::{Cancel, Stall, Supervised, Watch, supervise};
use crate::{RunnerError, collect};
use serde_json::json;
use std::ffi::OsString;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_broker::{BrokerHandle, remote_url};
use tipstaff_model::{
    AuditAction, AuditDraft, AuditOutcome, CommitId, ControlPlane, EventDraft, EventKind, ExitReason,
    LiveWarrant, MicroUsd, Narrowing, Warrant, WarrantId, WarrantKind,
};
use tipstaff_sandbox::{Exit, StdioPolicy};
use tipstaff_seal::redact::Redactor;
use tipstaff_seal::{StreamDigest, VerifyingKey};
use tokio::time::Instant;

/// Brings the run's commit into a new checkout. Runs no hook; the checkout's git folder is ours.
const CHECK_OUT: &str = "set -e\n\
    git -c core.hooksPath=/dev/null fetch -q --no-tags \"$TIPSTAFF_REMOTE\" \"$TIPSTAFF_REF\"\n\
    test \"$(git rev-parse FETCH_HEAD)\" = \"$TIPSTAFF_COMMIT\"\n\
    git -c core.hooksPath=/dev/null checkout -q --detach FETCH_HEAD";

/// The warrant of a verification: a narrowing of the run's that pushes nothing, asks no model and spends nothing.
///
/// # Errors
/// [`RunnerError::WarrantForged`] when the run's own warrant can't be narrowed so, which a sound one can.
pub(crate) fn narrowed(warrant: &Warrant, id: WarrantId) -> Result<Warrant, RunnerError> {
    let request = Narrowing {
        kind: Some(WarrantKind::Review),
        push: Some(None),
        models: Some(Vec::new()),
        budget: Some(MicroUsd::ZERO),
        ..Narrowing::default()
    };
    warrant.narrow(id, request).map_err(|error| RunnerError::WarrantForged(error.to_string()))
}

/// What is verified, and who is told.
pub(crate) struct Verifying<'a> {
    pub(crate) runner: &'a Runner,
    /// The run's warrant: its end is the verification's too.
    pub(crate) live: &'a LiveWarrant,
    /// The control plane's key.
    pub(crate) key: &'a VerifyingKey,
    /// Takes from the commands what was taken from the run's warrant.
    pub(crate) narrowed: &'a (dyn Fn(&Warrant) + Send + Sync),
    /// What the commands may do.
    pub(crate) warrant: &'a Warrant,
    pub(crate) prepared: &'a Prepared,
    /// Whether the workspace is a new checkout of the base, which needs the run's commit first.
    pub(crate) fresh: bool,
    pub(crate) commit: &'a CommitId,
    pub(crate) rules: &'a Verification,
    pub(crate) redactor: &'a Redactor,
    pub(crate) cancel: &'a Cancel,
    pub(crate) control: &'a Arc<dyn ControlPlane>,
    pub(crate) observer: &'a Arc<dyn Observer>,
}

/// How a verification ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verified {
    /// Every command ended with 0.
    Passed,
    /// This one did not.
    Failed(String),
    /// It was ended from outside.
    Stopped(ExitReason),
}

impl Verifying<'_> {
    /// Runs the commands, one after the other, up to the first that fails.
    ///
    /// # Errors
    /// When the control plane or the sandbox can't be used.
    pub(crate) async fn run(
        &self,
        serve: &impl Fn(TcpListener) -> Result<BrokerHandle, RunnerError>,
    ) -> Result<Verified, RunnerError> {
        let until = Instant::now() + self.rules.timeout;
        let mut evidence = StreamDigest::default();
        let verified = self.commands(until, &mut evidence, serve).await?;
        let run = self.live.warrant().run;
        let (outcome, why) = match &verified {
            Verified::Passed => (AuditOutcome::Ok, "passed".to_owned()),
            Verified::Failed(why) => (AuditOutcome::Failed, why.clone()),
            Verified::Stopped(reason) => (AuditOutcome::Failed, reason.to_string()),
        };
        let mut draft = AuditDraft::new(format!("run:{run}"), AuditAction::RunVerified, format!("run:{run}"))
            .with("commit", self.commit)
            .with("warrant", self.warrant.id)
            .with("parent", self.live.warrant().id)
            .with("commands", self.rules.commands.len())
            .with("result", why)
            .with("evidence", format!("sha256:{}", evidence.hex()));
        draft.outcome = outcome;
        self.control.record(draft).await?;
        Ok(verified)
    }

    async fn commands(
        &self,
        until: Instant,
        evidence: &mut StreamDigest,
        serve: &impl Fn(TcpListener) -> Result<BrokerHandle, RunnerError>,
    ) -> Result<Verified, RunnerError> {
        if self.fresh {
            let supervised = self.one(CHECK_OUT, until, evidence, serve).await?;
            if let Some(reason) = supervised.stopped {
                return Ok(self.stopped(reason, "the checkout"));
            }
            if !supervised.exit.success() {
                return Ok(Verified::Failed("the result could not be checked out".to_owned()));
            }
        }
        for (index, command) in self.rules.commands.iter().enumerate() {
            let step = index + 1;
            self.say(step, command, None, 0).await?;
            let begun = Instant::now();
            let supervised = self.one(command, until, evidence, serve).await?;
            let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let Exit { code, .. } = supervised.exit;
            self.say(step, command, Some(code), took).await?;
            evidence.update(format!("\n{step} {code}\n").as_bytes());
            if let Some(reason) = supervised.stopped {
                return Ok(self.stopped(reason, command));
            }
            if !supervised.exit.success() {
                return Ok(Verified::Failed(format!("`{}` ended with {code}", first_line(command))));
            }
        }
        Ok(Verified::Passed)
    }

    /// A verification that takes too long or too much has failed; a person's or the warrant's end is the run's.
    fn stopped(&self, reason: ExitReason, command: &str) -> Verified {
        match reason {
            ExitReason::TimedOut if self.live.lapse().is_none() => Verified::Failed(format!(
                "`{}` was not done within {} s",
                first_line(command),
                self.rules.timeout.as_secs()
            )),
            ExitReason::OutOfMemory | ExitReason::OutOfDisk => {
                Verified::Failed(format!("`{}` needed too much: {reason}", first_line(command)))
            }
            reason => Verified::Stopped(reason),
        }
    }

    async fn say(&self, step: usize, command: &str, code: Option<i32>, took: u64) -> Result<(), RunnerError> {
        let command = self.redactor.redact(command).into_owned();
        let mut body = json!({ "step": step, "command": command });
        if let (Some(code), Some(fields)) = (code, body.as_object_mut()) {
            fields.insert("code".to_owned(), json!(code));
            fields.insert("duration_ms".to_owned(), json!(took));
        }
        self.observer.notice(Notice::Verify { step, command, code });
        let at = self.runner.config.clock.wall_ms();
        self.control.events(vec![EventDraft { kind: EventKind::Verify, at, body }]).await?;
        Ok(())
    }

    async fn one(
        &self,
        command: &str,
        until: Instant,
        evidence: &mut StreamDigest,
        serve: &impl Fn(TcpListener) -> Result<BrokerHandle, RunnerError>,
    ) -> Result<Supervised, RunnerError> {
        let warrant = self.warrant;
        let env = match self.live.warrant().push_grant() {
            Some(push) => vec![
                ("TIPSTAFF_REMOTE".to_owned(), remote_url(&push.repository)),
                ("TIPSTAFF_REF".to_owned(), push.reference.to_string()),
                ("TIPSTAFF_COMMIT".to_owned(), self.commit.to_string()),
                ("CI".to_owned(), "true".to_owned()),
            ],
            None => Vec::new(),
        };
        let spec = compile_spec(
            warrant,
            SandboxRules {
                identity: self.prepared.identity.clone(),
                workspace: self.prepared.workspace.clone(),
                grants: self.runner.config.grants.clone(),
                read_only_mounts: self.prepared.read_only_mounts.clone(),
                home_folders: Vec::new(),
                env,
                argv: ["sh", "-c", command].into_iter().map(OsString::from).collect(),
                stdio: StdioPolicy::PIPED_OUTPUT,
                agent: false,
            },
        );
        let before = tipstaff_sandbox::tree_usage(&self.prepared.measured, Default::default())
            .map_or(0, |usage| usage.bytes);
        let mut running = self.runner.start(spec).await?;
        let listener = running.listener.take().ok_or_else(collect::no_listener)?;
        let broker = serve(listener)?;
        let kinds = [EventKind::Verify, EventKind::Verify];
        let mut session = Session::new(self.redactor, None, warrant.limits.output_bytes, kinds);
        let supervised = supervise(
            &mut running,
            &Watch {
                warrant: self.live,
                key: self.key,
                narrowed: self.narrowed,
                control: self.control.as_ref(),
                observer: self.observer.as_ref(),
                clock: self.runner.config.clock.as_ref(),
                cancel: self.cancel,
                measured: vec![self.prepared.measured.clone()],
                measured_before: before,
                wall: until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)),
                stall: patient(),
                broker: None,
            },
            &mut session,
            None,
        )
        .await;
        broker.stop().await;
        evidence.update(session.evidence().as_bytes());
        supervised
    }
}

/// The first line of a command, for a sentence.
fn first_line(command: &str) -> String {
    let line = command.lines().next().unwrap_or_default();
    let short: String = line.chars().take(80).collect();
    if short.len() < command.len() { format!("{short} …") } else { short }
}

/// A verification may be silent as long as it likes.
const fn patient() -> Stall {
    Stall { warning: None, stop: None }
}

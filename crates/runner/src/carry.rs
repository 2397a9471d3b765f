//! One lease from its warrant to its result.
//!
//! The order of the end is the promise: the result is stored, then the state, then the workspace goes. A crash at any
//! point leaves something that the next start finds and finishes.

use crate::RunnerError;
use crate::announce::{Announcing, Notice, Observer};
use crate::collect::{Collected, collect};
use crate::manner::Manner;
use crate::prepare::{Materials, layer_picture};
use crate::privacy::MetaOnly;
use crate::project::{Project, VerifyWorkspace};
use crate::runner::{Job, Outcome, Runner};
use crate::setup::{Ready, SettingUp};
use crate::verify::{Verified, Verifying, narrowed};
use crate::work::{Worked, judge};
use crate::{RunLock, recover};
use serde_json::json;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tipstaff_broker::{Mirror, Pinned, Quarantine, ServedRepository};
use tipstaff_engine::{Verdict, engine};
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    AuditAction, AuditDraft, ControlPlane, EventDraft, EventKind, ExitReason, LiveWarrant, PrivacyClass,
    RunId, RunState, TaskSpec, Warrant, WarrantId,
};
use tipstaff_sandbox::{RunIdentity, SandboxError, environment_check};
use tipstaff_seal::redact::Redactor;
use tokio::task::JoinSet;

/// Warm checkouts that are kept, all repositories together.
const WARM_CHECKOUTS: usize = 8;

impl Runner {
    /// Carries a lease out to its end. The run's state, reason and result are in the control plane when it returns, and
    /// nothing of its workspace or processes is left.
    ///
    /// # Errors
    /// [`RunnerError`] when the control plane could not be told; everything else ends in a named state.
    pub async fn carry_out(
        &self,
        job: Job,
        control: Arc<dyn ControlPlane>,
        observer: Arc<dyn Observer>,
    ) -> Result<Outcome, RunnerError> {
        let run = job.warrant.warrant.run;
        let meta = job.task.privacy == PrivacyClass::Meta;
        let control =
            if meta { Arc::new(MetaOnly { inner: control, run }) as Arc<dyn ControlPlane> } else { control };
        let control: Arc<dyn ControlPlane> = Arc::new(Announcing {
            inner: control,
            observer: Arc::clone(&observer),
            budget: job.warrant.warrant.budget,
            redactor: job.redactor.clone(),
            spent: AtomicU64::new(0),
        });
        let live = Arc::new(LiveWarrant::new(job.warrant.warrant.clone(), Arc::clone(&self.config.clock)));
        let carried =
            self.carry(&job, &live, &control, &observer).await.map(|update| ended_with(update, &live));
        if let Err(RunnerError::Refused(refusal)) = &carried {
            control.refusal(refusal.clone()).await?;
        }
        let ended = match carried {
            Ok(ended) => Ok(ended),
            Err(error @ RunnerError::ControlPlane(_)) => Err(error),
            Err(error) => Ok(RunUpdate {
                state: Some(RunState::Failed),
                exit_reason: Some(error.exit_reason()),
                error: Some(format!("{error} [{}]", error.code())),
                ..RunUpdate::default()
            }),
        };
        if let (true, Ok(RunUpdate { error: Some(error), .. })) = (meta, &ended) {
            // It is not kept, so it is said now.
            observer.notice(Notice::Remark(job.redactor.redact(error).into_owned()));
        }
        // Before the run is on record as ended: whoever sees that may continue it.
        self.keep_session(&job, &control, &observer).await;
        // The failure is on record before the workspace goes.
        let told = match ended {
            Ok(update) => {
                let outcome = Outcome {
                    state: update.state.unwrap_or(RunState::Failed),
                    reason: update.exit_reason.unwrap_or(ExitReason::Internal),
                };
                control.run_update(update).await.map(|()| outcome).map_err(RunnerError::from)
            }
            Err(error) => Err(error),
        };
        // What is not on record keeps its workspace and its lock: the next start marks the run, and then removes them.
        if told.is_ok() {
            self.clean_up(run, job.lock, control.as_ref(), observer.as_ref()).await?;
        }
        if job.setup.is_some() {
            self.setups_written_out(job.warrant.warrant.org);
        }
        // Old checkouts only cost room.
        let _pruned =
            self.checkouts(job.warrant.warrant.org).map(|checkouts| checkouts.prune(WARM_CHECKOUTS));
        told
    }

    /// Removes the workspace of a run that is on record as ended, and then its lock.
    async fn clean_up(
        &self,
        run: RunId,
        lock: RunLock,
        control: &dyn ControlPlane,
        observer: &dyn Observer,
    ) -> Result<(), RunnerError> {
        let layout = self.config.layout.clone();
        let removed = tokio::task::spawn_blocking(move || recover::remove_folder(&layout, run))
            .await
            .map_err(|error| RunnerError::Io {
                action: "removing the workspace",
                source: std::io::Error::other(error),
            })
            .and_then(|removed| removed);
        if let Err(error) = removed {
            observer.notice(Notice::Remark(format!("{error}; the next start tries again")));
            return Ok(());
        }
        let subject = format!("run:{run}");
        let draft = AuditDraft::new(subject.clone(), AuditAction::WorkspaceDestroyed, subject);
        match control.record(draft).await {
            Ok(()) => lock.remove(),
            Err(error) => {
                observer.notice(Notice::Remark(format!(
                    "the end of the workspace is not on record yet: {error}"
                )));
                Ok(())
            }
        }
    }

    async fn carry(
        &self,
        job: &Job,
        live: &Arc<LiveWarrant>,
        control: &Arc<dyn ControlPlane>,
        observer: &Arc<dyn Observer>,
    ) -> Result<RunUpdate, RunnerError> {
        let clock = &self.config.clock;
        job.warrant.verify(&job.key).map_err(|error| RunnerError::WarrantForged(error.to_string()))?;
        let warrant = live.in_force().map_err(RunnerError::Refused)?;
        let run = warrant.run;
        // The sandbox protects from what a command does; a role without execution never gets that far. An agent is an
        // installed program: it may read and think where nothing of the repository may be executed.
        let program = self.program(job.task.engine).await?;
        if program.is_none() {
            warrant.permits_exec().map_err(RunnerError::Refused)?;
        }
        if let Some(found) = &program {
            let version = found.version.as_deref().unwrap_or("of an unknown version");
            let text = format!("{} {version} at {}", job.task.engine, found.path.display());
            self.remark(&text, control, observer).await?;
        }

        let identity = RunIdentity::acquire(&self.config.identities)?;
        let checkouts = self.checkouts(warrant.org)?;
        let materials = |overlay, name| Materials {
            layout: &self.config.layout,
            run,
            warrant: &warrant,
            mirror: &job.mirror,
            checkouts: &checkouts,
            overlay,
            name,
            identity: identity.clone(),
            base_branch: job.base_branch.clone(),
            over: None,
        };
        let pinned = Pinned { commit: job.task.base_commit.clone(), branch: job.base_branch.clone() };
        let result = self.config.layout.result(run);
        let quarantine =
            Quarantine::create(Arc::clone(&self.config.git), &result, &job.mirror, &pinned).await?;
        let _quickening = quicken(&quarantine, &job.mirror);
        let inspection = match &job.inspection {
            Some(inspection) => inspection.for_run(&warrant)?,
            None => None,
        };
        let serve_under = |live: &Arc<LiveWarrant>, listener: TcpListener, (gateway, inspection)| {
            let served =
                ServedRepository { name: job.task.repository.clone(), quarantine: quarantine.clone() };
            self.serve(listener, vec![served], live, control, (gateway, inspection, &job.redactor))
        };
        let serve = |listener: TcpListener| serve_under(live, listener, (None, None));
        let serve_agent =
            |listener: TcpListener| serve_under(live, listener, (job.gateway.clone(), inspection.clone()));
        let serve_setup =
            |live: &Arc<LiveWarrant>, listener: TcpListener| serve_under(live, listener, (None, None));
        let (materials, serve_setup) = (&materials, &serve_setup);
        let setting_up =
            SettingUp { runner: self, job, live, control, observer, materials, serve: serve_setup };
        let (mut prepared, mut laid) = match setting_up.ready().await? {
            Ready::Workspace(prepared, laid) => (prepared, laid),
            Ready::Ended(update) => return Ok(update),
        };
        let project = Project::of_checkout(&prepared.base)?;
        let manner = Manner::of(job, &project, &warrant)?;
        let invocation = engine(job.task.engine).invocation(&manner.request(job, &warrant))?;

        // What is brought back from an earlier run is pushed by this one, whether or not its agent adds to it.
        let brings_back = job.resumed.as_ref().is_some_and(|resumed| resumed.work.is_some());
        let mut before = layer_picture(&prepared).filter(|_| !brings_back);
        let attended = || manner.attended(job, &warrant, &self.config.entropy);
        let mut worked = self
            .work(
                job,
                live,
                (&prepared, inspection.as_ref()),
                (&invocation, attended()?),
                control,
                observer,
                &serve_agent,
            )
            .await;
        // Whether the kernel mounts an overlay here is learnt by doing it; nothing of the command has run then.
        if let Err(RunnerError::Sandbox(
            SandboxError::OverlayUnsupported { .. } | SandboxError::IdMapUnsupported { .. },
        )) = &worked
            && !self.no_overlay.swap(true, Ordering::Relaxed)
        {
            recover::remove_folder(&self.config.layout, run)?;
            (prepared, laid) = match setting_up.ready().await? {
                Ready::Workspace(prepared, laid) => (prepared, laid),
                Ready::Ended(update) => return Ok(update),
            };
            before = None;
            worked = self
                .work(
                    job,
                    live,
                    (&prepared, inspection.as_ref()),
                    (&invocation, attended()?),
                    control,
                    observer,
                    &serve_agent,
                )
                .await;
        }
        let Worked { supervised, verdict, pushed } = worked?;
        if supervised.dropped > 0 {
            observer.notice(Notice::Remark(format!(
                "{} bytes of output were dropped at the bound",
                supervised.dropped
            )));
        }

        let mut update = RunUpdate { state: Some(RunState::Verifying), ..RunUpdate::default() };
        // What we ended ourselves has no code of its own.
        update.exit_code = (!supervised.dismissed).then_some(i64::from(supervised.exit.code));
        control.run_update(update).await?;
        let (state, mut reason) = judge(&supervised, &verdict, engine(job.task.engine).is_agent());
        let mut end = RunUpdate { state: Some(state), ..RunUpdate::default() };
        if let Verdict::Failed { why } = verdict
            && supervised.stopped.is_none()
        {
            end.error = why.map(|why| job.redactor.redact(&why).into_owned());
        }
        if let Some(why) = &supervised.broken {
            end.error = Some(job.redactor.redact(why).into_owned());
        }
        // It may have been narrowed while the command ran.
        let warrant_now = live.warrant();
        if warrant.push_grant().is_some() && warrant_now.push_grant().is_none() {
            let text = "the warrant grants no push any more: what was not pushed before is not kept";
            self.remark(text, control, observer).await?;
        }
        let untouched = before.is_some() && layer_picture(&prepared) == before;
        if reason != ExitReason::WarrantRevoked && !untouched {
            // The command line may hold a secret of the person's; a message is pushed.
            let subject = subject(&job.task, &job.redactor);
            let collection =
                collect(self, &warrant_now, &job.warrant.digest, &prepared, &subject, &serve).await?;
            for remark in &collection.remarks {
                self.remark(remark, control, observer).await?;
            }
            match collection.collected {
                Collected::Done => {}
                Collected::Refused { why, patch } => {
                    end.state = Some(RunState::Failed);
                    if reason == ExitReason::Completed {
                        reason = ExitReason::Refused;
                    }
                    end.error = Some(format!("the change was refused: {why}"));
                    let patch = patch.filter(|_| job.task.privacy != PrivacyClass::Meta);
                    self.keep_refused(run, patch.as_deref(), control, observer).await?;
                }
                Collected::Failed(text) => {
                    end.state = Some(RunState::Failed);
                    if reason == ExitReason::Completed {
                        reason = ExitReason::CollectFailed;
                    }
                    end.error = Some(text);
                }
            }
        }
        if (pushed || !untouched)
            && let Some(reference) = warrant.push_ref()
            && let Some(tip) = quarantine.tip(reference).await?
        {
            let stat = quarantine.diffstat(reference).await?;
            end.commit = Some(tip);
            end.branch = Some(reference.clone());
            end.files_changed = Some(stat.files_changed);
            end.additions = Some(stat.additions);
            end.deletions = Some(stat.deletions);
        }
        if reason == ExitReason::Completed
            && !project.verify.commands.is_empty()
            && let Some(commit) = end.commit.clone()
        {
            let fresh = project.verify.workspace == VerifyWorkspace::Fresh;
            let checked =
                if fresh { Some(setting_up.workspace(laid.as_ref(), "verify").await?) } else { None };
            let id = WarrantId::new(clock.as_ref(), self.config.entropy.as_ref());
            let lesser = Arc::new(LiveWarrant::new(narrowed(&live.warrant(), id)?, Arc::clone(clock)));
            let narrowed_further = |now: &Warrant| {
                let id = WarrantId::new(clock.as_ref(), self.config.entropy.as_ref());
                let taken = narrowed(now, id).ok().and_then(|less| lesser.narrow_to(less).ok());
                if taken.is_none() {
                    lesser.revoke();
                }
            };
            let serve_checks = |listener: TcpListener| serve_under(&lesser, listener, (None, None));
            let verified = Verifying {
                runner: self,
                live,
                key: &job.key,
                narrowed: &narrowed_further,
                warrant: &lesser.warrant(),
                prepared: checked.as_ref().unwrap_or(&prepared),
                fresh,
                commit: &commit,
                rules: &project.verify,
                redactor: &job.redactor,
                cancel: &job.cancel,
                control,
                observer,
            }
            .run(&serve_checks)
            .await?;
            match verified {
                Verified::Passed => {}
                Verified::Failed(why) => {
                    end.state = Some(RunState::Failed);
                    end.error = Some(format!("the verification failed: {why}"));
                    reason = ExitReason::VerifyFailed;
                }
                Verified::Stopped(why) => {
                    let cancelled = why == ExitReason::CancelledByPerson;
                    end.state = Some(if cancelled { RunState::Cancelled } else { RunState::Failed });
                    reason = why;
                }
            }
        }
        end.exit_reason = Some(reason);
        Ok(end)
    }

    /// Keeps the patch of a refused change beside the results, so that the work is not lost.
    async fn keep_refused(
        &self,
        run: RunId,
        patch: Option<&[u8]>,
        control: &Arc<dyn ControlPlane>,
        observer: &Arc<dyn Observer>,
    ) -> Result<(), RunnerError> {
        let text = match patch {
            Some(patch) => {
                let path = self.config.layout.refused_patch(run);
                // What was refused may be a secret.
                std::fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(path)
                    .and_then(|mut file| file.write_all(patch))
                    .map_err(RunnerError::io("keeping the refused change"))?;
                "the refused change is kept as a patch: `tipstaff runs diff` shows it"
            }
            None => "the refused change is not kept: it is empty, too large, or of a run of which no text is",
        };
        self.remark(text, control, observer).await
    }

    pub(crate) async fn remark(
        &self,
        text: &str,
        control: &Arc<dyn ControlPlane>,
        observer: &Arc<dyn Observer>,
    ) -> Result<(), RunnerError> {
        observer.notice(Notice::Remark(text.to_owned()));
        let at = self.config.clock.wall_ms();
        control
            .events(vec![EventDraft { kind: EventKind::Notice, at, body: json!({ "text": text }) }])
            .await?;
        Ok(())
    }
}

/// A run that ended since its warrant was revoked says why it was.
fn ended_with(mut update: RunUpdate, live: &LiveWarrant) -> RunUpdate {
    if update.exit_reason == Some(ExitReason::WarrantRevoked) && update.error.is_none() {
        update.error = live.why_revoked().map(ToOwned::to_owned);
    }
    update
}

/// Lets the run's clones become quick while it works; ends with the value. What fails here costs speed and nothing else.
fn quicken(quarantine: &Quarantine, mirror: &Mirror) -> JoinSet<()> {
    let (quarantine, mirror) = (quarantine.clone(), mirror.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = quarantine.quicken(&mirror).await;
    });
    tasks
}

/// The first line of the commit that collects what the run left.
fn subject(task: &TaskSpec, redactor: &Redactor) -> String {
    let what = task.prompt.clone().unwrap_or_else(|| task.argv.join(" "));
    let line = redactor.redact(what.lines().next().unwrap_or_default().trim()).into_owned();
    // What the sandbox would take for a credential, such as the mere beginning of one, must not cost the work.
    let told = task.privacy != PrivacyClass::Meta
        && !line.is_empty()
        && environment_check("TIPSTAFF_MESSAGE", &line).is_ok();
    if told { line } else { format!("Work of the {}", task.role) }
}

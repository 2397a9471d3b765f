//! One lease from its warrant to its result.
//!
//! The order of the end is the promise: the result is stored, then the state, then the workspace goes. A crash at any
//! point leaves something that the next start finds and finishes.

use crate::announce::{Announcing, Notice, Observer};
use crate::collect::{Collected, collect, no_listener};
use crate::compile::{SandboxRules, compile_spec, engine_request};
use crate::home::furnish;
use crate::prepare::{Materials, Prepared, layer_picture, prepare};
use crate::project::{Project, VerifyWorkspace};
use crate::session::Session;
use crate::supervise::{Cancel, Stall, Supervised, Watch, supervise};
use crate::verify::{Verified, Verifying};
use crate::{Layout, RunLock, RunnerError, recover};
use serde_json::json;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tipstaff_broker::{
    Bounds, Broker, BrokerConfig, BrokerHandle, Mirror, Mirrors, Pinned, Quarantine, ServedRepository,
};
use tipstaff_broker::{Checkouts, GatewayConfig, Git};
use tipstaff_engine::{Invocation, ProcessEnd, Verdict, engine};
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    AuditAction, AuditDraft, Clock, ControlPlane, EventDraft, EventKind, ExitReason, LiveWarrant, OrgId,
    RunId, RunState, TaskSpec,
};
use tipstaff_sandbox::{
    Exit, ExitCause, RunIdentity, Running, Sandbox, SandboxError, SandboxSpec, StdioPolicy, ToolchainGrant,
};
use tipstaff_seal::redact::Redactor;
use tipstaff_seal::{SignedWarrant, VerifyingKey};
use tokio::io::unix::AsyncFd;

/// Warm checkouts that are kept, all repositories together.
const WARM_CHECKOUTS: usize = 8;

/// What a runner is made of.
pub struct RunnerConfig {
    /// Where everything lies.
    pub layout: Layout,
    /// The sandbox, probed.
    pub sandbox: Arc<Sandbox>,
    /// Our git.
    pub git: Arc<Git>,
    /// Where identities of runs are locked; shared by all of this machine.
    pub identities: PathBuf,
    /// Toolchains that every run may read.
    pub grants: Vec<ToolchainGrant>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The broker's bounds.
    pub bounds: Bounds,
    /// Private addresses that the broker may dial for granted hosts: upstreams that the operator runs on this machine.
    pub allow_private_addresses: Vec<SocketAddr>,
    /// How long an agent may do nothing.
    pub stall: Stall,
}

/// Carries leases out. Cheap to share; any number of runs at once.
pub struct Runner {
    pub(crate) config: RunnerConfig,
    no_overlay: AtomicBool,
}

/// One lease, with all that is needed for it.
pub struct Job {
    /// What to do.
    pub task: TaskSpec,
    /// The grant.
    pub warrant: SignedWarrant,
    /// The control plane's key: the runner checks the signature itself.
    pub key: VerifyingKey,
    /// The run's lock, taken before the run was on record.
    pub lock: RunLock,
    /// The mirror, with the base pinned.
    pub mirror: Mirror,
    /// How the base's branch is called, where it has one.
    pub base_branch: Option<String>,
    /// The person's wish to end it.
    pub cancel: Cancel,
    /// The models that may be asked, with their keys; `None` where none may.
    pub gateway: Option<GatewayConfig>,
    /// Takes secrets out of everything that the run says; knows the live ones.
    pub redactor: Redactor,
}

/// What the command did.
struct Worked {
    supervised: Supervised,
    /// What the engine says about it.
    verdict: Verdict,
    /// Whether it pushed by itself.
    pushed: bool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Where.
    pub state: RunState,
    /// Why.
    pub reason: ExitReason,
}

impl Runner {
    /// A runner over a state folder.
    #[must_use]
    pub const fn new(config: RunnerConfig) -> Self {
        Self { config, no_overlay: AtomicBool::new(false) }
    }

    /// The mirrors of one tenant; two tenants never share one.
    ///
    /// # Errors
    /// When their folder can't be made.
    pub fn mirrors(&self, org: OrgId) -> Result<Mirrors, RunnerError> {
        let root = self.config.layout.mirrors().join(org.to_string());
        Ok(Mirrors::new(Arc::clone(&self.config.git), root, Default::default())?)
    }

    /// The warm checkouts of one tenant.
    ///
    /// # Errors
    /// When their folder can't be made.
    pub fn checkouts(&self, org: OrgId) -> Result<Checkouts, RunnerError> {
        let root = self.config.layout.checkouts().join(org.to_string());
        Ok(Checkouts::new(Arc::clone(&self.config.git), root, Default::default())?)
    }

    /// Our git.
    #[must_use]
    pub const fn git(&self) -> &Arc<Git> {
        &self.config.git
    }

    /// The sandbox.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.config.sandbox
    }

    /// Where identities are locked.
    #[must_use]
    pub fn identities(&self) -> &Path {
        &self.config.identities
    }

    /// Toolchains that every run may read.
    #[must_use]
    pub fn grants(&self) -> &[ToolchainGrant] {
        &self.config.grants
    }

    /// The quarantine of a run, where there is one.
    ///
    /// # Errors
    /// When there is none.
    pub async fn quarantine(&self, run: RunId) -> Result<Quarantine, RunnerError> {
        Ok(Quarantine::open(Arc::clone(&self.config.git), &self.config.layout.result(run)).await?)
    }

    /// The layout.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.config.layout
    }

    /// Starts a sandbox without holding up other runs.
    ///
    /// # Errors
    /// As the sandbox says.
    pub async fn start(&self, spec: SandboxSpec) -> Result<Running, RunnerError> {
        let sandbox = Arc::clone(&self.config.sandbox);
        tokio::task::spawn_blocking(move || sandbox.start(&spec))
            .await
            .map_err(|error| RunnerError::Io {
                action: "starting the sandbox",
                source: std::io::Error::other(error),
            })?
            .map_err(RunnerError::from)
    }

    /// Serves a sandbox's listener under a warrant.
    ///
    /// # Errors
    /// When the listener can't be used.
    pub fn serve(
        &self,
        listener: TcpListener,
        repositories: Vec<ServedRepository>,
        live: &Arc<LiveWarrant>,
        control: &Arc<dyn ControlPlane>,
        gateway: Option<GatewayConfig>,
    ) -> Result<BrokerHandle, RunnerError> {
        let mut config = BrokerConfig::new(Arc::clone(&self.config.git), repositories);
        config.bounds = self.config.bounds;
        config.gateway = gateway;
        config.allow_private_addresses.clone_from(&self.config.allow_private_addresses);
        Ok(Broker::new(config, Arc::clone(live), Arc::clone(control)).serve(listener)?)
    }

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
        let control: Arc<dyn ControlPlane> = Arc::new(Announcing {
            inner: control,
            observer: Arc::clone(&observer),
            budget: job.warrant.warrant.budget,
            spent: AtomicU64::new(0),
        });
        let run = job.warrant.warrant.run;
        let carried = self.carry(&job, &control, &observer).await;
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
        control: &Arc<dyn ControlPlane>,
        observer: &Arc<dyn Observer>,
    ) -> Result<RunUpdate, RunnerError> {
        let clock = &self.config.clock;
        job.warrant.verify(&job.key).map_err(|error| RunnerError::WarrantForged(error.to_string()))?;
        let live = Arc::new(LiveWarrant::new(job.warrant.warrant.clone(), Arc::clone(clock)));
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
        let invocation = engine(job.task.engine).invocation(&engine_request(&job.task, warrant.kind))?;

        let identity = RunIdentity::acquire(&self.config.identities)?;
        let checkouts = self.checkouts(warrant.org)?;
        let materials = |overlay, name| Materials {
            layout: &self.config.layout,
            run,
            warrant,
            mirror: &job.mirror,
            checkouts: &checkouts,
            overlay,
            name,
            identity: identity.clone(),
            base_branch: job.base_branch.clone(),
        };
        let mut prepared = prepare(materials(!self.no_overlay.load(Ordering::Relaxed), "workspace")).await?;
        let project = Project::of_checkout(&prepared.base)?;
        let pinned = Pinned { commit: job.task.base_commit.clone(), branch: job.base_branch.clone() };
        let result = self.config.layout.result(run);
        let quarantine =
            Quarantine::create(Arc::clone(&self.config.git), &result, &job.mirror, &pinned).await?;
        let serve = |listener: TcpListener| {
            let served =
                ServedRepository { name: job.task.repository.clone(), quarantine: quarantine.clone() };
            self.serve(listener, vec![served], &live, control, None)
        };
        let serve_agent = |listener: TcpListener| {
            let served =
                ServedRepository { name: job.task.repository.clone(), quarantine: quarantine.clone() };
            self.serve(listener, vec![served], &live, control, job.gateway.clone())
        };

        let mut before = layer_picture(&prepared);
        let mut worked = self.work(job, &live, &prepared, &invocation, control, observer, &serve_agent).await;
        // Whether the kernel mounts an overlay here is learnt by doing it; nothing of the command has run then.
        if let Err(RunnerError::Sandbox(
            SandboxError::OverlayUnsupported { .. } | SandboxError::IdMapUnsupported { .. },
        )) = &worked
            && !self.no_overlay.swap(true, Ordering::Relaxed)
        {
            recover::remove_folder(&self.config.layout, run)?;
            prepared = prepare(materials(false, "workspace")).await?;
            before = None;
            worked = self.work(job, &live, &prepared, &invocation, control, observer, &serve_agent).await;
        }
        let Worked { supervised, verdict, pushed } = worked?;
        if supervised.dropped > 0 {
            observer.notice(Notice::Remark(format!(
                "{} bytes of output were dropped at the bound",
                supervised.dropped
            )));
        }

        let mut update = RunUpdate { state: Some(RunState::Verifying), ..RunUpdate::default() };
        update.exit_code = Some(i64::from(supervised.exit.code));
        control.run_update(update).await?;
        let (state, mut reason) = judge(&supervised, &verdict, program.is_some());
        let mut end = RunUpdate { state: Some(state), ..RunUpdate::default() };
        if let Verdict::Failed { why } = verdict
            && supervised.stopped.is_none()
        {
            end.error = why.map(|why| job.redactor.redact(&why).into_owned());
        }
        let untouched = before.is_some() && layer_picture(&prepared) == before;
        if reason != ExitReason::WarrantRevoked && !untouched {
            let subject = subject(&job.task);
            let collection = collect(self, warrant, &job.warrant.digest, &prepared, &subject, &serve).await?;
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
            let checked = if fresh {
                Some(prepare(materials(!self.no_overlay.load(Ordering::Relaxed), "verify")).await?)
            } else {
                None
            };
            let verified = Verifying {
                runner: self,
                live: &live,
                prepared: checked.as_ref().unwrap_or(&prepared),
                fresh,
                commit: &commit,
                rules: &project.verify,
                redactor: &job.redactor,
                cancel: &job.cancel,
                control,
                observer,
            }
            .run(&serve)
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
                std::fs::write(path, patch).map_err(RunnerError::io("keeping the refused change"))?;
                "the refused change is kept as a patch: `tipstaff runs diff` shows it"
            }
            None => "the refused change is too large to be kept",
        };
        self.remark(text, control, observer).await
    }

    #[expect(clippy::too_many_arguments, reason = "one call, each argument is another thing")]
    async fn work(
        &self,
        job: &Job,
        live: &LiveWarrant,
        prepared: &Prepared,
        invocation: &Invocation,
        control: &Arc<dyn ControlPlane>,
        observer: &Arc<dyn Observer>,
        serve: &impl Fn(TcpListener) -> Result<BrokerHandle, RunnerError>,
    ) -> Result<Worked, RunnerError> {
        let warrant = live.warrant();
        let run = warrant.run;
        let chosen = engine(job.task.engine);
        let (argv, mount) = furnish(invocation, &self.config.layout.run(run).join("home"))?;
        let mut read_only_mounts = prepared.read_only_mounts.clone();
        read_only_mounts.extend(mount);
        let spec = compile_spec(
            warrant,
            SandboxRules {
                identity: prepared.identity.clone(),
                workspace: prepared.workspace.clone(),
                grants: self.config.grants.clone(),
                read_only_mounts,
                env: invocation.env.clone(),
                argv,
                stdio: StdioPolicy::PIPED_OUTPUT,
                agent: chosen.program().is_some(),
            },
        );
        let kinds = [EventKind::Stdout, EventKind::Stderr];
        let mut session = Session::new(&job.redactor, chosen.reader(), warrant.limits.output_bytes, kinds);
        let before = tipstaff_sandbox::tree_usage(&prepared.measured, Default::default())
            .map_or(0, |usage| usage.bytes);
        // No audit, no action: the start is on record before it happens.
        let draft = AuditDraft::new(format!("run:{run}"), AuditAction::SandboxStarted, format!("run:{run}"))
            .with("warrant", warrant.id)
            .with("digest", job.warrant.digest)
            .with("outer_uid", prepared.identity.uid());
        control.record(draft).await?;
        let mut running = match self.start(spec).await {
            Ok(running) => running,
            Err(RunnerError::Sandbox(SandboxError::CommandUnusable { program, reason })) => {
                let text = format!("{program}: {reason}");
                self.remark(&text, control, observer).await?;
                control
                    .run_update(RunUpdate { state: Some(RunState::Running), ..RunUpdate::default() })
                    .await?;
                let exit = Exit { code: 127, signal: None, cause: ExitCause::Exited };
                let supervised = Supervised { exit, stopped: None, dropped: 0 };
                return Ok(Worked { supervised, verdict: Verdict::Failed { why: None }, pushed: false });
            }
            Err(error) => return Err(error),
        };
        let broker = serve(running.listener.take().ok_or_else(no_listener)?)?;
        control.run_update(RunUpdate { state: Some(RunState::Running), ..RunUpdate::default() }).await?;
        let supervised = supervise(
            &mut running,
            &Watch {
                warrant: live,
                control: control.as_ref(),
                observer: observer.as_ref(),
                clock: self.config.clock.as_ref(),
                cancel: &job.cancel,
                measured: Some(prepared.measured.clone()),
                measured_before: before,
                wall: Duration::from_millis(warrant.limits.wall_ms),
                stall: self.config.stall,
                broker: Some(&broker),
            },
            &mut session,
        )
        .await;
        let pushed = !broker.stop().await.pushes.is_empty();
        supervised.map(|supervised| {
            let end = match supervised.exit.signal {
                Some(signal) => ProcessEnd::Signalled(signal),
                None => ProcessEnd::Exited(supervised.exit.code),
            };
            Worked { supervised, verdict: session.verdict(end), pushed }
        })
    }

    async fn remark(
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

/// The state and reason of a run whose command ended.
fn judge(supervised: &Supervised, verdict: &Verdict, agent: bool) -> (RunState, ExitReason) {
    match (supervised.stopped, verdict) {
        (Some(ExitReason::CancelledByPerson), _) => (RunState::Cancelled, ExitReason::CancelledByPerson),
        (Some(reason), _) => (RunState::Failed, reason),
        (None, Verdict::Done) => (RunState::Done, ExitReason::Completed),
        (None, Verdict::Failed { .. }) => {
            let reason = match (supervised.exit.signal, agent) {
                (Some(_), _) => ExitReason::Signalled,
                (None, true) => ExitReason::AgentFailed,
                (None, false) => ExitReason::CommandFailed,
            };
            (RunState::Failed, reason)
        }
    }
}

/// The first line of the commit that collects what the run left.
fn subject(task: &TaskSpec) -> String {
    let what = task.prompt.clone().unwrap_or_else(|| task.argv.join(" "));
    let line = what.lines().next().unwrap_or_default().trim().to_owned();
    if line.is_empty() { format!("Work of the {}", task.role) } else { line }
}

/// Waits for the end of a sandbox, at most `limit`; kills it after that. `None` when it was killed.
///
/// # Errors
/// When the kernel refuses the wait.
pub async fn wait_for(running: &mut Running, limit: Duration) -> Result<Option<Exit>, RunnerError> {
    let ended = end_of(running)?;
    let waiting = async {
        loop {
            let mut guard = ended.readable().await.map_err(RunnerError::io("watching the sandbox"))?;
            if let Some(exit) = running.try_wait()? {
                return Ok::<Exit, RunnerError>(exit);
            }
            guard.clear_ready();
        }
    };
    match tokio::time::timeout(limit, waiting).await {
        Ok(exit) => exit.map(Some),
        Err(_) => {
            running.kill()?;
            running.wait()?;
            Ok(None)
        }
    }
}

/// A descriptor that is readable when the sandbox has ended.
pub(crate) fn end_of(running: &Running) -> Result<AsyncFd<OwnedFd>, RunnerError> {
    let descriptor = running.pidfd().try_clone_to_owned().map_err(RunnerError::io("watching the sandbox"))?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe; an OwnedFd stays open as long as it is registered"
    )]
    AsyncFd::new(descriptor).map_err(RunnerError::io("watching the sandbox"))
}

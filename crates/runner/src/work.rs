//! The command itself: its sandbox, its broker, its watch.

use crate::RunnerError;
use crate::announce::Observer;
use crate::collect::no_listener;
use crate::compile::{SandboxRules, compile_spec};
use crate::home::furnish;
use crate::kept;
use crate::prepare::Prepared;
use crate::runner::{Job, Runner};
use crate::session::Session;
use crate::supervise::{Supervised, Watch, measured_before, supervise};
use crate::talk::Attended;
use crate::trust;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_broker::{BrokerHandle, Inspection};
use tipstaff_engine::{Invocation, ProcessEnd, Verdict, engine};
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{AuditAction, AuditDraft, ControlPlane, EventKind, ExitReason, LiveWarrant, RunState};
use tipstaff_sandbox::{Exit, ExitCause, SandboxError, StdioPolicy};

/// What the command did.
pub(crate) struct Worked {
    pub(crate) supervised: Supervised,
    /// What the engine says about it.
    pub(crate) verdict: Verdict,
    /// Whether it pushed by itself.
    pub(crate) pushed: bool,
}

impl Runner {
    #[expect(clippy::too_many_arguments, reason = "one call, each argument is another thing")]
    pub(crate) async fn work(
        &self,
        job: &Job,
        live: &LiveWarrant,
        (prepared, inspection): (&Prepared, Option<&Inspection>),
        (invocation, attended): (&Invocation, Option<Attended>),
        control: &Arc<dyn ControlPlane>,
        observer: &Arc<dyn Observer>,
        serve: &impl Fn(TcpListener) -> Result<BrokerHandle, RunnerError>,
    ) -> Result<Worked, RunnerError> {
        let warrant = live.warrant();
        let run = warrant.run;
        let chosen = engine(job.task.engine);
        self.bring_back(job, live, prepared, control).await?;
        let mut measured = vec![prepared.measured.clone()];
        let home_folders = match &job.resumed {
            None if job.session_key.is_none() => Vec::new(),
            resumed => {
                let root = self.config.layout.run_session(run);
                let session = resumed.as_ref().map(|resumed| &resumed.session);
                let made = kept::furnish(&root, chosen.session_folders(), session, &prepared.identity)?;
                measured.push(root);
                made
            }
        };
        let (argv, mount) = furnish(invocation, &self.config.layout.run(run).join("home"))?;
        let mut read_only_mounts = prepared.read_only_mounts.clone();
        read_only_mounts.extend(mount);
        let mut env = invocation.env.clone();
        if let Some(inspection) = inspection {
            let (told, mount) = trust::furnish(inspection, &self.config.layout.run(run).join("trust"))?;
            env.extend(told);
            read_only_mounts.push(mount);
        }
        let held = job.inspection.iter().flat_map(|inspection| &inspection.secrets);
        env.extend(held.map(|(variable, held)| (variable.clone(), held.handle().to_string())));
        let spec = compile_spec(
            &warrant,
            SandboxRules {
                identity: prepared.identity.clone(),
                workspace: prepared.workspace.clone(),
                grants: self.config.grants.clone(),
                read_only_mounts,
                home_folders,
                env,
                argv,
                stdio: if attended.is_some() { StdioPolicy::PIPED } else { StdioPolicy::PIPED_OUTPUT },
                agent: chosen.is_agent(),
            },
        );
        let kinds = [EventKind::Stdout, EventKind::Stderr];
        let reader = if attended.is_some() { chosen.attended_reader() } else { chosen.reader() };
        let mut session = Session::new(&job.redactor, reader, warrant.limits.output_bytes, kinds);
        let before = measured_before(&measured);
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
                let supervised =
                    Supervised { exit, stopped: None, broken: None, dismissed: false, dropped: 0 };
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
                key: &job.key,
                narrowed: &|_| {},
                control: control.as_ref(),
                observer: observer.as_ref(),
                clock: self.config.clock.as_ref(),
                cancel: &job.cancel,
                measured,
                measured_before: before,
                wall: Duration::from_millis(warrant.limits.wall_ms),
                stall: self.config.stall,
                broker: Some(&broker),
            },
            &mut session,
            attended,
        )
        .await;
        let pushed = !broker.stop().await.pushes.is_empty();
        supervised.map(|supervised| {
            let end = match supervised.exit.signal {
                // Its turn was over; that its process went on is no failure of the work.
                _ if supervised.dismissed => ProcessEnd::Exited(0),
                Some(signal) => ProcessEnd::Signalled(signal),
                None => ProcessEnd::Exited(supervised.exit.code),
            };
            Worked { supervised, verdict: session.verdict(end), pushed }
        })
    }
}

/// The state and reason of a run whose command ended.
pub(crate) fn judge(supervised: &Supervised, verdict: &Verdict, agent: bool) -> (RunState, ExitReason) {
    match (supervised.stopped, verdict) {
        (Some(ExitReason::CancelledByPerson), _) => (RunState::Cancelled, ExitReason::CancelledByPerson),
        (Some(reason), _) => (RunState::Failed, reason),
        (None, Verdict::Done) => (RunState::Done, ExitReason::Completed),
        (None, Verdict::Failed { .. }) => {
            let signal = supervised.exit.signal.filter(|_| !supervised.dismissed);
            let reason = match (signal, agent) {
                (Some(_), _) => ExitReason::Signalled,
                (None, true) => ExitReason::AgentFailed,
                (None, false) => ExitReason::CommandFailed,
            };
            (RunState::Failed, reason)
        }
    }
}

//! `tipstaff sandbox`: what an agent would see.

use crate::cli::SandboxCommand;
use crate::context::{git, layout, sandbox_config, toolchains};
use crate::env::Environment;
use crate::exit::Problem;
use crate::output::{Output, Tone};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::warrant::{HostPattern, IssueRequest, LONGEST_RUN_MS, RepositoryGrant};
use tipstaff_model::{
    AgentRole, AuditDraft, BoxFuture, Clock, ControlPlane, ControlPlaneError, EventDraft, Heartbeat,
    LiveWarrant, OrgId, Refusal, RunId, TaskId, Warrant, WarrantId, WarrantKind,
};
use tipstaff_runner::{Runner, RunnerConfig, SandboxRules, compile_spec, wait_for};
use tipstaff_sandbox::{LayerState, RunIdentity, Sandbox, StdioPolicy, Workspace};
use tipstaff_seal::{Redactor, SystemClock, SystemEntropy};

/// A control plane for a sandbox without a run: it keeps nothing and tells refusals to the terminal.
struct Terminal(Output);

impl ControlPlane for Terminal {
    fn heartbeat(&self) -> BoxFuture<'_, Result<Heartbeat, ControlPlaneError>> {
        Box::pin(async { Ok(Heartbeat::default()) })
    }

    fn record(&self, _draft: AuditDraft) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        // There is no run here whose log this could go into; nothing that needs a record can be asked for.
        Box::pin(async { Err(ControlPlaneError::Rejected("a sandbox without a run has no log".to_owned())) })
    }

    fn refusal(&self, refusal: Refusal) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.0.note(&format!("refused {} ({}): {}", refusal.wanted, refusal.rule, refusal.why));
        Box::pin(async { Ok(()) })
    }

    fn events(&self, _events: Vec<EventDraft>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }

    fn run_update(&self, _update: RunUpdate) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Carries out `tipstaff sandbox …`.
pub(crate) async fn sandbox(
    command: SandboxCommand,
    env: Environment,
    output: Output,
) -> anyhow::Result<ExitCode> {
    match command {
        SandboxCommand::Exec { workspace, kind, timeout, allow_host, cmd } => {
            let warrant = warrant(kind, timeout, crate::begin::egress_of(&allow_host))?;
            exec(workspace.as_deref(), warrant, cmd, env, output).await
        }
        SandboxCommand::Probe => probe(env, output).await,
    }
}

async fn probe(env: Environment, output: Output) -> anyhow::Result<ExitCode> {
    let config = sandbox_config(&env, &layout(&env)?)?;
    let report = tokio::task::spawn_blocking(move || Sandbox::probe(&config)).await?;
    if output.json {
        output.object(&report);
    } else {
        for layer in &report.layers {
            let (mark, tone) = match layer.state {
                LayerState::Holds => ("holds  ", Tone::Good),
                LayerState::Reduced => ("reduced", Tone::Warn),
                LayerState::Missing => ("missing", Tone::Bad),
            };
            output.line(&format!("{} {:<22} {}", output.tone(tone, mark), layer.layer, layer.evidence));
            if !layer.remedy.is_empty() {
                output.line(&format!("{:31}{}", "", output.tone(Tone::Dim, &layer.remedy)));
            }
        }
        output.line(if report.usable() { "runs are possible here" } else { "no run is possible here" });
    }
    Ok(ExitCode::from(if report.usable() { 0 } else { 3 }))
}

/// A warrant over no repository at all.
fn warrant(kind: WarrantKind, timeout: Option<u64>, egress: Vec<HostPattern>) -> anyhow::Result<Warrant> {
    let (clock, entropy) = (SystemClock, SystemEntropy);
    let role = match kind {
        WarrantKind::Refine => AgentRole::Refiner,
        WarrantKind::Review => AgentRole::Reviewer,
        WarrantKind::Build => AgentRole::Builder,
        WarrantKind::Ops => AgentRole::Gardener,
    };
    let unusable = |error: &dyn std::fmt::Display| Problem::usage("warrant-impossible", error.to_string());
    let repository = RepositoryGrant {
        name: "local/none"
            .parse()
            .map_err(|error: tipstaff_model::repository::NameError| unusable(&error))?,
        base: "0"
            .repeat(40)
            .parse()
            .map_err(|error: tipstaff_model::repository::NameError| unusable(&error))?,
    };
    let mut warrant = Warrant::issue(IssueRequest {
        ids: (
            WarrantId::new(&clock, &entropy),
            OrgId::new(&clock, &entropy),
            TaskId::new(&clock, &entropy),
            RunId::new(&clock, &entropy),
        ),
        subject: "terminal".to_owned(),
        role,
        repository,
        budget: None,
        wall_ms: Some(timeout.unwrap_or(LONGEST_RUN_MS)),
        egress,
        hosts: Vec::new(),
        secrets: Vec::new(),
        models: Vec::new(),
        submodules: false,
        lfs: false,
        now_ms: clock.wall_ms(),
    })
    .map_err(|error| unusable(&error))?;
    warrant.repositories.clear();
    warrant.push = None;
    Ok(warrant)
}

/// A runner without a store.
pub(crate) async fn bare_runner(env: &Environment) -> anyhow::Result<Runner> {
    let layout = layout(env)?;
    let config = sandbox_config(env, &layout)?;
    let identities = config.lock_dir.clone();
    let git = git(env, &layout).await?;
    let for_tools = env.clone();
    let (sandbox, found) =
        tokio::task::spawn_blocking(move || (Sandbox::new(config), toolchains(&for_tools))).await?;
    Ok(Runner::new(RunnerConfig {
        layout,
        sandbox: Arc::new(sandbox?),
        git,
        identities,
        grants: found.grants,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        bounds: Default::default(),
        allow_private_addresses: Vec::new(),
        host_addresses: Default::default(),
        stall: Default::default(),
        layers: true,
    }))
}

/// The folder that a person wants to see as `/work`.
fn folder(path: &Path) -> anyhow::Result<PathBuf> {
    let path = path.canonicalize().map_err(|error| {
        Problem::usage(
            "workspace-missing",
            format!("{} can't be used as a workspace: {error}", path.display()),
        )
    })?;
    if !path.is_dir() {
        return Err(Problem::usage("workspace-missing", format!("{} is not a folder", path.display())));
    }
    let system = ["/", "/usr", "/etc", "/var", "/home", "/root", "/boot", "/dev", "/proc", "/sys", "/run"];
    if system.iter().any(|one| path == Path::new(one)) {
        let text = format!("{} holds more than a workspace; choose a folder of its own", path.display());
        return Err(Problem::refused("workspace-too-much", text));
    }
    Ok(path)
}

async fn exec(
    workspace: Option<&Path>,
    warrant: Warrant,
    cmd: Vec<std::ffi::OsString>,
    env: Environment,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let workspace = match workspace {
        Some(path) => Workspace::Directory { path: folder(path)? },
        None => Workspace::Empty,
    };
    let runner = bare_runner(&env).await?;
    let spec = compile_spec(
        &warrant,
        SandboxRules {
            identity: RunIdentity::acquire(runner.identities())?,
            workspace,
            grants: runner.grants().to_vec(),
            read_only_mounts: Vec::new(),
            home_folders: Vec::new(),
            env: Vec::new(),
            argv: cmd,
            stdio: StdioPolicy::INHERITED,
            agent: false,
        },
    );
    let limit = Duration::from_millis(warrant.limits.wall_ms);
    let mut running = runner.start(spec).await?;
    let live = Arc::new(LiveWarrant::new(warrant, Arc::new(SystemClock)));
    let control: Arc<dyn ControlPlane> = Arc::new(Terminal(output));
    let broker = match running.listener.take() {
        Some(listener) => {
            Some(runner.serve(listener, Vec::new(), &live, &control, (None, None, &Redactor::new()))?)
        }
        None => None,
    };
    let ended = tokio::select! {
        ended = wait_for(&mut running, limit) => Some(ended?),
        () = asked_to_end() => None,
    };
    let code = match ended {
        Some(Some(exit)) => u8::try_from(exit.code).unwrap_or(1),
        Some(None) => {
            output.error(&format!(
                "the command was ended after {} [timed-out]",
                crate::output::span(live.warrant().limits.wall_ms)
            ));
            5
        }
        None => {
            running.kill()?;
            130
        }
    };
    if let Some(broker) = broker {
        broker.stop().await;
    }
    Ok(ExitCode::from(code))
}

async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

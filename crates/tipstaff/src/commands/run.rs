//! `tipstaff run`: a command or an agent on a repository, under a warrant.

use crate::begin::{base_branch, begin, repository_name, source_of, source_text, warrant_of};
use crate::cli::RunArgs;
use crate::context::{Context, Trying};
use crate::exit::Problem;
use crate::models::keys::Asker;
use crate::output::{Tone, span};
use crate::setup::PlannedSetup;
use crate::tui::{self, Held};
use crate::under::Above;
use crate::watch::Live;
use anyhow::Context as _;
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tipstaff_broker::{Dirty, Git, Mirror, Source};
use tipstaff_engine::{EngineRequest, engine};
use tipstaff_model::{
    AgentRole, AuditAction, AuditDraft, CommitId, EngineKind, ExitReason, MicroUsd, PrivacyClass, RunId,
    RunState, RunSummary, SetupChoice, TaskId, TaskSpec, Warrant,
};
use tipstaff_runner::{Cancel, Project, Runner, SandboxRules, compile_spec, engine_request};
use tipstaff_sandbox::{RunIdentity, StdioPolicy, Workspace};
use tipstaff_store::{LEASE_MS, RepositoryKind, TaskDraft};

/// How often a queued task is tried when its worker dies.
const ATTEMPTS: u32 = 3;

/// Carries out `tipstaff run`.
pub(crate) async fn run(
    arguments: RunArgs,
    context: Context,
    git: Arc<Git>,
    trying: Trying,
) -> anyhow::Result<ExitCode> {
    let (dry_run, queue) = (arguments.dry_run, arguments.queue);
    let screen = tui::wanted(&context, arguments.screen.chosen())? && !dry_run && !queue;
    let preparing = prepare(&arguments, &context, &git);
    let (runner, accepted) = context.runner_while(&git, trying, preparing).await?;
    go(
        &context,
        &runner,
        accepted,
        Going { screen, unattended: arguments.unattended, dry_run, queue, learn: arguments.learn },
    )
    .await
}

/// How a task that was read goes on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Going {
    /// At a screen.
    pub(crate) screen: bool,
    /// Whether the agent is spoken with only where something else asks for it than that somebody sits at the screen.
    pub(crate) unattended: bool,
    /// Only explained.
    pub(crate) dry_run: bool,
    /// Left to a worker.
    pub(crate) queue: bool,
    /// With a list of what was refused at its end.
    pub(crate) learn: bool,
}

/// Carries out a task, or what is wanted of it instead.
pub(crate) async fn go(
    context: &Context,
    runner: &Runner,
    (mut task, source, mirror): (TaskSpec, Source, Mirror),
    going: Going,
) -> anyhow::Result<ExitCode> {
    let project = Project::of_commit(&mirror, &task.base_commit).await?;
    // Whoever may be asked can also be told something: it is on record before the run begins. So can whoever sits there.
    let present = going.screen && !going.unattended;
    task.attended |= (present || project.policy.restricts()) && converses(&task)?;
    let setup = crate::setup::planned(context, &mirror, &task, &project.setup).await?;
    // What can be known before anything is accepted is said now: no secret, no program, no key.
    let bound = crate::bound::read(&mut context.store.read(context.scope()).await?, &task.secrets).await?;
    let now = context.clock.wall_ms();
    let laws =
        crate::policies::laws(&mut context.store.read(context.scope()).await?, &task, &bound, project, now)
            .await?;
    task.attended |= laws.layers.restricts() && converses(&task)?;
    if going.dry_run {
        return dry_run(context, runner, &task, (&laws, &bound, setup)).await;
    }
    if task.asks_to_inspect() {
        context.trust()?;
    }
    runner.program(task.engine).await?;
    let asker = if going.queue { Asker::Worker } else { Asker::Person(task.engine) };
    let gateway = crate::models::prepare(context, &task, asker).await?;
    context.config.money.reserve()?;
    let (kind, text) = match &source {
        Source::Local(_) => (RepositoryKind::Local, source_text(&source)),
        Source::Remote(_) => (RepositoryKind::Url, source_text(&source)),
    };

    let mut tx = context.store.begin(context.scope()).await?;
    crate::under::room(&mut tx, &task).await?;
    task.repository = repository_name(&mut tx, &source, &text).await?;
    let planned = (gateway.grants.as_slice(), &laws, setup.as_ref());
    crate::under::possible(context, &mut tx, &task, &bound, planned).await?;
    let repository = tx.repository_set(&task.repository, kind, &text).await?;
    let max_attempts = if going.queue { ATTEMPTS } else { 1 };
    let draft = TaskDraft {
        repository: Some(repository),
        kind: "run".to_owned(),
        spec: task.stored(),
        dedup_key: None,
        max_attempts,
        run_at: None,
        person: Some(context.principal.member),
    };
    let id = tx.task_add(draft).await?.id();
    if going.queue {
        crate::privacy::prompt_keep(&mut tx, id, &task).await?;
    }
    let draft = AuditDraft::new(context.principal.actor(), AuditAction::TaskAdded, format!("task:{id}"));
    let draft = match &task.resumes {
        Some(earlier) => draft.with("resumes", earlier.run),
        None => draft,
    };
    tx.audit_note(
        draft
            .with("repository", &task.repository)
            .with("role", task.role)
            .with("engine", task.engine)
            .with("base", &task.base_commit),
    );
    if going.queue {
        tx.commit().await?;
        context.pin_checkpoint().await?;
        if context.output.json {
            context.output.object(&json!({ "task": id, "state": RunState::Queued }));
        } else {
            context.output.line(&format!("task {} is queued; `tipstaff worker` carries it out", id.short()));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let lease = tx.task_claim(id, &context.worker_name(), LEASE_MS).await?;
    let lease = lease.ok_or_else(|| Problem::failed("task-taken", "a worker took the task already"))?;
    let cancel = Cancel::default();
    listen_for_signals(context, &cancel);
    let (privacy, task_under) = (task.privacy, task.under);
    let begun = begin(context, tx, lease, task, mirror, cancel.clone(), laws, gateway, setup).await?;
    let warrant = begun.job.warrant.warrant.clone();
    announce(context, &warrant, begun.run);
    if let Some(above) = task_under {
        context.output.note(&format!("under run {}: what it spends is spent of both", above.short()));
    }
    context.output.note(&format!("privacy {privacy}: {}", privacy.in_words()));
    let live = Arc::new(Live::new(context.output));
    let held = Arc::new(Held::new(live, context.output, going.screen));
    begun.control.teller.watched_by(Arc::clone(&held) as _);
    let work = runner.carry_out(begun.job, begun.control, Arc::clone(&held) as _);
    let outcome = match going.screen {
        true => tui::beside(context, begun.run, (&cancel, &held), work).await,
        false => work.await,
    };
    context.pin_checkpoint().await?;
    let outcome = outcome?;
    let mut read = context.store.read(context.scope()).await?;
    let summary = read.run_summary(begun.run).await?;
    let summary = summary.ok_or_else(|| Problem::failed("run-unknown", "the run vanished from the store"))?;
    if going.learn {
        super::learn::tell(context, summary.run).await?;
    }
    tell(context, &summary);
    if summary.state != RunState::Done && crate::kept::is_there(context, &mut read, summary.run).await? {
        let id = summary.run.short();
        context.output.note(&format!(
            "its session is kept: tipstaff runs resume {id} goes on in it, under a new warrant"
        ));
    }
    drop(read);
    super::retention::sweep_quietly(context).await;
    crate::kept::prune(context).await;
    Ok(ExitCode::from(if outcome.state == RunState::Done { 0 } else { outcome.reason.exit_code().max(1) }))
}

/// Reads the arguments into a task: repository, pinned base, role, engine, command.
async fn prepare(
    arguments: &RunArgs,
    context: &Context,
    git: &Arc<Git>,
) -> anyhow::Result<(TaskSpec, Source, Mirror)> {
    if arguments.prompt.is_none() && arguments.cmd.is_empty() && arguments.agent.is_none() {
        return Err(Problem::usage(
            "command-missing",
            "there is nothing to do: give a prompt for an agent, or a command after --",
        ));
    }
    let above = crate::under::chosen(context, arguments).await?;
    let chosen = choose(arguments, context, above.as_ref()).await?;
    let source = source_for(arguments, above.as_ref())?;
    let mirror = context.mirrors(git)?.open(&source).await?;
    let of_above = above.as_ref().map(|above| above.spec.base_commit.to_string());
    let pinned = mirror.pin(arguments.base.as_deref().or(of_above.as_deref())).await?;
    if let Some(above) = &above {
        above.same_base(&pinned.commit)?;
    }
    if let Source::Local(_) = &source
        && arguments.base.is_none()
        && above.is_none()
        && let Dirty::Files(count) = mirror.dirty(&pinned.commit).await
    {
        context.output.warn(&format!(
            "{count} uncommitted file{} of {source} {} not part of this run; it starts from the commit {}",
            if count == 1 { "" } else { "s" },
            if count == 1 { "is" } else { "are" },
            pinned.commit.short()
        ));
    }
    let base = match (&pinned.branch, &above) {
        (_, Some(above)) => above.spec.base.clone(),
        (Some(branch), None) => Some(format!("refs/heads/{branch}")),
        (None, None) => arguments.base.clone(),
    };
    let task = task(arguments, chosen, (&source, context, above.as_ref()), base, pinned.commit)?;
    Ok((task, source, mirror))
}

/// The task of a run that is not made: for explaining it. The repository is not looked at.
pub(crate) async fn would_be(arguments: &RunArgs, context: &Context) -> anyhow::Result<TaskSpec> {
    let above = crate::under::chosen(context, arguments).await?;
    let chosen = choose(arguments, context, above.as_ref()).await?;
    let source = source_for(arguments, above.as_ref())?;
    let (base, commit) = match &above {
        Some(above) => (above.spec.base.clone(), above.spec.base_commit.clone()),
        None => (arguments.base.clone(), "0".repeat(40).parse().context("no commit")?),
    };
    task(arguments, chosen, (&source, context, above.as_ref()), base, commit)
}

/// The repository: the one that was named, that of the run above, or the one here.
fn source_for(arguments: &RunArgs, above: Option<&Above>) -> anyhow::Result<Source> {
    match (&arguments.repo, above) {
        (Some(given), above) => {
            let source = source_of(given)?;
            above.map_or(Ok(()), |above| above.same_source(&source_text(&source)))?;
            Ok(source)
        }
        (None, Some(above)) => above.source(),
        (None, None) => source_of(".".as_ref()),
    }
}

fn task(
    arguments: &RunArgs,
    chosen: Chosen,
    (source, context, above): (&Source, &Context, Option<&Above>),
    base: Option<String>,
    base_commit: CommitId,
) -> anyhow::Result<TaskSpec> {
    let template = chosen.role.template();
    let root = match source {
        Source::Local(local) => Some(local.root.as_path()),
        Source::Remote(_) => None,
    };
    let (usual_budget, usual_time) = (template.budget, template.limits.wall_ms);
    let (budget, timeout_ms) = match above {
        Some(above) => {
            (above.budget(arguments.budget, usual_budget), above.timeout_ms(arguments.timeout, usual_time)?)
        }
        None => (arguments.budget.unwrap_or(usual_budget), arguments.timeout.unwrap_or(usual_time)),
    };
    let from_files = super::learn::hosts_of_files(&arguments.allow_from, root)?;
    Ok(TaskSpec {
        repository: above.map_or_else(|| source.repository_name(), |above| above.spec.repository.clone()),
        source: source_text(source),
        base,
        base_commit,
        role: chosen.role,
        engine: chosen.engine,
        agent: arguments.agent.clone(),
        argv: chosen.command,
        prompt: arguments.prompt.clone(),
        model: chosen.model,
        provider: chosen.provider,
        instructions: chosen.instructions,
        budget_micro_usd: budget.micro(),
        timeout_ms,
        protect: arguments.protect.clone(),
        allow_hosts: arguments.ways.allow_hosts(&[&arguments.allow_host[..], &from_files].concat()),
        host_rules: arguments.ways.host_rules(),
        secrets: arguments.ways.secret.clone(),
        setup: match (arguments.no_setup, arguments.fresh_setup) {
            (true, _) => SetupChoice::Skip,
            (_, true) => SetupChoice::Fresh,
            _ => above.map_or(SetupChoice::Usual, Above::setup),
        },
        privacy: privacy(arguments, context, above)?,
        submodules: false,
        lfs: false,
        attended: arguments.attended || engine(chosen.engine).is_always_attended(),
        policy: arguments.policy.layer()?,
        ask_timeout_ms: arguments.ask_timeout,
        resumes: None,
        under: above.map(|above| above.run),
    })
}

/// What is kept of the session.
fn privacy(arguments: &RunArgs, context: &Context, above: Option<&Above>) -> anyhow::Result<PrivacyClass> {
    let usual = above.map(Above::privacy).or(context.config.run.privacy);
    privacy_class(arguments.privacy.or(usual).unwrap_or_default())
}

/// Whether sessions of a class can be kept as it says.
pub(crate) fn privacy_class(class: PrivacyClass) -> anyhow::Result<PrivacyClass> {
    match class {
        PrivacyClass::Sealed => Err(Problem::refused(
            "privacy-sealed-unavailable",
            "a sealed session can be read by your paired devices only, and this version has no pairing yet; choose --privacy meta, which keeps no text, or --privacy org",
        )),
        class => Ok(class),
    }
}

struct Chosen {
    role: AgentRole,
    engine: EngineKind,
    command: Vec<String>,
    model: Option<String>,
    provider: Option<String>,
    instructions: String,
}

async fn choose(arguments: &RunArgs, context: &Context, above: Option<&Above>) -> anyhow::Result<Chosen> {
    let agent = match &arguments.agent {
        None => None,
        Some(name) => Some(crate::commands::agents::find(context, name).await?),
    };
    let engine_kind =
        arguments.engine.or(agent.as_ref().map(|agent| agent.engine)).unwrap_or(EngineKind::Command);
    let usual_role = above.map_or(AgentRole::Builder, Above::role);
    let role = arguments.role.or(agent.as_ref().map(|agent| agent.role)).unwrap_or(usual_role);
    let command = match &agent {
        Some(agent) if arguments.cmd.is_empty() => agent.command.clone(),
        _ => arguments.cmd.clone(),
    };
    if command.is_empty() && arguments.agent.is_none() && arguments.engine.is_none() {
        return Err(Problem::usage(
            "agent-missing",
            "a prompt needs an agent: choose one with --agent NAME (see `tipstaff agents list`), or give a command after --",
        ));
    }
    if engine_kind == EngineKind::Command && arguments.prompt.is_some() && !arguments.cmd.is_empty() {
        return Err(Problem::usage(
            "prompt-not-taken",
            "a plain command is told nothing: leave the prompt away, or choose an agent for it with --agent or --engine",
        ));
    }
    let given = arguments.model.clone().or_else(|| agent.as_ref().and_then(|agent| agent.model.clone()));
    let (provider, model) = match given {
        Some(given) => {
            let (provider, model) = crate::models::split(&given);
            (provider, Some(model))
        }
        None => (None, None),
    };
    if model.is_some() && provider.is_none() && engine(engine_kind).models().is_none() {
        return Err(Problem::usage(
            "model-provider",
            format!("the engine {engine_kind} has no provider of its own: write --model PROVIDER/MODEL"),
        ));
    }
    let instructions = agent.map(|agent| agent.instructions).unwrap_or_default();
    // What makes no command line is refused before anything is accepted.
    let request = EngineRequest {
        command: &command,
        prompt: arguments.prompt.as_deref(),
        model: model.as_deref(),
        provider: provider.as_deref(),
        instructions: &instructions,
        broker: tipstaff_runner::BROKER_URL,
        home: tipstaff_sandbox::INSIDE_HOME,
        may_write: role.template().kind.may_write(),
        attended: engine(engine_kind).is_always_attended(),
        keeps_session: false,
        resume: None,
    };
    engine(engine_kind)
        .invocation(&request)
        .map_err(|error| Problem::usage(error.code(), error.to_string()))?;
    if arguments.attended {
        can_be_attended(engine_kind, &EngineRequest { attended: true, ..request })?;
    }
    Ok(Chosen { role, engine: engine_kind, command, model, provider, instructions })
}

/// Whether the agent of a task can be spoken with.
fn converses(task: &TaskSpec) -> anyhow::Result<bool> {
    let request = EngineRequest { attended: true, ..engine_request(task, task.role.template().kind) };
    let conversation = engine(task.engine)
        .conversation(&request)
        .map_err(|error| Problem::usage(error.code(), error.to_string()))?;
    Ok(conversation.is_some())
}

/// Refuses to attend to an engine that nobody can speak with while it works.
pub(crate) fn can_be_attended(kind: EngineKind, request: &EngineRequest<'_>) -> anyhow::Result<()> {
    let conversation = engine(kind)
        .conversation(request)
        .map_err(|error| Problem::usage(error.code(), error.to_string()))?;
    if conversation.is_some() {
        return Ok(());
    }
    Err(Problem::usage(
        "engine-not-attended",
        format!(
            "nobody can speak with the engine {kind} while it works: leave --attended away, or choose an agent of another \
             engine (`tipstaff agents list`); the run can still be paused, resumed and cancelled"
        ),
    ))
}

/// The first Ctrl-C or SIGTERM ends the run and keeps its work; the second one ends this program at once. A terminal that
/// goes away ends the run, too, as often as it says so.
fn listen_for_signals(context: &Context, cancel: &Cancel) {
    use tokio::signal::unix::{SignalKind, signal};
    let output = context.output;
    let (first, gone) = (cancel.clone(), cancel.clone());
    // Whoever closes a session sends both signals at once: the second one is no wish of its own then.
    let closed = Arc::new(AtomicBool::new(false));
    let is_closed = Arc::clone(&closed);
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if is_closed.load(Ordering::SeqCst) {
                continue;
            }
            if first.is_cancelled() {
                tui::terminal::give_back();
                std::process::exit(130);
            }
            output.note("ending the run and keeping its work; once more to leave at once");
            first.cancel();
        }
    });
    if tui::hang_up_is_ignored() {
        return;
    }
    tokio::spawn(async move {
        let Ok(mut hang_up) = signal(SignalKind::hangup()) else { return };
        while hang_up.recv().await.is_some() {
            crate::output::leave_alone();
            closed.store(true, Ordering::SeqCst);
            gone.cancel();
        }
    });
}

fn announce(context: &Context, warrant: &Warrant, run: RunId) {
    let output = &context.output;
    let repository = warrant.repositories.first();
    let base = repository.map_or("", |grant| grant.base.short());
    let name = repository.map(|grant| grant.name.to_string()).unwrap_or_default();
    let branch = warrant.push_ref().map_or("no push", |reference| reference.short());
    let hosts = match warrant.egress.as_slice() {
        [] => "no network".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    output.note(&format!(
        "run {} as {}: {name}@{base} -> {branch}",
        output.tone_err(Tone::Bold, &run.short()),
        warrant.role
    ));
    let models = match warrant.models.as_slice() {
        [] => String::new(),
        some => {
            let names: Vec<String> =
                some.iter().map(|grant| format!("{}/{}", grant.provider, grant.model)).collect();
            format!(", models {}", names.join(" "))
        }
    };
    output.note(&format!(
        "warrant {}: {}, {hosts}{models}, budget {}, {}",
        warrant.id.short(),
        warrant.kind,
        warrant.budget,
        span(warrant.limits.wall_ms)
    ));
}

/// The end of a run, for people or for programs.
pub(crate) fn tell(context: &Context, summary: &RunSummary) {
    let output = &context.output;
    if output.json {
        output.object(summary);
        return;
    }
    if let Some(error) = &summary.error {
        output.error(error);
    }
    let reason = summary.exit_reason.filter(|reason| *reason != ExitReason::Completed);
    let tone = if summary.state == RunState::Done { Tone::Good } else { Tone::Bad };
    output.note(&format!(
        "{}{} after {}: {} file{} changed, +{} -{}{}{}",
        output.tone_err(tone, summary.state.as_str()),
        reason.map(|reason| format!(" ({reason})")).unwrap_or_default(),
        span(summary.duration_ms),
        summary.files_changed,
        if summary.files_changed == 1 { "" } else { "s" },
        summary.additions,
        summary.deletions,
        match summary.refusals.len() {
            0 => String::new(),
            count => format!(", {count} refused"),
        },
        match summary.tokens {
            0 => String::new(),
            tokens => format!(", {} for {tokens} tokens", MicroUsd::from_micro(summary.cost_micro_usd)),
        }
    ));
    if let Some(branch) = &summary.branch {
        let id = summary.run.short();
        output.note(&format!(
            "the change waits on {branch}: tipstaff runs diff {id} | apply {id} | discard {id}"
        ));
    }
}

/// Prints the warrant and what it compiles to; starts nothing and stores nothing.
async fn dry_run(
    context: &Context,
    runner: &Runner,
    task: &TaskSpec,
    (laws, bound, setup): (&crate::policies::Laws, &[crate::bound::BoundSecret], Option<PlannedSetup>),
) -> anyhow::Result<ExitCode> {
    let run = RunId::new(context.clock.as_ref(), context.entropy.as_ref());
    let id = TaskId::new(context.clock.as_ref(), context.entropy.as_ref());
    let models = crate::models::grants(context, task).await?;
    let mut warrant = warrant_of(context, task, bound, (id, run), (models, &laws.push, &laws.walls))?;
    warrant.setup = setup.as_ref().map(|setup| laws.without_denied(setup.grant.clone()));
    let mut read = context.store.read(context.scope()).await?;
    let warrant = crate::under::seen(&mut read, task, warrant, context.clock.wall_ms()).await?;
    drop(read);
    let setup = match &setup {
        Some(setup) => Some(would_be_done(context, runner, task, setup).await?),
        None => None,
    };
    let invocation = engine(task.engine).invocation(&engine_request(task, warrant.kind))?;
    let rules = SandboxRules {
        identity: RunIdentity::acquire(runner.identities())?,
        workspace: Workspace::Empty,
        grants: runner.grants().to_vec(),
        read_only_mounts: Vec::new(),
        home_folders: Vec::new(),
        env: invocation.env,
        argv: invocation.argv.into_iter().map(Into::into).collect(),
        stdio: StdioPolicy::PIPED_OUTPUT,
        agent: engine(task.engine).is_agent(),
    };
    let plan = runner.sandbox().plan(&compile_spec(&warrant, rules))?;
    let list = |items: Vec<String>| if items.is_empty() { "nothing".to_owned() } else { items.join(", ") };
    let broker = json!({
        "read": list(warrant.repositories.iter().map(|grant| format!("{} at {}", grant.name, grant.base)).collect()),
        "base_branch": base_branch(task),
        "push": warrant.push_grant().map_or_else(
            || "nothing".to_owned(),
            |grant| format!("{} of {}, fast-forward only, on top of the base", grant.reference, grant.repository)
        ),
        "paths": { "write": warrant.paths.write, "protected": warrant.paths.protected, "fixtures": warrant.paths.fixtures },
        "push_bounds": {
            "bytes": warrant.limits.push_bytes, "objects": warrant.limits.push_objects, "files": warrant.limits.push_files
        },
        "requests": list(crate::bound::rules(&warrant)),
        "secrets": list(warrant.secrets.iter().map(|one| format!("{} at {}{}", one.name, one.host, one.path)).collect()),
        "hosts": list(warrant.egress.iter().map(ToString::to_string).collect()),
        "models": list(warrant.models.iter().map(|grant| format!("{}/{}", grant.provider, grant.model)).collect()),
        "refused": "everything else",
    });
    if context.output.json {
        context
            .output
            .object(&json!({ "warrant": warrant, "sandbox": plan, "broker": broker, "setup": setup }));
        return Ok(ExitCode::SUCCESS);
    }
    let output = &context.output;
    output.line(&output.tone(Tone::Bold, "The warrant"));
    output.line(&serde_json::to_string_pretty(&warrant)?);
    output.line("");
    output.line(&output.tone(Tone::Bold, "The sandbox it compiles to"));
    output.raw(&plan.to_string());
    output.line("");
    output.line(&output.tone(Tone::Bold, "What the broker lets through"));
    for (key, value) in broker.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        output.line(&format!("  {key:<12} {text}"));
    }
    if let Some(setup) = setup {
        output.line("");
        output.line(&output.tone(Tone::Bold, "The set-up before it"));
        for (key, value) in setup.as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            output.line(&format!("  {key:<12} {text}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the set-up of a run would be.
async fn would_be_done(
    context: &Context,
    runner: &Runner,
    task: &TaskSpec,
    setup: &PlannedSetup,
) -> anyhow::Result<serde_json::Value> {
    if task.setup == SetupChoice::Skip {
        return Ok(json!({ "left_out": "--no-setup" }));
    }
    let redactor = tipstaff_seal::redact::Redactor::new();
    let outlook = runner.setup_outlook(context.scope().org(), task, &setup.job, &redactor).await?;
    let plan = &setup.job.plan;
    let fresh = task.setup == SetupChoice::Fresh;
    Ok(json!({
        "script": plan.script.as_ref().map(|script| format!("{} ({})", tipstaff_runner::SETUP_SCRIPT, script.id)),
        "hosts": setup.grant.egress, "timeout": span(u64::try_from(plan.table.timeout.as_millis())?),
        "copied": outlook.copied, "missing": outlook.missing,
        "inputs": plan.inputs.iter().map(|(path, _)| String::from_utf8_lossy(path)).collect::<Vec<_>>(),
        "key": outlook.key,
        "cached": outlook.cached.filter(|_| !fresh).map(|entry| json!({
            "made_at": entry.made_at, "duration_ms": entry.duration_ms, "entries": entry.entries, "bytes": entry.bytes,
        })),
    }))
}

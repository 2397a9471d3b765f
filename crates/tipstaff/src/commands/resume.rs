//! `tipstaff runs resume`: a paused run goes on; a run that has ended is continued by a new one, under a new warrant.

use super::run::{Going, go};
use crate::begin::source_from;
use crate::cli::ResumeArgs;
use crate::commands::runs::find;
use crate::commands::steer::{from_input, unpause};
use crate::context::{Context, git, try_sandbox};
use crate::exit::Problem;
use crate::kept;
use crate::tui;
use std::process::ExitCode;
use tipstaff_engine::engine;
use tipstaff_model::run::Resumed;
use tipstaff_model::{AgentEvent, EventKind, PrivacyClass, RunState, TaskSpec};
use tipstaff_runner::engine_request;
use tipstaff_store::{OrgRead, Run, Task};

/// Events that are read at once.
const PAGE: u32 = 500;
/// What the agent is told when the person says nothing.
const GO_ON: &str = "Go on with the task where you stopped.";

/// Carries out `tipstaff runs resume`.
pub(crate) async fn resume(context: &Context, arguments: &ResumeArgs) -> anyhow::Result<ExitCode> {
    let (run, task) = find(context, &arguments.choice()).await?;
    if !run.state.is_final() {
        if arguments.begins_anew() {
            let short = run.id.short();
            let why = format!(
                "run {short} is {}: only a run that has ended is continued by a new one. Without a text and options \
                 `tipstaff runs resume {short}` lets a paused run go on; `tipstaff runs say {short} TEXT` tells it something",
                run.state
            );
            return Err(Problem::usage("session-not-resumable", why));
        }
        return unpause(context, &run).await;
    }
    let screen = tui::wanted(context, arguments.screen.chosen())?;
    let session = {
        let mut read = context.store.read(context.scope()).await?;
        session_of(context, &mut read, (&run, &task)).await?
    };
    let text = match arguments.text.as_deref() {
        None => GO_ON.to_owned(),
        Some("-") => from_input()?,
        Some(text) => text.to_owned(),
    };
    let mut spec = task.spec.clone();
    spec.prompt = Some(match what_is_lost(context, &run, &spec) {
        Some(note) => format!("{note}\n\n{text}"),
        None => text,
    });
    spec.resumes = Some(Resumed { run: run.id, session });
    spec.budget_micro_usd = arguments.budget.map_or(spec.budget_micro_usd, |budget| budget.micro());
    spec.timeout_ms = arguments.timeout.unwrap_or(spec.timeout_ms);
    spec.privacy = super::run::privacy_class(arguments.privacy.unwrap_or(spec.privacy))?;
    let request = engine_request(&spec, spec.role.template().kind);
    if arguments.attended {
        spec.attended = true;
        super::run::can_be_attended(spec.engine, &engine_request(&spec, spec.role.template().kind))?;
    } else {
        engine(spec.engine)
            .invocation(&request)
            .map_err(|error| Problem::usage(error.code(), error.to_string()))?;
    }

    let git = git(&context.env, &context.layout).await?;
    let trying = try_sandbox(&context.env, &context.layout)?;
    let preparing = async {
        let source = source_from(&spec.source)?;
        let mirror = context.mirrors(&git)?.open(&source).await?;
        mirror.pin(Some(spec.base_commit.as_str())).await?;
        Ok((source, mirror))
    };
    let (runner, (source, mirror)) = context.runner_while(&git, trying, preparing).await?;
    // Attended or not, as the earlier run was, or as the person says.
    let going = Going { screen, unattended: true, ..Going::default() };
    go(context, &runner, (spec, source, mirror), going).await
}

/// The agent's own id of the session of a run that has ended.
async fn session_of(
    context: &Context,
    read: &mut OrgRead,
    (run, task): (&Run, &Task),
) -> anyhow::Result<String> {
    let (spec, short) = (&task.spec, run.id.short());
    let not = |why: String| {
        let what = format!("the session of run {short} can't be continued: {why}");
        Err(Problem::usage("session-not-resumable", what))
    };
    let start_anew = "begin a new run; `tipstaff runs apply` brings its change into the repository first";
    if engine(spec.engine).session_folders().is_empty() {
        return not(format!("the engine {} keeps none that it can go on with; {start_anew}", spec.engine));
    }
    if spec.privacy != PrivacyClass::Org {
        return not(format!("it was of the class {}, of which no text is kept; {start_anew}", spec.privacy));
    }
    if !kept::is_there(context, read, run.id).await? {
        let elsewhere = if run.host == context.host() {
            "the agent left none, it was too large, or it was erased since".to_owned()
        } else {
            format!("it ran on {}, and sessions stay on their machine", run.host)
        };
        return not(format!("none is kept here ({elsewhere}); {start_anew}"));
    }
    // It is the agent's own word, and is looked through before it is used.
    let told = last_told(read, run).await?;
    match told.or_else(|| spec.resumes.as_ref().map(|earlier| earlier.session.clone())) {
        Some(session) => Ok(session),
        None => not(format!("the agent ended before it said which one it is; {start_anew}")),
    }
}

/// The session that the agent named last.
async fn last_told(read: &mut OrgRead, run: &Run) -> anyhow::Result<Option<String>> {
    let (mut after, mut told) = (0, None);
    loop {
        let page = read.event_list(run.id, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(told) };
        after = last.seq;
        for event in page.into_iter().filter(|event| event.kind == EventKind::Agent) {
            if let Ok(AgentEvent::Started { session: Some(session), .. }) = serde_json::from_value(event.body)
            {
                told = Some(session);
            }
        }
    }
}

/// What the agent must know of its files, where they are not as it left them.
fn what_is_lost(context: &Context, run: &Run, spec: &TaskSpec) -> Option<&'static str> {
    if !spec.role.template().kind.may_write() {
        return None;
    }
    match kept::work_of(&context.layout, run) {
        None => Some(
            "The files are as they were when this session began: what you changed since is gone. Look before you rely on it.",
        ),
        Some(_) if run.state == RunState::Interrupted => Some(
            "This session was cut off: the files are as you pushed them last, and what you changed after that is gone. \
             Look before you rely on it.",
        ),
        Some(_) => None,
    }
}

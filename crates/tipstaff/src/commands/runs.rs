//! `tipstaff runs`: looking at runs, and deciding what becomes of their changes.

use crate::begin::source_from;
use crate::cli::{ReplayFormat, RunChoice, RunsCommand};
use crate::commands::asciicast;
use crate::commands::publish::{attest, publish};
use crate::commands::sessions;
use crate::context::{Context, git};
use crate::exit::Problem;
use crate::output::{Tone, span, time};
use crate::transcript::of_event;
use crate::watch::{Live, plain};
use anyhow::Context as _;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tipstaff_broker::{Color, Quarantine, Source};
use tipstaff_model::{AuditAction, AuditDraft, EventKind, RefName, RunId, RunState, TaskId, TaskSpec};
use tipstaff_runner::{Applied, Applier, ApplyError};
use tipstaff_seal::SignedWarrant;
use tipstaff_seal::scrub::{Colours, scrub_terminal};
use tipstaff_store::{
    Event, OrgRead, Publication, PublicationState, Run, RunDecision, RunFound, Task, TaskCancel, TaskFilter,
    Topic,
};

/// Events that are read at once.
const PAGE: u32 = 500;
/// Sub-runs that are shown at most.
const MOST_TOLD: u32 = 100;
/// How far back the end of an id is looked for.
const SEARCHED: u32 = 10_000;

/// Carries out `tipstaff runs …`.
pub(crate) async fn runs(command: RunsCommand, context: Context) -> anyhow::Result<ExitCode> {
    match command {
        RunsCommand::List { limit, state } => list(&context, limit, state).await,
        RunsCommand::Learn(arguments) => super::learn::learn(&arguments, &context).await,
        RunsCommand::Show { run, transcript: true } => {
            sessions::transcript(&context, &find(&context, &run).await?.0).await
        }
        RunsCommand::Show { run, transcript: false } => show(&context, &run).await,
        RunsCommand::Replay(arguments) => {
            let (run, task) = find(&context, &arguments.run).await?;
            match arguments.format {
                ReplayFormat::Terminal => sessions::replay(&context, &run, arguments.speed).await,
                ReplayFormat::Asciicast => asciicast::record(&context, (&run, &task), &arguments).await,
            }
        }
        RunsCommand::Export { run, format, output } => {
            let (run, task) = find(&context, &run).await?;
            sessions::export(&context, (&run, &task), format, output.as_deref()).await
        }
        RunsCommand::Diff { run, stat } => diff(&context, &run, stat).await,
        RunsCommand::Apply { run, repo, no_ff: _, branch } => apply(&context, &run, repo, branch).await,
        RunsCommand::Publish(arguments) => publish(&context, &arguments).await,
        RunsCommand::Discard(choice) => discard(&context, &choice).await,
        RunsCommand::Cancel(choice) => cancel(&context, &choice).await,
        RunsCommand::Say(arguments) => super::steer::say(&context, &arguments).await,
        RunsCommand::Interrupt(choice) => super::steer::interrupt(&context, &choice).await,
        RunsCommand::Pause(choice) => super::steer::pause(&context, &choice).await,
        RunsCommand::Resume(arguments) => super::resume::resume(&context, &arguments).await,
        RunsCommand::Logs { run, follow } => logs(&context, &run, follow).await,
    }
}

/// The run that a person means.
pub(crate) async fn find(context: &Context, choice: &RunChoice) -> anyhow::Result<(Run, Task)> {
    let mut read = context.store.read(context.scope()).await?;
    let unknown = |text: &str| {
        Problem::usage(
            "run-unknown",
            format!("there is no run '{}'; `tipstaff runs list` shows them", text.escape_debug()),
        )
    };
    let run = match choice.run.as_deref() {
        None => {
            let latest = read.run_list(None, 1).await?.into_iter().next();
            latest.ok_or_else(|| {
                Problem::usage("run-unknown", "there are no runs yet; `tipstaff run` makes one")
            })?
        }
        Some(text) => {
            let hex = text.len() >= 4 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
            if !hex {
                return Err(unknown(text));
            }
            let text = text.to_ascii_lowercase();
            match read.run_find(&text).await? {
                RunFound::One(id) => read.run_get(id).await?.ok_or_else(|| unknown(&text))?,
                RunFound::Several => {
                    return Err(Problem::usage(
                        "run-ambiguous",
                        format!("several runs end in {text}; give more of the id"),
                    ));
                }
                RunFound::None => {
                    let all = read.run_list(None, SEARCHED).await?;
                    let mut fitting = all.into_iter().filter(|run| run.id.to_string().ends_with(&text));
                    match (fitting.next(), fitting.next()) {
                        (Some(one), None) => one,
                        (Some(_), Some(_)) => {
                            return Err(Problem::usage(
                                "run-ambiguous",
                                format!("several runs end in {text}; give more of the id"),
                            ));
                        }
                        _ => return Err(unknown(&text)),
                    }
                }
            }
        }
    };
    let task = read.task_get(run.task).await?;
    let task = task.ok_or_else(|| Problem::failed("task-unknown", "the run's task is not in the store"))?;
    Ok((run, task))
}

async fn list(context: &Context, limit: u32, state: Option<RunState>) -> anyhow::Result<ExitCode> {
    let mut read = context.store.read(context.scope()).await?;
    let wanted = usize::try_from(limit)?;
    let (mut rows, mut before) = (Vec::new(), None);
    while rows.len() < wanted {
        let page = read.run_list(before, limit.clamp(50, 1000)).await?;
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        for run in page.into_iter().filter(|run| state.is_none_or(|state| run.state == state)) {
            let task = read.task_get(run.task).await?;
            rows.push((run, task));
        }
    }
    rows.truncate(wanted);
    let queued = match state {
        None | Some(RunState::Queued) => {
            read.task_list(TaskFilter { state: Some(RunState::Queued), before: None }, limit).await?
        }
        Some(_) => Vec::new(),
    };
    if context.output.json {
        for task in &queued {
            context.output.object(&json!({
                "run": null, "task": task.id, "state": task.state, "repository": task.spec.repository,
                "role": task.spec.role, "attempt": task.attempt, "queued_at": task.created_at, "error": task.last_error,
            }));
        }
        for (run, task) in &rows {
            let summary = read.run_summary(run.id).await?;
            let mut value = serde_json::to_value(&summary)?;
            if let Some(object) = value.as_object_mut() {
                let spec = task.as_ref().map(|task| &task.spec);
                object.extend([
                    ("repository".to_owned(), json!(spec.map(|spec| &spec.repository))),
                    ("role".to_owned(), json!(spec.map(|spec| spec.role))),
                    ("started_at".to_owned(), json!(run.started_at)),
                    ("attempt".to_owned(), json!(run.attempt)),
                    ("decision".to_owned(), json!(run.decision.map(decision_word))),
                ]);
            }
            context.output.object(&value);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() && queued.is_empty() {
        context.output.note("no runs; `tipstaff run -- CMD` makes one");
        return Ok(ExitCode::SUCCESS);
    }
    let waiting = queued.iter().map(|task| {
        vec![
            format!("({})", task.id.short()),
            time(task.created_at),
            "-".to_owned(),
            task.state.to_string(),
            task.spec.repository.to_string(),
            "-".to_owned(),
            String::new(),
            what_of(&task.spec),
        ]
    });
    let begun = rows.iter().map(|(run, task)| {
        let spec = task.as_ref().map(|task| &task.spec);
        let state = match run.exit_reason.filter(|_| run.state != RunState::Done) {
            Some(reason) => format!("{} ({reason})", run.state),
            None => run.state.to_string(),
        };
        vec![
            run.id.short(),
            time(run.started_at),
            run.ended_at
                .map_or_else(|| "-".to_owned(), |end| span(u64::try_from(end - run.started_at).unwrap_or(0))),
            state,
            spec.map(|spec| spec.repository.to_string()).unwrap_or_default(),
            format!("{} +{} -{}", run.files_changed, run.additions, run.deletions),
            run.decision.map(decision_word).unwrap_or_default().to_owned(),
            spec.map(what_of).unwrap_or_default(),
        ]
    });
    let cells: Vec<Vec<String>> = waiting.chain(begun).collect();
    context.output.table(
        &["RUN", "STARTED (UTC)", "TOOK", "STATE", "REPOSITORY", "CHANGE", "DECISION", "WHAT"],
        &cells,
    );
    Ok(ExitCode::SUCCESS)
}

/// What was asked for, short and on one line.
pub(crate) fn what_of(spec: &TaskSpec) -> String {
    let what = spec.prompt.clone().unwrap_or_else(|| spec.argv.join(" "));
    plain(&what).chars().map(|c| if c == '\n' { ' ' } else { c }).take(60).collect()
}

const fn decision_word(decision: RunDecision) -> &'static str {
    match decision {
        RunDecision::Applied => "applied",
        RunDecision::Published => "published",
        RunDecision::Discarded => "discarded",
    }
}

async fn show(context: &Context, choice: &RunChoice) -> anyhow::Result<ExitCode> {
    let (run, task) = find(context, choice).await?;
    let mut read = context.store.read(context.scope()).await?;
    let warrants = read.warrant_list_of_run(run.id).await?;
    let summary = read.run_summary(run.id).await?;
    let publications = read.publication_list_of_run(run.id).await?;
    let continued_by = read.run_list_resuming(run.id).await?;
    let session_kept = crate::kept::is_there(context, &mut read, run.id).await?;
    let refused = summary.iter().any(|summary| !summary.refusals.is_empty());
    let times = if refused { refusal_times(&mut read, run.id).await? } else { Vec::new() };
    let sub_runs = read.run_list_under(run.id, MOST_TOLD).await?;
    let used = if sub_runs.is_empty() { None } else { Some(read.run_used(run.id).await?) };
    drop(read);
    // A change whose time is over is gone, too.
    let there = run.decision != Some(RunDecision::Discarded) && context.layout.result(run.id).exists();
    let stat = match (&run.branch, run.commit.is_some() && there) {
        (Some(branch), true) => Some(quarantine(context, &run).await?.diffstat(branch).await?),
        _ => None,
    };
    let files = stat.as_ref().map(|stat| &stat.files);
    // The first is the one that the run began under; a narrowing puts the next in its place.
    let (signed, narrowed) = (warrants.first(), warrants.get(1..).unwrap_or_default());
    if context.output.json {
        let names: Option<Vec<String>> = files
            .map(|files| files.iter().map(|file| String::from_utf8_lossy(&file.path).into_owned()).collect());
        context.output.object(&json!({
            "summary": summary, "task": task.spec, "attempt": run.attempt, "decision": run.decision.map(decision_word),
            "started_at": run.started_at, "ended_at": run.ended_at, "host": run.host, "files": names,
            "warrant": signed.map(|one| &one.signed.warrant), "digest": signed.map(|one| one.signed.digest),
            "revoked_at": signed.and_then(|one| one.revoked_at),
            "published": publications.iter().map(publication_facts).collect::<Vec<_>>(),
            "refusal_times": times, "continues": task.spec.resumes.as_ref().map(|resumed| resumed.run),
            "continued_by": continued_by, "session_kept": session_kept,
            "used_with_sub_runs_micro_usd": used.map(tipstaff_model::MicroUsd::micro),
            "narrowed": narrowed.iter().map(|one| &one.signed.warrant).collect::<Vec<_>>(),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let output = &context.output;
    let line = |name: &str, value: &str| {
        output.line(&format!("{} {}", output.tone(Tone::Bold, &format!("{name:<12}")), plain(value)))
    };
    line("run", &run.id.to_string());
    let reason = run.exit_reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    line("state", &format!("{}{reason}", run.state));
    if let Some(error) = &run.error {
        line("error", error);
    }
    if let Some(resumed) = &task.spec.resumes {
        line("continues", &format!("run {}", resumed.run));
    }
    if session_kept && run.state.is_final() {
        line("session", &format!("kept: `tipstaff runs resume {}` goes on in it", run.id.short()));
    }
    for later in &continued_by {
        line("continued by", &format!("run {later}"));
    }
    // It is kept as it was typed, and may hold a secret of the person's.
    let what = task.spec.prompt.clone().unwrap_or_else(|| task.spec.argv.join(" "));
    line("what", &tipstaff_seal::redact::Redactor::new().redact(&what));
    line("repository", &format!("{} from {}", task.spec.repository, task.spec.source));
    line(
        "base",
        &format!(
            "{}{}",
            task.spec.base_commit,
            task.spec.base.as_ref().map(|base| format!(" ({base})")).unwrap_or_default()
        ),
    );
    line("privacy", &format!("{}: {}", task.spec.privacy, task.spec.privacy.in_words()));
    line("role", &format!("{}, engine {}", task.spec.role, task.spec.engine));
    if let Some(above) = task.spec.under {
        line("under", &format!("run {above}: it ends with it, and spends of its budget, too"));
    }
    for (place, one) in sub_runs.iter().enumerate() {
        let cost = tipstaff_model::MicroUsd::from_micro(one.cost_micro_usd);
        line(if place == 0 { "sub-runs" } else { "" }, &format!("{} {}, {cost}", one.id, one.state));
    }
    line("started", &format!("{} on {}, attempt {}", time(run.started_at), run.host, run.attempt));
    if let Some(end) = run.ended_at {
        line("took", &span(u64::try_from(end - run.started_at).unwrap_or(0)));
    }
    if let Some(setup) = summary.as_ref().and_then(|summary| summary.setup.as_ref()) {
        let made = format!("{} files, {}", setup.entries, crate::setup::bytes(setup.bytes));
        line("set-up", &format!("{}: {made}", crate::transcript::setup_in_words(setup)));
    }
    if let Some(code) = run.exit_code {
        line("exit code", &code.to_string());
    }
    line(
        "cost",
        &format!("{}, {} tokens", tipstaff_model::MicroUsd::from_micro(run.cost_micro_usd), run.tokens),
    );
    if let Some(used) = used {
        line("", &format!("{used} with its sub-runs and what is reserved"));
    }
    if let Some(one) = signed {
        let grant = &one.signed.warrant;
        line("warrant", &format!("{} {} sha256:{}", grant.id, grant.kind, one.signed.digest));
        line(
            "",
            &format!(
                "budget {}, {}, {} host{}, until {}",
                grant.budget,
                span(grant.limits.wall_ms),
                grant.egress.len(),
                if grant.egress.len() == 1 { "" } else { "s" },
                time(grant.expires_at)
            ),
        );
        for host in &grant.egress {
            line("", &format!("may reach {host}"));
        }
        for host in grant.setup.iter().flat_map(|setup| &setup.egress) {
            line("", &format!("its set-up may reach {host}"));
        }
        for less in narrowed {
            line("", &format!("narrowed to {} sha256:{}", less.signed.warrant.id, less.signed.digest));
        }
        if let Some(at) = one.revoked_at {
            line("", &format!("out of force since {}", time(at)));
        }
    }
    match (&run.branch, &run.commit) {
        (Some(branch), Some(commit)) => line("branch", &format!("{} at {commit}", branch.short())),
        _ => line("branch", "none: nothing was pushed"),
    }
    line("change", &format!("{} files, +{} -{}", run.files_changed, run.additions, run.deletions));
    for file in files.into_iter().flatten() {
        let name = tipstaff_seal::scrub::scrub_name(&file.path);
        let counts =
            file.lines.map_or_else(|| "binary".to_owned(), |(added, deleted)| format!("+{added} -{deleted}"));
        line("", &format!("{counts:>12}  {name}"));
    }
    for refusal in summary.iter().flat_map(|summary| &summary.refusals) {
        let met = times.iter().find(|one| one.rule == refusal.rule.id() && one.wanted == refusal.wanted);
        let met = met.map(|one| format!(" {} times", one.times)).unwrap_or_default();
        line("refused", &format!("{}{met} ({}): {}", refusal.wanted, refusal.rule, refusal.why));
        line("", &refusal.next_step());
    }
    for one in &publications {
        let said = match one.state {
            PublicationState::Done => format!(" {}", time(one.ended_at.unwrap_or(one.begun_at))),
            PublicationState::Begun => {
                ": begun, end unknown; `tipstaff runs publish` looks and goes on".to_owned()
            }
            PublicationState::Refused | PublicationState::Failed => {
                format!(": {}, {}", one.state.as_str(), one.error.as_deref().unwrap_or_default())
            }
        };
        let (branch, commit) = (one.reference.short(), one.commit.short());
        line("published", &format!("{branch} at {commit} to {}{said}", one.url));
    }
    if let Some(decision) = run.decision {
        line("decision", decision_word(decision));
    }
    Ok(ExitCode::SUCCESS)
}

fn publication_facts(one: &Publication) -> serde_json::Value {
    json!({
        "url": one.url, "branch": one.reference.short(), "commit": one.commit, "state": one.state.as_str(),
        "error": one.error, "begun_at": one.begun_at, "ended_at": one.ended_at,
    })
}

/// How often something was refused that was refused more than once.
#[derive(serde::Deserialize, serde::Serialize)]
pub(crate) struct RefusalTimes {
    pub(crate) rule: String,
    pub(crate) wanted: String,
    pub(crate) times: u64,
}

/// The counts that the brokers of a run left at their ends. A run has one broker for its command, and may have others.
pub(crate) async fn refusal_times(read: &mut OrgRead, run: RunId) -> anyhow::Result<Vec<RefusalTimes>> {
    let (mut after, mut all) = (0, Vec::new());
    loop {
        let page = read.event_list(run, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = last.seq;
        // An event without a count tells of one refusal.
        all.extend(
            page.into_iter()
                .filter(|event| event.kind == EventKind::Refusal)
                .filter_map(|event| serde_json::from_value::<RefusalTimes>(event.body).ok()),
        );
    }
}

/// The result of a run, which must be there and not be thrown away.
pub(crate) async fn quarantine(context: &Context, run: &Run) -> anyhow::Result<Quarantine> {
    if run.decision == Some(RunDecision::Discarded) {
        return Err(Problem::usage(
            "run-discarded",
            format!("the change of run {} was discarded", run.id.short()),
        ));
    }
    let place = context.layout.result(run.id);
    if !place.exists() {
        let swept = context.store.read(context.scope()).await?.run_swept_at(run.id).await?;
        let short = run.id.short();
        return Err(match swept {
            Some(at) => Problem::usage(
                "run-erased",
                format!(
                    "what run {short} said and changed was erased at {}, since its time was over (`tipstaff retention show`): begin a new run, or look for its branch where it was applied or published",
                    time(at)
                ),
            ),
            None if run.host != context.host() => Problem::usage(
                "result-elsewhere",
                format!("the result of run {short} lies on {}: ask for it there", run.host),
            ),
            None => Problem::failed(
                "result-missing",
                format!(
                    "the result of run {short} is gone from {}: begin a new run, or restore that folder from a backup",
                    place.display()
                ),
            ),
        });
    }
    let git = git(&context.env, &context.layout).await?;
    let opened = Quarantine::open(git, &place).await;
    opened.with_context(|| {
        format!("the result of run {} is not on this machine ({})", run.id.short(), run.host)
    })
}

/// The branch of a run that pushed something.
pub(crate) fn branch_of(run: &Run) -> anyhow::Result<&RefName> {
    match (&run.branch, &run.commit) {
        (Some(branch), Some(_)) => Ok(branch),
        _ => Err(Problem::usage(
            "run-without-change",
            format!("run {} changed nothing that was pushed", run.id.short()),
        )),
    }
}

async fn diff(context: &Context, choice: &RunChoice, stat: bool) -> anyhow::Result<ExitCode> {
    let (run, _) = find(context, choice).await?;
    if run.decision == Some(RunDecision::Discarded) {
        return Err(Problem::usage(
            "run-discarded",
            format!("the change of run {} was discarded", run.id.short()),
        ));
    }
    let Ok(branch) = branch_of(&run) else {
        if let Ok(patch) = std::fs::read(context.layout.refused_patch(run.id)) {
            context
                .output
                .warn("this change was refused; it is in no branch and can't be applied by tipstaff");
            write_patch(context, &patch);
        } else {
            context.output.note(&format!("run {} changed nothing", run.id.short()));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let quarantine = quarantine(context, &run).await?;
    if stat || context.output.json {
        let stat = quarantine.diffstat(branch).await?;
        if context.output.json {
            for file in &stat.files {
                context.output.object(&json!({
                    "path": String::from_utf8_lossy(&file.path),
                    "additions": file.lines.map(|(added, _)| added), "deletions": file.lines.map(|(_, deleted)| deleted),
                }));
            }
            return Ok(ExitCode::SUCCESS);
        }
        for file in &stat.files {
            let counts = file
                .lines
                .map_or_else(|| "binary".to_owned(), |(added, deleted)| format!("+{added} -{deleted}"));
            context.output.line(&format!("{counts:>12}  {}", tipstaff_seal::scrub::scrub_name(&file.path)));
        }
        context
            .output
            .line(&format!("{} files, +{} -{}", stat.files_changed, stat.additions, stat.deletions));
        return Ok(ExitCode::SUCCESS);
    }
    let colours = context.output.colours();
    let patch = quarantine.diff(branch, if colours { Color::Always } else { Color::Never }).await?;
    write_patch(context, &patch);
    Ok(ExitCode::SUCCESS)
}

/// A patch holds an agent's content: on a terminal it is made harmless; a pipe gets the bytes, so that it applies.
fn write_patch(context: &Context, patch: &[u8]) {
    let colours = context.output.colours();
    if colours || std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        let keep = if colours { Colours::Keep } else { Colours::Remove };
        context.output.raw(&scrub_terminal(patch, keep));
    } else {
        context.output.bytes(patch);
    }
}

async fn apply(
    context: &Context,
    choice: &RunChoice,
    repo: Option<PathBuf>,
    branch: Option<String>,
) -> anyhow::Result<ExitCode> {
    let (run, task) = find(context, choice).await?;
    if !run.state.is_final() {
        return Err(Problem::usage(
            "run-going-on",
            format!("run {} is {}; wait for its end", run.id.short(), run.state),
        ));
    }
    let quarantine = quarantine(context, &run).await?;
    let reference = branch_of(&run)?;
    let target = match &repo {
        Some(path) => crate::begin::source_of(path.as_os_str())?,
        None => source_from(&task.spec.source)?,
    };
    let Source::Local(local) = &target else {
        let text = "the run was made from a URL; name a clone of it with --repo PATH";
        return Err(Problem::usage("apply-needs-repository", text));
    };
    let leaving = attest(context, &run, &quarantine).await?;
    let tip = &leaving.attested.tip;
    let applier = Applier::new(git(&context.env, &context.layout).await?);
    let applied = match &branch {
        Some(name) => {
            let wanted = if name.is_empty() {
                reference.clone()
            } else {
                RefName::branch(name).map_err(|error| Problem::usage("branch-name", error.to_string()))?
            };
            applier.branch(&quarantine, tip, &target, &wanted).await
        }
        None => {
            let login = context.env.user.clone().unwrap_or_else(|| "person".to_owned());
            let person =
                applier.person(local, context.env.user_home.as_deref(), &login).await.map_err(told)?;
            let message = merge_message(&run, reference, &leaving.warrant);
            applier.merge(&quarantine, tip, &target, &person, &message).await
        }
    };
    let applied = applied.map_err(told)?;
    let mut tx = context.store.begin(context.scope()).await?;
    tx.run_decide(run.id, RunDecision::Applied).await?;
    let mut draft = leaving.told(AuditDraft::new(
        context.principal.actor(),
        AuditAction::RunApplied,
        format!("run:{}", run.id),
    ));
    let said = match &applied {
        Applied::Merged(commit) => {
            draft = draft.with("merge", commit);
            format!("merged into {} as {}", local.root.display(), commit.short())
        }
        Applied::Branch(branch) => {
            draft = draft.with("branch", branch);
            format!(
                "{} is now the branch {}; your working tree was not touched",
                run.id.short(),
                branch.short()
            )
        }
        Applied::AlreadyThere => "it was there already".to_owned(),
    };
    if applied != Applied::AlreadyThere {
        tx.audit_note(draft);
    }
    tx.commit().await?;
    context.pin_checkpoint().await?;
    if context.output.json {
        let (kind, what) = match &applied {
            Applied::Merged(commit) => ("merged", commit.to_string()),
            Applied::Branch(branch) => ("branch", branch.short().to_owned()),
            Applied::AlreadyThere => ("already_there", String::new()),
        };
        context.output.object(&json!({ "run": run.id, "applied": kind, "result": what }));
    } else {
        context.output.line(&said);
    }
    Ok(ExitCode::SUCCESS)
}

fn told(error: ApplyError) -> anyhow::Error {
    match error {
        ApplyError::Runner(error) => error.into(),
        other => Problem::failed(other.code(), other.to_string()),
    }
}

fn merge_message(run: &Run, reference: &RefName, warrant: &SignedWarrant) -> String {
    format!(
        "Merge branch '{}'\n\nTipstaff-Run: {}\nTipstaff-Warrant: sha256:{}",
        reference.short(),
        run.id,
        warrant.digest
    )
}

async fn discard(context: &Context, choice: &RunChoice) -> anyhow::Result<ExitCode> {
    let (run, _) = find(context, choice).await?;
    if !run.state.is_final() {
        let text = format!(
            "run {} is {}; end it first: `tipstaff runs cancel {}`",
            run.id.short(),
            run.state,
            run.id.short()
        );
        return Err(Problem::usage("run-going-on", text));
    }
    if run.decision == Some(RunDecision::Discarded) {
        return Err(Problem::usage(
            "run-discarded",
            format!("the change of run {} was discarded already", run.id.short()),
        ));
    }
    // First the decision, then the files: a crash in between leaves files that nobody reaches any more.
    let mut tx = context.store.begin(context.scope()).await?;
    tx.run_decide(run.id, RunDecision::Discarded).await?;
    tx.audit_note(AuditDraft::new(
        context.principal.actor(),
        AuditAction::RunDiscarded,
        format!("run:{}", run.id),
    ));
    tx.commit().await?;
    let path = context.layout.result(run.id);
    remove(&path).with_context(|| format!("{} can't be removed", path.display()))?;
    let patch = context.layout.refused_patch(run.id);
    remove(&patch).with_context(|| format!("{} can't be removed", patch.display()))?;
    context.pin_checkpoint().await?;
    if context.output.json {
        context.output.object(&json!({ "run": run.id, "discarded": true }));
    } else {
        context.output.line(&format!("the change of run {} is gone", run.id.short()));
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(path: &Path) -> std::io::Result<()> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    tipstaff_sandbox::remove_tree(path)
}

async fn cancel(context: &Context, choice: &RunChoice) -> anyhow::Result<ExitCode> {
    let (task, name, ended) = match queued_task(context, choice).await? {
        Some(task) => (task, format!("task:{task}"), None),
        None => {
            let (run, _) = find(context, choice).await?;
            (run.task, format!("run:{}", run.id), run.state.is_final().then_some((run.id, run.state)))
        }
    };
    let answer = task_cancel(context, task, &name).await?;
    if let Some((run, state)) = ended
        && !matches!(answer, Some(TaskCancel::Cancelled | TaskCancel::Requested))
    {
        return Err(Problem::usage("run-ended", format!("run {} has ended: {state}", run.short())));
    }
    let begun = !matches!(answer, Some(TaskCancel::Cancelled));
    if context.output.json {
        context.output.object(&json!({ "task": task, "cancel_requested": begun, "cancelled": !begun }));
    } else if begun {
        context.output.line("it ends within seconds; its work so far is kept");
    } else {
        context.output.line("it had not begun, and won't");
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks for the end of a task; what became of the wish. `name` is what the audit log calls it. One that has ended stays as
/// it is, and nothing is recorded.
pub(crate) async fn task_cancel(
    context: &Context,
    task: TaskId,
    name: &str,
) -> anyhow::Result<Option<TaskCancel>> {
    let mut tx = context.store.begin(context.scope()).await?;
    let answer = tx.task_cancel(task).await?;
    if matches!(answer, Some(TaskCancel::Cancelled | TaskCancel::Requested)) {
        tx.audit_note(AuditDraft::new(context.principal.actor(), AuditAction::RunCancelRequested, name));
        tx.commit().await?;
        context.pin_checkpoint().await?;
    }
    Ok(answer)
}

/// The queued task that a person means by the end of its id.
async fn queued_task(context: &Context, choice: &RunChoice) -> anyhow::Result<Option<TaskId>> {
    let Some(text) = choice.run.as_deref().filter(|text| text.len() >= 4) else { return Ok(None) };
    let text = text.to_ascii_lowercase();
    let mut read = context.store.read(context.scope()).await?;
    let queued = read.task_list(TaskFilter { state: Some(RunState::Queued), before: None }, SEARCHED).await?;
    let mut fitting =
        queued.into_iter().filter(|task| task.id.to_string().ends_with(&text)).map(|task| task.id);
    Ok(fitting.next().filter(|_| fitting.next().is_none()))
}

async fn logs(context: &Context, choice: &RunChoice, follow: bool) -> anyhow::Result<ExitCode> {
    let (run, _) = find(context, choice).await?;
    lines(context, &run, follow).await
}

/// The events of a run as lines, until its end when it is followed.
pub(crate) async fn lines(context: &Context, run: &Run, follow: bool) -> anyhow::Result<ExitCode> {
    let mut news = context.store.subscribe(Topic::Run);
    let live = Live::new(context.output);
    let mut after = 0;
    loop {
        let mut read = context.store.read(context.scope()).await?;
        let ended = read.run_get(run.id).await?.is_none_or(|run| run.state.is_final());
        loop {
            let page = read.event_list(run.id, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for event in &page {
                write_event(context, &live, event);
            }
        }
        drop(read);
        if ended || !follow {
            return Ok(ExitCode::SUCCESS);
        }
        news.wait(500).await;
    }
}

fn write_event(context: &Context, live: &Live, event: &Event) {
    if context.output.json {
        context
            .output
            .object(&json!({ "seq": event.seq, "at": event.at, "kind": event.kind, "body": event.body }));
        return;
    }
    live.piece(of_event(event));
}

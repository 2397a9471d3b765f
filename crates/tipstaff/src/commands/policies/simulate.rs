//! `tipstaff policy simulate`: the tool calls of past runs, judged by what is in force and by a candidate.
//!
//! Promises: calls are read with the function that conversations use, so what is simulated is what would be asked; a run
//! whose text was not kept counts as unknown, never as harmless. Nothing is changed.

use super::judge::{PLACE, tone_of};
use super::{of_repository, one_line, scrubbed};
use crate::cli::SimulateArgs;
use crate::context::Context;
use crate::output::Tone;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;
use tipstaff_engine::engine;
use tipstaff_model::policy::Circumstances;
use tipstaff_model::risk::assess;
use tipstaff_model::{
    Action, ActionKind, AgentEvent, Decision, EngineKind, EventKind, Policies, Policy, PolicyOrigin,
    PrivacyClass, Rule, RunId, TaskSpec, Warrant,
};
use tipstaff_store::OrgRead;

/// Events that are read at once.
const PAGE: u32 = 500;
/// Changed actions of one run that are told.
const MOST_TOLD: usize = 200;

/// How many actions came out how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    allowed: u64,
    asked: u64,
    denied: u64,
}

impl Counts {
    fn add(&mut self, decision: Decision) {
        match decision {
            Decision::Allow => self.allowed += 1,
            Decision::Ask => self.asked += 1,
            Decision::Deny => self.denied += 1,
        }
    }

    fn join(&mut self, other: Self) {
        self.allowed += other.allowed;
        self.asked += other.asked;
        self.denied += other.denied;
    }

    fn text(self) -> String {
        format!("{}/{}/{}", self.allowed, self.asked, self.denied)
    }

    fn object(self) -> Value {
        json!({ "allowed": self.allowed, "asked": self.asked, "denied": self.denied })
    }
}

/// An action that comes out differently.
struct Changed {
    action: Action,
    now: Decision,
    then: Decision,
    because: Vec<String>,
}

/// What is found of one run.
struct Simulated {
    run: RunId,
    agent: String,
    /// `None` where the run's text was not kept.
    found: Option<Found>,
}

#[derive(Default)]
struct Found {
    now: Counts,
    then: Counts,
    changed: Vec<Changed>,
    /// Rules that decide about anything under the candidate, and how often.
    rules: BTreeMap<String, u64>,
}

/// The layers without and with the candidate.
struct Sides {
    now: Policies,
    then: Policies,
}

/// Carries out `tipstaff policy simulate`.
pub(crate) async fn simulate(arguments: &SimulateArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let candidate =
        arguments.subject.policy.as_ref().map(|path| crate::policies::of_file(path)).transpose()?;
    let candidate = candidate.map(|(policy, _)| policy);
    let own = match &arguments.subject.repo {
        Some(repo) => of_repository(context, repo).await?.0,
        None => Policy::default(),
    };
    let only = arguments.subject.repo.as_ref().map(|repo| crate::begin::source_of(repo)).transpose()?;
    let only = only.as_ref().map(crate::begin::source_text);
    let now_ms = context.clock.wall_ms();
    let since = now_ms.saturating_sub(i64::try_from(arguments.since).unwrap_or(i64::MAX));
    let mut runs = crate::commands::learn::runs_since(context, since, arguments.agent.as_deref()).await?;
    runs.sort_unstable();
    let mut all = Vec::new();
    let mut read = context.store.read(context.scope()).await?;
    for run in runs {
        let Some(row) = read.run_get(run).await? else { continue };
        let Some(task) = read.task_get(row.task).await? else { continue };
        let spec = task.spec;
        if only.as_ref().is_some_and(|source| *source != spec.source) {
            continue;
        }
        let Some(warrant) = read.warrant_of_run(run).await?.map(|found| found.signed.warrant) else {
            continue;
        };
        let mut now = crate::policies::layers(&mut read, &spec, now_ms).await?;
        now.add(PolicyOrigin::Repository, own.clone());
        let sides = Sides {
            then: with(&now, candidate.as_ref(), arguments.replace_org).at(now_ms),
            now: now.at(now_ms),
        };
        let found = of_run(&mut read, run, &spec, &warrant, &sides).await?;
        let agent = spec.agent.unwrap_or_else(|| spec.engine.to_string());
        all.push(Simulated { run, agent, found });
    }
    drop(read);
    if context.output.json {
        object(context, &all);
    } else {
        page(context, &all, candidate.is_some());
    }
    Ok(ExitCode::SUCCESS)
}

/// The layers with the candidate, which stands for a policy of the org.
fn with(now: &Policies, candidate: Option<&Policy>, replaces: bool) -> Policies {
    let mut then = now.clone();
    if let Some(candidate) = candidate {
        if replaces {
            then.0.retain(|layer| layer.origin != PolicyOrigin::Org);
        }
        then.add(PolicyOrigin::Candidate, candidate.clone());
    }
    then
}

/// The actions of one run; `None` where what it did was not kept.
async fn of_run(
    read: &mut OrgRead,
    run: RunId,
    spec: &TaskSpec,
    warrant: &Warrant,
    sides: &Sides,
) -> anyhow::Result<Option<Found>> {
    if spec.privacy == PrivacyClass::Meta {
        return Ok(None);
    }
    let mut found = Found::default();
    let (mut after, mut has_events) = (0, false);
    loop {
        let page = read.event_list(run, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        for event in page.into_iter().filter(|event| event.kind == EventKind::Agent) {
            match serde_json::from_value::<AgentEvent>(event.body) {
                Ok(AgentEvent::ToolCall { input: Value::Null, .. }) => return Ok(None),
                Ok(AgentEvent::ToolCall { name, input, .. }) => {
                    has_events = true;
                    let action = engine(spec.engine).action_of(&name, &input);
                    found.judge(action, spec, warrant, sides);
                }
                Ok(AgentEvent::Text { .. } | AgentEvent::Started { .. } | AgentEvent::Finished { .. }) => {
                    has_events = true;
                }
                _ => {}
            }
        }
    }
    for refusal in read.refusal_list(run).await?.into_iter().map(|one| one.refusal) {
        if matches!(refusal.rule, Rule::HostNotGranted | Rule::PortNotGranted) {
            found.judge(asked_host(&refusal.wanted), spec, warrant, sides);
        }
    }
    let is_told = spec.engine == EngineKind::Command || has_events;
    Ok(is_told.then_some(found))
}

/// A host that the broker refused, as an action.
fn asked_host(wanted: &str) -> Action {
    Action {
        kind: ActionKind::Fetch,
        tool: "network".to_owned(),
        title: wanted.to_owned(),
        commands: Vec::new(),
        paths: Vec::new(),
        hosts: vec![wanted.to_owned()],
        input: Value::Null,
    }
}

impl Found {
    fn judge(&mut self, action: Action, spec: &TaskSpec, warrant: &Warrant, sides: &Sides) {
        let risk = assess(&action, warrant, PLACE).risk;
        let about = Circumstances { role: spec.role, risk, place: PLACE };
        let now = sides.now.judge(&action, about);
        let then = sides.then.judge(&action, about);
        self.now.add(now.decision);
        self.then.add(then.decision);
        for rule in &then.because {
            *self.rules.entry(rule.clone()).or_default() += 1;
        }
        if now.decision != then.decision && self.changed.len() < MOST_TOLD {
            let because = if then.because.is_empty() { now.because } else { then.because };
            self.changed.push(Changed { action, now: now.decision, then: then.decision, because });
        }
    }
}

fn total(all: &[Simulated]) -> (Counts, Counts, u64, BTreeMap<&str, u64>) {
    let (mut now, mut then, mut unknown) = (Counts::default(), Counts::default(), 0);
    let mut rules: BTreeMap<&str, u64> = BTreeMap::new();
    for one in all {
        match &one.found {
            Some(found) => {
                now.join(found.now);
                then.join(found.then);
                for (rule, times) in &found.rules {
                    *rules.entry(rule).or_default() += times;
                }
            }
            None => unknown += 1,
        }
    }
    (now, then, unknown, rules)
}

fn object(context: &Context, all: &[Simulated]) {
    let (now, then, unknown, rules) = total(all);
    let runs: Vec<Value> = all
        .iter()
        .map(|one| {
            let Some(found) = &one.found else {
                return json!({ "run": one.run, "agent": one.agent, "known": false });
            };
            let changed: Vec<Value> = found
                .changed
                .iter()
                .map(|one| {
                    json!({
                        "tool": one.action.tool, "title": one.action.title, "commands": one.action.commands,
                        "paths": one.action.paths, "hosts": one.action.hosts,
                        "now": one.now, "then": one.then, "because": one.because
                    })
                })
                .collect();
            json!({
                "run": one.run, "agent": one.agent, "known": true, "now": found.now.object(),
                "then": found.then.object(), "changed": changed, "rules": found.rules
            })
        })
        .collect();
    context.output.object(&json!({
        "runs": runs, "now": now.object(), "then": then.object(), "unknown": unknown, "rules": rules
    }));
}

fn page(context: &Context, all: &[Simulated], has_candidate: bool) {
    let output = &context.output;
    if all.is_empty() {
        output.note("no run began within that time");
        return;
    }
    let (now, then, unknown, rules) = total(all);
    let row = |run: String, agent: &str, now: Counts, then: Counts| {
        let actions = now.allowed + now.asked + now.denied;
        let mut row = vec![run, one_line(agent, 24), actions.to_string(), now.text()];
        if has_candidate {
            row.push(then.text());
        }
        row
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for one in all {
        match &one.found {
            Some(found) => rows.push(row(one.run.short(), &one.agent, found.now, found.then)),
            None => {
                let mut unknown =
                    vec![one.run.short(), one_line(&one.agent, 24), "?".to_owned(), "unknown".to_owned()];
                if has_candidate {
                    unknown.push("unknown".to_owned());
                }
                rows.push(unknown);
            }
        }
    }
    rows.push(row("all".to_owned(), "", now, then));
    let head: &[&str] = match has_candidate {
        true => &["RUN", "AGENT", "ACTIONS", "NOW", "THEN"],
        false => &["RUN", "AGENT", "ACTIONS", "NOW"],
    };
    output.table(head, &rows);
    output.line(&output.tone(Tone::Dim, "let through / asked / denied"));
    if unknown > 0 {
        output.line(&format!("{unknown} unknown: what these runs did was not kept"));
    }
    let changed = || {
        all.iter().flat_map(|one| {
            one.found.iter().flat_map(move |found| found.changed.iter().map(move |change| (one.run, change)))
        })
    };
    if changed().next().is_some() {
        output.line("");
        output.line(&output.tone(Tone::Bold, "Would come out differently"));
    }
    for (run, one) in changed().take(MOST_TOLD) {
        let what = if one.action.title.is_empty() { &one.action.tool } else { &one.action.title };
        let decisions = format!("{} -> {}", one.now, output.tone(tone_of(one.then), one.then.as_str()));
        output.line(&format!(
            "  {}  {decisions}  {}: {}",
            run.short(),
            one_line(&one.action.tool, 32),
            one_line(what, 80)
        ));
        for why in &one.because {
            output.line(&output.tone(Tone::Dim, &format!("            {}", scrubbed(why))));
        }
    }
    if !rules.is_empty() {
        output.line("");
        output.line(&output.tone(Tone::Bold, "Rules that ask or deny"));
        for (rule, times) in &rules {
            output.line(&format!("  {times:>5}  {}", scrubbed(rule)));
        }
    }
}

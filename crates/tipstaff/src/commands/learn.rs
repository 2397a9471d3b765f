//! `tipstaff runs learn`, and what `tipstaff run --learn` says at the end: a proposal for review. It grants nothing.

use crate::cli::{LearnArgs, RunChoice};
use crate::commands::runs::refusal_times;
use crate::context::Context;
use crate::exit::Problem;
use crate::learn::{Grant, Refused, Wildcards, Wish, times, toml, wishes};
use crate::output::Tone;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use tipstaff_model::RunId;
use tipstaff_model::warrant::HostChoice;

/// Runs that are read at once.
const PAGE: u32 = 500;
/// Runs that are looked through at most.
const MOST_RUNS: usize = 10_000;

/// Carries out `tipstaff runs learn`.
pub(crate) async fn learn(arguments: &LearnArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let mut runs = Vec::new();
    match (arguments.since, arguments.runs.as_slice()) {
        (Some(since), _) => {
            let since = context.clock.wall_ms().saturating_sub(i64::try_from(since).unwrap_or(i64::MAX));
            runs = runs_since(context, since, arguments.agent.as_deref()).await?;
        }
        (None, []) => runs.push(super::runs::find(context, &RunChoice { run: None }).await?.0.id),
        (None, chosen) => {
            for text in chosen {
                let choice = RunChoice { run: Some(text.clone()) };
                runs.push(super::runs::find(context, &choice).await?.0.id);
            }
        }
    }
    runs.sort_unstable();
    runs.dedup();
    let wildcards = if arguments.wildcards { Wildcards::Propose } else { Wildcards::Never };
    let found = wishes(&refusals(context, &runs).await?, wildcards);
    let output = &context.output;
    if output.json {
        output.object(&object(&runs, &found));
    } else if arguments.toml {
        output.raw(&toml(&found));
    } else if found.is_empty() {
        output.note(&format!(
            "nothing was refused in {} run{}",
            runs.len(),
            if runs.len() == 1 { "" } else { "s" }
        ));
    } else {
        page(&found, |tone, text| output.line(&output.tone(tone, text)));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn runs_since(
    context: &Context,
    since: i64,
    agent: Option<&str>,
) -> anyhow::Result<Vec<RunId>> {
    let mut read = context.store.read(context.scope()).await?;
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = read.run_list(before, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        before = Some(last.id);
        let over = last.started_at < since;
        for run in page.into_iter().filter(|run| run.started_at >= since) {
            if let Some(agent) = agent {
                let task = read.task_get(run.task).await?;
                if task.and_then(|task| task.spec.agent).as_deref() != Some(agent) {
                    continue;
                }
            }
            found.push(run.id);
        }
        // Ids of runs are in the order of their beginning, so nothing older follows.
        if over || found.len() >= MOST_RUNS {
            return Ok(found);
        }
    }
}

/// What runs were refused, and how often.
async fn refusals(context: &Context, runs: &[RunId]) -> anyhow::Result<Vec<Refused>> {
    let mut read = context.store.read(context.scope()).await?;
    let mut found = Vec::new();
    for run in runs {
        let list = read.refusal_list(*run).await?;
        let counts = if list.is_empty() { Vec::new() } else { refusal_times(&mut read, *run).await? };
        found.extend(list.into_iter().map(|one| {
            let refusal = one.refusal;
            let met =
                counts.iter().filter(|one| one.rule == refusal.rule.id() && one.wanted == refusal.wanted);
            let times = met.map(|one| one.times).sum::<u64>().max(1);
            Refused { run: *run, refusal, times }
        }));
    }
    Ok(found)
}

/// The proposal as one object.
fn object(runs: &[RunId], found: &[Wish]) -> Value {
    let (proposed, not): (Vec<&Wish>, Vec<&Wish>) = found.iter().partition(|one| one.grant.is_some());
    let options: Vec<String> = found.iter().filter_map(|one| one.grant.as_ref()).map(Grant::typed).collect();
    json!({ "runs": runs, "proposed": proposed, "not_proposed": not, "options": options })
}

/// The proposal for people.
fn page(found: &[Wish], mut line: impl FnMut(Tone, &str)) {
    let (proposed, not): (Vec<&Wish>, Vec<&Wish>) = found.iter().partition(|one| one.grant.is_some());
    let mut part = |title: &str, list: &[&Wish]| {
        if list.is_empty() {
            return;
        }
        line(Tone::Bold, title);
        for one in list {
            line(Tone::Bold, &format!("  {}", one.what));
            line(Tone::Dim, &format!("    wanted {} ({}); {}", times(one), one.rule, one.risk));
            for odd in &one.odd {
                line(Tone::Warn, &format!("    odd: {odd}"));
            }
            if let Some(grant) = &one.grant {
                line(Tone::Good, &format!("    {}", grant.typed()));
            }
        }
    };
    part("Could be granted to the next run, if you want it:", &proposed);
    part("Not proposed:", &not);
}

/// Says at the end of a run what it was refused.
pub(crate) async fn tell(context: &Context, run: RunId) -> anyhow::Result<()> {
    let found = wishes(&refusals(context, &[run]).await?, Wildcards::Never);
    let output = &context.output;
    if output.json {
        output.object(&json!({ "learned": object(&[run], &found) }));
    } else if found.is_empty() {
        output.note("the run was refused nothing: there is nothing to learn");
    } else {
        page(&found, |tone, text| output.err(&format!("{}\n", output.tone_err(tone, text))));
    }
    Ok(())
}

/// A file of grants that a person reviewed.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AllowFile {
    hosts: Vec<String>,
}

/// The hosts that files of grants name. A file inside the repository of the run is refused: an agent could have written it.
pub(crate) fn hosts_of_files(
    files: &[std::path::PathBuf],
    source: Option<&Path>,
) -> anyhow::Result<Vec<HostChoice>> {
    let mut hosts = Vec::new();
    for file in files {
        let shown = file.display();
        let unusable = |why: String| Problem::usage("allow-file", format!("{shown} can't be used: {why}"));
        let place = std::fs::canonicalize(file).map_err(|error| unusable(error.to_string()))?;
        if source
            .and_then(|root| std::fs::canonicalize(root).ok())
            .is_some_and(|root| place.starts_with(root))
        {
            return Err(Problem::refused(
                "allow-file-in-repository",
                format!(
                    "{shown} lies in the repository of the run, where an agent's change could grant itself more: keep it elsewhere"
                ),
            ));
        }
        let text = std::fs::read_to_string(&place).map_err(|error| unusable(error.to_string()))?;
        let read: AllowFile = toml::from_str(&text).map_err(|error| {
            unusable(format!("line {}: {}", tipstaff_runner::wrong_line(&text, &error), error.message()))
        })?;
        for host in read.hosts {
            hosts.push(
                host.parse()
                    .map_err(|error: tipstaff_model::warrant::PatternError| unusable(error.to_string()))?,
            );
        }
    }
    Ok(hosts)
}

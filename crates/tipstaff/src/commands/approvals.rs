//! `tipstaff approvals`: what agents ask a person, and the person's answers.
//!
//! Promises: what is shown is the action byte for byte as far as it was not redacted, with everything that a terminal would
//! hide made visible; an answer is for that action and no other.

use crate::cli::{AllowArgs, ApprovalsCommand, RunChoice};
use crate::commands::runs;
use crate::context::Context;
use crate::exit::Problem;
use crate::output::{Tone, span, time};
use crate::watch::plain;
use serde_json::{Value, json};
use std::process::ExitCode;
use tipstaff_model::{Approval, ApprovalAnswer, ApprovalId, ApprovalScope, ApprovalState, Risk};
use tipstaff_store::{ApprovalAnswered, ApprovalFilter, ApprovalFound, StoreError};

/// Digits of a digest that people compare.
const SHORT_DIGEST: usize = 12;

/// Carries out `tipstaff approvals …`.
pub(crate) async fn approvals(command: ApprovalsCommand, context: Context) -> anyhow::Result<ExitCode> {
    match command {
        ApprovalsCommand::List { run, all, limit } => list(&context, run, all, limit).await,
        ApprovalsCommand::Show { approval } => show(&context, &approval).await,
        ApprovalsCommand::Allow(arguments) => allow(&context, arguments).await,
        ApprovalsCommand::End { approval } => end(&context, &approval).await,
        ApprovalsCommand::Deny { approval, reason, digest } => {
            let answer = ApprovalAnswer { allow: false, scope: ApprovalScope::Once, until: None, reason };
            answered(&context, &approval, digest.as_deref(), answer).await
        }
    }
}

fn unknown(text: &str) -> anyhow::Error {
    Problem::usage(
        "approval-unknown",
        format!("there is no approval '{}'; `tipstaff approvals list --all` shows them", text.escape_debug()),
    )
}

async fn find(context: &Context, text: &str) -> anyhow::Result<Approval> {
    let hex = (4..=36).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if !hex {
        return Err(unknown(text));
    }
    let mut read = context.store.read(context.scope()).await?;
    match read.approval_find(&text.to_ascii_lowercase()).await? {
        ApprovalFound::One(id) => read.approval_get(id).await?.ok_or_else(|| unknown(text)),
        ApprovalFound::None => Err(unknown(text)),
        ApprovalFound::Several => Err(Problem::usage(
            "approval-ambiguous",
            format!("several approvals end in {text}; give more of the id"),
        )),
    }
}

/// A question as it stands now.
fn as_of(mut asked: Approval, now: i64) -> Approval {
    asked.state = asked.state_at(now);
    asked
}

/// What is left of a question's time, in milliseconds.
fn left(asked: &Approval, now: i64) -> Option<u64> {
    (asked.state == ApprovalState::Pending)
        .then(|| u64::try_from(asked.request.expires_at.saturating_sub(now)).unwrap_or(0))
}

fn facts(asked: &Approval, now: i64) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(asked)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("short".to_owned(), json!(asked.request.id.short()));
        object.insert("left_ms".to_owned(), json!(left(asked, now)));
    }
    Ok(value)
}

async fn list(context: &Context, run: Option<String>, all: bool, limit: u32) -> anyhow::Result<ExitCode> {
    let run = match run {
        Some(text) => Some(runs::find(context, &RunChoice { run: Some(text) }).await?.0.id),
        None => None,
    };
    let state = (!all).then_some(ApprovalState::Pending);
    let mut read = context.store.read(context.scope()).await?;
    let found = read.approval_list(ApprovalFilter { run, state, before: None }, limit).await?;
    let now = context.clock.wall_ms();
    let found: Vec<Approval> = found
        .into_iter()
        .map(|asked| as_of(asked, now))
        // Its worker may not have noted yet that its time is over.
        .filter(|asked| all || asked.state == ApprovalState::Pending)
        .collect();
    if context.output.json {
        for asked in &found {
            context.output.object(&facts(asked, now)?);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if found.is_empty() {
        context.output.note(if all { "nothing was asked" } else { "nothing waits for an answer" });
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|asked| {
            let request = &asked.request;
            let state = match left(asked, now) {
                Some(left) => format!("{} left", span(left)),
                None => asked.state.to_string(),
            };
            vec![
                request.id.short(),
                asked.run.short(),
                time(request.asked_at),
                state,
                request.risk.to_string(),
                one_line(&request.action.tool, 24),
                one_line(&request.action.title, 60),
            ]
        })
        .collect();
    context.output.table(&["APPROVAL", "RUN", "ASKED (UTC)", "STATE", "RISK", "TOOL", "WHAT"], &rows);
    Ok(ExitCode::SUCCESS)
}

fn one_line(text: &str, most: usize) -> String {
    let line = tipstaff_seal::scrub::scrub_name(text.as_bytes());
    if line.chars().count() <= most {
        return line;
    }
    line.chars().take(most).chain(" …".chars()).collect()
}

/// Text with everything visible that a terminal would act on or hide.
pub(crate) fn exact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    plain(&out)
}

const fn tone_of(risk: Risk) -> Tone {
    match risk {
        Risk::Low | Risk::Medium => Tone::Bold,
        Risk::High => Tone::Warn,
        Risk::Critical => Tone::Bad,
    }
}

async fn show(context: &Context, text: &str) -> anyhow::Result<ExitCode> {
    let now = context.clock.wall_ms();
    let asked = as_of(find(context, text).await?, now);
    if context.output.json {
        context.output.object(&facts(&asked, now)?);
        return Ok(ExitCode::SUCCESS);
    }
    let output = &context.output;
    let line = |name: &str, value: &str| {
        let mut name = name;
        for part in value.lines() {
            output.line(&format!("{} {part}", output.tone(Tone::Bold, &format!("{name:<10}"))));
            name = "";
        }
    };
    let (request, action) = (&asked.request, &asked.request.action);
    line("approval", &request.id.to_string());
    line("run", &asked.run.to_string());
    match left(&asked, now) {
        Some(left) => line("state", &format!("pending, {} left until it is denied", span(left))),
        None => line("state", asked.state.as_str()),
    }
    line("risk", &output.tone(tone_of(request.risk), request.risk.as_str()));
    for why in &request.because {
        line("", &exact(why));
    }
    line("tool", &format!("{} ({})", exact(&action.tool), action.kind));
    line("what", &exact(&action.title));
    for (name, list) in [("command", &action.commands), ("path", &action.paths), ("host", &action.hosts)] {
        for one in list {
            line(name, &exact(one));
        }
    }
    if !action.input.is_null() {
        line("arguments", &exact(&serde_json::to_string_pretty(&action.input)?));
    }
    line("digest", &format!("{} (sha256:{})", short_digest(&asked), request.digest));
    line("warrant", &request.warrant.to_string());
    line("asked", &format!("{}, until {}", time(request.asked_at), time(request.expires_at)));
    if let (Some(answer), Some(by), Some(at)) = (&asked.answer, &asked.answered_by, asked.answered_at) {
        let word = if answer.allow { "yes" } else { "no" };
        line("answer", &format!("{word}{} by {} at {}", reach(answer), exact(by), time(at)));
        if let Some(reason) = &answer.reason {
            line("", &exact(reason));
        }
    }
    if asked.state == ApprovalState::Pending {
        let id = request.id.short();
        output.note(&format!("`tipstaff approvals allow {id}` or `tipstaff approvals deny {id} --reason …`"));
    }
    Ok(ExitCode::SUCCESS)
}

fn short_digest(asked: &Approval) -> String {
    asked.request.digest.as_str().chars().take(SHORT_DIGEST).collect()
}

/// How far a yes reaches, for people.
pub(crate) fn reach(answer: &ApprovalAnswer) -> String {
    let far = match &answer.scope {
        ApprovalScope::Once => return String::new(),
        ApprovalScope::Run => "for the run".to_owned(),
        ApprovalScope::Paths { patterns } => {
            let patterns: Vec<&str> = patterns.iter().map(|pattern| pattern.as_str()).collect();
            format!("for changes to {}", plain(&patterns.join(" ")))
        }
    };
    match answer.until {
        Some(until) => format!(", {far} until {}", time(until)),
        None => format!(", {far}"),
    }
}

async fn allow(context: &Context, arguments: AllowArgs) -> anyhow::Result<ExitCode> {
    let now = context.clock.wall_ms();
    let until = arguments.until.map(|moment| moment.ms(now));
    if until.is_some_and(|until| until <= now) {
        return Err(Problem::usage("approval-scope", "the time of --until is over already"));
    }
    let scope = match (arguments.for_run, arguments.path) {
        (true, _) => ApprovalScope::Run,
        (false, patterns) if patterns.is_empty() => ApprovalScope::Once,
        (false, patterns) => ApprovalScope::Paths { patterns },
    };
    let answer = ApprovalAnswer { allow: true, scope, until, reason: arguments.reason };
    answered(context, &arguments.approval, arguments.digest.as_deref(), answer).await
}

async fn answered(
    context: &Context,
    text: &str,
    digest: Option<&str>,
    answer: ApprovalAnswer,
) -> anyhow::Result<ExitCode> {
    let found = find(context, text).await?;
    let request = &found.request;
    if let Some(wanted) = digest.filter(|wanted| !request.digest.as_str().starts_with(wanted)) {
        return Err(Problem::refused(
            "approval-digest",
            format!(
                "the action of approval {} has the digest {}, not {wanted}: nothing was answered; look at it with `tipstaff approvals show {}`",
                request.id.short(),
                short_digest(&found),
                request.id.short()
            ),
        ));
    }
    let (asked, already) = give(context, request.id, &answer).await?;
    if context.output.json {
        let mut value = facts(&asked, context.clock.wall_ms())?;
        if let Some(object) = value.as_object_mut() {
            object.insert("already".to_owned(), json!(already));
        }
        context.output.object(&value);
        return Ok(ExitCode::SUCCESS);
    }
    let word = if answer.allow { "allowed" } else { "denied" };
    let before = if already { " already" } else { "" };
    context.output.line(&format!(
        "approval {} is {word}{before}{}: {}: {} ({} risk, digest {})",
        asked.request.id.short(),
        reach(&answer),
        one_line(&asked.request.action.tool, 24),
        one_line(&asked.request.action.title, 60),
        asked.request.risk,
        short_digest(&asked)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Gives an answer: the question as it stands then, and whether it was answered so before.
pub(crate) async fn give(
    context: &Context,
    id: ApprovalId,
    answer: &ApprovalAnswer,
) -> anyhow::Result<(Approval, bool)> {
    let found = context.store.read(context.scope()).await?.approval_get(id).await?;
    let found = found.ok_or_else(|| unknown(&id.to_string()))?;
    answer.check(found.request.risk).map_err(|error| Problem::usage(error.code(), error.to_string()))?;
    let mut tx = context.store.begin(context.scope()).await?;
    let told = tx.approval_answer(context.principal.member, id, answer).await;
    let told = told.map_err(forbidden)?;
    tx.commit().await?;
    context.pin_checkpoint().await?;
    match told {
        None => Err(unknown(&id.to_string())),
        Some(ApprovalAnswered::Now(asked)) => Ok((asked, false)),
        Some(ApprovalAnswered::Already(asked)) => Ok((asked, true)),
        Some(ApprovalAnswered::Expired(asked)) => Err(Problem::failed(
            "approval-expired",
            format!(
                "the time of approval {} was over at {}, which means no: nothing was changed; the agent may ask again",
                asked.request.id.short(),
                time(asked.request.expires_at)
            ),
        )),
        Some(ApprovalAnswered::Decided(asked)) => Err(too_late(&asked)),
    }
}

async fn end(context: &Context, text: &str) -> anyhow::Result<ExitCode> {
    let id = find(context, text).await?.request.id;
    let mut tx = context.store.begin(context.scope()).await?;
    let told = tx.approval_shorten(context.principal.member, id).await.map_err(forbidden)?;
    tx.commit().await?;
    context.pin_checkpoint().await?;
    let Some((asked, reached)) = told else { return Err(unknown(text)) };
    if !reached {
        return Err(Problem::usage(
            "approval-scope",
            format!("approval {} covers nothing further: there is nothing to end", id.short()),
        ));
    }
    if context.output.json {
        context.output.object(&facts(&asked, context.clock.wall_ms())?);
    } else {
        let text =
            format!("approval {} covers nothing further; what is like it is asked about again", id.short());
        context.output.line(&text);
    }
    Ok(ExitCode::SUCCESS)
}

fn forbidden(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::ApprovalForbidden { .. } => Problem::refused(error.code(), error.to_string()),
        other => other.into(),
    }
}

/// Somebody or something was faster.
fn too_late(asked: &Approval) -> anyhow::Error {
    let id = asked.request.id.short();
    let at = asked.answered_at.map(time).unwrap_or_default();
    let by = plain(asked.answered_by.as_deref().unwrap_or("nobody"));
    match asked.state {
        ApprovalState::Withdrawn => Problem::failed(
            "approval-withdrawn",
            format!(
                "approval {id} was taken back: the agent no longer waits, its run ended, or its warrant changed"
            ),
        ),
        _ => {
            let yes = asked.answer.as_ref().is_some_and(|answer| answer.allow);
            let used = if asked.state == ApprovalState::Used { ", and the agent was told" } else { "" };
            let reach = asked.answer.as_ref().map(reach).unwrap_or_default();
            Problem::failed(
                "approval-decided",
                format!(
                    "approval {id} was {} by {by} at {at}{reach}{used}: the first answer counts, nothing was changed",
                    if yes { "allowed" } else { "denied" }
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_hide_is_shown() {
        assert_eq!(exact("rm -rf x\u{1b}[8m; true\u{8}\r\n\tok"), "rm -rf x\\u{1b}[8m; true\\u{8}\\r\n\\tok");
        assert_eq!(exact("a\u{202e}b"), "a<U+202E>b");
        assert_eq!(one_line("a\nb\u{1b}[2Jc", 60), "a␊bc");
        assert_eq!(one_line(&"x".repeat(9), 4), "xxxx …");
    }
}

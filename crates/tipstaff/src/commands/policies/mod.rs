//! `tipstaff policy set | show | unset`, and what its other commands have in common.

pub(crate) mod cases;
pub(crate) mod check;
pub(crate) mod judge;
pub(crate) mod simulate;

use crate::begin::{source_of, source_text};
use crate::cli::{HolderArgs, SetArgs, SubjectArgs};
use crate::context::Context;
use crate::exit::Problem;
use crate::output::{Tone, time};
use serde_json::json;
use std::ffi::OsStr;
use std::process::ExitCode;
use tipstaff_model::{AuditAction, AuditDraft, Policies, Policy, PolicyOrigin};
use tipstaff_runner::Project;

fn holder_text(holder: &HolderArgs) -> String {
    holder.project.as_ref().map_or_else(|| "the org".to_owned(), |name| format!("project {name}"))
}

fn subject(holder: &HolderArgs) -> String {
    holder.project.as_ref().map_or_else(|| "policy:org".to_owned(), |name| format!("policy:project/{name}"))
}

/// Carries out `tipstaff policy set`.
pub(crate) async fn set(arguments: &SetArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let (policy, text) = crate::policies::of_file(&arguments.file)?;
    if arguments.file.file_name().is_some_and(|name| name == tipstaff_runner::PROJECT_FILE) {
        let text = "a tipstaff.toml is a repository's own: put its table [policy] into a file of its own";
        return Err(Problem::usage("policy-file", text));
    }
    let holder = &arguments.holder;
    let digest = tipstaff_model::policy::digest(&text);
    let mut tx = context.store.begin(context.scope()).await?;
    if let Some(name) = &holder.project {
        super::projects::find(&mut tx, name).await?;
    }
    tx.policy_set(holder.project.as_deref(), &text, &context.principal.actor()).await?;
    tx.audit_note(
        AuditDraft::new(context.principal.actor(), AuditAction::PolicySet, subject(holder))
            .with("step", "set")
            .with("rules", policy.rules.len())
            .with("sha256", &digest),
    );
    tx.commit().await?;
    context.pin_checkpoint().await?;
    let remarks = policy.remarks();
    if context.output.json {
        context.output.object(&json!({
            "holder": holder_text(holder), "rules": policy.rules.len(), "sha256": digest, "remarks": remarks
        }));
        return Ok(ExitCode::SUCCESS);
    }
    for one in &remarks {
        context.output.warn(&format!("rule {}: {}", one.rule, one.text));
    }
    let count = policy.rules.len();
    context.output.line(&format!(
        "the policy of {} is set: {count} rule{}; runs that begin from now on are under it",
        holder_text(holder),
        if count == 1 { "" } else { "s" }
    ));
    Ok(ExitCode::SUCCESS)
}

/// Carries out `tipstaff policy unset`.
pub(crate) async fn unset(holder: &HolderArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let mut tx = context.store.begin(context.scope()).await?;
    if !tx.policy_remove(holder.project.as_deref()).await? {
        let text =
            format!("{} has no policy; `tipstaff policy show` shows what there is", holder_text(holder));
        return Err(Problem::usage("policy-unset", text));
    }
    tx.audit_note(
        AuditDraft::new(context.principal.actor(), AuditAction::PolicySet, subject(holder))
            .with("step", "unset"),
    );
    tx.commit().await?;
    context.pin_checkpoint().await?;
    if context.output.json {
        context.output.object(&json!({ "holder": holder_text(holder), "rules": null }));
    } else {
        context.output.line(&format!("{} has no policy any more", holder_text(holder)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Carries out `tipstaff policy show`.
pub(crate) async fn show(context: &Context) -> anyhow::Result<ExitCode> {
    let all = context.store.read(context.scope()).await?.policy_list().await?;
    let output = &context.output;
    if output.json {
        let list: Vec<_> = all
            .iter()
            .map(|one| json!({ "project": one.project, "set_by": one.set_by, "set_at": one.set_at, "text": one.text }))
            .collect();
        output.object(&json!({ "policies": list }));
        return Ok(ExitCode::SUCCESS);
    }
    if all.is_empty() {
        output.note("neither the org nor a project has a policy; `tipstaff policy set --org FILE` sets one");
    }
    for one in &all {
        let whose =
            one.project.as_ref().map_or_else(|| "the org".to_owned(), |name| format!("project {name}"));
        let head = format!("# {whose}, set by {} at {}", one.set_by, time(one.set_at));
        output.line(&output.tone(Tone::Bold, &head));
        output.line(&scrubbed(&one.text));
    }
    Ok(ExitCode::SUCCESS)
}

/// A text that may hold anything: harmless for a terminal.
pub(super) fn scrubbed(text: &str) -> String {
    tipstaff_seal::scrub::scrub_terminal(text.as_bytes(), tipstaff_seal::scrub::Colours::Remove)
}

/// One line of such a text, at most `most` characters.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let text: String = scrubbed(text).chars().map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

/// The policy of a repository at HEAD, and the project that it belongs to.
pub(super) async fn of_repository(
    context: &Context,
    repo: &OsStr,
) -> anyhow::Result<(Policy, Option<String>)> {
    let git = crate::context::git(&context.env, &context.layout).await?;
    let source = source_of(repo)?;
    let mirror = context.mirrors(&git)?.open(&source).await?;
    let pinned = mirror.pin(None).await?;
    let policy = Project::of_commit(&mirror, &pinned.commit).await?.policy;
    let mut read = context.store.read(context.scope()).await?;
    let project = match read.repository_by_source(&source_text(&source)).await? {
        Some(known) => read.project_of(known.id).await?.map(|project| project.name),
        None => None,
    };
    Ok((policy, project))
}

/// All layers of a subject: what is in force, and the candidate besides.
pub(super) async fn layers_of(context: &Context, subject: &SubjectArgs) -> anyhow::Result<Policies> {
    let (own, project) = match &subject.repo {
        Some(repo) => of_repository(context, repo).await?,
        None => (Policy::default(), None),
    };
    let mut read = context.store.read(context.scope()).await?;
    let mut layers = crate::policies::stored(&mut read, project.as_deref()).await?;
    layers.add(PolicyOrigin::Repository, own);
    if let Some(path) = &subject.policy {
        layers.add(PolicyOrigin::Candidate, crate::policies::of_file(path)?.0);
    }
    Ok(layers.at(context.clock.wall_ms()))
}

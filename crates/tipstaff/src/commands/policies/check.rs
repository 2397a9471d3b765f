//! `tipstaff policy check`: rules in words, and what is odd about them.

use super::{of_repository, scrubbed};
use crate::cli::CheckArgs;
use crate::context::Context;
use crate::output::Tone;
use serde_json::{Value, json};
use std::process::ExitCode;
use tipstaff_model::{Decision, Policies, Policy, PolicyLayer, PolicyOrigin};

/// Carries out `tipstaff policy check`.
pub(crate) async fn check(arguments: &CheckArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let mut layers = Policies::default();
    match (&arguments.file, &arguments.repo) {
        (Some(path), _) => {
            let name = path.display().to_string();
            layers.0.push(PolicyLayer {
                origin: PolicyOrigin::Project(name),
                policy: crate::policies::of_file(path)?.0,
            });
        }
        (None, Some(repo)) => {
            let (policy, project) = of_repository(context, repo).await?;
            let mut read = context.store.read(context.scope()).await?;
            layers = crate::policies::stored(&mut read, project.as_deref()).await?;
            layers.add(PolicyOrigin::Repository, policy);
        }
        (None, None) => {
            let mut read = context.store.read(context.scope()).await?;
            layers = crate::policies::stored(&mut read, None).await?;
            for one in read.policy_list().await?.into_iter().filter_map(|one| one.project) {
                let of_project = crate::policies::stored(&mut read, Some(&one)).await?;
                layers.0.extend(of_project.0.into_iter().filter(|layer| layer.origin != PolicyOrigin::Org));
            }
        }
    }
    let layers = layers.at(context.clock.wall_ms());
    let has_remarks = layers.0.iter().any(|layer| !layer.policy.remarks().is_empty());
    let output = &context.output;
    if output.json {
        let all: Vec<Value> =
            layers.0.iter().map(|layer| object(&title(layer, arguments), &layer.policy)).collect();
        output.object(&json!({ "policies": all }));
    } else if layers.0.is_empty() {
        output.note("no policy is in force here: everything is let through, and the warrant is the wall");
    } else {
        for layer in &layers.0 {
            page(context, &title(layer, arguments), &layer.policy);
        }
    }
    Ok(ExitCode::from(if has_remarks && arguments.strict { 3 } else { 0 }))
}

fn title(layer: &PolicyLayer, arguments: &CheckArgs) -> String {
    match (&layer.origin, &arguments.file) {
        (PolicyOrigin::Project(name), Some(_)) => name.clone(),
        (origin, _) => format!("policy of {origin}"),
    }
}

fn object(title: &str, policy: &Policy) -> Value {
    let remarks = policy.remarks();
    let rules: Vec<Value> = policy
        .rules
        .iter()
        .enumerate()
        .map(|(index, rule)| {
            let odd: Vec<&str> =
                remarks.iter().filter(|one| one.rule == index + 1).map(|one| one.text.as_str()).collect();
            json!({
                "rule": index + 1, "decision": rule.decision, "words": rule.to_string(),
                "wall": rule.wall(), "remarks": odd
            })
        })
        .collect();
    json!({ "policy": title, "default": policy.default, "rules": rules })
}

fn page(context: &Context, title: &str, policy: &Policy) {
    let output = &context.output;
    output.line(&output.tone(Tone::Bold, &scrubbed(title)));
    let remarks = policy.remarks();
    for (index, rule) in policy.rules.iter().enumerate() {
        let tone = match rule.decision {
            Decision::Allow => Tone::Good,
            Decision::Ask => Tone::Warn,
            Decision::Deny => Tone::Bad,
        };
        output.line(&format!("  {:>3}  {}", index + 1, output.tone(tone, &scrubbed(&rule.to_string()))));
        if let Some(wall) = rule.wall() {
            output.line(&format!("       {}", output.tone(Tone::Dim, wall)));
        }
        for odd in remarks.iter().filter(|one| one.rule == index + 1) {
            output.line(&format!(
                "       {}",
                output.tone(Tone::Warn, &format!("odd: {}", scrubbed(&odd.text)))
            ));
        }
    }
    output.line(match policy.default {
        Some(Decision::Allow) => "       what no rule names is let through",
        Some(Decision::Ask) => "       what no rule names is asked about",
        Some(Decision::Deny) => "       what no rule names is denied",
        None => "       about what no rule names it has no opinion",
    });
}

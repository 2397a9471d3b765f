//! `tipstaff policy test`: a file of cases, judged and compared.

use super::judge::{Described, judged, plain_warrant};
use super::{layers_of, one_line, scrubbed};
use crate::cli::{SubjectArgs, TestArgs};
use crate::context::Context;
use crate::exit::Problem;
use crate::output::Tone;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use tipstaff_model::policy::LARGEST_POLICY;
use tipstaff_model::{ActionKind, AgentRole, Decision, PolicyOrigin};

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    /// The policy that is tested, beside this file.
    policy: Option<PathBuf>,
    #[serde(default)]
    test: Vec<Case>,
}

/// One text, or several.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Texts {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn list(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::One(text) => vec![text.clone()],
            Self::Many(texts) => texts.clone(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    tool: Option<String>,
    kind: Option<ActionKind>,
    #[serde(default)]
    command: Texts,
    #[serde(default)]
    path: Texts,
    #[serde(default)]
    host: Texts,
    role: Option<AgentRole>,
    expect: Decision,
    note: Option<String>,
}

/// Carries out `tipstaff policy test`.
pub(crate) async fn test(arguments: &TestArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let cases = read(arguments)?;
    let mut layers = layers_of(context, &arguments.subject).await?;
    if let (Some(name), None) = (&cases.policy, &arguments.subject.policy) {
        // A file that names its policy is about that one, whatever else is in force here.
        let path = arguments.file.parent().unwrap_or_else(|| std::path::Path::new("")).join(name);
        layers = match arguments.subject.repo {
            Some(_) => layers,
            None => layers_of(context, &SubjectArgs::default())
                .await
                .map(|_| tipstaff_model::Policies::default())?,
        };
        layers.add(PolicyOrigin::Org, crate::policies::of_file(&path)?.0);
        layers = layers.at(context.clock.wall_ms());
    }
    let mut failed = 0_usize;
    let mut results: Vec<Value> = Vec::new();
    let output = &context.output;
    for (index, case) in cases.test.iter().enumerate() {
        let (commands, paths, hosts) = (case.command.list(), case.path.list(), case.host.list());
        let described = Described {
            tool: case.tool.as_deref(),
            kind: case.kind,
            commands: &commands,
            paths: &paths,
            hosts: &hosts,
        };
        let action = described.action();
        let role = case.role.unwrap_or(AgentRole::Builder);
        let found = judged(&layers, &action, role, &plain_warrant(context, role, Vec::new())?).judgement;
        let passed = found.decision == case.expect;
        failed += usize::from(!passed);
        if output.json {
            results.push(json!({
                "test": index + 1, "passed": passed, "expected": case.expect, "decision": found.decision,
                "because": found.because, "action": action,
            }));
        } else if !passed {
            let what = if action.title.is_empty() { action.tool.clone() } else { action.title.clone() };
            output.line(&format!("test {}: {} as {role}", index + 1, one_line(&what, 100)));
            if let Some(note) = &case.note {
                output.line(&format!("    {}", one_line(note, 100)));
            }
            output.line(&output.tone(Tone::Bad, &format!("  - {}", case.expect)));
            output.line(&output.tone(Tone::Good, &format!("  + {}", found.decision)));
            for why in &found.because {
                output.line(&format!("    {}", scrubbed(why)));
            }
        }
    }
    let count = cases.test.len();
    if output.json {
        output.object(&json!({ "tests": results, "failed": failed }));
    } else if failed == 0 {
        output.line(&format!("{count} case{} as expected", if count == 1 { "" } else { "s" }));
    } else {
        output.line(&format!("{failed} of {count} came out differently (- expected, + found)"));
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn read(arguments: &TestArgs) -> anyhow::Result<Cases> {
    let shown = arguments.file.display();
    let wrong = |why: String| Problem::usage("policy-tests", format!("{shown} holds no cases: {why}"));
    let size = std::fs::metadata(&arguments.file).map_err(|error| wrong(error.to_string()))?.len();
    if size > u64::try_from(LARGEST_POLICY).unwrap_or(u64::MAX) {
        return Err(wrong(format!("it is larger than {} KiB", LARGEST_POLICY >> 10)));
    }
    let text = std::fs::read_to_string(&arguments.file).map_err(|error| wrong(error.to_string()))?;
    let cases: Cases = toml::from_str(&text).map_err(|error| {
        wrong(format!(
            "line {}: {}",
            tipstaff_runner::wrong_line(&text, &error),
            one_line(error.message(), 300)
        ))
    })?;
    if cases.test.is_empty() {
        return Err(wrong("write one [[test]] at least".to_owned()));
    }
    Ok(cases)
}

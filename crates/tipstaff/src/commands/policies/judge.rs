//! `tipstaff policy judge`: one action under the policies, and what it risks.

use super::{layers_of, scrubbed};
use crate::cli::JudgeArgs;
use crate::context::Context;
use crate::output::Tone;
use serde_json::{Value, json};
use std::process::ExitCode;
use tipstaff_engine::engine;
use tipstaff_model::policy::Circumstances;
use tipstaff_model::risk::{Assessment, Place, assess};
use tipstaff_model::warrant::{HostPattern, IssueRequest, RepositoryGrant};
use tipstaff_model::{
    Action, ActionKind, AgentRole, Decision, EngineKind, Judgement, Policies, RunId, TaskId, Warrant,
    WarrantId,
};

/// Where sandboxes show the workspace.
pub(super) const PLACE: Place<'static> = Place { workspace: tipstaff_sandbox::INSIDE_WORK };

/// A judged action.
pub(super) struct Judged {
    pub(super) judgement: Judgement,
    pub(super) risk: Assessment,
}

/// An action as a person describes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Described<'a> {
    pub(super) tool: Option<&'a str>,
    pub(super) kind: Option<ActionKind>,
    pub(super) commands: &'a [String],
    pub(super) paths: &'a [String],
    pub(super) hosts: &'a [String],
}

impl Described<'_> {
    pub(super) fn action(&self) -> Action {
        let usual = if !self.commands.is_empty() {
            "Bash"
        } else if !self.paths.is_empty() {
            "Edit"
        } else if !self.hosts.is_empty() {
            "WebFetch"
        } else {
            "unknown"
        };
        let tool = self.tool.unwrap_or(usual);
        let known = engine(EngineKind::ClaudeCode).action_of(tool, &Value::Null).kind;
        Action {
            kind: self.kind.unwrap_or(known),
            tool: tool.to_owned(),
            title: self
                .commands
                .first()
                .or(self.paths.first())
                .or(self.hosts.first())
                .cloned()
                .unwrap_or_default(),
            commands: self.commands.to_vec(),
            paths: self.paths.to_vec(),
            hosts: self.hosts.to_vec(),
            input: Value::Null,
        }
    }
}

/// Judges an action under a warrant.
pub(super) fn judged(layers: &Policies, action: &Action, role: AgentRole, warrant: &Warrant) -> Judged {
    let risk = assess(action, warrant, PLACE);
    let about = Circumstances { role, risk: risk.risk, place: PLACE };
    Judged { judgement: layers.judge(action, about), risk }
}

/// The warrant of a role without any option: what risks are reckoned from where there is no run.
pub(super) fn plain_warrant(
    context: &Context,
    role: AgentRole,
    egress: Vec<HostPattern>,
) -> anyhow::Result<Warrant> {
    let (clock, entropy) = (context.clock.as_ref(), context.entropy.as_ref());
    let request = IssueRequest {
        ids: (
            WarrantId::new(clock, entropy),
            context.scope().org(),
            TaskId::new(clock, entropy),
            RunId::new(clock, entropy),
        ),
        subject: context.principal.actor(),
        role,
        repository: RepositoryGrant { name: "local/none".parse()?, base: "0".repeat(40).parse()? },
        budget: None,
        wall_ms: None,
        egress,
        hosts: Vec::new(),
        secrets: Vec::new(),
        models: Vec::new(),
        submodules: false,
        lfs: false,
        now_ms: clock.wall_ms(),
    };
    Ok(Warrant::issue(request)?)
}

pub(super) const fn tone_of(decision: Decision) -> Tone {
    match decision {
        Decision::Allow => Tone::Good,
        Decision::Ask => Tone::Warn,
        Decision::Deny => Tone::Bad,
    }
}

/// Carries out `tipstaff policy judge`.
pub(crate) async fn judge(arguments: &JudgeArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let layers = layers_of(context, &arguments.subject).await?;
    let described = Described {
        tool: arguments.tool.as_deref(),
        kind: arguments.kind,
        commands: &arguments.command,
        paths: &arguments.path,
        hosts: &arguments.host,
    };
    let action = described.action();
    let warrant = plain_warrant(context, arguments.role, Vec::new())?;
    let found = judged(&layers, &action, arguments.role, &warrant);
    let walls = layers.walls(arguments.role);
    let output = &context.output;
    if output.json {
        output.object(&json!({
            "action": action, "decision": found.judgement.decision, "because": found.judgement.because,
            "risk": found.risk.risk, "risk_because": found.risk.because, "layers": layers.0.len(),
        }));
    } else {
        let decision = found.judgement.decision;
        output.line(&output.tone(tone_of(decision), decision.as_str()));
        if found.judgement.because.is_empty() {
            output.line(match layers.0.is_empty() {
                true => "     no policy is in force here",
                false => "     no rule asks or denies",
            });
        }
        for why in &found.judgement.because {
            output.line(&format!("     {}", scrubbed(why)));
        }
        output.line(&format!("risk {}", found.risk.risk));
        for why in &found.risk.because {
            output.line(&format!("     {}", scrubbed(why)));
        }
        let inner = action.paths.iter().filter_map(|path| PLACE.within(path));
        for path in inner {
            if let Some(wall) =
                walls.paths.iter().find(|wall| wall.what.matches_ignoring_case(path.as_bytes()))
            {
                output.line(&format!(
                    "     no push may change {}: {}",
                    scrubbed(&path),
                    scrubbed(&wall.because)
                ));
            }
        }
    }
    Ok(ExitCode::from(match found.judgement.decision {
        Decision::Allow => 0,
        Decision::Ask => 6,
        Decision::Deny => 3,
    }))
}

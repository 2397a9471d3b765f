//! `tipstaff agents`: named profiles.

use crate::cli::AgentsCommand;
use crate::context::Context;
use crate::exit::Problem;
use serde_json::json;
use std::process::ExitCode;
use tipstaff_engine::{BUILT_IN, engine};
use tipstaff_model::agent::agent_name_is_valid;
use tipstaff_model::{Agent, AgentId, AgentRole, AuditAction, AuditDraft, EngineKind};
use tipstaff_store::AgentDraft;

/// The error for an agent that isn't there.
pub(crate) fn unknown(name: &str) -> anyhow::Error {
    Problem::usage(
        "agent-unknown",
        format!(
            "there is no agent '{}'; `tipstaff agents list` shows them, `tipstaff agents set` makes one",
            name.escape_debug()
        ),
    )
}

/// The agent of this name: the org's own, else the one that is built in.
pub(crate) async fn find(context: &Context, name: &str) -> anyhow::Result<Agent> {
    let mut read = context.store.read(context.scope()).await?;
    let own = read.agent_get(name).await?;
    own.or_else(|| built_in(name)).ok_or_else(|| unknown(name))
}

/// Carries out `tipstaff agents …`.
pub(crate) async fn agents(command: AgentsCommand, context: Context) -> anyhow::Result<ExitCode> {
    match command {
        AgentsCommand::List => list(&context).await,
        AgentsCommand::Show { name } => {
            show(&context, &find(&context, &name).await?);
            Ok(ExitCode::SUCCESS)
        }
        AgentsCommand::Set { name, role, engine, model, instructions, cmd } => {
            if !agent_name_is_valid(&name) {
                let text = format!(
                    "'{}' can't name an agent: write 1 to 40 of a-z, 0-9 and '-', starting with a letter",
                    name.escape_debug()
                );
                return Err(Problem::usage("agent-name", text));
            }
            let mut tx = context.store.begin(context.scope()).await?;
            let known = tx.agent_get(&name).await?.or_else(|| built_in(&name));
            let command = if cmd.is_empty() {
                known.as_ref().map(|agent| agent.command.clone()).unwrap_or_default()
            } else {
                cmd
            };
            let draft = AgentDraft {
                role: role.or(known.as_ref().map(|agent| agent.role)).unwrap_or(AgentRole::Builder),
                engine: engine.or(known.as_ref().map(|agent| agent.engine)).unwrap_or(EngineKind::Command),
                model: model.or_else(|| known.as_ref().and_then(|agent| agent.model.clone())),
                instructions: instructions
                    .or_else(|| known.as_ref().map(|agent| agent.instructions.clone()))
                    .unwrap_or_default(),
                command,
                name,
            };
            let takes_command = matches!(draft.engine, EngineKind::Command | EngineKind::Acp);
            if takes_command && draft.command.is_empty() {
                return Err(Problem::usage(
                    "engine-no-command",
                    format!("an agent of the engine '{}' needs a command: write it after --", draft.engine),
                ));
            }
            tx.agent_set(&draft).await?;
            tx.audit_note(
                AuditDraft::new(
                    context.principal.actor(),
                    AuditAction::AgentSet,
                    format!("agent:{}", draft.name),
                )
                .with("role", draft.role)
                .with("engine", draft.engine),
            );
            tx.commit().await?;
            context.pin_checkpoint().await?;
            let mut read = context.store.read(context.scope()).await?;
            let agent = read.agent_get(&draft.name).await?.ok_or_else(|| unknown(&draft.name))?;
            show(&context, &agent);
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(context: &Context) -> anyhow::Result<ExitCode> {
    let mut read = context.store.read(context.scope()).await?;
    let mut agents = read.agent_list().await?;
    let own = agents.len();
    agents.extend(
        all_built_in().filter(|agent| agents.iter().all(|own| own.name != agent.name)).collect::<Vec<_>>(),
    );
    if context.output.json {
        for agent in &agents {
            context.output.object(agent);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = agents
        .iter()
        .enumerate()
        .map(|(index, agent)| {
            vec![
                agent.name.clone(),
                agent.role.to_string(),
                agent.engine.to_string(),
                model_of(agent),
                if index < own { agent.command.join(" ") } else { "built in".to_owned() },
            ]
        })
        .collect();
    context.output.table(&["NAME", "ROLE", "ENGINE", "MODEL", "COMMAND"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// The model that an agent asks.
fn model_of(agent: &Agent) -> String {
    let usual = engine(agent.engine).models().map(|models| format!("{}/{}", models.provider, models.default));
    agent.model.clone().or(usual).unwrap_or_else(|| "-".to_owned())
}

fn show(context: &Context, agent: &Agent) {
    let template = agent.role.template();
    let output = &context.output;
    if output.json {
        output.object(&json!({
            "agent": agent,
            "grants": {
                "kind": template.kind, "exec": template.exec, "write": template.write, "protected": template.protected,
                "budget_micro_usd": template.budget, "limits": template.limits,
            },
        }));
        return;
    }
    let list = |patterns: &[tipstaff_model::warrant::PathPattern]| match patterns {
        [] => "nothing".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    };
    let rows = [
        ("name", agent.name.clone()),
        ("role", agent.role.to_string()),
        ("engine", format!("{}: {}", agent.engine, engine(agent.engine).summary())),
        ("model", model_of(agent)),
        ("command", agent.command.join(" ")),
        ("instructions", agent.instructions.clone()),
        (
            "warrant",
            format!("{}, {}", template.kind, if template.exec { "may execute" } else { "executes nothing" }),
        ),
        ("may change", list(&template.write)),
        ("never", list(&template.protected)),
        ("budget", template.budget.to_string()),
        ("time", crate::output::span(template.limits.wall_ms)),
    ];
    for (name, value) in rows {
        output.line(&format!("{name:<13} {}", crate::watch::plain(&value)));
    }
}

/// The agents that every org has until it makes its own of the same name.
fn all_built_in() -> impl Iterator<Item = Agent> {
    BUILT_IN.iter().map(|agent| Agent {
        id: AgentId::from_bytes([0; 16]),
        name: agent.name.to_owned(),
        role: agent.role,
        engine: agent.engine,
        command: Vec::new(),
        model: None,
        instructions: agent.instructions.to_owned(),
    })
}

fn built_in(name: &str) -> Option<Agent> {
    all_built_in().find(|agent| agent.name == name)
}

//! How a run goes: with a person at hand or without, and under which policies.
//!
//! Promise: a rule that asks about what an agent does, or denies it, is kept, or the run does not start.

use crate::RunnerError;
use crate::compile::engine_request;
use crate::project::Project;
use crate::runner::Job;
use crate::talk::Attended;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_engine::{EngineRequest, engine};
use tipstaff_model::run::ASK_TIMEOUT_MS;
use tipstaff_model::{
    AgentRole, Decision, EngineKind, Entropy, Policies, PolicyLayer, PolicyOrigin, PolicyRule, Refusal, Rule,
    TaskSpec, Warrant,
};

/// How one run goes.
pub(crate) struct Manner {
    /// All layers, the repository's own included.
    policies: Policies,
    /// Whether the agent is spoken with.
    attended: bool,
}

impl Manner {
    /// Joins the policies and decides whether the agent is spoken with: when a person wants it, or a rule does.
    ///
    /// # Errors
    /// [`RunnerError::Refused`] when a rule could not be kept, or a person wants to speak with an agent that can't.
    pub(crate) fn of(job: &Job, project: &Project, warrant: &Warrant) -> Result<Self, RunnerError> {
        let mut policies = job.policies.clone();
        policies.0.extend(of_repository(project));
        let mut request = engine_request(&job.task, warrant.kind);
        request.attended = true;
        let converses = engine(job.task.engine).conversation(&request)?.is_some();
        let attended = converses && (job.task.attended || policies.restricts());
        if !converses {
            refuse_what_cannot_be_kept(&job.task, &policies, warrant.role).map_err(RunnerError::Refused)?;
        }
        Ok(Self { policies, attended })
    }

    /// What the engine is asked.
    pub(crate) fn request<'a>(&self, job: &'a Job, warrant: &Warrant) -> EngineRequest<'a> {
        let mut request = engine_request(&job.task, warrant.kind);
        request.attended = self.attended;
        request
    }

    /// What the run speaks with; `None` when nobody speaks with it.
    pub(crate) fn attended(
        &self,
        job: &Job,
        warrant: &Warrant,
        entropy: &Arc<dyn Entropy>,
    ) -> Result<Option<Attended>, RunnerError> {
        if !self.attended {
            return Ok(None);
        }
        let conversation = engine(job.task.engine).conversation(&self.request(job, warrant))?;
        Ok(conversation.map(|conversation| Attended {
            conversation,
            policies: self.policies.clone(),
            ask_timeout: Duration::from_millis(job.task.ask_timeout_ms.unwrap_or(ASK_TIMEOUT_MS)),
            redactor: job.redactor.clone(),
            entropy: Arc::clone(entropy),
        }))
    }
}

/// The repository's own policy.
fn of_repository(project: &Project) -> Option<PolicyLayer> {
    let policy = project.policy.clone();
    (!policy.is_empty()).then_some(PolicyLayer { origin: PolicyOrigin::Repository, policy })
}

/// What an engine can't do that can't be spoken with.
fn refuse_what_cannot_be_kept(task: &TaskSpec, policies: &Policies, role: AgentRole) -> Result<(), Refusal> {
    let wanted = format!("an attended run of {}", task.engine);
    if task.attended {
        let why = format!("nobody can speak with the engine {} while it works", task.engine);
        return Err(Refusal::new(Rule::PolicyDenied, wanted, why));
    }
    let found = policies.0.iter().find_map(|layer| {
        let of_default = layer.policy.default.filter(|default| *default != Decision::Allow);
        let of_rule = || layer.policy.rules.iter().position(|rule| is_for_the_agent(rule, role));
        match of_default {
            Some(_) => Some(format!("{}: what no rule names", layer.origin)),
            None => of_rule().map(|index| format!("{}, rule {}", layer.origin, index + 1)),
        }
    });
    match found {
        Some(rule) if task.engine != EngineKind::Command => Err(Refusal::new(
            Rule::PolicyDenied,
            wanted,
            format!("the policy of {rule} could not be kept: the engine {} can't be asked", task.engine),
        )),
        _ => Ok(()),
    }
}

/// Whether only the agent itself can keep a rule. Paths and hosts alone are the warrant's matter where they are denied; a
/// warrant asks nobody.
fn is_for_the_agent(rule: &PolicyRule, role: AgentRole) -> bool {
    let of_role = rule.roles.is_empty() || rule.roles.contains(&role);
    let of_warrant = !rule.paths.is_empty() || !rule.hosts.is_empty();
    let asks = rule.decision == Decision::Ask;
    let of_agent = asks || !rule.tools.is_empty() || !rule.commands.is_empty() || !of_warrant;
    rule.decision != Decision::Allow && !rule.is_over && of_role && of_agent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(engine: EngineKind, attended: bool) -> TaskSpec {
        let json = serde_json::json!({
            "repository": "local/demo", "source": "/srv/demo", "base": null, "base_commit": "a".repeat(40),
            "role": "builder", "engine": engine, "agent": null, "argv": [], "prompt": "x", "budget_micro_usd": 1,
            "timeout_ms": 1000, "allow_hosts": [], "submodules": false, "lfs": false, "attended": attended,
        });
        serde_json::from_value(json).unwrap()
    }

    fn kept(rules: &str, engine: EngineKind, attended: bool) -> Result<(), Refusal> {
        let policy = serde_json::from_str(rules).unwrap();
        let policies = Policies(vec![PolicyLayer { origin: PolicyOrigin::Org, policy }]);
        refuse_what_cannot_be_kept(&task(engine, attended), &policies, AgentRole::Builder)
    }

    #[test]
    fn a_rule_that_only_the_agent_can_keep_refuses_an_engine_that_cannot_be_asked() {
        for rules in [
            r#"{"default": "ask"}"#,
            r#"{"default": "deny"}"#,
            r#"{"rules": [{"decision": "allow"}, {"decision": "ask", "tools": ["Bash"]}]}"#,
            r#"{"rules": [{"decision": "deny", "commands": ["git push*"]}]}"#,
            r#"{"rules": [{"decision": "ask", "kinds": ["edit"]}]}"#,
            r#"{"rules": [{"decision": "ask", "risk": "high"}]}"#,
            r#"{"rules": [{"decision": "ask", "paths": ["db/**"]}]}"#,
            r#"{"rules": [{"decision": "deny", "paths": ["db/**"]}, {"decision": "ask", "hosts": ["x.example"]}]}"#,
            r#"{"rules": [{"decision": "deny", "commands": ["x"], "paths": ["db/**"], "roles": ["builder"]}]}"#,
        ] {
            let refusal = kept(rules, EngineKind::OpenCode, false).unwrap_err();
            assert_eq!(refusal.rule, Rule::PolicyDenied, "{rules}");
            assert!(refusal.why.contains("the org"), "{refusal:?}");
            // What a person starts by himself is no agent.
            assert_eq!(kept(rules, EngineKind::Command, false), Ok(()));
        }
        for rules in [
            "{}",
            r#"{"default": "allow", "rules": [{"decision": "allow", "tools": ["Bash"]}]}"#,
            r#"{"rules": [{"decision": "deny", "paths": ["db/**"]}, {"decision": "deny", "hosts": ["x.example"]}]}"#,
            r#"{"rules": [{"decision": "ask", "tools": ["Bash"], "roles": ["reviewer"]}]}"#,
        ] {
            assert_eq!(kept(rules, EngineKind::OpenCode, false), Ok(()), "{rules}");
            assert!(kept(rules, EngineKind::OpenCode, true).unwrap_err().why.contains("nobody can speak"));
        }
    }
}

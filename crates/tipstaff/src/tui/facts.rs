//! What the store knows about a run, in the form that the screen needs.

use crate::learn::{Grant, Refused, Wildcards, Wish, wishes};
use tipstaff_model::{
    Approval, ApprovalState, ExitReason, MicroUsd, RunId, RunState, TaskId, TaskSpec, WarrantId,
};

/// What does not change while a run goes on.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The run.
    pub(crate) run: RunId,
    /// Its task.
    pub(crate) task: TaskId,
    /// Whether it is carried out by this very process.
    pub(crate) own: bool,
    /// `repository @ base`.
    pub(crate) repository: String,
    /// The branch that it may push.
    pub(crate) branch: String,
    /// Agent, engine and model in one line.
    pub(crate) who: String,
    /// Who may read the session.
    pub(crate) privacy: Option<String>,
    /// How the run would be started again, without further grants: what stands before them, and after them.
    pub(crate) again: (String, String),
}

impl Facts {
    /// The facts of a run.
    pub(crate) fn new(run: RunId, task: TaskId, own: bool, spec: &TaskSpec, branch: Option<&str>) -> Self {
        let base = spec.base.as_deref().map_or_else(
            || spec.base_commit.short(),
            |base| base.strip_prefix("refs/heads/").unwrap_or(base),
        );
        let model = match (&spec.provider, &spec.model) {
            (Some(provider), Some(model)) => format!(", model {provider}/{model}"),
            (None, Some(model)) => format!(", model {model}"),
            _ => String::new(),
        };
        let agent = spec.agent.as_ref().map_or_else(|| spec.role.to_string(), Clone::clone);
        Self {
            run,
            task,
            own,
            repository: format!("{} @ {base}", spec.repository),
            branch: branch.unwrap_or("no push").to_owned(),
            who: format!("{agent} with {}{model}", spec.engine),
            privacy: Some(spec.privacy.to_string()),
            again: again(spec),
        }
    }

    /// The command that starts such a run with these grants.
    pub(crate) fn again_with<'a>(&self, grants: impl Iterator<Item = &'a Grant>) -> String {
        let (before, after) = &self.again;
        let grants: String = grants.map(|grant| format!(" {}", grant.typed())).collect();
        format!("{before}{grants}{after}")
    }
}

/// A word as it is typed in a shell.
pub(crate) fn typed(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:/@=+,%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn again(spec: &TaskSpec) -> (String, String) {
    let mut before = format!("tipstaff run --repo {}", typed(&spec.source));
    let mut option = |name: &str, value: &str| {
        before.push_str(&format!(" {name} {}", typed(value)));
    };
    match &spec.agent {
        Some(agent) => option("--agent", agent),
        None => option("--engine", spec.engine.as_str()),
    }
    option("--role", spec.role.as_str());
    if let Some(model) = &spec.model {
        let provider = spec.provider.as_ref().map(|provider| format!("{provider}/")).unwrap_or_default();
        option("--model", &format!("{provider}{model}"));
    }
    let pairs = [("--allow-host", &spec.allow_hosts), ("--secret", &spec.secrets)];
    for (name, values) in pairs {
        values.iter().for_each(|value| option(name, value));
    }
    spec.protect.iter().for_each(|pattern| option("--protect", &pattern.to_string()));
    if !spec.host_rules.is_empty() {
        // They don't come back from the rules that they were made into.
        before.push_str(" [--inspect, --allow-request, --allow-tool as before]");
    }
    // What a person typed is kept as it was, and may hold a secret.
    let redactor = tipstaff_seal::redact::Redactor::new();
    let after = match &spec.prompt {
        Some(prompt) => format!(" {}", typed(&redactor.redact(prompt))),
        None => {
            let words: Vec<String> = spec.argv.iter().map(|word| typed(&redactor.redact(word))).collect();
            format!(" -- {}", words.join(" "))
        }
    };
    (before, after)
}

/// What changes.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// When it was taken, in milliseconds since the Unix epoch.
    pub(crate) now: i64,
    /// Where the run stands.
    pub(crate) state: RunState,
    /// Why it ended.
    pub(crate) reason: Option<ExitReason>,
    /// What went wrong.
    pub(crate) error: Option<String>,
    /// When it began, in milliseconds since the Unix epoch.
    pub(crate) started_at: i64,
    /// When it ended.
    pub(crate) ended_at: Option<i64>,
    /// The warrant in force, its end, how long a run may take in milliseconds, and what may be spent.
    pub(crate) warrant: Option<InForce>,
    /// What was spent.
    pub(crate) spent: MicroUsd,
    /// Files that differ from the base, lines added and deleted; known once the change was collected.
    pub(crate) change: Option<(u64, u64, u64)>,
    /// What waits for a person.
    pub(crate) pending: Vec<Approval>,
    /// What was refused.
    pub(crate) refused: Vec<Refused>,
}

/// The warrant in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InForce {
    /// Its id.
    pub(crate) id: WarrantId,
    /// From when on it grants nothing, in milliseconds since the Unix epoch.
    pub(crate) expires_at: i64,
    /// How long the run may take, in milliseconds.
    pub(crate) wall_ms: u64,
    /// What may be spent.
    pub(crate) budget: MicroUsd,
}

impl Snapshot {
    /// How long it has taken, in milliseconds.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        since(self.started_at, self.ended_at.unwrap_or(self.now))
    }

    /// How long it may still take, in milliseconds.
    pub(crate) fn left_ms(&self) -> Option<u64> {
        let warrant = self.warrant.filter(|_| !self.state.is_final())?;
        let by_clock = since(self.now, warrant.expires_at);
        Some(warrant.wall_ms.saturating_sub(self.elapsed_ms()).min(by_clock))
    }

    /// What could be granted to the next run.
    pub(crate) fn wishes(&self) -> Vec<Wish> {
        wishes(&self.refused, Wildcards::Never)
    }
}

/// Milliseconds between two times.
pub(crate) fn since(from: i64, until: i64) -> u64 {
    u64::try_from(until.saturating_sub(from)).unwrap_or(0)
}

/// Whether somebody can still answer.
pub(crate) fn is_open(approval: &Approval, now: i64) -> bool {
    approval.state == ApprovalState::Pending && approval.request.expires_at > now
}

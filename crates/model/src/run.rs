//! What a task asks for, what a run reports.

use crate::agent::{AgentRole, EngineKind};
use crate::id::{RunId, TaskId};
use crate::policy::Policy;
use crate::privacy::PrivacyClass;
use crate::refusal::Refusal;
use crate::repository::{CommitId, RefName, RepositoryName};
use crate::setup::{SetupChoice, SetupReport};
use crate::state::{ExitReason, RunState};
use crate::warrant::HostRules;
use serde::{Deserialize, Serialize};

/// Everything that a worker needs to know to carry out a task. Stored as JSON with the task; holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// The repository's name in the warrant.
    pub repository: RepositoryName,
    /// Where the mirror fetches from: an absolute path or a URL without credentials. Bytes that are not UTF-8 are
    /// written as `%XX`, and so is `%`.
    pub source: String,
    /// What to base on: `refs/heads/…` when it is a branch, else as the person wrote it.
    pub base: Option<String>,
    /// The commit that the base was pinned to when the task was accepted.
    pub base_commit: CommitId,
    /// The role whose template makes the warrant.
    pub role: AgentRole,
    /// The engine.
    pub engine: EngineKind,
    /// The agent's name, where one was chosen.
    pub agent: Option<String>,
    /// The command and its arguments, or the agent's command with the prompt.
    pub argv: Vec<String>,
    /// The prompt, where there is one.
    pub prompt: Option<String>,
    /// The model, where one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The provider of the model, where one was chosen: the name of an upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What the agent's profile tells it besides the prompt.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instructions: String,
    /// Budget, in micro-US-dollars.
    pub budget_micro_usd: u64,
    /// Time, in milliseconds.
    pub timeout_ms: u64,
    /// Granted hosts, as the person wrote them.
    pub allow_hosts: Vec<String>,
    /// Paths that the run may not change, besides what its role and its repository protect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protect: Vec<crate::warrant::PathPattern>,
    /// Further rules for these hosts: which are inspected, and which requests may be made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_rules: Vec<HostRules>,
    /// The names of the secrets that it holds handles of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Whether the repository's set-up is done.
    #[serde(default, skip_serializing_if = "SetupChoice::is_usual")]
    pub setup: SetupChoice,
    /// What is kept of its session.
    #[serde(default, skip_serializing_if = "PrivacyClass::is_usual")]
    pub privacy: PrivacyClass,
    /// Whether submodules are checked out.
    pub submodules: bool,
    /// Whether LFS content is fetched.
    pub lfs: bool,
    /// Whether the agent is spoken with while it works: it can be asked about, told something and interrupted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub attended: bool,
    /// The run's own policy, from its options.
    #[serde(default, skip_serializing_if = "Policy::is_empty")]
    pub policy: Policy,
    /// How long a person has to answer a question, in milliseconds; absent: [`ASK_TIMEOUT_MS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask_timeout_ms: Option<u64>,
    /// The run whose session is continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<Resumed>,
    /// The run under whose warrant this one works: its own is a narrowing of that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<RunId>,
}

/// How long a person has to answer a question where nothing else is said, in milliseconds.
pub const ASK_TIMEOUT_MS: u64 = 5 * 60 * 1000;

/// An agent's session that is continued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resumed {
    /// The run that began it, or continued it last.
    pub run: RunId,
    /// The agent's own id for it.
    pub session: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl TaskSpec {
    /// The same without what a person or an agent's profile wrote: prompt, instructions, and all of the command but its
    /// program.
    #[must_use]
    pub fn without_text(&self) -> Self {
        let argv = self.argv.first().into_iter().cloned().collect();
        Self { prompt: None, instructions: String::new(), argv, ..self.clone() }
    }

    /// What is stored of it: in the class `meta` no text.
    #[must_use]
    pub fn stored(&self) -> Self {
        if self.privacy == PrivacyClass::Meta { self.without_text() } else { self.clone() }
    }

    /// Whether hosts are to be inspected.
    #[must_use]
    pub fn asks_to_inspect(&self) -> bool {
        !self.secrets.is_empty() || !self.host_rules.is_empty()
    }
}

/// A change to a run that a worker reports. Absent means unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunUpdate {
    /// The new state.
    pub state: Option<RunState>,
    /// Why it ended.
    pub exit_reason: Option<ExitReason>,
    /// The command's own exit code.
    pub exit_code: Option<i64>,
    /// What went wrong, in our words.
    pub error: Option<String>,
    /// The commit at the tip of the run's branch.
    pub commit: Option<CommitId>,
    /// The run's branch.
    pub branch: Option<RefName>,
    /// Files that differ from the base.
    pub files_changed: Option<u64>,
    /// Lines added.
    pub additions: Option<u64>,
    /// Lines deleted.
    pub deletions: Option<u64>,
    /// Where the workspace lies, until it is destroyed.
    pub workspace: Option<String>,
    /// What its set-up came to.
    pub setup: Option<SetupReport>,
}

/// The one object that `--json` ends with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// Its task.
    pub task: TaskId,
    /// Where it ended.
    pub state: RunState,
    /// Why.
    pub exit_reason: Option<ExitReason>,
    /// The command's own exit code.
    pub exit_code: Option<i64>,
    /// The branch that holds the change, without `refs/heads/`; absent when nothing changed.
    pub branch: Option<String>,
    /// The commit at its tip.
    pub commit: Option<CommitId>,
    /// The commit that the run was based on.
    pub base_commit: CommitId,
    /// Files that differ from the base.
    pub files_changed: u64,
    /// Lines added.
    pub additions: u64,
    /// Lines deleted.
    pub deletions: u64,
    /// What it cost, in micro-US-dollars.
    pub cost_micro_usd: u64,
    /// Tokens of all kinds.
    pub tokens: u64,
    /// From start to end, in milliseconds.
    pub duration_ms: u64,
    /// What is kept of its session.
    #[serde(default)]
    pub privacy: PrivacyClass,
    /// The run that it works under, where it is a sub-run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<RunId>,
    /// The runs that work, or worked, under this one; at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sub_runs: Vec<RunId>,
    /// What its set-up came to, where its repository has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<SetupReport>,
    /// What was refused.
    pub refusals: Vec<Refusal>,
    /// What went wrong, in our words.
    pub error: Option<String>,
}

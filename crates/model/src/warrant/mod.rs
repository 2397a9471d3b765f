//! The warrant: the signed, least-privilege grant of one run.
//!
//! A warrant names the repositories, the one branch, the paths, the tools, the network, the models, the budget and the
//! expiry. It may only be narrowed ([`Warrant::narrow`]), never widened. The decisions (`permits_*`) are the only place
//! where a grant is read; sandbox, broker and command line all ask here.

mod decide;
mod live;
mod narrow;
mod network;
mod pattern;
mod role;
mod setup;
mod sub_run;

pub use live::{Lapse, LiveWarrant};
pub use narrow::{NarrowError, Narrowing};
pub use network::{HostChoice, HostClass, HostRules, RequestRule, RequestVerdict, SecretGrant, UrlPattern};
pub(crate) use pattern::stars_match;
pub use pattern::{DEFAULT_PORT, HostPattern, ModelPattern, PathPattern, PatternError};
pub use role::{GitIdentity, IssueError, IssueRequest, LONGEST_RUN_MS, SHORTEST_RUN_MS, Template, lockfiles};

pub use setup::SetupGrant;
pub use sub_run::{MOST_RUNS_ABOVE, MOST_SUB_RUNS, SubRunError};

use crate::agent::{AgentRole, ChoiceError, choice};
use crate::canonical::{self, CanonicalError};
use crate::id::{OrgId, RunId, TaskId, WarrantId};
use crate::limits::Limits;
use crate::money::MicroUsd;
use crate::repository::{CommitId, RefName, RepositoryName};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

choice!(
    /// What a warrant is for. The kind bounds what a grant may hold, whatever its other fields say.
    WarrantKind, "a warrant kind", {
        /// Read; no execution of what the repository holds, no push.
        Refine = "refine",
        /// Read; execution where granted; comments through the control plane; no push.
        Review = "review",
        /// Execute, and push to one ref.
        Build = "build",
        /// Narrow upkeep: execute, and push to one ref within named paths.
        Ops = "ops",
    }
);

impl WarrantKind {
    /// Whether this kind may ever grant execution.
    #[must_use]
    pub const fn may_execute(self) -> bool {
        !matches!(self, Self::Refine)
    }

    /// Whether this kind may ever grant a push.
    #[must_use]
    pub const fn may_push(self) -> bool {
        matches!(self, Self::Build | Self::Ops)
    }

    /// Whether the workspace is writable under this kind.
    #[must_use]
    pub const fn may_write(self) -> bool {
        !matches!(self, Self::Refine)
    }
}

/// Read access to one repository at a pinned commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryGrant {
    /// `owner/name`.
    pub name: RepositoryName,
    /// The commit that the run is pinned to.
    pub base: CommitId,
}

/// The one ref that may be pushed, in one of the granted repositories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushGrant {
    /// The repository.
    pub repository: RepositoryName,
    /// The branch.
    #[serde(rename = "ref")]
    pub reference: RefName,
}

/// Which paths a push may change. A path is permitted when one of `write` matches and none of `protected` does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathRules {
    /// What may change.
    pub write: Vec<PathPattern>,
    /// What may not change in spite of that.
    pub protected: Vec<PathPattern>,
    /// Where text that only looks like a secret may be pushed, such as the fixtures of tests. A value that the broker
    /// holds may be pushed nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixtures: Vec<PathPattern>,
}

impl PathRules {
    /// Protects further paths; what is protected stays so.
    pub fn protect(&mut self, patterns: impl IntoIterator<Item = PathPattern>) {
        for pattern in patterns {
            if !self.protected.contains(&pattern) {
                self.protected.push(pattern);
            }
        }
    }

    /// Whether text that looks like a secret may stand in `path` (bytes as git reports them).
    #[must_use]
    pub fn is_fixture(&self, path: &[u8]) -> bool {
        self.fixtures.iter().any(|pattern| pattern.matches(path))
    }
}

/// What may be executed and used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolRules {
    /// Whether anything that the repository or the agent made may be executed.
    pub exec: bool,
    /// Whether submodules are checked out.
    pub submodules: bool,
    /// Whether LFS content is fetched.
    pub lfs: bool,
}

/// One provider with the models that may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelGrant {
    /// `anthropic`, `openai`, `gemini` or the name of a configured upstream.
    pub provider: String,
    /// Which models.
    pub model: ModelPattern,
}

/// The grant of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warrant {
    /// Version of this form: 1.
    pub v: u8,
    /// Its id.
    pub id: WarrantId,
    /// The warrant that this one was narrowed from: an earlier one of its run, or the one of the run above a sub-run.
    pub parent: Option<WarrantId>,
    /// The tenant.
    pub org: OrgId,
    /// The task.
    pub task: TaskId,
    /// The run.
    pub run: RunId,
    /// Who it was issued for: `member:<id>`.
    pub subject: String,
    /// What it is for.
    pub kind: WarrantKind,
    /// The role whose template made it.
    pub role: AgentRole,
    /// What may be read.
    pub repositories: Vec<RepositoryGrant>,
    /// What may be pushed.
    pub push: Option<PushGrant>,
    /// Which paths a push may change.
    pub paths: PathRules,
    /// What may be executed.
    pub tools: ToolRules,
    /// Which hosts may be reached.
    pub egress: Vec<HostPattern>,
    /// Further rules for these hosts. An entry only takes away: a request passes when every entry for its host lets it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostRules>,
    /// Which secrets may be used where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretGrant>,
    /// What the set-up of the repository may do before the command starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<SetupGrant>,
    /// Which models may be asked.
    pub models: Vec<ModelGrant>,
    /// How much money may be spent.
    pub budget: MicroUsd,
    /// The bounds of the run.
    pub limits: Limits,
    /// When it was issued, in milliseconds since the Unix epoch.
    pub issued_at: i64,
    /// From when on it grants nothing, in milliseconds since the Unix epoch.
    pub expires_at: i64,
}

impl Warrant {
    /// The bytes that are signed and digested (RFC 8785).
    ///
    /// # Errors
    /// Only when a number is beyond ±2⁵³.
    pub fn canonical_bytes(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::to_bytes(self)
    }

    /// How long it lives, in milliseconds.
    #[must_use]
    pub fn lifetime_ms(&self) -> i64 {
        self.expires_at.saturating_sub(self.issued_at).max(0)
    }
}

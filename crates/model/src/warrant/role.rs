//! Templates: what each agent role is granted, and the making of a warrant from one.

use super::{
    HostPattern, HostRules, ModelGrant, PathPattern, PathRules, PushGrant, RepositoryGrant, SecretGrant,
    ToolRules, Warrant, WarrantKind,
};
use crate::agent::AgentRole;
use crate::id::{OrgId, RunId, TaskId, WarrantId};
use crate::limits::Limits;
use crate::money::MicroUsd;
use crate::repository::{NameError, RefName};

/// The shortest time a run may be given: one second.
pub const SHORTEST_RUN_MS: u64 = 1_000;
/// The longest time a run may be given: one day.
pub const LONGEST_RUN_MS: u64 = 24 * 60 * 60 * 1_000;
/// Time after the run's own for collecting its result under the same warrant: two minutes.
const COLLECT_MS: u64 = 120_000;

/// Files that run with more power than the code around them: continuous integration, ownership, and the configuration
/// of agents and editors, which would poison the next run.
const ALWAYS_PROTECTED: &[&str] = &[
    ".github/workflows/**",
    ".github/actions/**",
    ".gitlab-ci.yml",
    ".circleci/**",
    "azure-pipelines.yml",
    "Jenkinsfile",
    "**/CODEOWNERS",
    "tipstaff.toml",
    ".tipstaff/**",
    ".ci/**",
    ".gitmodules",
    ".claude/**",
    ".codex/**",
    ".gemini/**",
    ".opencode/**",
    ".qwen/**",
    ".aider.conf*",
    ".coven-code/**",
    ".mcp.json",
    ".vscode/tasks.json",
    ".vscode/settings.json",
    ".idea/**",
    ".devcontainer/**",
    ".husky/**",
    ".envrc",
];

/// What a builder leaves to a cloud engineer.
const INFRASTRUCTURE: &[&str] = &[
    "infra/**",
    "infrastructure/**",
    "terraform/**",
    "deploy/**",
    "k8s/**",
    "helm/**",
    "charts/**",
    "ansible/**",
    "**/*.tf",
    "**/*.tfvars",
    "**/Dockerfile",
    "**/docker-compose*.yml",
    "**/docker-compose*.yaml",
];

/// What a gardener tends, besides lockfiles.
const GARDEN: &[&str] = &["**/*.md", "docs/**", "CHANGELOG*"];

/// Files that pin what a build downloads. A gardener tends them; a repository may close them to everybody.
const LOCKFILES: &[&str] = &[
    "**/Cargo.lock",
    "**/package-lock.json",
    "**/npm-shrinkwrap.json",
    "**/yarn.lock",
    "**/pnpm-lock.yaml",
    "**/bun.lock",
    "**/bun.lockb",
    "**/deno.lock",
    "**/poetry.lock",
    "**/Pipfile.lock",
    "**/pdm.lock",
    "**/uv.lock",
    "**/go.sum",
    "**/Gemfile.lock",
    "**/composer.lock",
    "**/mix.lock",
    "**/pubspec.lock",
    "**/packages.lock.json",
    "**/gradle.lockfile",
    "**/flake.lock",
];

/// What a role is granted before the run's options are laid over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The kind of warrant.
    pub kind: WarrantKind,
    /// Execution.
    pub exec: bool,
    /// What may change.
    pub write: Vec<PathPattern>,
    /// What may not.
    pub protected: Vec<PathPattern>,
    /// Money, unless told otherwise.
    pub budget: MicroUsd,
    /// The bounds; the time is the default time.
    pub limits: Limits,
}

fn patterns(texts: &[&str]) -> Vec<PathPattern> {
    // The constants are checked by a test; an unreadable one would be left out of `write`, never out of `protected`.
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Who an agent is in git: the one name that its commits may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitIdentity {
    /// The name of author and committer.
    pub name: String,
    /// Their address; it is nobody's (RFC 2606 §2).
    pub email: String,
}

/// The lockfiles of the package managers that we know.
#[must_use]
pub fn lockfiles() -> Vec<PathPattern> {
    patterns(LOCKFILES)
}

impl AgentRole {
    /// The name that the commits of a run in this role carry.
    #[must_use]
    pub fn git_identity(self) -> GitIdentity {
        GitIdentity { name: format!("Tipstaff {self}"), email: format!("{self}@agents.tipstaff.invalid") }
    }

    /// The role's template.
    #[must_use]
    pub fn template(self) -> Template {
        let everything = vec![PathPattern::everything()];
        let guarded = patterns(ALWAYS_PROTECTED);
        let default = Limits::default();
        let quick = Limits { wall_ms: 30 * 60 * 1_000, ..default };
        let (kind, exec, write, protected, budget, limits) = match self {
            Self::Manager => (WarrantKind::Review, false, Vec::new(), guarded, 1, quick),
            Self::Reviewer => (WarrantKind::Review, true, Vec::new(), guarded, 1, quick),
            Self::Refiner => (WarrantKind::Refine, false, Vec::new(), guarded, 1, quick),
            Self::Builder => {
                let protected = [guarded, patterns(INFRASTRUCTURE)].concat();
                (WarrantKind::Build, true, everything, protected, 2, default)
            }
            Self::CloudEngineer => (WarrantKind::Build, true, everything, guarded, 2, default),
            Self::Gardener => {
                let small = Limits { push_files: 200, push_bytes: 16 * 1024 * 1024, ..quick };
                (WarrantKind::Ops, true, [patterns(GARDEN), lockfiles()].concat(), guarded, 1, small)
            }
        };
        Template { kind, exec, write, protected, budget: MicroUsd::from_micro(budget * 1_000_000), limits }
    }

    /// The branch of a task: `agent/<role>-task-<id>`.
    ///
    /// # Errors
    /// Never for our own roles and ids; the type asks.
    pub fn branch(self, task: TaskId) -> Result<RefName, NameError> {
        RefName::branch(&format!("agent/{self}-task-{}", task.short()))
    }
}

/// What a run asks of a template.
#[derive(Debug, Clone)]
pub struct IssueRequest {
    /// Ids of the warrant, the tenant, the task and the run.
    pub ids: (WarrantId, OrgId, TaskId, RunId),
    /// Who it is for: `member:<id>`.
    pub subject: String,
    /// The role.
    pub role: AgentRole,
    /// The repository and its pinned commit.
    pub repository: RepositoryGrant,
    /// Money; the template's when absent.
    pub budget: Option<MicroUsd>,
    /// Time of the run, in milliseconds; the template's when absent.
    pub wall_ms: Option<u64>,
    /// Hosts.
    pub egress: Vec<HostPattern>,
    /// Further rules for these hosts.
    pub hosts: Vec<HostRules>,
    /// Secrets that may be used.
    pub secrets: Vec<SecretGrant>,
    /// Models.
    pub models: Vec<ModelGrant>,
    /// Submodules.
    pub submodules: bool,
    /// LFS.
    pub lfs: bool,
    /// Now, in milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// No warrant can be made of the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// A time outside one second to one day.
    #[error("a run may take from 1 second to 24 hours, not {0} ms")]
    Time(u64),
    /// Something that the kind of warrant never grants.
    #[error("a {kind} warrant (role {role}) grants no {what}: choose another role")]
    Kind {
        /// The kind.
        kind: WarrantKind,
        /// The role.
        role: AgentRole,
        /// What was asked for.
        what: &'static str,
    },
    /// A secret for a host that is not granted, or for more than one.
    #[error(
        "the secret {name} is for {host}, which must be one host that the run may reach: add --allow-host {host}"
    )]
    Secret {
        /// The secret.
        name: String,
        /// Its host.
        host: HostPattern,
    },
    /// A name that git would not accept.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Warrant {
    /// Makes the warrant of a run from its role's template and the run's options.
    ///
    /// # Errors
    /// [`IssueError`] when the options ask for what the role's kind never grants, or for an impossible time.
    pub fn issue(request: IssueRequest) -> Result<Self, IssueError> {
        let IssueRequest {
            ids,
            subject,
            role,
            repository,
            budget,
            wall_ms,
            egress,
            hosts,
            secrets,
            models,
            submodules,
            lfs,
            now_ms,
        } = request;
        let (id, org, task, run) = ids;
        let template = role.template();
        let wall_ms = wall_ms.unwrap_or(template.limits.wall_ms);
        if !(SHORTEST_RUN_MS..=LONGEST_RUN_MS).contains(&wall_ms) {
            return Err(IssueError::Time(wall_ms));
        }
        if template.kind == WarrantKind::Refine && !(egress.is_empty() && secrets.is_empty()) {
            return Err(IssueError::Kind { kind: template.kind, role, what: "network" });
        }
        let granted = |host: &HostPattern| egress.iter().any(|one| one.covers(host));
        if let Some(secret) = secrets.iter().find(|one| !one.host.is_one_host() || !granted(&one.host)) {
            return Err(IssueError::Secret { name: secret.name.clone(), host: secret.host.clone() });
        }
        let push = if template.kind.may_push() {
            Some(PushGrant { repository: repository.name.clone(), reference: role.branch(task)? })
        } else {
            None
        };
        let lifetime = i64::try_from(wall_ms.saturating_add(COLLECT_MS)).unwrap_or(i64::MAX);
        Ok(Self {
            v: 1,
            id,
            parent: None,
            org,
            task,
            run,
            subject,
            kind: template.kind,
            role,
            repositories: vec![repository],
            push,
            paths: PathRules { write: template.write, protected: template.protected, fixtures: Vec::new() },
            tools: ToolRules { exec: template.exec, submodules, lfs },
            egress,
            hosts,
            secrets,
            setup: None,
            models,
            budget: budget.unwrap_or(template.budget),
            limits: Limits { wall_ms, ..template.limits },
            issued_at: now_ms,
            expires_at: now_ms.saturating_add(lifetime),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constant_pattern_is_readable() {
        for texts in [ALWAYS_PROTECTED, INFRASTRUCTURE, GARDEN, LOCKFILES] {
            assert_eq!(patterns(texts).len(), texts.len());
        }
    }

    #[test]
    fn the_table_of_roles() {
        let mut table = String::new();
        for role in AgentRole::ALL {
            let Template { kind, exec, write, protected, budget, limits } = role.template();
            table.push_str(&format!(
                "{role}: {kind} exec={exec} write={} protected={} {budget} {} min\n",
                write.len(),
                protected.len(),
                limits.wall_ms / 60_000
            ));
        }
        insta::assert_snapshot!(table, @r"
        manager: review exec=false write=0 protected=25 $1.00 30 min
        builder: build exec=true write=1 protected=38 $2.00 60 min
        cloud-engineer: build exec=true write=1 protected=25 $2.00 60 min
        reviewer: review exec=true write=0 protected=25 $1.00 30 min
        refiner: refine exec=false write=0 protected=25 $1.00 30 min
        gardener: ops exec=true write=23 protected=25 $1.00 30 min
        ");
    }
}

//! Narrowing: a child warrant that grants at most what its parent grants.
//!
//! It needs no control plane: whoever holds a warrant may hand a smaller one to a sub-agent. A request that would widen
//! any dimension is refused as a whole, so a mistake never turns into a silent, smaller grant.

use super::{
    HostPattern, HostRules, ModelGrant, PathPattern, PushGrant, RepositoryGrant, SecretGrant, Warrant,
    WarrantKind,
};
use crate::id::WarrantId;
use crate::limits::Limits;
use crate::money::MicroUsd;

/// What to shrink. Absent means: as the parent has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// A lesser kind.
    pub kind: Option<WarrantKind>,
    /// Fewer repositories.
    pub repositories: Option<Vec<RepositoryGrant>>,
    /// `Some(None)` takes the push away.
    pub push: Option<Option<PushGrant>>,
    /// Fewer writable paths; each must be covered by a path of the parent.
    pub write: Option<Vec<PathPattern>>,
    /// Paths to protect in addition to the parent's.
    pub protect: Vec<PathPattern>,
    /// `Some(false)` takes execution away.
    pub exec: Option<bool>,
    /// `Some(false)` takes submodules away.
    pub submodules: Option<bool>,
    /// `Some(false)` takes LFS away.
    pub lfs: Option<bool>,
    /// Fewer hosts.
    pub egress: Option<Vec<HostPattern>>,
    /// Rules for hosts in addition to the parent's; each only takes away.
    pub hosts: Vec<HostRules>,
    /// Fewer secrets.
    pub secrets: Option<Vec<SecretGrant>>,
    /// Fewer models.
    pub models: Option<Vec<ModelGrant>>,
    /// Less money.
    pub budget: Option<MicroUsd>,
    /// Lower bounds.
    pub limits: Option<Limits>,
    /// An earlier end.
    pub expires_at: Option<i64>,
}

/// The request would widen the warrant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a warrant can't be widened: {wanted} is not within the parent's {dimension}; ask for less, or start a new run"
)]
pub struct NarrowError {
    /// The dimension: kind, run, repositories, push, paths, tools, egress, hosts, secrets, setup,
    /// models, budget, limits, expiry.
    pub dimension: &'static str,
    /// What was asked for.
    pub wanted: String,
}

impl NarrowError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "warrant-widening"
    }
}

fn widens(dimension: &'static str, wanted: impl ToString) -> NarrowError {
    NarrowError { dimension, wanted: wanted.to_string() }
}

/// Whether a parent of kind `parent` may have a child of kind `child`: no bit that the parent's kind lacks.
const fn kind_covers(parent: WarrantKind, child: WarrantKind) -> bool {
    (parent.may_execute() || !child.may_execute())
        && (parent.may_push() || !child.may_push())
        && (parent.may_write() || !child.may_write())
}

impl Warrant {
    /// A warrant with id `id` that grants at most what this one grants.
    ///
    /// # Errors
    /// [`NarrowError`], naming the first dimension that the request would widen.
    pub fn narrow(&self, id: WarrantId, request: Narrowing) -> Result<Self, NarrowError> {
        let mut child = self.clone();
        child.id = id;
        child.parent = Some(self.id);
        child.kind = request.kind.unwrap_or(self.kind);
        child.repositories = request.repositories.unwrap_or(child.repositories);
        child.push = request.push.unwrap_or(child.push);
        let asked_for = child.push.as_ref().filter(|_| child.push != self.push);
        if let Some(push) = asked_for {
            return Err(widens("push", &push.reference));
        }
        // A push to a repository that the child may not read would be a grant without a meaning.
        child.push =
            child.push.filter(|grant| child.repositories.iter().any(|one| one.name == grant.repository));
        child.paths.write = request.write.unwrap_or(child.paths.write);
        for path in request.protect {
            if !child.paths.protected.contains(&path) {
                child.paths.protected.push(path);
            }
        }
        child.tools.exec = request.exec.unwrap_or(self.tools.exec);
        child.tools.submodules = request.submodules.unwrap_or(self.tools.submodules);
        child.tools.lfs = request.lfs.unwrap_or(self.tools.lfs);
        child.egress = request.egress.unwrap_or(child.egress);
        child.hosts.extend(request.hosts);
        child.secrets = request.secrets.unwrap_or(child.secrets);
        child.models = request.models.unwrap_or(child.models);
        child.budget = request.budget.unwrap_or(self.budget);
        child.limits = request.limits.unwrap_or(self.limits);
        child.expires_at = request.expires_at.unwrap_or(self.expires_at);
        self.covers(&child)?;
        Ok(child)
    }

    /// Whether `child` is of the same run and grants at most what this warrant grants.
    ///
    /// # Errors
    /// [`NarrowError`], naming the first dimension in which it grants more, or may grant more.
    pub fn covers(&self, child: &Self) -> Result<(), NarrowError> {
        let same = (self.v, self.org, self.task, self.run) == (child.v, child.org, child.task, child.run)
            && (&self.subject, self.role, self.issued_at) == (&child.subject, child.role, child.issued_at);
        if !same {
            return Err(widens("run", child.run));
        }
        if !kind_covers(self.kind, child.kind) {
            return Err(widens("kind", child.kind));
        }
        if let Some(other) = child.repositories.iter().find(|one| !self.repositories.contains(one)) {
            return Err(widens("repositories", &other.name));
        }
        if let Some(push) = child.push.as_ref().filter(|_| child.push != self.push) {
            return Err(widens("push", &push.reference));
        }
        let writable = |path: &PathPattern| self.paths.write.iter().any(|mine| mine.covers(path));
        if let Some(other) = child.paths.write.iter().find(|path| !writable(path)) {
            return Err(widens("paths", other));
        }
        if let Some(missing) = self.paths.protected.iter().find(|path| !child.paths.protected.contains(path))
        {
            return Err(widens("paths", format!("leaving {missing} unprotected")));
        }
        let fixture = |path: &PathPattern| self.paths.fixtures.iter().any(|mine| mine.covers(path));
        if let Some(other) = child.paths.fixtures.iter().find(|path| !fixture(path)) {
            return Err(widens("paths", format!("text like secrets in {other}")));
        }
        let bits = [
            ("exec", child.tools.exec, self.tools.exec),
            ("submodules", child.tools.submodules, self.tools.submodules),
            ("lfs", child.tools.lfs, self.tools.lfs),
        ];
        if let Some((name, ..)) = bits.iter().find(|(_, theirs, mine)| *theirs && !mine) {
            return Err(widens("tools", name));
        }
        let reachable = |host: &HostPattern| self.egress.iter().any(|mine| mine.covers(host));
        if let Some(other) = child.egress.iter().find(|host| !reachable(host)) {
            return Err(widens("egress", other));
        }
        // Each entry takes something away, so the child must have all of them.
        if let Some(missing) = self.hosts.iter().find(|rules| !child.hosts.contains(rules)) {
            return Err(widens("hosts", format!("{} without its rules", missing.host)));
        }
        let usable = |secret: &SecretGrant| self.secrets.iter().any(|mine| mine.covers(secret));
        if let Some(other) = child.secrets.iter().find(|secret| !usable(secret)) {
            return Err(widens("secrets", format!("{} at {}{}", other.name, other.host, other.path)));
        }
        if let Some(setup) = &child.setup
            && !self.setup.as_ref().is_some_and(|mine| mine.covers(setup))
        {
            let hosts: Vec<String> = setup.egress.iter().map(ToString::to_string).collect();
            return Err(widens("setup", hosts.join(" ")));
        }
        let askable = |wanted: &ModelGrant| {
            self.models
                .iter()
                .any(|mine| mine.provider == wanted.provider && mine.model.covers(&wanted.model))
        };
        if let Some(other) = child.models.iter().find(|wanted| !askable(wanted)) {
            return Err(widens("models", format!("{}/{}", other.provider, other.model)));
        }
        if child.budget > self.budget {
            return Err(widens("budget", child.budget));
        }
        if !self.limits.covers(&child.limits) {
            let rows = self.limits.rows();
            let name = rows.iter().zip(child.limits.rows()).find(|((_, mine), (_, theirs))| theirs > mine);
            return Err(widens("limits", name.map_or("limits", |((name, _), _)| name)));
        }
        if child.expires_at > self.expires_at {
            return Err(widens("expiry", child.expires_at));
        }
        Ok(())
    }
}

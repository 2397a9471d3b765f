//! Narrowing: a child warrant that grants at most what its parent grants.
//!
//! It needs no control plane: whoever holds a warrant may hand a smaller one to a sub-agent. A request that would widen
//! any dimension is refused as a whole, so a mistake never turns into a silent, smaller grant.

use super::{HostPattern, ModelGrant, PathPattern, PushGrant, RepositoryGrant, Warrant, WarrantKind};
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
    /// The dimension: kind, repositories, push, paths, tools, egress, models, budget, limits, expiry.
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
        if let Some(kind) = request.kind {
            if !kind_covers(self.kind, kind) {
                return Err(widens("kind", kind));
            }
            child.kind = kind;
        }
        if let Some(repositories) = request.repositories {
            if let Some(other) = repositories.iter().find(|one| !self.repositories.contains(one)) {
                return Err(widens("repositories", &other.name));
            }
            child.repositories = repositories;
        }
        if let Some(push) = request.push {
            if push.is_some() && push != self.push {
                return Err(widens(
                    "push",
                    push.map_or_else(String::new, |grant| grant.reference.to_string()),
                ));
            }
            child.push = push;
        }
        // A push to a repository that the child may not read would be a grant without a meaning.
        if child
            .push
            .as_ref()
            .is_some_and(|grant| !child.repositories.iter().any(|r| r.name == grant.repository))
        {
            child.push = None;
        }
        if let Some(write) = request.write {
            let covered = |path: &PathPattern| self.paths.write.iter().any(|mine| mine.covers(path));
            if let Some(other) = write.iter().find(|path| !covered(path)) {
                return Err(widens("paths", other));
            }
            child.paths.write = write;
        }
        for path in request.protect {
            if !child.paths.protected.contains(&path) {
                child.paths.protected.push(path);
            }
        }
        let bits = [
            ("exec", request.exec, self.tools.exec),
            ("submodules", request.submodules, self.tools.submodules),
            ("lfs", request.lfs, self.tools.lfs),
        ];
        if let Some((name, ..)) = bits.iter().find(|(_, wanted, mine)| *wanted == Some(true) && !mine) {
            return Err(widens("tools", name));
        }
        child.tools.exec = request.exec.unwrap_or(self.tools.exec);
        child.tools.submodules = request.submodules.unwrap_or(self.tools.submodules);
        child.tools.lfs = request.lfs.unwrap_or(self.tools.lfs);
        if let Some(egress) = request.egress {
            if let Some(other) = egress.iter().find(|host| !self.egress.iter().any(|mine| mine.covers(host)))
            {
                return Err(widens("egress", other));
            }
            child.egress = egress;
        }
        if let Some(models) = request.models {
            let covered = |wanted: &ModelGrant| {
                self.models
                    .iter()
                    .any(|mine| mine.provider == wanted.provider && mine.model.covers(&wanted.model))
            };
            if let Some(other) = models.iter().find(|wanted| !covered(wanted)) {
                return Err(widens("models", format!("{}/{}", other.provider, other.model)));
            }
            child.models = models;
        }
        if let Some(budget) = request.budget {
            if budget > self.budget {
                return Err(widens("budget", budget));
            }
            child.budget = budget;
        }
        if let Some(limits) = request.limits {
            if !self.limits.covers(&limits) {
                let rows = self.limits.rows();
                let name = rows.iter().zip(limits.rows()).find(|((_, mine), (_, theirs))| theirs > mine);
                return Err(widens("limits", name.map_or("limits", |((name, _), _)| name)));
            }
            child.limits = limits;
        }
        if let Some(expires_at) = request.expires_at {
            if expires_at > self.expires_at {
                return Err(widens("expiry", expires_at));
            }
            child.expires_at = expires_at;
        }
        Ok(child)
    }
}

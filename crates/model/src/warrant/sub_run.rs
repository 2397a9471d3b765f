//! Sub-runs: a run of its own that works under the warrant of another one.
//!
//! Promises: what a sub-run is granted is granted to the run above it, in every dimension; a warrant that is admitted
//! under another one is admitted under whatever that one was admitted under; what takes away above takes away below,
//! without being asked for; a request for more is refused as a whole.

use super::{HostPattern, ModelGrant, NarrowError, Narrowing, PathPattern, SecretGrant, Warrant};
use crate::id::WarrantId;
use crate::money::MicroUsd;
use std::fmt::Display;

/// How many runs there may be above one, each under the next.
pub const MOST_RUNS_ABOVE: usize = 4;
/// How many sub-runs of one run may be queued or at work at once.
pub const MOST_SUB_RUNS: usize = 16;
/// Grants that are told in an error at most.
const MOST_TOLD: usize = 8;

/// A sub-run is asked for that would be granted more than the run above it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a sub-run can't be granted more than the run above it: {wanted} is not within its {dimension}, which is {granted}; ask for less, or start the run without --under"
)]
pub struct SubRunError {
    /// The dimension, as in [`NarrowError`]; also time.
    pub dimension: &'static str,
    /// What was asked for.
    pub wanted: String,
    /// What the run above is granted.
    pub granted: String,
}

impl SubRunError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "warrant-widening"
    }
}

/// A list for a sentence.
fn told<T: Display>(what: impl IntoIterator<Item = T>) -> String {
    let mut all = what.into_iter();
    let mut names: Vec<String> = all.by_ref().take(MOST_TOLD).map(|one| one.to_string()).collect();
    match all.count() {
        0 if names.is_empty() => return "none".to_owned(),
        0 => {}
        more => names.push(format!("and {more} more")),
    }
    names.join(" ")
}

impl Warrant {
    /// How long a sub-run that begins at `now_ms` (milliseconds since the Unix epoch) may take, in milliseconds: what is
    /// left of this run's own time.
    #[must_use]
    pub fn time_for_sub_run(&self, now_ms: i64) -> u64 {
        let wall = i64::try_from(self.limits.wall_ms).unwrap_or(i64::MAX);
        let end = self.issued_at.saturating_add(wall).min(self.expires_at);
        u64::try_from(end.saturating_sub(now_ms)).unwrap_or(0)
    }

    /// The warrant of a sub-run of this warrant's run: `asked` with everything that takes away here, and with this one as
    /// its parent. The time of a sub-run ends with that of the run above it, and no bound of it is higher.
    ///
    /// # Errors
    /// [`SubRunError`] when `asked` would grant more than this warrant does.
    pub fn for_sub_run(&self, mut asked: Self) -> Result<Self, SubRunError> {
        let left = self.time_for_sub_run(asked.issued_at);
        if left == 0 {
            return Err(self.more("time", &format!("a beginning at {}", asked.issued_at)));
        }
        asked.parent = Some(self.id);
        asked.paths.protect(self.paths.protected.iter().cloned());
        for rules in &self.hosts {
            if !asked.hosts.contains(rules) {
                asked.hosts.push(rules.clone());
            }
        }
        asked.limits = asked.limits.lowest(&self.limits);
        asked.limits.wall_ms = asked.limits.wall_ms.min(left);
        asked.expires_at = asked.expires_at.min(self.expires_at);
        self.admits_sub_run(&asked)?;
        Ok(asked)
    }

    /// Whether `child` is of another run of the same org and grants at most what this warrant grants. It pushes to its own
    /// branch and to no other.
    ///
    /// # Errors
    /// [`SubRunError`], naming the first dimension in which it grants more, or may grant more.
    pub fn admits_sub_run(&self, child: &Self) -> Result<(), SubRunError> {
        let another = self.run != child.run && self.task != child.task;
        if (self.v, self.org) != (child.v, child.org) || !another {
            return Err(self.more("run", &child.run));
        }
        // Who a run is, is its own matter; with that set aside, the rules of narrowing judge.
        let mut same = child.clone();
        (same.task, same.run) = (self.task, self.run);
        (same.subject, same.role, same.issued_at) = (self.subject.clone(), self.role, self.issued_at);
        if let Some(push) = &mut same.push {
            let own = child.role.branch(child.task).ok();
            if own.as_ref() != Some(&push.reference) {
                return Err(self.more("push", &push.reference));
            }
            let reference = self.push.as_ref().map(|mine| &mine.reference);
            reference.into_iter().for_each(|mine| push.reference = mine.clone());
        }
        self.covers(&same).map_err(|NarrowError { dimension, wanted }| match dimension {
            // The normalised branch is this run's; the sub-run's own is meant.
            "push" => self.more(dimension, &child.push_ref().map(ToString::to_string).unwrap_or_default()),
            _ => self.more(dimension, &wanted),
        })
    }

    /// What is left of a sub-run's warrant now that the run above it has the warrant `above`: a narrowing of this one with
    /// the id `id`, or `None` where `above` admits it as it is.
    ///
    /// # Errors
    /// [`SubRunError`] when no narrowing of it would do: the sub-run is to end.
    pub fn narrowed_under(&self, id: WarrantId, above: &Self) -> Result<Option<Self>, SubRunError> {
        if above.admits_sub_run(self).is_ok() {
            return Ok(None);
        }
        let reachable = |host: &HostPattern| above.egress.iter().any(|mine| mine.covers(host));
        let egress: Vec<HostPattern> = self.egress.iter().filter(|host| reachable(host)).cloned().collect();
        let usable = |secret: &&SecretGrant| {
            above.secrets.iter().any(|mine| mine.covers(secret))
                && egress.iter().any(|host| host.covers(&secret.host))
        };
        let askable = |wanted: &&ModelGrant| {
            above
                .models
                .iter()
                .any(|mine| mine.provider == wanted.provider && mine.model.covers(&wanted.model))
        };
        let writable = |path: &&PathPattern| above.paths.write.iter().any(|mine| mine.covers(path));
        let new_rules = above.hosts.iter().filter(|rules| !self.hosts.contains(rules));
        let mut limits = self.limits.lowest(&above.limits);
        limits.wall_ms = limits.wall_ms.min(above.time_for_sub_run(self.issued_at));
        let request = Narrowing {
            push: above.push.is_none().then_some(None),
            write: Some(self.paths.write.iter().filter(writable).cloned().collect()),
            protect: above.paths.protected.clone(),
            exec: Some(self.tools.exec && above.tools.exec),
            submodules: Some(self.tools.submodules && above.tools.submodules),
            lfs: Some(self.tools.lfs && above.tools.lfs),
            hosts: new_rules.cloned().collect(),
            secrets: Some(self.secrets.iter().filter(usable).cloned().collect()),
            models: Some(self.models.iter().filter(askable).cloned().collect()),
            budget: Some(self.budget.min(above.budget)),
            limits: Some(limits),
            expires_at: Some(self.expires_at.min(above.expires_at)),
            egress: Some(egress),
            ..Narrowing::default()
        };
        let less = self.narrow(id, request).map_err(|error| above.more(error.dimension, &error.wanted))?;
        above.admits_sub_run(&less)?;
        Ok(Some(less))
    }

    /// The budget of a sub-run that nobody gave one: `usual`, or what is left of this run's where that is less.
    #[must_use]
    pub fn budget_for_sub_run(&self, usual: MicroUsd, used: MicroUsd) -> MicroUsd {
        usual.min(MicroUsd::from_micro(self.budget.micro().saturating_sub(used.micro())))
    }

    /// The error for a sub-run that asks for more than this warrant grants in a dimension.
    #[must_use]
    pub fn more(&self, dimension: &'static str, wanted: &dyn Display) -> SubRunError {
        let granted = match dimension {
            "run" => format!("run {} of org {}", self.run, self.org),
            "kind" => self.kind.to_string(),
            "repositories" => {
                told(self.repositories.iter().map(|one| format!("{}@{}", one.name, one.base.short())))
            }
            "push" => self.push_grant().map_or_else(|| "no push".to_owned(), |_| "its own branch".to_owned()),
            "paths" => told(&self.paths.write),
            "tools" => {
                let tools = [
                    ("exec", self.tools.exec),
                    ("submodules", self.tools.submodules),
                    ("lfs", self.tools.lfs),
                ];
                told(tools.iter().filter(|(_, granted)| *granted).map(|(name, _)| name))
            }
            "egress" => told(&self.egress),
            "hosts" => told(self.hosts.iter().map(|rules| &rules.host)),
            "secrets" => {
                told(self.secrets.iter().map(|one| format!("{} at {}{}", one.name, one.host, one.path)))
            }
            "setup" => told(self.setup.iter().flat_map(|setup| &setup.egress)),
            "models" => told(self.models.iter().map(|one| format!("{}/{}", one.provider, one.model))),
            "budget" => self.budget.to_string(),
            "limits" => told(self.limits.rows().iter().map(|(name, most)| format!("{name}={most}"))),
            _ => format!("at most until {}", self.expires_at),
        };
        SubRunError { dimension, wanted: wanted.to_string(), granted }
    }
}

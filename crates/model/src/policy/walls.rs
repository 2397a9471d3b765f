//! What of a policy is no advice: denied paths and hosts become part of the warrant when it is issued.
//!
//! Promise: a rule that denies a path or a host whatever tool, command or risk it comes with is enforced by broker and
//! database as well, whatever the agent says or does. It only takes away.

use super::judge::means_any_port;
use super::{Decision, Policies, PolicyRule};
use crate::action::ActionKind;
use crate::agent::AgentRole;
use crate::warrant::{HostPattern, PathPattern, PathRules};

/// One thing that a warrant lacks because a rule denies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wall<T> {
    /// What.
    pub what: T,
    /// The rule: `the org, rule 3: no hands on production`.
    pub because: String,
}

/// What warrants of one role lack because policies deny it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Walls {
    /// Paths that no push may change.
    pub paths: Vec<Wall<PathPattern>>,
    /// Hosts that can't be reached; on every port where the usual one is written.
    pub hosts: Vec<Wall<HostPattern>>,
}

impl PolicyRule {
    fn says_of_all(&self, role: AgentRole, kind: ActionKind) -> bool {
        !self.is_over
            && self.tools.is_empty()
            && self.risk.is_none()
            && (self.kinds.is_empty() || self.kinds.contains(&kind))
            && (self.roles.is_empty() || self.roles.contains(&role))
    }

    /// What of it is no advice but enforced by the warrant, in words; of rules before it nothing is known here.
    #[must_use]
    pub fn wall(&self) -> Option<&'static str> {
        let is_for_all =
            self.decision == Decision::Deny && self.tools.is_empty() && self.risk.is_none() && !self.is_over;
        if is_for_all && !self.paths.is_empty() && self.is_a_wall_for_paths() {
            return Some("enforced: a push that changes them is refused");
        }
        let reaches = self.kinds.is_empty() || self.kinds.contains(&ActionKind::Fetch);
        (is_for_all && !self.hosts.is_empty() && reaches).then_some("enforced: warrants don't grant them")
    }

    /// Whether it is a wall for pushes of some role.
    pub(super) fn is_a_wall_for_paths(&self) -> bool {
        self.tools.is_empty()
            && self.risk.is_none()
            && (self.kinds.is_empty() || self.kinds.contains(&ActionKind::Edit))
    }
}

impl Policies {
    /// What warrants of a role lack because of these policies.
    #[must_use]
    pub fn walls(&self, role: AgentRole) -> Walls {
        let mut walls = Walls::default();
        for layer in &self.0 {
            for (index, rule) in layer.policy.rules.iter().enumerate() {
                if rule.decision != Decision::Deny {
                    continue;
                }
                // An earlier rule that covers a pattern decides about all of it; one that covers a part of it makes no
                // hole, since warrants have no exceptions.
                let earlier =
                    || layer.policy.rules.iter().take(index).filter(|one| one.decision != Decision::Deny);
                let because = || layer.source(index, rule);
                if rule.says_of_all(role, ActionKind::Edit) {
                    let of_edits = |one: &&PolicyRule| one.says_of_all(role, ActionKind::Edit);
                    for path in &rule.paths {
                        let is_decided = earlier()
                            .filter(of_edits)
                            .any(|one| one.paths.iter().any(|mine| mine.covers(path)));
                        if !is_decided {
                            walls.paths.push(Wall { what: path.clone(), because: because() });
                        }
                    }
                }
                if rule.says_of_all(role, ActionKind::Fetch) {
                    let of_hosts = |one: &&PolicyRule| one.says_of_all(role, ActionKind::Fetch);
                    for host in &rule.hosts {
                        let is_decided = earlier()
                            .filter(of_hosts)
                            .any(|one| one.hosts.iter().any(|mine| mine.covers(host)));
                        if !is_decided {
                            walls.hosts.push(Wall { what: host.clone(), because: because() });
                        }
                    }
                }
            }
        }
        walls
    }
}

impl Walls {
    /// Lays the paths over a warrant that is being made.
    pub fn lay_over(&self, paths: &mut PathRules) {
        paths.protect(self.paths.iter().map(|wall| wall.what.clone()));
    }

    /// The rule that keeps a granted host out: all of it, or some of what its pattern grants.
    #[must_use]
    pub fn keeps_out(&self, granted: &HostPattern) -> Option<&Wall<HostPattern>> {
        self.hosts.iter().find(|wall| {
            let mut denied = wall.what.clone();
            if means_any_port(&denied) {
                denied = denied.at_port(granted.port());
            }
            denied.covers(granted) || granted.covers(&denied)
        })
    }
}

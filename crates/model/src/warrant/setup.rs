//! What a warrant grants to the set-up of its repository, which is done before the command starts.

use super::{HostPattern, NarrowError, Narrowing, Warrant, WarrantKind};
use crate::id::WarrantId;
use crate::money::MicroUsd;
use serde::{Deserialize, Serialize};

/// The grant of a set-up. It has its own hosts: those of package registries are of no use to the command later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetupGrant {
    /// Which hosts it may reach.
    pub egress: Vec<HostPattern>,
}

impl SetupGrant {
    /// Whether whatever `other` lets be reached this one does.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.egress.iter().all(|host| self.egress.iter().any(|mine| mine.covers(host)))
    }
}

impl Warrant {
    /// The warrant that the set-up runs under: it reads what the run reads, writes into its workspace, reaches the hosts of
    /// [`Warrant::setup`] and none of the run's own; it pushes nothing, asks no model, uses no secret and spends nothing.
    ///
    /// # Errors
    /// [`NarrowError`] for a warrant under which nothing may be executed, which has no set-up.
    pub fn for_setup(&self, id: WarrantId) -> Result<Self, NarrowError> {
        let mut child = self.narrow(
            id,
            Narrowing {
                kind: Some(WarrantKind::Review),
                push: Some(None),
                egress: Some(Vec::new()),
                secrets: Some(Vec::new()),
                models: Some(Vec::new()),
                budget: Some(MicroUsd::ZERO),
                ..Narrowing::default()
            },
        )?;
        child.egress = child.setup.take().map(|grant| grant.egress).unwrap_or_default();
        Ok(child)
    }
}

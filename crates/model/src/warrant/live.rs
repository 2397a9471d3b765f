//! A warrant in force: expiry by two clocks, and revocation.

use super::Warrant;
use crate::door::Clock;
use crate::refusal::{Refusal, Rule};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Why a warrant grants nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

/// A warrant together with the clock that it dies by.
///
/// It ends when *either* clock says so: the wall clock, so that it ends at its written expiry even on another machine;
/// the monotonic clock, so that turning the wall clock back gives it no second more than its lifetime.
pub struct LiveWarrant {
    warrant: Warrant,
    clock: Arc<dyn Clock>,
    started_monotonic_ms: i64,
    lifetime_ms: i64,
    revoked: AtomicBool,
}

impl std::fmt::Debug for LiveWarrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveWarrant").field("id", &self.warrant.id).field("lapse", &self.lapse()).finish()
    }
}

impl LiveWarrant {
    /// Puts a warrant in force. What is left of its lifetime by the wall clock is all it gets on the monotonic one.
    #[must_use]
    pub fn new(warrant: Warrant, clock: Arc<dyn Clock>) -> Self {
        let started_monotonic_ms = clock.monotonic_ms();
        let left = warrant.expires_at.saturating_sub(clock.wall_ms());
        let lifetime_ms = left.min(warrant.lifetime_ms());
        Self { warrant, clock, started_monotonic_ms, lifetime_ms, revoked: AtomicBool::new(false) }
    }

    /// The warrant, whether in force or not; for showing it. To act, ask [`LiveWarrant::in_force`].
    #[must_use]
    pub const fn warrant(&self) -> &Warrant {
        &self.warrant
    }

    /// Milliseconds until it expires; 0 when it has lapsed.
    #[must_use]
    pub fn left_ms(&self) -> i64 {
        if self.revoked.load(Ordering::SeqCst) {
            return 0;
        }
        let by_monotonic =
            self.lifetime_ms.saturating_sub(self.clock.monotonic_ms() - self.started_monotonic_ms);
        let by_wall = self.warrant.expires_at.saturating_sub(self.clock.wall_ms());
        by_monotonic.min(by_wall).max(0)
    }

    /// Why it grants nothing, or `None` while it is in force.
    #[must_use]
    pub fn lapse(&self) -> Option<Lapse> {
        if self.revoked.load(Ordering::SeqCst) {
            Some(Lapse::Revoked)
        } else if self.left_ms() <= 0 {
            Some(Lapse::Expired)
        } else {
            None
        }
    }

    /// The warrant, while it is in force.
    ///
    /// # Errors
    /// A refusal with the rule `warrant-expired` or `warrant-revoked`.
    pub fn in_force(&self) -> Result<&Warrant, Refusal> {
        match self.lapse() {
            None => Ok(&self.warrant),
            Some(Lapse::Expired) => Err(Refusal::new(
                Rule::WarrantExpired,
                self.warrant.id.to_string(),
                "the warrant's time is over",
            )),
            Some(Lapse::Revoked) => Err(Refusal::new(
                Rule::WarrantRevoked,
                self.warrant.id.to_string(),
                "the warrant was revoked",
            )),
        }
    }

    /// Takes it out of force at once and for good.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }
}

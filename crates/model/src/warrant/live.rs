//! A warrant in force: expiry by two clocks, revocation, and narrowing while it is used.

use super::{NarrowError, Warrant};
use crate::door::Clock;
use crate::refusal::{Refusal, Rule};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

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
///
/// It may be narrowed while it is in force. Each narrowing begins a new *generation*: whatever an earlier one admitted and
/// that still goes on is to be asked about again.
pub struct LiveWarrant {
    warrant: RwLock<Arc<Warrant>>,
    generation: AtomicU64,
    clock: Arc<dyn Clock>,
    started_monotonic_ms: i64,
    lifetime_ms: AtomicI64,
    revoked: AtomicBool,
    why: OnceLock<String>,
}

impl std::fmt::Debug for LiveWarrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveWarrant").field("id", &self.warrant().id).field("lapse", &self.lapse()).finish()
    }
}

impl LiveWarrant {
    /// Puts a warrant in force. What is left of its lifetime by the wall clock is all it gets on the monotonic one.
    #[must_use]
    pub fn new(warrant: Warrant, clock: Arc<dyn Clock>) -> Self {
        let started_monotonic_ms = clock.monotonic_ms();
        let left = warrant.expires_at.saturating_sub(clock.wall_ms());
        let lifetime_ms = left.min(warrant.lifetime_ms());
        Self {
            warrant: RwLock::new(Arc::new(warrant)),
            generation: AtomicU64::new(0),
            clock,
            started_monotonic_ms,
            lifetime_ms: AtomicI64::new(lifetime_ms),
            revoked: AtomicBool::new(false),
            why: OnceLock::new(),
        }
    }

    /// The warrant, whether in force or not; for showing it. To act, ask [`LiveWarrant::in_force`].
    #[must_use]
    pub fn warrant(&self) -> Arc<Warrant> {
        Arc::clone(&self.warrant.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often it was narrowed while in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Puts a narrower warrant of the same run in the place of this one, at once. The generation that begins with it.
    ///
    /// # Errors
    /// [`NarrowError`] when `child` would grant anything that this one does not; nothing changes then.
    pub fn narrow_to(&self, child: Warrant) -> Result<u64, NarrowError> {
        let mut current = self.warrant.write().unwrap_or_else(PoisonError::into_inner);
        current.covers(&child)?;
        let passed = self.clock.monotonic_ms().saturating_sub(self.started_monotonic_ms);
        let left = child.expires_at.saturating_sub(self.clock.wall_ms());
        self.lifetime_ms.fetch_min(passed.saturating_add(left), Ordering::SeqCst);
        *current = Arc::new(child);
        Ok(self.generation.fetch_add(1, Ordering::SeqCst).saturating_add(1))
    }

    /// Milliseconds until it expires; 0 when it has lapsed.
    #[must_use]
    pub fn left_ms(&self) -> i64 {
        if self.revoked.load(Ordering::SeqCst) {
            return 0;
        }
        let lifetime_ms = self.lifetime_ms.load(Ordering::SeqCst);
        let by_monotonic = lifetime_ms.saturating_sub(self.clock.monotonic_ms() - self.started_monotonic_ms);
        let by_wall = self.warrant().expires_at.saturating_sub(self.clock.wall_ms());
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
    pub fn in_force(&self) -> Result<Arc<Warrant>, Refusal> {
        match self.lapse() {
            None => Ok(self.warrant()),
            Some(Lapse::Expired) => Err(Refusal::new(
                Rule::WarrantExpired,
                self.warrant().id.to_string(),
                "the warrant's time is over",
            )),
            Some(Lapse::Revoked) => Err(Refusal::new(
                Rule::WarrantRevoked,
                self.warrant().id.to_string(),
                self.why_revoked().unwrap_or("the warrant was revoked"),
            )),
        }
    }

    /// Takes it out of force at once and for good.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }

    /// The same, with the reason that everybody is told from now on.
    pub fn revoke_because(&self, why: String) {
        // The first reason counts.
        let _known = self.why.set(why);
        self.revoke();
    }

    /// Why it was revoked, where that was said.
    #[must_use]
    pub fn why_revoked(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }
}

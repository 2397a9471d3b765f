//! The system's clock and randomness: the one place that opens these two doors.
//!
//! Everything else takes a [`Clock`] and an [`Entropy`] as parameters.

use tipstaff_model::{Clock, Entropy};

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door to the wall clock")]
    fn wall_ms(&self) -> i64 {
        let now = std::time::SystemTime::now();
        match now.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }

    /// Milliseconds since the machine started, sleep included (`CLOCK_BOOTTIME`), on Linux: the same number in every
    /// process of the machine. Elsewhere the monotonic clock, which may stop while the machine sleeps.
    fn monotonic_ms(&self) -> i64 {
        #[cfg(target_os = "linux")]
        let id = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let id = rustix::time::ClockId::Monotonic;
        let now = rustix::time::clock_gettime(id);
        now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
    }
}

/// The operating system's random number generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// Fills `bytes`.
    ///
    /// # Panics
    /// When the operating system has no randomness to give: going on with predictable keys would be worse than ending.
    #[expect(
        clippy::disallowed_methods,
        clippy::panic,
        reason = "this is the door to randomness; see Panics"
    )]
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            panic!(
                "the operating system gives no random bytes ({error}): refusing to go on with predictable keys"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_move_forward_and_are_plausible() {
        let clock = SystemClock;
        assert!(clock.wall_ms() > 1_700_000_000_000, "after 2023");
        let first = clock.monotonic_ms();
        assert!(first > 0);
        assert!(clock.monotonic_ms() >= first);
    }

    #[test]
    fn randomness_differs_and_fills_every_byte() {
        let (mut a, mut b) = ([0_u8; 64], [0_u8; 64]);
        SystemEntropy.fill(&mut a);
        SystemEntropy.fill(&mut b);
        assert_ne!(a, b);
        assert!(a.iter().filter(|byte| **byte == 0).count() < 8);
    }
}

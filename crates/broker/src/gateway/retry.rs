//! When a request is sent again, and where to.
//!
//! Promises: a request goes out at most so often and waits at most so long in all; a pause is never shorter than what
//! the upstream asked for, and one that asks for more than the bound is not asked again; what may have been worked on is
//! not sent twice.

use std::time::Duration;
use tipstaff_model::Entropy;
use tokio::time::Instant;

/// The bounds of sending again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetryBounds {
    /// Attempts in all, at all upstreams of the route.
    pub(crate) attempts: u32,
    /// From the first attempt to the beginning of the last, at most.
    pub(crate) time: Duration,
    /// The longest pause that an upstream may ask for.
    pub(crate) longest_pause: Duration,
    /// The first pause; each is twice as long as the one before.
    pub(crate) first_pause: Duration,
}

/// Why an attempt came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing was sent: nobody was reached.
    Unreached,
    /// It is left alone for a while, since it failed again and again.
    Resting,
    /// The upstream says that it can't now, with the pause that it asks for.
    Status(u16, Option<Duration>),
    /// What must not be sent again: it may have been worked on, or would be refused again.
    Final,
}

impl Trouble {
    /// Whether the next upstream of the route may serve instead.
    const fn may_move(self) -> bool {
        matches!(self, Self::Unreached | Self::Resting | Self::Status(500..=599, _))
    }

    /// Whether the same upstream may be asked again, and after which pause at least.
    const fn may_repeat(self) -> Option<Duration> {
        match self {
            Self::Unreached | Self::Status(502..=504 | 529, None) => Some(Duration::ZERO),
            Self::Status(429 | 502..=504 | 529, Some(pause)) => Some(pause),
            // Without a time to come back, a 429 may mean a quota that no waiting helps.
            Self::Status(..) | Self::Resting | Self::Final => None,
        }
    }
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask this upstream of the route, after this pause.
    Ask(usize, Duration),
    /// Say what the last attempt came to.
    GiveUp,
}

/// The attempts of one request.
pub(crate) struct Attempts<'e> {
    bounds: RetryBounds,
    upstreams: usize,
    entropy: &'e dyn Entropy,
    begun: Instant,
    made: u32,
    /// Pauses made.
    pauses: u32,
    /// The upstream of the last attempt.
    at: usize,
}

impl<'e> Attempts<'e> {
    /// Before the first one, which goes to the upstream 0 of `upstreams`.
    pub(crate) fn new(bounds: RetryBounds, upstreams: usize, entropy: &'e dyn Entropy) -> Self {
        Self { bounds, upstreams, entropy, begun: Instant::now(), made: 0, pauses: 0, at: 0 }
    }

    /// What comes after an attempt that came to nothing.
    pub(crate) fn after(&mut self, trouble: Trouble) -> Next {
        self.made = self.made.saturating_add(1);
        if self.made >= self.bounds.attempts {
            return Next::GiveUp;
        }
        if trouble.may_move() && self.at + 1 < self.upstreams {
            self.at += 1;
            return Next::Ask(self.at, Duration::ZERO);
        }
        let Some(least) = trouble.may_repeat() else { return Next::GiveUp };
        if least > self.bounds.longest_pause {
            return Next::GiveUp;
        }
        let usual = self.bounds.first_pause.saturating_mul(1 << self.pauses.min(10));
        let pause = least.max(self.jittered(usual.min(self.bounds.longest_pause)));
        self.pauses = self.pauses.saturating_add(1);
        if self.begun.elapsed().saturating_add(pause) > self.bounds.time {
            return Next::GiveUp;
        }
        // A rate limit is of this upstream; other trouble is tried from the beginning of the route.
        if trouble.may_move() {
            self.at = 0;
        }
        Next::Ask(self.at, pause)
    }

    /// Between a half of `pause` and all of it, so that those who failed together don't come back together.
    fn jittered(&self, pause: Duration) -> Duration {
        let mut bytes = [0_u8; 4];
        self.entropy.fill(&mut bytes);
        let half = pause / 2;
        half + half.saturating_mul(u32::from_le_bytes(bytes) >> 16) / 65_536
    }
}

/// What a field `retry-after` says: seconds. Dates are not read: the clocks of two machines differ.
pub(crate) fn retry_after(seconds: Option<&str>, milliseconds: Option<&str>) -> Option<Duration> {
    let number = |text: Option<&str>| -> Option<u64> {
        let text = text?.trim();
        (text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
    };
    number(milliseconds).map(Duration::from_millis).or_else(|| number(seconds).map(Duration::from_secs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipstaff_model::FixedEntropy;

    const BOUNDS: RetryBounds = RetryBounds {
        attempts: 4,
        time: Duration::from_secs(60),
        longest_pause: Duration::from_secs(20),
        first_pause: Duration::from_millis(500),
    };

    fn seconds(count: u64) -> Option<Duration> {
        Some(Duration::from_secs(count))
    }

    /// Fails the same way until it is given up: where each attempt goes, and after which pause.
    async fn course(bounds: RetryBounds, upstreams: usize, trouble: Trouble) -> Vec<(usize, Duration)> {
        let entropy = FixedEntropy::seeded(3);
        let mut attempts = Attempts::new(bounds, upstreams, &entropy);
        let mut found = Vec::new();
        while let Next::Ask(at, pause) = attempts.after(trouble) {
            tokio::time::sleep(pause).await;
            found.push((at, pause));
        }
        found
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_with_jitter_and_attempts_end() {
        let found = course(BOUNDS, 1, Trouble::Unreached).await;
        assert_eq!(found.len(), 3);
        for ((_, pause), usual) in found.iter().zip([500, 1_000, 2_000]) {
            let usual = Duration::from_millis(usual);
            assert!(*pause >= usual / 2 && *pause <= usual, "{found:?}");
        }
        let many = course(RetryBounds { attempts: 100, ..BOUNDS }, 1, Trouble::Status(529, None)).await;
        let waited: Duration = many.iter().map(|(_, pause)| *pause).sum();
        assert!(waited <= BOUNDS.time && waited > BOUNDS.time / 2, "{waited:?}");
        assert!(many.iter().all(|(_, pause)| *pause <= BOUNDS.longest_pause));
    }

    #[tokio::test(start_paused = true)]
    async fn the_upstreams_own_time_is_kept_within_the_bound() {
        let found = course(BOUNDS, 1, Trouble::Status(429, seconds(7))).await;
        assert_eq!(found.iter().map(|(_, pause)| pause.as_secs()).collect::<Vec<_>>(), [7, 7, 7]);
        let found = course(BOUNDS, 1, Trouble::Status(503, seconds(20))).await;
        assert_eq!(found.len(), 3, "60 s in all");
        for trouble in
            [Trouble::Status(429, seconds(21)), Trouble::Status(429, None), Trouble::Status(500, None)]
        {
            assert!(course(BOUNDS, 1, trouble).await.is_empty(), "{trouble:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_worked_on_is_not_sent_twice() {
        for trouble in [Trouble::Final, Trouble::Status(400, seconds(1)), Trouble::Status(401, None)] {
            assert!(course(BOUNDS, 3, trouble).await.is_empty(), "{trouble:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_upstream_serves_at_once_and_a_rate_limit_stays_where_it_is() {
        let found = course(BOUNDS, 3, Trouble::Status(500, None)).await;
        assert_eq!(found, [(1, Duration::ZERO), (2, Duration::ZERO)], "500 is not repeated at the last one");
        let found = course(BOUNDS, 2, Trouble::Unreached).await;
        assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!(found.iter().map(|(_, pause)| pause.is_zero()).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(course(BOUNDS, 2, Trouble::Resting).await, [(1, Duration::ZERO)], "nobody waits for it");
        let found = course(BOUNDS, 2, Trouble::Status(429, seconds(1))).await;
        assert!(found.iter().all(|(at, _)| *at == 0), "{found:?}");
    }

    #[test]
    fn a_time_to_come_back_is_read_exactly() {
        assert_eq!(retry_after(Some("7"), None), seconds(7));
        assert_eq!(retry_after(Some("7"), Some("250")), Some(Duration::from_millis(250)));
        for bad in ["", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999"] {
            assert_eq!(retry_after(Some(bad), None), None, "{bad}");
        }
    }
}

//! The way to one upstream, shared by all runs of a process: how many calls at once, who is next, and whether it is alive.
//!
//! Promises: no more calls are open at an upstream than its bound; calls that wait are taken in turns of the runs, so one
//! run's flood costs the others one place each; what can't wait is told at once when to come back; an upstream that
//! failed again and again is left alone for a while, then asked by one call alone.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tipstaff_model::RunId;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The bounds of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaneBounds {
    /// Calls at once.
    pub(crate) calls: usize,
    /// Calls that wait.
    pub(crate) queue: usize,
    /// How long one waits.
    pub(crate) wait: Duration,
    /// Failures in a row that close the lane.
    pub(crate) failures: u32,
    /// For how long; each time that the probe fails twice as long, at most eight times.
    pub(crate) rest: Duration,
}

/// Why a call got no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSeat {
    /// The upstream failed again and again; it is asked again after so long.
    Resting(Duration),
    /// Too many wait already, or it waited too long.
    Full,
}

/// One upstream's lane. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lane(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    open: usize,
    waiting: usize,
    /// Who waits, by run, each in order of arrival.
    lines: HashMap<RunId, VecDeque<oneshot::Sender<Seat>>>,
    /// Whose turn it is.
    turns: VecDeque<RunId>,
    failures: u32,
    /// Until when nobody is let through, and how long that is.
    rest: Option<(Instant, Duration)>,
    /// A call that finds out whether the upstream is back.
    probing: bool,
}

/// A place in the lane, until it is dropped. Say [`Seat::went`] before.
#[derive(Debug)]
pub(crate) struct Seat {
    lane: Lane,
    bounds: LaneBounds,
    is_probe: bool,
}

impl Lane {
    fn held(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a call of `run`, as soon as it is its turn.
    pub(crate) async fn enter(&self, run: RunId, bounds: LaneBounds) -> Result<Seat, NoSeat> {
        let waits = {
            let mut state = self.held();
            let mut is_probe = false;
            if let Some((until, _)) = state.rest {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() || state.probing {
                    return Err(NoSeat::Resting(left.max(Duration::from_secs(1))));
                }
                state.probing = true;
                is_probe = true;
            }
            if is_probe || (state.open < bounds.calls && state.waiting == 0) {
                state.open += 1;
                return Ok(Seat { lane: self.clone(), bounds, is_probe });
            }
            state.sweep();
            if state.waiting >= bounds.queue && !state.make_room(run) {
                return Err(NoSeat::Full);
            }
            state.wait(run)
        };
        match tokio::time::timeout(bounds.wait, waits).await {
            Ok(Ok(place)) => Ok(place),
            // Dropped: it made room for another run's, or the upstream rests now.
            Ok(Err(_)) => Err(self.resting().map_or(NoSeat::Full, NoSeat::Resting)),
            Err(_) => Err(NoSeat::Full),
        }
    }

    fn resting(&self) -> Option<Duration> {
        let (until, _) = self.held().rest?;
        Some(until.saturating_duration_since(Instant::now()).max(Duration::from_secs(1)))
    }

    /// Gives a free place to whoever is next.
    fn leave(&self, bounds: LaneBounds, was_probe: bool) {
        let mut state = self.held();
        state.open = state.open.saturating_sub(1);
        if was_probe {
            state.probing = false;
        }
        while state.open < bounds.calls {
            let Some(next) = state.next() else { return };
            state.open += 1;
            let place = Seat { lane: self.clone(), bounds, is_probe: false };
            // Not under the lock: a place that nobody takes comes back here.
            drop(state);
            let refused = next.send(place).err();
            if let Some(mut place) = refused {
                place.forget();
                state = self.held();
                state.open = state.open.saturating_sub(1);
            } else {
                state = self.held();
            }
        }
    }
}

impl State {
    fn wait(&mut self, run: RunId) -> oneshot::Receiver<Seat> {
        let (sender, receiver) = oneshot::channel();
        let line = self.lines.entry(run).or_default();
        if line.is_empty() {
            self.turns.push_back(run);
        }
        line.push_back(sender);
        self.waiting += 1;
        receiver
    }

    /// Forgets those who went away.
    fn sweep(&mut self) {
        self.lines.retain(|_, line| {
            line.retain(|sender| !sender.is_closed());
            !line.is_empty()
        });
        let lines = &self.lines;
        self.turns.retain(|run| lines.contains_key(run));
        self.waiting = self.lines.values().map(VecDeque::len).sum();
    }

    /// The longest line gives up its last place to a shorter one; false when the shorter one is not there.
    fn make_room(&mut self, run: RunId) -> bool {
        let own = self.lines.get(&run).map_or(0, VecDeque::len);
        let Some(longest) = self.lines.values_mut().max_by_key(|line| line.len()) else { return false };
        if longest.len() <= own + 1 {
            return false;
        }
        longest.pop_back();
        self.waiting = self.waiting.saturating_sub(1);
        true
    }

    fn next(&mut self) -> Option<oneshot::Sender<Seat>> {
        while let Some(run) = self.turns.pop_front() {
            let Some(line) = self.lines.get_mut(&run) else { continue };
            let next = line.pop_front();
            let is_empty = line.is_empty();
            if is_empty {
                self.lines.remove(&run);
            } else {
                self.turns.push_back(run);
            }
            if let Some(next) = next {
                self.waiting = self.waiting.saturating_sub(1);
                if !next.is_closed() {
                    return Some(next);
                }
            }
        }
        None
    }
}

impl Seat {
    /// Says how it went: whether the upstream works, whatever it said.
    pub(crate) fn went(&self, well: bool) {
        let mut state = self.lane.held();
        if well {
            state.failures = 0;
            state.rest = None;
            return;
        }
        state.failures = state.failures.saturating_add(1);
        let rests = state.rest.is_some();
        if (rests && self.is_probe) || (!rests && state.failures >= self.bounds.failures) {
            let longest = self.bounds.rest.saturating_mul(8);
            let rest = state.rest.map_or(self.bounds.rest, |(_, last)| last.saturating_mul(2).min(longest));
            state.rest = Some((Instant::now() + rest, rest));
            // Who waits is told now instead of one after the other.
            state.lines.clear();
            state.turns.clear();
            state.waiting = 0;
        }
    }

    /// It was never anybody's: who made it counts it.
    fn forget(&mut self) {
        self.bounds.calls = 0;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.bounds.calls > 0 {
            self.lane.leave(self.bounds, self.is_probe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipstaff_model::{FixedClock, FixedEntropy};

    const BOUNDS: LaneBounds = LaneBounds {
        calls: 2,
        queue: 4,
        wait: Duration::from_secs(30),
        failures: 3,
        rest: Duration::from_secs(15),
    };

    fn runs(count: usize) -> Vec<RunId> {
        let (clock, entropy) = (FixedClock::at(1), FixedEntropy::seeded(1));
        (0..count).map(|_| RunId::new(&clock, &entropy)).collect()
    }

    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    /// Enters in a task of its own and says its name when it is in; the place is held until told.
    fn line_up(
        lane: &Lane,
        run: RunId,
        name: &'static str,
        log: &Arc<Mutex<Vec<String>>>,
    ) -> oneshot::Sender<()> {
        let (release, released) = oneshot::channel::<()>();
        let (lane, log) = (lane.clone(), Arc::clone(log));
        tokio::spawn(async move {
            let place = lane.enter(run, BOUNDS).await;
            log.lock().unwrap().push(match &place {
                Ok(_) => name.to_owned(),
                Err(why) => format!("{name} {why:?}"),
            });
            let _ = released.await;
            drop(place);
        });
        release
    }

    #[tokio::test(start_paused = true)]
    async fn runs_take_turns_and_the_longest_line_gives_way() {
        let (lane, log, runs) = (Lane::default(), Arc::new(Mutex::new(Vec::new())), runs(3));
        let mut held = Vec::new();
        // One run floods: two calls are in, four wait, the seventh is shed at once.
        for name in ["a1", "a2", "a3", "a4", "a5", "a6", "a7"] {
            held.push(line_up(&lane, runs[0], name, &log));
            settle().await;
        }
        // Others come: each takes the last place of the flood, and has its turn after one of it.
        for (run, name) in [(runs[1], "b1"), (runs[2], "c1")] {
            held.push(line_up(&lane, run, name, &log));
            settle().await;
        }
        assert_eq!(*log.lock().unwrap(), ["a1", "a2", "a7 Full", "a6 Full", "a5 Full"]);
        log.lock().unwrap().clear();
        for release in held {
            let _ = release.send(());
            settle().await;
        }
        assert_eq!(*log.lock().unwrap(), ["a3", "b1", "c1", "a4"], "in turns");
        let state = lane.held();
        assert_eq!((state.open, state.waiting), (0, 0), "{state:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_too_long_or_goes_away_holds_nobody_up() {
        let (lane, log, runs) = (Lane::default(), Arc::new(Mutex::new(Vec::new())), runs(2));
        let first = lane.enter(runs[0], BOUNDS).await.unwrap();
        let second = lane.enter(runs[0], BOUNDS).await.unwrap();
        let begun = Instant::now();
        assert_eq!(lane.enter(runs[0], BOUNDS).await.unwrap_err(), NoSeat::Full);
        assert!(begun.elapsed() >= BOUNDS.wait, "{:?}", begun.elapsed());
        let gone = tokio::spawn({
            let lane = lane.clone();
            let run = runs[0];
            async move { lane.enter(run, BOUNDS).await }
        });
        settle().await;
        gone.abort();
        settle().await;
        let _last = line_up(&lane, runs[1], "last", &log);
        settle().await;
        drop(first);
        settle().await;
        assert_eq!(*log.lock().unwrap(), ["last"], "the dead one was passed over");
        drop(second);
        assert_eq!(lane.held().open, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_fails_is_left_alone_and_then_asked_by_one() {
        let (lane, runs) = (Lane::default(), runs(2));
        let fails = async || lane.enter(runs[0], BOUNDS).await.map(|place| place.went(false));
        for _ in 0..2 {
            fails().await.unwrap();
        }
        // A success in between counts from the beginning.
        lane.enter(runs[0], BOUNDS).await.unwrap().went(true);
        for _ in 0..3 {
            fails().await.unwrap();
        }
        assert_eq!(fails().await.unwrap_err(), NoSeat::Resting(BOUNDS.rest), "at once, whoever asks");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(fails().await.unwrap_err(), NoSeat::Resting(Duration::from_secs(5)));
        tokio::time::advance(Duration::from_secs(5)).await;
        // One alone finds out; the others still wait outside.
        let probe = lane.enter(runs[0], BOUNDS).await.unwrap();
        assert_eq!(lane.enter(runs[1], BOUNDS).await.unwrap_err(), NoSeat::Resting(Duration::from_secs(1)));
        probe.went(false);
        drop(probe);
        assert_eq!(fails().await.unwrap_err(), NoSeat::Resting(BOUNDS.rest * 2), "longer each time");
        tokio::time::advance(BOUNDS.rest * 2).await;
        // A probe that is dropped without a word lets another one try.
        drop(lane.enter(runs[0], BOUNDS).await.unwrap());
        lane.enter(runs[1], BOUNDS).await.unwrap().went(true);
        let (a, b) = (lane.enter(runs[0], BOUNDS).await, lane.enter(runs[1], BOUNDS).await);
        assert!(a.is_ok() && b.is_ok(), "open again");
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_told_when_the_upstream_is_given_up() {
        let (lane, log, runs) = (Lane::default(), Arc::new(Mutex::new(Vec::new())), runs(2));
        let bounds = LaneBounds { failures: 1, ..BOUNDS };
        let places = [lane.enter(runs[0], bounds).await.unwrap(), lane.enter(runs[0], bounds).await.unwrap()];
        let _waits = line_up(&lane, runs[1], "b", &log);
        settle().await;
        places[0].went(false);
        settle().await;
        assert_eq!(*log.lock().unwrap(), ["b Resting(15s)"]);
    }
}

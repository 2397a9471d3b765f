//! Watching one running sandbox until it ends: output, time, disk, lease, cancellation.
//!
//! Whatever happens, the process tree is dead when this returns.

use crate::RunnerError;
use crate::announce::{Notice, Observer, Stream};
use crate::life::Life;
use crate::narrowing;
use crate::session::{BUFFER, Listener, Session};
use crate::talk::{Attendance, Attended, End, Present};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;
use tipstaff_broker::{BrokerHandle, BudgetEnd};
use tipstaff_model::{BudgetScope, Clock, ControlPlane, ControlPlaneError, ExitReason, LiveWarrant, Warrant};
use tipstaff_sandbox::{Exit, ExitCause, Running, UsageBound, tree_usage};
use tipstaff_seal::VerifyingKey;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// How often the lease is renewed.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often output is written to the store.
const FLUSH: Duration = Duration::from_millis(150);
/// How often the workspace is measured, at least.
const MEASURE: Duration = Duration::from_secs(1);
/// How long the control plane may be silent before the run is stopped: a little less than the lease holds, so that
/// nobody else begins the task while this run still works.
const SILENCE_MS: i64 = 45_000;
/// Bytes that must stay free on the disk of the state, for the audit log above all.
pub(crate) const DISK_RESERVE: u64 = 512 * 1024 * 1024;
/// How long an agent may go on once its budget is spent or it gave up: it may end by itself.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(20);

/// A person's wish to end a run, from any thread.
#[derive(Debug, Clone)]
pub struct Cancel(watch::Sender<bool>);

impl Default for Cancel {
    fn default() -> Self {
        Self(watch::channel(false).0)
    }
}

impl Cancel {
    /// Ends the run; its work so far is kept.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    async fn cancelled(&self) {
        let mut watched = self.0.subscribe();
        // The sender lives in `self`, so this can't fail.
        let _ended = watched.wait_for(|cancelled| *cancelled).await;
    }
}

/// How a watched sandbox ended.
#[derive(Debug)]
pub(crate) struct Supervised {
    /// How the command ended.
    pub(crate) exit: Exit,
    /// Why we ended it, when we did.
    pub(crate) stopped: Option<ExitReason>,
    /// Why the agent can't be spoken with any more, when that is why we ended it.
    pub(crate) broken: Option<String>,
    /// Whether its turn was over and only its process went on, so that we ended that.
    pub(crate) dismissed: bool,
    /// Bytes of output that were dropped at the bound.
    pub(crate) dropped: u64,
}

/// How long an agent may do nothing at all: print nothing, ask no model, change no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// After this it is said; `None` for never.
    pub warning: Option<Duration>,
    /// After this the run is stopped; `None` for never.
    pub stop: Option<Duration>,
}

impl Default for Stall {
    fn default() -> Self {
        Self { warning: Some(Duration::from_secs(180)), stop: Some(Duration::from_secs(300)) }
    }
}

/// What the watch is over.
pub(crate) struct Watch<'a> {
    pub(crate) warrant: &'a LiveWarrant,
    /// The control plane's key: a narrower warrant is checked here, too.
    pub(crate) key: &'a VerifyingKey,
    /// What else goes by the warrant and is to be told when it was narrowed.
    pub(crate) narrowed: &'a (dyn Fn(&Warrant) + Send + Sync),
    pub(crate) control: &'a dyn ControlPlane,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) cancel: &'a Cancel,
    /// What grows while the run writes: the overlay's upper layer or the clone, and the folders of its session.
    pub(crate) measured: Vec<PathBuf>,
    /// Bytes that `measured` held before the run.
    pub(crate) measured_before: u64,
    /// The run's own time.
    pub(crate) wall: Duration,
    /// How long an agent may do nothing.
    pub(crate) stall: Stall,
    /// The run's way out, where the watch minds it: traffic is a sign of life, and its money may end.
    pub(crate) broker: Option<&'a BrokerHandle>,
}

struct Chunk {
    stream: Stream,
    bytes: Vec<u8>,
}

fn pump(fd: Option<OwnedFd>, stream: Stream, to: mpsc::Sender<Chunk>) -> Result<(), RunnerError> {
    let Some(fd) = fd else { return Ok(()) };
    let mut pipe = Receiver::from_owned_fd(fd).map_err(RunnerError::io("reading the command's output"))?;
    tokio::spawn(async move {
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            match pipe.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                    if to.send(Chunk { stream, bytes }).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    Ok(())
}

/// Bytes by which the trees together have grown, or `None` when the measure is not to be trusted, which counts as too much.
fn growth(paths: &[PathBuf], before: u64) -> Option<u64> {
    let mut bytes = 0_u64;
    for path in paths {
        match tree_usage(path, UsageBound::default()) {
            Ok(usage) if usage.complete => bytes = bytes.saturating_add(usage.bytes),
            Ok(_) => return None,
            Err(_) => {}
        }
    }
    Some(bytes.saturating_sub(before))
}

/// Bytes of the trees together, before anybody writes there.
pub(crate) fn measured_before(paths: &[PathBuf]) -> u64 {
    growth(paths, 0).unwrap_or(0)
}

/// How we end a run.
#[derive(Default)]
struct Stop {
    reason: Option<ExitReason>,
    /// The error of the control plane that made us.
    failure: Option<ControlPlaneError>,
    broken: Option<String>,
    dismissed: bool,
}

impl Stop {
    /// Takes what attending to the run came to.
    fn take(&mut self, attended: Result<(), End>) {
        match attended {
            Ok(()) => {}
            Err(End::Broken(why)) => {
                self.reason = self.reason.or(Some(ExitReason::AgentFailed));
                self.broken.get_or_insert(why);
            }
            Err(End::Control(error)) => {
                let lost = matches!(error, ControlPlaneError::LeaseLost);
                self.reason = Some(if lost { ExitReason::LeaseLost } else { ExitReason::Internal });
                self.failure = Some(error);
            }
        }
    }
}

/// Watches until the tree is dead. `attended` is there when the agent is spoken with.
pub(crate) async fn supervise(
    running: &mut Running,
    watch: &Watch<'_>,
    session: &mut Session,
    attended: Option<Attended>,
) -> Result<Supervised, RunnerError> {
    let ended = crate::wait::end_of(running)?;
    let mut attendance = Attendance::new(attended, running.stdin.take())?;
    let (sender, mut chunks) = mpsc::channel(32);
    pump(running.stdout.take(), Stream::Stdout, sender.clone())?;
    pump(running.stderr.take(), Stream::Stderr, sender)?;
    let listener = Listener { observer: watch.observer, clock: watch.clock };
    let mut budget = watch.broker.map(BrokerHandle::budget_ended);
    let mut life = Life::new(watch);
    let mut deadline = Instant::now() + watch.wall;
    let mut heartbeat = interval(HEARTBEAT);
    let mut flush = interval(FLUSH);
    let mut warrant_check = interval(Duration::from_millis(250));
    let mut news = interval(attendance.pace());
    for timer in [&mut heartbeat, &mut flush, &mut warrant_check, &mut news] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut next_measure = Instant::now() + MEASURE;
    let mut last_news_ms = watch.clock.monotonic_ms();
    let mut stop = Stop::default();
    let mut open = true;
    stop.take(attendance.begin(Present { watch, session, listener: &listener }).await);

    let exit = loop {
        tokio::select! {
            biased;
            ready = ended.readable() => {
                if let Some(exit) = running.try_wait()? { break exit; }
                if let Ok(mut guard) = ready { guard.clear_ready(); }
            }
            () = watch.cancel.cancelled(), if stop.reason.is_none() => stop.reason = Some(ExitReason::CancelledByPerson),
            () = sleep_until(deadline), if stop.reason.is_none() => stop.reason = Some(ExitReason::TimedOut),
            end = budget_end(&mut budget), if stop.reason.is_none() && life.last_words.is_none() => {
                session.remark(budget_text(&end), &listener);
                life.last_words = Some(Instant::now() + LAST_WORDS);
            }
            () = sleep_until(life.last_words.unwrap_or(deadline)), if stop.reason.is_none() && life.last_words.is_some() => {
                stop.reason = Some(ExitReason::BudgetExceeded);
            }
            _ = warrant_check.tick() => {
                if stop.reason.is_none() && session.is_read() {
                    stop.reason = life.look(watch, session, &listener, attendance.waits_for_a_person());
                }
                if stop.reason.is_none() && let Some(lapse) = watch.warrant.lapse() {
                    stop.reason = Some(match lapse {
                        tipstaff_model::warrant::Lapse::Revoked => ExitReason::WarrantRevoked,
                        tipstaff_model::warrant::Lapse::Expired => ExitReason::TimedOut,
                    });
                }
            }
            () = sleep_until(attendance.closing().unwrap_or(deadline)),
                if stop.reason.is_none() && attendance.closing().is_some() =>
            {
                match attendance.not_closed() {
                    Some(end) => stop.take(Err(end)),
                    None => stop.dismissed = true,
                }
            }
            _ = news.tick(), if stop.reason.is_none() => {
                let present = Present { watch, session, listener: &listener };
                stop.take(attendance.look(running, present).await);
            }
            _ = heartbeat.tick() => match watch.control.heartbeat().await {
                Ok(news) => {
                    last_news_ms = watch.clock.monotonic_ms();
                    if news.warrant_revoked {
                        watch.warrant.revoke();
                        stop.reason = stop.reason.or(Some(ExitReason::WarrantRevoked));
                    } else if let Some(why) = news.ended_above {
                        if stop.reason.is_none() {
                            session.remark(format!("{why}; this run ends with it"), &listener);
                        }
                        watch.warrant.revoke_because(why);
                        stop.reason = stop.reason.or(Some(ExitReason::WarrantRevoked));
                    } else if news.cancel_requested {
                        stop.reason = stop.reason.or(Some(ExitReason::CancelledByPerson));
                    } else if let Some(text) = news.warrant
                        && stop.reason.is_none()
                    {
                        match narrowing::take(watch, session, &listener, &text).await {
                            Ok(earlier) => deadline = earlier.map_or(deadline, |earlier| deadline.min(earlier)),
                            Err(error) => {
                                stop.reason = Some(ExitReason::Refused);
                                stop.failure = error;
                            }
                        }
                    }
                }
                Err(ControlPlaneError::LeaseLost) => {
                    stop.reason = Some(ExitReason::LeaseLost);
                    stop.failure = Some(ControlPlaneError::LeaseLost);
                }
                Err(error) => {
                    if watch.clock.monotonic_ms() - last_news_ms > SILENCE_MS {
                        stop.reason = Some(ExitReason::Internal);
                        stop.failure = Some(error);
                    }
                }
            },
            () = sleep_until(next_measure), if stop.reason.is_none() => {
                let begun = Instant::now();
                let (grown, trouble) = measure(watch).await;
                if let Some(reason) = trouble {
                    watch.observer.notice(Notice::Remark(reason));
                    stop.reason = Some(ExitReason::OutOfDisk);
                }
                if grown != life.grown {
                    life.grown = grown;
                    life.seen = Instant::now();
                }
                // A tree that takes long to measure is measured less often.
                next_measure = Instant::now() + MEASURE.max(begun.elapsed() * 10);
            }
            chunk = chunks.recv(), if open => match chunk {
                Some(chunk) => {
                    life.seen = Instant::now();
                    session.take(chunk.stream, &chunk.bytes, &listener);
                    if chunk.stream == Stream::Stdout && stop.reason.is_none() {
                        let present = Present { watch, session, listener: &listener };
                        stop.take(attendance.hear(&chunk.bytes, present).await);
                    }
                    if session.pending_bytes() >= BUFFER
                        && let Err(error) = session.flush(watch.control).await
                    {
                        stop.reason = stop.reason.or(Some(ExitReason::Internal));
                        stop.failure = stop.failure.or(Some(error));
                    }
                }
                None => open = false,
            },
            _ = flush.tick() => {
                // Output that can't be kept is no reason to lose the run; a store that is gone for long is, by the heartbeat.
                let _kept_for_later = session.flush(watch.control).await;
            }
        }
        if (stop.reason.is_some() || stop.dismissed) && running.try_wait()?.is_none() {
            running.kill()?;
            break running.wait()?;
        }
    };
    // Nothing holds the pipes any more but what is already in them.
    while let Some(chunk) = chunks.recv().await {
        session.take(chunk.stream, &chunk.bytes, &listener);
    }
    // The money may have ended in the very moment in which the agent did.
    let ended_meanwhile = budget.as_ref().and_then(|budget| *budget.borrow());
    if let Some(end) = ended_meanwhile.filter(|_| life.last_words.is_none()) {
        session.remark(budget_text(&end), &listener);
        life.last_words = Some(Instant::now());
    }
    session.finish(&listener);
    if stop.failure.is_none() {
        attendance.finish(Present { watch, session, listener: &listener }).await;
        let _kept = session.flush(watch.control).await;
    }
    // An agent that ended by itself after its money did has ended for that reason.
    if life.last_words.is_some() {
        stop.reason = stop.reason.or(Some(ExitReason::BudgetExceeded));
    }
    match stop.failure {
        Some(error) => Err(error.into()),
        None => Ok(Supervised {
            exit,
            stopped: stop.reason.or(limit_of(&exit)),
            broken: stop.broken,
            dismissed: stop.dismissed,
            dropped: session.dropped(),
        }),
    }
}

/// Waits until the money is spent; for ever where nobody says so.
async fn budget_end(watched: &mut Option<watch::Receiver<Option<BudgetEnd>>>) -> BudgetEnd {
    if let Some(receiver) = watched
        && let Ok(end) = receiver.wait_for(Option::is_some).await
        && let Some(end) = *end
    {
        return end;
    }
    std::future::pending().await
}

fn budget_text(end: &BudgetEnd) -> String {
    let of = match end.scope {
        BudgetScope::RunAbove => "budget of the run above this one,".to_owned(),
        scope => format!("{scope} budget of"),
    };
    format!("the {of} {} is spent ({}); the agent was told", end.limit, end.spent)
}

/// The bound of the sandbox that ended the command, if one did.
fn limit_of(exit: &Exit) -> Option<ExitReason> {
    match exit.cause {
        ExitCause::OutOfMemory => Some(ExitReason::OutOfMemory),
        _ => None,
    }
}

/// Whether the run has used up its disk, or the machine's; says which.
async fn measure(watch: &Watch<'_>) -> (Option<u64>, Option<String>) {
    let Some(place) = watch.measured.first().cloned() else { return (None, None) };
    let paths = watch.measured.clone();
    let before = watch.measured_before;
    let bound = watch.warrant.warrant().limits.disk_bytes;
    let (grown, free) =
        tokio::task::spawn_blocking(move || (growth(&paths, before), crate::prepare::free_bytes(&place)))
            .await
            .unwrap_or((None, None));
    let trouble = match grown {
        None => Some("the workspace has more files than can be measured; the run is stopped".to_owned()),
        Some(bytes) if bytes > bound => Some(format!(
            "the workspace grew by {} MiB, more than the bound of {} MiB",
            bytes >> 20,
            bound >> 20
        )),
        Some(_) if free.is_some_and(|free| free < DISK_RESERVE) => Some(
            "the disk of TIPSTAFF_HOME is nearly full; the run is stopped before the audit log suffers"
                .to_owned(),
        ),
        Some(_) => None,
    };
    (grown, trouble)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_a_session_count_with_the_workspace() {
        let place = tempfile::tempdir().unwrap();
        let (work, session) = (place.path().join("work"), place.path().join("session"));
        for folder in [&work, &session] {
            std::fs::create_dir(folder).unwrap();
        }
        let both = [work.clone(), session.clone()];
        std::fs::write(work.join("a"), vec![1; 1 << 20]).unwrap();
        let before = measured_before(&both);
        assert!(before >= 1 << 20, "{before}");
        std::fs::write(session.join("b"), vec![1; 3 << 20]).unwrap();
        let grown = growth(&both, before).unwrap();
        assert!((3 << 20..4 << 20).contains(&grown), "{grown}");
        // A tree that can't be measured to its end counts as too much, whichever it is.
        let mut deep = session;
        for _ in 0..200 {
            deep.push("d");
        }
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(growth(&both, before), None);
        assert_eq!(growth(&[work, place.path().join("gone")], before), Some(0));
    }
}

//! Watching one running sandbox until it ends: output, time, disk, lease, cancellation.
//!
//! Whatever happens, the process tree is dead when this returns.

use crate::RunnerError;
use crate::announce::{Notice, Observer, Stream};
use serde_json::json;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tipstaff_model::{
    Clock, ControlPlane, ControlPlaneError, EventDraft, EventKind, ExitReason, LiveWarrant,
};
use tipstaff_sandbox::{Exit, ExitCause, Running, UsageBound, tree_usage};
use tipstaff_seal::scrub::{Colours, Scrubber};
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
/// Buffered output that forces a write to the store.
const BUFFER: usize = 256 * 1024;

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
    /// Bytes of output that were dropped at the bound.
    pub(crate) dropped: u64,
}

/// What the watch is over.
pub(crate) struct Watch<'a> {
    pub(crate) warrant: &'a LiveWarrant,
    pub(crate) control: &'a dyn ControlPlane,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) cancel: &'a Cancel,
    /// What grows while the run writes: the overlay's upper layer or the clone.
    pub(crate) measured: Option<PathBuf>,
    /// Bytes that `measured` held before the run.
    pub(crate) measured_before: u64,
    /// The run's own time.
    pub(crate) wall: Duration,
    /// Bytes of output that are kept.
    pub(crate) output_bytes: u64,
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

/// The output so far: scrubbed, bounded, waiting to be stored.
struct Story {
    scrubbers: [Scrubber; 2],
    pending: Vec<EventDraft>,
    pending_bytes: usize,
    left: u64,
    dropped: u64,
}

impl Story {
    fn take(&mut self, chunk: &Chunk, watch: &Watch<'_>) {
        let length = u64::try_from(chunk.bytes.len()).unwrap_or(u64::MAX);
        let kept = usize::try_from(length.min(self.left)).unwrap_or(usize::MAX);
        self.left -= length.min(self.left);
        self.dropped += length - u64::try_from(kept).unwrap_or(0);
        let slot = usize::from(chunk.stream == Stream::Stderr);
        let Some(scrubber) = self.scrubbers.get_mut(slot) else { return };
        let mut text = String::with_capacity(kept);
        scrubber.push(chunk.bytes.get(..kept).unwrap_or_default(), &mut text);
        self.tell(chunk.stream, text, watch);
    }

    fn tell(&mut self, stream: Stream, text: String, watch: &Watch<'_>) {
        if text.is_empty() {
            return;
        }
        watch.observer.notice(Notice::Output(stream, text.clone()));
        self.pending_bytes += text.len();
        let kind = if stream == Stream::Stdout { EventKind::Stdout } else { EventKind::Stderr };
        let at = watch.clock.wall_ms();
        // Neighbours of one stream become one event.
        if let Some(last) = self.pending.last_mut()
            && last.kind == kind
            && let Some(serde_json::Value::String(so_far)) = last.body.get_mut("text")
        {
            so_far.push_str(&text);
            return;
        }
        self.pending.push(EventDraft { kind, at, body: json!({ "text": text }) });
    }

    fn finish(&mut self, watch: &Watch<'_>) {
        for (slot, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let mut rest = String::new();
            if let Some(scrubber) = self.scrubbers.get_mut(slot) {
                scrubber.finish(&mut rest);
            }
            self.tell(stream, rest, watch);
        }
        if self.dropped > 0 {
            let text = format!("the output bound was reached; {} bytes were dropped", self.dropped);
            watch.observer.notice(Notice::Remark(text.clone()));
            self.pending.push(EventDraft {
                kind: EventKind::Notice,
                at: watch.clock.wall_ms(),
                body: json!({ "text": text }),
            });
        }
    }

    async fn flush(&mut self, control: &dyn ControlPlane) -> Result<(), ControlPlaneError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.pending_bytes = 0;
        control.events(std::mem::take(&mut self.pending)).await
    }
}

/// Bytes of the workspace's growth, or `None` when the measure is not to be trusted, which counts as too much.
fn growth(path: &Path, before: u64) -> Option<u64> {
    match tree_usage(path, UsageBound::default()) {
        Ok(usage) if usage.complete => Some(usage.bytes.saturating_sub(before)),
        Ok(_) => None,
        Err(_) => Some(0),
    }
}

/// Watches until the tree is dead.
pub(crate) async fn supervise(running: &mut Running, watch: &Watch<'_>) -> Result<Supervised, RunnerError> {
    let ended = crate::carry::end_of(running)?;
    let (sender, mut chunks) = mpsc::channel(32);
    pump(running.stdout.take(), Stream::Stdout, sender.clone())?;
    pump(running.stderr.take(), Stream::Stderr, sender)?;
    let mut story = Story {
        scrubbers: [Scrubber::new(Colours::Keep), Scrubber::new(Colours::Keep)],
        pending: Vec::new(),
        pending_bytes: 0,
        left: watch.output_bytes,
        dropped: 0,
    };

    let deadline = Instant::now() + watch.wall;
    let mut heartbeat = interval(HEARTBEAT);
    let mut flush = interval(FLUSH);
    let mut warrant_check = interval(Duration::from_millis(250));
    for timer in [&mut heartbeat, &mut flush, &mut warrant_check] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut next_measure = Instant::now() + MEASURE;
    let mut last_news_ms = watch.clock.monotonic_ms();
    let mut stopped: Option<ExitReason> = None;
    let mut failure: Option<ControlPlaneError> = None;
    let mut open = true;

    let exit = loop {
        tokio::select! {
            biased;
            ready = ended.readable() => {
                if let Some(exit) = running.try_wait()? { break exit; }
                if let Ok(mut guard) = ready { guard.clear_ready(); }
            }
            () = watch.cancel.cancelled(), if stopped.is_none() => stopped = Some(ExitReason::CancelledByPerson),
            () = sleep_until(deadline), if stopped.is_none() => stopped = Some(ExitReason::TimedOut),
            _ = warrant_check.tick() => {
                if stopped.is_none() && let Some(lapse) = watch.warrant.lapse() {
                    stopped = Some(match lapse {
                        tipstaff_model::warrant::Lapse::Revoked => ExitReason::WarrantRevoked,
                        tipstaff_model::warrant::Lapse::Expired => ExitReason::TimedOut,
                    });
                }
            }
            _ = heartbeat.tick() => match watch.control.heartbeat().await {
                Ok(news) => {
                    last_news_ms = watch.clock.monotonic_ms();
                    if news.warrant_revoked {
                        watch.warrant.revoke();
                        stopped = stopped.or(Some(ExitReason::WarrantRevoked));
                    } else if news.cancel_requested {
                        stopped = stopped.or(Some(ExitReason::CancelledByPerson));
                    }
                }
                Err(ControlPlaneError::LeaseLost) => {
                    stopped = Some(ExitReason::LeaseLost);
                    failure = Some(ControlPlaneError::LeaseLost);
                }
                Err(error) => {
                    if watch.clock.monotonic_ms() - last_news_ms > SILENCE_MS {
                        stopped = Some(ExitReason::Internal);
                        failure = Some(error);
                    }
                }
            },
            () = sleep_until(next_measure), if stopped.is_none() => {
                let begun = Instant::now();
                if let Some(reason) = measure(watch).await {
                    watch.observer.notice(Notice::Remark(reason));
                    stopped = Some(ExitReason::OutOfDisk);
                }
                // A tree that takes long to measure is measured less often.
                next_measure = Instant::now() + MEASURE.max(begun.elapsed() * 10);
            }
            chunk = chunks.recv(), if open => match chunk {
                Some(chunk) => {
                    story.take(&chunk, watch);
                    if story.pending_bytes >= BUFFER
                        && let Err(error) = story.flush(watch.control).await
                    {
                        stopped = stopped.or(Some(ExitReason::Internal));
                        failure = failure.or(Some(error));
                    }
                }
                None => open = false,
            },
            _ = flush.tick() => {
                // Output that can't be kept is no reason to lose the run; a store that is gone for long is, by the heartbeat.
                let _kept_for_later = story.flush(watch.control).await;
            }
        }
        if stopped.is_some() && running.try_wait()?.is_none() {
            running.kill()?;
            break running.wait()?;
        }
    };
    // Nothing holds the pipes any more but what is already in them.
    while let Some(chunk) = chunks.recv().await {
        story.take(&chunk, watch);
    }
    story.finish(watch);
    if failure.is_none() {
        let _kept = story.flush(watch.control).await;
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(Supervised { exit, stopped: stopped.or(limit_of(&exit)), dropped: story.dropped }),
    }
}

/// The bound of the sandbox that ended the command, if one did.
fn limit_of(exit: &Exit) -> Option<ExitReason> {
    match exit.cause {
        ExitCause::OutOfMemory => Some(ExitReason::OutOfMemory),
        _ => None,
    }
}

/// Whether the run has used up its disk, or the machine's; says which.
async fn measure(watch: &Watch<'_>) -> Option<String> {
    let path = watch.measured.clone()?;
    let before = watch.measured_before;
    let bound = watch.warrant.warrant().limits.disk_bytes;
    let (grown, free) =
        tokio::task::spawn_blocking(move || (growth(&path, before), crate::prepare::free_bytes(&path)))
            .await
            .unwrap_or((None, None));
    match grown {
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
    }
}

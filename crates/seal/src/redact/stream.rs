//! Redaction of one stream of bytes.

use super::frame::Channel;
use super::scan::{CONTEXT, Cursors, Scan, Span};
use super::{Finding, Rules};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// While more than this is held, chunks are gathered before the next look.
const GATHER_FROM: usize = 2048;

/// A piece of the input that does not come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cut {
    pub(super) start: u64,
    /// Complement of the end, so that of two with one start the longer sorts first.
    end_rev: u64,
    pub(super) rule: &'static str,
    /// What the finding covers, for the first piece of a secret; later pieces have none and leave nothing in their place.
    pub(super) whole: Option<(u64, u64)>,
}

impl Cut {
    pub(super) const fn new(start: u64, end: u64, rule: &'static str, whole: Option<(u64, u64)>) -> Self {
        Self { start, end_rev: u64::MAX - end, rule, whole }
    }

    const fn end(&self) -> u64 {
        u64::MAX - self.end_rev
    }
}

/// Redacts a stream chunk by chunk.
///
/// What is held back at any time is bounded by [`Self::MOST_HELD`] and is, for ordinary text, nothing or the beginning
/// of one word.
pub struct RedactStream {
    rules: Arc<Rules>,
    /// Context that has come out already, and what is held.
    buffer: Vec<u8>,
    /// Input offset of the buffer's first byte.
    base: u64,
    /// How much of the buffer has come out.
    out: usize,
    /// Bytes that came after the last look.
    unseen: usize,
    cursors: Cursors,
    cuts: Vec<Cut>,
    channel: Channel,
    findings: Vec<Finding>,
    counts: BTreeMap<&'static str, u64>,
}

impl RedactStream {
    /// Most findings that are listed; later ones are counted only.
    pub const MOST_FINDINGS: usize = 10_000;
    /// Most bytes that are ever held back: a private key that never ends, or a token of streamed text in a hundred
    /// thousand small events.
    pub const MOST_HELD: usize = 256 * 1024;

    pub(super) fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            buffer: Vec::new(),
            base: 0,
            out: 0,
            unseen: 0,
            cursors: Cursors::default(),
            cuts: Vec::new(),
            channel: Channel::default(),
            findings: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Takes the next bytes and appends what is safe to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.buffer.extend_from_slice(bytes);
        self.unseen += bytes.len();
        let held = self.buffer.len() - self.out;
        if held > GATHER_FROM && self.unseen < held / 8 {
            return;
        }
        self.flow(out, false);
    }

    /// Ends the stream: what was held back comes out, redacted where it must be. What is pushed afterwards begins
    /// another text; offsets go on.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.flow(out, true);
        self.base += self.buffer.len() as u64;
        self.buffer.clear();
        self.out = 0;
        self.cursors = Cursors::default();
        self.cuts.clear();
        self.channel = Channel::default();
    }

    /// Whether bytes are held back.
    #[must_use]
    pub const fn is_holding(&self) -> bool {
        self.out < self.buffer.len()
    }

    /// What was taken out so far, in order; at most [`Self::MOST_FINDINGS`].
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How often each rule found something, also beyond what [`Self::findings`] lists.
    #[must_use]
    pub const fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    fn flow(&mut self, out: &mut Vec<u8>, ending: bool) {
        self.unseen = 0;
        let mut scan = Scan::new(&self.rules, &self.buffer, ending, 0);
        scan.go(&mut self.cursors);
        let mut safe = self.base + scan.safe as u64;
        let Scan { spans, frames, .. } = scan;
        for Span { start, end, rule } in spans {
            let (start, end) = (self.base + start as u64, self.base + end as u64);
            self.cuts.push(Cut::new(start, end, rule, Some((start, end))));
        }
        self.channel.take(&self.rules, &self.buffer, self.base, &frames, ending, &mut self.cuts);
        if let Some(held) = self.channel.holds_from() {
            safe = safe.min(held);
        }
        self.emit(out, safe);
        // Keep what later decisions look back at.
        let keep = self.cursors.first().min(self.out).saturating_sub(CONTEXT);
        if keep > CONTEXT {
            self.buffer.drain(..keep);
            self.base += keep as u64;
            self.out -= keep;
            self.cursors.shift(keep);
        }
    }

    /// Lets out everything before `safe`, with what was cut replaced.
    fn emit(&mut self, out: &mut Vec<u8>, safe: u64) {
        let mut at = self.base + self.out as u64;
        self.cuts.retain(|cut| cut.end() > at);
        self.cuts.sort_unstable();
        self.cuts.dedup();
        let mut done = 0;
        while let Some(first) = self.cuts.get(done).copied().filter(|first| first.start < safe) {
            let (mut end, mut next) = (first.end(), done + 1);
            let mut whole = first.whole.map(|whole| (first.rule, whole));
            while let Some(cut) = self.cuts.get(next).filter(|cut| cut.start < end) {
                end = end.max(cut.end());
                whole = whole.or(cut.whole.map(|whole| (cut.rule, whole)));
                if let (Some((_, (_, to))), Some((_, end))) = (&mut whole, cut.whole) {
                    *to = (*to).max(end);
                }
                next += 1;
            }
            let start = first.start.max(at);
            self.copy(out, at, start);
            at = start;
            if end > safe {
                self.cuts.drain(..done);
                self.out = self.index(at);
                return;
            }
            if let Some((rule, (from, to))) = whole {
                out.extend_from_slice(b"[redacted:");
                out.extend_from_slice(rule.as_bytes());
                out.push(b']');
                *self.counts.entry(rule).or_default() += 1;
                if self.findings.len() < Self::MOST_FINDINGS {
                    self.findings.push(Finding { rule, offset: from, length: to - from });
                }
            }
            at = end;
            done = next;
        }
        self.cuts.drain(..done);
        if at < safe {
            self.copy(out, at, safe);
            at = safe;
        }
        self.out = self.index(at);
    }

    fn copy(&self, out: &mut Vec<u8>, from: u64, to: u64) {
        out.extend_from_slice(self.buffer.get(self.index(from)..self.index(to)).unwrap_or_default());
    }

    /// Place in the buffer of an input offset.
    fn index(&self, offset: u64) -> usize {
        usize::try_from(offset.saturating_sub(self.base)).unwrap_or(usize::MAX).min(self.buffer.len())
    }
}

impl fmt::Debug for RedactStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.buffer.len() - self.out;
        f.debug_struct("RedactStream")
            .field("held", &held)
            .field("findings", &self.findings)
            .finish_non_exhaustive()
    }
}

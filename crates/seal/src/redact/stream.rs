//! Redaction of one stream of bytes.

use super::{Finding, Rules};
use std::collections::BTreeMap;
use std::sync::Arc;

const RULE: &str = "known-value";

/// Redacts a stream chunk by chunk.
pub struct RedactStream {
    rules: Arc<Rules>,
    held: Vec<u8>,
    /// Input offset of the first held byte.
    base: u64,
    findings: Vec<Finding>,
    counts: BTreeMap<&'static str, u64>,
}

impl RedactStream {
    /// Most findings that are listed; later ones are counted only.
    pub const MOST_FINDINGS: usize = 10_000;

    pub(super) const fn new(rules: Arc<Rules>) -> Self {
        Self { rules, held: Vec::new(), base: 0, findings: Vec::new(), counts: BTreeMap::new() }
    }

    /// Takes the next bytes and appends what is safe to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        self.flow(out, false);
    }

    /// Ends the stream: what was held back comes out.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.flow(out, true);
    }

    /// Whether bytes are held back.
    #[must_use]
    pub const fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// What was taken out so far, in order; at most [`Self::MOST_FINDINGS`].
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How often each rule found something.
    #[must_use]
    pub const fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    fn flow(&mut self, out: &mut Vec<u8>, ending: bool) {
        let keep = if ending { 0 } else { self.rules.longest.saturating_sub(1) };
        let safe = self.held.len().saturating_sub(keep);
        let mut done = 0;
        if let Some(needles) = &self.rules.needles {
            for found in needles.find_iter(&self.held) {
                if found.start() >= safe {
                    break;
                }
                out.extend_from_slice(self.held.get(done..found.start()).unwrap_or_default());
                out.extend_from_slice(b"[redacted:known-value]");
                done = found.end();
                *self.counts.entry(RULE).or_default() += 1;
                if self.findings.len() < Self::MOST_FINDINGS {
                    self.findings.push(Finding {
                        rule: RULE,
                        offset: self.base + found.start() as u64,
                        length: (found.end() - found.start()) as u64,
                    });
                }
            }
        }
        let end = safe.max(done);
        out.extend_from_slice(self.held.get(done..end).unwrap_or_default());
        self.held.drain(..end);
        self.base += end as u64;
    }
}

impl std::fmt::Debug for RedactStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedactStream")
            .field("held", &self.held.len())
            .field("findings", &self.findings)
            .finish()
    }
}

//! Verification of a whole log: one pass, constant memory, the first bad position by name.
//!
//! Promises: a verdict of "good" means that every record up to the last checkpoint is, byte for byte and in order, what
//! the log's key signed; a bad log is never called good, whatever else was changed to fit. What it can't see: records
//! and checkpoints cut off together at the end, unless the caller pins a checkpoint that it has kept elsewhere.
//!
//! How the position is found: a record that doesn't fit its own stored leaf or place is bad where it stands. A record
//! that was rewritten together with its leaf fits both, but the root of the next signed checkpoint doesn't; the first
//! bad record then lies between the last checkpoint that held and the one that didn't, and the report says so. Closer
//! checkpoints therefore mean closer positions.

use super::place::place;
use super::report::{BadKind, FirstBad, LogRecord, RecordBody, Step, Tail, VerifyReport};
use super::{Checkpoint, Frontier, Hash, LogKey};
use crate::error::SealError;
use std::collections::VecDeque;

#[derive(Debug)]
enum Head {
    Signed { size: u64, root: Hash, pinned: bool },
    Bad { size: u64, explanation: String },
}

impl Head {
    const fn size(&self) -> u64 {
        match self {
            Self::Signed { size, .. } | Self::Bad { size, .. } => *size,
        }
    }
}

/// Verifies a log that is fed to it in order. Give pinned and stored checkpoints first, or each before the record that
/// follows it; then the records; then [`LogVerifier::finish`].
#[derive(Debug)]
pub struct LogVerifier {
    key: LogKey,
    org: String,
    tail: Tail,
    frontier: Frontier,
    heads: VecDeque<Head>,
    last_head_size: u64,
    /// Size of the last checkpoint that held, and of the last pinned one.
    sealed: u64,
    pinned: u64,
    checkpoints: u64,
    erased: u64,
    /// Bad where it stands, but an earlier one may still show at the next checkpoint.
    suspect: Option<FirstBad>,
    verdict: Option<FirstBad>,
}

impl LogVerifier {
    /// A verifier for the log of `key`.
    #[must_use]
    pub fn new(key: LogKey, tail: Tail) -> Self {
        Self {
            org: key.org().to_string(),
            key,
            tail,
            frontier: Frontier::empty(),
            heads: VecDeque::new(),
            last_head_size: 0,
            sealed: 0,
            pinned: 0,
            checkpoints: 0,
            erased: 0,
            suspect: None,
            verdict: None,
        }
    }

    /// Records read so far.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.frontier.size()
    }

    /// A checkpoint that was kept elsewhere: the log must contain it.
    ///
    /// # Errors
    /// `checkpoint-…` when it doesn't verify: that says something about the copy kept, not about the log.
    pub fn pin(&mut self, note: &str) -> Result<(), SealError> {
        let checkpoint = Checkpoint::verify(note, &self.key)?;
        self.add(Head::Signed { size: checkpoint.size(), root: checkpoint.root(), pinned: true });
        Ok(())
    }

    /// A checkpoint that is stored with the log.
    pub fn checkpoint(&mut self, note: &str) -> Step {
        let head = match Checkpoint::verify(note, &self.key) {
            Ok(checkpoint) => {
                Head::Signed { size: checkpoint.size(), root: checkpoint.root(), pinned: false }
            }
            Err(error) => {
                let size = Checkpoint::parse(note).map_or(self.last_head_size, |claimed| claimed.size());
                Head::Bad { size, explanation: error.to_string() }
            }
        };
        self.last_head_size = head.size();
        self.add(head);
        self.step()
    }

    fn add(&mut self, head: Head) {
        let place = self.heads.partition_point(|other| other.size() <= head.size());
        self.heads.insert(place, head);
        self.check_heads();
    }

    /// The next stored record.
    pub fn record(&mut self, record: &LogRecord<'_>) -> Step {
        if self.verdict.is_some() {
            return Step::Stop;
        }
        let position = self.frontier.size();
        if record.seq != position {
            let (kind, explanation) = if record.seq > position {
                (
                    BadKind::Missing,
                    format!("record {position} is missing: the next one stored is {}", record.seq),
                )
            } else {
                (BadKind::Reordered, format!("record {} comes where {position} was due", record.seq))
            };
            self.convict(FirstBad { position, kind, until: None, explanation });
            return Step::Stop;
        }
        self.judge(record, position);
        // The stored leaf keeps the tree going, so that the next checkpoint can tell whether it was changed as well.
        if self.frontier.append(record.leaf).is_err() {
            let explanation = "the log is larger than a log may be".to_owned();
            self.convict(FirstBad { position, kind: BadKind::Malformed, until: None, explanation });
        }
        self.check_heads();
        self.step()
    }

    fn judge(&mut self, record: &LogRecord<'_>, position: u64) {
        let mut moved = None;
        let commitment = match &record.body {
            RecordBody::Kept { salt, canonical } => {
                let claimed = place(canonical);
                if claimed.org.is_some_and(|org| org != self.org.as_bytes()) {
                    moved = Some(format!("the record at {position} belongs to the log of another org"));
                } else if let Some(seq) = claimed.seq.filter(|seq| *seq != position) {
                    moved = Some(format!("the record at {position} says that it is record {seq}"));
                }
                Hash::commitment(salt, canonical)
            }
            RecordBody::Erased { commitment } => {
                self.erased += 1;
                *commitment
            }
        };
        let kind = match &moved {
            Some(_) => BadKind::Reordered,
            None if Hash::leaf(&commitment) != record.leaf => BadKind::Tampered,
            None => return,
        };
        let explanation =
            moved.unwrap_or_else(|| format!("record {position} does not match the leaf stored for it"));
        self.suspect.get_or_insert(FirstBad { position, kind, until: None, explanation });
    }

    /// What doesn't come from a record or checkpoint but from the reader: a line that can't be read.
    pub(super) fn malformed(&mut self, explanation: String) -> Step {
        let position = self.frontier.size();
        self.convict(FirstBad { position, kind: BadKind::Malformed, until: None, explanation });
        Step::Stop
    }

    fn check_heads(&mut self) {
        let size = self.frontier.size();
        while self.verdict.is_none()
            && let Some(head) = self.heads.pop_front_if(|head| head.size() <= size)
        {
            match head {
                Head::Bad { explanation, .. } => self.convict(FirstBad {
                    position: size.saturating_sub(1).max(self.sealed),
                    kind: BadKind::CheckpointForged,
                    until: None,
                    explanation: format!(
                        "the checkpoint stored at size {size} is not to be trusted: {explanation}"
                    ),
                }),
                Head::Signed { size: covered, root, pinned } => {
                    self.check_signed(size, covered, root, pinned)
                }
            }
        }
    }

    fn check_signed(&mut self, size: u64, covered: u64, root: Hash, pinned: bool) {
        if covered == size && root == self.frontier.root() {
            // The root holds, so the leaves do; a record that doesn't fit its leaf is exactly the first bad one.
            if let Some(suspect) = self.suspect.take() {
                self.verdict = Some(suspect);
                return;
            }
            self.checkpoints += 1;
            self.sealed = size;
            if pinned {
                self.pinned = size;
            }
            return;
        }
        if covered < size {
            let explanation = format!("the checkpoint of size {covered} comes after record {size}");
            return self.convict(FirstBad {
                position: covered,
                kind: BadKind::Malformed,
                until: None,
                explanation,
            });
        }
        let which = if pinned { "pinned" } else { "stored" };
        let holds = self.frontier.root();
        let another = |wanted: fn(&Hash, &Hash) -> bool| {
            self.heads.iter().any(|head| {
                matches!(head, Head::Signed { size: s, root: r, pinned: false } if *s == size && wanted(r, &holds))
            })
        };
        let contradicted =
            (self.sealed == size && self.checkpoints > 0) || another(|root, holds| root == holds);
        let confirmed = another(|root, holds| root != holds);
        let (kind, explanation) = if contradicted {
            let text = format!(
                "two checkpoints of size {size} are signed by the log's key and differ, the {which} one among them: \
                 the key was misused to sign another history"
            );
            (BadKind::CheckpointMismatch, text)
        } else {
            let text = format!(
                "the root over the first {size} records is not the one that the {which} checkpoint signs: a record \
                 was changed together with its leaf"
            );
            (BadKind::Rewritten, text)
        };
        if contradicted || (pinned && !confirmed) {
            // Whoever can sign may have signed the earlier stored checkpoints as well: only pinned ones count.
            self.sealed = self.pinned;
        }
        let until = Some(size.max(self.sealed.saturating_add(1)));
        self.convict(FirstBad { position: self.sealed, kind, until, explanation });
    }

    /// Settles the verdict: what was already suspect stands earlier in the log than what was found now.
    fn convict(&mut self, bad: FirstBad) {
        if self.verdict.is_some() {
            return;
        }
        let mut verdict = match self.suspect.take() {
            Some(suspect) if suspect.position <= bad.position || bad.until.is_some() => suspect,
            _ => bad,
        };
        if verdict.until.is_none() && verdict.position > self.sealed {
            verdict.explanation.push_str(&format!(
                "; no checkpoint vouches for the records from {} up to there",
                self.sealed
            ));
        }
        self.verdict = Some(verdict);
    }

    const fn step(&self) -> Step {
        if self.verdict.is_some() { Step::Stop } else { Step::Continue }
    }

    /// The verdict, after the last record.
    #[must_use]
    pub fn finish(mut self) -> VerifyReport {
        let size = self.frontier.size();
        if self.verdict.is_none()
            && let Some(head) = self.heads.pop_front()
        {
            let bad = match head {
                Head::Signed { size: covered, pinned, .. } => FirstBad {
                    position: size,
                    kind: BadKind::Truncated,
                    until: None,
                    explanation: format!(
                        "the log ends after {size} records, but a {} checkpoint covers {covered}",
                        if pinned { "pinned" } else { "stored" }
                    ),
                },
                Head::Bad { size: claimed, explanation } => FirstBad {
                    position: size,
                    kind: BadKind::CheckpointForged,
                    until: None,
                    explanation: format!(
                        "the checkpoint stored at size {claimed} is not to be trusted: {explanation}"
                    ),
                },
            };
            self.convict(bad);
        }
        if let Some(suspect) = self.suspect.take() {
            self.convict(suspect);
        }
        if self.verdict.is_none() && self.tail == Tail::Sealed && size > self.sealed {
            self.verdict = Some(FirstBad {
                position: self.sealed,
                kind: BadKind::Unsealed,
                until: Some(size),
                explanation: format!("no checkpoint covers the records from {} on", self.sealed),
            });
        }
        VerifyReport {
            origin: self.key.origin(),
            records: size,
            erased: self.erased,
            sealed: self.sealed,
            checkpoints: self.checkpoints,
            root: self.frontier.root(),
            first_bad: self.verdict,
        }
    }
}

/// Verifies a log from an iterator; see [`LogVerifier`].
///
/// # Errors
/// `checkpoint-…` when the pinned checkpoint itself doesn't verify.
pub fn verify_log<'a>(
    key: LogKey,
    tail: Tail,
    pinned: Option<&str>,
    checkpoints: impl IntoIterator<Item = &'a str>,
    records: impl IntoIterator<Item = LogRecord<'a>>,
) -> Result<VerifyReport, SealError> {
    let mut verifier = LogVerifier::new(key, tail);
    if let Some(note) = pinned {
        verifier.pin(note)?;
    }
    for note in checkpoints {
        if verifier.checkpoint(note) == Step::Stop {
            return Ok(verifier.finish());
        }
    }
    for record in records {
        if verifier.record(&record) == Step::Stop {
            break;
        }
    }
    Ok(verifier.finish())
}

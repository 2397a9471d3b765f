//! What verification is given and what it answers.

use super::{Hash, Salt};
use serde::Serialize;

/// A record's content as stored.
#[derive(Debug, Clone, Copy)]
pub enum RecordBody<'a> {
    /// The record with its salt.
    Kept {
        /// The salt.
        salt: Salt,
        /// The canonical bytes.
        canonical: &'a [u8],
    },
    /// The text was erased; the commitment stayed.
    Erased {
        /// The commitment.
        commitment: Hash,
    },
}

/// One stored record.
#[derive(Debug, Clone, Copy)]
pub struct LogRecord<'a> {
    /// The sequence number that it is stored under.
    pub seq: u64,
    /// Its content.
    pub body: RecordBody<'a>,
    /// The leaf stored beside it.
    pub leaf: Hash,
}

/// Whether records after the last checkpoint are fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Every record must be covered by a checkpoint: a log at rest, or one that signs each append.
    Sealed,
    /// Records after the last checkpoint are accepted if they fit their leaves.
    Open,
}

/// What is wrong at the first bad position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BadKind {
    /// The record doesn't match its leaf.
    Tampered,
    /// Record and leaf were changed together; a signed root doesn't match.
    Rewritten,
    /// The record belongs at another position or in another org's log.
    Reordered,
    /// There is no record at this position, but there are later ones.
    Missing,
    /// The log ends here, but a signed checkpoint covers more.
    Truncated,
    /// A checkpoint isn't signed by the log's key.
    CheckpointForged,
    /// Two checkpoints, both signed by the log's key, tell different histories.
    CheckpointMismatch,
    /// No checkpoint covers the records from here on.
    Unsealed,
    /// This can't be read.
    Malformed,
}

/// The first bad position of a log.
///
/// Without `until` the fault shows exactly there. Records between [`VerifyReport::sealed`] and it fit their leaves, but
/// no checkpoint vouches for them: whoever changed one with its leaf and broke the log behind it can't be told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirstBad {
    /// Sequence number of the first record that can't be trusted.
    pub position: u64,
    /// What is wrong.
    pub kind: BadKind,
    /// Where the fault must lie, when it is a range: from `position` to before this number.
    pub until: Option<u64>,
    /// The same for people.
    pub explanation: String,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The log's name.
    pub origin: String,
    /// Records read.
    pub records: u64,
    /// Those of them whose text was erased.
    pub erased: u64,
    /// Records covered by the last checkpoint that held: all before this number are what was signed.
    pub sealed: u64,
    /// Checkpoints that held.
    pub checkpoints: u64,
    /// Root over the records read.
    pub root: Hash,
    /// The first bad position; `None` means that the log is good.
    pub first_bad: Option<FirstBad>,
}

impl VerifyReport {
    /// Whether the log is good.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.first_bad.is_none()
    }
}

/// Whether feeding more makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Go on.
    Continue,
    /// The first bad position is known.
    Stop,
}

//! Verifying the stored log, and writing it out so that anybody can verify it elsewhere.
//!
//! Promises: one pass in constant memory over one moment of the log; nothing that is stored is trusted; whatever can't
//! be read counts as altered, where it stands.

use crate::audit::{AuditBody, AuditEntry};
use crate::error::StoreError;
use crate::transaction::OrgRead;
use std::collections::VecDeque;
use tipstaff_seal::log::{
    Hash, LogKey, LogRecord, LogVerifier, RecordBody, Salt, Step, Tail, VerifyReport, export_checkpoint_line,
    export_record_line,
};

/// Records and checkpoints read at once.
const PAGE: u32 = 2_000;

impl AuditEntry {
    /// The entry as the verifier wants it. A salt or hash of the wrong length becomes one of zeros, which fits nothing.
    #[must_use]
    pub fn log_record(&self) -> LogRecord<'_> {
        let hash = |bytes: &[u8]| Hash::from_slice(bytes).unwrap_or(Hash([0; 32]));
        let body = match &self.body {
            AuditBody::Kept { canonical, salt } => match Salt::from_slice(salt) {
                Ok(salt) => RecordBody::Kept { salt, canonical },
                Err(_) => RecordBody::Erased { commitment: Hash([0; 32]) },
            },
            AuditBody::Erased { commitment, .. } => RecordBody::Erased { commitment: hash(commitment) },
        };
        LogRecord { seq: self.seq, body, leaf: hash(&self.leaf_hash) }
    }
}

/// One thing of the log, in the order in which it is verified and exported.
enum Item {
    Record(AuditEntry),
    Checkpoint(String),
}

/// Walks records and checkpoints together: a checkpoint of size n comes before record n.
struct Walk {
    records: VecDeque<AuditEntry>,
    next_record: Option<u64>,
    checkpoints: VecDeque<(u64, String)>,
    next_checkpoint: Option<u64>,
}

impl Walk {
    const fn new() -> Self {
        Self {
            records: VecDeque::new(),
            next_record: Some(0),
            checkpoints: VecDeque::new(),
            next_checkpoint: Some(0),
        }
    }

    async fn next(&mut self, log: &mut OrgRead) -> Result<Option<Item>, StoreError> {
        if self.records.is_empty()
            && let Some(from) = self.next_record
        {
            self.records = log.audit_stream(from, PAGE).await?.into();
            self.next_record = self.records.back().map(|last| last.seq.saturating_add(1));
        }
        if self.checkpoints.is_empty()
            && let Some(from) = self.next_checkpoint
        {
            let page = log.audit_checkpoint_list(from, PAGE).await?;
            self.next_checkpoint = page.last().map(|last| last.size.saturating_add(1));
            self.checkpoints = page.into_iter().map(|one| (one.size, one.note)).collect();
        }
        let due = match (self.records.front(), self.checkpoints.front()) {
            (Some(record), Some((size, _))) => *size <= record.seq,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if due {
            return Ok(self.checkpoints.pop_front().map(|(_, note)| Item::Checkpoint(note)));
        }
        Ok(self.records.pop_front().map(Item::Record))
    }
}

impl OrgRead {
    /// Verifies the whole log with its public key. `pinned` is a checkpoint that was kept elsewhere: the log must
    /// contain it, so that cutting off the end shows.
    ///
    /// # Errors
    /// `checkpoint-…` when the pinned checkpoint itself doesn't verify; errors of the database. A bad log is no error:
    /// see the report.
    pub async fn audit_verify(
        &mut self,
        key: LogKey,
        pinned: Option<&str>,
    ) -> Result<VerifyReport, StoreError> {
        let mut verifier = LogVerifier::new(key, Tail::Sealed);
        if let Some(note) = pinned {
            verifier.pin(note)?;
        }
        let mut walk = Walk::new();
        while let Some(item) = walk.next(self).await? {
            let step = match &item {
                Item::Record(entry) => verifier.record(&entry.log_record()),
                Item::Checkpoint(note) => verifier.checkpoint(note),
            };
            if step == Step::Stop {
                break;
            }
        }
        Ok(verifier.finish())
    }

    /// Writes the log out, a line at a time: what `verify_export` of the seal crate verifies with the public key alone.
    ///
    /// # Errors
    /// `stored-value` when a record is not JSON, `export` when `write` fails; errors of the database.
    pub async fn audit_export(
        &mut self,
        mut write: impl FnMut(&str) -> std::io::Result<()>,
    ) -> Result<(), StoreError> {
        let mut walk = Walk::new();
        while let Some(item) = walk.next(self).await? {
            let line = match &item {
                Item::Record(entry) => export_record_line(&entry.log_record()),
                Item::Checkpoint(note) => export_checkpoint_line(note),
            };
            let line = line.ok_or_else(|| StoreError::Value {
                table: "audit_record",
                column: "body",
                why: "it is not JSON".to_owned(),
            })?;
            write(&line).map_err(StoreError::Export)?;
        }
        Ok(())
    }
}

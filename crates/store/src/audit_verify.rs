//! Verifying the stored log, and writing it out so that anybody can verify it elsewhere.
//!
//! Promises: one pass in constant memory over one moment of the log; nothing that is stored is trusted; whatever can't
//! be read counts as altered, where it stands.

use crate::audit::{AuditBody, AuditCheckpoint, AuditEntry};
use crate::error::StoreError;
use crate::transaction::OrgRead;
use serde::Deserialize;
use tipstaff_seal::log::{
    Hash, LogRecord, LogVerifier, RecordBody, Salt, Step, VerifyReport, export_checkpoint_line,
    export_record_line,
};

/// Records read at once.
const PAGE: u32 = 1_000;

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

/// What the columns beside a record repeat of it.
#[derive(Deserialize)]
struct Repeated<'a> {
    action: &'a str,
    at: i64,
}

impl AuditEntry {
    /// Whether the columns beside the record say the same as the record: lists show them, so they are verified too.
    fn columns_agree(&self) -> bool {
        match &self.body {
            AuditBody::Kept { canonical, .. } => serde_json::from_slice::<Repeated<'_>>(canonical)
                .is_ok_and(|record| record.action == self.action && record.at == self.at),
            AuditBody::Erased { .. } => true,
        }
    }
}

/// A part of the log: records in order, and the checkpoints that come before each of them.
struct Page {
    records: Vec<AuditEntry>,
    checkpoints: Vec<AuditCheckpoint>,
}

impl Page {
    /// Where the next page begins: record and checkpoint.
    fn next(&self) -> (u64, u64) {
        let last = self.records.last().map_or(u64::MAX, |record| record.seq);
        (last.saturating_add(1), last.saturating_add(1))
    }

    /// Gives out the parts in order: a checkpoint of size n comes before record n.
    fn walk<E>(
        &self,
        mut record: impl FnMut(&AuditEntry) -> Result<Step, E>,
        mut checkpoint: impl FnMut(&str) -> Result<Step, E>,
    ) -> Result<Step, E> {
        let mut checkpoints = self.checkpoints.iter().peekable();
        for entry in &self.records {
            while let Some(due) = checkpoints.next_if(|due| due.size <= entry.seq) {
                if checkpoint(&due.note)? == Step::Stop {
                    return Ok(Step::Stop);
                }
            }
            if record(entry)? == Step::Stop {
                return Ok(Step::Stop);
            }
        }
        for due in checkpoints {
            if checkpoint(&due.note)? == Step::Stop {
                return Ok(Step::Stop);
            }
        }
        Ok(Step::Continue)
    }
}

impl OrgRead {
    /// Records from `from` on; checkpoints from `size` on up to the last of the records, or all when there are none.
    async fn audit_page(&mut self, (from, size): (u64, u64)) -> Result<Page, StoreError> {
        let records = self.audit_stream(from, PAGE).await?;
        let until = records.last().map_or(u64::MAX, |last| last.seq);
        let checkpoints = self.audit_checkpoints_between(size, until).await?;
        Ok(Page { records, checkpoints })
    }

    /// Feeds the whole log to `verifier`, which may hold checkpoints that were kept elsewhere: the log must contain
    /// them, so that cutting off the end shows. Reading the next part and verifying this one go on at once.
    ///
    /// # Errors
    /// Errors of the database. A bad log is no error: see the report.
    pub async fn audit_verify(&mut self, mut verifier: LogVerifier) -> Result<VerifyReport, StoreError> {
        let mut page = self.audit_page((0, 0)).await?;
        loop {
            let last = page.records.is_empty();
            let judge = async {
                let verifier = std::cell::RefCell::new(&mut verifier);
                page.walk(
                    |entry| {
                        let mut record = entry.log_record();
                        if !entry.columns_agree() {
                            record.leaf = Hash([0; 32]);
                        }
                        Ok::<_, StoreError>(verifier.borrow_mut().record(&record))
                    },
                    |note| Ok(verifier.borrow_mut().checkpoint(note)),
                )
            };
            if last {
                let _ = judge.await?;
                return Ok(verifier.finish());
            }
            let (next, step) = tokio::join!(self.audit_page(page.next()), judge);
            if step? == Step::Stop {
                return Ok(verifier.finish());
            }
            page = next?;
        }
    }

    /// Writes the log out, a line at a time: what `verify_export` of the seal crate verifies with the public key alone.
    ///
    /// # Errors
    /// `stored-value` when a record is not JSON, `export` when `write` fails; errors of the database.
    pub async fn audit_export(
        &mut self,
        write: impl FnMut(&str) -> std::io::Result<()>,
    ) -> Result<(), StoreError> {
        let write = std::cell::RefCell::new(write);
        let put = |line: Option<String>| {
            let unreadable = || StoreError::Value {
                table: "audit_record",
                column: "body",
                why: "it is not JSON".to_owned(),
            };
            (write.borrow_mut())(&line.ok_or_else(unreadable)?).map_err(StoreError::Export)?;
            Ok::<_, StoreError>(Step::Continue)
        };
        let mut place = (0, 0);
        loop {
            let page = self.audit_page(place).await?;
            let record = |entry: &AuditEntry| put(export_record_line(&entry.log_record()));
            let _ = page.walk(record, |note| put(export_checkpoint_line(note)))?;
            if page.records.is_empty() {
                return Ok(());
            }
            place = page.next();
        }
    }
}

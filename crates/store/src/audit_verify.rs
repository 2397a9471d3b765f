//! Verifying the stored log, and writing it out so that anybody can verify it elsewhere.
//!
//! Promises: one pass in constant memory over one moment of the log; nothing that is stored is trusted; whatever can't
//! be read counts as altered, where it stands.

use crate::audit::{AuditCheckpoint, BodyRef, EntryRef};
use crate::error::StoreError;
use crate::sql::Row;
use crate::sql::driver::Cause;
use crate::transaction::OrgRead;
use serde::Deserialize;
use tipstaff_seal::log::{
    Hash, LogRecord, LogVerifier, RecordBody, Salt, Step, VerifyReport, export_checkpoint_line,
    export_record_line,
};

/// Records read at once.
const PAGE: u32 = 4_000;

/// What the columns beside a record repeat of it.
#[derive(Deserialize)]
struct Repeated<'a> {
    action: &'a str,
    at: i64,
}

impl<'r> EntryRef<'r> {
    /// The entry as the verifier wants it. A salt or hash of the wrong length becomes one of zeros, which fits nothing.
    fn log_record(&self) -> LogRecord<'r> {
        let hash = |bytes: &[u8]| Hash::from_slice(bytes).unwrap_or(Hash([0; 32]));
        let body = match self.body {
            BodyRef::Kept { canonical, salt } => match Salt::from_slice(salt) {
                Ok(salt) => RecordBody::Kept { salt, canonical },
                Err(_) => RecordBody::Erased { commitment: Hash([0; 32]) },
            },
            BodyRef::Erased { commitment, .. } => RecordBody::Erased { commitment: hash(commitment) },
        };
        LogRecord { seq: self.seq, body, leaf: hash(self.leaf_hash) }
    }

    /// Whether the columns beside the record say the same as the record: lists show them, so they are verified too.
    fn columns_agree(&self) -> bool {
        match self.body {
            BodyRef::Kept { canonical, .. } => serde_json::from_slice::<Repeated<'_>>(canonical)
                .is_ok_and(|record| record.action == self.action && record.at == self.at),
            BodyRef::Erased { .. } => true,
        }
    }
}

/// A part of the log: records in order, and the checkpoints that come before each of them.
struct Page {
    records: Vec<Row>,
    checkpoints: Vec<AuditCheckpoint>,
    /// Positions of records that the columns beside them contradict, in order.
    contradicted: Vec<u64>,
    /// Where the next page begins.
    next: u64,
}

impl Page {
    /// Gives out the parts in order: a checkpoint of size n comes before record n.
    fn walk(&self, out: &mut impl FnMut(Part<'_>) -> Result<Step, StoreError>) -> Result<Step, StoreError> {
        let mut checkpoints = self.checkpoints.iter().peekable();
        for row in &self.records {
            let entry = EntryRef::read(row)?;
            while let Some(due) = checkpoints.next_if(|due| due.size <= entry.seq) {
                if out(Part::Checkpoint(&due.note))? == Step::Stop {
                    return Ok(Step::Stop);
                }
            }
            if out(Part::Record(&entry))? == Step::Stop {
                return Ok(Step::Stop);
            }
        }
        for due in checkpoints {
            if out(Part::Checkpoint(&due.note))? == Step::Stop {
                return Ok(Step::Stop);
            }
        }
        Ok(Step::Continue)
    }

    fn judge(&self, verifier: &mut LogVerifier) -> Result<Step, StoreError> {
        self.walk(&mut |part| {
            Ok(match part {
                Part::Checkpoint(note) => verifier.checkpoint(note),
                Part::Record(entry) => {
                    let mut record = entry.log_record();
                    if self.contradicted.binary_search(&entry.seq).is_ok() {
                        record.leaf = Hash([0; 32]);
                    }
                    verifier.record(&record)
                }
            })
        })
    }
}

/// What a page gives out.
enum Part<'p> {
    Checkpoint(&'p str),
    Record(&'p EntryRef<'p>),
}

impl OrgRead {
    /// Records from `from` on; checkpoints from there on up to the last of the records, or all when there are none.
    async fn audit_page(&mut self, from: u64) -> Result<Page, StoreError> {
        let records = self.audit_rows(from, PAGE).await?;
        let last = records.last().map(|row| EntryRef::read(row).map(|entry| entry.seq)).transpose()?;
        let until = last.unwrap_or(u64::MAX);
        let checkpoints = self.audit_checkpoints_between(from, until).await?;
        Ok(Page { records, checkpoints, contradicted: Vec::new(), next: until.saturating_add(1) })
    }

    /// The same, with the columns beside the records compared: on the thread that reads, which has time for it.
    async fn audit_compared_page(&mut self, from: u64) -> Result<Page, StoreError> {
        let mut page = self.audit_page(from).await?;
        for row in &page.records {
            let entry = EntryRef::read(row)?;
            if !entry.columns_agree() {
                page.contradicted.push(entry.seq);
            }
        }
        Ok(page)
    }

    /// Feeds the whole log to `verifier`, which may hold checkpoints that were kept elsewhere: the log must contain
    /// them, so that cutting off the end shows. Reading the next part and verifying this one go on at once, on two
    /// threads.
    ///
    /// # Errors
    /// Errors of the database. A bad log is no error: see the report.
    pub async fn audit_verify(&mut self, mut verifier: LogVerifier) -> Result<VerifyReport, StoreError> {
        let mut page = self.audit_compared_page(0).await?;
        loop {
            let (last, from) = (page.records.is_empty(), page.next);
            let judging = tokio::task::spawn_blocking(move || {
                let step = page.judge(&mut verifier);
                (verifier, step)
            });
            let next = if last { None } else { Some(self.audit_compared_page(from).await) };
            let (back, step) = judging.await.map_err(|error| match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends.
                Err(_) => StoreError::Unreachable(Cause::Closed.into()),
            })?;
            let stop = step? == Step::Stop;
            match next {
                Some(next) if !stop => (page, verifier) = (next?, back),
                _ => return Ok(back.finish()),
            }
        }
    }

    /// Writes the log out, a line at a time: what `verify_export` of the seal crate verifies with the public key alone.
    ///
    /// # Errors
    /// `stored-value` when a record is not JSON, `export` when `write` fails; errors of the database.
    pub async fn audit_export(
        &mut self,
        mut write: impl FnMut(&str) -> std::io::Result<()>,
    ) -> Result<(), StoreError> {
        let unreadable =
            || StoreError::Value { table: "audit_record", column: "body", why: "it is not JSON".to_owned() };
        let mut from = 0;
        loop {
            let page = self.audit_page(from).await?;
            let _ = page.walk(&mut |part| {
                let line = match part {
                    Part::Checkpoint(note) => export_checkpoint_line(note),
                    Part::Record(entry) => export_record_line(&entry.log_record()),
                };
                write(&line.ok_or_else(unreadable)?).map_err(StoreError::Export)?;
                Ok(Step::Continue)
            })?;
            if page.records.is_empty() {
                return Ok(());
            }
            from = page.next;
        }
    }
}

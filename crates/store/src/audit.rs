//! The audit log of an org: appended by one sequencer, sealed by a signed checkpoint in every transaction.
//!
//! Promises: records have the numbers 0, 1, 2 … without gaps; a record, its place in the tree and the checkpoint over
//! it become durable together with the action they tell of, or not at all; a head that doesn't fit the last signed
//! checkpoint is never signed again, so that somebody who rewrites the table can't have us vouch for it.

use crate::config::Engine;
use crate::error::StoreError;
use crate::signing::KeyPurpose;
use crate::sql::{Row, Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::{AuditAction, AuditDraft, AuditRecord};
use tipstaff_seal::SigningKey;
use tipstaff_seal::log::{Checkpoint, Frontier, Hash, LogKey, Salt};

statements! {
    scoped AUDIT_HEAD_ADD = "insert into audit_head (org_id, size, frontier, updated_at) values ($1, 0, $2, $3)";
    // Takes the row's lock on both engines: from here to the end this transaction is the org's only sequencer.
    scoped AUDIT_HEAD_TAKE =
        "update audit_head set updated_at = $2 where org_id = $1 returning size, frontier";
    // Takes the lock and moves on in one step, if nobody else has appended since.
    scoped AUDIT_HEAD_ADVANCE =
        "update audit_head set size = $2, frontier = $3, updated_at = $4 where org_id = $1 and size = $5 and frontier = $6 \
         returning size";
    scoped AUDIT_HEAD_SET = "update audit_head set size = $2, frontier = $3 where org_id = $1";
    scoped AUDIT_HEAD_GET = "select size, frontier from audit_head where org_id = $1";
    rows (shared 2) AUDIT_RECORD_ADD =
        "insert into audit_record (org_id, at, seq, action, body, salt, leaf_hash) values ($1, $2, $3, $4, $5, $6, $7)";
    scoped AUDIT_RECORDS_FROM =
        "select seq, at, action, body, salt, commitment, leaf_hash, erased_at from audit_record \
         where org_id = $1 and seq >= $2 order by seq limit $3";
    scoped AUDIT_RECORDS_NEWEST =
        "select seq, at, action, body, salt, commitment, leaf_hash, erased_at from audit_record \
         where org_id = $1 and seq < $2 order by seq desc limit $3";
    scoped AUDIT_RECORD_GET =
        "select seq, at, action, body, salt, commitment, leaf_hash, erased_at from audit_record \
         where org_id = $1 and seq = $2";
    scoped AUDIT_RECORD_ERASE =
        "update audit_record set body = null, salt = null, commitment = $3, erased_at = $4 \
         where org_id = $1 and seq = $2 and body is not null";
    scoped AUDIT_CHECKPOINT_ADD =
        "insert into audit_checkpoint (org_id, size, note, created_at) values ($1, $2, $3, $4)";
    scoped AUDIT_CHECKPOINT_AT = "select size, note, created_at from audit_checkpoint where org_id = $1 and size = $2";
    scoped AUDIT_CHECKPOINT_LAST =
        "select size, note, created_at from audit_checkpoint where org_id = $1 order by size desc limit 1";
    scoped AUDIT_CHECKPOINTS_BETWEEN =
        "select size, note, created_at from audit_checkpoint where org_id = $1 and size >= $2 and size <= $3 order by size";
    scoped AUDIT_CHECKPOINTS_FROM =
        "select size, note, created_at from audit_checkpoint where org_id = $1 and size >= $2 order by size limit $3";
}

/// Where drafts went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReceipt {
    /// Number of the first record.
    pub first: u64,
    /// How many there are.
    pub count: u64,
    /// The signed checkpoint over everything up to the last one of them (a note of c2sp.org/tlog-checkpoint).
    pub checkpoint: String,
}

/// What a stored record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditBody {
    /// The canonical bytes and their salt.
    Kept {
        /// The canonical bytes (RFC 8785).
        canonical: Vec<u8>,
        /// 16 bytes.
        salt: Vec<u8>,
    },
    /// The text was erased; the commitment stayed.
    Erased {
        /// 32 bytes.
        commitment: Vec<u8>,
        /// When, in milliseconds since the Unix epoch.
        at: Option<i64>,
    },
}

/// A record as it is stored: nothing of it is trusted before it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number, as stored.
    pub seq: u64,
    /// When, as stored, in milliseconds since the Unix epoch.
    pub at: i64,
    /// The action's word, as stored.
    pub action: String,
    /// Its content.
    pub body: AuditBody,
    /// 32 bytes.
    pub leaf_hash: Vec<u8>,
}

impl AuditEntry {
    /// The record, if its text is there and can be read.
    #[must_use]
    pub fn record(&self) -> Option<AuditRecord> {
        match &self.body {
            AuditBody::Kept { canonical, .. } => serde_json::from_slice(canonical).ok(),
            AuditBody::Erased { .. } => None,
        }
    }
}

/// A stored checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCheckpoint {
    /// Records that it covers, as stored beside the note.
    pub size: u64,
    /// The signed note.
    pub note: String,
    /// When it was signed, in milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// Receipt of an erasure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditErasure {
    /// The record whose text is gone.
    pub seq: u64,
    /// What stays of it.
    pub commitment: Hash,
    /// The record that tells of the erasure, and the checkpoint over it.
    pub receipt: AuditReceipt,
}

/// A record that has its place, ready to be written.
struct PlacedRecord {
    seq: i64,
    action: AuditAction,
    canonical: Vec<u8>,
    salt: Salt,
    leaf: Hash,
}

/// Records that have their places, and the head that they lead to.
struct Placed {
    first: u64,
    records: Vec<PlacedRecord>,
    size: i64,
    blob: Vec<u8>,
    note: String,
}

fn number(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value)
        .map_err(|_| StoreError::Input { what: "log position", why: "it is too large".to_owned() })
}

/// A record as it stands in its row; nothing is copied.
pub(crate) struct EntryRef<'r> {
    pub(crate) seq: u64,
    pub(crate) at: i64,
    pub(crate) action: &'r str,
    pub(crate) body: BodyRef<'r>,
    pub(crate) leaf_hash: &'r [u8],
}

/// See [`AuditBody`].
pub(crate) enum BodyRef<'r> {
    Kept { canonical: &'r [u8], salt: &'r [u8] },
    Erased { commitment: &'r [u8], at: Option<i64> },
}

impl<'r> EntryRef<'r> {
    pub(crate) fn read(row: &'r Row) -> Result<Self, StoreError> {
        let mut columns = row.read("audit_record");
        let (seq, at, action) = (columns.count("seq")?, columns.int()?, columns.text_ref()?);
        let (canonical, salt) = (columns.bytes_ref_opt()?, columns.bytes_ref_opt()?);
        let commitment = columns.bytes_ref_opt()?;
        let (leaf_hash, erased_at) = (columns.bytes_ref()?, columns.int_opt()?);
        let body = match (canonical, salt) {
            (Some(canonical), Some(salt)) => BodyRef::Kept { canonical, salt },
            _ => BodyRef::Erased { commitment: commitment.unwrap_or_default(), at: erased_at },
        };
        Ok(Self { seq, at, action, body, leaf_hash })
    }
}

fn entry(row: &Row) -> Result<AuditEntry, StoreError> {
    let EntryRef { seq, at, action, body, leaf_hash } = EntryRef::read(row)?;
    let body = match body {
        BodyRef::Kept { canonical, salt } => {
            AuditBody::Kept { canonical: canonical.to_vec(), salt: salt.to_vec() }
        }
        BodyRef::Erased { commitment, at } => AuditBody::Erased { commitment: commitment.to_vec(), at },
    };
    Ok(AuditEntry { seq, at, action: action.to_owned(), body, leaf_hash: leaf_hash.to_vec() })
}

fn checkpoint(row: &Row) -> Result<AuditCheckpoint, StoreError> {
    let mut columns = row.read("audit_checkpoint");
    Ok(AuditCheckpoint { size: columns.count("size")?, note: columns.text()?, created_at: columns.int()? })
}

impl OrgRead {
    /// Number of records in the log.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn audit_size(&mut self) -> Result<u64, StoreError> {
        match self.first(AUDIT_HEAD_GET, &[]).await? {
            Some(row) => row.read("audit_head").count("size"),
            None => Ok(0),
        }
    }

    /// Records from number `from` on, at most `limit`, in order: for verifying and exporting. Going on from the last
    /// number plus one within one [`OrgRead`] sees one moment of the log.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn audit_stream(&mut self, from: u64, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        self.audit_rows(from, limit).await?.iter().map(entry).collect()
    }

    /// The same, as they stand in their rows.
    pub(crate) async fn audit_rows(&mut self, from: u64, limit: u32) -> Result<Vec<Row>, StoreError> {
        self.all(AUDIT_RECORDS_FROM, values![number(from)?, i64::from(limit)]).await
    }

    /// The newest records before number `before` (all when absent), newest first, at most `limit`.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn audit_list(
        &mut self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let before = before.map_or(Ok(i64::MAX), number)?;
        self.all(AUDIT_RECORDS_NEWEST, values![before, i64::from(limit)]).await?.iter().map(entry).collect()
    }

    /// One record.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn audit_get(&mut self, seq: u64) -> Result<Option<AuditEntry>, StoreError> {
        self.first(AUDIT_RECORD_GET, values![number(seq)?]).await?.as_ref().map(entry).transpose()
    }

    /// The newest checkpoint.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn audit_checkpoint(&mut self) -> Result<Option<AuditCheckpoint>, StoreError> {
        self.first(AUDIT_CHECKPOINT_LAST, &[]).await?.as_ref().map(checkpoint).transpose()
    }

    /// Checkpoints that cover at least `size` records, smallest first, at most `limit`.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn audit_checkpoint_list(
        &mut self,
        size: u64,
        limit: u32,
    ) -> Result<Vec<AuditCheckpoint>, StoreError> {
        let values: &[Value<'_>] = values![number(size)?, i64::from(limit)];
        self.all(AUDIT_CHECKPOINTS_FROM, values).await?.iter().map(checkpoint).collect()
    }

    /// Checkpoints of sizes from `from` to `until`, smallest first.
    pub(crate) async fn audit_checkpoints_between(
        &mut self,
        from: u64,
        until: u64,
    ) -> Result<Vec<AuditCheckpoint>, StoreError> {
        let bound = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let rows = self.all(AUDIT_CHECKPOINTS_BETWEEN, values![bound(from), bound(until)]).await?;
        rows.iter().map(checkpoint).collect()
    }

    /// The private key of the log; unsealed once per process.
    async fn audit_signing_key(&mut self) -> Result<SigningKey, StoreError> {
        let org = self.org();
        if let Some(key) = &self.inner.rings.get(org).audit {
            return Ok(key.clone());
        }
        let key = self.signing_key(KeyPurpose::Audit).await?;
        self.inner.rings.change(org, |keys| keys.audit = Some(key.clone()));
        Ok(key)
    }
}

impl OrgTx {
    /// Makes the head of a new org's log.
    pub(crate) async fn audit_head_create(&mut self) -> Result<(), StoreError> {
        let (empty, now) = (Frontier::empty().to_bytes(), self.inner.now());
        self.change(AUDIT_HEAD_ADD, values![&empty, now]).await?;
        Ok(())
    }

    /// Notes something for the log: it is appended, with everything else that was noted, when this transaction is
    /// committed. Several transactions of one org then wait for each other for a moment only.
    pub fn audit_note(&mut self, draft: AuditDraft) {
        self.noted.push(draft);
    }

    /// Appends to the log now, in the order given, and signs a checkpoint over it. From here to its end this
    /// transaction is the only one of the org that can append: do it last, or use [`OrgTx::audit_note`].
    ///
    /// # Errors
    /// `proof-wrong` when the stored head isn't the one that was signed; errors of keys and database.
    pub async fn audit_append(&mut self, drafts: Vec<AuditDraft>) -> Result<AuditReceipt, StoreError> {
        let at = self.inner.now();
        let key = self.audit_signing_key().await?;
        // On SQLite nobody else can have the lock: the head that this process wrote last is checked and moved on in one
        // statement. On PostgreSQL several transactions may want it, so the lock comes first.
        if let Some(old) = self.trusted_head().filter(|_| self.engine() == Engine::Sqlite) {
            let from = Frontier::read(&old)?;
            let placed = self.audit_place(&key, from.clone(), drafts.clone(), at)?;
            let row: &[Value<'_>] = values![placed.size, &placed.blob, at, number(from.size())?, &old];
            if self.first(AUDIT_HEAD_ADVANCE, row).await?.is_some() {
                return self.audit_write(placed, at).await;
            }
        }
        let frontier = self.audit_head_take(&key, at).await?;
        let placed = self.audit_place(&key, frontier, drafts, at)?;
        self.change(AUDIT_HEAD_SET, values![placed.size, &placed.blob]).await?;
        self.audit_write(placed, at).await
    }

    fn trusted_head(&self) -> Option<Vec<u8>> {
        self.new_head.clone().or_else(|| self.inner.rings.get(self.org()).trusted_head.clone())
    }

    /// Gives drafts their places after `frontier`, and signs the head that they lead to.
    fn audit_place(
        &self,
        key: &SigningKey,
        mut frontier: Frontier,
        drafts: Vec<AuditDraft>,
        at: i64,
    ) -> Result<Placed, StoreError> {
        let (org, first) = (self.org(), frontier.size());
        let mut records = Vec::with_capacity(drafts.len());
        for (seq, draft) in (first..).zip(drafts) {
            let action = draft.action;
            let canonical = AuditRecord::place(draft, org, seq, at)
                .canonical_bytes()
                .map_err(|error| StoreError::Input { what: "audit record", why: error.to_string() })?;
            let salt = Salt::random(&*self.inner.entropy);
            let leaf = Hash::leaf(&Hash::commitment(&salt, &canonical));
            frontier.append(leaf)?;
            records.push(PlacedRecord { seq: number(seq)?, action, canonical, salt, leaf });
        }
        let note = Checkpoint::new(org, frontier.size(), frontier.root()).sign(org, key)?;
        Ok(Placed { first, records, size: number(frontier.size())?, blob: frontier.to_bytes(), note })
    }

    /// Writes records and checkpoint; the head is written already.
    async fn audit_write(&mut self, placed: Placed, at: i64) -> Result<AuditReceipt, StoreError> {
        let Placed { first, records, size, blob, note } = placed;
        let rows: Vec<Vec<Value<'_>>> = records
            .iter()
            .map(|record| {
                vec![
                    Value::from(record.seq),
                    Value::from(record.action.as_str()),
                    Value::from(&record.canonical),
                    Value::from(record.salt.as_bytes().as_slice()),
                    Value::from(record.leaf.as_bytes().as_slice()),
                ]
            })
            .collect();
        self.insert_rows(&AUDIT_RECORD_ADD, values![at], &rows).await?;
        if !records.is_empty() {
            self.change(AUDIT_CHECKPOINT_ADD, values![size, &note, at]).await?;
        }
        self.new_head = Some(blob);
        Ok(AuditReceipt { first, count: records.len() as u64, checkpoint: note })
    }

    /// Locks the head and checks it against the last signed checkpoint, unless this process wrote it itself.
    async fn audit_head_take(&mut self, key: &SigningKey, at: i64) -> Result<Frontier, StoreError> {
        let row = self.first(AUDIT_HEAD_TAKE, values![at]).await?;
        let row = row.ok_or(StoreError::Missing { what: "audit log" })?;
        let mut columns = row.read("audit_head");
        let (size, blob) = (columns.int()?, columns.bytes()?);
        // Ours, or the head of a log in which nothing was ever signed.
        let trusted = self.trusted_head().as_ref() == Some(&blob)
            || (size == 0 && self.audit_checkpoint().await?.is_none());
        let frontier = if trusted {
            Frontier::read(&blob)?
        } else {
            let stored = self.first(AUDIT_CHECKPOINT_AT, values![size]).await?;
            let note = stored.as_ref().map(checkpoint).transpose()?.map(|one| one.note);
            let note = note.ok_or(tipstaff_seal::SealError::ProofWrong)?;
            Frontier::open(&blob, &note, &LogKey::new(self.org(), key.verifying_key()))?
        };
        if number(frontier.size())? == size {
            Ok(frontier)
        } else {
            Err(tipstaff_seal::SealError::ProofWrong.into())
        }
    }

    /// Erases the text of a record; the tree still verifies. A record that tells of the erasure is appended. `None`
    /// when there is no such record, or its text is gone already.
    ///
    /// # Errors
    /// As [`OrgTx::audit_append`].
    pub async fn audit_erase(&mut self, seq: u64, actor: &str) -> Result<Option<AuditErasure>, StoreError> {
        let Some(entry) = self.audit_get(seq).await? else { return Ok(None) };
        let AuditBody::Kept { canonical, salt } = &entry.body else { return Ok(None) };
        let commitment = Hash::commitment(&Salt::from_slice(salt)?, canonical);
        let now = self.inner.now();
        let row: &[Value<'_>] = values![number(seq)?, commitment.as_bytes().as_slice(), now];
        if self.change(AUDIT_RECORD_ERASE, row).await? == 0 {
            return Ok(None);
        }
        let draft = AuditDraft::new(actor, AuditAction::RecordErased, format!("record:{seq}"))
            .with("commitment", commitment);
        let receipt = self.audit_append(vec![draft]).await?;
        Ok(Some(AuditErasure { seq, commitment, receipt }))
    }
}

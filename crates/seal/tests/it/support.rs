//! What several tests need: reproducible bytes, a log, a warrant.

use std::sync::atomic::{AtomicU8, Ordering};
use tipstaff_model::{Entropy, FixedEntropy, OrgId, Warrant};
use tipstaff_seal::log::{Checkpoint, Frontier, Hash, LogKey, LogRecord, RecordBody, Salt};
use tipstaff_seal::{Secret, SigningKey};

/// Counts: 00 01 02 …, so that anybody can redo the golden vectors.
#[derive(Default)]
pub(crate) struct CountingEntropy(AtomicU8);

impl Entropy for CountingEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

pub(crate) fn org() -> OrgId {
    OrgId::from_bytes([7; 16])
}

pub(crate) fn signing_key(fill: u8) -> SigningKey {
    SigningKey::from_secret(&Secret::new(vec![fill; 32])).unwrap()
}

/// A stored record as an attacker of the database sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) seq: u64,
    pub(crate) salt: Salt,
    pub(crate) canonical: Vec<u8>,
    pub(crate) erased: Option<Hash>,
    pub(crate) leaf: Hash,
}

impl Row {
    pub(crate) fn record(&self) -> LogRecord<'_> {
        let body = match self.erased {
            Some(commitment) => RecordBody::Erased { commitment },
            None => RecordBody::Kept { salt: self.salt, canonical: &self.canonical },
        };
        LogRecord { seq: self.seq, body, leaf: self.leaf }
    }

    /// Makes the stored leaf fit the content.
    pub(crate) fn refit(&mut self) {
        self.leaf = Hash::leaf(&Hash::commitment(&self.salt, &self.canonical));
    }
}

pub(crate) fn body(seq: u64, text: &str) -> Vec<u8> {
    format!(
        r#"{{"action":"run.state","actor":"system","at":1700000000000,"detail":{{"seq":"0","to":"{text}"}},"org":"{}","outcome":"ok","seq":{seq},"subject":"run:1","v":1}}"#,
        org()
    )
    .into_bytes()
}

/// An honest log.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) rows: Vec<Row>,
    pub(crate) notes: Vec<String>,
    pub(crate) key: LogKey,
}

impl Log {
    /// `count` records with a checkpoint after every `every` of them and at the end.
    pub(crate) fn honest(count: u64, every: u64) -> Self {
        let entropy = FixedEntropy::seeded(count);
        let signing = signing_key(1);
        let (mut rows, mut notes, mut frontier) = (Vec::new(), Vec::new(), Frontier::empty());
        for seq in 0..count {
            let mut row = Row {
                seq,
                salt: Salt::random(&entropy),
                canonical: body(seq, "done"),
                erased: None,
                leaf: Hash::EMPTY,
            };
            row.refit();
            frontier.append(row.leaf).unwrap();
            rows.push(row);
            if (seq + 1) % every == 0 || seq + 1 == count {
                notes.push(Checkpoint::new(org(), seq + 1, frontier.root()).sign(org(), &signing).unwrap());
            }
        }
        Self { rows, notes, key: LogKey::new(org(), signing.verifying_key()) }
    }

    pub(crate) fn leaves(&self) -> Vec<Hash> {
        self.rows.iter().map(|row| row.leaf).collect()
    }

    /// Signs checkpoints over the rows as they are now, at the same sizes where there still are that many rows.
    pub(crate) fn sign_again(&mut self, signing: &SigningKey) {
        let sizes: Vec<u64> =
            self.notes.iter().filter_map(|note| Checkpoint::parse(note).ok()).map(|c| c.size()).collect();
        let mut frontier = Frontier::empty();
        self.notes.clear();
        for row in &self.rows {
            frontier.append(row.leaf).unwrap();
            if sizes.contains(&frontier.size()) {
                let checkpoint = Checkpoint::new(org(), frontier.size(), frontier.root());
                self.notes.push(checkpoint.sign(org(), signing).unwrap());
            }
        }
    }
}

pub(crate) fn warrant() -> Warrant {
    serde_json::from_str(include_str!("warrant.json")).unwrap()
}

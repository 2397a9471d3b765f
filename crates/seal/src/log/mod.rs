//! The transparency log over audit records (RFC 6962, c2sp.org/tlog-checkpoint).
//!
//! Promises: a record that was changed, moved, removed or cut off after a checkpoint was signed shows, and the first bad
//! position is named; the text of a record can be erased and the tree still verifies; appending needs the frontier only,
//! which is at most 48 hashes whatever the log's size.
//!
//! - **Commitment** of a record: SHA-256 of its 16-byte random salt followed by its canonical bytes. Erasing a record
//!   means deleting salt and bytes and keeping the commitment: without the salt nobody can test a guess against it.
//! - **Leaf**: the RFC 6962 leaf hash of the commitment, SHA-256(0x00 ‖ commitment).
//! - **Checkpoint**: a signed note over the log's name, size and root.

mod checkpoint;
mod export;
mod frontier;
mod place;
mod proof;
mod report;
mod verify;

pub use checkpoint::{Checkpoint, LogKey};
pub use export::{
    EXPORT_LINE_LIMIT, export_checkpoint_line, export_record_line, verify_export, verify_export_reading,
};
pub use frontier::{Frontier, LOG_SIZE_LIMIT, StoredHash};
pub use proof::{ConsistencyProof, HashTable, InclusionProof};
pub use report::{BadKind, FirstBad, LogRecord, RecordBody, Step, Tail, VerifyReport};
pub use verify::{LogVerifier, verify_log};

use crate::error::SealError;
use crate::sign::text_serde;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use tipstaff_model::{Entropy, OrgId};

/// The log's name: the origin line of its checkpoints.
#[must_use]
pub fn log_origin(org: OrgId) -> String {
    format!("tipstaff/audit/{org}")
}

/// A hash of the log: 32 bytes; as text, padded standard base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The root of the empty log: SHA-256 of nothing (RFC 6962 §2.1).
    pub const EMPTY: Self = Self(tlog_tiles::tlog::EMPTY_HASH.0);

    /// The hash in these bytes, as a database column holds them.
    ///
    /// # Errors
    /// `hash-format` when there aren't 32.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, SealError> {
        bytes.try_into().map(Self).map_err(|_| SealError::HashFormat)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The commitment to a record: what stays of it when its text is erased.
    #[must_use]
    pub fn commitment(salt: &Salt, canonical: &[u8]) -> Self {
        Self(Sha256::new().chain_update(salt.0).chain_update(canonical).finalize().into())
    }

    /// The leaf of a commitment.
    #[must_use]
    pub fn leaf(commitment: &Self) -> Self {
        let mut message = [0_u8; 33];
        if let Some((_, body)) = message.split_first_mut() {
            body.copy_from_slice(&commitment.0);
        }
        Self(Sha256::digest(message).into())
    }

    /// The inner node over two subtrees.
    pub(crate) fn node(left: &Self, right: &Self) -> Self {
        let mut message = [1_u8; 65];
        for (slot, byte) in message.iter_mut().skip(1).zip(left.0.iter().chain(&right.0)) {
            *slot = *byte;
        }
        Self(Sha256::digest(message).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let bytes = STANDARD.decode(text).map_err(|_| SealError::HashFormat)?;
        Self::from_slice(&bytes)
    }
}

text_serde!(Hash);

/// The 16 random bytes in front of a record's canonical bytes; as text, padded standard base64.
///
/// Not secret while the record is readable; deleted with the text when the record is erased.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 16]);

impl Salt {
    /// A new salt. One per record, never used again.
    #[must_use]
    pub fn random(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0_u8; 16];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// The salt in these bytes, as a database column holds them.
    ///
    /// # Errors
    /// `salt-format` when there aren't 16: a fixed length keeps salt and record apart.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, SealError> {
        bytes.try_into().map(Self).map_err(|_| SealError::SaltFormat)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(…)")
    }
}

impl FromStr for Salt {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let bytes = STANDARD.decode(text).map_err(|_| SealError::SaltFormat)?;
        Self::from_slice(&bytes)
    }
}

text_serde!(Salt);

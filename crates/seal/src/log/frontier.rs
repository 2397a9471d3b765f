//! The right edge of the tree: all that an append needs to know of the records before it.
//!
//! Promises: O(log n) hashes whatever the log's size; the stored form is read strictly; a frontier that doesn't match
//! the last signed checkpoint isn't appended to, so a rewritten log never gets a new signature by itself.

use super::{Checkpoint, Hash, LogKey};
use crate::error::SealError;

/// Largest number of records of one log.
pub const LOG_SIZE_LIMIT: u64 = 1 << 48;

const BLOB_VERSION: u8 = 1;

/// A hash that became final with an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredHash {
    /// Place in the dense order of stored hashes; appends produce 0, 1, 2 … without gaps.
    pub index: u64,
    /// Level in the tree, 0 for leaves.
    pub level: u8,
    /// Number within the level.
    pub number: u64,
    /// The hash.
    pub hash: Hash,
}

/// The roots of the complete subtrees that a log of `size` records consists of, largest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    edge: Vec<Hash>,
}

impl Frontier {
    /// The frontier of an empty log.
    #[must_use]
    pub const fn empty() -> Self {
        Self { size: 0, edge: Vec::new() }
    }

    /// Number of records.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root over all records.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut nodes = self.edge.iter().rev();
        let Some(last) = nodes.next() else { return Hash::EMPTY };
        nodes.fold(*last, |right, left| Hash::node(left, &right))
    }

    /// Appends one leaf.
    ///
    /// # Errors
    /// `log-full` at [`LOG_SIZE_LIMIT`].
    pub fn append(&mut self, leaf: Hash) -> Result<(), SealError> {
        self.grow(leaf, |_, _, _| {})
    }

    /// Appends one leaf and adds the hashes that became final to `stored`: just under two on average.
    ///
    /// # Errors
    /// `log-full` at [`LOG_SIZE_LIMIT`].
    pub fn append_stored(&mut self, leaf: Hash, stored: &mut Vec<StoredHash>) -> Result<(), SealError> {
        let first = tlog_tiles::tlog::stored_hash_index(0, self.size);
        self.grow(leaf, |level, number, hash| {
            stored.push(StoredHash { index: first + u64::from(level), level, number, hash });
        })
    }

    fn grow(&mut self, leaf: Hash, mut finished: impl FnMut(u8, u64, Hash)) -> Result<(), SealError> {
        if self.size >= LOG_SIZE_LIMIT {
            return Err(SealError::LogFull);
        }
        let (mut node, mut level, mut number) = (leaf, 0_u8, self.size);
        finished(level, number, node);
        while number & 1 == 1 {
            // There is one edge hash per set bit of the size: `read` checks it and appends keep it.
            let left = self.edge.pop().ok_or(SealError::FrontierFormat)?;
            node = Hash::node(&left, &node);
            level += 1;
            number >>= 1;
            finished(level, number, node);
        }
        self.edge.push(node);
        self.size += 1;
        Ok(())
    }

    /// The form to store: a version byte, the size (8 bytes, most significant first), the hashes, largest subtree first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(9 + self.edge.len() * 32);
        out.push(BLOB_VERSION);
        out.extend_from_slice(&self.size.to_be_bytes());
        for hash in &self.edge {
            out.extend_from_slice(&hash.0);
        }
        out
    }

    /// Reads the stored form, unverified. To append, use [`Frontier::open`].
    ///
    /// # Errors
    /// `frontier-format` for anything that [`Frontier::to_bytes`] doesn't write.
    pub fn read(blob: &[u8]) -> Result<Self, SealError> {
        let rest = match blob.split_first() {
            Some((&BLOB_VERSION, rest)) => rest,
            _ => return Err(SealError::FrontierFormat),
        };
        let (size, hashes) = rest.split_first_chunk::<8>().ok_or(SealError::FrontierFormat)?;
        let size = u64::from_be_bytes(*size);
        let (hashes, stray) = hashes.as_chunks::<32>();
        if size > LOG_SIZE_LIMIT || !stray.is_empty() || u64::from(size.count_ones()) != hashes.len() as u64 {
            return Err(SealError::FrontierFormat);
        }
        Ok(Self { size, edge: hashes.iter().copied().map(Hash).collect() })
    }

    /// Reads the stored form and checks it against the last signed checkpoint. Appending to it and signing the result
    /// then vouches for nothing that wasn't vouched for before.
    ///
    /// # Errors
    /// `frontier-format`; `checkpoint-…` for a checkpoint that doesn't verify; `proof-wrong` when the two disagree.
    pub fn open(blob: &[u8], note: &str, key: &LogKey) -> Result<Self, SealError> {
        let (frontier, checkpoint) = (Self::read(blob)?, Checkpoint::verify(note, key)?);
        if checkpoint.size() == frontier.size && checkpoint.root() == frontier.root() {
            Ok(frontier)
        } else {
            Err(SealError::ProofWrong)
        }
    }
}

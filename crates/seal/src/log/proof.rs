//! Proofs for people who don't hold the log: a record is in it, and a later log contains an earlier one unchanged.
//!
//! Promises: a proof is at most 2·48 hashes; making one reads that many stored hashes; checking one needs no log.

use super::frontier::{Frontier, LOG_SIZE_LIMIT};
use super::{Hash, StoredHash};
use crate::error::SealError;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use tlog_tiles::tlog::{self, Hash as TreeHash, HashReader};

/// Proof that a log of `size` records holds a leaf at `position` (RFC 6962 §2.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    /// Number of records of the log.
    pub size: u64,
    /// The record's sequence number.
    pub position: u64,
    /// Sibling hashes, from the leaf up.
    pub path: Vec<Hash>,
}

/// Proof that a log of `new_size` records begins with the log of `old_size` (RFC 6962 §2.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyProof {
    /// Number of records of the earlier log.
    pub old_size: u64,
    /// Number of records of the later log.
    pub new_size: u64,
    /// The hashes.
    pub path: Vec<Hash>,
}

/// Stored hashes of a whole log in memory, rebuilt from its leaves: 64 bytes per record.
#[derive(Debug, Clone, Default)]
pub struct HashTable {
    frontier: Frontier,
    hashes: Vec<Hash>,
}

impl HashTable {
    /// Builds the table.
    ///
    /// # Errors
    /// `log-full`.
    pub fn from_leaves(leaves: impl IntoIterator<Item = Hash>) -> Result<Self, SealError> {
        let mut table = Self::default();
        let mut stored: Vec<StoredHash> = Vec::with_capacity(64);
        for leaf in leaves {
            table.frontier.append_stored(leaf, &mut stored)?;
            table.hashes.extend(stored.drain(..).map(|item| item.hash));
        }
        Ok(table)
    }

    /// Number of records.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// The stored hash at `index`.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<Hash> {
        self.hashes.get(usize::try_from(index).ok()?).copied()
    }

    /// The proof for one record of this log, or of an earlier state of it with `size` records.
    ///
    /// # Errors
    /// `proof-range`, `proof-hashes`.
    pub fn inclusion(&self, size: u64, position: u64) -> Result<InclusionProof, SealError> {
        InclusionProof::make(size, position, |index| self.get(index))
    }

    /// The proof between two states of this log.
    ///
    /// # Errors
    /// `proof-range`, `proof-hashes`.
    pub fn consistency(&self, old_size: u64, new_size: u64) -> Result<ConsistencyProof, SealError> {
        ConsistencyProof::make(old_size, new_size, |index| self.get(index))
    }
}

/// First pass: learns which stored hashes are needed. Second pass: hands them out.
struct Reader<'a> {
    wanted: RefCell<Vec<u64>>,
    get: Option<&'a dyn Fn(u64) -> Option<Hash>>,
}

impl HashReader for Reader<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<TreeHash>, tlog::Error> {
        self.wanted.borrow_mut().extend_from_slice(indexes);
        let get = self.get.ok_or(tlog::Error::IndexesNotInTree)?;
        indexes
            .iter()
            .map(|index| get(*index).map(|hash| TreeHash(hash.0)).ok_or(tlog::Error::IndexesNotInTree))
            .collect()
    }
}

fn wanted(run: impl FnOnce(&Reader<'_>) -> Result<Vec<TreeHash>, tlog::Error>) -> Vec<u64> {
    let reader = Reader { wanted: RefCell::default(), get: None };
    // The first pass always fails at the reader, after saying what it wanted; with nothing wanted it succeeds.
    drop(run(&reader));
    reader.wanted.into_inner()
}

fn made(
    get: &dyn Fn(u64) -> Option<Hash>,
    run: impl FnOnce(&Reader<'_>) -> Result<Vec<TreeHash>, tlog::Error>,
) -> Result<Vec<Hash>, SealError> {
    let reader = Reader { wanted: RefCell::default(), get: Some(get) };
    let path = run(&reader).map_err(|_| SealError::ProofHashes)?;
    Ok(path.into_iter().map(|hash| Hash(hash.0)).collect())
}

fn tree_path(path: &[Hash]) -> Vec<TreeHash> {
    path.iter().map(|hash| TreeHash(hash.0)).collect()
}

/// No honest path is longer: two hashes per level.
fn short_enough(path: &[Hash]) -> bool {
    path.len() <= 2 * 64
}

impl InclusionProof {
    fn check_range(size: u64, position: u64) -> Result<(), SealError> {
        let fits = position < size && size <= LOG_SIZE_LIMIT;
        if fits { Ok(()) } else { Err(SealError::ProofRange { position, size }) }
    }

    /// The indexes of the stored hashes that [`InclusionProof::make`] will ask for, for reading them in one query.
    ///
    /// # Errors
    /// `proof-range`.
    pub fn indexes(size: u64, position: u64) -> Result<Vec<u64>, SealError> {
        Self::check_range(size, position)?;
        Ok(wanted(|reader| tlog::prove_record(size, position, reader)))
    }

    /// Makes the proof from stored hashes.
    ///
    /// # Errors
    /// `proof-range`; `proof-hashes` when `get` doesn't have one.
    pub fn make(size: u64, position: u64, get: impl Fn(u64) -> Option<Hash>) -> Result<Self, SealError> {
        Self::check_range(size, position)?;
        let path = made(&get, |reader| tlog::prove_record(size, position, reader))?;
        Ok(Self { size, position, path })
    }

    /// Checks that the log with `root` holds `leaf` at the position.
    ///
    /// # Errors
    /// `proof-wrong`, `proof-range`.
    pub fn verify(&self, leaf: Hash, root: Hash) -> Result<(), SealError> {
        Self::check_range(self.size, self.position)?;
        if !short_enough(&self.path) {
            return Err(SealError::ProofWrong);
        }
        tlog::check_record(
            &tree_path(&self.path),
            self.size,
            TreeHash(root.0),
            self.position,
            TreeHash(leaf.0),
        )
        .map_err(|_| SealError::ProofWrong)
    }
}

impl ConsistencyProof {
    fn check_range(old_size: u64, new_size: u64) -> Result<(), SealError> {
        let fits = old_size <= new_size && new_size <= LOG_SIZE_LIMIT;
        if fits { Ok(()) } else { Err(SealError::ProofRange { position: old_size, size: new_size }) }
    }

    /// The indexes of the stored hashes that [`ConsistencyProof::make`] will ask for.
    ///
    /// # Errors
    /// `proof-range`.
    pub fn indexes(old_size: u64, new_size: u64) -> Result<Vec<u64>, SealError> {
        Self::check_range(old_size, new_size)?;
        if old_size == 0 {
            return Ok(Vec::new());
        }
        Ok(wanted(|reader| tlog::prove_tree(new_size, old_size, reader)))
    }

    /// Makes the proof from stored hashes.
    ///
    /// # Errors
    /// `proof-range`; `proof-hashes` when `get` doesn't have one.
    pub fn make(old_size: u64, new_size: u64, get: impl Fn(u64) -> Option<Hash>) -> Result<Self, SealError> {
        Self::check_range(old_size, new_size)?;
        let path = match old_size {
            0 => Vec::new(),
            _ => made(&get, |reader| tlog::prove_tree(new_size, old_size, reader))?,
        };
        Ok(Self { old_size, new_size, path })
    }

    /// Checks that the log with `new_root` begins with the log with `old_root`.
    ///
    /// # Errors
    /// `proof-wrong`, `proof-range`.
    pub fn verify(&self, old_root: Hash, new_root: Hash) -> Result<(), SealError> {
        Self::check_range(self.old_size, self.new_size)?;
        if self.old_size == 0 {
            // Every log begins with the empty one (RFC 6962 gives no proof for it).
            let holds = self.path.is_empty()
                && old_root == Hash::EMPTY
                && (self.new_size > 0 || new_root == Hash::EMPTY);
            return if holds { Ok(()) } else { Err(SealError::ProofWrong) };
        }
        if !short_enough(&self.path) {
            return Err(SealError::ProofWrong);
        }
        let (new, old) = (TreeHash(new_root.0), TreeHash(old_root.0));
        tlog::check_tree(&tree_path(&self.path), self.new_size, new, self.old_size, old)
            .map_err(|_| SealError::ProofWrong)
    }
}

//! Checkpoints: the signed head of the log, as a note that anyone can check with the public key alone.
//!
//! Promises: the note is exactly the form of c2sp.org/tlog-checkpoint (other tools and witnesses can read it); a
//! checkpoint of another log is never taken for one of this log.

use super::frontier::LOG_SIZE_LIMIT;
use super::{Hash, log_origin};
use crate::error::SealError;
use crate::sign::{SigningKey, VerifyingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use signed_note::{Note, NoteError, Signature as NoteSignature, Verifier, VerifierList};
use std::fmt;
use std::str::FromStr;
use tipstaff_model::OrgId;
use tlog_tiles::tlog::Hash as TreeHash;

/// Notes of our logs are some 250 bytes; witnesses may add signatures.
const NOTE_LIMIT: usize = 16 * 1024;
const ALGORITHM_ED25519: u8 = 1;

/// The public key of one org's log; as text, the verifier key of c2sp.org/signed-note: `<log>+<id>+<base64>`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogKey {
    org: OrgId,
    key: VerifyingKey,
}

impl LogKey {
    /// The key of the log of `org`.
    #[must_use]
    pub const fn new(org: OrgId, key: VerifyingKey) -> Self {
        Self { org, key }
    }

    /// The org whose log it is.
    #[must_use]
    pub const fn org(&self) -> OrgId {
        self.org
    }

    /// The bare public key.
    #[must_use]
    pub const fn verifying_key(&self) -> &VerifyingKey {
        &self.key
    }

    /// The log's name.
    #[must_use]
    pub fn origin(&self) -> String {
        log_origin(self.org)
    }

    fn encoded(&self) -> [u8; 33] {
        let mut out = [ALGORITHM_ED25519; 33];
        if let Some((_, body)) = out.split_first_mut() {
            body.copy_from_slice(&self.key.to_bytes());
        }
        out
    }

    fn note_id(&self) -> u32 {
        signed_note::key_id(&self.origin(), &self.encoded())
    }
}

impl fmt::Display for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:08x}+{}", self.origin(), self.note_id(), STANDARD.encode(self.encoded()))
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({}, {})", self.origin(), self.key.id())
    }
}

impl FromStr for LogKey {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let malformed = || SealError::LogKeyFormat;
        let mut fields = text.trim().splitn(3, '+');
        let (Some(name), Some(_), Some(encoded)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(malformed());
        };
        let org =
            name.strip_prefix("tipstaff/audit/").and_then(|org| org.parse().ok()).ok_or_else(malformed)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| malformed())?;
        let public: [u8; 32] = match bytes.split_first() {
            Some((&ALGORITHM_ED25519, public)) => public.try_into().map_err(|_| malformed())?,
            _ => return Err(malformed()),
        };
        let key = Self { org, key: VerifyingKey::from_bytes(&public).map_err(|_| malformed())? };
        // The id in the text guards against a key that was copied wrongly.
        if key.to_string() == text.trim() { Ok(key) } else { Err(malformed()) }
    }
}

crate::sign::text_serde!(LogKey);
use serde::{Deserialize, Serialize};

struct NoteVerifier {
    name: String,
    key: LogKey,
}

impl Verifier for NoteVerifier {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.key.note_id()
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        signature.try_into().is_ok_and(|signature| self.key.key.verify_raw(message, signature))
    }
}

/// The head of a log at some size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Hash,
}

impl Checkpoint {
    /// A head of the log of `org`.
    #[must_use]
    pub fn new(org: OrgId, size: u64, root: Hash) -> Self {
        Self { origin: log_origin(org), size, root }
    }

    /// The log's name.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Number of records that it covers.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root over them.
    #[must_use]
    pub const fn root(&self) -> Hash {
        self.root
    }

    /// The signed note.
    ///
    /// # Errors
    /// `checkpoint-origin` when `key` is given for another log; `checkpoint-format`, never in practice.
    pub fn sign(&self, org: OrgId, key: &SigningKey) -> Result<String, SealError> {
        let public = LogKey::new(org, key.verifying_key());
        if public.origin() != self.origin {
            return Err(SealError::CheckpointOrigin { found: self.origin.clone(), wanted: public.origin() });
        }
        let malformed = |_| SealError::CheckpointFormat;
        let text = tlog_tiles::Checkpoint::new(&self.origin, self.size, TreeHash(self.root.0), "")
            .map_err(|_| SealError::CheckpointFormat)?
            .to_bytes();
        let signature = key.sign_raw(&text).as_bytes().to_vec();
        let signature =
            NoteSignature::new(public.origin(), public.note_id(), signature).map_err(malformed)?;
        let note = Note::new(&text, &[signature]).map_err(malformed)?.to_bytes();
        String::from_utf8(note).map_err(|_| SealError::CheckpointFormat)
    }

    /// Checks a signed note and reads it.
    ///
    /// # Errors
    /// `checkpoint-format` for anything that isn't such a note, `checkpoint-origin` for one of another log,
    /// `checkpoint-forged` when the key didn't sign it.
    pub fn verify(note: &str, key: &LogKey) -> Result<Self, SealError> {
        let (parsed, checkpoint) = read(note)?;
        let origin = key.origin();
        if checkpoint.origin != origin {
            return Err(SealError::CheckpointOrigin { found: checkpoint.origin, wanted: origin });
        }
        let known = VerifierList::new(vec![Box::new(NoteVerifier { name: origin, key: *key })]);
        match parsed.verify(&known) {
            Ok(_) => Ok(checkpoint),
            Err(NoteError::MalformedNote) => Err(SealError::CheckpointFormat),
            Err(_) => Err(SealError::CheckpointForged { key: key.key.id().to_string() }),
        }
    }

    /// Reads a signed note without checking its signature: for showing it, and for finding the key to check it with.
    ///
    /// # Errors
    /// `checkpoint-format`.
    pub fn parse(note: &str) -> Result<Self, SealError> {
        read(note).map(|(_, checkpoint)| checkpoint)
    }
}

fn read(note: &str) -> Result<(Note, Checkpoint), SealError> {
    let malformed = || SealError::CheckpointFormat;
    if note.len() > NOTE_LIMIT {
        return Err(malformed());
    }
    let note = Note::from_bytes(note.as_bytes()).map_err(|_| malformed())?;
    let head = tlog_tiles::Checkpoint::from_bytes(note.text()).map_err(|_| malformed())?;
    if head.size() > LOG_SIZE_LIMIT || head.origin().chars().any(char::is_control) {
        return Err(malformed());
    }
    let checkpoint =
        Checkpoint { origin: head.origin().to_owned(), size: head.size(), root: Hash(head.hash().0) };
    Ok((note, checkpoint))
}

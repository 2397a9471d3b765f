//! The one error type of this crate. No message ever holds a key, a plaintext or a token.

use std::path::PathBuf;

/// What can go wrong in `seal`. [`SealError::code`] is stable; the text is for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The encryption key isn't 64 hexadecimal digits.
    #[error(
        "the encryption key is not 64 hexadecimal digits (32 bytes): make one with `openssl rand -hex 32` and set it again"
    )]
    KeyFormat,
    /// The encryption key is a placeholder: all bytes are equal.
    #[error(
        "the encryption key is a placeholder (every byte is the same): make a random one with `openssl rand -hex 32`"
    )]
    KeyWeak,
    /// The key file could be read or written by others, or belongs to somebody else.
    #[error("the key file {} {reason}: {fix}", path.display())]
    KeyFileUnsafe {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The command that puts it right.
        fix: String,
    },
    /// The key file holds something else than a key.
    #[error(
        "the key file {} does not hold 64 hexadecimal digits: restore it from a backup; values sealed under its key can't be read without it",
        path.display()
    )]
    KeyFileContent {
        /// The file.
        path: PathBuf,
    },
    /// The key file could not be read or made.
    #[error("the key file {} could not be {doing}: check the folder, its owner and the free space", path.display())]
    KeyFileIo {
        /// The file.
        path: PathBuf,
        /// `read`, `made` or `locked`.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The keychain isn't reachable or refused.
    #[error(
        "the keychain could not be used ({reason}): unlock it and sign in to the desktop session, or use the key file or TIPSTAFF_ENCRYPTION_KEY instead"
    )]
    Keychain {
        /// What the keychain said.
        reason: String,
    },
    /// The program that speaks to the keychain is missing.
    #[error(
        "the keychain can't be asked: install `secret-tool` (Debian: apt-get install libsecret-tools), or use the key file or TIPSTAFF_ENCRYPTION_KEY"
    )]
    KeychainAbsent,
    /// The stored data key isn't in the format of a wrapped key.
    #[error("a stored data key is malformed: restore the key ring's rows from a backup")]
    WrappedFormat,
    /// The wrapped data key was wrapped by another encryption key.
    #[error(
        "data key {key} was wrapped by encryption key {wrapped_by}, but the key given is {given}: give the right key (TIPSTAFF_ENCRYPTION_KEY, key file or keychain)"
    )]
    WrappedByOther {
        /// The data key's id.
        key: String,
        /// Id of the encryption key that it needs.
        wrapped_by: String,
        /// Id of the encryption key that was given.
        given: String,
    },
    /// The wrapped data key doesn't open though the right key was given.
    #[error(
        "data key {key} does not open: it was altered, or belongs to another org or ring; restore the key ring's rows from a backup"
    )]
    WrappedAltered {
        /// The data key's id.
        key: String,
    },
    /// The ring has no key of this id.
    #[error(
        "the key ring has no key {key}: it was retired or belongs to another org; restore the key ring's rows from a backup"
    )]
    KeyUnknown {
        /// The data key's id.
        key: String,
    },
    /// The current key can't be retired.
    #[error("key {key} is the current key and can't be retired: rotate first")]
    KeyCurrent {
        /// The data key's id.
        key: String,
    },
    /// The stored text isn't in the format of a sealed value.
    #[error(
        "the stored value is not a sealed value (expected tk1.<key>.<nonce>.<text>): restore it from a backup"
    )]
    SealedFormat,
    /// A value of one org was given to the ring of another.
    #[error("the value belongs to another org than the key ring: this is a fault in the program")]
    SealedOrg,
    /// The value doesn't open: altered, or moved here from another table, row or column.
    #[error(
        "the sealed value in {table}.{column} does not open: it was altered or moved here from another row; restore it from a backup"
    )]
    SealedAltered {
        /// The table it was read from.
        table: String,
        /// The column it was read from.
        column: String,
    },
    /// The plaintext is larger than a sealed value may be.
    #[error("the value is {bytes} bytes, a sealed value holds at most {limit}: store it elsewhere")]
    SealedTooLarge {
        /// Size given, bytes.
        bytes: usize,
        /// Largest size, bytes.
        limit: usize,
    },
    /// Bytes that aren't a public or private Ed25519 key.
    #[error("these bytes are not an Ed25519 key")]
    SigningKey,
    /// A signature isn't 64 bytes in unpadded URL-safe base64.
    #[error("the signature is malformed: expected 64 bytes in URL-safe base64 without padding")]
    SignatureFormat,
    /// The text isn't an SSH signature by an Ed25519 key.
    #[error(
        "not an SSH signature by an Ed25519 key: expected one -----BEGIN SSH SIGNATURE----- block (PROTOCOL.sshsig)"
    )]
    SshSignatureFormat,
    /// The signature isn't by this key over these bytes.
    #[error("the signature by key {key} is not valid: the {what} was altered or signed by somebody else")]
    SignatureWrong {
        /// Id of the key that was tried.
        key: String,
        /// What was signed.
        what: &'static str,
    },
    /// Signed by another key than the one given.
    #[error("the {what} was signed by key {signed_by}, but the key given is {given}")]
    SignatureByOther {
        /// What was signed.
        what: &'static str,
        /// Id of the key that signed.
        signed_by: String,
        /// Id of the key given.
        given: String,
    },
    /// The stored bytes and the warrant beside them disagree.
    #[error("the warrant does not match its signed bytes: it was altered; discard it and issue a new one")]
    WarrantAltered,
    /// The signed warrant can't be read.
    #[error("the signed warrant can't be read: it was cut or is from a newer version")]
    WarrantFormat,
    /// A value has no canonical form.
    #[error("the {what} has no canonical bytes")]
    Canonical {
        /// What was to be signed.
        what: &'static str,
        /// Why.
        #[source]
        source: tipstaff_model::canonical::CanonicalError,
    },
    /// The frontier blob can't be read.
    #[error(
        "the audit log's head is malformed: restore the log from a backup, then run `tipstaff audit verify`"
    )]
    FrontierFormat,
    /// The log can't take more records.
    #[error("the audit log is full (2^48 records)")]
    LogFull,
    /// A hash isn't 32 bytes in base64.
    #[error("not a hash: expected 32 bytes in base64")]
    HashFormat,
    /// A salt isn't 16 bytes in base64.
    #[error("not a salt: expected 16 bytes in base64")]
    SaltFormat,
    /// A position or size outside the tree.
    #[error("position {position} is not in a log of {size} records")]
    ProofRange {
        /// The position or older size asked for.
        position: u64,
        /// The log's size.
        size: u64,
    },
    /// The reader of stored hashes gave too few, too many or none.
    #[error("the stored hashes needed for the proof are not there: rebuild them from the records")]
    ProofHashes,
    /// The proof doesn't hold.
    #[error("the proof does not hold: the log was rewritten, or the proof is of another log")]
    ProofWrong,
    /// The checkpoint isn't a signed note of a tree head.
    #[error("the checkpoint is malformed: expected a signed note (c2sp.org/tlog-checkpoint)")]
    CheckpointFormat,
    /// The checkpoint's signature isn't valid under the given key.
    #[error("the checkpoint's signature by {key} is not valid: it was altered or forged")]
    CheckpointForged {
        /// Name and id of the key.
        key: String,
    },
    /// The checkpoint is of another log.
    #[error("the checkpoint is of the log {found}, not of {wanted}")]
    CheckpointOrigin {
        /// The log it is of.
        found: String,
        /// The log wanted.
        wanted: String,
    },
    /// The public key text isn't a verifier key.
    #[error("not a log key: expected <log>+<id>+<base64> (c2sp.org/signed-note)")]
    LogKeyFormat,
    /// The input of a verification could not be read.
    #[error("the audit export could not be read")]
    ExportRead(#[source] std::io::Error),
    /// The text isn't a token.
    #[error("not a token of this system: check that it was copied whole")]
    TokenFormat,
}

impl SealError {
    /// A stable name of the error for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::KeyFormat => "key-format",
            Self::KeyWeak => "key-weak",
            Self::KeyFileUnsafe { .. } => "key-file-unsafe",
            Self::KeyFileContent { .. } => "key-file-content",
            Self::KeyFileIo { .. } => "key-file-io",
            Self::Keychain { .. } => "keychain",
            Self::KeychainAbsent => "keychain-absent",
            Self::WrappedFormat => "wrapped-format",
            Self::WrappedByOther { .. } => "wrapped-by-other",
            Self::WrappedAltered { .. } => "wrapped-altered",
            Self::KeyUnknown { .. } => "key-unknown",
            Self::KeyCurrent { .. } => "key-current",
            Self::SealedFormat => "sealed-format",
            Self::SealedOrg => "sealed-org",
            Self::SealedAltered { .. } => "sealed-altered",
            Self::SealedTooLarge { .. } => "sealed-too-large",
            Self::SigningKey => "signing-key",
            Self::SignatureFormat => "signature-format",
            Self::SshSignatureFormat => "ssh-signature-format",
            Self::SignatureWrong { .. } => "signature-wrong",
            Self::SignatureByOther { .. } => "signature-by-other",
            Self::WarrantAltered => "warrant-altered",
            Self::WarrantFormat => "warrant-format",
            Self::Canonical { .. } => "canonical",
            Self::FrontierFormat => "frontier-format",
            Self::LogFull => "log-full",
            Self::HashFormat => "hash-format",
            Self::SaltFormat => "salt-format",
            Self::ProofRange { .. } => "proof-range",
            Self::ProofHashes => "proof-hashes",
            Self::ProofWrong => "proof-wrong",
            Self::CheckpointFormat => "checkpoint-format",
            Self::CheckpointForged { .. } => "checkpoint-forged",
            Self::CheckpointOrigin { .. } => "checkpoint-origin",
            Self::LogKeyFormat => "log-key-format",
            Self::ExportRead(_) => "export-read",
            Self::TokenFormat => "token-format",
        }
    }
}

//! SSH signatures (OpenSSH's `PROTOCOL.sshsig`, version 1) by Ed25519 keys: the form that git verifies without us.
//!
//! Promises: what is signed begins with the six bytes `SSHSIG` and names its namespace, so such a signature is worth
//! nothing for a [`crate::Domain`], nor the other way round; reading takes one spelling only, in bounded memory.

use crate::error::SealError;
use crate::sign::{SigningKey, VerifyingKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256, Sha512};

/// The namespace of signatures on git's objects.
pub const GIT_NAMESPACE: &str = "git";

const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
const KEY_TYPE: &[u8] = b"ssh-ed25519";
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
/// Characters on a line of the armour, as OpenSSH writes it.
const LINE: usize = 70;
/// The longest armour that is read, in bytes. An Ed25519 signature takes about 300.
const LARGEST: usize = 4 * 1024;

/// A signature by an Ed25519 key, with the key and the namespace that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSignature {
    /// The key that it says it was made with. It proves nothing: whose key it is, is the reader's to know.
    pub key: VerifyingKey,
    /// What it is for, such as [`GIT_NAMESPACE`].
    pub namespace: String,
    hash: Hash,
    signature: [u8; 64],
}

/// How the message was digested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Sha256 => b"sha256",
            Self::Sha512 => b"sha512",
        }
    }

    fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }
}

impl SshSignature {
    /// Signs `message` for a namespace. The same key, namespace and message give the same signature.
    #[must_use]
    pub fn sign(key: &SigningKey, namespace: &str, message: &[u8]) -> Self {
        let hash = Hash::Sha512;
        let signature = *key.sign_raw(&signed_bytes(namespace, hash, message)).as_bytes();
        Self { key: key.verifying_key(), namespace: namespace.to_owned(), hash, signature }
    }

    /// Whether it is by the key that it names, over exactly this message, for this namespace.
    #[must_use]
    pub fn verifies(&self, namespace: &str, message: &[u8]) -> bool {
        self.namespace == namespace
            && self.key.verify_raw(&signed_bytes(namespace, self.hash, message), &self.signature)
    }

    /// The text between `-----BEGIN SSH SIGNATURE-----` and its end, lines of 70 characters, with a final line break.
    #[must_use]
    pub fn armor(&self) -> String {
        let mut blob = MAGIC.to_vec();
        blob.extend_from_slice(&VERSION.to_be_bytes());
        put(&mut blob, &public_blob(&self.key));
        put(&mut blob, self.namespace.as_bytes());
        put(&mut blob, b"");
        put(&mut blob, self.hash.name());
        let mut signature = Vec::new();
        put(&mut signature, KEY_TYPE);
        put(&mut signature, &self.signature);
        put(&mut blob, &signature);
        let text = STANDARD.encode(&blob);
        let mut out = format!("{BEGIN}\n");
        for line in text.as_bytes().chunks(LINE) {
            out.push_str(&String::from_utf8_lossy(line));
            out.push('\n');
        }
        out.push_str(END);
        out.push('\n');
        out
    }

    /// Reads an armour. Line breaks within the base64 may stand anywhere; nothing may stand before or after it.
    ///
    /// # Errors
    /// `ssh-signature-format` for anything else than one version 1 signature by an Ed25519 key, whatever comes behind it
    /// included.
    pub fn parse(armor: &str) -> Result<Self, SealError> {
        Self::read(armor).ok_or(SealError::SshSignatureFormat)
    }

    fn read(armor: &str) -> Option<Self> {
        if armor.len() > LARGEST {
            return None;
        }
        let inner = armor.trim_end_matches('\n').strip_prefix(BEGIN)?.strip_suffix(END)?;
        let inner = inner.strip_prefix('\n')?.strip_suffix('\n')?;
        let text: String = inner.chars().filter(|c| *c != '\n').collect();
        let blob = STANDARD.decode(text).ok()?;
        let mut rest = blob.strip_prefix(MAGIC)?;
        let (version, tail) = rest.split_first_chunk::<4>()?;
        if u32::from_be_bytes(*version) != VERSION {
            return None;
        }
        rest = tail;
        let key = read_public_blob(take(&mut rest)?)?;
        let namespace = String::from_utf8(take(&mut rest)?.to_vec()).ok()?;
        if namespace.is_empty() || !take(&mut rest)?.is_empty() {
            return None;
        }
        let hash = match take(&mut rest)? {
            b"sha256" => Hash::Sha256,
            b"sha512" => Hash::Sha512,
            _ => return None,
        };
        let mut signature = take(&mut rest)?;
        let (kind, bytes) = (take(&mut signature)?, take(&mut signature)?);
        if kind != KEY_TYPE || !signature.is_empty() || !rest.is_empty() {
            return None;
        }
        Some(Self { key, namespace, hash, signature: bytes.try_into().ok()? })
    }
}

/// A public key as OpenSSH writes it: `ssh-ed25519 AAAA…`.
#[must_use]
pub fn public_text(key: &VerifyingKey) -> String {
    format!("ssh-ed25519 {}", STANDARD.encode(public_blob(key)))
}

/// Reads what [`public_text`] wrote; a comment behind it is skipped.
///
/// # Errors
/// `signing-key` for anything else than an Ed25519 key.
pub fn read_public_text(text: &str) -> Result<VerifyingKey, SealError> {
    let mut words = text.split_ascii_whitespace();
    let (kind, blob) = (words.next(), words.next());
    let blob = blob.filter(|_| kind == Some("ssh-ed25519")).and_then(|blob| STANDARD.decode(blob).ok());
    blob.as_deref().and_then(read_public_blob).ok_or(SealError::SigningKey)
}

/// A public key's fingerprint as OpenSSH prints it: `SHA256:…`.
#[must_use]
pub fn fingerprint(key: &VerifyingKey) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(public_blob(key))))
}

/// A line of an `allowed_signers` file (ssh-keygen(1)): `principal` may sign git's objects with `key`.
#[must_use]
pub fn allowed_signer(principal: &str, key: &VerifyingKey) -> String {
    format!("{principal} namespaces=\"{GIT_NAMESPACE}\" {}", public_text(key))
}

fn signed_bytes(namespace: &str, hash: Hash, message: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    put(&mut out, namespace.as_bytes());
    put(&mut out, b"");
    put(&mut out, hash.name());
    put(&mut out, &hash.digest(message));
    out
}

fn public_blob(key: &VerifyingKey) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, KEY_TYPE);
    put(&mut out, &key.to_bytes());
    out
}

fn read_public_blob(blob: &[u8]) -> Option<VerifyingKey> {
    let mut rest = blob;
    let (kind, bytes) = (take(&mut rest)?, take(&mut rest)?);
    let bytes: &[u8; 32] = bytes.try_into().ok()?;
    (kind == KEY_TYPE && rest.is_empty()).then(|| VerifyingKey::from_bytes(bytes).ok()).flatten()
}

/// A `string` of RFC 4251 §5: four bytes of length, then the bytes.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // Everything that is written here is far below 4 GiB.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (bytes, tail) = tail.split_at_checked(length)?;
    *rest = tail;
    Some(bytes)
}

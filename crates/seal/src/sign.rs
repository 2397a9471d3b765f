//! Ed25519 signatures (RFC 8032), separated by domain.
//!
//! Promises: a signature made for one purpose is worth nothing for another, since the purpose's name is part of what
//! is signed; verification is strict (no small-order keys, one encoding per signature).

use crate::error::SealError;
use crate::secret::Secret;
use crate::text::{base64url, hex, unbase64url, unhex};
use ed25519_dalek::Signer as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use tipstaff_model::Entropy;
use zeroize::Zeroize as _;

/// What a signature is for. The bytes signed are this name, a zero byte, and the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Domain {
    /// A warrant's canonical bytes.
    Warrant,
    /// A decision on an approval.
    Approval,
    /// The receipt of an erasure.
    Receipt,
}

impl Domain {
    /// The bytes in front of the message; each ends in a zero byte, so none is a prefix of another.
    #[must_use]
    pub const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Warrant => b"tipstaff/warrant/v1\0",
            Self::Approval => b"tipstaff/approval/v1\0",
            Self::Receipt => b"tipstaff/receipt/v1\0",
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Warrant => "warrant",
            Self::Approval => "approval",
            Self::Receipt => "receipt",
        }
    }

    fn message(self, message: &[u8]) -> Vec<u8> {
        [self.prefix(), message].concat()
    }
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_serde;

/// Name of a signing key: the first eight bytes of the SHA-256 of its public key, in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

impl KeyId {
    fn of(public: &[u8; 32]) -> Self {
        let digest: [u8; 32] = Sha256::digest(public).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        Self([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        unhex(text).map(Self).ok_or(SealError::SigningKey)
    }
}

text_serde!(KeyId);

/// A signature: 64 bytes; as text, unpadded URL-safe base64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// The signature with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url(&self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}

impl FromStr for Signature {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let bytes = unbase64url(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(SealError::SignatureFormat)
    }
}

text_serde!(Signature);

/// A private key. Prints its id only; wiped when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// A new random key.
    #[must_use]
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0_u8; 32];
        entropy.fill(&mut bytes);
        let key = Self(ed25519_dalek::SigningKey::from_bytes(&bytes));
        bytes.zeroize();
        key
    }

    /// The key with these private bytes (an RFC 8032 seed), as [`SigningKey::to_secret`] gave them out.
    ///
    /// # Errors
    /// `signing-key` when there aren't 32 bytes.
    pub fn from_secret(secret: &Secret<Vec<u8>>) -> Result<Self, SealError> {
        let bytes: &[u8; 32] = secret.expose().as_slice().try_into().map_err(|_| SealError::SigningKey)?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(bytes)))
    }

    /// The private bytes, to be sealed in the key ring.
    #[must_use]
    pub fn to_secret(&self) -> Secret<Vec<u8>> {
        Secret::new(self.0.as_bytes().to_vec())
    }

    /// The public key.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }

    /// The key's name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.verifying_key().id()
    }

    /// Signs `message` for one purpose.
    #[must_use]
    pub fn sign(&self, domain: Domain, message: &[u8]) -> Signature {
        self.sign_raw(&domain.message(message))
    }

    /// Signs bytes as they are. Only for formats that bring their own separation: notes of the audit log begin with
    /// the log's name and can't hold the zero byte that every [`Domain`] has.
    pub(crate) fn sign_raw(&self, bytes: &[u8]) -> Signature {
        Signature(self.0.sign(bytes).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id())
    }
}

/// A public key; as text, unpadded URL-safe base64 of its 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// The key with these bytes.
    ///
    /// # Errors
    /// `signing-key` when they aren't a point of the curve, or one of small order, under which anything verifies.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, SealError> {
        match ed25519_dalek::VerifyingKey::from_bytes(bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(key)),
            _ => Err(SealError::SigningKey),
        }
    }

    /// The 32 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The key's name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::of(self.0.as_bytes())
    }

    /// Checks a signature.
    ///
    /// # Errors
    /// `signature-wrong` when `signature` isn't this key's over exactly this message and purpose.
    pub fn verify(&self, domain: Domain, message: &[u8], signature: &Signature) -> Result<(), SealError> {
        if self.verify_raw(&domain.message(message), signature.as_bytes()) {
            Ok(())
        } else {
            Err(SealError::SignatureWrong { key: self.id().to_string(), what: domain.what() })
        }
    }

    pub(crate) fn verify_raw(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url(self.0.as_bytes()))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.id())
    }
}

impl FromStr for VerifyingKey {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let bytes: [u8; 32] =
            unbase64url(text).and_then(|bytes| bytes.try_into().ok()).ok_or(SealError::SigningKey)?;
        Self::from_bytes(&bytes)
    }
}

text_serde!(VerifyingKey);

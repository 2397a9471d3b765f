//! The signed warrant: what a run is handed and what everybody checks before acting on it.
//!
//! Promises: what verifies is exactly what is read, since the canonical bytes of the parsed warrant must equal the
//! bytes that were signed; the digest names the warrant in the log and in approvals.

use crate::error::SealError;
use crate::secret::constant_time_eq;
use crate::sign::{Domain, KeyId, Signature, SigningKey, VerifyingKey};
use crate::text::{hex, unhex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use tipstaff_model::Warrant;

/// SHA-256 of a warrant's canonical bytes; as text, 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WarrantDigest([u8; 32]);

impl WarrantDigest {
    /// The digest of these canonical bytes.
    #[must_use]
    pub fn of(canonical: &[u8]) -> Self {
        Self(Sha256::digest(canonical).into())
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for WarrantDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for WarrantDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WarrantDigest({self})")
    }
}

impl FromStr for WarrantDigest {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        unhex(text).map(Self).ok_or(SealError::WarrantFormat)
    }
}

crate::sign::text_serde!(WarrantDigest);

/// A warrant with its signature. Reading one proves nothing: call [`SignedWarrant::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedWarrant {
    /// The grant.
    pub warrant: Warrant,
    /// The bytes that were signed, as the JSON text they are.
    pub canonical: String,
    /// SHA-256 of `canonical`.
    pub digest: WarrantDigest,
    /// The key that signed.
    pub key_id: KeyId,
    /// The signature over `canonical`.
    pub signature: Signature,
}

impl SignedWarrant {
    /// Signs a warrant.
    ///
    /// # Errors
    /// `canonical` when a number in it is beyond ±2⁵³.
    pub fn sign(warrant: &Warrant, key: &SigningKey) -> Result<Self, SealError> {
        let bytes = canonical_bytes(warrant)?;
        let (digest, signature) = (WarrantDigest::of(&bytes), key.sign(Domain::Warrant, &bytes));
        let canonical = String::from_utf8(bytes).map_err(|_| SealError::WarrantFormat)?;
        Ok(Self { warrant: warrant.clone(), canonical, digest, key_id: key.id(), signature })
    }

    /// Checks signature, digest and that the warrant is the one that was signed, then hands it out.
    ///
    /// This says who granted what. Whether the grant is still alive (expiry, revocation) is asked of
    /// [`tipstaff_model::LiveWarrant`].
    ///
    /// # Errors
    /// `signature-by-other` for another key's, `signature-wrong` for a bad signature, `warrant-altered` when the
    /// warrant or digest beside the signed bytes differ from them.
    pub fn verify(&self, key: &VerifyingKey) -> Result<&Warrant, SealError> {
        if self.key_id != key.id() {
            return Err(SealError::SignatureByOther {
                what: "warrant",
                signed_by: self.key_id.to_string(),
                given: key.id().to_string(),
            });
        }
        key.verify(Domain::Warrant, self.canonical.as_bytes(), &self.signature)?;
        let now = canonical_bytes(&self.warrant)?;
        let digest = WarrantDigest::of(self.canonical.as_bytes());
        let same = constant_time_eq(&now, self.canonical.as_bytes())
            && constant_time_eq(digest.as_bytes(), self.digest.as_bytes());
        if same { Ok(&self.warrant) } else { Err(SealError::WarrantAltered) }
    }

    /// As JSON text on one line.
    ///
    /// # Errors
    /// `warrant-format`, never in practice.
    pub fn to_json(&self) -> Result<String, SealError> {
        serde_json::to_string(self).map_err(|_| SealError::WarrantFormat)
    }

    /// Reads JSON text, unverified.
    ///
    /// # Errors
    /// `warrant-format` for anything else than a signed warrant, unknown fields included.
    pub fn from_json(text: &str) -> Result<Self, SealError> {
        serde_json::from_str(text).map_err(|_| SealError::WarrantFormat)
    }
}

fn canonical_bytes(warrant: &Warrant) -> Result<Vec<u8>, SealError> {
    warrant.canonical_bytes().map_err(|source| SealError::Canonical { what: "warrant", source })
}

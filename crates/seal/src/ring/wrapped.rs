//! Data keys as they are stored: encrypted under the encryption key.

use super::{DataKeyId, parse_nonce_and_text};
use crate::cipher::{self, NONCE, TAG};
use crate::error::SealError;
use crate::kek::RingKey;
use crate::secret::Secret;
use crate::text::{base64url, push_field};
use std::fmt;
use std::str::FromStr;
use tipstaff_model::{Entropy, OrgId};
use zeroize::Zeroize as _;

const PREFIX: &str = "tw1";

/// A data key as it is stored: encrypted under the encryption key. Not a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    pub(super) id: DataKeyId,
    wrapped_by: String,
    nonce: [u8; NONCE],
    sealed: Vec<u8>,
}

impl WrappedKey {
    /// The data key's id.
    #[must_use]
    pub const fn id(&self) -> &DataKeyId {
        &self.id
    }

    /// Id of the encryption key that unwraps it ([`RingKey::id`]).
    #[must_use]
    pub fn wrapped_by(&self) -> &str {
        &self.wrapped_by
    }
}

impl fmt::Display for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nonce, sealed) = (base64url(&self.nonce), base64url(&self.sealed));
        write!(f, "{PREFIX}.{}.{}.{nonce}.{sealed}", self.id, self.wrapped_by)
    }
}

impl FromStr for WrappedKey {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let mut fields = text.split('.');
        let (Some(PREFIX), Some(id), Some(by), Some(nonce), Some(sealed), None) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(SealError::WrappedFormat);
        };
        let (nonce, sealed) = parse_nonce_and_text(nonce, sealed).ok_or(SealError::WrappedFormat)?;
        let id = id.parse().map_err(|_| SealError::WrappedFormat)?;
        let by_well_formed = by.len() == 16 && by.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if sealed.len() != 32 + TAG || !by_well_formed {
            return Err(SealError::WrappedFormat);
        }
        Ok(Self { id, wrapped_by: by.to_owned(), nonce, sealed })
    }
}

fn wrap_associated(org: OrgId, ring: &str, id: &DataKeyId) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    push_field(&mut out, b"tipstaff/data-key/v1");
    push_field(&mut out, org.as_bytes());
    push_field(&mut out, ring.as_bytes());
    push_field(&mut out, id.as_str().as_bytes());
    out
}

pub(super) fn wrap(
    org: OrgId,
    ring: &str,
    key: &RingKey,
    id: &DataKeyId,
    data_key: &Secret<[u8; 32]>,
    entropy: &dyn Entropy,
) -> Result<WrappedKey, SealError> {
    let associated = wrap_associated(org, ring, id);
    let (nonce, sealed) = cipher::encrypt(key.secret(), &associated, data_key.expose(), entropy)
        .ok_or(SealError::WrappedFormat)?;
    Ok(WrappedKey { id: id.clone(), wrapped_by: key.id(), nonce, sealed })
}

pub(super) fn unwrap(
    org: OrgId,
    ring: &str,
    key: &RingKey,
    wrapped: &WrappedKey,
) -> Result<Secret<[u8; 32]>, SealError> {
    if wrapped.wrapped_by != key.id() {
        return Err(SealError::WrappedByOther {
            key: wrapped.id.to_string(),
            wrapped_by: wrapped.wrapped_by.clone(),
            given: key.id(),
        });
    }
    let associated = wrap_associated(org, ring, &wrapped.id);
    let altered = || SealError::WrappedAltered { key: wrapped.id.to_string() };
    let plain =
        cipher::decrypt(key.secret(), &associated, wrapped.nonce, &wrapped.sealed).ok_or_else(altered)?;
    let mut bytes: [u8; 32] = plain.as_slice().try_into().map_err(|_| altered())?;
    let secret = Secret::new(bytes);
    bytes.zeroize();
    Ok(secret)
}

/// Wraps a data key anew when the encryption key changes. The data key and everything sealed under it stay.
///
/// # Errors
/// `wrapped-by-other` when `old` isn't the key it was wrapped by; `wrapped-altered` when it doesn't open.
pub fn rewrap(
    org: OrgId,
    ring: &str,
    old: &RingKey,
    new: &RingKey,
    wrapped: &WrappedKey,
    entropy: &dyn Entropy,
) -> Result<WrappedKey, SealError> {
    wrap(org, ring, new, &wrapped.id, &unwrap(org, ring, old, wrapped)?, entropy)
}

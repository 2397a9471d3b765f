//! Encryption at rest: a ring of data keys per org, wrapped by one encryption key.
//!
//! Promises: a sealed value opens only in the org, table, row and column it was sealed for; a changed bit anywhere
//! makes it fail; an old key opens what it sealed until it is retired; nothing here does I/O.
//!
//! A sealed value is the text `tk1.<data key id>.<nonce>.<ciphertext and tag>`; a wrapped data key is
//! `tw1.<data key id>.<encryption key id>.<nonce>.<ciphertext and tag>`. Nonces and ciphertexts are URL-safe base64
//! without padding.
//!
//! Rotation is driven by the caller: [`Ring::rotate`] makes a new current key, [`Ring::reseal`] moves one value to it
//! (and answers `None` when there is nothing to do, so a rotation that was interrupted can simply run again), and
//! [`Ring::retire`] forgets a key that no value refers to any more.

mod wrapped;

pub use wrapped::{WrappedKey, rewrap};

use crate::cipher::{self, NONCE, TAG};
use crate::error::SealError;
use crate::kek::RingKey;
use crate::secret::Secret;
use crate::text::{base32, base64url, push_field, unbase64url};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use tipstaff_model::{Clock, Entropy, OrgId};
use wrapped::{unwrap, wrap};
use zeroize::Zeroize as _;

/// The largest plaintext of a sealed value, in bytes.
pub const SEALED_PLAINTEXT_LIMIT: usize = 1 << 20;

const SEALED_PREFIX: &str = "tk1";

/// Id of a data key: `k` and 16 digits of time and randomness. Ids sort by the time the keys were made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataKeyId(String);

impl DataKeyId {
    fn new(clock: &dyn Clock, entropy: &dyn Entropy) -> Self {
        let [_, _, m0, m1, m2, m3, m4, m5] = u64::try_from(clock.wall_ms()).unwrap_or(0).to_be_bytes();
        let mut random = [0_u8; 4];
        entropy.fill(&mut random);
        let [r0, r1, r2, r3] = random;
        Self(format!("k{}", base32(&[m0, m1, m2, m3, m4, m5, r0, r1, r2, r3])))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DataKeyId {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let digits = text.strip_prefix('k').ok_or(SealError::SealedFormat)?;
        let well_formed =
            digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v'));
        if well_formed { Ok(Self(text.to_owned())) } else { Err(SealError::SealedFormat) }
    }
}

impl fmt::Display for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKeyId({})", self.0)
    }
}

/// Where a sealed value lives. All four are bound to the ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealContext<'a> {
    /// The tenant.
    pub org: OrgId,
    /// Table name.
    pub table: &'a str,
    /// Primary key of the row within the org, as text.
    pub row: &'a str,
    /// Column name.
    pub column: &'a str,
}

impl SealContext<'_> {
    fn associated(&self, key: &DataKeyId) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        push_field(&mut out, b"tipstaff/sealed/v1");
        for field in [self.org.as_bytes().as_slice(), self.table.as_bytes(), self.row.as_bytes()] {
            push_field(&mut out, field);
        }
        push_field(&mut out, self.column.as_bytes());
        push_field(&mut out, key.0.as_bytes());
        out
    }
}

/// A sealed value in its stored text form. Not a secret: it may be stored, logged by id, backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedText(String);

impl SealedText {
    /// The text to store.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text to store, owned.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for SealedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

struct SealedParts {
    key: DataKeyId,
    nonce: [u8; NONCE],
    text: Vec<u8>,
}

fn parse_nonce_and_text(nonce: &str, text: &str) -> Option<([u8; NONCE], Vec<u8>)> {
    let nonce = unbase64url(nonce)?.try_into().ok()?;
    let text = unbase64url(text)?;
    (text.len() >= TAG).then_some((nonce, text))
}

fn parse_sealed(text: &str) -> Result<SealedParts, SealError> {
    if text.len() > SEALED_PLAINTEXT_LIMIT * 2 {
        return Err(SealError::SealedFormat);
    }
    let mut fields = text.split('.');
    let (Some(SEALED_PREFIX), Some(key), Some(nonce), Some(sealed), None) =
        (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(SealError::SealedFormat);
    };
    let (nonce, text) = parse_nonce_and_text(nonce, sealed).ok_or(SealError::SealedFormat)?;
    Ok(SealedParts { key: key.parse()?, nonce, text })
}

/// The id of the key that a sealed value needs, without opening it.
///
/// # Errors
/// `sealed-format` when `text` is no sealed value.
pub fn key_id_of(text: &str) -> Result<DataKeyId, SealError> {
    parse_sealed(text).map(|parts| parts.key)
}

/// The data keys of one org, unwrapped in memory. `current` seals, all of them open.
#[derive(Clone)]
pub struct Ring {
    org: OrgId,
    name: String,
    current: DataKeyId,
    keys: BTreeMap<DataKeyId, Secret<[u8; 32]>>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("org", &self.org)
            .field("name", &self.name)
            .field("current", &self.current)
            .field("keys", &self.keys.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl Ring {
    /// A new ring with one key. Store the wrapped key before sealing anything.
    ///
    /// # Errors
    /// None in practice; the cipher's limits are far away.
    pub fn create(
        org: OrgId,
        name: &str,
        key: &RingKey,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<(Self, WrappedKey), SealError> {
        let (id, data_key, wrapped) = new_data_key(org, name, key, clock, entropy)?;
        let keys = BTreeMap::from([(id.clone(), data_key)]);
        Ok((Self { org, name: name.to_owned(), current: id, keys }, wrapped))
    }

    /// Opens a stored ring.
    ///
    /// # Errors
    /// `wrapped-by-other`, `wrapped-altered` for a key that doesn't open; `key-unknown` when `current` isn't among them.
    pub fn open_ring<'a>(
        org: OrgId,
        name: &str,
        key: &RingKey,
        current: &DataKeyId,
        wrapped: impl IntoIterator<Item = &'a WrappedKey>,
    ) -> Result<Self, SealError> {
        let mut keys = BTreeMap::new();
        for item in wrapped {
            keys.insert(item.id.clone(), unwrap(org, name, key, item)?);
        }
        if !keys.contains_key(current) {
            return Err(SealError::KeyUnknown { key: current.0.clone() });
        }
        Ok(Self { org, name: name.to_owned(), current: current.clone(), keys })
    }

    /// The org whose values this ring seals.
    #[must_use]
    pub const fn org(&self) -> OrgId {
        self.org
    }

    /// Id of the key that seals.
    #[must_use]
    pub const fn current(&self) -> &DataKeyId {
        &self.current
    }

    /// Ids of all keys, oldest first.
    pub fn key_ids(&self) -> impl Iterator<Item = &DataKeyId> {
        self.keys.keys()
    }

    /// Seals `plaintext` for one place under the current key.
    ///
    /// # Errors
    /// `sealed-org` for a context of another org, `sealed-too-large` beyond [`SEALED_PLAINTEXT_LIMIT`].
    pub fn seal(
        &self,
        context: &SealContext<'_>,
        plaintext: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<SealedText, SealError> {
        if context.org != self.org {
            return Err(SealError::SealedOrg);
        }
        let too_large =
            || SealError::SealedTooLarge { bytes: plaintext.len(), limit: SEALED_PLAINTEXT_LIMIT };
        if plaintext.len() > SEALED_PLAINTEXT_LIMIT {
            return Err(too_large());
        }
        let key = self.key(&self.current)?;
        let associated = context.associated(&self.current);
        let (nonce, text) = cipher::encrypt(key, &associated, plaintext, entropy).ok_or_else(too_large)?;
        Ok(SealedText(format!("{SEALED_PREFIX}.{}.{}.{}", self.current, base64url(&nonce), base64url(&text))))
    }

    /// Opens a value at the place it was read from.
    ///
    /// # Errors
    /// `sealed-format` for other text, `sealed-org` for a context of another org, `key-unknown` for a key not in this
    /// ring, `sealed-altered` for a value that was changed or moved to another table, row or column.
    pub fn open(&self, context: &SealContext<'_>, sealed: &str) -> Result<Secret<Vec<u8>>, SealError> {
        let parts = parse_sealed(sealed)?;
        if context.org != self.org {
            return Err(SealError::SealedOrg);
        }
        let key = self.key(&parts.key)?;
        let associated = context.associated(&parts.key);
        let mut plain = cipher::decrypt(key, &associated, parts.nonce, &parts.text).ok_or_else(|| {
            SealError::SealedAltered { table: context.table.to_owned(), column: context.column.to_owned() }
        })?;
        Ok(Secret::new(std::mem::take(&mut *plain)))
    }

    /// Makes a new current key. The ring returned opens old values too. Store the wrapped key and the new current id
    /// before sealing with the new ring.
    ///
    /// # Errors
    /// None in practice; the cipher's limits are far away.
    pub fn rotate(
        &self,
        key: &RingKey,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<(Self, WrappedKey), SealError> {
        let (id, data_key, wrapped) = new_data_key(self.org, &self.name, key, clock, entropy)?;
        let mut next = self.clone();
        next.keys.insert(id.clone(), data_key);
        next.current = id;
        Ok((next, wrapped))
    }

    /// Seals a value anew under the current key, or answers `None` when it already is.
    ///
    /// # Errors
    /// As [`Ring::open`].
    pub fn reseal(
        &self,
        context: &SealContext<'_>,
        sealed: &str,
        entropy: &dyn Entropy,
    ) -> Result<Option<SealedText>, SealError> {
        if key_id_of(sealed)? == self.current {
            return Ok(None);
        }
        let plain = self.open(context, sealed)?;
        self.seal(context, plain.expose(), entropy).map(Some)
    }

    /// The ring without an old key. Only for a key that no sealed value refers to.
    ///
    /// # Errors
    /// `key-current` for the current key, `key-unknown` for one that isn't there.
    pub fn retire(&self, id: &DataKeyId) -> Result<Self, SealError> {
        if *id == self.current {
            return Err(SealError::KeyCurrent { key: id.0.clone() });
        }
        let mut next = self.clone();
        match next.keys.remove(id) {
            Some(_) => Ok(next),
            None => Err(SealError::KeyUnknown { key: id.0.clone() }),
        }
    }

    fn key(&self, id: &DataKeyId) -> Result<&Secret<[u8; 32]>, SealError> {
        self.keys.get(id).ok_or_else(|| SealError::KeyUnknown { key: id.0.clone() })
    }
}

fn new_data_key(
    org: OrgId,
    ring: &str,
    key: &RingKey,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<(DataKeyId, Secret<[u8; 32]>, WrappedKey), SealError> {
    let id = DataKeyId::new(clock, entropy);
    let mut bytes = [0_u8; 32];
    entropy.fill(&mut bytes);
    let data_key = Secret::new(bytes);
    bytes.zeroize();
    let wrapped = wrap(org, ring, key, &id, &data_key, entropy)?;
    Ok((id, data_key, wrapped))
}

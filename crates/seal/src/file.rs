//! Sealing one file under a key of its own: for what is too large for a row of the database. The key is sealed there; who
//! removes it has erased the file.
//!
//! Promises: a sealed file opens only under its key and for the place that it was sealed for; a changed bit anywhere, or a
//! part that was cut off, makes it fail. Nothing here does I/O.

use crate::Secret;
use crate::cipher::{self, NONCE, TAG};
use crate::error::SealError;
use crate::text::push_field;
use tipstaff_model::Entropy;

/// The largest file that is sealed, in bytes.
pub const SEALED_FILE_LIMIT: usize = 256 << 20;

/// What a sealed file begins with.
const MARK: &[u8] = b"tf1\n";

/// The key of one file.
#[derive(Clone)]
pub struct FileKey(Secret<[u8; 32]>);

impl std::fmt::Debug for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileKey")
    }
}

impl FileKey {
    /// A new key.
    #[must_use]
    pub fn new(entropy: &dyn Entropy) -> Self {
        let mut key = [0_u8; 32];
        entropy.fill(&mut key);
        Self(Secret::new(key))
    }

    /// A key as it was stored; `None` when these bytes are none.
    #[must_use]
    pub fn from_bytes(bytes: &Secret<Vec<u8>>) -> Option<Self> {
        Some(Self(Secret::new(bytes.expose().as_slice().try_into().ok()?)))
    }

    /// The key, to be sealed and stored.
    #[must_use]
    pub fn to_bytes(&self) -> Secret<Vec<u8>> {
        Secret::new(self.0.expose().to_vec())
    }

    /// Seals a file for one place, such as `session:` and the id of a run.
    ///
    /// # Errors
    /// `sealed-too-large` beyond [`SEALED_FILE_LIMIT`].
    pub fn seal(&self, place: &str, plain: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, SealError> {
        let too_large = || SealError::SealedTooLarge { bytes: plain.len(), limit: SEALED_FILE_LIMIT };
        if plain.len() > SEALED_FILE_LIMIT {
            return Err(too_large());
        }
        let sealed = cipher::encrypt(&self.0, &associated(place), plain, entropy);
        let (nonce, text) = sealed.ok_or_else(too_large)?;
        let mut out = Vec::with_capacity(MARK.len() + NONCE + text.len());
        out.extend_from_slice(MARK);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&text);
        Ok(out)
    }

    /// Opens a file at the place that it was sealed for.
    ///
    /// # Errors
    /// `sealed-format` for other bytes; `sealed-altered` for a file that was changed, cut off, sealed under another key or
    /// for another place.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Secret<Vec<u8>>, SealError> {
        let rest = sealed.strip_prefix(MARK).ok_or(SealError::SealedFormat)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE>().ok_or(SealError::SealedFormat)?;
        if text.len() < TAG {
            return Err(SealError::SealedFormat);
        }
        let altered = || SealError::SealedAltered { table: "file".to_owned(), column: place.to_owned() };
        let mut plain = cipher::decrypt(&self.0, &associated(place), *nonce, text).ok_or_else(altered)?;
        Ok(Secret::new(std::mem::take(&mut *plain)))
    }
}

fn associated(place: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    push_field(&mut out, b"tipstaff/file/v1");
    push_field(&mut out, place.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;
    use proptest::prelude::*;

    #[test]
    fn a_file_opens_with_its_key_at_its_place_and_whole() {
        let (key, other) = (FileKey::new(&SystemEntropy), FileKey::new(&SystemEntropy));
        let key = FileKey::from_bytes(&key.to_bytes()).unwrap();
        assert!(FileKey::from_bytes(&Secret::new(vec![1; 31])).is_none());
        let sealed = key.seal("session:1", b"what was said", &SystemEntropy).unwrap();
        assert!(!sealed.windows(4).any(|part| part == b"what"));
        assert_eq!(key.open("session:1", &sealed).unwrap().expose(), b"what was said");
        assert_eq!(key.open("session:2", &sealed).unwrap_err().code(), "sealed-altered");
        assert_eq!(other.open("session:1", &sealed).unwrap_err().code(), "sealed-altered");
        for cut in 0..sealed.len() {
            assert!(key.open("session:1", &sealed[..cut]).is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_bit_is_seen(plain in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let key = FileKey::new(&SystemEntropy);
            let mut sealed = key.seal("x", &plain, &SystemEntropy).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(key.open("x", &sealed).is_err());
        }
    }
}

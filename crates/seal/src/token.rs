//! Opaque tokens: random, shown once, stored as hashes.
//!
//! The text is `tip_<kind>_<org>_<secret><checksum>`: the prefix lets secret scanners find it and tells a person whose
//! it is, the checksum lets a copy that was cut be refused without asking the database. `org` is the last eight digits
//! of the org's id, `secret` 256 random bits as 43 digits of base 62, `checksum` the CRC-32 (ISO-HDLC) of all before it
//! as six.

use crate::error::SealError;
use crate::secret::Secret;
use crate::text::{hex, unhex};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use tipstaff_model::{Entropy, OrgId};
use zeroize::Zeroize as _;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SECRET_DIGITS: usize = 43;
const CHECKSUM_DIGITS: usize = 6;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A person's access.
    Person,
    /// A program's access to one org or project.
    Key,
    /// A person's device.
    Device,
    /// A worker.
    Worker,
}

impl TokenKind {
    /// All kinds.
    pub const ALL: &'static [Self] = &[Self::Person, Self::Key, Self::Device, Self::Worker];

    /// The word in the token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "pat",
            Self::Key => "key",
            Self::Device => "dev",
            Self::Worker => "wrk",
        }
    }
}

/// SHA-256 of a token's text: what is stored and looked up; as text, 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({self})")
    }
}

impl FromStr for TokenHash {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        unhex(text).map(Self).ok_or(SealError::TokenFormat)
    }
}

/// A token whose form was checked. Whether it is known, alive and whose it is, the store says by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    kind: TokenKind,
    text: Secret<String>,
}

impl Token {
    /// A new token.
    #[must_use]
    pub fn new(kind: TokenKind, org: OrgId, entropy: &dyn Entropy) -> Self {
        let mut secret = [0_u8; 32];
        entropy.fill(&mut secret);
        let mut text = format!("tip_{}_{}_", kind.as_str(), org.short());
        text.reserve_exact(SECRET_DIGITS + CHECKSUM_DIGITS);
        push_base62(&mut text, &mut secret, SECRET_DIGITS);
        secret.zeroize();
        let checksum = crc32(text.as_bytes());
        push_base62(&mut text, &mut checksum.to_be_bytes(), CHECKSUM_DIGITS);
        Self { kind, text: Secret::new(text) }
    }

    /// Checks the form of a token that somebody presents.
    ///
    /// # Errors
    /// `token-format`.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let malformed = || SealError::TokenFormat;
        let mut fields = text.split('_');
        let (Some("tip"), Some(kind), Some(org), Some(rest), None) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(malformed());
        };
        let kind = TokenKind::ALL.iter().find(|k| k.as_str() == kind).ok_or_else(malformed)?;
        let org_fits = org.len() == 8 && org.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let rest_fits =
            rest.len() == SECRET_DIGITS + CHECKSUM_DIGITS && rest.bytes().all(|b| b.is_ascii_alphanumeric());
        if !org_fits || !rest_fits {
            return Err(malformed());
        }
        let (body, checksum) = text.split_at_checked(text.len() - CHECKSUM_DIGITS).ok_or_else(malformed)?;
        let mut expected = String::new();
        push_base62(&mut expected, &mut crc32(body.as_bytes()).to_be_bytes(), CHECKSUM_DIGITS);
        if expected != checksum {
            return Err(malformed());
        }
        Ok(Self { kind: *kind, text: Secret::new(text.to_owned()) })
    }

    /// What it is for.
    #[must_use]
    pub const fn kind(&self) -> TokenKind {
        self.kind
    }

    /// The text, to be shown once.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// What to store and look up.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.text.expose()).into())
    }
}

/// Appends a big-endian number as `width` digits of base 62; the number is used up.
pub(crate) fn push_base62(out: &mut String, number: &mut [u8], width: usize) {
    let mut digits = vec![b'0'; width];
    for slot in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in number.iter_mut() {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(0);
            remainder = value % 62;
        }
        *slot = usize::try_from(remainder).ok().and_then(|at| DIGITS.get(at)).copied().unwrap_or(b'0');
    }
    out.extend(digits.iter().map(|digit| char::from(*digit)));
    digits.zeroize();
}

pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_has_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn base_62_pads_and_carries() {
        let mut out = String::new();
        push_base62(&mut out, &mut [0, 61], 3);
        push_base62(&mut out, &mut [0, 62], 3);
        push_base62(&mut out, &mut [0xff; 32], SECRET_DIGITS);
        assert_eq!(out, "00z010yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1");
    }
}

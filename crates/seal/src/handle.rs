//! Handles: what a run holds in the place of a secret.
//!
//! The text is `tsh_<random><checksum>`: 256 random bits as 43 digits of base 62, then the CRC-32 of all before it as
//! six. It stands for a value only within the broker of its own run; everywhere else it is worth nothing, and its form
//! lets it be found wherever it was carried.

use crate::token::{crc32, push_base62};
use std::fmt;
use tipstaff_model::Entropy;

/// How every handle begins.
pub const HANDLE_PREFIX: &str = "tsh_";
/// Length of a handle, in bytes.
pub const HANDLE_LENGTH: usize = HANDLE_PREFIX.len() + RANDOM_DIGITS + CHECKSUM_DIGITS;
const RANDOM_DIGITS: usize = 43;
const CHECKSUM_DIGITS: usize = 6;

/// A handle whose form was checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(String);

impl Handle {
    /// A new handle.
    #[must_use]
    pub fn new(entropy: &dyn Entropy) -> Self {
        let mut random = [0_u8; 32];
        entropy.fill(&mut random);
        let mut text = HANDLE_PREFIX.to_owned();
        push_base62(&mut text, &mut random, RANDOM_DIGITS);
        let checksum = crc32(text.as_bytes());
        push_base62(&mut text, &mut checksum.to_be_bytes(), CHECKSUM_DIGITS);
        Self(text)
    }

    /// The first handle in `bytes`, and where it begins.
    #[must_use]
    pub fn find(bytes: &[u8]) -> Option<(usize, Self)> {
        memchr::memmem::find_iter(bytes, HANDLE_PREFIX).find_map(|at| {
            let text = std::str::from_utf8(bytes.get(at..at + HANDLE_LENGTH)?).ok()?;
            let (body, checksum) = text.split_at_checked(HANDLE_LENGTH - CHECKSUM_DIGITS)?;
            let mut expected = String::new();
            push_base62(&mut expected, &mut crc32(body.as_bytes()).to_be_bytes(), CHECKSUM_DIGITS);
            let digits = text.bytes().skip(HANDLE_PREFIX.len()).all(|byte| byte.is_ascii_alphanumeric());
            (digits && expected == checksum).then(|| (at, Self(text.to_owned())))
        })
    }

    /// Where the longest end of `bytes` begins that may be the beginning of a handle; their length when there is none.
    #[must_use]
    pub fn possible_beginning(bytes: &[u8]) -> usize {
        let from = bytes.len().saturating_sub(HANDLE_LENGTH - 1);
        let tail = bytes.get(from..).unwrap_or_default();
        let fits = |at: &usize| {
            let rest = tail.get(*at..).unwrap_or_default();
            let (begin, digits) = rest.split_at(rest.len().min(HANDLE_PREFIX.len()));
            HANDLE_PREFIX.as_bytes().starts_with(begin) && digits.iter().all(u8::is_ascii_alphanumeric)
        };
        memchr::memchr_iter(b't', tail).find(fits).map_or(bytes.len(), |at| from + at)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;

    #[test]
    fn a_handle_is_found_wherever_it_stands_and_nothing_else_is() {
        let handle = Handle::new(&SystemEntropy);
        assert_eq!(handle.as_str().len(), HANDLE_LENGTH);
        assert_ne!(handle, Handle::new(&SystemEntropy));
        for (before, after) in [("", ""), ("Bearer ", " x"), ("tsh_tsh_", "tail"), ("\u{e9}", "\n")] {
            let text = format!("{before}{handle}{after}");
            assert_eq!(Handle::find(text.as_bytes()), Some((before.len(), handle.clone())), "{text}");
        }
        let mut other = handle.as_str().to_owned();
        let last = other.pop().unwrap();
        other.push(if last == 'a' { 'b' } else { 'a' });
        for none in ["", "tsh_", &other, &handle.as_str()[..HANDLE_LENGTH - 1], &"tsh_".repeat(40)] {
            assert_eq!(Handle::find(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn a_handle_in_pieces_is_held_back_from_its_first_letter() {
        let handle = Handle::new(&SystemEntropy);
        for cut in 1..HANDLE_LENGTH {
            let text = format!("it is {}", &handle.as_str()[..cut]);
            assert_eq!(Handle::possible_beginning(text.as_bytes()), 6, "{text}");
        }
        for none in ["", "it is", "tsh-", "tsh_ ", "a b c"] {
            assert_eq!(Handle::possible_beginning(none.as_bytes()), none.len(), "{none}");
        }
        assert_eq!(Handle::possible_beginning(b"what"), 3);
    }
}

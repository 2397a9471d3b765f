//! Keys out of answers: whatever an upstream echoes, the key does not reach the sandbox.
//!
//! Promises: no spelling of the key that is listed here passes, wherever the pieces of an answer begin and end; bytes
//! that can't be the beginning of one are never held back.

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;
use std::sync::Arc;

/// What stands in the place of a key.
pub(crate) const MARK: &[u8] = b"[redacted:key]";

/// The spellings of one key.
#[derive(Clone)]
pub(crate) struct KeySpellings(Arc<Vec<Finder<'static>>>);

impl std::fmt::Debug for KeySpellings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySpellings(…)")
    }
}

impl KeySpellings {
    /// Whether there is nothing to look for.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The spellings of each key: as it is, with its signs escaped for JSON or a URL, in hexadecimal and in base64 at
    /// every alignment. Without a key there are none.
    pub(crate) fn of<'k>(keys: impl IntoIterator<Item = &'k str>) -> Self {
        let mut all: Vec<Vec<u8>> = Vec::new();
        for key in keys {
            let mut found: Vec<Vec<u8>> = Vec::new();
            let bytes = key.as_bytes();
            let hex = |digits: &[u8; 16]| -> Vec<u8> {
                let digit = |nibble: u8| digits.get(usize::from(nibble)).copied().unwrap_or(b'0');
                bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
            };
            let url = |upper: bool| -> Vec<u8> {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
                let spell = |b: u8| if upper { format!("%{b:02X}") } else { format!("%{b:02x}") };
                bytes.iter().flat_map(|b| if plain(*b) { vec![*b] } else { spell(*b).into_bytes() }).collect()
            };
            found.push(bytes.to_vec());
            found.push(key.replace('/', "\\/").into_bytes());
            found.push(url(true));
            found.push(url(false));
            found.push(hex(b"0123456789abcdef"));
            found.push(hex(b"0123456789ABCDEF"));
            for offset in 0..3 {
                let standard = base64_core(bytes, offset);
                let swap = |b: &u8| match b {
                    b'+' => b'-',
                    b'/' => b'_',
                    other => *other,
                };
                found.push(standard.iter().map(swap).collect());
                found.push(standard);
            }
            all.append(&mut found);
        }
        all.sort();
        all.dedup();
        all.retain(|spelling| spelling.len() >= 8);
        Self(Arc::new(all.iter().map(|spelling| Finder::new(spelling).into_owned()).collect()))
    }

    /// Whether some spelling is in `bytes`.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        self.0.iter().any(|finder| finder.find(bytes).is_some())
    }

    /// The first place of any spelling.
    fn first(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let places = self.0.iter().filter_map(|finder| Some((finder.find(bytes)?, finder.needle().len())));
        places.min_by_key(|(at, length)| (*at, std::cmp::Reverse(*length)))
    }

    /// Where the longest end of `bytes` begins that may be the beginning of a spelling.
    fn possible_beginning(&self, bytes: &[u8]) -> usize {
        let mut earliest = bytes.len();
        for finder in self.0.iter() {
            let needle = finder.needle();
            let Some(first) = needle.first() else { continue };
            let from = bytes.len().saturating_sub(needle.len() - 1);
            let tail = bytes.get(from..).unwrap_or_default();
            let place = memchr::memchr_iter(*first, tail)
                .find(|at| tail.get(*at..).is_some_and(|rest| needle.starts_with(rest)));
            if let Some(at) = place {
                earliest = earliest.min(from + at);
            }
        }
        earliest
    }
}

/// The part of the base64 of something that holds `bytes` at `offset` modulo three that depends on `bytes` alone.
fn base64_core(bytes: &[u8], offset: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let padded: Vec<u8> = std::iter::repeat_n(0, offset).chain(bytes.iter().copied()).collect();
    let bit = |at: usize| padded.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
    let (start, end) = ((offset * 8).div_ceil(6), padded.len() * 8 / 6);
    (start..end)
        .map(|at| {
            let value = (0..6).fold(0_usize, |value, step| value << 1 | usize::from(bit(at * 6 + step)));
            ALPHABET.get(value).copied().unwrap_or(b'A')
        })
        .collect()
}

/// Takes a key out of one answer.
#[derive(Debug)]
pub(crate) struct KeyFilter {
    spellings: KeySpellings,
    held: BytesMut,
    found: u64,
}

impl KeyFilter {
    pub(crate) fn new(spellings: KeySpellings) -> Self {
        Self { spellings, held: BytesMut::new(), found: 0 }
    }

    /// How often a key was found.
    pub(crate) const fn found(&self) -> u64 {
        self.found
    }

    /// Takes the next bytes and gives what may pass. Nearly always these very bytes, without a copy.
    pub(crate) fn push(&mut self, bytes: Bytes) -> Bytes {
        if self.held.is_empty() && self.spellings.first(&bytes).is_none() {
            let at = self.spellings.possible_beginning(&bytes);
            self.held.extend_from_slice(bytes.get(at..).unwrap_or_default());
            return bytes.slice(..at);
        }
        self.held.extend_from_slice(&bytes);
        let mut out = BytesMut::new();
        while let Some((at, length)) = self.spellings.first(&self.held) {
            out.extend_from_slice(&self.held.split_to(at));
            out.extend_from_slice(MARK);
            let _ = self.held.split_to(length);
            self.found += 1;
        }
        let at = self.spellings.possible_beginning(&self.held);
        out.extend_from_slice(&self.held.split_to(at));
        out.freeze()
    }

    /// What was held back, at the end.
    pub(crate) fn finish(&mut self) -> Bytes {
        self.held.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "sk-ant-api03/AbC+dEf_0123456789";

    fn filter(text: &[u8], size: usize) -> (Vec<u8>, u64) {
        let mut filter = KeyFilter::new(KeySpellings::of([KEY]));
        let mut out = Vec::new();
        for chunk in text.chunks(size.max(1)) {
            out.extend_from_slice(&filter.push(Bytes::copy_from_slice(chunk)));
        }
        out.extend_from_slice(&filter.finish());
        (out, filter.found())
    }

    fn spellings() -> Vec<Vec<u8>> {
        KeySpellings::of([KEY]).0.iter().map(|finder| finder.needle().to_vec()).collect()
    }

    #[test]
    fn the_key_is_found_in_every_spelling_at_every_chunking() {
        // As other programs spell it.
        for known in [
            "Basic c2stYW50LWFwaTAzL0FiQytkRWZfMDEyMzQ1Njc4OQ==",
            "736b2d616e742d61706930332f4162432b6445665f30313233343536373839",
            "sk-ant-api03%2FAbC%2BdEf_0123456789",
            "{\"key\":\"sk-ant-api03\\/AbC+dEf_0123456789\"}",
        ] {
            assert_eq!(filter(known.as_bytes(), 3).1, 1, "{known}");
        }
        for spelling in spellings() {
            let text = [b"before ".as_slice(), &spelling, b" after"].concat();
            for size in 1..text.len() + 1 {
                let (out, found) = filter(&text, size);
                assert_eq!(found, 1, "{}", String::from_utf8_lossy(&text));
                assert!(out.starts_with(b"before ") && out.ends_with(b" after"));
            }
        }
    }

    #[test]
    fn nothing_is_held_back_that_can_not_be_a_key() {
        let mut filter = KeyFilter::new(KeySpellings::of([KEY]));
        for piece in ["data: {\"text\":\"task\"}\n\n", "sk-other ", "x"] {
            assert_eq!(filter.push(Bytes::from_static(piece.as_bytes())), piece);
        }
        assert_eq!(filter.push(Bytes::from_static(b"it is sk-a")), "it is ");
        assert_eq!(filter.push(Bytes::from_static(b"sk")), "sk-a", "only the new beginning is held");
        assert_eq!(filter.finish(), "sk");
        let mut none = KeyFilter::new(KeySpellings::of([]));
        assert_eq!(none.push(Bytes::from_static(KEY.as_bytes())), KEY);
    }

    proptest! {
        #[test]
        fn other_bytes_pass_unchanged_and_a_key_never_does(
            parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), 0_usize..40), 0..8),
            size in 1_usize..50,
        ) {
            let spellings = spellings();
            let mut text = Vec::new();
            for (noise, which) in &parts {
                text.extend_from_slice(noise);
                if let Some(spelling) = spellings.get(*which) {
                    text.extend_from_slice(spelling);
                }
            }
            let (out, found) = filter(&text, size);
            let all = KeySpellings::of([KEY]);
            prop_assert!(!all.is_in(&out) );
            if found == 0 {
                prop_assert_eq!(out, text);
            }
        }
    }
}

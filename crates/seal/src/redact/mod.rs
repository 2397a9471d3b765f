//! Takes secrets out of everything that is stored, shown or logged, while it streams by.
//!
//! Promises: a registered value never comes out, in plain or in one of the listed encodings, however the stream is cut
//! into chunks; the output depends on the bytes only, never on the chunks; redacting twice changes nothing; a finding
//! says the rule and the place, never the value.

mod stream;
mod value;

pub use stream::RedactStream;

use crate::secret::Secret;
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// One thing that was taken out. Never the value itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which rule found it; stable, lower case, words joined by `-`.
    pub rule: &'static str,
    /// Where it began, in bytes from the beginning of the input.
    pub offset: u64,
    /// How long it was, in bytes of the input.
    pub length: u64,
}

/// The rules and the registered values. Cloning is cheap.
#[derive(Clone)]
pub struct Redactor(Arc<Rules>);

pub(crate) struct Rules {
    needles: Option<AhoCorasick>,
    longest: usize,
}

impl Redactor {
    /// Knows the patterns only.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Rules { needles: None, longest: 0 }))
    }

    /// Knows the patterns and these values, which replace the ones registered before. Values shorter than
    /// [`Self::SHORTEST_VALUE`] bytes are left out: too much would look like them.
    #[must_use]
    pub fn with_values<'a>(&self, values: impl IntoIterator<Item = &'a Secret<String>>) -> Self {
        let mut spellings = Vec::new();
        for value in values {
            if value.expose().len() >= Self::SHORTEST_VALUE {
                value::spellings(value.expose().as_bytes(), &mut spellings);
            }
        }
        let longest = spellings.iter().map(Vec::len).max().unwrap_or(0);
        let needles = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&spellings)
            .ok();
        Self(Arc::new(Rules { needles, longest }))
    }

    /// Shortest value that is registered, in bytes.
    pub const SHORTEST_VALUE: usize = 6;

    /// A whole text at once.
    #[must_use]
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut stream = self.stream();
        let mut out = Vec::new();
        stream.push(text.as_bytes(), &mut out);
        stream.finish(&mut out);
        if stream.findings().is_empty() {
            return Cow::Borrowed(text);
        }
        Cow::Owned(
            String::from_utf8(out)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        )
    }

    /// Every string of a JSON value, the keys too.
    pub fn redact_json(&self, value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => {
                if let Cow::Owned(redacted) = self.redact(text) {
                    *text = redacted;
                }
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| self.redact_json(item)),
            serde_json::Value::Object(fields) => {
                let taken = std::mem::take(fields);
                for (key, mut field) in taken {
                    self.redact_json(&mut field);
                    let key = match self.redact(&key) {
                        Cow::Owned(redacted) => redacted,
                        Cow::Borrowed(_) => key,
                    };
                    fields.insert(key, field);
                }
            }
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
        }
    }

    /// A stream of bytes. One text channel each: of a model's answer, every content block has its own.
    #[must_use]
    pub fn stream(&self) -> RedactStream {
        RedactStream::new(Arc::clone(&self.0))
    }
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor(…)")
    }
}

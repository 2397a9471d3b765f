//! Takes secrets out of everything that is stored, shown or logged, while it streams by.
//!
//! Promises: a registered value never comes out, in plain or in one of the listed encodings, however the stream is cut
//! into chunks; the output depends on the bytes only, never on the chunks; redacting twice changes nothing; a finding
//! says the rule and the place, never the value.

mod armour;
mod assign;
mod byte;
mod decode;
mod frame;
mod index;
mod rule;
mod scan;
mod shape;
mod stream;
mod value;
mod view;

pub use stream::RedactStream;

use crate::secret::Secret;
use index::{Index, Kind};
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

/// Everything that is searched for.
pub(crate) struct Rules {
    index: Index,
    /// The registered values as they may be spelled.
    spellings: Vec<Secret<Vec<u8>>>,
}

/// Name of the rule for registered values.
const VALUE_RULE: &str = "known-value";
/// Bytes of a spelling that are searched for; the rest is compared.
const VALUE_ANCHOR: usize = 6;

impl Rules {
    fn new(spellings: Vec<Secret<Vec<u8>>>) -> Self {
        let rules = rule::RULES.iter().map(|rule| (rule.prefix.to_vec(), Kind::Rule(rule)));
        let values = spellings.iter().enumerate().map(|(number, spelling)| {
            let anchor = spelling.expose().get(..VALUE_ANCHOR).unwrap_or(spelling.expose());
            (anchor.to_vec(), Kind::Value(number))
        });
        let others = [
            (b"-----B".to_vec(), Kind::Armour),
            (b"://".to_vec(), Kind::Address),
            (b"delta\"".to_vec(), Kind::Frame),
            (b"\"candidates\"".to_vec(), Kind::Frame),
        ];
        let index = Index::new(rules.chain(values).chain(others));
        Self { index, spellings }
    }
}

impl Redactor {
    /// Knows the patterns only.
    #[must_use]
    pub fn new() -> Self {
        static PATTERNS: std::sync::LazyLock<Redactor> =
            std::sync::LazyLock::new(|| Redactor(Arc::new(Rules::new(Vec::new()))));
        PATTERNS.clone()
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
        Self(Arc::new(Rules::new(spellings.into_iter().map(Secret::new).collect())))
    }

    /// Knows these values too.
    #[must_use]
    pub fn and_values<'a>(&self, values: impl IntoIterator<Item = &'a Secret<String>>) -> Self {
        let mut spellings: Vec<Vec<u8>> = Vec::new();
        for value in values {
            if value.expose().len() >= Self::SHORTEST_VALUE {
                value::spellings(value.expose().as_bytes(), &mut spellings);
            }
        }
        if spellings.is_empty() {
            return self.clone();
        }
        let known = self.0.spellings.iter().cloned();
        Self(Arc::new(Rules::new(known.chain(spellings.into_iter().map(Secret::new)).collect())))
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

//! Reads JSON as it streams by, at any chunking, in constant memory: paths with their numbers and short texts.
//!
//! It judges nothing and changes nothing. It never keeps more than one path, one number and the beginning of one text,
//! whatever the document holds. What is no JSON ends in a state that reports nothing more.

/// The deepest nesting that is followed.
pub const DEEPEST: usize = 512;

/// The longest path, in bytes; deeper values are passed over.
pub const LONGEST_PATH: usize = 1024;

/// How much of a text is kept, in bytes.
pub const TEXT_KEPT: usize = 120;

/// Who is told. A path is the keys joined by `/`, with `[]` for an element of an array; a `/` within a key is told as
/// `\x01`.
pub trait Sink {
    /// An integer that is not negative.
    fn number(&mut self, path: &[u8], value: u64);
    /// The beginning of a text, escapes as written.
    fn text(&mut self, path: &[u8], beginning: &[u8]);
    /// A piece of a text's length, as written.
    fn text_bytes(&mut self, path: &[u8], count: usize);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    /// After `[`: a value or the end.
    FirstElement,
    /// After `{`: a key or the end.
    FirstKey,
    Key,
    Colon,
    After,
    Text {
        key: bool,
        escaped: bool,
    },
    Number {
        exact: bool,
    },
    Word,
    Ended,
    Broken,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    object: bool,
    /// Length of the path of the container itself.
    path: usize,
}

/// The state of the reading.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    levels: Vec<Level>,
    path: Vec<u8>,
    /// Bytes of the path that did not fit.
    beyond: bool,
    text: Vec<u8>,
    number: Option<u64>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// At the beginning of a document.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Value,
            levels: Vec::new(),
            path: Vec::new(),
            beyond: false,
            text: Vec::new(),
            number: None,
        }
    }

    /// Ends a document and begins the next. True when a whole one was read.
    pub fn next_document(&mut self, sink: &mut impl Sink) -> bool {
        if matches!(self.state, State::Number { .. } | State::Word) && self.levels.is_empty() {
            self.end_number(sink);
            self.state = State::Ended;
        }
        let whole = self.state == State::Ended;
        self.state = State::Value;
        self.levels.clear();
        self.path.clear();
        self.text.clear();
        self.number = None;
        self.beyond = false;
        whole
    }

    /// Whether a whole document was read.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut impl Sink) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                State::Broken => return,
                State::Text { key, escaped } => bytes = self.in_text(bytes, key, escaped, sink),
                State::Number { exact } => {
                    if byte.is_ascii_digit() {
                        if exact {
                            let digit = u64::from(byte - b'0');
                            self.number = self
                                .number
                                .and_then(|n| n.checked_mul(10))
                                .and_then(|n| n.checked_add(digit));
                        }
                        bytes = rest;
                    } else if matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-') {
                        if byte != b'.' {
                            self.number = None;
                        }
                        self.state = State::Number { exact: false };
                        bytes = rest;
                    } else {
                        // Not taken: it ends the number.
                        self.end_number(sink);
                    }
                }
                State::Word => {
                    if byte.is_ascii_lowercase() {
                        bytes = rest;
                    } else {
                        self.end_value();
                    }
                }
                _ => {
                    self.structure(byte);
                    bytes = rest;
                }
            }
        }
    }

    fn structure(&mut self, byte: u8) {
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            return;
        }
        self.state = match (self.state, byte) {
            (State::Value | State::FirstElement, b'{') => self.open(true),
            (State::Value | State::FirstElement, b'[') => self.open(false),
            (State::FirstElement, b']') | (State::FirstKey, b'}') => return self.close(),
            (State::Value | State::FirstElement, b'"') => {
                self.text.clear();
                State::Text { key: false, escaped: false }
            }
            (State::Value | State::FirstElement, b'0'..=b'9') => {
                self.number = Some(u64::from(byte - b'0'));
                State::Number { exact: true }
            }
            (State::Value | State::FirstElement, b'-') => {
                self.number = None;
                State::Number { exact: false }
            }
            (State::Value | State::FirstElement, b't' | b'f' | b'n') => State::Word,
            (State::FirstKey | State::Key, b'"') => {
                self.text.clear();
                State::Text { key: true, escaped: false }
            }
            (State::Colon, b':') => State::Value,
            (State::After, b',') => match self.levels.last() {
                Some(Level { object: true, .. }) => State::Key,
                _ => State::Value,
            },
            (State::After, b'}' | b']') => {
                let object = byte == b'}';
                if self.levels.last().is_some_and(|level| level.object == object) {
                    return self.close();
                }
                State::Broken
            }
            _ => State::Broken,
        };
    }

    fn open(&mut self, object: bool) -> State {
        if self.levels.len() >= DEEPEST {
            return State::Broken;
        }
        self.levels.push(Level { object, path: self.path.len() });
        if object {
            State::FirstKey
        } else {
            self.extend_path(b"[]");
            State::FirstElement
        }
    }

    fn close(&mut self) {
        if let Some(level) = self.levels.pop() {
            self.path.truncate(level.path);
            self.beyond = false;
        }
        self.end_value();
    }

    fn end_value(&mut self) {
        self.state = if self.levels.is_empty() { State::Ended } else { State::After };
    }

    fn end_number(&mut self, sink: &mut impl Sink) {
        if let Some(value) = self.number.take().filter(|_| !self.beyond) {
            sink.number(&self.path, value);
        }
        self.end_value();
    }

    fn extend_path(&mut self, part: &[u8]) {
        if self.path.len() + part.len() + 1 > LONGEST_PATH {
            self.beyond = true;
            return;
        }
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend(part.iter().map(|b| if *b == b'/' { 1 } else { *b }));
    }

    /// Takes the text up to its end or the end of the bytes; returns the rest.
    fn in_text<'b>(&mut self, bytes: &'b [u8], key: bool, escaped: bool, sink: &mut impl Sink) -> &'b [u8] {
        if escaped {
            let (first, rest) = bytes.split_at(1.min(bytes.len()));
            self.keep(first, key, sink);
            self.state = State::Text { key, escaped: false };
            return rest;
        }
        let at = memchr::memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
        let (piece, rest) = bytes.split_at(at);
        self.keep(piece, key, sink);
        match rest.split_first() {
            None => rest,
            Some((b'\\', after)) => {
                self.keep(b"\\", key, sink);
                self.state = State::Text { key, escaped: true };
                after
            }
            Some((_, after)) => {
                if key {
                    let parent = self.levels.last().map_or(0, |level| level.path);
                    self.path.truncate(parent);
                    // A key without a beginning that we know is a key like any other.
                    self.beyond = false;
                    let text = std::mem::take(&mut self.text);
                    self.extend_path(&text);
                    self.text = text;
                    self.state = State::Colon;
                } else {
                    if !self.beyond {
                        sink.text(&self.path, &self.text);
                    }
                    self.end_value();
                }
                after
            }
        }
    }

    fn keep(&mut self, piece: &[u8], key: bool, sink: &mut impl Sink) {
        let room = TEXT_KEPT.saturating_sub(self.text.len()).min(piece.len());
        self.text.extend_from_slice(piece.get(..room).unwrap_or_default());
        if !key && !self.beyond && !piece.is_empty() {
            sink.text_bytes(&self.path, piece.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[derive(Default, Debug, PartialEq, Eq)]
    struct Seen {
        numbers: Vec<(String, u64)>,
        texts: Vec<(String, String)>,
        bytes: usize,
    }

    impl Sink for Seen {
        fn number(&mut self, path: &[u8], value: u64) {
            self.numbers.push((String::from_utf8_lossy(path).into_owned(), value));
        }
        fn text(&mut self, path: &[u8], beginning: &[u8]) {
            self.texts.push((
                String::from_utf8_lossy(path).into_owned(),
                String::from_utf8_lossy(beginning).into_owned(),
            ));
        }
        fn text_bytes(&mut self, _: &[u8], count: usize) {
            self.bytes += count;
        }
    }

    fn scan(text: &[u8], size: usize) -> (Seen, bool) {
        let (mut scanner, mut seen) = (Scanner::new(), Seen::default());
        for chunk in text.chunks(size.max(1)) {
            scanner.push(chunk, &mut seen);
        }
        let whole = scanner.next_document(&mut seen);
        (seen, whole)
    }

    #[test]
    fn paths_lead_to_numbers_and_texts() {
        let value = json!({"a": {"b": [1, {"c": 22}], "d/e": 3}, "t": "x\"y", "f": 1.5, "n": -4, "z": null});
        let (seen, whole) = scan(value.to_string().as_bytes(), 1);
        assert!(whole);
        assert_eq!(
            seen.numbers,
            [("a/b/[]", 1), ("a/b/[]/c", 22), ("a/d\u{1}e", 3), ("f", 1)].map(|(p, n)| (p.to_owned(), n))
        );
        assert_eq!(seen.texts, [("t".to_owned(), "x\\\"y".to_owned())]);
        for broken in ["{", "{\"a\"", "[1,2", "}", "{]", "[DONE]", "", "{\"a\":1]"] {
            assert!(!scan(broken.as_bytes(), 3).1, "{broken}");
        }
        assert!(!scan("[".repeat(DEEPEST + 1).as_bytes(), 64).1);
        assert!(scan(b"12", 1).1 && scan(b"true", 2).1);
    }

    fn numbers(value: &Value, path: &str, out: &mut Vec<(String, u64)>) {
        let join = |part: &str| if path.is_empty() { part.to_owned() } else { format!("{path}/{part}") };
        match value {
            Value::Number(number) => out.extend(number.as_u64().map(|n| (path.to_owned(), n))),
            Value::Array(items) => items.iter().for_each(|item| numbers(item, &join("[]"), out)),
            Value::Object(map) => map.iter().for_each(|(key, item)| numbers(item, &join(key), out)),
            _ => {}
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<u64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,6}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_document_is_read_the_same_at_any_chunking(value in tree(), size in 1_usize..40, pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let (seen, whole) = scan(text.as_bytes(), size);
            prop_assert!(whole);
            let mut wanted = Vec::new();
            numbers(&value, "", &mut wanted);
            prop_assert_eq!(&seen.numbers, &wanted);
            prop_assert_eq!(seen, scan(text.as_bytes(), usize::MAX).0);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), size in 1_usize..50) {
            prop_assert_eq!(scan(&bytes, size), scan(&bytes, usize::MAX));
        }
    }
}

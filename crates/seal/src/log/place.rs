//! Finds org and sequence number in a record's canonical bytes without parsing all of it.
//!
//! Verification reads millions of records and needs two fields to tell "moved" from "changed". The bytes may be
//! hostile; the answer is then merely "not found".

/// What the record itself says about its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place<'a> {
    /// The org, as the text between the quotes.
    pub(super) org: Option<&'a [u8]>,
    /// The sequence number.
    pub(super) seq: Option<u64>,
}

/// Scans the top level of a JSON object.
pub(super) fn place(json: &[u8]) -> Place<'_> {
    let mut found = Place::default();
    let mut scan = Scan { rest: json };
    if scan.take() != Some(b'{') {
        return found;
    }
    while let Some(key) = scan.string() {
        if scan.take() != Some(b':') {
            break;
        }
        match key {
            b"org" => found.org = scan.string(),
            b"seq" => found.seq = scan.number(),
            _ => scan.skip_value(),
        }
        if scan.take() != Some(b',') {
            break;
        }
    }
    found
}

struct Scan<'a> {
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// A string's raw content; escapes stay as they are.
    fn string(&mut self) -> Option<&'a [u8]> {
        if self.take() != Some(b'"') {
            return None;
        }
        let start = self.rest;
        let mut length = 0;
        loop {
            let stop = self.rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
            let (_, tail) = self.rest.split_at_checked(stop)?;
            length += stop;
            if tail.first() == Some(&b'"') {
                self.rest = tail.get(1..)?;
                return start.get(..length);
            }
            self.rest = tail.get(2..)?;
            length += 2;
        }
    }

    fn number(&mut self) -> Option<u64> {
        let end = self.rest.iter().position(|byte| !byte.is_ascii_digit())?;
        let (digits, tail) = self.rest.split_at_checked(end)?;
        self.rest = tail;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    fn skip_value(&mut self) {
        let mut depth = 0_usize;
        loop {
            match self.rest.first() {
                Some(b'"') => {
                    if self.string().is_none() {
                        self.rest = &[];
                    }
                    continue;
                }
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']' | b',') if depth == 0 => return,
                Some(b'}' | b']') => depth -= 1,
                Some(_) => {}
                None => return,
            }
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_top_level_counts() {
        let json = br#"{"a":"\"seq\":1,\\","b":{"org":"x","seq":2,"c":["]}",{"seq":3}]},"org":"here","seq":42,"v":1}"#;
        assert_eq!(place(json), Place { org: Some(b"here"), seq: Some(42) });
        assert_eq!(place(br#"{"n":-1,"seq":"7"}"#), Place::default());
        assert_eq!(place(b"[1,2]"), Place::default());
        assert_eq!(place(b"{\"seq\":99999999999999999999}"), Place::default());
        assert_eq!(place(b"{\"a\":\"\\"), Place::default());
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = place(&bytes);
            let _ = place(&[b"{\"seq\":".as_slice(), &bytes].concat());
        }
    }
}

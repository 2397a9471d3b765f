//! Lines of an agent's output, each bounded.

/// The longest line that is kept, in bytes; what is longer is cut and known to be.
pub(crate) const LONGEST_LINE: usize = 4 * 1024 * 1024;

/// One line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    bytes: Vec<u8>,
    cut: bool,
}

impl Line {
    /// The text for a reader: what is no UTF-8 is replaced, what was cut is said to be.
    pub(crate) fn shown(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.cut {
            text.push_str(" (cut)");
        }
        text
    }

    /// The text exactly as it was written; `None` where that is not known: it was cut, or is no UTF-8.
    pub(crate) fn exact(&self) -> Option<&str> {
        if self.cut { None } else { std::str::from_utf8(&self.bytes).ok() }
    }
}

/// Cuts bytes into lines. Empty ones are left out.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    begun: Vec<u8>,
    cut: bool,
}

impl LineSplitter {
    /// Takes bytes; the lines that end within them are put into `lines`.
    pub(crate) fn push(&mut self, bytes: &[u8], lines: &mut Vec<Line>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (piece, ends) = match piece.strip_suffix(b"\n") {
                Some(piece) => (piece, true),
                None => (piece, false),
            };
            let room = LONGEST_LINE.saturating_sub(self.begun.len());
            self.cut |= piece.len() > room;
            self.begun.extend_from_slice(piece.get(..piece.len().min(room)).unwrap_or_default());
            if ends {
                lines.extend(self.finish());
            }
        }
    }

    /// The line that has no end yet.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        let cut = std::mem::take(&mut self.cut);
        let mut bytes = std::mem::take(&mut self.begun);
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        (!bytes.is_empty()).then_some(Line { bytes, cut })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(bytes: &[u8]) -> Vec<Line> {
        let mut splitter = LineSplitter::default();
        let mut out = Vec::new();
        splitter.push(bytes, &mut out);
        out.extend(splitter.finish());
        out
    }

    #[test]
    fn a_line_that_was_cut_or_is_no_text_is_never_taken_for_the_whole() {
        let mut long = vec![b'x'; LONGEST_LINE + 1];
        long.extend_from_slice(b"\nwhole\r\n\xff\xfe\n");
        let found = lines(&long);
        assert_eq!(found.len(), 3);
        assert!(found[0].shown().ends_with("x (cut)") && found[0].exact().is_none());
        assert_eq!(found[1].exact(), Some("whole"));
        assert_eq!((found[2].exact(), found[2].shown().as_str()), (None, "\u{fffd}\u{fffd}"));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
            cuts in prop::collection::vec(0_usize..200, 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let (mut splitter, mut out, mut from) = (LineSplitter::default(), Vec::new(), 0);
            for cut in cuts.into_iter().chain([bytes.len()]) {
                splitter.push(&bytes[from..cut], &mut out);
                from = cut;
            }
            out.extend(splitter.finish());
            prop_assert_eq!(out, lines(&bytes));
        }
    }
}

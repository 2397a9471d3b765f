//! Bytes as a reader sees them: without escape sequences, folds and escapes, each with its place in the original.

use super::byte::{at, cut, hex_byte, hex_digit, is, run_end};

/// Longest escape sequence that is passed over, in bytes.
const ESCAPE_LIMIT: usize = 32;

/// What a view joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fold {
    /// Nothing: a line end ends the view.
    No,
    /// Lines: their ends and the indentation that follows are passed over.
    Lines,
    /// Nothing, and line ends are read as they are.
    Keep,
}

/// A cleaned piece of text.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The text.
    pub(crate) bytes: Vec<u8>,
    /// Where each byte begins in the original, and last, where the view ends.
    map: Vec<usize>,
    /// The original goes on, but not within what was given.
    pub(crate) open: bool,
}

/// One step of reading.
enum Step {
    Byte(u8, usize),
    Nothing(usize),
    End,
    /// More bytes are needed to say.
    Open,
}

impl View {
    /// Reads from `from` until something that is neither of `class` nor cleaned away, or `limit` bytes were kept.
    pub(crate) fn read(
        bytes: &[u8],
        from: usize,
        class: Option<u8>,
        fold: Fold,
        limit: usize,
        ending: bool,
    ) -> Self {
        let mut view = Self::default();
        let mut index = from;
        // What is passed over is bounded too.
        let reach = from + limit * 2 + 4096;
        while view.bytes.len() < limit && index < reach {
            // What stands for itself, all at once.
            let part = cut(bytes, index, reach.min(index + limit - view.bytes.len()));
            let stops = |byte: &u8| is_cleaned(*byte) || class.is_some_and(|class| !is(*byte, class));
            let length = part.iter().position(stops).unwrap_or(part.len());
            if length > 0 {
                view.bytes.extend_from_slice(cut(part, 0, length));
                view.map.extend(index..index + length);
                index += length;
                continue;
            }
            match step(bytes, index, fold, ending) {
                Step::Byte(byte, next) => {
                    if class.is_some_and(|class| !is(byte, class)) {
                        break;
                    }
                    view.bytes.push(byte);
                    view.map.push(index);
                    index = next;
                }
                Step::Nothing(next) => index = next,
                Step::End => break,
                Step::Open => {
                    view.open = true;
                    break;
                }
            }
        }
        view.map.push(index);
        view
    }

    /// Where the byte begins in the original.
    pub(crate) fn place(&self, index: usize) -> usize {
        self.map.get(index).or(self.map.last()).copied().unwrap_or(0)
    }

    /// Where in the original the first `length` bytes end: before anything that was cleaned away after them.
    pub(crate) fn end(&self, bytes: &[u8], length: usize) -> usize {
        let Some(last) = length.checked_sub(1) else { return self.place(0) };
        let begin = self.place(last);
        match step(bytes, begin, Fold::Keep, true) {
            Step::Byte(_, next) => next,
            _ => begin + 1,
        }
    }
}

/// Whether a reader may see something else in place of this byte.
const fn is_cleaned(byte: u8) -> bool {
    matches!(byte, 0x1b | 0 | b'%' | b'\\' | b'\n' | b'\r')
}

/// Whether a view may read on where a plain match fails.
pub(crate) fn is_special(bytes: &[u8], index: usize) -> bool {
    at(bytes, index).is_some_and(is_cleaned)
}

fn step(bytes: &[u8], index: usize, fold: Fold, ending: bool) -> Step {
    let short = if ending { Step::End } else { Step::Open };
    let Some(byte) = at(bytes, index) else { return short };
    match byte {
        0 => Step::Nothing(index + 1),
        0x1b => match escape_end(bytes, index) {
            Some(end) => Step::Nothing(end),
            None if bytes.len() < index + ESCAPE_LIMIT => short,
            None => Step::End,
        },
        b'\r' | b'\n' => match fold {
            Fold::No => Step::End,
            Fold::Lines => indentation(bytes, index + 1),
            Fold::Keep => Step::Byte(byte, index + 1),
        },
        b'%' => match (hex_byte(bytes, index + 1), bytes.len() < index + 3) {
            (Some(decoded), _) => Step::Byte(decoded, index + 3),
            (None, true)
                if !ending && cut(bytes, index + 1, index + 3).iter().all(|b| hex_digit(*b).is_some()) =>
            {
                Step::Open
            }
            (None, _) => Step::Byte(byte, index + 1),
        },
        b'\\' => escaped(bytes, index, fold, short),
        _ => Step::Byte(byte, index + 1),
    }
}

/// JSON's escapes, also escaped again.
fn escaped(bytes: &[u8], index: usize, fold: Fold, short: Step) -> Step {
    let slashes = cut(bytes, index, index + 8).iter().take_while(|byte| **byte == b'\\').count();
    let after = index + slashes;
    match at(bytes, after) {
        None => short,
        Some(b'n' | b'r') => match fold {
            Fold::No => Step::End,
            Fold::Lines => indentation(bytes, after + 1),
            Fold::Keep => Step::Byte(b'\n', after + 1),
        },
        Some(b'/') => Step::Byte(b'/', after + 1),
        Some(b'u') => match (hex_byte(bytes, after + 1), hex_byte(bytes, after + 3)) {
            (Some(0), Some(0x1b)) => match control_end(bytes, after + 5) {
                Some(end) => Step::Nothing(end),
                None if bytes.len() < after + ESCAPE_LIMIT => short,
                None => Step::End,
            },
            (Some(0), Some(0)) => Step::Nothing(after + 5),
            (Some(0), Some(decoded)) => Step::Byte(decoded, after + 5),
            _ if bytes.len() < after + 5 => short,
            _ => Step::End,
        },
        Some(_) => Step::End,
    }
}

fn indentation(bytes: &[u8], from: usize) -> Step {
    let blank = cut(bytes, from, from + 64).iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    Step::Nothing(from + blank)
}

/// End of the escape sequence that begins at `index`.
fn escape_end(bytes: &[u8], index: usize) -> Option<usize> {
    match at(bytes, index + 1)? {
        b'[' => control_end(bytes, index + 1),
        b' '..=b'/' => at(bytes, index + 2).map(|_| index + 3),
        _ => Some(index + 2),
    }
}

/// End of the control sequence whose `[` is at `index` (ECMA-48 §5.4).
fn control_end(bytes: &[u8], index: usize) -> Option<usize> {
    if at(bytes, index)? != b'[' {
        return None;
    }
    let body = cut(bytes, index + 1, index + ESCAPE_LIMIT);
    let length = body.iter().position(|byte| !matches!(byte, b' '..=b'?'))?;
    matches!(body.get(length), Some(b'@'..=b'~')).then_some(index + 1 + length + 1)
}

/// Where the digits of an encoded run go on after a fold at `index`: lines of MIME and PEM width only.
pub(crate) fn next_line(bytes: &[u8], index: usize, class: u8) -> Option<usize> {
    let rest = cut(bytes, index, index + 64);
    let line_end = if rest.starts_with(b"\r\n") {
        2
    } else if rest.starts_with(b"\n") {
        1
    } else if rest.starts_with(b"\\n") {
        2
    } else {
        return None;
    };
    let blank =
        cut(rest, line_end, rest.len()).iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let begin = index + line_end + blank;
    (run_end(bytes, begin, class, 4) > begin).then_some(begin)
}

impl View {
    /// The shortest length not above `length` that ends where the original was folded and that `fits`; else `length`.
    pub(crate) fn shortest(&self, bytes: &[u8], length: usize, fits: impl Fn(usize) -> bool) -> usize {
        (1..length)
            .filter(|index| {
                let (end, next) = (self.end(bytes, *index), self.place(*index));
                next > end && cut(bytes, end, next).iter().any(|byte| matches!(byte, b'\n' | b'n' | b'\r'))
            })
            .find(|index| fits(*index))
            .unwrap_or(length)
    }
}

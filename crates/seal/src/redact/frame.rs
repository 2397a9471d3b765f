//! Text that models stream in small pieces of JSON, one event a line: read as one text, so that a secret that is spread
//! over many events is found.

use super::Rules;
use super::byte::{at, cut};
use super::scan::{CONTEXT, Cursors, Scan};
use super::stream::Cut;
use super::view::{Fold, View};

/// Longest line that is an event of a piece of text.
const LINE: usize = 4096;
/// Longest piece.
const PIECE: usize = 1024;
/// Most bytes that may lie between two events of one text: names, ids and comments of the event stream.
const GAP: usize = 512;
/// Most bytes of input that are held for a secret within one text.
const HELD: u64 = 128 * 1024;

/// Keys whose strings are pieces of text.
const KEYS: &[&[u8]] = &[
    b"text",
    b"content",
    b"delta",
    b"partial_json",
    b"thinking",
    b"arguments",
    b"reasoning_content",
    b"reasoning",
];

/// A byte of the text, and where it stands in the input.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u64,
    end: u64,
    /// Which string it belongs to.
    piece: u64,
}

/// The text of the events that follow one another.
#[derive(Default)]
pub(super) struct Channel {
    text: Vec<u8>,
    places: Vec<Place>,
    cursors: Cursors,
    safe: usize,
    pieces: u64,
    /// Input offset where the last event's line ended.
    end: Option<u64>,
    /// Input offsets of marks of events whose line isn't all there.
    waiting: Option<u64>,
    /// Marks before this were taken.
    taken: u64,
}

impl Channel {
    /// Where bytes must wait from.
    pub(super) fn holds_from(&self) -> Option<u64> {
        let text = self.places.get(self.safe).map(|place| place.start);
        match (text, self.waiting) {
            (Some(text), Some(waiting)) => Some(text.min(waiting)),
            (text, waiting) => text.or(waiting),
        }
    }

    /// Takes in what was found in the buffer, whose first byte has the input offset `base`.
    pub(super) fn take(
        &mut self,
        rules: &Rules,
        buffer: &[u8],
        base: u64,
        marks: &[usize],
        ending: bool,
        cuts: &mut Vec<Cut>,
    ) {
        let index = |offset: u64| usize::try_from(offset.saturating_sub(base)).unwrap_or(usize::MAX);
        let earlier = self.waiting.take().map(index);
        for mark in earlier.into_iter().chain(marks.iter().copied()) {
            let offset = base + mark as u64;
            if offset < self.taken {
                continue;
            }
            let line_end = match memchr::memchr(b'\n', cut(buffer, mark, mark + LINE)) {
                Some(length) => mark + length,
                None if ending && buffer.len() - mark < LINE => buffer.len(),
                None if buffer.len() - mark < LINE => {
                    self.waiting = Some(offset);
                    break;
                }
                None => continue,
            };
            self.taken = base + line_end as u64;
            let Some(start) = line_start(buffer, mark) else { continue };
            let goes_on = self.end.is_some_and(|end| {
                let end = index(end);
                start >= end
                    && start - end <= GAP
                    && cut(buffer, end, start).split(|byte| *byte == b'\n').all(is_between)
            });
            let held = self.holds_from().map_or(0, |from| (base + start as u64).saturating_sub(from));
            if !goes_on || held > HELD {
                self.close(rules, cuts);
            }
            self.line(buffer, base, mark, line_end);
            self.end = Some(base + line_end as u64);
            self.look(rules, false, cuts);
        }
        if let Some(end) = self.end {
            let rest = cut(buffer, index(end), buffer.len());
            let last = rest.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            let stranger = !cut(rest, 0, last).split(|byte| *byte == b'\n').all(is_between);
            if ending || stranger || rest.len() - last > LINE {
                self.close(rules, cuts);
            }
        }
    }

    fn close(&mut self, rules: &Rules, cuts: &mut Vec<Cut>) {
        self.look(rules, true, cuts);
        let (taken, pieces, waiting) = (self.taken, self.pieces, self.waiting);
        *self = Self { taken, pieces, waiting, ..Self::default() };
    }

    /// Adds the pieces of text of one event: those behind its mark, for what stands before may be out already.
    fn line(&mut self, buffer: &[u8], base: u64, mark: usize, end: usize) {
        let start = mark.saturating_sub(1);
        let line = cut(buffer, start, end);
        for key in
            KEYS.iter().flat_map(|key| strings_of(line, key)).collect::<std::collections::BTreeSet<_>>()
        {
            let (from, to) = (start + key.0, start + key.1);
            self.pieces += 1;
            let mut place = from;
            while place < to {
                let (byte, next) = character(buffer, place, to);
                for byte in byte {
                    self.text.push(byte);
                    self.places.push(Place {
                        start: base + place as u64,
                        end: base + next as u64,
                        piece: self.pieces,
                    });
                }
                place = next;
            }
        }
    }

    /// Looks through the text that has not been decided.
    fn look(&mut self, rules: &Rules, ending: bool, cuts: &mut Vec<Cut>) {
        let mut scan = Scan::new(rules, &self.text, ending, 1);
        scan.go(&mut self.cursors);
        self.safe = scan.safe;
        for span in scan.spans {
            let part = self.places.get(span.start..span.end).unwrap_or_default();
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            let mut whole = Some((first.start, last.end));
            for piece in part.chunk_by(|a, b| a.piece == b.piece) {
                if let (Some(from), Some(to)) = (piece.first(), piece.last()) {
                    cuts.push(Cut::new(from.start, to.end, span.rule, whole.take()));
                }
            }
        }
        let keep = self.cursors.first().min(self.safe).saturating_sub(CONTEXT);
        if keep > CONTEXT {
            self.text.drain(..keep);
            self.places.drain(..keep);
            self.cursors.shift(keep);
            self.safe -= keep;
        }
    }
}

/// Where the line with this mark begins, if it is one of an event.
fn line_start(buffer: &[u8], mark: usize) -> Option<usize> {
    let floor = mark.saturating_sub(CONTEXT - 64);
    let start = match memchr::memrchr(b'\n', cut(buffer, floor, mark)) {
        Some(index) => floor + index + 1,
        None if floor == 0 => 0,
        None => return None,
    };
    let line = cut(buffer, start, mark);
    let brace = memchr::memchr2(b'{', b'[', cut(line, 0, 128))?;
    let begins = cut(line, 0, brace).iter().all(|byte| *byte == b' ');
    // A log may put a time before the event.
    let data = memchr::memmem::find(line, b"data:")
        .is_some_and(|data| cut(line, data + 5, data + 7).contains(&b'{'));
    (begins || data).then_some(start)
}

/// Whether a line may stand between two events of one text.
fn is_between(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.is_empty() || [&b"event:"[..], b"id:", b":", b"retry:"].iter().any(|name| line.starts_with(name))
}

/// The strings of a key, without their quotes, as places in the line.
fn strings_of<'a>(line: &'a [u8], key: &'a [u8]) -> impl Iterator<Item = (usize, usize)> + 'a {
    memchr::memmem::find_iter(line, key).filter_map(move |index| {
        let quoted = index.checked_sub(1).and_then(|before| at(line, before)) == Some(b'"');
        let after = index + key.len();
        if !quoted || at(line, after) != Some(b'"') {
            return None;
        }
        let blank =
            |from: usize| from + cut(line, from, from + 8).iter().take_while(|byte| **byte == b' ').count();
        let colon = blank(after + 1);
        let quote = blank(colon + 1);
        if at(line, colon) != Some(b':') || at(line, quote) != Some(b'"') {
            return None;
        }
        let begin = quote + 1;
        let mut end = begin;
        while end - begin <= PIECE {
            match at(line, end)? {
                b'"' => return Some((begin, end)),
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        None
    })
}

/// The next character of a JSON string (RFC 8259 §7) as bytes, and where the one after it begins.
fn character(bytes: &[u8], place: usize, end: usize) -> (Vec<u8>, usize) {
    let Some(byte) = at(bytes, place) else { return (Vec::new(), end) };
    if byte != b'\\' {
        return (vec![byte], place + 1);
    }
    let plain = |byte: u8| (vec![byte], (place + 2).min(end));
    match at(bytes, place + 1) {
        Some(b'n') => plain(b'\n'),
        Some(b't') => plain(b'\t'),
        Some(b'r') => plain(b'\r'),
        Some(b'u') => {
            let view = View::read(cut(bytes, place, end), 0, None, Fold::No, 1, true);
            let next = (place + 6).min(end);
            // Anything beyond ASCII is part of no secret.
            (if view.bytes.is_empty() || view.place(1) != 6 { vec![b' '] } else { view.bytes }, next)
        }
        Some(other) => plain(other),
        None => (Vec::new(), end),
    }
}

//! Looks through a piece of a stream for secrets.
//!
//! Three detectors go over the bytes independently: anchors (prefixes of tokens, beginnings of registered values,
//! armour, addresses), runs (long words: values that a name gives away, and encoded texts, which are decoded and looked
//! through in turn) and specials (escape sequences, zero bytes, percent signs: places where a secret is spelled so that
//! the first two would miss it). Each decision depends on the bytes around one place only, never on what was decided
//! elsewhere or on how much had arrived: that is why chunks do not matter. A detector that cannot decide yet says from
//! where on bytes must wait.

use super::assign::{self, Before};
use super::byte::{self, ALNUM, HEX, RUN, VALUE, at, cut, is, is_word_start, run_end};
use super::index::Kind;
use super::rule::{Rule, Verdict, is_whole};
use super::view::{Fold, View, is_special, next_line};
use super::{Rules, armour, decode, shape};

/// A run is looked at when it has so many bytes.
const RUN_LEAST: usize = 16;
/// Longest run that is looked at as a whole; longer ones are looked at in pieces. A multiple of 4.
const RUN_WINDOW: usize = 8192;
/// Most bytes of a line that are read around a special.
const SPECIAL_REACH: usize = 4096;
/// Longest value of an assignment.
const VALUE_REACH: usize = 4096;
/// Texts within texts that are looked through: base64 of JSON of base64.
const DEPTH: u8 = 3;
/// Bytes before the place of a decision that it may depend on.
pub(crate) const CONTEXT: usize = 768;

/// A secret's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) rule: &'static str,
}

/// What a detector says about one place.
pub(crate) enum Decision {
    No,
    Found(Span),
    /// Not yet; bytes from here on must wait.
    Wait(usize),
}

impl Decision {
    const fn found(start: usize, end: usize, rule: &'static str) -> Self {
        Self::Found(Span { start, end, rule })
    }
}

/// Where each detector goes on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursors {
    pub(crate) anchors: usize,
    pub(crate) runs: usize,
    pub(crate) specials: usize,
}

impl Cursors {
    pub(crate) fn first(&self) -> usize {
        self.anchors.min(self.runs).min(self.specials)
    }

    pub(crate) const fn shift(&mut self, by: usize) {
        self.anchors = self.anchors.saturating_sub(by);
        self.runs = self.runs.saturating_sub(by);
        self.specials = self.specials.saturating_sub(by);
    }
}

/// One look through bytes.
pub(crate) struct Scan<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) bytes: &'a [u8],
    /// Nothing follows.
    pub(crate) ending: bool,
    pub(crate) depth: u8,
    pub(crate) spans: Vec<Span>,
    /// Bytes before this are decided.
    pub(crate) safe: usize,
    /// Places of frames of streamed text.
    pub(crate) frames: Vec<usize>,
}

impl<'a> Scan<'a> {
    pub(crate) const fn new(rules: &'a Rules, bytes: &'a [u8], ending: bool, depth: u8) -> Self {
        Self { rules, bytes, ending, depth, spans: Vec::new(), safe: bytes.len(), frames: Vec::new() }
    }

    /// Goes on from the cursors and moves them.
    pub(crate) fn go(&mut self, cursors: &mut Cursors) {
        self.anchors(cursors);
        self.runs(cursors);
        self.specials(cursors);
    }

    /// Takes a decision in; true when it waits.
    fn take(&mut self, decision: Decision) -> bool {
        match decision {
            Decision::No => false,
            Decision::Found(span) => {
                self.push(span);
                false
            }
            Decision::Wait(from) => {
                self.safe = self.safe.min(from);
                true
            }
        }
    }

    /// Keeps escapes whole: what begins at the letter of one begins behind it.
    fn push(&mut self, mut span: Span) {
        span.start += byte::escape_letter(self.bytes, span.start);
        if span.start < span.end {
            self.spans.push(span);
        }
    }

    // --- anchors ------------------------------------------------------------

    fn anchors(&mut self, cursors: &mut Cursors) {
        let (rules, bytes) = (self.rules, self.bytes);
        let mut resume = None;
        rules.index.each(bytes, cursors.anchors, |place, kind| {
            let decision = match kind {
                Kind::Rule(rule) => self.rule(rule, place),
                Kind::Value(number) => self.value(number, place),
                Kind::Armour => armour::read(bytes, place, self.ending),
                Kind::Address => self.address(place),
                Kind::Frame => {
                    self.frames.push(place);
                    Decision::No
                }
            };
            if self.take(decision) {
                resume = Some(resume.map_or(place, |first: usize| first.min(place)));
            }
        });
        self.frames.sort_unstable();
        if !self.ending
            && let Some(start) = rules.index.beginning(bytes, bytes.len())
        {
            self.safe = self.safe.min(start);
            resume = Some(resume.map_or(start, |place| place.min(start)));
        }
        cursors.anchors = resume.unwrap_or(bytes.len());
    }

    fn rule(&self, rule: &'static Rule, place: usize) -> Decision {
        let bytes = self.bytes;
        if rule.before != 0 && !is_word_start(bytes, place, rule.before) {
            return Decision::No;
        }
        let text = cut(bytes, place, bytes.len());
        let plain = rule.read(text, self.ending);
        let failed = match plain {
            Verdict::More => return Decision::Wait(place),
            Verdict::Found(index) | Verdict::No(index) if place + index >= bytes.len() && !self.ending => {
                return Decision::Wait(place);
            }
            Verdict::Found(length) => {
                if !is_special(bytes, place + length) || is_whole(rule.name, cut(text, 0, length)) {
                    return Decision::found(place, place + length, rule.name);
                }
                length
            }
            Verdict::No(index) => index,
        };
        if is_special(bytes, place + failed) {
            let view = View::read(bytes, place, None, Fold::Lines, rule.reach, self.ending);
            match rule.read(&view.bytes, !view.open) {
                Verdict::More => return Decision::Wait(place),
                Verdict::Found(length) => {
                    let length = view.shortest(bytes, length, |short| {
                        let text = cut(&view.bytes, 0, short);
                        rule.read(text, true) == Verdict::Found(short) && is_whole(rule.name, text)
                    });
                    if view.open && length == view.bytes.len() {
                        return Decision::Wait(place);
                    }
                    let whole = is_whole(rule.name, cut(&view.bytes, 0, length));
                    if whole || !matches!(plain, Verdict::Found(_)) {
                        return Decision::found(place, view.end(bytes, length), rule.name);
                    }
                }
                Verdict::No(_) => {}
            }
        }
        match plain {
            Verdict::Found(length) => Decision::found(place, place + length, rule.name),
            _ => Decision::No,
        }
    }

    /// A registered value, also with folds and escape sequences in it.
    fn value(&self, number: usize, place: usize) -> Decision {
        let Some(spelling) = self.rules.spellings.get(number).map(|spelling| spelling.expose().as_slice())
        else {
            return Decision::No;
        };
        let bytes = self.bytes;
        let text = cut(bytes, place, place + spelling.len());
        let same = text.iter().zip(spelling).take_while(|(a, b)| a == b).count();
        if same == spelling.len() {
            return Decision::found(place, place + same, super::VALUE_RULE);
        }
        if same == text.len() {
            return if self.ending { Decision::No } else { Decision::Wait(place) };
        }
        if !is_special(bytes, place + same) {
            return Decision::No;
        }
        let view = View::read(bytes, place, None, Fold::Lines, spelling.len(), self.ending);
        if view.bytes == spelling {
            return Decision::found(place, view.end(bytes, spelling.len()), super::VALUE_RULE);
        }
        if view.open && spelling.starts_with(&view.bytes) { Decision::Wait(place) } else { Decision::No }
    }

    /// `://user:password@`: the password.
    fn address(&self, place: usize) -> Decision {
        let bytes = self.bytes;
        let begin = place + 3;
        let user = cut(bytes, begin, begin + 128);
        let stops = |byte: u8| {
            byte <= b' '
                || matches!(
                    byte,
                    b'"' | b'\''
                        | b'`'
                        | b'/'
                        | b'?'
                        | b'#'
                        | b'<'
                        | b'>'
                        | b','
                        | b';'
                        | b'|'
                        | b'\\'
                        | b')'
                        | b'}'
                        | b']'
                        | b'('
                )
        };
        let Some(colon) = user.iter().position(|byte| *byte == b':' || *byte == b'@' || stops(*byte)) else {
            return if user.len() < 128 && !self.ending { Decision::Wait(bytes.len()) } else { Decision::No };
        };
        if at(user, colon) != Some(b':') {
            return Decision::No;
        }
        let start = begin + colon + 1;
        let length = |text: &[u8], open: bool| {
            let end = text.iter().position(|byte| stops(*byte));
            let part = cut(text, 0, end.unwrap_or(text.len()));
            let sign = part.iter().rposition(|byte| *byte == b'@');
            (end.is_some() || !open, sign, part.len())
        };
        let text = cut(bytes, start, start + 256);
        let open = text.len() < 256 && !self.ending;
        let (closed, sign, reached) = length(text, open);
        if !closed {
            return Decision::Wait(start);
        }
        if let Some(sign) = sign {
            let password = cut(text, 0, sign);
            return if is_password(password) {
                Decision::found(start, start + sign, "url-password")
            } else {
                Decision::No
            };
        }
        let broken = cut(text, 0, reached);
        if reached < 3 || broken.iter().all(u8::is_ascii_digit) || !is_special(bytes, start + reached) {
            return Decision::No;
        }
        let view = View::read(bytes, start, None, Fold::Lines, 256, self.ending);
        let (closed, sign, _) = length(&view.bytes, view.open);
        match sign {
            _ if !closed => Decision::Wait(start),
            Some(sign) if is_password(cut(&view.bytes, 0, sign)) => {
                Decision::found(start, view.end(bytes, sign), "url-password")
            }
            _ => Decision::No,
        }
    }

    // --- runs ---------------------------------------------------------------

    fn runs(&mut self, cursors: &mut Cursors) {
        let bytes = self.bytes;
        let mut resume = None;
        let mut index = cursors.runs;
        while let Some(window) = bytes.get(index..index + RUN_LEAST) {
            if let Some(stop) = window.iter().rposition(|byte| !is(*byte, RUN)) {
                index += stop + 1;
                continue;
            }
            let end = run_end(bytes, index, RUN, RUN_WINDOW);
            let closed = self.ending || end < bytes.len() || end == index + RUN_WINDOW;
            if (self.run(index, end, closed) || !closed) && resume.is_none() {
                resume = Some(index);
            }
            index = end;
        }
        let rest = cut(bytes, index, bytes.len());
        let tail = index + rest.iter().rposition(|byte| !is(*byte, RUN)).map_or(0, |last| last + 1);
        if !self.ending {
            if tail < bytes.len() {
                let before = self.spans.len();
                self.run(tail, bytes.len(), false);
                // A run that stays short is not looked at: what is found by it waits until it is long enough.
                if bytes.len() - tail < RUN_LEAST {
                    let first = self.spans.drain(before..).map(|span| span.start).min();
                    self.safe = self.safe.min(first.unwrap_or(self.safe));
                }
            }
            self.tail(tail);
        }
        cursors.runs = resume.unwrap_or(tail).min(tail);
    }

    /// A value that has begun must wait for its end, also when it has no run in it yet, and also behind a line end.
    fn tail(&mut self, tail: usize) {
        let bytes = self.bytes;
        let mut value = assign::value_start(bytes, tail).filter(|(start, _)| *start < bytes.len());
        if value.is_none() {
            let blank = |byte: &&u8| matches!(**byte, b' ' | b'\t');
            let blanks = cut(bytes, tail.saturating_sub(64), tail).iter().rev().take_while(blank).count();
            let line = tail - blanks;
            let end = match cut(bytes, line.saturating_sub(2), line) {
                b"\r\n" | b"\\n" => line - 2,
                [.., b'\n' | b'\r' | b'\\'] => line - 1,
                _ => return,
            };
            value = assign::value_start(bytes, end).filter(|(start, _)| *start < end);
        }
        if let Some((start, before)) = value {
            match self.assigned(start, before) {
                Decision::No => {}
                // What is a secret by now is taken by the run that it ends with or that follows: that one may still come.
                Decision::Wait(from) | Decision::Found(Span { start: from, .. }) => {
                    self.safe = self.safe.min(from);
                }
            }
        }
    }

    /// A run of 16 bytes or more, or the last one, which may grow. True when it waits.
    fn run(&mut self, start: usize, end: usize, closed: bool) -> bool {
        let bytes = self.bytes;
        let mut waits = false;
        // The letter of an escape before it is none of its letters.
        let begin = (start + byte::escape_letter(bytes, start)).min(end);
        let digits = cut(bytes, begin, end);
        if let Some((value, before)) = assign::value_start(bytes, begin) {
            let decision = self.assigned(value, before);
            waits |= self.take(decision);
        } else {
            let decision = self.folded_into(begin);
            waits |= self.take(decision);
        }
        let decision = named_by_form(digits, begin, closed);
        waits |= self.take(decision);
        if self.depth < DEPTH {
            let decision = self.encoded(begin, end, closed);
            waits |= self.take(decision);
        }
        waits
    }

    /// A run that goes on with a value of the line before.
    fn folded_into(&self, begin: usize) -> Decision {
        let bytes = self.bytes;
        let blank = cut(bytes, begin.saturating_sub(64), begin)
            .iter()
            .rev()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        let line = begin - blank;
        let end = match cut(bytes, line.saturating_sub(2), line) {
            b"\r\n" | b"\\n" => line - 2,
            [.., b'\n'] => line - 1,
            _ => return Decision::No,
        };
        match assign::value_start(bytes, end) {
            Some((start, before)) if start < end => self.assigned(start, before),
            _ => Decision::No,
        }
    }

    /// A value whose name promises a secret.
    fn assigned(&self, start: usize, before: Before) -> Decision {
        let bytes = self.bytes;
        let rule = match before {
            Before::Bearer => "bearer-token",
            Before::Basic => "basic-credentials",
            Before::Name | Before::Weak => "secret-assignment",
        };
        let view = View::read(bytes, start, Some(VALUE), Fold::No, VALUE_REACH, self.ending);
        if view.open {
            return Decision::Wait(start);
        }
        let length = view.bytes.len();
        let end = view.end(bytes, length);
        let stop = view.place(length);
        if matches!(at(bytes, stop), Some(b'(' | b'[')) {
            return Decision::No;
        }
        let found = |end: usize| {
            let padded = padded(bytes, end);
            if padded < end + 2 && padded == bytes.len() && !self.ending {
                return Decision::Wait(start);
            }
            Decision::found(start, padded, rule)
        };
        let is_secret = |value: &[u8]| match before {
            Before::Basic => decode::base64_text(value).contains(&b':') && value.len() >= 16,
            _ => assign::is_secret_value(value, before),
        };
        let secret = is_secret(&view.bytes);
        let decided = || if secret { found(end) } else { Decision::No };
        if is_usual_length(length) && secret || length < 8 || !assign::may_be_folded(&view.bytes) {
            return decided();
        }
        let Some(line) = next_line(bytes, stop, VALUE) else {
            let rest = cut(bytes, stop, stop + 66);
            let only_blanks = rest.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
                && rest.iter().filter(|byte| **byte == b'\n').count() <= 1;
            let unfinished = rest == b"\\"
                || (rest.starts_with(b"\\n") && cut(rest, 2, rest.len()).iter().all(|byte| *byte == b' '));
            let at_end = matches!(rest.first(), Some(b'\r' | b'\n')) && only_blanks || unfinished;
            return if at_end && rest.len() < 66 && !self.ending && stop + rest.len() == bytes.len() {
                Decision::Wait(start)
            } else {
                decided()
            };
        };
        let second = View::read(bytes, line, Some(VALUE), Fold::No, 256, self.ending);
        if second.open {
            return Decision::Wait(start);
        }
        let behind = at(bytes, second.place(second.bytes.len()));
        let mut joined = view.bytes;
        joined.extend_from_slice(&second.bytes);
        let ends = matches!(behind, None | Some(b'\n' | b'\r' | b'"' | b'\'' | b'\\' | b'='));
        if ends && is_usual_length(joined.len()) && is_secret(&joined) {
            return found(second.end(bytes, second.bytes.len()));
        }
        decided()
    }

    /// A text in base64 or hexadecimal digits that has a secret in it.
    fn encoded(&self, start: usize, end: usize, closed: bool) -> Decision {
        let digits = cut(self.bytes, start, end);
        if digits.is_empty() {
            return Decision::No;
        }
        let hex = if digits.iter().take(16).all(|digit| is(*digit, HEX)) {
            decode::hex_text(digits)
        } else {
            Vec::new()
        };
        // A hexadecimal text is one of base64 too; it hides nothing in that reading.
        for (text, thirds) in [(hex, 6_usize), (decode::base64_text(digits), 4)] {
            let reached = (text.len() * thirds).div_ceil(3);
            let all_text = reached + 3 >= digits.len();
            if !closed && all_text {
                return Decision::Wait(start);
            }
            if text.len() < 10 {
                continue;
            }
            let mut text = text;
            let mut last = end;
            // Lines of one width: the rest of a text that was encoded with line ends.
            while all_text && digits.len() >= 60 && last - start < RUN_WINDOW {
                let Some(line) = next_line(self.bytes, last, RUN) else {
                    if !self.ending && last + 2 >= self.bytes.len() {
                        return Decision::Wait(start);
                    }
                    break;
                };
                let line_end = run_end(self.bytes, line, RUN, digits.len() + 1);
                if line_end == self.bytes.len() && !self.ending {
                    return Decision::Wait(start);
                }
                let piece = cut(self.bytes, line, line_end);
                let more = if thirds == 6 { decode::hex_text(piece) } else { decode::base64_text(piece) };
                if piece.len() > digits.len() || more.len() + 2 < piece.len() * 2 / 5 {
                    break;
                }
                text.extend_from_slice(&more);
                last = line_end;
                if piece.len() < digits.len() {
                    break;
                }
            }
            let mut inner = Scan::new(self.rules, &text, true, self.depth + 1);
            inner.go(&mut Cursors::default());
            if let Some(first) = inner.spans.iter().min_by_key(|span| span.start) {
                let padded = padded(self.bytes, last);
                if !closed || padded < last + 2 && padded == self.bytes.len() && !self.ending {
                    return Decision::Wait(start);
                }
                return Decision::found(start, padded, first.rule);
            }
        }
        Decision::No
    }

    // --- specials -----------------------------------------------------------

    fn specials(&mut self, cursors: &mut Cursors) {
        let bytes = self.bytes;
        if self.depth >= DEPTH {
            cursors.specials = bytes.len();
            return;
        }
        let mut resume = None;
        let mut index = cursors.specials;
        let escapes = memchr::memmem::Finder::new(b"\\u00");
        let next_escape = |from: usize| {
            escapes.find(cut(bytes, from, bytes.len())).map_or(usize::MAX, |found| from + found)
        };
        let mut escape = next_escape(index);
        loop {
            let special = memchr::memchr3(0, 0x1b, b'%', cut(bytes, index, bytes.len().min(escape)));
            let Some(place) = special.map(|found| index + found).or((escape < bytes.len()).then_some(escape))
            else {
                break;
            };
            index = place + 1;
            if at(bytes, place) == Some(b'%') && byte::hex_byte(bytes, place + 1).is_none() {
                if bytes.len() < place + 3 && !self.ending {
                    resume = resume.or(Some(place));
                    self.safe = self.safe.min(self.rules.index.beginning(bytes, place).unwrap_or(place));
                }
                continue;
            }
            let (decision, end) = self.special(place);
            if self.take(decision) {
                resume = resume.or(Some(place));
            }
            index = index.max(end);
            if escape < index {
                escape = next_escape(index);
            }
        }
        if !self.ending {
            // The beginning of an escape, or of a percent-encoded byte, at the very end.
            let tail = bytes.len()
                - cut(bytes, bytes.len().saturating_sub(3), bytes.len())
                    .iter()
                    .rev()
                    .take_while(|byte| matches!(byte, b'\\' | b'u' | b'0' | b'%') || byte.is_ascii_hexdigit())
                    .count();
            if let Some(begin) = (tail.max(index.min(bytes.len()))..bytes.len()).find(|begin| {
                let rest = cut(bytes, *begin, bytes.len());
                b"\\u00".starts_with(rest)
                    || (rest.first() == Some(&b'%')
                        && cut(rest, 1, 3).iter().all(|b| byte::hex_digit(*b).is_some()))
            }) {
                self.safe = self.safe.min(self.rules.index.beginning(bytes, begin).unwrap_or(begin));
                resume = Some(resume.map_or(begin, |place| place.min(begin)));
            }
        }
        cursors.specials = resume.unwrap_or(bytes.len()).min(bytes.len());
    }

    /// Reads what is spelled with specials; says also where that ended.
    fn special(&mut self, place: usize) -> (Decision, usize) {
        let bytes = self.bytes;
        let mut decision = Decision::No;
        if let Some((start, before)) = assign::value_start(bytes, place)
            && start < place
        {
            decision = self.assigned(start, before);
            if self.take_found(&decision) {
                decision = Decision::No;
            }
        }
        let start = self.rules.index.beginning(bytes, place).unwrap_or(place);
        // Zero bytes between all others are a text in UTF-16, which has lines too.
        let fold = if at(bytes, place) == Some(0) { Fold::Keep } else { Fold::No };
        let mut view = View::read(bytes, start, None, fold, SPECIAL_REACH, self.ending);
        let mut end = view.place(view.bytes.len());
        if start < place && end <= place && !view.open {
            // What may begin before it ends before it: a backslash that escapes nothing.
            view = View::read(bytes, place, None, fold, SPECIAL_REACH, self.ending);
            end = view.place(view.bytes.len());
        }
        if self.depth >= DEPTH {
            return (decision, end);
        }
        let mut inner = Scan::new(self.rules, &view.bytes, !view.open, self.depth + 1);
        inner.go(&mut Cursors::default());
        for span in &inner.spans {
            let length = span.end;
            self.spans.push(Span {
                start: view.place(span.start),
                end: view.end(bytes, length),
                rule: span.rule,
            });
        }
        if view.open {
            let from = view.place(inner.safe);
            let from = match decision {
                Decision::Wait(other) => other.min(from),
                _ => from,
            };
            return (Decision::Wait(from), end);
        }
        (decision, end)
    }

    fn take_found(&mut self, decision: &Decision) -> bool {
        if let Decision::Found(span) = decision {
            self.push(*span);
            return true;
        }
        false
    }
}

/// The end with up to two signs of padding.
fn padded(bytes: &[u8], end: usize) -> usize {
    end + cut(bytes, end, end + 2).iter().take_while(|byte| **byte == b'=').count()
}

/// Lengths that machines give to secrets.
const fn is_usual_length(length: usize) -> bool {
    matches!(length, 20 | 24 | 32 | 36 | 40 | 43 | 44 | 48 | 52 | 64 | 84 | 86 | 88 | 128)
}

fn is_password(text: &[u8]) -> bool {
    let known: &[&[u8]] =
        &[b"password", b"passwd", b"pass", b"pwd", b"secret", b"user", b"token", b"x-oauth-basic", b"xxx"];
    text.len() >= 3
        && !matches!(text.first(), Some(b'$' | b'{' | b'<' | b'[' | b'*' | b'%'))
        && !known.iter().any(|word| text.eq_ignore_ascii_case(word))
        && shape::different(text) >= 3
        && !shape::has_example_word(text)
}

/// Tokens of Azure DevOps have their mark near the end. Without a name before it, the first part of one flows before it
/// can be known for what it is; what follows is enough to make it useless.
fn named_by_form(run: &[u8], begin: usize, closed: bool) -> Decision {
    const FLOWS: usize = 24;
    if run.len() <= FLOWS || run.len() > 84 || !run.iter().all(|byte| is(*byte, ALNUM)) {
        return Decision::No;
    }
    if !closed {
        return Decision::Wait(begin + FLOWS);
    }
    if run.len() == 84 && cut(run, 76, 80) == b"AZDO" {
        return Decision::found(begin + FLOWS, begin + 84, "azure-devops-token");
    }
    Decision::No
}

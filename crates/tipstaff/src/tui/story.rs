//! What was said so far, in rows that fit the screen. Bounded: the oldest lines go first.

use crate::output::Tone;
use crate::transcript::Piece;
use crate::tui::text::{tame, wrap};
use std::collections::VecDeque;

/// Lines that are kept.
const MOST_LINES: usize = 5_000;
/// Rows that are kept.
const MOST_ROWS: usize = 20_000;
/// The longest line that is kept, in bytes.
const LONGEST: usize = 8_192;
/// What stands in the place of the rest of a longer line.
const MORE: &str = " ... (the rest of this line is left out)";

/// One line of text.
#[derive(Debug)]
struct Line {
    tone: Option<Tone>,
    text: String,
    full: bool,
}

/// A part of a line that fits the width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// How it is shown.
    pub(crate) tone: Option<Tone>,
    /// The text.
    pub(crate) text: String,
    /// The number of its line.
    line: u64,
}

/// A text that grows at its end, with a place in it.
#[derive(Debug)]
pub(crate) struct Story {
    lines: VecDeque<Line>,
    rows: VecDeque<Row>,
    /// The number of the first line that is kept.
    first: u64,
    width: usize,
    height: usize,
    /// The first row that is shown; `None` follows the end.
    top: Option<usize>,
    /// Whether the last line goes on, and how it is shown.
    open: Option<Option<Tone>>,
}

impl Story {
    /// An empty one.
    pub(crate) const fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            rows: VecDeque::new(),
            first: 0,
            width: 80,
            height: 1,
            top: None,
            open: None,
        }
    }

    /// Adds a piece of a session.
    pub(crate) fn push(&mut self, piece: &Piece) {
        match piece {
            Piece::Flow(text) => self.flow(None, text),
            Piece::Aside(text) => self.flow(Some(Tone::Dim), text),
            Piece::Line(tone, text) => {
                self.open = None;
                for line in tame(text).lines() {
                    self.line(Some(*tone), line);
                }
            }
            Piece::Nothing => {}
        }
    }

    fn flow(&mut self, tone: Option<Tone>, text: &str) {
        let text = tame(text);
        for part in text.split_inclusive('\n') {
            let (line, ended) = part.strip_suffix('\n').map_or((part, false), |line| (line, true));
            if self.open == Some(tone) {
                self.append(line);
            } else {
                self.line(tone, line);
            }
            self.open = (!ended).then_some(tone);
        }
    }

    fn line(&mut self, tone: Option<Tone>, text: &str) {
        self.lines.push_back(Line { tone, text: String::new(), full: false });
        self.append(text);
        while self.lines.len() > MOST_LINES || (self.rows.len() > MOST_ROWS && self.lines.len() > 1) {
            self.lines.pop_front();
            let before = self.rows.len();
            while self.rows.front().is_some_and(|row| row.line == self.first) {
                self.rows.pop_front();
            }
            let dropped = before - self.rows.len();
            self.first += 1;
            self.top = self.top.map(|top| top.saturating_sub(dropped));
        }
    }

    /// Adds to the last line.
    fn append(&mut self, text: &str) {
        let Some(line) = self.lines.back_mut() else { return };
        if !line.full {
            let room = LONGEST.saturating_sub(line.text.len());
            let end =
                text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= room).last();
            let part = text.get(..end.unwrap_or(0)).unwrap_or_default();
            line.text.push_str(part);
            if part.len() < text.len() {
                line.full = true;
                line.text.push_str(MORE);
            }
        }
        let number = self.first + u64::try_from(self.lines.len()).unwrap_or(1) - 1;
        while self.rows.back().is_some_and(|row| row.line == number) {
            self.rows.pop_back();
        }
        self.wrap_last(number);
    }

    fn wrap_last(&mut self, number: u64) {
        let Some(line) = self.lines.back() else { return };
        let tone = line.tone;
        self.rows.extend(wrap(&line.text, self.width).into_iter().map(|text| Row {
            tone,
            text,
            line: number,
        }));
    }

    /// Takes the place of everything so far.
    pub(crate) fn replace(&mut self, text: &str, tone: impl Fn(&str) -> Option<Tone>) {
        let (width, height) = (self.width, self.height);
        *self = Self { width, height, top: Some(0), ..Self::new() };
        for line in tame(text).lines() {
            self.line(tone(line), line);
        }
    }

    /// Fits it to a width and a height; the place in it stays.
    pub(crate) fn fit(&mut self, width: usize, height: usize) {
        self.height = height;
        if self.width == width {
            return;
        }
        self.width = width;
        let place = self.top.and_then(|top| self.rows.get(top)).map(|row| row.line);
        self.rows.clear();
        for (number, line) in (self.first..).zip(&self.lines) {
            let tone = line.tone;
            self.rows.extend(wrap(&line.text, width).into_iter().map(|text| Row {
                tone,
                text,
                line: number,
            }));
        }
        self.top = place.and_then(|line| self.rows.iter().position(|row| row.line == line));
    }

    fn last_top(&self) -> usize {
        self.rows.len().saturating_sub(self.height)
    }

    /// Moves by rows, up when negative. At the end it follows again.
    pub(crate) fn scroll(&mut self, by: isize) {
        let top = self.top.unwrap_or_else(|| self.last_top()).saturating_add_signed(by);
        self.top = (top < self.last_top()).then_some(top);
    }

    /// To the first row.
    pub(crate) fn rewind(&mut self) {
        self.top = (self.last_top() > 0).then_some(0);
    }

    /// To the last row, and follows it.
    pub(crate) const fn follow(&mut self) {
        self.top = None;
    }

    /// Rows below what is shown.
    pub(crate) fn below(&self) -> usize {
        self.top.map_or(0, |top| self.rows.len().saturating_sub(top + self.height))
    }

    /// Rows that are shown.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &Row> {
        let top = self.top.unwrap_or_else(|| self.last_top()).min(self.rows.len());
        self.rows.iter().skip(top).take(self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(story: &Story) -> Vec<&str> {
        story.shown().map(|row| row.text.as_str()).collect()
    }

    #[test]
    fn it_follows_its_end_until_somebody_scrolls() {
        let mut story = Story::new();
        story.fit(20, 3);
        for text in ["one\n", "tw", "o\n", "three\nfour\n"] {
            story.push(&Piece::Flow(text.into()));
        }
        assert_eq!(seen(&story), ["two", "three", "four"]);
        story.scroll(-1);
        story.push(&Piece::Line(Tone::Bold, "five".into()));
        assert_eq!((seen(&story), story.below()), (vec!["one", "two", "three"], 2));
        story.scroll(1);
        assert_eq!(seen(&story), ["two", "three", "four"]);
        story.fit(3, 3);
        assert_eq!(seen(&story), ["two", "thr", "ee"]);
        story.rewind();
        assert_eq!(seen(&story), ["one", "two", "thr"]);
        story.follow();
        story.push(&Piece::Flow("six".into()));
        assert_eq!(seen(&story), ["fiv", "e", "six"]);
        story.push(&Piece::Aside("aside".into()));
        assert_eq!(seen(&story), ["six", "asi", "de"]);
    }

    #[test]
    fn a_flood_is_bounded_and_keeps_the_place() {
        let mut story = Story::new();
        story.fit(10, 2);
        story.push(&Piece::Flow("y".repeat(100_000)));
        assert!(story.rows.len() <= (LONGEST + MORE.len()) / 10 + 1);
        for number in 0..MOST_LINES * 2 {
            story.push(&Piece::Line(Tone::Dim, format!("line {number}")));
            if number == MOST_LINES {
                story.scroll(-1);
            }
        }
        assert_eq!((story.lines.len(), story.rows.len()), (MOST_LINES, MOST_LINES));
        let place = format!("line {}", MOST_LINES);
        assert!(seen(&story).contains(&place.as_str()), "{:?}", seen(&story));
        for _ in 0..3 {
            story.push(&Piece::Flow("z".repeat(3_000)));
        }
        story.follow();
        assert_eq!(seen(&story).len(), 2);
    }
}

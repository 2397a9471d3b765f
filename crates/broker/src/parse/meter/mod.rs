//! Usage out of a provider's answer, as it streams by.
//!
//! Promises: every total that the provider repeats counts once; what it reported is never undercut by an estimate; the
//! bytes are looked at and left alone; constant memory, whatever comes.

mod counter;
#[cfg(test)]
mod tests;

use super::json_scan::Scanner;
use counter::Counter;
use tipstaff_model::Usage;

/// Which form of answer is metered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// Anthropic's Messages.
    Messages,
    /// OpenAI's Responses.
    Responses,
    /// OpenAI's Chat Completions.
    ChatCompletions,
    /// Gemini's generateContent and streamGenerateContent.
    GenerateContent,
}

/// How the answer is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One JSON document. Gemini streams an array this way.
    Json,
    /// `text/event-stream`.
    Events,
}

/// Bytes of text that make one token, for estimates of answers that were cut. Real text has more.
const BYTES_PER_TOKEN: u64 = 3;

/// What a metered answer came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metered {
    /// What was used.
    pub usage: Usage,
    /// Whether part of it is our estimate.
    pub estimated: bool,
}

/// Meters one answer.
#[derive(Debug)]
pub struct Meter {
    counter: Counter,
    framing: Framing,
    scanner: Scanner,
    line: Line,
    /// The last byte was a carriage return.
    after_return: bool,
    documents: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// So many bytes of `data:` were read.
    Start(usize),
    /// In the value; so many bytes of `[DONE]` were read.
    Data(usize),
    /// Another field.
    Other,
}

const FIELD: &[u8] = b"data:";
const DONE: &[u8] = b"[DONE]";

impl Meter {
    /// At the beginning of an answer.
    #[must_use]
    pub const fn new(api: Api, framing: Framing) -> Self {
        Self {
            counter: Counter::new(api),
            framing,
            scanner: Scanner::new(),
            line: Line::Start(0),
            after_return: false,
            documents: 0,
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        match self.framing {
            Framing::Json => self.scanner.push(bytes, &mut self.counter),
            Framing::Events => self.events(bytes),
        }
    }

    fn events(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = memchr::memchr2(b'\n', b'\r', bytes);
            let (piece, rest) = bytes.split_at(at.unwrap_or(bytes.len()));
            if !piece.is_empty() {
                self.after_return = false;
                self.piece(piece);
            }
            match rest.split_first() {
                Some((b'\n', after)) if self.after_return => {
                    self.after_return = false;
                    bytes = after;
                }
                Some((end, after)) => {
                    self.after_return = *end == b'\r';
                    self.line_end();
                    bytes = after;
                }
                None => bytes = rest,
            }
        }
    }

    fn piece(&mut self, mut piece: &[u8]) {
        while let Line::Start(have) = self.line {
            let Some((&byte, rest)) = piece.split_first() else { return };
            if FIELD.get(have) != Some(&byte) {
                self.line = Line::Other;
            } else if have + 1 == FIELD.len() {
                self.line = Line::Data(0);
            } else {
                self.line = Line::Start(have + 1);
            }
            piece = rest;
        }
        let Line::Data(done) = self.line else { return };
        if done != usize::MAX {
            let mut matched = done;
            for byte in piece {
                if matched == 0 && *byte == b' ' {
                    continue;
                }
                if DONE.get(matched) != Some(byte) {
                    matched = usize::MAX;
                    break;
                }
                matched += 1;
            }
            self.line = Line::Data(matched);
        }
        self.scanner.push(piece, &mut self.counter);
    }

    fn line_end(&mut self) {
        match self.line {
            // An empty line: the event is over.
            Line::Start(0) => self.event_end(),
            Line::Data(matched) if matched == DONE.len() => {
                // Only a stream that ends says this.
                self.counter.finished |= matches!(self.counter.api, Api::ChatCompletions | Api::Responses);
            }
            // Several lines of data are one value with line breaks in it.
            Line::Data(_) => self.scanner.push(b"\n", &mut self.counter),
            _ => {}
        }
        self.line = Line::Start(0);
    }

    fn event_end(&mut self) {
        self.documents += u64::from(self.scanner.next_document(&mut self.counter));
    }

    /// The model that the provider says answered.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.counter.model.as_deref()
    }

    /// Whether the answer came to its own end: its last event, or its whole document.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match (self.framing, self.counter.api) {
            (Framing::Json, _) => self.scanner.is_ended(),
            // Gemini's stream has no last event; the reason for its end comes with the last piece.
            (Framing::Events, _) => self.counter.finished,
        }
    }

    /// Whether the provider said within the answer that it failed.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        self.counter.failed
    }

    /// Whether anything shows that tokens were used.
    #[must_use]
    pub fn has_used(&self) -> bool {
        self.counter.usage().total() > 0 || self.counter.text > 0
    }

    /// What was used. `prompt` is our estimate of the prompt, for an answer that did not say; `most_output` is the most
    /// that the request allowed, which bounds our estimate of the answer.
    #[must_use]
    pub fn usage(&self, prompt: u64, most_output: u64) -> Metered {
        let mut usage = self.counter.usage();
        if self.counter.reported && self.is_finished() {
            return Metered { usage, estimated: false };
        }
        if usage.prompt() == 0 {
            usage.input = prompt;
        }
        usage.output = usage.output.max(self.counter.text.div_ceil(BYTES_PER_TOKEN).min(most_output));
        Metered { usage, estimated: true }
    }
}

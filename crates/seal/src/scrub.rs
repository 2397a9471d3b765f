//! Makes hostile output safe to show on a terminal or in a log.
//!
//! Promises, whatever the bytes and wherever they are cut into chunks: the result is UTF-8 without control characters
//! other than newline and tab, without C1 controls, without characters that reorder or hide text; with
//! [`Colours::Keep`] the only escape sequences left set plain text attributes and colours, and are reset at the end.
//! Scrubbing twice changes nothing.
//!
//! What a person could be tricked with becomes visible instead of vanishing: a backspace shows as ␈, a right-to-left
//! override as `<U+202E>`, a lone carriage return as a new line. Escape sequences are removed whole; a newline ends any
//! of them, so an unterminated one hides at most the rest of its line.

use std::fmt::Write as _;

/// Longest parameter text of a colour sequence that is kept, in bytes.
const SGR_LIMIT: usize = 64;
/// Longest escape string (title, device control) that is removed before its rest is shown as text, in characters.
const STRING_LIMIT: u32 = 4096;

/// What happens to colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// Attributes and colours stay (except concealed and blinking text).
    Keep,
    /// All escape sequences go.
    Remove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ground,
    /// After ESC.
    Escape,
    /// After ESC and intermediate bytes.
    Intermediate,
    /// In a control sequence; what may turn out to be a colour is collected.
    Control,
    /// In an operating system command, device control or other string.
    Text {
        left: u32,
    },
    /// After ESC within a string.
    TextEscape,
}

/// Scrubs a stream piece by piece.
#[derive(Debug, Clone)]
pub struct Scrubber {
    colours: Colours,
    state: State,
    /// Bytes of a character that isn't complete yet.
    partial: Vec<u8>,
    /// Parameters of the control sequence being read; `None` when it can't be a colour.
    parameters: Option<String>,
    pending_return: bool,
    coloured: bool,
}

impl Scrubber {
    /// A scrubber at the start of a stream.
    #[must_use]
    pub const fn new(colours: Colours) -> Self {
        Self {
            colours,
            state: State::Ground,
            partial: Vec::new(),
            parameters: None,
            pending_return: false,
            coloured: false,
        }
    }

    /// Scrubs the next piece and appends what is safe to `out`. A character, a sequence or a carriage return at the
    /// very end may be held back until more is known.
    pub fn push(&mut self, chunk: &[u8], out: &mut String) {
        let mut rest = chunk;
        while let Some((byte, tail)) = rest.split_first() {
            if self.partial.is_empty() && self.state == State::Ground && !self.pending_return {
                let plain =
                    rest.iter().position(|b| !matches!(b, b' '..=b'~' | b'\n' | b'\t')).unwrap_or(rest.len());
                if let Some((run, after)) = rest.split_at_checked(plain)
                    && let Ok(run) = std::str::from_utf8(run)
                    && !run.is_empty()
                {
                    out.push_str(run);
                    rest = after;
                    continue;
                }
            }
            self.byte(*byte, out);
            rest = tail;
        }
    }

    /// Ends the stream: what was held back comes out, colours are reset.
    pub fn finish(&mut self, out: &mut String) {
        if !self.partial.is_empty() {
            self.partial.clear();
            self.character(char::REPLACEMENT_CHARACTER, out);
        }
        self.flush_return(out);
        if self.coloured {
            out.push_str("\u{1b}[0m");
        }
        *self = Self::new(self.colours);
    }

    fn byte(&mut self, byte: u8, out: &mut String) {
        if self.partial.is_empty() && byte.is_ascii() {
            return self.character(char::from(byte), out);
        }
        self.partial.push(byte);
        loop {
            let bad = match std::str::from_utf8(&self.partial) {
                Ok(text) => {
                    let characters: Vec<char> = text.chars().collect();
                    self.partial.clear();
                    return characters.into_iter().for_each(|c| self.character(c, out));
                }
                Err(error) => match error.error_len() {
                    Some(bad) if error.valid_up_to() == 0 => bad,
                    _ => return,
                },
            };
            self.partial.drain(..bad.min(self.partial.len()));
            self.character(char::REPLACEMENT_CHARACTER, out);
        }
    }

    fn character(&mut self, c: char, out: &mut String) {
        match (self.state, c) {
            // Newlines end everything; CAN and SUB end a sequence (ECMA-48), ESC begins another.
            (_, '\n' | '\r') => {
                self.state = State::Ground;
                self.ground(c, out);
            }
            (State::Ground, _) => self.ground(c, out),
            (_, '\u{18}' | '\u{1a}') => self.state = State::Ground,
            (State::Text { left }, _) => self.text(c, left),
            // A backslash ends the string; any other escape ends it too and begins a sequence of its own.
            (State::TextEscape, _) => self.escape(c, out),
            (_, '\u{1b}') => self.state = State::Escape,
            (_, '\u{80}'..='\u{9f}') => {
                self.state = State::Ground;
                self.ground(c, out);
            }
            (State::Escape, _) => self.escape(c, out),
            (State::Intermediate, ' '..='/') => {}
            (State::Intermediate, '0'..='~') => self.state = State::Ground,
            (State::Control, ' '..='~') => self.control(c, out),
            (State::Intermediate | State::Control, _) => {
                self.state = State::Ground;
                self.ground(c, out);
            }
        }
    }

    fn text(&mut self, c: char, left: u32) {
        self.state = match c {
            '\u{7}' | '\u{9c}' => State::Ground,
            '\u{1b}' => State::TextEscape,
            _ => left.checked_sub(1).map_or(State::Ground, |left| State::Text { left }),
        };
    }

    fn escape(&mut self, c: char, out: &mut String) {
        self.state = State::Ground;
        match c {
            '\u{1b}' => self.state = State::Escape,
            '[' => self.begin_control(),
            ']' | 'P' | 'X' | '^' | '_' => self.state = State::Text { left: STRING_LIMIT },
            ' '..='/' => self.state = State::Intermediate,
            '0'..='~' => {}
            _ => self.ground(c, out),
        }
    }

    fn begin_control(&mut self) {
        self.state = State::Control;
        self.parameters = match self.colours {
            Colours::Keep => Some(String::new()),
            Colours::Remove => None,
        };
    }

    fn control(&mut self, c: char, out: &mut String) {
        match c {
            '0'..='9' | ';' => match &mut self.parameters {
                Some(parameters) if parameters.len() < SGR_LIMIT => parameters.push(c),
                _ => self.parameters = None,
            },
            'm' => {
                self.state = State::Ground;
                if let Some(parameters) = self.parameters.take().filter(|text| is_plain_style(text)) {
                    self.flush_return(out);
                    self.coloured = !matches!(parameters.as_str(), "" | "0");
                    out.push_str("\u{1b}[");
                    out.push_str(&parameters);
                    out.push('m');
                }
            }
            '@'..='~' => self.state = State::Ground,
            _ => self.parameters = None,
        }
    }

    fn ground(&mut self, c: char, out: &mut String) {
        match c {
            '\u{1b}' => self.state = State::Escape,
            '\u{9b}' => self.begin_control(),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => {
                self.state = State::Text { left: STRING_LIMIT };
            }
            '\r' => self.pending_return = true,
            '\n' => {
                self.pending_return = false;
                out.push('\n');
            }
            _ => {
                self.flush_return(out);
                push_visible(c, out);
            }
        }
    }

    fn flush_return(&mut self, out: &mut String) {
        if std::mem::take(&mut self.pending_return) {
            out.push('\n');
        }
    }
}

/// The character itself where it is harmless, else something to see in its place.
fn push_visible(c: char, out: &mut String) {
    match c {
        '\t' => out.push(c),
        '\0'..='\u{1f}' => {
            out.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        '\u{7f}' => out.push('\u{2421}'),
        '\u{80}'..='\u{9f}' => out.push(char::REPLACEMENT_CHARACTER),
        _ if is_deceptive(c) => {
            // Writing to a String can't fail.
            let _ = write!(out, "<U+{:04X}>", u32::from(c));
        }
        _ => out.push(c),
    }
}

/// Characters that reorder, hide or split text. Joiners (U+200C, U+200D) are not among them: scripts and emoji use them.
const fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether all parameters of a colour sequence (SGR, ECMA-48 §8.3.117) are harmless.
fn is_plain_style(parameters: &str) -> bool {
    let mut fields =
        parameters.split(';').map(|field| if field.is_empty() { Some(0) } else { field.parse::<u16>().ok() });
    let is_byte = |field: Option<Option<u16>>| matches!(field, Some(Some(0..=255)));
    while let Some(field) = fields.next() {
        let fine = match field {
            // Not 5 and 6 (blinking), not 8 (concealed).
            Some(0..=4 | 7 | 9 | 21..=24 | 27 | 29..=37 | 39..=47 | 49 | 53 | 55 | 90..=97 | 100..=107) => {
                true
            }
            Some(38 | 48) => match fields.next() {
                Some(Some(5)) => is_byte(fields.next()),
                Some(Some(2)) => is_byte(fields.next()) && is_byte(fields.next()) && is_byte(fields.next()),
                _ => false,
            },
            _ => false,
        };
        if !fine {
            return false;
        }
    }
    true
}

/// Scrubs a whole text.
#[must_use]
pub fn scrub_terminal(bytes: &[u8], colours: Colours) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut scrubber = Scrubber::new(colours);
    scrubber.push(bytes, &mut out);
    scrubber.finish(&mut out);
    out
}

/// Scrubs a name (a path, a ref, a word of a message) so that it stays on its line: tab and newline become visible too.
#[must_use]
pub fn scrub_name(bytes: &[u8]) -> String {
    let text = scrub_terminal(bytes, Colours::Remove);
    text.chars()
        .map(|c| match c {
            '\n' => '\u{240a}',
            '\t' => '\u{2409}',
            other => other,
        })
        .collect()
}

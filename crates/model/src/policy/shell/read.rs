//! Reading a shell text: quotes, substitutions, redirections, here-documents.

use super::unwrap::{self, Simple};
use super::{Command, Found, HOLE};

/// How deep quotes and substitutions are followed into each other.
const DEEPEST_QUOTES: usize = 32;

/// A word of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// As it is shown: without quotes, expansions as they are written.
    pub(super) text: String,
    /// With a hole for each expansion.
    pub(super) shape: String,
    /// Whether a part of it stood in quotes or behind a backslash.
    pub(super) is_quoted: bool,
    /// Whether it holds a pattern of file names or braces that the shell expands.
    pub(super) has_pattern: bool,
}

impl Word {
    pub(super) fn of(text: &str) -> Self {
        Self { text: text.to_owned(), shape: text.to_owned(), ..Self::default() }
    }

    pub(super) fn has_hole(&self) -> bool {
        self.shape.contains(HOLE)
    }

    fn push(&mut self, c: char) {
        self.text.push(c);
        self.shape.push(c);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redirect {
    Write,
    Read,
    /// The text that stands until a line with this word.
    Document {
        strips_tabs: bool,
    },
    /// The word itself.
    Text,
}

/// Reads one text into its commands.
pub(super) struct Reader<'a> {
    chars: Vec<char>,
    at: usize,
    depth: usize,
    is_tainted: bool,
    found: &'a mut Found,
    word: Option<Word>,
    redirect: Option<Redirect>,
    simple: Simple,
    /// Whether the command before this one feeds it.
    is_fed: bool,
    /// Where the here-documents of this line end.
    after_documents: Option<usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &str, depth: usize, is_tainted: bool, found: &'a mut Found) -> Self {
        Self {
            chars: text.chars().collect(),
            at: 0,
            depth,
            is_tainted,
            found,
            word: None,
            redirect: None,
            simple: Simple::default(),
            is_fed: false,
            after_documents: None,
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn slice(&self, from: usize, to: usize) -> String {
        self.chars.get(from..to.max(from)).unwrap_or_default().iter().collect()
    }

    fn word(&mut self) -> &mut Word {
        self.word.get_or_insert_default()
    }

    pub(super) fn read(mut self) {
        while let Some(c) = self.next() {
            match c {
                '\\' => match self.next() {
                    Some('\n') => {}
                    Some(next) => {
                        self.word().is_quoted = true;
                        self.word().push(next);
                    }
                    None => self.word().push('\\'),
                },
                '\'' => self.single_quotes(),
                '"' => self.double_quotes(),
                '$' => self.expansion(false),
                '`' => self.backquotes(),
                '#' if self.word.is_none() => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                '\n' => {
                    self.end(false);
                    if let Some(at) = self.after_documents.take() {
                        self.at = at.max(self.at);
                    }
                }
                '&' if self.peek() == Some('>') => {
                    self.end_word();
                    self.at += 1;
                    self.redirection('>');
                }
                '|' => {
                    let or = self.peek() == Some('|');
                    if or || self.peek() == Some('&') {
                        self.at += 1;
                    }
                    self.end(!or);
                }
                '(' if self.word.is_some() && self.peek() == Some(')') => {
                    // A function: what it does is read, its name is no command.
                    self.at += 1;
                    self.word = None;
                    self.simple = Simple::default();
                }
                ';' | '&' | '(' | ')' => self.end(false),
                '{' | '}'
                    if self.word.is_none()
                        && self.peek().is_none_or(|c| c.is_whitespace() || ";)|&".contains(c)) =>
                {
                    self.end(false);
                }
                '<' | '>' => self.redirection(c),
                '*' | '?' | '[' | '{' => {
                    self.word().has_pattern = true;
                    self.word().push(c);
                }
                c if c.is_whitespace() => self.end_word(),
                c => self.word().push(c),
            }
            if self.found.commands.len() >= super::MOST {
                self.found.is_incomplete = true;
                return;
            }
        }
        self.end(false);
    }

    fn single_quotes(&mut self) {
        self.word().is_quoted = true;
        loop {
            match self.next() {
                Some('\'') => return,
                Some(c) => self.word().push(c),
                None => {
                    self.found.is_incomplete = true;
                    return;
                }
            }
        }
    }

    fn double_quotes(&mut self) {
        self.word().is_quoted = true;
        loop {
            match self.next() {
                Some('"') => return,
                Some('$') => self.expansion(true),
                Some('`') => self.backquotes(),
                Some('\\') => match self.next() {
                    Some(next @ ('"' | '\\' | '$' | '`')) => self.word().push(next),
                    Some('\n') => {}
                    Some(next) => {
                        self.word().push('\\');
                        self.word().push(next);
                    }
                    None => self.found.is_incomplete = true,
                },
                Some(c) => self.word().push(c),
                None => {
                    self.found.is_incomplete = true;
                    return;
                }
            }
        }
    }

    /// What stands in the place of an expansion: known only when it runs.
    fn hole(&mut self, from: usize) {
        let text = self.slice(from, self.at);
        let word = self.word();
        word.text.push_str(&text);
        word.shape.push(HOLE);
    }

    /// Goes behind the closing character; the text up to it.
    fn until(&mut self, closing: char) -> String {
        let from = self.at;
        match closing_at(&self.chars, from, closing, DEEPEST_QUOTES) {
            Some(end) => {
                self.at = end + 1;
                self.slice(from, end)
            }
            None => {
                self.found.is_incomplete = true;
                self.at = self.chars.len();
                self.slice(from, self.at)
            }
        }
    }

    fn expansion(&mut self, in_quotes: bool) {
        let from = self.at.saturating_sub(1);
        match self.peek() {
            Some('(') => {
                self.at += 1;
                let inner = self.until(')');
                if inner.starts_with('(') && inner.ends_with(')') {
                    self.simple.nested.extend(substitutions(&inner));
                } else {
                    self.simple.nested.push(inner);
                }
            }
            Some('{') => {
                self.at += 1;
                let inner = self.until('}');
                self.simple.nested.extend(substitutions(&inner));
            }
            Some('\'') if !in_quotes => {
                self.at += 1;
                while let Some(c) = self.next() {
                    match c {
                        '\\' => self.at += 1,
                        '\'' => break,
                        _ => {}
                    }
                }
                self.at = self.at.min(self.chars.len());
                self.word().is_quoted = true;
            }
            Some('"') if !in_quotes => return,
            Some(c) if c.is_ascii_alphanumeric() || c == '_' => {
                while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                    self.at += 1;
                }
            }
            Some('?' | '$' | '!' | '#' | '@' | '*' | '-') => self.at += 1,
            _ => return self.word().push('$'),
        }
        self.hole(from);
    }

    fn backquotes(&mut self) {
        let from = self.at.saturating_sub(1);
        let mut inner = String::new();
        loop {
            match self.next() {
                Some('`') => break,
                Some('\\') => inner.extend(self.next()),
                Some(c) => inner.push(c),
                None => {
                    self.found.is_incomplete = true;
                    break;
                }
            }
        }
        self.simple.nested.push(inner);
        self.hole(from);
    }

    fn redirection(&mut self, c: char) {
        // The number of a descriptor is no word.
        if self
            .word
            .as_ref()
            .is_some_and(|word| !word.is_quoted && word.text.bytes().all(|b| b.is_ascii_digit()))
        {
            self.word = None;
        }
        if self.peek() == Some('(') {
            let from = self.at.saturating_sub(1);
            self.at += 1;
            let inner = self.until(')');
            self.simple.nested.push(inner);
            return self.hole(from);
        }
        self.end_word();
        let mut redirect = if c == '>' { Redirect::Write } else { Redirect::Read };
        match (c, self.peek()) {
            ('>', Some('>' | '|')) => self.at += 1,
            ('<', Some('>')) => {
                self.at += 1;
                redirect = Redirect::Write;
            }
            ('<', Some('<')) => {
                self.at += 1;
                redirect = match self.peek() {
                    Some('<') => {
                        self.at += 1;
                        Redirect::Text
                    }
                    Some('-') => {
                        self.at += 1;
                        Redirect::Document { strips_tabs: true }
                    }
                    _ => Redirect::Document { strips_tabs: false },
                };
            }
            (_, Some('&')) => {
                self.at += 1;
                // Another descriptor is no file.
                if self.peek().is_some_and(|c| c.is_ascii_digit() || c == '-') {
                    while self.peek().is_some_and(|c| c.is_ascii_digit() || c == '-') {
                        self.at += 1;
                    }
                    return;
                }
            }
            _ => {}
        }
        self.redirect = Some(redirect);
        while self.peek().is_some_and(|c| c == ' ' || c == '\t') {
            self.at += 1;
        }
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        match self.redirect.take() {
            None => self.simple.words.push(word),
            Some(Redirect::Text) => self.simple.input.push((word.text.clone(), word.has_hole())),
            Some(Redirect::Document { strips_tabs }) => self.document(&word, strips_tabs),
            Some(redirect) => self.simple.redirect(word, redirect == Redirect::Write),
        }
    }

    fn document(&mut self, end: &Word, strips_tabs: bool) {
        let line_end = |from: usize| {
            let rest = self.chars.get(from..).unwrap_or_default();
            rest.iter().position(|c| *c == '\n').map_or(self.chars.len(), |length| from + length)
        };
        let begin = self.after_documents.unwrap_or_else(|| line_end(self.at.saturating_sub(1)) + 1);
        let mut line = begin;
        let mut body_end = None;
        while line < self.chars.len() {
            let stop = line_end(line);
            let text = self.slice(line, stop);
            let text = if strips_tabs { text.trim_start_matches('\t') } else { &text };
            if text == end.text {
                body_end = Some((line, stop));
                break;
            }
            line = stop + 1;
        }
        let (body_end, after) = body_end.unwrap_or_else(|| {
            self.found.is_incomplete = true;
            (self.chars.len(), self.chars.len())
        });
        let body = self.slice(begin, body_end);
        let expands = !end.is_quoted;
        if expands {
            self.simple.nested.extend(substitutions(&body));
        }
        self.after_documents = Some(after);
        self.simple.input.push((body.clone(), expands && body.contains(['$', '`'])));
    }

    fn end(&mut self, feeds: bool) {
        self.end_word();
        if self.redirect.take().is_some() {
            self.found.is_incomplete = true;
        }
        let simple = std::mem::take(&mut self.simple);
        let is_fed = std::mem::replace(&mut self.is_fed, feeds);
        let unwrapped = unwrap::unwrap(simple, is_fed, unwrap::DEEPEST);
        for mut command in unwrapped.commands {
            command.is_hidden |= self.is_tainted;
            self.found.push(command);
        }
        for (inner, is_tainted) in unwrapped.inner {
            self.found.read(&inner, self.depth - 1, is_tainted || self.is_tainted);
        }
    }
}

/// Where the closing character of a substitution stands, which begins at `at`; quotes within are stepped over.
fn closing_at(chars: &[char], mut at: usize, closing: char, depth: usize) -> Option<usize> {
    let opening = if closing == ')' { '(' } else { '{' };
    let mut open = 1_usize;
    if depth == 0 {
        return None;
    }
    while let Some(c) = chars.get(at).copied() {
        match c {
            '\\' => at += 1,
            '\'' => at = quote_end(chars, at + 1, '\'')?,
            '`' => at = quote_end(chars, at + 1, '`')?,
            '"' => at = double_end(chars, at + 1, depth - 1)?,
            '$' if closing == '}' && chars.get(at + 1) == Some(&'(') => {
                at = closing_at(chars, at + 2, ')', depth - 1)?;
            }
            c if c == opening => open += 1,
            c if c == closing => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn quote_end(chars: &[char], from: usize, quote: char) -> Option<usize> {
    chars.get(from..)?.iter().position(|c| *c == quote).map(|length| from + length)
}

fn double_end(chars: &[char], mut at: usize, depth: usize) -> Option<usize> {
    while let Some(c) = chars.get(at).copied() {
        match c {
            '\\' => at += 1,
            '"' => return Some(at),
            '$' if chars.get(at + 1) == Some(&'(') => at = closing_at(chars, at + 2, ')', depth)?,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The command substitutions in a text in which quotes mean nothing.
fn substitutions(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = chars.get(at).copied() {
        let span = match c {
            '\\' => {
                at += 2;
                continue;
            }
            '$' if chars.get(at + 1) == Some(&'(') => {
                let end = closing_at(&chars, at + 2, ')', DEEPEST_QUOTES).unwrap_or(chars.len());
                Some((at + 2, end))
            }
            '`' => Some((at + 1, quote_end(&chars, at + 1, '`').unwrap_or(chars.len()))),
            _ => None,
        };
        match span {
            Some((from, to)) => {
                found.push(chars.get(from..to).unwrap_or_default().iter().collect());
                at = to + 1;
            }
            None => at += 1,
        }
    }
    found
}

/// A command of these words as they are.
pub(super) fn command(words: &[Word]) -> Command {
    Command {
        words: words.iter().map(|word| word.text.clone()).collect(),
        shapes: words.iter().map(|word| word.shape.clone()).collect(),
        ..Command::default()
    }
}

//! What the readers of all agents have in common: lines of JSON in, events out, a verdict by content.
//!
//! What an agent prints is hostile: it holds what the model said and what files hold. Nothing here panics on it, keeps
//! more than a bound of it, or takes a guess at a form that it does not know.

use crate::{ProcessEnd, SessionReader, Verdict};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use tipstaff_model::AgentEvent;

/// Longest line that is parsed, in bytes; a longer one is kept as text, cut.
const LINE: usize = 4 * 1024 * 1024;
/// Longest text of an event that is not understood, in bytes.
pub(crate) const RAW: usize = 64 * 1024;
/// Longest answer of a tool, in bytes.
const OUTPUT: usize = 256 * 1024;
/// Longest title, in characters.
const TITLE: usize = 160;
/// Longest reason and last words, in bytes.
const SUMMARY: usize = 4 * 1024;
/// Lines of standard error that are remembered, and the length of each in bytes.
const ERROR_LINES: usize = 16;
const ERROR_LINE: usize = 512;
/// Calls of tools that are remembered until they are answered.
const OPEN_CALLS: usize = 4096;

/// How one agent says things.
pub(crate) trait Dialect: Send {
    /// The events that one JSON object means; `None` when it is not known.
    fn events(&mut self, value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>>;
    /// The events that one line of standard error means: none, for most.
    fn error_line(&mut self, _line: &str, _session: &mut Session) -> Vec<AgentEvent> {
        Vec::new()
    }
    /// Whether this end of the process says nothing about the work: a server that is not needed any more.
    fn is_usual_end(&self, _end: ProcessEnd) -> bool {
        false
    }
    /// Why the work is not done although the agent says so.
    fn objection(&self, _session: &Session) -> Option<String> {
        None
    }
}

/// How the agent itself says that it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Failed(String),
}

/// A call of a tool that was not answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenCall {
    pub(crate) name: String,
    pub(crate) path: Option<String>,
}

/// What is remembered of a session.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// The last that it said about its end.
    pub(crate) outcome: Option<Outcome>,
    /// The last whole text that it said.
    pub(crate) last_text: String,
    /// The last error that it told of.
    pub(crate) last_error: Option<String>,
    /// Names of tools that answered well at least once.
    pub(crate) worked: Vec<String>,
    calls: BTreeMap<String, OpenCall>,
    error_lines: VecDeque<String>,
}

impl Session {
    /// Remembers a call until it is answered.
    pub(crate) fn call(&mut self, id: &str, name: &str, path: Option<String>) {
        if self.calls.len() >= OPEN_CALLS {
            self.calls.pop_first();
        }
        self.calls.insert(cut(id, 256), OpenCall { name: cut(name, 256), path });
    }

    /// The call that is answered now.
    pub(crate) fn answered(&mut self, id: &str, ok: bool) -> Option<OpenCall> {
        let call = self.calls.remove(&cut(id, 256))?;
        if ok {
            self.worked(&call.name);
        }
        Some(call)
    }

    /// The calls that were not answered, in the order of their ids; they are forgotten.
    pub(crate) fn unanswered(&mut self) -> Vec<String> {
        std::mem::take(&mut self.calls).into_keys().collect()
    }

    /// A tool answered well.
    pub(crate) fn worked(&mut self, name: &str) {
        if self.worked.len() < 64 && !self.worked.iter().any(|known| known == name) {
            self.worked.push(cut(name, 256));
        }
    }

    /// It said a whole text.
    pub(crate) fn said(&mut self, text: &str) {
        if !text.trim().is_empty() {
            self.last_text = cut(text, SUMMARY);
        }
    }

    /// It said the next piece of a text.
    pub(crate) fn said_on(&mut self, piece: &str) {
        let room = SUMMARY.saturating_sub(self.last_text.len());
        self.last_text.push_str(&cut(piece, room));
    }

    /// It told of an error; the event of it.
    pub(crate) fn error(&mut self, message: &str, fatal: bool) -> AgentEvent {
        let message = cut(message, SUMMARY);
        self.last_error = Some(message.clone());
        AgentEvent::Error { message, fatal }
    }

    /// It ended; the event of it.
    pub(crate) fn finished(&mut self, outcome: Outcome, turns: Option<u64>) -> AgentEvent {
        let (ok, summary) = match &outcome {
            Outcome::Done => (true, Some(self.last_text.clone()).filter(|text| !text.is_empty())),
            Outcome::Failed(why) => (false, Some(why.clone())),
        };
        self.outcome = Some(outcome);
        AgentEvent::Finished { ok, summary, turns }
    }

    /// A line of standard error.
    pub(crate) fn complained(&mut self, line: &str) {
        let line = line.trim();
        // A stack trace says where in the agent it happened, which helps nobody here.
        if !line.is_empty() && !line.starts_with("at ") {
            if self.error_lines.len() >= ERROR_LINES {
                self.error_lines.pop_front();
            }
            self.error_lines.push_back(cut(line, ERROR_LINE));
        }
    }

    /// The line of standard error that explains most: the last one that speaks of an error, else the last.
    fn complaint(&self) -> Option<&str> {
        let lines = || self.error_lines.iter().rev().map(String::as_str);
        lines().find(|line| line.to_ascii_lowercase().contains("error")).or_else(|| lines().next())
    }

    /// What it complained about last, in its output or in its errors.
    pub(crate) fn last_complaint(&self) -> Option<&str> {
        self.last_error.as_deref().or_else(|| self.complaint())
    }

    fn without_result(&self, end: ProcessEnd) -> String {
        let how = match end {
            ProcessEnd::Exited(code) => format!("it ended with code {code} and without a result"),
            ProcessEnd::Signalled(signal) => format!("signal {signal} ended it before it had a result"),
        };
        match self.last_complaint() {
            Some(said) => format!("{how}; its last complaint: {said}"),
            None => how,
        }
    }

    /// The verdict, by what is remembered and how the process ended.
    pub(crate) fn verdict(&self, end: ProcessEnd, objection: Option<String>) -> Verdict {
        let why = match (&self.outcome, end) {
            (None, _) => self.without_result(end),
            (Some(Outcome::Failed(why)), _) => why.clone(),
            (Some(Outcome::Done), ProcessEnd::Exited(0)) => match objection {
                Some(objection) => objection,
                None if self.last_text.is_empty() && self.worked.is_empty() => {
                    "it says that it is done, but it said nothing and no tool of it worked".to_owned()
                }
                None => return Verdict::Done,
            },
            (Some(Outcome::Done), ProcessEnd::Exited(code)) => {
                format!("it says that it is done, but it ended with code {code}")
            }
            (Some(Outcome::Done), ProcessEnd::Signalled(signal)) => {
                format!("it says that it is done, but signal {signal} ended it")
            }
        };
        Verdict::Failed { why: Some(cut(&why, SUMMARY)) }
    }
}

/// A reader of lines of JSON.
pub(crate) struct JsonLines<D> {
    dialect: D,
    session: Session,
}

impl<D: Dialect + 'static> JsonLines<D> {
    pub(crate) fn boxed(dialect: D) -> Box<dyn SessionReader> {
        Box::new(Self { dialect, session: Session::default() })
    }
}

impl<D: Dialect> SessionReader for JsonLines<D> {
    fn line(&mut self, line: &str) -> Vec<AgentEvent> {
        if line.trim().is_empty() {
            return Vec::new();
        }
        let parsed = (line.len() <= LINE).then(|| serde_json::from_str::<Value>(line).ok()).flatten();
        match parsed {
            Some(value) if value.is_object() => match self.dialect.events(&value, &mut self.session) {
                Some(events) => events,
                None if line.len() <= RAW => vec![AgentEvent::Raw { value }],
                None => vec![raw_text(line)],
            },
            _ => vec![raw_text(line)],
        }
    }

    fn error_line(&mut self, line: &str) -> Vec<AgentEvent> {
        let line = line.trim();
        self.session.complained(line);
        self.dialect.error_line(line, &mut self.session)
    }

    fn verdict(&mut self, end: ProcessEnd) -> Verdict {
        let usual = self.session.outcome.is_some() && self.dialect.is_usual_end(end);
        let end = if usual { ProcessEnd::Exited(0) } else { end };
        self.session.verdict(end, self.dialect.objection(&self.session))
    }
}

/// A line that is no JSON object, or an object that is too long and not known.
pub(crate) fn raw_text(line: &str) -> AgentEvent {
    AgentEvent::Raw { value: json!({ "text": cut(line, RAW) }) }
}

/// The beginning of a text, at most `most` bytes, with `…` when something is missing.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mark = '…';
    let end = text.floor_char_boundary(most.saturating_sub(mark.len_utf8()));
    let mut out = text.get(..end).unwrap_or_default().to_owned();
    if most >= mark.len_utf8() {
        out.push(mark);
    }
    out
}

/// One line for people.
pub(crate) fn title(text: &str) -> String {
    let mut out = String::new();
    // What is far behind the bound is not looked at.
    let start = text.chars().take(TITLE * 4);
    let spaced: String = start.map(|c| if c.is_control() || c.is_whitespace() { ' ' } else { c }).collect();
    for (count, c) in
        spaced.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").chars().enumerate()
    {
        if count + 1 >= TITLE {
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}

/// What a tool answered, bounded.
pub(crate) fn output(text: &str) -> String {
    cut(text, OUTPUT)
}

/// A text below a path of keys.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    below(value, path)?.as_str()
}

/// A count below a path of keys; 0 where there is none.
pub(crate) fn count(value: &Value, path: &[&str]) -> u64 {
    below(value, path).and_then(Value::as_u64).unwrap_or(0)
}

/// What is below a path of keys.
pub(crate) fn below<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// The elements below a path of keys; none where there is no list.
pub(crate) fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    below(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// US dollars as the agent claims them, in millionths. `None` when it is no amount of money.
pub(crate) fn micro_usd(value: Option<&Value>) -> Option<u64> {
    let usd = value?.as_f64()?;
    (usd.is_finite() && (0.0..1e9).contains(&usd)).then(|| (usd * 1e6).round() as u64)
}

/// What a call of a tool is about: the first of the usual arguments that it has.
pub(crate) fn call_title(name: &str, input: &Value) -> String {
    const ARGUMENTS: &[&str] = &[
        "command",
        "cmd",
        "file_path",
        "filePath",
        "absolute_path",
        "notebook_path",
        "path",
        "dir_path",
        "pattern",
        "query",
        "url",
        "description",
        "prompt",
        "skill",
        "name",
    ];
    let argument = ARGUMENTS.iter().find_map(|key| match input.get(key)? {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Array(parts) => {
            let words: Vec<&str> = parts.iter().take(64).filter_map(Value::as_str).collect();
            (!words.is_empty()).then(|| words.join(" "))
        }
        _ => None,
    });
    title(&argument.unwrap_or_else(|| name.to_owned()))
}

/// What an error of a model's server says, where an agent wraps its JSON into a text.
pub(crate) fn plain_error(message: &str) -> String {
    let inner = message.find('{').and_then(|start| {
        let rest = message.get(start..)?;
        let value = serde_json::Deserializer::from_str(rest).into_iter::<Value>().next()?.ok()?;
        let said = text(&value, &["error", "message"]).or_else(|| text(&value, &["message"]))?;
        let code = below(&value, &["error", "code"]).filter(|code| code.is_u64() || code.is_string());
        let code = code.map(|code| code.as_str().map_or_else(|| code.to_string(), ToOwned::to_owned));
        Some(code.map_or_else(|| said.to_owned(), |code| format!("{said} ({code})")))
    });
    cut(&inner.unwrap_or_else(|| message.to_owned()), SUMMARY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_at_a_character() {
        assert_eq!(cut("äöü", 6), "äöü");
        assert_eq!(cut("äöüß", 6), "ä…");
        assert_eq!(cut("abc", 2), "");
        assert_eq!(title("  a\n\tb \u{1b}[31m c"), "a b [31m c");
        assert_eq!(title(&"x ".repeat(1000)).chars().count(), TITLE);
    }

    #[test]
    fn an_error_of_a_server_is_unwrapped() {
        let wrapped =
            r#"[API Error: {"error":{"code":402,"message":"budget exhausted","status":"INTERNAL"}}]"#;
        assert_eq!(plain_error(wrapped), "budget exhausted (402)");
        assert_eq!(plain_error("{broken"), "{broken");
    }

    #[test]
    fn money_is_an_amount_or_nothing() {
        assert_eq!(micro_usd(Some(&json!(0.01732))), Some(17_320));
        for wrong in [json!(-1), json!("1"), json!(1e300), json!(null)] {
            assert_eq!(micro_usd(Some(&wrong)), None, "{wrong}");
        }
    }
}

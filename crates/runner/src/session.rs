//! What a command says, on its way to the store and to whoever watches: bounded, made harmless, redacted, and, where the
//! engine can read it, turned into events.
//!
//! Promises: nothing leaves here, towards the store, a terminal or an observer, that was not redacted and scrubbed
//! first; a line that an engine can't read is kept as it is; memory is bounded whatever the command writes. Of what an
//! agent writes beyond the bound nothing is kept but how it says that it ended.

use crate::announce::{Notice, Observer, Stream};
use crate::lines::{Line, LineSplitter};
use serde_json::{Value, json};
use tipstaff_engine::{ProcessEnd, SessionReader, Verdict, verdict_of_exit};
use tipstaff_model::{AgentEvent, Clock, ControlPlane, ControlPlaneError, EventDraft, EventKind};
use tipstaff_seal::StreamDigest;
use tipstaff_seal::redact::{RedactStream, Redactor};
use tipstaff_seal::scrub::{Colours, Scrubber, scrub_terminal};

/// Buffered output that forces a write to the store, in bytes.
pub(crate) const BUFFER: usize = 256 * 1024;

/// The last bytes beyond the bound that are read at the end, and how many ends among them are told of.
const LATE: usize = 256 * 1024;
const LATE_ENDS: u8 = 4;

/// The end of what an agent wrote beyond the bound.
#[derive(Default)]
struct Late {
    bytes: Vec<u8>,
    /// Whether they are all of it.
    lost: bool,
}

impl Late {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Now and then, so that a byte is moved once or twice and not each time.
        if self.bytes.len() > 2 * LATE {
            self.lost = true;
            self.bytes.drain(..self.bytes.len() - LATE);
        }
    }
}

/// The story of one command so far.
pub(crate) struct Session {
    kind: [EventKind; 2],
    scrubbers: [Scrubber; 2],
    streams: [RedactStream; 2],
    redactor: Redactor,
    reader: Option<Box<dyn SessionReader>>,
    lines: [LineSplitter; 2],
    /// The message that is being told piece by piece: a secret may lie across its pieces.
    telling: Option<(Telling, RedactStream)>,
    /// Tools that were called and have not answered.
    open_tools: Vec<String>,
    /// Whether the agent said that it gives up.
    given_up: bool,
    pending: Vec<EventDraft>,
    pending_bytes: usize,
    left: u64,
    dropped: u64,
    late: Late,
    /// How many ends may still be told of, once the late lines are read.
    late_ends: Option<u8>,
    evidence: StreamDigest,
}

/// Which message is told piece by piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    Text,
    Thinking,
}

/// Who is told, and what time it is.
pub(crate) struct Listener<'a> {
    pub(crate) observer: &'a dyn Observer,
    pub(crate) clock: &'a dyn Clock,
}

impl Session {
    /// `output_bytes` are kept of both streams together. `reader` reads standard output, where the engine has one.
    pub(crate) fn new(
        redactor: &Redactor,
        reader: Option<Box<dyn SessionReader>>,
        output_bytes: u64,
        kind: [EventKind; 2],
    ) -> Self {
        Self {
            kind,
            scrubbers: [Scrubber::new(Colours::Keep), Scrubber::new(Colours::Keep)],
            streams: [redactor.stream(), redactor.stream()],
            redactor: redactor.clone(),
            reader,
            lines: [LineSplitter::default(), LineSplitter::default()],
            telling: None,
            open_tools: Vec::new(),
            given_up: false,
            pending: Vec::new(),
            pending_bytes: 0,
            left: output_bytes,
            dropped: 0,
            late: Late::default(),
            late_ends: None,
            evidence: StreamDigest::default(),
        }
    }

    /// Bytes that were dropped at the bound.
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The digest of the output as it is stored: 64 hexadecimal digits.
    pub(crate) fn evidence(&self) -> String {
        self.evidence.hex()
    }

    /// Bytes that wait to be stored.
    pub(crate) const fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether a tool was called and has not answered: silence is no sign of a stall then.
    pub(crate) fn waits_for_a_tool(&self) -> bool {
        !self.open_tools.is_empty()
    }

    /// Whether the agent gave up, as it says or as its engine sees.
    pub(crate) const fn has_given_up(&self) -> bool {
        self.given_up
    }

    /// Whether an engine reads the output.
    pub(crate) const fn is_read(&self) -> bool {
        self.reader.is_some()
    }

    /// Takes what the command wrote.
    pub(crate) fn take(&mut self, stream: Stream, bytes: &[u8], listener: &Listener<'_>) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let kept = usize::try_from(length.min(self.left)).unwrap_or(usize::MAX);
        self.left -= length.min(self.left);
        self.dropped += length - u64::try_from(kept).unwrap_or(0);
        let (bytes, late) = bytes.split_at_checked(kept).unwrap_or((bytes, &[]));
        if self.reader.is_some() {
            for line in self.lines_of(stream, bytes) {
                self.line(stream, line, listener);
            }
            if stream == Stream::Stdout {
                self.late.push(late);
                return;
            }
        }
        self.text(stream, bytes, listener);
    }

    fn lines_of(&mut self, stream: Stream, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Some(splitter) = self.lines.get_mut(slot(stream)) {
            splitter.push(bytes, &mut lines);
        }
        lines
    }

    /// Plain output: scrubbed and redacted as it flows.
    fn text(&mut self, stream: Stream, bytes: &[u8], listener: &Listener<'_>) {
        let slot = slot(stream);
        let (Some(scrubber), Some(redacting)) = (self.scrubbers.get_mut(slot), self.streams.get_mut(slot))
        else {
            return;
        };
        let mut scrubbed = String::with_capacity(bytes.len());
        scrubber.push(bytes, &mut scrubbed);
        let mut out = Vec::with_capacity(scrubbed.len());
        redacting.push(scrubbed.as_bytes(), &mut out);
        self.tell_output(stream, String::from_utf8_lossy(&out).into_owned(), listener);
    }

    fn tell_output(&mut self, stream: Stream, text: String, listener: &Listener<'_>) {
        if text.is_empty() {
            return;
        }
        listener.observer.notice(Notice::Output(stream, text.clone()));
        self.pending_bytes += text.len();
        self.evidence.update(text.as_bytes());
        let kind = self.kind.get(slot(stream)).copied().unwrap_or(EventKind::Stdout);
        // Neighbours of one stream become one event.
        if let Some(last) = self.pending.last_mut()
            && last.kind == kind
            && let Some(Value::String(so_far)) = last.body.get_mut("text")
        {
            so_far.push_str(&text);
            return;
        }
        self.pending.push(EventDraft { kind, at: listener.clock.wall_ms(), body: json!({ "text": text }) });
    }

    /// One line of an agent, redacted before anybody reads it: no line break hides a secret inside a JSON string.
    fn line(&mut self, stream: Stream, line: Line, listener: &Listener<'_>) {
        let line = self.redactor.redact(&line.shown()).into_owned();
        let Some(reader) = self.reader.as_mut() else { return };
        let events = match stream {
            Stream::Stdout => reader.line(&line),
            Stream::Stderr => reader.error_line(&line),
        };
        for event in events {
            self.event(event, listener);
        }
    }

    fn event(&mut self, event: AgentEvent, listener: &Listener<'_>) {
        match &event {
            AgentEvent::ToolCall { id, .. } if self.open_tools.len() < 1000 => {
                self.open_tools.push(id.clone());
            }
            AgentEvent::ToolResult { id, .. } => self.open_tools.retain(|open| open != id),
            AgentEvent::Finished { .. } => self.open_tools.clear(),
            AgentEvent::Error { fatal: true, .. } => self.given_up = true,
            _ => {}
        }
        match event {
            AgentEvent::Text { text, delta: true } => self.piece(Telling::Text, &text, listener),
            AgentEvent::Thinking { text, delta: true } => self.piece(Telling::Thinking, &text, listener),
            other => {
                self.end_of_message(listener);
                self.tell_event(other, listener);
            }
        }
    }

    /// A piece of a message: what may be the beginning of a secret waits for the next piece.
    fn piece(&mut self, telling: Telling, text: &str, listener: &Listener<'_>) {
        if self.telling.as_ref().is_none_or(|(which, _)| *which != telling) {
            self.end_of_message(listener);
            self.telling = Some((telling, self.redactor.stream()));
        }
        let mut out = Vec::new();
        if let Some((_, stream)) = self.telling.as_mut() {
            stream.push(text.as_bytes(), &mut out);
        }
        self.tell_piece(telling, &out, listener);
    }

    fn end_of_message(&mut self, listener: &Listener<'_>) {
        if let Some((telling, mut stream)) = self.telling.take() {
            let mut out = Vec::new();
            stream.finish(&mut out);
            self.tell_piece(telling, &out, listener);
        }
    }

    fn tell_piece(&mut self, telling: Telling, bytes: &[u8], listener: &Listener<'_>) {
        if bytes.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(bytes).into_owned();
        let event = match telling {
            Telling::Text => AgentEvent::Text { text, delta: true },
            Telling::Thinking => AgentEvent::Thinking { text, delta: true },
        };
        self.tell_event(event, listener);
    }

    fn tell_event(&mut self, event: AgentEvent, listener: &Listener<'_>) {
        if let Some(left) = &mut self.late_ends {
            if *left == 0 || !matches!(event, AgentEvent::Finished { .. }) {
                return;
            }
            *left -= 1;
        }
        let mut body = serde_json::to_value(&event).unwrap_or(Value::Null);
        // What was taken apart by the reader is looked at once more as a whole.
        self.redactor.redact_json(&mut body);
        scrub(&mut body, 0);
        let event = serde_json::from_value(body.clone()).unwrap_or(event);
        listener.observer.notice(Notice::Agent(Box::new(event)));
        self.pending_bytes += body.to_string().len();
        self.pending.push(EventDraft { kind: EventKind::Agent, at: listener.clock.wall_ms(), body });
    }

    /// Reads how an agent says that it ended, where that lies beyond the bound; nothing else of it is told.
    fn read_late(&mut self, listener: &Listener<'_>) {
        let Late { bytes, mut lost } = std::mem::take(&mut self.late);
        if bytes.is_empty() {
            return;
        }
        let from = bytes.len().saturating_sub(LATE);
        lost |= from > 0;
        let mut bytes = bytes.get(from..).unwrap_or_default();
        if lost {
            // The line in which it begins is not whole, nor is the one that lies across the bound.
            let begun = self.lines.get_mut(slot(Stream::Stdout)).and_then(LineSplitter::finish);
            drop(begun);
            let first = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            bytes = bytes.get(first..).unwrap_or_default();
        }
        let mut lines = self.lines_of(Stream::Stdout, bytes);
        lines.extend(self.lines.get_mut(slot(Stream::Stdout)).and_then(LineSplitter::finish));
        self.end_of_message(listener);
        self.late_ends = Some(LATE_ENDS);
        for line in lines {
            self.line(Stream::Stdout, line, listener);
        }
        self.end_of_message(listener);
        self.late_ends = None;
    }

    /// Takes the end of both streams.
    pub(crate) fn finish(&mut self, listener: &Listener<'_>) {
        self.read_late(listener);
        for stream in [Stream::Stdout, Stream::Stderr] {
            let slot = slot(stream);
            let rest = self.lines.get_mut(slot).and_then(LineSplitter::finish);
            if let Some(rest) = rest {
                self.line(stream, rest, listener);
            }
            let mut scrubbed = String::new();
            if let Some(scrubber) = self.scrubbers.get_mut(slot) {
                scrubber.finish(&mut scrubbed);
            }
            let mut out = Vec::new();
            if let Some(redacting) = self.streams.get_mut(slot) {
                redacting.push(scrubbed.as_bytes(), &mut out);
                redacting.finish(&mut out);
            }
            self.tell_output(stream, String::from_utf8_lossy(&out).into_owned(), listener);
        }
        self.end_of_message(listener);
        if self.dropped > 0 {
            let text = format!("the output bound was reached; {} bytes were dropped", self.dropped);
            self.remark(text, listener);
        }
    }

    /// A remark of ours in the story.
    pub(crate) fn remark(&mut self, text: String, listener: &Listener<'_>) {
        listener.observer.notice(Notice::Remark(text.clone()));
        let at = listener.clock.wall_ms();
        self.pending.push(EventDraft { kind: EventKind::Notice, at, body: json!({ "text": text }) });
    }

    /// Whether the work was done.
    pub(crate) fn verdict(&mut self, end: ProcessEnd) -> Verdict {
        match self.reader.as_mut() {
            Some(reader) => reader.verdict(end),
            None => verdict_of_exit(end),
        }
    }

    /// Writes what waits to the store.
    pub(crate) async fn flush(&mut self, control: &dyn ControlPlane) -> Result<(), ControlPlaneError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.pending_bytes = 0;
        control.events(std::mem::take(&mut self.pending)).await
    }
}

const fn slot(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// Takes everything out of the strings that a terminal would obey.
pub(crate) fn scrub(value: &mut Value, depth: usize) {
    match value {
        Value::String(text) if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => {
            *text = scrub_terminal(text.as_bytes(), Colours::Remove);
        }
        Value::Array(items) if depth < 64 => items.iter_mut().for_each(|item| scrub(item, depth + 1)),
        Value::Object(fields) if depth < 64 => {
            fields.iter_mut().for_each(|(_, item)| scrub(item, depth + 1));
        }
        Value::Array(_) | Value::Object(_) => *value = Value::String("(nested too deeply)".to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;
    use tipstaff_model::FixedClock;
    use tipstaff_seal::Secret;

    #[derive(Default)]
    struct Heard(Mutex<Vec<Notice>>);

    impl Observer for Heard {
        fn notice(&self, notice: Notice) {
            self.0.lock().unwrap().push(notice);
        }
    }

    /// Tells every line as a piece of one message.
    struct Pieces;

    impl SessionReader for Pieces {
        fn line(&mut self, line: &str) -> Vec<AgentEvent> {
            vec![AgentEvent::Text { text: line.to_owned(), delta: true }]
        }
        fn error_line(&mut self, _line: &str) -> Vec<AgentEvent> {
            Vec::new()
        }
        fn verdict(&mut self, _end: ProcessEnd) -> Verdict {
            Verdict::Done
        }
    }

    const SECRET: &str = "correct-horse-battery-staple";
    const KINDS: [EventKind; 2] = [EventKind::Stdout, EventKind::Stderr];

    fn redactor() -> Redactor {
        Redactor::new().with_values([&Secret::new(SECRET.to_owned())])
    }

    fn everything(session: &Session, heard: &Heard) -> String {
        let stored: Vec<String> = session.pending.iter().map(|event| event.body.to_string()).collect();
        format!("{stored:?}{:?}", heard.0.lock().unwrap())
    }

    proptest! {
        #[test]
        fn a_secret_in_pieces_is_neither_stored_nor_shown(cuts in proptest::collection::vec(1..SECRET.len(), 0..6)) {
            let (heard, clock) = (Heard::default(), FixedClock::at(0));
            let listener = Listener { observer: &heard, clock: &clock };
            let mut session = Session::new(&redactor(), Some(Box::new(Pieces)), 10_000, KINDS);
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.dedup();
            let mut from = 0;
            for cut in cuts.into_iter().chain([SECRET.len()]) {
                session.take(Stream::Stdout, format!("{}\n", &SECRET[from..cut]).as_bytes(), &listener);
                from = cut;
            }
            session.finish(&listener);
            let told: String = heard.0.lock().unwrap().iter().filter_map(|notice| match notice {
                Notice::Agent(event) => match event.as_ref() {
                    AgentEvent::Text { text, .. } => Some(text.clone()),
                    _ => None,
                },
                _ => None,
            }).collect();
            prop_assert!(!told.contains(SECRET), "{}", told);
            prop_assert!(told.contains("redacted"), "{}", told);
        }

        #[test]
        fn any_bytes_are_survived(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20)) {
            let (heard, clock) = (Heard::default(), FixedClock::at(0));
            let listener = Listener { observer: &heard, clock: &clock };
            for reader in [None, Some(Box::new(Pieces) as Box<dyn SessionReader>)] {
                let mut session = Session::new(&redactor(), reader, 500, KINDS);
                for chunk in &chunks {
                    session.take(Stream::Stdout, chunk, &listener);
                    session.take(Stream::Stderr, chunk, &listener);
                }
                session.finish(&listener);
                let sent: usize = chunks.iter().map(|chunk| chunk.len() * 2).sum();
                prop_assert_eq!(session.dropped(), u64::try_from(sent.saturating_sub(500)).unwrap());
            }
        }
    }

    /// Says how it ends with the line `end`; everything else is text.
    #[derive(Default)]
    struct Ends(Option<String>);

    impl SessionReader for Ends {
        fn line(&mut self, line: &str) -> Vec<AgentEvent> {
            self.0 = Some(line.to_owned());
            if line == "end" {
                return vec![AgentEvent::Finished { ok: true, summary: None, turns: None }];
            }
            vec![AgentEvent::Text { text: line.to_owned(), delta: false }]
        }
        fn error_line(&mut self, _line: &str) -> Vec<AgentEvent> {
            Vec::new()
        }
        fn verdict(&mut self, _end: ProcessEnd) -> Verdict {
            if self.0.as_deref() == Some("end") {
                Verdict::Done
            } else {
                Verdict::Failed { why: self.0.take() }
            }
        }
    }

    #[test]
    fn how_an_agent_ended_is_known_beyond_the_bound_and_nothing_else_is_kept() {
        let (heard, clock) = (Heard::default(), FixedClock::at(0));
        let listener = Listener { observer: &heard, clock: &clock };
        for (flood, last, done) in [
            (20_000, "end\n", true),
            (20_000, "end", true),
            (20_000, "end\nmore\n", false),
            (20_000, "e\nnd", false),
            (1, "end\n", true),
            (0, "end", true),
        ] {
            let mut session = Session::new(&redactor(), Some(Box::new(Ends::default())), 20, KINDS);
            session.take(Stream::Stdout, b"kept\nthis lies across the bound\n", &listener);
            for _ in 0..flood {
                session.take(Stream::Stdout, format!("{SECRET} flood\n").as_bytes(), &listener);
            }
            assert!(session.late.bytes.len() <= 2 * LATE && session.late.lost == (flood > 1));
            session.take(Stream::Stdout, last.as_bytes(), &listener);
            session.finish(&listener);
            assert_eq!(session.verdict(ProcessEnd::Exited(0)) == Verdict::Done, done, "{last:?}");
            let all = everything(&session, &heard);
            assert!(all.contains("kept") && all.contains("bytes were dropped"), "{all}");
            assert!(!all.contains("flood") && !all.contains("across"), "{}", all.len());
            assert_eq!(all.contains("finished"), last.starts_with("end"), "{last:?}: {all}");
            heard.0.lock().unwrap().clear();
        }
    }

    #[test]
    fn a_secret_across_chunks_of_plain_output_is_taken_out() {
        let (heard, clock) = (Heard::default(), FixedClock::at(0));
        let listener = Listener { observer: &heard, clock: &clock };
        let mut session = Session::new(&redactor(), None, 10_000, KINDS);
        session.take(Stream::Stdout, b"key: correct-horse-", &listener);
        session.take(Stream::Stderr, b"correct-horse-battery", &listener);
        session.take(Stream::Stdout, b"battery-staple done\n", &listener);
        session.take(Stream::Stderr, b"-staple\n", &listener);
        session.finish(&listener);
        let all = everything(&session, &heard);
        assert!(!all.contains("battery"), "{all}");
        assert!(all.contains("done"), "{all}");
    }
}

//! Usage out of a provider's answer, as it streams by.
//!
//! Promises: every total that the provider repeats counts once; what it reported is never undercut by an estimate; the
//! bytes are looked at and left alone; constant memory, whatever comes.

use super::json_scan::{Scanner, Sink};
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

/// The figures as the provider named them; each the largest that was seen, since totals are repeated as they grow.
#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    input: u64,
    output: u64,
    cached: u64,
    written: u64,
    written_5m: u64,
    written_1h: u64,
    reasoning: u64,
    tool_input: u64,
    total: u64,
}

#[derive(Debug)]
struct Counter {
    api: Api,
    figures: Figures,
    reported: bool,
    finished: bool,
    failed: bool,
    model: Option<String>,
    text: u64,
}

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
            counter: Counter {
                api,
                figures: Figures {
                    input: 0,
                    output: 0,
                    cached: 0,
                    written: 0,
                    written_5m: 0,
                    written_1h: 0,
                    reasoning: 0,
                    tool_input: 0,
                    total: 0,
                },
                reported: false,
                finished: false,
                failed: false,
                model: None,
                text: 0,
            },
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

impl Counter {
    /// The figures in our kinds, which don't overlap.
    fn usage(&self) -> Usage {
        let figures = self.figures;
        match self.api {
            Api::Messages => {
                let written = figures.written.max(figures.written_5m.saturating_add(figures.written_1h));
                Usage {
                    input: figures.input,
                    cache_read: figures.cached,
                    cache_write: written.saturating_sub(figures.written_1h),
                    cache_write_1h: figures.written_1h,
                    output: figures.output,
                    reasoning: figures.reasoning.min(figures.output),
                }
            }
            // Cached and written tokens are inside the input; reasoning is inside the output, except at those servers
            // whose total shows that it is not.
            Api::Responses | Api::ChatCompletions => {
                let cached = figures.cached.min(figures.input);
                let written = figures.written.min(figures.input - cached);
                let output = figures.output.max(figures.total.saturating_sub(figures.input));
                Usage {
                    input: figures.input - cached - written,
                    cache_read: cached,
                    cache_write: written,
                    cache_write_1h: 0,
                    output,
                    reasoning: figures.reasoning.min(output),
                }
            }
            // Cached tokens are inside the prompt; thoughts are outside the candidates.
            Api::GenerateContent => {
                let cached = figures.cached.min(figures.input);
                Usage {
                    input: (figures.input - cached).saturating_add(figures.tool_input),
                    cache_read: cached,
                    cache_write: 0,
                    cache_write_1h: 0,
                    output: figures.output.saturating_add(figures.reasoning),
                    reasoning: figures.reasoning,
                }
            }
        }
    }

    fn slot(&mut self, name: &[u8]) -> Option<&mut u64> {
        let figures = &mut self.figures;
        Some(match (self.api, name) {
            (Api::Messages | Api::Responses, b"input_tokens")
            | (Api::ChatCompletions, b"prompt_tokens")
            | (Api::GenerateContent, b"promptTokenCount") => &mut figures.input,
            (Api::Messages | Api::Responses, b"output_tokens")
            | (Api::ChatCompletions, b"completion_tokens")
            | (Api::GenerateContent, b"candidatesTokenCount") => &mut figures.output,
            (Api::Messages, b"cache_read_input_tokens")
            | (Api::Responses, b"input_tokens_details/cached_tokens")
            | (Api::ChatCompletions, b"prompt_tokens_details/cached_tokens")
            | (Api::GenerateContent, b"cachedContentTokenCount") => &mut figures.cached,
            (Api::Messages, b"cache_creation_input_tokens")
            | (Api::Responses, b"input_tokens_details/cache_write_tokens")
            | (Api::ChatCompletions, b"prompt_tokens_details/cache_write_tokens") => &mut figures.written,
            (Api::Messages, b"cache_creation/ephemeral_5m_input_tokens") => &mut figures.written_5m,
            (Api::Messages, b"cache_creation/ephemeral_1h_input_tokens") => &mut figures.written_1h,
            (Api::Responses, b"output_tokens_details/reasoning_tokens")
            | (Api::ChatCompletions, b"completion_tokens_details/reasoning_tokens")
            | (Api::GenerateContent, b"thoughtsTokenCount") => &mut figures.reasoning,
            (Api::Responses | Api::ChatCompletions, b"total_tokens") => &mut figures.total,
            (Api::GenerateContent, b"toolUsePromptTokenCount") => &mut figures.tool_input,
            _ => return None,
        })
    }

    /// The part of a path within the usage of this answer; a usage that stands anywhere else is content.
    fn within_usage<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        let path = match self.api {
            Api::Messages => path.strip_prefix(b"message/").unwrap_or(path),
            Api::Responses => path.strip_prefix(b"response/").unwrap_or(path),
            Api::ChatCompletions => path,
            Api::GenerateContent => path.strip_prefix(b"[]/").unwrap_or(path),
        };
        match self.api {
            Api::GenerateContent => path.strip_prefix(b"usageMetadata/"),
            _ => path.strip_prefix(b"usage/"),
        }
    }
}

impl Sink for Counter {
    fn number(&mut self, path: &[u8], value: u64) {
        let Some(name) = self.within_usage(path) else { return };
        let final_total = !(self.api == Api::Messages && path.starts_with(b"message/"));
        if let Some(slot) = self.slot(name) {
            *slot = (*slot).max(value);
            // The first event of a message reports its prompt; the answer's figure comes with the last.
            self.reported |= final_total;
        }
    }

    fn text(&mut self, path: &[u8], beginning: &[u8]) {
        match (self.api, path) {
            (Api::Messages, b"message/model" | b"model")
            | (Api::Responses, b"response/model" | b"model")
            | (Api::ChatCompletions, b"model")
            | (Api::GenerateContent, b"modelVersion" | b"[]/modelVersion") => {
                let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/@".contains(b);
                if !beginning.is_empty() && beginning.iter().all(plain) {
                    self.model = Some(String::from_utf8_lossy(beginning).into_owned());
                }
            }
            (_, b"type") => match beginning {
                b"message_stop" if self.api == Api::Messages => self.finished = true,
                b"response.completed" | b"response.incomplete" if self.api == Api::Responses => {
                    self.finished = true;
                }
                b"response.failed" if self.api == Api::Responses => {
                    self.finished = true;
                    self.failed = true;
                }
                b"error" => self.failed = true,
                _ => {}
            },
            (Api::GenerateContent, b"candidates/[]/finishReason" | b"[]/candidates/[]/finishReason") => {
                self.finished = true;
            }
            _ => {}
        }
    }

    fn text_bytes(&mut self, path: &[u8], count: usize) {
        if self.api == Api::Responses {
            // The stream repeats each text several times when it is done.
            if path == b"delta" || path.starts_with(b"output/") {
                self.text = self.text.saturating_add(u64::try_from(count).unwrap_or(0));
            }
            return;
        }
        // The last word of the path says whether this is what the model wrote.
        let name = path.rsplit(|b| *b == b'/').find(|part| *part != b"[]").unwrap_or_default();
        let written: &[&[u8]] = &[
            b"text",
            b"partial_json",
            b"thinking",
            b"delta",
            b"arguments",
            b"content",
            b"refusal",
            b"reasoning",
            b"reasoning_content",
            b"input",
        ];
        if written.contains(&name) {
            self.text = self.text.saturating_add(u64::try_from(count).unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MESSAGES: &str = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"claude-x-1\",\"usage\":",
        "{\"input_tokens\":10,\"cache_creation_input_tokens\":30,\"cache_read_input_tokens\":5,\"cache_creation\":",
        "{\"ephemeral_5m_input_tokens\":10,\"ephemeral_1h_input_tokens\":20},\"output_tokens\":1}}}\n\n",
        ": a comment\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":",
        "\"say \\\"usage\\\": {\\\"output_tokens\\\": 999999}\"}}\n\n",
        "data: {\"type\":\"content_block_start\",\"content_block\":{\"input\":{\"usage\":{\"output_tokens\":777777}}}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":20}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":42}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    const RESPONSES: &str = concat!(
        "data: {\"type\":\"response.created\",\"response\":{\"model\":\"gpt-x\",\"usage\":null}}\n\n",
        "data: {\"type\":\"response.output_text.delta\",\"delta\":\"hello\"}\n\n",
        "data: {\"type\":\"response.completed\",\"response\":{\"model\":\"gpt-x\",\"usage\":{\"input_tokens\":100,",
        "\"input_tokens_details\":{\"cached_tokens\":60},\"output_tokens\":50,\"output_tokens_details\":{\"reasoning_tokens\":40},",
        "\"total_tokens\":150}}}\n\n",
    );
    const CHAT: &str = concat!(
        "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\r\n\r\n",
        "data: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":14,",
        "\"prompt_tokens_details\":{\"cached_tokens\":2}}}\r\n\r\ndata: [DONE]\r\n\r\n",
    );
    const GEMINI: &str = concat!(
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}],\"modelVersion\":\"gemini-x\",",
        "\"usageMetadata\":{\"promptTokenCount\":50,\"candidatesTokenCount\":1,\"thoughtsTokenCount\":9}}\n\n",
        "data: {\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":50,",
        "\"candidatesTokenCount\":4,\"thoughtsTokenCount\":9,\"cachedContentTokenCount\":20,\"totalTokenCount\":63}}\n\n",
    );

    fn metered(api: Api, framing: Framing, text: &[u8], size: usize) -> (Metered, Option<String>, bool) {
        let mut meter = Meter::new(api, framing);
        for chunk in text.chunks(size.max(1)) {
            meter.push(chunk);
        }
        (meter.usage(1_000, u64::MAX), meter.model().map(str::to_owned), meter.is_finished())
    }

    fn cases() -> Vec<(Api, &'static str, Usage)> {
        let usage = |input, cache_read, cache_write, cache_write_1h, output, reasoning| Usage {
            input,
            cache_read,
            cache_write,
            cache_write_1h,
            output,
            reasoning,
        };
        vec![
            (Api::Messages, MESSAGES, usage(10, 5, 10, 20, 42, 0)),
            (Api::Responses, RESPONSES, usage(40, 60, 0, 0, 50, 40)),
            // The total shows four more tokens than prompt and completion: reasoning that was not counted.
            (Api::ChatCompletions, CHAT, usage(5, 2, 0, 0, 7, 0)),
            (Api::GenerateContent, GEMINI, usage(30, 20, 0, 0, 13, 9)),
        ]
    }

    #[test]
    fn each_stream_is_metered_at_every_chunking() {
        for (api, text, usage) in cases() {
            for size in (1..40).chain([usize::MAX]) {
                let (found, model, finished) = metered(api, Framing::Events, text.as_bytes(), size);
                assert_eq!(found, Metered { usage, estimated: false }, "{api:?} by {size}");
                assert!(finished && model.is_some(), "{api:?} by {size}");
            }
        }
    }

    #[test]
    fn whole_documents_are_metered() {
        let messages = r#"{"type":"message","model":"c","content":[{"type":"tool_use","input":{"usage":{"output_tokens":9}}}],
            "usage":{"input_tokens":3,"output_tokens":4}}"#;
        let (found, model, _) = metered(Api::Messages, Framing::Json, messages.as_bytes(), 7);
        assert_eq!((found.usage.input, found.usage.output, found.estimated), (3, 4, false));
        assert_eq!(model.as_deref(), Some("c"));
        let array = r#"[{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":1}},
            {"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":6}}]"#;
        let (found, _, _) = metered(Api::GenerateContent, Framing::Json, array.as_bytes(), 3);
        assert_eq!((found.usage.input, found.usage.output, found.estimated), (5, 6, false));
        let responses = r#"{"object":"response","model":"g","usage":{"input_tokens":8,"output_tokens":2,"total_tokens":10}}"#;
        assert_eq!(metered(Api::Responses, Framing::Json, responses.as_bytes(), 2).0.usage.input, 8);
    }

    #[test]
    fn what_did_not_come_is_estimated_and_never_below_what_did() {
        let half = MESSAGES.split("event: message_delta").next().unwrap();
        let (found, _, finished) = metered(Api::Messages, Framing::Events, half.as_bytes(), 9);
        assert!(found.estimated && !finished);
        assert_eq!((found.usage.input, found.usage.cache_write_1h), (10, 20));
        assert!(found.usage.output >= 10, "{found:?}");
        let (found, _, _) = metered(
            Api::ChatCompletions,
            Framing::Events,
            b"data: {\"choices\":[{\"delta\":{\"content\":\"123456789\"}}]}\n\n",
            5,
        );
        assert_eq!((found.usage.input, found.usage.output, found.estimated), (1_000, 3, true));
    }

    proptest! {
        #[test]
        fn cutting_a_stream_anywhere_never_reports_more_than_all_of_it(which in 0_usize..4, at in 0_usize..2_000, size in 1_usize..64) {
            let (api, text, whole) = cases().swap_remove(which);
            let cut = text.as_bytes().get(..at.min(text.len())).unwrap_or_default();
            let (found, _, _) = metered(api, Framing::Events, cut, size);
            prop_assert!(found.usage.cache_read <= whole.cache_read && found.usage.cache_write_1h <= whole.cache_write_1h);
            // An estimate comes from the text, which is short here.
            prop_assert!(found.usage.output <= whole.output.max(20));
            prop_assert_eq!(&found, &metered(api, Framing::Events, cut, usize::MAX).0);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), which in 0_usize..4, json in any::<bool>()) {
            let api = cases().swap_remove(which).0;
            let framing = if json { Framing::Json } else { Framing::Events };
            let whole = metered(api, framing, &bytes, usize::MAX);
            prop_assert_eq!(metered(api, framing, &bytes, 1), whole);
        }
    }
}

//! The figures of an answer, picked out of its JSON by their place.

use super::Api;
use crate::parse::json_scan::Sink;
use tipstaff_model::Usage;

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

/// What was counted so far.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) api: Api,
    figures: Figures,
    pub(super) reported: bool,
    pub(super) finished: bool,
    pub(super) failed: bool,
    pub(super) model: Option<String>,
    pub(super) text: u64,
}

impl Counter {
    pub(super) const fn new(api: Api) -> Self {
        let figures = Figures {
            input: 0,
            output: 0,
            cached: 0,
            written: 0,
            written_5m: 0,
            written_1h: 0,
            reasoning: 0,
            tool_input: 0,
            total: 0,
        };
        Self { api, figures, reported: false, finished: false, failed: false, model: None, text: 0 }
    }

    /// The figures in our kinds, which don't overlap.
    pub(super) fn usage(&self) -> Usage {
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

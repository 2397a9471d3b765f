//! Which path speaks which language, and the languages under one roof.

use super::conversation::{Conversation, Message, event};
use super::{anthropic, chat, gemini, responses};
use serde_json::Value;

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    /// Anthropic Messages.
    Messages,
    /// OpenAI Responses.
    Responses,
    /// OpenAI Chat Completions.
    Chat,
    /// Gemini.
    Gemini,
}

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// An answer of the model.
    Generate(Api),
    /// A number of tokens.
    Count(Api),
    /// All models, or the one that is named.
    Models(Api, Option<String>),
    /// Whether anybody is there.
    Alive,
    /// Nothing that is served here.
    Unknown,
}

/// Names that clients find when they ask for models.
const MODELS: [&str; 4] = ["scripted-model", "claude-sonnet-4-6", "gpt-5.5", "gemini-2.5-pro"];

impl Route {
    /// A base path before the usual one is no matter. `GET /v1/models` is Anthropic's and OpenAI's; a header decides.
    pub(super) fn of(method: &str, path: &str, has_anthropic_header: bool) -> Self {
        let version_one = if has_anthropic_header { Api::Messages } else { Api::Chat };
        let models = path.split_once("/models").map(|(before, name)| {
            let api = if before.ends_with("beta") { Api::Gemini } else { version_one };
            (api, name.strip_prefix('/').map(str::to_owned))
        });
        match (method, models) {
            ("HEAD", _) => Self::Alive,
            ("GET", _) if path == "/" => Self::Alive,
            ("GET", Some((api, name))) => Self::Models(api, name),
            ("POST", _) if path.ends_with("/messages") => Self::Generate(Api::Messages),
            ("POST", _) if path.ends_with("/messages/count_tokens") => Self::Count(Api::Messages),
            // A GET would go on as a WebSocket; it is told that there is none.
            ("GET" | "POST", _) if path.ends_with("/responses") => Self::Generate(Api::Responses),
            ("POST", _) if path.ends_with("/responses/input_tokens") => Self::Count(Api::Responses),
            ("POST", _) if path.ends_with("/chat/completions") => Self::Generate(Api::Chat),
            ("POST", Some(_)) if path.ends_with(":countTokens") => Self::Count(Api::Gemini),
            ("POST", Some(_)) if path.ends_with("enerateContent") => Self::Generate(Api::Gemini),
            _ => Self::Unknown,
        }
    }

    /// Whose language answers and errors are in.
    pub(super) const fn api(&self) -> Option<Api> {
        match self {
            Self::Generate(api) | Self::Count(api) | Self::Models(api, _) => Some(*api),
            Self::Alive | Self::Unknown => None,
        }
    }
}

impl Api {
    /// The header that holds the key, and what stands before it there.
    pub(super) const fn key_header(self, login: bool) -> (&'static str, &'static str) {
        match self {
            Self::Messages if login => ("authorization", "Bearer "),
            Self::Messages => ("x-api-key", ""),
            Self::Responses | Self::Chat => ("authorization", "Bearer "),
            Self::Gemini => ("x-goog-api-key", ""),
        }
    }

    /// The header that numbers requests.
    pub(super) const fn id_header(self) -> Option<&'static str> {
        match self {
            Self::Messages => Some("request-id"),
            Self::Responses | Self::Chat => Some("x-request-id"),
            Self::Gemini => None,
        }
    }

    /// Reads a request to generate.
    pub(super) fn read(self, path: &str, query: &str, body: &Value) -> Conversation {
        match self {
            Self::Messages => anthropic::read(body),
            Self::Responses => responses::read(body),
            Self::Chat => chat::read(body),
            Self::Gemini => {
                let name = path.rsplit('/').next().unwrap_or_default();
                let (model, method) = name.split_once(':').unwrap_or((name, ""));
                let as_array = !query.split('&').any(|pair| pair == "alt=sse");
                gemini::read(model, method == "streamGenerateContent", as_array, body)
            }
        }
    }

    /// The message as one value.
    pub(super) fn whole(self, message: &Message) -> Value {
        match self {
            Self::Messages => anthropic::whole(message),
            Self::Responses => responses::whole(message),
            Self::Chat => chat::whole(message),
            Self::Gemini => gemini::whole(message),
        }
    }

    /// The message as a stream, a frame per event.
    pub(super) fn frames(self, message: &Message, conversation: &Conversation) -> Vec<String> {
        match self {
            Self::Messages => anthropic::frames(message),
            Self::Responses => responses::frames(message),
            Self::Chat => chat::frames(message, conversation.usage_wanted),
            Self::Gemini => gemini::frames(message, conversation.as_array),
        }
    }

    /// An error as the provider words it.
    pub(super) fn error(self, status: u16, message: &str, retry_after: Option<u64>) -> Value {
        match self {
            Self::Messages => anthropic::error(status, message),
            Self::Responses | Self::Chat => responses::error(status, message),
            Self::Gemini => gemini::error(status, message, retry_after),
        }
    }

    /// An error in the middle of a stream, the last that it has.
    pub(super) fn error_frame(self, status: u16, words: &str, message: &Message, as_array: bool) -> String {
        let error = self.error(status, words, None);
        match self {
            Self::Messages => event(Some("error"), &error.to_string()),
            Self::Responses => responses::failed_frame(message, words),
            Self::Chat | Self::Gemini if !as_array => event(None, &error.to_string()),
            Self::Chat | Self::Gemini => format!("{error}\n]\n"),
        }
    }

    /// A count of tokens.
    pub(super) fn count(self, tokens: u64) -> Value {
        match self {
            Self::Messages => serde_json::json!({ "input_tokens": tokens }),
            Self::Responses | Self::Chat => {
                serde_json::json!({"object": "response.input_tokens", "input_tokens": tokens})
            }
            Self::Gemini => serde_json::json!({ "totalTokens": tokens }),
        }
    }

    /// The models, or one; every name is a model here.
    pub(super) fn models(self, name: Option<&str>) -> Value {
        let names: Vec<&str> = name.map_or_else(|| MODELS.to_vec(), |name| vec![name]);
        let list = match self {
            Self::Messages => anthropic::models(&names),
            Self::Responses | Self::Chat => responses::models(&names),
            Self::Gemini => gemini::models(&names),
        };
        if name.is_none() {
            return list;
        }
        let key = if self == Self::Gemini { "models" } else { "data" };
        list.get(key).and_then(|list| list.get(0)).cloned().unwrap_or_default()
    }
}

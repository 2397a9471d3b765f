//! The body of a model request: what it asks for and what it can cost, and the few changes that a budget asks for.
//!
//! Promises: what is passed on is written anew from what was understood; a name that stands twice, in any spelling that
//! some reader takes for the same, is refused; a request whose prompt is kept at the provider, or that lets the provider
//! choose another model, is refused.

mod fields;
mod hidden;
#[cfg(test)]
mod tests;

use super::meter::Api;
pub(in crate::parse) use fields::Fields;
use fields::number;
pub(in crate::parse) use hidden::depth_within;
use hidden::{blobs, escapes_letters, hides_input, models_of_tools, refuse_kept_prompts};
use memchr::memmem;
use tipstaff_model::{PromptCache, Surcharge};

/// The deepest nesting of a request.
pub const DEEPEST: usize = 256;

/// Why a body was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyProblem {
    /// No JSON object.
    #[error("the body is not one JSON object in UTF-8")]
    Form,
    /// Too deep.
    #[error("the body is nested deeper than {DEEPEST} levels")]
    Depth,
    /// A name stands twice, or in a spelling that another reader takes for the same.
    #[error("'{0}' stands twice in the body, or in an odd spelling")]
    Twice(String),
    /// A field has another type than it must.
    #[error("'{0}' is missing or has the wrong form")]
    Field(&'static str),
    /// A field that is not served.
    #[error("'{0}' is not served: {1}")]
    NotServed(&'static str, &'static str),
}

/// A request that was understood.
#[derive(Debug, Clone)]
pub struct ModelBody<'a> {
    api: Api,
    fields: Fields<'a>,
    model: String,
    other_models: Vec<String>,
    length: usize,
    worst_is_context: bool,
    blobs: u64,
    hour_cache: bool,
}

/// Names that decide about model, money or the way to the answer: only their one spelling is accepted.
const DECIDING: &[&str] = &[
    "model",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "thinking",
    "stream_options",
    "service_tier",
    "speed",
    "inference_geo",
    "previous_response_id",
    "conversation",
    "prompt",
    "background",
    "container",
    "mcp_servers",
    "models",
    "fallbacks",
    "fallback_model",
    "fallback_models",
    "generationConfig",
    "generation_config",
    "cachedContent",
    "cached_content",
    "tools",
];

impl<'a> ModelBody<'a> {
    /// Reads a body. `model` is the one that the path names, if it does.
    ///
    /// # Errors
    /// [`BodyProblem`].
    pub fn parse(api: Api, body: &'a [u8], model: Option<&str>) -> Result<Self, BodyProblem> {
        let text = std::str::from_utf8(body).map_err(|_| BodyProblem::Form)?;
        if !depth_within(body, DEEPEST) {
            return Err(BodyProblem::Depth);
        }
        let fields = Fields::read(text)?;
        fields.exactly(DECIDING)?;
        // What is no object has no names; it is left as it is then.
        if let Some(Ok(options)) = fields.get("stream_options").map(Fields::read) {
            options.exactly(&["include_usage"])?;
        }
        refuse_kept_prompts(api, &fields)?;
        let named = match fields.get("model") {
            Some(raw) => Some(serde_json::from_str::<String>(raw).map_err(|_| BodyProblem::Field("model"))?),
            None => None,
        };
        let model = match (model, named) {
            (Some(path), Some(named)) if named != path && named != format!("models/{path}") => {
                return Err(BodyProblem::Twice("model".to_owned()));
            }
            (Some(path), _) => path.to_owned(),
            (None, Some(named)) => named,
            (None, None) => return Err(BodyProblem::Field("model")),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/@".contains(&b);
        if !(1..=200).contains(&model.len()) || !model.bytes().all(plain) {
            return Err(BodyProblem::Field("model"));
        }
        let other_models = models_of_tools(&fields)?;
        let this = Self {
            api,
            fields,
            model,
            other_models,
            length: body.len(),
            worst_is_context: hides_input(body),
            blobs: blobs(body),
            hour_cache: memmem::find(body, b"1h").is_some() || escapes_letters(body),
        };
        // Whatever is asked of them later was readable now.
        this.answers()?;
        this.most_output()?;
        this.thinking()?;
        Ok(this)
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Further models that tools of the provider would ask.
    #[must_use]
    pub fn other_models(&self) -> &[String] {
        &self.other_models
    }

    /// Whether the answer is to stream, as far as the body says.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.fields.get("stream") == Some("true")
    }

    fn config(&self) -> Result<Option<Fields<'_>>, BodyProblem> {
        if self.api != Api::GenerateContent {
            return Ok(None);
        }
        let raw = self.fields.either("generationConfig", "generation_config");
        let Some(config) = raw.map(Fields::read).transpose()? else { return Ok(None) };
        config.exactly(&["maxOutputTokens", "max_output_tokens", "candidateCount", "candidate_count"])?;
        Ok(Some(config))
    }

    /// How many answers are wanted.
    ///
    /// # Errors
    /// [`BodyProblem`].
    pub fn answers(&self) -> Result<u64, BodyProblem> {
        let count = match self.api {
            Api::ChatCompletions => number(self.fields.get("n"), "n")?,
            Api::GenerateContent => match self.config()? {
                Some(config) => number(config.either("candidateCount", "candidate_count"), "candidateCount")?,
                None => None,
            },
            _ => None,
        };
        Ok(count.unwrap_or(1).clamp(1, 128))
    }

    /// The most tokens of one answer, where the request says it.
    ///
    /// # Errors
    /// [`BodyProblem`].
    pub fn most_output(&self) -> Result<Option<u64>, BodyProblem> {
        match self.api {
            Api::Messages => number(self.fields.get("max_tokens"), "max_tokens"),
            Api::Responses => number(self.fields.get("max_output_tokens"), "max_output_tokens"),
            Api::ChatCompletions => {
                let new = number(self.fields.get("max_completion_tokens"), "max_completion_tokens")?;
                let old = number(self.fields.get("max_tokens"), "max_tokens")?;
                Ok(new.into_iter().chain(old).max())
            }
            Api::GenerateContent => match self.config()? {
                Some(config) => {
                    number(config.either("maxOutputTokens", "max_output_tokens"), "maxOutputTokens")
                }
                None => Ok(None),
            },
        }
    }

    /// Tokens of thinking that are asked for and must be below the most of the answer.
    ///
    /// # Errors
    /// [`BodyProblem`].
    pub fn thinking(&self) -> Result<u64, BodyProblem> {
        let Some(thinking) = self.fields.get("thinking").filter(|_| self.api == Api::Messages) else {
            return Ok(0);
        };
        let thinking = Fields::read(thinking)?;
        thinking.exactly(&["budget_tokens"])?;
        Ok(number(thinking.get("budget_tokens"), "thinking.budget_tokens")?.unwrap_or(0))
    }

    /// What makes the call dearer than the list price.
    #[must_use]
    pub fn surcharges(&self) -> Vec<Surcharge> {
        let text = |name| self.fields.get(name).and_then(|raw| serde_json::from_str::<String>(raw).ok());
        let mut found = Vec::new();
        match text("service_tier").as_deref() {
            None | Some("auto" | "default" | "flex" | "standard_only" | "standard" | "scale" | "batch") => {}
            Some("priority") => found.push(Surcharge::Priority),
            Some(_) => found.push(Surcharge::Ultrafast),
        }
        if text("speed").is_some_and(|speed| speed != "standard") {
            found.push(Surcharge::Fast);
        }
        if text("inference_geo").is_some_and(|place| place != "global") {
            found.push(Surcharge::Us);
        }
        found
    }

    /// Whether parts of the prompt may be written to a cache, and for how long.
    #[must_use]
    pub const fn cache(&self) -> PromptCache {
        match self.api {
            Api::Messages if self.hour_cache => PromptCache::Hour,
            Api::Messages => PromptCache::Minutes,
            _ => PromptCache::Unasked,
        }
    }

    /// The most tokens that the prompt can have: a token has at least one byte. `context` is the model's longest prompt;
    /// it alone bounds a request that refers to things outside of it.
    #[must_use]
    pub fn worst_input(&self, context: u64) -> u64 {
        const UNKNOWN_CONTEXT: u64 = 2_000_000;
        let context = if context == 0 { UNKNOWN_CONTEXT } else { context };
        if self.worst_is_context {
            context
        } else {
            u64::try_from(self.length).unwrap_or(u64::MAX).min(context)
        }
    }

    /// About how many tokens the prompt has, rather too many than too few: two bytes each, images apart.
    #[must_use]
    pub fn likely_input(&self, context: u64) -> u64 {
        let length = u64::try_from(self.length).unwrap_or(u64::MAX);
        let likely = length.saturating_sub(self.blobs).div_ceil(2);
        likely.min(self.worst_input(context))
    }

    /// Lowers the most tokens of one answer.
    pub fn set_most_output(&mut self, tokens: u64, prefers_old_name: bool) {
        let value = tokens.to_string();
        match self.api {
            Api::Messages => self.fields.set("max_tokens", value),
            Api::Responses => self.fields.set("max_output_tokens", value),
            Api::ChatCompletions => {
                let old = self.fields.get("max_tokens").is_some();
                let new = self.fields.get("max_completion_tokens").is_some();
                if old || (!new && prefers_old_name) {
                    self.fields.set("max_tokens", value.clone());
                }
                if new || (!old && !prefers_old_name) {
                    self.fields.set("max_completion_tokens", value);
                }
            }
            Api::GenerateContent => {
                let name = if self.fields.get("generation_config").is_some() {
                    "generation_config"
                } else {
                    "generationConfig"
                };
                let raw = self.fields.get(name).unwrap_or("{}").to_owned();
                let Ok(mut config) = Fields::read(&raw) else { return };
                let field = if config.get("max_output_tokens").is_some() {
                    "max_output_tokens"
                } else {
                    "maxOutputTokens"
                };
                config.set(field, value);
                let text = config.write();
                self.fields.set(name, text);
            }
        }
    }

    /// Asks for another model instead, for an upstream that knows it by another name. Nothing where the path names it.
    pub fn set_model(&mut self, name: &str) {
        if self.fields.get("model").is_some() {
            self.fields.set("model", serde_json::Value::from(name).to_string());
        }
    }

    /// Asks a streaming Chat Completions server for its usage; others report it anyway.
    pub fn ask_for_usage(&mut self) {
        if self.api != Api::ChatCompletions || !self.streams() {
            return;
        }
        let raw = self.fields.get("stream_options").unwrap_or("{}").to_owned();
        let Ok(mut options) = Fields::read(&raw) else { return };
        options.set("include_usage", "true".to_owned());
        let text = options.write();
        self.fields.set("stream_options", text);
    }

    /// The body to be passed on.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        self.fields.write().into_bytes()
    }
}

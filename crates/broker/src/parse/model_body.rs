//! The body of a model request: what it asks for and what it can cost, and the few changes that a budget asks for.
//!
//! Promises: what is passed on is written anew from what was understood; a name that stands twice, in any spelling that
//! some reader takes for the same, is refused; a request whose prompt is kept at the provider, or that lets the provider
//! choose another model, is refused.

use super::meter::Api;
use memchr::memmem;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;
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

/// The fields of a JSON object, in order, each with its value as written.
#[derive(Debug, Clone)]
struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let value: &'de RawValue = map.next_value()?;
            fields.push((Cow::Owned(key), Cow::Borrowed(value.get())));
        }
        Ok(Fields(fields))
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

impl<'a> Fields<'a> {
    fn read(text: &'a str) -> Result<Self, BodyProblem> {
        let fields: Self = serde_json::from_str(text).map_err(|_| BodyProblem::Form)?;
        let mut seen = BTreeSet::new();
        for (name, _) in &fields.0 {
            // Some servers ignore case and underscores in names; letters beyond ASCII fold onto ASCII in some.
            let folded: String = name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect();
            if !name.is_ascii() || !seen.insert(folded) {
                return Err(BodyProblem::Twice(name.chars().filter(|c| !c.is_control()).take(60).collect()));
            }
        }
        Ok(fields)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_ref())
            .filter(|value| *value != "null")
    }

    /// The value under whichever of two spellings is there.
    fn either(&self, camel: &str, snake: &str) -> Option<&str> {
        self.get(camel).or_else(|| self.get(snake))
    }

    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = Cow::Owned(value),
            None => self.0.push((Cow::Owned(name.to_owned()), Cow::Owned(value))),
        }
    }

    fn write(&self) -> String {
        let size: usize = self.0.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        let mut text = String::with_capacity(size + 2);
        text.push('{');
        for (at, (name, value)) in self.0.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            text.push_str(&serde_json::Value::from(name.as_ref()).to_string());
            text.push(':');
            text.push_str(value);
        }
        text.push('}');
        text
    }

    /// Refuses names that mean the same as `name` to a reader that ignores case.
    fn exactly(&self, names: &[&str]) -> Result<(), BodyProblem> {
        for (key, _) in &self.0 {
            if let Some(name) = names.iter().find(|name| name.eq_ignore_ascii_case(key) && **name != key) {
                return Err(BodyProblem::Twice((*name).to_owned()));
            }
        }
        Ok(())
    }
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
        self.fields.either("generationConfig", "generation_config").map(Fields::read).transpose()
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

fn number(raw: Option<&str>, name: &'static str) -> Result<Option<u64>, BodyProblem> {
    raw.map(|raw| serde_json::from_str::<u64>(raw).map_err(|_| BodyProblem::Field(name))).transpose()
}

/// What a request may not ask for: its cost or its content could not be known here.
fn refuse_kept_prompts(api: Api, fields: &Fields<'_>) -> Result<(), BodyProblem> {
    const KEPT: &str = "the whole prompt must be in the request";
    const OTHER: &str = "the request names exactly one model";
    let refused: &[(&'static str, &'static str)] = match api {
        Api::Messages => &[("container", KEPT), ("mcp_servers", "servers are reached through the broker")],
        Api::Responses => &[("previous_response_id", KEPT), ("conversation", KEPT), ("prompt", KEPT)],
        Api::ChatCompletions => &[],
        Api::GenerateContent => &[("cachedContent", KEPT), ("cached_content", KEPT)],
    };
    let everywhere =
        [("models", OTHER), ("fallbacks", OTHER), ("fallback_model", OTHER), ("fallback_models", OTHER)];
    for (name, why) in refused.iter().chain(&everywhere) {
        if fields.get(name).is_some_and(|value| !matches!(value, "[]" | "\"\"" | "false")) {
            return Err(BodyProblem::NotServed(name, why));
        }
    }
    if fields.get("background").is_some_and(|value| value != "false") {
        return Err(BodyProblem::NotServed("background", "an answer is read where it was asked for"));
    }
    Ok(())
}

/// Models that the provider's own tools would ask.
fn models_of_tools(fields: &Fields<'_>) -> Result<Vec<String>, BodyProblem> {
    let Some(tools) = fields.get("tools") else { return Ok(Vec::new()) };
    let tools: Vec<&RawValue> = serde_json::from_str(tools).map_err(|_| BodyProblem::Field("tools"))?;
    let mut found = Vec::new();
    for tool in tools {
        let tool = Fields::read(tool.get()).map_err(|_| BodyProblem::Field("tools"))?;
        tool.exactly(&["model"])?;
        if let Some(raw) = tool.get("model") {
            found.push(serde_json::from_str(raw).map_err(|_| BodyProblem::Field("tools"))?);
        }
    }
    Ok(found)
}

/// Whether a JSON text nests at most `deepest` levels. Doesn't check anything else.
fn depth_within(text: &[u8], deepest: usize) -> bool {
    let (mut depth, mut at) = (0_usize, 0_usize);
    while let Some(byte) = text.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > deepest {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                at += 1;
                while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
                    at += found;
                    if text.get(at) == Some(&b'"') {
                        break;
                    }
                    at += 2;
                }
            }
            _ => {}
        }
        at += 1;
    }
    true
}

/// Whether letters are written as escapes, which could hide a name that is looked for.
fn escapes_letters(body: &[u8]) -> bool {
    memmem::find_iter(body, b"\\u00").any(|at| {
        body.get(at + 4..at + 6)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// Whether a request may refer to input outside of it: files, addresses, the provider's own tools.
fn hides_input(body: &[u8]) -> bool {
    const WORDS: [&[u8]; 12] = [
        b"file_id",
        b"fileUri",
        b"file_uri",
        b"file_url",
        b"\"url\"",
        b"image_url",
        b"\"web_",
        b"google",
        b"url_context",
        b"urlContext",
        b"\"code_",
        b"\"file_search",
    ];
    WORDS.iter().any(|word| memmem::find(body, word).is_some()) || escapes_letters(body)
}

/// Bytes of long unbroken base64, less what an image may count as.
fn blobs(body: &[u8]) -> u64 {
    const LONG: usize = 4096;
    const IMAGE: usize = 16_000;
    let mut sum = 0_usize;
    for text in body.split(|b| *b == b'"' || *b == b',') {
        if text.len() > LONG
            && text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_'))
        {
            sum += text.len().saturating_sub(IMAGE);
        }
    }
    u64::try_from(sum).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(api: Api, text: &str) -> Result<ModelBody<'_>, BodyProblem> {
        ModelBody::parse(api, text.as_bytes(), None)
    }

    #[test]
    fn what_another_reader_may_read_differently_is_refused() {
        for text in [
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a","Model":"b"}"#,
            r#"{"model":"a","mod\u0065l":"b"}"#,
            r#"{"Model":"b"}"#,
            r#"{"model":"a","ｍodel":"b"}"#,
            r#"{"model":"a","max_tokens":1,"max_token\u017f":9}"#,
            r#"{"model":"a","max_tokens":1,"MAX_TOKENS":9}"#,
            r#"{"model":"a","max_tokens":1,"maxTokens":9}"#,
        ] {
            assert!(matches!(of(Api::Messages, text), Err(BodyProblem::Twice(_))), "{text}");
        }
        for text in
            ["", "[]", "{", "{}{}", "{\"model\":\"a\"} x", "\"a\"", "{'model':1}", "{\"model\":\"a\",}"]
        {
            assert_eq!(of(Api::Messages, text).unwrap_err(), BodyProblem::Form, "{text}");
        }
        for text in [
            "{}",
            r#"{"model":1}"#,
            r#"{"model":["a"]}"#,
            r#"{"model":""}"#,
            r#"{"model":"a b"}"#,
            r#"{"model":"a\u0000"}"#,
            r#"{"model":null}"#,
        ] {
            assert_eq!(of(Api::Messages, text).unwrap_err(), BodyProblem::Field("model"), "{text}");
        }
        for text in [
            r#"{"model":"a","max_tokens":-1}"#,
            r#"{"model":"a","max_tokens":"9"}"#,
            r#"{"model":"a","max_tokens":1e3}"#,
        ] {
            assert_eq!(of(Api::Messages, text).unwrap_err(), BodyProblem::Field("max_tokens"), "{text}");
        }
        let deep = format!("{{\"model\":\"a\",\"x\":{}{}}}", "[".repeat(300), "]".repeat(300));
        assert_eq!(of(Api::Messages, &deep).unwrap_err(), BodyProblem::Depth);
        assert!(ModelBody::parse(Api::GenerateContent, br#"{"model":"models/other"}"#, Some("one")).is_err());
        assert!(
            ModelBody::parse(
                Api::GenerateContent,
                br#"{"generationConfig":{},"generation_config":{}}"#,
                Some("one")
            )
            .is_err()
        );
    }

    #[test]
    fn kept_prompts_and_other_models_are_refused() {
        for (api, text) in [
            (Api::Responses, r#"{"model":"a","previous_response_id":"resp_1"}"#),
            (Api::Responses, r#"{"model":"a","conversation":{"id":"c"}}"#),
            (Api::Responses, r#"{"model":"a","prompt":{"id":"p"}}"#),
            (Api::Responses, r#"{"model":"a","background":true}"#),
            (Api::ChatCompletions, r#"{"model":"a","models":["b"]}"#),
            (Api::ChatCompletions, r#"{"model":"a","fallbacks":["b"]}"#),
            (Api::Messages, r#"{"model":"a","mcp_servers":[{"url":"https://evil.test"}]}"#),
            (Api::Messages, r#"{"model":"a","container":"c"}"#),
        ] {
            assert!(matches!(of(api, text), Err(BodyProblem::NotServed(..))), "{text}");
        }
        of(Api::Responses, r#"{"model":"a","previous_response_id":null,"background":false,"prompt":null}"#)
            .unwrap();
        let body = of(Api::Messages, r#"{"model":"a","tools":[{"type":"advisor","model":"b"}]}"#).unwrap();
        assert_eq!(body.other_models(), ["b"]);
    }

    #[test]
    fn the_answer_is_bounded_and_can_be_lowered() {
        let mut body = of(
            Api::Messages,
            r#"{"model":"a","max_tokens":9000,"thinking":{"type":"enabled","budget_tokens":4000}}"#,
        )
        .unwrap();
        assert_eq!((body.most_output().unwrap(), body.thinking().unwrap()), (Some(9000), 4000));
        body.set_most_output(5000, false);
        assert!(String::from_utf8(body.write()).unwrap().contains("\"max_tokens\":5000"));
        let mut body = of(
            Api::ChatCompletions,
            r#"{"model":"a","n":3,"max_tokens":7,"stream":true,"stream_options":{"x":1}}"#,
        )
        .unwrap();
        assert_eq!((body.most_output().unwrap(), body.answers().unwrap()), (Some(7), 3));
        body.set_most_output(5, false);
        body.ask_for_usage();
        assert_eq!(
            String::from_utf8(body.write()).unwrap(),
            r#"{"model":"a","n":3,"max_tokens":5,"stream":true,"stream_options":{"x":1,"include_usage":true}}"#
        );
        let mut body = ModelBody::parse(
            Api::GenerateContent,
            br#"{"generation_config":{"max_output_tokens":99,"candidate_count":2}}"#,
            Some("g"),
        )
        .unwrap();
        assert_eq!((body.most_output().unwrap(), body.answers().unwrap(), body.model()), (Some(99), 2, "g"));
        body.set_most_output(50, false);
        assert_eq!(
            String::from_utf8(body.write()).unwrap(),
            r#"{"generation_config":{"max_output_tokens":50,"candidate_count":2}}"#
        );
    }

    #[test]
    fn the_prompt_is_bounded_by_its_bytes_or_by_the_context() {
        let plain = format!(r#"{{"model":"a","messages":"{}"}}"#, "word ".repeat(100));
        let body = of(Api::Messages, &plain).unwrap();
        assert_eq!(body.worst_input(0), plain.len() as u64);
        assert_eq!(body.worst_input(100), 100);
        assert!(body.likely_input(0) * 2 >= plain.len() as u64 && body.cache() == PromptCache::Minutes);
        for hiding in [
            r#"{"model":"a","x":{"file_id":"f"}}"#,
            r#"{"model":"a","x":{"fil\u0065_id":"f"}}"#,
            r#"{"model":"a","tools":[{"type":"web_search"}]}"#,
        ] {
            assert_eq!(of(Api::Messages, hiding).unwrap().worst_input(200_000), 200_000, "{hiding}");
        }
        let image = format!(r#"{{"model":"a","data":"{}"}}"#, "QUJD".repeat(100_000));
        let body = of(Api::Messages, &image).unwrap();
        assert!(body.likely_input(0) < 9_000 && body.worst_input(0) > 400_000);
        assert_eq!(of(Api::Messages, r#"{"model":"a","ttl":"1h"}"#).unwrap().cache(), PromptCache::Hour);
        assert_eq!(
            of(Api::Responses, r#"{"model":"a","service_tier":"priority"}"#).unwrap().surcharges(),
            [Surcharge::Priority]
        );
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(keys in prop::collection::btree_set("[a-z]{1,8}", 0..8), value in "[ -~]{0,20}") {
            let mut object = serde_json::Map::new();
            for key in &keys {
                object.insert(key.clone(), serde_json::json!({"k": [value.clone(), 1.5, null]}));
            }
            for name in DECIDING {
                object.remove(*name);
            }
            object.insert("model".into(), "m-1".into());
            let text = serde_json::Value::Object(object).to_string();
            let body = of(Api::Messages, &text).unwrap();
            let again: serde_json::Value = serde_json::from_slice(&body.write()).unwrap();
            prop_assert_eq!(again, serde_json::from_str::<serde_json::Value>(&text).unwrap());
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for api in [Api::Messages, Api::Responses, Api::ChatCompletions, Api::GenerateContent] {
                let _ = ModelBody::parse(api, &bytes, None);
            }
        }
    }
}

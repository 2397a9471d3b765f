//! What all four APIs have in common: a conversation that came in, and a message that goes out.

use serde_json::{Map, Value, json};
use tipstaff_model::Usage;

/// What is said to a request for a title, a summary or the like.
pub(super) const SIDE_TEXT: &str = "Scripted change";
/// Characters per piece of a streamed text. Small, so that nothing worth finding stands in one piece.
pub(super) const PIECE: usize = 12;

/// Something that happened in the conversation, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The user's side said this. Results of tools are not in it.
    User(String),
    /// The model called a tool.
    Call,
    /// The model said something and called nothing.
    Said,
}

/// A tool that the client offers.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Tool {
    pub(super) name: String,
    /// JSON schema of its arguments.
    pub(super) schema: Value,
    /// Takes plain text instead of JSON.
    pub(super) free_form: bool,
    /// The group it stands in, which a call has to repeat.
    pub(super) namespace: Option<String>,
}

impl Tool {
    /// Its argument of that name.
    pub(super) fn property(&self, name: &str) -> Option<&Value> {
        self.schema.get("properties")?.get(name)
    }
}

/// A request, read.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Conversation {
    pub(super) model: String,
    pub(super) streaming: bool,
    pub(super) system: String,
    pub(super) events: Vec<Event>,
    pub(super) tools: Vec<Tool>,
    /// The form that the answer must have; an empty schema for any JSON.
    pub(super) schema: Option<Value>,
    pub(super) most_tokens: Option<u64>,
    /// Chat Completions: the stream is to end with token numbers.
    pub(super) usage_wanted: bool,
    /// Gemini: a stream is a JSON array instead of server-sent events.
    pub(super) as_array: bool,
}

/// Words of system prompts that ask for something on the side.
const SIDE_WORDS: [&str; 7] = ["title", "summarize", "summary", "classif", "next speaker", "haiku", "quota"];

impl Conversation {
    /// The answer to a request on the side, if this is one. Work is done with tools; a request without any that wants a
    /// form, one token or a title is not the conversation itself.
    pub(super) fn side_answer(&self) -> Option<String> {
        if !self.tools.is_empty() {
            return None;
        }
        if let Some(schema) = &self.schema {
            return Some(example_of(schema).to_string());
        }
        if self.most_tokens == Some(1) {
            return Some("ok".to_owned());
        }
        let system = self.system.to_lowercase();
        SIDE_WORDS.iter().any(|word| system.contains(word)).then(|| SIDE_TEXT.to_owned())
    }

    /// Brings a text into the form that the client asked for.
    pub(super) fn formed(&self, text: String) -> String {
        match &self.schema {
            Some(schema) if serde_json::from_str::<Value>(&text).is_err() => example_of(schema).to_string(),
            _ => text,
        }
    }
}

/// The smallest value of a schema, with a sensible text wherever one is asked for.
fn example_of(schema: &Value) -> Value {
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    if let Some(first) = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(key)?.get(0)) {
        return example_of(first);
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
        Some(Value::String(kind)) => Some(kind.as_str()),
        _ => None,
    };
    match kind.unwrap_or("object").to_lowercase().as_str() {
        "array" => json!([]),
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        "boolean" => json!(false),
        "null" => Value::Null,
        "string" => json!(SIDE_TEXT),
        _ => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let fields =
                properties.into_iter().flatten().map(|(name, form)| (name.clone(), example_of(form)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}

/// The arguments of a call.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Arguments {
    /// By name.
    Named(Value),
    /// One text.
    Free(String),
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) arguments: Arguments,
}

/// What the model does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    /// Says something and ends its turn.
    Text(String),
    /// Calls a tool.
    Call(Call),
}

/// Token numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figures {
    /// These.
    Exact(Usage),
    /// Values of the wrong type and sign.
    Nonsense,
}

/// A message of the model, before an API gives it a form.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) model: String,
    /// The how manieth answer of the conversation; ids are made of it.
    pub(super) number: usize,
    pub(super) thinking: Option<String>,
    pub(super) reply: Reply,
    pub(super) figures: Figures,
    /// Characters per piece of text.
    pub(super) piece: usize,
}

impl Message {
    /// An id: unique in the conversation, the same every time.
    pub(super) fn id(&self, prefix: &str) -> String {
        format!("{prefix}scripted{:04}", self.number)
    }
}

/// A text in pieces of so many characters; one empty piece for an empty text.
pub(super) fn pieces(text: &str, size: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut length = 0;
    for character in text.chars() {
        if length == size {
            pieces.push(String::new());
            length = 0;
        }
        if let Some(last) = pieces.last_mut() {
            last.push(character);
            length += 1;
        }
    }
    pieces
}

/// The texts of a content that is a text, a part or a list of parts.
pub(super) fn flat(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<String> = parts.iter().map(flat).filter(|text| !text.is_empty()).collect();
            texts.join("\n")
        }
        Value::Object(part) => part.get("text").and_then(Value::as_str).unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

/// A field as a text, or nothing.
pub(super) fn text_at(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The elements of a list in a field.
pub(super) fn list_at<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// One server-sent event.
pub(super) fn event(name: Option<&str>, data: &str) -> String {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_of_characters() {
        assert_eq!(pieces("äöüß", 3), ["äöü", "ß"]);
        assert_eq!(pieces("", 3), [""]);
    }

    #[test]
    fn an_example_satisfies_its_schema() {
        let schema = json!({"type": "OBJECT", "properties": {
            "title": {"type": "string"}, "who": {"type": "string", "enum": ["user", "model"]},
            "list": {"type": ["array", "null"]}, "sure": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}}});
        assert_eq!(
            example_of(&schema),
            json!({"title": SIDE_TEXT, "who": "user", "list": [], "sure": false})
        );
    }
}

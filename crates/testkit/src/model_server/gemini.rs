//! Gemini `generateContent` and `streamGenerateContent`: <https://ai.google.dev/api/generate-content>.

use super::conversation::{
    Arguments, Conversation, Event, Figures, Message, Reply, Tool, event, flat, list_at, pieces, text_at,
};
use serde_json::{Value, json};

/// The model and the method stand in the path: `/v1beta/models/MODEL:METHOD?alt=sse`.
pub(super) fn read(model: &str, streaming: bool, as_array: bool, body: &Value) -> Conversation {
    let mut events = Vec::new();
    for content in list_at(body, "contents") {
        let parts: Vec<&Value> = list_at(content, "parts").collect();
        let texts = || parts.iter().filter_map(|part| part.get("text")).map(flat);
        if text_at(content, "role") == "model" {
            let calls = parts.iter().filter(|part| part.get("functionCall").is_some()).count();
            events.extend(std::iter::repeat_n(Event::Call, calls));
            if calls == 0 && texts().next().is_some() {
                events.push(Event::Said);
            }
        } else if texts().next().is_some() {
            events.push(Event::User(texts().collect::<Vec<_>>().join("\n")));
        }
    }
    let tools =
        list_at(body, "tools").flat_map(|tool| list_at(tool, "functionDeclarations")).map(|function| {
            let schema = function.get("parametersJsonSchema").or_else(|| function.get("parameters"));
            Tool {
                name: text_at(function, "name"),
                schema: schema.cloned().unwrap_or_default(),
                ..Tool::default()
            }
        });
    let settings = body.get("generationConfig").cloned().unwrap_or_default();
    let schema = ["responseJsonSchema", "responseSchema"].iter().find_map(|key| settings.get(key)).cloned();
    let wants_json = text_at(&settings, "responseMimeType") == "application/json";
    let system = body.get("systemInstruction").and_then(|system| system.get("parts"));
    Conversation {
        model: model.to_owned(),
        streaming,
        system: system.map(flat).unwrap_or_default(),
        events,
        tools: tools.collect(),
        schema: schema.or_else(|| wants_json.then(|| json!({}))),
        most_tokens: settings.get("maxOutputTokens").and_then(Value::as_u64),
        as_array,
        ..Conversation::default()
    }
}

fn usage(figures: Figures, finished: bool) -> Value {
    let Figures::Exact(usage) = figures else {
        return json!({"promptTokenCount": -7, "candidatesTokenCount": "many", "totalTokenCount": 1.5,
            "cachedContentTokenCount": null, "thoughtsTokenCount": []});
    };
    // The prompt includes what a cache held; the candidates don't include the thoughts.
    if !finished {
        return json!({"promptTokenCount": usage.prompt(), "totalTokenCount": usage.prompt()});
    }
    json!({
        "promptTokenCount": usage.prompt(),
        "cachedContentTokenCount": usage.cache_read,
        "candidatesTokenCount": usage.output.saturating_sub(usage.reasoning),
        "thoughtsTokenCount": usage.reasoning,
        "totalTokenCount": usage.total(),
    })
}

fn response(message: &Message, parts: &[Value], finished: bool) -> Value {
    let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
    if let (true, Some(fields)) = (finished, candidate.as_object_mut()) {
        fields.insert("finishReason".to_owned(), json!("STOP"));
    }
    json!({"candidates": [candidate], "usageMetadata": usage(message.figures, finished),
        "modelVersion": message.model, "responseId": message.id("")})
}

fn thought(text: &str) -> Value {
    json!({"text": text, "thought": true})
}

fn last_part(message: &Message) -> Value {
    match &message.reply {
        Reply::Text(text) => json!({ "text": text }),
        Reply::Call(call) => {
            let arguments = match &call.arguments {
                Arguments::Named(arguments) => arguments.clone(),
                Arguments::Free(text) => json!({ "input": text }),
            };
            json!({"functionCall": {"name": call.name, "args": arguments}})
        }
    }
}

pub(super) fn whole(message: &Message) -> Value {
    let parts: Vec<Value> =
        message.thinking.iter().map(|text| thought(text)).chain([last_part(message)]).collect();
    response(message, &parts, true)
}

pub(super) fn frames(message: &Message, as_array: bool) -> Vec<String> {
    let mut chunks = Vec::new();
    for piece in message.thinking.iter().flat_map(|text| pieces(text, message.piece)) {
        chunks.push(response(message, &[thought(&piece)], false));
    }
    match &message.reply {
        Reply::Text(text) => {
            for piece in pieces(text, message.piece) {
                chunks.push(response(message, &[json!({ "text": piece })], false));
            }
            chunks.push(response(message, &[json!({"text": ""})], true));
        }
        Reply::Call(_) => chunks.push(response(message, &[last_part(message)], true)),
    }
    if !as_array {
        return chunks.iter().map(|chunk| event(None, &chunk.to_string())).collect();
    }
    let last = chunks.len().saturating_sub(1);
    let mut frames = vec!["[".to_owned()];
    for (number, chunk) in chunks.iter().enumerate() {
        frames.push(format!("{chunk}{}", if number == last { "\n]\n" } else { ",\r\n" }));
    }
    frames
}

pub(super) fn error(status: u16, message: &str, retry_after: Option<u64>) -> Value {
    let name = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        402 => "FAILED_PRECONDITION",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 | 529 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    };
    let mut error = json!({"code": status, "message": message, "status": name});
    if let (Some(seconds), Some(fields)) = (retry_after, error.as_object_mut()) {
        let details = json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{seconds}s")}]);
        fields.insert("details".to_owned(), details);
    }
    json!({ "error": error })
}

pub(super) fn models(names: &[&str]) -> Value {
    let models: Vec<Value> = names.iter().map(|name| model(name)).collect();
    json!({ "models": models })
}

pub(super) fn model(name: &str) -> Value {
    json!({"name": format!("models/{name}"), "displayName": name,
        "supportedGenerationMethods": ["generateContent", "countTokens"]})
}

//! Anthropic Messages: <https://docs.anthropic.com/en/api/messages>, streaming as in
//! <https://docs.anthropic.com/en/docs/build-with-claude/streaming>.

use super::conversation::{
    Arguments, Conversation, Event, Figures, Message, Reply, Tool, event, flat, list_at, pieces, text_at,
};
use serde_json::{Value, json};

pub(super) fn read(body: &Value) -> Conversation {
    let mut events = Vec::new();
    for message in list_at(body, "messages") {
        let content = message.get("content").unwrap_or(&Value::Null);
        let parts = || content.as_array().into_iter().flatten();
        let kind = |part: &Value| text_at(part, "type");
        if text_at(message, "role") == "assistant" {
            let calls = parts().filter(|part| kind(part) == "tool_use").count();
            events.extend(std::iter::repeat_n(Event::Call, calls));
            if calls == 0 {
                events.push(Event::Said);
            }
        } else {
            // What tools gave back is a part of the user's message, and no word of the user's.
            let text = match content {
                Value::Array(_) => {
                    flat(&Value::Array(parts().filter(|part| kind(part) == "text").cloned().collect()))
                }
                other => flat(other),
            };
            events.push(Event::User(text));
        }
    }
    let tools = list_at(body, "tools").map(|tool| Tool {
        name: text_at(tool, "name"),
        schema: tool.get("input_schema").cloned().unwrap_or_default(),
        ..Tool::default()
    });
    let format = body.pointer("/output_config/format").or_else(|| body.get("output_format"));
    Conversation {
        model: text_at(body, "model"),
        streaming: body.get("stream") == Some(&Value::Bool(true)),
        system: body.get("system").map(flat).unwrap_or_default(),
        events,
        tools: tools.collect(),
        schema: format.and_then(|format| format.get("schema")).cloned(),
        most_tokens: body.get("max_tokens").and_then(Value::as_u64),
        ..Conversation::default()
    }
}

fn usage(figures: Figures, finished: bool) -> Value {
    let Figures::Exact(usage) = figures else {
        return json!({"input_tokens": -7, "output_tokens": "many", "cache_read_input_tokens": null,
            "cache_creation_input_tokens": 1.5, "cache_creation": []});
    };
    let thinking = if finished { usage.reasoning } else { 0 };
    json!({
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        // A stream begins with the first token and ends with the sum.
        "output_tokens": if finished { usage.output } else { usage.output.min(1) },
        "output_tokens_details": {"thinking_tokens": thinking},
        "service_tier": "standard",
    })
}

fn blocks(message: &Message) -> Vec<Value> {
    let thinking = message
        .thinking
        .iter()
        .map(|text| json!({"type": "thinking", "thinking": text, "signature": "c2NyaXB0ZWQ="}));
    let last = match &message.reply {
        Reply::Text(text) => json!({"type": "text", "text": text}),
        Reply::Call(call) => {
            let input = match &call.arguments {
                Arguments::Named(input) => input.clone(),
                Arguments::Free(text) => json!({ "input": text }),
            };
            json!({"type": "tool_use", "id": message.id("toolu_"), "name": call.name, "input": input})
        }
    };
    thinking.chain([last]).collect()
}

const fn stop_reason(message: &Message) -> &'static str {
    match message.reply {
        Reply::Text(_) => "end_turn",
        Reply::Call(_) => "tool_use",
    }
}

pub(super) fn whole(message: &Message) -> Value {
    json!({
        "id": message.id("msg_"), "type": "message", "role": "assistant", "model": message.model,
        "content": blocks(message), "stop_reason": stop_reason(message), "stop_sequence": null,
        "usage": usage(message.figures, true),
    })
}

pub(super) fn frames(message: &Message) -> Vec<String> {
    let mut frames = Vec::new();
    let mut add = |name: &str, mut data: Value| {
        if let Some(fields) = data.as_object_mut() {
            fields.insert("type".to_owned(), json!(name));
        }
        frames.push(event(Some(name), &data.to_string()));
    };
    let mut start = whole(message);
    if let Some(fields) = start.as_object_mut() {
        fields.insert("content".to_owned(), json!([]));
        fields.insert("stop_reason".to_owned(), Value::Null);
        fields.insert("usage".to_owned(), usage(message.figures, false));
    }
    add("message_start", json!({ "message": start }));
    add("ping", json!({}));
    for (index, block) in blocks(message).into_iter().enumerate() {
        let mut empty = block.clone();
        let mut deltas = Vec::new();
        match text_at(&block, "type").as_str() {
            "thinking" => {
                for part in pieces(&text_at(&block, "thinking"), message.piece) {
                    deltas.push(json!({"type": "thinking_delta", "thinking": part}));
                }
                deltas.push(json!({"type": "signature_delta", "signature": block.get("signature")}));
                empty = json!({"type": "thinking", "thinking": "", "signature": ""});
            }
            "text" => {
                for part in pieces(&text_at(&block, "text"), message.piece) {
                    deltas.push(json!({"type": "text_delta", "text": part}));
                }
                empty = json!({"type": "text", "text": ""});
            }
            _ => {
                let input = block.get("input").map(Value::to_string).unwrap_or_default();
                for part in pieces(&input, message.piece * 4) {
                    deltas.push(json!({"type": "input_json_delta", "partial_json": part}));
                }
                if let Some(fields) = empty.as_object_mut() {
                    fields.insert("input".to_owned(), json!({}));
                }
            }
        }
        add("content_block_start", json!({"index": index, "content_block": empty}));
        for delta in deltas {
            add("content_block_delta", json!({"index": index, "delta": delta}));
        }
        add("content_block_stop", json!({ "index": index }));
    }
    let delta = json!({"stop_reason": stop_reason(message), "stop_sequence": null});
    add("message_delta", json!({"delta": delta, "usage": usage(message.figures, true)}));
    add("message_stop", json!({}));
    frames
}

pub(super) fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_scripted"})
}

pub(super) fn models(names: &[&str]) -> Value {
    let data: Vec<Value> = names
        .iter()
        .map(|name| {
            json!({"type": "model", "id": name, "display_name": name, "created_at": "2025-01-01T00:00:00Z"})
        })
        .collect();
    json!({"data": data, "has_more": false, "first_id": names.first(), "last_id": names.last()})
}

//! OpenAI Chat Completions: <https://platform.openai.com/docs/api-reference/chat>, the language of most compatible servers.

use super::conversation::{
    Arguments, Conversation, Event, Figures, Message, Reply, Tool, event, flat, list_at, pieces, text_at,
};
use super::responses::CREATED;
use serde_json::{Value, json};

pub(super) fn read(body: &Value) -> Conversation {
    let mut events = Vec::new();
    let mut system = String::new();
    for message in list_at(body, "messages") {
        let content = message.get("content").map(flat).unwrap_or_default();
        match text_at(message, "role").as_str() {
            "user" => events.push(Event::User(content)),
            "assistant" => {
                let calls = list_at(message, "tool_calls").count();
                events.extend(std::iter::repeat_n(Event::Call, calls));
                if calls == 0 {
                    events.push(Event::Said);
                }
            }
            "system" | "developer" => {
                system.push('\n');
                system.push_str(&content);
            }
            _ => {}
        }
    }
    let tools = list_at(body, "tools").filter_map(|tool| tool.get("function")).map(|function| Tool {
        name: text_at(function, "name"),
        schema: function.get("parameters").cloned().unwrap_or_default(),
        ..Tool::default()
    });
    let format = body.get("response_format").map(|format| text_at(format, "type")).unwrap_or_default();
    let most = body.get("max_completion_tokens").or_else(|| body.get("max_tokens"));
    Conversation {
        model: text_at(body, "model"),
        streaming: body.get("stream") == Some(&Value::Bool(true)),
        system,
        events,
        tools: tools.collect(),
        schema: match format.as_str() {
            "json_schema" => body.pointer("/response_format/json_schema/schema").cloned(),
            "json_object" => Some(json!({})),
            _ => None,
        },
        most_tokens: most.and_then(Value::as_u64),
        usage_wanted: body.pointer("/stream_options/include_usage") == Some(&Value::Bool(true)),
        ..Conversation::default()
    }
}

fn usage(figures: Figures) -> Value {
    let Figures::Exact(usage) = figures else {
        return json!({"prompt_tokens": -7, "completion_tokens": "many", "total_tokens": 1.5,
            "prompt_tokens_details": [], "completion_tokens_details": null});
    };
    json!({
        "prompt_tokens": usage.prompt(),
        "completion_tokens": usage.output,
        "total_tokens": usage.total(),
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write + usage.cache_write_1h,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    })
}

const fn finish_reason(message: &Message) -> &'static str {
    match message.reply {
        Reply::Text(_) => "stop",
        Reply::Call(_) => "tool_calls",
    }
}

fn call_id_name_arguments(message: &Message) -> Option<(String, String, String)> {
    let Reply::Call(call) = &message.reply else { return None };
    let arguments = match &call.arguments {
        Arguments::Named(arguments) => arguments.to_string(),
        Arguments::Free(text) => json!({ "input": text }).to_string(),
    };
    Some((message.id("call_"), call.name.clone(), arguments))
}

pub(super) fn whole(message: &Message) -> Value {
    let mut said = json!({"role": "assistant", "content": null, "refusal": null});
    if let Some(fields) = said.as_object_mut() {
        if let Reply::Text(text) = &message.reply {
            fields.insert("content".to_owned(), json!(text));
        }
        if let Some((id, name, arguments)) = call_id_name_arguments(message) {
            let function = json!({"name": name, "arguments": arguments});
            let calls = json!([{"id": id, "type": "function", "function": function}]);
            fields.insert("tool_calls".to_owned(), calls);
        }
        if let Some(thinking) = &message.thinking {
            fields.insert("reasoning_content".to_owned(), json!(thinking));
        }
    }
    json!({
        "id": message.id("chatcmpl-"), "object": "chat.completion", "created": CREATED, "model": message.model,
        "choices": [{"index": 0, "message": said, "logprobs": null, "finish_reason": finish_reason(message)}],
        "usage": usage(message.figures),
    })
}

/// Token numbers come at the end, and only for those who asked for them.
pub(super) fn frames(message: &Message, usage_wanted: bool) -> Vec<String> {
    let chunk = |choices: Value, figures: Option<Value>| {
        let mut chunk = json!({"id": message.id("chatcmpl-"), "object": "chat.completion.chunk",
            "created": CREATED, "model": message.model, "choices": choices});
        if let (true, Some(fields)) = (usage_wanted, chunk.as_object_mut()) {
            fields.insert("usage".to_owned(), figures.unwrap_or_default());
        }
        event(None, &chunk.to_string())
    };
    let delta = |delta: Value, reason: Option<&str>| {
        chunk(json!([{"index": 0, "delta": delta, "finish_reason": reason}]), None)
    };
    let mut frames = vec![delta(json!({"role": "assistant", "content": ""}), None)];
    for piece in message.thinking.iter().flat_map(|text| pieces(text, message.piece)) {
        frames.push(delta(json!({ "reasoning_content": piece }), None));
    }
    if let Reply::Text(text) = &message.reply {
        for piece in pieces(text, message.piece) {
            frames.push(delta(json!({ "content": piece }), None));
        }
    }
    if let Some((id, name, arguments)) = call_id_name_arguments(message) {
        let begun = json!({"index": 0, "id": id, "type": "function",
            "function": {"name": name, "arguments": ""}});
        frames.push(delta(json!({ "tool_calls": [begun] }), None));
        for piece in pieces(&arguments, message.piece * 4) {
            let more = json!({"index": 0, "function": {"arguments": piece}});
            frames.push(delta(json!({ "tool_calls": [more] }), None));
        }
    }
    frames.push(delta(json!({}), Some(finish_reason(message))));
    if usage_wanted {
        frames.push(chunk(json!([]), Some(usage(message.figures))));
    }
    frames.push(event(None, "[DONE]"));
    frames
}

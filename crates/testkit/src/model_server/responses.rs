//! OpenAI Responses: <https://platform.openai.com/docs/api-reference/responses>.

use super::conversation::{
    Arguments, Conversation, Event, Figures, Message, Reply, Tool, event, flat, list_at, pieces, text_at,
};
use serde_json::{Value, json};

/// The moment at which everything here was made.
pub(super) const CREATED: u64 = 1_750_000_000;

pub(super) fn read(body: &Value) -> Conversation {
    let mut events = Vec::new();
    let mut system = text_at(body, "instructions");
    match body.get("input") {
        Some(Value::String(text)) => events.push(Event::User(text.clone())),
        _ => {
            for item in list_at(body, "input") {
                let content = item.get("content").map(flat).unwrap_or_default();
                match (text_at(item, "type").as_str(), text_at(item, "role").as_str()) {
                    ("function_call" | "custom_tool_call" | "local_shell_call", _) => {
                        events.push(Event::Call);
                    }
                    ("" | "message", "user") => events.push(Event::User(content)),
                    ("" | "message", "assistant") => events.push(Event::Said),
                    ("" | "message", "system" | "developer") => {
                        system.push('\n');
                        system.push_str(&content);
                    }
                    _ => {}
                }
            }
        }
    }
    let mut tools = Vec::new();
    for tool in list_at(body, "tools") {
        match text_at(tool, "type").as_str() {
            "namespace" => {
                let namespace = Some(text_at(tool, "name"));
                tools.extend(
                    list_at(tool, "tools")
                        .map(|tool| Tool { namespace: namespace.clone(), ..one_tool(tool) }),
                );
            }
            "function" | "custom" => tools.push(one_tool(tool)),
            // The provider's own ones have no name but their type.
            kind => tools.push(Tool { name: kind.to_owned(), ..Tool::default() }),
        }
    }
    let format = body.pointer("/text/format");
    let named = |name: &str| format.filter(|format| text_at(format, "type") == name);
    Conversation {
        model: text_at(body, "model"),
        streaming: body.get("stream") == Some(&Value::Bool(true)),
        system,
        events,
        tools,
        schema: named("json_schema")
            .map(|format| format.get("schema").cloned().unwrap_or_default())
            .or_else(|| named("json_object").map(|_| json!({}))),
        most_tokens: body.get("max_output_tokens").and_then(Value::as_u64),
        ..Conversation::default()
    }
}

fn one_tool(tool: &Value) -> Tool {
    Tool {
        name: text_at(tool, "name"),
        schema: tool.get("parameters").cloned().unwrap_or_default(),
        free_form: text_at(tool, "type") == "custom",
        namespace: None,
    }
}

fn usage(figures: Figures) -> Value {
    let Figures::Exact(usage) = figures else {
        return json!({"input_tokens": -7, "input_tokens_details": [], "output_tokens": "many",
            "output_tokens_details": null, "total_tokens": 1.5});
    };
    // Here the input is all of the prompt, whatever a cache did with it.
    json!({
        "input_tokens": usage.prompt(),
        "input_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write + usage.cache_write_1h,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total(),
    })
}

fn reasoning(message: &Message) -> Option<Value> {
    let text = message.thinking.as_ref()?;
    Some(json!({"type": "reasoning", "id": message.id("rs_"),
        "summary": [{"type": "summary_text", "text": text}]}))
}

fn item(message: &Message) -> Value {
    match &message.reply {
        Reply::Text(text) => json!({"type": "message", "id": message.id("msg_"), "role": "assistant",
            "status": "completed", "content": [{"type": "output_text", "text": text, "annotations": []}]}),
        Reply::Call(call) => {
            let (kind, prefix, field, text) = match &call.arguments {
                Arguments::Named(arguments) => ("function_call", "fc_", "arguments", arguments.to_string()),
                Arguments::Free(text) => ("custom_tool_call", "ctc_", "input", text.clone()),
            };
            let mut item = json!({"type": kind, "id": message.id(prefix), "call_id": message.id("call_"),
                "name": call.name, "status": "completed", field: text});
            if let (Some(namespace), Some(fields)) = (&call.namespace, item.as_object_mut()) {
                fields.insert("namespace".to_owned(), json!(namespace));
            }
            item
        }
    }
}

fn response(message: &Message, finished: bool) -> Value {
    let output: Vec<Value> =
        if finished { reasoning(message).into_iter().chain([item(message)]).collect() } else { Vec::new() };
    json!({
        "id": message.id("resp_"), "object": "response", "created_at": CREATED, "model": message.model,
        "status": if finished { "completed" } else { "in_progress" }, "output": output,
        "usage": if finished { usage(message.figures) } else { Value::Null },
        "error": null, "incomplete_details": null, "instructions": null, "metadata": {},
        "parallel_tool_calls": false, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": [],
    })
}

pub(super) fn whole(message: &Message) -> Value {
    response(message, true)
}

pub(super) fn frames(message: &Message) -> Vec<String> {
    let mut frames = Vec::new();
    let mut add = |name: &str, mut data: Value| {
        if let Some(fields) = data.as_object_mut() {
            fields.insert("type".to_owned(), json!(name));
            fields.insert("sequence_number".to_owned(), json!(frames.len()));
        }
        frames.push(event(Some(name), &data.to_string()));
    };
    add("response.created", json!({ "response": response(message, false) }));
    add("response.in_progress", json!({ "response": response(message, false) }));
    let mut index = 0;
    if let (Some(thought), Some(text)) = (reasoning(message), &message.thinking) {
        let id = message.id("rs_");
        let empty = json!({"type": "reasoning", "id": id, "summary": []});
        let part = |text: &str| json!({"type": "summary_text", "text": text});
        add("response.output_item.added", json!({"output_index": 0, "item": empty}));
        let place = |field: &str, value: Value| json!({"item_id": id, "output_index": 0, "summary_index": 0, field: value});
        add("response.reasoning_summary_part.added", place("part", part("")));
        for piece in pieces(text, message.piece) {
            add("response.reasoning_summary_text.delta", place("delta", json!(piece)));
        }
        add("response.reasoning_summary_text.done", place("text", json!(text)));
        add("response.reasoning_summary_part.done", place("part", part(text)));
        add("response.output_item.done", json!({"output_index": 0, "item": thought}));
        index = 1;
    }
    let item = item(message);
    let id = text_at(&item, "id");
    let place = |field: &str, value: Value| json!({"item_id": id, "output_index": index, field: value});
    let in_text = |field: &str, value: Value| json!({"item_id": id, "output_index": index, "content_index": 0, field: value});
    let begun = |field: &str, value: Value| {
        let mut begun = item.clone();
        if let Some(fields) = begun.as_object_mut() {
            fields.insert("status".to_owned(), json!("in_progress"));
            fields.insert(field.to_owned(), value);
        }
        json!({"output_index": index, "item": begun})
    };
    match &message.reply {
        Reply::Text(text) => {
            let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
            add("response.output_item.added", begun("content", json!([])));
            add("response.content_part.added", in_text("part", part("")));
            for piece in pieces(text, message.piece) {
                add("response.output_text.delta", in_text("delta", json!(piece)));
            }
            add("response.output_text.done", in_text("text", json!(text)));
            add("response.content_part.done", in_text("part", part(text)));
        }
        Reply::Call(call) => {
            let (field, text, name) = match &call.arguments {
                Arguments::Named(arguments) => {
                    ("arguments", arguments.to_string(), "response.function_call_arguments")
                }
                Arguments::Free(text) => ("input", text.clone(), "response.custom_tool_call_input"),
            };
            add("response.output_item.added", begun(field, json!("")));
            for piece in pieces(&text, message.piece * 4) {
                add(&format!("{name}.delta"), place("delta", json!(piece)));
            }
            add(&format!("{name}.done"), place(field, json!(text)));
        }
    }
    add("response.output_item.done", json!({"output_index": index, "item": item}));
    add("response.completed", json!({ "response": response(message, true) }));
    frames
}

/// How a stream ends that failed after its beginning. It tells no tokens.
pub(super) fn failed_frame(message: &Message, words: &str) -> String {
    let mut response = response(message, false);
    if let Some(fields) = response.as_object_mut() {
        fields.insert("status".to_owned(), json!("failed"));
        fields.insert("error".to_owned(), json!({"code": "server_error", "message": words}));
    }
    let name = "response.failed";
    event(Some(name), &json!({"type": name, "response": response}).to_string())
}

/// The form of errors of both of OpenAI's APIs.
pub(super) fn error(status: u16, message: &str) -> Value {
    let (kind, code) = match status {
        400 | 404 | 413 => ("invalid_request_error", None),
        401 => ("invalid_request_error", Some("invalid_api_key")),
        402 => ("insufficient_quota", Some("insufficient_quota")),
        403 => ("permission_error", Some("permission_denied")),
        429 => ("requests", Some("rate_limit_exceeded")),
        _ => ("server_error", None),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

pub(super) fn models(names: &[&str]) -> Value {
    let data: Vec<Value> = names
        .iter()
        .map(|name| json!({"id": name, "object": "model", "created": CREATED, "owned_by": "script"}))
        .collect();
    json!({"object": "list", "data": data})
}

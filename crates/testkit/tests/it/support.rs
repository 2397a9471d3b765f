//! A client that knows just enough HTTP, and says how an answer ended.

use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Everything that a test waits for comes long before.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
    /// All of the announced length, or the last chunk, was there.
    pub(crate) whole: bool,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The data of all server-sent events.
    pub(crate) fn events(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

/// Sends a request and leaves the answer to the caller.
pub(crate) fn open(address: SocketAddr, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = body.len();
    let request =
        format!("{head}\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Sends a request and reads until the connection ends.
pub(crate) fn ask(address: SocketAddr, head: &str, body: &str) -> Reply {
    let mut bytes = Vec::new();
    let mut stream = open(address, head, body);
    let ended = stream.read_to_end(&mut bytes);
    assert!(ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
    parse(&bytes)
}

pub(crate) fn parse(bytes: &[u8]) -> Reply {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("no head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let (first, headers) = head.split_once("\r\n").unwrap();
    let status = first.split(' ').nth(1).unwrap().parse().unwrap();
    let rest = &bytes[end + 4..];
    let (body, whole) = if headers.contains("transfer-encoding: chunked") {
        unchunked(rest)
    } else {
        let length = headers
            .split("content-length: ")
            .nth(1)
            .map_or(0, |text| text.split("\r\n").next().unwrap().parse::<usize>().unwrap());
        (rest.to_vec(), rest.len() == length)
    };
    Reply { status, headers: headers.to_owned(), body: String::from_utf8(body).unwrap(), whole }
}

fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else { return (body, false) };
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            return (body, true);
        }
        if rest.len() < size + 2 {
            body.extend_from_slice(rest);
            return (body, false);
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

/// One of the four languages, as its clients speak it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Messages,
    Responses,
    Chat,
    Gemini,
}

pub(crate) const ALL: [Api; 4] = [Api::Messages, Api::Responses, Api::Chat, Api::Gemini];

impl Api {
    pub(crate) const fn path(self, streaming: bool) -> &'static str {
        match (self, streaming) {
            (Self::Messages, _) => "/v1/messages",
            (Self::Responses, _) => "/v1/responses",
            (Self::Chat, _) => "/v1/chat/completions",
            (Self::Gemini, true) => "/v1beta/models/m-1:streamGenerateContent?alt=sse",
            (Self::Gemini, false) => "/v1beta/models/m-1:generateContent",
        }
    }

    pub(crate) fn key_header(self, key: &str) -> String {
        match self {
            Self::Messages => format!("x-api-key: {key}"),
            Self::Responses | Self::Chat => format!("authorization: Bearer {key}"),
            Self::Gemini => format!("x-goog-api-key: {key}"),
        }
    }

    /// The head of a request with a key.
    pub(crate) fn head(self, streaming: bool, key: &str) -> String {
        format!("POST {} HTTP/1.1\r\n{}", self.path(streaming), self.key_header(key))
    }

    /// A request of a client with a tool for commands and one for files.
    pub(crate) fn request(self, prompt: &str, streaming: bool) -> Value {
        let command = json!({"type": "object", "properties": {"command": {"type": "string"}}});
        let file = json!({"type": "object",
            "properties": {"file_path": {"type": "string"}, "content": {"type": "string"}}});
        match self {
            Self::Messages => json!({"model": "m-1", "max_tokens": 1000, "stream": streaming,
                "messages": [{"role": "user", "content": prompt}],
                "tools": [{"name": "Bash", "input_schema": command}, {"name": "Write", "input_schema": file}]}),
            Self::Responses => json!({"model": "m-1", "stream": streaming,
                "input": [{"role": "user", "content": [{"type": "input_text", "text": prompt}]}],
                "tools": [{"type": "function", "name": "exec_command", "parameters": command},
                    {"type": "custom", "name": "apply_patch"}]}),
            Self::Chat => {
                json!({"model": "m-1", "stream": streaming, "stream_options": {"include_usage": true},
                "messages": [{"role": "user", "content": prompt}],
                "tools": [{"type": "function", "function": {"name": "bash", "parameters": command}},
                    {"type": "function", "function": {"name": "write", "parameters": file}}]})
            }
            Self::Gemini => json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}],
                "tools": [{"functionDeclarations": [
                    {"name": "run_shell_command", "parametersJsonSchema": command},
                    {"name": "write_file", "parametersJsonSchema": file}]}]}),
        }
    }

    /// The request that follows: the whole answer and the result of its call, if it made one.
    pub(crate) fn follow(self, mut request: Value, answer: &Value) -> Value {
        let add = |request: &mut Value, list: &str, values: Vec<Value>| {
            request[list].as_array_mut().unwrap().extend(values);
        };
        match self {
            Self::Messages => {
                let result = json!({"type": "tool_result", "tool_use_id": "x", "content": "ok"});
                let turns = vec![
                    json!({"role": "assistant", "content": answer["content"]}),
                    json!({"role": "user", "content": [result]}),
                ];
                add(&mut request, "messages", turns);
            }
            Self::Responses => {
                let mut items = answer["output"].as_array().unwrap().clone();
                items.push(json!({"type": "function_call_output", "call_id": "x", "output": "ok"}));
                add(&mut request, "input", items);
            }
            Self::Chat => {
                let turns = vec![
                    answer["choices"][0]["message"].clone(),
                    json!({"role": "tool", "tool_call_id": "x", "content": "ok"}),
                ];
                add(&mut request, "messages", turns);
            }
            Self::Gemini => {
                let result = json!({"functionResponse": {"name": "x", "response": {"output": "ok"}}});
                let turns = vec![
                    answer["candidates"][0]["content"].clone(),
                    json!({"role": "user", "parts": [result]}),
                ];
                add(&mut request, "contents", turns);
            }
        }
        request
    }

    /// What the answer does: the text, or the name of the tool with its arguments.
    pub(crate) fn deed(self, answer: &Value) -> String {
        let call = |name: &Value, arguments: &Value| match arguments {
            Value::String(text) => format!("{} {text}", name.as_str().unwrap()),
            other => format!("{} {other}", name.as_str().unwrap()),
        };
        match self {
            Self::Messages => {
                let block = answer["content"].as_array().unwrap().last().unwrap();
                block["text"].as_str().map_or_else(|| call(&block["name"], &block["input"]), str::to_owned)
            }
            Self::Responses => {
                let item = answer["output"].as_array().unwrap().last().unwrap();
                match item["type"].as_str().unwrap() {
                    "message" => item["content"][0]["text"].as_str().unwrap().to_owned(),
                    "custom_tool_call" => call(&item["name"], &item["input"]),
                    _ => call(&item["name"], &item["arguments"]),
                }
            }
            Self::Chat => {
                let message = &answer["choices"][0]["message"];
                let function = &message["tool_calls"][0]["function"];
                let text = message["content"].as_str().map(str::to_owned);
                text.unwrap_or_else(|| call(&function["name"], &function["arguments"]))
            }
            Self::Gemini => {
                let part = answer["candidates"][0]["content"]["parts"].as_array().unwrap().last().unwrap();
                let function = &part["functionCall"];
                let text = part["text"].as_str().map(str::to_owned);
                text.unwrap_or_else(|| call(&function["name"], &function["args"]))
            }
        }
    }

    /// All text of a stream, put together.
    pub(crate) fn streamed_text(self, reply: &Reply) -> String {
        let place = match self {
            Self::Messages => "/delta/text",
            Self::Responses => "/delta",
            Self::Chat => "/choices/0/delta/content",
            Self::Gemini => "/candidates/0/content/parts/0/text",
        };
        let text = |event: &Value| event.pointer(place).and_then(Value::as_str).map(str::to_owned);
        reply.events().iter().filter_map(text).collect()
    }

    /// Where the token numbers stand in a whole answer: input, read from a cache, output.
    pub(crate) const fn usage_places(self) -> [&'static str; 3] {
        match self {
            Self::Messages => {
                ["/usage/input_tokens", "/usage/cache_read_input_tokens", "/usage/output_tokens"]
            }
            Self::Responses => {
                ["/usage/input_tokens", "/usage/input_tokens_details/cached_tokens", "/usage/output_tokens"]
            }
            Self::Chat => [
                "/usage/prompt_tokens",
                "/usage/prompt_tokens_details/cached_tokens",
                "/usage/completion_tokens",
            ],
            Self::Gemini => [
                "/usageMetadata/promptTokenCount",
                "/usageMetadata/cachedContentTokenCount",
                "/usageMetadata/candidatesTokenCount",
            ],
        }
    }
}

//! The body of a request to an endpoint of the Model Context Protocol (JSON-RPC 2.0): which methods and tools it calls.
//!
//! Promises: what is passed on is written anew from what was understood; a name that stands twice, in any spelling that
//! some reader takes for the same, is refused; each call of a batch is told apart.

use super::model_body::{BodyProblem, Fields, depth_within};
use serde_json::value::RawValue;

/// The deepest nesting of a body.
pub const DEEPEST: usize = 128;

/// The most calls of one batch.
pub const MOST_CALLS: usize = 100;

/// The method that calls a tool.
pub const TOOLS_CALL: &str = "tools/call";

/// One message: a call, a notification, or an answer to a question of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcMessage {
    /// The id as it was written; `None` for a notification.
    pub id: Option<String>,
    /// The method; `None` for an answer.
    pub method: Option<String>,
    /// The tool, where one is called.
    pub tool: Option<String>,
}

impl RpcMessage {
    /// Whether the method may be used where only named tools are granted: whatever opens, keeps and ends a session, tells
    /// what there is, or calls a tool, which is judged by its name.
    #[must_use]
    pub fn is_served(&self) -> bool {
        const SERVED: [&str; 15] = [
            "initialize",
            "ping",
            "server/discover",
            TOOLS_CALL,
            "tools/list",
            "resources/list",
            "resources/templates/list",
            "prompts/list",
            "logging/setLevel",
            "completion/complete",
            "tasks/get",
            "tasks/result",
            "tasks/list",
            "tasks/cancel",
            "tasks/update",
        ];
        self.method
            .as_deref()
            .is_none_or(|method| SERVED.contains(&method) || method.starts_with("notifications/"))
    }
}

/// A body that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcBody {
    /// The messages, in order; at least one.
    pub messages: Vec<RpcMessage>,
    /// Whether they came in an array.
    pub batch: bool,
    /// The body to be passed on.
    pub text: Vec<u8>,
}

impl RpcBody {
    /// Reads a body.
    ///
    /// # Errors
    /// [`BodyProblem`].
    pub fn parse(body: &[u8]) -> Result<Self, BodyProblem> {
        let text = std::str::from_utf8(body).map_err(|_| BodyProblem::Form)?;
        if !depth_within(body, DEEPEST) {
            return Err(BodyProblem::Depth);
        }
        if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('[') {
            let (message, text) = message(text)?;
            return Ok(Self { messages: vec![message], batch: false, text: text.into_bytes() });
        }
        let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| BodyProblem::Form)?;
        if items.is_empty() || items.len() > MOST_CALLS {
            return Err(BodyProblem::Field("batch"));
        }
        let read: Vec<(RpcMessage, String)> =
            items.iter().map(|item| message(item.get())).collect::<Result<_, _>>()?;
        let (messages, texts): (Vec<_>, Vec<_>) = read.into_iter().unzip();
        Ok(Self { messages, batch: true, text: format!("[{}]", texts.join(",")).into_bytes() })
    }
}

fn message(text: &str) -> Result<(RpcMessage, String), BodyProblem> {
    let mut fields = Fields::read(text)?;
    fields.exactly(&["jsonrpc", "id", "method", "params", "result", "error"])?;
    if fields.get("jsonrpc") != Some("\"2.0\"") {
        return Err(BodyProblem::Field("jsonrpc"));
    }
    let id = match fields.get("id") {
        // A number is passed on as it is written; a text is written anew.
        Some(raw) if raw.starts_with('"') => Some(serde_json::Value::from(string(raw, "id")?).to_string()),
        Some(raw) if raw.starts_with(|c: char| c.is_ascii_digit() || c == '-') => Some(raw.to_owned()),
        Some(_) => return Err(BodyProblem::Field("id")),
        None => None,
    };
    let Some(method) = fields.get("method") else {
        // An answer has one of the two; anything else is no message.
        let is_answer = id.is_some() && (fields.get("result").is_some() != fields.get("error").is_some());
        let message = RpcMessage { id, method: None, tool: None };
        return if is_answer { Ok((message, fields.write())) } else { Err(BodyProblem::Field("method")) };
    };
    let method = string(method, "method")?;
    if fields.get("result").is_some() || fields.get("error").is_some() {
        return Err(BodyProblem::Field("method"));
    }
    fields.set("method", serde_json::Value::from(method.as_str()).to_string());
    let mut tool = None;
    if method.eq_ignore_ascii_case(TOOLS_CALL) {
        let raw = fields.get("params").ok_or(BodyProblem::Field("params"))?.to_owned();
        let mut params = Fields::read(&raw)?;
        params.exactly(&["name", "arguments"])?;
        let name = string(params.get("name").ok_or(BodyProblem::Field("name"))?, "name")?;
        params.set("name", serde_json::Value::from(name.as_str()).to_string());
        let written = params.write();
        fields.set("params", written);
        tool = Some(name);
    }
    Ok((RpcMessage { id, method: Some(method), tool }, fields.write()))
}

fn string(raw: &str, name: &'static str) -> Result<String, BodyProblem> {
    serde_json::from_str(raw).map_err(|_| BodyProblem::Field(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Result<RpcBody, BodyProblem> {
        RpcBody::parse(text.as_bytes())
    }

    #[test]
    fn calls_are_told_apart_whatever_their_spelling() {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools\/call","params":{"n\u0061me":"sear\u0063h","arguments":{"q":"\ud83d\ude00"}}}"#;
        let body = of(call).unwrap();
        assert_eq!(body.messages[0].tool.as_deref(), Some("search"));
        assert_eq!(
            String::from_utf8(body.text).unwrap(),
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"q":"\ud83d\ude00"}}}"#
        );
        let batch = of(&format!("[{call}, {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}}]")).unwrap();
        assert!(batch.batch && batch.messages.len() == 2 && batch.messages[1].id.is_none());
        assert!(batch.messages.iter().all(RpcMessage::is_served));
        let answer = of(r#"{"jsonrpc":"2.0","id":"a","result":{}}"#).unwrap();
        assert!(answer.messages[0].method.is_none() && answer.messages[0].is_served());
        for (method, served) in [
            ("ping", true),
            ("tools/list", true),
            ("resources/read", false),
            ("Tools/Call", false),
            ("x", false),
        ] {
            let body = of(&format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"search"}}}}"#
            ))
            .unwrap();
            assert_eq!(body.messages[0].is_served(), served, "{method}");
        }
    }

    #[test]
    fn everything_that_readers_disagree_about_is_refused() {
        let deep = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"a","arguments":{}1{}}}}}"#,
            "[".repeat(200),
            "]".repeat(200)
        );
        for bad in [
            "",
            "null",
            "[]",
            "[1]",
            "[[]]",
            "{}",
            r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"METHOD":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["a"]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["a"]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":["tools/call"]}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"} {}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping",}"#,
            "{\"jsonrpc\":\"2.0\",\"id\":1,/**/\"method\":\"ping\"}",
            "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
            &deep,
            &format!("[{}1]", "1,".repeat(MOST_CALLS)),
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert!(RpcBody::parse(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}").is_err());
    }

    proptest! {
        #[test]
        fn what_is_passed_on_calls_what_was_judged(name in "\\PC{0,12}", method in "[a-z/]{1,12}|tools/call", id in any::<i64>()) {
            let given = serde_json::json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"name": name}});
            let body = of(&given.to_string()).unwrap();
            let sent: serde_json::Value = serde_json::from_slice(&body.text).unwrap();
            prop_assert_eq!(&sent, &given);
            prop_assert_eq!(body.messages[0].tool.as_deref(), (method == TOOLS_CALL).then_some(name.as_str()));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = RpcBody::parse(&bytes);
        }
    }
}

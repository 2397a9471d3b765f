//! The Agent Client Protocol, version 1: JSON-RPC 2.0, a message per line, on the agent's standard streams.
//!
//! Promises: no file is read or written and no terminal is opened for an agent outside of its sandbox, whether it asks or
//! not; what it may do is answered once and with the option that allows it once, never with one that allows it for ever;
//! a question that is not understood is answered with no.
//!
//! See <https://agentclientprotocol.com/protocol/overview>.

mod ask;
mod calls;
mod engine;
mod modes;
mod reader;
mod talk;

pub(crate) use engine::Acp;
pub(crate) use reader::Output;
pub(crate) use talk::{Setup, Talk};

use crate::session::text;
use serde_json::Value;

/// The version of the protocol.
const VERSION: u64 = 1;
/// Where the sandbox shows the workspace.
const WORKSPACE: &str = "/work";

/// The ids of our requests, which say to both the conversation and the reader what a response answers.
mod id {
    pub(super) const INITIALIZE: u64 = 1;
    pub(super) const SESSION: u64 = 2;
    pub(super) const MODE: u64 = 3;
    pub(super) const MODEL: u64 = 4;
    pub(super) const AUTHENTICATE: u64 = 5;
    /// The session, asked for again after signing in.
    pub(super) const SESSION_AGAIN: u64 = 6;
    /// Going back to the mode that asks; nobody waits for the response.
    pub(super) const MODE_AGAIN: u64 = 7;
    /// The first prompt; each one has the next number.
    pub(super) const PROMPT: u64 = 100;
}

/// One message of the agent.
enum Message<'a> {
    /// It wants an answer.
    Request { id: Value, method: &'a str, params: &'a Value },
    /// It tells something.
    Notice { method: &'a str, params: &'a Value },
    /// It answers a request of ours.
    Response { id: u64, result: Result<&'a Value, &'a Value> },
}

/// The message of a JSON object; `None` where it is none, or answers nothing that we could have asked.
fn message(value: &Value) -> Option<Message<'_>> {
    let params = value.get("params").unwrap_or(&Value::Null);
    match (text(value, &["method"]), value.get("id")) {
        (Some(method), Some(id)) => Some(Message::Request { id: id.clone(), method, params }),
        (Some(method), None) => Some(Message::Notice { method, params }),
        (None, Some(id)) => {
            let id = id.as_u64()?;
            let result = match value.get("error").filter(|error| !error.is_null()) {
                Some(error) => Err(error),
                None => Ok(value.get("result")?),
            };
            Some(Message::Response { id, result })
        }
        (None, None) => None,
    }
}

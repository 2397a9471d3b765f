//! What an agent does, in one form for all engines: the normalized events of a session.
//!
//! An event that an engine does not know is kept as it came ([`AgentEvent::Raw`]) and never guessed.

use crate::charge::Usage;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One event of an agent's session. Stored as the body of an [`EventKind::Agent`](crate::EventKind) event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentEvent {
    /// The agent began.
    Started {
        /// Its own id for the session, by which it can be resumed.
        session: Option<String>,
        /// The model that it says it uses.
        model: Option<String>,
        /// The version that it says it has.
        version: Option<String>,
    },
    /// It said something: a whole message, or the next piece of one.
    Text {
        /// What.
        text: String,
        /// Whether it goes on the message of the text event before it.
        #[serde(default, skip_serializing_if = "is_false")]
        delta: bool,
    },
    /// It thought something.
    Thinking {
        /// What.
        text: String,
        /// Whether it goes on the thought of the event before it.
        #[serde(default, skip_serializing_if = "is_false")]
        delta: bool,
    },
    /// It uses a tool.
    ToolCall {
        /// The call's id, by which its result is found.
        id: String,
        /// The tool's name in the agent's words.
        name: String,
        /// One line for people: the command, the path, the query.
        title: String,
        /// The arguments.
        input: Value,
    },
    /// A tool answered.
    ToolResult {
        /// The call's id.
        id: String,
        /// Whether it worked.
        ok: bool,
        /// What it answered.
        output: String,
    },
    /// It says that it changed a file. What really changed is in the diff.
    FileChange {
        /// The path, as the agent names it.
        path: String,
        /// What it did.
        change: FileChangeKind,
    },
    /// It says what it used. The broker's own figures are what counts.
    Usage {
        /// The tokens.
        usage: Usage,
        /// The cost that it claims, in micro-US-dollars.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claimed_micro_usd: Option<u64>,
    },
    /// It asks something that nobody answers in a headless run.
    Question {
        /// What.
        text: String,
    },
    /// Something went wrong, in the agent's words.
    Error {
        /// What.
        message: String,
        /// Whether the agent gives up.
        fatal: bool,
    },
    /// It ended its work.
    Finished {
        /// Whether it says that the work is done.
        ok: bool,
        /// Its last words, or its reason.
        summary: Option<String>,
        /// Turns that it took, where it says so.
        turns: Option<u64>,
    },
    /// An event that the engine does not know, as it came.
    Raw {
        /// The event, or `{"text": …}` for a line that is no JSON.
        value: Value,
    },
}

/// What an agent did to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileChangeKind {
    /// It is new.
    Added,
    /// It changed.
    Changed,
    /// It is gone.
    Deleted,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_stable() {
        let events = [
            AgentEvent::Text { text: "hello".into(), delta: false },
            AgentEvent::ToolResult { id: "1".into(), ok: false, output: "no".into() },
            AgentEvent::FileChange { path: "a".into(), change: FileChangeKind::Added },
        ];
        let text: Vec<String> = events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
        insta::assert_snapshot!(text.join("\n"), @r#"
        {"type":"text","text":"hello"}
        {"type":"tool_result","id":"1","ok":false,"output":"no"}
        {"type":"file_change","path":"a","change":"added"}
        "#);
        for (event, text) in events.iter().zip(&text) {
            assert_eq!(&serde_json::from_str::<AgentEvent>(text).unwrap(), event);
        }
    }
}

//! What `codex app-server` tells of: its notifications, and its answers to our requests.
//!
//! Texts are told when they are whole. Pieces of them are read past: a secret in two pieces would be redacted in neither.

use super::action::{folder_elsewhere, script};
use super::{CHANGE, COMMAND, SEARCH, answer, usage_of};
use crate::session::{
    Dialect, Outcome, Session, below, call_title, cut, list, output, plain_error, text, title,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tipstaff_model::{AgentEvent, FileChangeKind, Usage};

/// Calls that were given up, since their turn ended before they did.
const GIVEN_UP: usize = 256;
/// Kinds of calls that were not allowed.
const DENIED: usize = 16;

/// How it says things.
#[derive(Default)]
pub(super) struct Output {
    turns: u64,
    /// What the thread has used, as far as it was told, and what it had used when the turn began.
    used: Usage,
    used_before: Usage,
    /// Whether `used_before` is known: a session that is continued has used something before.
    counted: bool,
    given_up: BTreeSet<String>,
    denied: Vec<String>,
}

impl Dialect for Output {
    fn events(&mut self, value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
        let Some(method) = value.get("method") else { return answered(value, session) };
        let params = value.get("params").unwrap_or(&Value::Null);
        if value.get("id").is_some() {
            return asked(method.as_str()?, params);
        }
        match method.as_str()? {
            "turn/started" => {
                self.turns = self.turns.saturating_add(1);
                Some(Vec::new())
            }
            "turn/completed" => self.turn_completed(params.get("turn")?, session),
            "item/started" => began(params.get("item")?, session),
            "item/completed" => self.ended(params.get("item")?, session),
            "thread/tokenUsage/updated" => {
                let total = usage_of(below(params, &["tokenUsage", "total"])?, &NAMES);
                if !std::mem::replace(&mut self.counted, true) {
                    let last = usage_of(below(params, &["tokenUsage", "last"])?, &NAMES);
                    self.used_before = minus(total, last);
                }
                self.used = total;
                Some(Vec::new())
            }
            // While it tries again it tells of each attempt, and a turn that fails is told of by `turn/completed`. It never
            // gives up for good: it can be told something else.
            "error" => {
                let mut why = plain_error(text(params, &["error", "message"])?);
                if let Some(details) = text(params, &["error", "additionalDetails"]) {
                    why = format!("{why} ({})", plain_error(details));
                }
                Some(vec![session.error(&why, false)])
            }
            "warning" | "guardianWarning" => Some(vec![session.error(text(params, &["message"])?, false)]),
            "configWarning" => {
                let summary = text(params, &["summary"])?;
                Some(vec![session.error(summary.lines().next().unwrap_or(summary), false)])
            }
            "mcpServer/startupStatus/updated" => {
                let failed = text(params, &["status"]) == Some("failed");
                let why = text(params, &["error"]).filter(|_| failed);
                Some(why.map(|why| session.error(why, false)).into_iter().collect())
            }
            // Pieces of what is told when it is whole, and what the answers to our requests say already.
            "thread/started"
            | "thread/status/changed"
            | "thread/settings/updated"
            | "turn/diff/updated"
            | "item/agentMessage/delta"
            | "item/plan/delta"
            | "item/reasoning/textDelta"
            | "item/reasoning/summaryTextDelta"
            | "item/reasoning/summaryPartAdded"
            | "item/commandExecution/outputDelta"
            | "item/fileChange/outputDelta"
            | "item/fileChange/patchUpdated"
            | "serverRequest/resolved"
            | "account/rateLimits/updated"
            | "remoteControl/status/changed" => Some(Vec::new()),
            _ => None,
        }
    }

    /// A call that it can't carry out is told of in its log only: `… ERROR codex_core::tools::router: error=…`.
    fn error_line(&mut self, line: &str, session: &mut Session) -> Vec<AgentEvent> {
        // What a person refused is told with the call.
        if line.contains("rejected by user") { Vec::new() } else { super::log_error(line, session) }
    }

    fn objection(&self, session: &Session) -> Option<String> {
        // It ends well after all that it wanted to do was refused, with nothing done.
        let missing: Vec<&str> =
            self.denied.iter().filter(|name| !session.worked.contains(name)).map(String::as_str).collect();
        (!missing.is_empty()).then(|| {
            format!("it says that it is done, but it was not permitted to use {}", missing.join(", "))
        })
    }
}

impl Output {
    fn turn_completed(&mut self, turn: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
        let status = text(turn, &["status"])?;
        // What it began and did not end in this turn is not told of any more.
        let mut events = Vec::new();
        for id in session.unanswered() {
            events.push(AgentEvent::ToolResult { id: id.clone(), ok: false, output: status.to_owned() });
            if self.given_up.len() < GIVEN_UP {
                self.given_up.insert(cut(&id, 256));
            }
        }
        let used = minus(self.used, self.used_before);
        self.used_before = self.used;
        if used != Usage::default() {
            events.push(AgentEvent::Usage { usage: used, claimed_micro_usd: None });
        }
        let outcome = match status {
            "completed" => Outcome::Done,
            "interrupted" => Outcome::Failed("its turn was interrupted".to_owned()),
            _ => Outcome::Failed(plain_error(text(turn, &["error", "message"]).unwrap_or("the turn failed"))),
        };
        events.push(session.finished(outcome, Some(self.turns)));
        Some(events)
    }

    fn ended(&mut self, item: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
        let (id, kind) = (text(item, &["id"])?, text(item, &["type"])?);
        match kind {
            "userMessage" | "hookPrompt" => return Some(Vec::new()),
            "agentMessage" | "plan" => {
                let said = text(item, &["text"])?;
                session.said(said);
                return Some(vec![AgentEvent::Text { text: said.to_owned(), delta: false }]);
            }
            "reasoning" => {
                let thought = thought(item);
                let thinking = AgentEvent::Thinking { text: thought, delta: false };
                return Some(vec![thinking].into_iter().filter(is_said).collect());
            }
            _ => {}
        }
        let status = text(item, &["status"]);
        let completed = status.is_none_or(|status| status == "completed");
        let (ok, answer) = match kind {
            "commandExecution" => {
                let code = item.get("exitCode").and_then(Value::as_i64);
                (
                    completed && code == Some(0),
                    text(item, &["aggregatedOutput"]).unwrap_or_default().to_owned(),
                )
            }
            "fileChange" => (completed, String::new()),
            "mcpToolCall" => {
                let error = text(item, &["error", "message"]);
                (completed && error.is_none(), error.map_or_else(|| answer(item), ToOwned::to_owned))
            }
            "webSearch" => (true, String::new()),
            _ => return None,
        };
        if self.given_up.remove(&cut(id, 256)) {
            return Some(Vec::new());
        }
        let mut events = Vec::new();
        // Some items are told of only when they are done.
        if session.answered(id, ok).is_none() {
            events.extend(began(item, session)?);
            session.answered(id, ok);
        }
        let denied = status == Some("declined");
        if denied && self.denied.len() < DENIED && !self.denied.iter().any(|known| known == name_of(kind)) {
            self.denied.push(name_of(kind).to_owned());
        }
        let answer = if denied && answer.is_empty() { "it was not permitted".to_owned() } else { answer };
        events.push(AgentEvent::ToolResult { id: id.to_owned(), ok, output: output(&answer) });
        if kind == "fileChange" && ok {
            events.extend(
                changes(item).map(|(path, change)| AgentEvent::FileChange { path: cut(path, 4096), change }),
            );
        }
        Some(events)
    }
}

/// The name of a call, which is the same as in a session that nobody attends.
pub(super) fn name_of(kind: &str) -> &str {
    match kind {
        "commandExecution" => COMMAND,
        "fileChange" => CHANGE,
        "webSearch" => SEARCH,
        other => other,
    }
}

/// Its names of tokens.
const NAMES: [&str; 5] =
    ["inputTokens", "cachedInputTokens", "cacheWriteInputTokens", "outputTokens", "reasoningOutputTokens"];

fn minus(all: Usage, before: Usage) -> Usage {
    Usage {
        input: all.input.saturating_sub(before.input),
        cache_read: all.cache_read.saturating_sub(before.cache_read),
        cache_write: all.cache_write.saturating_sub(before.cache_write),
        cache_write_1h: 0,
        output: all.output.saturating_sub(before.output),
        reasoning: all.reasoning.saturating_sub(before.reasoning),
    }
}

fn is_said(event: &AgentEvent) -> bool {
    !matches!(event, AgentEvent::Thinking { text, .. } if text.trim().is_empty())
}

/// Its answer to a request of ours.
fn answered(value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
    value.get("id")?;
    if let Some(why) = text(value, &["error", "message"]) {
        return Some(vec![session.error(why, false)]);
    }
    let result = value.get("result")?.as_object()?;
    if let Some(thread) = result.get("thread") {
        let word = |value: Option<&Value>| value.and_then(Value::as_str).map(|word| cut(word, 256));
        return Some(vec![AgentEvent::Started {
            session: word(thread.get("id")),
            model: word(result.get("model")),
            version: word(thread.get("cliVersion")),
        }]);
    }
    let known = ["userAgent", "turn", "turnId"].iter().any(|name| result.contains_key(*name));
    (known || result.is_empty()).then(Vec::new)
}

/// Its request. What is asked about an action is told where it is answered.
fn asked(method: &str, params: &Value) -> Option<Vec<AgentEvent>> {
    match method {
        "item/commandExecution/requestApproval" | "item/fileChange/requestApproval" => Some(Vec::new()),
        "item/tool/requestUserInput" => {
            let questions = list(params, &["questions"]).iter().take(16);
            let texts = questions.filter_map(|question| text(question, &["question"]));
            Some(texts.map(|text| AgentEvent::Question { text: cut(text, 4096) }).collect())
        }
        "mcpServer/elicitation/request" => {
            Some(vec![AgentEvent::Question { text: cut(text(params, &["message"])?, 4096) }])
        }
        _ => None,
    }
}

fn began(item: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
    let (id, kind) = (text(item, &["id"])?, text(item, &["type"])?);
    let (name, title, input) = match kind {
        "commandExecution" => {
            let command = text(item, &["command"])?;
            let mut input = json!({ "command": command });
            if let Some((folder, fields)) = folder_elsewhere(item).zip(input.as_object_mut()) {
                fields.insert("cwd".to_owned(), folder.into());
            }
            (name_of(kind).to_owned(), title(&script(command)), input)
        }
        "fileChange" => {
            let paths: Vec<&str> = changes(item).map(|(path, _)| path).take(16).collect();
            (name_of(kind).to_owned(), title(&paths.join(" ")), json!({ "changes": item.get("changes") }))
        }
        "mcpToolCall" => {
            let name = format!("{}.{}", text(item, &["server"])?, text(item, &["tool"])?);
            let input = item.get("arguments").cloned().unwrap_or(Value::Null);
            (cut(&name, 256), call_title(&name, &input), input)
        }
        "webSearch" => {
            let query = text(item, &["query"]).unwrap_or_default();
            (name_of(kind).to_owned(), title(query), json!({ "query": query }))
        }
        // What they say comes when they are whole.
        "userMessage" | "hookPrompt" | "agentMessage" | "plan" | "reasoning" => return Some(Vec::new()),
        _ => return None,
    };
    session.call(id, &name, None);
    Some(vec![AgentEvent::ToolCall { id: id.to_owned(), name, title, input }])
}

fn changes(item: &Value) -> impl Iterator<Item = (&str, FileChangeKind)> {
    list(item, &["changes"]).iter().filter_map(|change| {
        let kind = match text(change, &["kind", "type"])? {
            "add" => FileChangeKind::Added,
            "delete" => FileChangeKind::Deleted,
            _ => FileChangeKind::Changed,
        };
        Some((text(change, &["path"])?, kind))
    })
}

/// What it thought: in its own words where it says them, else the summary.
fn thought(item: &Value) -> String {
    let parts = |name: &str| {
        let parts = list(item, &[name]).iter().filter_map(Value::as_str);
        parts.collect::<Vec<_>>().join("\n\n")
    };
    let own = parts("content");
    if own.trim().is_empty() { parts("summary") } else { own }
}

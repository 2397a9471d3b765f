//! What an attended agent does, read from its side of the protocol.

use super::ask::diffs;
use super::calls::{Call, Calls, call_id};
use super::talk::told;
use super::{Message, id, message};
use crate::ProcessEnd;
use crate::session::{
    Dialect, Outcome, Session, below, call_title, count, cut, list, micro_usd, output, text, title,
};
use serde_json::{Value, json};
use std::collections::VecDeque;
use tipstaff_model::{AgentEvent, FileChangeKind, Usage};

/// Calls that were not shown yet.
const HIDDEN: usize = 64;

/// What the events before were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Last {
    #[default]
    Other,
    Text,
    Thought,
}

/// How an agent says things in the protocol.
#[derive(Default)]
pub(crate) struct Output {
    version: Option<String>,
    session_id: Option<String>,
    has_started: bool,
    turns: u64,
    last: Last,
    message: Option<String>,
    calls: Calls,
    /// Calls whose arguments were not whole yet.
    hidden: VecDeque<String>,
    /// The cost that it claims for the whole session, and what of it was told already.
    cost: u64,
    cost_told: u64,
    /// Use that is noted along the way.
    noted: Usage,
}

impl Dialect for Output {
    fn events(&mut self, value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
        match message(value)? {
            Message::Notice { method: "session/update", params } => {
                if let Some(id) = text(params, &["sessionId"]) {
                    self.session_id.get_or_insert_with(|| cut(id, 256));
                }
                let update = params.get("update")?;
                if !self.has_started {
                    // What was said in the session that is continued.
                    return is_known(update).then(Vec::new);
                }
                self.update(update, session)
            }
            // Its own protocol beside the common one.
            Message::Notice { method, .. } => {
                (method.starts_with('_') || method == "$/cancel_request").then(Vec::new)
            }
            Message::Request { method: "session/request_permission", params, .. } => {
                let call = params.get("toolCall")?;
                let now = self.calls.with(call);
                let id = call_id(call)?.to_owned();
                self.last = Last::Other;
                // Some agents tell of a call by asking about it.
                let is_new = !self.calls.knows(&id);
                self.calls.learn(call);
                let hidden = self.hidden.iter().position(|one| *one == id);
                let shown = hidden.map(|at| self.hidden.remove(at)).is_some() || is_new;
                Some(if shown { vec![show(&id, &now, session)] } else { Vec::new() })
            }
            // Refused by the conversation, and told of there.
            Message::Request { .. } => Some(Vec::new()),
            Message::Response { id, result } => self.response(id, result, session),
        }
    }

    /// It is a server: when nobody has anything to say any more, its input is closed, and it is ended when it stays.
    fn is_usual_end(&self, end: ProcessEnd) -> bool {
        matches!(end, ProcessEnd::Exited(0 | 130 | 143) | ProcessEnd::Signalled(2 | 9 | 15))
    }
}

impl Output {
    fn response(
        &mut self,
        answered: u64,
        result: Result<&Value, &Value>,
        session: &mut Session,
    ) -> Option<Vec<AgentEvent>> {
        match (answered, result) {
            (id::INITIALIZE, Ok(greeting)) => {
                self.version = text(greeting, &["agentInfo", "version"]).map(|version| cut(version, 256));
                Some(Vec::new())
            }
            (id::SESSION | id::SESSION_AGAIN, Ok(opened)) => {
                if std::mem::replace(&mut self.has_started, true) {
                    return None;
                }
                let id = text(opened, &["sessionId"]).map(|id| cut(id, 256));
                Some(vec![AgentEvent::Started {
                    session: id.or_else(|| self.session_id.clone()),
                    model: model(opened).map(|model| cut(model, 256)),
                    version: self.version.clone(),
                }])
            }
            (id::SESSION, Err(error)) if error.get("code").and_then(Value::as_i64) == Some(-32000) => {
                Some(vec![session.error(&told(error), false)])
            }
            (id::INITIALIZE..id::MODE_AGAIN, Err(error)) => {
                let why = told(error);
                session.outcome = Some(Outcome::Failed(why.clone()));
                Some(vec![session.error(&why, true)])
            }
            (id::MODE_AGAIN, Err(error)) => Some(vec![session.error(&told(error), false)]),
            (id::INITIALIZE..=id::MODE_AGAIN, Ok(_)) => Some(Vec::new()),
            (id::PROMPT.., Ok(ended)) => Some(self.turn(ended, session)),
            (id::PROMPT.., Err(error)) => {
                self.turns = self.turns.saturating_add(1);
                let why = told(error);
                let mut events = self.show_all(session);
                events.push(session.error(&why, true));
                events.push(session.finished(Outcome::Failed(why), Some(self.turns)));
                Some(events)
            }
            _ => None,
        }
    }

    fn turn(&mut self, ended: &Value, session: &mut Session) -> Vec<AgentEvent> {
        self.turns = self.turns.saturating_add(1);
        self.last = Last::Other;
        let outcome = match text(ended, &["stopReason"]) {
            Some("end_turn") => Outcome::Done,
            Some("cancelled") => Outcome::Failed("its turn was interrupted".to_owned()),
            Some("refusal") => Outcome::Failed("it refused to go on".to_owned()),
            Some("max_tokens") => Outcome::Failed("the model's answer was cut at its bound".to_owned()),
            Some("max_turn_requests") => Outcome::Failed("it asked its model as often as it may".to_owned()),
            Some(other) => Outcome::Failed(format!("its turn ended early: {}", cut(other, 64))),
            None => Outcome::Failed("its turn ended without a reason".to_owned()),
        };
        let mut events = self.show_all(session);
        let told = below(ended, &["usage"]).filter(|usage| usage.is_object()).map(usage);
        let told = told.or_else(|| below(ended, &["_meta", "quota", "token_count"]).map(quota));
        let noted = std::mem::take(&mut self.noted);
        let usage = told.filter(|usage| *usage != Usage::default()).unwrap_or(noted);
        let cost = self.cost.saturating_sub(self.cost_told);
        self.cost_told = self.cost;
        let claimed_micro_usd = Some(cost).filter(|cost| *cost > 0);
        if usage != Usage::default() || claimed_micro_usd.is_some() {
            events.push(AgentEvent::Usage { usage, claimed_micro_usd });
        }
        events.push(session.finished(outcome, Some(self.turns)));
        events
    }

    fn update(&mut self, update: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
        let last = std::mem::take(&mut self.last);
        let kind = text(update, &["sessionUpdate"])?;
        if matches!(kind, "agent_message_chunk" | "agent_thought_chunk" | "tool_call" | "tool_call_update") {
            // It is at work again: the turn before was not the last.
            session.outcome = None;
        }
        match kind {
            "agent_message_chunk" => self.chunk(update, last, session),
            "agent_thought_chunk" => {
                let thought = text(update, &["content", "text"])?;
                self.last = Last::Thought;
                if thought.is_empty() {
                    return Some(Vec::new());
                }
                let mut events = self.show_whole(session);
                let delta = last == Last::Thought && events.is_empty();
                events.push(AgentEvent::Thinking { text: thought.to_owned(), delta });
                Some(events)
            }
            kind @ ("tool_call" | "tool_call_update") => self.tool(kind, update, session),
            "plan" => {
                let mut events = self.show_whole(session);
                events.push(AgentEvent::Thinking { text: plan(update)?, delta: false });
                Some(events)
            }
            "usage_update" => {
                let dollars = text(update, &["cost", "currency"]) == Some("USD");
                if let Some(cost) = micro_usd(below(update, &["cost", "amount"])).filter(|_| dollars) {
                    self.cost = self.cost.max(cost);
                }
                self.last = last;
                Some(self.show_whole(session))
            }
            // The prompt said back, and what belongs to a screen.
            _ => is_known(update).then(|| {
                self.last = last;
                Vec::new()
            }),
        }
    }

    fn chunk(&mut self, update: &Value, last: Last, session: &mut Session) -> Option<Vec<AgentEvent>> {
        let said = text(update, &["content", "text"])?;
        if let Some(noted) = below(update, &["_meta", "usage"]).filter(|usage| usage.is_object()) {
            self.noted = self.noted.plus(&usage(noted));
        }
        if said.is_empty() {
            self.last = last;
            return Some(self.show_whole(session));
        }
        let id = text(update, &["messageId"]).map(|id| cut(id, 256));
        let is_same = id == self.message;
        self.message = id;
        self.last = Last::Text;
        let mut events = self.show_whole(session);
        let delta = last == Last::Text && is_same && events.is_empty();
        if delta {
            session.said_on(said);
        } else {
            session.said(said);
        }
        events.push(AgentEvent::Text { text: said.to_owned(), delta });
        Some(events)
    }

    fn tool(&mut self, kind: &str, update: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
        let id = call_id(update)?.to_owned();
        let is_new = !self.calls.knows(&id);
        if kind == "tool_call_update" && is_new && text(update, &["status"]).is_none() {
            return None;
        }
        let now = self.calls.learn(update);
        let status = text(update, &["status"]).unwrap_or("pending");
        // What is hidden of other calls is whole when this one goes on.
        let mut events = self.show_others(&id, session);
        if is_new {
            self.hidden.push_back(id.clone());
            if self.hidden.len() > HIDDEN {
                events.extend(self.hidden.pop_front().map(|oldest| self.show(&oldest, session)));
            }
        }
        if status != "pending"
            && let Some(at) = self.hidden.iter().position(|one| *one == id)
        {
            self.hidden.remove(at);
            events.push(show(&id, &now, session));
        }
        if matches!(status, "completed" | "failed") {
            events.extend(self.answered(&id, &now, status == "completed", session));
        }
        Some(events)
    }

    fn answered(&mut self, id: &str, call: &Call, completed: bool, session: &mut Session) -> Vec<AgentEvent> {
        let fields = &call.fields;
        let code = below(fields, &["rawOutput", "exitCode"])
            .or_else(|| below(fields, &["rawOutput", "exit_code"]))
            .or_else(|| below(fields, &["rawOutput", "metadata", "exit"]));
        let ok = completed && code.and_then(Value::as_i64).unwrap_or(0) == 0;
        session.answered(id, ok);
        self.calls.forget(id);
        let mut events =
            vec![AgentEvent::ToolResult { id: id.to_owned(), ok, output: output(&answer(fields)) }];
        if ok {
            events.extend(changes(fields));
        }
        events
    }

    fn show(&mut self, id: &str, session: &mut Session) -> AgentEvent {
        let call = self.calls.with(&json!({ "toolCallId": id }));
        show(id, &call, session)
    }

    /// Shows the hidden calls of which `which` holds.
    fn show_where(&mut self, session: &mut Session, which: impl Fn(&str, &Call) -> bool) -> Vec<AgentEvent> {
        let hidden = std::mem::take(&mut self.hidden);
        let mut events = Vec::new();
        for id in hidden {
            let call = self.calls.with(&json!({ "toolCallId": id }));
            if which(&id, &call) {
                events.push(show(&id, &call, session));
            } else {
                self.hidden.push_back(id);
            }
        }
        events
    }

    /// Shows the calls whose arguments are there: something else follows them.
    fn show_whole(&mut self, session: &mut Session) -> Vec<AgentEvent> {
        self.show_where(session, |_, call| has_input(call))
    }

    fn show_others(&mut self, id: &str, session: &mut Session) -> Vec<AgentEvent> {
        self.show_where(session, |one, call| one != id && has_input(call))
    }

    fn show_all(&mut self, session: &mut Session) -> Vec<AgentEvent> {
        self.show_where(session, |_, _| true)
    }
}

fn has_input(call: &Call) -> bool {
    below(&call.fields, &["rawInput"]).and_then(Value::as_object).is_some_and(|input| !input.is_empty())
}

fn show(id: &str, call: &Call, session: &mut Session) -> AgentEvent {
    let fields = &call.fields;
    let input =
        fields.get("rawInput").filter(|input| input.as_object().is_some_and(|input| !input.is_empty()));
    let place = list(fields, &["locations"]).iter().find_map(|place| text(place, &["path"]));
    let place = place.or_else(|| diffs(fields).into_iter().find_map(|diff| text(diff, &["path"])));
    let said = text(fields, &["title"]).unwrap_or_default();
    let line = match (input, place) {
        (Some(input), _) => call_title(said, input),
        (None, Some(place)) if !said.contains(place) && text(fields, &["kind"]) == Some("edit") => {
            title(place)
        }
        _ => title(said),
    };
    session.call(id, call.tool(), None);
    let input = input.cloned().unwrap_or_else(|| substitute(fields, said));
    AgentEvent::ToolCall { id: id.to_owned(), name: call.tool().to_owned(), title: line, input }
}

/// Arguments for a call that came without: what the protocol says of it in other places.
fn substitute(fields: &Value, said: &str) -> Value {
    let places = list(fields, &["locations"]).iter().filter_map(|place| text(place, &["path"]));
    let changed = diffs(fields).into_iter().filter_map(|diff| text(diff, &["path"]));
    let mut paths: Vec<&str> = places.chain(changed).take(64).collect();
    paths.dedup();
    match text(fields, &["kind"]) {
        Some("execute") if !said.is_empty() => json!({ "command": said }),
        _ if paths.is_empty() => Value::Null,
        _ => json!({ "paths": paths }),
    }
}

/// The text of an answer: what the tool printed, else the blocks that are shown, else the whole of it.
fn answer(fields: &Value) -> String {
    let raw = fields.get("rawOutput").unwrap_or(&Value::Null);
    let keys =
        [&["output"][..], &["text"], &["stdout"], &["aggregated_output"], &["formatted_output"], &["error"]];
    let printed = keys.iter().find_map(|path| text(raw, path)).or_else(|| raw.as_str());
    if let Some(printed) = printed {
        return printed.to_owned();
    }
    let blocks = list(fields, &["content"]).iter().filter_map(|part| text(part, &["content", "text"]));
    let shown = blocks.collect::<Vec<_>>().join("\n");
    if shown.is_empty() && !raw.is_null() { raw.to_string() } else { shown }
}

fn changes(fields: &Value) -> Vec<AgentEvent> {
    let change_of = |path: &str, change| AgentEvent::FileChange { path: cut(path, 4096), change };
    let mut events: Vec<AgentEvent> = Vec::new();
    for diff in diffs(fields).into_iter().take(256) {
        let Some(path) = text(diff, &["path"]) else { continue };
        let is_new =
            diff.get("oldText").is_none_or(Value::is_null) || text(diff, &["_meta", "kind"]) == Some("add");
        events.push(change_of(path, if is_new { FileChangeKind::Added } else { FileChangeKind::Changed }));
    }
    let kind = match text(fields, &["kind"]) {
        Some("edit") => FileChangeKind::Changed,
        Some("delete") => FileChangeKind::Deleted,
        _ => return events,
    };
    if events.is_empty() {
        let places = list(fields, &["locations"]).iter().take(256);
        events.extend(places.filter_map(|place| text(place, &["path"])).map(|path| change_of(path, kind)));
    }
    events
}

/// Its plan as lines of text.
fn plan(update: &Value) -> Option<String> {
    let entries = update.get("entries")?.as_array()?;
    let lines: Vec<String> = entries
        .iter()
        .take(256)
        .filter_map(|entry| {
            let mark = match text(entry, &["status"]) {
                Some("completed") => "x",
                Some("in_progress") => ">",
                _ => " ",
            };
            Some(format!("[{mark}] {}", title(text(entry, &["content"])?)))
        })
        .collect();
    Some(format!("The plan:\n{}", lines.join("\n")))
}

/// Kinds of updates that are known, whether or not they say something here.
fn is_known(update: &Value) -> bool {
    matches!(
        text(update, &["sessionUpdate"]),
        Some(
            "agent_message_chunk"
                | "agent_thought_chunk"
                | "user_message_chunk"
                | "tool_call"
                | "tool_call_update"
                | "plan"
                | "usage_update"
                | "available_commands_update"
                | "current_mode_update"
                | "config_option_update"
                | "session_info_update"
        )
    )
}

/// The model of a new session.
fn model(opened: &Value) -> Option<&str> {
    let options = list(opened, &["configOptions"]).iter().take(64);
    let mut chosen = options.filter(|option| text(option, &["category"]) == Some("model"));
    let chosen = chosen.find_map(|option| text(option, &["currentValue"]));
    chosen.or_else(|| text(opened, &["models", "currentModelId"]))
}

/// Some count cached input as a part of the input, and some thoughts apart from the output: the total tells.
fn usage(told: &Value) -> Usage {
    let one = |key| count(told, &[key]);
    let (input, output, thought) = (one("inputTokens"), one("outputTokens"), one("thoughtTokens"));
    let (cache_read, cache_write) = (one("cachedReadTokens"), one("cachedWriteTokens"));
    let total = one("totalTokens");
    let plain = input.saturating_add(output);
    let cached = cache_read.saturating_add(cache_write);
    let is_part = cached <= input && (total == plain || total == plain.saturating_add(thought)) && cached > 0;
    let is_apart = thought > 0
        && (total == plain.saturating_add(thought)
            || total == plain.saturating_add(thought).saturating_add(cached));
    Usage {
        input: if is_part { input.saturating_sub(cached) } else { input },
        cache_read,
        cache_write,
        cache_write_1h: 0,
        output: if is_apart { output.saturating_add(thought) } else { output },
        reasoning: thought,
    }
}

fn quota(told: &Value) -> Usage {
    Usage {
        input: count(told, &["input_tokens"]),
        output: count(told, &["output_tokens"]),
        ..Usage::default()
    }
}

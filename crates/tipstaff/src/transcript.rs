//! A session as people read it: one form for the live view, the transcript, the replay and Markdown.

use crate::output::{Tone, span};
use crate::watch::plain;
use serde_json::Value;
use tipstaff_model::{
    AgentEvent, Approval, ApprovalState, EventKind, FileChangeKind, SetupOutcome, SetupReport, Steer,
    SteerKind, SteerState,
};
use tipstaff_store::Event;

/// Characters of a tool's answer that are shown.
const ANSWER: usize = 200;
/// Characters of a title.
const TITLE: usize = 160;

/// A piece of a session, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text that flows on: what the agent or the command says.
    Flow(String),
    /// Text that flows on and matters less.
    Aside(String),
    /// A line of its own.
    Line(Tone, String),
    /// Nothing worth a line.
    Nothing,
}

/// One line, cut.
fn short(text: &str, most: usize) -> String {
    let text = plain(text);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let more = line.chars().count() > most || text.trim().lines().count() > 1;
    let cut: String = line.chars().take(most).collect();
    if more { format!("{cut} …") } else { cut }
}

/// A tool and what it is used for, on one line.
pub(crate) fn tool_words(name: &str, title: &str) -> String {
    format!("{}: {}", short(name, 40), short(title, TITLE))
}

/// What an agent's event looks like.
pub(crate) fn of_agent(event: &AgentEvent) -> Piece {
    match event {
        AgentEvent::Started { model, version, .. } => {
            let parts: Vec<&str> = [version.as_deref(), model.as_deref()].into_iter().flatten().collect();
            if parts.is_empty() {
                return Piece::Nothing;
            }
            Piece::Line(Tone::Dim, format!("agent started: {}", plain(&parts.join(", "))))
        }
        AgentEvent::Text { text, delta: true } => Piece::Flow(text.clone()),
        AgentEvent::Text { text, .. } => Piece::Flow(whole(text)),
        AgentEvent::Thinking { text, delta: true } => Piece::Aside(text.clone()),
        AgentEvent::Thinking { text, .. } => Piece::Aside(whole(text)),
        AgentEvent::ToolCall { name, title, .. } => {
            Piece::Line(Tone::Bold, format!("> {}", tool_words(name, title)))
        }
        AgentEvent::ToolResult { ok: true, output, .. } => match short(output, ANSWER) {
            empty if empty.is_empty() => Piece::Nothing,
            text => Piece::Line(Tone::Dim, format!("  {text}")),
        },
        AgentEvent::ToolResult { output, .. } => {
            Piece::Line(Tone::Warn, format!("  failed: {}", short(output, ANSWER)))
        }
        AgentEvent::FileChange { path, change } => {
            let word = match change {
                FileChangeKind::Added => "new",
                FileChangeKind::Changed => "changed",
                FileChangeKind::Deleted => "deleted",
            };
            Piece::Line(Tone::Good, format!("  {word} {}", short(path, TITLE)))
        }
        AgentEvent::Question { text } => {
            Piece::Line(Tone::Warn, format!("? the agent asks: {}", short(text, ANSWER)))
        }
        AgentEvent::Error { message, .. } => {
            Piece::Line(Tone::Bad, format!("the agent says: {}", short(message, ANSWER)))
        }
        AgentEvent::Finished { ok: false, summary, .. } => Piece::Line(
            Tone::Bad,
            format!(
                "the agent did not finish: {}",
                short(summary.as_deref().unwrap_or("it gives no reason"), ANSWER)
            ),
        ),
        // The last words were said already, and what counts is metered at the broker.
        AgentEvent::Finished { .. } | AgentEvent::Usage { .. } | AgentEvent::Raw { .. } => Piece::Nothing,
    }
}

/// A whole message ends its line.
fn whole(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

fn field<'b>(body: &'b Value, name: &str) -> &'b str {
    body.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// What a step of the verification looks like.
pub(crate) fn of_verification(step: u64, command: &str, code: Option<i64>) -> Piece {
    let command = short(command, TITLE);
    match code {
        None => Piece::Line(Tone::Bold, format!("verify {step}: {command}")),
        Some(0) => Piece::Line(Tone::Good, format!("verify {step} passed: {command}")),
        Some(code) => Piece::Line(Tone::Bad, format!("verify {step} ended with {code}: {command}")),
    }
}

/// What a question to a person, or its answer, looks like.
pub(crate) fn of_approval(approval: &Approval) -> Piece {
    let request = &approval.request;
    let what = format!("{}: {}", request.action.tool, short(&request.action.title, TITLE));
    let id = request.id.short();
    let by = approval.answered_by.as_deref().unwrap_or("nobody");
    let (tone, text) = match approval.state {
        ApprovalState::Pending => (
            Tone::Warn,
            format!("approval {id} wanted ({} risk): {what}; tipstaff approvals allow {id}", request.risk),
        ),
        ApprovalState::Allowed => (Tone::Good, format!("approval {id} allowed by {by}: {what}")),
        ApprovalState::Used => (Tone::Dim, format!("approval {id} used: {what}")),
        ApprovalState::Denied => (Tone::Bad, format!("approval {id} denied by {by}: {what}")),
        ApprovalState::Expired => (Tone::Bad, format!("approval {id} expired, which means no: {what}")),
        ApprovalState::Withdrawn => (Tone::Dim, format!("approval {id} is not needed any more: {what}")),
    };
    Piece::Line(tone, plain(&text))
}

/// What a person told the run looks like.
pub(crate) fn of_steer(steer: &Steer, state: &str, note: &str) -> Piece {
    let what = match &steer.kind {
        SteerKind::Message { text } => format!("told: {}", short(text, TITLE)),
        other => other.as_str().to_owned(),
    };
    let note = if note.is_empty() { String::new() } else { format!(": {note}") };
    let tone = if state == SteerState::Refused.as_str() { Tone::Bad } else { Tone::Bold };
    Piece::Line(tone, plain(&format!("{what} ({state}{note})")))
}

/// What an event of a set-up looks like.
fn of_setup(body: &Value) -> Piece {
    let report =
        body.get("report").and_then(|report| serde_json::from_value::<SetupReport>(report.clone()).ok());
    match report {
        Some(report) => {
            let tone = if report.outcome == SetupOutcome::Failed { Tone::Bad } else { Tone::Good };
            Piece::Line(tone, format!("set-up: {}", setup_in_words(&report)))
        }
        None if body.get("step").is_some() => {
            Piece::Line(Tone::Bold, format!("set-up: running {}", tipstaff_runner::SETUP_SCRIPT))
        }
        None => Piece::Aside(field(body, "text").to_owned()),
    }
}

/// How a set-up ended.
pub(crate) fn setup_in_words(report: &SetupReport) -> String {
    match report.outcome {
        SetupOutcome::Done => span(report.duration_ms),
        SetupOutcome::Cached => format!("from cache (saved {})", span(report.saved_ms)),
        SetupOutcome::Failed => format!("failed after {}", span(report.duration_ms)),
    }
}

/// What a stored event looks like.
pub(crate) fn of_event(event: &Event) -> Piece {
    let body = &event.body;
    match event.kind {
        EventKind::Stdout => Piece::Flow(field(body, "text").to_owned()),
        EventKind::Stderr => Piece::Aside(field(body, "text").to_owned()),
        EventKind::Agent => serde_json::from_value::<AgentEvent>(body.clone())
            .map_or(Piece::Nothing, |event| of_agent(&event)),
        EventKind::Verify => match body.get("step").and_then(Value::as_u64) {
            Some(step) => {
                of_verification(step, field(body, "command"), body.get("code").and_then(Value::as_i64))
            }
            None => Piece::Flow(field(body, "text").to_owned()),
        },
        EventKind::Setup => of_setup(body),
        EventKind::State => {
            let reason = field(body, "reason");
            let reason = if reason.is_empty() || reason == "completed" {
                String::new()
            } else {
                format!(" ({reason})")
            };
            Piece::Line(Tone::Dim, format!("{}{reason}", field(body, "state")))
        }
        EventKind::Refusal => Piece::Line(
            Tone::Warn,
            plain(&match body.get("times").and_then(Value::as_u64) {
                // Said at the end about what was said before.
                Some(times) => {
                    format!("refused {} ({}) {times} times", field(body, "wanted"), field(body, "rule"))
                }
                None => format!(
                    "refused {} ({}): {}",
                    field(body, "wanted"),
                    field(body, "rule"),
                    field(body, "why")
                ),
            }),
        ),
        EventKind::Approval => serde_json::from_value::<Approval>(body.clone())
            .map_or(Piece::Nothing, |asked| of_approval(&asked)),
        EventKind::Steer => serde_json::from_value::<Steer>(body.clone())
            .map_or(Piece::Nothing, |steer| of_steer(&steer, field(body, "state"), field(body, "note"))),
        EventKind::Notice => Piece::Line(Tone::Dim, plain(field(body, "text"))),
        EventKind::Push => {
            let detail = body.get("detail").unwrap_or(body);
            let commit: String = field(detail, "new").chars().take(10).collect();
            let branch = field(detail, "ref");
            let branch = branch.strip_prefix("refs/heads/").unwrap_or(branch);
            Piece::Line(Tone::Good, plain(&format!("pushed {commit} to {branch}")))
        }
        EventKind::Files => Piece::Line(Tone::Dim, plain(&body.to_string())),
    }
}

/// A session as Markdown, event by event.
#[derive(Default)]
pub(crate) struct Markdown {
    out: String,
    /// The kind of block that is open.
    open: Option<Block>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// Paragraphs of the agent.
    Prose,
    /// Output of a command, fenced.
    Output,
}

impl Markdown {
    /// Takes the next event.
    pub(crate) fn event(&mut self, event: &Event) {
        match (event.kind, of_event(event)) {
            (_, Piece::Nothing) => {}
            (EventKind::Agent, Piece::Flow(text)) => {
                self.block(Block::Prose);
                self.out.push_str(&plain(&text));
            }
            (_, Piece::Flow(text) | Piece::Aside(text)) => {
                self.block(Block::Output);
                // A fence of ours can't be closed by what is in it: its lines are indented instead.
                let text = plain(&text);
                for line in text.split_inclusive('\n') {
                    if self.out.is_empty() || self.out.ends_with('\n') {
                        self.out.push_str("    ");
                    }
                    self.out.push_str(line);
                }
            }
            (_, Piece::Line(_, text)) => {
                self.close();
                self.out.push_str("- ");
                self.out.push_str(&escaped(text.trim()));
                self.out.push('\n');
            }
        }
    }

    /// The text so far; what follows goes on.
    pub(crate) fn take(&mut self) -> String {
        std::mem::take(&mut self.out)
    }

    fn block(&mut self, block: Block) {
        if self.open != Some(block) {
            self.close();
            self.out.push('\n');
            self.open = Some(block);
        }
    }

    fn close(&mut self) {
        if self.open.take().is_some() {
            if !self.out.ends_with('\n') {
                self.out.push('\n');
            }
            self.out.push('\n');
        }
    }
}

/// Text in which nothing is markup: neither HTML nor a link that loads something.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '<' | '>' | '&' | '[' | ']' | '!' | '*' | '_' | '`' | '#' | '|' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: EventKind, body: Value) -> Event {
        Event { seq: 1, at: 0, kind, body }
    }

    #[test]
    fn a_session_reads_well_and_its_markup_is_harmless() {
        let mut page = Markdown::default();
        for event in [
            event(EventKind::State, json!({"state": "running", "reason": null})),
            event(EventKind::Agent, json!({"type": "text", "text": "I will look."})),
            event(
                EventKind::Agent,
                json!({"type": "tool_call", "id": "1", "name": "Bash", "title": "ls <b>", "input": {}}),
            ),
            event(
                EventKind::Agent,
                json!({"type": "tool_result", "id": "1", "ok": false, "output": "no\nway"}),
            ),
            event(EventKind::Stdout, json!({"text": "```\n# not a head"})),
            event(EventKind::Stdout, json!({"text": "line\n"})),
            event(EventKind::Verify, json!({"step": 1, "command": "make test", "code": 2})),
        ] {
            page.event(&event);
        }
        insta::assert_snapshot!(page.take(), @r"
        - running

        I will look.

        - \> Bash: ls \<b\>
        - failed: no …

            ```
            # not a headline

        - verify 1 ended with 2: make test
        ");
    }
}

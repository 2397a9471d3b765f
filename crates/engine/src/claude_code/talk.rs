//! Speaking with Claude Code: `--input-format stream-json` with its control protocol.
//!
//! Promises: every call of a tool is asked about by a hook that fires before it, whatever the agent's own permissions say;
//! nothing is asked of the model before that hook is in place; one call is answered once, also where its permission prompt
//! asks about it again; a request that is not understood is answered with an error, a question that can't be read with no.
//!
//! Found in version 2.1.330: a hook's `deny` wins in every permission mode, its `allow` leaves nothing to the prompt; a
//! message that is sent in the middle of a turn is read within it, and repeated with `isReplay` when it is
//! (`--replay-user-messages`).

use crate::action::action_of;
use crate::conversation::{Asked, Conversation, NotPossible, Reply, Step};
use crate::session::text;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use tipstaff_model::{Action, ActionDigest, WarrantId};

/// The name of our hook.
const HOOK: &str = "tipstaff";
/// How long it waits for our answer, in seconds: longer than any run.
const HOOK_SECONDS: u64 = 7 * 24 * 60 * 60;
/// Our first request.
const INITIALIZE: &str = "tipstaff-initialize";
/// Longest id that is taken, in bytes.
const LONGEST_ID: usize = 512;
/// Answers that are remembered, for a call that is asked about twice.
const MOST_DECIDED: usize = 4096;
/// Questions that are kept open; the bound on those that people are asked is below.
const MOST_OPEN: usize = 1024;

/// How a request wants to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// `hook_callback`.
    Hook,
    /// `can_use_tool`, with the input that it repeats.
    Prompt(Value),
}

#[derive(Debug)]
struct Open {
    same: ActionDigest,
    /// Every request that waits for this answer.
    requests: Vec<(String, Form)>,
}

/// One conversation.
pub(crate) struct Talk {
    prompt: String,
    /// Whether the hook is in place.
    ready: bool,
    /// Whether a turn goes on.
    busy: bool,
    /// Messages that were said before that.
    early: Vec<String>,
    /// Messages that it has not read.
    unread: u64,
    interrupts: u64,
    open: BTreeMap<String, Open>,
    decided: BTreeMap<String, (ActionDigest, Reply)>,
    decided_order: VecDeque<String>,
}

impl Talk {
    pub(crate) fn new(prompt: &str) -> Self {
        Self {
            prompt: prompt.to_owned(),
            ready: false,
            busy: false,
            early: Vec::new(),
            unread: 0,
            interrupts: 0,
            open: BTreeMap::new(),
            decided: BTreeMap::new(),
            decided_order: VecDeque::new(),
        }
    }

    fn tell(&mut self, said: &str) -> Step {
        self.unread += 1;
        self.busy = true;
        let message = json!({"role": "user", "content": said});
        send(json!({"type": "user", "session_id": "", "parent_tool_use_id": null, "message": message}))
    }

    fn answered(&mut self, value: &Value) -> Vec<Step> {
        let Some(response) = value.get("response") else { return Vec::new() };
        // It repeats our own answers, too.
        if text(response, &["request_id"]) != Some(INITIALIZE) || self.ready {
            return Vec::new();
        }
        if text(response, &["subtype"]) != Some("success") {
            let why = text(response, &["error"]).unwrap_or("it does not say why");
            return vec![Step::Broken(format!("it does not let itself be spoken with: {why}"))];
        }
        self.ready = true;
        let said = std::mem::take(&mut self.early);
        let prompt = std::mem::take(&mut self.prompt);
        std::iter::once(prompt).chain(said).map(|text| self.tell(&text)).collect()
    }

    fn request(&mut self, value: &Value) -> Vec<Step> {
        let Some(id) = text(value, &["request_id"]).filter(|id| (1..=LONGEST_ID).contains(&id.len())) else {
            return Vec::new();
        };
        let request = value.get("request").unwrap_or(&Value::Null);
        let (form, name, input) = match text(request, &["subtype"]) {
            Some("hook_callback") => {
                let told = request.get("input").unwrap_or(&Value::Null);
                (Some(Form::Hook), text(told, &["tool_name"]), told.get("tool_input"))
            }
            Some("can_use_tool") => {
                let input = request.get("input");
                let form = Form::Prompt(input.cloned().unwrap_or(Value::Null));
                (Some(form), text(request, &["tool_name"]), input)
            }
            _ => (None, None, None),
        };
        let Some(form) = form else {
            return vec![send(json!({"type": "control_response", "response": {
                "subtype": "error", "request_id": id, "error": "this is not offered here",
            }}))];
        };
        let known = form != Form::Hook
            || text(request, &["callback_id"]) == Some(HOOK)
                && text(request, &["input", "hook_event_name"]) == Some("PreToolUse");
        let (Some(name), Some(input), true) = (name, input, known) else {
            return vec![reply_to(id, &form, &unreadable())];
        };
        let action = action_of(name, input);
        let call = text(request, &["tool_use_id"])
            .or_else(|| text(request, &["input", "tool_use_id"]))
            .filter(|call| (1..=LONGEST_ID).contains(&call.len()))
            .unwrap_or(id);
        self.question(call, id, form, action)
    }

    fn question(&mut self, call: &str, id: &str, form: Form, action: Action) -> Vec<Step> {
        let same = action.digest(WarrantId::from_bytes([0; 16]), call);
        if let Some((decided, reply)) = self.decided.get(call) {
            if *decided == same {
                return vec![reply_to(id, &form, reply)];
            }
        } else if let Some(open) = self.open.get_mut(call) {
            if open.same == same {
                if !open.requests.iter().any(|(known, _)| known == id) && open.requests.len() < 16 {
                    open.requests.push((id.to_owned(), form));
                }
                return Vec::new();
            }
        } else {
            return self.ask(call, id, form, (same, action));
        }
        // The same call with other arguments is another question, by its own id.
        if self.open.contains_key(id) || self.decided.contains_key(id) {
            return vec![reply_to(id, &form, &unreadable())];
        }
        self.ask(id, id, form, (action.digest(WarrantId::from_bytes([0; 16]), id), action))
    }

    fn ask(&mut self, key: &str, id: &str, form: Form, (same, action): (ActionDigest, Action)) -> Vec<Step> {
        if self.open.len() >= MOST_OPEN {
            return vec![reply_to(id, &form, &unreadable())];
        }
        self.open.insert(key.to_owned(), Open { same, requests: vec![(id.to_owned(), form)] });
        vec![Step::Ask(Asked { id: key.to_owned(), action })]
    }

    fn cancelled(&mut self, value: &Value) -> Vec<Step> {
        let Some(id) = text(value, &["request_id"]) else { return Vec::new() };
        let mut gone = Vec::new();
        self.open.retain(|call, open| {
            let before = open.requests.len();
            open.requests.retain(|(request, _)| request != id);
            let empty = before > 0 && open.requests.is_empty();
            if empty {
                gone.push(Step::Withdrawn { id: call.clone() });
            }
            !empty
        });
        gone
    }

    fn result(&mut self, value: &Value) -> Vec<Step> {
        let queued = value.get("queued_turn_count").and_then(Value::as_u64).unwrap_or(0);
        if queued > 0 || self.unread > 0 {
            return Vec::new();
        }
        self.busy = false;
        vec![Step::TurnEnded]
    }

    fn remember(&mut self, call: &str, same: ActionDigest, reply: &Reply) {
        if self.decided_order.len() >= MOST_DECIDED
            && let Some(oldest) = self.decided_order.pop_front()
        {
            self.decided.remove(&oldest);
        }
        self.decided.insert(call.to_owned(), (same, reply.clone()));
        self.decided_order.push_back(call.to_owned());
    }

    fn stop(&mut self) -> Step {
        self.interrupts += 1;
        let id = format!("tipstaff-interrupt-{}", self.interrupts);
        send(json!({"type": "control_request", "request_id": id, "request": {"subtype": "interrupt"}}))
    }
}

impl Conversation for Talk {
    fn begin(&mut self) -> Vec<Step> {
        // No matcher: every tool.
        let hook = json!({"hookCallbackIds": [HOOK], "timeout": HOOK_SECONDS});
        let request = json!({"subtype": "initialize", "hooks": {"PreToolUse": [hook]}});
        vec![send(json!({"type": "control_request", "request_id": INITIALIZE, "request": request}))]
    }

    fn line(&mut self, line: &str) -> Vec<Step> {
        // Most lines are no concern of ours, and some are long.
        let Ok(value) = serde_json::from_str::<Value>(line) else { return Vec::new() };
        match text(&value, &["type"]) {
            Some("control_request") => self.request(&value),
            Some("control_response") => self.answered(&value),
            Some("control_cancel_request") => self.cancelled(&value),
            Some("user") if value.get("isReplay") == Some(&Value::Bool(true)) => {
                self.unread = self.unread.saturating_sub(1);
                Vec::new()
            }
            Some("result") => self.result(&value),
            _ => Vec::new(),
        }
    }

    fn answer(&mut self, id: &str, reply: &Reply) -> Vec<Step> {
        let Some(open) = self.open.remove(id) else { return Vec::new() };
        let mut steps: Vec<Step> =
            open.requests.iter().map(|(request, form)| reply_to(request, form, reply)).collect();
        if matches!(reply, Reply::Deny { interrupt: true, .. }) && self.busy {
            steps.push(self.stop());
        }
        self.remember(id, open.same, reply);
        steps
    }

    fn say(&mut self, said: &str) -> Result<Vec<Step>, NotPossible> {
        if self.ready {
            return Ok(vec![self.tell(said)]);
        }
        if self.early.len() >= 100 {
            return Err(NotPossible("it has not begun, and 100 messages wait already"));
        }
        self.early.push(said.to_owned());
        Ok(Vec::new())
    }

    fn interrupt(&mut self) -> Result<Vec<Step>, NotPossible> {
        if !self.busy {
            return Err(NotPossible("no turn goes on: there is nothing to interrupt"));
        }
        Ok(vec![self.stop()])
    }
}

fn send(value: Value) -> Step {
    Step::Send(value.to_string())
}

fn unreadable() -> Reply {
    Reply::Deny { why: "the question can't be read, which means no".to_owned(), interrupt: false }
}

fn reply_to(request: &str, form: &Form, reply: &Reply) -> Step {
    let response = match (form, reply) {
        (Form::Hook, reply) => {
            let (decision, why) = match reply {
                Reply::Allow => ("allow", "allowed"),
                Reply::Deny { why, .. } => ("deny", why.as_str()),
            };
            json!({"hookSpecificOutput": {
                "hookEventName": "PreToolUse", "permissionDecision": decision, "permissionDecisionReason": why,
            }})
        }
        (Form::Prompt(input), Reply::Allow) => json!({"behavior": "allow", "updatedInput": input}),
        (Form::Prompt(_), Reply::Deny { why, interrupt }) => {
            json!({"behavior": "deny", "message": why, "interrupt": interrupt})
        }
    };
    send(json!({"type": "control_response", "response": {
        "subtype": "success", "request_id": request, "response": response,
    }}))
}

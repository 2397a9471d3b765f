//! Speaking with `codex app-server`: JSON-RPC without its version, one message a line, in both directions.
//!
//! Promises: it is asked for one thread that asks before every command and every change of a file, and it is not spoken
//! with when it says that it has another one. A yes is for one question; nothing that reaches further is ever answered.
//! What is kept of what it writes has a bound.

use super::action::{self, FileChanges};
use crate::conversation::{Asked, Conversation, NotPossible, Reply, Step};
use crate::session::{cut, text};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::mem::take;

/// Longest line that is read, in bytes; a longer one holds no question of a person's size.
const LINE: usize = 4 * 1024 * 1024;
/// Longest id, in bytes.
const ID: usize = 256;
/// Most questions that wait for an answer; further ones are answered with no.
const OPEN: usize = 64;
/// Most requests of ours that it has not answered, and most messages that it was not told.
const UNANSWERED: usize = 256;
/// The policy that asks before everything. Its folders are trusted by nobody, so no rule of a repository takes from it.
const ASKS: &str = "untrusted";

/// Its answer to a question.
const ACCEPT: &str = "accept";
const DECLINE: &str = "decline";
const CANCEL: &str = "cancel";

/// A request of ours that it has not answered.
#[derive(Debug)]
enum Request {
    Initialize,
    Thread,
    Turn,
    /// What it was told in the middle of a turn, and whether it is told again when that turn was over.
    Steer {
        text: String,
        again: bool,
    },
    Interrupt,
}

#[derive(Debug, PartialEq, Eq)]
enum Turn {
    None,
    /// It was asked for one and has not named it; whether it is to be ended at once.
    Starting {
        interrupt: bool,
    },
    Running {
        id: String,
        interrupted: bool,
    },
}

/// A question that waits.
#[derive(Debug)]
struct Open {
    /// Its own id of the question.
    rpc: Value,
    turn: String,
}

/// The conversation with one app server.
pub(super) struct AppServer {
    /// The session to continue, if there is one.
    resume: Option<String>,
    thread: Option<String>,
    turn: Turn,
    broken: bool,
    /// Whether the end of its last turn was told.
    rests: bool,
    /// What it is told in its next turn.
    unsaid: VecDeque<String>,
    last_request: u64,
    requests: BTreeMap<u64, Request>,
    last_question: u64,
    open: BTreeMap<String, Open>,
    changes: FileChanges,
}

impl AppServer {
    pub(super) fn new(prompt: &str, resume: Option<&str>) -> Self {
        Self {
            resume: resume.map(ToOwned::to_owned),
            thread: None,
            turn: Turn::None,
            broken: false,
            rests: false,
            unsaid: VecDeque::from([prompt.to_owned()]),
            last_request: 0,
            requests: BTreeMap::new(),
            last_question: 0,
            open: BTreeMap::new(),
            changes: FileChanges::default(),
        }
    }

    fn request(&mut self, kind: Request, method: &str, params: &Value) -> Step {
        self.last_request = self.last_request.saturating_add(1);
        let id = self.last_request;
        self.requests.insert(id, kind);
        send(&json!({ "id": id, "method": method, "params": params }))
    }

    fn broken(&mut self, why: &str) -> Vec<Step> {
        self.broken = true;
        self.open.clear();
        self.unsaid.clear();
        vec![Step::Broken(cut(why, 1024))]
    }

    /// It answers a request of ours.
    fn answered(&mut self, message: &Value) -> Vec<Step> {
        let id = message.get("id").and_then(Value::as_u64);
        let Some(request) = id.and_then(|id| self.requests.remove(&id)) else { return Vec::new() };
        let Some(result) = message.get("result") else {
            return self.refused(request, text(message, &["error", "message"]).unwrap_or("without a reason"));
        };
        match request {
            Request::Initialize => vec![send(&json!({ "method": "initialized" })), self.open_thread()],
            Request::Thread => self.thread_opened(result),
            Request::Turn => match text(result, &["turn", "id"]).filter(|id| id.len() <= ID) {
                Some(id) => self.turn_started(id),
                None => self.broken("it began a turn without a name"),
            },
            Request::Steer { .. } => self.settled(),
            Request::Interrupt => Vec::new(),
        }
    }

    /// It does not do what it was asked for.
    fn refused(&mut self, request: Request, why: &str) -> Vec<Step> {
        match request {
            Request::Initialize => self.broken(&format!("it does not want to speak: {why}")),
            Request::Thread if self.resume.is_some() => {
                self.broken(&format!("it can't continue the session: {why}"))
            }
            Request::Thread => self.broken(&format!("it can't begin a session: {why}")),
            Request::Turn if matches!(self.turn, Turn::Starting { .. }) => {
                self.turn = Turn::None;
                self.settled()
            }
            Request::Turn => Vec::new(),
            Request::Steer { text, again } => {
                if again {
                    self.unsaid.push_back(text);
                }
                self.settled()
            }
            // There is nothing to end any more, or it will be asked again.
            Request::Interrupt => {
                if let Turn::Running { interrupted, .. } = &mut self.turn {
                    *interrupted = false;
                }
                Vec::new()
            }
        }
    }

    fn open_thread(&mut self) -> Step {
        // No `cwd`: it works where it was started.
        let mut params = json!({
            "approvalPolicy": ASKS,
            "approvalsReviewer": "user",
            "sandbox": "danger-full-access",
        });
        match (self.resume.clone(), params.as_object_mut()) {
            (Some(session), Some(fields)) => {
                fields.insert("threadId".to_owned(), session.into());
                fields.insert("excludeTurns".to_owned(), true.into());
                self.request(Request::Thread, "thread/resume", &params)
            }
            _ => self.request(Request::Thread, "thread/start", &params),
        }
    }

    fn thread_opened(&mut self, result: &Value) -> Vec<Step> {
        let asks = text(result, &["approvalPolicy"]) == Some(ASKS)
            && text(result, &["approvalsReviewer"]).is_none_or(|who| who == "user");
        if !asks {
            return self.broken("its session would not ask before it acts");
        }
        let Some(id) = text(result, &["thread", "id"]).filter(|id| id.len() <= ID) else {
            return self.broken("its session has no name");
        };
        self.thread = Some(id.to_owned());
        self.settled()
    }

    /// What follows when nothing is under way: the next turn where there is something to say, else the end.
    fn settled(&mut self) -> Vec<Step> {
        let Some(thread) = self.thread.clone().filter(|_| !self.broken && self.turn == Turn::None) else {
            return Vec::new();
        };
        // Whether it took what it was told decides what its next turn begins with.
        if self.requests.values().any(|request| matches!(request, Request::Steer { again: true, .. })) {
            return Vec::new();
        }
        if self.unsaid.is_empty() {
            let told = std::mem::replace(&mut self.rests, true);
            return if told { Vec::new() } else { vec![Step::TurnEnded] };
        }
        let input: Vec<Value> = take(&mut self.unsaid).into_iter().map(said).collect();
        self.turn = Turn::Starting { interrupt: false };
        self.rests = false;
        vec![self.request(Request::Turn, "turn/start", &json!({ "threadId": thread, "input": input }))]
    }

    fn turn_started(&mut self, id: &str) -> Vec<Step> {
        let interrupt = match &self.turn {
            Turn::Running { id: running, .. } if running == id => return Vec::new(),
            Turn::Starting { interrupt } => *interrupt,
            _ => false,
        };
        self.turn = Turn::Running { id: id.to_owned(), interrupted: false };
        self.rests = false;
        if interrupt {
            return self.end_turn();
        }
        take(&mut self.unsaid).into_iter().flat_map(|text| self.steer(text, true)).collect()
    }

    fn turn_completed(&mut self, id: &str) -> Vec<Step> {
        let over: Vec<String> =
            self.open.iter().filter(|(_, open)| open.turn == id).map(|(id, _)| id.clone()).collect();
        let mut steps: Vec<Step> = over
            .into_iter()
            .map(|id| {
                self.open.remove(&id);
                Step::Withdrawn { id }
            })
            .collect();
        if matches!(&self.turn, Turn::Running { id: running, .. } if running == id) {
            self.turn = Turn::None;
            steps.extend(self.settled());
        }
        steps
    }

    fn end_turn(&mut self) -> Vec<Step> {
        let (Some(thread), Turn::Running { id, interrupted }) = (&self.thread, &mut self.turn) else {
            return Vec::new();
        };
        if std::mem::replace(interrupted, true) {
            return Vec::new();
        }
        let params = json!({ "threadId": thread, "turnId": id });
        vec![self.request(Request::Interrupt, "turn/interrupt", &params)]
    }

    /// Tells it something in the middle of its turn.
    fn steer(&mut self, text: String, again: bool) -> Vec<Step> {
        let (Some(thread), Turn::Running { id, .. }) = (&self.thread, &self.turn) else { return Vec::new() };
        let params = json!({ "threadId": thread, "expectedTurnId": id, "input": [said(text.clone())] });
        vec![self.request(Request::Steer { text, again }, "turn/steer", &params)]
    }

    /// It tells of something.
    fn notified(&mut self, method: &str, params: &Value, size: usize) -> Vec<Step> {
        let of_thread = self.thread.is_some() && text(params, &["threadId"]) == self.thread.as_deref();
        match method {
            "item/started" => self.changes.begun(params.get("item"), size),
            "item/fileChange/patchUpdated" => self.changes.changed(params, size),
            "item/completed" => self.changes.ended(text(params, &["item", "id"]).unwrap_or_default()),
            "turn/started" if of_thread => {
                if let Some(id) = text(params, &["turn", "id"]).filter(|id| id.len() <= ID) {
                    return self.turn_started(id);
                }
            }
            "turn/completed" if of_thread => {
                return self.turn_completed(text(params, &["turn", "id"]).unwrap_or_default());
            }
            "thread/settings/updated" if of_thread => {
                let policy = params.get("threadSettings").and_then(|settings| settings.get("approvalPolicy"));
                if policy.is_some_and(|policy| policy.as_str() != Some(ASKS)) {
                    return self.broken("its session does not ask before it acts any more");
                }
            }
            "serverRequest/resolved" => {
                let resolved = params.get("requestId");
                let open = self.open.iter().find(|(_, open)| Some(&open.rpc) == resolved);
                if let Some(id) = open.map(|(id, _)| id.clone()) {
                    self.open.remove(&id);
                    return vec![Step::Withdrawn { id }];
                }
            }
            _ => {}
        }
        Vec::new()
    }

    /// It wants something.
    fn wanted(&mut self, method: &str, rpc: &Value, params: &Value, size: usize) -> Vec<Step> {
        if !(rpc.is_u64() || rpc.is_i64() || rpc.as_str().is_some_and(|id| id.len() <= ID)) {
            return no(rpc, method, "its question has no id that an answer could name");
        }
        let action = match method {
            "item/commandExecution/requestApproval" => action::of_command(params, size),
            "item/fileChange/requestApproval" => self.changes.action(params),
            _ => return not_offered(method, rpc),
        };
        let twice = self.open.iter().find(|(_, open)| open.rpc == *rpc).map(|(id, _)| id.clone());
        if let Some(id) = twice {
            // One answer would be read as the answer to either.
            self.open.remove(&id);
            let mut steps = vec![Step::Withdrawn { id }];
            steps.extend(no(rpc, method, "it asked two questions under one id"));
            return steps;
        }
        let action = match action {
            Ok(action) if self.open.len() < OPEN => action,
            Ok(action) => return no(rpc, &action.title, "too many of its questions wait already"),
            Err(why) => return no(rpc, method, why),
        };
        self.last_question = self.last_question.saturating_add(1);
        let id = format!("{}:{rpc}", self.last_question);
        let turn = cut(text(params, &["turnId"]).unwrap_or_default(), ID);
        self.open.insert(id.clone(), Open { rpc: rpc.clone(), turn });
        vec![Step::Ask(Asked { id, action })]
    }
}

impl Conversation for AppServer {
    fn begin(&mut self) -> Vec<Step> {
        if self.last_request > 0 {
            return Vec::new();
        }
        let client = json!({ "name": "tipstaff", "title": "Tipstaff", "version": env!("CARGO_PKG_VERSION") });
        vec![self.request(Request::Initialize, "initialize", &json!({ "clientInfo": client }))]
    }

    fn line(&mut self, line: &str) -> Vec<Step> {
        if self.broken || line.len() > LINE {
            return Vec::new();
        }
        let Some(message) = serde_json::from_str::<Value>(line).ok().filter(Value::is_object) else {
            return Vec::new();
        };
        let params = message.get("params").unwrap_or(&Value::Null);
        match (message.get("method").map(Value::as_str), message.get("id")) {
            (Some(Some(method)), Some(id)) => self.wanted(method, id, params, line.len()),
            (Some(Some(method)), None) => self.notified(method, params, line.len()),
            (None, Some(_)) => self.answered(&message),
            _ => Vec::new(),
        }
    }

    fn answer(&mut self, id: &str, reply: &Reply) -> Vec<Step> {
        let Some(open) = self.open.remove(id) else { return Vec::new() };
        match reply {
            Reply::Allow => vec![decided(&open.rpc, ACCEPT)],
            Reply::Deny { interrupt: true, .. } => vec![decided(&open.rpc, CANCEL)],
            Reply::Deny { why, interrupt: false } => {
                // Its protocol has no place for a reason: it is told in the turn, or not at all.
                let mut steps = vec![decided(&open.rpc, DECLINE)];
                if !why.trim().is_empty() && self.requests.len() < UNANSWERED {
                    steps.extend(self.steer(format!("What you just asked for was refused: {why}"), false));
                }
                steps
            }
        }
    }

    fn say(&mut self, text: &str) -> Result<Vec<Step>, NotPossible> {
        if self.broken {
            return Err(NotPossible("the agent can't be spoken with any more"));
        }
        if self.unsaid.len() >= UNANSWERED || self.requests.len() >= UNANSWERED {
            return Err(NotPossible("the agent takes no more messages: it has not answered the last ones"));
        }
        if matches!(self.turn, Turn::Running { interrupted: false, .. }) {
            return Ok(self.steer(text.to_owned(), true));
        }
        self.unsaid.push_back(text.to_owned());
        Ok(self.settled())
    }

    fn interrupt(&mut self) -> Result<Vec<Step>, NotPossible> {
        match &mut self.turn {
            _ if self.broken => Err(NotPossible("the agent can't be spoken with any more")),
            Turn::None => Err(NotPossible("the agent has no turn that could be ended")),
            Turn::Starting { interrupt } => {
                *interrupt = true;
                Ok(Vec::new())
            }
            Turn::Running { .. } => Ok(self.end_turn()),
        }
    }
}

fn send(message: &Value) -> Step {
    Step::Send(message.to_string())
}

fn said(text: String) -> Value {
    json!({ "type": "text", "text": text })
}

fn decided(rpc: &Value, decision: &str) -> Step {
    send(&json!({ "id": rpc, "result": { "decision": decision } }))
}

/// A question that nobody is asked: no, and why.
fn no(rpc: &Value, wanted: &str, why: &str) -> Vec<Step> {
    let refused = Step::Refused { wanted: cut(wanted, 256), why: why.to_owned() };
    vec![decided(rpc, DECLINE), refused]
}

/// A request that is no question about an action.
fn not_offered(method: &str, rpc: &Value) -> Vec<Step> {
    /// Beginnings of methods that would act outside, or widen what it may do without being asked.
    const OUTSIDE: &[(&str, &str)] = &[
        ("fs/", "files are read and written inside the sandbox only"),
        ("terminal/", "commands are executed inside the sandbox only"),
        ("process/", "commands are executed inside the sandbox only"),
        ("command/", "commands are executed inside the sandbox only"),
        ("execCommandApproval", "it asked in a form that is too old to be understood"),
        ("applyPatchApproval", "it asked in a form that is too old to be understood"),
        ("item/permissions/", "the warrant says what it may do; a yes is for one action"),
        ("account/", "keys stay with the broker"),
    ];
    let error =
        json!({ "code": -32601, "message": "not offered: act inside your sandbox, or ask in your answer" });
    let mut steps = vec![send(&json!({ "id": rpc, "error": error }))];
    if let Some((_, why)) = OUTSIDE.iter().find(|(start, _)| method.starts_with(start)) {
        steps.push(Step::Refused { wanted: cut(method, 256), why: (*why).to_owned() });
    }
    steps
}

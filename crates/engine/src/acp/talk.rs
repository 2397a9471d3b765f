//! The conversation: handshake, session, prompts, questions.

use super::ask::{Options, action, outcome};
use super::calls::{Calls, call_id};
use super::modes::{Offer, Wanted, is_rash};
use super::{Message, VERSION, WORKSPACE, id, message};
use crate::conversation::{Asked, Conversation, NotPossible, Reply, Step};
use crate::invoke::Checked;
use crate::session::{below, cut, list, plain_error, text, title};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Longest line that is parsed, in bytes; a longer one is no step.
const LINE: usize = 16 * 1024 * 1024;
/// Questions that may be open at once.
const OPEN: usize = 64;
/// Messages that wait for the end of a turn.
const WAITING: usize = 64;
/// Refusals that are told of; more are refused all the same.
const REFUSALS: u32 = 64;
/// How often a session is put back into the mode that asks.
const MODE_CHANGES: u32 = 16;
/// Longest id of a request, of a session and of a method, in bytes.
const WORD: usize = 256;

/// JSON-RPC: there is no such method.
const UNKNOWN_METHOD: i32 = -32601;
/// JSON-RPC: the request makes no sense.
const BAD_REQUEST: i32 = -32600;
/// The protocol: sign in first.
const SIGN_IN: i64 = -32000;

/// What a conversation is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    /// What is said before the prompt, where the agent has no other place for it.
    pub(crate) preface: Option<String>,
    /// The prompt.
    pub(crate) prompt: String,
    /// The model, where one has to be chosen in the session.
    pub(crate) model: Option<String>,
    /// The session that is continued.
    pub(crate) resume: Option<String>,
}

impl Setup {
    /// For an agent that finds its model and its instructions in its own settings.
    pub(crate) fn of(asked: &Checked<'_>) -> Self {
        Self {
            preface: None,
            prompt: asked.prompt.to_owned(),
            model: None,
            resume: asked.resume().map(ToOwned::to_owned),
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Greeting,
    SigningIn,
    Opening,
    /// Mode and model are being chosen.
    Settling,
    /// The turn of the prompt with this id.
    Turn(u64),
    Idle,
    Broken,
}

/// A question that waits for its answer.
#[derive(Debug)]
struct Open {
    rpc: Value,
    options: Options,
}

/// A conversation with one agent.
#[derive(Debug)]
pub(crate) struct Talk {
    setup: Setup,
    phase: Phase,
    session: String,
    can_load: bool,
    can_resume: bool,
    key_method: Option<String>,
    settling: BTreeSet<u64>,
    modes: Option<Offer>,
    mode: Option<String>,
    mode_changes: u32,
    waiting: VecDeque<String>,
    next_prompt: u64,
    is_ending: bool,
    calls: Calls,
    open: BTreeMap<String, Open>,
    asked: u64,
    refused: u32,
}

impl Talk {
    pub(crate) fn new(setup: Setup) -> Self {
        let waiting = setup.preface.iter().chain([&setup.prompt]).cloned().collect();
        Self {
            setup,
            phase: Phase::New,
            session: String::new(),
            can_load: false,
            can_resume: false,
            key_method: None,
            settling: BTreeSet::new(),
            modes: None,
            mode: None,
            mode_changes: 0,
            waiting,
            next_prompt: id::PROMPT,
            is_ending: false,
            calls: Calls::default(),
            open: BTreeMap::new(),
            asked: 0,
            refused: 0,
        }
    }

    fn broken(&mut self, why: &str) -> Vec<Step> {
        self.phase = Phase::Broken;
        let mut steps: Vec<Step> =
            std::mem::take(&mut self.open).into_keys().map(|id| Step::Withdrawn { id }).collect();
        steps.push(Step::Broken(cut(why, 1024)));
        steps
    }

    /// Tells of something that is never done, as often as that helps anybody.
    fn refusal(&mut self, wanted: &str, why: &str) -> Option<Step> {
        self.refused = self.refused.saturating_add(1);
        (self.refused <= REFUSALS).then(|| Step::Refused { wanted: title(wanted), why: why.to_owned() })
    }

    fn response(&mut self, answered: u64, result: Result<&Value, &Value>) -> Vec<Step> {
        match (self.phase, answered) {
            (Phase::Greeting, id::INITIALIZE) => match result {
                Ok(greeting) => self.greeted(greeting),
                Err(error) => self.broken(&format!("it does not begin: {}", told(error))),
            },
            (Phase::SigningIn, id::AUTHENTICATE) => match result {
                Ok(_) => self.open_session(id::SESSION_AGAIN),
                Err(error) => self.broken(&format!("it can't be signed in to: {}", told(error))),
            },
            (Phase::Opening, id::SESSION | id::SESSION_AGAIN) => match result {
                Ok(session) => self.opened(session),
                Err(error) => self.not_opened(answered, error),
            },
            (Phase::Settling, id::MODE | id::MODEL) if self.settling.remove(&answered) => {
                if let Err(error) = result {
                    let what = if answered == id::MODE { "the mode that asks" } else { "the model" };
                    return self.broken(&format!("it does not take {what}: {}", told(error)));
                }
                if self.settling.is_empty() { self.prompt() } else { Vec::new() }
            }
            (Phase::Turn(turn), _) if answered == turn => self.turn_ended(),
            _ => Vec::new(),
        }
    }

    fn greeted(&mut self, greeting: &Value) -> Vec<Step> {
        let version = greeting.get("protocolVersion").and_then(Value::as_u64);
        if version != Some(VERSION) {
            let version =
                version.map_or_else(|| "none that it names".to_owned(), |version| version.to_string());
            return self.broken(&format!(
                "it speaks version {version} of the Agent Client Protocol; we speak version {VERSION}"
            ));
        }
        let can = |path: &[&str]| below(greeting, path).is_some_and(|value| !value.is_null());
        self.can_load = below(greeting, &["agentCapabilities", "loadSession"]) == Some(&Value::Bool(true));
        self.can_resume = can(&["agentCapabilities", "sessionCapabilities", "resume"]);
        let methods = list(greeting, &["authMethods"]).iter().take(64);
        let ids = methods.filter_map(|method| text(method, &["id"]).filter(|id| id.len() <= WORD));
        // A key is in its environment already; nobody is there to sign in with a browser.
        self.key_method = ids.filter(|id| id.contains("key")).map(ToOwned::to_owned).next();
        if self.setup.resume.is_some() && !self.can_load && !self.can_resume {
            return self.broken("it can't continue a session: it offers no session/load");
        }
        self.open_session(id::SESSION)
    }

    fn open_session(&mut self, request: u64) -> Vec<Step> {
        self.phase = Phase::Opening;
        let nothing = json!([]);
        let (method, params) = match &self.setup.resume {
            Some(known) => {
                let method = if self.can_load { "session/load" } else { "session/resume" };
                (method, json!({ "sessionId": known, "cwd": WORKSPACE, "mcpServers": nothing }))
            }
            None => ("session/new", json!({ "cwd": WORKSPACE, "mcpServers": nothing })),
        };
        vec![request_line(request, method, &params)]
    }

    fn not_opened(&mut self, answered: u64, error: &Value) -> Vec<Step> {
        let wants_sign_in = error.get("code").and_then(Value::as_i64) == Some(SIGN_IN);
        if let Some(method) = self.key_method.take()
            && wants_sign_in
            && answered == id::SESSION
        {
            self.phase = Phase::SigningIn;
            return vec![request_line(id::AUTHENTICATE, "authenticate", &json!({ "methodId": method }))];
        }
        self.broken(&format!("it opens no session: {}", told(error)))
    }

    fn opened(&mut self, session: &Value) -> Vec<Step> {
        let known = self.setup.resume.clone();
        let Some(id) = known.or_else(|| text(session, &["sessionId"]).map(ToOwned::to_owned)) else {
            return self.broken("it opens a session without an id");
        };
        if id.is_empty() || id.len() > WORD {
            return self.broken("the id of its session is empty or too long");
        }
        self.session = id;
        self.phase = Phase::Settling;
        let mut steps = Vec::new();
        self.modes = Offer::modes(session);
        match self.modes.as_ref().map(Offer::asking) {
            Some(Wanted::Other(mode)) => {
                let chosen = self.modes.as_ref().map(|offer| offer.choosing_mode(&self.session, &mode));
                if let Some((method, params)) = chosen {
                    steps.push(request_line(id::MODE, method, &params));
                    self.settling.insert(id::MODE);
                }
                self.mode = Some(mode);
            }
            Some(Wanted::Current) => {
                self.mode = self.modes.as_ref().map(|offer| offer.current().to_owned());
            }
            Some(Wanted::None) => steps.extend(self.refusal(
                "a session in a mode that asks",
                "the agent offers no mode that asks before it acts: its questions are not complete",
            )),
            None => {}
        }
        if let (Some(model), Some(offer)) = (self.setup.model.as_deref(), Offer::models(session))
            && let Wanted::Other(value) = offer.model(model)
        {
            let (method, params) = offer.choosing_model(&self.session, &value);
            steps.push(request_line(id::MODEL, method, &params));
            self.settling.insert(id::MODEL);
        }
        if self.settling.is_empty() {
            steps.extend(self.prompt());
        }
        steps
    }

    /// Says all that waits, as one prompt.
    fn prompt(&mut self) -> Vec<Step> {
        let blocks: Vec<Value> =
            self.waiting.drain(..).map(|text| json!({ "type": "text", "text": text })).collect();
        let turn = self.next_prompt;
        self.next_prompt = turn.saturating_add(1);
        self.phase = Phase::Turn(turn);
        let params = json!({ "sessionId": self.session, "prompt": blocks });
        vec![request_line(turn, "session/prompt", &params)]
    }

    fn turn_ended(&mut self) -> Vec<Step> {
        let mut steps = self.take_back_questions();
        self.is_ending = false;
        if self.waiting.is_empty() {
            self.phase = Phase::Idle;
            steps.push(Step::TurnEnded);
        } else {
            steps.extend(self.prompt());
        }
        steps
    }

    fn take_back_questions(&mut self) -> Vec<Step> {
        let open = std::mem::take(&mut self.open);
        open.into_iter()
            .flat_map(|(id, open)| [result_line(&open.rpc, &outcome(None)), Step::Withdrawn { id }])
            .collect()
    }

    fn request(&mut self, rpc: Value, method: &str, params: &Value) -> Vec<Step> {
        let is_id = match &rpc {
            Value::Number(number) => number.is_i64() || number.is_u64(),
            Value::String(text) => text.len() <= WORD,
            _ => false,
        };
        if !is_id {
            return vec![error_line(&Value::Null, BAD_REQUEST, "the id is no number and no short text")];
        }
        if method == "session/request_permission" {
            return self.question(rpc, params);
        }
        let outside = method.starts_with("fs/") || method.starts_with("terminal/");
        if outside {
            let what = text(params, &["path"]).or_else(|| text(params, &["command"])).unwrap_or_default();
            let why = "it would be done outside of the sandbox; the agent has tools of its own inside";
            let refusal = self.refusal(&format!("{} {what}", cut(method, WORD)), why);
            let answer = error_line(
                &rpc,
                UNKNOWN_METHOD,
                "not offered: nothing is done for an agent outside of its sandbox",
            );
            return std::iter::once(answer).chain(refusal).collect();
        }
        vec![error_line(&rpc, UNKNOWN_METHOD, "there is no such method here")]
    }

    fn question(&mut self, rpc: Value, params: &Value) -> Vec<Step> {
        let no = |talk: &mut Self, why: &str| -> Vec<Step> {
            let wanted = text(params, &["toolCall", "title"]).unwrap_or("session/request_permission");
            let refusal = talk.refusal(wanted, why);
            std::iter::once(result_line(&rpc, &outcome(None))).chain(refusal).collect()
        };
        let same: Vec<String> =
            self.open.iter().filter(|(_, open)| open.rpc == rpc).map(|(id, _)| id.clone()).collect();
        if !same.is_empty() {
            // An answer would be good for both: neither gets one.
            for id in &same {
                self.open.remove(id);
            }
            let mut steps: Vec<Step> = same.into_iter().map(|id| Step::Withdrawn { id }).collect();
            steps.extend(no(self, "it asked two questions under one id"));
            return steps;
        }
        let Some(call) = params.get("toolCall").filter(|call| call.is_object()) else {
            return no(self, "the question can't be read");
        };
        if self.is_ending || !matches!(self.phase, Phase::Turn(_)) {
            return vec![result_line(&rpc, &outcome(None))];
        }
        if self.open.len() >= OPEN {
            return no(self, "it asks too many questions at once");
        }
        let call = self.calls.with(call);
        match action(&call) {
            Ok(action) => {
                self.asked = self.asked.saturating_add(1);
                // Ids may be used again by the agent; ours are not.
                let id = format!("{}:{rpc}", self.asked);
                self.open.insert(id.clone(), Open { rpc, options: Options::of(params) });
                vec![Step::Ask(Asked { id, action })]
            }
            Err(why) => no(self, why),
        }
    }

    fn notice(&mut self, method: &str, params: &Value) -> Vec<Step> {
        match method {
            "session/update" => params.get("update").map(|update| self.update(update)).unwrap_or_default(),
            // It takes back a request of its own.
            "$/cancel_request" => {
                let Some(rpc) = params.get("requestId") else { return Vec::new() };
                let id = self.open.iter().find(|(_, open)| open.rpc == *rpc).map(|(id, _)| id.clone());
                let Some(id) = id else { return Vec::new() };
                self.open.remove(&id);
                vec![result_line(rpc, &outcome(None)), Step::Withdrawn { id }]
            }
            _ => Vec::new(),
        }
    }

    fn update(&mut self, update: &Value) -> Vec<Step> {
        match text(update, &["sessionUpdate"]) {
            Some("tool_call" | "tool_call_update") => {
                match (text(update, &["status"]), call_id(update)) {
                    (Some("completed" | "failed"), Some(id)) => self.calls.forget(id),
                    _ => {
                        self.calls.learn(update);
                    }
                }
                Vec::new()
            }
            Some("current_mode_update") => {
                let now = text(update, &["currentModeId"]).unwrap_or_default().to_owned();
                self.mode_changed(&now)
            }
            Some("config_option_update") => {
                let now = Offer::modes(update).map(|offer| offer.current().to_owned());
                now.map(|now| self.mode_changed(&now)).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// It changed its mode by itself. One that does not ask is not what the run was begun with.
    fn mode_changed(&mut self, now: &str) -> Vec<Step> {
        let Some(wanted) = self.mode.clone().filter(|wanted| wanted != now && is_rash(now)) else {
            return Vec::new();
        };
        self.mode_changes = self.mode_changes.saturating_add(1);
        if self.mode_changes > MODE_CHANGES {
            return Vec::new();
        }
        let Some(offer) = &self.modes else { return Vec::new() };
        let (method, params) = offer.choosing_mode(&self.session, &wanted);
        let mut steps = vec![request_line(id::MODE_AGAIN, method, &params)];
        steps.extend(
            self.refusal(&format!("the mode {now}"), "an attended agent stays in the mode that asks"),
        );
        steps
    }

    fn cancel(&mut self) -> Vec<Step> {
        self.is_ending = true;
        let mut steps = vec![notice_line("session/cancel", &json!({ "sessionId": self.session }))];
        steps.extend(self.take_back_questions());
        steps
    }
}

impl Conversation for Talk {
    fn begin(&mut self) -> Vec<Step> {
        if self.phase != Phase::New {
            return Vec::new();
        }
        self.phase = Phase::Greeting;
        let params = json!({
            "protocolVersion": VERSION,
            "clientInfo": { "name": "tipstaff", "version": env!("CARGO_PKG_VERSION") },
            "clientCapabilities": {
                "fs": { "readTextFile": false, "writeTextFile": false }, "terminal": false,
            },
        });
        vec![request_line(id::INITIALIZE, "initialize", &params)]
    }

    fn line(&mut self, line: &str) -> Vec<Step> {
        if self.phase == Phase::Broken || line.len() > LINE {
            return Vec::new();
        }
        let Ok(value) = serde_json::from_str::<Value>(line) else { return Vec::new() };
        match message(&value) {
            Some(Message::Request { id, method, params }) => self.request(id, method, params),
            Some(Message::Notice { method, params }) => self.notice(method, params),
            Some(Message::Response { id, result }) => self.response(id, result),
            None => Vec::new(),
        }
    }

    fn answer(&mut self, id: &str, reply: &Reply) -> Vec<Step> {
        let Some(Open { rpc, options }) = self.open.remove(id) else { return Vec::new() };
        match reply {
            Reply::Allow => {
                let mut steps = vec![result_line(&rpc, &outcome(options.allow.as_deref()))];
                if options.allow.is_none() {
                    let why = "it offers no way to allow this once, and nothing is allowed for ever";
                    steps.extend(self.refusal("an answer that holds for ever", why));
                }
                steps
            }
            Reply::Deny { interrupt, .. } => {
                let mut steps = vec![result_line(&rpc, &outcome(options.reject.as_deref()))];
                if *interrupt && !self.is_ending && matches!(self.phase, Phase::Turn(_)) {
                    steps.extend(self.cancel());
                }
                steps
            }
        }
    }

    fn say(&mut self, text: &str) -> Result<Vec<Step>, NotPossible> {
        if self.phase == Phase::Broken {
            return Err(NotPossible("the conversation with the agent has broken off"));
        }
        if self.waiting.len() >= WAITING {
            return Err(NotPossible("64 messages wait already for the end of the agent's turn"));
        }
        self.waiting.push_back(text.to_owned());
        Ok(if self.phase == Phase::Idle { self.prompt() } else { Vec::new() })
    }

    fn interrupt(&mut self) -> Result<Vec<Step>, NotPossible> {
        match self.phase {
            Phase::Turn(_) if self.is_ending => Ok(Vec::new()),
            Phase::Turn(_) => Ok(self.cancel()),
            _ => Err(NotPossible("the agent has no turn that could be ended now")),
        }
    }
}

fn request_line(id: u64, method: &str, params: &Value) -> Step {
    line(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
}

fn notice_line(method: &str, params: &Value) -> Step {
    line(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
}

fn result_line(id: &Value, result: &Value) -> Step {
    line(&json!({ "jsonrpc": "2.0", "id": id, "result": result }))
}

fn error_line(id: &Value, code: i32, message: &str) -> Step {
    line(&json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }))
}

/// JSON as text has no line ends in it.
fn line(value: &Value) -> Step {
    Step::Send(value.to_string())
}

/// What an error of JSON-RPC says.
pub(super) fn told(error: &Value) -> String {
    let said = text(error, &["message"]).unwrap_or("an error without a message");
    let more = ["details", "message", "error"].iter().find_map(|key| text(error, &["data", key]));
    let more = more.or_else(|| text(error, &["data"])).filter(|more| !said.contains(more));
    plain_error(&more.map_or_else(|| said.to_owned(), |more| format!("{said}: {more}")))
}

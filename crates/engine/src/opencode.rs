//! The `opencode` engine: `opencode run`, for models of many providers.

use crate::acp::{self, Setup, Talk};
use crate::invoke::{Checked, INSTRUCTIONS, PLACEHOLDER, json_file, variables, words};
use crate::session::{
    Dialect, JsonLines, Outcome, Session, below, call_title, count, cut, list, micro_usd, output,
    plain_error, text,
};
use crate::{
    Conversation, Engine, EngineError, EngineRequest, HomeFile, Invocation, Models, Program, SessionReader,
};
use serde_json::{Value, json};
use tipstaff_model::{AgentEvent, EngineKind, FileChangeKind, Usage};

/// `OpenCode`.
pub(crate) struct OpenCode;

const PROGRAM: Program = Program {
    name: "opencode",
    install: "npm install -g opencode-ai@1.18.33",
    tested: "1.18.33",
    oldest: "1.0.0",
    version_args: &["--version"],
};

const MODELS: Models = Models { provider: "anthropic", default: "claude-sonnet-5-5", besides: &[] };

/// Its name for our provider. Only this one is enabled: it ships free remote models, and would ask them.
const PROVIDER: &str = "tipstaff";

impl Engine for OpenCode {
    fn kind(&self) -> EngineKind {
        EngineKind::OpenCode
    }

    fn summary(&self) -> &'static str {
        "OpenCode (opencode), with models of Anthropic, OpenAI, Google or any compatible server"
    }

    fn program(&self) -> Option<&'static Program> {
        Some(&PROGRAM)
    }

    fn models(&self) -> Option<&'static Models> {
        Some(&MODELS)
    }

    fn invocation(&self, request: &EngineRequest<'_>) -> Result<Invocation, EngineError> {
        let asked = Checked::new(self.kind(), &MODELS, request)?;
        let (package, below) = dialect(asked.provider);
        let model = format!("{PROVIDER}/{}", asked.model);
        let usual = if asked.attended() { "ask" } else { "allow" };
        let config = json!({
            "model": model,
            "small_model": model,
            "autoupdate": false,
            "share": "disabled",
            // Copies of the whole workspace beside its session, for taking changes back: that is what quarantine is for.
            "snapshot": false,
            "enabled_providers": [PROVIDER],
            "instructions": [asked.at_home(INSTRUCTIONS)],
            // The sandbox is the wall. Where nobody looks on there is nobody to answer a question.
            "permission": { "*": usual, "edit": if asked.may_write() { usual } else { "deny" } },
            "provider": { PROVIDER: {
                "npm": package,
                "name": asked.provider,
                "options": { "baseURL": asked.upstream(below), "apiKey": PLACEHOLDER },
                "models": { asked.model: { "name": asked.model } },
            } },
        });
        let config = json_file(".config/opencode/opencode.json", &config);
        // At each start it wants a package of its own from the npm registry, and works without. This holds for its
        // folder only: the agent's own npm asks as ever.
        let npm =
            HomeFile { path: ".config/opencode/.npmrc".to_owned(), content: "offline=true\n".to_owned() };
        let mut home = vec![config, npm, asked.instructions_file()];
        let argv = if asked.attended() {
            words([PROGRAM.name, "acp", "--pure"])
        } else {
            home.insert(0, asked.prompt_file());
            let mut argv = words([PROGRAM.name, "run", "--format=json", "--thinking", "--pure"]);
            if let Some(session) = asked.resume() {
                argv.push(format!("--session={session}"));
            }
            asked.reading_prompt(argv)
        };
        Ok(Invocation {
            argv,
            env: variables([
                ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
                ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
                ("OPENCODE_DISABLE_SHARE", "1"),
                ("OPENCODE_DISABLE_TERMINAL_TITLE", "1"),
            ]),
            home,
        })
    }

    fn reader(&self) -> Option<Box<dyn SessionReader>> {
        Some(JsonLines::boxed(Output::default()))
    }

    fn attended_reader(&self) -> Option<Box<dyn SessionReader>> {
        Some(JsonLines::boxed(acp::Output::default()))
    }

    fn conversation(
        &self,
        request: &EngineRequest<'_>,
    ) -> Result<Option<Box<dyn Conversation>>, EngineError> {
        let asked = Checked::new(self.kind(), &MODELS, request)?;
        Ok(Some(Box::new(Talk::new(Setup::of(&asked)))))
    }

    fn session_folders(&self) -> &'static [&'static str] {
        &[".local/share/opencode"]
    }
}

/// The client package for a provider, built into the program, and where its API begins below the upstream.
fn dialect(provider: &str) -> (&'static str, &'static str) {
    match provider {
        "anthropic" => ("@ai-sdk/anthropic", "/v1"),
        "openai" => ("@ai-sdk/openai", "/v1"),
        "gemini" => ("@ai-sdk/google", "/v1beta"),
        _ => ("@ai-sdk/openai-compatible", "/v1"),
    }
}

/// Empty answers in a row after which it won't find its way any more.
const EMPTY_ANSWERS: u32 = 10;

/// How it says things: `run --format json`.
#[derive(Default)]
struct Output {
    has_started: bool,
    steps: u64,
    empty_answers: u32,
}

impl Dialect for Output {
    fn events(&mut self, value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
        let kind = text(value, &["type"])?;
        let mut events = Vec::new();
        if !self.has_started {
            let id = text(value, &["sessionID"])?;
            self.has_started = true;
            events.push(AgentEvent::Started { session: Some(cut(id, 256)), model: None, version: None });
        }
        let more = match kind {
            "step_start" => Some(Vec::new()),
            "text" => text(value, &["part", "text"]).map(|said| {
                session.said(said);
                vec![AgentEvent::Text { text: said.to_owned(), delta: false }]
            }),
            "reasoning" => text(value, &["part", "text"])
                .map(|text| vec![AgentEvent::Thinking { text: text.to_owned(), delta: false }]),
            "tool_use" => value.get("part").and_then(|part| tool(part, session)),
            "step_finish" => value.get("part").and_then(|part| self.step(part, session)),
            "error" => value.get("error").map(|error| {
                let said = text(error, &["data", "message"]).or_else(|| text(error, &["message"]));
                let said = said.or_else(|| text(error, &["name"])).unwrap_or("an error without a message");
                session.outcome = Some(Outcome::Failed(plain_error(said)));
                vec![session.error(said, true)]
            }),
            _ => None,
        };
        match more {
            Some(more) => events.extend(more),
            None => events.push(AgentEvent::Raw { value: value.clone() }),
        }
        if matches!(kind, "text" | "tool_use") {
            self.empty_answers = 0;
        }
        Some(events)
    }
}

impl Output {
    /// One answer of the model ended. `stop` is the end of the work; after `tool-calls` it goes on.
    fn step(&mut self, part: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
        let reason = text(part, &["reason"])?;
        self.steps = self.steps.saturating_add(1);
        let usage = usage(part);
        let claimed_micro_usd = micro_usd(part.get("cost")).filter(|cost| *cost > 0);
        let mut events = Vec::new();
        if usage != Usage::default() {
            events.push(AgentEvent::Usage { usage, claimed_micro_usd });
        }
        match reason {
            "tool-calls" => session.outcome = None,
            "stop" => events.push(session.finished(Outcome::Done, Some(self.steps))),
            // It asks again and again when an answer makes no sense, without an end and without an error.
            "unknown" | "other" if usage == Usage::default() => {
                self.empty_answers = self.empty_answers.saturating_add(1);
                let why = "the model's answers hold nothing that it understands";
                session.outcome = Some(Outcome::Failed(why.to_owned()));
                if self.empty_answers == EMPTY_ANSWERS {
                    events.push(session.error(why, true));
                }
            }
            _ => {
                let why = format!("the model's last answer ended early: {}", cut(reason, 64));
                session.outcome = Some(Outcome::Failed(why));
            }
        }
        Some(events)
    }
}

/// Its figures don't overlap, reasoning apart from output.
fn usage(part: &Value) -> Usage {
    let reasoning = count(part, &["tokens", "reasoning"]);
    Usage {
        input: count(part, &["tokens", "input"]),
        cache_read: count(part, &["tokens", "cache", "read"]),
        cache_write: count(part, &["tokens", "cache", "write"]),
        cache_write_1h: 0,
        output: count(part, &["tokens", "output"]).saturating_add(reasoning),
        reasoning,
    }
}

/// It tells of a call when it is answered.
fn tool(part: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
    let (id, name, state) = (text(part, &["callID"])?, text(part, &["tool"])?, part.get("state")?);
    let input = state.get("input").cloned().unwrap_or(Value::Null);
    let exit = below(state, &["metadata", "exit"]).and_then(Value::as_i64).unwrap_or(0);
    // A call of a tool that does not exist is answered by a tool of this name.
    let ok = text(state, &["status"])? == "completed" && exit == 0 && name != "invalid";
    if ok {
        session.worked(name);
    }
    let said = text(state, &["output"]).or_else(|| text(state, &["error"])).unwrap_or_default();
    let mut events = vec![
        AgentEvent::ToolCall {
            id: id.to_owned(),
            name: name.to_owned(),
            title: call_title(name, &input),
            input,
        },
        AgentEvent::ToolResult { id: id.to_owned(), ok, output: output(said) },
    ];
    if ok {
        events.extend(file_changes(name, state));
    }
    Some(events)
}

fn file_changes(name: &str, state: &Value) -> Vec<AgentEvent> {
    let change_of = |path: &str, change| AgentEvent::FileChange { path: cut(path, 4096), change };
    match name {
        "write" => {
            let is_new = below(state, &["metadata", "exists"]).and_then(Value::as_bool) == Some(false);
            let change = if is_new { FileChangeKind::Added } else { FileChangeKind::Changed };
            text(state, &["input", "filePath"]).map(|path| change_of(path, change)).into_iter().collect()
        }
        "edit" => {
            let path = text(state, &["input", "filePath"]);
            path.map(|path| change_of(path, FileChangeKind::Changed)).into_iter().collect()
        }
        "apply_patch" => {
            let files = list(state, &["metadata", "files"]).iter();
            files
                .filter_map(|file| {
                    let change = match text(file, &["type"])? {
                        "add" => FileChangeKind::Added,
                        "delete" => FileChangeKind::Deleted,
                        _ => FileChangeKind::Changed,
                    };
                    Some(change_of(text(file, &["filePath"])?, change))
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

//! The `qwen` engine: Alibaba's `qwen`, which asks OpenAI Chat Completions; attended, it speaks the Agent Client Protocol.

use crate::acp::{self, Setup, Talk};
use crate::invoke::{Checked, PLACEHOLDER, json_file, variables, words};
use crate::session::{
    Dialect, JsonLines, Outcome, Session, call_title, count, cut, list, output, plain_error, text,
};
use crate::{
    Conversation, Engine, EngineError, EngineRequest, HomeFile, Invocation, Models, Program, SessionReader,
};
use serde_json::{Value, json};
use tipstaff_model::{AgentEvent, EngineKind, FileChangeKind, Usage};

/// Qwen Code.
pub(crate) struct Qwen;

const PROGRAM: Program = Program {
    name: "qwen",
    install: "npm install -g @qwen-code/qwen-code@0.24.4",
    tested: "0.24.4",
    oldest: "0.10.0",
    version_args: &["--version"],
};

const MODELS: Models = Models { provider: "openai", default: "gpt-5.5", besides: &[] };

impl Engine for Qwen {
    fn kind(&self) -> EngineKind {
        EngineKind::Qwen
    }

    fn summary(&self) -> &'static str {
        "Qwen Code (qwen), with models of OpenAI or any server that answers as it does"
    }

    fn program(&self) -> Option<&'static Program> {
        Some(&PROGRAM)
    }

    fn models(&self) -> Option<&'static Models> {
        Some(&MODELS)
    }

    fn invocation(&self, request: &EngineRequest<'_>) -> Result<Invocation, EngineError> {
        let asked = Checked::new(self.kind(), &MODELS, request)?;
        let mut argv = words([PROGRAM.name]);
        argv.extend(if asked.attended() {
            words(["--acp", "--approval-mode=default"])
        } else {
            words(["--output-format=stream-json", "--approval-mode=yolo"])
        });
        argv.push("--auth-type=openai".to_owned());
        argv.push(format!("--model={}", asked.model));
        let without: &[&str] = if asked.may_write() { &[] } else { &["write_file", "edit"] };
        let settings = json!({
            "security": { "auth": { "selectedType": "openai" } },
            "privacy": { "usageStatisticsEnabled": false },
            "telemetry": { "enabled": false },
            "context": { "fileName": ["QWEN.md", "AGENTS.md"] },
            "tools": { "exclude": without },
            "general": { "enableAutoUpdate": false },
        });
        let context = HomeFile { path: ".qwen/QWEN.md".to_owned(), content: asked.instructions.clone() };
        let mut home = vec![json_file(".qwen/settings.json", &settings), context];
        if !asked.attended() {
            if let Some(session) = asked.resume() {
                argv.push(format!("--resume={session}"));
            }
            argv = asked.reading_prompt(argv);
            home.insert(0, asked.prompt_file());
        }
        let upstream = asked.upstream("/v1");
        Ok(Invocation {
            argv,
            env: variables([
                ("OPENAI_BASE_URL", &upstream),
                ("OPENAI_API_KEY", PLACEHOLDER),
                ("OPENAI_MODEL", asked.model),
                ("QWEN_CODE_SUPPRESS_YOLO_WARNING", "1"),
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
        &[".qwen/projects"]
    }
}

/// How an error of the model's server begins: it is told of as if the model had said it.
const API_ERROR: &str = "[API Error";

/// How it says things: `--output-format stream-json`.
#[derive(Default)]
struct Output {
    /// Names of tools whose calls were denied.
    denied: Vec<String>,
}

impl Dialect for Output {
    fn events(&mut self, value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
        match (text(value, &["type"])?, text(value, &["subtype"])) {
            ("system", Some("init")) => Some(vec![AgentEvent::Started {
                session: text(value, &["session_id"]).map(|id| cut(id, 256)),
                model: text(value, &["model"]).map(|model| cut(model, 256)),
                version: text(value, &["qwen_code_version"]).map(|version| cut(version, 256)),
            }]),
            ("assistant", _) => assistant(value, session),
            ("user", _) => answers(value, session),
            ("result", subtype) => Some(self.result(value, subtype, session)),
            // The state of a goal that it keeps beside the work.
            ("stream_event", _) => (text(value, &["event", "type"]) == Some("goal_state")).then(Vec::new),
            _ => None,
        }
    }

    fn objection(&self, session: &Session) -> Option<String> {
        let missing: Vec<&str> =
            self.denied.iter().filter(|name| !session.worked.contains(name)).map(String::as_str).collect();
        (!missing.is_empty()).then(|| {
            format!("it says that it is done, but it was not permitted to use {}", missing.join(", "))
        })
    }
}

impl Output {
    fn result(&mut self, value: &Value, subtype: Option<&str>, session: &mut Session) -> Vec<AgentEvent> {
        self.denied.clear();
        for denial in list(value, &["permission_denials"]).iter().take(64) {
            let name = cut(text(denial, &["tool_name"]).unwrap_or("a tool"), 64);
            if !self.denied.contains(&name) {
                self.denied.push(name);
            }
        }
        let said = text(value, &["result"]).unwrap_or_default();
        let ok = value.get("is_error").and_then(Value::as_bool) == Some(false) && subtype == Some("success");
        let outcome = if ok && !said.starts_with(API_ERROR) {
            session.said(said);
            Outcome::Done
        } else {
            let why = [text(value, &["error", "message"]).unwrap_or_default(), said];
            let why = why.into_iter().find(|why| !why.is_empty());
            Outcome::Failed(plain_error(why.unwrap_or("its result is an error")))
        };
        vec![
            AgentEvent::Usage { usage: usage(value), claimed_micro_usd: None },
            session.finished(outcome, value.get("num_turns").and_then(Value::as_u64)),
        ]
    }
}

/// Cached input is a part of its input.
fn usage(value: &Value) -> Usage {
    let input = count(value, &["usage", "input_tokens"]);
    let cache_read = count(value, &["usage", "cache_read_input_tokens"]);
    Usage {
        input: input.saturating_sub(cache_read),
        cache_read,
        output: count(value, &["usage", "output_tokens"]),
        ..Usage::default()
    }
}

fn assistant(value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
    let mut events = Vec::new();
    for block in blocks(value)? {
        let event = match text(block, &["type"]) {
            Some("text") => text(block, &["text"]).map(|said| {
                if said.starts_with(API_ERROR) {
                    return session.error(&plain_error(said), false);
                }
                session.said(said);
                AgentEvent::Text { text: said.to_owned(), delta: false }
            }),
            Some("thinking") => text(block, &["thinking"])
                .map(|thought| AgentEvent::Thinking { text: thought.to_owned(), delta: false }),
            Some("tool_use") => call(block, session),
            _ => None,
        };
        events.push(event.unwrap_or_else(|| AgentEvent::Raw { value: block.clone() }));
    }
    Some(events)
}

fn blocks(value: &Value) -> Option<&Vec<Value>> {
    crate::session::below(value, &["message", "content"])?.as_array()
}

fn call(block: &Value, session: &mut Session) -> Option<AgentEvent> {
    let (id, name) = (text(block, &["id"])?, text(block, &["name"])?);
    let input = block.get("input").cloned().unwrap_or(Value::Null);
    let path = text(&input, &["file_path"]).filter(|_| matches!(name, "write_file" | "edit"));
    session.call(id, name, path.map(|path| cut(path, 4096)));
    let title = call_title(name, &input);
    Some(AgentEvent::ToolCall { id: id.to_owned(), name: name.to_owned(), title, input })
}

/// Answers of tools come as messages of the user.
fn answers(value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
    let mut events = Vec::new();
    for block in blocks(value)? {
        let id = text(block, &["tool_use_id"]).filter(|_| text(block, &["type"]) == Some("tool_result"));
        let Some(id) = id else {
            events.push(AgentEvent::Raw { value: block.clone() });
            continue;
        };
        let ok = block.get("is_error").and_then(Value::as_bool) != Some(true);
        let said = match block.get("content") {
            Some(Value::String(said)) => said.clone(),
            Some(Value::Array(parts)) => {
                parts.iter().filter_map(|part| text(part, &["text"])).collect::<Vec<_>>().join("\n")
            }
            _ => String::new(),
        };
        events.push(AgentEvent::ToolResult { id: id.to_owned(), ok, output: output(&said) });
        if let Some(path) = session.answered(id, ok).and_then(|call| call.path).filter(|_| ok) {
            let is_new = said.contains("created and wrote to new file");
            let change = if is_new { FileChangeKind::Added } else { FileChangeKind::Changed };
            events.push(AgentEvent::FileChange { path, change });
        }
    }
    Some(events)
}

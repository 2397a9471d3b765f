//! The `gemini` engine: Google's `gemini`, which asks Gemini's generateContent.

use crate::acp::{self, Setup, Talk};
use crate::invoke::{Checked, PLACEHOLDER, json_file, variables, words};
use crate::session::{
    Dialect, JsonLines, Outcome, Session, call_title, count, cut, output, plain_error, text,
};
use crate::{
    Conversation, Engine, EngineError, EngineRequest, HomeFile, Invocation, Models, Program, SessionReader,
};
use serde_json::{Value, json};
use tipstaff_model::{AgentEvent, EngineKind, FileChangeKind, Usage};

/// Gemini CLI.
pub(crate) struct Gemini;

const PROGRAM: Program = Program {
    name: "gemini",
    install: "npm install -g @google/gemini-cli@0.61.0",
    tested: "0.61.0",
    oldest: "0.20.0",
    version_args: &["--version"],
};

/// Before it looks for the session that `session/load` names it begins a file of the same id, which is named by the minute,
/// and in the same minute is the very file of that session: it would be emptied. It finds files under other names as well.
const SET_ASIDE: &str = "for file in \"$HOME\"/.gemini/tmp/*/chats/session-2*; do \
    if [ -f \"$file\" ]; then mv -n \"$file\" \"${file%/*}/session-0-${file##*/session-}\"; fi; done; exec \"$@\"";

const MODELS: Models =
    Models { provider: "gemini", default: "gemini-2.5-pro", besides: &["gemini-2.5-flash*"] };

impl Engine for Gemini {
    fn kind(&self) -> EngineKind {
        EngineKind::Gemini
    }

    fn summary(&self) -> &'static str {
        "Gemini CLI (gemini), with models of Google"
    }

    fn program(&self) -> Option<&'static Program> {
        Some(&PROGRAM)
    }

    fn models(&self) -> Option<&'static Models> {
        Some(&MODELS)
    }

    fn invocation(&self, request: &EngineRequest<'_>) -> Result<Invocation, EngineError> {
        let asked = Checked::new(self.kind(), &MODELS, request)?;
        let mut argv = if asked.attended() {
            words([PROGRAM.name, "--acp", "--approval-mode=default"])
        } else {
            words([PROGRAM.name, "--output-format=stream-json", "--approval-mode=yolo"])
        };
        argv.push(format!("--model={}", asked.model));
        // Without the kind of authentication it ends with code 41, whatever the key is.
        let without: &[&str] = if asked.may_write() { &[] } else { &["write_file", "replace"] };
        let settings = json!({
            "security": { "auth": { "selectedType": "gemini-api-key" } },
            "privacy": { "usageStatisticsEnabled": false },
            "telemetry": { "enabled": false },
            "context": { "fileName": ["GEMINI.md", "AGENTS.md"] },
            "tools": { "exclude": without },
            "general": { "enableAutoUpdate": false, "enableAutoUpdateNotification": false },
        });
        if asked.attended() && asked.resume().is_some() {
            argv = [words(["sh", "-c", SET_ASIDE, "tipstaff-agent"]), argv].concat();
        }
        let context = HomeFile { path: ".gemini/GEMINI.md".to_owned(), content: asked.instructions.clone() };
        let mut home = vec![json_file(".gemini/settings.json", &settings), context];
        if !asked.attended() {
            if let Some(session) = asked.resume() {
                argv.push(format!("--resume={session}"));
            }
            argv = asked.reading_prompt(argv);
            home.insert(0, asked.prompt_file());
        }
        Ok(Invocation {
            argv,
            env: variables([
                ("GOOGLE_GEMINI_BASE_URL", &asked.upstream("")),
                ("GEMINI_API_KEY", PLACEHOLDER),
                ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
                // Without a good terminal it complains at length, although it has none to draw on.
                ("TERM", "xterm-256color"),
                ("COLORTERM", "truecolor"),
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
        &[".gemini/tmp"]
    }
}

/// How it says things: `--output-format stream-json`.
#[derive(Default)]
struct Output {
    /// Whether the event before this one was a piece of a text.
    in_text: bool,
}

impl Dialect for Output {
    fn events(&mut self, value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
        let goes_on = std::mem::take(&mut self.in_text);
        match text(value, &["type"])? {
            "init" => Some(vec![AgentEvent::Started {
                session: text(value, &["session_id"]).map(|id| cut(id, 256)),
                model: text(value, &["model"]).map(|model| cut(model, 256)),
                version: None,
            }]),
            "message" => self.message(value, goes_on, session),
            "tool_use" => {
                let (id, name) = (text(value, &["tool_id"])?, text(value, &["tool_name"])?);
                let input = value.get("parameters").cloned().unwrap_or(Value::Null);
                let path = text(&input, &["file_path"]).filter(|_| matches!(name, "write_file" | "replace"));
                session.call(id, name, path.map(|path| cut(path, 4096)));
                let title = call_title(name, &input);
                Some(vec![AgentEvent::ToolCall { id: id.to_owned(), name: name.to_owned(), title, input }])
            }
            "tool_result" => answer(value, session),
            "error" => Some(vec![session.error(&plain_error(text(value, &["message"])?), false)]),
            "result" => Some(result(value, session)),
            _ => None,
        }
    }
}

impl Output {
    fn message(&mut self, value: &Value, goes_on: bool, session: &mut Session) -> Option<Vec<AgentEvent>> {
        let said = text(value, &["content"])?;
        match text(value, &["role"])? {
            // The prompt, said back.
            "user" => Some(Vec::new()),
            "assistant" => {
                let is_piece = value.get("delta").and_then(Value::as_bool) == Some(true);
                let delta = goes_on && is_piece;
                self.in_text = is_piece;
                if delta {
                    session.said_on(said);
                } else {
                    session.said(said);
                }
                Some(vec![AgentEvent::Text { text: said.to_owned(), delta }])
            }
            _ => None,
        }
    }
}

fn answer(value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
    let id = text(value, &["tool_id"])?;
    let ok = text(value, &["status"])? == "success";
    let said = text(value, &["output"]).or_else(|| text(value, &["error", "message"])).unwrap_or_default();
    let mut events = vec![AgentEvent::ToolResult { id: id.to_owned(), ok, output: output(said) }];
    let path = session.answered(id, ok).and_then(|call| call.path).filter(|_| ok);
    // It does not say whether the file is new.
    events.extend(path.map(|path| AgentEvent::FileChange { path, change: FileChangeKind::Changed }));
    Some(events)
}

fn result(value: &Value, session: &mut Session) -> Vec<AgentEvent> {
    let outcome = if text(value, &["status"]) == Some("success") {
        Outcome::Done
    } else {
        let why = text(value, &["error", "message"]).unwrap_or("its result is an error");
        Outcome::Failed(plain_error(why))
    };
    vec![AgentEvent::Usage { usage: usage(value), claimed_micro_usd: None }, session.finished(outcome, None)]
}

/// Cached input is a part of `input_tokens`; thoughts are only in the total.
fn usage(value: &Value) -> Usage {
    let input = count(value, &["stats", "input_tokens"]);
    let cache_read = count(value, &["stats", "cached"]);
    let output = count(value, &["stats", "output_tokens"]);
    let reasoning = count(value, &["stats", "total_tokens"]).saturating_sub(input).saturating_sub(output);
    Usage {
        input: input.saturating_sub(cache_read),
        cache_read,
        output: output.saturating_add(reasoning),
        reasoning,
        ..Usage::default()
    }
}

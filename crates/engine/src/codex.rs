//! The `codex` engine: OpenAI's `codex exec`, or `codex app-server` where a person attends; both ask the OpenAI Responses
//! API.

mod action;
mod conversation;
mod server;

use action::{WORKSPACE, script};
use conversation::AppServer;

use crate::conversation::Conversation;
use crate::invoke::{Checked, PLACEHOLDER, toml_string, variables, words};
use crate::session::{
    Dialect, JsonLines, Outcome, Session, call_title, count, cut, list, output, plain_error, text, title,
};
use crate::{Engine, EngineError, EngineRequest, HomeFile, Invocation, Models, Program, SessionReader};
use serde_json::{Value, json};
use tipstaff_model::{Action, AgentEvent, EngineKind, FileChangeKind, Usage};

/// Codex.
pub(crate) struct Codex;

const PROGRAM: Program = Program {
    name: "codex",
    install: "npm install -g @openai/codex@0.169.0",
    tested: "0.169.0",
    oldest: "0.100.0",
    version_args: &["--version"],
};

/// Names of its calls.
const COMMAND: &str = "command_execution";
const CHANGE: &str = "file_change";
const SEARCH: &str = "web_search";

const MODELS: Models = Models { provider: "openai", default: "gpt-5.5", besides: &[] };

impl Engine for Codex {
    fn kind(&self) -> EngineKind {
        EngineKind::Codex
    }

    fn summary(&self) -> &'static str {
        "Codex (codex), with models of OpenAI"
    }

    fn program(&self) -> Option<&'static Program> {
        Some(&PROGRAM)
    }

    fn models(&self) -> Option<&'static Models> {
        Some(&MODELS)
    }

    fn invocation(&self, request: &EngineRequest<'_>) -> Result<Invocation, EngineError> {
        let asked = Checked::new(self.kind(), &MODELS, request)?;
        if request.attended {
            return Ok(Invocation {
                argv: words([PROGRAM.name, "app-server"]),
                env: variables([("OPENAI_API_KEY", PLACEHOLDER), ("NO_COLOR", "1")]),
                home: vec![config_file(&asked, true)],
            });
        }
        // Its own sandbox can't be built inside ours and would wall off nothing more.
        let mut argv = words([
            PROGRAM.name,
            "exec",
            "--json",
            "--skip-git-repo-check",
            "--dangerously-bypass-approvals-and-sandbox",
            "--color=never",
        ]);
        if let Some(session) = asked.resume() {
            argv.extend(words(["resume", session]));
        }
        argv.push("-".to_owned());
        Ok(Invocation {
            argv: asked.reading_prompt(argv),
            env: variables([("OPENAI_API_KEY", PLACEHOLDER)]),
            home: vec![asked.prompt_file(), config_file(&asked, false)],
        })
    }

    fn reader(&self) -> Option<Box<dyn SessionReader>> {
        Some(JsonLines::boxed(Output::default()))
    }

    fn attended_reader(&self) -> Option<Box<dyn SessionReader>> {
        Some(JsonLines::boxed(server::Output::default()))
    }

    fn conversation(
        &self,
        request: &EngineRequest<'_>,
    ) -> Result<Option<Box<dyn Conversation>>, EngineError> {
        let asked = Checked::new(self.kind(), &MODELS, request)?;
        Ok(Some(Box::new(AppServer::new(asked.prompt, asked.resume()))))
    }

    fn action_of(&self, name: &str, input: &Value) -> Action {
        action::of_call(name, input)
    }

    fn session_folders(&self) -> &'static [&'static str] {
        &[".codex/sessions"]
    }
}

fn config_file(asked: &Checked<'_>, attended: bool) -> HomeFile {
    let mut content = config(asked, if attended { "on-request" } else { "never" });
    if attended {
        content.push_str(&attended_config());
    }
    HomeFile { path: ".codex/config.toml".to_owned(), content }
}

/// What makes it ask before everything; the rest is in the request that begins its session.
fn attended_config() -> String {
    // Goals begin turns by themselves. A terminal takes commands that nobody is asked about, once its shell runs. A
    // folder that is trusted brings rules which say what is not asked about, hooks, and servers of tools.
    format!(
        "goals = false\n\
         unified_exec_tty = false\n\
         [projects.{WORKSPACE:?}]\n\
         trust_level = \"untrusted\"\n"
    )
}

fn config(asked: &Checked<'_>, approvals: &str) -> String {
    format!(
        "model = {model}\n\
         model_provider = \"tipstaff\"\n\
         developer_instructions = {instructions}\n\
         check_for_update_on_startup = false\n\
         approval_policy = {approvals}\n\
         sandbox_mode = \"danger-full-access\"\n\
         \n\
         {provider}",
        model = toml_string(asked.model),
        approvals = toml_string(approvals),
        instructions = toml_string(&asked.instructions),
        provider = provider_settings(asked.provider, &asked.upstream("/v1")),
    )
}

/// Its one provider, which is the broker, and nothing that asks anybody else.
pub(crate) fn provider_settings(provider: &str, upstream: &str) -> String {
    format!(
        "[model_providers.tipstaff]\n\
         name = {name}\n\
         base_url = {upstream}\n\
         wire_api = \"responses\"\n\
         env_key = \"OPENAI_API_KEY\"\n\
         supports_websockets = false\n\
         request_max_retries = 2\n\
         \n\
         [analytics]\n\
         enabled = false\n\
         [feedback]\n\
         enabled = false\n\
         [otel]\n\
         exporter = \"none\"\n\
         [features]\n\
         plugins = false\n\
         apps = false\n",
        name = toml_string(provider),
        upstream = toml_string(upstream),
    )
}

/// How it says things: `exec --json`.
#[derive(Default)]
struct Output {
    /// Messages of the turn, which is what it counts.
    turns: u64,
}

impl Dialect for Output {
    fn events(&mut self, value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
        match text(value, &["type"])? {
            "thread.started" => Some(vec![AgentEvent::Started {
                session: text(value, &["thread_id"]).map(|id| cut(id, 256)),
                model: None,
                version: None,
            }]),
            "turn.started" => {
                self.turns = self.turns.saturating_add(1);
                Some(Vec::new())
            }
            "item.started" => began(value.get("item")?, session),
            // Output that arrives while a command runs; the whole of it follows.
            "item.updated" => (text(value, &["item", "type"])? == "command_execution").then(Vec::new),
            "item.completed" => ended(value.get("item")?, session),
            "turn.completed" => {
                let used = AgentEvent::Usage {
                    usage: usage_of(value.get("usage").unwrap_or(&Value::Null), &TOKENS),
                    claimed_micro_usd: None,
                };
                Some(vec![used, session.finished(Outcome::Done, Some(self.turns))])
            }
            "turn.failed" => {
                let why = text(value, &["error", "message"]).unwrap_or("the turn failed");
                Some(vec![session.finished(Outcome::Failed(plain_error(why)), Some(self.turns))])
            }
            // While it tries again it tells of each attempt. Its end is told by `turn.failed`.
            "error" => Some(vec![session.error(text(value, &["message"])?, false)]),
            _ => None,
        }
    }

    /// A call that it can't carry out is told of in its log only: `… ERROR codex_core::tools::router: error=…`.
    fn error_line(&mut self, line: &str, session: &mut Session) -> Vec<AgentEvent> {
        log_error(line, session)
    }
}

/// The error that a line of its log tells of.
fn log_error(line: &str, session: &mut Session) -> Vec<AgentEvent> {
    let said = line.split_once(" ERROR ").and_then(|(_, rest)| rest.split_once(": error="));
    said.map(|(_, said)| session.error(said, false)).into_iter().collect()
}

/// Its names of tokens: input, of it read from and written to a cache, output, of it reasoning.
const TOKENS: [&str; 5] = [
    "input_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",
];

/// Cached input is a part of its input, and reasoning a part of its output.
fn usage_of(value: &Value, [input, cache_read, cache_write, output, reasoning]: &[&str; 5]) -> Usage {
    let (cache_read, cache_write) = (count(value, &[cache_read]), count(value, &[cache_write]));
    Usage {
        input: count(value, &[input]).saturating_sub(cache_read).saturating_sub(cache_write),
        cache_read,
        cache_write,
        cache_write_1h: 0,
        output: count(value, &[output]),
        reasoning: count(value, &[reasoning]),
    }
}

fn began(item: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
    let (id, kind) = (text(item, &["id"])?, text(item, &["type"])?);
    let (name, title, input) = match kind {
        "command_execution" => {
            let command = text(item, &["command"])?;
            (kind.to_owned(), title(&script(command)), json!({ "command": command }))
        }
        "file_change" => {
            let paths: Vec<&str> = changes(item).map(|(path, _)| path).take(16).collect();
            (kind.to_owned(), title(&paths.join(" ")), json!({ "changes": item.get("changes") }))
        }
        "mcp_tool_call" => {
            let name = format!("{}.{}", text(item, &["server"])?, text(item, &["tool"])?);
            let input = item.get("arguments").cloned().unwrap_or(Value::Null);
            (cut(&name, 256), call_title(&name, &input), input)
        }
        "web_search" => {
            let query = text(item, &["query"]).unwrap_or_default();
            (kind.to_owned(), title(query), json!({ "query": query }))
        }
        _ => return None,
    };
    session.call(id, &name, None);
    Some(vec![AgentEvent::ToolCall { id: id.to_owned(), name, title, input }])
}

fn ended(item: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
    let (id, kind) = (text(item, &["id"])?, text(item, &["type"])?);
    match kind {
        "agent_message" => {
            let said = text(item, &["text"])?;
            session.said(said);
            return Some(vec![AgentEvent::Text { text: said.to_owned(), delta: false }]);
        }
        "reasoning" => {
            let text = text(item, &["text"])?.to_owned();
            return Some(vec![AgentEvent::Thinking { text, delta: false }]);
        }
        "error" => return Some(vec![session.error(text(item, &["message"])?, false)]),
        _ => {}
    }
    let completed = text(item, &["status"]).is_none_or(|status| status == "completed");
    let (ok, answer) = match kind {
        "command_execution" => {
            let code = item.get("exit_code").and_then(Value::as_i64);
            (completed && code == Some(0), text(item, &["aggregated_output"]).unwrap_or_default().to_owned())
        }
        "file_change" => (completed, String::new()),
        "mcp_tool_call" => {
            let error = text(item, &["error", "message"]);
            (completed && error.is_none(), error.map_or_else(|| answer(item), ToOwned::to_owned))
        }
        "web_search" => (true, String::new()),
        _ => return None,
    };
    // Some items are told of only when they are done.
    let mut events = Vec::new();
    if session.answered(id, ok).is_none() {
        events.extend(began(item, session)?);
        session.answered(id, ok);
    }
    events.push(AgentEvent::ToolResult { id: id.to_owned(), ok, output: output(&answer) });
    if kind == "file_change" && ok {
        events.extend(
            changes(item).map(|(path, change)| AgentEvent::FileChange { path: cut(path, 4096), change }),
        );
    }
    Some(events)
}

fn changes(item: &Value) -> impl Iterator<Item = (&str, FileChangeKind)> {
    list(item, &["changes"]).iter().filter_map(|change| {
        let kind = match text(change, &["kind"])? {
            "add" => FileChangeKind::Added,
            "delete" => FileChangeKind::Deleted,
            _ => FileChangeKind::Changed,
        };
        Some((text(change, &["path"])?, kind))
    })
}

/// What a server of tools answered: its blocks of text.
fn answer(item: &Value) -> String {
    let blocks = list(item, &["result", "content"]).iter().filter_map(|block| text(block, &["text"]));
    blocks.collect::<Vec<_>>().join("\n")
}

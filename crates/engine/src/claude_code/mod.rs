//! The `claude-code` engine: Anthropic's `claude -p`, which asks Anthropic Messages.

mod talk;

use crate::invoke::{Checked, INSTRUCTIONS, PLACEHOLDER, variables, words};
use crate::session::{
    Dialect, JsonLines, Outcome, Session, below, call_title, count, cut, list, micro_usd, output, text,
};
use crate::{Conversation, Engine, EngineError, EngineRequest, Invocation, Models, Program, SessionReader};
use serde_json::Value;
use tipstaff_model::{AgentEvent, EngineKind, FileChangeKind, Usage};

/// Claude Code.
pub(crate) struct ClaudeCode;

const PROGRAM: Program = Program {
    name: "claude",
    install: "npm install -g @anthropic-ai/claude-code@2.1.330",
    tested: "2.1.330",
    oldest: "2.1.0",
    version_args: &["--version"],
};

const MODELS: Models =
    Models { provider: "anthropic", default: "claude-sonnet-5-5", besides: &["claude-haiku-*"] };

impl Engine for ClaudeCode {
    fn kind(&self) -> EngineKind {
        EngineKind::ClaudeCode
    }

    fn summary(&self) -> &'static str {
        "Claude Code (claude), with models of Anthropic"
    }

    fn program(&self) -> Option<&'static Program> {
        Some(&PROGRAM)
    }

    fn models(&self) -> Option<&'static Models> {
        Some(&MODELS)
    }

    fn invocation(&self, request: &EngineRequest<'_>) -> Result<Invocation, EngineError> {
        let asked = Checked::new(self.kind(), &MODELS, request)?;
        // Servers that a repository configures are left out: they would run beside the agent, and the stream would not
        // show them.
        let mut argv = words([PROGRAM.name, "-p", "--output-format=stream-json", "--verbose"]);
        argv.extend(if request.attended {
            words([
                "--permission-mode=default",
                "--input-format=stream-json",
                "--permission-prompt-tool=stdio",
                "--replay-user-messages",
                // A hook of the repository could put another command in the place of the one that was asked about. Ours
                // is no file's: it stays.
                "--settings={\"disableAllHooks\":true}",
            ])
        } else {
            // Its permission prompts have nobody to answer them; the sandbox is the wall.
            words(["--permission-mode=bypassPermissions"])
        });
        argv.push("--strict-mcp-config".to_owned());
        if !asked.has_session() {
            argv.push("--no-session-persistence".to_owned());
        }
        if let Some(session) = asked.resume() {
            argv.push(format!("--resume={session}"));
        }
        argv.push(format!("--model={}", asked.model));
        argv.push(format!("--append-system-prompt-file={}", asked.at_home(INSTRUCTIONS)));
        if !asked.may_write() {
            argv.push("--disallowedTools=Write,Edit,NotebookEdit".to_owned());
        }
        let upstream = asked.upstream("");
        let mut env = variables([
            ("ANTHROPIC_BASE_URL", &upstream),
            ("ANTHROPIC_API_KEY", PLACEHOLDER),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            ("CLAUDE_CODE_DISABLE_TERMINAL_TITLE", "1"),
            ("DISABLE_AUTOUPDATER", "1"),
            ("DISABLE_TELEMETRY", "1"),
            ("DISABLE_ERROR_REPORTING", "1"),
            // Its short names for models (in the arguments of a sub-agent) mean the one that the warrant names.
            ("ANTHROPIC_DEFAULT_OPUS_MODEL", asked.model),
            ("ANTHROPIC_DEFAULT_SONNET_MODEL", asked.model),
        ]);
        if !asked.model.starts_with("claude-") {
            // Somebody else's models: there is no small one.
            env.extend(variables([("ANTHROPIC_DEFAULT_HAIKU_MODEL", asked.model)]));
        }
        // The conversation says the prompt.
        let (argv, home) = if request.attended {
            (argv, vec![asked.instructions_file()])
        } else {
            (asked.reading_prompt(argv), vec![asked.prompt_file(), asked.instructions_file()])
        };
        Ok(Invocation { argv, env, home })
    }

    fn reader(&self) -> Option<Box<dyn SessionReader>> {
        Some(JsonLines::boxed(Output::default()))
    }

    fn attended_reader(&self) -> Option<Box<dyn SessionReader>> {
        Some(JsonLines::boxed(Output { attended: true, ..Output::default() }))
    }

    fn conversation(
        &self,
        request: &EngineRequest<'_>,
    ) -> Result<Option<Box<dyn Conversation>>, EngineError> {
        let asked = Checked::new(self.kind(), &MODELS, request)?;
        Ok(Some(Box::new(talk::Talk::new(asked.prompt))))
    }

    fn session_folders(&self) -> &'static [&'static str] {
        &[".claude/projects"]
    }
}

/// How it says things: `--output-format stream-json`.
#[derive(Default)]
struct Output {
    /// Names of tools whose calls were denied.
    denied: Vec<String>,
    /// Whether the session is spoken with: lines of that conversation are no events, and it may have several results.
    attended: bool,
    /// What earlier results said was used and what it cost: they add up.
    told: (Usage, u64),
}

impl Dialect for Output {
    fn events(&mut self, value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
        match (text(value, &["type"])?, text(value, &["subtype"])) {
            ("control_request" | "control_response" | "control_cancel_request", _) if self.attended => {
                Some(Vec::new())
            }
            // What we said, once it has read it.
            ("user", _) if self.attended && value.get("isReplay") == Some(&Value::Bool(true)) => {
                Some(Vec::new())
            }
            // A count that runs along while it waits for an answer.
            ("tool_progress", _) if self.attended => Some(Vec::new()),
            ("system", Some("init")) => Some(vec![AgentEvent::Started {
                session: text(value, &["session_id"]).map(|id| cut(id, 256)),
                model: text(value, &["model"]).map(|model| cut(model, 256)),
                version: text(value, &["claude_code_version"]).map(|version| cut(version, 256)),
            }]),
            // A count that runs along while it thinks; the thought itself follows.
            ("system", Some("thinking_tokens")) => Some(Vec::new()),
            ("system", Some("permission_denied")) => {
                let message = text(value, &["message"])?;
                Some(vec![session.error(message, false)])
            }
            ("assistant", _) => assistant(value, session),
            ("user", _) => answers(value, session),
            ("result", subtype) => Some(self.result(value, subtype, session)),
            _ => None,
        }
    }

    fn objection(&self, session: &Session) -> Option<String> {
        // It ends well after every call of a tool was denied, with nothing done.
        let missing: Vec<&str> =
            self.denied.iter().filter(|name| !session.worked.contains(name)).map(String::as_str).collect();
        // Where a person was asked, a no is an answer, and the rest of the work may well be done.
        let excused = self.attended && !session.worked.is_empty();
        (!missing.is_empty() && !excused).then(|| {
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
        // Only `false` is success: a failed result says `"subtype":"success"` too.
        let ok = value.get("is_error").and_then(Value::as_bool) == Some(false) && subtype == Some("success");
        let outcome = if ok {
            session.said(said);
            Outcome::Done
        } else {
            let errors: Vec<&str> =
                list(value, &["errors"]).iter().take(8).filter_map(Value::as_str).collect();
            let why = [said, &errors.join("; "), subtype.unwrap_or_default()];
            let why = why.into_iter().find(|why| !why.is_empty() && *why != "success");
            Outcome::Failed(cut(why.unwrap_or("its result is an error"), 4096))
        };
        vec![self.used(value), session.finished(outcome, value.get("num_turns").and_then(Value::as_u64))]
    }
}

impl Output {
    /// What was used since the last result.
    fn used(&mut self, value: &Value) -> AgentEvent {
        let (now, claimed) = (usage(value), micro_usd(value.get("total_cost_usd")));
        if !self.attended {
            return AgentEvent::Usage { usage: now, claimed_micro_usd: claimed };
        }
        let (before, cost) = self.told;
        self.told = (now, claimed.unwrap_or(cost));
        let usage = Usage {
            input: now.input.saturating_sub(before.input),
            cache_read: now.cache_read.saturating_sub(before.cache_read),
            cache_write: now.cache_write.saturating_sub(before.cache_write),
            cache_write_1h: now.cache_write_1h.saturating_sub(before.cache_write_1h),
            output: now.output.saturating_sub(before.output),
            reasoning: now.reasoning.saturating_sub(before.reasoning),
        };
        AgentEvent::Usage { usage, claimed_micro_usd: claimed.map(|claimed| claimed.saturating_sub(cost)) }
    }
}

/// The use of all models, sub-agents' included; else that of the main conversation.
fn usage(value: &Value) -> Usage {
    let models = value.get("modelUsage").and_then(Value::as_object).filter(|models| !models.is_empty());
    if let Some(models) = models {
        return models.values().fold(Usage::default(), |sum, one| {
            let hour = count(one, &["cacheCreationEphemeral1hInputTokens"]);
            sum.plus(&Usage {
                input: count(one, &["inputTokens"]),
                cache_read: count(one, &["cacheReadInputTokens"]),
                cache_write: count(one, &["cacheCreationInputTokens"]).saturating_sub(hour),
                cache_write_1h: hour,
                output: count(one, &["outputTokens"]),
                reasoning: count(one, &["thinkingTokens"]),
            })
        });
    }
    let hour = count(value, &["usage", "cache_creation", "ephemeral_1h_input_tokens"]);
    Usage {
        input: count(value, &["usage", "input_tokens"]),
        cache_read: count(value, &["usage", "cache_read_input_tokens"]),
        cache_write: count(value, &["usage", "cache_creation_input_tokens"]).saturating_sub(hour),
        cache_write_1h: hour,
        output: count(value, &["usage", "output_tokens"]),
        reasoning: count(value, &["usage", "output_tokens_details", "thinking_tokens"]),
    }
}

fn assistant(value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
    let blocks = below(value, &["message", "content"])?.as_array()?;
    let is_error = value.get("is_api_error_message").and_then(Value::as_bool) == Some(true);
    let mut events = Vec::with_capacity(blocks.len());
    for block in blocks {
        let event = match text(block, &["type"]) {
            Some("text") => text(block, &["text"]).map(|said| {
                if is_error {
                    return session.error(said, false);
                }
                session.said(said);
                AgentEvent::Text { text: said.to_owned(), delta: false }
            }),
            Some("thinking") => text(block, &["thinking"])
                .map(|thought| AgentEvent::Thinking { text: thought.to_owned(), delta: false }),
            Some("tool_use") => call(block, session, &mut events),
            _ => None,
        };
        events.push(event.unwrap_or_else(|| AgentEvent::Raw { value: block.clone() }));
    }
    Some(events)
}

fn call(block: &Value, session: &mut Session, events: &mut Vec<AgentEvent>) -> Option<AgentEvent> {
    let (id, name) = (text(block, &["id"])?, text(block, &["name"])?);
    let input = block.get("input").cloned().unwrap_or(Value::Null);
    session.call(id, name, None);
    if name == "AskUserQuestion" {
        for asked in list(&input, &["questions"]).iter().take(16) {
            let text = text(asked, &["question"]).unwrap_or_default();
            events.push(AgentEvent::Question { text: cut(text, 4096) });
        }
    }
    let title = call_title(name, &input);
    Some(AgentEvent::ToolCall { id: id.to_owned(), name: name.to_owned(), title, input })
}

/// Answers of tools come as messages of the user.
fn answers(value: &Value, session: &mut Session) -> Option<Vec<AgentEvent>> {
    let blocks = below(value, &["message", "content"])?.as_array()?;
    let mut events = Vec::with_capacity(blocks.len());
    for block in blocks {
        let id = text(block, &["tool_use_id"]).filter(|_| text(block, &["type"]) == Some("tool_result"));
        let Some(id) = id else {
            events.push(AgentEvent::Raw { value: block.clone() });
            continue;
        };
        let ok = block.get("is_error").and_then(Value::as_bool) != Some(true);
        session.answered(id, ok);
        let answer = block.get("content").map(flat).unwrap_or_default();
        events.push(AgentEvent::ToolResult { id: id.to_owned(), ok, output: output(&answer) });
        if ok {
            events.extend(file_change(value));
        }
    }
    Some(events)
}

/// What the editing tools say besides: the file, and whether it is new.
fn file_change(value: &Value) -> Option<AgentEvent> {
    let told = value.get("tool_use_result")?;
    told.get("structuredPatch")?;
    let change = match text(told, &["type"]) {
        Some("create") => FileChangeKind::Added,
        _ => FileChangeKind::Changed,
    };
    Some(AgentEvent::FileChange { path: cut(text(told, &["filePath"])?, 4096), change })
}

/// The text of an answer: a string, or blocks of which some are text.
fn flat(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts: Vec<&str> = blocks.iter().filter_map(|block| text(block, &["text"])).collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

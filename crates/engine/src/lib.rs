#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod acp;
mod action;
mod aider;
mod builtin;
mod claude_code;
mod codex;
mod command;
mod conversation;
mod coven;
mod gemini;
mod invoke;
mod opencode;
mod program;
mod qwen;
mod session;

pub use builtin::{BUILT_IN, BuiltInAgent};
pub use conversation::{Asked, Conversation, NotPossible, Reply, Step};
pub use program::Program;

use tipstaff_model::{Action, AgentEvent, EngineKind};

/// What an engine is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineRequest<'a> {
    /// The command of the person or of the agent's profile; only the `command` engine has one.
    pub command: &'a [String],
    /// The prompt, where there is one.
    pub prompt: Option<&'a str>,
    /// The model, where one was chosen; else the engine's own default.
    pub model: Option<&'a str>,
    /// The provider whose models are asked, where one was chosen: the name of an upstream of the model gateway.
    pub provider: Option<&'a str>,
    /// What the agent's profile tells it besides the prompt; empty when it tells nothing.
    pub instructions: &'a str,
    /// Where the sandbox reaches the broker, such as `http://127.0.0.1:8080`; models are below `/model/<provider>`.
    pub broker: &'a str,
    /// Where the sandbox sees the home folder of the agent.
    pub home: &'a str,
    /// Whether the warrant lets the agent change files.
    pub may_write: bool,
    /// Whether the agent is spoken with while it works, by the engine's [`Conversation`].
    pub attended: bool,
    /// Whether the agent's session is kept, so that another run can continue it.
    pub keeps_session: bool,
    /// The agent's own id of the session that is continued; its files are in the home folder then.
    pub resume: Option<&'a str>,
}

/// A file that the agent finds in its home folder when it starts. Never a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeFile {
    /// Relative to the home folder, such as `.codex/config.toml`; no `..`.
    pub path: String,
    /// What it holds.
    pub content: String,
}

/// The command line of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Invocation {
    /// Program and arguments, as they run inside the sandbox. An agent's prompt is not among them but in a file that it
    /// reads on standard input: there it can't be taken for an option, and one argument holds 128 KiB at most.
    pub argv: Vec<String>,
    /// Variables besides the sandbox's own; never a credential.
    pub env: Vec<(String, String)>,
    /// Files of its home folder, made for this run.
    pub home: Vec<HomeFile>,
}

/// How the process of a run ended, as the sandbox saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It returned this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
}

/// Whether the work was done, by the engine's own measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was.
    Done,
    /// It was not.
    Failed {
        /// What the agent's output says about it, where it says something.
        why: Option<String>,
    },
}

/// Which models an engine asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Models {
    /// The provider when none was chosen: `anthropic`, `openai` or `gemini`.
    pub provider: &'static str,
    /// The model when none was chosen.
    pub default: &'static str,
    /// Models of the same provider that it asks besides, for titles and summaries, as patterns of a warrant.
    pub besides: &'static [&'static str],
}

/// Reads what an agent prints, and judges it in the end.
pub trait SessionReader: Send {
    /// Takes one line of standard output, without its end of line; cut when it was longer than the bound.
    fn line(&mut self, line: &str) -> Vec<AgentEvent>;
    /// Takes one line of standard error. Agents write warnings there; most of it is no event.
    fn error_line(&mut self, line: &str) -> Vec<AgentEvent>;
    /// Whether the work was done, now that the process has ended. Judged by what was read, never by the exit code alone.
    fn verdict(&mut self, end: ProcessEnd) -> Verdict;
}

/// The engine can't carry out the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// There is nothing to run.
    #[error("the {0} engine needs a command: write it after --, as in `{example}`", example = with_command(*.0))]
    NoCommand(EngineKind),
    /// A NUL byte or an empty program name.
    #[error("the command can't be executed: {0}")]
    Unusable(&'static str),
    /// There is nothing to ask the agent.
    #[error(
        "the {0} engine needs a prompt: write what it shall do, as in `tipstaff run --engine {0} \"fix the typo\"`"
    )]
    NoPrompt(EngineKind),
    /// Nobody can speak with this agent while it works.
    #[error(
        "the {0} engine can't be attended: it asks nobody and can't be told anything while it works; leave away --attended, or choose an engine that can (docs/engines.md)"
    )]
    NotAttended(EngineKind),
    /// What the agent called its session is no name that can be used.
    #[error(
        "the agent's id of its session is none that can be used: it is not letters, digits, '-' and '_'; begin a new run"
    )]
    SessionUnusable,
    /// This engine can't continue a session.
    #[error(
        "the {0} engine can't continue a session: begin a new run, or choose an engine that can (docs/engines.md)"
    )]
    NotResumable(EngineKind),
    /// A command was given to an engine that brings its own.
    #[error("the {0} engine runs its own program: leave away the command after --, or use --engine command")]
    CommandNotTaken(EngineKind),
}

/// What a command line with a command looks like.
const fn with_command(kind: EngineKind) -> &'static str {
    match kind {
        EngineKind::Acp => "tipstaff run --engine acp \"fix the typo\" -- claude-agent-acp",
        _ => "tipstaff run -- make test",
    }
}

impl EngineError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoCommand(_) => "engine-no-command",
            Self::Unusable(_) => "engine-command-unusable",
            Self::NoPrompt(_) => "engine-no-prompt",
            Self::NotAttended(_) => "engine-not-attended",
            Self::NotResumable(_) | Self::SessionUnusable => "session-not-resumable",
            Self::CommandNotTaken(_) => "engine-command-not-taken",
        }
    }
}

/// The program behind an agent.
pub trait Engine: Send + Sync {
    /// Which one.
    fn kind(&self) -> EngineKind;
    /// One line for `tipstaff agents`.
    fn summary(&self) -> &'static str;
    /// The program that must be on the machine; `None` where the person names the command.
    fn program(&self) -> Option<&'static Program>;
    /// Whether it is an agent, that asks models and says what it does; else it is a command of a person.
    fn is_agent(&self) -> bool {
        self.program().is_some()
    }
    /// Whether it can be spoken with only: each of its runs is attended, and without a policy everything is allowed.
    fn is_always_attended(&self) -> bool {
        false
    }
    /// The models that it asks; `None` where it asks none of its own.
    fn models(&self) -> Option<&'static Models>;
    /// The command line of a request.
    ///
    /// # Errors
    /// [`EngineError`] when the request makes no command line.
    fn invocation(&self, request: &EngineRequest<'_>) -> Result<Invocation, EngineError>;
    /// A reader of one session's output; `None` where the output is text for people, and the exit code the verdict.
    fn reader(&self) -> Option<Box<dyn SessionReader>>;
    /// A reader of the output of an attended session, where that is another one.
    fn attended_reader(&self) -> Option<Box<dyn SessionReader>> {
        self.reader()
    }
    /// A conversation for a request; `None` where this agent can't be spoken with: nobody is asked, nothing can be told.
    ///
    /// # Errors
    /// [`EngineError`] when the request makes none.
    fn conversation(
        &self,
        request: &EngineRequest<'_>,
    ) -> Result<Option<Box<dyn Conversation>>, EngineError> {
        let _ = request;
        Ok(None)
    }
    /// The action of a call of a tool, by the name and the arguments of [`AgentEvent::ToolCall`]: what policies judge. Its
    /// conversation reads a question with it too, so that what is simulated over recorded sessions is what is asked.
    fn action_of(&self, name: &str, input: &serde_json::Value) -> Action {
        action::action_of(name, input)
    }
    /// Folders of the agent's home, relative to it, that hold its sessions; empty where it can't continue one.
    fn session_folders(&self) -> &'static [&'static str] {
        &[]
    }
}

/// All engines. Adding one is a file and a line here.
pub const REGISTRY: &[&dyn Engine] = &[
    &command::Command,
    &claude_code::ClaudeCode,
    &codex::Codex,
    &gemini::Gemini,
    &opencode::OpenCode,
    &qwen::Qwen,
    &aider::Aider,
    &coven::Coven,
    &acp::Acp,
];

/// The engine of a kind.
#[must_use]
pub fn engine(kind: EngineKind) -> &'static dyn Engine {
    REGISTRY.iter().copied().find(|one| one.kind() == kind).unwrap_or(&command::Command)
}

/// The verdict on a process whose output nobody reads: its exit code.
#[must_use]
pub const fn verdict_of_exit(end: ProcessEnd) -> Verdict {
    match end {
        ProcessEnd::Exited(0) => Verdict::Done,
        _ => Verdict::Failed { why: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_engine() {
        for kind in EngineKind::ALL {
            assert_eq!(engine(*kind).kind(), *kind);
        }
        assert_eq!(REGISTRY.len(), EngineKind::ALL.len());
    }
}

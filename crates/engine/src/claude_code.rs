//! The `claude-code` engine: Anthropic's `claude -p`, which asks Anthropic Messages.

use crate::invoke::{Checked, INSTRUCTIONS, PLACEHOLDER, variables, words};
use crate::{Engine, EngineError, EngineRequest, Invocation, Models, Program, SessionReader};
use tipstaff_model::EngineKind;

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
        // Its permission prompts have nobody to answer them; the sandbox is the wall. Servers that a repository
        // configures are left out: they would run beside the agent, and the stream would not show them.
        let mut argv = words([
            PROGRAM.name,
            "-p",
            "--output-format=stream-json",
            "--verbose",
            "--permission-mode=bypassPermissions",
            "--strict-mcp-config",
            "--no-session-persistence",
        ]);
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
        Ok(Invocation {
            argv,
            env,
            home: vec![asked.instructions_file()],
            stdin: Some(asked.prompt.to_owned()),
        })
    }

    fn reader(&self) -> Option<Box<dyn SessionReader>> {
        None
    }
}

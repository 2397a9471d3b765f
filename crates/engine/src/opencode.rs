//! The `opencode` engine: `opencode run`, for models of many providers.

use crate::invoke::{Checked, INSTRUCTIONS, PLACEHOLDER, json_file, variables, words};
use crate::{Engine, EngineError, EngineRequest, Invocation, Models, Program, SessionReader};
use serde_json::json;
use tipstaff_model::EngineKind;

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
        let config = json!({
            "model": model,
            "small_model": model,
            "autoupdate": false,
            "share": "disabled",
            "enabled_providers": [PROVIDER],
            "instructions": [asked.at_home(INSTRUCTIONS)],
            // Nobody answers a question; the sandbox is the wall.
            "permission": { "*": "allow", "edit": if asked.may_write() { "allow" } else { "deny" } },
            "provider": { PROVIDER: {
                "npm": package,
                "name": asked.provider,
                "options": { "baseURL": asked.upstream(below), "apiKey": PLACEHOLDER },
                "models": { asked.model: { "name": asked.model } },
            } },
        });
        Ok(Invocation {
            argv: words([PROGRAM.name, "run", "--format=json", "--pure"]),
            env: variables([
                ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
                ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
                ("OPENCODE_DISABLE_SHARE", "1"),
                ("OPENCODE_DISABLE_TERMINAL_TITLE", "1"),
            ]),
            home: vec![json_file(".config/opencode/opencode.json", &config), asked.instructions_file()],
            stdin: Some(asked.prompt.to_owned()),
        })
    }

    fn reader(&self) -> Option<Box<dyn SessionReader>> {
        None
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

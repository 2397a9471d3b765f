//! The `gemini` engine: Google's `gemini`, which asks Gemini's generateContent.

use crate::invoke::{Checked, PLACEHOLDER, json_file, variables, words};
use crate::{Engine, EngineError, EngineRequest, HomeFile, Invocation, Models, Program, SessionReader};
use serde_json::json;
use tipstaff_model::EngineKind;

/// Gemini CLI.
pub(crate) struct Gemini;

const PROGRAM: Program = Program {
    name: "gemini",
    install: "npm install -g @google/gemini-cli@0.61.0",
    tested: "0.61.0",
    oldest: "0.20.0",
    version_args: &["--version"],
};

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
        let mut argv = words([PROGRAM.name, "--output-format=stream-json", "--approval-mode=yolo"]);
        argv.push(format!("--model={}", asked.model));
        // Without the kind of authentication it ends with code 41, whatever the key is.
        let without: &[&str] = if asked.may_write() { &[] } else { &["write_file", "replace"] };
        let settings = json!({
            "security": { "auth": { "selectedType": "gemini-api-key" } },
            "privacy": { "usageStatisticsEnabled": false },
            "telemetry": { "enabled": false },
            "tools": { "exclude": without },
            "general": { "enableAutoUpdate": false, "enableAutoUpdateNotification": false },
        });
        let context = HomeFile { path: ".gemini/GEMINI.md".to_owned(), content: asked.instructions.clone() };
        Ok(Invocation {
            argv,
            env: variables([
                ("GOOGLE_GEMINI_BASE_URL", &asked.upstream("")),
                ("GEMINI_API_KEY", PLACEHOLDER),
                ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
            ]),
            home: vec![json_file(".gemini/settings.json", &settings), context],
            stdin: Some(asked.prompt.to_owned()),
        })
    }

    fn reader(&self) -> Option<Box<dyn SessionReader>> {
        None
    }
}

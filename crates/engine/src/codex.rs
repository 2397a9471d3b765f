//! The `codex` engine: OpenAI's `codex exec`, which asks the OpenAI Responses API.

use crate::invoke::{Checked, PLACEHOLDER, toml_string, variables, words};
use crate::{Engine, EngineError, EngineRequest, HomeFile, Invocation, Models, Program, SessionReader};
use tipstaff_model::EngineKind;

/// Codex.
pub(crate) struct Codex;

const PROGRAM: Program = Program {
    name: "codex",
    install: "npm install -g @openai/codex@0.169.0",
    tested: "0.169.0",
    oldest: "0.100.0",
    version_args: &["--version"],
};

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
        // Its own sandbox can't be built inside ours and would wall off nothing more.
        let argv = words([
            PROGRAM.name,
            "exec",
            "--json",
            "--skip-git-repo-check",
            "--dangerously-bypass-approvals-and-sandbox",
            "--ephemeral",
            "--color=never",
            "-",
        ]);
        let config = HomeFile { path: ".codex/config.toml".to_owned(), content: config(&asked) };
        Ok(Invocation {
            argv,
            env: variables([("OPENAI_API_KEY", PLACEHOLDER)]),
            home: vec![config],
            stdin: Some(asked.prompt.to_owned()),
        })
    }

    fn reader(&self) -> Option<Box<dyn SessionReader>> {
        None
    }
}

fn config(asked: &Checked<'_>) -> String {
    format!(
        "model = {model}\n\
         model_provider = \"tipstaff\"\n\
         developer_instructions = {instructions}\n\
         check_for_update_on_startup = false\n\
         approval_policy = \"never\"\n\
         sandbox_mode = \"danger-full-access\"\n\
         \n\
         [model_providers.tipstaff]\n\
         name = {provider}\n\
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
        model = toml_string(asked.model),
        instructions = toml_string(&asked.instructions),
        provider = toml_string(asked.provider),
        upstream = toml_string(&asked.upstream("/v1")),
    )
}

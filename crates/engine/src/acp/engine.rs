//! The `acp` engine: any agent that speaks the Agent Client Protocol, by its command line alone.

use super::{Output, Setup, Talk};
use crate::codex::provider_settings;
use crate::invoke::{
    checked_model, checked_prompt, checked_provider, checked_session, instructions, provider_env,
    toml_string, upstream,
};
use crate::session::JsonLines;
use crate::{
    Conversation, Engine, EngineError, EngineRequest, HomeFile, Invocation, Models, Program, SessionReader,
};
use tipstaff_model::EngineKind;

/// Any agent of the protocol.
pub(crate) struct Acp;

impl Engine for Acp {
    fn kind(&self) -> EngineKind {
        EngineKind::Acp
    }

    fn summary(&self) -> &'static str {
        "any agent that speaks the Agent Client Protocol on its standard streams; its command line stands after --"
    }

    fn program(&self) -> Option<&'static Program> {
        None
    }

    fn is_agent(&self) -> bool {
        true
    }

    fn is_always_attended(&self) -> bool {
        true
    }

    fn models(&self) -> Option<&'static Models> {
        None
    }

    fn invocation(&self, request: &EngineRequest<'_>) -> Result<Invocation, EngineError> {
        let argv = request.command.to_vec();
        if argv.is_empty() {
            return Err(EngineError::NoCommand(self.kind()));
        }
        if argv.first().is_some_and(String::is_empty) {
            return Err(EngineError::Unusable("the program's name is empty"));
        }
        if argv.iter().any(|part| part.contains('\0')) {
            return Err(EngineError::Unusable("an argument holds a NUL byte"));
        }
        checked_prompt(self.kind(), request)?;
        checked_session(request)?;
        let model = request.model.map(checked_model).transpose()?;
        let provider = request.provider.map(checked_provider).transpose()?;
        let env = provider.map(|provider| provider_env(request, provider, model)).unwrap_or_default();
        let others = provider.filter(|name| !matches!(*name, "anthropic" | "gemini"));
        let home = others.map(|provider| codex_settings(request, provider, model)).into_iter().collect();
        Ok(Invocation { argv, env, home })
    }

    fn reader(&self) -> Option<Box<dyn SessionReader>> {
        Some(JsonLines::boxed(Output::default()))
    }

    fn conversation(
        &self,
        request: &EngineRequest<'_>,
    ) -> Result<Option<Box<dyn Conversation>>, EngineError> {
        let prompt = checked_prompt(self.kind(), request)?.to_owned();
        Ok(Some(Box::new(Talk::new(Setup {
            // A continued session was told before.
            preface: request.resume.is_none().then(|| instructions(request)),
            prompt,
            model: request.model.map(ToOwned::to_owned),
            resume: request.resume.map(ToOwned::to_owned),
        }))))
    }

    /// Where the known agents and those that follow the XDG folders keep theirs.
    fn session_folders(&self) -> &'static [&'static str] {
        &[".claude/projects", ".codex/sessions", ".local/share"]
    }
}

/// The settings of Codex, for its adapter: it finds its provider in no variable.
fn codex_settings(request: &EngineRequest<'_>, provider: &str, model: Option<&str>) -> HomeFile {
    let model = model.map(|model| format!("model = {}\n", toml_string(model))).unwrap_or_default();
    let content = format!(
        "{model}\
         model_provider = \"tipstaff\"\n\
         check_for_update_on_startup = false\n\
         \n\
         {settings}",
        settings = provider_settings(provider, &upstream(request, provider, "/v1")),
    );
    HomeFile { path: ".codex/config.toml".to_owned(), content }
}

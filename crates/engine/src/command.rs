//! The `command` engine: any argv. Its exit code is its verdict; its output is text.

use crate::{Engine, EngineError, EngineRequest, Invocation, Models, Program, SessionReader};
use tipstaff_model::EngineKind;

/// Any command.
pub(crate) struct Command;

impl Engine for Command {
    fn kind(&self) -> EngineKind {
        EngineKind::Command
    }

    fn summary(&self) -> &'static str {
        "any command; the prompt, where there is one, is its last argument"
    }

    fn program(&self) -> Option<&'static Program> {
        None
    }

    fn models(&self) -> Option<&'static Models> {
        None
    }

    fn invocation(&self, request: &EngineRequest<'_>) -> Result<Invocation, EngineError> {
        let mut argv = request.command.to_vec();
        if argv.is_empty() {
            return Err(EngineError::NoCommand(self.kind()));
        }
        if argv.first().is_some_and(String::is_empty) {
            return Err(EngineError::Unusable("the program's name is empty"));
        }
        if request.resume.is_some() {
            return Err(EngineError::NotResumable(self.kind()));
        }
        argv.extend(request.prompt.map(ToOwned::to_owned));
        if argv.iter().any(|part| part.contains('\0')) {
            return Err(EngineError::Unusable("an argument holds a NUL byte"));
        }
        Ok(Invocation { argv, ..Invocation::default() })
    }

    fn reader(&self) -> Option<Box<dyn SessionReader>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(command: &'a [String], prompt: Option<&'a str>) -> EngineRequest<'a> {
        EngineRequest {
            command,
            prompt,
            model: None,
            provider: None,
            instructions: "",
            broker: "http://127.0.0.1:8080",
            home: "/home/agent",
            may_write: true,
            attended: false,
            keeps_session: false,
            resume: None,
        }
    }

    #[test]
    fn the_prompt_is_the_last_argument_and_never_a_shell_word() {
        let command = vec!["fix".to_owned(), "--fast".to_owned()];
        let made = Command.invocation(&request(&command, Some("a; rm -rf $HOME"))).unwrap();
        assert_eq!(made.argv, ["fix", "--fast", "a; rm -rf $HOME"]);
    }

    #[test]
    fn what_cannot_be_executed_is_refused_with_a_code() {
        assert_eq!(Command.invocation(&request(&[], Some("x"))).unwrap_err().code(), "engine-no-command");
        let empty = [String::new()];
        assert_eq!(Command.invocation(&request(&empty, None)).unwrap_err().code(), "engine-command-unusable");
        let nul = ["a".to_owned(), "b\0c".to_owned()];
        assert!(Command.invocation(&request(&nul, None)).is_err());
    }
}

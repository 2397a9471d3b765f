#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod command;

use tipstaff_model::EngineKind;

/// What an engine is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineRequest<'a> {
    /// The command of the person or of the agent's profile.
    pub command: &'a [String],
    /// The prompt, where there is one.
    pub prompt: Option<&'a str>,
    /// The model, where one was chosen.
    pub model: Option<&'a str>,
}

/// The command line of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Program and arguments, as they run inside the sandbox.
    pub argv: Vec<String>,
    /// Variables besides the sandbox's own; never a credential.
    pub env: Vec<(String, String)>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was.
    Done,
    /// It was not.
    Failed,
}

/// The engine can't carry out the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// There is nothing to run.
    #[error("the {0} engine needs a command: write it after --, as in `tipstaff run -- make test`")]
    NoCommand(EngineKind),
    /// A NUL byte or an empty program name.
    #[error("the command can't be executed: {0}")]
    Unusable(&'static str),
}

impl EngineError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoCommand(_) => "engine-no-command",
            Self::Unusable(_) => "engine-command-unusable",
        }
    }
}

/// The program behind an agent.
pub trait Engine: Send + Sync {
    /// Which one.
    fn kind(&self) -> EngineKind;
    /// One line for `tipstaff agents`.
    fn summary(&self) -> &'static str;
    /// The command line of a request.
    ///
    /// # Errors
    /// [`EngineError`] when the request makes no command line.
    fn invocation(&self, request: &EngineRequest<'_>) -> Result<Invocation, EngineError>;
    /// Whether the work was done.
    fn verdict(&self, end: ProcessEnd) -> Verdict;
}

/// All engines. Adding one is a file and a line here.
pub const REGISTRY: &[&dyn Engine] = &[&command::Command];

/// The engine of a kind.
#[must_use]
pub fn engine(kind: EngineKind) -> &'static dyn Engine {
    REGISTRY.iter().copied().find(|one| one.kind() == kind).unwrap_or(&command::Command)
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

//! Agents: named profiles, their roles and engines.

use crate::id::AgentId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A word was not one of the accepted values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is not {what}; accepted: {accepted}")]
pub struct ChoiceError {
    given: String,
    what: &'static str,
    accepted: String,
}

impl ChoiceError {
    pub(crate) fn new<'a>(given: &str, what: &'static str, accepted: impl Iterator<Item = &'a str>) -> Self {
        Self {
            given: given.chars().filter(|c| !c.is_control()).take(40).collect(),
            what,
            accepted: accepted.collect::<Vec<_>>().join(", "),
        }
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $( $(#[$vdoc:meta])* $variant:ident = $word:literal, )* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $( $(#[$vdoc])* #[serde(rename = $word)] $variant, )* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];
            /// The stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $( Self::$variant => $word, )* } }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }

        impl FromStr for $name {
            type Err = ChoiceError;
            fn from_str(text: &str) -> Result<Self, ChoiceError> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text).ok_or_else(|| {
                    ChoiceError::new(text, $what, Self::ALL.iter().map(|one| one.as_str()))
                })
            }
        }
    };
}
pub(crate) use choice;

choice!(
    /// A template that compiles to a warrant. The prompt text of a role only explains what the warrant enforces.
    AgentRole, "an agent role", {
        /// Plans and proposes; changes nothing itself.
        Manager = "manager",
        /// Writes code on one branch; not infrastructure.
        Builder = "builder",
        /// Writes code and infrastructure on one branch.
        CloudEngineer = "cloud-engineer",
        /// Reads, runs tests, comments; pushes nothing.
        Reviewer = "reviewer",
        /// Refines a story against pinned, read-only code.
        Refiner = "refiner",
        /// Narrow upkeep on one branch: documentation, lock files, formatting.
        Gardener = "gardener",
    }
);

choice!(
    /// The program behind an agent.
    EngineKind, "an engine", {
        /// Any command.
        Command = "command",
        /// Claude Code, Anthropic's `claude`.
        ClaudeCode = "claude-code",
        /// Codex, OpenAI's `codex`.
        Codex = "codex",
        /// Gemini CLI, Google's `gemini`.
        Gemini = "gemini",
        /// `OpenCode`, `opencode`, for models of many providers.
        OpenCode = "opencode",
        /// Qwen Code, Alibaba's `qwen`.
        Qwen = "qwen",
        /// Aider, `aider`, for models of many providers.
        Aider = "aider",
        /// Coven Code, `coven-code`, by its contract for runs without a person.
        Coven = "coven",
        /// Any agent that speaks the Agent Client Protocol.
        Acp = "acp",
    }
);

/// A named profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its name, unique in the org: 1 to 40 of `a–z 0–9 -`, starting with a letter.
    pub name: String,
    /// Its role.
    pub role: AgentRole,
    /// Its engine.
    pub engine: EngineKind,
    /// The command that it runs, for the engines `command` (the prompt is appended as last argument) and `acp`.
    pub command: Vec<String>,
    /// The model, where the engine has one.
    pub model: Option<String>,
    /// Text for the agent.
    pub instructions: String,
}

/// Whether `name` may name an agent.
#[must_use]
pub fn agent_name_is_valid(name: &str) -> bool {
    (1..=40).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

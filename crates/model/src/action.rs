//! What an agent is about to do, in one form for all engines, and the digest that an answer is bound to.
//!
//! An action is what the agent says it will do. What it can do is the warrant's matter: sandbox and broker enforce that
//! whatever was said. A question to a person is about an action, so its digest covers every byte that the agent sent.

use crate::agent::{ChoiceError, choice};
use crate::id::WarrantId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::str::FromStr;

choice!(
    /// What an action does.
    ActionKind, "a kind of action", {
        /// It looks at files.
        Read = "read",
        /// It changes, moves or deletes files.
        Edit = "edit",
        /// It executes a command.
        Execute = "execute",
        /// It asks a host.
        Fetch = "fetch",
        /// Anything else.
        Other = "other",
    }
);

/// Longest tool name, title and path that an action keeps, in bytes.
pub const LONGEST_WORD: usize = 4096;
/// Most commands, paths and hosts that an action keeps of each.
pub const MOST_OBJECTS: usize = 256;

/// What an agent is about to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// What it does.
    pub kind: ActionKind,
    /// The tool, in the agent's word: `Bash`, `apply_patch`, `mcp__github__create_issue`.
    pub tool: String,
    /// One line for people.
    pub title: String,
    /// Shell text that would be executed, each as one string.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// Files and folders, as the agent names them: absolute, or relative to the workspace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Hosts, as `host` or `host:port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The arguments, exactly as the agent sent them.
    #[serde(default)]
    pub input: Value,
}

/// The SHA-256 of an action under one warrant, as 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ActionDigest(String);

/// The text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the digest of an action is 64 hexadecimal digits in lower case")]
pub struct ActionDigestError;

impl ActionDigest {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ActionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ActionDigest {
    type Err = ActionDigestError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        good.then(|| Self(text.to_owned())).ok_or(ActionDigestError)
    }
}

impl TryFrom<String> for ActionDigest {
    type Error = ActionDigestError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ActionDigest> for String {
    fn from(digest: ActionDigest) -> Self {
        digest.0
    }
}

impl Action {
    /// The digest of this action under a warrant, asked with the id `call` by the engine. Two calls with the same
    /// arguments have two digests: an answer is good for one.
    #[must_use]
    pub fn digest(&self, warrant: WarrantId, call: &str) -> ActionDigest {
        let mut hash = Sha256::new();
        // Each part with its length before it: no two lists of parts read the same.
        let mut part = |text: &str| {
            hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(text.as_bytes());
        };
        part("tipstaff action 1");
        part(&warrant.to_string());
        part(call);
        part(self.kind.as_str());
        part(&self.tool);
        for list in [&self.commands, &self.paths, &self.hosts] {
            part(&list.len().to_string());
            list.iter().for_each(|text| part(text));
        }
        part(&self.input.to_string());
        let mut text = String::with_capacity(64);
        for byte in hash.finalize() {
            let _infallible = write!(text, "{byte:02x}");
        }
        ActionDigest(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn action() -> Action {
        Action {
            kind: ActionKind::Execute,
            tool: "Bash".into(),
            title: "make test".into(),
            commands: vec!["make test".into()],
            paths: Vec::new(),
            hosts: Vec::new(),
            input: json!({"command": "make test"}),
        }
    }

    #[test]
    fn every_byte_of_an_action_its_call_and_its_warrant_count() {
        let (one, other) = (WarrantId::from_bytes([1; 16]), WarrantId::from_bytes([2; 16]));
        let first = action().digest(one, "1");
        assert_eq!(first, action().digest(one, "1"));
        assert_eq!(first.as_str().parse::<ActionDigest>().unwrap(), first);
        let mut changed = vec![action().digest(other, "1"), action().digest(one, "2")];
        let changes: [fn(&mut Action); 6] = [
            |a| a.kind = ActionKind::Other,
            |a| a.tool.push('x'),
            |a| a.commands.push(String::new()),
            |a| a.paths = std::mem::take(&mut a.commands),
            |a| a.hosts.push("h".into()),
            |a| a.input = json!({"command": "make test "}),
        ];
        for change in changes {
            let mut action = action();
            change(&mut action);
            changed.push(action.digest(one, "1"));
        }
        // The title is ours, for people.
        let mut retitled = action();
        retitled.title.clear();
        assert_eq!(retitled.digest(one, "1"), first);
        changed.push(first);
        let all = changed.len();
        changed.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        changed.dedup();
        assert_eq!(changed.len(), all);
    }

    #[test]
    fn other_texts_are_no_digest() {
        for text in ["", "0", &"g".repeat(64), &"A".repeat(64), &"0".repeat(65)] {
            assert!(text.parse::<ActionDigest>().is_err(), "{text}");
        }
    }
}

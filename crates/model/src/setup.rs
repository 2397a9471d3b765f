//! The set-up of a repository: what is done in a workspace before the command or the agent starts.

use serde::{Deserialize, Serialize};

/// Whether the set-up of a repository is done, as a person chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetupChoice {
    /// It is done, or taken from the cache.
    #[default]
    Usual,
    /// It is done even where the cache has it; its result takes the place of the cached one.
    Fresh,
    /// It is not done.
    Skip,
}

impl SetupChoice {
    /// Whether it is the usual one, which is not written down.
    #[must_use]
    pub const fn is_usual(&self) -> bool {
        matches!(self, Self::Usual)
    }
}

/// What the set-up of a run came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupReport {
    /// How it ended.
    pub outcome: SetupOutcome,
    /// How long the set-up of this run took, in milliseconds.
    pub duration_ms: u64,
    /// How long it took when what came from the cache was made, in milliseconds; 0 where it did not come from there.
    #[serde(default)]
    pub saved_ms: u64,
    /// The key in the cache: 64 hexadecimal digits.
    pub key: String,
    /// Files and folders that it made.
    pub entries: u64,
    /// Bytes of these files.
    pub bytes: u64,
}

/// How a set-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetupOutcome {
    /// Its script ran and ended with 0.
    Done,
    /// What an earlier one made was taken.
    Cached,
    /// Its script failed, or was not done in time.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_stable() {
        let report = SetupReport {
            outcome: SetupOutcome::Cached,
            duration_ms: 3,
            saved_ms: 12_345,
            key: "00".to_owned(),
            entries: 2,
            bytes: 5,
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(
            text,
            r#"{"outcome":"cached","duration_ms":3,"saved_ms":12345,"key":"00","entries":2,"bytes":5}"#
        );
        assert_eq!(serde_json::from_str::<SetupReport>(&text).unwrap(), report);
        assert!(SetupChoice::default().is_usual() && !SetupChoice::Skip.is_usual());
    }
}

//! Privacy classes: what is kept of the session of a run.

use crate::agent::{ChoiceError, choice};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

choice!(
    /// What is kept of a session, and who can read it. Chosen at the start, for good.
    PrivacyClass, "a privacy class", {
        /// Only the devices of the members can read it.
        Sealed = "sealed",
        /// The org can read it; secrets are taken out.
        Org = "org",
        /// State, counts, sizes and digests; no text.
        Meta = "meta",
    }
);

#[expect(clippy::derivable_impls, reason = "the enum is written by a macro that derives no default")]
impl Default for PrivacyClass {
    fn default() -> Self {
        Self::Org
    }
}

impl PrivacyClass {
    /// Whether it is the usual one, which is not written down.
    #[must_use]
    pub const fn is_usual(&self) -> bool {
        matches!(self, Self::Org)
    }

    /// What it means, for people.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Sealed => "only your paired devices can read the session",
            Self::Org => "your org can read the session; secrets are taken out",
            Self::Meta => "state, counts and sizes are kept, no text",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for class in PrivacyClass::ALL {
            assert_eq!(class.to_string().parse::<PrivacyClass>().unwrap(), *class);
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        }
        assert!(PrivacyClass::default().is_usual());
        assert!("secret".parse::<PrivacyClass>().unwrap_err().to_string().contains("meta"));
    }
}

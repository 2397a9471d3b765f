//! Names of repositories, refs and commits, checked once at the edge.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `owner/name`.
    #[error("'{0}' is not a repository name: write owner/name with letters, digits, '.', '_' and '-'")]
    Repository(String),
    /// Not a branch that git and we accept.
    #[error("'{0}' is not a branch name that git accepts")]
    Ref(String),
    /// Not a full object id.
    #[error("'{0}' is not a commit id: 40 or 64 lower-case hexadecimal digits")]
    Commit(String),
}

fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

macro_rules! text_type {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.0)
            }
        }
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// `owner/name` of a repository. Each part has 1 to 100 of `A–Z a–z 0–9 . _ -`, does not start with `.` or `-`, and
/// does not end in `.git` or `.lock`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(String);
text_type!(RepositoryName);

impl RepositoryName {
    /// The part before the slash.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.0.split_once('/').map_or("", |(owner, _)| owner)
    }

    /// The part after the slash.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }

    /// A valid part made of arbitrary text: what is not allowed becomes `-`.
    #[must_use]
    pub fn part_from(text: &str) -> String {
        let mut part: String = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
            .take(100)
            .collect();
        while part.starts_with(['.', '-']) {
            part.remove(0);
        }
        for suffix in [".git", ".lock"] {
            while part.to_ascii_lowercase().ends_with(suffix) {
                part.truncate(part.len() - suffix.len());
            }
        }
        if part.is_empty() { "repository".to_owned() } else { part }
    }
}

fn part_is_valid(part: &str) -> bool {
    (1..=100).contains(&part.len())
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !part.starts_with(['.', '-'])
        && ![".git", ".lock"].iter().any(|suffix| part.to_ascii_lowercase().ends_with(suffix))
}

impl FromStr for RepositoryName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((owner, name)) if part_is_valid(owner) && part_is_valid(name) => Ok(Self(text.to_owned())),
            _ => Err(NameError::Repository(clip(text))),
        }
    }
}

/// A full branch ref, `refs/heads/…`, within the rules of `git check-ref-format` and printable ASCII.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefName(String);
text_type!(RefName);

impl RefName {
    /// The ref of a branch.
    ///
    /// # Errors
    /// [`NameError::Ref`] when git would not accept the name.
    pub fn branch(branch: &str) -> Result<Self, NameError> {
        format!("refs/heads/{branch}").parse()
    }

    /// The name without `refs/heads/`.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.strip_prefix("refs/heads/").unwrap_or(&self.0)
    }
}

impl FromStr for RefName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = || NameError::Ref(clip(text));
        let branch = text.strip_prefix("refs/heads/").ok_or_else(error)?;
        let allowed =
            |b: u8| b.is_ascii_graphic() && !matches!(b, b'~' | b'^' | b':' | b'?' | b'*' | b'[' | b'\\');
        let part_ok = |part: &str| {
            !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock") && !part.ends_with('.')
        };
        let fine = !branch.is_empty()
            && text.len() <= 250
            && branch.bytes().all(allowed)
            && !branch.starts_with('-')
            && !branch.contains("..")
            && !branch.contains("@{")
            && branch != "@"
            && branch != "HEAD"
            && branch.split('/').all(part_ok);
        if fine { Ok(Self(text.to_owned())) } else { Err(error()) }
    }
}

/// A full object id of a commit, SHA-1 or SHA-256, lower-case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitId(String);
text_type!(CommitId);

impl CommitId {
    /// The first ten digits.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..10).unwrap_or(&self.0)
    }
}

impl FromStr for CommitId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex && matches!(text.len(), 40 | 64) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Commit(clip(text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_are_refused() {
        for bad in [
            "", "a", "a/b/c", "../x", "a/..", "a/.git", "a/b.git", "a//b", "a/b\0", "-a/b", "a/b.LOCK",
            "a/ b",
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad:?}");
        }
        for bad in [
            "main",
            "refs/heads/",
            "refs/tags/v1",
            "refs/heads/../x",
            "refs/heads/a..b",
            "refs/heads/a.lock",
            "refs/heads/-x",
            "refs/heads/a b",
            "refs/heads/a\nb",
            "refs/heads/@",
            "refs/heads/a@{1}",
            "refs/heads/HEAD",
            "refs/heads//a",
            "refs/heads/a/",
        ] {
            assert!(bad.parse::<RefName>().is_err(), "{bad:?}");
        }
        assert!("refs/heads/agent/builder-task-0a1b2c3d".parse::<RefName>().is_ok());
    }

    proptest! {
        #[test]
        fn a_part_made_of_any_text_is_valid(text in "\\PC*") {
            let name = format!("local/{}", RepositoryName::part_from(&text));
            prop_assert!(name.parse::<RepositoryName>().is_ok(), "{}", name);
        }
    }
}

//! Patterns over shell texts and names of tools.

use super::shell::HOLE;
use crate::warrant::stars_match;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A pattern over a text without structure: `*` stands for any characters, none included.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TextPattern(String);

/// The text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has 1 to 1000 characters and no control characters")]
pub struct TextPatternError;

impl TextPattern {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether all of `text` is matched.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        stars_match(self.0.as_bytes(), text.as_bytes())
    }

    /// Whether a command is matched: `git push *` is also said of `git push` alone.
    pub(super) fn matches_command(&self, shape: &str) -> bool {
        self.matches(shape)
            || (self.0.ends_with(" *")
                && self.0.strip_suffix(" *").is_some_and(|front| Self(front.to_owned()).matches(shape)))
    }

    /// Whether a command could be matched, whatever comes to stand in its holes.
    pub(super) fn might_match_command(&self, shape: &str) -> bool {
        if !shape.contains(HOLE) {
            return self.matches_command(shape);
        }
        // Most differ in what stands before the first star and the first hole.
        let front = |text: &str, stop: char| text.find(stop).unwrap_or(text.len());
        let length = front(&self.0, '*').min(front(shape, HOLE));
        if self.0.as_bytes().get(..length) != shape.as_bytes().get(..length) {
            return false;
        }
        let front = self.0.strip_suffix(" *").unwrap_or(&self.0);
        might_match(self.0.as_bytes(), shape.as_bytes()) || might_match(front.as_bytes(), shape.as_bytes())
    }
}

/// Whether a pattern matches one of the texts that a shape can become.
fn might_match(pattern: &[u8], shape: &[u8]) -> bool {
    // Which beginnings of the pattern match the text so far.
    let mut reached = vec![false; pattern.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    let over_stars = |reached: &mut Vec<bool>| {
        for (at, byte) in pattern.iter().enumerate() {
            if *byte == b'*'
                && reached.get(at) == Some(&true)
                && let Some(next) = reached.get_mut(at + 1)
            {
                *next = true;
            }
        }
    };
    over_stars(&mut reached);
    for byte in shape {
        let mut next = vec![false; pattern.len() + 1];
        if *byte == 0 {
            // A hole is filled with what the pattern wants, or with nothing.
            let first = reached.iter().position(|one| *one).unwrap_or(next.len());
            next.iter_mut().skip(first).for_each(|one| *one = true);
        } else {
            for (at, wanted) in pattern.iter().enumerate().filter(|(at, _)| reached.get(*at) == Some(&true)) {
                let to = match wanted {
                    b'*' => at,
                    wanted if wanted == byte => at + 1,
                    _ => continue,
                };
                if let Some(one) = next.get_mut(to) {
                    *one = true;
                }
            }
            over_stars(&mut next);
        }
        if !next.contains(&true) {
            return false;
        }
        reached = next;
    }
    reached.last() == Some(&true)
}

impl FromStr for TextPattern {
    type Err = TextPatternError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = (1..=1000).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        good.then(|| Self(text.to_owned())).ok_or(TextPatternError)
    }
}

impl TryFrom<String> for TextPattern {
    type Error = TextPatternError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TextPattern> for String {
    fn from(pattern: TextPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for TextPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_matched_with_and_without_what_is_known_later() {
        for (pattern, shape, matches, might) in [
            ("git push *", "git push", true, true),
            ("git push *", "git push -f", true, true),
            ("git push *", "git pusher", false, false),
            ("git push *", "git \0", false, true),
            ("git push *", "git log \0", false, false),
            ("git *", "git \0", true, true),
            ("echo *", "echo \0", true, true),
            ("echo hello", "echo \0", false, true),
            ("*--force*", "git push \0", false, true),
            ("*", "\0", true, true),
            ("rm -rf /", "rm \0/", false, true),
            ("rm -rf /", "rm \0x", false, false),
            ("a*b*c", "axxbyyc", true, true),
            ("a*b*c", "axxbyy", false, false),
        ] {
            let parsed: TextPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches_command(shape), matches, "{pattern} of {shape:?}");
            assert_eq!(parsed.might_match_command(shape), might, "{pattern} could be of {shape:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_fills_a_hole_is_thought_of(pattern in "[ab *]{1,8}", front in "[ab ]{0,4}", fill in "[ab ]{0,4}", back in "[ab ]{0,4}") {
            let pattern: TextPattern = pattern.parse().unwrap();
            let filled = format!("{front}{fill}{back}");
            let shape = format!("{front}\0{back}");
            if pattern.matches_command(&filled) {
                proptest::prop_assert!(pattern.might_match_command(&shape));
            }
            // What matches with the hole as it is matches whatever fills it.
            if pattern.matches_command(&shape) {
                proptest::prop_assert!(pattern.matches_command(&filled));
            }
        }
    }
}

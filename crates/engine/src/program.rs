//! The programs of the engines: what must be on the machine, and in which version.

use std::cmp::Ordering;

/// The program that an engine needs on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// Its file name, such as `claude`.
    pub name: &'static str,
    /// Where it comes from, for people: `npm install -g @anthropic-ai/claude-code@2.1.330`.
    pub install: &'static str,
    /// The version that was tested.
    pub tested: &'static str,
    /// The oldest version whose output we read; older ones are refused.
    pub oldest: &'static str,
    /// The arguments that print the version.
    pub version_args: &'static [&'static str],
}

impl Program {
    /// The version in what the program prints when it is asked for it: `2.1.330 (Claude Code)`, `codex-cli 0.169.0`.
    /// The first word of a line that is at least two numbers with dots between; warnings before it are passed over.
    /// `None` where there is none.
    #[must_use]
    pub fn parse_version(printed: &str) -> Option<String> {
        // The last line first: what a program warns of comes before its answer.
        let lines = printed.lines().rev().take(64);
        lines.flat_map(str::split_whitespace).find_map(|word| {
            let word = word.strip_prefix('v').unwrap_or(word);
            (word.len() <= 64 && numbers(word).is_some()).then(|| word.to_owned())
        })
    }

    /// Whether a version is older than the oldest whose output we read. A version that can't be compared is not: what
    /// it prints is judged then.
    #[must_use]
    pub fn is_too_old(&self, version: &str) -> bool {
        let Some((given, oldest)) = numbers(version).zip(numbers(self.oldest)) else { return false };
        given.cmp(&oldest) == Ordering::Less
    }
}

/// The numbers of a version without what follows a `-` or `+`. At least two of them.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let plain = version.split(['-', '+']).next()?;
    let parts: Vec<u64> = plain.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    (2..=4).contains(&parts.len()).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: Program =
        Program { name: "x", install: "", tested: "2.1.330", oldest: "2.0.0", version_args: &["--version"] };

    #[test]
    fn versions_are_found_in_what_programs_print() {
        for (printed, version) in [
            ("2.1.330 (Claude Code)\n", Some("2.1.330")),
            ("WARNING: proceeding, even though 3 of 4.\ncodex-cli 0.169.0\n", Some("0.169.0")),
            ("v22.1.0", Some("22.1.0")),
            ("1.0.0-beta.2", Some("1.0.0-beta.2")),
            ("no version here, 12 of them", None),
            ("1..2 1.x 1.2.3.4.5 99999999999999999999.1", None),
            ("", None),
        ] {
            assert_eq!(Program::parse_version(printed).as_deref(), version, "{printed}");
        }
    }

    #[test]
    fn an_older_version_is_too_old_and_an_unknown_one_is_judged_by_its_output() {
        for (version, too_old) in [
            ("1.9.9", true),
            ("2.0.0", false),
            ("2.0.0-rc.1", false),
            ("10.0.0", false),
            ("2.0", true),
            ("nightly", false),
        ] {
            assert_eq!(PROGRAM.is_too_old(version), too_old, "{version}");
        }
    }
}

//! The version of the git that we run, and the published holes that it still has.
//!
//! Distributions fix holes without raising the number, so a hole is a row for `doctor`, never a refusal. Only a git
//! that lacks the options we rely on is refused ([`GitVersion::OLDEST`]).

use std::fmt;

/// `major.minor.patch` of a git.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GitVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number; 0 when the program prints two.
    pub patch: u32,
}

/// A published hole of git and the releases that closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GitAdvisory {
    /// The CVE numbers, as people search for them.
    pub ids: &'static str,
    /// What an attacker gains.
    pub what: &'static str,
    /// The first fixed release of each series, oldest series first. Every later series is fixed.
    fixed: &'static [(u32, u32, u32)],
}

/// The holes that matter to a program which reads hostile repositories, newest first.
const ADVISORIES: &[GitAdvisory] = &[
    GitAdvisory {
        ids: "CVE-2025-48384, CVE-2025-48385, CVE-2025-48386",
        what: "a carriage return in a submodule path, a bundle URI or a helper name writes outside the repository",
        fixed: &[
            (2, 43, 7),
            (2, 44, 4),
            (2, 45, 4),
            (2, 46, 4),
            (2, 47, 3),
            (2, 48, 2),
            (2, 49, 1),
            (2, 50, 1),
        ],
    },
    GitAdvisory {
        ids: "CVE-2024-50349, CVE-2024-52006",
        what: "a crafted URL misleads a credential prompt or a credential helper",
        fixed: &[
            (2, 40, 4),
            (2, 41, 3),
            (2, 42, 4),
            (2, 43, 6),
            (2, 44, 3),
            (2, 45, 3),
            (2, 46, 3),
            (2, 47, 2),
            (2, 48, 1),
        ],
    },
    GitAdvisory {
        ids: "CVE-2024-32002, CVE-2024-32004, CVE-2024-32020, CVE-2024-32021, CVE-2024-32465",
        what: "cloning a hostile repository runs its code",
        fixed: &[(2, 39, 4), (2, 40, 2), (2, 41, 1), (2, 42, 2), (2, 43, 4), (2, 44, 1), (2, 45, 1)],
    },
    GitAdvisory {
        ids: "CVE-2022-39253",
        what: "a symbolic link in a local clone copies files from outside",
        fixed: &[
            (2, 30, 6),
            (2, 31, 5),
            (2, 32, 4),
            (2, 33, 5),
            (2, 34, 5),
            (2, 35, 5),
            (2, 36, 3),
            (2, 37, 4),
            (2, 38, 1),
        ],
    },
];

impl GitVersion {
    /// The oldest git whose options we rely on.
    pub const OLDEST: Self = Self { major: 2, minor: 31, patch: 0 };

    /// Reads the output of `git version`. `None` when it is something else.
    #[must_use]
    pub fn parse(output: &str) -> Option<Self> {
        let word = output.strip_prefix("git version ")?.split_whitespace().next()?;
        let mut numbers = word.split('.').map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u32>().ok()
        });
        let major = numbers.next()??;
        let minor = numbers.next()??;
        let patch = numbers.next().flatten().unwrap_or(0);
        Some(Self { major, minor, patch })
    }

    /// The published holes that this release still has by its number.
    #[must_use]
    pub fn advisories(self) -> Vec<GitAdvisory> {
        ADVISORIES.iter().filter(|advisory| !advisory.is_fixed_in(self)).copied().collect()
    }
}

impl GitAdvisory {
    fn is_fixed_in(&self, version: GitVersion) -> bool {
        let series = (version.major, version.minor);
        let newest = self.fixed.last().map_or((0, 0), |(major, minor, _)| (*major, *minor));
        series > newest
            || self
                .fixed
                .iter()
                .any(|(major, minor, patch)| (*major, *minor) == series && version.patch >= *patch)
    }
}

impl fmt::Display for GitVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_real_programs_are_read() {
        let of = |text| GitVersion::parse(text).map(|v| (v.major, v.minor, v.patch));
        assert_eq!(of("git version 2.47.3\n"), Some((2, 47, 3)));
        assert_eq!(of("git version 2.39.5 (Apple Git-154)"), Some((2, 39, 5)));
        assert_eq!(of("git version 2.51.0.rc1.windows.1"), Some((2, 51, 0)));
        assert_eq!(of("git version 2.50.GIT"), Some((2, 50, 0)));
        for other in
            ["", "git version", "git version x.y", "hub version 2.14.2", "git version 99999999999.1.1"]
        {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_hole_is_reported_until_the_series_is_fixed() {
        let count = |major, minor, patch| GitVersion { major, minor, patch }.advisories().len();
        assert_eq!(count(2, 47, 3), 0);
        assert_eq!(count(2, 47, 2), 1);
        assert_eq!(count(2, 50, 0), 1);
        assert_eq!(count(2, 50, 1), 0);
        assert_eq!(count(2, 39, 5), 2);
        assert_eq!(count(2, 31, 0), 4);
        assert_eq!(count(3, 0, 0), 0);
    }
}

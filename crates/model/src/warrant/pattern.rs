//! Patterns of a grant, and when one covers another.
//!
//! `covers` answers for *all* inputs: if it says yes, whatever the child matches the parent matches too. It may say no
//! where a cleverer proof would find a yes; that only refuses a narrowing, and never widens one.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not a host pattern.
    #[error(
        "'{0}' is not a host: write a name such as api.example.com, *.example.com for its subdomains, with :PORT for a \
         port other than 443, or a class: registry:npm, registry:crates, registry:pypi, registry:debian; addresses, local \
         names and bare '*' are not accepted"
    )]
    Host(String),
    /// Not a path pattern.
    #[error(
        "'{0}' is not a path pattern: write a repository path with '/' between parts; '*' stands for anything within a \
         part, '**' for any number of parts; no leading '/', no '.' or '..' part"
    )]
    Path(String),
    /// Not a pattern of a URL's path.
    #[error(
        "'{0}' is not a path of a URL: begin with '/'; '*' stands for anything within a part, '**' for any number of \
         parts; no '.', '..' or empty part, no query"
    )]
    Url(String),
    /// Not a model pattern.
    #[error("'{0}' is not a model: write its name, or a start of it followed by '*'")]
    Model(String),
}

fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A host that may be reached: `api.example.com`, `*.example.com` (any subdomain, not the name itself), each with an
/// optional `:PORT` (443 unless told otherwise). Lower-case ASCII; international names in their `xn--` form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern {
    subdomains: bool,
    name: String,
    port: u16,
}
pub(super) use text_serde;
text_serde!(HostPattern);

/// The port meant when none is written.
pub const DEFAULT_PORT: u16 = 443;

impl HostPattern {
    /// Whether the host (lower-case, no trailing dot) and port are granted.
    #[must_use]
    pub fn matches(&self, host: &str, port: u16) -> bool {
        self.port == port && self.matches_name(host)
    }

    /// Whether the host is granted on some port.
    #[must_use]
    pub fn matches_name(&self, host: &str) -> bool {
        if self.subdomains {
            host.strip_suffix(self.name.as_str())
                .and_then(|front| front.strip_suffix('.'))
                .is_some_and(|front| !front.is_empty() && front.split('.').all(label_is_valid))
        } else {
            host == self.name
        }
    }

    /// Whether everything that `other` matches is matched here.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self.port != other.port {
            return false;
        }
        match (self.subdomains, other.subdomains) {
            (false, false) => self.name == other.name,
            (false, true) => false,
            (true, false) => self.matches_name(&other.name),
            (true, true) => self.name == other.name || self.matches_name(&other.name),
        }
    }

    /// The same names on another port.
    #[must_use]
    pub fn at_port(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    /// Whether it is one name, no wildcard.
    #[must_use]
    pub const fn is_one_host(&self) -> bool {
        !self.subdomains
    }

    /// The name, without the `*.` of a wildcard and without the port.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

fn label_is_valid(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let error = || PatternError::Host(clip(text));
        let lower = text.to_ascii_lowercase();
        let (name, port) = match lower.rsplit_once(':') {
            Some((name, port)) => {
                let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
                let number: u16 = port.parse().map_err(|_| error())?;
                if !digits || number == 0 {
                    return Err(error());
                }
                (name, number)
            }
            None => (lower.as_str(), DEFAULT_PORT),
        };
        let (subdomains, name) = name.strip_prefix("*.").map_or((false, name), |rest| (true, rest));
        let labels: Vec<&str> = name.split('.').collect();
        let last = labels.last().copied().unwrap_or_default();
        let local =
            matches!(last, "localhost" | "local" | "internal" | "home" | "lan" | "localdomain" | "onion");
        // A name whose last label is a number is read as an IPv4 address by some resolvers.
        let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
        let fine = name.len() <= 253
            && labels.len() >= 2
            && labels.iter().all(|label| label_is_valid(label))
            && !local
            && !numeric;
        if fine { Ok(Self { subdomains, name: name.to_owned(), port }) } else { Err(error()) }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}:{}", if self.subdomains { "*." } else { "" }, self.name, self.port)
    }
}

/// Paths inside a repository: `src/**`, `**/*.tf`, `Cargo.lock`. `*` stays within a part, `**` is a whole part and
/// stands for any number of parts, none included. Matching is on bytes; case matters unless the rule says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPattern(String);
text_serde!(PathPattern);

impl PathPattern {
    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self("**".to_owned())
    }

    /// Whether the path (bytes as git reports them, `/` between parts) is matched.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let pattern: Vec<&[u8]> = self.0.as_bytes().split(|b| *b == b'/').collect();
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        parts_match(&pattern, &parts)
    }

    /// Like [`PathPattern::matches`], with ASCII case ignored: what a protected path needs, since some file systems
    /// and some readers ignore case.
    #[must_use]
    pub fn matches_ignoring_case(&self, path: &[u8]) -> bool {
        Self(self.0.to_ascii_lowercase()).matches(&path.to_ascii_lowercase())
    }

    /// Whether everything that `other` matches is matched here: when equal, when this is `**`, and when this is
    /// `prefix/**` with a prefix free of stars that `other` starts with.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.0 == "**" || tree_covers(&self.0, &other.0)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether all that the second pattern of parts matches is matched by the first: when they are equal, and when the first
/// is `prefix/**` with a prefix free of stars that the second starts with.
pub(super) fn tree_covers(mine: &str, theirs: &str) -> bool {
    let Some(prefix) = mine.strip_suffix("/**").filter(|prefix| !prefix.contains('*')) else {
        return mine == theirs;
    };
    theirs.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) fn parts_match(pattern: &[&[u8]], parts: &[&[u8]]) -> bool {
    // Greedy with one point of return, as for single stars: linear in practice, never exponential.
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < parts.len() {
        match pattern.get(p) {
            Some(&b"**") => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(one) if parts.get(t).is_some_and(|part| stars_match(one, part)) => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|rest| *rest == b"**")
}

/// Whether all of a text is matched, `*` standing for any bytes, none included. Greedy with one point of return: never
/// exponential.
pub(crate) fn stars_match(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(byte) if text.get(t) == Some(byte) => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

impl FromStr for PathPattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let part_ok = |part: &str| {
            !part.is_empty() && part != "." && part != ".." && (part == "**" || !part.contains("**"))
        };
        let fine = (1..=1000).contains(&text.len())
            && !text.chars().any(char::is_control)
            && text.split('/').all(part_ok);
        if fine { Ok(Self(text.to_owned())) } else { Err(PatternError::Path(clip(text))) }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A model's name, or the start of one followed by `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelPattern(String);
text_serde!(ModelPattern);

impl ModelPattern {
    /// Whether the model is granted.
    #[must_use]
    pub fn matches(&self, model: &str) -> bool {
        self.0.strip_suffix('*').map_or(self.0 == model, |start| model.starts_with(start))
    }

    /// Whether everything that `other` matches is matched here.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self.0.strip_suffix('*'), other.0.strip_suffix('*')) {
            (Some(mine), Some(theirs)) => theirs.starts_with(mine),
            (Some(mine), None) => other.0.starts_with(mine),
            (None, Some(_)) => false,
            (None, None) => self.0 == other.0,
        }
    }
}

impl FromStr for ModelPattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let body = text.strip_suffix('*').unwrap_or(text);
        let allowed =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'@');
        if (1..=200).contains(&text.len()) && body.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PatternError::Model(clip(text)))
        }
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_hide_an_address_or_grant_everything_are_refused() {
        for bad in [
            "",
            "*",
            "*.*",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "a..b",
            "exa mple.com",
            "http://a.b",
            "a.b:0",
            "a.b:+1",
            "a.b:65536",
            "*.local",
            "a.0x7f",
            "1.2.3",
            "-a.com",
            "com",
            "a.b:",
            "a.b.",
            "foo.internal",
        ] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad:?}");
        }
        let one: HostPattern = "API.example.com".parse().unwrap();
        assert_eq!(one.to_string(), "api.example.com:443");
        let all: HostPattern = "*.example.com:8443".parse().unwrap();
        assert!(all.matches("a.b.example.com", 8443));
        assert!(!all.matches("example.com", 8443) && !all.matches("evilexample.com", 8443));
        assert!(!all.matches(".example.com", 8443) && !all.matches("a.example.com", 443));
    }

    #[test]
    fn paths_match_by_part() {
        let check =
            |pattern: &str, path: &str| pattern.parse::<PathPattern>().unwrap().matches(path.as_bytes());
        assert!(check("**", "a/b/c") && check("src/**", "src/a/b") && check("src/**", "src"));
        assert!(
            check("**/*.tf", "main.tf") && check("**/*.tf", "a/b/main.tf") && !check("*.tf", "a/main.tf")
        );
        assert!(check("a/**/z", "a/z") && check("a/**/z", "a/b/c/z") && !check("a/**/z", "a/b/c/y"));
        assert!(!check("src/**", "src2/a") && !check("src", "src/a"));
        for bad in ["", "/a", "a/", "a//b", "./a", "../a", "a/**b", "a\n"] {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad:?}");
        }
        let workflow: PathPattern = ".github/workflows/**".parse().unwrap();
        assert!(workflow.matches_ignoring_case(b".GitHub/Workflows/x.yml"));
    }

    #[test]
    fn a_long_run_of_stars_does_not_take_exponential_time() {
        let pattern: PathPattern = format!("{}b", "*a".repeat(200)).parse().unwrap();
        assert!(!pattern.matches("a".repeat(900).as_bytes()));
    }
}

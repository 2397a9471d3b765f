//! What a warrant says about the network beyond "this host may be reached": classes of hosts, rules for single requests,
//! and the secrets that may be used there.
//!
//! Promises: an entry of [`Warrant::hosts`](super::Warrant::hosts) only ever takes away, so adding one narrows; a request
//! passes when *every* entry for its host lets it pass; a secret is good for one name, one host and one tree of paths.

use super::pattern::{HostPattern, PatternError, parts_match, text_serde, tree_covers};
use super::{Warrant, choice};
use crate::agent::ChoiceError;
use crate::refusal::{Refusal, Rule};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

choice!(
    /// Hosts that belong together, so that a person need not know their names.
    HostClass, "a class of hosts", {
        /// Packages of JavaScript.
        Npm = "registry:npm",
        /// Packages of Rust.
        Crates = "registry:crates",
        /// Packages of Python.
        Pypi = "registry:pypi",
        /// Packages of Debian, over HTTPS and, as its archives still do, signed over plain HTTP.
        Debian = "registry:debian",
    }
);

impl HostClass {
    /// The hosts of the class, as patterns are written.
    #[must_use]
    pub const fn host_names(self) -> &'static [&'static str] {
        match self {
            Self::Npm => &["registry.npmjs.org"],
            Self::Crates => &["index.crates.io", "static.crates.io", "crates.io"],
            Self::Pypi => &["pypi.org", "files.pythonhosted.org"],
            Self::Debian => {
                &["deb.debian.org", "security.debian.org", "deb.debian.org:80", "security.debian.org:80"]
            }
        }
    }

    /// The hosts of the class.
    #[must_use]
    pub fn hosts(self) -> Vec<HostPattern> {
        // The constants are checked by a test.
        self.host_names().iter().filter_map(|name| name.parse().ok()).collect()
    }
}

/// A host or a class of hosts, as a person grants it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostChoice {
    /// One pattern.
    Host(HostPattern),
    /// A class.
    Class(HostClass),
}

impl HostChoice {
    /// What is granted by it.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostPattern> {
        match self {
            Self::Host(host) => vec![host.clone()],
            Self::Class(class) => class.hosts(),
        }
    }
}

impl FromStr for HostChoice {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        match text.parse::<HostClass>() {
            Ok(class) => Ok(Self::Class(class)),
            Err(_) => text.parse().map(Self::Host),
        }
    }
}

impl fmt::Display for HostChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => host.fmt(f),
            Self::Class(class) => class.fmt(f),
        }
    }
}

/// Paths of a URL: `/`, `/repos/**`, `/v1/*/status`. Begins with `/`; `*` stays within a part, `**` is a whole part and
/// stands for any number of parts, none included. Matching is on the bytes of the path as it is sent, without query;
/// case matters. Whoever asks has to have refused paths with `.` and `..` parts and needless escapes before.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UrlPattern(String);
text_serde!(UrlPattern);

impl UrlPattern {
    /// Every path.
    #[must_use]
    pub fn everything() -> Self {
        Self("/**".to_owned())
    }

    /// Whether `path`, which begins with `/` and has no query, is matched.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let (Some(pattern), Some(path)) = (self.0.strip_prefix('/'), path.strip_prefix('/')) else {
            return false;
        };
        let pattern: Vec<&[u8]> = pattern.as_bytes().split(|b| *b == b'/').collect();
        let parts: Vec<&[u8]> = path.as_bytes().split(|b| *b == b'/').collect();
        parts_match(&pattern, &parts)
    }

    /// Whether everything that `other` matches is matched here: when equal, when this is `/**`, and when this is
    /// `prefix/**` with a prefix free of stars that `other` starts with.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        tree_covers(&self.0, &other.0)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UrlPattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&b);
        let part_ok = |part: &str| part != "." && part != ".." && (part == "**" || !part.contains("**"));
        let fine = text.len() <= 1000 && text.bytes().all(allowed);
        match text.strip_prefix('/') {
            Some(rest)
                if fine && rest.split('/').all(part_ok) && !rest.contains("//") && !rest.starts_with('/') =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(PatternError::Url(text.chars().filter(|c| !c.is_control()).take(100).collect())),
        }
    }
}

impl fmt::Display for UrlPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Requests that may be made of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestRule {
    /// The methods, in capitals; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The paths.
    pub path: UrlPattern,
    /// Where the path is an endpoint of the Model Context Protocol: the tools that may be called. Any request passes
    /// when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
}

impl RequestRule {
    fn matches(&self, method: &str, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|one| one == method)) && self.path.matches(path)
    }
}

/// Further rules for hosts that [`Warrant::egress`](super::Warrant::egress) grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRules {
    /// The hosts.
    pub host: HostPattern,
    /// Whether TLS ends in the broker, so that requests can be read. Without it only requests over plain HTTP can be
    /// judged, so a host with `requests` on a TLS port is inspected whatever this says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inspect: bool,
    /// The requests that may be made; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestRule>,
}

/// A secret that requests to one host may carry. The run holds a handle in its place, which the broker replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretGrant {
    /// The name of the sealed secret.
    pub name: String,
    /// The host; no wildcard.
    pub host: HostPattern,
    /// The paths.
    pub path: UrlPattern,
}

impl SecretGrant {
    /// Whether whatever `other` lets be done this one does.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.name == other.name && self.host == other.host && self.path.covers(&other.path)
    }
}

/// What a warrant says of a request by its method and path alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestVerdict {
    /// It may be made.
    Permitted,
    /// It may be made if it calls no tool but those that [`Warrant::permits_tool`](super::Warrant::permits_tool) permits:
    /// its body has to be read.
    ByTool,
}

impl Warrant {
    /// The entries about a host.
    pub fn host_rules<'a>(&'a self, host: &'a str, port: u16) -> impl Iterator<Item = &'a HostRules> {
        self.hosts.iter().filter(move |rules| rules.host.matches(host, port))
    }

    /// Whether TLS to this host ends in the broker: it is to be inspected, has rules for requests, or a secret is used
    /// there.
    #[must_use]
    pub fn must_inspect(&self, host: &str, port: u16) -> bool {
        self.host_rules(host, port).any(|rules| rules.inspect || !rules.requests.is_empty())
            || self.secrets.iter().any(|secret| secret.host.matches(host, port))
    }

    /// Whether any host is inspected.
    #[must_use]
    pub fn inspects(&self) -> bool {
        !self.secrets.is_empty() || self.hosts.iter().any(|rules| rules.inspect || !rules.requests.is_empty())
    }

    /// Whether a request may be made of a host.
    ///
    /// # Errors
    /// The refusal: the host or port is not granted, or the method and path.
    pub fn permits_request(
        &self,
        host: &str,
        port: u16,
        method: &str,
        path: &str,
    ) -> Result<RequestVerdict, Refusal> {
        self.permits_egress(host, port)?;
        let mut verdict = RequestVerdict::Permitted;
        for rules in self.host_rules(host, port).filter(|rules| !rules.requests.is_empty()) {
            let mut matching = rules.requests.iter().filter(|rule| rule.matches(method, path)).peekable();
            if matching.peek().is_none() {
                return Err(Refusal::new(
                    Rule::RequestNotGranted,
                    format!("{method} {host}:{port}{path}"),
                    format!(
                        "the warrant grants {host} only for certain requests, and {method} {path} is none of them"
                    ),
                ));
            }
            if matching.all(|rule| !rule.tools.is_empty()) {
                verdict = RequestVerdict::ByTool;
            }
        }
        Ok(verdict)
    }

    /// Whether a tool may be called by a request that [`Warrant::permits_request`] answered with
    /// [`RequestVerdict::ByTool`].
    ///
    /// # Errors
    /// The refusal.
    pub fn permits_tool(
        &self,
        host: &str,
        port: u16,
        method: &str,
        path: &str,
        tool: &str,
    ) -> Result<(), Refusal> {
        self.permits_request(host, port, method, path)?;
        let refused = self.host_rules(host, port).filter(|rules| !rules.requests.is_empty()).any(|rules| {
            !rules
                .requests
                .iter()
                .filter(|rule| rule.matches(method, path))
                .any(|rule| rule.tools.is_empty() || rule.tools.iter().any(|one| one == tool))
        });
        if !refused {
            return Ok(());
        }
        Err(Refusal::new(
            Rule::ToolNotGranted,
            format!("{host}:{port}{path}#{tool}"),
            format!("the warrant does not name the tool {tool} of {host}"),
        ))
    }

    /// The grant to use the secret `name` in a request.
    ///
    /// # Errors
    /// The refusal: the secret is not in the warrant, or is granted for another host or path.
    pub fn permits_secret(
        &self,
        name: &str,
        host: &str,
        port: u16,
        path: &str,
    ) -> Result<&SecretGrant, Refusal> {
        let place = format!("{name} at {host}:{port}{path}");
        let Some(any) = self.secrets.iter().find(|grant| grant.name == name) else {
            return Err(Refusal::new(
                Rule::SecretNotGranted,
                place,
                format!("the warrant does not name the secret {name}"),
            ));
        };
        let fits = |grant: &&SecretGrant| {
            grant.name == name && grant.host.matches(host, port) && grant.path.matches(path)
        };
        self.secrets.iter().find(fits).ok_or_else(|| {
            Refusal::new(
                Rule::SecretMisused,
                place,
                format!("the secret {name} is for {}{} and nothing else", any.host, any.path),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_readable() {
        for class in HostClass::ALL {
            assert_eq!(class.hosts().len(), class.host_names().len(), "{class}");
            assert_eq!(class.to_string().parse(), Ok(HostChoice::Class(*class)));
        }
        assert!("registry:rubygems".parse::<HostChoice>().is_err());
        let one: HostChoice = "api.example.com".parse().unwrap();
        assert_eq!(one.hosts(), ["api.example.com:443".parse().unwrap()]);
    }

    #[test]
    fn paths_of_urls_match_by_part() {
        let check = |pattern: &str, path: &str| pattern.parse::<UrlPattern>().unwrap().matches(path);
        assert!(check("/**", "/") && check("/**", "/a/b") && check("/a/**", "/a") && check("/a/**", "/a/"));
        assert!(
            check("/", "/") && !check("/", "/a") && check("/a/*/c", "/a/b/c") && !check("/a/*/c", "/a/b/b/c")
        );
        assert!(!check("/a/**", "/ab") && !check("/a/**", "/A/b") && !check("/**", "a"));
        for bad in ["", "a", "//a", "/a//b", "/a/../b", "/./a", "/a?b", "/a#b", "/a**", "/\u{e9}", "/a b"] {
            assert!(bad.parse::<UrlPattern>().is_err(), "{bad:?}");
        }
    }
}

//! Upstreams: where a provider's requests go, and the key that they carry.
//!
//! Promises: an upstream that was made is usable, and its key goes to its base and to nowhere else; a key never goes
//! over plain HTTP to another network unless the operator said so.

use super::login::{self, Credential, Login, LoginError};
use crate::source::PlainHttp;
use http::HeaderValue;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use tipstaff_seal::Secret;

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// Anthropic's Messages.
    Anthropic,
    /// OpenAI's Responses and Chat Completions, and whoever is compatible with them.
    OpenAi,
    /// Google's Gemini: generateContent.
    Gemini,
}

impl Wire {
    /// The stable word, as in a configuration: `anthropic`, `openai`, `gemini`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Gemini => "gemini",
        }
    }

    /// The wire with this word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        [Self::Anthropic, Self::OpenAi, Self::Gemini].into_iter().find(|wire| wire.as_str() == word)
    }

    /// Where the provider itself answers.
    #[must_use]
    pub const fn public_base(self) -> &'static str {
        match self {
            Self::Anthropic => "https://api.anthropic.com",
            Self::OpenAi => "https://api.openai.com",
            Self::Gemini => "https://generativelanguage.googleapis.com",
        }
    }
}

/// An upstream was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The provider's name can't stand in a URL.
    #[error("'{0}' is not a provider's name: use 1 to 40 lower-case letters, digits, '-' and '_'")]
    Provider(String),
    /// The base is no URL that requests can go to.
    #[error("the upstream of {provider} is not usable: {why}; write https://host[:port][/path]")]
    Base {
        /// The provider.
        provider: String,
        /// Why.
        why: &'static str,
    },
    /// Plain HTTP to another network.
    #[error(
        "the upstream of {provider} is plain http:// to another network, which would carry the key in clear: use https://, \
         or allow plain HTTP for it"
    )]
    Plain {
        /// The provider.
        provider: String,
    },
    /// The key can't stand in a header.
    #[error(
        "the key of {provider} holds spaces or control characters, or is shorter than 8 characters: set it again"
    )]
    Key {
        /// The provider.
        provider: String,
    },
    /// A login for somebody else.
    #[error(
        "the login of {program} may go to {host} and to this machine only, and the upstream of {provider} is elsewhere: take its url away, or use a key"
    )]
    LoginElsewhere {
        /// The provider.
        provider: String,
        /// The program.
        program: &'static str,
        /// Where it may go.
        host: &'static str,
    },
    /// Certificates that could not be read.
    #[error("the additional certificates can't be read: give PEM with at least one certificate")]
    Certificates,
    /// TLS could not be set up.
    #[error("TLS could not be set up: report this")]
    Tls,
}

impl UpstreamError {
    /// The stable word for this kind of error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Provider(_) => "upstream-provider",
            Self::Base { .. } => "upstream-base",
            Self::Plain { .. } => "upstream-plain",
            Self::Key { .. } => "upstream-key",
            Self::LoginElsewhere { .. } => "upstream-login",
            Self::Certificates => "upstream-certificates",
            Self::Tls => "upstream-tls",
        }
    }
}

/// Where a provider's requests go.
#[derive(Clone)]
pub struct Upstream {
    provider: String,
    wire: Wire,
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Begins with `/` and doesn't end with it; or empty.
    path: String,
    key: Option<Secret<String>>,
    login: Option<Arc<dyn Login>>,
    pub(crate) calls: Option<NonZeroUsize>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("provider", &self.provider)
            .field("wire", &self.wire)
            .field("base", &self.base())
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// An upstream. `provider` is its name in URLs (`/model/<provider>/…`) and warrants. Without a key none is sent: for
    /// a local model. Plain `http://` is accepted to this machine and to private addresses, unless `plain` says more.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub fn new(
        provider: &str,
        wire: Wire,
        base: &str,
        key: Option<Secret<String>>,
        plain: PlainHttp,
    ) -> Result<Self, UpstreamError> {
        let name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        if !(1..=40).contains(&provider.len()) || !provider.bytes().all(name) {
            return Err(UpstreamError::Provider(
                provider.chars().filter(|c| !c.is_control()).take(60).collect(),
            ));
        }
        let bad = |why| UpstreamError::Base { provider: provider.to_owned(), why };
        let graphic =
            base.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'"' | b'<' | b'>' | b'%'));
        if base.len() > 500 || !graphic {
            return Err(bad("it holds characters that a base URL does not have"));
        }
        let lower = base.to_ascii_lowercase();
        let (tls, rest) = if let Some(rest) = lower.strip_prefix("https://") {
            (true, rest.len())
        } else if let Some(rest) = lower.strip_prefix("http://") {
            (false, rest.len())
        } else {
            return Err(bad("it does not begin with https://"));
        };
        let rest = base.get(base.len() - rest..).unwrap_or_default();
        if rest.contains(['?', '#', '@']) {
            return Err(bad("it has a query, a fragment or user information"));
        }
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let path = path.trim_end_matches('/');
        if path.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad("its path has an empty part or one made of dots"));
        }
        let (host, port) =
            split_authority(authority, if tls { 443 } else { 80 }).ok_or_else(|| bad("it has no host"))?;
        if !tls && plain == PlainHttp::LoopbackOnly && !is_near(&host) {
            return Err(UpstreamError::Plain { provider: provider.to_owned() });
        }
        if let Some(key) = &key {
            let value = key.expose();
            let fine = (8..=4096).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
            if !fine || HeaderValue::from_str(value).is_err() {
                return Err(UpstreamError::Key { provider: provider.to_owned() });
            }
        }
        Ok(Self {
            provider: provider.to_owned(),
            wire,
            tls,
            host,
            port,
            path: path.to_owned(),
            key,
            login: None,
            calls: None,
        })
    }

    /// The same, used with a person's own login instead of a key.
    ///
    /// # Errors
    /// [`UpstreamError::LoginElsewhere`] when it is neither the provider itself nor this machine.
    pub fn with_login(self, login: Arc<dyn Login>) -> Result<Self, UpstreamError> {
        let hosts = login::hosts(self.wire);
        let own = self.tls && self.port == 443 && hosts.contains(&self.host.as_str());
        let here = self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
        if !own && !here {
            return Err(UpstreamError::LoginElsewhere {
                provider: self.provider,
                program: login.program(),
                host: hosts.first().copied().unwrap_or("nobody"),
            });
        }
        Ok(Self { key: None, login: Some(login), ..self })
    }

    /// The same, with at most so many calls at once of all runs of a process.
    #[must_use]
    pub fn with_calls(self, calls: NonZeroUsize) -> Self {
        Self { calls: Some(calls), ..self }
    }

    /// The provider itself, by its public address, under its usual name.
    ///
    /// # Errors
    /// [`UpstreamError::Key`].
    pub fn public(wire: Wire, key: Secret<String>) -> Result<Self, UpstreamError> {
        Self::new(wire.as_str(), wire, wire.public_base(), Some(key), PlainHttp::LoopbackOnly)
    }

    /// The name in URLs and warrants.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// What it speaks.
    #[must_use]
    pub const fn wire(&self) -> Wire {
        self.wire
    }

    /// Whether it has a key.
    #[must_use]
    pub const fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Its base, for people: `https://api.example.com/v1`. Never the key.
    #[must_use]
    pub fn base(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), self.path)
    }

    /// The program whose login is used, where one is.
    pub(crate) fn login_program(&self) -> Option<&'static str> {
        self.login.as_ref().map(|login| login.program())
    }

    /// What a request of now proves itself with.
    pub(crate) async fn credential(&self) -> Result<Credential, LoginError> {
        match (&self.login, &self.key) {
            (Some(login), _) => login::read(login).await.map(Credential::Login),
            (None, Some(key)) => Ok(Credential::Key(key.clone())),
            (None, None) => Ok(Credential::Nothing),
        }
    }

    /// `host` or `host:port`, as in a `Host` field.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// The path of a request of ours at this upstream. A base that ends in a version of its own, such as `/v1` or
    /// `/api/v4`, takes the place of the request's version.
    pub(crate) fn path_for(&self, request: &str) -> String {
        let version = |part: &str| {
            part.strip_prefix('v').is_some_and(|rest| rest.bytes().next().is_some_and(|b| b.is_ascii_digit()))
        };
        // The place for logins of Codex has no version.
        let bare = self.login.is_some() && self.path.ends_with("/codex");
        let own = bare || self.path.rsplit('/').next().is_some_and(version);
        let rest = match request.strip_prefix('/').and_then(|rest| rest.split_once('/')) {
            Some((first, rest)) if own && version(first) => rest,
            _ => request.strip_prefix('/').unwrap_or(request),
        };
        format!("{}/{rest}", self.path)
    }
}

fn split_authority(text: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, after) = rest.split_once(']')?;
            let address: std::net::Ipv6Addr = inside.parse().ok()?;
            (address.to_string(), if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            let fine = (1..=253).contains(&host.len())
                && host.bytes().all(plain)
                && host.split('.').all(|label| (1..=63).contains(&label.len()));
            (fine.then(|| host.to_ascii_lowercase())?, port)
        }
    };
    let port = match port {
        Some(digits) if (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0)?
        }
        Some(_) => return None,
        None => default_port,
    };
    Some((host, port))
}

/// Whether a host is this machine, or a private address written as such.
fn is_near(host: &str) -> bool {
    host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| match address.to_canonical() {
            IpAddr::V4(address) => address.is_loopback() || address.is_private(),
            IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(base: &str) -> Result<Upstream, UpstreamError> {
        Upstream::new("p", Wire::OpenAi, base, None, PlainHttp::LoopbackOnly)
    }

    #[test]
    fn a_base_is_read_exactly_or_refused() {
        assert_eq!(of("HTTPS://API.example.com/v1/").unwrap().base(), "https://api.example.com/v1");
        assert_eq!(of("http://127.0.0.1:8080").unwrap().base(), "http://127.0.0.1:8080");
        assert_eq!(of("http://[::1]:1").unwrap().authority(), "[::1]:1");
        for near in ["http://localhost", "http://10.0.0.1", "http://192.168.1.2:11434/v1", "http://[fd00::1]"]
        {
            of(near).unwrap();
        }
        for plain in [
            "http://example.com",
            "http://8.8.8.8",
            "http://localhost.evil.test",
            "http://127.0.0.1.evil.test",
        ] {
            assert_eq!(of(plain).unwrap_err().code(), "upstream-plain", "{plain}");
        }
        for bad in [
            "",
            "example.com",
            "ftp://a.b",
            "https://",
            "https://u:p@a.b",
            "https://a.b/?q",
            "https://a.b/#f",
            "https://a.b/../c",
            "https://a.b//c",
            "https://a.b:0",
            "https://a.b:x",
            "https://a b",
            "https://a.b/%2e",
            "https://a..b",
            "https://[::1",
            "https://a.b\r\nX: y",
        ] {
            assert_eq!(of(bad).unwrap_err().code(), "upstream-base", "{bad}");
        }
        Upstream::new("p", Wire::OpenAi, "http://example.com", None, PlainHttp::Anywhere).unwrap();
    }

    #[test]
    fn names_and_keys_are_checked_and_a_key_is_never_shown() {
        for bad in ["", "A", "a/b", "..", "a b", &"a".repeat(41)] {
            assert_eq!(
                Upstream::new(bad, Wire::OpenAi, "https://a.b", None, PlainHttp::LoopbackOnly)
                    .unwrap_err()
                    .code(),
                "upstream-provider"
            );
        }
        for bad in ["", "short", "with space in it", "line\nbreak-in-it", "umläutiger-schlüssel"] {
            let error = Upstream::public(Wire::Anthropic, Secret::new(bad.to_owned())).unwrap_err();
            assert_eq!(error.code(), "upstream-key");
        }
        let upstream =
            Upstream::public(Wire::Anthropic, Secret::new("sk-ant-0123456789".to_owned())).unwrap();
        assert!(!format!("{upstream:?} {}", upstream.base()).contains("0123456789"));
    }

    #[test]
    fn a_version_in_the_base_takes_the_place_of_the_requests() {
        assert_eq!(of("https://a.b").unwrap().path_for("/v1/responses"), "/v1/responses");
        assert_eq!(of("https://a.b/v1").unwrap().path_for("/v1/responses"), "/v1/responses");
        assert_eq!(
            of("https://a.b/api/v4/").unwrap().path_for("/v1/chat/completions"),
            "/api/v4/chat/completions"
        );
        assert_eq!(
            of("https://a.b/proxy").unwrap().path_for("/v1beta/models/x:countTokens"),
            "/proxy/v1beta/models/x:countTokens"
        );
    }
}

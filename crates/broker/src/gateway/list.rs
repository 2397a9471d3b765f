//! An upstream's own list of models, asked through the same client as every call.

use super::client::{GatewayClient, NoAnswer};
use super::{Upstream, Wire, headers};
use crate::limits::Bounds;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;

/// The longest list that is read, in bytes.
const LONGEST: usize = 4 * 1024 * 1024;

/// The most names that are given.
const MOST: usize = 10_000;

/// Why there is no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The upstream gave no answer.
    #[error("{base} {why}: check the address, the network and the certificate")]
    NoAnswer {
        /// Where it is.
        base: String,
        /// What happened.
        why: String,
    },
    /// The key was not accepted.
    #[error(
        "{base} did not accept what was sent to prove who asks ({status}): `tipstaff models list` shows where the key comes from"
    )]
    Key {
        /// Where it is.
        base: String,
        /// The status.
        status: u16,
    },
    /// The login can't be used.
    #[error("{0}")]
    Login(String),
    /// Another answer than a list.
    #[error(
        "{base} answered {status} and no list of models: it is reached, but does not speak {wire} there, or offers no list"
    )]
    Form {
        /// Where it is.
        base: String,
        /// The status.
        status: u16,
        /// What it should speak.
        wire: &'static str,
    },
}

impl ListError {
    /// The stable word for this kind of error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoAnswer { .. } => "upstream-unavailable",
            Self::Key { .. } => "key-not-accepted",
            Self::Login(_) => "login-unusable",
            Self::Form { .. } => "upstream-answer",
        }
    }
}

impl GatewayClient {
    /// Asks an upstream for its models: their names, in its order, at most 10,000.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn models(&self, upstream: &Upstream, bounds: &Bounds) -> Result<Vec<String>, ListError> {
        let base = upstream.base();
        let credential =
            upstream.credential().await.map_err(|problem| ListError::Login(problem.to_string()))?;
        let path = match upstream.wire() {
            Wire::Anthropic => "/v1/models?limit=1000",
            // The place for logins wants to know for which version of its program.
            Wire::OpenAi if upstream.login_program().is_some() => "/v1/models?client_version=1.0.0",
            Wire::OpenAi => "/v1/models",
            Wire::Gemini => "/v1beta/models?pageSize=1000",
        };
        let version = ("anthropic-version".to_owned(), "2023-06-01".to_owned());
        let own: &[(String, String)] = if upstream.wire() == Wire::Anthropic { &[version] } else { &[] };
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = upstream.path_for(path).parse().unwrap_or_default();
        *request.headers_mut() = headers::request(upstream, own, false, &credential);
        let no_answer = |why: &str| ListError::NoAnswer { base: base.clone(), why: why.to_owned() };
        let received = self.send(upstream, request, bounds).await.map_err(|problem| match problem {
            NoAnswer::Unreachable(why) => no_answer(&format!("was not reached: {why}")),
            NoAnswer::Broken => no_answer("broke the connection"),
            NoAnswer::Slow => no_answer("gave no answer in time"),
        })?;
        let status = received.response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(ListError::Key { base, status: status.as_u16() });
        }
        let body = Limited::new(received.response.into_body(), LONGEST).collect();
        let body = tokio::time::timeout(bounds.model_idle_time, body).await;
        let body = body.map_err(|_| no_answer("stopped in the middle of its answer"))?;
        let names = body.ok().and_then(|body| names(&body.to_bytes()));
        names.filter(|_| status.is_success()).ok_or(ListError::Form {
            base,
            status: status.as_u16(),
            wire: upstream.wire().as_str(),
        })
    }
}

/// The names in a list, whosever form it has. What is no plain name is left out: it is shown on a terminal.
fn names(body: &[u8]) -> Option<Vec<String>> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let list = ["data", "models"].iter().find_map(|key| value.get(key)?.as_array())?;
    let plain = |name: &str| {
        (1..=200).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/@".contains(&b))
    };
    let name = |one: &Value| {
        let name = ["id", "slug", "name"].iter().find_map(|key| one.get(key)?.as_str())?;
        Some(name.strip_prefix("models/").unwrap_or(name).to_owned())
    };
    Some(list.iter().filter_map(name).filter(|name| plain(name)).take(MOST).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_providers_list_is_read_and_no_odd_name_is_shown() {
        for (text, found) in [
            (r#"{"data":[{"id":"a-1"},{"id":"b\u001b[31m"},{"id":7},{}]}"#, Some(vec!["a-1"])),
            (r#"{"models":[{"name":"models/g-2","displayName":"G"},{"slug":"c"}]}"#, Some(vec!["g-2", "c"])),
            (r#"{"data":{}}"#, None),
            ("<html>", None),
        ] {
            let names = names(text.as_bytes());
            assert_eq!(
                names.as_deref(),
                found.map(|all| all.into_iter().map(str::to_owned).collect::<Vec<_>>()).as_deref()
            );
        }
    }
}

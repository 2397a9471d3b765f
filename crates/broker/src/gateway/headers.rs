//! Which header fields pass. Short lists: what is not named here stays where it came from.

use super::keys::KeySpellings;
use super::login::Credential;
use super::{Upstream, Wire};
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Fields of a request that a provider needs from its client. No credential, cookie, address or organisation.
const REQUEST: [&str; 5] = ["accept", "anthropic-beta", "anthropic-version", "openai-beta", "user-agent"];

/// Fields by which a program shows itself where its login counts.
const WITH_LOGIN: [&str; 3] = ["originator", "session_id", "version"];

/// What Anthropic wants to be told with a login.
const LOGIN_BETA: &str = "oauth-2025-04-20";

/// Fields of an answer that a client needs, and beginnings of such.
const ANSWER: [&str; 8] = [
    "content-type",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-request-id",
    "x-should-retry",
    "openai-processing-ms",
    "openai-version",
];
const ANSWER_BEGINNINGS: [&str; 2] = ["anthropic-ratelimit-", "x-ratelimit-"];

/// The longest field that passes, in bytes.
const LONGEST: usize = 2_000;

/// The fields of a request to an upstream.
pub(crate) fn request(
    upstream: &Upstream,
    fields: &[(String, String)],
    has_body: bool,
    credential: &Credential,
) -> HeaderMap {
    let with_login = matches!(credential, Credential::Login(_));
    let mut headers = HeaderMap::with_capacity(8);
    for (name, value) in fields {
        let known = REQUEST.contains(&name.as_str()) || (with_login && WITH_LOGIN.contains(&name.as_str()));
        let passes = known && value.len() <= LONGEST;
        if let (true, Ok(name), Ok(value)) =
            (passes, name.parse::<HeaderName>(), HeaderValue::from_str(value))
        {
            headers.append(name, value);
        }
    }
    if let Ok(host) = HeaderValue::from_str(&upstream.authority()) {
        headers.insert(header::HOST, host);
    }
    // What is not compressed can be metered and searched as it comes.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if has_body {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    prove(&mut headers, upstream.wire(), credential);
    headers
}

/// Adds what the request proves itself with.
fn prove(headers: &mut HeaderMap, wire: Wire, credential: &Credential) {
    let mut add = |name: &'static str, text: &str| {
        if let Ok(mut value) = HeaderValue::from_str(text) {
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    match (credential, wire) {
        (Credential::Nothing, _) => {}
        (Credential::Key(key), Wire::Anthropic) => add("x-api-key", key.expose()),
        (Credential::Key(key), Wire::OpenAi) => add("authorization", &format!("Bearer {}", key.expose())),
        (Credential::Key(key), Wire::Gemini) => add("x-goog-api-key", key.expose()),
        (Credential::Login(login), _) => {
            add("authorization", &format!("Bearer {}", login.token.expose()));
            if let Some(account) = &login.account {
                add("chatgpt-account-id", account);
            }
            let said = |value: &HeaderValue| {
                value.as_bytes().windows(LOGIN_BETA.len()).any(|part| part == LOGIN_BETA.as_bytes())
            };
            if wire == Wire::Anthropic && !headers.get_all("anthropic-beta").iter().any(said) {
                headers.append("anthropic-beta", HeaderValue::from_static(LOGIN_BETA));
            }
        }
    }
}

/// The fields of an upstream's answer that pass, in order; never one that holds the key.
pub(crate) fn answer(headers: &HeaderMap, spellings: &KeySpellings) -> Vec<(String, Vec<u8>)> {
    headers
        .iter()
        .filter(|(name, value)| {
            let name = name.as_str();
            let known = ANSWER.contains(&name)
                || ANSWER_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
            known && value.len() <= LONGEST && !spellings.is_in(value.as_bytes())
        })
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect()
}

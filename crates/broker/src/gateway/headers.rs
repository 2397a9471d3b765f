//! Which header fields pass. Short lists: what is not named here stays where it came from.

use super::keys::KeySpellings;
use super::{Upstream, Wire};
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Fields of a request that a provider needs from its client. No credential, cookie, address or organisation.
const REQUEST: [&str; 5] = ["accept", "anthropic-beta", "anthropic-version", "openai-beta", "user-agent"];

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
pub(crate) fn request(upstream: &Upstream, fields: &[(String, String)], has_body: bool) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    for (name, value) in fields {
        let passes = REQUEST.contains(&name.as_str()) && value.len() <= LONGEST;
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
    if let Some(key) = upstream.key() {
        let (name, value) = match upstream.wire() {
            Wire::Anthropic => ("x-api-key", HeaderValue::from_str(key.expose())),
            Wire::OpenAi => ("authorization", HeaderValue::from_str(&format!("Bearer {}", key.expose()))),
            Wire::Gemini => ("x-goog-api-key", HeaderValue::from_str(key.expose())),
        };
        if let Ok(mut value) = value {
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
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

//! Which header fields of an inspected request and its answer pass.

use crate::gateway::keys::KeySpellings;
use crate::parse::head::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Fields that concern one connection only (RFC 9110 §7.6.1), those that only a proxy reads, and those that are written
/// anew.
const STAYS: [&str; 17] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "proxy-authentication-info",
    "te",
    "trailer",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "http2-settings",
    "expect",
    "host",
    "alt-svc",
    "alt-used",
    "via",
];

/// Fields by which a client would speak for another one, or of where it is.
const SPEAKS_FOR: [&str; 6] =
    ["forwarded", "x-real-ip", "x-client-ip", "client-ip", "true-client-ip", "x-host"];

/// Fields that some servers take for the real method, path or host.
const OVERRIDES: [&str; 6] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
];

/// A field by which the request would mean something else than its first line says.
pub(super) fn overriding(fields: &[(String, String)]) -> Option<&str> {
    fields.iter().map(|(name, _)| name.as_str()).find(|name| OVERRIDES.contains(name))
}

/// The fields of a request to a host. `searched`: the answer must be readable for us and come whole.
pub(super) fn request(
    fields: &[(String, String)],
    wanted: &Authority,
    usual_port: u16,
    searched: bool,
) -> Option<HeaderMap> {
    let named = connection_fields(fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    let mut headers = HeaderMap::with_capacity(fields.len() + 1);
    let host = if wanted.port == usual_port { wanted.host.clone() } else { wanted.to_string() };
    headers.insert(header::HOST, HeaderValue::from_str(&host).ok()?);
    for (name, value) in fields {
        let name = name.as_str();
        let stays = STAYS.contains(&name)
            || SPEAKS_FOR.contains(&name)
            || name.starts_with("x-forwarded-")
            || named.iter().any(|one| one == name)
            // Pieces of a value would not look like it.
            || (searched && matches!(name, "accept-encoding" | "range" | "if-range"));
        if !stays {
            headers.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
    }
    if searched {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    Some(headers)
}

/// The fields of an answer that pass, in order, and whether one was left out because it held a secret.
pub(super) fn answer(headers: &HeaderMap, spellings: &KeySpellings) -> (Vec<(String, Vec<u8>)>, bool) {
    let searched = !spellings.is_empty();
    let named = connection_fields(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    let mut echoed = false;
    let mut passed = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let name = name.as_str();
        // What a session in the place of the secret would be worth, the secret is worth.
        let stays = STAYS.contains(&name)
            || named.iter().any(|one| one == name)
            || (searched && matches!(name, "set-cookie" | "set-cookie2" | "accept-ranges"));
        if searched && spellings.is_in(value.as_bytes()) {
            echoed = true;
        } else if !stays {
            passed.push((name.to_owned(), value.as_bytes().to_vec()));
        }
    }
    (passed, echoed)
}

/// The fields that `Connection` names.
fn connection_fields<'f>(fields: impl Iterator<Item = (&'f str, &'f [u8])>) -> Vec<String> {
    fields
        .filter(|(name, _)| *name == "connection")
        .filter_map(|(_, value)| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_request_says_what_it_is_and_speaks_for_nobody_else() {
        let given = fields(&[
            ("host", "x"),
            ("accept", "*/*"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=1"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("accept-encoding", "gzip"),
            ("range", "bytes=0-3"),
            ("authorization", "Bearer x"),
            ("transfer-encoding", "chunked"),
            ("cookie", "a=b"),
        ]);
        let wanted = Authority { host: "api.test".to_owned(), port: 443 };
        let plain = request(&given, &wanted, 443, false).unwrap();
        let mut names: Vec<&str> = plain.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "accept-encoding", "authorization", "cookie", "host", "range"]);
        let searched = request(&given, &Authority { port: 8443, ..wanted }, 443, true).unwrap();
        assert_eq!(searched["accept-encoding"], "identity");
        assert_eq!(searched["host"], "api.test:8443");
        assert!(!searched.contains_key("range"));
        assert_eq!(
            overriding(&fields(&[("x-http-method-override", "DELETE")])),
            Some("x-http-method-override")
        );
        assert_eq!(overriding(&given), None);
    }

    #[test]
    fn an_answer_carries_no_secret_and_no_session_for_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/plain"),
            ("location", "https://x/?k=value-0123456789"),
            ("set-cookie", "s=1"),
            ("alt-svc", "h3=\":443\""),
            ("connection", "close"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let (passed, echoed) = answer(&headers, &KeySpellings::of(Some("value-0123456789")));
        assert_eq!(passed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["content-type"]);
        assert!(echoed);
        let (passed, echoed) = answer(&headers, &KeySpellings::of(None));
        assert!(!echoed && passed.len() == 3, "{passed:?}");
    }
}

//! Values that a name gives away: `DB_PASSWORD=…`, `"apiKey": "…"`, `Authorization: Bearer …`, `--token …`.

use super::byte::{ALNUM, NAME, VALUE, at, cut, is};
use super::shape;

/// Longest part of a value that is looked back over, in bytes.
pub(crate) const VALUE_BACK: usize = 512;
/// Longest name, in bytes.
const NAME_LIMIT: usize = 80;

/// What stands before a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// A name that promises a secret.
    Name,
    /// A name that ends with `key`, or of a service: only a value that looks like a key counts.
    Weak,
    /// `Bearer`, `Token`.
    Bearer,
    /// `Basic`.
    Basic,
}

/// Where the value that reaches to `index` begins, when what stands before it gives it away.
pub(crate) fn value_start(bytes: &[u8], index: usize) -> Option<(usize, Before)> {
    let floor = index.saturating_sub(VALUE_BACK);
    let part = cut(bytes, floor, index);
    let start = floor + part.iter().rposition(|byte| !is(*byte, VALUE)).map_or(0, |last| last + 1);
    if start == floor && floor > 0 {
        return None;
    }
    let start = match super::byte::escape_letter(bytes, start) {
        0 => start,
        // An escaped character may be the value's first.
        5 => start - 1,
        _ => return None,
    };
    before(bytes, start).map(|before| (start, before))
}

/// What stands before a value that begins at `start`.
pub(crate) fn before(bytes: &[u8], start: usize) -> Option<Before> {
    let mut index = start;
    let previous = |index: usize| index.checked_sub(1).and_then(|index| at(bytes, index));
    // Cheap way out: most runs stand after a space, a full stop or a bracket.
    index = skip(bytes, index, 8, |byte| matches!(byte, b'"' | b'\'' | b'`' | b'\\' | b'@'));
    let blanks = index;
    index = skip(bytes, index, 12, |byte| matches!(byte, b' ' | b'\t'));
    let has_blank = index < blanks;
    if has_blank && let Some(scheme) = scheme(bytes, index) {
        return Some(scheme);
    }
    let operator = index;
    index = skip(bytes, index, 4, |byte| matches!(byte, b'=' | b':' | b'>' | b'?'));
    let signs = cut(bytes, index, operator);
    let flag = signs.is_empty() && has_blank;
    if !flag && !signs.iter().any(|byte| matches!(byte, b'=' | b':')) {
        return None;
    }
    if !flag {
        index = skip(bytes, index, 8, |byte| matches!(byte, b' ' | b'\t'));
        index = skip(bytes, index, 6, |byte| matches!(byte, b'"' | b'\'' | b'`' | b'\\' | b']' | b')'));
    }
    let end = index;
    index = skip(bytes, index, NAME_LIMIT, |byte| is(byte, NAME));
    let name = cut(bytes, index, end);
    if name.is_empty() || (flag && !name.starts_with(b"--")) || previous(index) == Some(b'$') {
        return None;
    }
    // The name of a rule, left by an earlier look.
    if cut(bytes, index.saturating_sub(10), index) == b"[redacted:" {
        return None;
    }
    judge(name)
}

fn skip(bytes: &[u8], from: usize, limit: usize, passes: impl Fn(u8) -> bool) -> usize {
    let floor = from.saturating_sub(limit);
    let part = cut(bytes, floor, from);
    floor + part.iter().rposition(|byte| !passes(*byte)).map_or(0, |last| last + 1)
}

fn scheme(bytes: &[u8], end: usize) -> Option<Before> {
    let begin = skip(bytes, end, 8, |byte| byte.is_ascii_alphabetic());
    let word = cut(bytes, begin, end);
    // Only where a header's or a quote's text begins.
    let lead = begin.checked_sub(1).and_then(|index| at(bytes, index));
    let opens = matches!(lead, Some(b' ' | b'"' | b'\'' | b'`' | b':' | b'=' | b'\t') | None);
    if word.eq_ignore_ascii_case(b"bearer") {
        return Some(Before::Bearer);
    }
    if opens && word.eq_ignore_ascii_case(b"basic") {
        return Some(Before::Basic);
    }
    let header = opens && is_after_authorization(bytes, begin);
    (header && word.eq_ignore_ascii_case(b"token")).then_some(Before::Bearer)
}

fn is_after_authorization(bytes: &[u8], begin: usize) -> bool {
    let line = cut(bytes, begin.saturating_sub(24), begin).to_ascii_lowercase();
    memchr::memmem::find(&line, b"authorization").is_some()
}

/// Names, without their separators, that end like this promise a secret.
const STRONG: &[&str] = &[
    "secret",
    "token",
    "password",
    "passwd",
    "passphrase",
    "passwort",
    "pwd",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "accountkey",
    "sharedaccesskey",
    "authkey",
    "encryptionkey",
    "signingkey",
    "masterkey",
    "signkey",
    "sharedkey",
    "storagekey",
    "credential",
    "credentials",
    "authorization",
    "secrettext",
    "accesstokens",
    "apitokens",
    "secretaccesskey",
    "sessionkey",
    "subscriptionkey",
    "licensekey",
    "deploykey",
    "functionkey",
    "hmackey",
    "jwtkey",
    "identitytoken",
    "refreshtoken",
    "apisecret",
];

/// Endings that take the promise back.
const HARMLESS: &[&str] = &[
    "publickey",
    "publishablekey",
    "nexttoken",
    "pagetoken",
    "continuationtoken",
    "synctoken",
    "cursortoken",
    "canceltoken",
    "cancellationtoken",
    "csrftoken",
    "tokenizertoken",
    "stoptoken",
    "eostoken",
    "bostoken",
    "padtoken",
    "publictoken",
    "publicaccesskey",
    "idempotencytoken",
    "maxtoken",
    "unktoken",
    "resumetoken",
    "primarykey",
    "foreignkey",
    "sortkey",
    "partitionkey",
    "cachekey",
    "rowkey",
];

/// Services whose keys have no form of their own.
const SERVICES: &[&str] = &[
    "heroku",
    "hubspot",
    "snyk",
    "okta",
    "sumologic",
    "mailchimp",
    "meraki",
    "messagebird",
    "sourcegraph",
    "sonar",
    "facebook",
    "artifactory",
    "jfrog",
    "discord",
    "cohere",
    "beamer",
    "algolia",
    "datadog",
    "fastly",
    "launchdarkly",
    "mapbox",
    "netlify",
    "travis",
    "codecov",
    "cloudflare",
    "bittrex",
    "kraken",
    "coinbase",
    "zendesk",
    "mailgun",
    "jira",
];

/// Whether a name promises a secret.
pub(crate) fn judge(name: &[u8]) -> Option<Before> {
    let shouting = name.iter().all(|byte| !byte.is_ascii_lowercase());
    let mut plain = String::with_capacity(name.len());
    for byte in name.iter().filter(|byte| is(**byte, ALNUM)) {
        plain.push(char::from(byte.to_ascii_lowercase()));
    }
    let text = plain.as_str();
    let text = ["value", "base64", "b64", "hex", "plaintext", "text", "string", "default"]
        .iter()
        .find_map(|tail| text.strip_suffix(tail))
        .unwrap_or(text)
        .trim_end_matches(|c: char| c.is_ascii_digit());
    if HARMLESS.iter().any(|tail| text.ends_with(tail)) {
        return None;
    }
    if STRONG.iter().any(|tail| text.ends_with(tail)) {
        return Some(Before::Name);
    }
    let last = name.rsplit(|byte| matches!(byte, b'_' | b'-' | b'.')).next().unwrap_or_default();
    if last.len() < name.len() && last.eq_ignore_ascii_case(b"pat") {
        return Some(Before::Name);
    }
    let parts = name.len() > last.len();
    let key = (shouting && parts && last == b"KEY")
        || (text.ends_with("key") && SERVICES.iter().any(|s| text.contains(s)));
    (key || SERVICES.iter().any(|service| text.starts_with(service) || text.ends_with(service)))
        .then_some(Before::Weak)
}

/// Whether a value is one that a person would hide: not a name, a path, a reference or an example.
pub(crate) fn is_secret_value(value: &[u8], before: Before) -> bool {
    let count = |test: fn(&u8) -> bool| value.iter().filter(|byte| test(byte)).count();
    let (digits, upper, lower) =
        (count(u8::is_ascii_digit), count(u8::is_ascii_uppercase), count(u8::is_ascii_lowercase));
    let separators = value.iter().filter(|byte| matches!(byte, b'.' | b'/' | b'_' | b'-')).count();
    if matches!(value.first(), Some(b'$' | b'%' | b'<' | b'{' | b'@' | b'/' | b'.')) || value.len() < 16 {
        return false;
    }
    // What is cut short is no secret, and a token of Slack that is none has said so.
    if value.ends_with(b"..") || value.starts_with(b"xox") {
        return false;
    }
    if memchr::memmem::find(value, b"${").is_some() || shape::has_example_word(value) {
        return false;
    }
    if is_uuid(value) {
        return shape::different(value) >= 8;
    }
    if before == Before::Weak && !(value.len() >= 32 || (value.len() == 14 && digits > 0)) {
        return false;
    }
    // Words joined by separators: names, hosts, paths.
    if separators * 5 >= value.len() && (upper == 0 || lower == 0) {
        return false;
    }
    if value.contains(&b'/') && upper == 0 && before != Before::Bearer {
        return false;
    }
    if looks_like_words(value, digits, upper, lower) {
        return false;
    }
    shape::is_random(value) && shape::different(value) >= if value.len() >= 20 { 10 } else { 8 }
}

/// Whether it is made of words: few digits, and letters of one case or in humps.
fn looks_like_words(value: &[u8], digits: usize, upper: usize, lower: usize) -> bool {
    let letters = upper + lower;
    if digits >= 2 && (digits * 12 >= value.len() || is_mixed(value)) && letters >= 2 {
        return false;
    }
    if digits * 10 >= value.len() * 9 {
        return true;
    }
    !(digits > 0 || upper * 4 >= letters && lower * 4 >= letters) || !is_mixed(value)
}

/// Whether its kinds of letters change often, as they do in what a machine drew.
fn is_mixed(value: &[u8]) -> bool {
    let kind = |byte: &u8| match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let changes = value.iter().zip(value.iter().skip(1)).filter(|(a, b)| kind(a) != kind(b)).count();
    changes * 10 >= value.len() * 4
}

fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Whether the first part of a folded value looks drawn by a machine, so that the next line may go on with it.
pub(crate) fn may_be_folded(value: &[u8]) -> bool {
    let digits = value.iter().any(u8::is_ascii_digit);
    let both = value.iter().any(u8::is_ascii_uppercase) && value.iter().any(u8::is_ascii_lowercase);
    (digits || both) && is_mixed(value) && !matches!(value.first(), Some(b'$' | b'%' | b'<' | b'{'))
}

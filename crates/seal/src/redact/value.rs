//! The spellings in which a registered value may appear.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::fmt::Write as _;

/// Appends each spelling: plain, JSON-escaped, URL-encoded, hex, base64 in every alignment.
pub(crate) fn spellings(value: &[u8], out: &mut Vec<Vec<u8>>) {
    let begin = out.len();
    out.push(value.to_vec());
    let text = String::from_utf8_lossy(value);
    if let Ok(json) = serde_json::to_string(&text)
        && let Some(inner) = json.get(1..json.len().saturating_sub(1))
    {
        out.push(inner.as_bytes().to_vec());
        out.push(inner.replace('/', "\\/").into_bytes());
        if let Ok(twice) = serde_json::to_string(inner)
            && let Some(inner) = twice.get(1..twice.len().saturating_sub(1))
        {
            out.push(inner.as_bytes().to_vec());
        }
    }
    let joined = |write: &dyn Fn(&mut String, u8)| {
        value.iter().fold(String::new(), |mut text, byte| {
            write(&mut text, *byte);
            text
        })
    };
    // Writing to a String can't fail.
    let hex = joined(&|text, byte| {
        let _ = write!(text, "{byte:02x}");
    });
    out.push(hex.to_ascii_uppercase().into_bytes());
    out.push(hex.into_bytes());
    let url = joined(&|text, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    });
    out.push(url.replace("%20", "+").into_bytes());
    out.push(url.into_bytes());
    let escaped = text.encode_utf16().fold(String::new(), |mut text, unit| {
        let _ = write!(text, "\\u{unit:04x}");
        text
    });
    out.push(escaped.into_bytes());
    for lead in 0..3 {
        let mut padded = vec![0_u8; lead];
        padded.extend_from_slice(value);
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded);
            // Digits that also carry bits of a neighbour differ from text to text.
            let first = (lead * 8).div_ceil(6);
            let last = padded.len() * 8 / 6;
            if let Some(own) = text.get(first..last) {
                out.push(own.as_bytes().to_vec());
            }
        }
    }
    let mut kept = out.split_off(begin);
    kept.sort();
    kept.dedup();
    out.append(&mut kept);
}

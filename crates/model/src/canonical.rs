//! Canonical JSON (RFC 8785, JCS) of the values that get signed or hashed.
//!
//! Only what our records use: objects, arrays, strings, booleans, null and integers within ±2⁵³. A float or a larger
//! integer is an error, since two JSON readers may disagree about it.

use serde::Serialize;
use serde_json::Value;

/// A value has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// A number that is not an integer within ±2⁵³.
    #[error("the number {0} has no canonical form: only integers within ±2^53 do")]
    Number(String),
    /// The value could not be turned into JSON at all.
    #[error("the value is not JSON")]
    Json(#[from] serde_json::Error),
}

const LARGEST: u64 = 1 << 53;

/// The canonical bytes of `value`.
///
/// # Errors
/// [`CanonicalError`] for numbers without a canonical form and for values that are not JSON.
pub fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let mut out = Vec::with_capacity(512);
    write(&serde_json::to_value(value)?, &mut out)?;
    Ok(out)
}

fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => {
            let exact = number
                .as_u64()
                .is_some_and(|n| n <= LARGEST)
                .then(|| number.to_string())
                .or_else(|| number.as_i64().filter(|n| n.unsigned_abs() <= LARGEST).map(|n| n.to_string()))
                .ok_or_else(|| CanonicalError::Number(number.to_string()))?;
            out.extend_from_slice(exact.as_bytes());
        }
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(map) => {
            // JCS sorts by UTF-16 code units, which differs from Rust's order beyond the basic plane.
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
            out.push(b'{');
            for (position, (key, item)) in entries.into_iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write_string(key, out);
                out.push(b':');
                write(item, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\r' => out.extend_from_slice(b"\\r"),
            c if u32::from(c) < 0x20 => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
            c => {
                let mut buffer = [0_u8; 4];
                out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_sort_by_utf16_and_control_characters_are_escaped() {
        let value =
            json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": "\u{1f}/\""});
        let text = String::from_utf8(to_bytes(&value).unwrap()).unwrap();
        // The order of RFC 8785 §3.2.3.
        assert_eq!(
            text,
            "{\"\\r\":2,\"1\":4,\"\u{80}\":\"\\u001f/\\\"\",\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
        );
    }

    #[test]
    fn numbers_that_readers_disagree_about_are_refused() {
        assert!(to_bytes(&json!(1.5)).is_err());
        assert!(to_bytes(&json!(u64::MAX)).is_err());
        assert_eq!(to_bytes(&json!(-7)).unwrap(), b"-7");
    }
}

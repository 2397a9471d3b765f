//! Runs of base64 and hexadecimal digits, read as the text that they carry.

use super::byte::{base64_digit, hex_byte, is_text};

/// The bytes that the first `limit` digits carry, whatever they are.
pub(crate) fn base64(digits: &[u8], limit: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(digits.len().min(limit) * 3 / 4);
    let (mut bits, mut have) = (0_u32, 0_u32);
    for digit in digits.iter().take(limit) {
        let Some(value) = base64_digit(*digit) else { break };
        bits = bits << 6 | u32::from(value);
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push(u8::try_from(bits >> have & 0xff).unwrap_or(0));
        }
    }
    out
}

/// How many bytes of text the digits begin with: up to the first byte that is no text.
fn text_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !is_text(*byte)).unwrap_or(bytes.len())
}

/// The text that the digits of base64 begin with.
pub(crate) fn base64_text(digits: &[u8]) -> Vec<u8> {
    // Most runs are words: they end to be text within a few digits.
    if let [a, b, c, d, ..] = digits
        && let (Some(a), Some(b), Some(c), Some(d)) =
            (base64_digit(*a), base64_digit(*b), base64_digit(*c), base64_digit(*d))
        && !(is_text(a << 2 | b >> 4) && is_text(b << 4 | c >> 2) && is_text(c << 6 | d))
    {
        return Vec::new();
    }
    let head = base64(digits, 12);
    if text_length(&head) < head.len() {
        return cut_text(head);
    }
    cut_text(base64(digits, digits.len()))
}

/// The text that the hexadecimal digits begin with.
pub(crate) fn hex_text(digits: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut index = 0;
    while let Some(byte) = hex_byte(digits, index).filter(|byte| is_text(*byte)) {
        out.push(byte);
        index += 2;
    }
    out
}

fn cut_text(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(text_length(&bytes));
    bytes
}

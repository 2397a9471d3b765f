//! Small text encodings: hexadecimal, unpadded URL-safe base64, and the sortable base 32 of key ids.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 0x0f] {
            out.push(DIGITS.get(usize::from(nibble)).copied().unwrap_or('0'));
        }
    }
    out
}

/// Reads exactly `N` bytes of hexadecimal, either case.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let raw = text.as_bytes();
    if raw.len() != N * 2 {
        return None;
    }
    let mut out = [0_u8; N];
    for (slot, pair) in out.iter_mut().zip(raw.chunks_exact(2)) {
        for digit in pair {
            let value = char::from(*digit).to_digit(16)?;
            *slot = (*slot << 4) | u8::try_from(value).ok()?;
        }
    }
    Some(out)
}

/// URL-safe base64 without padding (RFC 4648 §5).
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The inverse of [`base64url`]; one spelling only: padding and stray trailing bits are refused.
#[must_use]
pub fn unbase64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Base 32 with the digits `0-9a-v` (RFC 4648 §7 in lower case): sorts like the bytes.
pub(crate) fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let mut out = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut buffer, mut bits) = (0_u32, 0_u32);
    let mut digit = |value: u32| {
        let index = usize::try_from(value & 31).unwrap_or(0);
        out.push(char::from(DIGITS.get(index).copied().unwrap_or(b'0')));
    };
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            digit(buffer >> bits);
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        digit(buffer << (5 - bits));
    }
    out
}

/// Appends `field` with its length in front, so that no two lists of fields give the same bytes.
pub(crate) fn push_field(out: &mut Vec<u8>, field: &[u8]) {
    out.extend_from_slice(&(field.len() as u64).to_be_bytes());
    out.extend_from_slice(field);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors() {
        assert_eq!(hex(&[0x00, 0xff, 0x1a]), "00ff1a");
        assert_eq!(unhex::<3>("00fF1a"), Some([0x00, 0xff, 0x1a]));
        assert_eq!(unhex::<3>("00ff1"), None);
        assert_eq!(unhex::<3>("00ff1g"), None);
        assert_eq!(base32(b"foobar"), "cpnmuoj1e8");
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
        assert_eq!(unbase64url("-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(unbase64url("-_9"), None, "stray bits");
        assert_eq!(unbase64url("-_8="), None, "padding");
    }
}

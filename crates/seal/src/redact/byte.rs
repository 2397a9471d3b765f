//! Classes of bytes, and looking at bytes without ever going past their end.

/// Letters and digits.
pub(crate) const ALNUM: u8 = 1;
/// Hexadecimal digits of either case.
pub(crate) const HEX: u8 = 2;
/// What tokens are made of: letters, digits, `_`, `-`.
pub(crate) const TOKEN: u8 = 4;
/// What encoded runs are made of: both alphabets of base64, without padding.
pub(crate) const RUN: u8 = 8;
/// What a value in an assignment is made of.
pub(crate) const VALUE: u8 = 16;
/// What a name in an assignment is made of.
pub(crate) const NAME: u8 = 32;
/// Capital letters and digits.
pub(crate) const UPPER: u8 = 64;
/// Tokens and full stops.
pub(crate) const DOTTED: u8 = 128;

const fn class_of(byte: u8) -> u8 {
    let mut class = 0;
    if byte.is_ascii_alphanumeric() {
        class |= ALNUM | TOKEN | RUN | VALUE | NAME | DOTTED;
    }
    if byte.is_ascii_hexdigit() {
        class |= HEX;
    }
    if byte.is_ascii_uppercase() || byte.is_ascii_digit() {
        class |= UPPER;
    }
    match byte {
        b'_' | b'-' => class |= TOKEN | RUN | VALUE | NAME | DOTTED,
        b'+' | b'/' => class |= RUN | VALUE,
        b'.' => class |= VALUE | NAME | DOTTED,
        b'~' | b'!' | b'#' | b'$' | b'%' | b'^' | b'*' | b'@' | b'?' => class |= VALUE,
        _ => {}
    }
    class
}

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    loop {
        #[expect(clippy::indexing_slicing, reason = "evaluated when compiled; the index is a byte")]
        {
            classes[byte as usize] = class_of(byte);
        }
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};

/// Whether the byte is in one of the classes.
#[inline]
pub(crate) fn is(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|have| have & class != 0)
}

/// The byte there, if there is one.
#[inline]
pub(crate) fn at(bytes: &[u8], index: usize) -> Option<u8> {
    bytes.get(index).copied()
}

/// A part of the bytes, shortened where they end.
#[inline]
pub(crate) fn cut(bytes: &[u8], from: usize, to: usize) -> &[u8] {
    let to = to.min(bytes.len());
    bytes.get(from.min(to)..to).unwrap_or_default()
}

/// Where the run of a class that goes on at `from` ends; at most `limit` bytes on.
#[inline]
pub(crate) fn run_end(bytes: &[u8], from: usize, class: u8, limit: usize) -> usize {
    let part = cut(bytes, from, from.saturating_add(limit));
    from + part.iter().position(|byte| !is(*byte, class)).unwrap_or(part.len())
}

/// Value of a hexadecimal digit.
#[inline]
pub(crate) const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Two hexadecimal digits as a byte.
pub(crate) fn hex_byte(bytes: &[u8], from: usize) -> Option<u8> {
    Some(hex_digit(at(bytes, from)?)? << 4 | hex_digit(at(bytes, from + 1)?)?)
}

/// Value of a digit of base64, either alphabet.
#[inline]
pub(crate) const fn base64_digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

/// Whether the byte is in a text of ASCII.
#[inline]
pub(crate) const fn is_text(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t')
}

/// Whether what stands before `start` does not belong to the same word. An escaped newline or tab, the end of an ANSI
/// sequence and a percent-encoded byte belong to no word.
pub(crate) fn is_word_start(bytes: &[u8], start: usize, class: u8) -> bool {
    let before = |back: usize| start.checked_sub(back).and_then(|index| at(bytes, index));
    let Some(last) = before(1) else { return true };
    if !is(last, class) {
        return true;
    }
    if matches!(last, b'n' | b't' | b'r') && before(2) == Some(b'\\') {
        return true;
    }
    if hex_digit(last).is_some() {
        if before(3) == Some(b'%') && before(2).and_then(hex_digit).is_some() {
            return true;
        }
        if before(6) == Some(b'\\') && before(5) == Some(b'u') {
            return true;
        }
    }
    // The last byte of a control sequence.
    let floor = start.saturating_sub(24);
    cut(bytes, floor, start.saturating_sub(1))
        .iter()
        .rposition(|byte| !matches!(byte, b'0'..=b'9' | b';' | b'?'))
        .is_some_and(|index| {
            let bracket = floor + index;
            at(bytes, bracket) == Some(b'[')
                && bracket.checked_sub(1).and_then(|index| at(bytes, index)) == Some(0x1b)
        })
}

/// How many bytes from `start` on belong to an escape of JSON whose backslash stands before them.
pub(crate) fn escape_letter(bytes: &[u8], start: usize) -> usize {
    let slashes =
        cut(bytes, start.saturating_sub(16), start).iter().rev().take_while(|byte| **byte == b'\\').count();
    match at(bytes, start) {
        _ if slashes % 2 == 0 => 0,
        Some(b'n' | b't' | b'r' | b'b' | b'f') => 1,
        Some(b'u') if hex_byte(bytes, start + 1).is_some() && hex_byte(bytes, start + 3).is_some() => 5,
        _ => 0,
    }
}

//! Whether a text looks random or made up.

/// Words of examples, in lower case.
const WORDS: &[&[u8]] = &[
    b"example",
    b"placeholder",
    b"your_",
    b"your-",
    b"yourtoken",
    b"put_your",
    b"changeme",
    b"change_me",
    b"redacted",
    b"dummy",
    b"insert_",
    b"replace",
    b"tokenhere",
    b"randomstring",
    b"token_here",
    b"key_here",
    b"goes-here",
];

/// Whether it looks random: enough different bytes, no long repetition, not mostly counting up, no word of an example.
pub(crate) fn is_random(text: &[u8]) -> bool {
    let seen = different(text);
    let enough = match text.len() {
        0..=7 => 3,
        8..=15 => 5,
        16..=31 => 7,
        _ => 9,
    };
    if seen < enough {
        return false;
    }
    let (mut rising, mut steps, mut stairs) = (0_usize, 0_usize, 0_usize);
    let (mut same, mut longest) = (0_usize, 0_usize);
    for (left, right) in text.iter().zip(text.iter().skip(1)) {
        let is_step = *right == left.wrapping_add(1);
        rising += usize::from(is_step);
        steps = if is_step { steps + 1 } else { 0 };
        stairs = stairs.max(steps);
        same = if left == right { same + 1 } else { 0 };
        longest = longest.max(same);
    }
    (longest < 8 || seen > 30) && stairs < 11 && rising * 10 < text.len() * 9 && !has_example_word(text)
}

/// Whether a word of an example is in it.
pub(crate) fn has_example_word(text: &[u8]) -> bool {
    let part = text.get(..text.len().min(200)).unwrap_or(text);
    let lower = part.to_ascii_lowercase();
    WORDS.iter().any(|word| memchr::memmem::find(&lower, word).is_some())
}

/// How many different bytes it has.
pub(crate) fn different(text: &[u8]) -> u32 {
    let mut seen = [0_u64; 4];
    for byte in text {
        if let Some(word) = seen.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }
    seen.iter().map(|word| word.count_ones()).sum()
}

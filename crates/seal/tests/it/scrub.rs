//! Hostile output, made safe.

use proptest::prelude::*;
use tipstaff_seal::scrub::{Colours, Scrubber, scrub_name, scrub_terminal};

fn plain(bytes: impl AsRef<[u8]>) -> String {
    scrub_terminal(bytes.as_ref(), Colours::Remove)
}

fn coloured(bytes: impl AsRef<[u8]>) -> String {
    scrub_terminal(bytes.as_ref(), Colours::Keep)
}

#[test]
fn harmless_text_stays_as_it_is() {
    for text in ["", "a\n\tb\n", "größe 東京 👩‍👩‍👧 فارسی می‌خواهم e\u{301}", "[31m ]0; \\x1b"]
    {
        assert_eq!(plain(text), text);
        assert_eq!(coloured(text), text);
    }
}

#[test]
fn sequences_go_whole() {
    for (hostile, safe) in [
        ("a\x1b[2Jb", "ab"),
        ("a\x1b[1;1H\x1b[?25lb", "ab"),
        ("a\x1b[?1049hb", "ab"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]0;title\x1b\\b", "ab"),
        ("a\x1b]52;c;cm0gLXJm\x07b", "ab"),
        ("a\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x1bP$q\"p\x1b\\b", "ab"),
        ("a\x1b_Gf=24;AAAA\x1b\\b", "ab"),
        ("a\x1b^x\x1b\\\x1bXy\x1b\\b", "ab"),
        ("a\x1bcb", "ab"),
        ("a\x1b(0b", "ab"),
        ("a\x1b7\x1b8\x1bMb", "ab"),
        ("a\u{9b}2Jb", "ab"),
        ("a\u{9d}0;t\u{9c}b", "ab"),
        ("a\u{90}q\u{9c}b", "ab"),
        ("a\x1b[31mb\x1b[0m", "ab"),
        ("a\x1b\x1b[31mb", "ab"),
        ("a\x1b[3\x1b[31mb", "ab"),
        ("a\x1b[31", "a"),
        ("a\x1b", "a"),
        ("a\x1b]0;t", "a"),
        // What is cut off by a control character shows.
        ("a\x1b[31\x18b", "ab"),
        ("a\x1b[31é", "aé"),
    ] {
        assert_eq!(plain(hostile), safe, "{hostile:?}");
    }
}

#[test]
fn nothing_is_hidden_behind_an_unterminated_sequence_for_longer_than_a_line() {
    assert_eq!(plain("\x1b]0;hidden\nrm -rf /\n"), "\nrm -rf /\n");
    assert_eq!(plain("\x1b[31\nrm -rf /\n"), "\nrm -rf /\n");
    assert_eq!(plain("\x1bPhidden\rshown"), "\nshown");
    let long = format!("\x1b]0;{}end", "x".repeat(10_000));
    assert!(plain(&long).ends_with("xxxend"));
    let endless_parameters = format!("\x1b[{}mend", "1;".repeat(10_000));
    assert_eq!(coloured(&endless_parameters), "end");
}

#[test]
fn tricks_with_the_cursor_become_visible() {
    assert_eq!(plain("rm -rf /\x08\x08\x08ls"), "rm -rf /␈␈␈ls");
    assert_eq!(plain("secret\rharmless"), "secret\nharmless");
    assert_eq!(plain("a\r\nb\r\r\nc\r"), "a\nb\nc\n");
    assert_eq!(plain("10%\r20%\r\x1b[K100%\n"), "10%\n20%\n100%\n");
    assert_eq!(plain("\0\x07\x0b\x0c\x7f"), "␀␇␋␌␡");
    assert_eq!(plain("a\u{85}b\u{80}c"), "a\u{fffd}b\u{fffd}c");
    assert_eq!(plain("user\u{202e}txt.exe\u{2066}\u{200b}"), "user<U+202E>txt.exe<U+2066><U+200B>");
    assert_eq!(plain("\u{feff}\u{e0041}\u{2028}"), "<U+FEFF><U+E0041><U+2028>");
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    assert_eq!(plain(b"a\xffb\xc3(\xe2\x82c\xf0\x9f\x98"), "a\u{fffd}b\u{fffd}(\u{fffd}c\u{fffd}");
    // A lone C1 byte, which terminals in 8-bit mode would obey.
    assert_eq!(plain(b"a\x9b2Jb"), "a\u{fffd}2Jb");
    assert_eq!(plain(b"\xed\xa0\x80\xc0\x9b"), "\u{fffd}".repeat(5));
}

#[test]
fn colours_stay_when_asked_for_and_end_with_the_text() {
    assert_eq!(coloured("\x1b[1;31mred\x1b[0m"), "\x1b[1;31mred\x1b[0m");
    assert_eq!(coloured("\x1b[1;31mred"), "\x1b[1;31mred\x1b[0m");
    assert_eq!(coloured("\x1b[mplain"), "\x1b[mplain");
    assert_eq!(coloured("\x1b[38;5;208m\x1b[48;2;1;2;3mx\x1b[m"), "\x1b[38;5;208m\x1b[48;2;1;2;3mx\x1b[m");
    assert_eq!(coloured("\u{9b}32mx\x1b[0m"), "\x1b[32mx\x1b[0m");
    for refused in
        ["8", "5", "6", "1;8", "38", "38;5", "38;5;256", "38;2;1;2", "38;5;1;8", "10", "999", "99999999"]
    {
        assert_eq!(coloured(format!("\x1b[{refused}mx")), "x", "{refused}");
    }
    for refused in ["\x1b[>4;2mx", "\x1b[?31mx", "\x1b[31 mx", "\x1b[4:3mx", "\x1b[31hx"] {
        assert_eq!(coloured(refused), "x", "{refused:?}");
    }
}

#[test]
fn a_name_stays_on_its_line() {
    assert_eq!(scrub_name(b"a\nb\tc\x1b[31md\r"), "a␊b␉cd␊");
}

/// Pieces that matter, glued together at random: plain random bytes would rarely form a sequence.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just(b"\x1b".to_vec()),
        Just(b"[".to_vec()),
        Just(b"]".to_vec()),
        Just(b"\x1b[".to_vec()),
        Just(b"\x1b]0;".to_vec()),
        Just(b"\x1bP".to_vec()),
        Just(b"\x1b\\".to_vec()),
        Just(b"\x07".to_vec()),
        Just(b"m".to_vec()),
        Just(b"31".to_vec()),
        Just(b"0".to_vec()),
        Just(b";".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\n".to_vec()),
        Just("\u{9b}".as_bytes().to_vec()),
        Just("\u{9d}".as_bytes().to_vec()),
        Just("\u{202e}".as_bytes().to_vec()),
        Just("\u{200b}é👍".as_bytes().to_vec()),
        Just(b"\x08\x7f\x18".to_vec()),
        Just(b"text".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

/// Takes away the sequences that may stay; what is left must hold nothing active.
fn without_colours(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        out.push_str(before);
        let (parameters, tail) = after.split_once('m').expect("only colours may stay");
        assert!(parameters.bytes().all(|b| b.is_ascii_digit() || b == b';'), "{parameters:?}");
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn is_inert(c: char) -> bool {
    matches!(c, '\n' | '\t')
        || (!c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_active_is_left(bytes in hostile()) {
        prop_assert!(plain(&bytes).chars().all(is_inert));
        let colours = coloured(&bytes);
        prop_assert!(without_colours(&colours).chars().all(is_inert), "{colours:?}");
    }

    #[test]
    fn scrubbing_twice_changes_nothing(bytes in hostile()) {
        for colours in [Colours::Keep, Colours::Remove] {
            let once = scrub_terminal(&bytes, colours);
            prop_assert_eq!(scrub_terminal(once.as_bytes(), colours), once);
        }
    }

    #[test]
    fn chunks_do_not_matter(bytes in hostile(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        for colours in [Colours::Keep, Colours::Remove] {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut scrubber, mut out, mut start) = (Scrubber::new(colours), String::new(), 0);
            for cut in cuts.into_iter().chain([bytes.len()]) {
                scrubber.push(&bytes[start..cut], &mut out);
                start = cut;
            }
            scrubber.finish(&mut out);
            prop_assert_eq!(out, scrub_terminal(&bytes, colours));
        }
    }

    #[test]
    fn text_without_controls_is_as_long_as_lossy_decoding(text in "[ -~]{0,80}") {
        prop_assert_eq!(plain(&text), text);
    }
}

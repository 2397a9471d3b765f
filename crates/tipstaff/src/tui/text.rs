//! Text in cells.
//!
//! Promises, whatever the text: no control character, no escape sequence and nothing that reorders or hides text comes
//! out; every character takes one or two cells that all terminals agree about; no line is wider than it may be.

use crate::watch::plain;
use ratatui::text::Span;

/// Combining marks that one character keeps.
const MOST_MARKS: usize = 2;
/// Cells of a tab.
const TAB: &str = "    ";

/// Cells that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(cells).sum()
}

/// Cells that a character takes.
fn cells(c: char) -> usize {
    if matches!(c, ' '..='~') {
        return 1;
    }
    Span::raw(c.encode_utf8(&mut [0; 4]) as &str).width()
}

/// Text without what a terminal would obey, or what terminals measure differently. Newlines stay.
pub(crate) fn tame(text: &str) -> String {
    let text = plain(text);
    let mut out = String::with_capacity(text.len());
    let mut marks = 0;
    for c in text.chars() {
        match c {
            ' '..='~' | '\n' => {
                marks = 0;
                out.push(c);
            }
            '\t' => out.push_str(TAB),
            // Joiners, variation selectors, skin tones: terminals differ about what they join.
            '\u{ad}'
            | '\u{34f}'
            | '\u{200c}'
            | '\u{200d}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{1f3fb}'..='\u{1f3ff}' => {}
            '\u{e0100}'..='\u{e01ef}' => {}
            // Fillers look like nothing.
            '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' => out.push(char::REPLACEMENT_CHARACTER),
            // Halves of flags: their letters.
            '\u{1f1e6}'..='\u{1f1ff}' => {
                let letter = u32::from('A') + (u32::from(c) - 0x1f1e6);
                out.push(char::from_u32(letter).unwrap_or('?'));
            }
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            c if cells(c) == 0 => {
                marks += 1;
                if marks <= MOST_MARKS && !out.is_empty() && !out.ends_with('\n') {
                    out.push(c);
                }
            }
            c => {
                marks = 0;
                out.push(c);
            }
        }
    }
    out
}

/// The same on one line: newlines become visible.
pub(crate) fn tame_line(text: &str) -> String {
    tame(text.trim_end_matches('\n')).replace('\n', "\u{240a}")
}

/// At most `most` cells of a line, with a mark where something is missing.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut taken = 0;
    for c in text.chars() {
        taken += cells(c);
        if taken >= most {
            break;
        }
        out.push(c);
    }
    if most > 0 {
        out.push('~');
    }
    out
}

/// The end of a line, at most `most` cells.
pub(crate) fn tail(text: &str, most: usize) -> &str {
    let mut taken = 0;
    for (at, c) in text.char_indices().rev() {
        taken += cells(c);
        if taken > most {
            return text.get(at + c.len_utf8()..).unwrap_or_default();
        }
    }
    text
}

/// A line in rows of at most `most` cells, broken at spaces where there are any; at least one row.
pub(crate) fn wrap(line: &str, most: usize) -> Vec<String> {
    let most = most.max(2);
    let mut rows = Vec::new();
    let (mut row, mut taken) = (String::new(), 0);
    // Where the row may be broken, and the cells up to there.
    let mut space: Option<(usize, usize)> = None;
    for c in line.chars() {
        let wide = cells(c);
        if taken + wide > most {
            // A break that leaves half of the row empty reads worse than a broken word.
            let rest = match space.filter(|(_, before)| *before * 2 >= most) {
                Some((at, _)) if c != ' ' => row.split_off(at),
                _ => String::new(),
            };
            rows.push(std::mem::replace(&mut row, rest));
            taken = width(&row);
            space = None;
            if c == ' ' && row.is_empty() {
                continue;
            }
        }
        row.push(c);
        taken += wide;
        if c == ' ' {
            space = Some((row.len(), taken));
        }
    }
    rows.push(row);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_becomes_plain_cells() {
        let cases = [
            ("\u{1b}]0;title\u{7}a\u{1b}[2Jb", "ab"),
            ("a\tb", "a    b"),
            ("x\u{202e}y", "x<U+202E>y"),
            ("👩\u{200d}👩\u{200d}👧", "👩👩👧"),
            ("👍\u{1f3fd}❤\u{fe0f}", "👍❤"),
            ("\u{1f1e9}\u{1f1ea}", "DE"),
            ("z\u{301}\u{301}\u{301}\u{301}", "z\u{301}\u{301}"),
            ("\u{301}\u{301}", ""),
            ("a\u{3164}b", "a\u{fffd}b"),
            ("\u{9b}31mred", "red"),
            ("a\u{8}b\u{0}", "a\u{2408}b\u{2400}"),
        ];
        for (text, tamed) in cases {
            assert_eq!(tame(text), tamed, "{text:?}");
        }
        assert_eq!(tame_line("a\nb\n"), "a\u{240a}b");
    }

    #[test]
    fn rows_are_never_wider_than_asked_and_lose_nothing() {
        let text = "a word 漢字漢字漢字 and averyveryverylongwordwithoutanyspace 👩👩 end";
        for most in 2..40 {
            let rows = wrap(text, most);
            assert!(rows.iter().all(|row| width(row) <= most), "{most}: {rows:?}");
            let joined: String = rows.concat().split_whitespace().collect();
            assert_eq!(joined, text.split_whitespace().collect::<String>(), "{most}");
        }
        assert_eq!(wrap("", 10), [""]);
        assert_eq!(wrap("one two three", 8), ["one two ", "three"]);
        assert_eq!(cut("漢字漢字", 5), "漢字~");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab~");
        assert_eq!((tail("漢字漢字", 5), tail("ab", 2)), ("漢字", "ab"));
    }

    #[test]
    fn every_character_is_tamed_into_one_or_two_cells() {
        for c in (0..=0x0010_ffff).filter_map(char::from_u32).filter(|c| !matches!(*c, '\n' | '\r')) {
            let text = tame(&format!("a{c}b"));
            assert!(text.chars().all(|c| !c.is_control()), "{c:?}");
            // What ratatui measures is the sum that we reckon with.
            assert_eq!(Span::raw(text.as_str()).width(), width(&text), "U+{:04X}", u32::from(c));
        }
    }
}

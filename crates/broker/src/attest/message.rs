//! What a commit's message becomes when the commit is attested: the agent's words, then our two trailers.
//!
//! Promises: whatever the words are, exactly one `Tipstaff-Run` and one `Tipstaff-Warrant` are in the result, at its
//! end, where git reads trailers; no line of the words is one of them in another spelling (case, blanks, zero-width
//! and look-alike letters, other line breaks); trailers that were there before stay trailers.

use tipstaff_model::RunId;
use tipstaff_seal::WarrantDigest;

/// The trailer that names the run.
pub const RUN_TRAILER: &str = "Tipstaff-Run";
/// The trailer that names the digest of the run's signed warrant.
pub const WARRANT_TRAILER: &str = "Tipstaff-Warrant";

/// Behind such a line git reads no trailers (`wt_status_locate_end`).
const SCISSORS: &str = "------------------------ >8 ------------------------";

/// The message of an attested commit.
#[must_use]
pub(super) fn attested(original: &[u8], run: RunId, warrant: &WarrantDigest) -> Vec<u8> {
    let mut message = cleaned(original);
    if message.is_empty() {
        message.extend_from_slice(format!("Change of run {}", run.short()).as_bytes());
    }
    message.push(b'\n');
    if !ends_in_trailers(&message) {
        message.push(b'\n');
    }
    message
        .extend_from_slice(format!("{RUN_TRAILER}: {run}\n{WARRANT_TRAILER}: sha256:{warrant}\n").as_bytes());
    message
}

/// The two trailers at the end of an attested message; `None` when they are not exactly there, or are anywhere else too.
#[must_use]
pub(super) fn read(message: &[u8]) -> Option<(RunId, WarrantDigest)> {
    let text = message.strip_suffix(b"\n")?;
    let mut lines = text.rsplitn(3, |b| *b == b'\n');
    let (warrant, run, words) = (lines.next()?, lines.next()?, lines.next()?);
    let value = |line: &[u8], name: &str| {
        let line = std::str::from_utf8(line).ok()?;
        line.strip_prefix(name)?.strip_prefix(": ").map(ToOwned::to_owned)
    };
    let run: RunId = value(run, RUN_TRAILER)?.parse().ok()?;
    let digest: WarrantDigest = value(warrant, WARRANT_TRAILER)?.strip_prefix("sha256:")?.parse().ok()?;
    // One spelling: writing them again gives the same bytes.
    let same = attested(words, run, &digest) == message;
    same.then_some((run, digest))
}

/// The words without forged trailers, scissors, leading and trailing blank lines, and whatever a zero byte hides. Control
/// characters become blanks: a message is text, not a terminal's program.
fn cleaned(original: &[u8]) -> Vec<u8> {
    let visible = original.split(|b| *b == 0).next().unwrap_or_default();
    let text: Vec<u8> = visible
        .iter()
        .map(|b| if b.is_ascii_control() && !matches!(b, b'\n' | b'\t' | b'\r') { b' ' } else { *b })
        .collect();
    let mut kept = Vec::with_capacity(text.len());
    let mut in_forged = false;
    for line in segments(&text) {
        let continues = in_forged && line.first().is_some_and(|b| matches!(b, b' ' | b'\t'));
        in_forged = continues || is_forged(line);
        let scissors = line.windows(SCISSORS.len()).any(|window| window == SCISSORS.as_bytes());
        if !in_forged && !scissors {
            kept.extend_from_slice(line);
        }
    }
    let end = kept.iter().rposition(|b| !b.is_ascii_whitespace()).map_or(0, |last| last + 1);
    kept.truncate(end);
    // Leading blank lines go, the first line's own indentation stays.
    let first = kept.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(0);
    let start =
        kept.get(..first).and_then(|front| front.iter().rposition(|b| *b == b'\n')).map_or(0, |at| at + 1);
    kept.split_off(start)
}

/// Pieces that some program shows as a line of their own, each with its end: git breaks at line feeds only, others also
/// at carriage returns and Unicode's breaks.
fn segments(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = (0..rest.len())
            .find_map(|at| break_length(rest.get(at..).unwrap_or_default()).map(|length| at + length))
            .unwrap_or(rest.len());
        let (line, tail) = rest.split_at_checked(end)?;
        rest = tail;
        Some(line)
    })
}

fn break_length(text: &[u8]) -> Option<usize> {
    match text {
        [b'\r', b'\n', ..] | [0xc2, 0x85, ..] => Some(2),
        [b'\n' | b'\r', ..] => Some(1),
        [0xe2, 0x80, 0xa8 | 0xa9, ..] => Some(3),
        _ => None,
    }
}

/// Whether a line reads as one of our trailers, to git or to a person.
fn is_forged(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    let mut letters = String::new();
    for c in text.chars().filter_map(plain).take(64) {
        match c {
            ':' | '=' => return matches!(letters.as_str(), "tipstaffrun" | "tipstaffwarrant"),
            '-' => {}
            c => letters.push(c),
        }
    }
    false
}

/// A character as it looks, in lower case; `None` for one that shows nothing. Blanks and marks that join words count as
/// nothing, too.
fn plain(c: char) -> Option<char> {
    let c = match c {
        // Full-width forms of ASCII.
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        other => other,
    };
    Some(match c {
        c if c.is_control() || c.is_whitespace() => return None,
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' => {
            return None;
        }
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
            return None;
        }
        '\u{300}'..='\u{36f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e0fff}' => return None,
        '_' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' => '-',
        '\u{a789}' | '\u{2236}' | '\u{fe55}' | '\u{5c3}' | '\u{589}' | '\u{fe13}' => ':',
        // Letters of other scripts that look like those of our words.
        '\u{422}' | '\u{442}' | '\u{3a4}' | '\u{3c4}' => 't',
        '\u{406}' | '\u{456}' | '\u{399}' | '\u{3b9}' | '\u{131}' | '\u{269}' => 'i',
        '\u{420}' | '\u{440}' | '\u{3a1}' | '\u{3c1}' => 'p',
        '\u{405}' | '\u{455}' | '\u{17f}' => 's',
        '\u{410}' | '\u{430}' | '\u{391}' | '\u{3b1}' | '\u{251}' => 'a',
        '\u{3dc}' | '\u{192}' => 'f',
        '\u{433}' => 'r',
        '\u{475}' | '\u{3c5}' | '\u{57d}' => 'u',
        '\u{39d}' | '\u{578}' => 'n',
        '\u{461}' | '\u{51c}' | '\u{51d}' => 'w',
        other => other.to_lowercase().next().unwrap_or(other),
    })
}

/// Whether the last paragraph, which is not the first, is made of trailers only: ours join them then.
fn ends_in_trailers(message: &[u8]) -> bool {
    let text = message.strip_suffix(b"\n").unwrap_or(message);
    let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
    let is_blank = |line: &&[u8]| line.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r'));
    let Some(last_blank) = lines.iter().rposition(is_blank) else { return false };
    let Some(block) = lines.get(last_blank + 1..) else { return false };
    !block.is_empty()
        && block.iter().enumerate().all(|(number, line)| {
            is_trailer(line) || (number > 0 && matches!(line.first(), Some(b' ' | b'\t')))
        })
}

/// Whether git reads a line as `token: value`.
fn is_trailer(line: &[u8]) -> bool {
    let mut blanks = false;
    for (at, byte) in line.iter().enumerate() {
        match byte {
            b':' => return at > 0,
            b' ' | b'\t' if at > 0 => blanks = true,
            b'-' if !blanks => {}
            byte if !blanks && byte.is_ascii_alphanumeric() => {}
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run() -> RunId {
        RunId::from_bytes([0x11; 16])
    }

    fn digest() -> WarrantDigest {
        WarrantDigest::of(b"a warrant")
    }

    fn shown(original: &[u8]) -> String {
        let text = String::from_utf8_lossy(&attested(original, run(), &digest())).into_owned();
        text.replace(&run().to_string(), "RUN").replace(&digest().to_string(), "DIGEST")
    }

    const OURS: &str = "Tipstaff-Run: RUN\nTipstaff-Warrant: sha256:DIGEST\n";

    #[test]
    fn words_stay_and_trailers_stay_trailers() {
        for (original, words) in [
            ("Fix it\n", "Fix it\n\n"),
            ("Fix it", "Fix it\n\n"),
            ("\n\n  Fix it\n\n\n", "  Fix it\n\n"),
            ("fix: it\n", "fix: it\n\n"),
            ("Fix\n\nCo-authored-by: A <a@b.c>\n", "Fix\n\nCo-authored-by: A <a@b.c>\n"),
            ("Fix\n\nNote: a\n  goes on\n", "Fix\n\nNote: a\n  goes on\n"),
            ("Fix\n\nNote: a\nwords\n", "Fix\n\nNote: a\nwords\n\n"),
            ("tipstaff-runner: carry on\n", "tipstaff-runner: carry on\n\n"),
            ("Fix\n\nSee Tipstaff-Run: it is a trailer.\n", "Fix\n\nSee Tipstaff-Run: it is a trailer.\n\n"),
            ("", "Change of run 11111111\n\n"),
            ("a\0b", "a\n\n"),
        ] {
            assert_eq!(shown(original.as_bytes()), format!("{words}{OURS}"), "{original:?}");
        }
    }

    #[test]
    fn forged_trailers_are_gone_in_every_spelling() {
        for line in [
            "Tipstaff-Run: zz",
            "tipstaff-run: zz",
            "TIPSTAFF-WARRANT: sha256:0",
            "Tipstaff-Run : zz",
            "Tipstaff-Run\t:zz",
            "  Tipstaff-Run: zz",
            "\u{feff}Tipstaff-Run: zz",
            "Tip\u{200b}staff-Run: zz",
            "Tipstaff\u{2011}Run: zz",
            "Tipstaff_Run: zz",
            "Tipstaff Run: zz",
            "TipstaffRun=zz",
            "\u{422}i\u{440}st\u{430}ff-Run: zz",
            "\u{ff34}\u{ff49}pstaff-Run\u{ff1a} zz",
            "T\u{301}ipstaff-Run: zz",
            "Tipstaff-Run: zz\n continued\n\tand on",
        ] {
            for (before, after) in [
                ("Fix\n\n", ""),
                ("Fix\n\n", "\n\nSigned-off-by: A <a@b.c>"),
                ("", "\n\nFix"),
                ("Fix\r", ""),
                ("Fix\u{2028}", "\u{2029}more"),
            ] {
                let message = shown(format!("{before}{line}{after}\n").as_bytes());
                let words = message.strip_suffix(OURS).unwrap();
                assert!(!words.contains("zz") && !words.contains("continued"), "{line:?}: {message:?}");
            }
        }
        let cut = shown(format!("Fix\n\n# {SCISSORS}\nhidden\n").as_bytes());
        assert_eq!(cut, format!("Fix\n\nhidden\n\n{OURS}"));
        let active = shown(b"Fix\x0bTipstaff-Run: x\x1b[2J\n");
        assert_eq!(active, format!("Fix Tipstaff-Run: x [2J\n\n{OURS}"));
    }

    #[test]
    fn only_what_was_written_here_is_read() {
        let good = attested(b"Fix\n\nNote: a\n", run(), &digest());
        assert_eq!(read(&good), Some((run(), digest())));
        let text = String::from_utf8(good).unwrap();
        for bad in [
            text.replace("Tipstaff-Run: ", "tipstaff-run: "),
            text.replace("Tipstaff-Run: ", "Tipstaff-Run:"),
            text.replace("sha256:", "sha1:"),
            text.replace("Fix", "Fix\nTipstaff-Run: x"),
            format!("{text}\n"),
            format!("{text}Note: b\n"),
            text.trim_end().to_owned(),
            text.to_uppercase(),
            "Fix\n".to_owned(),
            String::new(),
        ] {
            assert_eq!(read(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_message_ends_in_our_trailers_once(message in proptest::collection::vec(any::<u8>(), 0..400)) {
            let once = attested(&message, run(), &digest());
            prop_assert_eq!(read(&once), Some((run(), digest())));
        }

        #[test]
        fn tricky_messages_too(parts in proptest::collection::vec(prop_oneof![
            Just("Tipstaff-Run: x"), Just("\n"), Just("\r"), Just(" "), Just("\t"), Just("tipstaff-warrant"), Just(":"),
            Just("Fix"), Just("Note: a"), Just("\u{2028}"), Just(SCISSORS), Just("\0"), Just("\u{200b}"), Just("# ")
        ], 0..20)) {
            let once = attested(parts.concat().as_bytes(), run(), &digest());
            prop_assert_eq!(read(&once), Some((run(), digest())), "{}", String::from_utf8_lossy(&once));
            let words = String::from_utf8_lossy(&once).into_owned();
            let lines = segments(words.as_bytes()).filter(|line| is_forged(line)).count();
            prop_assert_eq!(lines, 2, "{}", words);
        }
    }
}

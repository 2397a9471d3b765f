//! Names of files: which are something else to another file system, and which are one name to some.
//!
//! Promise: a name that git, Windows, macOS or a case-insensitive file system would take for git's own folder or for one
//! of git's control files never passes as an ordinary one.

use unicode_normalization::UnicodeNormalization;

/// Longest path in bytes, as Linux has it.
pub const LONGEST_PATH: usize = 4095;
/// Longest name in bytes, as most file systems have it.
pub const LONGEST_NAME: usize = 255;

/// Git's control files: name, the begin of its short form on NTFS, and the short form's other begin, which Windows
/// makes of a hash once the first four are taken.
const CONTROL: [(&str, &str, &str); 4] = [
    (".gitmodules", "gitmod", "gi7eba"),
    (".gitattributes", "gitatt", "gi7d29"),
    (".gitignore", "gitign", "gi250a"),
    (".mailmap", "mailma", "maba30"),
];

/// Code points that HFS+ leaves out when it compares names (Apple TN1150).
const fn is_ignored(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

/// The form in which names meet that some file system takes for one: case, normal forms, what is left out, what is
/// cut off at the end.
#[must_use]
pub fn folded(name: &[u8]) -> Vec<u8> {
    let mut out = match std::str::from_utf8(name) {
        Ok(text) if text.is_ascii() => name.to_ascii_lowercase(),
        Ok(text) => text
            .chars()
            .filter(|c| !is_ignored(*c))
            .nfd()
            .flat_map(char::to_uppercase)
            .flat_map(char::to_lowercase)
            .nfd()
            .collect::<String>()
            .into_bytes(),
        Err(_) => name.to_ascii_lowercase(),
    };
    while out.len() > 1 && matches!(out.last(), Some(b'.' | b' ')) {
        out.pop();
    }
    out
}

/// What git's own folder is called, on some file system.
#[must_use]
pub fn is_git_folder(name: &[u8]) -> bool {
    !is_plain(name) && is_alike(&folded(name), ".git", "git", "git")
}

/// Whether nothing about the name needs a closer look.
fn is_plain(name: &[u8]) -> bool {
    let usual =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'.' | b'@' | b',');
    (1..=LONGEST_NAME).contains(&name.len()) && !name.starts_with(b".") && name.iter().all(usual)
}

/// Whether a folded name stands for `wanted` somewhere.
fn is_alike(folded: &[u8], wanted: &str, short: &str, hashed: &str) -> bool {
    let name = folded.split(|byte| *byte == b':').next().unwrap_or_default();
    let end = name.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    let name = name.get(..end).unwrap_or_default();
    if name == wanted.as_bytes() {
        return true;
    }
    let Some(tilde) = name.iter().position(|byte| *byte == b'~') else { return false };
    let (front, digits) = (name.get(..tilde).unwrap_or_default(), name.get(tilde + 1..).unwrap_or_default());
    let numbered = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    numbered
        && front.len() >= 2
        && (short.as_bytes().starts_with(front) || hashed.as_bytes().starts_with(front))
}

/// Why one part of a path is dangerous.
#[must_use]
pub fn fault(name: &[u8], is_link: bool) -> Option<&'static str> {
    if is_plain(name) {
        return None;
    }
    if name.is_empty() || name == b"." || name == b".." {
        return Some("is no name");
    }
    if name.len() > LONGEST_NAME {
        return Some("is longer than a file system takes");
    }
    if memchr::memchr2(b'/', b'\\', name).is_some() {
        return Some("has a separator of folders in it");
    }
    if name.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
        return Some("has a control character in it");
    }
    let text = std::str::from_utf8(name).unwrap_or_default();
    let hidden = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.chars().any(hidden) {
        return Some("has a character in it that shows it as another name");
    }
    let folded = folded(name);
    if is_alike(&folded, ".git", "git", "git") {
        return Some("is git's own folder to some file system");
    }
    for (control, short, hashed) in CONTROL {
        if name == control.as_bytes() {
            return is_link.then_some("is a control file of git as a link");
        }
        if is_alike(&folded, control, short, hashed) {
            return Some("is a control file of git to some file system");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whatever_is_git_somewhere_is_found() {
        for name in [
            ".git",
            ".GIT",
            ".Git",
            ".git.",
            ".git ",
            ".git. . ",
            ".git:x",
            ".git::$INDEX_ALLOCATION",
            "git~1",
            "GIT~1",
            "git~9",
            "git~1.",
            "GiT~12",
            ".g\u{200c}it",
            "\u{feff}.git",
            ".gi\u{206b}t",
            ".git\u{200d}",
            ".gıt\u{0}",
        ] {
            assert!(fault(name.as_bytes(), false).is_some(), "{name:?}");
        }
        for name in [
            ".GITMODULES",
            ".gitmodules ",
            "gitmod~1",
            "GI7EBA~1",
            "gi7eb~12",
            ".gitmodules:x",
            ".g\u{200c}itmodules",
            "gitatt~1",
            ".GitAttributes",
            "GI250A~1",
            ".MAILMAP",
            "maba30~2",
        ] {
            assert!(fault(name.as_bytes(), false).is_some(), "{name:?}");
        }
        for name in ["a\\b", "a/b", "..", ".", "", "a\nb", "a\u{7f}", "a\u{202e}txt.exe", "a\u{85}b"] {
            assert!(fault(name.as_bytes(), false).is_some(), "{name:?}");
        }
        for name in [
            ".gitmodules",
            ".gitignore",
            ".gitattributes",
            ".github",
            ".gitlab-ci.yml",
            "git",
            "git~",
            "~1",
            "a:b",
            "x.",
            "größe",
            "日本語",
            ".git-blame-ignore-revs",
            "git~1x",
            "notes~1",
            "...",
            ".gitkeep",
            "caf\u{e9}",
            "gist~1",
        ] {
            assert_eq!(fault(name.as_bytes(), false), None, "{name:?}");
        }
        assert_eq!(fault(b"caf\xe9", false), None, "bytes that are no UTF-8 are only bytes");
        assert!(fault(b".gitattributes", true).is_some() && fault(&[b'a'; 256], false).is_some());
    }

    #[test]
    fn names_that_are_one_to_some_file_system_fold_alike() {
        for (left, right) in [
            ("README", "readme"),
            ("ÄRGER", "ärger"),
            ("e\u{301}", "é"),
            ("a", "a."),
            ("x", "x\u{200c}"),
            ("straße", "STRASSE"),
        ] {
            assert_eq!(folded(left.as_bytes()), folded(right.as_bytes()), "{left} {right}");
        }
        assert_ne!(folded(b"a"), folded(b"b"));
    }

    proptest! {
        #[test]
        fn no_spelling_of_git_passes(
            cases in prop::collection::vec(any::<bool>(), 4),
            holes in prop::collection::vec(prop::sample::select(vec!["", "\u{200c}", "\u{200e}", "\u{feff}", "\u{206f}"]), 5),
            tail in "[. ]{0,4}(:[a-z$]{0,9})?",
        ) {
            let mut name = holes[4].to_owned();
            for ((letter, upper), hole) in ".git".chars().zip(cases).zip(&holes) {
                name.push(if upper { letter.to_ascii_uppercase() } else { letter });
                name.push_str(hole);
            }
            name.push_str(&tail);
            prop_assert!(fault(name.as_bytes(), false).is_some(), "{:?}", name);
        }

        #[test]
        fn any_bytes_are_survived_and_folding_is_stable(name in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = fault(&name, true);
            let once = folded(&name);
            prop_assert_eq!(folded(&once), once);
        }
    }
}

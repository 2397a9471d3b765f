//! Symbolic links: where one leads, judged by its text.
//!
//! Promise: a link that passes leads to a place of the repository, whatever other links that passed lie on its way. Its
//! own `..` come first and are counted from its folder, which is a real one; after them it only goes down, and every link
//! that it meets there was judged in the same way.

use super::names;

/// Longest target, in bytes.
pub const LONGEST_TARGET: usize = 4095;

/// Why a link at `path` may not lead to `target`.
#[must_use]
pub fn fault(path: &[u8], target: &[u8]) -> Option<&'static str> {
    if target.is_empty() || target.len() > LONGEST_TARGET {
        return Some("leads to no place");
    }
    if target.iter().any(|byte| *byte < b' ' || matches!(byte, b'\\' | 0x7f)) {
        return Some("has a control character or a backslash in its target");
    }
    let drive = matches!(target, [letter, b':', ..] if letter.is_ascii_alphabetic());
    if target.starts_with(b"/") || drive {
        return Some("leads to an absolute path");
    }
    let mut above = path.iter().filter(|byte| **byte == b'/').count();
    let mut went_down = false;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if went_down => {
                return Some("goes up again after a name, which another link may turn around");
            }
            b".." => match above.checked_sub(1) {
                Some(left) => above = left,
                None => return Some("leads out of the repository"),
            },
            name if names::is_git_folder(name) => return Some("leads into git's own folder"),
            _ => went_down = true,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn links_within_pass_and_others_do_not() {
        for (path, target) in [
            ("a", "b"),
            ("a", "./b/c"),
            ("d/a", "../b"),
            ("d/e/a", "../../b"),
            ("a", "."),
            ("d/a", ".."),
            ("a", "...x"),
            ("a", ".github/x"),
            ("a", "b//c/"),
        ] {
            assert_eq!(fault(path.as_bytes(), target.as_bytes()), None, "{path} -> {target}");
        }
        for (path, target) in [
            ("a", "/etc/passwd"),
            ("a", "//x"),
            ("a", ".."),
            ("d/a", "../.."),
            ("d/a", "../../x"),
            ("a", "b/../c"),
            ("a", "./../x"),
            ("a", ".git/hooks"),
            ("d/a", "../.GIT/config"),
            ("a", "git~1/x"),
            ("a", "C:/x"),
            ("a", "..\\x"),
            ("a", ""),
            ("a", "x\ny"),
            ("a", "x/.git::$INDEX_ALLOCATION/config"),
            ("a", "x/.g\u{200c}it"),
        ] {
            assert!(fault(path.as_bytes(), target.as_bytes()).is_some(), "{path} -> {target}");
        }
        assert!(fault(b"a", &[b'x'; 5000]).is_some());
    }

    proptest! {
        /// A model of the file system: links that passed, resolved part by part, stay at or below the root.
        #[test]
        fn no_chain_of_links_that_pass_leaves_the_repository(
            links in prop::collection::vec(("[ab]", prop::option::of("[ab]"), prop::collection::vec("\\.\\.|[abcd]|\\.", 1..6)), 1..5),
            walk in prop::collection::vec("[abcd]", 1..5),
        ) {
            let mut table = std::collections::BTreeMap::new();
            for (first, second, target) in &links {
                let path = second.as_ref().map_or_else(|| first.clone(), |second| format!("{first}/{second}"));
                let target = target.join("/");
                if fault(path.as_bytes(), target.as_bytes()).is_none() {
                    table.insert(path, target);
                }
            }
            let mut at: Vec<String> = Vec::new();
            let mut todo: Vec<String> = walk.into_iter().rev().collect();
            for _ in 0..200 {
                let Some(part) = todo.pop() else { break };
                match part.as_str() {
                    "." | "" => {}
                    ".." => prop_assert!(at.pop().is_some(), "left the repository: {:?}", table),
                    name => {
                        at.push(name.to_owned());
                        if let Some(target) = table.get(&at.join("/")) {
                            at.pop();
                            todo.extend(target.split('/').rev().map(str::to_owned));
                        }
                    }
                }
            }
        }
    }
}

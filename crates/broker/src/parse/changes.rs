//! The output of `git diff-tree -r -z --raw --no-renames`: `:<mode> <mode> <id> <id> <letter>\0<path>\0` per change,
//! with a commit id and `\0` before the changes of each commit when several are listed.

use crate::pack::ObjectId;

/// One changed path of one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path as git has it.
    pub path: Vec<u8>,
    /// The file mode before; 0 when it is new.
    pub old_mode: u32,
    /// The file mode after; 0 when it is gone.
    pub new_mode: u32,
    /// The object before; all zeros when it is new.
    pub old_id: ObjectId,
    /// The object after; all zeros when it is gone.
    pub new_id: ObjectId,
}

/// The mode of a submodule.
pub const MODE_SUBMODULE: u32 = 0o160_000;

/// The mode of a symbolic link.
pub const MODE_SYMLINK: u32 = 0o120_000;

/// Reads the whole output; `None` when any part has another form.
#[must_use]
pub fn parse(output: &[u8]) -> Option<Vec<Change>> {
    let Some(body) = output.strip_suffix(b"\0") else { return output.is_empty().then(Vec::new) };
    let mut changes = Vec::new();
    let mut parts = body.split(|b| *b == 0);
    while let Some(part) = parts.next() {
        if let Some(front) = part.strip_prefix(b":") {
            let path = parts.next().filter(|path| !path.is_empty())?;
            changes.push(change(front, path)?);
        } else if !is_id(part) {
            return None;
        }
    }
    Some(changes)
}

fn change(front: &[u8], path: &[u8]) -> Option<Change> {
    let mut words = std::str::from_utf8(front).ok()?.split(' ');
    let (old_mode, new_mode) = (mode(words.next()?)?, mode(words.next()?)?);
    let (old_id, new_id) = (words.next()?, words.next()?);
    let letter = words.next()?;
    // Renames and copies name two paths; we ask git not to look for them.
    let known = matches!(letter, "A" | "D" | "M" | "T" | "U" | "X");
    if !known || words.next().is_some() {
        return None;
    }
    let (old_id, new_id) = (ObjectId::from_hex(old_id.as_bytes())?, ObjectId::from_hex(new_id.as_bytes())?);
    Some(Change { path: path.to_vec(), old_mode, new_mode, old_id, new_id })
}

fn mode(text: &str) -> Option<u32> {
    (text.len() == 6).then(|| u32::from_str_radix(text, 8).ok()).flatten()
}

fn is_id(bytes: &[u8]) -> bool {
    matches!(bytes.len(), 40 | 64) && bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "0123456789012345678901234567890123456789";

    #[test]
    fn changes_of_one_and_of_several_commits_are_read() {
        let text = format!(":000000 100644 {ID} {ID} A\0a\nb\0{ID}\0:100644 160000 {ID} {ID} T\0sub\0");
        let changes = parse(text.as_bytes()).unwrap();
        assert_eq!(changes.len(), 2);
        assert_eq!((changes[0].old_mode, changes[0].path.as_slice()), (0, b"a\nb".as_slice()));
        assert_eq!(changes[1].new_mode, MODE_SUBMODULE);
        let bad = [
            format!(":000000 100644 {ID} {ID} A\0"),
            format!(":000000 100644 {ID} {ID} R100\0a\0b\0"),
            format!(":000000 100644 {ID} A\0a\0"),
            "x\0".to_owned(),
            format!(":000000 100644 {ID} {ID} A\0a"),
            format!(":0 100644 {ID} {ID} A\0a\0"),
        ];
        for text in bad {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_path_is_lost(paths in prop::collection::vec(prop::collection::vec(1_u8..=255, 1..30), 0..20)) {
            let mut text = Vec::new();
            for path in &paths {
                text.extend_from_slice(format!(":100644 100644 {ID} {ID} M\0").as_bytes());
                text.extend_from_slice(path);
                text.push(0);
            }
            let found: Vec<_> = parse(&text).unwrap().into_iter().map(|change| change.path).collect();
            prop_assert_eq!(found, paths);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}

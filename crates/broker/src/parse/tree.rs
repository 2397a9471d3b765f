//! A tree object: `<mode> <name>\0<20 bytes>` per entry.

use crate::pack::ObjectId;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry<'a> {
    /// The mode, such as `0o100644`.
    pub mode: u32,
    /// The name: bytes without `/`, as far as git made it.
    pub name: &'a [u8],
    /// The object.
    pub id: ObjectId,
}

/// The mode of a folder.
pub const MODE_TREE: u32 = 0o40_000;

impl TreeEntry<'_> {
    /// Whether it is a folder.
    #[must_use]
    pub const fn is_tree(&self) -> bool {
        self.mode & 0o170_000 == MODE_TREE
    }
}

/// Reads the entries; one of another form ends it with `None`.
pub fn entries(content: &[u8]) -> impl Iterator<Item = Option<TreeEntry<'_>>> {
    let mut rest = content;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let read = entry(rest);
        rest = read.as_ref().map_or(&[], |(_, after)| after);
        Some(read.map(|(entry, _)| entry))
    })
}

fn entry(bytes: &[u8]) -> Option<(TreeEntry<'_>, &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let mode = std::str::from_utf8(bytes.get(..space)?).ok()?;
    let mode = u32::from_str_radix(mode, 8).ok()?;
    let rest = bytes.get(space + 1..)?;
    let end = memchr::memchr(0, rest)?;
    let id = rest.get(end + 1..end + 21)?;
    Some((TreeEntry { mode, name: rest.get(..end)?, id: ObjectId::from_bytes(id)? }, rest.get(end + 21..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_are_read_and_a_broken_one_ends_it() {
        let mut content = b"100644 a\0".to_vec();
        content.extend_from_slice(&[7; 20]);
        content.extend_from_slice(b"40000 b c\0");
        content.extend_from_slice(&[8; 20]);
        let read: Vec<_> = entries(&content).collect();
        assert_eq!(read.len(), 2);
        let second = read[1].as_ref().unwrap();
        assert!(second.is_tree() && second.name == b"b c" && second.id.to_string().starts_with("0808"));
        assert_eq!(entries(&content[..content.len() - 1]).last(), Some(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = entries(&bytes).count();
        }
    }
}

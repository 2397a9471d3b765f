//! The output of `git diff --numstat -z` without rename detection: `<added>\t<deleted>\t<path>\0` per file.

/// One changed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStat {
    /// The path as git has it: bytes, `/` between parts.
    pub path: Vec<u8>,
    /// Added and deleted lines; `None` for a binary file.
    pub lines: Option<(u64, u64)>,
}

/// Reads the whole output; `None` when any entry has another form.
#[must_use]
pub fn parse(output: &[u8]) -> Option<Vec<FileStat>> {
    let Some(body) = output.strip_suffix(b"\0") else { return output.is_empty().then(Vec::new) };
    body.split(|b| *b == 0).map(entry).collect()
}

fn entry(bytes: &[u8]) -> Option<FileStat> {
    let mut parts = bytes.splitn(3, |b| *b == b'\t');
    let (added, deleted, path) = (parts.next()?, parts.next()?, parts.next()?);
    if path.is_empty() {
        return None;
    }
    let lines = match (added, deleted) {
        (b"-", b"-") => None,
        _ => Some((number(added)?, number(deleted)?)),
    };
    Some(FileStat { path: path.to_vec(), lines })
}

/// A decimal number without sign, spaces or leading plus.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files_with_any_bytes_in_their_names_are_read() {
        let stats = parse(b"1\t2\ta b\0-\t-\tbin\xff\0" as &[u8]).unwrap();
        assert_eq!(stats.len(), 2);
        assert_eq!(stats[0].lines, Some((1, 2)));
        assert_eq!((stats[1].path.as_slice(), stats[1].lines), (b"bin\xff".as_slice(), None));
        assert_eq!(parse(b"3\t0\ttab\tin\nname\0").unwrap()[0].path, b"tab\tin\nname");
        assert_eq!(parse(b""), Some(Vec::new()));
        for bad in [
            &b"1\t2\tx"[..],
            b"\0",
            b"1\t2\t\0",
            b"+1\t2\tx\0",
            b"-\t2\tx\0",
            b"99999999999999999999\t1\tx\0",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            files in prop::collection::vec(
                (prop::collection::vec(1_u8..=255, 1..40), prop::option::of((any::<u32>(), any::<u32>()))),
                0..20,
            )
        ) {
            let mut text = Vec::new();
            for (path, lines) in &files {
                match lines {
                    Some((added, deleted)) => text.extend_from_slice(format!("{added}\t{deleted}\t").as_bytes()),
                    None => text.extend_from_slice(b"-\t-\t"),
                }
                text.extend_from_slice(path);
                text.push(0);
            }
            let stats = parse(&text).unwrap();
            prop_assert_eq!(stats.len(), files.len());
            for (stat, (path, lines)) in stats.iter().zip(&files) {
                prop_assert_eq!(&stat.path, path);
                prop_assert_eq!(stat.lines, lines.map(|(a, d)| (u64::from(a), u64::from(d))));
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}

//! The path of a URL (RFC 3986 §3.3), read in every way that a server may read it.
//!
//! Where a rule speaks of paths, only a path whose readings can be told is judged at all: no `.` or `..` part, no empty
//! part, no `;`, no backslash, no character that is escaped twice or needlessly. An escaped `/` stays possible, since
//! package registries write scoped names so; then both readings must be permitted. What was judged is what is sent.

/// A path whose readings are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPath {
    path: String,
    decoded: Option<String>,
}

/// The path has a spelling that servers read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path has a spelling that servers read differently")]
pub struct TrickyPath;

impl UrlPath {
    /// The path as it is sent, without its query.
    #[must_use]
    pub fn as_sent(&self) -> &str {
        &self.path
    }

    /// Every reading: as sent, and with its escapes resolved where there are any. A rule must permit them all.
    pub fn readings(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.path.as_str()).chain(self.decoded.as_deref())
    }
}

/// Reads the path of `target`, which may have a query.
///
/// # Errors
/// [`TrickyPath`].
pub fn read(target: &str) -> Result<UrlPath, TrickyPath> {
    let path = target.split('?').next().unwrap_or_default();
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    let mut escaped = false;
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            // RFC 3986 pchar, without the `;` that some servers cut parts at.
            if !(byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@/".contains(&byte)) {
                return Err(TrickyPath);
            }
            decoded.push(byte);
            continue;
        }
        escaped = true;
        let mut digit =
            || rest.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(TrickyPath) };
        let byte = (high << 4) | low;
        // Nobody escapes a letter, a digit or a dot but to hide it, and what stands for structure must not appear anew.
        if byte.is_ascii_alphanumeric() || byte.is_ascii_control() || b".%;\\?#".contains(&byte) {
            return Err(TrickyPath);
        }
        decoded.push(byte);
    }
    let decoded = String::from_utf8(decoded).map_err(|_| TrickyPath)?;
    if !parts_are_plain(path) || !parts_are_plain(&decoded) {
        return Err(TrickyPath);
    }
    Ok(UrlPath { path: path.to_owned(), decoded: escaped.then_some(decoded) })
}

/// Whether it begins with a slash and has no empty and no dotted part; a slash may end it.
fn parts_are_plain(path: &str) -> bool {
    let Some(inside) = path.strip_prefix('/') else { return false };
    let inside = inside.strip_suffix('/').unwrap_or(inside);
    path == "/" || inside.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_paths_have_one_reading_and_escaped_ones_two() {
        for (target, readings) in [
            ("/", vec!["/"]),
            ("/a/b.tar.gz", vec!["/a/b.tar.gz"]),
            ("/a/?q=../x", vec!["/a/"]),
            ("/a?//", vec!["/a"]),
            ("/@scope%2Fname", vec!["/@scope%2Fname", "/@scope/name"]),
            ("/a%20b", vec!["/a%20b", "/a b"]),
            ("/...", vec!["/..."]),
            ("/caf%C3%A9", vec!["/caf%C3%A9", "/caf\u{e9}"]),
        ] {
            let path = read(target).unwrap();
            assert_eq!(path.readings().collect::<Vec<_>>(), readings, "{target}");
            assert_eq!(path.as_sent(), readings[0]);
        }
    }

    #[test]
    fn tricks_are_refused() {
        for target in [
            "",
            "a",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/a/.",
            "/a/..",
            "/a/../b",
            "/a/./b",
            "/../a",
            "/%2e",
            "/%2e%2e/a",
            "/.%2e/a",
            "/a%2f..%2fb",
            "/a/..%2fb",
            "/%2fa",
            "/a%2f",
            "/a%2f%2fb",
            "/a;b",
            "/a/..;/b",
            "/a%3bb",
            "/a\\b",
            "/a%5cb",
            "/a%00",
            "/a%0a",
            "/a%7f",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+2",
            "/%252e%252e",
            "/a%25",
            "/%41",
            "/a b",
            "/a\u{e9}",
            "/%ff",
            "/%c0%ae%c0%ae/",
            "/a|b",
            "/a\"b",
            "/a%3fb",
            "/a%23b",
            "/a#b",
        ] {
            // `%2f` at an end stands for a slash there, which is plain in both readings.
            if matches!(target, "/a%2f") {
                assert_eq!(read(target).unwrap().readings().last(), Some("/a/"));
            } else {
                assert_eq!(read(target), Err(TrickyPath), "{target}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_reading_climbs(target in "[/.%2eEfF5cC;a?\\\\]{0,24}") {
            if let Ok(path) = read(&target) {
                for reading in path.readings() {
                    prop_assert!(reading.starts_with('/') && !reading.contains("//") && !reading.contains(['\\', ';']));
                    prop_assert!(!reading.split('/').any(|part| part == "." || part == ".."));
                }
                prop_assert!(target.starts_with(path.as_sent()));
            }
        }

        #[test]
        fn any_text_is_survived(target in ".{0,60}") {
            let _ = read(&target);
        }
    }
}

//! Private keys in armour: PEM (RFC 7468), OpenSSH and OpenPGP.

use super::byte::cut;
use super::scan::{Decision, Span};
use super::view::{Fold, View};

/// Longest key that is waited for, in bytes without line ends.
const REACH: usize = 16_384;
const RULE: &str = "private-key";

/// Reads armour whose first line begins at `place`.
pub(crate) fn read(bytes: &[u8], place: usize, ending: bool) -> Decision {
    let head = View::read(bytes, place, None, Fold::Lines, 96, ending);
    let Some(body) = body_start(&head.bytes) else {
        return if head.open && may_become(&head.bytes) { Decision::Wait(place) } else { Decision::No };
    };
    let view = View::read(bytes, place, None, Fold::Lines, REACH, ending);
    let text = cut(&view.bytes, body, view.bytes.len());
    if let Some(mark) = memchr::memmem::find(text, b"-----END") {
        let tail = cut(text, mark + 8, mark + 96);
        let Some(close) = memchr::memmem::find(tail, b"-----") else {
            return if view.open && tail.len() < 80 {
                Decision::Wait(place)
            } else {
                enough(bytes, place, &view, body, mark)
            };
        };
        let fits = valid(cut(text, 0, mark)) == mark && digits(cut(text, 0, mark)) >= 60;
        if fits {
            return found(bytes, place, &view, body + mark + 8 + close + 5);
        }
    }
    let reached = valid(text);
    if reached == text.len() && view.open {
        return Decision::Wait(place);
    }
    enough(bytes, place, &view, body, reached)
}

/// No end in sight: what is there counts when it is long enough.
fn enough(bytes: &[u8], place: usize, view: &View, body: usize, reached: usize) -> Decision {
    let text = cut(&view.bytes, body, body + reached);
    if digits(text) >= 64 { found(bytes, place, view, body + reached) } else { Decision::No }
}

fn found(bytes: &[u8], place: usize, view: &View, length: usize) -> Decision {
    Decision::Found(Span { start: place, end: view.end(bytes, length), rule: RULE })
}

/// Where the body begins, when the first line is that of a private key.
fn body_start(head: &[u8]) -> Option<usize> {
    let rest = head.strip_prefix(b"-----BEGIN")?;
    let label = rest.iter().position(|byte| *byte == b'-')?;
    let name: Vec<u8> =
        cut(rest, 0, label).iter().copied().filter(|byte| !matches!(byte, b' ' | b'\n' | b'\r')).collect();
    let private = name.ends_with(b"PRIVATEKEY") || name.ends_with(b"PRIVATEKEYBLOCK");
    (private && cut(rest, label, label + 5) == b"-----").then_some(10 + label + 5)
}

fn may_become(head: &[u8]) -> bool {
    let begin = b"-----BEGIN";
    if head.len() <= begin.len() {
        return begin.starts_with(head);
    }
    let Some(rest) = head.strip_prefix(begin) else { return false };
    let label = rest.iter().take_while(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b' ')).count();
    let dashes = cut(rest, label, rest.len());
    dashes.len() < 5 && dashes.iter().all(|byte| *byte == b'-') && label < 80
}

/// How many bytes may belong to the body: digits, headers (RFC 1421 §4.6), and what quotes and comments put before a
/// line.
fn valid(text: &[u8]) -> usize {
    text.iter()
        .position(|byte| {
            !(byte.is_ascii_alphanumeric()
                || matches!(*byte, b'\n' | b'\r')
                || matches!(
                    byte,
                    b'+' | b'/'
                        | b'='
                        | b' '
                        | b'\t'
                        | b':'
                        | b','
                        | b'-'
                        | b'.'
                        | b'#'
                        | b'>'
                        | b'|'
                        | b'_'
                        | b'@'
                        | b'('
                        | b')'
                ))
        })
        .unwrap_or(text.len())
}

fn digits(text: &[u8]) -> usize {
    text.iter().filter(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_private_keys_only() {
        assert_eq!(body_start(b"-----BEGIN RSA PRIVATE KEY-----"), Some(31));
        assert_eq!(body_start(b"-----BEGIN PGP PRIVATE KEY BLOCK-----"), Some(37));
        assert_eq!(body_start(b"-----BEGIN PUBLIC KEY-----"), None);
        assert!(may_become(b"-----BEG") && may_become(b"-----BEGIN RSA PRI") && !may_become(b"-----BOX"));
    }
}

//! Names that a hostile run chose: shown harmlessly, and what is odd about them said.

use tipstaff_model::warrant::HostClass;

/// The longest text that is shown whole, in characters.
const SHOWN: usize = 80;
/// A label longer than this says something.
const LONG_LABEL: usize = 40;

/// A name for a terminal and for a comment in a file: ASCII that is seen, the rest escaped, at most 80 characters and a
/// word.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::new();
    let mut length = 0;
    for c in text.chars() {
        let piece =
            if c == ' ' || c.is_ascii_graphic() { c.to_string() } else { c.escape_unicode().to_string() };
        length += piece.len();
        if length > SHOWN {
            return format!("{out}… ({} characters)", text.chars().count());
        }
        out.push_str(&piece);
    }
    out
}

/// Names that people know, and that others imitate.
const KNOWN: &[&str] = &[
    "github.com",
    "gitlab.com",
    "google.com",
    "microsoft.com",
    "amazonaws.com",
    "docker.io",
    "paypal.com",
    "npmjs.org",
];

/// Where anybody may have a name: the owner of one is not the owner of its neighbour.
const SHARED: &[&str] = &[
    "amazonaws.com",
    "azurewebsites.net",
    "blogspot.com",
    "cloudfront.net",
    "firebaseapp.com",
    "fly.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "netlify.app",
    "ngrok.io",
    "onrender.com",
    "pages.dev",
    "trycloudflare.com",
    "vercel.app",
    "web.app",
    "windows.net",
    "workers.dev",
];

/// Where anybody may leave something for anybody.
const DROPS: &[&str] = &[
    "0x0.st",
    "file.io",
    "gist.github.com",
    "ngrok-free.app",
    "ngrok.io",
    "pastebin.com",
    "requestbin.com",
    "transfer.sh",
    "trycloudflare.com",
    "webhook.site",
];

fn is_below(name: &str, parent: &str) -> bool {
    name == parent || name.strip_suffix(parent).is_some_and(|front| front.ends_with('.'))
}

/// What granting a host risks, in a word.
pub(super) fn risk(name: &str, port: u16) -> &'static str {
    if DROPS.iter().any(|drop| is_below(name, drop)) {
        "anybody can receive data there"
    } else if SHARED.iter().any(|shared| is_below(name, shared)) {
        "data can leave to it; anybody can have a name there"
    } else if port == 80 {
        "data can leave to it; what comes is not encrypted"
    } else {
        "data can leave to it"
    }
}

/// The name above, where all names below it belong to one owner as far as can be told without a list of public suffixes.
pub(super) fn parent_of_one_owner(name: &str) -> Option<&str> {
    let (_, parent) = name.split_once('.')?;
    let mut labels = parent.rsplit('.');
    let (_, second) = (labels.next()?, labels.next()?);
    // `co.uk`, `com.au`: a short second label right above is most often a registry's.
    let registry = labels.next().is_none() && second.len() <= 3;
    let shared = SHARED.iter().any(|shared| is_below(parent, shared));
    (!registry && !shared).then_some(parent)
}

/// What is odd about a host's name.
pub(super) fn odd(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    if name.split('.').any(|label| label.starts_with("xn--")) {
        found.push("an international name: its letters may look like others".to_owned());
    }
    if name.len() > SHOWN || name.split('.').any(|label| label.len() > LONG_LABEL) {
        found.push("a long name: data can be hidden in it".to_owned());
    }
    let classes = HostClass::ALL.iter().flat_map(|class| class.host_names());
    let known = classes.copied().filter(|one| !one.contains(':')).chain(KNOWN.iter().copied());
    if let Some(known) = known.into_iter().find(|known| imitates(name, known)) {
        found.push(format!("it looks like {known} and is another"));
    }
    found
}

/// Whether a name is made to be read as a known one.
fn imitates(name: &str, known: &str) -> bool {
    if is_below(name, known) {
        return false;
    }
    let within = name.starts_with(&format!("{known}.")) || name.contains(&format!(".{known}."));
    let labels = known.split('.').count();
    let all: Vec<&str> = name.split('.').collect();
    let tail = all.get(all.len().saturating_sub(labels)..).unwrap_or_default().join(".");
    let alike = tail != known && (skeleton(&tail) == skeleton(known) || differs_by_one(&tail, known));
    within || alike
}

/// What an eye makes of it.
fn skeleton(name: &str) -> String {
    name.replace("rn", "m")
        .replace("vv", "w")
        .replace('0', "o")
        .replace(['1', 'i'], "l")
        .replace(['-', '_'], "")
}

/// Whether one letter was changed, added, left out, or swapped with its neighbour.
fn differs_by_one(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let front = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let back = one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
    let shorter = one.len().min(other.len());
    let back = back.min(shorter - front);
    let (left, right) = (one.len() - front - back, other.len() - front - back);
    let swapped = left == 2
        && right == 2
        && one.get(front) == other.get(front + 1)
        && one.get(front + 1) == other.get(front);
    (left <= 1 && right <= 1) || swapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imitations_are_found_and_the_known_are_not() {
        for name in [
            "githup.com",
            "gihtub.com",
            "api.g1thub.com",
            "pypi.org.evil.example",
            "pypl.org",
            "crate.io",
            "git-hub.com",
        ] {
            assert!(!odd(name).is_empty(), "{name}");
        }
        for name in ["github.com", "api.github.com", "pypi.org", "crates.io", "example.com", "corp.example"] {
            assert!(odd(name).is_empty(), "{name}: {:?}", odd(name));
        }
    }

    #[test]
    fn what_is_shown_is_short_and_plain() {
        assert_eq!(shown("a.example:443"), "a.example:443");
        assert_eq!(shown("a\u{1b}[2J\u{202e}"), "a\\u{1b}[2J\\u{202e}");
        assert!(shown(&"x".repeat(300)).ends_with("… (300 characters)"));
        assert!(shown(&"\u{430}".repeat(300)).len() < 120);
    }
}

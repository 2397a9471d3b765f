//! A commit object: in whose name it is made, and whose names its message claims.
//!
//! Promise: a commit that passes names nobody but the run as author and committer, carries no signature and no header
//! that readers take for one, and its message claims neither another run nor the consent of a person.

use tipstaff_model::warrant::GitIdentity;

/// Longest commit object, in bytes.
pub const LONGEST_COMMIT: u64 = 1024 * 1024;

/// Longest mark of a tool behind the name: `Tipstaff builder (aider)`.
const LONGEST_MARK: usize = 40;

/// Lines that speak for somebody, in lower case.
const CLAIMS: [&str; 7] = [
    "signed-off-by",
    "co-authored-by",
    "reviewed-by",
    "acked-by",
    "approved-by",
    "tested-by",
    "on-behalf-of",
];

/// Addresses of programs that add themselves to what they helped with; so does every `noreply@`.
const PROGRAMS: [&str; 4] =
    ["aider@aider.chat", "codex@openai.com", "cursoragent@cursor.com", "copilot@github.com"];

/// Why a commit is not the run's. `run` is the id that a `Tipstaff-Run` line may name.
#[must_use]
pub fn fault(content: &[u8], identity: &GitIdentity, run: &str) -> Option<String> {
    let (head, message) = match memchr::memmem::find(content, b"\n\n") {
        Some(end) => (content.get(..end).unwrap_or_default(), content.get(end + 2..).unwrap_or_default()),
        None => (content.strip_suffix(b"\n").unwrap_or(content), &b""[..]),
    };
    let (mut authors, mut committers) = (0, 0);
    for line in head.split(|byte| *byte == b'\n') {
        let space = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (key, value) = (line.get(..space).unwrap_or_default(), line.get(space + 1..).unwrap_or_default());
        match key {
            b"tree" | b"parent" => {}
            b"author" | b"committer" => {
                let role = if key == b"author" { "author" } else { "committer" };
                *(if key == b"author" { &mut authors } else { &mut committers }) += 1;
                if !is_own(value, identity) {
                    return Some(format!("its {role} is not {} <{}>", identity.name, identity.email));
                }
            }
            b"encoding" if value.eq_ignore_ascii_case(b"utf-8") => {}
            b"encoding" => return Some("its message is in another encoding than UTF-8".to_owned()),
            b"gpgsig" | b"gpgsig-sha256" => {
                return Some("it carries a signature, which no run has a key for".to_owned());
            }
            _ => return Some("it has a header that git commit does not write".to_owned()),
        }
    }
    if (authors, committers) != (1, 1) {
        return Some("it does not have one author and one committer".to_owned());
    }
    message.split(|byte| matches!(byte, b'\n' | b'\r')).find_map(|line| claim(line, identity, run))
}

/// Whether `Name <address> time zone` is the run's own, a tool's mark behind the name or not.
fn is_own(value: &[u8], identity: &GitIdentity) -> bool {
    let Some(rest) = value.strip_prefix(identity.name.as_bytes()) else { return false };
    let rest = match rest.strip_prefix(b" (") {
        Some(marked) => {
            let end = marked.iter().position(|byte| *byte == b')').unwrap_or(marked.len());
            let mark = marked.get(..end).unwrap_or_default();
            let fine = (1..=LONGEST_MARK).contains(&mark.len())
                && mark.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
            if !fine {
                return false;
            }
            marked.get(end + 1..).unwrap_or_default()
        }
        None => rest,
    };
    rest.strip_prefix(b" <")
        .and_then(|rest| rest.strip_prefix(identity.email.as_bytes()))
        .and_then(|rest| rest.strip_prefix(b"> "))
        .is_some_and(|time| !time.contains(&b'<') && !time.contains(&b'>'))
}

fn claim(line: &[u8], identity: &GitIdentity, run: &str) -> Option<String> {
    let text = String::from_utf8_lossy(line.get(..line.len().min(1000)).unwrap_or_default());
    let (key, value) = text.split_once(':')?;
    let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
    if key == "tipstaff-run" && value != run {
        return Some("its message names another run".to_owned());
    }
    if !CLAIMS.contains(&key.as_str()) {
        return None;
    }
    let address =
        value.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(address, _)| address);
    let address = address.unwrap_or_default().to_ascii_lowercase();
    let program = address.starts_with("noreply@") || PROGRAMS.contains(&address.as_str());
    let own = address == identity.email;
    if own || (program && key == "co-authored-by") {
        return None;
    }
    Some(format!("its message says {key} in the name of somebody else"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tipstaff_model::AgentRole;

    const OWN: &str = "Tipstaff builder <builder@agents.tipstaff.invalid> 1 +0000";

    fn commit(author: &str, committer: &str, more: &str, message: &str) -> Vec<u8> {
        let tree = "1".repeat(40);
        format!("tree {tree}\nparent {tree}\nauthor {author}\ncommitter {committer}\n{more}\n{message}\n")
            .into_bytes()
    }

    fn judged(content: &[u8]) -> Option<String> {
        fault(content, &AgentRole::Builder.git_identity(), "run-1")
    }

    #[test]
    fn the_runs_own_commits_pass() {
        for message in [
            "Fix\n\nTipstaff-Run: run-1",
            "Fix\n\nCo-Authored-By: Claude <noreply@anthropic.com>",
            "Fix\n\nSigned-off-by: Tipstaff builder <builder@agents.tipstaff.invalid>",
            "note: this is fine",
        ] {
            assert_eq!(judged(&commit(OWN, OWN, "", message)), None, "{message}");
        }
        let aider = OWN.replace(" <", " (aider) <");
        assert_eq!(judged(&commit(&aider, &aider, "encoding UTF-8\n", "x")), None);
    }

    #[test]
    fn the_names_of_others_do_not() {
        let person = "Linus Torvalds <torvalds@linux-foundation.org> 1 +0000";
        for content in [
            commit(person, OWN, "", "x"),
            commit(OWN, person, "", "x"),
            commit("Linus <builder@agents.tipstaff.invalid> 1 +0000", OWN, "", "x"),
            commit("Tipstaff builder <torvalds@linux-foundation.org> 1 +0000", OWN, "", "x"),
            commit(
                "Tipstaff builder (by Linus <l@x>) <builder@agents.tipstaff.invalid> 1 +0000",
                OWN,
                "",
                "x",
            ),
            commit("Tipstaff builder <builder@agents.tipstaff.invalid> <l@x> 1 +0000", OWN, "", "x"),
            commit(OWN, OWN, &format!("author {person}\n"), "x"),
            commit(OWN, OWN, "gpgsig -----BEGIN SSH SIGNATURE-----\n abc\n", "x"),
            commit(OWN, OWN, "mergetag object 1\n tagger Linus\n", "x"),
            commit(OWN, OWN, "encoding UTF-7\n", "x"),
            commit(OWN, OWN, "", "x\n\nSigned-off-by: Linus <l@x.org>"),
            commit(OWN, OWN, "", "x\n\nCO-AUTHORED-BY : Linus <l@x.org>"),
            commit(OWN, OWN, "", "x\rCo-authored-by: Linus <12+l@users.noreply.github.com>"),
            commit(OWN, OWN, "", "x\n\nReviewed-by: Claude <noreply@anthropic.com>"),
            commit(OWN, OWN, "", "x\n\nTipstaff-Run: run-2"),
            b"tree x".to_vec(),
        ] {
            assert!(judged(&content).is_some(), "{}", String::from_utf8_lossy(&content));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = judged(&bytes);
        }

        #[test]
        fn no_other_name_passes(name in "[ -~]{0,40}") {
            let author = format!("{name} 1 +0000");
            let own = name.starts_with("Tipstaff builder") && name.ends_with("<builder@agents.tipstaff.invalid>");
            prop_assert_eq!(judged(&commit(&author, OWN, "", "x")).is_none() && !own, false);
        }
    }
}

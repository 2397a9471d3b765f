//! The bytes of a commit: read as they are, written again as ours, and told apart.
//!
//! Promises: an attested commit has a tree, parents, author, committer and our signature in its head and nothing else;
//! what is read as attested has exactly that form, so no header rides along; reading never panics.

use super::message;
use tipstaff_model::{CommitId, RunId};
use tipstaff_seal::ssh::GIT_NAMESPACE;
use tipstaff_seal::{SigningKey, SshSignature, VerifyingKey, WarrantDigest};

/// The header that carries a signature.
const SIGNATURE: &[u8] = b"gpgsig";

/// What a commit says, as far as it outlives attesting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawCommit<'a> {
    /// The tree's id.
    pub tree: &'a [u8],
    /// The parents.
    pub parents: Vec<CommitId>,
    /// Name, address, time and zone of the author, as they are.
    pub author: &'a [u8],
    /// The same of the committer.
    pub committer: &'a [u8],
    /// The encoding that the message claims.
    pub encoding: Option<&'a [u8]>,
    /// Everything behind the head.
    pub message: &'a [u8],
}

/// Reads the bytes of a commit; `None` when a header that every commit has is missing or stands twice.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<RawCommit<'_>> {
    let mut commit = RawCommit {
        tree: b"",
        parents: Vec::new(),
        author: b"",
        committer: b"",
        encoding: None,
        message: b"",
    };
    let mut rest = bytes;
    loop {
        let end = rest.iter().position(|b| *b == b'\n')?;
        let (line, tail) = (rest.get(..end)?, rest.get(end + 1..)?);
        rest = tail;
        if line.is_empty() {
            commit.message = rest;
            break;
        }
        let (name, value) =
            line.split_at_checked(line.iter().position(|b| *b == b' ').unwrap_or(line.len()))?;
        let value = value.get(1..).unwrap_or_default();
        let slot = match name {
            b"tree" => &mut commit.tree,
            b"author" => &mut commit.author,
            b"committer" => &mut commit.committer,
            b"parent" => {
                commit.parents.push(std::str::from_utf8(value).ok()?.parse().ok()?);
                continue;
            }
            b"encoding" if commit.encoding.is_none() => {
                commit.encoding = Some(value);
                continue;
            }
            // Continued lines begin with a blank; other headers don't outlive attesting.
            _ => continue,
        };
        if !slot.is_empty() || value.is_empty() {
            return None;
        }
        *slot = value;
    }
    let tree = commit.tree.len() == 40 && commit.tree.iter().all(u8::is_ascii_hexdigit);
    (tree && !commit.author.is_empty() && !commit.committer.is_empty()).then_some(commit)
}

/// What is vouched for, and by which key.
#[derive(Debug, Clone, Copy)]
pub struct Attestation<'a> {
    /// The run that made the commits.
    pub run: RunId,
    /// The digest of its signed warrant.
    pub warrant: WarrantDigest,
    /// The org's key for commits.
    pub key: &'a SigningKey,
}

/// The bytes of the attested commit: tree, author and committer as they were, `parents` in place of the old ones, our
/// trailers, our signature. The same input gives the same bytes.
#[must_use]
pub fn attest(commit: &RawCommit<'_>, parents: &[CommitId], attestation: &Attestation<'_>) -> Vec<u8> {
    let mut head = Vec::new();
    let mut header = |name: &str, value: &[u8]| {
        head.extend_from_slice(name.as_bytes());
        head.push(b' ');
        head.extend_from_slice(value);
        head.push(b'\n');
    };
    header("tree", commit.tree);
    for parent in parents {
        header("parent", parent.as_str().as_bytes());
    }
    header("author", commit.author);
    header("committer", commit.committer);
    let words = in_utf8(commit);
    let message = message::attested(&words, attestation.run, &attestation.warrant);
    let payload = [head.as_slice(), b"\n", &message].concat();
    let armor = SshSignature::sign(attestation.key, GIT_NAMESPACE, &payload).armor();
    let folded = armor.trim_end_matches('\n').replace('\n', "\n ");
    [head.as_slice(), SIGNATURE, b" ", folded.as_bytes(), b"\n\n", &message].concat()
}

/// The message in UTF-8, so that no header says how to read it: text that is read differently could bring trailers in.
/// Of other encodings only Latin-1 is known; the bytes of the rest stay as they are.
fn in_utf8(commit: &RawCommit<'_>) -> Vec<u8> {
    let name = commit.encoding.unwrap_or_default().to_ascii_lowercase();
    if matches!(name.as_slice(), b"iso-8859-1" | b"iso8859-1" | b"latin1" | b"latin-1") {
        return commit.message.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes();
    }
    commit.message.to_vec()
}

/// Why a commit is not an attested one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAttested {
    /// There is no signature.
    #[error(
        "it has no signature: it never left quarantine as it is, or it was amended, rebased or cherry-picked since"
    )]
    Unsigned,
    /// The signature has another form.
    #[error("its signature is no SSH signature by an Ed25519 key")]
    OtherSignature,
    /// The head has another form.
    #[error("its head holds more or less than an attested commit has")]
    Form,
    /// The trailers are missing, or are there more than once.
    #[error("its message does not end in exactly one Tipstaff-Run and one Tipstaff-Warrant")]
    Trailers,
    /// The signature is over something else.
    #[error(
        "its signature is not over these bytes: the commit was changed, or the signature was taken from another"
    )]
    SignatureWrong,
}

/// What an attested commit says, once its signature was checked. Whose key it is, is for the reader to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    /// The run that it names.
    pub run: RunId,
    /// The digest of the warrant that it names.
    pub warrant: WarrantDigest,
    /// The key that signed.
    pub key: VerifyingKey,
}

/// What a commit's trailers say, whoever wrote them.
#[must_use]
pub fn claims(bytes: &[u8]) -> Option<(RunId, WarrantDigest)> {
    message::read(read(bytes)?.message)
}

/// Reads an attested commit and checks its signature against the key that the signature names.
///
/// # Errors
/// [`NotAttested`].
pub fn verify(bytes: &[u8]) -> Result<Vouched, NotAttested> {
    let commit = read(bytes).ok_or(NotAttested::Form)?;
    let head_length = bytes.len().saturating_sub(commit.message.len());
    let head = bytes.get(..head_length).unwrap_or_default();
    let mark = [b"\n", SIGNATURE, b" "].concat();
    let Some(at) = head.windows(mark.len()).position(|window| window == mark).map(|at| at + 1) else {
        return Err(NotAttested::Unsigned);
    };
    let (front, signature) = head.split_at_checked(at).ok_or(NotAttested::Form)?;
    // Ours is the last header: what follows it is the empty line.
    let armor = signature
        .strip_prefix(SIGNATURE)
        .and_then(|text| text.strip_prefix(b" "))
        .and_then(|text| text.strip_suffix(b"\n\n"))
        .and_then(|text| std::str::from_utf8(text).ok())
        .ok_or(NotAttested::Form)?;
    let signature =
        SshSignature::parse(&armor.replace("\n ", "\n")).map_err(|_| NotAttested::OtherSignature)?;
    let mut expected = vec!["tree".to_owned()];
    expected.extend(commit.parents.iter().map(|_| "parent".to_owned()));
    expected.extend(["author".to_owned(), "committer".to_owned()]);
    let names: Vec<String> = front
        .strip_suffix(b"\n")
        .unwrap_or(front)
        .split(|b| *b == b'\n')
        .map(|line| {
            String::from_utf8_lossy(line.split(|b| *b == b' ').next().unwrap_or_default()).into_owned()
        })
        .collect();
    if names != expected {
        return Err(NotAttested::Form);
    }
    let (run, warrant) = message::read(commit.message).ok_or(NotAttested::Trailers)?;
    let payload = [front, b"\n", commit.message].concat();
    if signature.verifies(GIT_NAMESPACE, &payload) {
        Ok(Vouched { run, warrant, key: signature.key })
    } else {
        Err(NotAttested::SignatureWrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tipstaff_seal::Secret;

    fn key(fill: u8) -> SigningKey {
        SigningKey::from_secret(&Secret::new(vec![fill; 32])).unwrap()
    }

    fn made(bytes: &[u8], fill: u8) -> Vec<u8> {
        let key = key(fill);
        let attestation =
            Attestation { run: RunId::from_bytes([1; 16]), warrant: WarrantDigest::of(b"w"), key: &key };
        let commit = read(bytes).unwrap();
        attest(&commit, &commit.parents.clone(), &attestation)
    }

    const PLAIN: &str = "tree 0123456789012345678901234567890123456789\nparent 9876543210987654321098765432109876543210\n\
        author A <a@b.c> 1700000000 +0000\ncommitter B <b@b.c> 1700000000 +0000\n\nFix it\n";

    #[test]
    fn what_was_attested_verifies_and_no_change_of_it() {
        let good = made(PLAIN.as_bytes(), 3);
        let vouched = verify(&good).unwrap();
        assert_eq!((vouched.run, vouched.key), (RunId::from_bytes([1; 16]), key(3).verifying_key()));
        assert_eq!(good, made(PLAIN.as_bytes(), 3), "the same each time");
        assert_eq!(good, made(&good, 3), "also from itself");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_ne!(verify(&bad), Ok(vouched.clone()), "byte {at}");
        }
    }

    #[test]
    fn headers_of_the_run_do_not_outlive_it() {
        let with = |headers: &str| PLAIN.replace("\n\nFix", &format!("\n{headers}\n\nFix"));
        for headers in [
            "gpgsig -----BEGIN PGP SIGNATURE-----\n \n forged\n -----END PGP SIGNATURE-----",
            "gpgsig-sha256 x",
            "mergetag object 1\n type commit",
            "encoding UTF-7",
            "HG:extra x",
        ] {
            assert_eq!(made(with(headers).as_bytes(), 3), made(PLAIN.as_bytes(), 3), "{headers}");
        }
        let latin: Vec<u8> =
            with("encoding ISO-8859-1").bytes().map(|b| if b == b'F' { 0xe9 } else { b }).collect();
        assert_eq!(made(&latin, 3), made(PLAIN.replace('F', "\u{e9}").as_bytes(), 3));
    }

    #[test]
    fn other_forms_say_what_they_are() {
        let good = String::from_utf8(made(PLAIN.as_bytes(), 3)).unwrap();
        let signature = good.split("gpgsig ").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
        for (bad, why) in [
            (PLAIN.to_owned(), NotAttested::Unsigned),
            (good.replace(&format!("gpgsig {signature}\n"), ""), NotAttested::Unsigned),
            (good.replace("SSH SIGNATURE", "PGP SIGNATURE"), NotAttested::OtherSignature),
            (good.replace("\ngpgsig", "\nx y\ngpgsig"), NotAttested::Form),
            (good.replace("\n\nFix", "\nx y\n\nFix"), NotAttested::OtherSignature),
            (good.replace("\n\nFix", &format!("\ngpgsig {signature}\n\nFix")), NotAttested::OtherSignature),
            (good.replace("Fix it", "Fix it\n\nTipstaff-Run: x"), NotAttested::Trailers),
            (good.replace("Fix it", "Break it"), NotAttested::SignatureWrong),
            (good.replace("parent 9", "parent 8"), NotAttested::SignatureWrong),
            (good.replace("author A", "author C"), NotAttested::SignatureWrong),
            (String::new(), NotAttested::Form),
        ] {
            assert_eq!(verify(bad.as_bytes()), Err(why), "{bad}");
        }
        // The signature of one commit, put onto another.
        let other = String::from_utf8(made(PLAIN.replace("Fix", "Do").as_bytes(), 3)).unwrap();
        let theirs = other.split("gpgsig ").nth(1).unwrap().split("\n\n").next().unwrap();
        assert_eq!(verify(other.replace(theirs, &signature).as_bytes()), Err(NotAttested::SignatureWrong));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = (read(&bytes), claims(&bytes));
            prop_assert!(verify(&bytes).is_err());
        }

        #[test]
        fn any_message_of_a_commit_is_attested(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [PLAIN.split("Fix").next().unwrap().as_bytes(), &message].concat();
            prop_assert!(verify(&made(&bytes, 3)).is_ok());
        }
    }
}

//! SSH signatures against the real `ssh-keygen`: ours verify there, its own verify here, and nothing else does.

use crate::support::signing_key;
use proptest::prelude::*;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use tipstaff_seal::ssh::{self, GIT_NAMESPACE};
use tipstaff_seal::{Domain, Signature, SshSignature};

const MESSAGE: &[u8] = b"tree 1\nauthor A\n\nwords\n";

/// `ssh-keygen ARGS…` with `input`; whether it was content, and what it said.
#[expect(clippy::disallowed_methods, reason = "the test asks the real program")]
fn ssh_keygen(directory: &Path, args: &[&str], input: &[u8]) -> (bool, String) {
    let mut child = Command::new("ssh-keygen")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", directory)
        .current_dir(directory)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ssh-keygen is there (Debian: openssh-client)");
    // It may end before it has read everything.
    let _closed = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn verified_there(directory: &Path, signer: &str, armor: &str, namespace: &str, message: &[u8]) -> bool {
    std::fs::write(directory.join("signers"), format!("{signer}\n")).unwrap();
    std::fs::write(directory.join("sig"), armor).unwrap();
    let args = ["-Y", "verify", "-f", "signers", "-I", "org@tipstaff", "-n", namespace, "-s", "sig"];
    ssh_keygen(directory, &args, message).0
}

#[test]
fn ours_verify_there_and_only_as_they_were_made() {
    let dir = tempfile::tempdir().unwrap();
    let key = signing_key(9);
    let signer = ssh::allowed_signer("org@tipstaff", &key.verifying_key());
    let armor = SshSignature::sign(&key, GIT_NAMESPACE, MESSAGE).armor();
    assert_eq!(armor, SshSignature::sign(&key, GIT_NAMESPACE, MESSAGE).armor(), "the same each time");
    assert!(verified_there(dir.path(), &signer, &armor, GIT_NAMESPACE, MESSAGE));
    assert!(!verified_there(dir.path(), &signer, &armor, GIT_NAMESPACE, b"other words"));
    assert!(!verified_there(dir.path(), &signer, &armor, "file", MESSAGE));
    let other = ssh::allowed_signer("org@tipstaff", &signing_key(10).verifying_key());
    assert!(!verified_there(dir.path(), &other, &armor, GIT_NAMESPACE, MESSAGE));
    let elsewhere = SshSignature::sign(&key, "file", MESSAGE).armor();
    assert!(
        !verified_there(dir.path(), &signer, &elsewhere, "file", MESSAGE),
        "the line names one namespace"
    );
    std::fs::write(dir.path().join("key.pub"), ssh::public_text(&key.verifying_key())).unwrap();
    let (fine, said) = ssh_keygen(dir.path(), &["-l", "-f", "key.pub"], b"");
    assert!(fine && said.contains(&ssh::fingerprint(&key.verifying_key())), "{said}");
}

#[test]
fn theirs_verify_here() {
    let dir = tempfile::tempdir().unwrap();
    let (made, said) = ssh_keygen(dir.path(), &["-q", "-t", "ed25519", "-N", "", "-f", "key"], b"");
    assert!(made, "{said}");
    let public = std::fs::read_to_string(dir.path().join("key.pub")).unwrap();
    let public = ssh::read_public_text(&public).unwrap();
    for hash in ["sha256", "sha512"] {
        let option = format!("hashalg={hash}");
        let args = ["-Y", "sign", "-O", &option, "-f", "key", "-n", "git"];
        let (signed, armor) = ssh_keygen(dir.path(), &args, MESSAGE);
        assert!(signed, "{armor}");
        // Remarks of the program go to the same stream here.
        let armor = armor.get(armor.find("-----BEGIN").unwrap()..).unwrap();
        let armor = armor.split_inclusive("-----END SSH SIGNATURE-----").next().unwrap();
        let signature = SshSignature::parse(armor).unwrap();
        assert_eq!(signature.key, public);
        assert!(signature.verifies(GIT_NAMESPACE, MESSAGE));
        assert!(!signature.verifies("file", MESSAGE) && !signature.verifies(GIT_NAMESPACE, b"other"));
    }
    let (made, _) = ssh_keygen(dir.path(), &["-q", "-t", "ecdsa", "-N", "", "-f", "curve"], b"");
    let (signed, armor) = ssh_keygen(dir.path(), &["-Y", "sign", "-f", "curve", "-n", "git"], MESSAGE);
    assert!(made && signed);
    assert_eq!(
        SshSignature::parse(&armor).unwrap_err().code(),
        "ssh-signature-format",
        "another kind of key"
    );
}

#[test]
fn it_is_worth_nothing_for_anything_else() {
    let key = signing_key(9);
    let armor = SshSignature::sign(&key, GIT_NAMESPACE, MESSAGE).armor();
    let inner: String = armor.lines().filter(|line| !line.starts_with('-')).collect();
    let blob = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(inner).unwrap()
    };
    let raw = Signature::from_bytes(blob[blob.len() - 64..].try_into().unwrap());
    for domain in [Domain::Warrant, Domain::Approval, Domain::Receipt] {
        assert!(key.verifying_key().verify(domain, MESSAGE, &raw).is_err());
        assert!(!domain.prefix().starts_with(b"SSHSIG"));
    }
}

#[test]
fn other_spellings_are_refused() {
    let good = SshSignature::sign(&signing_key(9), GIT_NAMESPACE, MESSAGE).armor();
    assert_eq!(SshSignature::parse(&good).unwrap().armor(), good);
    for bad in [
        String::new(),
        good.replace("SSH", "PGP"),
        format!("words\n{good}"),
        format!("{good}words\n"),
        format!("{good}{good}"),
        good.replacen('A', "B", 1),
        good.replace('\n', "\r\n"),
        good.replace('\n', ""),
        format!("{}{}", good, "\n".repeat(5000)),
        SshSignature::sign(&signing_key(9), "", MESSAGE).armor(),
    ] {
        assert_eq!(SshSignature::parse(&bad).unwrap_err().code(), "ssh-signature-format", "{bad:?}");
    }
    for bad in ["", "ssh-ed25519", "ssh-rsa AAAA", "ssh-ed25519 AAAA", "ssh-ed25519 !!"] {
        assert!(ssh::read_public_text(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*", at in 0_usize..400, byte in any::<u8>()) {
        let _ = SshSignature::parse(&text);
        let good = SshSignature::sign(&signing_key(9), GIT_NAMESPACE, MESSAGE);
        let mut bytes = good.armor().into_bytes();
        let at = at % bytes.len();
        let same = bytes[at] == byte;
        bytes[at] = byte;
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(read) = SshSignature::parse(&text)
        {
            // A line break more or less says the same; anything else is another signature, which does not verify.
            prop_assert!(same || read == good || !read.verifies(GIT_NAMESPACE, MESSAGE));
        }
    }
}

//! The files that a set-up takes from the person's own tree.
//!
//! Promises: nothing is read through a link, so nothing outside the tree is; nothing that looks like a credential, by its
//! name or by what it holds, is copied, and what was found is never said.

use crate::RunnerError;
use std::path::Path;
use tipstaff_sandbox::{UnreadableFile, read_beneath};
use tipstaff_seal::StreamDigest;
use tipstaff_seal::redact::Redactor;

/// Bytes of one file at most.
const LARGEST: u64 = 8 * 1024 * 1024;
/// Bytes of all of them at most.
const TOGETHER: u64 = 64 * 1024 * 1024;

/// Names of files that hold credentials.
const CREDENTIALS: &[&str] = &[
    ".env",
    ".netrc",
    "_netrc",
    ".git-credentials",
    ".pypirc",
    ".vault-token",
    ".npmrc",
    ".yarnrc",
    ".dockercfg",
    "auth.json",
    "credentials",
    "credentials.json",
    "credentials.toml",
    "oauth_creds.json",
    "application_default_credentials.json",
    "secrets.json",
    "secrets.toml",
    "secrets.yaml",
    "secrets.yml",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
];
/// Folders that do.
const FOLDERS: &[&str] = &[".ssh", ".aws", ".azure", ".gnupg", ".kube", ".docker"];
/// Endings that do.
const ENDINGS: &[&str] = &[".pem", ".key", ".p12", ".pfx", ".jks", ".keystore", ".kdbx"];
/// What makes an environment file a harmless pattern of one.
const PATTERNS: &[&str] = &["example", "sample", "template", "dist", "defaults"];

/// One of them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CopiedFile {
    /// Its path in the repository.
    pub(crate) path: String,
    /// What it holds.
    pub(crate) content: Vec<u8>,
    /// Whether it may be executed.
    pub(crate) executable: bool,
    /// The digest of what it holds.
    pub(crate) digest: String,
}

/// The files, and the names of those that are not there.
#[derive(Default)]
pub(crate) struct Copied {
    pub(crate) files: Vec<CopiedFile>,
    pub(crate) missing: Vec<String>,
}

/// Reads the files `paths` of the tree at `root`.
///
/// # Errors
/// [`RunnerError::SetupCopy`] for the first that may not or can't be copied.
pub(crate) fn read(root: &Path, paths: &[String], redactor: &Redactor) -> Result<Copied, RunnerError> {
    let mut copied = Copied::default();
    let mut left = TOGETHER;
    for path in paths {
        let refused = |why: String| RunnerError::SetupCopy { path: path.clone(), why };
        if let Some(why) = name_of_credential(path) {
            return Err(refused(why));
        }
        let found = match read_beneath(root, Path::new(path), LARGEST.min(left)) {
            Ok(Some(found)) => found,
            Ok(None) => {
                copied.missing.push(path.clone());
                continue;
            }
            Err(UnreadableFile::TooLarge(_)) => {
                return Err(refused(format!(
                    "one file may have {} MiB, all of them together {} MiB",
                    LARGEST >> 20,
                    TOGETHER >> 20
                )));
            }
            Err(error) => return Err(refused(error.to_string())),
        };
        left = left.saturating_sub(u64::try_from(found.content.len()).unwrap_or(u64::MAX));
        if let Some(rule) = secret_in(&found.content, redactor) {
            return Err(refused(format!("it holds what looks like a secret ({rule})")));
        }
        let mut digest = StreamDigest::default();
        digest.update(&found.content);
        copied.files.push(CopiedFile {
            path: path.clone(),
            digest: digest.hex(),
            content: found.content,
            executable: found.executable,
        });
    }
    Ok(copied)
}

/// The rule by which content looks like a secret.
fn secret_in(content: &[u8], redactor: &Redactor) -> Option<&'static str> {
    let mut stream = redactor.stream();
    let mut out = Vec::new();
    for chunk in content.chunks(64 * 1024) {
        stream.push(chunk, &mut out);
        out.clear();
    }
    stream.finish(&mut out);
    stream.findings().first().map(|finding| finding.rule)
}

/// Why a path is one of a credential, if it is.
fn name_of_credential(path: &str) -> Option<String> {
    let path = path.to_ascii_lowercase();
    let mut parts: Vec<&str> = path.split('/').collect();
    let name = parts.pop().unwrap_or_default();
    if let Some(folder) = parts.iter().find(|part| FOLDERS.contains(part)) {
        return Some(format!("{folder} is a folder of credentials"));
    }
    let environment =
        name.strip_prefix(".env.").is_some_and(|rest| !PATTERNS.iter().any(|word| rest.contains(word)));
    let named = CREDENTIALS.contains(&name) || ENDINGS.iter().any(|ending| name.ends_with(ending));
    (named || environment).then(|| format!("{name} is the name of a file of credentials"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(root: &Path, path: &str) -> String {
        match read(root, &[path.to_owned()], &Redactor::new()) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{path} was read"),
        }
    }

    #[test]
    fn credentials_are_not_copied_and_never_said() {
        let place = tempfile::tempdir().unwrap();
        let key = format!("ghp_{}", "wJ8dLq2ZxT5vN9bKc3RfYh7Gp1MsAe4UiO6k");
        for (name, content) in
            [("config.ini", format!("token = {key}\n")), ("plain.txt", "hello\n".to_owned())]
        {
            std::fs::write(place.path().join(name), content).unwrap();
        }
        let said = refusal(place.path(), "config.ini");
        assert!(said.contains("looks like a secret") && !said.contains(&key), "{said}");
        for name in [
            ".env",
            "sub/.ENV",
            ".env.local",
            ".env.production",
            "id_rsa",
            ".ssh/config",
            "a/tls.key",
            "Cert.PEM",
            ".npmrc",
        ] {
            assert!(refusal(place.path(), name).contains("credentials"), "{name}");
        }
        let names = [".env.example", "plain.txt", ".env.sample.local"].map(str::to_owned);
        let copied = read(place.path(), &names, &Redactor::new()).unwrap();
        assert_eq!((copied.files.len(), copied.missing.len()), (1, 2));
        assert_eq!(copied.files[0].content, b"hello\n");
    }

    #[test]
    fn a_link_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", place.path().join("name")).unwrap();
        std::os::unix::fs::symlink("/etc", place.path().join("etc")).unwrap();
        assert!(refusal(place.path(), "name").contains("symbolic link"));
        assert!(refusal(place.path(), "etc/hostname").contains("symbolic link"));
        std::fs::create_dir(place.path().join("folder")).unwrap();
        assert!(refusal(place.path(), "folder").contains("no ordinary file"));
    }
}

//! Why a directory may not be granted.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How deep and how far a directory is looked through: credentials lie near the top of a tool's directory.
const DEPTH: usize = 3;
const ENTRIES: usize = 20_000;

/// Names that are credentials or hold them.
const NAMES: [&str; 26] = [
    ".ssh",
    ".aws",
    ".azure",
    ".gnupg",
    ".kube",
    ".docker",
    ".netrc",
    "_netrc",
    ".git-credentials",
    ".pypirc",
    ".vault-token",
    ".env",
    "auth.json",
    ".credentials.json",
    "credentials",
    "credentials.json",
    "credentials.toml",
    "credentials.db",
    "access_tokens.db",
    "oauth_creds.json",
    "hosts.yml",
    "id_rsa",
    "id_ecdsa",
    "id_ed25519",
    "application_default_credentials.json",
    "secrets.json",
];

/// The reason for which `directory` may not be granted, if there is one.
pub(super) fn objection(home: &Path, directory: &Path) -> Option<String> {
    if home.starts_with(directory) {
        return Some("it is the home directory or holds it".into());
    }
    let too_wide =
        ["/", "/usr", "/etc", "/home", "/root", "/opt", "/var", "/tmp", "/proc", "/sys", "/dev", "/run"];
    if too_wide.iter().any(|wide| directory == Path::new(wide)) {
        return Some("it is a directory of the system, not of a tool".into());
    }
    let hidden_roots = [".cargo", ".rustup", ".pyenv", ".nvm", ".config", ".local", ".local/share", ".cache"];
    if hidden_roots.iter().any(|root| directory == home.join(root)) {
        return Some("it holds settings and credentials besides the tool".into());
    }
    let Ok(status) = directory.metadata() else { return Some("it cannot be read".into()) };
    let wanted = if status.is_dir() { 0o005 } else { 0o004 };
    if rustix::process::geteuid().is_root() && status.permissions().mode() & wanted != wanted {
        return Some("other users may not read it, and a run is another user: chmod o+rX it".into());
    }
    if status.is_file() {
        return is_credential(directory).then(|| "it looks like a credential".into());
    }
    let mut left = ENTRIES;
    find(directory, DEPTH, &mut left).map(|found| {
        let shown = found.strip_prefix(directory).unwrap_or(&found);
        format!("it holds {}, which looks like a credential", shown.display())
    })
}

fn find(directory: &Path, depth: usize, left: &mut usize) -> Option<PathBuf> {
    let mut below = Vec::new();
    for entry in std::fs::read_dir(directory).ok()?.flatten() {
        *left = left.checked_sub(1)?;
        let path = entry.path();
        if is_credential(&path) {
            return Some(path);
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth > 1 {
            below.push(path);
        }
    }
    below.iter().find_map(|path| find(path, depth - 1, left))
}

fn is_credential(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    if name == ".npmrc" {
        return npmrc_has_token(path);
    }
    NAMES.contains(&name)
}

fn npmrc_has_token(path: &Path) -> bool {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(65_536).read_to_string(&mut text));
    // What cannot be read is not vouched for.
    read.is_err() || ["_auth", "_password", "authToken"].iter().any(|word| text.contains(word))
}

//! Where a repository comes from: a folder of this machine or a URL.
//!
//! Promises: nothing here starts a program in a folder, follows a configuration, or writes. What a folder is gets
//! decided by looking at files; the only git that ever reads a source is the `upload-pack` of a fetch.

use crate::error::BrokerError;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use tipstaff_model::RepositoryName;

/// The longest `HEAD`, `.git` or `commondir` file that is read, in bytes.
const POINTER_LIMIT: u64 = 8 * 1024;

/// A place to fetch from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder of this machine.
    Local(LocalSource),
    /// A repository behind HTTP.
    Remote(RemoteSource),
}

/// A repository in a folder of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSource {
    /// The folder that holds the work tree, or the bare repository itself. Absolute, without symbolic links.
    pub root: PathBuf,
    /// The repository's folder; of a linked worktree its private one.
    pub git_dir: PathBuf,
    /// The folder with the objects; differs from `git_dir` in a linked worktree.
    pub common_dir: PathBuf,
    /// Whether there is no work tree.
    pub bare: bool,
}

/// A repository behind `https://`, or `http://` where that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteSource {
    url: String,
    path: String,
}

/// Which sources are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlainHttp {
    /// `http://` to this machine only.
    #[default]
    LoopbackOnly,
    /// `http://` to anywhere. Nothing protects such a fetch on its way.
    Anywhere,
}

impl Source {
    /// Reads what a person gave: a folder (also one inside a work tree), a `file://` or an `http(s)://` URL.
    /// Relative paths are taken from `directory`.
    ///
    /// # Errors
    /// [`BrokerError::SourceUnsupported`], [`BrokerError::SourceMissing`], [`BrokerError::NotARepository`] or
    /// [`BrokerError::State`] when a folder can't be read.
    pub fn parse(given: &OsStr, directory: &Path, plain_http: PlainHttp) -> Result<Self, BrokerError> {
        let lower = given.as_bytes().to_ascii_lowercase();
        if lower.starts_with(b"http://") || lower.starts_with(b"https://") {
            return RemoteSource::parse(given, plain_http).map(Self::Remote);
        }
        if lower.starts_with(b"file://") {
            let path = file_url_path(given)?;
            return LocalSource::find(&path).map(Self::Local);
        }
        if let Some(why) = foreign_transport(given.as_bytes()) {
            return Err(unsupported(given, why));
        }
        LocalSource::find(&directory.join(given)).map(Self::Local)
    }

    /// The name under which a sandbox sees the repository: `owner/name` of a URL, `local/<folder>` of a folder.
    #[must_use]
    pub fn repository_name(&self) -> RepositoryName {
        let (owner, name) = match self {
            Self::Local(local) => {
                let folder = if local.root.file_name() == Some(OsStr::new(".git")) {
                    local.root.parent().and_then(Path::file_name)
                } else {
                    local.root.file_name()
                };
                let folder = folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                ("local".to_owned(), folder)
            }
            Self::Remote(remote) => {
                let mut parts = remote.path.rsplit('/').filter(|part| !part.is_empty());
                let name = parts.next().unwrap_or_default().to_owned();
                (parts.next().unwrap_or("remote").to_owned(), name)
            }
        };
        let text = format!("{}/{}", RepositoryName::part_from(&owner), RepositoryName::part_from(&name));
        // `part_from` only makes valid parts; the fallback can't be reached.
        text.parse().unwrap_or_else(|_| fallback_name())
    }

    /// The argument that git fetches from.
    pub(crate) fn fetch_argument(&self) -> OsString {
        match self {
            Self::Local(local) => local.root.clone().into_os_string(),
            Self::Remote(remote) => OsString::from(&remote.url),
        }
    }

    /// Which transports a fetch needs.
    pub(crate) const fn protocols(&self) -> &'static str {
        match self {
            Self::Local(_) => "file",
            Self::Remote(_) => "http:https",
        }
    }

    /// Folders that the fetch reads and that may belong to someone else.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        match self {
            Self::Local(local) => vec![
                local.root.clone(),
                local.root.join(".git"),
                local.git_dir.clone(),
                local.common_dir.clone(),
            ],
            Self::Remote(_) => Vec::new(),
        }
    }

    /// The bytes that tell this source from every other.
    pub(crate) fn identity(&self) -> Vec<u8> {
        match self {
            // Linked worktrees share their objects, so they share a mirror.
            Self::Local(local) => [b"path:", local.common_dir.as_os_str().as_bytes()].concat(),
            Self::Remote(remote) => [b"url:", remote.url.as_bytes()].concat(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(local) => write!(f, "{}", local.root.display()),
            Self::Remote(remote) => f.write_str(&remote.url),
        }
    }
}

impl LocalSource {
    /// Looks for the repository that `path` is in, from `path` upwards, as git does.
    fn find(path: &Path) -> Result<Self, BrokerError> {
        let start = match path.canonicalize() {
            Ok(start) => start,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(BrokerError::SourceMissing { path: path.to_owned() });
            }
            Err(error) => return Err(BrokerError::state(path, "read")(error)),
        };
        if start.as_os_str().as_bytes().contains(&b'\n') {
            return Err(BrokerError::PathUnusable { path: start });
        }
        if start.is_file() {
            return Err(BrokerError::NotARepository { path: start });
        }
        start.ancestors().find_map(Self::at).ok_or(BrokerError::NotARepository { path: start.clone() })
    }

    /// The repository whose root is exactly `directory`.
    fn at(directory: &Path) -> Option<Self> {
        let dot_git = directory.join(".git");
        if let Some(git_dir) = git_dir_of(&dot_git) {
            let common_dir = common_dir_of(&git_dir);
            if looks_like_repository(&git_dir, &common_dir) {
                return Some(Self { root: directory.to_owned(), git_dir, common_dir, bare: false });
            }
        }
        if !looks_like_repository(directory, directory) {
            return None;
        }
        let directory = directory.to_owned();
        // `--repo project/.git` means the project, unless that folder stands alone.
        let root = match directory.file_name() {
            Some(name) if name == ".git" => directory.parent().map(Path::to_owned),
            _ => None,
        };
        Some(match root {
            Some(root) => Self { root, git_dir: directory.clone(), common_dir: directory, bare: false },
            None => Self {
                root: directory.clone(),
                git_dir: directory.clone(),
                common_dir: directory,
                bare: true,
            },
        })
    }

    /// Whether the history is cut off.
    #[must_use]
    pub fn is_shallow(&self) -> bool {
        self.common_dir.join("shallow").metadata().is_ok_and(|meta| meta.len() > 0)
    }

    /// The branch that `HEAD` names, also when it has no commit. `None` when detached or unreadable.
    #[must_use]
    pub fn head_branch(&self) -> Option<String> {
        let text = read_pointer(&self.git_dir.join("HEAD"))?;
        let branch = text.strip_prefix(b"ref: refs/heads/")?;
        let branch = String::from_utf8_lossy(trim_end(branch)).into_owned();
        // The reftable format leaves this stand-in.
        (branch != ".invalid").then_some(branch)
    }
}

impl RemoteSource {
    fn parse(given: &OsStr, plain_http: PlainHttp) -> Result<Self, BrokerError> {
        let text = given.to_str().ok_or_else(|| unsupported(given, "the URL is not UTF-8"))?;
        let bad = |why| unsupported(given, why);
        if text.len() > 2000
            || !text.bytes().all(|b| b.is_ascii_graphic())
            || text.contains(['\\', '"', '\''])
        {
            return Err(bad("the URL holds spaces or characters that a URL does not have"));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("it is no URL"))?;
        let scheme = scheme.to_ascii_lowercase();
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(bad("it holds a user name or a password, and credentials do not belong into URLs"));
        }
        if path.contains(['?', '#']) {
            return Err(bad("it has a query or a fragment"));
        }
        let host = host_of(authority).ok_or_else(|| bad("it has no host"))?;
        if scheme == "http" && plain_http == PlainHttp::LoopbackOnly && !is_loopback(&host) {
            return Err(bad("http:// is only accepted to this machine"));
        }
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Err(bad("it has no path"));
        }
        Ok(Self {
            url: format!("{scheme}://{}/{path}", authority.to_ascii_lowercase()),
            path: path.to_owned(),
        })
    }

    /// `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.url.split_once("://").map_or("", |(scheme, _)| scheme)
    }

    /// The host, with its port where one is named; lower-case.
    #[must_use]
    pub fn authority(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split_once('/').map_or(rest, |(authority, _)| authority)
    }

    /// The path behind the host, without the first slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The URL, with scheme and host in lower case and without a final slash.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn fallback_name() -> RepositoryName {
    #[expect(clippy::expect_used, reason = "a constant that a test of this module reads")]
    "local/repository".parse().expect("a constant name")
}

fn unsupported(given: &OsStr, why: &'static str) -> BrokerError {
    let text = given.to_string_lossy();
    // What stands before an @ may be a password.
    let shown = match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        _ => text.into_owned(),
    };
    let shown = shown.chars().filter(|c| !c.is_control()).take(200).collect();
    BrokerError::SourceUnsupported { given: shown, why }
}

/// Why git would not read this as a plain path, if so.
fn foreign_transport(given: &[u8]) -> Option<&'static str> {
    if given.is_empty() {
        return Some("it is empty");
    }
    let front = given.split(|b| *b == b'/').next().unwrap_or_default();
    if given.windows(3).any(|window| window == b"://") && front.ends_with(b":") {
        return Some("only file, http and https URLs are read; ssh needs a key, which a run never holds");
    }
    if given.windows(2).any(|window| window == b"::") && !given.starts_with(b"/") && front.contains(&b':') {
        return Some("remote helpers run programs");
    }
    if front.contains(&b'@') && front.contains(&b':') {
        return Some("ssh needs a key, which a run never holds; use the https URL");
    }
    None
}

fn file_url_path(given: &OsStr) -> Result<PathBuf, BrokerError> {
    let rest = given.as_bytes().get(b"file://".len()..).unwrap_or_default();
    let rest = if rest.to_ascii_lowercase().starts_with(b"localhost/") {
        rest.get(b"localhost".len()..).unwrap_or_default()
    } else {
        rest
    };
    if !rest.starts_with(b"/") {
        return Err(unsupported(given, "a file:// URL needs three slashes and a path of this machine"));
    }
    let decoded =
        percent_decode(rest).ok_or_else(|| unsupported(given, "a % in it is not followed by two digits"))?;
    if decoded.contains(&0) {
        return Err(unsupported(given, "it holds a zero byte"));
    }
    Ok(PathBuf::from(OsString::from_vec(decoded)))
}

fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' {
            let (high, low) = (bytes.next()?, bytes.next()?);
            let digit = |b: u8| char::from(b).to_digit(16);
            out.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        } else {
            out.push(*byte);
        }
    }
    Some(out)
}

fn host_of(authority: &str) -> Option<String> {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(inside, _)| inside)?,
        None => authority.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The repository folder behind `.git`: a folder, or a file that names one.
fn git_dir_of(dot_git: &Path) -> Option<PathBuf> {
    let meta = dot_git.metadata().ok()?;
    if meta.is_dir() {
        return dot_git.canonicalize().ok();
    }
    let text = read_pointer(dot_git)?;
    let named = trim_end(text.strip_prefix(b"gitdir: ")?);
    dot_git.parent()?.join(OsStr::from_bytes(named)).canonicalize().ok()
}

fn common_dir_of(git_dir: &Path) -> PathBuf {
    read_pointer(&git_dir.join("commondir"))
        .and_then(|text| git_dir.join(OsStr::from_bytes(trim_end(&text))).canonicalize().ok())
        .unwrap_or_else(|| git_dir.to_owned())
}

fn looks_like_repository(git_dir: &Path, common_dir: &Path) -> bool {
    git_dir.join("HEAD").symlink_metadata().is_ok()
        && common_dir.join("objects").is_dir()
        && common_dir.join("refs").symlink_metadata().is_ok()
}

fn read_pointer(path: &Path) -> Option<Vec<u8>> {
    // Opening a FIFO would block for ever.
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(POINTER_LIMIT).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str) -> Result<Source, BrokerError> {
        Source::parse(OsStr::new(url), Path::new("/"), PlainHttp::LoopbackOnly)
    }

    #[test]
    fn urls_are_accepted_or_refused_with_a_reason() {
        for (url, name) in [
            ("https://Example.com/team/app.git", "team/app"),
            ("http://127.0.0.1:8080/x/team/app", "team/app"),
            ("http://[::1]:80/app/", "remote/app"),
            ("http://localhost/a/b", "a/b"),
        ] {
            assert_eq!(remote(url).unwrap().repository_name().as_str(), name, "{url}");
        }
        for url in [
            "http://example.com/a/b",
            "https://user:secret@example.com/a",
            "https://example.com",
            "https://example.com/a?x=1",
            "https:///a",
            "https://example.com/a b",
            "ssh://git@example.com/a",
            "git@example.com:a/b",
            "git://example.com/a",
            "ext::sh -c whoami",
            "https://example.com/a\u{0}b",
            "file://other-host/x",
            "file:///a%zz",
            "",
        ] {
            let error = remote(url).unwrap_err();
            assert_eq!(error.code(), "source-unsupported", "{url}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert_eq!(fallback_name().as_str(), "local/repository");
    }

    #[test]
    fn a_missing_folder_and_a_folder_without_repository_differ() {
        assert_eq!(remote("/nonexistent/x").unwrap_err().code(), "source-missing");
        assert_eq!(remote("/proc").unwrap_err().code(), "not-a-repository");
    }
}

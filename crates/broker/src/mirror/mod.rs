//! The bare mirror of a repository: fetched incrementally, owned by the control plane, never seen by an agent for
//! writing.
//!
//! Promises: a commit is only ever reported after all its history is here and pinned by a ref of ours; refs are named
//! by commit ids, so no hostile or conflicting ref name of a source becomes one of ours; several processes may use
//! one mirror at once; one bound on bytes and one on time hold for every fetch.

mod fetch;
mod file;
mod tips;

pub(crate) use fetch::Listing;
pub use file::{CommitEntry, FileAt};

use crate::error::BrokerError;
use crate::git::{Git, GitCommand};
use crate::lock::{self, Lock, Mode};
use crate::source::Source;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tipstaff_model::CommitId;

/// The bounds of one fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorLimits {
    /// Bytes of one fetched pack.
    pub fetch_bytes: u64,
    /// Time of one fetch.
    pub fetch_time: Duration,
}

impl Default for MirrorLimits {
    fn default() -> Self {
        Self { fetch_bytes: 8 * 1024 * 1024 * 1024, fetch_time: Duration::from_secs(20 * 60) }
    }
}

/// All mirrors below one folder.
#[derive(Debug, Clone)]
pub struct Mirrors {
    git: Arc<Git>,
    root: PathBuf,
    limits: MirrorLimits,
}

/// The mirror of one source.
#[derive(Debug, Clone)]
pub struct Mirror {
    git: Arc<Git>,
    path: PathBuf,
    source: Source,
    limits: MirrorLimits,
}

/// A commit that is in the mirror, with all its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The commit.
    pub commit: CommitId,
    /// The branch that it was found by, without `refs/heads/`; `None` for a tag, a commit or a detached head.
    pub branch: Option<String>,
}

impl Mirrors {
    /// Mirrors below `root`, which is made when missing. One folder per tenant: mirrors of two tenants never share.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn new(git: Arc<Git>, root: PathBuf, limits: MirrorLimits) -> Result<Self, BrokerError> {
        std::fs::create_dir_all(&root).map_err(BrokerError::state(&root, "created"))?;
        let root = root.canonicalize().map_err(BrokerError::state(&root, "read"))?;
        if root.as_os_str().as_bytes().contains(&b'\n') {
            return Err(BrokerError::PathUnusable { path: root });
        }
        Ok(Self { git, root, limits })
    }

    /// The mirror of `source`, made empty when there is none yet. Nothing is fetched.
    ///
    /// # Errors
    /// When git fails or the folder can't be written.
    pub async fn open(&self, source: &Source) -> Result<Mirror, BrokerError> {
        let identity = source.identity();
        let name = source.repository_name();
        let guard = lock::take(&self.root.join("mirrors.lock"), Mode::Alone, Duration::from_secs(60)).await?;
        // The digest only names the folder; the file inside decides whose it is.
        for attempt in 0..64_u64 {
            let digest = fnv1a(&identity).wrapping_add(attempt);
            let path = self.root.join(format!("{}-{digest:016x}.git", name.name()));
            match std::fs::read(path.join("tipstaff-source")) {
                Ok(found) if found == identity => {
                    drop(guard);
                    return Ok(self.mirror(path, source));
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.make(&path, &identity).await?;
                    drop(guard);
                    return Ok(self.mirror(path, source));
                }
                Err(error) => return Err(BrokerError::state(&path, "read")(error)),
            }
        }
        Err(BrokerError::State {
            path: self.root.clone(),
            doing: "written",
            source: std::io::Error::other("no free name for another mirror"),
        })
    }

    async fn make(&self, path: &Path, identity: &[u8]) -> Result<(), BrokerError> {
        // A folder without its source file is what a killed process left.
        remove_dir(path)?;
        self.git
            .command("init")
            .args(["--bare", "--quiet", "--template=", "--object-format=sha1", "--"])
            .arg(path)
            .run()
            .await?;
        let file = path.join("tipstaff-source");
        std::fs::write(&file, identity).map_err(BrokerError::state(&file, "written"))
    }

    fn mirror(&self, path: PathBuf, source: &Source) -> Mirror {
        Mirror { git: Arc::clone(&self.git), path, source: source.clone(), limits: self.limits }
    }
}

impl Mirror {
    /// The bare repository.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its objects: what alternates point to.
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.path.join("objects")
    }

    /// What it mirrors.
    #[must_use]
    pub const fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn git(&self) -> &Arc<Git> {
        &self.git
    }

    /// Keeps the objects in place while it is held: nothing is repacked.
    pub(crate) async fn hold(&self) -> Result<Lock, BrokerError> {
        lock::take(&self.lock_path(), Mode::Shared, self.limits.fetch_time).await
    }

    /// Finds `base` in the source, fetches what is missing, and pins it. `None` and `HEAD` are what the source has
    /// checked out. Otherwise a branch, a tag, a full commit id, a unique start of one (7 digits or more), or one of
    /// these followed by `~N` or `^`.
    ///
    /// # Errors
    /// [`BrokerError::SourceEmpty`], [`BrokerError::SourceUnborn`], [`BrokerError::BaseNotFound`],
    /// [`BrokerError::BaseNotCommit`], [`BrokerError::SourceUnreadable`], [`BrokerError::SourceTooLarge`],
    /// [`BrokerError::SourceObjectFormat`], a time bound, or a lock that another process holds.
    pub async fn pin(&self, base: Option<&str>) -> Result<Pinned, BrokerError> {
        let wanted = base.unwrap_or("HEAD");
        let (name, steps) = split_steps(wanted);
        if let Ok(commit) = name.parse::<CommitId>()
            && steps.is_empty()
            && self.is_pinned(&commit)
        {
            return Ok(Pinned { commit, branch: None });
        }
        let listing = self.list(name).await?;
        let guard = lock::take(&self.lock_path(), Mode::Alone, self.limits.fetch_time).await?;
        let (start, branch) = self.fetch_named(name, &listing).await?;
        let commit = if steps.is_empty() { start } else { self.step(wanted, &start, steps).await? };
        self.set_pin(&commit).await?;
        drop(guard);
        Ok(Pinned { commit, branch: branch.filter(|_| steps.is_empty()) })
    }

    /// The commit that a revision of the mirror names, peeled.
    async fn resolve(&self, revision: &str) -> Result<Option<CommitId>, BrokerError> {
        let output = self
            .command("rev-parse")
            .args(["--verify", "--quiet", "--end-of-options"])
            .arg(format!("{revision}^{{commit}}"))
            .finish()
            .await?;
        // A newer git repeats the separator.
        Ok(output
            .text()
            .lines()
            .filter(|line| *line != "--end-of-options")
            .find_map(|line| line.parse().ok()))
    }

    async fn step(&self, wanted: &str, start: &CommitId, steps: &str) -> Result<CommitId, BrokerError> {
        self.resolve(&format!("{start}{steps}")).await?.ok_or_else(|| BrokerError::BaseNotFound {
            given: self.source.to_string(),
            base: clip(wanted),
            known: Vec::new(),
        })
    }

    async fn set_pin(&self, commit: &CommitId) -> Result<(), BrokerError> {
        if !self.is_pinned(commit) {
            self.command("update-ref").args([&pin_ref(commit), commit.as_str()]).run().await?;
        }
        Ok(())
    }

    fn is_pinned(&self, commit: &CommitId) -> bool {
        std::fs::read(self.path.join(pin_ref(commit)))
            .is_ok_and(|found| found.strip_suffix(b"\n") == Some(commit.as_str().as_bytes()))
    }

    /// Whether the mirrored history is cut off.
    #[must_use]
    pub fn is_shallow(&self) -> bool {
        self.path.join("shallow").metadata().is_ok_and(|meta| meta.len() > 0)
    }

    fn command(&self, name: &'static str) -> GitCommand<'_> {
        self.git.command(name).git_dir(&self.path)
    }

    fn source_command(&self, name: &'static str) -> GitCommand<'_> {
        self.command(name).protocols(self.source.protocols()).reading_source(self.source.directories())
    }

    fn lock_path(&self) -> PathBuf {
        let mut name = OsString::from(self.path.as_os_str());
        name.push(".lock");
        PathBuf::from(name)
    }
}

/// Splits `main~2^` into `main` and `~2^`.
fn split_steps(wanted: &str) -> (&str, &str) {
    let Some(at) = wanted.find(['~', '^']) else { return (wanted, "") };
    let (name, steps) = wanted.split_at(at);
    let plain = steps.len() <= 32 && steps.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'~' | b'^'));
    if plain { (name, steps) } else { (wanted, "") }
}

fn pin_ref(commit: &CommitId) -> String {
    format!("refs/pins/{commit}")
}

fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// FNV-1a, 64 bits: short names for folders. Nothing relies on it being hard to collide.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Removes a folder of ours; one that is not there is fine.
pub(crate) fn remove_dir(path: &Path) -> Result<(), BrokerError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(BrokerError::state(path, "removed")(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_split_from_names() {
        assert_eq!(split_steps("main"), ("main", ""));
        assert_eq!(split_steps("main~2"), ("main", "~2"));
        assert_eq!(split_steps("HEAD^^"), ("HEAD", "^^"));
        assert_eq!(split_steps("v1.2"), ("v1.2", ""));
        assert_eq!(split_steps("a~1^2~3"), ("a", "~1^2~3"));
    }
}

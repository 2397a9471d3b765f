//! Warm, read-only checkouts of pinned commits: the lower layer of a run's workspace.
//!
//! Promises: a checkout is complete or absent; nobody writes into it after it was made; it holds one commit, its
//! history and no other object or ref; its objects are hard links, so it costs its files and nothing else. What differs from run to run is a handful of small files ([`RunFiles`]) for the upper layer.
//!
//! Everything in here is made by our git from our mirror: no configuration, hook or filter of a repository takes part.

use crate::error::BrokerError;
use crate::git::{Git, status_text};
use crate::history;
use crate::lock::{self, Lock, Mode};
use crate::mirror::{Mirror, remove_dir};
use crate::workspace::{RunFiles, base_config};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tipstaff_model::CommitId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// How long one process waits for another that makes the same checkout, its own making included.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// How symbolic links of the repository are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Symlinks {
    /// As links: what a build needs.
    #[default]
    Links,
    /// As small files that hold the target: for read-only warrants.
    Files,
}

/// The bounds of a checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckoutLimits {
    /// Entries of the tree.
    pub files: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Time to make one.
    pub time: Duration,
    /// Threads that write files.
    pub workers: usize,
}

impl Default for CheckoutLimits {
    fn default() -> Self {
        Self {
            files: 2_000_000,
            bytes: 20 * 1024 * 1024 * 1024,
            time: Duration::from_secs(15 * 60),
            workers: 2,
        }
    }
}

/// All warm checkouts below one folder.
#[derive(Debug, Clone)]
pub struct Checkouts {
    git: Arc<Git>,
    root: PathBuf,
    limits: CheckoutLimits,
}

/// The folders of a workspace that borrows its objects.
#[derive(Debug, Clone, Copy)]
pub struct SharedPlaces<'a> {
    /// Where the workspace is made: what the run may write.
    pub workspace: &'a Path,
    /// Where the borrowed objects are put. They are hard links: mount this folder read-only, remove it with the run.
    pub objects: &'a Path,
    /// Where the sandbox sees that folder.
    pub objects_inside: &'a Path,
}

/// One warm checkout, kept from being pruned for as long as this value lives.
#[derive(Debug)]
pub struct Checkout {
    path: PathBuf,
    commit: CommitId,
    _lease: Lock,
}

impl Checkout {
    /// The work tree with its `.git`; mount it read-only.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The commit that is checked out.
    #[must_use]
    pub const fn commit(&self) -> &CommitId {
        &self.commit
    }
}

impl Checkouts {
    /// Checkouts below `root`, which is made when missing. It must be on the mirrors' file system, or objects are
    /// borrowed by path instead of linked.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn new(git: Arc<Git>, root: PathBuf, limits: CheckoutLimits) -> Result<Self, BrokerError> {
        fs::create_dir_all(&root).map_err(BrokerError::state(&root, "created"))?;
        let root = root.canonicalize().map_err(BrokerError::state(&root, "read"))?;
        Ok(Self { git, root, limits })
    }

    /// The warm checkout of `commit`, made when there is none yet. The commit must be pinned in the mirror.
    ///
    /// # Errors
    /// When git fails, a bound is reached, or the disk is full. Nothing half-made stays.
    pub async fn warm(
        &self,
        mirror: &Mirror,
        commit: &CommitId,
        symlinks: Symlinks,
    ) -> Result<Checkout, BrokerError> {
        let folder = self.root.join(mirror.path().file_stem().unwrap_or_default());
        fs::create_dir_all(&folder).map_err(BrokerError::state(&folder, "created"))?;
        let name = match symlinks {
            Symlinks::Links => commit.to_string(),
            Symlinks::Files => format!("{commit}-nolinks"),
        };
        let path = folder.join(&name);
        let lock_path = folder.join(format!("{name}.lock"));
        let waiting = async {
            loop {
                // Whoever finds no checkout never shares the lock, and whoever finds one never waits to be alone: a
                // checkout is in use as long as a run lasts, and nobody waits for the end of another run.
                if path.is_dir() {
                    let lease = lock::try_take(&lock_path, Mode::Shared)?;
                    // Someone may have pruned it in between.
                    if let Some(lease) = lease.filter(|_| path.is_dir()) {
                        // The lock file's time is when the checkout was last used.
                        touch(&lock_path);
                        return Ok(Checkout { path: path.clone(), commit: commit.clone(), _lease: lease });
                    }
                } else if let Some(_alone) = lock::try_take(&lock_path, Mode::Alone)? {
                    if !path.is_dir() {
                        self.make(mirror, commit, symlinks, &folder, &path).await?;
                    }
                    continue;
                }
                tokio::time::sleep(lock::RETRY).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| {
            Err(BrokerError::Locked { path: lock_path.clone(), seconds: PATIENCE.as_secs() })
        })
    }

    async fn make(
        &self,
        mirror: &Mirror,
        commit: &CommitId,
        symlinks: Symlinks,
        folder: &Path,
        path: &Path,
    ) -> Result<(), BrokerError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // We hold the lock: whatever carries this name was left by a dead process.
        for entry in fs::read_dir(folder).map_err(BrokerError::state(folder, "read"))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!(".making-{name}-")) {
                remove_dir(&entry.path())?;
            }
        }
        let making = folder.join(format!(
            ".making-{name}-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        let made = async {
            let git_dir = making.join(".git");
            make_git_dir(mirror, commit, &git_dir)?;
            history::provide(mirror, commit, &git_dir.join("objects")).await?;
            self.fill(mirror, commit, symlinks, &making).await
        }
        .await;
        match made {
            Ok(()) => fs::rename(&making, path).map_err(BrokerError::state(path, "written")),
            Err(error) => {
                remove_dir(&making)?;
                Err(error)
            }
        }
    }

    /// A workspace of its own for machines without overlay: the files are written anew, the objects are borrowed.
    ///
    /// # Errors
    /// As [`Checkouts::warm`]; [`BrokerError::DestinationExists`] when one of the two folders is there already.
    pub async fn clone_shared(
        &self,
        mirror: &Mirror,
        commit: &CommitId,
        symlinks: Symlinks,
        places: &SharedPlaces<'_>,
        run: &RunFiles,
    ) -> Result<(), BrokerError> {
        let SharedPlaces { workspace, objects, objects_inside } = *places;
        for path in [workspace, objects] {
            if path.symlink_metadata().is_ok() {
                return Err(BrokerError::DestinationExists { path: path.to_owned() });
            }
        }
        let made = async {
            let git_dir = workspace.join(".git");
            make_git_dir(mirror, commit, &git_dir)?;
            history::provide(mirror, commit, objects).await?;
            write_alternates(&git_dir, objects)?;
            self.fill(mirror, commit, symlinks, workspace).await?;
            write_alternates(&git_dir, objects_inside)?;
            run.write_into(workspace)
        }
        .await;
        if made.is_err() {
            remove_dir(workspace)?;
            remove_dir(objects)?;
        }
        made
    }

    /// Writes the files of `commit` below `work_tree`, whose `.git` is ours and fresh.
    async fn fill(
        &self,
        mirror: &Mirror,
        commit: &CommitId,
        symlinks: Symlinks,
        work_tree: &Path,
    ) -> Result<(), BrokerError> {
        self.measure(mirror, commit).await?;
        self.git
            .command("read-tree")
            .git_dir(&work_tree.join(".git"))
            .work_tree(work_tree)
            .args(["--reset", "-u", "--no-recurse-submodules"])
            .arg(commit.as_str())
            .config("checkout.workers", self.limits.workers.to_string())
            .config("core.symlinks", if symlinks == Symlinks::Links { "true" } else { "false" })
            .config("index.threads", "2")
            .environment("GIT_OPTIONAL_LOCKS", "1")
            .file_limit(self.limits.bytes)
            .timeout(self.limits.time)
            .run()
            .await?;
        Ok(())
    }

    /// Refuses a tree beyond the bounds before a file of it is written. A small repository can describe a tree without
    /// end, so the listing is read as a stream.
    async fn measure(&self, mirror: &Mirror, commit: &CommitId) -> Result<(), BrokerError> {
        let too_large = |what, limit| BrokerError::TreeTooLarge { commit: commit.clone(), what, limit };
        let mut child = self
            .git
            .command("ls-tree")
            .git_dir(mirror.path())
            .args(["-r", "-l", "-z", "--full-tree"])
            .arg(commit.as_str())
            .spawn()?;
        let stdout = child.take_stdout();
        let reading = async {
            let mut sum = TreeSum::default();
            if let Some(stdout) = stdout {
                let mut lines = BufReader::with_capacity(64 * 1024, stdout);
                let mut entry = Vec::new();
                loop {
                    entry.clear();
                    // An entry is a mode, a type, an id, a size and a path, which git bounds at 4 KiB on disk.
                    let read = (&mut lines).take(64 * 1024).read_until(0, &mut entry).await;
                    if read.is_ok_and(|count| count > 0) {
                        sum.add(&entry);
                    } else {
                        break;
                    }
                    if sum.files > self.limits.files {
                        return Err(too_large("files", self.limits.files));
                    }
                    if sum.bytes > self.limits.bytes {
                        return Err(too_large("bytes", self.limits.bytes));
                    }
                }
            }
            match child.wait().await? {
                (status, _) if status.success() => Ok(()),
                (status, message) => {
                    Err(BrokerError::GitFailed { command: "ls-tree", status: status_text(status), message })
                }
            }
        };
        let late = BrokerError::GitTimeout { command: "ls-tree", seconds: self.limits.time.as_secs() };
        tokio::time::timeout(self.limits.time, reading).await.unwrap_or(Err(late))
    }

    /// Removes the least recently used checkouts, all repositories together, until at most `keep` are left. Those in
    /// use stay. Returns how many were removed.
    ///
    /// # Errors
    /// When a folder can't be read or removed.
    pub fn prune(&self, keep: usize) -> Result<usize, BrokerError> {
        let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
        for repository in read_folders(&self.root)? {
            for path in read_folders(&repository)? {
                let hidden = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."));
                if !hidden {
                    found.push((used_at(&lock_of(&path)), path));
                }
            }
        }
        found.sort();
        let mut surplus = found.len().saturating_sub(keep);
        let mut removed = 0;
        for (_, path) in found {
            if surplus == 0 {
                break;
            }
            let Some(alone) = lock::try_take(&lock_of(&path), Mode::Alone)? else { continue };
            // Out of sight first, so that a kill in the middle leaves no half checkout under its name.
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let trash = path.with_file_name(format!(".making-{name}-pruned-{}", std::process::id()));
            fs::rename(&path, &trash).map_err(BrokerError::state(&path, "removed"))?;
            remove_dir(&trash)?;
            drop(alone);
            removed += 1;
            surplus -= 1;
        }
        Ok(removed)
    }
}

/// What a listing of a tree adds up to.
#[derive(Debug, Default)]
struct TreeSum {
    files: u64,
    bytes: u64,
}

impl TreeSum {
    /// Adds `<mode> <type> <id> <size>\t<path>\0`.
    fn add(&mut self, entry: &[u8]) {
        self.files += 1;
        let front = entry.split(|b| *b == b'\t').next().unwrap_or_default();
        let size = front.rsplit(|b| *b == b' ').next().and_then(|text| std::str::from_utf8(text).ok());
        // A submodule has "-" for a size.
        self.bytes = self.bytes.saturating_add(size.and_then(|text| text.parse().ok()).unwrap_or(0));
    }
}

/// Makes a `.git` by hand: no template, no hook, one detached commit, objects wherever the caller puts them. Cheaper
/// than a clone, and there is no moment at which it holds more than this.
fn make_git_dir(mirror: &Mirror, commit: &CommitId, git_dir: &Path) -> Result<(), BrokerError> {
    let write = |name: &str, content: &[u8]| {
        let path = git_dir.join(name);
        fs::write(&path, content).map_err(BrokerError::state(path, "written"))
    };
    for folder in ["objects/info", "objects/pack", "refs/heads", "refs/tags", "info", "hooks"] {
        let folder = git_dir.join(folder);
        fs::create_dir_all(&folder).map_err(BrokerError::state(folder, "created"))?;
    }
    write("HEAD", format!("{commit}\n").as_bytes())?;
    write("config", base_config().as_bytes())?;
    if mirror.is_shallow() {
        let shallow = mirror.path().join("shallow");
        fs::copy(&shallow, git_dir.join("shallow")).map_err(BrokerError::state(shallow, "read"))?;
    }
    Ok(())
}

fn write_alternates(git_dir: &Path, objects: &Path) -> Result<(), BrokerError> {
    if objects.as_os_str().as_bytes().contains(&b'\n') {
        return Err(BrokerError::PathUnusable { path: objects.to_owned() });
    }
    let path = git_dir.join("objects/info/alternates");
    let line = [objects.as_os_str().as_bytes(), b"\n"].concat();
    fs::write(&path, line).map_err(BrokerError::state(path, "written"))
}

fn read_folders(path: &Path) -> Result<Vec<PathBuf>, BrokerError> {
    let entries = fs::read_dir(path).map_err(BrokerError::state(path, "read"))?;
    Ok(entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|e| e.path())
        .collect())
}

fn lock_of(checkout: &Path) -> PathBuf {
    let mut name = OsString::from(checkout.as_os_str());
    name.push(".lock");
    PathBuf::from(name)
}

fn used_at(lock: &Path) -> SystemTime {
    lock.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn touch(path: &Path) {
    // Writing renews the time without asking a clock. A failure only makes the checkout look older.
    let _ = fs::write(path, b"used\n");
}

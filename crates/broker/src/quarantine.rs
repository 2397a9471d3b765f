//! The quarantine: a bare repository of one run that only the broker writes.
//!
//! Promises: it holds the history of the base and what judged pushes brought, no other object of a run; its refs are the
//! base and, once pushed, the warrant's ref, and what [`crate::attest`] made of it for the way out; a ref moves only by compare-and-swap after its audit record is durable; no
//! hook, filter or external diff runs here. It is also what the run reads from, so a run sees no other ref.

use crate::error::BrokerError;
use crate::git::{Git, GitCommand};
use crate::history;
use crate::mirror::{Mirror, Pinned, remove_dir};
use crate::parse::numstat::{self, FileStat};
use crate::source::{LocalSource, Source};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tipstaff_model::{CommitId, RefName};

/// The ref that keeps the base when it has no branch.
pub(crate) const BASE_REF: &str = "refs/tipstaff/base";

/// The largest diff that is shown, in bytes.
pub const LARGEST_DIFF: usize = 64 * 1024 * 1024;

/// The quarantine of one run and repository.
#[derive(Debug, Clone)]
pub struct Quarantine {
    git: Arc<Git>,
    path: PathBuf,
    base: CommitId,
}

/// What a push changed against the base.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiffStat {
    /// Each changed file.
    pub files: Vec<FileStat>,
    /// How many files changed.
    pub files_changed: u64,
    /// Added lines; binary files count none.
    pub additions: u64,
    /// Deleted lines; binary files count none.
    pub deletions: u64,
}

/// A commit on top of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitSummary {
    /// The commit.
    pub id: CommitId,
    /// Author, as the commit says.
    pub author: String,
    /// The first line of its message.
    pub subject: String,
    /// Author time, in seconds since the Unix epoch.
    pub time: i64,
}

/// Whether a diff carries the terminal's colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// Plain text.
    Never,
    /// With escape sequences of git's own.
    Always,
}

impl Quarantine {
    /// Makes the quarantine at `path`, which must not exist.
    ///
    /// # Errors
    /// [`BrokerError::DestinationExists`], a failing git, or an unwritable disk; nothing half-made stays.
    pub async fn create(
        git: Arc<Git>,
        path: &Path,
        mirror: &Mirror,
        base: &Pinned,
    ) -> Result<Self, BrokerError> {
        if path.symlink_metadata().is_ok() {
            return Err(BrokerError::DestinationExists { path: path.to_owned() });
        }
        let made = Self::make(git, path, mirror, base).await;
        if made.is_err() {
            remove_dir(path)?;
        }
        made
    }

    async fn make(git: Arc<Git>, path: &Path, mirror: &Mirror, base: &Pinned) -> Result<Self, BrokerError> {
        let folder = path.join("objects/info");
        fs::create_dir_all(&folder).map_err(BrokerError::state(&folder, "created"))?;
        let path = path.canonicalize().map_err(BrokerError::state(path, "read"))?;
        let write = |name: &str, content: &[u8]| {
            let file = path.join(name);
            fs::write(&file, content).map_err(BrokerError::state(file, "written"))
        };
        for folder in ["objects/pack", "refs/heads", "refs/tipstaff", "incoming"] {
            let folder = path.join(folder);
            fs::create_dir_all(&folder).map_err(BrokerError::state(folder, "created"))?;
        }
        if path.as_os_str().as_bytes().contains(&b'\n') {
            return Err(BrokerError::PathUnusable { path });
        }
        write("config", b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n")?;
        if mirror.is_shallow() {
            let shallow = mirror.path().join("shallow");
            fs::copy(&shallow, path.join("shallow")).map_err(BrokerError::state(shallow, "read"))?;
        }
        history::provide(mirror, &base.commit, &path.join("objects")).await?;
        // The refs are written as git packs them, in byte order, and last: until they are there, a kill leaves a folder
        // that `open` refuses.
        let branch = base.branch.as_deref().and_then(|name| RefName::branch(name).ok());
        let head = branch.as_ref().map_or_else(|| base.commit.to_string(), |name| format!("ref: {name}"));
        write("HEAD", format!("{head}\n").as_bytes())?;
        let mut packed = String::from("# pack-refs with: peeled fully-peeled sorted \n");
        for name in branch.iter().map(RefName::as_str).chain([BASE_REF]) {
            packed.push_str(&format!("{} {name}\n", base.commit));
        }
        write("packed-refs", packed.as_bytes())?;
        let quarantine = Self { git, path, base: base.commit.clone() };
        Ok(quarantine)
    }

    /// One without any object, for what is decided before an object is looked at.
    #[cfg(test)]
    pub(crate) const fn empty(git: Arc<Git>, path: PathBuf, base: CommitId) -> Self {
        Self { git, path, base }
    }

    /// Opens a quarantine that was made before, for looking at it or for serving it again.
    ///
    /// # Errors
    /// [`BrokerError::NotARepository`] when there is none, or none that was finished.
    pub async fn open(git: Arc<Git>, path: &Path) -> Result<Self, BrokerError> {
        let missing = || BrokerError::NotARepository { path: path.to_owned() };
        let path = path.canonicalize().map_err(|_| missing())?;
        let output =
            git.command("rev-parse").git_dir(&path).args(["--verify", "--quiet", BASE_REF]).finish().await?;
        let base = output.text().parse().map_err(|_| missing())?;
        Ok(Self { git, path, base })
    }

    /// The bare repository.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pinned base.
    #[must_use]
    pub const fn base(&self) -> &CommitId {
        &self.base
    }

    /// The commit of `reference`, once something was pushed to it.
    ///
    /// # Errors
    /// When git can't be run.
    pub async fn tip(&self, reference: &RefName) -> Result<Option<CommitId>, BrokerError> {
        let output = self
            .command("rev-parse")
            .args(["--verify", "--quiet"])
            .arg(format!("{reference}^{{commit}}"))
            .finish()
            .await?;
        Ok(output.text().parse().ok())
    }

    /// What `reference` changes against the base. Empty when nothing was pushed.
    ///
    /// # Errors
    /// When git fails, or the change is too large to be listed.
    pub async fn diffstat(&self, reference: &RefName) -> Result<DiffStat, BrokerError> {
        let Some(tip) = self.tip(reference).await? else { return Ok(DiffStat::default()) };
        let output = self
            .diff_command("diff-tree")
            .args(["-r", "-z", "--numstat", self.base.as_str(), tip.as_str(), "--"])
            .run()
            .await?;
        let files =
            numstat::parse(&output.stdout).ok_or(BrokerError::GitUnexpected { command: "diff-tree" })?;
        let sum = |pick: fn((u64, u64)) -> u64| {
            files.iter().filter_map(|file| file.lines).map(pick).fold(0, u64::saturating_add)
        };
        let (additions, deletions) = (sum(|(added, _)| added), sum(|(_, deleted)| deleted));
        let files_changed = u64::try_from(files.len()).unwrap_or(u64::MAX);
        Ok(DiffStat { files, files_changed, additions, deletions })
    }

    /// The patch of `reference` against the base: git's format, whatever bytes the files have. The caller cleans it for
    /// a terminal. Empty when nothing was pushed.
    ///
    /// # Errors
    /// When git fails, or the patch is larger than [`LARGEST_DIFF`].
    pub async fn diff(&self, reference: &RefName, color: Color) -> Result<Vec<u8>, BrokerError> {
        let Some(tip) = self.tip(reference).await? else { return Ok(Vec::new()) };
        let output = self
            .diff_command("diff-tree")
            .args(["-r", "-p", "--full-index"])
            .arg(if color == Color::Always { "--color=always" } else { "--color=never" })
            .args([self.base.as_str(), tip.as_str(), "--"])
            .output_limit(LARGEST_DIFF)
            .run()
            .await?;
        Ok(output.stdout)
    }

    /// The commits of `reference` that the base does not have, newest first, at most `most`.
    ///
    /// # Errors
    /// When git fails.
    pub async fn commits(&self, reference: &RefName, most: usize) -> Result<Vec<CommitSummary>, BrokerError> {
        let Some(tip) = self.tip(reference).await? else { return Ok(Vec::new()) };
        let output = self
            .command("log")
            .args(["-z", "--format=%H%n%at%n%an%n%s", "--no-show-signature", "--encoding=UTF-8"])
            .arg(format!("--max-count={most}"))
            .args([tip.as_str(), &format!("^{}", self.base), "--"])
            .run()
            .await?;
        output
            .stdout
            .split(|b| *b == 0)
            .filter(|entry| !entry.is_empty())
            .map(|entry| summary(&String::from_utf8_lossy(entry)))
            .collect::<Option<Vec<_>>>()
            .ok_or(BrokerError::GitUnexpected { command: "log" })
    }

    /// Brings the history of `tip` into a person's repository as the new branch `branch`, by a fetch. Runs no hook and no
    /// filter, touches no work tree, and replaces no branch that is there.
    ///
    /// # Errors
    /// [`BrokerError::SourceUnsupported`] when the target is no folder; [`BrokerError::GitFailed`] when the branch exists
    /// with other content or the name is not valid.
    pub async fn export(&self, target: &Source, tip: &CommitId, branch: &RefName) -> Result<(), BrokerError> {
        let Source::Local(target) = target else {
            return Err(BrokerError::SourceUnsupported {
                given: target.to_string(),
                why: "a result is brought into a folder of this machine only",
            });
        };
        self.fetch_into(target, &format!("{tip}:{branch}")).await
    }

    async fn fetch_into(&self, target: &LocalSource, refspec: &str) -> Result<(), BrokerError> {
        self.git
            .command("fetch")
            .git_dir(&target.git_dir)
            .protocols("file")
            .reading_source([self.path.clone(), target.root.clone(), target.git_dir.clone()])
            .environment("GIT_OPTIONAL_LOCKS", "1")
            .args([
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-recurse-submodules",
                "--no-auto-maintenance",
                "--update-shallow",
                "--",
            ])
            .arg(&self.path)
            .arg(refspec)
            .timeout(Duration::from_secs(600))
            .run()
            .await
            .map(|_| ())
    }

    /// Removes what pushes left that a killed process was in the middle of. Only the one broker that serves this
    /// quarantine may ask for it: another would take a running push away.
    pub(crate) fn sweep(&self) -> Result<(), BrokerError> {
        let incoming = self.incoming();
        remove_dir(&incoming)?;
        fs::create_dir_all(&incoming).map_err(BrokerError::state(incoming, "created"))
    }

    /// Where a push is held until it is judged.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.path.join("incoming")
    }

    pub(crate) fn git(&self) -> &Git {
        &self.git
    }

    pub(crate) fn command(&self, name: &'static str) -> GitCommand<'_> {
        self.git.command(name).git_dir(&self.path)
    }

    fn diff_command(&self, name: &'static str) -> GitCommand<'_> {
        self.command(name).args(["--no-renames", "--no-ext-diff", "--no-textconv", "--no-commit-id"])
    }
}

fn summary(entry: &str) -> Option<CommitSummary> {
    let mut lines = entry.splitn(4, '\n');
    let id = lines.next()?.parse().ok()?;
    let time = lines.next()?.parse().unwrap_or(0);
    let clean = |text: &str| -> String {
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(200).collect()
    };
    let author = clean(lines.next()?);
    let subject = clean(lines.next().unwrap_or_default());
    Some(CommitSummary { id, author, subject, time })
}

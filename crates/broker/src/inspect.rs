//! What a source looks like, for the person who starts a run.
//!
//! Promises: a folder's own configuration is never handed to a git that acts on it. Whether a work tree has changes is
//! computed with a private repository folder of ours whose objects are borrowed and whose index is the source's: no
//! filter, no file-system monitor and no hook of the folder is configured there, so none can run. A content filter
//! (such as LFS) is therefore not applied, and a file that was touched since its checkout may count as changed.

use crate::error::BrokerError;
use crate::git::Git;
use crate::mirror::{Mirror, remove_dir};
use crate::source::{LocalSource, Source};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tipstaff_model::CommitId;

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// How long the look at a work tree may take before it counts as unknown.
const LOOK: Duration = Duration::from_secs(30);

/// The settings of a source that change what counts as changed, and run nothing.
const HARMLESS: &str = r"^core\.(autocrlf|eol|filemode|symlinks|ignorecase)$";

/// What a source looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceInfo {
    /// The branch that is checked out, without `refs/heads/`; `None` when the head is detached.
    pub head_branch: Option<String>,
    /// The commit that is checked out; `None` when there is none yet.
    pub head_commit: Option<CommitId>,
    /// Whether the work tree differs from that commit.
    pub dirty: Dirty,
    /// Whether the history is cut off.
    pub shallow: bool,
    /// Whether there is no work tree.
    pub bare: bool,
    /// Whether objects are missing here and left at a remote (a partial clone). Such a source can be used only as
    /// far as its objects go.
    pub partial: bool,
}

/// Whether tracked files differ from the commit that is checked out. Untracked files do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dirty {
    /// No tracked file differs.
    No,
    /// So many tracked files differ. They are not part of a run.
    Files(usize),
    /// There is no work tree here, or it could not be looked at in time.
    Unknown,
}

impl Mirror {
    /// Looks at the source. Fetches nothing.
    ///
    /// # Errors
    /// [`BrokerError::SourceUnreadable`] and bounds of time.
    pub async fn inspect(&self) -> Result<SourceInfo, BrokerError> {
        let listing = self.list("HEAD").await?;
        let info = SourceInfo {
            head_branch: listing.head_branch,
            head_commit: listing.head,
            dirty: Dirty::Unknown,
            shallow: false,
            bare: false,
            partial: false,
        };
        let Source::Local(local) = self.source() else { return Ok(info) };
        let dirty = match &info.head_commit {
            Some(head) => self.dirty(head).await,
            None => Dirty::Unknown,
        };
        Ok(SourceInfo {
            head_branch: info.head_branch.or_else(|| local.head_branch()),
            dirty,
            shallow: local.is_shallow(),
            bare: local.bare,
            partial: is_partial(local),
            ..info
        })
    }
}

impl Mirror {
    /// Whether tracked files of the source's work tree differ from `head`, the commit that is checked out there.
    pub async fn dirty(&self, head: &CommitId) -> Dirty {
        let Source::Local(local) = self.source() else { return Dirty::Unknown };
        if local.bare {
            return Dirty::Unknown;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let private = self.path().join(format!("inspect-{}-{number}", std::process::id()));
        let found = dirty(self.git(), local, head, &private).await;
        let _ = remove_dir(&private);
        found.unwrap_or(Dirty::Unknown)
    }
}

async fn dirty(
    git: &Git,
    local: &LocalSource,
    head: &CommitId,
    private: &Path,
) -> Result<Dirty, BrokerError> {
    remove_dir(private)?;
    let write = |name: &str, content: &[u8]| {
        let path = private.join(name);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&path, content)).map_err(BrokerError::state(path, "written"))
    };
    write("HEAD", format!("{head}\n").as_bytes())?;
    write("refs/none", b"")?;
    write("config", b"[core]\n\trepositoryformatversion = 0\n\tbare = false\n")?;
    let objects = local.common_dir.join("objects");
    write("objects/info/alternates", &[objects.as_os_str().as_bytes(), b"\n"].concat())?;
    if local.is_shallow() {
        let shallow = std::fs::read(local.common_dir.join("shallow"));
        write("shallow", &shallow.map_err(BrokerError::state(&local.common_dir, "read"))?)?;
    }
    if let Ok(exclude) = std::fs::read(local.common_dir.join("info/exclude")) {
        write("info/exclude", &exclude)?;
    }
    link_shared_index(local, private);
    let mut command = git
        .command("status")
        .git_dir(private)
        .work_tree(&local.root)
        .environment("GIT_INDEX_FILE", local.git_dir.join("index"))
        .args(["--porcelain=v1", "-z", "--untracked-files=no", "--ignore-submodules=all", "--no-renames"])
        .reading_source([local.root.clone(), private.to_owned()])
        .output_limit(64 * 1024 * 1024)
        .timeout(LOOK);
    for (key, value) in harmless_settings(git, &local.common_dir.join("config")).await {
        command = command.config(key, value);
    }
    let output = command.run().await?;
    let changed = output.stdout.split(|b| *b == 0).filter(|entry| !entry.is_empty()).count();
    Ok(if changed == 0 { Dirty::No } else { Dirty::Files(changed) })
}

/// A split index keeps its larger part in a second file, which git looks for in the repository folder.
fn link_shared_index(local: &LocalSource, private: &Path) {
    let Ok(entries) = std::fs::read_dir(&local.git_dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.as_bytes().starts_with(b"sharedindex.") {
            // Without it the look fails and the answer is "unknown".
            let _ = std::os::unix::fs::symlink(entry.path(), private.join(name));
        }
    }
}

/// The harmless settings of a source's file. Reading one named file follows no include and runs nothing.
async fn harmless_settings(git: &Git, file: &Path) -> Vec<(String, String)> {
    let read = git
        .command("config")
        .args(["--no-includes", "--null", "--file"])
        .arg(file)
        .args(["--get-regexp", HARMLESS])
        .output_limit(64 * 1024)
        .timeout(LOOK)
        .run()
        .await;
    let Ok(output) = read else { return Vec::new() };
    output
        .stdout
        .split(|b| *b == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('\n'))
        .filter(|(_, value)| value.len() <= 16 && value.bytes().all(|b| b.is_ascii_alphanumeric()))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn is_partial(local: &LocalSource) -> bool {
    let pack: PathBuf = local.common_dir.join("objects/pack");
    std::fs::read_dir(pack).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.path().extension().is_some_and(|extension| extension == "promisor"))
    })
}

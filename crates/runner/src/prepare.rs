//! The workspace of one run: disposable, pinned to a commit, outside everybody's own tree.

use crate::supervise::DISK_RESERVE;
use crate::{Layout, RunnerError};
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::{Path, PathBuf};
use tipstaff_broker::checkout::SharedPlaces;
use tipstaff_broker::{Checkout, Checkouts, Mirror, RunFiles, RunRepository, Symlinks};
use tipstaff_model::{RunId, Warrant};
use tipstaff_sandbox::{ReadOnlyMount, RunIdentity, Workspace};

/// Where a sandbox sees the objects that the host lends it, when it has no overlay.
const LENT_OBJECTS: &str = "/tipstaff/objects";

/// A workspace that is ready for its sandbox.
#[derive(Debug)]
pub struct Prepared {
    /// Whose it is.
    pub identity: RunIdentity,
    /// For the sandbox.
    pub workspace: Workspace,
    /// Objects that are lent read-only.
    pub read_only_mounts: Vec<ReadOnlyMount>,
    /// The files of the base, as they were before the run.
    pub base: PathBuf,
    /// What grows while the run writes.
    pub measured: PathBuf,
    /// How the base's branch is called, where it has one.
    pub base_branch: Option<String>,
    /// For the collection: what is no part of the run's change.
    pub exclude: Option<ReadOnlyMount>,
    // The lower layer stays while this is held.
    _checkout: Option<Checkout>,
}

impl Prepared {
    /// Paths inside the sandbox whose objects the collection may borrow.
    #[must_use]
    pub fn lent_objects(&self) -> String {
        self.read_only_mounts
            .iter()
            .map(|mount| mount.inside.display().to_string())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// What a workspace is made from.
pub(crate) struct Materials<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) run: RunId,
    pub(crate) warrant: &'a Warrant,
    pub(crate) mirror: &'a Mirror,
    pub(crate) checkouts: &'a Checkouts,
    pub(crate) overlay: bool,
    /// The folder of this workspace within the run's own.
    pub(crate) name: &'static str,
    pub(crate) identity: RunIdentity,
    pub(crate) base_branch: Option<String>,
    /// What lies between the base and what the run writes.
    pub(crate) over: Option<PathBuf>,
}

/// Bytes that are free on the disk of `path`.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    tipstaff_sandbox::free_bytes(path).ok()
}

/// Makes the workspace.
pub(crate) async fn prepare(materials: Materials<'_>) -> Result<Prepared, RunnerError> {
    let Materials { layout, run, warrant, mirror, checkouts, overlay, name, identity, base_branch, over } =
        materials;
    if let Some(free) = free_bytes(layout.home())
        && free < 2 * DISK_RESERVE
    {
        let place = layout.home().display().to_string();
        return Err(RunnerError::DiskNearlyFull {
            free_mib: free >> 20,
            wanted_mib: (2 * DISK_RESERVE) >> 20,
            place,
        });
    }
    let Some(grant) = warrant.repositories.first() else {
        return Err(RunnerError::WarrantForged("it names no repository".to_owned()));
    };
    let folder = layout.run(run);
    let private = |path: &Path| {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(RunnerError::io("making the workspace"))
    };
    private(&folder)?;
    let git = warrant.role.git_identity();
    let files = RunFiles::new(&RunRepository {
        name: grant.name.clone(),
        commit: grant.base.clone(),
        base_branch: base_branch.clone(),
        branch: warrant.push_ref().cloned(),
        user_name: git.name,
        user_email: git.email,
    });
    // A read-only chat follows no link of the repository out of it.
    let symlinks = if warrant.kind.may_write() { Symlinks::Links } else { Symlinks::Files };
    if overlay {
        let checkout = checkouts.warm(mirror, &grant.base, symlinks).await?;
        let state = folder.join(name);
        let upper = state.join("upper");
        private(&upper)?;
        files.write_into(&upper)?;
        give(&upper, &identity)?;
        return Ok(Prepared {
            identity,
            workspace: Workspace::Overlay { lower: checkout.path().to_owned(), over, state },
            read_only_mounts: Vec::new(),
            base: checkout.path().to_owned(),
            measured: upper,
            base_branch,
            exclude: None,
            _checkout: Some(checkout),
        });
    }
    let path = folder.join(name);
    let inside = PathBuf::from(LENT_OBJECTS);
    let objects = folder.join(format!("{name}-objects"));
    let places = SharedPlaces { workspace: &path, objects: &objects, objects_inside: &inside };
    checkouts.clone_shared(mirror, &grant.base, symlinks, &places, &files).await?;
    Ok(Prepared {
        identity,
        workspace: Workspace::Directory { path: path.clone() },
        read_only_mounts: vec![ReadOnlyMount { host: objects, inside }],
        base: path.clone(),
        measured: path,
        base_branch,
        exclude: None,
        _checkout: None,
    })
}

/// Gives a small tree of ours to the run's user, when that is somebody else. Nobody else writes there yet.
pub(crate) fn give(tree: &Path, identity: &RunIdentity) -> Result<(), RunnerError> {
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::symlink_metadata(tree).map_err(RunnerError::io("preparing the workspace"))?.uid();
    if owner == identity.uid() {
        return Ok(());
    }
    let uid = Some(identity.uid());
    let mut waiting = vec![tree.to_owned()];
    while let Some(path) = waiting.pop() {
        lchown(&path, uid, uid).map_err(RunnerError::io("giving the workspace to the run's user"))?;
        if path.is_dir() && !path.is_symlink() {
            let entries = std::fs::read_dir(&path).map_err(RunnerError::io("preparing the workspace"))?;
            waiting.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    Ok(())
}

/// Path, inode, size, mode and modification time of an entry.
pub(crate) type LayerEntry = (PathBuf, u64, u64, u32, i64, i64);

/// Entries of an upper layer beyond which it is taken as changed without looking further.
const UNTOUCHED_ENTRIES: usize = 200;

/// What an overlay's upper layer holds: equal before and after a run means that the run changed nothing. A run that
/// forges times to look that way hides its own work and nothing else. `None` when it can't be told.
pub(crate) fn layer_picture(prepared: &Prepared) -> Option<Vec<LayerEntry>> {
    use std::os::unix::fs::MetadataExt;
    if !matches!(prepared.workspace, Workspace::Overlay { .. }) {
        return None;
    }
    let mut found = Vec::new();
    let mut waiting = vec![prepared.measured.clone()];
    while let Some(path) = waiting.pop() {
        let seen = std::fs::symlink_metadata(&path).ok()?;
        if seen.is_dir() {
            waiting.extend(std::fs::read_dir(&path).ok()?.map_while(Result::ok).map(|entry| entry.path()));
        }
        // Not the change time: mounting marks the layer's own folders.
        found.push((path, seen.ino(), seen.size(), seen.mode(), seen.mtime(), seen.mtime_nsec()));
        if found.len() > UNTOUCHED_ENTRIES {
            return None;
        }
    }
    found.sort();
    Some(found)
}

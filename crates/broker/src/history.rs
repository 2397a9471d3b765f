//! The objects of one commit's history, and no others, in a folder of their own.
//!
//! Promises: whoever is given such a folder can read the commit and everything that it descends from; no object of
//! another branch is in it, however it got into the mirror. When the mirror holds nothing else anyway, which is the
//! common case, the folder is made of hard links to its packs and costs nothing. Otherwise the history is packed once
//! per commit and then linked.
//!
//! Files are linked, so the folder must never be written through: it belongs below a read-only mount, or to a
//! repository that only we write. Packs are read-only files by their mode as well.

use crate::error::BrokerError;
use crate::mirror::{Mirror, remove_dir};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tipstaff_model::CommitId;

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// How many packed histories a mirror keeps for the next run on the same commit.
const KEPT: usize = 8;

/// How long packing one history may take.
const PACK_TIME: Duration = Duration::from_secs(20 * 60);

/// Fills `objects` (the `objects` folder of a repository; made if missing) with the history of `commit`.
pub(crate) async fn provide(mirror: &Mirror, commit: &CommitId, objects: &Path) -> Result<(), BrokerError> {
    for folder in ["info", "pack"] {
        let folder = objects.join(folder);
        fs::create_dir_all(&folder).map_err(BrokerError::state(folder, "created"))?;
    }
    let held = mirror.hold().await?;
    let from =
        if mirror.holds_only(commit).await? { mirror.objects() } else { packed(mirror, commit).await? };
    let linked = link_packs(&from.join("pack"), &objects.join("pack"));
    drop(held);
    linked.map_err(BrokerError::state(objects, "written"))
}

/// Where the pack of exactly this history lies, once it was made: an `objects` folder of its own.
pub(crate) fn packed_folder(mirror: &Mirror, commit: &CommitId) -> PathBuf {
    mirror.path().join("histories").join(commit.as_str())
}

/// [`packed_folder`], made when there is none.
async fn packed(mirror: &Mirror, commit: &CommitId) -> Result<PathBuf, BrokerError> {
    let folder = mirror.path().join("histories");
    let path = packed_folder(mirror, commit);
    if path.join("pack").is_dir() {
        return Ok(path);
    }
    // An earlier version kept the pack one folder higher.
    remove_dir(&path)?;
    let making =
        folder.join(format!(".{commit}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    let pack = making.join("pack");
    fs::create_dir_all(&pack).map_err(BrokerError::state(&pack, "created"))?;
    let made = mirror
        .git()
        .command("pack-objects")
        .git_dir(mirror.path())
        .args(["--quiet", "--revs", "--delta-base-offset"])
        .arg(pack.join("pack"))
        .timeout(PACK_TIME)
        .run_with_input(format!("{commit}\n").into_bytes())
        .await;
    if let Err(error) = made {
        remove_dir(&making)?;
        return Err(error);
    }
    match fs::rename(&making, &path) {
        Ok(()) => {}
        // Another process was faster; its pack is as good.
        Err(_) if path.is_dir() => remove_dir(&making)?,
        Err(error) => return Err(BrokerError::state(path, "written")(error)),
    }
    forget_old(&folder, &path);
    Ok(path)
}

/// Removes all but the newest packed histories, and what dead processes left. Whoever linked one keeps the links, so
/// nothing breaks; a failure only costs disk.
fn forget_old(folder: &Path, keep: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut found: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .map(|entry| {
            (
                entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH),
                entry.path(),
            )
        })
        .filter(|(_, path)| path != keep)
        .collect();
    found.sort();
    let surplus = found.len().saturating_sub(KEPT);
    for (_, path) in found.into_iter().take(surplus) {
        let _ = remove_dir(&path);
    }
}

/// Hard links (or, where the file system has none, copies) of all whole packs.
fn link_packs(from: &Path, to: &Path) -> io::Result<()> {
    let mut files: Vec<PathBuf> = fs::read_dir(from)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path.extension().unwrap_or_default().as_bytes();
            let name = path.file_name().unwrap_or_default().as_bytes();
            name.starts_with(b"pack-") && matches!(extension, b"pack" | b"idx" | b"rev" | b"bitmap")
        })
        .collect();
    // A pack counts from the moment its index is there.
    files.sort_by_key(|path| path.extension().is_some_and(|extension| extension == "idx"));
    link_files(files, to)
}

/// Hard links (or copies) of files of ours, in this order. What is there already stays.
pub(crate) fn link_files(files: impl IntoIterator<Item = PathBuf>, to: &Path) -> io::Result<()> {
    for file in files {
        let target = to.join(file.file_name().unwrap_or_default());
        match fs::hard_link(&file, &target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if cannot_link(&error) => {
                // Never seen half.
                let making = target.with_extension("copying");
                fs::copy(&file, &making)?;
                fs::rename(&making, &target)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Another file system, one without links, or a file with too many of them.
fn cannot_link(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}

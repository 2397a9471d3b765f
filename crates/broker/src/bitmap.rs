//! Counting ahead: the bitmaps with which git tells at once what a clone holds, instead of walking the whole history.
//!
//! Promises: nothing that is read becomes wrong or slow by it. No pack is written anew and none is removed: one index
//! over all packs of a folder, with its bitmap, is put beside them by a rename. It is written when enough is there that
//! no bitmap covers, so a small repository never pays; by one process at a time, which holds no lock that a fetch or the
//! start of a run waits for. Whatever fails or is killed here costs speed, never content.

use crate::error::BrokerError;
use crate::history;
use crate::lock::{self, Mode};
use crate::mirror::Mirror;
use crate::quarantine::Quarantine;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tipstaff_model::CommitId;

/// Bytes of pack indexes that are worth a bitmap: some nine thousand objects. Fewer are counted in a few hundredths of
/// a second.
const WORTH: u64 = 256 * 1024;

/// What is not covered is counted when it is at least this part of what is.
const PART: u64 = 8;

/// How long writing a bitmap may take.
const TIME: Duration = Duration::from_secs(20 * 60);

/// The index over all packs of a folder.
const INDEX: &str = "multi-pack-index";

/// The names of the packs that the bitmap beside it covers, one a line.
const COVERED: &str = "tipstaff-counted";

impl Quarantine {
    /// Makes clones of this quarantine quick, when its repository is large enough for that to matter: writes in the
    /// mirror what git counts with, unless it is there, and links it here. Whether it is here now. Meant to run beside
    /// the run: it may take as long as counting the history does, and may be dropped at any moment.
    ///
    /// # Errors
    /// When git fails, is too old for this, or the disk is full. Reading works as before then.
    pub async fn quicken(&self, mirror: &Mirror) -> Result<bool, BrokerError> {
        // What a cut history reaches changes with the cut.
        if mirror.is_shallow() {
            return Ok(false);
        }
        let own = packs(&self.path().join("objects"))?;
        let folders = [mirror.objects(), history::packed_folder(mirror, self.base())];
        let Some((objects, theirs)) = folders.into_iter().find_map(|folder| {
            let theirs = packs(&folder).ok()?;
            theirs.keys().any(|pack| own.contains_key(pack)).then_some((folder, theirs))
        }) else {
            return Ok(false);
        };
        // Whoever comes second finds it written.
        let alone = lock::take(&mirror.path().join("bitmap.lock"), Mode::Alone, TIME).await?;
        write(mirror, self.base(), &objects, &theirs).await?;
        // A pack that came after this quarantine was made belongs to somebody else, and an index that names it is of
        // no use here.
        let linked = packs(&objects)?.keys().all(|pack| own.contains_key(pack))
            && link(&objects.join("pack"), &self.path().join("objects/pack"))?;
        drop(alone);
        Ok(linked)
    }
}

/// Writes index and bitmap, when they are worth it. The caller holds the lock.
async fn write(
    mirror: &Mirror,
    tip: &CommitId,
    objects: &Path,
    packs: &BTreeMap<String, u64>,
) -> Result<(), BrokerError> {
    let folder = objects.join("pack");
    let note = objects.join(COVERED);
    let covered = fs::read_to_string(&note).ok().filter(|_| folder.join(INDEX).is_file()).unwrap_or_default();
    let (mut old, mut new) = (0_u64, 0_u64);
    for (pack, bytes) in packs {
        let sum = if covered.lines().any(|line| line == pack) { &mut old } else { &mut new };
        *sum = sum.saturating_add(*bytes);
    }
    if new < WORTH || new < old / PART {
        return Ok(());
    }
    sweep(&folder);
    // The tips are told, so that nothing else that happens to the mirror in the meantime takes part.
    let tips = objects.join("tipstaff-counting");
    fs::write(&tips, format!("+{tip}\n")).map_err(BrokerError::state(&tips, "written"))?;
    let mut option = OsString::from("--refs-snapshot=");
    option.push(&tips);
    let preferred = packs.iter().max_by_key(|(_, bytes)| **bytes).map(|(pack, _)| pack.as_str());
    let written = mirror
        .git()
        .command("multi-pack-index")
        .git_dir(mirror.path())
        .environment("GIT_OBJECT_DIRECTORY", objects)
        .config("pack.writeBitmapLookupTable", "true")
        .args(["write", "--bitmap", "--no-progress"])
        .arg(option)
        .args(preferred.map(|pack| format!("--preferred-pack={pack}.idx")))
        .timeout(TIME)
        .run()
        .await;
    let _ = fs::remove_file(&tips);
    written?;
    let names: String = packs.keys().map(|pack| format!("{pack}\n")).collect();
    fs::write(&note, names).map_err(BrokerError::state(note, "written"))
}

/// Removes what a killed writer left. The caller holds the lock, so nobody is writing.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == "multi-pack-index.lock" || is_unfinished(&name) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether git is, or was, writing a bitmap to a file of this name.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.starts_with("tmp_bitmap_") || name.starts_with("tmp_midx_")
}

/// The packs of a folder of objects, with the size of each index.
fn packs(objects: &Path) -> Result<BTreeMap<String, u64>, BrokerError> {
    let folder = objects.join("pack");
    let entries = fs::read_dir(&folder).map_err(BrokerError::state(folder, "read"))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let pack = name.strip_suffix(".idx").filter(|name| name.starts_with("pack-"))?;
            Some((pack.to_owned(), entry.metadata().map_or(0, |meta| meta.len())))
        })
        .collect())
}

/// Links the index and its bitmaps; whether there is one. The index comes last: it counts from that moment.
fn link(from: &Path, to: &Path) -> Result<bool, BrokerError> {
    let mut bitmaps: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(from).map_err(BrokerError::state(from, "read"))?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("multi-pack-index-") && name.ends_with(".bitmap") {
            bitmaps.push(entry.path());
        }
    }
    let index = from.join(INDEX);
    if bitmaps.is_empty() || !index.is_file() {
        return Ok(false);
    }
    history::link_files(bitmaps.into_iter().chain([index]), to).map_err(BrokerError::state(to, "written"))?;
    Ok(true)
}

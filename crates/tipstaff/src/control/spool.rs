//! The spool of one run's ledger: what was paid and settled while the store could not be reached.
//!
//! Promises: a line is on disk before what it says counts; a file is its owner's alone to read; while its process lives
//! nobody else touches it, and afterwards whoever takes it first writes it to the store, once.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use tipstaff_model::id::RowId;
use tipstaff_model::{ChargeRequest, ChargeSettlement, MicroUsd, OrgId, RunId};

/// The largest file that is read back, in bytes: far more than a run's reserve can fill.
const LARGEST: u64 = 16 << 20;

/// Whose file it is: its first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Version of this form: 1.
    v: u8,
    /// The org.
    pub(crate) org: OrgId,
    /// The run.
    pub(crate) run: RunId,
    /// The reserve that was set aside, where one was.
    pub(crate) hold: Option<RowId>,
}

/// What happened while the store could not be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    /// A call was paid from the reserve.
    Draw {
        /// What was asked.
        request: ChargeRequest,
        /// What was granted.
        amount: MicroUsd,
    },
    /// A call was settled.
    Settle(ChargeSettlement),
}

/// The file of a run that goes on.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    path: PathBuf,
    /// Where the first line ends.
    start: u64,
}

/// The file that a dead process left, locked against others.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) head: Head,
    pub(crate) entries: Vec<Entry>,
    path: PathBuf,
    _locked: File,
}

/// The folder of spools.
pub(crate) fn folder(home: &Path) -> PathBuf {
    home.join("spool")
}

impl Spool {
    /// Makes the file of a run and locks it; on disk when this returns.
    pub(crate) fn create(
        folder: &Path,
        org: OrgId,
        run: RunId,
        hold: Option<RowId>,
    ) -> std::io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = folder.join(format!("{run}.jsonl"));
        let draft = folder.join(format!("{run}.draft"));
        let mut file =
            OpenOptions::new().create(true).truncate(true).read(true).write(true).mode(0o600).open(&draft)?;
        file.lock()?;
        let mut line = serde_json::to_vec(&Head { v: 1, org, run, hold })?;
        line.push(b'\n');
        file.write_all(&line)?;
        file.sync_all()?;
        // Nobody sees it before it is locked and whole.
        std::fs::rename(&draft, &path)?;
        File::open(folder)?.sync_all()?;
        let start = u64::try_from(line.len()).unwrap_or(u64::MAX);
        Ok(Self { file, path, start })
    }

    /// Adds an entry; on disk when this returns.
    pub(crate) fn add(&mut self, entry: &Entry) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let end = self.file.seek(SeekFrom::End(0))?;
        let added = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if added.is_err() {
            // Half a line would hide the next one.
            self.file.set_len(end)?;
        }
        added
    }

    /// Forgets the entries: the store has them.
    pub(crate) fn clear(&mut self) -> std::io::Result<()> {
        self.file.set_len(self.start)?;
        self.file.sync_data()
    }

    /// Removes the file: the run has ended, and the store has everything.
    pub(crate) fn remove(self) -> std::io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

impl Left {
    /// The files whose processes are dead; those that can't be read are left alone and named.
    pub(crate) fn find(folder: &Path) -> (Vec<Self>, Vec<String>) {
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        let Ok(entries) = std::fs::read_dir(folder) else { return (found, unreadable) };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("jsonl") => {}
                // It never got its name, so nothing counts that it holds.
                Some("draft") if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) => {
                    let _gone_already = std::fs::remove_file(&path);
                    continue;
                }
                _ => continue,
            }
            match Self::open(&path) {
                Ok(Some(left)) => found.push(left),
                Ok(None) => {}
                Err(error) => unreadable.push(format!("{}: {error}", path.display())),
            }
        }
        (found, unreadable)
    }

    fn open(path: &Path) -> std::io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            // Somebody else has just written it to the store.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // Its process lives.
        if file.try_lock().is_err() {
            return Ok(None);
        }
        if !path.try_exists()? {
            return Ok(None);
        }
        let mut lines = BufReader::new((&file).take(LARGEST)).lines();
        let head = lines.next().transpose()?.unwrap_or_default();
        let head: Head = serde_json::from_str(&head)?;
        let mut entries = Vec::new();
        for line in lines {
            // A line that the end of the process cut off was never answered for.
            let Ok(entry) = serde_json::from_str(&line?) else { break };
            entries.push(entry);
        }
        Ok(Some(Self { head, entries, path: path.to_owned(), _locked: file }))
    }

    /// Removes the file: the store has everything.
    pub(crate) fn remove(self) -> std::io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use tipstaff_model::{FixedClock, FixedEntropy};

    fn ids() -> (OrgId, RunId, RowId) {
        let (clock, entropy) = (FixedClock::at(0), FixedEntropy::seeded(1));
        (OrgId::new(&clock, &entropy), RunId::new(&clock, &entropy), RowId::new(&clock, &entropy))
    }

    fn draw(call: RowId) -> Entry {
        let amount = MicroUsd::from_micro(5);
        let (provider, model) = ("p".to_owned(), "m".to_owned());
        Entry::Draw { request: ChargeRequest { call, provider, model, most: amount, least: amount }, amount }
    }

    #[test]
    fn a_living_process_keeps_its_file_and_a_dead_one_leaves_whole_lines() {
        let place = tempfile::tempdir().unwrap();
        let place = folder(place.path());
        let (org, run, hold) = ids();
        let mut spool = Spool::create(&place, org, run, Some(hold)).unwrap();
        spool.add(&draw(hold)).unwrap();
        let path = place.join(format!("{run}.jsonl"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Left::find(&place).0.is_empty(), "its process lives");
        spool.clear().unwrap();
        spool.add(&draw(hold)).unwrap();
        spool.add(&draw(hold)).unwrap();
        spool.file.write_all(b"{\"draw\":{\"requ").unwrap();
        drop(spool);
        std::fs::write(place.join("half.draft"), "{").unwrap();
        std::fs::write(place.join("noise.jsonl"), "not ours\n").unwrap();
        let (mut left, unreadable) = Left::find(&place);
        assert_eq!((left.len(), unreadable.len()), (1, 1), "{unreadable:?}");
        let left = left.remove(0);
        assert_eq!((left.head.run, left.head.hold, left.entries.len()), (run, Some(hold), 2));
        assert!(Left::find(&place).0.is_empty(), "one successor at a time");
        left.remove().unwrap();
        assert!(!path.exists() && !place.join("half.draft").exists());
    }
}

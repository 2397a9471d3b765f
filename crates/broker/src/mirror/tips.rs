//! Which histories a mirror holds, so that one of them can be given away without the others.
//!
//! Promises: when [`Mirror::holds_only`] says yes, every object of the mirror belongs to that history. A marker is put
//! down before every fetch and taken away only after its tip was noted; whatever is killed in between leaves the
//! marker, and then the answer is no for good.

use super::Mirror;
use crate::error::BrokerError;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use tipstaff_model::CommitId;

/// More tips than this are not told apart any more.
const MOST_TIPS: usize = 64;

/// A fetch that has begun and whose outcome is not noted yet.
#[derive(Debug)]
pub(super) struct Doubt {
    /// An earlier one was never settled.
    lasting: bool,
    packs: BTreeSet<OsString>,
}

impl Mirror {
    /// Whether nothing but the history of `commit` is in the mirror. The caller holds the lock.
    pub(crate) async fn holds_only(&self, commit: &CommitId) -> Result<bool, BrokerError> {
        if self.marker().exists() {
            return Ok(false);
        }
        for tip in self.tips()? {
            if tip != *commit && !self.is_ancestor(&tip, commit).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts the marker down. The caller holds the lock alone.
    pub(super) fn doubt(&self) -> Result<Doubt, BrokerError> {
        let marker = self.marker();
        let lasting = marker.exists();
        if !lasting {
            fs::write(&marker, b"").map_err(BrokerError::state(marker, "written"))?;
        }
        Ok(Doubt { lasting, packs: self.packs()? })
    }

    /// Notes that a fetch brought `commit` with its history.
    pub(super) async fn settle_tip(&self, doubt: Doubt, commit: &CommitId) -> Result<(), BrokerError> {
        let mut tips = vec![commit.clone()];
        for tip in self.tips()? {
            if tip != *commit && !self.is_ancestor(&tip, commit).await? {
                tips.push(tip);
            }
        }
        if tips.len() > MOST_TIPS {
            return Ok(());
        }
        let text: String = tips.iter().map(|tip| format!("{tip}\n")).collect();
        let (file, new) = (self.tips_file(), self.path().join("tipstaff-tips.new"));
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &file))
            .map_err(BrokerError::state(file, "written"))?;
        self.settle(&doubt)
    }

    /// Notes that a fetch failed, when it left no pack.
    pub(super) fn settle_unchanged(&self, doubt: Doubt) -> Result<(), BrokerError> {
        if self.packs()? == doubt.packs { self.settle(&doubt) } else { Ok(()) }
    }

    fn settle(&self, doubt: &Doubt) -> Result<(), BrokerError> {
        if doubt.lasting {
            return Ok(());
        }
        let marker = self.marker();
        fs::remove_file(&marker).map_err(BrokerError::state(marker, "removed"))
    }

    fn tips(&self) -> Result<Vec<CommitId>, BrokerError> {
        match fs::read_to_string(self.tips_file()) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(BrokerError::state(self.tips_file(), "read")(error)),
        }
    }

    async fn is_ancestor(&self, ancestor: &CommitId, commit: &CommitId) -> Result<bool, BrokerError> {
        let output = self
            .command("merge-base")
            .args(["--is-ancestor", ancestor.as_str(), commit.as_str()])
            .finish()
            .await?;
        Ok(output.status.success())
    }

    fn packs(&self) -> Result<BTreeSet<OsString>, BrokerError> {
        let folder = self.objects().join("pack");
        let entries = fs::read_dir(&folder).map_err(BrokerError::state(folder, "read"))?;
        // A bitmap may come beside them at any moment.
        let pack = |name: &OsString| name.as_bytes().starts_with(b"pack-");
        Ok(entries.flatten().map(|entry| entry.file_name()).filter(pack).collect())
    }

    fn marker(&self) -> PathBuf {
        self.path().join("tipstaff-doubt")
    }

    fn tips_file(&self) -> PathBuf {
        self.path().join("tipstaff-tips")
    }
}

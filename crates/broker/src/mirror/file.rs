//! One file of a commit, read from the mirror: nothing is checked out, and nothing is read before its size is known.

use super::Mirror;
use crate::error::BrokerError;
use tipstaff_model::CommitId;

/// What a commit has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileAt {
    /// Nothing.
    Nothing,
    /// An ordinary file.
    Content(Vec<u8>),
    /// A folder, a link or a submodule.
    NoFile,
    /// A file above the bound.
    TooLarge,
}

impl Mirror {
    /// The file `path` (plain parts, no pattern) of a commit that is pinned here, of at most `most` bytes.
    ///
    /// # Errors
    /// When git fails, or the commit is not here.
    pub async fn file_at(&self, commit: &CommitId, path: &str, most: u64) -> Result<FileAt, BrokerError> {
        let output = self
            .command("ls-tree")
            .args(["-z", "-l", "--full-tree", commit.as_str(), "--", path])
            .environment("GIT_LITERAL_PATHSPECS", "1")
            .run()
            .await?;
        let unexpected = || BrokerError::GitUnexpected { command: "ls-tree" };
        let text = output.text();
        let Some(line) = text.split('\0').find(|line| !line.is_empty()) else { return Ok(FileAt::Nothing) };
        let (front, name) = line.split_once('\t').ok_or_else(unexpected)?;
        if name != path {
            return Err(unexpected());
        }
        let words: Vec<&str> = front.split_whitespace().collect();
        let [mode, kind, id, size] = words.as_slice() else { return Err(unexpected()) };
        if *kind != "blob" || !mode.starts_with("100") {
            return Ok(FileAt::NoFile);
        }
        let size: u64 = size.parse().map_err(|_| unexpected())?;
        if size > most {
            return Ok(FileAt::TooLarge);
        }
        let limit = usize::try_from(most).unwrap_or(usize::MAX);
        let content = self.command("cat-file").args(["blob", id]).output_limit(limit).run().await?;
        Ok(FileAt::Content(content.stdout))
    }
}

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

/// One entry of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitEntry {
    /// The mode as git writes it, such as `100755`.
    pub mode: String,
    /// The id of its content.
    pub id: String,
    /// The path.
    pub path: Vec<u8>,
}

/// Reads `<mode> <type> <id>\t<path>`.
fn commit_entry(line: &[u8]) -> Option<CommitEntry> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    let (front, path) = (line.get(..tab)?, line.get(tab + 1..)?);
    let mut words = std::str::from_utf8(front).ok()?.split(' ');
    let (mode, _, id) = (words.next()?, words.next()?, words.next()?);
    Some(CommitEntry { mode: mode.to_owned(), id: id.to_owned(), path: path.to_vec() })
}

impl Mirror {
    /// What a commit that is pinned here has at `path` (plain parts, no pattern).
    ///
    /// # Errors
    /// When git fails, or the commit is not here.
    pub async fn entry_at(&self, commit: &CommitId, path: &str) -> Result<Option<CommitEntry>, BrokerError> {
        let output = self
            .command("ls-tree")
            .args(["-z", "--full-tree", commit.as_str(), "--", path])
            .environment("GIT_LITERAL_PATHSPECS", "1")
            .run()
            .await?;
        let line = output.stdout.split(|byte| *byte == 0).find(|line| !line.is_empty());
        Ok(line.and_then(commit_entry).filter(|entry| entry.path == path.as_bytes()))
    }

    /// All files of a commit that is pinned here, in git's order; a listing of at most `most` bytes is read.
    ///
    /// # Errors
    /// When git fails, the commit is not here, or the listing is longer.
    pub async fn entries(&self, commit: &CommitId, most: usize) -> Result<Vec<CommitEntry>, BrokerError> {
        let output = self
            .command("ls-tree")
            .args(["-r", "-z", "--full-tree", commit.as_str()])
            .output_limit(most)
            .run()
            .await?;
        Ok(output.stdout.split(|byte| *byte == 0).filter_map(commit_entry).collect())
    }
}

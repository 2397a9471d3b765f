//! Looking at commits in a person's repository, as evidence.
//!
//! Promises: what is read is the object that the id names: replacements (`git replace`) do not count, and git hashes the
//! bytes anew; nothing of the repository's configuration runs. Object names are SHA-1, of which git's own
//! implementation refuses the known collisions; repositories with other names are not handled.

use crate::attest::{self, NotAttested, Vouched};
use crate::error::BrokerError;
use crate::git::{Git, GitCommand};
use crate::parse::changes;
use crate::source::LocalSource;
use std::sync::Arc;
use tipstaff_model::{CommitId, RunId};
use tipstaff_seal::WarrantDigest;

/// The largest commit that is looked at, in bytes.
const LARGEST: usize = 8 * 1024 * 1024;

/// Commits of one repository.
#[derive(Debug, Clone)]
pub struct CommitReader {
    git: Arc<Git>,
    source: LocalSource,
}

/// A commit as it lies in a repository.
#[derive(Debug, Clone)]
pub struct CommitEvidence {
    /// Its id.
    pub id: CommitId,
    /// Whether its bytes hash to its id.
    pub intact: bool,
    /// What it says as an attested commit, its signature checked against the key that the signature names.
    pub vouched: Result<Vouched, NotAttested>,
    /// What its trailers say, whoever wrote them.
    pub claims: Option<(RunId, WarrantDigest)>,
    /// Author, as the commit says.
    pub author: String,
    /// The first line of its message.
    pub subject: String,
}

impl CommitReader {
    /// Reads in `source`.
    #[must_use]
    pub const fn new(git: Arc<Git>, source: LocalSource) -> Self {
        Self { git, source }
    }

    fn command(&self, name: &'static str) -> GitCommand<'_> {
        self.git.command(name).git_dir(&self.source.git_dir).reading_source([
            self.source.root.clone(),
            self.source.git_dir.clone(),
            self.source.common_dir.clone(),
        ])
    }

    /// The commit that a person means.
    ///
    /// # Errors
    /// When git can't be run.
    pub async fn find(&self, text: &str) -> Result<Option<CommitId>, BrokerError> {
        if text.starts_with('-') || text.len() > 300 || text.chars().any(char::is_control) {
            return Ok(None);
        }
        let output = self
            .command("rev-parse")
            .args(["--verify", "--quiet", "--end-of-options"])
            .arg(format!("{text}^{{commit}}"))
            .finish()
            .await?;
        Ok(output.text().parse().ok())
    }

    /// What a commit says.
    ///
    /// # Errors
    /// When it is not there, or git can't be run.
    pub async fn read(&self, id: &CommitId) -> Result<CommitEvidence, BrokerError> {
        let output =
            self.command("cat-file").args(["commit", id.as_str()]).output_limit(LARGEST).run().await?;
        let bytes = output.stdout;
        let hashed = self
            .command("hash-object")
            .args(["-t", "commit", "--literally", "--stdin"])
            .finish_with_input(bytes.clone())
            .await?;
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(200).collect::<String>()
        };
        let (author, subject) = match attest::read(&bytes) {
            Some(raw) => {
                let name = raw.author.split(|b| *b == b'>').next().unwrap_or_default();
                let first = raw.message.split(|b| *b == b'\n').find(|line| !line.is_empty());
                (format!("{}>", text(name)), text(first.unwrap_or_default()))
            }
            None => (String::new(), String::new()),
        };
        Ok(CommitEvidence {
            id: id.clone(),
            intact: hashed.status.success() && hashed.text() == id.as_str(),
            vouched: attest::verify(&bytes),
            claims: attest::claims(&bytes),
            author,
            subject,
        })
    }

    /// The paths that a commit changes against each of its parents; `None` when they can't all be had, as in a shallow or
    /// partial clone.
    ///
    /// # Errors
    /// When git can't be run.
    pub async fn changed_paths(&self, id: &CommitId) -> Result<Option<Vec<Vec<u8>>>, BrokerError> {
        changed_paths(self.command("diff-tree"), id).await
    }

    /// Whether `commit` is `tip` or in its history; `None` when `tip` is not here.
    ///
    /// # Errors
    /// When git can't be run.
    pub async fn leads_to(&self, commit: &CommitId, tip: &CommitId) -> Result<Option<bool>, BrokerError> {
        if commit == tip {
            return Ok(Some(true));
        }
        let output = self
            .command("merge-base")
            .args(["--is-ancestor", commit.as_str(), tip.as_str()])
            .finish()
            .await?;
        Ok(match output.status.code() {
            Some(0) => Some(true),
            Some(1) => Some(false),
            _ => None,
        })
    }
}

/// The paths of [`CommitReader::changed_paths`], by a `diff-tree` in the making.
pub(crate) async fn changed_paths(
    diff_tree: GitCommand<'_>,
    id: &CommitId,
) -> Result<Option<Vec<Vec<u8>>>, BrokerError> {
    let output = diff_tree
        .args(["-r", "-z", "--raw", "--no-abbrev", "--no-renames", "--no-commit-id", "--no-ext-diff"])
        .args(["--no-textconv", "--root", "-m", id.as_str(), "--"])
        .output_limit(256 * 1024 * 1024)
        .finish()
        .await?;
    if !output.status.success() {
        return Ok(None);
    }
    let found = changes::parse(&output.stdout).ok_or(BrokerError::GitUnexpected { command: "diff-tree" })?;
    Ok(Some(found.into_iter().map(|change| change.path).collect()))
}

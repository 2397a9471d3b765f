//! Attesting: before a change leaves quarantine, its commits are written again with two trailers and a signature.
//!
//! Promises: trees, authors, committers and the shape of the history stay; nothing of the base is touched; attesting
//! twice gives the same ids; the branch that the run pushed stays where it is, and the attested tip is kept under a ref
//! of its own, so that a kill in the middle leaves nothing but objects that nobody reaches.

mod commit;
mod message;

pub use commit::{Attestation, NotAttested, RawCommit, Vouched, attest, claims, read, verify};
pub use message::{RUN_TRAILER, WARRANT_TRAILER};

use crate::error::BrokerError;
use crate::provenance::changed_paths;
use crate::quarantine::Quarantine;
use std::collections::HashMap;
use std::time::Duration;
use tipstaff_model::{CommitId, RefName};

/// The most commits of one change that are attested.
pub const MOST_COMMITS: usize = 2_000;

/// The most bytes that the commits of one change have together, without their trees.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// How long one look at the commits may take.
const LOOK: Duration = Duration::from_secs(120);

/// A change whose commits are vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// The tip as the run pushed it.
    pub original: CommitId,
    /// The tip that leaves quarantine.
    pub tip: CommitId,
    /// How many commits were written again.
    pub commits: usize,
}

impl Quarantine {
    /// Attests what was pushed to `reference`; `None` when nothing was.
    ///
    /// # Errors
    /// [`BrokerError::CommitUnreadable`], [`BrokerError::ChangeTooLong`], or a failing git.
    pub async fn attest(
        &self,
        reference: &RefName,
        attestation: &Attestation<'_>,
    ) -> Result<Option<Attested>, BrokerError> {
        let Some(original) = self.tip(reference).await? else { return Ok(None) };
        let listed = self.new_commits(&original).await?;
        let kept = kept_at(&original);
        let there = self.command("rev-parse").args(["--verify", "--quiet", &kept]).finish().await?;
        if let Ok(tip) = there.text().parse() {
            return Ok(Some(Attested { original, tip, commits: listed.len() }));
        }
        let objects = self.commit_objects(&listed).await?;
        let mut written: HashMap<CommitId, CommitId> = HashMap::new();
        for (old, bytes) in listed.iter().zip(&objects) {
            let unreadable = || BrokerError::CommitUnreadable { commit: old.clone() };
            let raw = commit::read(bytes).ok_or_else(unreadable)?;
            // A parent outside the change belongs to the base's history and stays.
            let parents: Vec<CommitId> =
                raw.parents.iter().map(|parent| written.get(parent).unwrap_or(parent).clone()).collect();
            let new = self.write_commit(commit::attest(&raw, &parents, attestation)).await?;
            written.insert(old.clone(), new);
        }
        // A tip that the base has already is nobody's new work.
        let tip = written.get(&original).unwrap_or(&original).clone();
        let same = self
            .command("rev-parse")
            .args([format!("{original}^{{tree}}"), format!("{tip}^{{tree}}")])
            .run()
            .await?
            .text();
        if same.lines().next() != same.lines().nth(1) {
            return Err(BrokerError::GitUnexpected { command: "hash-object" });
        }
        self.command("update-ref").args([kept.as_str(), tip.as_str()]).run().await?;
        Ok(Some(Attested { original, tip, commits: listed.len() }))
    }

    /// Every path that any commit of the change changes, as the push was judged when it landed.
    ///
    /// # Errors
    /// [`BrokerError::ChangeTooLong`], or a failing git.
    pub async fn changed_paths(&self, tip: &CommitId) -> Result<Vec<Vec<u8>>, BrokerError> {
        let mut paths = Vec::new();
        for commit in self.new_commits(tip).await? {
            let changed = changed_paths(self.command("diff-tree"), &commit).await?;
            paths.extend(changed.ok_or(BrokerError::GitUnexpected { command: "diff-tree" })?);
        }
        paths.sort();
        paths.dedup();
        Ok(paths)
    }

    /// The commits that `tip` has and the base has not, parents first.
    async fn new_commits(&self, tip: &CommitId) -> Result<Vec<CommitId>, BrokerError> {
        let output = self
            .command("rev-list")
            .args(["--reverse", "--topo-order"])
            .args([tip.as_str(), &format!("^{}", self.base()), "--"])
            .timeout(LOOK)
            .run()
            .await?;
        let listed: Option<Vec<CommitId>> = output.text().lines().map(|line| line.parse().ok()).collect();
        let listed = listed.ok_or(BrokerError::GitUnexpected { command: "rev-list" })?;
        if listed.len() > MOST_COMMITS {
            return Err(BrokerError::ChangeTooLong { commits: listed.len(), limit: MOST_COMMITS });
        }
        Ok(listed)
    }

    /// The bytes of commits, in the order asked for.
    async fn commit_objects(&self, commits: &[CommitId]) -> Result<Vec<Vec<u8>>, BrokerError> {
        let wanted: String = commits.iter().map(|commit| format!("{commit}\n")).collect();
        let output = self
            .command("cat-file")
            .arg("--batch")
            .output_limit(MOST_BYTES)
            .timeout(LOOK)
            .run_with_input(wanted.into_bytes())
            .await?;
        let mut rest = output.stdout.as_slice();
        let mut objects = Vec::with_capacity(commits.len());
        for commit in commits {
            let unreadable = || BrokerError::CommitUnreadable { commit: commit.clone() };
            let end = rest.iter().position(|b| *b == b'\n').ok_or_else(unreadable)?;
            let head = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
            let length: usize = head
                .strip_prefix(&format!("{commit} commit "))
                .and_then(|length| length.parse().ok())
                .ok_or_else(unreadable)?;
            let body = rest.get(end + 1..end + 1 + length).ok_or_else(unreadable)?;
            objects.push(body.to_vec());
            rest = rest.get(end + length + 2..).unwrap_or_default();
        }
        Ok(objects)
    }

    /// Writes a commit; git checks its form again.
    async fn write_commit(&self, bytes: Vec<u8>) -> Result<CommitId, BrokerError> {
        let output =
            self.command("hash-object").args(["-t", "commit", "-w", "--stdin"]).run_with_input(bytes).await?;
        output.text().parse().map_err(|_| BrokerError::GitUnexpected { command: "hash-object" })
    }
}

/// Where the attested tip of what was pushed is kept.
fn kept_at(original: &CommitId) -> String {
    format!("refs/tipstaff/attested/{original}")
}

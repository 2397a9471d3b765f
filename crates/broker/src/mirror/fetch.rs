//! Asking a source what it has, and fetching what is missing.

use super::{Mirror, clip};
use crate::bitmap;
use crate::error::BrokerError;
use crate::source::Source;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use tipstaff_model::CommitId;

static INCOMING: AtomicU64 = AtomicU64::new(0);

/// What a source lists: `HEAD` and the refs that were asked about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Listing {
    /// The branch that `HEAD` names.
    pub(crate) head_branch: Option<String>,
    /// The commit of `HEAD`.
    pub(crate) head: Option<CommitId>,
    /// Refs and their ids.
    pub(crate) refs: Vec<(String, CommitId)>,
}

impl Mirror {
    /// Fetches what `name` means, by the listing, and gives its commit and branch.
    pub(super) async fn fetch_named(
        &self,
        name: &str,
        listing: &Listing,
    ) -> Result<(CommitId, Option<String>), BrokerError> {
        let given = || self.source.to_string();
        if name == "HEAD" {
            let Some(head) = &listing.head else { return Err(self.no_head().await) };
            let commit = self.fetch_one("HEAD", head, name).await?;
            return Ok((commit, listing.head_branch.clone()));
        }
        let short = name.strip_prefix("refs/heads/").unwrap_or(name);
        let candidates = [format!("refs/heads/{short}"), format!("refs/tags/{name}"), name.to_owned()];
        for candidate in candidates {
            let Some((reference, id)) = listing.refs.iter().find(|(found, _)| *found == candidate) else {
                continue;
            };
            let commit = self.fetch_one(reference, id, name).await?;
            return Ok((commit, reference.strip_prefix("refs/heads/").map(str::to_owned)));
        }
        if let Ok(id) = name.parse::<CommitId>() {
            // A server may refuse what is no tip; then everything is fetched and looked through.
            if let Ok(commit) = self.fetch_one(id.as_str(), &id, name).await {
                return Ok((commit, None));
            }
        }
        let hex = name.len() >= 7 && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        if hex {
            self.fetch_all().await?;
            if let Some(commit) = self.resolve(name).await? {
                return Ok((commit, None));
            }
        }
        Err(BrokerError::BaseNotFound {
            given: given(),
            base: clip(name),
            known: self.some_branches().await.unwrap_or_default(),
        })
    }

    /// Fetches one ref or id of the source and gives the commit behind it.
    async fn fetch_one(&self, reference: &str, id: &CommitId, asked: &str) -> Result<CommitId, BrokerError> {
        if self.is_pinned(id) {
            return Ok(id.clone());
        }
        let incoming =
            format!("refs/incoming/{}-{}", std::process::id(), INCOMING.fetch_add(1, Ordering::Relaxed));
        let doubt = self.doubt()?;
        if let Err(error) = self.fetch(None, &[format!("+{reference}:{incoming}")]).await {
            self.settle_unchanged(doubt)?;
            return Err(error);
        }
        let commit = self.resolve(&incoming).await;
        // Reached again through the pin, or of no use.
        let _ = self.command("update-ref").args(["-d", &incoming]).run().await;
        let commit = commit?.ok_or_else(|| BrokerError::BaseNotCommit {
            given: self.source.to_string(),
            base: clip(asked),
        })?;
        self.settle_tip(doubt, &commit).await?;
        Ok(commit)
    }

    async fn fetch_all(&self) -> Result<(), BrokerError> {
        // Never settled: from now on the mirror holds more than what was asked for.
        self.doubt()?;
        let refspecs = ["+refs/heads/*:refs/seen/heads/*", "+refs/tags/*:refs/seen/tags/*"];
        self.fetch(Some("--prune"), &refspecs.map(str::to_owned)).await
    }

    async fn fetch(&self, option: Option<&str>, refspecs: &[String]) -> Result<(), BrokerError> {
        let deepen = match &self.source {
            Source::Local(local) if self.is_shallow() && !local.is_shallow() => Some("--unshallow"),
            _ => None,
        };
        let outcome = self
            .source_command("fetch")
            .args([
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-recurse-submodules",
                "--no-auto-maintenance",
                "--no-show-forced-updates",
                "--update-shallow",
            ])
            .args(option)
            .args(deepen)
            .arg("--")
            .arg(self.source.fetch_argument())
            .args(refspecs)
            .file_limit(self.limits.fetch_bytes)
            .timeout(self.limits.fetch_time)
            .run()
            .await;
        match outcome {
            Ok(_) => Ok(()),
            // The system ends git at the bound; what it was writing tells why.
            Err(_) if self.sweep_unfinished() >= self.limits.fetch_bytes => {
                Err(BrokerError::SourceTooLarge {
                    given: self.source.to_string(),
                    limit: self.limits.fetch_bytes,
                })
            }
            Err(error) => Err(self.unreadable(error)),
        }
    }

    /// Asks the source for `HEAD` and for what `name` may mean.
    pub(crate) async fn list(&self, name: &str) -> Result<Listing, BrokerError> {
        let short = name.strip_prefix("refs/heads/").unwrap_or(name);
        let mut patterns = vec!["HEAD".to_owned()];
        if name != "HEAD" && is_plain_ref(name) {
            patterns.extend([format!("refs/heads/{short}"), format!("refs/tags/{name}")]);
            if name.starts_with("refs/") {
                patterns.push(name.to_owned());
            }
        }
        let output = self
            .source_command("ls-remote")
            .args(["--quiet", "--symref", "--"])
            .arg(self.source.fetch_argument())
            .args(&patterns)
            .run()
            .await
            .map_err(|error| self.unreadable(error))?;
        Ok(Listing::read(&output.stdout))
    }

    async fn some_branches(&self) -> Result<Vec<String>, BrokerError> {
        let output = self
            .source_command("ls-remote")
            .args(["--quiet", "--heads", "--"])
            .arg(self.source.fetch_argument())
            .run()
            .await?;
        let refs = Listing::read(&output.stdout).refs;
        Ok(refs.iter().filter_map(|(name, _)| name.strip_prefix("refs/heads/")).map(clip).take(10).collect())
    }

    /// Why the source has no `HEAD` commit.
    async fn no_head(&self) -> BrokerError {
        let given = self.source.to_string();
        let branch = match &self.source {
            Source::Local(local) => local.head_branch().unwrap_or_default(),
            Source::Remote(_) => String::new(),
        };
        match self.some_branches().await {
            Ok(known) if known.is_empty() => BrokerError::SourceEmpty { given },
            _ => BrokerError::SourceUnborn { given, branch: clip(&branch) },
        }
    }

    /// Removes what an ended fetch was writing; the size of the largest such file. We hold the lock, so nobody else is
    /// writing.
    fn sweep_unfinished(&self) -> u64 {
        let Ok(entries) = std::fs::read_dir(self.objects().join("pack")) else { return 0 };
        let mut largest = 0;
        for entry in entries.flatten() {
            let name = entry.file_name();
            // A bitmap is written without this lock.
            let bitmap = bitmap::is_unfinished(&name.to_string_lossy());
            if name.as_bytes().starts_with(b"tmp_") && !bitmap {
                largest = largest.max(entry.metadata().map_or(0, |meta| meta.len()));
                let _ = std::fs::remove_file(entry.path());
            }
        }
        largest
    }

    fn unreadable(&self, error: BrokerError) -> BrokerError {
        match error {
            BrokerError::GitFailed { message, .. } if message.contains("mismatched algorithms") => {
                BrokerError::SourceObjectFormat { given: self.source.to_string() }
            }
            BrokerError::GitFailed { message, .. } => {
                BrokerError::SourceUnreadable { given: self.source.to_string(), message }
            }
            other => other,
        }
    }
}

impl Listing {
    /// Reads the output of `ls-remote --symref`. Lines that are not understood are skipped.
    pub(crate) fn read(output: &[u8]) -> Self {
        let mut listing = Self::default();
        for line in output.split(|b| *b == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let Some((left, name)) = line.split_once('\t') else { continue };
            if let Some(target) = left.strip_prefix("ref: ") {
                if name == "HEAD" {
                    listing.head_branch = target.strip_prefix("refs/heads/").map(str::to_owned);
                }
            } else if let Ok(id) = left.parse::<CommitId>() {
                if name == "HEAD" {
                    listing.head = Some(id);
                } else {
                    listing.refs.push((name.to_owned(), id));
                }
            }
        }
        listing
    }
}

/// Whether the text can be a ref name, so that it is no pattern and no option.
fn is_plain_ref(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 250
        && !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.contains("..")
        && !name.contains("//")
        && !name.contains("@{")
        && !name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read_and_noise_is_skipped() {
        let id = "0123456789012345678901234567890123456789";
        let text =
            format!("ref: refs/heads/main\tHEAD\n{id}\tHEAD\n{id}\trefs/heads/main\nnoise\nx\ty\n\u{0}");
        let listing = Listing::read(text.as_bytes());
        assert_eq!(listing.head_branch.as_deref(), Some("main"));
        assert_eq!(listing.head.as_ref().map(CommitId::as_str), Some(id));
        assert_eq!(listing.refs.len(), 1);
    }

    #[test]
    fn patterns_and_options_are_no_refs() {
        for bad in ["", "-x", "*", "a*", "a b", "a..b", "x^{}", "a\n", "../x", "a:b", "[x]"] {
            assert!(!is_plain_ref(bad), "{bad:?}");
        }
        assert!(is_plain_ref("feature/größe-1"));
    }
}

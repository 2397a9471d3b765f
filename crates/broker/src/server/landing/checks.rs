//! The second half of a landing: what the held objects mean, asked of git and judged by the warrant.

use super::super::Shared;
use super::super::push::{Update, internal};
use super::hold::Held;
use crate::error::BrokerError;
use crate::git::GitCommand;
use crate::parse::changes::{self, Change, MODE_SUBMODULE};
use crate::quarantine::Quarantine;
use std::fs;
use tipstaff_model::{CommitId, Refusal, Rule, Warrant};

/// The checks of a push that is held.
pub(super) struct Checks<'a> {
    pub(super) shared: &'a Shared,
    pub(super) quarantine: &'a Quarantine,
    pub(super) held: &'a Held,
    pub(super) update: &'a Update,
}

impl Checks<'_> {
    fn refusal(&self, rule: Rule, why: impl AsRef<str>) -> Refusal {
        Refusal::new(rule, self.update.reference.as_str(), why)
    }

    fn failed(&self, error: &BrokerError) -> Refusal {
        match error {
            BrokerError::GitTimeout { .. } => {
                self.refusal(Rule::LimitReached, "checking the push took too long")
            }
            other => internal(&self.update.reference, other),
        }
    }

    /// A command that sees the held objects.
    fn command(&self, name: &'static str) -> GitCommand<'_> {
        self.quarantine
            .command(name)
            .environment("GIT_OBJECT_DIRECTORY", &self.held.path)
            .memory_limit(self.shared.config.bounds.check_memory)
            .timeout(self.shared.config.bounds.check_time)
    }

    /// No object may be larger, once inflated, than a file of the run: a small pack can hold huge ones.
    pub(super) async fn object_sizes(&self) -> Result<(), Refusal> {
        let limits = self.shared.warrant.warrant().limits;
        if self.held.objects == 0 {
            return Ok(());
        }
        // A line of each listing is shorter than this.
        let listing =
            usize::try_from(self.held.objects).unwrap_or(usize::MAX).saturating_mul(256).saturating_add(4096);
        let mut ids = Vec::new();
        let entries = fs::read_dir(self.held.path.join("pack"))
            .map_err(|source| self.failed(&BrokerError::state(&self.held.path, "read")(source)))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "idx") {
                let index = fs::read(&path)
                    .map_err(|source| self.failed(&BrokerError::state(&path, "read")(source)))?;
                let output = self
                    .command("show-index")
                    .output_limit(listing)
                    .run_with_input(index)
                    .await
                    .map_err(|error| self.failed(&error))?;
                for line in output.stdout.split(|b| *b == b'\n') {
                    if let Some(id) = line.split(|b| *b == b' ').nth(1) {
                        ids.extend_from_slice(id);
                        ids.push(b'\n');
                    }
                }
            }
        }
        let output = self
            .command("cat-file")
            .arg("--batch-check=%(objectsize)")
            .output_limit(listing)
            .run_with_input(ids)
            .await
            .map_err(|error| self.failed(&error))?;
        let mut sum = 0_u64;
        for size in output.stdout.split(|b| *b == b'\n').filter_map(|line| std::str::from_utf8(line).ok()) {
            let size: u64 = size.parse().unwrap_or(0);
            sum = sum.saturating_add(size);
            if size > limits.file_bytes || sum > limits.disk_bytes {
                return Err(self.refusal(
                    Rule::PushTooLarge,
                    format!(
                        "an object has more than {} bytes, or all of them more than {}",
                        limits.file_bytes, limits.disk_bytes
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The tip is a commit, its history is whole, and it descends from the base and from what was there.
    pub(super) async fn history(&self, tip: Option<&CommitId>) -> Result<(), Refusal> {
        let Update { old, new, .. } = self.update;
        if old.as_ref() != tip {
            let there = tip.map_or_else(|| "nothing".to_owned(), |tip| tip.short().to_owned());
            return Err(self.refusal(
                Rule::ForcePush,
                format!("the branch is at {there}, not where this push expects it: fetch first"),
            ));
        }
        let kind = self
            .command("cat-file")
            .args(["-t", new.as_str()])
            .finish()
            .await
            .map_err(|error| self.failed(&error))?;
        if kind.text() != "commit" {
            return Err(self.refusal(Rule::PushObjectCheck, format!("{} is not a commit", new.short())));
        }
        let mut input = format!("{new}\n^{}\n", self.quarantine.base());
        if let Some(tip) = tip {
            input.push_str(&format!("^{tip}\n"));
        }
        let whole = self
            .command("rev-list")
            .args(["--objects", "--stdin", "--quiet"])
            .finish_with_input(input.into_bytes())
            .await
            .map_err(|error| self.failed(&error))?;
        if !whole.status.success() {
            return Err(self.refusal(Rule::PushObjectCheck, "an object that the push needs is missing"));
        }
        if !self.descends(self.quarantine.base()).await? {
            return Err(self.refusal(
                Rule::BaseNotAncestor,
                format!("{} does not descend from the base {}", new.short(), self.quarantine.base().short()),
            ));
        }
        match tip {
            Some(tip) if !self.descends(tip).await? => Err(self.refusal(
                Rule::ForcePush,
                format!("{} does not descend from {}, which was pushed before", new.short(), tip.short()),
            )),
            _ => Ok(()),
        }
    }

    async fn descends(&self, ancestor: &CommitId) -> Result<bool, Refusal> {
        let output = self
            .command("merge-base")
            .args(["--is-ancestor", ancestor.as_str(), self.update.new.as_str()])
            .finish()
            .await
            .map_err(|error| self.failed(&error))?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(self.refusal(Rule::PushObjectCheck, "the history of the push can't be followed")),
        }
    }

    /// Every path that any new commit changes, and every path that differs from the base, is granted. Returns how many
    /// files differ from the base.
    pub(super) async fn paths(&self, tip: Option<&CommitId>) -> Result<usize, Refusal> {
        let warrant = self.shared.warrant.in_force()?;
        let new = self.update.new.as_str();
        let base = self.quarantine.base().as_str();
        let net = self.changes(&[base, new, "--"], Vec::new()).await?;
        let most = usize::try_from(warrant.limits.push_files).unwrap_or(usize::MAX);
        if net.len() > most {
            return Err(self.refusal(
                Rule::PushTooManyFiles,
                format!("{} files differ from the base; the warrant allows {most}", net.len()),
            ));
        }
        let mut range = vec![new.to_owned(), format!("^{base}")];
        range.extend(tip.map(|tip| format!("^{tip}")));
        let commits = self
            .command("rev-list")
            .args(&range)
            .arg("--")
            .run()
            .await
            .map_err(|error| self.failed(&error))?;
        // A merge is compared with each parent: what it took from one side is judged again, which does no harm.
        let each = self.changes(&["--stdin", "--root", "-m"], commits.stdout).await?;
        for change in net.iter().chain(&each) {
            self.permits(&warrant, change)?;
        }
        Ok(net.len())
    }

    fn permits(&self, warrant: &Warrant, change: &Change) -> Result<(), Refusal> {
        warrant.permits_path_write(&change.path)?;
        let submodule = change.new_mode == MODE_SUBMODULE || change.old_mode == MODE_SUBMODULE;
        if submodule && !warrant.tools.submodules {
            let path = String::from_utf8_lossy(&change.path);
            return Err(Refusal::new(
                Rule::PathNotGranted,
                &path,
                format!("{path} is a submodule, and the warrant grants none"),
            ));
        }
        Ok(())
    }

    async fn changes(&self, arguments: &[&str], input: Vec<u8>) -> Result<Vec<Change>, Refusal> {
        let output = self
            .command("diff-tree")
            .args(["-r", "-z", "--raw", "--no-abbrev", "--no-renames", "--no-commit-id"])
            .args(["--no-ext-diff", "--no-textconv"])
            .args(arguments)
            .output_limit(256 * 1024 * 1024)
            .run_with_input(input)
            .await
            .map_err(|error| match error {
                BrokerError::GitOutput { .. } => {
                    self.refusal(Rule::PushTooManyFiles, "more files change than can be listed")
                }
                other => self.failed(&other),
            })?;
        changes::parse(&output.stdout)
            .ok_or_else(|| self.failed(&BrokerError::GitUnexpected { command: "diff-tree" }))
    }
}

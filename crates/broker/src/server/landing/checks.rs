//! The second half of a landing: what the held objects mean, asked of git and judged by the warrant.

use super::super::Shared;
use super::super::push::{Update, internal};
use super::arrivals::Inventory;
use super::hold::Held;
use crate::error::BrokerError;
use crate::git::GitCommand;
use crate::pack::{ObjectId, ObjectKind};
use crate::parse::changes::{self, Change, MODE_SUBMODULE};
use crate::parse::names;
use crate::quarantine::Quarantine;
use std::collections::HashSet;
use tipstaff_model::{CommitId, Refusal, Rule, Warrant};

/// Bytes of the list of what all commits of a push change.
const LARGEST_LIST: usize = 64 * 1024 * 1024;

/// What a push changes.
#[derive(Debug)]
pub(super) struct Changes {
    /// Between the base and the new tip.
    pub(super) net: Vec<Change>,
    /// Commit by commit.
    each: Vec<Change>,
}

impl Changes {
    /// All of them; the same one may come more than once.
    pub(super) fn all(&self) -> impl Iterator<Item = &Change> {
        self.net.iter().chain(&self.each)
    }
}

/// The checks of a push that is held.
pub(super) struct Checks<'a> {
    pub(super) shared: &'a Shared,
    pub(super) quarantine: &'a Quarantine,
    pub(super) held: &'a Held,
    pub(super) update: &'a Update,
}

impl Checks<'_> {
    pub(super) fn refusal(&self, rule: Rule, why: impl AsRef<str>) -> Refusal {
        Refusal::new(rule, self.update.reference.as_str(), why)
    }

    pub(super) fn failed(&self, error: &BrokerError) -> Refusal {
        match error {
            BrokerError::GitTimeout { .. } => {
                self.refusal(Rule::LimitReached, "checking the push took too long")
            }
            other => internal(&self.update.reference, other),
        }
    }

    /// A command that sees the held objects.
    pub(super) fn command(&self, name: &'static str) -> GitCommand<'_> {
        self.quarantine
            .command(name)
            .environment("GIT_OBJECT_DIRECTORY", &self.held.path)
            .memory_limit(self.shared.config.bounds.check_memory)
            .timeout(self.shared.config.bounds.check_time)
    }

    /// The tip is a commit, its history is whole, and it descends from the base and from what was there.
    pub(super) async fn history(&self, tip: Option<&CommitId>, inventory: &Inventory) -> Result<(), Refusal> {
        let Update { old, new, .. } = self.update;
        if old.as_ref() != tip {
            let there = tip.map_or_else(|| "nothing".to_owned(), |tip| tip.short().to_owned());
            return Err(self.refusal(
                Rule::ForcePush,
                format!("the branch is at {there}, not where this push expects it: fetch first"),
            ));
        }
        let came = inventory
            .objects
            .iter()
            .find(|object| ObjectId::from_hex(new.as_str().as_bytes()) == Some(object.id));
        let is_commit = match came {
            Some(object) => object.kind == ObjectKind::Commit,
            None => {
                let kind = self.command("cat-file").args(["-t", new.as_str()]).finish().await;
                kind.map_err(|error| self.failed(&error))?.text() == "commit"
            }
        };
        if !is_commit {
            return Err(self.refusal(Rule::PushObjectCheck, format!("{} is not a commit", new.short())));
        }
        let whole = self
            .command("rev-list")
            .args(["--objects", "--no-object-names", "--stdin"])
            .output_limit(LARGEST_LIST)
            .finish_with_input(self.range(tip))
            .await
            .map_err(|error| self.failed(&error))?;
        if !whole.status.success() {
            return Err(self.refusal(Rule::PushObjectCheck, "an object that the push needs is missing"));
        }
        self.nothing_besides(inventory, &whole.stdout).await?;
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

    /// The commits that are new, as `rev-list --stdin` takes them.
    fn range(&self, tip: Option<&CommitId>) -> Vec<u8> {
        let mut input = format!("{}\n^{}\n", self.update.new, self.quarantine.base());
        if let Some(tip) = tip {
            input.push_str(&format!("^{tip}\n"));
        }
        input.into_bytes()
    }

    /// Nothing came that the branch does not lead to: what nobody judges now, nobody can name later.
    async fn nothing_besides(&self, inventory: &Inventory, listed: &[u8]) -> Result<(), Refusal> {
        let mut besides: HashSet<ObjectId> = inventory.ids.clone();
        for id in listed.split(|byte| *byte == b'\n').filter_map(ObjectId::from_hex) {
            besides.remove(&id);
        }
        if besides.is_empty() {
            return Ok(());
        }
        // A client that knew less of what is here sends some of it again.
        let input: String = besides.iter().map(|id| format!("{id}\n")).collect();
        let output = self
            .quarantine
            .command("cat-file")
            .args(["--batch-check=%(objectname)", "--buffer"])
            .timeout(self.shared.config.bounds.check_time)
            .run_with_input(input.into_bytes())
            .await
            .map_err(|error| self.failed(&error))?;
        match output.text().lines().filter(|line| line.ends_with(" missing")).count() {
            0 => Ok(()),
            count => Err(self.refusal(
                Rule::PushObjectCheck,
                format!("{count} objects came that the branch does not lead to"),
            )),
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

    /// The commits that are new, one id a line.
    pub(super) async fn commits(&self, tip: Option<&CommitId>) -> Result<Vec<u8>, Refusal> {
        let output = self.command("rev-list").arg("--stdin").run_with_input(self.range(tip)).await;
        Ok(output.map_err(|error| self.failed(&error))?.stdout)
    }

    /// Every path that any new commit changes, and every path that differs from the base, is granted.
    pub(super) async fn paths(&self, commits: &[u8]) -> Result<Changes, Refusal> {
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
        // A merge is compared with each parent: what it took from one side is judged again, which does no harm.
        let each = self.changes(&["--stdin", "--root", "-m"], commits.to_vec()).await?;
        let changes = Changes { net, each };
        for change in changes.all() {
            self.permits(&warrant, change)?;
        }
        Ok(changes)
    }

    fn permits(&self, warrant: &Warrant, change: &Change) -> Result<(), Refusal> {
        warrant.permits_path_write(&change.path)?;
        if change.path.len() > names::LONGEST_PATH {
            let why = format!("a path has more than {} bytes", names::LONGEST_PATH);
            return Err(self.refusal(Rule::PathDangerous, why));
        }
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
            .output_limit(LARGEST_LIST)
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

    /// Every new commit is the run's own, and says nothing secret.
    pub(super) fn own_commits(
        &self,
        faults: &[(ObjectId, Rule, String)],
        commits: &[u8],
    ) -> Result<(), Refusal> {
        if faults.is_empty() {
            return Ok(());
        }
        let new: HashSet<ObjectId> =
            commits.split(|byte| *byte == b'\n').filter_map(ObjectId::from_hex).collect();
        match faults.iter().find(|(id, ..)| new.contains(id)) {
            Some((id, rule, why)) => {
                let id = id.to_string();
                let short = id.get(..8).unwrap_or_default();
                Err(Refusal::new(*rule, format!("commit {short}"), format!("commit {short}: {why}")))
            }
            None => Ok(()),
        }
    }
}

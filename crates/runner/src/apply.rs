//! Bringing a run's change into a person's repository, on request only.
//!
//! The repository is the person's own; what comes in is an agent's. So no hook, filter, merge driver or file system
//! monitor takes part, even where the person's configuration names one: such a setting may point into the tree, where
//! the agent's version of the program would lie by then.

use crate::RunnerError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tipstaff_broker::git::GitCommand;
use tipstaff_broker::{BrokerError, Git, LocalSource, Quarantine, Source};
use tipstaff_model::{CommitId, RefName};

/// Who is named in a merge commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Name.
    pub name: String,
    /// Address.
    pub email: String,
}

/// What applying did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// A merge commit, on the branch that is checked out.
    Merged(CommitId),
    /// A branch; no work tree was touched.
    Branch(RefName),
    /// The change was there already.
    AlreadyThere,
}

/// Why a change could not be brought in. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The two sides changed the same places.
    #[error("the change conflicts with what is checked out, in: {}; merge it by hand from a branch: `tipstaff runs apply --branch`", .0.join(", "))]
    Conflict(Vec<String>),
    /// Files that the merge would replace hold work that is not committed.
    #[error(
        "files that the merge would replace hold work that is not committed ({0}); commit or stash it, or bring the change in beside it: `tipstaff runs apply --branch`"
    )]
    WouldOverwrite(String),
    /// There is no work tree, or nothing is checked out.
    #[error("{0} has nothing checked out to merge into; make a branch: `tipstaff runs apply --branch`")]
    NoWorkTree(PathBuf),
    /// The histories have nothing in common.
    #[error(
        "{0} does not hold the history that the run was based on; choose the right repository with --repo"
    )]
    Unrelated(PathBuf),
    /// There is a branch of that name with other content.
    #[error("the branch {0} exists already and holds something else; choose another name with --branch NAME")]
    BranchTaken(String),
    /// Git or the disk failed.
    #[error(transparent)]
    Runner(#[from] RunnerError),
}

impl From<BrokerError> for ApplyError {
    fn from(error: BrokerError) -> Self {
        Self::Runner(error.into())
    }
}

impl ApplyError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Conflict(_) => "apply-conflict",
            Self::WouldOverwrite(_) => "apply-would-overwrite",
            Self::NoWorkTree(_) => "apply-no-work-tree",
            Self::Unrelated(_) => "apply-unrelated",
            Self::BranchTaken(_) => "apply-branch-taken",
            Self::Runner(error) => error.code(),
        }
    }
}

/// A person's repository, handled with everything switched off that it may run.
struct Target<'a> {
    applier: &'a Applier,
    source: &'a LocalSource,
    /// Settings that switch filters and drivers off.
    off: Vec<(String, &'static str)>,
}

impl<'a> Target<'a> {
    async fn open(applier: &'a Applier, source: &'a LocalSource) -> Result<Self, ApplyError> {
        let mut target = Self { applier, source, off: Vec::new() };
        let listed = target.git("config").args(["--list", "--includes", "--name-only", "-z"]).run().await?;
        for key in listed.stdout.split(|b| *b == 0) {
            let key = String::from_utf8_lossy(key);
            let Some((front, last)) = key.rsplit_once('.') else { continue };
            if front.starts_with("filter.") {
                for (name, value) in [("smudge", ""), ("clean", ""), ("process", ""), ("required", "false")] {
                    target.off.push((format!("{front}.{name}"), value));
                }
            } else if front.starts_with("merge.") && last == "driver" {
                // A driver that fails leaves a conflict; one that is missing would end git.
                target.off.push((key.into_owned(), "false"));
            } else if front.starts_with("diff.") && matches!(last, "textconv" | "command") {
                target.off.push((key.into_owned(), ""));
            }
        }
        target.off.dedup();
        Ok(target)
    }

    fn git(&self, name: &'static str) -> GitCommand<'a> {
        let mut command = self.applier.git.command(name).git_dir(&self.source.git_dir).reading_source([
            self.source.root.clone(),
            self.source.git_dir.clone(),
            self.source.common_dir.clone(),
        ]);
        if !self.source.bare {
            command = command.work_tree(&self.source.root);
        }
        for (key, value) in &self.off {
            command = command.config(key.clone(), value);
        }
        command.environment("GIT_OPTIONAL_LOCKS", "1")
    }

    async fn commit(&self, name: &str) -> Result<Option<CommitId>, ApplyError> {
        let output =
            self.git("rev-parse").args(["--verify", "--quiet"]).arg(format!("{name}^{{commit}}")).finish();
        Ok(output.await?.text().parse().ok())
    }
}

/// Brings changes into repositories.
#[derive(Debug, Clone)]
pub struct Applier {
    git: Arc<Git>,
}

impl Applier {
    /// With our git.
    #[must_use]
    pub const fn new(git: Arc<Git>) -> Self {
        Self { git }
    }

    /// Brings the commit `tip` of a quarantine into `target` as the new branch `branch`.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing was changed then.
    pub async fn branch(
        &self,
        quarantine: &Quarantine,
        tip: &CommitId,
        target: &Source,
        branch: &RefName,
    ) -> Result<Applied, ApplyError> {
        let Source::Local(local) = target else {
            return Err(ApplyError::NoWorkTree(PathBuf::from(target.to_string())));
        };
        let there = Target::open(self, local).await?.commit(branch.as_str()).await?;
        match there {
            Some(commit) if commit == *tip => Ok(Applied::AlreadyThere),
            Some(_) => Err(ApplyError::BranchTaken(branch.short().to_owned())),
            None => {
                quarantine.export(target, tip, branch).await?;
                Ok(Applied::Branch(branch.clone()))
            }
        }
    }

    /// Merges the commit `tip` of a quarantine into what is checked out in `target`, always with a merge commit.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing was changed then.
    pub async fn merge(
        &self,
        quarantine: &Quarantine,
        tip: &CommitId,
        target: &Source,
        person: &Person,
        message: &str,
    ) -> Result<Applied, ApplyError> {
        let Source::Local(local) = target else {
            return Err(ApplyError::NoWorkTree(PathBuf::from(target.to_string())));
        };
        let repository = Target::open(self, local).await?;
        let head = repository.commit("HEAD").await?;
        let (false, Some(head)) = (local.bare, head) else {
            return Err(ApplyError::NoWorkTree(local.root.clone()));
        };
        // The objects come in under a branch that is gone again when this returns.
        let passing = RefName::branch(&format!("tipstaff-applying-{}", tip.short())).map_err(|error| {
            RunnerError::Io { action: "naming a branch", source: std::io::Error::other(error) }
        })?;
        quarantine.export(target, tip, &passing).await?;
        let merged = self.merge_into(&repository, local, &head, tip, person, message).await;
        repository.git("update-ref").args(["-d", passing.as_str()]).run().await?;
        merged
    }

    async fn merge_into(
        &self,
        repository: &Target<'_>,
        local: &LocalSource,
        head: &CommitId,
        tip: &CommitId,
        person: &Person,
        message: &str,
    ) -> Result<Applied, ApplyError> {
        let related = repository.git("merge-base").args([head.as_str(), tip.as_str()]).finish().await?;
        let base = related.text();
        if base.is_empty() {
            return Err(ApplyError::Unrelated(local.root.clone()));
        }
        if base == tip.as_str() {
            return Ok(Applied::AlreadyThere);
        }
        let output = repository
            .git("merge-tree")
            .args(["--write-tree", "--name-only", "--no-messages", "-z", head.as_str(), tip.as_str()])
            .finish()
            .await?;
        let mut parts =
            output.stdout.split(|b| *b == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        let tree = parts.next().unwrap_or_default();
        if !output.status.success() {
            let mut files: Vec<String> = parts.filter(|name| !name.is_empty()).collect();
            files.dedup();
            return Err(ApplyError::Conflict(files));
        }
        let commit = repository
            .git("commit-tree")
            .args([tree.as_str(), "-p", head.as_str(), "-p", tip.as_str(), "-m", message])
            .environment("GIT_AUTHOR_NAME", &person.name)
            .environment("GIT_AUTHOR_EMAIL", &person.email)
            .environment("GIT_COMMITTER_NAME", &person.name)
            .environment("GIT_COMMITTER_EMAIL", &person.email)
            .run()
            .await?;
        let merge: CommitId =
            commit.text().parse().map_err(|_| BrokerError::GitUnexpected { command: "commit-tree" })?;
        // Refreshing writes the index only; it tells real changes from files that merely have another time.
        let _stale_entries_are_fine =
            repository.git("update-index").args(["-q", "--refresh"]).finish().await?;
        let switched = repository
            .git("read-tree")
            .args(["-m", "-u", "--no-recurse-submodules", head.as_str(), merge.as_str()])
            .finish()
            .await?;
        if !switched.status.success() {
            return Err(ApplyError::WouldOverwrite(one_line(&switched.stderr)));
        }
        repository
            .git("update-ref")
            .args(["-m", "tipstaff runs apply", "HEAD", merge.as_str(), head.as_str()])
            .run()
            .await?;
        Ok(Applied::Merged(merge))
    }

    /// Whom a merge commit in `target` names: as the repository's own configuration says, else the person's.
    ///
    /// # Errors
    /// When git can't be run.
    pub async fn person(
        &self,
        target: &LocalSource,
        home: Option<&Path>,
        login: &str,
    ) -> Result<Person, ApplyError> {
        let repository = Target::open(self, target).await?;
        let files: Vec<PathBuf> = home
            .map(|home| vec![home.join(".gitconfig"), home.join(".config/git/config")])
            .unwrap_or_default();
        let mut found = [None, None];
        for (slot, key) in found.iter_mut().zip(["user.name", "user.email"]) {
            let own = repository.git("config").args(["--local", "--includes", "--get", key]).finish().await?;
            *slot = Some(own.text()).filter(|text| !text.is_empty());
            for file in files.iter().filter(|file| file.is_file()) {
                if slot.is_none() {
                    let output = repository
                        .git("config")
                        .args(["--includes", "--file"])
                        .arg(file)
                        .args(["--get", key])
                        .finish()
                        .await?;
                    *slot = Some(output.text()).filter(|text| !text.is_empty());
                }
            }
        }
        let [name, email] = found;
        Ok(Person {
            name: name.unwrap_or_else(|| login.to_owned()),
            email: email.unwrap_or_else(|| format!("{login}@localhost")),
        })
    }
}

fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
        .chars()
        .take(300)
        .collect()
}

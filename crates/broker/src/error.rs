//! The one error type of this crate's edge.
//!
//! Refusals of an agent's requests are not errors; they are [`tipstaff_model::Refusal`]s and travel on their own.

use std::io;
use std::path::PathBuf;

/// Something that kept the broker, a mirror, a checkout or a quarantine from working.
///
/// The text says what happened, why, and what to do next. It names paths of the person's own machine and never a
/// credential. [`BrokerError::code`] is stable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// No git program was found.
    #[error("git was not found in {searched}: install it (Debian: apt-get install git)")]
    GitMissing {
        /// The directories that were looked through.
        searched: String,
    },
    /// The program is not a git that we know.
    #[error("{} does not answer like git: check the program, or install Debian's git", program.display())]
    GitUnknown {
        /// The program that was asked.
        program: PathBuf,
    },
    /// The git is too old to be run safely.
    #[error(
        "git {found} is too old: at least {} is needed, 2.50.1 or a fixed release is wanted",
        crate::git::GitVersion::OLDEST
    )]
    GitTooOld {
        /// What was found.
        found: crate::git::GitVersion,
    },
    /// The git program could not be started.
    #[error("{} could not be started: check that it may be executed", program.display())]
    GitSpawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A git command failed.
    #[error("git {command} failed ({status}): {message}")]
    GitFailed {
        /// The subcommand.
        command: &'static str,
        /// `exit code 128`, `signal 9`.
        status: String,
        /// What git said, cleaned and cut.
        message: String,
    },
    /// A git command took too long.
    #[error("git {command} was ended after {seconds} s: the repository is too large or its source too slow")]
    GitTimeout {
        /// The subcommand.
        command: &'static str,
        /// The bound.
        seconds: u64,
    },
    /// A git command printed more than its bound.
    #[error(
        "git {command} printed more than {limit} bytes and was ended: the repository is larger than we handle"
    )]
    GitOutput {
        /// The subcommand.
        command: &'static str,
        /// The bound in bytes.
        limit: usize,
    },
    /// A file or folder of our own state could not be used.
    #[error("{} cannot be {doing}: check that the disk has room and that the folder is yours", path.display())]
    State {
        /// The file or folder.
        path: PathBuf,
        /// `read`, `written`, `created`, `removed`, `locked`.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Another process held a lock for too long.
    #[error("{} is in use by another process for longer than {seconds} s: wait for its run, or end it", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long we waited.
        seconds: u64,
    },
    /// A path that cannot be handed to git without a second meaning.
    #[error("{} holds a line break: git's own files cannot name it; move the folder", path.display())]
    PathUnusable {
        /// The path.
        path: PathBuf,
    },
    /// The source's kind is not served.
    #[error(
        "'{given}' cannot be used as a repository: {why}; give a folder, a file:// URL or an https:// URL"
    )]
    SourceUnsupported {
        /// What was given, without user information.
        given: String,
        /// Why.
        why: &'static str,
    },
    /// The source does not exist.
    #[error("{} does not exist: check the path", path.display())]
    SourceMissing {
        /// The path.
        path: PathBuf,
    },
    /// The folder is not in a repository.
    #[error("{} is not in a git repository: run `git init` there and commit, or name another folder with --repo", path.display())]
    NotARepository {
        /// The path.
        path: PathBuf,
    },
    /// The source could not be read by git.
    #[error("the repository {given} cannot be read: {message}")]
    SourceUnreadable {
        /// The source.
        given: String,
        /// What git said.
        message: String,
    },
    /// The source uses object names that we do not handle.
    #[error("{given} uses SHA-256 object names: only SHA-1 repositories are handled yet")]
    SourceObjectFormat {
        /// The source.
        given: String,
    },
    /// The source has no commit at all.
    #[error("{given} has no commit yet: make a first one (`git commit`), a run starts from a commit")]
    SourceEmpty {
        /// The source.
        given: String,
    },
    /// The branch that is checked out has no commit, while others have.
    #[error(
        "the branch '{branch}' of {given} has no commit yet: commit to it, or name another base with --base"
    )]
    SourceUnborn {
        /// The source.
        given: String,
        /// The branch without a commit; empty when the server does not say.
        branch: String,
    },
    /// The wanted base is not there.
    #[error("'{base}' is neither a branch, a tag nor a commit of {given}{}", known_list(known))]
    BaseNotFound {
        /// The source.
        given: String,
        /// What was asked for.
        base: String,
        /// Some branches that are there.
        known: Vec<String>,
    },
    /// The wanted base is no commit.
    #[error("'{base}' of {given} is not a commit: name a branch, a tag or a commit")]
    BaseNotCommit {
        /// The source.
        given: String,
        /// What was asked for.
        base: String,
    },
    /// The source is larger than the bound.
    #[error("{given} has more than {limit} bytes to fetch: raise the bound, or use a smaller repository")]
    SourceTooLarge {
        /// The source.
        given: String,
        /// The bound in bytes.
        limit: u64,
    },
    /// A commit's tree is larger than the bound.
    #[error(
        "the tree of {commit} has more than {limit} {what}: raise the bound, or use a smaller repository"
    )]
    TreeTooLarge {
        /// The commit.
        commit: tipstaff_model::CommitId,
        /// `files` or `bytes`.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The destination exists.
    #[error("{} exists already: a workspace is only made in a new folder", path.display())]
    DestinationExists {
        /// The path.
        path: PathBuf,
    },
    /// A commit that is to be attested has not the form of one.
    #[error(
        "commit {commit} can't be read as git writes commits: look at the change with `tipstaff runs diff`, and commit it anew"
    )]
    CommitUnreadable {
        /// The commit.
        commit: tipstaff_model::CommitId,
    },
    /// A change has more commits than are attested.
    #[error(
        "the change has {commits} commits, and at most {limit} are signed one by one: take it as a patch with `tipstaff runs diff`"
    )]
    ChangeTooLong {
        /// How many there are.
        commits: usize,
        /// The bound.
        limit: usize,
    },
    /// git printed something that we cannot read.
    #[error("git {command} printed something unexpected: report this with git's version")]
    GitUnexpected {
        /// The subcommand.
        command: &'static str,
    },
    /// The listener of the sandbox could not be used.
    #[error("the sandbox's listener cannot be served: start the run again")]
    Listener(#[source] io::Error),
}

fn known_list(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!("; it has {}", known.join(", ")) }
}

impl BrokerError {
    /// The stable word for this kind of error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::GitMissing { .. } => "git-missing",
            Self::GitUnknown { .. } => "git-unknown",
            Self::GitTooOld { .. } => "git-too-old",
            Self::GitSpawn { .. } => "git-spawn",
            Self::GitFailed { .. } => "git-failed",
            Self::GitTimeout { .. } => "git-timeout",
            Self::GitOutput { .. } => "git-output",
            Self::State { .. } => "state-unusable",
            Self::Locked { .. } => "state-locked",
            Self::PathUnusable { .. } => "path-unusable",
            Self::SourceUnsupported { .. } => "source-unsupported",
            Self::SourceMissing { .. } => "source-missing",
            Self::NotARepository { .. } => "not-a-repository",
            Self::SourceUnreadable { .. } => "source-unreadable",
            Self::SourceObjectFormat { .. } => "source-object-format",
            Self::SourceEmpty { .. } => "source-empty",
            Self::SourceUnborn { .. } => "source-unborn",
            Self::BaseNotFound { .. } => "base-not-found",
            Self::BaseNotCommit { .. } => "base-not-commit",
            Self::SourceTooLarge { .. } => "source-too-large",
            Self::TreeTooLarge { .. } => "tree-too-large",
            Self::DestinationExists { .. } => "destination-exists",
            Self::CommitUnreadable { .. } => "commit-unreadable",
            Self::ChangeTooLong { .. } => "change-too-long",
            Self::GitUnexpected { .. } => "git-unexpected",
            Self::Listener(_) => "listener-unusable",
        }
    }

    pub(crate) fn state(path: impl Into<PathBuf>, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::State { path, doing, source }
    }
}

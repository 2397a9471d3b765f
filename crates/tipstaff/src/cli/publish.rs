//! The part of the command line about what leaves quarantine.

use super::RunChoice;
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// `tipstaff runs publish`
#[derive(Debug, Args)]
#[command(after_help = "\
The run's commits are written again with the trailers Tipstaff-Run and Tipstaff-Warrant and signed with the org's key; \
trees and authors stay. A new branch is made upstream and nothing else: no branch is moved, forced or deleted. Publishing \
again does no harm, also after a crash.

Examples:
  tipstaff secrets set --git github.com < token          the credential; no run ever sees it
  tipstaff runs publish --dry-run
  tipstaff runs publish 0a1b2c3d --branch agent/fix-login
  tipstaff runs publish --to https://git.example.com/team/site.git")]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    pub(crate) run: RunChoice,
    /// To this repository: an https URL (http on loopback), or a path [default: the one the run was made from]
    #[arg(long, value_name = "URL")]
    pub(crate) to: Option<OsString>,
    /// As this branch, below agent/ [default: the warrant's branch]
    #[arg(long, value_name = "NAME")]
    pub(crate) branch: Option<String>,
    /// Also when the run did not end well, or its verification failed
    #[arg(long)]
    pub(crate) unverified: bool,
    /// Say what would be pushed where; push nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `tipstaff provenance …`
#[derive(Debug, Subcommand)]
pub(crate) enum ProvenanceCommand {
    /// Check that a commit came out of quarantine as it is: signature, warrant, audit log and paths
    #[command(after_help = "\
The exit code is 0 when everything that was checked holds, 1 when something does not.

Examples:
  tipstaff provenance verify HEAD
  tipstaff provenance verify 4f1d22e --repo ~/code/site --json
  tipstaff provenance verify HEAD --export audit.jsonl    nothing but the repository and the export")]
    Verify {
        /// A commit id, a branch or a tag
        commit: String,
        /// The repository that it is in
        #[arg(long, value_name = "PATH", default_value = ".")]
        repo: OsString,
        /// Check against an audit export instead of the database; needs no database at all
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
        /// The log's public key, for --export [default: the file FILE.key beside the export]
        #[arg(long, value_name = "VKEY", requires = "export")]
        key: Option<String>,
        /// The signed warrant as `tipstaff warrants show --json` printed it, for --export: its paths are checked then
        #[arg(long, value_name = "FILE", requires = "export")]
        warrant: Option<PathBuf>,
    },
    /// What a commit says about itself, and whether its signature is over it; asks nobody else
    Show {
        /// A commit id, a branch or a tag
        commit: String,
        /// The repository that it is in
        #[arg(long, value_name = "PATH", default_value = ".")]
        repo: OsString,
    },
    /// The org's keys as an allowed_signers file, so that git verifies by itself
    #[command(after_help = "\
Examples:
  tipstaff provenance signers > .git/allowed_signers
  git -c gpg.ssh.allowedSignersFile=.git/allowed_signers verify-commit HEAD")]
    Signers,
}

impl ProvenanceCommand {
    /// Whether it needs no database.
    pub(crate) const fn is_offline(&self) -> bool {
        matches!(self, Self::Verify { export: Some(_), .. } | Self::Show { .. })
    }
}

//! The few files that differ from run to run on top of a warm checkout.
//!
//! Promises: whoever lays these over a checkout of the same commit has a repository on the run's branch whose only
//! remote is the broker. There is no credential in them, no hook, and nothing that runs.

use crate::error::BrokerError;
use crate::git::settings::quoted;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tipstaff_model::{CommitId, RefName, RepositoryName};

/// Where a sandbox finds the broker.
pub const BROKER_URL: &str = "http://127.0.0.1:8080";

/// What a run's repository looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRepository {
    /// The name in the remote's URL.
    pub name: RepositoryName,
    /// The pinned commit.
    pub commit: CommitId,
    /// The base's branch, without `refs/heads/`, when it has one.
    pub base_branch: Option<String>,
    /// The branch to be on: the warrant's ref. Without one the head stays detached.
    pub branch: Option<RefName>,
    /// Author and committer: name.
    pub user_name: String,
    /// Author and committer: address.
    pub user_email: String,
}

/// Files to write into the upper layer before the sandbox starts, relative to the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFiles {
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl RunFiles {
    /// The files of a run.
    #[must_use]
    pub fn new(repository: &RunRepository) -> Self {
        let commit = &repository.commit;
        let mut files = vec![(PathBuf::from(".git/config"), run_config(repository))];
        let mut packed = String::from("# pack-refs with: peeled fully-peeled sorted \n");
        // git lists refs in byte order here: heads before remotes.
        match &repository.branch {
            Some(branch) => {
                files.push((PathBuf::from(".git/HEAD"), format!("ref: {branch}\n").into_bytes()));
                packed.push_str(&format!("{commit} {branch}\n"));
            }
            None => files.push((PathBuf::from(".git/HEAD"), format!("{commit}\n").into_bytes())),
        }
        if let Some(base) = base_ref(repository) {
            packed.push_str(&format!("{commit} refs/remotes/origin/{}\n", base.short()));
        }
        files.push((PathBuf::from(".git/packed-refs"), packed.into_bytes()));
        Self { files }
    }

    /// The files: path relative to the workspace, content.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.files.iter().map(|(path, content)| (path.as_path(), content.as_slice()))
    }

    /// Writes the files below `directory`: an overlay's upper layer that nothing has mounted yet, or a fresh clone.
    /// Returns nothing to own: a caller that runs as root gives `.git` and these files to the run's user afterwards.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn write_into(&self, directory: &Path) -> Result<(), BrokerError> {
        for (path, content) in self.iter() {
            let path = directory.join(path);
            let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            made.and_then(|()| std::fs::write(&path, content))
                .map_err(BrokerError::state(path, "written"))?;
        }
        Ok(())
    }
}

/// The address of a repository inside the sandbox.
#[must_use]
pub fn remote_url(name: &RepositoryName) -> String {
    format!("{BROKER_URL}/git/{name}.git")
}

/// A branch name that we can write into a file of refs; one of another form is left out.
fn base_ref(repository: &RunRepository) -> Option<RefName> {
    RefName::branch(repository.base_branch.as_deref()?).ok()
}

/// The settings of every workspace. Comparing files by size and whole seconds only: user ids and inode numbers are
/// seen differently inside a sandbox, and git would read every file again.
pub(crate) fn base_config() -> String {
    "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n\
     \tcheckStat = minimal\n\ttrustctime = false\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n\
     [submodule]\n\trecurse = false\n"
        .to_owned()
}

fn run_config(repository: &RunRepository) -> Vec<u8> {
    let mut text = base_config().into_bytes();
    let mut line = |section: &str, entries: &[(&str, &str)]| {
        text.extend_from_slice(format!("[{section}]\n").as_bytes());
        for (name, value) in entries {
            text.extend_from_slice(format!("\t{name} = ").as_bytes());
            text.extend_from_slice(quoted(OsStr::new(value)).as_bytes());
            text.push(b'\n');
        }
    };
    let url = remote_url(&repository.name);
    let mut remote = vec![("url", url.as_str()), ("tagOpt", "--no-tags")];
    let fetch = base_ref(repository).map(|base| format!("+{base}:refs/remotes/origin/{}", base.short()));
    if let Some(fetch) = &fetch {
        remote.push(("fetch", fetch));
    }
    line("remote \"origin\"", &remote);
    // The broker answers here itself; a proxy setting of the sandbox must not send git to it in a circle.
    line(&format!("http \"{BROKER_URL}/\""), &[("proxy", "")]);
    if let Some(branch) = &repository.branch {
        line(
            &format!("branch \"{}\"", branch.short().replace('"', "\\\"")),
            &[("remote", "origin"), ("merge", branch.as_str())],
        );
    }
    line("user", &[("name", repository.user_name.as_str()), ("email", repository.user_email.as_str())]);
    line("commit", &[("gpgSign", "false")]);
    line("tag", &[("gpgSign", "false")]);
    line("push", &[("default", "upstream"), ("followTags", "false")]);
    line("advice", &[("detachedHead", "false")]);
    text
}

//! The door for our own git: no other module of the whole project starts one.
//!
//! Promises: the program is found once and its version checked; every command runs with a cleared environment, the
//! settings of [`settings`], no configuration of the person or the machine, a time bound, an output bound, in a
//! process group of its own that dies with the value that holds it. Paths are bytes. Nothing here ever runs in a
//! directory that an agent could have written.

mod command;
pub(crate) mod settings;
mod version;

pub(crate) use command::status_text;
pub use command::{GitChild, GitCommand, GitOutput};
pub use version::{GitAdvisory, GitVersion};

use crate::error::BrokerError;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The git program of this machine and the private folder for its settings.
#[derive(Debug)]
pub struct Git {
    program: PathBuf,
    version: GitVersion,
    home: PathBuf,
    search_path: std::ffi::OsString,
    temporary: AtomicU64,
}

impl Git {
    /// Looks for `git` in the directories of `search_path`, which has the form of `PATH`. Relative entries are
    /// skipped: they would depend on where we were started.
    ///
    /// # Errors
    /// [`BrokerError::GitMissing`].
    pub fn find(search_path: &OsStr) -> Result<PathBuf, BrokerError> {
        std::env::split_paths(search_path)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join("git"))
            .find(|program| is_executable(program))
            .ok_or_else(|| BrokerError::GitMissing { searched: search_path.to_string_lossy().into_owned() })
    }

    /// Checks the program's version and writes its settings below `home`, a folder of our own (made if missing).
    ///
    /// # Errors
    /// When the program does not run, is no git, is older than [`GitVersion::OLDEST`], or `home` can't be written.
    pub async fn open(program: PathBuf, home: PathBuf) -> Result<Self, BrokerError> {
        std::fs::create_dir_all(home.join("empty")).map_err(BrokerError::state(&home, "created"))?;
        let home = home.canonicalize().map_err(BrokerError::state(&home, "read"))?;
        let mut search_path = program.parent().unwrap_or(Path::new("/usr/bin")).as_os_str().to_owned();
        search_path.push(":/usr/bin:/bin");
        let mut git =
            Self { program, version: GitVersion::OLDEST, home, search_path, temporary: AtomicU64::new(0) };
        git.write_settings()?;
        let output = git.command("version").timeout(Duration::from_secs(20)).run().await;
        let text = match output {
            Ok(output) => output.text(),
            Err(spawn @ BrokerError::GitSpawn { .. }) => return Err(spawn),
            Err(_) => String::new(),
        };
        git.version = GitVersion::parse(&text)
            .ok_or_else(|| BrokerError::GitUnknown { program: git.program.clone() })?;
        if git.version < GitVersion::OLDEST {
            return Err(BrokerError::GitTooOld { found: git.version });
        }
        Ok(git)
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The private folder for settings and hand-overs.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The program's version.
    #[must_use]
    pub const fn version(&self) -> GitVersion {
        self.version
    }

    /// Starts to describe a command. It runs in `/` with no repository until [`GitCommand::git_dir`] names one.
    pub fn command(&self, subcommand: &'static str) -> GitCommand<'_> {
        GitCommand::new(self, subcommand)
    }

    fn write_settings(&self) -> Result<(), BrokerError> {
        let target = self.settings_file();
        let wanted = settings::global_file(&[]);
        if std::fs::read(&target).is_ok_and(|found| found == wanted) {
            return Ok(());
        }
        let (temporary, _guard) = self.temporary_file(&wanted)?;
        std::fs::rename(&temporary, &target).map_err(BrokerError::state(&target, "written"))
    }

    fn settings_file(&self) -> PathBuf {
        self.home.join("settings")
    }

    /// Writes `content` to a new private file; the second value removes it when dropped.
    fn temporary_file(&self, content: &[u8]) -> Result<(PathBuf, RemoveOnDrop), BrokerError> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let number = self.temporary.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self.home.join(format!("settings.{}.{number}", std::process::id()));
        // A file of that name can only be left over from a dead process with our id.
        let _ = std::fs::remove_file(&path);
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content))
            .map_err(BrokerError::state(&path, "written"))?;
        Ok((path.clone(), RemoveOnDrop(path)))
    }
}

/// Removes its file when dropped.
#[derive(Debug)]
pub(crate) struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

//! Where everything of a `TIPSTAFF_HOME` lies on disk.

use crate::RunnerError;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tipstaff_model::{OrgId, RunId};

/// The folders of one `TIPSTAFF_HOME`.
#[derive(Debug, Clone)]
pub struct Layout {
    home: PathBuf,
}

impl Layout {
    /// The layout under `home`, with its folders made (mode 0700).
    ///
    /// # Errors
    /// [`RunnerError::Io`] when a folder can't be made.
    pub fn create(home: impl Into<PathBuf>) -> Result<Self, RunnerError> {
        let layout = Self { home: home.into() };
        for folder in [
            layout.home.clone(),
            layout.mirrors(),
            layout.checkouts(),
            layout.runs(),
            layout.results(),
            layout.setups(),
            layout.sessions(),
        ] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(RunnerError::io("making the folders of TIPSTAFF_HOME"))?;
        }
        Ok(layout)
    }

    /// `TIPSTAFF_HOME` itself.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The embedded database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.home.join("tipstaff.db")
    }

    /// The ring's key, when it lies in a file.
    #[must_use]
    pub fn ring_key(&self) -> PathBuf {
        self.home.join("ring.key")
    }

    /// Bare mirrors of repositories; no agent reaches them.
    #[must_use]
    pub fn mirrors(&self) -> PathBuf {
        self.home.join("mirrors")
    }

    /// Warm, read-only checkouts.
    #[must_use]
    pub fn checkouts(&self) -> PathBuf {
        self.home.join("checkouts")
    }

    /// What set-ups of repositories made, one folder for each org.
    #[must_use]
    pub fn setups(&self) -> PathBuf {
        self.home.join("setups")
    }

    /// One folder for each live run; what is left of a dead one is removed by the next start.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.home.join("runs")
    }

    /// The folder of one run.
    #[must_use]
    pub fn run(&self, run: RunId) -> PathBuf {
        self.runs().join(run.to_string())
    }

    /// The lock of one run.
    #[must_use]
    pub fn run_lock(&self, run: RunId) -> PathBuf {
        self.runs().join(format!("{run}.lock"))
    }

    /// Quarantine repositories: the results of runs.
    #[must_use]
    pub fn results(&self) -> PathBuf {
        self.home.join("results")
    }

    /// The quarantine repository of one run.
    #[must_use]
    pub fn result(&self, run: RunId) -> PathBuf {
        self.results().join(format!("{run}.git"))
    }

    /// Sessions of agents that were kept, sealed: one folder for each org.
    #[must_use]
    pub fn sessions(&self) -> PathBuf {
        self.home.join("sessions")
    }

    /// The session that was kept of one run, sealed.
    #[must_use]
    pub fn session(&self, org: OrgId, run: RunId) -> PathBuf {
        self.sessions().join(org.to_string()).join(format!("{run}.sealed"))
    }

    /// Where the agent of a live run has the folders of its session.
    #[must_use]
    pub fn run_session(&self, run: RunId) -> PathBuf {
        self.run(run).join("session")
    }

    /// The patch of a change whose push was refused: kept for a person to look at, never applied by us.
    #[must_use]
    pub fn refused_patch(&self, run: RunId) -> PathBuf {
        self.results().join(format!("{run}.refused.patch"))
    }

    /// The pinned checkpoint of an org's audit log: kept outside the database, so that a truncated database shows.
    #[must_use]
    pub fn pinned_checkpoint(&self, org: OrgId) -> PathBuf {
        self.home.join("audit").join(format!("{org}.checkpoint"))
    }
}

/// Held for the life of a run's process. When another process can take it, that process is dead.
///
/// The file lies beside the run's folder, and ids are never used twice, so removing it while it is held races with
/// nobody.
#[derive(Debug)]
pub struct RunLock {
    file: File,
    path: PathBuf,
}

impl RunLock {
    /// Makes and takes the lock of a new run, before anything else of the run exists. `owner` is the name on its
    /// lease: whoever finds the lock knows whose lease died with it.
    ///
    /// # Errors
    /// [`RunnerError::Io`] when it can't be made.
    pub fn create(layout: &Layout, run: RunId, owner: &str) -> Result<Self, RunnerError> {
        let path = layout.run_lock(run);
        // Made under another name, so that nobody sees it before it is locked.
        let draft = path.with_extension("lock-new");
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&draft)
            .map_err(RunnerError::io("making the run's lock"))?;
        file.write_all(owner.as_bytes()).map_err(RunnerError::io("writing the run's lock"))?;
        file.lock().map_err(RunnerError::io("locking the run"))?;
        std::fs::rename(&draft, &path).map_err(RunnerError::io("making the run's lock"))?;
        Ok(Self { file, path })
    }

    /// Takes the lock of a run whose process is dead; `None` while it lives, or when somebody else cleans up.
    ///
    /// # Errors
    /// [`RunnerError::Io`] when it can't be opened.
    pub fn take_over(path: PathBuf) -> Result<Option<Self>, RunnerError> {
        let file = match OpenOptions::new().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RunnerError::Io { action: "opening the lock of a run", source }),
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, path })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(source)) => {
                Err(RunnerError::Io { action: "taking the lock of a run", source })
            }
        }
    }

    /// Removes the lock, as the last thing of a run.
    ///
    /// # Errors
    /// [`RunnerError::Io`] when it can't be removed.
    pub fn remove(self) -> Result<(), RunnerError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(RunnerError::Io { action: "removing the run's lock", source: error })
            }
            _ => {
                drop(self.file);
                Ok(())
            }
        }
    }
}

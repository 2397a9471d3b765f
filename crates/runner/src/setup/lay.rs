//! Laying files into workspaces that nobody works in yet: the person's own, and what a set-up made.

use super::copied::Copied;
use super::harvest::HARVEST_TIME;
use super::{Form, Laid, SetupCache};
use crate::RunnerError;
use crate::collect::read_bounded;
use crate::compile::{SandboxRules, compile_spec};
use crate::prepare::{Prepared, give};
use crate::runner::Runner;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tipstaff_model::Warrant;
use tipstaff_sandbox::{Access, ExecPolicy, ReadOnlyMount, StdioPolicy, Workspace};

/// Lays an archive into a workspace.
const LAY: &str = "tar -x --no-same-owner -f /tipstaff/setup.tar -C /work";
/// Where a sandbox sees the archive of a set-up.
const ARCHIVE_INSIDE: &str = "/tipstaff/setup.tar";
/// Where the collection sees what is no part of the change.
const EXCLUDE_INSIDE: &str = "/tipstaff/setup-exclude";

impl Runner {
    /// What set-ups of one tenant made.
    ///
    /// # Errors
    /// When its folder can't be made.
    pub fn setups(&self, org: tipstaff_model::OrgId) -> Result<SetupCache, RunnerError> {
        SetupCache::open(&self.config.layout.setups(), org)
            .map_err(RunnerError::io("opening the cache of set-ups"))
    }

    /// Puts what a set-up made into a workspace that was just prepared for it.
    pub(crate) async fn lay(
        &self,
        laid: &Laid,
        prepared: &mut Prepared,
        warrant: &Warrant,
    ) -> Result<(), RunnerError> {
        let Some(git) = git_folder(prepared) else { return Ok(()) };
        let exclude = laid.exclude();
        let write = |path: &Path, mode: u32| {
            std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(mode)
                .open(path)
                .and_then(|mut file| file.write_all(exclude.as_bytes()))
                .map_err(RunnerError::io("telling git what the set-up made"))
        };
        if !exclude.is_empty() {
            let info = git.join("info");
            std::fs::create_dir_all(&info).map_err(RunnerError::io("telling git what the set-up made"))?;
            write(&info.join("exclude"), 0o644)?;
            if matches!(prepared.workspace, Workspace::Overlay { .. }) {
                give(&info, &prepared.identity)?;
            }
            let shared = self.config.layout.run(warrant.run).join("setup-exclude");
            write(&shared, 0o644)?;
            prepared.exclude = Some(ReadOnlyMount { host: shared, inside: EXCLUDE_INSIDE.into() });
        }
        if laid.form == Form::Archive {
            let mut spec = compile_spec(
                warrant,
                SandboxRules {
                    identity: prepared.identity.clone(),
                    workspace: prepared.workspace.clone(),
                    grants: Vec::new(),
                    read_only_mounts: vec![ReadOnlyMount {
                        host: laid.content.clone(),
                        inside: ARCHIVE_INSIDE.into(),
                    }],
                    home_folders: Vec::new(),
                    env: Vec::new(),
                    argv: ["sh", "-c", LAY].into_iter().map(OsString::from).collect(),
                    stdio: StdioPolicy::PIPED_OUTPUT,
                    agent: false,
                },
            );
            spec.exec = ExecPolicy::InstalledOnly;
            spec.access = Access::ReadWrite;
            let mut running = self.start(spec).await?;
            drop(running.listener.take());
            let said = read_bounded(running.stderr.take(), 2_000);
            let ended = crate::wait::wait_for(&mut running, HARVEST_TIME).await?;
            if !ended.is_some_and(|exit| exit.success()) {
                let (said, _) = said.await.unwrap_or_default();
                let said = tipstaff_seal::scrub::scrub_terminal(&said, tipstaff_seal::scrub::Colours::Remove);
                return Err(RunnerError::SetupFailed(format!(
                    "what it made can't be laid into the workspace: {}",
                    said.lines().next().unwrap_or("it took too long")
                )));
            }
        }
        Ok(())
    }

    /// Brings what set-ups made onto the disk for good, without anybody waiting for it.
    pub(crate) fn setups_written_out(&self, org: tipstaff_model::OrgId) {
        if let Ok(cache) = self.setups(org) {
            // What is not written out now is the next time, or made anew after the machine's next start.
            drop(tokio::task::spawn_blocking(move || cache.write_out()));
        }
    }
}

/// The `.git` of a workspace that nobody works in yet, as the host sees it.
fn git_folder(prepared: &Prepared) -> Option<PathBuf> {
    match &prepared.workspace {
        Workspace::Overlay { .. } => Some(prepared.measured.join(".git")),
        Workspace::Directory { path } => Some(path.join(".git")),
        Workspace::Empty => None,
    }
}

/// Puts the person's files into a workspace that nobody works in yet.
pub(super) fn lay_files(prepared: &Prepared, copied: &Copied) -> Result<(), RunnerError> {
    for file in &copied.files {
        let refused = |why: &str| RunnerError::SetupCopy { path: file.path.clone(), why: why.to_owned() };
        // What the base has is the base's; and a link of the base must not lead our writing anywhere.
        let mut below = prepared.base.clone();
        let mut parts = file.path.split('/').peekable();
        while let Some(part) = parts.next() {
            below.push(part);
            match below.symlink_metadata() {
                Ok(status) if status.is_dir() && parts.peek().is_some() => {}
                Ok(_) => return Err(refused("the base commit has something there itself")),
                Err(_) => break,
            }
        }
        let path = prepared.measured.join(&file.path);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(if file.executable { 0o755 } else { 0o644 })
                .open(&path)?
                .write_all(&file.content)
        });
        made.map_err(RunnerError::io("copying a file of setup.copy"))?;
        if matches!(prepared.workspace, Workspace::Overlay { .. }) {
            let top = file.path.split('/').next().unwrap_or_default();
            give(&prepared.measured.join(top), &prepared.identity)?;
        }
    }
    Ok(())
}

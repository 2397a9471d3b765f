//! What a set-up made: listed by git in a sandbox, and brought out as an archive where there are no layers.

use super::SettingUp;
use crate::RunnerError;
use crate::collect::read_bounded;
use crate::prepare::{Materials, Prepared};
use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_broker::BrokerHandle;
use tipstaff_model::{LiveWarrant, Warrant};
use tipstaff_sandbox::{Access, ExecPolicy, Workspace};

const SCRIPT: &str = include_str!("harvest.sh");
/// Longest time to list, bring out or lay in what a set-up made.
pub(super) const HARVEST_TIME: Duration = Duration::from_secs(5 * 60);
/// Bytes of the list of what the repository does not ignore.
const LIST: u64 = 8 * 1024 * 1024;
/// Files that are left out of a change one by one; beyond it whole folders are.
const MOST_SINGLE: usize = 2_000;

impl<'m, M, S> SettingUp<'_, M, S>
where
    M: Fn(bool, &'static str) -> Materials<'m>,
    S: Fn(&Arc<LiveWarrant>, TcpListener) -> Result<BrokerHandle, RunnerError>,
{
    /// Lists what the repository does not ignore of what the set-up made, in a sandbox, since git looks at it; and writes
    /// an archive of everything that it made, where one is wanted.
    pub(super) async fn harvest(
        &self,
        warrant: &Warrant,
        prepared: &Prepared,
        workspace: Workspace,
        archive: Option<&Path>,
    ) -> Result<Vec<u8>, RunnerError> {
        let mut spec =
            self.spec(warrant, prepared, ["sh", "-c", SCRIPT, "tipstaff-setup"].map(OsString::from).into());
        spec.workspace = workspace;
        spec.access = Access::ReadOnly;
        spec.exec = ExecPolicy::InstalledOnly;
        let base = warrant.repositories.first().map(|grant| grant.base.to_string()).unwrap_or_default();
        spec.env.push(("TIPSTAFF_BASE".to_owned(), base));
        spec.env.push(("TIPSTAFF_ALTERNATES".to_owned(), prepared.lent_objects()));
        spec.env.push(("TIPSTAFF_MOST".to_owned(), MOST_SINGLE.to_string()));
        spec.env.push(("TIPSTAFF_ARCHIVE".to_owned(), u8::from(archive.is_some()).to_string()));
        let mut running = self.runner.start(spec).await?;
        // Nobody serves it: there is nothing to ask for.
        drop(running.listener.take());
        let list = read_bounded(running.stderr.take(), LIST);
        let written = match archive {
            Some(archive) => write_archive(running.stdout.take(), archive, warrant.limits.disk_bytes)?,
            None => read_bounded(running.stdout.take(), 0),
        };
        let ended = crate::wait::wait_for(&mut running, HARVEST_TIME).await?;
        let (list, whole_list) = list.await.unwrap_or_default();
        let (_, whole) = written.await.unwrap_or_default();
        match ended {
            Some(exit) if exit.success() && whole && whole_list => Ok(list),
            Some(exit) => Err(RunnerError::SetupFailed(format!(
                "what it made can't be listed: the listing ended with {}{}",
                exit.code,
                if whole && whole_list { "" } else { ", and was too long" }
            ))),
            None => Err(RunnerError::SetupFailed("what it made could not be listed in time".to_owned())),
        }
    }
}

/// Writes a pipe to a new file, at most `most` bytes; says whether that was all.
fn write_archive(
    pipe: Option<std::os::fd::OwnedFd>,
    path: &Path,
    most: u64,
) -> Result<tokio::task::JoinHandle<(Vec<u8>, bool)>, RunnerError> {
    use tokio::io::AsyncReadExt;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .map_err(RunnerError::io("writing what the set-up made"))?;
    Ok(tokio::spawn(async move {
        let Some(Ok(pipe)) = pipe.map(tokio::net::unix::pipe::Receiver::from_owned_fd) else {
            return (Vec::new(), false);
        };
        let mut file = tokio::fs::File::from_std(file);
        let mut bounded = pipe.take(most);
        let copied = tokio::io::copy(&mut bounded, &mut file).await.is_ok();
        let flushed = file.sync_all().await.is_ok();
        let rest = tokio::io::copy(&mut bounded.into_inner(), &mut tokio::io::sink()).await.unwrap_or(1);
        (Vec::new(), copied && flushed && rest == 0)
    }))
}

/// What git is told to leave out, from a list of paths that end with zero bytes; and whether one of them can't be said.
pub(super) fn patterns(list: &[u8]) -> (Vec<String>, bool) {
    let (mut found, mut unnamed) = (Vec::new(), false);
    for path in list.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
        match std::str::from_utf8(path) {
            Ok(path) if !path.contains(['\n', '\r']) => {
                let mut pattern = String::with_capacity(path.len() + 1);
                pattern.push('/');
                for c in path.chars() {
                    if matches!(c, '\\' | '*' | '?' | '[' | ']' | ' ') {
                        pattern.push('\\');
                    }
                    pattern.push(c);
                }
                found.push(pattern);
            }
            _ => unnamed = true,
        }
    }
    (found, unnamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_patterns_that_match_them_alone() {
        let (found, unnamed) = patterns(b"a b\0#x\0!y\0[z]*?\\\0dir/\0");
        assert_eq!(found, ["/a\\ b", "/#x", "/!y", "/\\[z\\]\\*\\?\\\\", "/dir/"]);
        assert!(!unnamed);
        let (found, unnamed) = patterns(b"new\nline\0\xff\0ok\0");
        assert_eq!((found, unnamed), (vec!["/ok".to_owned()], true));
    }
}

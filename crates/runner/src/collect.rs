//! Bringing the change out: a second sandbox on the same workspace, after every process of the first is dead.
//!
//! Nothing of ours runs on the host inside the workspace. The script commits with a git directory of its own and pushes
//! to the broker, which judges the push like any other.

use crate::RunnerError;
use crate::compile::{SandboxRules, compile_spec};
use crate::prepare::Prepared;
use crate::runner::Runner;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tipstaff_broker::{BrokerHandle, remote_url};
use tipstaff_model::Warrant;
use tipstaff_model::warrant::GitIdentity;
use tipstaff_sandbox::{ExecPolicy, StdioPolicy};
use tipstaff_seal::WarrantDigest;
use tipstaff_seal::scrub::{Colours, scrub_terminal};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

const SCRIPT: &str = include_str!("collect.sh");
/// Longest time for a collection.
const TIME: Duration = Duration::from_secs(110);
/// Longest report of the script that is read, in bytes.
const REPORT: u64 = 64 * 1024;
/// Largest patch of a refused change that is kept, in bytes.
const PATCH: u64 = 32 * 1024 * 1024;

/// What became of the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Collected {
    /// It is in quarantine, or there is none.
    Done,
    /// The broker refused the push; the refusals say why. The change as a patch, unless it is too large to keep.
    Refused {
        /// The last refusal and what to do about it, or what git said.
        why: String,
        /// The change.
        patch: Option<Vec<u8>>,
    },
    /// It could not be committed or brought out in time.
    Failed(String),
}

/// The result with the remarks of the script.
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) collected: Collected,
    pub(crate) remarks: Vec<String>,
}

/// Commits what is in the workspace and pushes it to the broker. `subject` becomes the first line of the message.
pub(crate) async fn collect(
    runner: &Runner,
    warrant: &Warrant,
    digest: &WarrantDigest,
    prepared: &Prepared,
    subject: &str,
    serve: impl FnOnce(std::net::TcpListener) -> Result<BrokerHandle, RunnerError>,
) -> Result<Collection, RunnerError> {
    let (Some(push), Some(grant)) = (warrant.push_grant(), warrant.repositories.first()) else {
        return Ok(Collection { collected: Collected::Done, remarks: Vec::new() });
    };
    let line: String = subject.chars().map(|c| if c.is_control() { ' ' } else { c }).take(72).collect();
    let message =
        format!("{}\n\nTipstaff-Run: {}\nTipstaff-Warrant: sha256:{digest}", line.trim(), warrant.run);
    let GitIdentity { name, email } = warrant.role.git_identity();
    let env = [
        ("TIPSTAFF_BASE", grant.base.to_string()),
        ("TIPSTAFF_REMOTE", remote_url(&push.repository)),
        ("TIPSTAFF_REF", push.reference.to_string()),
        ("TIPSTAFF_MESSAGE", message),
        ("TIPSTAFF_ALTERNATES", prepared.lent_objects()),
        ("TIPSTAFF_SUBMODULES", u8::from(warrant.tools.submodules).to_string()),
        ("GIT_AUTHOR_NAME", name.clone()),
        ("GIT_AUTHOR_EMAIL", email.clone()),
        ("GIT_COMMITTER_NAME", name),
        ("GIT_COMMITTER_EMAIL", email),
    ];
    let mut spec = compile_spec(
        warrant,
        SandboxRules {
            identity: prepared.identity.clone(),
            workspace: prepared.workspace.clone(),
            grants: Vec::new(),
            read_only_mounts: prepared.read_only_mounts.iter().chain(&prepared.exclude).cloned().collect(),
            home_folders: Vec::new(),
            env: env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            argv: ["sh", "-c", SCRIPT, "tipstaff-collect"].into_iter().map(OsString::from).collect(),
            stdio: StdioPolicy::PIPED_OUTPUT,
            agent: false,
        },
    );
    // Only installed programs: what the workspace holds has no say in its own collection.
    spec.exec = ExecPolicy::InstalledOnly;
    let mut running = runner.start(spec).await?;
    let listener = running.listener.take().ok_or_else(no_listener)?;
    let broker = serve(listener)?;
    let report = read_bounded(running.stderr.take(), REPORT);
    let patch = read_bounded(running.stdout.take(), PATCH);
    let ended = crate::wait::wait_for(&mut running, TIME).await?;
    let refusals = broker.stop().await.refusals;
    let (text, _) = report.await.unwrap_or_default();
    let (patch, whole) = patch.await.unwrap_or_default();
    let text = scrub_terminal(&text, Colours::Remove);
    let lines: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect();
    let last = lines.last().cloned().unwrap_or_default();
    let remarks = lines
        .iter()
        .filter(|line| line.starts_with("left out:") || line.starts_with("made one:"))
        .cloned()
        .collect();
    let collected = match ended {
        None => Collected::Failed(format!("the change could not be collected within {} s", TIME.as_secs())),
        Some(exit) => match exit.code {
            0 => Collected::Done,
            10 => Collected::Refused {
                why: refusals.last().map_or(last, |(refusal, _)| {
                    let next = refusal.rule.next_step();
                    format!("{refusal}; to go on: {next}")
                }),
                patch: Some(patch).filter(|patch| whole && !patch.is_empty()),
            },
            code => Collected::Failed(if last.is_empty() {
                format!("the collection ended with {code}")
            } else {
                last
            }),
        },
    };
    Ok(Collection { collected, remarks })
}

pub(crate) fn no_listener() -> RunnerError {
    RunnerError::Io {
        action: "taking the broker's listener out of the sandbox",
        source: std::io::Error::other("the sandbox handed none out"),
    }
}

/// Reads a pipe to its end, keeps at most `limit` bytes and says whether that was all. The rest is read too, so that
/// the writer is not held up, and dropped.
pub(crate) fn read_bounded(pipe: Option<OwnedFd>, limit: u64) -> JoinHandle<(Vec<u8>, bool)> {
    tokio::spawn(async move {
        let mut kept = Vec::new();
        let Some(Ok(pipe)) = pipe.map(Receiver::from_owned_fd) else { return (kept, false) };
        let mut bounded = pipe.take(limit);
        let read = bounded.read_to_end(&mut kept).await.is_ok();
        let dropped = tokio::io::copy(&mut bounded.into_inner(), &mut tokio::io::sink()).await.unwrap_or(1);
        (kept, read && dropped == 0)
    })
}

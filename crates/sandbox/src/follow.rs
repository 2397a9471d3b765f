//! Hearing from a starting sandbox, and saying in words what went wrong.

use std::ffi::CString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::protocol::{InitStep, Report};
use crate::{SandboxError, SandboxSpec, stage};

/// How long a start may take before it is given up, in seconds.
const START_SECONDS: i64 = 20;

/// How a start ended.
pub(crate) enum Outcome {
    Running {
        listener: Option<OwnedFd>,
    },
    Failed(Report),
    /// Nobody reported: bubblewrap failed.
    Silent,
}

/// Reads reports until the socket closes, which the command's execve does.
pub(crate) fn follow(status: BorrowedFd<'_>) -> Result<Outcome, SandboxError> {
    let mut listener = None;
    let mut ready = false;
    loop {
        let mut bytes = [0_u8; 9];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        await_report(status)?;
        let received = rustix::net::recvmsg(
            status,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        let count = match received {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(error) => return Err(SandboxError::io("hearing from a starting sandbox")(error.into())),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                listener = descriptors.next().or(listener);
            }
        }
        match Report::decode(bytes.get(..count).unwrap_or_default()) {
            Some(Report::Listener) => {}
            Some(Report::Ready) => ready = true,
            Some(failure) => return Ok(Outcome::Failed(failure)),
            None if ready => return Ok(Outcome::Running { listener }),
            None => return Ok(Outcome::Silent),
        }
    }
}

fn await_report(status: BorrowedFd<'_>) -> Result<(), SandboxError> {
    let patience = Timespec { tv_sec: START_SECONDS, tv_nsec: 0 };
    let mut watched = [PollFd::from_borrowed_fd(status, PollFlags::IN)];
    loop {
        match poll(&mut watched, Some(&patience)) {
            Ok(0) => {
                let detail = format!("nothing was heard for {START_SECONDS} seconds");
                return Err(SandboxError::StartFailed { step: "start", detail });
            }
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(SandboxError::io("hearing from a starting sandbox")(error.into())),
        }
    }
}

/// bubblewrap tells the pid of the namespace's first process as JSON, before it lets it go on.
pub(crate) fn first_process(info: &OwnedFd) -> Option<OwnedFd> {
    let mut bytes = [0_u8; 512];
    let flags = rustix::fs::fcntl_getfl(info).ok()?;
    rustix::fs::fcntl_setfl(info, flags | OFlags::NONBLOCK).ok()?;
    let count = rustix::io::read(info, &mut bytes).ok()?;
    let text = std::str::from_utf8(bytes.get(..count)?).ok()?;
    let (_, rest) = text.split_once("\"child-pid\":")?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    pidfd_open(Pid::from_raw(digits.parse().ok()?)?, PidfdFlags::empty()).ok()
}

/// The error of a report.
pub(crate) fn explain_report(
    report: Report,
    spec: &SandboxSpec,
    names: &[(&'static str, Option<CString>)],
    bwrap: &CString,
) -> SandboxError {
    let path_of = |path: &Option<CString>| {
        path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    };
    match report {
        Report::OuterFailed { step, errno } => {
            let source = std::io::Error::from_raw_os_error(errno);
            match names.get(step as usize) {
                Some(("idmapped-mount", path)) => {
                    SandboxError::IdMapUnsupported { path: path_of(path).into(), source }
                }
                Some(("overlay", path)) => {
                    let lower = match &spec.workspace {
                        crate::Workspace::Overlay { lower, .. } => lower.clone(),
                        _ => path_of(path).into(),
                    };
                    SandboxError::OverlayUnsupported { path: lower, source }
                }
                Some(("user-map", _)) => crate::sandbox::namespaces_refused(&source),
                Some((name, path)) => {
                    SandboxError::StartFailed { step: name, detail: format!("{}: {source}", path_of(path)) }
                }
                None if step == u32::MAX => {
                    SandboxError::BubblewrapMissing { path: bwrap.to_string_lossy().into_owned().into() }
                }
                None => {
                    SandboxError::StartFailed { step: stage::step_name(step), detail: source.to_string() }
                }
            }
        }
        Report::InitFailed { step: InitStep::Execute, errno } => SandboxError::CommandUnusable {
            program: spec.argv.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default(),
            reason: match errno {
                libc::ENOENT => "it is not there, or its interpreter is not".into(),
                libc::EACCES => "it is not executable, or may not be executed under this policy".into(),
                other => std::io::Error::from_raw_os_error(other).to_string(),
            },
        },
        Report::InitFailed { step: InitStep::WorkingDirectory, errno } => SandboxError::spec(format!(
            "the directory {} cannot be entered: {}",
            spec.cwd.display(),
            std::io::Error::from_raw_os_error(errno)
        )),
        Report::InitFailed { step, errno } => SandboxError::StartFailed {
            step: step.name(),
            detail: std::io::Error::from_raw_os_error(errno).to_string(),
        },
        Report::Listener | Report::Ready => {
            SandboxError::StartFailed { step: "start", detail: "a report came out of order".into() }
        }
    }
}

/// The error of what bubblewrap said before it ended.
pub(crate) fn explain_bubblewrap(said: &str) -> SandboxError {
    let namespace_words =
        ["new namespace", "uid map", "unprivileged user", "user namespaces", "CLONE_NEWUSER"];
    if namespace_words.iter().any(|words| said.contains(words)) {
        return crate::sandbox::namespaces_refused(&std::io::Error::other(said.to_owned()));
    }
    let detail = if said.is_empty() { "bubblewrap ended without a word".into() } else { said.to_owned() };
    SandboxError::StartFailed { step: "bubblewrap", detail }
}

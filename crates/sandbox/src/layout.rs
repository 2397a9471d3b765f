//! What of this machine's own tree every sandbox sees: found once, the same for every run.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::SandboxError;
use crate::stage::STAGE_CANDIDATES;

/// Top-level directories that are links into `/usr` on a merged system, and real ones elsewhere.
const SYSTEM_DIRECTORIES: [&str; 7] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/lib32x"];
/// Public configuration that programs need. No directory with private keys is among them.
const CONFIGURATION: [&str; 11] = [
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust",
    "/etc/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/mime.types",
];
/// Files of /proc that tell of the kernel or reach into it.
const MASKED: [&str; 11] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kallsyms",
    "/proc/kmsg",
    "/proc/config.gz",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/latency_stats",
    "/proc/modules",
];

/// One top-level directory of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SystemDirectory {
    /// A symbolic link, copied as it is.
    Link { path: &'static str, target: PathBuf },
    /// A directory of its own.
    Real { path: &'static str },
}

/// What was found.
#[derive(Debug)]
pub(crate) struct SystemLayout {
    pub(crate) directories: Vec<SystemDirectory>,
    pub(crate) configuration: Vec<&'static str>,
    pub(crate) masked: Vec<&'static str>,
    /// Where the outer stage keeps its mounts.
    pub(crate) stage: &'static str,
    /// The program of the init stage, as it was when the server started.
    pub(crate) init_program: OwnedFd,
}

impl SystemLayout {
    pub(crate) fn discover(init_program: Option<&Path>) -> Result<Self, SandboxError> {
        let mut directories = Vec::new();
        for path in SYSTEM_DIRECTORIES {
            match std::fs::symlink_metadata(path) {
                Ok(status) if status.is_symlink() => {
                    let target =
                        std::fs::read_link(path).map_err(SandboxError::io("reading a system link"))?;
                    directories.push(SystemDirectory::Link { path, target });
                }
                Ok(status) if status.is_dir() => directories.push(SystemDirectory::Real { path }),
                _ => {}
            }
        }
        let exists = |path: &&&'static str| Path::new(path).exists();
        let stage = STAGE_CANDIDATES.iter().find(|path| Path::new(path).is_dir()).ok_or_else(|| {
            SandboxError::LayerMissing {
                layer: "mounts",
                detail: format!("none of {} is a directory: make one", STAGE_CANDIDATES.join(", ")),
            }
        })?;
        Ok(Self {
            directories,
            configuration: CONFIGURATION.iter().filter(exists).copied().collect(),
            masked: MASKED.iter().filter(exists).copied().collect(),
            stage,
            init_program: open_init_program(init_program)?,
        })
    }
}

/// The init stage's program must be executable for every user: it is executed as the run's.
fn open_init_program(configured: Option<&Path>) -> Result<OwnedFd, SandboxError> {
    use std::os::unix::fs::PermissionsExt;
    let path = configured.unwrap_or(Path::new("/proc/self/exe"));
    let file = File::open(path).map_err(SandboxError::io("opening the init stage's program"))?;
    let status = file.metadata().map_err(SandboxError::io("looking at the init stage's program"))?;
    if rustix::process::geteuid().is_root() && status.permissions().mode() & 0o001 == 0 {
        return Err(SandboxError::LayerMissing {
            layer: "init-stage",
            detail: "this program must be executable for all users: chmod 0755 it".into(),
        });
    }
    Ok(file.into())
}

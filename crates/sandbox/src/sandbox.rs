//! The door: probe, plan, start.

use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::cgroup::Cgroups;
use crate::idmap::OwnerMapCache;
use crate::layout::SystemLayout;
use crate::protocol::c_string;
use crate::{
    BrokerListener, RunIdentity, SandboxError, SandboxSpec, Stdio, StdioPolicy, Workspace, landlock,
};

/// Where the sandbox finds what it needs.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// bubblewrap.
    pub bwrap: PathBuf,
    /// The directory of the run identities' locks; see [`RunIdentity::acquire`](crate::RunIdentity::acquire).
    pub lock_dir: PathBuf,
    /// A directory for the probe's short-lived workspaces, on the filesystem of the real ones.
    pub temp_dir: PathBuf,
    /// The program that is executed inside as the init stage: one whose `main` begins with
    /// [`init_stage_if_requested`]. `None`: this very program.
    pub init_program: Option<PathBuf>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            bwrap: "/usr/bin/bwrap".into(),
            lock_dir: "/run/lock/tipstaff-runs".into(),
            temp_dir: std::env::temp_dir(),
            init_program: None,
        }
    }
}

/// Starts sandboxes. Cheap to share by reference between threads.
#[derive(Debug)]
pub struct Sandbox {
    pub(crate) config: SandboxConfig,
    pub(crate) bwrap: CString,
    pub(crate) layout: SystemLayout,
    pub(crate) cgroups: Cgroups,
    pub(crate) owner_maps: OwnerMapCache,
    overlay: OnceLock<bool>,
}

impl Sandbox {
    /// Makes the door, after a real minimal sandbox has run.
    ///
    /// # Errors
    /// The reason for which no sandbox can be had here. There is no way round it.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        let sandbox = Self::unproved(config)?;
        sandbox.prove()?;
        Ok(sandbox)
    }

    /// Gathers what is needed, without running anything.
    pub(crate) fn unproved(config: SandboxConfig) -> Result<Self, SandboxError> {
        if !config.bwrap.is_file() {
            return Err(SandboxError::BubblewrapMissing { path: config.bwrap });
        }
        let bwrap =
            c_string(&config.bwrap).ok_or_else(|| SandboxError::spec("bubblewrap's path has a zero byte"))?;
        if landlock::version() == 0 {
            return Err(SandboxError::LayerMissing {
                layer: "landlock",
                detail: "the kernel has no Landlock: use Linux 5.13 or later and add `landlock` to its `lsm=` list"
                    .into(),
            });
        }
        let layout = SystemLayout::discover(config.init_program.as_deref())?;
        let cgroups = Cgroups::detect();
        Ok(Self {
            config,
            bwrap,
            layout,
            cgroups,
            owner_maps: OwnerMapCache::default(),
            overlay: OnceLock::new(),
        })
    }

    /// Runs a command that does nothing, with every layer on.
    fn prove(&self) -> Result<(), SandboxError> {
        let identity = RunIdentity::acquire(&self.config.lock_dir)?;
        let mut spec = SandboxSpec::new(identity, Workspace::Empty, ["true"]);
        spec.broker = BrokerListener::HandedOut;
        spec.stdio = StdioPolicy { stdin: Stdio::Null, stdout: Stdio::Null, stderr: Stdio::Null };
        let exit = self.start(&spec)?.wait()?;
        if exit.success() {
            return Ok(());
        }
        let detail = format!("a command that does nothing ended with {}", exit.code);
        Err(SandboxError::StartFailed { step: "proof", detail })
    }

    /// Whether [`Workspace::Overlay`](crate::Workspace::Overlay) works for this server's user on this machine.
    /// Tried once, in the configured temporary directory.
    #[must_use]
    pub fn supports_overlay(&self) -> bool {
        *self.overlay.get_or_init(|| self.try_overlay().is_ok())
    }

    /// Runs a write into an overlay.
    pub(crate) fn try_overlay(&self) -> Result<(), SandboxError> {
        let directory = ProbeDirectory::new(&self.config.temp_dir)?;
        let lower = directory.child("lower")?;
        std::fs::write(lower.join("file"), b"below").map_err(SandboxError::io("writing a probe's file"))?;
        let identity = RunIdentity::acquire(&self.config.lock_dir)?;
        let workspace =
            Workspace::Overlay { lower: lower.clone(), over: None, state: directory.path.join("state") };
        let script = "cat file >copy && echo above >file && rm copy";
        let mut spec = SandboxSpec::new(identity, workspace, ["/bin/sh", "-c", script].map(OsString::from));
        spec.stdio = StdioPolicy { stdin: Stdio::Null, stdout: Stdio::Null, stderr: Stdio::Null };
        let exit = self.start(&spec)?.wait()?;
        let below = std::fs::read(lower.join("file")).unwrap_or_default();
        if exit.success() && below == b"below" {
            return Ok(());
        }
        let source = std::io::Error::other(format!("writing into an overlay ended with {}", exit.code));
        Err(SandboxError::OverlayUnsupported { path: lower, source })
    }
}

/// A directory of a probe, gone with it.
pub(crate) struct ProbeDirectory {
    pub(crate) path: PathBuf,
}

impl ProbeDirectory {
    pub(crate) fn new(parent: &Path) -> Result<Self, SandboxError> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("tipstaff-probe-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).map_err(SandboxError::io("making a probe's directory"))?;
        Ok(Self { path })
    }

    pub(crate) fn child(&self, name: &str) -> Result<PathBuf, SandboxError> {
        let path = self.path.join(name);
        std::fs::create_dir(&path).map_err(SandboxError::io("making a probe's directory"))?;
        Ok(path)
    }
}

impl Drop for ProbeDirectory {
    fn drop(&mut self) {
        let _ = crate::remove_tree(&self.path);
    }
}

/// Names the switch that refuses user namespaces here, and what to do about it.
pub(crate) fn namespaces_refused(error: &std::io::Error) -> SandboxError {
    let setting = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        return SandboxError::UserNamespacesOff {
            reason: format!("{error}; kernel.apparmor_restrict_unprivileged_userns is 1"),
            remedy: "install the AppArmor profile that comes with Tipstaff (crates/sandbox/apparmor/tipstaff) with \
                     `apparmor_parser -r`, which grants `userns` to tipstaff and bubblewrap only"
                .into(),
        };
    }
    if setting("/proc/sys/user/max_user_namespaces") == "0" {
        return SandboxError::UserNamespacesOff {
            reason: format!("{error}; user.max_user_namespaces is 0"),
            remedy: "raise it: sysctl -w user.max_user_namespaces=15000".into(),
        };
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        return SandboxError::UserNamespacesOff {
            reason: format!("{error}; kernel.unprivileged_userns_clone is 0"),
            remedy: "switch it on: sysctl -w kernel.unprivileged_userns_clone=1".into(),
        };
    }
    SandboxError::UserNamespacesOff {
        reason: error.to_string(),
        remedy: "ask what of this machine refuses them: a container's seccomp profile, SELinux, or a kernel \
                 without CONFIG_USER_NS"
            .into(),
    }
}

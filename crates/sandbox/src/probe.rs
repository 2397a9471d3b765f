//! What of the sandbox holds on this machine, found out by trying it.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use serde::Serialize;

use crate::cgroup::Controller;
use crate::sandbox::ProbeDirectory;
use crate::{
    BROKER_PORT, BrokerListener, Exit, ExitCause, RunIdentity, Sandbox, SandboxConfig, SandboxError,
    SandboxSpec, Stdio, StdioPolicy, Workspace, landlock,
};

/// Whether a layer holds on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerState {
    /// It was tried in a real sandbox and held.
    Holds,
    /// A weaker form holds; the report says which.
    Reduced,
    /// It does not hold.
    Missing,
}

/// What the probe found out about one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerReport {
    /// The layer's stable name.
    pub layer: &'static str,
    /// Whether it holds.
    pub state: LayerState,
    /// Whether a sandbox is refused without it.
    pub required: bool,
    /// How it was checked and what was seen.
    pub evidence: String,
    /// What to do when it does not hold. Empty when it holds.
    pub remedy: String,
}

/// What the probe found out about this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbeReport {
    /// One row per layer.
    pub layers: Vec<LayerReport>,
}

impl ProbeReport {
    /// Whether every required layer holds, at least reduced.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.layers.iter().all(|layer| !layer.required || layer.state != LayerState::Missing)
    }
}

/// Prints one line of evidence a layer. Everything here is tried from inside, as the command would.
const SCRIPT: &str = r#"
say() { echo "$1=$2"; }
try() { if "$@" >/dev/null 2>&1; then echo yes; else echo no; fi; }
say id "$(id -u)"
say caps "$(grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb):' /proc/self/status | tr -d ' \t' | cut -d: -f2 | tr -d '0\n')"
say nnp "$(grep ^NoNewPrivs: /proc/self/status | tr -dc 0-9)"
say filter "$(grep ^Seccomp: /proc/self/status | tr -dc 0-9)"
say unshare "$(try unshare -U true)"
say usr "$(try touch /usr/tipstaff-probe)$(try touch /etc/tipstaff-probe)$(try touch /tipstaff-probe)"
say host "$(ls -d /root /home/* /var /run /sys 2>/dev/null | grep -vx /home/agent | tr '\n' ' ')"
say outer "$(try readlink /proc/1/root)$(try cat /proc/1/environ)"
say devices "$(cut -d: -f1 -s /proc/net/dev | grep -v '|' | tr -d ' ' | tr '\n' ' ')"
say listening "$(grep -c ' 0100007F:1F90 00000000:0000 0A ' /proc/net/tcp)"
say sysctl "$(try sh -c 'echo x >/proc/sys/kernel/core_pattern')$(try cat /proc/keys)$(try cat /proc/kallsyms)"
say fds "$(ls /proc/self/fd | wc -l)"
"#;

impl Sandbox {
    /// Tries every layer in real sandboxes and says what holds. Never fails: what cannot be tried is missing.
    #[must_use]
    pub fn probe(config: &SandboxConfig) -> ProbeReport {
        let mut probe = Probe { layers: Vec::new() };
        match Self::unproved(config.clone()) {
            Err(error) => probe.failed("sandbox", &error),
            Ok(sandbox) => {
                probe.inside(&sandbox);
                probe.user(&sandbox);
                probe.files(&sandbox);
                probe.limits(&sandbox);
                probe.ending(&sandbox);
            }
        }
        ProbeReport { layers: probe.layers }
    }

    /// Runs a shell script in a sandbox of its own.
    fn script(
        &self,
        text: &str,
        workspace: Workspace,
        adjust: impl FnOnce(&mut SandboxSpec),
    ) -> Result<(Exit, String), SandboxError> {
        let identity = RunIdentity::acquire(&self.config.lock_dir)?;
        let mut spec = SandboxSpec::new(identity, workspace, ["/bin/sh", "-c", text].map(OsString::from));
        spec.stdio = StdioPolicy { stdin: Stdio::Null, stdout: Stdio::Pipe, stderr: Stdio::Null };
        adjust(&mut spec);
        let mut running = self.start(&spec)?;
        let mut said = String::new();
        if let Some(stdout) = running.stdout.take() {
            let _ = File::from(stdout).take(65_536).read_to_string(&mut said);
        }
        Ok((running.wait()?, said))
    }
}

struct Probe {
    layers: Vec<LayerReport>,
}

impl Probe {
    fn row(&mut self, layer: &'static str, required: bool, holds: bool, evidence: String, remedy: &str) {
        let state = if holds { LayerState::Holds } else { LayerState::Missing };
        let remedy = if holds { String::new() } else { remedy.to_owned() };
        self.layers.push(LayerReport { layer, state, required, evidence, remedy });
    }

    fn failed(&mut self, layer: &'static str, error: &SandboxError) {
        let evidence = format!("{} ({})", error, error.code());
        self.row(layer, true, false, evidence, "see the message; nothing is run until it is solved");
    }

    fn optional(&mut self, layer: &'static str, outcome: Result<String, String>, remedy: &str) {
        let holds = outcome.is_ok();
        let evidence = outcome.unwrap_or_else(|reason| reason);
        self.row(layer, false, holds, evidence, remedy);
    }

    /// The layers that every sandbox has, as seen from inside one.
    fn inside(&mut self, sandbox: &Sandbox) {
        const REPORT: &str = "report this machine's kernel and bubblewrap versions: this layer must hold";
        let outcome =
            sandbox.script(SCRIPT, Workspace::Empty, |spec| spec.broker = BrokerListener::HandedOut);
        let said = match outcome {
            Ok((_, said)) => said,
            Err(error) => return self.failed("user-namespaces", &error),
        };
        let value = |key: &str| {
            said.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map_or_else(|| "nothing".to_owned(), |value| value.trim().to_owned())
        };
        let mut seen = |layer, key: &str, expected: &str, what: &str| {
            let value = value(key);
            self.row(layer, true, value == expected, format!("{what}: {}", shown(&value)), REPORT);
        };
        seen("user-namespaces", "id", "1000", "a real sandbox ran; uid inside");
        seen("mounts", "usr", "nonono", "writing to /usr, /etc, /");
        seen("host-files", "host", "", "directories of the host inside");
        seen("capabilities", "caps", "", "digits that are not zero in the five sets");
        seen("no-new-privileges", "nnp", "1", "the kernel's flag");
        seen("nested-namespaces", "unshare", "no", "unshare -U works");
        seen("seccomp", "filter", "2", "the kernel's mode (2 is a filter)");
        seen("network", "devices", "lo", "interfaces inside");
        seen("listener", "listening", "1", &format!("sockets on 127.0.0.1:{BROKER_PORT} inside"));
        seen("proc-masking", "sysctl", "nonono", "writing core_pattern, reading keys and kallsyms");
        seen("descriptors", "fds", "4", "descriptors of `ls`, its own one included");
        let refused = value("outer") == "nono";
        let version = landlock::version();
        let evidence = format!(
            "version {version}; reading the first process's root and environment: {}",
            value("outer")
        );
        self.row("landlock", true, refused, evidence, REPORT);
        if version < 6 && refused {
            self.reduce_last("Linux 6.12 or later adds the refusal of signals and abstract sockets");
        }
    }

    fn reduce_last(&mut self, remedy: &str) {
        if let Some(last) = self.layers.last_mut() {
            last.state = LayerState::Reduced;
            remedy.clone_into(&mut last.remedy);
        }
    }

    /// Who a run is, seen from outside.
    fn user(&mut self, sandbox: &Sandbox) {
        let seen = outer_uids(sandbox);
        let holds = matches!(seen, Ok((expected, seen)) if expected == seen && seen != 0);
        let evidence = seen.map_or_else(chain, |(expected, seen)| {
            format!("the run of uid {expected} has uid {seen} in the host's process table")
        });
        self.row(
            "user-isolation",
            true,
            holds,
            evidence,
            "report this machine's kernel: this layer must hold",
        );
    }

    /// How workspaces can be had.
    fn files(&mut self, sandbox: &Sandbox) {
        let overlay = sandbox.try_overlay().map(|()| "a write stayed in its layer".to_owned());
        self.optional(
            "overlay",
            overlay.map_err(chain),
            "use a plain directory as the workspace, or put the state directory on ext4, xfs or btrfs",
        );
        self.optional(
            "idmap",
            try_idmap(sandbox).map_err(chain),
            "use Linux 5.12 or later and a filesystem with idmapped mounts; until then workspaces are copied",
        );
    }

    /// What holds the limits.
    fn limits(&mut self, sandbox: &Sandbox) {
        const DELEGATE: &str =
            "let the server write its cgroup: run it under systemd with Delegate=yes, or as root";
        let memory = "head -c 100000000 /dev/zero | tail -c 100000000 | wc -c";
        let outcome =
            sandbox.script(memory, Workspace::Empty, |spec| spec.limits.memory_bytes = 24 * 1024 * 1024);
        let held = sandbox.cgroups.holder(Controller::Memory).is_some();
        let outcome = match outcome {
            Ok((_, said)) if said.trim() != "100000000" && held => {
                Ok("100 MB did not fit into 24 MiB".into())
            }
            Ok(_) => Err("no memory controller is writable: a run's memory is not limited as a whole".into()),
            Err(error) => Err(chain(error)),
        };
        self.optional("cgroup-memory", outcome, DELEGATE);
        let outcome = sandbox.script(
            "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo all",
            Workspace::Empty,
            |spec| spec.limits.pids = 12,
        );
        let by_cgroup = sandbox.cgroups.holder(Controller::Pids).is_some();
        let outcome = match outcome {
            Ok((exit, said)) if !said.contains("all") => {
                Ok(format!("40 processes did not fit into 12 ({:?})", exit.cause))
            }
            Ok(_) => Err("40 processes fitted into 12".into()),
            Err(error) => Err(chain(error)),
        };
        let holds = outcome.is_ok();
        self.optional("cgroup-pids", outcome, DELEGATE);
        if holds && !by_cgroup {
            self.reduce_last(
                "held by RLIMIT_NPROC of the run's user; a writable cgroup would hold it for the tree",
            );
        }
        let outcome = match sandbox.cgroups.holder(Controller::Cpu) {
            Some(version) => Ok(format!("a quota can be written (cgroup {version:?})")),
            None => Err("no cpu controller is writable: a run may use every processor".into()),
        };
        self.optional("cgroup-cpu", outcome, DELEGATE);
    }

    /// Whether a run's end is the end of all of it.
    fn ending(&mut self, sandbox: &Sandbox) {
        let outcome = end_tree(sandbox);
        let holds = outcome.is_ok();
        let way = if sandbox.cgroups.can_kill() {
            "cgroup.kill and the pid namespace"
        } else {
            "the pid namespace"
        };
        let evidence =
            outcome.map_or_else(chain, |()| format!("a tree with a detached process died by {way}"));
        self.row("tree-kill", true, holds, evidence, "report this machine's kernel: this layer must hold");
    }
}

/// The uid that a run should have outside, and the one it has.
fn outer_uids(sandbox: &Sandbox) -> Result<(u32, u32), SandboxError> {
    let identity = RunIdentity::acquire(&sandbox.config.lock_dir)?;
    let mut spec = SandboxSpec::new(identity.clone(), Workspace::Empty, ["sleep", "1000"]);
    spec.stdio = StdioPolicy { stdin: Stdio::Null, stdout: Stdio::Null, stderr: Stdio::Null };
    let running = sandbox.start(&spec)?;
    let unseen = || SandboxError::StartFailed { step: "probe", detail: "the run is not in /proc".into() };
    Ok((identity.uid(), running.outer_uid().ok_or_else(unseen)?))
}

/// What a run's user writes into a directory of the server's belongs to the server.
fn try_idmap(sandbox: &Sandbox) -> Result<String, SandboxError> {
    let directory = ProbeDirectory::new(&sandbox.config.temp_dir)?;
    let path = directory.child("work")?;
    let workspace = Workspace::Directory { path: path.clone() };
    let (exit, _) = sandbox.script("echo x >file", workspace, |_| {})?;
    let owner = path.join("file").metadata().map_err(SandboxError::io("looking at a probe's file"))?.uid();
    if exit.success() && owner == rustix::process::geteuid().as_raw() {
        return Ok("a file made inside is the server's outside".into());
    }
    let source = std::io::Error::other(format!("a file made inside belongs to uid {owner}"));
    Err(SandboxError::IdMapUnsupported { path, source })
}

fn end_tree(sandbox: &Sandbox) -> Result<(), SandboxError> {
    let identity = RunIdentity::acquire(&sandbox.config.lock_dir)?;
    let script = "(setsid sleep 1000 &) ; echo up; sleep 1000";
    let mut spec =
        SandboxSpec::new(identity, Workspace::Empty, ["/bin/sh", "-c", script].map(OsString::from));
    spec.stdio = StdioPolicy { stdin: Stdio::Null, stdout: Stdio::Pipe, stderr: Stdio::Null };
    let mut running = sandbox.start(&spec)?;
    let stdout = running.stdout.take();
    running.kill()?;
    // Every process of the tree held the pipe: its end says that none is left.
    let mut rest = Vec::new();
    if let Some(stdout) = stdout {
        File::from(stdout).read_to_end(&mut rest).map_err(SandboxError::io("reading a probe's output"))?;
    }
    let exit = running.try_wait()?;
    if exit.is_some_and(|exit| exit.cause == ExitCause::Killed) {
        return Ok(());
    }
    Err(SandboxError::StartFailed { step: "kill", detail: "a killed tree did not end as killed".into() })
}

/// The error and what caused it, in one line.
#[expect(clippy::needless_pass_by_value, reason = "it is the end of the error's life")]
fn chain(error: SandboxError) -> String {
    use std::error::Error;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn shown(value: &str) -> &str {
    if value.is_empty() { "none" } else { value }
}

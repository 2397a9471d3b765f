//! The compiled rules of one sandbox, as shown by a dry run.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::cgroup::{Controller, Version};
use crate::mounts::{Entry, MountTable, Owner, Source, Staged};
use crate::{BROKER_PORT, BrokerListener, SandboxError, SandboxSpec, environment, landlock, seccomp, start};

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanMount {
    /// The path inside.
    pub inside: PathBuf,
    /// What is there: a host path, `tmpfs`, `overlay`, `proc`, `dev` or `synthetic`.
    pub source: String,
    /// The options, for example `ro,nosuid,nodev`.
    pub options: String,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanLimit {
    /// Its name, for example `memory`.
    pub name: &'static str,
    /// The value with its unit.
    pub value: String,
    /// What holds it: a cgroup controller, an rlimit, a mount option, or `nothing here`.
    pub holder: String,
}

/// What [`Sandbox::start`](crate::Sandbox::start) would do, without doing it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The command, lossily decoded.
    pub argv: Vec<String>,
    /// The working directory inside.
    pub cwd: PathBuf,
    /// The uid outside; inside it is always 1000.
    pub outer_uid: u32,
    /// The layers, in the order in which they are put on.
    pub layers: Vec<String>,
    /// The mount table, in order.
    pub mounts: Vec<PlanMount>,
    /// The names of the variables. Values are not shown.
    pub env_names: Vec<String>,
    /// What Landlock allows beyond the mount table's flags.
    pub landlock: Vec<String>,
    /// The system calls that are refused, by rule.
    pub seccomp: Vec<String>,
    /// The limits.
    pub limits: Vec<PlanLimit>,
    /// The granted toolchains.
    pub grants: Vec<String>,
    /// The network, in one sentence.
    pub network: String,
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "command   {}", self.argv.join(" "))?;
        writeln!(formatter, "directory {}", self.cwd.display())?;
        writeln!(formatter, "user      1000 inside, {} outside", self.outer_uid)?;
        writeln!(formatter, "network   {}", self.network)?;
        writeln!(formatter, "layers")?;
        for layer in &self.layers {
            writeln!(formatter, "  {layer}")?;
        }
        writeln!(formatter, "mounts")?;
        for mount in &self.mounts {
            writeln!(formatter, "  {:<28} {:<22} {}", mount.inside.display(), mount.options, mount.source)?;
        }
        writeln!(formatter, "variables {}", self.env_names.join(" "))?;
        writeln!(formatter, "landlock")?;
        for rule in &self.landlock {
            writeln!(formatter, "  {rule}")?;
        }
        writeln!(formatter, "refused system calls")?;
        for rule in &self.seccomp {
            writeln!(formatter, "  {rule}")?;
        }
        writeln!(formatter, "limits")?;
        for limit in &self.limits {
            writeln!(formatter, "  {:<12} {:<14} {}", limit.name, limit.value, limit.holder)?;
        }
        writeln!(formatter, "toolchains {}", self.grants.join(" "))
    }
}

impl crate::Sandbox {
    /// The compiled rules, without starting anything.
    ///
    /// # Errors
    /// The same as [`Sandbox::start`](crate::Sandbox::start) has for a description that contradicts itself.
    pub fn plan(&self, spec: &SandboxSpec) -> Result<Plan, SandboxError> {
        let table = MountTable::compile(spec, &self.layout)?;
        let orders = start::orders(spec, &table)?;
        let variables = environment::compose(&spec.grants, &spec.env)?;
        Ok(Plan {
            argv: spec.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            cwd: spec.cwd.clone(),
            outer_uid: spec.identity.uid(),
            layers: self.layers(spec),
            mounts: table
                .entries
                .iter()
                .filter(|entry| entry.source != Source::Sealed)
                .map(mount_line)
                .collect(),
            env_names: variables.into_iter().map(|(name, _)| name).collect(),
            landlock: orders.landlock.iter().map(landlock_line).collect(),
            seccomp: seccomp::describe(spec.exec),
            limits: self.limit_lines(spec),
            grants: spec.grants.iter().map(|grant| grant.name.clone()).collect(),
            network: match spec.broker {
                BrokerListener::Absent => {
                    "none: a network namespace with nothing but its own loopback".into()
                }
                BrokerListener::HandedOut => format!(
                    "a namespace of its own; 127.0.0.1:{BROKER_PORT} is the broker, accepted outside; nothing else"
                ),
            },
        })
    }

    fn layers(&self, spec: &SandboxSpec) -> Vec<String> {
        let identity = spec.identity.uid();
        let held: Vec<_> = Controller::ALL
            .into_iter()
            .filter(|controller| self.cgroups.holder(*controller).is_some())
            .map(Controller::name)
            .collect();
        vec![
            format!("user: uid {identity} outside, never 0"),
            if held.is_empty() {
                "cgroup: none writable here; resource limits of each process only".into()
            } else {
                format!("cgroup: {}", held.join(", "))
            },
            "namespaces: user, mount, pid, network, ipc, uts, cgroup (bubblewrap)".into(),
            "capabilities: none in any of the five sets".into(),
            "no_new_privs".into(),
            "nested user namespaces: off".into(),
            format!("landlock: version {}", landlock::version()),
            "descriptors: 0, 1, 2 and no other".into(),
            format!("seccomp: {} instructions", seccomp::filter(spec.exec).len() / 8),
        ]
    }

    fn limit_lines(&self, spec: &SandboxSpec) -> Vec<PlanLimit> {
        let limits = &spec.limits;
        let holder = |controller: Controller, without: &str| match self.cgroups.holder(controller) {
            Some(Version::One) => format!("cgroup v1 {}", controller.name()),
            Some(Version::Two) => format!("cgroup v2 {}", controller.name()),
            None => without.to_owned(),
        };
        let line = |name, value: String, holder: String| PlanLimit { name, value, holder };
        vec![
            line("pids", limits.pids.to_string(), holder(Controller::Pids, "rlimit NPROC")),
            line("memory", bytes(limits.memory_bytes), holder(Controller::Memory, "nothing here")),
            line("cpu", format!("{} %", limits.cpu_percent), holder(Controller::Cpu, "nothing here")),
            line("file", bytes(limits.file_bytes), "rlimit FSIZE".into()),
            line("open files", limits.open_files.to_string(), "rlimit NOFILE".into()),
            line("core", "0".into(), "rlimit CORE".into()),
            line("/tmp", bytes(limits.tmp_bytes), "tmpfs size".into()),
            line("/dev/shm", bytes(limits.shm_bytes), "tmpfs size".into()),
            line("home", bytes(limits.home_bytes), "tmpfs size".into()),
        ]
    }
}

fn bytes(count: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    if count.is_multiple_of(MIB) { format!("{} MiB", count / MIB) } else { format!("{count} B") }
}

fn mount_line(entry: &Entry) -> PlanMount {
    let mapped = |owner: &Option<Owner>| {
        owner.map(|owner| format!(", owner {}:{} mapped", owner.uid, owner.gid)).unwrap_or_default()
    };
    let source = match &entry.source {
        Source::Host(path) => path.display().to_string(),
        Source::Staged(Staged::Copy { host, idmap, .. }) => format!("{}{}", host.display(), mapped(idmap)),
        Source::Staged(Staged::Overlay { lower, over, layer, idmap }) => {
            let layer =
                layer.as_ref().map(|layer| format!(" in {}", layer.upper.display())).unwrap_or_default();
            let over = over
                .as_ref()
                .map(|(path, owner)| format!(" under {}{}", path.display(), mapped(owner)))
                .unwrap_or_default();
            format!("overlay of {}{}{over}{layer}", lower.display(), mapped(idmap))
        }
        Source::Tmpfs { size, .. } | Source::Staged(Staged::Tmpfs { size, .. }) => {
            format!("tmpfs of {}", bytes(*size))
        }
        Source::Proc => "a new proc; /proc/sys read-only".into(),
        Source::Devices => "null zero full random urandom tty, a devpts of its own".into(),
        Source::Link(target) => format!("link to {}", target.display()),
        Source::Text(_) => "synthetic".into(),
        Source::Masked => "masked".into(),
        Source::Sealed => "sealed".into(),
    };
    let mut options = vec![if entry.writable { "rw" } else { "ro" }, "nosuid", "nodev"];
    if !entry.executable {
        options.push("noexec");
    }
    PlanMount { inside: entry.inside.clone(), source, options: options.join(",") }
}

fn landlock_line(rule: &landlock::LandlockRule) -> String {
    let mut rights = Vec::new();
    for (bit, word) in [
        (landlock::READ_FILE, "read"),
        (landlock::READ_DIR, "list"),
        (landlock::WRITE_FILE, "write"),
        (landlock::EXECUTE, "execute"),
        (landlock::IOCTL_DEV, "device-control"),
    ] {
        if rule.access & bit != 0 {
            rights.push(word);
        }
    }
    format!("{}: {}", rule.path.to_string_lossy(), rights.join(" "))
}

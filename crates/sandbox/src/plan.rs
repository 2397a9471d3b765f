//! The compiled rules of one sandbox, as shown by a dry run.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

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

#![doc = include_str!("../README.md")]

mod arguments;
mod cgroup;
mod disk;
mod ends;
mod environment;
mod error;
mod follow;
mod identity;
mod idmap;
mod init;
mod landlock;
mod launcher;
mod layer;
mod layout;
mod limits;
mod mounts;
mod pause;
mod plan;
mod probe;
mod protocol;
mod running;
mod sandbox;
mod seccomp;
mod seccomp_load;
mod spec;
mod stage;
mod start;
mod sys;
mod toolchain;
mod tree;

pub use disk::free_bytes;
pub use environment::environment_check;
pub use error::SandboxError;
pub use identity::RunIdentity;
pub use init::init_stage_if_requested;
pub use layer::{
    EntryKind, FoundFile, SettledLayer, TreeEntry, UnreadableFile, read_beneath, settle_layer, visit_tree,
    write_out,
};
pub use limits::SandboxLimits;
pub use plan::{Plan, PlanLimit, PlanMount};
pub use probe::{LayerReport, LayerState, ProbeReport};
pub use running::{Exit, ExitCause, Running, Usage};
pub use sandbox::{Sandbox, SandboxConfig};
pub use spec::{
    Access, BrokerListener, ExecPolicy, HomeFolder, ReadOnlyMount, SandboxSpec, Stdio, StdioPolicy,
    ToolchainGrant, Workspace,
};
pub use start::Baseline;
pub use toolchain::{Discovery, SkippedToolchain, discover_toolchains, find_toolchains};
pub use tree::{TreeUsage, UsageBound, remove_tree, tree_usage};

/// Where the workspace is, inside.
pub const INSIDE_WORK: &str = "/work";
/// The command's home directory, inside: an empty sized tmpfs.
pub const INSIDE_HOME: &str = "/home/agent";
/// The port on 127.0.0.1, inside, whose listener is handed out to the broker.
pub const BROKER_PORT: u16 = 8080;

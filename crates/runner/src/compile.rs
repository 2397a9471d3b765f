//! From a warrant to the rules of the sandbox.

use std::ffi::OsString;
use std::path::PathBuf;
use tipstaff_engine::EngineRequest;
use tipstaff_model::{Limits, PrivacyClass, TaskSpec, Warrant, WarrantKind};
use tipstaff_sandbox::{
    Access, BrokerListener, ExecPolicy, HomeFolder, ReadOnlyMount, RunIdentity, SandboxLimits, SandboxSpec,
    StdioPolicy, ToolchainGrant, Workspace,
};

/// What the sandbox of a run is made of besides its warrant.
#[derive(Debug, Clone)]
pub struct SandboxRules {
    /// Whose uid it has.
    pub identity: RunIdentity,
    /// The files.
    pub workspace: Workspace,
    /// Tools from outside `/usr`.
    pub grants: Vec<ToolchainGrant>,
    /// Lent objects and the like.
    pub read_only_mounts: Vec<ReadOnlyMount>,
    /// Folders of the home that outlast the sandbox.
    pub home_folders: Vec<HomeFolder>,
    /// Variables besides the fixed ones.
    pub env: Vec<(String, String)>,
    /// The command.
    pub argv: Vec<OsString>,
    /// The standard streams.
    pub stdio: StdioPolicy,
    /// Whether it is an agent with a program of its own: it has more room at home, runs although the warrant grants
    /// no execution of what the repository holds, and is told of the broker so that what it tries is on record.
    pub agent: bool,
}

/// Where a sandbox reaches the broker.
pub const BROKER_URL: &str = "http://127.0.0.1:8080";
/// What an agent may write into its home folder, in bytes: it unpacks itself and keeps its caches there.
pub(crate) const AGENT_HOME_BYTES: u64 = 512 * 1024 * 1024;
const _: () = assert!(tipstaff_sandbox::BROKER_PORT == 8080, "BROKER_URL names the port");

/// What a task asks of its engine.
#[must_use]
pub fn engine_request(task: &TaskSpec, kind: WarrantKind) -> EngineRequest<'_> {
    EngineRequest {
        command: &task.argv,
        prompt: task.prompt.as_deref(),
        model: task.model.as_deref(),
        provider: task.provider.as_deref(),
        instructions: &task.instructions,
        broker: BROKER_URL,
        home: tipstaff_sandbox::INSIDE_HOME,
        may_write: kind.may_write(),
        attended: task.attended,
        keeps_session: task.privacy == PrivacyClass::Org,
        resume: task.resumes.as_ref().map(|resumed| resumed.session.as_str()),
    }
}

/// The sandbox's share of a warrant's limits.
#[must_use]
pub fn compile_limits(limits: &Limits) -> SandboxLimits {
    SandboxLimits {
        pids: limits.processes,
        memory_bytes: limits.memory_bytes,
        cpu_percent: u32::try_from(limits.cpu_percent).unwrap_or(u32::MAX),
        file_bytes: limits.file_bytes,
        open_files: limits.open_files,
        tmp_bytes: limits.tmp_bytes,
        ..SandboxLimits::default()
    }
}

/// The sandbox of a warrant. Every bit of it that grants something is read from the warrant here and nowhere else.
#[must_use]
pub fn compile_spec(warrant: &Warrant, rules: SandboxRules) -> SandboxSpec {
    let SandboxRules {
        identity,
        workspace,
        grants,
        read_only_mounts,
        home_folders,
        mut env,
        argv,
        stdio,
        agent,
    } = rules;
    // Without a granted host there is nothing behind a proxy, and programs fail at once instead of asking for it. An
    // agent is told all the same: what it tried is refused by name then, and seen.
    if agent || !warrant.egress.is_empty() {
        let broker = BROKER_URL.to_owned();
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            env.push((name.to_owned(), broker.clone()));
        }
        for name in ["no_proxy", "NO_PROXY"] {
            env.push((name.to_owned(), "127.0.0.1,localhost,::1".to_owned()));
        }
    }
    let mut limits = compile_limits(&warrant.limits);
    if agent {
        limits.home_bytes = AGENT_HOME_BYTES;
    }
    SandboxSpec {
        identity,
        workspace,
        access: if warrant.kind.may_write() { Access::ReadWrite } else { Access::ReadOnly },
        exec: if warrant.permits_exec().is_ok() { ExecPolicy::Any } else { ExecPolicy::InstalledOnly },
        broker: BrokerListener::HandedOut,
        limits,
        grants,
        read_only_mounts,
        home_folders,
        env,
        argv,
        cwd: PathBuf::from(tipstaff_sandbox::INSIDE_WORK),
        stdio,
    }
}

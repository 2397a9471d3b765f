//! What a runner is made of, and the small things that it offers.

use crate::supervise::Cancel;
use crate::supervise::Stall;
use crate::{EarlierWork, KeptSession, Layout, RunLock, RunnerError};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tipstaff_broker::{
    Bounds, Broker, BrokerConfig, BrokerHandle, Checkouts, GatewayConfig, Git, HeldSecret, Inspection,
    Mirror, Mirrors, Quarantine, RunAuthority, ServedRepository, UpstreamTrust,
};
use tipstaff_model::{
    Clock, ControlPlane, Entropy, ExitReason, LiveWarrant, OrgId, Policies, RunId, RunState, TaskSpec,
    Warrant,
};
use tipstaff_sandbox::{Running, Sandbox, SandboxSpec, ToolchainGrant};
use tipstaff_seal::redact::Redactor;
use tipstaff_seal::{FileKey, SignedWarrant, VerifyingKey};

/// What a runner is made of.
pub struct RunnerConfig {
    /// Where everything lies.
    pub layout: Layout,
    /// The sandbox, probed.
    pub sandbox: Arc<Sandbox>,
    /// Our git.
    pub git: Arc<Git>,
    /// Where identities of runs are locked; shared by all of this machine.
    pub identities: PathBuf,
    /// Toolchains that every run may read.
    pub grants: Vec<ToolchainGrant>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The broker's bounds.
    pub bounds: Bounds,
    /// Private addresses that the broker may dial for granted hosts: upstreams that the operator runs on this machine.
    pub allow_private_addresses: Vec<SocketAddr>,
    /// Addresses of hosts that the operator names himself, private ones included.
    pub host_addresses: Arc<BTreeMap<String, Vec<IpAddr>>>,
    /// How long an agent may do nothing.
    pub stall: Stall,
    /// Whether workspaces are layers over a shared checkout, where the kernel can.
    pub layers: bool,
}

/// Carries leases out. Cheap to share; any number of runs at once.
pub struct Runner {
    pub(crate) config: RunnerConfig,
    pub(crate) no_overlay: AtomicBool,
}

/// One lease, with all that is needed for it.
pub struct Job {
    /// What to do.
    pub task: TaskSpec,
    /// The grant.
    pub warrant: SignedWarrant,
    /// The control plane's key: the runner checks the signature itself.
    pub key: VerifyingKey,
    /// The run's lock, taken before the run was on record.
    pub lock: RunLock,
    /// The mirror, with the base pinned.
    pub mirror: Mirror,
    /// How the base's branch is called, where it has one.
    pub base_branch: Option<String>,
    /// The person's wish to end it.
    pub cancel: Cancel,
    /// The models that may be asked, with their keys; `None` where none may.
    pub gateway: Option<GatewayConfig>,
    /// What inspected hosts need besides the run's own authority; `None` where the warrant inspects none.
    pub inspection: Option<JobInspection>,
    /// The repository's set-up, where it has one.
    pub setup: Option<crate::JobSetup>,
    /// Takes secrets out of everything that the run says; knows the live ones.
    pub redactor: Redactor,
    /// The key under which the agent's session is sealed when the run has ended; `None` where none is kept.
    pub session_key: Option<FileKey>,
    /// The session and the work that the run continues.
    pub resumed: Option<JobResumed>,
    /// The policies of the org, the project, the agent and the run; the repository's own is read at the base commit.
    pub policies: Policies,
}

/// What a run continues.
#[derive(Debug, Clone)]
pub struct JobResumed {
    /// The agent's session, as it was kept.
    pub session: KeptSession,
    /// The work so far; `None` where nothing was pushed, or it was thrown away.
    pub work: Option<EarlierWork>,
}

/// What a run needs to have hosts inspected.
#[derive(Debug, Clone)]
pub struct JobInspection {
    /// Whom the broker trusts to be a host.
    pub trust: UpstreamTrust,
    /// The secrets, each with the variable that holds its handle in the sandbox.
    pub secrets: Vec<(String, HeldSecret)>,
}

impl JobInspection {
    /// The same for a broker, with an authority made for this run.
    pub(crate) fn for_run(&self, warrant: &Warrant) -> Result<Option<Inspection>, RunnerError> {
        let authority = RunAuthority::of_warrant(warrant)?;
        Ok(authority.map(|authority| Inspection {
            authority: Arc::new(authority),
            trust: self.trust.clone(),
            secrets: self.secrets.iter().map(|(_, held)| held.clone()).collect(),
        }))
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Where.
    pub state: RunState,
    /// Why.
    pub reason: ExitReason,
}

impl Runner {
    /// A runner over a state folder.
    #[must_use]
    pub const fn new(config: RunnerConfig) -> Self {
        let no_overlay = AtomicBool::new(!config.layers);
        Self { config, no_overlay }
    }

    /// The mirrors of one tenant; two tenants never share one.
    ///
    /// # Errors
    /// When their folder can't be made.
    pub fn mirrors(&self, org: OrgId) -> Result<Mirrors, RunnerError> {
        let root = self.config.layout.mirrors().join(org.to_string());
        Ok(Mirrors::new(Arc::clone(&self.config.git), root, Default::default())?)
    }

    /// The warm checkouts of one tenant.
    ///
    /// # Errors
    /// When their folder can't be made.
    pub fn checkouts(&self, org: OrgId) -> Result<Checkouts, RunnerError> {
        let root = self.config.layout.checkouts().join(org.to_string());
        Ok(Checkouts::new(Arc::clone(&self.config.git), root, Default::default())?)
    }

    /// Our git.
    #[must_use]
    pub const fn git(&self) -> &Arc<Git> {
        &self.config.git
    }

    /// The sandbox.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.config.sandbox
    }

    /// Where identities are locked.
    #[must_use]
    pub fn identities(&self) -> &Path {
        &self.config.identities
    }

    /// Toolchains that every run may read.
    #[must_use]
    pub fn grants(&self) -> &[ToolchainGrant] {
        &self.config.grants
    }

    /// The quarantine of a run, where there is one.
    ///
    /// # Errors
    /// When there is none.
    pub async fn quarantine(&self, run: RunId) -> Result<Quarantine, RunnerError> {
        Ok(Quarantine::open(Arc::clone(&self.config.git), &self.config.layout.result(run)).await?)
    }

    /// The layout.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.config.layout
    }

    /// Starts a sandbox without holding up other runs.
    ///
    /// # Errors
    /// As the sandbox says.
    pub async fn start(&self, spec: SandboxSpec) -> Result<Running, RunnerError> {
        let sandbox = Arc::clone(&self.config.sandbox);
        tokio::task::spawn_blocking(move || sandbox.start(&spec))
            .await
            .map_err(|error| RunnerError::Io {
                action: "starting the sandbox",
                source: std::io::Error::other(error),
            })?
            .map_err(RunnerError::from)
    }

    /// Serves a sandbox's listener under a warrant. The redactor knows the values that the broker holds: they pass in no
    /// push.
    ///
    /// # Errors
    /// When the listener can't be used.
    pub fn serve(
        &self,
        listener: TcpListener,
        repositories: Vec<ServedRepository>,
        live: &Arc<LiveWarrant>,
        control: &Arc<dyn ControlPlane>,
        (gateway, inspection, redactor): (Option<GatewayConfig>, Option<Inspection>, &Redactor),
    ) -> Result<BrokerHandle, RunnerError> {
        let mut config = BrokerConfig::new(Arc::clone(&self.config.git), repositories);
        config.bounds = self.config.bounds;
        config.gateway = gateway;
        config.redactor = redactor.clone();
        config.inspection = inspection;
        config.allow_private_addresses.clone_from(&self.config.allow_private_addresses);
        config.host_addresses = Arc::clone(&self.config.host_addresses);
        Ok(Broker::new(config, Arc::clone(live), Arc::clone(control)).serve(listener)?)
    }
}

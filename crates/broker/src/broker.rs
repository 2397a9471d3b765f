//! The broker of one run, from the outside: what it is given, how it is started, what it reports.

use crate::egress::{Resolver, SystemResolver};
use crate::error::BrokerError;
use crate::gateway::{BudgetEnd, GatewayConfig};
use crate::git::Git;
use crate::inspected::Inspection;
use crate::limits::Bounds;
use crate::quarantine::Quarantine;
use crate::server;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tipstaff_model::{
    CommitId, ControlPlane, LiveWarrant, MicroUsd, RefName, Refusal, RepositoryName, Rule, Usage,
};
use tipstaff_seal::redact::Redactor;
use tokio::sync::watch;

/// A repository that the broker serves, if the warrant names it too.
#[derive(Debug, Clone)]
pub struct ServedRepository {
    /// The name in the URL.
    pub name: RepositoryName,
    /// What is read from, and where a push lands.
    pub quarantine: Quarantine,
}

/// What a broker is given besides its warrant.
#[derive(Clone)]
pub struct BrokerConfig {
    /// The door for git.
    pub git: Arc<Git>,
    /// The repositories.
    pub repositories: Vec<ServedRepository>,
    /// Who turns host names into addresses.
    pub resolver: Arc<dyn Resolver>,
    /// Addresses that may be dialled although they are private. Empty but for upstreams that the operator runs on this
    /// machine, and tests. The warrant must name the host all the same.
    pub allow_private_addresses: Vec<SocketAddr>,
    /// Addresses of hosts that the operator names himself, private ones included; nobody else is asked about these hosts.
    /// The warrant must name the host all the same.
    pub host_addresses: Arc<BTreeMap<String, Vec<IpAddr>>>,
    /// Knows what a secret looks like, and the values that this broker holds: none of them passes in a push.
    pub redactor: Redactor,
    /// The way to inspected hosts. Without it every request to one is refused.
    pub inspection: Option<Inspection>,
    /// The way to models. Without it every model request is refused.
    pub gateway: Option<GatewayConfig>,
    /// The bounds.
    pub bounds: Bounds,
}

impl BrokerConfig {
    /// The usual settings: the system's resolver, no private addresses, the bounds of the table.
    #[must_use]
    pub fn new(git: Arc<Git>, repositories: Vec<ServedRepository>) -> Self {
        Self {
            git,
            repositories,
            resolver: Arc::new(SystemResolver),
            allow_private_addresses: Vec::new(),
            host_addresses: Arc::default(),
            redactor: Redactor::new(),
            inspection: None,
            gateway: None,
            bounds: Bounds::default(),
        }
    }
}

/// A push that landed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRecord {
    /// Where.
    pub repository: RepositoryName,
    /// The ref.
    pub reference: RefName,
    /// What was there before.
    pub old: Option<CommitId>,
    /// What is there now.
    pub new: CommitId,
}

/// What a broker did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BrokerReport {
    /// The pushes that landed, in order.
    pub pushes: Vec<PushRecord>,
    /// Each distinct refusal with how often it was met, in order of their first time; at most
    /// [`Bounds::refusals_kept`] of them.
    pub refusals: Vec<(Refusal, u64)>,
    /// How often each rule refused, exact whatever the flood.
    pub refusals_by_rule: BTreeMap<Rule, u64>,
    /// Connections that were accepted.
    pub connections: u64,
    /// Bytes that the sandbox sent.
    pub bytes_in: u64,
    /// Bytes that the sandbox was sent.
    pub bytes_out: u64,
    /// Model calls that went to a provider.
    pub model_calls: u64,
    /// What they used in all.
    pub model_usage: Usage,
    /// What that costs.
    pub model_cost: MicroUsd,
}

impl BrokerReport {
    /// How many requests were refused in all.
    #[must_use]
    pub fn refusals_total(&self) -> u64 {
        self.refusals_by_rule.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// A broker that is not serving yet.
pub struct Broker {
    pub(crate) config: BrokerConfig,
    pub(crate) warrant: Arc<LiveWarrant>,
    pub(crate) control: Arc<dyn ControlPlane>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("warrant", &self.warrant).finish_non_exhaustive()
    }
}

impl Broker {
    /// The broker of one warrant.
    #[must_use]
    pub fn new(config: BrokerConfig, warrant: Arc<LiveWarrant>, control: Arc<dyn ControlPlane>) -> Self {
        Self { config, warrant, control }
    }

    /// Starts to serve the listener. Needs a running tokio runtime. Whoever connects to the listener acts under the
    /// warrant: hand in the sandbox's own listener and no other.
    ///
    /// # Errors
    /// [`BrokerError::Listener`] when the socket can't be used, [`BrokerError::State`] when a quarantine can't be cleaned.
    pub fn serve(self, listener: std::net::TcpListener) -> Result<BrokerHandle, BrokerError> {
        for repository in &self.config.repositories {
            repository.quarantine.sweep()?;
        }
        listener.set_nonblocking(true).map_err(BrokerError::Listener)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(BrokerError::Listener)?;
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(server::Shared::new(self, stopped));
        let task = tokio::spawn(server::run(listener, Arc::clone(&shared)));
        Ok(BrokerHandle { shared, stop, task })
    }
}

/// A serving broker. Dropping it ends every connection.
#[derive(Debug)]
pub struct BrokerHandle {
    shared: Arc<server::Shared>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl BrokerHandle {
    /// What it did so far.
    #[must_use]
    pub fn report(&self) -> BrokerReport {
        self.shared.report()
    }

    /// Says when a budget ended: a model request was answered with that, and the run should end. The first end stays.
    #[must_use]
    pub fn budget_ended(&self) -> watch::Receiver<Option<BudgetEnd>> {
        self.shared.budget_end.subscribe()
    }

    /// Ends every connection, writes the last refusals to the control plane, and reports.
    pub async fn stop(self) -> BrokerReport {
        let _ = self.stop.send(true);
        let Self { shared, stop, task } = self;
        // A task that panicked has nothing more to write.
        let _ = task.await;
        drop(stop);
        shared.report()
    }
}

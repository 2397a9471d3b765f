//! The broker of one run: an HTTP/1.1 server on the listener that the sandbox handed over.
//!
//! Promises: whoever connects is the run, nothing in a request says otherwise; one request per connection, so there is
//! nothing to smuggle into; every bound is checked before anything is kept; when the warrant lapses or the broker
//! stops, every open connection ends at once, except a push that is just being written down.

mod body;
mod connection;
pub(crate) mod exchange;
pub(crate) mod framing;
mod git_read;
mod landing;
mod push;
mod refusals;
pub(crate) mod respond;
#[cfg(test)]
pub(crate) mod simulated;
mod stream;
mod view;

use crate::broker::{Broker, BrokerConfig, BrokerReport, PushRecord};
use crate::egress::EgressTally;
use crate::gateway::{BudgetEnd, Ledger};
use crate::inspected::Secrets;
use refusals::Refusals;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use stream::Counters;
use tipstaff_model::{ControlPlane, LiveWarrant, Refusal, Rule};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use view::View;

pub(crate) use connection::{http, say, wants_json};
pub(crate) use stream::{CountedStream, Link};

/// How often the warrant is looked at.
const LAPSE_CHECK: Duration = Duration::from_millis(100);

/// What all connections of one broker share.
pub(crate) struct Shared {
    pub(crate) config: BrokerConfig,
    pub(crate) warrant: Arc<LiveWarrant>,
    pub(crate) control: Arc<dyn ControlPlane>,
    pub(crate) tunnels: Arc<Semaphore>,
    views: Vec<View>,
    connections: Arc<Semaphore>,
    git_processes: Arc<Semaphore>,
    counters: Arc<Counters>,
    accepted: AtomicU64,
    pushes: Mutex<Vec<PushRecord>>,
    refusals: Refusals,
    unwritten: Mutex<Option<mpsc::UnboundedReceiver<Refusal>>>,
    stopped: watch::Receiver<bool>,
    /// Becomes true once, when the warrant lapses.
    lapsed: watch::Sender<bool>,
    /// Which warrant of the run is in force; it changes when that is narrowed.
    pub(crate) generation: watch::Sender<u64>,
    /// What was exchanged with hosts.
    pub(crate) egress: Arc<EgressTally>,
    /// The secrets that the run holds handles of.
    pub(crate) secrets: Secrets,
    /// Model calls at once.
    pub(crate) model_calls: Semaphore,
    /// KiB of model requests that are held at once.
    pub(crate) model_memory: Semaphore,
    /// The money of the model calls.
    pub(crate) ledger: Arc<Ledger>,
    /// The first budget that ended.
    pub(crate) budget_end: watch::Sender<Option<BudgetEnd>>,
    address: Mutex<Option<SocketAddr>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("warrant", &self.warrant).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(broker: Broker, stopped: watch::Receiver<bool>) -> Self {
        let Broker { config, warrant, control } = broker;
        let bounds = config.bounds;
        let (refusals, unwritten) = Refusals::new(bounds.refusals_kept);
        let views = config.repositories.iter().cloned().map(View::new).collect();
        let generation = watch::Sender::new(warrant.generation());
        let egress = Arc::new(EgressTally::new(&warrant.warrant().limits));
        Self {
            warrant,
            control,
            tunnels: Arc::new(Semaphore::new(bounds.tunnels)),
            egress,
            views,
            connections: Arc::new(Semaphore::new(bounds.connections)),
            git_processes: Arc::new(Semaphore::new(bounds.git_processes)),
            counters: Arc::default(),
            accepted: AtomicU64::new(0),
            pushes: Mutex::default(),
            refusals,
            unwritten: Mutex::new(Some(unwritten)),
            stopped,
            lapsed: watch::Sender::new(false),
            generation,
            secrets: Secrets::new(
                config.inspection.as_ref().map(|one| one.secrets.clone()).unwrap_or_default(),
            ),
            model_calls: Semaphore::new(bounds.model_calls),
            model_memory: Semaphore::new(usize::try_from(bounds.model_held_bytes / 1024).unwrap_or(1)),
            ledger: Arc::default(),
            budget_end: watch::Sender::new(None),
            address: Mutex::default(),
            config,
        }
    }

    /// Has everything that is open asked about again when the warrant was narrowed.
    fn take_generation(&self) {
        let now = self.warrant.generation();
        if *self.generation.borrow() != now {
            self.egress.set_limits(&self.warrant.warrant().limits);
            self.generation.send_replace(now);
        }
    }

    /// Notes a refusal and hands it back for the answer. What was wanted may itself hold a secret.
    pub(crate) fn refuse(&self, refusal: Refusal) -> Refusal {
        let clean = |text: &str| self.config.redactor.redact(text).into_owned();
        let refusal = Refusal::new(refusal.rule, clean(&refusal.wanted), clean(&refusal.why));
        self.refusals.add(&refusal);
        refusal
    }

    /// The address that the sandbox connects to.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pushed(&self, push: PushRecord) {
        self.pushes.lock().unwrap_or_else(PoisonError::into_inner).push(push);
    }

    /// Notes that an upstream sent its key back, which it was not allowed to reach.
    pub(crate) fn key_echoed(&self) {
        self.refuse(Refusal::new(
            Rule::KeyNotAccepted,
            "an answer that holds the key",
            "an upstream sent the key back; it was taken out of the answer",
        ));
    }

    pub(crate) fn report(&self) -> BrokerReport {
        let tally = self.ledger.tally();
        let mut report = BrokerReport {
            model_calls: tally.calls,
            model_usage: tally.usage,
            model_cost: tally.cost,
            pushes: self.pushes.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            connections: self.accepted.load(Ordering::Relaxed),
            bytes_in: self.counters.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.counters.bytes_out.load(Ordering::Relaxed),
            ..BrokerReport::default()
        };
        self.refusals.fill(&mut report);
        report
    }
}

/// Serves until the stop signal, or until the handle is gone.
pub(crate) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    *shared.address.lock().unwrap_or_else(PoisonError::into_inner) = listener.local_addr().ok();
    let unwritten = shared.unwritten.lock().unwrap_or_else(PoisonError::into_inner).take();
    let writer =
        unwritten.map(|refusals| tokio::spawn(refusals::write(refusals, Arc::clone(&shared.control))));
    let mut stopped = shared.stopped.clone();
    let mut check = tokio::time::interval(LAPSE_CHECK);
    check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut open: JoinSet<()> = JoinSet::new();
    loop {
        tokio::select! {
            // An error means that the handle is gone, which is an end as well.
            _ = stopped.changed() => break,
            _ = check.tick() => {
                if !*shared.lapsed.borrow() && shared.warrant.lapse().is_some() {
                    shared.lapsed.send_replace(true);
                }
                shared.take_generation();
            }
            Some(_) = open.join_next(), if !open.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    shared.accepted.fetch_add(1, Ordering::Relaxed);
                    open.spawn(connection::serve(Arc::clone(&shared), stream.into()));
                }
                // Out of descriptors, or a connection that died in the queue: others may still come.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
        }
    }
    drop(listener);
    open.shutdown().await;
    for view in &shared.views {
        // A push that is being written down finishes first.
        drop(view.landing.lock().await);
    }
    shared.ledger.close(shared.config.bounds.settle_time).await;
    shared.refusals.close();
    if let Some(writer) = writer {
        let _ = writer.await;
    }
    shared.refusals.tell_counts(shared.control.as_ref()).await;
}

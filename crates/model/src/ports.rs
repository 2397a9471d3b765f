//! Ports: what the worker's side (runner, broker) may ask of the control plane.
//!
//! A worker holds no database handle. On one machine the binary implements this over the store; across machines it is
//! a client of the server. Every write is fenced by the worker's lease.

use crate::audit::AuditDraft;
use crate::charge::{ChargeAnswer, ChargeRequest, ChargeSettlement};
use crate::event::EventDraft;
use crate::refusal::Refusal;
use crate::run::RunUpdate;
use std::future::Future;
use std::pin::Pin;

/// A boxed future, so that ports can be trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The control plane did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// Another worker has the task now; stop and leave everything as it is.
    #[error("the lease on this task went to another worker")]
    LeaseLost,
    /// The store can't be reached or refused the write.
    #[error("the control plane can't be reached: {0}")]
    Unavailable(String),
    /// The write was not legal, such as a state that can't follow.
    #[error("the control plane refused the write: {0}")]
    Rejected(String),
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// A person asked for the end of the run.
    pub cancel_requested: bool,
    /// The warrant was revoked.
    pub warrant_revoked: bool,
    /// The warrant that is the run's now, signed, as JSON text; absent where nobody keeps it. Another one than the worker
    /// has in force is to be judged: signature, run, and that it grants nothing more.
    pub warrant: Option<String>,
}

/// What runner and broker may do to the control plane, for the one task whose lease they hold.
pub trait ControlPlane: Send + Sync {
    /// Renews the lease and brings news.
    fn heartbeat(&self) -> BoxFuture<'_, Result<Heartbeat, ControlPlaneError>>;
    /// Appends to the audit log; durable when it returns. No audit, no action.
    fn record(&self, draft: AuditDraft) -> BoxFuture<'_, Result<(), ControlPlaneError>>;
    /// Keeps a refusal: in the run's list, its story and the audit log.
    fn refusal(&self, refusal: Refusal) -> BoxFuture<'_, Result<(), ControlPlaneError>>;
    /// Says at the end of a broker how often each kept refusal was met. One that keeps no counts takes note of nothing.
    fn refusal_counts(&self, counts: Vec<(Refusal, u64)>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        let _ = counts;
        Box::pin(async { Ok(()) })
    }
    /// Appends events to the run's story, in order.
    fn events(&self, events: Vec<EventDraft>) -> BoxFuture<'_, Result<(), ControlPlaneError>>;
    /// Moves the run on, or notes facts about it; audited when the state changes.
    fn run_update(&self, update: RunUpdate) -> BoxFuture<'_, Result<(), ControlPlaneError>>;
    /// Reserves money for a model call, before it is made; durable when it returns. A control plane without a ledger
    /// grants none.
    fn charge_reserve(
        &self,
        request: ChargeRequest,
    ) -> BoxFuture<'_, Result<ChargeAnswer, ControlPlaneError>> {
        let text = format!("no money can be reserved for {} here", request.model);
        Box::pin(async move { Err(ControlPlaneError::Rejected(text)) })
    }
    /// Settles a reservation with what the call used; durable when it returns.
    fn charge_settle(&self, settlement: ChargeSettlement) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        let text = format!("there is no reservation {} here", settlement.call);
        Box::pin(async move { Err(ControlPlaneError::Rejected(text)) })
    }
}

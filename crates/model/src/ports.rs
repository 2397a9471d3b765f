//! Ports: what the worker's side (runner, broker) may ask of the control plane.
//!
//! A worker holds no database handle. On one machine the binary implements this over the store; across machines it is
//! a client of the server. Every write is fenced by the worker's lease.

use crate::action::ActionDigest;
use crate::approval::{Approval, ApprovalRequest};
use crate::audit::AuditDraft;
use crate::charge::{ChargeAnswer, ChargeRequest, ChargeSettlement};
use crate::event::EventDraft;
use crate::id::{ApprovalId, SteerId};
use crate::refusal::Refusal;
use crate::run::RunUpdate;
use crate::steer::{Steer, SteerState};
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
    /// Why the run is to end: a run that it works under ended or grants it no longer what it works with.
    pub ended_above: Option<String>,
    /// The warrant that is the run's now, signed, as JSON text; absent where nobody keeps it. Another one than the worker
    /// has in force is to be judged: signature, run, and that it grants nothing more.
    pub warrant: Option<String>,
}

/// What a person decided and said since the worker asked last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunNews {
    /// Where the questions stand that the worker asked about.
    pub approvals: Vec<Approval>,
    /// Steering that waits, in the order in which it was said.
    pub steering: Vec<Steer>,
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
    /// Asks a person. Durable and audited when it returns; asking again with the same id changes nothing and says where the
    /// question stands. What an earlier answer covers comes back as allowed at once. Where nobody can be asked, the answer
    /// is an error, and an error means no.
    fn approval_ask(&self, request: ApprovalRequest) -> BoxFuture<'_, Result<Approval, ControlPlaneError>> {
        let text = format!("nobody can be asked about {} here", request.action.tool);
        Box::pin(async move { Err(ControlPlaneError::Rejected(text)) })
    }
    /// Uses a yes: `true` exactly once, when the question is allowed, not expired, and about this very action. Audited.
    fn approval_use(
        &self,
        id: ApprovalId,
        digest: ActionDigest,
    ) -> BoxFuture<'_, Result<bool, ControlPlaneError>> {
        let text = format!("there is no approval {id} for {digest} here");
        Box::pin(async move { Err(ControlPlaneError::Rejected(text)) })
    }
    /// Takes a question back, since the agent no longer waits for its answer.
    fn approval_withdraw(&self, id: ApprovalId) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        let _ = id;
        Box::pin(async { Ok(()) })
    }
    /// Where these questions stand (one whose time is over comes back as expired), and what a person said to the run.
    /// Cheap: it is asked several times a second.
    fn news(&self, open: Vec<ApprovalId>) -> BoxFuture<'_, Result<RunNews, ControlPlaneError>> {
        let _ = open;
        Box::pin(async { Ok(RunNews::default()) })
    }
    /// What became of a piece of steering. Audited.
    fn steer_taken(
        &self,
        id: SteerId,
        state: SteerState,
        note: Option<String>,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        let _ = (id, state, note);
        Box::pin(async { Ok(()) })
    }
}

//! The control plane of one machine: the port that runner and broker speak to, over the store, fenced by the lease.

mod account;
mod approvals;
mod ledger;
mod reserve;
pub(crate) mod spool;
pub(crate) mod successor;
pub(crate) mod teller;

use ledger::Ledger;
pub(crate) use ledger::LedgerParts;
use std::sync::Arc;
use std::time::Duration;
use teller::Teller;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    ActionDigest, Approval, ApprovalId, ApprovalRequest, AuditAction, AuditDraft, AuditOutcome, BoxFuture,
    ChargeAnswer, ChargeRequest, ChargeSettlement, Clock, ControlPlane, ControlPlaneError, EventDraft,
    EventKind, Heartbeat, Refusal, RunNews, RunState, SteerId, SteerState,
};
use tipstaff_store::{ChargeSum, LEASE_MS, Lease, OrgTx, Store, StoreError};

/// How long a heartbeat, or the keeping of output, waits for the store; both are tried again.
const SOON: Duration = Duration::from_secs(2);

/// The control plane for one lease.
pub(crate) struct LocalControlPlane {
    store: Store,
    lease: Lease,
    clock: Arc<dyn Clock>,
    ledger: Ledger,
    /// Tells people.
    pub(crate) teller: Teller,
}

impl LocalControlPlane {
    /// Speaks for `lease`.
    pub(crate) fn new(parts: LedgerParts, lease: Lease) -> Self {
        let (store, clock, teller) = (parts.store.clone(), Arc::clone(&parts.clock), parts.teller.clone());
        let ledger = Ledger::new(parts, lease.clone());
        Self { store, lease, clock, ledger, teller }
    }

    fn actor(&self) -> String {
        format!("run:{}", self.lease.run())
    }

    async fn begin(&self) -> Result<OrgTx, ControlPlaneError> {
        let mut tx = self.store.begin(self.lease.scope()).await.map_err(told)?;
        tx.lease_guard(&self.lease).await.map_err(told)?;
        Ok(tx)
    }

    /// The same for what can wait: a store that does not answer holds nothing up that watches the run.
    async fn begin_soon(&self) -> Result<OrgTx, ControlPlaneError> {
        tokio::time::timeout(SOON, self.begin()).await.unwrap_or_else(|_| Err(silent()))
    }

    async fn update(&self, update: RunUpdate) -> Result<(), ControlPlaneError> {
        let ends = update.state.is_some_and(RunState::is_final);
        if ends {
            // What waits for the store comes before the end, which gives the reserve back.
            self.ledger.flush().await;
        }
        let mut tx = self.begin().await?;
        tx.run_update(&self.lease, &update).await.map_err(told)?;
        if let Some(state) = update.state {
            let (at, run) = (self.clock.wall_ms(), self.lease.run());
            let reason = update.exit_reason.map(tipstaff_model::ExitReason::as_str);
            let body = serde_json::json!({ "state": state.as_str(), "reason": reason });
            let mut draft =
                AuditDraft::new(self.actor(), AuditAction::RunState, format!("run:{run}")).with("to", state);
            if let Some(reason) = update.exit_reason {
                draft = draft.with("reason", reason);
            }
            tx.event_add(&self.lease, &[EventDraft { kind: EventKind::State, at, body }])
                .await
                .map_err(told)?;
            tx.audit_note(draft);
            if state.is_final() {
                tx.warrant_revoke_run(run).await.map_err(told)?;
                tx.audit_note(decided(&update, run, state));
                // Single calls are in the ledger; the log has their sum.
                let sum = tx.charge_of_run(run).await.map_err(told)?;
                if sum.calls > 0 {
                    tx.audit_note(spent(&sum, run));
                }
            }
        }
        tx.commit().await.map_err(told)?;
        if ends {
            self.ledger.end().await;
            self.teller.send_and_wait().await;
        }
        Ok(())
    }
}

fn silent() -> ControlPlaneError {
    ControlPlaneError::Unavailable(format!("the store did not answer within {} s", SOON.as_secs()))
}

/// The verdict on a run, with what it stands on.
fn decided(update: &RunUpdate, run: tipstaff_model::RunId, state: RunState) -> AuditDraft {
    let outcome = match state {
        RunState::Done => AuditOutcome::Ok,
        _ => AuditOutcome::Failed,
    };
    let mut draft = AuditDraft::new("system", AuditAction::RunDecided, format!("run:{run}"))
        .outcome(outcome)
        .with("state", state);
    if let Some(reason) = update.exit_reason {
        draft = draft.with("reason", reason);
    }
    if let (Some(branch), Some(commit)) = (&update.branch, &update.commit) {
        draft = draft.with("branch", branch).with("commit", commit);
    }
    if let Some(files) = update.files_changed {
        draft = draft.with("files_changed", files);
    }
    draft
}

/// What a run spent in all.
fn spent(sum: &ChargeSum, run: tipstaff_model::RunId) -> AuditDraft {
    AuditDraft::new("system", AuditAction::RunCharged, format!("run:{run}"))
        .with("cost", sum.cost)
        .with("calls", sum.calls)
        .with("tokens", sum.usage.total())
        .with("price_unknown", sum.price_unknown)
        .with("estimated", sum.estimated)
}

/// What the worker is told of an error of the store.
pub(crate) fn told(error: StoreError) -> ControlPlaneError {
    match error {
        StoreError::LeaseLost => ControlPlaneError::LeaseLost,
        StoreError::Transition { .. }
        | StoreError::Input { .. }
        | StoreError::Missing { .. }
        | StoreError::ApprovalMismatch { .. }
        | StoreError::Conflict(_) => ControlPlaneError::Rejected(error.to_string()),
        other => ControlPlaneError::Unavailable(format!("{other} [{}]", other.code())),
    }
}

impl ControlPlane for LocalControlPlane {
    fn heartbeat(&self) -> BoxFuture<'_, Result<Heartbeat, ControlPlaneError>> {
        Box::pin(async move {
            let renewed = tokio::time::timeout(SOON, self.store.lease_renew(&self.lease, LEASE_MS)).await;
            let news = renewed.map_err(|_| silent())?.map_err(told)?;
            self.ledger.warrant_seen(news.warrant.as_deref());
            Ok(news)
        })
    }

    fn record(&self, draft: AuditDraft) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async move {
            // The end of the workspace comes after the end of the lease; it is the one thing that needs none.
            let mut tx = if draft.action == AuditAction::WorkspaceDestroyed {
                let mut tx = self.store.begin(self.lease.scope()).await.map_err(told)?;
                tx.run_workspace_destroyed(self.lease.run()).await.map_err(told)?;
                tx
            } else {
                self.begin().await?
            };
            if draft.action == AuditAction::PushAccepted {
                let (kind, body) = match draft.outcome {
                    AuditOutcome::Ok => (EventKind::Push, serde_json::json!({ "detail": draft.detail })),
                    AuditOutcome::Refused | AuditOutcome::Failed => {
                        let text = "the push that was accepted did not land: its ref could not be moved";
                        (EventKind::Notice, serde_json::json!({ "text": text }))
                    }
                };
                let event = EventDraft { kind, at: self.clock.wall_ms(), body };
                tx.event_add(&self.lease, &[event]).await.map_err(told)?;
            }
            tx.audit_note(draft);
            tx.commit().await.map_err(told)
        })
    }

    fn refusal(&self, refusal: Refusal) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async move {
            let mut tx = self.begin().await?;
            tx.refusal_add(&self.lease, &refusal).await.map_err(told)?;
            let body = serde_json::json!({ "rule": refusal.rule.id(), "wanted": refusal.wanted, "why": refusal.why });
            let event = EventDraft { kind: EventKind::Refusal, at: self.clock.wall_ms(), body };
            tx.event_add(&self.lease, &[event]).await.map_err(told)?;
            tx.audit_note(
                AuditDraft::new(self.actor(), AuditAction::Refused, format!("run:{}", self.lease.run()))
                    .outcome(AuditOutcome::Refused)
                    .with("rule", refusal.rule)
                    .with("wanted", &refusal.wanted),
            );
            tx.commit().await.map_err(told)
        })
    }

    fn refusal_counts(&self, counts: Vec<(Refusal, u64)>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        let at = self.clock.wall_ms();
        let events = counts.into_iter().map(|(refusal, times)| EventDraft {
            kind: EventKind::Refusal,
            at,
            body: serde_json::json!({
                "rule": refusal.rule.id(), "wanted": refusal.wanted, "why": refusal.why, "times": times,
            }),
        });
        self.events(events.collect())
    }

    fn events(&self, events: Vec<EventDraft>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async move {
            let mut tx = self.begin_soon().await?;
            tx.event_add(&self.lease, &events).await.map_err(told)?;
            tx.commit().await.map_err(told)
        })
    }

    fn run_update(&self, update: RunUpdate) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(self.update(update))
    }

    fn charge_reserve(
        &self,
        request: ChargeRequest,
    ) -> BoxFuture<'_, Result<ChargeAnswer, ControlPlaneError>> {
        Box::pin(self.ledger.reserve(request))
    }

    fn charge_settle(&self, settlement: ChargeSettlement) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(self.ledger.settle(settlement))
    }

    fn approval_ask(&self, request: ApprovalRequest) -> BoxFuture<'_, Result<Approval, ControlPlaneError>> {
        Box::pin(self.ask(request))
    }

    fn approval_use(
        &self,
        id: ApprovalId,
        digest: ActionDigest,
    ) -> BoxFuture<'_, Result<bool, ControlPlaneError>> {
        Box::pin(self.use_once(id, digest))
    }

    fn approval_withdraw(&self, id: ApprovalId) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(self.take_back(id))
    }

    fn news(&self, open: Vec<ApprovalId>) -> BoxFuture<'_, Result<RunNews, ControlPlaneError>> {
        Box::pin(self.look(open))
    }

    fn steer_taken(
        &self,
        id: SteerId,
        state: SteerState,
        note: Option<String>,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(self.steering_ended(id, state, note))
    }
}

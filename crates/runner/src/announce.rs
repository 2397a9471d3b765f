//! Live news of a run, for whoever watches: a terminal, a log, a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    ActionDigest, AgentEvent, Approval, ApprovalId, ApprovalRequest, AuditDraft, BoxFuture, ChargeAnswer,
    ChargeRequest, ChargeSettlement, ControlPlane, ControlPlaneError, EventDraft, Heartbeat, MicroUsd,
    Refusal, RunNews, RunState, Steer, SteerId, SteerState,
};
use tipstaff_seal::redact::Redactor;

/// Which stream of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The run is in another state now.
    State(RunState),
    /// The command wrote this; harmless for a terminal.
    Output(Stream, String),
    /// Something was refused.
    Refused(Refusal),
    /// The agent did something; redacted and harmless for a terminal.
    Agent(Box<AgentEvent>),
    /// A command of the verification began, or ended with a code.
    Verify {
        /// Which one, from 1.
        step: usize,
        /// The command.
        command: String,
        /// How it ended, once it has.
        code: Option<i32>,
    },
    /// A model call was settled: what the run has cost so far, and what it may.
    Spent {
        /// So far.
        spent: MicroUsd,
        /// At most.
        budget: MicroUsd,
    },
    /// A remark of ours.
    Remark(String),
    /// A person is asked, or what became of a question.
    Approval(Box<Approval>),
    /// What a person told the run, and what became of it.
    Steer {
        /// What.
        steer: Steer,
        /// What became of it.
        state: SteerState,
        /// Why it can't be done.
        note: Option<String>,
    },
}

/// Whoever watches.
pub trait Observer: Send + Sync {
    /// Takes the news; must not block for long.
    fn notice(&self, notice: Notice);
}

/// A control plane that also tells an observer.
pub(crate) struct Announcing {
    pub(crate) inner: Arc<dyn ControlPlane>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) budget: MicroUsd,
    /// What a run wanted or failed at is in its own words, too.
    pub(crate) redactor: Redactor,
    /// What settled calls cost together, in micro-US-dollars.
    pub(crate) spent: AtomicU64,
}

impl Announcing {
    fn redacted(&self, mut refusal: Refusal) -> Refusal {
        refusal.wanted = self.redactor.redact(&refusal.wanted).into_owned();
        refusal.why = self.redactor.redact(&refusal.why).into_owned();
        refusal
    }
}

impl ControlPlane for Announcing {
    fn heartbeat(&self) -> BoxFuture<'_, Result<Heartbeat, ControlPlaneError>> {
        self.inner.heartbeat()
    }

    fn record(&self, draft: AuditDraft) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.inner.record(draft)
    }

    fn refusal(&self, refusal: Refusal) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        let refusal = self.redacted(refusal);
        self.observer.notice(Notice::Refused(refusal.clone()));
        self.inner.refusal(refusal)
    }

    fn refusal_counts(&self, counts: Vec<(Refusal, u64)>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.inner.refusal_counts(
            counts.into_iter().map(|(refusal, times)| (self.redacted(refusal), times)).collect(),
        )
    }

    fn events(&self, events: Vec<EventDraft>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.inner.events(events)
    }

    fn run_update(&self, mut update: RunUpdate) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        update.error = update.error.map(|error| self.redactor.redact(&error).into_owned());
        let state = update.state;
        Box::pin(async move {
            self.inner.run_update(update).await?;
            if let Some(state) = state {
                self.observer.notice(Notice::State(state));
            }
            Ok(())
        })
    }

    fn charge_reserve(
        &self,
        request: ChargeRequest,
    ) -> BoxFuture<'_, Result<ChargeAnswer, ControlPlaneError>> {
        self.inner.charge_reserve(request)
    }

    fn charge_settle(&self, settlement: ChargeSettlement) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        let cost = settlement.cost.micro();
        Box::pin(async move {
            self.inner.charge_settle(settlement).await?;
            let spent = self.spent.fetch_add(cost, Ordering::Relaxed).saturating_add(cost);
            if cost > 0 {
                let spent = MicroUsd::from_micro(spent);
                self.observer.notice(Notice::Spent { spent, budget: self.budget });
            }
            Ok(())
        })
    }

    fn approval_ask(&self, request: ApprovalRequest) -> BoxFuture<'_, Result<Approval, ControlPlaneError>> {
        self.inner.approval_ask(request)
    }

    fn approval_use(
        &self,
        id: ApprovalId,
        digest: ActionDigest,
    ) -> BoxFuture<'_, Result<bool, ControlPlaneError>> {
        self.inner.approval_use(id, digest)
    }

    fn approval_withdraw(&self, id: ApprovalId) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.inner.approval_withdraw(id)
    }

    fn news(&self, open: Vec<ApprovalId>) -> BoxFuture<'_, Result<RunNews, ControlPlaneError>> {
        self.inner.news(open)
    }

    fn steer_taken(
        &self,
        id: SteerId,
        state: SteerState,
        note: Option<String>,
    ) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.inner.steer_taken(id, state, note)
    }
}

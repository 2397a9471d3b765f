//! Live news of a run, for whoever watches: a terminal, a log, a test.

use std::sync::Arc;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    AuditDraft, BoxFuture, ControlPlane, ControlPlaneError, EventDraft, Heartbeat, Refusal, RunState,
};

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
    /// A remark of ours.
    Remark(String),
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
}

impl ControlPlane for Announcing {
    fn heartbeat(&self) -> BoxFuture<'_, Result<Heartbeat, ControlPlaneError>> {
        self.inner.heartbeat()
    }

    fn record(&self, draft: AuditDraft) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.inner.record(draft)
    }

    fn refusal(&self, refusal: Refusal) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.observer.notice(Notice::Refused(refusal.clone()));
        self.inner.refusal(refusal)
    }

    fn events(&self, events: Vec<EventDraft>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        self.inner.events(events)
    }

    fn run_update(&self, update: RunUpdate) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        let state = update.state;
        Box::pin(async move {
            self.inner.run_update(update).await?;
            if let Some(state) = state {
                self.observer.notice(Notice::State(state));
            }
            Ok(())
        })
    }
}

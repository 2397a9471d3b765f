//! Speaking with an agent while it works: its questions, a person's answers, what a person tells it.
//!
//! Promises: nothing that is asked goes on before a policy let it through or a person's answer was used, once; whatever
//! goes wrong on the way is a no; a question belongs to the warrant that was in force when it was asked; an agent that does
//! not read, floods, lies or dies in the middle leaves no question open and keeps nobody waiting.

mod attendance;
mod input;
mod questions;
mod shown;
#[cfg(test)]
mod tests;

pub(crate) use attendance::Attendance;

use crate::announce::Notice;
use crate::session::{Listener, Session};
use crate::supervise::Watch;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_engine::Conversation;
use tipstaff_model::{Approval, ApprovalState, ControlPlaneError, Entropy, Policies, Refusal, Rule};
use tipstaff_seal::redact::Redactor;

/// How long the control plane may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an attended run speaks with, and by which rules.
pub(crate) struct Attended {
    pub(crate) conversation: Box<dyn Conversation>,
    /// All layers.
    pub(crate) policies: Policies,
    /// How long a person has to answer.
    pub(crate) ask_timeout: Duration,
    pub(crate) redactor: Redactor,
    pub(crate) entropy: Arc<dyn Entropy>,
}

/// Why a run can't go on.
#[derive(Debug)]
pub(crate) enum End {
    /// The agent can't be spoken with any more.
    Broken(String),
    /// The control plane says so.
    Control(ControlPlaneError),
}

/// Whom to ask and tell.
pub(crate) struct Present<'a, 'w> {
    pub(crate) watch: &'a Watch<'w>,
    pub(crate) session: &'a mut Session,
    pub(crate) listener: &'a Listener<'a>,
}

impl Present<'_, '_> {
    fn remark(&mut self, text: String) {
        self.session.remark(text, self.listener);
    }

    /// Tells whoever watches where a question stands. A yes is told when it is used, which is at once or never.
    fn tell(&self, approval: &Approval) {
        if approval.state == ApprovalState::Allowed {
            return;
        }
        self.listener.observer.notice(Notice::Approval(Box::new(approval.clone())));
    }

    /// Puts a refusal on record.
    async fn refuse(&mut self, rule: Rule, wanted: &str, why: &str) -> Result<(), End> {
        match within(self.watch.control.refusal(Refusal::new(rule, wanted, why))).await {
            Ok(()) => Ok(()),
            Err(ControlPlaneError::LeaseLost) => Err(End::Control(ControlPlaneError::LeaseLost)),
            Err(error) => {
                self.remark(format!("a refusal of {} is not on record: {error}", rule.id()));
                Ok(())
            }
        }
    }
}

/// What the control plane says, if it says it in time.
async fn within<T>(
    asked: impl Future<Output = Result<T, ControlPlaneError>>,
) -> Result<T, ControlPlaneError> {
    let late = || ControlPlaneError::Unavailable(format!("no answer within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(late()))
}

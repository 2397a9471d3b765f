//! What people are told about budgets: that a share of one is spent, and that one refused a call.
//!
//! Promises: each share of a budget is told once in a period, and so is its first refusal, however many calls cross it
//! at once and whoever dies in between: what was told stands in the budget's own row, written in the transaction that
//! also writes the audit record, the event of the run and the message for the operator's command.

use crate::budget::{BUDGET_REACHED, BUDGET_STOPPED, Binding};
use crate::charge::ChargeAccount;
use crate::error::StoreError;
use crate::lease::Lease;
use crate::sql::values;
use crate::transaction::OrgTx;
use serde_json::{Value as Json, json};
use tipstaff_model::id::RowId;
use tipstaff_model::{
    AuditAction, AuditDraft, BudgetHolder, BudgetPeriod, CalendarDay, EventDraft, EventKind, MicroUsd, RunId,
};

/// The kind of the outbox messages that carry alerts.
pub const BUDGET_ALERT: &str = "budget.threshold";

/// A share of a budget was spent, or the budget refused a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetAlert {
    /// The budget.
    pub budget: RowId,
    /// Whom it binds.
    pub holder: BudgetHolder,
    /// How long it lasts.
    pub period: BudgetPeriod,
    /// The first day of the period.
    pub since: CalendarDay,
    /// How much may be spent in it.
    pub amount: MicroUsd,
    /// How much is.
    pub spent: MicroUsd,
    /// The share that was reached, in percent of the amount.
    pub percent: u16,
    /// Whether people wanted to be told at this share.
    pub notify: bool,
    /// Whether calls are slowed down from here on.
    pub slow: bool,
    /// Whether calls are refused from here on.
    pub stop: bool,
    /// Whether the share was not quite reached, but a call that needs more than is left was refused.
    pub refused: bool,
}

impl BudgetAlert {
    /// The actions, as stable words.
    #[must_use]
    pub fn actions(&self) -> String {
        let words = [("notify", self.notify), ("slow", self.slow), ("stop", self.stop)];
        let words: Vec<&str> = words.iter().filter(|(_, on)| *on).map(|(word, _)| *word).collect();
        words.join(",")
    }

    /// One line for people.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { holder, period, amount, spent, percent, .. } = self;
        let what = format!("the budget of {holder} per {period}, {amount}");
        if self.refused {
            return format!("{what}, refused a call that needs more than is left: {spent} is spent");
        }
        let then = match (self.stop, self.slow) {
            (true, _) => "; model calls are refused from here on",
            (false, true) => "; model calls come one at a time with a growing pause from here on",
            _ => "",
        };
        format!("{what}, is {percent} % spent: {spent}{then}")
    }

    /// The same for programs.
    #[must_use]
    pub fn body(&self, run: RunId) -> Json {
        json!({
            "kind": BUDGET_ALERT, "budget": self.budget, "holder": self.holder.to_string(), "per": self.period,
            "since": self.since, "amount_micro_usd": self.amount.micro(), "spent_micro_usd": self.spent.micro(),
            "percent": self.percent, "actions": self.actions(), "refused": self.refused, "run": run, "text": self.text(),
        })
    }
}

/// The shares that were reached since the last time, each as an alert.
fn reached(binding: &Binding) -> Vec<BudgetAlert> {
    let spent = u128::from(binding.spent.micro()) * 100;
    let amount = u128::from(binding.amount.micro()).max(1);
    let actions = &binding.actions;
    let new = |mark: &u16| u64::from(*mark) > binding.reached && spent >= u128::from(*mark) * amount;
    let told = |mark: &u16| binding.stopped && actions.stop == Some(*mark);
    let marks = actions.marks().into_iter().filter(|mark| new(mark) && !told(mark));
    marks.map(|mark| alert(binding, mark, false)).collect()
}

fn alert(binding: &Binding, percent: u16, refused: bool) -> BudgetAlert {
    let actions = &binding.actions;
    BudgetAlert {
        budget: binding.id,
        holder: binding.holder.clone(),
        period: binding.period,
        since: binding.since,
        amount: binding.amount,
        spent: binding.spent,
        percent,
        notify: actions.notify.contains(&percent),
        slow: actions.slow.is_some_and(|slow| slow <= percent),
        stop: actions.stop.is_some_and(|stop| stop <= percent),
        refused,
    }
}

impl OrgTx {
    /// Looks whether settlements of this transaction took a budget of the lease's run over one of its shares, and keeps
    /// what is new: in the audit log, for the operator's command, and in the run's story while the lease is held.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn budget_alert(
        &mut self,
        lease: &Lease,
        account: &ChargeAccount,
    ) -> Result<Vec<BudgetAlert>, StoreError> {
        let today = CalendarDay::at(self.inner.now());
        let mut alerts = Vec::new();
        for binding in self.charge_binding(account, today).await? {
            let new = reached(&binding);
            if let Some(last) = new.last() {
                let row = values![binding.id, i64::from(last.percent), binding.since.number()];
                self.change(BUDGET_REACHED, row).await?;
            }
            alerts.extend(new);
        }
        self.budget_tell(lease, &alerts).await?;
        Ok(alerts)
    }

    /// Keeps that a budget refused a call, the first time in its period.
    pub(crate) async fn budget_refused(
        &mut self,
        lease: &Lease,
        binding: &Binding,
    ) -> Result<Option<BudgetAlert>, StoreError> {
        let Some(stop) = binding.actions.stop.filter(|_| !binding.stopped) else { return Ok(None) };
        self.change(BUDGET_STOPPED, values![binding.id, binding.since.number()]).await?;
        if binding.reached >= u64::from(stop) {
            return Ok(None);
        }
        let alert = alert(binding, stop, true);
        self.budget_tell(lease, std::slice::from_ref(&alert)).await?;
        Ok(Some(alert))
    }

    async fn budget_tell(&mut self, lease: &Lease, alerts: &[BudgetAlert]) -> Result<(), StoreError> {
        let run = lease.run();
        for alert in alerts {
            self.audit_note(
                AuditDraft::new("system", AuditAction::BudgetThreshold, format!("budget:{}", alert.holder))
                    .with("per", alert.period)
                    .with("since", alert.since)
                    .with("percent", alert.percent)
                    .with("actions", alert.actions())
                    .with("amount", alert.amount)
                    .with("spent", alert.spent)
                    .with("refused", alert.refused)
                    .with("run", run),
            );
            let body = alert.body(run);
            if alert.notify {
                self.outbox_add(BUDGET_ALERT, &body).await?;
            }
            let event = EventDraft { kind: EventKind::Notice, at: self.inner.now(), body };
            match self.event_add(lease, &[event]).await {
                Ok(_) | Err(StoreError::LeaseLost) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

//! The ledger of model calls: money is reserved before a call and settled after it.
//!
//! Promises: what is spent and reserved together never exceeds a budget by a reservation, however many calls ask at
//! once; reserving and settling the same call again changes nothing; a reservation reads a bounded number of rows,
//! however many calls there were before; the totals are the sums of the rows, in the same transaction.
//!
//! A reservation is fenced by the lease. A settlement is not: it records money that was spent, whoever holds the task
//! by now. It can do no more than replace a reservation that the run itself made.

use crate::charge::*;
use crate::config::Engine;
use crate::error::StoreError;
use crate::lease::Lease;
use crate::sql::{Value, values};
use crate::transaction::OrgTx;
use tipstaff_model::{
    BudgetScope, CalendarDay, CallOutcome, ChargeAnswer, ChargeRequest, ChargeSettlement, MicroUsd, RunId,
    Usage,
};

/// A budget at the moment of a reservation.
struct Bound {
    scope: BudgetScope,
    limit: MicroUsd,
    spent: MicroUsd,
    reserved: MicroUsd,
}

impl Bound {
    /// What may be reserved now.
    fn free(&self) -> u64 {
        self.limit.micro().saturating_sub(self.spent.micro().saturating_add(self.reserved.micro()))
    }

    /// What might be reserved if every call under way cost nothing.
    fn left(&self) -> u64 {
        self.limit.micro().saturating_sub(self.spent.micro())
    }
}

fn weigh(bounds: &[Bound], request: &ChargeRequest) -> ChargeAnswer {
    // A call that may cost something is never granted nothing.
    let least = request.least.micro().max(1).min(request.most.micro());
    let free = bounds.iter().map(Bound::free).min().unwrap_or(0).min(request.most.micro());
    if free >= least {
        return ChargeAnswer::Granted(MicroUsd::from_micro(free));
    }
    match bounds.iter().find(|bound| bound.left() < least) {
        Some(Bound { scope, limit, spent, .. }) => {
            ChargeAnswer::Exhausted { scope: *scope, limit: *limit, spent: *spent }
        }
        None => ChargeAnswer::Wait,
    }
}

/// What a settlement writes.
struct Entry<'s> {
    state: ChargeState,
    provider: &'s str,
    model: &'s str,
    usage: Usage,
    cost: MicroUsd,
    price_unknown: bool,
    estimated: bool,
    outcome: CallOutcome,
    status: u16,
    duration_ms: u64,
}

impl OrgTx {
    /// Reserves money for a call of the lease's run. Durable once the transaction is committed.
    ///
    /// # Errors
    /// `lease-lost`; `input` for names that are none; `conflict` for a call of another run.
    pub async fn charge_reserve(
        &mut self,
        lease: &Lease,
        account: &ChargeAccount,
        request: &ChargeRequest,
    ) -> Result<ChargeAnswer, StoreError> {
        self.lease_guard(lease).await?;
        for (what, name) in [("provider", &request.provider), ("model", &request.model)] {
            if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
                let why = format!("write 1 to {LONGEST_NAME} bytes without control characters");
                return Err(StoreError::Input { what, why });
            }
        }
        self.charge_gate().await?;
        let run = lease.run();
        if let Some(known) = self.charge_get(request.call).await? {
            return match known.run == run {
                true => Ok(ChargeAnswer::Granted(known.reserved)),
                false => Err(StoreError::Input { what: "call", why: "another run made it".to_owned() }),
            };
        }
        let now = self.inner.now();
        let today = CalendarDay::at(now);
        let agent = account.agent.as_deref().unwrap_or_default();
        let bounds = self.charge_bounds(run, account, today).await?;
        let answer = weigh(&bounds, request);
        if let ChargeAnswer::Granted(amount) = answer {
            let row: &[Value<'_>] = values![
                request.call,
                run,
                agent,
                &request.provider,
                &request.model,
                today.number(),
                micro(amount),
                now
            ];
            self.change(CHARGE_ADD, row).await?;
            self.charge_count(run, agent, today, 0, micro(amount)).await?;
        }
        Ok(answer)
    }

    /// Every budget that binds a run today.
    async fn charge_bounds(
        &mut self,
        run: RunId,
        account: &ChargeAccount,
        today: CalendarDay,
    ) -> Result<Vec<Bound>, StoreError> {
        let day = CalendarDay::from_number(NO_DAY);
        let (spent, reserved) = self.charge_total(BudgetScope::Run, &run.to_string(), day, day).await?;
        let mut bounds = vec![Bound { scope: BudgetScope::Run, limit: account.run_budget, spent, reserved }];
        for budget in self.budget_list().await? {
            let (scope, name) = (budget.holder.scope(), budget.holder.name());
            if scope == BudgetScope::Agent && account.agent.as_deref() != Some(name) {
                continue;
            }
            let since = today.first_of(budget.period);
            let (spent, reserved) = self.charge_total(scope, name, since, today).await?;
            bounds.push(Bound { scope, limit: budget.amount, spent, reserved });
        }
        Ok(bounds)
    }

    /// One ledger of an org at a time: SQLite has one writer anyway, PostgreSQL takes this row's lock.
    async fn charge_gate(&mut self) -> Result<(), StoreError> {
        if self.engine() == Engine::Postgres {
            self.change(CHARGE_TOTAL_ADD, values![GATE, "", NO_DAY, 0, 0]).await?;
        }
        Ok(())
    }

    /// Adds to the running totals of a run, its agent and the org.
    async fn charge_count(
        &mut self,
        run: RunId,
        agent: &str,
        day: CalendarDay,
        spent: i64,
        reserved: i64,
    ) -> Result<(), StoreError> {
        let run = run.to_string();
        let rows = [
            (BudgetScope::Run, run.as_str(), NO_DAY),
            (BudgetScope::Agent, agent, day.number()),
            (BudgetScope::Org, "", day.number()),
        ];
        for (scope, name, day) in rows {
            if scope == BudgetScope::Agent && name.is_empty() {
                continue;
            }
            self.change(CHARGE_TOTAL_ADD, values![scope.as_str(), name, day, spent, reserved]).await?;
        }
        Ok(())
    }

    /// Settles a call of the lease's run with what it used; whether that changed anything. Works after the lease was
    /// lost, and corrects what was presumed in between: money that was spent is on record whoever has the task.
    ///
    /// # Errors
    /// `missing` when the run reserved nothing for this call.
    pub async fn charge_settle(
        &mut self,
        lease: &Lease,
        settlement: &ChargeSettlement,
    ) -> Result<bool, StoreError> {
        if lease.token().org != self.org() {
            return Err(StoreError::LeaseLost);
        }
        self.charge_gate().await?;
        let known = self.charge_get(settlement.call).await?.filter(|known| known.run == lease.run());
        let known = known.ok_or(StoreError::Missing { what: "reservation" })?;
        if known.state == ChargeState::Settled {
            return Ok(false);
        }
        let fits = |name: &str| {
            !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control)
        };
        let entry = Entry {
            state: ChargeState::Settled,
            provider: settlement.provider.as_deref().filter(|name| fits(name)).unwrap_or(&known.provider),
            // The provider's own word is kept where it is a name.
            model: if fits(&settlement.model) { &settlement.model } else { &known.model },
            usage: settlement.usage,
            cost: settlement.cost,
            price_unknown: settlement.price_unknown,
            estimated: settlement.estimated,
            outcome: settlement.outcome,
            status: settlement.status,
            duration_ms: settlement.duration_ms,
        };
        self.charge_write(&known, &entry).await?;
        Ok(true)
    }

    async fn charge_write(&mut self, known: &Charge, entry: &Entry<'_>) -> Result<(), StoreError> {
        let tokens = |count: u64| stored(count, MOST_TOKENS);
        let (usage, now) = (entry.usage, self.inner.now());
        let row: &[Value<'_>] = values![
            known.call,
            entry.state.as_str(),
            entry.model,
            micro(entry.cost),
            tokens(usage.input),
            tokens(usage.cache_read),
            tokens(usage.cache_write),
            tokens(usage.cache_write_1h),
            tokens(usage.output),
            tokens(usage.reasoning),
            i64::from(entry.price_unknown),
            i64::from(entry.estimated),
            entry.outcome.as_str(),
            i64::from(entry.status),
            stored(entry.duration_ms, MOST_TOKENS),
            now,
            entry.provider,
        ];
        self.change(CHARGE_SETTLE, row).await?;
        let released = if known.state == ChargeState::Reserved { micro(known.reserved) } else { 0 };
        let spent = micro(entry.cost) - micro(known.cost);
        self.charge_count(known.run, &known.agent, known.day, spent, -released).await?;
        let used = tokens(usage.total()) - tokens(known.usage.total());
        self.run_charge_add(known.run, spent, used).await
    }

    /// Ends the ledger of a run that ended: what is still reserved counts as spent, since nobody knows better. A
    /// settlement that arrives later corrects it.
    pub(crate) async fn charge_close(&mut self, run: RunId) -> Result<(), StoreError> {
        if self.first(CHARGE_LIST_OPEN_OF_RUN, values![run]).await?.is_none() {
            return Ok(());
        }
        self.charge_gate().await?;
        let rows = self.all(CHARGE_LIST_OPEN_OF_RUN, values![run]).await?;
        for known in rows.iter().map(charge) {
            let known = known?;
            let entry = Entry {
                state: ChargeState::Presumed,
                provider: &known.provider,
                model: &known.model,
                usage: Usage::default(),
                cost: known.reserved,
                price_unknown: false,
                estimated: true,
                outcome: CallOutcome::Aborted,
                status: 0,
                duration_ms: 0,
            };
            self.charge_write(&known, &entry).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipstaff_model::id::RowId;
    use tipstaff_model::{FixedClock, FixedEntropy};

    fn bound(scope: BudgetScope, limit: u64, spent: u64, reserved: u64) -> Bound {
        let micro = MicroUsd::from_micro;
        Bound { scope, limit: micro(limit), spent: micro(spent), reserved: micro(reserved) }
    }

    fn request(most: u64, least: u64) -> ChargeRequest {
        ChargeRequest {
            call: RowId::new(&FixedClock::at(0), &FixedEntropy::seeded(1)),
            provider: "openai".to_owned(),
            model: "gpt".to_owned(),
            most: MicroUsd::from_micro(most),
            least: MicroUsd::from_micro(least),
        }
    }

    #[test]
    fn the_tightest_budget_decides() {
        let bounds = [bound(BudgetScope::Run, 100, 10, 20), bound(BudgetScope::Org, 1_000, 0, 960)];
        let granted = |most, least| weigh(&bounds, &request(most, least));
        assert_eq!(granted(30, 30), ChargeAnswer::Granted(MicroUsd::from_micro(30)));
        assert_eq!(granted(500, 40), ChargeAnswer::Granted(MicroUsd::from_micro(40)));
        // Calls under way hold what is missing.
        assert_eq!(granted(500, 41), ChargeAnswer::Wait);
        assert_eq!(granted(500, 90), ChargeAnswer::Wait);
        let spent = ChargeAnswer::Exhausted {
            scope: BudgetScope::Run,
            limit: MicroUsd::from_micro(100),
            spent: MicroUsd::from_micro(10),
        };
        assert_eq!(granted(500, 91), spent);
        // What costs nothing is never refused.
        let gone = [bound(BudgetScope::Run, 100, 150, 0)];
        assert_eq!(weigh(&gone, &request(0, 0)), ChargeAnswer::Granted(MicroUsd::ZERO));
        assert!(matches!(weigh(&gone, &request(1, 1)), ChargeAnswer::Exhausted { .. }));
        assert!(matches!(weigh(&gone, &request(1, 0)), ChargeAnswer::Exhausted { .. }));
    }
}

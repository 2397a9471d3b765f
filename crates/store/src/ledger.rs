//! The ledger of model calls: money is reserved before a call and settled after it.
//!
//! Promises: what is spent and reserved together never exceeds a budget by a reservation, however many calls ask at
//! once; reserving and settling the same call again changes nothing; a reservation reads a bounded number of rows,
//! however many calls there were before; the totals are the sums of the rows, in the same transaction.
//!
//! A reservation is fenced by the lease. A settlement is not: it records money that was spent, whoever holds the task
//! by now. It can do no more than replace a reservation that the run itself made.

use crate::budget::Binding;
use crate::budget_alert::BudgetAlert;
use crate::charge::*;
use crate::config::Engine;
use crate::error::StoreError;
use crate::lease::Lease;
use crate::sql::{Value, values};
use crate::transaction::OrgTx;
use tipstaff_model::id::RowId;
use tipstaff_model::{
    BudgetHolder, BudgetPeriod, BudgetScope, CalendarDay, CallOutcome, ChargeAnswer, ChargeRequest,
    ChargeSettlement, MicroUsd, RunId, Usage,
};

/// A run's reserve is at most this part of what its tightest budget has free.
const HOLD_SHARE: u64 = 20;
/// A smaller reserve pays for no call.
const LEAST_HOLD: MicroUsd = MicroUsd::from_micro(1_000);

/// A budget at the moment of a reservation.
struct Bound {
    scope: BudgetScope,
    /// What may be spent; absent where nothing is refused.
    limit: Option<MicroUsd>,
    spent: MicroUsd,
    reserved: MicroUsd,
}

impl Bound {
    fn of(binding: &Binding) -> Self {
        Self {
            scope: binding.holder.scope(),
            limit: binding.actions.limit(binding.amount),
            spent: binding.spent,
            reserved: binding.reserved,
        }
    }

    /// What may be reserved now.
    fn free(&self) -> u64 {
        let used = self.spent.micro().saturating_add(self.reserved.micro());
        self.limit.map_or(u64::MAX, |limit| limit.micro().saturating_sub(used))
    }

    /// What might be reserved if every call under way cost nothing.
    fn left(&self) -> u64 {
        self.limit.map_or(u64::MAX, |limit| limit.micro().saturating_sub(self.spent.micro()))
    }
}

/// What the bounds say to a request, and which of them said that it is spent.
fn weigh(bounds: &[Bound], request: &ChargeRequest) -> (ChargeAnswer, Option<usize>) {
    // A call that may cost something is never granted nothing.
    let least = request.least.micro().max(1).min(request.most.micro());
    let free = bounds.iter().map(Bound::free).min().unwrap_or(0).min(request.most.micro());
    if free >= least {
        return (ChargeAnswer::Granted(MicroUsd::from_micro(free)), None);
    }
    match bounds.iter().enumerate().find(|(_, bound)| bound.left() < least) {
        Some((place, Bound { scope, limit, spent, .. })) => {
            let limit = limit.unwrap_or_default();
            (ChargeAnswer::Exhausted { scope: *scope, limit, spent: *spent }, Some(place))
        }
        None => (ChargeAnswer::Wait, None),
    }
}

/// A budget whose holder is slowed down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slowed {
    /// The budget.
    pub budget: RowId,
    /// Whom it binds.
    pub holder: BudgetHolder,
    /// How long it lasts.
    pub period: BudgetPeriod,
    /// How long a call waits after the one before, in milliseconds.
    pub pause_ms: u64,
}

/// What a reservation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The answer.
    pub answer: ChargeAnswer,
    /// Why a call waits that there is money for.
    pub slowed: Option<Slowed>,
    /// What people are told now.
    pub alert: Option<BudgetAlert>,
    /// Whether the run's reserve was given up, so that the call could be paid.
    pub let_go: bool,
}

/// The budget that makes a call wait: one at a time, and a pause after each.
fn slowed(bindings: &[Binding], now: i64) -> Option<Slowed> {
    let slow = bindings.iter().filter_map(|binding| {
        let pause_ms = binding.actions.pause_ms(binding.amount, binding.spent)?;
        let quiet = now.saturating_sub(binding.changed_at);
        // A clock that went back does not make anybody wait for longer than the pause.
        let over = quiet < 0 || u64::try_from(quiet).is_ok_and(|quiet| quiet >= pause_ms);
        let waits = binding.calls_open || !over;
        waits.then(|| Slowed {
            budget: binding.id,
            holder: binding.holder.clone(),
            period: binding.period,
            pause_ms,
        })
    });
    slow.max_by_key(|slowed| slowed.pause_ms)
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

/// A name as the ledger keeps it.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control)
}

fn names_checked(request: &ChargeRequest) -> Result<(), StoreError> {
    for (what, name) in [("provider", &request.provider), ("model", &request.model)] {
        if !is_name(name) {
            let why = format!("write 1 to {LONGEST_NAME} bytes without control characters");
            return Err(StoreError::Input { what, why });
        }
    }
    Ok(())
}

/// Whose totals a row counts for.
struct Holders<'h> {
    run: RunId,
    above: &'h [RunId],
    agent: &'h str,
    project: &'h str,
    person: &'h str,
    day: CalendarDay,
}

/// What a row adds to totals.
#[derive(Default)]
struct Change {
    spent: i64,
    reserved: i64,
    calls_open: i64,
}

impl Charge {
    const fn holders(&self) -> Holders<'_> {
        let Self { agent, project, person, day, .. } = self;
        Holders {
            run: self.run,
            above: self.above.as_slice(),
            agent: agent.as_str(),
            project: project.as_str(),
            person: person.as_str(),
            day: *day,
        }
    }
}

/// How the run ended whose ledger is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// Its worker says so.
    InOrder,
    /// Its worker died.
    Died,
}

impl<'s> Entry<'s> {
    /// An entry that used and cost nothing.
    fn nothing(known: &'s Charge, state: ChargeState) -> Self {
        Self {
            state,
            provider: &known.provider,
            model: &known.model,
            usage: Usage::default(),
            cost: MicroUsd::ZERO,
            price_unknown: false,
            estimated: false,
            outcome: CallOutcome::Aborted,
            status: 0,
            duration_ms: 0,
        }
    }
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
    ) -> Result<Reservation, StoreError> {
        self.lease_guard(lease).await?;
        names_checked(request)?;
        self.charge_gate().await?;
        let run = lease.run();
        let plain = |answer| Reservation { answer, slowed: None, alert: None, let_go: false };
        if let Some(known) = self.charge_get(request.call).await? {
            return match known.run == run {
                true => Ok(plain(ChargeAnswer::Granted(known.reserved))),
                false => Err(StoreError::Input { what: "call", why: "another run made it".to_owned() }),
            };
        }
        let now = self.inner.now();
        let today = CalendarDay::at(now);
        let (mut bounds, mut bindings) = self.charge_bounds(run, account, today).await?;
        let (mut answer, mut by) = weigh(&bounds, request);
        // The reserve gives way: it is for calls that nobody can ask the ledger about.
        let let_go = !matches!(answer, ChargeAnswer::Granted(_)) && self.charge_let_go(run).await?;
        if let_go {
            (bounds, bindings) = self.charge_bounds(run, account, today).await?;
            (answer, by) = weigh(&bounds, request);
        }
        let mut reservation = Reservation { let_go, ..plain(answer) };
        match answer {
            ChargeAnswer::Granted(amount) => {
                reservation.slowed = slowed(&bindings, now);
                if reservation.slowed.is_some() {
                    reservation.answer = ChargeAnswer::Wait;
                } else {
                    self.charge_add(run, account, request, ChargeState::Reserved, today, amount).await?;
                }
            }
            ChargeAnswer::Exhausted { .. } => {
                // The first bounds are the run's own and those of the runs above.
                let first = account.above.len().saturating_add(1);
                let binding =
                    by.and_then(|place| place.checked_sub(first)).and_then(|place| bindings.get(place));
                if let Some(binding) = binding {
                    reservation.alert = self.budget_refused(lease, binding).await?;
                }
            }
            ChargeAnswer::Wait => {}
        }
        Ok(reservation)
    }

    async fn charge_add(
        &mut self,
        run: RunId,
        account: &ChargeAccount,
        request: &ChargeRequest,
        state: ChargeState,
        day: CalendarDay,
        amount: MicroUsd,
    ) -> Result<(), StoreError> {
        let now = self.inner.now();
        let agent = account.agent.as_deref().unwrap_or_default();
        let project = account.project.as_deref().unwrap_or_default();
        let person = account.person.map(|person| person.to_string()).unwrap_or_default();
        let above: Vec<RunId> = account.above.iter().map(|(run, _)| *run).collect();
        let row: &[Value<'_>] = values![
            request.call,
            run,
            agent,
            project,
            &person,
            &request.provider,
            &request.model,
            day.number(),
            state.as_str(),
            micro(amount),
            now,
            above_text(above.iter().copied()),
        ];
        self.change(CHARGE_ADD, row).await?;
        let change = Change {
            reserved: micro(amount),
            calls_open: i64::from(state == ChargeState::Reserved),
            spent: 0,
        };
        self.charge_count(&Holders { run, above: &above, agent, project, person: &person, day }, &change)
            .await
    }

    /// Every budget that binds a run today: its own first, then those of the runs above, then those over a period in the
    /// order of the bindings.
    async fn charge_bounds(
        &mut self,
        run: RunId,
        account: &ChargeAccount,
        today: CalendarDay,
    ) -> Result<(Vec<Bound>, Vec<Binding>), StoreError> {
        let day = CalendarDay::from_number(NO_DAY);
        let (spent, reserved) = self.charge_total(BudgetScope::Run, &run.to_string(), day, day).await?;
        let limit = Some(account.run_budget);
        let mut bounds = vec![Bound { scope: BudgetScope::Run, limit, spent, reserved }];
        for (above, budget) in &account.above {
            let (spent, reserved) = self.charge_total(BudgetScope::Run, &above.to_string(), day, day).await?;
            bounds.push(Bound { scope: BudgetScope::RunAbove, limit: Some(*budget), spent, reserved });
        }
        let bindings = self.charge_binding(account, today).await?;
        bounds.extend(bindings.iter().map(Bound::of));
        Ok((bounds, bindings))
    }

    /// One ledger of an org at a time: SQLite has one writer anyway, PostgreSQL takes this row's lock.
    pub(crate) async fn charge_gate(&mut self) -> Result<(), StoreError> {
        if self.engine() == Engine::Postgres {
            let row = vec![Value::from(GATE), Value::from(""), Value::from(NO_DAY)];
            self.insert_rows(&CHARGE_TOTAL_ADD, values![0, 0, 0, 0], &[row]).await?;
        }
        Ok(())
    }

    /// Adds to the running totals of a run and of those above it, of its agent, project and person, and of the org, in one
    /// statement.
    async fn charge_count(&mut self, holders: &Holders<'_>, change: &Change) -> Result<(), StoreError> {
        let (run, day) = (holders.run.to_string(), holders.day.number());
        let above: Vec<String> = holders.above.iter().map(ToString::to_string).collect();
        let own = [
            (BudgetScope::Run, run.as_str(), NO_DAY),
            (BudgetScope::Agent, holders.agent, day),
            (BudgetScope::Project, holders.project, day),
            (BudgetScope::Person, holders.person, day),
            (BudgetScope::Org, "", day),
        ];
        let above = above.iter().map(|run| (BudgetScope::Run, run.as_str(), NO_DAY));
        let rows: Vec<Vec<Value<'_>>> = own
            .into_iter()
            .chain(above)
            .map(|(scope, name, day)| vec![Value::from(scope.as_str()), Value::from(name), Value::from(day)])
            .collect();
        let Change { spent, reserved, calls_open } = change;
        let shared: &[Value<'_>] = values![*spent, *reserved, *calls_open, self.inner.now()];
        self.insert_rows(&CHARGE_TOTAL_ADD, shared, &rows).await?;
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
        self.charge_settle_of(lease.run(), settlement).await
    }

    /// Settles a call of a run as [`OrgTx::charge_settle`] does, for whoever finds the settlement on disk.
    ///
    /// # Errors
    /// `missing` when the run reserved nothing for this call.
    pub async fn charge_settle_of(
        &mut self,
        run: RunId,
        settlement: &ChargeSettlement,
    ) -> Result<bool, StoreError> {
        self.charge_gate().await?;
        let known = self.charge_get(settlement.call).await?.filter(|known| known.run == run);
        let is_call = |known: &Charge| !matches!(known.state, ChargeState::Held | ChargeState::Released);
        let known = known.filter(is_call).ok_or(StoreError::Missing { what: "reservation" })?;
        if known.state == ChargeState::Settled {
            return Ok(false);
        }
        let entry = Entry {
            state: ChargeState::Settled,
            provider: settlement.provider.as_deref().filter(|name| is_name(name)).unwrap_or(&known.provider),
            // The provider's own word is kept where it is a name.
            model: if is_name(&settlement.model) { &settlement.model } else { &known.model },
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
        let (reserved, calls_open) = match known.state {
            ChargeState::Reserved => (-micro(known.reserved), -1),
            ChargeState::Held => (-micro(known.reserved), 0),
            ChargeState::Presumed | ChargeState::Settled | ChargeState::Released => (0, 0),
        };
        let spent = micro(entry.cost) - micro(known.cost);
        self.charge_count(&known.holders(), &Change { spent, reserved, calls_open }).await?;
        let used = tokens(usage.total()) - tokens(known.usage.total());
        self.run_charge_add(known.run, spent, used).await
    }

    /// Ends the ledger of a run that ended: what is still reserved counts as spent, since nobody knows better. A
    /// settlement that arrives later corrects it. The reserve of a run that ended in order is given back; that of a
    /// dead one may have been drawn on, and counts as spent until its process's successor says otherwise.
    pub(crate) async fn charge_close(&mut self, lease: &Lease, end: RunEnd) -> Result<(), StoreError> {
        let run = lease.run();
        if self.first(CHARGE_LIST_OPEN_OF_RUN, values![run]).await?.is_none() {
            return Ok(());
        }
        self.charge_gate().await?;
        let rows = self.all(CHARGE_LIST_OPEN_OF_RUN, values![run]).await?;
        for known in rows.iter().map(charge) {
            let known = known?;
            match (known.state, end) {
                (ChargeState::Held, RunEnd::InOrder) => self.charge_give_back(&known).await?,
                _ => self.charge_presume(&known).await?,
            }
        }
        if let Some(account) = self.charge_account(run).await? {
            self.budget_alert(lease, &account).await?;
        }
        Ok(())
    }

    async fn charge_presume(&mut self, known: &Charge) -> Result<(), StoreError> {
        let entry =
            Entry { estimated: true, cost: known.reserved, ..Entry::nothing(known, ChargeState::Presumed) };
        self.charge_write(known, &entry).await
    }

    async fn charge_give_back(&mut self, known: &Charge) -> Result<(), StoreError> {
        self.charge_write(known, &Entry::nothing(known, ChargeState::Released)).await
    }

    /// Gives back the reserve of a run that goes on; whether it had one.
    async fn charge_let_go(&mut self, run: RunId) -> Result<bool, StoreError> {
        let rows = self.all(CHARGE_LIST_OPEN_OF_RUN, values![run]).await?;
        let mut any = false;
        for known in rows.iter().map(charge) {
            let known = known?;
            if known.state == ChargeState::Held {
                self.charge_give_back(&known).await?;
                any = true;
            }
        }
        Ok(any)
    }

    /// Sets money of the lease's run aside for calls while the store can't be reached: at most `most`, and at most a
    /// twentieth of what the tightest budget has free, so that a reserve starves nobody. What was set aside; asking
    /// again sets nothing more aside.
    ///
    /// # Errors
    /// `lease-lost`.
    pub async fn charge_hold(
        &mut self,
        lease: &Lease,
        account: &ChargeAccount,
        hold: RowId,
        most: MicroUsd,
    ) -> Result<MicroUsd, StoreError> {
        self.lease_guard(lease).await?;
        self.charge_gate().await?;
        if let Some(known) = self.charge_get(hold).await?.filter(|known| known.run == lease.run()) {
            return Ok(if known.state == ChargeState::Held { known.reserved } else { MicroUsd::ZERO });
        }
        let today = CalendarDay::at(self.inner.now());
        let (bounds, _) = self.charge_bounds(lease.run(), account, today).await?;
        let free = bounds.iter().map(Bound::free).min().unwrap_or(0);
        let amount = MicroUsd::from_micro(most.micro().min(free / HOLD_SHARE));
        if amount < LEAST_HOLD {
            return Ok(MicroUsd::ZERO);
        }
        let request = ChargeRequest {
            call: hold,
            provider: "tipstaff".to_owned(),
            model: "reserve".to_owned(),
            most: amount,
            least: amount,
        };
        self.charge_add(lease.run(), account, &request, ChargeState::Held, today, amount).await?;
        Ok(amount)
    }

    /// Writes down a call that was paid from a run's reserve while the store could not be reached; whether it was not
    /// on record yet. The call counts for the day on which the reserve was set aside.
    ///
    /// # Errors
    /// `missing` when the run has no such reserve; `input` for names that are none.
    pub async fn charge_draw(
        &mut self,
        run: RunId,
        hold: RowId,
        request: &ChargeRequest,
        amount: MicroUsd,
    ) -> Result<bool, StoreError> {
        names_checked(request)?;
        self.charge_gate().await?;
        if let Some(known) = self.charge_get(request.call).await? {
            return match known.run == run {
                true => Ok(false),
                false => Err(StoreError::Input { what: "call", why: "another run made it".to_owned() }),
            };
        }
        let held = self.charge_get(hold).await?.filter(|held| held.run == run);
        let held = held.ok_or(StoreError::Missing { what: "reserve" })?;
        // What is drawn moves from the reserve to the call, in whatever state the reserve is by now.
        let (reserved, spent) = match held.state {
            ChargeState::Held => (micro(amount).min(micro(held.reserved)), 0),
            ChargeState::Presumed => (0, micro(amount).min(micro(held.cost))),
            _ => (0, 0),
        };
        self.change(CHARGE_SHRINK, values![held.call, reserved, spent]).await?;
        let change = Change { reserved: -reserved, spent: -spent, calls_open: 0 };
        self.charge_count(&held.holders(), &change).await?;
        self.run_charge_add(run, -spent, 0).await?;
        let account = ChargeAccount {
            run_budget: MicroUsd::ZERO,
            above: held.above.into_iter().map(|run| (run, MicroUsd::ZERO)).collect(),
            agent: Some(held.agent).filter(|name| !name.is_empty()),
            project: Some(held.project).filter(|name| !name.is_empty()),
            person: held.person.parse().ok(),
        };
        self.charge_add(run, &account, request, ChargeState::Reserved, held.day, amount).await?;
        // A run that ended leaves no call open.
        if self.run_get(run).await?.is_some_and(|run| run.state.is_final())
            && let Some(call) = self.charge_get(request.call).await?
        {
            self.charge_presume(&call).await?;
        }
        Ok(true)
    }

    /// Gives back what is left of a run's reserve, presumed or not; whether there was anything.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn charge_release(&mut self, run: RunId, hold: RowId) -> Result<bool, StoreError> {
        self.charge_gate().await?;
        let held = self.charge_get(hold).await?.filter(|held| held.run == run);
        match held {
            Some(held) if matches!(held.state, ChargeState::Held | ChargeState::Presumed) => {
                self.charge_give_back(&held).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipstaff_model::{FixedClock, FixedEntropy};

    fn bound(scope: BudgetScope, limit: u64, spent: u64, reserved: u64) -> Bound {
        let micro = MicroUsd::from_micro;
        Bound { scope, limit: Some(micro(limit)), spent: micro(spent), reserved: micro(reserved) }
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
        let granted = |most, least| weigh(&bounds, &request(most, least)).0;
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
        // A budget that only tells refuses nothing.
        let open = [Bound { limit: None, ..bound(BudgetScope::Org, 1, 5_000, 5_000) }];
        assert_eq!(weigh(&open, &request(7, 7)).0, ChargeAnswer::Granted(MicroUsd::from_micro(7)));
        let gone = [bound(BudgetScope::Run, 100, 150, 0)];
        assert_eq!(weigh(&gone, &request(0, 0)).0, ChargeAnswer::Granted(MicroUsd::ZERO));
        assert!(matches!(weigh(&gone, &request(1, 1)).0, ChargeAnswer::Exhausted { .. }));
        assert!(matches!(weigh(&gone, &request(1, 0)).0, ChargeAnswer::Exhausted { .. }));
    }
}

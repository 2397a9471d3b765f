//! The ledger of model calls: money is reserved before a call and settled after it.
//!
//! Promises: what is spent and reserved together never exceeds a budget by a reservation, however many calls ask at
//! once; reserving and settling the same call again changes nothing; a reservation reads a bounded number of rows,
//! however many calls there were before; the totals are the sums of the rows, in the same transaction.
//!
//! A reservation is fenced by the lease. A settlement is not: it records money that was spent, whoever holds the task
//! by now. It can do no more than replace a reservation that the run itself made.

use crate::config::Engine;
use crate::error::StoreError;
use crate::lease::Lease;
use crate::sql::{Columns, Row, Scoped, Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::id::RowId;
use tipstaff_model::{
    BudgetScope, CalendarDay, CallOutcome, MicroUsd, RunId, SpendAnswer, SpendRequest, SpendSettlement, Usage,
};

macro_rules! sums {
    () => {
        "count(*), cast(coalesce(sum(cost), 0) as bigint), cast(coalesce(sum(input_tokens), 0) as bigint), \
         cast(coalesce(sum(cache_read_tokens), 0) as bigint), cast(coalesce(sum(cache_write_tokens), 0) as bigint), \
         cast(coalesce(sum(cache_write_1h_tokens), 0) as bigint), cast(coalesce(sum(output_tokens), 0) as bigint), \
         cast(coalesce(sum(reasoning_tokens), 0) as bigint), cast(coalesce(sum(price_unknown), 0) as bigint), \
         cast(coalesce(sum(estimated), 0) as bigint)"
    };
}

macro_rules! spend_by {
    ($keys:literal, $group:literal) => {
        concat!(
            "select ",
            $keys,
            ", ",
            sums!(),
            " from spend where org_id = $1 and day >= $2 and day <= $3 \
             and state <> 'reserved' group by ",
            $group,
            " order by ",
            $group
        )
    };
}

macro_rules! spend_columns {
    () => {
        "id, run_id, agent, provider, model, day, state, reserved, cost, input_tokens, cache_read_tokens, \
         cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, price_unknown, estimated, outcome, \
         status, duration_ms, reserved_at, settled_at"
    };
}

statements! {
    scoped SPEND_ADD =
        "insert into spend (org_id, id, run_id, agent, provider, model, day, state, reserved, reserved_at) \
         values ($1, $2, $3, $4, $5, $6, $7, 'reserved', $8, $9)";
    scoped SPEND_GET = concat!("select ", spend_columns!(), " from spend where org_id = $1 and id = $2");
    scoped SPEND_LIST_OF_RUN = concat!(
        "select ", spend_columns!(), " from spend where org_id = $1 and run_id = $2 order by id"
    );
    scoped SPEND_LIST_OPEN_OF_RUN = concat!(
        "select ", spend_columns!(),
        " from spend where org_id = $1 and run_id = $2 and state = 'reserved' order by id"
    );
    scoped SPEND_SETTLE =
        "update spend set state = $3, model = $4, cost = $5, input_tokens = $6, cache_read_tokens = $7, \
         cache_write_tokens = $8, cache_write_1h_tokens = $9, output_tokens = $10, reasoning_tokens = $11, \
         price_unknown = $12, estimated = $13, outcome = $14, status = $15, duration_ms = $16, settled_at = $17 \
         where org_id = $1 and id = $2";
    scoped SPEND_OF_RUN = concat!("select ", sums!(), " from spend where org_id = $1 and run_id = $2");
    scoped SPEND_BY_MODEL = spend_by!("provider, model", "provider, model");
    scoped SPEND_BY_AGENT = spend_by!("'', agent", "agent");
    scoped SPEND_BY_DAY = spend_by!("'', cast(day as text)", "day");
    scoped SPEND_TOTAL =
        "select cast(coalesce(sum(spent), 0) as bigint), cast(coalesce(sum(reserved), 0) as bigint) from spend_total \
         where org_id = $1 and scope = $2 and name = $3 and day >= $4 and day <= $5";
    scoped SPEND_TOTAL_ADD =
        "insert into spend_total (org_id, scope, name, day, spent, reserved) values ($1, $2, $3, $4, $5, $6) \
         on conflict (org_id, scope, name, day) do update set spent = spend_total.spent + excluded.spent, \
         reserved = spend_total.reserved + excluded.reserved";
}

/// The day under which the totals of a run stand.
const NO_DAY: i64 = 0;
/// The row whose lock keeps the ledger of an org in one line on PostgreSQL.
const GATE: &str = "gate";
/// The longest name of a provider or model, in bytes.
const LONGEST_NAME: usize = 200;
/// No call costs more than a billion dollars, or uses more than a trillion tokens: sums stay far from overflowing.
const LARGEST: u64 = 1_000_000_000_000_000;
const MOST_TOKENS: u64 = 1_000_000_000_000;

/// Whose money a run spends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendAccount {
    /// The run's own budget: its warrant's.
    pub run_budget: MicroUsd,
    /// The agent's name; absent when the run has none, and then no agent's budget binds it.
    pub agent: Option<String>,
}

/// Where a call of the ledger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpendState {
    /// Under way, or its broker died and nobody has noticed yet.
    Reserved,
    /// Its run ended before it was settled: all that was reserved counts as spent.
    Presumed,
    /// What it cost is known.
    Settled,
}

impl SpendState {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Presumed => "presumed",
            Self::Settled => "settled",
        }
    }
}

impl std::str::FromStr for SpendState {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Reserved, Self::Presumed, Self::Settled];
        all.into_iter().find(|state| state.as_str() == text).ok_or("it is no state of a call")
    }
}

/// One call in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    /// The call.
    pub call: RowId,
    /// Its run.
    pub run: RunId,
    /// The agent's name; empty when the run has none.
    pub agent: String,
    /// The provider.
    pub provider: String,
    /// The model that answered; the one that was asked for until then.
    pub model: String,
    /// The day whose budgets it counts for: the one on which it was reserved.
    pub day: CalendarDay,
    /// Where it stands.
    pub state: SpendState,
    /// What was reserved.
    pub reserved: MicroUsd,
    /// What it cost.
    pub cost: MicroUsd,
    /// What it used.
    pub usage: Usage,
    /// Whether the price is the dearest that fits, since the model is not in the table.
    pub price_unknown: bool,
    /// Whether the usage or the cost is an estimate.
    pub estimated: bool,
    /// How it ended: [`CallOutcome`]'s word.
    pub outcome: Option<String>,
    /// The provider's HTTP status; 0 when there was none.
    pub status: u64,
    /// From the request to its end, in milliseconds.
    pub duration_ms: u64,
    /// When it was reserved, in milliseconds since the Unix epoch.
    pub reserved_at: i64,
    /// When it was settled, in milliseconds since the Unix epoch.
    pub settled_at: Option<i64>,
}

/// By what the ledger is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpendBy {
    /// Provider and model.
    Model,
    /// The agent's name.
    Agent,
    /// The day.
    Day,
}

/// A sum over calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpendSum {
    /// The provider, when summed by model; else empty.
    pub provider: String,
    /// The model, the agent's name or the day (as `YYYY-MM-DD`); empty for calls without an agent, and for one run.
    pub key: String,
    /// How many calls.
    pub calls: u64,
    /// What they cost.
    pub cost: MicroUsd,
    /// What they used.
    pub usage: Usage,
    /// Calls whose price is the dearest that fits.
    pub price_unknown: u64,
    /// Calls whose usage or cost is an estimate.
    pub estimated: u64,
}

fn stored(count: u64, most: u64) -> i64 {
    i64::try_from(count.min(most)).unwrap_or(i64::MAX)
}

fn micro(amount: MicroUsd) -> i64 {
    stored(amount.micro(), LARGEST)
}

fn usage(columns: &mut Columns<'_>) -> Result<Usage, StoreError> {
    Ok(Usage {
        input: columns.count("input_tokens")?,
        cache_read: columns.count("cache_read_tokens")?,
        cache_write: columns.count("cache_write_tokens")?,
        cache_write_1h: columns.count("cache_write_1h_tokens")?,
        output: columns.count("output_tokens")?,
        reasoning: columns.count("reasoning_tokens")?,
    })
}

fn spend(row: &Row) -> Result<Spend, StoreError> {
    let mut columns = row.read("spend");
    Ok(Spend {
        call: columns.parsed("id")?,
        run: columns.parsed("run_id")?,
        agent: columns.text()?,
        provider: columns.text()?,
        model: columns.text()?,
        day: CalendarDay::from_number(columns.int()?),
        state: columns.parsed("state")?,
        reserved: MicroUsd::from_micro(columns.count("reserved")?),
        cost: MicroUsd::from_micro(columns.count("cost")?),
        usage: usage(&mut columns)?,
        price_unknown: columns.flag()?,
        estimated: columns.flag()?,
        outcome: columns.text_opt()?,
        status: columns.count("status")?,
        duration_ms: columns.count("duration_ms")?,
        reserved_at: columns.int()?,
        settled_at: columns.int_opt()?,
    })
}

fn sum(columns: &mut Columns<'_>) -> Result<SpendSum, StoreError> {
    Ok(SpendSum {
        calls: columns.count("calls")?,
        cost: MicroUsd::from_micro(columns.count("cost")?),
        usage: usage(columns)?,
        price_unknown: columns.count("price_unknown")?,
        estimated: columns.count("estimated")?,
        ..SpendSum::default()
    })
}

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

fn weigh(bounds: &[Bound], request: &SpendRequest) -> SpendAnswer {
    // A call that may cost something is never granted nothing.
    let least = request.least.micro().max(1).min(request.most.micro());
    let free = bounds.iter().map(Bound::free).min().unwrap_or(0).min(request.most.micro());
    if free >= least {
        return SpendAnswer::Granted(MicroUsd::from_micro(free));
    }
    match bounds.iter().find(|bound| bound.left() < least) {
        Some(Bound { scope, limit, spent, .. }) => {
            SpendAnswer::Exhausted { scope: *scope, limit: *limit, spent: *spent }
        }
        None => SpendAnswer::Wait,
    }
}

/// What a settlement writes.
struct Entry<'s> {
    state: SpendState,
    model: &'s str,
    usage: Usage,
    cost: MicroUsd,
    price_unknown: bool,
    estimated: bool,
    outcome: CallOutcome,
    status: u16,
    duration_ms: u64,
}

impl OrgRead {
    /// Whose money a run spends: its warrant's budget, and its agent's name. `None` before it has a warrant.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn spend_account(&mut self, run: RunId) -> Result<Option<SpendAccount>, StoreError> {
        let Some(run) = self.run_get(run).await? else { return Ok(None) };
        let Some(warrant) = run.warrant else { return Ok(None) };
        let Some(warrant) = self.warrant_get(warrant).await? else { return Ok(None) };
        let agent = self.task_get(run.task).await?.and_then(|task| task.spec.agent);
        Ok(Some(SpendAccount { run_budget: warrant.signed.warrant.budget, agent }))
    }

    /// Spent and reserved from one day to another, both included.
    pub(crate) async fn spend_total(
        &mut self,
        scope: BudgetScope,
        name: &str,
        since: CalendarDay,
        until: CalendarDay,
    ) -> Result<(MicroUsd, MicroUsd), StoreError> {
        let row = values![scope.as_str(), name, since.number(), until.number()];
        let Some(row) = self.first(SPEND_TOTAL, row).await? else {
            return Ok((MicroUsd::ZERO, MicroUsd::ZERO));
        };
        let mut columns = row.read("spend_total");
        // A reservation may be settled for more than was reserved, so spent has no bound but its own.
        let (spent, reserved) = (columns.count("spent")?, columns.count("reserved")?);
        Ok((MicroUsd::from_micro(spent), MicroUsd::from_micro(reserved)))
    }

    /// A call.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn spend_get(&mut self, call: RowId) -> Result<Option<Spend>, StoreError> {
        self.first(SPEND_GET, values![call]).await?.as_ref().map(spend).transpose()
    }

    /// The calls of a run, in the order of their ids: that of their beginning.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn spend_list_of_run(&mut self, run: RunId) -> Result<Vec<Spend>, StoreError> {
        self.all(SPEND_LIST_OF_RUN, values![run]).await?.iter().map(spend).collect()
    }

    /// The sum of a run's calls, those under way included with what is known of them.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn spend_of_run(&mut self, run: RunId) -> Result<SpendSum, StoreError> {
        let row = self.first(SPEND_OF_RUN, values![run]).await?;
        row.map_or(Ok(SpendSum::default()), |row| sum(&mut row.read("spend")))
    }

    /// The sums of calls that ended, of the days from `since` to `until`, both included.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn spend_by(
        &mut self,
        by: SpendBy,
        since: CalendarDay,
        until: CalendarDay,
    ) -> Result<Vec<SpendSum>, StoreError> {
        let statement: Scoped = match by {
            SpendBy::Model => SPEND_BY_MODEL,
            SpendBy::Agent => SPEND_BY_AGENT,
            SpendBy::Day => SPEND_BY_DAY,
        };
        let rows = self.all(statement, values![since.number(), until.number()]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = row.read("spend");
                let (provider, mut key) = (columns.text()?, columns.text()?);
                if by == SpendBy::Day {
                    let day: i64 =
                        key.parse().map_err(|_| columns.invalid("day", "it is no number".to_owned()))?;
                    key = CalendarDay::from_number(day).to_string();
                }
                Ok(SpendSum { provider, key, ..sum(&mut columns)? })
            })
            .collect()
    }
}

impl OrgTx {
    /// Reserves money for a call of the lease's run. Durable once the transaction is committed.
    ///
    /// # Errors
    /// `lease-lost`; `input` for names that are none; `conflict` for a call of another run.
    pub async fn spend_reserve(
        &mut self,
        lease: &Lease,
        account: &SpendAccount,
        request: &SpendRequest,
    ) -> Result<SpendAnswer, StoreError> {
        self.lease_guard(lease).await?;
        for (what, name) in [("provider", &request.provider), ("model", &request.model)] {
            if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
                let why = format!("write 1 to {LONGEST_NAME} bytes without control characters");
                return Err(StoreError::Input { what, why });
            }
        }
        self.spend_gate().await?;
        let run = lease.run();
        if let Some(known) = self.spend_get(request.call).await? {
            return match known.run == run {
                true => Ok(SpendAnswer::Granted(known.reserved)),
                false => Err(StoreError::Input { what: "call", why: "another run made it".to_owned() }),
            };
        }
        let now = self.inner.now();
        let today = CalendarDay::at(now);
        let agent = account.agent.as_deref().unwrap_or_default();
        let bounds = self.spend_bounds(run, account, today).await?;
        let answer = weigh(&bounds, request);
        if let SpendAnswer::Granted(amount) = answer {
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
            self.change(SPEND_ADD, row).await?;
            self.spend_count(run, agent, today, 0, micro(amount)).await?;
        }
        Ok(answer)
    }

    /// Every budget that binds a run today.
    async fn spend_bounds(
        &mut self,
        run: RunId,
        account: &SpendAccount,
        today: CalendarDay,
    ) -> Result<Vec<Bound>, StoreError> {
        let day = CalendarDay::from_number(NO_DAY);
        let (spent, reserved) = self.spend_total(BudgetScope::Run, &run.to_string(), day, day).await?;
        let mut bounds = vec![Bound { scope: BudgetScope::Run, limit: account.run_budget, spent, reserved }];
        for budget in self.budget_list().await? {
            let (scope, name) = (budget.holder.scope(), budget.holder.name());
            if scope == BudgetScope::Agent && account.agent.as_deref() != Some(name) {
                continue;
            }
            let since = today.first_of(budget.period);
            let (spent, reserved) = self.spend_total(scope, name, since, today).await?;
            bounds.push(Bound { scope, limit: budget.amount, spent, reserved });
        }
        Ok(bounds)
    }

    /// One ledger of an org at a time: SQLite has one writer anyway, PostgreSQL takes this row's lock.
    async fn spend_gate(&mut self) -> Result<(), StoreError> {
        if self.engine() == Engine::Postgres {
            self.change(SPEND_TOTAL_ADD, values![GATE, "", NO_DAY, 0, 0]).await?;
        }
        Ok(())
    }

    /// Adds to the running totals of a run, its agent and the org.
    async fn spend_count(
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
            self.change(SPEND_TOTAL_ADD, values![scope.as_str(), name, day, spent, reserved]).await?;
        }
        Ok(())
    }

    /// Settles a call of the lease's run with what it used; whether that changed anything. Works after the lease was
    /// lost, and corrects what was presumed in between: money that was spent is on record whoever has the task.
    ///
    /// # Errors
    /// `missing` when the run reserved nothing for this call.
    pub async fn spend_settle(
        &mut self,
        lease: &Lease,
        settlement: &SpendSettlement,
    ) -> Result<bool, StoreError> {
        if lease.token().org != self.org() {
            return Err(StoreError::LeaseLost);
        }
        self.spend_gate().await?;
        let known = self.spend_get(settlement.call).await?.filter(|known| known.run == lease.run());
        let known = known.ok_or(StoreError::Missing { what: "reservation" })?;
        if known.state == SpendState::Settled {
            return Ok(false);
        }
        let fits = |name: &str| {
            !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control)
        };
        let entry = Entry {
            state: SpendState::Settled,
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
        self.spend_write(&known, &entry).await?;
        Ok(true)
    }

    async fn spend_write(&mut self, known: &Spend, entry: &Entry<'_>) -> Result<(), StoreError> {
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
        ];
        self.change(SPEND_SETTLE, row).await?;
        let released = if known.state == SpendState::Reserved { micro(known.reserved) } else { 0 };
        let spent = micro(entry.cost) - micro(known.cost);
        self.spend_count(known.run, &known.agent, known.day, spent, -released).await?;
        let used = tokens(usage.total()) - tokens(known.usage.total());
        self.run_spent(known.run, spent, used).await
    }

    /// Ends the ledger of a run that ended: what is still reserved counts as spent, since nobody knows better. A
    /// settlement that arrives later corrects it.
    pub(crate) async fn spend_close(&mut self, run: RunId) -> Result<(), StoreError> {
        if self.first(SPEND_LIST_OPEN_OF_RUN, values![run]).await?.is_none() {
            return Ok(());
        }
        self.spend_gate().await?;
        let rows = self.all(SPEND_LIST_OPEN_OF_RUN, values![run]).await?;
        for known in rows.iter().map(spend) {
            let known = known?;
            let entry = Entry {
                state: SpendState::Presumed,
                model: &known.model,
                usage: Usage::default(),
                cost: known.reserved,
                price_unknown: false,
                estimated: true,
                outcome: CallOutcome::Aborted,
                status: 0,
                duration_ms: 0,
            };
            self.spend_write(&known, &entry).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipstaff_model::{FixedClock, FixedEntropy};

    fn bound(scope: BudgetScope, limit: u64, spent: u64, reserved: u64) -> Bound {
        let micro = MicroUsd::from_micro;
        Bound { scope, limit: micro(limit), spent: micro(spent), reserved: micro(reserved) }
    }

    fn request(most: u64, least: u64) -> SpendRequest {
        SpendRequest {
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
        assert_eq!(granted(30, 30), SpendAnswer::Granted(MicroUsd::from_micro(30)));
        assert_eq!(granted(500, 40), SpendAnswer::Granted(MicroUsd::from_micro(40)));
        // Calls under way hold what is missing.
        assert_eq!(granted(500, 41), SpendAnswer::Wait);
        assert_eq!(granted(500, 90), SpendAnswer::Wait);
        let spent = SpendAnswer::Exhausted {
            scope: BudgetScope::Run,
            limit: MicroUsd::from_micro(100),
            spent: MicroUsd::from_micro(10),
        };
        assert_eq!(granted(500, 91), spent);
        // What costs nothing is never refused.
        let gone = [bound(BudgetScope::Run, 100, 150, 0)];
        assert_eq!(weigh(&gone, &request(0, 0)), SpendAnswer::Granted(MicroUsd::ZERO));
        assert!(matches!(weigh(&gone, &request(1, 1)), SpendAnswer::Exhausted { .. }));
        assert!(matches!(weigh(&gone, &request(1, 0)), SpendAnswer::Exhausted { .. }));
    }
}

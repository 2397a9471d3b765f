//! Charges: what model calls reserved and cost, read in every way that people and the ledger ask for. They are written
//! by [`crate::ledger`].

use crate::budget::Binding;
use crate::error::StoreError;
use crate::sql::{Columns, Row, Scoped, statements, values};
use crate::transaction::OrgRead;
use tipstaff_model::id::RowId;
use tipstaff_model::{BudgetScope, CalendarDay, MemberId, MicroUsd, RunId, Usage};

macro_rules! sums {
    () => {
        "count(*), cast(coalesce(sum(cost), 0) as bigint), cast(coalesce(sum(input_tokens), 0) as bigint), \
         cast(coalesce(sum(cache_read_tokens), 0) as bigint), cast(coalesce(sum(cache_write_tokens), 0) as bigint), \
         cast(coalesce(sum(cache_write_1h_tokens), 0) as bigint), cast(coalesce(sum(output_tokens), 0) as bigint), \
         cast(coalesce(sum(reasoning_tokens), 0) as bigint), cast(coalesce(sum(price_unknown), 0) as bigint), \
         cast(coalesce(sum(estimated), 0) as bigint)"
    };
}

macro_rules! charge_by {
    ($keys:literal, $group:literal) => {
        concat!(
            "select ",
            $keys,
            ", ",
            sums!(),
            " from charge where org_id = $1 and day >= $2 and day <= $3 \
             and state in ('presumed', 'settled') group by ",
            $group,
            " order by ",
            $group
        )
    };
}

macro_rules! charge_columns {
    () => {
        "id, run_id, agent, project, person, provider, model, day, state, reserved, cost, input_tokens, cache_read_tokens, \
         cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, price_unknown, estimated, outcome, \
         status, duration_ms, reserved_at, settled_at, above"
    };
}

statements! {
    scoped CHARGE_ADD =
        "insert into charge (org_id, id, run_id, agent, project, person, provider, model, day, state, reserved, \
         reserved_at, above) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    scoped CHARGE_GET = concat!("select ", charge_columns!(), " from charge where org_id = $1 and id = $2");
    scoped CHARGE_LIST_OF_RUN = concat!(
        "select ", charge_columns!(), " from charge where org_id = $1 and run_id = $2 order by id"
    );
    scoped CHARGE_LIST_OPEN_OF_RUN = concat!(
        "select ", charge_columns!(),
        " from charge where org_id = $1 and run_id = $2 and state in ('reserved', 'held') order by id"
    );
    scoped CHARGE_SETTLE =
        "update charge set state = $3, model = $4, cost = $5, input_tokens = $6, cache_read_tokens = $7, \
         cache_write_tokens = $8, cache_write_1h_tokens = $9, output_tokens = $10, reasoning_tokens = $11, \
         price_unknown = $12, estimated = $13, outcome = $14, status = $15, duration_ms = $16, settled_at = $17, provider = $18 \
         where org_id = $1 and id = $2";
    scoped CHARGE_SHRINK =
        "update charge set reserved = reserved - $3, cost = cost - $4 where org_id = $1 and id = $2";
    scoped CHARGE_OF_RUN = concat!(
        "select ", sums!(), " from charge where org_id = $1 and run_id = $2 \
         and state in ('reserved', 'presumed', 'settled')"
    );
    scoped CHARGE_BY_MODEL = charge_by!("provider, model", "provider, model");
    scoped CHARGE_BY_AGENT = charge_by!("'', agent", "agent");
    scoped CHARGE_BY_PROJECT = charge_by!("'', project", "project");
    scoped CHARGE_BY_PERSON = charge_by!("'', person", "person");
    scoped CHARGE_BY_DAY = charge_by!("'', cast(day as text)", "day");
    scoped CHARGE_TOTAL =
        "select cast(coalesce(sum(spent), 0) as bigint), cast(coalesce(sum(reserved), 0) as bigint) from charge_total \
         where org_id = $1 and scope = $2 and name = $3 and day >= $4 and day <= $5";
    rows (shared 5) CHARGE_TOTAL_ADD =
        "insert into charge_total (org_id, spent, reserved, calls_open, changed_at, scope, name, day) \
         values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (org_id, scope, name, day) do update set \
         spent = charge_total.spent + excluded.spent, reserved = charge_total.reserved + excluded.reserved, \
         calls_open = charge_total.calls_open + excluded.calls_open, changed_at = excluded.changed_at";
}

/// The day under which the totals of a run stand.
pub(crate) const NO_DAY: i64 = 0;
/// The row whose lock keeps the ledger of an org in one line on PostgreSQL.
pub(crate) const GATE: &str = "gate";
/// The longest name of a provider or model, in bytes.
pub(crate) const LONGEST_NAME: usize = 200;
/// No call costs more than a billion dollars, or uses more than a trillion tokens: sums stay far from overflowing.
pub(crate) const LARGEST: u64 = 1_000_000_000_000_000;
pub(crate) const MOST_TOKENS: u64 = 1_000_000_000_000;

/// Whose money a run spends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeAccount {
    /// The run's own budget: its warrant's.
    pub run_budget: MicroUsd,
    /// The runs that it works under, nearest first, with the budgets of their warrants: their money is spent as well.
    pub above: Vec<(RunId, MicroUsd)>,
    /// The agent's name; absent when the run has none, and then no agent's budget binds it.
    pub agent: Option<String>,
    /// The project that the run's repository belongs to, by name; absent when it belongs to none.
    pub project: Option<String>,
    /// The person who started the run; absent when nobody did.
    pub person: Option<MemberId>,
}

/// Where a call of the ledger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeState {
    /// Under way, or its broker died and nobody has noticed yet.
    Reserved,
    /// Its run ended before it was settled: all that was reserved counts as spent.
    Presumed,
    /// What it cost is known.
    Settled,
    /// No call: the reserve of a run, for calls while the store can't be reached.
    Held,
    /// No call: what was left of a reserve was given back.
    Released,
}

impl ChargeState {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Presumed => "presumed",
            Self::Settled => "settled",
            Self::Held => "held",
            Self::Released => "released",
        }
    }
}

impl std::str::FromStr for ChargeState {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Reserved, Self::Presumed, Self::Settled, Self::Held, Self::Released];
        all.into_iter().find(|state| state.as_str() == text).ok_or("it is no state of a call")
    }
}

/// One call in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The call.
    pub call: RowId,
    /// Its run.
    pub run: RunId,
    /// The agent's name; empty when the run has none.
    pub agent: String,
    /// The project's name; empty when the run's repository belongs to none.
    pub project: String,
    /// The person's id; empty when nobody started the run.
    pub person: String,
    /// The provider.
    pub provider: String,
    /// The model that answered; the one that was asked for until then.
    pub model: String,
    /// The day whose budgets it counts for: the one on which it was reserved.
    pub day: CalendarDay,
    /// Where it stands.
    pub state: ChargeState,
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
    /// The runs above its run, nearest first: it counts for their budgets, too.
    pub above: Vec<RunId>,
}

/// By what the ledger is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeBy {
    /// Provider and model.
    Model,
    /// The agent's name.
    Agent,
    /// The project's name.
    Project,
    /// The person's id.
    Person,
    /// The day.
    Day,
}

/// A sum over calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChargeSum {
    /// The provider, when summed by model; else empty.
    pub provider: String,
    /// The model, the agent's or project's name, the person's id or the day (as `YYYY-MM-DD`); empty for calls without
    /// one, and for one run.
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

pub(crate) fn stored(count: u64, most: u64) -> i64 {
    i64::try_from(count.min(most)).unwrap_or(i64::MAX)
}

pub(crate) fn micro(amount: MicroUsd) -> i64 {
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

pub(crate) fn charge(row: &Row) -> Result<Charge, StoreError> {
    let mut columns = row.read("charge");
    Ok(Charge {
        call: columns.parsed("id")?,
        run: columns.parsed("run_id")?,
        agent: columns.text()?,
        project: columns.text()?,
        person: columns.text()?,
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
        above: above(&mut columns)?,
    })
}

/// Ids as a row keeps them.
pub(crate) fn above_text(above: impl Iterator<Item = RunId>) -> String {
    above.map(|run| run.to_string()).collect::<Vec<_>>().join(" ")
}

fn above(columns: &mut Columns<'_>) -> Result<Vec<RunId>, StoreError> {
    let text = columns.text()?;
    let all: Result<Vec<RunId>, _> = text.split_ascii_whitespace().map(str::parse).collect();
    all.map_err(|_| columns.invalid("above", "it is no list of runs".to_owned()))
}

fn sum(columns: &mut Columns<'_>) -> Result<ChargeSum, StoreError> {
    Ok(ChargeSum {
        calls: columns.count("calls")?,
        cost: MicroUsd::from_micro(columns.count("cost")?),
        usage: usage(columns)?,
        price_unknown: columns.count("price_unknown")?,
        estimated: columns.count("estimated")?,
        ..ChargeSum::default()
    })
}

impl OrgRead {
    /// Whose money a run spends: its warrant's budget, its agent, its repository's project as it is now, and who started
    /// it. `None` before it has a warrant.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn charge_account(&mut self, run: RunId) -> Result<Option<ChargeAccount>, StoreError> {
        let Some(run) = self.run_get(run).await? else { return Ok(None) };
        let Some(warrant) = run.warrant else { return Ok(None) };
        let Some(warrant) = self.warrant_get(warrant).await? else { return Ok(None) };
        let warrant = warrant.signed.warrant;
        let Some(task) = self.task_get(run.task).await? else { return Ok(None) };
        // Tasks from before persons were kept: whoever the warrant was issued to.
        let subject = warrant.subject.strip_prefix("member:").and_then(|member| member.parse().ok());
        let project = match task.repository {
            Some(repository) => self.project_of(repository).await?.map(|project| project.name),
            None => None,
        };
        let mut above = Vec::new();
        if task.spec.under.is_some() {
            for one in self.run_list_above(run.id).await? {
                let granted = self.warrant_of_run(one).await?.map(|found| found.signed.warrant.budget);
                above.push((one, granted.unwrap_or_default()));
            }
        }
        let (agent, person) = (task.spec.agent, task.person.or(subject));
        Ok(Some(ChargeAccount { run_budget: warrant.budget, above, agent, project, person }))
    }

    /// The budgets over a period that bind an account today, with their totals.
    pub(crate) async fn charge_binding(
        &mut self,
        account: &ChargeAccount,
        today: CalendarDay,
    ) -> Result<Vec<Binding>, StoreError> {
        let (agent, project) =
            (account.agent.as_deref().unwrap_or_default(), account.project.as_deref().unwrap_or_default());
        let person = account.person.map(|person| person.to_string()).unwrap_or_default();
        self.budget_binding(agent, project, &person, today).await
    }

    /// Spent and reserved from one day to another, both included.
    pub(crate) async fn charge_total(
        &mut self,
        scope: BudgetScope,
        name: &str,
        since: CalendarDay,
        until: CalendarDay,
    ) -> Result<(MicroUsd, MicroUsd), StoreError> {
        let row = values![scope.as_str(), name, since.number(), until.number()];
        let Some(row) = self.first(CHARGE_TOTAL, row).await? else {
            return Ok((MicroUsd::ZERO, MicroUsd::ZERO));
        };
        let mut columns = row.read("charge_total");
        // A reservation may be settled for more than was reserved, so spent has no bound but its own.
        let (spent, reserved) = (columns.count("spent")?, columns.count("reserved")?);
        Ok((MicroUsd::from_micro(spent), MicroUsd::from_micro(reserved)))
    }

    /// A call.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn charge_get(&mut self, call: RowId) -> Result<Option<Charge>, StoreError> {
        self.first(CHARGE_GET, values![call]).await?.as_ref().map(charge).transpose()
    }

    /// The calls of a run, in the order of their ids: that of their beginning.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn charge_list_of_run(&mut self, run: RunId) -> Result<Vec<Charge>, StoreError> {
        self.all(CHARGE_LIST_OF_RUN, values![run]).await?.iter().map(charge).collect()
    }

    /// The sum of a run's calls, those under way included with what is known of them.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn charge_of_run(&mut self, run: RunId) -> Result<ChargeSum, StoreError> {
        let row = self.first(CHARGE_OF_RUN, values![run]).await?;
        row.map_or(Ok(ChargeSum::default()), |row| sum(&mut row.read("charge")))
    }

    /// The sums of calls that ended, of the days from `since` to `until`, both included.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn charge_by(
        &mut self,
        by: ChargeBy,
        since: CalendarDay,
        until: CalendarDay,
    ) -> Result<Vec<ChargeSum>, StoreError> {
        let statement: Scoped = match by {
            ChargeBy::Model => CHARGE_BY_MODEL,
            ChargeBy::Agent => CHARGE_BY_AGENT,
            ChargeBy::Project => CHARGE_BY_PROJECT,
            ChargeBy::Person => CHARGE_BY_PERSON,
            ChargeBy::Day => CHARGE_BY_DAY,
        };
        let rows = self.all(statement, values![since.number(), until.number()]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = row.read("charge");
                let (provider, mut key) = (columns.text()?, columns.text()?);
                if by == ChargeBy::Day {
                    let day: i64 =
                        key.parse().map_err(|_| columns.invalid("day", "it is no number".to_owned()))?;
                    key = CalendarDay::from_number(day).to_string();
                }
                Ok(ChargeSum { provider, key, ..sum(&mut columns)? })
            })
            .collect()
    }
}

//! Budgets over a period: how much an org, a project, a person or an agent may spend in a day, a week or a month, and
//! what happens at which share of it.

use crate::error::StoreError;
use crate::sql::{Columns, Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::agent::agent_name_is_valid;
use tipstaff_model::budget::{percents_of, project_name_is_valid};
use tipstaff_model::id::RowId;
use tipstaff_model::money::LARGEST_BUDGET;
use tipstaff_model::{BudgetActions, BudgetHolder, BudgetPeriod, CalendarDay, MicroUsd};

macro_rules! budget_columns {
    () => {
        "id, scope, name, period, amount, notify, slow, stop, created_at, updated_at"
    };
}

statements! {
    // Whoever changes a budget wants to be told anew.
    scoped BUDGET_SET =
        "insert into budget (org_id, id, scope, name, period, amount, notify, slow, stop, created_at, updated_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10) on conflict (org_id, scope, name, period) do update set \
         amount = excluded.amount, notify = excluded.notify, slow = excluded.slow, stop = excluded.stop, \
         reached = 0, reached_since = -1, stopped_since = -1, updated_at = excluded.updated_at returning id";
    scoped BUDGET_LIST = concat!(
        "select ", budget_columns!(), " from budget where org_id = $1 order by scope, name, period"
    );
    scoped BUDGET_LIST_OF = concat!(
        "select ", budget_columns!(), " from budget where org_id = $1 and scope = $2 and name = $3 order by period"
    );
    scoped BUDGET_REMOVE = "delete from budget where org_id = $1 and scope = $2 and name = $3 and period = $4";
    // At most three budgets of each of the four holders that bind a run, each with the totals of its period: $2 is
    // today, $3 and $4 the first days of its week and month.
    scoped BUDGET_BINDING =
        "select b.id, b.scope, b.name, b.period, b.amount, b.notify, b.slow, b.stop, b.reached, b.reached_since, \
         b.stopped_since, cast(coalesce(sum(t.spent), 0) as bigint), cast(coalesce(sum(t.reserved), 0) as bigint), \
         cast(coalesce(sum(t.calls_open), 0) as bigint), cast(coalesce(max(t.changed_at), 0) as bigint) \
         from budget b left join charge_total t on t.org_id = $1 and t.scope = b.scope and t.name = b.name \
         and t.day <= $2 and t.day >= case b.period when 'day' then cast($2 as bigint) \
         when 'week' then cast($3 as bigint) else cast($4 as bigint) end \
         where b.org_id = $1 \
         and (b.scope, b.name) in (values ('org', ''), ('agent', $5), ('project', $6), ('person', $7)) \
         group by b.org_id, b.id, b.scope, b.name, b.period, b.amount, b.notify, b.slow, b.stop, b.reached, \
         b.reached_since, b.stopped_since order by b.scope, b.name, b.period";
    scoped BUDGET_REACHED = "update budget set reached = $3, reached_since = $4 where org_id = $1 and id = $2";
    scoped BUDGET_STOPPED = "update budget set stopped_since = $3 where org_id = $1 and id = $2";
}

/// A budget over a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Its id.
    pub id: RowId,
    /// Whom it binds.
    pub holder: BudgetHolder,
    /// How long it lasts before it begins anew.
    pub period: BudgetPeriod,
    /// How much may be spent in it.
    pub amount: MicroUsd,
    /// What happens at which share of it.
    pub actions: BudgetActions,
    /// When it was first set, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// When it was set last, in milliseconds since the Unix epoch.
    pub updated_at: i64,
}

/// A budget and how much of it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetStanding {
    /// The budget.
    pub budget: Budget,
    /// The first day of the period that goes on now.
    pub since: CalendarDay,
    /// Spent in it.
    pub spent: MicroUsd,
    /// Reserved by calls under way.
    pub reserved: MicroUsd,
}

/// A budget that binds a run, as the ledger sees it.
pub(crate) struct Binding {
    pub(crate) id: RowId,
    pub(crate) holder: BudgetHolder,
    pub(crate) period: BudgetPeriod,
    pub(crate) amount: MicroUsd,
    pub(crate) actions: BudgetActions,
    /// The first day of the period that goes on now.
    pub(crate) since: CalendarDay,
    /// The largest share that was told in it, in percent.
    pub(crate) reached: u64,
    /// Whether it was told in it that a call was refused.
    pub(crate) stopped: bool,
    pub(crate) spent: MicroUsd,
    pub(crate) reserved: MicroUsd,
    /// Whether a call of the holder is under way.
    pub(crate) calls_open: bool,
    /// When the holder's totals changed last, in milliseconds since the Unix epoch.
    pub(crate) changed_at: i64,
}

fn holder(columns: &mut Columns<'_>) -> Result<BudgetHolder, StoreError> {
    let (scope, name) = (columns.text()?, columns.text()?);
    Ok(match scope.as_str() {
        "org" => BudgetHolder::Org,
        "agent" => BudgetHolder::Agent(name),
        "project" => BudgetHolder::Project(name),
        "person" => {
            let member = name.parse().map_err(|_| columns.invalid("name", "it is no member".to_owned()))?;
            BudgetHolder::Person(member)
        }
        _ => return Err(columns.invalid("scope", "it holds no budget".to_owned())),
    })
}

fn percent(columns: &mut Columns<'_>, column: &'static str) -> Result<Option<u16>, StoreError> {
    let share = columns.int_opt()?;
    share
        .map(|share| u16::try_from(share).map_err(|_| columns.invalid(column, "it is no share".to_owned())))
        .transpose()
}

fn actions(columns: &mut Columns<'_>) -> Result<BudgetActions, StoreError> {
    let notify = columns.text()?;
    let notify = percents_of(&notify).map_err(|error| columns.invalid("notify", error.to_string()))?;
    Ok(BudgetActions { notify, slow: percent(columns, "slow")?, stop: percent(columns, "stop")? })
}

fn budget(mut columns: Columns<'_>) -> Result<Budget, StoreError> {
    Ok(Budget {
        id: columns.parsed("id")?,
        holder: holder(&mut columns)?,
        period: columns.parsed("period")?,
        amount: MicroUsd::from_micro(columns.count("amount")?),
        actions: actions(&mut columns)?,
        created_at: columns.int()?,
        updated_at: columns.int()?,
    })
}

fn binding(mut columns: Columns<'_>, today: CalendarDay) -> Result<Binding, StoreError> {
    let (id, holder) = (columns.parsed("id")?, holder(&mut columns)?);
    let period = columns.parsed("period")?;
    let since = today.first_of(period);
    let (amount, actions) = (MicroUsd::from_micro(columns.count("amount")?), actions(&mut columns)?);
    let (reached, reached_since) = (columns.count("reached")?, columns.int()?);
    let stopped_since = columns.int()?;
    Ok(Binding {
        id,
        holder,
        period,
        amount,
        actions,
        since,
        reached: if reached_since == since.number() { reached } else { 0 },
        stopped: stopped_since == since.number(),
        spent: MicroUsd::from_micro(columns.count("spent")?),
        reserved: MicroUsd::from_micro(columns.count("reserved")?),
        calls_open: columns.int()? > 0,
        changed_at: columns.int()?,
    })
}

impl OrgRead {
    /// All budgets over a period.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn budget_list(&mut self) -> Result<Vec<Budget>, StoreError> {
        self.all(BUDGET_LIST, &[]).await?.iter().map(|row| budget(row.read("budget"))).collect()
    }

    /// The budgets of one holder.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn budget_list_of(&mut self, holder: &BudgetHolder) -> Result<Vec<Budget>, StoreError> {
        let name = holder.name();
        let rows = self.all(BUDGET_LIST_OF, values![holder.scope().as_str(), name.as_ref()]).await?;
        rows.iter().map(|row| budget(row.read("budget"))).collect()
    }

    /// All budgets over a period, each with what is spent and reserved in the period that goes on now.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn budget_standing(&mut self) -> Result<Vec<BudgetStanding>, StoreError> {
        let today = CalendarDay::at(self.inner.now());
        let mut standing = Vec::new();
        for budget in self.budget_list().await? {
            let since = today.first_of(budget.period);
            let (scope, name) = (budget.holder.scope(), budget.holder.name());
            let (spent, reserved) = self.charge_total(scope, &name, since, today).await?;
            standing.push(BudgetStanding { since, spent, reserved, budget });
        }
        Ok(standing)
    }

    /// The budgets that bind a run of these holders today: at most twelve, by twelve rows and the days of a month each.
    pub(crate) async fn budget_binding(
        &mut self,
        agent: &str,
        project: &str,
        person: &str,
        today: CalendarDay,
    ) -> Result<Vec<Binding>, StoreError> {
        let (week, month) = (today.first_of(BudgetPeriod::Week), today.first_of(BudgetPeriod::Month));
        let row: &[Value<'_>] =
            values![today.number(), week.number(), month.number(), agent, project, person];
        let rows = self.all(BUDGET_BINDING, row).await?;
        rows.iter().map(|row| binding(row.read("budget"), today)).collect()
    }
}

impl OrgTx {
    /// Sets a budget over a period, or changes the one there is. What was spent in the period counts; what was told
    /// about it is told anew.
    ///
    /// # Errors
    /// `input` for a name that can't be one, an amount or a share that is none.
    pub async fn budget_set(
        &mut self,
        holder: &BudgetHolder,
        period: BudgetPeriod,
        amount: MicroUsd,
        actions: &BudgetActions,
    ) -> Result<RowId, StoreError> {
        let fits = match holder {
            BudgetHolder::Agent(name) => agent_name_is_valid(name),
            BudgetHolder::Project(name) => project_name_is_valid(name),
            BudgetHolder::Org | BudgetHolder::Person(_) => true,
        };
        if !fits {
            let why = "write 1 to 40 of a-z, 0-9 and '-', starting with a letter".to_owned();
            return Err(StoreError::Input { what: "holder's name", why });
        }
        if amount == MicroUsd::ZERO || amount > LARGEST_BUDGET {
            let why = format!("write more than $0 and at most {LARGEST_BUDGET}");
            return Err(StoreError::Input { what: "budget", why });
        }
        if !actions.is_valid() {
            let why = "write shares in percent from 1 to 1000, in order, none twice".to_owned();
            return Err(StoreError::Input { what: "budget's actions", why });
        }
        let id = RowId::new(&*self.inner.clock, &*self.inner.entropy);
        let (now, amount) = (self.inner.now(), i64::try_from(amount.micro()).unwrap_or(i64::MAX));
        let shares: Vec<String> = actions.notify.iter().map(ToString::to_string).collect();
        let (name, notify) = (holder.name(), shares.join(","));
        let row: &[Value<'_>] = values![
            id,
            holder.scope().as_str(),
            name.as_ref(),
            period.as_str(),
            amount,
            &notify,
            actions.slow.map(i64::from),
            actions.stop.map(i64::from),
            now
        ];
        let row = self.first(BUDGET_SET, row).await?;
        row.ok_or(StoreError::Missing { what: "budget" })?.read("budget").parsed("id")
    }

    /// Removes a budget; whether there was one.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn budget_remove(
        &mut self,
        holder: &BudgetHolder,
        period: BudgetPeriod,
    ) -> Result<bool, StoreError> {
        let name = holder.name();
        let row = values![holder.scope().as_str(), name.as_ref(), period.as_str()];
        Ok(self.change(BUDGET_REMOVE, row).await? > 0)
    }
}

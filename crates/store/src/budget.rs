//! Budgets over a period: how much an org, or one of its agents, may spend in a day, a week or a month.

use crate::error::StoreError;
use crate::sql::{Columns, Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::agent::agent_name_is_valid;
use tipstaff_model::id::RowId;
use tipstaff_model::money::LARGEST_BUDGET;
use tipstaff_model::{BudgetHolder, BudgetPeriod, BudgetScope, CalendarDay, MicroUsd};

statements! {
    scoped BUDGET_SET =
        "insert into budget (org_id, id, scope, name, period, amount, created_at, updated_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $7) on conflict (org_id, scope, name, period) do update set \
         amount = excluded.amount, updated_at = excluded.updated_at returning id";
    scoped BUDGET_LIST =
        "select id, scope, name, period, amount, created_at, updated_at from budget where org_id = $1 \
         order by scope, name, period";
    scoped BUDGET_REMOVE = "delete from budget where org_id = $1 and scope = $2 and name = $3 and period = $4";
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

fn budget(mut columns: Columns<'_>) -> Result<Budget, StoreError> {
    let (id, scope, name) = (columns.parsed("id")?, columns.text()?, columns.text()?);
    let holder = match scope.as_str() {
        "org" => BudgetHolder::Org,
        "agent" => BudgetHolder::Agent(name),
        _ => return Err(columns.invalid("scope", "it is neither org nor agent".to_owned())),
    };
    Ok(Budget {
        id,
        holder,
        period: columns.parsed("period")?,
        amount: MicroUsd::from_micro(columns.count("amount")?),
        created_at: columns.int()?,
        updated_at: columns.int()?,
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
            let (spent, reserved) = self.charge_total(scope, name, since, today).await?;
            standing.push(BudgetStanding { since, spent, reserved, budget });
        }
        Ok(standing)
    }
}

impl OrgTx {
    /// Sets a budget over a period, or changes the amount of the one there is. What was spent in the period counts.
    ///
    /// # Errors
    /// `input` for an agent's name that can't be one, or an amount that is none.
    pub async fn budget_set(
        &mut self,
        holder: &BudgetHolder,
        period: BudgetPeriod,
        amount: MicroUsd,
    ) -> Result<RowId, StoreError> {
        if holder.scope() == BudgetScope::Agent && !agent_name_is_valid(holder.name()) {
            let why = "write 1 to 40 of a-z, 0-9 and '-', starting with a letter".to_owned();
            return Err(StoreError::Input { what: "agent's name", why });
        }
        if amount == MicroUsd::ZERO || amount > LARGEST_BUDGET {
            let why = format!("write more than $0 and at most {LARGEST_BUDGET}");
            return Err(StoreError::Input { what: "budget", why });
        }
        let id = RowId::new(&*self.inner.clock, &*self.inner.entropy);
        let (now, amount) = (self.inner.now(), i64::try_from(amount.micro()).unwrap_or(i64::MAX));
        let row: &[Value<'_>] =
            values![id, holder.scope().as_str(), holder.name(), period.as_str(), amount, now];
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
        let row = values![holder.scope().as_str(), holder.name(), period.as_str()];
        Ok(self.change(BUDGET_REMOVE, row).await? > 0)
    }
}

//! What was refused during a run, and by which rule.

use crate::error::StoreError;
use crate::lease::Lease;
use crate::signal::Topic;
use crate::sql::{Columns, Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::id::RowId;
use tipstaff_model::{Refusal, Rule, RunId};

statements! {
    scoped REFUSAL_ADD =
        "insert into refusal (org_id, id, run_id, rule, wanted, why, at) values ($1, $2, $3, $4, $5, $6, $7)";
    scoped REFUSAL_LIST =
        "select id, rule, wanted, why, at from refusal where org_id = $1 and run_id = $2 order by at, id";
}

/// A stored refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRefusal {
    /// Its id.
    pub id: RowId,
    /// What was refused.
    pub refusal: Refusal,
    /// When, in milliseconds since the Unix epoch.
    pub at: i64,
}

fn refusal(mut columns: Columns<'_>) -> Result<StoredRefusal, StoreError> {
    let (id, word) = (columns.parsed("id")?, columns.text()?);
    let rule = Rule::ALL.iter().copied().find(|rule| rule.id() == word);
    let rule = rule.ok_or_else(|| columns.invalid("rule", "it is not a rule".to_owned()))?;
    let refusal = Refusal { rule, wanted: columns.text()?, why: columns.text()? };
    Ok(StoredRefusal { id, refusal, at: columns.int()? })
}

impl OrgRead {
    /// What was refused during a run, in order.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn refusal_list(&mut self, run: RunId) -> Result<Vec<StoredRefusal>, StoreError> {
        let rows = self.all(REFUSAL_LIST, values![run]).await?;
        rows.iter().map(|row| refusal(row.read("refusal"))).collect()
    }
}

impl OrgTx {
    /// Keeps a refusal of the lease's run.
    ///
    /// # Errors
    /// `lease-lost`.
    pub async fn refusal_add(&mut self, lease: &Lease, refusal: &Refusal) -> Result<RowId, StoreError> {
        self.lease_guard(lease).await?;
        let id = RowId::new(&*self.inner.clock, &*self.inner.entropy);
        let now = self.inner.now();
        let row: &[Value<'_>] =
            values![id, lease.run(), refusal.rule.id(), &refusal.wanted, &refusal.why, now];
        self.change(REFUSAL_ADD, row).await?;
        self.announce(Topic::Run);
        Ok(id)
    }
}

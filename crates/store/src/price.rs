//! The price table that an org set in place of the program's.

use crate::error::StoreError;
use crate::sql::{statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::PriceTable;

statements! {
    scoped PRICE_TABLE_GET = "select body from price_table where org_id = $1";
    scoped PRICE_TABLE_SET =
        "insert into price_table (org_id, body, updated_at) values ($1, $2, $3) \
         on conflict (org_id) do update set body = excluded.body, updated_at = excluded.updated_at";
    scoped PRICE_TABLE_RESET = "delete from price_table where org_id = $1";
}

impl OrgRead {
    /// The price table that the org set; `None` when it uses the program's.
    ///
    /// # Errors
    /// `value` when the stored table can't be read any more: a table that can't be trusted is not passed over.
    pub async fn price_table(&mut self) -> Result<Option<PriceTable>, StoreError> {
        let Some(row) = self.first(PRICE_TABLE_GET, &[]).await? else { return Ok(None) };
        let mut columns = row.read("price_table");
        let body = columns.text()?;
        let table = PriceTable::parse(body.as_bytes());
        table.map(Some).map_err(|error| columns.invalid("body", error.to_string()))
    }
}

impl OrgTx {
    /// Sets the org's price table. Calls under way keep the prices they began with.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn price_table_set(&mut self, table: &PriceTable) -> Result<(), StoreError> {
        let now = self.inner.now();
        self.change(PRICE_TABLE_SET, values![table.to_json(), now]).await?;
        Ok(())
    }

    /// Goes back to the program's price table; whether another one was set.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn price_table_reset(&mut self) -> Result<bool, StoreError> {
        Ok(self.change(PRICE_TABLE_RESET, &[]).await? > 0)
    }
}

//! What is to be told to the outside, kept in the transaction that it tells of, and sent afterwards at least once.

use crate::error::StoreError;
use crate::sql::{Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::id::RowId;

statements! {
    scoped OUTBOX_ADD = "insert into outbox (org_id, id, kind, body, created_at) values ($1, $2, $3, $4, $5)";
    scoped OUTBOX_UNSENT =
        "select id, kind, body, created_at from outbox where org_id = $1 and sent_at is null order by id limit $2";
    scoped OUTBOX_SENT = "update outbox set sent_at = $3 where org_id = $1 and id = $2 and sent_at is null";
    scoped OUTBOX_PRUNE = "delete from outbox where org_id = $1 and sent_at < $2";
}

/// A message that waits to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxMessage {
    /// Its id; the receiver may use it to drop doubles.
    pub id: RowId,
    /// What kind.
    pub kind: String,
    /// Its body.
    pub body: serde_json::Value,
    /// When it was written, in milliseconds since the Unix epoch.
    pub created_at: i64,
}

impl OrgRead {
    /// Messages that were not sent yet, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn outbox_list(&mut self, limit: u32) -> Result<Vec<OutboxMessage>, StoreError> {
        let rows = self.all(OUTBOX_UNSENT, values![i64::from(limit)]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = row.read("outbox");
                Ok(OutboxMessage {
                    id: columns.parsed("id")?,
                    kind: columns.text()?,
                    body: columns.json("body")?,
                    created_at: columns.int()?,
                })
            })
            .collect()
    }
}

impl OrgTx {
    /// Writes a message to be sent once this transaction is committed.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn outbox_add(&mut self, kind: &str, body: &serde_json::Value) -> Result<RowId, StoreError> {
        let id = RowId::new(&*self.inner.clock, &*self.inner.entropy);
        let (body, now) = (body.to_string(), self.inner.now());
        let row: &[Value<'_>] = values![id, kind, &body, now];
        self.change(OUTBOX_ADD, row).await?;
        Ok(id)
    }

    /// Notes that a message was sent; whether it was waiting until now.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn outbox_sent(&mut self, id: RowId) -> Result<bool, StoreError> {
        let now = self.inner.now();
        Ok(self.change(OUTBOX_SENT, values![id, now]).await? > 0)
    }

    /// Removes messages that were sent before a moment (milliseconds since the Unix epoch); how many.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn outbox_prune(&mut self, sent_before: i64) -> Result<u64, StoreError> {
        self.change(OUTBOX_PRUNE, values![sent_before]).await
    }
}

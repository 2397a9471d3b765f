//! A PostgreSQL connection in a transaction.
//!
//! Promises: dropping it rolls back before anybody else gets the connection; a connection that broke is not given back.

use super::driver::{DriverError, is_broken};
use super::{Row, Value};
use crate::error::StoreError;
use crate::store::pool::Held;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, PgConnection, Postgres, SqlStr};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long undoing a transaction may take before its connection is given up, which undoes it as well.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection, in a transaction from its making on.
pub(crate) struct PgLink {
    held: Option<Held<PgConnection>>,
    /// Whether there is a transaction that a drop has to undo.
    begun: bool,
}

fn arguments(values: &[Value<'_>]) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    arguments.reserve(values.len(), values.len() * 24);
    for value in values {
        match value {
            Value::Text(text) => arguments.add(*text),
            Value::Owned(text) => arguments.add(text.as_str()),
            Value::Int(number) => arguments.add(*number),
            Value::Bytes(bytes) => arguments.add(*bytes),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// A prepared, cached query of a registered text.
macro_rules! query {
    ($text:expr, $values:expr) => {
        sqlx::query_with::<Postgres, _>(sqlx::SqlSafeStr::into_sql_str($text), arguments($values)?)
    };
}

impl PgLink {
    /// Begins a transaction with `text`.
    pub(crate) async fn begin(held: Held<PgConnection>, text: SqlStr) -> Result<Self, DriverError> {
        // From here on, being dropped at any point rolls back, whether or not the transaction has begun.
        let mut link = Self { held: Some(held), begun: true };
        link.script(text).await?;
        Ok(link)
    }

    /// Without a transaction: each statement is its own.
    pub(crate) const fn alone(held: Held<PgConnection>) -> Self {
        Self { held: Some(held), begun: false }
    }

    fn connection(&mut self) -> Result<&mut PgConnection, DriverError> {
        match &mut self.held {
            Some(held) => held.connection(),
            None => Err(DriverError(super::driver::Cause::Closed)),
        }
    }

    fn checked<T>(&mut self, answer: Result<T, sqlx::Error>) -> Result<T, DriverError> {
        answer.map_err(|error| {
            if is_broken(&error)
                && let Some(held) = &mut self.held
            {
                held.discard();
            }
            DriverError::from(error)
        })
    }

    pub(crate) async fn execute(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, DriverError> {
        let done = query!(text, values).execute(self.connection()?).await;
        self.checked(done).map(|done| done.rows_affected())
    }

    pub(crate) async fn fetch_all(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, DriverError> {
        let rows = query!(text, values).fetch_all(self.connection()?).await;
        Ok(self.checked(rows)?.into_iter().map(Row::Postgres).collect())
    }

    pub(crate) async fn fetch_optional(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, DriverError> {
        let row = query!(text, values).fetch_optional(self.connection()?).await;
        Ok(self.checked(row)?.map(Row::Postgres))
    }

    /// Runs a text of one or several statements, in one trip.
    pub(crate) async fn script(&mut self, text: SqlStr) -> Result<(), DriverError> {
        let done = sqlx::raw_sql(text).execute(self.connection()?).await;
        self.checked(done).map(drop)
    }

    /// Runs a text that the server itself put together and quoted.
    pub(crate) async fn script_quoted(&mut self, text: String) -> Result<(), DriverError> {
        self.script(sqlx::SqlSafeStr::into_sql_str(sqlx::AssertSqlSafe(text))).await
    }

    pub(crate) async fn commit(mut self) -> Result<(), DriverError> {
        self.script(sqlx::SqlSafeStr::into_sql_str("commit")).await?;
        self.begun = false;
        Ok(())
    }

    pub(crate) async fn rollback(mut self) -> Result<(), DriverError> {
        self.script(sqlx::SqlSafeStr::into_sql_str("rollback")).await?;
        self.begun = false;
        Ok(())
    }
}

impl Drop for PgLink {
    fn drop(&mut self) {
        let Some(mut held) = self.held.take().filter(|held| self.begun && held.is_open()) else { return };
        // Out of its place until it is clean: should the runtime end meanwhile, it is closed, not given back.
        let Some(mut connection) = held.discard() else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let undo = sqlx::raw_sql("rollback").execute(&mut connection);
            if matches!(tokio::time::timeout(ROLLBACK_TIMEOUT, undo).await, Ok(Ok(_))) {
                held.restore(connection);
            }
        });
    }
}

/// The text that opens a transaction and sets one setting for its length, in one trip.
///
/// The value goes into the text, so it is checked here to be what an id is made of. `set local` is what
/// `set_config(…, true)` does, without a query to plan.
fn begin_text(begin: &str, setting: &'static str, value: &str) -> Result<SqlStr, StoreError> {
    let plain = value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f' | b'-'));
    if !plain || value.is_empty() {
        return Err(StoreError::Input { what: "transaction's scope", why: "it is not an id".to_owned() });
    }
    let text = format!("{begin}; set local {setting} = '{value}'");
    Ok(sqlx::SqlSafeStr::into_sql_str(sqlx::AssertSqlSafe(text)))
}

/// For a transaction that writes.
pub(crate) fn begin_with_setting(setting: &'static str, value: &str) -> Result<SqlStr, StoreError> {
    begin_text("begin", setting, value)
}

/// For a transaction that only reads, and sees one moment, as a SQLite reader does.
pub(crate) fn begin_read_with_setting(setting: &'static str, value: &str) -> Result<SqlStr, StoreError> {
    begin_text("begin isolation level repeatable read read only", setting, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_go_into_the_opening_text() {
        assert!(begin_with_setting("app.org_id", "01890a5d-ac96-774b-bcce-b302099a8057").is_ok());
        for bad in ["", "'", "a'; drop table task; --", "G", "01890A5D"] {
            assert_eq!(
                begin_with_setting("app.org_id", bad).err().map(|error| error.code()),
                Some("input"),
                "{bad}"
            );
        }
    }
}

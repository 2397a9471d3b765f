//! A connection in a transaction, of either engine.

use super::driver::DriverError;
use super::postgres::PgLink;
use super::{ROW_SIZES, Row, ScopedRows, Value};
use crate::store::sqlite::SqliteLink;

/// A transaction. Dropping it rolls back.
pub(crate) enum Link {
    /// A reader of SQLite, or its writer.
    Sqlite(SqliteLink),
    /// PostgreSQL.
    Postgres(PgLink),
}

impl Link {
    /// Runs a statement; the number of rows it changed.
    pub(crate) async fn execute(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, DriverError> {
        match self {
            Self::Sqlite(link) => link.execute(text, values).await,
            Self::Postgres(link) => link.execute(text, values).await,
        }
    }

    /// All rows of a statement.
    pub(crate) async fn fetch_all(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, DriverError> {
        match self {
            Self::Sqlite(link) => {
                Ok(link.rows(text, values, usize::MAX).await?.split().map(Row::Sqlite).collect())
            }
            Self::Postgres(link) => link.fetch_all(text, values).await,
        }
    }

    /// The first row of a statement, if there is one.
    pub(crate) async fn fetch_optional(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, DriverError> {
        match self {
            Self::Sqlite(link) => Ok(link.rows(text, values, 1).await?.split().next().map(Row::Sqlite)),
            Self::Postgres(link) => link.fetch_optional(text, values).await,
        }
    }

    /// Inserts many rows with few statements. `shared` are the values of `$1…` that all rows have in common; each row
    /// gives its own values in order. Returns the number of rows inserted.
    pub(crate) async fn insert_rows<'v>(
        &mut self,
        statement: &'static ScopedRows,
        shared: &[Value<'v>],
        rows: &[Vec<Value<'v>>],
    ) -> Result<u64, DriverError> {
        debug_assert_eq!(shared.len(), statement.shared);
        let mut inserted = 0;
        let mut rest = rows;
        for size in ROW_SIZES {
            while rest.len() >= size {
                let (chunk, after) = rest.split_at(size);
                let values: Vec<Value<'v>> = shared.iter().chain(chunk.iter().flatten()).cloned().collect();
                inserted += self.execute(statement.text(size), &values).await?;
                rest = after;
            }
        }
        Ok(inserted)
    }

    /// Runs a script of several statements: a migration.
    pub(crate) async fn script(&mut self, text: &'static str) -> Result<(), DriverError> {
        match self {
            Self::Sqlite(link) => link.script(text).await,
            Self::Postgres(link) => link.script(sqlx::SqlSafeStr::into_sql_str(text)).await,
        }
    }

    /// Runs a text that the server itself put together and quoted: making a role takes no placeholders.
    pub(crate) async fn script_quoted(&mut self, text: String) -> Result<(), DriverError> {
        match self {
            Self::Sqlite(link) => link.script(&text).await,
            Self::Postgres(link) => link.script_quoted(text).await,
        }
    }

    pub(crate) async fn commit(self) -> Result<(), DriverError> {
        match self {
            Self::Sqlite(link) => link.commit().await,
            Self::Postgres(link) => link.commit().await,
        }
    }

    pub(crate) async fn rollback(self) -> Result<(), DriverError> {
        match self {
            Self::Sqlite(link) => link.rollback().await,
            Self::Postgres(link) => link.rollback().await,
        }
    }
}

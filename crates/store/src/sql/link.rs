//! A connection in a transaction, of either engine. The only place that hands a text to the driver.

use super::{ROW_SIZES, Row, ScopedRows, Value};
use crate::error::StoreError;
use crate::store::sqlite::WriteLink;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, Postgres, SqlStr, Sqlite, SqliteConnection, Transaction};

/// A transaction. Dropping it rolls back.
pub(crate) enum Link {
    /// A reader of SQLite.
    Sqlite(Transaction<'static, Sqlite>),
    /// The writer of SQLite.
    SqliteWriter(WriteLink),
    /// PostgreSQL.
    Postgres(Transaction<'static, Postgres>),
}

macro_rules! bind {
    ($arguments:ty, $values:expr) => {{
        let mut arguments = <$arguments>::default();
        arguments.reserve($values.len(), $values.len() * 24);
        for value in $values {
            match value {
                Value::Text(text) => arguments.add(*text),
                Value::Owned(text) => arguments.add(text.as_str()),
                Value::Int(number) => arguments.add(*number),
                Value::Bytes(bytes) => arguments.add(*bytes),
            }
            .map_err(sqlx::Error::Encode)?;
        }
        arguments
    }};
}

fn sqlite_arguments(values: &[Value<'_>]) -> Result<SqliteArguments, sqlx::Error> {
    Ok(bind!(SqliteArguments, values))
}

fn postgres_arguments(values: &[Value<'_>]) -> Result<PgArguments, sqlx::Error> {
    Ok(bind!(PgArguments, values))
}

/// A prepared, cached query of a registered text.
macro_rules! query {
    ($engine:ty, $text:expr, $arguments:expr) => {
        sqlx::query_with::<$engine, _>(sqlx::SqlSafeStr::into_sql_str($text), $arguments)
    };
}

/// Begins or ends a transaction of the writer; prepared once.
pub(crate) async fn run_plain(
    connection: &mut SqliteConnection,
    text: &'static str,
) -> Result<(), sqlx::Error> {
    query!(Sqlite, text, SqliteArguments::default()).execute(connection).await.map(drop)
}

impl Link {
    /// Runs a statement; the number of rows it changed.
    pub(crate) async fn execute(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, sqlx::Error> {
        match self {
            Self::Sqlite(tx) => {
                let done = query!(Sqlite, text, sqlite_arguments(values)?).execute(&mut **tx).await?;
                Ok(done.rows_affected())
            }
            Self::SqliteWriter(tx) => {
                let done = query!(Sqlite, text, sqlite_arguments(values)?).execute(tx.connection()?).await?;
                Ok(done.rows_affected())
            }
            Self::Postgres(tx) => {
                let done = query!(Postgres, text, postgres_arguments(values)?).execute(&mut **tx).await?;
                Ok(done.rows_affected())
            }
        }
    }

    /// All rows of a statement.
    pub(crate) async fn fetch_all(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(tx) => {
                let rows = query!(Sqlite, text, sqlite_arguments(values)?).fetch_all(&mut **tx).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::SqliteWriter(tx) => {
                let rows =
                    query!(Sqlite, text, sqlite_arguments(values)?).fetch_all(tx.connection()?).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(tx) => {
                let rows = query!(Postgres, text, postgres_arguments(values)?).fetch_all(&mut **tx).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The first row of a statement, if there is one.
    pub(crate) async fn fetch_optional(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(tx) => {
                let row = query!(Sqlite, text, sqlite_arguments(values)?).fetch_optional(&mut **tx).await?;
                Ok(row.map(Row::Sqlite))
            }
            Self::SqliteWriter(tx) => {
                let row =
                    query!(Sqlite, text, sqlite_arguments(values)?).fetch_optional(tx.connection()?).await?;
                Ok(row.map(Row::Sqlite))
            }
            Self::Postgres(tx) => {
                let row =
                    query!(Postgres, text, postgres_arguments(values)?).fetch_optional(&mut **tx).await?;
                Ok(row.map(Row::Postgres))
            }
        }
    }

    /// Inserts many rows with few statements. `shared` are the values of `$1…` that all rows have in common; each row
    /// gives its own values in order. Returns the number of rows inserted.
    pub(crate) async fn insert_rows<'v>(
        &mut self,
        statement: &'static ScopedRows,
        shared: &[Value<'v>],
        rows: &[Vec<Value<'v>>],
    ) -> Result<u64, sqlx::Error> {
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
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the door: migration files are constants of this crate"
    )]
    pub(crate) async fn script(&mut self, text: &'static str) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => sqlx::raw_sql(text).execute(&mut **tx).await.map(drop),
            Self::SqliteWriter(tx) => sqlx::raw_sql(text).execute(tx.connection()?).await.map(drop),
            Self::Postgres(tx) => sqlx::raw_sql(text).execute(&mut **tx).await.map(drop),
        }
    }

    /// Runs a text that the server itself put together and quoted: making a role takes no placeholders.
    #[expect(clippy::disallowed_methods, reason = "this is the door: see above")]
    pub(crate) async fn script_quoted(&mut self, text: String) -> Result<(), sqlx::Error> {
        let text = sqlx::AssertSqlSafe(text);
        match self {
            Self::Sqlite(tx) => sqlx::raw_sql(text).execute(&mut **tx).await.map(drop),
            Self::SqliteWriter(tx) => sqlx::raw_sql(text).execute(tx.connection()?).await.map(drop),
            Self::Postgres(tx) => sqlx::raw_sql(text).execute(&mut **tx).await.map(drop),
        }
    }

    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::SqliteWriter(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
    }

    pub(crate) async fn rollback(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.rollback().await,
            Self::SqliteWriter(tx) => tx.rollback().await,
            Self::Postgres(tx) => tx.rollback().await,
        }
    }
}

/// The text that opens a PostgreSQL transaction and sets one setting for its length, in one round trip.
///
/// The value goes into the text, so it is checked here to be what an id is made of.
fn begin_text(begin: &str, setting: &'static str, value: &str) -> Result<SqlStr, StoreError> {
    let plain = value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f' | b'-'));
    if !plain || value.is_empty() {
        return Err(StoreError::Input { what: "transaction's scope", why: "it is not an id".to_owned() });
    }
    let text = format!("{begin}; select set_config('{setting}', '{value}', true)");
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

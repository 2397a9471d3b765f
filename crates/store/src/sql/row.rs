//! A row of either engine, read column by column in the order of the `select`.

use crate::error::StoreError;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use std::str::FromStr;

/// One row.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// Reads the columns from the first one on. `table` names the table in errors.
    pub(crate) const fn read(&self, table: &'static str) -> Columns<'_> {
        Columns { row: self, table, next: 0 }
    }
}

/// Reads columns in order, so that no index can be wrong in one place only.
pub(crate) struct Columns<'r> {
    row: &'r Row,
    table: &'static str,
    next: usize,
}

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident -> $type:ty) => {
        $(#[$doc])*
        pub(crate) fn $name(&mut self) -> Result<$type, StoreError> {
            let index = self.next;
            self.next += 1;
            match self.row {
                Row::Sqlite(row) => row.try_get::<$type, _>(index),
                Row::Postgres(row) => row.try_get::<$type, _>(index),
            }
            .map_err(|error| self.unreadable(index, error))
        }
    };
}

impl Columns<'_> {
    getter!(text -> String);
    getter!(text_opt -> Option<String>);
    getter!(int -> i64);
    getter!(int_opt -> Option<i64>);
    getter!(bytes -> Vec<u8>);
    getter!(bytes_opt -> Option<Vec<u8>>);

    /// A text that parses into `T`: an id, a state, a name.
    pub(crate) fn parsed<T: FromStr>(&mut self, column: &'static str) -> Result<T, StoreError>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text()?;
        text.parse().map_err(|error: T::Err| self.invalid(column, error.to_string()))
    }

    /// The same, where the column may be null.
    pub(crate) fn parsed_opt<T: FromStr>(&mut self, column: &'static str) -> Result<Option<T>, StoreError>
    where
        T::Err: std::fmt::Display,
    {
        self.text_opt()?
            .map(|text| text.parse().map_err(|error: T::Err| self.invalid(column, error.to_string())))
            .transpose()
    }

    /// A number that is never negative.
    pub(crate) fn count(&mut self, column: &'static str) -> Result<u64, StoreError> {
        let number = self.int()?;
        u64::try_from(number).map_err(|_| self.invalid(column, "it is negative".to_owned()))
    }

    /// JSON text.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(
        &mut self,
        column: &'static str,
    ) -> Result<T, StoreError> {
        let text = self.text()?;
        serde_json::from_str(&text).map_err(|error| self.invalid(column, error.to_string()))
    }

    /// 0 or 1.
    pub(crate) fn flag(&mut self) -> Result<bool, StoreError> {
        Ok(self.int()? != 0)
    }

    pub(crate) const fn invalid(&self, column: &'static str, why: String) -> StoreError {
        StoreError::Value { table: self.table, column, why }
    }

    fn unreadable(&self, index: usize, error: sqlx::Error) -> StoreError {
        match error {
            sqlx::Error::ColumnDecode { source, .. } => {
                StoreError::Value { table: self.table, column: "?", why: format!("column {index}: {source}") }
            }
            other => StoreError::Database(other),
        }
    }
}

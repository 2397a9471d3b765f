//! A row of either engine, read column by column in the order of the `select`.

use super::driver::DriverError;
use super::sqlite::SqliteRow;
use crate::error::StoreError;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
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
    ($of_sqlite:ident, $type:ty, $(#[$doc:meta])* $optional:ident, $(#[$doc_plain:meta])* $plain:ident) => {
        $(#[$doc])*
        pub(crate) fn $optional(&mut self) -> Result<Option<$type>, StoreError> {
            let index = self.next;
            self.next += 1;
            match self.row {
                Row::Sqlite(row) => row.$of_sqlite(index).map_err(|why| self.unreadable(index, why)),
                Row::Postgres(row) => {
                    row.try_get::<Option<$type>, _>(index).map_err(|error| self.unreadable_by(index, error))
                }
            }
        }

        $(#[$doc_plain])*
        pub(crate) fn $plain(&mut self) -> Result<$type, StoreError> {
            let index = self.next;
            self.$optional()?.ok_or_else(|| self.unreadable(index, "it is null"))
        }
    };
}

impl<'r> Columns<'r> {
    getter!(text, &'r str,
        /// A text that stays in the row.
        text_ref_opt,
        /// A text that stays in the row.
        text_ref);
    getter!(int, i64, int_opt, int);
    getter!(bytes, &'r [u8],
        /// Bytes that stay in the row.
        bytes_ref_opt,
        /// Bytes that stay in the row.
        bytes_ref);

    pub(crate) fn text(&mut self) -> Result<String, StoreError> {
        self.text_ref().map(str::to_owned)
    }

    pub(crate) fn text_opt(&mut self) -> Result<Option<String>, StoreError> {
        Ok(self.text_ref_opt()?.map(str::to_owned))
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        self.bytes_ref().map(<[u8]>::to_vec)
    }

    /// A text that parses into `T`: an id, a state, a name.
    pub(crate) fn parsed<T: FromStr>(&mut self, column: &'static str) -> Result<T, StoreError>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text_ref()?;
        text.parse().map_err(|error: T::Err| self.invalid(column, error.to_string()))
    }

    /// The same, where the column may be null.
    pub(crate) fn parsed_opt<T: FromStr>(&mut self, column: &'static str) -> Result<Option<T>, StoreError>
    where
        T::Err: std::fmt::Display,
    {
        self.text_ref_opt()?
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
        let text = self.text_ref()?;
        serde_json::from_str(text).map_err(|error| self.invalid(column, error.to_string()))
    }

    /// 0 or 1.
    pub(crate) fn flag(&mut self) -> Result<bool, StoreError> {
        Ok(self.int()? != 0)
    }

    pub(crate) const fn invalid(&self, column: &'static str, why: String) -> StoreError {
        StoreError::Value { table: self.table, column, why }
    }

    fn unreadable(&self, index: usize, why: &str) -> StoreError {
        self.invalid("?", format!("column {index}: {why}"))
    }

    fn unreadable_by(&self, index: usize, error: sqlx::Error) -> StoreError {
        match error {
            sqlx::Error::ColumnDecode { source, .. } => self.unreadable(index, &source.to_string()),
            other => StoreError::Database(DriverError::from(other)),
        }
    }
}

//! A connection to a SQLite file, and the rows that it gives. Statements run where they are asked for: they are short,
//! and a trip to another thread would cost more than most of them.
//!
//! Promises: each registered text is prepared once per connection; nothing here waits, a lock that somebody else has is
//! an error at once.

use super::Value;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Statement};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Prepared statements kept per connection: all registered ones fit.
const STATEMENTS_CACHED: usize = 256;

/// A connection.
pub(crate) struct SqliteConnection {
    /// Locked by nobody: the mutex only makes it known to the compiler that one task at a time has it.
    raw: Mutex<Connection>,
    /// Texts as SQLite wants them, by the address and length of the registered ones, which live for ever.
    texts: HashMap<(usize, usize), Arc<str>>,
}

impl SqliteConnection {
    /// Opens a file that exists and runs `setup`.
    pub(crate) fn open(path: &Path, setup: &str) -> rusqlite::Result<Self> {
        // A name that begins with `file:` would be read as an address, which may carry options.
        let plain = if path.to_string_lossy().starts_with("file:") {
            Path::new(".").join(path)
        } else {
            PathBuf::from(path)
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let raw = Connection::open_with_flags(plain, flags)?;
        // Waiting is done by the caller, who keeps no thread for it.
        raw.busy_timeout(Duration::ZERO)?;
        raw.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        raw.execute_batch(setup)?;
        Ok(Self { raw: Mutex::new(raw), texts: HashMap::new() })
    }

    fn raw(&mut self) -> &mut Connection {
        self.raw.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` with the prepared statement of a registered text.
    fn with<T>(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
        work: impl FnOnce(&mut Statement<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let key = (text.as_ptr() as usize, text.len());
        let text = self.texts.entry(key).or_insert_with(|| numbered(text).into());
        let raw = self.raw.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut statement = raw.prepare_cached(text)?;
        for (index, value) in (1_usize..).zip(values) {
            match value {
                Value::Text(text) => statement.raw_bind_parameter(index, text)?,
                Value::Owned(text) => statement.raw_bind_parameter(index, text)?,
                Value::Int(number) => statement.raw_bind_parameter(index, number)?,
                Value::Bytes(bytes) => statement.raw_bind_parameter(index, bytes)?,
            }
        }
        work(&mut statement)
    }

    /// Runs a statement; the number of rows it changed.
    pub(crate) fn execute(&mut self, text: &'static str, values: &[Value<'_>]) -> rusqlite::Result<u64> {
        self.with(text, values, |statement| {
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            Ok(())
        })?;
        Ok(self.raw().changes())
    }

    /// The first `limit` rows of a statement.
    pub(crate) fn rows(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
        limit: usize,
    ) -> rusqlite::Result<SqliteRows> {
        self.with(text, values, |statement| {
            let mut gathered =
                SqliteRows { bytes: Vec::new(), cells: Vec::new(), width: statement.column_count() };
            let mut count = 0;
            let mut rows = statement.raw_query();
            while count < limit
                && let Some(row) = rows.next()?
            {
                for index in 0..gathered.width {
                    let value = row.get_ref(index)?;
                    gathered.add(value);
                }
                count += 1;
            }
            Ok(gathered)
        })
    }

    /// Runs a script of several statements.
    pub(crate) fn script(&mut self, text: &str) -> rusqlite::Result<()> {
        self.raw().execute_batch(text)
    }

    /// Undoes the transaction, if there is one.
    pub(crate) fn rollback(&mut self) -> rusqlite::Result<()> {
        // SQLite itself has undone it already after some errors.
        if self.raw().is_autocommit() {
            return Ok(());
        }
        self.execute("rollback", &[]).map(drop)
    }
}

/// A cell: a number, or a part of the rows' bytes.
#[derive(Clone, Copy)]
enum Cell {
    Null,
    Int(i64),
    Real,
    Text { from: usize, until: usize },
    Bytes { from: usize, until: usize },
}

/// Rows in two allocations.
pub(crate) struct SqliteRows {
    bytes: Vec<u8>,
    cells: Vec<Cell>,
    width: usize,
}

impl SqliteRows {
    fn add(&mut self, value: ValueRef<'_>) {
        let from = self.bytes.len();
        let cell = match value {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(number) => Cell::Int(number),
            ValueRef::Real(_) => Cell::Real,
            ValueRef::Text(bytes) => {
                self.bytes.extend_from_slice(bytes);
                Cell::Text { from, until: self.bytes.len() }
            }
            ValueRef::Blob(bytes) => {
                self.bytes.extend_from_slice(bytes);
                Cell::Bytes { from, until: self.bytes.len() }
            }
        };
        self.cells.push(cell);
    }

    /// One by one; they share what they hold.
    pub(crate) fn split(self) -> impl Iterator<Item = SqliteRow> {
        let count = self.cells.len().checked_div(self.width).unwrap_or(0);
        let rows = Arc::new(self);
        (0..count).map(move |number| SqliteRow { rows: Arc::clone(&rows), number })
    }
}

/// One row.
pub(crate) struct SqliteRow {
    rows: Arc<SqliteRows>,
    number: usize,
}

/// Why a column can't be read as what it should be.
pub(crate) type Unreadable = &'static str;

impl SqliteRow {
    fn cell(&self, index: usize) -> Result<Cell, Unreadable> {
        if index >= self.rows.width {
            return Err("there is no such column");
        }
        let cell = self.rows.cells.get(self.number * self.rows.width + index);
        cell.copied().ok_or("there is no such column")
    }

    fn part(&self, from: usize, until: usize) -> &[u8] {
        self.rows.bytes.get(from..until).unwrap_or_default()
    }

    pub(crate) fn text(&self, index: usize) -> Result<Option<&str>, Unreadable> {
        match self.cell(index)? {
            Cell::Null => Ok(None),
            Cell::Text { from, until } => {
                std::str::from_utf8(self.part(from, until)).map(Some).map_err(|_| "it is not UTF-8")
            }
            _ => Err("it is not a text"),
        }
    }

    pub(crate) fn int(&self, index: usize) -> Result<Option<i64>, Unreadable> {
        match self.cell(index)? {
            Cell::Null => Ok(None),
            Cell::Int(number) => Ok(Some(number)),
            _ => Err("it is not a whole number"),
        }
    }

    pub(crate) fn bytes(&self, index: usize) -> Result<Option<&[u8]>, Unreadable> {
        match self.cell(index)? {
            Cell::Null => Ok(None),
            Cell::Text { from, until } | Cell::Bytes { from, until } => Ok(Some(self.part(from, until))),
            _ => Err("it is not bytes"),
        }
    }
}

/// Writes `$n` as `?n`: SQLite takes `$1` for a name, and finds names by walking a list.
pub(crate) fn numbered(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quoted = false;
    let mut rest = text.chars().peekable();
    while let Some(one) = rest.next() {
        quoted ^= one == '\'';
        let number = one == '$' && !quoted && rest.peek().is_some_and(char::is_ascii_digit);
        out.push(if number { '?' } else { one });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_numbered_and_literals_left_alone() {
        assert_eq!(
            numbered("select '$1', 'it''s $2', $1 from t where a = $12 and b = '$'"),
            "select '$1', 'it''s $2', ?1 from t where a = ?12 and b = '$'"
        );
    }

    #[test]
    fn cells_are_read_as_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cells.db");
        std::fs::write(&file, []).unwrap();
        let mut connection = SqliteConnection::open(&file, "").unwrap();
        let text =
            "select $2, $1, null, 1.5, x'ff00', cast(x'ff' as text) union all select 2, 'b', 3, 4, '', ''";
        let rows: Vec<_> =
            connection.rows(text, &[Value::from("a\0b"), Value::from(7)], 9).unwrap().split().collect();
        let [first, second] = rows.as_slice() else { panic!("two rows") };
        assert_eq!((first.int(0), first.text(1)), (Ok(Some(7)), Ok(Some("a\0b"))));
        assert_eq!((first.text(2), first.int(2), first.bytes(2)), (Ok(None), Ok(None), Ok(None)));
        assert!(first.int(3).is_err() && first.text(3).is_err() && first.int(1).is_err());
        assert_eq!(first.bytes(4), Ok(Some([0xff, 0].as_slice())));
        assert!(first.text(4).is_err() && first.text(5).is_err() && first.text(6).is_err());
        assert_eq!((second.int(2), second.text(5)), (Ok(Some(3)), Ok(Some(""))));
        assert_eq!(connection.rows(text, &[Value::from("a"), Value::from(7)], 1).unwrap().split().count(), 1);
        assert_eq!(connection.rows("select 1 where 1 = 2", &[], 9).unwrap().split().count(), 0);
    }

    #[test]
    fn a_name_is_never_an_address() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Path::new("file:nothing-here?mode=memory");
        assert!(SqliteConnection::open(missing, "").is_err());
        assert!(SqliteConnection::open(&folder.path().join("missing.db"), "").is_err());
    }
}

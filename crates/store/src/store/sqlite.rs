//! SQLite: one file, one writer connection, a few readers, several processes.

use super::Db;
use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::migrate;
use crate::sql::{Link, statements};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, SqlitePool};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_model::Clock;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Bytes of a page; SQLite's default.
const PAGE: u64 = 4096;
/// Rows that a reader's thread may be ahead of the one who asked.
const ROWS_BUFFERED: usize = 500;
/// Prepared statements kept per connection: all registered ones fit.
pub(crate) const STATEMENTS_CACHED: usize = 256;

statements! {
    system (engine Sqlite) QUICK_CHECK = "select quick_check from pragma_quick_check";
}

fn options(path: &Path, config: &StoreConfig) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(Duration::from_millis(config.busy_timeout_ms))
        .statement_cache_capacity(STATEMENTS_CACHED)
        .thread_name(|number| format!("store-{number}"))
        .disable_statement_logging()
}

/// Opens the file. What is there is looked at before the first change.
pub(super) async fn open(path: &Path, config: &StoreConfig, clock: &dyn Clock) -> Result<Db, StoreError> {
    let driver = |error| StoreError::from_driver(error, config.busy_timeout_ms);
    // Made by us with 0600; SQLite gives its -wal and -shm files the same mode.
    let made = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    made.map_err(|error| StoreError::Unwritable(sqlx::Error::Io(error)))?;

    let plain = options(path, config);
    let inspect = PoolOptions::new().max_connections(1).test_before_acquire(false);
    let inspect: SqlitePool = inspect.connect_with(plain.clone()).await.map_err(driver)?;
    let mut link = Link::Sqlite(inspect.begin().await.map_err(driver)?);
    migrate::sqlite_inspect(&mut link, config.busy_timeout_ms).await?;
    link.rollback().await.map_err(driver)?;
    inspect.close().await;

    let mut write = plain
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", "67108864");
    if let Some(bytes) = config.size_limit_bytes {
        write = write.pragma("max_page_count", (bytes / PAGE).max(1).to_string());
    }
    // Rows cross from the connection's thread in lots: a page of the log then wakes the reader a few times, not often.
    let read = plain.pragma("query_only", "on").row_buffer_size(ROWS_BUFFERED);
    // A writer waits for the process's own writers as long as for other processes.
    let patience = Duration::from_millis(config.busy_timeout_ms);
    let writer =
        Writer { slot: Arc::new(Mutex::new(Some(write.connect().await.map_err(driver)?))), patience };
    let readers = PoolOptions::new()
        .test_before_acquire(false)
        .acquire_timeout(patience)
        .idle_timeout(None)
        .max_lifetime(None)
        .max_connections(config.connections.max(1))
        .connect_lazy_with(read);
    let db = Db::Sqlite { writer, readers };
    migrate::sqlite_migrate(&db, clock, config.busy_timeout_ms).await?;
    Ok(db)
}

/// Begins a writing transaction. On SQLite it has the write lock from its first moment, so that it never has to be
/// upgraded.
pub(crate) async fn begin_write(db: &Db) -> Result<Link, sqlx::Error> {
    match db {
        Db::Sqlite { writer, .. } => Ok(Link::SqliteWriter(writer.begin().await?)),
        Db::Postgres { app, .. } => Ok(Link::Postgres(app.begin().await?)),
    }
}

/// The one connection that writes. A pool of one would cost another trip to its thread per transaction.
pub(crate) struct Writer {
    slot: Arc<Mutex<Option<SqliteConnection>>>,
    patience: Duration,
}

impl Writer {
    async fn begin(&self) -> Result<WriteLink, sqlx::Error> {
        let slot = Arc::clone(&self.slot).lock_owned();
        let slot = tokio::time::timeout(self.patience, slot).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        // From here on, being dropped at any point rolls back, whether or not the transaction has begun.
        let mut link = WriteLink { slot: Some(slot) };
        crate::sql::link::run_plain(link.connection()?, "begin immediate").await?;
        Ok(link)
    }

    pub(super) async fn close(&self) {
        if let Some(connection) = self.slot.lock().await.take() {
            // What was committed is in the log; the next one to open the file folds it in.
            let _ = connection.close().await;
        }
    }
}

/// The writer, in a transaction.
pub(crate) struct WriteLink {
    slot: Option<OwnedMutexGuard<Option<SqliteConnection>>>,
}

impl WriteLink {
    pub(crate) fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.slot.as_mut().and_then(|slot| slot.as_mut()).ok_or(sqlx::Error::PoolClosed)
    }

    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        crate::sql::link::run_plain(self.connection()?, "commit").await?;
        self.slot = None;
        Ok(())
    }

    pub(crate) async fn rollback(mut self) -> Result<(), sqlx::Error> {
        crate::sql::link::run_plain(self.connection()?, "rollback").await?;
        self.slot = None;
        Ok(())
    }
}

impl Drop for WriteLink {
    fn drop(&mut self) {
        let Some(mut slot) = self.slot.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // The program ends. Closing the connection undoes the transaction.
            *slot = None;
            return;
        };
        // The slot stays taken until it is undone, so that the next writer meets a clean connection.
        runtime.spawn(async move {
            if let Some(connection) = slot.as_mut() {
                // It fails when nothing was begun, or when SQLite has undone it already: both are what is wanted.
                let _ = crate::sql::link::run_plain(connection, "rollback").await;
            }
        });
    }
}

/// `pragma quick_check`: `ok`, or the first thing that is wrong.
pub(super) async fn integrity_check(readers: &SqlitePool) -> Result<String, sqlx::Error> {
    let mut link = Link::Sqlite(readers.begin().await?);
    let row = link.fetch_optional(QUICK_CHECK.text, &[]).await?;
    link.rollback().await?;
    Ok(row.and_then(|row| row.read("pragma_quick_check").text().ok()).unwrap_or_default())
}

//! SQLite: one file, one writer connection, a few readers, several processes.
//!
//! Statements run on the thread that asks for them. What may take long goes to a thread of its own where the runtime
//! has several; a lock that another process holds is waited for without keeping a thread.

use super::Db;
use super::pool::{Held, Pool};
use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::migrate;
use crate::sql::driver::{Cause, DriverError, is_busy};
use crate::sql::sqlite::{SqliteConnection, SqliteRows};
use crate::sql::{Link, Value, statements};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tipstaff_model::Clock;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

/// Bytes of a page; SQLite's default.
const PAGE: u64 = 4096;
/// A commit that takes longer was waiting for its disk: the next one leaves its thread to others.
const SLOW_COMMIT: Duration = Duration::from_millis(5);
/// Milliseconds between two looks at a lock that another process has; the last one repeats.
const LOOK_AGAIN_MS: [u64; 6] = [1, 1, 2, 3, 5, 10];

const PLAIN: &str = "pragma foreign_keys = on;";
const READER: &str = "pragma foreign_keys = on; pragma query_only = on;";
const WRITER: &str = "pragma journal_mode = wal; pragma foreign_keys = on; pragma synchronous = full; \
     pragma journal_size_limit = 67108864; pragma secure_delete = on;";

/// Begins a reader's transaction: it sees one moment from its first statement on.
const BEGIN_READ: &str = "begin";
/// Begins the writer's: it has the write lock from its first moment, so that it never has to be upgraded.
const BEGIN_WRITE: &str = "begin immediate";

statements! {
    system (engine Sqlite) QUICK_CHECK = "select quick_check from pragma_quick_check";
}

/// Opens the file. What is there is looked at before the first change.
pub(super) async fn open(path: &Path, config: &StoreConfig, clock: &dyn Clock) -> Result<Db, StoreError> {
    let driver = |error| StoreError::from_driver(error, config.busy_timeout_ms);
    // Made by us with 0600; SQLite gives its -wal and -shm files the same mode.
    let made = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    made.map_err(|error| StoreError::Unwritable(Cause::File(error).into()))?;

    let patience = Duration::from_millis(config.busy_timeout_ms);
    let pool = |limit, setup, begin| SqlitePool {
        pool: Pool::new(limit, None),
        path: path.to_owned(),
        setup,
        begin,
        patience,
        slow: Arc::default(),
    };
    let inspect = pool(1, PLAIN.to_owned(), BEGIN_READ);
    let mut link = inspect.begin().await.map_err(driver)?;
    migrate::sqlite_inspect(&mut link, config.busy_timeout_ms).await?;
    link.rollback().await.map_err(driver)?;
    inspect.close().await;

    let limit = config.size_limit_bytes.map(|bytes| (bytes / PAGE).max(1));
    let limit = limit.map_or_else(String::new, |pages| format!(" pragma max_page_count = {pages};"));
    let writer = pool(1, format!("{WRITER}{limit}"), BEGIN_WRITE);
    let readers = pool(config.connections.max(1), READER.to_owned(), BEGIN_READ);
    let db = Db::Sqlite { writer, readers };
    migrate::sqlite_migrate(&db, clock, config.busy_timeout_ms).await?;
    Ok(db)
}

/// Begins a writing transaction.
pub(crate) async fn begin_write(db: &Db) -> Result<Link, DriverError> {
    match db {
        Db::Sqlite { writer, .. } => writer.begin().await,
        Db::Postgres { app, .. } => app.begin("begin").await,
    }
}

/// The writer (one connection, so that writers of this process queue fairly instead of meeting at the file's lock), or
/// the readers.
pub(crate) struct SqlitePool {
    pool: Pool<SqliteConnection>,
    path: PathBuf,
    /// What is run on a new connection.
    setup: String,
    begin: &'static str,
    /// How long to wait for a place, and for other processes.
    patience: Duration,
    /// Whether the last commit took longer than [`SLOW_COMMIT`].
    slow: Arc<AtomicBool>,
}

impl SqlitePool {
    /// Begins a transaction.
    pub(crate) async fn begin(&self) -> Result<Link, DriverError> {
        let deadline = Instant::now() + self.patience;
        let mut held = self.pool.take(deadline).await?;
        if !held.is_open() {
            let opened =
                patiently(deadline, || may_take_long(|| SqliteConnection::open(&self.path, &self.setup)));
            held.fill(opened.await?);
        }
        // From here on, being dropped at any point rolls back, whether or not the transaction has begun.
        let mut link = SqliteLink { held, patience: self.patience, slow: Arc::clone(&self.slow) };
        patiently(deadline, || link.held.connection()?.execute(self.begin, &[]).map_err(DriverError::from))
            .await?;
        Ok(Link::Sqlite(link))
    }

    pub(super) async fn close(&self) {
        // What was committed is in the log; the last connection folds it into the file, or the next one to open it.
        self.pool.close().await;
    }
}

/// Does `work` again while somebody else's lock is in the way, until `deadline`. No thread waits meanwhile.
async fn patiently<T, E: Into<DriverError>>(
    deadline: Instant,
    mut work: impl FnMut() -> Result<T, E>,
) -> Result<T, DriverError> {
    let mut pauses = LOOK_AGAIN_MS.into_iter();
    let mut pause = Duration::from_millis(1);
    loop {
        let error = match work() {
            Ok(done) => return Ok(done),
            Err(error) => error.into(),
        };
        let busy = matches!(&error.0, Cause::Sqlite(inner) if is_busy(inner));
        if !busy || Instant::now() >= deadline {
            return Err(error);
        }
        pause = pauses.next().map_or(pause, Duration::from_millis);
        tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
    }
}

/// Runs work that may take long, so that other tasks of this thread go on on another one where there is one.
pub(crate) fn may_take_long<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// A connection in a transaction. Dropping it rolls back.
pub(crate) struct SqliteLink {
    held: Held<SqliteConnection>,
    patience: Duration,
    slow: Arc<AtomicBool>,
}

impl SqliteLink {
    async fn run<T>(
        &mut self,
        mut work: impl FnMut(&mut SqliteConnection) -> rusqlite::Result<T>,
    ) -> Result<T, DriverError> {
        // A task with many statements lets others on now and then, as one that waits for a server does.
        tokio::task::coop::consume_budget().await;
        let held = &mut self.held;
        // Only the first look at the clock costs something, and only a statement that meets a lock takes it.
        match work(held.connection()?) {
            Err(error) if is_busy(&error) => {
                let deadline = Instant::now() + self.patience;
                patiently(deadline, || work(held.connection()?).map_err(DriverError::from)).await
            }
            other => other.map_err(DriverError::from),
        }
    }

    pub(crate) async fn execute(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, DriverError> {
        self.run(|connection| connection.execute(text, values)).await
    }

    pub(crate) async fn rows(
        &mut self,
        text: &'static str,
        values: &[Value<'_>],
        limit: usize,
    ) -> Result<SqliteRows, DriverError> {
        self.run(|connection| connection.rows(text, values, limit)).await
    }

    pub(crate) async fn script(&mut self, text: &str) -> Result<(), DriverError> {
        self.run(|connection| may_take_long(|| connection.script(text))).await
    }

    pub(crate) async fn commit(mut self) -> Result<(), DriverError> {
        let (slow, begun) = (self.slow.load(Ordering::Relaxed), Instant::now());
        // When it fails, dropping rolls back.
        let done = self.run(|connection| {
            let mut commit = || connection.execute("commit", &[]);
            // Handing the thread's other tasks over costs more than a fast disk's flush.
            if slow { may_take_long(commit) } else { commit() }
        });
        done.await?;
        self.slow.store(begun.elapsed() > SLOW_COMMIT, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) async fn rollback(mut self) -> Result<(), DriverError> {
        Ok(self.held.connection()?.rollback()?)
    }
}

impl Drop for SqliteLink {
    fn drop(&mut self) {
        let Ok(connection) = self.held.connection() else { return };
        // The place is free only after this, so that the next one meets a clean connection. One that can't be cleaned
        // is closed, which undoes its transaction.
        if connection.rollback().is_err() {
            self.held.discard();
        }
    }
}

/// `pragma quick_check`: `ok`, or the first thing that is wrong.
pub(super) async fn integrity_check(readers: &SqlitePool) -> Result<String, DriverError> {
    let Link::Sqlite(mut link) = readers.begin().await? else { return Ok(String::new()) };
    let rows = link.run(|connection| may_take_long(|| connection.rows(QUICK_CHECK.text, &[], 1))).await?;
    link.rollback().await?;
    let row = rows.split().next();
    Ok(row.and_then(|row| row.text(0).ok().flatten().map(str::to_owned)).unwrap_or_default())
}

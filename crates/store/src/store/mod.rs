//! The store: an open database, and the gateway into one org's rows.

pub(crate) mod pool;
pub(crate) mod postgres;
pub(crate) mod sqlite;

use crate::config::{Address, Engine, StoreConfig};
use crate::error::StoreError;
use crate::ring::RingCache;
use crate::scope::OrgScope;
use crate::signal::Signals;
use crate::sql::driver::{Cause, DriverError};
use crate::transaction::{OrgRead, OrgTx};
use std::fmt;
use std::sync::Arc;
use tipstaff_model::{Clock, Entropy};
use tipstaff_seal::RingKey;

/// The pools of one engine.
pub(crate) enum Db {
    /// One writer, so that writers of this process queue fairly instead of meeting at the file's lock.
    Sqlite { writer: sqlite::SqlitePool, readers: sqlite::SqlitePool },
    /// One pool per role.
    Postgres { app: postgres::PgPool, scheduler: postgres::PgPool },
}

pub(crate) struct Inner {
    pub(crate) db: Db,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) key: RingKey,
    pub(crate) rings: RingCache,
    pub(crate) signals: Signals,
    pub(crate) busy_timeout_ms: u64,
}

impl Inner {
    pub(crate) fn driver(&self, error: DriverError) -> StoreError {
        StoreError::from_driver(error, self.busy_timeout_ms)
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.wall_ms()
    }
}

/// An open database. Cheap to clone.
///
/// It reads no tenant row itself: those methods are on [`OrgRead`] and [`OrgTx`], which [`Store::begin`] gives for a
/// scope.
///
/// ```compile_fail,E0599
/// # async fn peek(store: tipstaff_store::Store, task: tipstaff_model::TaskId) {
/// store.task_get(task).await;
/// # }
/// ```
/// ```compile_fail,E0599
/// # async fn peek(store: tipstaff_store::Store) {
/// store.execute("select * from task").await;
/// # }
/// ```
///
/// and a scope is needed, an id is not enough:
///
/// ```compile_fail,E0308
/// # async fn peek(store: tipstaff_store::Store, org: tipstaff_model::OrgId) {
/// store.begin(&org).await;
/// # }
/// ```
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("engine", &self.engine()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a database, making and migrating it where that is ours to do. `key` wraps the keys of every org's ring.
    ///
    /// # Errors
    /// `database-address`, `database-unwritable`, `database-locked`, `database-corrupt`, `database-not-ours`,
    /// `schema-newer`, `schema-changed`, `disk-full`; on PostgreSQL also `database-unreachable`, `schema-older` and
    /// `role-too-strong`. Nothing is changed when it fails, except that an empty file may have been made.
    pub async fn open(
        config: StoreConfig,
        key: RingKey,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StoreError> {
        let busy_timeout_ms = config.busy_timeout_ms;
        let (db, listen) = match &config.address {
            Address::Sqlite(path) => (sqlite::open(path, &config, &*clock).await?, None),
            Address::Postgres { app, scheduler, owner } => {
                let db = postgres::open(app, scheduler, owner.as_deref(), &config, &*clock).await?;
                (db, Some(app.clone()))
            }
        };
        let signals = Signals::new(listen);
        let rings = RingCache::default();
        Ok(Self { inner: Arc::new(Inner { db, clock, entropy, key, rings, signals, busy_timeout_ms }) })
    }

    /// Which engine it runs on.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self.inner.db {
            Db::Sqlite { .. } => Engine::Sqlite,
            Db::Postgres { .. } => Engine::Postgres,
        }
    }

    /// Begins a transaction that reads and writes one org's rows. On SQLite it holds the file's write lock until it
    /// ends: keep it short.
    ///
    /// # Errors
    /// `database-locked` after the busy timeout, `database-unreachable`, `storage-failed`.
    pub async fn begin(&self, scope: &OrgScope) -> Result<OrgTx, StoreError> {
        OrgTx::begin(&self.inner, scope).await
    }

    /// Begins a transaction that sees one org's rows as they are now, and writes nothing.
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub async fn read(&self, scope: &OrgScope) -> Result<OrgRead, StoreError> {
        OrgRead::begin(&self.inner, scope).await
    }

    /// Checks the file (SQLite) for damage; reads all of it.
    ///
    /// # Errors
    /// `database-corrupt` when it is damaged.
    pub async fn integrity_check(&self) -> Result<(), StoreError> {
        match &self.inner.db {
            Db::Sqlite { readers, .. } => {
                match sqlite::integrity_check(readers).await.map_err(|error| self.inner.driver(error))? {
                    verdict if verdict == "ok" => Ok(()),
                    verdict => Err(StoreError::Corrupt(Cause::Finding(verdict).into())),
                }
            }
            Db::Postgres { .. } => Ok(()),
        }
    }

    /// Closes all connections; on SQLite the write-ahead log is folded into the file.
    pub async fn close(&self) {
        match &self.inner.db {
            Db::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Db::Postgres { app, scheduler } => {
                app.close().await;
                scheduler.close().await;
            }
        }
    }
}

//! Where the database is and how patient the store is.

use crate::error::StoreError;
use std::fmt;
use std::path::PathBuf;

/// The engines that the store runs on. One statement text serves both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file, embedded.
    Sqlite,
    /// A server.
    Postgres,
}

/// How long a writer waits for another process by default, in milliseconds.
pub const BUSY_TIMEOUT_MS: u64 = 30_000;

/// Where the database is.
#[derive(Clone)]
pub(crate) enum Address {
    Sqlite(PathBuf),
    Postgres { app: String, scheduler: String, owner: Option<String> },
}

/// What [`crate::Store::open`] needs to know.
#[derive(Clone)]
pub struct StoreConfig {
    pub(crate) address: Address,
    pub(crate) busy_timeout_ms: u64,
    pub(crate) connections: u32,
    pub(crate) size_limit_bytes: Option<u64>,
}

impl fmt::Debug for StoreConfig {
    /// Addresses are left out: they may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = self.engine();
        f.debug_struct("StoreConfig")
            .field("engine", &engine)
            .field("connections", &self.connections)
            .finish()
    }
}

impl StoreConfig {
    /// A SQLite file; it is made when it isn't there, with mode 0600.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self {
            address: Address::Sqlite(path.into()),
            busy_timeout_ms: BUSY_TIMEOUT_MS,
            connections: 4,
            size_limit_bytes: None,
        }
    }

    /// A PostgreSQL database: `app` and `scheduler` are the addresses of the roles `tipstaff_app` and
    /// `tipstaff_scheduler`. See [`crate::Store::provision_postgres`].
    #[must_use]
    pub fn postgres(app: impl Into<String>, scheduler: impl Into<String>) -> Self {
        Self {
            address: Address::Postgres { app: app.into(), scheduler: scheduler.into(), owner: None },
            busy_timeout_ms: BUSY_TIMEOUT_MS,
            connections: 10,
            size_limit_bytes: None,
        }
    }

    /// Reads `sqlite:PATH` (also `sqlite://PATH`), or `postgres://…` with the role `tipstaff_app`; the scheduler's
    /// address is then the same one with the user `tipstaff_scheduler`.
    ///
    /// # Errors
    /// `database-address` for anything else.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        if let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
            return if path.is_empty() || path.contains('?') || path == ":memory:" {
                Err(StoreError::Config {
                    why: "sqlite: needs the path of a file, without options".to_owned(),
                })
            } else {
                Ok(Self::sqlite(path))
            };
        }
        let scheme = url.starts_with("postgres://") || url.starts_with("postgresql://");
        if !scheme {
            return Err(StoreError::Config {
                why: "it starts with neither sqlite: nor postgres://".to_owned(),
            });
        }
        let (head, tail) = url.split_once("://").unwrap_or_default();
        match tail.strip_prefix("tipstaff_app") {
            Some(rest) if rest.starts_with(['@', ':']) => {
                Ok(Self::postgres(url, format!("{head}://tipstaff_scheduler{rest}")))
            }
            _ => Err(StoreError::Config {
                why: "the user must be tipstaff_app, so that row-level security holds".to_owned(),
            }),
        }
    }

    /// The owner's address, for PostgreSQL: the store then migrates when it opens.
    #[must_use]
    pub fn owner_url(mut self, url: impl Into<String>) -> Self {
        if let Address::Postgres { owner, .. } = &mut self.address {
            *owner = Some(url.into());
        }
        self
    }

    /// How long a writer waits for another process, in milliseconds.
    #[must_use]
    pub const fn busy_timeout_ms(mut self, ms: u64) -> Self {
        self.busy_timeout_ms = ms;
        self
    }

    /// Connections at most: PostgreSQL's app role, or SQLite's readers (it has one writer).
    #[must_use]
    pub const fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// A bound on the size of the SQLite file; reaching it is `disk-full`.
    #[must_use]
    pub const fn size_limit_bytes(mut self, bytes: u64) -> Self {
        self.size_limit_bytes = Some(bytes);
        self
    }

    /// Which engine the address is of.
    #[must_use]
    pub const fn engine(&self) -> Engine {
        match self.address {
            Address::Sqlite(_) => Engine::Sqlite,
            Address::Postgres { .. } => Engine::Postgres,
        }
    }
}

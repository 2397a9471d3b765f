//! What can go wrong at the store's edge.

use crate::sql::driver::{Cause, DriverError, is_broken, sqlite_code};
use tipstaff_model::RunState;

/// The store could not do it. The message says what happened, why, and what to do next; [`StoreError::code`] is stable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The address of the database can't be used.
    #[error("the database address can't be used: {why}; write sqlite:PATH or postgres://USER@HOST/DATABASE")]
    Config {
        /// What is wrong with it. Never the address itself: it may hold a password.
        why: String,
    },
    /// Another process held the write lock for longer than the busy timeout.
    #[error(
        "the database is locked by another process: it waited {waited_ms} ms; end the process that holds it, or try again"
    )]
    Busy {
        /// How long the store waited, in milliseconds.
        waited_ms: u64,
    },
    /// No space is left for the database.
    #[error(
        "the disk is full: the database could not grow; free space where it lies and run the command again: what was committed is kept"
    )]
    DiskFull(#[source] DriverError),
    /// The storage below the database failed.
    #[error(
        "the storage of the database failed: check the disk and its mount; what was committed is kept as far as the disk keeps it"
    )]
    Storage(#[source] DriverError),
    /// The database file may not be read or written.
    #[error(
        "the database can't be opened for writing: check that its folder exists and that its owner is you"
    )]
    Unwritable(#[source] DriverError),
    /// The database file is damaged.
    #[error(
        "the database is corrupt: nothing was changed; keep a copy of the file, then restore a backup, or recover with `sqlite3 FILE .recover`"
    )]
    Corrupt(#[source] DriverError),
    /// The file is a database of another program, or no database at all.
    #[error("the file is not a database of this program: nothing was changed; choose another path")]
    NotOurs,
    /// The schema is from a newer version.
    #[error(
        "the database is from a newer version (schema {found}, this program knows {known}): nothing was changed; install the newer version"
    )]
    SchemaNewer {
        /// Version found.
        found: i64,
        /// Newest version that this program knows.
        known: i64,
    },
    /// The schema is older, and this connection may not migrate.
    #[error(
        "the database's schema is {found}, this program needs {known}: run it once with the owner's address so that it migrates"
    )]
    SchemaOlder {
        /// Version found.
        found: i64,
        /// Version needed.
        known: i64,
    },
    /// A migration that was applied differs from the one this program carries.
    #[error(
        "migration {version} of the database differs from this program's: it was made by a changed build; use the build that made it, or restore a backup"
    )]
    SchemaChanged {
        /// The migration's number.
        version: i64,
    },
    /// The PostgreSQL server can't be reached or broke the connection.
    #[error(
        "the database server can't be reached: check its address, that it runs, and that it accepts this user"
    )]
    Unreachable(#[source] DriverError),
    /// The database role could get around row-level security.
    #[error(
        "the database role '{role}' {why}: row-level security would not hold; connect as tipstaff_app (and tipstaff_scheduler)"
    )]
    RoleTooStrong {
        /// The role.
        role: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// PostgreSQL refused a statement for lack of a right, or a row-level security policy did.
    #[error("the database refused the statement: the role lacks a right, or the row belongs to another org")]
    Denied(#[source] DriverError),
    /// Another worker has the task now.
    #[error("the lease on this task went to another worker: stop and leave everything as it is")]
    LeaseLost,
    /// A state that can't follow.
    #[error("a {what} that is {from} can't become {to}")]
    Transition {
        /// `task` or `run`.
        what: &'static str,
        /// Its state.
        from: RunState,
        /// The state asked for.
        to: RunState,
    },
    /// A row with the same unique value exists.
    #[error("there is one already: choose another name or id")]
    Conflict(#[source] DriverError),
    /// A row names another that isn't there.
    #[error("the {what} is not there: it was removed, or belongs to another org")]
    Missing {
        /// What isn't there.
        what: &'static str,
    },
    /// A row refers to one that isn't there, or is referred to.
    #[error("the row refers to another that is not there, or is referred to by one")]
    Reference(#[source] DriverError),
    /// Two transactions got in each other's way.
    #[error("another transaction got in the way: nothing was changed; try again")]
    Contention(#[source] DriverError),
    /// A statement of this transaction failed before, so it can't be committed.
    #[error("a statement of this transaction failed: nothing of it was kept; begin a new one")]
    TransactionBroken,
    /// A stored value can't be read.
    #[error(
        "{table}.{column} holds a value that can't be read ({why}): it was altered, or is from a newer version"
    )]
    Value {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The same id was used for two questions.
    #[error("the question {id} was asked about another action: ask with a new id")]
    ApprovalMismatch {
        /// The question's id.
        id: tipstaff_model::ApprovalId,
    },
    /// This person may not answer this question.
    #[error("the question can't be answered by you: {why}")]
    ApprovalForbidden {
        /// Why not, and who may.
        why: &'static str,
    },
    /// A value that may not be stored.
    #[error("the {what} can't be stored: {why}")]
    Input {
        /// Which value.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// An export could not be written.
    #[error(
        "the export could not be written: check the file and the free space; the log itself is untouched"
    )]
    Export(#[source] std::io::Error),
    /// A key, a sealed value or the log can't be used.
    #[error(transparent)]
    Seal(#[from] tipstaff_seal::SealError),
    /// The database answered something else.
    #[error("the database answered with an error: this is a fault in the program or in the database")]
    Database(#[source] DriverError),
}

impl StoreError {
    /// A stable name of the error for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Config { .. } => "database-address",
            Self::Busy { .. } => "database-locked",
            Self::DiskFull(_) => "disk-full",
            Self::Storage(_) => "storage-failed",
            Self::Unwritable(_) => "database-unwritable",
            Self::Corrupt(_) => "database-corrupt",
            Self::NotOurs => "database-not-ours",
            Self::SchemaNewer { .. } => "schema-newer",
            Self::SchemaOlder { .. } => "schema-older",
            Self::SchemaChanged { .. } => "schema-changed",
            Self::Unreachable(_) => "database-unreachable",
            Self::RoleTooStrong { .. } => "role-too-strong",
            Self::Denied(_) => "database-denied",
            Self::LeaseLost => "lease-lost",
            Self::Transition { .. } => "transition",
            Self::Conflict(_) => "conflict",
            Self::Missing { .. } => "missing",
            Self::Reference(_) => "reference",
            Self::Contention(_) => "contention",
            Self::TransactionBroken => "transaction-broken",
            Self::Value { .. } => "stored-value",
            Self::ApprovalMismatch { .. } => "approval-mismatch",
            Self::ApprovalForbidden { .. } => "approval-forbidden",
            Self::Input { .. } => "input",
            Self::Export(_) => "export",
            Self::Seal(error) => error.code(),
            Self::Database(_) => "database",
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unreachable(_) | Self::Contention(_))
    }

    /// Sorts a driver's error. `waited_ms` is the busy timeout that a locked database was waited for.
    pub(crate) fn from_driver(error: DriverError, waited_ms: u64) -> Self {
        match &error.0 {
            Cause::Sqlite(inner) => match sqlite_code(inner) {
                Some(code) => Self::from_sqlite(error, code, waited_ms),
                None => Self::Database(error),
            },
            Cause::Postgres(sqlx::Error::Database(inner)) => {
                let code = inner.code().unwrap_or_default().into_owned();
                Self::from_postgres(error, &code)
            }
            Cause::Postgres(inner) if is_broken(inner) => Self::Unreachable(error),
            Cause::Postgres(_) => Self::Database(error),
            Cause::NoneFree => Self::Busy { waited_ms },
            Cause::Closed => Self::Unreachable(error),
            Cause::File(_) => Self::Storage(error),
            Cause::Finding(_) => Self::Corrupt(error),
        }
    }

    /// SQLite's result codes (<https://sqlite.org/rescode.html>); the low byte is the primary one.
    fn from_sqlite(error: DriverError, code: i32, waited_ms: u64) -> Self {
        const CONSTRAINT_FOREIGNKEY: i32 = 787;
        const CONSTRAINT_PRIMARYKEY: i32 = 1555;
        const CONSTRAINT_UNIQUE: i32 = 2067;
        match (code & 0xff, code) {
            (_, CONSTRAINT_UNIQUE | CONSTRAINT_PRIMARYKEY) => Self::Conflict(error),
            (_, CONSTRAINT_FOREIGNKEY) => Self::Reference(error),
            (5 | 6, _) => Self::Busy { waited_ms },
            (13, _) => Self::DiskFull(error),
            (10, _) => Self::Storage(error),
            (8 | 14 | 3 | 23, _) => Self::Unwritable(error),
            (11, _) => Self::Corrupt(error),
            (26, _) => Self::NotOurs,
            _ => Self::Database(error),
        }
    }

    /// PostgreSQL's SQLSTATE (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).
    fn from_postgres(error: DriverError, code: &str) -> Self {
        match code {
            "23505" => Self::Conflict(error),
            "23503" => Self::Reference(error),
            "53100" => Self::DiskFull(error),
            "58030" => Self::Storage(error),
            "XX001" | "XX002" => Self::Corrupt(error),
            "42501" => Self::Denied(error),
            "40001" | "40P01" | "55P03" => Self::Contention(error),
            "25P02" => Self::TransactionBroken,
            "28000" | "28P01" | "3D000" | "53300" | "57P01" | "57P02" | "57P03" => Self::Unreachable(error),
            other if other.starts_with("08") => Self::Unreachable(error),
            _ => Self::Database(error),
        }
    }
}

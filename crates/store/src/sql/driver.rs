//! What the drivers of both engines say when something fails, as one type.

/// What a database driver said. It is there for a person who looks for the cause; programs look at
/// [`crate::StoreError::code`].
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DriverError(pub(crate) Cause);

/// Where a driver's error comes from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error(transparent)]
    Sqlite(rusqlite::Error),
    #[error(transparent)]
    Postgres(sqlx::Error),
    #[error(transparent)]
    File(std::io::Error),
    /// All connections were in use for as long as one is waited for.
    #[error("no connection became free in time")]
    NoneFree,
    /// The store was closed.
    #[error("the store was closed")]
    Closed,
    /// Something that is stored can't be so.
    #[error("{0}")]
    Finding(String),
}

impl From<rusqlite::Error> for DriverError {
    fn from(error: rusqlite::Error) -> Self {
        Self(Cause::Sqlite(error))
    }
}

impl From<sqlx::Error> for DriverError {
    fn from(error: sqlx::Error) -> Self {
        Self(Cause::Postgres(error))
    }
}

impl From<Cause> for DriverError {
    fn from(cause: Cause) -> Self {
        Self(cause)
    }
}

/// SQLite's extended result code (<https://sqlite.org/rescode.html>); its low byte is the primary one.
pub(crate) const fn sqlite_code(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqliteFailure(inner, _) => Some(inner.extended_code),
        rusqlite::Error::SqlInputError { error: inner, .. } => Some(inner.extended_code),
        _ => None,
    }
}

/// Whether another connection is in the way, and the same call may succeed a moment later.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    const BUSY: i32 = 5;
    /// A reader that wants to write on top of what it has not seen: waiting does not help.
    const BUSY_SNAPSHOT: i32 = 517;
    sqlite_code(error).is_some_and(|code| code & 0xff == BUSY && code != BUSY_SNAPSHOT)
}

/// Whether the connection that said so is of no further use.
pub(crate) fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            // The server ends the connection, or has ended it.
            database.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08"))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

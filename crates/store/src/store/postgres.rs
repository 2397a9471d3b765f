//! PostgreSQL: one pool per role. The owner migrates and is let go; the app is bound by row-level security; the
//! scheduler sees the task table's ids, states and times.

use super::{Db, Store};
use crate::config::StoreConfig;
use crate::error::StoreError;
use crate::migrate;
use crate::sql::driver::{Cause, DriverError, is_broken};
use crate::sql::postgres::PgLink;
use crate::sql::{Link, statements, values};
use crate::store::pool::{Held, Keep, Pool};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection, SqlSafeStr};
use std::io::ErrorKind;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_model::Clock;
use tipstaff_seal::Secret;
use tokio::time::Instant;

/// Prepared statements kept per connection: all registered ones fit.
const STATEMENTS_CACHED: usize = 256;
/// Times that a broken connection is replaced by another one before giving up.
const CONNECTION_TRIES: usize = 3;
/// Between two tries to connect to a server that is starting, at most.
const CONNECT_PAUSE: Duration = Duration::from_millis(300);
/// The server keeps plans and caches per connection: they are not to grow for ever.
const KEEP: Keep = Keep { lifetime: Duration::from_secs(30 * 60), idle: Duration::from_secs(10 * 60) };

/// The role that the app's connections use.
pub const APP_ROLE: &str = "tipstaff_app";
/// The role that the scheduler's connections use.
pub const SCHEDULER_ROLE: &str = "tipstaff_scheduler";

statements! {
    // Whoever may act as the owner of a table may switch its row-level security off.
    system (engine Postgres) ROLE_STRENGTH =
        "select current_user::text, (case when r.rolsuper then 'is a superuser' \
         when r.rolbypassrls then 'may bypass row-level security' \
         when exists (select 1 from pg_class c where c.oid = to_regclass('task') \
             and pg_has_role(current_user, c.relowner, 'member')) then 'owns the tables' end)::text \
         from pg_roles r where r.rolname = current_user";
    system (engine Postgres) ROLE_EXISTS = "select 1::bigint from pg_roles where rolname = $1";
    system (engine Postgres) ROLE_TEXT = "select format('create role %I nologin', $1)";
    system (engine Postgres) ROLE_LOGIN_TEXT = "select format('alter role %I login', $1)";
    system (engine Postgres) ROLE_PASSWORD_TEXT = "select format('alter role %I login password %L', $1, $2)";
}

fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| StoreError::Config { why: "it is not a PostgreSQL address".to_owned() })?;
    Ok(options
        .statement_cache_capacity(STATEMENTS_CACHED)
        .application_name("tipstaff")
        .disable_statement_logging())
}

/// For app and scheduler: every statement is a look-up by index whatever its values are, so one plan serves all. Left to
/// itself the server plans a statement anew each time when row-level security adds to it, which costs more than running
/// it.
fn planned_once(options: PgConnectOptions) -> PgConnectOptions {
    options.options([("plan_cache_mode", "force_generic_plan")])
}

/// One role's connections.
#[derive(Clone)]
pub(crate) struct PgPool {
    pool: Pool<PgConnection>,
    options: Arc<PgConnectOptions>,
    /// How long to wait for a connection.
    patience: Duration,
}

impl PgPool {
    fn new(options: PgConnectOptions, connections: u32, config: &StoreConfig) -> Self {
        let patience = Duration::from_millis(config.busy_timeout_ms);
        Self { pool: Pool::new(connections, Some(KEEP)), options: Arc::new(options), patience }
    }

    /// Begins a transaction with `text`. A connection that turns out to be broken is replaced: the server was restarted
    /// since it was last used.
    pub(crate) async fn begin(&self, text: impl SqlSafeStr) -> Result<Link, DriverError> {
        let text = text.into_sql_str();
        let mut tries = 0;
        loop {
            tries += 1;
            match PgLink::begin(self.take().await?, text.clone()).await {
                Err(DriverError(Cause::Postgres(error))) if is_broken(&error) && tries < CONNECTION_TRIES => {
                    self.pool.forget_idle();
                }
                other => return other.map(Link::Postgres),
            }
        }
    }

    /// A connection without a transaction: each statement is one.
    pub(crate) async fn alone(&self) -> Result<Link, DriverError> {
        Ok(Link::Postgres(PgLink::alone(self.take().await?)))
    }

    async fn take(&self) -> Result<Held<PgConnection>, DriverError> {
        let deadline = Instant::now() + self.patience;
        let mut held = self.pool.take(deadline).await?;
        if !held.is_open() {
            held.fill(self.connect(deadline).await?);
        }
        Ok(held)
    }

    /// Connects; a server that is just starting is waited for.
    async fn connect(&self, deadline: Instant) -> Result<PgConnection, DriverError> {
        let mut pause = Duration::from_millis(10);
        loop {
            let answer = tokio::time::timeout_at(deadline, self.options.connect()).await;
            let Ok(answer) = answer else {
                return Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into());
            };
            match answer {
                Err(error) if is_starting(&error) && Instant::now() + pause < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(CONNECT_PAUSE);
                }
                other => return Ok(other?),
            }
        }
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Whether the server is likely to take the connection a little later.
fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
        ),
        // Starting up or shutting down; too many connections.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| matches!(&*code, "57P03" | "53300")),
        _ => false,
    }
}

pub(super) async fn open(
    app: &str,
    scheduler: &str,
    owner: Option<&str>,
    config: &StoreConfig,
    clock: &dyn Clock,
) -> Result<Db, StoreError> {
    if let Some(owner) = owner {
        let owner = PgPool::new(options(owner)?, 1, config);
        let migrated = migrate::postgres_migrate(&owner, clock, config.busy_timeout_ms).await;
        owner.close().await;
        migrated?;
    }
    let app = PgPool::new(planned_once(options(app)?), config.connections.max(2), config);
    let scheduler = PgPool::new(planned_once(options(scheduler)?), config.connections.clamp(2, 4), config);
    for role in [&app, &scheduler] {
        refuse_strong_role(role, config.busy_timeout_ms).await?;
    }
    migrate::postgres_check(&app, config.busy_timeout_ms).await?;
    Ok(Db::Postgres { app, scheduler })
}

/// Fails when the role could get around row-level security: then the second wall would be painted on.
async fn refuse_strong_role(pool: &PgPool, waited_ms: u64) -> Result<(), StoreError> {
    let driver = |error| StoreError::from_driver(error, waited_ms);
    let mut link = pool.begin("begin").await.map_err(driver)?;
    let row = link.fetch_optional(ROLE_STRENGTH.text, &[]).await.map_err(driver)?;
    link.rollback().await.map_err(driver)?;
    let Some(row) = row else {
        return Err(StoreError::RoleTooStrong { role: "?".to_owned(), why: "is not listed" });
    };
    let mut columns = row.read("pg_roles");
    let (role, strength) = (columns.text()?, columns.text_opt()?);
    match strength.as_deref() {
        None => Ok(()),
        Some("is a superuser") => Err(StoreError::RoleTooStrong { role, why: "is a superuser" }),
        Some("owns the tables") => {
            Err(StoreError::RoleTooStrong { role, why: "owns the tables, or may act as their owner" })
        }
        Some(_) => Err(StoreError::RoleTooStrong { role, why: "may bypass row-level security" }),
    }
}

/// Passwords of the two roles; `None` leaves a role's authentication as it is (peer, certificate, `pg_hba.conf`).
#[derive(Debug, Clone, Default)]
pub struct PostgresPasswords {
    /// Of [`APP_ROLE`].
    pub app: Option<Secret<String>>,
    /// Of [`SCHEDULER_ROLE`].
    pub scheduler: Option<Secret<String>>,
}

impl Store {
    /// Prepares a PostgreSQL database: makes the app's and the scheduler's roles where they are missing, sets their
    /// passwords, and migrates the schema. Needs the address of a role that owns the database and may make roles.
    /// Running it again does no harm.
    ///
    /// # Errors
    /// `database-denied` when the role may not, `database-unreachable`, and the errors of migrating.
    pub async fn provision_postgres(
        owner_url: &str,
        passwords: &PostgresPasswords,
        clock: &dyn Clock,
    ) -> Result<(), StoreError> {
        let config = StoreConfig::postgres("", "");
        let driver = |error| StoreError::from_driver(error, config.busy_timeout_ms);
        let owner = PgPool::new(options(owner_url)?, 1, &config);
        for (role, password) in [(APP_ROLE, &passwords.app), (SCHEDULER_ROLE, &passwords.scheduler)] {
            provision_role(&owner, role, password.as_ref()).await.map_err(driver)?;
        }
        let migrated = migrate::postgres_migrate(&owner, clock, config.busy_timeout_ms).await;
        owner.close().await;
        migrated
    }
}

async fn provision_role(
    owner: &PgPool,
    role: &str,
    password: Option<&Secret<String>>,
) -> Result<(), DriverError> {
    let mut link = owner.begin("begin").await?;
    let mut texts = Vec::new();
    if link.fetch_optional(ROLE_EXISTS.text, values![role]).await?.is_none() {
        texts.push(link.fetch_optional(ROLE_TEXT.text, values![role]).await?);
    }
    texts.push(match password {
        Some(password) => {
            link.fetch_optional(ROLE_PASSWORD_TEXT.text, values![role, password.expose().as_str()]).await?
        }
        None => link.fetch_optional(ROLE_LOGIN_TEXT.text, values![role]).await?,
    });
    for text in texts.into_iter().flatten() {
        // `format` with %I and %L has quoted both on the server.
        let text = text.read("pg_roles").text().map_err(|_| sqlx::Error::RowNotFound)?;
        link.script_quoted(text).await?;
    }
    link.commit().await
}

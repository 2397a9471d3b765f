//! Schema versions: the embedded migrations, applied once, in order, each in one transaction.
//!
//! Promises: a database that is newer, damaged or somebody else's is left as it is; two processes that start at once
//! apply a migration once; a kill in the middle leaves the version before.

use crate::config::Engine;
use crate::error::StoreError;
use crate::sql::driver::{Cause, DriverError};
use crate::sql::{Link, System, statements, values};
use crate::store::postgres::PgPool;
use crate::store::{Db, sqlite};
use tipstaff_model::Clock;

/// SQLite's `application_id` of our files: "Tips".
pub(crate) const APPLICATION_ID: i64 = 0x5469_7073;

struct Migration {
    version: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../migrations/postgres/", $name, ".sql")),
        }
    };
}

const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_ground"),
    migration!(2, "0002_charges"),
    migration!(3, "0003_models"),
    migration!(4, "0004_publications"),
    migration!(5, "0005_money"),
    migration!(6, "0006_approvals"),
    migration!(7, "0007_policies"),
    migration!(8, "0008_retention"),
    migration!(9, "0009_resumed"),
    migration!(10, "0010_sub_runs"),
    migration!(11, "0011_approval_guard"),
];

/// The newest schema that this program knows.
pub const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

const TABLE_SQLITE: System = System {
    text: "create table if not exists schema_migration (version integer not null, name text not null, \
           checksum text not null, applied_at integer not null, primary key (version)) strict, without rowid",
};
const TABLE_POSTGRES: &str = "create table if not exists schema_migration (version bigint not null, \
     name text collate \"C\" not null, checksum text collate \"C\" not null, applied_at bigint not null, \
     primary key (version)); grant select on schema_migration to tipstaff_app;";
const STAMP_SQLITE: &str = "pragma application_id = 1416196211";

statements! {
    system APPLIED = "select version, checksum from schema_migration order by version";
    system APPLY = "insert into schema_migration (version, name, checksum, applied_at) values ($1, $2, $3, $4)";
    system (engine Sqlite) HAS_TABLE_SQLITE =
        "select 1 from sqlite_schema where type = 'table' and name = 'schema_migration'";
    system (engine Sqlite) FILE_IDENTITY =
        "select application_id, (select count(*) from sqlite_schema) from pragma_application_id";
    system (engine Postgres) HAS_TABLE_POSTGRES = "select 1::bigint where to_regclass('schema_migration') is not null";
    // One migrator at a time: 0x54697073.
    system (engine Postgres) MIGRATION_LOCK = "select pg_advisory_xact_lock(1416196211)::text";
}

/// FNV-1a over the text. It finds a changed build, not an attacker: whoever can write the table can write any hash.
fn checksum(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

const fn text_of(migration: &Migration, engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => migration.sqlite,
        Engine::Postgres => migration.postgres,
    }
}

/// The version of a database; checks that its migrations are ours.
async fn version(link: &mut Link, engine: Engine) -> Result<i64, DriverError> {
    let has_table = match engine {
        Engine::Sqlite => HAS_TABLE_SQLITE,
        Engine::Postgres => HAS_TABLE_POSTGRES,
    };
    if link.fetch_optional(has_table.text, &[]).await?.is_none() {
        return Ok(0);
    }
    let rows = link.fetch_all(APPLIED.text, &[]).await?;
    let mut newest = 0;
    for row in rows {
        let mut columns = row.read("schema_migration");
        let (Ok(version), Ok(found)) = (columns.int(), columns.text()) else {
            return Err(Cause::Finding("the list of migrations can't be read".to_owned()).into());
        };
        let known = MIGRATIONS.iter().find(|migration| migration.version == version);
        if known.is_some_and(|migration| checksum(text_of(migration, engine)) != found) {
            // Told apart from driver errors by the caller.
            return Ok(-version);
        }
        newest = newest.max(version);
    }
    Ok(newest)
}

fn judge(version: i64) -> Result<i64, StoreError> {
    if version < 0 {
        return Err(StoreError::SchemaChanged { version: -version });
    }
    if version > SCHEMA_VERSION {
        return Err(StoreError::SchemaNewer { found: version, known: SCHEMA_VERSION });
    }
    Ok(version)
}

async fn apply(link: &mut Link, engine: Engine, from: i64, clock: &dyn Clock) -> Result<(), DriverError> {
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > from) {
        let text = text_of(migration, engine);
        link.script(text).await?;
        let sum = checksum(text);
        let row: &[_] = values![migration.version, migration.name, &sum, clock.wall_ms()];
        link.execute(APPLY.text, row).await?;
    }
    Ok(())
}

/// Looks at a SQLite file before anything is changed: ours, empty, or somebody else's.
pub(crate) async fn sqlite_inspect(link: &mut Link, waited_ms: u64) -> Result<(), StoreError> {
    let driver = |error| StoreError::from_driver(error, waited_ms);
    let row = link.fetch_optional(FILE_IDENTITY.text, &[]).await.map_err(driver)?;
    let Some(row) = row else { return Err(StoreError::NotOurs) };
    let mut columns = row.read("sqlite_schema");
    match (columns.int()?, columns.int()?) {
        (APPLICATION_ID, _) => judge(version(link, Engine::Sqlite).await.map_err(driver)?).map(drop),
        (0, 0) => Ok(()),
        _ => Err(StoreError::NotOurs),
    }
}

/// Brings a SQLite file to the newest schema.
pub(crate) async fn sqlite_migrate(db: &Db, clock: &dyn Clock, waited_ms: u64) -> Result<(), StoreError> {
    let driver = |error| StoreError::from_driver(error, waited_ms);
    let mut link = sqlite::begin_write(db).await.map_err(driver)?;
    let from = judge(version(&mut link, Engine::Sqlite).await.map_err(driver)?)?;
    if from == SCHEMA_VERSION {
        return link.rollback().await.map_err(driver);
    }
    link.script(STAMP_SQLITE).await.map_err(driver)?;
    link.execute(TABLE_SQLITE.text, &[]).await.map_err(driver)?;
    apply(&mut link, Engine::Sqlite, from, clock).await.map_err(driver)?;
    link.commit().await.map_err(driver)
}

/// Brings a PostgreSQL database to the newest schema, as its owner.
pub(crate) async fn postgres_migrate(
    owner: &PgPool,
    clock: &dyn Clock,
    waited_ms: u64,
) -> Result<(), StoreError> {
    let driver = |error| StoreError::from_driver(error, waited_ms);
    let mut link = owner.begin("begin").await.map_err(driver)?;
    link.fetch_optional(MIGRATION_LOCK.text, &[]).await.map_err(driver)?;
    let from = judge(version(&mut link, Engine::Postgres).await.map_err(driver)?)?;
    if from == SCHEMA_VERSION {
        return link.rollback().await.map_err(driver);
    }
    link.script(TABLE_POSTGRES).await.map_err(driver)?;
    apply(&mut link, Engine::Postgres, from, clock).await.map_err(driver)?;
    link.commit().await.map_err(driver)
}

/// Checks, as the app role, that the schema is the one this program knows.
pub(crate) async fn postgres_check(app: &PgPool, waited_ms: u64) -> Result<(), StoreError> {
    let driver = |error| StoreError::from_driver(error, waited_ms);
    let mut link = app.begin("begin").await.map_err(driver)?;
    let found = judge(version(&mut link, Engine::Postgres).await.map_err(driver)?)?;
    link.rollback().await.map_err(driver)?;
    if found < SCHEMA_VERSION {
        return Err(StoreError::SchemaOlder { found, known: SCHEMA_VERSION });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_count_from_one_and_every_file_is_listed() {
        for (position, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version, position as i64 + 1);
            assert!(migration.name.starts_with(&format!("{:04}_", migration.version)));
        }
        for engine in ["sqlite", "postgres"] {
            let folder = format!("{}/migrations/{engine}", env!("CARGO_MANIFEST_DIR"));
            let mut files: Vec<String> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            let listed: Vec<String> = MIGRATIONS.iter().map(|one| format!("{}.sql", one.name)).collect();
            assert_eq!(files, listed);
        }
        assert_eq!(STAMP_SQLITE, format!("pragma application_id = {APPLICATION_ID}"));
    }
}

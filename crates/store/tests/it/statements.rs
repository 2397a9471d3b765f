//! Every registered statement is prepared on both engines, each by the role that runs it.

use crate::support::World;
use std::collections::HashSet;
use tipstaff_store::Engine;
use tipstaff_store::sql::{StatementKind, all, on_sqlite};

#[tokio::test]
async fn every_statement_is_prepared_on_sqlite() {
    let world = World::new(Engine::Sqlite).await;
    let connection = rusqlite::Connection::open(&world.file).unwrap();
    let mut prepared = 0;
    for statement in all().into_iter().filter(|statement| statement.engine != Some(Engine::Postgres)) {
        // As it is run, and as it is written.
        for text in [on_sqlite(statement.text), statement.text.to_owned()] {
            if let Err(error) = connection.prepare(&text) {
                panic!("{}: {error}\n{text}", statement.name);
            }
        }
        prepared += 1;
    }
    assert!(prepared > 60, "{prepared}");
}

#[tokio::test]
async fn every_statement_is_prepared_and_permitted_on_postgres() {
    let world = World::new(Engine::Postgres).await;
    let server = crate::support::server();
    for statement in all().into_iter().filter(|statement| statement.engine != Some(Engine::Sqlite)) {
        let role = match statement.kind {
            StatementKind::Scheduler => "tipstaff_scheduler",
            StatementKind::Scoped | StatementKind::System => "tipstaff_app",
        };
        // Written by the owner, or about roles.
        if matches!(statement.name, "APPLY" | "ROLE_TEXT" | "ROLE_LOGIN_TEXT" | "ROLE_PASSWORD_TEXT") {
            continue;
        }
        // `explain` with nulls for the placeholders checks the rights too, which preparing alone does not.
        let count = (1..30).rev().find(|n| statement.text.contains(&format!("${n}"))).unwrap_or(0);
        let nulls = vec!["null"; count].join(", ");
        let arguments = if count == 0 { String::new() } else { format!("({nulls})") };
        let text = format!("prepare one as {}; explain execute one{arguments}", statement.text);
        if let Err(error) = server.sql_as(role, &world.database, &text) {
            panic!("{} as {role}: {error}\n{}", statement.name, statement.text);
        }
    }
}

/// A module with statements that is missing from the list would never be prepared by the tests above.
#[test]
fn every_module_with_statements_is_listed() {
    let lib = include_str!("../../src/lib.rs");
    let mut names = HashSet::new();
    let src = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let mut folders = vec![std::path::PathBuf::from(src)];
    let mut with_statements = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            if !text.contains("\nstatements! {") {
                continue;
            }
            with_statements += 1;
            let module =
                path.strip_prefix(src).unwrap().with_extension("").display().to_string().replace('/', "::");
            assert!(lib.contains(&format!("    {module}::STATEMENTS,")), "{module} is not listed in lib.rs");
        }
    }
    assert!(with_statements > 15);
    for statement in all() {
        assert!(names.insert(statement.name), "two statements are called {}", statement.name);
    }
}

/// Texts reach the driver through one module only.
#[test]
fn only_the_sql_module_talks_to_the_driver() {
    let src = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let mut folders = vec![std::path::PathBuf::from(src)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // One file for each driver.
            if path.ends_with("sql/postgres.rs") || path.ends_with("sql/sqlite.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for door in [
                "sqlx::query",
                "raw_sql",
                "AssertSqlSafe",
                "QueryBuilder",
                "rusqlite::Connection",
                "execute_batch",
                "prepare(",
                "prepare_cached",
                ".execute(&mut *",
                "fetch_all(&mut",
            ] {
                assert!(!text.contains(door), "{} uses {door}", path.display());
            }
        }
    }
}

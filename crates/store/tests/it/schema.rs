//! The two schemas are one schema, and the org comes first in it.

use crate::support::{World, sqlite_raw};
use std::collections::BTreeMap;
use tipstaff_store::Engine;

/// Tables that no org owns, or that have one row per org.
const WITHOUT_ORG_FIRST: [&str; 2] = ["schema_migration", "local_identity"];

fn words(type_of: &str) -> &str {
    match type_of {
        "bigint" => "INTEGER",
        "bytea" => "BLOB",
        "text" => "TEXT",
        other => other,
    }
}

/// `table.column` to type, whether it may be null, default, and place in the primary key.
async fn columns(engine: Engine) -> BTreeMap<String, String> {
    let world = World::new(engine).await;
    let text = match engine {
        Engine::Sqlite => {
            "select cast(m.name || '.' || c.name || '|' || c.type || '|' || (case when c.\"notnull\" then 'no' else 'yes' end) \
             || '|' || coalesce(c.dflt_value, '') || '|' || c.pk as text) from sqlite_schema m join pragma_table_info(m.name) c \
             where m.type = 'table' and m.name not like 'sqlite_%'"
        }
        Engine::Postgres => {
            "select c.table_name || '.' || c.column_name || '|' || c.data_type || '|' || lower(c.is_nullable) || '|' || \
             coalesce(c.column_default, '') || '|' || coalesce((select k.ordinal_position from \
             information_schema.key_column_usage k join information_schema.table_constraints t \
             using (constraint_name, table_name) where t.constraint_type = 'PRIMARY KEY' and k.table_name = c.table_name \
             and k.column_name = c.column_name), 0) from information_schema.columns c where c.table_schema = 'public'"
        }
    };
    let rows = match engine {
        Engine::Sqlite => sqlite_raw(&world.file, text),
        Engine::Postgres => world.vandal(text),
    };
    rows.lines()
        .map(|line| {
            let line = line.replace("'::text", "'").replace("'-1'::integer", "-1");
            let mut fields = line.split('|');
            let (name, type_of) = (fields.next().unwrap(), fields.next().unwrap());
            (name.to_owned(), format!("{}|{}", words(type_of), fields.collect::<Vec<_>>().join("|")))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_engines_have_the_same_tables_columns_and_keys() {
    let (sqlite, postgres) = (columns(Engine::Sqlite).await, columns(Engine::Postgres).await);
    assert!(sqlite.len() > 100, "{}", sqlite.len());
    for (name, column) in &sqlite {
        assert_eq!(Some(column), postgres.get(name), "{name}");
    }
    assert_eq!(sqlite.len(), postgres.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_org_is_first_in_every_primary_key() {
    let all = columns(Engine::Sqlite).await;
    let mut tables: Vec<&str> = all.keys().filter_map(|name| name.split('.').next()).collect();
    tables.dedup();
    for table in tables.into_iter().filter(|table| !WITHOUT_ORG_FIRST.contains(table)) {
        let column = all.get(&format!("{table}.org_id")).unwrap_or_else(|| panic!("{table} has no org_id"));
        assert!(column.ends_with("|1"), "{table}: {column}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_keys_and_unique_keys_carry_the_org() {
    let world = World::new(Engine::Postgres).await;
    let without = world.vandal(
        "select conrelid::regclass || ' ' || pg_get_constraintdef(oid) from pg_constraint \
         where connamespace = 'public'::regnamespace and contype in ('f', 'u') \
         and pg_get_constraintdef(oid) !~ '^(FOREIGN KEY|UNIQUE) \\(org_id'",
    );
    assert_eq!(without, "");
    let on_sqlite = |text: &str| text.matches("foreign key (").count() + text.matches("unique (").count();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let read = |engine: &str| {
        let files = std::fs::read_dir(format!("{folder}/{engine}")).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect::<String>()
    };
    assert_eq!(on_sqlite(&read("sqlite")), on_sqlite(&read("postgres")));
    // The same indexes, too.
    let indexes = |text: String| {
        let mut lines: Vec<String> =
            text.lines().filter(|line| line.starts_with("create index")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(indexes(read("sqlite")), indexes(read("postgres")));
}

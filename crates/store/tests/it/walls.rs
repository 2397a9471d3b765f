//! The second wall, attacked: raw statements by the app's and the scheduler's own roles.

use crate::support::{START, World, code, entropy, person, ring_key, server, story, task_draft};
use std::sync::Arc;
use tipstaff_model::FixedClock;
use tipstaff_seal::Secret;
use tipstaff_store::{Engine, OrgScope, PostgresPasswords, Store, StoreConfig};
use tipstaff_testkit::postgres::{OWNER, SUPERUSER};

const TENANT_TABLES: [&str; 31] = [
    "org",
    "member",
    "repository",
    "agent",
    "task",
    "run",
    "warrant",
    "event",
    "refusal",
    "ring_key",
    "secret",
    "signing_key",
    "audit_record",
    "audit_head",
    "audit_checkpoint",
    "outbox",
    "local_identity",
    "charge",
    "charge_total",
    "budget",
    "price_table",
    "model_rule",
    "model_route",
    "publication",
    "project",
    "project_repository",
    "policy",
    "approval",
    "steering",
    "retention",
    "retention_sweep",
];

struct Attack {
    world: World,
    mine: OrgScope,
    theirs: OrgScope,
}

impl Attack {
    async fn new() -> Self {
        let world = World::new(Engine::Postgres).await;
        let other = world.store.authenticate_local(&person(2)).await.unwrap();
        for scope in [&world.me.scope, &other.scope] {
            let mut tx = world.store.begin(scope).await.unwrap();
            tx.task_add(task_draft()).await.unwrap();
            tx.secret_set("token", &Secret::new(b"value".to_vec())).await.unwrap();
            tx.outbox_add("kind", &serde_json::json!(1)).await.unwrap();
            tx.commit().await.unwrap();
        }
        Self { mine: world.me.scope.clone(), theirs: other.scope, world }
    }

    /// Runs statements as the app with the scope of org A.
    fn app(&self, text: &str) -> Result<String, String> {
        let text =
            format!("begin; select set_config('app.org_id', '{}', true); {text}; commit", self.mine.org());
        let answer = server()
            .sql_as("tipstaff_app", &self.world.database, &text)
            .map_err(|error| error.to_string())?;
        // The first line is set_config's.
        Ok(answer.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default())
    }

    fn as_role(&self, role: &str, text: &str) -> Result<String, String> {
        server().sql_as(role, &self.world.database, text).map_err(|error| error.to_string())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_role_sees_one_org_whatever_it_asks_for() {
    let attack = Attack::new().await;
    let theirs = attack.theirs.org();
    for table in TENANT_TABLES.into_iter().filter(|table| *table != "local_identity") {
        let seen = attack.app(&format!("select count(*) from {table} where org_id = '{theirs}'")).unwrap();
        assert_eq!(seen, "0", "{table}");
        let seen = attack.app(&format!("select count(distinct org_id) from {table}")).unwrap();
        assert!(seen == "0" || seen == "1", "{table}: {seen}");
    }
    assert_eq!(attack.app("select count(*) from task").unwrap(), "1");
    // Counting from the superuser's side shows that there was something to find.
    assert_eq!(attack.as_role(SUPERUSER, "select count(*) from task").unwrap(), "2");
    // Tricks with functions that leak what a filter sees before the policy does.
    let leak = "create function pg_temp.leak(text) returns boolean language plpgsql cost 0.0000001 as \
                $$ begin raise notice 'saw %', $1; return true; end $$; \
                select count(*) from task where pg_temp.leak(org_id)";
    assert_eq!(attack.app(leak).unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_role_cannot_change_another_org() {
    let attack = Attack::new().await;
    let theirs = attack.theirs.org();
    let mine = attack.mine.org();
    let count = |answer: Result<String, String>| answer.unwrap();
    assert_eq!(
        count(attack.app("with x as (update task set state = 'done' returning 1) select count(*) from x")),
        "1"
    );
    let hit = format!(
        "with x as (update task set state = 'done' where org_id = '{theirs}' returning 1) select count(*) from x"
    );
    assert_eq!(count(attack.app(&hit)), "0");
    let hit = format!(
        "with x as (delete from secret where org_id = '{theirs}' returning 1) select count(*) from x"
    );
    assert_eq!(count(attack.app(&hit)), "0");
    let insert = format!(
        "insert into outbox (org_id, id, kind, body, created_at) values ('{theirs}', 'x', 'k', '{{}}', 1)"
    );
    assert!(attack.app(&insert).unwrap_err().contains("row-level security"));
    // Giving a row of one's own away.
    let give = format!("update outbox set org_id = '{theirs}' where org_id = '{mine}'");
    assert!(attack.app(&give).unwrap_err().contains("row-level security"));
    // A reference into another org: the keys have the org first.
    let task = attack.as_role(SUPERUSER, &format!("select id from task where org_id = '{theirs}'")).unwrap();
    let steal = format!(
        "insert into run (org_id, id, task_id, attempt, state, started_at, host) values ('{mine}', 'r', '{task}', 1, 'x', 1, 'h')"
    );
    assert!(attack.app(&steal).unwrap_err().contains("foreign key"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgetting_the_scope_shows_nothing() {
    let attack = Attack::new().await;
    for table in TENANT_TABLES {
        let seen = attack.as_role("tipstaff_app", &format!("select count(*) from {table}")).unwrap();
        assert_eq!(seen, "0", "{table}");
    }
    // Nor does an empty or foreign setting, nor one that a transaction before had set.
    for setting in ["", "x", "%", "' or '1'='1"] {
        let text = format!(
            "begin; select set_config('app.org_id', $x${setting}$x$, true); select count(*) from task; commit"
        );
        assert!(attack.as_role("tipstaff_app", &text).unwrap().ends_with('0'));
    }
    let text = format!(
        "begin; select set_config('app.org_id', '{}', true); commit; select count(*) from task",
        attack.mine.org()
    );
    assert!(attack.as_role("tipstaff_app", &text).unwrap().ends_with('0'));
    let insert = "insert into outbox (org_id, id, kind, body, created_at) values ('x', 'x', 'k', '{}', 1)";
    assert!(attack.as_role("tipstaff_app", insert).unwrap_err().contains("row-level security"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_role_cannot_get_around_its_bounds() {
    let attack = Attack::new().await;
    for text in [
        "alter table task disable row level security",
        "alter table task no force row level security",
        "drop policy org_scope on task",
        "create policy open on task using (true)",
        "set role tipstaff_owner",
        "set role postgres",
        "set session authorization tipstaff_scheduler",
        "truncate task",
        "drop table task",
        "alter role tipstaff_app bypassrls",
        "create table task_copy as select * from pg_authid",
    ] {
        assert!(attack.as_role("tipstaff_app", text).is_err(), "{text}");
    }
    // This only warns, and grants nothing.
    attack.as_role("tipstaff_app", "grant select on task to tipstaff_scheduler").unwrap();
    let granted = "select has_table_privilege('tipstaff_scheduler', 'task', 'select')";
    assert_eq!(attack.as_role(SUPERUSER, granted).unwrap(), "f");
    // Asking for a hard error instead of a silent filter shows that the filter would have been needed.
    let text = "set row_security = off; select count(*) from task";
    assert!(attack.as_role("tipstaff_app", text).unwrap_err().contains("row-level security"));
    // The log is append-only for the app: only a record's text can be erased.
    for text in [
        "delete from audit_record",
        "delete from audit_checkpoint",
        "update audit_record set leaf_hash = ''",
        "update audit_record set seq = seq + 1",
        "update audit_checkpoint set note = ''",
        "delete from audit_head",
        "delete from event",
        "update warrant set body = ''",
        "delete from warrant",
        "delete from refusal",
        "delete from org",
    ] {
        assert!(attack.app(text).unwrap_err().contains("permission denied"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn force_binds_the_owner_too() {
    let attack = Attack::new().await;
    for table in TENANT_TABLES {
        assert_eq!(attack.as_role(OWNER, &format!("select count(*) from {table}")).unwrap(), "0", "{table}");
    }
    let unforced = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                    where n.nspname = 'public' and c.relkind = 'r' and c.relname <> 'schema_migration' \
                    and not (c.relrowsecurity and c.relforcerowsecurity)";
    assert_eq!(attack.as_role(SUPERUSER, unforced).unwrap(), "0");
    let sub_queries =
        "select count(*) from pg_policies where qual ilike '%select%' or with_check ilike '%select%'";
    assert_eq!(attack.as_role(SUPERUSER, sub_queries).unwrap(), "0");
    let tables =
        "select count(*) from pg_tables where schemaname = 'public' and tablename <> 'schema_migration'";
    assert_eq!(attack.as_role(SUPERUSER, tables).unwrap(), TENANT_TABLES.len().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheduler_sees_ids_states_and_times_only() {
    let attack = Attack::new().await;
    let seen =
        attack.as_role("tipstaff_scheduler", "select count(id), count(distinct org_id) from task").unwrap();
    assert_eq!(seen, "2|2");
    for text in [
        "select spec from task",
        "select last_error from task",
        "select dedup_key from task",
        "select * from task",
        "select count(*) from task where spec like '%'",
        "update task set spec = ''",
        "update task set org_id = 'x'",
        "update task set id = 'x'",
        "insert into task (org_id) values ('x')",
        "delete from task",
        "select task::text from task",
        "select to_jsonb(task) from task",
        "copy task to stdout",
    ] {
        assert!(
            attack.as_role("tipstaff_scheduler", text).unwrap_err().contains("permission denied"),
            "{text}"
        );
    }
    for table in TENANT_TABLES.into_iter().filter(|table| *table != "task") {
        let text = format!("select 1 from {table}");
        assert!(
            attack.as_role("tipstaff_scheduler", &text).unwrap_err().contains("permission denied"),
            "{table}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_does_not_open_with_a_role_that_could_get_around_it() {
    let world = World::new(Engine::Postgres).await;
    let open = |app: &str, scheduler: &str| {
        let config = StoreConfig::postgres(
            server().url(app, &world.database),
            server().url(scheduler, &world.database),
        );
        Store::open(config, ring_key(), Arc::new(FixedClock::at(START)), entropy())
    };
    assert_eq!(code(open(SUPERUSER, "tipstaff_scheduler").await), "role-too-strong");
    assert_eq!(code(open(OWNER, "tipstaff_scheduler").await), "role-too-strong");
    assert_eq!(code(open("tipstaff_app", SUPERUSER).await), "role-too-strong");
    world.vandal("create role sneaky login bypassrls; create role heir login in role tipstaff_owner");
    assert_eq!(code(open("sneaky", "tipstaff_scheduler").await), "role-too-strong");
    assert_eq!(code(open("heir", "tipstaff_scheduler").await), "role-too-strong");
    world.vandal("drop role sneaky; drop role heir");
    open("tipstaff_app", "tipstaff_scheduler").await.unwrap();
    // The app's address alone says which the scheduler's is; another user is not taken for the app.
    assert_eq!(code(StoreConfig::from_url(&server().url(SUPERUSER, "x"))), "database-address");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provisioning_again_does_no_harm_and_sets_passwords() {
    let server = server();
    server.database_create("provisioned").unwrap();
    let clock = FixedClock::at(START);
    let tricky = "it's \\ a $1 \"password\"; drop role tipstaff_app";
    for password in [None, Some(Secret::new(tricky.to_owned())), None] {
        let passwords = PostgresPasswords { app: password, scheduler: None };
        Store::provision_postgres(&server.url(OWNER, "provisioned"), &passwords, &clock).await.unwrap();
    }
    let stored = server.sql(
        "postgres",
        "select rolpassword like 'SCRAM-SHA-256%' from pg_authid where rolname = 'tipstaff_app'",
    );
    assert_eq!(stored.unwrap(), "t");
    let config = StoreConfig::from_url(&server.url("tipstaff_app", "provisioned")).unwrap();
    Store::open(config, ring_key(), Arc::new(clock), entropy()).await.unwrap();
}

story! {
    async fn a_scope_reaches_its_own_rows_only_through_the_store(world: World) {
        let other = world.store.authenticate_local(&person(2)).await.unwrap();
        let lease = world.lease().await;
        let mut read = world.store.read(&other.scope).await.unwrap();
        assert_eq!(read.task_get(lease.task()).await.unwrap(), None);
        assert_eq!(read.run_get(lease.run()).await.unwrap(), None);
        assert_eq!(read.run_summary(lease.run()).await.unwrap(), None);
    }
}

//! Bad databases: a clear error with a stable code, and nothing lost or changed.

use crate::support::{
    START, TIMEOUT_MS, World, audit_draft, code, entropy, event, ring_key, server, sqlite_raw, story,
    task_draft,
};
use std::path::Path;
use std::sync::Arc;
use tipstaff_model::FixedClock;
use tipstaff_seal::log::{LogVerifier, Tail};
use tipstaff_store::{Engine, SCHEMA_VERSION, Store, StoreConfig, StoreError, TaskFilter};
use tipstaff_testkit::postgres::OWNER;

async fn open(config: StoreConfig) -> Result<Store, StoreError> {
    Store::open(config.busy_timeout_ms(TIMEOUT_MS), ring_key(), Arc::new(FixedClock::at(START)), entropy())
        .await
}

fn bytes(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap()
}

async fn sqlite_closed() -> World {
    let world = World::new(Engine::Sqlite).await;
    let mut tx = world.begin().await;
    tx.task_add(task_draft()).await.unwrap();
    tx.commit().await.unwrap();
    world.store.close().await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_is_ours_alone_to_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a b\u{1F600}.db");
    let store = open(StoreConfig::sqlite(&file)).await.unwrap();
    store.authenticate_local(&crate::support::person(1)).await.unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
    store.close().await;
    assert!(!folder.path().join("a b\u{1F600}.db-wal").exists(), "closing folds the log into the file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_left_as_it_is() {
    let world = sqlite_closed().await;
    sqlite_raw(
        &world.file,
        &format!(
            "insert into schema_migration values ({}, 'later', 'x', 1); pragma journal_mode = delete",
            SCHEMA_VERSION + 1
        ),
    );
    let before = bytes(&world.file);
    let error = open(world.config.clone()).await.unwrap_err();
    assert_eq!(error.code(), "schema-newer");
    assert!(error.to_string().contains("install the newer version"), "{error}");
    assert_eq!(bytes(&world.file), before, "not a byte was changed");

    let world = World::new(Engine::Postgres).await;
    world.vandal(&format!("insert into schema_migration values ({}, 'later', 'x', 1)", SCHEMA_VERSION + 1));
    assert_eq!(code(open(world.config.clone()).await), "schema-newer");
    let owner = world.config.clone().owner_url(server().url(OWNER, &world.database));
    assert_eq!(code(open(owner).await), "schema-newer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_schema_needs_the_owner_and_a_changed_one_is_refused() {
    server().database_create("empty_one").unwrap();
    let config = StoreConfig::from_url(&server().url("tipstaff_app", "empty_one")).unwrap();
    // Another test may not have made the roles yet.
    let _ = World::new(Engine::Postgres).await;
    assert_eq!(code(open(config.clone()).await), "schema-older");
    open(config.clone().owner_url(server().url(OWNER, "empty_one"))).await.unwrap();
    open(config).await.unwrap();

    for engine in [Engine::Sqlite, Engine::Postgres] {
        let world = World::new(engine).await;
        world.store.close().await;
        world.vandal("update schema_migration set checksum = 'another' where version = 1");
        assert_eq!(code(open(world.config.clone()).await), "schema-changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_not_ours_are_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.db");
    for content in [
        b"this is a letter, not a database, and it is longer than a header would be: ".repeat(20),
        b"SQLite format 3\0 but then nothing that makes sense".to_vec(),
        vec![0_u8; 8192],
    ] {
        std::fs::write(&file, &content).unwrap();
        let error = open(StoreConfig::sqlite(&file)).await.unwrap_err();
        assert!(matches!(error.code(), "database-not-ours" | "database-corrupt"), "{error:?}");
        assert_eq!(bytes(&file), content);
    }
    std::fs::remove_file(&file).unwrap();
    sqlite_raw_create(&file, "create table theirs (a integer); insert into theirs values (1)");
    let before = bytes(&file);
    assert_eq!(code(open(StoreConfig::sqlite(&file)).await), "database-not-ours");
    assert_eq!(bytes(&file), before);
    assert_eq!(code(open(StoreConfig::sqlite(folder.path())).await), "database-unwritable");
    assert_eq!(
        code(open(StoreConfig::sqlite(folder.path().join("no/such/folder.db"))).await),
        "database-unwritable"
    );
    for url in [
        "mysql://x",
        "sqlite:",
        "sqlite:x?mode=ro",
        "sqlite::memory:",
        "postgres://root@h/d",
        "postgres://tipstaff_apple@h/d",
        "",
    ] {
        assert_eq!(code(StoreConfig::from_url(url)), "database-address", "{url}");
    }
    let shown = format!("{:?}", StoreConfig::from_url("postgres://tipstaff_app:hunter2@h/d").unwrap());
    assert!(!shown.contains("hunter2"));
}

fn sqlite_raw_create(file: &Path, text: &str) {
    std::fs::write(file, []).unwrap();
    sqlite_raw(file, text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_file_becomes_a_database() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new.db");
    std::fs::write(&file, []).unwrap();
    open(StoreConfig::sqlite(&file)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_named_as_such() {
    // Damage at many places: every open and read either works or says what is wrong.
    let mut corrupt = 0;
    for page in 0..40_usize {
        let world = sqlite_closed().await;
        let mut content = bytes(&world.file);
        let start = page * 4096 + if page == 0 { 100 } else { 0 };
        let Some(part) = content.get_mut(start..start + 600) else { break };
        part.fill(0xff);
        std::fs::write(&world.file, &content).unwrap();
        let answer = async {
            let store = open(world.config.clone()).await?;
            store.integrity_check().await?;
            let mut read = store.read(&world.me.scope).await?;
            read.task_list(TaskFilter::default(), 10).await
        };
        match answer.await {
            Ok(_) => {}
            Err(error) => {
                assert!(
                    matches!(error.code(), "database-corrupt" | "database-not-ours"),
                    "page {page}: {error:?}"
                );
                corrupt += 1;
            }
        }
    }
    assert!(corrupt > 10, "{corrupt}");
    // A file cut short.
    let world = sqlite_closed().await;
    let content = bytes(&world.file);
    std::fs::write(&world.file, &content[..content.len() / 2]).unwrap();
    let answer = async { open(world.config.clone()).await?.integrity_check().await };
    assert_eq!(code(answer.await), "database-corrupt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_file_passes_the_check() {
    World::new(Engine::Sqlite).await.store.integrity_check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_database_is_waited_for_and_then_named() {
    let world = World::new(Engine::Sqlite).await;
    let impatient =
        Store::open(world.config.clone().busy_timeout_ms(150), ring_key(), world.clock.clone(), entropy());
    let impatient = impatient.await.unwrap();
    let holder = world.begin().await;
    let error = impatient.begin(&world.me.scope).await.unwrap_err();
    assert_eq!(error.code(), "database-locked");
    assert!(error.is_transient() && error.to_string().contains("150 ms"), "{error}");
    // Readers are not kept out.
    assert_eq!(impatient.read(&world.me.scope).await.unwrap().audit_size().await.unwrap(), 1);
    // Within a process, writers wait for each other as long.
    let mine =
        Store::open(world.config.clone().busy_timeout_ms(150), ring_key(), world.clock.clone(), entropy());
    let mine = mine.await;
    assert_eq!(code(mine.map(drop)), "database-locked", "opening looks for migrations under the write lock");
    drop(holder);
    impatient.begin(&world.me.scope).await.unwrap().commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_that_was_committed() {
    let world = World::new(Engine::Sqlite).await;
    let lease = world.lease().await;
    let size = std::fs::metadata(&world.file).unwrap().len() + 200_000;
    world.store.close().await;
    let config = world.config.clone().size_limit_bytes(size);
    let store = Store::open(config, ring_key(), world.clock.clone(), entropy()).await.unwrap();
    let events: Vec<_> = (0..50).map(|_| event(&"x".repeat(500))).collect();
    let mut committed = 0_u64;
    let error = loop {
        let mut tx = store.begin(&world.me.scope).await.unwrap();
        tx.audit_note(audit_draft("events"));
        let added = tx.event_add(&lease, &events).await;
        match added {
            Ok(last) => match tx.commit().await {
                Ok(()) => committed = last,
                Err(error) => break error,
            },
            Err(error) => {
                assert_eq!(code(tx.commit().await), "transaction-broken");
                break error;
            }
        }
    };
    assert_eq!(error.code(), "disk-full", "{error:?}");
    assert!(committed > 100, "{committed}");
    let mut read = store.read(&world.me.scope).await.unwrap();
    assert_eq!(read.event_list(lease.run(), 0, 100_000).await.unwrap().len() as u64, committed);
    let key = read.audit_key().await.unwrap();
    let report = read.audit_verify(LogVerifier::new(key, Tail::Sealed)).await.unwrap();
    assert!(report.is_good(), "{report:?}");
    assert_eq!(report.records, 1 + committed / 50);
    drop(read);
    // Space comes back, and work goes on.
    store.close().await;
    let store = world.again().await;
    let mut tx = store.begin(&world.me.scope).await.unwrap();
    tx.event_add(&lease, &events).await.unwrap();
    tx.commit().await.unwrap();
    store.integrity_check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_found_again() {
    let world = World::new(Engine::Postgres).await;
    for _ in 0..4 {
        world.begin().await.commit().await.unwrap();
    }
    let mut cut = world.begin().await;
    server().disconnect_all(&world.database).unwrap();
    let answer = cut.task_add(task_draft()).await;
    assert_eq!(code(answer), "database-unreachable");
    drop(cut);
    let mut tx = world.begin().await;
    tx.task_add(task_draft()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.read().await.task_list(TaskFilter::default(), 10).await.unwrap().len(), 1);
    let nowhere = StoreConfig::from_url("postgres://tipstaff_app@localhost/x?host=/nonexistent").unwrap();
    assert_eq!(code(open(nowhere).await), "database-unreachable");
}

story! {
    async fn a_value_that_cannot_be_read_is_named(world: World) {
        let lease = world.lease().await;
        world.vandal("update run set state = 'flying'");
        let error = world.read().await.run_get(lease.run()).await.unwrap_err();
        assert_eq!(error.code(), "stored-value");
        assert!(error.to_string().starts_with("run.state holds"), "{error}");
        world.vandal("update task set spec = '{'");
        assert_eq!(code(world.read().await.task_get(lease.task()).await), "stored-value");
    }
}

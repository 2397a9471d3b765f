//! The same binary on PostgreSQL.

use crate::world::{Ended, World, run};
use tipstaff_testkit::{Durability, PostgresServer};

fn on(world: &World, server: &PostgresServer, arguments: &[&str]) -> Ended {
    let mut command = world.command(world.binary());
    command
        .env("TIPSTAFF_DATABASE_URL", server.url("tipstaff_app", "tipstaff"))
        .current_dir(world.path().join("demo"))
        .args(arguments);
    run(command)
}

#[test]
fn a_run_on_postgresql_from_preparation_to_proof() {
    let server = PostgresServer::start(Durability::Off).unwrap();
    server.database_create("tipstaff").unwrap();
    let world = World::new();
    let repository = world.repository("demo");
    let unprepared = on(&world, &server, &["run", "--", "true"]);
    assert_eq!(unprepared.code, Some(7), "{unprepared:#?}");
    let mut prepare = world.command(world.binary());
    prepare
        .env("TIPSTAFF_DATABASE_URL", server.url("tipstaff_app", "tipstaff"))
        .env("TIPSTAFF_DATABASE_OWNER_URL", server.url("tipstaff_owner", "tipstaff"))
        .args(["database", "prepare"]);
    run(prepare).expect(0);

    let script = "echo hello >> README.md; git push -q origin HEAD:other || true";
    let summary = on(&world, &server, &["run", "--json", "--", "sh", "-c", script]).expect(0).json();
    assert_eq!((&summary["state"], &summary["files_changed"]), (&"done".into(), &1.into()));
    assert_eq!(summary["refusals"][0]["rule"], "ref-not-granted");
    assert!(!world.home().join("tipstaff.db").exists());
    on(&world, &server, &["run", "--queue", "--", "sh", "-c", "echo queued >> src/main.txt"]).expect(0);
    on(&world, &server, &["worker", "--once"]).expect(0);
    assert!(on(&world, &server, &["runs", "diff"]).expect(0).stdout.contains("+queued"));
    on(&world, &server, &["runs", "apply"]).expect(0);
    assert!(std::fs::read_to_string(repository.join("src/main.txt")).unwrap().contains("queued"));
    on(&world, &server, &["keys", "rotate"]).expect(0);
    on(&world, &server, &["audit", "verify"]).expect(0);

    // Somebody with the owner's power changes the past.
    server.sql("tipstaff", "update audit_record set at = at + 1 where seq = 4").unwrap();
    let report = on(&world, &server, &["audit", "verify", "--json"]).expect(1).json();
    assert_eq!(report["first_bad"]["position"], 4);
    server.sql("tipstaff", "update audit_record set at = at - 1 where seq = 4").unwrap();
    on(&world, &server, &["audit", "verify"]).expect(0);

    drop(server);
}

#[test]
fn a_dead_database_says_so_and_starts_nothing() {
    let server = PostgresServer::start(Durability::Off).unwrap();
    let world = World::new();
    world.repository("demo");
    let url = server.url("tipstaff_app", "tipstaff");
    drop(server);
    let mut command = world.command(world.binary());
    command
        .env("TIPSTAFF_DATABASE_URL", url)
        .current_dir(world.path().join("demo"))
        .args(["run", "--json", "--", "true"]);
    let ended = run(command).expect(7);
    assert_eq!(ended.json()["error"]["code"], "database-unreachable");
    assert_eq!(std::fs::read_dir(world.home().join("runs")).unwrap().count(), 0);
}

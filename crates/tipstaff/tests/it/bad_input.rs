//! Bad input gets a clear error with a stable code, and nothing is lost.

use crate::world::World;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

#[test]
fn wrong_values_are_named_with_what_is_accepted() {
    let world = World::new();
    let repository = world.repository("demo");
    let cases: &[(&[&str], &str)] = &[
        (&["--budget", "0"], "above 0"),
        (&["--budget", "-1"], "above 0"),
        (&["--budget", "1e9"], "above 0"),
        (&["--budget", "99999999999"], "1000000"),
        (&["--timeout", "0"], "1s to 24h"),
        (&["--timeout", "-5s"], "1s to 24h"),
        (&["--timeout", "900h"], "1s to 24h"),
        (&["--role", "king"], "cloud-engineer"),
        (&["--engine", "skynet"], "command"),
        (&["--allow-host", "*"], "api.example.com"),
        (&["--allow-host", "127.0.0.1"], "api.example.com"),
        (&["--allow-host", "http://x.example"], "api.example.com"),
    ];
    for (arguments, hint) in cases {
        let mut all = vec!["run"];
        all.extend_from_slice(arguments);
        all.extend_from_slice(&["--", "true"]);
        let ended = world.tipstaff_in(&repository, &all).expect(2);
        assert!(ended.stderr.contains(hint), "{arguments:?}: {}", ended.stderr);
    }
    world.tipstaff_in(&repository, &["run"]).expect(2);
    let agent = world.tipstaff_in(&repository, &["run", "--agent", "nobody", "do it"]).expect(2);
    assert!(agent.stderr.contains("agent-unknown"), "{}", agent.stderr);
    let prompt = world.tipstaff_in(&repository, &["run", "do it"]).expect(2);
    assert!(prompt.stderr.contains("--agent"), "{}", prompt.stderr);
    let unknown = world.tipstaff(&["runs", "show", "ffffffff"]).expect(2);
    assert!(unknown.stderr.contains("run-unknown"), "{}", unknown.stderr);
}

#[test]
fn errors_are_objects_with_json() {
    let world = World::new();
    let ended = world.tipstaff(&["run", "--json", "--repo", "/nowhere/at/all", "--", "true"]).expect(2);
    let error = &ended.json()["error"];
    assert!(
        error["code"].as_str().is_some_and(|code| code.starts_with("source") || code.contains("repository")),
        "{error}"
    );
    assert_eq!(error["exit_code"], 2);
}

#[test]
fn what_is_no_usable_repository_says_why() {
    let world = World::new();
    let plain = world.path().join("plain");
    world.folder(&plain);
    let ended = world.tipstaff_in(&plain, &["run", "--", "true"]).expect(2);
    assert!(ended.stderr.contains("repository"), "{}", ended.stderr);
    let unborn = world.path().join("unborn");
    world.folder(&unborn);
    world.git(&unborn, &["init", "-q"]);
    let ended = world.tipstaff_in(&unborn, &["run", "--", "true"]).expect(2);
    assert!(ended.stderr.contains("commit"), "{}", ended.stderr);
    let repository = world.repository("demo");
    let ended = world.tipstaff_in(&repository, &["run", "--base", "no-such-branch", "--", "true"]).expect(2);
    assert!(ended.stderr.contains("no-such-branch"), "{}", ended.stderr);
}

#[test]
fn a_dirty_tree_works_on_the_commit_and_says_so() {
    let world = World::new();
    let repository = world.repository("demo");
    world.write(&repository.join("README.md"), "# Demo, edited\n");
    world.write(&repository.join("new.txt"), "not committed\n");
    let before = world.picture(&repository);
    let ended = world.tipstaff_in(&repository, &["run", "--", "sh", "-c", "cat README.md; ls"]).expect(0);
    assert!(ended.stdout.contains("# Demo\n") && !ended.stdout.contains("new.txt"), "{}", ended.stdout);
    assert!(ended.stderr.contains("uncommitted"), "{}", ended.stderr);
    assert_eq!(world.picture(&repository), before);
}

#[test]
fn odd_repositories_work() {
    let world = World::new();
    let repository = world.repository("demo");
    // A detached head.
    world.git(&repository, &["checkout", "-q", "--detach"]);
    assert_eq!(world.run_script(&repository, "echo x >> README.md").expect(0).json()["files_changed"], 1);
    // From a folder below the root.
    assert_eq!(
        world.run_script(&repository.join("src"), "echo x >> README.md").expect(0).json()["files_changed"],
        1
    );
    // A bare repository.
    world.git(world.path(), &["clone", "-q", "--bare", "demo", "bare.git"]);
    let bare =
        world.tipstaff(&["run", "--json", "--repo", "bare.git", "--", "sh", "-c", "echo x >> README.md"]);
    assert_eq!(bare.expect(0).json()["files_changed"], 1);
    // A shallow clone.
    world.write(&repository.join("two.txt"), "2\n");
    world.commit(&repository, "second");
    let url = format!("file://{}", repository.display());
    world.git(world.path(), &["clone", "-q", "--depth", "1", &url, "shallow"]);
    let shallow = world.run_script(&world.path().join("shallow"), "echo x >> README.md");
    assert_eq!(shallow.expect(0).json()["files_changed"], 1);
    // A linked work tree.
    world.git(&repository, &["worktree", "add", "-q", "../linked", "-b", "side"]);
    let linked = world.run_script(&world.path().join("linked"), "echo x >> README.md");
    assert_eq!(linked.expect(0).json()["files_changed"], 1);
    // Names with spaces, and names that are not UTF-8.
    let spaced = world.repository("with some spaces");
    assert_eq!(world.run_script(&spaced, "echo x >> README.md").expect(0).json()["files_changed"], 1);
    let odd = spaced.join(OsStr::from_bytes(b"caf\xe9 \xff.txt"));
    std::fs::write(&odd, "x").unwrap();
    world.commit(&spaced, "odd name");
    let script = "test $(ls | wc -l) = 3 && for f in caf*; do echo more >> \"$f\"; done";
    let summary = world.run_script(&spaced, script).expect(0).json();
    assert_eq!(summary["files_changed"], 1);
    world.tipstaff_in(&spaced, &["runs", "apply"]).expect(0);
    assert_eq!(std::fs::read_to_string(&odd).unwrap(), "xmore\n");
}

#[test]
fn a_command_that_ignores_signals_forks_away_or_floods_is_bounded_and_ended() {
    let world = World::new();
    let repository = world.repository("demo");
    let timed = |script: &str| {
        world.tipstaff_in(&repository, &["run", "--json", "--timeout", "2s", "--", "sh", "-c", script])
    };
    let marker = format!("{}", 70_000 + std::process::id() % 10_000);
    let stubborn = format!(
        "echo kept > kept.txt; trap '' TERM INT HUP; (setsid sleep {marker} &) ; while :; do sleep {marker}; done"
    );
    let summary = timed(&stubborn).expect(5).json();
    assert_eq!((&summary["state"], &summary["exit_reason"]), (&"failed".into(), &"timed_out".into()));
    assert_eq!(summary["files_changed"], 1, "the work is kept");
    let mut search = world.command("pgrep");
    search.args(["-f", &format!("sleep {marker}")]);
    assert_eq!(crate::world::run(search).stdout, "", "no process of the run is left");

    // More than the bound of 16 MiB; the rest is dropped and counted, and the command ends as it would have.
    let flood =
        world.run_script(&repository, "yes '\u{1b}[31mflood' | head -c 18000000; echo kept > kept.txt");
    assert_eq!(flood.expect(0).json()["state"], "done");
    let logs = world.tipstaff_in(&repository, &["runs", "logs"]).expect(0);
    assert!(logs.stdout.len() < 20_000_000, "{}", logs.stdout.len());
    assert!(logs.stdout.contains("dropped") || logs.stderr.contains("dropped"));
}

#[test]
fn a_database_from_a_newer_version_or_broken_says_so_and_is_left_alone() {
    let world = World::new();
    let repository = world.repository("demo");
    world.run_script(&repository, "true").expect(0);
    let database = world.home().join("tipstaff.db");
    crate::audit::meddle(&world, "pragma wal_checkpoint(truncate);");
    let good = std::fs::read(&database).unwrap();
    for name in ["tipstaff.db-wal", "tipstaff.db-shm"] {
        let _gone = std::fs::remove_file(world.home().join(name));
    }
    std::fs::write(&database, b"this is not a database, whatever its name says; ".repeat(200)).unwrap();
    let ended = world.tipstaff(&["runs", "list"]).expect(7);
    assert!(ended.stderr.contains("database-not-ours"), "{}", ended.stderr);
    assert!(std::fs::read(&database).unwrap().starts_with(b"this is not"), "nobody overwrote it");
    // Pages in the middle are overwritten: it still looks like ours, and is not.
    let mut broken = good.clone();
    for byte in broken.iter_mut().skip(4096 + 50) {
        *byte = 0xa5;
    }
    std::fs::write(&database, &broken).unwrap();
    let ended = world.tipstaff(&["runs", "list"]).expect(7);
    assert!(ended.stderr.contains("database-corrupt"), "{}", ended.stderr);
    assert_eq!(std::fs::read(&database).unwrap(), broken, "nobody overwrote it");
    std::fs::write(&database, &good).unwrap();
    world.tipstaff(&["audit", "verify"]).expect(0);
    // A schema from the future.
    crate::audit::meddle(
        &world,
        "insert into schema_migration select 9999, 'later', 'x', applied_at from schema_migration limit 1;",
    );
    let ended = world.run_script(&repository, "true").expect(7);
    assert!(ended.stdout.contains("schema-newer"), "{}", ended.stdout);
    crate::audit::meddle(&world, "delete from schema_migration where version = 9999;");
    world.run_script(&repository, "true").expect(0);
    world.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn a_full_disk_loses_nothing_and_says_so() {
    let world = World::new();
    if !crate::world::is_root() {
        return; // Only root mounts a small disk.
    }
    let repository = world.repository("demo");
    // A disk of its own for the state: small enough to be too small for a run.
    let script = format!(
        "mount -t tmpfs -o size=900m tmpfs {home} && cd {repo} && {binary} run --json -- true; code=$?; \
         {binary} audit verify; echo \"code $code verify $?\"; umount {home}",
        home = world.home().display(),
        repo = repository.display(),
        binary = world.binary().display()
    );
    std::fs::create_dir_all(world.home()).unwrap();
    let mut command = world.command("unshare");
    command.args(["-m", "sh", "-c", &script]);
    let ended = crate::world::run(command);
    assert!(ended.stdout.contains("disk-nearly-full"), "{ended:#?}");
    assert!(
        ended.stdout.contains("code 1 verify 0"),
        "the failure is on record and the log verifies: {ended:#?}"
    );
}

#[test]
fn a_run_that_fills_disk_or_memory_is_ended_and_keeps_its_work() {
    let world = World::new();
    let repository = world.repository("demo");
    // Beyond the size of one file: the kernel says no to the command, which fails in its own way.
    let file = world
        .run_script(&repository, "echo kept > kept.txt; truncate -s 100G huge || rm -f huge; test ! -e huge");
    assert_eq!(file.expect(0).json()["files_changed"], 1);
    let memory = world.run_script(&repository, "echo kept > kept.txt; python3 -c 'b = bytearray(6 << 30)'");
    let summary = memory.json();
    assert_eq!(summary["state"], "failed", "{summary}");
    assert_eq!(summary["files_changed"], 1, "{summary}");
    let forks = world.run_script(&repository, "echo kept > kept.txt; python3 -c 'import os,time\nfor i in range(3000):\n  if os.fork() == 0: time.sleep(30); os._exit(0)'").json();
    assert_eq!((&forks["state"], &forks["files_changed"]), (&"failed".into(), &1.into()), "{forks}");
}

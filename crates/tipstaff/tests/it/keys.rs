//! The keys that seal secrets at rest.

use crate::world::World;

#[test]
fn the_ring_is_listed_and_rotated_and_the_key_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let repository = world.repository("demo");
    world.run_script(&repository, "true").expect(0);
    let mode = std::fs::metadata(world.home().join("ring.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let keys = || -> Vec<serde_json::Value> {
        let text = world.tipstaff(&["keys", "list", "--json"]).expect(0).stdout;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let before = keys();
    assert_eq!(before.len(), 1);
    world.tipstaff(&["keys", "rotate"]).expect(0);
    let after = keys();
    assert!(after.iter().any(|key| key["current"] == true && key["id"] != before[0]["id"]), "{after:?}");
    // Everything sealed still opens: the signing keys sign the next run's warrant and checkpoint.
    world.run_script(&repository, "echo x >> README.md").expect(0);
    world.tipstaff(&["audit", "verify"]).expect(0);
    // Open to others: refused, with what to do.
    std::fs::set_permissions(world.home().join("ring.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = world.run_script(&repository, "true");
    assert!(open.code != Some(0) && open.stdout.contains("chmod"), "{open:#?}");
}

#[test]
fn the_key_may_come_from_the_environment_and_a_wrong_one_opens_nothing() {
    let world = World::new();
    let repository = world.repository("demo");
    let with = |key: &str, arguments: &[&str]| {
        let mut command = world.command(world.binary());
        command.env("TIPSTAFF_ENCRYPTION_KEY", key).current_dir(&repository).args(arguments);
        crate::world::run(command)
    };
    let good = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    with(good, &["run", "--json", "--", "true"]).expect(0);
    assert!(!world.home().join("ring.key").exists());
    for bad in [&"ff".repeat(32), "abc", &"zz".repeat(32)] {
        let ended = with(bad, &["run", "--json", "--", "true"]);
        assert_ne!(ended.code, Some(0), "{bad}");
        assert!(!ended.stdout.contains(bad) && !ended.stderr.contains(bad), "the key is not echoed");
    }
    with(good, &["audit", "verify"]).expect(0);
}

#[test]
fn a_rotation_killed_at_any_moment_is_finished_by_the_next() {
    let world = World::new();
    let repository = world.repository("demo");
    world.run_script(&repository, "true").expect(0);
    for round in 0..12_u64 {
        let mut child = world.start(&["keys", "rotate"]);
        std::thread::park_timeout(std::time::Duration::from_millis(round * 7));
        let _may_have_ended = child.kill();
        child.wait().unwrap();
    }
    world.tipstaff(&["keys", "rotate"]).expect(0);
    let list = world.tipstaff(&["keys", "list", "--json"]).expect(0).stdout;
    for key in list.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        assert!(key["current"] == true || key["seals"] == 0, "{key}");
    }
    world.run_script(&repository, "echo x >> README.md").expect(0);
    world.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn a_keychain_that_is_not_there_says_so_and_nothing_starts() {
    let world = World::new();
    let repository = world.repository("demo");
    let mut command = world.command(world.binary());
    command.env("TIPSTAFF_KEYCHAIN", "1").current_dir(&repository).args(["run", "--json", "--", "true"]);
    let ended = crate::world::run(command).expect(7);
    let error = ended.json();
    assert!(error["error"]["code"].as_str().unwrap().starts_with("keychain"), "{error}");
    assert!(!world.home().join("ring.key").exists(), "no key is made elsewhere behind the person's back");
}

/// Runs `tipstaff ARGS` in a desktop session of its own: a bus and a real keychain, unlocked or not.
fn in_session(world: &World, unlocked: bool, args: &str, input: &str) -> crate::world::Ended {
    use std::os::unix::fs::PermissionsExt;
    let runtime = world.path().join("runtime");
    std::fs::create_dir_all(&runtime).unwrap();
    std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o700)).unwrap();
    let unlock = if unlocked {
        "printf password | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1 || exit 99;"
    } else {
        ""
    };
    let mut command = world.command("dbus-run-session");
    command
        .env("XDG_RUNTIME_DIR", &runtime)
        .env("TIPSTAFF_KEYCHAIN", "1")
        .args(["--", "sh", "-c"])
        .arg(format!("{unlock} printf '%s' '{input}' | '{}' {args}", world.binary().display()));
    crate::world::run(command)
}

#[test]
fn the_key_lies_in_a_real_keychain_and_a_locked_one_is_never_replaced() {
    let world = World::new();
    in_session(&world, true, "secrets set deploy/token", "very-secret-value-0123").expect(0);
    assert!(!world.home().join("ring.key").exists(), "no file holds the key");
    let list = in_session(&world, true, "secrets list", "").expect(0).stdout;
    assert!(list.contains("deploy/token"), "another session finds the key again: {list}");
    let doctor = in_session(&world, true, "doctor", "");
    assert!(doctor.stdout.contains("keychain entry"), "{doctor:#?}");
    in_session(&world, true, "keys rotate", "").expect(0);

    let locked = in_session(&world, false, "keys list", "").expect(7);
    assert!(locked.stderr.contains("[keychain]") && locked.stderr.contains("unlock"), "{}", locked.stderr);
    assert!(!world.home().join("ring.key").exists());
    // What was sealed before still opens: the locked entry was left alone.
    in_session(&world, true, "keys rotate", "").expect(0);
    in_session(&world, true, "secrets list", "").expect(0);
}

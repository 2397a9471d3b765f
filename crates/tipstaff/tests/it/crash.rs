//! kill -9 at any moment loses nothing.

use crate::world::World;
use std::collections::BTreeMap;
use std::time::Duration;

/// A small reproducible generator: which moment to strike at.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[test]
fn a_hundred_kills_at_random_moments_lose_nothing() {
    let world = World::new();
    let repository = world.repository("demo");
    let repo = repository.to_str().unwrap().to_owned();
    // How long an undisturbed run takes decides where the kills fall.
    let begun = std::time::Instant::now();
    world.run_script(&repository, "echo x >> README.md").expect(0);
    let whole = u64::try_from(begun.elapsed().as_millis()).unwrap().max(50) * 5 / 4;
    let before = world.picture(&repository);
    let mut moments = Moments(std::process::id().into());
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut records = 0;
    for round in 0..100 {
        let mut child = world.start(&[
            "run",
            "--json",
            "--repo",
            &repo,
            "--",
            "sh",
            "-c",
            "echo x >> README.md; sleep 0.05",
        ]);
        std::thread::park_timeout(Duration::from_millis(moments.next(whole)));
        let _may_have_ended = child.kill();
        child.wait().unwrap();
        if round % 10 != 9 {
            continue;
        }
        let list = world.tipstaff(&["runs", "list", "--limit", "1000", "--json"]).expect(0).stdout;
        let mut now = BTreeMap::new();
        for row in list.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
            let state = row["state"].as_str().unwrap().to_owned();
            assert!(["done", "failed", "cancelled", "interrupted"].contains(&state.as_str()), "{row}");
            if state != "done" {
                assert!(!row["exit_reason"].is_null(), "an ended run says why: {row}");
            }
            now.insert(row["run"].as_str().unwrap().to_owned(), state);
        }
        for (run, state) in &known {
            assert_eq!(now.get(run), Some(state), "a run that was on record changed or vanished");
        }
        known = now;
        let report = world.tipstaff(&["audit", "verify", "--json"]).expect(0).json();
        let count = report["records"].as_u64().unwrap();
        assert!(count >= records, "the log shrank");
        records = count;
        pushes_are_as_the_log_says(&world);
        assert_eq!(
            std::fs::read_dir(world.home().join("runs")).unwrap().count(),
            0,
            "workspaces of dead runs are gone"
        );
    }
    assert!(known.values().any(|state| state == "interrupted"), "the kills fell into runs: {known:?}");
    assert_eq!(world.picture(&repository), before, "the person's repository was never touched");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(world.path().to_str().unwrap()), "no mount is left behind");
    world.run_script(&repository, "echo x >> README.md").expect(0);
}

/// Of each run, the newest record of a push and the run's branch in quarantine tell the same.
fn pushes_are_as_the_log_says(world: &World) -> usize {
    let all = world.tipstaff(&["audit", "list", "--limit", "100000", "--json"]).expect(0).stdout;
    let mut newest = BTreeMap::new();
    for record in all.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        if record["action"] == "push.accepted" {
            newest.insert(record["subject"].as_str().unwrap().to_owned(), record);
        }
    }
    for (subject, record) in &newest {
        let quarantine =
            world.home().join("results").join(format!("{}.git", subject.trim_start_matches("run:")));
        let reference = record["detail"]["ref"].as_str().unwrap();
        let tip = world.git(&quarantine, &["for-each-ref", "--format=%(objectname)", reference]);
        let landed = tip.trim() == record["detail"]["new"].as_str().unwrap();
        assert_eq!(landed, record["outcome"] == "ok", "{record}: {tip}");
    }
    newest.len()
}

/// A git that does what git does, and kills the process that asked it to move a run's branch: before, or after it moved.
fn deadly_git(world: &World, name: &str, moves: bool) -> std::path::PathBuf {
    let git =
        ["/usr/local/bin/git", "/usr/bin/git"].into_iter().find(|path| std::path::Path::new(path).exists());
    let git = git.expect("git is where the tests look for it");
    let really = if moves { format!("{git} \"$@\"") } else { "true".to_owned() };
    let folder = world.path().join(name);
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in update-ref*refs/heads/agent/*) {really}; kill -9 $PPID; exit 1;; esac\nexec {git} \"$@\"\n"
    );
    world.write(&folder.join("git"), &script);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.join("git"), mode).unwrap();
    folder
}

#[test]
fn a_push_that_was_on_record_and_did_not_land_is_corrected_once() {
    let world = World::new();
    let repository = world.repository("demo");
    world.run_script(&repository, "echo x >> README.md").expect(0);
    let records = || -> Vec<serde_json::Value> {
        let list = world.tipstaff(&["audit", "list", "--limit", "1000", "--json"]).expect(0);
        list.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for (name, moves) in [("dies-before", false), ("dies-after", true)] {
        let path = deadly_git(&world, name, moves);
        let mut command = world.command(world.binary());
        command
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", path.display()))
            .args(["run", "--repo", repository.to_str().unwrap(), "--", "sh", "-c"])
            .arg("echo more >> README.md; git commit -qam More; git push -q origin HEAD");
        let killed = crate::world::run(command);
        assert_eq!(killed.code, None, "{name}: it was killed: {killed:#?}");
        let next = world.tipstaff(&["runs", "list", "--limit", "1", "--json"]).expect(0);
        let run = next.json();
        assert_eq!(run["state"], "interrupted", "{run}");
        let subject = format!("run:{}", run["run"].as_str().unwrap());
        let told = next.stderr.contains("had not landed");
        assert_eq!(told, !moves, "{name}: {next:#?}");
        let about: Vec<_> = records()
            .into_iter()
            .filter(|record| record["action"] == "push.accepted" && record["subject"] == subject)
            .collect();
        let outcomes: Vec<&str> = about.iter().map(|record| record["outcome"].as_str().unwrap()).collect();
        if moves {
            assert_eq!(outcomes, ["ok"], "{about:?}");
        } else {
            assert_eq!(outcomes, ["ok", "failed"], "{about:?}");
            let (first, second) = (&about[0], &about[1]);
            assert_eq!(second["detail"]["record"], first["seq"].to_string(), "{second}");
            assert_eq!(second["detail"]["new"], first["detail"]["new"], "{second}");
            assert_eq!(second["detail"]["found"], "none", "{second}");
        }
        assert!(pushes_are_as_the_log_says(&world) >= 2);
        // Nobody says it again.
        let before = records().len();
        world.tipstaff(&["runs", "list"]).expect(0);
        assert_eq!(records().len(), before);
        world.tipstaff(&["audit", "verify"]).expect(0);
    }
}

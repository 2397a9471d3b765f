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

//! Queued tasks, workers, several runs at once in one process and in several.

use crate::world::World;

fn states(world: &World) -> Vec<String> {
    let list = world.tipstaff(&["runs", "list", "--limit", "100", "--json"]).expect(0).stdout;
    list.lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["state"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn a_worker_carries_out_queued_tasks_several_at_once() {
    let world = World::new();
    let repository = world.repository("demo");
    for number in 0..5 {
        let script = format!("echo {number} >> README.md");
        let queued = world
            .tipstaff_in(&repository, &["run", "--queue", "--json", "--", "sh", "-c", &script])
            .expect(0)
            .json();
        assert_eq!(queued["state"], "queued");
    }
    assert_eq!(states(&world), vec!["queued"; 5]);
    let unwanted =
        world.tipstaff_in(&repository, &["run", "--queue", "--json", "--", "false"]).expect(0).json();
    let id = unwanted["task"].as_str().unwrap();
    world.tipstaff(&["runs", "cancel", &id[28..]]).expect(0);
    world.tipstaff(&["worker", "--once", "--slots", "3"]).expect(0);
    assert_eq!(states(&world), vec!["done"; 5]);
    world.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn several_processes_run_at_once_on_one_repository() {
    let world = World::new();
    let repository = world.repository("demo");
    let repo = repository.to_str().unwrap();
    let children: Vec<_> = (0..4)
        .map(|number| {
            let script = format!("echo {number} >> README.md; sleep 0.3");
            world.start(&["run", "--json", "--repo", repo, "--", "sh", "-c", &script])
        })
        .collect();
    let mut branches = std::collections::BTreeSet::new();
    for child in children {
        let summary = crate::world::wait(child, std::time::Duration::from_secs(60)).expect(0).json();
        assert_eq!(summary["files_changed"], 1);
        branches.insert(summary["branch"].as_str().unwrap().to_owned());
    }
    assert_eq!(branches.len(), 4, "each has its own branch");
    world.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn a_killed_workers_task_is_tried_again() {
    let world = World::new();
    let repository = world.repository("demo");
    world
        .tipstaff_in(&repository, &["run", "--queue", "--", "sh", "-c", "echo x >> README.md; sleep 2"])
        .expect(0);
    let mut worker = world.start(&["worker", "--once"]);
    // Until the run is under way.
    for _ in 0..200 {
        if states(&world).iter().any(|state| state == "running") {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(25));
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
    world.tipstaff(&["worker", "--once"]).expect(0);
    let mut found = states(&world);
    found.sort();
    assert_eq!(found, ["done", "interrupted"], "the dead attempt is on record, the next one did the work");
    world.tipstaff(&["audit", "verify"]).expect(0);
}

/// Starts a run that waits, and gives it time to be under way.
fn waiting_run(world: &World) -> std::process::Child {
    let repository = world.repository("demo");
    let script = "echo x >> README.md; sleep 60";
    let child =
        world.start(&["run", "--json", "--repo", repository.to_str().unwrap(), "--", "sh", "-c", script]);
    let under_way = (0..400).any(|_| {
        std::thread::park_timeout(std::time::Duration::from_millis(25));
        states(world).iter().any(|state| state == "running")
    });
    assert!(under_way, "the run never got under way");
    child
}

#[test]
fn a_worker_that_lost_its_lease_stops_and_writes_nothing_more() {
    let world = World::new();
    let child = waiting_run(&world);
    crate::audit::meddle(&world, "update task set generation = generation + 1, lease_owner = 'another';");
    let ended = crate::world::wait(child, std::time::Duration::from_secs(30));
    assert_eq!(ended.code, Some(7), "{ended:#?}");
    assert_eq!(ended.json()["error"]["code"], "lease-lost");
    assert_eq!(states(&world), ["running"], "the state is the other worker's to change");
    world.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn a_revoked_warrant_ends_its_run_within_seconds_and_nothing_leaves() {
    let world = World::new();
    let child = waiting_run(&world);
    let live = world.tipstaff(&["warrants", "list", "--json"]).expect(0).json();
    let id = live["id"].as_str().unwrap().to_owned();
    let shown = world.tipstaff(&["warrants", "show", &id]).expect(0).stdout;
    assert!(shown.contains("signature") && shown.contains("holds"), "{shown}");
    world.tipstaff(&["warrants", "revoke", &id]).expect(0);
    let summary = crate::world::wait(child, std::time::Duration::from_secs(30)).expect(3).json();
    assert_eq!((&summary["state"], &summary["exit_reason"]), (&"failed".into(), &"warrant_revoked".into()));
    assert_eq!(summary["files_changed"], 0, "under a revoked warrant nothing is pushed");
    assert_eq!(world.tipstaff(&["warrants", "list", "--json"]).expect(0).stdout.trim(), "");
    world.tipstaff(&["warrants", "revoke", &id]).expect(2);
    let log = world.tipstaff(&["audit", "list", "--limit", "100", "--json"]).expect(0).stdout;
    assert!(log.contains("warrant.revoked"), "{log}");
}

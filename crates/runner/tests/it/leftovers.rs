//! Locks tell the living from the dead.

use std::fs;
use tipstaff_model::RunId;
use tipstaff_runner::{Layout, RunLock, leftovers, remove_leftover};

fn layout() -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::create(dir.path().join("home")).unwrap();
    (dir, layout)
}

const RUN: RunId = RunId::from_bytes([7; 16]);

#[test]
fn a_living_run_is_left_alone_and_a_dead_one_is_found_with_the_name_of_its_lease() {
    let (_dir, layout) = layout();
    let lock = RunLock::create(&layout, RUN, "machine:1:abc").unwrap();
    fs::create_dir_all(layout.run(RUN).join("workspace/upper")).unwrap();
    assert!(leftovers(&layout).unwrap().is_empty(), "its process lives: this one");
    drop(lock);
    let mut found = leftovers(&layout).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].run, found[0].owner.as_str()), (RUN, "machine:1:abc"));
    assert!(leftovers(&layout).unwrap().is_empty(), "somebody is at it already");
    remove_leftover(&layout, found.remove(0)).unwrap();
    assert_eq!(fs::read_dir(layout.runs()).unwrap().count(), 0);
}

#[test]
fn a_lock_is_made_once_and_strangers_files_are_no_runs() {
    let (_dir, layout) = layout();
    let lock = RunLock::create(&layout, RUN, "one").unwrap();
    fs::write(layout.runs().join("notes.txt"), "x").unwrap();
    fs::write(layout.runs().join("not-an-id.lock"), "x").unwrap();
    assert!(leftovers(&layout).unwrap().is_empty());
    lock.remove().unwrap();
    assert!(!layout.run_lock(RUN).exists());
}

#[test]
fn a_process_killed_between_making_and_naming_its_lock_leaves_nothing_for_ever() {
    let (_dir, layout) = layout();
    fs::write(layout.run_lock(RUN).with_extension("lock-new"), "machine:1:abc").unwrap();
    let mut found = leftovers(&layout).unwrap();
    remove_leftover(&layout, found.remove(0)).unwrap();
    assert_eq!(fs::read_dir(layout.runs()).unwrap().count(), 0);
}

//! Trees that an adversary has made.

use std::ffi::CString;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use tipstaff_sandbox::{UsageBound, remove_tree, tree_usage};

use crate::support::{Layered, directory, run, script};

fn close(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o0)).unwrap();
}

/// A chain of directories, deeper than any path may be long.
fn deep(top: &Path, depth: usize) {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = rustix::fs::open(top, flags, Mode::empty()).unwrap();
    let name = CString::new("d".repeat(50)).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&here, &*name, Mode::RWXU).unwrap();
        here = rustix::fs::openat(&here, &*name, flags, Mode::empty()).unwrap();
    }
}

#[test]
fn a_hostile_tree_goes_and_nothing_else() {
    let place = directory();
    let (outside, top) = (place.path().join("outside"), place.path().join("tree"));
    std::fs::create_dir_all(outside.join("kept")).unwrap();
    std::fs::write(outside.join("kept/file"), "kept").unwrap();
    std::fs::create_dir(&top).unwrap();
    deep(&top, 3000);
    symlink(&outside, top.join("link")).unwrap();
    symlink("/", top.join("root")).unwrap();
    symlink("nowhere", top.join("dangling")).unwrap();
    std::fs::create_dir_all(top.join("locked/inner/more")).unwrap();
    std::fs::write(top.join("locked/inner/file"), "x").unwrap();
    symlink("../../../outside", top.join("locked/inner/up")).unwrap();
    for path in ["locked/inner/more", "locked/inner", "locked"] {
        close(&top.join(path));
    }
    std::fs::create_dir(top.join(".tipstaff-removal-1")).unwrap();
    std::fs::write(top.join(".tipstaff-removal-1/x"), "name taken").unwrap();
    let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\n*-rf");
    std::fs::write(top.join(odd), "odd").unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, top.join("fifo"), Mode::RWXU).unwrap();
    close(&top);
    remove_tree(&top).unwrap();
    assert!(top.symlink_metadata().is_err());
    assert_eq!(std::fs::read_to_string(outside.join("kept/file")).unwrap(), "kept");
}

#[test]
fn a_link_and_a_file_and_nothing_can_be_removed_too() {
    let place = directory();
    let (target, link) = (place.path().join("target"), place.path().join("link"));
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("file"), "kept").unwrap();
    symlink(&target, &link).unwrap();
    remove_tree(&link).unwrap();
    assert!(link.symlink_metadata().is_err() && target.join("file").exists());
    remove_tree(&place.path().join("absent/deeper")).unwrap();
    remove_tree(&target.join("file")).unwrap();
    assert!(!target.join("file").exists());
    assert!(remove_tree(Path::new("/")).is_err());
}

#[test]
fn what_a_sandbox_leaves_behind_can_be_removed() {
    let layered = Layered::new();
    let text = "mkdir -p a/b/c && touch a/b/c/f && chmod 000 a/b/c a/b a; rm -rf below.txt; mkdir below.txt; \
                i=0; while [ $i -lt 300 ]; do mkdir d && cd d; i=$((i+1)); done; chmod 000 .";
    let output = run(&script(layered.workspace(), text));
    assert!(output.exit.success(), "{output:?}");
    remove_tree(&layered.directory.path().join("state")).unwrap();
    assert!(!layered.upper().exists());
}

#[test]
fn a_tree_is_measured_by_what_it_takes_on_disk() {
    let place = directory();
    let top = place.path();
    std::fs::write(top.join("file"), vec![7; 1 << 20]).unwrap();
    std::fs::create_dir(top.join("d")).unwrap();
    std::fs::write(top.join("d/small"), "x").unwrap();
    symlink("/usr", top.join("link")).unwrap();
    let sparse = std::fs::File::create(top.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let usage = tree_usage(top, UsageBound::default()).unwrap();
    assert!(usage.complete);
    assert_eq!(usage.files, 5);
    assert!((1 << 20..2 << 20).contains(&usage.bytes), "{usage:?}");
}

#[test]
fn what_cannot_be_measured_is_told() {
    let place = directory();
    deep(place.path(), 40);
    std::fs::write(place.path().join("file"), "x").unwrap();
    let usage = |entries, depth| tree_usage(place.path(), UsageBound { entries, depth }).unwrap();
    assert!(usage(1000, 64).complete);
    assert!(!usage(1000, 10).complete, "something may hide below the bound");
    assert!(!usage(5, 64).complete);
    let mut measured = tree_usage(place.path(), UsageBound { entries: 1000, depth: u32::MAX }).unwrap();
    assert!(measured.complete && measured.files == 41);
    close(&place.path().join("d".repeat(50)));
    measured = tree_usage(place.path(), UsageBound::default()).unwrap();
    assert!(crate::support::is_root() || !measured.complete);
    std::fs::set_permissions(place.path().join("d".repeat(50)), std::fs::Permissions::from_mode(0o700))
        .unwrap();
    remove_tree(&place.path().join("d".repeat(50))).unwrap();
}

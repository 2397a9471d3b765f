//! The dedicated outer user.

use std::os::unix::fs::MetadataExt;

use tipstaff_sandbox::{RunIdentity, Workspace};

use crate::support::{directory, is_root, run, script};

#[test]
fn two_runs_never_share_an_identity_and_one_is_free_again_after_its_last_clone() {
    let locks = directory();
    let one = RunIdentity::acquire(locks.path()).unwrap();
    let clone = one.clone();
    assert_ne!(one.uid(), 0);
    if !is_root() {
        assert_eq!(one.uid(), rustix::process::geteuid().as_raw());
        return;
    }
    let two = RunIdentity::acquire(locks.path()).unwrap();
    assert_ne!(one.uid(), two.uid());
    let uid = one.uid();
    let lock = std::fs::File::open(locks.path().join(uid.to_string())).unwrap();
    let taken = || rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    drop(one);
    assert_ne!(RunIdentity::acquire(locks.path()).unwrap().uid(), uid, "a clone still holds it");
    assert!(taken().is_err(), "a clone still holds its lock");
    drop(clone);
    // Which one is taken next depends on other servers of the machine; that this one may be taken does not.
    taken().unwrap();
    let again = RunIdentity::acquire(locks.path()).unwrap();
    assert!((31_000..=31_999).contains(&again.uid()));
}

#[test]
fn what_a_run_writes_into_a_directory_belongs_to_its_owner() {
    let place = directory();
    let work = place.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let output = run(&script(
        Workspace::Directory { path: work.clone() },
        "echo x >file; mkdir -p a/b; stat -c %u file . a; ln -s file link",
    ));
    assert_eq!(output.stdout, "1000\n1000\n1000\n", "{output:?}");
    for name in ["file", "a", "a/b"] {
        let status = work.join(name).symlink_metadata().unwrap();
        assert_eq!(status.uid(), rustix::process::geteuid().as_raw(), "{name}");
    }
}

#[test]
fn a_second_sandbox_of_the_same_run_goes_on_in_its_layer() {
    let layered = crate::support::Layered::new();
    let mut spec =
        script(layered.workspace(), "echo one >new; echo more >>below.txt; chmod 600 new; mkdir -m 700 d");
    assert!(run(&spec).exit.success());
    spec.argv[2] = "cat new below.txt; echo two >>new; touch d/x; rm below.txt".into();
    let output = run(&spec);
    assert_eq!(output.stdout, "one\nbelow\nmore\n", "{output:?}");
    assert!(output.exit.success(), "{output:?}");
    assert_eq!(std::fs::read_to_string(layered.lower().join("below.txt")).unwrap(), "below\n");
}

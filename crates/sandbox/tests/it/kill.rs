//! The end of a run is the end of all of it.

use std::fs::File;
use std::io::Read;

use tipstaff_sandbox::{ExitCause, Workspace};

use crate::support::{first_line, processes_with, sandbox, script};

/// A tree with a grandchild in a session of its own, whose parents are gone, and which ignores signals.
fn stubborn(mark: &str) -> String {
    format!(
        "(setsid sh -c 'trap \"\" TERM HUP INT; echo detached; sleep {mark}' &) ; (setsid sleep {mark} >/dev/null &); \
         sleep {mark}"
    )
}

fn mark() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{}{:03}", 40_000_000 + u64::from(std::process::id()), count)
}

#[test]
fn a_kill_ends_detached_processes_too() {
    let mark = mark();
    let mut running = sandbox().start(&script(Workspace::Empty, &stubborn(&mark))).unwrap();
    let mut stdout = File::from(running.stdout.take().unwrap());
    assert_eq!(first_line(&mut stdout), "detached");
    assert!(!processes_with(&mark).is_empty());
    running.kill().unwrap();
    assert_eq!(running.wait().unwrap().cause, ExitCause::Killed);
    assert_eq!(processes_with(&mark), Vec::<std::path::PathBuf>::new());
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
}

#[test]
fn dropping_kills() {
    let mark = mark();
    let mut running = sandbox().start(&script(Workspace::Empty, &stubborn(&mark))).unwrap();
    assert_eq!(first_line(&mut File::from(running.stdout.take().unwrap())), "detached");
    drop(running);
    assert_eq!(processes_with(&mark), Vec::<std::path::PathBuf>::new());
}

#[test]
fn survivors_end_with_the_command() {
    let mark = mark();
    let text =
        format!("(setsid sleep {mark} >/dev/null 2>&1 &); (setsid sleep {mark} >/dev/null 2>&1 &); exit 3");
    let mut running = sandbox().start(&script(Workspace::Empty, &text)).unwrap();
    assert_eq!(running.wait().unwrap().code, 3);
    assert_eq!(processes_with(&mark), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_short_lived_thread_may_start_a_long_lived_run() {
    // The kernel's death signal is bound to the parent thread; a pool's thread must not take the run with it.
    let running =
        std::thread::spawn(|| sandbox().start(&script(Workspace::Empty, "echo up; sleep 0.3; exit 9")));
    let mut running = running.join().unwrap().unwrap();
    assert_eq!(first_line(&mut File::from(running.stdout.take().unwrap())), "up");
    assert_eq!(running.wait().unwrap().code, 9);
}

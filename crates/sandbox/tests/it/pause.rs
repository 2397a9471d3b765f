//! A run that stands still: nothing of it moves, forks included, and a kill still works.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use tipstaff_sandbox::{ExitCause, Running, SandboxError, Workspace};

use crate::support::{directory, first_line, sandbox, script};

/// Writers, a shell that forks all the time, one that is detached and one that ignores what it can.
const RESTLESS: &str = "\
    for one in 1 2 3; do (while :; do echo x >> /work/$one; done) & done; \
    (while :; do (echo y >> /work/forks) & wait; done) & \
    (setsid sh -c 'trap \"\" TERM HUP INT TSTP CONT; while :; do echo z >> /work/detached; done' &) ; \
    echo up; wait";

const FILES: [&str; 5] = ["1", "2", "3", "forks", "detached"];

fn sizes(place: &Path) -> Vec<u64> {
    FILES.iter().map(|name| std::fs::metadata(place.join(name)).map_or(0, |data| data.len())).collect()
}

/// Waits until every writer has written more than it had.
fn all_move(place: &Path) {
    let before = sizes(place);
    let begun = Instant::now();
    while sizes(place).iter().zip(&before).any(|(now, before)| now <= before) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{before:?} {:?}", sizes(place));
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Nothing moves, for as long as it would have taken all of them to write many times.
fn nothing_moves(place: &Path) {
    let before = sizes(place);
    std::thread::park_timeout(Duration::from_millis(300));
    assert_eq!(sizes(place), before);
}

fn stands_still_and_goes_on(pause: impl Fn(&mut Running) -> Result<(), SandboxError>) {
    let place = directory();
    let work = place.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let spec = script(Workspace::Directory { path: work.clone() }, RESTLESS);
    let mut running = sandbox().start(&spec).unwrap();
    assert_eq!(first_line(&mut File::from(running.stdout.take().unwrap())), "up");
    for _ in 0..3 {
        all_move(&work);
        assert!(!running.is_paused());
        pause(&mut running).unwrap();
        pause(&mut running).unwrap();
        assert!(running.is_paused());
        nothing_moves(&work);
        running.unpause().unwrap();
    }
    all_move(&work);
    // What stands still can be killed.
    pause(&mut running).unwrap();
    let begun = Instant::now();
    running.kill().unwrap();
    assert_eq!(running.wait().unwrap().cause, ExitCause::Killed);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    nothing_moves(&work);
    // What has ended is neither paused nor resumed.
    pause(&mut running).unwrap();
    running.unpause().unwrap();
    assert!(!running.is_paused());
}

#[test]
fn a_paused_run_stands_still_and_goes_on() {
    stands_still_and_goes_on(Running::pause);
}

#[test]
fn without_a_group_that_freezes_signals_do_it() {
    stands_still_and_goes_on(Running::pause_by_signals);
}

#[test]
fn the_end_of_whoever_paused_it_is_the_end_of_the_run() {
    for pause in [Running::pause, Running::pause_by_signals] {
        let place = directory();
        let work = place.path().join("work");
        std::fs::create_dir(&work).unwrap();
        let spec = script(Workspace::Directory { path: work.clone() }, RESTLESS);
        let mut running = sandbox().start(&spec).unwrap();
        assert_eq!(first_line(&mut File::from(running.stdout.take().unwrap())), "up");
        pause(&mut running).unwrap();
        drop(running);
        nothing_moves(&work);
    }
}

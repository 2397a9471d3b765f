//! The escape suite: attacks that were seen to succeed where nothing stops them, and must fail inside.
//!
//! A case is a shell script that exits 0 exactly when the attack succeeded. Each class runs all of its cases under
//! two kinds of warrant, the widest and the strictest; a class fails with the list of the cases that got through.
//! `power` runs the runnable cases with no sandbox: an attack that cannot succeed anywhere proves nothing.

mod broker;
mod canary;
mod case;
mod devices;
mod files;
mod host;
mod network;
mod power;
mod privilege;
mod processes;
mod resources;
mod secrets;
mod syscalls;

use case::Case;

/// All classes, for the power check and the count.
fn all_cases() -> Vec<&'static Case> {
    [
        files::CASES,
        secrets::CASES,
        privilege::CASES,
        syscalls::CASES,
        devices::CASES,
        network::CASES,
        broker::CASES,
        processes::CASES,
        resources::CASES,
        host::CASES,
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn every_case_of_the_list_is_here_once() {
    // The list's numbers, with its gaps.
    let listed = (1..=54).filter(|number| ![23, 41, 42, 43, 44, 45, 50].contains(number));
    let mut expected: Vec<String> = listed.map(|number| format!("A{number:02}")).collect();
    let names: Vec<_> = all_cases().iter().map(|case| case.id).collect();
    let ported: Vec<_> = names.iter().filter(|id| id.starts_with('A')).collect();
    assert_eq!(ported.len(), 47);
    expected.retain(|id| !names.contains(&id.as_str()));
    assert_eq!(expected, Vec::<String>::new(), "not ported");
    let own = names.iter().filter(|id| id.starts_with('B')).count();
    assert!(own >= 12, "only {own} of our own");
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), names.len(), "a name twice");
}

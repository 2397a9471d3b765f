//! An attack that cannot succeed anywhere proves nothing when it fails inside.

use super::all_cases;
use super::canary::canary;
use super::case::{Bare, bare};

/// As many cases of the list as it says succeed with nothing in their way.
const LISTED: usize = 11;

#[test]
fn the_attacks_work_where_nothing_stops_them() {
    let canary = canary();
    let (mut worked, mut failed, mut impossible) = (Vec::new(), Vec::new(), Vec::new());
    for case in all_cases() {
        match case.bare {
            Bare::NotRun => continue,
            Bare::SucceedsIf(file, text)
                if std::fs::read_to_string(file).unwrap_or_default().trim() != text =>
            {
                impossible.push(case.id);
                continue;
            }
            Bare::Succeeds | Bare::SucceedsIf(..) => {}
        }
        let directory = crate::support::directory();
        let code = bare(&case.text(canary), directory.path());
        if code == Some(0) { worked.push(case.id) } else { failed.push((case.id, case.title, code)) }
    }
    assert!(failed.is_empty(), "these attacks are powerless: {failed:?}; these work: {worked:?}");
    let listed = worked.iter().chain(&impossible).filter(|id| id.starts_with('A')).count();
    assert!(listed >= LISTED, "only {worked:?} work; this machine rules out {impossible:?}");
    assert!(worked.len() >= 24, "{worked:?}");
}

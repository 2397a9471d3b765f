//! A server that runs as root is one case, a server that runs as an ordinary user another: the whole suite runs as
//! both. Started by root, it runs itself once more as an ordinary user from a place that this user can reach.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::support::is_root;

/// An ordinary user that need not exist.
const UID: u32 = 1500;
/// Fewer passing tests than this mean that the second run did not do its work.
const AT_LEAST: usize = 60;

#[test]
fn the_whole_suite_holds_for_an_ordinary_user() {
    if !is_root() {
        // This is the second run, or root was never there.
        return;
    }
    let place = tempfile::TempDir::with_prefix("tipstaff-ordinary-").unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("it");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let temporary = place.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    std::os::unix::fs::chown(&temporary, Some(UID), Some(UID)).unwrap();
    let output = Command::new(&program)
        .args(["--skip", "ordinary::", "--test-threads", "2"])
        .env("TMPDIR", &temporary)
        .env("HOME", &temporary)
        .current_dir(&temporary)
        .uid(UID)
        .gid(UID)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = said
        .lines()
        .find_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse::<usize>().ok());
    assert!(
        output.status.success() && passed.is_some_and(|passed| passed >= AT_LEAST),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

//! Processes and shared memory of the host, and the sandbox's own first process.

use super::case::{Bare, Case, all_must_fail, case};

pub(super) const CASES: &[Case] = &[
    case("A35", "System V shared memory of the host", "ipcs -m | grep -qi $SHMKEY", Bare::Succeeds),
    case("A36", "signal a host process", "kill -0 $HPID", Bare::NotRun),
    case(
        "A37",
        "stop or kill the init of the sandbox",
        r#"kill -STOP 1; kill -9 1; sleep 0.2; grep -Eq "State:\s+T" /proc/1/status"#,
        Bare::NotRun,
    ),
    case(
        "B36",
        "a handle of a host process",
        r#"python3 -c '$PYTHON
sys.exit(0 if s(434,$HPID,0)>=0 else 1)'"#,
        Bare::Succeeds,
    ),
    case(
        "B37",
        "attach to the first process",
        r#"python3 -c '$PYTHON
r=[s(101,16,1,0,0),s(101,0x4206,1,0,0),s(311,1,0,0,0,0,0)];sys.exit(0 if max(r)>=0 else 1)'"#,
        Bare::NotRun,
    ),
    case(
        "B38",
        "host processes in /proc",
        r#"ls -d /proc/[0-9]* | wc -l | { read n; [ $n -gt 12 ]; } || ls /proc/$HPID"#,
        Bare::Succeeds,
    ),
    case(
        "B39",
        "new namespaces of any kind",
        "unshare -m true || unshare -n true || unshare -p true || unshare -i true || unshare -u true || unshare -C true || \
         unshare -T true || nsenter -t 1 -n true || nsenter -t 1 -m true",
        Bare::NotRun,
    ),
];

#[test]
fn every_attack_on_processes_fails() {
    all_must_fail(CASES);
}

//! How much of the machine a run may use, and how its end tells of it.

use tipstaff_sandbox::{ExitCause, LayerState, Sandbox, Workspace};

use crate::support::{config, run, sandbox, script};

const MIB: u64 = 1024 * 1024;

fn held(layer: &str) -> bool {
    let report = Sandbox::probe(&config());
    report.layers.iter().any(|row| row.layer == layer && row.state == LayerState::Holds)
}

#[test]
fn too_much_memory_is_told_as_such() {
    if !held("cgroup-memory") {
        assert!(!crate::support::is_root(), "root can write its cgroup on a machine with tests");
        return;
    }
    let mut spec =
        script(Workspace::Empty, "head -c 300000000 /dev/zero | tail -c 300000000 | wc -c; exit 1");
    spec.limits.memory_bytes = 64 * MIB;
    let output = run(&spec);
    assert_eq!(output.exit.cause, ExitCause::OutOfMemory, "{output:?}");
}

#[test]
fn a_tmpfs_counts_as_memory() {
    if !held("cgroup-memory") {
        return;
    }
    let mut spec = script(Workspace::Empty, "head -c 200000000 /dev/zero >/tmp/file; exit 1");
    spec.limits.memory_bytes = 64 * MIB;
    assert_eq!(run(&spec).exit.cause, ExitCause::OutOfMemory);
}

#[test]
fn processes_are_counted() {
    let mut spec = script(Workspace::Empty, "for i in $(seq 60); do sleep 20 & done; echo all");
    spec.limits.pids = 20;
    let output = run(&spec);
    assert!(!output.stdout.contains("all") && !output.exit.success(), "{output:?}");
}

#[test]
fn sizes_are_bounds() {
    let mut spec = script(
        Workspace::Empty,
        "for d in /tmp /dev/shm $HOME; do head -c 20000000 /dev/zero >$d/x 2>/dev/null; stat -c %s $d/x; done; \
         ulimit -c; ulimit -n; ulimit -Hn; truncate -s 3G /work/x 2>/dev/null || echo too big",
    );
    spec.limits.tmp_bytes = 8 * MIB;
    spec.limits.shm_bytes = 4 * MIB;
    spec.limits.home_bytes = 2 * MIB;
    spec.limits.file_bytes = 1024 * MIB;
    spec.limits.open_files = 100;
    let output = run(&spec);
    let expected = format!("{}\n{}\n{}\n0\n100\n100\ntoo big\n", 8 * MIB, 4 * MIB, 2 * MIB);
    assert_eq!(output.stdout, expected, "{output:?}");
}

#[test]
fn use_is_measured_where_the_kernel_tells() {
    let text = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    let mut running = sandbox().start(&script(Workspace::Empty, text)).unwrap();
    running.wait().unwrap();
    let usage = running.usage();
    if crate::support::is_root() {
        assert!(usage.cpu_microseconds.unwrap() > 1000, "{usage:?}");
        assert!(usage.memory_peak_bytes.unwrap() > 100_000, "{usage:?}");
    }
}

#[test]
fn a_run_leaves_no_cgroup_behind() {
    let mark = format!("tipstaff-{}-", std::process::id());
    drop(sandbox().start(&script(Workspace::Empty, "sleep 1000")).unwrap());
    run(&script(Workspace::Empty, "true"));
    let mut found = Vec::new();
    for controller in ["memory", "pids", "cpu", "unified", "."] {
        let Ok(entries) = std::fs::read_dir(format!("/sys/fs/cgroup/{controller}")) else { continue };
        found
            .extend(entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&mark)));
    }
    // Other tests of this process run at the same time; only empty groups would be left-overs.
    let left = found.iter().filter(|entry| {
        std::fs::read_to_string(entry.path().join("cgroup.procs")).is_ok_and(|text| text.trim().is_empty())
    });
    assert!(left.count() <= 8, "groups of ended runs must go");
}

//! The probe, on this machine.

use tipstaff_sandbox::{LayerState, Sandbox, SandboxConfig};

use crate::support::{config, is_root};

#[test]
fn every_required_layer_holds_here() {
    let report = Sandbox::probe(&config());
    assert!(report.usable(), "{report:#?}");
    for row in &report.layers {
        assert!(!row.evidence.is_empty());
        assert_eq!(row.remedy.is_empty(), row.state == LayerState::Holds, "{row:?}");
        assert!(!row.required || row.state != LayerState::Missing, "{row:?}");
    }
    let names: Vec<_> = report.layers.iter().map(|row| row.layer).collect();
    for layer in [
        "user-namespaces",
        "user-isolation",
        "landlock",
        "seccomp",
        "listener",
        "overlay",
        "idmap",
        "tree-kill",
    ] {
        assert!(names.contains(&layer), "{layer}");
    }
    if is_root() {
        let row = report.layers.iter().find(|row| row.layer == "cgroup-memory").unwrap();
        assert_eq!(row.state, LayerState::Holds, "{row:?}");
    }
}

#[test]
fn without_bubblewrap_there_is_no_sandbox() {
    let config = SandboxConfig { bwrap: "/no/such/bwrap".into(), ..config() };
    assert!(!Sandbox::probe(&config).usable());
    assert_eq!(Sandbox::new(config).unwrap_err().code(), "sandbox-bubblewrap-missing");
}

#[test]
fn a_program_that_is_not_bubblewrap_does_not_pass_for_it() {
    for program in ["/bin/true", "/bin/false", "/bin/cat"] {
        let config = SandboxConfig { bwrap: program.into(), ..config() };
        let error = Sandbox::new(config).unwrap_err();
        assert_eq!(error.code(), "sandbox-start-failed", "{program}: {error}");
    }
}

#[test]
fn a_program_without_the_init_stage_is_found_out() {
    let config = SandboxConfig { init_program: Some("/usr/bin/true".into()), ..config() };
    let error = Sandbox::new(config).unwrap_err();
    assert_eq!(error.code(), "sandbox-start-failed", "{error}");
}

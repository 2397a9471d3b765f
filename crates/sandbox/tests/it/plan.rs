//! The plan says what a start does.

use tipstaff_sandbox::Workspace;

use crate::support::{Layered, refine, run, sandbox, script, with_broker};

#[test]
fn the_mounts_of_the_plan_are_the_mounts_of_the_run() {
    let layered = Layered::new();
    let mut spec = with_broker(script(layered.workspace(), "cut -d' ' -f5,6 /proc/self/mountinfo"));
    for strict in [false, true] {
        if strict {
            spec = refine(spec);
        }
        let plan = sandbox().plan(&spec).unwrap();
        let seen = run(&spec).stdout;
        for mount in &plan.mounts {
            let inside = mount.inside.display().to_string();
            if ["synthetic", "masked"].contains(&mount.source.as_str()) || mount.source.starts_with("link to")
            {
                continue;
            }
            let options = seen
                .lines()
                .rev()
                .find_map(|line| line.strip_prefix(&format!("{inside} ")))
                .unwrap_or_else(|| panic!("{inside} is planned and not mounted:\n{seen}"));
            if inside == "/dev" || inside == "/proc" {
                continue;
            }
            for option in mount.options.split(',') {
                let real = options.split(',').any(|real| real == option);
                assert!(
                    real || option == "noexec" && options.starts_with("ro,"),
                    "{inside}: {option} in {options}"
                );
            }
        }
    }
}

#[test]
fn the_plan_reads_well_and_serializes() {
    let spec = refine(with_broker(script(Workspace::Empty, "true")));
    let plan = sandbox().plan(&spec).unwrap();
    let text = plan.to_string();
    for part in [
        "command   /bin/sh -c true",
        "127.0.0.1:8080 is the broker",
        "EPERM: unshare",
        "noexec",
        "landlock: version",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains("CANARY-environment"));
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["cwd"], "/work");
    assert!(json["mounts"].as_array().unwrap().len() > 15);
    assert_eq!(json["env_names"][0], "GIT_CONFIG_NOSYSTEM");
}

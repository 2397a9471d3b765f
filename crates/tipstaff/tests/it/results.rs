//! Looking at runs; applying and discarding their changes.

use crate::world::World;
use std::io::{BufRead, BufReader};
use std::time::Duration;

#[test]
fn runs_are_listed_shown_diffed_and_discarded() {
    let world = World::new();
    let repository = world.repository("demo");
    let first = world.run_script(&repository, "echo 1 >> README.md").expect(0).json();
    let second = world.run_script(&repository, "echo 2 >> src/main.txt").expect(0).json();
    let list = world.tipstaff(&["runs", "list", "--json"]).expect(0).stdout;
    let rows: Vec<serde_json::Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["run"], second["run"], "newest first");
    let text = world.tipstaff(&["runs", "list"]).expect(0).stdout;
    assert!(text.contains("done") && text.contains("local/demo"), "{text}");

    let id = first["run"].as_str().unwrap();
    let short = &id[28..];
    let shown = world.tipstaff(&["runs", "show", short]).expect(0).stdout;
    for word in ["warrant", "builder", "local/demo", "agent/builder-task-", "README.md", "done"] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    let stat = world.tipstaff(&["runs", "diff", "--stat", short]).expect(0).stdout;
    assert!(stat.contains("README.md") && !stat.contains("main.txt"), "{stat}");

    world.tipstaff(&["runs", "discard", short]).expect(0);
    let gone = world.tipstaff(&["runs", "diff", short]).expect(2);
    assert!(gone.stderr.contains("discarded"), "{}", gone.stderr);
    world.tipstaff_in(&repository, &["runs", "apply", short]).expect(2);
    world.tipstaff_in(&repository, &["runs", "apply"]).expect(0);
    let again = world.tipstaff_in(&repository, &["runs", "apply"]);
    assert!(matches!(again.code, Some(0 | 2)), "applying twice does no harm: {again:#?}");
    let commits = world.git(&repository, &["rev-list", "--count", "HEAD"]);
    assert_eq!(commits.trim(), "3", "first, the run's commit, the merge");
    let log = world.git(&repository, &["log", "--format=%B", "-2"]);
    assert!(log.contains("Tipstaff-Run:") && log.contains("Tipstaff-Warrant:"), "{log}");
}

#[test]
fn apply_refuses_what_would_overwrite_work_and_keeps_the_run() {
    let world = World::new();
    let repository = world.repository("demo");
    world.run_script(&repository, "echo agent >> README.md").expect(0);
    world.write(&repository.join("README.md"), "# Demo\nmine\n");
    let dirty = world.tipstaff_in(&repository, &["runs", "apply"]).expect(1);
    assert!(dirty.stderr.contains("--branch"), "{}", dirty.stderr);
    assert_eq!(std::fs::read_to_string(repository.join("README.md")).unwrap(), "# Demo\nmine\n");
    world.commit(&repository, "mine");
    let conflict = world.tipstaff_in(&repository, &["runs", "apply"]).expect(1);
    assert!(conflict.stderr.contains("README.md"), "{}", conflict.stderr);
    assert_eq!(
        world.git(&repository, &["status", "--porcelain"]),
        "",
        "a conflict leaves the tree as it was"
    );
    world.tipstaff_in(&repository, &["runs", "apply", "--branch", "agent-work"]).expect(0);
    let taken = world.tipstaff_in(&repository, &["runs", "apply", "--branch", "main"]).expect(1);
    assert!(taken.stderr.contains("main"), "{}", taken.stderr);
    let bad = world.tipstaff_in(&repository, &["runs", "apply", "--branch", "a..b"]).expect(2);
    assert!(bad.stderr.contains("a..b"), "{}", bad.stderr);
}

#[test]
fn a_run_can_be_cancelled_from_another_process_and_keeps_its_work() {
    let world = World::new();
    let repository = world.repository("demo");
    let repo = repository.to_str().unwrap();
    let mut child = world.start(&[
        "run",
        "--json",
        "--repo",
        repo,
        "--",
        "sh",
        "-c",
        "echo kept > kept.txt; echo ready >&2; sleep 60",
    ]);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().contains("ready") {}
    let drain = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>().join("\n"));
    world.tipstaff(&["runs", "cancel"]).expect(0);
    child.stderr = Some(
        std::process::Command::new("true")
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
            .stderr
            .unwrap(),
    );
    let ended = crate::world::wait(child, Duration::from_secs(30)).expect(1);
    let summary = ended.json();
    assert_eq!(
        (&summary["state"], &summary["exit_reason"]),
        (&"cancelled".into(), &"cancelled_by_person".into())
    );
    assert_eq!(summary["files_changed"], 1, "{}", drain.join().unwrap());
    let again = world.tipstaff(&["runs", "cancel"]).expect(2);
    assert!(again.stderr.contains("cancelled"), "{}", again.stderr);
}

#[test]
fn agents_are_made_shown_and_used() {
    let world = World::new();
    let repository = world.repository("demo");
    world
        .tipstaff(&[
            "agents",
            "set",
            "scribe",
            "--role",
            "gardener",
            "--instructions",
            "Tend the docs.",
            "--",
            "sh",
            "-c",
            "echo \"$0\" >> README.md",
        ])
        .expect(0);
    let shown = world.tipstaff(&["agents", "show", "scribe"]).expect(0).stdout;
    assert!(shown.contains("gardener") && shown.contains("ops"), "{shown}");
    assert!(world.tipstaff(&["agents", "list", "--json"]).expect(0).stdout.contains("\"scribe\""));
    let summary = world
        .tipstaff_in(&repository, &["run", "--json", "--agent", "scribe", "a line; $(touch x)"])
        .expect(0)
        .json();
    assert!(summary["branch"].as_str().unwrap().starts_with("agent/gardener-task-"));
    let diff = world.tipstaff_in(&repository, &["runs", "diff"]).expect(0).stdout;
    assert!(diff.contains("+a line; $(touch x)"), "{diff}");
    world.tipstaff(&["agents", "set", "Bad Name", "--", "true"]).expect(2);
    let unknown = world.tipstaff(&["agents", "show", "nobody"]).expect(2);
    assert!(unknown.stderr.contains("agent-unknown"));
}

#[test]
fn help_completions_manual_and_doctor() {
    let world = World::new();
    let help = world.tipstaff(&["--help"]).expect(0).stdout;
    for word in ["Exit codes", "warrant", "TIPSTAFF_HOME", "doctor"] {
        assert!(help.contains(word), "{word}");
    }
    assert!(world.tipstaff(&["completions", "bash"]).expect(0).stdout.contains("_tipstaff"));
    assert!(world.tipstaff(&["man"]).expect(0).stdout.contains(".TH"));
    let pages = world.path().join("man");
    world.tipstaff(&["man", "--dir", pages.to_str().unwrap()]).expect(0);
    assert!(pages.join("tipstaff-run.1").exists());
    let doctor = world.tipstaff(&["doctor", "--json"]).expect(0).json();
    assert!(doctor["checks"].as_array().unwrap().iter().any(|check| check["name"] == "sandbox"), "{doctor}");
    let text = world.tipstaff(&["doctor"]).expect(0).stdout;
    assert!(text.contains("git") && text.contains("sandbox"), "{text}");
}

#[test]
fn a_refused_change_is_kept_as_a_patch_and_reaches_nothing_by_itself() {
    let world = World::new();
    let repository = world.repository("demo");
    let script =
        "echo wanted >> README.md; mkdir -p .github/workflows; echo 'on: push' > .github/workflows/ci.yml";
    let refused = world.run_script(&repository, script).expect(3).json();
    assert_eq!((&refused["branch"], &refused["files_changed"]), (&serde_json::Value::Null, &0.into()));
    let shown = world.tipstaff_in(&repository, &["runs", "diff"]).expect(0);
    assert!(shown.stderr.contains("refused") && shown.stdout.contains("+wanted"), "{shown:#?}");
    world.tipstaff_in(&repository, &["runs", "apply"]).expect(2);
    // A person who has read it may take what they want of it.
    let patch = world.path().join("refused.patch");
    std::fs::write(&patch, &shown.stdout).unwrap();
    world.git(&repository, &["apply", "--include=README.md", patch.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(repository.join("README.md")).unwrap(), "# Demo\nwanted\n");
    world.tipstaff_in(&repository, &["runs", "discard"]).expect(0);
    let left = std::fs::read_dir(world.home().join("results")).unwrap().count();
    assert_eq!(left, 0, "a discarded change is gone");
}

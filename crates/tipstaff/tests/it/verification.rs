//! `[verify]` of `tipstaff.toml`: the repository's own checks decide, and nothing of the run can talk them round.

use crate::world::World;
use serde_json::Value;
use std::path::PathBuf;

/// A repository whose `tipstaff.toml` says `text`.
fn repository(world: &World, text: &str) -> PathBuf {
    let path = world.repository("demo");
    world.write(&path.join("tipstaff.toml"), text);
    world.write(&path.join(".gitignore"), "ignored\n");
    world.commit(&path, "checks");
    path
}

fn last_audit(world: &World, action: &str) -> Vec<Value> {
    let list = world.tipstaff(&["audit", "list", "--limit", "500", "--json"]).expect(0).stdout;
    list.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|record| record.to_string().contains(action))
        .collect()
}

#[test]
fn checks_that_pass_make_it_done_and_their_output_is_kept() {
    for world in [World::new(), World::ordinary()] {
        let path = repository(
            &world,
            "[verify]\ncommands = [\"grep -q hello README.md && echo it says hello\", \"test ! -e ignored\"]\n",
        );
        let ended = world.run_script(&path, "echo hello >> README.md; touch ignored").expect(0);
        let summary = ended.json();
        assert_eq!((&summary["state"], &summary["exit_reason"]), (&"done".into(), &"completed".into()));
        assert!(ended.stderr.contains("verify 1 passed"), "{}", ended.stderr);
        let transcript = world.tipstaff(&["runs", "show", "--transcript"]).expect(0);
        assert!(transcript.stdout.contains("it says hello"), "{transcript:#?}");
        let records = last_audit(&world, "run.verified");
        assert_eq!(records.len(), 1, "{records:#?}");
        let text = records[0].to_string();
        assert!(text.contains("sha256:") && text.contains("passed"), "{text}");
    }
}

#[test]
fn a_check_that_fails_makes_it_failed_and_the_work_is_kept() {
    let world = World::new();
    let path = repository(
        &world,
        "[verify]\ncommands = [\"true\", \"echo no good; exit 3\", \"touch /work/never\"]\n",
    );
    let ended = world.run_script(&path, "echo hello >> README.md").expect(1);
    let summary = ended.json();
    assert_eq!((&summary["state"], &summary["exit_reason"]), (&"failed".into(), &"verify_failed".into()));
    assert!(summary["error"].as_str().unwrap().contains("ended with 3"), "{summary}");
    assert!(summary["branch"].is_string(), "the work is kept: {summary}");
    let shown = world.tipstaff(&["runs", "logs"]).expect(0);
    assert!(shown.stdout.contains("no good") && !shown.stderr.contains("verify 3"), "{shown:#?}");
    world.tipstaff_in(&path, &["runs", "apply", "--branch"]).expect(0);
}

#[test]
fn the_run_has_no_say_in_its_own_verification() {
    let world = World::new();
    let path = repository(&world, "[verify]\ncommands = [\"sh check.sh\"]\n");
    world.write(&path.join("check.sh"), "! grep -q bad README.md\n");
    world.commit(&path, "check");
    // It poisons git and its hooks, and leaves helpers behind that the check would find.
    let script = "
        mkdir -p .git/hooks; printf '#!/bin/sh\\ncp /dev/null README.md\\n' > .git/hooks/post-checkout
        chmod +x .git/hooks/post-checkout; git config core.hooksPath .git/hooks
        echo ignored >> .git/info/exclude; printf '#!/bin/sh\\nexit 1\\n' > ignored; chmod +x ignored
        echo bad >> README.md";
    let summary = world.run_script(&path, script).expect(1).json();
    assert_eq!(summary["exit_reason"], "verify_failed", "{summary}");
    let log = world.tipstaff(&["runs", "logs"]).expect(0);
    assert!(log.stderr.contains("sh check.sh"), "the base's command ran: {log:#?}");
    // Rewriting the rules is nothing that a builder may do.
    let rewrite = "printf '[verify]\\ncommands = [\"true\"]\\n' > tipstaff.toml; echo bad >> README.md";
    let summary = world.run_script(&path, rewrite).expect(3).json();
    assert_eq!(summary["refusals"][0]["rule"], "path-protected", "{summary}");
}

#[test]
fn a_check_that_the_run_rewrote_can_not_push_behind_the_verification() {
    let world = World::new();
    let path = repository(&world, "[verify]\ncommands = [\"sh check.sh\"]\n");
    world.write(&path.join("check.sh"), "true\n");
    world.commit(&path, "check");
    // The check is the run's own text; it runs after the commit that is verified was pushed.
    let script = "echo good >> README.md; cat > check.sh <<'END'
        echo evil >> README.md; git add -A; git -c user.name=x -c user.email=x@y commit -qm evil
        git push \"$TIPSTAFF_REMOTE\" HEAD:\"$TIPSTAFF_REF\"; echo pushed with $?; exit 0\nEND\n";
    let summary = world.run_script(&path, script).expect(0).json();
    let diff = world.tipstaff(&["runs", "diff"]).expect(0).stdout;
    assert!(diff.contains("+good") && !diff.contains("+evil"), "{diff}");
    let rules: Vec<&str> =
        summary["refusals"].as_array().unwrap().iter().map(|one| one["rule"].as_str().unwrap()).collect();
    assert!(rules.contains(&"push-not-granted"), "{summary}");
    let record = last_audit(&world, "run.verified")[0].to_string();
    assert!(record.contains("parent"), "under a narrowed warrant: {record}");
}

#[test]
fn a_check_that_hangs_or_needs_the_network_fails_in_time() {
    let world = World::new();
    let path = repository(&world, "[verify]\ncommands = [\"sleep 60\"]\ntimeout = \"2s\"\n");
    let summary = world.run_script(&path, "echo hello >> README.md").expect(1).json();
    assert_eq!(summary["exit_reason"], "verify_failed", "{summary}");
    assert!(summary["error"].as_str().unwrap().contains("within 2 s"), "{summary}");
}

#[test]
fn the_runs_own_workspace_is_used_where_the_repository_says_so() {
    let world = World::new();
    let path = repository(&world, "[verify]\ncommands = [\"cat ignored\"]\nworkspace = \"run\"\n");
    let summary = world.run_script(&path, "echo hello >> README.md; echo built > ignored").expect(0).json();
    assert_eq!(summary["state"], "done", "{summary}");
}

#[test]
fn a_wrong_file_is_said_with_its_line_before_anything_runs() {
    let world = World::new();
    let path = repository(&world, "[verify]\ncomands = []\n");
    let error = world.run_script(&path, "touch ran").expect(1).json()["error"].to_string();
    assert!(error.contains("line 2") && error.contains("project-file"), "{error}");
    assert_eq!(world.tipstaff(&["runs", "list", "--json"]).expect(0).stdout, "", "no run began");
}

//! The first run: a command changes a real repository under a warrant.

use crate::world::World;
use serde_json::Value;

#[test]
fn a_command_changes_a_repository_under_a_warrant() {
    let world = World::new();
    let repository = world.repository("demo");
    let before = world.picture(&repository);
    let ended = world.tipstaff_in(
        &repository,
        &["run", "--repo", ".", "--json", "--", "sh", "-c", "echo hello >> README.md"],
    );
    let summary = ended.expect(0).json();
    assert_eq!(summary["state"], "done");
    assert_eq!(summary["exit_reason"], "completed");
    assert_eq!(summary["files_changed"], 1);
    assert_eq!(summary["additions"], 1);
    assert_eq!(summary["deletions"], 0);
    assert_eq!(summary["cost_micro_usd"], 0);
    assert_eq!(summary["refusals"], Value::Array(Vec::new()));
    let branch = summary["branch"].as_str().unwrap();
    assert!(branch.starts_with("agent/builder-task-"), "{branch}");
    assert_eq!(summary["commit"].as_str().unwrap().len(), 40);
    for key in ["run", "tokens", "duration_ms"] {
        assert!(!summary[key].is_null(), "{key}");
    }
    assert_eq!(world.picture(&repository), before, "the working tree and its refs are untouched");

    let diff = world.tipstaff_in(&repository, &["runs", "diff"]).expect(0).stdout;
    assert!(diff.contains("+hello") && diff.contains("README.md"), "{diff}");
    world.tipstaff_in(&repository, &["runs", "apply"]).expect(0);
    assert_eq!(std::fs::read_to_string(repository.join("README.md")).unwrap(), "# Demo\nhello\n");
    let merge = world.git(&repository, &["log", "-1", "--format=%P"]);
    assert_eq!(merge.split_whitespace().count(), 2, "applied with a merge commit");
    world.tipstaff(&["audit", "verify"]).expect(0);
    assert_eq!(std::fs::read_dir(world.home().join("runs")).unwrap().count(), 0, "no workspace is left");
}

#[test]
fn the_same_as_an_ordinary_user() {
    let world = World::ordinary();
    let repository = world.repository("demo");
    let before = world.picture(&repository);
    let summary = world.run_script(&repository, "echo hello >> README.md; id -u").expect(0).json();
    assert_eq!((&summary["state"], &summary["files_changed"]), (&"done".into(), &1.into()));
    assert_eq!(world.picture(&repository), before);
    world.tipstaff_in(&repository, &["runs", "apply", "--branch"]).expect(0);
    assert!(world.git(&repository, &["branch", "--list", "agent/*"]).contains("agent/builder-task-"));
    world.tipstaff(&["audit", "verify"]).expect(0);
    assert_eq!(std::fs::read_dir(world.home().join("runs")).unwrap().count(), 0);
}

#[test]
fn nothing_changed_is_done_without_a_branch() {
    let world = World::new();
    let repository = world.repository("demo");
    let summary = world.run_script(&repository, "cat README.md").expect(0).json();
    assert_eq!(summary["state"], "done");
    assert_eq!(summary["branch"], Value::Null);
    assert_eq!(summary["files_changed"], 0);
}

#[test]
fn a_failing_command_keeps_its_work() {
    let world = World::new();
    let repository = world.repository("demo");
    let summary = world.run_script(&repository, "echo half > half.txt; exit 7").expect(1).json();
    assert_eq!((&summary["state"], &summary["exit_reason"]), (&"failed".into(), &"command_failed".into()));
    assert_eq!(summary["exit_code"], 7);
    assert_eq!(summary["files_changed"], 1);
    let diff = world.tipstaff_in(&repository, &["runs", "diff", summary["run"].as_str().unwrap()]).expect(0);
    assert!(diff.stdout.contains("half.txt"));
}

#[test]
fn commits_of_the_command_itself_are_kept_as_they_are() {
    let world = World::new();
    let repository = world.repository("demo");
    let script = "echo a > a.txt && git add a.txt && git commit -q -m 'Add a' && echo b > b.txt";
    let summary = world.run_script(&repository, script).expect(0).json();
    assert_eq!(summary["files_changed"], 2);
    world.tipstaff_in(&repository, &["runs", "apply", "--branch", "taken"]).expect(0);
    let log = world.git(&repository, &["log", "--format=%s", "main..taken"]);
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(log.contains("Add a"));
}

#[test]
fn a_push_of_the_command_itself_reaches_quarantine_only() {
    let world = World::new();
    let repository = world.repository("demo");
    let before = world.picture(&repository);
    let script = "echo a > a.txt && git add a.txt && git commit -q -m 'Add a' \
                  && git push -q origin HEAD:$(git rev-parse --abbrev-ref HEAD) && ! git push -q origin HEAD:main";
    let summary = world.run_script(&repository, script).expect(0).json();
    assert_eq!(summary["state"], "done");
    assert_eq!(summary["files_changed"], 1);
    assert_eq!(summary["refusals"][0]["rule"], "ref-not-granted");
    assert_eq!(world.picture(&repository), before);
}

#[test]
fn a_dry_run_prints_warrant_and_rules_and_starts_nothing() {
    let world = World::new();
    let repository = world.repository("demo");
    let ended = world.tipstaff_in(
        &repository,
        &["run", "--dry-run", "--json", "--allow-host", "api.example.com", "--", "true"],
    );
    let plan = ended.expect(0).json();
    assert_eq!(plan["warrant"]["kind"], "build");
    assert_eq!(plan["warrant"]["egress"][0], "api.example.com:443");
    assert!(plan["sandbox"]["mounts"].as_array().unwrap().len() > 5);
    assert!(plan["broker"]["push"].as_str().unwrap().contains("agent/builder-task-"));
    let text = world.tipstaff_in(&repository, &["run", "--dry-run", "--", "true"]).expect(0).stdout;
    assert!(
        text.contains("warrant") && text.contains("/work") && text.contains("seccomp")
            || text.contains("system calls")
    );
    assert_eq!(world.tipstaff(&["runs", "list", "--json"]).expect(0).stdout.trim(), "", "no run was made");
}

#[test]
fn roles_decide_what_a_run_may_do() {
    let world = World::new();
    let repository = world.repository("demo");
    let role = |role: &str, script: &str| {
        world.tipstaff_in(&repository, &["run", "--json", "--role", role, "--", "sh", "-c", script])
    };
    // A reviewer executes, but nothing of it leaves.
    let review = role("reviewer", "echo x > x.txt && test -s x.txt").expect(0).json();
    assert_eq!((&review["state"], &review["branch"]), (&"done".into(), &Value::Null));
    // Roles without execution refuse a command before anything starts.
    for one in ["refiner", "manager"] {
        let refused = role(one, "true").expect(3);
        assert!(refused.stdout.contains("exec-not-granted"), "{refused:#?}");
    }
    // A gardener changes only the garden; a builder leaves workflows and infrastructure alone.
    let garden = role("gardener", "echo x >> README.md").expect(0).json();
    assert_eq!(garden["files_changed"], 1);
    let beyond = role("gardener", "echo x >> src/main.txt").expect(3).json();
    assert_eq!(beyond["refusals"][0]["rule"], "path-not-granted");
    let workflow = "mkdir -p .github/workflows && echo x > .github/workflows/ci.yml";
    let refused = role("builder", workflow).expect(3).json();
    assert_eq!((&refused["state"], &refused["exit_reason"]), (&"failed".into(), &"refused".into()));
    assert_eq!(refused["refusals"][0]["rule"], "path-protected");
    let terraform = "echo x > main.tf";
    assert_eq!(role("builder", terraform).expect(3).json()["refusals"][0]["rule"], "path-protected");
    assert_eq!(role("cloud-engineer", terraform).expect(0).json()["files_changed"], 1);
}

#[test]
fn live_output_is_plain_when_nobody_watches_and_harmless_always() {
    let world = World::new();
    let repository = world.repository("demo");
    let script = "printf 'plain\\n\\033]0;owned\\007\\033[2Jgone?\\n'; echo oops >&2";
    let ended = world.tipstaff_in(&repository, &["run", "--", "sh", "-c", script]).expect(0);
    assert!(ended.stdout.contains("plain\n") && ended.stdout.contains("gone?"), "{ended:#?}");
    assert!(
        ended.stderr.contains("oops") && ended.stderr.contains("running") && ended.stderr.contains("done")
    );
    assert!(!ended.stdout.contains('\u{1b}') && !ended.stdout.contains('\u{7}'));
    let logs = world.tipstaff_in(&repository, &["runs", "logs"]).expect(0).stdout;
    assert!(logs.contains("plain") && !logs.contains('\u{1b}'));
}

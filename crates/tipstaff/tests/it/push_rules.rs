//! What a push may hold: secrets, links, names and commits of others, through the real binary and the real sandbox.

use crate::world::World;
use serde_json::Value;
use std::path::Path;

/// Looks like a token of GitHub, and is none.
const TOKEN: &str = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";

/// The rules that refused something, in order.
fn rules(summary: &Value) -> Vec<&str> {
    let refusals = summary["refusals"].as_array().unwrap();
    refusals.iter().map(|refusal| refusal["rule"].as_str().unwrap()).collect()
}

/// A run that is refused by `rule`: exit code 3, the work kept as a patch, the refusal shown and audited.
fn refused(world: &World, repository: &Path, script: &str, rule: &str) -> Value {
    let summary = world.run_script(repository, script).expect(3).json();
    assert_eq!(summary["exit_reason"], "refused", "{summary}");
    assert!(rules(&summary).contains(&rule), "{rule}: {summary}");
    let error = summary["error"].as_str().unwrap();
    assert!(error.contains(rule) && error.contains("to go on:"), "{error}");
    let shown = world.tipstaff(&["runs", "show"]).expect(0).stdout;
    assert!(shown.contains(rule), "{shown}");
    let audit = world.tipstaff(&["audit", "list", "--json"]).expect(0).stdout;
    assert!(audit.contains(&format!("\"{rule}\"")), "{audit}");
    let diff = world.tipstaff_in(repository, &["runs", "diff"]).expect(0);
    assert!(diff.stderr.contains("refused") && diff.stdout.contains("+kept"), "the work is lost: {diff:#?}");
    summary
}

#[test]
fn a_secret_is_refused_by_path_line_and_kind_and_shown_nowhere() {
    let world = World::new();
    let repository = world.repository("demo");
    // Put together inside: the command line itself is the person's, and shown.
    let token = format!("T=$(printf '%s%s' {} {})", &TOKEN[..20], &TOKEN[20..]);
    let script = format!("{token}; echo kept >> README.md; printf 'a\\nkey = \"%s\"\\n' $T > config.txt");
    let summary = refused(&world, &repository, &script, "secret-in-diff");
    let why = summary["refusals"][0]["why"].as_str().unwrap();
    assert!(why.contains("config.txt, line 2") && why.contains("github-token"), "{why}");
    for arguments in [&["runs", "show"][..], &["runs", "logs"], &["audit", "export"], &["runs", "export"]] {
        let ended = world.tipstaff(arguments).expect(0);
        assert!(!ended.stdout.contains(&TOKEN[4..]), "{arguments:?}: {}", ended.stdout);
    }
    // The run itself may not say that it is a fixture; the base may.
    let claim =
        "mkdir -p tests/fixtures; printf '[push]\\nallow_secrets = [\"tests/**\"]\\n' > tipstaff.toml";
    let fixture = format!("echo kept >> README.md; {claim}; echo {TOKEN} > tests/fixtures/token.txt");
    let summary = world.run_script(&repository, &fixture).expect(3).json();
    assert!(!rules(&summary).is_empty(), "{summary}");
    // This time the person typed it. It is shown nowhere all the same.
    let shown = world.tipstaff(&["runs", "show"]).expect(0).stdout;
    assert!(!shown.contains(&TOKEN[4..]) && shown.contains("[redacted:github-token]"), "{shown}");
    world.write(&repository.join("tipstaff.toml"), "[push]\nallow_secrets = [\"tests/fixtures/**\"]\n");
    world.commit(&repository, "fixtures");
    let fixture = format!("mkdir -p tests/fixtures; echo {TOKEN} > tests/fixtures/token.txt");
    let summary = world.run_script(&repository, &fixture).expect(0).json();
    assert_eq!((&summary["state"], &summary["files_changed"]), (&"done".into(), &1.into()), "{summary}");
    let beside = format!("echo kept >> README.md; mkdir -p tests; echo {TOKEN} > tests/token.txt");
    refused(&world, &repository, &beside, "secret-in-diff");
}

#[test]
fn a_secret_that_the_run_took_back_leaves_only_the_result() {
    let world = World::new();
    let repository = world.repository("demo");
    let script = format!(
        "echo {TOKEN} > leak.txt; git add -A; git commit -qm leak; git rm -q leak.txt; echo good >> README.md; \
         git add -A; git commit -qm clean; git push origin HEAD 2>&1 | grep -c 'remote rejected.*secret-in-diff'"
    );
    let ended = world.run_script(&repository, &script).expect(0);
    let summary = ended.json();
    assert_eq!((&summary["state"], &summary["files_changed"]), (&"done".into(), &1.into()), "{ended:#?}");
    assert!(rules(&summary).contains(&"secret-in-diff"), "{summary}");
    world.tipstaff_in(&repository, &["runs", "apply"]).expect(0);
    let log = world.git(&repository, &["log", "--all", "-p", "--format=%an%n%B"]);
    assert!(log.contains("+good") && !log.contains(&TOKEN[4..]), "{log}");
}

#[test]
fn links_and_names_that_reach_out_are_refused() {
    let world = World::new();
    let repository = world.repository("demo");
    for (script, rule) in [
        ("ln -s /etc/passwd report.md", "symlink-escapes"),
        ("ln -s ../../outside src/out", "symlink-escapes"),
        ("ln -s .git/hooks hooks", "symlink-escapes"),
        ("echo x > 'a\\b'", "path-dangerous"),
        ("echo x > \"$(printf 'a\\nb')\"", "path-dangerous"),
        ("mkdir Sub sub; echo x > Sub/x; ln -s ../README.md sub/y", "path-dangerous"),
    ] {
        refused(&world, &repository, &format!("echo kept >> README.md; {script}"), rule);
    }
    // The next run of the same repository is not held up.
    world.run_script(&repository, "ln -s src/main.txt link").expect(0);
}

#[test]
fn nobody_commits_in_a_persons_name_and_the_work_is_kept() {
    let world = World::new();
    let repository = world.repository("demo");
    let script = "echo work >> README.md; git -c user.name=Linus -c user.email=torvalds@example.org commit -qam 'by Linus'; \
                  git push origin HEAD 2>&1 | grep -c 'remote rejected.*commit-identity'";
    let summary = world.run_script(&repository, script).expect(0).json();
    assert_eq!((&summary["state"], &summary["files_changed"]), (&"done".into(), &1.into()), "{summary}");
    assert!(rules(&summary).contains(&"commit-identity"), "{summary}");
    world.tipstaff_in(&repository, &["runs", "apply", "--branch", "result"]).expect(0);
    let log = world.git(&repository, &["log", "-1", "--format=%an <%ae> %cn <%ce>%n%B", "result"]);
    let own = "Tipstaff builder <builder@agents.tipstaff.invalid>";
    assert!(log.starts_with(&format!("{own} {own}")) && !log.contains("by Linus"), "{log}");
    assert!(log.contains("Tipstaff-Run:"), "{log}");
    // The run's own commits stay as they are.
    let script = "echo one >> README.md; git commit -qam one; echo two >> README.md; git commit -qam two";
    world.run_script(&repository, script).expect(0);
    world.tipstaff_in(&repository, &["runs", "apply", "--branch", "own"]).expect(0);
    let log = world.git(&repository, &["log", "--format=%an: %s", "main..own"]);
    assert_eq!(log, "Tipstaff builder: two\nTipstaff builder: one\n");
}

#[test]
fn a_repository_and_a_person_protect_paths_and_lockfiles() {
    let world = World::new();
    let repository = world.repository("demo");
    let text = "[push]\nprotect = [\"db/**\"]\nlockfiles = \"refuse\"\n";
    world.write(&repository.join("tipstaff.toml"), text);
    world.commit(&repository, "rules");
    for path in ["db/schema.sql", "DB/x.sql", "web/package-lock.json", "Cargo.lock"] {
        let script = format!("echo kept >> README.md; mkdir -p db DB web; echo x > {path}");
        refused(&world, &repository, &script, "path-protected");
    }
    let protect = ["run", "--json", "--protect", "src/**", "--protect", "*.cfg", "--"];
    let with = |script: &str| {
        let arguments = [&protect[..], &["sh", "-c", script]].concat();
        world.tipstaff_in(&repository, &arguments)
    };
    let summary = with("echo x >> src/main.txt").expect(3).json();
    assert_eq!(rules(&summary), ["path-protected"], "{summary}");
    with("echo x >> README.md").expect(0);
    let plan =
        world.tipstaff_in(&repository, &["run", "--dry-run", "--json", "--protect", "src/**", "--", "true"]);
    let plan = plan.expect(0).json();
    let protected = plan["warrant"]["paths"]["protected"].to_string();
    for pattern in ["src/**", "db/**", "**/Cargo.lock", "tipstaff.toml"] {
        assert!(protected.contains(pattern), "{pattern} in {protected}");
    }
    let bad = world.tipstaff_in(&repository, &["run", "--protect", "../x", "--", "true"]).expect(2);
    assert!(bad.stderr.contains("is not a path pattern"), "{}", bad.stderr);
}

#[test]
fn rules_that_are_no_rules_start_nothing() {
    let world = World::new();
    let repository = world.repository("demo");
    let file = repository.join("tipstaff.toml");
    for (text, part) in [
        ("[push]\nprotect = [\"/etc\"]\n".to_owned(), "line 2"),
        ("[push]\nallow_secrets = [\"**\"]\n".to_owned(), "every folder"),
        ("[push]\nallow = 1\n".to_owned(), "unknown field"),
        (format!("# {}\n", "x".repeat(300 * 1024)), "larger than 256 KiB"),
    ] {
        world.write(&file, &text);
        world.commit(&repository, "rules");
        let ended = world.run_script(&repository, "true").expect(1).json();
        let error = ended["error"].to_string();
        assert!(error.contains("project-file") && error.contains(part), "{error}");
    }
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
    world.commit(&repository, "link");
    let error = world.run_script(&repository, "true").expect(1).json()["error"].to_string();
    assert!(error.contains("no ordinary file"), "{error}");
    assert_eq!(world.tipstaff(&["runs", "list", "--json"]).expect(0).stdout, "", "nothing began");
}

#[test]
fn a_partial_clone_inside_fetches_what_it_lacks_and_nothing_of_others() {
    let world = World::new();
    let other = world.repository("other");
    world.write(&other.join("private.txt"), "of another repository\n");
    world.commit(&other, "private");
    world.run_script(&other, "true").expect(0);
    let foreign = world.git(&other, &["rev-parse", "HEAD:private.txt"]);
    let foreign_commit = world.git(&other, &["rev-parse", "HEAD"]);
    let repository = world.repository("demo");
    world.git(&repository, &["checkout", "-q", "-b", "hidden"]);
    world.write(&repository.join("hidden.txt"), "on a branch that is not granted\n");
    world.commit(&repository, "hidden");
    let hidden = world.git(&repository, &["rev-parse", "HEAD"]);
    world.run_script(&repository, "true").expect(0);
    world.git(&repository, &["checkout", "-q", "main"]);
    let script = format!(
        "set -e; url=$(git remote get-url origin); cd /tmp; for v in 0 2; do \
         git -c protocol.version=$v clone -q --filter=blob:none --no-checkout $url partial$v; \
         git -C partial$v -c protocol.version=$v checkout -q main; test -s partial$v/src/main.txt; \
         git -c protocol.version=$v clone -q --depth=1 $url shallow$v; \
         for id in {} {} {} $(printf '1%.0s' $(seq 40)); do \
         if git -C partial$v -c protocol.version=$v fetch -q origin $id 2>/dev/null; then exit 9; fi; \
         if git -C partial$v -c protocol.version=$v cat-file -e $id 2>/dev/null; then exit 9; fi; done; done; echo all fine",
        foreign.trim(),
        foreign_commit.trim(),
        hidden.trim(),
    );
    let summary = world.run_script(&repository, &script).expect(0).json();
    assert!(rules(&summary).contains(&"ref-not-granted"), "{summary}");
    let logs = world.tipstaff(&["runs", "logs"]).expect(0).stdout;
    assert!(logs.contains("all fine"), "{logs}");
}

//! Policies: set, explained, tried out on past runs, and what of them is a wall.

use crate::bad_agents::{CLAUDE, Scene};
use crate::world::World;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn file(world: &World, name: &str, text: &str) -> String {
    let path: PathBuf = world.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const ORG: &str = "[policy]\ndefault = \"ask\"\n\n\
    [[policy.rules]]\ndecision = \"deny\"\ncommands = [\"git push *\"]\nreason = \"no pushes by hand\"\n\n\
    [[policy.rules]]\ndecision = \"allow\"\ncommands = [\"git *\", \"make *\"]\n\n\
    [[policy.rules]]\ndecision = \"deny\"\npaths = [\"infra/**\"]\nkinds = [\"edit\"]\nreason = \"production\"\n";

#[test]
fn a_policy_is_set_shown_and_taken_away_and_one_with_a_mistake_changes_nothing() {
    let world = World::new();
    let org = file(&world, "org.toml", ORG);
    assert!(world.tipstaff(&["policy", "show"]).expect(0).stderr.contains("neither"));
    let set = world.tipstaff(&["policy", "set", "--org", &org]).expect(0);
    assert!(set.stdout.contains("3 rules"), "{set:#?}");
    for (text, part) in [
        ("[policy]\n[[policy.rules]]\ndecision = \"never\"\n", "line 3"),
        ("[policy]\n[[policy.rule]]\n", "unknown field"),
        ("[[policy.rules]]\ndecision = \"deny\"\ncommands = [\"a\"]\nhosts = [\"a.example\"]\n", "rule 1"),
        ("[verify]\n", "unknown field"),
        ("", "missing field"),
    ] {
        let wrong = file(&world, "wrong.toml", text);
        let ended = world.tipstaff(&["policy", "set", "--org", &wrong]).expect(2);
        assert!(ended.stderr.contains("policy-invalid") && ended.stderr.contains(part), "{text}: {ended:#?}");
    }
    let shown = world.tipstaff(&["policy", "show"]).expect(0).stdout;
    assert!(shown.contains("no pushes by hand") && shown.contains("the org, set by member:"), "{shown}");
    let unknown = world.tipstaff(&["policy", "set", "--project", "site", &org]).expect(2);
    assert!(unknown.stderr.contains("project-unknown"), "{unknown:#?}");
    world.tipstaff(&["projects", "add", "site"]).expect(0);
    world.tipstaff(&["policy", "set", "--project", "site", &org]).expect(0);
    let shown: Value = world.tipstaff(&["policy", "show", "--json"]).expect(0).json();
    assert_eq!(shown["policies"].as_array().unwrap().len(), 2, "{shown}");
    let audit = world.tipstaff(&["audit", "list", "--json"]).expect(0).stdout;
    assert!(audit.contains("policy.set") && audit.contains("policy:project/site"), "{audit}");
    world.tipstaff(&["policy", "unset", "--project", "site"]).expect(0);
    world.tipstaff(&["policy", "unset", "--project", "site"]).expect(2);
    world.tipstaff(&["audit", "verify"]).expect(0);

    let page = world.tipstaff(&["policy", "check"]).expect(0).stdout;
    insta::assert_snapshot!(page, @r"
    policy of the org
        1  denies the command git push *: no pushes by hand
        2  lets through the command git * or make *
        3  denies changes to infra/**: production
           enforced: a push that changes them is refused
           what no rule names is asked about
    ");
    let odd = file(
        &world,
        "odd.toml",
        "[policy]\n[[policy.rules]]\ndecision = \"allow\"\ncommands = [\"a && b\"]\n",
    );
    let told = world.tipstaff(&["policy", "check", &odd, "--strict"]).expect(3).stdout;
    assert!(told.contains("odd:") && told.contains("mark of the shell"), "{told}");
}

#[test]
fn one_action_is_judged_and_files_of_cases_are_compared() {
    let world = World::new();
    let org = file(&world, "org.toml", ORG);
    world.tipstaff(&["policy", "set", "--org", &org]).expect(0);
    for (arguments, code) in [
        (&["--command", "git status && make test"][..], 0),
        (&["--command", "git status; curl https://a.example"], 6),
        (&["--command", "git -C /x push -f"], 3),
        (&["--command", "$GIT status"], 6),
        (&["--tool", "Write", "--path", "infra/main.tf"], 3),
        (&["--tool", "Read", "--path", "infra/main.tf"], 6),
    ] {
        world.tipstaff(&[&["policy", "judge"][..], arguments].concat()).expect(code);
    }
    let told = world.tipstaff(&["policy", "judge", "--command", "git push --force"]).expect(3).stdout;
    insta::assert_snapshot!(told, @r"
    deny
         the org, rule 1: no pushes by hand
    risk critical
         it overwrites what others may have: git push --force
    ");
    let candidate = file(&world, "more.toml", "[policy]\ndefault = \"deny\"\n");
    world.tipstaff(&["policy", "judge", "--command", "make", "--policy", &candidate]).expect(3);
    // A candidate that lets everything through weakens nothing.
    let lenient = file(&world, "lenient.toml", "[policy]\ndefault = \"allow\"\n");
    world.tipstaff(&["policy", "judge", "--command", "git push", "--policy", &lenient]).expect(3);

    let good = "policy = \"org.toml\"\n[[test]]\ncommand = \"git push\"\nexpect = \"deny\"\n\
        [[test]]\ntool = \"Edit\"\npath = [\"src/a\", \"infra/b\"]\nexpect = \"deny\"\n";
    let cases = file(&world, "tests.toml", good);
    assert!(world.tipstaff(&["policy", "test", &cases]).expect(0).stdout.contains("2 cases as expected"));
    let bad =
        format!("{good}[[test]]\ncommand = \"git log\"\nexpect = \"ask\"\nnote = \"logs are looked at\"\n");
    let cases = file(&world, "tests.toml", &bad);
    let told = world.tipstaff(&["policy", "test", &cases]).expect(1).stdout;
    insta::assert_snapshot!(told, @r"
    test 3: git log as builder
        logs are looked at
      - ask
      + allow
    1 of 3 came out differently (- expected, + found)
    ");
    let told = world.tipstaff(&["policy", "test", &cases, "--json"]).expect(1).json();
    assert_eq!(told["failed"], 1, "{told}");
    for wrong in ["", "[[test]]\nexpect = \"maybe\"\n", "[[test]]\ncommand = \"x\"\n", "[[case]]\n"] {
        let cases = file(&world, "tests.toml", wrong);
        assert!(
            world.tipstaff(&["policy", "test", &cases]).expect(2).stderr.contains("policy-tests"),
            "{wrong}"
        );
    }
}

/// Runs a script with options; the summary.
fn run(world: &World, repository: &Path, options: &[&str], script: &str, code: i32) -> Value {
    let repo = repository.to_str().unwrap();
    let head = ["run", "--json", "--timeout", "60s", "--repo", repo];
    world.tipstaff(&[&head[..], options, &["--", "sh", "-c", script]].concat()).expect(code).json()
}

fn refused_path(summary: &Value, path: &str) -> bool {
    summary["refusals"]
        .as_array()
        .unwrap()
        .iter()
        .any(|one| one["rule"] == "path-protected" && one["wanted"] == path)
}

#[test]
fn a_denied_path_is_not_pushed_whatever_a_run_does_and_its_own_branch_decides_nothing() {
    let world = World::new();
    let repository = world.repository("demo");
    let own = "[policy]\n[[policy.rules]]\ndecision = \"deny\"\npaths = [\"lib/**\"]\n\n\
        [[policy.rules]]\ndecision = \"allow\"\npaths = [\"infra2/**\"]\n";
    world.write(&repository.join("tipstaff.toml"), own);
    world.commit(&repository, "policy");
    let org = ORG.replace("infra/**", "infra2/**");
    let org = file(&world, "org.toml", &org);
    world.tipstaff(&["policy", "set", "--org", &org]).expect(0);

    let touch = |path: &str| format!("mkdir -p $(dirname {path}); echo kept > {path}");
    // By the org, although the repository lets it through.
    let summary = run(&world, &repository, &[], &touch("infra2/a.tf"), 3);
    assert!(refused_path(&summary, "infra2/a.tf"), "{summary}");
    // By the repository, whatever becomes of its settings in the run's branch.
    let script = format!("rm tipstaff.toml; git rm -q --cached tipstaff.toml; {}", touch("lib/a"));
    let summary = run(&world, &repository, &[], &script, 3);
    assert!(refused_path(&summary, "lib/a"), "{summary}");
    // By an option.
    let summary = run(&world, &repository, &["--deny", "path:docs/**"], &touch("docs/a"), 3);
    assert!(refused_path(&summary, "docs/a"), "{summary}");
    // Asking is no wall, and what no rule denies is pushed.
    let summary = run(&world, &repository, &["--ask", "path:docs/**"], &touch("docs/a"), 0);
    assert_eq!(summary["state"], "done", "{summary}");
    let explained =
        world.tipstaff_in(&repository, &["policy", "explain", "--role", "builder"]).expect(0).stdout;
    assert!(explained.contains("policy of the org, rule 3: production"), "{explained}");
    let can = ["policy", "explain", "--role", "builder", "--can", "write infra2/x"];
    let told = world.tipstaff_in(&repository, &can).expect(3).stdout;
    assert!(told.contains("policy of the org, rule 3"), "{told}");
    let audit = world.tipstaff(&["audit", "list", "--json"]).expect(0).stdout;
    assert!(audit.contains("\"policies\""), "{audit}");
}

#[test]
fn a_denied_host_is_not_granted_by_name_by_pattern_or_by_class() {
    let world = World::new();
    let repository = world.repository("demo");
    let repo = repository.to_str().unwrap();
    let deny = "[policy]\n[[policy.rules]]\ndecision = \"deny\"\nhosts = [\"pastebin.example\", \"registry.npmjs.org\"]\n";
    let org = file(&world, "org.toml", deny);
    world.tipstaff(&["policy", "set", "--org", &org]).expect(0);
    let dry = |options: &[&str], code| {
        let head = ["run", "--dry-run", "--json", "--repo", repo];
        world.tipstaff(&[&head[..], options, &["--", "true"]].concat()).expect(code)
    };
    for host in ["pastebin.example", "pastebin.example:8443", "registry.npmjs.org"] {
        let ended = dry(&["--allow-host", host], 3);
        assert!(
            ended.stdout.contains("policy-denied") && ended.stdout.contains("the org, rule 1"),
            "{ended:#?}"
        );
    }
    let ended = dry(&["--allow-host", "*.npmjs.org"], 3);
    assert!(ended.stdout.contains("no exceptions"), "{ended:#?}");
    let ended = dry(&["--allow-host", "a.example", "--deny", "host:a.example"], 3);
    assert!(ended.stdout.contains("the run, rule 1"), "{ended:#?}");
    let granted = dry(&["--allow-host", "registry:npm", "--allow-host", "b.example"], 0).json();
    let egress = granted["warrant"]["egress"].to_string();
    assert!(egress.contains("b.example") && !egress.contains("npmjs"), "{egress}");
    let explained =
        world.tipstaff_in(&repository, &["policy", "explain", "--role", "builder"]).expect(0).stdout;
    assert!(explained.contains("pastebin.example:443"), "{explained}");
    // Nothing was begun, and a policy that stops making sense stops runs.
    assert!(world.tipstaff(&["runs", "list", "--json"]).expect(0).stdout.is_empty());
}

#[test]
fn options_of_a_run_that_are_no_rules_are_refused() {
    let world = World::new();
    let repository = world.repository("demo");
    let repo = repository.to_str().unwrap();
    for bad in ["git push", "tool:", "path:/etc", "host:localhost", "kind:dig", "risk:none", "x:y"] {
        world.tipstaff(&["run", "--repo", repo, "--deny", bad, "--", "true"]).expect(2);
    }
    let missing =
        world.tipstaff(&["run", "--repo", repo, "--policy", "/nowhere.toml", "--", "true"]).expect(2);
    assert!(missing.stderr.contains("policy-file"), "{missing:#?}");
}

/// An agent that calls these tools, one line each.
fn agent() -> String {
    let calls = [
        ("Bash", r#"{"command":"git status && make test"}"#),
        ("Bash", r#"{"command":"make test && git push -f"}"#),
        ("Edit", r#"{"file_path":"/work/infra/main.tf","old_string":"a","new_string":"b"}"#),
        ("Edit", r#"{"file_path":"/work/src/a.rs","old_string":"a","new_string":"b"}"#),
        ("WebFetch", r#"{"url":"https://docs.example/x","prompt":"p"}"#),
        ("mcp__forge__merge", r#"{"number":7}"#),
    ];
    let mut text = String::from(
        "cat >/dev/null\ncat <<'END'\n{\"type\":\"system\",\"subtype\":\"init\",\"session_id\":\"s\",\"model\":\"m\"}\n",
    );
    for (number, (name, input)) in calls.iter().enumerate() {
        text.push_str(&format!(
            "{{\"type\":\"assistant\",\"message\":{{\"id\":\"m{number}\",\"content\":[{{\"type\":\"tool_use\",\"id\":\"t{number}\",\"name\":\"{name}\",\"input\":{input}}}]}}}}\n"
        ));
    }
    text.push_str("{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"done\",\"num_turns\":1}\nEND\n");
    text
}

#[test]
fn past_runs_are_judged_again_and_those_that_were_not_kept_are_unknown() {
    let scene = Scene::new("claude", CLAUDE, &agent());
    let world = &scene.world;
    scene.run("claude-code", &[]);
    world.run_script(&scene.repository, "echo x >> README.md").expect(0);
    let silent = Scene::new("claude", CLAUDE, "cat >/dev/null; exit 0");
    silent.run("claude-code", &[]).expect(1);

    let candidate = file(world, "candidate.toml", ORG);
    let simulate = |world: &World, options: &[&str]| {
        let told =
            world.tipstaff(&[&["policy", "simulate", "--since", "1d"][..], options].concat()).expect(0);
        let mut text = told.stdout;
        let runs = world.tipstaff(&["runs", "list", "--json"]).expect(0).stdout;
        for (number, line) in runs.lines().rev().enumerate() {
            let run: Value = serde_json::from_str(line).unwrap();
            let id = run["run"].as_str().or(run["id"].as_str()).unwrap().replace('-', "");
            text = text.replace(&id[id.len() - 8..], &format!("run-000{}", number + 1));
        }
        text
    };
    insta::assert_snapshot!(simulate(world, &["--policy", &candidate]), @r"
    RUN       AGENT        ACTIONS  NOW    THEN
    run-0001  claude-code  6        6/0/0  1/3/2
    run-0002  command      0        0/0/0  0/0/0
    all                    6        6/0/0  1/3/2
    let through / asked / denied

    Would come out differently
      run-0001  allow -> deny  Bash: make test && git push -f
                the candidate, rule 1: no pushes by hand
      run-0001  allow -> deny  Edit: /work/infra/main.tf
                the candidate, rule 3: production
      run-0001  allow -> ask  Edit: /work/src/a.rs
                the candidate: what no rule names
      run-0001  allow -> ask  WebFetch: https://docs.example/x
                the candidate: what no rule names
      run-0001  allow -> ask  mcp__forge__merge: mcp__forge__merge
                the candidate: what no rule names

    Rules that ask or deny
          1  the candidate, rule 1: no pushes by hand
          1  the candidate, rule 3: production
          3  the candidate: what no rule names
    ");
    // Nothing is in force, so nothing would have been asked.
    insta::assert_snapshot!(simulate(world, &[]), @r"
    RUN       AGENT        ACTIONS  NOW
    run-0001  claude-code  6        6/0/0
    run-0002  command      0        0/0/0
    all                    6        6/0/0
    let through / asked / denied
    ");
    world.tipstaff(&["policy", "set", "--org", &candidate]).expect(0);
    let lenient = file(world, "lenient.toml", "[policy]\ndefault = \"allow\"\n");
    let lenient_told =
        world.tipstaff(&["policy", "simulate", "--json", "--policy", &lenient]).expect(0).json();
    assert_eq!(lenient_told["now"], lenient_told["then"], "a layer more weakens nothing: {lenient_told}");
    let replaced = ["policy", "simulate", "--json", "--policy", &lenient, "--replace-org"];
    let replaced = world.tipstaff(&replaced).expect(0).json();
    assert_eq!(replaced["then"]["denied"], 0, "{replaced}");
    assert_eq!(replaced["runs"][0]["changed"].as_array().unwrap().len(), 5, "{replaced}");

    let repo = silent.repository.to_str().unwrap();
    silent.world.tipstaff(&["run", "--privacy", "meta", "--repo", repo, "--", "true"]).expect(0);
    let candidate = file(&silent.world, "candidate.toml", ORG);
    let told =
        silent.world.tipstaff(&["policy", "simulate", "--json", "--policy", &candidate]).expect(0).json();
    assert_eq!((&told["unknown"], &told["runs"][0]["known"]), (&2.into(), &false.into()), "{told}");
}

//! Privacy classes: what is kept of a session, looked for in every file of the state folder.

use crate::world::{Ended, World};
use std::path::{Path, PathBuf};

/// What a run says and is told, in all its ways out.
const MARKER: &str = "xyzzymarker";

/// Prints, asks for a host, changes files, fails a push, and says it in an agent's words.
const SCRIPT: &str = "echo xyzzymarker-out; echo xyzzymarker-err >&2; curl -s -m 5 https://xyzzymarker.example/; \
    git push origin HEAD:refs/heads/xyzzymarker; echo work >work.txt";

/// Files of the state folder that hold the marker. Repositories are the person's own work and are left out.
fn holding(world: &World) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![world.home()];
    while let Some(path) = waiting.pop() {
        let name = path.strip_prefix(world.home()).unwrap_or(Path::new(""));
        if ["mirrors", "checkouts", "results"].iter().any(|skipped| name.starts_with(skipped)) {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            waiting.extend(std::fs::read_dir(&path).unwrap().flatten().map(|entry| entry.path()));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes())
        {
            found.push(path);
        }
    }
    found
}

fn run_in(world: &World, repository: &Path, options: &[&str]) -> Ended {
    // With a granted host there is a way to ask for others.
    let mut args = vec!["run", "--json", "--timeout", "60s", "--allow-host", "granted.example"];
    args.extend(options);
    args.extend(["--", "sh", "-c", SCRIPT]);
    world.tipstaff_in(repository, &args)
}

fn checked(world: &World) -> PathBuf {
    let repository = world.repository("demo");
    let toml = "[verify]\ncommands = [\"echo xyzzymarker-verify; test -f work.txt\"]\n";
    world.write(&repository.join("tipstaff.toml"), toml);
    world.write(&repository.join(".tipstaff/setup"), "#!/bin/sh\necho xyzzymarker-setup\n");
    world.git(&repository, &["add", "-A"]);
    world.git(&repository, &["update-index", "--chmod=+x", ".tipstaff/setup"]);
    world.git(&repository, &["commit", "-q", "-m", "checks"]);
    repository
}

#[test]
fn a_run_of_the_class_meta_leaves_no_text() {
    let world = World::new();
    let repository = checked(&world);
    let ended = run_in(&world, &repository, &["--privacy", "meta"]).expect(0);
    assert!(ended.stderr.contains("privacy meta: state, counts and sizes are kept, no text"), "{ended:#?}");
    assert!(ended.stderr.contains("xyzzymarker-out"), "the person who watches sees it: {ended:#?}");
    let summary = ended.json();
    assert_eq!(
        (summary["privacy"].as_str(), summary["state"].as_str()),
        (Some("meta"), Some("done")),
        "{summary}"
    );
    assert_eq!(summary["files_changed"], 1);
    assert_eq!(summary["setup"]["outcome"], "done");
    let rules: Vec<&str> =
        summary["refusals"].as_array().unwrap().iter().map(|one| one["rule"].as_str().unwrap()).collect();
    assert!(rules.len() >= 2, "{rules:?}");
    assert!(summary["refusals"][0]["wanted"].as_str().unwrap().starts_with("digest:"), "{summary}");
    assert_eq!(holding(&world), Vec::<PathBuf>::new());
    // A failure is said and not kept.
    let args = ["run", "--json", "--privacy", "meta", "--", "sh", "-c", "echo xyzzymarker; exit 3"];
    let failed = world.tipstaff_in(&repository, &args).expect(1);
    assert_eq!(failed.json()["exit_reason"], "command_failed");
    assert_eq!(holding(&world), Vec::<PathBuf>::new());
    for args in [
        &["runs", "show"][..],
        &["runs", "show", "--json"],
        &["runs", "show", "--transcript", "--json"],
        &["runs", "logs"],
        &["runs", "export"],
        &["runs", "list", "--json"],
        &["audit", "list", "--json"],
        &["secrets", "list", "--json"],
    ] {
        let shown = world.tipstaff_in(&repository, args).expect(0);
        assert!(!format!("{shown:?}").contains(MARKER), "{args:?}: {shown:#?}");
    }
    let shown = world.tipstaff_in(&repository, &["runs", "show"]).expect(0).stdout;
    assert!(shown.contains("privacy") && shown.contains("meta: state, counts"), "{shown}");
    let events = world.tipstaff_in(&repository, &["runs", "export"]).expect(0).stdout;
    assert!(events.contains("\"bytes\":"), "sizes are kept: {events}");
    world.tipstaff_in(&repository, &["audit", "verify"]).expect(0);
    // What the person takes in is whole, and its message is not the command.
    let first = summary["run"].as_str().unwrap();
    world.tipstaff_in(&repository, &["runs", "apply", first]).expect(0);
    assert_eq!(std::fs::read_to_string(repository.join("work.txt")).unwrap(), "work\n");
    assert!(!world.git(&repository, &["log", "--format=%B", "-3"]).contains(MARKER));
    assert_eq!(holding(&world), Vec::<PathBuf>::new());
}

#[test]
fn the_same_run_of_the_class_org_is_kept_so_the_test_can_fail() {
    let world = World::new();
    let repository = checked(&world);
    let ended = run_in(&world, &repository, &[]).expect(0);
    assert!(ended.stderr.contains("privacy org: "), "{ended:#?}");
    assert_eq!(ended.json()["privacy"], "org");
    assert!(!holding(&world).is_empty());
    let listed = world.tipstaff_in(&repository, &["runs", "list", "--json"]).expect(0).json();
    assert_eq!(listed["privacy"], "org", "{listed}");
}

#[test]
fn a_queued_task_of_the_class_meta_is_sealed_until_its_end() {
    let world = World::new();
    let repository = checked(&world);
    let queue = |script: &str| {
        let args = ["run", "--queue", "--json", "--privacy", "meta", "--", "sh", "-c", script];
        world.tipstaff_in(&repository, &args).expect(0).json()
    };
    queue(SCRIPT);
    assert_eq!(holding(&world), Vec::<PathBuf>::new(), "it is sealed");
    let listed = world.tipstaff_in(&repository, &["secrets", "list", "--json"]).expect(0);
    assert!(!listed.stdout.contains("tipstaff.task"), "{listed:#?}");
    let worked = world.tipstaff_in(&repository, &["worker", "--once"]).expect(0);
    let last = world.tipstaff_in(&repository, &["runs", "list", "--json"]).expect(0).json();
    assert_eq!(
        (last["state"].as_str(), last["files_changed"].as_u64()),
        (Some("done"), Some(1)),
        "{worked:#?} {last}"
    );
    assert_eq!(holding(&world), Vec::<PathBuf>::new());
    // Nothing sealed is left, of a cancelled one neither.
    let task = queue(SCRIPT);
    world.tipstaff_in(&repository, &["runs", "cancel", task["task"].as_str().unwrap()]).expect(0);
    world.tipstaff_in(&repository, &["worker", "--once"]).expect(0);
    let rotated = world.tipstaff_in(&repository, &["keys", "list", "--json"]).expect(0);
    assert!(!rotated.stdout.is_empty());
    let error = world.tipstaff_in(&repository, &["secrets", "set", "tipstaff.task.x"]).expect(2);
    assert!(error.stderr.contains("can't name a secret"), "{error:#?}");
}

#[test]
fn sealed_is_refused_until_there_is_pairing_and_the_operator_can_choose() {
    let world = World::new();
    let repository = world.repository("demo");
    let ended =
        world.tipstaff_in(&repository, &["run", "--json", "--privacy", "sealed", "--", "true"]).expect(3);
    assert!(
        ended.stdout.contains("privacy-sealed-unavailable") && ended.stdout.contains("paired devices"),
        "{ended:#?}"
    );
    assert!(
        world.tipstaff_in(&repository, &["runs", "list", "--json"]).expect(0).stdout.is_empty(),
        "nothing was stored"
    );
    let ended = world.tipstaff_in(&repository, &["run", "--privacy", "secret", "--", "true"]).expect(2);
    assert!(ended.stderr.contains("meta"), "{ended:#?}");
    world.write(&world.home().join("config.toml"), "[run]\nprivacy = \"meta\"\n");
    let ended = world.tipstaff_in(&repository, &["run", "--json", "--", "echo", "xyzzymarker"]).expect(0);
    assert_eq!(ended.json()["privacy"], "meta");
    assert_eq!(holding(&world), Vec::<PathBuf>::new());
    let ended = world
        .tipstaff_in(&repository, &["run", "--json", "--privacy", "org", "--", "echo", "xyzzymarker"])
        .expect(0);
    assert_eq!(ended.json()["privacy"], "org");
    assert!(!holding(&world).is_empty());
}

/// Lets every run have ended so many days earlier.
fn age(world: &World, days: u32) {
    let mut command = world.command("python3");
    let script = "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1])\n\
        c.execute('update run set ended_at = ended_at - ?', (int(sys.argv[2])*86400000,))\n\
        c.execute('delete from retention_sweep')\nc.commit()\nc.close()";
    command.args(["-c", script]).arg(world.home().join("tipstaff.db")).arg(days.to_string());
    crate::world::run(command).expect(0);
}

#[test]
fn what_is_kept_too_long_is_shown_and_then_erased() {
    let world = World::new();
    let repository = checked(&world);
    // What is refused stays in the audit log, which no sweep touches.
    let said = |text: &str| {
        let script = format!("echo {MARKER}-{text}; echo {text} >work.txt");
        let args = ["run", "--json", "--", "sh", "-c", &script];
        world.tipstaff_in(&repository, &args).expect(0)
    };
    let first = said("one").json();
    let id = first["run"].as_str().unwrap().to_owned();
    let result = world.home().join("results").join(format!("{id}.git"));
    assert!(result.is_dir() && !holding(&world).is_empty());
    let sweep = |args: &[&str]| {
        let args = [&["retention", "sweep", "--json"][..], args].concat();
        world.tipstaff_in(&repository, &args).expect(0).json()
    };
    // Nothing goes before somebody says so.
    age(&world, 100);
    assert_eq!(sweep(&[])["runs"].as_array().unwrap().len(), 0);
    let shown = world.tipstaff(&["retention", "show"]).expect(0).stdout;
    assert!(shown.contains("org   for ever"), "{shown}");
    world.tipstaff(&["retention", "set", "meta", "1d"]).expect(0);
    assert_eq!(sweep(&[])["runs"].as_array().unwrap().len(), 0, "it is of another class");
    world.tipstaff(&["retention", "set", "org", "101d"]).expect(0);
    assert_eq!(sweep(&[])["runs"].as_array().unwrap().len(), 0, "its time is not over");
    world.tipstaff(&["retention", "set", "org", "90d"]).expect(0);
    let preview = sweep(&["--dry-run"]);
    assert_eq!(
        (preview["erased"].as_bool(), preview["runs"][0]["undecided"].as_bool()),
        (Some(false), Some(true))
    );
    assert!(result.is_dir() && !holding(&world).is_empty(), "a preview erases nothing");
    let text = world.tipstaff(&["retention", "sweep", "--dry-run"]).expect(0).stdout;
    assert!(
        text.contains("neither applied nor discarded") && text.contains("1 run would be swept"),
        "{text}"
    );
    let swept = sweep(&[]);
    assert_eq!(swept["runs"][0]["run"], id.as_str(), "{swept}");
    assert!(!result.exists());
    assert_eq!(holding(&world), Vec::<PathBuf>::new());
    assert_eq!(sweep(&[])["runs"].as_array().unwrap().len(), 0, "once");
    let audited = world.tipstaff(&["audit", "list", "--json"]).expect(0).stdout;
    assert!(audited.contains("run.swept") && audited.contains("retention.set"), "{audited}");
    world.tipstaff(&["audit", "verify"]).expect(0);
    let listed = world.tipstaff(&["runs", "list", "--json"]).expect(0).json();
    assert_eq!(
        (listed["run"].as_str(), listed["files_changed"].as_u64()),
        (Some(id.as_str()), Some(1)),
        "counts stay"
    );
    world.tipstaff(&["runs", "show", &id]).expect(0);
    world.tipstaff(&["runs", "show", "--transcript", &id]).expect(0);
    for asked in ["diff", "apply", "publish"] {
        let error = world.tipstaff_in(&repository, &["runs", asked, &id, "--json"]).expect(2).json();
        assert_eq!(error["error"]["code"], "run-erased", "{asked}: {error}");
        assert!(error["error"]["message"].as_str().unwrap().contains("begin a new run"), "{error}");
    }
    // Beside other work, once a day.
    said("two");
    age(&world, 200);
    assert!(!holding(&world).is_empty());
    world.tipstaff_in(&repository, &["run", "--privacy", "meta", "--", "true"]).expect(0);
    assert_eq!(holding(&world), Vec::<PathBuf>::new());
    let wrong = world.tipstaff(&["retention", "set", "org", "soon"]).expect(2);
    assert!(wrong.stderr.contains("forever"), "{wrong:#?}");
    world.tipstaff(&["retention", "set", "sealed", "1d"]).expect(2);
    world.tipstaff(&["retention", "set", "org", "forever", "--json"]).expect(0);
}

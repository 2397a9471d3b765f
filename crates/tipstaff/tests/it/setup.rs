//! The set-up of a repository, as a person sees it: done before the command, taken from the cache the next time, no part of
//! the change; and what a hostile one, or a hostile agent, makes of it.

use crate::world::{Ended, World, run, wait};
use serde_json::Value;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tipstaff_testkit::TlsServer;

struct Scene {
    world: World,
    repository: PathBuf,
}

/// Installs something that the repository ignores and something that it doesn't, and changes a tracked file.
const SCRIPT: &str = "#!/bin/sh\nset -e\necho INSTALLING\nmkdir -p node_modules/dep packages/a/node_modules\n\
    echo good >node_modules/dep/index\necho sub >packages/a/node_modules/x\necho made >generated.txt\n\
    echo 'changed by set-up' >>README.md\n";

impl Scene {
    fn of(world: World, script: &str, table: &str) -> Self {
        let repository = world.repository("demo");
        world.write(&repository.join(".gitignore"), "node_modules/\n");
        world.write(&repository.join("package-lock.json"), "{\"v\":1}\n");
        if !table.is_empty() {
            world.write(&repository.join("tipstaff.toml"), table);
        }
        let scene = Self { world, repository };
        scene.script(script);
        scene
    }

    fn new(script: &str, table: &str) -> Self {
        Self::of(World::new(), script, table)
    }

    fn script(&self, script: &str) {
        let path = self.repository.join(".tipstaff/setup");
        self.world.write(&path, script);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.world.commit(&self.repository, "set-up");
    }

    fn run(&self, options: &[&str], script: &str) -> Ended {
        let mut args = vec!["run", "--json", "--timeout", "120s"];
        args.extend(options);
        args.extend(["--", "sh", "-c", script]);
        self.world.tipstaff_in(&self.repository, &args)
    }

    fn tipstaff(&self, args: &[&str]) -> Ended {
        self.world.tipstaff_in(&self.repository, args)
    }

    fn kept(&self) -> Vec<Value> {
        let listed = self.tipstaff(&["setup", "list", "--json"]).expect(0).stdout;
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Where what set-ups made lies.
    fn cache(&self) -> PathBuf {
        let mut orgs = std::fs::read_dir(self.world.home().join("setups")).unwrap();
        orgs.next().unwrap().unwrap().path()
    }

    fn actions(&self) -> Vec<String> {
        let listed = self.tipstaff(&["audit", "list", "--json", "--limit", "1000"]).expect(0).stdout;
        let records = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.map(|record| record["action"].as_str().unwrap().to_owned()).collect()
    }
}

fn outcome(ended: &Ended) -> String {
    ended.json()["setup"]["outcome"].as_str().unwrap_or("none").to_owned()
}

const WORK: &str = "cat node_modules/dep/index packages/a/node_modules/x generated.txt; grep -c 'changed by' README.md; \
    git status --porcelain; echo work >work.txt";

#[test]
fn it_is_done_once_and_is_no_part_of_the_change() {
    for (world, layers) in [(World::new(), true), (World::new(), false), (World::ordinary(), true)] {
        if !layers {
            world.write(&world.home().join("config.toml"), "[run]\nlayers = false\n");
        }
        let scene = Scene::of(world, SCRIPT, "");
        let before = scene.world.picture(&scene.repository);
        let first = scene.run(&[], WORK).expect(0);
        assert_eq!(outcome(&first), "done", "{first:#?}");
        assert!(first.stderr.contains("INSTALLING") && first.stderr.contains("set-up: "), "{first:#?}");
        assert!(first.stderr.contains("good\nsub\nmade\n0\n"), "made, and README is the base's: {first:#?}");
        assert!(!first.stderr.contains("?? "), "git sees nothing new: {first:#?}");
        assert_eq!(layers, first.stderr.contains("README.md"), "{first:#?}");
        assert_eq!(first.json()["files_changed"], 1, "{first:#?}");
        let second = scene.run(&[], WORK).expect(0);
        assert_eq!(outcome(&second), "cached", "{second:#?}");
        assert!(
            !second.stderr.contains("INSTALLING") && second.stderr.contains("set-up: from cache (saved "),
            "{second:#?}"
        );
        assert!(second.stderr.contains("good\nsub\nmade\n0\n"), "{second:#?}");
        assert_eq!(second.json()["files_changed"], 1, "{second:#?}");
        assert_eq!(scene.world.picture(&scene.repository), before, "the person's tree is as it was");

        let shown = scene.tipstaff(&["runs", "show"]).expect(0).stdout;
        assert!(shown.contains("set-up") && shown.contains("from cache (saved"), "{shown}");
        let story = scene
            .tipstaff(&["runs", "show", "--transcript", first.json()["run"].as_str().unwrap()])
            .expect(0);
        assert!(format!("{}{}", story.stdout, story.stderr).contains("INSTALLING"), "{story:#?}");
        let actions = scene.actions();
        for (action, times) in [("setup.started", 1), ("setup.ended", 1), ("setup.reused", 1)] {
            assert_eq!(actions.iter().filter(|one| *one == action).count(), times, "{action} in {actions:?}");
        }
        let kept = scene.kept();
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!(kept[0]["repository"], "local/demo");
        let dry = scene.tipstaff(&["run", "--dry-run", "--json", "--", "true"]).expect(0).json();
        assert_eq!(dry["setup"]["key"], kept[0]["key"], "{dry}");
        assert!(dry["setup"]["cached"]["duration_ms"].as_u64().is_some(), "{dry}");
        assert!(dry["setup"]["inputs"].to_string().contains("package-lock.json"), "{dry}");
        scene.tipstaff(&["audit", "verify"]).expect(0);
    }
}

#[test]
fn its_key_is_what_decides_its_result() {
    let scene = Scene::new(SCRIPT, "");
    assert_eq!(outcome(&scene.run(&[], "true").expect(0)), "done");
    // Something else of the repository makes no difference.
    scene.world.write(&scene.repository.join("src/main.txt"), "other\n");
    scene.world.commit(&scene.repository, "other");
    assert_eq!(outcome(&scene.run(&[], "true").expect(0)), "cached");
    scene.world.write(&scene.repository.join("package-lock.json"), "{\"v\":2}\n");
    assert_eq!(outcome(&scene.run(&[], "true").expect(0)), "cached", "what is not committed does not count");
    scene.world.commit(&scene.repository, "lockfile");
    assert_eq!(outcome(&scene.run(&[], "true").expect(0)), "done");
    // What lies beside the script decides as well, though nobody names it.
    scene.world.write(&scene.repository.join(".tipstaff/versions"), "1\n");
    scene.world.commit(&scene.repository, "beside the script");
    assert_eq!(outcome(&scene.run(&[], "true").expect(0)), "done");
    scene.script(&SCRIPT.replace("good", "better"));
    let ended = scene.run(&[], "cat node_modules/dep/index").expect(0);
    assert_eq!(outcome(&ended), "done");
    assert!(ended.stderr.contains("better"), "{ended:#?}");
    assert_eq!(scene.kept().len(), 4);
    assert_eq!(outcome(&scene.run(&["--fresh-setup"], "true").expect(0)), "done");
    assert_eq!(scene.kept().len(), 4, "it takes the place of the one before");
    assert_eq!(outcome(&scene.run(&[], "true").expect(0)), "cached");
    let without = scene.run(&["--no-setup"], "ls node_modules || echo NOTHING").expect(0);
    assert_eq!(outcome(&without), "none");
    assert!(
        without.stderr.contains("NOTHING") && without.stderr.contains("left out, as asked"),
        "{without:#?}"
    );
    // A role that executes nothing has no set-up.
    let args = ["run", "--json", "--role", "reviewer", "--", "cat", "node_modules/dep/index"];
    assert_eq!(outcome(&scene.tipstaff(&args).expect(0)), "cached");

    let key = scene.kept()[0]["key"].as_str().unwrap().to_owned();
    scene.tipstaff(&["setup", "clear", &key[..10]]).expect(0);
    assert_eq!(scene.kept().len(), 3);
    let error = scene.tipstaff(&["setup", "clear", "abcdef0123"]).expect(2);
    assert!(error.stderr.contains("setup list"), "{error:#?}");
    scene.tipstaff(&["setup", "clear", "--repository", "local/none"]).expect(2);
    let cleared = scene.tipstaff(&["setup", "clear", "--json"]).expect(0).json();
    assert_eq!(cleared["removed"].as_array().unwrap().len(), 3, "{cleared}");
    assert!(scene.kept().is_empty());
    assert_eq!(scene.actions().iter().filter(|one| *one == "setup.cleared").count(), 2);
    assert_eq!(outcome(&scene.run(&[], "true").expect(0)), "done");
}

#[test]
fn the_bounds_of_what_is_kept_hold_and_cache_false_keeps_nothing() {
    let scene = Scene::new(SCRIPT, "");
    scene.world.write(&scene.world.home().join("config.toml"), "[setup]\ncache_entries = 2\n");
    for version in 0..4 {
        scene.world.write(&scene.repository.join("package-lock.json"), &format!("{version}\n"));
        scene.world.commit(&scene.repository, "lockfile");
        scene.run(&[], "true").expect(0);
    }
    assert_eq!(scene.kept().len(), 2);
    scene.tipstaff(&["setup", "clear"]).expect(0);
    scene.world.write(&scene.repository.join("tipstaff.toml"), "[setup]\ncache = false\n");
    scene.world.commit(&scene.repository, "no cache");
    for _ in 0..2 {
        let ended = scene.run(&[], WORK).expect(0);
        assert_eq!(
            (outcome(&ended).as_str(), ended.json()["files_changed"].as_u64()),
            ("done", Some(1)),
            "{ended:#?}"
        );
    }
    assert!(scene.kept().is_empty());
}

#[test]
fn when_it_fails_nothing_else_starts() {
    let scene = Scene::new(
        "#!/bin/sh\necho BROKEN-DEPENDENCY\necho why >&2\nexit 7\n",
        "[setup]\ntimeout = \"2s\"\n",
    );
    let work = "echo AGENT-STARTED; echo x >x";
    let ended = scene.run(&[], work).expect(1);
    let summary = ended.json();
    assert_eq!(
        (summary["state"].as_str(), summary["exit_reason"].as_str()),
        (Some("failed"), Some("setup_failed"))
    );
    assert_eq!(summary["setup"]["outcome"], "failed", "{summary}");
    assert!(summary["error"].as_str().unwrap().contains("ended with 7"), "{summary}");
    assert!(summary["error"].as_str().unwrap().contains("setup-failed"), "{summary}");
    assert!(
        ended.stderr.contains("BROKEN-DEPENDENCY") && !ended.stderr.contains("AGENT-STARTED"),
        "{ended:#?}"
    );
    let story = scene.tipstaff(&["runs", "show", "--transcript"]).expect(0);
    let told = format!("{}{}", story.stdout, story.stderr);
    assert!(told.contains("BROKEN-DEPENDENCY") && told.contains("set-up: failed"), "{told}");
    assert!(scene.kept().is_empty(), "what failed is not kept");
    scene.run(&["--no-setup"], work).expect(0);

    scene.script("#!/bin/sh\nsleep 600\n");
    let ended = scene.run(&[], work).expect(1);
    assert!(ended.json()["error"].as_str().unwrap().contains("not done within 2 s"), "{ended:#?}");
    assert!(!ended.stderr.contains("AGENT-STARTED"), "{ended:#?}");

    scene.script("#!/bin/sh\nkill -9 $$\n");
    let ended = scene.run(&[], work).expect(1);
    assert!(ended.json()["error"].as_str().unwrap().contains("signal 9"), "{ended:#?}");

    scene.script("#!/no/such/interpreter\n");
    assert_eq!(outcome(&scene.run(&[], work).expect(1)), "failed");

    std::fs::set_permissions(
        scene.repository.join(".tipstaff/setup"),
        std::fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    scene.world.commit(&scene.repository, "not executable");
    let ended = scene.run(&[], work).expect(1);
    assert!(ended.stdout.contains("not executable") && ended.stdout.contains("--no-setup"), "{ended:#?}");
    assert!(scene.run(&["--no-setup"], work).expect(0).stderr.contains("AGENT-STARTED"));

    std::fs::remove_file(scene.repository.join(".tipstaff/setup")).unwrap();
    symlink("/bin/true", scene.repository.join(".tipstaff/setup")).unwrap();
    scene.world.commit(&scene.repository, "a link");
    let ended = scene.run(&[], work).expect(1);
    assert!(ended.stdout.contains("no ordinary file"), "{ended:#?}");
    // The command that started nothing left nothing.
    let left: Vec<_> =
        std::fs::read_dir(scene.world.home().join("runs")).unwrap().flatten().map(|one| one.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn it_reaches_the_registry_that_it_is_granted_and_the_command_does_not() {
    let server = TlsServer::start(&["registry.corp.example", "other.corp.example"], "the package\n").unwrap();
    let port = server.address().port();
    let place = format!("registry.corp.example:{port}");
    let fetch = |host: &str| format!("curl -sS -m 20 --cacert ca.pem https://{host}:{port}/pkg");
    let script = format!(
        "#!/bin/sh\nmkdir -p node_modules\n{} >node_modules/pkg || exit 3\n{} && echo REACHED-OTHER\n\
         curl -sS -m 5 https://example.com/ && echo REACHED-EXAMPLE\n\
         git push origin HEAD:refs/heads/evil 2>&1; git push origin HEAD 2>&1\n\
         curl -sS -m 5 http://127.0.0.1:8080/model/anthropic/v1/messages -d '{{}}'\n\
         cat /etc/shadow /root/.ssh/id_rsa $HOME/.netrc 2>/dev/null && echo READ-SECRETS\nenv\nls / /work\ntrue\n",
        fetch("registry.corp.example"),
        fetch("other.corp.example"),
    );
    let scene = Scene::new(&script, &format!("[setup]\nhosts = [\"{place}\"]\n"));
    scene.world.write(&scene.repository.join("ca.pem"), server.ca_pem());
    scene.world.commit(&scene.repository, "authority");
    let names = "[network.hosts]\n\"registry.corp.example\" = [\"127.0.0.1\"]\n\"other.corp.example\" = [\"127.0.0.1\"]\n";
    scene.world.write(&scene.world.home().join("config.toml"), names);
    let work = format!("cat node_modules/pkg; {} || echo NOT-REACHED", fetch("registry.corp.example"));
    // Not by the repository's own word.
    let ended = scene.run(&[], &work).expect(3);
    assert!(
        ended.stderr.contains("setup-host-not-granted") || ended.stdout.contains("setup-host-not-granted"),
        "{ended:#?}"
    );
    assert!(ended.stdout.contains(&format!("--allow-host {place}")), "{ended:#?}");
    assert_eq!(server.connections(), 0);
    // By the operator's.
    let config = format!("{names}[setup]\nhosts = [\"registry:npm\", \"{place}\"]\n");
    scene.world.write(&scene.world.home().join("config.toml"), &config);
    let ended = scene.run(&[], &work).expect(0);
    assert_eq!(outcome(&ended), "done", "{ended:#?}");
    assert!(ended.stderr.contains("the package") && ended.stderr.contains("NOT-REACHED"), "{ended:#?}");
    for bad in ["REACHED-OTHER", "REACHED-EXAMPLE", "READ-SECRETS", "ANTHROPIC", "TIPSTAFF_HOME"] {
        assert!(!ended.stderr.contains(bad), "{bad}: {ended:#?}");
    }
    let summary = ended.json();
    let rules: Vec<&str> =
        summary["refusals"].as_array().unwrap().iter().map(|one| one["rule"].as_str().unwrap()).collect();
    assert!(rules.contains(&"host-not-granted"), "{rules:?}");
    assert!(summary["branch"].is_null(), "nothing was pushed: {summary}");
    assert_eq!(server.requests().len(), 1);
    let shown = scene.tipstaff(&["runs", "show"]).expect(0).stdout;
    assert!(shown.contains(&format!("its set-up may reach {place}")), "{shown}");
    // By the person's, for one run.
    scene.world.write(&scene.world.home().join("config.toml"), &format!("{names}[setup]\nhosts = []\n"));
    scene.run(&[], "true").expect(3);
    let ended = scene.run(&["--fresh-setup", "--allow-host", &place], "true").expect(0);
    assert_eq!(outcome(&ended), "done", "{ended:#?}");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn no_run_changes_what_later_ones_find() {
    let scene = Scene::new(
        SCRIPT,
        "[verify]\ncommands = [\"grep -q good node_modules/dep/index && test -f work.txt\"]\n",
    );
    scene.run(&[], "echo work >work.txt").expect(0);
    let poison = "echo POISON >node_modules/dep/index; echo POISON >generated.txt; rm -rf packages/a/node_modules; \
        echo '#!/bin/sh\necho POISON' >.tipstaff/setup; mkdir -p .git/info; : >.git/info/exclude; \
        chmod -R 777 node_modules; ln -sf /etc/passwd node_modules/link; echo work >work.txt; find / -name 'entry.json' 2>/dev/null";
    let ended = scene.run(&[], poison);
    assert_eq!(outcome(&ended), "cached", "{ended:#?}");
    assert!(!ended.stderr.contains("entry.json"), "{ended:#?}");
    let again = scene.run(&[], &format!("{WORK}; ls node_modules")).expect(0);
    assert_eq!(outcome(&again), "cached", "{again:#?}");
    assert!(again.stderr.contains("good\nsub\nmade\n0\n") && !again.stderr.contains("POISON"), "{again:#?}");
    assert_eq!(again.json()["state"], "done", "the verification has what the set-up made: {again:#?}");
    // What the agent commits itself is without it, too.
    let ended = scene.run(&[], "echo work >work.txt; git add -A; git commit -qm mine").expect(0);
    assert_eq!(ended.json()["files_changed"], 1, "{ended:#?}");
    // A change of a run takes no part before a person takes it in.
    let ended =
        scene.run(&[], "printf '#!/bin/sh\\necho EVIL >evil\\n' >.tipstaff/setup; echo work >work.txt");
    assert_eq!(outcome(&ended), "cached", "{ended:#?}");
    assert_eq!(outcome(&scene.run(&[], "test ! -e evil; echo work >work.txt").expect(0)), "cached");
}

#[test]
fn a_damaged_entry_is_made_anew() {
    let scene = Scene::new(SCRIPT, "");
    scene.run(&[], "true").expect(0);
    let entry = |scene: &Scene| scene.cache().join(scene.kept()[0]["key"].as_str().unwrap());
    let damages: [&dyn Fn(&Path); 5] = [
        &|path| std::fs::write(path.join("tree/node_modules/dep/index"), "").unwrap(),
        &|path| std::fs::remove_file(path.join("tree/generated.txt")).unwrap(),
        &|path| std::fs::write(path.join("tree/added"), "x").unwrap(),
        &|path| std::fs::write(path.join("entry.json"), "{\"v\":1").unwrap(),
        &|path| std::fs::remove_dir_all(path.join("tree")).unwrap(),
    ];
    for (number, damage) in damages.iter().enumerate() {
        let place = entry(&scene);
        damage(&place);
        // What a killed process leaves.
        let half = scene.cache().join(format!(".making-{}", "a".repeat(64)));
        std::fs::create_dir_all(half.join("tree")).unwrap();
        let ended = scene.run(&[], WORK).expect(0);
        assert_eq!(outcome(&ended), "done", "damage {number}: {ended:#?}");
        assert!(ended.stderr.contains("good\nsub\nmade\n0\n"), "damage {number}: {ended:#?}");
        assert!(!half.exists(), "what was left is swept");
        assert_eq!(outcome(&scene.run(&[], "true").expect(0)), "cached", "damage {number}");
    }
    // An entry that is not known to be on disk does not outlive the machine.
    let place = entry(&scene).join("entry.json");
    let mut text: Value = serde_json::from_str(&std::fs::read_to_string(&place).unwrap()).unwrap();
    text["boot"] = "another start".into();
    std::fs::write(&place, text.to_string()).unwrap();
    assert_eq!(outcome(&scene.run(&[], "true").expect(0)), "done");
}

#[test]
fn files_of_the_person_are_copied_and_credentials_are_not() {
    let script =
        "#!/bin/sh\ncat local.json || echo NO-LOCAL\ncp local.json copied.json 2>/dev/null || true\n";
    let scene = Scene::new(script, "[setup]\ncopy = [\"local.json\", \"conf/dev.ini\"]\n");
    let local = scene.repository.join("local.json");
    let ended = scene.run(&[], "ls").expect(0);
    assert!(
        ended.stderr.contains("NO-LOCAL") && ended.stderr.contains("local.json is not there"),
        "{ended:#?}"
    );
    scene.world.write(&local, "{\"dev\":1}\n");
    scene.world.write(&scene.repository.join("conf/dev.ini"), "a=1\n");
    let ended = scene.run(&[], "cat copied.json conf/dev.ini; echo work >work.txt").expect(0);
    assert_eq!(outcome(&ended), "done");
    assert!(ended.stderr.contains("{\"dev\":1}\na=1"), "{ended:#?}");
    assert_eq!(ended.json()["files_changed"], 1, "what is copied is no part of the change: {ended:#?}");
    assert_eq!(outcome(&scene.run(&[], "true").expect(0)), "cached");
    scene.world.write(&local, "{\"dev\":2}\n");
    let ended = scene.run(&[], "cat copied.json").expect(0);
    assert!(outcome(&ended) == "done" && ended.stderr.contains("{\"dev\":2}"), "{ended:#?}");

    let token = format!("ghp_{}", "wJ8dLq2ZxT5vN9bKc3RfYh7Gp1MsAe4UiO6k");
    scene.world.write(&local, &format!("{{\"token\":\"{token}\"}}\n"));
    let ended = scene.run(&[], "echo AGENT-STARTED").expect(3);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(said.contains("setup-copy-refused") && said.contains("looks like a secret"), "{said}");
    assert!(!said.contains(&token) && !said.contains("AGENT-STARTED"), "{said}");
    let outside = scene.world.path().join("outside.txt");
    scene.world.write(&outside, "OUTSIDE\n");
    std::fs::remove_file(&local).unwrap();
    symlink(&outside, &local).unwrap();
    let ended = scene.run(&[], "echo AGENT-STARTED").expect(3);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(
        said.contains("symbolic link") && !said.contains("OUTSIDE") && !said.contains("AGENT-STARTED"),
        "{said}"
    );
    std::fs::remove_file(&local).unwrap();
    for (copy, word) in [
        ("README.md", "the base commit has something there"),
        (".env", "credentials"),
        ("../x", "no path of a file"),
    ] {
        scene
            .world
            .write(&scene.repository.join("tipstaff.toml"), &format!("[setup]\ncopy = [\"{copy}\"]\n"));
        scene.world.commit(&scene.repository, "copy");
        scene.world.write(&scene.repository.join(".env"), "A=1\n");
        let ended = scene.run(&[], "echo AGENT-STARTED");
        assert_ne!(ended.code, Some(0), "{ended:#?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains(word) && !said.contains("AGENT-STARTED"), "{copy}: {said}");
        std::fs::remove_file(scene.repository.join(".env")).unwrap();
    }
}

#[test]
fn a_hostile_one_is_bounded_and_leaves_nothing_behind() {
    let script = "#!/bin/sh\nyes FLOOD | head -c 60000000\nprintf '\\033]0;title\\007'\nmkfifo pipe\nln -s /etc/passwd link\n\
        ln -s ../../../../../etc out\nmkdir -p .git/hooks; printf '#!/bin/sh\\necho HOOKED' >.git/hooks/pre-commit; chmod +x .git/hooks/pre-commit\n\
        git config core.fsmonitor 'touch /work/HOOKED; false'\nrm -rf src; mkdir src; echo mine >src/mine\n\
        touch \"$(printf 'new\\nline')\" 'sp ace' '*star' '[x]'\nmkdir shut; echo x >shut/x; chmod 000 shut\n\
        (setsid sleep 300 &) ; exit 0\n";
    let scene = Scene::new(script, "");
    let work = "cat src/main.txt src/mine; ls .git/hooks; git config core.fsmonitor; git status --porcelain; \
        echo work >work.txt; git add -A; git commit -qm x; ls HOOKED";
    for expected in ["done", "cached"] {
        let ended = scene.run(&[], work);
        assert_eq!(outcome(&ended), expected, "{}", ended.stdout);
        let tail: String = ended.stderr.chars().rev().take(4_000).collect::<String>().chars().rev().collect();
        assert!(tail.contains("one\ntwo\nmine"), "tracked files are the base's: {tail}");
        assert!(!tail.contains("HOOKED\n") && !tail.contains('\u{1b}'), "{tail}");
        assert!(
            ended.json()["files_changed"].as_u64().unwrap() <= 2,
            "only what can't be named to git: {}",
            ended.stdout
        );
    }
}

#[test]
fn killed_in_the_middle_it_leaves_nothing_wrong() {
    let scene = Scene::new(
        "#!/bin/sh\nmkdir -p node_modules/dep\necho half >node_modules/dep/index\necho HALF-WAY\nsleep 30\n",
        "",
    );
    let mut child = scene.world.start(&["run", "--repo", scene.repository.to_str().unwrap(), "--", "true"]);
    let begun = Instant::now();
    let there = || {
        let runs = std::fs::read_dir(scene.world.home().join("runs"));
        runs.into_iter()
            .flatten()
            .flatten()
            .any(|run| run.path().join("setup/upper/node_modules/dep/index").exists())
    };
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the set-up never began");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    child.kill().unwrap();
    wait(child, Duration::from_secs(20));
    assert!(scene.kept().is_empty(), "nothing half is kept");
    let runs = scene.tipstaff(&["runs", "list", "--json"]).expect(0).json();
    assert_eq!(runs["state"], "interrupted", "{runs}");
    scene.script(SCRIPT);
    assert_eq!(outcome(&scene.run(&[], "true").expect(0)), "done");
    scene.tipstaff(&["audit", "verify"]).expect(0);
    // A person's end is a person's end.
    scene.script("#!/bin/sh\necho STARTED\nsleep 60\n");
    let queued = scene.tipstaff(&["run", "--queue", "--json", "--", "true"]).expect(0).json();
    assert_eq!(queued["state"], "queued");
    let worker = scene.world.start(&["worker", "--once"]);
    let begun = Instant::now();
    loop {
        let listed = scene.tipstaff(&["runs", "list", "--json", "--state", "preparing"]);
        if let Some(line) = listed.stdout.lines().next() {
            let run: Value = serde_json::from_str(line).unwrap();
            if let Some(id) = run["run"].as_str() {
                scene.tipstaff(&["runs", "cancel", id]).expect(0);
                break;
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the worker never began");
    }
    let ended = wait(worker, Duration::from_secs(60));
    let last = scene.tipstaff(&["runs", "list", "--json", "--limit", "1"]).expect(0).json();
    assert_eq!(last["state"], "cancelled", "{ended:#?} {last}");
}

#[test]
fn several_at_once_share_one_and_none_is_harmed() {
    let scene = Scene::new(SCRIPT, "");
    let started: Vec<_> = (0..3)
        .map(|_| {
            let mut command = scene.world.command(scene.world.binary());
            command.current_dir(&scene.repository).args(["run", "--json", "--", "sh", "-c", WORK]);
            std::thread::spawn(move || run(command))
        })
        .collect();
    for one in started {
        let ended = one.join().unwrap().expect(0);
        assert!(ended.stderr.contains("good\nsub\nmade\n0\n"), "{ended:#?}");
        assert_eq!(ended.json()["files_changed"], 1, "{ended:#?}");
    }
    assert_eq!(scene.kept().len(), 1);
    assert_eq!(outcome(&scene.run(&[], WORK).expect(0)), "cached");
}

//! Budgets of projects and people, what happens at their shares, and money while the store can't be reached: through the
//! real binary, a real sandbox and a scripted model server.

use crate::world::{Ended, World};
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tipstaff_testkit::{Durability, ModelServer, ModelServerConfig, PostgresServer, script_prompt};

/// Nobody's.
const KEY: &str = "budget-key-7c2d9e4f1a6b-nobodys";
/// What a call costs: 1000 of input, 200 of it more from the cache, 100 of output, at the prices of gpt-5.5.
const COST: u64 = 1000 * 5 + 100 + 100 * 30;

struct Scene {
    world: World,
    repository: PathBuf,
    server: ModelServer,
    postgres: Option<PostgresServer>,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let repository = world.repository("demo");
        let server =
            ModelServer::start(ModelServerConfig { key: Some(KEY.to_owned()), ..Default::default() })
                .unwrap();
        Self { world, repository, server, postgres: None }
    }

    /// The same on a PostgreSQL server of its own.
    fn on_postgres() -> Self {
        let postgres = PostgresServer::start(Durability::Off).unwrap();
        postgres.database_create("tipstaff").unwrap();
        let scene = Self { postgres: Some(postgres), ..Self::new() };
        let mut prepare = scene.command(&["database", "prepare"]);
        let owner = scene.postgres.as_ref().unwrap().url("tipstaff_owner", "tipstaff");
        prepare.env("TIPSTAFF_DATABASE_OWNER_URL", owner);
        crate::world::run(prepare).expect(0);
        scene
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(self.world.binary());
        command.env("TIPSTAFF_OPENAI_UPSTREAM", self.server.url()).env("OPENAI_API_KEY", KEY);
        if let Some(postgres) = &self.postgres {
            command.env("TIPSTAFF_DATABASE_URL", postgres.url("tipstaff_app", "tipstaff"));
        }
        command.current_dir(&self.repository).args(args);
        command
    }

    fn tipstaff(&self, args: &[&str]) -> Ended {
        crate::world::run(self.command(args))
    }

    fn run_command(&self, script: &str) -> Command {
        let model = ["--timeout", "120s", "--budget", "5", "--model", "openai/gpt-5.5"];
        let mut command = self.command(&["run", "--json"]);
        command.args(model).args(["--", "sh", "-c", script]);
        command
    }

    fn run(&self, script: &str) -> Ended {
        crate::world::run(self.run_command(script))
    }

    fn config(&self, text: &str) {
        self.world.write(&self.world.home().join("config.toml"), text);
    }

    fn json_lines(&self, args: &[&str]) -> Vec<Value> {
        let text = self.tipstaff(args).expect(0).stdout;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn log(&self, action: &str) -> Vec<Value> {
        let mut all = self.json_lines(&["audit", "list", "--limit", "10000", "--json"]);
        all.retain(|record| record.to_string().contains(&format!("\"{action}\"")));
        all
    }

    /// Cost and calls on record, by the ledger itself.
    fn total(&self) -> (u64, u64) {
        let total = self.json_lines(&["costs", "--json"]).remove(0)["total"].clone();
        (total["cost_micro_usd"].as_u64().unwrap(), total["calls"].as_u64().unwrap())
    }

    fn spools(&self) -> Vec<String> {
        let folder = self.world.home().join("spool");
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }
}

/// A call by curl with these steps; says `NAME-status-CODE`.
fn call(name: &str, steps: Value) -> String {
    let content = script_prompt("Say it.", steps);
    let body =
        json!({"model": "gpt-5.5", "max_tokens": 100, "messages": [{"role": "user", "content": content}]});
    format!(
        "cat >/tmp/body <<'END'\n{body}\nEND\ncurl -sS -m 60 -w '\\n{name}-status-%{{http_code}}\\n' \
         -H 'content-type: application/json' -H 'authorization: Bearer mine' --data-binary @/tmp/body \
         http://127.0.0.1:8080/model/openai/v1/chat/completions\n"
    )
}

fn says(name: &str) -> String {
    call(name, json!([{"text": "fine"}]))
}

/// A run under way, and what it has said so far.
struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let mut streams: Vec<Box<dyn std::io::Read + Send>> =
            vec![Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for mut stream in streams.drain(..) {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    said.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
                }
            });
        }
        Self { child, said }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until `done`, at most a minute.
    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what} never came: {}", self.said());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "still running: {}", self.said());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

#[test]
fn projects_are_made_assigned_and_removed() {
    let scene = Scene::new();
    assert!(scene.tipstaff(&["projects", "list"]).expect(0).stderr.contains("tipstaff projects add"));
    let wrong = |args: &[&str], code: &str| {
        let ended = scene.tipstaff(&[args, &["--json"]].concat()).expect(2);
        assert_eq!(ended.json()["error"]["code"], code, "{args:?}");
    };
    wrong(&["projects", "add", "Two Words"], "project-name");
    wrong(&["projects", "assign", "local/demo", "web"], "repository-unknown");
    scene.tipstaff(&["projects", "add", "web"]).expect(0);
    wrong(&["projects", "add", "web"], "project-exists");
    scene.run("true").expect(0);
    let name = scene.json_lines(&["runs", "show", "--json"])[0]["warrant"]["repositories"][0]["name"].clone();
    let name = name.as_str().unwrap();
    wrong(&["projects", "assign", name, "other"], "project-unknown");
    wrong(&["projects", "assign", name], "project-unassigned");
    scene.tipstaff(&["projects", "assign", name, "web"]).expect(0);
    let listed = scene.json_lines(&["projects", "list", "--json"]);
    assert_eq!((&listed[0]["project"], &listed[0]["repositories"]), (&"web".into(), &json!([name])));
    assert!(scene.tipstaff(&["projects", "list"]).expect(0).stdout.contains(name));
    scene.tipstaff(&["budgets", "set", "--project", "web", "--per", "day", "1"]).expect(0);
    wrong(&["projects", "remove", "web"], "project-has-budget");
    wrong(&["budgets", "set", "--project", "other", "--per", "day", "1"], "project-unknown");
    wrong(&["budgets", "set", "--person", "nobody", "--per", "day", "1"], "person-unknown");
    for bad in [
        &["--org", "--project", "web"][..],
        &["--org", "--notify", "0"],
        &["--org", "--slow", "half"],
        &["--org", "--stop", "1001"],
    ] {
        scene.tipstaff(&[&["budgets", "set", "--per", "day", "1"], bad].concat()).expect(2);
    }
    scene.tipstaff(&["budgets", "remove", "--project", "web", "--per", "day"]).expect(0);
    scene.tipstaff(&["projects", "assign", name]).expect(0);
    scene.tipstaff(&["projects", "remove", "web"]).expect(0);
    wrong(&["projects", "remove", "web"], "project-unknown");
    assert_eq!(scene.log("project.set").len(), 4);
}

#[test]
fn budgets_of_a_project_and_a_person_end_their_runs_and_costs_name_them() {
    let scene = Scene::new();
    scene.run("true").expect(0);
    scene.tipstaff(&["projects", "add", "web"]).expect(0);
    let project =
        scene.json_lines(&["runs", "show", "--json"])[0]["warrant"]["repositories"][0]["name"].clone();
    scene.tipstaff(&["projects", "assign", project.as_str().unwrap(), "web"]).expect(0);
    scene.run(&says("a")).expect(0);
    for holder in [&["--project", "web"][..], &["--person", "me"]] {
        scene.tipstaff(&[&["budgets", "set", "--per", "week", "0.001"], holder].concat()).expect(0);
        let ended = scene.run(&says("b"));
        assert_eq!(ended.code, Some(4), "{holder:?}: {ended:#?}");
        assert!(ended.stderr.contains("b-status-402"), "{}", ended.stderr);
        scene.tipstaff(&[&["budgets", "remove", "--per", "week"], holder].concat()).expect(0);
    }
    // A queued task is its asker's, whoever carries it out.
    let mut queue = scene.command(&["run", "--queue", "--budget", "5", "--model", "openai/gpt-5.5"]);
    queue.args(["--", "sh", "-c", &says("c")]);
    crate::world::run(queue).expect(0);
    scene.tipstaff(&["worker", "--once"]).expect(0);
    let by = |by: &str| scene.json_lines(&["costs", "--by", by, "--json"]).remove(0)["rows"].clone();
    assert_eq!(
        (&by("project")[0]["key"], &by("project")[0]["cost_micro_usd"]),
        (&"web".into(), &(2 * COST).into())
    );
    assert_eq!(by("person")[0]["calls"], 2);
    let chart = scene.tipstaff(&["costs", "--by", "project"]).expect(0).stdout;
    assert!(chart.contains("PROJECT") && chart.contains("web") && chart.contains('#'), "{chart}");
    let csv = scene.tipstaff(&["costs", "--by", "person", "--csv"]).expect(0).stdout;
    assert!(csv.lines().nth(1).unwrap().starts_with("person,,"), "{csv}");
}

#[test]
fn shares_of_a_budget_are_told_once_to_everybody_who_should_know() {
    let scene = Scene::new();
    let told = scene.world.path().join("told.jsonl");
    let script = scene.world.path().join("tell");
    let text = format!(
        "#!/bin/sh\n{{ cat; echo \"env:$(env | grep -c -v -e ^PWD= -e ^SHLVL= -e ^_=)\" \"$@\"; }} >> {}\n",
        told.display()
    );
    scene.world.write(&script, &text);
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    scene.config(&format!("[notify]\ncommand = [\"{}\", \"--budget\"]\n", script.display()));
    // Two calls are over a half of it, three over the whole; it never stops anybody.
    let budget = format!("0.{:06}", 3 * COST - 500);
    let set = ["budgets", "set", "--org", "--per", "month", &budget, "--notify", "50,100", "--stop", "never"];
    let shown = scene.tipstaff(&[&set[..], &["--json"]].concat()).expect(0).json();
    assert_eq!((&shown["notify"], &shown["stop"]), (&json!([50, 100]), &Value::Null));
    let first = scene.run(&says("a")).expect(0);
    assert!(!first.stderr.contains("% spent"), "{}", first.stderr);
    let second = scene.run(&says("b")).expect(0);
    assert!(
        second.stderr.contains("the budget of org per month") && second.stderr.contains("is 50 % spent"),
        "{}",
        second.stderr
    );
    let story = scene.tipstaff(&["runs", "export"]).expect(0).stdout;
    assert!(story.contains("budget.threshold") && story.contains("is 50 % spent"), "{story}");
    // Over the rest in one run, in parallel; and once more, after which nothing is new.
    let many: String = (0..4)
        .map(|number| {
            format!(
                "( {} ) &\n",
                says(&format!("c{number}")).replace("/tmp/body", &format!("/tmp/body{number}"))
            )
        })
        .collect();
    let third = scene.run(&format!("{many}wait\n")).expect(0);
    assert!(third.stderr.contains("is 100 % spent"), "{}", third.stderr);
    let fourth = scene.run(&says("d")).expect(0);
    assert!(!fourth.stderr.contains("% spent"), "{}", fourth.stderr);
    assert_eq!(scene.log("budget.threshold").len(), 2);
    let text = std::fs::read_to_string(&told).unwrap();
    let messages: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let shares: Vec<&Value> = messages.iter().map(|message| &message["percent"]).collect();
    assert_eq!(shares, [&json!(50), &json!(100)], "{text}");
    assert_eq!(
        text.matches("env:0 --budget").count(),
        2,
        "an empty environment, the operator's words: {text}"
    );
    assert!(!text.contains(KEY));

    // A command that hangs or is not there is said, and holds nobody up for long.
    scene.config("[notify]\ncommand = [\"/nowhere/at/all\"]\n");
    scene.tipstaff(&["budgets", "set", "--person", "me", "--per", "day", "0.01"]).expect(0);
    let warned = scene.run(&says("e"));
    assert!(warned.stderr.contains("can't be started"), "{}", warned.stderr);
    let table = scene.tipstaff(&["budgets", "list"]).expect(0).stdout;
    assert!(
        table.contains("####################") && table.contains("notify 50,100, never stops"),
        "{table}"
    );
    assert!(table.contains("person:") && table.contains("(stopped)"), "{table}");
    scene.config("[notify]\ncommand = \"text\"\n");
    assert!(scene.tipstaff(&["budgets", "list"]).expect(2).stderr.contains("config-invalid"));
    scene.config("[money]\nreserve = \"lots\"\n");
    assert!(scene.run("true").expect(2).stdout.contains("money.reserve"));
}

#[test]
fn a_slowed_holder_calls_one_at_a_time_and_the_person_is_told() {
    let scene = Scene::new();
    scene.run(&says("a")).expect(0);
    let budget = format!("0.{:06}", 20 * COST);
    scene.tipstaff(&["budgets", "set", "--person", "me", "--per", "day", &budget, "--slow", "5"]).expect(0);
    let calls: String = (0..3)
        .map(|number| {
            let steps = json!([{"sleep": 300, "text": "fine"}]);
            format!("( {} ) &\n", call("b", steps).replace("/tmp/body", &format!("/tmp/body{number}")))
        })
        .collect();
    let begun = Instant::now();
    let ended = scene.run(&format!("{calls}wait\n")).expect(0);
    assert_eq!(ended.stderr.matches("b-status-200").count(), 3, "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("slows its model calls down").count(), 1, "{}", ended.stderr);
    // Two pauses at least lie between three calls.
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(scene.tipstaff(&["runs", "export"]).expect(0).stdout.contains("budget.slow"));
    assert!(scene.tipstaff(&["budgets", "list"]).expect(0).stdout.contains("slow 5"));
}

/// A run whose store goes away during its call `b`: that is settled without a store, `c` is paid and settled without one,
/// `d` is refused, and `e` is tried until the store is back.
fn script() -> String {
    let slow = call("b", json!([{"sleep": 2500, "text": "fine"}]));
    let again = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do\n";
    let last = says("e");
    let check = "case $(tail -n 1 /tmp/out) in e-status-200) cat /tmp/out; break ;; esac; sleep 1; done\n";
    let last = last.trim_end().to_owned();
    format!("{}{slow}{}{}{again}{last} > /tmp/out\n{check}", says("a"), says("c"), says("d"))
}

/// Just enough for one call.
fn reserve_of_one_call(scene: &Scene) {
    scene.config("[money]\nreserve = \"0.004\"\n");
}

fn goes_on_without_its_store(scene: &Scene, away: impl FnOnce(), back: impl FnOnce()) {
    reserve_of_one_call(scene);
    scene.tipstaff(&["budgets", "set", "--org", "--per", "day", "5"]).expect(0);
    let mut run = Running::start(scene.run_command(&script()));
    assert!(scene.server.wait_for(Duration::from_secs(60), |requests| requests.len() >= 2), "{}", run.said());
    away();
    run.until("the refusal", || run.said().contains("d-status-503"));
    let said = run.said();
    assert!(said.contains("c-status-200") && said.contains("ledger-unavailable"), "{said}");
    assert!(said.contains("paid from the run's reserve"), "{said}");
    let spool = scene.spools().concat();
    assert_eq!((spool.matches("{\"draw\"").count(), spool.matches("{\"settle\"").count()), (1, 2), "{spool}");
    back();
    assert_eq!(run.ended(), Some(0), "{}", run.said());
    let said = run.said();
    assert!(said.contains("e-status-200") && said.contains("the store is back"), "{said}");
    // a, b, c and e; each once.
    assert_eq!(scene.total(), (4 * COST, 4));
    assert!(scene.spools().is_empty(), "nothing waits any more");
    let standing = &scene.json_lines(&["budgets", "list", "--json"])[0];
    assert_eq!(
        (&standing["spent_micro_usd"], &standing["reserved_micro_usd"]),
        (&(4 * COST).into(), &0.into())
    );
    assert_eq!(scene.log("reserve.drawn").len(), 1);
    scene.tipstaff(&["audit", "verify"]).expect(0);
}

fn is_killed_without_its_store(scene: &Scene, away: impl FnOnce(), back: impl FnOnce()) {
    reserve_of_one_call(scene);
    let mut run = Running::start(scene.run_command(&script()));
    assert!(scene.server.wait_for(Duration::from_secs(60), |requests| requests.len() >= 2), "{}", run.said());
    away();
    run.until("two settlements on disk", || scene.spools().concat().matches("{\"settle\"").count() == 2);
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    back();
    let next = scene.tipstaff(&["runs", "list", "--json"]).expect(0);
    assert!(next.stderr.contains("that had waited for the store are written"), "{next:#?}");
    // What was settled is there to the last cent; the reserve that was left is nobody's.
    assert_eq!(scene.total(), (3 * COST, 3));
    for _ in 0..2 {
        let again = scene.tipstaff(&["runs", "list", "--json"]).expect(0);
        assert!(!again.stderr.contains("waited"), "{again:#?}");
        assert_eq!(scene.total(), (3 * COST, 3), "never counted twice");
    }
    assert!(scene.spools().is_empty());
    let row = &scene.json_lines(&["runs", "list", "--json"])[0];
    assert_eq!(row["state"], "interrupted", "{row}");
}

#[test]
fn a_run_goes_on_with_its_reserve_while_postgresql_is_stopped() {
    let scene = Scene::on_postgres();
    let server = scene.postgres.as_ref().unwrap();
    goes_on_without_its_store(&scene, || server.halt().unwrap(), || server.resume().unwrap());
}

#[test]
fn a_kill_while_postgresql_is_stopped_loses_no_settled_charge() {
    let scene = Scene::on_postgres();
    let server = scene.postgres.as_ref().unwrap();
    is_killed_without_its_store(&scene, || server.halt().unwrap(), || server.resume().unwrap());
}

/// Holds SQLite's write lock as another program would, until it is dropped.
struct WriteLock(Child);

impl WriteLock {
    fn take(scene: &Scene) -> Self {
        const HOLD: &str = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)\n\
                            c.execute('begin immediate')\nprint('held', flush=True)\nsys.stdin.read()";
        let mut command = Command::new("python3");
        command.args(["-c", HOLD]).arg(scene.world.home().join("tipstaff.db"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut answer = [0; 4];
        child.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"held");
        Self(child)
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ended_already = self.0.wait();
    }
}

#[test]
fn a_run_goes_on_with_its_reserve_while_sqlite_is_locked() {
    let scene = Scene::new();
    let lock = std::cell::RefCell::new(None);
    goes_on_without_its_store(
        &scene,
        || *lock.borrow_mut() = Some(WriteLock::take(&scene)),
        || drop(lock.take()),
    );
}

#[test]
fn a_kill_while_sqlite_is_locked_loses_no_settled_charge() {
    let scene = Scene::new();
    let lock = std::cell::RefCell::new(None);
    is_killed_without_its_store(
        &scene,
        || *lock.borrow_mut() = Some(WriteLock::take(&scene)),
        || drop(lock.take()),
    );
}

#[test]
fn without_a_reserve_nothing_is_spent_while_the_store_is_away() {
    let scene = Scene::new();
    scene.config("[money]\nreserve = \"0\"\n");
    let mut run = Running::start(scene.run_command(&script()));
    assert!(scene.server.wait_for(Duration::from_secs(60), |requests| requests.len() >= 2), "{}", run.said());
    let lock = WriteLock::take(&scene);
    run.until("the refusal", || run.said().contains("c-status-503"));
    drop(lock);
    assert_eq!(run.ended(), Some(0), "{}", run.said());
    let said = run.said();
    assert!(said.contains("e-status-200"), "{said}");
    let (cost, calls) = scene.total();
    assert_eq!(cost, calls * COST);
    assert!(scene.spools().is_empty());
}

/// What a call of the storm costs: less than what is reserved for it.
const STORM_COST: u64 = 100 * 5 + 90 * 30;

/// Runs in parallel, each with calls in parallel, against budgets of every holder; one of them is killed in the middle.
fn storm(scene: &Scene) {
    scene.run("true").expect(0);
    scene.tipstaff(&["agents", "set", "fixer", "--role", "builder", "--", "true"]).expect(0);
    scene.tipstaff(&["projects", "add", "web"]).expect(0);
    let repository =
        scene.json_lines(&["runs", "show", "--json"])[0]["warrant"]["repositories"][0]["name"].clone();
    scene.tipstaff(&["projects", "assign", repository.as_str().unwrap(), "web"]).expect(0);
    let limits = [
        (vec!["--agent", "fixer"], "day", 80_000),
        (vec!["--project", "web"], "week", 75_000),
        (vec!["--person", "me"], "month", 70_000),
        (vec!["--org"], "day", 65_000_u64),
    ];
    for (holder, period, limit) in &limits {
        let amount = format!("0.{limit:06}");
        scene.tipstaff(&[&["budgets", "set", "--per", period, &amount][..], holder].concat()).expect(0);
    }
    let steps = json!([{"text": "fine", "usage": {"input": 100, "output": 90}}]);
    let calls: String = (0..4)
        .map(|lane| {
            let one = call("s", steps.clone()).replace("/tmp/body", &format!("/tmp/body{lane}"));
            format!("( for i in 1 2 3 4 5 6; do\n{one}done ) &\n")
        })
        .collect();
    let script = format!("{calls}wait\n");
    let start = || {
        let mut command = scene.command(&["run", "--json", "--agent", "fixer", "--model", "openai/gpt-5.5"]);
        command.args(["--budget", "0.06", "--timeout", "120s", "--", "sh", "-c", &script]);
        Running::start(command)
    };
    let mut runs = [start(), start(), start()];
    let answered =
        |runs: &[Running]| runs.iter().map(|run| run.said().matches("s-status-200").count()).sum::<usize>();
    runs[0].until("some answers", || answered(&runs) >= 4);
    runs[0].child.kill().unwrap();
    runs[0].ended();
    // Whoever comes next marks the dead run; what it had open is spent then, and nobody waits for it any more.
    scene.tipstaff(&["runs", "list"]).expect(0);
    for run in &mut runs {
        run.ended();
    }
    let answered = u64::try_from(answered(&runs)).unwrap();
    let standing = scene.json_lines(&["budgets", "list", "--json"]);
    let (total, calls) = scene.total();
    for (one, limit) in standing.iter().map(|one| (one, one["amount_micro_usd"].as_u64().unwrap())) {
        let spent = one["spent_micro_usd"].as_u64().unwrap();
        assert!(spent <= limit, "{one}");
        assert_eq!(
            (spent, &one["reserved_micro_usd"]),
            (total, &0.into()),
            "totals are the sums of the calls: {one}"
        );
    }
    assert_eq!(standing.len(), limits.len());
    assert!(total >= answered * STORM_COST, "{total} for {answered} answers: none is lost");
    assert!(total > 40_000 && calls >= answered, "the storm met its budget: {total}, {calls}");
    let refused = runs.iter().any(|run| run.said().contains("s-status-402"));
    assert!(refused, "{}", runs[1].said());
    scene.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn a_storm_of_runs_and_calls_keeps_to_every_budget_on_sqlite() {
    storm(&Scene::new());
}

#[test]
fn a_storm_of_runs_and_calls_keeps_to_every_budget_on_postgresql() {
    storm(&Scene::on_postgres());
}

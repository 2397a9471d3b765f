//! Sub-runs: `tipstaff run --under RUN`, what it is granted, what it spends, and how it ends.

use crate::narrowing::{HOST, LONG, OTHER, Scene};
use crate::world::{Ended, World, wait};
use serde_json::Value;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A command that goes on until somebody ends it.
const WAITS: &str = "while :; do sleep 0.2; done";

/// The newest run, once it is at work.
fn at_work(world: &World, besides: &[&str]) -> String {
    let begun = Instant::now();
    loop {
        let list = world.tipstaff(&["runs", "list", "--state", "running", "--json"]).expect(0).stdout;
        let ids = list.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut ids = ids.map(|one| one["run"].as_str().unwrap().to_owned());
        if let Some(id) = ids.find(|id| !besides.contains(&id.as_str())) {
            return id;
        }
        assert!(begun.elapsed() < LONG, "the run never got under way");
        std::thread::park_timeout(Duration::from_millis(25));
    }
}

/// A run that goes on until somebody ends it.
struct Waiting {
    run: String,
    child: Child,
}

impl Waiting {
    fn new(world: &World, repository: &Path, options: &[&str], besides: &[&str]) -> Self {
        let repo = repository.to_str().unwrap();
        let head: &[&str] = if options.contains(&"--under") {
            &["run", "--json"]
        } else {
            &["run", "--json", "--repo", repo]
        };
        let child = world.start(&[head, options, &["--", "sh", "-c", WAITS]].concat());
        Self { run: at_work(world, besides), child }
    }

    fn ends(self) -> Ended {
        wait(self.child, LONG)
    }

    fn cancel(self, world: &World) {
        world.tipstaff(&["runs", "cancel", &self.run]).expect(0);
        self.ends().expect(1);
    }
}

fn shown(world: &World, run: &str) -> Value {
    world.tipstaff(&["runs", "show", run, "--json"]).expect(0).json()
}

fn warrant_of(world: &World, run: &str) -> Value {
    shown(world, run)["warrant"].clone()
}

/// How it ended, and what was said of it.
fn ended_by_warrant(ended: Ended, why: &str) {
    let summary = ended.expect(3).json();
    assert_eq!(
        (&summary["state"], &summary["exit_reason"]),
        (&"failed".into(), &"warrant_revoked".into()),
        "{summary}"
    );
    let error = summary["error"].as_str().unwrap_or_default();
    assert!(error.contains("the run that it worked under") && error.contains(why), "{summary}");
}

#[test]
fn a_sub_run_works_with_at_most_what_the_run_above_has() {
    let world = World::new();
    let repository = world.repository("demo");
    let options =
        ["--budget", "0.40", "--timeout", "10m", "--protect", "docs/**", "--role", "cloud-engineer"];
    let above = Waiting::new(&world, &repository, &options, &[]);
    // The base of the run above, also where its repository moved on.
    world.write(&repository.join("later.txt"), "later\n");
    world.commit(&repository, "later");
    let script = ["--", "sh", "-c", "test ! -e later.txt && echo more >> src/main.txt"];
    let ended = world.tipstaff(&[&["run", "--json", "--under", &above.run][..], &script].concat()).expect(0);
    let summary = ended.json();
    assert_eq!(
        (&summary["under"], &summary["files_changed"]),
        (&above.run.as_str().into(), &1.into()),
        "{summary}"
    );
    let below = summary["run"].as_str().unwrap().to_owned();
    let (mine, theirs) = (warrant_of(&world, &below), warrant_of(&world, &above.run));
    assert_eq!(
        (&mine["parent"], &mine["role"]),
        (&theirs["id"], &"cloud-engineer".into()),
        "the role of the run above"
    );
    assert_eq!((&mine["budget"], &mine["repositories"]), (&theirs["budget"], &theirs["repositories"]));
    assert!(
        mine["limits"]["wall_ms"].as_u64().unwrap() < 600_000
            && mine["expires_at"].as_i64() <= theirs["expires_at"].as_i64()
    );
    assert!(mine["paths"]["protected"].as_array().unwrap().contains(&"docs/**".into()), "{mine}");
    assert_ne!(mine["push"]["ref"], theirs["push"]["ref"], "a branch of its own");
    // Asked for and within.
    let more = ["--role", "reviewer", "--budget", "0.10", "--timeout", "1m", "--dry-run"];
    let dry = world
        .tipstaff(&[&["run", "--json", "--under", &above.run][..], &more, &["--", "true"]].concat())
        .expect(0);
    let planned = &dry.json()["warrant"];
    assert_eq!((&planned["kind"], &planned["budget"]), (&"review".into(), &100_000.into()), "{planned}");

    let page = world.tipstaff(&["runs", "show", &below]).expect(0).stdout;
    assert!(page.contains(&format!("run {}: it ends with it", above.run)), "{page}");
    let page = world.tipstaff(&["runs", "show", &above.run]).expect(0).stdout;
    assert!(page.contains(&format!("{below} done")) && page.contains("sub-runs"), "{page}");
    assert_eq!(shown(&world, &above.run)["summary"]["sub_runs"][0], below.as_str());
    let about = format!("warrant:{}", mine["id"].as_str().unwrap());
    let log = world.tipstaff(&["audit", "list", "--about", &about, "--json"]).expect(0).stdout;
    assert!(log.contains("warrant.issued") && log.contains(&above.run), "{log}");
    assert!(log.contains(theirs["id"].as_str().unwrap()), "{log}");
    let show = world.tipstaff(&["warrants", "show", mine["id"].as_str().unwrap()]).expect(0).stdout;
    assert!(show.contains(&format!("narrowed from that of run {}", above.run)), "{show}");

    // Its change is one like any other, and leaves with the same hands.
    world.tipstaff(&["runs", "apply", &below]).expect(0);
    let run = above.run.clone();
    above.cancel(&world);
    // Nothing works under a run that ended.
    let late = world.tipstaff(&["run", "--json", "--under", &run, "--", "true"]).expect(3).json();
    assert_eq!(late["error"]["code"], "run-above-ended", "{late}");
    assert!(late["error"]["message"].as_str().unwrap().contains("has ended (cancelled)"), "{late}");
    // A run of nobody here.
    for unknown in ["00000000-0000-7000-8000-000000000000", "ffff1234", "no-run"] {
        let error = world.tipstaff(&["run", "--json", "--under", unknown, "--", "true"]).expect(2).json();
        assert_eq!(error["error"]["code"], "run-unknown", "{error}");
    }
}

#[test]
fn whatever_is_more_than_the_run_above_has_is_refused_by_name() {
    let scene = Scene::new();
    scene.secret();
    let (world, repository) = (&scene.world, &scene.repository);
    let port = scene.hosts.port();
    let (granted, other) = (format!("{HOST}:{port}"), format!("{OTHER}:{port}"));
    let elsewhere = world.repository("elsewhere");
    let first = world.git(repository, &["rev-parse", "HEAD"]).trim().to_owned();
    world.write(&repository.join("second.txt"), "second\n");
    world.commit(repository, "second");
    let options =
        ["--budget", "0.40", "--timeout", "5m", "--allow-host", &granted, "--model", "openai/gpt-5.5"];
    let builder = Waiting::new(world, repository, &options, &[]);
    let refused = |under: &Waiting, dimension: &str, wanted: &str, has: &str, more: &[&str]| {
        let asked = [&["run", "--json", "--under", &under.run][..], more, &["--", "true"]].concat();
        let error = world.tipstaff(&asked).expect(3).json();
        let message = error["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(error["error"]["code"], "warrant-widening", "{more:?}: {error}");
        for part in [dimension, wanted, has, "ask for less"] {
            assert!(message.contains(part), "{part} of {more:?}: {message}");
        }
        // Before it is tried as well.
        let dry =
            [&["run", "--json", "--dry-run", "--under", &under.run][..], more, &["--", "true"]].concat();
        assert_eq!(world.tipstaff(&dry).expect(3).json()["error"]["code"], "warrant-widening", "{more:?}");
        let queued =
            [&["run", "--json", "--queue", "--under", &under.run][..], more, &["--", "true"]].concat();
        assert_eq!(world.tipstaff(&queued).expect(3).json()["error"]["code"], "warrant-widening", "{more:?}");
    };
    refused(&builder, "egress", &other, &granted, &["--allow-host", &other]);
    refused(&builder, "budget", "$0.41", "$0.40", &["--budget", "0.41"]);
    refused(&builder, "time", "6m", "at most", &["--timeout", "6m"]);
    refused(&builder, "models", "openai/gpt-5", "openai/gpt-5.5", &["--model", "openai/gpt-5"]);
    refused(&builder, "secrets", "api-token", "none", &["--allow-host", &granted, "--secret", "api-token"]);
    refused(&builder, "repositories", "elsewhere", "demo", &["--repo", elsewhere.to_str().unwrap()]);
    refused(&builder, "repositories", &first[..7], "demo", &["--base", &first]);
    // What is within is not refused.
    let within =
        ["--allow-host", &granted, "--model", "openai/gpt-5.5", "--budget", "0.40", "--base", "HEAD"];
    world
        .tipstaff(
            &[&["run", "--json", "--dry-run", "--under", &builder.run][..], &within, &["--", "true"]]
                .concat(),
        )
        .expect(0);

    let reviewer = Waiting::new(world, repository, &["--role", "reviewer"], &[&builder.run]);
    refused(&reviewer, "kind", "build", "review", &["--role", "builder"]);
    let gardener = Waiting::new(world, repository, &["--role", "gardener"], &[&builder.run, &reviewer.run]);
    refused(&gardener, "paths", "**", "CHANGELOG", &["--role", "builder"]);
    let before = world.tipstaff(&["runs", "list", "--json"]).expect(0).stdout.lines().count();
    assert_eq!(before, 3, "nothing that was refused is on record");
    for run in [builder, reviewer, gardener] {
        run.cancel(world);
    }
}

#[test]
fn a_sub_run_ends_with_the_run_above_and_with_its_warrant() {
    let world = World::new();
    let repository = world.repository("demo");
    // Cancelled: two levels below.
    let top = Waiting::new(&world, &repository, &[], &[]);
    let child = Waiting::new(&world, &repository, &["--under", &top.run], &[&top.run]);
    let grandchild = Waiting::new(&world, &repository, &["--under", &child.run], &[&top.run, &child.run]);
    assert_eq!(shown(&world, &grandchild.run)["summary"]["under"], child.run.as_str());
    world.tipstaff(&["runs", "cancel", &top.run]).expect(0);
    ended_by_warrant(child.ends(), "");
    ended_by_warrant(grandchild.ends(), "");
    top.ends().expect(1);

    // Revoked.
    let top = Waiting::new(&world, &repository, &[], &[]);
    let child = Waiting::new(&world, &repository, &["--under", &top.run], &[&top.run]);
    let id = warrant_of(&world, &top.run)["id"].as_str().unwrap().to_owned();
    world.tipstaff(&["warrants", "revoke", &id]).expect(0);
    ended_by_warrant(child.ends(), "");
    top.ends().expect(3);

    // Killed: once that is known, by whichever command.
    let mut top = Waiting::new(&world, &repository, &[], &[]);
    let child = Waiting::new(&world, &repository, &["--under", &top.run], &[&top.run]);
    top.child.kill().unwrap();
    top.child.wait().unwrap();
    let marked = shown(&world, &top.run);
    assert_eq!(marked["summary"]["state"], "interrupted", "{marked}");
    let run = child.run.clone();
    ended_by_warrant(child.ends(), "ended (interrupted)");
    let story = world.tipstaff(&["runs", "logs", &run]).expect(0);
    assert!(format!("{}{}", story.stdout, story.stderr).contains("this run ends with it"), "{story:#?}");
}

#[test]
fn what_is_taken_from_the_run_above_is_taken_from_those_under_it() {
    let world = World::new();
    let repository = world.repository("demo");
    let options = ["--allow-host", "one.example", "--allow-host", "two.example", "--budget", "1"];
    let top = Waiting::new(&world, &repository, &options, &[]);
    let child =
        Waiting::new(&world, &repository, &[&["--under", &top.run][..], &options].concat(), &[&top.run]);
    let inner = ["--under", &child.run, "--allow-host", "one.example", "--budget", "0.10"];
    let grandchild = Waiting::new(&world, &repository, &inner, &[&top.run, &child.run]);
    let id = warrant_of(&world, &top.run)["id"].as_str().unwrap().to_owned();
    let less = ["--drop-host", "two.example", "--budget", "0.50", "--protect", "docs/**"];
    let told = world.tipstaff(&[&["warrants", "narrow", &id, "--json"][..], &less].concat()).expect(0).json();
    assert_eq!(told["sub_runs"].as_array().unwrap().len(), 2, "{told}");
    let narrowed = |run: &str| {
        let all = shown(&world, run)["narrowed"].as_array().unwrap().clone();
        all.last().cloned().unwrap_or_else(|| panic!("{run} was not narrowed"))
    };
    for run in [&child.run, &grandchild.run] {
        let now = narrowed(run);
        assert_eq!(now["egress"], serde_json::json!(["one.example:443"]), "{now}");
        assert!(now["paths"]["protected"].as_array().unwrap().contains(&"docs/**".into()), "{now}");
    }
    assert_eq!(
        (&narrowed(&child.run)["budget"], &narrowed(&grandchild.run)["budget"]),
        (&500_000.into(), &100_000.into())
    );
    // They go on with it, and what begins now is measured by it.
    let asked = ["run", "--json", "--under", &child.run, "--allow-host", "two.example", "--", "true"];
    assert_eq!(world.tipstaff(&asked).expect(3).json()["error"]["code"], "warrant-widening");
    let begun = Instant::now();
    while !world.tipstaff(&["runs", "logs", &grandchild.run]).expect(0).stderr.contains("narrowed")
        && !world.tipstaff(&["runs", "logs", &grandchild.run]).expect(0).stdout.contains("narrowed")
    {
        assert!(begun.elapsed() < LONG, "the worker never learnt it");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    for run in [grandchild, child, top] {
        run.cancel(&world);
    }
}

#[test]
fn what_a_sub_run_spends_is_gone_for_the_run_above() {
    let scene = Scene::new();
    let world = &scene.world;
    let inspect = format!("{HOST}:{}", scene.hosts.port());
    let script = "until [ \"$(curl -sS -m 10 \"$BASE/go\")\" = go ]; do sleep 0.2; done\nmodel after\nexit 0";
    let top = scene.start(&["--budget", "0.10", "--inspect", &inspect], script);
    let run = at_work(world, &[]);
    let spends = "n=0; while [ $n -lt 200 ]; do model call; case $(tail -c 400 /tmp/out) in *insufficient*|*budget*) exit 0;; esac; n=$((n+1)); done";
    let child = wait(scene.start(&["--under", &run], spends), LONG * 2).expect(4).json();
    let spent = child["cost_micro_usd"].as_u64().unwrap();
    assert!(spent > 0 && spent <= 100_000, "{child}");
    // Its own budget is whole; the one above is gone.
    let other = wait(scene.start(&["--under", &run, "--budget", "0.05"], "model call; exit 0"), LONG).json();
    let refusals = other["refusals"].to_string();
    assert!(refusals.contains("the budget of the run above this one"), "{other}");
    let calls = scene.models.scripted_requests().len();
    scene.go.store(true, Ordering::SeqCst);
    let ended = wait(top, LONG);
    let summary = ended.json();
    assert!(summary["refusals"].to_string().contains("the budget of the run of $0.10 is spent"), "{summary}");
    assert_eq!((&summary["cost_micro_usd"], scene.models.scripted_requests().len()), (&0.into(), calls));
    let used = shown(world, &run)["used_with_sub_runs_micro_usd"].as_u64().unwrap();
    assert!(used >= spent && used <= 100_000, "{used} of {spent}");
}

#[test]
fn there_are_only_so_many_sub_runs_beside_and_above_each_other() {
    let world = World::new();
    let repository = world.repository("demo");
    let top = Waiting::new(&world, &repository, &[], &[]);
    let queue = |under: &str| world.tipstaff(&["run", "--json", "--queue", "--under", under, "--", "true"]);
    for _ in 0..16 {
        queue(&top.run).expect(0);
    }
    let full = queue(&top.run).expect(3).json();
    assert_eq!(full["error"]["code"], "sub-run-count", "{full}");
    // A worker carries them out, and there is room again.
    world.tipstaff(&["worker", "--once", "--slots", "2"]).expect(0);
    assert_eq!(shown(&world, &top.run)["summary"]["sub_runs"].as_array().unwrap().len(), 16);
    queue(&top.run).expect(0);
    // One whose run above ended before its turn came fails, and says why.
    let last = top.run.clone();
    top.cancel(&world);
    world.tipstaff(&["worker", "--once"]).expect(0);
    let runs = shown(&world, &last)["summary"]["sub_runs"].clone();
    let late = runs[16].as_str().unwrap_or_else(|| panic!("{runs}")).to_owned();
    let late = shown(&world, &late)["summary"].clone();
    assert_eq!((&late["state"], &late["exit_reason"]), (&"failed".into(), &"refused".into()), "{late}");
    assert!(late["error"].as_str().unwrap().contains("has ended (cancelled)"), "{late}");

    let mut line = vec![Waiting::new(&world, &repository, &[], &[])];
    for _ in 0..4 {
        let runs: Vec<String> = line.iter().map(|one| one.run.clone()).collect();
        let besides: Vec<&str> = runs.iter().map(String::as_str).collect();
        let above = besides.last().copied().unwrap();
        line.push(Waiting::new(&world, &repository, &["--under", above], &besides));
    }
    let deep = world.tipstaff(&["run", "--json", "--under", &line[4].run, "--", "true"]).expect(3).json();
    assert_eq!(deep["error"]["code"], "sub-run-depth", "{deep}");
    while let Some(run) = line.pop() {
        run.cancel(&world);
    }
}

#[test]
fn the_policy_of_the_run_above_binds_those_under_it() {
    let world = World::new();
    let repository = world.repository("demo");
    let top =
        Waiting::new(&world, &repository, &["--deny", "path:secrets/**", "--deny", "host:bad.example"], &[]);
    let asked = ["run", "--json", "--under", &top.run, "--allow-host", "bad.example", "--", "true"];
    let refused = world.tipstaff(&asked).expect(3).json();
    assert_eq!(refused["error"]["code"], "policy-denied", "{refused}");
    let dry =
        world.tipstaff(&["run", "--json", "--dry-run", "--under", &top.run, "--", "true"]).expect(0).json();
    let protected = &dry["warrant"]["paths"]["protected"];
    assert!(protected.as_array().unwrap().contains(&"secrets/**".into()), "{protected}");
    top.cancel(&world);
}

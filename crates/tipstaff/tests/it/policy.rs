//! Narrowing while a run goes on, explaining what may be done, and learning from what was refused.

use crate::audit::meddle;
use crate::world::{Ended, World, wait};
use serde_json::Value;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

/// What a host that never answers sees.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// The beginning of TLS came through a tunnel.
    Hello,
    /// The tunnel was closed.
    Closed,
}

/// A host on this machine that takes connections, reads what comes and says nothing.
fn silent_host() -> (u16, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender: Sender<Seen> = sender.clone();
            std::thread::spawn(move || watch(stream, &sender));
        }
    });
    (port, receiver)
}

fn watch(mut stream: std::net::TcpStream, sender: &Sender<Seen>) {
    let mut buffer = [0_u8; 4096];
    let mut said = false;
    while let Ok(1..) = stream.read(&mut buffer) {
        if !said {
            said = true;
            // The test may be over.
            let _gone = sender.send(Seen::Hello);
        }
    }
    let _gone = sender.send(Seen::Closed);
}

/// The operator's own names for hosts of this machine.
fn name_hosts(world: &World, names: &[&str]) {
    world.tipstaff(&["runs", "list"]).expect(0);
    let lines: Vec<String> = names.iter().map(|name| format!("\"{name}\" = [\"127.0.0.1\"]\n")).collect();
    world.write(&world.home().join("config.toml"), &format!("[network.hosts]\n{}", lines.concat()));
}

fn start(world: &World, repository: &Path, options: &[&str], script: &str) -> Child {
    let repo = repository.to_str().unwrap();
    let head = ["run", "--json", "--timeout", "120s", "--repo", repo];
    world.start(&[&head[..], options, &["--", "sh", "-c", script]].concat())
}

/// The one warrant in force, once its run is under way.
pub(crate) fn warrant(world: &World) -> String {
    for _ in 0..2000 {
        let running = world.tipstaff(&["runs", "list", "--json"]).expect(0).stdout.contains("\"running\"");
        if running {
            let id = world.tipstaff(&["warrants", "list", "--json"]).expect(0).json()["id"].clone();
            return id.as_str().unwrap().to_owned();
        }
        std::thread::park_timeout(Duration::from_millis(25));
    }
    panic!("the run never got under way");
}

pub(crate) fn narrow(world: &World, warrant: &str, options: &[&str]) -> Ended {
    world.tipstaff(&[&["warrants", "narrow", warrant, "--json"][..], options].concat())
}

fn code(ended: Ended) -> String {
    ended.json()["error"]["code"].as_str().unwrap().to_owned()
}

#[test]
fn a_run_is_narrowed_while_it_goes_on_and_its_tunnel_closes() {
    let world = World::new();
    let repository = world.repository("demo");
    let ((gone, seen_gone), (kept, seen_kept)) = (silent_host(), silent_host());
    name_hosts(&world, &["gone.example", "kept.example"]);
    let script = format!(
        "curl -sS -m 100 https://kept.example:{kept}/ & \
         curl -sS -m 100 https://gone.example:{gone}/; echo closed > closed.txt; \
         curl -sS -m 20 https://gone.example:{gone}/; kill $!; wait; echo on > on.txt"
    );
    let options = [format!("gone.example:{gone}"), format!("kept.example:{kept}")];
    let options = ["--allow-host", &options[0], "--allow-host", &options[1]];
    let child = start(&world, &repository, &options, &script);
    assert_eq!(seen_gone.recv_timeout(SOON), Ok(Seen::Hello));
    assert_eq!(seen_kept.recv_timeout(SOON), Ok(Seen::Hello));
    let first = warrant(&world);

    let begun = Instant::now();
    let told = narrow(&world, &first, &["--drop-host", "gone.example"]).expect(0).json();
    assert_eq!(seen_gone.recv_timeout(SOON), Ok(Seen::Closed));
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(seen_kept.try_recv().is_err(), "what is still granted stays open");

    let summary = wait(child, Duration::from_secs(60)).expect(0).json();
    assert_eq!(summary["files_changed"], 2, "the run went on: {summary}");
    let refused = summary["refusals"].as_array().unwrap();
    let wanted = format!("gone.example:{gone}");
    assert!(
        refused.iter().any(|one| one["rule"] == "host-not-granted" && one["wanted"] == wanted.as_str()),
        "{summary}"
    );
    let second = told["warrant"]["id"].as_str().unwrap();
    assert_eq!(told["warrant"]["parent"], first.as_str());
    let run = summary["run"].as_str().unwrap();
    let shown = world.tipstaff(&["runs", "show", run]).expect(0).stdout;
    assert!(shown.contains(&format!("narrowed to {second}")), "{shown}");
    let log = world
        .tipstaff(&["audit", "list", "--about", &format!("warrant:{second}"), "--json"])
        .expect(0)
        .stdout;
    assert!(log.contains("warrant.narrowed") && log.contains("warrant.enforced"), "{log}");
    let told = world.tipstaff(&["runs", "show", run, "--transcript"]).expect(0);
    let told = format!("{}{}", told.stdout, told.stderr);
    assert!(told.contains("the warrant was narrowed: no longer reaches gone.example"), "{told}");
    world.tipstaff(&["audit", "verify"]).expect(0);

    // What it may, what it could, and who took it.
    let page = world.tipstaff(&["policy", "explain", "--run", run]).expect(0).stdout;
    assert!(page.contains("can't any more") && page.contains(&format!("reach {wanted}")), "{page}");
}

#[test]
fn an_earlier_end_and_a_push_taken_away_reach_the_run() {
    let world = World::new();
    let repository = world.repository("demo");
    let child = start(&world, &repository, &[], "echo x > x.txt; sleep 100");
    let first = warrant(&world);
    for (options, wanted) in [
        (&[][..], "narrowing-empty"),
        (&["--budget", "100"], "warrant-widening"),
        (&["--timeout", "1h"], "warrant-widening"),
        (&["--drop-host", "nowhere.example"], "not-granted"),
        (&["--drop-model", "openai/gpt-5.5"], "not-granted"),
        (&["--drop-secret", "TOKEN"], "not-granted"),
    ] {
        assert_eq!(code(narrow(&world, &first, options).expect(2)), wanted, "{options:?}");
    }
    let told =
        narrow(&world, &first, &["--no-push", "--protect", "src/**", "--budget", "0.5"]).expect(0).json();
    let second = told["warrant"]["id"].as_str().unwrap().to_owned();
    assert_eq!((&told["warrant"]["push"], &told["warrant"]["budget"]), (&Value::Null, &500_000.into()));
    assert_eq!(code(narrow(&world, &first, &["--no-push"]).expect(2)), "warrant-replaced");
    assert_eq!(warrant(&world), second, "one warrant of a run is in force");
    narrow(&world, &second, &["--timeout", "1s"]).expect(0);
    let summary = wait(child, Duration::from_secs(60)).expect(5).json();
    assert_eq!((&summary["exit_reason"], &summary["files_changed"]), (&"timed_out".into(), &0.into()));
    assert_eq!(code(narrow(&world, &second, &["--no-push"]).expect(2)), "warrant-not-in-force");
    world.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn a_forged_warrant_in_the_store_ends_the_run_and_is_on_record() {
    let world = World::new();
    let repository = world.repository("demo");
    let child = start(&world, &repository, &[], "echo x > x.txt; sleep 100");
    let first = warrant(&world);
    // The same with more money, under a new id and the old signature.
    let forged = format!("{}0000", &first[..32]);
    meddle(
        &world,
        &format!(
            "insert into warrant (org_id, id, run_id, parent_id, body, signature, key_id, digest, issued_at, expires_at) \
             select org_id, '{forged}', run_id, id, replace(replace(body, '{first}', '{forged}'), '\"budget\":2000000', \
             '\"budget\":900000000'), signature, key_id, digest, issued_at, expires_at from warrant; \
             update run set warrant_id = '{forged}';"
        ),
    );
    let summary = wait(child, Duration::from_secs(60)).expect(3).json();
    assert_eq!(summary["exit_reason"], "refused", "{summary}");
    let refused = summary["refusals"].as_array().unwrap();
    assert!(refused.iter().any(|one| one["rule"] == "warrant-forged"), "{summary}");
    let log = world.tipstaff(&["audit", "list", "--limit", "100", "--json"]).expect(0).stdout;
    assert!(log.contains("warrant-forged") && !log.contains("warrant.enforced"), "{log}");
    let refused = world.tipstaff(&["policy", "explain", "--warrant", &forged, "--json"]).expect(3);
    assert_eq!(code(refused), "warrant-forged");
}

#[test]
fn a_policy_is_explained_before_during_and_after_a_run() {
    let world = World::new();
    let repository = world.repository("demo");
    let page = world.tipstaff_in(&repository, &["policy", "explain", "--role", "builder"]).expect(0).stdout;
    for part in [
        "It reads",
        "It pushes",
        "It never",
        "template of the role builder",
        ".github/workflows/**",
        "no host",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let can = |options: &[&str], questions: &[&str], exit: i32| -> Vec<Value> {
        let mut all = [&["policy", "explain", "--json"], options].concat();
        for question in questions {
            all.extend(["--can", question]);
        }
        let answers = world.tipstaff_in(&repository, &all).expect(exit).json()["answers"].clone();
        answers.as_array().unwrap().clone()
    };
    let options = ["--role", "builder", "--allow-host", "registry:npm", "--engine", "codex"];
    let no = [
        ("write .github/workflows/ci.yml", "path-protected", "template of the role builder"),
        ("reach api.github.com:443", "host-not-granted", "what no rule grants is refused"),
        ("reach registry.npmjs.org:80", "port-not-granted", "what no rule grants is refused"),
        ("push refs/heads/main", "ref-not-granted", "template of the role builder"),
        ("ask openai/other-model", "model-not-granted", "what no rule grants is refused"),
        ("read acme/other", "repository-not-granted", "what no rule grants is refused"),
        ("spend 5", "budget-exceeded", "template of the role builder"),
    ];
    let questions: Vec<&str> = no.iter().map(|(question, ..)| *question).collect();
    for (answer, (question, rule, source)) in can(&options, &questions, 3).iter().zip(no) {
        assert_eq!(answer["can"], false, "{question}");
        let answer = &answer["answer"];
        assert_eq!(
            (&answer["refusal"]["rule"], &answer["source"]["text"]),
            (&rule.into(), &source.into()),
            "{question}"
        );
        assert!(answer["next"].as_str().is_some_and(|next| !next.is_empty()), "{answer}");
    }
    let yes = ["write src/main.rs", "reach registry.npmjs.org", "exec", "spend 1.5"];
    let answers = can(&options, &yes, 0);
    assert_eq!(answers[1]["answer"]["source"]["text"], "--allow-host registry:npm");
    let text = world
        .tipstaff_in(&repository, &["policy", "explain", "--role", "refiner", "--can", "exec"])
        .expect(3);
    assert!(text.stdout.contains("no   exec") && text.stdout.contains("exec-not-granted"), "{text:#?}");
    let wrong = world.tipstaff_in(&repository, &["policy", "explain", "--can", "fly", "--json"]).expect(2);
    assert_eq!(code(wrong), "question");
    assert_eq!(world.tipstaff(&["runs", "list", "--json"]).expect(0).stdout.trim(), "", "nothing was begun");

    // A warrant that is over grants nothing; what it granted is said.
    let run = world.run_script(&repository, "echo x > x.txt").expect(0).json()["run"].clone();
    let run = run.as_str().unwrap();
    let over = can(&["--run", run], &["exec"], 3);
    assert_eq!((&over[0]["can"], &over[0]["lapsed"]), (&false.into(), &"warrant-revoked".into()));
    assert_eq!(over[0]["answer"]["granted"], true);
    let page = world.tipstaff(&["policy", "explain", "--run", run]).expect(0).stdout;
    assert!(page.contains("out of force since") && page.contains("this is what it granted"), "{page}");
}

/// A proposal as a file.
fn proposal(world: &World) -> PathBuf {
    let file = world.path().join("allow.toml");
    world.write(&file, &world.tipstaff(&["runs", "learn", "--toml"]).expect(0).stdout);
    file
}

#[test]
fn refusals_become_a_proposal_that_grants_nothing_by_itself() {
    let world = World::new();
    let repository = world.repository("demo");
    let script = "for host in registry.npmjs.org registry.npmjs.org api.corp.example 169.254.169.254 localhost g1thub.com; \
                  do curl -s -m 5 -x http://127.0.0.1:8080 https://$host/; done; echo x > x.txt";
    let ended = world
        .tipstaff_in(&repository, &["run", "--learn", "--json", "--timeout", "60s", "--", "sh", "-c", script])
        .expect(0);
    let learned = ended.stdout.lines().find(|line| line.contains("\"learned\"")).unwrap();
    let learned: Value = serde_json::from_str(learned).unwrap();
    assert_eq!(learned["learned"]["options"].as_array().unwrap().len(), 3, "{learned}");
    assert!(ended.json()["refusals"].as_array().unwrap().len() >= 5, "refusals stay refusals");

    let page = world.tipstaff(&["runs", "learn"]).expect(0).stdout;
    assert!(page.contains("--allow-host registry:npm") && page.contains("wanted 2 times in 1 run"), "{page}");
    assert!(page.contains("Not proposed:") && page.contains("169.254.169.254"), "{page}");
    assert!(page.contains("odd: it looks like github.com"), "{page}");
    let object = world.tipstaff(&["runs", "learn", "--since", "1d", "--json"]).expect(0).json();
    assert_eq!(object["options"][0], "--allow-host registry:npm");
    let nobody =
        world.tipstaff(&["runs", "learn", "--since", "1d", "--agent", "nobody", "--json"]).expect(0).json();
    assert_eq!(nobody["proposed"].as_array().unwrap().len(), 0);
    let shown = world.tipstaff(&["runs", "show"]).expect(0).stdout;
    assert!(shown.contains("registry.npmjs.org") && shown.contains("2 times"), "{shown}");
    assert!(shown.contains("grant it with --allow-host"), "{shown}");

    // The file is for a person to read and to give; an agent could have written one in the repository.
    let file = proposal(&world);
    let can = |file: &Path| {
        let file = file.to_str().unwrap();
        let question = "reach registry.npmjs.org";
        world.tipstaff_in(
            &repository,
            &["policy", "explain", "--json", "--allow-from", file, "--can", question],
        )
    };
    assert_eq!(can(&file).expect(0).json()["answers"][0]["can"], true);
    let inside = repository.join("allow.toml");
    std::fs::copy(&file, &inside).unwrap();
    assert_eq!(code(can(&inside).expect(3)), "allow-file-in-repository");
    world.write(&file, "hosts = [\"*\"]\n");
    assert_eq!(code(can(&file).expect(2)), "allow-file");
    world.write(&file, "secrets = [\"all\"]\n");
    assert_eq!(code(can(&file).expect(2)), "allow-file");
    let without = world.tipstaff_in(&repository, &["policy", "explain", "--can", "reach registry.npmjs.org"]);
    assert_eq!(without.code, Some(3), "nothing was granted by learning: {without:#?}");
}

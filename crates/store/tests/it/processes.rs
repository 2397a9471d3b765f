//! Real processes on one file, ended by SIGKILL at any moment.

use crate::support::{START, World, audit_draft, entropy, event, ring_key, run_draft, task_draft};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{FixedClock, RunState};
use tipstaff_seal::log::{LogVerifier, Tail};
use tipstaff_seal::{Secret, SystemEntropy};
use tipstaff_store::{Engine, Store, StoreConfig, TakeOver, TaskFilter};

const FILE: &str = "TIPSTAFF_STORE_TEST_CHILD_FILE";
const NAME: &str = "TIPSTAFF_STORE_TEST_CHILD_NAME";

/// What a child process does, again and again, until it is killed: a task from beginning to end, with its audit
/// records, and now and then a key rotation. It prints a line after each commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Ok(file), Ok(name)) = (std::env::var(FILE), std::env::var(NAME)) else { return };
    let clock = Arc::new(FixedClock::at(START));
    let config = StoreConfig::sqlite(&file).busy_timeout_ms(60_000);
    let store = Store::open(config, ring_key(), clock, Arc::new(SystemEntropy)).await.unwrap();
    let me = store.authenticate_local(&crate::support::person(1)).await.unwrap();
    for round in 0.. {
        let mut tx = store.begin(&me.scope).await.unwrap();
        let task = tx.task_add(task_draft()).await.unwrap().id();
        let lease = tx.task_claim(task, &name, 60_000).await.unwrap().unwrap();
        tx.run_add(&lease, &run_draft()).await.unwrap();
        tx.audit_note(audit_draft("run:begun"));
        tx.commit().await.unwrap();
        println!("begun {}", lease.run());
        for state in [RunState::Running, RunState::Verifying, RunState::Done] {
            let mut tx = store.begin(&me.scope).await.unwrap();
            tx.event_add(&lease, &vec![event("line"); 30]).await.unwrap();
            tx.run_update(&lease, &RunUpdate { state: Some(state), ..RunUpdate::default() }).await.unwrap();
            tx.audit_note(audit_draft("run:moved"));
            tx.commit().await.unwrap();
        }
        println!("done {}", lease.run());
        if round % 3 == 0 {
            let mut tx = store.begin(&me.scope).await.unwrap();
            tx.secret_set(&name, &Secret::new(name.clone().into_bytes())).await.unwrap();
            tx.ring_rotate_begin().await.unwrap();
            tx.commit().await.unwrap();
            let mut tx = store.begin(&me.scope).await.unwrap();
            tx.ring_reseal_step(1).await.unwrap();
            tx.ring_retire_unused().await.unwrap();
            tx.commit().await.unwrap();
        }
    }
}

fn spawn(file: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::child", "--nocapture", "--test-threads=1"])
        .env(FILE, file)
        .env(NAME, name)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads what a child says, and kills it after `lines` lines; what it had said by then.
fn kill_after(mut child: Child, lines: usize) -> Vec<String> {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut said = Vec::new();
    let mut line = String::new();
    while said.len() < lines && out.read_line(&mut line).unwrap() > 0 {
        if line.starts_with("begun") || line.starts_with("done") {
            said.push(line.trim().to_owned());
        }
        line.clear();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_killed_at_any_moment_lose_nothing() {
    let world = World::new(Engine::Sqlite).await;
    let mut said = Vec::new();
    for round in 0..5_usize {
        let children: Vec<_> = (0..3)
            .map(|number| {
                (spawn(&world.file, &format!("dead-{round}-{number}")), 1 + (round * 7 + number * 5) % 23)
            })
            .collect();
        let killers: Vec<_> = children
            .into_iter()
            .map(|(child, lines)| std::thread::spawn(move || kill_after(child, lines)))
            .collect();
        for killer in killers {
            said.extend(killer.join().unwrap());
        }
        // The next start: mark what the dead left, and see that everything that was said is there.
        let clock = Arc::new(FixedClock::at(START));
        let store = Store::open(world.config.clone(), ring_key(), clock, entropy()).await.unwrap();
        for owner in store.lease_owner_list().await.unwrap() {
            assert!(owner.starts_with("dead-"));
            for reaped in store.task_reap(TakeOver::Dead(&owner), "next").await.unwrap() {
                assert_eq!(reaped.task_state, RunState::Interrupted);
            }
        }
        let mut read = store.read(&world.me.scope).await.unwrap();
        assert!(read.run_list_open().await.unwrap().is_empty());
        let runs = read.run_list(None, 100_000).await.unwrap();
        for line in &said {
            let (word, id) = line.split_once(' ').unwrap();
            let run = runs.iter().find(|run| run.id.to_string() == id);
            let run = run.unwrap_or_else(|| panic!("{line} was committed, and is lost"));
            assert!(word == "begun" || run.state == RunState::Done, "{line}: {run:?}");
            let events = read.event_list(run.id, 0, 1_000).await.unwrap();
            assert!(events.iter().zip(1..).all(|(event, seq)| event.seq == seq));
            assert!(run.state != RunState::Done || events.len() == 90);
        }
        let tasks = read.task_list(TaskFilter::default(), 100_000).await.unwrap();
        assert!(tasks.iter().all(|task| task.state.is_final()));
        for secret in read.secret_list().await.unwrap() {
            assert_eq!(
                read.secret_get(&secret.name).await.unwrap().unwrap().expose(),
                secret.name.as_bytes()
            );
        }
        let key = read.audit_key().await.unwrap();
        let report = read.audit_verify(LogVerifier::new(key, Tail::Sealed)).await.unwrap();
        assert!(report.is_good(), "{report:?}");
        store.integrity_check().await.unwrap();
    }
    assert!(said.len() > 60, "{}", said.len());
}

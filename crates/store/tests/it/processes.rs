//! Real processes on one file, ended by SIGKILL at any moment.

use crate::approval::question;
use crate::support::{START, World, audit_draft, entropy, event, ring_key, run_draft, task_draft};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    ApprovalAnswer, ApprovalId, ApprovalScope, ApprovalState, AuditAction, FixedClock, RunState,
};
use tipstaff_seal::log::{LogVerifier, Tail};
use tipstaff_seal::{Secret, SystemEntropy};
use tipstaff_store::{ApprovalAnswered, ApprovalFilter, Engine, Store, StoreConfig, TakeOver, TaskFilter};

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
    spawn_as("processes::child", file, name)
}

fn spawn_as(test: &str, file: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
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

/// What another child does: it asks one question after the other and uses each yes that it gets. It says what it asked,
/// and what it used after the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_child() {
    let (Ok(file), Ok(name)) = (std::env::var(FILE), std::env::var(NAME)) else { return };
    let config = StoreConfig::sqlite(&file).busy_timeout_ms(60_000);
    let clock = Arc::new(FixedClock::at(START));
    let store = Store::open(config, ring_key(), clock, Arc::new(SystemEntropy)).await.unwrap();
    // What is said begins its own line: the harness has begun one.
    println!();
    let me = store.authenticate_local(&crate::support::person(1)).await.unwrap();
    let mut tx = store.begin(&me.scope).await.unwrap();
    let task = tx.task_add(task_draft()).await.unwrap().id();
    let lease = tx.task_claim(task, &name, 60_000).await.unwrap().unwrap();
    tx.run_add(&lease, &run_draft()).await.unwrap();
    let signed = crate::support::warrant(&mut tx, &lease).await.unwrap();
    tx.warrant_add(&lease, &signed).await.unwrap();
    tx.commit().await.unwrap();
    for number in 1..=u8::MAX {
        let mut asked = question(&signed, number);
        asked.id = ApprovalId::new(&FixedClock::at(START), &SystemEntropy);
        let mut tx = store.begin(&me.scope).await.unwrap();
        tx.approval_ask(&lease, &asked).await.unwrap();
        tx.commit().await.unwrap();
        println!("asked {}", asked.id);
        let state = async || {
            let mut read = store.read(&me.scope).await.unwrap();
            read.approval_get(asked.id).await.unwrap().unwrap().state
        };
        while state().await == ApprovalState::Pending {
            tokio::task::yield_now().await;
        }
        let mut tx = store.begin(&me.scope).await.unwrap();
        assert!(tx.approval_use(&lease, asked.id, &asked.digest).await.unwrap());
        tx.commit().await.unwrap();
        println!("used {}", asked.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_at_any_moment_leaves_each_yes_used_once_or_unused() {
    let world = World::new(Engine::Sqlite).await;
    let (mut used, mut unused) = (0, 0);
    for round in 0..6_u64 {
        let name = format!("dead-{round}");
        let mut child = spawn_as("processes::asking_child", &world.file, &name);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (mut said, mut line) = (Vec::new(), String::new());
        while out.read_line(&mut line).unwrap() > 0 {
            if let Some(id) = line.trim().strip_prefix("asked ") {
                let id: ApprovalId = id.parse().unwrap();
                let mut tx = world.begin().await;
                let yes =
                    ApprovalAnswer { allow: true, scope: ApprovalScope::Once, until: None, reason: None };
                let answered = tx.approval_answer(world.me.member, id, &yes).await.unwrap();
                assert!(matches!(answered, Some(ApprovalAnswered::Now(_))));
                tx.commit().await.unwrap();
                if said.len() as u64 == 2 * round {
                    break;
                }
            }
            if line.starts_with("asked ") || line.starts_with("used ") {
                said.push(line.trim().to_owned());
            }
            line.clear();
        }
        // Between the answer and its use, or a little later.
        child.kill().unwrap();
        child.wait().unwrap();
        let mut read = world.read().await;
        let run = read.run_list_open().await.unwrap().pop().unwrap().id;
        let filter = ApprovalFilter { run: Some(run), ..ApprovalFilter::default() };
        let before = read.approval_list(filter, 100).await.unwrap();
        drop(read);
        world.store.task_reap(TakeOver::Dead(&name), "next").await.unwrap();
        let mut read = world.read().await;
        let after = read.approval_list(filter, 100).await.unwrap();
        assert_eq!(before.len(), after.len());
        let log = read.audit_list(None, 10_000).await.unwrap();
        for (before, after) in before.iter().zip(&after) {
            let id = before.request.id;
            assert!(before.answer.is_some() || before.state == ApprovalState::Pending, "{before:?}");
            let expected = if before.state == ApprovalState::Used {
                used += 1;
                ApprovalState::Used
            } else {
                unused += 1;
                ApprovalState::Withdrawn
            };
            assert_eq!(after.state, expected);
            assert!(!said.contains(&format!("used {id}")) || after.state == ApprovalState::Used);
            let uses = log.iter().filter_map(|entry| entry.record()).filter(|record| {
                record.action == AuditAction::ApprovalUsed && record.subject == format!("approval:{id}")
            });
            assert_eq!(uses.count(), usize::from(after.state == ApprovalState::Used));
        }
        let key = read.audit_key().await.unwrap();
        assert!(read.audit_verify(LogVerifier::new(key, Tail::Sealed)).await.unwrap().is_good());
    }
    assert!(used >= 15 && unused + used >= 21, "{used} {unused}");
}

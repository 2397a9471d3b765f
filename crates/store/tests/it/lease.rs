//! Leases: one at a time, fenced, and taken over when their worker is gone.

use crate::approval::question;
use crate::charge::{account, ask, call};
use crate::support::{code, event, narrowed, run_draft, story, task_draft, warrant};
use std::collections::HashSet;
use std::sync::Arc;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{EventKind, ExitReason, MicroUsd, Refusal, Rule, RunState, SteerId, SteerState};
use tipstaff_seal::SignedWarrant;
use tipstaff_store::{Lease, OrgTx, StoreError, TakeOver, TaskCancel, TaskDraft};
use tokio::sync::Barrier;

story! {
    async fn many_workers_claim_every_task_once(world: World) {
        let mut tx = world.begin().await;
        tx.task_add_batch(vec![task_draft(); 60]).await.unwrap();
        tx.commit().await.unwrap();
        let barrier = Arc::new(Barrier::new(6));
        let mut workers = Vec::new();
        for number in 0..6 {
            let (store, barrier) = (world.again().await, Arc::clone(&barrier));
            workers.push(tokio::spawn(async move {
                let worker = format!("worker-{number}");
                let mut mine = Vec::new();
                barrier.wait().await;
                loop {
                    match store.task_claim_batch(&worker, 60_000, 3).await.unwrap() {
                        leases if leases.is_empty() => return mine,
                        leases => mine.extend(leases),
                    }
                }
            }));
        }
        let mut claimed = Vec::new();
        for worker in workers {
            claimed.extend(worker.await.unwrap());
        }
        assert_eq!(claimed.len(), 60);
        assert_eq!(claimed.iter().map(Lease::task).collect::<HashSet<_>>().len(), 60);
        assert!(claimed.iter().all(|lease| lease.token().generation == 1 && lease.scope() == &world.me.scope));
        assert_eq!(claimed.iter().map(Lease::run).collect::<HashSet<_>>().len(), 60);
    }
}

story! {
    async fn the_oldest_task_whose_time_has_come_goes_first(world: World) {
        let now = crate::support::START;
        let mut tx = world.begin().await;
        let late = tx.task_add(TaskDraft { run_at: Some(now + 10), ..task_draft() }).await.unwrap().id();
        let second = tx.task_add(task_draft()).await.unwrap().id();
        let first = tx.task_add(TaskDraft { run_at: Some(now - 5), ..task_draft() }).await.unwrap().id();
        let cancelled = tx.task_add(TaskDraft { run_at: Some(now - 9), ..task_draft() }).await.unwrap().id();
        assert_eq!(tx.task_cancel(cancelled).await.unwrap(), Some(TaskCancel::Cancelled));
        assert!(tx.task_claim(late, "w", 1_000).await.unwrap().is_none());
        tx.commit().await.unwrap();
        let mut order = Vec::new();
        while let Some(lease) = world.store.task_claim("w", 1_000).await.unwrap() {
            order.push(lease.task());
        }
        assert_eq!(order, [first, second]);
        world.clock.advance(10);
        assert_eq!(world.store.task_claim("w", 1_000).await.unwrap().unwrap().task(), late);
        assert_eq!(world.store.lease_owner_list().await.unwrap(), ["w"]);
    }
}

/// Every write of a worker, so that none is forgotten to be fenced.
async fn every_fenced_write(tx: &mut OrgTx, lease: &Lease) -> Vec<(&'static str, Result<(), StoreError>)> {
    let signed = warrant(tx, lease).await.unwrap();
    let refusal = Refusal::new(Rule::ForcePush, "x", "y");
    let note = RunUpdate { additions: Some(666), ..RunUpdate::default() };
    vec![
        ("run_add", tx.run_add(lease, &run_draft()).await.map(drop)),
        ("run_update", tx.run_update(lease, &note).await),
        ("run_charge", tx.run_charge(lease, 666, 666).await),
        ("event_add", tx.event_add(lease, &[event("late")]).await.map(drop)),
        ("refusal_add", tx.refusal_add(lease, &refusal).await.map(drop)),
        ("warrant_add", tx.warrant_add(lease, &signed).await),
        ("charge_reserve", tx.charge_reserve(lease, &account(1_000), &ask(call(1), 10, 10)).await.map(drop)),
        (
            "charge_hold",
            tx.charge_hold(lease, &account(1_000_000), call(2), MicroUsd::from_micro(5_000)).await.map(drop),
        ),
        ("task_move", tx.task_move(lease, RunState::Failed, None).await),
        ("task_end_batch", tx.task_end_batch(std::slice::from_ref(lease), RunState::Failed, None).await),
        ("approval_ask", tx.approval_ask(lease, &question(&signed, 1)).await.map(drop)),
        (
            "approval_use",
            tx.approval_use(lease, question(&signed, 1).id, &question(&signed, 1).digest).await.map(drop),
        ),
        ("approval_withdraw", tx.approval_withdraw(lease, question(&signed, 1).id).await.map(drop)),
        ("approval_expire", tx.approval_expire(lease).await.map(drop)),
        (
            "steer_taken",
            tx.steer_taken(lease, SteerId::from_bytes([9; 16]), SteerState::Taken, None).await.map(drop),
        ),
        ("lease_look", tx.lease_look(lease).await),
        ("lease_guard", tx.lease_guard(lease).await),
        ("lease_renew", tx.lease_renew(lease, 1_000).await.map(drop)),
    ]
}

/// The methods that take a lease, read from the source: the list above must have them all.
#[test]
fn every_method_with_a_lease_is_in_the_list() {
    let mut found = HashSet::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for part in text.split("    pub async fn ").skip(1) {
            let (head, _) = part.split_once('{').unwrap();
            if (head.contains("lease: &Lease") || head.contains("leases: &[Lease]"))
                && head.contains("&mut self")
            {
                found.insert(head.split('(').next().unwrap().to_owned());
            }
        }
    }
    let listed = [
        "run_add",
        "run_update",
        "run_charge",
        "event_add",
        "refusal_add",
        "warrant_add",
        "charge_reserve",
        "charge_hold",
        "task_move",
        "approval_ask",
        "approval_use",
        "approval_withdraw",
        "approval_expire",
        "steer_taken",
        "lease_look",
        "lease_guard",
        "lease_renew",
        "task_end_batch",
    ];
    // Not fenced on purpose: it records money that is gone, and replaces only what the run itself reserved.
    assert!(found.remove("charge_settle"));
    // Nor this: it tells people what settlements came to.
    assert!(found.remove("budget_alert"));
    assert_eq!(found, listed.into_iter().map(str::to_owned).collect::<HashSet<_>>());
}

story! {
    async fn a_worker_that_lost_its_lease_writes_nothing(world: World) {
        let lease = world.lease().await;
        world.clock.advance(60_001);
        let mut thief = world.store.task_reap(TakeOver::Expired, "reaper").await.unwrap();
        assert_eq!(thief.len(), 1);
        assert_eq!(thief.remove(0).task_state, RunState::Interrupted);
        let before = world.read().await.run_get(lease.run()).await.unwrap();
        let mut tx = world.begin().await;
        for (name, answer) in every_fenced_write(&mut tx, &lease).await {
            assert_eq!(answer.map_err(|error| error.code()), Err("lease-lost"), "{name}");
        }
        // Even a worker that ignores all of this can't commit it.
        assert_eq!(code(tx.commit().await), "transaction-broken");
        assert_eq!(code(world.store.lease_renew(&lease, 1_000).await), "lease-lost");
        let mut read = world.read().await;
        assert_eq!(read.run_get(lease.run()).await.unwrap(), before);
        let events = read.event_list(lease.run(), 0, 10).await.unwrap();
        assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::State]);
        assert!(read.refusal_list(lease.run()).await.unwrap().is_empty());
        assert!(read.warrant_list_of_run(lease.run()).await.unwrap().is_empty());
    }
}

story! {
    async fn a_lease_of_another_org_opens_nothing(world: World) {
        let other = world.store.authenticate_local(&crate::support::person(2)).await.unwrap();
        let lease = world.lease().await;
        let mut tx = world.store.begin(&other.scope).await.unwrap();
        let note = RunUpdate { additions: Some(666), ..RunUpdate::default() };
        assert_eq!(code(tx.run_update(&lease, &note).await), "lease-lost");
        assert_eq!(code(tx.event_add(&lease, &[event("x")]).await), "lease-lost");
        assert!(tx.task_claim(lease.task(), "w", 1_000).await.unwrap().is_none());
        assert_eq!(tx.task_cancel(lease.task()).await.unwrap(), None);
        tx.commit().await.unwrap();
    }
}

story! {
    async fn heartbeats_keep_a_lease_and_bring_news(world: World) {
        let lease = world.lease().await;
        let mut tx = world.begin().await;
        let signed = warrant(&mut tx, &lease).await.unwrap();
        tx.warrant_add(&lease, &signed).await.unwrap();
        tx.commit().await.unwrap();
        for _ in 0..3 {
            world.clock.advance(50_000);
            let news = world.store.lease_renew(&lease, 60_000).await.unwrap();
            assert!(!news.cancel_requested && !news.warrant_revoked);
            assert_eq!(world.store.task_reap(TakeOver::Expired, "reaper").await.unwrap(), []);
        }
        let mut tx = world.begin().await;
        assert_eq!(tx.task_cancel(lease.task()).await.unwrap(), Some(TaskCancel::Requested));
        tx.commit().await.unwrap();
        let news = world.store.lease_renew(&lease, 60_000).await.unwrap();
        assert!(news.cancel_requested && !news.warrant_revoked);
        let mut tx = world.begin().await;
        assert!(tx.warrant_revoke(signed.warrant.id).await.unwrap());
        assert!(!tx.warrant_revoke(signed.warrant.id).await.unwrap());
        assert!(tx.warrant_list_live(10).await.unwrap().is_empty());
        tx.commit().await.unwrap();
        assert!(world.store.lease_renew(&lease, 60_000).await.unwrap().warrant_revoked);
        // Over, but nobody has taken it: the machine may have slept.
        world.clock.advance(1_000_000);
        world.store.lease_renew(&lease, 60_000).await.unwrap();
    }
}

story! {
    async fn one_warrant_of_a_run_is_in_force_and_only_narrower_ones_take_its_place(world: World) {
        let lease = world.lease().await;
        let run = lease.run();
        let mut tx = world.begin().await;
        let first = warrant(&mut tx, &lease).await.unwrap();
        tx.warrant_add(&lease, &first).await.unwrap();
        let second = narrowed(&mut tx, &first).await;
        let third = narrowed(&mut tx, &second).await;
        let mut wider = second.clone();
        wider.warrant.budget = MicroUsd::from_micro(first.warrant.budget.micro() + 1);
        tx.commit().await.unwrap();
        let told = world.store.lease_renew(&lease, 60_000).await.unwrap().warrant.unwrap();
        assert_eq!(SignedWarrant::from_json(&told).unwrap(), first);

        // Not before its parent, not wider than it, and no second child of it.
        for refused in [&third, &wider] {
            let mut tx = world.begin().await;
            assert!(tx.warrant_narrow(refused).await.is_err());
        }
        let mut tx = world.begin().await;
        tx.warrant_narrow(&second).await.unwrap();
        tx.commit().await.unwrap();
        let mut rival = second.clone();
        rival.warrant.id = third.warrant.id;
        let mut tx = world.begin().await;
        assert_eq!(code(tx.warrant_narrow(&rival).await), "input");
        drop(tx);
        let mut tx = world.begin().await;
        tx.warrant_narrow(&third).await.unwrap();
        tx.commit().await.unwrap();
        let told = world.store.lease_renew(&lease, 60_000).await.unwrap();
        assert_eq!(SignedWarrant::from_json(&told.warrant.unwrap()).unwrap(), third);
        assert!(!told.warrant_revoked);

        let mut tx = world.begin().await;
        assert_eq!(tx.warrant_list_of_run(run).await.unwrap().len(), 3);
        let live = tx.warrant_list_live(10).await.unwrap();
        assert_eq!(live.iter().map(|one| one.signed.warrant.id).collect::<Vec<_>>(), [third.warrant.id]);
        assert_eq!(tx.warrant_of_run(run).await.unwrap().unwrap().signed, third);
        // Its money is what the ledger goes by.
        assert_eq!(tx.charge_account(run).await.unwrap().unwrap().run_budget, third.warrant.budget);
        // Whichever of them is revoked, the run has no warrant any more.
        assert!(tx.warrant_revoke(second.warrant.id).await.unwrap());
        assert!(!tx.warrant_revoke(third.warrant.id).await.unwrap());
        assert!(tx.warrant_list_live(10).await.unwrap().is_empty());
        let fourth = narrowed(&mut tx, &third).await;
        tx.commit().await.unwrap();
        assert!(world.store.lease_renew(&lease, 60_000).await.unwrap().warrant_revoked);
        let mut tx = world.begin().await;
        assert_eq!(code(tx.warrant_narrow(&fourth).await), "input", "a revoked one is not narrowed");
    }
}

story! {
    async fn a_dead_workers_task_is_tried_again_until_its_attempts_are_used_up(world: World) {
        let mut tx = world.begin().await;
        let task = tx.task_add(TaskDraft { max_attempts: 2, ..task_draft() }).await.unwrap().id();
        let first = tx.task_claim(task, "dead-1", 60_000).await.unwrap().unwrap();
        tx.run_add(&first, &run_draft()).await.unwrap();
        let signed = warrant(&mut tx, &first).await.unwrap();
        tx.warrant_add(&first, &signed).await.unwrap();
        tx.commit().await.unwrap();

        // Not over yet, but its process is known to be dead; nobody else's lease is touched.
        assert_eq!(world.store.task_reap(TakeOver::Dead("dead-2"), "me").await.unwrap(), []);
        let reaped = world.store.task_reap(TakeOver::Dead("dead-1"), "me").await.unwrap();
        assert_eq!(reaped.iter().map(|one| (one.run, one.task_state)).collect::<Vec<_>>(), [(
            Some(first.run()),
            RunState::Queued
        )]);
        assert_eq!(reaped[0].lease.scope(), &world.me.scope);
        let mut read = world.read().await;
        let run = read.run_get(first.run()).await.unwrap().unwrap();
        assert_eq!((run.state, run.exit_reason), (RunState::Interrupted, Some(ExitReason::ProcessDied)));
        assert_eq!(run.ended_at, Some(crate::support::START));
        assert_eq!(run.workspace.as_deref(), Some("/tmp/workspace"), "kept until it is destroyed");
        assert!(read.warrant_get(signed.warrant.id).await.unwrap().unwrap().revoked_at.is_some());
        assert_eq!(read.audit_size().await.unwrap(), 2);
        drop(read);

        // Not before the wait is over.
        assert_eq!(world.store.task_claim("w", 60_000).await.unwrap(), None);
        world.clock.advance(1_000);
        let second = world.store.task_claim("dead-2", 60_000).await.unwrap().unwrap();
        assert_eq!((second.task(), second.token().attempt), (task, 2));
        assert_ne!(second.run(), first.run());
        let mut tx = world.begin().await;
        tx.run_add(&second, &run_draft()).await.unwrap();
        tx.commit().await.unwrap();
        world.clock.advance(60_001);
        let reaped = world.store.task_reap(TakeOver::Expired, "me").await.unwrap();
        assert_eq!(reaped[0].task_state, RunState::Interrupted);
        let mut read = world.read().await;
        assert_eq!(read.task_get(task).await.unwrap().unwrap().state, RunState::Interrupted);
        let attempts = read.run_list_of_task(task).await.unwrap();
        assert_eq!(attempts.iter().map(|run| run.attempt).collect::<Vec<_>>(), [1, 2]);
        assert!(read.run_list_open().await.unwrap().is_empty());
        drop(read);
        assert_eq!(world.store.task_reap(TakeOver::Expired, "me").await.unwrap(), []);
    }
}

story! {
    async fn a_worker_that_died_before_its_run_began_leaves_only_the_task(world: World) {
        let mut tx = world.begin().await;
        let task = tx.task_add(task_draft()).await.unwrap().id();
        tx.task_claim(task, "dead", 1_000).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        world.clock.advance(1_001);
        let reaped = world.store.task_reap(TakeOver::Expired, "me").await.unwrap();
        assert_eq!((reaped[0].run, reaped[0].task_state), (None, RunState::Interrupted));
    }
}

story! {
    async fn a_task_that_a_person_cancelled_is_not_tried_again(world: World) {
        let mut tx = world.begin().await;
        let task = tx.task_add(TaskDraft { max_attempts: 5, ..task_draft() }).await.unwrap().id();
        let lease = tx.task_claim(task, "dead", 1_000).await.unwrap().unwrap();
        tx.run_add(&lease, &run_draft()).await.unwrap();
        assert_eq!(tx.task_cancel(task).await.unwrap(), Some(TaskCancel::Requested));
        tx.commit().await.unwrap();
        world.clock.advance(1_001);
        let reaped = world.store.task_reap(TakeOver::Expired, "me").await.unwrap();
        assert_eq!(reaped[0].task_state, RunState::Cancelled);
    }
}

story! {
    async fn reapers_that_race_mark_each_task_once(world: World) {
        for _ in 0..12 {
            world.lease().await;
        }
        world.clock.advance(60_001);
        let mut reapers = Vec::new();
        for number in 0..4 {
            let store = world.again().await;
            reapers.push(tokio::spawn(async move {
                store.task_reap(TakeOver::Expired, &format!("reaper-{number}")).await.unwrap().len()
            }));
        }
        let mut marked = 0;
        for reaper in reapers {
            marked += reaper.await.unwrap();
        }
        assert_eq!(marked, 12);
        let mut read = world.read().await;
        assert_eq!(read.audit_size().await.unwrap(), 13);
        assert_eq!(read.task_count().await.unwrap(), [(RunState::Interrupted, 12)]);
    }
}

story! {
    async fn many_tasks_end_together_or_not_at_all(world: World) {
        let mut tx = world.begin().await;
        tx.task_add_batch(vec![task_draft(); 33]).await.unwrap();
        tx.commit().await.unwrap();
        let leases = world.store.task_claim_batch("w", 60_000, 100).await.unwrap();
        assert_eq!(leases.len(), 33);
        // One of them is lost: nothing of the batch is kept.
        world.vandal(&format!("update task set generation = 9 where id = '{}'", leases[32].task()));
        let mut tx = world.begin().await;
        assert_eq!(code(tx.task_end_batch(&leases, RunState::Failed, None).await), "lease-lost");
        assert_eq!(code(tx.commit().await), "transaction-broken");
        assert_eq!(world.read().await.task_count().await.unwrap(), [(RunState::Preparing, 33)]);
        let mut tx = world.begin().await;
        assert_eq!(code(tx.task_end_batch(&leases[..1], RunState::Running, None).await), "input");
        tx.task_end_batch(&leases[..32], RunState::Failed, Some("why")).await.unwrap();
        tx.task_end_batch(&[], RunState::Failed, None).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = world.begin().await;
        assert_eq!(tx.task_count().await.unwrap(), [(RunState::Failed, 32), (RunState::Preparing, 1)]);
        let ended = tx.task_get(leases[0].task()).await.unwrap().unwrap();
        assert_eq!((ended.last_error.as_deref(), ended.lease_owner), (Some("why"), None));
        // A state that can't follow is no end either: verifying comes before done.
        tx.rollback().await.unwrap();
        let lease = world.lease().await;
        let mut tx = world.begin().await;
        assert_eq!(code(tx.task_end_batch(&[lease], RunState::Done, None).await), "lease-lost");
    }
}

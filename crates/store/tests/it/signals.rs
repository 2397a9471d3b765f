//! Waking those who wait, within a process and across processes.

use crate::support::{World, event, story, task_draft};
use std::time::Duration;
use tipstaff_store::{Engine, Topic};

/// Longer than any test may take: whoever is woken by it was not woken at all.
const NEVER_MS: u64 = 60_000;

story! {
    async fn a_commit_wakes_those_who_wait_in_this_process(world: World) {
        let mut tasks = world.store.subscribe(Topic::Task);
        let mut runs = world.store.subscribe(Topic::Run);
        let lease = world.lease().await;
        tasks.wait(NEVER_MS).await;
        runs.wait(NEVER_MS).await;
        let mut tx = world.begin().await;
        tx.event_add(&lease, &[event("a")]).await.unwrap();
        tx.commit().await.unwrap();
        runs.wait(NEVER_MS).await;
        // Nothing happened: the wait ends by itself.
        tasks.wait(10).await;
        // What is undone wakes nobody.
        let mut tx = world.begin().await;
        tx.task_add(task_draft()).await.unwrap();
        tx.rollback().await.unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(50), tasks.wait(NEVER_MS)).await;
        assert!(waited.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_carries_signals_to_other_processes() {
    let world = World::new(Engine::Postgres).await;
    let other = world.again().await;
    let mut tasks = other.subscribe(Topic::Task);
    // The listener needs a moment to be there; a signal that comes before is lost, and nobody may rely on it.
    let woken = async {
        loop {
            let mut tx = world.begin().await;
            tx.task_add(task_draft()).await.unwrap();
            tx.commit().await.unwrap();
            if tokio::time::timeout(Duration::from_millis(100), tasks.wait(NEVER_MS)).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), woken).await.expect("the signal arrives");
}

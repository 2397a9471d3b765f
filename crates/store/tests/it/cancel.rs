//! Work that is broken off at any point leaves a clean connection; waiting keeps no thread.

use crate::support::{TIMEOUT_MS, World, audit_draft, code, entropy, ring_key, story, task_draft};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tipstaff_seal::log::{LogVerifier, Tail};
use tipstaff_store::{Engine, Store, TaskFilter};

/// Lets a future go on for `steps` times, with time for the server to answer in between, and drops it there. Whether it
/// came to its end.
async fn broken_off<F: Future>(future: F, steps: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..steps {
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return true;
        }
        // What is broken off may have a lock, and gives it back on another task.
        tokio::time::timeout(Duration::from_millis(2), std::future::pending::<()>()).await.unwrap_err();
    }
    false
}

async fn work(world: &World) {
    let mut tx = world.begin().await;
    tx.task_add(task_draft()).await.unwrap();
    tx.audit_note(audit_draft("task:added"));
    tx.task_add_batch(vec![task_draft(); 30]).await.unwrap();
    tx.commit().await.unwrap();
}

story! {
    async fn a_future_that_is_dropped_anywhere_leaves_all_or_nothing(world: World) {
        let mut ended = 0;
        for steps in 0..40 {
            ended += usize::from(broken_off(work(&world), steps).await);
        }
        assert!(ended > 0, "some came to their end");
        // The connections are clean: whoever comes next reads, writes and commits.
        work(&world).await;
        let mut read = world.read().await;
        let tasks = read.task_list(TaskFilter::default(), 10_000).await.unwrap().len();
        assert_eq!(tasks % 31, 0, "{tasks}: all of a transaction or nothing");
        assert!(tasks / 31 > ended);
        let key = read.audit_key().await.unwrap();
        let report = read.audit_verify(LogVerifier::new(key, Tail::Sealed)).await.unwrap();
        assert!(report.is_good(), "{report:?}");
        assert_eq!(report.records as usize, 1 + tasks / 31);
    }
}

story! {
    async fn dropped_transactions_do_not_run_out_of_connections(world: World) {
        // More than there are connections, each left in the middle.
        for _ in 0..30 {
            let mut tx = world.begin().await;
            tx.task_add(task_draft()).await.unwrap();
            drop(tx);
            let mut read = world.read().await;
            assert!(read.task_list(TaskFilter::default(), 10).await.unwrap().is_empty());
        }
    }
}

/// One thread for everything, which must not wait for anybody.
#[tokio::test(flavor = "current_thread")]
async fn waiting_for_another_process_keeps_no_thread() {
    let world = World::new(Engine::Sqlite).await;
    let other = world.again().await;
    let holder = other.begin(&world.me.scope).await.unwrap();
    let mut waiting = pin!(world.store.begin(&world.me.scope));
    assert!(matches!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    // The same thread goes on: reading, and letting the holder end.
    assert_eq!(world.read().await.audit_size().await.unwrap(), 1);
    holder.rollback().await.unwrap();
    let mut tx = waiting.await.unwrap();
    tx.task_add(task_draft()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(other.read(&world.me.scope).await.unwrap().task_count().await.unwrap().len(), 1);
}

/// A wait that is given up does not take the lock later.
#[tokio::test(flavor = "current_thread")]
async fn a_wait_that_is_given_up_takes_nothing() {
    let world = World::new(Engine::Sqlite).await;
    let other = world.again().await;
    let holder = other.begin(&world.me.scope).await.unwrap();
    assert!(!broken_off(world.store.begin(&world.me.scope), 5).await);
    // Two of the same process queue up behind each other; the first one in the queue goes away.
    let first = world.store.begin(&world.me.scope);
    let (first_ended, second) = tokio::join!(broken_off(first, 5), async {
        tokio::task::yield_now().await;
        holder.rollback().await.unwrap();
        world.store.begin(&world.me.scope).await
    });
    second.unwrap().commit().await.unwrap();
    let _ = first_ended;
    other.begin(&world.me.scope).await.unwrap().commit().await.unwrap();
}

/// The wait for a writer of this process and for another process are one wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bound_on_waiting_holds_for_the_whole_wait() {
    let world = World::new(Engine::Sqlite).await;
    let config = world.config.clone().busy_timeout_ms(TIMEOUT_MS / 10);
    let store = Store::open(config, ring_key(), world.clock.clone(), entropy()).await.unwrap();
    let holder = world.begin().await;
    // All of them wait for the first, which waits for the other store.
    let waits: Vec<_> = (0..5)
        .map(|_| {
            let (store, scope) = (store.clone(), world.me.scope.clone());
            tokio::spawn(async move { store.begin(&scope).await.map(drop) })
        })
        .collect();
    let all = async {
        for wait in waits {
            assert_eq!(code(wait.await.unwrap()), "database-locked");
        }
    };
    tokio::time::timeout(Duration::from_millis(TIMEOUT_MS * 5), all).await.unwrap();
    drop(holder);
    store.begin(&world.me.scope).await.unwrap().commit().await.unwrap();
}

story! {
    async fn a_closed_store_says_so(world: World) {
        work(&world).await;
        world.store.close().await;
        assert_eq!(code(world.store.begin(&world.me.scope).await), "database-unreachable");
        assert_eq!(code(world.store.read(&world.me.scope).await), "database-unreachable");
    }
}

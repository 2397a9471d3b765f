//! The key ring: rotated while work goes on, and killed at every step.

use crate::support::{World, audit_draft, code, entropy, ring_key, story};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tipstaff_model::FixedEntropy;
use tipstaff_seal::{RingKey, Secret};
use tipstaff_store::{KeyPurpose, OrgScope, RingRotation, Store};

const SECRETS: usize = 12;

async fn fill(world: &World) {
    let mut tx = world.begin().await;
    for number in 0..SECRETS {
        tx.secret_set(&format!("secret-{number}"), &Secret::new(format!("value-{number}").into_bytes()))
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
}

async fn check(store: &Store, scope: &OrgScope) {
    let mut read = store.read(scope).await.unwrap();
    for number in 0..SECRETS {
        let value = read.secret_get(&format!("secret-{number}")).await.unwrap().unwrap();
        assert_eq!(value.expose(), format!("value-{number}").as_bytes());
    }
    read.signing_key(KeyPurpose::Warrant).await.unwrap();
    read.signing_key(KeyPurpose::Audit).await.unwrap();
}

/// One rotation in small transactions, ending after `steps` of them as a kill would: what is not committed is dropped.
/// Whether it came to its end.
async fn rotate(store: &Store, scope: &OrgScope, steps: usize) -> bool {
    let mut left = steps;
    let mut step = || {
        left = left.checked_sub(1)?;
        Some(())
    };
    let mut tx = store.begin(scope).await.unwrap();
    tx.ring_rotate_begin().await.unwrap();
    if step().is_none() {
        return false;
    }
    tx.commit().await.unwrap();
    loop {
        if step().is_none() {
            return false;
        }
        let mut tx = store.begin(scope).await.unwrap();
        let seen = tx.ring_reseal_step(3).await.unwrap();
        if step().is_none() {
            return false;
        }
        tx.commit().await.unwrap();
        if seen == 0 {
            break;
        }
    }
    let mut tx = store.begin(scope).await.unwrap();
    tx.ring_retire_unused().await.unwrap();
    if step().is_none() {
        return false;
    }
    tx.commit().await.unwrap();
    true
}

story! {
    async fn a_rotation_killed_at_any_step_goes_on_where_it_stopped(world: World) {
        fill(&world).await;
        for steps in 0.. {
            // A new process each time: nothing is remembered but the database.
            let store = world.again().await;
            let ended = rotate(&store, &world.me.scope, steps).await;
            check(&store, &world.me.scope).await;
            check(&world.store, &world.me.scope).await;
            // Whatever was left behind, running it again finishes it.
            let again = world.again().await;
            assert!(rotate(&again, &world.me.scope, usize::MAX).await);
            check(&again, &world.me.scope).await;
            let keys = again.read(&world.me.scope).await.unwrap().ring_list().await.unwrap();
            let live: Vec<_> = keys.iter().filter(|key| key.retired_at.is_none()).collect();
            assert_eq!(live.len(), 1, "{steps}: {keys:?}");
            assert_eq!(live[0].values, SECRETS as u64 + 3, "the secrets and the org's signing keys");
            if ended {
                assert!(steps > 10, "the steps were taken one by one");
                break;
            }
        }
        // A key that was retired leaves nothing to unwrap.
        let wrapped = world.vandal("select wrapped from ring_key where retired_at is not null and wrapped <> ''");
        assert_eq!(wrapped, "");
    }
}

story! {
    async fn beginning_twice_makes_one_key(world: World) {
        let mut tx = world.begin().await;
        assert_eq!(tx.ring_rotate_begin().await.unwrap(), RingRotation::Begun);
        assert_eq!(tx.ring_rotate_begin().await.unwrap(), RingRotation::Resumed);
        assert_eq!(tx.ring_list().await.unwrap().len(), 2);
        tx.commit().await.unwrap();
    }
}

story! {
    async fn readers_and_writers_go_on_while_the_ring_turns(world: World) {
        fill(&world).await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut others = Vec::new();
        for number in 0..3 {
            let (store, scope, stop) = (world.again().await, world.me.scope.clone(), Arc::clone(&stop));
            others.push(tokio::spawn(async move {
                let mut rounds = 0_u32;
                while !stop.load(Ordering::SeqCst) || rounds < 3 {
                    check(&store, &scope).await;
                    let name = format!("written-{number}");
                    let mut tx = store.begin(&scope).await.unwrap();
                    tx.secret_set(&name, &Secret::new(rounds.to_string().into_bytes())).await.unwrap();
                    tx.audit_note(audit_draft("secret"));
                    tx.commit().await.unwrap();
                    let mut read = store.read(&scope).await.unwrap();
                    let value = read.secret_get(&name).await.unwrap().unwrap();
                    assert_eq!(value.expose(), rounds.to_string().as_bytes());
                    rounds += 1;
                }
                rounds
            }));
        }
        for _ in 0..6 {
            assert!(rotate(&world.again().await, &world.me.scope, usize::MAX).await);
        }
        stop.store(true, Ordering::SeqCst);
        for other in others {
            assert!(other.await.unwrap() >= 3);
        }
        // A writer may have sealed under the old key at the last moment: the next rotation collects it.
        assert!(rotate(&world.store, &world.me.scope, usize::MAX).await);
        let keys = world.read().await.ring_list().await.unwrap();
        assert_eq!(keys.iter().filter(|key| key.retired_at.is_none()).count(), 1);
        check(&world.again().await, &world.me.scope).await;
    }
}

story! {
    async fn the_encryption_key_can_be_changed(world: World) {
        fill(&world).await;
        let fresh = RingKey::generate(&FixedEntropy::seeded(4711));
        let other = Store::open(world.config.clone(), fresh.clone(), world.clock.clone(), entropy()).await.unwrap();
        // With the wrong key nothing opens, and nothing is damaged.
        let mut tx = other.begin(&world.me.scope).await.unwrap();
        assert_eq!(code(tx.secret_get("secret-0").await), "wrapped-by-other");
        assert_eq!(code(tx.ring_rewrap(&RingKey::generate(&FixedEntropy::seeded(5))).await), "wrapped-by-other");
        drop(tx);
        check(&world.store, &world.me.scope).await;
        let mut tx = other.begin(&world.me.scope).await.unwrap();
        assert_eq!(tx.ring_rewrap(&ring_key()).await.unwrap(), 1);
        assert_eq!(tx.ring_rewrap(&ring_key()).await.unwrap(), 0, "again does no harm");
        tx.commit().await.unwrap();
        check(&other, &world.me.scope).await;
        let old = world.again().await;
        assert_eq!(code(old.read(&world.me.scope).await.unwrap().secret_get("secret-0").await), "wrapped-by-other");
    }
}

//! What a person tells a run: kept in order, taken once, refused when the run ends first.

use crate::approval::at_work;
use crate::support::{World, code, story};
use tipstaff_model::run::RunUpdate;
use tipstaff_model::steer::MOST_WAITING;
use tipstaff_model::{AuditAction, EventKind, RunId, RunState, SteerId, SteerKind, SteerState};
use tipstaff_store::{SteeringAdded, TakeOver};

const SECRET: &str = "ghp_0123456789abcdefghijABCDEFGHIJ012345";

fn words(text: &str) -> SteerKind {
    SteerKind::Message { text: text.to_owned() }
}

async fn say(world: &World, run: RunId, kind: SteerKind) -> SteeringAdded {
    let mut tx = world.begin().await;
    let added = tx.steer_add(world.me.member, run, kind).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    added
}

async fn story_of(world: &World, run: RunId) -> Vec<String> {
    let events = world.read().await.event_list(run, 0, 1_000).await.unwrap();
    let told = events.into_iter().filter(|event| event.kind == EventKind::Steer);
    told.map(|event| {
        let word = |name: &str| event.body[name].as_str().unwrap_or_default().to_owned();
        format!("{} {} {} {}", word("type"), word("state"), word("text"), word("note")).trim_end().to_owned()
    })
    .collect()
}

story! {
    async fn words_reach_the_worker_as_typed_and_nobody_else(world: World) {
        let lease = at_work(&world).await.0;
        let run = lease.run();
        let SteeringAdded::Waiting(first) = say(&world, run, words(&format!("use {SECRET}"))).await else { panic!() };
        say(&world, run, SteerKind::Interrupt).await;
        let waiting = world.read().await.steer_waiting(run).await.unwrap();
        assert_eq!(waiting.iter().map(|one| one.kind.as_str()).collect::<Vec<_>>(), ["message", "interrupt"]);
        assert_eq!((&waiting[0], &waiting[0].by), (&first, &world.me.actor()));
        assert_eq!(waiting[0].kind, words(&format!("use {SECRET}")));
        let mut tx = world.begin().await;
        assert!(tx.steer_taken(&lease, first.id, SteerState::Taken, None).await.unwrap());
        assert!(!tx.steer_taken(&lease, first.id, SteerState::Refused, None).await.unwrap(), "once");
        assert!(tx.steer_taken(&lease, waiting[1].id, SteerState::Refused, Some("it can't be interrupted")).await.unwrap());
        assert!(!tx.steer_taken(&lease, SteerId::from_bytes([7; 16]), SteerState::Taken, None).await.unwrap());
        tx.commit().await.unwrap();
        let mut read = world.read().await;
        assert!(read.steer_waiting(run).await.unwrap().is_empty());
        let all = read.steer_list(run).await.unwrap();
        assert_eq!(all.iter().map(|one| one.state).collect::<Vec<_>>(), [SteerState::Taken, SteerState::Refused]);
        assert_eq!(all[1].note.as_deref(), Some("it can't be interrupted"));
        drop(read);
        // Once it was taken, nothing holds it any more.
        let kept = world.vandal("select kind from steering");
        assert!(!kept.contains(SECRET) && kept.contains("[redacted:"), "{kept}");
        let story = story_of(&world, run).await;
        assert!(story.iter().all(|line| !line.contains(SECRET)), "{story:?}");
        assert_eq!(story.iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>(),
            ["message waiting", "interrupt waiting", "message taken", "interrupt refused"]);
        let log = world.read().await.audit_list(None, 100).await.unwrap();
        let records: Vec<_> = log.iter().filter_map(|one| one.record()).filter(|one| one.action == AuditAction::RunSteered).collect();
        assert_eq!(records.len(), 4);
        assert!(records.iter().all(|one| one.subject == format!("run:{run}") && !format!("{one:?}").contains("use ")));
    }
}

story! {
    async fn only_a_run_at_work_is_told_something(world: World) {
        let lease = at_work(&world).await.0;
        let run = lease.run();
        let mut tx = world.begin().await;
        assert_eq!(code(tx.steer_add(world.me.member, run, words("\u{1b}[2J")).await), "input");
        assert!(tx.steer_add(world.me.member, RunId::from_bytes([7; 16]), SteerKind::Pause).await.unwrap().is_none());
        tx.rollback().await.unwrap();
        for _ in 0..MOST_WAITING {
            assert!(matches!(say(&world, run, words("more")).await, SteeringAdded::Waiting(_)));
        }
        assert_eq!(say(&world, run, words("more")).await, SteeringAdded::Full);
        let mut tx = world.begin().await;
        let verifying = RunUpdate { state: Some(RunState::Verifying), ..RunUpdate::default() };
        tx.run_update(&lease, &verifying).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(say(&world, run, words("late")).await, SteeringAdded::NotRunning(RunState::Verifying));
    }
}

story! {
    async fn what_a_run_did_not_take_is_refused_at_its_end(world: World) {
        let (ends, dies) = (at_work(&world).await.0, at_work(&world).await.0);
        say(&world, ends.run(), words("hello")).await;
        say(&world, dies.run(), SteerKind::Pause).await;
        let mut tx = world.begin().await;
        let failed = RunUpdate { state: Some(RunState::Failed), ..RunUpdate::default() };
        tx.run_update(&ends, &failed).await.unwrap();
        tx.commit().await.unwrap();
        world.clock.advance(600_001);
        world.store.task_reap(TakeOver::Expired, "reaper").await.unwrap();
        for (run, line) in [
            (ends.run(), "message refused hello the run ended before it was taken"),
            (dies.run(), "pause refused  the run ended before it was taken"),
        ] {
            assert_eq!(story_of(&world, run).await[1], line);
            assert!(world.read().await.steer_waiting(run).await.unwrap().is_empty());
        }
    }
}

story! {
    async fn people_and_the_worker_write_one_story(world: World) {
        let lease = at_work(&world).await.0;
        let run = lease.run();
        let (store, worker) = (world.again().await, lease.clone());
        let writing = tokio::spawn(async move {
            for number in 0..40 {
                let mut tx = store.begin(worker.scope()).await.unwrap();
                tx.event_add(&worker, &[crate::support::event(&number.to_string())]).await.unwrap();
                tx.commit().await.unwrap();
            }
        });
        for _ in 0..40 {
            say(&world, run, words("on")).await;
            let mut tx = world.begin().await;
            let waiting = tx.steer_waiting(run).await.unwrap();
            tx.steer_taken(&lease, waiting[0].id, SteerState::Taken, None).await.unwrap();
            tx.commit().await.unwrap();
        }
        writing.await.unwrap();
        let events = world.read().await.event_list(run, 0, 1_000).await.unwrap();
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=120).collect::<Vec<u64>>());
    }
}

//! How long sessions are kept, and what a sweep erases.

use crate::support::{code, event, spec, story, task_draft};
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{PrivacyClass, Refusal, Rule, RunState, SteerKind, TaskSpec};
use tipstaff_store::TaskDraft;

const MARKER: &str = "xyzzymarker";

story! {
    async fn a_sweep_erases_what_was_said_and_keeps_what_counts(world: World) {
        let mut tx = world.begin().await;
        let told = TaskSpec { prompt: Some(MARKER.to_owned()), argv: vec!["sh".into(), MARKER.into()], ..spec() };
        let task = tx.task_add(TaskDraft { spec: told, ..task_draft() }).await.unwrap().id();
        let lease = tx.task_claim(task, "worker", 60_000).await.unwrap().unwrap();
        let run = tx.run_add(&lease, &crate::support::run_draft()).await.unwrap();
        tx.event_add(&lease, &[event(MARKER), event("b")]).await.unwrap();
        tx.refusal_add(&lease, &Refusal::new(Rule::HostNotGranted, MARKER, MARKER)).await.unwrap();
        tx.run_update(&lease, &RunUpdate { state: Some(RunState::Running), ..RunUpdate::default() }).await.unwrap();
        tx.steer_add(world.me.member, run, SteerKind::Message { text: MARKER.to_owned() }).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = world.begin().await;
        assert_eq!(tx.run_sweep(run).await.unwrap(), None, "a run that goes on is not swept");
        let now = 1_i64 << 50;
        assert!(tx.run_list_unswept(now, None, 10).await.unwrap().is_empty());
        let end = RunUpdate { state: Some(RunState::Failed), error: Some(MARKER.to_owned()), ..RunUpdate::default() };
        tx.run_update(&lease, &end).await.unwrap();
        tx.commit().await.unwrap();

        let mut read = world.read().await;
        let ended = read.run_get(run).await.unwrap().unwrap().ended_at.unwrap();
        assert!(read.run_list_unswept(ended, None, 10).await.unwrap().is_empty(), "its time is not over");
        let due = read.run_list_unswept(ended + 1, None, 10).await.unwrap();
        assert_eq!(due.iter().map(|run| run.id).collect::<Vec<_>>(), [run]);
        assert!(read.run_list_unswept(now, Some(run), 10).await.unwrap().is_empty(), "page by page");
        let size = read.run_sweep_size(run).await.unwrap();
        assert!(size.events >= 2, "{size:?}");
        assert!(size.characters > 10);
        drop(read);

        let mut tx = world.begin().await;
        assert_eq!(tx.run_sweep(run).await.unwrap(), Some(size));
        assert_eq!(tx.run_sweep(run).await.unwrap(), None, "once");
        tx.retention_swept().await.unwrap();
        tx.commit().await.unwrap();
        let mut read = world.read().await;
        assert!(read.run_list_unswept(now, None, 10).await.unwrap().is_empty());
        let summary = read.run_summary(run).await.unwrap().unwrap();
        assert_eq!((summary.state, summary.error.as_deref()), (RunState::Failed, None));
        assert_eq!(summary.refusals.len(), 1, "that something was refused, and by which rule, stays");
        let events = read.event_list(run, 0, 10).await.unwrap();
        assert_eq!(events.len() as u64, size.events);
        let said = read.steer_list(run).await.unwrap();
        let task = read.task_get(task).await.unwrap().unwrap();
        assert_eq!((task.spec.prompt.as_deref(), task.spec.argv.len(), task.last_error), (None, 1, None));
        let all = format!("{summary:?}{events:?}{said:?}{:?}", task.spec);
        assert!(!all.contains(MARKER), "{all}");
        assert!(read.retention_swept_at().await.unwrap().is_some());
    }
}

story! {
    async fn terms_are_set_changed_and_removed(world: World) {
        let mut tx = world.begin().await;
        assert!(tx.retention_list().await.unwrap().is_empty());
        assert_eq!(tx.retention_swept_at().await.unwrap(), None);
        tx.retention_set(PrivacyClass::Org, Some(1_000)).await.unwrap();
        tx.retention_set(PrivacyClass::Org, Some(2_000)).await.unwrap();
        tx.retention_set(PrivacyClass::Meta, Some(3_000)).await.unwrap();
        let listed = tx.retention_list().await.unwrap();
        assert_eq!(listed, [(PrivacyClass::Meta, 3_000), (PrivacyClass::Org, 2_000)]);
        tx.retention_set(PrivacyClass::Meta, None).await.unwrap();
        assert_eq!(tx.retention_list().await.unwrap().len(), 1);
        assert_eq!(code(tx.retention_set(PrivacyClass::Org, Some(0)).await), "input");
        tx.commit().await.unwrap();
    }
}

//! The life of a task, from the person at the terminal to the end of its run.

use crate::support::{
    audit_draft, branch, code, commit, event, person, run_draft, spec, story, task_draft, warrant,
};
use serde_json::json;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{AgentRole, EngineKind, ExitReason, Refusal, Rule, RunState};
use tipstaff_seal::Secret;
use tipstaff_store::{
    AgentDraft, KeyPurpose, RepositoryKind, RunDecision, RunFound, TaskAdded, TaskCancel, TaskDraft,
    TaskFilter,
};

fn state(state: RunState) -> RunUpdate {
    RunUpdate { state: Some(state), ..RunUpdate::default() }
}

story! {
    async fn a_task_goes_from_queued_to_done(world: World) {
        let mut tx = world.begin().await;
        let name = "local/house".parse().unwrap();
        let repository = tx.repository_set(&name, RepositoryKind::Local, "/srv/house").await.unwrap();
        let draft = TaskDraft { repository: Some(repository), ..task_draft() };
        let task = tx.task_add(draft).await.unwrap().id();
        tx.commit().await.unwrap();

        let mut tx = world.begin().await;
        let lease = tx.task_claim(task, "worker", 60_000).await.unwrap().unwrap();
        assert_eq!((lease.token().attempt, lease.token().generation), (1, 1));
        assert_eq!(lease.scope(), &world.me.scope);
        let run = tx.run_add(&lease, &run_draft()).await.unwrap();
        let signed = warrant(&mut tx, &lease).await.unwrap();
        tx.warrant_add(&lease, &signed).await.unwrap();
        tx.audit_note(audit_draft(&format!("run:{run}")));
        tx.commit().await.unwrap();

        let mut tx = world.begin().await;
        tx.run_update(&lease, &state(RunState::Running)).await.unwrap();
        assert_eq!(tx.event_add(&lease, &[event("a"), event("b")]).await.unwrap(), 2);
        assert_eq!(tx.event_add(&lease, &[event("c")]).await.unwrap(), 3);
        let refusal = Refusal::new(Rule::HostNotGranted, "example.com", "no host is granted");
        tx.refusal_add(&lease, &refusal).await.unwrap();
        tx.run_charge(&lease, 1_500, 20).await.unwrap();
        tx.run_charge(&lease, 500, 1).await.unwrap();
        tx.commit().await.unwrap();

        world.clock.advance(1_234);
        let mut tx = world.begin().await;
        tx.run_update(&lease, &state(RunState::Verifying)).await.unwrap();
        let end = RunUpdate {
            state: Some(RunState::Done),
            exit_reason: Some(ExitReason::Completed),
            exit_code: Some(0),
            commit: Some(commit('b')),
            files_changed: Some(1),
            additions: Some(2),
            deletions: Some(3),
            ..RunUpdate::default()
        };
        tx.run_update(&lease, &end).await.unwrap();
        tx.commit().await.unwrap();

        let mut read = world.read().await;
        let summary = read.run_summary(run).await.unwrap().unwrap();
        assert_eq!(summary.state, RunState::Done);
        assert_eq!(summary.branch.as_deref(), Some("agent/builder-task-1"));
        assert_eq!((summary.files_changed, summary.additions, summary.deletions), (1, 2, 3));
        assert_eq!((summary.cost_micro_usd, summary.tokens, summary.duration_ms), (2_000, 21, 1_234));
        assert_eq!(summary.refusals, [refusal]);
        let task = read.task_get(task).await.unwrap().unwrap();
        assert_eq!((task.state, task.lease_owner, task.spec), (RunState::Done, None, spec()));
        let events = read.event_list(run, 1, 10).await.unwrap();
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(events[1].body, json!({ "text": "c" }));
        let kept = read.warrant_get(signed.warrant.id).await.unwrap().unwrap();
        assert_eq!(kept.signed, signed);
        let key = read.verifying_keys(KeyPurpose::Warrant).await.unwrap()[0];
        kept.signed.verify(&key).unwrap();
        assert_eq!(read.run_get(run).await.unwrap().unwrap().warrant, Some(signed.warrant.id));
        drop(read);

        // The run is over: its worker has nothing more to say, and people may decide.
        let mut tx = world.begin().await;
        assert_eq!(code(tx.run_charge(&lease, 1, 1).await), "lease-lost");
        tx.rollback().await.unwrap();
        let mut tx = world.begin().await;
        tx.run_decide(run, RunDecision::Applied).await.unwrap();
        tx.run_workspace_destroyed(run).await.unwrap();
        tx.commit().await.unwrap();
        let run = world.read().await.run_get(run).await.unwrap().unwrap();
        assert_eq!((run.decision, run.workspace), (Some(RunDecision::Applied), None));
    }
}

story! {
    async fn states_that_cannot_follow_are_refused(world: World) {
        let lease = world.lease().await;
        let mut tx = world.begin().await;
        assert_eq!(code(tx.run_update(&lease, &state(RunState::Done)).await), "transition");
        tx.run_update(&lease, &state(RunState::Running)).await.unwrap();
        assert_eq!(code(tx.run_update(&lease, &state(RunState::Preparing)).await), "transition");
        // The same state again is no step: facts may be noted.
        tx.run_update(&lease, &RunUpdate { additions: Some(1), ..state(RunState::Running) }).await.unwrap();
        assert_eq!(code(tx.run_workspace_destroyed(lease.run()).await), "missing");
        assert_eq!(code(tx.run_decide(lease.run(), RunDecision::Discarded).await), "missing");
        tx.run_update(&lease, &state(RunState::Failed)).await.unwrap();
        tx.commit().await.unwrap();
        let run = world.read().await.run_get(lease.run()).await.unwrap().unwrap();
        assert_eq!((run.state, run.additions), (RunState::Failed, 1));
    }
}

story! {
    async fn the_same_work_is_accepted_once(world: World) {
        let keyed = |key: &str| TaskDraft { dedup_key: Some(key.to_owned()), ..task_draft() };
        let mut tx = world.begin().await;
        let first = tx.task_add(keyed("delivery-1")).await.unwrap();
        assert!(matches!(first, TaskAdded::New(_)));
        assert_eq!(tx.task_add(keyed("delivery-1")).await.unwrap(), TaskAdded::Existing(first.id()));
        let batch = vec![keyed("delivery-2"), keyed("delivery-1"), task_draft(), keyed("delivery-2")];
        let added = tx.task_add_batch(batch).await.unwrap();
        assert!(matches!(added[0], TaskAdded::New(_)));
        assert_eq!(added[1], TaskAdded::Existing(first.id()));
        assert!(matches!(added[2], TaskAdded::New(_)));
        assert_eq!(added[3], TaskAdded::Existing(added[0].id()));
        tx.commit().await.unwrap();
        assert_eq!(world.read().await.task_list(TaskFilter::default(), 100).await.unwrap().len(), 3);
    }
}

story! {
    async fn large_batches_keep_their_order(world: World) {
        let lease = world.lease().await;
        let mut tx = world.begin().await;
        let events: Vec<_> = (0..137).map(|number| event(&number.to_string())).collect();
        assert_eq!(tx.event_add(&lease, &events).await.unwrap(), 137);
        assert_eq!(tx.event_add(&lease, &[]).await.unwrap(), 137);
        tx.commit().await.unwrap();
        let stored = world.read().await.event_list(lease.run(), 0, 1_000).await.unwrap();
        let seen: Vec<_> = stored.iter().map(|event| event.body["text"].as_str().unwrap().to_owned()).collect();
        assert_eq!(seen, (0..137).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}

story! {
    async fn lists_page_and_filter(world: World) {
        let mut tx = world.begin().await;
        let mut ids = Vec::new();
        for _ in 0..5 {
            world.clock.advance(1);
            ids.push(tx.task_add(task_draft()).await.unwrap().id());
        }
        tx.commit().await.unwrap();
        ids.reverse();
        let mut tx = world.begin().await;
        assert_eq!(tx.task_cancel(ids[0]).await.unwrap(), Some(TaskCancel::Cancelled));
        assert_eq!(tx.task_cancel(ids[0]).await.unwrap(), Some(TaskCancel::AlreadyEnded(RunState::Cancelled)));
        let page = tx.task_list(TaskFilter::default(), 2).await.unwrap();
        assert_eq!(page.iter().map(|task| task.id).collect::<Vec<_>>(), ids[..2]);
        let page = tx.task_list(TaskFilter { before: Some(ids[1]), state: None }, 2).await.unwrap();
        assert_eq!(page.iter().map(|task| task.id).collect::<Vec<_>>(), ids[2..4]);
        let queued = TaskFilter { state: Some(RunState::Queued), before: None };
        assert_eq!(tx.task_list(queued, 10).await.unwrap().len(), 4);
        assert_eq!(tx.task_count().await.unwrap(), [(RunState::Cancelled, 1), (RunState::Queued, 4)]);
        let mut runs = Vec::new();
        for id in ids[1..4].iter().rev() {
            world.clock.advance(1);
            let lease = tx.task_claim(*id, "worker", 1_000).await.unwrap().unwrap();
            runs.push(tx.run_add(&lease, &run_draft()).await.unwrap());
        }
        assert_eq!(tx.run_list_open().await.unwrap().iter().map(|run| run.id).collect::<Vec<_>>(), runs);
        assert_eq!(tx.run_list_with_workspace("host").await.unwrap().len(), 3);
        assert_eq!(tx.run_list_with_workspace("elsewhere").await.unwrap(), []);
        assert_eq!(tx.run_list(Some(runs[2]), 1).await.unwrap()[0].id, runs[1]);
        assert_eq!(tx.run_find(&runs[0].short()).await.unwrap(), RunFound::One(runs[0]));
        assert_eq!(tx.run_find(&runs[0].to_string()).await.unwrap(), RunFound::One(runs[0]));
        assert_eq!(tx.run_find("%").await.unwrap(), RunFound::None);
        tx.rollback().await.unwrap();
    }
}

story! {
    async fn agents_and_repositories_have_one_row_per_name(world: World) {
        let mut tx = world.begin().await;
        let mut draft = AgentDraft {
            name: "fixer".to_owned(),
            role: AgentRole::Builder,
            engine: EngineKind::Command,
            command: vec!["sh".to_owned(), "-c".to_owned(), "true; -- \u{1F600}".to_owned()],
            model: None,
            instructions: "Be brief.".to_owned(),
        };
        let id = tx.agent_set(&draft).await.unwrap();
        draft.model = Some("large".to_owned());
        assert_eq!(tx.agent_set(&draft).await.unwrap(), id);
        let agent = tx.agent_get("fixer").await.unwrap().unwrap();
        assert_eq!((agent.id, agent.command, agent.model), (id, draft.command.clone(), draft.model.clone()));
        draft.name = "../x".to_owned();
        assert_eq!(code(tx.agent_set(&draft).await), "input");
        assert_eq!(tx.agent_list().await.unwrap().len(), 1);
        assert!(tx.agent_remove("fixer").await.unwrap());
        assert!(!tx.agent_remove("fixer").await.unwrap());

        let name = "local/house".parse().unwrap();
        let id = tx.repository_set(&name, RepositoryKind::Local, "/srv/house").await.unwrap();
        let same = tx.repository_set(&name, RepositoryKind::Url, "http://localhost/house.git").await.unwrap();
        assert_eq!(id, same);
        let stored = tx.repository_by_source("http://localhost/house.git").await.unwrap().unwrap();
        assert_eq!((stored.id, stored.kind), (id, RepositoryKind::Url));
        assert_eq!(tx.repository_get(id).await.unwrap().unwrap(), stored);
        assert_eq!(tx.repository_by_name(&name).await.unwrap().unwrap(), stored);
        assert_eq!(tx.repository_by_source("/srv/house").await.unwrap(), None);
        tx.commit().await.unwrap();
    }
}

story! {
    async fn secrets_open_for_their_own_row_only(world: World) {
        let mut tx = world.begin().await;
        let id = tx.secret_set("token", &Secret::new(b"hunter2".to_vec())).await.unwrap();
        assert_eq!(tx.secret_set("token", &Secret::new(b"hunter3".to_vec())).await.unwrap(), id);
        tx.secret_set("other", &Secret::new(b"different".to_vec())).await.unwrap();
        assert_eq!(code(tx.secret_set("a\nb", &Secret::new(vec![])).await), "input");
        tx.commit().await.unwrap();
        let mut read = world.read().await;
        assert_eq!(read.secret_get("token").await.unwrap().unwrap().expose(), b"hunter3");
        assert!(read.secret_get("missing").await.unwrap().is_none());
        assert_eq!(read.secret_list().await.unwrap().len(), 2);
        drop(read);
        // Nothing readable is stored, and a value does not open in another row.
        let dump = world.vandal("select sealed from secret");
        assert!(!dump.contains("hunter") && dump.starts_with("tk1."));
        world.vandal("update secret set sealed = (select sealed from secret where name = 'other') where name = 'token'");
        assert_eq!(code(world.read().await.secret_get("token").await), "sealed-altered");
        let mut tx = world.begin().await;
        assert!(tx.secret_remove("token").await.unwrap());
        tx.commit().await.unwrap();
        assert!(world.read().await.secret_get("token").await.unwrap().is_none());
    }
}

story! {
    async fn the_outbox_is_part_of_the_transaction(world: World) {
        let mut tx = world.begin().await;
        tx.outbox_add("lost", &json!(1)).await.unwrap();
        tx.rollback().await.unwrap();
        let mut tx = world.begin().await;
        let id = tx.outbox_add("kept", &json!({"a": 1})).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = world.begin().await;
        let waiting = tx.outbox_list(10).await.unwrap();
        assert_eq!(waiting.iter().map(|one| one.kind.as_str()).collect::<Vec<_>>(), ["kept"]);
        assert!(tx.outbox_sent(id).await.unwrap());
        assert!(!tx.outbox_sent(id).await.unwrap());
        assert!(tx.outbox_list(10).await.unwrap().is_empty());
        world.clock.advance(10);
        let now = crate::support::START + 5;
        assert_eq!(tx.outbox_prune(now).await.unwrap(), 1);
        tx.commit().await.unwrap();
    }
}

story! {
    async fn a_failed_statement_spoils_the_transaction_on_both_engines(world: World) {
        let lease = world.lease().await;
        let mut tx = world.begin().await;
        tx.outbox_add("lost", &json!(1)).await.unwrap();
        assert_eq!(code(tx.run_add(&lease, &run_draft()).await), "conflict");
        assert_eq!(code(tx.commit().await), "transaction-broken");
        assert!(world.read().await.outbox_list(1).await.unwrap().is_empty());
        let mut tx = world.begin().await;
        let nowhere = tipstaff_model::RepositoryId::from_bytes([9; 16]);
        let draft = TaskDraft { repository: Some(nowhere), ..task_draft() };
        assert_eq!(code(tx.task_add(draft).await), "reference");
        drop(tx);
        // Dropping it has undone it, and the writer is free again.
        world.begin().await.commit().await.unwrap();
    }
}

story! {
    async fn one_person_has_one_org_even_when_processes_race(world: World) {
        let mut racers = Vec::new();
        for _ in 0..8 {
            let store = world.again().await;
            racers.push(tokio::spawn(async move { store.authenticate_local(&person(7)).await.unwrap() }));
        }
        let mut answers = Vec::new();
        for racer in racers {
            answers.push(racer.await.unwrap());
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
        assert_ne!(answers[0].scope, world.me.scope);
        let mut read = world.store.read(&answers[0].scope).await.unwrap();
        assert_eq!(read.member_list().await.unwrap().len(), 1);
        assert_eq!(read.audit_size().await.unwrap(), 1);
        assert_eq!(read.ring_list().await.unwrap().len(), 1);
        assert_eq!(read.org_get().await.unwrap().unwrap().name, "Person 7");
        let _ = branch("x");
    }
}

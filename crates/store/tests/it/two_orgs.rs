//! The third wall: what org A sees and does is the same with and without org B's rows, for every method there is.
//!
//! B's rows have the very same ids, names and keys as A's: both use the same source of randomness.

use crate::approval::{for_the_run, question};
use crate::charge::{ask, call, settled};
use crate::support::{
    START, World, audit_draft, event, narrowed, person, ring_key, run_draft, task_draft, warrant,
};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    AgentRole, ApprovalId, ApprovalState, BudgetActions, BudgetHolder, BudgetPeriod, CalendarDay, EngineKind,
    FixedClock, FixedEntropy, MicroUsd, ModelEffect, OfferPattern, PriceTable, PrivacyClass, Refusal,
    RepositoryId, Rule, RunId, RunState, SteerKind, SteerState, TaskId, WarrantId,
};
use tipstaff_seal::Secret;
use tipstaff_seal::log::{LogVerifier, Tail};
use tipstaff_store::{
    AgentDraft, ApprovalFilter, ChargeBy, Engine, KeyPurpose, Lease, OrgScope, Principal, PublicationDraft,
    PublicationState, RepositoryKind, RunDecision, Store, TaskDraft, TaskFilter,
};

/// What was called and what it answered.
#[derive(Default)]
struct Journal {
    lines: Vec<String>,
    methods: BTreeSet<&'static str>,
}

impl Journal {
    fn note(&mut self, method: &'static str, answer: &dyn Debug) {
        self.methods.insert(method);
        self.lines.push(format!("{method}: {answer:?}"));
    }
}

/// Calls a method and notes its answer; errors are answers too.
macro_rules! call {
    ($journal:ident, $tx:ident.$method:ident($($argument:expr),*)) => {{
        let answer = $tx.$method($($argument),*).await;
        $journal.note(stringify!($method), &answer);
        answer.unwrap()
    }};
}

struct Ids {
    repository: RepositoryId,
    task: TaskId,
    run: RunId,
    warrant: WarrantId,
    lease: Lease,
}

/// Every method that writes.
async fn act(store: &Store, scope: &OrgScope, journal: &mut Journal) -> Ids {
    let name = "local/house".parse().unwrap();
    let mut tx = store.begin(scope).await.unwrap();
    let repository = call!(journal, tx.repository_set(&name, RepositoryKind::Local, "/srv/house"));
    let agent = AgentDraft {
        name: "fixer".to_owned(),
        role: AgentRole::Builder,
        engine: EngineKind::Command,
        command: vec![],
        model: None,
        instructions: String::new(),
    };
    call!(journal, tx.agent_set(&agent));
    call!(journal, tx.agent_set(&AgentDraft { name: "gone".to_owned(), ..agent }));
    call!(journal, tx.agent_remove("gone"));
    let keyed =
        TaskDraft { dedup_key: Some("once".to_owned()), repository: Some(repository), ..task_draft() };
    let task = call!(journal, tx.task_add(keyed.clone())).id();
    call!(journal, tx.task_add(keyed.clone()));
    let batch = call!(
        journal,
        tx.task_add_batch(vec![task_draft(), keyed, task_draft(), task_draft(), task_draft()])
    );
    let lease = call!(journal, tx.task_claim(task, "worker", 60_000)).unwrap();
    call!(journal, tx.lease_guard(&lease));
    let run = call!(journal, tx.run_add(&lease, &run_draft()));
    let signed = warrant(&mut tx, &lease).await.unwrap();
    call!(journal, tx.warrant_add(&lease, &signed));
    call!(journal, tx.event_add(&lease, &[event("a"), event("b")]));
    call!(journal, tx.refusal_add(&lease, &Refusal::new(Rule::ForcePush, "x", "y")));
    call!(journal, tx.run_charge(&lease, 5, 6));
    call!(
        journal,
        tx.budget_set(
            &BudgetHolder::Org,
            BudgetPeriod::Month,
            MicroUsd::from_micro(500),
            &BudgetActions::default()
        )
    );
    call!(
        journal,
        tx.budget_set(
            &BudgetHolder::Agent("fixer".to_owned()),
            BudgetPeriod::Day,
            MicroUsd::from_micro(400),
            &BudgetActions::default()
        )
    );
    call!(
        journal,
        tx.budget_set(
            &BudgetHolder::Agent("fixer".to_owned()),
            BudgetPeriod::Week,
            MicroUsd::from_micro(1),
            &BudgetActions::default()
        )
    );
    call!(journal, tx.budget_remove(&BudgetHolder::Agent("fixer".to_owned()), BudgetPeriod::Week));
    call!(journal, tx.run_lock(run));
    call!(journal, tx.run_above(run));
    call!(journal, tx.run_list_above(run));
    call!(journal, tx.run_list_under(run, 10));
    call!(journal, tx.run_list_open_under(run));
    call!(journal, tx.task_count_under(run));
    call!(journal, tx.run_used(run));
    call!(journal, tx.run_ended_above(run));
    let account = call!(journal, tx.charge_account(run));
    assert!(account.is_some());
    let account = crate::charge::account(300);
    call!(journal, tx.charge_reserve(&lease, &account, &ask(call(1), 200, 100)));
    call!(journal, tx.charge_reserve(&lease, &account, &ask(call(2), 200, 100)));
    call!(journal, tx.charge_reserve(&lease, &account, &ask(call(3), 200, 100)));
    call!(journal, tx.charge_settle(&lease, &settled(call(1), 150)));
    call!(journal, tx.charge_settle_of(run, &settled(call(1), 150)));
    call!(journal, tx.budget_alert(&lease, &account));
    let rich = crate::charge::account(9_000_000);
    call!(journal, tx.budget_remove(&BudgetHolder::Org, BudgetPeriod::Month));
    call!(journal, tx.budget_remove(&BudgetHolder::Agent("fixer".to_owned()), BudgetPeriod::Day));
    call!(journal, tx.charge_hold(&lease, &rich, call(8), MicroUsd::from_micro(5_000)));
    call!(journal, tx.charge_draw(run, call(8), &ask(call(9), 40, 40), MicroUsd::from_micro(40)));
    call!(journal, tx.charge_release(run, call(8)));
    call!(
        journal,
        tx.budget_set(
            &BudgetHolder::Org,
            BudgetPeriod::Month,
            MicroUsd::from_micro(500),
            &BudgetActions::default()
        )
    );
    call!(journal, tx.project_add("web"));
    call!(journal, tx.project_add("gone"));
    let web = tx.project_get("web").await.unwrap().unwrap();
    call!(journal, tx.project_assign(repository, web.id));
    call!(journal, tx.project_unassign(repository));
    call!(journal, tx.project_assign(repository, web.id));
    call!(journal, tx.project_remove("gone"));
    call!(journal, tx.price_table_set(&PriceTable::builtin().unwrap()));
    call!(journal, tx.price_table_reset());
    let models: OfferPattern = "anthropic/*".parse().unwrap();
    call!(journal, tx.policy_set(None, "[policy]\n", "member:x"));
    call!(journal, tx.policy_set(Some("site"), "[policy]\ndefault = \"ask\"\n", "member:x"));
    call!(journal, tx.policy_remove(None));
    call!(journal, tx.policy_set(None, "[policy]\ndefault = \"deny\"\n", "member:x"));
    call!(journal, tx.model_rule_set(None, &models, ModelEffect::Allow));
    call!(journal, tx.model_rule_set(Some("site"), &models, ModelEffect::Deny));
    call!(journal, tx.model_rule_remove(None, &models));
    call!(journal, tx.model_rule_set(None, &models, ModelEffect::Deny));
    call!(journal, tx.model_route_set(None, &models, "[]"));
    call!(journal, tx.model_route_set(Some("site"), &models, "[]"));
    call!(journal, tx.model_route_remove(Some("site"), &models));
    call!(journal, tx.price_table_set(&PriceTable::builtin().unwrap()));
    call!(journal, tx.lease_renew(&lease, 60_000));
    call!(journal, tx.secret_set("token", &Secret::new(b"value".to_vec())));
    call!(journal, tx.secret_set("gone", &Secret::new(b"value".to_vec())));
    call!(journal, tx.secret_remove("gone"));
    let message = call!(journal, tx.outbox_add("kind", &json!({})));
    call!(journal, tx.outbox_add("kind", &json!({})));
    call!(journal, tx.outbox_sent(message));
    call!(journal, tx.outbox_prune(START + 1));
    tx.audit_note(audit_draft("noted"));
    journal.note("audit_note", &());
    call!(journal, tx.audit_append(vec![audit_draft("one"), audit_draft("two")]));
    let answer = tx.commit().await;
    journal.note("commit", &answer);

    let mut tx = store.begin(scope).await.unwrap();
    call!(journal, tx.audit_erase(1, "member:1"));
    call!(journal, tx.ring_rotate_begin());
    call!(journal, tx.ring_reseal_step(100));
    call!(journal, tx.ring_retire_unused());
    call!(journal, tx.ring_rewrap(&ring_key()));
    call!(
        journal,
        tx.run_update(&lease, &RunUpdate { state: Some(RunState::Running), ..RunUpdate::default() })
    );
    let me = tx.member_list().await.unwrap()[0].id;
    let (first, second, third) = (question(&signed, 1), question(&signed, 2), question(&signed, 3));
    call!(journal, tx.approval_ask(&lease, &first));
    call!(journal, tx.approval_ask(&lease, &first));
    call!(journal, tx.approval_ask(&lease, &second));
    call!(journal, tx.approval_ask(&lease, &third));
    call!(journal, tx.approval_answer(me, first.id, &for_the_run()));
    call!(journal, tx.approval_ask(&lease, &question(&signed, 4)));
    assert!(call!(journal, tx.approval_use(&lease, first.id, &first.digest)));
    assert!(!call!(journal, tx.approval_use(&lease, first.id, &first.digest)));
    call!(journal, tx.approval_shorten(me, first.id));
    call!(journal, tx.approval_withdraw(&lease, second.id));
    call!(journal, tx.approval_expire(&lease));
    let told = SteerKind::Message { text: "look at the tests".to_owned() };
    for kind in [SteerKind::Pause, told, SteerKind::Resume] {
        call!(journal, tx.steer_add(me, run, kind));
    }
    let waiting = call!(journal, tx.steer_waiting(run));
    call!(journal, tx.steer_taken(&lease, waiting[0].id, SteerState::Taken, Some("paused")));
    let child = narrowed(&mut tx, &signed).await;
    call!(journal, tx.warrant_narrow(&child));
    call!(journal, tx.warrant_revoke(signed.warrant.id));
    call!(journal, tx.warrant_revoke_run(run));
    call!(
        journal,
        tx.run_update(&lease, &RunUpdate { state: Some(RunState::Failed), ..RunUpdate::default() })
    );
    call!(journal, tx.run_decide(run, RunDecision::Discarded));
    let draft = PublicationDraft {
        run,
        url: "https://example.com/house.git".to_owned(),
        reference: "refs/heads/agent/one".parse().unwrap(),
        commit: crate::support::commit('c'),
    };
    let publication = call!(journal, tx.publication_begin(&draft));
    call!(journal, tx.publication_begin(&draft));
    call!(journal, tx.publication_end(publication, PublicationState::Done, None));
    assert!(!call!(journal, tx.publication_end(publication, PublicationState::Failed, Some("late"))));
    call!(journal, tx.signing_key_ensure(KeyPurpose::Commit));
    call!(journal, tx.run_workspace_destroyed(run));
    let second = call!(journal, tx.task_claim(batch[2].id(), "worker", 60_000)).unwrap();
    let moved = call!(journal, tx.task_claim(batch[4].id(), "worker", 60_000)).unwrap();
    call!(journal, tx.task_move(&moved, RunState::Failed, Some("why")));
    let third = call!(journal, tx.task_claim(batch[3].id(), "worker", 60_000)).unwrap();
    call!(journal, tx.task_end_batch(&[third], RunState::Failed, None));
    call!(journal, tx.task_cancel(batch[0].id()));
    tx.commit().await.unwrap();
    let mut tx = store.begin(scope).await.unwrap();
    call!(journal, tx.retention_set(PrivacyClass::Org, Some(1_000)));
    call!(journal, tx.retention_set(PrivacyClass::Meta, Some(1_000)));
    call!(journal, tx.retention_set(PrivacyClass::Meta, None));
    call!(journal, tx.run_sweep(run));
    call!(journal, tx.retention_swept());
    tx.commit().await.unwrap();
    let tx = store.begin(scope).await.unwrap();
    let answer = tx.rollback().await;
    journal.note("rollback", &answer);
    Ids { repository, task, run, warrant: signed.warrant.id, lease: second }
}

/// Every method that reads.
async fn look(store: &Store, scope: &OrgScope, ids: &Ids, journal: &mut Journal) {
    let mut tx = store.read(scope).await.unwrap();
    let org = tx.org();
    journal.note("org", &org);
    call!(journal, tx.org_get());
    call!(journal, tx.member_list());
    call!(journal, tx.agent_get("fixer"));
    call!(journal, tx.agent_list());
    let name = "local/house".parse().unwrap();
    call!(journal, tx.repository_get(ids.repository));
    call!(journal, tx.repository_by_name(&name));
    call!(journal, tx.repository_by_source("/srv/house"));
    call!(journal, tx.repository_list());
    call!(journal, tx.task_get(ids.task));
    call!(journal, tx.task_list(TaskFilter::default(), 100));
    call!(journal, tx.task_count());
    call!(journal, tx.run_get(ids.run));
    call!(journal, tx.run_find(&ids.run.short()));
    call!(journal, tx.run_list(None, 100));
    call!(journal, tx.run_list_open());
    call!(journal, tx.run_list_of_task(ids.task));
    call!(journal, tx.run_list_resuming(ids.run));
    call!(journal, tx.run_list_with_workspace("host"));
    call!(journal, tx.run_summary(ids.run));
    call!(journal, tx.event_list(ids.run, 0, 100));
    call!(journal, tx.setup_report(ids.run));
    call!(journal, tx.retention_list());
    call!(journal, tx.retention_swept_at());
    call!(journal, tx.run_swept_at(ids.run));
    call!(journal, tx.run_list_unswept(i64::MAX, None, 100));
    call!(journal, tx.run_sweep_size(ids.run));
    call!(journal, tx.refusal_list(ids.run));
    call!(journal, tx.warrant_get(ids.warrant));
    call!(journal, tx.warrant_list_of_run(ids.run));
    call!(journal, tx.publication_list_of_run(ids.run));
    let asked = ApprovalId::from_bytes([1; 16]);
    call!(journal, tx.approval_get(asked));
    call!(journal, tx.approval_find(&asked.short()));
    call!(journal, tx.approval_list(ApprovalFilter::default(), 100));
    call!(journal, tx.approval_list(ApprovalFilter { run: Some(ids.run), ..ApprovalFilter::default() }, 100));
    let withdrawn = ApprovalFilter { state: Some(ApprovalState::Withdrawn), ..ApprovalFilter::default() };
    call!(journal, tx.approval_list(withdrawn, 100));
    call!(journal, tx.steer_list(ids.run));
    call!(journal, tx.steer_waiting(ids.run));
    call!(journal, tx.lease_look(&ids.lease));
    call!(journal, tx.warrant_of_run(ids.run));
    call!(journal, tx.warrant_list_live(100));
    let secret = tx.secret_get("token").await.unwrap().unwrap();
    journal.note("secret_get", &secret.expose());
    call!(journal, tx.secret_list());
    call!(journal, tx.ring_list());
    call!(journal, tx.signing_key(KeyPurpose::Warrant));
    call!(journal, tx.verifying_keys(KeyPurpose::Audit));
    let key = call!(journal, tx.audit_key());
    call!(journal, tx.audit_size());
    call!(journal, tx.audit_stream(0, 100));
    call!(journal, tx.audit_list(None, 100));
    call!(journal, tx.audit_get(0));
    call!(journal, tx.audit_checkpoint());
    call!(journal, tx.audit_checkpoint_list(0, 100));
    assert!(call!(journal, tx.audit_verify(LogVerifier::new(key, Tail::Sealed))).is_good());
    let mut exported = String::new();
    let answer = tx
        .audit_export(|line| {
            exported.push_str(line);
            Ok(())
        })
        .await;
    journal.note("audit_export", &(answer, exported));
    call!(journal, tx.outbox_list(100));
    let (first, last) = (CalendarDay::FIRST, CalendarDay::LAST);
    for by in [ChargeBy::Model, ChargeBy::Agent, ChargeBy::Project, ChargeBy::Person, ChargeBy::Day] {
        call!(journal, tx.charge_by(by, first, last));
    }
    call!(journal, tx.charge_of_run(ids.run));
    call!(journal, tx.charge_list_of_run(ids.run));
    call!(journal, tx.charge_get(call(1)));
    call!(journal, tx.budget_list());
    call!(journal, tx.budget_standing());
    call!(journal, tx.budget_list_of(&BudgetHolder::Org));
    let web = call!(journal, tx.project_get("web")).unwrap();
    call!(journal, tx.project_list());
    call!(journal, tx.project_of(ids.repository));
    call!(journal, tx.project_repositories(web.id));
    call!(journal, tx.price_table());
    call!(journal, tx.policy_list());
    call!(journal, tx.model_rule_list());
    call!(journal, tx.model_route_list());
}

/// A store whose ids and keys follow from `seed`.
async fn seeded(world: &World, seed: u64) -> Store {
    let clock = Arc::new(FixedClock::at(START));
    Store::open(world.config.clone(), ring_key(), clock, Arc::new(FixedEntropy::seeded(seed))).await.unwrap()
}

async fn org(world: &World, uid: u32) -> Principal {
    seeded(world, u64::from(uid)).await.authenticate_local(&person(uid)).await.unwrap()
}

const SAME: u64 = 777;

async fn told(engine: Engine) {
    let alone = World::new(engine).await;
    let mut without = Journal::default();
    let a = org(&alone, 100).await;
    let store = seeded(&alone, SAME).await;
    let ids = act(&store, &a.scope, &mut without).await;
    look(&store, &a.scope, &ids, &mut without).await;

    let shared = World::new(engine).await;
    let b = org(&shared, 200).await;
    let same = org(&shared, 100).await;
    assert_eq!(a, same, "the two worlds have the same org A");
    let (mut ignored, mut before, mut after, mut with) =
        (Journal::default(), Journal::default(), Journal::default(), Journal::default());
    let store = seeded(&shared, SAME).await;
    let theirs = act(&store, &b.scope, &mut ignored).await;
    look(&store, &b.scope, &theirs, &mut before).await;
    let store = seeded(&shared, SAME).await;
    let mine = act(&store, &a.scope, &mut with).await;
    look(&store, &a.scope, &mine, &mut with).await;
    assert_eq!(
        (mine.task, mine.run),
        (theirs.task, theirs.run),
        "the attack has teeth: the ids are the same"
    );
    look(&store, &b.scope, &theirs, &mut after).await;

    for (one, other) in without.lines.iter().zip(&with.lines) {
        assert_eq!(one, other);
    }
    assert_eq!(without.lines.len(), with.lines.len());
    assert_eq!(before.lines, after.lines, "what A did changed nothing of B's");
    assert_eq!(with.methods, methods_of_the_source(), "every method is here");
}

/// The public methods of `OrgRead` and `OrgTx`, read from the source.
fn methods_of_the_source() -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for block in text.split("\nimpl ").skip(1) {
            if !block.starts_with("OrgRead {") && !block.starts_with("OrgTx {") {
                continue;
            }
            let block = block.split("\n}\n").next().unwrap();
            for line in block.lines() {
                let Some(rest) = line.strip_prefix("    pub ") else { continue };
                let Some((_, name)) = rest.split_once("fn ") else { continue };
                let name = name.split(['(', '<']).next().unwrap().to_owned();
                found.insert(&*Box::leak(name.into_boxed_str()));
            }
        }
    }
    assert!(found.len() > 60, "the source was read: {found:?}");
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_keeps_to_its_org_on_sqlite() {
    told(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_keeps_to_its_org_on_postgres() {
    told(Engine::Postgres).await;
}

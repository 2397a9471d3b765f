//! Questions to a person: asked once, answered once, used once, and closed with what they stand on.

use crate::support::{START, WORKER, World, code, narrowed, run_draft, story, task_draft, warrant};
use serde_json::json;
use std::sync::Arc;
use tipstaff_model::approval::{LARGEST_ACTION, MOST_OPEN, USE_GRACE_MS};
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    Action, ActionKind, Approval, ApprovalAnswer, ApprovalId, ApprovalRequest, ApprovalScope, ApprovalState,
    AuditAction, EventKind, MemberId, Risk, RunId, RunState,
};
use tipstaff_seal::SignedWarrant;
use tipstaff_store::{ApprovalAnswered, ApprovalFilter, ApprovalFound, Engine, Lease, TakeOver, TaskDraft};
use tokio::sync::Barrier;

const TIME_MS: i64 = 60_000;

/// A question with this number under a warrant; all are about the same command.
pub(crate) fn question(signed: &SignedWarrant, number: u8) -> ApprovalRequest {
    let action = Action {
        kind: ActionKind::Execute,
        tool: "Bash".to_owned(),
        title: "make test".to_owned(),
        commands: vec!["make test".to_owned()],
        paths: Vec::new(),
        hosts: Vec::new(),
        input: json!({ "command": "make test", "description": format!("call {number}") }),
    };
    ApprovalRequest {
        id: ApprovalId::from_bytes([number; 16]),
        warrant: signed.warrant.id,
        digest: action.digest(signed.warrant.id, &number.to_string()),
        action,
        risk: Risk::Medium,
        because: vec!["the org, rule 1".to_owned()],
        asked_at: START,
        expires_at: START + TIME_MS,
    }
}

fn edit(signed: &SignedWarrant, number: u8, path: &str) -> ApprovalRequest {
    let mut asked = question(signed, number);
    asked.action.kind = ActionKind::Edit;
    asked.action.commands.clear();
    asked.action.paths = vec![path.to_owned()];
    asked.digest = asked.action.digest(signed.warrant.id, &number.to_string());
    asked
}

pub(crate) fn for_the_run() -> ApprovalAnswer {
    ApprovalAnswer { scope: ApprovalScope::Run, ..yes() }
}

fn yes() -> ApprovalAnswer {
    ApprovalAnswer { allow: true, scope: ApprovalScope::Once, until: None, reason: None }
}

fn no(reason: &str) -> ApprovalAnswer {
    ApprovalAnswer { allow: false, reason: Some(reason.to_owned()), ..yes() }
}

/// A run at work under a warrant, asked for by the person at the terminal.
pub(crate) async fn at_work(world: &World) -> (Lease, SignedWarrant) {
    let mut tx = world.begin().await;
    let draft = TaskDraft { person: Some(world.me.member), ..task_draft() };
    let task = tx.task_add(draft).await.unwrap().id();
    let lease = tx.task_claim(task, WORKER, 600_000).await.unwrap().unwrap();
    tx.run_add(&lease, &run_draft()).await.unwrap();
    let signed = warrant(&mut tx, &lease).await.unwrap();
    tx.warrant_add(&lease, &signed).await.unwrap();
    moved(&mut tx, &lease, RunState::Running).await;
    tx.commit().await.unwrap();
    (lease, signed)
}

async fn moved(tx: &mut tipstaff_store::OrgTx, lease: &Lease, state: RunState) {
    tx.run_update(lease, &RunUpdate { state: Some(state), ..RunUpdate::default() }).await.unwrap();
}

async fn ask(world: &World, lease: &Lease, request: &ApprovalRequest) -> Approval {
    let mut tx = world.begin().await;
    let asked = tx.approval_ask(lease, request).await.unwrap();
    tx.commit().await.unwrap();
    asked
}

async fn answer(world: &World, id: ApprovalId, answer: &ApprovalAnswer) -> ApprovalAnswered {
    let mut tx = world.begin().await;
    let answered = tx.approval_answer(world.me.member, id, answer).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    answered
}

async fn used(world: &World, lease: &Lease, request: &ApprovalRequest) -> bool {
    let mut tx = world.begin().await;
    let used = tx.approval_use(lease, request.id, &request.digest).await.unwrap();
    tx.commit().await.unwrap();
    used
}

async fn state(world: &World, id: ApprovalId) -> ApprovalState {
    world.read().await.approval_get(id).await.unwrap().unwrap().state
}

/// What the story says about questions: their states, in order.
async fn states_told(world: &World, run: RunId) -> Vec<ApprovalState> {
    let events = world.read().await.event_list(run, 0, 1_000).await.unwrap();
    let approvals = events.into_iter().filter(|event| event.kind == EventKind::Approval);
    approvals.map(|event| serde_json::from_value::<Approval>(event.body).unwrap().state).collect()
}

/// What the log says about questions: action, actor's kind and state.
async fn logged(world: &World) -> Vec<String> {
    let entries = world.read().await.audit_list(None, 1_000).await.unwrap();
    let mut lines: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.record())
        .filter(|record| {
            [AuditAction::ApprovalAsked, AuditAction::ApprovalAnswered, AuditAction::ApprovalUsed]
                .contains(&record.action)
        })
        .map(|record| {
            let kind = record.actor.split(':').next().unwrap().to_owned();
            let state = record.detail.get("state").cloned().unwrap_or_default();
            format!("{} {kind} {state}", record.action).trim_end().to_owned()
        })
        .collect();
    lines.reverse();
    lines
}

story! {
    async fn a_question_is_asked_answered_and_used_once(world: World) {
        let (lease, signed) = at_work(&world).await;
        let first = question(&signed, 1);
        let asked = ask(&world, &lease, &first).await;
        assert_eq!((asked.state, asked.run), (ApprovalState::Pending, lease.run()));
        assert_eq!(asked.request, first, "it is kept as it was asked");
        assert_eq!(ask(&world, &lease, &first).await, asked, "asking again changes nothing");
        // Not before the answer.
        assert!(!used(&world, &lease, &first).await);
        let ApprovalAnswered::Now(allowed) = answer(&world, first.id, &yes()).await else { panic!() };
        assert_eq!(allowed.answered_by, Some(world.me.actor()));
        assert_eq!(answer(&world, first.id, &yes()).await, ApprovalAnswered::Already(allowed.clone()));
        assert_eq!(answer(&world, first.id, &no("late")).await, ApprovalAnswered::Decided(allowed.clone()));
        assert_eq!(answer(&world, first.id, &for_the_run()).await, ApprovalAnswered::Decided(allowed));
        assert_eq!(ask(&world, &lease, &first).await.state, ApprovalState::Allowed);
        // For another action than the one that was shown it is worth nothing.
        let mut other = first.clone();
        other.digest = question(&signed, 2).digest;
        assert!(!used(&world, &lease, &other).await);
        assert_eq!(code(world.begin().await.approval_ask(&lease, &other).await), "approval-mismatch");
        assert!(used(&world, &lease, &first).await);
        assert!(!used(&world, &lease, &first).await);
        assert_eq!(ask(&world, &lease, &first).await.state, ApprovalState::Used);
        // A no is told once as well, and never used.
        let second = question(&signed, 2);
        ask(&world, &lease, &second).await;
        let ApprovalAnswered::Now(denied) =
            answer(&world, second.id, &no("use ghp_0123456789abcdefghijABCDEFGHIJ012345 instead")).await
            else { panic!() };
        assert!(!used(&world, &lease, &second).await);
        let reason = denied.answer.unwrap().reason.unwrap();
        assert!(reason.starts_with("use [redacted:") && reason.ends_with("] instead"), "{reason}");
        assert_eq!(states_told(&world, lease.run()).await, [
            ApprovalState::Pending, ApprovalState::Allowed, ApprovalState::Used, ApprovalState::Pending,
            ApprovalState::Denied,
        ]);
        assert_eq!(logged(&world).await, [
            "approval.asked run", "approval.answered member allowed", "approval.used run used",
            "approval.asked run", "approval.answered member denied",
        ]);
        let events = world.read().await.event_list(lease.run(), 0, 100).await.unwrap();
        let inputs: Vec<bool> = events.iter().filter(|event| event.kind == EventKind::Approval)
            .map(|event| event.body["action"]["input"].is_null()).collect();
        assert_eq!(inputs, [false, true, true, false, true], "the arguments stand in the story once");
        assert!(answer_unknown(&world).await);
    }
}

async fn answer_unknown(world: &World) -> bool {
    let mut tx = world.begin().await;
    let unknown = ApprovalId::from_bytes([99; 16]);
    tx.approval_answer(world.me.member, unknown, &yes()).await.unwrap().is_none()
}

story! {
    async fn of_many_uses_at_once_one_succeeds(world: World) {
        let (lease, signed) = at_work(&world).await;
        for number in 1..=5 {
            let asked = question(&signed, number);
            ask(&world, &lease, &asked).await;
            answer(&world, asked.id, &yes()).await;
            let barrier = Arc::new(Barrier::new(8));
            let mut users = Vec::new();
            for _ in 0..8 {
                let (store, barrier, lease, asked) =
                    (world.store.clone(), Arc::clone(&barrier), lease.clone(), asked.clone());
                users.push(tokio::spawn(async move {
                    barrier.wait().await;
                    let mut tx = store.begin(lease.scope()).await.unwrap();
                    let used = tx.approval_use(&lease, asked.id, &asked.digest).await.unwrap();
                    tx.commit().await.unwrap();
                    used
                }));
            }
            let mut uses = 0;
            for user in users {
                uses += u32::from(user.await.unwrap());
            }
            assert_eq!(uses, 1);
        }
    }
}

story! {
    async fn of_many_answers_at_once_one_wins(world: World) {
        let (lease, signed) = at_work(&world).await;
        let asked = question(&signed, 1);
        ask(&world, &lease, &asked).await;
        let barrier = Arc::new(Barrier::new(8));
        let mut people = Vec::new();
        for number in 0..8 {
            let (store, barrier, me) = (world.again().await, Arc::clone(&barrier), world.me.clone());
            people.push(tokio::spawn(async move {
                let word = if number % 2 == 0 { yes() } else { no("not now") };
                barrier.wait().await;
                let mut tx = store.begin(&me.scope).await.unwrap();
                let answered = tx.approval_answer(me.member, ApprovalId::from_bytes([1; 16]), &word).await;
                tx.commit().await.unwrap();
                (word.allow, answered.unwrap().unwrap())
            }));
        }
        let (mut won, mut answers) = (Vec::new(), Vec::new());
        for person in people {
            let (allow, answered) = person.await.unwrap();
            match answered {
                ApprovalAnswered::Now(_) => won.push(allow),
                other => answers.push((allow, other)),
            }
        }
        assert_eq!(won.len(), 1);
        for (allow, answered) in answers {
            let alike = matches!(answered, ApprovalAnswered::Already(_));
            assert_eq!(alike, allow == won[0], "{answered:?}");
        }
    }
}

story! {
    async fn time_runs_out_for_an_answer_and_a_little_later_for_its_use(world: World) {
        let (lease, signed) = at_work(&world).await;
        let all: Vec<ApprovalRequest> = (1..=4).map(|number| question(&signed, number)).collect();
        for one in &all {
            ask(&world, &lease, one).await;
        }
        world.clock.advance(TIME_MS - 1);
        answer(&world, all[1].id, &yes()).await;
        answer(&world, all[2].id, &yes()).await;
        world.clock.advance(1);
        let ApprovalAnswered::Expired(late) = answer(&world, all[0].id, &yes()).await else { panic!() };
        assert_eq!((late.state, late.answer), (ApprovalState::Expired, None));
        assert_eq!(state(&world, all[0].id).await, ApprovalState::Expired, "the row says so");
        assert!(matches!(answer(&world, all[0].id, &no("x")).await, ApprovalAnswered::Expired(_)));
        // The yes of the last moment still counts for a while; the one that nobody used does not for ever.
        world.clock.advance(USE_GRACE_MS - 1);
        assert!(used(&world, &lease, &all[1]).await);
        world.clock.advance(1);
        assert!(!used(&world, &lease, &all[2]).await);
        let mut tx = world.begin().await;
        let expired = tx.approval_expire(&lease).await.unwrap();
        assert_eq!(expired.iter().map(|one| one.request.id).collect::<Vec<_>>(), [all[2].id, all[3].id]);
        assert!(tx.approval_expire(&lease).await.unwrap().is_empty());
        tx.commit().await.unwrap();
        assert_eq!(state(&world, all[3].id).await, ApprovalState::Expired);
        // One that comes too late is no question.
        let late = question(&signed, 5);
        assert_eq!(ask(&world, &lease, &late).await.state, ApprovalState::Expired);
    }
}

story! {
    async fn an_earlier_yes_covers_the_same_deed_until_it_ends(world: World) {
        let (lease, signed) = at_work(&world).await;
        let first = question(&signed, 1);
        ask(&world, &lease, &first).await;
        let until = ApprovalAnswer { until: Some(START + 5_000), ..for_the_run() };
        answer(&world, first.id, &until).await;
        let covered = ask(&world, &lease, &question(&signed, 2)).await;
        assert_eq!(covered.state, ApprovalState::Allowed);
        assert_eq!(covered.answered_by, Some(format!("approval:{}", first.id)));
        assert_eq!(covered.answer.unwrap().scope, ApprovalScope::Once, "it covers nothing itself");
        assert!(used(&world, &lease, &question(&signed, 2)).await);
        assert!(used(&world, &lease, &first).await, "each is used by itself");
        let mut riskier = question(&signed, 3);
        riskier.risk = Risk::High;
        assert_eq!(ask(&world, &lease, &riskier).await.state, ApprovalState::Pending);
        let mut other = question(&signed, 4);
        other.action.commands = vec!["make test; make install".to_owned()];
        assert_eq!(ask(&world, &lease, &other).await.state, ApprovalState::Pending);
        world.clock.advance(5_000);
        assert_eq!(ask(&world, &lease, &question(&signed, 5)).await.state, ApprovalState::Pending);
        // For paths.
        let asked = edit(&signed, 6, "src/a.rs");
        ask(&world, &lease, &asked).await;
        let patterns = vec!["src/**".parse().unwrap()];
        answer(&world, asked.id, &ApprovalAnswer { scope: ApprovalScope::Paths { patterns }, ..yes() }).await;
        assert_eq!(ask(&world, &lease, &edit(&signed, 7, "/work/src/b.rs")).await.state, ApprovalState::Allowed);
        for (number, path) in [(8, "Makefile"), (9, "src/../Makefile"), (10, "/etc/hosts")] {
            assert_eq!(ask(&world, &lease, &edit(&signed, number, path)).await.state, ApprovalState::Pending, "{path}");
        }
        // Another run of the org has its own answers.
        let (second, its) = at_work(&world).await;
        assert_eq!(ask(&world, &second, &edit(&its, 11, "src/b.rs")).await.state, ApprovalState::Pending);
        assert_eq!(logged(&world).await[..5], [
            "approval.asked run", "approval.answered member allowed", "approval.asked run",
            "approval.answered approval allowed", "approval.used run used",
        ]);
    }
}

story! {
    async fn the_further_reach_of_a_yes_can_be_ended(world: World) {
        let (lease, signed) = at_work(&world).await;
        let (first, second) = (question(&signed, 1), question(&signed, 2));
        ask(&world, &lease, &first).await;
        answer(&world, first.id, &for_the_run()).await;
        assert_eq!(ask(&world, &lease, &second).await.state, ApprovalState::Allowed);
        let shorten = async |who: MemberId, id: ApprovalId| {
            let mut tx = world.begin().await;
            let told = tx.approval_shorten(who, id).await.map_err(|error| error.code());
            tx.commit().await.unwrap();
            told.map(|told| told.map(|(asked, reached)| (asked.state, reached)))
        };
        let viewer = colleague(&world, 50, "viewer");
        let me = world.me.member;
        assert_eq!(shorten(viewer, first.id).await, Err("approval-forbidden"));
        assert_eq!(shorten(me, second.id).await, Ok(Some((ApprovalState::Allowed, false))), "it reaches no further");
        assert_eq!(shorten(me, first.id).await, Ok(Some((ApprovalState::Allowed, true))));
        assert_eq!(shorten(me, first.id).await, Ok(Some((ApprovalState::Allowed, false))));
        assert_eq!(shorten(me, ApprovalId::from_bytes([9; 16])).await, Ok(None));
        assert_eq!(ask(&world, &lease, &question(&signed, 3)).await.state, ApprovalState::Pending);
        // What was allowed stays so.
        assert!(used(&world, &lease, &first).await && used(&world, &lease, &second).await);
    }
}

story! {
    async fn the_end_of_a_run_takes_its_questions_back(world: World) {
        let (lease, signed) = at_work(&world).await;
        let (open, allowed, spent) = (question(&signed, 1), question(&signed, 2), question(&signed, 3));
        for one in [&open, &allowed, &spent] {
            ask(&world, &lease, one).await;
        }
        answer(&world, allowed.id, &yes()).await;
        answer(&world, spent.id, &yes()).await;
        assert!(used(&world, &lease, &spent).await);
        let mut tx = world.begin().await;
        moved(&mut tx, &lease, RunState::Failed).await;
        tx.commit().await.unwrap();
        assert_eq!(state(&world, open.id).await, ApprovalState::Withdrawn);
        assert_eq!(state(&world, allowed.id).await, ApprovalState::Withdrawn);
        assert_eq!(state(&world, spent.id).await, ApprovalState::Used);
        let ApprovalAnswered::Decided(late) = answer(&world, open.id, &yes()).await else { panic!() };
        assert_eq!(late.state, ApprovalState::Withdrawn);
        assert!(matches!(answer(&world, allowed.id, &yes()).await, ApprovalAnswered::Decided(_)));
    }
}

story! {
    async fn a_worker_that_dies_between_answer_and_use_uses_nothing(world: World) {
        let (lease, signed) = at_work(&world).await;
        let asked = question(&signed, 1);
        ask(&world, &lease, &asked).await;
        answer(&world, asked.id, &yes()).await;
        assert_eq!(state(&world, asked.id).await, ApprovalState::Allowed, "nothing is lost meanwhile");
        world.clock.advance(600_001);
        world.store.task_reap(TakeOver::Expired, "reaper").await.unwrap();
        assert_eq!(state(&world, asked.id).await, ApprovalState::Withdrawn);
        // The dead one was only slow.
        let mut tx = world.begin().await;
        assert_eq!(code(tx.approval_use(&lease, asked.id, &asked.digest).await), "lease-lost");
        tx.rollback().await.unwrap();
        assert_eq!(states_told(&world, lease.run()).await, [
            ApprovalState::Pending, ApprovalState::Allowed, ApprovalState::Withdrawn,
        ]);
    }
}

story! {
    async fn a_question_stands_under_its_own_warrant(world: World) {
        let (lease, signed) = at_work(&world).await;
        let (open, allowed) = (question(&signed, 1), question(&signed, 2));
        ask(&world, &lease, &open).await;
        ask(&world, &lease, &allowed).await;
        answer(&world, allowed.id, &yes()).await;
        let mut tx = world.begin().await;
        let child = narrowed(&mut tx, &signed).await;
        tx.warrant_narrow(&child).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(state(&world, open.id).await, ApprovalState::Withdrawn);
        assert_eq!(state(&world, allowed.id).await, ApprovalState::Withdrawn);
        assert!(!used(&world, &lease, &allowed).await);
        // The worker may not have heard yet.
        assert_eq!(ask(&world, &lease, &question(&signed, 3)).await.state, ApprovalState::Withdrawn);
        let fresh = question(&child, 4);
        assert_eq!(ask(&world, &lease, &fresh).await.state, ApprovalState::Pending);
        answer(&world, fresh.id, &yes()).await;
        let mut tx = world.begin().await;
        assert!(tx.warrant_revoke(signed.warrant.id).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(state(&world, fresh.id).await, ApprovalState::Withdrawn);
        assert!(!used(&world, &lease, &fresh).await);
        assert_eq!(ask(&world, &lease, &question(&child, 5)).await.state, ApprovalState::Withdrawn);
    }
}

story! {
    async fn a_yes_is_worth_nothing_to_another_run_or_org(world: World) {
        let (lease, signed) = at_work(&world).await;
        let (other, _) = at_work(&world).await;
        let asked = question(&signed, 1);
        ask(&world, &lease, &asked).await;
        answer(&world, asked.id, &yes()).await;
        assert!(!used(&world, &other, &asked).await);
        assert_eq!(code(world.begin().await.approval_ask(&other, &asked).await), "approval-mismatch");
        let mut tx = world.begin().await;
        assert!(!tx.approval_withdraw(&other, asked.id).await.unwrap());
        tx.commit().await.unwrap();
        let stranger = world.store.authenticate_local(&crate::support::person(2)).await.unwrap();
        let mut tx = world.store.begin(&stranger.scope).await.unwrap();
        assert_eq!(tx.approval_get(asked.id).await.unwrap(), None);
        assert_eq!(tx.approval_answer(stranger.member, asked.id, &no("x")).await.unwrap(), None);
        assert_eq!(tx.approval_find(&asked.id.short()).await.unwrap(), ApprovalFound::None);
        tx.commit().await.unwrap();
        assert!(used(&world, &lease, &asked).await);
    }
}

story! {
    async fn questions_are_listed_newest_first_and_found_by_their_last_digits(world: World) {
        let (lease, signed) = at_work(&world).await;
        for number in 1..=5 {
            ask(&world, &lease, &question(&signed, number)).await;
        }
        answer(&world, ApprovalId::from_bytes([3; 16]), &no("x")).await;
        let mut read = world.read().await;
        let numbers = |list: Vec<Approval>| list.iter().map(|one| one.request.id.as_bytes()[0]).collect::<Vec<_>>();
        let pending = ApprovalFilter { state: Some(ApprovalState::Pending), ..ApprovalFilter::default() };
        assert_eq!(numbers(read.approval_list(pending, 2).await.unwrap()), [5, 4]);
        let next = ApprovalFilter { before: Some(ApprovalId::from_bytes([4; 16])), ..pending };
        assert_eq!(numbers(read.approval_list(next, 2).await.unwrap()), [2, 1]);
        let run = ApprovalFilter { run: Some(lease.run()), ..ApprovalFilter::default() };
        assert_eq!(numbers(read.approval_list(run, 9).await.unwrap()), [5, 4, 3, 2, 1]);
        let denied = ApprovalFilter { state: Some(ApprovalState::Denied), ..run };
        assert_eq!(numbers(read.approval_list(denied, 9).await.unwrap()), [3]);
        assert_eq!(numbers(read.approval_list(ApprovalFilter::default(), 1).await.unwrap()), [5]);
        let four = ApprovalId::from_bytes([4; 16]);
        assert_eq!(read.approval_find("0404").await.unwrap(), ApprovalFound::One(four));
        assert_eq!(read.approval_find(&four.to_string()).await.unwrap(), ApprovalFound::One(four));
        assert_eq!(read.approval_find("9999").await.unwrap(), ApprovalFound::None);
        assert_eq!(read.approval_find("").await.unwrap(), ApprovalFound::Several);
        assert_eq!(read.approval_find(&"4".repeat(40)).await.unwrap(), ApprovalFound::None);
    }
}

story! {
    async fn a_run_can_not_ask_without_end(world: World) {
        let (lease, signed) = at_work(&world).await;
        let mut large = question(&signed, 200);
        large.action.input = json!({ "content": "x".repeat(LARGEST_ACTION) });
        assert_eq!(code(world.begin().await.approval_ask(&lease, &large).await), "input");
        for number in 1..=u8::try_from(MOST_OPEN).unwrap() {
            let mut tx = world.begin().await;
            tx.approval_ask(&lease, &question(&signed, number)).await.unwrap();
            tx.commit().await.unwrap();
        }
        assert_eq!(code(world.begin().await.approval_ask(&lease, &question(&signed, 100)).await), "input");
        let mut tx = world.begin().await;
        assert!(tx.approval_withdraw(&lease, ApprovalId::from_bytes([1; 16])).await.unwrap());
        assert!(!tx.approval_withdraw(&lease, ApprovalId::from_bytes([1; 16])).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(ask(&world, &lease, &question(&signed, 100)).await.state, ApprovalState::Pending);
    }
}

/// Adds a person to the org around the store, as a server would later.
fn colleague(world: &World, number: u8, role: &str) -> MemberId {
    let id = MemberId::from_bytes([number; 16]);
    let org = world.me.scope.org();
    world.vandal(&format!("insert into member values ('{org}', '{id}', 'Colleague', '{role}', 1)"));
    id
}

story! {
    async fn who_may_answer(world: World) {
        let (lease, signed) = at_work(&world).await;
        let asked = question(&signed, 1);
        let critical = |number| ApprovalRequest { risk: Risk::Critical, ..question(&signed, number) };
        for one in [asked.clone(), critical(2), critical(3), critical(4), critical(5)] {
            ask(&world, &lease, &one).await;
        }
        let me = world.me.member;
        let viewer = colleague(&world, 50, "viewer");
        let say = async |who: MemberId, id: ApprovalId, word: ApprovalAnswer| {
            let mut tx = world.begin().await;
            let answered = tx.approval_answer(who, id, &word).await;
            let code = answered.map_err(|error| error.code()).map(|answered| answered.unwrap());
            tx.commit().await.unwrap();
            code
        };
        let refused = Err("approval-forbidden");
        assert_eq!(say(viewer, asked.id, yes()).await, refused);
        assert_eq!(say(viewer, asked.id, no("x")).await, refused);
        assert_eq!(say(MemberId::from_bytes([51; 16]), asked.id, yes()).await, refused, "nobody of the org");
        assert_eq!(state(&world, asked.id).await, ApprovalState::Pending);
        // Alone in the org (a viewer answers nothing): with a reason, which is kept.
        assert_eq!(say(me, critical(2).id, yes()).await, refused);
        assert_eq!(say(me, critical(2).id, for_the_run()).await, Err("input"));
        let reasoned = ApprovalAnswer { reason: Some("the release is due".to_owned()), ..yes() };
        assert!(matches!(say(me, critical(2).id, reasoned.clone()).await, Ok(ApprovalAnswered::Now(_))));
        // With somebody else there, they have to say so. A no needs nobody else.
        let member = colleague(&world, 52, "member");
        assert_eq!(say(me, critical(3).id, reasoned).await, refused);
        assert!(matches!(say(member, critical(3).id, yes()).await, Ok(ApprovalAnswered::Now(_))));
        assert!(matches!(say(me, critical(4).id, no("no")).await, Ok(ApprovalAnswered::Now(_))));
        assert!(matches!(say(member, asked.id, yes()).await, Ok(ApprovalAnswered::Now(_))));
        let entries = world.read().await.audit_list(None, 100).await.unwrap();
        let reasons = entries.iter().filter_map(|one| one.record()).filter_map(|one| one.detail.get("reason").cloned());
        assert_eq!(reasons.collect::<Vec<_>>(), ["no", "the release is due"]);
    }
}

/// What people read of a question is what they answer: it stays as it was asked until its run has ended, and is erased then.
async fn not_rewritten_while_its_run_goes_on(engine: Engine) {
    let world = World::new(engine).await;
    let (lease, signed) = at_work(&world).await;
    ask(&world, &lease, &question(&signed, 1)).await;
    let org = world.me.scope.org();
    let attack = |set: &str| {
        let text = format!("update approval set {set}");
        match engine {
            Engine::Sqlite => {
                let connection = rusqlite::Connection::open(&world.file).unwrap();
                connection.execute_batch(&text).map_err(|error| error.to_string())
            }
            Engine::Postgres => {
                let text = format!("set app.org_id = '{org}'; {text}");
                let done = crate::support::server().sql_as("tipstaff_app", &world.database, &text);
                done.map(|_| ()).map_err(|error| error.to_string())
            }
        }
    };
    for set in ["action = '{}'", "because = '[]', action = 'x'", "because = '[\"harmless\"]'"] {
        let error = attack(set).unwrap_err();
        assert!(error.contains("a question of a run that goes on is not rewritten"), "{set}: {error}");
    }
    attack("state = state, action = action").unwrap();
    let mut tx = world.begin().await;
    moved(&mut tx, &lease, RunState::Failed).await;
    tx.commit().await.unwrap();
    attack("because = '[]'").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_not_rewritten_while_its_run_goes_on_on_sqlite() {
    not_rewritten_while_its_run_goes_on(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_not_rewritten_while_its_run_goes_on_on_postgres() {
    not_rewritten_while_its_run_goes_on(Engine::Postgres).await;
}

/// What a question is bound to can't be changed by the program's own role, only by the database's owner. The words that
/// people read of it can once its run has ended: the sweep of old sessions erases them; the digest is what counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_answer_is_bound_to_can_not_be_rewritten() {
    let world = World::new(Engine::Postgres).await;
    for text in [
        "update approval set digest = 'x'",
        "update approval set run_id = 'x'",
        "update approval set warrant_id = 'x'",
        "update approval set expires_at = 1",
        "delete from approval",
        "update steering set said_by = 'x'",
        "delete from steering",
    ] {
        let answer = crate::support::server().sql_as("tipstaff_app", &world.database, text);
        assert!(answer.unwrap_err().to_string().contains("permission denied"), "{text}");
    }
}

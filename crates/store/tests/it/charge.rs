//! The ledger: no budget is overshot, nothing is counted twice, nothing is lost.

use crate::support::{START, WORKER, World, code, run_draft, story, task_draft, warrant};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::sync::Arc;
use tipstaff_model::id::RowId;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    BudgetActions, BudgetHolder, BudgetPeriod, BudgetScope, CalendarDay, CallOutcome, ChargeAnswer,
    ChargeRequest, ChargeSettlement, FixedClock, FixedEntropy, MicroUsd, RunState, Usage,
};
use tipstaff_store::{ChargeAccount, ChargeBy, ChargeState, Lease, Store, TakeOver};

pub(crate) fn call(number: u64) -> RowId {
    RowId::new(&FixedClock::at(START), &FixedEntropy::seeded(number))
}

pub(crate) fn account(micro: u64) -> ChargeAccount {
    ChargeAccount {
        run_budget: MicroUsd::from_micro(micro),
        above: Vec::new(),
        agent: Some("fixer".to_owned()),
        project: None,
        person: None,
    }
}

pub(crate) fn ask(call: RowId, most: u64, least: u64) -> ChargeRequest {
    ChargeRequest {
        call,
        provider: "anthropic".to_owned(),
        model: "claude-sonnet-4-5".to_owned(),
        most: MicroUsd::from_micro(most),
        least: MicroUsd::from_micro(least),
    }
}

pub(crate) fn settled(call: RowId, cost: u64) -> ChargeSettlement {
    ChargeSettlement {
        call,
        provider: None,
        model: "claude-sonnet-4-5-20250929".to_owned(),
        usage: Usage {
            input: 10,
            cache_read: 20,
            cache_write: 3,
            cache_write_1h: 4,
            output: 5,
            reasoning: 2,
        },
        cost: MicroUsd::from_micro(cost),
        price_unknown: false,
        estimated: false,
        outcome: CallOutcome::Complete,
        status: 200,
        duration_ms: 1_234,
    }
}

const fn granted(micro: u64) -> ChargeAnswer {
    ChargeAnswer::Granted(MicroUsd::from_micro(micro))
}

fn exhausted(scope: BudgetScope, limit: u64, spent: u64) -> ChargeAnswer {
    ChargeAnswer::Exhausted { scope, limit: MicroUsd::from_micro(limit), spent: MicroUsd::from_micro(spent) }
}

async fn reserve(store: &Store, lease: &Lease, budget: u64, request: ChargeRequest) -> ChargeAnswer {
    let mut tx = store.begin(lease.scope()).await.unwrap();
    let answer = tx.charge_reserve(lease, &account(budget), &request).await.unwrap().answer;
    tx.commit().await.unwrap();
    answer
}

pub(crate) async fn reserve_for(
    store: &Store,
    lease: &Lease,
    account: &ChargeAccount,
    request: ChargeRequest,
) -> ChargeAnswer {
    let mut tx = store.begin(lease.scope()).await.unwrap();
    let answer = tx.charge_reserve(lease, account, &request).await.unwrap().answer;
    tx.commit().await.unwrap();
    answer
}

pub(crate) async fn settle(store: &Store, lease: &Lease, settlement: ChargeSettlement) -> bool {
    let mut tx = store.begin(lease.scope()).await.unwrap();
    let changed = tx.charge_settle(lease, &settlement).await.unwrap();
    tx.commit().await.unwrap();
    changed
}

story! {
    async fn money_is_reserved_then_settled(world: World) {
        let (store, lease) = (&world.store, world.lease().await);
        assert_eq!(reserve(store, &lease, 100, ask(call(1), 60, 60)).await, granted(60));
        // The same call again reserves nothing more.
        assert_eq!(reserve(store, &lease, 100, ask(call(1), 60, 60)).await, granted(60));
        assert_eq!(reserve(store, &lease, 100, ask(call(2), 60, 30)).await, granted(40));
        assert_eq!(reserve(store, &lease, 100, ask(call(3), 60, 30)).await, ChargeAnswer::Wait);
        assert!(settle(store, &lease, settled(call(1), 10)).await);
        assert!(!settle(store, &lease, settled(call(1), 99)).await, "settling twice settles once");
        assert_eq!(reserve(store, &lease, 100, ask(call(3), 60, 30)).await, granted(50));
        // Dearer than was reserved: it is on record as it was.
        assert!(settle(store, &lease, settled(call(2), 45)).await);
        assert!(settle(store, &lease, settled(call(3), 50)).await);
        assert_eq!(
            reserve(store, &lease, 100, ask(call(4), 1, 1)).await,
            exhausted(BudgetScope::Run, 100, 105)
        );
        let run = world.read().await.run_get(lease.run()).await.unwrap().unwrap();
        assert_eq!((run.cost_micro_usd, run.tokens), (105, 3 * 42));
        let mut read = world.read().await;
        let sum = read.charge_of_run(lease.run()).await.unwrap();
        assert_eq!((sum.calls, sum.cost.micro(), sum.usage.total(), sum.usage.reasoning), (3, 105, 126, 6));
        let first = read.charge_get(call(1)).await.unwrap().unwrap();
        assert_eq!((first.state, first.cost.micro(), first.status), (ChargeState::Settled, 10, 200));
        assert_eq!(first.model, "claude-sonnet-4-5-20250929");
    }
}

story! {
    async fn budgets_over_a_period_bind_and_begin_anew(world: World) {
        let (store, lease) = (&world.store, world.lease().await);
        let fixer = BudgetHolder::Agent("fixer".to_owned());
        let mut tx = world.begin().await;
        tx.budget_set(&BudgetHolder::Org, BudgetPeriod::Month, MicroUsd::from_micro(250), &BudgetActions::default()).await.unwrap();
        tx.budget_set(&fixer, BudgetPeriod::Day, MicroUsd::from_micro(7), &BudgetActions::default()).await.unwrap();
        tx.budget_set(&fixer, BudgetPeriod::Day, MicroUsd::from_micro(100), &BudgetActions::default()).await.unwrap();
        tx.budget_set(&BudgetHolder::Agent("other".to_owned()), BudgetPeriod::Day, MicroUsd::from_micro(1), &BudgetActions::default()).await.unwrap();
        assert_eq!(code(tx.budget_set(&BudgetHolder::Agent("A b".to_owned()), BudgetPeriod::Day, MicroUsd::from_micro(1), &BudgetActions::default()).await), "input");
        assert_eq!(code(tx.budget_set(&BudgetHolder::Org, BudgetPeriod::Day, MicroUsd::ZERO, &BudgetActions::default()).await), "input");
        tx.commit().await.unwrap();

        assert_eq!(reserve(store, &lease, 9_000, ask(call(1), 300, 50)).await, granted(100));
        settle(store, &lease, settled(call(1), 90)).await;
        assert_eq!(reserve(store, &lease, 9_000, ask(call(2), 20, 20)).await, exhausted(BudgetScope::Agent, 100, 90));
        // 2023-11-14 23:13: the next day is less than two hours away. The month goes on.
        world.clock.advance(2 * 3_600_000);
        assert_eq!(reserve(store, &lease, 9_000, ask(call(2), 300, 50)).await, granted(100));
        settle(store, &lease, settled(call(2), 100)).await;
        world.clock.advance(24 * 3_600_000);
        assert_eq!(reserve(store, &lease, 9_000, ask(call(3), 300, 50)).await, granted(60));
        assert_eq!(reserve(store, &lease, 9_000, ask(call(4), 300, 50)).await, ChargeAnswer::Wait);
        settle(store, &lease, settled(call(3), 60)).await;
        world.clock.advance(24 * 3_600_000);
        assert_eq!(reserve(store, &lease, 9_000, ask(call(4), 300, 50)).await, exhausted(BudgetScope::Org, 250, 250));

        let mut read = world.read().await;
        let standing = read.budget_standing().await.unwrap();
        let lines: Vec<String> = standing
            .iter()
            .map(|one| format!("{} {} {} since {}: {} {}", one.budget.holder, one.budget.period, one.budget.amount, one.since, one.spent, one.reserved))
            .collect();
        assert_eq!(lines, [
            "agent:fixer day $0.000100 since 2023-11-17: $0.00 $0.00",
            "agent:other day $0.000001 since 2023-11-17: $0.00 $0.00",
            "org month $0.000250 since 2023-11-01: $0.000250 $0.00",
        ]);
        let by = |sums: Vec<tipstaff_store::ChargeSum>| -> Vec<String> {
            sums.iter().map(|sum| format!("{}/{} {} {}", sum.provider, sum.key, sum.calls, sum.cost.micro())).collect()
        };
        let all = (CalendarDay::FIRST, CalendarDay::LAST);
        assert_eq!(by(read.charge_by(ChargeBy::Model, all.0, all.1).await.unwrap()), ["anthropic/claude-sonnet-4-5-20250929 3 250"]);
        assert_eq!(by(read.charge_by(ChargeBy::Agent, all.0, all.1).await.unwrap()), ["/fixer 3 250"]);
        assert_eq!(by(read.charge_by(ChargeBy::Day, "2023-11-15".parse().unwrap(), all.1).await.unwrap()), ["/2023-11-15 1 100", "/2023-11-16 1 60"]);
        drop(read);

        let mut tx = world.begin().await;
        assert!(tx.budget_remove(&BudgetHolder::Org, BudgetPeriod::Month).await.unwrap());
        assert!(!tx.budget_remove(&BudgetHolder::Org, BudgetPeriod::Month).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(reserve(store, &lease, 9_000, ask(call(4), 300, 50)).await, granted(100));
    }
}

story! {
    async fn what_a_dead_run_had_reserved_counts_as_spent_until_it_is_known(world: World) {
        let (store, lease) = (&world.store, world.lease().await);
        assert_eq!(reserve(store, &lease, 100, ask(call(1), 60, 60)).await, granted(60));
        assert_eq!(reserve(store, &lease, 100, ask(call(2), 30, 30)).await, granted(30));
        settle(store, &lease, settled(call(2), 5)).await;
        world.clock.advance(60_001);
        assert_eq!(store.task_reap(TakeOver::Expired, "reaper").await.unwrap().len(), 1);
        let mut read = world.read().await;
        let one = read.charge_get(call(1)).await.unwrap().unwrap();
        assert_eq!((one.state, one.cost.micro(), one.estimated), (ChargeState::Presumed, 60, true));
        assert_eq!(read.run_get(lease.run()).await.unwrap().unwrap().cost_micro_usd, 65);
        drop(read);
        // A reservation is fenced; a settlement that comes late is not, and corrects the guess.
        let mut tx = world.begin().await;
        assert_eq!(code(tx.charge_reserve(&lease, &account(100), &ask(call(3), 1, 1)).await), "lease-lost");
        drop(tx);
        assert!(settle(store, &lease, settled(call(1), 20)).await);
        assert!(!settle(store, &lease, settled(call(1), 60)).await);
        let mut read = world.read().await;
        let one = read.charge_get(call(1)).await.unwrap().unwrap();
        assert_eq!((one.state, one.cost.micro(), one.estimated), (ChargeState::Settled, 20, false));
        let run = read.run_get(lease.run()).await.unwrap().unwrap();
        assert_eq!((run.cost_micro_usd, run.tokens), (25, 84));
        let total = world.vandal("select spent, reserved from charge_total where scope = 'org'");
        assert_eq!(total, "25|0");
    }
}

story! {
    async fn a_run_that_ends_in_order_leaves_no_reservation(world: World) {
        let lease = world.lease().await;
        reserve(&world.store, &lease, 100, ask(call(1), 60, 60)).await;
        let mut tx = world.begin().await;
        tx.run_update(&lease, &RunUpdate { state: Some(RunState::Running), ..RunUpdate::default() }).await.unwrap();
        tx.run_update(&lease, &RunUpdate { state: Some(RunState::Failed), ..RunUpdate::default() }).await.unwrap();
        tx.commit().await.unwrap();
        let one = world.read().await.charge_get(call(1)).await.unwrap().unwrap();
        assert_eq!((one.state, one.cost.micro()), (ChargeState::Presumed, 60));
    }
}

story! {
    async fn another_runs_calls_and_hostile_names_are_refused(world: World) {
        let (mine, theirs) = (world.lease().await, world.lease().await);
        reserve(&world.store, &theirs, 100, ask(call(1), 60, 60)).await;
        let mut tx = world.begin().await;
        assert_eq!(code(tx.charge_reserve(&mine, &account(100), &ask(call(1), 1, 1)).await), "input");
        assert_eq!(code(tx.charge_settle(&mine, &settled(call(1), 0)).await), "missing");
        assert_eq!(code(tx.charge_settle(&mine, &settled(call(9), 0)).await), "missing");
        for bad in ["", "a\u{1b}[2J", &"x".repeat(201)] {
            let request = ChargeRequest { model: bad.to_owned(), ..ask(call(2), 1, 1) };
            assert_eq!(code(tx.charge_reserve(&mine, &account(100), &request).await), "input");
        }
        // The provider's word for the model is only taken when it is one; absurd figures don't overflow.
        assert_eq!(tx.charge_reserve(&mine, &account(100), &ask(call(2), 1, 1)).await.unwrap().answer, granted(1));
        let usage = Usage { input: u64::MAX, output: u64::MAX, ..Usage::default() };
        let absurd = ChargeSettlement { model: "\u{7}".to_owned(), usage, ..settled(call(2), u64::MAX) };
        assert!(tx.charge_settle(&mine, &absurd).await.unwrap());
        tx.commit().await.unwrap();
        let one = world.read().await.charge_get(call(2)).await.unwrap().unwrap();
        assert_eq!(one.model, "claude-sonnet-4-5");
        let account = world.read().await.charge_account(mine.run()).await.unwrap();
        assert_eq!(account, None, "a run without a warrant has no budget");
    }
}

story! {
    async fn the_account_of_a_run_is_its_warrants(world: World) {
        let mut tx = world.begin().await;
        let mut draft = task_draft();
        draft.spec.agent = Some("fixer".to_owned());
        let task = tx.task_add(draft).await.unwrap().id();
        let lease = tx.task_claim(task, WORKER, 60_000).await.unwrap().unwrap();
        tx.run_add(&lease, &run_draft()).await.unwrap();
        let signed = warrant(&mut tx, &lease).await.unwrap();
        tx.warrant_add(&lease, &signed).await.unwrap();
        let account = tx.charge_account(lease.run()).await.unwrap().unwrap();
        assert_eq!(account, ChargeAccount { run_budget: signed.warrant.budget, above: Vec::new(), agent: Some("fixer".to_owned()), project: None, person: None });
    }
}

/// One call of the storm: what it asks, what it then costs (never more than granted), whether it ever settles.
#[derive(Debug, Clone)]
struct Storm {
    run: usize,
    most: u64,
    least: u64,
    share: u64,
    settles: bool,
    twice: bool,
}

fn storms(count: usize) -> Vec<Storm> {
    let one = (0..3usize, 1..900u64, 0..400u64, 0..=100u64, prop::bool::weighted(0.9), any::<bool>())
        .prop_map(|(run, most, least, share, settles, twice)| Storm {
            run,
            most,
            least: least.min(most),
            share,
            settles,
            twice,
        });
    let mut runner = TestRunner::default();
    prop::collection::vec(one, count..=count).new_tree(&mut runner).unwrap().current()
}

const RUN: u64 = 20_000;
const AGENT: u64 = 30_000;
const PROJECT: u64 = 33_000;
const PERSON: u64 = 36_000;
const ORG: u64 = 45_000;

/// Hundreds of calls at once, of three runs of one agent, over several connections.
async fn storm(world: World, calls: usize) {
    let mut tx = world.begin().await;
    let agent = BudgetHolder::Agent("fixer".to_owned());
    tx.budget_set(&agent, BudgetPeriod::Day, MicroUsd::from_micro(AGENT), &BudgetActions::default())
        .await
        .unwrap();
    tx.budget_set(
        &BudgetHolder::Org,
        BudgetPeriod::Week,
        MicroUsd::from_micro(ORG),
        &BudgetActions::default(),
    )
    .await
    .unwrap();
    let usual = BudgetActions::default();
    let project = BudgetHolder::Project("web".to_owned());
    tx.budget_set(&project, BudgetPeriod::Month, MicroUsd::from_micro(PROJECT), &usual).await.unwrap();
    let person = BudgetHolder::Person(world.me.member);
    tx.budget_set(&person, BudgetPeriod::Day, MicroUsd::from_micro(PERSON), &usual).await.unwrap();
    tx.commit().await.unwrap();
    let leases = Arc::new([world.lease().await, world.lease().await, world.lease().await]);
    let stores = [world.store.clone(), world.again().await];
    let me = world.me.member;
    let storms = storms(calls);
    let mut tasks = tokio::task::JoinSet::new();
    for (number, one) in storms.iter().cloned().enumerate() {
        let (store, leases) = (stores[number % 2].clone(), Arc::clone(&leases));
        tasks.spawn(async move {
            let lease = &leases[one.run];
            let id = call(1_000 + number as u64);
            let who = ChargeAccount { project: Some("web".to_owned()), person: Some(me), ..account(RUN) };
            let answer = reserve_for(&store, lease, &who, ask(id, one.most, one.least)).await;
            let ChargeAnswer::Granted(amount) = answer else { return (answer, 0) };
            assert!(amount.micro() >= one.least && amount.micro() <= one.most);
            if !one.settles {
                return (answer, amount.micro());
            }
            let cost = amount.micro() * one.share / 100;
            assert!(settle(&store, lease, settled(id, cost)).await);
            if one.twice {
                assert!(!settle(&store, lease, settled(id, cost + 1)).await);
            }
            (answer, cost)
        });
    }
    let mut spent = 0;
    let mut refused = 0;
    while let Some(joined) = tasks.join_next().await {
        let (answer, cost) = joined.unwrap();
        refused += u64::from(!matches!(answer, ChargeAnswer::Granted(_)));
        spent += cost;
        // Never, at no moment that anybody can see, is a budget overshot.
        if refused % 16 == 0 {
            let over = world.vandal(&format!(
                "select count(*) from charge_total where (scope = 'run' and spent + reserved > {RUN}) or \
                 (scope = 'agent' and spent + reserved > {AGENT}) or (scope = 'project' and spent + reserved > {PROJECT}) or \
                 (scope = 'person' and spent + reserved > {PERSON}) or (scope = 'org' and spent + reserved > {ORG})"
            ));
            assert_eq!(over, "0");
        }
    }
    assert!(spent <= AGENT, "{spent}");
    assert!(refused > 0, "the storm was large enough to meet its budget");
    let sums = world.vandal(
        "select (select sum(spent + reserved) from charge_total where scope = 'org'), \
         (select sum(spent + reserved) from charge_total where scope = 'agent'), \
         (select sum(spent + reserved) from charge_total where scope = 'project'), \
         (select sum(spent + reserved) from charge_total where scope = 'person'), \
         (select sum(spent + reserved) from charge_total where scope = 'run'), \
         (select sum(case when state = 'reserved' then reserved else cost end) from charge)",
    );
    assert_eq!(
        sums,
        format!("{spent}|{spent}|{spent}|{spent}|{spent}|{spent}"),
        "totals are the sums of the rows"
    );
    // The runs die: what is open counts, and nothing more.
    world.clock.advance(60_001);
    world.store.task_reap(TakeOver::Expired, "reaper").await.unwrap();
    let left = world
        .vandal("select sum(spent), sum(reserved), sum(calls_open) from charge_total where scope = 'org'");
    assert_eq!(left, format!("{spent}|0|0"));
    let runs = world.vandal("select sum(cost_micro_usd) from run");
    assert_eq!(runs, spent.to_string());
}

story! {
    async fn a_storm_of_calls_never_overshoots_a_budget(world: World) {
        storm(world, 400).await;
    }
}

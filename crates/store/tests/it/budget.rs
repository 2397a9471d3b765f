//! Budgets of projects and persons, what happens at their shares, and the reserve for calls without a store.

use crate::charge::{account, ask, call, reserve_for, settle, settled};
use crate::support::{WORKER, World, code, run_draft, story, task_draft, warrant};
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    BudgetActions, BudgetHolder, BudgetPeriod, BudgetScope, CalendarDay, ChargeAnswer, MicroUsd, RunState,
};
use tipstaff_store::{
    BUDGET_ALERT, ChargeAccount, ChargeBy, ChargeState, Lease, ProjectRemoval, RepositoryKind, Reservation,
    TakeOver, TaskDraft,
};

const fn micro(amount: u64) -> MicroUsd {
    MicroUsd::from_micro(amount)
}

fn mine(world: &World, budget: u64) -> ChargeAccount {
    ChargeAccount { project: Some("web".to_owned()), person: Some(world.me.member), ..account(budget) }
}

/// What stands in every holder's total: spent, reserved, calls under way.
fn totals(world: &World) -> String {
    world.vandal("select distinct spent, reserved, calls_open from charge_total where scope <> 'gate'")
}

async fn set(world: &World, holder: BudgetHolder, amount: u64, actions: &BudgetActions) {
    let mut tx = world.begin().await;
    tx.budget_set(&holder, BudgetPeriod::Day, micro(amount), actions).await.unwrap();
    tx.commit().await.unwrap();
}

async fn try_reserve(
    world: &World,
    lease: &Lease,
    who: &ChargeAccount,
    number: u64,
    most: u64,
) -> Reservation {
    let mut tx = world.begin().await;
    let reservation = tx.charge_reserve(lease, who, &ask(call(number), most, most)).await.unwrap();
    tx.commit().await.unwrap();
    reservation
}

/// Pays for a call and looks at the budgets, as the control plane does.
async fn pay(world: &World, lease: &Lease, who: &ChargeAccount, number: u64, cost: u64) -> Vec<String> {
    let reservation = try_reserve(world, lease, who, number, cost).await;
    assert_eq!(reservation.answer, ChargeAnswer::Granted(micro(cost)), "{reservation:?}");
    let mut tx = world.begin().await;
    tx.charge_settle(lease, &settled(call(number), cost)).await.unwrap();
    let alerts = tx.budget_alert(lease, who).await.unwrap();
    tx.commit().await.unwrap();
    alerts.iter().map(|alert| format!("{} {} {}", alert.holder, alert.percent, alert.actions())).collect()
}

story! {
    async fn a_run_belongs_to_the_project_of_its_repository_and_to_who_asked_for_it(world: World) {
        let mut tx = world.begin().await;
        let name: tipstaff_model::RepositoryName = "local/house".parse().unwrap();
        let repository = tx.repository_set(&name, RepositoryKind::Local, "/srv/house").await.unwrap();
        assert!(tx.project_add("web").await.unwrap());
        assert!(!tx.project_add("web").await.unwrap());
        assert!(tx.project_add("api").await.unwrap());
        assert_eq!(code(tx.project_add("A b").await), "input");
        let all = tx.project_list().await.unwrap();
        let (api, web) = (&all[0], &all[1]);
        assert_eq!((api.name.as_str(), web.name.as_str()), ("api", "web"));
        // At most one: the later assignment replaces the earlier one.
        tx.project_assign(repository, api.id).await.unwrap();
        tx.project_assign(repository, web.id).await.unwrap();
        assert_eq!(tx.project_of(repository).await.unwrap().unwrap().name, "web");
        assert!(tx.project_repositories(api.id).await.unwrap().is_empty());
        assert_eq!(tx.project_repositories(web.id).await.unwrap(), [name]);
        let draft = TaskDraft { repository: Some(repository), person: Some(world.me.member), ..task_draft() };
        let task = tx.task_add(draft).await.unwrap().id();
        let lease = tx.task_claim(task, WORKER, 60_000).await.unwrap().unwrap();
        tx.run_add(&lease, &run_draft()).await.unwrap();
        let signed = warrant(&mut tx, &lease).await.unwrap();
        tx.warrant_add(&lease, &signed).await.unwrap();
        let account = tx.charge_account(lease.run()).await.unwrap().unwrap();
        assert_eq!((account.project.as_deref(), account.person), (Some("web"), Some(world.me.member)));
        tx.commit().await.unwrap();

        pay(&world, &lease, &account, 1, 70).await;
        let mut tx = world.begin().await;
        let (first, last) = (CalendarDay::FIRST, CalendarDay::LAST);
        let project = tx.charge_by(ChargeBy::Project, first, last).await.unwrap();
        let person = tx.charge_by(ChargeBy::Person, first, last).await.unwrap();
        assert_eq!((project[0].key.as_str(), project[0].cost.micro()), ("web", 70));
        assert_eq!((person[0].key.clone(), person[0].cost.micro()), (world.me.member.to_string(), 70));
        // A project that a budget binds stays; one that is gone takes no charge with it.
        let holder = BudgetHolder::Project("web".to_owned());
        tx.budget_set(&holder, BudgetPeriod::Week, micro(100), &BudgetActions::default()).await.unwrap();
        assert_eq!(tx.project_remove("web").await.unwrap(), ProjectRemoval::HasBudget);
        assert_eq!(tx.budget_standing().await.unwrap()[0].spent, micro(70));
        tx.budget_remove(&holder, BudgetPeriod::Week).await.unwrap();
        assert_eq!(tx.project_remove("web").await.unwrap(), ProjectRemoval::Removed);
        assert_eq!(tx.project_remove("web").await.unwrap(), ProjectRemoval::Unknown);
        assert_eq!(tx.project_of(repository).await.unwrap(), None);
        assert_eq!(tx.charge_by(ChargeBy::Project, first, last).await.unwrap()[0].key, "web");
    }
}

story! {
    async fn budgets_of_projects_and_persons_bind_their_runs_alone(world: World) {
        let lease = world.lease().await;
        let account = mine(&world, 9_000);
        let nobody = world.again().await.authenticate_local(&crate::support::person(9)).await.unwrap().member;
        let usual = BudgetActions::default();
        for (number, holder, scope) in [
            (1, BudgetHolder::Project("web".to_owned()), BudgetScope::Project),
            (2, BudgetHolder::Person(world.me.member), BudgetScope::Person),
        ] {
            set(&world, holder.clone(), 100, &usual).await;
            set(&world, BudgetHolder::Project("other".to_owned()), 1, &usual).await;
            set(&world, BudgetHolder::Person(nobody), 1, &usual).await;
            let answer = reserve_for(&world.store, &lease, &account, ask(call(number), 101, 101)).await;
            assert_eq!(answer, ChargeAnswer::Exhausted { scope, limit: micro(100), spent: MicroUsd::ZERO });
            let mut tx = world.begin().await;
            assert!(tx.budget_remove(&holder, BudgetPeriod::Day).await.unwrap());
            tx.commit().await.unwrap();
        }
        let answer = reserve_for(&world.store, &lease, &account, ask(call(7), 101, 101)).await;
        assert_eq!(answer, ChargeAnswer::Granted(micro(101)));
    }
}

story! {
    async fn every_share_is_told_once_in_a_period(world: World) {
        let lease = world.lease().await;
        let account = mine(&world, 1_000_000);
        let actions = BudgetActions { notify: vec![50, 80, 100], slow: None, stop: None };
        set(&world, BudgetHolder::Org, 1_000, &actions).await;
        assert!(pay(&world, &lease, &account, 1, 499).await.is_empty());
        assert_eq!(pay(&world, &lease, &account, 2, 1).await, ["org 50 notify"]);
        assert!(pay(&world, &lease, &account, 3, 1).await.is_empty());
        // Over two shares at once, and on without an end.
        assert_eq!(pay(&world, &lease, &account, 4, 5_000).await, ["org 80 notify", "org 100 notify"]);
        assert!(pay(&world, &lease, &account, 5, 5_000).await.is_empty());
        // The next day begins anew; so does a budget that was changed.
        world.clock.advance(24 * 3_600_000);
        let lease = world.lease().await;
        assert_eq!(pay(&world, &lease, &account, 6, 600).await, ["org 50 notify"]);
        set(&world, BudgetHolder::Org, 1_000, &actions).await;
        assert_eq!(pay(&world, &lease, &account, 7, 1).await, ["org 50 notify"]);

        let mut read = world.read().await;
        let log = read.audit_list(None, 1_000).await.unwrap();
        let told = log.iter().filter(|entry| entry.action == "budget.threshold").count();
        assert_eq!(told, 5);
        let messages = read.outbox_list(100).await.unwrap();
        let mut said: Vec<u64> = messages.iter().filter_map(|one| one.body["percent"].as_u64()).collect();
        said.sort_unstable();
        assert_eq!(said, [50, 50, 50, 80, 100]);
        assert!(messages.iter().all(|one| one.kind == BUDGET_ALERT && one.body["actions"] == "notify"));
        let story = read.event_list(lease.run(), 0, 100).await.unwrap();
        let says = |event: &tipstaff_store::Event| {
            event.body["text"].as_str().is_some_and(|text| text.contains("is 50 % spent"))
        };
        assert!(story.iter().any(says), "{story:?}");
    }
}

story! {
    async fn a_storm_tells_a_share_once(world: World) {
        let actions = BudgetActions { stop: None, ..BudgetActions::default() };
        set(&world, BudgetHolder::Project("web".to_owned()), 1_000, &actions).await;
        let leases = [world.lease().await, world.lease().await];
        let stores = [world.store.clone(), world.again().await];
        let account = mine(&world, 1_000_000);
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..60_u64 {
            let place = usize::try_from(number % 2).unwrap();
            let (store, lease, account) = (stores[place].clone(), leases[place].clone(), account.clone());
            calls.spawn(async move {
                reserve_for(&store, &lease, &account, ask(call(number), 30, 30)).await;
                let mut tx = store.begin(lease.scope()).await.unwrap();
                tx.lease_guard(&lease).await.unwrap();
                tx.charge_settle(&lease, &settled(call(number), 30)).await.unwrap();
                let told = tx.budget_alert(&lease, &account).await.unwrap().len();
                tx.commit().await.unwrap();
                told
            });
        }
        let told: usize = calls.join_all().await.into_iter().sum();
        assert_eq!(told, 3, "50, 80 and 100, each by one of them");
        assert_eq!(world.read().await.outbox_list(100).await.unwrap().len(), 3);
    }
}

story! {
    async fn a_refusal_is_told_once_and_an_early_stop_stops_early(world: World) {
        let lease = world.lease().await;
        let account = mine(&world, 1_000_000);
        let actions = BudgetActions { notify: vec![90], slow: None, stop: Some(90) };
        set(&world, BudgetHolder::Org, 1_000, &actions).await;
        assert!(pay(&world, &lease, &account, 1, 100).await.is_empty());
        let refused = try_reserve(&world, &lease, &account, 2, 801).await;
        let scope = BudgetScope::Org;
        assert_eq!(refused.answer, ChargeAnswer::Exhausted { scope, limit: micro(900), spent: micro(100) });
        let alert = refused.alert.unwrap();
        assert!(alert.refused && alert.notify && alert.text().contains("refused a call"), "{alert:?}");
        assert_eq!(try_reserve(&world, &lease, &account, 3, 801).await.alert, None);
        // What stopped it is not told once more when it is reached in the end.
        assert!(pay(&world, &lease, &account, 4, 800).await.is_empty());
    }
}

story! {
    async fn who_is_slowed_down_calls_one_at_a_time_with_a_growing_pause(world: World) {
        let lease = world.lease().await;
        let account = mine(&world, 1_000_000);
        let actions = BudgetActions { notify: vec![], slow: Some(50), stop: Some(100) };
        set(&world, BudgetHolder::Person(world.me.member), 1_000, &actions).await;
        let told = pay(&world, &lease, &account, 1, 500).await;
        assert_eq!(told, [format!("person:{} 50 slow", world.me.member)]);
        // The pause: one second where it begins.
        let early = try_reserve(&world, &lease, &account, 2, 10).await;
        assert_eq!((early.answer, early.slowed.unwrap().pause_ms), (ChargeAnswer::Wait, 1_000));
        world.clock.advance(1_000);
        let second = try_reserve(&world, &lease, &account, 2, 10).await;
        assert_eq!(second.answer, ChargeAnswer::Granted(micro(10)));
        // One at a time, however long it takes; another person's call is not held up.
        world.clock.advance(40_000);
        let third = try_reserve(&world, &lease, &account, 3, 10).await;
        assert_eq!((third.answer, third.slowed.is_some()), (ChargeAnswer::Wait, true));
        let other = ChargeAccount { person: None, ..account.clone() };
        assert_eq!(try_reserve(&world, &lease, &other, 4, 10).await.answer, ChargeAnswer::Granted(micro(10)));
        settle(&world.store, &lease, settled(call(2), 250)).await;
        world.clock.advance(10_000);
        let third = try_reserve(&world, &lease, &account, 3, 10).await;
        assert_eq!(third.slowed.unwrap().pause_ms, 15_500, "half of the way to the stop");
        world.clock.advance(5_500);
        assert_eq!(try_reserve(&world, &lease, &account, 3, 10).await.answer, ChargeAnswer::Granted(micro(10)));
    }
}

story! {
    async fn a_reserve_is_set_aside_and_what_is_drawn_is_never_counted_twice(world: World) {
        let lease = world.lease().await;
        let account = mine(&world, 1_000_000);
        let mut tx = world.begin().await;
        for _ in 0..2 {
            assert_eq!(tx.charge_hold(&lease, &account, call(1), micro(50_000)).await.unwrap(), micro(50_000));
        }
        tx.commit().await.unwrap();
        assert_eq!(totals(&world), "0|50000|0", "it binds every holder");
        for _ in 0..2 {
            let mut tx = world.begin().await;
            tx.charge_draw(lease.run(), call(1), &ask(call(2), 30_000, 1), micro(30_000)).await.unwrap();
            assert_eq!(code(tx.charge_draw(lease.run(), call(7), &ask(call(3), 1, 1), micro(1)).await), "missing");
            tx.commit().await.unwrap();
            assert_eq!(totals(&world), "0|50000|1", "it moved from the reserve to the call");
        }
        settle(&world.store, &lease, settled(call(2), 20_000)).await;
        assert_eq!(totals(&world), "20000|20000|0");
        assert_eq!(code(world.begin().await.charge_settle(&lease, &settled(call(1), 9)).await), "missing");
        let mut tx = world.begin().await;
        assert!(tx.charge_release(lease.run(), call(1)).await.unwrap());
        assert!(!tx.charge_release(lease.run(), call(1)).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(totals(&world), "20000|0|0");
        let sum = world.read().await.charge_of_run(lease.run()).await.unwrap();
        assert_eq!((sum.calls, sum.cost.micro()), (1, 20_000), "a reserve is no call");
    }
}

story! {
    async fn a_reserve_gives_way_and_starves_nobody(world: World) {
        let (lease, other) = (world.lease().await, world.lease().await);
        let account = mine(&world, 200_000);
        let mut tx = world.begin().await;
        let held = tx.charge_hold(&lease, &account, call(1), micro(50_000)).await.unwrap();
        assert_eq!(held, micro(10_000), "a twentieth of what is free");
        let poor = ChargeAccount { run_budget: micro(1_000), ..account.clone() };
        assert_eq!(tx.charge_hold(&other, &poor, call(2), micro(50_000)).await.unwrap(), MicroUsd::ZERO);
        tx.commit().await.unwrap();
        let whole = try_reserve(&world, &lease, &account, 3, 200_000).await;
        assert_eq!((whole.answer, whole.let_go), (ChargeAnswer::Granted(micro(200_000)), true));
    }
}

story! {
    async fn the_reserve_of_a_dead_run_counts_until_its_successor_says_otherwise(world: World) {
        let lease = world.lease().await;
        let account = mine(&world, 1_000_000);
        let mut tx = world.begin().await;
        tx.charge_hold(&lease, &account, call(1), micro(50_000)).await.unwrap();
        tx.commit().await.unwrap();
        world.clock.advance(60_001);
        world.store.task_reap(TakeOver::Expired, "reaper").await.unwrap();
        let cost = || world.vandal("select cost_micro_usd from run");
        assert_eq!((cost().as_str(), totals(&world).as_str()), ("50000", "50000|0|0"));
        // The file that the dead process left: two calls, of which one was settled.
        let mut tx = world.begin().await;
        for number in [2, 3] {
            tx.charge_draw(lease.run(), call(1), &ask(call(number), 10_000, 1), micro(10_000)).await.unwrap();
        }
        assert!(tx.charge_settle_of(lease.run(), &settled(call(2), 4_000)).await.unwrap());
        assert!(tx.charge_release(lease.run(), call(1)).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!((cost().as_str(), totals(&world).as_str()), ("14000", "14000|0|0"));
        let mut read = world.read().await;
        let state = read.charge_get(call(3)).await.unwrap().unwrap().state;
        assert_eq!(state, ChargeState::Presumed, "nobody knows what it cost");
    }
}

story! {
    async fn a_run_that_ends_in_order_gives_its_reserve_back(world: World) {
        let lease = world.lease().await;
        let mut tx = world.begin().await;
        tx.charge_hold(&lease, &mine(&world, 1_000_000), call(1), micro(50_000)).await.unwrap();
        for state in [RunState::Running, RunState::Failed] {
            tx.run_update(&lease, &RunUpdate { state: Some(state), ..RunUpdate::default() }).await.unwrap();
        }
        tx.commit().await.unwrap();
        assert_eq!(totals(&world), "0|0|0");
    }
}

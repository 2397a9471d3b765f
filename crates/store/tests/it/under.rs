//! Sub-runs: whose money their calls spend, and how they learn that a run above them ended.

use crate::charge::{ask, call, reserve_for, settle, settled};
use crate::support::{START, WORKER, World, narrowed, run_draft, story, task_draft, warrant};
use std::sync::Arc;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::warrant::MOST_RUNS_ABOVE;
use tipstaff_model::{BudgetScope, ChargeAnswer, ExitReason, MicroUsd, RunId, RunState, TaskSpec, WarrantId};
use tipstaff_seal::SignedWarrant;
use tipstaff_store::{ChargeAccount, KeyPurpose, Lease, Store, TakeOver, TaskDraft};

/// A run at work under a warrant with this budget; a narrowing of `above`'s where there is one.
async fn at_work(world: &World, above: Option<&Lease>, budget: u64) -> Lease {
    let mut tx = world.begin().await;
    let spec = TaskSpec { under: above.map(Lease::run), ..task_draft().spec };
    let task = tx.task_add(TaskDraft { spec, ..task_draft() }).await.unwrap().id();
    let lease = tx.task_claim(task, WORKER, 60_000).await.unwrap().unwrap();
    tx.run_add(&lease, &run_draft()).await.unwrap();
    let mut asked = warrant(&mut tx, &lease).await.unwrap().warrant;
    asked.budget = MicroUsd::from_micro(budget);
    if let Some(above) = above {
        assert!(tx.run_lock(above.run()).await.unwrap());
        let granted = tx.warrant_of_run(above.run()).await.unwrap().unwrap().signed.warrant;
        asked = granted.for_sub_run(asked).unwrap();
    }
    let key = tx.signing_key(KeyPurpose::Warrant).await.unwrap();
    tx.warrant_add(&lease, &SignedWarrant::sign(&asked, &key).unwrap()).await.unwrap();
    tx.commit().await.unwrap();
    lease
}

async fn account(world: &World, lease: &Lease) -> ChargeAccount {
    world.read().await.charge_account(lease.run()).await.unwrap().unwrap()
}

async fn reserve(world: &World, lease: &Lease, number: u64, most: u64) -> ChargeAnswer {
    let account = account(world, lease).await;
    reserve_for(&world.store, lease, &account, ask(call(number), most, most)).await
}

async fn used(world: &World, lease: &Lease) -> u64 {
    world.read().await.run_used(lease.run()).await.unwrap().micro()
}

async fn end(world: &World, lease: &Lease) {
    let mut tx = world.begin().await;
    let update = RunUpdate {
        state: Some(RunState::Failed),
        exit_reason: Some(ExitReason::CommandFailed),
        ..RunUpdate::default()
    };
    tx.run_update(lease, &update).await.unwrap();
    tx.commit().await.unwrap();
}

const fn granted(micro: u64) -> ChargeAnswer {
    ChargeAnswer::Granted(MicroUsd::from_micro(micro))
}

story! {
    async fn what_a_sub_run_spends_is_spent_of_every_run_above(world: World) {
        let top = at_work(&world, None, 100).await;
        let child = at_work(&world, Some(&top), 90).await;
        let grandchild = at_work(&world, Some(&child), 90).await;
        let above = account(&world, &grandchild).await.above;
        assert_eq!(above, [(child.run(), MicroUsd::from_micro(90)), (top.run(), MicroUsd::from_micro(100))]);
        assert_eq!(account(&world, &top).await.above, []);

        assert_eq!(reserve(&world, &grandchild, 1, 50).await, granted(50));
        assert_eq!(reserve(&world, &child, 2, 30).await, granted(30));
        assert_eq!(reserve(&world, &top, 3, 15).await, granted(15));
        let all = [used(&world, &top).await, used(&world, &child).await, used(&world, &grandchild).await];
        assert_eq!(all, [95, 80, 50]);
        // What is free of the run at the top binds those below it.
        assert_eq!(reserve(&world, &grandchild, 4, 6).await, ChargeAnswer::Wait);
        assert_eq!(reserve(&world, &grandchild, 4, 5).await, granted(5));
        for (lease, number, cost) in [(&grandchild, 1, 50), (&child, 2, 30), (&top, 3, 15), (&grandchild, 4, 4)] {
            assert!(settle(&world.store, lease, settled(call(number), cost)).await);
        }
        let spent = ChargeAnswer::Exhausted {
            scope: BudgetScope::RunAbove,
            limit: MicroUsd::from_micro(100),
            spent: MicroUsd::from_micro(99),
        };
        assert_eq!(reserve(&world, &grandchild, 5, 2).await, spent);
        assert_eq!(reserve(&world, &grandchild, 5, 1).await, granted(1));
        // A call that its run left open counts above, too, and a late settlement corrects it there.
        end(&world, &grandchild).await;
        assert_eq!(used(&world, &top).await, 100);
        assert!(settle(&world.store, &grandchild, settled(call(5), 0)).await);
        assert_eq!((used(&world, &top).await, used(&world, &child).await), (99, 84));
        // A run's own costs are its own.
        let costs = world.vandal("select cost_micro_usd from run order by id");
        let mut costs: Vec<&str> = costs.lines().collect();
        costs.sort_unstable();
        assert_eq!(costs, ["15", "30", "54"]);
        let mut read = world.read().await;
        let summary = read.run_summary(top.run()).await.unwrap().unwrap();
        assert_eq!((summary.under, summary.sub_runs), (None, vec![child.run()]));
        let summary = read.run_summary(child.run()).await.unwrap().unwrap();
        assert_eq!((summary.under, summary.sub_runs), (Some(top.run()), vec![grandchild.run()]));
    }
}

story! {
    async fn a_reserve_that_was_drawn_counts_above_too(world: World) {
        let top = at_work(&world, None, 1_000_000).await;
        let child = at_work(&world, Some(&top), 1_000_000).await;
        let account = account(&world, &child).await;
        let mut tx = world.begin().await;
        let held = tx.charge_hold(&child, &account, call(8), MicroUsd::from_micro(5_000)).await.unwrap();
        assert_eq!(held.micro(), 5_000);
        tx.charge_draw(child.run(), call(8), &ask(call(9), 2_000, 2_000), MicroUsd::from_micro(2_000)).await.unwrap();
        tx.charge_release(child.run(), call(8)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((used(&world, &top).await, used(&world, &child).await), (2_000, 2_000));
        settle(&world.store, &child, settled(call(9), 700)).await;
        assert_eq!((used(&world, &top).await, used(&world, &child).await), (700, 700));
    }
}

const TOP: u64 = 20_000;

/// Hundreds of calls at once, of a run, its three sub-runs and one below them, over several connections.
async fn storm(world: World, calls: u64) {
    let top = at_work(&world, None, TOP).await;
    let mut leases = vec![top.clone()];
    for _ in 0..3 {
        leases.push(at_work(&world, Some(&top), 9_000).await);
    }
    let below = at_work(&world, Some(&leases[1]), 9_000).await;
    leases.push(below);
    let leases = Arc::new(leases);
    let stores: [Store; 2] = [world.store.clone(), world.again().await];
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..calls {
        let (store, leases) = (stores[number as usize % 2].clone(), Arc::clone(&leases));
        tasks.spawn(async move {
            let lease = &leases[number as usize % leases.len()];
            let mut read = store.read(lease.scope()).await.unwrap();
            let account = read.charge_account(lease.run()).await.unwrap().unwrap();
            drop(read);
            let most = 20 + number * 37 % 400;
            let answer =
                reserve_for(&store, lease, &account, ask(call(1_000 + number), most, most / 2)).await;
            let ChargeAnswer::Granted(amount) = answer else { return (false, 0) };
            let cost = amount.micro() * (number % 5) / 4;
            let settles = number % 7 != 0;
            if settles {
                settle(&store, lease, settled(call(1_000 + number), cost.min(amount.micro()))).await;
            }
            (true, if settles { cost.min(amount.micro()) } else { amount.micro() })
        });
    }
    let (mut spent, mut refused) = (0, 0);
    while let Some(joined) = tasks.join_next().await {
        let (paid, cost) = joined.unwrap();
        refused += u64::from(!paid);
        spent += cost;
        if refused % 16 == 0 {
            let over = format!(
                "select count(*) from charge_total where scope = 'run' and spent + reserved > \
                 (case when name = '{}' then {TOP} else 9000 end)",
                leases[0].run()
            );
            assert_eq!(world.vandal(&over), "0", "at no moment is a budget overshot");
        }
    }
    assert!(refused > 0 && spent <= TOP, "{refused} refused, {spent} spent");
    assert_eq!(used(&world, &leases[0]).await, spent, "the run at the top knows of everything below it");
    let below = used(&world, &leases[4]).await;
    let own = |lease: &Lease| {
        let text = format!(
            "select coalesce(sum(case when state = 'reserved' then reserved else cost end), 0) from charge \
             where run_id = '{}'",
            lease.run()
        );
        world.vandal(&text).parse::<u64>().unwrap()
    };
    assert_eq!(below, own(&leases[4]));
    assert_eq!(used(&world, &leases[1]).await, own(&leases[1]) + below);
    assert_eq!(used(&world, &leases[2]).await, own(&leases[2]));
}

story! {
    async fn a_storm_of_sub_runs_never_overshoots_the_run_above(world: World) {
        storm(world, 400).await;
    }
}

/// What the next heartbeat says of the runs above.
async fn heard(world: &World, lease: &Lease) -> Option<String> {
    world.store.lease_renew(lease, 60_000).await.unwrap().ended_above
}

story! {
    async fn a_sub_run_learns_with_a_heartbeat_that_a_run_above_grants_nothing_any_more(world: World) {
        let top = at_work(&world, None, 100).await;
        let child = at_work(&world, Some(&top), 90).await;
        let grandchild = at_work(&world, Some(&child), 80).await;
        for lease in [&top, &child, &grandchild] {
            assert_eq!(heard(&world, lease).await, None);
        }
        // Cancelled: it has not ended yet, and those below it end with it.
        let other = at_work(&world, None, 100).await;
        let under_other = at_work(&world, Some(&other), 90).await;
        let mut tx = world.begin().await;
        tx.task_cancel(other.task()).await.unwrap();
        tx.commit().await.unwrap();
        assert!(heard(&world, &under_other).await.unwrap().contains("was cancelled"));

        // Narrowed without those below: nothing rests on whoever narrowed it.
        let mut tx = world.begin().await;
        let first = tx.warrant_of_run(child.run()).await.unwrap().unwrap().signed;
        let less = narrowed(&mut tx, &first).await;
        tx.warrant_narrow(&less).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(heard(&world, &child).await, None);
        let why = heard(&world, &grandchild).await.unwrap();
        assert!(why.contains("granted less by now") && why.contains("budget"), "{why}");

        // Revoked, two levels above.
        let mut tx = world.begin().await;
        let id = tx.warrant_of_run(top.run()).await.unwrap().unwrap().signed.warrant.id;
        tx.warrant_revoke(id).await.unwrap();
        tx.commit().await.unwrap();
        assert!(heard(&world, &child).await.unwrap().contains("revoked"));
        assert!(heard(&world, &grandchild).await.is_some());
        end(&world, &top).await;
        assert!(heard(&world, &child).await.unwrap().contains("ended (failed)"));
        assert!(heard(&world, &child).await.unwrap().contains(&top.run().short()));
    }
}

story! {
    async fn a_sub_run_of_a_dead_worker_ends_when_that_is_known(world: World) {
        let top = at_work(&world, None, 100).await;
        let child = at_work(&world, Some(&top), 90).await;
        world.clock.advance(50_000);
        assert_eq!(heard(&world, &child).await, None);
        world.clock.advance(20_000);
        world.store.task_reap(TakeOver::Expired, "reaper").await.unwrap();
        assert!(heard(&world, &child).await.unwrap().contains("ended (interrupted)"));
        // And one whose time is over, whoever still holds its lease.
        let late = at_work(&world, None, 100).await;
        let under_late = at_work(&world, Some(&late), 90).await;
        world.clock.advance(24 * 60 * 60 * 1_000);
        assert!(world.store.lease_renew(&late, 60_000).await.is_ok());
        assert!(heard(&world, &under_late).await.unwrap().contains("expired"));
    }
}

story! {
    async fn the_line_above_a_run_is_read_to_its_bound(world: World) {
        let mut line = vec![at_work(&world, None, 100).await];
        for _ in 0..=MOST_RUNS_ABOVE {
            line.push(at_work(&world, line.last(), 100).await);
        }
        let mut read = world.read().await;
        let above = |place: usize| line[..place].iter().rev().map(Lease::run).collect::<Vec<RunId>>();
        for (place, lease) in line.iter().enumerate() {
            assert_eq!(read.run_list_above(lease.run()).await.unwrap(), above(place));
        }
        assert_eq!(read.run_above(line[2].run()).await.unwrap(), Some(line[1].run()));
        assert_eq!(read.run_list_under(line[1].run(), 5).await.unwrap()[0].id, line[2].run());
        assert_eq!(read.run_list_open_under(line[1].run()).await.unwrap().len(), 1);
        assert_eq!(read.task_count_under(line[1].run()).await.unwrap(), 1);
        drop(read);
        end(&world, &line[2]).await;
        let mut read = world.read().await;
        assert_eq!(read.task_count_under(line[1].run()).await.unwrap(), 0);
        assert_eq!(read.run_list_open_under(line[1].run()).await.unwrap(), []);
        assert_eq!(read.run_list_under(line[1].run(), 5).await.unwrap().len(), 1, "it stays on record");
        // Another org sees nothing of it.
        let stranger = world.store.authenticate_local(&crate::support::person(2)).await.unwrap();
        let mut read = world.store.read(&stranger.scope).await.unwrap();
        assert_eq!(read.run_above(line[1].run()).await.unwrap(), None);
        assert!(read.run_list_under(line[0].run(), 5).await.unwrap().is_empty());
        assert_eq!(read.task_count_under(line[0].run()).await.unwrap(), 0);
        assert_eq!(read.run_used(line[0].run()).await.unwrap(), MicroUsd::ZERO);
        assert_eq!(read.run_ended_above(line[1].run()).await.unwrap(), None);
        let mut tx = world.store.begin(&stranger.scope).await.unwrap();
        assert!(!tx.run_lock(line[0].run()).await.unwrap());
    }
}

story! {
    async fn a_warrant_of_another_run_as_parent_makes_it_the_runs_own(world: World) {
        let top = at_work(&world, None, 100).await;
        let child = at_work(&world, Some(&top), 90).await;
        let mut tx = world.begin().await;
        let own = tx.warrant_of_run(child.run()).await.unwrap().unwrap();
        let above = tx.warrant_of_run(top.run()).await.unwrap().unwrap();
        assert_eq!(own.signed.warrant.parent, Some(above.signed.warrant.id));
        assert_eq!((own.run, own.signed.warrant.issued_at), (child.run(), START));
        // Narrowed, it stays a warrant of its run; revoked, that of the run above stays in force.
        let less = narrowed(&mut tx, &own.signed).await;
        assert_ne!(less.warrant.id, WarrantId::from_bytes([0; 16]));
        tx.warrant_narrow(&less).await.unwrap();
        assert!(tx.warrant_revoke(own.signed.warrant.id).await.unwrap());
        tx.commit().await.unwrap();
        assert!(world.store.lease_renew(&child, 60_000).await.unwrap().warrant_revoked);
        assert!(!world.store.lease_renew(&top, 60_000).await.unwrap().warrant_revoked);
    }
}

//! `tipstaff budgets`: how much the org, its projects, people and agents may spend in a day, a week or a month.

use crate::cli::{BudgetChoice, BudgetsCommand};
use crate::context::Context;
use crate::exit::Problem;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;
use tipstaff_model::{AuditAction, AuditDraft, BudgetHolder, MemberId};
use tipstaff_store::BudgetStanding;

/// Carries out `tipstaff budgets …`.
pub(crate) async fn budgets(command: BudgetsCommand, context: Context) -> anyhow::Result<ExitCode> {
    let about = |holder: &BudgetHolder| format!("budget:{holder}");
    match command {
        BudgetsCommand::List => list(&context).await,
        BudgetsCommand::Set { which, amount, actions } => {
            let holder = holder(&context, &which).await?;
            let mut tx = context.store.begin(context.scope()).await?;
            let known = tx.budget_list_of(&holder).await?.into_iter().find(|one| one.period == which.per);
            let actions = actions.over(known.map(|known| known.actions).unwrap_or_default());
            let id = tx.budget_set(&holder, which.per, amount, &actions).await?;
            tx.audit_note(
                AuditDraft::new(context.principal.actor(), AuditAction::BudgetSet, about(&holder))
                    .with("step", "set")
                    .with("per", which.per)
                    .with("amount", amount)
                    .with("actions", &actions),
            );
            tx.commit().await?;
            context.pin_checkpoint().await?;
            if context.output.json {
                context.output.object(&json!({
                    "id": id, "holder": holder.to_string(), "per": which.per, "amount_micro_usd": amount.micro(),
                    "notify": actions.notify, "slow": actions.slow, "stop": actions.stop,
                }));
            } else {
                context.output.line(&format!("{holder} may spend {amount} per {}: {actions}", which.per));
            }
            Ok(ExitCode::SUCCESS)
        }
        BudgetsCommand::Remove { which } => {
            let holder = named(&context, &which).await?;
            let mut tx = context.store.begin(context.scope()).await?;
            if !tx.budget_remove(&holder, which.per).await? {
                let text =
                    format!("{holder} has no budget per {}; `tipstaff budgets list` shows them", which.per);
                return Err(Problem::usage("budget-unknown", text));
            }
            tx.audit_note(
                AuditDraft::new(context.principal.actor(), AuditAction::BudgetSet, about(&holder))
                    .with("step", "removed")
                    .with("per", which.per),
            );
            tx.commit().await?;
            context.pin_checkpoint().await?;
            if context.output.json {
                context
                    .output
                    .object(&json!({ "holder": holder.to_string(), "per": which.per, "removed": true }));
            } else {
                context.output.line(&format!("the budget of {holder} per {} is removed", which.per));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Whoever isn't there gets no budget: the name is more likely mistyped.
async fn holder(context: &Context, which: &BudgetChoice) -> anyhow::Result<BudgetHolder> {
    if let Some(name) = &which.holder.agent {
        super::agents::find(context, name).await?;
    }
    if let Some(name) = &which.holder.project {
        let mut read = context.store.read(context.scope()).await?;
        super::projects::find(&mut read, name).await?;
    }
    named(context, which).await
}

/// The holder that was named, there or not any more.
async fn named(context: &Context, which: &BudgetChoice) -> anyhow::Result<BudgetHolder> {
    let which = &which.holder;
    Ok(match (&which.agent, &which.project, &which.person) {
        (Some(agent), ..) => BudgetHolder::Agent(agent.clone()),
        (_, Some(project), _) => BudgetHolder::Project(project.clone()),
        (.., Some(person)) => BudgetHolder::Person(member(context, person).await?),
        _ => BudgetHolder::Org,
    })
}

/// A person, by id or name.
async fn member(context: &Context, text: &str) -> anyhow::Result<MemberId> {
    if text == "me" {
        return Ok(context.principal.member);
    }
    let all = context.store.read(context.scope()).await?.member_list().await?;
    let id = text.strip_prefix("member:").unwrap_or(text);
    let found: Vec<_> = all.iter().filter(|one| one.name == text || one.id.to_string() == id).collect();
    match found.as_slice() {
        [one] => Ok(one.id),
        [] => {
            let known: Vec<String> = all.iter().map(|one| format!("{} ({})", one.name, one.id)).collect();
            let text = format!("there is no '{}' in your org: {}", text.escape_debug(), known.join(", "));
            Err(Problem::usage("person-unknown", text))
        }
        _ => {
            let text = format!("more than one person is called '{}': name the id", text.escape_debug());
            Err(Problem::usage("person-ambiguous", text))
        }
    }
}

/// The names of people, by id.
pub(crate) async fn people(context: &Context) -> anyhow::Result<BTreeMap<String, String>> {
    let all = context.store.read(context.scope()).await?.member_list().await?;
    Ok(all.into_iter().map(|one| (one.id.to_string(), one.name)).collect())
}

async fn list(context: &Context) -> anyhow::Result<ExitCode> {
    let standing = context.store.read(context.scope()).await?.budget_standing().await?;
    let output = &context.output;
    if output.json {
        for one in &standing {
            let (budget, actions) = (&one.budget, &one.budget.actions);
            output.object(&json!({
                "id": budget.id, "holder": budget.holder.to_string(), "per": budget.period,
                "amount_micro_usd": budget.amount.micro(), "since": one.since,
                "spent_micro_usd": one.spent.micro(), "reserved_micro_usd": one.reserved.micro(),
                "notify": actions.notify, "slow": actions.slow, "stop": actions.stop,
                "pause_ms": actions.pause_ms(budget.amount, one.spent),
            }));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if standing.is_empty() {
        output.note(
            "no budgets over a period yet; every run has its own. Set one: tipstaff budgets set --org --per month 100",
        );
        return Ok(ExitCode::SUCCESS);
    }
    let people = people(context).await?;
    let rows: Vec<Vec<String>> = standing
        .iter()
        .map(|one| {
            let budget = &one.budget;
            let percent = one.spent.micro().saturating_mul(100) / budget.amount.micro().max(1);
            let holder = match &budget.holder {
                BudgetHolder::Person(member) => {
                    let id = member.to_string();
                    format!("person:{}", people.get(&id).map_or(id.clone(), |name| crate::watch::plain(name)))
                }
                other => other.to_string(),
            };
            vec![
                holder,
                budget.period.to_string(),
                budget.amount.to_string(),
                one.spent.to_string(),
                one.reserved.to_string(),
                bar(one, output.colours()),
                format!("{percent}%"),
                one.since.to_string(),
                at(one),
            ]
        })
        .collect();
    output.table(&["WHO", "PER", "BUDGET", "SPENT", "RESERVED", "", "", "SINCE (UTC)", "AT"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// What happens at which share, and what is the case now.
fn at(one: &BudgetStanding) -> String {
    let actions = &one.budget.actions;
    let stopped = actions.limit(one.budget.amount).is_some_and(|limit| one.spent >= limit);
    let now = match actions.pause_ms(one.budget.amount, one.spent) {
        _ if stopped => " (stopped)",
        Some(_) => " (slowed)",
        None => "",
    };
    format!("{actions}{now}")
}

/// Cells of a bar.
const BAR: u64 = 20;

/// Spent, reserved and free as a bar: blocks for a person's terminal, else `#`, `+` and `.`.
fn bar(one: &BudgetStanding, blocks: bool) -> String {
    let amount = u128::from(one.budget.amount.micro()).max(1);
    let cells = |micro: u64| {
        let cells = u128::from(micro) * u128::from(BAR);
        usize::try_from(cells.div_ceil(amount).min(u128::from(BAR))).unwrap_or(0)
    };
    let spent = cells(one.spent.micro());
    let used = cells(one.spent.micro().saturating_add(one.reserved.micro())).max(spent);
    let free = usize::try_from(BAR).unwrap_or(0).saturating_sub(used);
    let (full, half, empty) = if blocks { ("█", "▒", "░") } else { ("#", "+", ".") };
    format!("{}{}{}", full.repeat(spent), half.repeat(used.saturating_sub(spent)), empty.repeat(free))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipstaff_model::id::RowId;
    use tipstaff_model::{BudgetActions, BudgetPeriod, CalendarDay, FixedClock, FixedEntropy, MicroUsd};
    use tipstaff_store::Budget;

    fn standing(amount: u64, spent: u64, reserved: u64, actions: BudgetActions) -> BudgetStanding {
        let id = RowId::new(&FixedClock::at(0), &FixedEntropy::seeded(1));
        let (holder, period) = (BudgetHolder::Org, BudgetPeriod::Day);
        let amount = MicroUsd::from_micro(amount);
        let budget = Budget { id, holder, period, amount, actions, created_at: 0, updated_at: 0 };
        let (spent, reserved) = (MicroUsd::from_micro(spent), MicroUsd::from_micro(reserved));
        BudgetStanding { budget, since: CalendarDay::FIRST, spent, reserved }
    }

    #[test]
    fn a_bar_shows_spent_reserved_and_free() {
        let one = |spent, reserved| bar(&standing(100, spent, reserved, BudgetActions::default()), false);
        assert_eq!(one(0, 0), "....................");
        assert_eq!(one(1, 0), "#...................");
        assert_eq!(one(50, 25), "##########+++++.....");
        assert_eq!(one(90, 900), "##################++");
        assert_eq!(one(5_000, 0), "####################");
        let coloured = bar(&standing(100, 50, 25, BudgetActions::default()), true);
        assert_eq!(coloured, "██████████▒▒▒▒▒░░░░░");
    }

    #[test]
    fn what_happens_at_which_share_is_said() {
        let actions = BudgetActions { slow: Some(80), ..BudgetActions::default() };
        let one = |spent| at(&standing(100, spent, 0, actions.clone()));
        assert_eq!(one(1), "notify 50,80,100, slow 80, stop 100");
        assert!(one(80).ends_with("(slowed)") && one(100).ends_with("(stopped)"));
    }
}

//! `tipstaff budgets`: how much the org and its agents may spend in a day, a week or a month.

use crate::cli::{BudgetChoice, BudgetsCommand};
use crate::context::Context;
use crate::exit::Problem;
use serde_json::json;
use std::process::ExitCode;
use tipstaff_model::{AuditAction, AuditDraft, BudgetHolder};

/// Carries out `tipstaff budgets …`.
pub(crate) async fn budgets(command: BudgetsCommand, context: Context) -> anyhow::Result<ExitCode> {
    let about = |holder: &BudgetHolder| format!("budget:{holder}");
    match command {
        BudgetsCommand::List => list(&context).await,
        BudgetsCommand::Set { which, amount } => {
            let holder = holder(&context, &which).await?;
            let mut tx = context.store.begin(context.scope()).await?;
            let id = tx.budget_set(&holder, which.per, amount).await?;
            tx.audit_note(
                AuditDraft::new(context.principal.actor(), AuditAction::BudgetSet, about(&holder))
                    .with("step", "set")
                    .with("per", which.per)
                    .with("amount", amount),
            );
            tx.commit().await?;
            context.pin_checkpoint().await?;
            if context.output.json {
                context.output.object(&json!({
                    "id": id, "holder": holder.to_string(), "per": which.per, "amount_micro_usd": amount.micro(),
                }));
            } else {
                context.output.line(&format!("{holder} may spend {amount} per {}", which.per));
            }
            Ok(ExitCode::SUCCESS)
        }
        BudgetsCommand::Remove { which } => {
            let holder = BudgetHolder::from(&which);
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

/// An agent that isn't there gets no budget: the name is more likely mistyped.
async fn holder(context: &Context, which: &BudgetChoice) -> anyhow::Result<BudgetHolder> {
    if let Some(name) = &which.agent {
        super::agents::find(context, name).await?;
    }
    Ok(BudgetHolder::from(which))
}

async fn list(context: &Context) -> anyhow::Result<ExitCode> {
    let standing = context.store.read(context.scope()).await?.budget_standing().await?;
    if context.output.json {
        for one in &standing {
            context.output.object(&json!({
                "id": one.budget.id, "holder": one.budget.holder.to_string(), "per": one.budget.period,
                "amount_micro_usd": one.budget.amount.micro(), "since": one.since,
                "spent_micro_usd": one.spent.micro(), "reserved_micro_usd": one.reserved.micro(),
            }));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if standing.is_empty() {
        context.output.note(
            "no budgets over a period yet; every run has its own. Set one: tipstaff budgets set --org --per month 100",
        );
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = standing
        .iter()
        .map(|one| {
            let percent = one.spent.micro().saturating_mul(100) / one.budget.amount.micro().max(1);
            vec![
                one.budget.holder.to_string(),
                one.budget.period.to_string(),
                one.budget.amount.to_string(),
                one.spent.to_string(),
                format!("{percent}%"),
                one.reserved.to_string(),
                one.since.to_string(),
            ]
        })
        .collect();
    context.output.table(&["WHO", "PER", "BUDGET", "SPENT", "", "RESERVED", "SINCE (UTC)"], &rows);
    Ok(ExitCode::SUCCESS)
}

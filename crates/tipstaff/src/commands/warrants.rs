//! `tipstaff warrants`: what is in force, and taking it back.

use crate::cli::WarrantsCommand;
use crate::context::Context;
use crate::exit::Problem;
use crate::output::{Tone, time};
use serde_json::json;
use std::process::ExitCode;
use tipstaff_model::{AuditAction, AuditDraft, WarrantId};
use tipstaff_store::{KeyPurpose, StoredWarrant};

/// Warrants that are listed at most.
const LIMIT: u32 = 1_000;

/// Carries out `tipstaff warrants …`.
pub(crate) async fn warrants(command: WarrantsCommand, context: Context) -> anyhow::Result<ExitCode> {
    match command {
        WarrantsCommand::List => list(&context).await,
        WarrantsCommand::Show { warrant } => show(&context, &warrant).await,
        WarrantsCommand::Narrow(arguments) => super::narrow::narrow(&arguments, &context).await,
        WarrantsCommand::Revoke { warrant } => revoke(&context, &warrant).await,
    }
}

async fn list(context: &Context) -> anyhow::Result<ExitCode> {
    let mut read = context.store.read(context.scope()).await?;
    let live = read.warrant_list_live(LIMIT).await?;
    if context.output.json {
        for one in &live {
            context.output.object(&one.signed.warrant);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if live.is_empty() {
        context.output.note("no warrant is in force");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = live
        .iter()
        .map(|one| {
            let grant = &one.signed.warrant;
            let repositories: Vec<&str> = grant.repositories.iter().map(|one| one.name.as_str()).collect();
            vec![
                grant.id.to_string(),
                grant.run.short(),
                grant.kind.to_string(),
                grant.role.to_string(),
                repositories.join(" "),
                grant.budget.to_string(),
                time(grant.expires_at),
            ]
        })
        .collect();
    context.output.table(&["WARRANT", "RUN", "KIND", "ROLE", "REPOSITORY", "BUDGET", "UNTIL (UTC)"], &rows);
    Ok(ExitCode::SUCCESS)
}

fn unknown(text: &str) -> anyhow::Error {
    Problem::usage(
        "warrant-unknown",
        format!(
            "there is no warrant '{}'; `tipstaff warrants list` shows those in force",
            text.escape_debug()
        ),
    )
}

pub(crate) async fn find(context: &Context, text: &str) -> anyhow::Result<StoredWarrant> {
    let id: WarrantId = text.parse().map_err(|_| unknown(text))?;
    let mut read = context.store.read(context.scope()).await?;
    read.warrant_get(id).await?.ok_or_else(|| unknown(text))
}

async fn show(context: &Context, text: &str) -> anyhow::Result<ExitCode> {
    let found = find(context, text).await?;
    let mut read = context.store.read(context.scope()).await?;
    let above = match found.signed.warrant.parent {
        Some(parent) => read.warrant_get(parent).await?.filter(|one| one.run != found.run),
        None => None,
    };
    let keys = read.verifying_keys(KeyPurpose::Warrant).await?;
    let holds = keys.iter().any(|key| found.signed.verify(key).is_ok());
    if context.output.json {
        context.output.object(
            &json!({ "signed": found.signed, "signature_holds": holds, "revoked_at": found.revoked_at,
                "under": above.map(|one| one.run) }),
        );
    } else {
        context.output.line(&serde_json::to_string_pretty(&found.signed.warrant)?);
        let (tone, word) = if holds { (Tone::Good, "holds") } else { (Tone::Bad, "DOES NOT HOLD") };
        context.output.line(&format!(
            "signature {} (key {})",
            context.output.tone(tone, word),
            found.signed.key_id
        ));
        context.output.line(&format!("digest    sha256:{}", found.signed.digest));
        if let Some(above) = above {
            context
                .output
                .line(&format!("narrowed from that of run {}: {}", above.run, above.signed.warrant.id));
        }
        if let Some(at) = found.revoked_at {
            context.output.line(&format!("out of force since {}", time(at)));
        }
    }
    Ok(ExitCode::from(u8::from(!holds)))
}

async fn revoke(context: &Context, text: &str) -> anyhow::Result<ExitCode> {
    let found = find(context, text).await?;
    let id = found.signed.warrant.id;
    let mut tx = context.store.begin(context.scope()).await?;
    if !tx.warrant_revoke(id).await? {
        return Err(Problem::usage(
            "warrant-not-in-force",
            format!("the warrant {id} is out of force already"),
        ));
    }
    tx.audit_note(
        AuditDraft::new(context.principal.actor(), AuditAction::WarrantRevoked, format!("warrant:{id}"))
            .with("run", found.run),
    );
    tx.commit().await?;
    context.pin_checkpoint().await?;
    if context.output.json {
        context.output.object(&json!({ "warrant": id, "revoked": true }));
    } else {
        context
            .output
            .line(&format!("the warrant is out of force; run {} ends within seconds", found.run.short()));
    }
    Ok(ExitCode::SUCCESS)
}

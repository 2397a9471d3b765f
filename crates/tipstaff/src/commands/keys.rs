//! `tipstaff keys`: the ring that seals secrets at rest.

use crate::cli::KeysCommand;
use crate::context::{Context, key_source};
use crate::output::time;
use serde_json::json;
use std::process::ExitCode;
use tipstaff_model::{AuditAction, AuditDraft};
use tipstaff_store::RingRotation;

/// Values that are sealed anew in one transaction: few, so that runs hardly wait.
const STEP: u32 = 50;

/// Carries out `tipstaff keys …`.
pub(crate) async fn keys(command: KeysCommand, context: Context) -> anyhow::Result<ExitCode> {
    match command {
        KeysCommand::List => list(&context).await,
        KeysCommand::Rotate => rotate(&context).await,
    }
}

async fn list(context: &Context) -> anyhow::Result<ExitCode> {
    let mut read = context.store.read(context.scope()).await?;
    let keys = read.ring_list().await?;
    let newest = keys.iter().map(|key| key.generation).max();
    let current = |generation: i64| Some(generation) == newest;
    if context.output.json {
        for key in &keys {
            context.output.object(&json!({
                "id": key.id, "current": current(key.generation), "generation": key.generation, "seals": key.values,
                "created_at": key.created_at, "retired_at": key.retired_at,
            }));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|key| {
            let state = match key.retired_at {
                Some(at) => format!("retired {}", time(at)),
                None if current(key.generation) => "current".to_owned(),
                None => "being replaced: `tipstaff keys rotate` goes on".to_owned(),
            };
            vec![key.id.clone(), time(key.created_at), key.values.to_string(), state]
        })
        .collect();
    context.output.table(&["KEY", "MADE (UTC)", "SEALS", "STATE"], &rows);
    context.output.note(&format!(
        "the ring's own key comes from {}",
        key_source(&context.env, &context.layout).describe()
    ));
    Ok(ExitCode::SUCCESS)
}

async fn rotate(context: &Context) -> anyhow::Result<ExitCode> {
    let mut tx = context.store.begin(context.scope()).await?;
    let begun = tx.ring_rotate_begin().await?;
    let note = |step: &str| {
        AuditDraft::new(
            context.principal.actor(),
            AuditAction::KeyRotated,
            format!("org:{}", context.scope().org()),
        )
        .with("step", step)
    };
    tx.audit_note(note(match begun {
        RingRotation::Begun => "begun",
        RingRotation::Resumed => "resumed",
    }));
    tx.commit().await?;
    if begun == RingRotation::Resumed {
        context.output.note("an earlier rotation was interrupted; going on with it");
    }
    let mut sealed = 0;
    loop {
        let mut tx = context.store.begin(context.scope()).await?;
        let seen = tx.ring_reseal_step(STEP).await?;
        tx.commit().await?;
        if seen == 0 {
            break;
        }
        sealed += seen;
    }
    let mut tx = context.store.begin(context.scope()).await?;
    let retired = tx.ring_retire_unused().await?;
    tx.audit_note(note("ended").with("sealed", sealed).with("retired", retired));
    tx.commit().await?;
    context.pin_checkpoint().await?;
    if context.output.json {
        context.output.object(
            &json!({ "sealed": sealed, "retired": retired, "resumed": begun == RingRotation::Resumed }),
        );
    } else {
        context.output.line(&format!(
            "{sealed} values sealed anew, {retired} old key{} retired",
            if retired == 1 { "" } else { "s" }
        ));
    }
    Ok(ExitCode::SUCCESS)
}

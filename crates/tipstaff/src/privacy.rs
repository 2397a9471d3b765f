//! What a run of the class `meta` is asked to do: held in memory where it begins at once, sealed while it is queued, gone
//! with its end.

use crate::context::Context;
use tipstaff_model::{PrivacyClass, TaskId, TaskSpec};
use tipstaff_seal::Secret;
use tipstaff_store::OrgTx;

/// Names of sealed tasks begin so.
pub(crate) const PROMPT: &str = "tipstaff.task.";

fn name_of(task: TaskId) -> String {
    format!("{PROMPT}{task}")
}

/// Seals what a queued task of the class `meta` is asked to do; its row holds no text.
pub(crate) async fn prompt_keep(tx: &mut OrgTx, id: TaskId, task: &TaskSpec) -> anyhow::Result<()> {
    if task.privacy == PrivacyClass::Meta {
        tx.secret_set(&name_of(id), &Secret::new(serde_json::to_vec(task)?)).await?;
    }
    Ok(())
}

/// What a task is asked to do: the spec of its row, or what was sealed beside it.
pub(crate) async fn prompt_of(tx: &mut OrgTx, id: TaskId, stored: TaskSpec) -> anyhow::Result<TaskSpec> {
    if stored.privacy != PrivacyClass::Meta {
        return Ok(stored);
    }
    match tx.secret_get(&name_of(id)).await? {
        Some(sealed) => Ok(serde_json::from_slice(sealed.expose())?),
        None => Ok(stored),
    }
}

/// Forgets what tasks that have ended were asked to do.
pub(crate) async fn prompts_forget(context: &Context) -> anyhow::Result<()> {
    let mut read = context.store.read(context.scope()).await?;
    let mut gone = Vec::new();
    for secret in read.secret_list().await? {
        let Some(id) = secret.name.strip_prefix(PROMPT).and_then(|id| id.parse::<TaskId>().ok()) else {
            continue;
        };
        if read.task_get(id).await?.is_none_or(|task| task.state.is_final()) {
            gone.push(secret.name);
        }
    }
    drop(read);
    if gone.is_empty() {
        return Ok(());
    }
    let mut tx = context.store.begin(context.scope()).await?;
    for name in gone {
        tx.secret_remove(&name).await?;
    }
    tx.commit().await?;
    Ok(())
}

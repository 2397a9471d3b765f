//! `tipstaff secrets`: keys of models' providers and other values, sealed in the store. No value is ever shown.

use crate::bound::{BoundSecret, check_name, given_name, open, store_name, variable};
use crate::cli::{BindingArgs, SecretChoice, SecretsCommand};
use crate::context::Context;
use crate::exit::Problem;
use crate::git_credential as git;
use crate::models::{is_provider, secret_name, unknown_provider};
use crate::output::time;
use serde_json::json;
use std::io::{IsTerminal, Read};
use std::process::ExitCode;
use tipstaff_model::warrant::UrlPattern;
use tipstaff_model::{AuditAction, AuditDraft};
use tipstaff_seal::Secret;
use tipstaff_store::{SECRET_NAME_LIMIT, SecretInfo};

/// The largest value, in bytes.
const LARGEST: usize = 64 << 10;

/// Carries out `tipstaff secrets …`.
pub(crate) async fn secrets(command: SecretsCommand, context: Context) -> anyhow::Result<ExitCode> {
    match command {
        SecretsCommand::Set { which, binding, .. } if binding.host.is_some() => {
            let name = which.name.clone().unwrap_or_default();
            check_name(&name)?;
            let value = value(&context, &which)?;
            set_bound(&context, &name, &binding, &value).await
        }
        SecretsCommand::Set { which, app: Some(app), api, .. } => {
            let name = name(&context, &which)?;
            let host = which.git.clone().unwrap_or_default();
            // A key has several lines, as no token has.
            let value = value(&context, &SecretChoice { name: None, provider: None, git: None })?;
            set(&context, &name, &git::sealed_app(&host, &app, api.as_deref(), &value)?).await
        }
        SecretsCommand::Set { which, username, .. } => {
            if username.is_some() && which.git.is_none() {
                let text =
                    "a user name goes with a git host: `tipstaff secrets set --git HOST --username NAME`";
                return Err(Problem::usage("git-username", text));
            }
            let name = name(&context, &which)?;
            let mut value = value(&context, &which)?;
            if which.git.is_some() {
                value = git::sealed(username.as_deref(), &value)?;
            }
            set(&context, &name, &value).await
        }
        SecretsCommand::List => list(&context).await,
        SecretsCommand::Remove { which } => {
            let name = name(&context, &which)?;
            remove(&context, &name).await
        }
    }
}

fn name(context: &Context, which: &SecretChoice) -> anyhow::Result<String> {
    if let Some(provider) = &which.provider {
        if is_provider(&context.config, provider) {
            return Ok(secret_name(provider));
        }
        return Err(unknown_provider(&context.config, provider));
    }
    if let Some(host) = &which.git {
        return git::secret_name(host);
    }
    let name = which.name.clone().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let reserved = given_name(&name).is_some() || is_ours(&name);
    if name.is_empty() || name.len() > SECRET_NAME_LIMIT || !name.chars().all(plain) || reserved {
        let text = format!(
            "'{}' can't name a secret: write 1 to {SECRET_NAME_LIMIT} of a-z, A-Z, 0-9, '.', '_', '-' and '/'; the value comes from standard input",
            name.chars().take(20).collect::<String>().escape_debug()
        );
        return Err(Problem::usage("secret-name", text));
    }
    Ok(name)
}

/// The value, from a hidden prompt where a person sits, else from standard input.
fn value(context: &Context, which: &SecretChoice) -> anyhow::Result<Secret<Vec<u8>>> {
    let mut bytes = if std::io::stdin().is_terminal() {
        context.output.note("paste the value and press Enter; it is not shown");
        rpassword::read_password()
            .map_err(|error| {
                let text =
                    format!("the value can't be read from this terminal: {error}; pipe it into the command");
                Problem::usage("secret-unreadable", text)
            })?
            .into_bytes()
    } else {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(LARGEST as u64 + 2).read_to_end(&mut bytes).map_err(|error| {
            Problem::usage("secret-unreadable", format!("standard input can't be read: {error}"))
        })?;
        bytes
    };
    // The line's end belongs to the terminal or to `echo`.
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    let value = Secret::new(bytes);
    let text = value.expose();
    if text.is_empty() {
        let text = "there is no value: pipe it in, such as `tipstaff secrets set NAME < FILE`";
        return Err(Problem::usage("secret-empty", text));
    }
    if text.len() > LARGEST {
        let text = format!("the value is larger than {LARGEST} bytes; keep it in a file instead");
        return Err(Problem::usage("secret-too-large", text));
    }
    if (which.provider.is_some() || which.git.is_some()) && !text.iter().all(u8::is_ascii_graphic) {
        let text = "this is no key or token: it has spaces, several lines or characters outside ASCII; nothing was stored";
        return Err(Problem::usage("secret-invalid", text));
    }
    Ok(value)
}

fn audited(context: &Context, name: &str, step: &str) -> AuditDraft {
    AuditDraft::new(context.principal.actor(), AuditAction::SecretSet, format!("secret:{name}"))
        .with("step", step)
}

async fn set(context: &Context, name: &str, value: &Secret<Vec<u8>>) -> anyhow::Result<ExitCode> {
    let mut tx = context.store.begin(context.scope()).await?;
    let id = tx.secret_set(name, value).await?;
    tx.audit_note(audited(context, name, "set"));
    tx.commit().await?;
    context.pin_checkpoint().await?;
    if context.output.json {
        context.output.object(&json!({ "id": id, "name": name }));
    } else {
        context.output.line(&format!("{name} is set, sealed with the ring's key"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Seals a value with the host that it is for.
async fn set_bound(
    context: &Context,
    name: &str,
    binding: &BindingArgs,
    value: &Secret<Vec<u8>>,
) -> anyhow::Result<ExitCode> {
    let host = binding
        .host
        .as_ref()
        .ok_or_else(|| Problem::usage("secret-host", "a secret for a host needs one: write --host HOST"))?;
    if !host.is_one_host() {
        let text = format!("{host} is more than one host; a secret is for one");
        return Err(Problem::usage("secret-host", text));
    }
    let text = std::str::from_utf8(value.expose()).map_err(|_| {
        Problem::usage(
            "secret-invalid",
            "the value is no text, so it can't stand in a request; nothing was stored",
        )
    })?;
    let bound = BoundSecret {
        name: name.to_owned(),
        host: host.clone(),
        path: binding.path.clone().unwrap_or_else(UrlPattern::everything),
        place: binding.header.clone().or_else(|| binding.query.clone()).unwrap_or_default(),
        value: Secret::new(text.to_owned()),
    };
    bound.check()?;
    let mut tx = context.store.begin(context.scope()).await?;
    let id = tx.secret_set(&store_name(name), &bound.to_bytes()?).await?;
    tx.audit_note(
        audited(context, name, "set")
            .with("host", host)
            .with("path", &bound.path)
            .with("place", bound.place_text()),
    );
    tx.commit().await?;
    context.pin_checkpoint().await?;
    let variable = variable(name);
    if context.output.json {
        context.output.object(&json!({
            "id": id, "name": name, "host": host, "path": bound.path, "place": bound.place_text(), "variable": variable,
        }));
    } else {
        context.output.line(&format!(
            "{name} is set for {host}{}, sealed with the ring's key; `tipstaff run --secret {name}` has a handle in {variable}",
            bound.path
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove(context: &Context, name: &str) -> anyhow::Result<ExitCode> {
    let mut tx = context.store.begin(context.scope()).await?;
    let bound = tx.secret_remove(&store_name(name)).await?;
    if !tx.secret_remove(name).await? && !bound {
        let text = format!("there is no secret '{name}'; `tipstaff secrets list` shows them");
        return Err(Problem::usage("secret-unknown", text));
    }
    tx.audit_note(audited(context, name, "removed"));
    tx.commit().await?;
    context.pin_checkpoint().await?;
    if context.output.json {
        context.output.object(&json!({ "name": name, "removed": true }));
    } else {
        context.output.line(&format!("{name} is removed"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a name is one of those under which we seal things of our own.
fn is_ours(name: &str) -> bool {
    name.starts_with(crate::privacy::PROMPT) || name.starts_with(crate::kept::KEY)
}

/// A secret as it is listed: what it is for, where it is bound.
async fn listed(context: &Context) -> anyhow::Result<Vec<(SecretInfo, Option<BoundSecret>)>> {
    let mut read = context.store.read(context.scope()).await?;
    let mut all = Vec::new();
    let listed = read.secret_list().await?;
    for mut one in listed.into_iter().filter(|one| !is_ours(&one.name)) {
        let bound = match given_name(&one.name).map(ToOwned::to_owned) {
            Some(name) => {
                let bound = open(&mut read, &name).await?;
                one.name = name;
                bound
            }
            None => None,
        };
        all.push((one, bound));
    }
    all.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    Ok(all)
}

async fn list(context: &Context) -> anyhow::Result<ExitCode> {
    let secrets = listed(context).await?;
    if context.output.json {
        for (one, bound) in &secrets {
            let mut shown = json!({
                "id": one.id, "name": one.name, "created_at": one.created_at, "updated_at": one.updated_at,
            });
            if let (Some(bound), Some(fields)) = (bound, shown.as_object_mut()) {
                fields.insert("host".to_owned(), json!(bound.host));
                fields.insert("path".to_owned(), json!(bound.path));
                fields.insert("place".to_owned(), json!(bound.place_text()));
                fields.insert("variable".to_owned(), json!(variable(&one.name)));
            }
            context.output.object(&shown);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if secrets.is_empty() {
        context.output.note("no secrets yet; set one: tipstaff secrets set --provider anthropic");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = secrets
        .iter()
        .map(|(one, bound)| {
            let purpose = bound.as_ref().map_or_else(
                || "-".to_owned(),
                |bound| format!("{}{} in {}", bound.host, bound.path, bound.place_text()),
            );
            vec![one.name.clone(), purpose, time(one.created_at), time(one.updated_at)]
        })
        .collect();
    context.output.table(&["NAME", "FOR", "MADE (UTC)", "SET (UTC)"], &rows);
    Ok(ExitCode::SUCCESS)
}

//! Which models a run may ask, where they are, and with which key.
//!
//! A key comes from this process's environment or from the sealed secrets, in this order, and goes to the broker alone.

use crate::config::Config;
use crate::context::Context;
use crate::exit::Problem;
use std::sync::Arc;
use tipstaff_broker::{GatewayConfig, PlainHttp, Upstream, Wire};
use tipstaff_engine::engine;
use tipstaff_model::TaskSpec;
use tipstaff_model::warrant::{ModelGrant, ModelPattern};
use tipstaff_seal::Secret;
use tipstaff_seal::redact::Redactor;

/// Providers that need no configuration.
const PUBLIC: [(&str, Wire); 3] =
    [("anthropic", Wire::Anthropic), ("openai", Wire::OpenAi), ("gemini", Wire::Gemini)];

/// The name of the secret that holds a provider's key.
pub(crate) fn secret_name(provider: &str) -> String {
    format!("model/{provider}")
}

/// Splits `provider/model` where a person wrote it so; a name without a provider is the engine's own.
pub(crate) fn split(given: &str) -> (Option<String>, String) {
    match given.split_once('/') {
        Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
            (Some(provider.to_owned()), model.to_owned())
        }
        _ => (None, given.to_owned()),
    }
}

/// The provider that a task's engine asks, where it asks one.
pub(crate) fn provider(task: &TaskSpec) -> Option<&str> {
    let usual = engine(task.engine).models().map(|models| models.provider);
    task.provider.as_deref().or(usual)
}

/// The models that a task's warrant names: the chosen one, and what its engine asks besides.
pub(crate) fn grants(task: &TaskSpec) -> anyhow::Result<Vec<ModelGrant>> {
    let Some(provider) = provider(task) else { return Ok(Vec::new()) };
    let models = engine(task.engine).models();
    let chosen = task.model.as_deref().or(models.map(|models| models.default));
    // What an engine asks besides is asked at its own provider; elsewhere only the chosen model is known to be there.
    let besides =
        models.filter(|models| models.provider == provider).map_or(&[][..], |models| models.besides);
    chosen
        .into_iter()
        .chain(besides.iter().copied())
        .map(|text| {
            let model = text
                .parse::<ModelPattern>()
                .map_err(|error| Problem::usage("model-pattern", error.to_string()))?;
            Ok(ModelGrant { provider: provider.to_owned(), model })
        })
        .collect()
}

/// What the broker of one task is given: its upstream with its key, and prices. `None` where it asks no model.
pub(crate) async fn gateway(
    context: &Context,
    task: &TaskSpec,
) -> anyhow::Result<(Option<GatewayConfig>, Redactor)> {
    let Some(name) = provider(task) else { return Ok((None, Redactor::new())) };
    let (wire, base, plain, own) = place(&context.env, &context.config, name)?;
    let key = key(context, name).await?;
    // A wrong key shows at the first call; a missing one is known now.
    if key.is_none() && !own {
        let variable = variable(name).unwrap_or_default();
        let text = format!(
            "there is no key for {name}: set {variable} for this command, or keep one with `tipstaff secrets set --provider {name}`"
        );
        return Err(Problem::usage("model-key-missing", text));
    }
    let redactor = Redactor::new().with_values(key.as_ref());
    let upstream = Upstream::new(name, wire, &base, key, plain)
        .map_err(|error| Problem::usage(error.code(), error.to_string()))?;
    let prices = Arc::new(crate::commands::prices::in_force(context).await?);
    let gateway = GatewayConfig {
        upstreams: vec![upstream],
        routes: Vec::new(),
        prices,
        client: context.gateway_client()?.clone(),
        clock: Arc::clone(&context.clock),
        entropy: Arc::clone(&context.entropy),
    };
    Ok((Some(gateway), redactor))
}

/// Whether there is a provider of this name here.
pub(crate) fn is_provider(config: &Config, name: &str) -> bool {
    PUBLIC.iter().any(|(public, _)| *public == name) || config.upstreams.contains_key(name)
}

/// The error for a provider that nobody set up.
pub(crate) fn unknown_provider(config: &Config, name: &str) -> anyhow::Error {
    let known: Vec<&str> =
        PUBLIC.iter().map(|(name, _)| *name).chain(config.upstreams.keys().map(String::as_str)).collect();
    let text = format!(
        "'{}' is no provider here; known: {}; add it to {} as [upstreams.NAME]",
        name.escape_debug(),
        known.join(", "),
        crate::config::CONFIG_FILE
    );
    Problem::usage("provider-unknown", text)
}

/// Where a provider is: its wire, its base, whether plain HTTP is accepted, and whether somebody here set it.
fn place(
    env: &crate::env::Environment,
    config: &Config,
    name: &str,
) -> anyhow::Result<(Wire, String, PlainHttp, bool)> {
    let public = PUBLIC.iter().find(|(public, _)| *public == name).map(|(_, wire)| *wire);
    if let (Some(wire), Some(url)) = (public, env.upstreams.get(name)) {
        return Ok((wire, url.clone(), PlainHttp::LoopbackOnly, true));
    }
    if let Some(found) = config.upstreams.get(name) {
        return Ok((found.wire(name)?, found.url.clone(), found.plain(), true));
    }
    let wire = public.ok_or_else(|| unknown_provider(config, name))?;
    Ok((wire, wire.public_base().to_owned(), PlainHttp::LoopbackOnly, false))
}

/// The variable of this process's environment that may hold a provider's key.
fn variable(provider: &str) -> Option<&'static str> {
    match provider {
        "anthropic" => Some("ANTHROPIC_API_KEY"),
        "openai" => Some("OPENAI_API_KEY"),
        "gemini" => Some("GEMINI_API_KEY"),
        _ => None,
    }
}

async fn key(context: &Context, provider: &str) -> anyhow::Result<Option<Secret<String>>> {
    if let Some(key) = context.env.model_keys.get(provider) {
        return Ok(Some(key.clone()));
    }
    let mut read = context.store.read(context.scope()).await?;
    let Some(bytes) = read.secret_get(&secret_name(provider)).await? else { return Ok(None) };
    let text = std::str::from_utf8(bytes.expose()).map_err(|_| {
        let text = format!("the key of {provider} is no text; set it again with `tipstaff secrets set`");
        Problem::usage("model-key-invalid", text)
    })?;
    Ok(Some(Secret::new(text.trim().to_owned())))
}

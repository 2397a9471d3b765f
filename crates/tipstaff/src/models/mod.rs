//! Which models a run may ask, where they are, who serves them, and with which key.
//!
//! A key goes to the broker alone; where it comes from, see [`keys`].

mod files;
pub(crate) mod keys;
mod login;
pub(crate) mod rules;

use crate::config::Config;
use crate::context::Context;
use crate::env::Environment;
use crate::exit::Problem;
use keys::{Asker, Found, KeyOrigin, Proof};
use rules::ModelRules;
use std::sync::Arc;
use tipstaff_broker::{GatewayConfig, Login, PlainHttp, Upstream, Wire};
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

/// The models that a task asks: the chosen one, and what its engine asks besides.
fn wanted(task: &TaskSpec) -> anyhow::Result<(Option<ModelGrant>, Vec<ModelGrant>)> {
    let Some(provider) = provider(task) else { return Ok((None, Vec::new())) };
    let models = engine(task.engine).models();
    let chosen = task.model.as_deref().or(models.map(|models| models.default));
    // What an engine asks besides is asked at its own provider; elsewhere only the chosen model is known to be there.
    let besides =
        models.filter(|models| models.provider == provider).map_or(&[][..], |models| models.besides);
    let grant = |text: &str| {
        let model = text
            .parse::<ModelPattern>()
            .map_err(|error| Problem::usage("model-pattern", error.to_string()))?;
        Ok::<_, anyhow::Error>(ModelGrant { provider: provider.to_owned(), model })
    };
    Ok((chosen.map(grant).transpose()?, besides.iter().map(|text| grant(text)).collect::<Result<_, _>>()?))
}

/// What a run is given to ask models.
pub(crate) struct RunModels {
    /// What its warrant names: only what is allowed.
    pub(crate) grants: Vec<ModelGrant>,
    /// What its broker is given; `None` where it asks no model.
    pub(crate) gateway: Option<GatewayConfig>,
    /// Takes the keys out of everything that is stored or shown.
    pub(crate) redactor: Redactor,
}

/// The models that a task's warrant names: those that it asks and that may be asked here.
pub(crate) async fn grants(context: &Context, task: &TaskSpec) -> anyhow::Result<Vec<ModelGrant>> {
    Ok(bound(context, task).await?.0)
}

async fn bound(context: &Context, task: &TaskSpec) -> anyhow::Result<(Vec<ModelGrant>, ModelRules)> {
    let project = project_of(context, task).await?;
    let rules = rules::read(context, project.as_deref()).await?;
    let (chosen, besides) = wanted(task)?;
    if let Some(chosen) = &chosen {
        rules.permits(chosen)?;
    }
    // An agent does without its titles and summaries.
    let besides = besides.into_iter().filter(|grant| rules.permits(grant).is_ok());
    Ok((chosen.into_iter().chain(besides).collect(), rules))
}

/// The project that a task's repository belongs to.
async fn project_of(context: &Context, task: &TaskSpec) -> anyhow::Result<Option<String>> {
    let mut read = context.store.read(context.scope()).await?;
    let Some(known) = read.repository_by_source(&task.source).await? else { return Ok(None) };
    Ok(read.project_of(known.id).await?.map(|project| project.name))
}

/// What one task is given to ask models: upstreams with their keys, routes and prices.
pub(crate) async fn prepare(context: &Context, task: &TaskSpec, asker: Asker) -> anyhow::Result<RunModels> {
    let (grants, rules) = bound(context, task).await?;
    let Some(name) = provider(task) else {
        return Ok(RunModels { grants, gateway: None, redactor: Redactor::new() });
    };
    let own = place(&context.env, &context.config, name)?;
    let routes = rules.routes_of(context, name, own.wire, &grants)?;
    // Whoever serves a granted model needs a key; the provider itself only where no route leads elsewhere.
    let exact = |grant: &ModelGrant| routes.iter().any(|route| route.models.covers(&grant.model));
    let routed = !grants.is_empty() && grants.iter().all(exact);
    let mut names = vec![name];
    for hop in routes.iter().flat_map(|route| &route.hops) {
        if !names.contains(&hop.upstream.as_str()) {
            names.push(&hop.upstream);
        }
    }
    let served =
        |upstream: &str| routes.iter().any(|route| route.hops.iter().any(|hop| hop.upstream == upstream));
    let (mut upstreams, mut secrets) = (Vec::new(), Vec::new());
    for upstream in names {
        let found = keys::find(context, upstream, asker).await?;
        let needs_key = !routed || served(upstream);
        upstreams.push(make(context, upstream, &found, needs_key, asker)?);
        match found.proof {
            Proof::Nothing => {}
            Proof::Key(key) => secrets.push(key),
            Proof::Login(login) => {
                let reader = Arc::clone(&login);
                let read = tokio::task::spawn_blocking(move || reader.read()).await?;
                let login = read.map_err(|error| Problem::usage("login-unusable", error.to_string()))?;
                secrets.push(login.token);
                secrets.extend(login.account.map(Secret::new));
            }
        }
    }
    let prices = Arc::new(crate::commands::prices::in_force(context).await?);
    let gateway = GatewayConfig {
        upstreams,
        routes,
        prices,
        client: context.gateway_client()?.clone(),
        clock: Arc::clone(&context.clock),
        entropy: Arc::clone(&context.entropy),
    };
    let redactor = Redactor::new().with_values(&secrets);
    Ok(RunModels { grants, gateway: Some(gateway), redactor })
}

/// An upstream with what it is asked with.
pub(crate) fn make(
    context: &Context,
    name: &str,
    found: &Found,
    needs_key: bool,
    asker: Asker,
) -> anyhow::Result<Upstream> {
    let place = place(&context.env, &context.config, name)?;
    // A wrong key shows at the first call; a missing one is known now.
    if needs_key && found.origin == KeyOrigin::Nowhere && !place.is_own {
        return Err(keys::missing(context, name, asker));
    }
    let usual = |error: tipstaff_broker::UpstreamError| Problem::usage(error.code(), error.to_string());
    let key = match &found.proof {
        Proof::Key(key) => Some(key.clone()),
        Proof::Nothing | Proof::Login(_) => None,
    };
    let base = match (&found.origin, &place.base) {
        (_, Some(base)) => base.clone(),
        (KeyOrigin::Login(program, _), None) => program.base().to_owned(),
        (_, None) => place.wire.public_base().to_owned(),
    };
    let mut upstream = Upstream::new(name, place.wire, &base, key, place.plain).map_err(usual)?;
    if let Proof::Login(login) = &found.proof {
        upstream =
            upstream.with_login(Arc::clone(login) as Arc<dyn tipstaff_broker::Login>).map_err(usual)?;
    }
    let calls = context.config.upstreams.get(name).and_then(|config| config.calls);
    Ok(match calls {
        Some(calls) => upstream.with_calls(calls),
        None => upstream,
    })
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

/// Where a provider is.
pub(crate) struct Place {
    pub(crate) wire: Wire,
    /// Its base where somebody here set it; else the provider's own.
    pub(crate) base: Option<String>,
    pub(crate) plain: PlainHttp,
    /// Whether somebody here said where it is: then it may want no key.
    pub(crate) is_own: bool,
}

/// Where a provider is.
pub(crate) fn place(env: &Environment, config: &Config, name: &str) -> anyhow::Result<Place> {
    let public = PUBLIC.iter().find(|(public, _)| *public == name).map(|(_, wire)| *wire);
    if let (Some(wire), Some(url)) = (public, env.upstreams.get(name)) {
        return Ok(Place { wire, base: Some(url.clone()), plain: PlainHttp::LoopbackOnly, is_own: true });
    }
    if let Some(found) = config.upstreams.get(name) {
        let (wire, base) = (found.wire(name)?, found.url.clone());
        return Ok(Place { wire, is_own: base.is_some(), base, plain: found.plain() });
    }
    let wire = public.ok_or_else(|| unknown_provider(config, name))?;
    Ok(Place { wire, base: None, plain: PlainHttp::LoopbackOnly, is_own: false })
}

/// All providers that are known here.
pub(crate) fn providers(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = PUBLIC.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.extend(
        config.upstreams.keys().filter(|name| !PUBLIC.iter().any(|(public, _)| public == name)).cloned(),
    );
    names
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

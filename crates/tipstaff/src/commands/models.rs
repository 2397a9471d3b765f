//! `tipstaff models`: which may be asked, who serves them, with whose key.

use crate::cli::{ModelsCommand, RuleChoice};
use crate::config::{CONFIG_FILE, check_hops};
use crate::context::Context;
use crate::exit::{Problem, classify};
use crate::models::keys::{Asker, KeyOrigin};
use crate::models::rules::{ModelRules, OwnedRoute, StoredHop};
use crate::models::{is_provider, keys, make, place, providers, rules, unknown_provider};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use tipstaff_broker::{Bounds, Hop, Login as _};
use tipstaff_engine::REGISTRY;
use tipstaff_model::warrant::{ModelGrant, ModelPattern};
use tipstaff_model::{AuditAction, AuditDraft, ModelEffect, OfferPattern, PriceTable};

/// Carries out `tipstaff models …`.
pub(crate) async fn models(command: ModelsCommand, context: Context) -> anyhow::Result<ExitCode> {
    match command {
        ModelsCommand::List { pattern, project, all } => {
            known_project(&context, project.as_deref()).await?;
            list(&context, pattern.as_ref(), project.as_deref(), all).await
        }
        ModelsCommand::Allow { which } => rule(&context, &which, Some(ModelEffect::Allow)).await,
        ModelsCommand::Deny { which } => rule(&context, &which, Some(ModelEffect::Deny)).await,
        ModelsCommand::Forget { which } => rule(&context, &which, None).await,
        ModelsCommand::Route { which, upstream, model, fallback } => {
            let hops = hops(&context, upstream, model, &fallback)?;
            route(&context, &which, Some(hops)).await
        }
        ModelsCommand::Unroute { which } => route(&context, &which, None).await,
        ModelsCommand::Test { provider } => test(&context, &provider).await,
    }
}

/// A project that isn't there gets no rule: the name is more likely mistyped.
async fn known_project(context: &Context, project: Option<&str>) -> anyhow::Result<()> {
    let Some(name) = project else { return Ok(()) };
    if context.store.read(context.scope()).await?.project_get(name).await?.is_some() {
        return Ok(());
    }
    let text = format!(
        "there is no project '{}'; `tipstaff projects list` shows them, `tipstaff projects add` makes one",
        name.escape_debug()
    );
    Err(Problem::usage("project-unknown", text))
}

fn whose(which: &RuleChoice) -> String {
    which.project.as_ref().map_or_else(|| "your org".to_owned(), |name| format!("the project {name}"))
}

fn audited(context: &Context, which: &RuleChoice, step: &str) -> AuditDraft {
    let subject = match &which.project {
        Some(name) => format!("project:{name}"),
        None => format!("org:{}", context.scope().org()),
    };
    AuditDraft::new(context.principal.actor(), AuditAction::ModelsSet, subject)
        .with("step", step)
        .with("pattern", &which.pattern)
}

/// Sets a rule, or removes it.
async fn rule(
    context: &Context,
    which: &RuleChoice,
    effect: Option<ModelEffect>,
) -> anyhow::Result<ExitCode> {
    known_project(context, which.project.as_deref()).await?;
    let mut tx = context.store.begin(context.scope()).await?;
    let project = which.project.as_deref();
    match effect {
        Some(effect) => tx.model_rule_set(project, &which.pattern, effect).await?,
        None if tx.model_rule_remove(project, &which.pattern).await? => {}
        None => {
            let text = format!(
                "{} has no rule for {}; `tipstaff models list` shows them",
                whose(which),
                which.pattern
            );
            return Err(Problem::usage("model-rule-unknown", text));
        }
    }
    let step = effect.map_or("removed", ModelEffect::as_str);
    tx.audit_note(audited(context, which, step));
    tx.commit().await?;
    context.pin_checkpoint().await?;
    if context.output.json {
        context.output.object(&json!({ "pattern": which.pattern, "project": which.project, "rule": step }));
        return Ok(ExitCode::SUCCESS);
    }
    context.output.line(&match effect {
        Some(ModelEffect::Allow) => {
            format!("{} may ask {}, and what else is allowed", whose(which), which.pattern)
        }
        Some(ModelEffect::Deny) => format!("{} may not ask {}", whose(which), which.pattern),
        None => format!("the rule of {} for {} is removed", whose(which), which.pattern),
    });
    Ok(ExitCode::SUCCESS)
}

fn hops(
    context: &Context,
    upstream: String,
    model: Option<String>,
    fallback: &[String],
) -> anyhow::Result<Vec<Hop>> {
    let more = fallback.iter().map(|text| match text.split_once('/') {
        Some((upstream, model)) => Hop { upstream: upstream.to_owned(), model: Some(model.to_owned()) },
        None => Hop { upstream: text.clone(), model: None },
    });
    let hops: Vec<Hop> = std::iter::once(Hop { upstream, model }).chain(more).collect();
    check_hops(&hops).map_err(|why| Problem::usage("route-invalid", why))?;
    match hops.iter().find(|hop| !is_provider(&context.config, &hop.upstream)) {
        Some(unknown) => Err(unknown_provider(&context.config, &unknown.upstream)),
        None => Ok(hops),
    }
}

/// Sets a route, or removes it.
async fn route(context: &Context, which: &RuleChoice, hops: Option<Vec<Hop>>) -> anyhow::Result<ExitCode> {
    known_project(context, which.project.as_deref()).await?;
    let mut tx = context.store.begin(context.scope()).await?;
    let project = which.project.as_deref();
    let said = hops.as_deref().map(told).unwrap_or_default();
    match &hops {
        Some(hops) => {
            let stored: Vec<StoredHop> = hops
                .iter()
                .map(|hop| StoredHop { upstream: hop.upstream.clone(), model: hop.model.clone() })
                .collect();
            tx.model_route_set(project, &which.pattern, &serde_json::to_string(&stored)?).await?;
        }
        None if tx.model_route_remove(project, &which.pattern).await? => {}
        None => {
            let text = format!(
                "{} has no route for {}; `tipstaff models list` shows them, those of {CONFIG_FILE} are the operator's",
                whose(which),
                which.pattern
            );
            return Err(Problem::usage("route-unknown", text));
        }
    }
    let step = if hops.is_some() { "routed" } else { "unrouted" };
    let mut draft = audited(context, which, step);
    if hops.is_some() {
        draft = draft.with("to", &said);
    }
    tx.audit_note(draft);
    tx.commit().await?;
    context.pin_checkpoint().await?;
    if context.output.json {
        context.output.object(&json!({ "pattern": which.pattern, "project": which.project, "route": said }));
    } else if hops.is_some() {
        context.output.line(&format!("{} of {} is served by {said}", which.pattern, whose(which)));
    } else {
        context.output.line(&format!("the route of {} for {} is removed", whose(which), which.pattern));
    }
    Ok(ExitCode::SUCCESS)
}

/// A route as it is read.
fn told(hops: &[Hop]) -> String {
    let one = |hop: &Hop| match &hop.model {
        Some(model) => format!("{}/{model}", hop.upstream),
        None => hop.upstream.clone(),
    };
    hops.iter().map(one).collect::<Vec<_>>().join(", then ")
}

/// What is shown of one provider.
async fn provider_line(context: &Context, name: &str) -> (Value, Vec<String>) {
    let found = keys::find(context, name, Asker::Onlooker).await;
    let (origin, key, problem) = match &found {
        Ok(found) => {
            let problem = match &found.proof {
                keys::Proof::Login(login) => {
                    let reader = std::sync::Arc::clone(login);
                    let read = tokio::task::spawn_blocking(move || reader.read().err()).await;
                    read.ok().flatten().map(|error| error.to_string())
                }
                keys::Proof::Key(_) | keys::Proof::Nothing => None,
            };
            (found.origin.as_str(), found.origin.describe(), problem)
        }
        Err(error) => ("unusable", "unusable".to_owned(), Some(format!("{error:#}"))),
    };
    let made = match &found {
        Ok(found) => make(context, name, found, false, Asker::Onlooker),
        Err(_) => {
            let nothing = keys::Found { origin: KeyOrigin::Nowhere, proof: keys::Proof::Nothing };
            make(context, name, &nothing, false, Asker::Onlooker)
        }
    };
    let (wire, base, problem) = match made {
        Ok(upstream) => (upstream.wire().as_str().to_owned(), upstream.base(), problem),
        Err(error) => {
            let wire = place(&context.env, &context.config, name).map(|place| place.wire.as_str().to_owned());
            (wire.unwrap_or_default(), "-".to_owned(), Some(format!("{error:#} [{}]", classify(&error).0)))
        }
    };
    let value = json!({
        "provider": name, "wire": wire, "upstream": base,
        "key": { "origin": origin, "from": key }, "problem": problem,
    });
    let key = problem.unwrap_or(key);
    (value, vec![name.to_owned(), wire, base, key])
}

/// The models of each provider that are worth a line: what engines ask, what rules and routes name, what is priced.
fn offered(
    rules: &ModelRules,
    names: &[String],
    prices: &PriceTable,
    wanted: Option<&OfferPattern>,
    all: bool,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> =
        names.iter().map(|name| (name.clone(), BTreeSet::new())).collect();
    let mut add = |provider: &str, model: String| {
        let fits = wanted.is_none_or(|pattern| {
            model.parse::<ModelPattern>().is_ok_and(|model| pattern.covers(provider, &model))
        });
        if let Some(models) = found.get_mut(provider).filter(|_| fits) {
            models.insert(model);
        }
    };
    for engine in REGISTRY.iter().filter_map(|engine| engine.models()) {
        for model in std::iter::once(engine.default).chain(engine.besides.iter().copied()) {
            add(engine.provider, model.to_owned());
        }
    }
    let ruled = rules.allowed.0.iter().flat_map(|layer| layer.rules.iter().map(|(pattern, _)| pattern));
    for pattern in ruled.chain(rules.routes.iter().map(|route| &route.pattern)) {
        if let Some(provider) = pattern.provider() {
            add(provider, pattern.models().to_string());
        }
    }
    if all || wanted.is_some() {
        for (provider, model, _) in prices.models().filter(|(_, model, _)| *model != "*") {
            add(provider, model.to_owned());
        }
    }
    // Whoever serves a route of any provider is asked by the names that are routed there.
    found
}

fn route_of<'r>(rules: &'r ModelRules, provider: &str, model: &ModelPattern) -> Option<&'r OwnedRoute> {
    rules.routes.iter().find(|route| route.pattern.covers(provider, model))
}

async fn list(
    context: &Context,
    wanted: Option<&OfferPattern>,
    project: Option<&str>,
    all: bool,
) -> anyhow::Result<ExitCode> {
    let rules = rules::read(context, project).await?;
    let prices = super::prices::in_force(context).await?;
    let names: Vec<String> = providers(&context.config)
        .into_iter()
        .filter(|name| wanted.and_then(OfferPattern::provider).is_none_or(|provider| provider == name))
        .collect();
    let (mut objects, mut lines) = (Vec::new(), Vec::new());
    for name in &names {
        let (object, line) = provider_line(context, name).await;
        objects.push(object);
        lines.push(line);
    }
    let mut rows = Vec::new();
    for (provider, models) in offered(&rules, &names, &prices, wanted, all) {
        for model in models {
            let Ok(pattern) = model.parse::<ModelPattern>() else { continue };
            let grant = ModelGrant { provider: provider.clone(), model: pattern.clone() };
            let denied = rules.allowed.permits(&provider, &grant.model).err();
            let route = route_of(&rules, &provider, &pattern);
            let quote = prices.quote(&provider, &model);
            let priced = quote.known && !model.ends_with('*');
            let rates = priced.then_some(quote.price.rates);
            if context.output.json {
                objects.push(json!({
                    "provider": provider, "model": model,
                    "allowed": denied.is_none(), "why": denied.map(|denied| denied.to_string()),
                    "route": route.map(|route| json!({ "owner": route.owner, "pattern": route.pattern, "to": told(&route.hops) })),
                    "price": rates.map(|rates| json!({ "input": rates.input, "output": rates.output, "unit": "pico-dollars a token" })),
                }));
                continue;
            }
            let price = rates.map_or_else(
                || "-".to_owned(),
                |rates| {
                    format!(
                        "{} in, {} out",
                        super::prices::per_million(rates.input),
                        super::prices::per_million(rates.output)
                    )
                },
            );
            let served = route.map_or_else(|| provider.clone(), |route| told(&route.hops));
            rows.push(vec![
                format!("{provider}/{model}"),
                denied.map_or_else(|| "allowed".to_owned(), |denied| format!("no: {denied}")),
                served,
                price,
            ]);
        }
    }
    if context.output.json {
        for object in &objects {
            context.output.object(object);
        }
        return Ok(ExitCode::SUCCESS);
    }
    context.output.table(&["PROVIDER", "SPEAKS", "UPSTREAM", "KEY"], &lines);
    if !rows.is_empty() {
        context.output.line("");
        context.output.table(&["MODEL", "MAY BE ASKED", "SERVED BY", "USD A MILLION TOKENS"], &rows);
    }
    Ok(ExitCode::SUCCESS)
}

async fn test(context: &Context, name: &str) -> anyhow::Result<ExitCode> {
    if !is_provider(&context.config, name) {
        return Err(unknown_provider(&context.config, name));
    }
    let found = keys::find(context, name, Asker::Onlooker).await?;
    let upstream = make(context, name, &found, true, Asker::Onlooker)?;
    let listed = context.gateway_client()?.models(&upstream, &Bounds::default()).await;
    let models = listed.map_err(|error| Problem::failed(error.code(), error.to_string()))?;
    let from = found.origin.describe();
    if context.output.json {
        context.output.object(&json!({
            "provider": name, "upstream": upstream.base(), "key": { "origin": found.origin.as_str(), "from": from },
            "models": models,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    for model in &models {
        context.output.line(model);
    }
    context.output.note(&format!(
        "{name} at {} answers, with the key from {from}: {} models",
        upstream.base(),
        models.len()
    ));
    Ok(ExitCode::SUCCESS)
}

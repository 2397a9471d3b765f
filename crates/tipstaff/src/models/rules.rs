//! What binds a run's models: who may be asked, and who serves.

use super::{is_provider, place};
use crate::config::{CONFIG_FILE, check_hops};
use crate::context::Context;
use crate::exit::Problem;
use serde::{Deserialize, Serialize};
use tipstaff_broker::{Hop, Route, Wire};
use tipstaff_model::warrant::{ModelGrant, ModelPattern};
use tipstaff_model::{AllowedModels, ModelLayer, OfferPattern};
use tipstaff_store::ModelRouteRow;

/// One upstream of a stored route.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredHop {
    pub(crate) upstream: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
}

/// Whose route it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RouteOwner {
    /// The operator's, in `config.toml`.
    Operator,
    /// The org's.
    Org,
    /// A project's.
    Project,
}

/// A route with whoever set it.
#[derive(Debug, Clone)]
pub(crate) struct OwnedRoute {
    pub(crate) owner: RouteOwner,
    pub(crate) pattern: OfferPattern,
    pub(crate) hops: Vec<Hop>,
}

/// All that was set about models, for somebody in a project or in none.
#[derive(Debug, Clone)]
pub(crate) struct ModelRules {
    pub(crate) allowed: AllowedModels,
    /// The first that fits counts.
    pub(crate) routes: Vec<OwnedRoute>,
}

/// Reads what binds `project`, or a repository of no project.
pub(crate) async fn read(context: &Context, project: Option<&str>) -> anyhow::Result<ModelRules> {
    let mut read = context.store.read(context.scope()).await?;
    let rules = read.model_rule_list().await?;
    let rows = read.model_route_list().await?;
    drop(read);
    let of = |wanted: Option<&str>| {
        let found = rules.iter().filter(|rule| rule.project.as_deref() == wanted);
        found.map(|rule| (rule.pattern.clone(), rule.effect)).collect()
    };
    let mut layers =
        vec![context.config.models.layer(), ModelLayer { owner: "your org".to_owned(), rules: of(None) }];
    if let Some(project) = project {
        layers.push(ModelLayer { owner: format!("the project {project}"), rules: of(Some(project)) });
    }
    let operator = context.config.routes.iter().map(|(pattern, route)| OwnedRoute {
        owner: RouteOwner::Operator,
        pattern: pattern.clone(),
        hops: route.hops(),
    });
    let mut routes: Vec<OwnedRoute> = operator.collect();
    for row in rows.into_iter().filter(|row| row.project.is_none() || row.project.as_deref() == project) {
        routes.push(stored(row)?);
    }
    // The nearest to the project first, then the one that looks closest.
    routes.sort_by_key(|route| std::cmp::Reverse((route.owner, route.pattern.closeness())));
    Ok(ModelRules { allowed: AllowedModels(layers), routes })
}

fn stored(row: ModelRouteRow) -> anyhow::Result<OwnedRoute> {
    let damaged = || {
        let text = format!(
            "the stored route of {} is damaged; set it again with `tipstaff models route`",
            row.pattern
        );
        Problem::failed("route-damaged", text)
    };
    let hops: Vec<StoredHop> = serde_json::from_str(&row.hops).map_err(|_| damaged())?;
    let hops: Vec<Hop> =
        hops.into_iter().map(|hop| Hop { upstream: hop.upstream, model: hop.model }).collect();
    check_hops(&hops).map_err(|_| damaged())?;
    let owner = if row.project.is_some() { RouteOwner::Project } else { RouteOwner::Org };
    Ok(OwnedRoute { owner, pattern: row.pattern, hops })
}

impl ModelRules {
    /// Whether all that a grant names may be asked.
    pub(crate) fn permits(&self, grant: &ModelGrant) -> anyhow::Result<()> {
        self.allowed.permits(&grant.provider, &grant.model).map_err(|denied| {
            let text = format!(
                "{}/{} may not be asked here: {denied}; `tipstaff models list` shows what may",
                grant.provider, grant.model
            );
            Problem::usage("model-not-allowed", text)
        })
    }

    /// The routes of a provider's models, those that can matter for `grants`.
    pub(crate) fn routes_of(
        &self,
        context: &Context,
        provider: &str,
        wire: Wire,
        grants: &[ModelGrant],
    ) -> anyhow::Result<Vec<Route>> {
        let mut found = Vec::new();
        for route in &self.routes {
            if !grants.iter().any(|grant| route.pattern.touches(provider, &grant.model)) {
                continue;
            }
            if self.fits(context, route, wire)? {
                found.push(Route {
                    provider: provider.to_owned(),
                    models: route.pattern.models().clone(),
                    hops: route.hops.clone(),
                });
            }
        }
        Ok(found)
    }

    /// Whether the upstreams of a route can serve a provider that speaks `wire`; a route of any provider is no matter of
    /// those that speak something else.
    fn fits(&self, context: &Context, route: &OwnedRoute, wire: Wire) -> anyhow::Result<bool> {
        for hop in &route.hops {
            let set_by = match route.owner {
                RouteOwner::Operator => CONFIG_FILE,
                RouteOwner::Org | RouteOwner::Project => "tipstaff models route",
            };
            if !is_provider(&context.config, &hop.upstream) {
                let text = format!(
                    "the route of {} ({set_by}) leads to '{}', and there is no upstream of this name in {CONFIG_FILE}",
                    route.pattern,
                    hop.upstream.escape_debug()
                );
                return Err(Problem::usage("route-upstream", text));
            }
            let there = place(&context.env, &context.config, &hop.upstream)?.wire;
            if there != wire {
                if route.pattern.provider().is_none() {
                    return Ok(false);
                }
                let text = format!(
                    "the route of {} ({set_by}) leads to {}, which speaks {} and not {}",
                    route.pattern,
                    hop.upstream,
                    there.as_str(),
                    wire.as_str()
                );
                return Err(Problem::usage("route-wire", text));
            }
            // The operator's own routes are the operator's word; others stay below the operator's ceiling.
            let ceiling = AllowedModels(self.allowed.0.iter().take(1).cloned().collect());
            let there: ModelPattern = match &hop.model {
                Some(model) => {
                    model.parse().map_err(|_| Problem::usage("route-upstream", "the route is damaged"))?
                }
                None => route.pattern.models().clone(),
            };
            if route.owner != RouteOwner::Operator
                && let Err(denied) = ceiling.permits(&hop.upstream, &there)
            {
                let text = format!(
                    "the route of {} ({set_by}) leads to {}/{there}: {denied}",
                    route.pattern, hop.upstream
                );
                return Err(Problem::usage("model-not-allowed", text));
            }
        }
        Ok(true)
    }
}

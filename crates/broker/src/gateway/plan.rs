//! What is asked, of whom, and whether the warrant has anything to say for it.

use super::errors::OwnAnswer;
use super::serve::refuse;
use super::{GatewayConfig, Upstream, Wire};
use crate::parse::meter::Api;
use crate::parse::model_path::{self, Endpoint, ModelRoute};
use crate::server::Shared;
use crate::server::exchange::Exchange;
use tipstaff_model::{Refusal, Rule, RunId};

/// What is asked, of whom.
pub(super) struct Asked<'s> {
    pub(super) config: &'s GatewayConfig,
    /// The upstream of the provider's own name.
    pub(super) upstream: &'s Upstream,
    pub(super) route: ModelRoute,
    pub(super) run: RunId,
}

impl<'s> Asked<'s> {
    /// Who is asked for a list of models: the provider itself, unless only a route has a key.
    pub(super) fn lister(&self) -> &'s Upstream {
        if self.upstream.has_key() || self.upstream.login_program().is_some() {
            return self.upstream;
        }
        let routes = self.config.routes.iter().filter(|route| route.provider == self.provider());
        let hops = routes.flat_map(|route| &route.hops);
        let mut serving = hops.filter_map(|hop| {
            let all = &self.config.upstreams;
            all.iter().find(|upstream| upstream.provider() == hop.upstream && upstream.wire() == self.wire())
        });
        serving.next().unwrap_or(self.upstream)
    }

    pub(super) const fn wire(&self) -> Wire {
        self.upstream.wire()
    }

    /// The provider, as the warrant names it.
    pub(super) fn provider(&self) -> &str {
        self.upstream.provider()
    }

    pub(super) const fn api(&self) -> Option<Api> {
        match self.route.endpoint {
            Endpoint::Call { api, .. } | Endpoint::Count { api, .. } => Some(api),
            Endpoint::Models => None,
        }
    }

    /// The path at an upstream, where the model may have another name.
    pub(super) fn path(&self, upstream: &Upstream, rename: Option<&str>) -> String {
        let named = match &self.route.endpoint {
            Endpoint::Call { model, .. } | Endpoint::Count { model, .. } => model.as_deref(),
            Endpoint::Models => None,
        };
        let mut target = match (named, rename) {
            (Some(asked), Some(there)) => {
                let path = self.route.path.replacen(&format!("/{asked}:"), &format!("/{there}:"), 1);
                upstream.path_for(&path)
            }
            _ => upstream.path_for(&self.route.path),
        };
        if !self.route.query.is_empty() {
            target.push('?');
            target.push_str(&self.route.query);
        }
        target
    }
}

/// The shape of an error for a path whose provider is not configured: the one that its last part points to.
fn likely_wire(target: &str) -> Wire {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if path.contains("/v1/messages") {
        Wire::Anthropic
    } else if path.contains("/models/") && path.contains(':') {
        Wire::Gemini
    } else {
        Wire::OpenAi
    }
}

/// Finds out what is asked of whom, and whether the warrant has anything to say for it.
pub(super) fn plan<'s>(
    shared: &'s Shared,
    target: &str,
    exchange: &Exchange,
) -> Result<Asked<'s>, OwnAnswer> {
    let head = exchange.head();
    let wire = likely_wire(target);
    let not_served = |wire, why: &str| {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        Err(refuse(
            shared,
            wire,
            Refusal::new(Rule::RequestNotServed, format!("{} {path}", head.method), why),
        ))
    };
    let Some((provider, rest)) = model_path::split(target) else {
        return not_served(wire, "the path has another spelling that means something else");
    };
    let warrant = shared.warrant.in_force().map_err(|refusal| refuse(shared, wire, refusal))?;
    if !warrant.models.iter().any(|grant| grant.provider == provider) {
        let why = format!("the warrant does not name the provider {provider}");
        return Err(refuse(shared, wire, Refusal::new(Rule::ModelNotGranted, provider, why)));
    }
    let Some(config) = &shared.config.gateway else {
        return not_served(wire, "models are not served in this run");
    };
    let Some(upstream) = config.upstreams.iter().find(|upstream| upstream.provider() == provider) else {
        return not_served(wire, "no upstream is configured for this provider");
    };
    let wire = upstream.wire();
    let Some(route) = model_path::parse(wire, rest) else {
        return not_served(wire, "this endpoint of the provider is not served");
    };
    if route.method != head.method {
        return not_served(wire, "the endpoint takes another method");
    }
    Ok(Asked { config, upstream, route, run: warrant.run })
}

//! Which upstreams serve a model.

use super::{GatewayConfig, Upstream};
use tipstaff_model::warrant::ModelPattern;

/// The way that requests for some models of a provider take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The provider that is asked: the name in the URL and in the warrant.
    pub provider: String,
    /// Which of its models.
    pub models: ModelPattern,
    /// Who serves them: the first, and those that stand in for it, in order.
    pub hops: Vec<Hop>,
}

/// One upstream of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The name of the upstream.
    pub upstream: String,
    /// The model's name there, where it is another.
    pub model: Option<String>,
}

/// An upstream that serves a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'s> {
    pub(crate) upstream: &'s Upstream,
    pub(crate) rename: Option<&'s str>,
}

/// Who serves `model` of `provider`: by the first route that fits, else the upstream of the provider's own name. Hops
/// whose upstream is not there, or speaks something else, are passed over.
pub(crate) fn ways<'s>(config: &'s GatewayConfig, own: &'s Upstream, model: &str) -> Vec<Way<'s>> {
    let provider = own.provider();
    let route = config.routes.iter().find(|route| route.provider == provider && route.models.matches(model));
    let found: Vec<Way<'s>> = route
        .into_iter()
        .flat_map(|route| &route.hops)
        .filter_map(|hop| {
            let upstream = config.upstreams.iter().find(|upstream| upstream.provider() == hop.upstream)?;
            let fits = upstream.wire() == own.wire();
            fits.then_some(Way { upstream, rename: hop.model.as_deref() })
        })
        .collect();
    if route.is_some() { found } else { vec![Way { upstream: own, rename: None }] }
}

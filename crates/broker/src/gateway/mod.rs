//! The model gateway: the way to a model's provider, with the key, the warrant and the money on our side.
//!
//! Promises: the sandbox never sees a key, in no request, answer or error; only what the warrant names is asked; money
//! is reserved before a call and settled once after it, whatever happens to the call; what is passed on is passed on as
//! it comes; what may have been worked on is not asked twice.

mod answer;
mod ask;
mod call;
pub(crate) mod client;
mod deliver;
mod errors;
mod headers;
pub(crate) mod keys;
mod lane;
mod list;
mod login;
mod pay;
mod plan;
mod price;
mod retry;
mod route;
mod serve;
#[cfg(test)]
mod simulated;
mod upstream;

pub(crate) use call::Ledger;
pub(crate) use serve::serve;

pub use client::GatewayClient;
pub use list::ListError;
pub use login::{Login, LoginError, LoginToken};
pub use price::Pricer;
pub use route::{Hop, Route};
pub use upstream::{Upstream, UpstreamError, Wire};

use std::sync::Arc;
use tipstaff_model::{BudgetScope, Clock, Entropy, MicroUsd};

/// What a broker is given to serve model requests.
#[derive(Clone)]
pub struct GatewayConfig {
    /// Where requests go, one per provider; of two with the same name the first counts.
    pub upstreams: Vec<Upstream>,
    /// Which of them serve which models; of several that fit the first counts. A model without one is served by the
    /// upstream of its provider's name.
    pub routes: Vec<Route>,
    /// What tokens cost.
    pub prices: Arc<dyn Pricer>,
    /// The client that all brokers of the process share.
    pub client: GatewayClient,
    /// Measures how long calls take.
    pub clock: Arc<dyn Clock>,
    /// Makes the ids of calls.
    pub entropy: Arc<dyn Entropy>,
}

impl std::fmt::Debug for GatewayConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayConfig").field("upstreams", &self.upstreams).finish_non_exhaustive()
    }
}

/// A budget that ended while the run was asking models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetEnd {
    /// Whose.
    pub scope: BudgetScope,
    /// How much it was.
    pub limit: MicroUsd,
    /// How much of it is spent.
    pub spent: MicroUsd,
}

//! Who is let through to a host: asked at the beginning, and again whenever the warrant changes.

use crate::parse::head::Authority;
use crate::parse::url_path::UrlPath;
use crate::server::Shared;
use std::sync::Arc;
use tipstaff_model::warrant::RequestVerdict;
use tipstaff_model::{Refusal, Rule, Warrant};
use tokio::sync::{OwnedSemaphorePermit, watch};

/// What is wanted of a host.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The host and the port.
    pub(crate) place: Authority,
    /// The request, where a rule can speak of it: method and path.
    pub(crate) request: Option<(String, UrlPath)>,
    /// Whether we read the requests, or carry bytes.
    pub(crate) seen: bool,
}

impl Wanted {
    /// A tunnel: what goes through it can't be seen.
    pub(crate) const fn tunnel(place: Authority) -> Self {
        Self { place, request: None, seen: false }
    }

    /// Asks the warrant.
    fn permitted(&self, warrant: &Warrant) -> Result<(), Refusal> {
        let Authority { host, port } = &self.place;
        warrant.permits_egress(host, *port)?;
        match &self.request {
            // Whose requests are bound by rules must be seen.
            None if !self.seen && warrant.must_inspect(host, *port) => Err(Refusal::new(
                Rule::RequestNotGranted,
                self.place.to_string(),
                format!("requests to {host} are bound by rules, so they can't go through a tunnel unseen"),
            )),
            None => Ok(()),
            Some((method, path)) => path.readings().try_for_each(|path| {
                match warrant.permits_request(host, *port, method, path)? {
                    RequestVerdict::Permitted => Ok(()),
                    RequestVerdict::ByTool => Err(Refusal::new(
                        Rule::ToolNotGranted,
                        format!("{method} {}{path}", self.place),
                        "requests that are granted by tool are read over TLS only",
                    )),
                }
            }),
        }
    }
}

/// A place in the run's share of connections to hosts, and the grant that it is held under.
#[derive(Debug)]
pub(crate) struct Admission {
    shared: Arc<Shared>,
    wanted: Wanted,
    generation: watch::Receiver<u64>,
    _place: OwnedSemaphorePermit,
}

impl Admission {
    /// Asks the warrant as it is now, and counts the request.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn ask(shared: &Arc<Shared>, wanted: Wanted) -> Result<Self, Refusal> {
        // Before the question, so that a change right after it is noticed.
        let generation = shared.generation.subscribe();
        let warrant = shared.warrant.in_force()?;
        wanted.permitted(&warrant)?;
        let most = shared.config.bounds.tunnels;
        let _place = Arc::clone(&shared.tunnels).try_acquire_owned().map_err(|_| {
            let why = format!("{most} connections to hosts are open already");
            Refusal::new(Rule::LimitReached, wanted.place.to_string(), why)
        })?;
        shared.egress.begin(&wanted.place.to_string())?;
        Ok(Self { shared: Arc::clone(shared), wanted, generation, _place })
    }

    /// Waits until the warrant has changed so that this would not be let through any more, and says why.
    pub(crate) async fn withdrawn(&self) -> Refusal {
        let mut generation = self.generation.clone();
        loop {
            if generation.changed().await.is_err() {
                // The broker is gone, and ends every connection by itself.
                std::future::pending::<()>().await;
            }
            let asked = self.shared.warrant.in_force().and_then(|warrant| self.wanted.permitted(&warrant));
            if let Err(refusal) = asked {
                return refusal;
            }
        }
    }
}

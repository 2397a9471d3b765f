//! From a granted name to a connected socket.

use super::address::is_forbidden;
use crate::parse::head::Authority;
use crate::server::Shared;
use std::net::SocketAddr;
use tipstaff_model::{Refusal, Rule};
use tokio::net::TcpStream;
use tokio::sync::SemaphorePermit;

/// Why nobody was reached.
#[derive(Debug)]
pub(crate) enum NoDial {
    /// A rule said no.
    Refused(Refusal),
    /// The name or the host does not answer.
    Unreachable(String),
}

/// A connection to a host, counted against the run's bound for as long as it lives.
#[derive(Debug)]
pub(crate) struct Dialled<'a> {
    pub(crate) stream: TcpStream,
    _permit: SemaphorePermit<'a>,
}

/// Asks the warrant, resolves, checks and connects.
pub(crate) async fn dial<'a>(shared: &'a Shared, wanted: &Authority) -> Result<Dialled<'a>, NoDial> {
    let bounds = shared.config.bounds;
    let warrant = shared.warrant.in_force().map_err(NoDial::Refused)?;
    warrant.permits_egress(&wanted.host, wanted.port).map_err(NoDial::Refused)?;
    let permit = shared.tunnels.try_acquire().map_err(|_| {
        NoDial::Refused(Refusal::new(
            Rule::LimitReached,
            wanted.to_string(),
            format!("{} connections to hosts are open already", bounds.tunnels),
        ))
    })?;
    let work = async {
        let resolving = shared.config.resolver.resolve(&wanted.host);
        let found =
            resolving.await.map_err(|_| NoDial::Unreachable(format!("{} has no address", wanted.host)))?;
        let allowed: Vec<SocketAddr> = found
            .into_iter()
            .map(|address| SocketAddr::new(address.to_canonical(), wanted.port))
            .filter(|address| {
                !is_forbidden(address.ip()) || shared.config.allow_private_addresses.contains(address)
            })
            .take(bounds.dial_addresses)
            .collect();
        if allowed.is_empty() {
            return Err(NoDial::Refused(Refusal::new(
                Rule::AddressForbidden,
                wanted.to_string(),
                format!("{} leads to no public address", wanted.host),
            )));
        }
        for address in allowed {
            if let Ok(stream) = TcpStream::connect(address).await {
                let _ = stream.set_nodelay(true);
                return Ok(Dialled { stream, _permit: permit });
            }
        }
        Err(NoDial::Unreachable(format!("{wanted} does not answer")))
    };
    tokio::time::timeout(bounds.dial_time, work)
        .await
        .unwrap_or_else(|_| Err(NoDial::Unreachable(format!("{wanted} does not answer in time"))))
}

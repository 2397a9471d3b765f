//! From a granted name to a connected socket.

use super::address::is_forbidden;
use crate::parse::head::Authority;
use crate::server::Shared;
use std::net::{IpAddr, SocketAddr};
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
        let allowed = addresses(shared, wanted).await?;
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

/// The addresses that may be dialled for a host: the operator's own, or the public ones of what the resolver says.
async fn addresses(shared: &Shared, wanted: &Authority) -> Result<Vec<SocketAddr>, NoDial> {
    let (config, most) = (&shared.config, shared.config.bounds.dial_addresses);
    let at = |address: &IpAddr| SocketAddr::new(address.to_canonical(), wanted.port);
    if let Some(known) = config.host_addresses.get(&wanted.host) {
        return Ok(known.iter().map(at).take(most).collect());
    }
    let found = config.resolver.resolve(&wanted.host).await;
    let found = found.map_err(|_| NoDial::Unreachable(format!("{} has no address", wanted.host)))?;
    let may = |address: &SocketAddr| {
        !is_forbidden(address.ip()) || config.allow_private_addresses.contains(address)
    };
    Ok(found.iter().map(at).filter(may).take(most).collect())
}

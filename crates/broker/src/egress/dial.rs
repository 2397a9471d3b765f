//! From a granted name to a connected socket.

use super::address::is_forbidden;
use super::tally::Metered;
use crate::parse::head::Authority;
use crate::server::{Link, Shared};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tipstaff_model::{Refusal, Rule};
use tokio::net::TcpStream;

/// Why nobody was reached.
#[derive(Debug)]
pub(crate) enum NoDial {
    /// A rule said no.
    Refused(Refusal),
    /// The name or the host does not answer.
    Unreachable(String),
}

/// Resolves, checks and connects. The warrant was asked before.
pub(crate) async fn dial(shared: &Shared, wanted: &Authority) -> Result<Metered, NoDial> {
    let bounds = shared.config.bounds;
    let work = async {
        for address in addresses(shared, wanted).await?.into_iter().take(bounds.dial_addresses) {
            if let Ok(stream) = TcpStream::connect(address).await {
                return Ok(Metered::new(Link::from(stream), Arc::clone(&shared.egress)));
            }
        }
        Err(NoDial::Unreachable(format!("{wanted} does not answer")))
    };
    tokio::time::timeout(bounds.dial_time, work)
        .await
        .unwrap_or_else(|_| Err(NoDial::Unreachable(format!("{wanted} does not answer in time"))))
}

/// The addresses that may be dialled for a name. The resolver is asked once, and only what it said then is dialled.
async fn addresses(shared: &Shared, wanted: &Authority) -> Result<Vec<SocketAddr>, NoDial> {
    let Authority { host, port } = wanted;
    // The operator's own word stands above any resolver's.
    if let Some(known) = shared.config.host_addresses.get(host) {
        return Ok(known.iter().map(|address| SocketAddr::new(address.to_canonical(), *port)).collect());
    }
    let resolving = shared.config.resolver.resolve(host);
    let found = resolving.await.map_err(|_| NoDial::Unreachable(format!("{host} has no address")))?;
    judged(wanted, &found, &shared.config.allow_private_addresses).map_err(NoDial::Refused)
}

/// All of `found`, when all of them may be dialled. A name that leads to a public and to a private address at once is
/// not to be trusted with either.
fn judged(wanted: &Authority, found: &[IpAddr], allowed: &[SocketAddr]) -> Result<Vec<SocketAddr>, Refusal> {
    let Authority { host, port } = wanted;
    let refused = |why: String| Err(Refusal::new(Rule::AddressForbidden, wanted.to_string(), why));
    let all: Vec<SocketAddr> =
        found.iter().map(|address| SocketAddr::new(address.to_canonical(), *port)).collect();
    if all.is_empty() {
        return refused(format!("{host} leads to no address"));
    }
    let forbidden = |address: &&SocketAddr| is_forbidden(address.ip()) && !allowed.contains(address);
    match all.iter().filter(forbidden).count() {
        0 => Ok(all),
        count if count == all.len() => refused(format!("{host} leads to no public address")),
        _ => refused(format!("{host} leads to public and to private addresses")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(found: &[&str], allowed: &[&str]) -> Result<usize, String> {
        let wanted = Authority { host: "a.test".to_owned(), port: 443 };
        let found: Vec<IpAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
        let allowed: Vec<SocketAddr> = allowed.iter().map(|text| text.parse().unwrap()).collect();
        judged(&wanted, &found, &allowed).map(|all| all.len()).map_err(|refusal| refusal.why)
    }

    #[test]
    fn one_forbidden_address_spoils_all() {
        assert_eq!(of(&["8.8.8.8", "2606:4700::1111"], &[]), Ok(2));
        assert_eq!(
            of(&["::ffff:8.8.8.8"], &[]),
            Ok(1),
            "a mapped address is the IPv4 address that it carries"
        );
        for private in
            ["127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1", "64:ff9b::a00:1", "0.0.0.0"]
        {
            assert!(of(&[private], &[]).unwrap_err().contains("no public"), "{private}");
            assert!(
                of(&["8.8.8.8", private], &[]).unwrap_err().contains("public and to private"),
                "{private}"
            );
            assert!(
                of(&[private, "8.8.8.8"], &[]).unwrap_err().contains("public and to private"),
                "{private}"
            );
        }
        assert!(of(&[], &[]).unwrap_err().contains("no address"));
        assert_eq!(of(&["127.0.0.1", "8.8.8.8"], &["127.0.0.1:443"]), Ok(2));
        assert!(of(&["127.0.0.1"], &["127.0.0.1:444"]).is_err(), "another port is another address");
    }
}

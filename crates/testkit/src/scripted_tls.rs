//! A scripted server over TLS: it has a certificate of its own authority, answers as it is told, and remembers.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long it waits for a peer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request that it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenRequest {
    /// The server that the client hello named.
    pub server_name: String,
    /// The method.
    pub method: String,
    /// The path and query, as sent.
    pub target: String,
    /// The fields in order, names in lower case.
    pub fields: Vec<(String, String)>,
    /// The body, without its chunks.
    pub body: Vec<u8>,
}

impl SeenRequest {
    /// The first field of this name; empty when there is none.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// What it answers with: the bytes as they are sent, head included. The connection is kept.
pub type TlsAnswer = dyn Fn(&SeenRequest) -> Vec<u8> + Send + Sync;

/// The server. It ends when it is dropped.
pub struct ScriptedTls {
    address: SocketAddr,
    roots_pem: String,
    seen: Arc<Mutex<Vec<SeenRequest>>>,
    stopped: Arc<AtomicBool>,
}

impl std::fmt::Debug for ScriptedTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptedTls").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ScriptedTls {
    /// Starts one on loopback whose certificate is for `names`.
    ///
    /// # Errors
    /// When no certificate can be made or no port be had.
    pub fn start(names: &[&str], answer: Arc<TlsAnswer>) -> io::Result<Self> {
        let (config, roots_pem) = certified(names).map_err(io::Error::other)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let server = Self {
            address: listener.local_addr()?,
            roots_pem,
            seen: Arc::default(),
            stopped: Arc::default(),
        };
        let (seen, stopped) = (Arc::clone(&server.seen), Arc::clone(&server.stopped));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (config, answer, seen) = (Arc::clone(&config), Arc::clone(&answer), Arc::clone(&seen));
                std::thread::spawn(move || {
                    // A peer that breaks off ends its own connection only.
                    let _ended = converse(stream, config, &*answer, &seen);
                });
            }
        });
        Ok(server)
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// The authority that vouches for it, as PEM.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// What it was sent so far, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<SeenRequest> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ScriptedTls {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener up.
        let _woken = TcpStream::connect(self.address);
    }
}

fn certified(
    names: &[&str],
) -> Result<(Arc<ServerConfig>, String), Box<dyn std::error::Error + Send + Sync>> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut leaf = CertificateParams::new(names)?;
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let leaf = leaf.signed_by(&key, &authority)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), authority.pem()))
}

fn converse(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    answer: &TlsAnswer,
    seen: &Mutex<Vec<SeenRequest>>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut ahead = Vec::new();
    loop {
        let mut request = read_head(&mut stream, &mut ahead)?;
        stream.conn.server_name().unwrap_or_default().clone_into(&mut request.server_name);
        read_body(&mut stream, &mut ahead, &mut request)?;
        // On record before the client can know of it.
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        stream.write_all(&answer(&request))?;
        stream.flush()?;
    }
}

fn more(stream: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0_u8; 16 * 1024];
    let count = stream.read(&mut buffer)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    ahead.extend_from_slice(buffer.get(..count).unwrap_or_default());
    Ok(())
}

/// Takes everything up to the first `end`, which is dropped.
fn until(stream: &mut impl Read, ahead: &mut Vec<u8>, end: &[u8]) -> io::Result<Vec<u8>> {
    loop {
        if let Some(at) = ahead.windows(end.len()).position(|window| window == end) {
            let rest = ahead.split_off(at + end.len());
            let mut taken = std::mem::replace(ahead, rest);
            taken.truncate(at);
            return Ok(taken);
        }
        more(stream, ahead)?;
    }
}

fn exactly(stream: &mut impl Read, ahead: &mut Vec<u8>, count: usize) -> io::Result<Vec<u8>> {
    while ahead.len() < count {
        more(stream, ahead)?;
    }
    let rest = ahead.split_off(count);
    Ok(std::mem::replace(ahead, rest))
}

fn read_head(stream: &mut impl Read, ahead: &mut Vec<u8>) -> io::Result<SeenRequest> {
    let head = until(stream, ahead, b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&head);
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let fields = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(SeenRequest { method: method.to_owned(), target: target.to_owned(), fields, ..SeenRequest::default() })
}

fn read_body(stream: &mut impl Read, ahead: &mut Vec<u8>, request: &mut SeenRequest) -> io::Result<()> {
    if request.field("transfer-encoding") != "chunked" {
        let length = request.field("content-length").parse().unwrap_or(0);
        request.body = exactly(stream, ahead, length)?;
        return Ok(());
    }
    loop {
        let size = until(stream, ahead, b"\r\n")?;
        let size = usize::from_str_radix(&String::from_utf8_lossy(&size), 16).map_err(io::Error::other)?;
        let chunk = exactly(stream, ahead, size + 2)?;
        request.body.extend_from_slice(chunk.get(..size).unwrap_or_default());
        if size == 0 {
            return Ok(());
        }
    }
}

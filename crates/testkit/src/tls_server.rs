//! A scripted web server that speaks TLS under an authority of its own, and remembers what it was asked.
//!
//! It stands for a host on the internet: tests name it in a configuration as the address of a granted host, and hand the
//! authority's certificate to the client under test.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One request that arrived whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsRequest {
    /// The server name of the TLS client hello.
    pub server_name: Option<String>,
    /// The head of the request and what came with it.
    pub text: String,
}

#[derive(Debug, Default)]
struct Memory {
    connections: u64,
    /// Bytes of TLS that arrived before any judgement of ours.
    bytes: u64,
    requests: Vec<TlsRequest>,
}

/// A running server. It ends with the process of the test.
#[derive(Debug)]
pub struct TlsServer {
    address: SocketAddr,
    ca_pem: String,
    memory: Arc<Mutex<Memory>>,
}

impl TlsServer {
    /// Serves `names` on a loopback port and answers every request with `body`.
    ///
    /// # Errors
    /// When no certificate or no port can be had.
    pub fn start(names: &[&str], body: &str) -> io::Result<Self> {
        let (ca_pem, config) = identity(names).map_err(io::Error::other)?;
        let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0))?;
        let address = listener.local_addr()?;
        let memory: Arc<Mutex<Memory>> = Arc::default();
        let (remembers, answer) = (Arc::clone(&memory), Arc::<str>::from(answer_of(body)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (memory, config, answer) =
                    (Arc::clone(&remembers), Arc::clone(&config), Arc::clone(&answer));
                memory.lock().unwrap_or_else(PoisonError::into_inner).connections += 1;
                // A client that breaks off has nothing more to be told.
                std::thread::spawn(move || {
                    let _ = serve(stream, config, &answer, &memory);
                });
            }
        });
        Ok(Self { address, ca_pem, memory })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of its authority.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Connections that were opened, whatever came of them.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).connections
    }

    /// Bytes that arrived on all connections.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<TlsRequest> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).requests.clone()
    }
}

fn answer_of(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// An authority, and a server's configuration under it.
fn identity(
    names: &[&str],
) -> Result<(String, Arc<rustls::ServerConfig>), Box<dyn std::error::Error + Send + Sync>> {
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "authority of a test");
    let authority_key = KeyPair::generate()?;
    let ca_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der())?,
            )?;
    Ok((ca_pem, Arc::new(config)))
}

/// A socket whose bytes are counted.
struct Counted<'a>(TcpStream, &'a Mutex<Memory>);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        let bytes = u64::try_from(count).unwrap_or(0);
        self.1.lock().unwrap_or_else(PoisonError::into_inner).bytes += bytes;
        Ok(count)
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn serve(
    stream: TcpStream,
    config: Arc<rustls::ServerConfig>,
    answer: &str,
    memory: &Mutex<Memory>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let connection = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
    let mut tls = rustls::StreamOwned::new(connection, Counted(stream, memory));
    let mut request = Vec::new();
    let mut buffer = [0_u8; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match tls.read(&mut buffer)? {
            0 => return Ok(()),
            count => request.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    let server_name = tls.conn.server_name().map(ToOwned::to_owned);
    let text = String::from_utf8_lossy(&request).into_owned();
    memory.lock().unwrap_or_else(PoisonError::into_inner).requests.push(TlsRequest { server_name, text });
    tls.write_all(answer.as_bytes())?;
    tls.conn.send_close_notify();
    tls.flush()
}

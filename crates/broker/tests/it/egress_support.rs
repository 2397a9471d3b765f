//! What tests of the way to hosts share: scripted upstreams that remember every byte, first words of TLS clients good
//! and bad, and clients that speak raw bytes.

use crate::support::{Options, TableResolver, World};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tipstaff_broker::Bounds;
use tipstaff_model::warrant::HostRules;

pub(crate) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How long anything may take that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that answers what comes and remembers all of it, connection by connection.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Upstream {
    /// Answers the first bytes of every connection with `answer`, and closes when the peer does.
    pub(crate) fn answering(answer: &'static str) -> Self {
        Self::start(move |stream, first| {
            if first {
                let _ = stream.write_all(answer.as_bytes());
            }
        })
    }

    /// As [`Upstream::answering`], and then closes itself.
    pub(crate) fn closing(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |stream, first| {
            if first {
                let _ = stream.write_all(&answer);
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
        })
    }

    /// Calls `act` after every piece that comes, with whether it is the first.
    pub(crate) fn start(act: impl Fn(&mut TcpStream, bool) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((LOCAL, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let (memory, act) = (Arc::clone(&seen), Arc::new(act));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (memory, act) = (Arc::clone(&memory), Arc::clone(&act));
                let mine = {
                    let mut memory = memory.lock().unwrap();
                    memory.push(Vec::new());
                    memory.len() - 1
                };
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut buffer = vec![0_u8; 65536];
                    let mut first = true;
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        memory.lock().unwrap()[mine].extend_from_slice(&buffer[..count]);
                        act(&mut stream, first);
                        first = false;
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// All bytes of each connection so far.
    pub(crate) fn seen(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().clone()
    }

    /// The same as text, connections without a byte left out.
    pub(crate) fn texts(&self) -> Vec<String> {
        let texts = self.seen().into_iter().filter(|bytes| !bytes.is_empty());
        texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
    }

    /// How a URL names it.
    pub(crate) fn host(&self) -> String {
        format!("allowed.test:{}", self.address.port())
    }
}

/// What a test of the way out changes.
#[derive(Default)]
pub(crate) struct Way {
    pub(crate) bounds: Bounds,
    /// Rules for the upstream's host.
    pub(crate) rules: Vec<HostRules>,
    pub(crate) adjust: Option<fn(&mut tipstaff_model::Warrant)>,
}

/// A world that grants `allowed.test` and what is below it at the upstream's port.
pub(crate) async fn world_to(address: SocketAddr, way: Way) -> World {
    let port = address.port();
    let egress: Vec<&'static str> = ["allowed.test", "*.allowed.test"]
        .iter()
        .map(|host| -> &'static str { Box::leak(format!("{host}:{port}").into_boxed_str()) })
        .collect();
    World::with(Options {
        egress,
        resolver: Arc::new(TableResolver(vec![
            ("allowed.test", vec![LOCAL]),
            ("sub.allowed.test", vec![LOCAL]),
        ])),
        private: vec![address],
        bounds: way.bounds,
        host_rules: way.rules,
        adjust: way.adjust.unwrap_or(|_| {}),
        ..Options::default()
    })
    .await
}

/// A raw connection to a broker.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// A tunnel that was opened.
    pub(crate) fn tunnel(address: SocketAddr, host: &str) -> Self {
        let mut raw = Self::to(address);
        raw.send(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        let answer = raw.line_block();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        raw
    }

    /// The broker may have closed already.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Up to the first empty line.
    pub(crate) fn line_block(&mut self) -> String {
        let mut text = Vec::new();
        let mut byte = [0_u8; 1];
        while !text.ends_with(b"\r\n\r\n") && self.0.read(&mut byte).is_ok_and(|count| count == 1) {
            text.push(byte[0]);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Exactly so many bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0_u8; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything up to the end, which must come by itself.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ended = self.0.read_to_end(&mut bytes).map_err(|error| error.kind());
        assert!(
            !matches!(ended, Err(std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)),
            "it must end by itself, after {:?}",
            String::from_utf8_lossy(&bytes)
        );
        bytes
    }
}

/// Runs blocking steps beside the broker's own threads.
pub(crate) async fn beside<T: Send + 'static>(steps: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(steps).await.unwrap()
}

fn sized(length: usize, bytes: &[u8]) -> Vec<u8> {
    let count = bytes.len().to_be_bytes();
    [&count[count.len() - length..], bytes].concat()
}

/// One extension of a hello.
pub(crate) fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(2, content)].concat()
}

/// The extension that names servers.
pub(crate) fn names(names: &[&str]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|name| [vec![0], sized(2, name.as_bytes())].concat()).collect();
    extension(0, &sized(2, &list))
}

/// The handshake message of a hello with these extensions.
pub(crate) fn hello_message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![3, 3];
    message.extend([7; 32]);
    message.extend(sized(1, &[1; 32]));
    message.extend(sized(2, &[0x13, 1, 0x13, 2]));
    message.extend(sized(1, &[0]));
    message.extend(sized(2, &extensions.concat()));
    [vec![1], sized(3, &message)].concat()
}

/// A handshake record.
pub(crate) fn record(content: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &sized(2, content)].concat()
}

/// A whole hello to `name`.
pub(crate) fn hello_to(name: &str) -> Vec<u8> {
    record(&hello_message(&[names(&[name]), extension(43, &[2, 3, 4])]))
}

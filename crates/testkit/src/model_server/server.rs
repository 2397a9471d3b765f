//! Start and stop: a thread with a runtime of its own, so that tests need none.

use super::handler::{self, Shared};
use super::record::{Ending, RecordedRequest};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// How a server is started. The default asks for no key and takes any free port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelServerConfig {
    /// The one key that is accepted; without one, everybody is.
    pub key: Option<String>,
    /// Whether the key is the token of a person's login: then it comes as a bearer's, and Anthropic's with the word in
    /// `anthropic-beta` that such tokens need.
    pub login: bool,
    /// The port on 127.0.0.1; 0 means any free one.
    pub port: u16,
}

/// A running server. It ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct ModelServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ModelServer {
    /// Starts a server on loopback; when this returns, it accepts connections.
    ///
    /// # Errors
    /// The port is taken, or the system gives no socket or thread.
    pub fn start(config: ModelServerConfig) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, config.port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let shared = Arc::new(Shared::new(config.key, config.login));
        let (stop, stopped) = oneshot::channel();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("model-server".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, for_thread) => {}
                    _ = stopped => {}
                }
            });
            // Dropping the runtime here ends every connection.
        })?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end. The APIs stand where their providers have them: `/v1/messages`,
    /// `/v1/responses`, `/v1/chat/completions`, `/v1beta/models/…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.journal.requests()
    }

    /// The requests that the script answered: no side requests, no counts, nothing that was refused.
    #[must_use]
    pub fn scripted_requests(&self) -> Vec<RecordedRequest> {
        self.requests().into_iter().filter(RecordedRequest::is_scripted).collect()
    }

    /// Waits until the requests satisfy the condition; false when that takes longer than `limit`.
    #[must_use]
    pub fn wait_for(&self, limit: Duration, condition: impl FnMut(&[RecordedRequest]) -> bool) -> bool {
        self.shared.journal.wait_for(limit, condition)
    }

    /// Waits until every answer has ended, by itself or because its client left; false after `limit`.
    #[must_use]
    pub fn wait_until_idle(&self, limit: Duration) -> bool {
        self.wait_for(limit, |requests| requests.iter().all(|request| request.ending != Ending::Underway))
    }

    /// Whether the key was anywhere but in its provider's header, plainly: in a path, another header, a body.
    #[must_use]
    pub fn saw_key_elsewhere(&self) -> bool {
        !self.key_elsewhere().is_empty()
    }

    /// The places where [`saw_key_elsewhere`](Self::saw_key_elsewhere) found it, as words for a failing test.
    #[must_use]
    pub fn key_elsewhere(&self) -> Vec<String> {
        self.shared.key_elsewhere()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may be gone already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        // Out of descriptors: the next connection may do better.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(handler::handle(&shared, request).await) }
            });
            // A client that goes away is no failure of the server.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

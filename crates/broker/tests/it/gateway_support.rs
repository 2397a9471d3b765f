//! An upstream that does what a script says, and a control plane with a ledger in memory.

use crate::support::NOW;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tipstaff_broker::{
    Bounds, Broker, BrokerConfig, BrokerHandle, BrokerReport, GatewayClient, GatewayConfig, PlainHttp,
    Pricer, Route, Upstream, Wire,
};
use tipstaff_model::event::EventDraft;
use tipstaff_model::id::RowId;
use tipstaff_model::price::Rates;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::warrant::{IssueRequest, ModelGrant, RepositoryGrant};
use tipstaff_model::{
    AgentRole, AuditDraft, BoxFuture, BudgetScope, ChargeAnswer, ChargeRequest, ChargeSettlement, Clock,
    ControlPlane, ControlPlaneError, FixedClock, FixedEntropy, Heartbeat, LiveWarrant, MicroUsd, OrgId,
    Price, Quote, Refusal, RunId, TaskId, Warrant, WarrantId,
};
use tipstaff_seal::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The real key, which the sandbox must never see.
pub(crate) const KEY: &str = "sk-real-3c1f0a77e5d94b2a";

/// One dollar per million tokens of input, ten per million of output; everything else like input.
pub(crate) struct Flat;

impl Pricer for Flat {
    fn quote(&self, _: &str, model: &str) -> Quote {
        let input = 1_000_000;
        let rates = Rates {
            input,
            cache_read: input / 10,
            cache_write: input,
            cache_write_1h: input,
            output: 10_000_000,
        };
        let price = Price {
            rates,
            long: None,
            surcharges: Default::default(),
            context: 1_000_000,
            max_output: 1_000,
        };
        Quote { price, known: !model.starts_with("new"), listed: "*".to_owned() }
    }
}

/// A ledger in memory with one budget.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) budget: AtomicU64,
    pub(crate) book: Mutex<Book>,
    pub(crate) down: AtomicBool,
    pub(crate) refusals: Mutex<Vec<Refusal>>,
}

#[derive(Default)]
pub(crate) struct Book {
    pub(crate) spent: u64,
    pub(crate) open: HashMap<RowId, u64>,
    pub(crate) granted: Vec<(ChargeRequest, u64)>,
    pub(crate) settled: Vec<ChargeSettlement>,
    pub(crate) highest: u64,
}

impl Book {
    fn total(&self) -> u64 {
        self.spent + self.open.values().sum::<u64>()
    }
}

impl ControlPlane for Ledger {
    fn heartbeat(&self) -> BoxFuture<'_, Result<Heartbeat, ControlPlaneError>> {
        Box::pin(async { Ok(Heartbeat::default()) })
    }
    fn record(&self, _: AuditDraft) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
    fn refusal(&self, refusal: Refusal) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async {
            self.refusals.lock().unwrap().push(refusal);
            Ok(())
        })
    }
    fn events(&self, _: Vec<EventDraft>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
    fn run_update(&self, _: RunUpdate) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
    fn charge_reserve(
        &self,
        request: ChargeRequest,
    ) -> BoxFuture<'_, Result<ChargeAnswer, ControlPlaneError>> {
        Box::pin(async move {
            // As a database would, it lets others in.
            tokio::task::yield_now().await;
            if self.down.load(Ordering::SeqCst) {
                return Err(ControlPlaneError::Unavailable("down".to_owned()));
            }
            let budget = self.budget.load(Ordering::SeqCst);
            let mut book = self.book.lock().unwrap();
            let free = budget.saturating_sub(book.total());
            if free < request.least.micro() {
                let could = budget.saturating_sub(book.spent) >= request.least.micro();
                return Ok(if could && !book.open.is_empty() {
                    ChargeAnswer::Wait
                } else {
                    ChargeAnswer::Exhausted {
                        scope: BudgetScope::Run,
                        limit: MicroUsd::from_micro(budget),
                        spent: MicroUsd::from_micro(book.spent),
                    }
                });
            }
            let amount = request.most.micro().min(free);
            assert!(book.open.insert(request.call, amount).is_none(), "one reservation per call");
            book.granted.push((request, amount));
            book.highest = book.highest.max(book.total());
            Ok(ChargeAnswer::Granted(MicroUsd::from_micro(amount)))
        })
    }
    fn charge_settle(&self, settlement: ChargeSettlement) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let mut book = self.book.lock().unwrap();
            if book.open.remove(&settlement.call).is_none() {
                return Err(ControlPlaneError::Rejected("no such reservation".to_owned()));
            }
            book.spent += settlement.cost.micro();
            book.highest = book.highest.max(book.total());
            book.settled.push(settlement);
            Ok(())
        })
    }
}

/// What the upstream does with one request.
#[derive(Clone)]
pub(crate) enum Act {
    /// Sends these bytes as they are, then closes.
    Raw(Vec<u8>),
    /// A head and these pieces as chunks, with a pause between them; then the end, if it is to be whole.
    Stream { kind: &'static str, pieces: Vec<Vec<u8>>, pause: Duration, whole: bool },
    /// Never answers.
    Silence,
}

impl Act {
    pub(crate) fn json(body: &str) -> Self {
        Self::with("200 OK", "application/json", body)
    }

    pub(crate) fn with(status: &str, kind: &str, body: &str) -> Self {
        Self::Raw(
            format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            )
            .into_bytes(),
        )
    }

    pub(crate) fn events(pieces: &[&str]) -> Self {
        Self::Stream {
            kind: "text/event-stream",
            pieces: pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect(),
            pause: Duration::ZERO,
            whole: true,
        }
    }
}

type Script = dyn Fn(usize, &str) -> Act + Send + Sync;

/// An upstream on loopback that keeps what it was sent.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    /// Each request as it came, head and body.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    /// Connections whose client went away while an answer was being sent, or waited for.
    pub(crate) lost: Arc<AtomicUsize>,
}

impl Scripted {
    pub(crate) async fn start(script: impl Fn(usize, &str) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, lost) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let script: Arc<Script> = Arc::new(script);
        let shared = (Arc::clone(&seen), Arc::clone(&lost));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, lost) = shared.clone();
                let script = Arc::clone(&script);
                tokio::spawn(async move { one(stream, &seen, &lost, &*script).await });
            }
        });
        Self { address, seen, lost }
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn one(mut stream: TcpStream, seen: &Mutex<Vec<String>>, lost: &AtomicUsize, script: &Script) {
    let _ = stream.set_nodelay(true);
    while let Some(request) = read_request(&mut stream).await {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        match script(number, &request) {
            Act::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Act::Silence => {
                let _ = stream.read(&mut [0_u8; 1]).await;
                lost.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Act::Stream { kind, pieces, pause, whole } => {
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                for piece in pieces {
                    let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
                    let mut early = [0_u8; 1];
                    let gone = tokio::select! {
                        biased;
                        read = stream.read(&mut early) => read.is_ok(),
                        () = tokio::time::sleep(pause) => false,
                    };
                    if gone || stream.write_all(&chunk).await.is_err() {
                        lost.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                }
                if !whole {
                    return;
                }
                stream.write_all(b"0\r\n\r\n").await.unwrap();
            }
        }
    }
}

/// A request with a body of known length.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A broker with a gateway and nothing else.
pub(crate) struct Gate {
    _dir: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) warrant: Arc<LiveWarrant>,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) upstream: Scripted,
    handle: Option<BrokerHandle>,
}

/// Bounds with times that a test can wait for.
pub(crate) fn quick() -> Bounds {
    Bounds {
        model_connect_time: Duration::from_secs(2),
        model_answer_time: Duration::from_secs(2),
        model_idle_time: Duration::from_secs(2),
        model_first_pause: Duration::from_millis(20),
        model_retry_pause: Duration::from_millis(500),
        model_retry_time: Duration::from_secs(3),
        reserve_time: Duration::from_secs(5),
        ..Bounds::default()
    }
}

impl Gate {
    /// The providers `anthropic`, `openai` and `gemini`, all at the scripted upstream; the models `good*` granted.
    pub(crate) async fn new(script: impl Fn(usize, &str) -> Act + Send + Sync + 'static) -> Self {
        Self::with(Scripted::start(script).await, 10_000_000, quick(), true).await
    }

    pub(crate) async fn with(upstream: Scripted, budget: u64, bounds: Bounds, gateway: bool) -> Self {
        let base = format!("http://{}", upstream.address);
        let made = |name: &str, wire| {
            let key = Some(Secret::new(KEY.to_owned()));
            Upstream::new(name, wire, &base, key, PlainHttp::LoopbackOnly).unwrap()
        };
        let upstreams = vec![
            made("anthropic", Wire::Anthropic),
            made("openai", Wire::OpenAi),
            made("gemini", Wire::Gemini),
        ];
        let gateway = gateway.then(|| (upstreams, GatewayClient::new().unwrap()));
        Self::at(upstream, budget, bounds, gateway).await
    }

    pub(crate) async fn at(
        upstream: Scripted,
        budget: u64,
        bounds: Bounds,
        gateway: Option<(Vec<Upstream>, GatewayClient)>,
    ) -> Self {
        Self::made(upstream, budget, bounds, gateway, Vec::new()).await
    }

    pub(crate) async fn routed(
        upstream: Scripted,
        budget: u64,
        bounds: Bounds,
        gateway: (Vec<Upstream>, GatewayClient),
        routes: Vec<Route>,
    ) -> Self {
        Self::made(upstream, budget, bounds, Some(gateway), routes).await
    }

    async fn made(
        upstream: Scripted,
        budget: u64,
        bounds: Bounds,
        gateway: Option<(Vec<Upstream>, GatewayClient)>,
        routes: Vec<Route>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let git = crate::support::open_git(dir.path()).await;
        let clock = Arc::new(FixedClock::at(NOW));
        let entropy = Arc::new(FixedEntropy::seeded(7));
        let mut warrant = Warrant::issue(IssueRequest {
            ids: (
                WarrantId::new(&*clock, &*entropy),
                OrgId::new(&*clock, &*entropy),
                TaskId::new(&*clock, &*entropy),
                RunId::new(&*clock, &*entropy),
            ),
            subject: "member:test".to_owned(),
            role: AgentRole::Builder,
            repository: RepositoryGrant {
                name: crate::support::NAME.parse().unwrap(),
                base: "0123456789012345678901234567890123456789".parse().unwrap(),
            },
            budget: None,
            wall_ms: None,
            egress: Vec::new(),
            hosts: Vec::new(),
            secrets: Vec::new(),
            models: Vec::new(),
            submodules: false,
            lfs: false,
            now_ms: NOW,
        })
        .unwrap();
        for (provider, model) in [
            ("anthropic", "good*"),
            ("openai", "good*"),
            ("gemini", "good*"),
            ("absent", "good*"),
            ("anthropic", "new-1"),
        ] {
            warrant.models.push(ModelGrant { provider: provider.to_owned(), model: model.parse().unwrap() });
        }
        let warrant = Arc::new(LiveWarrant::new(warrant, Arc::clone(&clock) as Arc<dyn Clock>));
        let ledger = Arc::new(Ledger::default());
        ledger.budget.store(budget, Ordering::SeqCst);
        let gateway = gateway.map(|(upstreams, client)| GatewayConfig {
            upstreams,
            routes,
            prices: Arc::new(Flat),
            client,
            clock: clock.clone(),
            entropy,
        });
        let config = BrokerConfig { bounds, gateway, ..BrokerConfig::new(git, Vec::new()) };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handle = Broker::new(config, Arc::clone(&warrant), ledger.clone()).serve(listener).unwrap();
        Self { _dir: dir, address, ledger, warrant, clock, upstream, handle: Some(handle) }
    }

    pub(crate) fn handle(&self) -> &BrokerHandle {
        self.handle.as_ref().unwrap()
    }

    pub(crate) async fn stop(&mut self) -> BrokerReport {
        self.handle.take().unwrap().stop().await
    }

    /// Posts a body on a connection of its own and reads the answer to its end.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(&post(path, "", body)).await
    }

    pub(crate) async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let _ = stream.write_all(request.as_bytes()).await;
        read_answer(&mut stream).await
    }

    /// The one settlement.
    pub(crate) async fn settlement(&self) -> ChargeSettlement {
        crate::support::until("a settlement", || !self.ledger.book.lock().unwrap().settled.is_empty()).await;
        let book = self.ledger.book.lock().unwrap();
        assert_eq!((book.settled.len(), book.open.len()), (1, 0));
        book.settled[0].clone()
    }
}

pub(crate) fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: b\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}

/// An answer: its head in lower case, and its body without chunks.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    /// Whether it came to its end.
    pub(crate) whole: bool,
}

impl Answer {
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> serde_json::Value {
        assert_eq!(self.status, status, "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// Reads one answer, at most fifteen seconds.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            if let Some(answer) = parse_answer(&bytes, false) {
                return answer;
            }
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => {
                    return parse_answer(&bytes, true).unwrap_or(Answer {
                        status: 0,
                        head: String::new(),
                        body: String::new(),
                        whole: false,
                    });
                }
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(15), reading).await.unwrap()
}

fn parse_answer(bytes: &[u8], ended: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().unwrap();
    let mut rest = &bytes[end + 4..];
    let answer = |body: Vec<u8>, whole| {
        Some(Answer { status, head: head.clone(), body: String::from_utf8_lossy(&body).into_owned(), whole })
    };
    if let Some(length) = head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        let length: usize = length.parse().unwrap();
        let whole = rest.len() >= length;
        return if whole || ended { answer(rest[..length.min(rest.len())].to_vec(), whole) } else { None };
    }
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|part| part == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
        rest = &rest[at + 2..];
        if size == 0 {
            return answer(body, true);
        }
        if rest.len() < size + 2 {
            body.extend_from_slice(&rest[..rest.len().min(size)]);
            break;
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
    if ended { answer(body, false) } else { None }
}

/// Anthropic's stream of a short answer, in pieces.
pub(crate) const MESSAGES: [&str; 5] = [
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"good-1\",\"usage\":{\"input_tokens\":100,\"cache_read_input_tokens\":50,\"output_tokens\":1}}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"hello \"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"world\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":20}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
];

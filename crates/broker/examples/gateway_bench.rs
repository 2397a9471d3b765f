//! Measures the model gateway against the upstream itself and against a bare passthrough, in one run.
//!
//! `gateway_bench [--quick] [--upstream-port N] [--peer NAME,PORT,PID,HEADERS]…` prints one JSON object a line, as
//! `script/bench` reads them. Every server is a process of its own on one core, the client and the upstream share the
//! other. Our side does all that it does in a run: the warrant, the estimate, a reservation and a settlement that are
//! each synced to disk, metering, the search for the key. HEADERS of a peer are joined by `|`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement that meets something unexpected shall end at that very line; it times and starts processes"
)]

mod common;

use common::{Control, Row, Server, command, cpu_us, median, ready};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tipstaff_broker::{Broker, BrokerConfig, GatewayClient, GatewayConfig, PlainHttp, Upstream, Wire};
use tipstaff_model::PriceTable;
use tipstaff_model::warrant::{ModelGrant, RepositoryGrant};
use tipstaff_seal::{Secret, SystemClock, SystemEntropy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CHUNKS: usize = 50;
const MODEL: &str = "gpt-5.5";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match arguments.first().map(String::as_str) {
        Some("upstream") => runtime.block_on(upstream(arguments[1].parse().unwrap())),
        Some("passthrough") => runtime.block_on(passthrough(arguments[1].parse().unwrap())),
        Some("gateway") => runtime.block_on(gateway(arguments[1].parse().unwrap())),
        Some("load") => runtime.block_on(load(&arguments[1..])),
        _ => measure(&arguments),
    }
}

/// A model server: fifty pieces, then the usage.
async fn upstream(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    ready(&listener);
    let piece = b"data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-5.5\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"token \"},\"finish_reason\":null}]}\n\n";
    let last = b"data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-5.5\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":50,\"total_tokens\":60}}\n\ndata: [DONE]\n\n";
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let (piece, last) = (chunk(piece), [chunk(last), b"0\r\n\r\n".to_vec()].concat());
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (piece, last) = (piece.clone(), last.clone());
        tokio::spawn(async move {
            let mut bytes = Vec::with_capacity(8192);
            loop {
                bytes.clear();
                loop {
                    if whole_request(&bytes) {
                        break;
                    }
                    if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                if stream.write_all(head).await.is_err() {
                    return;
                }
                for _ in 0..CHUNKS {
                    if stream.write_all(&piece).await.is_err() {
                        return;
                    }
                    // One packet each, as a model writes them.
                    tokio::task::yield_now().await;
                }
                if stream.write_all(&last).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn whole_request(bytes: &[u8]) -> bool {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return bytes.ends_with(b"0\r\n\r\n");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    bytes.len() >= end + 4 + length.parse::<usize>().unwrap()
}

/// The least that a proxy can do: another key, another host, the bytes through.
async fn passthrough(port: u16) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, hyper::body::Incoming> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(512).build(connector);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    ready(&listener);
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let client = client.clone();
        tokio::spawn(async move {
            let service =
                hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                    let client = client.clone();
                    async move {
                        let path = request.uri().path().to_owned();
                        *request.uri_mut() = format!("http://127.0.0.1:{port}{path}").parse().unwrap();
                        request.headers_mut().insert("authorization", "Bearer injected".parse().unwrap());
                        request.headers_mut().remove("host");
                        client.request(request).await.map(|response| response.map(BodyExt::boxed))
                    }
                });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn gateway(port: u16) {
    let dir = tempfile::tempdir().unwrap();
    let git = common::git(dir.path()).await;
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let repository = RepositoryGrant {
        name: "bench/bench".parse().unwrap(),
        base: "0123456789012345678901234567890123456789".parse().unwrap(),
    };
    let models = vec![ModelGrant { provider: "openai".to_owned(), model: "gpt-*".parse().unwrap() }];
    let warrant = common::warrant(repository, Vec::new(), models);
    let key = Secret::new("sk-bench-0123456789abcdef0123456789abcdef".to_owned());
    let base = format!("http://127.0.0.1:{port}");
    let upstream = Upstream::new("openai", Wire::OpenAi, &base, Some(key), PlainHttp::LoopbackOnly).unwrap();
    let gateway = GatewayConfig {
        upstreams: vec![upstream],
        routes: Vec::new(),
        prices: Arc::new(PriceTable::builtin().unwrap()),
        client: GatewayClient::new().unwrap(),
        clock,
        entropy,
    };
    let config = BrokerConfig { gateway: Some(gateway), ..BrokerConfig::new(git, Vec::new()) };
    let ledger = Control::new(Some(std::fs::File::create(dir.path().join("ledger")).unwrap()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let handle = Broker::new(config, warrant, Arc::new(ledger)).serve(listener).unwrap();
    std::future::pending::<()>().await;
    drop(handle);
}

/// `load PORT PATH HEADERS CONCURRENT COUNT`: prints the times of each request, in microseconds, and the whole.
async fn load(arguments: &[String]) {
    let address: SocketAddr = format!("127.0.0.1:{}", arguments[0]).parse().unwrap();
    let (concurrent, count): (usize, usize) = (arguments[3].parse().unwrap(), arguments[4].parse().unwrap());
    let fields: String = arguments[2]
        .split('|')
        .filter(|field| !field.is_empty())
        .map(|field| format!("{field}\r\n"))
        .collect();
    let body = format!(
        r#"{{"model":"{MODEL}","stream":true,"max_tokens":1000,"stream_options":{{"include_usage":true}},"messages":[{{"role":"user","content":"{}"}}]}}"#,
        "hello ".repeat(200)
    );
    let request = Arc::new(format!(
        "POST {} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer none\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        arguments[1],
        body.len()
    ));
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..concurrent {
        let request = Arc::clone(&request);
        clients.spawn(async move {
            let mut times = Vec::new();
            let mut kept: Option<TcpStream> = None;
            for _ in 0..count / concurrent {
                let begun = Instant::now();
                let mut stream = match kept.take() {
                    Some(stream) => stream,
                    None => {
                        let stream = TcpStream::connect(address).await.unwrap();
                        stream.set_nodelay(true).unwrap();
                        stream
                    }
                };
                stream.write_all(request.as_bytes()).await.unwrap();
                let (mut buffer, mut tail, mut first) = (vec![0_u8; 65536], Vec::new(), None);
                let mut closes = false;
                loop {
                    let read = stream.read(&mut buffer).await.unwrap_or(0);
                    assert_ne!(read, 0, "cut: {}", String::from_utf8_lossy(&tail));
                    let new = &buffer[..read];
                    if first.is_none() && memchr::memmem::find(new, b"data: {").is_some() {
                        first = Some(begun.elapsed());
                    }
                    closes |= memchr::memmem::find(new, b"onnection: close").is_some();
                    tail.extend_from_slice(new);
                    let keep = tail.len().saturating_sub(64);
                    if first.is_some() {
                        tail.drain(..keep);
                    }
                    if tail.ends_with(b"\r\n0\r\n\r\n") {
                        break;
                    }
                }
                times.push((first.unwrap(), begun.elapsed()));
                kept = (!closes).then_some(stream);
            }
            times
        });
    }
    let times: Vec<(Duration, Duration)> = clients.join_all().await.into_iter().flatten().collect();
    let wall = begun.elapsed();
    let median = |mut all: Vec<u128>| {
        all.sort_unstable();
        all[all.len() / 2]
    };
    println!(
        "{}",
        serde_json::json!({
            "ttfb_us": median(times.iter().map(|(first, _)| first.as_micros()).collect()),
            "total_us": median(times.iter().map(|(_, total)| total.as_micros()).collect()),
            "per_s": times.len() as f64 / wall.as_secs_f64(),
            "count": times.len(),
        })
    );
}

/// A server that is asked, ours or a peer's.
struct Asked {
    server: Server,
    path: &'static str,
    fields: String,
}

fn start(core: usize, path: &'static str, arguments: &[&str]) -> Asked {
    Asked { server: common::start(core, arguments), path, fields: String::new() }
}

#[derive(Default)]
struct Figures {
    ttfb_us: Vec<f64>,
    total_us: Vec<f64>,
    per_s: Vec<f64>,
    cpu_us: Vec<f64>,
    memory_mb: f64,
    /// What a peer answered instead.
    failed: Option<String>,
}

/// Resident memory at its highest, in MB.
fn memory_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap_or(0.0) / 1000.0
}

fn round(asked: &Asked, concurrent: usize, count: usize, figures: &mut Figures) {
    if figures.failed.is_some() {
        return;
    }
    let server = &asked.server;
    let before = cpu_us(server.pid);
    let (port, number, many) = (server.port.to_string(), count.to_string(), concurrent.to_string());
    let output = command(1, &["load", &port, asked.path, &asked.fields, &many, &number]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let answer: serde_json::Value = match serde_json::from_str(text.trim()) {
        Ok(answer) => answer,
        // A peer may fail; the others go on.
        Err(_) if server.child.is_none() => {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            let said = words.lines().find(|line| line.starts_with("cut: ") || line.starts_with("called "));
            figures.failed = Some(said.unwrap_or("no whole stream").chars().take(200).collect());
            return;
        }
        Err(_) => panic!("the load failed: {}", String::from_utf8_lossy(&output.stderr)),
    };
    let figure = |name: &str| answer[name].as_f64().unwrap();
    figures.ttfb_us.push(figure("ttfb_us"));
    figures.total_us.push(figure("total_us"));
    figures.per_s.push(figure("per_s"));
    figures.cpu_us.push((cpu_us(server.pid) - before) / figure("count"));
    figures.memory_mb = memory_mb(server.pid);
}

fn measure(arguments: &[String]) {
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let after = |name: &'static str| {
        arguments
            .iter()
            .zip(arguments.iter().skip(1))
            .filter(move |(flag, _)| *flag == name)
            .map(|(_, value)| value)
    };
    let port = after("--upstream-port").next().map_or("0", String::as_str).to_owned();
    let upstream = start(1, "/v1/chat/completions", &["upstream", &port]);
    let port = upstream.server.port.to_string();
    let passthrough = start(0, "/v1/chat/completions", &["passthrough", &port]);
    let gateway = start(0, "/model/openai/v1/chat/completions", &["gateway", &port]);
    let mut servers = vec![("direct", upstream, 1), ("passthrough", passthrough, 1), ("gateway", gateway, 1)];
    for peer in after("--peer") {
        let words: Vec<&str> = peer.splitn(4, ',').collect();
        let name: &'static str = words[0].to_owned().leak();
        let server = Server { child: None, port: words[1].parse().unwrap(), pid: words[2].parse().unwrap() };
        let fields = words.get(3).copied().unwrap_or_default().to_owned();
        servers.push((name, Asked { server, path: "/v1/chat/completions", fields }, 10));
    }
    let (rounds, count) = if quick { (2, 160) } else { (5, 1_600) };
    let mut alone: Vec<Figures> = servers.iter().map(|_| Figures::default()).collect();
    let mut many: Vec<Figures> = servers.iter().map(|_| Figures::default()).collect();
    let mut warm: Vec<Option<String>> = servers.iter().map(|_| None).collect();
    for at in 0..=rounds {
        for (place, (_, server, slower)) in servers.iter().enumerate() {
            let (mut warm_alone, mut warm_many) = (Figures::default(), Figures::default());
            let warms = at == 0;
            if warm[place].is_some() {
                continue;
            }
            round(server, 1, count / 4 / slower, if warms { &mut warm_alone } else { &mut alone[place] });
            round(server, 16, count / slower, if warms { &mut warm_many } else { &mut many[place] });
            warm[place] = warm_alone.failed.or(warm_many.failed);
        }
    }
    let row = |name: String,
               ours: f64,
               against: f64,
               unit: &str,
               target: Option<String>,
               cpu: (f64, f64),
               note: &str| {
        let target = target.as_deref();
        Row { area: "model gateway", name, ours, against, unit, target, cpu, note }.print();
    };
    let (direct, bare, ours) = (0, 1, 2);
    let cpu = |at: usize| median(&many[at].cpu_us);
    let durable =
        "with warrant, estimate, synced reservation and settlement, metering and the search for the key";
    row(
        "16 streams, requests / passthrough".to_owned(),
        median(&many[ours].per_s),
        median(&many[bare].per_s),
        "/s",
        Some(">= 0.5".to_owned()),
        (cpu(ours), cpu(bare)),
        durable,
    );
    let added = median(&alone[ours].ttfb_us) - median(&alone[direct].ttfb_us);
    row(
        "1 stream, added time to the first byte / bound".to_owned(),
        added,
        1_500.0,
        "us",
        Some("<= 1".to_owned()),
        (median(&alone[ours].cpu_us), 0.0),
        "against the upstream itself; the bound is 1.5 ms",
    );
    row(
        "16 streams, CPU per call / bound".to_owned(),
        cpu(ours),
        1_000.0,
        "us",
        Some("<= 1".to_owned()),
        (cpu(ours), cpu(bare)),
        "the bound is 1 ms",
    );
    row(
        "16 streams, resident / bound".to_owned(),
        many[ours].memory_mb,
        40.0,
        "MB",
        Some("<= 1".to_owned()),
        (cpu(ours), 0.0),
        "the highest; the bound is 40 MB",
    );
    row(
        "1 stream, whole / passthrough".to_owned(),
        median(&alone[ours].total_us),
        median(&alone[bare].total_us),
        "us",
        None,
        (median(&alone[ours].cpu_us), median(&alone[bare].cpu_us)),
        "",
    );
    row(
        "1 stream, whole / direct".to_owned(),
        median(&alone[ours].total_us),
        median(&alone[direct].total_us),
        "us",
        None,
        (median(&alone[ours].cpu_us), 0.0),
        "",
    );
    for (at, (name, ..)) in servers.iter().enumerate().skip(3) {
        if let Some(why) = many[at].failed.as_ref().or(alone[at].failed.as_ref()).or(warm[at].as_ref()) {
            println!(
                "{}",
                serde_json::json!({"area": "model gateway", "name": name, "skipped": format!("it answered: {why}")})
            );
            continue;
        }
        row(
            format!("16 streams, requests / {name}"),
            median(&many[ours].per_s),
            median(&many[at].per_s),
            "/s",
            Some(">= 1".to_owned()),
            (cpu(ours), cpu(at)),
            &format!("{name} is resident with {:.0} MB", many[at].memory_mb),
        );
        row(
            format!("1 stream, first byte / {name}"),
            median(&alone[ours].ttfb_us),
            median(&alone[at].ttfb_us),
            "us",
            Some("<= 1".to_owned()),
            (median(&alone[ours].cpu_us), median(&alone[at].cpu_us)),
            "",
        );
    }
}

//! Measures git and tunnels through the broker against the same without it, in one run.
//!
//! `broker_bench [--quick]` prints one JSON object a line, as `script/bench` reads them. The peer of a clone and of a
//! push is `git http-backend` behind a small server; the peer of a tunnel is a proxy that copies bytes and looks at
//! nothing. Our side does all that it does in a run: the warrant, the judgement of the push, the look at the client
//! hello, counting. Rounds are interleaved.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement that meets something unexpected shall end at that very line; it times and starts processes"
)]

mod common;

use common::{Control, Row, Server, command, cpu_us, median, ready, start};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;
use tipstaff_broker::{
    Broker, BrokerConfig, MirrorLimits, Mirrors, PlainHttp, Quarantine, Resolver, ServedRepository, Source,
};
use tipstaff_model::warrant::RepositoryGrant;
use tipstaff_model::{AgentRole, BoxFuture};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const HOST: &str = "bench.example.com";
const NAME: &str = "bench/bench";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match words.as_slice() {
        ["backend", root] => runtime.block_on(backend(Path::new(root))),
        ["broker", repository, port] => runtime.block_on(broker(Path::new(repository), port)),
        ["source"] => runtime.block_on(source()),
        ["splice", port] => runtime.block_on(splice(port.parse().unwrap())),
        ["pull", port, target, bytes] => runtime.block_on(pull(port, target, bytes.parse().unwrap())),
        _ => measure(words.contains(&"--quick")),
    }
}

/// Every name is this machine.
struct Loopback;

impl Resolver for Loopback {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, std::io::Result<Vec<std::net::IpAddr>>> {
        Box::pin(async { Ok(vec![std::net::Ipv4Addr::LOCALHOST.into()]) })
    }
}

/// Serves one repository, and tunnels to one port of this machine.
async fn broker(repository: &Path, port: &str) {
    let dir = tempfile::tempdir().unwrap();
    let git = common::git(dir.path()).await;
    let mirrors =
        Mirrors::new(Arc::clone(&git), dir.path().join("mirrors"), MirrorLimits::default()).unwrap();
    let source = Source::parse(repository.as_os_str(), Path::new("/"), PlainHttp::LoopbackOnly).unwrap();
    let mirror = mirrors.open(&source).await.unwrap();
    let base = mirror.pin(None).await.unwrap();
    let quarantine = Quarantine::create(Arc::clone(&git), &dir.path().join("quarantine.git"), &mirror, &base)
        .await
        .unwrap();
    // As the runner does beside every run.
    quarantine.quicken(&mirror).await.unwrap();
    let name: tipstaff_model::RepositoryName = NAME.parse().unwrap();
    let grant = RepositoryGrant { name: name.clone(), base: base.commit.clone() };
    let warrant = common::warrant(grant, vec![format!("{HOST}:{port}").parse().unwrap()], Vec::new());
    let upstream = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
    let branch = warrant.warrant().push_ref().unwrap().to_string();
    let config = BrokerConfig {
        resolver: Arc::new(Loopback),
        allow_private_addresses: vec![upstream],
        ..BrokerConfig::new(git, vec![ServedRepository { name, quarantine }])
    };
    std::fs::write(repository.join("branch"), branch).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let handle = Broker::new(config, warrant, Arc::new(Control::new(None))).serve(listener).unwrap();
    std::future::pending::<()>().await;
    drop(handle);
}

/// `git http-backend` behind HTTP: the body goes in as it comes, the answer out as it comes.
async fn backend(root: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    ready(&listener);
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(carry(stream, root.to_owned()));
    }
}

async fn carry(mut stream: TcpStream, root: PathBuf) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let mut words = head.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if field("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("GIT_PROJECT_ROOT", &root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "bench")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", field("content-type").unwrap_or_default())
        .env("HTTP_CONTENT_ENCODING", field("content-encoding").unwrap_or_default())
        .env("GIT_PROTOCOL", field("git-protocol").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let (mut input, mut output) = (child.stdin.take()?, child.stdout.take()?);
    match field("content-length") {
        Some(length) => {
            let mut body = (&mut stream).take(length.parse().ok()?);
            tokio::io::copy(&mut body, &mut input).await.ok()?;
        }
        None if field("transfer-encoding").is_some() => unchunk(&mut stream, &mut input).await?,
        None => {}
    }
    drop(input);
    let mut front = Vec::new();
    while !front.ends_with(b"\r\n\r\n") {
        front.push(output.read_u8().await.ok()?);
    }
    let front = String::from_utf8(front).ok()?;
    let status = front.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{front}");
    stream.write_all(answer.as_bytes()).await.ok()?;
    tokio::io::copy(&mut output, &mut stream).await.ok()?;
    child.wait().await.ok().map(|_| ())
}

async fn unchunk(stream: &mut TcpStream, out: &mut (impl AsyncWriteExt + Unpin)) -> Option<()> {
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.ok()?);
        }
        let size = u64::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
        if size > 0 {
            tokio::io::copy(&mut (&mut *stream).take(size), out).await.ok()?;
        }
        stream.read_u16().await.ok()?;
        if size == 0 {
            return Some(());
        }
    }
}

/// Sends zeros without end to whoever says something first.
async fn source() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    ready(&listener);
    let zeros = vec![0_u8; 256 << 10];
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let zeros = zeros.clone();
        tokio::spawn(async move {
            let mut hello = [0_u8; 4096];
            if stream.read(&mut hello).await.is_ok_and(|read| read > 0) {
                while stream.write_all(&zeros).await.is_ok() {}
            }
        });
    }
}

/// A proxy that opens every tunnel to one port and copies bytes.
async fn splice(port: u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    ready(&listener);
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let mut upstream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            let size = 256 << 10;
            let _ = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, size, size).await;
        });
    }
}

/// The first flight of a TLS client that wants `HOST`.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), HOST.try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// Reads so many bytes through a tunnel and prints bytes per second and the time to the first byte.
async fn pull(port: &str, target: &str, bytes: u64) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(&client_hello()).await.unwrap();
    let (mut buffer, mut read, mut first) = (vec![0_u8; 256 << 10], 0_u64, None);
    let mut flows = begun;
    while read < bytes {
        let count = stream.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "the tunnel was closed");
        read += count as u64;
        if first.is_none() {
            first = Some(begun.elapsed());
            flows = Instant::now();
        }
    }
    let rate = read as f64 / flows.elapsed().as_secs_f64() / 1e6;
    println!("{}", serde_json::json!({ "mb_per_s": rate, "first_us": first.unwrap().as_micros() }));
}

/// A history of `commits` commits over `files` files.
fn history(commits: usize, files: usize) -> String {
    let mut text = String::new();
    for number in 0..commits {
        let time = 1_700_000_000 + number;
        let mark = number + 1;
        writeln!(text, "commit refs/heads/main\nmark :{mark}\ncommitter A <a@b.c> {time} +0000\ndata 1\nx")
            .unwrap();
        if number > 0 {
            writeln!(text, "from :{number}").unwrap();
        }
        let touched: Vec<usize> = if number == 0 { (0..files).collect() } else { vec![number % files] };
        for file in touched {
            let content: String =
                (0..40).map(|line| format!("{line}: {}\n", (number * 7919 + line * 31) % 9973)).collect();
            writeln!(
                text,
                "M 100644 inline src/d{}/f{file}.txt\ndata {}\n{content}",
                file % 60,
                content.len()
            )
            .unwrap();
        }
    }
    text
}

/// Runs git as a person would; how long it took, in microseconds.
fn git(directory: &Path, arguments: &[&str]) -> f64 {
    // A push in another name would be refused.
    let own = AgentRole::Builder.git_identity();
    let begun = Instant::now();
    let output = std::process::Command::new("git")
        .current_dir(directory)
        .args(["-c", "protocol.version=2", "-c", "gc.auto=0", "-c", "maintenance.auto=false"])
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .envs([("GIT_AUTHOR_NAME", &own.name), ("GIT_AUTHOR_EMAIL", &own.email)])
        .envs([("GIT_COMMITTER_NAME", &own.name), ("GIT_COMMITTER_EMAIL", &own.email)])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "git {arguments:?}: {text}");
    begun.elapsed().as_secs_f64() * 1e6
}

struct Side {
    server: Server,
    url: String,
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Side {
    fn new(server: Server, path: &str) -> Self {
        let url = format!("http://127.0.0.1:{}{path}", server.port);
        Self { server, url, wall: Vec::new(), cpu: Vec::new() }
    }

    /// Does one thing and keeps its time and what it cost the server.
    fn round(&mut self, keep: bool, work: impl FnOnce(&str) -> f64) {
        let before = cpu_us(self.server.pid);
        let wall = work(&self.url);
        if keep {
            self.wall.push(wall);
            self.cpu.push(cpu_us(self.server.pid) - before);
        }
    }
}

fn measure(quick: bool) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("served");
    let repository = root.join("bench.git");
    std::fs::create_dir_all(&root).unwrap();
    git(&root, &["init", "-q", "--bare", "-b", "main", "bench.git"]);
    git(&repository, &["config", "http.receivepack", "true"]);
    // What the broker asks of every object, asked of the peer as well: that it is well-formed.
    git(&repository, &["config", "receive.fsckObjects", "true"]);
    let stream = dir.path().join("history");
    let (commits, files) = if quick { (500, 200) } else { (8_000, 2_000) };
    std::fs::write(&stream, history(commits, files)).unwrap();
    let status = std::process::Command::new("git")
        .current_dir(&repository)
        .args(["fast-import", "--quiet"])
        .stdin(std::fs::File::open(&stream).unwrap())
        .status();
    assert!(status.unwrap().success());
    git(&repository, &["-c", "repack.writeBitmaps=false", "repack", "-qad"]);

    let far = start(1, &["source"]);
    let port = far.port.to_string();
    let ours = start(0, &["broker", repository.to_str().unwrap(), &port]);
    let mut ours = Side::new(ours, &format!("/git/{NAME}.git"));
    let mut bare = Side::new(start(0, &["backend", root.to_str().unwrap()]), "/bench.git");
    let rounds = if quick { 3 } else { 11 };

    let row = |name: String, ours: &Side, bare: &Side, target, note| Row {
        area: "broker: git",
        name,
        ours: median(&ours.wall),
        against: median(&bare.wall),
        unit: "us",
        target: Some(target),
        cpu: (median(&ours.cpu), median(&bare.cpu)),
        note,
    };
    // A bare repository has a bitmap once somebody packed it; one that was only pushed to has none.
    for (peer, pack) in [
        ("git http-backend", None),
        ("git http-backend with a bitmap", Some(["-c", "repack.writeBitmaps=true", "repack", "-qad"])),
    ] {
        if let Some(pack) = pack {
            git(&repository, &pack);
        }
        for side in [&mut bare, &mut ours] {
            (side.wall, side.cpu) = Default::default();
        }
        for round in 0..=rounds {
            for side in [&mut bare, &mut ours] {
                side.round(round > 0, |url| {
                    let target = dir.path().join("clone");
                    let wall = git(dir.path(), &["clone", "-q", "--bare", url, "clone"]);
                    std::fs::remove_dir_all(target).unwrap();
                    wall
                });
            }
        }
        let what = format!("clone of {commits} commits / {peer}");
        let note = "ours has a bitmap from its first run on; CPU is the server's with its git processes";
        row(what, &ours, &bare, "<= 1.1", note).print();
    }

    for (what, count, lines, target) in
        [("push of 1 commit", 1, 20, "<= 1.5"), ("push of 20 commits, 200 files", 20, 400, "<= 1.5")]
    {
        // A run has one branch, so each size is a run of its own.
        let server = start(0, &["broker", repository.to_str().unwrap(), &port]);
        ours = Side::new(server, &format!("/git/{NAME}.git"));
        let branch = std::fs::read_to_string(repository.join("branch")).unwrap();
        (bare.wall, bare.cpu) = Default::default();
        for (number, side) in [&mut bare, &mut ours].iter_mut().enumerate() {
            let clone = format!("work-{number}-{count}");
            git(dir.path(), &["clone", "-q", &side.url, &clone]);
        }
        for round in 0..=rounds {
            for (number, side) in [&mut bare, &mut ours].into_iter().enumerate() {
                let clone = dir.path().join(format!("work-{number}-{count}"));
                for commit in 0..count {
                    for file in 0..if count == 1 { 1 } else { 10 } {
                        let text: String = (0..lines)
                            .map(|line| format!("let value_{line} = compute({round}, {commit}, {file});\n"))
                            .collect();
                        std::fs::create_dir_all(clone.join("work")).unwrap();
                        std::fs::write(clone.join(format!("work/{commit}-{file}.rs")), text).unwrap();
                    }
                    git(&clone, &["add", "work"]);
                    git(&clone, &["commit", "-q", "-m", "Change"]);
                }
                let reference = format!("HEAD:{branch}");
                side.round(round > 0, |_| git(&clone, &["push", "-q", "origin", &reference]));
            }
        }
        row(format!("{what} / bare push"), &ours, &bare, target, "judged; the peer checks objects as well")
            .print();
    }
    tunnels(quick, &far, &ours);
}

fn tunnels(quick: bool, far: &Server, ours: &Side) {
    let port = far.port.to_string();
    let splice = start(0, &["splice", &port]);
    let bytes = if quick { 200_000_000_u64 } else { 2_000_000_000 };
    let target = format!("{HOST}:{port}");
    let mut figures = [(Vec::new(), Vec::new(), Vec::new()), (Vec::new(), Vec::new(), Vec::new())];
    for round in 0..=(if quick { 2 } else { 7 }) {
        for (place, server) in [&splice, &ours.server].into_iter().enumerate() {
            let before = cpu_us(server.pid);
            let port = server.port.to_string();
            let output = command(1, &["pull", &port, &target, &bytes.to_string()]).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let said: serde_json::Value = serde_json::from_str(text.trim()).expect("figures");
            if round > 0 {
                figures[place].0.push(said["mb_per_s"].as_f64().unwrap());
                figures[place].1.push(said["first_us"].as_f64().unwrap());
                figures[place].2.push((cpu_us(server.pid) - before) / (bytes as f64 / 1e9));
            }
        }
    }
    let [bare, ours] = figures;
    Row {
        area: "broker: hosts",
        name: "tunnel / raw splice".to_owned(),
        ours: median(&ours.0),
        against: median(&bare.0),
        unit: "MB/s",
        target: Some(">= 0.9"),
        cpu: (median(&ours.2), median(&bare.2)),
        note: "CPU per GB; the splice copies with the same buffers and looks at nothing",
    }
    .print();
    Row {
        area: "broker: hosts",
        name: "CONNECT to first byte / raw splice".to_owned(),
        ours: median(&ours.1),
        against: median(&bare.1),
        unit: "us",
        target: None,
        cpu: (0.0, 0.0),
        note: "with the look at the client hello",
    }
    .print();
}

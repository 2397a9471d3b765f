//! The way to granted hosts: names, ports, addresses, tunnels and plain HTTP.

use crate::egress_support::hello_to;
use crate::support::{Options, TableResolver, World};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tipstaff_model::Rule;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server that answers every request with `answer` and remembers what it was sent.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

fn upstream(answer: &'static str) -> Upstream {
    let listener = TcpListener::bind((LOCAL, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let memory = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let memory = Arc::clone(&memory);
            std::thread::spawn(move || {
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut buffer = vec![0_u8; 65536];
                let count = stream.read(&mut buffer).unwrap_or(0);
                memory.lock().unwrap().push(String::from_utf8_lossy(&buffer[..count]).into_owned());
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    Upstream { address, seen }
}

/// A world that grants `allowed.test` at the upstream's port.
async fn world_for(upstream: &Upstream) -> World {
    let pattern: &'static str =
        Box::leak(format!("allowed.test:{}", upstream.address.port()).into_boxed_str());
    let names = vec![
        ("allowed.test", vec![LOCAL]),
        ("rebound.test", vec![LOCAL]),
        (
            "mixed.test",
            vec!["169.254.169.254".parse().unwrap(), "::1".parse().unwrap(), "10.0.0.1".parse().unwrap()],
        ),
        ("mapped.test", vec!["::ffff:127.0.0.1".parse().unwrap()]),
        ("both.test", vec!["1.1.1.1".parse().unwrap(), "10.0.0.1".parse().unwrap()]),
        ("empty.test", vec![]),
    ];
    let port = upstream.address.port();
    let others = ["rebound.test", "mixed.test", "both.test", "mapped.test", "empty.test", "nowhere.test"];
    let mut egress = vec![pattern];
    egress.extend(others.iter().map(|host| -> &'static str {
        // One port further: not among the addresses that are let through.
        Box::leak(format!("{host}:{}", port.wrapping_add(1).max(1)).into_boxed_str())
    }));
    World::with(Options {
        egress,
        resolver: Arc::new(TableResolver(names)),
        private: vec![upstream.address],
        ..Options::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_host_is_reached_by_tunnel_and_by_proxy() {
    let upstream =
        upstream("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\nhello");
    let mut world = world_for(&upstream).await;
    let port = upstream.address.port();
    let (address, host) = (world.address, format!("allowed.test:{port}"));
    let wanted = host.clone();
    let hello = hello_to("allowed.test");
    let first = hello.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The first bytes of the tunnel come together with the request.
        stream.write_all(format!("CONNECT {wanted} HTTP/1.1\r\nHost: {wanted}\r\n\r\n").as_bytes()).unwrap();
        stream.write_all(&first).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
    .await
    .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK"), "{answer}");
    assert_eq!(upstream.seen.lock().unwrap().pop().unwrap(), String::from_utf8_lossy(&hello));
    let answer = world
        .raw(format!(
            "POST http://{host}/path?q HTTP/1.1\r\nHost: {host}\r\nConnection: close, X-Secret-Hop\r\nX-Secret-Hop: 1\r\nProxy-Authorization: Basic eA==\r\nUpgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 4\r\n\r\nbody"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    assert!(!answer.to_lowercase().contains("x-hop"), "{answer}");
    let seen = upstream.seen.lock().unwrap().pop().unwrap().to_lowercase();
    assert!(seen.starts_with("post /path?q http/1.1\r\n"), "{seen}");
    assert!(seen.contains(&format!("host: {host}\r\n")) && seen.contains("x-kept: 1"), "{seen}");
    for hop in ["proxy-authorization", "x-secret-hop", "upgrade"] {
        assert!(!seen.contains(hop), "{seen}");
    }
    let report = world.stop().await;
    assert_eq!(report.refusals_total(), 0, "{:?}", report.refusals);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_ports_and_addresses_are_refused() {
    let upstream = upstream("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret");
    let mut world = world_for(&upstream).await;
    let (port, next) = (upstream.address.port(), upstream.address.port().wrapping_add(1).max(1));
    let cases = [
        (format!("evil.test:{port}"), "403", "host-not-granted"),
        (format!("sub.allowed.test:{port}"), "403", "host-not-granted"),
        (format!("allowed.test.evil.test:{port}"), "403", "host-not-granted"),
        (format!("127.0.0.1:{port}"), "403", "host-not-granted"),
        (format!("[::1]:{port}"), "403", "host-not-granted"),
        (format!("2130706433:{port}"), "403", "host-not-granted"),
        (format!("0x7f.1:{port}"), "403", "host-not-granted"),
        ("allowed.test:22".to_owned(), "403", "port-not-granted"),
        (format!("rebound.test:{next}"), "403", "address-forbidden"),
        (format!("mixed.test:{next}"), "403", "address-forbidden"),
        (format!("both.test:{next}"), "403", "address-forbidden"),
        (format!("mapped.test:{next}"), "403", "address-forbidden"),
        (format!("empty.test:{next}"), "403", "address-forbidden"),
        (format!("nowhere.test:{next}"), "502", "has no address"),
    ];
    for (host, status, word) in &cases {
        for request in [
            format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ] {
            let answer = world.raw(request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
            assert!(answer.contains(word), "{host}: {answer}");
            assert!(!answer.contains("secret"));
        }
    }
    let answer = world.raw("GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n").await;
    assert!(answer.contains("evil.test") && answer.contains("--allow-host"), "{answer}");
    assert!(upstream.seen.lock().unwrap().is_empty(), "nothing was ever sent there");
    let report = world.stop().await;
    assert_eq!(report.refusals_by_rule[&Rule::AddressForbidden], 10);
    assert_eq!(report.refusals_by_rule[&Rule::PortNotGranted], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_dies_with_its_warrant() {
    let listener = TcpListener::bind((LOCAL, 0)).unwrap();
    let upstream = Upstream { address: listener.local_addr().unwrap(), seen: Arc::default() };
    let mut world = world_for(&upstream).await;
    let host = format!("allowed.test:{}", upstream.address.port());
    let mut client = TcpStream::connect(world.address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.write_all(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut line = [0_u8; 12];
    client.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"HTTP/1.1 200");
    world.warrant.revoke();
    let ended = tokio::task::spawn_blocking(move || {
        let mut rest = Vec::new();
        let by_client = client.read_to_end(&mut rest).map_err(|error| error.kind());
        let by_server = server.read_to_end(&mut rest).map_err(|error| error.kind());
        (by_client, by_server)
    })
    .await
    .unwrap();
    for end in [ended.0, ended.1] {
        assert!(
            !matches!(end, Err(std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)),
            "it must end by itself: {end:?}"
        );
    }
    world.stop().await;
}

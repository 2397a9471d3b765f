//! One run's flood is that run's own trouble.

use crate::egress_support::{Raw, Upstream, Way, beside, hello_to, world_to};
use crate::support::{raw, until};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tipstaff_broker::Bounds;
use tipstaff_model::Rule;

/// The middle of the times that a request and a tunnel take.
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn latency(address: SocketAddr, host: &str) -> Duration {
    let mut times: Vec<Duration> = (0..40)
        .map(|_| {
            let begun = Instant::now();
            let answer = raw(address, b"GET /nothing HTTP/1.1\r\nHost: b\r\n\r\n");
            assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
            let mut tunnel = Raw::tunnel(address, host);
            tunnel.send(&hello_to("allowed.test"));
            assert_eq!(tunnel.exactly(2), b"ok");
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Sends rubbish of every kind until told to stop, holding connections open meanwhile.
fn flood(address: SocketAddr, host: &str, kind: usize, stop: &AtomicBool, sent: &AtomicU64) {
    let mut held: Vec<TcpStream> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok(stream) = TcpStream::connect(address) else { continue };
        let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
        let mut raw = Raw(stream);
        match kind % 4 {
            0 => raw.send(&[0; 4096]),
            1 => raw.send(b"GET /half HTTP/1.1\r\nHost: b\r\nX: "),
            2 => raw.send(b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n"),
            _ => {
                raw.send(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
                raw.send(&hello_to("evil.test"));
            }
        }
        sent.fetch_add(1, Ordering::Relaxed);
        held.push(raw.0);
        if held.len() >= 16 {
            held.clear();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_run_leaves_the_others_latency_unharmed() {
    let upstream = Upstream::answering("ok");
    // Both brokers in this process, as a worker with several slots has them.
    let mut quiet = world_to(upstream.address, Way::default()).await;
    let mut loud = world_to(upstream.address, Way::default()).await;
    let (quiet_at, loud_at, host) = (quiet.address, loud.address, upstream.host());
    let (place, again) = (host.clone(), host.clone());
    let before = beside(move || latency(quiet_at, &place)).await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let floods: Vec<_> = (0..8)
        .map(|kind| {
            let (stop, sent, host) = (Arc::clone(&stop), Arc::clone(&sent), host.clone());
            std::thread::spawn(move || flood(loud_at, &host, kind, &stop, &sent))
        })
        .collect();
    until("the flood is on", || sent.load(Ordering::Relaxed) > 64).await;
    let during = beside(move || latency(quiet_at, &again)).await;
    stop.store(true, Ordering::Relaxed);
    for flood in floods {
        flood.join().unwrap();
    }
    // The flood and the quiet one share the machine's cores with it all; a wait for the other's time-outs would be
    // ten seconds.
    assert!(
        during < before * 30 + Duration::from_millis(250),
        "{before:?} before, {during:?} during the flood"
    );
    assert_eq!(quiet.stop().await.refusals_by_rule.len(), 1, "only its own paths that nothing is served at");
    until("the flooded run is served again", || {
        raw(loud_at, b"GET /nothing HTTP/1.1\r\nHost: b\r\n\r\n").starts_with("HTTP/1.1 404")
    })
    .await;
    let report = loud.stop().await;
    assert!(report.refusals_by_rule.contains_key(&Rule::RequestAmbiguous), "{:?}", report.refusals_by_rule);
    assert!(report.refusals.len() <= Bounds::default().refusals_kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_at_once_are_bounded_and_come_back() {
    let upstream = Upstream::answering("ok");
    let bounds = Bounds { tunnels: 2, ..Bounds::default() };
    let mut world = world_to(upstream.address, Way { bounds, ..Way::default() }).await;
    let (address, host) = (world.address, upstream.host());
    let line = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let again = line.clone();
    beside(move || {
        let held: Vec<Raw> = (0..2).map(|_| Raw::tunnel(address, &host)).collect();
        let answer = raw(address, line.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("limit-reached"), "{answer}");
        drop(held);
    })
    .await;
    until("room again", || {
        let mut raw = Raw::to(address);
        raw.send(again.as_bytes());
        raw.line_block().starts_with("HTTP/1.1 200")
    })
    .await;
    world.stop().await;
}

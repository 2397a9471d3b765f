//! Tests of the bounds of time on an inspected host's connection, in simulated time. Both ends are memory, without TLS.

use super::UpstreamTrust;
use super::serve::converse_in_memory;
use crate::server::simulated::{client_of, inside, text_of, took};
use crate::server::{CountedStream, Shared};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n";

struct Scene {
    _dir: tempfile::TempDir,
    shared: Arc<Shared>,
    trust: UpstreamTrust,
    begun: Instant,
    /// The program's end of its connection.
    far: DuplexStream,
    /// Our end of it.
    client: CountedStream,
    /// The host's end of ours.
    host: DuplexStream,
    /// Our end of it.
    upstream: DuplexStream,
}

async fn scene() -> Scene {
    let trust = UpstreamTrust::new("").unwrap();
    let (dir, shared) = inside().await;
    let (far, client) = client_of(&shared);
    let (host, upstream) = duplex(64 * 1024);
    Scene { _dir: dir, shared, trust, begun: Instant::now(), far, client, host, upstream }
}

#[tokio::test]
async fn a_head_has_ten_seconds_from_its_first_byte_and_the_first_byte_ten_minutes() {
    let Scene { _dir, shared, trust, begun, mut far, client, upstream, .. } = scene().await;
    let bounds = shared.config.bounds;
    let talking = async {
        sleep(bounds.tunnel_idle_time - Duration::from_secs(1)).await;
        far.write_all(b"GET / HT").await.unwrap();
        text_of(far).await
    };
    let ((), answer) = tokio::join!(converse_in_memory(&shared, &trust, client, upstream), talking);
    assert!(answer.contains("limit-reached") && answer.contains("10 s"), "{answer}");
    took(begun, bounds.tunnel_idle_time - Duration::from_secs(1) + bounds.head_time);
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_ends_after_ten_minutes() {
    let Scene { _dir, shared, trust, begun, far, client, upstream, .. } = scene().await;
    let ((), answer) = tokio::join!(converse_in_memory(&shared, &trust, client, upstream), text_of(far));
    assert_eq!(answer, "");
    took(begun, shared.config.bounds.tunnel_idle_time);
}

#[tokio::test]
async fn a_host_has_ten_minutes_to_begin_its_answer() {
    let Scene { _dir, shared, trust, begun, mut far, client, host, upstream } = scene().await;
    far.write_all(GET).await.unwrap();
    let answered = async {
        let mut answer = [0; 12];
        far.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 504");
        took(begun, shared.config.bounds.answer_time);
    };
    tokio::select! {
        () = converse_in_memory(&shared, &trust, client, upstream) => panic!("no answer was read"),
        () = answered => {}
    }
    drop(host);
}

#[tokio::test]
async fn an_answer_may_stand_still_for_ten_minutes() {
    let Scene { _dir, shared, trust, begun, mut far, client, mut host, upstream } = scene().await;
    far.write_all(GET).await.unwrap();
    let pause = shared.config.bounds.tunnel_idle_time - Duration::from_secs(1);
    let answering = async {
        assert!(host.read(&mut [0; 1000]).await.unwrap() > 0);
        host.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst").await.unwrap();
        sleep(pause).await;
        host.write_all(b"second").await.unwrap();
        // And then nothing any more.
        std::future::pending::<()>().await;
    };
    let conversing =
        async { tokio::join!(converse_in_memory(&shared, &trust, client, upstream), text_of(far)).1 };
    let answer = tokio::select! {
        answer = conversing => answer,
        () = answering => unreachable!(),
    };
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("first") && answer.contains("second"),
        "{answer}"
    );
    took(begun, pause + shared.config.bounds.tunnel_idle_time);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_waited_for_a_minute() {
    let Scene { _dir, shared, trust, begun, mut far, client, host, upstream } = scene().await;
    far.write_all(b"POST / HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 9\r\n\r\nx").await.unwrap();
    let ((), answer) = tokio::join!(converse_in_memory(&shared, &trust, client, upstream), text_of(far));
    assert!(answer.contains("limit-reached") && answer.contains("60 s"), "{answer}");
    took(begun, shared.config.bounds.idle_time);
    drop(host);
}

#[tokio::test]
async fn a_program_that_reads_nothing_of_an_answer_is_left_after_ten_minutes() {
    let Scene { _dir, shared, trust, begun, mut far, client, mut host, upstream } = scene().await;
    far.write_all(GET).await.unwrap();
    let pouring = async {
        assert!(host.read(&mut [0; 1000]).await.unwrap() > 0);
        host.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await.unwrap();
        while host.write_all(&[b'x'; 10_000]).await.is_ok() {}
    };
    tokio::join!(converse_in_memory(&shared, &trust, client, upstream), pouring);
    took(begun, shared.config.bounds.tunnel_idle_time);
    drop(far);
}

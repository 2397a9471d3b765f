//! Tests of every bound of time on the way in and out, in simulated time: an hour takes no second, and nothing depends on
//! how fast the machine is. Both ends are memory, since simulated time does not wait for a kernel.

use super::connection::serve;
use super::{CountedStream, Link, Shared};
use crate::egress::simulated::{carry, dial, pass_on};
use crate::limits::Bounds;
use crate::{Broker, BrokerConfig, GatewayConfig, Git, Quarantine, Resolver, ServedRepository};
use std::ffi::OsStr;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_model::event::EventDraft;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::warrant::{IssueRequest, ModelGrant, RepositoryGrant};
use tipstaff_model::{
    AgentRole, AuditDraft, BoxFuture, ControlPlane, ControlPlaneError, FixedClock, FixedEntropy, Heartbeat,
    LiveWarrant, OrgId, Refusal, RunId, TaskId, Warrant, WarrantId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

const NOW: i64 = 1_800_000_000_000;

/// A control plane that nobody asks.
struct Silent;

impl ControlPlane for Silent {
    fn heartbeat(&self) -> BoxFuture<'_, Result<Heartbeat, ControlPlaneError>> {
        Box::pin(async { Ok(Heartbeat::default()) })
    }
    fn record(&self, _: AuditDraft) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
    fn refusal(&self, _: Refusal) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
    fn events(&self, _: Vec<EventDraft>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
    fn run_update(&self, _: RunUpdate) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
}

/// A resolver that never answers.
pub(crate) struct Never;

impl Resolver for Never {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::pending())
    }
}

/// A broker's inside, with time standing still from here on.
pub(crate) async fn inside() -> (tempfile::TempDir, Arc<Shared>) {
    inside_of(Arc::new(Silent), None).await
}

/// The same, with another control plane and a gateway to models. It serves the repository `a/b`, which has no object.
pub(crate) async fn inside_of(
    control: Arc<dyn ControlPlane>,
    gateway: Option<GatewayConfig>,
) -> (tempfile::TempDir, Arc<Shared>) {
    let dir = tempfile::tempdir().unwrap();
    let program = Git::find(OsStr::new("/usr/local/bin:/usr/bin:/bin")).unwrap();
    let git = Arc::new(Git::open(program, dir.path().join("git-home")).await.unwrap());
    let (clock, entropy) = (Arc::new(FixedClock::at(NOW)), FixedEntropy::seeded(7));
    let warrant = Warrant::issue(IssueRequest {
        ids: (
            WarrantId::new(&*clock, &entropy),
            OrgId::new(&*clock, &entropy),
            TaskId::new(&*clock, &entropy),
            RunId::new(&*clock, &entropy),
        ),
        subject: "member:test".to_owned(),
        role: AgentRole::Builder,
        repository: RepositoryGrant { name: "a/b".parse().unwrap(), base: "0".repeat(40).parse().unwrap() },
        budget: None,
        wall_ms: None,
        egress: vec!["allowed.test".parse().unwrap(), "allowed.test:80".parse().unwrap()],
        hosts: Vec::new(),
        secrets: Vec::new(),
        models: vec![ModelGrant { provider: "anthropic".to_owned(), model: "good-1".parse().unwrap() }],
        submodules: false,
        lfs: false,
        now_ms: NOW,
    })
    .unwrap();
    let quarantine =
        Quarantine::empty(Arc::clone(&git), dir.path().to_owned(), "0".repeat(40).parse().unwrap());
    let served = ServedRepository { name: "a/b".parse().unwrap(), quarantine };
    let config = BrokerConfig { resolver: Arc::new(Never), gateway, ..BrokerConfig::new(git, vec![served]) };
    let broker = Broker::new(config, Arc::new(LiveWarrant::new(warrant, clock)), control);
    // Nobody stops it.
    let (_never, stopped) = watch::channel(false);
    let shared = Arc::new(Shared::new(broker, stopped));
    tokio::time::pause();
    (dir, shared)
}

/// One connection of a run, to its end.
pub(crate) async fn converse(shared: &Arc<Shared>, near: DuplexStream) {
    serve(Arc::clone(shared), Link::Memory(near)).await;
}

pub(crate) fn client_of(shared: &Arc<Shared>) -> (DuplexStream, CountedStream) {
    let (far, near) = duplex(64 * 1024);
    let idle = shared.config.bounds.idle_time;
    (far, CountedStream::new(Link::Memory(near), Arc::clone(&shared.counters), idle))
}

/// Whether `begun` was `expected` ago. A bound is kept to the second.
#[track_caller]
pub(crate) fn took(begun: Instant, expected: Duration) {
    let took = begun.elapsed();
    assert!(took >= expected && took < expected + Duration::from_secs(3), "{took:?} and not {expected:?}");
}

pub(crate) async fn text_of(mut stream: DuplexStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hello() -> Vec<u8> {
    let name = b"allowed.test";
    let mut message = vec![3, 3];
    message.extend([7; 32]);
    message.extend([0, 0, 2, 0x13, 1, 1, 0]);
    let list = [&[0, 0, name.len() as u8][..], name].concat();
    let content = [&[0, list.len() as u8][..], &list].concat();
    let extension = [&[0, 0, 0, content.len() as u8][..], &content].concat();
    message.extend([0, extension.len() as u8]);
    message.extend(extension);
    let handshake = [&[1, 0, 0, message.len() as u8][..], &message].concat();
    [&[22, 3, 1, 0, handshake.len() as u8][..], &handshake].concat()
}

#[tokio::test]
async fn a_head_has_ten_seconds_however_it_trickles() {
    let (_dir, shared) = inside().await;
    let begun = Instant::now();
    let (mut far, near) = duplex(1024);
    let serving = tokio::spawn(serve(Arc::clone(&shared), Link::Memory(near)));
    let trickle = async {
        loop {
            if far.write_all(b"G").await.is_err() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
            let mut answer = [0; 12];
            if let Ok(Ok(_)) = tokio::time::timeout(Duration::ZERO, far.read_exact(&mut answer)).await {
                assert_eq!(&answer, b"HTTP/1.1 408");
                return;
            }
        }
    };
    trickle.await;
    took(begun, shared.config.bounds.head_time);
    drop(far);
    serving.await.unwrap();
}

#[tokio::test]
async fn a_hello_has_ten_seconds_and_the_host_hears_nothing() {
    late_hello(false).await;
}

#[tokio::test]
async fn a_hello_that_trickles_has_no_second_more() {
    late_hello(true).await;
}

async fn late_hello(trickles: bool) {
    let (_dir, shared) = inside().await;
    let begun = Instant::now();
    let (mut far, client) = client_of(&shared);
    let (host, upstream) = duplex(1024);
    let carrying = carry(&shared, client, upstream);
    let sending = async {
        for byte in hello() {
            if trickles {
                let _ = far.write_all(&[byte]).await;
            }
            sleep(Duration::from_millis(500)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = carrying => {}
        () = sending => {}
    }
    took(begun, shared.config.bounds.hello_time);
    assert_eq!(text_of(host).await, "");
    assert_eq!(shared.report().refusals[0].0.rule.id(), "tls-unreadable");
}

#[tokio::test]
async fn a_tunnel_may_be_silent_for_ten_minutes_at_a_time() {
    let (_dir, shared) = inside().await;
    let idle = shared.config.bounds.tunnel_idle_time;
    let (mut far, client) = client_of(&shared);
    let (mut host, upstream) = duplex(64 * 1024);
    let begun = Instant::now();
    let carrying = carry(&shared, client, upstream);
    let talking = async {
        far.write_all(&hello()).await.unwrap();
        let mut answer = [0; 39];
        far.read_exact(&mut answer).await.unwrap();
        host.read_exact(&mut vec![0; hello().len()]).await.unwrap();
        // Whichever side speaks, it counts.
        for _ in 0..5 {
            sleep(idle - Duration::from_secs(1)).await;
            far.write_all(b"x").await.unwrap();
            host.read_exact(&mut [0]).await.unwrap();
            sleep(idle - Duration::from_secs(1)).await;
            host.write_all(b"y").await.unwrap();
            far.read_exact(&mut [0]).await.unwrap();
        }
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "the end");
    };
    tokio::join!(carrying, talking);
    took(begun, idle * 11 - Duration::from_secs(10));
}

#[tokio::test]
async fn a_name_and_a_host_have_fifteen_seconds() {
    let (_dir, shared) = inside().await;
    let begun = Instant::now();
    let why = dial(&shared).await.unwrap_err();
    assert!(why.contains("in time"), "{why}");
    took(begun, shared.config.bounds.dial_time);
}

#[tokio::test]
async fn a_host_has_ten_minutes_to_begin_its_answer() {
    let (_dir, shared) = inside().await;
    let begun = Instant::now();
    let (mut far, client) = client_of(&shared);
    let (_host, upstream) = duplex(64 * 1024);
    far.write_all(b"GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n").await.unwrap();
    let (_, answer) = tokio::join!(pass_on(&shared, client, upstream), text_of(far));
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    took(begun, Bounds::default().answer_time);
}

#[tokio::test]
async fn an_answer_that_trickles_ends_with_the_time_of_one_request() {
    let (_dir, shared) = inside().await;
    let begun = Instant::now();
    let (mut far, client) = client_of(&shared);
    let (mut host, upstream) = duplex(64 * 1024);
    far.write_all(b"GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n").await.unwrap();
    let trickling = async {
        assert!(host.read(&mut [0; 1000]).await.unwrap() > 0);
        host.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await.unwrap();
        while host.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    let ((), (), answer) = tokio::join!(pass_on(&shared, client, upstream), trickling, text_of(far));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.len() < 3000, "{answer}");
    took(begun, shared.config.bounds.request_time);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_left_after_a_while() {
    let (_dir, shared) = inside().await;
    let begun = Instant::now();
    let (mut far, client) = client_of(&shared);
    let (mut host, upstream) = duplex(64 * 1024);
    far.write_all(b"GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n").await.unwrap();
    let pouring = async {
        assert!(host.read(&mut [0; 1000]).await.unwrap() > 0);
        host.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await.unwrap();
        while host.write_all(&[b'x'; 10_000]).await.is_ok() {}
    };
    tokio::join!(pass_on(&shared, client, upstream), pouring);
    took(begun, shared.config.bounds.answer_time + shared.config.bounds.idle_time);
}

#[tokio::test]
async fn a_push_may_be_silent_for_as_long_as_a_check_takes_and_a_minute() {
    let (_dir, shared) = inside().await;
    let bounds = shared.config.bounds;
    let begun = Instant::now();
    let (mut far, near) = duplex(1024);
    let serving = converse(&shared, near);
    let talking = async {
        far.write_all(
            b"POST /git/a/b.git/git-receive-pack HTTP/1.1\r\nHost: b\r\nContent-Length: 100\r\n\r\n",
        )
        .await
        .unwrap();
        // A byte in time is a byte in time.
        sleep(bounds.idle_time + bounds.check_time - Duration::from_secs(1)).await;
        far.write_all(b"0").await.unwrap();
        text_of(far).await
    };
    let ((), answer) = tokio::join!(serving, talking);
    assert!(!answer.contains("200"), "{answer}");
    took(begun, (bounds.idle_time + bounds.check_time) * 2 - Duration::from_secs(1));
}

#[tokio::test]
async fn a_client_that_does_not_send_what_it_promised_has_a_minute() {
    let (_dir, shared) = inside().await;
    let begun = Instant::now();
    let (mut far, client) = client_of(&shared);
    let (_host, upstream) = duplex(64 * 1024);
    far.write_all(b"POST http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 9\r\n\r\nx")
        .await
        .unwrap();
    let ((), answer) = tokio::join!(pass_on(&shared, client, upstream), text_of(far));
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    took(begun, shared.config.bounds.idle_time);
}

#[tokio::test]
async fn a_client_waits_for_a_slow_reader_as_long_as_for_an_answer() {
    let (_dir, shared) = inside().await;
    let begun = Instant::now();
    let (far, client) = client_of(&shared);
    // The host reads a little and never more.
    let (_host, upstream) = duplex(1024);
    let (mut reading, mut far) = tokio::io::split(far);
    let sending = async {
        far.write_all(
            b"POST http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 9000000\r\n\r\n",
        )
        .await
        .unwrap();
        while far.write_all(&[b'x'; 10_000]).await.is_ok() {}
    };
    let answered = async {
        let mut start = [0; 12];
        reading.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 504");
        took(begun, shared.config.bounds.answer_time);
    };
    tokio::select! {
        () = async { tokio::join!(pass_on(&shared, client, upstream), sending); } => panic!("no answer was read"),
        () = answered => {}
    }
}

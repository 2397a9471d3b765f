//! Tests of the bounds of time on the way to a provider and its money, in simulated time. The provider and the run are
//! memory, since simulated time does not wait for a kernel.

use super::client::NoAnswer;
use super::{GatewayClient, GatewayConfig, Pricer, Upstream, Wire};
use crate::limits::Bounds;
use crate::server::Shared;
use crate::server::simulated::{Never, converse, inside_of, text_of, took};
use crate::source::PlainHttp;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tipstaff_model::event::EventDraft;
use tipstaff_model::price::Rates;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    AuditDraft, BoxFuture, CallOutcome, ChargeAnswer, ChargeRequest, ChargeSettlement, ControlPlane,
    ControlPlaneError, FixedClock, FixedEntropy, Heartbeat, Price, Quote, Refusal,
};
use tipstaff_seal::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep};

const ASK: &str =
    r#"{"model":"good-1","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

const BEGINNING: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"good-1\",\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n";

const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// What is asked for money, and what comes of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Money {
    Granted,
    /// Others have it.
    Waits,
    /// Nobody says anything.
    Silent,
    /// It is granted, and its settlement is not taken.
    NeverSettled,
}

struct Ledger {
    money: Money,
    settled: Mutex<Vec<ChargeSettlement>>,
}

impl ControlPlane for Ledger {
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
    fn charge_reserve(
        &self,
        request: ChargeRequest,
    ) -> BoxFuture<'_, Result<ChargeAnswer, ControlPlaneError>> {
        Box::pin(async move {
            match self.money {
                Money::Granted | Money::NeverSettled => Ok(ChargeAnswer::Granted(request.most)),
                Money::Waits => Ok(ChargeAnswer::Wait),
                Money::Silent => std::future::pending().await,
            }
        })
    }
    fn charge_settle(&self, settlement: ChargeSettlement) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async move {
            if self.money == Money::NeverSettled {
                std::future::pending::<()>().await;
            }
            self.settled.lock().unwrap().push(settlement);
            Ok(())
        })
    }
}

struct Flat;

impl Pricer for Flat {
    fn quote(&self, _: &str, _: &str) -> Quote {
        let rates = Rates {
            input: 1_000_000,
            cache_read: 1_000_000,
            cache_write: 1_000_000,
            cache_write_1h: 1_000_000,
            output: 1_000_000,
        };
        let price = Price {
            rates,
            long: None,
            surcharges: Default::default(),
            context: 1_000_000,
            max_output: 1_000,
        };
        Quote { price, known: true, listed: "*".to_owned() }
    }
}

fn upstream() -> Upstream {
    let key = Some(Secret::new("sk-nobodys-00000000".to_owned()));
    Upstream::new("anthropic", Wire::Anthropic, "https://provider.test", key, PlainHttp::LoopbackOnly)
        .unwrap()
}

/// A broker's inside with a provider: its far end, as the provider sees it.
struct Scene {
    _dir: tempfile::TempDir,
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    provider: DuplexStream,
}

impl Scene {
    async fn new(money: Money) -> Self {
        let client = GatewayClient::with(&[], Arc::new(Never)).unwrap();
        let ledger = Arc::new(Ledger { money, settled: Mutex::default() });
        let gateway = GatewayConfig {
            upstreams: vec![upstream()],
            routes: Vec::new(),
            prices: Arc::new(Flat),
            client: client.clone(),
            clock: Arc::new(FixedClock::at(1_800_000_000_000)),
            entropy: Arc::new(FixedEntropy::seeded(7)),
        };
        let (_dir, shared) = inside_of(Arc::clone(&ledger) as _, Some(gateway)).await;
        let (provider, near) = duplex(64 * 1024);
        client.keep_memory(&upstream(), near).await;
        Self { _dir, shared, ledger, provider }
    }

    fn bounds(&self) -> Bounds {
        self.shared.config.bounds
    }

    /// Asks, as a run does, and reads to the end.
    async fn ask(&self) -> String {
        let (mut far, near) = duplex(64 * 1024);
        let request = format!(
            "POST /model/anthropic/v1/messages HTTP/1.1\r\nHost: b\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{ASK}",
            ASK.len()
        );
        far.write_all(request.as_bytes()).await.unwrap();
        let ((), answer) = tokio::join!(converse(&self.shared, near), text_of(far));
        answer
    }

    /// The one settlement, as soon as it is there.
    async fn settlement(&self) -> ChargeSettlement {
        for _ in 0..100 {
            if let Some(settled) = self.ledger.settled.lock().unwrap().first() {
                return settled.clone();
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing was settled");
    }
}

async fn chunk(stream: &mut DuplexStream, text: &str) -> std::io::Result<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await
}

#[tokio::test]
async fn a_provider_has_ten_minutes_to_begin_its_answer() {
    let scene = Scene::new(Money::Granted).await;
    let begun = Instant::now();
    let answer = scene.ask().await;
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("no answer in time"), "{answer}");
    took(begun, scene.bounds().model_answer_time);
    // It may have worked on it all the time.
    let settled = scene.settlement().await;
    assert!(settled.estimated && settled.cost.micro() > 0, "{settled:?}");
}

#[tokio::test]
async fn an_answer_may_be_silent_for_five_minutes_at_a_time() {
    let mut scene = Scene::new(Money::Granted).await;
    let idle = scene.bounds().model_idle_time;
    let (mut provider, _) = duplex(1);
    std::mem::swap(&mut provider, &mut scene.provider);
    let begun = Instant::now();
    let answering = async {
        assert!(provider.read(&mut [0; 4096]).await.unwrap() > 0);
        let head =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        provider.write_all(head).await.unwrap();
        chunk(&mut provider, BEGINNING).await.unwrap();
        for _ in 0..3 {
            sleep(idle - Duration::from_secs(1)).await;
            chunk(&mut provider, PING).await.unwrap();
        }
        // Then nothing more: who listens goes.
        let mut rest = Vec::new();
        let _ = provider.read_to_end(&mut rest).await;
    };
    let (answer, ()) = tokio::join!(scene.ask(), answering);
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    assert_eq!(answer.matches("event: ping").count(), 3, "{answer}");
    took(begun, idle * 4 - Duration::from_secs(3));
    assert_eq!(scene.settlement().await.outcome, CallOutcome::Aborted);
}

#[tokio::test]
async fn a_provider_has_fifteen_seconds_to_be_reached() {
    tokio::time::pause();
    let client = GatewayClient::with(&[], Arc::new(Never)).unwrap();
    let bounds = Bounds::default();
    let begun = Instant::now();
    let request = Request::new(Full::new(Bytes::new()));
    let reached = client.send(&upstream(), request, &bounds).await;
    assert_eq!(reached.unwrap_err(), NoAnswer::Unreachable("it did not answer in time"));
    took(begun, bounds.model_connect_time);
}

#[tokio::test]
async fn a_kept_connection_is_used_for_half_a_minute() {
    let bounds = Bounds::default();
    // It is silent: whoever uses it waits for an answer.
    after_a_pause(29, NoAnswer::Slow, bounds.model_answer_time).await;
}

#[tokio::test]
async fn a_connection_that_was_kept_longer_is_not_used() {
    let bounds = Bounds::default();
    // Another one would have to be made, which nobody answers.
    let why = NoAnswer::Unreachable("it did not answer in time");
    after_a_pause(31, why, bounds.model_connect_time).await;
}

async fn after_a_pause(seconds: u64, expected: NoAnswer, time: Duration) {
    let scene = Scene::new(Money::Granted).await;
    sleep(Duration::from_secs(seconds)).await;
    let client = scene.shared.config.gateway.as_ref().unwrap().client.clone();
    let begun = Instant::now();
    let sent = client.send(&upstream(), Request::new(Full::new(Bytes::new())), &scene.bounds()).await;
    assert_eq!(sent.unwrap_err(), expected);
    took(begun, time);
}

#[tokio::test]
async fn a_reservation_has_fifteen_seconds_and_nothing_is_asked_without_it() {
    let scene = Scene::new(Money::Silent).await;
    let begun = Instant::now();
    let answer = scene.ask().await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("no money could be reserved"), "{answer}");
    took(begun, scene.bounds().reserve_time);
    untouched(scene).await;
}

#[tokio::test]
async fn a_call_waits_five_minutes_for_the_money_of_others() {
    let scene = Scene::new(Money::Waits).await;
    let begun = Instant::now();
    let answer = scene.ask().await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("limit-reached"), "{answer}");
    took(begun, scene.bounds().money_wait_time);
    untouched(scene).await;
}

/// The provider was sent nothing.
async fn untouched(mut scene: Scene) {
    let read = tokio::time::timeout(Duration::from_secs(1), scene.provider.read(&mut [0; 1])).await;
    assert!(!matches!(read, Ok(Ok(1))), "a byte of a call that nobody pays");
}

#[tokio::test]
async fn the_end_of_a_run_waits_twenty_seconds_for_settlements() {
    let scene = Scene::new(Money::NeverSettled).await;
    // Its answer never comes, and it goes after a second.
    let asked = tokio::time::timeout(Duration::from_secs(1), scene.ask()).await;
    assert!(asked.is_err());
    let begun = Instant::now();
    scene.shared.ledger.close(scene.bounds().settle_time).await;
    took(begun, scene.bounds().settle_time);
}

//! Which way a request takes: routes, stand-ins, attempts, turns at an upstream, and logins.

use crate::gateway_support::{Act, Gate, KEY, MESSAGES, Scripted, post, quick};
use crate::support::until;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tipstaff_broker::{
    Bounds, GatewayClient, Hop, Login, LoginError, LoginToken, PlainHttp, Route, Upstream, Wire,
};
use tipstaff_model::{CallOutcome, Rule};
use tipstaff_seal::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const ASK: &str = r#"{"model":"good-1","max_tokens":100}"#;
const MESSAGES_PATH: &str = "/model/anthropic/v1/messages";
const DONE: &str = r#"{"model":"good-1","usage":{"input_tokens":10,"output_tokens":10}}"#;

/// Bounds whose pauses a test can wait for.
fn hasty() -> Bounds {
    Bounds {
        model_first_pause: Duration::from_millis(20),
        model_retry_pause: Duration::from_secs(1),
        model_retry_time: Duration::from_secs(5),
        ..quick()
    }
}

fn upstream(name: &str, wire: Wire, at: &Scripted) -> Upstream {
    let key = Some(Secret::new(KEY.to_owned()));
    Upstream::new(name, wire, &format!("http://{}", at.address), key, PlainHttp::LoopbackOnly).unwrap()
}

fn hop(upstream: &str, model: Option<&str>) -> Hop {
    Hop { upstream: upstream.to_owned(), model: model.map(str::to_owned) }
}

fn route(provider: &str, models: &str, hops: Vec<Hop>) -> Route {
    Route { provider: provider.to_owned(), models: models.parse().unwrap(), hops }
}

/// Nobody answers there.
fn absent(name: &str, wire: Wire) -> Upstream {
    Upstream::new(name, wire, "http://127.0.0.1:1", None, PlainHttp::LoopbackOnly).unwrap()
}

async fn gate(main: Scripted, bounds: Bounds, upstreams: Vec<Upstream>, routes: Vec<Route>) -> Gate {
    Gate::routed(main, 10_000_000, bounds, (upstreams, GatewayClient::new().unwrap()), routes).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_leads_to_another_upstream_under_another_name() {
    let (own, other) = (Scripted::start(|_, _| Act::json(DONE)).await, Scripted::start(|_, _| Act::json(r#"{"usage":{"input_tokens":1,"output_tokens":1},"model":"vendor.good-9","usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1}}"#)).await);
    let seen = Arc::clone(&other.seen);
    let upstreams = vec![
        upstream("anthropic", Wire::Anthropic, &own),
        upstream("proxy", Wire::Anthropic, &other),
        upstream("gemini", Wire::Gemini, &own),
        upstream("vertex", Wire::Gemini, &other),
        upstream("openai", Wire::OpenAi, &own),
    ];
    let routes = vec![
        route("anthropic", "good-1", vec![hop("proxy", Some("vendor.good-9"))]),
        route("gemini", "good-*", vec![hop("vertex", Some("good-2"))]),
        // Speaks something else, and one that is not there: never used, and nothing else is asked instead.
        route("openai", "good-*", vec![hop("proxy", None), hop("nobody", None)]),
    ];
    let mut gate = gate(own, hasty(), upstreams, routes).await;
    gate.post(MESSAGES_PATH, ASK).await.is(200);
    let settled = gate.settlement().await;
    assert_eq!((settled.provider.as_deref(), settled.model.as_str()), (Some("proxy"), "vendor.good-9"));
    assert!(seen.lock().unwrap()[0].contains(r#""model":"vendor.good-9""#), "{seen:?}");
    gate.post("/model/gemini/v1beta/models/good-1:generateContent", "{}").await.is(200);
    assert!(seen.lock().unwrap()[1].starts_with("POST /v1beta/models/good-2:generateContent "), "{seen:?}");
    // What the warrant names is what is asked, not what serves it.
    gate.post(MESSAGES_PATH, r#"{"model":"vendor.good-9","max_tokens":1}"#).await.is(403);
    gate.post("/model/proxy/v1/messages", ASK).await.is(403);
    let lost = gate.post("/model/openai/v1/responses", ASK).await;
    assert!(lost.is(502).pointer("/error/code").unwrap() == "route-empty", "{lost:?}");
    // A model without a route goes to the provider itself.
    gate.post(MESSAGES_PATH, r#"{"model":"good-3","max_tokens":1}"#).await.is(200);
    assert_eq!(gate.upstream.seen().len(), 1);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stand_in_serves_when_the_first_can_not_and_is_what_is_charged() {
    for (first, asked) in [(None, 0), (Some(500), 1), (Some(503), 1), (Some(529), 1)] {
        let main = Scripted::start(move |_, _| {
            Act::with(&format!("{} Oops", first.unwrap_or(500)), "application/json", "{}")
        })
        .await;
        let other = Scripted::start(|_, _| Act::events(&MESSAGES)).await;
        let seen = Arc::clone(&other.seen);
        let own = match first {
            None => absent("anthropic", Wire::Anthropic),
            Some(_) => upstream("anthropic", Wire::Anthropic, &main),
        };
        let upstreams = vec![own, upstream("proxy", Wire::Anthropic, &other)];
        let routes = vec![route("anthropic", "*", vec![hop("anthropic", None), hop("proxy", Some("new-1"))])];
        let mut gate = gate(main, hasty(), upstreams, routes).await;
        let answer = gate.post(MESSAGES_PATH, r#"{"model":"good-1","max_tokens":100,"stream":true}"#).await;
        answer.is(200);
        assert!(answer.whole && answer.body == MESSAGES.concat());
        let settled = gate.settlement().await;
        assert_eq!((settled.provider.as_deref(), settled.cost.micro()), (Some("proxy"), 305), "{settled:?}");
        assert_eq!((gate.upstream.seen().len(), seen.lock().unwrap().len()), (asked, 1), "{first:?}");
        let report = gate.stop().await;
        assert_eq!(report.model_calls, 1, "one call, whoever served");
        assert_eq!(gate.ledger.book.lock().unwrap().granted.len(), 1, "reserved once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_provider_is_asked_again_and_settled_once() {
    for (status, fields, count) in [
        ("503 Busy", "", 3),
        ("529 Overloaded", "", 3),
        ("502 Bad", "", 3),
        ("504 Slow", "", 3),
        ("429 Slow down", "retry-after-ms: 30\r\n", 3),
        ("529 Overloaded", "retry-after: 1\r\n", 2),
    ] {
        let main = Scripted::start(move |number, _| {
            if number + 1 < count {
                Act::Raw(format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{fields}content-length: 2\r\nconnection: close\r\n\r\n{{}}").into_bytes())
            } else {
                Act::json(DONE)
            }
        })
        .await;
        let upstreams = vec![upstream("anthropic", Wire::Anthropic, &main)];
        let mut gate = gate(main, hasty(), upstreams, Vec::new()).await;
        gate.post(MESSAGES_PATH, ASK).await.is(200);
        let settled = gate.settlement().await;
        assert_eq!(
            (settled.outcome, settled.status, settled.cost.micro()),
            (CallOutcome::Complete, 200, 110)
        );
        assert_eq!(settled.provider, None);
        assert_eq!(gate.upstream.seen().len(), count, "{status}");
        let report = gate.stop().await;
        assert_eq!((report.model_calls, report.model_cost.micro()), (1, 110));
        assert_eq!(gate.ledger.book.lock().unwrap().granted.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_worked_on_is_never_sent_twice() {
    let acts = [
        Act::Stream {
            kind: "text/event-stream",
            pieces: vec![MESSAGES[0].as_bytes().to_vec()],
            pause: Duration::ZERO,
            whole: false,
        },
        Act::Raw(Vec::new()),
        Act::Raw(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"half"
                .to_vec(),
        ),
        Act::Silence,
        Act::with("500 Oops", "application/json", "{}"),
        Act::with("429 No quota", "application/json", "{}"),
        Act::Raw(b"HTTP/1.1 529 Busy\r\nx-should-retry: false\r\ncontent-length: 0\r\n\r\n".to_vec()),
        Act::Raw(b"HTTP/1.1 429 Much later\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n".to_vec()),
        Act::with("200 OK", "text/html", "<p>"),
    ];
    for (number, act) in acts.into_iter().enumerate() {
        let main = Scripted::start(move |_, _| act.clone()).await;
        let upstreams = vec![upstream("anthropic", Wire::Anthropic, &main)];
        let bounds = Bounds { model_answer_time: Duration::from_millis(300), ..hasty() };
        let mut gate = gate(main, bounds, upstreams, Vec::new()).await;
        gate.post(MESSAGES_PATH, ASK).await;
        gate.settlement().await;
        assert_eq!(gate.upstream.seen().len(), 1, "case {number}");
        gate.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_and_their_time_are_bounded_and_the_last_answer_is_the_providers() {
    let main =
        Scripted::start(|_, _| Act::with("503 Busy", "application/json", r#"{"from":"the provider"}"#)).await;
    let upstreams = vec![upstream("anthropic", Wire::Anthropic, &main)];
    let mut gate = gate(main, hasty(), upstreams, Vec::new()).await;
    let answer = gate.post(MESSAGES_PATH, ASK).await;
    answer.is(503);
    assert!(answer.body.contains("from") && gate.upstream.seen().len() == 4, "{answer:?}");
    let settled = gate.settlement().await;
    assert_eq!((settled.outcome, settled.cost.micro()), (CallOutcome::Failed, 0));
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_while_it_is_waited_costs_nothing() {
    let main = Scripted::start(|_, _| Act::with("503 Busy", "application/json", "{}")).await;
    let upstreams = vec![upstream("anthropic", Wire::Anthropic, &main)];
    let bounds = Bounds { model_first_pause: Duration::from_secs(3), ..quick() };
    let mut gate = gate(main, bounds, upstreams, Vec::new()).await;
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(post(MESSAGES_PATH, "", ASK).as_bytes()).await.unwrap();
    until("a first attempt", || gate.upstream.seen().len() == 1).await;
    drop(stream);
    let settled = gate.settlement().await;
    assert_eq!((settled.outcome, settled.cost.micro()), (CallOutcome::Failed, 0));
    assert_eq!(gate.upstream.seen().len(), 1, "nothing is sent for somebody who went");
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_upstream_answers_at_once_and_comes_back() {
    let healthy = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&healthy);
    let main = Scripted::start(move |_, _| match told.load(Ordering::SeqCst) {
        0 => Act::with("502 Bad", "application/json", "{}"),
        _ => Act::json(DONE),
    })
    .await;
    let bounds =
        Bounds { model_attempts: 1, upstream_failures: 3, upstream_rest: Duration::from_secs(2), ..hasty() };
    for (path, name, wire) in [
        (MESSAGES_PATH, "anthropic", Wire::Anthropic),
        ("/model/openai/v1/responses", "openai", Wire::OpenAi),
        ("/model/gemini/v1beta/models/good-1:generateContent", "gemini", Wire::Gemini),
    ] {
        healthy.store(0, Ordering::SeqCst);
        let main =
            Scripted { address: main.address, seen: Arc::clone(&main.seen), lost: Arc::clone(&main.lost) };
        main.seen.lock().unwrap().clear();
        let upstreams = vec![upstream(name, wire, &main)];
        let mut gate = gate(main, bounds, upstreams, Vec::new()).await;
        for _ in 0..3 {
            gate.post(path, ASK).await.is(502);
        }
        let begun = Instant::now();
        let answer = gate.post(path, ASK).await;
        let value = answer.is(503);
        let text = value.pointer("/error/message").unwrap().as_str().unwrap();
        assert!(text.contains("left alone") && text.contains(name), "{text}");
        assert!(answer.head.contains("retry-after: "), "{answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(1) && gate.upstream.seen().len() == 3, "{answer:?}");
        healthy.store(1, Ordering::SeqCst);
        until("the upstream to be asked again", || {
            gate.upstream.seen().len() > 3 || {
                let address = gate.address;
                std::thread::spawn(move || {
                    use std::io::{Read, Write};
                    let mut stream = std::net::TcpStream::connect(address).unwrap();
                    stream.write_all(post(path, "Connection: close\r\n", ASK).as_bytes()).unwrap();
                    let mut text = Vec::new();
                    let _ = stream.read_to_end(&mut text);
                })
                .join()
                .unwrap();
                false
            }
        })
        .await;
        gate.post(path, ASK).await.is(200);
        gate.stop().await;
        let book = gate.ledger.book.lock().unwrap();
        assert!(book.open.is_empty(), "whatever was reserved is settled: {:?}", book.open);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_take_turns_at_an_upstream_and_too_many_are_shed() {
    for (path, name, wire, status) in [
        (MESSAGES_PATH, "anthropic", Wire::Anthropic, 529),
        ("/model/openai/v1/chat/completions", "openai", Wire::OpenAi, 429),
    ] {
        let main = Scripted::start(|_, _| Act::Stream {
            kind: "application/json",
            pieces: vec![DONE.as_bytes().to_vec()],
            pause: Duration::from_millis(600),
            whole: true,
        })
        .await;
        let made = upstream(name, wire, &main).with_calls(1.try_into().unwrap());
        let bounds = Bounds { upstream_queue: 3, ..hasty() };
        let mut gate = gate(main, bounds, vec![made], Vec::new()).await;
        let answers = (0..6).map(|_| {
            let address = gate.address;
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(post(path, "Connection: close\r\n", ASK).as_bytes()).await.unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                text
            })
        });
        let mut texts = Vec::new();
        for answer in answers.collect::<Vec<_>>() {
            texts.push(answer.await.unwrap());
        }
        let good = texts.iter().filter(|text| text.starts_with("HTTP/1.1 200")).count();
        let shed: Vec<_> =
            texts.iter().filter(|text| text.starts_with(&format!("HTTP/1.1 {status}"))).collect();
        assert_eq!((good, shed.len()), (4, 2), "{texts:?}");
        assert!(
            shed.iter().all(|text| text.contains("retry-after: 5") && text.contains("\"error\"")),
            "{shed:?}"
        );
        gate.stop().await;
        let book = gate.ledger.book.lock().unwrap();
        assert_eq!((book.granted.len(), book.settled.len(), book.open.len()), (6, 6, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_warrant_cuts_a_stream_and_only_what_arrived_is_paid() {
    // A prompt of 150 tokens and eleven letters arrive, then nothing for long; more would follow.
    let main = Scripted::start(|_, _| {
        let mut pieces: Vec<Vec<u8>> =
            MESSAGES.iter().take(3).map(|piece| piece.as_bytes().to_vec()).collect();
        pieces.extend(vec![MESSAGES[2].as_bytes().to_vec(); 400]);
        Act::Stream { kind: "text/event-stream", pieces, pause: Duration::from_millis(30), whole: true }
    })
    .await;
    let upstreams = vec![upstream("anthropic", Wire::Anthropic, &main)];
    let mut gate = gate(main, hasty(), upstreams, Vec::new()).await;
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(post(MESSAGES_PATH, "", ASK).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains("world") {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
    }
    let begun = Instant::now();
    gate.clock.advance(gate.warrant.left_ms());
    let _ = stream.read_to_end(&mut bytes).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    until("the upstream to be left", || gate.upstream.lost.load(Ordering::SeqCst) == 1).await;
    let settled = gate.settlement().await;
    assert_eq!((settled.outcome, settled.estimated), (CallOutcome::Aborted, true));
    assert_eq!((settled.usage.input, settled.usage.cache_read), (100, 50), "{settled:?}");
    // Of the answer: the letters that arrived, at three a token; never what would have followed.
    let text = String::from_utf8_lossy(&bytes).matches("world").count() as u64 * 5 + 6;
    let most = text.div_ceil(3) + 20;
    assert!((4..=most).contains(&settled.usage.output), "{settled:?} for {text} letters");
    assert_eq!(gate.post(MESSAGES_PATH, ASK).await.status, 403, "nothing more is served");
    let report = gate.stop().await;
    assert_eq!(report.model_cost, settled.cost);
    assert_eq!((gate.upstream.seen().len(), gate.ledger.book.lock().unwrap().granted.len()), (1, 1));
}

/// A login that a test turns.
struct Turned {
    program: &'static str,
    token: std::sync::Mutex<Result<LoginToken, LoginError>>,
}

impl Login for Turned {
    fn program(&self) -> &'static str {
        self.program
    }
    fn read(&self) -> Result<LoginToken, LoginError> {
        self.token.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_read_for_each_call_and_never_comes_in() {
    for (path, name, wire, program, account) in [
        (MESSAGES_PATH, "anthropic", Wire::Anthropic, "claude", None),
        ("/model/openai/v1/responses", "openai", Wire::OpenAi, "codex", Some("account-0123")),
    ] {
        // Echoes all that it was sent.
        let main = Scripted::start(|_, request| {
            Act::json(
                &serde_json::json!({"you sent": request, "usage": {"input_tokens": 1, "output_tokens": 1}})
                    .to_string(),
            )
        })
        .await;
        let token = |text: &str| {
            Ok(LoginToken { token: Secret::new(text.to_owned()), account: account.map(str::to_owned) })
        };
        let login = Arc::new(Turned {
            program,
            token: std::sync::Mutex::new(token("sk-ant-oat01-first-0123456789")),
        });
        let base = format!("http://{}", main.address);
        let made = Upstream::new(name, wire, &base, None, PlainHttp::LoopbackOnly).unwrap();
        let made = made.with_login(Arc::clone(&login) as Arc<dyn Login>).unwrap();
        let mut gate = gate(main, hasty(), vec![made], Vec::new()).await;
        let fields = "Authorization: Bearer mine\r\nX-Api-Key: mine\r\nChatGPT-Account-Id: mine\r\nAnthropic-Beta: other-1\r\nOriginator: codex_exec\r\n";
        for text in ["sk-ant-oat01-first-0123456789", "sk-ant-oat01-second-987654321"] {
            *login.token.lock().unwrap() = token(text);
            let answer = gate.send(&post(path, fields, ASK)).await;
            answer.is(200);
            assert!(!answer.body.contains(text) && answer.body.contains("[redacted:key]"), "{answer:?}");
            let seen = gate.upstream.seen().pop().unwrap();
            assert!(
                seen.contains(&format!("authorization: Bearer {text}\r\n")) && !seen.contains("mine"),
                "{seen}"
            );
            assert_eq!(seen.contains("oauth-2025-04-20"), wire == Wire::Anthropic, "{seen}");
            assert!(seen.contains("other-1") && seen.contains("originator: codex_exec"), "{seen}");
            assert_eq!(seen.contains("chatgpt-account-id: account-0123"), account.is_some(), "{seen}");
            assert!(account.is_none_or(|account| !answer.body.contains(account)), "{answer:?}");
        }
        *login.token.lock().unwrap() = Err(LoginError(format!("its time is over: run `{program}` once")));
        let answer = gate.post(path, ASK).await;
        let value = answer.is(401);
        assert!(
            value
                .pointer("/error/message")
                .unwrap()
                .as_str()
                .unwrap()
                .contains(&format!("run `{program}` once"))
        );
        assert_eq!(gate.upstream.seen().len(), 2, "nothing is asked without it");
        let report = gate.stop().await;
        assert!(report.refusals_by_rule[&Rule::KeyNotAccepted] >= 1);
        assert!(!format!("{report:?}").contains("oat01"));
        let book = gate.ledger.book.lock().unwrap();
        assert_eq!((book.settled.len(), book.open.len(), report.model_calls), (3, 0, 2));
    }
}

#[test]
fn a_login_goes_to_its_own_provider_or_stays_here() {
    let login = || {
        let token = LoginToken { token: Secret::new("sk-ant-oat01-x".to_owned()), account: None };
        Arc::new(Turned { program: "claude", token: std::sync::Mutex::new(Ok(token)) }) as Arc<dyn Login>
    };
    for (wire, base, fine) in [
        (Wire::Anthropic, "https://api.anthropic.com", true),
        (Wire::Anthropic, "http://127.0.0.1:9", true),
        (Wire::Anthropic, "https://api.anthropic.com:8443", false),
        (Wire::Anthropic, "https://api.anthropic.com.evil.test", false),
        (Wire::Anthropic, "https://models.example.com", false),
        (Wire::Anthropic, "http://10.0.0.1", false),
        (Wire::OpenAi, "https://chatgpt.com/backend-api/codex", true),
        (Wire::OpenAi, "https://api.openai.com", false),
        (Wire::Gemini, "https://generativelanguage.googleapis.com", false),
    ] {
        let made = Upstream::new("p", wire, base, None, PlainHttp::LoopbackOnly).unwrap().with_login(login());
        assert_eq!(made.is_ok(), fine, "{base}");
        if let Err(error) = made {
            assert_eq!(error.code(), "upstream-login");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstreams_models_are_listed_through_the_same_client() {
    let main = Scripted::start(|number, request| match number {
        0 => {
            assert!(request.starts_with("GET /v1/models?limit=1000 ") && request.contains(KEY), "{request}");
            Act::json(r#"{"data":[{"id":"good-1"},{"id":"good-2"}]}"#)
        }
        1 => Act::with("401 No", "application/json", "{}"),
        _ => Act::with("200 OK", "text/html", "<p>"),
    })
    .await;
    let (client, bounds) = (GatewayClient::new().unwrap(), quick());
    let made = upstream("anthropic", Wire::Anthropic, &main);
    assert_eq!(client.models(&made, &bounds).await.unwrap(), ["good-1", "good-2"]);
    assert_eq!(client.models(&made, &bounds).await.unwrap_err().code(), "key-not-accepted");
    assert_eq!(client.models(&made, &bounds).await.unwrap_err().code(), "upstream-answer");
    let gone = client.models(&absent("openai", Wire::OpenAi), &bounds).await.unwrap_err();
    assert_eq!(gone.code(), "upstream-unavailable");
}

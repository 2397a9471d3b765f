//! Money: reserved before, settled after, never overspent, and its end said as each agent understands it.

use crate::gateway_support::{Act, Gate, MESSAGES, Scripted, post, quick};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tipstaff_broker::{Bounds, BudgetEnd};
use tipstaff_model::{BudgetScope, CallOutcome, MicroUsd, Rule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_budget_is_said_in_each_providers_way() {
    for (path, status, pointer, word) in [
        ("/model/anthropic/v1/messages", 402, "/error/type", "billing_error"),
        ("/model/openai/v1/responses", 429, "/error/code", "insufficient_quota"),
        ("/model/openai/v1/chat/completions", 402, "/error/code", "insufficient_quota"),
        (
            "/model/gemini/v1beta/models/good-1:streamGenerateContent?alt=sse",
            402,
            "/error/status",
            "FAILED_PRECONDITION",
        ),
    ] {
        let upstream = Scripted::start(|_, _| Act::json("{}")).await;
        let mut gate = Gate::with(upstream, 10, quick(), true).await;
        let mut ended = gate.handle().budget_ended();
        assert_eq!(*ended.borrow_and_update(), None);
        let answer = gate.post(path, r#"{"model":"good-1","max_tokens":100}"#).await;
        let value = answer.is(status);
        assert_eq!(value.pointer(pointer).unwrap(), word, "{path}");
        assert!(value.pointer("/error/message").unwrap().as_str().unwrap().contains("budget-exceeded"));
        assert!(answer.head.contains("x-should-retry: false"), "{path}");
        ended.changed().await.unwrap();
        let end =
            BudgetEnd { scope: BudgetScope::Run, limit: MicroUsd::from_micro(10), spent: MicroUsd::ZERO };
        assert_eq!(*ended.borrow(), Some(end));
        assert!(gate.upstream.seen().is_empty(), "nothing was asked");
        assert_eq!(gate.stop().await.refusals_by_rule[&Rule::BudgetExceeded], 1);
        assert_eq!(gate.ledger.refusals.lock().unwrap()[0].rule, Rule::BudgetExceeded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_grant_lowers_the_answer_that_is_asked_for() {
    let upstream =
        Scripted::start(|_, _| Act::json(r#"{"usage":{"input_tokens":9,"output_tokens":9}}"#)).await;
    // 512 tokens of output and the likely prompt cost less than this, 1,000 and the worst prompt cost more.
    let mut gate = Gate::with(upstream, 7_000, quick(), true).await;
    gate.post("/model/anthropic/v1/messages", r#"{"model":"good-1","max_tokens":1000}"#).await.is(200);
    let sent = gate.upstream.seen();
    let lowered = sent[0].split("\"max_tokens\":").nth(1).unwrap().split(['}', ',']).next().unwrap();
    let lowered: u64 = lowered.parse().unwrap();
    assert!((512..700).contains(&lowered), "{lowered}");
    let thinking =
        r#"{"model":"good-1","max_tokens":1000,"thinking":{"type":"enabled","budget_tokens":900}}"#;
    gate.post("/model/anthropic/v1/messages", thinking).await.is(402);
    // What fits goes as it is.
    gate.post("/model/anthropic/v1/messages", r#"{"model":"good-1","max_tokens":100}"#).await.is(200);
    assert!(gate.upstream.seen()[1].contains("\"max_tokens\":100}"));
    gate.stop().await;
    assert!(gate.ledger.book.lock().unwrap().highest <= 7_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_ledger_nothing_is_asked() {
    let mut gate = Gate::new(|_, _| Act::json("{}")).await;
    gate.ledger.down.store(true, Ordering::SeqCst);
    let answer = gate.post("/model/anthropic/v1/messages", r#"{"model":"good-1","max_tokens":9}"#).await;
    assert!(
        answer
            .is(503)
            .pointer("/error/message")
            .unwrap()
            .as_str()
            .unwrap()
            .contains("no money could be reserved")
    );
    assert!(gate.upstream.seen().is_empty());
    let report = gate.stop().await;
    assert_eq!((report.model_calls, gate.ledger.book.lock().unwrap().spent), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_the_money_of_another_and_then_goes() {
    let upstream = Scripted::start(|_, _| Act::Stream {
        kind: "text/event-stream",
        pieces: MESSAGES.iter().map(|piece| piece.as_bytes().to_vec()).collect(),
        pause: Duration::from_millis(60),
        whole: true,
    })
    .await;
    // Enough for one reservation at a time; each call costs 305.
    let mut gate = Gate::with(upstream, 11_000, quick(), true).await;
    let body = r#"{"model":"good-1","max_tokens":1000,"stream":true}"#;
    let path = "/model/anthropic/v1/messages";
    let (a, b, c) = tokio::join!(gate.post(path, body), gate.post(path, body), gate.post(path, body));
    for answer in [a, b, c] {
        answer.is(200);
        assert!(answer.whole);
    }
    let report = gate.stop().await;
    assert_eq!((report.model_calls, report.model_cost.micro()), (3, 915));
    assert!(gate.ledger.book.lock().unwrap().highest <= 11_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_settles_what_is_open() {
    let mut gate = Gate::new(|_, _| Act::Silence).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        let request = post("/model/anthropic/v1/messages", "", r#"{"model":"good-1","max_tokens":9}"#);
        stream.write_all(request.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    crate::support::until("five requests upstream", || gate.upstream.seen().len() == 5).await;
    let report = gate.stop().await;
    let book = gate.ledger.book.lock().unwrap();
    assert_eq!((book.settled.len(), book.open.len(), report.model_calls), (5, 0, 5));
    assert!(book.settled.iter().all(|settled| settled.outcome == CallOutcome::Aborted && settled.estimated));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_model_is_flagged() {
    let mut gate =
        Gate::new(|_, _| Act::json(r#"{"model":"new-1","usage":{"input_tokens":1,"output_tokens":1}}"#))
            .await;
    gate.post("/model/anthropic/v1/messages", r#"{"model":"new-1","max_tokens":9}"#).await.is(200);
    assert!(gate.settlement().await.price_unknown);
    gate.stop().await;
}

/// Many calls at once, with every way to end, against a budget that does not suffice for all.
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_calls_aborts_and_failures_never_overspend_and_leave_nothing_reserved() {
    for (seed, budget) in [(1_u64, 40_000_u64), (2, 400_000), (3, 90_000)] {
        let upstream = Scripted::start(move |number, _| {
            let pieces =
                |count: usize| MESSAGES.iter().take(count).map(|piece| piece.as_bytes().to_vec()).collect();
            let pause = Duration::from_millis(u64::try_from(number % 4).unwrap());
            let kind = "text/event-stream";
            match (number as u64).wrapping_mul(31).wrapping_add(seed) % 8 {
                0 => Act::with("500 Oops", "application/json", "{}"),
                1 => Act::with("429 Slow", "application/json", "{}"),
                2 => Act::Stream { kind, pieces: pieces(2), pause, whole: false },
                3 => Act::Raw(b"garbage".to_vec()),
                4 => Act::with("200 OK", "text/html", "<p>"),
                _ => Act::Stream { kind, pieces: pieces(5), pause, whole: true },
            }
        })
        .await;
        let bounds = Bounds { connections: 400, model_calls: 64, ..quick() };
        let mut gate = Gate::with(upstream, budget, bounds, true).await;
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..250_u64 {
            let address = gate.address;
            clients.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let tokens = 100 + number * 7 % 900;
                let body = format!(
                    r#"{{"model":"good-1","stream":true,"max_tokens":{tokens},"x":"{}"}}"#,
                    "word ".repeat(50)
                );
                let _ = stream
                    .write_all(
                        post("/model/anthropic/v1/messages", "Connection: close\r\n", &body).as_bytes(),
                    )
                    .await;
                let mut bytes = vec![0_u8; 4096];
                // Every fifth client goes away at once, every seventh after the first bytes.
                if number % 5 != 0 {
                    let _ = stream.read(&mut bytes).await;
                    if number % 7 != 0 {
                        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes))
                            .await;
                    }
                }
            });
        }
        // Some are still waiting for money when the broker stops.
        let ran = tokio::time::timeout(Duration::from_secs(6), clients.join_all()).await;
        let report = gate.stop().await;
        drop(ran);
        let book = gate.ledger.book.lock().unwrap();
        assert!(book.highest <= budget, "{} of {budget}", book.highest);
        assert!(book.open.is_empty(), "{:?}", book.open);
        assert_eq!(book.granted.len(), book.settled.len(), "one settlement for each reservation");
        assert_eq!(book.spent, book.settled.iter().map(|settled| settled.cost.micro()).sum::<u64>());
        assert!(report.model_calls > 10, "{report:?}");
        for (request, granted) in &book.granted {
            assert!(*granted >= request.least.micro() && *granted <= request.most.micro());
            let settled = book.settled.iter().find(|settled| settled.call == request.call).unwrap();
            assert!(settled.cost.micro() <= *granted, "{settled:?} of {granted}");
        }
    }
}

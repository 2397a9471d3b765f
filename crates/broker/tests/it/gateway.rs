//! Calls that go well, and upstreams that don't.

use crate::gateway_support::{Act, Answer, Gate, KEY, MESSAGES, Scripted, post, quick, read_answer};
use crate::support::until;
use std::time::Duration;
use tipstaff_broker::Bounds;
use tipstaff_model::{CallOutcome, Rule, Usage};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const ASK: &str =
    r#"{"model":"good-1","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_passed_on_as_it_is_and_metered() {
    let mut gate = Gate::new(|_, _| Act::events(&MESSAGES)).await;
    let answer = gate.post("/model/anthropic/v1/messages?beta=true", ASK).await;
    answer.is(200);
    assert_eq!(answer.body, MESSAGES.concat(), "not a byte is changed");
    assert!(answer.whole && answer.head.contains("content-type: text/event-stream"));
    let settled = gate.settlement().await;
    let usage = Usage { input: 100, cache_read: 50, output: 20, ..Usage::default() };
    assert_eq!(
        (settled.usage, settled.estimated, settled.outcome, settled.status),
        (usage, false, CallOutcome::Complete, 200)
    );
    assert_eq!((settled.cost.micro(), settled.price_unknown), (100 + 5 + 200, false));
    let seen = gate.upstream.seen();
    assert!(seen[0].starts_with("POST /v1/messages?beta=true HTTP/1.1\r\n"), "{seen:?}");
    assert!(seen[0].contains(&format!("x-api-key: {KEY}")) && seen[0].contains("accept-encoding: identity"));
    let report = gate.stop().await;
    assert_eq!((report.model_calls, report.model_usage, report.model_cost.micro()), (1, usage, 305));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_answer_is_metered() {
    let mut gate = Gate::new(|_, request| {
        let path = request.split(' ').nth(1).unwrap();
        match path {
            "/v1/messages" => Act::json(r#"{"model":"good-1","usage":{"input_tokens":7,"output_tokens":3}}"#),
            "/v1/responses" if request.contains("\"stream\":true") => Act::events(&[
                "data: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n",
                "data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":7,\"output_tokens\":3}}}\n\n",
            ]),
            "/v1/responses" => Act::json(r#"{"usage":{"input_tokens":7,"output_tokens":3}}"#),
            "/v1/chat/completions" if request.contains("include_usage\":true") => Act::events(&[
                "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n",
                "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n",
            ]),
            "/v1/chat/completions" => Act::json(r#"{"usage":{"prompt_tokens":7,"completion_tokens":3}}"#),
            "/v1beta/models/good-1:streamGenerateContent?alt=sse" => Act::events(&[
                "data: {\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":7,\"candidatesTokenCount\":1,\"thoughtsTokenCount\":2}}\n\n",
            ]),
            "/v1beta/models/good-1:streamGenerateContent" => {
                Act::json(r#"[{"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":3}}]"#)
            }
            "/v1beta/models/good-1:generateContent" => {
                Act::json(r#"{"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":3}}"#)
            }
            other => panic!("{other}"),
        }
    })
    .await;
    let calls = [
        ("/model/anthropic/v1/messages", r#"{"model":"good-1","max_tokens":10}"#),
        ("/model/openai/v1/responses", r#"{"model":"good-1","stream":true,"input":"x"}"#),
        ("/model/openai/v1/responses", r#"{"model":"good-1","input":"x"}"#),
        ("/model/openai/v1/chat/completions", r#"{"model":"good-1","stream":true}"#),
        ("/model/openai/v1/chat/completions", r#"{"model":"good-1"}"#),
        ("/model/gemini/v1beta/models/good-1:streamGenerateContent?alt=sse&key=none", "{}"),
        ("/model/gemini/v1beta/models/good-1:streamGenerateContent", "{}"),
        ("/model/gemini/v1beta/models/good-1:generateContent", "{}"),
    ];
    for (path, body) in calls {
        gate.post(path, body).await.is(200);
    }
    let report = gate.stop().await;
    let book = gate.ledger.book.lock().unwrap();
    for settled in &book.settled {
        assert_eq!((settled.usage.input, settled.usage.output), (7, 3), "{settled:?}");
        assert_eq!((settled.outcome, settled.estimated), (CallOutcome::Complete, false));
    }
    assert_eq!((book.settled.len(), report.model_calls), (calls.len(), 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_tokens_and_listing_models_cost_nothing() {
    let mut gate = Gate::new(|_, _| Act::json("{\"input_tokens\":5}")).await;
    gate.post("/model/anthropic/v1/messages/count_tokens", r#"{"model":"good-1"}"#).await.is(200);
    gate.send("GET /model/openai/v1/models HTTP/1.1\r\nHost: b\r\n\r\n").await.is(200);
    let body = r#"{"contents":[]}"#;
    gate.post("/model/gemini/v1beta/models/good-1:countTokens", body).await.is(200);
    gate.post("/model/anthropic/v1/messages/count_tokens", r#"{"model":"other"}"#).await.is(403);
    let report = gate.stop().await;
    assert_eq!(report.model_calls, 0);
    assert!(gate.ledger.book.lock().unwrap().granted.is_empty());
    assert_eq!(gate.upstream.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_one_model_request_after_another() {
    let mut gate = Gate::new(|_, _| Act::events(&MESSAGES)).await;
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    for _ in 0..5 {
        stream.write_all(post("/model/anthropic/v1/messages", "", ASK).as_bytes()).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert!(
            answer.status == 200 && answer.whole && !answer.head.contains("connection: close"),
            "{answer:?}"
        );
    }
    drop(stream);
    let report = gate.stop().await;
    assert_eq!((report.model_calls, report.connections), (5, 1));
    assert!(gate.ledger.book.lock().unwrap().open.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_arrive_when_they_are_sent() {
    let mut gate = Gate::new(|_, _| Act::Stream {
        kind: "text/event-stream",
        pieces: MESSAGES.iter().map(|piece| piece.as_bytes().to_vec()).collect(),
        pause: Duration::from_millis(300),
        whole: true,
    })
    .await;
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(post("/model/anthropic/v1/messages", "", ASK).as_bytes()).await.unwrap();
    let begun = tokio::time::Instant::now();
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains("message_start") {
        assert_ne!(tokio::io::AsyncReadExt::read_buf(&mut stream, &mut bytes).await.unwrap(), 0);
    }
    assert!(begun.elapsed() < Duration::from_millis(1_000), "the first piece does not wait for the last");
    assert!(!String::from_utf8_lossy(&bytes).contains("message_stop"));
    drop(stream);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_cut_and_settled_with_what_came() {
    let mut gate = Gate::new(|_, _| Act::Stream {
        kind: "text/event-stream",
        pieces: MESSAGES.iter().take(3).map(|piece| piece.as_bytes().to_vec()).collect(),
        pause: Duration::ZERO,
        whole: false,
    })
    .await;
    let answer = gate.post("/model/anthropic/v1/messages", ASK).await;
    assert_eq!((answer.status, answer.whole, answer.body), (200, false, MESSAGES[..3].concat()));
    let settled = gate.settlement().await;
    assert_eq!((settled.outcome, settled.estimated), (CallOutcome::Aborted, true));
    assert_eq!((settled.usage.input, settled.usage.cache_read), (100, 50));
    assert!((4..=100).contains(&settled.usage.output), "{settled:?}");
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_ends_the_upstream_and_is_settled() {
    let gate = Gate::new(|number, _| {
        if number == 0 {
            Act::Stream {
                kind: "text/event-stream",
                pieces: vec![MESSAGES[0].as_bytes().to_vec(); 100],
                pause: Duration::from_millis(100),
                whole: true,
            }
        } else {
            Act::Silence
        }
    })
    .await;
    for count in 1..=2 {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(post("/model/anthropic/v1/messages", "", ASK).as_bytes()).await.unwrap();
        until("a request upstream", || gate.upstream.seen().len() == count).await;
        drop(stream);
        until("the end of the upstream's connection", || {
            gate.upstream.lost.load(std::sync::atomic::Ordering::SeqCst) == count
        })
        .await;
        until("a settlement", || gate.ledger.book.lock().unwrap().settled.len() == count).await;
    }
    let book = gate.ledger.book.lock().unwrap();
    assert!(book.open.is_empty());
    for settled in &book.settled {
        assert_eq!((settled.outcome, settled.estimated), (CallOutcome::Aborted, true), "{settled:?}");
        assert!(settled.usage.prompt() > 0, "the prompt was worked on: {settled:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_provider_are_passed_on_and_cost_nothing() {
    let error = r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}"#;
    for (answer, status, field) in [
        (
            format!(
                "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 7\r\nset-cookie: a=b\r\ncontent-length: {}\r\n\r\n{error}",
                error.len()
            ),
            429,
            "retry-after: 7",
        ),
        (
            format!(
                "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{error}",
                error.len()
            ),
            429,
            "content-type: application/json",
        ),
        (
            "HTTP/1.1 500 Oops\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\noops".to_owned(),
            500,
            "text/html",
        ),
        ("HTTP/1.1 529 Overloaded\r\ncontent-length: 0\r\n\r\n".to_owned(), 529, "chunked"),
    ] {
        let mut gate = Gate::new(move |_, _| Act::Raw(answer.clone().into_bytes())).await;
        let answer = gate.post("/model/anthropic/v1/messages", ASK).await;
        answer.is(status);
        assert!(answer.head.contains(field) && !answer.head.contains("cookie"), "{answer:?}");
        let settled = gate.settlement().await;
        assert_eq!((settled.outcome, settled.cost.micro(), settled.status), (CallOutcome::Failed, 0, status));
        gate.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_accepted_is_said_in_the_providers_shape() {
    for (status, path, pointer) in [
        (401, "/model/anthropic/v1/messages", "/error/message"),
        (403, "/model/openai/v1/responses", "/error/message"),
        (401, "/model/gemini/v1beta/models/good-1:generateContent", "/error/message"),
    ] {
        let mut gate =
            Gate::new(move |_, _| Act::with(&format!("{status} No"), "text/plain", "your key is bad")).await;
        let answer = gate.post(path, r#"{"model":"good-1"}"#).await;
        let value = answer.is(status);
        let text = value.pointer(pointer).unwrap().as_str().unwrap();
        assert!(text.contains("was not accepted") && text.contains("tipstaff secrets set"), "{text}");
        assert!(answer.head.contains("x-should-retry: false"));
        assert_eq!(gate.settlement().await.outcome, CallOutcome::Failed);
        assert_eq!(gate.stop().await.refusals_by_rule[&Rule::KeyNotAccepted], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none_become_errors_in_the_providers_shape() {
    let cases: [(Act, u16); 5] = [
        (Act::with("302 Found", "text/html", "elsewhere"), 424),
        (Act::with("200 OK", "text/html", "<h1>log in</h1>"), 424),
        (Act::Raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}".to_vec()), 424),
        (Act::Raw(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()), 502),
        (Act::Silence, 504),
    ];
    for (act, status) in cases {
        let mut gate = Gate::new(move |_, _| act.clone()).await;
        let answer = gate.post("/model/openai/v1/chat/completions", r#"{"model":"good-1"}"#).await;
        let value = answer.is(status);
        assert!(
            value
                .pointer("/error/message")
                .unwrap()
                .as_str()
                .unwrap()
                .starts_with("tipstaff: the upstream of openai")
        );
        gate.settlement().await;
        assert_eq!(gate.upstream.seen().len(), 1, "nothing is asked twice");
        gate.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_not_there_costs_nothing() {
    let upstream = Scripted {
        address: "127.0.0.1:1".parse().unwrap(),
        seen: Default::default(),
        lost: Default::default(),
    };
    let mut gate = Gate::with(upstream, 1_000_000, quick(), true).await;
    gate.post("/model/openai/v1/responses", r#"{"model":"good-1"}"#).await.is(502);
    let settled = gate.settlement().await;
    assert_eq!((settled.outcome, settled.cost.micro(), settled.status), (CallOutcome::Failed, 0, 0));
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_answer_is_cut_at_its_bound() {
    let piece = vec![b' '; 64 * 1024];
    let act = Act::Stream {
        kind: "application/json",
        pieces: vec![piece; 1_600],
        pause: Duration::ZERO,
        whole: true,
    };
    let upstream = Scripted::start(move |_, _| act.clone()).await;
    let bounds = Bounds { model_answer_bytes: 4 * 1024 * 1024, ..quick() };
    let mut gate = Gate::with(upstream, 1_000_000, bounds, true).await;
    let answer: Answer = gate.post("/model/openai/v1/responses", r#"{"model":"good-1"}"#).await;
    assert!(!answer.whole && answer.body.len() <= 4 * 1024 * 1024);
    assert_eq!(gate.settlement().await.outcome, CallOutcome::Aborted);
    assert_eq!(gate.stop().await.refusals_by_rule[&Rule::LimitReached], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_requests_and_chunks_are_read_and_bombs_are_refused() {
    let mut gate = Gate::new(|_, _| Act::events(&MESSAGES)).await;
    let gzip = |bytes: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut writer, bytes).unwrap();
        writer.finish().unwrap()
    };
    let send = async |head: &str, body: &[u8]| {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(body).await;
        read_answer(&mut stream).await.status
    };
    let path = "POST /model/anthropic/v1/messages HTTP/1.1\r\nHost: b\r\n";
    let body = gzip(ASK.as_bytes());
    let head = format!("{path}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
    assert_eq!(send(&head, &body).await, 200);
    let (a, b) = ASK.split_at(9);
    let chunked = format!("{:x}\r\n{a}\r\n{:X}\r\n{b}\r\n0\r\n\r\n", a.len(), b.len());
    let head = format!("{path}Transfer-Encoding: chunked\r\n\r\n");
    assert_eq!(send(&head, chunked.as_bytes()).await, 200);
    for bad in [
        "zz\r\n",
        "5;x=y\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "0\r\nX: y\r\n\r\n",
        "5\nhello",
        "-5\r\n",
        "ffffffff1\r\n",
    ] {
        assert_eq!(send(&head, bad.as_bytes()).await, 400, "{bad:?}");
    }
    let bomb = gzip(&vec![b' '; 40 * 1024 * 1024]);
    let head = format!("{path}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bomb.len());
    assert_eq!(send(&head, &bomb).await, 413);
    assert_eq!(send(&format!("{path}Content-Length: 99999999\r\n\r\n"), b"").await, 413);
    assert_eq!(send(&format!("{path}Content-Encoding: br\r\nContent-Length: 1\r\n\r\n"), b"x").await, 415);
    let report = gate.stop().await;
    assert_eq!(report.model_calls, 2);
}

//! Attacks on the gateway: for the key, for other models, for other places, for more time.

use crate::gateway_support::{Act, Gate, KEY, MESSAGES, Scripted, post, quick, read_answer};
use crate::support::until;
use std::time::Duration;
use tipstaff_model::{CallOutcome, Rule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ASK: &str = r#"{"model":"good-1","max_tokens":100}"#;

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_brings_the_key_in() {
    // An upstream that echoes what it got, key and all, in the head, in the body and in an error, cut in the middle.
    let echo = |request: &str| {
        let json = serde_json::json!({"you sent": request, "usage": {"input_tokens": 1, "output_tokens": 1}})
            .to_string();
        let (a, b) = json.split_at(json.find(KEY).unwrap() + 9);
        let base64 = "c2stcmVhbC0zYzFmMGE3N2U1ZDk0YjJh";
        let (c, d) = base64.split_at(5);
        let head = format!(
            "HTTP/1.1 200 OK\r\nx-api-key: {KEY}\r\nx-request-id: {KEY}\r\nrequest-id: fine\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        format!("{head}{}{}{}{}0\r\n\r\n", chunk(a), chunk(b), chunk(c), chunk(d)).into_bytes()
    };
    let mut gate = Gate::new(move |number, request| {
        if number % 2 == 0 {
            Act::Raw(echo(request))
        } else {
            Act::with("400 Bad", "application/json", &format!("{{\"error\":\"{KEY}\"}}"))
        }
    })
    .await;
    for (path, body) in [
        ("/model/anthropic/v1/messages", ASK),
        ("/model/anthropic/v1/messages", ASK),
        ("/model/openai/v1/responses", ASK),
        ("/model/openai/v1/responses", ASK),
        ("/model/gemini/v1beta/models/good-1:generateContent", "{}"),
    ] {
        let answer = gate.post(path, body).await;
        let all = format!("{}{}", answer.head, answer.body);
        assert!(answer.body.contains("[redacted:key]"), "{all}");
        for spelling in [KEY, &KEY.to_ascii_lowercase(), "c2stcmVhbC0zYzFmMGE3N2U1ZDk0YjJ"] {
            assert!(!all.contains(spelling), "{all}");
        }
        assert!(!answer.head.contains("x-api-key") && !answer.head.contains("x-request-id"));
    }
    let report = gate.stop().await;
    assert!(report.refusals_by_rule[&Rule::KeyNotAccepted] >= 5, "it is noted: {report:?}");
    assert!(!format!("{report:?}").contains(KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandboxes_own_credentials_and_ways_are_dropped() {
    let mut gate = Gate::new(|_, _| Act::json(r#"{"usage":{}}"#)).await;
    let fields = "Authorization: Bearer stolen-1\r\nX-Api-Key: stolen-2\r\nX-Goog-Api-Key: stolen-3\r\nCookie: stolen-4\r\n\
        Forwarded: for=stolen-5\r\nX-Forwarded-Host: stolen-6\r\nProxy-Authorization: stolen-7\r\nX-HTTP-Method-Override: DELETE\r\n\
        OpenAI-Organization: stolen-8\r\nConnection: close, x-api-key\r\nX-Goog-User-Project: stolen-9\r\nVia: stolen\r\n\
        Anthropic-Beta: wanted-beta\r\nAnthropic-Version: 2023-06-01\r\nUser-Agent: agent/1\r\n";
    for path in [
        "/model/anthropic/v1/messages",
        "/model/openai/v1/responses?api-key=stolen",
        "/model/gemini/v1beta/models/good-1:generateContent?key=stolen&alt=json",
    ] {
        gate.send(&post(path, fields, ASK)).await.is(200);
    }
    for seen in gate.upstream.seen() {
        assert!(!seen.contains("stolen") && !seen.to_ascii_lowercase().contains("override"), "{seen}");
        assert!(
            seen.contains("anthropic-beta: wanted-beta") && seen.contains("user-agent: agent/1"),
            "{seen}"
        );
        assert_eq!(seen.matches(KEY).count(), 1, "{seen}");
        assert!(seen.contains(&format!("host: {}", gate.upstream.address)), "{seen}");
    }
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_models_providers_and_endpoints_are_refused_in_the_providers_shape() {
    let mut gate = Gate::new(|_, _| Act::json("{}")).await;
    let messages = "/model/anthropic/v1/messages";
    for (path, body, status, rule) in [
        (messages, r#"{"model":"evil-1","max_tokens":9}"#, 403, "model-not-granted"),
        (messages, r#"{"model":"Good-1","max_tokens":9}"#, 403, "model-not-granted"),
        (messages, r#"{"model":" good-1","max_tokens":9}"#, 400, "request-ambiguous"),
        (messages, r#"{"model":"good-1","model":"evil-1"}"#, 400, "request-ambiguous"),
        (messages, r#"{"model":"good-1","Model":"evil-1"}"#, 400, "request-ambiguous"),
        (messages, r#"{"model":"good-1","mode\u006c":"evil-1"}"#, 400, "request-ambiguous"),
        (
            messages,
            r#"{"model":"good-1","tools":[{"type":"advisor","model":"evil-1"}]}"#,
            403,
            "model-not-granted",
        ),
        (
            messages,
            r#"{"model":"good-1","mcp_servers":[{"url":"https://evil.test"}]}"#,
            400,
            "request-not-served",
        ),
        (
            "/model/openai/v1/chat/completions",
            r#"{"model":"good-1","models":["evil-1"]}"#,
            400,
            "request-not-served",
        ),
        (
            "/model/openai/v1/responses",
            r#"{"model":"good-1","previous_response_id":"r"}"#,
            400,
            "request-not-served",
        ),
        ("/model/openai/v1/responses", r#"{"model":"evil-1"}"#, 400, "model-not-granted"),
        ("/model/openai/v1/responses", "not json", 400, "request-ambiguous"),
        ("/model/openai/v1/embeddings", ASK, 404, "request-not-served"),
        ("/model/openai/v1/files", ASK, 404, "request-not-served"),
        ("/model/anthropic/v1/messages/batches", ASK, 404, "request-not-served"),
        ("/model/gemini/v1beta/models/evil-1:generateContent", "{}", 403, "model-not-granted"),
        (
            "/model/gemini/v1beta/models/good-1:generateContent",
            r#"{"model":"models/evil-1"}"#,
            400,
            "request-ambiguous",
        ),
        (
            "/model/gemini/v1beta/models/good-1:generateContent",
            r#"{"cachedContent":"cachedContents/x"}"#,
            400,
            "request-not-served",
        ),
        ("/model/other/v1/messages", ASK, 403, "model-not-granted"),
        ("/model/absent/v1/messages", ASK, 404, "request-not-served"),
        ("/model/../v1/messages", ASK, 404, "request-not-served"),
        ("/model/anthropic/../openai/v1/responses", ASK, 404, "request-not-served"),
        ("/model/anthropic//v1/messages", ASK, 404, "request-not-served"),
        ("/model/anthropic/v1/%6dessages", ASK, 404, "request-not-served"),
        ("/model/anthropic@evil.test/v1/messages", ASK, 404, "request-not-served"),
        ("/model/anthropic/v1/messages?beta=true&x", ASK, 200, ""),
    ] {
        let answer = gate.post(path, body).await;
        let value = answer.is(status);
        if !rule.is_empty() {
            let text = value.pointer("/error/message").unwrap().as_str().unwrap();
            assert!(text.contains(rule), "{path} {body}: {text}");
            assert!(answer.head.contains("x-should-retry: false"), "{answer:?}");
        }
    }
    let get = "GET /model/anthropic/v1/messages HTTP/1.1\r\nHost: b\r\n\r\n";
    gate.send(get).await.is(404);
    assert_eq!(gate.upstream.seen().len(), 1, "only what is granted was asked");
    let report = gate.stop().await;
    assert_eq!(report.refusals_total(), 26);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gateway_every_model_request_is_refused() {
    let upstream = Scripted::start(|_, _| Act::json("{}")).await;
    let mut gate = Gate::with(upstream, 1_000, quick(), false).await;
    let answer = gate.post("/model/anthropic/v1/messages", ASK).await;
    assert_eq!(answer.is(404).pointer("/error/type").unwrap(), "not_found_error");
    assert_eq!(gate.stop().await.refusals_by_rule[&Rule::RequestNotServed], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_past_the_gateway() {
    let mut gate = Gate::new(|_, _| Act::json(r#"{"usage":{"input_tokens":1,"output_tokens":1}}"#)).await;
    let path = "/model/anthropic/v1/messages";
    let inner = post(path, "", r#"{"model":"good-1","max_tokens":1}"#);
    for fields in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", inner.len()),
        format!("Content-Length: 0\r\nContent-Length: {}\r\n", inner.len()),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Content-Length: +3\r\n".to_owned(),
    ] {
        let answer =
            gate.send(&format!("POST {path} HTTP/1.1\r\nHost: b\r\n{fields}\r\n0\r\n\r\n{inner}")).await;
        assert_eq!(answer.status, 400, "{fields}: {answer:?}");
    }
    assert!(gate.upstream.seen().is_empty());
    // A second request before the first one's answer is never served, and the connection ends.
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(format!("{inner}{inner}{inner}").as_bytes()).await.unwrap();
    let mut all = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut all)).await.unwrap().unwrap();
    assert_eq!(all.matches("HTTP/1.1 200").count(), 1, "{all}");
    assert_eq!(gate.upstream.seen().len(), 1);
    // On a kept connection every request is read as strictly as the first one, and other doors stay as they are.
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(inner.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.status, 200);
    stream.write_all(b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n").await.unwrap();
    assert_eq!(read_answer(&mut stream).await.status, 403);
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(inner.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.status, 200);
    stream.write_all(format!("POST {path} HTTP/1.1\nHost: b\n\n").as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.status, 400);
    // The absolute form reaches us under our own address only; a host field never says where a request goes.
    let absolute = |host: &str| {
        post(&format!("http://{host}{path}"), "", ASK).replace("Host: b", &format!("Host: {host}"))
    };
    assert_eq!(gate.send(&absolute(&gate.address.to_string())).await.status, 200);
    assert_eq!(gate.send(&absolute("api.anthropic.com")).await.status, 403);
    assert_eq!(gate.send(&post(path, "", ASK).replace("Host: b", "Host: evil.test")).await.status, 200);
    assert!(gate.upstream.seen().iter().all(|seen| !seen.contains("evil")));
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_warrant_cuts_streams_at_once_and_settles_them() {
    let mut gate = Gate::new(|_, _| Act::Stream {
        kind: "text/event-stream",
        pieces: vec![MESSAGES[0].as_bytes().to_vec(); 200],
        pause: Duration::from_millis(50),
        whole: true,
    })
    .await;
    let mut stream = TcpStream::connect(gate.address).await.unwrap();
    stream.write_all(post("/model/anthropic/v1/messages", "", ASK).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains("message_start") {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
    }
    gate.warrant.revoke();
    let ended = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut bytes)).await;
    assert!(ended.is_ok(), "it must end by itself");
    until("the upstream to be left", || gate.upstream.lost.load(std::sync::atomic::Ordering::SeqCst) == 1)
        .await;
    assert_eq!(gate.settlement().await.outcome, CallOutcome::Aborted);
    assert_eq!(gate.post("/model/anthropic/v1/messages", ASK).await.status, 403);
    assert_eq!(gate.upstream.seen().len(), 1);
    gate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_bound_are_told_to_come_back() {
    let upstream = Scripted::start(|_, _| Act::Silence).await;
    let bounds = tipstaff_broker::Bounds { model_calls: 2, ..quick() };
    let mut gate = Gate::with(upstream, 1_000_000, bounds, true).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(gate.address).await.unwrap();
        stream.write_all(post("/model/anthropic/v1/messages", "", ASK).as_bytes()).await.unwrap();
        streams.push(stream);
    }
    until("two requests upstream", || gate.upstream.seen().len() == 2).await;
    let answer = gate.post("/model/anthropic/v1/messages", ASK).await;
    answer.is(429);
    assert!(answer.head.contains("retry-after: 1") && !answer.head.contains("x-should-retry"), "{answer:?}");
    gate.stop().await;
}

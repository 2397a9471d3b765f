//! Plain HTTP through the broker: requests and answers that two readers would read differently, rules by method and
//! path, and what exactly arrives.

use crate::egress_support::{Raw, Upstream, Way, beside, world_to};
use std::io::Write;
use tipstaff_model::Rule;
use tipstaff_model::warrant::{HostRules, RequestRule};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_two_readers_read_differently_reach_nobody() {
    let upstream = Upstream::answering(OK);
    let mut world = world_to(upstream.address, Way::default()).await;
    let host = upstream.host();
    let smuggled = format!("GET http://{host}/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let line = format!("POST http://{host}/x HTTP/1.1\r\nHost: {host}\r\n");
    let ambiguous = [
        format!("{line}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{line}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{line}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!("{line}Content-Length: 2\r\nContent-Length: 2\r\n\r\nok"),
        format!("{line}Content-Length: 2, 2\r\n\r\nok"),
        format!("{line}Content-Length: -1\r\n\r\n"),
        format!("{line}Content-Length: 0x2\r\n\r\nok"),
        format!("{line}Content-Length: 99999999999999999999\r\n\r\nok"),
        format!("{line}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        format!("{line}Transfer-Encoding: identity\r\n\r\n"),
        format!("{line}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{line}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"),
        format!("{line}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        format!("{line}X: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{line}X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{line}X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{line}X: a\0b\r\n\r\n"),
        format!("{line}X\0: a\r\n\r\n"),
        format!("{line}: a\r\n\r\n"),
        format!("{line}Host: {host}\r\n\r\n"),
        format!("POST http://{host}/x HTTP/1.1\r\n\r\n"),
        format!("POST http://{host}/x HTTP/1.1\r\nHost: evil.test\r\n\r\n"),
        format!("POST http://evil.test/x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}/x\r\n\r\n"),
        format!("GET http://{host}/x HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n{smuggled}"),
        format!("GET http://{host}/x HTTP/1.1 \r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}/x#y HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://u:p@{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("{line}X: {}\r\n\r\n", "y".repeat(20_000)),
        format!("{line}{}\r\n", "X: y\r\n".repeat(80)),
    ];
    for request in &ambiguous {
        let answer = world.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{request:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 400").count(), 1, "one answer, then a close: {answer}");
    }
    // HTTP/2 is called by its name.
    let answer = world.raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("protocol-not-served"), "{answer}");
    assert!(upstream.texts().is_empty(), "{:?}", upstream.texts());
    let report = world.stop().await;
    assert_eq!(report.refusals_by_rule[&Rule::RequestAmbiguous], ambiguous.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_chunks_are_never_passed_on_as_something_whole() {
    let upstream = Upstream::answering(OK);
    let mut world = world_to(upstream.address, Way::default()).await;
    let host = upstream.host();
    let line = format!("POST http://{host}/x HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let smuggled = format!("GET http://{host}/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for body in [
        "zz\r\nhello\r\n0\r\n\r\n".to_owned(),
        "-5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "+5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "5\nhello\n0\n\n".to_owned(),
        "5\r\nhelloX\r\n0\r\n\r\n".to_owned(),
        "5\r\nhello0\r\n\r\n".to_owned(),
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n".to_owned(),
        format!("5;a={}\r\nhello\r\n0\r\n\r\n", "b".repeat(64 * 1024)),
        format!("5;a=\nb\r\nhello\r\n0\r\n\r\n{smuggled}"),
        format!("5\r\nhello\r\n0\r\n{}\r\n", "T: x\r\n".repeat(5000)),
    ] {
        let answer = world.raw(format!("{line}{body}")).await;
        assert!(
            !answer.starts_with("HTTP/1.1 200") || !upstream.texts().last().unwrap().ends_with("0\r\n\r\n"),
            "{body:?}: {answer}"
        );
    }
    for text in upstream.texts() {
        assert!(!text.contains("smuggled") && !text.contains("\r\n0\r\n\r\n"), "{text}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_is_one_request_written_anew() {
    let upstream = Upstream::answering(OK);
    let mut world = world_to(upstream.address, Way::default()).await;
    let host = upstream.host();
    let line = format!("POST http://{host}/a//b/../c?d=/../e HTTP/1.1\r\nHost: {host}\r\n");
    let second = format!("GET http://{host}/second HTTP/1.1\r\nHost: {host}\r\n\r\n");
    // A second request behind the first; extensions and trailers of chunks; an offer of HTTP/2; a wait for a nod.
    let answer = world
        .raw(format!(
            "{line}Transfer-Encoding: chunked\r\nTrailer: X-T\r\nTE: trailers\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n3;x=\"y\"\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n{second}"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    let answer =
        world.raw(format!("{line}Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc{second}")).await;
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"), "{answer}");
    let seen = upstream.texts();
    assert_eq!(seen.len(), 2, "{seen:?}");
    for text in &seen {
        let lower = text.to_lowercase();
        // No rule speaks of this host's paths, so they are its own business, letter by letter.
        assert!(text.starts_with("POST /a//b/../c?d=/../e HTTP/1.1\r\n"), "{text}");
        assert_eq!(lower.matches("\r\nhost: ").count(), 1);
        for gone in ["x-t", "trailer", "te:", "upgrade", "http2-settings", "expect", "second", ";x="] {
            assert!(!lower.contains(gone), "{gone} in {text}");
        }
    }
    assert!(seen[1].ends_with("\r\n\r\nabc"), "{}", seen[1]);
    for upgrade in ["websocket", "h2c, websocket", "TLS/1.0"] {
        let answer = world
            .raw(format!("GET http://{host}/chat HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 501") && answer.contains("protocol-not-served"), "{answer}");
    }
    assert_eq!(upstream.texts().len(), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_two_readers_read_differently_are_not_passed_on() {
    let chunked = "5\r\nhello\r\n0\r\n\r\n";
    for (what, answer) in [
        (
            "both lengths",
            format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        ),
        (
            "both the other way",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n{chunked}"),
        ),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nhello".to_owned()),
        (
            "the same twice",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        ),
        ("a list", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello".to_owned()),
        ("a sign", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello".to_owned()),
        ("a coding", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{chunked}")),
        ("identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello".to_owned()),
        (
            "two codings",
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
            ),
        ),
        ("a folded line", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello".to_owned()),
        ("a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello".to_owned()),
        ("a nul", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 5\r\n\r\nhello".to_owned()),
        ("HTTP/0.9", "hello".to_owned()),
        ("HTTP/2", "\0\0\0\x04\0\0\0\0\0hello".to_owned()),
        (
            "another protocol",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello"
                .to_owned(),
        ),
        ("endless nods", "HTTP/1.1 100 Continue\r\n\r\n".repeat(5000) + OK),
        (
            "endless fields",
            format!("HTTP/1.1 200 OK\r\n{}Content-Length: 5\r\n\r\nhello", "X: y\r\n".repeat(90_000)),
        ),
        ("an endless field", format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\nhello", "y".repeat(500_000))),
    ] {
        let upstream = Upstream::closing(answer);
        let mut world = world_to(upstream.address, Way::default()).await;
        let host = upstream.host();
        let answer = world.raw(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{what}: {answer}");
        assert!(!answer.contains("hello"), "{what}: {answer}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answers_body_ends_where_its_length_says_and_a_cut_one_never_looks_whole() {
    for (what, answer, passed) in [
        (
            "longer",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\nevil",
            Some("hello"),
        ),
        (
            "nods before",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            Some("hello"),
        ),
        ("no body", "HTTP/1.1 204 No Content\r\n\r\nevil", Some("")),
        ("to the end", "HTTP/1.1 200 OK\r\n\r\nhello", Some("5\r\nhello\r\n0\r\n\r\n")),
        ("shorter", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", None),
        ("broken chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", None),
        ("no last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", None),
    ] {
        let upstream = Upstream::closing(answer);
        let mut world = world_to(upstream.address, Way::default()).await;
        let host = upstream.host();
        let answer = world.raw(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{what}: {answer:?}"));
        match passed {
            Some(passed) => assert_eq!(body, passed, "{what}: {head}"),
            None => {
                assert!(!body.ends_with("0\r\n\r\n"), "{what}: {answer}");
                assert!(
                    !head.to_lowercase().contains(&format!("content-length: {}\r\n", body.len())),
                    "{what}: {answer}"
                );
            }
        }
        assert!(!answer.contains("evil"), "{what}: {answer}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_paths_are_held_to_the_rules_in_every_reading() {
    let upstream = Upstream::answering(OK);
    let host = upstream.host();
    let rule = |methods: &[&str], path: &str| RequestRule {
        methods: methods.iter().map(|&method| method.to_owned()).collect(),
        path: path.parse().unwrap(),
        tools: Vec::new(),
    };
    let rules = vec![HostRules {
        host: host.parse().unwrap(),
        inspect: false,
        requests: vec![rule(&["GET", "HEAD"], "/public/**"), rule(&["POST"], "/public/items/*")],
    }];
    let mut world = world_to(upstream.address, Way { rules, ..Way::default() }).await;
    for (method, path, status) in [
        ("GET", "/public/a", "200"),
        ("GET", "/public/a?x=/../../admin", "200"),
        ("GET", "/public/@scope%2fname", "200"),
        ("POST", "/public/items/1", "200"),
        ("DELETE", "/public/a", "403"),
        ("POST", "/public/a", "403"),
        ("POST", "/public/items/1%2f2", "403"),
        ("GET", "/admin", "403"),
        ("GET", "/", "403"),
        ("GET", "/publicly", "403"),
        ("GET", "/PUBLIC/a", "403"),
        ("GET", "/public/../admin", "400"),
        ("GET", "/public/%2e%2e/admin", "400"),
        ("GET", "/public/%2E./admin", "400"),
        ("GET", "/public/..%2fadmin", "400"),
        ("GET", "/public/%252e%252e/admin", "400"),
        ("GET", "/public/..;/admin", "400"),
        ("GET", "/public/..%5cadmin", "400"),
        ("GET", "/public\\..\\admin", "400"),
        ("GET", "/public//admin", "400"),
        ("GET", "//public/a", "400"),
        ("GET", "/public/./a", "400"),
        ("GET", "/public/a%00", "400"),
        ("GET", "/public/%c0%ae%c0%ae/admin", "400"),
    ] {
        let answer =
            world.raw(format!("{method} http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{method} {path}: {answer}");
        if status == "403" {
            assert!(answer.contains("request-not-granted"), "{method} {path}: {answer}");
        }
    }
    // A tunnel would hide what the rules speak of.
    let answer = world.raw(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    assert!(!answer.starts_with("HTTP/1.1 200") || !answer.contains("ok"), "{answer}");
    let arrived: Vec<String> =
        upstream.texts().iter().map(|text| text.lines().next().unwrap_or_default().to_owned()).collect();
    assert_eq!(
        arrived,
        [
            "GET /public/a HTTP/1.1",
            "GET /public/a?x=/../../admin HTTP/1.1",
            "GET /public/@scope%2fname HTTP/1.1",
            "POST /public/items/1 HTTP/1.1"
        ]
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_cut_where_the_runs_bytes_end() {
    let big = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(1_000_000));
    let upstream = Upstream::start(move |stream, first| {
        if first {
            let _ = stream.write_all(big.as_bytes());
        }
    });
    let adjust = Some(
        (|warrant: &mut tipstaff_model::Warrant| warrant.limits.egress_received_bytes = 300_000)
            as fn(&mut tipstaff_model::Warrant),
    );
    let mut world = world_to(upstream.address, Way { adjust, ..Way::default() }).await;
    let (address, host) = (world.address, upstream.host());
    let got = beside(move || {
        let mut raw = Raw::to(address);
        raw.send(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        raw.rest().len()
    })
    .await;
    assert!(got <= 300_200, "{got}");
    let report = world.stop().await;
    assert_eq!(report.refusals_by_rule[&Rule::EgressSpent], 1, "{:?}", report.refusals);
}

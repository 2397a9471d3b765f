//! What the explanation of a warrant says, asked of the real broker over its socket.

use crate::egress_support::{Raw, Upstream, Way, beside, world_to};
use crate::support::{NAME, World};
use tipstaff_model::explain::{Explanation, Provenance, Question};
use tipstaff_model::warrant::HostRules;

/// The rule that the page names for a question; `None` for yes.
fn said(world: &World, question: &str) -> Option<&'static str> {
    let warrant = world.warrant.warrant();
    let page = Explanation::of(&warrant, &Provenance::default());
    let answer = page.answer(&warrant, &question.parse::<Question>().unwrap());
    answer.refusal.map(|refusal| refusal.rule.id())
}

/// Asks the broker, and checks that it comes to the same, by the same rule.
async fn agree(world: &World, question: &str, request: String) {
    let Some(rule) = said(world, question) else {
        let address = world.address;
        let steps = move || {
            let mut raw = Raw::to(address);
            raw.send(request.as_bytes());
            raw.line_block()
        };
        let head = beside(steps).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{question}: {head}");
        return;
    };
    let answer = world.raw(request).await;
    assert!(!answer.starts_with("HTTP/1.1 200") && answer.contains(rule), "{question}: {rule}, {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_the_real_broker_agree() {
    let upstream = Upstream::closing("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
    let port = upstream.address.port();
    let rules = format!(
        r#"{{"host":"sub.allowed.test:{port}","requests":[{{"methods":["GET"],"path":"/repos/**"}}]}}"#
    );
    let rules: HostRules = serde_json::from_str(&rules).unwrap();
    let world = world_to(upstream.address, Way { rules: vec![rules], ..Way::default() }).await;
    for place in [format!("allowed.test:{port}"), format!("evil.test:{port}"), "allowed.test:1".to_owned()] {
        let request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n");
        agree(&world, &format!("reach {place}"), request).await;
    }
    for (method, host, path) in [
        ("GET", "sub.allowed.test", "/repos/one"),
        ("GET", "sub.allowed.test", "/other"),
        ("POST", "sub.allowed.test", "/repos/one"),
        ("GET", "allowed.test", "/anything"),
        ("GET", "evil.test", "/repos/one"),
    ] {
        let url = format!("http://{host}:{port}{path}");
        let request = format!(
            "{method} {url} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        agree(&world, &format!("request {method} {url}"), request).await;
    }
    for name in [NAME, "team/other"] {
        let request = format!(
            "GET /git/{name}.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        );
        agree(&world, &format!("read {name}"), request).await;
    }
    let own = world.own();
    for (number, path) in [".github/workflows/new.yml", "src/new.rs"].into_iter().enumerate() {
        let clone = world.clone_to(&format!("clone-{number}")).await;
        world.commit(&clone, path, "new\n").await;
        for reference in [own.as_str(), "refs/heads/main"] {
            let pushed = world.push(&clone, &[], &[&format!("HEAD:{reference}")]).await;
            let rule = said(&world, &format!("push {reference}")).or(said(&world, &format!("write {path}")));
            assert_eq!(pushed.ok, rule.is_none(), "{path} to {reference}: {}", pushed.text);
            assert!(rule.is_none_or(|rule| pushed.text.contains(rule)), "{rule:?}: {}", pushed.text);
        }
    }
}

//! Tunnels: what may be said first, that nothing leaks before it is judged, and how much may be carried.

use crate::egress_support::{
    LOCAL, Raw, Upstream, Way, beside, extension, hello_message, hello_to, names, record, world_to,
};
use crate::support::{Options, World, until};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tipstaff_broker::Resolver;
use tipstaff_model::warrant::Narrowing;
use tipstaff_model::{BoxFuture, FixedEntropy, Rule, WarrantId};

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_to_the_granted_name_goes_through_however_it_is_cut_into_segments() {
    let upstream = Upstream::answering("welcome");
    let mut world = world_to(upstream.address, Way::default()).await;
    let (address, host, sub) = (world.address, upstream.host(), format!("sub.{}", upstream.host()));
    beside(move || {
        for (place, name) in [(&host, "allowed.test"), (&host, "Allowed.TEST"), (&sub, "sub.allowed.test")] {
            let mut raw = Raw::tunnel(address, place);
            for byte in hello_to(name) {
                raw.send(&[byte]);
            }
            assert_eq!(raw.exactly(7), b"welcome");
            raw.send(b"and more");
        }
        // At once with the request for the tunnel, and with early data behind it.
        let mut raw = Raw::to(address);
        let mut all = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
        all.extend(hello_to("allowed.test"));
        all.extend(b"early");
        raw.send(&all);
        assert!(raw.line_block().starts_with("HTTP/1.1 200"));
        assert_eq!(raw.exactly(7), b"welcome");
    })
    .await;
    until("all came", || upstream.seen().iter().filter(|seen| seen.ends_with(b"and more")).count() == 3)
        .await;
    let early = [hello_to("allowed.test"), b"early".to_vec()].concat();
    assert_eq!(upstream.seen().iter().filter(|seen| **seen == early).count(), 1, "byte for byte");
    assert_eq!(world.stop().await.refusals_total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_leaves_before_the_hello_names_the_granted_host() {
    let upstream = Upstream::answering("secret");
    let mut world = world_to(upstream.address, Way::default()).await;
    let good = || names(&["allowed.test"]);
    let whole = hello_message(&[good()]);
    let (front, back) = whole.split_at(whole.len() / 2);
    let mismatch = [
        ("another name", hello_to("evil.test")),
        ("a name below", hello_to("sub.allowed.test")),
        ("a name above", hello_to("test")),
        ("a longer name", hello_to("allowed.test.evil.test")),
        ("no name", record(&hello_message(&[extension(43, &[2, 3, 4])]))),
        ("two names", record(&hello_message(&[names(&["allowed.test", "evil.test"])]))),
        (
            "an outer hello of ECH",
            record(&hello_message(&[good(), extension(0xfe0d, &[0, 0, 1, 0, 1, 7, 0, 0, 0, 1, 9])])),
        ),
        ("ECH that may be GREASE", record(&hello_message(&[extension(0xfe0d, &[0; 40]), good()]))),
        ("ESNI", record(&hello_message(&[good(), extension(0xffce, &[0; 40])]))),
    ];
    let unreadable = [
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n".to_vec()),
        ("lower case words", b"helo there\r\n".to_vec()),
        ("SSH", b"SSH-2.0-client\r\n".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("SSL 2", vec![0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10]),
        ("a final dot", hello_to("allowed.test.")),
        ("a nul in the name", hello_to("allowed.test\0.evil.test")),
        ("the name twice", record(&hello_message(&[good(), names(&["evil.test"])]))),
        ("two records", [record(front), record(back)].concat()),
        (
            "two hellos in one record",
            record(&[whole.clone(), hello_message(&[names(&["evil.test"])])].concat()),
        ),
        ("a record that is too large", [&[22, 3, 1, 0x7f, 0xff][..], &[1; 0x7fff]].concat()),
        ("an alert", vec![21, 3, 3, 0, 2, 1, 0]),
    ];
    let counts = (mismatch.len() as u64, unreadable.len() as u64);
    let (address, host) = (world.address, upstream.host());
    beside(move || {
        for (what, bytes) in mismatch.into_iter().chain(unreadable) {
            let mut raw = Raw::tunnel(address, &host);
            raw.send(&bytes);
            let said = raw.rest();
            let text = String::from_utf8_lossy(&said);
            assert!(!text.contains("secret"), "{what}: {text}");
            // TLS clients are told in TLS, HTTP clients in words, others by the close.
            let alert = said.len() == 7 && said.starts_with(&[21, 3, 3, 0, 2, 2]);
            assert!(said.is_empty() || alert || text.contains("tls-unreadable"), "{what}: {text}");
            assert!(what != "plain HTTP" || text.starts_with("HTTP/1.1 403"), "{text}");
            assert!(what != "another name" || said.ends_with(&[112]), "unrecognized_name: {said:?}");
        }
    })
    .await;
    assert!(upstream.texts().is_empty(), "something leaked: {:?}", upstream.texts());
    let report = world.stop().await;
    assert_eq!(report.refusals_by_rule[&Rule::TlsNameMismatch], counts.0, "{:?}", report.refusals);
    assert_eq!(report.refusals_by_rule[&Rule::TlsUnreadable], counts.1, "{:?}", report.refusals);
    assert!(
        report.refusals.iter().any(|(refusal, _)| refusal.why.contains("evil.test")),
        "{:?}",
        report.refusals
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_speaks_first_is_not_heard_before_the_hello() {
    let listener = TcpListener::bind((LOCAL, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"220 mail");
            let _ = stream.read(&mut [0; 100]);
        }
    });
    let mut world = world_to(address, Way::default()).await;
    let (broker, host) = (world.address, format!("allowed.test:{}", address.port()));
    beside(move || {
        let mut raw = Raw::tunnel(broker, &host);
        raw.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(raw.0.read(&mut [0; 8]).is_err(), "nothing comes");
        raw.send(b"EHLO x\r\n");
        raw.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let said = String::from_utf8_lossy(&raw.rest()).into_owned();
        assert!(!said.contains("220 mail") && said.contains("tls-unreadable"), "{said}");
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_requests_beyond_the_warrant_are_cut() {
    let upstream = Upstream::answering("ok");
    let adjust = Some(
        (|warrant: &mut tipstaff_model::Warrant| {
            warrant.limits.egress_sent_bytes = 100_000;
            warrant.limits.egress_requests = 3;
        }) as fn(&mut tipstaff_model::Warrant),
    );
    let mut world = world_to(upstream.address, Way { adjust, ..Way::default() }).await;
    let (address, host) = (world.address, upstream.host());
    let again = host.clone();
    beside(move || {
        let mut raw = Raw::tunnel(address, &host);
        raw.send(&hello_to("allowed.test"));
        assert_eq!(raw.exactly(2), b"ok");
        // More than is left, and the tunnel ends by itself.
        raw.send(&vec![b'x'; 1_000_000]);
        raw.rest();
    })
    .await;
    let most = upstream.seen()[0].len();
    assert!(most <= 100_000 + 2 * 64 * 1024, "{most} bytes arrived");
    for request in [
        format!("CONNECT {again} HTTP/1.1\r\nHost: {again}\r\n\r\n"),
        format!("GET http://{again}/ HTTP/1.1\r\nHost: {again}\r\n\r\n"),
    ] {
        let answer = world.raw(request).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("egress-spent"), "{answer}");
    }
    let report = world.stop().await;
    assert_eq!(report.refusals_by_rule[&Rule::EgressSpent], 3, "{:?}", report.refusals);

    let adjust = Some(
        (|warrant: &mut tipstaff_model::Warrant| warrant.limits.egress_requests = 3)
            as fn(&mut tipstaff_model::Warrant),
    );
    let mut world = world_to(upstream.address, Way { adjust, ..Way::default() }).await;
    for number in 0..5 {
        let answer = world.raw(format!("CONNECT {again} HTTP/1.1\r\nHost: {again}\r\n\r\nno")).await;
        let expected = if number < 3 { "HTTP/1.1 200" } else { "HTTP/1.1 403" };
        assert!(answer.starts_with(expected), "{number}: {answer}");
    }
    // What is not granted is refused for that, and costs nothing.
    let answer = world.raw("CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n").await;
    assert!(answer.contains("host-not-granted"), "{answer}");
    world.stop().await;
}

/// Says one thing first and another afterwards, and counts.
struct Rebinding {
    asked: AtomicUsize,
    first: IpAddr,
    then: IpAddr,
}

impl Resolver for Rebinding {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, std::io::Result<Vec<IpAddr>>> {
        let first = self.asked.fetch_add(1, Ordering::SeqCst) == 0;
        let address = if first { self.first } else { self.then };
        Box::pin(async move { Ok(vec![address]) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_its_mind_is_asked_once_and_dialled_where_it_was_checked() {
    let upstream = Upstream::answering("welcome");
    let port = upstream.address.port();
    let pattern: &'static str = Box::leak(format!("allowed.test:{port}").into_boxed_str());
    for (first, then, works) in [("127.0.0.1", "10.0.0.1", true), ("10.0.0.1", "127.0.0.1", false)] {
        let resolver = Arc::new(Rebinding {
            asked: AtomicUsize::new(0),
            first: first.parse().unwrap(),
            then: then.parse().unwrap(),
        });
        let mut world = World::with(Options {
            egress: vec![pattern],
            resolver: resolver.clone(),
            // Stands for the public one.
            private: vec![upstream.address],
            ..Options::default()
        })
        .await;
        let (address, host) = (world.address, upstream.host());
        let answer = beside(move || {
            let mut raw = Raw::to(address);
            let mut all = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
            all.extend(hello_to("allowed.test"));
            raw.send(&all);
            raw.0.shutdown(std::net::Shutdown::Write).unwrap();
            String::from_utf8_lossy(&raw.rest()).into_owned()
        })
        .await;
        assert_eq!(answer.ends_with("welcome"), works, "{answer}");
        assert_eq!(answer.contains("address-forbidden"), !works, "{answer}");
        assert_eq!(resolver.asked.load(Ordering::SeqCst), 1);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_spellings_of_a_host_are_the_same_host_or_none() {
    let upstream = Upstream::answering("welcome");
    let mut world = world_to(upstream.address, Way::default()).await;
    let port = upstream.address.port();
    for (host, status, word) in [
        (format!("ALLOWED.test:{port}"), "200", ""),
        (format!("allowed.test.:{port}"), "200", ""),
        (format!("allowed.test..:{port}"), "400", "request-ambiguous"),
        (format!(".allowed.test:{port}"), "400", "request-ambiguous"),
        (format!("-.allowed.test:{port}"), "403", "host-not-granted"),
        (format!("user@allowed.test:{port}"), "400", "request-ambiguous"),
        (format!("evil.test@allowed.test:{port}"), "400", "request-ambiguous"),
        (format!("allowed.test:{port}@evil.test:{port}"), "400", "request-ambiguous"),
        (format!("allowed.test%2eevil.test:{port}"), "400", "request-ambiguous"),
        (format!("allowed.test/:{port}"), "400", "request-ambiguous"),
        (format!("allowed.test:0{port}"), "400", "request-ambiguous"),
        ("allowed.test:0".to_owned(), "400", "request-ambiguous"),
        ("allowed.test:65536".to_owned(), "400", "request-ambiguous"),
        ("allowed.test:+443".to_owned(), "400", "request-ambiguous"),
        ("allowed.test:".to_owned(), "400", "request-ambiguous"),
        ("allowed.test:443:443".to_owned(), "400", "request-ambiguous"),
        (format!("xn--llowed-4ta.test:{port}"), "403", "host-not-granted"),
        (format!("\u{430}llowed.test:{port}"), "400", "request-ambiguous"),
        (format!("127.0.0.1:{port}"), "403", "host-not-granted"),
        (format!("2130706433:{port}"), "403", "host-not-granted"),
        (format!("0177.0.0.1:{port}"), "403", "host-not-granted"),
        (format!("0x7f000001:{port}"), "403", "host-not-granted"),
        (format!("127.1:{port}"), "403", "host-not-granted"),
        (format!("[::1]:{port}"), "403", "host-not-granted"),
        (format!("[::ffff:127.0.0.1]:{port}"), "403", "host-not-granted"),
        (format!("[fe80::1%25eth0]:{port}"), "400", "request-ambiguous"),
        (format!("[::1%lo]:{port}"), "400", "request-ambiguous"),
        (format!("[::1:{port}"), "400", "request-ambiguous"),
        (format!("localhost:{port}"), "403", "host-not-granted"),
    ] {
        let answer = world.raw(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\nx")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
        assert!(answer.contains(word), "{host}: {answer}");
    }
    assert!(upstream.texts().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_narrower_warrant_would_not_admit_is_closed_at_once() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok");
    let mut world = world_to(upstream.address, Way::default()).await;
    let (address, host) = (world.address, upstream.host());
    let sub = format!("sub.{host}");
    let open = |place: &str, name: &'static str| {
        let place = place.to_owned();
        beside(move || {
            let mut raw = Raw::tunnel(address, &place);
            raw.send(&hello_to(name));
            assert_eq!(raw.exactly(8), b"HTTP/1.1");
            raw
        })
    };
    let mut stays = open(&host, "allowed.test").await;
    let mut goes = open(&sub, "sub.allowed.test").await;
    let before_hello = {
        let place = sub.clone();
        beside(move || Raw::tunnel(address, &place)).await
    };
    let mut plain = {
        let request = format!("GET http://{sub}/ HTTP/1.1\r\nHost: {sub}\r\n\r\n");
        beside(move || {
            let mut raw = Raw::to(address);
            raw.send(request.as_bytes());
            assert!(raw.line_block().starts_with("HTTP/1.1 200"), "it has begun and waits for the rest");
            raw
        })
        .await
    };
    let narrow = |egress: Vec<&str>| {
        let now = world.warrant.warrant();
        let request = Narrowing {
            egress: Some(egress.iter().map(|host| host.parse().unwrap()).collect()),
            ..Narrowing::default()
        };
        now.narrow(WarrantId::new(&*world.clock, &FixedEntropy::seeded(9)), request).unwrap()
    };
    world.warrant.narrow_to(narrow(vec![&host])).unwrap();
    let (stays, before) = beside(move || {
        let begun = stays.0.peer_addr();
        goes.rest();
        plain.rest();
        let mut before_hello = before_hello;
        before_hello.rest();
        (stays.0.write_all(b"still here").map(|()| stays), begun)
    })
    .await;
    let stays = stays.unwrap();
    assert!(before.is_ok());
    until("the other tunnel goes on", || upstream.seen().iter().any(|seen| seen.ends_with(b"still here")))
        .await;
    let answer = world.raw(format!("CONNECT {sub} HTTP/1.1\r\nHost: {sub}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("host-not-granted"), "{answer}");
    // A lower bound counts at once, too.
    let mut limits = world.warrant.warrant().limits;
    limits.egress_requests = 4;
    let request = Narrowing { limits: Some(limits), ..Narrowing::default() };
    let child =
        world.warrant.warrant().narrow(WarrantId::new(&*world.clock, &FixedEntropy::seeded(8)), request);
    world.warrant.narrow_to(child.unwrap()).unwrap();
    until("no further request is left", || {
        crate::support::raw(address, format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\nx").as_bytes())
            .contains("egress-spent")
    })
    .await;
    drop(stays);
    let report = world.stop().await;
    assert!(
        report.refusals_by_rule[&Rule::HostNotGranted] >= 4,
        "three were closed, one refused: {:?}",
        report.refusals
    );
}

//! Raw requests: smuggling, path tricks, floods and slowness.

use crate::support::{NAME, Options, World, git, raw, until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tipstaff_broker::Bounds;
use tipstaff_model::Rule;

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_can_be_read_in_two_ways_get_400_and_a_close() {
    let mut world = World::new().await;
    let path = format!("/git/{NAME}.git/git-upload-pack");
    let smuggled = format!("GET {path} HTTP/1.1\r\nHost: b\r\n\r\n");
    let cases = [
        format!(
            "POST {path} HTTP/1.1\r\nHost: b\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!(
            "POST {path} HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\nContent-Length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        ),
        format!(
            "POST {path} HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"
        ),
        format!("POST {path} HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: \x0bchunked\r\n\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: b\r\nTransfer-Encoding : chunked\r\n\r\n"),
        format!("POST {path} HTTP/1.1\nHost: b\nContent-Length: 0\n\n"),
        format!("POST {path} HTTP/1.1\r\nHost: b\r\nX: y\r\n z\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\n\r\n"),
        format!("GET {path} HTTP/1.0\r\nHost: b\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\nHost: b\0\r\n\r\n"),
        "GET http://evil.test/ HTTP/1.1\r\nHost: allowed.test\r\nConnection: close\r\n\r\n".to_owned(),
        "CONNECT evil.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n".to_owned(),
        format!("GET {path} HTTP/1.1\r\nHost: b\r\n{}\r\n", "X: y\r\n".repeat(100)),
        format!("GET {path} HTTP/1.1\r\nHost: b\r\nX: {}\r\n\r\n", "y".repeat(64 * 1024)),
    ];
    for other in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00"] {
        let answer = world.raw(other).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("protocol-not-served"), "{answer:?}");
    }
    for request in &cases {
        let answer = world.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{request:?}: {answer:?}");
        assert!(answer.contains("request-ambiguous"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 4").count(), 1, "one answer, then a close: {answer}");
    }
    let report = world.stop().await;
    assert_eq!(report.refusals_by_rule[&Rule::RequestAmbiguous], cases.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_on_a_connection_is_never_served() {
    let mut world = World::new().await;
    let refs = format!("GET /git/{NAME}.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: b\r\n\r\n");
    let answer = world.raw(format!("{refs}{refs}{refs}")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1);
    assert!(answer.contains("connection: close"));
    // A body that goes on after its length.
    let answer = world
        .raw(format!(
            "POST /git/{NAME}.git/git-receive-pack HTTP/1.1\r\nHost: b\r\nContent-Length: 4\r\n\r\n0000{refs}"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    let broken = format!(
        "POST /git/{NAME}.git/git-upload-pack HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    );
    assert!(world.raw(broken).await.starts_with("HTTP/1.1 400"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_repository_is_not_reached_by_path_tricks() {
    let mut world = World::new().await;
    git(world.dir.path(), &["init", "-q", "--bare", "other/r.git"]).await.succeeded();
    let tail = "info/refs?service=git-upload-pack";
    for path in [
        format!("/../other/r.git/{tail}"),
        format!("/%2e%2e/other/r.git/{tail}"),
        format!("//other/r.git/{tail}"),
        format!("/./../other/r.git/{tail}"),
        format!("/git/../other/r.git/{tail}"),
        format!("/git/team/../../other/r.git/{tail}"),
        format!("/git/team/app.git/../../other/r.git/{tail}"),
        format!("/git/team%2Fapp.git/{tail}"),
        format!("/git/team/app.git%00/{tail}"),
        format!("/git/team\\app.git/{tail}"),
        format!("/git/team/app.git/{tail}&service=git-receive-pack"),
        "/git/team/app.git/info/refs?service=git-upload-archive".to_owned(),
        format!("/git/team/app/{tail}"),
        "/git/team/app.git/config".to_owned(),
        "/git/team/app.git/HEAD".to_owned(),
        "/".to_owned(),
    ] {
        let answer = world.raw(format!("GET {path} HTTP/1.1\r\nHost: b\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    // Well spelled, and not granted.
    let answer = world.raw(format!("GET /git/other/r.git/{tail} HTTP/1.1\r\nHost: b\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("repository-not-granted"), "{answer}");
    let answer = world
        .raw(format!("POST /git/{NAME}.git/{tail} HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    // As the attack suite does it, with a real git.
    for path in ["/../other/r.git", "/%2e%2e/other/r.git", "//other/r.git", "/./../other/r.git"] {
        let url = format!("http://{}{path}", world.address);
        assert!(!git(world.dir.path(), &["-c", "http.proxy=", "ls-remote", &url]).await.ok, "{path}");
    }
    let answer = world.raw("GET /nothing HTTP/1.1\r\nHost: b\r\nAccept: application/json\r\n\r\n").await;
    assert!(answer.contains("\"code\":\"request-not-served\""), "{answer}");
    assert!(world.stop().await.refusals_by_rule[&Rule::RequestNotServed] >= 17);
}

#[tokio::test(flavor = "multi_thread")]
async fn git_through_a_proxy_variable_that_names_the_broker_itself_works() {
    let mut world = World::new().await;
    let clone = world.path("proxied");
    let proxy = format!("http.proxy=http://{}", world.address);
    git(world.dir.path(), &["-c", &proxy, "clone", "-q", &world.url(), clone.to_str().unwrap()])
        .await
        .succeeded();
    assert_eq!(world.stop().await.refusals_total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_is_counted_exactly_and_kept_in_bounds() {
    const FLOOD: usize = 600;
    let bounds = Bounds { refusals_kept: 10, ..Bounds::default() };
    let mut world = World::with(Options { bounds, ..Options::default() }).await;
    let address = world.address;
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            tokio::task::spawn_blocking(move || {
                for number in 0..FLOOD / 4 {
                    let answer = raw(
                        address,
                        format!("GET /x{thread}-{number} HTTP/1.1\r\nHost: b\r\n\r\n").as_bytes(),
                    );
                    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.await.unwrap();
    }
    let report = world.stop().await;
    assert_eq!(report.refusals_by_rule[&Rule::RequestNotServed], FLOOD as u64);
    assert_eq!(report.refusals.len(), 10);
    let written = world.control.refusals.lock().unwrap();
    assert_eq!(written.len(), 11, "ten, and one line about the rest");
    assert!(written[10].why.starts_with(&format!("{} further", FLOOD - 10)), "{}", written[10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_is_cut_off_in_time_and_holds_nobody_up() {
    let bounds = Bounds { head_time: Duration::from_millis(400), ..Bounds::default() };
    let mut world = World::with(Options { bounds, ..Options::default() }).await;
    let address = world.address;
    let slow = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut sent = 0;
        // A byte each time the read times out: never idle, never done.
        for byte in
            b"GET /git/team/app.git/info/refs HTTP/1.1\r\nHost: b\r\nX: ".iter().chain([b'y'; 400].iter())
        {
            let mut answer = [0_u8; 12];
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
            sent += 1;
            match stream.read(&mut answer) {
                Ok(0) => break,
                Ok(_) => return (sent, String::from_utf8_lossy(&answer).into_owned()),
                Err(_) => {}
            }
        }
        (sent, String::new())
    });
    let clone = world.path("beside");
    git(world.dir.path(), &["clone", "-q", &world.url(), clone.to_str().unwrap()]).await.succeeded();
    let (sent, answer) = slow.await.unwrap();
    assert_eq!(answer, "HTTP/1.1 408", "after {sent} bytes");
    assert!(sent < 60, "{sent}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_bound_are_shed_and_come_back() {
    let bounds = Bounds { connections: 3, ..Bounds::default() };
    let mut world = World::with(Options { bounds, ..Options::default() }).await;
    let address = world.address;
    let request =
        format!("GET /git/{NAME}.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: b\r\n\r\n");
    let mut holding = Vec::new();
    let mut seen = String::new();
    for _ in 0..100 {
        // One more each time: a request may have been faster than one that only holds.
        holding.extend((0..3).map(|_| TcpStream::connect(address).unwrap()));
        seen = world.raw(request.as_bytes()).await;
        if seen.starts_with("HTTP/1.1 503") {
            break;
        }
    }
    assert!(seen.starts_with("HTTP/1.1 503") && seen.contains("limit-reached"), "{seen}");
    drop(holding);
    until("room again", || raw(address, request.as_bytes()).starts_with("HTTP/1.1 200")).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_warrant_closes_what_is_open_and_refuses_what_comes() {
    let mut world = World::new().await;
    let mut open = TcpStream::connect(world.address).unwrap();
    open.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    open.write_all(
        format!("POST /git/{NAME}.git/git-receive-pack HTTP/1.1\r\nHost: b\r\nContent-Length: 50\r\n\r\n00")
            .as_bytes(),
    )
    .unwrap();
    until("it is accepted", || world.handle.as_ref().unwrap().report().connections == 1).await;
    world.warrant.revoke();
    let ended = tokio::task::spawn_blocking(move || {
        let mut rest = Vec::new();
        // An end or a reset; what counts is that it comes before our time is over.
        let outcome = open.read_to_end(&mut rest);
        (rest, outcome.err().map(|error| error.kind()))
    })
    .await
    .unwrap();
    assert!(
        !matches!(ended.1, Some(std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)),
        "{ended:?}"
    );
    // Cut off without a word, or told why when the end came before the request was looked at.
    let said = String::from_utf8_lossy(&ended.0);
    assert!(said.is_empty() || said.contains("warrant-revoked"), "{said}");
    let answer = world
        .raw(format!("GET /git/{NAME}.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: b\r\n\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("warrant-revoked"), "{answer}");
    let report = world.stop().await;
    assert!(report.refusals_by_rule[&Rule::WarrantRevoked] >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_everything_and_frees_the_port() {
    let mut world = World::new().await;
    let mut open = TcpStream::connect(world.address).unwrap();
    until("it is accepted", || world.handle.as_ref().unwrap().report().connections == 1).await;
    world.stop().await;
    open.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut rest = Vec::new();
    let outcome = open.read_to_end(&mut rest);
    assert!(
        outcome.is_ok() || outcome.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    );
    assert!(TcpStream::connect(world.address).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_run_it_is_says_the_listener_and_no_header() {
    let mut mine = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("other");
    crate::support::make_source(&source).await;
    crate::support::write(&source.join("others.txt"), "of another run\n");
    git(&source, &["add", "."]).await.succeeded();
    git(&source, &["commit", "-qm", "Of another run"]).await.succeeded();
    let mut other = World::around(dir, source, Options::default()).await;
    assert_ne!(mine.base.commit, other.base.commit);
    let (run, warrant) = (other.warrant.warrant().run, other.warrant.warrant().id);
    let body = |answer: &str| answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap();
    let ask = |fields: &str| {
        format!("GET /git/{NAME}.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: b\r\n{fields}\r\n")
    };
    let plain = mine.raw(ask("")).await;
    assert!(plain.starts_with("HTTP/1.1 200") && plain.contains(mine.base.commit.as_str()), "{plain}");
    for fields in [
        format!("Authorization: Bearer {warrant}\r\n"),
        format!("Authorization: Basic {run}\r\nCookie: run={run}\r\n"),
        format!("Tipstaff-Run: {run}\r\nTipstaff-Warrant: {warrant}\r\n"),
        format!("X-Forwarded-For: {}\r\nForwarded: for=127.0.0.1\r\nX-Real-IP: 10.0.0.1\r\n", other.address),
        format!(
            "Origin: http://{}\r\nReferer: http://{}/\r\nX-Forwarded-Host: {}\r\n",
            other.address, other.address, other.address
        ),
        "X-Original-URL: /git/team/other.git\r\nX-Forwarded-User: root\r\nFrom: admin@example.com\r\n"
            .to_owned(),
    ] {
        let answer = mine.raw(ask(&fields)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{fields}: {answer}");
        assert_eq!(body(&answer), body(&plain), "{fields}");
        assert!(!answer.contains(other.base.commit.as_str()), "{fields}");
    }
    // Naming the other's address is asking for a host, which is not granted.
    let answer = mine
        .raw(format!(
            "GET http://{0}/git/{NAME}.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: {0}\r\n\r\n",
            other.address
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403") && !answer.contains(other.base.commit.as_str()), "{answer}");
    mine.stop().await;
    let report = other.stop().await;
    assert_eq!(report.connections, 0, "nothing reached the other run's broker");
}

//! The way out, against a listener that refuses everything: what the broker itself decides is attacked in its own
//! crate; here it is that each of these attempts arrives at the handed-out listener, and nowhere else.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::canary::canary;
use super::case::{Bare, Case, case};
use crate::support::{finish, sandbox, script, with_broker};
use tipstaff_sandbox::Workspace;

pub(super) const CASES: &[Case] = &[
    case("A30", "host not on the grant, by proxy", "curl -sf -m 3 -x $P http://evil.test/", Bare::NotRun),
    case(
        "A31",
        "CONNECT to a port that is not granted",
        "curl -sf -m 3 -p -x $P http://allowed.test:22/",
        Bare::NotRun,
    ),
    case(
        "A32",
        "Host header disagrees with the request target",
        r#"printf 'GET http://evil.test/ HTTP/1.1\r\nHost: allowed.test\r\nConnection: close\r\n\r\n' | nc -w3 127.0.0.1 8080 | head -1 | grep -q ' 200'"#,
        Bare::NotRun,
    ),
    case(
        "A33",
        "another tenant repository by path tricks",
        r#"for u in /../other/r.git /%2e%2e/other/r.git //other/r.git /./../other/r.git; do git -c http.proxy= ls-remote "$P$u" >/dev/null 2>&1 && exit 0; done; exit 1"#,
        Bare::NotRun,
    ),
];

/// Answers every request with 403 and gives what it heard, one text a connection.
fn refuse_all(listener: TcpListener) -> std::sync::mpsc::Receiver<String> {
    let (sender, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let count = stream.read(&mut request).unwrap_or(0);
                let _ = sender.send(String::from_utf8_lossy(&request[..count]).into_owned());
                let _ = stream
                    .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            });
        }
    });
    heard
}

#[test]
fn every_attempt_arrives_at_the_broker_and_fails_there() {
    for case in CASES {
        let spec = with_broker(script(Workspace::Empty, &case.text(canary())));
        let mut running = sandbox().start(&spec).unwrap();
        let heard = refuse_all(running.listener.take().unwrap());
        let output = finish(running);
        assert_ne!(output.exit.code, 0, "{}: {output:?}", case.id);
        let first = heard.try_recv().unwrap_or_else(|_| panic!("{} never arrived: {output:?}", case.id));
        assert!(first.contains("HTTP/1."), "{}: {first}", case.id);
    }
}

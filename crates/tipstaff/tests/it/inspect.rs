//! Inspected hosts and secrets by placeholder, with the real sandbox, the real binary and real clients: what a run may
//! ask, and what a hostile one tries.

use crate::world::{Ended, World, run, wait};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_testkit::{ScriptedTls, SeenRequest};

/// Nobody's.
const VALUE: &str = "real-value-4d1c8b7f0a2e-nobodys";

const HOST: &str = "api.example.test";
const OTHER: &str = "other.example.test";

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) repository: PathBuf,
    server: ScriptedTls,
}

/// A whole answer.
fn text(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

impl Scene {
    pub(crate) fn new(answer: impl Fn(&SeenRequest) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let world = World::new();
        let repository = world.repository("demo");
        let server = ScriptedTls::start(&[HOST, OTHER], Arc::new(answer)).unwrap();
        world.write(&world.home().join("roots.pem"), server.roots_pem());
        let config = format!(
            "[network]\nextra_roots = \"roots.pem\"\n[network.hosts]\n\"{HOST}\" = [\"127.0.0.1\"]\n\"{OTHER}\" = [\"127.0.0.1\"]\n"
        );
        world.write(&world.home().join("config.toml"), &config);
        Self { world, repository, server }
    }

    /// `https://HOST:PORT`, as the run writes it.
    pub(crate) fn base(&self) -> String {
        format!("https://{HOST}:{}", self.server.port())
    }

    fn place(&self) -> String {
        format!("{HOST}:{}", self.server.port())
    }

    /// Runs `script`; what it needs is in its environment.
    pub(crate) fn run(&self, options: &[&str], script: &str) -> Ended {
        let mut command = self.world.command(self.world.binary());
        command.current_dir(&self.repository).args(["run", "--json", "--timeout", "120s"]).args(options);
        let script = format!(
            "BASE={} OTHER=https://{OTHER}:{} PORT={}\nexport BASE OTHER PORT\n{script}",
            self.base(),
            self.server.port(),
            self.server.port()
        );
        command.args(["--", "sh", "-c", &script]);
        run(command)
    }

    /// Seals a value for the host.
    fn secret(&self, name: &str, options: &[&str]) -> Ended {
        let place = self.place();
        let mut command = self.world.command(self.world.binary());
        command.args(["secrets", "set", name, "--host", &place]).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(VALUE.as_bytes()).unwrap();
        wait(child, Duration::from_secs(60))
    }

    fn tipstaff(&self, args: &[&str]) -> Ended {
        self.world.tipstaff_in(&self.repository, args)
    }

    /// What the server saw of a path.
    pub(crate) fn seen(&self, path: &str) -> Vec<SeenRequest> {
        self.server.seen().into_iter().filter(|seen| seen.target.split('?').next() == Some(path)).collect()
    }
}

fn rules(summary: &Value) -> Vec<String> {
    let all = summary["refusals"].as_array().cloned().unwrap_or_default();
    all.iter().map(|one| one["rule"].as_str().unwrap().to_owned()).collect()
}

/// Lines `name=value` that a script printed.
pub(crate) fn told<'e>(ended: &'e Ended, name: &str) -> &'e str {
    let start = format!("{name}=");
    ended
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix(start.as_str()))
        .unwrap_or_else(|| panic!("no {name} in {ended:#?}"))
}

#[test]
fn only_granted_requests_reach_an_inspected_host() {
    let scene = Scene::new(|seen| text(&format!("{} {}", seen.method, seen.target)));
    let grant = format!("GET,POST {}/repos/**", scene.base());
    let script = r#"
say() { name=$1; shift; echo "$name=$(curl -sS -m 30 -o /tmp/out -w '%{http_code}' "$@" 2>/tmp/err) $(tr '\n' ' ' </tmp/out)" >&2; }
say granted "$BASE/repos/a?x=1"
say posted -d body "$BASE/repos/a"
say method -X DELETE "$BASE/repos/a"
say path "$BASE/admin"
say climbs --path-as-is "$BASE/repos/../admin"
say escaped --path-as-is "$BASE/repos/%2e%2e/admin"
say slash --path-as-is "$BASE/repos/..%2fadmin"
say override -H 'X-HTTP-Method-Override: DELETE' "$BASE/repos/a"
say host -H 'Host: other.example.test' "$BASE/repos/a"
say upgrade -H 'Connection: Upgrade' -H 'Upgrade: websocket' "$BASE/repos/a"
say other "$OTHER/repos/a"
say kept "$BASE/repos/1" -o /tmp/out2 "$BASE/repos/2"
say large -H 'Expect: 100-continue' -T /bin/sh -X POST "$BASE/repos/large"
"#;
    let ended = scene.run(&["--allow-request", &grant], script).expect(0);
    assert!(told(&ended, "granted").starts_with("200 GET /repos/a?x=1"), "{ended:#?}");
    assert!(told(&ended, "posted").starts_with("200 POST"), "{ended:#?}");
    for (name, status, rule) in [
        ("method", "403", "request-not-granted"),
        ("path", "403", "request-not-granted"),
        ("climbs", "400", "request-ambiguous"),
        ("escaped", "400", "request-ambiguous"),
        ("slash", "400", "request-ambiguous"),
        ("override", "400", "request-ambiguous"),
        ("host", "403", "tls-name-mismatch"),
        ("upgrade", "501", "protocol-not-served"),
    ] {
        let line = told(&ended, name);
        assert!(line.starts_with(status) && line.contains(rule), "{name}: {line}");
    }
    assert!(told(&ended, "path").contains("--allow-request"), "{}", told(&ended, "path"));
    assert!(told(&ended, "other").starts_with("000"), "{ended:#?}");
    assert!(told(&ended, "kept").starts_with("200200"), "{ended:#?}");
    assert!(told(&ended, "large").starts_with("200"), "{ended:#?}");
    let sent = std::fs::read("/bin/sh").unwrap();
    assert_eq!(scene.seen("/repos/large")[0].body, sent, "the body came whole");
    assert!(
        scene.server.seen().iter().all(|seen| seen.target.starts_with("/repos/")),
        "{:?}",
        scene.server.seen()
    );
    assert!(
        scene
            .server
            .seen()
            .iter()
            .all(|seen| seen.server_name == HOST && seen.field("host") == scene.place())
    );
    let summary = ended.json();
    let found = rules(&summary);
    for rule in [
        "request-not-granted",
        "request-ambiguous",
        "tls-name-mismatch",
        "protocol-not-served",
        "host-not-granted",
    ] {
        assert!(found.iter().any(|one| one == rule), "{rule} in {summary}");
    }
    let shown = scene.tipstaff(&["runs", "show", summary["run"].as_str().unwrap()]).expect(0).stdout;
    assert!(shown.contains("request-not-granted"), "{shown}");
}

#[test]
fn real_clients_trust_the_run_and_nobody_else_does() {
    let scene = Scene::new(|seen| match seen.target.as_str() {
        "/repo.git/info/refs?service=git-upload-pack" => {
            let body = "001e# service=git-upload-pack\n0000000eversion 2\n000cls-refs\n0000";
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement";
            format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        }
        "/repo.git/git-upload-pack" => {
            let body = "0000";
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-result";
            format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        }
        other => text(other),
    });
    let place = scene.place();
    for program in ["/usr/bin/python3", "/usr/bin/node"] {
        assert!(std::path::Path::new(program).exists(), "{program} is missing: script/setup brings it");
    }
    let script = r#"
ls -la /tipstaff/trust >&2
grep -rl 'PRIVATE KEY' /tipstaff >&2 && echo "key=found" >&2
touch /tipstaff/trust/x 2>/dev/null && echo "trust=writable" >&2
curl -sS -m 30 "$BASE/by-curl" >/dev/null && echo "curl=fine" >&2
git ls-remote "$BASE/repo.git" >&2 && echo "git=fine" >&2
/usr/bin/python3 - <<'END' && echo "python=fine" >&2
import os, urllib.request
assert urllib.request.urlopen(os.environ["BASE"] + "/by-python").read() == b"/by-python"
END
/usr/bin/node -e '
const http = require("http"), tls = require("tls");
const url = new URL(process.env.BASE);
http.request({host: "127.0.0.1", port: 8080, method: "CONNECT", path: url.host, headers: {host: url.host}}).on("connect", (res, socket) => {
  const line = tls.connect({socket, servername: url.hostname}, () => {
    line.write("GET /by-node HTTP/1.1\r\nHost: " + url.host + "\r\nConnection: close\r\n\r\n");
  });
  line.on("data", data => { if (String(data).includes("/by-node")) process.exit(0); });
  line.on("error", error => { console.error(error); process.exit(1); });
}).end();
setTimeout(() => process.exit(2), 20000);' && echo "node=fine" >&2
env -u SSL_CERT_FILE -u CURL_CA_BUNDLE curl -sS -m 30 --cacert /etc/ssl/certs/ca-certificates.crt "$BASE/distrusts" >&2 || echo "distrust=refused" >&2
cp /tipstaff/trust/ca.pem ./ca-of-the-run.pem
"#;
    let ended = scene.run(&["--inspect", &place], script).expect(0);
    for (name, value) in
        [("curl", "fine"), ("git", "fine"), ("python", "fine"), ("node", "fine"), ("distrust", "refused")]
    {
        assert_eq!(told(&ended, name), value, "{name}: {ended:#?}");
    }
    assert!(!ended.stderr.contains("key=found") && !ended.stderr.contains("trust=writable"), "{ended:#?}");
    for path in ["/by-curl", "/by-python", "/by-node", "/repo.git/info/refs"] {
        assert!(!scene.seen(path).is_empty(), "{path}");
    }
    assert!(scene.seen("/distrusts").is_empty());
    let summary = ended.json();
    let found = rules(&summary);
    assert!(found.contains(&"tls-unreadable".to_owned()), "whoever distrusts is told why: {summary}");
    // The authority of one run is none of another's.
    let ca = scene.tipstaff(&["runs", "diff", summary["run"].as_str().unwrap()]).expect(0).stdout;
    let pem: String = ca
        .lines()
        .filter_map(|line| line.strip_prefix('+'))
        .skip_while(|line| !line.contains("BEGIN CERTIFICATE"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(pem.contains("END CERTIFICATE"), "{ca}");
    scene.world.write(&scene.repository.join("other.pem"), &pem);
    scene.world.commit(&scene.repository, "the authority of an earlier run");
    let script = "curl -sS -m 30 --cacert other.pem \"$BASE/other-run\" >&2 || echo other=refused >&2";
    let ended = scene.run(&["--inspect", &place], script).expect(0);
    assert_eq!(told(&ended, "other"), "refused");
    // A run that inspects nothing has no authority at all.
    let ended = scene.run(&[], "ls /tipstaff/trust >&2 || echo none=fine >&2; env >&2").expect(0);
    assert!(told(&ended, "none") == "fine" && !ended.stderr.contains("SSL_CERT_FILE"), "{ended:#?}");
    let home = scene.world.home();
    let kept = run({
        let mut command = scene.world.command("grep");
        command.args(["-rlE", "Tipstaff run|EC PRIVATE KEY|BEGIN PRIVATE KEY"]).arg(&home);
        command
    });
    assert_eq!(kept.stdout.lines().filter(|line| !line.contains("/results/")).count(), 0, "{kept:#?}");
}

#[test]
fn a_secret_is_a_handle_inside_and_a_value_on_the_way_out() {
    let scene = Scene::new(|seen| {
        match seen.target.as_str() {
        "/app/echo" => {
            let auth = seen.field("authorization").to_owned();
            let body = format!("you sent {auth}, or {}", auth.replace('-', "%2D"));
            let head = format!("HTTP/1.1 200 OK\r\nX-Echo: {auth}\r\nSet-Cookie: session=1\r\nX-Kept: 1");
            format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        }
        "/app/gzip" => b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc".to_vec(),
        "/app/elsewhere" => {
            let place = "https://other.example.test/stolen";
            format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n").into_bytes()
        }
        "/app/twice" => {
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec()
        }
        _ => text("fine"),
    }
    });
    let set = scene.secret("api-token", &["--path", "/app/**"]).expect(0);
    assert!(set.stdout.contains("API_TOKEN"), "{set:#?}");
    let listed = scene.tipstaff(&["secrets", "list"]).expect(0).stdout;
    assert!(
        listed.contains("api-token") && listed.contains(&scene.place()) && !listed.contains("bound/"),
        "{listed}"
    );
    let script = r#"
echo "length=${#API_TOKEN}" >&2
printf '%s' "$API_TOKEN" | cut -c1-4 | sed 's/^/begins=/' >&2
say() { name=$1; shift; echo "$name=$(curl -sS -m 30 -D /tmp/head -o /tmp/out -w '%{http_code}' "$@" 2>/tmp/err) $(tr '\n' ' ' </tmp/out) $(tr -d '\r' </tmp/head | tr '\n' ' ')" >&2; }
say bearer -H "Authorization: Bearer $API_TOKEN" "$BASE/app/bearer"
say basic -u "me:$API_TOKEN" "$BASE/app/basic"
say key -H "X-Api-Key: $API_TOKEN" "$BASE/app/key"
say echo -H "Authorization: Bearer $API_TOKEN" -H 'Range: bytes=0-3' "$BASE/app/echo"
say gzip --compressed -H "Authorization: Bearer $API_TOKEN" "$BASE/app/gzip"
say elsewhere -H "Authorization: Bearer $API_TOKEN" "$BASE/app/elsewhere"
say twice -H "Authorization: Bearer $API_TOKEN" "$BASE/app/twice"
grep -r real-value / --include=environ --include=cmdline --include=mem -l 2>/dev/null >&2
cat /proc/*/environ 2>/dev/null | tr '\0' '\n' >>/tmp/all; env >>/tmp/all; cat /tmp/all >&2
"#;
    let ended = scene.run(&["--secret", "api-token"], script).expect(0);
    assert_eq!((told(&ended, "length"), told(&ended, "begins")), ("53", "tsh_"), "{ended:#?}");
    for name in ["bearer", "basic", "key"] {
        assert!(told(&ended, name).starts_with("200 fine"), "{name}: {ended:#?}");
    }
    assert_eq!(scene.seen("/app/bearer")[0].field("authorization"), format!("Bearer {VALUE}"));
    // me:real-value-…
    assert_eq!(
        scene.seen("/app/basic")[0].field("authorization"),
        "Basic bWU6cmVhbC12YWx1ZS00ZDFjOGI3ZjBhMmUtbm9ib2R5cw=="
    );
    assert_eq!(scene.seen("/app/key")[0].field("x-api-key"), VALUE);
    let echo = told(&ended, "echo");
    assert!(echo.contains("redacted") && echo.to_lowercase().contains("x-kept"), "{echo}");
    assert!(!echo.to_lowercase().contains("set-cookie") && !echo.to_lowercase().contains("x-echo"), "{echo}");
    assert_eq!(
        scene.seen("/app/echo")[0].field("range"),
        "",
        "an answer comes whole, so that it can be searched"
    );
    assert_eq!(scene.seen("/app/gzip")[0].field("accept-encoding"), "identity");
    assert!(told(&ended, "gzip").starts_with("502"), "{ended:#?}");
    assert!(told(&ended, "elsewhere").starts_with("302"), "no redirect is followed for anybody: {ended:#?}");
    assert!(told(&ended, "twice").starts_with("502"), "{ended:#?}");
    // The value is nowhere on this side.
    assert!(!format!("{ended:?}").contains("real-value"), "{ended:#?}");
    let summary = ended.json();
    for view in [
        vec!["runs", "show", "--transcript"],
        vec!["runs", "export"],
        vec!["audit", "list"],
        vec!["warrants", "show"],
        vec!["secrets", "list", "--json"],
    ] {
        let shown = scene.tipstaff(&view);
        assert!(!format!("{shown:?}").contains("real-value"), "{view:?}: {shown:#?}");
    }
    assert!(summary["refusals"].to_string().contains("sent a secret's value back"), "{summary}");
    let audit = scene.tipstaff(&["audit", "list", "--json"]).expect(0).stdout;
    assert!(audit.contains("api-token"), "what a warrant lets a secret be used for is on record: {audit}");
}

#[test]
fn a_handle_elsewhere_is_refused_and_reported() {
    let scene = Scene::new(|_| text("fine"));
    scene.secret("api-token", &["--path", "/app/**", "--header", "Authorization: Bearer {}"]).expect(0);
    let mut command = scene.world.command(scene.world.binary());
    command.args(["secrets", "set", "maps", "--host", &scene.place(), "--query", "key"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"other/value+0123456789").unwrap();
    wait(child, Duration::from_secs(60)).expect(0);
    let other = format!("{OTHER}:{}", scene.server.port());
    let options = [
        "--secret",
        "api-token",
        "--secret",
        "maps",
        "--inspect",
        &other,
        "--inspect",
        &scene.place(),
        "--allow-host",
        "plain.example.test:80",
    ];
    let script = r#"
say() { name=$1; shift; echo "$name=$(curl -sS -m 30 -o /tmp/out -w '%{http_code}' "$@" 2>/tmp/err) $(tr '\n' ' ' </tmp/out)" >&2; }
say fine -H "Authorization: Bearer $API_TOKEN" "$BASE/app/x"
say query "$BASE/maps?a=b&key=$MAPS&c"
say host -H "Authorization: Bearer $API_TOKEN" "$OTHER/app/x"
say path -H "Authorization: Bearer $API_TOKEN" "$BASE/elsewhere"
say field -H "X-Api-Key: $API_TOKEN" "$BASE/app/x"
say form -H "Authorization: token $API_TOKEN" "$BASE/app/x"
say doubled -H "Authorization: Bearer $API_TOKEN$API_TOKEN" "$BASE/app/x"
say basic -u "me:$API_TOKEN" "$BASE/app/x"
say inquery "$BASE/app/x?token=$API_TOKEN"
say inpath "$BASE/app/$API_TOKEN"
say inbody -d "$API_TOKEN" "$BASE/app/x"
say plain -x http://127.0.0.1:8080 -H "Authorization: Bearer $API_TOKEN" "http://plain.example.test/x"
say unknown -H "Authorization: Bearer tsh_00000000000000000000000000000000000000000000000Xv4ju" "$BASE/app/x"
printf '%s' "$API_TOKEN" | rev >handle-of-the-first
"#;
    let ended = scene.run(&options, script).expect(0);
    assert!(told(&ended, "fine").starts_with("200"), "{ended:#?}");
    assert!(told(&ended, "query").starts_with("200"), "{ended:#?}");
    assert_eq!(scene.seen("/maps")[0].target, "/maps?a=b&key=other%2Fvalue%2B0123456789&c");
    for name in ["host", "path", "field", "form", "doubled", "basic", "inquery", "inpath", "inbody", "plain"]
    {
        let line = told(&ended, name);
        assert!(line.starts_with("403") && line.contains("secret-misused"), "{name}: {line}");
    }
    // A word that only looks like a handle is a word.
    assert!(told(&ended, "unknown").starts_with("200"), "{ended:#?}");
    let misused =
        scene.server.seen().iter().filter(|seen| format!("{seen:?}").contains("real-value")).count();
    assert_eq!(misused, 1, "{:?}", scene.server.seen());
    let summary = ended.json();
    assert!(rules(&summary).iter().filter(|rule| *rule == "secret-misused").count() == 3, "{summary}");
    let shown = scene.tipstaff(&["runs", "show", summary["run"].as_str().unwrap()]).expect(0).stdout;
    assert!(shown.contains("secret-misused"), "{shown}");

    // A handle of an earlier run is worth nothing in the next, though the secret is the same.
    let diff = scene.tipstaff(&["runs", "diff", summary["run"].as_str().unwrap()]).stdout;
    let handle: String = diff
        .lines()
        .find_map(|line| line.strip_prefix('+').filter(|line| line.ends_with("_hst")))
        .unwrap_or_else(|| panic!("no handle in {diff}"))
        .chars()
        .rev()
        .collect();
    let script = format!(
        "curl -sS -m 30 -o /tmp/out -w 'old=%{{http_code}} ' -H 'Authorization: Bearer {handle}' \"$BASE/app/old\" >&2; cat /tmp/out >&2"
    );
    let ended = scene.run(&["--secret", "api-token"], &script).expect(0);
    assert!(ended.stderr.contains("old=403") && ended.stderr.contains("none of this run's"), "{ended:#?}");
    assert!(scene.seen("/app/old").is_empty());
}

#[test]
fn tricks_within_tls_end_the_connection() {
    let scene = Scene::new(|seen| text(&seen.target));
    let grant = format!("GET,POST {}/ok/**", scene.base());
    let script = r#"/usr/bin/python3 - <<'END' >&2
import os, socket, ssl
host, port = "api.example.test", os.environ["PORT"]
def tunnel(name, sni=host, alpn=None):
    s = socket.create_connection(("127.0.0.1", 8080), 20)
    s.settimeout(20)
    s.sendall(f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = s.recv(1)
        if not piece: return None
        head += piece
    if b" 200 " not in head: return None
    context = ssl.create_default_context()
    if alpn: context.set_alpn_protocols(alpn)
    context.check_hostname = False
    return context.wrap_socket(s, server_hostname=sni)
def ask(raw, **more):
    try:
        t = tunnel(host, **more)
        t.sendall(raw)
        out = b""
        while True:
            piece = t.recv(65536)
            if not piece: break
            out += piece
    except (OSError, AttributeError) as error:
        return "broken " + type(error).__name__
    return out.decode(errors="replace").replace("\r", "").replace("\n", "|")
H = f"Host: {host}:{port}\r\n"
print("pipelined=" + ask(f"GET /ok/1 HTTP/1.1\r\n{H}\r\nGET /ok/2 HTTP/1.1\r\n{H}\r\nGET /admin HTTP/1.1\r\n{H}Connection: close\r\n\r\n".encode()))
print("clte=" + ask(f"POST /ok/s HTTP/1.1\r\n{H}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n{H}\r\n".encode()))
print("twolengths=" + ask(f"POST /ok/s HTTP/1.1\r\n{H}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde".encode()))
print("barelf=" + ask(f"GET /ok/s HTTP/1.1\n{H}\n".encode()))
print("folded=" + ask(f"GET /ok/s HTTP/1.1\r\n{H}X: a\r\n b\r\n\r\n".encode()))
print("chunkext=" + ask(f"POST /ok/s HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n".encode()))
print("absolute=" + ask(f"GET http://{host}:{port}/ok/s HTTP/1.1\r\n{H}Connection: close\r\n\r\n".encode()))
print("connect=" + ask(f"CONNECT {host}:{port} HTTP/1.1\r\n{H}Connection: close\r\n\r\n".encode()))
print("twohosts=" + ask(f"GET /ok/s HTTP/1.1\r\n{H}Host: other\r\n\r\n".encode()))
print("http2=" + ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"))
print("alpn=" + ask(b"", alpn=["h2"]))
print("sni=" + ask(f"GET /ok/s HTTP/1.1\r\n{H}\r\n".encode(), sni="other.example.test"))
print("clean=" + ask(f"GET /ok/clean HTTP/1.1\r\n{H}Connection: close\r\n\r\n".encode(), alpn=["h2", "http/1.1"]))
END
"#;
    let ended = scene.run(&["--allow-request", &grant], script).expect(0);
    let pipelined = told(&ended, "pipelined");
    assert!(
        pipelined.matches("HTTP/1.1 200").count() == 2 && pipelined.contains("request-not-granted"),
        "{pipelined}"
    );
    for (name, word) in [
        ("clte", "request-ambiguous"),
        ("twolengths", "request-ambiguous"),
        ("barelf", "request-ambiguous"),
        ("folded", "request-ambiguous"),
        ("chunkext", "request-ambiguous"),
        ("absolute", "request-not-served"),
        ("connect", "request-not-served"),
        ("twohosts", "request-ambiguous"),
        ("http2", "protocol-not-served"),
        ("alpn", "broken"),
        ("sni", "broken"),
    ] {
        assert!(told(&ended, name).contains(word), "{name}: {ended:#?}");
    }
    assert!(told(&ended, "clean").contains("/ok/clean"), "{ended:#?}");
    let summary = ended.json();
    for rule in ["protocol-not-served", "tls-name-mismatch"] {
        assert!(rules(&summary).iter().any(|one| one == rule), "{rule}: {summary}");
    }
    assert!(
        scene.server.seen().iter().all(|seen| seen.target.starts_with("/ok/")),
        "{:?}",
        scene.server.seen()
    );
    assert!(
        scene.seen("/ok/s").iter().all(|seen| seen.method == "POST" && seen.body.is_empty()),
        "{:?}",
        scene.server.seen()
    );
}

#[test]
fn an_mcp_endpoint_calls_only_the_tools_that_are_granted() {
    let scene = Scene::new(|seen| {
        let body = if seen.method == "GET" {
            "data: {}\n\n".to_owned()
        } else {
            String::from_utf8_lossy(&seen.body).into_owned()
        };
        let kind = if seen.method == "GET" { "text/event-stream" } else { "application/json" };
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
    });
    let grant = format!("{}/mcp#search", scene.base());
    let call = |tool: &str, id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": {"q": 1}}});
    let bodies = [
        ("search", call("search", 1).to_string()),
        ("delete", call("delete", 2).to_string()),
        ("batch", json!([call("search", 3), call("delete", 4)]).to_string()),
        ("list", json!({"jsonrpc": "2.0", "id": 5, "method": "tools/list"}).to_string()),
        (
            "read",
            json!({"jsonrpc": "2.0", "id": 6, "method": "resources/read", "params": {"uri": "x"}})
                .to_string(),
        ),
        ("twice", call("search", 7).to_string().replace("\"method\":", "\"method\":\"ping\",\"method\":")),
        (
            "escaped",
            call("delete", 8)
                .to_string()
                .replace("tools/call", "tools\\/c\\u0061ll")
                .replace("delete", "d\\u0065lete"),
        ),
        ("notjson", "tools/call".to_owned()),
    ];
    let mut script = String::from(
        "post() { name=$1; shift; echo \"$name=$(curl -sS -m 30 -o /tmp/out -w '%{http_code}' -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \"$@\" 2>/tmp/err) $(tr '\\n' ' ' </tmp/out)\" >&2; }\n",
    );
    for (name, body) in &bodies {
        script.push_str(&format!(
            "cat >/tmp/{name} <<'END'\n{body}\nEND\npost {name} --data-binary @/tmp/{name} \"$BASE/mcp\"\n"
        ));
    }
    script.push_str(
        "post get \"$BASE/mcp\"\npost end -X DELETE \"$BASE/mcp\"\npost put -X PUT -d 1 \"$BASE/mcp\"\npost plain -H 'Content-Type: text/plain' --data-binary @/tmp/search \"$BASE/mcp\"\npost gzip -H 'Content-Encoding: gzip' --data-binary @/tmp/search \"$BASE/mcp\"\npost header -H 'Mcp-Name: delete' --data-binary @/tmp/search \"$BASE/mcp\"\npost elsewhere --data-binary @/tmp/search \"$BASE/other\"\n",
    );
    let ended = scene.run(&["--allow-tool", &grant], &script).expect(0);
    for name in ["search", "list", "get", "end"] {
        assert!(told(&ended, name).starts_with("200"), "{name}: {ended:#?}");
    }
    for name in ["delete", "batch", "read", "escaped"] {
        let line = told(&ended, name);
        assert!(
            line.starts_with("200") && line.contains("-32001") && line.contains("tool-not-granted"),
            "{name}: {line}"
        );
    }
    assert!(told(&ended, "delete").contains("\"id\":2"), "{ended:#?}");
    assert!(
        told(&ended, "batch").contains("\"id\":3") && told(&ended, "batch").contains("\"id\":4"),
        "{ended:#?}"
    );
    for (name, status) in [
        ("twice", "400"),
        ("notjson", "400"),
        ("put", "403"),
        ("plain", "403"),
        ("gzip", "403"),
        ("elsewhere", "403"),
    ] {
        assert!(told(&ended, name).starts_with(status), "{name}: {ended:#?}");
    }
    assert!(
        !told(&ended, "header").starts_with("200 {\"jsonrpc\":\"2.0\",\"id\":1,\"method\""),
        "{ended:#?}"
    );
    let bodies: Vec<String> =
        scene.server.seen().iter().map(|seen| String::from_utf8_lossy(&seen.body).into_owned()).collect();
    assert!(bodies.iter().all(|body| !body.contains("delete")), "{bodies:?}");
    assert!(rules(&ended.json()).iter().any(|rule| rule == "tool-not-granted"));
}

#[test]
fn what_can_not_work_is_said_before_a_run_begins() {
    let scene = Scene::new(|_| text("fine"));
    let unknown = scene.run(&["--secret", "nothing"], "true").expect(2);
    assert!(unknown.stdout.contains("secret-unknown") && unknown.stdout.contains("--host"), "{unknown:#?}");
    for (name, options, code) in [
        ("path", vec![], "secret-name"),
        ("a b", vec![], "secret-name"),
        ("fine", vec!["--header", "Host: {}"], ""),
        ("fine", vec!["--header", "Authorization: Bearer"], ""),
        ("fine", vec!["--path", "repos"], ""),
    ] {
        let ended = scene.secret(name, &options).expect(2);
        assert!(format!("{ended:?}").contains(code), "{name} {options:?}: {ended:#?}");
    }
    let wildcard = scene.tipstaff(&["secrets", "set", "x", "--host", "*.example.test"]);
    assert_eq!(wildcard.code, Some(2), "{wildcard:#?}");
    scene.secret("fine", &["--path", "/a/**"]).expect(0);
    let dry =
        scene.tipstaff(&["run", "--dry-run", "--json", "--secret", "fine", "--", "true"]).expect(0).json();
    assert_eq!(dry["warrant"]["secrets"][0]["name"], "fine", "{dry}");
    assert_eq!(dry["warrant"]["hosts"][0]["requests"][0]["path"], "/a/**", "{dry}");
    assert!(!dry.to_string().contains("real-value"));
    scene.tipstaff(&["secrets", "remove", "fine"]).expect(0);
    scene.run(&["--secret", "fine"], "true").expect(2);
    // A wrong file of authorities is said, and nothing starts.
    scene.world.write(&scene.world.home().join("roots.pem"), "nothing");
    let wrong = scene.run(&["--inspect", HOST], "true").expect(2);
    assert!(wrong.stdout.contains("extra-roots-unreadable"), "{wrong:#?}");
}

//! A hostile agent with full control of its sandbox, through the real binary: whatever it says to git and to the proxy by
//! hand, nothing outside changes and nobody outside hears of it, but for what its warrant grants.

use crate::world::{Ended, World, run};
use serde_json::Value;
use std::collections::BTreeMap;
use tipstaff_testkit::TlsServer;

/// What was told as `name=answer`, one a line.
fn told(ended: &Ended) -> BTreeMap<String, String> {
    let line = |line: &str| line.split_once('=').map(|(name, answer)| (name.to_owned(), answer.to_owned()));
    ended.stderr.lines().filter_map(line).collect()
}

fn rules(summary: &Value) -> Vec<String> {
    let refusals = summary["refusals"].as_array().into_iter().flatten();
    refusals.filter_map(|refusal| refusal["rule"].as_str()).map(ToOwned::to_owned).collect()
}

const PUSHES: &str = r#"
own=$(git symbolic-ref HEAD); base=$(git rev-parse HEAD)
say() { echo "$1=$(tr '\n' '|' < /tmp/said)" >&2; }
try() { name=$1; shift; git push "$@" > /tmp/said 2>&1; say "$name"; }
commit() { GIT_AUTHOR_NAME="$NAME" GIT_AUTHOR_EMAIL="$MAIL" GIT_COMMITTER_NAME="$NAME" GIT_COMMITTER_EMAIL="$MAIL" git "$@"; }
echo one >> README.md; commit commit -qam one
for ref in refs/heads/main refs/heads/other refs/notes/x refs/tipstaff/base; do try "ref-$(basename $ref)" origin HEAD:$ref; done
git tag v1; try tag origin v1
try two --atomic origin $own HEAD:refs/heads/extra
try mirror --mirror origin
try own origin $own
commit commit -q --amend -m "another story"; try force --force origin $own
try delete origin :$own
git reset -q --hard origin/HEAD 2>/dev/null || git reset -q --hard "$(git ls-remote origin $own | cut -f1)"
tip=$(git rev-parse HEAD)
again() { git reset -q --hard $tip; git clean -qfdx; }
mkdir -p .github/workflows; echo 'on: push' > .github/workflows/x.yml; git add .; commit commit -qm w; try protected origin $own
echo x > y; git rm -qr --cached .github; rm -r .github; git add .; commit commit -qm "taken back"; try taken-back origin $own; again
git update-index --add --cacheinfo 160000,$base,sub; commit commit -qm s; try submodule origin $own; again
tree=$(printf '100644 blob %s\t.GIT/config\n' $(git hash-object -w README.md) | sed 's/\.GIT\/config/git~1/' | git mktree)
git update-ref $own $(commit commit-tree $tree -p $tip -m names); try names origin $own; git update-ref $own $tip; again
git update-ref $own $(git hash-object -w README.md | xargs -I{} printf '120000 blob {}\tlink\n' | git mktree | xargs -I{} git commit-tree {} -p $tip -m x); try author origin $own; git update-ref $own $tip; again
kind="100644 blob"; id=$(git hash-object -w README.md)
for level in 0 1 2 3 4 5 6 7 8 9; do
  id=$(for n in 0 1 2 3 4 5 6 7 8 9; do printf '%s %s\tf%s\n' "$kind" $id $n; done | git mktree); kind="040000 tree"
done
git update-ref $own $(commit commit-tree $id -p $tip -m bomb); try bomb origin $own; git update-ref $own $tip; again
git update-ref $own $(commit commit-tree "$tip^{tree}" -m orphan); try orphan --force origin $own; git update-ref $own $tip; again
git fetch origin $SECRET > /tmp/said 2>&1; say unadvertised
git fetch origin $SECRET_BLOB > /tmp/said 2>&1; say blob
"#;

#[test]
fn nothing_is_pushed_but_new_work_on_its_own_branch_and_nothing_else_is_read() {
    let world = World::new();
    let repository = world.repository("demo");
    world.git(&repository, &["checkout", "-q", "-b", "secret"]);
    world.write(&repository.join("plans.txt"), "of another branch\n");
    world.commit(&repository, "plans");
    let id = |revision: &str| world.git(&repository, &["rev-parse", revision]).trim().to_owned();
    let (secret, blob) = (id("HEAD"), id("HEAD:plans.txt"));
    world.git(&repository, &["checkout", "-q", "main"]);
    // Another run brings that branch into the mirror.
    world.tipstaff_in(&repository, &["run", "--base", "secret", "--json", "--", "true"]).expect(0);
    let before = world.picture(&repository);
    let script = format!(
        "NAME=$(git config user.name); MAIL=$(git config user.email); SECRET={secret}; SECRET_BLOB={blob}\n{PUSHES}"
    );
    let ended = world.run_script(&repository, &script);
    let told = told(&ended);
    for (name, rule) in [
        ("ref-main", "ref-not-granted"),
        ("ref-other", "ref-not-granted"),
        ("ref-x", "ref-not-granted"),
        ("ref-base", "ref-not-granted"),
        ("tag", "ref-not-granted"),
        ("two", "ref-not-granted"),
        ("mirror", "ref-not-granted"),
        ("force", "force-push"),
        ("delete", "ref-delete"),
        ("protected", "path-protected"),
        ("taken-back", "path-protected"),
        ("names", "push-object-check"),
        ("bomb", "push-too-many-files"),
        ("orphan", "base-not-ancestor"),
    ] {
        let said = told.get(name).unwrap_or_else(|| panic!("{name}: {ended:#?}"));
        assert!(said.contains("[remote rejected]") && said.contains(rule), "{name}: {said}");
    }
    for name in ["submodule", "author"] {
        assert!(told[name].contains("[remote rejected]"), "{name}: {}", told[name]);
    }
    assert!(!told["own"].contains("rejected"), "{told:?}");
    for name in ["unadvertised", "blob"] {
        assert!(told[name].contains("not our ref") || told[name].contains("fatal"), "{name}: {}", told[name]);
    }
    let summary = ended.json();
    for rule in ["ref-not-granted", "force-push", "ref-delete", "path-protected", "push-object-check"] {
        assert!(rules(&summary).iter().any(|one| one == rule), "{rule}: {summary}");
    }
    assert_eq!(world.picture(&repository), before, "nothing outside changed");
    world.tipstaff(&["audit", "verify"]).expect(0);
}

const NETWORK: &str = r#"/usr/bin/python3 - <<'END' >&2
import os, socket, ssl
host, port = "api.corp.example", os.environ["PORT"]
place = f"{host}:{port}"
def raw(data, pieces=None):
    s = socket.create_connection(("127.0.0.1", 8080), 20); s.settimeout(20)
    out = b""
    try:
        for piece in ([data] if pieces is None else pieces): s.sendall(piece)
        while True:
            piece = s.recv(65536)
            if not piece: break
            out += piece
    except OSError as error:
        out += b" broken " + type(error).__name__.encode()
    return out.decode(errors="replace").replace("\r", "").replace("\n", "|")
def connect(to, more=""):
    return f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{more}\r\n".encode()
def hello(name):
    context = ssl.create_default_context(); context.check_hostname = False
    ins, outs = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = context.wrap_bio(ins, outs, server_hostname=name)
    try: side.do_handshake()
    except ssl.SSLWantReadError: pass
    return outs.read()
def with_extension(data, kind, content):
    body = bytearray(data[9:])
    at = 34; at += 1 + body[at]; at += 2 + int.from_bytes(body[at:at+2], "big"); at += 1 + body[at]
    size = int.from_bytes(body[at:at+2], "big")
    added = kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content
    body[at:at+2] = (size + len(added)).to_bytes(2, "big"); body += added
    return data[:3] + (len(body) + 4).to_bytes(2, "big") + data[5:6] + len(body).to_bytes(3, "big") + bytes(body)
def after_connect(pieces):
    s = socket.create_connection(("127.0.0.1", 8080), 20); s.settimeout(20)
    s.sendall(connect(place)); head = b""
    while b"\r\n\r\n" not in head: head += s.recv(1)
    out = b""
    try:
        for piece in pieces: s.sendall(piece)
        out += s.recv(65536)
    except OSError as error: pass
    return "closed" if not out or out[0] == 21 else "answered " + out[:20].hex()
line = f"POST http://plain.corp.example:{port}/x HTTP/1.1\r\nHost: plain.corp.example:{port}\r\n"
smuggled = f"GET http://plain.corp.example:{port}/smuggled HTTP/1.1\r\nHost: plain.corp.example:{port}\r\n\r\n"
print("clte=" + raw(f"{line}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}".encode()))
print("twolengths=" + raw(f"{line}Content-Length: 0\r\nContent-Length: {len(smuggled)}\r\n\r\n{smuggled}".encode()))
print("barelf=" + raw(f"{line}X: a\nY: b\r\n\r\n".encode()))
print("folded=" + raw(f"{line}X: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode()))
print("otherhost=" + raw(f"GET http://plain.corp.example:{port}/x HTTP/1.1\r\nHost: evil.test\r\n\r\n".encode()))
print("http2=" + raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
print("websocket=" + raw(f"GET http://plain.corp.example:{port}/x HTTP/1.1\r\nHost: plain.corp.example:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".encode()))
for name, to in [("metadata", "169.254.169.254:80"), ("loopback", "127.0.0.1:22"), ("loopback6", "[::1]:22"), ("private", "10.0.0.1:443"),
                 ("mapped", "[::ffff:169.254.169.254]:80"), ("decimal", "2852039166:80"), ("byname", "inside.corp.example:443"), ("otherport", f"{host}:1"), ("stranger", "evil.test:443")]:
    print(f"{name}=" + raw(connect(to)))
print("identity=" + raw(connect("evil.test:443", "X-Tipstaff-Run: 01a200aa-2a14-7597-9ca6-6281a0dfde19\r\nX-Forwarded-For: 10.0.0.1\r\nAuthorization: Bearer operator\r\n")))
print("nosni=" + after_connect([hello(None)]))
print("othersni=" + after_connect([hello("evil.test")]))
evil = hello("evil.test")
print("split=" + after_connect([evil[i:i+3] for i in range(0, len(evil), 3)]))
print("ech=" + after_connect([with_extension(hello(host), 0xfe0d, b"\0\0\1\0\1\x07\0\0\0\0")]))
print("notls=" + after_connect([b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"]))
print("good=" + after_connect([hello(host)]))
END
"#;

#[test]
fn nobody_outside_hears_of_what_it_was_not_granted_however_it_is_asked_for() {
    let world = World::new();
    let server = TlsServer::start(&["api.corp.example"], "here\n").unwrap();
    let port = server.address().port();
    let plain = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    plain.set_nonblocking(true).unwrap();
    let hosts =
        "[network.hosts]\n\"api.corp.example\" = [\"127.0.0.1\"]\n\"plain.corp.example\" = [\"127.0.0.1\"]\n";
    world.write(&world.home().join("config.toml"), hosts);
    let repository = world.repository("demo");
    let plain_port = plain.local_addr().unwrap().port();
    let script = NETWORK.replace("plain.corp.example:{port}", &format!("plain.corp.example:{plain_port}"));
    // A granted name whose address is private. Root alone can tell its process so.
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    let names = world.path().join("hosts");
    world.write(&names, "127.0.0.1 localhost\n169.254.169.254 inside.corp.example inside.corp.example.\n");
    let mut command = if root {
        let mut command = world.command("unshare");
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script]).arg(&names).arg(world.binary());
        command
    } else {
        world.command(world.binary())
    };
    command.current_dir(&repository).args(["run", "--json", "--timeout", "120s"]);
    for host in [
        format!("api.corp.example:{port}"),
        format!("plain.corp.example:{plain_port}"),
        "inside.corp.example:443".to_owned(),
    ] {
        command.args(["--allow-host", &host]);
    }
    command.args(["--", "sh", "-c", &format!("export PORT={port}\n{script}")]);
    let ended = run(command).expect(0);
    let told = told(&ended);
    for (name, word) in [
        ("clte", "request-ambiguous"),
        ("twolengths", "request-ambiguous"),
        ("barelf", "request-ambiguous"),
        ("folded", "request-ambiguous"),
        ("otherhost", "request-ambiguous"),
        ("http2", "protocol-not-served"),
        ("websocket", "protocol-not-served"),
        ("metadata", "169.254.169.254"),
        ("loopback", "127.0.0.1"),
        ("loopback6", "::1"),
        ("private", "10.0.0.1"),
        ("mapped", "HTTP/1.1 4"),
        ("decimal", "HTTP/1.1 4"),
        ("byname", if root { "address-forbidden" } else { "HTTP/1.1 5" }),
        ("otherport", "port-not-granted"),
        ("stranger", "host-not-granted"),
        ("identity", "host-not-granted"),
        ("nosni", "closed"),
        ("othersni", "closed"),
        ("split", "closed"),
        ("ech", "closed"),
        // HTTP/1.1 403
        ("notls", "answered 485454502f312e3120343033"),
        ("good", "answered 16"),
    ] {
        let said = told.get(name).unwrap_or_else(|| panic!("{name}: {ended:#?}"));
        assert!(said.contains(word), "{name}: {said}");
        assert!(!said.contains("HTTP/1.1 200"), "{name}: {said}");
    }
    assert_eq!(plain.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody was dialled");
    assert!(server.requests().is_empty(), "{:?}", server.requests());
    assert_eq!(server.connections(), 6, "one for each tunnel, and none for what was refused before");
    let summary = ended.json();
    for rule in
        ["request-ambiguous", "tls-name-mismatch", "tls-unreadable", "host-not-granted", "address-forbidden"]
    {
        assert!(rules(&summary).iter().any(|one| one == rule), "{rule}: {summary}");
    }
    world.tipstaff(&["audit", "verify"]).expect(0);
}

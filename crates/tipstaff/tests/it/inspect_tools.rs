//! Package managers and an HTTP library as they are installed, each against its own kind of registry behind an inspected
//! host: they trust the run's authority without being told anything by their user.

use crate::inspect::{Scene, told};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// The file that a scripted registry hands out, and its digest.
#[derive(Default, Clone)]
struct Package {
    content: Vec<u8>,
    sha256: String,
}

impl Package {
    fn read(scene: &Scene, path: &Path) -> Self {
        let mut command = scene.world.command("sha256sum");
        let said = crate::world::run({
            command.arg(path);
            command
        });
        let sha256 = said.expect(0).stdout.split(' ').next().unwrap().to_owned();
        Self { content: std::fs::read(path).unwrap(), sha256 }
    }
}

fn answer(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn missing() -> Vec<u8> {
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()
}

/// A registry that has one package; which one is said once its port is known.
fn registry(reply: fn(&str, &Package, &str) -> Option<Vec<u8>>) -> (Scene, Arc<Mutex<(Package, String)>>) {
    let held: Arc<Mutex<(Package, String)>> = Arc::default();
    let seen_by_server = Arc::clone(&held);
    let scene = Scene::new(move |seen| {
        let (package, base) = seen_by_server.lock().unwrap().clone();
        reply(&seen.target, &package, &base).unwrap_or_else(missing)
    });
    (scene, held)
}

/// The cargo that builds this test: a single program, which a run can be given as a file of its repository.
fn cargo() -> PathBuf {
    let said = std::env::var_os("CARGO").map(PathBuf::from).filter(|path| path.is_absolute());
    said.expect("CARGO names the cargo that runs the tests")
}

#[test]
fn cargo_fetches_a_crate_from_an_inspected_registry() {
    let (scene, held) = registry(|target, package, base| match target {
        "/index/config.json" => {
            Some(answer("application/json", format!("{{\"dl\":\"{base}/dl\"}}").as_bytes()))
        }
        "/index/de/mo/demo" => {
            let line = format!(
                "{{\"name\":\"demo\",\"vers\":\"1.2.3\",\"deps\":[],\"cksum\":\"{}\",\"features\":{{}},\"yanked\":false}}\n",
                package.sha256
            );
            Some(answer("text/plain", line.as_bytes()))
        }
        "/dl/demo/1.2.3/download" => Some(answer("application/gzip", &package.content)),
        _ => None,
    });
    let made = scene.world.path().join("made");
    scene.world.write(
        &made.join("demo-1.2.3/Cargo.toml"),
        "[package]\nname = \"demo\"\nversion = \"1.2.3\"\nedition = \"2021\"\n",
    );
    scene.world.write(&made.join("demo-1.2.3/src/lib.rs"), "pub fn from_the_registry() {}\n");
    pack(&scene, &made, &["tar", "-czf", "demo.crate", "demo-1.2.3"]);
    *held.lock().unwrap() = (Package::read(&scene, &made.join("demo.crate")), scene.base());

    let repository = &scene.repository;
    std::fs::copy(cargo(), repository.join("cargo-itself")).unwrap();
    scene.world.write(
        &repository.join("Cargo.toml"),
        "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ndemo = { version = \"1\", registry = \"test\" }\n",
    );
    scene.world.write(&repository.join("src/lib.rs"), "\n");
    let config = format!("[registries.test]\nindex = \"sparse+{}/index/\"\n[net]\nretry = 0\n", scene.base());
    scene.world.write(&repository.join(".cargo/config.toml"), &config);
    scene.world.commit(repository, "an app with a dependency");
    // Vendoring resolves, downloads and unpacks, and needs no compiler.
    let script = r#"
export CARGO_HOME=/tmp/cargo-home
./cargo-itself vendor -q /tmp/vendored >/dev/null && grep -rq from_the_registry /tmp/vendored/demo && echo cargo=fine >&2
rm -rf /tmp/cargo-home
env -u CARGO_HTTP_CAINFO -u SSL_CERT_FILE -u CURL_CA_BUNDLE ./cargo-itself vendor -q /tmp/other >/dev/null || echo distrust=refused >&2
"#;
    let grant = format!("GET {}/**", scene.base());
    let ended = scene.run(&["--allow-request", &grant], script).expect(0);
    assert_eq!((told(&ended, "cargo"), told(&ended, "distrust")), ("fine", "refused"), "{ended:#?}");
    assert_eq!(scene.seen("/dl/demo/1.2.3/download").len(), 1, "only by whom the run trusts");
}

#[test]
fn pip_and_requests_work_with_an_inspected_index() {
    let (scene, held) = registry(|target, package, base| match target {
        "/simple/demo/" => {
            let page = format!(
                "<!DOCTYPE html><a href=\"{base}/files/demo-1.2.3-py3-none-any.whl#sha256={}\">demo-1.2.3-py3-none-any.whl</a>",
                package.sha256
            );
            Some(answer("text/html", page.as_bytes()))
        }
        "/files/demo-1.2.3-py3-none-any.whl" => Some(answer("application/zip", &package.content)),
        "/by-requests" => Some(answer("text/plain", b"by requests")),
        _ => None,
    });
    let made = scene.world.path().join("made");
    scene.world.write(&made.join("demo.py"), "FROM_THE_INDEX = True\n");
    let info = made.join("demo-1.2.3.dist-info");
    scene.world.write(&info.join("METADATA"), "Metadata-Version: 2.1\nName: demo\nVersion: 1.2.3\n");
    scene.world.write(
        &info.join("WHEEL"),
        "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    );
    scene.world.write(&info.join("RECORD"), "demo.py,,\ndemo-1.2.3.dist-info/METADATA,,\ndemo-1.2.3.dist-info/WHEEL,,\ndemo-1.2.3.dist-info/RECORD,,\n");
    pack(
        &scene,
        &made,
        &["/usr/bin/python3", "-m", "zipfile", "-c", "demo.whl", "demo.py", "demo-1.2.3.dist-info"],
    );
    *held.lock().unwrap() = (Package::read(&scene, &made.join("demo.whl")), scene.base());
    // The library that pip brings along is the one that everybody uses.
    let script = r#"
export HOME=/tmp
/usr/bin/python3 -m pip --version >&2 || echo "script/setup brings pip" >&2
/usr/bin/python3 -m pip install -q --disable-pip-version-check --retries 0 --no-deps --target /tmp/site --index-url "$BASE/simple/" demo >&2 \
  && PYTHONPATH=/tmp/site /usr/bin/python3 -c 'import demo; assert demo.FROM_THE_INDEX' && echo pip=fine >&2
/usr/bin/python3 - <<'END' && echo requests=fine >&2
import os
from pip._vendor import requests
assert os.environ["REQUESTS_CA_BUNDLE"].startswith("/tipstaff/trust/")
assert requests.get(os.environ["BASE"] + "/by-requests", timeout=30).text == "by requests"
session = requests.Session()
session.trust_env = False
session.proxies = {"https": os.environ["HTTPS_PROXY"]}
try:
    session.get(os.environ["BASE"] + "/distrusts", timeout=30)
    raise SystemExit("it trusted somebody that nobody named")
except requests.exceptions.SSLError:
    pass
END
"#;
    let grant = format!("GET {}/**", scene.base());
    let ended = scene.run(&["--allow-request", &grant], script).expect(0);
    assert_eq!((told(&ended, "pip"), told(&ended, "requests")), ("fine", "fine"), "{ended:#?}");
    assert!(scene.seen("/distrusts").is_empty());
    assert!(scene.seen("/simple/demo/")[0].field("user-agent").starts_with("pip/"));
}

/// Runs a packer in a folder.
fn pack(scene: &Scene, folder: &Path, argv: &[&str]) {
    let (program, arguments) = argv.split_first().unwrap();
    let mut command: Command = scene.world.command(program);
    command.current_dir(folder).args(arguments);
    crate::world::run(command).expect(0);
}

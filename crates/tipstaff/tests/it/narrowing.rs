//! Narrowing a run that goes on: what it was granted of secrets, models, requests and money, taken away while it is used.

use crate::policy::{narrow, warrant};
use crate::world::{World, wait};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tipstaff_testkit::{ModelServer, ScriptedTls, SeenRequest, script_prompt};

/// Nobody's.
const VALUE: &str = "real-value-9a3f7c21e5d0-nobodys";

pub(crate) const HOST: &str = "api.example.test";
pub(crate) const OTHER: &str = "other.example.test";

pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) repository: PathBuf,
    pub(crate) hosts: ScriptedTls,
    pub(crate) models: ModelServer,
    /// What `/go` answers.
    pub(crate) go: Arc<AtomicBool>,
}

fn text(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Scene {
    pub(crate) fn new() -> Self {
        let world = World::new();
        let repository = world.repository("demo");
        let go = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&go);
        let answer = move |seen: &SeenRequest| match seen.target.as_str() {
            "/go" => text(if flag.load(Ordering::SeqCst) { "go" } else { "wait" }),
            // Longer than anybody waits.
            "/hang" => {
                std::thread::sleep(LONG * 2);
                text("late")
            }
            _ => text("fine"),
        };
        let hosts = ScriptedTls::start(&[HOST, OTHER], Arc::new(answer)).unwrap();
        let models = ModelServer::start(Default::default()).unwrap();
        world.write(&world.home().join("roots.pem"), hosts.roots_pem());
        let config = format!(
            "[network]\nextra_roots = \"roots.pem\"\n[network.hosts]\n\"{HOST}\" = [\"127.0.0.1\"]\n\"{OTHER}\" = [\"127.0.0.1\"]\n\
             [upstreams.openai]\nurl = \"{}/v1\"\n",
            models.url()
        );
        world.write(&world.home().join("config.toml"), &config);
        Self { world, repository, hosts, models, go }
    }

    pub(crate) fn secret(&self) {
        let place = format!("{HOST}:{}", self.hosts.port());
        let mut command = self.world.command(self.world.binary());
        command.args(["secrets", "set", "api-token", "--host", &place, "--path", "/app/**"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(VALUE.as_bytes()).unwrap();
        wait(child, LONG).expect(0);
    }

    /// Starts a run of `script`, with its places and the ways to ask in its environment.
    pub(crate) fn start(&self, options: &[&str], script: &str) -> Child {
        let port = self.hosts.port();
        let prompt = script_prompt("Say it.", json!([{"text": "said"}]));
        let body = json!({
            "model": "gpt-5.5", "max_tokens": 600, "messages": [{"role": "user", "content": prompt}],
        });
        let script = format!(
            "BASE=https://{HOST}:{port} OTHER=https://{OTHER}:{port}\ncat >/tmp/body <<'END'\n{body}\nEND\n\
             say() {{ name=$1; shift; echo \"$name=$(curl -sS -m 50 -o /tmp/out -w '%{{http_code}}' \"$@\" 2>/tmp/err) $(tr '\\n' ' ' </tmp/out)\" >&2; }}\n\
             model() {{ say \"$1\" -H 'content-type: application/json' --data-binary @/tmp/body http://127.0.0.1:8080/model/openai/v1/chat/completions; }}\n\
             {script}"
        );
        let repo = self.repository.to_str().unwrap();
        let timeout = if options.contains(&"--under") { "60s" } else { "120s" };
        let head = ["run", "--json", "--timeout", timeout, "--repo", repo, "--model", "openai/gpt-5.5"];
        self.world.start(&[&head[..], options, &["--", "sh", "-c", &script]].concat())
    }

    /// Waits until the hosts saw a request.
    pub(crate) fn until_seen(&self, target: &str) {
        let begun = Instant::now();
        while !self.hosts.seen().iter().any(|seen| seen.target == target) {
            assert!(begun.elapsed() < LONG, "nobody asked for {target}: {:?}", self.hosts.seen());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

#[test]
fn secrets_models_and_open_requests_are_taken_away_from_a_run_that_goes_on() {
    let scene = Scene::new();
    scene.secret();
    let port = scene.hosts.port();
    let (inspect, request) = (format!("{HOST}:{port}"), format!("GET https://{OTHER}:{port}/hang"));
    let script = r#"
say before -H "Authorization: Bearer $API_TOKEN" "$BASE/app/x"
model asked
say cut "$OTHER/hang"
until [ "$(curl -sS -m 10 "$BASE/go")" = go ]; do sleep 0.2; done
say after -H "Authorization: Bearer $API_TOKEN" "$BASE/app/y"
say plain "$BASE/app/z"
model refused
echo on > on.txt
"#;
    let options = ["--inspect", &inspect, "--secret", "api-token", "--allow-request", &request];
    let child = scene.start(&options, script);
    scene.until_seen("/hang");
    let first = warrant(&scene.world);
    let less = ["--drop-secret", "api-token", "--drop-model", "openai/gpt-5.5", "--drop-host", OTHER];
    let told = narrow(&scene.world, &first, &less).expect(0).json();
    let second = told["warrant"]["id"].as_str().unwrap().to_owned();
    scene.go.store(true, Ordering::SeqCst);
    let ended = wait(child, LONG * 2).expect(0);
    let line = |name: &str| {
        let start = format!("{name}=");
        let found = ended.stderr.lines().find(|line| line.starts_with(&start));
        found.unwrap_or_else(|| panic!("no {name} in {}", ended.stderr))
    };
    assert!(line("before").starts_with("before=200") && line("asked").starts_with("asked=200"), "{ended:#?}");
    // The request that was open says why it ends where its answer had not begun.
    for (start, rule) in
        [("cut=403", "host-not-granted"), ("after=403", "secret-"), ("refused=400", "model-not-granted")]
    {
        let (name, _) = start.split_once('=').unwrap();
        assert!(line(name).starts_with(start) && line(name).contains(rule), "{ended:#?}");
    }
    assert!(line("plain").starts_with("plain=200"), "the host itself is granted as before: {ended:#?}");
    let seen = scene.hosts.seen();
    assert!(
        seen.iter().any(|seen| format!("{seen:?}").contains(VALUE) && seen.target == "/app/x"),
        "{seen:?}"
    );
    assert!(seen.iter().all(|seen| seen.target != "/app/y"), "{seen:?}");
    assert_eq!(scene.models.scripted_requests().len(), 1, "the second call was not passed on");
    assert_eq!(ended.json()["files_changed"], 1, "the run went on: {ended:#?}");
    let about = format!("warrant:{second}");
    let log = scene.world.tipstaff(&["audit", "list", "--about", &about, "--json"]).expect(0).stdout;
    assert!(log.contains("warrant.enforced"), "{log}");
}

#[test]
fn money_is_taken_away_from_a_run_that_goes_on() {
    let scene = Scene::new();
    let script = "n=0; while [ $n -lt 300 ]; do model call; case $(tail -c 400 /tmp/out) in *insufficient*|*budget*) exit 0;; esac; \
                  n=$((n+1)); sleep 0.3; done";
    let child = scene.start(&["--budget", "50"], script);
    let begun = Instant::now();
    while scene.models.scripted_requests().is_empty() {
        assert!(begun.elapsed() < LONG, "no call came");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let first = warrant(&scene.world);
    narrow(&scene.world, &first, &["--budget", "0.05"]).expect(0);
    let ended = wait(child, LONG * 2).expect(4);
    let summary = ended.json();
    assert_eq!(summary["exit_reason"], "budget_exceeded", "{summary}");
    let calls = scene.models.scripted_requests().len();
    assert!(calls < 300, "{calls} calls");
    let cost = summary["cost_micro_usd"].as_u64().unwrap();
    assert!(cost > 0 && cost < 5_000_000, "it ended by the narrowed budget, not by the first: {summary}");
}

#[test]
fn a_handle_never_reaches_a_model() {
    let scene = Scene::new();
    scene.secret();
    let script = r#"
sed -i "s|Say it.|Say it. $API_TOKEN|" /tmp/body
model asked
echo "$API_TOKEN" | rev > reversed
"#;
    let ended = wait(scene.start(&["--secret", "api-token"], script), LONG).expect(0);
    assert!(ended.stderr.contains("asked=200"), "{ended:#?}");
    let run = ended.json()["run"].as_str().unwrap().to_owned();
    let diff = scene.world.tipstaff(&["runs", "diff", &run]).expect(0).stdout;
    let reversed = diff.lines().find_map(|line| line.strip_prefix('+').filter(|line| line.ends_with("_hst")));
    let handle: String = reversed.unwrap_or_else(|| panic!("no handle in {diff}")).chars().rev().collect();
    let asked = scene.models.scripted_requests();
    assert_eq!(asked.len(), 1);
    assert!(!format!("{asked:?}").contains(&handle), "the provider saw the handle");
    let summary = ended.json();
    let noted = summary["refusals"].as_array().unwrap().iter().any(|one| one["rule"] == "secret-misused");
    assert!(noted, "it is noted: {summary}");
}

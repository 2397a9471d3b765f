//! Which models may be asked, who serves them, with whose key; and that nothing of what is asked is kept by the gateway.

use crate::world::{Ended, World};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tipstaff_testkit::{ModelServer, ModelServerConfig, script_prompt};

/// Nobody's.
const KEY: &str = "models-key-7c2e9b4f1d60-nobodys";

/// A token as a login has it; nobody's.
const TOKEN: &str = "sk-ant-oat01-nobodys-login-5d1f8c3b7a9e2046";

struct Scene {
    world: World,
    repository: PathBuf,
    server: ModelServer,
}

fn server(key: &str, login: bool) -> ModelServer {
    ModelServer::start(ModelServerConfig { key: Some(key.to_owned()), login, ..Default::default() }).unwrap()
}

impl Scene {
    fn new() -> Self {
        Self::with(server(KEY, false))
    }

    fn with(server: ModelServer) -> Self {
        let world = World::new();
        let repository = world.repository("demo");
        Self { world, repository, server }
    }

    fn config(&self, text: &str) {
        self.world.write(&self.world.home().join("config.toml"), text);
    }

    /// `tipstaff ARGS…` with the providers at the scripted server, and no key.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(self.world.binary());
        for provider in ["ANTHROPIC", "OPENAI", "GEMINI"] {
            command.env(format!("TIPSTAFF_{provider}_UPSTREAM"), self.server.url());
        }
        command.current_dir(&self.repository).args(args);
        command
    }

    fn tipstaff(&self, args: &[&str]) -> Ended {
        crate::world::run(self.command(args))
    }

    fn error(&self, args: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(args);
        let ended = self.tipstaff(&all);
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:#?}");
        ended.json()["error"].clone()
    }

    /// Runs `script` with one model granted, and the key in the person's environment.
    fn run(&self, model: &str, script: &str) -> Ended {
        let mut command = self.command(&[
            "run",
            "--json",
            "--timeout",
            "90s",
            "--budget",
            "5",
            "--model",
            model,
            "--",
            "sh",
            "-c",
            script,
        ]);
        for provider in ["ANTHROPIC", "OPENAI", "GEMINI"] {
            command.env(format!("{provider}_API_KEY"), KEY);
        }
        crate::world::run(command)
    }

    /// The line of `models list --json` about a provider, or about one model of it.
    fn listed(&self, command: &mut Command, provider: &str, model: Option<&str>) -> Value {
        let ended = crate::world::run(std::mem::replace(command, Command::new("true"))).expect(0);
        let lines: Vec<Value> =
            ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let found = lines.iter().find(|line| {
            line["provider"] == provider && line["model"] == model.map_or(Value::Null, Value::from)
        });
        found.unwrap_or_else(|| panic!("{provider} {model:?} in {ended:#?}")).clone()
    }
}

/// A call of Anthropic's by curl.
fn call(provider: &str, model: &str, steps: Value) -> String {
    let content = script_prompt("Go.", steps);
    let body = json!({"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": content}]});
    format!(
        "cat >/tmp/body <<'END'\n{body}\nEND\ncurl -sS -m 60 -w '\\nstatus-%{{http_code}}\\n' -H 'content-type: application/json' \
         --data-binary @/tmp/body 'http://127.0.0.1:8080/model/{provider}/v1/messages'\n"
    )
}

fn says(text: &str) -> Value {
    json!([{ "text": text }])
}

const SONNET: &str = "claude-sonnet-5-5";

#[test]
fn allow_lists_bind_the_org_and_the_operator_and_say_so() {
    let scene = Scene::new();
    let with_key = |args: &[&str]| {
        let mut command = scene.command(args);
        command.env("ANTHROPIC_API_KEY", KEY).env("OPENAI_API_KEY", KEY);
        command
    };
    let refused = |model: &str| {
        let args = ["run", "--json", "--model", model, "--", "true"];
        let ended = crate::world::run(with_key(&args)).expect(2);
        let error = ended.json()["error"].clone();
        assert_eq!(error["code"], "model-not-allowed", "{error}");
        error["message"].as_str().unwrap().to_owned()
    };
    scene.tipstaff(&["models", "deny", "claude-opus-*"]).expect(0);
    let why = refused("anthropic/claude-opus-4-1");
    assert!(why.contains("your org denies claude-opus-*") && why.contains("tipstaff models list"), "{why}");
    let why = refused("anthropic/claude-*");
    assert!(why.contains("your org denies"), "a grant of many is as good as its worst: {why}");
    scene.run(&format!("anthropic/{SONNET}"), &call("anthropic", SONNET, says("yes"))).expect(0);

    scene.tipstaff(&["models", "allow", "anthropic/claude-sonnet-*"]).expect(0);
    let why = refused("openai/gpt-5.5");
    assert!(why.contains("your org allows only anthropic/claude-sonnet-*"), "{why}");
    // The operator's ceiling binds every org; an org can't lift it.
    scene.config("[models]\nallow = [\"openai/*\"]\n");
    let why = refused(&format!("anthropic/{SONNET}"));
    assert!(why.contains("the operator (config.toml) allows only openai/*"), "{why}");
    let line = scene.listed(&mut scene.command(&["models", "list", "--json"]), "anthropic", Some(SONNET));
    assert_eq!(line["allowed"], false, "{line}");
    assert!(line["why"].as_str().unwrap().contains("config.toml"), "{line}");
    assert!(line["price"]["output"].as_u64().unwrap() > 0, "{line}");
    let table = scene.tipstaff(&["models", "list", "anthropic/claude-*"]).expect(0).stdout;
    assert!(table.contains("no: the operator") && table.contains("SERVED BY"), "{table}");

    // What an engine asks besides is left out of the warrant when it may not be asked.
    scene.config("[models]\ndeny = [\"*/claude-haiku-*\"]\n");
    let args = ["run", "--json", "--dry-run", "--engine", "claude-code", "hello"];
    let plan = crate::world::run(with_key(&args)).expect(0).json();
    let granted: Vec<&str> = plan["warrant"]["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["model"].as_str().unwrap())
        .collect();
    assert_eq!(granted, [SONNET], "{plan}");

    scene.tipstaff(&["models", "forget", "anthropic/claude-sonnet-*"]).expect(0);
    assert_eq!(scene.error(&["models", "forget", "anthropic/claude-sonnet-*"])["code"], "model-rule-unknown");
    assert_eq!(
        scene.error(&["models", "allow", "openai/*", "--project", "nobody"])["code"],
        "project-unknown"
    );
    let bad = scene.tipstaff(&["models", "allow", "an thropic/*"]).expect(2);
    assert!(bad.stderr.contains("is not a model"), "{bad:#?}");
    crate::world::run(with_key(&["run", "--json", "--model", "openai/gpt-5.5", "--", "true"])).expect(0);
    let log = scene.tipstaff(&["audit", "list", "--json"]).expect(0).stdout;
    assert_eq!(log.matches("models.set").count(), 3, "{log}");
    scene.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn a_project_may_ask_less_than_its_org_and_has_its_own_routes() {
    let scene = Scene::new();
    let other = server("the-proxys-own-key-0123456789", false);
    scene.config(&format!(
        "[upstreams.proxy]\nwire = \"anthropic\"\nurl = \"{}\"\nkey_env = \"PROXY_KEY\"\n",
        other.url()
    ));
    let run = |model: &str| {
        let script = call("anthropic", model, says("served"));
        let model = format!("anthropic/{model}");
        let mut command = scene.command(&[
            "run",
            "--json",
            "--timeout",
            "90s",
            "--model",
            &model,
            "--",
            "sh",
            "-c",
            &script,
        ]);
        command.env("ANTHROPIC_API_KEY", KEY).env("PROXY_KEY", "the-proxys-own-key-0123456789");
        crate::world::run(command)
    };
    // The first run makes the repository known.
    run(SONNET).expect(0);
    scene.tipstaff(&["projects", "add", "site"]).expect(0);
    let shown = scene.tipstaff(&["runs", "show", "--json"]).expect(0).json();
    let repository = shown["warrant"]["repositories"][0]["name"].as_str().unwrap().to_owned();
    scene.tipstaff(&["projects", "assign", &repository, "site"]).expect(0);
    scene.tipstaff(&["models", "allow", "anthropic/claude-haiku-*", "--project", "site"]).expect(0);
    let refused = run(SONNET).expect(2).json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(refused.contains("the project site allows only anthropic/claude-haiku-*"), "{refused}");
    let haiku = "claude-haiku-4-5";
    scene.tipstaff(&["models", "route", "anthropic/*", "proxy", "--project", "site"]).expect(0);
    run(haiku).expect(0);
    assert_eq!(other.scripted_requests().len(), 1, "the project's route");
    // Never wider: what the org denies stays denied, whatever the project allows.
    scene.tipstaff(&["models", "deny", haiku]).expect(0);
    scene.tipstaff(&["models", "allow", "anthropic/*", "--project", "site"]).expect(0);
    let refused = run(haiku).expect(2).json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(refused.contains("your org denies claude-haiku-4-5"), "{refused}");
    let list = |args: &[&str]| scene.listed(&mut scene.command(args), "anthropic", Some(SONNET));
    let of_project = list(&["models", "list", "--json", "--project", "site"]);
    assert_eq!(
        (of_project["allowed"].as_bool(), of_project["route"]["owner"].as_str()),
        (Some(true), Some("project"))
    );
    assert_eq!(list(&["models", "list", "--json"])["route"], Value::Null);
    assert_eq!(scene.error(&["models", "list", "--project", "nobody"])["code"], "project-unknown");
    // Another repository is in no project.
    scene.tipstaff(&["projects", "assign", &repository]).expect(0);
    run(SONNET).expect(0);
    assert_eq!(other.scripted_requests().len(), 1);
}

#[test]
fn routes_lead_to_other_upstreams_and_what_served_is_charged() {
    let scene = Scene::new();
    let other = server("the-proxys-own-key-0123456789", false);
    let key = scene.world.home().join("proxy.key");
    scene.world.write(&key, "the-proxys-own-key-0123456789\n");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    scene.config(&format!(
        "[upstreams.proxy]\nwire = \"anthropic\"\nurl = \"{}\"\nkey_file = \"proxy.key\"\n\
         [upstreams.gone]\nwire = \"anthropic\"\nurl = \"http://127.0.0.1:1\"\n\
         [routes]\n\"anthropic/claude-haiku-*\" = {{ upstream = \"gone\", fallback = [{{ upstream = \"proxy\", model = \"claude-sonnet-4-6\" }}] }}\n",
        other.url()
    ));
    assert_eq!(scene.error(&["models", "route", "claude-*", "nobody"])["code"], "provider-unknown");
    scene
        .tipstaff(&["models", "route", "anthropic/claude-sonnet-*", "proxy", "--model", "claude-opus-4-6"])
        .expect(0);
    let ended = scene
        .run(&format!("anthropic/{SONNET}"), &call("anthropic", SONNET, says("from elsewhere")))
        .expect(0);
    assert!(ended.stderr.contains("from elsewhere"), "{ended:#?}");
    let asked: Vec<String> = other.requests().iter().filter_map(|request| request.model.clone()).collect();
    assert_eq!((asked, scene.server.requests().len()), (vec!["claude-opus-4-6".to_owned()], 0));
    // The operator's route: its first upstream is not there, the stand-in serves.
    let haiku = "claude-haiku-4-5";
    let ended =
        scene.run(&format!("anthropic/{haiku}"), &call("anthropic", haiku, says("stood in"))).expect(0);
    assert!(ended.stderr.contains("stood in"), "{ended:#?}");
    let costs = scene.tipstaff(&["costs", "--by", "model", "--json"]).expect(0).stdout;
    for model in ["claude-opus-4-6", "claude-sonnet-4-6"] {
        assert!(costs.contains(model) && costs.contains("proxy"), "{model} in {costs}");
    }
    // What is asked is what the warrant names; the upstream's own name is no way around it.
    let around = format!(
        "{}{}",
        call("proxy", "claude-opus-4-6", says("x")),
        call("anthropic", "claude-opus-4-6", says("x"))
    );
    let ended = scene.run(&format!("anthropic/{SONNET}"), &around).expect(0);
    assert_eq!(ended.stderr.matches("status-403").count(), 2, "{}", ended.stderr);
    // An org's route stays below the operator's ceiling.
    let line =
        scene.listed(&mut scene.command(&["models", "list", "--json"]), "anthropic", Some("claude-sonnet-*"));
    assert_eq!(
        (line["route"]["owner"].as_str(), line["route"]["to"].as_str()),
        (Some("org"), Some("proxy/claude-opus-4-6"))
    );
    let before = std::fs::read_to_string(scene.world.home().join("config.toml")).unwrap();
    scene.config(&format!("[models]\nallow = [\"anthropic/*\"]\n{before}"));
    let args = ["run", "--json", "--model", "anthropic/claude-sonnet-5-5", "--", "true"];
    let mut command = scene.command(&args);
    let error =
        crate::world::run(std::mem::replace(command.env("ANTHROPIC_API_KEY", KEY), Command::new("true")));
    assert_eq!(error.expect(2).json()["error"]["code"], "model-not-allowed");
    scene.tipstaff(&["models", "unroute", "anthropic/claude-sonnet-*"]).expect(0);
    assert_eq!(scene.error(&["models", "unroute", "anthropic/claude-sonnet-*"])["code"], "route-unknown");
    assert!(!scene.server.saw_key_elsewhere() && !other.saw_key_elsewhere());
}

#[test]
fn a_key_is_the_persons_then_the_orgs_then_the_operators_and_its_origin_is_shown() {
    let scene = Scene::new();
    let mut fresh = scene.world.command(scene.world.binary());
    fresh.args(["models", "list", "--json"]);
    let line = scene.listed(&mut fresh, "anthropic", None);
    assert_eq!(
        (line["key"]["origin"].as_str(), line["upstream"].as_str()),
        (Some("none"), Some("https://api.anthropic.com"))
    );
    // The operator's: a file that others can read is refused.
    let key = scene.world.home().join("operator.key");
    scene.world.write(&key, &format!("{KEY}\n"));
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    scene.config(
        "[upstreams.anthropic]\nkey_file = \"operator.key\"\n[upstreams.openai]\nkey_env = \"HOUSE_KEY\"\n",
    );
    let list = || scene.command(&["models", "list", "--json"]);
    let run = ["run", "--model", "anthropic/claude-sonnet-5-5", "--", "true"];
    let refused = scene.error(&run);
    assert_eq!(refused["code"], "model-key-file", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("chmod 600"), "{refused}");
    let line = scene.listed(&mut list(), "anthropic", None);
    assert_eq!(line["key"]["origin"], "unusable", "{line}");
    assert!(line["problem"].as_str().unwrap().contains("chmod 600"), "{line}");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let line = scene.listed(&mut list(), "anthropic", None);
    assert_eq!(line["key"]["origin"], "operator", "{line}");
    let tested = scene.tipstaff(&["models", "test", "anthropic"]).expect(0);
    assert!(
        tested.stdout.contains("claude-sonnet-4-6") && tested.stderr.contains("operator.key"),
        "{tested:#?}"
    );
    let unset = scene.error(&["models", "test", "openai"]);
    assert_eq!(unset["code"], "model-key-env", "{unset}");
    let mut with = scene.command(&["models", "test", "openai", "--json"]);
    with.env("HOUSE_KEY", KEY);
    assert_eq!(crate::world::run(with).expect(0).json()["key"]["origin"], "operator");
    // The org's own comes before it, the person's before that.
    let mut set = scene.command(&["secrets", "set", "--provider", "anthropic"]);
    let mut child = set.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"a-wrong-key-of-the-org").unwrap();
    crate::world::wait(child, Duration::from_secs(30)).expect(0);
    let line = scene.listed(&mut list(), "anthropic", None);
    assert_eq!(line["key"]["origin"], "org", "{line}");
    let wrong = scene.tipstaff(&["models", "test", "anthropic", "--json"]).expect(1).json();
    assert_eq!(wrong["error"]["code"], "key-not-accepted", "{wrong}");
    let mut mine = scene.command(&["models", "test", "anthropic", "--json"]);
    mine.env("ANTHROPIC_API_KEY", KEY);
    assert_eq!(crate::world::run(mine).expect(0).json()["key"]["origin"], "environment");
    let all = scene.tipstaff(&["models", "list"]).expect(0);
    assert!(!format!("{all:?}").contains(KEY), "{all:#?}");
    assert!(!scene.server.saw_key_elsewhere(), "{:?}", scene.server.key_elsewhere());
    // Nobody there.
    let Scene { world, server, repository, .. } = scene;
    let url = server.url();
    drop(server);
    let mut gone = world.command(world.binary());
    gone.env("TIPSTAFF_GEMINI_UPSTREAM", url).env("GEMINI_API_KEY", KEY).current_dir(repository);
    gone.args(["models", "test", "gemini", "--json"]);
    assert_eq!(crate::world::run(gone).expect(1).json()["error"]["code"], "upstream-unavailable");
}

/// Writes a login of Claude Code that lasts until `ends`, in milliseconds since the Unix epoch.
fn log_in(world: &World, ends: i64) -> PathBuf {
    let path = world.path().join(".claude/.credentials.json");
    let login = json!({"claudeAiOauth": {
        "accessToken": TOKEN, "refreshToken": "sk-ant-ort01-nobodys", "expiresAt": ends, "scopes": ["user:inference"],
    }});
    world.write(&path, &login.to_string());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

/// Every file below `folder` that holds these bytes.
fn holders(folder: &Path, needle: &str) -> Vec<PathBuf> {
    let grep = Command::new("grep").args(["-rlaF", needle]).arg(folder).output().unwrap();
    String::from_utf8_lossy(&grep.stdout).lines().map(PathBuf::from).collect()
}

#[test]
fn a_login_works_for_its_own_program_and_is_nowhere_else() {
    let scene = Scene::with(server(TOKEN, true));
    let far = 4_000_000_000_000;
    let path = log_in(&scene.world, far);
    let look = "grep -rlaE 'oat01-nobodys-[l]ogin' /home /tmp /work /etc /run /tipstaff /proc/[0-9]*/environ 2>/dev/null \
                | sed s/^/found-/; expr 6 '*' 7 | sed s/^/counted-/";
    let steps = json!([
        {"write": {"path": "/work/hello.txt", "content": "hello\n"}},
        {"shell": look},
        {"echo_key": true}
    ]);
    let agent = |engine: &str, steps: &Value| {
        let prompt = script_prompt("Please help.", steps.clone());
        let args = ["run", "--json", "--engine", engine, "--timeout", "150s", &prompt];
        let mut command = scene.command(&args);
        command.env(
            "PATH",
            format!("{}:/usr/local/bin:/usr/bin:/bin", crate::real_agents::programs().display()),
        );
        crate::world::run(command)
    };
    // Off until the operator turns it on. The upstream was set here, so it could want no key: it is asked without one.
    let line = scene.listed(&mut scene.command(&["models", "list", "--json"]), "anthropic", None);
    assert_eq!(line["key"]["origin"], "none", "{line}");
    scene.config("[upstreams.anthropic]\nlogin = \"claude\"\n");
    let line = scene.listed(&mut scene.command(&["models", "list", "--json"]), "anthropic", None);
    assert_eq!((line["key"]["origin"].as_str(), &line["problem"]), (Some("login"), &Value::Null), "{line}");
    let ended = agent("claude-code", &steps);
    let shown = scene.tipstaff(&["runs", "show", "--transcript"]);
    assert_eq!(ended.code, Some(0), "{ended:#?}\n{shown:#?}");
    assert_eq!(ended.json()["files_changed"], 1);
    let exported = scene.tipstaff(&["runs", "export"]).expect(0).stdout;
    let results: Vec<&str> = exported.lines().filter(|line| line.contains("tool_result")).collect();
    assert!(results.iter().any(|line| line.contains("counted-42")), "{exported}");
    assert!(results.iter().all(|line| !line.contains("found-")), "the token is in the sandbox: {exported}");
    assert!(exported.contains("Your key is"), "the upstream sent it back: {exported}");
    for told in [
        format!("{ended:?}"),
        format!("{shown:?}"),
        exported,
        scene.tipstaff(&["audit", "export"]).expect(0).stdout,
    ] {
        assert!(!told.contains(TOKEN) && !told.contains("ort01-nobodys"), "{told}");
    }
    assert!(!scene.server.saw_key_elsewhere(), "{:?}", scene.server.key_elsewhere());
    assert_eq!(
        holders(scene.world.path(), TOKEN),
        std::slice::from_ref(&path),
        "the program's own file alone"
    );
    // For no other program, for no worker.
    let error = |args: &[&str]| {
        let mut command = scene.world.command(scene.world.binary());
        command.env(
            "PATH",
            format!("{}:/usr/local/bin:/usr/bin:/bin", crate::real_agents::programs().display()),
        );
        command.current_dir(&scene.repository).args(["--json"]).args(args);
        let error = crate::world::run(command).expect(2).json()["error"].clone();
        (error["code"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
    };
    for (args, word) in [
        (&["run", "--model", "anthropic/claude-sonnet-5-5", "--", "true"][..], "--engine claude-code"),
        (&["run", "--engine", "opencode", "hello"], "--engine claude-code"),
        (&["run", "--engine", "claude-code", "--queue", "hello"], "a worker does not"),
    ] {
        let (code, message) = error(args);
        assert!(code == "model-key-missing" && message.contains(word), "{args:?}: {message}");
    }
    // Its end is said before anything is accepted.
    log_in(&scene.world, 1_000_000_000_000);
    let (code, message) = error(&["run", "--engine", "claude-code", "hello"]);
    assert!(code == "login-unusable" && message.contains("run `claude` once"), "{message}");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let (code, message) = error(&["run", "--engine", "claude-code", "hello"]);
    assert!(code == "login-unusable" && message.contains("chmod 600"), "{message}");
    std::fs::remove_file(&path).unwrap();
    let (code, message) = error(&["run", "--engine", "claude-code", "hello"]);
    assert!(code == "login-unusable" && message.contains("is not there"), "{message}");
    // It goes nowhere but to its provider and to this machine.
    log_in(&scene.world, far);
    scene.config("[upstreams.anthropic]\nlogin = \"claude\"\nurl = \"https://models.example.com\"\n");
    let (code, _) = error(&["run", "--engine", "claude-code", "hello"]);
    assert_eq!(code, "upstream-login");
    scene.config("[upstreams.anthropic]\nlogin = \"codex\"\n");
    assert_eq!(error(&["models", "list"]).0, "config-invalid");
}

#[test]
fn a_login_of_codex_names_its_account_and_stays_outside_too() {
    let scene = Scene::with(server(TOKEN, true));
    let path = scene.world.path().join("elsewhere/auth.json");
    let login = json!({"OPENAI_API_KEY": null, "tokens": {
        "id_token": "x", "access_token": TOKEN, "refresh_token": "nobodys-refresh-token", "account_id": "account-of-nobody-77",
    }});
    scene.world.write(&path, &login.to_string());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    scene.config("[upstreams.openai]\nlogin = \"codex\"\n");
    let steps = json!([{"write": {"path": "/work/hello.txt", "content": "hello\n"}}, {"echo_key": true}]);
    let prompt = script_prompt("Please help.", steps);
    let mut command = scene.command(&["run", "--json", "--engine", "codex", "--timeout", "150s", &prompt]);
    command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", crate::real_agents::programs().display()));
    command.env("CODEX_HOME", path.parent().unwrap());
    let ended = crate::world::run(command);
    assert_eq!(ended.code, Some(0), "{ended:#?}\n{:#?}", scene.tipstaff(&["runs", "show", "--transcript"]));
    assert_eq!(ended.json()["files_changed"], 1);
    let asked = scene.server.scripted_requests();
    assert!(
        asked.iter().all(|request| request.header("chatgpt-account-id") == Some("account-of-nobody-77")),
        "{asked:#?}"
    );
    assert!(!scene.server.saw_key_elsewhere(), "{:?}", scene.server.key_elsewhere());
    for word in [TOKEN, "account-of-nobody-77", "nobodys-refresh-token"] {
        assert_eq!(holders(scene.world.path(), word), std::slice::from_ref(&path), "{word}");
    }
}

#[test]
fn an_overloaded_provider_is_asked_again_by_the_gateway_itself() {
    let scene = Scene::new();
    let steps = json!([
        {"status": 529, "times": 1}, {"status": 429, "retry_after": 1, "times": 1}, {"text": "at last"}
    ]);
    let ended = scene.run(&format!("anthropic/{SONNET}"), &call("anthropic", SONNET, steps)).expect(0);
    assert!(ended.stderr.contains("at last") && ended.stderr.contains("status-200"), "{}", ended.stderr);
    assert_eq!(scene.server.requests().len(), 3);
    assert_eq!(ended.json()["tokens"], 1300, "settled once: {ended:#?}");
}

#[test]
fn a_page_instead_of_an_answer_ends_an_agent_soon() {
    let scene = Scene::new();
    let prompt = script_prompt("Please help.", json!([{"garbage": "html"}]));
    let mut command = scene.command(&["run", "--json", "--engine", "opencode", "--timeout", "100s", &prompt]);
    command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", crate::real_agents::programs().display()));
    command.env("ANTHROPIC_API_KEY", KEY).env("TIPSTAFF_STALL_STOP", "60s");
    let begun = Instant::now();
    let ended = crate::world::run(command);
    assert_eq!(ended.json()["state"], "failed", "{ended:#?}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    let asked = scene.server.scripted_requests().len();
    assert!((1..=3).contains(&asked), "it is not asked for ever: {asked}");
    let transcript = scene.tipstaff(&["runs", "show", "--transcript"]).expect(0);
    assert!(format!("{transcript:?}").contains("neither JSON nor an event stream"), "{transcript:#?}");
}

/// A word in a prompt and one in its answer, which only the session of a run may keep: here the session doesn't say them.
#[test]
fn bodies_of_calls_are_kept_nowhere() {
    let scene = Scene::new();
    let (asked, said) = ("canary-asked-91c4e7", "canary-said-0b52fd");
    let template = json!({"model": SONNET, "max_tokens": 100, "stream": true, "messages": [
        {"role": "user", "content": script_prompt("Think of @A@ and say nothing.", json!([{"text": "It is @B@, of course."}]))}
    ]});
    // The words are put together inside, so that the command line doesn't hold them.
    let script = format!(
        "cat >/tmp/form <<'END'\n{template}\nEND\n\
         a=canary-asked-; a=${{a}}91c4e7; b=canary-said-; b=${{b}}0b52fd\n\
         sed \"s/@A@/$a/; s/@B@/$b/\" /tmp/form >/tmp/body\n\
         for path in anthropic/v1/messages anthropic/v1/messages/count_tokens openai/v1/responses anthropic/nothing; do\n\
         curl -sS -m 30 -o /tmp/answer -w 'status-%{{http_code}}\\n' --data-binary @/tmp/body http://127.0.0.1:8080/model/$path\n\
         tr -d '\\n' </tmp/answer | sed 's/\"[^\"]*text\":\"//g' | grep -c canary | sed s/^/heard-/\n\
         done\n\
         sed 's/claude-sonnet-5-5/claude-opus-4-1/' /tmp/body >/tmp/other\n\
         curl -sS -m 30 -o /tmp/answer -w 'refused-%{{http_code}}\\n' --data-binary @/tmp/other http://127.0.0.1:8080/model/anthropic/v1/messages\n"
    );
    let mut command = scene.command(&[
        "run",
        "--json",
        "--timeout",
        "90s",
        "--model",
        "anthropic/claude-sonnet-5-5",
        "--",
        "sh",
        "-c",
        &script,
    ]);
    // Whatever would make it talk more.
    for (name, value) in
        [("RUST_LOG", "trace"), ("TIPSTAFF_LOG", "trace"), ("RUST_BACKTRACE", "full"), ("DEBUG", "*")]
    {
        command.env(name, value);
    }
    command.env("ANTHROPIC_API_KEY", KEY);
    let ended = crate::world::run(command).expect(0);
    assert!(ended.stderr.contains("status-200") && ended.stderr.contains("heard-1"), "{ended:#?}");
    assert!(ended.stderr.contains("refused-403"), "{ended:#?}");
    let sent = scene.server.scripted_requests();
    assert!(
        sent.iter().any(|request| request.body.to_string().contains(asked)),
        "the provider was asked: {sent:#?}"
    );
    let mut told = vec![format!("{ended:?}")];
    for args in [
        &["runs", "show", "--json"][..],
        &["runs", "show", "--transcript"],
        &["runs", "export"],
        &["runs", "logs"],
        &["audit", "list", "--json"],
        &["audit", "export"],
        &["costs", "--by", "model", "--json"],
        &["models", "list", "--json"],
    ] {
        told.push(format!("{:?}", scene.tipstaff(args).expect(0)));
    }
    for word in [asked, said] {
        for text in &told {
            assert!(!text.contains(word), "{word} in {text}");
        }
        assert_eq!(holders(&scene.world.home(), word), Vec::<PathBuf>::new(), "{word}");
    }
    // All tables as they are read, not only as they lie.
    let database = scene.world.home().join("tipstaff.db");
    let dump = Command::new("sqlite3").arg(&database).arg(".dump").output().unwrap();
    let dump = String::from_utf8_lossy(&dump.stdout);
    assert!(dump.contains("CREATE TABLE charge") && !dump.contains(asked) && !dump.contains(said));
}

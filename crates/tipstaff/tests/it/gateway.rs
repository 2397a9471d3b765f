//! The model gateway of the real binary, asked by a plain command: every API, upstreams of a configuration, trouble of
//! the upstream, money.

use crate::world::{Ended, World};
use serde_json::{Value, json};
use std::path::PathBuf;
use tipstaff_testkit::{ModelServer, ModelServerConfig, script_prompt};

/// Nobody's.
const KEY: &str = "gateway-key-5e1f0c9d7b3a-nobodys";

struct Scene {
    world: World,
    repository: PathBuf,
    server: ModelServer,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let repository = world.repository("demo");
        let config = ModelServerConfig { key: Some(KEY.to_owned()), ..Default::default() };
        Self { world, repository, server: ModelServer::start(config).unwrap() }
    }

    /// Runs `script` with one model granted.
    fn run(&self, model: &str, script: &str) -> Ended {
        let mut command = self.world.command(self.world.binary());
        for provider in ["ANTHROPIC", "OPENAI", "GEMINI"] {
            command.env(format!("TIPSTAFF_{provider}_UPSTREAM"), self.server.url());
            command.env(format!("{provider}_API_KEY"), KEY);
        }
        command.current_dir(&self.repository);
        command.args(["run", "--json", "--timeout", "60s", "--budget", "5", "--model", model]);
        command.args(["--", "sh", "-c", script]);
        crate::world::run(command)
    }

    fn tipstaff(&self, args: &[&str]) -> Ended {
        self.world.tipstaff_in(&self.repository, args)
    }
}

/// A call by curl; the body lies in a file, so that no shell reads it.
fn call(path: &str, body: &Value) -> String {
    format!(
        "cat >/tmp/body <<'END'\n{body}\nEND\ncurl -sS -m 30 -w '\\nstatus-%{{http_code}}\\n' -H 'content-type: application/json' \
         -H 'x-api-key: mine' -H 'authorization: Bearer mine' --data-binary @/tmp/body 'http://127.0.0.1:8080/model/{path}'\n"
    )
}

fn says(text: &str) -> String {
    script_prompt("Say it.", json!([{"text": text}]))
}

#[test]
fn every_api_answers_whole_and_in_streams_and_is_metered() {
    let words = says("the answer is here");
    let message = json!([{"role": "user", "content": words}]);
    let contents = json!([{"role": "user", "parts": [{"text": words}]}]);
    let anthropic = |stream: bool| json!({"model": "claude-sonnet-5-5", "max_tokens": 100, "stream": stream, "messages": message});
    let chat = |stream: bool| json!({"model": "gpt-5.5", "stream": stream, "messages": message});
    let responses = |stream: bool| json!({"model": "gpt-5.5", "stream": stream, "input": message});
    let gemini = json!({"contents": contents});
    let scene = Scene::new();
    for (model, calls) in [
        (
            "anthropic/claude-sonnet-5-5",
            vec![
                ("anthropic/v1/messages", anthropic(false)),
                ("anthropic/v1/messages?beta=true", anthropic(true)),
            ],
        ),
        (
            "openai/gpt-5.5",
            vec![
                ("openai/v1/chat/completions", chat(false)),
                ("openai/v1/chat/completions", chat(true)),
                ("openai/v1/responses", responses(false)),
                ("openai/v1/responses", responses(true)),
            ],
        ),
        (
            "gemini/gemini-2.5-pro",
            vec![
                ("gemini/v1beta/models/gemini-2.5-pro:generateContent", gemini.clone()),
                ("gemini/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", gemini.clone()),
                ("gemini/v1beta/models/gemini-2.5-pro:streamGenerateContent", gemini.clone()),
            ],
        ),
    ] {
        for (path, body) in calls {
            let ended = scene.run(model, &call(path, &body)).expect(0);
            assert!(ended.stderr.contains("status-200"), "{path}: {}", ended.stderr);
            let joined: String = ended.stderr.split("\"text\"").collect();
            assert!(joined.contains("answer"), "{path}: {}", ended.stderr);
            let summary = ended.json();
            // 1000 of input, 200 from the cache, 100 of output: what the server says, whatever the convention.
            assert_eq!(summary["tokens"], 1300, "{path}: {summary}");
            assert!(summary["cost_micro_usd"].as_u64().unwrap() > 0, "{path}: {summary}");
        }
    }
    let count = json!({"model": "claude-sonnet-5-5", "messages": message});
    let ended = scene
        .run("anthropic/claude-sonnet-5-5", &call("anthropic/v1/messages/count_tokens", &count))
        .expect(0);
    assert!(ended.stderr.contains("input_tokens"), "{}", ended.stderr);
    assert_eq!(ended.json()["cost_micro_usd"], 0, "counting costs nothing");
    assert!(!scene.server.saw_key_elsewhere(), "{:?}", scene.server.key_elsewhere());

    let days = scene.tipstaff(&["costs", "--by", "day", "--csv"]).expect(0).stdout;
    assert_eq!(days.lines().count(), 2, "a head and today: {days}");
    let chart = scene.tipstaff(&["costs", "--by", "model"]).expect(0).stdout;
    for model in ["claude-sonnet-5-5", "gpt-5.5", "gemini-2.5-pro", "#"] {
        assert!(chart.contains(model), "{model} in {chart}");
    }
}

#[test]
fn an_upstream_of_the_configuration_is_asked_by_its_name() {
    let scene = Scene::new();
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": says("from next door")}]});
    let path = "local/v1/chat/completions";
    // Nobody set it up yet.
    let unknown = scene.run("local/tiny", &call(path, &body)).expect(2);
    assert!(
        unknown.stdout.contains("provider-unknown") && unknown.stdout.contains("[upstreams.NAME]"),
        "{unknown:#?}"
    );
    let config = format!("[upstreams.local]\nwire = \"openai\"\nurl = \"{}/v1\"\n", scene.server.url());
    scene.world.write(&scene.world.home().join("config.toml"), &config);
    // Its key is sealed under its name.
    let mut command = scene.world.command(scene.world.binary());
    command.args(["secrets", "set", "--provider", "local"]).stdin(std::process::Stdio::piped());
    let mut child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), KEY.as_bytes()).unwrap();
    crate::world::wait(child, std::time::Duration::from_secs(30)).expect(0);
    let ended = scene.run("local/tiny", &call(path, &body)).expect(0);
    assert!(ended.stderr.contains("from next door"), "{}", ended.stderr);
    // What is not granted stays refused: another model there, another provider.
    let other = json!({"model": "huge", "messages": []});
    let refused = scene.run("local/tiny", &call(path, &other)).expect(0).json();
    assert_eq!(refused["refusals"][0]["rule"], "model-not-granted", "{refused}");
    // A wrong file is said with its line, and nothing starts.
    scene.world.write(&scene.world.home().join("config.toml"), "[upstreams.local]\nurl = 1\n");
    let wrong = scene.run("local/tiny", "true").expect(2);
    assert!(wrong.stdout.contains("config-invalid") && wrong.stdout.contains("line 2"), "{}", wrong.stdout);
}

#[test]
fn trouble_of_the_upstream_is_said_in_its_own_form_and_costs_what_was_received() {
    let scene = Scene::new();
    let ask = |steps: Value| {
        let content = script_prompt("Go.", steps);
        let body = json!({"model": "claude-sonnet-5-5", "max_tokens": 100, "stream": true, "messages": [{"role": "user", "content": content}]});
        scene.run("anthropic/claude-sonnet-5-5", &call("anthropic/v1/messages", &body))
    };
    for (steps, status) in [
        (json!([{"status": 401}]), "status-401"),
        (json!([{"status": 403}]), "status-403"),
        (json!([{"status": 429, "retry_after": 7}]), "status-429"),
        (json!([{"status": 429}]), "status-429"),
        (json!([{"status": 500}]), "status-500"),
    ] {
        let ended = ask(steps.clone()).expect(0);
        assert!(
            ended.stderr.contains(status) && ended.stderr.contains("\"error\""),
            "{steps}: {}",
            ended.stderr
        );
        assert_eq!(ended.json()["cost_micro_usd"], 0, "{steps}");
    }
    let html = ask(json!([{"garbage": "html"}])).expect(0);
    assert!(!html.stderr.contains("status-000"), "{}", html.stderr);
    let half = ask(json!([{"half": "one two three four five six seven eight"}]));
    assert!(half.json()["cost_micro_usd"].as_u64().unwrap() > 0, "what was received is paid: {half:#?}");
    let echo = ask(json!([{"echo_key": true}])).expect(0);
    assert!(!format!("{echo:?}").contains(KEY), "{echo:#?}");
    let exported = scene.tipstaff(&["runs", "export"]).expect(0).stdout;
    assert!(!exported.contains(KEY), "{exported}");

    // Nobody there at all.
    let Scene { world, repository, server } = scene;
    let url = server.url();
    drop(server);
    let mut command = world.command(world.binary());
    command.env("TIPSTAFF_ANTHROPIC_UPSTREAM", url).env("ANTHROPIC_API_KEY", KEY).current_dir(&repository);
    let body = json!({"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]});
    command.args(["run", "--json", "--model", "anthropic/claude-sonnet-5-5", "--", "sh", "-c"]);
    command.arg(call("anthropic/v1/messages", &body));
    let down = crate::world::run(command).expect(0);
    assert!(down.stderr.contains("status-502") && down.stderr.contains("\"error\""), "{}", down.stderr);
    assert_eq!(down.json()["cost_micro_usd"], 0);
}

#[test]
fn an_orgs_budget_and_an_operators_prices_bind_the_next_run() {
    let scene = Scene::new();
    let body =
        json!({"model": "gpt-5.5", "max_tokens": 600, "messages": [{"role": "user", "content": says("ok")}]});
    let run = || scene.run("openai/gpt-5.5", &call("openai/v1/chat/completions", &body));
    let before = run().expect(0).json()["cost_micro_usd"].as_u64().unwrap();
    // Twice as dear from now on.
    let shown: Value = scene.tipstaff(&["prices", "show", "--json", "gpt-5.5"]).expect(0).json();
    let table = scene.world.path().join("prices.json");
    let source = json!({"gpt-5.5": {
        "litellm_provider": "openai", "mode": "chat", "max_input_tokens": 400_000, "max_output_tokens": 128_000,
        "input_cost_per_token": 1e-5, "cache_read_input_token_cost": 1e-6, "output_cost_per_token": 6e-5,
    }});
    scene.world.write(&table, &source.to_string());
    scene.tipstaff(&["prices", "update", "--file", table.to_str().unwrap()]).expect(0);
    let after = run().expect(0).json()["cost_micro_usd"].as_u64().unwrap();
    assert_eq!(after, 1000 * 10 + 200 + 100 * 60, "by the operator's table; before it was {before}: {shown}");
    scene.tipstaff(&["prices", "reset"]).expect(0);
    assert_eq!(run().expect(0).json()["cost_micro_usd"], before);
    for period in ["day", "week", "month"] {
        scene.tipstaff(&["budgets", "set", "--org", "--per", period, "0.001"]).expect(0);
        let ended = run();
        assert_eq!(ended.code, Some(4), "{period}: {ended:#?}");
        assert!(ended.stderr.contains("status-402"), "{period}: {}", ended.stderr);
        scene.tipstaff(&["budgets", "remove", "--org", "--per", period]).expect(0);
    }
    run().expect(0);
}

//! Our figures beside those of `ccusage`, bucket by bucket and model by model, on the same calls of the real agents.
//!
//! It reads what the agents write about themselves; we read what the provider answers. An engine of ours keeps an agent
//! from writing that down, so the agents run here as a plain command of the same sandbox and broker, which takes what
//! they wrote along as a change of the repository.

use crate::real_agents::programs;
use crate::world::World;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use tipstaff_model::Usage;
use tipstaff_testkit::{ModelServer, ModelServerConfig, RequestKind, SIDE_USAGE, script_prompt};

/// Nobody's.
const KEY: &str = "usage-key-3f8a1c5d9e2b-nobodys";

/// Input, output, cache write, cache read: what both tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Buckets {
    input: u64,
    output: u64,
    cache_write: u64,
    cache_read: u64,
}

impl Buckets {
    fn of(usage: &Usage) -> Self {
        Self {
            input: usage.input,
            output: usage.output,
            cache_write: usage.cache_write + usage.cache_write_1h,
            cache_read: usage.cache_read,
        }
    }

    fn plus(self, other: Self, times: u64) -> Self {
        Self {
            input: self.input + other.input * times,
            output: self.output + other.output * times,
            cache_write: self.cache_write + other.cache_write * times,
            cache_read: self.cache_read + other.cache_read * times,
        }
    }
}

type ByModel = BTreeMap<String, Buckets>;

struct Scene {
    world: World,
    repository: PathBuf,
    server: ModelServer,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let repository = world.repository("demo");
        let server =
            ModelServer::start(ModelServerConfig { key: Some(KEY.to_owned()), ..Default::default() })
                .unwrap();
        Self { world, repository, server }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(self.world.binary());
        command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", programs().display()));
        for provider in ["ANTHROPIC", "OPENAI"] {
            command.env(format!("TIPSTAFF_{provider}_UPSTREAM"), self.server.url());
            command.env(format!("{provider}_API_KEY"), KEY);
        }
        command.current_dir(&self.repository).args(args);
        command
    }

    /// Runs `script`, and brings what it left in `/work` into the repository.
    fn run(&self, model: &str, script: &str) {
        let limits = ["--timeout", "150s", "--budget", "50"];
        let mut command = self.command(&["run", "--json", "--model", model]);
        command.args(limits).args(["--", "sh", "-c", script]);
        crate::world::run(command).expect(0);
        crate::world::run(self.command(&["runs", "apply"])).expect(0);
    }

    /// What the ledger has, by model.
    fn ours(&self) -> ByModel {
        let ended = crate::world::run(self.command(&["costs", "--by", "model", "--json"])).expect(0);
        let rows = ended.json()["rows"].clone();
        let row = |row: &Value| {
            let usage: Usage = serde_json::from_value(row["usage"].clone()).unwrap();
            assert_eq!(
                (&row["estimated_calls"], &row["price_unknown_calls"]),
                (&json!(0), &json!(0)),
                "{row}"
            );
            (row["key"].as_str().unwrap().to_owned(), Buckets::of(&usage))
        };
        rows.as_array().unwrap().iter().map(row).collect()
    }

    /// Requests on the side by model: titles and the like, which an agent makes and does not write down.
    fn on_the_side(&self) -> BTreeMap<String, u64> {
        let mut count = BTreeMap::new();
        for request in self.server.requests() {
            if let (RequestKind::Side, Some(model)) = (request.kind, request.model) {
                *count.entry(model).or_default() += 1;
            }
        }
        count
    }
}

/// What `ccusage` reports, offline, in an environment of nothing but the place of the files.
fn theirs(arguments: &[&str], variable: &str, place: &Path) -> Value {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../script/ccusage");
    let installed = Command::new("bash").arg(script).output().unwrap();
    let said = String::from_utf8_lossy(&installed.stderr).into_owned();
    assert!(installed.status.success(), "ccusage is not there; script/ccusage said: {said}");
    let program = String::from_utf8(installed.stdout).unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(program.lines().last().unwrap());
    command.env_clear().env("HOME", home.path()).env(variable, place).env("TZ", "UTC");
    command.args(arguments).args(["--json", "--offline", "--timezone", "UTC"]).current_dir(home.path());
    let ended = crate::world::run(command).expect(0);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[test]
fn claude_code_is_metered_as_it_meters_itself_but_for_requests_on_the_side() {
    let scene = Scene::new();
    let usage = |input: u64, cache_read: u64, cache_write: u64, cache_write_1h: u64, output: u64| json!({"input": input, "cache_read": cache_read, "cache_write": cache_write, "cache_write_1h": cache_write_1h, "output": output});
    let prompt = script_prompt(
        "Please help.",
        json!([
            {"shell": "true", "usage": usage(1_001, 0, 20_011, 0, 101)},
            {"shell": "true", "usage": usage(7, 20_011, 503, 307, 59)},
            {"write": {"path": "/work/a.txt", "content": "a\n"}, "usage": usage(3, 20_514, 0, 1_009, 211)},
            {"text": "All done.", "usage": usage(13, 21_523, 17, 0, 37)}
        ]),
    );
    let script = format!(
        "export ANTHROPIC_BASE_URL=http://127.0.0.1:8080/model/anthropic ANTHROPIC_API_KEY=placeholder \
         CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 DISABLE_AUTOUPDATER=1 DISABLE_TELEMETRY=1\n\
         cat > /tmp/prompt <<'END'\n{prompt}\nEND\n\
         claude -p --output-format=stream-json --verbose --permission-mode=bypassPermissions --model=claude-sonnet-5-5 < /tmp/prompt\n\
         code=$?; mkdir -p /work/written && cp -r \"$HOME/.claude/projects\" /work/written/ && exit $code\n"
    );
    scene.run("anthropic/claude-sonnet-5-5", &script);
    let report =
        theirs(&["claude", "daily", "--breakdown"], "CLAUDE_CONFIG_DIR", &scene.repository.join("written"));
    let mut theirs = ByModel::new();
    for day in report["daily"].as_array().unwrap() {
        for model in day["modelBreakdowns"].as_array().unwrap() {
            let found = Buckets {
                input: number(model, "inputTokens"),
                output: number(model, "outputTokens"),
                cache_write: number(model, "cacheCreationTokens"),
                cache_read: number(model, "cacheReadTokens"),
            };
            let name = model["modelName"].as_str().unwrap().to_owned();
            let sum = theirs.entry(name).or_default();
            *sum = sum.plus(found, 1);
        }
    }
    assert!(!theirs.is_empty(), "it wrote something down: {report}");
    // The one difference: what it asks on the side is billed and metered, and not in its files.
    for (model, count) in scene.on_the_side() {
        let sum = theirs.entry(model).or_default();
        *sum = sum.plus(Buckets::of(&SIDE_USAGE), count);
    }
    assert_eq!(scene.ours(), theirs, "{report}");
    let whole = scene.ours()["claude-sonnet-5-5"];
    assert!(whole.cache_write >= 20_011 + 503 + 307 + 1_009 + 17 && whole.cache_read >= 62_048, "{whole:?}");
}

#[test]
fn codex_is_metered_as_it_meters_itself() {
    let scene = Scene::new();
    let usage = |input: u64, cache_read: u64, output: u64, reasoning: u64| json!({"input": input, "cache_read": cache_read, "output": output, "reasoning": reasoning});
    let prompt = script_prompt(
        "Please help.",
        json!([
            {"shell": "true", "usage": usage(1_003, 0, 107, 41)},
            {"shell": "true", "usage": usage(11, 1_024, 61, 0)},
            {"text": "All done.", "usage": usage(29, 2_048, 43, 19)}
        ]),
    );
    let config = "model = \"gpt-5.5\"\nmodel_provider = \"tipstaff\"\napproval_policy = \"never\"\nsandbox_mode = \"danger-full-access\"\n\
                  check_for_update_on_startup = false\n[model_providers.tipstaff]\nname = \"openai\"\nwire_api = \"responses\"\n\
                  base_url = \"http://127.0.0.1:8080/model/openai/v1\"\nenv_key = \"OPENAI_API_KEY\"\nsupports_websockets = false\n\
                  [analytics]\nenabled = false\n[feedback]\nenabled = false\n[features]\nplugins = false\napps = false\n";
    let script = format!(
        "export OPENAI_API_KEY=placeholder; mkdir -p $HOME/.codex\n\
         cat > $HOME/.codex/config.toml <<'END'\n{config}END\n\
         cat > /tmp/prompt <<'END'\n{prompt}\nEND\n\
         codex exec --json --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox --color=never - < /tmp/prompt\n\
         code=$?; mkdir -p /work/written && cp -r \"$HOME/.codex/sessions\" /work/written/ && exit $code\n"
    );
    scene.run("openai/gpt-5.5", &script);
    let report = theirs(&["codex", "daily"], "CODEX_HOME", &scene.repository.join("written"));
    let mut theirs = ByModel::new();
    for day in report["daily"].as_array().unwrap() {
        for (name, model) in day["models"].as_object().unwrap() {
            let found = Buckets {
                input: number(model, "inputTokens"),
                output: number(model, "outputTokens"),
                cache_write: number(model, "cacheCreationTokens"),
                cache_read: number(model, "cacheReadTokens"),
            };
            // A part of the output, not beside it: for both.
            assert_eq!(number(model, "reasoningOutputTokens"), 41 + 19, "{model}");
            let sum = theirs.entry(name.clone()).or_default();
            *sum = sum.plus(found, 1);
        }
    }
    for (model, count) in scene.on_the_side() {
        let sum = theirs.entry(model).or_default();
        *sum = sum.plus(Buckets::of(&SIDE_USAGE), count);
    }
    assert_eq!(scene.ours(), theirs, "{report}");
}

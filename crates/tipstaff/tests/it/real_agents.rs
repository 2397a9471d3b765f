//! The real agents, installed from their registry, at work under a warrant: against a scripted model server, through
//! the sandbox and the broker.

use crate::world::{Ended, World};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tipstaff_testkit::{ModelServer, ModelServerConfig, script_prompt};

/// A key of the form that the provider has; nobody's.
const KEY: &str = "test-key-0f9a3b7c5d1e8a2b4c6d-nobodys";

/// What is particular about an agent.
#[derive(Clone, Copy)]
struct Agent {
    engine: &'static str,
    /// The built-in agent.
    name: &'static str,
    /// The variables that name its upstream and its key.
    upstream: &'static str,
    key: &'static str,
}

const CLAUDE: Agent = Agent {
    engine: "claude-code",
    name: "claude-builder",
    upstream: "TIPSTAFF_ANTHROPIC_UPSTREAM",
    key: "ANTHROPIC_API_KEY",
};
const CODEX: Agent = Agent {
    engine: "codex",
    name: "codex-builder",
    upstream: "TIPSTAFF_OPENAI_UPSTREAM",
    key: "OPENAI_API_KEY",
};
const GEMINI: Agent = Agent {
    engine: "gemini",
    name: "gemini-builder",
    upstream: "TIPSTAFF_GEMINI_UPSTREAM",
    key: "GEMINI_API_KEY",
};
const OPENCODE: Agent = Agent {
    engine: "opencode",
    name: "opencode-builder",
    upstream: "TIPSTAFF_ANTHROPIC_UPSTREAM",
    key: "ANTHROPIC_API_KEY",
};

const QWEN: Agent = Agent {
    engine: "qwen",
    name: "qwen-builder",
    upstream: "TIPSTAFF_OPENAI_UPSTREAM",
    key: "OPENAI_API_KEY",
};

/// The folder of the real agents' programs.
pub(crate) fn programs() -> PathBuf {
    installed("script/agents")
}

/// The folder of more of them.
pub(crate) fn more_programs() -> PathBuf {
    installed("script/agents-more")
}

/// Installs what a script installs, where it is not there yet; the folder that it names.
pub(crate) fn installed(script: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new("bash").arg(root.join(script)).output().expect("the script can be started");
    assert!(
        output.status.success(),
        "the real agents are not there; {script} said: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    PathBuf::from(String::from_utf8(output.stdout).unwrap().lines().last().unwrap().trim())
}

/// A world with a repository, a model server, and the real agent on its `PATH`.
struct Scene {
    world: World,
    repository: PathBuf,
    server: ModelServer,
    agent: Agent,
}

impl Scene {
    fn new(agent: Agent) -> Self {
        Self::in_world(agent, World::new())
    }

    fn in_world(agent: Agent, world: World) -> Self {
        let repository = world.repository("demo");
        let server =
            ModelServer::start(ModelServerConfig { key: Some(KEY.to_owned()), ..Default::default() })
                .unwrap();
        Self { world, repository, server, agent }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(self.world.binary());
        let mut folders = programs().display().to_string();
        if self.agent.engine == QWEN.engine {
            folders.push_str(&format!(":{}", more_programs().display()));
        }
        command
            .env("PATH", format!("{folders}:/usr/local/bin:/usr/bin:/bin"))
            .env(self.agent.upstream, self.server.url())
            .env(self.agent.key, KEY)
            .current_dir(&self.repository)
            .args(args);
        command
    }

    /// Runs the agent with what the model shall do.
    fn run(&self, args: &[&str], steps: Value) -> Ended {
        self.run_with(args, steps, &[])
    }

    fn run_with(&self, args: &[&str], steps: Value, env: &[(&str, &str)]) -> Ended {
        let prompt = script_prompt("Please help.", steps);
        let mut all = vec!["run", "--json", "--repo", ".", "--agent", self.agent.name];
        if !args.contains(&"--timeout") {
            all.extend(["--timeout", "150s"]);
        }
        all.extend(args);
        all.push(&prompt);
        let mut command = self.command(&all);
        command.envs(env.iter().copied());
        crate::world::run(command)
    }

    fn tipstaff(&self, args: &[&str]) -> Ended {
        crate::world::run(self.command(args))
    }

    /// The normalized events of the latest run.
    fn events(&self) -> Vec<Value> {
        let text = self.tipstaff(&["runs", "export"]).expect(0).stdout;
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect()
    }

    fn agent_events(&self, kind: &str) -> Vec<Value> {
        self.events()
            .into_iter()
            .filter(|event| event["kind"] == "agent" && event["body"]["type"] == kind)
            .map(|event| event["body"].clone())
            .collect()
    }

    /// The key is nowhere but in the provider's header.
    fn the_key_stayed_outside(&self) {
        assert!(!self.server.saw_key_elsewhere(), "{:?}", self.server.key_elsewhere());
        let grep = Command::new("grep").args(["-rlaF", KEY]).arg(self.world.path()).output().expect("grep");
        assert_eq!(String::from_utf8_lossy(&grep.stdout), "", "files that hold the key");
    }
}

/// Looks for the key in what the sandbox has, and asks the kernel what was sent elsewhere than to the broker: datagrams,
/// packets without a route, connections that failed. Whatever it finds ends in the session, where the test reads it.
const LOOK: &str = "grep -rlaE 'test-key-0f9a[0-9]b' /home /tmp /work /etc /run /tipstaff /proc/[0-9]*/environ \
    /proc/[0-9]*/cmdline 2>/dev/null | sed s/^/found-/; \
    awk '/^Udp:/{u=$5} /^Ip:/{n=$13} /^Tcp:/{f=$8} END{print \"sent-\" u \"-\" n \"-\" f}' /proc/net/snmp; \
    expr 6 '*' 7 | sed s/^/counted-/";

/// Work that is done: a file changed, a command run, and what the run may say about it.
fn works(agent: Agent, world: World) {
    let scene = Scene::in_world(agent, world);
    let ended = scene.run(
        &[],
        json!([
            {"write": {"path": "/work/hello.txt", "content": "hello from the agent\n"}},
            {"shell": LOOK},
            {"text": "All done."}
        ]),
    );
    let summary = ended.json();
    assert_eq!(ended.code, Some(0), "{ended:#?}\n{:#?}", scene.tipstaff(&["runs", "show", "--transcript"]));
    assert_eq!((&summary["state"], &summary["files_changed"]), (&"done".into(), &1.into()), "{summary}");
    assert!(summary["branch"].as_str().unwrap().starts_with("agent/builder-task-"), "{summary}");
    assert!(summary["cost_micro_usd"].as_u64().unwrap() > 0, "the broker metered it: {summary}");
    assert!(summary["tokens"].as_u64().unwrap() >= 1000, "{summary}");
    assert!(!scene.repository.join("hello.txt").exists(), "the working tree was not touched");
    let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
    assert!(diff.contains("+hello from the agent"), "{diff}");
    let shown = scene.tipstaff(&["runs", "show"]).expect(0).stdout;
    assert!(shown.contains(&format!("engine {}", scene.agent.engine)), "{shown}");

    let transcript = scene.tipstaff(&["runs", "show", "--transcript"]).expect(0);
    let told = format!("{}{}", transcript.stdout, transcript.stderr);
    assert!(told.contains("All done."), "{told}");
    assert!(!scene.agent_events("tool_call").is_empty(), "{told}");
    let results = scene.agent_events("tool_result");
    assert!(results.iter().any(|result| result["output"].to_string().contains("counted-42")), "{results:#?}");
    let seen = format!("{results:?}");
    assert!(seen.contains("sent-0-0-0"), "nothing but the broker was tried: {seen}");
    assert!(!seen.contains("found-"), "the key is in the sandbox: {seen}");
    assert_eq!(scene.agent_events("finished").len(), 1, "{told}");
    scene.the_key_stayed_outside();

    let costs = scene.tipstaff(&["costs", "--by", "model", "--json"]).expect(0).stdout;
    assert!(costs.contains(&summary["cost_micro_usd"].to_string()), "{costs} for {summary}");
    scene.tipstaff(&["audit", "verify"]).expect(0);
}

/// A tool that fails is told to the model and to the person, and is not the end.
fn goes_on_after_a_failing_tool(agent: Agent) {
    let scene = Scene::new(agent);
    let ended = scene.run(
        &[],
        json!([
            {"shell": "ls /work/there-is-no-such-file"},
            {"write": {"path": "/work/after.txt", "content": "still here\n"}},
            {"text": "Went on."}
        ]),
    );
    assert_eq!(ended.code, Some(0), "{ended:#?}\n{:#?}", scene.tipstaff(&["runs", "show", "--transcript"]));
    assert_eq!(ended.json()["files_changed"], 1);
    let results = scene.agent_events("tool_result");
    assert!(
        results.iter().any(|result| result["output"].to_string().contains("there-is-no-such-file")),
        "{results:#?}"
    );
}

/// The money ends: exit code 4, the work so far is kept, the model is not asked again for long.
fn ends_with_its_budget(agent: Agent) {
    let scene = Scene::new(agent);
    let dear = json!({"input": 10_000, "output": 40_000});
    let ended = scene.run(
        &["--budget", "0.50"],
        json!([
            {"write": {"path": "/work/kept.txt", "content": "kept\n"}},
            {"shell": "true", "usage": dear},
            {"shell": "true", "usage": dear},
            {"shell": "true", "usage": dear},
            {"shell": "true", "usage": dear},
            {"shell": "true", "usage": dear},
            {"text": "This was expensive."}
        ]),
    );
    let summary = ended.json();
    assert_eq!(ended.code, Some(4), "{ended:#?}\n{:#?}", scene.tipstaff(&["runs", "show", "--transcript"]));
    assert_eq!(summary["exit_reason"], "budget_exceeded", "{summary}");
    assert_eq!(summary["files_changed"], 1, "the work is kept: {summary}");
    let refused = summary["refusals"].as_array().unwrap();
    assert!(refused.iter().any(|refusal| refusal["rule"] == "budget-exceeded"), "{summary}");
}

/// A model that never answers: said, and stopped.
fn is_stopped_when_it_stalls(agent: Agent) {
    let scene = Scene::new(agent);
    let begun = Instant::now();
    let ended = scene.run_with(
        &[],
        json!([
            {"write": {"path": "/work/before.txt", "content": "before\n"}},
            {"stall": "headers"}
        ]),
        &[("TIPSTAFF_STALL_WARNING", "10s"), ("TIPSTAFF_STALL_STOP", "40s")],
    );
    let summary = ended.json();
    assert_eq!(ended.code, Some(5), "{ended:#?}");
    assert_eq!(summary["exit_reason"], "stalled", "{summary}");
    assert_eq!(summary["files_changed"], 1, "the work is kept: {summary}");
    assert!(ended.stderr.contains("has done nothing for"), "{}", ended.stderr);
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
}

/// A model that answers nonsense: a failed run with a reason, never a done one.
fn fails_on_garbage(agent: Agent) {
    let scene = Scene::new(agent);
    let ended = scene.run_with(
        &["--timeout", "60s"],
        json!([{"garbage": "broken"}]),
        &[("TIPSTAFF_STALL_STOP", "20s")],
    );
    let summary = ended.json();
    assert_eq!(summary["state"], "failed", "{ended:#?}");
    assert_ne!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(summary["files_changed"], 0, "{summary}");
}

macro_rules! agents {
    ($($name:ident = $agent:expr;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn does_the_work_and_never_sees_the_key() {
                works($agent, World::new());
            }

            #[test]
            fn does_the_work_for_an_ordinary_user() {
                works($agent, World::ordinary());
            }

            #[test]
            fn goes_on_after_a_failing_tool() {
                super::goes_on_after_a_failing_tool($agent);
            }

            #[test]
            fn ends_with_its_budget() {
                super::ends_with_its_budget($agent);
            }

            #[test]
            fn is_stopped_when_it_stalls() {
                super::is_stopped_when_it_stalls($agent);
            }

            #[test]
            fn fails_on_garbage() {
                super::fails_on_garbage($agent);
            }
        }
    )* };
}

agents! {
    claude_code = CLAUDE;
    codex = CODEX;
    gemini = GEMINI;
    opencode = OPENCODE;
}

mod qwen {
    use super::*;

    #[test]
    fn does_the_work_and_never_sees_the_key() {
        works(QWEN, World::new());
    }

    #[test]
    fn does_the_work_for_an_ordinary_user() {
        works(QWEN, World::ordinary());
    }

    #[test]
    fn ends_with_its_budget() {
        super::ends_with_its_budget(QWEN);
    }
}

#[test]
fn what_can_be_known_before_is_said_before() {
    let world = World::new();
    let repository = world.repository("demo");
    // No program on PATH.
    let ended = world.tipstaff_in(&repository, &["run", "--engine", "claude-code", "hello"]).expect(1);
    assert!(ended.stderr.contains("npm install -g @anthropic-ai/claude-code"), "{}", ended.stderr);
    assert!(ended.stderr.contains("engine-missing"), "{}", ended.stderr);
    // No key.
    let scene = Scene::new(CLAUDE);
    let mut command = scene.command(&["run", "--engine", "claude-code", "hello"]);
    command.env_remove(CLAUDE.key).env_remove(CLAUDE.upstream);
    let ended = crate::world::run(command).expect(2);
    assert!(ended.stderr.contains("tipstaff secrets set --provider anthropic"), "{}", ended.stderr);
    // A model of a provider that nobody set up, a command for an agent, no prompt.
    for (args, code) in [
        (&["run", "--engine", "opencode", "--model", "nobody/x", "hello"][..], "provider-unknown"),
        (&["run", "--engine", "claude-code", "--", "true"], "engine-command-not-taken"),
        (&["run", "--engine", "command", "--model", "x", "--", "true"], "model-provider"),
    ] {
        let ended = scene.tipstaff(args).expect(2);
        assert!(ended.stderr.contains(code), "{args:?}: {}", ended.stderr);
    }
    let none = scene.tipstaff(&["runs", "list", "--json"]).expect(0);
    assert_eq!(none.stdout, "", "nothing was accepted");
}

#[test]
fn a_wrong_key_is_named_and_never_called_done() {
    let scene = Scene::new(CODEX);
    let prompt = script_prompt("Hello.", json!([{"text": "never said"}]));
    let mut command =
        scene.command(&["run", "--json", "--engine", "codex", "--timeout", "90s", "--budget", "1", &prompt]);
    command.env(CODEX.key, "another-key-that-is-wrong-0123456789");
    let ended = crate::world::run(command);
    let summary = ended.json();
    assert_eq!(summary["state"], "failed", "{ended:#?}");
    assert_eq!(summary["cost_micro_usd"], 0, "nothing was used: {summary}");
    assert!(ended.stderr.contains("tipstaff secrets set"), "what to do is said: {}", ended.stderr);
}

#[test]
fn trouble_of_the_provider_is_passed_on_and_survived() {
    let scene = Scene::new(CLAUDE);
    let ended = scene.run(
        &[],
        json!([
            {"status": 500, "times": 1},
            {"write": {"path": "/work/a.txt", "content": "a\n"}},
            {"half": "this breaks off in the middle of a long sentence", "times": 1},
            {"status": 429, "retry_after": 1, "times": 1},
            {"text": "Through."}
        ]),
    );
    let summary = ended.json();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(summary["files_changed"], 1, "{summary}");
    // Nothing stays reserved when all is over.
    let costs = scene.tipstaff(&["costs", "--by", "model", "--json"]).expect(0).stdout;
    assert!(costs.contains(&summary["cost_micro_usd"].to_string()), "{costs} for {summary}");
}

#[test]
fn a_flood_from_the_model_is_bounded() {
    let scene = Scene::new(CLAUDE);
    let ended = scene.run_with(
        &["--timeout", "100s"],
        json!([{"flood": {"megabytes": 100, "shape": "line"}}]),
        &[("TIPSTAFF_STALL_STOP", "20s")],
    );
    assert_eq!(ended.json()["state"], "failed", "{ended:#?}");
    scene.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn a_refiner_reads_and_changes_nothing() {
    for agent in [CLAUDE, CODEX] {
        let scene = Scene::new(agent);
        let ended = scene.run(
            &["--role", "refiner"],
            json!([
                {"shell": "cat /work/README.md; echo x > /work/new.txt; touch /work/README.md; echo tried"},
                {"text": "It has one heading."}
            ]),
        );
        let summary = ended.json();
        assert_eq!(summary["files_changed"], 0, "{ended:#?}");
        assert_eq!(summary["branch"], Value::Null, "{summary}");
        let transcript = scene.tipstaff(&["runs", "show", "--transcript"]).expect(0);
        let told = format!("{}{}", transcript.stdout, transcript.stderr);
        assert!(told.contains("It has one heading."), "{told}");
        assert_eq!(ended.code, Some(0), "{ended:#?}\n{told}");
    }
}

#[test]
fn what_an_agent_tries_besides_is_refused_and_on_record() {
    let scene = Scene::new(OPENCODE);
    let ended = scene.run(
        &[],
        json!([
            {"shell": "curl -sS -m 5 https://example.org/ -o /dev/null; curl -sS -m 5 http://169.254.169.254/; echo tried"},
            {"shell": format!("curl -sS -m 5 --noproxy '*' http://93.184.216.34/; {LOOK}")},
            {"text": "No way out."}
        ]),
    );
    let summary = ended.expect(0).json();
    let seen = format!("{:?}", scene.agent_events("tool_result"));
    assert!(
        seen.contains("sent-") && !seen.contains("sent-0-0-0"),
        "what went past the broker shows: {seen}"
    );
    let refused: Vec<&str> =
        summary["refusals"].as_array().unwrap().iter().map(|one| one["wanted"].as_str().unwrap()).collect();
    for host in ["example.org:443", "169.254.169.254:80"] {
        assert!(refused.iter().any(|wanted| wanted.contains(host)), "{host} in {refused:?}");
    }
}

#[test]
fn a_model_that_the_warrant_does_not_name_is_refused() {
    let scene = Scene::new(CLAUDE);
    let call = "curl -sS -m 10 http://127.0.0.1:8080/model/anthropic/v1/messages -H 'content-type: application/json' \
                -d '{\"model\":\"claude-opus-4-1\",\"max_tokens\":10,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}'; \
                curl -sS -m 10 http://127.0.0.1:8080/model/openai/v1/chat/completions -d '{\"model\":\"gpt-5.5\",\"messages\":[]}'";
    let ended = scene.run(&[], json!([{"shell": call}, {"text": "Refused."}])).expect(0);
    let summary = ended.json();
    let rules: Vec<&str> =
        summary["refusals"].as_array().unwrap().iter().map(|one| one["rule"].as_str().unwrap()).collect();
    assert!(rules.contains(&"model-not-granted"), "{summary}");
    assert!(
        scene.server.requests().iter().all(|request| request.model.as_deref() != Some("claude-opus-4-1")),
        "the provider never saw it"
    );
}

#[test]
fn a_revoked_warrant_ends_an_agent_in_the_middle_of_a_call() {
    let scene = Scene::new(CLAUDE);
    let prompt = script_prompt("Wait.", json!([{"stall": "middle"}]));
    let child = {
        let mut command =
            scene.command(&["run", "--json", "--engine", "claude-code", "--timeout", "120s", &prompt]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    assert!(
        scene
            .server
            .wait_for(Duration::from_secs(60), |requests| requests.iter().any(|one| one.is_scripted()))
    );
    let shown: Value = scene.tipstaff(&["runs", "show", "--json"]).expect(0).json();
    let warrant = shown["warrant"]["id"].as_str().unwrap();
    scene.tipstaff(&["warrants", "revoke", warrant]).expect(0);
    let ended = crate::world::wait(child, Duration::from_secs(60));
    let summary = ended.json();
    assert_eq!(ended.code, Some(3), "{ended:#?}");
    assert_eq!(summary["exit_reason"], "warrant_revoked", "{summary}");
    assert!(scene.server.wait_until_idle(Duration::from_secs(20)), "the call was cut");
}

#[test]
fn a_sealed_key_is_used_and_a_budget_of_the_day_ends_the_next_run() {
    let scene = Scene::new(CODEX);
    let mut command = scene.command(&["secrets", "set", "--provider", "openai"]);
    command.env_remove(CODEX.key);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), KEY.as_bytes()).unwrap();
    crate::world::wait(child, Duration::from_secs(30)).expect(0);
    scene.tipstaff(&["budgets", "set", "--agent", CODEX.name, "--per", "day", "0.25"]).expect(0);

    let dear = json!({"input": 1_000, "output": 5_000});
    let steps = json!([
        {"write": {"path": "/work/a.txt", "content": "a\n"}},
        {"text": "Done.", "usage": dear}
    ]);
    let run = || {
        let prompt = script_prompt("Please help.", steps.clone());
        let mut command =
            scene.command(&["run", "--json", "--agent", CODEX.name, "--timeout", "90s", &prompt]);
        command.env_remove(CODEX.key);
        crate::world::run(command)
    };
    let first = run().expect(0);
    let spent = first.json()["cost_micro_usd"].as_u64().unwrap();
    assert!(spent > 0, "the sealed key was taken: {first:#?}");
    assert!(spent <= 250_000, "never above the day's budget: {first:#?}");
    let second = run().expect(4);
    assert_eq!(second.json()["exit_reason"], "budget_exceeded", "{second:#?}");
    let costs = scene.tipstaff(&["costs", "--by", "agent"]).expect(0).stdout;
    assert!(costs.contains(CODEX.name), "{costs}");
    let standing = scene.tipstaff(&["budgets", "list"]).expect(0).stdout;
    assert!(standing.contains(CODEX.name), "{standing}");
    scene.the_key_stayed_outside();
}

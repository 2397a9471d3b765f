//! A run that has ended is continued by another one: the real agents go on in their sessions and with their files, under a
//! new warrant; and what may not be continued is not.

use crate::world::{Ended, World, is_root, wait};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tipstaff_testkit::{ModelServer, ModelServerConfig, script_prompt};

const KEY: &str = "test-key-0f9a3b7c5d1e8a2b4c6d-nobodys";
/// What the person says in the first run, and nobody says again.
const FIRST: &str = "Please build the pumpkin shed.";

/// What is particular about an agent.
#[derive(Clone, Copy)]
struct Agent {
    engine: &'static str,
    upstream: &'static str,
    key: &'static str,
    /// Whether it is one of those that `script/agents-more` installs.
    more: bool,
}

const CLAUDE: Agent = Agent {
    engine: "claude-code",
    upstream: "TIPSTAFF_ANTHROPIC_UPSTREAM",
    key: "ANTHROPIC_API_KEY",
    more: false,
};
const CODEX: Agent =
    Agent { engine: "codex", upstream: "TIPSTAFF_OPENAI_UPSTREAM", key: "OPENAI_API_KEY", more: false };
const GEMINI: Agent =
    Agent { engine: "gemini", upstream: "TIPSTAFF_GEMINI_UPSTREAM", key: "GEMINI_API_KEY", more: false };
const OPENCODE: Agent = Agent {
    engine: "opencode",
    upstream: "TIPSTAFF_ANTHROPIC_UPSTREAM",
    key: "ANTHROPIC_API_KEY",
    more: false,
};
const QWEN: Agent =
    Agent { engine: "qwen", upstream: "TIPSTAFF_OPENAI_UPSTREAM", key: "OPENAI_API_KEY", more: true };

/// The folder of the programs that `script/agents-more` installs.
fn more_programs() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output =
        Command::new("bash").arg(root.join("script/agents-more")).output().expect("script/agents-more");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().lines().last().unwrap().trim())
}

struct Scene {
    world: World,
    repository: PathBuf,
    path: String,
    agent: Agent,
    _made: Option<tempfile::TempDir>,
    server: ModelServer,
}

impl Scene {
    fn new(agent: Agent) -> Self {
        Self::in_world(agent, World::new())
    }

    fn in_world(agent: Agent, world: World) -> Self {
        let programs = crate::real_agents::programs();
        let mut path = format!("{}:/usr/local/bin:/usr/bin:/bin", programs.display());
        if agent.more {
            path = format!("{}:{path}", more_programs().display());
        }
        Self::at(agent, world, path, None)
    }

    /// With a program of ours under Claude Code's name. It finds what it has to do in `$script`.
    fn puppet(script: &str) -> Self {
        let place = PathBuf::from(if is_root() { "/srv".into() } else { std::env::var_os("HOME").unwrap() });
        std::fs::create_dir_all(&place).unwrap();
        let made = tempfile::Builder::new().prefix("tipstaff-test-").tempdir_in(place).unwrap();
        std::fs::set_permissions(made.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let bin = made.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let program = bin.join("claude");
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in --version) echo '2.1.330 (Claude Code)'; exit 0;; esac\n\
             begun() {{ printf '{{\"type\":\"system\",\"subtype\":\"init\",\"session_id\":\"%s\",\"model\":\"m\"}}\\n' \"$1\"; }}\n\
             end() {{ echo '{{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"Done.\",\"num_turns\":1}}'; }}\n\
             kept=$HOME/.claude/projects\n{script}\n"
        );
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display());
        Self::at(CLAUDE, World::new(), path, Some(made))
    }

    fn at(agent: Agent, world: World, path: String, made: Option<tempfile::TempDir>) -> Self {
        let repository = world.repository("demo");
        let server =
            ModelServer::start(ModelServerConfig { key: Some(KEY.to_owned()), ..Default::default() })
                .unwrap();
        Self { world, repository, path, agent, _made: made, server }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(self.world.binary());
        command
            .env("PATH", &self.path)
            .env(self.agent.upstream, self.server.url())
            .env(self.agent.key, KEY)
            .current_dir(&self.repository)
            .args(args);
        command
    }

    fn tipstaff(&self, args: &[&str]) -> Ended {
        crate::world::run(self.command(args))
    }

    fn start(&self, args: &[&str], prompt: &str) -> Child {
        let mut all = vec!["run", "--json", "--engine", self.agent.engine, "--timeout", "150s"];
        all.extend(args);
        all.push(prompt);
        self.command(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// A run to its end, and its id.
    fn run(&self, args: &[&str], prompt: &str) -> (Ended, String) {
        let ended = wait(self.start(args, prompt), Duration::from_secs(170));
        let run = ended.json()["run"].as_str().unwrap().to_owned();
        (ended, run)
    }

    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(100),
                "{what} did not happen\n{:#?}",
                self.tipstaff(&["runs", "show", "--transcript"])
            );
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Begins a run that wrote a file and then waits, and gives it with its id.
    fn begun(&self, args: &[&str]) -> (Child, String) {
        let steps = json!([
            {"write": {"path": "/work/first.txt", "content": "laid the first stone\n"}},
            {"shell": "echo wait-$((40+2)); sleep 100"},
            {"text": "Never said."}
        ]);
        let child = self.start(args, &script_prompt(FIRST, steps));
        // The model was asked with the answer to the write, and has sent the sleep.
        let waits =
            |body: &Value| body.to_string().contains("first.txt") && body.to_string().contains("pumpkin");
        assert!(
            self.server.wait_for(Duration::from_secs(100), |requests| {
                requests.iter().filter(|one| one.is_scripted() && waits(&one.body)).count() >= 2
            }),
            "the second call"
        );
        let run = self.until("a run", || {
            let list = self.tipstaff(&["runs", "list", "--json"]).expect(0).stdout;
            let run: Value = serde_json::from_str(list.lines().next()?).unwrap();
            Some(run["run"].as_str()?.to_owned())
        });
        self.until("the call", || {
            let events = self.tipstaff(&["runs", "export", &run]).expect(0).stdout;
            events.contains("sleep 100").then_some(())
        });
        (child, run)
    }

    fn resume(&self, run: &str, text: &str, args: &[&str]) -> Ended {
        let mut all = vec!["runs", "resume", run, text, "--json", "--timeout", "150s"];
        all.extend(args);
        wait(
            self.command(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(),
            Duration::from_secs(170),
        )
    }

    fn shown(&self, run: &str) -> Value {
        self.tipstaff(&["runs", "show", run, "--json"]).expect(0).json()
    }

    /// What was asked of the model since `before` requests, all together.
    fn asked_since(&self, before: usize) -> String {
        let asked = self.server.scripted_requests();
        asked[before..].iter().map(|request| request.body.to_string()).collect()
    }

    fn transcript(&self) -> String {
        let shown = self.tipstaff(&["runs", "show", "--transcript"]).expect(0);
        format!("{}{}", shown.stdout, shown.stderr)
    }

    /// Files of sessions that are kept.
    fn kept(&self) -> Vec<PathBuf> {
        let orgs = std::fs::read_dir(self.world.home().join("sessions")).unwrap();
        let files = orgs.flatten().flat_map(|org| std::fs::read_dir(org.path()).unwrap().flatten());
        files.map(|file| file.path()).collect()
    }
}

/// What the agent does when it goes on.
fn next() -> String {
    script_prompt(
        "And now the roof.",
        json!([
            {"shell": "cat first.txt second.txt 2>&1 | sed s/^/seen-/"},
            {"write": {"path": "/work/second.txt", "content": "built the roof\n"}},
            {"text": "The shed stands."}
        ]),
    )
}

/// The earlier conversation is in what the model is asked, the earlier files are there, the result holds both.
fn goes_on(scene: &Scene, run: &str, args: &[&str]) -> Value {
    let before = scene.server.scripted_requests().len();
    let ended = scene.resume(run, &next(), args);
    let summary = ended.json();
    assert_eq!(ended.code, Some(0), "{ended:#?}\n{}", scene.transcript());
    let asked = scene.asked_since(before);
    for part in ["pumpkin shed", "And now the roof."] {
        assert!(asked.contains(part), "the model was not told of {part}: {asked}");
    }
    assert!(asked.contains("seen-laid the first stone"), "{asked}");
    assert_eq!((&summary["state"], &summary["files_changed"]), (&json!("done"), &json!(2)), "{summary}");
    let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
    assert!(diff.contains("+laid the first stone") && diff.contains("+built the roof"), "{diff}");
    let shown = scene.shown(summary["run"].as_str().unwrap());
    assert_eq!(shown["continues"], *run, "{shown}");
    let earlier = scene.shown(run);
    assert_eq!(earlier["continued_by"], json!([summary["run"]]), "{earlier}");
    assert_ne!(shown["warrant"]["id"], earlier["warrant"]["id"], "a warrant of its own");
    assert!(!scene.transcript().contains("Never said."), "{}", scene.transcript());
    scene.tipstaff(&["audit", "verify"]).expect(0);
    let log = scene.tipstaff(&["audit", "export"]).expect(0).stdout;
    assert!(log.contains(&format!("\"resumes\":\"{run}\"")), "{log}");
    summary
}

fn a_cancelled_run_goes_on(agent: Agent, args: &[&str], world: World) {
    let scene = Scene::in_world(agent, world);
    let (child, run) = scene.begun(args);
    scene.tipstaff(&["runs", "cancel", &run]).expect(0);
    let ended = wait(child, Duration::from_secs(60));
    assert_eq!(ended.json()["state"], "cancelled", "{ended:#?}");
    assert_eq!(ended.json()["files_changed"], 1, "{ended:#?}");
    goes_on(&scene, &run, &[]);
}

macro_rules! agents {
    ($($name:ident = $agent:expr;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn goes_on_after_it_was_cancelled() {
                a_cancelled_run_goes_on($agent, &[], World::new());
            }

            #[test]
            fn goes_on_attended() {
                a_cancelled_run_goes_on($agent, &["--attended"], World::new());
            }
        }
    )* };
}

agents! {
    claude_code = CLAUDE;
    codex = CODEX;
    gemini = GEMINI;
    opencode = OPENCODE;
    qwen = QWEN;
}

#[test]
fn it_works_for_an_ordinary_user() {
    a_cancelled_run_goes_on(CLAUDE, &[], World::ordinary());
}

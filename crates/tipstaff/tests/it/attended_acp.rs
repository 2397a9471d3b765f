//! The real agents of the Agent Client Protocol with a person at hand: they ask, are told something, and are stopped.
//! And agents that no one would call honest.

use crate::real_agents::{more_programs, programs};
use crate::world::{Ended, World};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tipstaff_testkit::{ModelServer, ModelServerConfig, script_prompt};

/// A key of the form that the provider has; nobody's.
const KEY: &str = "test-key-7d20b9e1f5a34c68d7b2-nobodys";
/// How long an agent may take to ask, and a run to end: the machine of the tests may be busy.
const PATIENCE: Duration = Duration::from_secs(150);
const ASKS: &str = "[policy]\ndefault = \"ask\"\n";

/// What is particular about an agent.
struct Agent {
    /// The arguments that choose it.
    chosen: &'static [&'static str],
    /// The variables that name its upstream and its key.
    upstream: &'static str,
    key: &'static str,
    /// What stands after `--`.
    command: fn() -> Vec<String>,
    /// How its model has a command executed.
    shell: fn(&str) -> Value,
}

fn shell(command: &str) -> Value {
    json!({ "shell": command })
}

/// Codex asks before a command where it leaves its own sandbox only.
fn escalated(command: &str) -> Value {
    let leave =
        json!({ "cmd": command, "sandbox_permissions": "require_escalated", "justification": "It writes." });
    json!({ "tool": { "name": "exec_command", "input": leave } })
}

const GEMINI: Agent = Agent {
    chosen: &["--agent", "gemini-builder"],
    upstream: "TIPSTAFF_GEMINI_UPSTREAM",
    key: "GEMINI_API_KEY",
    command: Vec::new,
    shell,
};
const OPENCODE: Agent = Agent {
    chosen: &["--agent", "opencode-builder"],
    upstream: "TIPSTAFF_ANTHROPIC_UPSTREAM",
    key: "ANTHROPIC_API_KEY",
    command: Vec::new,
    shell,
};
const QWEN: Agent = Agent {
    chosen: &["--agent", "qwen-builder"],
    upstream: "TIPSTAFF_OPENAI_UPSTREAM",
    key: "OPENAI_API_KEY",
    command: Vec::new,
    shell,
};
/// Any agent, by its command line alone.
const CLAUDE_ACP: Agent = Agent {
    chosen: &["--engine", "acp", "--model", "anthropic/claude-sonnet-5-5"],
    upstream: "TIPSTAFF_ANTHROPIC_UPSTREAM",
    key: "ANTHROPIC_API_KEY",
    command: || {
        let claude = format!("CLAUDE_CODE_EXECUTABLE={}", programs().join("claude").display());
        ["env", &claude, "claude-agent-acp"].map(ToOwned::to_owned).into()
    },
    shell,
};

const CODEX_ACP: Agent = Agent {
    chosen: &["--engine", "acp", "--model", "openai/gpt-5.5"],
    upstream: "TIPSTAFF_OPENAI_UPSTREAM",
    key: "OPENAI_API_KEY",
    command: || {
        let codex = format!("CODEX_PATH={}", programs().join("codex").display());
        ["env", &codex, "codex-acp"].map(ToOwned::to_owned).into()
    },
    shell: escalated,
};

/// A world with a repository whose policy asks about everything, a model server, and a person.
struct Scene {
    world: World,
    repository: PathBuf,
    server: ModelServer,
    agent: Agent,
}

impl Scene {
    fn new(agent: Agent) -> Self {
        Self::with_policy(agent, ASKS)
    }

    fn with_policy(agent: Agent, policy: &str) -> Self {
        let world = World::new();
        let repository = world.repository("demo");
        world.write(&repository.join("tipstaff.toml"), policy);
        world.commit(&repository, "policy");
        let config = ModelServerConfig { key: Some(KEY.to_owned()), ..ModelServerConfig::default() };
        Self { server: ModelServer::start(config).unwrap(), world, repository, agent }
    }

    fn command(&self, args: &[&str]) -> Command {
        let folders = format!("{}:{}", programs().display(), more_programs().display());
        let mut command = self.world.command(self.world.binary());
        command
            .env("PATH", format!("{folders}:/usr/local/bin:/usr/bin:/bin"))
            .env(self.agent.upstream, self.server.url())
            .env(self.agent.key, KEY)
            .current_dir(&self.repository)
            .args(args);
        command
    }

    fn tipstaff(&self, args: &[&str]) -> Ended {
        crate::world::run(self.command(args))
    }

    /// Starts the agent with what the model shall do.
    fn start(&self, steps: Value) -> Run<'_> {
        self.start_with(&script_prompt("Please help.", steps), &(self.agent.command)())
    }

    fn start_with(&self, prompt: &str, command: &[String]) -> Run<'_> {
        let mut args = vec!["run", "--json", "--attended", "--timeout", "250s"];
        args.extend(self.agent.chosen);
        args.push(prompt);
        if !command.is_empty() {
            args.push("--");
            args.extend(command.iter().map(String::as_str));
        }
        let mut command = self.command(&args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Run { scene: self, child: Some(child), id: None }
    }

    fn approvals(&self, args: &[&str]) -> Vec<Value> {
        let ended = self.tipstaff(&[&["approvals", "list", "--json"], args].concat()).expect(0);
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Where each question stands, the first one first.
    fn states(&self) -> Vec<String> {
        let mut all: Vec<(i64, String)> = self
            .approvals(&["--all"])
            .iter()
            .map(|one| (one["asked_at"].as_i64().unwrap(), one["state"].as_str().unwrap().to_owned()))
            .collect();
        all.sort();
        all.into_iter().map(|(_, state)| state).collect()
    }

    fn transcript(&self) -> String {
        let shown = self.tipstaff(&["runs", "show", "--transcript"]).expect(0);
        format!("{}{}", shown.stdout, shown.stderr)
    }
}

/// A run that goes on.
struct Run<'a> {
    scene: &'a Scene,
    child: Option<Child>,
    /// Its id, once it asked something.
    id: Option<String>,
}

impl Run<'_> {
    /// The next question that waits.
    fn question(&mut self) -> Value {
        let begun = Instant::now();
        loop {
            if let Some(question) = self.scene.approvals(&[]).first() {
                self.id = Some(question["run"].as_str().unwrap().to_owned());
                return question.clone();
            }
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < PATIENCE,
                "nothing is asked: {:#?}\n{}",
                self.child.take().map(|child| crate::world::wait(child, Duration::from_secs(1))),
                self.scene.transcript()
            );
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// Answers the next question, which has to be about this command or this file.
    fn answer(&mut self, about: &str, answer: &[&str]) {
        let question = self.question();
        let action = &question["action"];
        let named = [&action["commands"], &action["paths"]].iter().any(|list| {
            list.as_array().is_some_and(|list| list.iter().any(|one| one.as_str().unwrap().ends_with(about)))
        });
        assert!(named, "{about}: {question:#}");
        let (verb, rest) = answer.split_first().unwrap();
        let id = question["id"].as_str().unwrap();
        self.scene.tipstaff(&[&["approvals", verb, id], rest].concat()).expect(0);
    }

    /// Answers the question about this command, as soon as it is the one that waits.
    fn answer_when(&mut self, about: &str, answer: &[&str]) {
        let begun = Instant::now();
        while self.question()["action"]["commands"] != json!([about]) {
            assert!(begun.elapsed() < PATIENCE, "nobody asks about {about}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.answer(about, answer);
    }

    /// Tells the run something.
    fn tell(&mut self, verb: &str, words: &[&str]) {
        let run = self.id.clone().unwrap();
        self.scene.tipstaff(&[&["runs", verb, &run], words].concat()).expect(0);
    }

    fn ended(mut self) -> Ended {
        crate::world::wait(self.child.take().unwrap(), PATIENCE)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// One question is allowed and one denied, it is told something while it works, and the story is played again.
fn asks_and_listens(agent: Agent) {
    let scene = Scene::new(agent);
    let mut run = scene.start(json!([
        {"write": {"path": "/work/hello.txt", "content": "hello\n"}},
        (scene.agent.shell)("echo two > two.txt"),
        {"text": "All but one."}
    ]));
    run.answer("hello.txt", &["allow"]);
    // It waits with its question; what it is told meanwhile is its next turn.
    assert_eq!(run.question()["action"]["commands"], json!(["echo two > two.txt"]));
    let steps = json!([{"write": {"path": "/work/more.txt", "content": "more\n"}}, {"text": "As you said."}]);
    run.tell("say", &[&script_prompt("And this besides.", steps)]);
    run.answer("echo two > two.txt", &["deny", "--reason", "one is enough"]);
    run.answer("more.txt", &["allow"]);
    let ended = run.ended();
    let told = scene.transcript();
    let summary = ended.json();
    assert_eq!(ended.code, Some(0), "{ended:#?}\n{told}");
    assert_eq!(
        (&summary["state"], &summary["files_changed"]),
        (&"done".into(), &2.into()),
        "{summary}\n{told}"
    );
    assert_eq!(scene.states(), ["used", "denied", "used"]);
    let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
    assert!(diff.contains("+hello") && diff.contains("+more") && !diff.contains("two.txt"), "{diff}");
    let rules: Vec<&str> =
        summary["refusals"].as_array().unwrap().iter().map(|one| one["rule"].as_str().unwrap()).collect();
    assert!(rules.contains(&"approval-denied"), "{summary}");
    // OpenCode wants files written for it; codex-acp wants a title from a small model that nobody granted.
    let known = ["approval-denied", "outside-sandbox", "model-not-granted"];
    assert!(rules.iter().all(|rule| known.contains(rule)), "{summary}");
    let read: Vec<String> =
        scene.server.scripted_requests().iter().map(|request| request.body.to_string()).collect();
    assert!(read.iter().any(|body| body.contains("And this besides.")), "the model was told: {}", read.len());

    assert!(told.contains("As you said.") && told.contains("one is enough"), "{told}");
    let replayed = scene.tipstaff(&["runs", "replay", "--speed", "0"]).expect(0);
    let replayed = format!("{}{}", replayed.stdout, replayed.stderr);
    for said in ["hello.txt", "echo two > two.txt", "And this besides.", "one is enough", "As you said."] {
        assert!(replayed.contains(said), "{said} is not in {replayed}");
    }
    scene.tipstaff(&["audit", "verify"]).expect(0);
    assert!(!scene.server.saw_key_elsewhere(), "{:?}", scene.server.key_elsewhere());
}

/// A turn is ended with its question, another one is told, and then the run is cancelled.
fn is_interrupted_and_cancelled(agent: Agent) {
    let scene = Scene::new(agent);
    let mut run = scene.start(json!([(scene.agent.shell)("echo one > one.txt"), {"text": "never said"}]));
    run.question();
    run.tell("interrupt", &[]);
    let begun = Instant::now();
    while scene.states() != ["withdrawn"] {
        assert!(begun.elapsed() < PATIENCE, "{:?}\n{}", scene.states(), scene.transcript());
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let steps = json!([
        {"write": {"path": "/work/kept.txt", "content": "kept\n"}},
        (scene.agent.shell)("echo three > three.txt"),
        {"text": "never said"}
    ]);
    run.tell("say", &[&script_prompt("Do this instead.", steps)]);
    run.answer("kept.txt", &["allow"]);
    assert_eq!(run.question()["action"]["commands"], json!(["echo three > three.txt"]));
    run.tell("cancel", &[]);
    let summary = run.ended().json();
    assert_eq!(
        (&summary["state"], &summary["exit_reason"], &summary["files_changed"]),
        (&"cancelled".into(), &"cancelled_by_person".into(), &1.into()),
        "{summary}\n{}",
        scene.transcript()
    );
    assert_eq!(scene.states(), ["withdrawn", "used", "withdrawn"]);
    let replayed = scene.tipstaff(&["runs", "replay", "--speed", "0"]).expect(0);
    let replayed = format!("{}{}", replayed.stdout, replayed.stderr);
    for said in ["Do this instead.", "kept.txt", "echo three > three.txt", "cancelled"] {
        assert!(replayed.contains(said), "{said} is not in {replayed}");
    }
}

macro_rules! agents {
    ($($name:ident = $agent:expr;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn asks_and_listens() {
                super::asks_and_listens($agent);
            }

            #[test]
            fn is_interrupted_and_cancelled() {
                super::is_interrupted_and_cancelled($agent);
            }
        }
    )* };
}

agents! {
    gemini = GEMINI;
    opencode = OPENCODE;
    qwen = QWEN;
    claude_agent_acp = CLAUDE_ACP;
    codex_acp = CODEX_ACP;
}

// ---------------------------------------------------------------- agents that are made up

/// An agent of the protocol in a few lines of shell: greets, opens a session, then does `turn`.
fn made_up(turn: &str) -> Vec<String> {
    let script = format!(
        "read a; echo '{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"protocolVersion\":1}}}}'; \
         read b; echo '{{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{{\"sessionId\":\"s\"}}}}'; \
         read c; {turn}; \
         echo '{{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":{{\"sessionId\":\"s\",\"update\":{{\
         \"sessionUpdate\":\"agent_message_chunk\",\"content\":{{\"type\":\"text\",\"text\":\"The end.\"}}}}}}}}'; \
         echo '{{\"jsonrpc\":\"2.0\",\"id\":100,\"result\":{{\"stopReason\":\"end_turn\"}}}}'; cat > /dev/null"
    );
    ["sh", "-c", &script].map(ToOwned::to_owned).into()
}

const MADE_UP: Agent = Agent { chosen: &["--engine", "acp"], ..CLAUDE_ACP };

#[test]
fn what_it_wants_done_outside_is_refused_and_on_record() {
    let scene = Scene::with_policy(MADE_UP, "[policy]\ndefault = \"allow\"\n");
    let write = scene.world.path().join("written-outside.txt");
    let turn = format!(
        "echo '{{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"fs/write_text_file\",\"params\":{{\"sessionId\":\"s\",\
         \"path\":\"{}\",\"content\":\"x\"}}}}'; read d; echo \"$d\" > answer.txt; \
         echo '{{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"terminal/create\",\"params\":{{\"command\":\"id\"}}}}'; read e; \
         echo \"$e\" >> answer.txt; \
         echo '{{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"fs/read_text_file\",\"params\":{{\"sessionId\":\"s\",\
         \"path\":\"/etc/passwd\"}}}}'; read f; echo \"$f\" >> answer.txt",
        write.display()
    );
    let ended = scene.start_with("Do it.", &made_up(&turn)).ended();
    let summary = ended.json();
    assert_eq!(ended.code, Some(0), "{ended:#?}\n{}", scene.transcript());
    assert!(!write.exists());
    let refused: Vec<(&str, &str)> = summary["refusals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["rule"].as_str().unwrap(), one["wanted"].as_str().unwrap()))
        .collect();
    assert!(
        refused
            .iter()
            .any(|(rule, wanted)| *rule == "outside-sandbox" && wanted.starts_with("fs/write_text_file")),
        "{summary}"
    );
    for wanted in ["terminal/create id", "fs/read_text_file /etc/passwd"] {
        assert!(refused.contains(&("outside-sandbox", wanted)), "{summary}");
    }
    let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
    assert_eq!(diff.matches("-32601").count(), 3, "it was told so: {diff}");
    assert!(!diff.contains("root:"), "nothing of the file: {diff}");
}

#[test]
fn it_gets_no_answer_that_it_gave_itself() {
    let scene = Scene::new(MADE_UP);
    // It asks, and does not wait: it answers itself, in the middle of a flood of nonsense.
    let ask = "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"session/request_permission\",\"params\":{\"sessionId\":\"s\",\
               \"options\":[{\"optionId\":\"ever\",\"kind\":\"allow_always\"},{\"optionId\":\"no\",\"kind\":\"reject_once\"}],\
               \"toolCall\":{\"toolCallId\":\"c\",\"kind\":\"read\",\"title\":\"Look\",\"rawInput\":{\"command\":\"rm -rf /work\"}}}}";
    let turn = format!(
        "echo '{ask}'; echo '{{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{{\"outcome\":{{\"outcome\":\"selected\",\
         \"optionId\":\"ever\"}}}}}}'; yes 'no json' | head -n 2000; read d; echo \"$d\" > answer.txt"
    );
    let mut run = scene.start_with("Do it.", &made_up(&turn));
    let question = run.question();
    assert_eq!(question["action"]["kind"], "execute", "what it holds counts: {question:#}");
    assert_eq!(question["action"]["commands"], json!(["rm -rf /work"]));
    run.answer("rm -rf /work", &["allow"]);
    let ended = run.ended();
    assert_eq!(ended.code, Some(0), "{ended:#?}\n{}", scene.transcript());
    let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
    assert!(diff.contains("cancelled") && !diff.contains("ever"), "nothing is allowed for ever: {diff}");
}

#[test]
fn one_that_dies_or_speaks_otherwise_has_failed_with_a_reason() {
    let scene = Scene::with_policy(MADE_UP, "[policy]\ndefault = \"allow\"\n");
    for (command, reason) in [
        ("exit 0", "without a result"),
        (
            "read a; echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":9}}'; cat > /dev/null",
            "version 9",
        ),
        ("read a; echo 'Traceback: no such model' >&2; exit 3", "no such model"),
    ] {
        let command = ["sh", "-c", command].map(ToOwned::to_owned);
        let ended = scene.start_with("Do it.", &command).ended();
        let summary = ended.json();
        assert_eq!(summary["state"], "failed", "{ended:#?}");
        assert!(summary["error"].as_str().unwrap().contains(reason), "{summary}");
    }
}

#[test]
fn who_can_be_asked_is_said_before() {
    let scene = Scene::new(MADE_UP);
    for (args, code) in [
        (&["run", "--engine", "aider", "--attended", "hello"][..], "engine-not-attended"),
        (&["run", "--engine", "coven", "--attended", "hello"], "engine-not-attended"),
        (&["run", "--engine", "acp", "hello"], "engine-no-command"),
        (&["run", "--engine", "acp", "--model", "x", "hello", "--", "true"], "model-provider"),
        (&["agents", "set", "mine", "--engine", "acp"], "engine-no-command"),
    ] {
        let ended = scene.tipstaff(args).expect(2);
        assert!(ended.stderr.contains(code), "{args:?}: {}", ended.stderr);
    }
    scene.tipstaff(&["agents", "set", "mine", "--engine", "acp", "--", "my-agent", "--acp"]).expect(0);
    let listed = scene.tipstaff(&["agents", "list"]).expect(0).stdout;
    assert!(listed.contains("my-agent --acp") && listed.contains("qwen-reviewer"), "{listed}");
}

/// What a made-up agent prints to ask about a command.
fn asking(id: u32, command: &str) -> String {
    let call = json!({ "toolCallId": format!("c{id}"), "kind": "execute", "title": "Shell", "rawInput": { "command": command } });
    let options =
        json!([{ "optionId": "yes", "kind": "allow_once" }, { "optionId": "no", "kind": "reject_once" }]);
    let params = json!({ "sessionId": "s", "options": options, "toolCall": call });
    let request =
        json!({ "jsonrpc": "2.0", "id": id, "method": "session/request_permission", "params": params });
    format!("echo '{request}'")
}

#[test]
fn two_questions_under_one_id_get_no_yes_and_a_yes_is_used_once() {
    let scene = Scene::new(MADE_UP);
    let hear = "read l; echo \"$l\" >> answers.txt";
    // Both at once; then one after the other, which are two questions.
    let turn = format!(
        "{}; {}; {hear}; {}; {hear}; {}; {hear}",
        asking(3, "rm a"),
        asking(3, "rm b"),
        asking(3, "rm c"),
        asking(3, "rm d")
    );
    let mut run = scene.start_with("Do it.", &made_up(&turn));
    run.answer_when("rm c", &["allow"]);
    run.answer_when("rm d", &["deny"]);
    let ended = run.ended();
    assert_eq!(ended.code, Some(0), "{ended:#?}\n{}", scene.transcript());
    assert_eq!(scene.states(), ["withdrawn", "used", "denied"]);
    let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
    for (said, times) in [("cancelled", 1), ("\"yes\"", 1), ("\"no\"", 1)] {
        assert_eq!(diff.matches(said).count(), times, "{said}: {diff}");
    }
    let wanted = ended.json()["refusals"].to_string();
    assert!(wanted.contains("two questions under one id"), "{wanted}");
    scene.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn one_that_dies_in_the_middle_of_a_question_leaves_neither_it_nor_a_child() {
    let scene = Scene::new(MADE_UP);
    // A command line that no other process has.
    let child = format!("sleep 9{}", std::process::id());
    for end in ["kill -SEGV $$".to_owned(), "exit 0".to_owned(), format!("(setsid {child} &); exit 3")] {
        let before = scene.states().len();
        // A moment, in which it is asked about.
        let turn = format!("echo kept > kept.txt; {}; sleep 2; {end}", asking(3, "rm a"));
        let ended = scene.start_with("Do it.", &made_up(&turn)).ended();
        let summary = ended.json();
        assert_eq!(
            (&summary["state"], &summary["files_changed"]),
            (&"failed".into(), &1.into()),
            "{ended:#?}"
        );
        assert!(!summary["error"].as_str().unwrap().is_empty(), "{summary}");
        assert_eq!(scene.states()[before..], ["withdrawn"], "{end}");
        assert_eq!(crate::terminal_agent::processes_with(&child.replace(' ', "\0")), 0, "{end}");
    }
    scene.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn what_is_not_understood_is_kept_as_it_came_and_a_flood_is_bounded() {
    let scene = Scene::with_policy(MADE_UP, "[policy]\ndefault = \"allow\"\n");
    let update = |update: Value| {
        let params = json!({ "sessionId": "s", "update": update });
        json!({ "jsonrpc": "2.0", "method": "session/update", "params": params }).to_string()
    };
    let turn = format!(
        "echo '{{broken'; printf '\\377\\376\\n'; echo '{}'; echo '{}'; echo '{}'; {}; read d; echo \"$d\" > answer.txt; \
         head -c 5000000 /dev/zero | tr '\\0' a; echo; yes '{}' | head -c 20000000; echo",
        update(json!({ "sessionUpdate": "telepathy", "thought": [1, 2] })),
        json!({ "jsonrpc": "2.0", "method": "session/become", "params": { "what": "a bird" } }),
        json!({ "jsonrpc": "2.0", "id": 50, "result": { "stopReason": "end_turn" } }),
        asking(3, "true"),
        update(
            json!({ "sessionUpdate": "tool_call_update", "toolCallId": 7, "status": ["x".repeat(5_000)] })
        ),
    );
    let ended = scene.start_with("Do it.", &made_up(&turn)).ended();
    let summary = ended.json();
    assert_eq!(summary["state"], "done", "{summary}\n{}", ended.stderr.len());
    let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
    assert!(diff.contains("\"yes\""), "its question was answered: {diff}");
    let exported = scene.tipstaff(&["runs", "export"]).expect(0).stdout;
    let raw: Vec<&str> = exported.lines().filter(|line| line.contains("\"raw\"")).collect();
    for kept in ["{broken", "telepathy", "a bird", "\"id\":50"] {
        assert!(raw.iter().any(|line| line.contains(kept)), "{kept}: {}", raw.len());
    }
    assert!(exported.len() < 40_000_000, "{}", exported.len());
    assert!(ended.stderr.contains("bytes were dropped"), "{}", ended.stderr.len());
    scene.tipstaff(&["audit", "verify"]).expect(0);
}

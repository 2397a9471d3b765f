//! The real Claude Code on the screen of a run: asked about, answered with keys, told something, and left alone by a
//! terminal that goes away.

use crate::terminal::Tmux;
use crate::world::{Ended, World, run, wait};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tipstaff_testkit::{ModelServer, ModelServerConfig, script_prompt};

const KEY: &str = "test-key-5b1d0c7e9f3a2864b8d1-nobodys";
const PATIENCE: Duration = Duration::from_secs(100);
const ASK: &str = "[policy]\ndefault = \"allow\"\n\
    [[policy.rules]]\ndecision = \"ask\"\nkinds = [\"edit\", \"execute\"]\n";

struct Scene {
    world: World,
    repository: PathBuf,
    server: ModelServer,
}

impl Scene {
    fn new(policy: &str) -> Self {
        let world = World::new();
        let repository = world.repository("demo");
        if !policy.is_empty() {
            world.write(&repository.join("tipstaff.toml"), policy);
            world.commit(&repository, "policy");
        }
        let config = ModelServerConfig { key: Some(KEY.to_owned()), ..Default::default() };
        Self { world, repository, server: ModelServer::start(config).unwrap() }
    }

    fn variables(&self) -> Vec<String> {
        vec![
            format!("PATH={}:/usr/local/bin:/usr/bin:/bin", crate::real_agents::programs().display()),
            format!("ANTHROPIC_API_KEY={KEY}"),
            format!("TIPSTAFF_ANTHROPIC_UPSTREAM={}", self.server.url()),
        ]
    }

    /// A terminal of 80 columns and 24 rows in which the agent works on what the model shall do.
    fn terminal(&self, options: &str, steps: Value) -> Tmux<'_> {
        let prompt = self.world.path().join("prompt");
        self.world.write(&prompt, &script_prompt("Please help.", steps));
        let arguments = format!(
            "run --repo {} --agent claude-builder --timeout 200s {options} \"$(cat {})\"",
            self.repository.display(),
            prompt.display()
        );
        let variables = self.variables();
        let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
        Tmux::start(&self.world, (80, 24), &variables, &arguments)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(self.world.binary());
        for variable in self.variables() {
            let (name, value) = variable.split_once('=').unwrap();
            command.env(name, value);
        }
        command.current_dir(&self.repository).args(args);
        command
    }

    fn tipstaff(&self, args: &[&str]) -> Ended {
        run(self.command(args))
    }

    fn summary(&self) -> Value {
        let id = self.tipstaff(&["runs", "list", "--limit", "1", "--json"]).expect(0).json();
        let shown = self.tipstaff(&["runs", "show", id["run"].as_str().unwrap(), "--json"]).expect(0).json();
        shown["summary"].clone()
    }

    fn questions(&self, args: &[&str]) -> Vec<Value> {
        let list = self.tipstaff(&[&["approvals", "list", "--json"], args].concat()).expect(0).stdout;
        list.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until something is so.
    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "{what} did not happen: {:?}", self.summary());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// The requests in which the model was told these words.
    fn told(&self, words: &str) -> usize {
        self.server.scripted_requests().iter().filter(|one| one.body.to_string().contains(words)).count()
    }
}

/// Processes that have this word in their command line.
pub(crate) fn processes_with(word: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(word)).count()
}

#[test]
fn a_person_answers_and_tells_claude_code_with_keys() {
    let scene = Scene::new(ASK);
    let tmux = scene.terminal(
        "--attended",
        json!([
            {"write": {"path": "/work/hello.txt", "content": "hello\n"}},
            {"shell": "echo never > never.txt"},
            {"text": "Did what I could."}
        ]),
    );
    let page = tmux.until("the question", |page| {
        page.contains("Write wants to change")
            && page.lines().next().is_some_and(|head| head.contains("needs input"))
    });
    for shown in ["hello.txt", "digest", "a once", "m tell"] {
        assert!(page.contains(shown), "{shown}:\n{page}");
    }
    assert!(page.lines().count() <= 24 && page.lines().all(|line| line.chars().count() <= 80), "{page}");
    // It is told something while it waits, and reads it in the same turn.
    tmux.press("m", "tell the agent");
    tmux.words("mind the gap");
    tmux.press("Enter", "the message waits");
    tmux.press("a", "is allowed");
    let page = tmux.shows("$ echo never > never.txt");
    assert!(page.contains("Bash wants to execute"), "{page}");
    tmux.press("n", "no, because");
    tmux.words("not today");
    tmux.keys(&["Enter"]);
    let page = tmux.shows("left with 0");
    assert!(tmux.is_given_back());
    assert!(page.contains("Did what I could.") && page.contains("1 file changed"), "{page}");

    let summary = scene.summary();
    assert_eq!((&summary["state"], &summary["files_changed"]), (&json!("done"), &json!(1)), "{summary}");
    let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
    assert!(diff.contains("+hello") && !diff.contains("never.txt"), "{diff}");
    let states: Vec<Value> = scene.questions(&["--all"]).iter().map(|one| one["state"].clone()).collect();
    assert!(states.contains(&json!("used")) && states.contains(&json!("denied")), "{states:?}");
    assert_eq!((scene.told("mind the gap"), scene.told("not today")), (2, 1), "the model was told both");
}

/// At a terminal nobody has to say beforehand that they will want to say something.
#[test]
fn whoever_sits_there_can_tell_and_interrupt_without_a_policy() {
    let scene = Scene::new("");
    let tmux = scene.terminal("", json!([{"shell": "echo begun; sleep 100"}, {"text": "Slept."}]));
    tmux.until("the command", |page| {
        page.lines().any(|line| line.starts_with("now") && line.contains("echo begun"))
    });
    assert_eq!(scene.questions(&["--all"]), Vec::<Value>::new(), "without a policy nothing is asked");
    tmux.press("i", "the interrupt waits");
    tmux.until("the end of its turn", |page| {
        page.lines().next().is_some_and(|line| line.contains("needs input"))
    });
    tmux.press("m", "tell the agent");
    let steps = json!([{"write": {"path": "/work/told.txt", "content": "told\n"}}, {"text": "As you said."}]);
    // As it would be pasted: on one line.
    tmux.words(&script_prompt("Do this instead.", steps).replace('\n', " "));
    tmux.keys(&["Enter"]);
    let page = tmux.shows("left with 0");
    assert!(page.contains("As you said.") && page.contains("1 file changed"), "{page}");
    drop(tmux);
    // Unless they say that they won't.
    let tmux =
        scene.terminal("--unattended", json!([{"shell": "echo begun; sleep 100"}, {"text": "Slept."}]));
    tmux.until("the command", |page| {
        page.lines().any(|line| line.starts_with("now") && line.contains("echo begun"))
    });
    tmux.press("i", "the interrupt waits");
    tmux.shows("nobody can speak with this run");
    tmux.keys(&["C-c"]);
    tmux.shows("left with");
    let both = scene.tipstaff(&["run", "--attended", "--unattended", "--agent", "claude-builder", "hello"]);
    assert_eq!(both.code, Some(2), "{both:?}");
}

#[test]
fn a_terminal_that_is_closed_in_the_middle_of_a_question_loses_nothing() {
    let scene = Scene::new(ASK);
    // A name that no other process has.
    let model = format!("claude-sonnet-5-5-closed-{}", std::process::id());
    let tmux = scene.terminal(
        &format!("--attended --model {model}"),
        json!([
            {"write": {"path": "/work/kept.txt", "content": "kept\n"}},
            {"shell": "echo never > never.txt"},
            {"text": "Never said."}
        ]),
    );
    tmux.shows("Write wants to change");
    tmux.press("a", "is allowed");
    tmux.shows("$ echo never > never.txt");
    assert_ne!(processes_with(&model), 0);
    let question = scene.questions(&[])[0].clone();
    tmux.press("n", "no, because");
    tmux.words("half a rea");
    tmux.close();

    // The run has ended with what was done, and nothing of it is left.
    let summary = scene.summary();
    assert_eq!((&summary["state"], &summary["files_changed"]), (&json!("cancelled"), &json!(1)), "{summary}");
    assert!(scene.tipstaff(&["runs", "diff"]).expect(0).stdout.contains("+kept"));
    assert_eq!(processes_with(&model), 0, "an agent without its run");
    assert_eq!(scene.questions(&[]), Vec::<Value>::new());
    let id = question["id"].as_str().unwrap();
    let late = scene.tipstaff(&["approvals", "allow", id, "--json"]).expect(1).json();
    assert_eq!(late["error"]["code"], "approval-withdrawn", "{late}");
    scene.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn a_watched_question_is_answered_elsewhere_when_the_terminal_is_closed() {
    let scene = Scene::new(ASK);
    let prompt = script_prompt(
        "Please help.",
        json!([{"write": {"path": "/work/hello.txt", "content": "hello\n"}}, {"text": "All done."}]),
    );
    let arguments = ["run", "--json", "--agent", "claude-builder", "--timeout", "200s", &prompt];
    let child = scene.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    scene.until("a question", || !scene.questions(&[]).is_empty());
    let tmux = Tmux::start(&scene.world, (80, 24), &[], "watch");
    tmux.shows("Write wants to change");
    tmux.press("n", "no, because");
    tmux.words("half a rea");
    tmux.close();
    let question = scene.questions(&[])[0].clone();
    assert_eq!(question["state"], "pending", "it answered nothing: {question}");
    scene.tipstaff(&["approvals", "allow", question["id"].as_str().unwrap()]).expect(0);
    let summary = wait(child, PATIENCE).json();
    assert_eq!((&summary["state"], &summary["files_changed"]), (&json!("done"), &json!(1)), "{summary}");
}

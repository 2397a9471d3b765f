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
            {"shell": "echo begun; sleep 100"},
            {"text": "Never said."}
        ]);
        let child = self.start(args, &script_prompt(FIRST, steps));
        // The model was asked with the answer to the write, and has said what comes next.
        assert!(
            self.server.wait_for(Duration::from_secs(100), |requests| {
                let answered =
                    |one: &&tipstaff_testkit::RecordedRequest| one.is_scripted() && one.status != 0;
                requests.iter().filter(answered).count() >= 2
            }),
            "the second call"
        );
        let run = self.until("a run", || {
            let list = self.tipstaff(&["runs", "list", "--json"]).expect(0).stdout;
            let run: Value = serde_json::from_str(list.lines().next()?).unwrap();
            Some(run["run"].as_str()?.to_owned())
        });
        self.until("its session and its file", || {
            let events = self.tipstaff(&["runs", "export", &run]).expect(0).stdout;
            (events.contains("started") && events.contains("first.txt")).then_some(())
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
            {"shell": "sed s/^/seen-/ first.txt > seen.txt 2>&1"},
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
    assert_eq!((&summary["state"], &summary["files_changed"]), (&json!("done"), &json!(3)), "{summary}");
    // OpenCode tells of each write outside of the sandbox, too.
    let refused = summary["refusals"].as_array().unwrap();
    assert!(refused.iter().all(|one| one["rule"] == "outside-sandbox"), "{summary}");
    let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
    assert!(diff.contains("+seen-laid the first stone"), "{diff}");
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
    assert!(ended.stderr.contains("tipstaff runs resume"), "it is said that it can be continued: {ended:#?}");
    assert_eq!(scene.shown(&run)["session_kept"], true);
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

#[test]
fn a_run_that_nobody_attended_goes_on_attended_with_other_bounds() {
    let scene = Scene::new(CLAUDE);
    let (child, run) = scene.begun(&[]);
    scene.tipstaff(&["runs", "cancel", &run]).expect(0);
    wait(child, Duration::from_secs(60));
    let summary = goes_on(&scene, &run, &["--attended", "--budget", "0.75"]);
    let shown = scene.shown(summary["run"].as_str().unwrap());
    assert_eq!(shown["task"]["attended"], true, "{shown}");
    assert_eq!(shown["warrant"]["budget"], 750_000, "{shown}");
    assert_eq!(shown["task"]["timeout_ms"], 150_000, "{shown}");
    // Neither the mirror nor what the new run brought has an object more than was judged.
    let earlier = scene.shown(&run)["summary"]["commit"].as_str().unwrap().to_owned();
    for mirror in std::fs::read_dir(scene.world.home().join("mirrors")).unwrap().flatten() {
        for one in std::fs::read_dir(mirror.path()).unwrap().flatten() {
            let look = Command::new("git")
                .arg("--git-dir")
                .arg(one.path())
                .args(["cat-file", "-e", &earlier])
                .output();
            assert!(!look.unwrap().status.success(), "{} has the earlier run's commit", one.path().display());
        }
    }
    scene.tipstaff(&["runs", "apply", summary["run"].as_str().unwrap()]).expect(0);
    assert!(scene.repository.join("first.txt").exists() && scene.repository.join("second.txt").exists());
}

#[test]
fn a_run_whose_worker_was_killed_goes_on_and_knows_what_it_lost() {
    for agent in [CLAUDE, CODEX] {
        let scene = Scene::new(agent);
        let (mut child, run) = scene.begun(&[]);
        child.kill().unwrap();
        child.wait().unwrap();
        let shown = scene.shown(&run);
        assert_eq!(shown["summary"]["state"], "interrupted", "{shown}");
        assert_eq!(scene.kept().len(), 1, "{:?}", scene.kept());
        assert_eq!(std::fs::read_dir(scene.world.home().join("runs")).unwrap().count(), 0);
        let before = scene.server.scripted_requests().len();
        let ended = scene.resume(&run, &next(), &[]).expect(0);
        let asked = scene.asked_since(before);
        for part in ["pumpkin shed", "And now the roof.", "what you changed since is gone"] {
            assert!(asked.contains(part), "the model was not told of {part}: {asked}");
        }
        let summary = ended.json();
        assert_eq!(summary["files_changed"], 2, "{summary}");
        let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
        assert!(diff.contains("No such file"), "{diff}");
        scene.tipstaff(&["audit", "verify"]).expect(0);
    }
}

// With a program of ours under the name of Claude Code.

/// Writes a file a run, and remembers each run in its session.
const DILIGENT: &str = r#"
mkdir -p "$kept/-work"; told=$kept/-work/s-1.jsonl
case "$*" in *--resume=s-1*) test -f "$told" || exit 3;; *) test ! -f "$told" || exit 4;; esac
echo "run $(ls /work | grep -c txt)" >> "$told"
cp "$told" "/work/$(wc -l < "$told")-$$.txt"
begun s-1; end"#;

#[test]
fn chains_and_two_at_once_have_a_copy_each() {
    let scene = Scene::puppet(DILIGENT);
    let (ended, first) = scene.run(&[], "begin");
    ended.expect(0);
    let resume = |run: &str| {
        let args = ["runs", "resume", run, "--json"];
        scene.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both =
        [resume(&first), resume(&first)].map(|child| wait(child, Duration::from_secs(100)).expect(0).json());
    for one in &both {
        assert_eq!(one["files_changed"], 2, "{one}");
    }
    let second = both[0]["run"].as_str().unwrap();
    let third = wait(resume(second), Duration::from_secs(100)).expect(0).json();
    assert_eq!(third["files_changed"], 3, "{third}");
    let diff = scene.tipstaff(&["runs", "diff", third["run"].as_str().unwrap()]).expect(0).stdout;
    assert!(diff.contains("/3-") && diff.contains("+run 0\n+run 1\n+run 2\n"), "{diff}");
    let mut by: Vec<String> = both.iter().map(|one| one["run"].as_str().unwrap().to_owned()).collect();
    by.sort();
    assert_eq!(scene.shown(&first)["continued_by"], json!(by));
    let text = scene.tipstaff(&["runs", "show", second]).expect(0).stdout;
    assert!(text.contains("continues") && text.contains("continued by"), "{text}");
    assert_eq!(scene.kept().len(), 4);
    // Nothing of it can be read without its key.
    for file in scene.kept() {
        let sealed = std::fs::read(&file).unwrap();
        assert!(!sealed.windows(5).any(|part| part == b"run 0"), "{}", file.display());
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
    let secrets = scene.tipstaff(&["secrets", "list", "--json"]).expect(0).stdout;
    assert_eq!(secrets, "", "its keys are ours");
}

#[test]
fn it_works_without_layers_and_with_a_setup() {
    let scene = Scene::puppet(DILIGENT);
    scene.world.write(&scene.world.home().join("config.toml"), "[run]\nlayers = false\n");
    let setup = scene.repository.join(".tipstaff/setup");
    scene.world.write(&setup, "#!/bin/sh\nmkdir -p made && echo made > made/by-setup\n");
    std::fs::set_permissions(&setup, std::fs::Permissions::from_mode(0o755)).unwrap();
    scene.world.commit(&scene.repository, "set-up");
    let (ended, first) = scene.run(&[], "begin");
    assert_eq!(ended.expect(0).json()["files_changed"], 1);
    let summary = scene.tipstaff(&["runs", "resume", &first, "--json"]).expect(0).json();
    assert_eq!((&summary["files_changed"], &summary["refusals"]), (&json!(2), &json!([])), "{summary}");
    let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
    assert!(!diff.contains("by-setup"), "{diff}");
}

#[test]
fn commits_of_the_agent_stay_commits_and_what_it_had_not_committed_is_uncommitted_again() {
    let scene = Scene::puppet(
        r#"
mkdir -p "$kept/p"; echo x >> "$kept/p/s-1.jsonl"; cd /work
case "$*" in
*--resume=*) { git log --format=%s; git status --porcelain; } > found.txt; git add found.txt; git commit -qm 'third';;
*) echo a > a.txt; git add a.txt; git commit -qm 'first of mine'; echo b > b.txt; echo more >> README.md;;
esac
begun s-1; end"#,
    );
    let (ended, first) = scene.run(&[], "begin");
    ended.expect(0);
    let summary = scene.tipstaff(&["runs", "resume", &first, "--json"]).expect(0).json();
    assert_eq!((&summary["files_changed"], &summary["refusals"]), (&json!(4), &json!([])), "{summary}");
    let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
    assert!(
        diff.contains("+first of mine\n") && diff.contains("+?? b.txt") && diff.contains("+ M README.md"),
        "{diff}"
    );
    let result = scene.world.home().join("results").join(format!("{}.git", summary["run"].as_str().unwrap()));
    let log = Command::new("git")
        .arg("--git-dir")
        .arg(&result)
        .args(["log", "--format=%s", summary["commit"].as_str().unwrap()])
        .output();
    let log = String::from_utf8(log.unwrap().stdout).unwrap();
    assert_eq!(log.lines().skip(1).collect::<Vec<_>>(), ["third", "first of mine", "first"], "{log}");
}

#[test]
fn what_the_new_warrant_does_not_grant_is_refused_whoever_wrote_it() {
    let scene = Scene::puppet(DILIGENT);
    let (ended, first) = scene.run(&[], "begin");
    assert_eq!(ended.expect(0).json()["files_changed"], 1);
    let rule =
        "[[policy.rules]]\ndecision = \"deny\"\npaths = [\"1-*\"]\nkinds = [\"edit\"]\nreason = \"frozen\"\n";
    let file = scene.world.path().join("org.toml");
    scene.world.write(&file, rule);
    scene.tipstaff(&["policy", "set", "--org", file.to_str().unwrap()]).expect(0);
    let ended = scene.tipstaff(&["runs", "resume", &first, "--json"]);
    let summary = ended.json();
    assert_ne!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(summary["branch"], Value::Null, "nothing passed: {summary}");
    assert!(summary["error"].as_str().unwrap().contains("1-"), "{summary}");
}

#[test]
fn what_was_thrown_away_is_gone_and_said() {
    let scene = Scene::puppet(
        r#"
mkdir -p "$kept/p"; echo x >> "$kept/p/s-1.jsonl"
cat "$HOME/.tipstaff/prompt.md" > /work/told.txt; ls /work > "/work/$$.txt"
begun s-1; end"#,
    );
    let (ended, first) = scene.run(&[], "begin");
    ended.expect(0);
    scene.tipstaff(&["runs", "discard", &first]).expect(0);
    scene.tipstaff(&["runs", "resume", &first, "go on"]).expect(0);
    let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
    assert!(diff.contains("what you changed since is gone") && diff.contains("+go on"), "{diff}");
    assert!(!diff.contains("+told.txt") || diff.matches("+told.txt").count() == 1, "{diff}");
}

#[test]
fn what_an_agent_puts_into_its_session_folder_leads_nowhere() {
    let scene = Scene::puppet(
        r#"
case "$*" in
*--resume=*) find "$kept" ! -type d > /work/found.txt; cat "$kept"/p/real >> /work/found.txt
   find "$kept" -perm /177 ! -type d | sed s/^/open-/ >> /work/found.txt;;
*) mkdir -p "$kept/p/deep"; echo real > "$kept/p/real"
   ln -s /etc/passwd "$kept/p/link"; ln -s / "$kept/p/root"; ln -s ../../../../../../../.. "$kept/p/deep/up"
   mkfifo "$kept/p/pipe"; ln "$kept/p/real" "$kept/p/hard"; printf 'x' > "$kept/p/$(printf 'a
b')"
   cp /bin/sh "$kept/p/sh"; chmod 4777 "$kept/p/sh"
   rmdir "$HOME/.claude/projects" 2>/dev/null; mv "$HOME/.claude" "$HOME/.other" 2>/dev/null
   chmod 777 "$kept" "$kept/p";;
esac
begun s-1; end"#,
    );
    let (ended, first) = scene.run(&[], "begin");
    ended.expect(0);
    assert_eq!(scene.kept().len(), 1);
    let ended = scene.tipstaff(&["runs", "resume", &first, "--json"]).expect(0);
    let diff = scene.tipstaff(&["runs", "diff"]).expect(0).stdout;
    assert!(!diff.contains("open-"), "nobody else reads it, nothing can be executed: {diff}");
    for there in ["/p/real", "/p/hard", "+real"] {
        assert!(diff.contains(there), "{there}: {diff}\n{ended:#?}");
    }
    for gone in ["link", "root", "/up", "pipe"] {
        assert!(!diff.contains(gone), "{gone}: {diff}");
    }
}

#[test]
fn a_session_that_is_too_large_is_not_kept_and_that_is_said() {
    let scene = Scene::puppet(r#"head -c 70000000 /dev/zero > "$kept/big"; begun s-1; end"#);
    let (ended, run) = scene.run(&[], "begin");
    let ended = ended.expect(0);
    assert!(
        ended.stderr.contains("the session is not kept") && ended.stderr.contains("64 MiB"),
        "{ended:#?}"
    );
    assert!(scene.kept().is_empty());
    let refused = scene.tipstaff(&["runs", "resume", &run]).expect(2);
    assert!(
        refused.stderr.contains("session-not-resumable") && refused.stderr.contains("too large"),
        "{refused:#?}"
    );
    let list = scene.tipstaff(&["runs", "list", "--json"]).expect(0).stdout;
    assert_eq!(list.lines().count(), 1, "nothing was begun");
}

#[test]
fn a_session_whose_name_is_none_is_never_used() {
    for name in ["--dangerous", "-x", "../../work", "a b", "a/b", "$(id)", "s;id", ""] {
        let scene = Scene::puppet(&format!("echo x > \"$kept/a\"; begun '{name}'; end"));
        let (ended, run) = scene.run(&[], "begin");
        ended.expect(0);
        let refused = scene.tipstaff(&["runs", "resume", &run]).expect(2);
        assert!(refused.stderr.contains("session-not-resumable"), "{name:?}: {refused:#?}");
    }
}

#[test]
fn what_can_not_be_continued_says_why_and_what_to_do() {
    let scene = Scene::puppet(
        r#"echo x > "$kept/a"
case "$(cat "$HOME/.tipstaff/prompt.md")" in silent) exit 1;; long) begun s-1; sleep 100;; esac
begun s-1; end"#,
    );
    let refused = |run: &str, args: &[&str], why: &str| {
        let all = [&["runs", "resume", run][..], args].concat();
        let ended = scene.tipstaff(&all).expect(2);
        assert!(
            ended.stderr.contains("session-not-resumable") && ended.stderr.contains(why),
            "{why}: {ended:#?}"
        );
    };
    // A command has no session; of the class meta nothing is kept; an agent may never say which session it is.
    let command = scene.world.run_script(&scene.repository, "echo x > y").expect(0).json();
    refused(command["run"].as_str().unwrap(), &[], "the engine command keeps none");
    let (ended, meta) = scene.run(&["--privacy", "meta"], "begin");
    ended.expect(0);
    refused(&meta, &[], "class meta");
    let (_, silent) = scene.run(&[], "silent");
    refused(&silent, &[], "before it said");
    // A run that goes on is told something in another way.
    let child = scene.start(&[], "long");
    let run = scene.until("a run", || {
        let list = scene.tipstaff(&["runs", "list", "--json"]).expect(0).stdout;
        let run: Value = serde_json::from_str(list.lines().next()?).unwrap();
        (run["state"] == "running").then(|| run["run"].as_str().unwrap().to_owned())
    });
    refused(&run, &["and more"], "runs say");
    refused(&run, &["--budget", "3"], "only a run that has ended");
    scene.tipstaff(&["runs", "pause", &run]).expect(0);
    scene.tipstaff(&["runs", "resume", &run]).expect(0);
    scene.tipstaff(&["runs", "cancel", &run]).expect(0);
    wait(child, Duration::from_secs(60));
    // It went on since, and could be continued; not as a class that keeps nothing readable.
    let sealed = scene.tipstaff(&["runs", "resume", &run, "--privacy", "sealed"]).expect(3);
    assert!(sealed.stderr.contains("privacy-sealed-unavailable"), "{sealed:#?}");
    // Of somebody else's runs nothing is known, nor of those that never were.
    let stranger = Scene::puppet("begun s-1; end");
    let (_, theirs) = stranger.run(&[], "begin");
    for unknown in [theirs.as_str(), "0000", "../../x", "--help-me"] {
        let ended = scene.tipstaff(&["runs", "resume", "--", unknown]).expect(2);
        assert!(ended.stderr.contains("run-unknown"), "{unknown}: {ended:#?}");
    }
}

#[test]
fn a_sub_run_goes_on_under_the_run_above_it_or_not_at_all() {
    let scene = Scene::puppet(
        r#"echo x >> "$kept/s-1.jsonl"; begun s-1
case "$(cat "$HOME/.tipstaff/prompt.md")" in long) sleep 100;; esac
echo x > "/work/$(wc -l < "$kept/s-1.jsonl").txt"; end"#,
    );
    let child = scene.start(&[], "long");
    let above = scene.until("the run above", || {
        let list = scene.tipstaff(&["runs", "list", "--json"]).expect(0).stdout;
        let run: Value = serde_json::from_str(list.lines().next()?).unwrap();
        (run["state"] == "running").then(|| run["run"].as_str().unwrap().to_owned())
    });
    let mut command =
        scene.command(&["run", "--json", "--engine", "claude-code", "--under", &above, "begin"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let sub = wait(command.spawn().unwrap(), Duration::from_secs(100)).expect(0).json();
    let sub = sub["run"].as_str().unwrap();
    let on = scene.tipstaff(&["runs", "resume", sub, "--json"]).expect(0).json();
    let shown = scene.shown(on["run"].as_str().unwrap());
    assert_eq!((&shown["task"]["under"], &shown["continues"]), (&json!(above), &json!(sub)), "{shown}");
    assert_eq!(shown["warrant"]["parent"], scene.shown(&above)["warrant"]["id"], "{shown}");
    scene.tipstaff(&["runs", "cancel", &above]).expect(0);
    wait(child, Duration::from_secs(60));
    let refused = scene.tipstaff(&["runs", "resume", sub]);
    assert!(refused.stderr.contains("run-above-ended"), "{refused:#?}");
}

#[test]
fn of_a_run_of_the_class_meta_that_continues_another_nothing_is_kept() {
    let scene = Scene::puppet(DILIGENT);
    let (ended, first) = scene.run(&[], "begin");
    ended.expect(0);
    let ended = scene.tipstaff(&["runs", "resume", &first, "--privacy", "meta", "--json"]).expect(0).json();
    assert_eq!((&ended["privacy"], &ended["files_changed"]), (&json!("meta"), &json!(2)), "{ended}");
    assert_eq!(scene.kept().len(), 1, "only the first run's");
    let refused = scene.tipstaff(&["runs", "resume", ended["run"].as_str().unwrap()]).expect(2);
    assert!(refused.stderr.contains("class meta"), "{refused:#?}");
}

#[test]
fn a_sweep_erases_the_session_and_its_key() {
    let scene = Scene::puppet(DILIGENT);
    let (ended, first) = scene.run(&[], "begin");
    ended.expect(0);
    let sealed = scene.kept().remove(0);
    let copy = std::fs::read(&sealed).unwrap();
    scene.tipstaff(&["retention", "set", "org", "1d"]).expect(0);
    let mut command = scene.world.command("python3");
    let script = "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1])\n\
        c.execute('update run set ended_at = ended_at - 172800000')\nc.commit()\nc.close()";
    command.args(["-c", script]).arg(scene.world.home().join("tipstaff.db"));
    crate::world::run(command).expect(0);
    scene.tipstaff(&["retention", "sweep"]).expect(0);
    assert!(scene.kept().is_empty());
    let refused = scene.tipstaff(&["runs", "resume", &first]).expect(2);
    assert!(refused.stderr.contains("session-not-resumable"), "{refused:#?}");
    // A copy that somebody kept opens no more.
    std::fs::write(&sealed, copy).unwrap();
    let refused = scene.tipstaff(&["runs", "resume", &first]).expect(2);
    assert!(refused.stderr.contains("session-not-resumable"), "{refused:#?}");
}

#[test]
fn a_session_that_was_altered_or_is_another_runs_starts_nothing() {
    let scene = Scene::puppet(DILIGENT);
    let (_, one) = scene.run(&[], "begin");
    let (_, two) = scene.run(&[], "begin");
    let of = |run: &str| scene.kept().into_iter().find(|file| file.to_str().unwrap().contains(run)).unwrap();
    let (first, second) = (of(&one), of(&two));
    let mut bytes = std::fs::read(&first).unwrap();
    std::fs::write(&second, &bytes).unwrap();
    let refused = scene.tipstaff(&["runs", "resume", &two]);
    assert!(refused.stderr.contains("session-unusable"), "{refused:#?}");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&first, &bytes).unwrap();
    let refused = scene.tipstaff(&["runs", "resume", &one]);
    assert!(refused.stderr.contains("session-unusable"), "{refused:#?}");
    // A link in its place is not followed.
    std::fs::remove_file(&first).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &first).unwrap();
    assert_ne!(scene.tipstaff(&["runs", "resume", &one]).code, Some(0));
}

//! The screen of a run in a real terminal: tmux draws what the binary writes, and types what a person would.

use crate::approvals::{Stage, begun};
use crate::world::{World, run, wait};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tipstaff_model::approval::{ApprovalRequest, ApprovalScope};
use tipstaff_model::{
    Action, ActionKind, AgentEvent, ApprovalId, ApprovalState, Clock, EventDraft, EventKind, FileChangeKind,
    MicroUsd, Refusal, Risk, Rule, SteerKind,
};
use tipstaff_seal::{SystemClock, SystemEntropy};

/// How long something may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with a program in it; gone at the end.
pub(crate) struct Tmux<'w> {
    world: &'w World,
    socket: std::path::PathBuf,
}

/// Servers of this process: each has a socket of its own, since one that was told to end may still be about to.
static SERVERS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

impl<'w> Tmux<'w> {
    /// A terminal of a size in which `tipstaff ARGUMENTS` runs, with further variables. When it has ended, its exit code is
    /// written, and what is typed is shown.
    pub(crate) fn start(
        world: &'w World,
        (columns, rows): (u16, u16),
        variables: &[&str],
        arguments: &str,
    ) -> Self {
        let number = SERVERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let tmux = Self { world, socket: world.path().join(format!("tmux{number}")) };
        let script = format!(
            "env {} {} {arguments}; printf 'left with %s\\n' $?; exec cat",
            variables.join(" "),
            world.binary().display()
        );
        let (columns, rows) = (columns.to_string(), rows.to_string());
        tmux.tmux(&[
            "-f",
            "/dev/null",
            "-u",
            "new-session",
            "-d",
            "-s",
            "t",
            "-x",
            &columns,
            "-y",
            &rows,
            &script,
        ]);
        tmux
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = self.world.command("tmux");
        command.arg("-S").arg(&self.socket).args(arguments);
        run(command).expect(0).stdout
    }

    pub(crate) fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", "t"], keys].concat());
    }

    pub(crate) fn words(&self, words: &str) {
        self.tmux(&["send-keys", "-t", "t", "-l", words]);
    }

    pub(crate) fn page(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", "t"])
    }

    fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e", "-t", "t"])
    }

    fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-t", "t", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// Waits until the page is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let page = self.page();
            if wanted(&page) {
                return page;
            }
            assert!(begun.elapsed() < PATIENCE, "no {what} after {PATIENCE:?}:\n{page}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub(crate) fn shows(&self, words: &str) -> String {
        self.until(words, |page| page.contains(words))
    }

    /// Presses a key, once more where it came too early: it is not taken then, and says so.
    pub(crate) fn press(&self, key: &str, words: &str) -> String {
        self.keys(&[key]);
        let page = self.until(words, |page| page.contains(words) || page.contains("press the key again"));
        if page.contains(words) {
            return page;
        }
        // Never twice: what says so may still stand there when the second one is taken.
        std::thread::park_timeout(Duration::from_millis(450));
        self.keys(&[key]);
        self.shows(words)
    }

    /// Whether the terminal is as it was found: the usual screen, a cursor.
    pub(crate) fn is_given_back(&self) -> bool {
        self.tmux(&["display-message", "-p", "-t", "t", "#{alternate_on} #{cursor_flag}"]).trim() == "0 1"
    }

    /// The process of the binary.
    fn process(&self) -> u32 {
        let shell = self.tmux(&["display-message", "-p", "-t", "t", "#{pane_pid}"]);
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        std::fs::read_to_string(children).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Closes the terminal, and waits until the binary has ended.
    pub(crate) fn close(&self) {
        let process = self.process();
        self.tmux(&["kill-session", "-t", "t"]);
        let begun = Instant::now();
        while std::fs::metadata(format!("/proc/{process}")).is_ok() {
            assert!(begun.elapsed() < PATIENCE, "it outlives its terminal");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let mut command = self.world.command("tmux");
        command.arg("-S").arg(&self.socket).arg("kill-server");
        let _gone_already = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// The page with what differs from run to run taken out: ids, digests, times.
fn normalised(page: &str) -> String {
    let mut out = String::new();
    for line in page.lines() {
        let mut words = Vec::new();
        for word in line.split(' ') {
            let bare = word.trim_end_matches([',', ')']);
            let tail = &word[bare.len()..];
            let id =
                bare.len() >= 8 && bare.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
            let time = bare
                .strip_suffix(['s', 'm', 'h'])
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            words.push(match (id, time) {
                (true, _) => format!("{}{tail}", "x".repeat(bare.len())),
                (_, true) => format!("T{tail}"),
                _ => word.to_owned(),
            });
        }
        let line = words.join(" ").replace("T T", "T");
        // A rule is as long as the times on it leave room for.
        let line = line.trim_end_matches('-');
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.trim_end().to_owned()
}

impl Stage {
    fn ask_edit(&self) -> ApprovalRequest {
        let now = SystemClock.wall_ms();
        let action = Action {
            kind: ActionKind::Edit,
            tool: "Edit".to_owned(),
            title: "src/lib.rs".to_owned(),
            commands: Vec::new(),
            paths: vec!["/work/src/lib.rs".to_owned()],
            hosts: Vec::new(),
            input: json!({ "file_path": "/work/src/lib.rs" }),
        };
        let id = ApprovalId::new(&SystemClock, &SystemEntropy);
        let digest = action.digest(self.warrant, &id.to_string());
        let (asked_at, expires_at) = (now, now + 600_000);
        let (warrant, risk, because) = (self.warrant, Risk::Medium, Vec::new());
        let request = ApprovalRequest { id, warrant, digest, action, risk, because, asked_at, expires_at };
        self.write(async |tx, lease| tx.approval_ask(lease, &request).await.unwrap());
        request
    }

    fn happens(&self, events: &[AgentEvent]) {
        let drafts: Vec<EventDraft> = events
            .iter()
            .map(|event| EventDraft {
                kind: EventKind::Agent,
                at: SystemClock.wall_ms(),
                body: serde_json::to_value(event).unwrap(),
            })
            .collect();
        self.write(async |tx, lease| tx.event_add(lease, &drafts).await.unwrap());
    }

    fn answer(&self, asked: &ApprovalRequest) -> tipstaff_model::Approval {
        self.write(async |tx, _| tx.approval_get(asked.id).await.unwrap().unwrap())
    }
}

fn text(text: &str) -> AgentEvent {
    AgentEvent::Text { text: text.to_owned(), delta: false }
}

#[test]
fn a_question_is_answered_with_a_key_while_the_terminal_is_resized() {
    let stage = Stage::new();
    stage.happens(&[
        text("I will tidy up."),
        AgentEvent::FileChange { path: "src/lib.rs".to_owned(), change: FileChangeKind::Changed },
    ]);
    stage.write(async |tx, lease| {
        let refusal =
            Refusal::new(Rule::HostNotGranted, "api.example.com:443", "the warrant grants no such host");
        tx.refusal_add(lease, &refusal).await.unwrap();
    });
    let asked = stage.ask("rm -rf build", Risk::High, 600_000);
    let tmux = Tmux::start(&stage.world, (80, 24), &[], "watch");
    let page = tmux.shows("wants to execute");
    insta::assert_snapshot!(normalised(&page), @"
    run xxxxxxxx  running  T, T left
    local/demo @ xxxxxxxxxx -> no push
    builder with claude-code  session org
    cost [....................] $0.00 of $2.00 (0%)  1 file so far
    now  waits for you: 1 question
    -- session
    I will tidy up.
      changed src/lib.rs
    approval xxxxxxxx wanted (high risk): Bash: rm -rf build; tipstaff approvals
    allow xxxxxxxx







    -- approval xxxxxxxx  high risk  means no in T
    Bash wants to execute:  digest xxxxxxxxxxxx
      $ rm -rf build
     - it removes files: rm -rf build
     a once   r for this run   p for paths   n no   v all of it
    1 blocked: b
    m tell  i interrupt  space pause  c cancel  d b ? q
    ");
    // In the middle of the question the window changes, twice.
    tmux.resize(50, 12);
    tmux.shows("question waits for you");
    tmux.resize(100, 30);
    let page = tmux.until("the larger screen", |page| {
        page.lines().count() >= 29
            && page.contains("wants to execute")
            && page.lines().any(|line| line.len() == 100)
    });
    assert!(page.contains("$ rm -rf build"), "{page}");
    tmux.press("v", "arguments, as the agent sent them");
    let whole = tmux.shows(asked.digest.as_str());
    assert!(whole.contains("\"command\": \"rm -rf build\""), "{whole}");
    tmux.press("Escape", "I will tidy up.");
    tmux.press("a", &format!("approval {} is allowed", asked.id.short()));
    assert_eq!(stage.state(&asked), ApprovalState::Allowed);
    assert!(stage.uses(&asked) && !stage.uses(&asked));

    // The next ones: no with a reason, and yes for a pattern.
    let asked = stage.ask("git push --force", Risk::High, 600_000);
    tmux.shows("git push --force");
    tmux.press("n", "no, because");
    tmux.words("aqc: keep the history");
    tmux.press("Enter", &format!("approval {} is denied", asked.id.short()));
    let denied = stage.answer(&asked);
    assert_eq!(denied.state, ApprovalState::Denied);
    assert_eq!(denied.answer.unwrap().reason.as_deref(), Some("aqc: keep the history"));
    let asked = stage.ask_edit();
    tmux.shows("wants to change");
    tmux.press("p", "src/**");
    tmux.press("Enter", "for changes to src/**");
    let allowed = stage.answer(&asked);
    assert_eq!(
        allowed.answer.unwrap().scope,
        ApprovalScope::Paths { patterns: vec!["src/**".parse().unwrap()] }
    );
    // A critical one wants a reason, also from the keyboard.
    let asked = stage.ask("git push origin main", Risk::Critical, 600_000);
    tmux.shows("critical risk");
    tmux.press("a", "yes, because");
    tmux.keys(&["Enter"]);
    tmux.shows("allowed with a reason");
    tmux.words("agreed with Ada");
    tmux.press("Enter", &format!("approval {} is allowed", asked.id.short()));
    assert_eq!(stage.answer(&asked).answer.unwrap().reason.as_deref(), Some("agreed with Ada"));
    tmux.keys(&["q"]);
    tmux.shows("left with 0");
    assert!(tmux.is_given_back());
    tmux.words("echoed again");
    tmux.shows("echoed again");
}

#[test]
fn a_run_is_steered_and_what_it_was_refused_becomes_a_proposal() {
    let stage = Stage::new();
    stage.write(async |tx, lease| {
        let refusal =
            Refusal::new(Rule::HostNotGranted, "api.example.com:443", "the warrant grants no such host");
        tx.refusal_add(lease, &refusal).await.unwrap();
        tx.run_charge(lease, MicroUsd::from_micro(420_000).micro(), 1_000).await.unwrap();
    });
    let tmux = Tmux::start(&stage.world, (80, 24), &[], "watch");
    tmux.shows("1 blocked: b");
    tmux.press("b", "w keeps the hosts as a file");
    let page = tmux.shows("--allow-host api.example.com");
    assert!(page.contains("a warrant is never widened while its run goes on"), "{page}");
    tmux.press("w", "review it, then: tipstaff run --allow-from");
    let proposal = stage.world.home().join(format!("proposals/{}.toml", stage.lease.run()));
    let proposal: toml::Table = std::fs::read_to_string(proposal).unwrap().parse().unwrap();
    assert_eq!(proposal["hosts"].as_array().unwrap()[0].as_str(), Some("api.example.com"));
    tmux.press("Escape", "no tool is in use");
    tmux.press("m", "tell the agent");
    tmux.words("leave the API alone");
    tmux.press("Enter", "the message waits");
    tmux.press("i", "the interrupt waits");
    tmux.press("Space", "the pause waits");
    let waiting = stage.write(async |tx, lease| tx.steer_waiting(lease.run()).await.unwrap());
    let kinds: Vec<SteerKind> = waiting.into_iter().map(|steer| steer.kind).collect();
    let message = SteerKind::Message { text: "leave the API alone".to_owned() };
    assert_eq!(kinds, [message, SteerKind::Interrupt, SteerKind::Pause]);
    // Cancelling asks once more.
    tmux.press("c", "y/n");
    tmux.press("n", "the run goes on");
    tmux.press("c", "y/n");
    tmux.press("y", "it ends within seconds");
    let log = stage.world.tipstaff(&["audit", "list"]).expect(0).stdout;
    assert!(log.contains("run.cancel_requested"), "{log}");
}

#[test]
fn a_terminal_that_goes_away_in_the_middle_of_a_question_answers_nothing() {
    let stage = Stage::new();
    let asked = stage.ask("rm -rf build", Risk::High, 600_000);
    let tmux = Tmux::start(&stage.world, (80, 24), &[], "watch");
    tmux.shows("wants to execute");
    tmux.press("n", "no, because");
    tmux.words("half a rea");
    tmux.shows("half a rea");
    tmux.close();
    assert_eq!(stage.state(&asked), ApprovalState::Pending);
    // Nobody answers in time: no.
    let late = stage.ask("rm -rf other", Risk::High, 1);
    let answer = stage.world.tipstaff(&["approvals", "allow", &late.id.short(), "--json"]).expect(1).json();
    assert_eq!(answer["error"]["code"], "approval-expired");
    assert!(!stage.uses(&late) && !stage.uses(&asked));
}

#[test]
fn without_colour_the_terminal_gets_none() {
    let stage = Stage::new();
    stage.ask("rm -rf build", Risk::High, 600_000);
    let colours = |page: &str| {
        page.split("\u{1b}[").skip(1).any(|part| {
            let parameters = part.split('m').next().unwrap();
            parameters.split(';').any(|one| matches!(one.parse::<u16>(), Ok(30..=38 | 40..=48 | 90..=107)))
        })
    };
    let tmux = Tmux::start(&stage.world, (80, 24), &["NO_COLOR=1"], "watch");
    tmux.shows("high risk");
    assert!(!colours(&tmux.coloured()), "{}", tmux.coloured());
    drop(tmux);
    let tmux = Tmux::start(&stage.world, (80, 24), &[], "watch");
    tmux.shows("high risk");
    assert!(colours(&tmux.coloured()));
    // SIGTERM ends it, and the terminal is as it was.
    let process = tmux.process().to_string();
    run({
        let mut kill = stage.world.command("kill");
        kill.args(["-TERM", &process]);
        kill
    })
    .expect(0);
    tmux.shows("left with 143");
    assert!(tmux.is_given_back());
}

#[test]
fn several_runs_are_chosen_from() {
    let stage = Stage::new();
    let (_, _, other, _) = stage.runtime.block_on(begun(&stage.world));
    let tmux = Tmux::start(&stage.world, (80, 24), &[], "watch");
    let page = tmux.shows("2 runs go on; which one?");
    assert!(page.contains(&format!("> {}", other.run().short())), "the newest comes first:\n{page}");
    tmux.keys(&["Down", "Enter"]);
    tmux.shows(&format!("run {}", stage.lease.run().short()));
    tmux.keys(&["C-c"]);
    tmux.shows("left with 0");
    drop(tmux);
    let plain = stage.world.start(&["watch", "--json"]);
    // Not a terminal: the newest, line by line, until it ends.
    stage.world.tipstaff(&["runs", "cancel", &other.run().short()]).expect(0);
    let mut plain = plain;
    plain.kill().unwrap();
    let ended = wait(plain, PATIENCE);
    assert!(!ended.stderr.contains("no-terminal"), "{ended:?}");
}

#[test]
fn what_is_not_a_terminal_gets_lines() {
    let world = World::new();
    let none = world.tipstaff(&["watch"]).expect(2);
    assert!(none.stderr.contains("run-none-live"), "{}", none.stderr);
    let repository = world.repository("demo");
    let ended = world.run_script(&repository, "echo first; echo x >> README.md").expect(0).json();
    let id = ended["run"].as_str().unwrap().to_owned();
    let lines = world.tipstaff(&["watch", &id]).expect(0);
    assert_eq!(lines.stdout, "first\n");
    assert!(lines.stderr.contains("tipstaff: done"), "{}", lines.stderr);
    let objects = world.tipstaff(&["watch", "--json", &id]).expect(0).stdout;
    assert!(
        objects.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|one| one["seq"].is_u64()))
    );
    for arguments in [&["watch", "--tui", &id][..], &["run", "--tui", "--", "true"]] {
        let refused = world.tipstaff_in(&repository, arguments).expect(2);
        assert!(refused.stderr.contains("no-terminal"), "{}", refused.stderr);
    }
    // A dumb terminal, and a person who wants lines.
    for (variable, arguments) in [("TERM=dumb", "watch"), ("X=1", "watch --plain")] {
        let tmux = Tmux::start(&world, (80, 24), &[variable], &format!("{arguments} {id}"));
        let page = tmux.shows("left with 0");
        assert!(page.starts_with("tipstaff: preparing") || page.contains("first"), "{page}");
        assert!(!page.contains("-- session"), "{page}");
    }
    // One that has ended is looked at on the screen, too.
    let tmux = Tmux::start(&world, (80, 24), &[], &format!("watch {id}"));
    tmux.shows("the run has ended");
    tmux.press("d", "+x");
    tmux.keys(&["q"]);
    tmux.shows("left with 0");
}

#[test]
fn a_run_at_a_terminal_has_a_screen_and_leaves_its_words_behind() {
    let world = World::new();
    let repository = world.repository("demo");
    // It tries what a terminal might obey, then waits for the file that the test makes the run end with: its cancellation.
    let script = "printf '\\033]0;evil\\007\\033[2J\\033[1;1HGONE\\033[?1049l\\nfirst\\n'; echo x >> README.md; sleep 600";
    let arguments = format!("run --repo {} -- sh -c \"{script}\"", repository.display());
    let tmux = Tmux::start(&world, (80, 24), &[], &arguments);
    let page = tmux.shows("first");
    assert!(page.starts_with("run ") && page.contains("GONE"), "{page}");
    assert!(page.lines().next().unwrap().contains("running"), "{page}");
    // Leaving the screen leaves the run alone; what it said stands there.
    tmux.keys(&["q"]);
    let page = tmux.until("lines", |page| !page.contains("-- session") && page.contains("first"));
    assert!(page.contains("GONE") && tmux.is_given_back(), "{page}");
    tmux.keys(&["C-c"]);
    let page = tmux.shows("left with");
    assert!(page.contains("cancelled") && page.contains("the change waits on"), "{page}");
    drop(tmux);
    // The same key on the screen itself.
    let tmux = Tmux::start(&world, (80, 24), &[], &arguments);
    tmux.shows("first");
    tmux.keys(&["C-c"]);
    let page = tmux.shows("left with");
    assert!(page.contains("first") && page.contains("cancelled"), "{page}");
    assert!(tmux.is_given_back());
    drop(tmux);
    // A run that ends by itself gives the terminal back by itself, with its words and its end.
    let arguments =
        format!("run --repo {} -- sh -c 'echo second; echo y >> README.md'", repository.display());
    let tmux = Tmux::start(&world, (80, 24), &[], &arguments);
    let page = tmux.shows("left with 0");
    assert!(page.contains("second") && page.contains("1 file changed") && tmux.is_given_back(), "{page}");
    // And one whose terminal goes away is ended, too, with its work kept.
    drop(tmux);
    let arguments =
        format!("run --repo {} -- sh -c 'echo z >> README.md; echo third; sleep 600'", repository.display());
    let tmux = Tmux::start(&world, (80, 24), &[], &arguments);
    tmux.shows("third");
    tmux.close();
    let id = world.tipstaff(&["runs", "list", "--limit", "1", "--json"]).expect(0).json();
    let shown = world.tipstaff(&["runs", "show", id["run"].as_str().unwrap(), "--json"]).expect(0).json();
    let shown = &shown["summary"];
    assert_eq!((&shown["state"], &shown["files_changed"]), (&json!("cancelled"), &json!(1)), "{shown}");
}

#[test]
fn a_session_is_recorded_and_played() {
    let world = World::new();
    let repository = world.repository("demo");
    world
        .run_script(&repository, "echo first; sleep 1.5; printf '\\033[2Jsecond\\n'; echo x >> README.md")
        .expect(0);
    let file = world.path().join("session.cast");
    let name = file.to_str().unwrap();
    let said = world.tipstaff(&["runs", "replay", "--format", "asciicast", "--output", name]).expect(0);
    assert!(said.stdout.is_empty() && said.stderr.contains("session.cast"), "{said:?}");
    let recording = std::fs::read_to_string(&file).unwrap();
    let (longest, output) = checked(&recording);
    assert!(longest >= 1.4, "the times are real: {longest}");
    let bounded = ["runs", "replay", "--format", "asciicast", "--max-idle", "1s"];
    let (longest, _) = checked(&world.tipstaff(&bounded).expect(0).stdout);
    assert!(longest < 1.001, "no pause is longer than a second: {longest}");
    // What a player writes to a terminal is what the session was.
    let played = world.path().join("played");
    world.write(&played, &output);
    let tmux = Tmux::start(&world, (100, 30), &[], &format!("--version; cat {}", played.display()));
    let page = tmux.shows("second");
    assert!(page.contains("running") && page.contains("first") && page.contains("done"), "{page}");
    world.tipstaff(&["runs", "replay", "--format", "asciicast", "--output", "/nowhere/x"]).expect(2);
    world.tipstaff(&["runs", "replay", "--format", "gif"]).expect(2);
}

/// Holds a recording to the schema of asciicast version 2; its longest pause in seconds and its output.
fn checked(recording: &str) -> (f64, String) {
    let mut lines = recording.lines();
    let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(header["version"], 2);
    assert!(header["width"].as_u64().unwrap() > 0 && header["height"].as_u64().unwrap() > 0);
    assert!(header["timestamp"].is_u64() && header["title"].is_string() && header["env"]["TERM"].is_string());
    let known = [
        "version",
        "width",
        "height",
        "timestamp",
        "title",
        "env",
        "duration",
        "idle_time_limit",
        "theme",
        "command",
    ];
    assert!(header.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{header}");
    let (mut last, mut longest, mut output) = (0.0, 0.0_f64, String::new());
    for line in lines {
        let event: Vec<Value> = serde_json::from_str(line).unwrap();
        let [time, code, data] = event.as_slice() else { panic!("{line}") };
        let time = time.as_f64().unwrap();
        assert!(time >= last && code == "o", "{line}");
        longest = longest.max(time - last);
        last = time;
        output.push_str(data.as_str().unwrap());
    }
    assert!(!output.replace("\r\n", "").contains(['\n', '\r']), "every line ends with CR LF");
    (longest, output)
}

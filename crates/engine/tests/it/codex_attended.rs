//! Codex with a person: what its app server says and what we say to it, in recordings of the real one and against one
//! that lies.

use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use tipstaff_engine::{Conversation, Engine, EngineRequest, ProcessEnd, Reply, Step, Verdict, engine};
use tipstaff_model::{ActionKind, AgentEvent, EngineKind};

const COMMAND: &str = "item/commandExecution/requestApproval";
const CHANGE: &str = "item/fileChange/requestApproval";

fn codex() -> &'static dyn Engine {
    engine(EngineKind::Codex)
}

fn request(resume: Option<&str>) -> EngineRequest<'_> {
    EngineRequest {
        command: &[],
        prompt: Some("Please do it."),
        model: None,
        provider: None,
        instructions: "Prefer small steps.",
        broker: "http://127.0.0.1:8080",
        home: "/home/agent",
        may_write: true,
        attended: true,
        keeps_session: false,
        resume,
    }
}

fn conversation(resume: Option<&str>) -> Box<dyn Conversation> {
    codex().conversation(&request(resume)).unwrap().unwrap()
}

struct Recording {
    case: String,
    lines: Vec<String>,
    errors: String,
}

/// The recordings of `transcripts/codex-attended`, made with the requests that a conversation makes.
fn recordings() -> Vec<Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts/codex-attended");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let stem = path.file_stem().unwrap().to_str().unwrap();
            // It ends with code 0 whatever happened.
            let case = stem.strip_suffix(".0").unwrap().to_owned();
            let text = std::fs::read_to_string(path).unwrap();
            Recording {
                case,
                lines: text.lines().map(ToOwned::to_owned).collect(),
                errors: std::fs::read_to_string(path.with_extension("err")).unwrap_or_default(),
            }
        })
        .collect()
}

fn recording(case: &str) -> Recording {
    recordings().into_iter().find(|recording| recording.case == case).unwrap()
}

fn read(lines: &[String], errors: &str) -> (Vec<AgentEvent>, Verdict) {
    let mut reader = codex().attended_reader().unwrap();
    let mut events: Vec<AgentEvent> = errors.lines().flat_map(|line| reader.error_line(line)).collect();
    events.extend(lines.iter().flat_map(|line| reader.line(line)));
    (events, reader.verdict(ProcessEnd::Exited(0)))
}

#[test]
fn what_the_app_server_tells_of_is_read_as_it_was_meant() {
    for recording in recordings() {
        let (events, verdict) = read(&recording.lines, &recording.errors);
        let mut shown = String::new();
        for event in &events {
            writeln!(shown, "{}", serde_json::to_string(event).unwrap()).unwrap();
        }
        write!(shown, "=> {verdict:?}").unwrap();
        insta::assert_snapshot!(format!("codex-attended__{}", recording.case), shown);
    }
}

#[test]
fn it_is_recorded_in_the_cases_that_matter() {
    for (case, done) in [
        ("work-done", true),
        ("tool-fails", true),
        ("edit-fails", true),
        ("thinking", true),
        ("denied-in-part", true),
        ("interrupted", true),
        ("steered", true),
        ("resumed", true),
        ("repository-rules", true),
        ("denied", false),
        ("cancelled", false),
        ("budget-ends", false),
        ("garbage-html", false),
        ("key-wrong", false),
    ] {
        let recording = recording(case);
        let (events, verdict) = read(&recording.lines, &recording.errors);
        assert_eq!(verdict == Verdict::Done, done, "{case}: {verdict:?}");
        assert!(
            matches!(events.iter().find(|event| !matches!(event, AgentEvent::Error { .. })),
            Some(AgentEvent::Started { session: Some(_), version: Some(version), .. }) if version == "0.169.0"),
            "{case}"
        );
        assert!(!events.iter().any(|event| matches!(event, AgentEvent::Raw { .. })), "{case}: {events:#?}");
        let calls: Vec<&String> = events
            .iter()
            .filter_map(|event| if let AgentEvent::ToolCall { id, .. } = event { Some(id) } else { None })
            .collect();
        let answers: Vec<&String> = events
            .iter()
            .filter_map(|event| if let AgentEvent::ToolResult { id, .. } = event { Some(id) } else { None })
            .collect();
        assert_eq!(calls, answers, "{case}: each call has one answer");
    }
}

/// The same work reads the same, whether a person attends or not.
#[test]
fn finished_work_is_told_as_in_a_session_that_nobody_attends() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts/codex");
    for case in ["work-done", "thinking", "tool-fails"] {
        let text = std::fs::read_to_string(folder.join(format!("{case}.0.jsonl"))).unwrap();
        let mut reader = codex().reader().unwrap();
        let told = |events: Vec<AgentEvent>| {
            events
                .into_iter()
                .filter_map(|event| match event {
                    AgentEvent::ToolCall { name, title, .. } => Some(format!("call {name} {title}")),
                    AgentEvent::ToolResult { ok, output, .. } => Some(format!("result {ok} {output}")),
                    AgentEvent::FileChange { path, change } => Some(format!("change {path} {change:?}")),
                    AgentEvent::Text { text, .. } => Some(format!("text {text}")),
                    AgentEvent::Thinking { text, .. } => Some(format!("thinking {text}")),
                    AgentEvent::Finished { ok, summary, turns } => {
                        Some(format!("finished {ok} {summary:?} {turns:?}"))
                    }
                    _ => None,
                })
                .collect::<Vec<_>>()
        };
        let alone = told(text.lines().flat_map(|line| reader.line(line)).collect());
        assert_eq!(told(read(&recording(case).lines, "").0), alone, "{case}");
    }
}

#[test]
fn a_session_that_was_cut_off_is_not_done() {
    for recording in recordings() {
        let turns = recording.lines.iter().filter(|line| line.contains("\"turn/completed\"")).count();
        for kept in 0..recording.lines.len() {
            let begun = &recording.lines[..kept];
            let over = begun.iter().filter(|line| line.contains("\"turn/completed\"")).count();
            let (_, verdict) = read(begun, "");
            assert!(over == turns || verdict != Verdict::Done, "{} after {kept} lines", recording.case);
        }
        let mut reader = codex().attended_reader().unwrap();
        for line in &recording.lines {
            reader.line(line);
        }
        for end in [ProcessEnd::Exited(1), ProcessEnd::Signalled(9)] {
            assert_ne!(reader.verdict(end), Verdict::Done, "{} {end:?}", recording.case);
        }
    }
}

/// What a person does in a recording: an answer to each question, and what they say besides.
fn play(recording: &Recording) -> String {
    let resumed = recording.case == "resumed";
    let session = recording.lines.iter().find_map(|line| {
        let value: Value = serde_json::from_str(line).unwrap();
        value["result"]["thread"]["id"].as_str().map(ToOwned::to_owned)
    });
    let mut talk = conversation(session.as_deref().filter(|_| resumed));
    let no = |interrupt| Reply::Deny { why: String::new(), interrupt };
    let mut questions = 0;
    let mut shown = String::new();
    let mut show = |sign: &str, step: &Step| {
        let text = match step {
            Step::Send(line) => format!("send {line}"),
            Step::Ask(asked) => {
                let action = &asked.action;
                format!(
                    "ask {} {} {}: {} {:?} {:?} {:?}",
                    asked.id,
                    action.kind.as_str(),
                    action.tool,
                    action.title,
                    action.commands,
                    action.paths,
                    action.hosts
                )
            }
            other => format!("{other:?}"),
        };
        writeln!(shown, "{sign} {text}").unwrap();
    };
    for step in talk.begin() {
        show(">", &step);
    }
    for line in &recording.lines {
        for step in talk.line(line) {
            show("<", &step);
            let Step::Ask(asked) = step else { continue };
            questions += 1;
            let steps = match (recording.case.as_str(), questions) {
                ("denied", _) | ("denied-in-part", 1) => talk.answer(&asked.id, &no(false)),
                ("cancelled", _) => talk.answer(&asked.id, &no(true)),
                ("interrupted", 1) => {
                    let mut steps = talk.interrupt().unwrap();
                    steps.extend(talk.interrupt().unwrap());
                    steps.extend(talk.say("Then do this.").unwrap());
                    steps
                }
                ("steered", 1) => {
                    let mut steps = talk.say("Do this instead.").unwrap();
                    steps.extend(talk.answer(&asked.id, &Reply::Allow));
                    steps
                }
                _ => talk.answer(&asked.id, &Reply::Allow),
            };
            for step in steps {
                show(">", &step);
            }
        }
    }
    shown
}

#[test]
fn a_conversation_says_what_the_real_one_was_told() {
    for recording in recordings() {
        let shown = play(&recording);
        assert!(!shown.contains("Broken") && !shown.contains("Refused"), "{}: {shown}", recording.case);
        assert!(shown.trim_end().ends_with("< TurnEnded"), "{}: {shown}", recording.case);
        insta::assert_snapshot!(format!("codex-attended__talk__{}", recording.case), shown);
    }
}

// ---------------------------------------------------------------------------------------------------------------------

/// An app server that says what a test wants.
struct Talk {
    talk: Box<dyn Conversation>,
}

impl Talk {
    /// A conversation whose first turn runs.
    fn running() -> Self {
        let mut talk = Self::opened();
        assert_eq!(talk.line(&json!({"id": 3, "result": {"turn": {"id": "turn-1"}}})), []);
        talk
    }

    /// A conversation that asked for its first turn.
    fn opened() -> Self {
        let mut talk = Self { talk: conversation(None) };
        assert_eq!(talk.talk.begin().len(), 1);
        let sent = sent(&talk.line(&json!({"id": 1, "result": {"userAgent": "x"}})));
        assert_eq!(sent[0], json!({"method": "initialized"}));
        assert_eq!(sent[1]["method"], "thread/start");
        let sent = self::sent(&talk.line(&thread("untrusted")));
        assert_eq!((&sent[0]["id"], &sent[0]["method"]), (&json!(3), &json!("turn/start")));
        talk
    }

    fn line(&mut self, message: &Value) -> Vec<Step> {
        self.talk.line(&message.to_string())
    }

    /// It asks; the id of the question.
    fn asks(&mut self, message: &Value) -> String {
        match &self.line(message)[..] {
            [Step::Ask(asked)] => asked.id.clone(),
            other => panic!("{message}: {other:?}"),
        }
    }
}

fn thread(policy: &str) -> Value {
    json!({"id": 2, "result": {"thread": {"id": "thread-1"}, "approvalPolicy": policy, "approvalsReviewer": "user"}})
}

fn command(id: impl Into<Value>, command: &str) -> Value {
    json!({"method": COMMAND, "id": id.into(), "params": {
        "kind": "command", "threadId": "thread-1", "turnId": "turn-1", "itemId": "call-1", "command": command, "cwd": "/work"
    }})
}

fn begun(item: &str, changes: Value) -> Value {
    json!({"method": "item/started", "params": {"threadId": "thread-1", "turnId": "turn-1",
        "item": {"type": "fileChange", "id": item, "changes": changes, "status": "inProgress"}}})
}

fn change(id: impl Into<Value>, item: &str) -> Value {
    json!({"method": CHANGE, "id": id.into(), "params": {
        "threadId": "thread-1", "turnId": "turn-1", "itemId": item, "reason": null, "grantRoot": null
    }})
}

fn completed(turn: &str) -> Value {
    json!({"method": "turn/completed", "params": {"threadId": "thread-1", "turn": {"id": turn, "status": "completed"}}})
}

fn sent(steps: &[Step]) -> Vec<Value> {
    steps
        .iter()
        .filter_map(|step| match step {
            Step::Send(line) => {
                assert!(!line.contains('\n'));
                Some(serde_json::from_str(line).unwrap())
            }
            _ => None,
        })
        .collect()
}

fn decision(id: impl Into<Value>, decision: &str) -> Value {
    json!({"id": id.into(), "result": {"decision": decision}})
}

fn is_declined(steps: &[Step], id: impl Into<Value>) -> bool {
    sent(steps) == [decision(id, "decline")]
        && steps.iter().any(|step| matches!(step, Step::Refused { why, .. } if !why.is_empty()))
}

fn deny(why: &str, interrupt: bool) -> Reply {
    Reply::Deny { why: why.to_owned(), interrupt }
}

#[test]
fn an_attended_one_is_started_so_that_it_asks() {
    let made = codex().invocation(&request(None)).unwrap();
    assert_eq!(made.argv, ["codex", "app-server"]);
    let config: toml::Table = made.home[0].content.parse().unwrap();
    assert_eq!(made.home.len(), 1);
    assert_eq!(config["sandbox_mode"].as_str(), Some("danger-full-access"));
    assert_eq!(config["projects"]["/work"]["trust_level"].as_str(), Some("untrusted"));
    for feature in ["plugins", "apps", "goals", "unified_exec_tty"] {
        assert_eq!(config["features"][feature].as_bool(), Some(false), "{feature}");
    }
    assert!(config["developer_instructions"].as_str().unwrap().contains("A person watches"));
    assert_eq!(codex().session_folders(), [".codex/sessions"]);
    // The rest is as for one that nobody attends.
    let alone = codex().invocation(&EngineRequest { attended: false, ..request(None) }).unwrap();
    let of_alone: toml::Table = alone.home[1].content.parse().unwrap();
    assert_eq!(config["model_providers"], of_alone["model_providers"]);
    assert!(alone.argv.contains(&"exec".to_owned()) && of_alone.get("projects").is_none());
}

#[test]
fn a_question_is_answered_once_with_yes_or_no() {
    let mut talk = Talk::running();
    let question = talk.asks(&command(0, "/bin/bash -lc 'make test'"));
    assert_eq!(sent(&talk.talk.answer(&question, &Reply::Allow)), [decision(0, "accept")]);
    for reply in [Reply::Allow, deny("no", false), deny("no", true)] {
        assert_eq!(talk.talk.answer(&question, &reply), [], "it was answered");
    }
    for unknown in ["", "0", "1", "1:1", "2:0"] {
        assert_eq!(talk.talk.answer(unknown, &Reply::Allow), [], "{unknown}");
    }
    let question = talk.asks(&command("a", "rm -rf build"));
    assert_eq!(sent(&talk.talk.answer(&question, &deny("", false))), [decision("a", "decline")]);
    let question = talk.asks(&command(-7, "rm -rf build"));
    assert_eq!(sent(&talk.talk.answer(&question, &deny("stop it", true))), [decision(-7, "cancel")]);
}

#[test]
fn a_no_is_explained_in_the_turn() {
    let mut talk = Talk::running();
    let question = talk.asks(&command(0, "rm -rf build"));
    let sent = sent(&talk.talk.answer(&question, &deny("the build folder is needed", false)));
    assert_eq!(sent[0], decision(0, "decline"));
    assert_eq!(
        (&sent[1]["method"], &sent[1]["params"]["expectedTurnId"]),
        (&json!("turn/steer"), &json!("turn-1"))
    );
    assert!(sent[1]["params"]["input"][0]["text"].as_str().unwrap().contains("the build folder is needed"));
    // An explanation that comes too late is no reason for another turn.
    assert_eq!(talk.line(&completed("turn-1")), [Step::TurnEnded]);
    assert_eq!(talk.line(&json!({"id": 4, "error": {"code": -32600, "message": "no active turn"}})), []);
}

#[test]
fn an_action_is_what_was_asked_for() {
    let mut talk = Talk::running();
    let [Step::Ask(asked)] = &talk.line(&command(0, "/bin/bash -lc 'echo \"hi\" > x'"))[..] else { panic!() };
    let action = &asked.action;
    assert_eq!((action.kind, action.tool.as_str()), (ActionKind::Execute, "command_execution"));
    assert_eq!(action.commands, ["echo \"hi\" > x"]);
    assert_eq!(action.input["command"], "/bin/bash -lc 'echo \"hi\" > x'");

    assert_eq!(talk.line(&begun("call-2", json!([
        {"path": "/work/a.txt", "kind": {"type": "update", "move_path": "/work/b.txt"}, "diff": "@@\n-a\n+b\n"},
        {"path": "/etc/passwd", "kind": {"type": "add"}, "diff": "x\n"},
    ]))), []);
    let [Step::Ask(asked)] = &talk.line(&change(1, "call-2"))[..] else { panic!() };
    assert_eq!(asked.action.kind, ActionKind::Edit);
    assert_eq!(asked.action.paths, ["/work/a.txt", "/work/b.txt", "/etc/passwd"]);
    assert_eq!(asked.action.input["changes"][1]["diff"], "x\n");

    // What it told last is what it asks about.
    talk.line(&json!({"method": "item/fileChange/patchUpdated", "params": {"itemId": "call-2",
        "changes": [{"path": "/work/c.txt", "kind": {"type": "delete"}, "diff": ""}]}}));
    let [Step::Ask(asked)] = &talk.line(&change(2, "call-2"))[..] else { panic!() };
    assert_eq!(asked.action.paths, ["/work/c.txt"]);

    let network = json!({"method": COMMAND, "id": 3, "params": {"kind": "command", "turnId": "turn-1", "command": null,
        "networkApprovalContext": {"host": "example.org", "protocol": "https"}}});
    let [Step::Ask(asked)] = &talk.line(&network)[..] else { panic!() };
    assert_eq!(
        (asked.action.kind, &asked.action.hosts[..]),
        (ActionKind::Fetch, &["example.org".to_owned()][..])
    );
}

#[test]
fn what_cannot_be_read_is_refused_and_nobody_is_asked() {
    let mut talk = Talk::running();
    talk.line(&begun("pathless", json!([{"kind": {"type": "add"}, "diff": "x"}])));
    talk.line(&begun("empty", json!([])));
    talk.line(&begun("strange", json!({"path": "/work/a"})));
    talk.line(&begun("moved", json!([{"path": "/work/a", "kind": {"type": "update", "move_path": 7}}])));
    talk.line(&begun(
        "many",
        (0..300).map(|n| json!({"path": format!("/work/{n}"), "kind": {"type": "add"}})).collect(),
    ));
    talk.line(&begun("long", json!([{"path": "x".repeat(5000), "kind": {"type": "add"}}])));
    talk.line(&begun(
        "huge",
        json!([{"path": "/work/a", "kind": {"type": "add"}, "diff": "x".repeat(2 << 20)}]),
    ));
    talk.line(&begun("good", json!([{"path": "/work/a", "kind": {"type": "add"}, "diff": "x"}])));
    for item in ["pathless", "empty", "strange", "moved", "many", "long", "huge", "never told of", ""] {
        assert!(is_declined(&talk.line(&change(7, item)), 7), "{item}");
    }
    let mut root = change(7, "good");
    root["params"]["grantRoot"] = json!("/work");
    assert!(is_declined(&talk.line(&root), 7), "a yes for a whole folder");
    for params in [
        json!(null),
        json!([]),
        json!({}),
        json!({"command": 7}),
        json!({"command": ["ls"]}),
        json!({"command": " "}),
        json!({"kind": "writeStdin", "command": "bash"}),
        json!({"kind": "telepathy", "command": "ls"}),
        json!({"command": "x".repeat(2 << 20)}),
        json!({"command": "ls", "reason": "x".repeat(2 << 20)}),
        json!({"command": "ls", "cwd": format!("/{}", "x".repeat(5000))}),
        json!({"networkApprovalContext": {"host": "x".repeat(5000)}}),
    ] {
        let steps = talk.line(&json!({"method": COMMAND, "id": "q", "params": params}));
        assert!(is_declined(&steps, "q"), "{}", params.to_string().chars().take(80).collect::<String>());
    }
    // A change that ended can't be asked about any more.
    talk.line(&json!({"method": "item/completed", "params": {"item": {"type": "fileChange", "id": "good"}}}));
    assert!(is_declined(&talk.line(&change(7, "good")), 7));
    // No answer could name these.
    for id in [json!(null), json!(1.5), json!([1]), json!({}), json!(true), json!("x".repeat(300))] {
        assert!(is_declined(&talk.line(&command(id.clone(), "ls")), id));
    }
}

#[test]
fn two_questions_under_one_id_are_both_refused() {
    let mut talk = Talk::running();
    let first = talk.asks(&command(0, "ls"));
    let steps = talk.line(&command(0, "rm -rf /"));
    assert!(is_declined(&steps, 0) && steps.contains(&Step::Withdrawn { id: first.clone() }), "{steps:?}");
    assert_eq!(talk.talk.answer(&first, &Reply::Allow), []);
    // A number and a text are two ids, and an id that was answered may come again: as another question.
    let (number, text) = (talk.asks(&command(0, "ls")), talk.asks(&command("0", "ls")));
    assert_ne!(number, text);
    assert_eq!(sent(&talk.talk.answer(&text, &Reply::Allow)), [decision("0", "accept")]);
    assert_eq!(sent(&talk.talk.answer(&number, &deny("", false))), [decision(0, "decline")]);
    assert_ne!(talk.asks(&command(0, "ls")), number);
}

#[test]
fn a_question_is_withdrawn_with_its_turn_or_by_the_server() {
    let mut talk = Talk::running();
    let (first, second) = (talk.asks(&command(0, "ls")), talk.asks(&command(1, "ls")));
    let resolved = |id: Value| json!({"method": "serverRequest/resolved", "params": {"requestId": id}});
    assert_eq!(talk.line(&resolved(json!("0"))), []);
    assert_eq!(talk.line(&resolved(json!(0))), [Step::Withdrawn { id: first.clone() }]);
    assert_eq!(talk.line(&resolved(json!(0))), []);
    assert_eq!(talk.line(&completed("turn-1")), [Step::Withdrawn { id: second.clone() }, Step::TurnEnded]);
    for id in [first, second] {
        assert_eq!(talk.talk.answer(&id, &Reply::Allow), []);
    }
    assert_eq!(talk.line(&completed("turn-1")), []);
}

#[test]
fn nothing_is_done_for_it_outside_of_its_sandbox() {
    let mut talk = Talk::running();
    for (method, is_refused) in [
        ("fs/writeFile", true),
        ("fs/readFile", true),
        ("terminal/create", true),
        ("process/spawn", true),
        ("command/exec", true),
        ("item/permissions/requestApproval", true),
        ("execCommandApproval", true),
        ("applyPatchApproval", true),
        ("account/chatgptAuthTokens/refresh", true),
        ("item/tool/requestUserInput", false),
        ("item/tool/call", false),
        ("mcpServer/elicitation/request", false),
        ("attestation/generate", false),
        ("telepathy", false),
    ] {
        let steps = talk
            .line(&json!({"method": method, "id": 5, "params": {"path": "/etc/passwd", "command": "ls"}}));
        let sent = sent(&steps);
        assert_eq!(
            (sent.len(), &sent[0]["id"], &sent[0]["error"]["code"]),
            (1, &json!(5), &json!(-32601)),
            "{method}"
        );
        assert!(sent[0].get("result").is_none());
        assert_eq!(steps.iter().any(|step| matches!(step, Step::Refused { .. })), is_refused, "{method}");
        assert_eq!(steps.len(), 1 + usize::from(is_refused));
    }
}

#[test]
fn it_is_not_spoken_with_when_it_would_not_ask() {
    let opened = |answer: &Value| {
        let mut talk = Talk { talk: conversation(None) };
        talk.talk.begin();
        talk.line(&json!({"id": 1, "result": {}}));
        let steps = talk.line(answer);
        assert!(matches!(&steps[..], [Step::Broken(why)] if !why.is_empty()), "{steps:?}");
        assert_eq!(talk.line(&command(0, "ls")), []);
        assert!(talk.talk.say("hello").is_err() && talk.talk.interrupt().is_err());
    };
    for policy in ["never", "on-request", "on-failure", ""] {
        opened(&thread(policy));
    }
    let mut other = thread("untrusted");
    other["result"]["approvalsReviewer"] = json!("auto_review");
    opened(&other);
    opened(&json!({"id": 2, "result": {"approvalPolicy": {"granular": {}}, "thread": {"id": "t"}}}));
    opened(&json!({"id": 2, "result": {"approvalPolicy": "untrusted", "thread": {}}}));
    opened(&json!({"id": 2, "result": {}}));
    opened(&json!({"id": 2, "error": {"code": 1, "message": "no"}}));
    opened(&json!({"id": 2}));
}

#[test]
fn it_is_not_spoken_with_when_it_stops_asking() {
    let settings = |thread: &str, policy: Value| json!({"method": "thread/settings/updated", "params": {"threadId": thread, "threadSettings": {"approvalPolicy": policy}}});
    let mut talk = Talk::running();
    assert_eq!(talk.line(&settings("thread-1", json!("untrusted"))), []);
    assert_eq!(talk.line(&settings("thread-2", json!("never"))), []);
    let question = talk.asks(&command(0, "ls"));
    for policy in [json!("never"), json!({"granular": {}}), json!(null)] {
        let mut talk = Talk::running();
        assert!(matches!(&talk.line(&settings("thread-1", policy))[..], [Step::Broken(_)]));
    }
    assert!(matches!(&talk.line(&settings("thread-1", json!("never")))[..], [Step::Broken(_)]));
    assert_eq!(talk.talk.answer(&question, &Reply::Allow), []);
}

#[test]
fn a_session_is_continued_by_its_id() {
    let mut talk = Talk { talk: conversation(Some("01a2029a-23f1")) };
    talk.talk.begin();
    let sent = sent(&talk.line(&json!({"id": 1, "result": {}})));
    assert_eq!(sent[1]["method"], "thread/resume");
    assert_eq!(sent[1]["params"]["threadId"], "01a2029a-23f1");
    assert_eq!(sent[1]["params"]["approvalPolicy"], "untrusted");
    let steps = talk.line(&json!({"id": 2, "error": {"message": "no rollout found"}}));
    assert!(matches!(&steps[..], [Step::Broken(why)] if why.contains("no rollout found")), "{steps:?}");

    let alone = |resume| codex().invocation(&EngineRequest { attended: false, ..request(resume) });
    let argv = alone(Some("01a2029a-23f1")).unwrap().argv;
    assert!(
        argv.ends_with(&["--color=never", "resume", "01a2029a-23f1", "-"].map(ToOwned::to_owned)),
        "{argv:?}"
    );
    for hostile in ["", "-", "--last", "--config=x", "a b", "a\"b", "../a", "a\nb", &"a".repeat(200)] {
        assert_eq!(alone(Some(hostile)).unwrap_err().code(), "session-not-resumable", "{hostile}");
        assert!(codex().conversation(&request(Some(hostile))).is_err(), "{hostile}");
        assert!(codex().invocation(&request(Some(hostile))).is_err(), "{hostile}");
    }
}

#[test]
fn what_is_said_reaches_it_in_the_turn_or_in_the_next() {
    // Before it is there: with the prompt.
    let mut early = Talk { talk: conversation(None) };
    assert_eq!(early.talk.say("Early.").unwrap(), []);
    early.talk.begin();
    early.line(&json!({"id": 1, "result": {}}));
    let first = sent(&early.line(&thread("untrusted")));
    assert_eq!(
        first[0]["params"]["input"],
        json!([{"type": "text", "text": "Please do it."}, {"type": "text", "text": "Early."}])
    );

    // While a turn begins: as soon as it has a name.
    let mut talk = Talk::opened();
    assert_eq!(talk.talk.say("Soon.").unwrap(), []);
    let steer = sent(&talk.line(
        &json!({"method": "turn/started", "params": {"threadId": "thread-1", "turn": {"id": "turn-1"}}}),
    ));
    assert_eq!(
        (&steer[0]["method"], &steer[0]["params"]["input"][0]["text"]),
        (&json!("turn/steer"), &json!("Soon."))
    );
    assert_eq!(talk.line(&json!({"id": 3, "result": {"turn": {"id": "turn-1"}}})), []);
    // The turn is over before it says whether it took it. It did not: the next turn begins with it.
    assert_eq!(talk.line(&completed("turn-1")), []);
    assert_eq!(talk.talk.say("And this.").unwrap(), []);
    let next = sent(&talk.line(&json!({"id": 4, "error": {"message": "no active turn to steer"}})));
    assert_eq!(next[0]["method"], "turn/start");
    let texts: Vec<&str> = next[0]["params"]["input"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["And this.", "Soon."]);
    talk.line(&json!({"id": 5, "result": {"turn": {"id": "turn-2"}}}));
    assert_eq!(talk.line(&completed("turn-2")), [Step::TurnEnded]);

    // When it rests: at once.
    let next = sent(&talk.talk.say("Go on.").unwrap());
    assert_eq!((&next[0]["method"], &next[0]["id"]), (&json!("turn/start"), &json!(6)));
    // It does not take it: it rests again, and the reader tells why.
    assert_eq!(talk.line(&json!({"id": 6, "error": {"message": "too long"}})), [Step::TurnEnded]);

    // It took it: its turn ends when it says so.
    let mut talk = Talk::running();
    assert_eq!(sent(&talk.talk.say("Now.").unwrap())[0]["method"], "turn/steer");
    assert_eq!(talk.line(&json!({"id": 4, "result": {"turnId": "turn-1"}})), []);
    assert_eq!(talk.line(&completed("turn-1")), [Step::TurnEnded]);
}

#[test]
fn a_turn_is_ended_once_and_what_is_said_then_begins_the_next() {
    let mut talk = Talk::opened();
    assert_eq!(talk.talk.interrupt().unwrap(), [], "it has no name yet");
    let sent = sent(&talk.line(&json!({"id": 3, "result": {"turn": {"id": "turn-1"}}})));
    assert_eq!(
        (&sent[0]["method"], &sent[0]["params"]["turnId"]),
        (&json!("turn/interrupt"), &json!("turn-1"))
    );
    assert_eq!(talk.talk.interrupt().unwrap(), []);
    assert_eq!(talk.talk.say("Something else.").unwrap(), []);
    assert_eq!(talk.line(&json!({"id": 4, "result": {}})), []);
    let next = self::sent(&talk.line(&completed("turn-1")));
    assert_eq!(
        (&next[0]["method"], &next[0]["params"]["input"][0]["text"]),
        (&json!("turn/start"), &json!("Something else."))
    );
    talk.line(&json!({"id": 5, "result": {"turn": {"id": "turn-2"}}}));
    assert_eq!(talk.line(&completed("turn-2")), [Step::TurnEnded]);
    assert!(talk.talk.interrupt().is_err(), "there is no turn");
}

#[test]
fn the_turns_of_others_are_not_its_own() {
    let mut talk = Talk::running();
    for message in [
        json!({"method": "turn/completed", "params": {"threadId": "thread-2", "turn": {"id": "turn-1"}}}),
        json!({"method": "turn/completed", "params": {"turn": {"id": "turn-1"}}}),
        json!({"method": "turn/completed", "params": {"threadId": "thread-1", "turn": {"id": "turn-0"}}}),
        json!({"method": "turn/completed", "params": {"threadId": "thread-1"}}),
        json!({"method": "turn/completed"}),
        json!({"method": "thread/closed", "params": {"threadId": "thread-1"}}),
        json!({"id": 99, "result": {}}),
        json!({"id": 3, "result": {"turn": {"id": "turn-9"}}}),
        json!({"id": "3", "error": {"message": "x"}}),
        json!({"method": 7, "id": 1, "params": {}}),
        json!({}),
        json!([]),
        json!("turn/completed"),
    ] {
        assert_eq!(talk.line(&message), [], "{message}");
    }
    assert_eq!(talk.line(&completed("turn-1")), [Step::TurnEnded]);
}

#[test]
fn what_is_no_json_or_half_of_it_is_passed_over() {
    for recording in recordings() {
        let mut talk = Talk { talk: conversation(None) };
        talk.talk.begin();
        for line in &recording.lines {
            for end in (0..line.len()).step_by(7).filter(|end| line.is_char_boundary(*end)) {
                assert_eq!(talk.talk.line(&line[..end]), [], "{}", &line[..end]);
            }
        }
    }
    let mut talk = Talk::running();
    let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let huge = command(0, &"x".repeat(5 << 20)).to_string();
    for line in [deep.as_str(), &huge, "", "\u{0}", "WARNING: {\"id\":1}", "{\"id\":1}{\"id\":2}"] {
        assert_eq!(talk.talk.line(line), []);
    }
}

#[test]
fn a_flood_is_bounded() {
    let mut talk = Talk::running();
    // Changes: the oldest are forgotten, and what is forgotten is refused.
    for count in 0..5_000 {
        talk.line(&begun(
            &format!("call-{count}"),
            json!([{"path": "/work/a", "kind": {"type": "add"}, "diff": "x"}]),
        ));
    }
    assert!(is_declined(&talk.line(&change(1, "call-1")), 1));
    let newest = talk.asks(&change(1, "call-4999"));
    assert_eq!(sent(&talk.talk.answer(&newest, &Reply::Allow)), [decision(1, "accept")]);
    for count in 0..12 {
        talk.line(&begun(&format!("big-{count}"), json!([{"path": "/work/a", "diff": "x".repeat(2 << 20)}])));
    }
    assert!(is_declined(&talk.line(&change(1, "call-4999")), 1), "many bytes push out many items");
    // Questions: the first of them wait, all others are answered with no.
    let asked: usize = (0..5_000)
        .filter(|count| match &talk.line(&command(*count, "ls"))[..] {
            [Step::Ask(_)] => true,
            steps => {
                assert!(is_declined(steps, *count));
                false
            }
        })
        .count();
    assert_eq!(asked, 64);
    // What a person says: an end of patience.
    let taken = (0..5_000).take_while(|_| talk.talk.say("hello").is_ok()).count();
    assert!((1..=256).contains(&taken), "{taken}");

    let mut reader = codex().attended_reader().unwrap();
    for count in 0..20_000 {
        reader.line(
            &json!({"method": "item/started", "params": {"item":
            {"type": "commandExecution", "id": format!("c{count}"), "command": "ls"}}})
            .to_string(),
        );
    }
    let ended = reader.line(&completed("turn-1").to_string());
    assert!(ended.len() <= 4098, "{}", ended.len());
}

#[test]
fn the_tokens_of_a_turn_are_counted_once() {
    let mut reader = codex().attended_reader().unwrap();
    let mut used = |total: u64, last: u64| {
        let tokens = |count: u64| json!({"inputTokens": count, "cachedInputTokens": 10, "outputTokens": 5});
        reader.line(
            &json!({"method": "thread/tokenUsage/updated", "params": {"tokenUsage":
            {"total": tokens(total), "last": tokens(last)}}})
            .to_string(),
        );
        reader.line(&completed("t").to_string()).iter().find_map(|event| {
            if let AgentEvent::Usage { usage, .. } = event { Some(usage.input) } else { None }
        })
    };
    // A session that is continued has used 900 before.
    assert_eq!(used(1000, 100), Some(90 - 10 + 10));
    assert_eq!(used(1300, 300), Some(300));
    assert_eq!(used(1300, 300), None, "told twice, counted once");
    assert_eq!(used(100, 100), None, "less than before is nothing");
}

#[test]
fn what_is_unknown_is_kept_as_it_came() {
    for unknown in [
        json!({"method": "telepathy", "params": {"thought": 1}}),
        json!({"method": "item/started", "params": {"item": {"type": "dream", "id": "1"}}}),
        json!({"method": "turn/plan/updated", "params": {"plan": [{"step": "a"}]}}),
        json!({"method": "turn/completed", "params": {"turn": 7}}),
        json!({"method": 7}),
        json!({"id": 1, "result": {"dream": 1}}),
        json!({"id": 1}),
        json!({"type": "turn.completed"}),
        json!({}),
    ] {
        let events = codex().attended_reader().unwrap().line(&unknown.to_string());
        assert_eq!(events, [AgentEvent::Raw { value: unknown }]);
    }
    let mut reader = codex().attended_reader().unwrap();
    let ask = json!({"method": "item/tool/requestUserInput", "id": 1, "params": {"questions": [{"question": "Which one?"}]}});
    assert_eq!(reader.line(&ask.to_string()), [AgentEvent::Question { text: "Which one?".into() }]);
}

// ---------------------------------------------------------------------------------------------------------------------

/// Words that the conversation looks for, so that arbitrary JSON is not all unknown.
fn word() -> impl Strategy<Value = String> {
    prop::sample::select(
        "id method params result error message thread turn turnId threadId thread-1 turn-1 itemId call-1 item type \
         fileChange commandExecution changes path kind move_path diff command cwd /work requestId grantRoot status \
         completed declined interrupted failed untrusted never approvalPolicy approvalsReviewer user host \
         networkApprovalContext item/started item/completed turn/started turn/completed serverRequest/resolved \
         item/commandExecution/requestApproval item/fileChange/requestApproval item/fileChange/patchUpdated \
         thread/tokenUsage/updated tokenUsage total last inputTokens fs/readFile decision accept"
            .split_whitespace()
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>(),
    )
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => word().prop_map(Value::from),
        2 => (0_u64..6).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => ".{0,12}".prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(5, 48, 8, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            4 => prop::collection::vec((word(), inner), 0..8)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// A line of a recording with one place replaced by something else.
fn bent_line() -> impl Strategy<Value = String> {
    let lines: Vec<Value> = recordings()
        .iter()
        .flat_map(|recording| {
            recording.lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()
        })
        .collect();
    (prop::sample::select(lines), value(), any::<prop::sample::Index>()).prop_map(
        |(mut line, other, place)| {
            let mut places = 0;
            visit(&mut line, &mut |_| places += 1);
            let (chosen, mut at) = (place.index(places), 0);
            visit(&mut line, &mut |value| {
                if at == chosen {
                    *value = other.clone();
                }
                at += 1;
            });
            line.to_string()
        },
    )
}

fn visit(value: &mut Value, visitor: &mut impl FnMut(&mut Value)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, visitor)),
        Value::Object(pairs) => pairs.values_mut().for_each(|item| visit(item, visitor)),
        _ => {}
    }
    visitor(value);
}

#[derive(Debug, Clone)]
enum Move {
    Line(String),
    Allow(prop::sample::Index),
    Deny(prop::sample::Index, bool),
    Say,
    Interrupt,
}

fn a_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => bent_line().prop_map(Move::Line),
        2 => value().prop_map(|value| Move::Line(value.to_string())),
        1 => (0_u64..4, ".{0,6}").prop_map(|(id, text)| Move::Line(command(id, &text).to_string())),
        1 => any::<Vec<u8>>().prop_map(|bytes| Move::Line(String::from_utf8_lossy(&bytes).into_owned())),
        1 => any::<prop::sample::Index>().prop_map(Move::Allow),
        1 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(at, interrupt)| Move::Deny(at, interrupt)),
        1 => Just(Move::Say),
        1 => Just(Move::Interrupt),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever comes: no panic, and a yes is sent exactly where a person said yes to an open question.
    #[test]
    fn a_yes_is_never_sent_without_a_yes(running in any::<bool>(), moves in prop::collection::vec(a_move(), 0..24)) {
        let mut talk = if running { Talk::running().talk } else { conversation(None) };
        let mut reader = codex().attended_reader().unwrap();
        let mut open: BTreeMap<String, Value> = BTreeMap::new();
        let mut asked = Vec::new();
        talk.begin();
        for one in moves {
            let mut allowed = None;
            let steps = match &one {
                Move::Line(line) => {
                    let events = reader.line(line);
                    let size: usize = events.iter().map(|event| serde_json::to_string(event).unwrap().len()).sum();
                    prop_assert!(size <= 8192 + 24 * line.len(), "{line}");
                    let steps = talk.line(line);
                    prop_assert!(steps.len() <= 2 + open.len() + 64);
                    steps
                }
                Move::Allow(at) if !asked.is_empty() => {
                    let id: &String = &asked[at.index(asked.len())];
                    allowed = open.remove(id);
                    talk.answer(id, &Reply::Allow)
                }
                Move::Deny(at, interrupt) if !asked.is_empty() => {
                    let id: &String = &asked[at.index(asked.len())];
                    open.remove(id);
                    talk.answer(id, &deny("no", *interrupt))
                }
                Move::Say => talk.say("hello").unwrap_or_default(),
                Move::Interrupt => talk.interrupt().unwrap_or_default(),
                _ => Vec::new(),
            };
            let yes: Vec<Value> = sent(&steps).into_iter().filter(|line| line["result"]["decision"] == "accept").collect();
            match &allowed {
                Some(_) => prop_assert_eq!(yes.len(), 1),
                None => prop_assert!(yes.is_empty(), "{:?}", yes),
            }
            for step in steps {
                match step {
                    Step::Ask(question) => {
                        prop_assert!(!asked.contains(&question.id), "an id is there once");
                        asked.push(question.id.clone());
                        open.insert(question.id, question.action.input);
                    }
                    Step::Withdrawn { id } => {
                        prop_assert!(open.remove(&id).is_some());
                    }
                    Step::Broken(_) => open.clear(),
                    _ => {}
                }
            }
        }
    }
}

//! The Agent Client Protocol: what we say to real agents (recorded from the pinned versions against a scripted model),
//! what we read in what they say, and what no agent gets out of us.
//!
//! `transcripts/acp/<agent>-<case>.jsonl` are the lines of the agent. Lists of no interest are cut; ids of our requests
//! are those that we use.

use proptest::prelude::*;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use tipstaff_engine::{
    Asked, Conversation, Engine, EngineRequest, ProcessEnd, Reply, SessionReader, Step, Verdict, engine,
};
use tipstaff_model::{ActionKind, AgentEvent, EngineKind};

fn request(prompt: &str) -> EngineRequest<'_> {
    EngineRequest {
        command: &[],
        prompt: Some(prompt),
        model: None,
        provider: None,
        instructions: "",
        broker: "http://127.0.0.1:8080",
        home: "/home/agent",
        may_write: true,
        attended: true,
        keeps_session: false,
        resume: None,
    }
}

fn gemini() -> &'static dyn Engine {
    engine(EngineKind::Gemini)
}

fn talk() -> Box<dyn Conversation> {
    gemini().conversation(&request("Fix the typo.")).unwrap().unwrap()
}

fn reader() -> Box<dyn SessionReader> {
    gemini().attended_reader().unwrap()
}

fn recordings() -> Vec<(String, Vec<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts/acp");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let lines = std::fs::read_to_string(path).unwrap().lines().map(ToOwned::to_owned).collect();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), lines)
        })
        .collect()
}

/// What we say to these lines, when every question gets this answer.
fn played(lines: &[String], reply: &Reply) -> (Vec<Step>, Vec<Asked>) {
    let mut talk = talk();
    let (mut steps, mut asked) = (talk.begin(), Vec::new());
    for line in lines {
        let more = talk.line(line);
        for step in more {
            if let Step::Ask(question) = &step {
                let answer = talk.answer(&question.id, reply);
                asked.push(question.clone());
                steps.push(step);
                steps.extend(answer);
            } else {
                steps.push(step);
            }
        }
    }
    (steps, asked)
}

fn reply_of(case: &str) -> Reply {
    if case.ends_with("rejected") {
        Reply::Deny { why: "not this".to_owned(), interrupt: false }
    } else {
        Reply::Allow
    }
}

fn read(lines: &[String]) -> (Vec<AgentEvent>, Verdict) {
    let mut reader = reader();
    let events = lines.iter().flat_map(|line| reader.line(line)).collect();
    (events, reader.verdict(ProcessEnd::Exited(0)))
}

#[test]
fn what_is_said_to_the_real_agents_and_read_of_them() {
    for (case, lines) in recordings() {
        let mut shown = String::new();
        for step in played(&lines, &reply_of(&case)).0 {
            match step {
                Step::Ask(Asked { id, action }) => {
                    let action = serde_json::to_string(&action).unwrap();
                    writeln!(shown, "asks {id} {action}").unwrap();
                }
                Step::Send(line) => {
                    let line = line
                        .replace(concat!("\"version\":\"", env!("CARGO_PKG_VERSION")), "\"version\":\"ours");
                    writeln!(shown, "-> {line}").unwrap();
                }
                other => writeln!(shown, "{other:?}").unwrap(),
            }
        }
        writeln!(shown, "---").unwrap();
        let (events, verdict) = read(&lines);
        for event in &events {
            writeln!(shown, "{}", serde_json::to_string(event).unwrap()).unwrap();
        }
        write!(shown, "{verdict:?}").unwrap();
        insta::assert_snapshot!(format!("acp__{case}"), shown);
    }
}

#[test]
fn every_agent_is_recorded_with_an_allowed_and_a_denied_question() {
    for agent in ["gemini", "opencode", "qwen", "claude-agent-acp", "codex-acp"] {
        let of = |case: &str| {
            let name = format!("{agent}-{case}");
            recordings().into_iter().find(|(one, _)| *one == name).unwrap_or_else(|| panic!("no {name}"))
        };
        let (_, lines) = of("work-done");
        let (_, asked) = played(&lines, &Reply::Allow);
        let edit = asked.iter().find(|asked| asked.action.kind == ActionKind::Edit);
        let edit = &edit.unwrap_or_else(|| panic!("{agent} asks before it edits: {asked:#?}")).action;
        assert_eq!(edit.paths, ["/work/hello.txt"], "{agent}");
        assert!(edit.title.contains("hello.txt"), "{agent}: {}", edit.title);
        assert!(
            edit.input.to_string().contains("hello there"),
            "{agent}: the answer is bound to the content"
        );
        let (events, verdict) = read(&lines);
        assert_eq!(verdict, Verdict::Done, "{agent}: {events:#?}");
        assert!(matches!(events[0], AgentEvent::Started { session: Some(_), .. }), "{agent}");
        let has = |what: &dyn Fn(&AgentEvent) -> bool| events.iter().any(what);
        assert!(has(
            &|event| matches!(event, AgentEvent::FileChange { path, .. } if path == "/work/hello.txt")
        ));
        assert!(has(
            &|event| matches!(event, AgentEvent::Usage { usage, .. } if usage.input > 0 && usage.output > 0)
        ));
        assert!(has(
            &|event| matches!(event, AgentEvent::Finished { ok: true, summary: Some(said), .. } if said.ends_with("All done."))
        ));

        let (_, lines) = of("rejected");
        let no = Reply::Deny { why: "no".to_owned(), interrupt: false };
        let (steps, asked) = played(&lines, &no);
        assert!(!asked.is_empty(), "{agent}");
        assert_eq!(chosen(&steps, "once"), 0, "{agent}: {steps:#?}");
        let (events, _) = read(&lines);
        assert!(!events.iter().any(|event| matches!(event, AgentEvent::FileChange { .. })), "{agent}");
    }
}

/// How often an option was chosen whose id holds `word`, in answers to questions.
fn chosen(steps: &[Step], word: &str) -> usize {
    let sent = steps.iter().filter_map(|step| match step {
        Step::Send(line) => serde_json::from_str::<Value>(line).ok(),
        _ => None,
    });
    sent.filter(|line| line["result"]["outcome"]["optionId"].as_str().is_some_and(|id| id.contains(word)))
        .count()
}

#[test]
fn each_call_has_one_answer_and_each_answer_its_call() {
    for (case, lines) in recordings() {
        let (events, _) = read(&lines);
        let mut open = Vec::new();
        for event in &events {
            match event {
                AgentEvent::ToolCall { id, .. } => {
                    assert!(!open.contains(&id), "{case}: {id} twice");
                    open.push(id);
                }
                AgentEvent::ToolResult { id, .. } => {
                    let at = open.iter().position(|one| *one == id);
                    open.remove(at.unwrap_or_else(|| panic!("{case}: {id} was not called: {events:#?}")));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn half_a_turn_is_never_done() {
    for (case, lines) in recordings() {
        let last = lines
            .iter()
            .rposition(|line| line.contains("\"stopReason\"") || line.contains("\"id\":100,"))
            .unwrap();
        for kept in 0..last {
            let (_, verdict) = read(&lines[..kept]);
            assert!(matches!(verdict, Verdict::Failed { why: Some(_) }), "{case}: done after {kept} lines");
        }
        let mut reader = reader();
        lines.iter().for_each(|line| drop(reader.line(line)));
        assert_ne!(reader.verdict(ProcessEnd::Exited(1)), Verdict::Done, "{case}: a crash");
    }
}

// ---------------------------------------------------------------- a conversation by hand

fn sent(steps: &[Step]) -> Vec<Value> {
    steps
        .iter()
        .filter_map(|step| match step {
            Step::Send(line) => {
                assert!(!line.contains('\n'), "{line}");
                Some(serde_json::from_str(line).unwrap())
            }
            _ => None,
        })
        .collect()
}

fn tell(talk: &mut dyn Conversation, message: &Value) -> Vec<Step> {
    talk.line(&message.to_string())
}

fn answered(talk: &mut dyn Conversation, id: u64, result: &Value) -> Vec<Step> {
    tell(talk, &json!({ "jsonrpc": "2.0", "id": id, "result": result }))
}

fn greeting() -> Value {
    json!({ "protocolVersion": 1, "agentCapabilities": { "loadSession": true } })
}

/// In the middle of its first turn, the request of which has the id 100.
fn in_turn() -> Box<dyn Conversation> {
    let mut talk = talk();
    talk.begin();
    answered(talk.as_mut(), 1, &greeting());
    let steps = answered(talk.as_mut(), 2, &json!({ "sessionId": "s" }));
    assert_eq!(sent(&steps)[0]["method"], "session/prompt");
    talk
}

fn question(id: &Value, options: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "session/request_permission", "params": {
        "sessionId": "s", "options": options,
        "toolCall": { "toolCallId": "c", "kind": "execute", "title": "make", "rawInput": { "command": "make" } },
    } })
}

fn usual() -> Value {
    json!([
        { "optionId": "a", "kind": "allow_always" }, { "optionId": "y", "kind": "allow_once" },
        { "optionId": "n", "kind": "reject_once" },
    ])
}

fn ask(talk: &mut dyn Conversation, id: &Value) -> Asked {
    match &tell(talk, &question(id, &usual()))[..] {
        [Step::Ask(asked)] => asked.clone(),
        other => panic!("{other:#?}"),
    }
}

const NO: fn(bool) -> Reply = |interrupt| Reply::Deny { why: "no".to_owned(), interrupt };

#[test]
fn an_answer_is_given_once_and_never_for_ever() {
    let mut talk = in_turn();
    let asked = ask(talk.as_mut(), &json!(0));
    assert_eq!(
        (asked.action.kind, &asked.action.commands[..]),
        (ActionKind::Execute, &["make".to_owned()][..])
    );
    let steps = talk.answer(&asked.id, &Reply::Allow);
    assert_eq!(
        sent(&steps),
        [json!({ "jsonrpc": "2.0", "id": 0,
        "result": { "outcome": { "outcome": "selected", "optionId": "y" } } })]
    );
    assert_eq!(talk.answer(&asked.id, &Reply::Allow), [], "once");
    assert_eq!(talk.answer("nobody", &Reply::Allow), []);
    // The agent uses its id again: another question for us.
    let again = ask(talk.as_mut(), &json!(0));
    assert_ne!(again.id, asked.id);
    assert_eq!(chosen(&talk.answer(&again.id, &NO(false)), "n"), 1);
}

#[test]
fn where_no_option_fits_the_question_is_taken_back() {
    for options in [
        json!([{ "optionId": "a", "kind": "allow_always" }, { "optionId": "n", "kind": "reject_always" }]),
        json!([{ "optionId": 7, "kind": "allow_once" }, { "kind": "reject_once" }]),
        json!([{ "optionId": "y", "kind": "ALLOW_ONCE" }, { "optionId": "x", "kind": "allow_once_and_for_all" }]),
        json!({ "allow_once": "y" }),
        json!("allow_once"),
        json!([]),
        Value::Null,
    ] {
        for reply in [Reply::Allow, NO(false)] {
            let mut talk = in_turn();
            let Step::Ask(asked) = tell(talk.as_mut(), &question(&json!("q"), &options)).remove(0) else {
                panic!()
            };
            let steps = talk.answer(&asked.id, &reply);
            assert_eq!(
                sent(&steps)[0]["result"],
                json!({ "outcome": { "outcome": "cancelled" } }),
                "{options}"
            );
        }
    }
}

#[test]
fn nothing_is_done_for_an_agent_outside_of_its_sandbox() {
    let mut talk = in_turn();
    for (method, params, wanted) in [
        (
            "fs/write_text_file",
            json!({ "path": "/etc/passwd", "content": "x" }),
            "fs/write_text_file /etc/passwd",
        ),
        (
            "fs/read_text_file",
            json!({ "path": "/work/../etc/shadow" }),
            "fs/read_text_file /work/../etc/shadow",
        ),
        ("terminal/create", json!({ "command": "sh", "args": ["-c", "id"] }), "terminal/create sh"),
        ("terminal/output", json!({}), "terminal/output"),
        ("fs/some_new_way", json!([1]), "fs/some_new_way"),
    ] {
        let steps =
            tell(talk.as_mut(), &json!({ "jsonrpc": "2.0", "id": 9, "method": method, "params": params }));
        assert_eq!(sent(&steps)[0]["error"]["code"], -32601, "{steps:#?}");
        assert!(matches!(&steps[1], Step::Refused { wanted: told, .. } if told == wanted), "{steps:#?}");
        assert_eq!(steps.len(), 2);
    }
    let steps = tell(talk.as_mut(), &json!({ "jsonrpc": "2.0", "id": "x", "method": "craft/telepathy" }));
    assert_eq!(sent(&steps)[0]["error"]["code"], -32601);
    assert_eq!(steps.len(), 1);
    // A notification wants no answer, and gets none.
    assert_eq!(tell(talk.as_mut(), &json!({ "jsonrpc": "2.0", "method": "fs/write_text_file" })), []);
}

#[test]
fn ids_of_a_wrong_type_get_no_and_no_question() {
    let mut talk = in_turn();
    for id in [json!(null), json!(1.5), json!([0]), json!({ "id": 0 }), json!(true), json!("x".repeat(300))] {
        let steps = tell(talk.as_mut(), &question(&id, &usual()));
        assert_eq!(steps.len(), 1, "{id}");
        assert_eq!(sent(&steps)[0]["error"]["code"], -32600, "{id}");
    }
    let zero = ask(talk.as_mut(), &json!(0));
    let text = ask(talk.as_mut(), &json!("0"));
    assert_ne!(zero.id, text.id, "a number and a text are two ids");
    assert_eq!(sent(&talk.answer(&text.id, &Reply::Allow))[0]["id"], "0");
    assert_eq!(sent(&talk.answer(&zero.id, &NO(false)))[0]["id"], 0);
}

#[test]
fn two_questions_under_one_id_get_no_both() {
    let mut talk = in_turn();
    let first = ask(talk.as_mut(), &json!(5));
    let steps = tell(talk.as_mut(), &question(&json!(5), &usual()));
    assert!(steps.contains(&Step::Withdrawn { id: first.id.clone() }), "{steps:#?}");
    assert_eq!(sent(&steps)[0]["result"]["outcome"]["outcome"], "cancelled");
    assert_eq!(talk.answer(&first.id, &Reply::Allow), []);
}

#[test]
fn a_flood_of_questions_is_bounded() {
    let mut talk = in_turn();
    let (mut asked, mut told) = (0, 0);
    for id in 0..10_000 {
        for step in tell(talk.as_mut(), &question(&json!(id), &usual())) {
            match step {
                Step::Ask(_) => asked += 1,
                Step::Refused { .. } => told += 1,
                _ => {}
            }
        }
    }
    assert_eq!((asked, told), (64, 64));
    for id in 0..10_000 {
        let write =
            json!({ "jsonrpc": "2.0", "id": id, "method": "fs/write_text_file", "params": { "path": "/x" } });
        let steps = tell(talk.as_mut(), &write);
        assert_eq!(sent(&steps)[0]["error"]["code"], -32601);
        assert_eq!(steps.len(), 1, "each is refused, not each is told");
    }
}

#[test]
fn more_than_can_be_judged_is_not_asked_about() {
    let mut talk = in_turn();
    let paths: Vec<Value> = (0..300).map(|n| json!({ "path": format!("/work/{n}") })).collect();
    let call = json!({ "toolCallId": "c", "kind": "edit", "title": "Much", "locations": paths });
    for call in [call, json!("make"), json!(null), json!([])] {
        let mut one = question(&json!(1), &usual());
        one["params"]["toolCall"] = call;
        let steps = tell(talk.as_mut(), &one);
        assert_eq!(sent(&steps)[0]["result"]["outcome"]["outcome"], "cancelled");
        assert!(matches!(steps[1], Step::Refused { .. }));
    }
}

#[test]
fn what_is_said_waits_for_the_end_of_the_turn() {
    let mut talk = in_turn();
    assert_eq!(talk.say("One more.").unwrap(), []);
    assert_eq!(talk.say("And --this.").unwrap(), []);
    let steps = answered(talk.as_mut(), 100, &json!({ "stopReason": "end_turn" }));
    assert!(!steps.contains(&Step::TurnEnded), "its turn goes on with what was said");
    let prompt = &sent(&steps)[0];
    assert_eq!((&prompt["method"], &prompt["id"]), (&"session/prompt".into(), &101.into()));
    assert_eq!(
        prompt["params"]["prompt"],
        json!([
            { "type": "text", "text": "One more." }, { "type": "text", "text": "And --this." },
        ])
    );
    // The end of the first turn, told twice, is no end of this one.
    assert_eq!(answered(talk.as_mut(), 100, &json!({ "stopReason": "end_turn" })), []);
    assert_eq!(answered(talk.as_mut(), 101, &json!({ "stopReason": "end_turn" })), [Step::TurnEnded]);
    assert_eq!(sent(&talk.say("Again.").unwrap())[0]["id"], 102);
    let full = (0..70).map(|_| talk.say("x").is_err()).filter(|refused| *refused).count();
    assert_eq!(full, 6, "what waits is bounded");
}

#[test]
fn a_turn_can_be_ended_and_takes_its_questions_with_it() {
    let mut talk = in_turn();
    let asked = ask(talk.as_mut(), &json!(3));
    let steps = talk.interrupt().unwrap();
    let lines = sent(&steps);
    assert_eq!(
        lines[0],
        json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": { "sessionId": "s" } })
    );
    assert_eq!(lines[1]["result"]["outcome"]["outcome"], "cancelled");
    assert!(steps.contains(&Step::Withdrawn { id: asked.id.clone() }));
    assert_eq!(talk.answer(&asked.id, &Reply::Allow), []);
    // While it ends, nothing is allowed any more.
    let late = tell(talk.as_mut(), &question(&json!(4), &usual()));
    assert_eq!(sent(&late)[0]["result"]["outcome"]["outcome"], "cancelled");
    assert_eq!(talk.interrupt().unwrap(), []);
    assert_eq!(answered(talk.as_mut(), 100, &json!({ "stopReason": "cancelled" })), [Step::TurnEnded]);
    assert!(talk.interrupt().is_err());
    // A question outside of a turn is nobody's.
    let idle = tell(talk.as_mut(), &question(&json!(5), &usual()));
    assert_eq!(sent(&idle)[0]["result"]["outcome"]["outcome"], "cancelled");
}

#[test]
fn a_no_can_end_the_turn_too() {
    let mut talk = in_turn();
    let (first, second) = (ask(talk.as_mut(), &json!(1)), ask(talk.as_mut(), &json!(2)));
    let steps = talk.answer(&first.id, &NO(true));
    let lines = sent(&steps);
    assert_eq!(lines[0]["result"]["outcome"]["optionId"], "n");
    assert_eq!(lines[1]["method"], "session/cancel");
    assert!(steps.contains(&Step::Withdrawn { id: second.id }));
}

#[test]
fn a_question_is_withdrawn_when_the_agent_takes_it_back_or_its_turn_ends() {
    let mut talk = in_turn();
    let (first, second) = (ask(talk.as_mut(), &json!("a")), ask(talk.as_mut(), &json!("b")));
    let taken = json!({ "jsonrpc": "2.0", "method": "$/cancel_request", "params": { "requestId": "a" } });
    assert!(tell(talk.as_mut(), &taken).contains(&Step::Withdrawn { id: first.id }));
    assert_eq!(tell(talk.as_mut(), &taken), []);
    let steps = answered(talk.as_mut(), 100, &json!({ "stopReason": "end_turn" }));
    assert!(steps.contains(&Step::Withdrawn { id: second.id.clone() }) && steps.contains(&Step::TurnEnded));
    assert_eq!(talk.answer(&second.id, &Reply::Allow), []);
}

#[test]
fn the_mode_that_asks_is_chosen_and_kept() {
    let mut talk = talk();
    talk.begin();
    answered(talk.as_mut(), 1, &greeting());
    let opened = json!({ "sessionId": "s", "modes": { "currentModeId": "yolo", "availableModes": [
        { "id": "yolo", "name": "YOLO" }, { "id": "default", "name": "Default" },
    ] } });
    let steps = answered(talk.as_mut(), 2, &opened);
    let chosen = json!({ "jsonrpc": "2.0", "id": 3, "method": "session/set_mode",
        "params": { "sessionId": "s", "modeId": "default" } });
    assert_eq!(sent(&steps), [chosen], "and no prompt before it holds");
    assert_eq!(sent(&answered(talk.as_mut(), 3, &json!({})))[0]["method"], "session/prompt");
    let update = |mode: &str| {
        json!({ "jsonrpc": "2.0", "method": "session/update", "params": { "sessionId": "s",
            "update": { "sessionUpdate": "current_mode_update", "currentModeId": mode } } })
    };
    let steps = tell(talk.as_mut(), &update("yolo"));
    assert_eq!(sent(&steps)[0]["params"]["modeId"], "default");
    assert!(matches!(steps[1], Step::Refused { .. }));
    assert_eq!(tell(talk.as_mut(), &update("plan")), [], "a mode that does less is its own affair");
    let backs = (0..100).filter(|_| !tell(talk.as_mut(), &update("yolo")).is_empty()).count();
    assert_eq!(backs, 15, "bounded");
}

#[test]
fn what_cannot_be_spoken_with_is_said() {
    let broken = |messages: &[Value]| {
        let mut talk = talk();
        talk.begin();
        let steps = messages.iter().flat_map(|message| tell(talk.as_mut(), message)).collect::<Vec<_>>();
        let Some(Step::Broken(why)) = steps.last() else { panic!("{steps:#?}") };
        assert!(talk.say("x").is_err() && talk.interrupt().is_err());
        assert_eq!(answered(talk.as_mut(), 2, &json!({ "sessionId": "s" })), []);
        why.clone()
    };
    let result = |id: u64, result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result });
    let error = |id: u64, code: i64| json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": "no" } });
    assert!(broken(&[result(1, json!({ "protocolVersion": 2 }))]).contains("version 2"));
    assert!(broken(&[result(1, json!("hello"))]).contains("none that it names"));
    assert_eq!(broken(&[error(1, -1)]), "it does not begin: no");
    assert_eq!(broken(&[result(1, greeting()), error(2, -32000)]), "it opens no session: no");
    assert!(broken(&[result(1, greeting()), result(2, json!({}))]).contains("without an id"));
    let rash = json!({ "sessionId": "s", "modes": { "currentModeId": "auto", "availableModes": [{ "id": "ask", "name": "" }] } });
    assert!(broken(&[result(1, greeting()), result(2, rash), error(3, -1)]).contains("the mode that asks"));
}

#[test]
fn an_agent_that_wants_a_key_is_told_to_take_the_one_it_has() {
    let mut talk = talk();
    talk.begin();
    let mut greeting = greeting();
    greeting["authMethods"] = json!([{ "id": "browser" }, { "id": "api-key" }]);
    answered(talk.as_mut(), 1, &greeting);
    let wants = json!({ "jsonrpc": "2.0", "id": 2, "error": { "code": -32000, "message": "sign in" } });
    let steps = tell(talk.as_mut(), &wants);
    assert_eq!(
        (&sent(&steps)[0]["method"], &sent(&steps)[0]["params"]),
        (&"authenticate".into(), &json!({ "methodId": "api-key" }))
    );
    assert_eq!(sent(&answered(talk.as_mut(), 5, &json!({})))[0]["id"], 6);
    assert_eq!(
        sent(&answered(talk.as_mut(), 6, &json!({ "sessionId": "s" })))[0]["method"],
        "session/prompt"
    );
}

#[test]
fn a_session_is_continued_where_the_agent_can() {
    let mut asked = request("Go on.");
    asked.resume = Some("old");
    for (capabilities, method) in [
        (json!({ "loadSession": true }), Some("session/load")),
        (json!({ "sessionCapabilities": { "resume": {} } }), Some("session/resume")),
        (json!({ "loadSession": "yes" }), None),
    ] {
        let mut talk = gemini().conversation(&asked).unwrap().unwrap();
        talk.begin();
        let steps =
            answered(talk.as_mut(), 1, &json!({ "protocolVersion": 1, "agentCapabilities": capabilities }));
        let Some(method) = method else {
            assert!(matches!(&steps[..], [Step::Broken(why)] if why.contains("can't continue a session")));
            continue;
        };
        assert_eq!(sent(&steps)[0]["method"], method);
        assert_eq!(
            sent(&steps)[0]["params"],
            json!({ "sessionId": "old", "cwd": "/work", "mcpServers": [] })
        );
        // Another session is not what was asked for.
        let steps = answered(talk.as_mut(), 2, &json!({ "sessionId": "another" }));
        assert_eq!(sent(&steps)[0]["params"]["sessionId"], "old");
    }
    // What was said then is not said again.
    let mut reader = reader();
    let chunk = json!({ "jsonrpc": "2.0", "method": "session/update", "params": { "sessionId": "old",
        "update": { "sessionUpdate": "agent_message_chunk", "content": { "type": "text", "text": "before" } } } });
    assert_eq!(reader.line(&chunk.to_string()), []);
    let opened = json!({ "jsonrpc": "2.0", "id": 2, "result": {} });
    assert!(matches!(&reader.line(&opened.to_string())[..],
        [AgentEvent::Started { session: Some(id), .. }] if id == "old"));
    assert!(matches!(&reader.line(&chunk.to_string())[..], [AgentEvent::Text { .. }]));
}

#[test]
fn the_acp_engine_takes_any_command_and_is_always_attended() {
    let acp = engine(EngineKind::Acp);
    assert!(acp.is_agent() && acp.is_always_attended() && acp.program().is_none());
    let command = ["claude-agent-acp".to_owned(), "--flag".to_owned()];
    let mut asked = request("--not-an-option");
    (asked.command, asked.instructions) = (&command, "Prefer small steps.");
    let made = acp.invocation(&asked).unwrap();
    assert_eq!((made.argv, made.env), (command.to_vec(), Vec::new()));
    for (provider, variable, address) in [
        ("anthropic", "ANTHROPIC_BASE_URL", "http://127.0.0.1:8080/model/anthropic"),
        ("gemini", "GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:8080/model/gemini"),
        ("local", "OPENAI_BASE_URL", "http://127.0.0.1:8080/model/local/v1"),
    ] {
        (asked.provider, asked.model) = (Some(provider), Some("m-1"));
        let env = acp.invocation(&asked).unwrap().env;
        assert!(env.contains(&(variable.to_owned(), address.to_owned())), "{env:?}");
        assert!(env.iter().any(|(name, value)| name.ends_with("_MODEL") && value == "m-1"));
        let keys = env.iter().filter(|(name, _)| name.ends_with("KEY"));
        assert!(keys.clone().count() == 1 && keys.clone().all(|(_, value)| value == "tipstaff-placeholder"));
    }
    let mut talk = acp.conversation(&asked).unwrap().unwrap();
    talk.begin();
    answered(talk.as_mut(), 1, &greeting());
    let models = json!({ "sessionId": "s", "models": { "currentModelId": "m-0", "availableModels": [
        { "modelId": "m-0", "name": "0" }, { "modelId": "m-1", "name": "1" },
    ] } });
    let steps = answered(talk.as_mut(), 2, &models);
    assert_eq!(sent(&steps)[0]["params"], json!({ "sessionId": "s", "modelId": "m-1" }));
    let steps = answered(talk.as_mut(), 4, &json!({}));
    let prompt = &sent(&steps)[0]["params"]["prompt"];
    assert!(prompt[0]["text"].as_str().unwrap().contains("Prefer small steps."));
    assert_eq!(prompt[1]["text"], "--not-an-option");
    asked.command = &[];
    assert_eq!(acp.invocation(&asked).unwrap_err().code(), "engine-no-command");
}

// ---------------------------------------------------------------- lines that no honest agent writes

/// Words of the protocol, so that arbitrary JSON is not all unknown.
fn word() -> impl Strategy<Value = Value> {
    prop::sample::select(
        "2.0 session/update session/request_permission fs/write_text_file terminal/create $/cancel_request s c yolo \
         agent_message_chunk agent_thought_chunk tool_call tool_call_update plan usage_update current_mode_update \
         config_option_update allow_once allow_always reject_once reject_always edit execute read fetch completed \
         failed pending in_progress diff text content end_turn cancelled refusal selected default /work/a /etc/passwd"
            .split_whitespace()
            .map(Value::from)
            .collect::<Vec<_>>(),
    )
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(
        "jsonrpc id method params result error code message data sessionId update sessionUpdate toolCall toolCallId \
         options optionId kind title locations path rawInput command url content type oldText newText rawOutput \
         status name _meta modes currentModeId availableModes configOptions category currentValue value entries \
         protocolVersion agentCapabilities loadSession stopReason usage inputTokens totalTokens requestId cost amount"
            .split_whitespace()
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>(),
    )
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        5 => word(),
        2 => prop::sample::select(vec![0, 1, 2, 3, 4, 5, 6, 7, 100, 101]).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => ".{0,12}".prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(5, 40, 8, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            4 => prop::collection::vec((key(), inner), 0..8)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn message() -> impl Strategy<Value = Value> {
    let id =
        || prop::sample::select(vec![json!(0), json!(1), json!("0"), json!(null), json!({}), json!(2.5)]);
    let call = (value(), value(), value()).prop_map(|(title, input, locations)| {
        json!({ "toolCallId": "c", "title": title, "kind": "execute", "rawInput": input, "locations": locations })
    });
    prop_oneof![
        3 => value(),
        3 => (id(), call, value()).prop_map(|(id, call, options)| {
            let mut one = question(&id, &options);
            one["params"]["toolCall"] = call;
            one
        }),
        2 => id().prop_map(|id| question(&id, &usual())),
        2 => value().prop_map(|update| json!({ "jsonrpc": "2.0", "method": "session/update", "params": { "update": update } })),
        2 => (prop::sample::select(vec![1, 2, 3, 4, 5, 6, 100, 101]), value())
            .prop_map(|(id, result)| json!({ "jsonrpc": "2.0", "id": id, "result": result })),
        1 => (prop::sample::select(vec![1, 2, 3, 100]), value())
            .prop_map(|(id, error)| json!({ "jsonrpc": "2.0", "id": id, "error": error })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever an agent writes: nothing panics, and no option that allows is chosen without an answer that allows.
    #[test]
    fn nothing_is_allowed_that_was_not_answered(
        messages in prop::collection::vec(message(), 0..24),
        answers in prop::collection::vec(any::<Option<bool>>(), 24),
        settled in any::<bool>(),
    ) {
        let mut talk = if settled { in_turn() } else { talk() };
        let mut open: Vec<String> = Vec::new();
        for (message, answer) in messages.iter().zip(answers) {
            let steps = tell(talk.as_mut(), message);
            prop_assert_eq!(chosen(&steps, ""), 0, "an answer that nobody gave: {:?}", steps);
            prop_assert!(steps.len() <= 200);
            for step in &steps {
                match step {
                    Step::Ask(asked) => {
                        prop_assert!(!open.contains(&asked.id), "ids are unique");
                        open.push(asked.id.clone());
                    }
                    Step::Withdrawn { id } => {
                        prop_assert!(open.contains(id));
                        prop_assert_eq!(talk.answer(id, &Reply::Allow), []);
                    }
                    Step::Send(line) => prop_assert!(!line.contains('\n')),
                    Step::Refused { wanted, .. } => prop_assert!(!wanted.contains(char::is_control)),
                    _ => {}
                }
            }
            if let (Some(allowed), Some(id)) = (answer, open.last().cloned()) {
                let reply = if allowed { Reply::Allow } else { NO(false) };
                let steps = talk.answer(&id, &reply);
                let lines = sent(&steps);
                prop_assert!(lines.len() <= 1);
                for line in lines {
                    let outcome = &line["result"]["outcome"];
                    prop_assert!(allowed || outcome["optionId"] != "y");
                }
                prop_assert_eq!(talk.answer(&id, &Reply::Allow), []);
            }
        }
    }

    #[test]
    fn any_lines_are_read_without_a_panic(messages in prop::collection::vec(message(), 0..24)) {
        let mut reader = reader();
        let (mut read, mut told) = (0, 0);
        for message in &messages {
            let line = message.to_string();
            read += line.len();
            let events = reader.line(&line);
            told += events.iter().map(|event| serde_json::to_string(event).unwrap().len()).sum::<usize>();
            prop_assert!(told <= 24 * read + 4096 * (messages.len() + 1), "{}", line);
        }
        prop_assert_ne!(reader.verdict(ProcessEnd::Exited(1)), Verdict::Done);
    }

    #[test]
    fn lines_that_are_no_messages_are_no_steps(line in ".{0,200}") {
        let mut talk = in_turn();
        prop_assert_eq!(talk.line(&line), []);
        prop_assert_eq!(talk.line(&format!("[{line}]")), []);
    }
}

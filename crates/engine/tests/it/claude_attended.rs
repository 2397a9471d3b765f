//! Claude Code in a session that is spoken with: what the real program said and was told, and what an evil one would say.
//!
//! `transcripts/claude-code-attended/<case>.txt` holds both sides, line by line: `<` for what it printed, `>` for what it
//! was told. Paths and lists of no interest are cut; the rest is as it came.

use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;
use tipstaff_engine::{Conversation, EngineRequest, ProcessEnd, Reply, Step, Verdict, engine};
use tipstaff_model::{ActionKind, AgentEvent, EngineKind};

const CASES: [&str; 5] = ["allow", "deny", "interrupt", "prompt", "say"];

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

fn talk(prompt: &str) -> Box<dyn Conversation> {
    engine(EngineKind::ClaudeCode).conversation(&request(prompt)).unwrap().unwrap()
}

/// Both sides of a recording: whether it was said by the agent, and what.
fn recording(case: &str) -> Vec<(bool, Value)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("transcripts/claude-code-attended")
        .join(format!("{case}.txt"));
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| {
            let (side, text) = line.split_once(' ').unwrap();
            (side == "<", serde_json::from_str(text).unwrap())
        })
        .collect()
}

fn prompt_of(recording: &[(bool, Value)]) -> String {
    let said = recording.iter().find(|(theirs, value)| !theirs && value["type"] == "user").unwrap();
    said.1["message"]["content"].as_str().unwrap().to_owned()
}

fn sent(steps: &[Step]) -> Vec<Value> {
    steps
        .iter()
        .filter_map(|step| match step {
            Step::Send(line) => Some(serde_json::from_str(line).unwrap()),
            _ => None,
        })
        .collect()
}

fn no(why: &str) -> Reply {
    Reply::Deny { why: why.to_owned(), interrupt: false }
}

/// A conversation that is through its handshake.
fn opened() -> Box<dyn Conversation> {
    let mut talk = talk("Please.");
    let first = sent(&talk.begin());
    assert_eq!(first[0]["request"]["subtype"], "initialize");
    let id = &first[0]["request_id"];
    let answer = json!({"type": "control_response", "response": {"subtype": "success", "request_id": id, "response": {}}});
    let said = sent(&talk.line(&answer.to_string()));
    assert_eq!(said[0]["message"]["content"], "Please.");
    talk
}

fn hook(id: &str, call: &str, command: &str) -> String {
    json!({"type": "control_request", "request_id": id, "request": {
        "subtype": "hook_callback", "callback_id": "tipstaff", "tool_use_id": call,
        "input": {"hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {"command": command}}
    }})
    .to_string()
}

fn permission(id: &str, call: &str, command: &str) -> String {
    json!({"type": "control_request", "request_id": id, "request": {
        "subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": command}, "tool_use_id": call
    }})
    .to_string()
}

fn asked(steps: &[Step]) -> Vec<&str> {
    steps
        .iter()
        .filter_map(|step| match step {
            Step::Ask(asked) => Some(asked.id.as_str()),
            _ => None,
        })
        .collect()
}

#[test]
fn the_real_program_is_told_what_it_was_told_when_it_was_recorded() {
    for case in CASES {
        let recording = recording(case);
        let mut talk = talk(&prompt_of(&recording));
        let mut told = sent(&talk.begin());
        let mut turns = 0;
        let mut interrupted = false;
        for (_, line) in recording.iter().filter(|(theirs, _)| *theirs) {
            for step in talk.line(&line.to_string()) {
                match step {
                    Step::Ask(asked) => {
                        assert!(!asked.action.tool.is_empty(), "{case}");
                        match case {
                            "deny" => {
                                told.extend(sent(&talk.answer(&asked.id, &no("a person said no: because"))))
                            }
                            "interrupt" if !interrupted => {
                                interrupted = true;
                                told.extend(sent(&talk.interrupt().unwrap()));
                            }
                            _ => {
                                if case == "say" && !interrupted {
                                    interrupted = true;
                                    told.extend(sent(&talk.say("also this please").unwrap()));
                                }
                                told.extend(sent(&talk.answer(&asked.id, &Reply::Allow)));
                            }
                        }
                    }
                    Step::Withdrawn { .. } => assert_eq!(case, "interrupt"),
                    Step::TurnEnded => {
                        turns += 1;
                        if case == "interrupt" && turns == 1 {
                            let (_, next) = recording
                                .iter()
                                .filter(|(theirs, value)| !theirs && value["type"] == "user")
                                .nth(1)
                                .unwrap();
                            told.extend(sent(
                                &talk.say(next["message"]["content"].as_str().unwrap()).unwrap(),
                            ));
                        }
                    }
                    Step::Send(line) => told.push(serde_json::from_str(&line).unwrap()),
                    other => panic!("{case}: {other:?}"),
                }
            }
        }
        let recorded: Vec<Value> =
            recording.iter().filter(|(theirs, _)| !theirs).map(|(_, value)| value.clone()).collect();
        assert_eq!(told, recorded, "{case}");
        assert_eq!(turns, if case == "interrupt" { 2 } else { 1 }, "{case}");
    }
}

#[test]
fn the_conversation_is_no_event_and_the_work_is() {
    for case in CASES {
        let mut reader = engine(EngineKind::ClaudeCode).attended_reader().unwrap();
        let lines = recording(case);
        let events: Vec<AgentEvent> = lines
            .iter()
            .filter(|(theirs, _)| *theirs)
            .flat_map(|(_, line)| reader.line(&line.to_string()))
            .collect();
        let shown: Vec<String> = events
            .iter()
            .map(|event| {
                let text = serde_json::to_string(event).unwrap();
                text.chars().take(300).collect()
            })
            .collect();
        let verdict = reader.verdict(ProcessEnd::Exited(0));
        insta::assert_snapshot!(
            format!("claude-attended__{case}"),
            format!("{}\n=> {verdict:?}", shown.join("\n"))
        );
        assert_eq!(verdict == Verdict::Done, case != "deny", "{case}");
        let spent: u64 = events
            .iter()
            .map(|event| match event {
                AgentEvent::Usage { usage, .. } => usage.output,
                _ => 0,
            })
            .sum();
        let last = lines.iter().rev().find(|(_, line)| line["type"] == "result").unwrap();
        let all: u64 = last.1["modelUsage"]
            .as_object()
            .unwrap()
            .values()
            .map(|one| one["outputTokens"].as_u64().unwrap())
            .sum();
        assert_eq!(spent, all, "{case}: results add up");
    }
}

#[test]
fn nothing_is_asked_of_it_before_the_hook_is_in_place() {
    let mut talk = talk("Please.");
    assert_eq!(sent(&talk.begin()).len(), 1);
    assert_eq!(talk.say("And this.").unwrap(), []);
    assert!(talk.interrupt().is_err());
    for early in [
        "",
        "{}",
        r#"{"type":"system","subtype":"init"}"#,
        r#"{"type":"control_response","response":{"subtype":"success","request_id":"other"}}"#,
    ] {
        assert_eq!(talk.line(early), []);
    }
    let refused = json!({"type": "control_response", "response": {"subtype": "error", "request_id": "tipstaff-initialize", "error": "no hooks here"}});
    let steps = talk.line(&refused.to_string());
    assert!(matches!(&steps[..], [Step::Broken(why)] if why.contains("no hooks here")), "{steps:?}");
    let good = json!({"type": "control_response", "response": {"subtype": "success", "request_id": "tipstaff-initialize"}});
    let said = sent(&talk.line(&good.to_string()));
    assert_eq!(
        said.iter().map(|line| &line["message"]["content"]).collect::<Vec<_>>(),
        ["Please.", "And this."]
    );
    // A second one changes nothing.
    assert_eq!(talk.line(&good.to_string()), []);
}

#[test]
fn one_call_is_one_question_and_has_one_answer() {
    let mut talk = opened();
    let steps = talk.line(&hook("r1", "t1", "make"));
    assert_eq!(asked(&steps), ["t1"]);
    let Step::Ask(question) = &steps[0] else { panic!() };
    assert_eq!(
        (question.action.kind, &question.action.commands[..]),
        (ActionKind::Execute, &["make".to_owned()][..])
    );
    // Its permission prompt asks about the same call while it waits: answered together.
    assert_eq!(talk.line(&permission("r2", "t1", "make")), []);
    assert_eq!(talk.line(&hook("r1", "t1", "make")), []);
    let answers = sent(&talk.answer("t1", &no("because")));
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0]["response"]["response"]["hookSpecificOutput"]["permissionDecision"], "deny");
    assert_eq!(answers[1]["response"]["response"]["behavior"], "deny");
    assert_eq!(talk.answer("t1", &Reply::Allow), []);
    assert_eq!(talk.answer("never", &Reply::Allow), []);
    // And after it was answered: from the first decision.
    let again = sent(&talk.line(&permission("r3", "t1", "make")));
    assert_eq!(
        again[0]["response"]["response"],
        json!({"behavior": "deny", "message": "because", "interrupt": false})
    );
    // The same call with other arguments is another question.
    assert_eq!(asked(&talk.line(&permission("r4", "t1", "make install"))), ["r4"]);
    let allowed = sent(&talk.answer("r4", &Reply::Allow));
    assert_eq!(allowed[0]["response"]["response"]["updatedInput"], json!({"command": "make install"}));
}

#[test]
fn what_cannot_be_read_is_denied_and_what_is_not_offered_is_refused() {
    let mut talk = opened();
    let decision = |talk: &mut Box<dyn Conversation>, request: Value| {
        let line = json!({"type": "control_request", "request_id": "r", "request": request}).to_string();
        sent(&talk.line(&line))[0]["response"].clone()
    };
    let tool = json!({"hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_input": {"command": "x"}});
    for unreadable in [
        json!({"subtype": "hook_callback", "callback_id": "other", "input": tool}),
        json!({"subtype": "hook_callback", "callback_id": "tipstaff", "input": {"hook_event_name": "PostToolUse", "tool_name": "Bash", "tool_input": {}}}),
        json!({"subtype": "hook_callback", "callback_id": "tipstaff", "input": {"hook_event_name": "PreToolUse", "tool_name": 7, "tool_input": {}}}),
        json!({"subtype": "hook_callback", "callback_id": "tipstaff", "input": {"hook_event_name": "PreToolUse", "tool_name": "Bash"}}),
        json!({"subtype": "hook_callback", "callback_id": "tipstaff"}),
    ] {
        let answer = decision(&mut talk, unreadable.clone());
        assert_eq!(answer["response"]["hookSpecificOutput"]["permissionDecision"], "deny", "{unreadable}");
    }
    let answer = decision(&mut talk, json!({"subtype": "can_use_tool"}));
    assert_eq!(answer["response"]["behavior"], "deny");
    for other in
        [json!({"subtype": "mcp_message"}), json!({"subtype": "elicitation"}), json!({}), json!(null)]
    {
        assert_eq!(decision(&mut talk, other)["subtype"], "error");
    }
    for nothing in [
        json!({"type": "control_request"}),
        json!({"type": "control_request", "request_id": ""}),
        json!({"type": "control_request", "request_id": "x".repeat(5000), "request": {"subtype": "can_use_tool"}}),
        json!({"type": "control_request", "request_id": {"a": 1}}),
        json!([1]),
        json!("control_request"),
    ] {
        assert_eq!(talk.line(&nothing.to_string()), [], "{nothing}");
    }
}

#[test]
fn a_flood_of_questions_is_bounded() {
    let mut talk = opened();
    let mut open = 0;
    for count in 0..5000 {
        open += asked(&talk.line(&hook(&format!("r{count}"), &format!("t{count}"), "x"))).len();
    }
    assert!(open <= 1024, "{open}");
    let cancel = json!({"type": "control_cancel_request", "request_id": "r7"}).to_string();
    assert_eq!(talk.line(&cancel), [Step::Withdrawn { id: "t7".to_owned() }]);
    assert_eq!(talk.line(&cancel), []);
    assert_eq!(talk.answer("t7", &Reply::Allow), []);
}

#[test]
fn a_turn_is_not_over_while_something_is_unread() {
    let mut talk = opened();
    let result = json!({"type": "result", "subtype": "success", "queued_turn_count": 0}).to_string();
    let replay =
        json!({"type": "user", "isReplay": true, "message": {"role": "user", "content": "x"}}).to_string();
    assert_eq!(talk.line(&result), [], "it has not read the prompt");
    assert_eq!(talk.line(&replay), []);
    assert_eq!(sent(&talk.say("More.").unwrap()).len(), 1);
    assert_eq!(talk.line(&result), []);
    assert_eq!(talk.line(&replay), []);
    let queued = json!({"type": "result", "subtype": "success", "queued_turn_count": 1}).to_string();
    assert_eq!(talk.line(&queued), []);
    assert!(talk.interrupt().is_ok());
    assert_eq!(talk.line(&result), [Step::TurnEnded]);
    assert!(talk.interrupt().is_err());
    // A made-up replay makes no turn end earlier than a result does.
    for _ in 0..10 {
        assert_eq!(talk.line(&replay), []);
    }
    talk.say("And more.").unwrap();
    assert_eq!(talk.line(&result), []);
}

proptest! {
    /// Whatever it says, nothing is allowed that was not asked, and nothing panics.
    #[test]
    fn bent_lines_allow_nothing(
        case in prop::sample::select(CASES.to_vec()),
        which in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
        length in 0_usize..60,
        other in "[\\PC\"{}\\[\\]:,]{0,20}",
    ) {
        let lines = recording(case);
        let theirs: Vec<String> =
            lines.iter().filter(|(theirs, _)| *theirs).map(|(_, line)| line.to_string()).collect();
        let mut bent = theirs.clone();
        let line = which.get(&theirs).clone();
        let mut at = from.index(line.len() + 1);
        while !line.is_char_boundary(at) { at -= 1; }
        let mut end = (at + length).min(line.len());
        while !line.is_char_boundary(end) { end -= 1; }
        let end = end.max(at);
        bent[which.index(theirs.len())] = format!("{}{other}{}", &line[..at], &line[end..]);
        let mut talk = talk("Please.");
        talk.begin();
        for line in &bent {
            for step in talk.line(line) {
                if let Step::Send(said) = step {
                    prop_assert!(!said.contains(r#""permissionDecision":"allow""#), "{said}");
                    prop_assert!(!said.contains(r#""behavior":"allow""#), "{said}");
                }
            }
        }
    }
}

#[test]
fn its_command_line_lets_it_be_spoken_with_and_holds_no_prompt() {
    let made = engine(EngineKind::ClaudeCode).invocation(&request("--secret prompt")).unwrap();
    let line = made.argv.join(" ");
    for option in [
        "--input-format=stream-json",
        "--output-format=stream-json",
        "--permission-prompt-tool=stdio",
        "--permission-mode=default",
        "--replay-user-messages",
        "--strict-mcp-config",
        "--settings={\"disableAllHooks\":true}",
    ] {
        assert!(line.contains(option), "{line}");
    }
    assert!(!line.contains("bypass") && !line.contains("secret"), "{line}");
    assert!(made.home.iter().all(|file| !file.content.contains("--secret prompt")));
}

//! Output that no honest agent prints: it never panics a reader, never grows without bound, never makes work done.

use proptest::prelude::*;
use serde_json::{Value, json};
use tipstaff_engine::{Engine, ProcessEnd, REGISTRY, Verdict};
use tipstaff_model::{AgentEvent, EngineKind};

fn readers() -> impl Iterator<Item = &'static dyn Engine> {
    REGISTRY.iter().copied().filter(|engine| engine.reader().is_some())
}

/// Those that print lines of JSON.
fn json_readers() -> impl Iterator<Item = &'static dyn Engine> {
    readers().filter(|engine| !matches!(engine.kind(), EngineKind::Aider | EngineKind::Coven))
}

/// Words that the readers look for, so that arbitrary JSON is not all unknown.
fn word() -> impl Strategy<Value = String> {
    prop::sample::select(
        "type subtype init system assistant user result message content text thinking tool_use tool_result id name \
         input tool_use_id is_error permission_denials tool_name structuredPatch filePath file_path usage modelUsage \
         input_tokens total_cost_usd num_turns success error item item.started item.completed item.updated \
         turn.completed turn.failed thread.started command_execution file_change mcp_tool_call web_search changes \
         path kind add command exit_code status completed aggregated_output role delta tool_id parameters output \
         stats cached total_tokens part state metadata callID tool sessionID step_start step_finish reason stop \
         tool-calls unknown tokens cache read write cost data write_file replace apply_patch files invalid session_id"
            .split_whitespace()
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>(),
    )
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => word().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
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
    let lines: Vec<Value> = ["claude-code", "codex", "gemini", "opencode", "qwen"]
        .iter()
        .flat_map(|engine| {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts").join(engine);
            std::fs::read_dir(folder).unwrap()
        })
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .flat_map(|path| {
            std::fs::read_to_string(path).unwrap().lines().map(ToOwned::to_owned).collect::<Vec<_>>()
        })
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect();
    (prop::sample::select(lines), value(), any::<prop::sample::Index>()).prop_map(
        |(mut line, other, place)| {
            let mut places = 0;
            visit(&mut line, &mut |_| places += 1);
            let chosen = place.index(places);
            let mut at = 0;
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

fn size(events: &[AgentEvent]) -> usize {
    events.iter().map(|event| serde_json::to_string(event).unwrap().len()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_lines_are_read_without_a_panic_and_in_bounds(
        lines in prop::collection::vec(
            prop_oneof![value().prop_map(|value| value.to_string()), bent_line(), ".{0,80}", Just(String::new())],
            0..12,
        ),
        errors in prop::collection::vec(".{0,80}", 0..4),
    ) {
        for engine in readers() {
            let mut reader = engine.reader().unwrap();
            let (mut read, mut told) = (0, 0);
            for line in &lines {
                let events = reader.line(line);
                // What an event says is in a line; some of it is there twice, and escaped anew.
                read += 4096 + 24 * line.len();
                told += size(&events);
                prop_assert!(told <= read, "{} {line}", engine.kind());
                for event in &events {
                    if let AgentEvent::ToolCall { title, .. } = event {
                        prop_assert!(title.chars().count() <= 160 && !title.contains(char::is_control), "{title:?}");
                    }
                }
            }
            for line in &errors {
                prop_assert!(reader.error_line(line).is_empty() || line.contains("ERROR"));
            }
            prop_assert_ne!(reader.verdict(ProcessEnd::Exited(1)), Verdict::Done);
        }
    }

    #[test]
    fn text_that_is_no_json_is_kept_as_text(line in "[^{\\s][^\n]{0,80}") {
        for engine in json_readers() {
            let events = engine.reader().unwrap().line(&line);
            prop_assert_eq!(events, vec![AgentEvent::Raw { value: json!({ "text": line }) }]);
        }
    }
}

#[test]
fn unknown_events_are_kept_as_they_came() {
    for engine in json_readers() {
        for unknown in [
            json!({ "type": "telepathy", "thought": [1, { "deep": null }] }),
            json!({ "no": "type" }),
            json!({ "type": 7 }),
            json!({ "type": { "type": "result" } }),
            json!({}),
        ] {
            let events = engine.reader().unwrap().line(&unknown.to_string());
            assert_eq!(events, [AgentEvent::Raw { value: unknown }], "{}", engine.kind());
        }
    }
}

#[test]
fn deep_and_huge_lines_are_bounded() {
    let deep = format!("{}1{}", "{\"a\":".repeat(200_000), "}".repeat(200_000));
    let huge = format!(r#"{{"type":"telepathy","x":"{}"}}"#, "y".repeat(6 * 1024 * 1024));
    let list = format!("[{}1]", "1,".repeat(1_000_000));
    let half = r#"{"type":"result","is_error":false,"subtype":"success""#;
    for engine in readers() {
        let mut reader = engine.reader().unwrap();
        for line in [deep.as_str(), &huge, &list, half] {
            let events = reader.line(line);
            assert!(matches!(&events[..], [AgentEvent::Raw { .. }]), "{}", engine.kind());
            assert!(size(&events) < 300 * 1024);
        }
        assert_ne!(reader.verdict(ProcessEnd::Exited(0)), Verdict::Done);
    }
}

/// A hundred thousand calls without an answer, and as many complaints: what is remembered has a bound.
#[test]
fn a_flood_is_forgotten() {
    for engine in readers() {
        let mut reader = engine.reader().unwrap();
        for count in 0..20_000 {
            reader.line(
                &json!({"type":"tool_use","tool_id":format!("c{count}"),"tool_name":"x","parameters":{}})
                    .to_string(),
            );
            reader.error_line(&format!("error {count} {}", "z".repeat(2000)));
        }
        let Verdict::Failed { why: Some(why) } = reader.verdict(ProcessEnd::Exited(1)) else {
            panic!("{} is done", engine.kind())
        };
        assert!(why.contains("error 19999") && why.len() < 5000, "{why}");
    }
}

#[test]
fn the_reason_names_what_the_program_complained_of() {
    for engine in readers() {
        let mut reader = engine.reader().unwrap();
        for line in [
            "Warning: TERM is dumb",
            "Error: cannot find the configuration",
            "    at main (cli.js:1:2)",
            "Bye.",
        ] {
            reader.error_line(line);
        }
        let Verdict::Failed { why } = reader.verdict(ProcessEnd::Exited(41)) else { panic!() };
        let expected = "it ended with code 41 and without a result; its last complaint: Error: cannot find the configuration";
        assert_eq!(why.as_deref(), Some(expected));
    }
}

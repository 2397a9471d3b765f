//! `tipstaff redact` as a person uses it.

use crate::world::World;
use std::io::{Read, Write};
use std::process::Stdio;

const TOKEN: &str = "ghp_4Kd83jfLs09vBn2QwErTy6UiOpAsDf7GhJkL";

#[test]
fn it_filters_while_text_arrives() {
    let world = World::new();
    let mut child = world
        .command(world.binary())
        .args(["redact", "--report"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut expect = |expected: &str| {
        let mut seen = vec![0; expected.len()];
        output.read_exact(&mut seen).unwrap();
        assert_eq!(String::from_utf8(seen).unwrap(), expected);
    };
    // The pipe stays open: what comes out has flowed, not been flushed by the end.
    input.write_all(b"before ").unwrap();
    expect("before ");
    let (left, right) = TOKEN.split_at(9);
    input.write_all(left.as_bytes()).unwrap();
    input.write_all(right.as_bytes()).unwrap();
    input.write_all(b" after ").unwrap();
    expect("[redacted:github-token] after ");
    drop(input);
    let mut report = String::new();
    child.stderr.take().unwrap().read_to_string(&mut report).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(report, "github-token at byte 7, 40 bytes\n");
}

#[test]
fn it_reads_files_and_reports_without_the_value() {
    let world = World::new();
    let file = world.path().join("session.jsonl");
    std::fs::write(&file, format!("{{\"text\":\"x {TOKEN}\"}}\n")).unwrap();
    let name = file.to_str().unwrap();
    let ended = world.tipstaff(&["redact", "--report", "--json", name, name]).expect(0);
    let clean = "{\"text\":\"x [redacted:github-token]\"}\n";
    assert_eq!(ended.stdout, clean.repeat(2));
    for line in ended.stderr.lines() {
        let finding: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            finding,
            serde_json::json!({"rule": "github-token", "offset": 11, "length": 40, "file": name})
        );
    }
    assert_eq!(ended.stderr.lines().count(), 2);
    assert!(!ended.stderr.contains("4Kd83"));
    let silent = world.tipstaff(&["redact", name]).expect(0);
    assert_eq!((silent.stdout.as_str(), silent.stderr.as_str()), (clean, ""));
}

#[test]
fn what_cannot_be_read_is_said() {
    let world = World::new();
    let ended = world.tipstaff(&["redact", "/nowhere/at/all"]).expect(1);
    assert!(ended.stderr.contains("/nowhere/at/all"), "{ended:#?}");
    world.tipstaff(&["redact", world.path().to_str().unwrap()]).expect(1);
    world.tipstaff(&["redact", "--loudly"]).expect(2);
}

#[test]
fn it_needs_no_state_and_makes_none() {
    let world = World::new();
    world.tipstaff(&["redact"]).expect(0);
    assert!(!world.home().exists());
}

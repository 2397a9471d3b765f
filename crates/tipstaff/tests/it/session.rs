//! The session of a run: redacted, told again, exported.

use crate::world::World;
use std::time::Instant;

/// A token of a well-known form that is nobody's.
const TOKEN: &str = concat!("ghp_", "wJ8dLq2ZxT5vN9bKc3RfYh7Gp1MsAe4UiO6k");

#[test]
fn a_secret_that_a_command_prints_is_in_no_view_and_no_file() {
    let world = World::new();
    let repository = world.repository("demo");
    // In two halves, a moment apart: two chunks.
    let script = format!(
        "printf 'token {}'; sleep 0.4; printf '{} end\\n'; echo {TOKEN} >&2; echo hello >> README.md",
        &TOKEN[..14],
        &TOKEN[14..]
    );
    world.write(&repository.join("say.sh"), &script);
    world.commit(&repository, "say");
    let ended = world.run_script(&repository, "sh say.sh").expect(0);
    let mut seen = format!("{}{}", ended.stdout, ended.stderr);
    for args in [
        &["runs", "logs"][..],
        &["runs", "show", "--transcript"],
        &["runs", "replay", "--speed", "0"],
        &["runs", "export"],
        &["runs", "export", "--format", "markdown"],
    ] {
        let told = world.tipstaff(args).expect(0);
        let told = format!("{}{}", told.stdout, told.stderr);
        assert!(told.contains("end") && told.contains("redacted"), "{args:?}: {told}");
        seen.push_str(&told);
    }
    assert!(!seen.contains(&TOKEN[4..]) && !seen.contains(&TOKEN[14..]), "{seen}");
    let stored = std::fs::read(world.home().join("tipstaff.db")).unwrap();
    let stored = String::from_utf8_lossy(&stored);
    assert!(!stored.contains(&TOKEN[14..]), "the database holds it");
}

#[test]
fn a_session_is_replayed_in_its_own_time_or_faster() {
    let world = World::new();
    let repository = world.repository("demo");
    world.run_script(&repository, "echo first; sleep 1.2; echo second").expect(0);
    let begun = Instant::now();
    let slow = world.tipstaff(&["runs", "replay"]).expect(0);
    assert!(begun.elapsed().as_millis() >= 1100, "the pause is kept");
    let fast = world.tipstaff(&["runs", "replay", "--speed", "0"]).expect(0);
    assert_eq!(slow.stdout, fast.stdout);
    assert!(slow.stdout.contains("first") && slow.stdout.contains("second"), "{slow:#?}");
    world.tipstaff(&["runs", "replay", "--speed", "-1"]).expect(2);
    world.tipstaff(&["runs", "replay", "--speed", "fast"]).expect(2);
}

#[test]
fn an_export_has_every_event_once_in_order() {
    let world = World::new();
    let repository = world.repository("demo");
    world
        .run_script(&repository, "for i in 1 2 3; do echo line $i; sleep 0.3; done; echo x >> README.md")
        .expect(0);
    let file = world.path().join("session.jsonl");
    world.tipstaff(&["runs", "export", "--output", file.to_str().unwrap()]).expect(0);
    let text = std::fs::read_to_string(&file).unwrap();
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], index + 1);
    }
    assert_eq!(events.last().unwrap()["body"]["state"], "done");
    let page = world.tipstaff(&["runs", "export", "--format", "markdown"]).expect(0).stdout;
    assert!(page.starts_with("# Run ") && page.contains("line 3"), "{page}");
    let nowhere = world.tipstaff(&["runs", "export", "--output", "/nowhere/x"]).expect(2);
    assert!(nowhere.stderr.contains("export-file"), "{}", nowhere.stderr);
}

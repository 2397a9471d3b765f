//! The log proves what happened, and shows when somebody changed it.

use crate::world::World;
use std::path::Path;

/// Changes the database behind the product's back.
pub(crate) fn meddle(world: &World, statement: &str) {
    let mut command = world.command("python3");
    command.args([
        "-c",
        "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1])\nc.executescript(sys.argv[2])\nc.commit()\nc.close()",
    ]);
    command.arg(world.home().join("tipstaff.db")).arg(statement);
    crate::world::run(command).expect(0);
}

fn with_runs() -> World {
    let world = World::new();
    let repository = world.repository("demo");
    for line in ["one", "two"] {
        world
            .run_script(
                &repository,
                &format!("echo {line} >> README.md; git push -q origin HEAD:other || true"),
            )
            .expect(0);
    }
    world
}

#[test]
fn every_warrant_run_refusal_push_and_decision_is_in_it() {
    let world = with_runs();
    let text = world.tipstaff(&["audit", "list", "--limit", "1000", "--json"]).expect(0).stdout;
    for action in [
        "org.created",
        "warrant.issued",
        "task.added",
        "run.state",
        "sandbox.started",
        "refused",
        "push.accepted",
        "run.decided",
        "workspace.destroyed",
    ] {
        assert!(text.contains(&format!("\"{action}\"")), "{action} is missing in {text}");
    }
    let report = world.tipstaff(&["audit", "verify", "--json"]).expect(0).json();
    assert!(report["records"].as_u64().unwrap() > 20 && report["first_bad"].is_null(), "{report}");
}

/// Each way of tampering, with the first position that must be named, if it is one position.
#[test]
fn tampering_reordering_and_truncation_are_found() {
    let cases: &[(&str, &str, Option<u64>)] = &[
        (
            "a changed record",
            "update audit_record set body = cast(replace(cast(body as text), 'running', 'waiting') as blob) where seq = 5;",
            Some(5),
        ),
        ("a changed time", "update audit_record set at = at + 1 where seq = 7;", Some(7)),
        (
            "two records swapped",
            "update audit_record set seq = -1 where seq = 3; update audit_record set seq = 3 where seq = 4; update audit_record set seq = 4 where seq = -1;",
            Some(3),
        ),
        ("a record removed", "delete from audit_record where seq = 6;", Some(6)),
        (
            "the end cut off",
            "delete from audit_record where seq >= (select max(seq) - 2 from audit_record);",
            None,
        ),
        (
            "the end cut off with its checkpoints and head",
            "delete from audit_record where seq >= 9; delete from audit_checkpoint where size > 9; update audit_head set size = 9;",
            None,
        ),
        (
            "everything gone",
            "delete from audit_record; delete from audit_checkpoint; delete from audit_head;",
            Some(0),
        ),
        (
            "a forged checkpoint",
            "update audit_checkpoint set note = replace(note, 'tipstaff/audit', 'tipstaff/audif');",
            None,
        ),
    ];
    for (name, statement, position) in cases {
        let world = with_runs();
        meddle(&world, statement);
        let ended = world.tipstaff(&["audit", "verify", "--json"]).expect(1);
        let report = ended.json();
        assert!(!report["first_bad"].is_null(), "{name}: {report}");
        if let Some(position) = position {
            assert_eq!(report["first_bad"]["position"], *position, "{name}: {report}");
        }
        let text = world.tipstaff(&["audit", "verify"]).expect(1);
        assert!(text.stderr.contains("position") || text.stdout.contains("position"), "{name}: {text:#?}");
    }
}

#[test]
fn a_checkpoint_kept_elsewhere_catches_a_rewritten_past() {
    let world = with_runs();
    let kept = world.path().join("kept.checkpoint");
    let kept_text = kept.to_str().unwrap();
    world.tipstaff(&["audit", "checkpoint", "--output", kept_text]).expect(0);
    world.tipstaff(&["audit", "verify", "--checkpoint", kept_text]).expect(0);
    // More records later: the kept checkpoint is still within the log.
    world.run_script(&world.path().join("demo"), "true").expect(0);
    world.tipstaff(&["audit", "verify", "--checkpoint", kept_text]).expect(0);
    // A whole other log, consistent in itself, with the same keys gone: the person starts over.
    std::fs::remove_dir_all(world.home()).unwrap();
    world.run_script(&world.path().join("demo"), "true").expect(0);
    world.tipstaff(&["audit", "verify"]).expect(0);
    world.tipstaff(&["audit", "verify", "--checkpoint", kept_text]).expect(1);
    let garbage = world.path().join("garbage");
    std::fs::write(&garbage, b"\xff\x00not a checkpoint").unwrap();
    let ended = world.tipstaff(&["audit", "verify", "--checkpoint", garbage.to_str().unwrap()]);
    assert!(matches!(ended.code, Some(1 | 2)), "{ended:#?}");
}

#[test]
fn an_export_verifies_offline_without_the_database() {
    let world = with_runs();
    let export = world.path().join("log.jsonl");
    let export_text = export.to_str().unwrap().to_owned();
    world.tipstaff(&["audit", "export", "--output", &export_text]).expect(0);
    let kept = world.path().join("kept.checkpoint");
    world.tipstaff(&["audit", "checkpoint", "--output", kept.to_str().unwrap()]).expect(0);
    let elsewhere = World::new();
    // The key beside the export is found by itself; a person who kept it elsewhere names it.
    elsewhere.tipstaff(&["audit", "verify", "--export", &export_text]).expect(0);
    let key = std::fs::read_to_string(format!("{export_text}.key")).unwrap();
    let verify = |file: &Path| {
        let (file, kept) = (file.to_str().unwrap(), kept.to_str().unwrap());
        elsewhere.tipstaff(&[
            "audit",
            "verify",
            "--json",
            "--export",
            file,
            "--key",
            key.trim(),
            "--checkpoint",
            kept,
        ])
    };
    let report = verify(&export).expect(0).json();
    assert!(report["records"].as_u64().unwrap() > 20);
    let text = std::fs::read_to_string(&export).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    let changed = world.path().join("changed.jsonl");
    std::fs::write(&changed, text.replacen("builder", "manager", 1)).unwrap();
    verify(&changed).expect(1);
    let lines: Vec<&str> = text.lines().collect();
    let mut swapped = lines.clone();
    let records: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].contains("\"record\"")).collect();
    swapped.swap(records[3], records[4]);
    std::fs::write(&changed, swapped.join("\n")).unwrap();
    verify(&changed).expect(1);
    std::fs::write(&changed, lines[..lines.len() - 4].join("\n")).unwrap();
    verify(&changed).expect(1);
}

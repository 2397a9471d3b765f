//! What the real agents printed, recorded from the pinned versions against a scripted model, and what we read in it.
//!
//! `transcripts/<engine>/<case>.<end>.jsonl` is standard output, `….err` standard error; `<end>` is the exit code, or
//! `killed`. Paths and lists of no interest are cut; the rest is as it came.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tipstaff_engine::{Engine, ProcessEnd, REGISTRY, Verdict};
use tipstaff_model::{AgentEvent, EngineKind};

struct Recording {
    case: String,
    end: ProcessEnd,
    output: String,
    errors: String,
}

fn recordings(engine: &dyn Engine) -> Vec<Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts").join(engine.kind().as_str());
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    paths.sort();
    paths.iter().map(|path| recording(path)).collect()
}

fn recording(path: &Path) -> Recording {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let (case, end) = stem.rsplit_once('.').unwrap();
    Recording {
        case: case.to_owned(),
        end: if end == "killed" {
            ProcessEnd::Signalled(9)
        } else {
            ProcessEnd::Exited(end.parse().unwrap())
        },
        output: std::fs::read_to_string(path).unwrap(),
        errors: std::fs::read_to_string(path.with_extension("err")).unwrap_or_default(),
    }
}

fn read(engine: &dyn Engine, recording: &Recording) -> (Vec<AgentEvent>, Verdict) {
    let mut reader = engine.reader().unwrap();
    let mut events: Vec<AgentEvent> =
        recording.errors.lines().flat_map(|line| reader.error_line(line)).collect();
    events.extend(recording.output.lines().flat_map(|line| reader.line(line)));
    (events, reader.verdict(recording.end))
}

/// The engines that print lines of JSON. The tests of the others are in `acp.rs` and `plain.rs`.
fn readers() -> impl Iterator<Item = &'static dyn Engine> {
    let others = [EngineKind::Acp, EngineKind::Aider, EngineKind::Coven];
    REGISTRY
        .iter()
        .copied()
        .filter(move |engine| engine.reader().is_some() && !others.contains(&engine.kind()))
}

#[test]
fn what_the_real_agents_print_is_read_as_it_was_meant() {
    for engine in readers() {
        for recording in recordings(engine) {
            let (events, verdict) = read(engine, &recording);
            let mut shown = String::new();
            for event in &events {
                writeln!(shown, "{}", serde_json::to_string(event).unwrap()).unwrap();
            }
            write!(shown, "{:?} => {verdict:?}", recording.end).unwrap();
            insta::assert_snapshot!(format!("{}__{}", engine.kind(), recording.case), shown);
        }
    }
}

#[test]
fn every_engine_is_recorded_in_the_cases_that_matter() {
    for engine in readers() {
        let recordings = recordings(engine);
        for (case, done) in [
            ("work-done", true),
            ("tool-fails", true),
            ("budget-ends", false),
            ("garbage", false),
            ("key-wrong", false),
        ] {
            let of_case: Vec<_> =
                recordings.iter().filter(|recording| recording.case.starts_with(case)).collect();
            assert!(!of_case.is_empty(), "{} has no recording of {case}", engine.kind());
            for recording in of_case {
                let (_, verdict) = read(engine, recording);
                assert_eq!(
                    verdict == Verdict::Done,
                    done,
                    "{} {}: {verdict:?}",
                    engine.kind(),
                    recording.case
                );
            }
        }
    }
}

#[test]
fn finished_work_shows_what_was_changed_run_used_and_said() {
    for engine in readers() {
        for recording in recordings(engine).iter().filter(|recording| recording.case.starts_with("work-done"))
        {
            let (events, _) = read(engine, recording);
            let context = format!("{} {}: {events:#?}", engine.kind(), recording.case);
            let has = |what: &dyn Fn(&AgentEvent) -> bool| events.iter().any(what);
            assert!(matches!(events[0], AgentEvent::Started { session: Some(_), .. }), "{context}");
            assert!(has(
                &|event| matches!(event, AgentEvent::FileChange { path, .. } if path.ends_with("hello.txt"))
            ));
            assert!(has(&|event| matches!(event, AgentEvent::ToolCall { title, .. }
                if title == "git status --short && wc -c hello.txt")));
            assert!(has(&|event| matches!(event, AgentEvent::ToolResult { ok: true, output, .. }
                if output.contains("12 hello.txt"))));
            assert!(has(&|event| matches!(event, AgentEvent::Usage { usage, .. }
                if usage.input > 0 && usage.cache_read > 0 && usage.output > 0)));
            assert!(has(&|event| matches!(event, AgentEvent::Finished { ok: true, summary: Some(said), .. }
                if said == "All done.")));
            // Nothing of a known version's finished work is unknown.
            assert!(
                !has(&|event| matches!(event, AgentEvent::Raw { .. } | AgentEvent::Error { .. })),
                "{context}"
            );
        }
    }
}

#[test]
fn each_call_has_one_answer_and_each_answer_its_call() {
    for engine in readers() {
        for recording in recordings(engine) {
            let (events, _) = read(engine, &recording);
            let calls = events.iter().filter_map(|event| match event {
                AgentEvent::ToolCall { id, .. } => Some(id),
                _ => None,
            });
            let answers = events.iter().filter_map(|event| match event {
                AgentEvent::ToolResult { id, .. } => Some(id),
                _ => None,
            });
            assert!(calls.eq(answers), "{} {}", engine.kind(), recording.case);
        }
    }
}

/// A session that was cut off anywhere before its end was not done, whatever the exit code says.
#[test]
fn half_a_session_is_never_done() {
    for engine in readers() {
        for mut recording in recordings(engine) {
            let lines: Vec<String> = recording.output.lines().map(ToOwned::to_owned).collect();
            for kept in 0..lines.len() {
                recording.output = lines[..kept].join("\n");
                recording.end = ProcessEnd::Exited(0);
                let (_, verdict) = read(engine, &recording);
                let Verdict::Failed { why: Some(why) } = verdict else {
                    panic!("{} {}: done after {kept} lines", engine.kind(), recording.case)
                };
                assert!(!why.is_empty());
            }
        }
    }
}

/// A good result and a bad end don't go together.
#[test]
fn a_good_result_does_not_outweigh_a_bad_end() {
    for engine in readers() {
        for mut recording in recordings(engine) {
            for end in [ProcessEnd::Exited(1), ProcessEnd::Exited(137), ProcessEnd::Signalled(15)] {
                recording.end = end;
                let (_, verdict) = read(engine, &recording);
                assert_ne!(verdict, Verdict::Done, "{} {} {end:?}", engine.kind(), recording.case);
            }
        }
    }
}

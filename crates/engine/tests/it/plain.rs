//! The engines that print no events: what `aider` prints for people, recorded from the pinned version, and what
//! `coven-code` leaves as its result.

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use tipstaff_engine::{EngineRequest, ProcessEnd, Verdict, engine};
use tipstaff_model::{AgentEvent, EngineKind};

fn read(kind: EngineKind, printed: &str, end: ProcessEnd) -> (Vec<AgentEvent>, Verdict) {
    let mut reader = engine(kind).reader().unwrap();
    let events = printed.lines().flat_map(|line| reader.line(line)).collect();
    (events, reader.verdict(end))
}

fn shown(events: &[AgentEvent], verdict: &Verdict) -> String {
    let mut shown = String::new();
    for event in events {
        writeln!(shown, "{}", serde_json::to_string(event).unwrap()).unwrap();
    }
    write!(shown, "{verdict:?}").unwrap();
    shown
}

// ---------------------------------------------------------------- aider

/// Its recordings: the case, how it ended, what it printed.
fn recordings() -> Vec<(String, ProcessEnd, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts/aider");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let (case, end) = stem.rsplit_once('.').unwrap();
            let end = end.parse().map_or(ProcessEnd::Signalled(9), ProcessEnd::Exited);
            (case.to_owned(), end, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn what_aider_prints_is_read_as_it_was_meant() {
    for (case, end, printed) in recordings() {
        let (events, verdict) = read(EngineKind::Aider, &printed, end);
        insta::assert_snapshot!(format!("aider__{case}"), shown(&events, &verdict));
    }
}

/// It returns 0 when its model's server refused, when the answer made no sense, and when it worked.
#[test]
fn aider_is_judged_by_what_it_says() {
    for (case, done) in [
        ("work-done", true),
        ("said-only", true),
        ("edit-fails", false),
        ("budget-ends", false),
        ("key-wrong", false),
        ("garbage-html", false),
    ] {
        let all = recordings();
        let (_, end, printed) =
            all.iter().find(|(one, ..)| one == case).unwrap_or_else(|| panic!("no {case}"));
        let (events, verdict) = read(EngineKind::Aider, printed, *end);
        assert_eq!(verdict == Verdict::Done, done, "{case}: {verdict:?} {events:#?}");
        if case != "garbage-html" {
            assert_eq!(*end, ProcessEnd::Exited(0), "{case}");
        }
        let edited = events.iter().any(|event| matches!(event, AgentEvent::FileChange { .. }));
        assert_eq!(edited, case == "work-done");
        for end in [ProcessEnd::Exited(1), ProcessEnd::Signalled(15)] {
            assert_ne!(read(EngineKind::Aider, printed, end).1, Verdict::Done);
        }
    }
    assert_ne!(read(EngineKind::Aider, "", ProcessEnd::Exited(0)).1, Verdict::Done, "nothing was said");
}

// ---------------------------------------------------------------- coven

fn result(status: &str) -> Value {
    json!({
        "contract_version": "2", "status": status, "branch": null, "commits": [], "files_changed": ["src/a.rs"],
        "summary": "Fixed the typo.", "pr_body": "The word was wrong.",
        "review": { "mode": "none", "evidence_status": "not_applicable", "reviewed_files": [],
            "supporting_files": [], "findings": [], "tests_run": [], "no_findings_reason": null, "limitations": [] },
        "exit_reason": null,
    })
}

/// What the shell prints around a result.
fn printed(before: &str, result: &str) -> String {
    format!("{before}\ntipstaff: the result begins\n{result}\ntipstaff: the result ends\n")
}

#[test]
fn a_result_and_its_exit_code_make_the_verdict() {
    let judged = |result: &str, code| match read(
        EngineKind::Coven,
        &printed("", result),
        ProcessEnd::Exited(code),
    )
    .1
    {
        Verdict::Done => "done".to_owned(),
        Verdict::Failed { why } => why.unwrap(),
    };
    let of = |status: &str, code| judged(&result(status).to_string(), code);
    assert_eq!(of("success", 0), "done");
    assert_eq!(of("partial", 0), "done");
    assert_eq!(of("failure", 0), "it ended with code 0 and the status failure: Fixed the typo.");
    assert_eq!(of("needs_input", 0), "it ended with code 0 and the status needs_input: Fixed the typo.");
    assert_eq!(of("failure", 1), "it gave up: Fixed the typo.");
    assert_eq!(of("success", 1), "it gave up: Fixed the typo.", "the code counts more");
    let again = |why: &str| {
        format!(
            "its workspace, git or tools failed: {why}; by its contract the task itself is not at fault: start the run \
             again as it was"
        )
    };
    assert_eq!(of("failure", 2), again("Fixed the typo."));
    assert_eq!(judged("", 2), again("it gives no reason"), "it owes no result then");
    assert_eq!(judged("{half", 2), again("its result.json is no JSON"));
    assert_eq!(
        of("needs_input", 3),
        "it needs an answer first: Fixed the typo.; start a run with the answer in its prompt"
    );
    assert_eq!(of("success", 9), "it ended with code 9, which its contract does not know");
    for code in [0, 1, 3, 9] {
        assert_eq!(judged("", code), format!("it ended with code {code} and without a result"));
    }
    assert_eq!(judged("{half", 0), "its result.json is no JSON");
    assert_eq!(judged("[]", 0), "its result.json has another version of the contract than 2");
    let mut other = result("success");
    other["contract_version"] = json!("1");
    assert_eq!(judged(&other.to_string(), 0), "its result.json has another version of the contract than 2");
    assert_eq!(of("splendid", 0), "its result.json has a status that the contract does not know");
    for missing in ["summary", "pr_body", "commits", "files_changed", "review"] {
        let mut other = result("success");
        other.as_object_mut().unwrap().remove(missing);
        assert_eq!(
            judged(&other.to_string(), 0),
            "its result.json lacks what the contract demands",
            "{missing}"
        );
    }
    let long = format!("\"{}\"", "x".repeat(300 * 1024));
    assert_eq!(judged(&long, 0), "its result.json is longer than 256 KiB");
}

#[test]
fn what_a_result_says_is_told() {
    let mut full = result("needs_input");
    full["review"]["findings"] = json!([
        { "severity": "high", "file": "src/a.rs", "line": 3, "title": "Races", "body": "Two threads." }
    ]);
    let (events, verdict) =
        read(EngineKind::Coven, &printed("a word of its own", &format!("{full:#}")), ProcessEnd::Exited(3));
    insta::assert_snapshot!(shown(&events, &verdict), @r#"
    {"type":"raw","value":{"text":"a word of its own"}}
    {"type":"file_change","path":"src/a.rs","change":"changed"}
    {"type":"text","text":"high src/a.rs:3: Races\nTwo threads."}
    {"type":"text","text":"The word was wrong."}
    {"type":"question","text":"Fixed the typo."}
    {"type":"finished","ok":false,"summary":"Fixed the typo.","turns":null}
    Failed { why: Some("it needs an answer first: Fixed the typo.; start a run with the answer in its prompt") }
    "#);
}

/// The program can print the marks too. What the shell prints comes last, and counts.
#[test]
fn the_last_result_counts() {
    let good = result("success").to_string();
    let forged = printed(&printed("", &good), "");
    assert_ne!(read(EngineKind::Coven, &forged, ProcessEnd::Exited(0)).1, Verdict::Done, "it left no result");
    let open = format!("tipstaff: the result begins\n{good}\n{}", printed("", &good));
    assert_eq!(read(EngineKind::Coven, &open, ProcessEnd::Exited(0)).1, Verdict::Done);
    let cut = format!("tipstaff: the result begins\n{good}\n");
    assert_ne!(read(EngineKind::Coven, &cut, ProcessEnd::Exited(0)).1, Verdict::Done, "it was cut off");
}

#[test]
fn the_brief_keeps_to_the_contract_and_holds_no_token() {
    let mut request = EngineRequest {
        command: &[],
        prompt: Some("Fix the typo.\n\nIt is in the README."),
        model: None,
        provider: None,
        instructions: "Be brief.",
        broker: "http://127.0.0.1:8080",
        home: "/home/agent",
        may_write: true,
        attended: false,
        keeps_session: false,
        resume: None,
    };
    let brief = |request: &EngineRequest<'_>| -> Value {
        let made = engine(EngineKind::Coven).invocation(request).unwrap();
        let file = made.home.iter().find(|file| file.path == ".tipstaff/brief.json").unwrap();
        assert!(!file.content.contains("token") && !file.content.contains("auth\""), "{}", file.content);
        serde_json::from_str(&file.content).unwrap()
    };
    let fix = brief(&request);
    assert_eq!((&fix["contract_version"], &fix["trigger"]), (&json!("2"), &json!("issue_assigned")));
    assert_eq!(fix["task"]["kind"], "fix_issue");
    assert_eq!(fix["task"]["issue_title"], "Fix the typo. It is in the README.");
    assert!(fix["task"]["issue_number"].is_u64() && fix["workspace"]["root"] == "/work");
    assert_eq!(fix["familiar"]["model"], "anthropic/claude-sonnet-5-5");
    request.may_write = false;
    let answer = brief(&request);
    assert_eq!(
        (&answer["trigger"], &answer["task"]["kind"]),
        (&json!("issue_mention"), &json!("respond_to_mention"))
    );
}

//! Agents that nobody can speak with, Aider and Coven Code, from the command line to the result: programs under their
//! names that keep to what the real ones print and leave, and that break it.

use crate::bad_agents::Scene;
use crate::world::Ended;
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the real one prints before it works, and between.
const AIDER: &str = r#"
for word in "$@"; do case $word in --message-file=*) prompt=${word#*=};; --read=*) notes=${word#*=};; esac; done
test -s "$prompt" && test -s "$notes" && test "$OPENAI_API_KEY" = tipstaff-placeholder || exit 9
say() { printf '%s\n' "$@"; }
say 'Analytics have been permanently disabled.' 'Aider v0.86.2' 'Model: openai/gpt-5.5 with diff edit format' \
    'Git repo: .git with 2 files' 'Repo-map: disabled' "Added $notes to the chat (read-only)." ''
"#;

fn aider(work: &str) -> Scene {
    Scene::new("aider", "aider 0.86.2", &format!("{AIDER}\n{work}"))
}

/// A `coven-code` that checks its brief, does something in the workspace, and leaves what the contract wants.
fn coven(work: &str, result: Option<&Value>, code: i32) -> Scene {
    let result =
        result.map(|result| format!("cat > \"$5\" <<'RESULT'\n{result}\nRESULT")).unwrap_or_default();
    Scene::new(
        "coven-code",
        "coven-code 0.6.1",
        &format!(
            "[ \"$1 $2 $4\" = '--headless --context --output' ] || exit 9\n\
             grep -q '\"contract_version\": \"2\"' \"$3\" && grep -q 'do something' \"$3\" || exit 9\n\
             {work}\n{result}\nexit {code}"
        ),
    )
}

fn result(status: &str, summary: &str) -> Value {
    json!({
        "contract_version": "2", "status": status, "branch": null, "commits": [], "files_changed": ["fixed.txt"],
        "summary": summary, "pr_body": format!("{summary} In full."),
        "review": { "mode": "none", "evidence_status": "not_applicable", "reviewed_files": [],
            "supporting_files": [], "findings": [], "tests_run": [], "no_findings_reason": null, "limitations": [] },
        "exit_reason": null,
    })
}

fn told(scene: &Scene, args: &[&str]) -> String {
    let ended = scene.world.tipstaff_in(&scene.repository, args).expect(0);
    format!("{}{}", ended.stdout, ended.stderr)
}

/// Done, with its change in the result and its words in the replay.
fn is_done(scene: &Scene, ended: &Ended, change: &str, words: &[&str]) {
    let summary = ended.json();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!((&summary["state"], &summary["files_changed"]), (&json!("done"), &json!(1)), "{summary}");
    assert!(told(scene, &["runs", "diff"]).contains(change));
    for words in words {
        for view in [&["runs", "show", "--transcript"][..], &["runs", "replay", "--speed", "0"]] {
            let told = told(scene, view);
            assert!(told.contains(words), "{words} is not in {told}");
        }
    }
    scene.world.tipstaff(&["audit", "verify"]).expect(0);
}

/// Failed, with this reason in the result and to the person.
fn has_failed(ended: &Ended, reason: &str) -> Value {
    let summary = ended.json();
    assert_eq!(
        (&summary["state"], &summary["exit_reason"]),
        (&json!("failed"), &json!("agent_failed")),
        "{ended:#?}"
    );
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(summary["error"].as_str().unwrap().contains(reason), "{summary}");
    summary
}

#[test]
fn aider_does_its_work() {
    let scene = aider(
        "say 'I change the file.' '' 'hello.txt' '<<<<<<< SEARCH' '=======' 'hello' '>>>>>>> REPLACE' ''\n\
         echo hello > hello.txt\n\
         say 'Tokens: 1.2k sent, 85 received.' '' 'hello.txt' 'Applied edit to hello.txt'",
    );
    let ended = scene.run("aider", &[]);
    is_done(&scene, &ended, "+hello", &["I change the file.", "changed hello.txt"]);
}

#[test]
fn aider_that_ends_with_0_and_an_error_has_failed() {
    for (work, reason) in [
        (
            "say 'litellm.AuthenticationError: AuthenticationError: OpenAIException - no such key' \
             'The API provider is not able to authenticate you. Check your API key.'",
            "no such key",
        ),
        (
            "say 'Tokens: 1.2k sent, 85 received.' 'The LLM did not conform to the edit format.' \
             '# 1 SEARCH/REPLACE block failed to match!'; echo half > half.txt",
            "failed to match",
        ),
        ("", "without a result"),
        ("say 'Tokens: 1k sent, 2 received.'; exit 3", "code 3"),
    ] {
        let scene = aider(work);
        let summary = has_failed(&scene.run("aider", &[]), reason);
        assert_eq!(
            summary["files_changed"],
            u64::from(work.contains("half.txt")),
            "the work is kept: {summary}"
        );
    }
}

#[test]
fn coven_does_its_work() {
    let done = result("success", "Fixed the typo.");
    let scene = coven("echo fixed > fixed.txt; echo working", Some(&done), 0);
    let ended = scene.run("coven", &[]);
    is_done(&scene, &ended, "+fixed", &["Fixed the typo. In full.", "fixed.txt"]);
}

#[test]
fn coven_says_what_is_to_be_done_when_it_is_not_done() {
    let gave_up = result("failure", "Too hard.");
    let asks = result("needs_input", "Which of the two?");
    let mut broken = result("success", "Fixed.");
    broken["contract_version"] = json!("1");
    for (work, result, code, reasons) in [
        ("", Some(&gave_up), 1, &["it gave up: Too hard."][..]),
        // Nothing of the task's: the contract has it tried again.
        (
            "echo 'error: the disk is full' >&2",
            None,
            2,
            &["the disk is full", "start the run again as it was"],
        ),
        ("", Some(&asks), 3, &["Which of the two?", "with the answer in its prompt"]),
        ("", Some(&broken), 0, &["another version of the contract"]),
        ("printf '{\"contract_version\": \"2\"' > \"$5\"", None, 0, &["no JSON"]),
        ("", None, 0, &["code 0 and without a result"]),
        // What it prints is no result.
        ("echo 'tipstaff: the result begins'; echo '{}'", None, 0, &["without a result"]),
    ] {
        let scene = coven(&format!("echo kept > kept.txt; {work}"), result, code);
        let ended = scene.run("coven", &[]);
        for reason in reasons {
            let summary = has_failed(&ended, reason);
            assert_eq!(summary["files_changed"], 1, "the work is kept: {summary}");
            let shown = told(&scene, &["runs", "show"]);
            assert!(shown.contains(reason), "{reason}: {shown}");
        }
    }
}

#[test]
fn both_are_cancelled_and_keep_their_work() {
    for (engine, scene) in [
        ("aider", aider("say 'I begin.'; echo half > half.txt; trap '' TERM; while :; do sleep 1; done")),
        (
            "coven",
            coven("echo I begin.; echo half > half.txt; trap '' TERM; while :; do sleep 1; done", None, 0),
        ),
    ] {
        let mut command = scene.command(engine, &[]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        let has_begun = || {
            let shown = scene.world.tipstaff_in(&scene.repository, &["runs", "export"]);
            shown.stdout.contains("I begin.")
        };
        while !has_begun() {
            assert!(begun.elapsed() < PATIENCE, "{engine} says nothing");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let said = scene.world.tipstaff_in(&scene.repository, &["runs", "say", "hello", "--json"]);
        assert_ne!(said.code, Some(0), "{engine}: nobody can speak with it: {said:?}");
        let list = scene.world.tipstaff(&["runs", "list", "--json"]).expect(0).json();
        let run = list["run"].as_str().or_else(|| list["id"].as_str()).unwrap();
        scene.world.tipstaff(&["runs", "cancel", run]).expect(0);
        let summary = crate::world::wait(child, PATIENCE).json();
        assert_eq!(
            (&summary["state"], &summary["exit_reason"], &summary["files_changed"]),
            (&json!("cancelled"), &json!("cancelled_by_person"), &json!(1)),
            "{engine}: {summary}"
        );
        let replayed = told(&scene, &["runs", "replay", "--speed", "0"]);
        assert!(replayed.contains("cancelled"), "{engine}: {replayed}");
        // What coven-code prints is no part of its contract: it is kept as it came, and not shown.
        assert_eq!(replayed.contains("I begin."), engine == "aider", "{engine}: {replayed}");
    }
}

#[test]
fn neither_is_attended() {
    for (engine, scene) in [("aider", aider("exit 0")), ("coven", coven("", None, 0))] {
        let mut command = scene.command(engine, &[]);
        let refused = crate::world::run({
            command.arg("--attended");
            command
        });
        let refused = refused.expect(2).json();
        assert_eq!(refused["error"]["code"], "engine-not-attended", "{engine}: {refused}");
        // Nor where a rule wants to be asked that only the agent could keep.
        scene.world.write(&scene.repository.join("tipstaff.toml"), "[policy]\ndefault = \"ask\"\n");
        scene.world.commit(&scene.repository, "policy");
        let ended = scene.run(engine, &[]);
        let summary = ended.json();
        assert_eq!(summary["refusals"][0]["rule"], "policy-denied", "{engine}: {ended:#?}");
    }
}

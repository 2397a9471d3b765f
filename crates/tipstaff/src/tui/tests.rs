//! The screen, drawn into cells and driven by keys. The same screens stand in docs/terminal.md.

use super::choose::{self, Choice};
use super::facts::{Facts, InForce, Snapshot};
use super::screen::{LOOK_FIRST_MS, Order, Screen, View};
use super::{text, view};
use crate::learn::Refused;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use serde_json::{Value, json};
use tipstaff_model::EventKind;
use tipstaff_model::approval::ApprovalScope;
use tipstaff_model::{
    Approval, ApprovalId, ExitReason, MicroUsd, Refusal, Rule, RunId, RunState, SteerKind, TaskId, TaskSpec,
    WarrantId,
};
use tipstaff_store::Event;

/// 2026-11-22 10:00:00 UTC
const START: i64 = 1_795_341_600_000;

fn spec() -> TaskSpec {
    serde_json::from_value(json!({
        "repository": "local/shop", "source": "/home/ada/shop", "base": "refs/heads/main",
        "base_commit": "1129f5ab1b627b6de470833ebfff3159d5840a43", "role": "builder", "engine": "claude-code",
        "agent": "claude-builder", "argv": [], "prompt": "make the flaky test reliable",
        "model": "claude-sonnet-4-5", "provider": "anthropic", "budget_micro_usd": 2_000_000,
        "timeout_ms": 3_600_000, "allow_hosts": ["registry:npm"], "submodules": false, "lfs": false,
    }))
    .unwrap()
}

fn snapshot(after_ms: i64, state: RunState) -> Snapshot {
    Snapshot {
        now: START + after_ms,
        state,
        reason: None,
        error: None,
        started_at: START,
        ended_at: None,
        warrant: Some(InForce {
            id: WarrantId::from_bytes([3; 16]),
            expires_at: START + 3_700_000,
            wall_ms: 3_600_000,
            budget: MicroUsd::from_micro(2_000_000),
        }),
        spent: MicroUsd::from_micro(420_000),
        change: None,
        pending: Vec::new(),
        refused: Vec::new(),
    }
}

fn event(after_ms: i64, kind: EventKind, body: Value) -> Event {
    Event { seq: 1, at: START + after_ms, kind, body }
}

fn agent(after_ms: i64, body: Value) -> Event {
    event(after_ms, EventKind::Agent, body)
}

fn run() -> RunId {
    "01a200aa-2a14-7597-9ca6-62819a004315".parse().unwrap()
}

fn task() -> TaskId {
    "01a200aa-2a14-7597-9ca6-6281967b1253".parse().unwrap()
}

fn approval(id: u8, action: Value, risk: &str, because: &[&str]) -> Approval {
    serde_json::from_value(json!({
        "run": run(), "id": ApprovalId::from_bytes([id; 16]), "warrant": WarrantId::from_bytes([3; 16]),
        "digest": "3f9a0c12d5e6".repeat(5) + "0000", "action": action, "risk": risk, "because": because,
        "asked_at": START + 130_000, "expires_at": START + 430_000, "state": "pending",
    }))
    .unwrap()
}

fn push_question() -> Approval {
    let action = json!({
        "kind": "execute", "tool": "Bash", "title": "git push origin HEAD",
        "commands": ["git push origin HEAD"], "input": {"command": "git push origin HEAD"},
    });
    approval(7, action, "high", &["it pushes", "the policy of the org says ask"])
}

fn edit_question() -> Approval {
    let action = json!({
        "kind": "edit", "tool": "Edit", "title": "tests/cart.rs", "paths": ["/work/tests/cart.rs", "src/lib.rs"],
        "input": {"file_path": "/work/tests/cart.rs", "new_string": "x"},
    });
    approval(8, action, "medium", &[])
}

/// A screen in the middle of its work.
fn working(columns: u16, rows: u16) -> Screen {
    let facts = Facts::new(run(), task(), false, &spec(), Some("agent/builder-task-967b1253"));
    let mut screen = Screen::new(facts, snapshot(133_000, RunState::Running));
    screen.fit(columns, rows);
    for event in [
        event(0, EventKind::State, json!({"state": "running", "reason": null})),
        agent(
            900,
            json!({"type": "started", "session": "s", "model": "claude-sonnet-4-5", "version": "2.1.0"}),
        ),
        agent(4_000, json!({"type": "text", "text": "I will look at the test that fails now and then."})),
        agent(
            4_100,
            json!({"type": "tool_call", "id": "1", "name": "Read", "title": "tests/cart.rs", "input": {}}),
        ),
        agent(4_200, json!({"type": "tool_result", "id": "1", "ok": true, "output": "use shop::Cart;\n…"})),
        agent(19_000, json!({"type": "text", "text": "It waits for a fixed time. "})),
        agent(
            19_500,
            json!({"type": "text", "text": "I make it wait for the event instead.", "delta": true}),
        ),
        agent(
            20_000,
            json!({"type": "tool_call", "id": "2", "name": "Edit", "title": "tests/cart.rs", "input": {}}),
        ),
        agent(20_300, json!({"type": "file_change", "path": "tests/cart.rs", "change": "changed"})),
        agent(20_400, json!({"type": "file_change", "path": "tests/support/wait.rs", "change": "added"})),
        agent(20_500, json!({"type": "tool_result", "id": "2", "ok": true, "output": "done"})),
        agent(
            30_000,
            json!({"type": "tool_call", "id": "3", "name": "Bash", "title": "curl -sS https://api.example.com/schema.json", "input": {}}),
        ),
        event(
            30_100,
            EventKind::Refusal,
            json!({
                "rule": "host-not-granted", "wanted": "api.example.com:443", "why": "the warrant grants no such host",
            }),
        ),
        agent(
            30_500,
            json!({"type": "tool_result", "id": "3", "ok": false, "output": "curl: (56) CONNECT tunnel failed, response 403"}),
        ),
        agent(
            121_000,
            json!({"type": "tool_call", "id": "4", "name": "Bash", "title": "cargo test --test cart", "input": {}}),
        ),
    ] {
        screen.event(&event);
    }
    let mut now = snapshot(133_000, RunState::Running);
    now.refused = vec![
        refused(Rule::HostNotGranted, "api.example.com:443", 3),
        refused(Rule::RefNotGranted, "refs/heads/main", 1),
    ];
    screen.take(now);
    screen.fit(columns, rows);
    screen
}

fn refused(rule: Rule, wanted: &str, times: u64) -> Refused {
    Refused { run: run(), refusal: Refusal::new(rule, wanted, "the warrant does not grant it"), times }
}

/// The same with questions that have stood there for a while.
fn asking(columns: u16, rows: u16, questions: Vec<Approval>) -> Screen {
    let mut screen = working(columns, rows);
    for after in [133_000, 134_000] {
        let mut now = snapshot(after, RunState::NeedsInput);
        now.pending.clone_from(&questions);
        now.refused.clone_from(&screen.now.refused);
        screen.take(now);
    }
    screen.fit(columns, rows);
    screen
}

fn draw(screen: &mut Screen, colour: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(screen.size.0, screen.size.1)).unwrap();
    terminal
        .draw(|frame| {
            let area = frame.area();
            screen.fit(area.width, area.height);
            view::render(screen, area, frame.buffer_mut(), colour);
        })
        .unwrap();
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> String {
    let area = buffer.area;
    let mut page = String::new();
    for y in 0..area.height {
        let mut line = String::new();
        let mut x = 0;
        while x < area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += u16::try_from(text::width(symbol).max(1)).unwrap();
        }
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page
}

fn page(screen: &mut Screen) -> String {
    lines(&draw(screen, true))
}

fn press(screen: &mut Screen, keys: &str) -> Option<Order> {
    let mut order = None;
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            '\u{8}' => KeyCode::Backspace,
            '↓' => KeyCode::PageDown,
            c => KeyCode::Char(c),
        };
        order = screen.key(KeyEvent::new(code, KeyModifiers::NONE), screen.now.now);
        screen.fit(screen.size.0, screen.size.1);
    }
    order
}

fn press_control(screen: &mut Screen, c: char) -> Option<Order> {
    screen.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL), screen.now.now)
}

/// Every screen of the documentation, by name.
fn documented() -> Vec<(&'static str, String)> {
    let mut blocked = working(80, 24);
    press(&mut blocked, "b");
    let mut message = working(80, 24);
    press(&mut message, "mLeave the public API as it is");
    let mut paths = asking(80, 24, vec![edit_question(), push_question()]);
    press(&mut paths, "p");
    let mut whole = asking(80, 24, vec![push_question()]);
    press(&mut whole, "v");
    let mut help = working(80, 24);
    press(&mut help, "?");
    vec![
        ("working", page(&mut working(80, 24))),
        ("question", page(&mut asking(80, 24, vec![push_question()]))),
        ("paths", page(&mut paths)),
        ("action", page(&mut whole)),
        ("blocked", page(&mut blocked)),
        ("message", page(&mut message)),
        ("wide", page(&mut working(120, 40))),
        ("help", page(&mut help)),
        ("small", page(&mut working(40, 12))),
    ]
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the test that keeps the documentation is told so by its caller"
)]
fn the_screens_of_the_documentation_are_these() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let write = std::env::var_os("TIPSTAFF_WRITE_SCREENS").is_some();
    let screens = documented();
    for (path, names) in [
        ("docs/terminal.md", screens.iter().map(|(name, _)| *name).collect::<Vec<_>>()),
        ("README.md", vec!["question"]),
    ] {
        let path = format!("{root}/{path}");
        let before = std::fs::read_to_string(&path).unwrap();
        let mut after = before.clone();
        for name in names {
            let drawn = &screens.iter().find(|(one, _)| *one == name).unwrap().1;
            let (start, end) = (format!("<!-- screen: {name} -->\n"), format!("<!-- end of {name} -->"));
            let from = after.find(&start).unwrap_or_else(|| panic!("{path} has no {start}")) + start.len();
            let to = from + after[from..].find(&end).unwrap_or_else(|| panic!("{path} has no {end}"));
            after.replace_range(from..to, &format!("```text\n{drawn}```\n"));
        }
        if write {
            std::fs::write(&path, &after).unwrap();
        } else {
            assert!(
                before == after,
                "{path} is stale: set TIPSTAFF_WRITE_SCREENS=1 and run this test again\n{after}"
            );
        }
    }
}

#[test]
fn a_terminal_that_is_too_small_says_so_and_can_be_left() {
    let mut screen = asking(40, 12, vec![push_question()]);
    assert!(page(&mut screen).contains("A question waits for you."));
    assert_eq!(press(&mut screen, "a"), None);
    assert_eq!(press(&mut screen, "q"), Some(Order::Leave));
    for (columns, rows) in [(1, 1), (2, 40), (60, 1), (1, 100), (59, 16), (60, 15)] {
        let mut screen = asking(columns, rows, vec![push_question(), edit_question()]);
        draw(&mut screen, true);
    }
}

#[test]
fn every_view_draws_at_every_size() {
    for (columns, rows) in [(60, 16), (80, 24), (109, 20), (110, 60), (250, 100), (60, 200)] {
        for keys in ["", "?", "b", "d", "v", "m", "mhello", "n", "p", "c"] {
            let mut screen = asking(columns, rows, vec![edit_question(), push_question()]);
            press(&mut screen, keys);
            let page = page(&mut screen);
            assert_eq!(page.lines().count(), usize::from(rows), "{keys} at {columns}x{rows}");
            assert!(page.starts_with("run 9a004315  needs input"), "{page}");
        }
    }
}

#[test]
fn without_colour_there_is_none_and_nothing_is_lost() {
    let is_plain = |buffer: &Buffer| {
        buffer.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    };
    let mut screen = asking(80, 24, vec![push_question()]);
    let (coloured, plain) = (draw(&mut screen, true), draw(&mut screen, false));
    assert!(!is_plain(&coloured) && is_plain(&plain));
    assert_eq!(lines(&coloured), lines(&plain));
}

#[test]
fn answers_are_about_the_question_on_the_screen() {
    let (push, edit) = (push_question(), edit_question());
    let answer = |keys: &str, questions: &[&Approval]| {
        let questions = questions.iter().map(|one| (*one).clone()).collect();
        press(&mut asking(80, 24, questions), keys)
    };
    let of = |order: Option<Order>| match order {
        Some(Order::Answer(id, answer)) => (id, answer),
        other => panic!("{other:?}"),
    };
    let (id, once) = of(answer("a", &[&push, &edit]));
    assert_eq!((id, once.allow, once.scope), (push.request.id, true, ApprovalScope::Once));
    let (id, run) = of(answer("\tr", &[&push, &edit]));
    assert_eq!((id, run.allow, run.scope), (edit.request.id, true, ApprovalScope::Run));
    let (id, no) = of(answer("nnot now\n", &[&push]));
    assert_eq!((id, no.allow, no.reason.as_deref()), (push.request.id, false, Some("not now")));
    let (_, silent) = of(answer("n\n", &[&push]));
    assert_eq!((silent.allow, silent.reason), (false, None));
    let (_, paths) = of(answer("p\n", &[&edit]));
    let patterns = ["tests/**", "src/**"].map(|pattern| pattern.parse().unwrap()).to_vec();
    assert_eq!(paths.scope, ApprovalScope::Paths { patterns });
    // Nothing names files, nothing waits, nothing was typed.
    assert_eq!(answer("p\n", &[&push]), None);
    assert_eq!(answer("a", &[]), None);
    assert_eq!(answer("n\u{1b}", &[&push]), None);
    // Not from where the question is not shown.
    assert_eq!(answer("ba", &[&push]), None);
    assert_eq!(answer("?r", &[&push]), None);
}

#[test]
fn a_question_that_has_just_come_up_is_not_answered_by_a_slip() {
    let mut screen = working(80, 24);
    let mut now = snapshot(134_000, RunState::NeedsInput);
    now.pending = vec![push_question()];
    screen.take(now);
    screen.fit(80, 24);
    assert_eq!(press(&mut screen, "a"), None);
    assert!(page(&mut screen).contains("look at it, then press the key again"));
    let later = screen.now.now + i64::try_from(LOOK_FIRST_MS).unwrap();
    let key = KeyEvent::new(KeyCode::Char('a'), KeyModifiers::NONE);
    assert!(matches!(screen.key(key, later), Some(Order::Answer(..))));
}

#[test]
fn a_question_keeps_its_place_until_it_is_over() {
    let (push, edit) = (push_question(), edit_question());
    let mut screen = asking(80, 24, vec![push.clone()]);
    // An older one comes up from elsewhere: what is on the screen stays.
    let mut now = snapshot(135_000, RunState::NeedsInput);
    now.pending = vec![edit.clone(), push.clone()];
    screen.take(now.clone());
    assert_eq!(screen.question().unwrap().request.id, push.request.id);
    // Answered elsewhere, while a reason is typed: nothing is sent, and the key that follows answers nothing.
    press(&mut screen, "nbec");
    now.pending = vec![edit];
    now.now += 1_000;
    screen.take(now.clone());
    assert!(page(&mut screen).contains("no longer waits: nothing was sent"));
    assert_eq!(press(&mut screen, "a"), None);
    // Nobody answered in time.
    now.now = START + 430_000;
    screen.take(now);
    assert_eq!((screen.question(), screen.now.pending.len()), (None, 0));
}

#[test]
fn what_was_not_shown_whole_is_not_allowed() {
    let command = (0..60).map(|number| format!("echo step {number}\n")).collect::<String>() + "rm -rf /work";
    let action =
        json!({"kind": "execute", "tool": "Bash", "title": "echo", "commands": [command], "input": {}});
    let mut screen = asking(80, 24, vec![approval(9, action, "high", &["it removes files"])]);
    assert!(page(&mut screen).contains("more rows: v shows all of it"));
    assert_eq!(press(&mut screen, "a"), None);
    assert_eq!(screen.view, View::Action);
    assert_eq!(press(&mut screen, "a"), None);
    assert!(!page(&mut screen).contains("rm -rf"));
    let order = press(&mut screen, "↓↓↓↓↓↓a");
    assert!(matches!(order, Some(Order::Answer(..))), "{order:?}\n{}", page(&mut screen));
    // A no needs no reading.
    let action = json!({"kind": "other", "tool": "x", "title": "y", "input": "z".repeat(5_000)});
    let mut screen = asking(80, 24, vec![approval(9, action, "low", &[])]);
    assert!(matches!(press(&mut screen, "n\n"), Some(Order::Answer(..))));
}

#[test]
fn keys_steer_the_run() {
    let order = |keys: &str| press(&mut working(80, 24), keys);
    assert_eq!(order("i"), Some(Order::Steer(SteerKind::Interrupt)));
    assert_eq!(order(" "), Some(Order::Steer(SteerKind::Pause)));
    assert_eq!(order("mhi q\n"), Some(Order::Steer(SteerKind::Message { text: "hi q".into() })));
    assert_eq!(order("m\n"), None);
    assert_eq!(
        (order("c"), order("cn"), order("cx\n"), order("cy")),
        (None, None, None, Some(Order::Cancel))
    );
    assert_eq!(order("bw"), Some(Order::Propose));
    assert_eq!(order("w"), None);
    assert_eq!(order("q"), Some(Order::Leave));
    assert_eq!(press_control(&mut working(80, 24), 'c'), Some(Order::Interrupt));
    let mut typing = working(80, 24);
    press(&mut typing, "mhello");
    assert_eq!(press_control(&mut typing, 'c'), Some(Order::Interrupt));
    // Pausing is known from the story, whoever paused.
    let mut screen = working(80, 24);
    let by = |kind: &str, state: &str| {
        event(
            1,
            EventKind::Steer,
            json!({"id": "01a200aa-2a14-7597-9ca6-62819a004315", "type": kind, "by": "member:x",
            "at": 1, "state": state}),
        )
    };
    screen.event(&by("pause", "waiting"));
    assert!(!screen.paused);
    screen.event(&by("pause", "taken"));
    assert!(page(&mut screen).contains("PAUSED"));
    assert_eq!(press(&mut screen, " "), Some(Order::Steer(SteerKind::Resume)));
    screen.event(&by("resume", "taken"));
    assert!(!screen.paused);
    // Nothing is told to a run that has ended.
    let mut now = snapshot(140_000, RunState::Failed);
    now.reason = Some(ExitReason::CommandFailed);
    now.ended_at = Some(now.now);
    now.change = Some((2, 10, 3));
    screen.take(now);
    assert_eq!(
        (press(&mut screen, "i"), press(&mut screen, "cy"), press(&mut screen, " ")),
        (None, None, None)
    );
    assert_eq!(press(&mut screen, "d"), Some(Order::ReadChange));
    screen.show_patch("diff --git a/x b/x\n@@ -1 +1 @@\n-old\n+new\n");
    assert!(page(&mut screen).contains("\n-old\n+new\n"));
}

#[test]
fn what_is_pasted_is_text_and_never_a_key() {
    let mut screen = asking(80, 24, vec![push_question()]);
    screen.paste("a\rcy");
    assert_eq!((screen.prompt.is_none(), screen.question().is_some()), (true, true));
    press(&mut screen, "m");
    screen.paste("one\r\ntwo \u{1b}[31m\u{202e}red");
    let text = "one\ntwo <U+202E>red".to_owned();
    assert_eq!(press(&mut screen, "\n"), Some(Order::Steer(SteerKind::Message { text })));
}

#[test]
fn a_line_is_edited_as_people_expect() {
    let mut screen = working(60, 16);
    press(&mut screen, "mone two three");
    press_control(&mut screen, 'w');
    press(&mut screen, "\u{8}\u{8}");
    press_control(&mut screen, 'a');
    press(&mut screen, "say ");
    press_control(&mut screen, 'e');
    press(&mut screen, "!");
    assert_eq!(
        press(&mut screen, "\n"),
        Some(Order::Steer(SteerKind::Message { text: "say one tw!".into() }))
    );
    // A long line shows its end.
    press(&mut screen, "m");
    screen.paste(&"漢字".repeat(3_000));
    press(&mut screen, "END");
    assert!(page(&mut screen).contains("END"));
    press_control(&mut screen, 'u');
    assert_eq!(press(&mut screen, "\n"), None);
}

/// Everything that a run, a model or a repository may try to do to a terminal.
const HOSTILE: [&str; 9] = [
    "\u{1b}[2J\u{1b}[1;1Hgone",
    "\u{1b}]0;title\u{7}\u{1b}]52;c;ZXZpbA==\u{7}",
    "\u{9b}31m\u{90}1;1|x\u{9c}",
    "allow \u{202e}yned\u{202c} \u{200b}\u{feff}",
    "\r\u{8}\u{8}\u{8}overwritten\u{7}",
    "👩\u{200d}👩\u{200d}👧\u{200d}👦 ❤\u{fe0f} \u{1f1e9}\u{1f1ea} 漢字ｗｉｄｅ",
    "z\u{300}\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}\u{307}\u{308}algo",
    "\u{1b}[?1049l\u{1b}[?1000h\u{1b}Pq\u{1b}\\\u{1b}c",
    "\u{e0041}\u{e0042}tags\u{3164}\u{115f}",
];

#[test]
fn no_text_of_a_run_reaches_the_terminal_as_more_than_text() {
    let evil = HOSTILE.concat();
    let long = format!("{evil}{}", "x漢".repeat(20_000));
    let mut spec = spec();
    spec.agent = Some(evil.clone());
    spec.prompt = Some(long.clone());
    spec.source.clone_from(&evil);
    let facts = Facts::new(run(), task(), true, &spec, Some(&evil));
    let mut screen = Screen::new(facts, snapshot(1_000, RunState::Running));
    for text in HOSTILE.into_iter().chain([evil.as_str(), long.as_str()]) {
        for event in [
            event(1, EventKind::Stdout, json!({"text": text})),
            event(1, EventKind::Stderr, json!({"text": text})),
            event(1, EventKind::Notice, json!({"text": text})),
            event(1, EventKind::State, json!({"state": text, "reason": text})),
            event(1, EventKind::Files, json!({"text": text})),
            event(1, EventKind::Push, json!({"ref": text, "new": text})),
            event(1, EventKind::Verify, json!({"step": 1, "command": text, "code": 1})),
            event(1, EventKind::Refusal, json!({"rule": text, "wanted": text, "why": text})),
            event(
                1,
                EventKind::Steer,
                json!({"id": run(), "type": "message", "text": text, "by": text, "at": 1, "state": text, "note": text}),
            ),
            agent(1, json!({"type": "text", "text": text})),
            agent(1, json!({"type": "thinking", "text": text, "delta": true})),
            agent(1, json!({"type": "tool_call", "id": "1", "name": text, "title": text, "input": {}})),
            agent(1, json!({"type": "file_change", "path": text, "change": "added"})),
            agent(1, json!({"type": "error", "message": text, "fatal": false})),
            agent(1, json!({"type": "question", "text": text})),
        ] {
            screen.event(&event);
        }
    }
    let action = json!({
        "kind": "execute", "tool": evil, "title": long, "commands": [evil, "a\nb"], "paths": [evil], "hosts": [evil],
        "input": {"command": long},
    });
    let question = approval(4, action, "critical", &[&evil]);
    for (columns, rows) in [(60, 16), (80, 24), (120, 40)] {
        for keys in ["", "b", "d", "v", "v↓↓", "?", "m", "\u{1b}"] {
            let mut now = snapshot(2_000, RunState::NeedsInput);
            now.pending = vec![question.clone()];
            now.error = Some(long.clone());
            now.refused =
                vec![refused(Rule::HostNotGranted, &evil, 2), refused(Rule::PathProtected, &long, 1)];
            screen.take(now);
            screen.view = View::Session;
            screen.prompt = None;
            screen.fit(columns, rows);
            press(&mut screen, keys);
            screen.paste(&evil);
            screen.say(crate::output::Tone::Bad, &long);
            screen.show_patch(&long);
            let buffer = draw(&mut screen, true);
            for cell in buffer.content() {
                let symbol = cell.symbol();
                assert!(
                    symbol.chars().all(|c| !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')),
                    "{symbol:?} with {keys:?} at {columns}x{rows}"
                );
                assert!(text::width(symbol) <= 2 && symbol.chars().count() <= 3, "{symbol:?}");
            }
            // No row is pushed out of its place: what is drawn by us stands where it always stands.
            assert!(lines(&buffer).starts_with("run 9a004315  needs input"), "{}", lines(&buffer));
        }
    }
}

#[test]
fn what_goes_to_the_terminal_are_cells_and_nothing_else() {
    use ratatui::backend::CrosstermBackend;
    use ratatui::{TerminalOptions, Viewport};
    let mut screen = working(80, 24);
    screen.event(&event(1, EventKind::Stdout, json!({"text": HOSTILE.concat()})));
    screen.fit(80, 24);
    let mut bytes = Vec::new();
    {
        let area = ratatui::layout::Rect::new(0, 0, 80, 24);
        let options = TerminalOptions { viewport: Viewport::Fixed(area) };
        let mut terminal = Terminal::with_options(CrosstermBackend::new(&mut bytes), options).unwrap();
        terminal.draw(|frame| view::render(&screen, frame.area(), frame.buffer_mut(), true)).unwrap();
    }
    let sent = String::from_utf8(bytes).unwrap();
    let mut rest = sent.as_str();
    while let Some(at) = rest.find(|c: char| c.is_control()) {
        // Only control sequences: places, styles, and the cursor.
        let sequence =
            rest[at..].strip_prefix("\u{1b}[").unwrap_or_else(|| panic!("{:?}", &rest[at..at + 8]));
        let end = sequence.find(|c: char| ('@'..='~').contains(&c)).unwrap();
        let (parameters, rest_of) = sequence.split_at(end);
        assert!(parameters.chars().all(|c| matches!(c, '0'..='9' | ';' | ':' | '?')), "{parameters:?}");
        assert!(matches!(rest_of.as_bytes()[0], b'H' | b'm' | b'l' | b'h' | b'J'), "{rest_of:.1}");
        if matches!(rest_of.as_bytes()[0], b'l' | b'h') {
            assert_eq!(parameters, "?25", "only the cursor is shown and hidden");
        }
        rest = &rest_of[1..];
    }
}

#[test]
fn a_list_is_walked_and_chosen_from() {
    let choices: Vec<Choice> = (0..30_u8)
        .map(|number| Choice {
            run: RunId::from_bytes([number; 16]),
            what: format!("running  local/shop  task {number} \u{1b}[2J"),
        })
        .collect();
    let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
    let mut at = 0;
    for _ in 0..40 {
        if let choose::Step::At(next) = choose::step(key(KeyCode::Down), at, choices.len()) {
            at = next;
        }
    }
    assert_eq!(at, 29);
    let rows = choose::rows(&choices, at, (60, 12));
    assert_eq!(rows.len(), 12);
    assert!(rows.iter().any(|row| row.iter().any(|(_, text)| text.starts_with("> 1d1d1d1d"))), "{rows:?}");
    assert!(rows.iter().flatten().all(|(_, text)| text.chars().all(|c| !c.is_control())));
    assert_eq!(choose::step(key(KeyCode::Enter), at, 30), choose::Step::Take);
    assert_eq!(choose::step(key(KeyCode::Char('q')), at, 30), choose::Step::Leave);
    assert_eq!(choose::rows(&choices, 0, (1, 1)).first().map(Vec::len), Some(1));
}

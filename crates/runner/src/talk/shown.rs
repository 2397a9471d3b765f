//! An action as a person reads it: redacted, harmless for a terminal, bounded.

use crate::session::scrub;
use serde_json::{Value, json};
use tipstaff_model::{Action, ActionKind};
use tipstaff_seal::redact::Redactor;

/// The longest text of an action that is shown, in bytes.
const LONGEST_TEXT: usize = 16 * 1024;
/// The largest arguments that are shown, in bytes of JSON.
const LARGEST_INPUT: usize = 128 * 1024;

/// The action for people. What it is bound to is the digest of the action itself.
pub(crate) fn shown(action: &Action, redactor: &Redactor) -> Action {
    let mut value = serde_json::to_value(action).unwrap_or(Value::Null);
    redactor.redact_json(&mut value);
    scrub(&mut value, 0);
    let mut shown = serde_json::from_value::<Action>(value).unwrap_or_else(|_| Action {
        kind: ActionKind::Other,
        tool: "(redacted)".to_owned(),
        title: "(redacted)".to_owned(),
        commands: Vec::new(),
        paths: Vec::new(),
        hosts: Vec::new(),
        input: Value::Null,
    });
    // What it does is ours to say; a secret that happens to be such a word does not change it.
    shown.kind = action.kind;
    let Action { tool, title, commands, paths, hosts, input, .. } = &mut shown;
    for text in [tool, title].into_iter().chain(commands).chain(paths).chain(hosts) {
        shorten(text);
    }
    shorten_all(input, 0);
    let size = input.to_string().len();
    if size > LARGEST_INPUT {
        *input = json!({ "(too large to show)": format!("{size} bytes") });
    }
    shown
}

fn shorten_all(value: &mut Value, depth: usize) {
    match value {
        Value::String(text) => shorten(text),
        Value::Array(items) if depth < 64 => items.iter_mut().for_each(|item| shorten_all(item, depth + 1)),
        Value::Object(fields) if depth < 64 => {
            fields.iter_mut().for_each(|(_, item)| shorten_all(item, depth + 1));
        }
        _ => {}
    }
}

fn shorten(text: &mut String) {
    if text.len() > LONGEST_TEXT {
        let end = text.floor_char_boundary(LONGEST_TEXT);
        let missing = text.len() - end;
        text.truncate(end);
        text.push_str(&format!(" … ({missing} bytes more)"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipstaff_seal::Secret;

    fn action() -> Action {
        Action {
            kind: ActionKind::Execute,
            tool: "Bash".to_owned(),
            title: "curl -H correct-horse-battery".to_owned(),
            commands: vec!["curl -H correct-horse-battery \u{1b}[2J".to_owned()],
            paths: Vec::new(),
            hosts: Vec::new(),
            input: json!({"command": "curl -H correct-horse-battery", "correct-horse-battery": [1]}),
        }
    }

    #[test]
    fn no_secret_and_nothing_that_a_terminal_obeys_is_shown() {
        let redactor = Redactor::new().with_values([&Secret::new("correct-horse-battery".to_owned())]);
        let told = serde_json::to_string(&shown(&action(), &redactor)).unwrap();
        assert!(!told.contains("battery") && told.contains("redacted"), "{told}");
        assert!(!told.contains("u001b"), "{told}");
    }

    #[test]
    fn a_secret_that_is_a_word_of_ours_takes_nothing_away() {
        let redactor = Redactor::new().with_values([&Secret::new("execute".to_owned())]);
        assert_eq!(shown(&action(), &redactor).kind, ActionKind::Execute);
    }

    #[test]
    fn what_is_large_is_cut_and_said_to_be() {
        let mut action = action();
        action.input = json!({"content": "x".repeat(1024 * 1024), "other": 1});
        let told = shown(&action, &Redactor::new());
        assert!(told.input.to_string().len() < 20_000);
        assert!(told.input["content"].as_str().unwrap().ends_with("bytes more)"));
        action.input = Value::Array(vec![Value::from("x".repeat(1000)); 1000]);
        assert!(shown(&action, &Redactor::new()).input.to_string().len() < 100);
    }
}

//! A question of the protocol (`session/request_permission`): what it is about, and how it is answered.

use super::calls::Call;
use crate::action::action_of;
use crate::session::{below, cut, list, text, title};
use serde_json::{Value, json};
use tipstaff_model::action::{LONGEST_WORD, MOST_OBJECTS};
use tipstaff_model::policy::urls;
use tipstaff_model::{Action, ActionKind};

/// Most options that are looked at.
const OPTIONS: usize = 64;

/// The options that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// Allows this, once.
    pub(super) allow: Option<String>,
    /// Does not.
    pub(super) reject: Option<String>,
}

impl Options {
    /// The options of a question. Only their kinds count: names and ids are the agent's words.
    pub(super) fn of(question: &Value) -> Self {
        let of_kind = |kind: &str| {
            let mut fitting = list(question, &["options"])
                .iter()
                .take(OPTIONS)
                .filter(|option| text(option, &["kind"]) == Some(kind));
            fitting.find_map(|option| text(option, &["optionId"])).map(ToOwned::to_owned)
        };
        Self { allow: of_kind("allow_once"), reject: of_kind("reject_once") }
    }
}

/// The result that chooses an option; none: the question is not answered but taken back.
pub(super) fn outcome(option: Option<&str>) -> Value {
    match option {
        Some(id) => json!({ "outcome": { "outcome": "selected", "optionId": id } }),
        None => json!({ "outcome": { "outcome": "cancelled" } }),
    }
}

/// What the agent wants to do.
///
/// # Errors
/// Why it can't be judged: it names more than is kept.
pub(super) fn action(call: &Call) -> Result<Action, &'static str> {
    let fields = &call.fields;
    let raw = fields.get("rawInput").unwrap_or(&Value::Null);
    // What the simulation over recorded sessions reads in the arguments, and what the protocol says besides.
    let read = action_of(call.tool(), raw);
    let mut commands = commands(raw)?;
    commands = unique(commands.iter().chain(&read.commands).map(String::as_str));
    let said = text(fields, &["title"]).unwrap_or_default();
    let kind = text(fields, &["kind"]).unwrap_or("other");
    if kind == "execute" && commands.is_empty() && !said.trim().is_empty() {
        // Some agents name the command in the title only.
        commands.push(unquoted(said).to_owned());
    }
    let paths = unique(paths(fields, raw).iter().chain(&read.paths).map(String::as_str));
    let hosts =
        unique(hosts(raw, (kind == "fetch").then_some(said)).iter().chain(&read.hosts).map(String::as_str));
    if commands.len().max(paths.len()).max(hosts.len()) > MOST_OBJECTS {
        return Err("it names more than 256 commands, paths or hosts at once");
    }
    let too_long = |one: &String| one.len() > LONGEST_WORD;
    if paths.iter().chain(&hosts).any(too_long) {
        return Err("a path or a host in it is longer than 4096 bytes");
    }
    let has_diff = !diffs(fields).is_empty();
    // What it holds counts more than what it is called.
    let kind = match kind {
        _ if !commands.is_empty() => ActionKind::Execute,
        "edit" | "delete" | "move" => ActionKind::Edit,
        _ if has_diff => ActionKind::Edit,
        "execute" => ActionKind::Execute,
        "fetch" => ActionKind::Fetch,
        _ if matches!(read.kind, ActionKind::Execute | ActionKind::Edit | ActionKind::Fetch) => read.kind,
        _ if !hosts.is_empty() => ActionKind::Fetch,
        "read" | "search" => ActionKind::Read,
        "other" => read.kind,
        _ => ActionKind::Other,
    };
    let shown = commands.first().map_or_else(|| worded(said, &paths), Clone::clone);
    Ok(Action {
        kind,
        tool: cut(call.tool(), LONGEST_WORD),
        title: title(&shown),
        commands,
        paths,
        hosts,
        input: fields.clone(),
    })
}

/// The changes of files that a call shows.
pub(super) fn diffs(fields: &Value) -> Vec<&Value> {
    list(fields, &["content"]).iter().filter(|part| text(part, &["type"]) == Some("diff")).collect()
}

/// A title that names what it is about.
fn worded(said: &str, paths: &[String]) -> String {
    let named = |path: &String| path.rsplit('/').next().is_some_and(|name| said.contains(name));
    match paths.first() {
        Some(first) if !paths.iter().any(named) => format!("{said} {first}"),
        _ => said.to_owned(),
    }
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('`').and_then(|text| text.strip_suffix('`')).unwrap_or(text)
}

/// Commands in the arguments of a tool: a text, or a list of words.
fn commands(raw: &Value) -> Result<Vec<String>, &'static str> {
    let mut found = Vec::new();
    for key in ["command", "cmd", "script"] {
        match raw.get(key) {
            Some(Value::String(text)) if !text.trim().is_empty() => found.push(text.clone()),
            Some(Value::Array(words)) if !words.is_empty() => {
                let words: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
                found.push(words_as_text(&words.ok_or("a command in it holds something that is no text")?));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Words as a shell would have to be told them; the text itself where they are a shell and its text.
fn words_as_text(words: &[&str]) -> String {
    if let [shell, "-c" | "-lc" | "-ic", text] = words
        && shell.rsplit('/').next().is_some_and(|name| matches!(name, "sh" | "bash" | "zsh" | "dash"))
    {
        return (*text).to_owned();
    }
    let plain = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&byte))
    };
    let quoted: Vec<String> = words
        .iter()
        .map(
            |word| {
                if plain(word) { (*word).to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
            },
        )
        .collect();
    quoted.join(" ")
}

/// Every path that it names, in whichever place.
fn paths(fields: &Value, raw: &Value) -> Vec<String> {
    const KEYS: &[&str] = &[
        "file_path",
        "filePath",
        "filepath",
        "absolute_path",
        "notebook_path",
        "path",
        "dir_path",
        "parentDir",
        "source",
        "destination",
        "old_path",
        "new_path",
    ];
    let located = list(fields, &["locations"]).iter().filter_map(|place| text(place, &["path"]));
    let changed = diffs(fields).into_iter().filter_map(|diff| text(diff, &["path"]));
    let named = KEYS.iter().filter_map(|key| text(raw, &[key]));
    let listed = ["paths", "files", "changes", "fileChanges"].iter().flat_map(|key| match raw.get(key) {
        Some(Value::Array(items)) => items
            .iter()
            .filter_map(|item| item.as_str().or_else(|| text(item, &["path"])))
            .collect::<Vec<_>>(),
        Some(Value::Object(pairs)) => pairs.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    });
    unique(located.chain(changed).chain(named).chain(listed))
}

/// Hosts of the addresses that it names.
fn hosts(raw: &Value, said: Option<&str>) -> Vec<String> {
    let named = ["url", "uri", "href"].iter().filter_map(|key| text(raw, &[key]));
    let listed = list(raw, &["urls"]).iter().filter_map(Value::as_str);
    let prompt = said.and_then(|_| below(raw, &["prompt"])).and_then(Value::as_str);
    let texts: Vec<&str> = named.chain(listed).chain(prompt).chain(said).collect();
    let found: Vec<String> = texts.iter().flat_map(|text| urls::hosts(text)).collect();
    unique(found.iter().map(String::as_str))
}

fn unique<'a>(items: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for item in items.filter(|item| !item.is_empty()) {
        // One more than is kept shows that there were too many.
        if kept.len() > MOST_OBJECTS {
            break;
        }
        if !kept.iter().any(|one| one == item) {
            kept.push(item.to_owned());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(fields: Value) -> Action {
        action(&Call { fields, tool: None }).unwrap()
    }

    #[test]
    fn a_command_is_found_wherever_it_stands() {
        for (fields, command) in [
            (json!({ "kind": "execute", "title": "`make test`" }), "make test"),
            (
                json!({ "kind": "execute", "title": "Shell", "rawInput": { "command": "rm -rf a" } }),
                "rm -rf a",
            ),
            (json!({ "rawInput": { "command": ["bash", "-lc", "a | b"] } }), "a | b"),
            (json!({ "rawInput": { "cmd": ["rm", "-rf", "a b", "it's"] } }), r"rm -rf 'a b' 'it'\''s'"),
            // It calls itself harmless.
            (
                json!({ "kind": "read", "title": "Look", "rawInput": { "command": "curl x | sh" } }),
                "curl x | sh",
            ),
        ] {
            let action = asked(fields);
            assert_eq!(action.commands, [command]);
            assert_eq!((action.kind, action.title.as_str()), (ActionKind::Execute, command));
        }
    }

    #[test]
    fn every_path_counts_and_an_edit_is_one_whatever_it_is_called() {
        let action = asked(json!({
            "kind": "think", "title": "Thinking", "locations": [{ "path": "/work/a" }, { "line": 3 }],
            "content": [{ "type": "diff", "path": "/etc/passwd", "oldText": null, "newText": "x" }],
            "rawInput": { "file_path": "/work/a", "changes": { "/work/b": {} }, "files": ["c", { "path": "d" }] },
        }));
        assert_eq!(action.paths, ["/work/a", "/etc/passwd", "c", "d", "/work/b"]);
        assert_eq!((action.kind, action.title.as_str()), (ActionKind::Edit, "Thinking /work/a"));
    }

    #[test]
    fn hosts_of_addresses_are_named_without_the_rest() {
        let action = asked(json!({
            "kind": "fetch", "title": "Fetch https://user@a.example:8443/x?y and http://b.example.",
            "rawInput": { "url": "https://c.example" },
        }));
        assert_eq!(action.hosts, ["c.example:443", "a.example:8443", "b.example:80"]);
        assert_eq!(action.kind, ActionKind::Fetch);
    }

    #[test]
    fn more_than_is_kept_is_not_judged() {
        let many: Vec<Value> = (0..300).map(|n| json!({ "path": format!("/work/{n}") })).collect();
        for fields in [
            json!({ "locations": many }),
            json!({ "locations": [{ "path": "x".repeat(5000) }] }),
            json!({ "rawInput": { "command": ["rm", { "of": "course" }] } }),
        ] {
            assert!(action(&Call { fields, tool: None }).is_err());
        }
    }

    #[test]
    fn only_options_for_once_are_chosen() {
        let question = json!({ "options": [
            { "optionId": "always", "kind": "allow_always", "name": "Allow once" },
            { "optionId": 7, "kind": "allow_once" },
            { "optionId": "yes", "kind": "allow_once", "name": "No" },
            { "optionId": "never", "kind": "reject_always" },
        ] });
        assert_eq!(Options::of(&question), Options { allow: Some("yes".to_owned()), reject: None });
        assert_eq!(Options::of(&json!({ "options": "all" })), Options { allow: None, reject: None });
    }
}

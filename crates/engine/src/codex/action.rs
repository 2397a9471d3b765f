//! What a question of `codex app-server` is about.
//!
//! A change of files is asked for by the id of an item that was told of before, so what was told is kept until it ends.

use crate::action::action_of;
use crate::session::{cut, list, text, title};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tipstaff_model::action::{LONGEST_WORD, MOST_OBJECTS};
use tipstaff_model::{Action, ActionKind};

/// Where the sandbox shows the workspace, and where the agent is started.
pub(super) const WORKSPACE: &str = "/work";
/// Most changes that are remembered, and the length of their lines together in bytes.
const CHANGES: usize = 256;
const CHANGES_SIZE: usize = 16 * 1024 * 1024;
/// Longest id of an item, in bytes.
const ID: usize = 256;
/// Longest command and longest change that a person is asked about, in bytes.
const QUESTION: usize = 1024 * 1024;

const UNREADABLE: &str = "its question does not say what it wants to do";
const TOO_LARGE: &str = "its question is too large for a person to answer";

/// A command that it wants to execute, or a host that it wants to reach. `size` is the length of its line.
pub(super) fn of_command(params: &Value, size: usize) -> Result<Action, &'static str> {
    // `writeStdin` types into a program that runs already, and does not show what.
    match text(params, &["kind"]) {
        None | Some("command" | "humanCommand") => {}
        Some(_) => return Err("it does not show what it would type into a running program"),
    }
    if params.get("command").is_some_and(|command| !command.is_string() && !command.is_null()) {
        return Err(UNREADABLE);
    }
    let host = text(params, &["networkApprovalContext", "host"]);
    let long = |word: Option<&str>| word.is_some_and(|word| word.len() > LONGEST_WORD);
    if size > QUESTION || long(host) || long(folder_elsewhere(params)) {
        return Err(TOO_LARGE);
    }
    let mut action = of_call(super::COMMAND, params);
    if let Some(host) = host {
        action.kind = ActionKind::Fetch;
        action.tool = "network".to_owned();
        action.hosts.push(host.to_owned());
    }
    let object = action.commands.first().or(action.hosts.first()).ok_or(UNREADABLE)?;
    action.title = title(object);
    Ok(action)
}

/// The action of a call, in a conversation and in what was recorded.
pub(super) fn of_call(name: &str, input: &Value) -> Action {
    let mut action = action_of(name, input);
    if action.kind == ActionKind::Execute {
        for command in &mut action.commands {
            if let Cow::Owned(inner) = script(command) {
                *command = inner;
            }
        }
        if let Some(command) = action.commands.first() {
            action.title = title(command);
        }
        action.paths.extend(folder_elsewhere(input).map(|folder| cut(folder, LONGEST_WORD)));
    }
    action
}

/// The folder that a command is executed in, where that is not in the workspace.
pub(super) fn folder_elsewhere(call: &Value) -> Option<&str> {
    let folder = text(call, &["cwd"])?;
    let below = folder.strip_prefix(WORKSPACE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (!below || folder.split('/').any(|part| part == "..")).then_some(folder)
}

/// The changes of files that it told of.
#[derive(Debug, Default)]
pub(super) struct FileChanges {
    items: BTreeMap<String, (Value, usize)>,
    order: VecDeque<String>,
    size: usize,
}

impl FileChanges {
    /// An item began. `size` is the length of the line that says so.
    pub(super) fn begun(&mut self, item: Option<&Value>, size: usize) {
        let Some(item) = item.filter(|item| text(item, &["type"]) == Some("fileChange")) else { return };
        if let (Some(id), Some(changes)) = (text(item, &["id"]), item.get("changes")) {
            self.keep(id, changes, size);
        }
    }

    /// A change that it told of became another one.
    pub(super) fn changed(&mut self, params: &Value, size: usize) {
        if let (Some(id), Some(changes)) = (text(params, &["itemId"]), params.get("changes"))
            && self.items.contains_key(id)
        {
            self.keep(id, changes, size);
        }
    }

    /// An item ended.
    pub(super) fn ended(&mut self, id: &str) {
        if let Some((_, size)) = self.items.remove(id) {
            self.size = self.size.saturating_sub(size);
            self.order.retain(|one| one != id);
        }
    }

    fn keep(&mut self, id: &str, changes: &Value, size: usize) {
        if id.len() > ID {
            return;
        }
        self.ended(id);
        self.items.insert(id.to_owned(), (changes.clone(), size));
        self.order.push_back(id.to_owned());
        self.size = self.size.saturating_add(size);
        while self.order.len() > CHANGES || self.size > CHANGES_SIZE {
            let Some(oldest) = self.order.front().cloned() else { return };
            self.ended(&oldest);
        }
    }

    /// What a question about an item is about.
    pub(super) fn action(&self, params: &Value) -> Result<Action, &'static str> {
        if params.get("grantRoot").is_some_and(|root| !root.is_null()) {
            return Err("it wants to change files of a whole folder unasked; a yes is for one action");
        }
        let item = text(params, &["itemId"]).and_then(|id| self.items.get(id));
        let (changes, size) = item.ok_or("it does not show the change that it asks about")?;
        if *size > QUESTION {
            return Err(TOO_LARGE);
        }
        let mut paths: BTreeSet<&str> = BTreeSet::new();
        for change in list(changes, &[]) {
            paths.insert(text(change, &["path"]).filter(|path| !path.is_empty()).ok_or(UNREADABLE)?);
            match change.get("kind").and_then(|kind| kind.get("move_path")) {
                None | Some(Value::Null) => {}
                Some(moved) => {
                    paths.insert(moved.as_str().filter(|path| !path.is_empty()).ok_or(UNREADABLE)?);
                }
            }
        }
        if paths.len() > MOST_OBJECTS || paths.iter().any(|path| path.len() > LONGEST_WORD) {
            return Err(TOO_LARGE);
        }
        if paths.is_empty() {
            return Err(UNREADABLE);
        }
        let mut action = of_call(super::CHANGE, &json!({ "changes": changes, "request": params }));
        action.title = title(&cut(&action.paths.join(" "), 4096));
        Ok(action)
    }
}

/// The text that a shell executes, out of the command with the shell in front: `/bin/bash -lc 'make test'`. All of the
/// command where it is not exactly that.
pub(super) fn script(command: &str) -> Cow<'_, str> {
    let inner = words(command).and_then(|words| <[String; 3]>::try_from(words).ok()).and_then(
        |[shell, option, inner]| {
            let is_shell = ["bash", "sh", "zsh"].contains(&shell.rsplit('/').next().unwrap_or_default());
            (is_shell && ["-lc", "-c"].contains(&option.as_str())).then_some(inner)
        },
    );
    inner.filter(|inner| !inner.trim().is_empty()).map_or(Cow::Borrowed(command), Cow::Owned)
}

/// The words of a command in which nothing is expanded; `None` where something would be.
fn words(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '$' | '`' => return None,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            '\n' => return None,
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            c if c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c) => {
                word.get_or_insert_default().push(c);
            }
            _ => return None,
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_shell_is_taken_out_of_its_quotes_and_nothing_else_is() {
        for (command, expected) in [
            ("/bin/bash -lc ls", "ls"),
            (
                "/bin/bash -lc 'git status --short && wc -c hello.txt'",
                "git status --short && wc -c hello.txt",
            ),
            (r#"/bin/bash -lc "python3 -c 'print(1)'""#, "python3 -c 'print(1)'"),
            (r#"bash -c "echo \"\$HOME\" \\ \`id\`""#, r#"echo "$HOME" \ `id`"#),
            (r#"zsh -lc 'it'"'"'s'"#, "it's"),
            ("sh -c 'a\nb'", "a\nb"),
        ] {
            assert_eq!(script(command), expected, "{command}");
        }
        for command in [
            "make test",
            "/bin/bash -lc",
            "/bin/bash -lc ''",
            "/bin/bash -lc ls -la",
            "/bin/bash -x -lc ls",
            "/bin/bash -lc 'ls' ; rm -rf x",
            "/bin/bash -lc \"$(id)\"",
            "/bin/bash -lc 'ls",
            "/bin/bash -lc l\\s",
            "python3 -c 'print(1)'",
            "/tmp/bash\u{a0} -lc ls",
        ] {
            assert_eq!(script(command), command);
        }
    }

    #[test]
    fn a_recorded_call_is_the_action_that_was_asked_about() {
        let asked = of_command(&json!({"command": "/bin/bash -lc 'make test'", "cwd": "/work"}), 40).unwrap();
        let recorded = of_call("command_execution", &json!({"command": "/bin/bash -lc 'make test'"}));
        assert_eq!((&asked.commands, &asked.title), (&recorded.commands, &recorded.title));
        assert_eq!((asked.kind, asked.tool), (recorded.kind, recorded.tool));
        assert_eq!(asked.commands, ["make test"]);
        assert_eq!(of_call("web_search", &json!({"query": "x", "cwd": "/"})).paths, Vec::<String>::new());
    }

    #[test]
    fn a_folder_elsewhere_is_an_object_of_the_command() {
        let paths = |folder: &str| of_command(&json!({"command": "ls", "cwd": folder}), 40).unwrap().paths;
        for inside in ["/work", "/work/", "/work/a/b"] {
            assert_eq!(paths(inside), Vec::<String>::new(), "{inside}");
        }
        for outside in ["/", "/etc", "/workshop", "/work/../etc"] {
            assert_eq!(paths(outside), [outside]);
        }
    }
}

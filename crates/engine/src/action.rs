//! What a call of a tool means, in one form: the action that policies judge.
//!
//! Promises: the live conversation and the simulation over recorded sessions read a call with the same function, so that
//! they agree; what the arguments don't show is not guessed: a tool that is not known is of the kind `other`, and its
//! paths and hosts, where it names any, can only make a decision stricter.

use crate::session::{call_title, cut};
use serde_json::Value;
use tipstaff_model::action::{LONGEST_WORD, MOST_OBJECTS};
use tipstaff_model::{Action, ActionKind};

const EXECUTE: &[&str] = &[
    "bash",
    "shell",
    "sh",
    "powershell",
    "exec_command",
    "local_shell",
    "local_shell_call",
    "run_shell_command",
    "command_execution",
    "commandexecution",
    "shell_command",
    "execute_command",
    "run_command",
    "unified_exec",
    "terminal",
    "execute",
    "monitor",
];
const EDIT: &[&str] = &[
    "edit",
    "multiedit",
    "multi_edit",
    "write",
    "notebookedit",
    "notebook_edit",
    "patch",
    "apply_patch",
    "write_file",
    "edit_file",
    "create_file",
    "delete_file",
    "move_file",
    "replace",
    "replace_in_file",
    "file_change",
    "filechange",
    "str_replace_editor",
    "str_replace_based_edit_tool",
    "delete",
    "move",
];
const READ: &[&str] = &[
    "read",
    "notebookread",
    "read_file",
    "read_many_files",
    "view",
    "view_image",
    "glob",
    "grep",
    "grep_search",
    "search",
    "search_file_content",
    "codesearch",
    "list",
    "ls",
    "list_directory",
    "lsp",
];
const FETCH: &[&str] = &["webfetch", "web_fetch", "fetch", "websearch", "web_search", "google_web_search"];
/// Arguments that hold one path, or a list of paths.
const PATHS: &[&str] = &[
    "file_path",
    "filePath",
    "notebook_path",
    "absolute_path",
    "path",
    "paths",
    "dir_path",
    "target_file",
    "old_path",
    "new_path",
    "source",
    "destination",
    "include",
];
/// Arguments that hold a patch.
const PATCHES: &[&str] = &["patch", "patchText", "patch_text", "input", "diff"];

/// The kind of a tool, by its name.
fn kind_of(name: &str) -> ActionKind {
    let name = name.to_ascii_lowercase();
    let is_in = |list: &[&str]| list.contains(&name.as_str());
    if is_in(EXECUTE) {
        ActionKind::Execute
    } else if is_in(EDIT) {
        ActionKind::Edit
    } else if is_in(READ) {
        ActionKind::Read
    } else if is_in(FETCH) {
        ActionKind::Fetch
    } else {
        ActionKind::Other
    }
}

/// The action of a call of a tool, by the tool's name and its arguments.
#[must_use]
pub(crate) fn action_of(name: &str, input: &Value) -> Action {
    let mut action = Action {
        kind: kind_of(name),
        tool: cut(name, LONGEST_WORD),
        title: call_title(name, input),
        commands: Vec::new(),
        paths: Vec::new(),
        hosts: Vec::new(),
        input: input.clone(),
    };
    if action.kind == ActionKind::Execute {
        action.commands =
            ["command", "cmd", "commands"].iter().flat_map(|key| commands(input.get(*key))).collect();
    } else {
        for key in PATHS {
            texts(input.get(*key), &mut |path| push(&mut action.paths, path));
        }
        for key in PATCHES {
            texts(input.get(*key), &mut |patch| {
                patched(patch).for_each(|path| push(&mut action.paths, path));
            });
        }
        changed(input.get("changes"), &mut |path| push(&mut action.paths, path));
        let asks = matches!(action.kind, ActionKind::Fetch | ActionKind::Other);
        for key in ["url", "urls", "uri", "prompt"] {
            texts(input.get(key).filter(|_| asks), &mut |text| {
                hosts(text).for_each(|host| push(&mut action.hosts, &host));
            });
        }
    }
    if action.paths.len().max(action.hosts.len()).max(action.commands.len()) > MOST_OBJECTS {
        // Nothing is let through because it stands behind the bound: as a whole it is judged besides.
        action.kind = ActionKind::Other;
        action.paths.truncate(MOST_OBJECTS);
        action.hosts.truncate(MOST_OBJECTS);
        action.commands.truncate(MOST_OBJECTS);
    }
    action
}

fn push(list: &mut Vec<String>, text: &str) {
    // One more than the bound, so that it shows.
    if list.len() <= MOST_OBJECTS && !text.is_empty() {
        let text = cut(text, LONGEST_WORD);
        if !list.contains(&text) {
            list.push(text);
        }
    }
}

/// The texts of a value: itself, or those of a list.
fn texts(value: Option<&Value>, take: &mut dyn FnMut(&str)) {
    match value {
        Some(Value::String(text)) => take(text),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).for_each(take),
        _ => {}
    }
}

/// The shell texts of an argument: a text, or the words of one command.
fn commands(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) if !text.trim().is_empty() => vec![text.clone()],
        Some(Value::Array(words)) if !words.is_empty() => {
            let words: Vec<String> = words.iter().map(|word| quoted(word.as_str().unwrap_or("?"))).collect();
            vec![words.join(" ")]
        }
        _ => Vec::new(),
    }
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._/:=@%+,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The paths that a list of changes names: `[{"path": …}]`, or `{path: …}`.
fn changed(value: Option<&Value>, take: &mut dyn FnMut(&str)) {
    match value {
        Some(Value::Array(list)) => {
            for one in list {
                texts(one.get("path"), take);
                texts(one.pointer("/kind/move_path"), take);
                texts(one.get("move_path"), take);
            }
        }
        Some(Value::Object(map)) => {
            for (path, one) in map {
                take(path);
                texts(one.get("move_path"), take);
            }
        }
        _ => {}
    }
}

/// The files that a patch names.
fn patched(patch: &str) -> impl Iterator<Item = &str> {
    const MARKS: &[&str] =
        &["*** Update File: ", "*** Add File: ", "*** Delete File: ", "*** Move to: ", "+++ b/", "--- a/"];
    patch.lines().filter_map(|line| {
        MARKS.iter().find_map(|mark| line.strip_prefix(mark)).map(str::trim).filter(|path| !path.is_empty())
    })
}

/// The hosts of the URLs in a text, as `host:port`.
fn hosts(text: &str) -> impl Iterator<Item = String> {
    tipstaff_model::policy::urls::hosts(text).into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(name: &str, input: &Value) -> String {
        let action = action_of(name, input);
        format!(
            "{} {name}: commands {:?} paths {:?} hosts {:?}",
            action.kind, action.commands, action.paths, action.hosts
        )
    }

    #[test]
    fn calls_of_all_engines_become_actions() {
        let calls = [
            ("Bash", json!({"command": "make test", "description": "rm -rf /"})),
            ("Edit", json!({"file_path": "/work/a.txt", "old_string": "x", "new_string": "y"})),
            ("Read", json!({"file_path": "/etc/passwd"})),
            ("WebFetch", json!({"url": "http://user:pass@Docs.Example.com/x?y", "prompt": "sum it up"})),
            ("mcp__github__create_issue", json!({"repo": "a/b", "path": "infra/x.tf", "command": "ls"})),
            ("command_execution", json!({"command": "/bin/bash -lc 'git push'"})),
            ("exec_command", json!({"cmd": ["bash", "-lc", "echo 'a b'"]})),
            ("file_change", json!({"changes": [{"kind": "update", "path": "/work/a.txt"}]})),
            ("fileChange", json!({"changes": {"/work/b.txt": {"update": {}, "move_path": "c.txt"}}})),
            (
                "apply_patch",
                json!({"patchText": "*** Begin Patch\n*** Update File: src/a.rs\n*** Move to: src/b.rs\n"}),
            ),
            ("run_shell_command", json!({"command": "ls", "is_background": false})),
            ("web_fetch", json!({"prompt": "read https://a.example/x and https://b.example:8443/"})),
            ("Glob", json!({"pattern": "**/*.rs"})),
            ("Bash", json!({"command": 7})),
            ("TodoWrite", json!({"todos": []})),
        ];
        let all: Vec<String> = calls.iter().map(|(name, input)| told(name, input)).collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
        execute Bash: commands ["make test"] paths [] hosts []
        edit Edit: commands [] paths ["/work/a.txt"] hosts []
        read Read: commands [] paths ["/etc/passwd"] hosts []
        fetch WebFetch: commands [] paths [] hosts ["docs.example.com:80"]
        other mcp__github__create_issue: commands [] paths ["infra/x.tf"] hosts []
        execute command_execution: commands ["/bin/bash -lc 'git push'"] paths [] hosts []
        execute exec_command: commands ["bash -lc 'echo '\\''a b'\\'''"] paths [] hosts []
        edit file_change: commands [] paths ["/work/a.txt"] hosts []
        edit fileChange: commands [] paths ["/work/b.txt", "c.txt"] hosts []
        edit apply_patch: commands [] paths ["src/a.rs", "src/b.rs"] hosts []
        execute run_shell_command: commands ["ls"] paths [] hosts []
        fetch web_fetch: commands [] paths [] hosts ["a.example:443", "b.example:8443"]
        read Glob: commands [] paths [] hosts []
        execute Bash: commands [] paths [] hosts []
        other TodoWrite: commands [] paths [] hosts []
        "#);
    }

    #[test]
    fn what_lies_behind_the_bound_is_not_let_through_by_its_beginning() {
        let many: Vec<Value> = (0..MOST_OBJECTS + 5).map(|n| json!({"path": format!("f{n}")})).collect();
        let action = action_of("file_change", &json!({ "changes": many }));
        assert_eq!((action.kind, action.paths.len()), (ActionKind::Other, MOST_OBJECTS));
    }
}

//! From what the model wants to a call that the client understands: names and arguments come from the tools of the
//! request itself.

use super::conversation::{Arguments, Call, Conversation, Tool};
use super::script::{Edit, Work, Write};
use serde_json::{Map, Value, json};

const WRITERS: [&str; 4] = ["Write", "write", "write_file", "create_file"];
const EDITORS: [&str; 4] = ["Edit", "edit", "replace", "edit_file"];
const READERS: [&str; 4] = ["Read", "read", "read_file", "view"];
const SHELLS: [&str; 8] = [
    "Bash",
    "bash",
    "exec_command",
    "shell",
    "shell_command",
    "local_shell",
    "run_shell_command",
    "run_terminal_cmd",
];
const PATHS: [&str; 4] = ["file_path", "filePath", "absolute_path", "path"];

/// The call, or which tool was missing.
pub(super) fn call(work: &Work, conversation: &Conversation) -> Result<Call, String> {
    let tools = conversation.tools.as_slice();
    let missing = |what: &str| {
        let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
        format!("this client offers no tool for {what}; it has: {}", names.join(", "))
    };
    match work {
        Work::Write(write) => {
            write_call(write, tools).ok_or_else(|| missing(&format!("writing {}", write.path)))
        }
        Work::Edit(edit) => edit_call(edit, tools).ok_or_else(|| missing(&format!("editing {}", edit.path))),
        Work::Read(path) => read_call(path, tools).ok_or_else(|| missing(&format!("reading {path}"))),
        Work::Shell(command) => shell_call(command, tools).ok_or_else(|| missing("commands")),
        Work::Raw(raw) => {
            // A client that groups its tools may have put something before the name.
            let tool = tools
                .iter()
                .find(|tool| tool.name == raw.name)
                .or_else(|| tools.iter().find(|tool| tool.name.ends_with(&raw.name)));
            // A call of a tool that isn't there is worth a test, too.
            let unknown = Tool { name: raw.name.clone(), ..Tool::default() };
            let tool = tool.unwrap_or(&unknown);
            Ok(match &raw.input {
                Value::String(text) if tool.free_form => free(tool, text.clone()),
                Value::Null => named(tool, json!({})),
                input => named(tool, input.clone()),
            })
        }
    }
}

fn named(tool: &Tool, arguments: Value) -> Call {
    Call {
        name: tool.name.clone(),
        namespace: tool.namespace.clone(),
        arguments: Arguments::Named(arguments),
    }
}

fn free(tool: &Tool, text: String) -> Call {
    Call { name: tool.name.clone(), namespace: tool.namespace.clone(), arguments: Arguments::Free(text) }
}

/// The first of the names that the client has. Free-form tools take no named arguments.
fn find<'t>(names: &[&str], tools: &'t [Tool]) -> Option<&'t Tool> {
    names.iter().find_map(|name| tools.iter().find(|tool| tool.name == *name && !tool.free_form))
}

/// The first of the names that the tool has as an argument; the first name for a tool that doesn't say.
fn argument<'n>(tool: &Tool, names: &[&'n str]) -> &'n str {
    names
        .iter()
        .find(|name| tool.property(name).is_some())
        .or_else(|| names.first())
        .copied()
        .unwrap_or_default()
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn write_call(write: &Write, tools: &[Tool]) -> Option<Call> {
    if let Some(tool) = find(&WRITERS, tools) {
        let content = argument(tool, &["content", "contents", "file_text"]);
        let fields = object([(argument(tool, &PATHS), json!(write.path)), (content, json!(write.content))]);
        return Some(named(tool, Value::Object(fields)));
    }
    let mut patch = format!("*** Begin Patch\n*** Add File: {}\n", write.path);
    for line in write.content.lines() {
        patch.push_str(&format!("+{line}\n"));
    }
    patch.push_str("*** End Patch");
    patch_call(patch, tools).or_else(|| {
        let command = format!("printf %s {} > {}", quoted(&write.content), quoted(&write.path));
        shell_call(&command, tools)
    })
}

fn edit_call(edit: &Edit, tools: &[Tool]) -> Option<Call> {
    if let Some(tool) = find(&EDITORS, tools) {
        let mut fields = object([
            (argument(tool, &PATHS), json!(edit.path)),
            (argument(tool, &["old_string", "oldString", "old_str", "old"]), json!(edit.old)),
            (argument(tool, &["new_string", "newString", "new_str", "new"]), json!(edit.new)),
        ]);
        if tool.property("instruction").is_some() {
            fields.insert("instruction".to_owned(), json!("Replace the text as the script says."));
        }
        return Some(named(tool, Value::Object(fields)));
    }
    let mut patch = format!("*** Begin Patch\n*** Update File: {}\n@@\n", edit.path);
    for line in edit.old.lines() {
        patch.push_str(&format!("-{line}\n"));
    }
    for line in edit.new.lines() {
        patch.push_str(&format!("+{line}\n"));
    }
    patch.push_str("*** End Patch");
    patch_call(patch, tools).or_else(|| shell_call(&edit_command(edit), tools))
}

/// Replaces the first occurrence with nothing but a POSIX shell; fails where there is none.
fn edit_command(edit: &Edit) -> String {
    format!(
        "f={}; o={}; s=$(cat \"$f\"; echo x); s=${{s%x}}; case \"$s\" in *\"$o\"*) ;; *) exit 1 ;; esac; \
         printf '%s%s%s' \"${{s%%\"$o\"*}}\" {} \"${{s#*\"$o\"}}\" > \"$f\"",
        quoted(&edit.path),
        quoted(&edit.old),
        quoted(&edit.new),
    )
}

fn read_call(path: &str, tools: &[Tool]) -> Option<Call> {
    match find(&READERS, tools) {
        Some(tool) => Some(named(tool, Value::Object(object([(argument(tool, &PATHS), json!(path))])))),
        None => shell_call(&format!("cat {}", quoted(path)), tools),
    }
}

fn patch_call(patch: String, tools: &[Tool]) -> Option<Call> {
    let tool = tools.iter().find(|tool| tool.name == "apply_patch")?;
    if tool.free_form {
        return Some(free(tool, patch));
    }
    let fields = object([(argument(tool, &["input", "patchText", "patch"]), json!(patch))]);
    Some(named(tool, Value::Object(fields)))
}

fn shell_call(command: &str, tools: &[Tool]) -> Option<Call> {
    let tool = find(&SHELLS, tools)?;
    let name = argument(tool, &["command", "cmd"]);
    let wants_list =
        tool.property(name).and_then(|form| form.get("type")).and_then(Value::as_str) == Some("array");
    let command = if wants_list { json!(["bash", "-lc", command]) } else { json!(command) };
    let mut fields = object([(name, command)]);
    if tool.property("description").is_some() {
        fields.insert("description".to_owned(), json!("Run the command of the script"));
    }
    if tool.property("is_background").is_some() {
        fields.insert("is_background".to_owned(), json!(false));
    }
    Some(named(tool, Value::Object(fields)))
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, arguments: &[&str]) -> Tool {
        let properties: Map<String, Value> =
            arguments.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
        Tool { name: name.to_owned(), schema: json!({ "properties": properties }), ..Tool::default() }
    }

    fn made(work: &Work, tools: Vec<Tool>) -> Call {
        call(work, &Conversation { tools, ..Conversation::default() }).unwrap()
    }

    #[test]
    fn arguments_have_the_names_of_the_client() {
        let write = Work::Write(Write { path: "a".to_owned(), content: "b\n".to_owned() });
        for (name, path) in [("Write", "file_path"), ("write", "filePath"), ("write_file", "path")] {
            let call = made(&write, vec![tool(name, &[path, "content"])]);
            assert_eq!(call.name, name);
            assert_eq!(call.arguments, Arguments::Named(json!({path: "a", "content": "b\n"})));
        }
    }

    #[test]
    fn a_patch_or_a_command_stands_in() {
        let write = Work::Write(Write { path: "a".to_owned(), content: "b\nc\n".to_owned() });
        let patch = Tool { free_form: true, ..tool("apply_patch", &[]) };
        let call = made(&write, vec![tool("exec_command", &["cmd"]), patch]);
        let text = "*** Begin Patch\n*** Add File: a\n+b\n+c\n*** End Patch";
        assert_eq!(call.arguments, Arguments::Free(text.to_owned()));
        let call = made(&write, vec![tool("exec_command", &["cmd"])]);
        assert_eq!(call.arguments, Arguments::Named(json!({"cmd": "printf %s 'b\nc\n' > 'a'"})));
    }

    #[test]
    fn the_shell_edits_literally() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it's a file");
        let (old, new) = ("*[a]'$x\\ \"", "`id` $(id) %s &");
        std::fs::write(&path, format!("1{old}2{old}3\n\n")).unwrap();
        let edit =
            Edit { path: path.to_string_lossy().into_owned(), old: old.to_owned(), new: new.to_owned() };
        #[expect(clippy::disallowed_methods, reason = "a test of a command line runs it")]
        let run = || {
            let mut shell = std::process::Command::new("sh");
            shell.arg("-c").arg(edit_command(&edit)).status().unwrap().success()
        };
        assert!(run());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("1{new}2{old}3\n\n"));
        assert!(run());
        assert!(!run());
    }

    #[test]
    fn a_missing_tool_is_named() {
        let refusal = call(&Work::Shell("id".to_owned()), &Conversation::default()).unwrap_err();
        assert!(refusal.contains("no tool for commands"), "{refusal}");
    }
}

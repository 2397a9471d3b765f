//! The script: found in the prompt, read strictly, and the step that is next.

use super::conversation::{Conversation, Event};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tipstaff_model::Usage;

/// What the model says when all steps are done.
pub const FINISHED: &str = "The script is finished.";
/// What the model says to a conversation with tools that has no script.
pub const UNSCRIPTED: &str = "There is no script in this conversation.";

const MARK: &str = "[[fake ";

/// A prompt with a script in it: the text, and what the model is to do (a list of steps, see the
/// [module](super)).
///
/// ```
/// let steps = serde_json::json!([{"write": {"path": "a.txt", "content": "a\n"}}, {"text": "done"}]);
/// let prompt = tipstaff_testkit::script_prompt("Add a file.", steps);
/// assert!(prompt.starts_with("Add a file.\n[[fake {"));
/// ```
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "callers write json!([…]) in place")]
pub fn script_prompt(text: &str, steps: Value) -> String {
    format!("{text}\n{MARK}{}]]", serde_json::json!({ "steps": steps }))
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Write {
    pub(super) path: String,
    pub(super) content: String,
}

/// A text to replace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    pub(super) path: String,
    pub(super) old: String,
    pub(super) new: String,
}

/// A call as it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCall {
    pub(super) name: String,
    #[serde(default)]
    pub(super) input: Value,
}

/// Something that needs a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    Write(Write),
    Edit(Edit),
    Read(String),
    Shell(String),
    Raw(RawCall),
}

/// Where silence begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stall {
    /// After the status and the headers.
    Headers,
    /// After half of the stream.
    Middle,
    /// Before everything.
    Nothing,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Garbage {
    /// A page for people.
    Html,
    /// The right type of content, and no JSON in it.
    Broken,
    /// Token numbers that are none.
    Usage,
}

/// How much comes is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shape {
    /// Many pieces.
    #[default]
    Events,
    /// One line without an end.
    Line,
}

/// Too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flood {
    /// Of 1024 × 1024 bytes.
    pub(super) megabytes: u64,
    #[serde(default)]
    pub(super) shape: Shape,
}

/// An error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u16,
    /// Seconds.
    pub(super) retry_after: Option<u64>,
    pub(super) should_retry: Option<bool>,
}

/// What the model does in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Work(Work),
    Say(String),
    Status(Status),
    Stall(Stall),
    Half(String),
    BreakOff(String),
    Garbage(Garbage),
    Flood(Flood),
    EchoKey,
}

impl Action {
    /// Whether a client has nothing to show for it in its history.
    const fn is_trouble(&self) -> bool {
        !matches!(self, Self::Work(_) | Self::Say(_))
    }
}

/// How it is done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Manner {
    /// Milliseconds before the answer.
    pub(super) sleep: u64,
    /// Milliseconds between pieces.
    pub(super) slow: u64,
    pub(super) think: Option<String>,
    pub(super) usage: Option<Usage>,
    /// How often a trouble happens.
    pub(super) times: Option<u64>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) action: Action,
    pub(super) manner: Manner,
}

/// A step as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepText {
    write: Option<Write>,
    edit: Option<Edit>,
    read: Option<String>,
    shell: Option<String>,
    tool: Option<RawCall>,
    text: Option<String>,
    #[serde(alias = "fail")]
    status: Option<u16>,
    retry_after: Option<u64>,
    should_retry: Option<bool>,
    stall: Option<Stall>,
    half: Option<String>,
    break_off: Option<String>,
    garbage: Option<Garbage>,
    flood: Option<Flood>,
    echo_key: Option<bool>,
    sleep: Option<u64>,
    slow: Option<u64>,
    think: Option<String>,
    usage: Option<Usage>,
    times: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptText {
    steps: Vec<StepText>,
}

impl StepText {
    /// The action, if there is one, and the rest put over what came before.
    fn read(self, before: Manner) -> Result<(Option<Action>, Manner), String> {
        let (retry_after, should_retry) = (self.retry_after, self.should_retry);
        let mut actions = [
            self.write.map(|write| Action::Work(Work::Write(write))),
            self.edit.map(|edit| Action::Work(Work::Edit(edit))),
            self.read.map(|path| Action::Work(Work::Read(path))),
            self.shell.map(|command| Action::Work(Work::Shell(command))),
            self.tool.map(|call| Action::Work(Work::Raw(call))),
            self.text.map(Action::Say),
            self.status.map(|code| Action::Status(Status { code, retry_after, should_retry })),
            self.stall.map(Action::Stall),
            self.half.map(Action::Half),
            self.break_off.map(Action::BreakOff),
            self.garbage.map(Action::Garbage),
            self.flood.map(Action::Flood),
            self.echo_key.map(|_| Action::EchoKey),
        ]
        .into_iter()
        .flatten();
        let action = actions.next();
        if actions.next().is_some() {
            return Err("a step has two actions".to_owned());
        }
        if !matches!(action, Some(Action::Status(_))) && (retry_after.is_some() || should_retry.is_some()) {
            return Err("retry_after and should_retry belong to a status".to_owned());
        }
        if let Some(Action::Status(status)) = &action
            && !(400..=599).contains(&status.code)
        {
            return Err(format!("{} is not the status of an error", status.code));
        }
        let manner = Manner {
            sleep: self.sleep.unwrap_or(before.sleep),
            slow: self.slow.unwrap_or(before.slow),
            think: self.think.or(before.think),
            usage: self.usage.or(before.usage),
            times: self.times.or(before.times),
        };
        Ok((action, manner))
    }
}

/// A script: its steps, and its text as a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    name: String,
    steps: Vec<Step>,
}

impl Script {
    fn read(value: Value) -> Result<Self, String> {
        let name = value.to_string();
        let text: ScriptText = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let mut steps = Vec::new();
        let mut waiting = Manner::default();
        for step in text.steps {
            let (action, manner) = step.read(std::mem::take(&mut waiting))?;
            match action {
                Some(action) => steps.push(Step { action, manner }),
                None => waiting = manner,
            }
        }
        if waiting != Manner::default() {
            steps.push(Step { action: Action::Say(FINISHED.to_owned()), manner: waiting });
        }
        Ok(Self { name, steps })
    }

    /// The last script in a text. A mark with no JSON behind it is an error, unless a script stands elsewhere.
    fn find(text: &str) -> Option<Result<Self, String>> {
        let mut found: Option<Result<Self, String>> = None;
        for (position, _) in text.match_indices(MARK) {
            let rest = text.get(position + MARK.len()..).unwrap_or_default();
            // OpenCode puts a prompt into quotes and a backslash before every quote in it, and before nothing else.
            let value = first_value(rest).or_else(|| first_value(&rest.replace("\\\"", "\"")));
            match value {
                Some(value) => found = Some(Self::read(value)),
                None if found.is_none() => found = Some(Err("no JSON follows the mark".to_owned())),
                None => {}
            }
        }
        found
    }
}

fn first_value(text: &str) -> Option<Value> {
    serde_json::Deserializer::from_str(text).into_iter::<Value>().next()?.ok()
}

/// How often each trouble with `times` happened, by client, script and step.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<HashMap<(String, usize), u64>>);

impl Counters {
    /// Counts one more, unless it happened so often already.
    fn take(&self, script: &str, step: usize, times: u64) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((script.to_owned(), step)).or_default();
        let more = *count < times;
        if more {
            *count += 1;
        }
        more
    }
}

/// What comes next in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// This step, the how manieth it is.
    Step(usize, Step),
    /// All steps are done; how many there were.
    Finished(usize),
    /// There is no script.
    None,
    /// It cannot be read.
    Wrong(String),
}

/// Finds the script and the step. Every call in the conversation passes the next step that needs a tool, every saying
/// the next one that says something; troubles leave no trace in a conversation and are passed with what follows them.
pub(super) fn next(client: &str, conversation: &Conversation, counters: &Counters) -> Next {
    let mut script: Option<Script> = None;
    let mut position = 0;
    for event in &conversation.events {
        let steps = script.as_ref().map(|script| script.steps.as_slice()).unwrap_or_default();
        let rest = steps.get(position..).unwrap_or_default();
        match event {
            Event::User(text) => match Script::find(text) {
                // Clients repeat what the user said.
                Some(Ok(found)) if position > 0 && script.as_ref() == Some(&found) => {}
                Some(Ok(found)) => {
                    script = Some(found);
                    position = 0;
                }
                Some(Err(problem)) => return Next::Wrong(problem),
                None => {}
            },
            Event::Call => {
                if let Some(passed) = rest.iter().position(|step| matches!(step.action, Action::Work(_))) {
                    position += passed + 1;
                }
            }
            Event::Said => {
                let next = rest.iter().position(|step| !step.action.is_trouble());
                let says =
                    |at: &usize| rest.get(*at).is_some_and(|step| matches!(step.action, Action::Say(_)));
                if let Some(passed) = next.filter(says) {
                    position += passed + 1;
                }
            }
        }
    }
    let Some(script) = script else { return Next::None };
    let name = format!("{client} {} {}", conversation.model, script.name);
    for (number, step) in script.steps.iter().enumerate().skip(position) {
        let happens = match step.manner.times {
            Some(times) if step.action.is_trouble() => counters.take(&name, number, times),
            _ => true,
        };
        if happens {
            return Next::Step(number, step.clone());
        }
    }
    Next::Finished(script.steps.len())
}

#[cfg(test)]
mod tests;

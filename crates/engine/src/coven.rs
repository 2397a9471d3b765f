//! The `coven` engine: `coven-code`, by version 2 of its contract for runs without a person: a brief in, a result out.
//!
//! The brief and the result are files inside the sandbox. The shell that starts the program prints the result when it has
//! ended, between two marks: so it is read as all output is, and nothing is fetched out of the sandbox. A program that
//! breaks the contract has failed, whatever its exit code says.

use crate::invoke::{Checked, json_file, variables, words};
use crate::session::{Outcome, Session, cut, list, raw_text, text, title};
use crate::{
    Engine, EngineError, EngineRequest, Invocation, Models, ProcessEnd, Program, SessionReader, Verdict,
};
use serde_json::{Value, json};
use tipstaff_model::{AgentEvent, EngineKind, FileChangeKind};

/// Coven Code.
pub(crate) struct Coven;

const PROGRAM: Program = Program {
    name: "coven-code",
    install: "npm install -g @opencoven/coven-code@0.6.1",
    tested: "0.6.1",
    oldest: "0.5.0",
    version_args: &["--version"],
};

const MODELS: Models = Models { provider: "anthropic", default: "claude-sonnet-5-5", besides: &[] };

/// The version of the contract.
const VERSION: &str = "2";
/// The lines between which the shell prints the result.
const BEGIN: &str = "tipstaff: the result begins";
const END: &str = "tipstaff: the result ends";
/// The exit code after which its contract has the task tried again.
const TRY_AGAIN: i32 = 2;
/// Longest result, in bytes.
const RESULT: usize = 256 * 1024;
/// Runs the program without input, then prints the result, which is a file or not there.
const SCRIPT: &str = "\
result=$1; shift; \"$@\" < /dev/null; code=$?; printf '\\n%s\\n' 'tipstaff: the result begins'; \
if [ -f \"$result\" ]; then head -c 262144 \"$result\"; fi; \
printf '\\n%s\\n' 'tipstaff: the result ends'; exit \"$code\"";

impl Engine for Coven {
    fn kind(&self) -> EngineKind {
        EngineKind::Coven
    }

    fn summary(&self) -> &'static str {
        "Coven Code (coven-code), by its contract for runs without a person"
    }

    fn program(&self) -> Option<&'static Program> {
        Some(&PROGRAM)
    }

    fn models(&self) -> Option<&'static Models> {
        Some(&MODELS)
    }

    fn invocation(&self, request: &EngineRequest<'_>) -> Result<Invocation, EngineError> {
        let asked =
            Checked::new(self.kind(), &MODELS, request)?.unattended(self.kind())?.anew(self.kind())?;
        let (brief, result) = (".tipstaff/brief.json", asked.at_home(".tipstaff/result.json"));
        let mut argv = words(["sh", "-c", SCRIPT, "tipstaff-agent", &result, PROGRAM.name, "--headless"]);
        argv.extend(words(["--context", &asked.at_home(brief), "--output", &result]));
        let mut env = asked.provider_env();
        // It insists on a token for git; the broker takes pushes without one, and lets through what is granted.
        env.extend(variables([("COVEN_GIT_TOKEN", crate::invoke::PLACEHOLDER)]));
        Ok(Invocation {
            argv,
            env,
            home: vec![asked.prompt_file(), json_file(brief, &brief_of(&asked, request))],
        })
    }

    fn reader(&self) -> Option<Box<dyn SessionReader>> {
        Some(Box::new(Output::default()))
    }
}

/// The brief. It holds no token: there is none.
fn brief_of(asked: &Checked<'_>, request: &EngineRequest<'_>) -> Value {
    let body = format!("{}\n\n{}", asked.prompt, asked.instructions);
    let (trigger, task) = if asked.may_write() {
        let task = json!({
            "kind": "fix_issue", "issue_number": 0, "issue_title": title(asked.prompt), "issue_body": body,
        });
        ("issue_assigned", task)
    } else {
        ("issue_mention", json!({ "kind": "respond_to_mention", "issue_number": 0, "comment_body": body }))
    };
    json!({
        "contract_version": VERSION,
        "trigger": trigger,
        "repo": {
            "owner": "tipstaff",
            "name": "workspace",
            "clone_url": format!("{}/git/tipstaff/workspace.git", request.broker.trim_end_matches('/')),
            "default_branch": "main",
        },
        "task": task,
        "familiar": {
            "id": "tipstaff",
            "display_name": "Tipstaff",
            "model": format!("{}/{}", asked.provider, asked.model),
            "skills": [],
        },
        "workspace": { "root": "/work" },
        "review_context": null,
        "audit_instruction": null,
    })
}

/// What it leaves.
#[derive(Default)]
struct Output {
    session: Session,
    /// The lines of the result, while it is printed.
    open: Option<String>,
    result: Option<Result<Value, &'static str>>,
}

impl Output {
    fn closed(&mut self, printed: &str) -> Vec<AgentEvent> {
        let printed = printed.trim();
        if printed.is_empty() {
            self.result = None;
            return Vec::new();
        }
        let parsed = if printed.len() >= RESULT {
            Err("its result.json is longer than 256 KiB")
        } else {
            serde_json::from_str::<Value>(printed).map_err(|_| "its result.json is no JSON").and_then(checked)
        };
        let events = match &parsed {
            Ok(result) => told(result, &mut self.session),
            Err(why) => vec![raw_text(printed), self.session.error(why, true)],
        };
        self.result = Some(parsed);
        events
    }

    /// How it ended by its contract; `None` where it left no result and should have.
    fn outcome(&self, end: ProcessEnd) -> Option<Outcome> {
        let failed = |why: &str| Some(Outcome::Failed(cut(why, 4096)));
        let code = match (end, &self.result) {
            (ProcessEnd::Exited(code), _) => code,
            (ProcessEnd::Signalled(_), None) => return None,
            (ProcessEnd::Signalled(signal), _) => return failed(&format!("signal {signal} ended it")),
        };
        let summary = match &self.result {
            Some(Ok(result)) => text(result, &["summary"]).filter(|said| !said.trim().is_empty()),
            Some(Err(why)) => Some(*why),
            None => self.session.last_complaint(),
        };
        let summary = summary.unwrap_or("it gives no reason");
        // The one end after which it owes no result, and after which the contract has the task tried again as it is.
        if code == TRY_AGAIN {
            return failed(&format!(
                "its workspace, git or tools failed: {summary}; by its contract the task itself is not at fault: start \
                 the run again as it was"
            ));
        }
        let status = match self.result.as_ref()? {
            Ok(result) => text(result, &["status"]).unwrap_or_default(),
            Err(why) => return failed(why),
        };
        match (code, status) {
            // The exit code counts more than the status, but no code makes work done that it calls not done.
            (0, "success" | "partial") => Some(Outcome::Done),
            (0, status) => failed(&format!("it ended with code 0 and the status {status}: {summary}")),
            (1, _) => failed(&format!("it gave up: {summary}")),
            (3, _) => failed(&format!(
                "it needs an answer first: {summary}; start a run with the answer in its prompt"
            )),
            (code, _) => failed(&format!("it ended with code {code}, which its contract does not know")),
        }
    }
}

impl SessionReader for Output {
    fn line(&mut self, line: &str) -> Vec<AgentEvent> {
        if line == BEGIN {
            // The last result counts: what stands before it was printed by the program itself.
            self.open = Some(String::new());
            return Vec::new();
        }
        let Some(open) = &mut self.open else {
            return if line.trim().is_empty() { Vec::new() } else { vec![raw_text(line)] };
        };
        if line == END {
            let printed = self.open.take().unwrap_or_default();
            return self.closed(&printed);
        }
        if open.len() <= RESULT {
            open.push_str(&cut(line, RESULT));
            open.push('\n');
        }
        Vec::new()
    }

    fn error_line(&mut self, line: &str) -> Vec<AgentEvent> {
        self.session.complained(line);
        Vec::new()
    }

    fn verdict(&mut self, end: ProcessEnd) -> Verdict {
        let outcome = self.outcome(end);
        if outcome == Some(Outcome::Done) {
            self.session.worked("coven-code");
        }
        self.session.outcome = outcome;
        self.session.verdict(end, None)
    }
}

/// A result that keeps to the contract.
fn checked(result: Value) -> Result<Value, &'static str> {
    let is_text = |path: &[&str]| text(&result, path).is_some();
    let is_list = |path: &[&str]| crate::session::below(&result, path).is_some_and(Value::is_array);
    if text(&result, &["contract_version"]) != Some(VERSION) {
        return Err("its result.json has another version of the contract than 2");
    }
    let status = text(&result, &["status"]).unwrap_or_default();
    if !["success", "failure", "partial", "needs_input"].contains(&status) {
        return Err("its result.json has a status that the contract does not know");
    }
    let whole = is_text(&["summary"])
        && is_text(&["pr_body"])
        && is_list(&["commits"])
        && is_list(&["files_changed"])
        && is_text(&["review", "mode"])
        && is_text(&["review", "evidence_status"]);
    if whole { Ok(result) } else { Err("its result.json lacks what the contract demands") }
}

/// What the result says, for people.
fn told(result: &Value, session: &mut Session) -> Vec<AgentEvent> {
    let mut events = Vec::new();
    for path in list(result, &["files_changed"]).iter().take(1024).filter_map(Value::as_str) {
        let change = FileChangeKind::Changed;
        events.push(AgentEvent::FileChange { path: cut(path, 4096), change });
    }
    for finding in list(result, &["review", "findings"]).iter().take(256) {
        let part = |key: &str| text(finding, &[key]).unwrap_or_default();
        let line =
            finding.get("line").and_then(Value::as_u64).map(|line| format!(":{line}")).unwrap_or_default();
        let said =
            format!("{} {}{line}: {}\n{}", part("severity"), part("file"), part("title"), part("body"));
        events.push(AgentEvent::Text { text: cut(&said, 16 * 1024), delta: false });
    }
    let summary = text(result, &["summary"]).unwrap_or_default();
    let body = text(result, &["pr_body"]).filter(|body| !body.trim().is_empty()).unwrap_or(summary);
    session.said(body);
    events.push(AgentEvent::Text { text: body.to_owned(), delta: false });
    let status = text(result, &["status"]).unwrap_or_default();
    if status == "needs_input" {
        events.push(AgentEvent::Question { text: cut(summary, 4096) });
    }
    let ok = matches!(status, "success" | "partial");
    events.push(AgentEvent::Finished { ok, summary: Some(cut(summary, 4096)), turns: None });
    events
}

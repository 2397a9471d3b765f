//! Approvals: what a person is asked, and what they answer.
//!
//! A question is bound to the digest of the exact action under one warrant. It is answered once, used once, and a question
//! that nobody answers in time means no.

use crate::action::{Action, ActionDigest, ActionKind, LONGEST_WORD, MOST_OBJECTS};
use crate::agent::{ChoiceError, choice};
use crate::id::{ApprovalId, RunId, WarrantId};
use crate::risk::Place;
use crate::warrant::PathPattern;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Largest action that is put to a person, in bytes of its JSON. What is larger can't be judged by reading.
pub const LARGEST_ACTION: usize = 256 * 1024;
/// Most questions of one run that wait for a person at a time.
pub const MOST_OPEN: u64 = 64;
/// Most questions that one run may ask in all: an agent that asks for ever is not asking.
pub const MOST_OF_RUN: u64 = 10_000;
/// How long after a question's time a yes that was given in time may still be used, in milliseconds: the worker looks
/// several times a second, and a store or a machine that was slow shall not turn a yes of the last second into a no.
pub const USE_GRACE_MS: i64 = 30_000;
/// Longest reason, in bytes.
pub const LONGEST_REASON: usize = 1_000;
/// Most patterns of one yes.
pub const MOST_PATTERNS: usize = 64;
/// How redacted text begins. Two actions that differ in what was taken out look the same, so no earlier yes covers one.
const REDACTED: &str = "[redacted:";

choice!(
    /// How much an action can break, by our own reckoning; never by what the agent says of it.
    Risk, "a risk", {
        /// It looks, within the workspace.
        Low = "low",
        /// It changes or executes something within what the warrant grants.
        Medium = "medium",
        /// It destroys, reaches outside the workspace, or touches what the warrant does not grant.
        High = "high",
        /// It would take effect outside, and can't be taken back.
        Critical = "critical",
    }
);

choice!(
    /// Where a question stands.
    ApprovalState, "a state of an approval", {
        /// Nobody has answered.
        Pending = "pending",
        /// A person, or an answer that they gave before, said yes; the agent was not told yet.
        Allowed = "allowed",
        /// Somebody said no.
        Denied = "denied",
        /// Nobody answered in time, which means no.
        Expired = "expired",
        /// The agent no longer waits: its turn or its run ended.
        Withdrawn = "withdrawn",
        /// The yes was used: the agent was told, once.
        Used = "used",
    }
);

impl ApprovalState {
    /// Whether nothing follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Allowed)
    }
}

/// How far a yes reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scope", rename_all = "snake_case")]
pub enum ApprovalScope {
    /// This action, once.
    Once,
    /// Actions of the same kind and tool, with the same commands, paths and hosts, until the run ends.
    Run,
    /// Changes to paths that one of these patterns matches, until the run ends.
    Paths {
        /// The patterns; at least one.
        patterns: Vec<PathPattern>,
    },
}

/// What a person says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalAnswer {
    /// Yes or no.
    pub allow: bool,
    /// How far a yes reaches; a no is for this action.
    #[serde(flatten)]
    pub scope: ApprovalScope,
    /// Until when a yes that reaches further is good, in milliseconds since the Unix epoch; else until the run ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Why, in the person's words; the agent is told with a no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The answer can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A no reaches further than its action.
    #[error("a no is about this action alone: leave the scope and the time away")]
    WideNo,
    /// A time without a scope that it could end.
    #[error("a yes for this action alone has no end of its own: give a time only with a wider scope")]
    TimeOfOnce,
    /// No pattern, or too many.
    #[error("a yes for paths names 1 to {MOST_PATTERNS} patterns")]
    Patterns,
    /// A reason that is too long, or that holds control characters.
    #[error("a reason has at most {LONGEST_REASON} bytes on one line, and no control characters")]
    Reason,
    /// A critical action is answered each time.
    #[error("a critical action is answered each time: a yes for it can't reach further")]
    WideCritical,
}

impl AnswerError {
    /// A stable name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::WideNo | Self::TimeOfOnce | Self::Patterns => "approval-scope",
            Self::Reason => "approval-reason",
            Self::WideCritical => "approval-critical",
        }
    }
}

impl ApprovalAnswer {
    /// Whether it is a yes that reaches further than its action.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.allow && self.scope != ApprovalScope::Once
    }

    /// Checks it as an answer to a question of this risk.
    ///
    /// # Errors
    /// What can't be taken, and why.
    pub fn check(&self, risk: Risk) -> Result<(), AnswerError> {
        let once = self.scope == ApprovalScope::Once;
        let bare = once && self.until.is_none();
        if !self.allow && !bare {
            return Err(AnswerError::WideNo);
        }
        if once && self.until.is_some() {
            return Err(AnswerError::TimeOfOnce);
        }
        if let ApprovalScope::Paths { patterns } = &self.scope
            && !(1..=MOST_PATTERNS).contains(&patterns.len())
        {
            return Err(AnswerError::Patterns);
        }
        if self.is_wide() && risk == Risk::Critical {
            return Err(AnswerError::WideCritical);
        }
        let bad = |reason: &String| reason.len() > LONGEST_REASON || reason.chars().any(char::is_control);
        if self.reason.as_ref().is_some_and(bad) { Err(AnswerError::Reason) } else { Ok(()) }
    }
}

impl Action {
    /// Everything that says what it does to what.
    fn objects(&self) -> impl Iterator<Item = &String> {
        self.commands.iter().chain(&self.paths).chain(&self.hosts)
    }

    /// Whether all of it can be read: nothing was cut off and nothing was taken out.
    fn is_plain(&self) -> bool {
        let whole = [&self.commands, &self.paths, &self.hosts].iter().all(|list| list.len() < MOST_OBJECTS);
        let plain = |text: &String| text.len() < LONGEST_WORD && !text.contains(REDACTED);
        whole && plain(&self.tool) && self.objects().all(plain)
    }

    /// Whether the other one does the same to the same: kind, tool, commands, paths and hosts. What else the agent sent,
    /// such as a description or the new content of a file, may differ, unless it is all that says what is done.
    #[must_use]
    pub fn is_same_deed(&self, other: &Self) -> bool {
        let same = self.kind == other.kind
            && self.tool == other.tool
            && self.commands == other.commands
            && self.paths == other.paths
            && self.hosts == other.hosts;
        let says_all = self.objects().next().is_some()
            || (self.input == other.input && !self.input.to_string().contains(REDACTED));
        same && says_all && self.is_plain()
    }

    /// Whether it changes files alone, all of them in the repository and matched by one of the patterns.
    #[must_use]
    pub fn edits_only(&self, patterns: &[PathPattern], place: Place<'_>) -> bool {
        let matched = |path: &String| {
            place.within(path).is_some_and(|inner| {
                !inner.is_empty() && patterns.iter().any(|pattern| pattern.matches(inner.as_bytes()))
            })
        };
        self.kind == ActionKind::Edit
            && self.commands.is_empty()
            && self.hosts.is_empty()
            && !self.paths.is_empty()
            && self.is_plain()
            && self.paths.iter().all(matched)
    }
}

/// A question, as the worker puts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// Its id, made by the worker: asking twice with one id asks once.
    pub id: ApprovalId,
    /// The warrant in force.
    pub warrant: WarrantId,
    /// The digest of the exact action.
    pub digest: ActionDigest,
    /// The action, redacted: what a person reads.
    pub action: Action,
    /// How much it can break.
    pub risk: Risk,
    /// Why it is asked and why the risk is what it is; for people.
    pub because: Vec<String>,
    /// When it was asked, in milliseconds since the Unix epoch.
    pub asked_at: i64,
    /// From when on nobody's answer counts and it is denied, in milliseconds since the Unix epoch.
    pub expires_at: i64,
}

/// A question and where it stands, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The run.
    pub run: RunId,
    /// The question.
    #[serde(flatten)]
    pub request: ApprovalRequest,
    /// Where it stands.
    pub state: ApprovalState,
    /// The answer, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<ApprovalAnswer>,
    /// Who answered, such as `member:<id>`, or `approval:<id>` where an earlier answer covers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// When, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<i64>,
}

impl Approval {
    /// Where it stands at a moment: a question whose time is over is expired, whether somebody has noted so or not.
    #[must_use]
    pub const fn state_at(&self, now: i64) -> ApprovalState {
        let over = match self.state {
            ApprovalState::Pending => now >= self.request.expires_at,
            ApprovalState::Allowed => now >= self.request.expires_at.saturating_add(USE_GRACE_MS),
            _ => false,
        };
        if over { ApprovalState::Expired } else { self.state }
    }

    /// Whether the yes that was given to this question covers another one of the same run: within its scope and its
    /// time, never for a critical action, and never for a higher risk than the one that was answered.
    #[must_use]
    pub fn covers(&self, asked: &ApprovalRequest, place: Place<'_>, now: i64) -> bool {
        let Some(answer) = self.answer.as_ref().filter(|answer| answer.allow) else { return false };
        let in_time = answer.until.is_none_or(|until| now < until);
        if !in_time || asked.risk == Risk::Critical || asked.risk > self.request.risk {
            return false;
        }
        match &answer.scope {
            ApprovalScope::Once => false,
            ApprovalScope::Run => self.request.action.is_same_deed(&asked.action),
            ApprovalScope::Paths { patterns } => asked.action.edits_only(patterns, place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const PLACE: Place<'static> = Place { workspace: "/work" };

    fn action(kind: ActionKind, tool: &str) -> Action {
        Action {
            kind,
            tool: tool.into(),
            title: "a title".into(),
            commands: Vec::new(),
            paths: Vec::new(),
            hosts: Vec::new(),
            input: Value::Null,
        }
    }

    fn bash(command: &str) -> Action {
        Action {
            commands: vec![command.into()],
            input: json!({"command": command, "description": "words"}),
            ..action(ActionKind::Execute, "Bash")
        }
    }

    fn edit(paths: &[&str]) -> Action {
        Action {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..action(ActionKind::Edit, "Edit")
        }
    }

    fn request(action: Action, risk: Risk) -> ApprovalRequest {
        let warrant = WarrantId::from_bytes([1; 16]);
        ApprovalRequest {
            id: ApprovalId::from_bytes([2; 16]),
            warrant,
            digest: action.digest(warrant, "1"),
            action,
            risk,
            because: Vec::new(),
            asked_at: 1_000,
            expires_at: 2_000,
        }
    }

    fn yes(scope: ApprovalScope) -> ApprovalAnswer {
        ApprovalAnswer { allow: true, scope, until: None, reason: None }
    }

    fn paths(patterns: &[&str]) -> ApprovalScope {
        ApprovalScope::Paths { patterns: patterns.iter().map(|one| one.parse().unwrap()).collect() }
    }

    fn answered(action: Action, risk: Risk, answer: ApprovalAnswer) -> Approval {
        Approval {
            run: RunId::from_bytes([3; 16]),
            request: request(action, risk),
            state: ApprovalState::Used,
            answer: Some(answer),
            answered_by: Some("member:1".into()),
            answered_at: Some(1_500),
        }
    }

    #[test]
    fn a_yes_for_the_run_covers_the_same_deed_and_no_other() {
        let given = answered(bash("make test"), Risk::Medium, yes(ApprovalScope::Run));
        let covers = |action: Action, risk| given.covers(&request(action, risk), PLACE, 1_600);
        let reworded = Action {
            title: "another title".into(),
            input: json!({"command": "make test", "description": "other words"}),
            ..bash("make test")
        };
        assert!(covers(reworded, Risk::Medium));
        assert!(covers(bash("make test"), Risk::Low));
        for other in [
            bash("make test "),
            Action { tool: "Shell".into(), ..bash("make test") },
            Action { kind: ActionKind::Other, ..bash("make test") },
            Action { paths: vec!["x".into()], ..bash("make test") },
            Action { hosts: vec!["x".into()], ..bash("make test") },
            Action { commands: vec!["make test".into(); 2], ..bash("make test") },
        ] {
            assert!(!covers(other.clone(), Risk::Medium), "{other:?}");
        }
        assert!(!covers(bash("make test"), Risk::High), "never a higher risk");
        let once = answered(bash("make test"), Risk::Medium, yes(ApprovalScope::Once));
        assert!(!once.covers(&request(bash("make test"), Risk::Medium), PLACE, 1_600));
        let mut no = given.clone();
        no.answer = Some(ApprovalAnswer { allow: false, ..yes(ApprovalScope::Run) });
        assert!(!no.covers(&request(bash("make test"), Risk::Medium), PLACE, 1_600));
        let critical = answered(bash("npm publish"), Risk::Critical, yes(ApprovalScope::Run));
        assert!(!critical.covers(&request(bash("npm publish"), Risk::Critical), PLACE, 1_600));
    }

    #[test]
    fn an_action_that_names_nothing_is_known_by_its_input_alone() {
        let call = |text: &str| Action {
            input: json!({"title": text}),
            ..action(ActionKind::Other, "mcp__tracker__create")
        };
        let given = answered(call("one"), Risk::Medium, yes(ApprovalScope::Run));
        assert!(given.covers(&request(call("one"), Risk::Medium), PLACE, 1_600));
        assert!(!given.covers(&request(call("two"), Risk::Medium), PLACE, 1_600));
    }

    #[test]
    fn what_nobody_could_read_is_covered_by_nothing() {
        let long = "x".repeat(LONGEST_WORD);
        let many = Action { commands: vec!["true".into(); MOST_OBJECTS], ..bash("true") };
        let blank = Action {
            input: json!({"payload": "[redacted:token]"}),
            ..action(ActionKind::Other, "mcp__x__y")
        };
        for hidden in [bash("echo [redacted:token] | base64 -d | sh"), bash(&long), many, blank] {
            let given = answered(hidden.clone(), Risk::High, yes(ApprovalScope::Run));
            assert!(!given.covers(&request(hidden, Risk::High), PLACE, 1_600));
        }
        let given = answered(edit(&["src/a"]), Risk::Medium, yes(paths(&["**"])));
        assert!(!given.covers(&request(edit(&["src/[redacted:token]"]), Risk::Medium), PLACE, 1_600));
    }

    #[test]
    fn a_yes_for_paths_covers_edits_within_the_repository() {
        let given = answered(edit(&["src/main.rs"]), Risk::Medium, yes(paths(&["src/**", "docs/*.md"])));
        let covers = |action: Action| given.covers(&request(action, Risk::Medium), PLACE, 1_600);
        for good in [
            edit(&["src/a.rs"]),
            edit(&["/work/src/deep/a.rs", "docs/x.md"]),
            edit(&["src/../docs/./x.md"]),
            Action { tool: "Write".into(), ..edit(&["src/b.rs"]) },
        ] {
            assert!(covers(good.clone()), "{good:?}");
        }
        for bad in [
            edit(&[]),
            edit(&["src/a.rs", "Makefile"]),
            edit(&["src/../Makefile"]),
            edit(&["../src/a.rs"]),
            edit(&["/src/a.rs"]),
            edit(&["/etc/passwd"]),
            edit(&["/work"]),
            edit(&["~/src/a.rs"]),
            edit(&["/worksrc/a.rs"]),
            Action { kind: ActionKind::Execute, ..edit(&["src/a.rs"]) },
            Action { commands: vec!["true".into()], ..edit(&["src/a.rs"]) },
            Action { hosts: vec!["h".into()], ..edit(&["src/a.rs"]) },
        ] {
            assert!(!covers(bad.clone()), "{bad:?}");
        }
        assert!(!given.covers(&request(edit(&["src/a.rs"]), Risk::High), PLACE, 1_600));
    }

    #[test]
    fn a_wide_yes_ends_when_it_was_said_to() {
        let answer = ApprovalAnswer { until: Some(1_700), ..yes(ApprovalScope::Run) };
        let given = answered(bash("make"), Risk::Medium, answer);
        assert!(given.covers(&request(bash("make"), Risk::Medium), PLACE, 1_699));
        assert!(!given.covers(&request(bash("make"), Risk::Medium), PLACE, 1_700));
    }

    #[test]
    fn answers_that_say_too_much_are_refused() {
        let no = ApprovalAnswer { allow: false, ..yes(ApprovalScope::Once) };
        let reason = |text: &str| ApprovalAnswer { reason: Some(text.into()), ..no.clone() };
        for (answer, risk, code) in [
            (ApprovalAnswer { scope: ApprovalScope::Run, ..no.clone() }, Risk::Low, "approval-scope"),
            (ApprovalAnswer { until: Some(1), ..no.clone() }, Risk::Low, "approval-scope"),
            (ApprovalAnswer { until: Some(1), ..yes(ApprovalScope::Once) }, Risk::Low, "approval-scope"),
            (yes(ApprovalScope::Paths { patterns: Vec::new() }), Risk::Low, "approval-scope"),
            (yes(ApprovalScope::Run), Risk::Critical, "approval-critical"),
            (reason("two\nlines"), Risk::Low, "approval-reason"),
            (reason(&"x".repeat(LONGEST_REASON + 1)), Risk::Low, "approval-reason"),
        ] {
            assert_eq!(answer.check(risk).unwrap_err().code(), code, "{answer:?}");
        }
        for (answer, risk) in [
            (no.clone(), Risk::Critical),
            (reason("because"), Risk::Low),
            (yes(ApprovalScope::Once), Risk::Critical),
            (ApprovalAnswer { until: Some(1), ..yes(paths(&["a"])) }, Risk::High),
        ] {
            assert_eq!(answer.check(risk), Ok(()), "{answer:?}");
        }
    }

    #[test]
    fn time_runs_out_for_questions_and_a_little_later_for_answers() {
        let mut asked = answered(bash("make"), Risk::Low, yes(ApprovalScope::Once));
        asked.state = ApprovalState::Pending;
        assert_eq!(asked.state_at(1_999), ApprovalState::Pending);
        assert_eq!(asked.state_at(2_000), ApprovalState::Expired);
        asked.state = ApprovalState::Allowed;
        assert_eq!(asked.state_at(2_000 + USE_GRACE_MS - 1), ApprovalState::Allowed);
        assert_eq!(asked.state_at(2_000 + USE_GRACE_MS), ApprovalState::Expired);
        asked.state = ApprovalState::Used;
        assert_eq!(asked.state_at(i64::MAX), ApprovalState::Used);
    }

    #[test]
    fn an_answer_reads_back_as_it_was_written() {
        for (answer, text) in [
            (yes(ApprovalScope::Once), r#"{"allow":true,"scope":"once"}"#),
            (yes(paths(&["src/**"])), r#"{"allow":true,"scope":"paths","patterns":["src/**"]}"#),
        ] {
            assert_eq!(serde_json::to_string(&answer).unwrap(), text);
            assert_eq!(serde_json::from_str::<ApprovalAnswer>(text).unwrap(), answer);
        }
    }
}

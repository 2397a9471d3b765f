//! Whether a policy is one, what is odd about it, and its rules in words.

use super::{
    Decision, LARGEST_POLICY, LONGEST_REASON, MOST_ENTRIES, MOST_RULES, Policy, PolicyFile, PolicyRule,
    TextPattern,
};
use crate::action::ActionKind;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt;

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFlaw {
    /// Too many rules.
    #[error("it has more than {MOST_RULES} rules")]
    Rules,
    /// A list is too long.
    #[error("{0} has more than {MOST_ENTRIES} entries")]
    Entries(&'static str),
    /// More than one kind of object.
    #[error(
        "it names more than one of commands, paths and hosts, and nothing is all of these: each part of an action is \
         judged by itself, so write one rule for each"
    )]
    Mixed,
    /// An allow-rule for high risks.
    #[error(
        "it lets the riskier through and not the harmless: `risk` means at least this risk; use it with ask or deny"
    )]
    RiskyAllow,
    /// A reason that is no sentence.
    #[error("its reason has more than {LONGEST_REASON} characters, or control characters")]
    Reason,
}

/// A policy is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A rule is wrong.
    #[error("rule {rule}: {flaw}")]
    Rule {
        /// Its number, from 1.
        rule: usize,
        /// What is wrong.
        flaw: PolicyFlaw,
    },
    /// All of it is wrong.
    #[error("the policy: {0}")]
    Whole(PolicyFlaw),
    /// It is no text of the form.
    #[error("{message} in line {line}")]
    Text {
        /// What is wrong.
        message: String,
        /// Where, from 1.
        line: usize,
    },
    /// The file is too large.
    #[error("it is larger than {} KiB", LARGEST_POLICY >> 10)]
    TooLarge,
}

impl PolicyError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "policy-invalid"
    }
}

/// Something odd about a policy that is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyRemark {
    /// The rule that it is about, from 1.
    pub rule: usize,
    /// What is odd.
    pub text: String,
}

impl Policy {
    /// Whether it is a policy.
    ///
    /// # Errors
    /// [`PolicyError`] with the number of the rule.
    pub fn validate(&self) -> Result<(), PolicyError> {
        if self.rules.len() > MOST_RULES {
            return Err(PolicyError::Whole(PolicyFlaw::Rules));
        }
        for (index, rule) in self.rules.iter().enumerate() {
            rule.validate().map_err(|flaw| PolicyError::Rule { rule: index + 1, flaw })?;
        }
        Ok(())
    }

    /// What is odd about it: rules that never match, rules without effect.
    #[must_use]
    pub fn remarks(&self) -> Vec<PolicyRemark> {
        let mut found = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let mut remark = |text: String| found.push(PolicyRemark { rule: index + 1, text });
            let earlier = self.rules.iter().take(index);
            if let Some(by) = earlier.clone().position(|one| one.covers(rule)) {
                remark(format!(
                    "it never decides: rule {} comes first and matches all that it matches",
                    by + 1
                ));
                continue;
            }
            if let Some(why) = rule.never_matches() {
                remark(format!("it never matches: {why}"));
                continue;
            }
            let rest = self.rules.iter().skip(index + 1);
            let default = self.default.unwrap_or(Decision::Allow);
            if rule.decision == default
                && rest.clone().all(|one| one.decision == rule.decision || !one.meets(rule))
            {
                remark(match rule.decision {
                    Decision::Allow => {
                        "it changes nothing: nothing after it would ask or deny, and layers only add up"
                            .to_owned()
                    }
                    same => format!("it changes nothing: what no rule names is {} anyway", done(same)),
                });
            }
            if !rule.paths.is_empty() && rule.decision == Decision::Deny && rule.is_a_wall_for_paths() {
                let mut exempt = earlier
                    .filter(|one| one.decision != Decision::Deny && one.meets(rule) && !one.paths.is_empty());
                if exempt.next().is_some() {
                    remark(
                        "an earlier rule exempts some of its paths from the agent's protocol, but no push may change them: \
                         what a warrant protects has no exceptions"
                            .to_owned(),
                    );
                }
            }
            for pattern in &rule.commands {
                if let Some(why) = without_effect(pattern) {
                    remark(format!("the command '{pattern}' {why}"));
                }
            }
        }
        found
    }
}

impl PolicyFile {
    /// A file whose text was read, if its policy is one.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn validated(self) -> Result<Policy, PolicyError> {
        self.policy.validate()?;
        Ok(self.policy)
    }
}

/// The SHA-256 of a policy's text, as 64 hexadecimal digits: what the log says of it.
#[must_use]
pub fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why a pattern of a command does not match what its writer thinks.
fn without_effect(pattern: &TextPattern) -> Option<&'static str> {
    let text = pattern.as_str();
    if ["&&", "||", ";", "|", "$(", "`", ">", "<"].iter().any(|mark| text.contains(mark)) {
        return Some(
            "holds a mark of the shell, but each command of a text is matched by itself, without them",
        );
    }
    if text.contains("  ") || text.starts_with(' ') || text.ends_with(' ') {
        return Some("holds spaces that no command has: words are joined by one space");
    }
    if text.contains(['"', '\'', '\\']) {
        return Some("holds quotes, but words are matched without them");
    }
    let first = text.split(' ').next().unwrap_or_default();
    if ["env", "nohup", "nice", "timeout", "time", "exec", "command", "stdbuf", "xargs"].contains(&first) {
        return Some("begins with a word that is left out: the command that it runs is matched");
    }
    if first.contains('=') {
        return Some("begins with an assignment, which is left out");
    }
    None
}

impl PolicyRule {
    pub(super) fn validate(&self) -> Result<(), PolicyFlaw> {
        let lists = [
            ("tools", self.tools.len()),
            ("kinds", self.kinds.len()),
            ("commands", self.commands.len()),
            ("paths", self.paths.len()),
            ("hosts", self.hosts.len()),
            ("roles", self.roles.len()),
        ];
        if let Some((name, _)) = lists.iter().find(|(_, length)| *length > MOST_ENTRIES) {
            return Err(PolicyFlaw::Entries(name));
        }
        let objects = [self.commands.is_empty(), self.paths.is_empty(), self.hosts.is_empty()];
        if objects.iter().filter(|is_empty| !**is_empty).count() > 1 {
            return Err(PolicyFlaw::Mixed);
        }
        if self.decision == Decision::Allow && self.risk.is_some() {
            return Err(PolicyFlaw::RiskyAllow);
        }
        let reason = self.reason.as_deref().unwrap_or_default();
        if reason.chars().count() > LONGEST_REASON || reason.chars().any(char::is_control) {
            return Err(PolicyFlaw::Reason);
        }
        Ok(())
    }

    /// Whether everything that `other` matches is matched here; may say no where a cleverer proof would find a yes.
    fn covers(&self, other: &Self) -> bool {
        fn all<T>(mine: &[T], theirs: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
            mine.is_empty()
                || (!theirs.is_empty()
                    && theirs.iter().all(|one| mine.iter().any(|other| covers(other, one))))
        }
        // What lets through matches less: no hidden command, no path outside, no other port.
        let is_as_wide = self.decision != Decision::Allow
            || other.decision == Decision::Allow
            || (self.commands.is_empty() && self.paths.is_empty() && self.hosts.is_empty());
        let text =
            |mine: &TextPattern, theirs: &TextPattern| mine.as_str() == "*" || mine.matches(theirs.as_str());
        is_as_wide
            && !self.is_over
            && self.until.is_none_or(|mine| other.until.is_some_and(|theirs| theirs <= mine))
            && self.risk.is_none_or(|mine| other.risk.is_some_and(|theirs| mine <= theirs))
            && all(&self.tools, &other.tools, text)
            && all(&self.kinds, &other.kinds, |a, b| a == b)
            && all(&self.roles, &other.roles, |a, b| a == b)
            && all(&self.commands, &other.commands, text)
            && all(&self.paths, &other.paths, |a, b| a.covers(b))
            && all(&self.hosts, &other.hosts, |a, b| a.covers(b))
    }

    /// Whether some action could be matched by both; may say yes where a cleverer proof would find a no.
    fn meets(&self, other: &Self) -> bool {
        fn any<T>(mine: &[T], theirs: &[T], meet: impl Fn(&T, &T) -> bool) -> bool {
            mine.is_empty()
                || theirs.is_empty()
                || mine.iter().any(|one| theirs.iter().any(|other| meet(one, other)))
        }
        let front = |text: &str| text.split('*').next().unwrap_or_default().to_owned();
        let fronts = |a: &str, b: &str| {
            let (a, b) = (front(a), front(b));
            a.starts_with(&b) || b.starts_with(&a)
        };
        let objects =
            |rule: &Self| (!rule.commands.is_empty(), !rule.paths.is_empty(), !rule.hosts.is_empty());
        let (mine, theirs) = (objects(self), objects(other));
        let same_objects = mine == theirs || mine == (false, false, false) || theirs == (false, false, false);
        same_objects
            && any(&self.kinds, &other.kinds, |a, b| a == b)
            && any(&self.roles, &other.roles, |a, b| a == b)
            && any(&self.tools, &other.tools, |a, b| fronts(a.as_str(), b.as_str()))
            && any(&self.commands, &other.commands, |a, b| fronts(a.as_str(), b.as_str()))
            && any(&self.paths, &other.paths, |a, b| fronts(a.as_str(), b.as_str()))
            && any(&self.hosts, &other.hosts, |a, b| a.covers(b) || b.covers(a))
    }

    /// Why no action can be matched.
    fn never_matches(&self) -> Option<&'static str> {
        let lacks = |kinds: &[ActionKind]| {
            !self.kinds.is_empty() && !self.kinds.iter().any(|kind| kinds.contains(kind))
        };
        if self.is_over {
            return Some("its last day is over");
        }
        if !self.commands.is_empty() && lacks(&[ActionKind::Execute]) {
            return Some("only what executes has commands");
        }
        if !self.hosts.is_empty() && lacks(&[ActionKind::Fetch, ActionKind::Execute, ActionKind::Other]) {
            return Some("what reads or edits files names no host");
        }
        None
    }
}

fn done(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "let through",
        Decision::Ask => "asked about",
        Decision::Deny => "denied",
    }
}

/// The rule in words: `denies changes to infra/** by the role builder: no hands on production`.
impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(all: &[T]) -> String {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            match all.split_last() {
                Some((last, front)) if !front.is_empty() => format!("{} or {last}", front.join(", ")),
                _ => all.concat(),
            }
        }
        f.write_str(match self.decision {
            Decision::Allow => "lets through",
            Decision::Ask => "asks about",
            Decision::Deny => "denies",
        })?;
        if !self.commands.is_empty() {
            write!(f, " the command {}", list(&self.commands))?;
        } else if !self.paths.is_empty() {
            let what = if self.kinds == [ActionKind::Edit] { "changes to" } else { "what touches" };
            write!(f, " {what} {}", list(&self.paths))?;
        } else if !self.hosts.is_empty() {
            write!(f, " the host {}", list(&self.hosts))?;
        } else {
            f.write_str(" everything")?;
        }
        let is_told = self.kinds == [ActionKind::Edit] && !self.paths.is_empty();
        if !(self.kinds.is_empty() || is_told) {
            write!(f, " of the kind {}", list(&self.kinds))?;
        }
        if !self.tools.is_empty() {
            write!(f, " with the tool {}", list(&self.tools))?;
        }
        if !self.roles.is_empty() {
            write!(f, " by the role {}", list(&self.roles))?;
        }
        if let Some(risk) = self.risk {
            write!(f, " of a risk that is {risk} or more")?;
        }
        if let Some(until) = self.until {
            write!(f, " until {until}")?;
        }
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

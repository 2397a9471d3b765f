//! A question about a warrant, and its answer.

use super::{Explanation, Line, Origin, Source};
use crate::money::MicroUsd;
use crate::refusal::{Refusal, Rule};
use crate::repository::RepositoryName;
use crate::warrant::{DEFAULT_PORT, RequestVerdict, Warrant};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// Something that a run may want to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Read a repository.
    Read(RepositoryName),
    /// Change a path by a push.
    Write(String),
    /// Push a ref, to the repository of the warrant.
    Push(String),
    /// Execute what the repository holds or the run made.
    Exec,
    /// Connect to a host.
    Reach(Place),
    /// Make a request of a host.
    Request(String, Place),
    /// Call a tool of an endpoint of the Model Context Protocol.
    Call(Place, String),
    /// Use a secret in a request.
    Use(String, Place),
    /// Ask a model of a provider.
    Ask(String, String),
    /// Spend this much in all.
    Spend(MicroUsd),
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host: lower-case, without a final dot.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path, without query.
    pub path: String,
}

/// A question could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{}' is no question: write 'read OWNER/NAME', 'write PATH', 'push REF', 'exec', 'reach HOST[:PORT]', 'request METHOD URL', 'call URL#TOOL', 'use SECRET URL', 'ask PROVIDER/MODEL' or 'spend USD'", .0.escape_debug()
)]
pub struct QuestionError(String);

fn host(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let fine = (1..=253).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    fine.then_some(name)
}

fn place(text: &str, port: u16) -> Option<Place> {
    let (authority, path) = text.find('/').map_or((text, "/"), |at| text.split_at(at));
    let path = path.split(['?', '#']).next().unwrap_or("/");
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, digits)) => (name, digits.parse().ok().filter(|port| *port > 0)?),
        None => (authority, port),
    };
    Some(Place { host: host(name)?, port, path: path.to_owned() })
}

fn url(text: &str) -> Option<Place> {
    match text.split_once("://") {
        Some(("https", rest)) => place(rest, DEFAULT_PORT),
        Some(("http", rest)) => place(rest, 80),
        Some(_) => None,
        None => place(text, DEFAULT_PORT),
    }
}

impl FromStr for Question {
    type Err = QuestionError;

    fn from_str(text: &str) -> Result<Self, QuestionError> {
        let error = || QuestionError(text.chars().take(100).collect());
        if text.chars().any(char::is_control) {
            return Err(error());
        }
        let (verb, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let rest = rest.trim();
        let read = match verb {
            "read" => rest.parse().ok().map(Self::Read),
            "write" => {
                let path = rest.strip_prefix("./").unwrap_or(rest);
                let fine = !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
                fine.then(|| Self::Write(path.to_owned()))
            }
            "push" if rest.starts_with("refs/") => Some(Self::Push(rest.to_owned())),
            "push" if !rest.is_empty() && !rest.contains(' ') => {
                Some(Self::Push(format!("refs/heads/{rest}")))
            }
            "exec" if rest.is_empty() => Some(Self::Exec),
            "reach" => (!rest.contains('/')).then(|| place(rest, DEFAULT_PORT)).flatten().map(Self::Reach),
            "request" => rest.split_once(' ').and_then(|(method, to)| {
                let fine = !method.is_empty() && method.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
                fine.then(|| url(to.trim()))
                    .flatten()
                    .map(|to| Self::Request(method.to_ascii_uppercase(), to))
            }),
            "call" => rest.split_once('#').and_then(|(to, tool)| {
                (!tool.is_empty()).then(|| url(to)).flatten().map(|to| Self::Call(to, tool.to_owned()))
            }),
            "use" => rest
                .split_once(' ')
                .and_then(|(name, to)| url(to.trim()).map(|to| Self::Use(name.to_owned(), to))),
            "ask" => rest.split_once('/').and_then(|(provider, model)| {
                let fine = !provider.is_empty() && !model.is_empty();
                fine.then(|| Self::Ask(provider.to_owned(), model.to_owned()))
            }),
            "spend" => rest.parse().ok().map(Self::Spend),
            _ => None,
        };
        read.ok_or_else(error)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}{}", self.host, self.port, self.path)
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(name) => write!(f, "read {name}"),
            Self::Write(path) => write!(f, "write {path}"),
            Self::Push(reference) => write!(f, "push {reference}"),
            Self::Exec => f.write_str("exec"),
            Self::Reach(at) => write!(f, "reach {}:{}", at.host, at.port),
            Self::Request(method, at) => write!(f, "request {method} {at}"),
            Self::Call(at, tool) => write!(f, "call {at}#{tool}"),
            Self::Use(name, at) => write!(f, "use {name} {at}"),
            Self::Ask(provider, model) => write!(f, "ask {provider}/{model}"),
            Self::Spend(amount) => write!(f, "spend {amount}"),
        }
    }
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The question, in its full form.
    pub question: String,
    /// Whether the warrant grants it.
    pub granted: bool,
    /// The rule that says so.
    pub source: Source,
    /// What is granted or protected there, as the page lists it; absent where nothing is.
    pub line: Option<String>,
    /// The refusal that the run would see.
    pub refusal: Option<Refusal>,
    /// What a person can do about it.
    pub next: Option<String>,
    /// What else is to be known.
    pub note: Option<String>,
}

impl Explanation {
    /// Answers a question about the warrant that this explanation is of: by the decision of the enforcing code, and with
    /// the line of this page that it goes back to.
    #[must_use]
    pub fn answer(&self, warrant: &Warrant, question: &Question) -> Answer {
        let decided = decide(warrant, question);
        let (line, source) = self
            .reason(question, decided.as_ref().err())
            .unwrap_or_else(|| (None, Source::new(Origin::House, "what no rule grants is refused")));
        let note = match (question, &decided) {
            (Question::Request(_, at), Ok(Some(RequestVerdict::ByTool))) => {
                Some(format!("only calls of the granted tools: ask 'call {at}#TOOL'"))
            }
            (Question::Reach(at), Ok(_)) if warrant.must_inspect(&at.host, at.port) => {
                Some("TLS ends in the broker there, and each request is judged".to_owned())
            }
            (Question::Write(_), Ok(_)) => {
                Some("what is written is looked at besides: names, links, secrets, sizes".to_owned())
            }
            (Question::Spend(_), Ok(_)) => {
                Some("budgets of the org and of the agent bind as well".to_owned())
            }
            _ => None,
        };
        let refusal = decided.err();
        Answer {
            question: question.to_string(),
            granted: refusal.is_none(),
            source,
            line,
            next: refusal.as_ref().map(|refusal| refusal.rule.next_step().to_owned()),
            refusal,
            note,
        }
    }

    /// The line that an answer goes back to.
    fn reason(&self, question: &Question, refusal: Option<&Refusal>) -> Option<(Option<String>, Source)> {
        fn shown<T>(line: &Line<T>, text: String) -> (Option<String>, Source) {
            (Some(text), line.source.clone())
        }
        let bare = |source: &Source| (None, source.clone());
        let rule = refusal.map(|refusal| refusal.rule);
        match question {
            Question::Read(name) => {
                let line = self.read.iter().find(|line| line.grant.name == *name)?;
                Some(shown(line, line.grant.name.to_string()))
            }
            Question::Write(path) => match rule {
                Some(Rule::PathProtected) => {
                    let fits = |line: &&Line<_>| {
                        let pattern: &crate::warrant::PathPattern = &line.grant;
                        pattern.matches_ignoring_case(path.as_bytes())
                    };
                    self.protected.iter().find(fits).map(|line| shown(line, line.grant.to_string()))
                }
                Some(Rule::PathNotGranted) | None => {
                    let line = self.write.iter().find(|line| line.grant.matches(path.as_bytes()));
                    line.map(|line| shown(line, line.grant.to_string()))
                }
                Some(_) => Some(bare(&self.push.source)),
            },
            Question::Push(_) => {
                let text = self.push.grant.as_ref().map(|grant| grant.reference.to_string());
                Some((text, self.push.source.clone()))
            }
            Question::Exec => Some(bare(&self.exec.source)),
            Question::Reach(at) | Question::Request(_, at) | Question::Call(at, _)
                if !matches!(rule, Some(Rule::RequestNotGranted | Rule::ToolNotGranted)) =>
            {
                let line = self.hosts.iter().find(|line| line.grant.matches(&at.host, at.port))?;
                Some(shown(line, line.grant.to_string()))
            }
            Question::Reach(_) => None,
            Question::Request(_, at) | Question::Call(at, _) => {
                let fits = |line: &&Line<crate::warrant::HostRules>| {
                    line.grant.host.matches(&at.host, at.port) && !line.grant.requests.is_empty()
                };
                let line = self.rules.iter().find(fits)?;
                Some(shown(line, format!("the rules of {}", line.grant.host)))
            }
            Question::Use(name, _) => {
                let line = self.secrets.iter().find(|line| line.grant.name == *name)?;
                Some(shown(line, format!("{} at {}{}", line.grant.name, line.grant.host, line.grant.path)))
            }
            Question::Ask(provider, model) => {
                let fits = |line: &&Line<crate::warrant::ModelGrant>| {
                    line.grant.provider == *provider && line.grant.model.matches(model)
                };
                let line = self.models.iter().find(fits)?;
                Some(shown(line, format!("{}/{}", line.grant.provider, line.grant.model)))
            }
            Question::Spend(_) => Some(shown(&self.budget, self.budget.grant.to_string())),
        }
    }
}

/// What the enforcing code decides.
fn decide(warrant: &Warrant, question: &Question) -> Result<Option<RequestVerdict>, Refusal> {
    let own = || {
        warrant
            .push_grant()
            .map(|grant| &grant.repository)
            .or_else(|| warrant.repositories.first().map(|one| &one.name))
    };
    let push = |reference: &str| match own() {
        Some(name) => warrant.permits_push(name, reference).map(|_| None),
        None => Err(Refusal::new(Rule::PushNotGranted, reference, "the warrant names no repository")),
    };
    match question {
        Question::Read(name) => warrant.permits_read(name).map(|_| None),
        Question::Write(path) => {
            push(warrant.push_ref().map_or("refs/heads/any", |reference| reference.as_str()))?;
            warrant.permits_path_write(path.as_bytes()).map(|()| None)
        }
        Question::Push(reference) => push(reference),
        Question::Exec => warrant.permits_exec().map(|()| None),
        Question::Reach(at) => warrant.permits_egress(&at.host, at.port).map(|()| None),
        Question::Request(method, at) => {
            warrant.permits_request(&at.host, at.port, method, &at.path).map(Some)
        }
        Question::Call(at, tool) => {
            warrant.permits_tool(&at.host, at.port, "POST", &at.path, tool).map(|()| None)
        }
        Question::Use(name, at) => {
            warrant.permits_egress(&at.host, at.port)?;
            warrant.permits_secret(name, &at.host, at.port, &at.path).map(|_| None)
        }
        Question::Ask(provider, model) => warrant.permits_model(provider, model).map(|()| None),
        Question::Spend(amount) => warrant.permits_spend(*amount).map(|()| None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_exactly_or_refused() {
        for (text, full) in [
            ("read acme/other", "read acme/other"),
            ("write ./src/a.rs", "write src/a.rs"),
            ("push main", "push refs/heads/main"),
            ("push refs/tags/v1", "push refs/tags/v1"),
            (" exec ", "exec"),
            ("reach API.github.com.", "reach api.github.com:443"),
            ("reach a.b:80", "reach a.b:80"),
            ("request get https://a.b/c?d=e", "request GET a.b:443/c"),
            ("request POST http://a.b", "request POST a.b:80/"),
            ("call https://a.b:8443/mcp#search", "call a.b:8443/mcp#search"),
            ("use TOKEN https://a.b/c", "use TOKEN a.b:443/c"),
            ("ask openrouter/meta/llama-4", "ask openrouter/meta/llama-4"),
            ("spend 5", "spend $5.00"),
        ] {
            assert_eq!(text.parse::<Question>().unwrap().to_string(), full);
        }
        for bad in [
            "",
            "read",
            "read a",
            "write",
            "write /etc/passwd",
            "write a/../b",
            "push",
            "push a b",
            "exec now",
            "reach",
            "reach a/b",
            "reach a:0",
            "reach a:x",
            "reach a\u{1b}b",
            "request GET",
            "request G*T https://a",
            "call https://a",
            "call https://a#",
            "use TOKEN",
            "request GET ftp://a/b",
            "ask gpt",
            "spend 0",
            "spend -1",
            "fly",
        ] {
            assert!(bad.parse::<Question>().is_err(), "{bad:?}");
        }
    }
}

//! The `aider` engine: `aider`, which edits by what the model writes and prints text for people.
//!
//! There is no protocol: the reader knows the lines that matter, and passes on the others as text. It can't be attended.

use crate::invoke::{Checked, INSTRUCTIONS, PLACEHOLDER, variables, words};
use crate::session::{Outcome, Session, cut, plain_error, raw_text};
use crate::{
    Engine, EngineError, EngineRequest, Invocation, Models, ProcessEnd, Program, SessionReader, Verdict,
};
use tipstaff_model::{AgentEvent, EngineKind, FileChangeKind, Usage};

/// Aider.
pub(crate) struct Aider;

const PROGRAM: Program = Program {
    name: "aider",
    install: "pipx install aider-chat==0.86.2",
    tested: "0.86.2",
    oldest: "0.80.0",
    version_args: &["--version"],
};

const MODELS: Models = Models { provider: "openai", default: "gpt-5.5", besides: &[] };

impl Engine for Aider {
    fn kind(&self) -> EngineKind {
        EngineKind::Aider
    }

    fn summary(&self) -> &'static str {
        "Aider (aider), with models of OpenAI, Anthropic, Google or any compatible server"
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
        let (prefix, address, below, key) = dialect(asked.provider);
        let mut argv = words([
            PROGRAM.name,
            "--yes-always",
            "--edit-format=diff",
            "--map-tokens=0",
            "--no-stream",
            "--no-pretty",
            "--no-fancy-input",
            // What it changes is committed for it, without one more question to a model for the message.
            "--no-auto-commits",
            "--no-dirty-commits",
            "--no-gitignore",
            "--no-suggest-shell-commands",
            "--no-detect-urls",
            "--disable-playwright",
            "--no-check-update",
            "--no-show-release-notes",
            "--no-show-model-warnings",
            "--analytics-disable",
        ]);
        argv.push(format!("--model={prefix}/{}", asked.model));
        argv.push(format!("--weak-model={prefix}/{}", asked.model));
        argv.push(format!("--message-file={}", asked.prompt_path()));
        argv.push(format!("--read={}", asked.at_home(INSTRUCTIONS)));
        // Its notes would be files of the workspace.
        argv.push(format!("--chat-history-file={}", asked.at_home(".tipstaff/aider.history.md")));
        argv.push(format!("--input-history-file={}", asked.at_home(".tipstaff/aider.input")));
        if !asked.may_write() {
            argv.push("--chat-mode=ask".to_owned());
        }
        Ok(Invocation {
            argv,
            env: variables([
                (address, &asked.upstream(below)),
                (key, PLACEHOLDER),
                // Its table of prices is on a server that it would ask at each start.
                ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
                ("TERM", "dumb"),
                // It breaks lines at the width of a terminal.
                ("COLUMNS", "1000"),
            ]),
            home: vec![asked.prompt_file(), asked.instructions_file()],
        })
    }

    fn reader(&self) -> Option<Box<dyn SessionReader>> {
        Some(Box::new(Output::default()))
    }
}

/// How its library names a provider's models, where their address and key stand, and what follows the upstream.
fn dialect(provider: &str) -> (&'static str, &'static str, &'static str, &'static str) {
    match provider {
        "anthropic" => ("anthropic", "ANTHROPIC_API_BASE", "", "ANTHROPIC_API_KEY"),
        "gemini" => ("gemini", "GEMINI_API_BASE", "", "GEMINI_API_KEY"),
        _ => ("openai", "OPENAI_API_BASE", "/v1", "OPENAI_API_KEY"),
    }
}

/// What it prints.
#[derive(Default)]
struct Output {
    session: Session,
    version: Option<String>,
    has_started: bool,
    in_text: bool,
    /// Why its last answer changed nothing, until one does.
    trouble: Option<String>,
    answers: u64,
}

impl Output {
    fn text(&mut self, line: &str) -> AgentEvent {
        let text = format!("{line}\n");
        let delta = std::mem::replace(&mut self.in_text, true);
        if delta {
            self.session.said_on(&text);
        } else {
            self.session.said(&text);
        }
        AgentEvent::Text { text, delta }
    }

    fn trouble(&mut self, line: &str) -> AgentEvent {
        let why = plain_error(line);
        self.trouble = Some(why.clone());
        self.session.error(&why, false)
    }
}

impl SessionReader for Output {
    fn line(&mut self, line: &str) -> Vec<AgentEvent> {
        let line = line.trim_end();
        if line.len() > crate::session::RAW {
            return vec![raw_text(line)];
        }
        if !self.has_started {
            if let Some(version) = line.strip_prefix("Aider v") {
                self.version = Some(cut(version, 256));
                return Vec::new();
            }
            let model = line.strip_prefix("Model: ").or_else(|| line.strip_prefix("Main model: "));
            if let (Some(model), Some(version)) = (model, self.version.take()) {
                self.has_started = true;
                let name = model.split_whitespace().next().map(|name| cut(name, 256));
                return vec![AgentEvent::Started { session: None, model: name, version: Some(version) }];
            }
            return if line.is_empty() { Vec::new() } else { vec![raw_text(line)] };
        }
        if let Some(path) = line.strip_prefix("Applied edit to ") {
            self.in_text = false;
            self.trouble = None;
            self.session.worked("edit");
            let change = FileChangeKind::Changed;
            return vec![AgentEvent::FileChange { path: cut(path, 4096), change }];
        }
        if let Some(usage) = tokens(line) {
            self.in_text = false;
            self.answers = self.answers.saturating_add(1);
            if self.trouble.as_deref().is_some_and(|why| why.starts_with("litellm.")) {
                self.trouble = None;
            }
            return vec![AgentEvent::Usage { usage, claimed_micro_usd: None }];
        }
        if is_trouble(line) {
            self.in_text = false;
            return vec![self.trouble(line)];
        }
        if line.is_empty() && !self.in_text {
            return Vec::new();
        }
        vec![self.text(line)]
    }

    fn error_line(&mut self, line: &str) -> Vec<AgentEvent> {
        self.session.complained(line);
        Vec::new()
    }

    fn verdict(&mut self, end: ProcessEnd) -> Verdict {
        // It returns 0 also when its model never answered.
        if self.answers > 0 || self.trouble.is_some() {
            self.session.outcome = Some(match self.trouble.take() {
                Some(why) => Outcome::Failed(why),
                None => Outcome::Done,
            });
        }
        self.session.verdict(end, None)
    }
}

/// A line that says that something went wrong: errors of its library, and edits that fit nowhere.
fn is_trouble(line: &str) -> bool {
    let begins = [
        "litellm.",
        "The LLM did not conform to the edit format",
        "Only 3 reflections allowed",
        "Unable to apply edit",
        "Error loading",
        "Warning: ValueError",
    ];
    begins.iter().any(|begin| line.starts_with(begin))
        || (line.starts_with("# ")
            && line.contains("SEARCH/REPLACE block")
            && line.contains("failed to match"))
}

/// `Tokens: 1.2k sent, 85 received. Cost: …`; the figures are rounded.
fn tokens(line: &str) -> Option<Usage> {
    let rest = line.strip_prefix("Tokens: ")?;
    let mut usage = Usage::default();
    let words: Vec<&str> = rest.split_whitespace().collect();
    for pair in words.windows(2) {
        let [figure, what] = pair else { continue };
        let Some(count) = figure_of(figure) else { continue };
        match what.trim_end_matches([',', '.']) {
            "sent" => usage.input = count,
            "received" => usage.output = count,
            _ => {}
        }
    }
    (usage != Usage::default()).then_some(usage)
}

fn figure_of(text: &str) -> Option<u64> {
    let (digits, factor) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1000),
        None => (text, 1),
    };
    let (whole, tenth) = digits.split_once('.').unwrap_or((digits, "0"));
    let (whole, tenth): (u64, u64) = (whole.replace(',', "").parse().ok()?, tenth.get(..1)?.parse().ok()?);
    whole.checked_mul(factor)?.checked_add(tenth.checked_mul(factor)?.checked_div(10)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_they_are_rounded() {
        let read = |line: &str| tokens(line).map(|usage| (usage.input, usage.output));
        assert_eq!(read("Tokens: 1.2k sent, 85 received."), Some((1200, 85)));
        assert_eq!(read("Tokens: 12k sent, 1.0k received. Cost: $0.01 message."), Some((12_000, 1000)));
        for other in ["Tokens: many", "Tokens: ", "Tokens of mine", "Tokens: 99999999999999999999k sent"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}

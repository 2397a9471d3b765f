//! What the command lines of all agents have in common.

use crate::{EngineError, EngineRequest, HomeFile, Models};
use serde_json::Value;
use tipstaff_model::EngineKind;

/// What stands where an agent insists on a key. The broker puts the real one in its place, outside.
pub(crate) const PLACEHOLDER: &str = "tipstaff-placeholder";

/// Where the agent finds its instructions, relative to its home.
pub(crate) const INSTRUCTIONS: &str = ".tipstaff/instructions.md";

/// Where the prompt is, relative to the home.
const PROMPT: &str = ".tipstaff/prompt.md";

/// Longest id of a session, in bytes.
const LONGEST_SESSION: usize = 128;

/// Longest name of a model or a provider, in bytes.
const NAME: usize = 200;

/// A request that was looked through: what is in here may be written into configuration.
pub(crate) struct Checked<'a> {
    pub(crate) prompt: &'a str,
    pub(crate) model: &'a str,
    pub(crate) provider: &'a str,
    pub(crate) instructions: String,
    request: &'a EngineRequest<'a>,
}

impl<'a> Checked<'a> {
    pub(crate) fn new(
        kind: EngineKind,
        models: &'static Models,
        request: &'a EngineRequest<'a>,
    ) -> Result<Self, EngineError> {
        if !request.command.is_empty() {
            return Err(EngineError::CommandNotTaken(kind));
        }
        let prompt = checked_prompt(kind, request)?;
        let model = checked_model(request.model.unwrap_or(models.default))?;
        let provider = checked_provider(request.provider.unwrap_or(models.provider))?;
        checked_session(request)?;
        Ok(Self { prompt, model, provider, instructions: instructions(request), request })
    }

    pub(crate) const fn may_write(&self) -> bool {
        self.request.may_write
    }

    /// Where the broker offers the provider's models, with `below` after it.
    pub(crate) fn upstream(&self, below: &str) -> String {
        upstream(self.request, self.provider, below)
    }

    /// Whether it is spoken with while it works.
    pub(crate) const fn attended(&self) -> bool {
        self.request.attended
    }

    /// The session that is continued.
    pub(crate) const fn resume(&self) -> Option<&'a str> {
        self.request.resume
    }

    /// The variables by which an agent finds the provider's models.
    pub(crate) fn provider_env(&self) -> Vec<(String, String)> {
        provider_env(self.request, self.provider, Some(self.model))
    }

    /// Where the prompt is.
    pub(crate) fn prompt_path(&self) -> String {
        self.at_home(PROMPT)
    }

    /// That no session is to be continued.
    pub(crate) fn anew(self, kind: EngineKind) -> Result<Self, EngineError> {
        if self.request.resume.is_some() { Err(EngineError::NotResumable(kind)) } else { Ok(self) }
    }

    /// Whether the session is kept beyond the run, or was before it.
    pub(crate) const fn has_session(&self) -> bool {
        self.request.keeps_session || self.request.resume.is_some()
    }

    /// That nobody wants to speak with it while it works.
    pub(crate) fn unattended(self, kind: EngineKind) -> Result<Self, EngineError> {
        if self.request.attended { Err(EngineError::NotAttended(kind)) } else { Ok(self) }
    }

    /// A path below the agent's home.
    pub(crate) fn at_home(&self, path: &str) -> String {
        format!("{}/{path}", self.request.home.trim_end_matches('/'))
    }

    /// The command that starts an agent with the prompt on standard input. All of them read it there.
    pub(crate) fn reading_prompt(&self, agent: Vec<String>) -> Vec<String> {
        let mut argv = words(["sh", "-c", "prompt=$1; shift; exec \"$@\" < \"$prompt\"", "tipstaff-agent"]);
        argv.push(self.at_home(PROMPT));
        argv.extend(agent);
        argv
    }

    pub(crate) fn prompt_file(&self) -> HomeFile {
        HomeFile { path: PROMPT.to_owned(), content: self.prompt.to_owned() }
    }

    pub(crate) fn instructions_file(&self) -> HomeFile {
        HomeFile { path: INSTRUCTIONS.to_owned(), content: self.instructions.clone() }
    }
}

/// The prompt, looked through.
pub(crate) fn checked_prompt<'a>(
    kind: EngineKind,
    request: &EngineRequest<'a>,
) -> Result<&'a str, EngineError> {
    let prompt = request.prompt.filter(|prompt| !prompt.trim().is_empty());
    let prompt = prompt.ok_or(EngineError::NoPrompt(kind))?;
    if prompt.contains('\0') || request.instructions.contains('\0') {
        return Err(EngineError::Unusable("the prompt or the instructions hold a NUL byte"));
    }
    Ok(prompt)
}

/// The session that is continued. Its id is what an agent said once: it is never an option, and no path.
pub(crate) fn checked_session<'a>(request: &EngineRequest<'a>) -> Result<Option<&'a str>, EngineError> {
    let is_id = |id: &&str| {
        (1..=LONGEST_SESSION).contains(&id.len())
            && id.starts_with(|first: char| first.is_ascii_alphanumeric())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    match request.resume {
        Some(id) if !is_id(&id) => Err(EngineError::SessionUnusable),
        id => Ok(id),
    }
}

/// A model's name, looked through.
pub(crate) fn checked_model(model: &str) -> Result<&str, EngineError> {
    if model.is_empty() || model.len() > NAME || model.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(EngineError::Unusable("the model's name is empty, too long or holds a space"));
    }
    Ok(model)
}

/// A provider's name, looked through.
pub(crate) fn checked_provider(provider: &str) -> Result<&str, EngineError> {
    let plain = provider.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if provider.is_empty() || provider.len() > NAME || !plain || provider.starts_with('.') {
        return Err(EngineError::Unusable("the provider's name is not letters, digits, '-', '_' and '.'"));
    }
    Ok(provider)
}

/// Where the broker offers a provider's models, with `below` after it.
pub(crate) fn upstream(request: &EngineRequest<'_>, provider: &str, below: &str) -> String {
    format!("{}/model/{provider}{below}", request.broker.trim_end_matches('/'))
}

/// What the agent is told besides the prompt: where it is, then what its profile says. It explains the walls; it is
/// not one of them.
pub(crate) fn instructions(request: &EngineRequest<'_>) -> String {
    let mut text = String::from(if request.attended {
        "A person watches this session. They may be asked before you act, may refuse, and may write to you; do what they \
         write. They don't answer questions: decide, act, and say in the end what you did.\n"
    } else {
        "You work without a person at hand: nobody answers questions. Decide, act, and say in the end what you did.\n"
    });
    text.push_str(
        "You are inside a sandbox with a warrant. Only what it grants can be reached; a refusal says which rule \
         refused. Don't look for a way around it: say what you would have needed.\n",
    );
    if !request.may_write {
        text.push_str("The files are read-only in this run. Report what you find; change nothing.\n");
    }
    let own = request.instructions.trim();
    if !own.is_empty() {
        text.push('\n');
        text.push_str(own);
        text.push('\n');
    }
    text
}

/// Where an agent that we know nothing else of finds its models: the variables that the makers' own libraries read.
pub(crate) fn provider_env(
    request: &EngineRequest<'_>,
    provider: &str,
    model: Option<&str>,
) -> Vec<(String, String)> {
    let at = |below: &str| upstream(request, provider, below);
    let (mut env, name) = match provider {
        "anthropic" => {
            let env = variables([
                ("ANTHROPIC_BASE_URL", &at("")),
                ("ANTHROPIC_API_KEY", PLACEHOLDER),
                ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
                ("DISABLE_AUTOUPDATER", "1"),
            ]);
            (env, "ANTHROPIC_MODEL")
        }
        "gemini" => {
            let env = variables([
                ("GOOGLE_GEMINI_BASE_URL", &at("")),
                ("GEMINI_API_KEY", PLACEHOLDER),
                ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
            ]);
            (env, "GEMINI_MODEL")
        }
        // OpenAI and everybody who answers as it does.
        _ => {
            let env = variables([
                ("OPENAI_BASE_URL", &at("/v1")),
                ("OPENAI_API_BASE", &at("/v1")),
                ("OPENAI_API_KEY", PLACEHOLDER),
            ]);
            (env, "OPENAI_MODEL")
        }
    };
    env.extend(model.map(|model| (name.to_owned(), model.to_owned())));
    env
}

/// A file of the home folder that holds JSON.
pub(crate) fn json_file(path: &str, value: &Value) -> HomeFile {
    HomeFile { path: path.to_owned(), content: format!("{value:#}\n") }
}

/// A TOML basic string. JSON's escapes are TOML's too; TOML also wants DEL escaped.
pub(crate) fn toml_string(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

pub(crate) fn variables<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

pub(crate) fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(ToOwned::to_owned).into()
}

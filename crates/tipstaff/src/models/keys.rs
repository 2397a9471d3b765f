//! Where the key of a provider comes from. The first of these that there is:
//!
//! 1. the person's own environment, for this command;
//! 2. the org's own, sealed (`tipstaff secrets set --provider NAME`);
//! 3. the operator's (`key_file` or `key_env` of `config.toml`);
//! 4. the person's own login, where the operator turned that on (`login` of `config.toml`).

use super::files::read_private;
use super::login::CliLogin;
use super::{secret_name, variable};
use crate::config::LoginProgram;
use crate::context::{Context, own_uid};
use crate::env::Environment;
use crate::exit::Problem;
use std::path::PathBuf;
use std::sync::Arc;
use tipstaff_model::EngineKind;
use tipstaff_seal::Secret;

/// Where a key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyOrigin {
    /// A variable of the person's environment.
    Environment(&'static str),
    /// The org's sealed secret of this name.
    Org(String),
    /// A file of the operator's.
    OperatorFile(PathBuf),
    /// A variable that the operator named.
    OperatorVariable(String),
    /// A person's own login.
    Login(LoginProgram, PathBuf),
    /// There is none.
    Nowhere,
}

impl KeyOrigin {
    /// The stable word.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Environment(_) => "environment",
            Self::Org(_) => "org",
            Self::OperatorFile(_) | Self::OperatorVariable(_) => "operator",
            Self::Login(..) => "login",
            Self::Nowhere => "none",
        }
    }

    /// For people. Never the key.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Environment(name) => format!("your environment ({name})"),
            Self::Org(name) => format!("your org's own ({name})"),
            Self::OperatorFile(path) => format!("the operator's ({})", path.display()),
            Self::OperatorVariable(name) => format!("the operator's ({name})"),
            Self::Login(program, path) => format!("your login of {} ({})", program.as_str(), path.display()),
            Self::Nowhere => "none".to_owned(),
        }
    }
}

/// What a provider is asked with.
#[derive(Clone)]
pub(crate) enum Proof {
    /// Nothing.
    Nothing,
    /// A key.
    Key(Secret<String>),
    /// A login, read again with each call.
    Login(Arc<CliLogin>),
}

/// A key and where it comes from.
pub(crate) struct Found {
    pub(crate) origin: KeyOrigin,
    pub(crate) proof: Proof,
}

impl Found {
    fn key(origin: KeyOrigin, key: Secret<String>) -> Self {
        Self { origin, proof: Proof::Key(key) }
    }
}

/// Who wants to use a key, as far as it matters for a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A run that a person started at this terminal, with this engine.
    Person(EngineKind),
    /// A worker, which carries out tasks of whoever queued them.
    Worker,
    /// Nobody: it is shown what there is.
    Onlooker,
}

impl Asker {
    /// Whether a login of `program` counts for it: for the program itself, at work for its own person.
    const fn may_use(self, program: LoginProgram) -> bool {
        match self {
            Self::Onlooker => true,
            Self::Worker => false,
            Self::Person(engine) => matches!(
                (program, engine),
                (LoginProgram::Claude, EngineKind::ClaudeCode) | (LoginProgram::Codex, EngineKind::Codex)
            ),
        }
    }
}

/// The key of a provider.
pub(crate) async fn find(context: &Context, provider: &str, asker: Asker) -> anyhow::Result<Found> {
    if let (Some(key), Some(name)) = (context.env.model_keys.get(provider), variable(provider)) {
        return Ok(Found::key(KeyOrigin::Environment(name), key.clone()));
    }
    let name = secret_name(provider);
    let sealed = context.store.read(context.scope()).await?.secret_get(&name).await?;
    if let Some(bytes) = sealed {
        let text = std::str::from_utf8(bytes.expose()).map_err(|_| {
            let text = format!("the key of {provider} is no text; set it again with `tipstaff secrets set`");
            Problem::usage("model-key-invalid", text)
        })?;
        return Ok(Found::key(KeyOrigin::Org(name), Secret::new(text.trim().to_owned())));
    }
    let Some(config) = context.config.upstreams.get(provider) else {
        return Ok(Found { origin: KeyOrigin::Nowhere, proof: Proof::Nothing });
    };
    if let Some(file) = &config.key_file {
        let path = context.layout.home().join(file);
        let text = read_private(&path, own_uid()?)
            .and_then(|text| text.ok_or_else(|| format!("{} is not there", path.display())))
            .map_err(|why| {
                Problem::usage("model-key-file", format!("the operator's key of {provider}: {why}"))
            })?;
        return Ok(Found::key(KeyOrigin::OperatorFile(path), Secret::new(text.trim().to_owned())));
    }
    if let Some(name) = &config.key_env {
        let key = Environment::operator_key(name).ok_or_else(|| {
            let text =
                format!("the operator's key of {provider}: the variable {name} is not set for this process");
            Problem::usage("model-key-env", text)
        })?;
        return Ok(Found::key(KeyOrigin::OperatorVariable(name.clone()), key));
    }
    if let Some(program) = config.login.filter(|program| asker.may_use(*program)) {
        let folder = match program {
            LoginProgram::Claude => &context.env.claude_home,
            LoginProgram::Codex => &context.env.codex_home,
        };
        let folder = folder.as_deref().ok_or_else(|| {
            Problem::usage(
                "login-unusable",
                format!("there is no home folder with a login of {}", program.as_str()),
            )
        })?;
        let login = Arc::new(CliLogin::new(program, folder, own_uid()?, Arc::clone(&context.clock)));
        let origin = KeyOrigin::Login(program, login.path().to_owned());
        return Ok(Found { origin, proof: Proof::Login(login) });
    }
    Ok(Found { origin: KeyOrigin::Nowhere, proof: Proof::Nothing })
}

/// The error for a provider without a key.
pub(crate) fn missing(context: &Context, provider: &str, asker: Asker) -> anyhow::Error {
    let login = context.config.upstreams.get(provider).and_then(|config| config.login);
    let more = match login {
        Some(program) if asker == Asker::Worker => {
            format!(
                " (the login of {} is a person's own: `tipstaff run` uses it, a worker does not)",
                program.as_str()
            )
        }
        Some(program) => format!(
            " (the login of {0} counts for its own program: --engine {1})",
            program.as_str(),
            if program == LoginProgram::Claude { "claude-code" } else { "codex" }
        ),
        None => String::new(),
    };
    let set = variable(provider).map(|name| format!("set {name} for this command, or ")).unwrap_or_default();
    let text = format!(
        "there is no key for {provider}: {set}keep one with `tipstaff secrets set --provider {provider}`{more}"
    );
    Problem::usage("model-key-missing", text)
}

//! A person's own login at a provider, read when a call is made.
//!
//! Promises: the token is asked for with each request and kept no longer than it; it goes to the provider's own host, or
//! to this machine, and nowhere else.

use super::Wire;
use std::sync::Arc;
use tipstaff_seal::Secret;

/// What a login is worth now.
#[derive(Debug, Clone)]
pub struct LoginToken {
    /// The access token.
    pub token: Secret<String>,
    /// The account that is billed, where the provider wants it named.
    pub account: Option<String>,
}

/// A login can't be used. The text says why and what to do; it never holds the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoginError(pub String);

/// Who knows a person's login.
pub trait Login: Send + Sync {
    /// The program that it belongs to, such as `claude`.
    fn program(&self) -> &'static str;

    /// Reads it as it is now. May block.
    ///
    /// # Errors
    /// [`LoginError`] when there is none, or when its time is over.
    fn read(&self) -> Result<LoginToken, LoginError>;
}

/// The hosts that a login of this wire may go to besides this machine.
pub(crate) const fn hosts(wire: Wire) -> &'static [&'static str] {
    match wire {
        Wire::Anthropic => &["api.anthropic.com"],
        Wire::OpenAi => &["chatgpt.com"],
        Wire::Gemini => &[],
    }
}

/// What a request proves itself with.
pub(crate) enum Credential {
    /// Nothing, for a local model.
    Nothing,
    /// A key.
    Key(Secret<String>),
    /// A login.
    Login(LoginToken),
}

impl Credential {
    /// Everything of it that must not come back.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Key(key) => vec![key.expose()],
            Self::Login(login) => {
                std::iter::once(login.token.expose().as_str()).chain(login.account.as_deref()).collect()
            }
        }
    }
}

/// Reads a login on a thread that may block.
pub(crate) async fn read(login: &Arc<dyn Login>) -> Result<LoginToken, LoginError> {
    let reader = Arc::clone(login);
    let read = tokio::task::spawn_blocking(move || reader.read()).await;
    let token = read.unwrap_or_else(|_| Err(LoginError("it could not be read".to_owned())))?;
    let fine = |text: &str| (8..=16_384).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let account = token.account.as_deref();
    if !fine(token.token.expose()) || account.is_some_and(|account| !fine(account)) {
        return Err(LoginError(format!(
            "what {program} keeps as its login is no token: run `{program}` once",
            program = login.program()
        )));
    }
    Ok(token)
}

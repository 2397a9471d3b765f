//! What a push upstream is made with, and where it comes from.
//!
//! Promises: a credential prints as its user name only; it is for one host and scheme, and the hand-over to git checks
//! both again.

use std::fmt;
use tipstaff_model::{BoxFuture, RefName, RepositoryName, RunId};
use tipstaff_seal::Secret;

/// The user name where nothing else was said. Forges that know tokens take any name, or this one.
pub const DEFAULT_USERNAME: &str = "x-access-token";

/// A user name and a token for one host.
#[derive(Clone)]
pub struct GitCredential {
    /// The user name; not secret.
    pub username: String,
    /// The token or password.
    pub token: Secret<String>,
    /// For one that was minted for this push: when it expires, as the forge says it.
    pub minted_until: Option<String>,
}

impl fmt::Debug for GitCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitCredential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What a credential is wanted for. A source that mints short-lived tokens narrows them to exactly this.
#[derive(Debug, Clone)]
pub struct CredentialRequest {
    /// The host, with its port where it is not the scheme's own; lower-case.
    pub host: String,
    /// The path of the repository behind the host.
    pub path: String,
    /// The repository's name in the warrant.
    pub repository: RepositoryName,
    /// The branch that is to be written.
    pub reference: RefName,
    /// The run whose change it is.
    pub run: RunId,
}

/// Why there is no credential though there should be one.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CredentialError(pub String);

/// A port: where credentials for upstream come from. A sealed value of the store is one answer; a token that is minted
/// for one push and one repository, such as an installation token of a forge's app, is another.
pub trait CredentialSource: Send + Sync {
    /// The credential for this push; `None` when there is none, so that the push is tried without.
    ///
    /// # Errors
    /// [`CredentialError`] in plain words: the store is away, the forge does not mint one.
    fn credential<'a>(
        &'a self,
        request: &'a CredentialRequest,
    ) -> BoxFuture<'a, Result<Option<GitCredential>, CredentialError>>;

    /// The push is over: what was minted for it is worth nothing any more. What stays needs nothing.
    ///
    /// # Errors
    /// [`CredentialError`]: it holds until it expires.
    fn give_back<'a>(&'a self, credential: &'a GitCredential) -> BoxFuture<'a, Result<(), CredentialError>> {
        let _ = credential;
        Box::pin(async { Ok(()) })
    }
}

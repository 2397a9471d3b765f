//! Credentials for git hosts, sealed in the store: how they are named, kept and found.

use crate::exit::Problem;
use serde::{Deserialize, Serialize};
use tipstaff_broker::GitCredential;
use tipstaff_broker::publish::{CredentialError, CredentialRequest, CredentialSource, DEFAULT_USERNAME};
use tipstaff_model::BoxFuture;
use tipstaff_seal::Secret;
use tipstaff_store::{OrgScope, Store};

/// The longest user name, in bytes.
const LONGEST_USERNAME: usize = 200;

/// A credential as it lies in the store.
#[derive(Serialize, Deserialize)]
struct Kept {
    username: String,
    token: String,
}

/// The secret's name of a host, as a person wrote it: `github.com`, `git.example.com:8443`, or the beginning of a URL.
pub(crate) fn secret_name(host: &str) -> anyhow::Result<String> {
    let lower = host.trim().to_ascii_lowercase();
    let rest = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://")).unwrap_or(&lower);
    let rest = rest.trim_end_matches('/');
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (rest, None),
    };
    let name_ok = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-[]:".contains(&b))
        && (name.starts_with('[') == name.ends_with(']'))
        && (name.starts_with('[') || !name.contains(':'));
    let port_ok = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if name_ok && port_ok {
        return Ok(format!("git/{rest}"));
    }
    let shown: String = host.chars().take(60).collect();
    let text = format!(
        "'{}' is not a git host: write its name, with :PORT where it is not the usual one, such as github.com",
        shown.escape_debug()
    );
    Err(Problem::usage("git-host", text))
}

/// A token with its user name, as it is sealed.
pub(crate) fn sealed(username: Option<&str>, token: &Secret<Vec<u8>>) -> anyhow::Result<Secret<Vec<u8>>> {
    let username = username.unwrap_or(DEFAULT_USERNAME);
    let plain = |c: char| c.is_ascii_graphic() && c != ':';
    if username.is_empty() || username.len() > LONGEST_USERNAME || !username.chars().all(plain) {
        let text = "a user name has 1 to 200 printable characters and no ':'; nothing was stored";
        return Err(Problem::usage("git-username", text));
    }
    let kept =
        Kept { username: username.to_owned(), token: String::from_utf8_lossy(token.expose()).into_owned() };
    Ok(Secret::new(serde_json::to_vec(&kept)?))
}

/// What was sealed for a host.
fn opened(value: &Secret<Vec<u8>>) -> GitCredential {
    match serde_json::from_slice::<Kept>(value.expose()) {
        Ok(kept) => GitCredential { username: kept.username, token: Secret::new(kept.token) },
        // Set by name: the value is the token.
        Err(_) => GitCredential {
            username: DEFAULT_USERNAME.to_owned(),
            token: Secret::new(String::from_utf8_lossy(value.expose()).into_owned()),
        },
    }
}

/// Credentials that lie sealed in the store.
pub(crate) struct SealedCredentials {
    store: Store,
    scope: OrgScope,
}

impl SealedCredentials {
    /// Of this org.
    pub(crate) const fn new(store: Store, scope: OrgScope) -> Self {
        Self { store, scope }
    }
}

impl CredentialSource for SealedCredentials {
    fn credential<'a>(
        &'a self,
        request: &'a CredentialRequest,
    ) -> BoxFuture<'a, Result<Option<GitCredential>, CredentialError>> {
        Box::pin(async move {
            let told = |error: tipstaff_store::StoreError| CredentialError(error.to_string());
            let mut read = self.store.read(&self.scope).await.map_err(told)?;
            let value = read.secret_get(&format!("git/{}", request.host)).await.map_err(told)?;
            Ok(value.as_ref().map(opened))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_or_refused() {
        for (host, name) in [
            ("GitHub.com", "git/github.com"),
            ("https://git.example.com:8443/", "git/git.example.com:8443"),
            ("127.0.0.1:3000", "git/127.0.0.1:3000"),
            ("[::1]:3000", "git/[::1]:3000"),
            ("[::1]", "git/[::1]"),
        ] {
            assert_eq!(secret_name(host).unwrap(), name);
        }
        for bad in
            ["", "a/b", "https://github.com/team", "me@github.com", "a b", "h:0", "h:x", "a:b:c", "[::1"]
        {
            assert!(secret_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_credential_is_kept_with_its_user_name() {
        let token = Secret::new(b"token-0123456789".to_vec());
        let kept = opened(&sealed(Some("me"), &token).unwrap());
        assert_eq!((kept.username.as_str(), kept.token.expose().as_str()), ("me", "token-0123456789"));
        assert_eq!(opened(&sealed(None, &token).unwrap()).username, DEFAULT_USERNAME);
        assert_eq!(opened(&token).token.expose(), "token-0123456789");
        assert!(sealed(Some("a:b"), &token).is_err());
    }
}

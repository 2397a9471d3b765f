//! Credentials for git hosts, sealed in the store: how they are named, kept and found.

use crate::exit::Problem;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use tipstaff_broker::publish::{
    CredentialError, CredentialRequest, CredentialSource, DEFAULT_USERNAME, ForgeApp,
};
use tipstaff_broker::{GatewayClient, GitCredential};
use tipstaff_model::{BoxFuture, Clock};
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

/// An app of a forge as it lies in the store: tokens are minted with it.
#[derive(Serialize, Deserialize)]
struct KeptApp {
    app: String,
    api: String,
    key: String,
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

/// An app with its key, as it is sealed; the two fit.
pub(crate) fn sealed_app(
    host: &str,
    app: &str,
    api: Option<&str>,
    key: &Secret<Vec<u8>>,
) -> anyhow::Result<Secret<Vec<u8>>> {
    let host = secret_name(host)?;
    let host = host.strip_prefix("git/").unwrap_or(&host);
    let api = api.map_or_else(|| ForgeApp::api_of(host), ToOwned::to_owned);
    ForgeApp::new(app, &api, key)
        .map_err(|error| Problem::usage(error.code(), format!("{error}; nothing was stored")))?;
    let key = String::from_utf8_lossy(key.expose()).into_owned();
    Ok(Secret::new(serde_json::to_vec(&KeptApp { app: app.to_owned(), api, key })?))
}

/// What was sealed for a host.
enum Opened {
    Token(GitCredential),
    App(ForgeApp),
}

fn opened(value: &Secret<Vec<u8>>) -> Result<Opened, CredentialError> {
    let token = |username: String, token: String| {
        Opened::Token(GitCredential { username, token: Secret::new(token), minted_until: None })
    };
    if let Ok(kept) = serde_json::from_slice::<KeptApp>(value.expose()) {
        let key = Secret::new(kept.key.into_bytes());
        let app =
            ForgeApp::new(&kept.app, &kept.api, &key).map_err(|error| CredentialError(error.to_string()))?;
        return Ok(Opened::App(app));
    }
    Ok(match serde_json::from_slice::<Kept>(value.expose()) {
        Ok(kept) => token(kept.username, kept.token),
        // Set by name: the value is the token.
        Err(_) => token(DEFAULT_USERNAME.to_owned(), String::from_utf8_lossy(value.expose()).into_owned()),
    })
}

/// Credentials that lie sealed in the store: tokens, and apps that tokens are minted with.
pub(crate) struct SealedCredentials {
    store: Store,
    scope: OrgScope,
    client: GatewayClient,
    clock: Arc<dyn Clock>,
    /// The app that minted the one that is in use.
    minted_by: Mutex<Option<ForgeApp>>,
}

impl SealedCredentials {
    /// Of this org.
    pub(crate) fn new(store: Store, scope: OrgScope, client: GatewayClient, clock: Arc<dyn Clock>) -> Self {
        Self { store, scope, client, clock, minted_by: Mutex::default() }
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
            match value.as_ref().map(opened).transpose()? {
                None => Ok(None),
                Some(Opened::Token(credential)) => Ok(Some(credential)),
                Some(Opened::App(app)) => {
                    let minted = app.mint(&self.client, request, self.clock.wall_ms() / 1000).await?;
                    *self.minted_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(app);
                    Ok(Some(minted))
                }
            }
        })
    }

    fn give_back<'a>(&'a self, credential: &'a GitCredential) -> BoxFuture<'a, Result<(), CredentialError>> {
        Box::pin(async move {
            let app = self.minted_by.lock().unwrap_or_else(PoisonError::into_inner).take();
            match app {
                Some(app) => app.take_back(&self.client, credential).await,
                None => Ok(()),
            }
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
        let of = |value: &Secret<Vec<u8>>| match opened(value).unwrap() {
            Opened::Token(kept) => (kept.username, kept.token.expose().clone()),
            Opened::App(app) => panic!("{app:?}"),
        };
        let pair = |name: &str| (name.to_owned(), "token-0123456789".to_owned());
        assert_eq!(of(&sealed(Some("me"), &token).unwrap()), pair("me"));
        assert_eq!(of(&sealed(None, &token).unwrap()), pair(DEFAULT_USERNAME));
        assert_eq!(of(&token), pair(DEFAULT_USERNAME));
        assert!(sealed(Some("a:b"), &token).is_err());
    }
}

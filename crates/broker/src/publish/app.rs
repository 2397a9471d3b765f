//! Tokens of a forge's app: minted for one push to one repository, and taken back after it.
//!
//! Promises: the app's key signs here and goes nowhere; a token is asked for one repository and the right to write its
//! contents, and one that grants more is not used but taken back; nothing that the forge answers is repeated but numbers
//! and times.
//!
//! It speaks the REST interface of GitHub's apps: a JSON Web Token of the app (RFC 7519, RS256), its installation for the
//! repository, a token of the installation.

use super::credential::{CredentialError, CredentialRequest, DEFAULT_USERNAME, GitCredential};
use crate::gateway::client::NoAnswer;
use crate::gateway::{GatewayClient, Upstream, Wire};
use crate::limits::Bounds;
use crate::source::PlainHttp;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::SigningKey;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_seal::Secret;

/// How long a signature of the app holds, in seconds; forges take ten minutes at most.
const SIGNED_SECONDS: i64 = 8 * 60;
/// By how much the forge's clock may be behind ours, in seconds.
const SKEW_SECONDS: i64 = 60;
/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// The largest answer that is read, in bytes.
const LONGEST: usize = 256 * 1024;

/// An app of a forge, with the key that proves it.
#[derive(Clone)]
pub struct ForgeApp {
    id: String,
    api: Upstream,
    key: Arc<dyn SigningKey>,
}

impl fmt::Debug for ForgeApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForgeApp").field("id", &self.id).field("api", &self.api).finish_non_exhaustive()
    }
}

/// An app that can't be used as it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForgeAppError {
    /// Its number or client id.
    #[error("'{0}' is no app's id: write its number or client id, as the forge shows it")]
    Id(String),
    /// Where its interface is.
    #[error("{0}: write the address of the forge's REST interface with --api")]
    Api(String),
    /// Its key.
    #[error(
        "this is no private key of an app: give the PEM file that the forge made, with an RSA key of 2048 bits or more"
    )]
    Key,
}

impl ForgeAppError {
    /// The stable word for this kind of error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Id(_) => "app-id",
            Self::Api(_) => "app-api",
            Self::Key => "app-key",
        }
    }
}

impl ForgeApp {
    /// Where the REST interface of a host is: GitHub's own, else as GitHub Enterprise Server has it.
    #[must_use]
    pub fn api_of(host: &str) -> String {
        match host {
            "github.com" => "https://api.github.com".to_owned(),
            other => format!("https://{other}/api/v3"),
        }
    }

    /// An app by its id, the address of the forge's REST interface and its key (PEM, PKCS #1 or #8).
    ///
    /// # Errors
    /// [`ForgeAppError`].
    pub fn new(id: &str, api: &str, key: &Secret<Vec<u8>>) -> Result<Self, ForgeAppError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !(1..=100).contains(&id.len()) || !id.bytes().all(plain) {
            return Err(ForgeAppError::Id(id.chars().filter(|c| !c.is_control()).take(60).collect()));
        }
        let api = Upstream::new("forge", Wire::OpenAi, api, None, PlainHttp::LoopbackOnly)
            .map_err(|error| ForgeAppError::Api(error.to_string()))?;
        let der = PrivateKeyDer::from_pem_slice(key.expose()).map_err(|_| ForgeAppError::Key)?;
        let key = rustls::crypto::ring::sign::any_supported_type(&der).map_err(|_| ForgeAppError::Key)?;
        // A forge knows one algorithm for its apps.
        key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).ok_or(ForgeAppError::Key)?;
        Ok(Self { id: id.to_owned(), api, key })
    }

    /// A token for this push: for its repository alone, and for writing contents alone. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`CredentialError`]: the forge is away, doesn't know the app, or grants something else.
    pub async fn mint(
        &self,
        client: &GatewayClient,
        request: &CredentialRequest,
        now: i64,
    ) -> Result<GitCredential, CredentialError> {
        let (owner, name) = repository_of(&request.path)?;
        let proof = self.proof(now)?;
        let asked =
            Asked { method: Method::GET, path: format!("/repos/{owner}/{name}/installation"), body: None };
        let installation = self.ask(client, asked, &proof).await?;
        let number = installation.get("id").and_then(Value::as_u64);
        let number =
            number.ok_or_else(|| told("the forge did not say which installation of the app it is"))?;
        let wanted = json!({ "repositories": [name], "permissions": { "contents": "write" } });
        let path = format!("/app/installations/{number}/access_tokens");
        let asked = Asked { method: Method::POST, path, body: Some(wanted) };
        let answer = self.ask(client, asked, &proof).await?;
        let token = answer.get("token").and_then(Value::as_str).unwrap_or_default();
        if !(8..=4096).contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(told("the forge's answer holds no usable token"));
        }
        let until = answer.get("expires_at").and_then(Value::as_str).unwrap_or_default();
        let until: String =
            until.chars().filter(|c| c.is_ascii_alphanumeric() || "-:.+".contains(*c)).take(40).collect();
        let credential = GitCredential {
            username: DEFAULT_USERNAME.to_owned(),
            token: Secret::new(token.to_owned()),
            minted_until: Some(until),
        };
        if let Err(why) = grants_just(&answer, name) {
            // What we did not ask for is not ours to hold.
            let _ = self.take_back(client, &credential).await;
            return Err(told(&format!("the forge's token {why}; it was not used")));
        }
        Ok(credential)
    }

    /// Makes a minted token worth nothing.
    ///
    /// # Errors
    /// [`CredentialError`]: it holds until it expires.
    pub async fn take_back(
        &self,
        client: &GatewayClient,
        credential: &GitCredential,
    ) -> Result<(), CredentialError> {
        let asked = Asked { method: Method::DELETE, path: "/installation/token".to_owned(), body: None };
        self.ask(client, asked, &credential.token).await.map(|_| ())
    }

    /// A JSON Web Token that says who we are.
    fn proof(&self, now: i64) -> Result<Secret<String>, CredentialError> {
        let part = |value: &Value| tipstaff_seal::base64url(value.to_string().as_bytes());
        let head = part(&json!({ "alg": "RS256", "typ": "JWT" }));
        let (from, to) = (now.saturating_sub(SKEW_SECONDS), now.saturating_add(SIGNED_SECONDS));
        let signed = format!("{head}.{}", part(&json!({ "iat": from, "exp": to, "iss": self.id })));
        let signature = self
            .key
            .choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])
            .and_then(|signer| signer.sign(signed.as_bytes()).ok())
            .ok_or_else(|| told("the app's key does not sign"))?;
        Ok(Secret::new(format!("{signed}.{}", tipstaff_seal::base64url(&signature))))
    }

    async fn ask(
        &self,
        client: &GatewayClient,
        asked: Asked,
        proof: &Secret<String>,
    ) -> Result<Value, CredentialError> {
        let bounds = Bounds { model_answer_time: ANSWER_TIME, ..Bounds::default() };
        let away = |why: &str| told(&format!("{} {why}", self.api.base()));
        let request = self.request(&asked, proof).ok_or_else(|| told("the request can't be written"))?;
        let received = client.send(&self.api, request, &bounds).await.map_err(|problem| match problem {
            NoAnswer::Unreachable(why) => away(&format!("was not reached: {why}")),
            NoAnswer::Broken => away("broke the connection"),
            NoAnswer::Slow => away("gave no answer in time"),
        })?;
        let status = received.response.status();
        let body = Limited::new(received.response.into_body(), LONGEST).collect();
        let body = tokio::time::timeout(ANSWER_TIME, body).await;
        let body = body.map_err(|_| away("stopped in the middle of its answer"))?;
        let refused = |why: &str| Err(told(&format!("{} {why} ({})", self.api.base(), status.as_u16())));
        match status {
            StatusCode::NO_CONTENT => return Ok(Value::Null),
            status if status.is_success() => {}
            _ if asked.method == Method::DELETE => return refused("did not take it back"),
            StatusCode::UNAUTHORIZED => {
                return refused("does not know the app: check its id, its key and this machine's clock");
            }
            StatusCode::NOT_FOUND => {
                return refused("has no installation of the app for this repository: install it there");
            }
            StatusCode::FORBIDDEN | StatusCode::UNPROCESSABLE_ENTITY => {
                return refused("gives the app no right to write contents there: grant it Contents: write");
            }
            _ => return refused("did not give what was asked for"),
        }
        let body = body.map_err(|_| away("gave an answer that can't be read"))?.to_bytes();
        serde_json::from_slice(&body).map_err(|_| away("gave an answer that is no JSON"))
    }

    fn request(&self, asked: &Asked, proof: &Secret<String>) -> Option<Request<Full<Bytes>>> {
        let body = asked.body.as_ref().map(Value::to_string).unwrap_or_default();
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", proof.expose())).ok()?;
        authorization.set_sensitive(true);
        let mut request = Request::builder()
            .method(asked.method.clone())
            .uri(self.api.path_for(&asked.path))
            .header(header::HOST, self.api.authority())
            .header(header::AUTHORIZATION, authorization)
            .header(header::ACCEPT, "application/vnd.github+json")
            .header(header::USER_AGENT, "tipstaff")
            .header("x-github-api-version", "2022-11-28");
        if asked.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(Bytes::from(body))).ok()
    }
}

struct Asked {
    method: Method,
    path: String,
    body: Option<Value>,
}

fn told(why: &str) -> CredentialError {
    CredentialError(why.to_owned())
}

/// Owner and name in a path such as `/team/site.git`.
fn repository_of(path: &str) -> Result<(&str, &str), CredentialError> {
    let plain = |part: &str| {
        (1..=100).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && !matches!(part, "." | "..")
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    path.split_once('/').filter(|(owner, name)| plain(owner) && plain(name)).ok_or_else(|| {
        told("an app's token is for a repository OWNER/NAME, and this address has another form")
    })
}

/// Whether a token is for this repository alone and for nothing but its contents.
fn grants_just(answer: &Value, name: &str) -> Result<(), &'static str> {
    let permissions = answer.get("permissions").and_then(Value::as_object);
    let writes = permissions.and_then(|all| all.get("contents")).and_then(Value::as_str) == Some("write");
    if !writes {
        return Err("does not grant writing contents");
    }
    // To see that a repository is there goes with every right.
    let other = permissions.is_some_and(|all| {
        all.iter().any(|(right, level)| match right.as_str() {
            "contents" => false,
            "metadata" => level != "read",
            _ => true,
        })
    });
    if other {
        return Err("grants more than writing contents");
    }
    let repositories = answer.get("repositories").and_then(Value::as_array);
    let this = |one: &Value| {
        one.get("name").and_then(Value::as_str).is_some_and(|found| found.eq_ignore_ascii_case(name))
    };
    match repositories.map(Vec::as_slice) {
        Some([one]) if this(one) => Ok(()),
        _ => Err("is not for this repository alone"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_an_owner_and_a_name() {
        for path in ["team/site", "/team/site.git", "team/site/"] {
            assert_eq!(repository_of(path).unwrap(), ("team", "site"));
        }
        for path in ["site", "a/b/c", "../x", "a/..", "a b/c", "a/b?x=1", "a/%2e", "", "/"] {
            assert!(repository_of(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_token_that_grants_more_is_not_taken() {
        let good = json!({"permissions": {"contents": "write", "metadata": "read"}, "repositories": [{"name": "Site"}]});
        assert_eq!(grants_just(&good, "site"), Ok(()));
        for (pointer, value) in [
            ("/permissions", json!({"contents": "read"})),
            ("/permissions", json!({"contents": "write", "workflows": "write"})),
            ("/permissions", json!({"contents": "write", "metadata": "write"})),
            ("/permissions", json!([])),
            ("/repositories", json!([])),
            ("/repositories", json!([{"name": "site"}, {"name": "other"}])),
            ("/repositories", json!([{"name": "other"}])),
            ("/repositories", json!(null)),
        ] {
            let mut other = good.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            assert!(grants_just(&other, "site").is_err(), "{other}");
        }
    }

    #[test]
    fn what_is_no_app_is_refused_by_name() {
        let key = Secret::new(b"-----BEGIN nothing".to_vec());
        let code = |id: &str, api: &str| ForgeApp::new(id, api, &key).unwrap_err().code();
        assert_eq!(code("", "https://api.github.com"), "app-id");
        assert_eq!(code("12 3", "https://api.github.com"), "app-id");
        assert_eq!(code("123", "http://api.github.com"), "app-api");
        assert_eq!(code("123", "https://api.github.com"), "app-key");
        assert_eq!(ForgeApp::api_of("github.com"), "https://api.github.com");
        assert_eq!(ForgeApp::api_of("git.example.com:8443"), "https://git.example.com:8443/api/v3");
    }
}

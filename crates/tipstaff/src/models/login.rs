//! A person's own login, as Claude Code or Codex keeps it: read when a call is made, never stored, never renewed.
//!
//! Promises: only the access token and the account leave this file; a login whose time is over is said, with the program
//! that renews it; nothing that is said holds the token.

use super::files::read_private;
use crate::config::LoginProgram;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use tipstaff_broker::{Login, LoginError, LoginToken};
use tipstaff_model::Clock;
use tipstaff_seal::Secret;

/// A login that ends so soon is not begun with, in milliseconds.
const MARGIN_MS: i64 = 10_000;

/// The login of one program on this machine.
pub(crate) struct CliLogin {
    program: LoginProgram,
    path: PathBuf,
    own_uid: u32,
    clock: Arc<dyn Clock>,
}

impl CliLogin {
    /// The login in `folder`, the program's own.
    pub(crate) fn new(
        program: LoginProgram,
        folder: &std::path::Path,
        own_uid: u32,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let file = match program {
            LoginProgram::Claude => ".credentials.json",
            LoginProgram::Codex => "auth.json",
        };
        Self { program, path: folder.join(file), own_uid, clock }
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    fn error(&self, why: impl std::fmt::Display) -> LoginError {
        LoginError(format!("the login of {} can't be used: {why}", self.program.as_str()))
    }

    fn over(&self) -> LoginError {
        let program = self.program.as_str();
        self.error(format!("its time is over; run `{program}` once, which renews it"))
    }

    fn is_over(&self, ends_ms: i64) -> bool {
        ends_ms.saturating_sub(MARGIN_MS) <= self.clock.wall_ms()
    }
}

/// `.credentials.json` of Claude Code, as far as it matters.
#[derive(Deserialize)]
struct ClaudeFile {
    #[serde(rename = "claudeAiOauth")]
    login: Option<ClaudeLogin>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaudeLogin {
    access_token: String,
    /// Milliseconds since the Unix epoch.
    expires_at: Option<i64>,
}

/// `auth.json` of Codex, as far as it matters.
#[derive(Deserialize)]
struct CodexFile {
    #[serde(rename = "OPENAI_API_KEY")]
    key: Option<String>,
    tokens: Option<CodexLogin>,
}

#[derive(Deserialize)]
struct CodexLogin {
    access_token: String,
    account_id: Option<String>,
}

/// What a token of Codex says about itself (RFC 7519), as far as it matters. Nobody here relies on it.
#[derive(Deserialize, Default)]
struct Claims {
    /// Seconds since the Unix epoch.
    exp: Option<i64>,
    #[serde(rename = "https://api.openai.com/auth")]
    account: Option<AccountClaim>,
}

#[derive(Deserialize)]
struct AccountClaim {
    chatgpt_account_id: Option<String>,
}

impl Login for CliLogin {
    fn program(&self) -> &'static str {
        self.program.as_str()
    }

    fn read(&self) -> Result<LoginToken, LoginError> {
        let program = self.program.as_str();
        let text = read_private(&self.path, self.own_uid).map_err(|why| self.error(why))?;
        let text = text.ok_or_else(|| {
            self.error(format!("{} is not there; run `{program}` once and log in", self.path.display()))
        })?;
        // The error of the parser could hold a piece of the file.
        let unread = || {
            self.error(format!(
                "{} is not in the form that is known; run `{program}` once and log in",
                self.path.display()
            ))
        };
        match self.program {
            LoginProgram::Claude => {
                let file: ClaudeFile = serde_json::from_str(&text).map_err(|_| unread())?;
                let login = file.login.ok_or_else(unread)?;
                if login.expires_at.is_some_and(|ends| self.is_over(ends)) {
                    return Err(self.over());
                }
                Ok(LoginToken { token: Secret::new(login.access_token), account: None })
            }
            LoginProgram::Codex => {
                let file: CodexFile = serde_json::from_str(&text).map_err(|_| unread())?;
                let Some(login) = file.tokens else {
                    let with_key = file.key.is_some_and(|key| !key.is_empty());
                    return Err(if with_key {
                        self.error(
                            "it is an API key; give it to `tipstaff secrets set --provider openai` instead",
                        )
                    } else {
                        unread()
                    });
                };
                let claims = claims(&login.access_token);
                if claims.exp.is_some_and(|ends| self.is_over(ends.saturating_mul(1000))) {
                    return Err(self.over());
                }
                let named = claims.account.and_then(|account| account.chatgpt_account_id);
                let account = login.account_id.filter(|id| !id.is_empty()).or(named);
                Ok(LoginToken { token: Secret::new(login.access_token), account })
            }
        }
    }
}

/// What stands in a token; nothing where it is no token of this kind.
fn claims(token: &str) -> Claims {
    let payload =
        token.split('.').nth(1).map(|part| part.trim_end_matches('=')).and_then(tipstaff_seal::unbase64url);
    payload.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use tipstaff_model::FixedClock;

    const NOW: i64 = 1_795_300_000_000;
    const SECRET: &str = "sk-ant-oat01-0123456789-nobodys";

    fn read(program: LoginProgram, text: &str) -> Result<(String, Option<String>), String> {
        let place = tempfile::tempdir().unwrap();
        let own = std::fs::metadata(place.path()).unwrap().uid();
        let login = CliLogin::new(program, place.path(), own, Arc::new(FixedClock::at(NOW)));
        if !text.is_empty() {
            std::fs::write(login.path(), text).unwrap();
            std::fs::set_permissions(login.path(), PermissionsExt::from_mode(0o600)).unwrap();
        }
        match login.read() {
            Ok(found) => Ok((found.token.expose().clone(), found.account)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// `{"exp":…}` as a token holds it.
    fn token(payload: &str) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits: Vec<u8> = payload.bytes().flat_map(|b| (0..8).rev().map(move |bit| b >> bit & 1)).collect();
        let letters = bits.chunks(6).map(|six| {
            let value = (0..6).fold(0, |sum, at| sum << 1 | six.get(at).copied().unwrap_or(0));
            char::from(ALPHABET[usize::from(value)])
        });
        format!("eyJhbGciOiJub25lIn0.{}.c2lnbmF0dXJl", letters.collect::<String>())
    }

    #[test]
    fn a_login_of_claude_code_is_read_while_it_lasts() {
        let file = |ends: i64| {
            format!(
                r#"{{"claudeAiOauth":{{"accessToken":"{SECRET}","refreshToken":"sk-ant-ort01-x","expiresAt":{ends},"scopes":["user:inference"],"subscriptionType":"max"}}}}"#
            )
        };
        assert_eq!(read(LoginProgram::Claude, &file(NOW + 60_000)), Ok((SECRET.to_owned(), None)));
        for (text, word) in [
            (file(NOW), "run `claude` once"),
            (file(NOW + 9_000), "time is over"),
            (String::new(), "is not there"),
            ("{}".to_owned(), "not in the form"),
            (format!("{{\"claudeAiOauth\":{{\"accessToken\":[\"{SECRET}\"]}}}}"), "not in the form"),
        ] {
            let why = read(LoginProgram::Claude, &text).unwrap_err();
            assert!(why.contains(word) && !why.contains(SECRET), "{why}");
        }
    }

    #[test]
    fn a_login_of_codex_is_read_while_it_lasts() {
        let fresh = token(&format!(
            r#"{{"exp":{},"https://api.openai.com/auth":{{"chatgpt_account_id":"from-claim"}}}}"#,
            NOW / 1000 + 60
        ));
        let stale = token(&format!(r#"{{"exp":{}}}"#, NOW / 1000 - 1));
        let file = |token: &str, account: &str| {
            format!(
                r#"{{"OPENAI_API_KEY":null,"tokens":{{"id_token":"x","access_token":"{token}","refresh_token":"y","account_id":{account}}},"last_refresh":"2026-11-01T00:00:00Z"}}"#
            )
        };
        let codex = |text: &str| read(LoginProgram::Codex, text);
        assert_eq!(codex(&file(&fresh, "\"acc-1\"")), Ok((fresh.clone(), Some("acc-1".to_owned()))));
        assert_eq!(codex(&file(&fresh, "null")), Ok((fresh.clone(), Some("from-claim".to_owned()))));
        assert_eq!(codex(&file("opaque-token-1", "null")), Ok(("opaque-token-1".to_owned(), None)));
        assert!(codex(&file(&stale, "null")).unwrap_err().contains("run `codex` once"));
        let with_key = codex(r#"{"OPENAI_API_KEY":"sk-proj-1","tokens":null}"#).unwrap_err();
        assert!(with_key.contains("secrets set") && !with_key.contains("sk-proj-1"), "{with_key}");
        assert!(codex("{}").unwrap_err().contains("not in the form"));
    }
}

//! The one door to the environment. Everything that the binary reads from it is read here, once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// What the environment says.
#[derive(Clone)]
pub(crate) struct Environment {
    /// `TIPSTAFF_HOME`, or `$XDG_DATA_HOME/tipstaff`, or `~/.local/share/tipstaff`.
    pub(crate) home: Option<PathBuf>,
    /// The person's home folder, where toolchains are looked for.
    pub(crate) user_home: Option<PathBuf>,
    /// `TIPSTAFF_DATABASE_URL`.
    pub(crate) database_url: Option<String>,
    /// `TIPSTAFF_DATABASE_OWNER_URL`: lets the store migrate a PostgreSQL database when it opens.
    pub(crate) database_owner_url: Option<String>,
    /// `TIPSTAFF_ENCRYPTION_KEY`. Not printable.
    pub(crate) encryption_key: Option<tipstaff_seal::Secret<String>>,
    /// `TIPSTAFF_KEYCHAIN` is `1`.
    pub(crate) keychain: bool,
    /// `PATH`.
    pub(crate) path: OsString,
    /// `NO_COLOR` is set to something, or `TERM` is `dumb`.
    pub(crate) no_color: bool,
    /// `TERM` is `dumb`, or not set: no screen can be drawn.
    pub(crate) dumb_terminal: bool,
    /// `USER` or `LOGNAME`.
    pub(crate) user: Option<String>,
    /// Where public providers are asked instead: `TIPSTAFF_ANTHROPIC_UPSTREAM`, `TIPSTAFF_OPENAI_UPSTREAM`,
    /// `TIPSTAFF_GEMINI_UPSTREAM`, by provider.
    pub(crate) upstreams: BTreeMap<&'static str, String>,
    /// `ANTHROPIC_API_KEY`, `OPENAI_API_KEY`, `GEMINI_API_KEY`, by provider. Not printable.
    pub(crate) model_keys: BTreeMap<&'static str, tipstaff_seal::Secret<String>>,
    /// Where Claude Code and Codex keep a person's login: `CLAUDE_CONFIG_DIR`, else `~/.claude`; `CODEX_HOME`, else
    /// `~/.codex`.
    pub(crate) claude_home: Option<PathBuf>,
    pub(crate) codex_home: Option<PathBuf>,
    /// `TIPSTAFF_CREDENTIAL_SOCKET`, set for the helper that git starts in a push of ours.
    pub(crate) credential_socket: Option<PathBuf>,
    /// `TIPSTAFF_CREDENTIAL_TICKET`, likewise.
    pub(crate) credential_ticket: Option<String>,
    /// `TIPSTAFF_STALL_WARNING`.
    pub(crate) stall_warning: Option<String>,
    /// `TIPSTAFF_STALL_STOP`.
    pub(crate) stall_stop: Option<String>,
    /// `TIPSTAFF_BWRAP`: bubblewrap, where it is not `/usr/bin/bwrap`.
    pub(crate) bwrap: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub(crate) fn read() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let user_home = set("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = set("TIPSTAFF_HOME")
            .map(PathBuf::from)
            .or_else(|| set("XDG_DATA_HOME").map(|base| PathBuf::from(base).join("tipstaff")))
            .or_else(|| user_home.as_ref().map(|home| home.join(".local/share/tipstaff")));
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let upstreams = [
            ("anthropic", "TIPSTAFF_ANTHROPIC_UPSTREAM"),
            ("openai", "TIPSTAFF_OPENAI_UPSTREAM"),
            ("gemini", "TIPSTAFF_GEMINI_UPSTREAM"),
        ];
        let keys =
            [("anthropic", "ANTHROPIC_API_KEY"), ("openai", "OPENAI_API_KEY"), ("gemini", "GEMINI_API_KEY")];
        let folder = |name: &str, usual: &str| {
            let told = set(name).map(PathBuf::from).filter(|path| path.is_absolute());
            told.or_else(|| user_home.as_ref().map(|home| home.join(usual)))
        };
        Self {
            claude_home: folder("CLAUDE_CONFIG_DIR", ".claude"),
            codex_home: folder("CODEX_HOME", ".codex"),
            upstreams: upstreams
                .into_iter()
                .filter_map(|(provider, name)| Some((provider, text(name)?)))
                .collect(),
            model_keys: keys
                .into_iter()
                .filter_map(|(provider, name)| Some((provider, tipstaff_seal::Secret::new(text(name)?))))
                .collect(),
            credential_socket: set(tipstaff_broker::publish::SOCKET_VARIABLE).map(PathBuf::from),
            credential_ticket: text(tipstaff_broker::publish::TICKET_VARIABLE),
            stall_warning: text("TIPSTAFF_STALL_WARNING"),
            stall_stop: text("TIPSTAFF_STALL_STOP"),
            home,
            user_home,
            database_url: set("TIPSTAFF_DATABASE_URL").and_then(|value| value.into_string().ok()),
            database_owner_url: set("TIPSTAFF_DATABASE_OWNER_URL").and_then(|value| value.into_string().ok()),
            encryption_key: set("TIPSTAFF_ENCRYPTION_KEY")
                .and_then(|value| value.into_string().ok())
                .map(tipstaff_seal::Secret::new),
            keychain: set("TIPSTAFF_KEYCHAIN").is_some_and(|value| value == "1"),
            path: set("PATH").unwrap_or_default(),
            no_color: set("NO_COLOR").is_some() || set("TERM").is_some_and(|term| term == "dumb"),
            dumb_terminal: set("TERM").is_none_or(|term| term == "dumb"),
            user: set("USER").or_else(|| set("LOGNAME")).and_then(|value| value.into_string().ok()),
            bwrap: set("TIPSTAFF_BWRAP").map(PathBuf::from),
        }
    }

    /// The variable that `key_env` of `config.toml` names. Not printable.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub(crate) fn operator_key(name: &str) -> Option<tipstaff_seal::Secret<String>> {
        let value = std::env::var(name).ok().filter(|value| !value.trim().is_empty())?;
        Some(tipstaff_seal::Secret::new(value.trim().to_owned()))
    }
}

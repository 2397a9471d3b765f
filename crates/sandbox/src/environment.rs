//! Which variables may enter. An allow-list: what is not named here stays outside.

use crate::{INSIDE_HOME, SandboxError, ToolchainGrant};

/// Names that may enter as they are.
const NAMES: &[&str] = &[
    "LANG",
    "LANGUAGE",
    "TERM",
    "COLORTERM",
    "TZ",
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR",
    "CI",
    "COLUMNS",
    "LINES",
    "EDITOR",
    "PAGER",
    "GIT_PAGER",
    "GIT_EDITOR",
    "GIT_TERMINAL_PROMPT",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_COUNT",
    "GIT_AUTHOR_NAME",
    "GIT_AUTHOR_EMAIL",
    "GIT_AUTHOR_DATE",
    "GIT_COMMITTER_NAME",
    "GIT_COMMITTER_EMAIL",
    "GIT_COMMITTER_DATE",
    "GIT_OPTIONAL_LOCKS",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "DENO_CERT",
    "AWS_CA_BUNDLE",
    "NIX_SSL_CERT_FILE",
    "NODE_OPTIONS",
    "NODE_USE_ENV_PROXY",
    "NVM_DIR",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "RUSTUP_DIST_SERVER",
    "PYENV_ROOT",
    "PYENV_VERSION",
    "GOPATH",
    "GOPROXY",
    "GOFLAGS",
    "GOTOOLCHAIN",
    "JAVA_HOME",
    "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE",
    "PIP_INDEX_URL",
    "PIP_DISABLE_PIP_VERSION_CHECK",
    "DO_NOT_TRACK",
    "SOURCE_DATE_EPOCH",
    "SHELL",
    "USER",
    "LOGNAME",
];

/// Beginnings of names that may enter: tools' own settings.
const PREFIXES: &[&str] = &[
    "LC_",
    "XDG_",
    "TIPSTAFF_",
    "CLAUDE_",
    "ANTHROPIC_",
    "OPENAI_",
    "CODEX_",
    "GEMINI_",
    "GOOGLE_",
    "OPENCODE_",
    "OPENROUTER_",
    "AIDER_",
    "QWEN_",
    "DASHSCOPE_",
    "COVEN_",
    "LITELLM_",
    "DISABLE_",
    "GIT_CONFIG_KEY_",
    "GIT_CONFIG_VALUE_",
    "npm_config_",
    "NPM_CONFIG_",
    "CARGO_NET_",
    "CARGO_TERM_",
    "CARGO_REGISTRIES_",
];

/// Pieces of names that mean a credential.
const CREDENTIAL_NAMES: &[&str] = &[
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "API_KEY",
    "APIKEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
    "CREDENTIAL",
    "AUTH_SOCK",
    "COOKIE",
    "AUTHORIZATION",
];

/// Beginnings of values that are credentials whatever the name.
const CREDENTIAL_VALUES: &[&str] = &[
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "sk-ant-",
    "sk-proj-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "ASIA",
    "AIza",
    "npm_",
    "pypi-",
    "hf_",
    "-----BEGIN ",
    "eyJhbGciOi",
];

/// What a value must contain when its name is that of a credential.
const PLACEHOLDER: &str = "placeholder";

/// Names that programs obey, besides those that may enter.
const OBEYED: &[&str] =
    &["PATH", "HOME", "TMPDIR", "IFS", "ENV", "BASH_ENV", "PWD", "OLDPWD", "PS1", "PS4", "PROMPT_COMMAND"];

/// Beginnings of such names.
const OBEYED_BEGINNINGS: &[&str] = &["LD_", "DYLD_", "MALLOC_", "GLIBC_", "TIPSTAFF_"];

/// Whether a value is the handle of a secret: `tsh_` and 49 letters and digits. The broker makes them, and knows what
/// they stand for.
fn is_handle(value: &str) -> bool {
    value
        .strip_prefix("tsh_")
        .is_some_and(|rest| rest.len() == 49 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Judges one extra variable: its name must be on the allow-list; a name that looks like a credential must carry
/// a value that contains `placeholder`; a value that looks like a credential is refused under any name.
///
/// # Errors
/// [`SandboxError::EnvironmentRefused`] with the rule.
pub fn environment_check(name: &str, value: &str) -> Result<(), SandboxError> {
    let refuse = |reason| Err(SandboxError::EnvironmentRefused { name: name.to_owned(), reason });
    let well_formed = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit());
    if !well_formed {
        return refuse("its name is not letters, digits and underscores");
    }
    if value.contains('\0') {
        return refuse("its value has a zero byte");
    }
    if is_handle(value) {
        // What is worth nothing may have any name but one that a program or a loader obeys.
        let obeyed = NAMES.contains(&name)
            || OBEYED.contains(&name)
            || OBEYED_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
        return if obeyed { refuse("its name is one that programs obey") } else { Ok(()) };
    }
    if !NAMES.contains(&name) && !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return refuse("its name is not on the allow-list");
    }
    let upper = name.to_ascii_uppercase();
    let credential_name = CREDENTIAL_NAMES.iter().any(|piece| upper.contains(piece));
    let is_count = upper.ends_with("_TOKENS");
    if credential_name && !is_count && !value.contains(PLACEHOLDER) {
        return refuse("its name is that of a credential, so its value must be a placeholder");
    }
    if is_count && !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return refuse("it names a number of tokens, so its value must be a number");
    }
    let looks_secret = CREDENTIAL_VALUES.iter().any(|start| {
        value
            .match_indices(start)
            .any(|(at, _)| !value.get(at.wrapping_sub(1)..at).is_some_and(continues_word))
    });
    if looks_secret && !value.contains(PLACEHOLDER) {
        return refuse("its value looks like a credential");
    }
    if user_information(value) {
        return refuse("its value is a URL with a user or password");
    }
    Ok(())
}

fn continues_word(before: &str) -> bool {
    before.ends_with(|last: char| last.is_ascii_alphanumeric())
}

/// Whether a URL in `value` carries `user:password@`.
fn user_information(value: &str) -> bool {
    value.match_indices("://").any(|(at, separator)| {
        let rest = value.get(at + separator.len()..).unwrap_or_default();
        let authority = rest.split(['/', '?', '#', ' ']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':') && !user.contains(PLACEHOLDER))
    })
}

/// The directories of `PATH`: the grants' first, then the system's.
pub(crate) fn path_directories(grants: &[ToolchainGrant]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let granted = grants.iter().flat_map(|grant| &grant.path_entries).map(|path| path.display().to_string());
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"].map(String::from);
    for directory in granted.chain(system) {
        if !out.contains(&directory) {
            out.push(directory);
        }
    }
    out
}

/// All variables of the command, by name, without doubles: an extra one replaces a fixed one of the same name.
///
/// # Errors
/// [`SandboxError::EnvironmentRefused`] for the first that may not enter.
pub(crate) fn compose(
    grants: &[ToolchainGrant],
    extra: &[(String, String)],
) -> Result<Vec<(String, String)>, SandboxError> {
    let mut out: std::collections::BTreeMap<String, String> = [
        ("HOME", INSIDE_HOME),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
        ("TZ", "UTC"),
        ("TMPDIR", "/tmp"),
        ("USER", "agent"),
        ("LOGNAME", "agent"),
        ("SHELL", "/bin/sh"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    out.insert("PATH".into(), path_directories(grants).join(":"));
    for (name, value) in grants.iter().flat_map(|grant| &grant.env).chain(extra) {
        environment_check(name, value)?;
        out.insert(name.clone(), value.clone());
    }
    Ok(out.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(name: &str, value: &str) -> Option<&'static str> {
        match environment_check(name, value) {
            Ok(()) => None,
            Err(SandboxError::EnvironmentRefused { reason, .. }) => Some(reason),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_handle_enters_under_any_name_that_nobody_obeys() {
        let handle = format!("tsh_{}", "a".repeat(49));
        for name in ["GITHUB_TOKEN", "API_KEY", "X"] {
            assert_eq!(reason(name, &handle), None, "{name}");
        }
        for name in ["PATH", "LD_PRELOAD", "HOME", "https_proxy", "BASH_ENV", "1X", "A-B"] {
            assert!(reason(name, &handle).is_some(), "{name}");
        }
        for value in ["tsh_", &format!("{handle}a"), &format!("x{handle}"), &handle.replace('a', "-")] {
            assert!(reason("GITHUB_TOKEN", value).is_some(), "{value}");
        }
    }

    #[test]
    fn settings_enter() {
        for (name, value) in [
            ("http_proxy", "http://127.0.0.1:8080"),
            ("ANTHROPIC_BASE_URL", "http://127.0.0.1:8080/anthropic"),
            ("ANTHROPIC_API_KEY", "tipstaff-placeholder"),
            ("ANTHROPIC_AUTH_TOKEN", "placeholder"),
            ("CLAUDE_CODE_MAX_OUTPUT_TOKENS", "32000"),
            ("LC_ALL", "C.UTF-8"),
            ("GIT_CONFIG_VALUE_0", "http://127.0.0.1:8080/git/"),
            ("CLAUDE_CODE_TASK", "task-list"),
        ] {
            assert_eq!(reason(name, value), None, "{name}");
        }
    }

    #[test]
    fn credentials_and_strangers_stay_outside() {
        for (name, value) in [
            ("ANTHROPIC_API_KEY", "sk-ant-api03-abc"),
            ("OPENAI_API_KEY", "anything"),
            ("GITHUB_TOKEN", "placeholder"),
            ("SSH_AUTH_SOCK", "/tmp/agent"),
            ("LD_PRELOAD", "/work/x.so"),
            ("PATH", "/work/bin"),
            ("HOME", "/root"),
            ("BASH_ENV", "/work/x"),
            ("TIPSTAFF_NOTE", "use ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
            ("TIPSTAFF_NOTE", "https://me:hunter2@host/"),
            ("CLAUDE_CODE_OAUTH_TOKENS", "abc"),
            ("GIT_CONFIG_VALUE_0", "Authorization: Bearer eyJhbGciOiJIUzI1NiJ9"),
            ("BAD-NAME", "1"),
            ("", "1"),
            ("1X", "1"),
        ] {
            assert!(reason(name, value).is_some(), "{name}={value}");
        }
    }
}

//! Why a change was not published, in words that say what to do.
//!
//! git tells most of it in text only. It runs in the plain locale, so the text is known; what is not known is told as git
//! said it.

use crate::error::BrokerError;

/// What kept a change from being published. Nothing upstream was changed, unless it says that nobody knows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The branch is not one that a change may be published as.
    #[error("'{branch}' can't be published to: {why}; choose a name below agent/ with --branch")]
    Branch {
        /// The branch.
        branch: String,
        /// Why.
        why: &'static str,
    },
    /// Upstream wants a credential and there is none.
    #[error(
        "{host} asks for a credential, and there is none: set one with `tipstaff secrets set --git {host}`"
    )]
    CredentialMissing {
        /// The host.
        host: String,
    },
    /// Upstream did not take the credential.
    #[error("{host} did not accept the credential: set a valid one with `tipstaff secrets set --git {host}`")]
    CredentialRefused {
        /// The host.
        host: String,
    },
    /// The credential could not be had.
    #[error("the credential for {host} can't be had: {why}")]
    CredentialUnavailable {
        /// The host.
        host: String,
        /// Why.
        why: String,
    },
    /// The credential may not write there.
    #[error(
        "{host} refuses this (403): the credential may not write to the repository; give its token that right, or set another with `tipstaff secrets set --git {host}`"
    )]
    Forbidden {
        /// The host.
        host: String,
    },
    /// There is no such repository, or the credential may not see it.
    #[error(
        "there is no repository at {url}, or the credential may not see it: check the address, or name another with --to"
    )]
    UpstreamMissing {
        /// The address.
        url: String,
    },
    /// Upstream sends elsewhere.
    #[error(
        "{url} sends to another address, and redirects are not followed: name the final address with --to"
    )]
    Redirected {
        /// The address.
        url: String,
    },
    /// Upstream could not be reached.
    #[error("{url} can't be reached: {said}; nothing was changed, try again")]
    Unreachable {
        /// The address.
        url: String,
        /// What git said.
        said: String,
    },
    /// The branch exists with other content.
    #[error(
        "{url} has a branch {branch} at {at}, which is not this change; it is never overwritten: look at it, or publish under another name with --branch agent/NAME"
    )]
    BranchTaken {
        /// The address.
        url: String,
        /// The branch.
        branch: String,
        /// The commit there.
        at: String,
    },
    /// Upstream refused the push.
    #[error(
        "{url} refused the branch {branch}: {why}{}; ask who runs it, or publish under another name with --branch agent/NAME",
        remark(said)
    )]
    Rejected {
        /// The address.
        url: String,
        /// The branch.
        branch: String,
        /// The reason in git's protocol.
        why: String,
        /// What upstream printed besides, cleaned.
        said: String,
    },
    /// The push broke off, and upstream could not be asked how it ended.
    #[error(
        "the push to {url} broke off and nobody knows how it ended: {said}; publish again, which looks there first"
    )]
    Unknown {
        /// The address.
        url: String,
        /// What git said.
        said: String,
    },
    /// git said something that we don't know.
    #[error("the push to {url} failed: {said}")]
    Failed {
        /// The address.
        url: String,
        /// What git said, cleaned.
        said: String,
    },
    /// Our git or our state failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

fn remark(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" ({said})") }
}

impl PublishError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Branch { .. } => "publish-branch",
            Self::CredentialMissing { .. } => "publish-credential-missing",
            Self::CredentialRefused { .. } => "publish-credential-refused",
            Self::CredentialUnavailable { .. } => "publish-credential-unavailable",
            Self::Forbidden { .. } => "publish-forbidden",
            Self::UpstreamMissing { .. } => "publish-upstream-missing",
            Self::Redirected { .. } => "publish-redirected",
            Self::Unreachable { .. } => "publish-unreachable",
            Self::BranchTaken { .. } => "publish-branch-taken",
            Self::Rejected { .. } => "publish-rejected",
            Self::Unknown { .. } => "publish-unknown",
            Self::Failed { .. } => "publish-failed",
            Self::Broker(error) => error.code(),
        }
    }

    /// Whether the other side, or a check of ours, said no: trying the same again changes nothing.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Branch { .. }
                | Self::CredentialMissing { .. }
                | Self::CredentialRefused { .. }
                | Self::Forbidden { .. }
                | Self::Redirected { .. }
                | Self::BranchTaken { .. }
                | Self::Rejected { .. }
        )
    }
}

/// Where a push goes, for the words of an error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) url: &'a str,
    pub(super) host: &'a str,
    /// Whether a credential was given.
    pub(super) credential: bool,
}

/// Reads what git said when it could not speak with upstream. `said` is cleaned already.
pub(super) fn of_connection(said: &str, place: Place<'_>) -> PublishError {
    let (url, host) = (place.url.to_owned(), place.host.to_owned());
    // What upstream itself prints is no ground for a verdict.
    let ours: Vec<&str> = said.lines().filter(|line| !line.trim_start().starts_with("remote:")).collect();
    let has = |words: &[&str]| words.iter().any(|word| ours.iter().any(|line| line.contains(word)));
    if has(&["could not read Username", "could not read Password", "terminal prompts disabled"]) {
        // Without an answer of ours git asks the terminal, which it may not.
        return if place.credential {
            PublishError::CredentialRefused { host }
        } else {
            PublishError::CredentialMissing { host }
        };
    }
    if has(&["Authentication failed", "returned error: 401"]) {
        return PublishError::CredentialRefused { host };
    }
    if has(&["returned error: 403"]) {
        return PublishError::Forbidden { host };
    }
    if has(&["returned error: 30"]) || has(&["redirect"]) {
        return PublishError::Redirected { url };
    }
    if has(&["not found", "returned error: 404", "does not appear to be a git repository"]) {
        return PublishError::UpstreamMissing { url };
    }
    let away = [
        "Could not resolve host",
        "Failed to connect",
        "Couldn't connect",
        "Connection refused",
        "Connection reset",
        "Connection timed out",
        "Operation too slow",
        "SSL",
        "certificate",
        "returned error: 5",
        "Empty reply",
        "Recv failure",
        "transfer closed",
        "unable to access",
    ];
    if has(&away) {
        return PublishError::Unreachable { url, said: one_line(said) };
    }
    PublishError::Failed { url, said: one_line(said) }
}

/// Words of git and of upstream on one line, cut to a readable length.
pub(super) fn one_line(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .map(|line| {
            let line = line.trim();
            let line = line.strip_prefix("fatal: ").or_else(|| line.strip_prefix("error: ")).unwrap_or(line);
            line.strip_prefix("remote:").unwrap_or(line).trim()
        })
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("; ").chars().take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_has_a_code() {
        let place = Place { url: "https://h/a", host: "h", credential: false };
        for (said, code) in [
            (
                "fatal: could not read Username for 'https://h': terminal prompts disabled",
                "publish-credential-missing",
            ),
            ("fatal: Authentication failed for 'https://h/a/'", "publish-credential-refused"),
            (
                "fatal: unable to access 'https://h/a/': The requested URL returned error: 403",
                "publish-forbidden",
            ),
            (
                "fatal: unable to access 'https://h/a/': The requested URL returned error: 302",
                "publish-redirected",
            ),
            ("fatal: repository 'https://h/a/' not found", "publish-upstream-missing"),
            ("fatal: unable to access 'https://h/a/': Could not resolve host: h", "publish-unreachable"),
            (
                "fatal: unable to access 'https://h/a/': The requested URL returned error: 502",
                "publish-unreachable",
            ),
            ("fatal: something new", "publish-failed"),
            ("remote: Authentication failed, said the server\nfatal: something new", "publish-failed"),
        ] {
            assert_eq!(of_connection(said, place).code(), code, "{said}");
        }
        assert_eq!(one_line("remote: no\nremote:\nerror: failed\n"), "no; failed");
    }
}

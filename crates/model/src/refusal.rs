//! Refusals: what was wanted, which rule said no, and what to do next.

use crate::warrant::HostPattern;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

macro_rules! rules {
    ($( $(#[$doc:meta])* $name:ident = $id:literal, $next:literal; )*) => {
        /// A rule that can refuse something. The id is stable: it appears in git's output, logs, audit and docs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Rule {
            $( $(#[$doc])* #[serde(rename = $id)] $name, )*
        }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];

            /// The stable id.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $( Self::$name => $id, )* }
            }

            /// What a person can do about it.
            #[must_use]
            pub const fn next_step(self) -> &'static str {
                match self { $( Self::$name => $next, )* }
            }
        }
    };
}

rules! {
    /// The warrant's time is over.
    WarrantExpired = "warrant-expired", "start a new run; give it more time with --timeout";
    /// The warrant was revoked.
    WarrantRevoked = "warrant-revoked", "start a new run if the work is still wanted";
    /// A warrant that was to take the place of the one in force is forged, another run's, or grants more.
    WarrantForged = "warrant-forged", "find out who can write to the store: `tipstaff audit verify`, `tipstaff warrants show`";
    /// The repository is not in the warrant.
    RepositoryNotGranted = "repository-not-granted", "start the run on the repository that it needs";
    /// The kind of warrant grants no push.
    PushNotGranted = "push-not-granted", "use a role whose warrant may push, such as builder";
    /// A ref other than the warrant's own.
    RefNotGranted = "ref-not-granted", "push only to the warrant's branch; see `tipstaff runs show`";
    /// A ref would be deleted.
    RefDelete = "ref-delete", "nothing under a warrant deletes a ref";
    /// The push does not descend from what is there.
    ForcePush = "force-push", "rebase onto the pushed tip, or start a new run";
    /// The push does not descend from the pinned base.
    BaseNotAncestor = "base-not-ancestor", "commit on top of the base that the warrant pins";
    /// More than one command in a push.
    PushTooManyRefs = "push-too-many-refs", "push one ref at a time";
    /// An option that changes what a push means.
    PushOption = "push-option", "push without options";
    /// The pack has too many bytes.
    PushTooLarge = "push-too-large", "push less: build results and dependencies don't belong in a commit";
    /// The pack has too many objects.
    PushTooManyObjects = "push-too-many-objects", "push less: build results and dependencies don't belong in a commit";
    /// Too many files differ from the base.
    PushTooManyFiles = "push-too-many-files", "split the work, or ask for a larger warrant";
    /// An object in the push is malformed or dangerous.
    PushObjectCheck = "push-object-check", "make the commits with a plain git; `git fsck` names the object";
    /// A path that the role may not change.
    PathProtected = "path-protected", "leave that path alone, or use a role that may change it";
    /// A path outside what the warrant lets the run write.
    PathNotGranted = "path-not-granted", "change only the paths that the warrant names";
    /// A path that some file system or some git reads as another one.
    PathDangerous = "path-dangerous", "give the file a plain name";
    /// A symbolic link that leads out of the repository.
    SymlinkEscapes = "symlink-escapes", "link only to files of the repository, with a relative path";
    /// A secret stands in what is pushed.
    SecretInDiff = "secret-in-diff", "take the secret out of every commit; revoke it if it was real; see docs/pushes.md";
    /// A commit in somebody else's name.
    CommitIdentity = "commit-identity", "commit as the run's own git does, for nobody else: git commit --amend --reset-author";
    /// The host is not in the warrant.
    HostNotGranted = "host-not-granted", "grant it with --allow-host HOST[:PORT], or a class such as registry:npm";
    /// The port is not in the warrant.
    PortNotGranted = "port-not-granted", "grant it with --allow-host HOST:PORT";
    /// The host is granted, but not this request.
    RequestNotGranted = "request-not-granted", "grant it with --allow-request 'METHOD URL'";
    /// The host is granted, but not this tool of it.
    ToolNotGranted = "tool-not-granted", "grant it with --allow-tool URL#TOOL";
    /// A secret that the warrant does not name.
    SecretNotGranted = "secret-not-granted", "grant it with --secret NAME";
    /// A secret's handle where it is worth nothing.
    SecretMisused = "secret-misused", "send the handle only to the host and path that the secret was set for";
    /// TLS to another name than the one that was asked for.
    TlsNameMismatch = "tls-name-mismatch", "connect with the name of the granted host";
    /// What was sent as TLS can't be read as TLS.
    TlsUnreadable = "tls-unreadable", "speak TLS with a server name and without an encrypted client hello";
    /// A protocol that the broker does not carry there.
    ProtocolNotServed = "protocol-not-served", "speak HTTP/1.1 there";
    /// The run sent, received or asked more than its warrant allows.
    EgressSpent = "egress-spent", "transfer less; the bounds are in the warrant's limits";
    /// The name leads to an address that no warrant may reach.
    AddressForbidden = "address-forbidden", "private, loopback, link-local and metadata addresses are never reachable";
    /// The provider or model is not in the warrant.
    ModelNotGranted = "model-not-granted", "choose a model that the agent's profile names";
    /// The provider did not accept the key, or sent it back.
    KeyNotAccepted = "key-not-accepted", "set a valid key for the provider: tipstaff secrets set";
    /// The money is spent.
    BudgetExceeded = "budget-exceeded", "give the next run a larger --budget";
    /// The kind of warrant grants no execution.
    ExecNotGranted = "exec-not-granted", "use a role whose warrant may execute, such as builder";
    /// The request is not one that the broker serves.
    RequestNotServed = "request-not-served", "the broker serves git, granted hosts and granted models, nothing else";
    /// The request can be read in two ways.
    RequestAmbiguous = "request-ambiguous", "send plain HTTP/1.1 with one length and one host";
    /// A bound of the broker was reached.
    LimitReached = "limit-reached", "do less at once; docs list every limit";
    /// A policy denies the action.
    PolicyDenied = "policy-denied", "see which rule denies it: tipstaff policy check";
    /// A person said no to the action.
    ApprovalDenied = "approval-denied", "talk to whoever said no; tipstaff approvals list --all";
    /// Nobody answered the question about the action in time.
    ApprovalExpired = "approval-expired", "answer in time: tipstaff approvals list; or let a policy decide";
    /// An agent asked us to do something for it outside of its sandbox.
    OutsideSandbox = "outside-sandbox", "nothing is done for an agent outside of its sandbox; it has tools of its own inside";
    /// The action could not be written to the audit log.
    AuditUnavailable = "audit-unavailable", "no audit, no action: mend the store and try again";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// One refusal. `wanted` and `why` are our own words about hostile input: bounded and free of control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{rule}: {why}")]
pub struct Refusal {
    /// The rule that said no.
    pub rule: Rule,
    /// What was wanted, such as a host, a ref or a path.
    pub wanted: String,
    /// Why it was refused.
    pub why: String,
}

/// The longest `wanted` or `why`, in characters.
pub const LONGEST_TEXT: usize = 300;

impl Refusal {
    /// A refusal; texts are cleaned and cut to [`LONGEST_TEXT`].
    #[must_use]
    pub fn new(rule: Rule, wanted: impl AsRef<str>, why: impl AsRef<str>) -> Self {
        Self { rule, wanted: clean(wanted.as_ref()), why: clean(why.as_ref()) }
    }

    /// What a person can do about this very refusal: for a host, the option that grants it.
    #[must_use]
    pub fn next_step(&self) -> Cow<'static, str> {
        match (self.rule, self.wanted.parse::<HostPattern>()) {
            (Rule::HostNotGranted | Rule::PortNotGranted, Ok(host)) => {
                Cow::Owned(format!("grant it with --allow-host {host}"))
            }
            (Rule::HostNotGranted, Err(_)) => {
                Cow::Borrowed("only names of public hosts can be granted, with --allow-host HOST[:PORT]")
            }
            (rule, _) => Cow::Borrowed(rule.next_step()),
        }
    }
}

fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || is_reordering(c) { '\u{fffd}' } else { c })
        .take(LONGEST_TEXT)
        .collect()
}

/// Characters that make a terminal or an editor show text in another order than it has.
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_host_is_granted_by_the_option_that_its_refusal_names() {
        let step = |rule, wanted: &str| Refusal::new(rule, wanted, "why").next_step().into_owned();
        for wanted in ["api.example.com:443", "api.example.com:8443"] {
            for rule in [Rule::HostNotGranted, Rule::PortNotGranted] {
                let said = step(rule, wanted);
                let host: HostPattern = said.rsplit(' ').next().unwrap().parse().unwrap();
                assert_eq!(host.to_string(), wanted, "{said}");
            }
        }
        // What can't be granted gets no option that would not work, and nothing of it comes near a shell.
        for wanted in ["127.0.0.1:443", "::1:443", "localhost:80", "a;reboot:443", "*:443"] {
            assert!(!step(Rule::HostNotGranted, wanted).contains(wanted), "{wanted}");
        }
        assert_eq!(step(Rule::ForcePush, "x"), Rule::ForcePush.next_step());
    }
}

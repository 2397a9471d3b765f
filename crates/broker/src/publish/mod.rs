//! Publishing: an attested change is pushed upstream, with a credential that only our side holds.
//!
//! Promises: a new branch is made and nothing else: no branch is moved, forced or deleted, since upstream is asked to
//! make the ref only if it has none; the same change is published twice with one effect; no hook, configuration or
//! credential helper of anybody's takes part; a redirect is not followed; what upstream says is cleaned of escape
//! sequences and of the credential before anybody sees it.

mod app;
mod credential;
mod error;
mod handover;

pub use app::{ForgeApp, ForgeAppError};
pub use credential::{CredentialError, CredentialRequest, CredentialSource, DEFAULT_USERNAME, GitCredential};
pub use error::PublishError;
pub use handover::{HELPER_COMMAND, SOCKET_VARIABLE, TICKET_VARIABLE, ask};

use crate::error::BrokerError;
use crate::git::{Git, GitCommand};
use crate::mirror::Listing;
use crate::quarantine::Quarantine;
use crate::source::{LocalSource, RemoteSource, Source};
use error::{Place, of_connection, one_line};
use handover::Handover;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_model::{CommitId, Entropy, RefName};
use tipstaff_seal::Secret;
use tipstaff_seal::redact::Redactor;
use tipstaff_seal::scrub::{Colours, scrub_terminal};

/// How long a push may take.
const PUSH_TIME: Duration = Duration::from_secs(20 * 60);
/// How long a look at upstream may take.
const LOOK_TIME: Duration = Duration::from_secs(60);

/// Branches that a change is published under.
pub const OWN_BRANCHES: &str = "agent/";

/// What is to be published where.
#[derive(Debug, Clone)]
pub struct Publishing {
    /// The attested commit.
    pub tip: CommitId,
    /// The branch upstream.
    pub branch: RefName,
    /// The branch that the run was based on; it is never written.
    pub base: Option<RefName>,
}

/// What upstream has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamLook {
    /// The commit of the branch, where it exists.
    pub at: Option<CommitId>,
    /// The branch that upstream calls its own.
    pub default_branch: Option<RefName>,
}

/// How publishing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The branch was made.
    New,
    /// It was there with exactly this commit.
    AlreadyThere,
}

/// Pushes attested changes.
pub struct Publisher {
    git: Arc<Git>,
    entropy: Arc<dyn Entropy>,
    /// Our own program, which git asks for the credential.
    helper: PathBuf,
}

impl Publisher {
    /// With our git; `helper` is our own program.
    #[must_use]
    pub fn new(git: Arc<Git>, entropy: Arc<dyn Entropy>, helper: PathBuf) -> Self {
        Self { git, entropy, helper }
    }

    /// Whether the branch is one that a change may be published as.
    ///
    /// # Errors
    /// [`PublishError::Branch`].
    pub fn permits(publishing: &Publishing, look: &UpstreamLook) -> Result<(), PublishError> {
        let branch = &publishing.branch;
        let refused = |why| Err(PublishError::Branch { branch: branch.short().to_owned(), why });
        if publishing.base.as_ref() == Some(branch) {
            return refused("it is the branch that the run was based on");
        }
        if look.default_branch.as_ref() == Some(branch) {
            return refused("it is the default branch there");
        }
        if !branch.short().starts_with(OWN_BRANCHES) {
            return refused("changes are published below agent/ only");
        }
        Ok(())
    }

    /// Asks upstream what it has.
    ///
    /// # Errors
    /// [`PublishError`] of the connection and the credential.
    pub async fn look(
        &self,
        target: &Source,
        branch: &RefName,
        credential: Option<&GitCredential>,
    ) -> Result<UpstreamLook, PublishError> {
        match target {
            Source::Local(local) => self.look_local(local, branch).await,
            Source::Remote(remote) => self.look_remote(remote, branch, credential).await,
        }
    }

    /// Pushes. Upstream was looked at before, and the branch permitted.
    ///
    /// # Errors
    /// [`PublishError`]. After [`PublishError::Unknown`] the branch may be there.
    pub async fn push(
        &self,
        quarantine: &Quarantine,
        target: &Source,
        publishing: &Publishing,
        credential: Option<&GitCredential>,
    ) -> Result<Pushed, PublishError> {
        match target {
            Source::Local(local) => self.push_local(quarantine, local, target, publishing).await,
            Source::Remote(remote) => self.push_remote(quarantine, remote, publishing, credential).await,
        }
    }

    async fn look_local(&self, local: &LocalSource, branch: &RefName) -> Result<UpstreamLook, PublishError> {
        let at = self
            .in_local(local, "rev-parse")
            .args(["--verify", "--quiet"])
            .arg(format!("{branch}^{{commit}}"))
            .finish()
            .await?;
        let head = self.in_local(local, "symbolic-ref").args(["--quiet", "HEAD"]).finish().await?;
        Ok(UpstreamLook { at: at.text().parse().ok(), default_branch: head.text().parse().ok() })
    }

    fn in_local(&self, local: &LocalSource, name: &'static str) -> GitCommand<'_> {
        self.git.command(name).git_dir(&local.git_dir).reading_source([
            local.root.clone(),
            local.git_dir.clone(),
            local.common_dir.clone(),
        ])
    }

    /// A folder of this machine gets the objects by a fetch and the branch by a swap against nothing, so that no hook of
    /// the folder runs.
    async fn push_local(
        &self,
        quarantine: &Quarantine,
        local: &LocalSource,
        target: &Source,
        publishing: &Publishing,
    ) -> Result<Pushed, PublishError> {
        let (tip, branch) = (&publishing.tip, &publishing.branch);
        let passing = RefName::branch(&format!("tipstaff-publishing-{}", tip.short()))
            .map_err(|_| BrokerError::GitUnexpected { command: "update-ref" })?;
        quarantine.export(target, tip, &passing).await?;
        let made = self
            .in_local(local, "update-ref")
            .environment("GIT_OPTIONAL_LOCKS", "1")
            .args([branch.as_str(), tip.as_str(), &"0".repeat(tip.as_str().len())])
            .finish()
            .await?;
        self.in_local(local, "update-ref").args(["-d", passing.as_str()]).run().await?;
        if made.status.success() {
            return Ok(Pushed::New);
        }
        let look = self.look_local(local, branch).await?;
        settle(&look, publishing, &target.to_string()).unwrap_or_else(|| {
            Err(PublishError::Failed { url: target.to_string(), said: one_line(&made.stderr) })
        })
    }

    async fn look_remote(
        &self,
        remote: &RemoteSource,
        branch: &RefName,
        credential: Option<&GitCredential>,
    ) -> Result<UpstreamLook, PublishError> {
        let words = Words::new(remote, credential);
        let handover = self.hand_over(remote, credential)?;
        let command = self
            .over_http(self.git.command("ls-remote"), remote, handover.as_ref())
            .args(["--quiet", "--symref", "--", remote.url(), "HEAD", branch.as_str()])
            .timeout(LOOK_TIME);
        let output = match command.finish().await {
            Ok(output) => output,
            Err(BrokerError::GitTimeout { seconds, .. }) => {
                let said = format!("no answer in {seconds} s");
                return Err(PublishError::Unreachable { url: remote.url().to_owned(), said });
            }
            Err(error) => return Err(error.into()),
        };
        if !output.status.success() {
            return Err(of_connection(&words.clean(&output.stderr), words.place()));
        }
        let listing = Listing::read(&output.stdout);
        let at = listing.refs.into_iter().find(|(name, _)| name == branch.as_str()).map(|(_, id)| id);
        let default_branch = listing.head_branch.and_then(|name| RefName::branch(&name).ok());
        Ok(UpstreamLook { at, default_branch })
    }

    async fn push_remote(
        &self,
        quarantine: &Quarantine,
        remote: &RemoteSource,
        publishing: &Publishing,
        credential: Option<&GitCredential>,
    ) -> Result<Pushed, PublishError> {
        let words = Words::new(remote, credential);
        let (tip, branch) = (&publishing.tip, &publishing.branch);
        let handover = self.hand_over(remote, credential)?;
        // The lease says: only if there is no such branch. A ref that is made can't be forced.
        let command = self
            .over_http(quarantine.command("push"), remote, handover.as_ref())
            .args([
                "--porcelain",
                "--no-verify",
                "--no-signed",
                "--no-follow-tags",
                "--recurse-submodules=no",
            ])
            .arg(format!("--force-with-lease={branch}:"))
            .args(["--", remote.url()])
            .arg(format!("{tip}:{branch}"))
            .timeout(PUSH_TIME);
        let ended = command.finish().await;
        drop(handover);
        let said = match ended {
            Ok(output) if output.status.success() => return Ok(Pushed::New),
            Ok(output) => {
                let said = words.clean(&output.stderr);
                if let Some(why) = rejection(&output.stdout) {
                    // Somebody else may have been faster, with this or another commit.
                    let look = self.look_remote(remote, branch, credential).await?;
                    return settle(&look, publishing, remote.url()).unwrap_or_else(|| {
                        Err(PublishError::Rejected {
                            url: remote.url().to_owned(),
                            branch: branch.short().to_owned(),
                            why: one_line(&words.clean(&why)),
                            said: remote_words(&said),
                        })
                    });
                }
                said
            }
            Err(BrokerError::GitTimeout { seconds, .. }) => format!("ended after {seconds} s"),
            Err(error) => return Err(error.into()),
        };
        let error = of_connection(&said, words.place());
        if error.is_refusal() || matches!(error, PublishError::UpstreamMissing { .. }) {
            // Answered before anything was taken.
            return Err(error);
        }
        // The connection broke, before or after upstream took the push: look.
        match self.look_remote(remote, branch, credential).await {
            Ok(look) => settle(&look, publishing, remote.url()).unwrap_or(Err(error)),
            Err(_) => Err(PublishError::Unknown { url: remote.url().to_owned(), said: one_line(&said) }),
        }
    }

    fn hand_over(
        &self,
        remote: &RemoteSource,
        credential: Option<&GitCredential>,
    ) -> Result<Option<Handover>, PublishError> {
        let Some(credential) = credential else { return Ok(None) };
        let place = (remote.scheme(), remote.authority());
        Ok(Some(Handover::open(&self.git, &*self.entropy, &self.helper, credential.clone(), place)?))
    }

    fn over_http<'git>(
        &self,
        command: GitCommand<'git>,
        remote: &RemoteSource,
        handover: Option<&Handover>,
    ) -> GitCommand<'git> {
        let command = command
            .protocols(if remote.scheme() == "https" { "https" } else { "http" })
            .config("http.lowSpeedLimit", "1")
            .config("http.lowSpeedTime", "60")
            .config("push.negotiate", "false");
        match handover {
            Some(handover) => handover.lend(command),
            None => command,
        }
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("helper", &self.helper).finish_non_exhaustive()
    }
}

/// What the branch upstream means for a push that did not go through; `None` when there is no branch.
fn settle(look: &UpstreamLook, publishing: &Publishing, url: &str) -> Option<Result<Pushed, PublishError>> {
    let at = look.at.as_ref()?;
    Some(if *at == publishing.tip {
        Ok(Pushed::AlreadyThere)
    } else {
        Err(PublishError::BranchTaken {
            url: url.to_owned(),
            branch: publishing.branch.short().to_owned(),
            at: at.short().to_owned(),
        })
    })
}

/// Whether a look says how publishing ends without a push.
///
/// # Errors
/// [`PublishError::BranchTaken`] when the branch is there with another commit.
pub fn decided_by(
    look: &UpstreamLook,
    publishing: &Publishing,
    target: &Source,
) -> Result<Option<Pushed>, PublishError> {
    settle(look, publishing, &target.to_string()).transpose()
}

/// The reason of the one rejected ref in the output of `git push --porcelain`.
fn rejection(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().find_map(|line| {
        let rest = line.strip_prefix("!\t")?;
        rest.split_once('\t').map(|(_, why)| why.to_owned())
    })
}

/// What upstream itself printed.
fn remote_words(said: &str) -> String {
    let lines: Vec<&str> = said.lines().filter(|line| line.trim_start().starts_with("remote:")).collect();
    one_line(&lines.join("\n"))
}

/// Makes words of upstream harmless: no escape sequence, and no spelling of the credential.
struct Words<'a> {
    remote: &'a RemoteSource,
    credential: bool,
    redactor: Redactor,
}

impl<'a> Words<'a> {
    fn new(remote: &'a RemoteSource, credential: Option<&GitCredential>) -> Self {
        let values: Vec<_> = credential.into_iter().flat_map(|one| [one.token.clone(), basic(one)]).collect();
        Self { remote, credential: credential.is_some(), redactor: Redactor::new().with_values(&values) }
    }

    fn clean(&self, said: &str) -> String {
        scrub_terminal(self.redactor.redact(said).as_bytes(), Colours::Remove)
    }

    fn place(&self) -> Place<'_> {
        Place { url: self.remote.url(), host: self.remote.authority(), credential: self.credential }
    }
}

/// `user:token`, which the redactor knows in every spelling, base64 included: so HTTP carries it.
fn basic(credential: &GitCredential) -> Secret<String> {
    Secret::new(format!("{}:{}", credential.username, credential.token.expose()))
}

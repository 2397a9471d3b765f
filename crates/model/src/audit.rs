//! The audit record and its canonical bytes.
//!
//! A draft is what happened; the store gives it a place in the org's log (sequence and time) and commits its canonical
//! bytes, salted, as a leaf of an RFC 6962 tree. Records hold ids, codes and digests; long text lives elsewhere, where
//! it can be erased.

use crate::canonical::{self, CanonicalError};
use crate::id::OrgId;
use crate::refusal::LONGEST_TEXT;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

macro_rules! actions {
    ($( $(#[$doc:meta])* $name:ident = $word:literal; )*) => {
        /// What happened. The word is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum AuditAction { $( $(#[$doc])* #[serde(rename = $word)] $name, )* }

        impl AuditAction {
            /// All actions.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];
            /// The stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$name => $word, )* }
            }
        }
    };
}

actions! {
    /// An org, its ring and its signing keys were made.
    OrgCreated = "org.created";
    /// An agent profile was made or changed.
    AgentSet = "agent.set";
    /// A task was accepted.
    TaskAdded = "task.added";
    /// A worker took a lease on a task.
    TaskClaimed = "task.claimed";
    /// A person asked for the end of a run.
    RunCancelRequested = "run.cancel_requested";
    /// A warrant was signed.
    WarrantIssued = "warrant.issued";
    /// A warrant was revoked.
    WarrantRevoked = "warrant.revoked";
    /// A warrant in force was narrowed: a person signed one that grants less, which takes its place.
    WarrantNarrowed = "warrant.narrowed";
    /// The worker put a narrowed warrant in force.
    WarrantEnforced = "warrant.enforced";
    /// A run moved to another state.
    RunState = "run.state";
    /// The sandbox of a run started.
    SandboxStarted = "sandbox.started";
    /// The set-up of a repository begins in its sandbox.
    SetupStarted = "setup.started";
    /// How the set-up of a repository ended.
    SetupEnded = "setup.ended";
    /// What an earlier set-up made was laid into a workspace.
    SetupReused = "setup.reused";
    /// A person removed what set-ups made.
    SetupCleared = "setup.cleared";
    /// Something was refused.
    Refused = "refused";
    /// A push was accepted into quarantine.
    PushAccepted = "push.accepted";
    /// The commands of the verification ran on a run's result.
    RunVerified = "run.verified";
    /// The verdict on a run's result.
    RunDecided = "run.decided";
    /// A person brought a run's change into a repository.
    RunApplied = "run.applied";
    /// A run's change is about to be pushed upstream.
    PushPublishing = "push.publishing";
    /// How pushing a run's change upstream ended.
    PushPublished = "push.published";
    /// A person threw a run's change away.
    RunDiscarded = "run.discarded";
    /// The workspace of a run was destroyed.
    WorkspaceDestroyed = "workspace.destroyed";
    /// A key rotation began, or ended.
    KeyRotated = "key.rotated";
    /// A secret was set or removed.
    SecretSet = "secret.set";
    /// A budget over a period was set, changed or removed.
    BudgetSet = "budget.set";
    /// A model call was refused, since a budget is spent. Once for a run and a budget.
    BudgetExhausted = "budget.exhausted";
    /// A budget over a period reached one of the shares at which something happens. Once for a budget, period and share.
    BudgetThreshold = "budget.threshold";
    /// Model calls were paid from a run's reserve while the store could not be reached.
    ReserveDrawn = "reserve.drawn";
    /// A project was made or removed, or a repository became part of one.
    ProjectSet = "project.set";
    /// A model was called that the price table does not know. Once for a run and a model.
    PriceUnknown = "price.unknown";
    /// The price table was replaced, or put back to the one of the program.
    PricesSet = "prices.set";
    /// A rule about which models may be asked, or a route of models, was set or removed.
    ModelsSet = "models.set";
    /// A person was asked about an action.
    ApprovalAsked = "approval.asked";
    /// A question was answered, ran out of time or was taken back.
    ApprovalAnswered = "approval.answered";
    /// A yes was used: the agent was told.
    ApprovalUsed = "approval.used";
    /// A person told a run something, paused it or let it go on; or what became of that.
    RunSteered = "run.steered";
    /// The policy of an org or a project was set or removed.
    PolicySet = "policy.set";
    /// What a run spent in all, at its end.
    RunCharged = "run.charged";
    /// How long sessions of a class are kept was set.
    RetentionSet = "retention.set";
    /// What the session of a run said was erased, since its time is over.
    RunSwept = "run.swept";
    /// The text of a record was erased.
    RecordErased = "record.erased";
    /// A repository was looked at for the first time.
    RepositoryAdded = "repository.added";
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for AuditAction {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .iter()
            .copied()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| UnknownWord(text.chars().take(40).collect()))
    }
}

/// A word of the log that this version doesn't know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a word of the audit log")]
pub struct UnknownWord(String);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// It was done.
    Ok,
    /// A rule refused it.
    Refused,
    /// It went wrong.
    Failed,
}

impl AuditOutcome {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Something that happened, before it has a place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditDraft {
    /// Who did it: `member:<id>`, `run:<id>`, `worker:<name>` or `system`.
    pub actor: String,
    /// What happened.
    pub action: AuditAction,
    /// What it happened to: `run:<id>`, `warrant:<id>` …
    pub subject: String,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// Codes, ids, digests and short words, by name.
    pub detail: BTreeMap<String, String>,
}

impl AuditDraft {
    /// A draft with an empty detail and a good outcome.
    #[must_use]
    pub fn new(actor: impl Into<String>, action: AuditAction, subject: impl fmt::Display) -> Self {
        Self {
            actor: actor.into(),
            action,
            subject: subject.to_string(),
            outcome: AuditOutcome::Ok,
            detail: BTreeMap::new(),
        }
    }

    /// Sets the outcome.
    #[must_use]
    pub const fn outcome(mut self, outcome: AuditOutcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// Adds one entry of the detail; long values are cut to [`LONGEST_TEXT`] characters, control characters replaced.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        let text: String = value
            .to_string()
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .take(LONGEST_TEXT)
            .collect();
        self.detail.insert(name.to_owned(), text);
        self
    }
}

/// An entry of an org's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRecord {
    /// Version of this form: 1.
    pub v: u8,
    /// The org whose log it is in.
    pub org: OrgId,
    /// Position in the log, from 0 without gaps.
    pub seq: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at: i64,
    /// Who.
    pub actor: String,
    /// What happened.
    pub action: AuditAction,
    /// To what.
    pub subject: String,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// Codes, ids, digests and short words, by name.
    pub detail: BTreeMap<String, String>,
}

impl AuditRecord {
    /// Gives a draft its place.
    #[must_use]
    pub fn place(draft: AuditDraft, org: OrgId, seq: u64, at: i64) -> Self {
        let AuditDraft { actor, action, subject, outcome, detail } = draft;
        Self { v: 1, org, seq, at, actor, action, subject, outcome, detail }
    }

    /// The bytes that the log commits to (RFC 8785).
    ///
    /// # Errors
    /// Only when a number is beyond ±2⁵³.
    pub fn canonical_bytes(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::to_bytes(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_bytes_do_not_drift() {
        let draft = AuditDraft::new("system", AuditAction::RunState, "run:1").with("to", "done\u{1b}[2J");
        let record = AuditRecord::place(draft, OrgId::from_bytes([7; 16]), 3, 1_700_000_000_000);
        insta::assert_snapshot!(String::from_utf8(record.canonical_bytes().unwrap()).unwrap(), @r#"{"action":"run.state","actor":"system","at":1700000000000,"detail":{"to":"done�[2J"},"org":"07070707-0707-0707-0707-070707070707","outcome":"ok","seq":3,"subject":"run:1","v":1}"#);
    }
}

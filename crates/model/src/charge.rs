//! Charges: what a model call used, what it is expected to cost at most, and what the ledger says to it.
//!
//! Money is reserved before a call and settled after it, so that calls in parallel can't spend more than the budget
//! together. The ledger is the control plane's; the broker only asks.

use crate::id::RowId;
use crate::money::MicroUsd;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Tokens of one call or of many. The five kinds don't overlap, whatever the provider's convention is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Input that no cache held.
    pub input: u64,
    /// Input that was read from a cache.
    pub cache_read: u64,
    /// Input that was written to a cache for five minutes, or for a time that the provider doesn't price apart.
    pub cache_write: u64,
    /// Input that was written to a cache for an hour, which costs more.
    pub cache_write_1h: u64,
    /// Output, reasoning included.
    pub output: u64,
    /// The part of `output` that was reasoning, where the provider says so. Not to be added.
    pub reasoning: u64,
}

impl Usage {
    /// Tokens of all kinds.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write)
            .saturating_add(self.cache_write_1h)
            .saturating_add(self.output)
    }

    /// Input of all kinds: how long the prompt was.
    #[must_use]
    pub const fn prompt(&self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write)
            .saturating_add(self.cache_write_1h)
    }

    /// The sum.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            cache_write_1h: self.cache_write_1h.saturating_add(other.cache_write_1h),
            output: self.output.saturating_add(other.output),
            reasoning: self.reasoning.saturating_add(other.reasoning),
        }
    }
}

/// What a broker wants to spend on one call at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargeRequest {
    /// The call, an id that the broker made: asking again for the same call reserves once.
    pub call: RowId,
    /// The provider: `anthropic`, `openai`, `gemini` or the name of a configured upstream.
    pub provider: String,
    /// The model, as the request names it.
    pub model: String,
    /// The most that it can cost.
    pub most: MicroUsd,
    /// The least that makes the call worth while. The ledger may grant anything from here to `most`.
    pub least: MicroUsd,
}

/// Whose budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// The run's: the warrant's.
    Run,
    /// A run's above it, whose money a sub-run spends as well: that run's warrant's.
    RunAbove,
    /// The agent's, over a period.
    Agent,
    /// The project's that the run's repository is in, over a period.
    Project,
    /// The person's who started the run, over a period.
    Person,
    /// The org's, over a period.
    Org,
}

impl BudgetScope {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::RunAbove => "run_above",
            Self::Agent => "agent",
            Self::Project => "project",
            Self::Person => "person",
            Self::Org => "org",
        }
    }

    /// For a sentence: the budget of the ….
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::RunAbove => "run above this one",
            other => other.as_str(),
        }
    }
}

impl fmt::Display for BudgetScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the ledger says to a [`ChargeRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeAnswer {
    /// This much is reserved; durable.
    Granted(MicroUsd),
    /// Not enough is free now, but calls under way hold reservations: ask again when one was settled.
    Wait,
    /// This budget is spent.
    Exhausted {
        /// Whose.
        scope: BudgetScope,
        /// How much it was.
        limit: MicroUsd,
        /// How much of it is spent.
        spent: MicroUsd,
    },
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// The provider answered to the end.
    Complete,
    /// The stream broke, or was cut: what was received is settled.
    Aborted,
    /// The provider answered with an error, or was not reached: nothing was used.
    Failed,
}

impl CallOutcome {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
        }
    }
}

/// What a call used in the end. Settles its reservation; settling twice settles once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargeSettlement {
    /// The call.
    pub call: RowId,
    /// The upstream that served the call, where it is another than the provider that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The model that answered, where the provider names another one than was asked for.
    pub model: String,
    /// What it used.
    pub usage: Usage,
    /// What that costs.
    pub cost: MicroUsd,
    /// Whether the price table did not know the model: the cost is the dearest known price of the provider.
    pub price_unknown: bool,
    /// Whether the usage is our estimate, since the provider's own figures did not arrive.
    pub estimated: bool,
    /// How it ended.
    pub outcome: CallOutcome,
    /// The HTTP status of the provider; 0 when there was none.
    pub status: u16,
    /// From the request to its end, in milliseconds.
    pub duration_ms: u64,
}

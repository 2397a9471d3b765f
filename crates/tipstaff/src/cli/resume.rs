//! `tipstaff runs resume`.

use super::{RunChoice, ScreenArgs, parse_budget, parse_duration_ms, parse_privacy};
use clap::Args;
use tipstaff_model::{MicroUsd, PrivacyClass};

/// `tipstaff runs resume`
#[derive(Debug, Args)]
#[command(after_help = "\
A run that is paused goes on. A run that has ended, however it ended, is continued by a new run: the same agent goes on in \
its session and with its files, on the same base, under a new warrant, with its own budget and time. The result of the new \
run holds the work of both.

Continuing needs an engine that can (docs/engines.md) and a run of the class org, whose session is kept, sealed, on this \
machine. Everything else is as it was in the earlier run, unless an option says otherwise.

Examples:
  tipstaff runs resume 0a1b2c3d
  tipstaff runs resume 0a1b2c3d 'the tests fail: look at them' --budget 3 --timeout 20m
  tipstaff runs resume 0a1b2c3d --attended")]
pub(crate) struct ResumeArgs {
    /// A run's id, or its last digits (at least four) [default: the latest run]
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// What the agent of a run that has ended is told; - reads it from standard input [default: to go on]
    #[arg(value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// How much money the new run may spend, in US dollars [default: as the earlier one]
    #[arg(long, value_name = "USD", value_parser = parse_budget, allow_hyphen_values = true)]
    pub(crate) budget: Option<MicroUsd>,
    /// How long the new run may take, from 1s to 24h [default: as the earlier one]
    #[arg(long, value_name = "DUR", value_parser = parse_duration_ms, allow_hyphen_values = true)]
    pub(crate) timeout: Option<u64>,
    /// Speak with the agent while it works, also where the earlier run was not attended
    #[arg(long)]
    pub(crate) attended: bool,
    /// What is kept of the new run's session: org, meta [default: as the earlier one]
    #[arg(long, value_name = "CLASS", value_parser = parse_privacy)]
    pub(crate) privacy: Option<PrivacyClass>,
    #[command(flatten)]
    pub(crate) screen: ScreenArgs,
}

impl ResumeArgs {
    /// Which run.
    pub(crate) fn choice(&self) -> RunChoice {
        RunChoice { run: self.run.clone() }
    }

    /// Whether something was said that only a new run has.
    pub(crate) const fn begins_anew(&self) -> bool {
        self.text.is_some()
            || self.budget.is_some()
            || self.timeout.is_some()
            || self.attended
            || self.privacy.is_some()
    }
}

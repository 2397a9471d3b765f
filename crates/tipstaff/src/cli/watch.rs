//! `tipstaff watch` and `tipstaff runs replay`.

use super::{RunChoice, parse_duration_ms, parse_speed};
use clap::Args;
use std::path::PathBuf;

/// How a run is shown.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ScreenArgs {
    /// Show the screen, also where TERM says that the terminal is dumb
    #[arg(long, conflicts_with = "plain")]
    pub(crate) tui: bool,
    /// Write lines, also at a terminal
    #[arg(long)]
    pub(crate) plain: bool,
}

impl ScreenArgs {
    /// `(--tui, --plain)`
    pub(crate) const fn chosen(self) -> (bool, bool) {
        (self.tui, self.plain)
    }
}

/// `tipstaff watch`
#[derive(Debug, Args)]
#[command(after_help = "\
At a terminal it is a screen: what the run does, what it costs, what it was refused, and what waits for your answer. \
Keys: a allow once, r allow for this run, p allow for a pattern of paths, n no, v the whole action, m tell the agent \
something, i interrupt, space pause and go on, c cancel, d change, b blocked, ? help, q leave. Leaving it, or losing the \
terminal, changes nothing about the run: a question that nobody answers in time means no.

Elsewhere it writes lines until the run ends, as `tipstaff runs logs --follow`.

Examples:
  tipstaff watch                 the run that goes on; a list when there are several
  tipstaff watch 9a004315        this one, also when it has ended
  tipstaff watch --plain | tee run.log")]
pub(crate) struct WatchArgs {
    /// A run's id, or its last digits (at least four) [default: the one that goes on]
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) screen: ScreenArgs,
}

/// The form of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ReplayFormat {
    /// On this terminal, in time.
    Terminal,
    /// A recording in asciicast version 2, for players of terminal sessions.
    Asciicast,
}

/// `tipstaff runs replay`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tipstaff runs replay --speed 4
  tipstaff runs replay 9a004315 --format asciicast --output session.cast --max-idle 2s")]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    pub(crate) run: RunChoice,
    /// How many times as fast as it was; 0 for without pauses. Pauses are cut to 3 s
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = parse_speed)]
    pub(crate) speed: f64,
    /// In which form: terminal, asciicast
    #[arg(long, value_name = "FORM", default_value = "terminal")]
    pub(crate) format: ReplayFormat,
    /// The recording goes into this file [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Longer pauses of the recording are cut to this, from 1s to 24h [default: none is cut]
    #[arg(long, value_name = "DUR", value_parser = parse_duration_ms)]
    pub(crate) max_idle: Option<u64>,
}

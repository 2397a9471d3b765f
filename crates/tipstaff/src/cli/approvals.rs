//! The part of the command line about questions to a person, and about telling a run something.

use super::{RunChoice, parse_path_pattern};
use clap::{Args, Subcommand};
use tipstaff_model::budget::CalendarDay;
use tipstaff_model::span::span_ms;
use tipstaff_model::warrant::PathPattern;

/// `tipstaff approvals …`
#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// Questions that wait for an answer, newest first
    #[command(after_help = "\
Examples:
  tipstaff approvals list
  tipstaff approvals list --run 0a1b2c3d --all")]
    List {
        /// Only those of this run: its id, or its last digits (at least four)
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
        /// Also those that were answered, ran out of time or were taken back
        #[arg(long)]
        all: bool,
        /// At most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// One question: the exact action, how much it can break and why, what is left of its time
    Show {
        /// The question's id, or its last digits (at least four)
        #[arg(value_name = "APPROVAL")]
        approval: String,
    },
    /// Say yes: the agent does it, once
    #[command(after_help = "\
A yes is for the exact action that is shown, under the warrant that is in force, and is used once. With --for-run it also \
covers the same kind and tool with the same commands, paths and hosts until the run ends; with --path, changes to matching \
files. Neither covers a higher risk than the one that was answered, nor a critical action.

Owners, admins and members of the org answer. A critical action that you asked for yourself is allowed by somebody else; \
where you are alone, by you with --reason.

Exit code 1 with the code approval-decided, approval-expired or approval-withdrawn when it is too late; 3 with \
approval-digest or approval-forbidden when it is not for you to allow.

Examples:
  tipstaff approvals allow 0a1b2c3d
  tipstaff approvals allow 0a1b2c3d --for-run --until 30m
  tipstaff approvals allow 0a1b2c3d --path 'src/**' --path 'docs/*.md'
  tipstaff approvals allow 0a1b2c3d --digest 3f9c21d07ab4 --json")]
    Allow(AllowArgs),
    /// End the further reach of a yes: it covers no other question from now on
    #[command(after_help = "\
Examples:
  tipstaff approvals end 0a1b2c3d          what --for-run or --path had covered is asked about again")]
    End {
        /// The question's id, or its last digits (at least four)
        #[arg(value_name = "APPROVAL")]
        approval: String,
    },
    /// Say no: the agent is told so, with the reason
    #[command(after_help = "\
Examples:
  tipstaff approvals deny 0a1b2c3d
  tipstaff approvals deny 0a1b2c3d --reason 'use the test database'")]
    Deny {
        /// The question's id, or its last digits (at least four)
        #[arg(value_name = "APPROVAL")]
        approval: String,
        /// Why, in up to 1000 bytes; the agent is told
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Only if the action has this digest, or one that begins so (at least 8 digits)
        #[arg(long, value_name = "SHA256", value_parser = parse_digest)]
        digest: Option<String>,
    },
}

/// `tipstaff approvals allow`
#[derive(Debug, Args)]
pub(crate) struct AllowArgs {
    /// The question's id, or its last digits (at least four)
    #[arg(value_name = "APPROVAL")]
    pub(crate) approval: String,
    /// Also the same commands, paths and hosts by the same tool, until the run ends
    #[arg(long, conflicts_with = "path")]
    pub(crate) for_run: bool,
    /// Also changes to files that this pattern matches, such as 'src/**', until the run ends; may be given several times
    #[arg(long, value_name = "PATTERN", value_parser = parse_path_pattern)]
    pub(crate) path: Vec<PathPattern>,
    /// Until when --for-run or --path holds: a span such as 30m, or a moment in UTC such as 2026-11-22T18:30Z [default: the
    /// run's end]
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub(crate) until: Option<Moment>,
    /// Why, in up to 1000 bytes; kept in the log
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Only if the action has this digest, or one that begins so (at least 8 digits)
    #[arg(long, value_name = "SHA256", value_parser = parse_digest)]
    pub(crate) digest: Option<String>,
}

/// `tipstaff runs say`
#[derive(Debug, Args)]
#[command(after_help = "\
The agent reads it before its next turn, or at once where its engine can. Words are kept as typed until the agent has \
them; what looks like a secret is not in the story or the log.

Examples:
  tipstaff runs say 0a1b2c3d 'leave the migrations alone'
  tipstaff runs say 0a1b2c3d - < notes.md")]
pub(crate) struct SayArgs {
    /// The run: its id, or its last digits (at least four)
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// What to tell the agent, up to 16 KiB; - reads it from standard input
    #[arg(value_name = "TEXT")]
    pub(crate) text: String,
}

impl SayArgs {
    /// Which run.
    pub(crate) fn choice(&self) -> RunChoice {
        RunChoice { run: Some(self.run.clone()) }
    }
}

/// A moment, as a person says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So many milliseconds from now.
    In(u64),
    /// In milliseconds since the Unix epoch.
    At(i64),
}

impl Moment {
    /// In milliseconds since the Unix epoch.
    pub(crate) fn ms(self, now: i64) -> i64 {
        match self {
            Self::In(span) => now.saturating_add(i64::try_from(span).unwrap_or(i64::MAX)),
            Self::At(at) => at,
        }
    }
}

/// Reads a span (`30m`) or a moment in UTC: `2026-11-22T18:30Z`, with seconds or without, with a space for the T.
fn parse_moment(text: &str) -> Result<Moment, String> {
    const WRONG: &str = "write a span such as 30m, or a moment in UTC such as 2026-11-22T18:30Z";
    if let Ok(span) = span_ms(text) {
        return Ok(Moment::In(span));
    }
    let (date, clock) =
        text.strip_suffix('Z').unwrap_or(text).split_once(['T', ' ']).ok_or_else(|| WRONG.to_owned())?;
    let day: CalendarDay = date.parse().map_err(|_| WRONG.to_owned())?;
    let mut parts = clock.split(':').map(|part| {
        let digits = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<i64>().ok().filter(|_| digits)
    });
    let (hour, minute) = (parts.next().flatten(), parts.next().flatten());
    let second = parts.next().unwrap_or(Some(0));
    match (hour, minute, second, parts.next()) {
        (Some(hour @ 0..24), Some(minute @ 0..60), Some(second @ 0..60), None) => {
            let seconds = day.number() * 86_400 + hour * 3_600 + minute * 60 + second;
            Ok(Moment::At(seconds * 1_000))
        }
        _ => Err(WRONG.to_owned()),
    }
}

fn parse_digest(text: &str) -> Result<String, String> {
    let text = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let good = (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then_some(text).ok_or_else(|| "write 8 to 64 hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_spans_or_times_in_utc() {
        assert_eq!(parse_moment("30m"), Ok(Moment::In(1_800_000)));
        for text in ["2026-11-21T22:33:39Z", "2026-11-21 22:33:39", "2026-11-21 22:33:39Z"] {
            assert_eq!(parse_moment(text), Ok(Moment::At(1_795_300_419_000)), "{text}");
        }
        assert_eq!(parse_moment("1970-01-02T00:00Z"), Ok(Moment::At(86_400_000)));
        assert_eq!((Moment::In(5).ms(10), Moment::At(7).ms(10)), (15, 7));
        for bad in [
            "",
            "soon",
            "2026-11-21",
            "2026-11-21T24:00Z",
            "2026-11-21T1:00Z",
            "2026-11-21T10:60Z",
            "2026-02-30T10:00Z",
            "2026-11-21T10:00:00:00Z",
            "2026-11-21T10:00+02:00",
            "2026-11-21T-1:00",
        ] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_are_at_least_eight_digits() {
        assert_eq!(parse_digest("sha256:ABCDEF01"), Ok("abcdef01".to_owned()));
        for bad in ["", "abcdef0", "abcdefg0", &"0".repeat(65)] {
            assert!(parse_digest(bad).is_err(), "{bad}");
        }
    }
}

//! The part of the command line about how long sessions are kept.

use clap::Subcommand;
use tipstaff_model::PrivacyClass;

/// `tipstaff retention …`
#[derive(Debug, Subcommand)]
pub(crate) enum RetentionCommand {
    /// How long sessions of each privacy class are kept, and when the last sweep was
    Show,
    /// Set how long sessions of a class are kept after their run's end
    #[command(after_help = "\
Nothing is erased before it is set. When it is over, a sweep erases what was said and done (events, transcripts, questions,
errors, the prompt) and the change in quarantine, applied or not; the run with its counts and costs, its warrants and the
audit log stay. A sweep is done once a day after a run, by a worker, or by `tipstaff retention sweep`.

Examples:
  tipstaff retention set org 90d
  tipstaff retention set meta 1y
  tipstaff retention set org forever
  tipstaff retention sweep --dry-run")]
    Set {
        /// The class: org, meta
        #[arg(value_name = "CLASS", value_parser = super::parse_privacy)]
        class: PrivacyClass,
        /// How long: 90d, 12w, 1y, or forever
        #[arg(value_name = "TERM", value_parser = parse_term)]
        term: Term,
    },
    /// Erase now what is kept longer than that
    Sweep {
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
    },
}

/// How long something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Term {
    /// So many days.
    Days(u32),
    /// For ever.
    Forever,
}

/// Reads `90d`, `12w`, `1y` or `forever`; 1 day to 100 years.
fn parse_term(text: &str) -> Result<Term, String> {
    let wrong =
        || format!("'{}' is not a term: write 90d, 12w, 1y, at most 100y, or forever", text.escape_debug());
    if text == "forever" {
        return Ok(Term::Forever);
    }
    let unit = text.chars().last().ok_or_else(wrong)?;
    let days = match unit {
        'd' => 1,
        'w' => 7,
        'y' => 365,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u32 = number.parse().map_err(|_| wrong())?;
    let days = count.checked_mul(days).filter(|days| (1..=36_500).contains(days)).ok_or_else(wrong)?;
    Ok(Term::Days(days))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_exactly_or_refused() {
        assert_eq!(parse_term("90d"), Ok(Term::Days(90)));
        assert_eq!(parse_term("2w"), Ok(Term::Days(14)));
        assert_eq!(parse_term("1y"), Ok(Term::Days(365)));
        assert_eq!(parse_term("forever"), Ok(Term::Forever));
        for bad in ["", "d", "0d", "-1d", "90", "1m", "1.5d", "999999999999d", "101y", "d90", "9 d", "é"] {
            assert!(parse_term(bad).is_err(), "{bad}");
        }
    }
}

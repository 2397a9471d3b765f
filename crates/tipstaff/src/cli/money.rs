//! The part of the command line about keys and money.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use tipstaff_model::budget::{percent_of, percents_of};
use tipstaff_model::{BudgetActions, BudgetPeriod, CalendarDay, MicroUsd};

/// `tipstaff secrets …`
#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Seal a value: from standard input, or from a hidden prompt; never from the command line
    #[command(after_help = "\
Examples:
  tipstaff secrets set --provider anthropic              paste the key at the prompt
  pass show openai | tipstaff secrets set --provider openai
  tipstaff secrets set --git github.com < token          for `tipstaff runs publish`
  tipstaff secrets set --git github.com --app 123456 < app.private-key.pem
  tipstaff secrets set github-token --host api.github.com --path '/repos/team/**'
  tipstaff run --secret github-token …                   the run has GITHUB_TOKEN, a handle worth nothing elsewhere")]
    Set {
        #[command(flatten)]
        which: SecretChoice,
        /// The user name that goes with the token of --git [default: x-access-token]
        #[arg(long, value_name = "NAME")]
        username: Option<String>,
        /// The value is the private key (PEM) of the app of --git with this number or client id; each push then has a
        /// token of its own, for its repository alone, which is taken back after it
        #[arg(long, value_name = "ID", requires = "git", conflicts_with = "username")]
        app: Option<String>,
        /// The address of the forge's REST interface [default: https://api.github.com, or https://HOST/api/v3]
        #[arg(long, value_name = "URL", requires = "app")]
        api: Option<String>,
        #[command(flatten)]
        binding: Box<super::BindingArgs>,
    },
    /// The names of all secrets; never a value
    List,
    /// Remove one
    Remove {
        #[command(flatten)]
        which: SecretChoice,
    },
}

/// Which secret.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SecretChoice {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The key of a provider of models: anthropic, openai, gemini, or the name of an upstream
    #[arg(long, value_name = "PROVIDER")]
    pub(crate) provider: Option<String>,
    /// The token that pushes to a git host: github.com, git.example.com:8443
    #[arg(long, value_name = "HOST")]
    pub(crate) git: Option<String>,
}

/// `tipstaff prices …`
#[derive(Debug, Subcommand)]
pub(crate) enum PricesCommand {
    /// The prices in force, with their version, date and hash; of all models or of one
    Show {
        /// The model, as MODEL or PROVIDER/MODEL
        #[arg(value_name = "MODEL")]
        model: Option<String>,
    },
    /// Replace the price table by a file: one that `prices show --json` printed, changed by you, or LiteLLM's
    /// model_prices_and_context_window_backup.json
    Update {
        /// The file
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Go back to the table that comes with the program
    Reset,
}

/// `tipstaff budgets …`
#[derive(Debug, Subcommand)]
pub(crate) enum BudgetsCommand {
    /// All budgets over a period, and how much of each is spent
    List,
    /// Set a budget over a period of the calendar, in UTC; every run has its own budget besides
    #[command(after_help = "\
Examples:
  tipstaff budgets set --org --per month 200
  tipstaff budgets set --agent claude-builder --per day 5.50
  tipstaff budgets set --project web --per week 50 --notify 50,90 --slow 90
  tipstaff budgets set --person ann --per month 20 --stop never

A budget that is changed keeps the actions that are not named. --slow lets its model calls come one at a time, with a \
pause that grows from 1 s to 30 s. People are told in the run's story, at the terminal, in the audit log, and by \
[notify] command of config.toml.")]
    Set {
        #[command(flatten)]
        which: BudgetChoice,
        /// How much, in US dollars, above 0 and at most 1000000
        #[arg(value_name = "USD", value_parser = super::parse_budget, allow_hyphen_values = true)]
        amount: MicroUsd,
        #[command(flatten)]
        actions: ActionChoice,
    },
    /// Remove a budget
    Remove {
        #[command(flatten)]
        which: BudgetChoice,
    },
}

/// Whose budget, over which period.
#[derive(Debug, Args)]
pub(crate) struct BudgetChoice {
    #[command(flatten)]
    pub(crate) holder: HolderChoice,
    /// The period: day, week (from Monday) or month
    #[arg(long, value_name = "PERIOD", value_parser = parse_period)]
    pub(crate) per: BudgetPeriod,
}

/// Whose budget.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct HolderChoice {
    /// Of everybody in your org together
    #[arg(long)]
    pub(crate) org: bool,
    /// Of the runs on the repositories of one project together
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Of the runs that one person started, together: by name or id, or `me`
    #[arg(long, value_name = "PERSON")]
    pub(crate) person: Option<String>,
    /// Of the runs of one agent together
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
}

/// What happens at which share of a budget.
#[derive(Debug, Args)]
pub(crate) struct ActionChoice {
    /// Tell people at these shares, in percent, or never [default: 50,80,100]
    #[arg(long, value_name = "PERCENT,…", value_parser = parse_shares)]
    notify: Option<Shares>,
    /// Slow model calls down from this share on, in percent, or never [default: never]
    #[arg(long, value_name = "PERCENT", value_parser = parse_share)]
    slow: Option<Share>,
    /// Refuse model calls from this share on, in percent, or never [default: 100]
    #[arg(long, value_name = "PERCENT", value_parser = parse_share)]
    stop: Option<Share>,
}

/// Shares of a budget, in percent.
#[derive(Debug, Clone)]
pub(crate) struct Shares(Vec<u16>);

/// A share of a budget, in percent, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share(Option<u16>);

impl ActionChoice {
    /// The actions, where not all are named with those that there are.
    pub(crate) fn over(self, known: BudgetActions) -> BudgetActions {
        BudgetActions {
            notify: self.notify.map_or(known.notify, |shares| shares.0),
            slow: self.slow.map_or(known.slow, |share| share.0),
            stop: self.stop.map_or(known.stop, |share| share.0),
        }
    }
}

fn parse_shares(text: &str) -> Result<Shares, String> {
    percents_of(text).map(Shares).map_err(|error| error.to_string())
}

fn parse_share(text: &str) -> Result<Share, String> {
    percent_of(text).map(Share).map_err(|error| error.to_string())
}

/// `tipstaff costs`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tipstaff costs
  tipstaff costs --by agent --since 7d
  tipstaff costs --by project
  tipstaff costs --by day --since 2026-01-01 --csv > costs.csv")]
pub(crate) struct CostsArgs {
    /// By what
    #[arg(long, value_enum, default_value_t = CostsBy::Model)]
    pub(crate) by: CostsBy,
    /// From which day on: as many days ago (30d: today and the 29 before), or YYYY-MM-DD; in UTC
    #[arg(long, value_name = "SINCE", default_value = "30d", value_parser = parse_since)]
    pub(crate) since: Since,
    /// As comma-separated values
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
}

/// By what costs are summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CostsBy {
    /// Provider and model
    Model,
    /// The agent's name
    Agent,
    /// The project of the repository
    Project,
    /// Who started the run
    Person,
    /// The day
    Day,
}

impl CostsBy {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Agent => "agent",
            Self::Project => "project",
            Self::Person => "person",
            Self::Day => "day",
        }
    }
}

/// The first day of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// This many days, today included.
    Days(i64),
    /// This day.
    Day(CalendarDay),
}

impl Since {
    /// The day, seen from today.
    pub(crate) fn day(self, today: CalendarDay) -> CalendarDay {
        match self {
            Self::Days(days) => today.before(days - 1),
            Self::Day(day) => day,
        }
    }
}

fn parse_period(text: &str) -> Result<BudgetPeriod, String> {
    text.parse().map_err(|error: tipstaff_model::budget::BudgetPeriodError| error.to_string())
}

fn parse_since(text: &str) -> Result<Since, String> {
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok()) {
        return match days {
            1..=36_500 => Ok(Since::Days(days)),
            _ => Err("write 1d to 36500d".to_owned()),
        };
    }
    text.parse::<CalendarDay>()
        .map(Since::Day)
        .map_err(|_| "write a number of days such as 30d, or a day as YYYY-MM-DD".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_begins_where_it_was_told() {
        let today: CalendarDay = "2026-03-01".parse().unwrap();
        let day = |text: &str| parse_since(text).unwrap().day(today).to_string();
        assert_eq!(
            (day("1d"), day("30d"), day("2026-02-03")),
            ("2026-03-01".into(), "2026-01-31".into(), "2026-02-03".into())
        );
        for bad in ["", "0d", "-1d", "d", "36501d", "2026-02-30", "yesterday"] {
            assert!(parse_since(bad).is_err(), "{bad}");
        }
    }
}

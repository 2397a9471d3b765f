//! The part of the command line about models: which may be asked, and who serves them.

use clap::{Args, Subcommand};
use tipstaff_model::OfferPattern;

/// `tipstaff models …`
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Every provider: what it speaks, where it is, where its key comes from; its models, whether they may be asked, who
    /// serves them, what they cost
    #[command(after_help = "\
Without --all, of each provider only the models that an engine asks, that a rule names, or that PATTERN means.

Examples:
  tipstaff models list
  tipstaff models list 'anthropic/claude-*'
  tipstaff models list --project site --json")]
    List {
        /// Only these: PROVIDER/MODEL, PROVIDER/START*, MODEL, START*
        #[arg(value_name = "PATTERN", value_parser = parse_pattern)]
        pattern: Option<OfferPattern>,
        /// As a project of your org sees it
        #[arg(long, value_name = "NAME")]
        project: Option<String>,
        /// Every model that the price table knows
        #[arg(long)]
        all: bool,
    },
    /// Let these be asked, and none that no rule lets
    #[command(after_help = "\
As soon as one is allowed, no others are: in your whole org, or in one project of it. A project never gets more than \
its org, nor an org more than the operator's [models] in config.toml. What is denied stays denied. Runs that are under \
way keep their warrants.

Examples:
  tipstaff models allow 'anthropic/*'
  tipstaff models allow anthropic/claude-sonnet-5-5 --project site
  tipstaff models deny 'claude-opus-*'
  tipstaff models forget 'anthropic/*'")]
    Allow {
        #[command(flatten)]
        which: RuleChoice,
    },
    /// Let these not be asked, whatever is allowed
    Deny {
        #[command(flatten)]
        which: RuleChoice,
    },
    /// Remove a rule
    Forget {
        #[command(flatten)]
        which: RuleChoice,
    },
    /// Say which upstream serves these models
    #[command(after_help = "\
An upstream is a provider, or a name of [upstreams] in config.toml; it must speak what the provider of the models \
speaks. A route of a project comes before one of the org, that before [routes] of config.toml, and a closer pattern \
before a wider one. --fallback serves when the one before can't be reached or answers with 5xx before its answer began; \
what is charged is what really served.

Examples:
  tipstaff models route 'claude-*' bedrock-proxy
  tipstaff models route openai/gpt-5.5 azure --model gpt-5-prod --fallback openai
  tipstaff models unroute 'claude-*'")]
    Route {
        #[command(flatten)]
        which: RuleChoice,
        /// The upstream
        #[arg(value_name = "UPSTREAM")]
        upstream: String,
        /// The model's name there, where it is another
        #[arg(long, value_name = "NAME")]
        model: Option<String>,
        /// Who serves when it can't: UPSTREAM or UPSTREAM/MODEL, in order, at most three
        #[arg(long, value_name = "UPSTREAM")]
        fallback: Vec<String>,
    },
    /// Remove a route
    Unroute {
        #[command(flatten)]
        which: RuleChoice,
    },
    /// Ask a provider for its list of models, with the key that a run would use
    Test {
        /// The provider, or the name of an upstream
        #[arg(value_name = "PROVIDER")]
        provider: String,
    },
}

/// Which models, for whom.
#[derive(Debug, Args)]
pub(crate) struct RuleChoice {
    /// PROVIDER/MODEL, PROVIDER/START*, or MODEL or START* of any provider; '*' for all
    #[arg(value_name = "PATTERN", value_parser = parse_pattern)]
    pub(crate) pattern: OfferPattern,
    /// For one project of your org [default: your whole org]
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
}

fn parse_pattern(text: &str) -> Result<OfferPattern, String> {
    text.parse::<OfferPattern>().map_err(|error| error.to_string())
}

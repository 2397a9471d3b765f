//! What can be said about policies: narrowing, explaining, learning.

use super::{
    CheckArgs, HolderArgs, JudgeArgs, RunArgs, SetArgs, SimulateArgs, TestArgs, parse_budget,
    parse_duration_ms, parse_host,
};
use clap::{Args, Subcommand};
use tipstaff_model::MicroUsd;
use tipstaff_model::span::span_ms;
use tipstaff_model::warrant::{HostChoice, PathPattern};

/// `tipstaff warrants narrow`
#[derive(Debug, Args)]
#[command(after_help = "\
The narrower warrant is signed and takes the place of the one in force; the run learns it with its next heartbeat, \
within 5 seconds. Connections that it would not have admitted are closed. Nothing widens a warrant again.

Examples:
  tipstaff warrants narrow 019aa1b2-… --drop-host pastebin.com
  tipstaff warrants narrow 019aa1b2-… --no-push --budget 0.50
  tipstaff warrants narrow 019aa1b2-… --protect 'src/auth/**' --timeout 5m")]
pub(crate) struct NarrowArgs {
    /// The warrant's id
    pub(crate) warrant: String,
    /// A host that may not be reached any more, on any port unless one is given; or a class such as registry:npm
    #[arg(long, value_name = "HOST", value_parser = parse_dropped_host)]
    pub(crate) drop_host: Vec<DroppedHost>,
    /// A model that may not be asked any more, as PROVIDER/MODEL
    #[arg(long, value_name = "P/M")]
    pub(crate) drop_model: Vec<String>,
    /// A secret that may not be used any more
    #[arg(long, value_name = "NAME")]
    pub(crate) drop_secret: Vec<String>,
    /// Nothing may be pushed any more; what was pushed stays in quarantine
    #[arg(long)]
    pub(crate) no_push: bool,
    /// Paths that no push may change any more, such as 'src/auth/**'
    #[arg(long, value_name = "PATTERN", value_parser = parse_path)]
    pub(crate) protect: Vec<PathPattern>,
    /// How much the run may spend in all, in US dollars: at most what it may now
    #[arg(long, value_name = "USD", value_parser = parse_budget, allow_hyphen_values = true)]
    pub(crate) budget: Option<MicroUsd>,
    /// How long the run may go on from now: 90s, 10m, 1h30m
    #[arg(long, value_name = "DUR", value_parser = parse_duration_ms, allow_hyphen_values = true)]
    pub(crate) timeout: Option<u64>,
}

impl NarrowArgs {
    /// Whether nothing at all is asked for.
    pub(crate) const fn is_empty(&self) -> bool {
        self.drop_host.is_empty()
            && self.drop_model.is_empty()
            && self.drop_secret.is_empty()
            && !self.no_push
            && self.protect.is_empty()
            && self.budget.is_none()
            && self.timeout.is_none()
    }
}

/// A host to take away, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DroppedHost {
    /// What it stands for.
    pub(crate) choice: HostChoice,
    /// Whether a port was written; without one all ports are meant.
    pub(crate) has_port: bool,
}

fn parse_dropped_host(text: &str) -> Result<DroppedHost, String> {
    let choice = parse_host(text)?;
    let has_port = match choice {
        HostChoice::Host(_) => text.contains(':'),
        HostChoice::Class(_) => true,
    };
    Ok(DroppedHost { choice, has_port })
}

fn parse_path(text: &str) -> Result<PathPattern, String> {
    text.parse().map_err(|error: tipstaff_model::warrant::PatternError| error.to_string())
}

/// `tipstaff policy …`
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// What a warrant, a role or a run with these options may do, and which rule says so
    #[command(after_help = "\
Questions, each with --can:
  'read OWNER/NAME'          a repository          'reach HOST[:PORT]'        a connection to a host
  'write PATH'               a path in a push      'request METHOD URL'       one request
  'push REF'                 a ref                 'call URL#TOOL'            a tool of an MCP endpoint
  'exec'                     what the run made     'use SECRET URL'           a secret in a request
  'spend USD'                money, in all         'ask PROVIDER/MODEL'       a model
The exit code is 0 when every answer is yes and 3 when one is no.

Examples:
  tipstaff policy explain --role builder
  tipstaff policy explain --run 3f2a91c0
  tipstaff policy explain --agent claude-builder --allow-host registry:npm
  tipstaff policy explain --role builder --can 'write .github/workflows/ci.yml' --can 'reach api.github.com:443'")]
    Explain(Box<ExplainArgs>),
    /// Set the policy of your org or of a project
    Set(SetArgs),
    /// The policies of your org and its projects, as they were written
    Show,
    /// Take the policy of your org or of a project away
    Unset(HolderArgs),
    /// Whether a policy is one, what its rules mean, and what is odd about them
    Check(CheckArgs),
    /// What would be done with one action, by which rules, and what it risks
    Judge(Box<JudgeArgs>),
    /// Judge a file of cases and compare
    Test(TestArgs),
    /// What past runs would have been asked or denied under a candidate
    Simulate(SimulateArgs),
}

/// `tipstaff policy explain`
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A warrant that was issued, by its id
    #[arg(long, value_name = "ID", conflicts_with = "of_run")]
    pub(crate) warrant: Option<String>,
    /// The warrant of a run: the run's id, or its last digits
    #[arg(long = "run", id = "of_run", value_name = "RUN")]
    pub(crate) of_run: Option<String>,
    /// A question; see below
    #[arg(long, value_name = "QUESTION")]
    pub(crate) can: Vec<String>,
    #[command(flatten)]
    pub(crate) options: RunArgs,
}

/// `tipstaff runs learn`
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is granted by this. What you accept, you give to the next run yourself, option by option or as a file that \
you read first: tipstaff run --allow-from FILE.

Examples:
  tipstaff runs learn                                    the latest run
  tipstaff runs learn --since 30d --agent claude-builder
  tipstaff runs learn --since 7d --toml > ~/allow.toml")]
pub(crate) struct LearnArgs {
    /// Runs, by their ids or last digits [default: the latest run]
    #[arg(value_name = "RUN", conflicts_with = "since")]
    pub(crate) runs: Vec<String>,
    /// All runs that began within this time: 90m, 24h, 30d
    #[arg(long, value_name = "DUR", value_parser = parse_since)]
    pub(crate) since: Option<u64>,
    /// Only runs of this agent
    #[arg(long, value_name = "NAME", requires = "since")]
    pub(crate) agent: Option<String>,
    /// Propose *.example.com where several of its subdomains were wanted
    #[arg(long)]
    pub(crate) wildcards: bool,
    /// As a file for `tipstaff run --allow-from`
    #[arg(long)]
    pub(crate) toml: bool,
}

/// Reads `90m`, `24h` or `30d`, in milliseconds; at most ten years.
pub(super) fn parse_since(text: &str) -> Result<u64, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
    match days {
        Some(days @ 1..=3650) => Ok(days * 24 * 60 * 60 * 1_000),
        Some(_) => Err("write 1d to 3650d".to_owned()),
        None => span_ms(text).map_err(|error| error.to_string()),
    }
}

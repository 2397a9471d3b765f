//! The command line: what can be said, and its manual.

mod approvals;
mod models;
mod money;
mod policies;
mod policy;
mod projects;
mod publish;
mod resume;
mod retention;
mod setup;
mod watch;
mod ways;

pub(crate) use approvals::{AllowArgs, ApprovalsCommand, SayArgs};
pub(crate) use models::{ModelsCommand, RuleChoice};
pub(crate) use money::{
    BudgetChoice, BudgetsCommand, CostsArgs, CostsBy, PricesCommand, SecretChoice, SecretsCommand,
};
pub(crate) use policies::{
    CheckArgs, HolderArgs, JudgeArgs, PolicyArgs, SetArgs, SimulateArgs, SubjectArgs, TestArgs,
};
pub(crate) use policy::{DroppedHost, ExplainArgs, LearnArgs, NarrowArgs, PolicyCommand};
pub(crate) use projects::ProjectsCommand;
pub(crate) use publish::{ProvenanceCommand, PublishArgs};
pub(crate) use resume::ResumeArgs;
pub(crate) use retention::{RetentionCommand, Term};
pub(crate) use setup::SetupCommand;
pub(crate) use watch::{ReplayArgs, ReplayFormat, ScreenArgs, WatchArgs};
pub(crate) use ways::{BindingArgs, WaysArgs};

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use tipstaff_model::span::span_ms;
use tipstaff_model::{AgentRole, EngineKind, MicroUsd, PrivacyClass, WarrantKind};

const ABOUT: &str = "Run AI coding agents under a warrant";

const LONG_ABOUT: &str = "\
Tipstaff runs AI coding agents, and any command, on a git repository without handing them the keys.

Every run happens under a warrant: one short-lived, signed, least-privilege grant over repository, branch, paths, \
tools, network, models, budget and time. The operating system's sandbox and the broker enforce it; a tamper-evident \
log proves it. Your working tree is never touched: the run works in a disposable workspace, and its change waits in \
quarantine until you look at it, apply it or discard it.";

const AFTER_HELP: &str = "\
Exit codes:
  0  done                      4  the budget was spent
  1  the work failed           5  timed out
  2  wrong usage               6  a person's input is needed
  3  refused by policy,        7  internal error
     warrant or sandbox

Environment:
  TIPSTAFF_HOME                 where all state lives [~/.local/share/tipstaff]
  TIPSTAFF_DATABASE_URL         postgres://… instead of the embedded SQLite file
  TIPSTAFF_DATABASE_OWNER_URL   the database's owner, to prepare and migrate it
  TIPSTAFF_ENCRYPTION_KEY       the ring's key, 64 hex digits, instead of a file
  TIPSTAFF_KEYCHAIN             1: the ring's key is in the system's keychain
  NO_COLOR                      no colours
  TERM                          dumb, or not set: lines instead of a screen

First steps:
  tipstaff doctor                                        what this machine offers
  tipstaff run -- sh -c 'echo hello >> README.md'        a command works under a warrant
  tipstaff runs diff                                     look at its change
  tipstaff runs apply                                    merge it into your branch
  tipstaff runs publish                                  or push it upstream, signed
  tipstaff audit verify                                  prove the log";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "tipstaff", version, about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER_HELP)]
#[command(propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print one JSON object (or one per line) on standard output instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command or an agent on a repository, under a warrant
    Run(Box<RunArgs>),
    /// Watch a run that goes on; answer its questions, steer it
    Watch(WatchArgs),
    /// Look at runs; apply or discard their changes
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Look at warrants in force; narrow or revoke one
    #[command(subcommand)]
    Warrants(WarrantsCommand),
    /// What agents ask you, and your answers
    #[command(subcommand)]
    Approvals(ApprovalsCommand),
    /// What may be done, and which rule says so
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Look at the agents of your org; make your own
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// Carry out queued tasks until told to stop
    Worker(WorkerArgs),
    /// Try the sandbox by itself
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Read, verify and export the audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Prove where a commit came from: signature, warrant and audit log
    #[command(subcommand)]
    Provenance(ProvenanceCommand),
    /// The keys that seal secrets at rest
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Keys of models' providers and other values, sealed in the store
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Which models may be asked, who serves them, and with whose key
    #[command(subcommand)]
    Models(ModelsCommand),
    /// What models cost, and your own price table
    #[command(subcommand)]
    Prices(PricesCommand),
    /// Repositories whose money is counted together
    #[command(subcommand)]
    Projects(ProjectsCommand),
    /// How much your org, its projects, people and agents may spend in a day, a week or a month
    #[command(subcommand)]
    Budgets(BudgetsCommand),
    /// What was spent, by model, agent, project, person or day
    Costs(CostsArgs),
    /// How long sessions are kept, by privacy class; erasing what is kept too long
    #[command(subcommand)]
    Retention(RetentionCommand),
    /// What set-ups of repositories made, kept for later runs
    #[command(subcommand)]
    Setup(SetupCommand),
    /// Take secrets out of text, from standard input to standard output
    Redact(RedactArgs),
    /// Prepare a PostgreSQL database
    #[command(subcommand)]
    Database(DatabaseCommand),
    /// Say what this machine offers and what is missing
    Doctor,
    /// Print a completion script for your shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    Man {
        /// Into this folder; the main page goes to standard output without it
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Gives git the credential of a push that is under way
    #[command(name = tipstaff_broker::publish::HELPER_COMMAND, hide = true)]
    GitCredential {
        /// What git wants: get, store or erase
        operation: String,
    },
    /// Measurements for script/bench
    #[command(subcommand, hide = true)]
    Bench(BenchCommand),
}

/// `tipstaff run`
#[derive(Debug, Args)]
#[command(after_help = "\
The run's change ends on the branch agent/<role>-task-<id> in quarantine. Nothing of it reaches your repository until \
`tipstaff runs apply`.

At a terminal the run is shown on a screen of its own, with keys as in `tipstaff watch`; q goes on line by line, Ctrl-C \
ends the run and keeps its work. What it said stands in the terminal afterwards.

Examples:
  tipstaff run -- make test
  tipstaff run --repo ~/code/site --timeout 10m -- npm run build
  tipstaff run --role reviewer -- cargo test
  tipstaff run --protect 'migrations/**' -- make generate
  tipstaff run --agent claude-builder \"make the flaky test reliable\"
  tipstaff run --engine codex --budget 2 \"fix the typo in the README\"
  tipstaff run --agent claude-builder --attended \"update the dependencies\"
  tipstaff run --engine acp --model anthropic/claude-sonnet-5-5 \"fix the typo\" -- claude-agent-acp
  tipstaff run --under 3f9a1c2e --role reviewer --budget 0.50 --agent claude-builder \"look for races\"
  tipstaff run --dry-run -- true")]
pub(crate) struct RunArgs {
    /// The repository: a path, or a URL (https, or http on loopback) [default: ., with --under that of the run above]
    #[arg(long, value_name = "PATH|URL")]
    pub(crate) repo: Option<std::ffi::OsString>,
    /// The agent to use; see `tipstaff agents list`
    #[arg(long, value_name = "NAME", conflicts_with = "engine")]
    pub(crate) agent: Option<String>,
    /// The engine to use
    #[arg(long, value_name = "NAME", value_parser = parse_engine)]
    pub(crate) engine: Option<EngineKind>,
    /// The role whose template makes the warrant: manager, builder, cloud-engineer, reviewer, refiner, gardener
    /// [default: the agent's, else builder]
    #[arg(long, value_name = "ROLE", value_parser = parse_role)]
    pub(crate) role: Option<AgentRole>,
    /// The model to ask, as MODEL or PROVIDER/MODEL [default: the agent's, else the engine's]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Speak with the agent while it works: send it messages, interrupt it, be asked before it acts where a policy says
    /// so. A policy that asks or denies attends by itself, and so does the screen of a terminal
    #[arg(long)]
    pub(crate) attended: bool,
    /// Don't speak with the agent, although the run is shown on a screen; a policy that asks or denies is kept all the same
    #[arg(long, conflicts_with = "attended")]
    pub(crate) unattended: bool,
    /// How long you have to answer a question of the agent, from 1s to 24h; after that it means no [default: 5m]
    #[arg(long, value_name = "DUR", value_parser = parse_duration_ms, allow_hyphen_values = true)]
    pub(crate) ask_timeout: Option<u64>,
    /// Work under the warrant of this run, which is at work: a sub-run. Its own warrant is a narrowing of that one, what it
    /// spends is spent of both, and it ends with it. What is not asked for is at most what that run has
    #[arg(long, value_name = "RUN")]
    pub(crate) under: Option<String>,
    /// What to base on: a branch, tag or commit [default: HEAD]
    #[arg(long, value_name = "REF")]
    pub(crate) base: Option<String>,
    /// How much money the run may spend, in US dollars, above 0 and at most 1000000 [default: the role's]
    #[arg(long, value_name = "USD", value_parser = parse_budget, allow_hyphen_values = true)]
    pub(crate) budget: Option<MicroUsd>,
    /// How long the run may take, from 1s to 24h: 90s, 10m, 1h30m [default: the role's]
    #[arg(long, value_name = "DUR", value_parser = parse_duration_ms, allow_hyphen_values = true)]
    pub(crate) timeout: Option<u64>,
    /// A host that the run may reach: api.example.com, *.example.com, with :PORT for a port other than 443; or the
    /// hosts of a package registry: registry:npm, registry:crates, registry:pypi, registry:debian
    #[arg(long, value_name = "HOST", value_parser = parse_host)]
    pub(crate) allow_host: Vec<tipstaff_model::warrant::HostChoice>,
    /// Paths that the run may not change, such as 'db/**' or '**/*.sql', besides what its role and [push] in the base's
    /// tipstaff.toml protect; may be given several times
    #[arg(long, value_name = "PATTERN", value_parser = parse_path_pattern)]
    pub(crate) protect: Vec<tipstaff_model::warrant::PathPattern>,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) ways: WaysArgs,
    /// Hosts from a file that you reviewed, as `tipstaff runs learn --toml` writes it; not one in the repository
    #[arg(long, value_name = "FILE")]
    pub(crate) allow_from: Vec<PathBuf>,
    /// Say at the end what was refused and how it could be granted; nothing more passes than without it
    #[arg(long, conflicts_with_all = ["dry_run", "queue"])]
    pub(crate) learn: bool,
    /// What is kept of the session: org (your org can read it), meta (state, counts and sizes, no text), sealed (only your
    /// paired devices; not in this version) [default: run.privacy of config.toml, else org]
    #[arg(long, value_name = "CLASS", value_parser = parse_privacy)]
    pub(crate) privacy: Option<PrivacyClass>,
    /// Leave the repository's set-up out (.tipstaff/setup and [setup] in tipstaff.toml of the base)
    #[arg(long)]
    pub(crate) no_setup: bool,
    /// Do the repository's set-up even where what an earlier one made is kept
    #[arg(long, conflicts_with = "no_setup")]
    pub(crate) fresh_setup: bool,
    /// Print the warrant and the compiled rules; run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Queue the task for `tipstaff worker` and return
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) queue: bool,
    #[command(flatten)]
    pub(crate) screen: ScreenArgs,
    /// What the agent shall do
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: Option<String>,
    /// The command and its arguments, after --; with --engine acp, the agent's
    #[arg(last = true, value_name = "CMD")]
    pub(crate) cmd: Vec<String>,
}

/// `tipstaff runs …`
#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// Queued tasks and the latest runs, newest first
    List {
        /// At most this many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Only runs in this state
        #[arg(long, value_name = "STATE")]
        state: Option<tipstaff_model::RunState>,
    },
    /// One run: state, warrant, refusals, result
    Show {
        #[command(flatten)]
        run: RunChoice,
        /// Everything that was said and done, from the first event to the last
        #[arg(long)]
        transcript: bool,
    },
    /// What runs were refused, as a list of what could be granted to the next; for review, grants nothing
    Learn(LearnArgs),
    /// Watch the session of a run again
    Replay(ReplayArgs),
    /// The session of a run as a file
    Export {
        #[command(flatten)]
        run: RunChoice,
        /// In which form: jsonl, markdown
        #[arg(long, value_name = "FORM", default_value = "jsonl")]
        format: ExportFormat,
        /// Into this file [default: standard output]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// The change of a run against its base
    Diff {
        #[command(flatten)]
        run: RunChoice,
        /// Only names and counts
        #[arg(long)]
        stat: bool,
    },
    /// Bring a run's change into your repository
    Apply {
        #[command(flatten)]
        run: RunChoice,
        /// Into this repository [default: the one the run was made from]
        #[arg(long, value_name = "PATH")]
        repo: Option<PathBuf>,
        /// Merge into the current branch with a merge commit; this is the default
        #[arg(long = "no-ff", conflicts_with = "branch")]
        no_ff: bool,
        /// Only make a branch; your working tree is not touched. Named as the run's branch unless told otherwise
        #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
        branch: Option<String>,
    },
    /// Sign a run's commits and push them upstream as a new branch
    Publish(PublishArgs),
    /// Throw a run's change away
    Discard(RunChoice),
    /// End a run that is under way, or a queued task; work done so far is kept
    Cancel(RunChoice),
    /// Tell the agent of a run something while it works
    Say(SayArgs),
    /// End the agent's turn; it waits for what it is told next, and ends when there is nothing
    Interrupt(RunChoice),
    /// Make every process of a run stand still
    Pause(RunChoice),
    /// Let a paused run go on; continue a run that has ended by a new one, in the agent's session, under a new warrant
    Resume(Box<ResumeArgs>),
    /// What the command wrote
    Logs {
        #[command(flatten)]
        run: RunChoice,
        /// Go on until the run ends
        #[arg(long, short)]
        follow: bool,
    },
}

/// The form of an exported session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    /// One JSON object for each event.
    Jsonl,
    /// A page for people.
    Markdown,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|speed| (0.0..=1000.0).contains(speed))
        .ok_or_else(|| "write a number from 0 to 1000".to_owned())
}

/// Which run.
#[derive(Debug, Args)]
pub(crate) struct RunChoice {
    /// A run's id, or its last digits (at least four) [default: the latest run]
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
}

/// `tipstaff warrants …`
#[derive(Debug, Subcommand)]
pub(crate) enum WarrantsCommand {
    /// The warrants that are in force now
    List,
    /// A warrant as it was signed, with the verdict on its signature
    Show {
        /// The warrant's id
        warrant: String,
    },
    /// Take something away from a warrant in force, while its run goes on
    Narrow(Box<NarrowArgs>),
    /// Take a warrant out of force at once; its run ends within seconds
    Revoke {
        /// The warrant's id
        warrant: String,
    },
}

/// `tipstaff agents …`
#[derive(Debug, Subcommand)]
pub(crate) enum AgentsCommand {
    /// All agents of your org
    List,
    /// One agent and what its role grants
    Show {
        /// The agent's name
        name: String,
    },
    /// Make or change an agent
    Set {
        /// Its name: lower-case letters, digits and '-'
        name: String,
        /// Its role
        #[arg(long, value_parser = parse_role)]
        role: Option<AgentRole>,
        /// Its engine
        #[arg(long, value_parser = parse_engine)]
        engine: Option<EngineKind>,
        /// Its model
        #[arg(long)]
        model: Option<String>,
        /// Text for the agent
        #[arg(long)]
        instructions: Option<String>,
        /// The command of the engines `command` (the prompt becomes its last argument) and `acp`, after --
        #[arg(last = true, value_name = "CMD")]
        cmd: Vec<String>,
    },
}

/// `tipstaff worker`
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// How many runs at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) slots: u16,
    /// End when the queue is empty
    #[arg(long)]
    pub(crate) once: bool,
}

/// `tipstaff sandbox …`
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Run a command in the sandbox and see what an agent would see
    #[command(after_help = "\
The command's exit code is passed on; 128 + N when signal N ended it, 3 when the sandbox refused to start.
With --workspace the folder is /work inside, writable except for --kind refine. Without it /work is empty and goes \
away at the end.")]
    Exec {
        /// The folder to work in
        #[arg(long, value_name = "DIR")]
        workspace: Option<PathBuf>,
        /// The kind of warrant: refine, review, build, ops
        #[arg(long, value_name = "KIND", default_value = "build", value_parser = parse_kind)]
        kind: WarrantKind,
        /// How long it may take
        #[arg(long, value_name = "DUR", value_parser = parse_duration_ms, allow_hyphen_values = true)]
        timeout: Option<u64>,
        /// A host that it may reach
        #[arg(long, value_name = "HOST", value_parser = parse_host)]
        allow_host: Vec<tipstaff_model::warrant::HostChoice>,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        cmd: Vec<std::ffi::OsString>,
    },
    /// Try every layer of the sandbox and say whether it holds
    Probe,
}

/// `tipstaff audit …`
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// The latest records
    List {
        /// At most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Only records about this: run:ID, warrant:ID …, or the last digits of a run's id
        #[arg(long, value_name = "SUBJECT")]
        about: Option<String>,
    },
    /// Prove that nothing was changed, reordered or cut off
    Verify {
        /// A checkpoint that was exported earlier; the log must contain it
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// Verify an export instead of the database; needs no database at all
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
        /// The log's public key, for --export [default: the file FILE.key beside the export]
        #[arg(long, value_name = "VKEY")]
        key: Option<String>,
    },
    /// The whole log as JSON Lines, with what is needed to verify it offline
    Export {
        /// Into this file [default: standard output]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// The latest signed checkpoint; keep it somewhere else
    Checkpoint {
        /// Into this file [default: standard output]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

impl AuditCommand {
    /// Whether it needs no database.
    pub(crate) const fn is_offline(&self) -> bool {
        matches!(self, Self::Verify { export: Some(_), .. })
    }
}

/// `tipstaff keys …`
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// The keys of your org's ring and how much each seals
    List,
    /// Make a new key and seal everything with it again; safe while runs go on, and goes on where it was interrupted
    Rotate,
}

/// `tipstaff redact`
#[derive(Debug, Args)]
#[command(after_help = "\
What is found becomes [redacted:<rule>]. Text flows as it comes; only what may be the beginning of a secret waits.
The exit code is 0 whether something was found or not; 1 when a file can't be read, 2 for wrong usage. With --json the
report is one object a line on standard error: rule, offset, length and, for files, file.

Examples:
  make 2>&1 | tipstaff redact
  tipstaff redact --report session.jsonl > clean.jsonl")]
pub(crate) struct RedactArgs {
    /// Say on standard error which rule found something at which byte of the input; never the value
    #[arg(long)]
    pub(crate) report: bool,
    /// Files to read one after the other [default: standard input]
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// `tipstaff database …`
#[derive(Debug, Subcommand)]
pub(crate) enum DatabaseCommand {
    /// Make the two roles and the schema; running it again does no harm
    #[command(after_help = "\
TIPSTAFF_DATABASE_OWNER_URL is the address of a role that owns the database and may make roles; TIPSTAFF_DATABASE_URL \
is the address that tipstaff uses afterwards, with the user tipstaff_app. Its password, where it has one, becomes the \
password of both roles. Both are read from the environment, so that no password shows among the processes.")]
    Prepare,
}

/// `tipstaff bench …`
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Sandbox start against the same bubblewrap arguments alone
    Sandbox {
        /// Rounds
        #[arg(long, default_value_t = 40)]
        rounds: u32,
    },
    /// A workspace from a warm mirror
    Workspace {
        /// The repository
        #[arg(long)]
        repo: PathBuf,
        /// Rounds
        #[arg(long, default_value_t = 5)]
        rounds: u32,
    },
    /// Verification of an audit log
    Audit {
        /// Records
        #[arg(long, default_value_t = 200_000)]
        records: u64,
    },
}

fn parse_role(text: &str) -> Result<AgentRole, String> {
    text.parse().map_err(|error: tipstaff_model::agent::ChoiceError| error.to_string())
}

fn parse_engine(text: &str) -> Result<EngineKind, String> {
    text.parse().map_err(|error: tipstaff_model::agent::ChoiceError| error.to_string())
}

fn parse_privacy(text: &str) -> Result<PrivacyClass, String> {
    text.parse().map_err(|error: tipstaff_model::agent::ChoiceError| error.to_string())
}

fn parse_kind(text: &str) -> Result<WarrantKind, String> {
    text.parse().map_err(|error: tipstaff_model::agent::ChoiceError| error.to_string())
}

fn parse_path_pattern(text: &str) -> Result<tipstaff_model::warrant::PathPattern, String> {
    text.parse().map_err(|error: tipstaff_model::warrant::PatternError| error.to_string())
}

fn parse_budget(text: &str) -> Result<MicroUsd, String> {
    text.parse().map_err(|error: tipstaff_model::money::MoneyError| error.to_string())
}

fn parse_host(text: &str) -> Result<tipstaff_model::warrant::HostChoice, String> {
    text.parse().map_err(|error: tipstaff_model::warrant::PatternError| error.to_string())
}

/// Reads a duration such as `90s`, `10m`, `1h30m`; a bare number is seconds. In milliseconds, one second to one day.
pub(crate) fn parse_duration_ms(text: &str) -> Result<u64, String> {
    span_ms(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_exactly_or_refused() {
        assert_eq!(parse_duration_ms("90s"), Ok(90_000));
        assert_eq!(parse_duration_ms("1h30m"), Ok(5_400_000));
        assert_eq!(parse_duration_ms("45"), Ok(45_000));
        for bad in ["", "0", "0s", "-5", "25h", "1m1h", "1x", "m", "99999999999999999999", "1h 5m", "1m30"] {
            assert!(parse_duration_ms(bad).is_err(), "{bad}");
        }
    }
}

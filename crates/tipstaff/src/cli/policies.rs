//! The part of the command line about policies: options of a run, the stored ones, and trying them out.

use clap::Args;
use std::path::PathBuf;
use std::str::FromStr;
use tipstaff_model::{Decision, Policy, PolicyRule};

/// A policy of one run.
#[derive(Debug, Default, Args)]
pub(crate) struct PolicyArgs {
    /// A policy for this run, from a file with a table [policy]; it can only be stricter than the org's, the project's and
    /// the repository's
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Ask a person about these actions of the agent: 'tool:Bash', 'command:git push *', 'path:infra/**',
    /// 'host:api.example.com', 'kind:edit', 'risk:high'
    #[arg(long, value_name = "PATTERN")]
    pub(crate) ask: Vec<RulePattern>,
    /// Deny these actions of the agent; a denied path can't be pushed and a denied host can't be reached, whatever the
    /// agent does
    #[arg(long, value_name = "PATTERN")]
    pub(crate) deny: Vec<RulePattern>,
}

impl PolicyArgs {
    /// The layer of the run: the options first, then the file.
    pub(crate) fn layer(&self) -> anyhow::Result<Policy> {
        let mut layer = match &self.policy {
            Some(path) => crate::policies::of_file(path)?.0,
            None => Policy::default(),
        };
        let of = |decision, list: &[RulePattern]| -> Vec<PolicyRule> {
            list.iter().map(|RulePattern(rule)| PolicyRule { decision, ..rule.clone() }).collect()
        };
        let mut rules = of(Decision::Deny, &self.deny);
        rules.extend(of(Decision::Ask, &self.ask));
        rules.append(&mut layer.rules);
        layer.rules = rules;
        layer.validate().map_err(|error| crate::exit::Problem::usage(error.code(), error.to_string()))?;
        Ok(layer)
    }
}

/// One `--ask` or `--deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RulePattern(PolicyRule);

impl FromStr for RulePattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        fn read<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
            text.parse().map_err(|error: T::Err| error.to_string())
        }
        let mut rule = PolicyRule::new(Decision::Ask);
        let (what, pattern) = text.split_once(':').unwrap_or((text, ""));
        match what {
            "tool" => rule.tools.push(read(pattern)?),
            "command" => rule.commands.push(read(pattern)?),
            "path" => rule.paths.push(read(pattern)?),
            "host" => rule.hosts.push(read(pattern)?),
            "kind" => rule.kinds.push(read(pattern)?),
            "risk" => rule.risk = Some(read(pattern)?),
            _ => {
                return Err(
                    "write tool:, command:, path:, host:, kind: or risk: and a pattern, such as 'command:git push *'"
                        .to_owned(),
                );
            }
        }
        Ok(Self(rule))
    }
}

/// Whose policy.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct HolderArgs {
    /// The policy of the whole org
    #[arg(long)]
    pub(crate) org: bool,
    /// The policy of a project
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
}

/// `tipstaff policy set`
#[derive(Debug, Args)]
#[command(after_help = "\
A file with a mistake is not activated: the policy that was there stays in force. Runs that began keep what they began
with.

Examples:
  tipstaff policy set --org policy/org.toml
  tipstaff policy set --project site policy/site.toml")]
pub(crate) struct SetArgs {
    #[command(flatten)]
    pub(crate) holder: HolderArgs,
    /// The file, with a table [policy]
    pub(crate) file: PathBuf,
}

/// Which policies are looked at.
#[derive(Debug, Default, Args)]
pub(crate) struct SubjectArgs {
    /// The repository whose policy at HEAD counts, and whose project's
    #[arg(long, value_name = "PATH|URL")]
    pub(crate) repo: Option<std::ffi::OsString>,
    /// A policy that is no layer yet: it is judged besides the others
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
}

/// `tipstaff policy check`
#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is 0 when it is a policy, with or without remarks; 2 when it is none, and 3 with --strict when there are
remarks.

Examples:
  tipstaff policy check                     the org's, the projects' and the repository's here
  tipstaff policy check policy/org.toml
  tipstaff policy check --repo ~/code/site --strict")]
pub(crate) struct CheckArgs {
    /// A file with a table [policy], or a tipstaff.toml [default: what is in force]
    #[arg(value_name = "FILE", conflicts_with = "repo")]
    pub(crate) file: Option<PathBuf>,
    /// The policy of a repository, at HEAD
    #[arg(long, value_name = "PATH|URL")]
    pub(crate) repo: Option<std::ffi::OsString>,
    /// Remarks are mistakes
    #[arg(long)]
    pub(crate) strict: bool,
}

/// An action to judge.
#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is 0 when it is let through, 6 when a person is asked and 3 when it is denied. What the agent says of an
action counts nowhere; the risk is reckoned from the warrant of the role without options.

Examples:
  tipstaff policy judge --command 'git push -f origin main'
  tipstaff policy judge --tool Edit --path infra/main.tf --policy candidate.toml
  tipstaff policy judge --tool WebFetch --host api.example.com --role reviewer")]
pub(crate) struct JudgeArgs {
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
    /// The tool, in the agent's word [default: Bash for a command, Edit for a path, WebFetch for a host]
    #[arg(long, value_name = "NAME")]
    pub(crate) tool: Option<String>,
    /// What it does: read, edit, execute, fetch, other [default: by the tool's name]
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<tipstaff_model::ActionKind>,
    /// A shell text that it executes
    #[arg(long, value_name = "TEXT")]
    pub(crate) command: Vec<String>,
    /// A path that it touches
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Vec<String>,
    /// A host that it asks, as HOST or HOST:PORT
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Vec<String>,
    /// The role of the agent
    #[arg(long, value_name = "ROLE", default_value = "builder", value_parser = super::parse_role)]
    pub(crate) role: tipstaff_model::AgentRole,
}

/// `tipstaff policy test`
#[derive(Debug, Args)]
#[command(after_help = "\
A file of cases:
  policy = \"org.toml\"                 # beside this file; else what is in force

  [[test]]
  command = \"git push -f\"             # or tool, kind, path, host, role
  expect = \"deny\"                     # allow, ask or deny

The exit code is 1 when a case comes out differently.

Examples:
  tipstaff policy test policy/tests.toml
  tipstaff policy test policy/tests.toml --policy candidate.toml")]
pub(crate) struct TestArgs {
    /// The file of cases
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
}

/// `tipstaff policy simulate`
#[derive(Debug, Args)]
#[command(after_help = "\
Reads the tool calls that were recorded and judges each one twice: by the policies in force now, and with the candidate
besides them. Nothing is changed and nothing is asked. Runs whose text was not kept count as unknown.

Examples:
  tipstaff policy simulate --since 30d
  tipstaff policy simulate --since 30d --policy candidate.toml
  tipstaff policy simulate --since 7d --policy candidate.toml --agent claude-builder --json")]
pub(crate) struct SimulateArgs {
    /// All runs that began within this time: 90m, 24h, 30d
    #[arg(long, value_name = "DUR", default_value = "30d", value_parser = super::policy::parse_since)]
    pub(crate) since: u64,
    #[command(flatten)]
    pub(crate) subject: SubjectArgs,
    /// The candidate takes the place of the org's policy, instead of standing besides it
    #[arg(long, requires = "policy")]
    pub(crate) replace_org: bool,
    /// Only runs of this agent
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,
}

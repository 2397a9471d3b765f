//! `tipstaff.toml`: what a repository says about its own runs.
//!
//! Promise: it is read from the base commit that the warrant pins, before the command runs. What the run writes into it
//! counts from the next run on, after a person has taken the change in.

use crate::RunnerError;
use crate::setup::SetupTable;
use serde::Deserialize;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use tipstaff_broker::{FileAt, Mirror};
use tipstaff_model::policy::PolicyError;
use tipstaff_model::warrant::{PathPattern, PathRules};
use tipstaff_model::{CommitId, Policy, PolicyFile};

/// The name of the file, at the top of the repository.
pub const PROJECT_FILE: &str = "tipstaff.toml";
/// The largest file that is read, in bytes.
const LARGEST: u64 = 256 * 1024;
/// Commands of a verification at most.
const MOST_COMMANDS: usize = 50;
/// Patterns of a list at most.
const MOST_PATTERNS: usize = 200;

/// What `tipstaff.toml` says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Project {
    /// How a change is verified.
    pub verify: Verification,
    /// What a push may hold.
    pub push: PushRules,
    /// Which actions are let through, asked about or denied; one layer among others, and it can only be stricter.
    pub policy: Policy,
    /// What is done before a command or an agent starts.
    pub setup: SetupTable,
}

/// The `[push]` table: what a repository asks of every change of an agent. It narrows warrants; the one thing that it
/// opens is where text may only look like a secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PushRules {
    /// Paths that no run may change, besides what its role protects.
    pub protect: Vec<PathPattern>,
    /// Whether lockfiles may change.
    pub lockfiles: Lockfiles,
    /// Paths where text may look like a secret: fixtures of tests.
    pub allow_secrets: Vec<PathPattern>,
}

/// Whether lockfiles may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lockfiles {
    /// As the role has it.
    #[default]
    Allow,
    /// By no run.
    Refuse,
}

impl PushRules {
    /// Lays the rules over a warrant that is being made.
    pub fn lay_over(&self, paths: &mut PathRules) {
        paths.protect(self.protect.iter().cloned());
        if self.lockfiles == Lockfiles::Refuse {
            paths.protect(tipstaff_model::warrant::lockfiles());
        }
        paths.fixtures.clone_from(&self.allow_secrets);
    }
}

/// The `[verify]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Verification {
    /// Commands, each given to `sh -c` in a sandbox of its own making; the first that fails ends the verification.
    pub commands: Vec<String>,
    /// How long all of them may take together, such as `10m`.
    #[serde(deserialize_with = "span")]
    pub timeout: Duration,
    /// What they run on.
    pub workspace: VerifyWorkspace,
}

impl Default for Verification {
    fn default() -> Self {
        Self {
            commands: Vec::new(),
            timeout: Duration::from_secs(10 * 60),
            workspace: VerifyWorkspace::Fresh,
        }
    }
}

/// What a verification runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyWorkspace {
    /// A new checkout of the run's commit: nothing that the run left uncommitted or ignored has a say.
    #[default]
    Fresh,
    /// The workspace as the run left it, with its build results and installed dependencies. What the run put there can
    /// make a check pass.
    Run,
}

fn span<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    tipstaff_model::span::span_ms(&text).map(Duration::from_millis).map_err(serde::de::Error::custom)
}

/// The line of a TOML text that an error is about, from 1.
#[must_use]
pub fn wrong_line(text: &str, error: &toml::de::Error) -> usize {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    before.matches('\n').count() + 1
}

/// Reads a policy from a file of its own: the table `[policy]`, as in `tipstaff.toml`.
///
/// # Errors
/// [`PolicyError`] with the line, or the number of the rule.
pub fn parse_policy(text: &str) -> Result<Policy, PolicyError> {
    if text.len() > tipstaff_model::policy::LARGEST_POLICY {
        return Err(PolicyError::TooLarge);
    }
    let file: PolicyFile = toml::from_str(text).map_err(|error| PolicyError::Text {
        message: error.message().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect(),
        line: wrong_line(text, &error),
    })?;
    file.validated()
}

impl Project {
    /// Reads a file's content.
    ///
    /// # Errors
    /// [`RunnerError::ProjectFile`] with the place and what is wrong there.
    pub fn parse(text: &str) -> Result<Self, RunnerError> {
        let project: Self = toml::from_str(text).map_err(|error| {
            let message: String =
                error.message().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
            RunnerError::ProjectFile(format!("{message} in line {}", wrong_line(text, &error)))
        })?;
        if project.verify.commands.len() > MOST_COMMANDS {
            return Err(RunnerError::ProjectFile(format!(
                "verify.commands names more than {MOST_COMMANDS} commands"
            )));
        }
        if project.verify.commands.iter().any(|command| command.trim().is_empty() || command.contains('\0')) {
            return Err(RunnerError::ProjectFile("verify.commands has an empty command".to_owned()));
        }
        project.setup.check().map_err(RunnerError::ProjectFile)?;
        let push = &project.push;
        for (name, list) in [("protect", &push.protect), ("allow_secrets", &push.allow_secrets)] {
            if list.len() > MOST_PATTERNS {
                return Err(RunnerError::ProjectFile(format!(
                    "push.{name} names more than {MOST_PATTERNS} patterns"
                )));
            }
        }
        if push
            .allow_secrets
            .iter()
            .any(|pattern| pattern.as_str().split('/').all(|part| part.starts_with('*')))
        {
            return Err(RunnerError::ProjectFile(
                "push.allow_secrets opens every folder: name the folders of the fixtures".to_owned(),
            ));
        }
        project.policy.validate().map_err(|error| RunnerError::ProjectFile(format!("[policy], {error}")))?;
        Ok(project)
    }

    /// Reads the file as it is in a commit of the mirror; the defaults where there is none.
    ///
    /// # Errors
    /// [`RunnerError::ProjectFile`], and what git says.
    pub async fn of_commit(mirror: &Mirror, commit: &CommitId) -> Result<Self, RunnerError> {
        let unusable = |why: &str| RunnerError::ProjectFile(why.to_owned());
        match mirror.file_at(commit, PROJECT_FILE, LARGEST).await? {
            FileAt::Nothing => Ok(Self::default()),
            FileAt::Content(bytes) => {
                let text = String::from_utf8(bytes).map_err(|_| unusable("it is not UTF-8 text"))?;
                Self::parse(&text)
            }
            FileAt::NoFile => Err(unusable("it is no ordinary file")),
            FileAt::TooLarge => Err(unusable(&format!("it is larger than {} KiB", LARGEST >> 10))),
        }
    }

    /// Reads the file of a checkout that no agent has touched yet; the defaults where there is none. A symbolic link is
    /// refused, since it may lead anywhere.
    ///
    /// # Errors
    /// [`RunnerError::ProjectFile`].
    pub(crate) fn of_checkout(checkout: &Path) -> Result<Self, RunnerError> {
        let path = checkout.join(PROJECT_FILE);
        let file = match std::fs::OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(RunnerError::ProjectFile(error.to_string())),
        };
        if !file.metadata().is_ok_and(|found| found.is_file()) {
            return Err(RunnerError::ProjectFile("it is no ordinary file".to_owned()));
        }
        let mut text = String::new();
        file.take(LARGEST + 1)
            .read_to_string(&mut text)
            .map_err(|_| RunnerError::ProjectFile("it is not UTF-8 text".to_owned()))?;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > LARGEST {
            return Err(RunnerError::ProjectFile(format!("it is larger than {} KiB", LARGEST >> 10)));
        }
        Self::parse(&text)
    }
}

/// `O_NOFOLLOW | O_NONBLOCK`: neither a link nor a pipe holds us up.
const NO_FOLLOW: i32 = 0o400_000 | 0o4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_read() {
        let project =
            Project::parse("[verify]\ncommands = [\"make test\"]\ntimeout = \"90s\"\nworkspace = \"run\"\n")
                .unwrap();
        assert_eq!(project.verify.commands, ["make test"]);
        assert_eq!(project.verify.timeout, Duration::from_secs(90));
        assert_eq!(project.verify.workspace, VerifyWorkspace::Run);
        assert_eq!(Project::parse("").unwrap(), Project::default());
    }

    #[test]
    fn rules_for_pushes_narrow_a_warrant_and_open_only_fixtures() {
        let text = "[push]\nprotect = [\"db/**\"]\nlockfiles = \"refuse\"\nallow_secrets = [\"tests/fixtures/**\"]\n";
        let rules = Project::parse(text).unwrap().push;
        let template = tipstaff_model::AgentRole::Builder.template();
        let mut paths =
            PathRules { write: template.write, protected: template.protected.clone(), fixtures: Vec::new() };
        rules.lay_over(&mut paths);
        let protected =
            |path: &str| paths.protected.iter().any(|pattern| pattern.matches_ignoring_case(path.as_bytes()));
        assert!(protected("db/a.sql") && protected("web/package-lock.json") && protected("tipstaff.toml"));
        assert!(template.protected.iter().all(|pattern| paths.protected.contains(pattern)));
        assert!(paths.is_fixture(b"tests/fixtures/a") && !paths.is_fixture(b"src/a"));
    }

    #[test]
    fn a_policy_is_one_layer_of_it() {
        let text =
            "[policy]\ndefault = \"ask\"\n\n[[policy.rules]]\ndecision = \"deny\"\npaths = [\"infra/**\"]\n";
        let policy = Project::parse(text).unwrap().policy;
        assert_eq!(policy.default, Some(tipstaff_model::Decision::Ask));
        assert_eq!(policy.rules.len(), 1);
        assert!(Project::parse("").unwrap().policy.is_empty());
        let wrong = Project::parse("[policy]\n\n[[policy.rules]]\ndecision = \"maybe\"\n").unwrap_err();
        assert!(wrong.to_string().contains("line 4"), "{wrong}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, part) in [
            ("[verify]\ncommand = []\n", "line 2"),
            ("[verify]\ncommands = [\"\"]\n", "empty command"),
            ("[verify]\ntimeout = \"soon\"\n", "is not a time"),
            ("[verify]\ntimeout = \"0s\"\n", "is not a time"),
            ("[verify]\ntimeout = \"99999999999999999999h\"\n", "is not a time"),
            ("[push]\nprotect = [\"/etc\"]\n", "is not a path pattern"),
            ("[push]\nallow_secrets = [\"**\"]\n", "every folder"),
            ("[push]\nallow_secrets = [\"**/*\"]\n", "every folder"),
            ("[push]\nlockfiles = \"maybe\"\n", "line 2"),
            ("[policy]\n[[policy.rules]]\ndecision = \"deny\"\npath = [\"a\"]\n", "line 4"),
            (
                "[[policy.rules]]\ndecision = \"deny\"\npaths = [\"a\"]\nhosts = [\"a.b\"]\n",
                "rule 1: it names more",
            ),
            ("[deploy]\n", "unknown field"),
            ("not toml", "line 1"),
        ] {
            let error = Project::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_link_or_a_pipe_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(Project::of_checkout(place.path()).unwrap(), Project::default());
        std::os::unix::fs::symlink("/etc/hostname", place.path().join(PROJECT_FILE)).unwrap();
        assert_eq!(Project::of_checkout(place.path()).unwrap_err().code(), "project-file");
        std::fs::remove_file(place.path().join(PROJECT_FILE)).unwrap();
        std::fs::create_dir(place.path().join(PROJECT_FILE)).unwrap();
        assert_eq!(Project::of_checkout(place.path()).unwrap_err().code(), "project-file");
    }
}

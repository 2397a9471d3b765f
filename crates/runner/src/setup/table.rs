//! The `[setup]` table of `tipstaff.toml`, and the script beside it.

use crate::RunnerError;
use serde::Deserialize;
use std::path::{Component, Path};
use std::time::Duration;
use tipstaff_broker::Mirror;
use tipstaff_model::CommitId;
use tipstaff_model::warrant::{HostChoice, PathPattern, lockfiles};

/// Where the script lies in a repository.
pub const SETUP_SCRIPT: &str = ".tipstaff/setup";
/// The folder that it lies in.
const FOLDER: &[u8] = b".tipstaff/";
/// How long a set-up may take unless the table says otherwise.
const USUAL_TIME: Duration = Duration::from_secs(10 * 60);
/// Entries of a list at most.
const MOST: usize = 100;
/// Files whose content is part of the key, at most.
const MOST_INPUTS: usize = 2_000;
/// Bytes of a commit's listing that are read at most.
const LISTING: usize = 128 * 1024 * 1024;

/// The `[setup]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SetupTable {
    /// Files of the person's own tree that are copied into the workspace first: paths without patterns.
    pub copy: Vec<String>,
    /// Hosts that the script needs: classes such as `registry:npm`, or names.
    #[serde(deserialize_with = "hosts")]
    pub hosts: Vec<HostChoice>,
    /// How long the script may take, such as `10m`.
    #[serde(deserialize_with = "span")]
    pub timeout: Duration,
    /// Files of the repository whose content decides whether what an earlier set-up made is still good; lockfiles when
    /// absent.
    pub inputs: Option<Vec<PathPattern>>,
    /// Whether what the set-up makes is kept for later runs.
    pub cache: bool,
}

impl Default for SetupTable {
    fn default() -> Self {
        Self { copy: Vec::new(), hosts: Vec::new(), timeout: USUAL_TIME, inputs: None, cache: true }
    }
}

fn span<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    tipstaff_model::span::span_ms(&text).map(Duration::from_millis).map_err(serde::de::Error::custom)
}

fn hosts<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<HostChoice>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

impl SetupTable {
    /// What is wrong with it beyond its form.
    pub(crate) fn check(&self) -> Result<(), String> {
        let inputs = self.inputs.as_ref().map_or(0, Vec::len);
        for (name, length) in [("copy", self.copy.len()), ("hosts", self.hosts.len()), ("inputs", inputs)] {
            if length > MOST {
                return Err(format!("setup.{name} names more than {MOST}"));
            }
        }
        for path in &self.copy {
            let plain = !path.is_empty()
                && path.len() <= 1000
                && !path.contains(['\0', '\n', '\\'])
                && !path.ends_with('/')
                && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
                && !path
                    .split('/')
                    .any(|part| matches!(part, "" | "." | "..") || part.eq_ignore_ascii_case(".git"));
            if !plain {
                let shown: String = path.chars().filter(|c| !c.is_control()).take(100).collect();
                return Err(format!(
                    "setup.copy: '{shown}' is no path of a file in the repository: write it with '/' between parts, without '.', '..', '.git' or a pattern"
                ));
            }
        }
        Ok(())
    }
}

/// The script as a commit has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupScript {
    /// The id of its content in git.
    pub id: String,
}

/// What the set-up of a commit is. Everything in it comes from the base commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupPlan {
    /// The table.
    pub table: SetupTable,
    /// The script, where there is one.
    pub script: Option<SetupScript>,
    /// The files whose content is part of the key, with the ids of their content; in order. Those that lie beside the
    /// script are always among them.
    pub inputs: Vec<(Vec<u8>, String)>,
}

impl SetupPlan {
    /// The plan of a commit that is pinned in the mirror; `None` where it has neither a script nor files to copy.
    ///
    /// # Errors
    /// [`RunnerError::SetupUnusable`] for a script that can't be executed; what git says.
    pub async fn of_commit(
        mirror: &Mirror,
        commit: &CommitId,
        table: &SetupTable,
    ) -> Result<Option<Self>, RunnerError> {
        let script = match mirror.entry_at(commit, SETUP_SCRIPT).await? {
            None => None,
            Some(entry) if entry.mode == "100755" => Some(SetupScript { id: entry.id }),
            Some(entry) if entry.mode == "100644" => {
                return Err(RunnerError::SetupUnusable(format!(
                    "{SETUP_SCRIPT} is not executable; `git update-index --chmod=+x {SETUP_SCRIPT}` and commit"
                )));
            }
            Some(_) => {
                return Err(RunnerError::SetupUnusable(format!("{SETUP_SCRIPT} is no ordinary file")));
            }
        };
        if script.is_none() && table.copy.is_empty() {
            return Ok(None);
        }
        let patterns = table.inputs.clone().unwrap_or_else(lockfiles);
        let mut inputs = Vec::new();
        if script.is_some() {
            for entry in mirror.entries(commit, LISTING).await? {
                // What lies beside the script is part of it, whatever the repository names.
                let beside = entry.path.starts_with(FOLDER) && entry.path != SETUP_SCRIPT.as_bytes();
                if beside || patterns.iter().any(|pattern| pattern.matches(&entry.path)) {
                    inputs.push((entry.path, entry.id));
                }
            }
        }
        if inputs.len() > MOST_INPUTS {
            return Err(RunnerError::SetupUnusable(format!(
                "setup.inputs matches {} files, more than {MOST_INPUTS}; name fewer",
                inputs.len()
            )));
        }
        Ok(Some(Self { table: table.clone(), script, inputs }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Project;
    use proptest::prelude::*;

    #[test]
    fn the_table_is_read() {
        let text = "[setup]\ncopy = [\".env.example\"]\nhosts = [\"registry:npm\", \"npm.corp.example:4873\"]\ntimeout = \"90s\"\n\
                    inputs = [\"web/*.lock\"]\ncache = false\n";
        let table = Project::parse(text).unwrap().setup;
        assert_eq!(table.timeout, Duration::from_secs(90));
        assert_eq!((table.copy.len(), table.hosts.len(), table.cache), (1, 2, false));
        assert_eq!(Project::parse("[setup]\n").unwrap().setup, SetupTable::default());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("copy = [\"/etc/passwd\"]", "no path of a file"),
            ("copy = [\"../x\"]", "no path of a file"),
            ("copy = [\"a/../b\"]", "no path of a file"),
            ("copy = [\"a//b\"]", "no path of a file"),
            ("copy = [\".git/config\"]", "no path of a file"),
            ("copy = [\"sub/.GIT/config\"]", "no path of a file"),
            ("copy = [\"\"]", "no path of a file"),
            ("copy = [\"dir/\"]", "no path of a file"),
            ("hosts = [\"*\"]", "is not a host"),
            ("hosts = [\"registry:cobol\"]", "is not a host"),
            ("timeout = \"soon\"", "is not a time"),
            ("inputs = [\"/x\"]", "is not a path pattern"),
            ("scripts = []", "unknown field"),
        ] {
            let error = Project::parse(&format!("[setup]\n{text}\n")).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let many = format!("[setup]\ncopy = [{}]\n", "\"a\",".repeat(101));
        assert!(Project::parse(&many).unwrap_err().to_string().contains("more than 100"));
    }

    proptest! {
        #[test]
        fn a_path_that_passes_stays_inside(path in "[a-zA-Z./ ~$*-]{0,20}") {
            let table = SetupTable { copy: vec![path.clone()], ..SetupTable::default() };
            if table.check().is_ok() {
                let joined = Path::new("/root").join(&path);
                prop_assert!(joined.starts_with("/root") && joined != Path::new("/root"));
                prop_assert!(!path.split('/').any(|part| part == ".." || part == "." || part.is_empty()));
            }
        }
    }
}

//! The files of this tree, and the one place in xtask that starts a process.
//!
//! Promises: paths are relative to the top and use `/`; build results, caches
//! and git's own folder never appear.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The top of the tree that this xtask was built from.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// A tree of files under `root`.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
    files: Vec<String>,
}

impl Tree {
    /// Lists the files under `root` that belong to the project.
    ///
    /// git says which ones where it can; a tree without git, or one that git
    /// refuses because somebody else owns it, is walked.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open(root: &Path) -> Result<Tree> {
        let mut files = match listed_by_git(root) {
            Some(files) => files,
            None => walked(root)?,
        };
        files.retain(|file| root.join(file).is_file());
        files.sort();
        files.dedup();
        Ok(Tree { root: root.to_path_buf(), files })
    }

    /// The top folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All files, sorted.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// Files whose name ends in `suffix`.
    pub fn ending<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = &'a str> {
        self.files().filter(move |file| file.ends_with(suffix))
    }

    /// True when `path` is a file of the tree or a folder that holds one.
    pub fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        path.is_empty()
            || self
                .files()
                .any(|file| file == path || file.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    }

    /// The text of a file; `None` when it is absent or not UTF-8.
    pub fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    /// Folder names under `crates/`, sorted.
    pub fn crates(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .files()
            .filter_map(|file| file.strip_prefix("crates/")?.strip_suffix("/Cargo.toml"))
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    }
}

fn listed_by_git(root: &Path) -> Option<Vec<String>> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = run(root, "git", &arguments).ok()?;
    let files: Vec<String> = output.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    (!files.is_empty()).then_some(files)
}

fn walked(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                if !["target", ".git", ".cache", "node_modules"].contains(&name.as_ref()) {
                    folders.push(entry.path());
                }
            } else if let Ok(path) = entry.path().strip_prefix(root) {
                files.push(path.to_string_lossy().into_owned());
            }
        }
    }
    Ok(files)
}

/// Runs a program in `folder` and returns what it printed.
///
/// # Errors
/// When it cannot be started, fails, or prints something that is not UTF-8.
pub fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a developer's tool that asks cargo, git and our own binary; nothing hostile is involved"
    )]
    let mut command = Command::new(program);
    let output = command
        .args(arguments)
        .current_dir(folder)
        // A help text must not depend on the width of somebody's terminal.
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed bytes that are not UTF-8"))
}

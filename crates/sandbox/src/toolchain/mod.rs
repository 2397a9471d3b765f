//! Which tools of the person can be granted: exact install directories, found by where installers put them and by
//! what `PATH` names. Never a home, never a directory that holds credentials.

mod credential;
mod place;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::ToolchainGrant;
use place::{executables, install_directory, interpreter};

/// A place that looks like a toolchain and is not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedToolchain {
    /// The directory.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

/// What was found on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Discovery {
    /// What can be granted, in the order of `PATH`.
    pub grants: Vec<ToolchainGrant>,
    /// What cannot.
    pub skipped: Vec<SkippedToolchain>,
}

impl Discovery {
    /// Without the directories that can't be mounted where they are; they are skipped, with the reason.
    fn mountable(mut self) -> Self {
        let mut grants = Vec::with_capacity(self.grants.len());
        for mut grant in self.grants {
            grant.directories.retain(|directory| {
                let fits = crate::mounts::check_inside(directory).is_ok();
                if !fits {
                    let reason = "the sandbox has its own files there: install the tool somewhere else, as below the home";
                    self.skipped.push(SkippedToolchain { path: directory.clone(), reason: reason.to_owned() });
                }
                fits
            });
            grant.path_entries.retain(|entry| covers(&grant.directories, entry));
            if !grant.directories.is_empty() {
                grants.push(grant);
            }
        }
        self.skipped.sort_by(|left, right| left.path.cmp(&right.path));
        Self { grants, skipped: self.skipped }
    }
}

/// Looks for installed tools under `home`, on `path_var` and in `/opt`. Reads names and small configuration files
/// only; grants exact install directories, never a home, never a directory that holds credentials. On a server that
/// runs as root, a directory that other users may not read is skipped too, since the run's user is another. A place
/// where the sandbox has something of its own, such as `/tmp` and `/work`, is skipped: no grant can be mounted there.
#[must_use]
pub fn discover_toolchains(home: &Path, path_var: &OsStr) -> Discovery {
    find_toolchains(home, path_var).mountable()
}

/// [`discover_toolchains`], with the places that can't be mounted.
#[must_use]
pub fn find_toolchains(home: &Path, path_var: &OsStr) -> Discovery {
    let home = std::fs::canonicalize(home).unwrap_or_else(|_| home.to_owned());
    let path: Vec<PathBuf> = std::env::split_paths(path_var).filter(|entry| entry.is_absolute()).collect();
    let mut search = Search { home, path, found: Vec::new(), skipped: Vec::new() };
    search.rustup();
    search.pyenv();
    search.nvm();
    search.path_directories();
    search.opt(Path::new("/opt"));
    search.finish()
}

struct Search {
    home: PathBuf,
    path: Vec<PathBuf>,
    /// The position on `PATH` and the grant.
    found: Vec<(usize, ToolchainGrant)>,
    skipped: Vec<SkippedToolchain>,
}

impl Search {
    /// rustup's proxies choose the toolchain that a repository asks for. `~/.cargo` itself holds credentials.
    fn rustup(&mut self) {
        let (root, proxies) = (self.home.join(".rustup"), self.home.join(".cargo/bin"));
        let toolchains = root.join("toolchains");
        if !toolchains.is_dir() {
            return;
        }
        let mut directories = vec![toolchains.clone()];
        // The proxies read the settings, and insist that the directory of the update hashes is there.
        let (settings, hashes) = (root.join("settings.toml"), root.join("update-hashes"));
        let mut path_entries = Vec::new();
        if proxies.join("rustup").is_file() && settings.is_file() && hashes.is_dir() {
            directories.extend([proxies.clone(), settings, hashes]);
            path_entries.push(proxies.clone());
        } else if let Some(newest) = newest_child(&toolchains, |path| path.join("bin").is_dir()) {
            path_entries.push(newest.join("bin"));
        }
        let env = vec![("RUSTUP_HOME".to_owned(), root.display().to_string())];
        self.grant("rustup", directories, path_entries, env, &proxies);
    }

    /// The interpreters themselves; pyenv's shims would need all of pyenv.
    fn pyenv(&mut self) {
        let root = self.home.join(".pyenv");
        let versions = root.join("versions");
        if !versions.is_dir() {
            return;
        }
        let chosen = std::fs::read_to_string(root.join("version")).unwrap_or_default();
        let has_bin = |path: &Path| path.join("bin/python3").exists();
        let mut bins: Vec<_> = chosen
            .split_whitespace()
            .map(|version| versions.join(version))
            .filter(|path| path.parent() == Some(&versions) && has_bin(path))
            .map(|path| path.join("bin"))
            .collect();
        if bins.is_empty() {
            bins.extend(newest_child(&versions, has_bin).map(|path| path.join("bin")));
        }
        if bins.is_empty() {
            return;
        }
        self.grant("pyenv", vec![versions], bins, Vec::new(), &root.join("shims"));
    }

    /// The version that is on `PATH`, else the newest.
    fn nvm(&mut self) {
        let versions = self.home.join(".nvm/versions/node");
        let on_path =
            self.path.iter().find(|entry| entry.starts_with(&versions)).and_then(|entry| entry.parent());
        let chosen = on_path
            .map(Path::to_owned)
            .or_else(|| newest_child(&versions, |path| path.join("bin/node").is_file()));
        let Some(version) = chosen else { return };
        let bin = version.join("bin");
        self.grant("nvm", vec![version], vec![bin.clone()], Vec::new(), &bin);
    }

    /// Every other directory of `PATH` under the home, with the install directories its links and scripts lead to;
    /// and the usual ones, should `PATH` lack them.
    fn path_directories(&mut self) {
        let mut candidates = self.path.clone();
        candidates
            .extend([".local/bin", "bin", ".npm-global/bin", "go/bin"].map(|name| self.home.join(name)));
        candidates.extend(npm_prefix(&self.home).map(|prefix| prefix.join("bin")));
        let mut seen = BTreeSet::new();
        for directory in candidates {
            let Ok(directory) = std::fs::canonicalize(&directory) else { continue };
            let is_system =
                ["/usr", "/bin", "/sbin", "/opt"].iter().any(|system| directory.starts_with(system));
            // pyenv's own scripts need all of it; its interpreters are granted by themselves.
            let is_shim = directory.starts_with(self.home.join(".pyenv"))
                || directory.components().any(|part| part.as_os_str() == "shims");
            if is_system || is_shim || !directory.is_dir() || !seen.insert(directory.clone()) {
                continue;
            }
            if self.found.iter().any(|(_, grant)| covers(&grant.directories, &directory)) {
                continue;
            }
            self.bin_directory(&directory);
        }
    }

    fn bin_directory(&mut self, directory: &Path) {
        let mut directories = vec![directory.to_owned()];
        for executable in executables(directory) {
            let real = std::fs::canonicalize(&executable).unwrap_or_else(|_| executable.clone());
            let interpreter = interpreter(&real).and_then(|path| std::fs::canonicalize(path).ok());
            let virtual_environment = place::interpreter_as_named(&real);
            for place in [Some(real), interpreter, virtual_environment].into_iter().flatten() {
                let granted = self.found.iter().any(|(_, grant)| covers(&grant.directories, &place));
                if covers(&directories, &place) || granted || place.starts_with("/usr") {
                    continue;
                }
                directories.extend(install_directory(&self.home, &place));
            }
        }
        let name = directory.strip_prefix(&self.home).unwrap_or(directory).display().to_string();
        let marker = directory.to_owned();
        self.grant(&name, directories, vec![directory.to_owned()], Vec::new(), &marker);
    }

    fn opt(&mut self, opt: &Path) {
        let Ok(entries) = std::fs::read_dir(opt) else { return };
        let mut places: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        places.sort();
        for place in places {
            let Ok(real) = std::fs::canonicalize(&place) else { continue };
            if !real.is_dir() || !real.starts_with(opt) {
                continue;
            }
            let bin = real.join("bin");
            let on_path: Vec<_> =
                self.path.iter().filter(|entry| entry.starts_with(&real)).cloned().collect();
            let entries = if on_path.is_empty() && bin.is_dir() { vec![bin] } else { on_path };
            let marker = entries.first().cloned().unwrap_or_else(|| real.clone());
            let name = format!("opt/{}", place.file_name().unwrap_or_default().to_string_lossy());
            self.grant(&name, vec![real], entries, Vec::new(), &marker);
        }
    }

    /// Judges the directories and keeps the grant, or says why not. `marker` is where it stands on `PATH`.
    fn grant(
        &mut self,
        name: &str,
        directories: Vec<PathBuf>,
        path_entries: Vec<PathBuf>,
        env: Vec<(String, String)>,
        marker: &Path,
    ) {
        let mut kept: Vec<PathBuf> = Vec::new();
        for directory in directories {
            let real = std::fs::canonicalize(&directory).unwrap_or(directory);
            if covers(&kept, &real) {
                continue;
            }
            match credential::objection(&self.home, &real) {
                None => kept.push(real),
                Some(reason) => self.skipped.push(SkippedToolchain { path: real, reason }),
            }
        }
        let path_entries: Vec<_> = path_entries
            .into_iter()
            .filter_map(|entry| std::fs::canonicalize(entry).ok())
            .filter(|entry| covers(&kept, entry))
            .collect();
        if kept.is_empty() {
            return;
        }
        let position = self.path.iter().position(|entry| entry == marker).unwrap_or(usize::MAX);
        let grant = ToolchainGrant { name: name.to_owned(), directories: kept, path_entries, env };
        self.found.push((position, grant));
    }

    fn finish(mut self) -> Discovery {
        self.found.sort_by_key(|(position, _)| *position);
        self.skipped.sort_by(|left, right| left.path.cmp(&right.path));
        self.skipped.dedup();
        Discovery { grants: self.found.into_iter().map(|(_, grant)| grant).collect(), skipped: self.skipped }
    }
}

fn covers(directories: &[PathBuf], path: &Path) -> bool {
    directories.iter().any(|directory| path.starts_with(directory))
}

/// The child with the highest version number in its name that fits.
fn newest_child(directory: &Path, fits: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let numbers = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let numbers: Vec<u64> = name
            .split(|letter: char| !letter.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect();
        (numbers, name)
    };
    let children = std::fs::read_dir(directory).ok()?;
    children.flatten().map(|entry| entry.path()).filter(|path| fits(path)).max_by_key(numbers)
}

/// The `prefix` line of the person's npm configuration; no other line of it is looked at.
fn npm_prefix(home: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(home.join(".npmrc")).ok()?;
    let value =
        text.lines().find_map(|line| line.trim().strip_prefix("prefix")?.trim_start().strip_prefix('='))?;
    let value = value.trim().trim_matches('"');
    match value.strip_prefix("~/").or_else(|| value.strip_prefix("${HOME}/")) {
        Some(rest) => Some(home.join(rest)),
        None => Some(PathBuf::from(value)).filter(|path| path.is_absolute()),
    }
}

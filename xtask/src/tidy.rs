//! Small rules that a reader of this tree can rely on, each one function.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::code;
use crate::tree::Tree;

/// Production lines above which a file fails.
pub const LINES_MOST: usize = 800;
/// Production lines above which a file is listed, so that somebody splits it.
pub const LINES_AIM: usize = 400;

/// One rule: its name and its check.
pub type Rule = (&'static str, fn(&Tree) -> Vec<String>);

/// Every rule of this module, by name.
pub const RULES: &[Rule] = &[
    ("file sizes", file_sizes),
    ("unfinished work", unfinished_work),
    ("unsafe code", unsafe_code),
    ("crate fronts", crate_fronts),
    ("lints", lints),
    ("workplace paths", workplace_paths),
    ("scripts", scripts),
    ("migrations", migrations),
    ("one integration binary", integration_binaries),
];

fn is_test_code(file: &str) -> bool {
    file.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "benches" | "examples" | "fuzz"))
}

fn production_files(tree: &Tree) -> impl Iterator<Item = (&str, String)> {
    tree.ending(".rs")
        .filter(|file| !is_test_code(file))
        .filter_map(|file| tree.text(file).map(|text| (file, text)))
}

/// Files above [`LINES_MOST`] production lines.
pub fn file_sizes(tree: &Tree) -> Vec<String> {
    production_files(tree)
        .map(|(file, text)| (file, code::production_lines(&text)))
        .filter(|(_, lines)| *lines > LINES_MOST)
        .map(|(file, lines)| {
            format!("{file} has {lines} production lines; {LINES_MOST} is the most: split it")
        })
        .collect()
}

/// Files above [`LINES_AIM`] production lines, largest first. Not a finding.
pub fn long_files(tree: &Tree) -> Vec<(String, usize)> {
    let mut files: Vec<(String, usize)> = production_files(tree)
        .map(|(file, text)| (file.to_owned(), code::production_lines(&text)))
        .filter(|(_, lines)| *lines > LINES_AIM)
        .collect();
    files.sort_by_key(|(_, lines)| std::cmp::Reverse(*lines));
    files
}

/// Marks of work that was put off, and tests that are switched off.
pub fn unfinished_work(tree: &Tree) -> Vec<String> {
    // Written in halves, so that this file does not find itself.
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let macros = [concat!("to", "do!"), concat!("unimpl", "emented!"), concat!("d", "bg!")];
    let ignored = concat!("#[ig", "nore");
    let mut findings = Vec::new();
    let is_source = |file: &&str| {
        [".rs", ".toml", ".sql", ".sh", ".py"].iter().any(|ending| file.ends_with(ending))
            || file.starts_with("script/")
            || file.starts_with(".ci/")
    };
    for file in tree.files().filter(is_source) {
        let Some(text) = tree.text(file) else { continue };
        for (number, line) in text.lines().enumerate() {
            for note in notes.iter().filter(|note| code::has_word(line, note)) {
                findings.push(format!(
                    "{file}:{} says {note}: do it, or file it where work is tracked",
                    number + 1
                ));
            }
        }
        if !file.ends_with(".rs") {
            continue;
        }
        for (number, line) in code::without_comments_and_strings(&text).lines().enumerate() {
            if line.contains(ignored) {
                findings.push(format!("{file}:{} switches a test off", number + 1));
            }
            for name in macros.iter().filter(|name| line.contains(*name)) {
                findings.push(format!("{file}:{} has {name}", number + 1));
            }
        }
    }
    findings
}

/// `unsafe` outside `crates/sandbox`.
pub fn unsafe_code(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.ending(".rs").filter(|file| !file.starts_with("crates/sandbox/")) {
        let code = code::without_comments_and_strings(&tree.text(file).unwrap_or_default());
        for (number, line) in code.lines().enumerate() {
            if code::has_word(line, concat!("un", "safe")) {
                findings.push(format!("{file}:{}: only crates/sandbox may be unsafe", number + 1));
            }
        }
    }
    findings
}

/// Every crate has a README, shows it as its documentation, and describes
/// itself in its manifest.
pub fn crate_fronts(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    let folders = tree.crates().into_iter().map(|name| format!("crates/{name}")).chain(["xtask".to_owned()]);
    for folder in folders {
        if !tree.has(&format!("{folder}/README.md")) {
            findings.push(format!("{folder} has no README.md"));
        }
        let front =
            ["src/lib.rs", "src/main.rs"].iter().find_map(|name| tree.text(&format!("{folder}/{name}")));
        if !front.unwrap_or_default().contains("#![doc = include_str!(\"../README.md\")]") {
            findings.push(format!(
                "{folder} does not show its README.md as its documentation (#![doc = include_str!(…)])"
            ));
        }
        let manifest = tree.text(&format!("{folder}/Cargo.toml")).unwrap_or_default();
        let described = manifest
            .lines()
            .filter_map(|line| line.strip_prefix("description = "))
            .any(|value| value.trim_matches('"').len() > 10);
        if !described {
            findings.push(format!("{folder}/Cargo.toml has no description"));
        }
    }
    findings
}

/// Every crate takes the workspace's lints. The sandbox repeats them, because a
/// forbidden lint cannot be relaxed, and differs in `unsafe_code` only.
pub fn lints(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    let manifest =
        |path: &str| tree.text(path).and_then(|text| text.parse::<toml::Table>().ok()).unwrap_or_default();
    let workspace = manifest("Cargo.toml");
    let shared =
        workspace.get("workspace").and_then(|table| table.get("lints")).and_then(toml::Value::as_table);
    let Some(shared) = shared else {
        return vec!["Cargo.toml has no [workspace.lints]".to_owned()];
    };
    let folders = tree.crates().into_iter().map(|name| format!("crates/{name}")).chain(["xtask".to_owned()]);
    for folder in folders {
        let own = manifest(&format!("{folder}/Cargo.toml"));
        let own = own.get("lints").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        if own.get("workspace").and_then(toml::Value::as_bool) == Some(true) {
            continue;
        }
        if folder != "crates/sandbox" {
            findings.push(format!("{folder} does not take the workspace's lints"));
            continue;
        }
        for (tool, rules) in shared {
            for (name, level) in rules.as_table().into_iter().flatten() {
                let here = own.get(tool).and_then(|rules| rules.get(name));
                let relaxed = name == "unsafe_code" && here.and_then(toml::Value::as_str) == Some("deny");
                if !relaxed && here != Some(level) {
                    findings.push(format!("{folder} differs from the workspace in the lint {tool}::{name}"));
                }
            }
        }
    }
    findings
}

/// The place where this checkout happens to stand must not appear in it.
pub fn workplace_paths(tree: &Tree) -> Vec<String> {
    let here = tree.root().to_string_lossy();
    // A checkout directly under / has a name that could be anything.
    if here.matches('/').count() < 2 {
        return Vec::new();
    }
    let beneath = format!("{here}/");
    let mut findings = Vec::new();
    for file in tree.files() {
        let Some(text) = tree.text(file) else { continue };
        for (number, line) in text.lines().enumerate() {
            let ends_here = |position: usize| {
                let after = line.get(position + here.len()..).and_then(|rest| rest.chars().next());
                !after.is_some_and(|character| character.is_alphanumeric() || "-_.".contains(character))
            };
            let found =
                line.contains(&beneath) || line.match_indices(here.as_ref()).any(|(at, _)| ends_here(at));
            if found {
                findings.push(format!("{file}:{} names the folder of this very checkout", number + 1));
            }
        }
    }
    findings
}

/// Scripts can be started and stop at the first error.
pub fn scripts(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    let is_script = |file: &&str| {
        (file.starts_with("script/") && file.matches('/').count() == 1) || file.starts_with(".ci/")
    };
    for file in tree.files().filter(is_script) {
        let mode = fs::metadata(tree.root().join(file)).map(|data| data.permissions().mode()).unwrap_or(0);
        if mode & 0o111 != 0o111 {
            findings.push(format!("{file} is not executable (chmod +x)"));
        }
        let text = tree.text(file).unwrap_or_default();
        if !text.starts_with("#!/usr/bin/env ") {
            findings.push(format!("{file} does not say what runs it in its first line"));
        }
        let strict = text.contains("\nset -euo pipefail") || text.contains("\nset -uo pipefail");
        if text.starts_with("#!/usr/bin/env bash") && !strict {
            findings.push(format!("{file} does not `set -euo pipefail`"));
        }
    }
    findings
}

/// Both engines have the same migrations, numbered from 0001 without a gap.
pub fn migrations(tree: &Tree) -> Vec<String> {
    let names = |engine: &str| -> BTreeSet<String> {
        let folder = format!("crates/store/migrations/{engine}/");
        tree.files().filter_map(|file| file.strip_prefix(folder.as_str())).map(str::to_owned).collect()
    };
    let (sqlite, postgres) = (names("sqlite"), names("postgres"));
    let mut findings: Vec<String> = sqlite
        .symmetric_difference(&postgres)
        .map(|name| format!("migration {name} exists for one engine only"))
        .collect();
    if sqlite.is_empty() {
        findings.push("crates/store/migrations/{sqlite,postgres} hold no migration".to_owned());
    }
    for (position, name) in sqlite.iter().enumerate() {
        if !name.starts_with(&format!("{:04}_", position + 1)) {
            findings.push(format!("migration {name} should carry the number {:04}", position + 1));
        }
    }
    findings
}

/// Integration tests of a crate are modules of `tests/it`: one binary to link.
pub fn integration_binaries(tree: &Tree) -> Vec<String> {
    tree.ending(".rs")
        .filter_map(|file| {
            let (_, inside) = file.strip_prefix("crates/")?.split_once('/')?;
            let name = inside.strip_prefix("tests/")?;
            (!name.contains('/') || (name.ends_with("/main.rs") && name != "it/main.rs"))
                .then(|| format!("{file} makes a test binary of its own; move it into tests/it/"))
        })
        .collect()
}

//! `arrows.toml` against `cargo metadata`.
//!
//! Promises: a dependency that the file does not allow is a finding, and so is
//! an entry of the file that has no crate any more.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::tree::{self, Tree};

/// One crate of the tree, as arrows.toml allows it.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// What the crate is for, one line.
    pub purpose: String,
    /// Crates of this tree that it may depend on.
    pub may: Vec<String>,
    /// Nobody may depend on it outside tests.
    pub tests_only: bool,
}

/// An arrow that stays forbidden, also through third crates.
#[derive(Debug, Clone)]
pub struct Forbidden {
    /// The crate that must not know.
    pub from: String,
    /// The crate it must not know about.
    pub to: String,
    /// The reason, one sentence.
    pub why: String,
}

/// Outside crates and the only crates of the tree that may name them.
#[derive(Debug, Clone)]
pub struct Outside {
    /// Package names.
    pub names: Vec<String>,
    /// Crates of this tree; empty when nobody may.
    pub owners: Vec<String>,
    /// The reason, one sentence.
    pub why: String,
}

/// The whole of arrows.toml.
#[derive(Debug, Clone, Default)]
pub struct Arrows {
    /// By crate name without the `tipstaff-` prefix.
    pub crates: BTreeMap<String, Allowed>,
    /// Arrows refused on purpose.
    pub forbidden: Vec<Forbidden>,
    /// Owners of outside crates.
    pub outside: Vec<Outside>,
}

/// One dependency as cargo reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The package name.
    pub name: String,
    /// True when only tests, benches and examples see it.
    pub tests_only: bool,
}

/// What cargo says: crate name without prefix → its direct dependencies.
pub type Actual = BTreeMap<String, Vec<Dependency>>;

fn short(name: &str) -> String {
    name.strip_prefix("tipstaff-").unwrap_or(name).to_owned()
}

impl Arrows {
    /// Reads arrows.toml.
    ///
    /// # Errors
    /// When the file is absent or not in the shape described at its head.
    pub fn read(tree: &Tree) -> Result<Arrows> {
        let text = tree.text("xtask/arrows.toml").context("xtask/arrows.toml is absent")?;
        Arrows::parse(&text)
    }

    /// Parses the text of arrows.toml.
    ///
    /// # Errors
    /// When a field is missing or of the wrong type; the message names it.
    pub fn parse(text: &str) -> Result<Arrows> {
        let table: toml::Table = text.parse().context("arrows.toml is not TOML")?;
        let mut arrows = Arrows::default();
        let crates =
            table.get("crates").and_then(toml::Value::as_table).context("no [crates.…] in arrows.toml")?;
        for (name, entry) in crates {
            arrows.crates.insert(
                name.clone(),
                Allowed {
                    purpose: string(entry, "purpose").with_context(|| format!("[crates.{name}]"))?,
                    may: strings(entry, "may").with_context(|| format!("[crates.{name}]"))?,
                    tests_only: entry.get("tests_only").and_then(toml::Value::as_bool).unwrap_or(false),
                },
            );
        }
        for entry in array(&table, "forbidden") {
            arrows.forbidden.push(Forbidden {
                from: string(entry, "from")?,
                to: string(entry, "to")?,
                why: string(entry, "why")?,
            });
        }
        for entry in array(&table, "outside") {
            arrows.outside.push(Outside {
                names: strings(entry, "names")?,
                owners: strings(entry, "owners")?,
                why: string(entry, "why")?,
            });
        }
        Ok(arrows)
    }

    /// Compares the file with what cargo reports.
    pub fn findings(&self, actual: &Actual) -> Vec<String> {
        let mut findings = self.entries_without_a_crate(actual);
        for (name, dependencies) in actual {
            let Some(allowed) = self.crates.get(name) else {
                findings.push(format!(
                    "crate {name} is not in arrows.toml: say what it is for and what it may know"
                ));
                continue;
            };
            for dependency in dependencies {
                let target = short(&dependency.name);
                if actual.contains_key(&target) {
                    findings.extend(self.own_crate_finding(name, allowed, &target, dependency.tests_only));
                } else {
                    findings.extend(self.outside_finding(name, dependency));
                }
            }
        }
        for arrow in &self.forbidden {
            if let Some(path) = path_between(actual, &arrow.from, &arrow.to) {
                findings.push(format!("{} reaches {} by {path}: {}", arrow.from, arrow.to, arrow.why));
            }
        }
        findings
    }

    fn entries_without_a_crate(&self, actual: &Actual) -> Vec<String> {
        let mut findings = Vec::new();
        let named = self
            .crates
            .iter()
            .flat_map(|(name, allowed)| std::iter::once(name).chain(allowed.may.iter()))
            .chain(self.forbidden.iter().flat_map(|arrow| [&arrow.from, &arrow.to]))
            .chain(self.outside.iter().flat_map(|outside| outside.owners.iter()));
        for name in named.collect::<BTreeSet<_>>() {
            if !actual.contains_key(name) {
                findings
                    .push(format!("arrows.toml names the crate {name}, which the workspace does not have"));
            }
        }
        findings
    }

    fn own_crate_finding(&self, from: &str, allowed: &Allowed, to: &str, in_tests: bool) -> Option<String> {
        let target_is_for_tests = self.crates.get(to).is_some_and(|target| target.tests_only);
        let permitted = if in_tests {
            target_is_for_tests || from == to || allowed.may.iter().any(|name| name == to)
        } else {
            !target_is_for_tests && allowed.may.iter().any(|name| name == to)
        };
        let kind = if in_tests { "in its tests " } else { "" };
        (!permitted).then(|| format!("{from} {kind}depends on {to}, and arrows.toml does not allow that"))
    }

    fn outside_finding(&self, from: &str, dependency: &Dependency) -> Option<String> {
        let rule = self.outside.iter().find(|rule| rule.names.contains(&dependency.name))?;
        // A test may use what it likes, unless nobody may.
        if rule.owners.iter().any(|owner| owner == from) || (dependency.tests_only && !rule.owners.is_empty())
        {
            return None;
        }
        let owners = if rule.owners.is_empty() { "nobody".to_owned() } else { rule.owners.join(", ") };
        Some(format!("{from} depends on {}, which belongs to {owners}: {}", dependency.name, rule.why))
    }
}

/// The shortest way from one crate to another over normal dependencies.
fn path_between(actual: &Actual, from: &str, to: &str) -> Option<String> {
    let mut seen = BTreeSet::from([from.to_owned()]);
    let mut paths = vec![vec![from.to_owned()]];
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            let last = path.last().map(String::as_str).unwrap_or_default();
            for dependency in
                actual.get(last).into_iter().flatten().filter(|dependency| !dependency.tests_only)
            {
                let target = short(&dependency.name);
                let mut next = path.clone();
                next.push(target.clone());
                if target == to {
                    return Some(next.join(" → "));
                }
                if seen.insert(target) {
                    longer.push(next);
                }
            }
        }
        paths = longer;
    }
    None
}

/// Asks cargo for the direct dependencies of every crate of the tree.
///
/// # Errors
/// When cargo fails, for example because a Cargo.toml is broken.
pub fn actual(tree: &Tree) -> Result<Actual> {
    let cargo = option_env!("CARGO").filter(|path| std::path::Path::new(path).exists()).unwrap_or("cargo");
    let text =
        tree::run(tree.root(), cargo, &["metadata", "--no-deps", "--offline", "--format-version", "1"])?;
    parse_metadata(&text)
}

fn parse_metadata(text: &str) -> Result<Actual> {
    let metadata: Value = serde_json::from_str(text).context("cargo metadata is not JSON")?;
    let packages =
        metadata.get("packages").and_then(Value::as_array).context("cargo metadata has no packages")?;
    let mut actual = Actual::new();
    for package in packages {
        let name = package.get("name").and_then(Value::as_str).context("a package without a name")?;
        let mut found = Vec::new();
        for dependency in package.get("dependencies").and_then(Value::as_array).into_iter().flatten() {
            let target =
                dependency.get("name").and_then(Value::as_str).context("a dependency without a name")?;
            let tests_only = dependency.get("kind").and_then(Value::as_str) == Some("dev");
            found.push(Dependency { name: target.to_owned(), tests_only });
        }
        actual.insert(short(name), found);
    }
    Ok(actual)
}

fn array<'a>(table: &'a toml::Table, key: &str) -> impl Iterator<Item = &'a toml::Value> {
    table.get(key).and_then(toml::Value::as_array).into_iter().flatten()
}

fn string(entry: &toml::Value, key: &str) -> Result<String> {
    let value = entry.get(key).and_then(toml::Value::as_str);
    value.map(str::to_owned).with_context(|| format!("`{key}` must be a text in: {entry}"))
}

fn strings(entry: &toml::Value, key: &str) -> Result<Vec<String>> {
    let list = entry.get(key).and_then(toml::Value::as_array);
    let list = list.with_context(|| format!("`{key}` must be a list in: {entry}"))?;
    Ok(list.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrows() -> Arrows {
        Arrows::parse(
            r#"
            [crates.low]
            purpose = "p"
            may = []
            [crates.middle]
            purpose = "p"
            may = ["low"]
            [crates.top]
            purpose = "p"
            may = ["middle"]
            [crates.kit]
            purpose = "p"
            may = ["low"]
            tests_only = true
            [[forbidden]]
            from = "top"
            to = "low"
            why = "no."
            [[outside]]
            names = ["sql"]
            owners = ["low"]
            why = "one owner"
            [[outside]]
            names = ["bad"]
            owners = []
            why = "never"
            "#,
        )
        .unwrap()
    }

    fn workspace(extra: &[(&str, &str, bool)]) -> Actual {
        let mut actual: Actual =
            ["low", "middle", "top", "kit"].map(|name| (name.to_owned(), Vec::new())).into();
        for (from, to, tests_only) in extra {
            let dependency = Dependency { name: (*to).to_owned(), tests_only: *tests_only };
            actual.entry((*from).to_owned()).or_default().push(dependency);
        }
        actual
    }

    fn findings(extra: &[(&str, &str, bool)]) -> Vec<String> {
        arrows().findings(&workspace(extra))
    }

    #[test]
    fn allowed_arrows_pass() {
        let extra = [
            ("middle", "tipstaff-low", false),
            ("low", "sql", false),
            ("top", "kit", true),
            ("top", "sql", true),
        ];
        assert_eq!(findings(&extra), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_against_the_direction_is_found() {
        assert!(findings(&[("low", "middle", false)]).concat().contains("low depends on middle"));
        assert!(findings(&[("low", "middle", true)]).concat().contains("in its tests"));
    }

    #[test]
    fn a_detour_to_a_forbidden_crate_is_found() {
        let found = findings(&[("top", "middle", false), ("middle", "low", false)]);
        assert_eq!(found, ["top reaches low by top → middle → low: no."]);
    }

    #[test]
    fn the_test_crate_stays_in_tests() {
        assert!(findings(&[("top", "kit", false)]).concat().contains("does not allow"));
    }

    #[test]
    fn outside_crates_have_owners_and_some_have_none() {
        assert!(findings(&[("top", "sql", false)]).concat().contains("belongs to low"));
        assert!(findings(&[("low", "bad", true)]).concat().contains("belongs to nobody"));
    }

    #[test]
    fn crates_and_entries_must_match_both_ways() {
        let mut actual = workspace(&[]);
        actual.insert("stranger".to_owned(), Vec::new());
        actual.remove("middle");
        let found = arrows().findings(&actual).concat();
        assert!(found.contains("stranger is not in arrows.toml"));
        assert!(found.contains("names the crate middle"));
    }

    #[test]
    fn a_broken_file_names_the_field() {
        let error = Arrows::parse("[crates.low]\nmay = []\n").unwrap_err();
        assert!(format!("{error:#}").contains("purpose"));
    }
}

//! This tree keeps its own rules.

use xtask::arrows::{self, Arrows};
use xtask::tree::{self, Tree};
use xtask::{claims, docs, tidy};

fn tree() -> Tree {
    Tree::open(&tree::root()).expect("the tree can be listed")
}

#[track_caller]
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn arrows_match_cargo_metadata() {
    let tree = tree();
    let arrows = Arrows::read(&tree).expect("arrows.toml");
    none(arrows.findings(&arrows::actual(&tree).expect("cargo metadata")));
}

#[test]
fn files_are_short_enough() {
    let tree = tree();
    for (file, lines) in tidy::long_files(&tree) {
        println!("{file} has {lines} production lines; the aim is {}", tidy::LINES_AIM);
    }
    none(tidy::file_sizes(&tree));
}

#[test]
fn no_work_is_put_off() {
    none(tidy::unfinished_work(&tree()));
}

#[test]
fn only_the_sandbox_is_unsafe() {
    none(tidy::unsafe_code(&tree()));
}

#[test]
fn every_crate_shows_its_readme() {
    none(tidy::crate_fronts(&tree()));
}

#[test]
fn every_crate_takes_the_lints() {
    none(tidy::lints(&tree()));
}

#[test]
fn no_file_names_this_checkout() {
    none(tidy::workplace_paths(&tree()));
}

#[test]
fn scripts_can_be_started() {
    none(tidy::scripts(&tree()));
}

#[test]
fn both_engines_have_the_same_migrations() {
    none(tidy::migrations(&tree()));
}

#[test]
fn every_crate_has_one_integration_binary() {
    none(tidy::integration_binaries(&tree()));
}

#[test]
fn every_invariant_names_its_test() {
    none(claims::invariants(&tree()));
}

#[test]
fn every_security_claim_names_its_place_and_test() {
    none(claims::security_claims(&tree()));
}

#[test]
fn every_link_leads_somewhere() {
    none(claims::links(&tree()));
}

#[test]
fn generated_tables_are_fresh() {
    let tree = tree();
    none(docs::stale(&tree, &docs::from_sources(&tree).expect("generated tables")));
}

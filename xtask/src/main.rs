//! Runs the checks of the house alone, and writes the generated documents.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::process::ExitCode;

use anyhow::{Result, bail};
use xtask::arrows::{self, Arrows};
use xtask::tree::{self, Tree};
use xtask::{claims, docs, limits, tidy};

fn main() -> ExitCode {
    match findings() {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in &findings {
                println!("{finding}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn findings() -> Result<Vec<String>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let tree = Tree::open(&tree::root())?;
    match words.as_slice() {
        ["tidy"] => everything(&tree),
        ["docs"] => {
            docs::write(&tree, &docs::from_sources(&tree)?)?;
            docs::write(&tree, &[docs::command_line(&tree)?])?;
            Ok(Vec::new())
        }
        ["docs", "--check"] => {
            let mut generated = docs::from_sources(&tree)?;
            generated.push(docs::command_line(&tree)?);
            Ok(docs::stale(&tree, &generated))
        }
        _ => bail!("usage: cargo run -p xtask -- tidy | docs [--check]"),
    }
}

fn everything(tree: &Tree) -> Result<Vec<String>> {
    let mut findings = Arrows::read(tree)?.findings(&arrows::actual(tree)?);
    for (_, rule) in tidy::RULES {
        findings.extend(rule(tree));
    }
    for rule in [claims::invariants, claims::security_claims, claims::links] {
        findings.extend(rule(tree));
    }
    findings.extend(limits::findings(tree));
    findings.extend(docs::stale(tree, &docs::from_sources(tree)?));
    for (file, lines) in tidy::long_files(tree) {
        println!("note: {file} has {lines} production lines; the aim is {}", tidy::LINES_AIM);
    }
    Ok(findings)
}

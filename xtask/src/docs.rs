//! Parts of the documents that are written by this program, and the check that
//! they are fresh.
//!
//! A generated part stands between `<!-- generated: NAME -->` and
//! `<!-- end of NAME -->`. The command-line reference is a whole file.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::arrows::Arrows;
use crate::tree::{self, Tree};
use crate::{limits, reference};

/// The reference of the command line, from the binary's own help.
pub const COMMAND_LINE: &str = "docs/command-line.md";

/// What a generated file should hold.
#[derive(Debug, Clone)]
pub struct Generated {
    /// Path from the top of the tree.
    pub path: String,
    /// The whole text of the file as it should be.
    pub text: String,
}

/// Documents that depend on files of the tree alone.
///
/// # Errors
/// When arrows.toml is broken or a mark is missing.
pub fn from_sources(tree: &Tree) -> Result<Vec<Generated>> {
    let arrows = Arrows::read(tree)?;
    let text = tree.text("ARCHITECTURE.md").context("ARCHITECTURE.md is absent")?;
    let text = with_block(&text, "crates", &crate_table(&arrows))?;
    let text = with_block(&text, "owners", &owner_table(&arrows))?;
    let reference = Generated { path: reference::PATH.to_owned(), text: reference::text() };
    let limits = Generated { path: limits::PATH.to_owned(), text: limits::text(tree)? };
    Ok(vec![Generated { path: "ARCHITECTURE.md".to_owned(), text }, reference, limits])
}

/// Every file whose committed text is not what would be generated now.
pub fn stale(tree: &Tree, generated: &[Generated]) -> Vec<String> {
    generated
        .iter()
        .filter(|file| tree.text(&file.path).as_deref() != Some(file.text.as_str()))
        .map(|file| format!("{} is stale: cargo run -p xtask -- docs", file.path))
        .collect()
}

/// Writes the files.
///
/// # Errors
/// When one cannot be written.
pub fn write(tree: &Tree, generated: &[Generated]) -> Result<()> {
    for file in generated {
        fs::write(tree.root().join(&file.path), &file.text)
            .with_context(|| format!("cannot write {}", file.path))?;
    }
    Ok(())
}

fn crate_table(arrows: &Arrows) -> String {
    let mut table = String::from("| crate | purpose | may depend on |\n|---|---|---|\n");
    for (name, allowed) in &arrows.crates {
        let may = if allowed.may.is_empty() { "–".to_owned() } else { allowed.may.join(", ") };
        let note = if allowed.tests_only { " (nobody depends on it outside tests)" } else { "" };
        table.push_str(&format!("| `{name}` | {}{note} | {may} |\n", allowed.purpose));
    }
    table
}

fn owner_table(arrows: &Arrows) -> String {
    let mut table = String::from("| outside crates | owners | why |\n|---|---|---|\n");
    for rule in &arrows.outside {
        let owners = if rule.owners.is_empty() { "nobody".to_owned() } else { rule.owners.join(", ") };
        table.push_str(&format!("| {} | {owners} | {} |\n", rule.names.join(", "), rule.why));
    }
    table.push_str("\nArrows that stay forbidden, also through a third crate:\n\n");
    for arrow in &arrows.forbidden {
        table.push_str(&format!("- {} → {}: {}.\n", arrow.from, arrow.to, arrow.why));
    }
    table
}

fn with_block(text: &str, name: &str, body: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- generated: {name} -->"), format!("<!-- end of {name} -->"));
    let Some((head, rest)) = text.split_once(&begin) else { bail!("no line {begin}") };
    let Some((_, tail)) = rest.split_once(&end) else { bail!("no line {end}") };
    Ok(format!("{head}{begin}\n{body}{end}{tail}"))
}

/// The command-line reference, from the help texts of the built binary.
///
/// # Errors
/// When the binary cannot be built, run, or prints no help.
pub fn command_line(tree: &Tree) -> Result<Generated> {
    let cargo = option_env!("CARGO").filter(|path| std::path::Path::new(path).exists()).unwrap_or("cargo");
    // The very build that the tests use: nothing is compiled twice for the sake of a document.
    let arguments = ["test", "--no-run", "--quiet", "--locked", "--workspace", "--message-format=json"];
    let messages = tree::run(tree.root(), cargo, &arguments)?;
    let binary = messages
        .lines()
        .find_map(executable_named_tipstaff)
        .context("cargo built no binary named tipstaff")?;
    let binary = binary.to_string_lossy();
    let mut text = String::from(
        "# The command line\n\nWritten by `cargo run -p xtask -- docs` from the binary's own help. \
         What the codes and the JSON mean stands in [cli.md](cli.md).\n",
    );
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(words) = waiting.pop() {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = tree::run(tree.root(), &binary, &arguments)?;
        if help.trim().is_empty() {
            bail!("`tipstaff {}` prints nothing", arguments.join(" "));
        }
        let title =
            std::iter::once("tipstaff").chain(words.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
        let help = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        text.push_str(&format!("\n## {title}\n\n```text\n{}\n```\n", help.trim_end()));
        let mut below: Vec<Vec<String>> = subcommands(&help)
            .into_iter()
            .map(|name| words.iter().cloned().chain([name]).collect())
            .collect();
        below.reverse();
        waiting.extend(below);
    }
    Ok(Generated { path: COMMAND_LINE.to_owned(), text })
}

fn executable_named_tipstaff(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let path = PathBuf::from(message.get("executable")?.as_str()?);
    (path.file_stem()? == "tipstaff").then_some(path)
}

/// Names under the heading `Commands:` of a help text.
fn subcommands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| line.get(2..3).is_some_and(|start| start != " "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_replaced_and_the_rest_stays() {
        let text = "head\n<!-- generated: x -->\nold\n<!-- end of x -->\ntail\n";
        let new = with_block(text, "x", "new\n").unwrap();
        assert_eq!(new, "head\n<!-- generated: x -->\nnew\n<!-- end of x -->\ntail\n");
        assert_eq!(with_block(&new, "x", "new\n").unwrap(), new);
        assert!(with_block("no marks", "x", "").is_err());
        assert!(with_block("<!-- generated: x -->", "x", "").is_err());
    }

    #[test]
    fn subcommands_are_read_from_help() {
        let help = "Usage: x\n\nCommands:\n  run     Runs\n          more words\n  runs    Lists\n  help    Print\n\nOptions:\n  -h\n";
        assert_eq!(subcommands(help), ["run", "runs"]);
        assert!(subcommands("Usage: x\n").is_empty());
    }
}

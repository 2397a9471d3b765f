//! Documents that make claims: each claim names a test that exists, each link
//! leads somewhere.
//!
//! A test is named `crate::words::test_name`; the first part is a crate of this
//! tree (or `xtask`), the last a test function in it. A case that must not
//! compile is named `doctest crates/…/file.rs`.

use crate::code;
use crate::tree::Tree;

/// Why `reference` does not lead to a test; `None` when it does.
pub fn test_reference_problem(tree: &Tree, reference: &str) -> Option<String> {
    let reference = reference.trim().trim_matches('`').trim();
    if let Some(file) = reference.strip_prefix("doctest ") {
        let text = tree.text(file.trim());
        return match text {
            Some(text) if text.contains("compile_fail") || text.contains("```") => None,
            Some(_) => Some(format!("{file} has no example that is tested")),
            None => Some(format!("{file} does not exist")),
        };
    }
    let mut parts = reference.split("::");
    let (Some(owner), Some(test)) = (parts.next(), parts.last()) else {
        return Some(format!("`{reference}` is not of the form crate::test_name"));
    };
    let folder = if owner == "xtask" { "xtask/".to_owned() } else { format!("crates/{owner}/") };
    let found = tree.ending(".rs").filter(|file| file.starts_with(&folder)).any(|file| {
        let text = tree.text(file).unwrap_or_default();
        // A test made by a macro stands in the test folder by its bare name.
        text.contains(&format!("fn {test}(")) || (file.contains("/tests/") && code::has_word(&text, test))
    });
    (!found).then(|| format!("no test `{test}` in {folder}"))
}

/// Sentences of ARCHITECTURE.md that begin `**Invariant:**`. Each ends with
/// `(test: name, name)`.
pub fn invariants(tree: &Tree) -> Vec<String> {
    let text = tree.text("ARCHITECTURE.md").unwrap_or_default();
    let mut findings = Vec::new();
    let mut count = 0;
    for paragraph in text.split("\n\n").flat_map(|paragraph| paragraph.split("\n- ")) {
        let Some(position) = paragraph.find("**Invariant:**") else { continue };
        count += 1;
        let flat =
            paragraph.get(position..).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let named =
            flat.rsplit_once("(test: ").and_then(|(_, tail)| tail.split_once(')')).map(|(names, _)| names);
        match named {
            None => findings.push(format!("ARCHITECTURE.md: names no test: {flat}")),
            Some(names) => findings.extend(
                names
                    .split(", ")
                    .filter_map(|name| test_reference_problem(tree, name))
                    .map(|problem| format!("ARCHITECTURE.md: {problem}")),
            ),
        }
    }
    if count == 0 {
        findings.push("ARCHITECTURE.md states no invariant".to_owned());
    }
    findings
}

/// Rows of the table in SECURITY.md whose head is `Claim | Where | Test`.
pub fn security_claims(tree: &Tree) -> Vec<String> {
    let text = tree.text("SECURITY.md").unwrap_or_default();
    let mut findings = Vec::new();
    let mut rows = 0;
    let mut inside = false;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split(" | ").map(str::trim).collect();
        if !line.starts_with('|') {
            inside = false;
        } else if cells == ["Claim", "Where", "Test"] {
            inside = true;
        } else if inside && !line.starts_with("|--") && !line.starts_with("| --") {
            rows += 1;
            let [claim, places, tests] = cells.as_slice() else {
                findings.push(format!("SECURITY.md: not three cells: {line}"));
                continue;
            };
            for place in places.split(", ").map(|place| place.trim_matches('`')) {
                if !tree.has(place) {
                    findings.push(format!(
                        "SECURITY.md: \"{claim}\" is enforced in {place}, which does not exist"
                    ));
                }
            }
            for test in tests.split(", ") {
                if let Some(problem) = test_reference_problem(tree, test) {
                    findings.push(format!("SECURITY.md: \"{claim}\": {problem}"));
                }
            }
        }
    }
    if rows == 0 {
        findings.push("SECURITY.md has no row under Claim | Where | Test".to_owned());
    }
    findings
}

/// Relative links of every document, with their anchors.
pub fn links(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.ending(".md") {
        let text = prose(&tree.text(file).unwrap_or_default());
        for (_, rest) in text.match_indices("](").filter_map(|(at, _)| text.split_at_checked(at + 2)) {
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            let outside = ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme));
            if !outside && let Some(problem) = link_problem(tree, file, target) {
                findings.push(format!("{file}: {problem}"));
            }
        }
    }
    findings
}

fn link_problem(tree: &Tree, from: &str, target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if path.is_empty() {
        from.to_owned()
    } else {
        let Some(file) = joined(from, path) else {
            return Some(format!("the link {target} leaves the tree"));
        };
        file
    };
    if !tree.has(&file) {
        return Some(format!("the link {target} leads nowhere"));
    }
    if anchor.is_empty() || !file.ends_with(".md") {
        return None;
    }
    let text = prose(&tree.text(&file).unwrap_or_default());
    let known = text.lines().filter(|line| line.starts_with('#')).any(|heading| slug(heading) == anchor);
    (!known).then(|| format!("the link {target} names a heading that is not there"))
}

/// `path` as seen from the file `from`, without `.` and `..`.
fn joined(from: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The anchor that a renderer gives a heading.
fn slug(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|character| character.is_alphanumeric() || " -_".contains(*character))
        .map(|character| if character == ' ' { '-' } else { character })
        .collect()
}

/// The document without its code blocks.
fn prose(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            kept.push_str(line);
        }
        kept.push('\n');
    }
    kept
}

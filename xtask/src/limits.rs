//! `docs/limits.md`: every bound of the product in one table, with its owner, its value and what happens there.
//!
//! Promises: the limits of a run are those of the model; the broker's are those of its own table, which a test of the
//! broker holds against its code; every other row names the constant that holds it, and a constant with another value
//! makes the checks fail.

use anyhow::{Context, Result};
use tipstaff_model::Limits;

use crate::tree::Tree;

/// Where the document lies.
pub const PATH: &str = "docs/limits.md";

/// The broker's table; see `crates/broker/src/limits.rs`.
const BROKER: &str = "crates/broker/README.md";

/// A bound that a constant holds.
struct Constant {
    what: &'static str,
    file: &'static str,
    name: &'static str,
    /// What stands behind the `=`.
    expression: &'static str,
    value: &'static str,
    at_bound: &'static str,
}

const fn constant(
    what: &'static str,
    place: (&'static str, &'static str, &'static str),
    value: &'static str,
    at_bound: &'static str,
) -> Constant {
    let (file, name, expression) = place;
    Constant { what, file, name, expression, value, at_bound }
}

const CONSTANTS: &[Constant] = &[
    constant(
        "silence of the control plane before a run is stopped",
        ("crates/runner/src/supervise.rs", "SILENCE_MS", "45_000"),
        "45 s",
        "the run is stopped before its lease can go to another worker",
    ),
    constant(
        "lease of a worker on a task",
        ("crates/store/src/lease.rs", "LEASE_MS", "60_000"),
        "60 s",
        "another worker may take the task; the old one can write nothing",
    ),
    constant(
        "disk that stays free for the audit log",
        ("crates/runner/src/supervise.rs", "DISK_RESERVE", "512 * 1024 * 1024"),
        "512 MiB",
        "the run is stopped",
    ),
    constant(
        "time that an agent has to end by itself after its budget",
        ("crates/runner/src/supervise.rs", "LAST_WORDS", "Duration::from_secs(20)"),
        "20 s",
        "the run is ended",
    ),
    constant(
        "time for collecting a result",
        ("crates/runner/src/collect.rs", "TIME", "Duration::from_secs(110)"),
        "110 s",
        "the collection is ended; what the command pushed stays",
    ),
    constant(
        "patch of a refused change that is kept",
        ("crates/runner/src/collect.rs", "PATCH", "32 * 1024 * 1024"),
        "32 MiB",
        "cut",
    ),
    constant(
        "`tipstaff.toml`, bytes",
        ("crates/runner/src/project.rs", "LARGEST", "256 * 1024"),
        "256 KiB",
        "`project-file`",
    ),
    constant(
        "commands of a verification",
        ("crates/runner/src/project.rs", "MOST_COMMANDS", "50"),
        "50",
        "`project-file`",
    ),
    constant(
        "patterns of a list in `[push]`",
        ("crates/runner/src/project.rs", "MOST_PATTERNS", "200"),
        "200",
        "`project-file`",
    ),
    constant(
        "home of an agent, bytes",
        ("crates/runner/src/compile.rs", "AGENT_HOME_BYTES", "512 * 1024 * 1024"),
        "512 MiB",
        "no space left, inside only",
    ),
    constant(
        "line of an agent's output that is read as an event",
        ("crates/engine/src/session.rs", "LINE", "4 * 1024 * 1024"),
        "4 MiB",
        "kept as text, cut",
    ),
    constant(
        "tool calls of an agent that are open at once",
        ("crates/engine/src/session.rs", "OPEN_CALLS", "4096"),
        "4096",
        "the oldest is forgotten",
    ),
    constant(
        "value of a secret, bytes",
        ("crates/tipstaff/src/commands/secrets.rs", "LARGEST", "64 << 10"),
        "64 KiB",
        "`secret-too-large`",
    ),
    constant(
        "name of a secret, bytes",
        ("crates/store/src/secret.rs", "SECRET_NAME_LIMIT", "200"),
        "200",
        "`secret-name`",
    ),
    constant(
        "plaintext that is sealed at once, bytes",
        ("crates/seal/src/ring/mod.rs", "SEALED_PLAINTEXT_LIMIT", "1 << 20"),
        "1 MiB",
        "`sealed-too-large`",
    ),
    constant(
        "line of an exported audit log, bytes",
        ("crates/seal/src/log/export.rs", "EXPORT_LINE_LIMIT", "1 << 20"),
        "1 MiB",
        "the export does not verify",
    ),
    constant(
        "text of a refusal or of an audit detail, characters",
        ("crates/model/src/refusal.rs", "LONGEST_TEXT", "300"),
        "300",
        "cut",
    ),
    constant(
        "wait for another process's write to SQLite",
        ("crates/store/src/config.rs", "BUSY_TIMEOUT_MS", "30_000"),
        "30 s",
        "`database-locked`; nothing was written",
    ),
    constant(
        "attempts at a queued task whose worker dies",
        ("crates/tipstaff/src/commands/run.rs", "ATTEMPTS", "3"),
        "3",
        "failed",
    ),
];

/// Who holds a limit of a run, and what happens there.
fn of_run(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "wall_ms" => ("runner", "the run is ended: `timed_out`, exit code 5; its work is kept"),
        "processes" => ("cgroup, else rlimit", "fork fails inside"),
        "memory_bytes" => ("cgroup", "the kernel ends a process of the run: `out_of_memory`"),
        "cpu_percent" => ("cgroup", "throttled"),
        "disk_bytes" => ("runner", "the run is ended: `out_of_disk`"),
        "file_bytes" => ("rlimit; broker for objects of a push", "the write fails; `push-too-large`"),
        "open_files" => ("rlimit", "open fails inside"),
        "tmp_bytes" => ("tmpfs", "no space left, inside only"),
        "output_bytes" => {
            ("runner", "the rest is dropped and counted; how an agent ended is read in the last 256 KiB")
        }
        "push_bytes" | "push_objects" | "push_files" => ("broker", "remote rejected"),
        "egress_sent_bytes" | "egress_received_bytes" => ("broker", "cut, `egress-spent`"),
        "egress_requests" => ("broker", "403, `egress-spent`"),
        _ => return None,
    })
}

/// The whole document.
///
/// # Errors
/// When the broker's table is not where it should be, or a limit of a run has no owner here.
pub fn text(tree: &Tree) -> Result<String> {
    let mut text = String::from(
        "# Limits\n\n\
         Written by `cargo run -p xtask -- docs`. Every bound, its owner, its value, and what happens there: *reject* with a\n\
         rule's id, *close*, *cut*, *shed* or *back-pressure*. Nothing is kept before its bound was checked. Where the owner is\n\
         `warrant`, the value is the run's own: a default from the first table, lowered by a role, an option or a narrowing,\n\
         never raised.\n\n\
         ## Of a run, in its warrant\n\n\
         | bound | owner | default | at the bound |\n|---|---|---|---|\n",
    );
    for (name, value) in Limits::default().rows() {
        let (owner, at_bound) = of_run(name).with_context(|| format!("{name} has no owner in {PATH}"))?;
        text.push_str(&format!("| `{name}` | {owner} | {} | {at_bound} |\n", amount(name, value)));
    }
    text.push_str("\n## Of the broker\n\n");
    let readme = tree.text(BROKER).context("the broker has no README")?;
    let table: Vec<&str> = readme
        .lines()
        .skip_while(|line| !line.starts_with("<!-- limits:"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .collect();
    anyhow::ensure!(table.len() > 2, "{BROKER} has no table of bounds behind its mark");
    text.push_str(&table.join("\n"));
    text.push_str(
        "\n\n## Of everything else\n\n| bound | owner | value | at the bound |\n|---|---|---|---|\n",
    );
    for Constant { what, file, name, value, at_bound, .. } in CONSTANTS {
        let place = file.trim_start_matches("crates/").replace("/src/", "::").replace(".rs", "");
        text.push_str(&format!("| {what} | `{place}::{name}` | {value} | {at_bound} |\n"));
    }
    Ok(text)
}

fn amount(name: &str, value: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    match name {
        "wall_ms" => format!("{} min", value / 60_000),
        "cpu_percent" => format!("{value} % of a core"),
        _ if name.ends_with("_bytes") && value >= 1024 * MIB => format!("{} GiB", value / (1024 * MIB)),
        _ if name.ends_with("_bytes") => format!("{} MiB", value / MIB),
        _ => value.to_string(),
    }
}

/// Rows whose constant is not there, or has another value.
pub fn findings(tree: &Tree) -> Vec<String> {
    CONSTANTS
        .iter()
        .filter(|row| {
            let source = tree.text(row.file).unwrap_or_default();
            let (front, back) = (format!("const {}: ", row.name), format!("= {};", row.expression));
            !source.lines().any(|line| line.contains(&front) && line.ends_with(&back))
        })
        .map(|row| format!("{PATH}: {} does not hold `{}` = {}", row.file, row.name, row.expression))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree;

    #[test]
    fn every_row_is_what_the_code_says() {
        let tree = Tree::open(&tree::root()).unwrap();
        assert_eq!(findings(&tree), Vec::<String>::new());
        let text = text(&tree).unwrap();
        assert!(text.contains("| `push_objects` | broker | 100000 |"));
        assert!(text.contains("connections of one run at once"));
    }
}

//! `docs/reference.md`, written from the constants of the model: what a rule's
//! id means, what a role may do, where every limit stands.
//!
//! Promises: a rule, role, limit, state or word that the model gains appears in
//! the document, or the test of fresh documents fails.

use std::fmt::Write as _;

use tipstaff_model::{AgentRole, AuditAction, ExitReason, Limits, Rule, RunState};

/// Where the document lies.
pub const PATH: &str = "docs/reference.md";

/// The whole document.
pub fn text() -> String {
    let mut text = String::from(
        "# Reference\n\n\
         Written by `cargo run -p xtask -- docs` from the code that decides. Do not edit it by hand.\n",
    );
    rules(&mut text);
    roles(&mut text);
    limits(&mut text);
    states(&mut text);
    exit_reasons(&mut text);
    audit_actions(&mut text);
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = text.write_fmt(line);
    text.push('\n');
}

fn rules(text: &mut String) {
    text.push_str(
        "\n## Rules that refuse\n\nEvery refusal names one of these ids: in git's output, in `refusals`, in the audit log.\n\n\
         | rule | what to do next |\n|---|---|\n",
    );
    for rule in Rule::ALL {
        line(text, format_args!("| `{}` | {} |", rule.id(), rule.next_step()));
    }
}

fn roles(text: &mut String) {
    text.push_str(
        "\n## Roles\n\nA role is a template; the run's options are laid over it. Protected paths stay protected whatever `write` says.\n\n\
         | role | kind | may execute | may push | paths it may write | budget | time |\n|---|---|---|---|---|---|---|\n",
    );
    for role in AgentRole::ALL {
        let template = role.template();
        let write: Vec<String> =
            template.write.iter().map(|pattern| format!("`{}`", pattern.as_str())).collect();
        let write = if write.is_empty() { "none".to_owned() } else { write.join(" ") };
        let (exec, push) = (yes_or_no(template.exec), yes_or_no(template.kind.may_push()));
        let minutes = template.limits.wall_ms / 60_000;
        line(
            text,
            format_args!(
                "| {role} | {} | {exec} | {push} | {write} | {} | {minutes} min |",
                template.kind, template.budget
            ),
        );
    }
    text.push_str("\nProtected, by role:\n\n");
    for role in AgentRole::ALL {
        let protected: Vec<String> =
            role.template().protected.iter().map(|pattern| format!("`{}`", pattern.as_str())).collect();
        line(text, format_args!("- {role}: {}", protected.join(" ")));
    }
}

fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn limits(text: &mut String) {
    text.push_str("\n## Limits of a run\n\nDefaults; a role or an option may lower them. Who holds them, and every other bound: [limits.md](limits.md).\n\n| limit | default |\n|---|---|\n");
    for (name, value) in Limits::default().rows() {
        line(text, format_args!("| `{name}` | {value} |"));
    }
}

fn states(text: &mut String) {
    text.push_str("\n## States of a run\n\n| state | final | may become |\n|---|---|---|\n");
    for state in RunState::ALL {
        let next: Vec<&str> =
            RunState::ALL.into_iter().filter(|next| state.may_become(*next)).map(RunState::as_str).collect();
        line(text, format_args!("| `{state}` | {} | {} |", yes_or_no(state.is_final()), next.join(", ")));
    }
}

fn exit_reasons(text: &mut String) {
    text.push_str("\n## Why a run ended\n\n| `exit_reason` | exit code of `tipstaff run` |\n|---|---|\n");
    for reason in ExitReason::ALL {
        line(text, format_args!("| `{reason}` | {} |", reason.exit_code()));
    }
}

fn audit_actions(text: &mut String) {
    text.push_str("\n## Words of the audit log\n\n");
    for action in AuditAction::ALL {
        line(text, format_args!("- `{action}`"));
    }
}

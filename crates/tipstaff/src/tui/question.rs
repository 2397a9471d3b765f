//! A question to a person, in rows.

use crate::commands::approvals::exact;
use crate::output::{Tone, time};
use crate::tui::facts::since;
use crate::tui::text::{cut, tame, tame_line, width, wrap};
use crate::tui::view::{Look, Strip, brief, strip, tone_of};
use tipstaff_model::{ActionKind, Approval, Risk};

/// Digits of a digest that are shown.
const DIGEST: usize = 12;

/// How a risk is shown.
pub(crate) const fn risk_tone(risk: Risk) -> Tone {
    match risk {
        Risk::Low => Tone::Good,
        Risk::Medium => Tone::Bold,
        Risk::High => Tone::Warn,
        Risk::Critical => Tone::Bad,
    }
}

const fn verb(kind: ActionKind) -> &'static str {
    match kind {
        ActionKind::Read => "wants to read",
        ActionKind::Edit => "wants to change",
        ActionKind::Execute => "wants to execute",
        ActionKind::Fetch => "wants to ask a host",
        ActionKind::Other => "wants to be used",
    }
}

/// What the action is about: commands, paths and hosts, or its arguments where it names none.
fn objects(approval: &Approval) -> Vec<String> {
    let action = &approval.request.action;
    let mut lines = Vec::new();
    // What is judged is shown as it is: nothing is taken out, what would be obeyed or hidden becomes visible.
    let line = |text: &str| tame_line(&exact(text));
    for command in &action.commands {
        for (number, line) in tame(&exact(command)).lines().enumerate() {
            lines.push(format!("{} {line}", if number == 0 { "$" } else { ">" }));
        }
    }
    lines.extend(action.paths.iter().map(|path| line(path)));
    lines.extend(action.hosts.iter().map(|host| line(host)));
    if lines.is_empty() {
        lines.push(line(&action.title));
        if !action.input.is_null() {
            lines.push(line(&action.input.to_string()));
        }
    }
    lines
}

/// The question in at most `most` rows, and whether nothing of it is left out.
pub(crate) fn question_rows(
    approval: &Approval,
    (place, all): (usize, usize),
    now: i64,
    columns: usize,
    most: usize,
) -> (Vec<Strip>, bool) {
    let request = &approval.request;
    let of = if all > 1 { format!(" ({place} of {all}, Tab)") } else { String::new() };
    let left = brief(since(now, request.expires_at));
    let head = format!("approval {}{of}  ", request.id.short());
    let risk = format!("{} risk", request.risk);
    let tail = format!("  means no in {left} ");
    let line = "-".repeat(columns.saturating_sub(3 + width(&head) + width(&risk) + width(&tail)));
    let mut rows = vec![vec![
        (Look::Tone(Tone::Warn), "-- ".to_owned()),
        (Look::Tone(Tone::Bold), head),
        (tone_of(request.risk), risk),
        (Look::Plain, tail),
        (Look::Tone(Tone::Dim), line),
    ]];
    let tool = cut(&tame_line(&request.action.tool), columns / 2);
    let digest: String = request.digest.as_str().chars().take(DIGEST).collect();
    let first = vec![
        (Look::Tone(Tone::Bold), tool),
        (Look::Plain, format!(" {}:", verb(request.action.kind))),
        (Look::Tone(Tone::Dim), format!("  digest {digest}")),
    ];
    let mut content = Vec::new();
    for line in objects(approval) {
        let parts = wrap(&line, columns.saturating_sub(2));
        content.extend(parts.into_iter().map(|row| strip(Look::Tone(Tone::Bold), format!("  {row}"))));
    }
    for why in &request.because {
        let parts = wrap(&tame_line(why), columns.saturating_sub(4));
        content.extend(parts.into_iter().enumerate().map(|(number, row)| {
            strip(Look::Plain, format!("{} {row}", if number == 0 { " -" } else { "  " }))
        }));
    }
    rows.push(first);
    // Two rows stand above the content, one below.
    let room = most.saturating_sub(3).max(1);
    let whole = content.len() <= room;
    if !whole {
        let kept = room.saturating_sub(1);
        let more = content.len() - kept;
        content.truncate(kept);
        content.push(strip(Look::Mark, format!("  ... {more} more rows: v shows all of it ")));
    }
    rows.extend(content);
    rows.push(strip(
        Look::Mark,
        cut(" a once   r for this run   p for paths   n no   v all of it ", columns),
    ));
    (rows, whole)
}

/// All that is known about a question.
pub(crate) fn whole_action(approval: &Approval, now: i64) -> String {
    let request = &approval.request;
    let action = &request.action;
    let mut text = format!(
        "{} {}\n{}\n\nrisk     {}\n",
        exact(&action.tool),
        verb(action.kind),
        exact(&action.title),
        request.risk
    );
    for why in &request.because {
        text.push_str(&format!("         - {}\n", exact(why)));
    }
    text.push_str(&format!(
        "asked    {} UTC, {} ago\nends     {} UTC, and means no from then on\napproval {}\nwarrant  {}\ndigest   {}\n",
        time(request.asked_at),
        brief(since(request.asked_at, now)),
        time(request.expires_at),
        request.id,
        request.warrant,
        request.digest,
    ));
    let lists =
        [("commands", &action.commands), ("files and folders", &action.paths), ("hosts", &action.hosts)];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        text.push_str(&format!("\n{name}:\n"));
        for one in list {
            for line in exact(one).lines() {
                text.push_str(&format!("  {line}\n"));
            }
        }
    }
    let input = serde_json::to_string_pretty(&action.input).unwrap_or_else(|_| action.input.to_string());
    text.push_str(&format!("\narguments, as the agent sent them:\n{}\n", exact(&input)));
    text
}

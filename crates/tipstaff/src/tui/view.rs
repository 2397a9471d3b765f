//! The screen, drawn: a pure function of the state into cells. Only ASCII is drawn by us, no colour says what a word does
//! not say too.

use crate::output::{Tone, span, time};
use crate::tui::facts::since;
use crate::tui::question::{question_rows, risk_tone};
use crate::tui::screen::{SMALLEST, Screen, View};
use crate::tui::story::Row;
use crate::tui::text::{cut, tail, tame_line, width, wrap};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use tipstaff_model::{FileChangeKind, MicroUsd, RunState};

pub(crate) use crate::tui::question::whole_action;

/// Rows above the body: five of the head and a rule.
const HEAD: usize = 6;
/// Rows below the body: what was said last, and the keys.
const FOOT: usize = 2;
/// From how many columns on there is a second column, and how wide it is.
const WIDE: usize = 110;
const SIDE: usize = 38;

/// How a piece of a row looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// As text.
    Plain,
    /// In a tone.
    Tone(Tone),
    /// Turned around.
    Mark,
}

/// One row: pieces from left to right.
pub(crate) type Strip = Vec<(Look, String)>;

/// A row in one look.
pub(crate) fn strip(look: Look, text: impl Into<String>) -> Strip {
    vec![(look, text.into())]
}

impl Look {
    fn style(self, colour: bool) -> Style {
        let plain = Style::new();
        match self {
            Self::Plain => plain,
            Self::Mark => plain.add_modifier(Modifier::REVERSED),
            Self::Tone(Tone::Bold) => plain.add_modifier(Modifier::BOLD),
            Self::Tone(Tone::Dim) if colour => plain.add_modifier(Modifier::DIM),
            Self::Tone(Tone::Good) if colour => plain.fg(Color::Green),
            Self::Tone(Tone::Bad) if colour => plain.fg(Color::Red).add_modifier(Modifier::BOLD),
            Self::Tone(Tone::Warn) if colour => plain.fg(Color::Yellow),
            Self::Tone(Tone::Bad | Tone::Warn) => plain.add_modifier(Modifier::BOLD),
            Self::Tone(Tone::Dim | Tone::Good) => plain,
        }
    }
}

fn columns(screen: &Screen) -> usize {
    usize::from(screen.size.0)
}

fn body_rows(screen: &Screen) -> usize {
    usize::from(screen.size.1).saturating_sub(HEAD + FOOT)
}

/// Columns and rows of the body where it is shown alone.
pub(crate) fn body(screen: &Screen) -> (usize, usize) {
    (columns(screen), body_rows(screen))
}

/// Columns and rows of the session.
pub(crate) fn room(screen: &Screen) -> (usize, usize) {
    let side = if columns(screen) >= WIDE { SIDE + 3 } else { 0 };
    let question = match screen.view {
        View::Session => question(screen).0.len(),
        _ => 0,
    };
    (columns(screen).saturating_sub(side), body_rows(screen).saturating_sub(question))
}

/// The question that waits, in rows, and whether nothing of it is left out.
fn question(screen: &Screen) -> (Vec<Strip>, bool) {
    let Some(approval) = screen.question() else { return (Vec::new(), true) };
    let most = (body_rows(screen) * 2 / 3).max(6);
    question_rows(approval, screen.question_place(), screen.now.now, columns(screen), most)
}

/// Whether the whole question is on the screen.
pub(crate) fn shows_whole_question(screen: &Screen) -> bool {
    screen.fits() && question(screen).1
}

/// Draws the screen.
pub(crate) fn render(screen: &Screen, area: Rect, buffer: &mut Buffer, colour: bool) {
    paint(&rows(screen), area, buffer, colour);
}

/// Puts rows into cells.
pub(crate) fn paint(rows: &[Strip], area: Rect, buffer: &mut Buffer, colour: bool) {
    for (row, y) in rows.iter().zip(area.top()..area.bottom()) {
        let mut x = area.left();
        for (look, text) in row {
            let left = usize::from(area.right().saturating_sub(x));
            x = buffer.set_stringn(x, y, text, left, look.style(colour)).0;
        }
    }
}

/// All rows of the screen, from the top.
pub(crate) fn rows(screen: &Screen) -> Vec<Strip> {
    if !screen.fits() {
        return too_small(screen);
    }
    let mut rows = head(screen);
    let body = match screen.view {
        View::Session => session(screen),
        View::Change => change(screen),
        View::Blocked => blocked(screen),
        View::Action => plain_rows(screen.action.shown()),
        View::Help => help(screen),
    };
    let height = usize::from(screen.size.1);
    rows.extend(body.into_iter().take(height.saturating_sub(HEAD + FOOT)));
    rows.resize(height.saturating_sub(FOOT), Strip::new());
    rows.push(said(screen));
    rows.push(strip(Look::Tone(Tone::Dim), cut(keys(screen), columns(screen))));
    rows
}

fn too_small(screen: &Screen) -> Vec<Strip> {
    let (columns, rows) = screen.size;
    let (wanted_columns, wanted_rows) = SMALLEST;
    let wait = match screen.now.pending.len() {
        0 => "",
        _ => " A question waits for you.",
    };
    let text = format!(
        "The terminal has {columns}x{rows}; this view needs {wanted_columns}x{wanted_rows}. Make it larger, or press q: \
         the run goes on.{wait} It is {}.",
        screen.now.state.as_str().replace('_', " ")
    );
    wrap(&text, usize::from(columns)).into_iter().map(|row| strip(Look::Plain, row)).collect()
}

const fn state_tone(state: RunState) -> Tone {
    match state {
        RunState::Done => Tone::Good,
        RunState::Failed | RunState::Cancelled | RunState::Interrupted => Tone::Bad,
        RunState::NeedsInput => Tone::Warn,
        _ => Tone::Bold,
    }
}

fn head(screen: &Screen) -> Vec<Strip> {
    let (facts, now, columns) = (&screen.facts, &screen.now, columns(screen));
    let mut first = vec![
        (Look::Tone(Tone::Bold), format!("run {}  ", facts.run.short())),
        (Look::Tone(state_tone(now.state)), now.state.as_str().replace('_', " ")),
    ];
    if let Some(reason) = now.reason.filter(|_| now.state != RunState::Done) {
        first.push((Look::Plain, format!(" ({reason})")));
    }
    if screen.paused {
        first.push((Look::Mark, " PAUSED ".to_owned()));
    }
    let left = now.left_ms().map(|left| format!(", {} left", brief(left))).unwrap_or_default();
    first.push((Look::Plain, format!("  {}{left}", brief(now.elapsed_ms()))));
    let privacy = facts.privacy.as_ref().map(|class| format!("  session {class}")).unwrap_or_default();
    let place = format!("{} -> {}", facts.repository, facts.branch);
    let title = match screen.view {
        View::Session => "session",
        View::Change => "change",
        View::Blocked => "blocked",
        View::Action => "the whole action",
        View::Help => "keys",
    };
    vec![
        first,
        strip(Look::Plain, cut(&tame_line(&place), columns)),
        strip(Look::Plain, cut(&tame_line(&format!("{}{privacy}", facts.who)), columns)),
        money(screen),
        doing(screen),
        rule(title, columns),
    ]
}

/// A rule with a title.
pub(crate) fn rule(title: &str, columns: usize) -> Strip {
    let line = "-".repeat(columns.saturating_sub(width(title) + 4));
    vec![
        (Look::Tone(Tone::Dim), "-- ".to_owned()),
        (Look::Tone(Tone::Bold), title.to_owned()),
        (Look::Tone(Tone::Dim), format!(" {line}")),
    ]
}

fn money(screen: &Screen) -> Strip {
    let spent = screen.now.spent;
    let Some(budget) = screen.now.warrant.map(|warrant| warrant.budget) else {
        return strip(Look::Plain, format!("cost {spent}"));
    };
    let cells = 20;
    let share = spent.micro().saturating_mul(100) / budget.micro().max(1);
    let tone = match share {
        0..75 => Tone::Good,
        75..100 => Tone::Warn,
        _ => Tone::Bad,
    };
    vec![
        (Look::Plain, "cost [".to_owned()),
        (Look::Tone(tone), bar(spent, budget, cells)),
        (Look::Plain, format!("] {spent} of {budget} ({share}%)  {}", changed(screen))),
    ]
}

/// How much of a budget is spent, in cells; what is not nothing fills at least one.
fn bar(spent: MicroUsd, budget: MicroUsd, cells: usize) -> String {
    let most = u64::try_from(cells).unwrap_or(1);
    let full = spent.micro().saturating_mul(most).div_ceil(budget.micro().max(1)).min(most);
    let full = usize::try_from(full).unwrap_or(cells);
    format!("{}{}", "#".repeat(full), ".".repeat(cells.saturating_sub(full)))
}

fn changed(screen: &Screen) -> String {
    let files = |count: u64| format!("{count} file{}", if count == 1 { "" } else { "s" });
    match screen.now.change {
        Some((count, added, deleted)) => format!("{} +{added} -{deleted}", files(count)),
        None => match u64::try_from(screen.files.len()).unwrap_or(0) {
            0 => "no change so far".to_owned(),
            count => format!("{} so far", files(count)),
        },
    }
}

/// What the run does now.
fn doing(screen: &Screen) -> Strip {
    let now = &screen.now;
    let columns = columns(screen);
    let label = (Look::Tone(Tone::Bold), "now  ".to_owned());
    let (tone, text) = match (now.state, now.pending.len(), screen.tools.last()) {
        (state, _, _) if state.is_final() => match &now.error {
            Some(error) => (Tone::Bad, tame_line(error)),
            None => (Tone::Dim, "the run has ended".to_owned()),
        },
        (_, 1.., _) => (Tone::Warn, format!("waits for you: {}", counted(now.pending.len(), "question"))),
        _ if screen.paused => {
            (Tone::Warn, "every process of the run stands still; space lets it go on".to_owned())
        }
        (RunState::Queued | RunState::Preparing, _, _) => {
            (Tone::Dim, "the workspace and the sandbox are made".to_owned())
        }
        (RunState::Verifying, _, _) => (Tone::Bold, "the result is collected and checked".to_owned()),
        (_, _, Some(tool)) => {
            let more = match screen.tools.len() {
                0 | 1 => String::new(),
                all => format!(", {} more", all - 1),
            };
            let took = format!(" ({}{more})", brief(since(tool.since, now.now)));
            let what = cut(&tool.what, columns.saturating_sub(5 + width(&took)));
            (Tone::Bold, format!("{what}{took}"))
        }
        _ => (Tone::Dim, "no tool is in use".to_owned()),
    };
    vec![label, (Look::Tone(tone), cut(&text, columns.saturating_sub(5)))]
}

/// A span in whole seconds: what counts up on a screen needs no tenths.
pub(crate) fn brief(ms: u64) -> String {
    if ms < 60_000 { format!("{}s", ms / 1_000) } else { span(ms) }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn plain_rows<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Strip> {
    rows.map(|row| strip(row.tone.map_or(Look::Plain, Look::Tone), row.text.clone())).collect()
}

fn session(screen: &Screen) -> Vec<Strip> {
    let (story_width, height) = room(screen);
    let mut rows = plain_rows(screen.story.shown());
    rows.resize(height, Strip::new());
    if columns(screen) >= WIDE {
        let side = side(screen, height);
        for (row, side) in rows.iter_mut().zip(side) {
            let taken: usize = row.iter().map(|(_, text)| width(text)).sum();
            row.push((Look::Plain, " ".repeat(story_width.saturating_sub(taken))));
            row.push((Look::Tone(Tone::Dim), " | ".to_owned()));
            row.extend(side);
        }
    }
    rows.extend(question(screen).0);
    rows
}

/// The second column of a wide screen.
fn side(screen: &Screen, height: usize) -> Vec<Strip> {
    let mut rows = vec![strip(Look::Tone(Tone::Bold), format!("change: {}", changed(screen)))];
    rows.extend(screen.files.iter().take(height / 2).map(|file| file_row(file, SIDE)));
    rows.resize(height / 2 + 1, Strip::new());
    rows.push(strip(Look::Tone(Tone::Bold), format!("blocked: {}", screen.now.refused.len())));
    for one in screen.now.refused.iter().rev() {
        rows.push(strip(Look::Tone(Tone::Warn), cut(&tame_line(&one.refusal.wanted), SIDE)));
        rows.push(strip(Look::Tone(Tone::Dim), cut(&format!("  {}", one.refusal.rule), SIDE)));
    }
    rows.resize(height.max(rows.len()), Strip::new());
    rows
}

fn file_row((path, change): &(String, FileChangeKind), most: usize) -> Strip {
    let (tone, word) = match change {
        FileChangeKind::Added => (Tone::Good, "new     "),
        FileChangeKind::Changed => (Tone::Bold, "changed "),
        FileChangeKind::Deleted => (Tone::Bad, "deleted "),
    };
    vec![(Look::Tone(tone), word.to_owned()), (Look::Plain, cut(path, most.saturating_sub(8)))]
}

fn change(screen: &Screen) -> Vec<Strip> {
    let columns = columns(screen);
    if screen.has_patch {
        return plain_rows(screen.patch.shown());
    }
    let mut rows = match screen.now.change {
        Some(_) => vec![strip(Look::Tone(Tone::Bold), changed(screen))],
        None => vec![strip(
            Look::Tone(Tone::Dim),
            cut("By what the agent says; what really changed is known when it is collected:", columns),
        )],
    };
    if screen.files.is_empty() && screen.now.change.is_none() {
        rows.push(strip(Look::Plain, "nothing so far"));
    }
    rows.extend(screen.files.iter().map(|file| file_row(file, columns)));
    rows
}

fn blocked(screen: &Screen) -> Vec<Strip> {
    let columns = columns(screen);
    let refused = &screen.now.refused;
    if refused.is_empty() {
        return vec![strip(Look::Plain, "nothing was refused")];
    }
    let mut rows = Vec::new();
    for one in refused.iter().skip(screen.blocked_top) {
        let times = if one.times > 1 { format!(", {} times", one.times) } else { String::new() };
        rows.push(vec![
            (Look::Tone(Tone::Warn), cut(&tame_line(&one.refusal.wanted), columns / 2)),
            (Look::Plain, format!("  ({}{times})", one.refusal.rule)),
        ]);
        for text in [tame_line(&one.refusal.why), tame_line(&one.refusal.next_step())] {
            rows.extend(
                wrap(&text, columns.saturating_sub(2))
                    .into_iter()
                    .map(|row| strip(Look::Plain, format!("  {row}"))),
            );
        }
    }
    // What a person can do stands at the bottom, whatever the list is.
    let mut below = vec![rule("a warrant is never widened while its run goes on", columns)];
    let wishes = screen.now.wishes();
    let grants: Vec<_> = wishes.iter().filter_map(|wish| wish.grant.as_ref()).collect();
    if grants.is_empty() {
        below.push(strip(Look::Plain, "no option of `tipstaff run` would grant any of this"));
    } else {
        let again = screen.facts.again_with(grants.into_iter());
        below.push(strip(Look::Plain, "w keeps the hosts as a file for --allow-from; or start again with:"));
        let lines = wrap(&tame_line(&again), columns.saturating_sub(2));
        below.extend(lines.into_iter().map(|row| strip(Look::Tone(Tone::Good), format!("  {row}"))));
    }
    let room = body_rows(screen);
    below.truncate(room / 2);
    rows.truncate(room.saturating_sub(below.len()));
    rows.resize(room.saturating_sub(below.len()), Strip::new());
    rows.extend(below);
    rows
}

fn help(screen: &Screen) -> Vec<Strip> {
    let leave = if screen.facts.own {
        "leave this screen; the run goes on, line by line"
    } else {
        "leave; the run goes on"
    };
    let stop = if screen.facts.own { "end the run and keep its work" } else { "leave; the run goes on" };
    let lines: [(&str, &str); 12] = [
        ("a", "allow this very action, once"),
        ("r", "allow it for the rest of this run: same tool, same arguments"),
        ("p", "allow changes to paths of a pattern, for the rest of this run"),
        ("n", "no, with a reason that the agent is told"),
        ("v  Tab", "the whole action; the next question"),
        ("m  i", "tell the agent something; end its turn"),
        ("space", "let every process stand still, or go on"),
        ("c", "cancel: end the run and keep its work (asks once more)"),
        ("d  b", "what it changed; what was refused, and what would grant it"),
        ("Up PgUp Home", "scroll; End follows again (k j g G do, too)"),
        ("q", leave),
        ("Ctrl-C", stop),
    ];
    lines
        .iter()
        .map(|(key, text)| {
            vec![(Look::Tone(Tone::Bold), format!("{key:<13}")), (Look::Plain, (*text).to_owned())]
        })
        .collect()
}

/// What was said last, or the line that is typed.
fn said(screen: &Screen) -> Strip {
    let columns = columns(screen);
    if let Some(prompt) = &screen.prompt {
        let (before, after) = prompt.parts();
        let room = columns.saturating_sub(width(prompt.title()) + 2);
        // The end before the cursor is what is being typed.
        let shown = tail(&before, room).to_owned();
        let mut rest = after.chars();
        let under = rest.next().unwrap_or(' ').to_string();
        let left = room.saturating_sub(width(&shown));
        let typed_on: String = cut(rest.as_str(), left);
        let note = match &screen.note {
            Some((tone, text)) => (Look::Tone(*tone), format!("  {text}")),
            None => (Look::Plain, String::new()),
        };
        return vec![
            (Look::Tone(Tone::Bold), prompt.title().to_owned()),
            (Look::Plain, shown),
            (Look::Mark, under),
            (Look::Plain, typed_on),
            note,
        ];
    }
    if let Some((tone, text)) = &screen.note {
        return strip(Look::Tone(*tone), cut(text, columns));
    }
    let mut parts = Vec::new();
    let waiting = screen.now.pending.len();
    if waiting > 0 && !matches!(screen.view, View::Session) {
        parts.push(format!("{} waits: Esc", counted(waiting, "question")));
    }
    match screen.now.refused.len() {
        0 => {}
        count => parts.push(format!("{count} blocked: b")),
    }
    let below = match screen.view {
        View::Session => screen.story.below(),
        View::Change => screen.patch.below(),
        View::Action => screen.action.below(),
        View::Blocked | View::Help => 0,
    };
    if below > 0 {
        parts.push(format!("{} below: End", counted(below, "row")));
    }
    if let Some(ended) = screen.now.ended_at {
        parts.push(format!("ended {} UTC", time(ended)));
    }
    let tone = if waiting > 0 { Tone::Warn } else { Tone::Dim };
    strip(Look::Tone(tone), cut(&parts.join("   "), columns))
}

fn keys(screen: &Screen) -> &'static str {
    if let Some(prompt) = &screen.prompt {
        return prompt.keys();
    }
    let pause = screen.paused;
    match screen.view {
        View::Session if screen.now.state.is_final() => "d change  b blocked  ? help  q leave",
        View::Session if pause => "m tell  i interrupt  space go on  c cancel  d b ? q",
        View::Session => "m tell  i interrupt  space pause  c cancel  d b ? q",
        View::Action => "a once  r this run  p paths  n no  PgDn more  Esc back",
        View::Blocked => "w keep as a file  Down next  Esc back  q leave",
        View::Change | View::Help => "Esc back  q leave",
    }
}

/// The tone of a risk, for the rule above a question.
pub(crate) const fn tone_of(risk: tipstaff_model::Risk) -> Look {
    Look::Tone(risk_tone(risk))
}

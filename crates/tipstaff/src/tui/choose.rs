//! A list of runs that go on, to choose one from.

use crate::context::Context;
use crate::output::Tone;
use crate::tui::terminal::Terminal;
use crate::tui::text::{cut, tame_line};
use crate::tui::view::{Look, Strip, paint, strip};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use tipstaff_model::RunId;

/// A run to choose.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    /// The run.
    pub(crate) run: RunId,
    /// What it is, on one line.
    pub(crate) what: String,
}

/// Lets a person choose; `None` when they leave.
pub(crate) async fn choose(context: &Context, choices: &[Choice]) -> anyhow::Result<Option<RunId>> {
    let mut terminal = Terminal::open(!context.env.no_color)?;
    super::end_by_signal(false);
    let mut at = 0;
    loop {
        terminal.draw(|area, buffer, colour| {
            paint(&rows(choices, at, (area.width, area.height)), area, buffer, colour);
        })?;
        let Some(event) = terminal.event().await else { return Ok(None) };
        let Event::Key(key) = event else { continue };
        match step(key, at, choices.len()) {
            Step::At(next) => at = next,
            Step::Take => return Ok(choices.get(at).map(|choice| choice.run)),
            Step::Leave => return Ok(None),
        }
    }
}

/// What a key does to the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Another one is marked.
    At(usize),
    /// The marked one is chosen.
    Take,
    /// None is.
    Leave,
}

pub(crate) fn step(key: KeyEvent, at: usize, all: usize) -> Step {
    let last = all.saturating_sub(1);
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Step::Leave,
        KeyCode::Char('q') | KeyCode::Esc => Step::Leave,
        KeyCode::Enter => Step::Take,
        KeyCode::Up | KeyCode::Char('k') => Step::At(at.saturating_sub(1)),
        KeyCode::Down | KeyCode::Char('j') => Step::At((at + 1).min(last)),
        KeyCode::Home => Step::At(0),
        KeyCode::End => Step::At(last),
        _ => Step::At(at),
    }
}

pub(crate) fn rows(choices: &[Choice], at: usize, (columns, height): (u16, u16)) -> Vec<Strip> {
    let (columns, room) = (usize::from(columns), usize::from(height).saturating_sub(3).max(1));
    let mut rows = vec![
        strip(Look::Tone(Tone::Bold), cut(&format!("{} runs go on; which one?", choices.len()), columns)),
        Strip::new(),
    ];
    // The marked one is always among those that are shown.
    let first = (at + 1).saturating_sub(room);
    for (number, choice) in choices.iter().enumerate().skip(first).take(room) {
        let look = if number == at { Look::Mark } else { Look::Plain };
        let mark = if number == at { ">" } else { " " };
        let text = format!("{mark} {}  {}", choice.run.short(), tame_line(&choice.what));
        rows.push(strip(look, cut(&text, columns)));
    }
    rows.resize((room + 2).max(rows.len()), Strip::new());
    rows.push(strip(Look::Tone(Tone::Dim), cut("Up Down choose   Enter watches   q leaves", columns)));
    rows
}

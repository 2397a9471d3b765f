//! Words for people and objects for programs. The one place that writes to the terminal, besides the screen of
//! [`crate::tui::terminal`]; while that one is shown, what would go to standard error waits here.

use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What waits for the screen to go, while one is shown.
static HELD: Mutex<Option<String>> = Mutex::new(None);
/// How much of it is kept, in bytes.
const MOST_HELD: usize = 64 * 1024;

/// From now on what would go to standard error waits: a screen is shown.
pub(crate) fn hold() {
    if let Ok(mut held) = HELD.lock() {
        held.get_or_insert_default();
    }
}

/// The screen is gone: what waited is written.
pub(crate) fn release() {
    let held = HELD.lock().ok().and_then(|mut held| held.take());
    if let Some(text) = held {
        let _gone = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

/// Whether nobody reads standard output any more, and the program has an end to bring about all the same.
static ALONE: AtomicBool = AtomicBool::new(false);

/// From now on a standard output that is gone does not end the program: its terminal was closed, and a run is to be ended
/// properly.
pub(crate) fn leave_alone() {
    ALONE.store(true, Ordering::SeqCst);
}

/// How to write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Objects on standard output instead of text.
    pub(crate) json: bool,
    colour_out: bool,
    colour_err: bool,
}

/// A colour of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Good news.
    Good,
    /// Bad news.
    Bad,
    /// A warning.
    Warn,
    /// Less important.
    Dim,
    /// A heading.
    Bold,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Warn => "33",
            Self::Dim => "2",
            Self::Bold => "1",
        }
    }
}

impl Output {
    /// Colours only where a person looks and wants them.
    pub(crate) fn new(json: bool, no_color: bool) -> Self {
        Self {
            json,
            colour_out: !no_color && !json && std::io::stdout().is_terminal(),
            colour_err: !no_color && std::io::stderr().is_terminal(),
        }
    }

    /// Whether standard output may carry colours.
    pub(crate) const fn colours(&self) -> bool {
        self.colour_out
    }

    /// One line on standard output. A closed pipe ends the program quietly, as it does for other tools.
    pub(crate) fn line(&self, text: &str) {
        self.raw(&format!("{text}\n"));
    }

    /// Text as it is on standard output.
    pub(crate) fn raw(&self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Bytes as they are on standard output.
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        if out.write_all(bytes).and_then(|()| out.flush()).is_err() && !ALONE.load(Ordering::SeqCst) {
            std::process::exit(0);
        }
    }

    /// One JSON object on a line of standard output.
    pub(crate) fn object<T: Serialize>(&self, value: &T) {
        match serde_json::to_string(value) {
            Ok(text) => self.line(&text),
            Err(error) => self.error(&format!("the result can't be written as JSON: {error}")),
        }
    }

    /// A remark of ours on standard error.
    pub(crate) fn note(&self, text: &str) {
        let mark = self.tone_err(Tone::Dim, "tipstaff:");
        self.err(&format!("{mark} {text}\n"));
    }

    /// A warning on standard error.
    pub(crate) fn warn(&self, text: &str) {
        let mark = self.tone_err(Tone::Warn, "tipstaff: warning:");
        self.err(&format!("{mark} {text}\n"));
    }

    /// An error on standard error.
    pub(crate) fn error(&self, text: &str) {
        let mark = self.tone_err(Tone::Bad, "tipstaff: error:");
        self.err(&format!("{mark} {text}\n"));
    }

    /// Text as it is on standard error.
    pub(crate) fn err(&self, text: &str) {
        if let Ok(mut held) = HELD.lock()
            && let Some(held) = held.as_mut()
        {
            if held.len() + text.len() <= MOST_HELD {
                held.push_str(text);
            }
            return;
        }
        // Nobody can be told when standard error is gone.
        let _gone = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// Coloured text for standard output.
    pub(crate) fn tone(&self, tone: Tone, text: &str) -> String {
        paint(self.colour_out, tone, text)
    }

    /// Coloured text for standard error.
    pub(crate) fn tone_err(&self, tone: Tone, text: &str) -> String {
        paint(self.colour_err, tone, text)
    }

    /// A table with aligned columns; the last column is not padded.
    pub(crate) fn table(&self, head: &[&str], rows: &[Vec<String>]) {
        let mut widths: Vec<usize> = head.iter().map(|cell| cell.len()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let write = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (position, (cell, width)) in cells.zip(&widths).enumerate() {
                if position + 1 == widths.len() {
                    line.push_str(cell);
                } else {
                    line.push_str(&format!("{cell:<width$}  "));
                }
            }
            line.trim_end().to_owned()
        };
        self.line(&self.tone(Tone::Bold, &write(&mut head.iter().copied())));
        for row in rows {
            self.line(&write(&mut row.iter().map(String::as_str)));
        }
    }
}

pub(crate) fn paint(on: bool, tone: Tone, text: &str) -> String {
    if on { format!("\u{1b}[{}m{text}\u{1b}[0m", tone.code()) } else { text.to_owned() }
}

/// A time as people read it, in UTC: `2026-11-21 22:33:39`.
pub(crate) fn time(ms: i64) -> String {
    // Civil from days, after Howard Hinnant's public-domain algorithm.
    let seconds = ms.div_euclid(1000);
    let (days, clock) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", clock / 3600, clock / 60 % 60, clock % 60)
}

/// A span as people read it: `850ms`, `12.3s`, `4m 05s`, `2h 10m`.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{}m {:02}s", ms / 60_000, ms / 1_000 % 60),
        _ => format!("{}h {:02}m", ms / 3_600_000, ms / 60_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(1_795_300_419_000), "2026-11-21 22:33:39");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(
            (span(850), span(12_345), span(245_000)),
            ("850ms".into(), "12.3s".into(), "4m 05s".into())
        );
    }
}

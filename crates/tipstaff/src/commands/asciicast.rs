//! `tipstaff runs replay --format asciicast`: a session as a recording of a terminal.
//!
//! The form is asciicast version 2 (<https://docs.asciinema.org/manual/asciicast/v2/>): a header object on the first line,
//! then one array `[seconds since the beginning, "o", text]` per piece of output. Promise: the text holds no escape
//! sequence but our own colours, whatever the run printed.

use crate::cli::ReplayArgs;
use crate::commands::sessions::events;
use crate::context::Context;
use crate::exit::Problem;
use crate::output::Tone;
use crate::transcript::{Piece, of_event};
use crate::watch::plain;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;
use tipstaff_store::{Event, Run, Task};

/// Columns and rows of the recorded terminal.
const SIZE: (u16, u16) = (100, 30);

/// Writes the recording.
pub(crate) async fn record(
    context: &Context,
    (run, task): (&Run, &Task),
    arguments: &ReplayArgs,
) -> anyhow::Result<ExitCode> {
    let mut file = match &arguments.output {
        None => None,
        Some(path) => Some(std::fs::File::create(path).map_err(|error| {
            Problem::usage("export-file", format!("{} can't be written: {error}", path.display()))
        })?),
    };
    let mut write = |text: &str| match &mut file {
        Some(file) => file.write_all(text.as_bytes()),
        None => {
            context.output.raw(text);
            Ok(())
        }
    };
    let title = format!("tipstaff run {}: {}", run.id.short(), super::runs::what_of(&task.spec));
    let header = json!({
        "version": 2, "width": SIZE.0, "height": SIZE.1, "timestamp": run.started_at.div_euclid(1000),
        "title": title, "env": { "TERM": "xterm-256color" },
    });
    write(&format!("{header}\n"))?;
    let mut recording = Recording::new(arguments.max_idle, !context.env.no_color);
    events(context, run, async |event| {
        if let Some(line) = recording.event(&event) {
            write(&line)?;
        }
        Ok(())
    })
    .await?;
    if let (Some(path), Some(file)) = (&arguments.output, file) {
        file.sync_all()?;
        context.output.note(&format!("the recording of run {} is in {}", run.id.short(), path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// A recording that is being made.
struct Recording {
    /// Longest pause, in milliseconds.
    max_idle: Option<u64>,
    colour: bool,
    /// The time of the event before, and the time on the recording, in milliseconds.
    before: Option<i64>,
    at: u64,
    /// Whether the last line is open.
    midline: bool,
}

impl Recording {
    const fn new(max_idle: Option<u64>, colour: bool) -> Self {
        Self { max_idle, colour, before: None, at: 0, midline: false }
    }

    /// The line of the next event, where it shows anything.
    fn event(&mut self, event: &Event) -> Option<String> {
        let text = match of_event(event) {
            Piece::Nothing => return None,
            Piece::Flow(text) => plain(&text),
            Piece::Aside(text) => self.paint(Tone::Dim, &plain(&text)),
            Piece::Line(tone, text) => {
                let start = if self.midline { "\n" } else { "" };
                format!("{start}{}\n", self.paint(tone, &plain(&text)))
            }
        };
        if text.is_empty() {
            return None;
        }
        self.midline = !text.ends_with('\n') && !text.ends_with("\n\u{1b}[0m");
        // Clocks that are set back give no negative pause.
        let passed = event.at.saturating_sub(self.before.unwrap_or(event.at));
        let passed = u64::try_from(passed).unwrap_or(0);
        self.before = Some(self.before.unwrap_or(event.at).max(event.at));
        self.at += self.max_idle.map_or(passed, |most| passed.min(most));
        let text = json!(text.replace('\n', "\r\n"));
        Some(format!("[{}.{:03}, \"o\", {text}]\n", self.at / 1000, self.at % 1000))
    }

    fn paint(&self, tone: Tone, text: &str) -> String {
        if self.colour { crate::output::paint(true, tone, text) } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use tipstaff_model::EventKind;

    fn event(at: i64, kind: EventKind, body: Value) -> Event {
        Event { seq: 1, at, kind, body }
    }

    #[test]
    fn times_are_real_or_bounded_and_text_is_harmless() {
        let story = [
            event(5_000, EventKind::State, json!({"state": "running"})),
            event(5_250, EventKind::Stdout, json!({"text": "half \u{1b}]0;evil\u{7}\u{1b}[2J"})),
            event(65_250, EventKind::Stdout, json!({"text": "a line\nnext\n"})),
            event(65_000, EventKind::Stderr, json!({"text": "set back"})),
            event(66_000, EventKind::Agent, json!({"type": "raw", "value": 1})),
            event(66_000, EventKind::State, json!({"state": "done"})),
        ];
        let record = |max_idle, colour| {
            let mut recording = Recording::new(max_idle, colour);
            story.iter().filter_map(|event| recording.event(event)).collect::<String>()
        };
        insta::assert_snapshot!(record(None, false), @r#"
        [0.000, "o", "running\r\n"]
        [0.250, "o", "half "]
        [60.250, "o", "a line\r\nnext\r\n"]
        [60.250, "o", "set back"]
        [61.000, "o", "\r\ndone\r\n"]
        "#);
        let bounded = record(Some(2_000), true);
        let times: Vec<f64> = bounded
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()[0].as_f64().unwrap())
            .collect();
        assert_eq!(times, [0.0, 0.25, 2.25, 2.25, 3.0]);
        // Only our own colours.
        assert!(bounded.contains("\\u001b[2mrunning\\u001b[0m") && !bounded.contains("evil"), "{bounded}");
    }
}

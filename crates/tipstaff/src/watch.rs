//! Watching a run from a terminal or a log.

use crate::output::{Output, Tone};
use crate::transcript::{Piece, of_agent, of_approval, of_steer, of_verification};
use std::sync::Mutex;
use tipstaff_model::{MicroUsd, RunState};
use tipstaff_runner::{Notice, Observer, Stream};

/// Writes news as it comes: what the command or the agent says as it is, ours on standard error.
pub(crate) struct Live {
    output: Output,
    // Whether our next line must begin on a new one.
    midline: Mutex<bool>,
    // The share of the budget that was said last, in tenths.
    tenths: Mutex<Option<u64>>,
}

impl Live {
    pub(crate) fn new(output: Output) -> Self {
        Self { output, midline: Mutex::new(false), tenths: Mutex::new(None) }
    }

    /// Begins a new line where the last one is open.
    pub(crate) fn end(&self) {
        if let Ok(mut midline) = self.midline.lock() {
            if *midline {
                self.output.err("\n");
            }
            *midline = false;
        }
    }

    fn say(&self, text: &str) {
        self.end();
        self.output.note(text);
    }

    fn flow(&self, stream: Stream, text: &str) {
        let text = if self.output.colours() { text.to_owned() } else { plain(text) };
        if let Ok(mut midline) = self.midline.lock() {
            *midline = !text.ends_with('\n');
        }
        // With --json, standard output holds objects and nothing else.
        if stream == Stream::Stdout && !self.output.json {
            self.output.raw(&text);
        } else {
            self.output.err(&text);
        }
    }

    /// Writes a piece of a session.
    pub(crate) fn piece(&self, piece: Piece) {
        match piece {
            Piece::Flow(text) => self.flow(Stream::Stdout, &text),
            Piece::Aside(text) => self.flow(Stream::Stderr, &self.output.tone_err(Tone::Dim, &text)),
            Piece::Line(tone, text) => self.say(&self.output.tone_err(tone, &text)),
            Piece::Nothing => {}
        }
    }

    /// Says what was spent, each tenth of the budget once.
    fn spent(&self, spent: MicroUsd, budget: MicroUsd) {
        let tenths = spent.micro().saturating_mul(10) / budget.micro().max(1);
        let news = self.tenths.lock().is_ok_and(|mut said| said.replace(tenths) != Some(tenths));
        if news {
            self.say(&self.output.tone_err(Tone::Dim, &format!("cost so far {spent} of {budget}")));
        }
    }
}

impl Observer for Live {
    fn notice(&self, notice: Notice) {
        match notice {
            Notice::Output(stream, text) => self.flow(stream, &text),
            Notice::Agent(event) => self.piece(of_agent(&event)),
            Notice::Verify { step, command, code } => {
                let step = u64::try_from(step).unwrap_or(0);
                self.piece(of_verification(step, &command, code.map(i64::from)));
            }
            Notice::Spent { spent, budget } => self.spent(spent, budget),
            // The end is told with its reason and its change.
            Notice::State(state) if state.is_final() && !self.output.json => {}
            Notice::State(state) => {
                let tone = match state {
                    RunState::Done => Tone::Good,
                    RunState::Failed | RunState::Cancelled | RunState::Interrupted => Tone::Bad,
                    _ => Tone::Bold,
                };
                self.say(&self.output.tone_err(tone, state.as_str()));
            }
            Notice::Refused(refusal) => self.say(&format!(
                "{} {} ({}): {}; {}",
                self.output.tone_err(Tone::Warn, "refused"),
                refusal.wanted,
                refusal.rule,
                refusal.why,
                refusal.next_step()
            )),
            Notice::Remark(text) => self.say(&text),
            Notice::Approval(approval) => self.piece(of_approval(&approval)),
            Notice::Steer { steer, state, note } => {
                self.piece(of_steer(&steer, state.as_str(), note.as_deref().unwrap_or_default()));
            }
        }
    }
}

/// Text without colours.
pub(crate) fn plain(text: &str) -> String {
    tipstaff_seal::scrub::scrub_terminal(text.as_bytes(), tipstaff_seal::scrub::Colours::Remove)
}

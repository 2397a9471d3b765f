//! Watching a run from a terminal or a log.

use crate::output::{Output, Tone};
use std::sync::Mutex;
use tipstaff_model::RunState;
use tipstaff_runner::{Notice, Observer, Stream};

/// Writes news as it comes: the command's output as it is, ours on standard error.
pub(crate) struct Live {
    output: Output,
    // Whether our next line must begin on a new one.
    midline: Mutex<bool>,
}

impl Live {
    pub(crate) fn new(output: Output) -> Self {
        Self { output, midline: Mutex::new(false) }
    }

    fn say(&self, text: &str) {
        if let Ok(mut midline) = self.midline.lock() {
            if *midline {
                self.output.err("\n");
            }
            *midline = false;
        }
        self.output.note(text);
    }
}

impl Observer for Live {
    fn notice(&self, notice: Notice) {
        match notice {
            Notice::Output(stream, text) => {
                let text = if self.output.colours() { text } else { plain(&text) };
                if let Ok(mut midline) = self.midline.lock() {
                    *midline = !text.ends_with('\n');
                }
                // With --json, standard output holds the one object and nothing else.
                if stream == Stream::Stdout && !self.output.json {
                    self.output.raw(&text);
                } else {
                    self.output.err(&text);
                }
            }
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
                refusal.rule.next_step()
            )),
            Notice::Remark(text) => self.say(&text),
        }
    }
}

/// Text without colours.
pub(crate) fn plain(text: &str) -> String {
    tipstaff_seal::scrub::scrub_terminal(text.as_bytes(), tipstaff_seal::scrub::Colours::Remove)
}

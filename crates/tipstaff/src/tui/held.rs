//! News of a run while its screen is shown: they wait, and are told line by line afterwards, so that what a run said stays in
//! the terminal's history as it does without a screen.

use crate::output::Output;
use crate::watch::Live;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tipstaff_runner::{Notice, Observer};

/// News that wait.
const MOST: usize = 20_000;

#[derive(Debug, Default)]
struct Waiting {
    notices: VecDeque<Notice>,
    dropped: u64,
}

/// An observer that waits with what it is told.
pub(crate) struct Held {
    live: Arc<Live>,
    output: Output,
    waiting: Mutex<Option<Waiting>>,
}

impl Held {
    /// One that waits, or not.
    pub(crate) fn new(live: Arc<Live>, output: Output, waits: bool) -> Self {
        Self { live, output, waiting: Mutex::new(waits.then(Waiting::default)) }
    }

    /// Tells what waited; from now on nothing waits.
    pub(crate) fn release(&self) {
        let Ok(mut waiting) = self.waiting.lock() else { return };
        let Some(Waiting { notices, dropped }) = waiting.take() else { return };
        if dropped > 0 {
            self.output.note(&format!(
                "{dropped} earlier pieces are left out here; see `tipstaff runs show --transcript`"
            ));
        }
        for notice in notices {
            self.live.notice(notice);
        }
    }
}

impl Observer for Held {
    fn notice(&self, notice: Notice) {
        // Kept for the whole call, so that nothing overtakes what waits.
        let Ok(mut waiting) = self.waiting.lock() else { return };
        match waiting.as_mut() {
            None => self.live.notice(notice),
            Some(waiting) => {
                if waiting.notices.len() >= MOST {
                    waiting.notices.pop_front();
                    waiting.dropped += 1;
                }
                waiting.notices.push_back(notice);
            }
        }
    }
}

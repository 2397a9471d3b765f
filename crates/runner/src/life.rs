//! Whether an agent still does something.

use crate::session::{Listener, Session};
use crate::supervise::{LAST_WORDS, Watch};
use tipstaff_model::ExitReason;
use tokio::time::Instant;

/// Signs of life of an agent.
pub(crate) struct Life {
    /// The last one.
    pub(crate) seen: Instant,
    /// Bytes that went through the broker.
    traffic: u64,
    /// Bytes by which the workspace had grown.
    pub(crate) grown: Option<u64>,
    warned: bool,
    /// Until when an agent whose money is spent may go on.
    pub(crate) last_words: Option<Instant>,
    /// Until when an agent that gave up may go on.
    giving_up: Option<Instant>,
}

impl Life {
    pub(crate) fn new(watch: &Watch<'_>) -> Self {
        Self {
            seen: Instant::now(),
            traffic: traffic(watch),
            grown: None,
            warned: false,
            last_words: None,
            giving_up: None,
        }
    }

    /// Looks whether the agent still does something; a reason to stop when it has not for too long. Whoever waits for a
    /// person, or stands still because a person wants it, does not stall.
    pub(crate) fn look(
        &mut self,
        watch: &Watch<'_>,
        session: &mut Session,
        listener: &Listener<'_>,
        waits_for_a_person: bool,
    ) -> Option<ExitReason> {
        if session.has_given_up() {
            let until = *self.giving_up.get_or_insert_with(|| Instant::now() + LAST_WORDS);
            if Instant::now() >= until {
                session.remark("the agent gave up and did not end; it is stopped".to_owned(), listener);
                return Some(ExitReason::AgentFailed);
            }
        }
        let traffic = traffic(watch);
        if traffic != self.traffic || session.waits_for_a_tool() || waits_for_a_person {
            self.traffic = traffic;
            self.seen = Instant::now();
        }
        let silent = self.seen.elapsed();
        if watch.stall.warning.is_none_or(|warning| silent < warning) {
            self.warned = false;
        } else if !self.warned {
            self.warned = true;
            let stop = watch
                .stall
                .stop
                .map_or_else(String::new, |stop| format!("; it is stopped after {} s", stop.as_secs()));
            session.remark(format!("the agent has done nothing for {} s{stop}", silent.as_secs()), listener);
        }
        if watch.stall.stop.is_some_and(|stop| silent >= stop) {
            session
                .remark(format!("the agent did nothing for {} s and is stopped", silent.as_secs()), listener);
            return Some(ExitReason::Stalled);
        }
        None
    }
}

fn traffic(watch: &Watch<'_>) -> u64 {
    watch.broker.map_or(0, |broker| {
        let report = broker.report();
        report.bytes_in.saturating_add(report.bytes_out)
    })
}

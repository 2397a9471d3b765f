//! What was asked, kept for the test.

use serde_json::Value;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What kind of request it was, by what the server did with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestKind {
    /// Answered by step so-and-so of the script, counted from 0; a finished or a missing script counts too.
    Scripted(usize),
    /// A title, a summary, a probe: answered without the script.
    Side,
    /// A count of tokens.
    Count,
    /// A list of models, or one of them.
    Models,
    /// Whether anybody is there: any `HEAD`.
    Alive,
    /// Refused, because the key was missing or another one.
    Unauthorized,
    /// Not understood: a path that nobody serves, a body that is no JSON, a script that is wrong.
    Rejected,
}

/// How the answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It hasn't.
    Underway,
    /// All of it was handed to the connection.
    Complete,
    /// The server broke it off, as the script said.
    Broken,
    /// The client went away first.
    ClientLeft,
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedRequest {
    /// `POST`.
    pub method: String,
    /// The path with its query, as it came.
    pub path: String,
    /// The headers in their order, names in lower case. Bytes that are no text are replaced.
    pub headers: Vec<(String, String)>,
    /// Length of the body in bytes.
    pub body_length: usize,
    /// The body; null when it was no JSON.
    pub body: Value,
    /// The model that it asked for.
    pub model: Option<String>,
    /// What it was.
    pub kind: RequestKind,
    /// The status of the answer; 0 as long as there is none.
    pub status: u16,
    /// How the answer ended.
    pub ending: Ending,
}

impl RecordedRequest {
    /// The first header of that name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The path without its query.
    #[must_use]
    pub fn path_only(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// Whether the script answered it.
    #[must_use]
    pub const fn is_scripted(&self) -> bool {
        matches!(self.kind, RequestKind::Scripted(_))
    }
}

/// All requests, and a bell for those who wait for one.
#[derive(Debug, Default)]
pub(super) struct Journal {
    requests: Mutex<Vec<RecordedRequest>>,
    changed: Condvar,
}

impl Journal {
    fn locked(&self) -> MutexGuard<'_, Vec<RecordedRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, request: RecordedRequest) -> usize {
        let mut requests = self.locked();
        requests.push(request);
        self.changed.notify_all();
        requests.len() - 1
    }

    pub(super) fn change(&self, number: usize, change: impl FnOnce(&mut RecordedRequest)) {
        if let Some(request) = self.locked().get_mut(number) {
            change(request);
        }
        self.changed.notify_all();
    }

    pub(super) fn requests(&self) -> Vec<RecordedRequest> {
        self.locked().clone()
    }

    pub(super) fn wait_for(
        &self,
        limit: Duration,
        mut condition: impl FnMut(&[RecordedRequest]) -> bool,
    ) -> bool {
        let (_guard, waited) = self
            .changed
            .wait_timeout_while(self.locked(), limit, |requests| !condition(requests))
            .unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }
}

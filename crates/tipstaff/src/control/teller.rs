//! What the control plane tells the person who watches a run, and the operator's command.

use crate::notify::Notifier;
use std::sync::{Arc, OnceLock};
use tipstaff_runner::{Notice, Observer};

/// Tells people. Nobody may be watching yet.
#[derive(Clone)]
pub(crate) struct Teller {
    observer: Arc<OnceLock<Arc<dyn Observer>>>,
    notifier: Notifier,
}

impl Teller {
    pub(crate) fn new(notifier: Notifier) -> Self {
        Self { observer: Arc::default(), notifier }
    }

    /// Somebody watches from now on.
    pub(crate) fn watched_by(&self, observer: Arc<dyn Observer>) {
        // Of two, the first is kept.
        let _kept = self.observer.set(observer);
    }

    /// One line.
    pub(crate) fn say(&self, text: impl Into<String>) {
        if let Some(observer) = self.observer.get() {
            observer.notice(Notice::Remark(text.into()));
        }
    }

    /// Sends what waits to the operator's command, without anybody waiting for it.
    pub(crate) fn send(&self) {
        let notifier = self.notifier.clone();
        tokio::spawn(async move { notifier.deliver().await });
    }

    /// The same, and waits for it.
    pub(crate) async fn send_and_wait(&self) {
        self.notifier.deliver().await;
    }
}

//! Waking those who wait: a hint, never a promise.
//!
//! Within a process a signal is a counter that moves. Between processes PostgreSQL carries it with NOTIFY; SQLite has
//! nothing of the kind, so waiting always ends after a while, and the one who waited looks again. A lost or doubled
//! signal does no harm: the table is the authority.

use crate::sql::driver::DriverError;
use crate::sql::{statements, values};
use crate::store::postgres::PgPool;
use crate::store::{Db, Inner, Store};
use sqlx::postgres::PgListener;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What somebody may be waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// A task is ready, or was asked to end.
    Task,
    /// A run moved on or has new events.
    Run,
}

impl Topic {
    const ALL: [Self; 2] = [Self::Task, Self::Run];

    const fn bit(self) -> u8 {
        match self {
            Self::Task => 1,
            Self::Run => 2,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Run => "run",
        }
    }
}

const CHANNEL: &str = "tipstaff";
/// Between two signals to other processes: the first one goes at once, those that follow closely become one.
const SIGNAL_PAUSE: Duration = Duration::from_millis(5);

statements! {
    // A hint need not be durable: its commit does not wait for the disk.
    system (engine Postgres) NOTIFY =
        "with hint as materialized (select set_config('synchronous_commit', 'off', true) as durable) \
         select pg_notify('tipstaff', $1)::text from hint where durable = 'off'";
}

/// The counters of one process.
pub(crate) struct Signals {
    task: watch::Sender<u64>,
    run: watch::Sender<u64>,
    /// The address to listen at; only PostgreSQL has one.
    listen: Option<String>,
    listener: OnceLock<AbortHandle>,
    /// Topics to be sent to other processes, and whether somebody is sending.
    unsent: Arc<AtomicU8>,
    sending: Arc<AtomicBool>,
}

impl Drop for Signals {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get() {
            listener.abort();
        }
    }
}

impl Signals {
    pub(crate) fn new(listen: Option<String>) -> Self {
        Self {
            task: watch::Sender::new(0),
            run: watch::Sender::new(0),
            listen,
            listener: OnceLock::new(),
            unsent: Arc::default(),
            sending: Arc::default(),
        }
    }

    const fn of(&self, topic: Topic) -> &watch::Sender<u64> {
        match topic {
            Topic::Task => &self.task,
            Topic::Run => &self.run,
        }
    }

    /// Wakes this process at once, and others a little later. Called after the commit.
    ///
    /// NOTIFY inside the writing transaction would make every commit of the server take one lock after the other, so
    /// it is sent by itself, and many signals become one.
    pub(crate) fn publish(&self, inner: &Arc<Inner>, topics: &[Topic]) {
        for topic in topics {
            self.of(*topic).send_modify(|count| *count = count.wrapping_add(1));
            self.unsent.fetch_or(topic.bit(), Ordering::SeqCst);
        }
        if topics.is_empty() || self.listen.is_none() || self.sending.swap(true, Ordering::SeqCst) {
            return;
        }
        let Db::Postgres { app, .. } = &inner.db else { return };
        let (app, unsent, sending) = (app.clone(), Arc::clone(&self.unsent), Arc::clone(&self.sending));
        tokio::spawn(async move {
            loop {
                let bits = unsent.swap(0, Ordering::SeqCst);
                for topic in Topic::ALL.into_iter().filter(|topic| bits & topic.bit() != 0) {
                    // A signal that can't be sent is a signal lost: others look again by themselves.
                    let _ = notify(&app, topic).await;
                }
                tokio::time::sleep(SIGNAL_PAUSE).await;
                sending.store(false, Ordering::SeqCst);
                if unsent.load(Ordering::SeqCst) == 0 || sending.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
        });
    }

    fn listen(&self) {
        let Some(url) = self.listen.clone() else { return };
        let senders = (self.task.clone(), self.run.clone());
        self.listener.get_or_init(|| {
            tokio::spawn(async move {
                loop {
                    let _ = forward(&url, &senders.0, &senders.1).await;
                    // The server is away: those who wait look again by themselves meanwhile.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            })
            .abort_handle()
        });
    }
}

async fn notify(app: &PgPool, topic: Topic) -> Result<(), DriverError> {
    app.alone().await?.fetch_optional(NOTIFY.text, values![topic.word()]).await.map(drop)
}

async fn forward(url: &str, task: &watch::Sender<u64>, run: &watch::Sender<u64>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect(url).await?;
    listener.listen(CHANNEL).await?;
    loop {
        let notification = listener.recv().await?;
        for topic in Topic::ALL.into_iter().filter(|topic| topic.word() == notification.payload()) {
            let sender = if topic == Topic::Task { task } else { run };
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// A place to wait for a topic. Take it before looking, so that nothing slips between looking and waiting.
#[derive(Debug)]
pub struct Subscription(watch::Receiver<u64>);

impl Subscription {
    /// Waits for a signal, at most `timeout_ms` milliseconds. Look again in either case.
    pub async fn wait(&mut self, timeout_ms: u64) {
        let _ = tokio::time::timeout(Duration::from_millis(timeout_ms), self.0.changed()).await;
    }
}

impl Store {
    /// A place to wait for a topic.
    #[must_use]
    pub fn subscribe(&self, topic: Topic) -> Subscription {
        self.inner.signals.listen();
        let mut receiver = self.inner.signals.of(topic).subscribe();
        receiver.mark_unchanged();
        Subscription(receiver)
    }
}

//! The operator's command for notifications: `[notify] command` of `config.toml`.
//!
//! Promises: it is started with exactly the words of the configuration, never with text of an agent, in an empty
//! environment, with one JSON object on its standard input; it is ended after ten seconds; a message is sent at least
//! once, and on one machine by one process at a time.

use crate::output::Output;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tipstaff_store::{BUDGET_ALERT, OrgScope, OutboxMessage, Store, StoreError};
use tokio::io::AsyncWriteExt as _;

/// How long the command may take.
const TIME: Duration = Duration::from_secs(10);
/// Messages that are read at once.
const AT_ONCE: u32 = 50;

/// Sends what waits in the outbox.
#[derive(Clone)]
pub(crate) struct Notifier {
    pub(crate) store: Store,
    pub(crate) scope: OrgScope,
    /// Program and arguments; empty for none.
    pub(crate) command: Vec<String>,
    /// The state folder.
    pub(crate) home: PathBuf,
    pub(crate) output: Output,
}

impl Notifier {
    /// Sends everything that waits. Trouble is said and does not hold anything up.
    pub(crate) async fn deliver(&self) {
        if let Err(error) = self.try_deliver().await {
            self.output.warn(&format!("notifications wait: {error:#}"));
        }
    }

    async fn waiting(&self) -> Result<Vec<OutboxMessage>, StoreError> {
        let messages = self.store.read(&self.scope).await?.outbox_list(AT_ONCE).await?;
        Ok(messages.into_iter().filter(|message| message.kind == BUDGET_ALERT).collect())
    }

    async fn try_deliver(&self) -> anyhow::Result<()> {
        if self.waiting().await?.is_empty() {
            return Ok(());
        }
        let lock = self.home.join("notify.lock");
        let lock = tokio::task::spawn_blocking(move || {
            let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(lock)?;
            file.lock()?;
            Ok::<_, std::io::Error>(file)
        });
        let _alone = lock.await??;
        loop {
            let messages = self.waiting().await?;
            if messages.is_empty() {
                return Ok(());
            }
            for message in messages {
                // Without a command nobody wants to know; the audit log and the run's story have it.
                if !self.command.is_empty()
                    && let Err(why) = self.start(&message).await
                {
                    self.output.warn(&format!("the command of [notify] in config.toml {why}"));
                }
                let mut tx = self.store.begin(&self.scope).await?;
                tx.outbox_sent(message.id).await?;
                tx.commit().await?;
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the door for the operator's own command")]
    async fn start(&self, message: &OutboxMessage) -> Result<(), String> {
        let Some((program, arguments)) = self.command.split_first() else { return Ok(()) };
        let mut body = message.body.clone();
        if let Some(object) = body.as_object_mut() {
            // Whoever gets it twice can tell.
            object.insert("id".to_owned(), serde_json::Value::from(message.id.to_string()));
            object.insert("at".to_owned(), serde_json::Value::from(message.created_at));
        }
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).env_clear().current_dir("/").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("can't be started: {error}"))?;
        let stdin = child.stdin.take();
        let whole = async {
            if let Some(mut stdin) = stdin {
                // It need not read it.
                let _unread = stdin.write_all(format!("{body}\n").as_bytes()).await;
            }
            child.wait().await
        };
        match tokio::time::timeout(TIME, whole).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("ended with {status}")),
            Ok(Err(error)) => Err(format!("was lost: {error}")),
            Err(_) => Err(format!("took longer than {} s and was ended", TIME.as_secs())),
        }
    }
}

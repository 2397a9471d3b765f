//! The story of a run: appended by its worker, in order, without gaps.

use crate::error::StoreError;
use crate::lease::Lease;
use crate::signal::Topic;
use crate::sql::{Columns, Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::{EventDraft, EventKind, RunId, SetupReport};

statements! {
    // Whoever appends holds the task's row: a worker by its lease, anybody else by this.
    scoped STORY_LOCK =
        "update task set updated_at = $3 where org_id = $1 and \
         id = (select task_id from run where org_id = $1 and id = $2) returning id";
    rows (shared 2) EVENT_ADD =
        "insert into event (org_id, run_id, seq, at, kind, body) values ($1, $2, $3, $4, $5, $6)";
    scoped EVENT_LAST = "select coalesce(max(seq), 0) from event where org_id = $1 and run_id = $2";
    scoped EVENT_LIST =
        "select seq, at, kind, body from event where org_id = $1 and run_id = $2 and seq > $3 order by seq limit $4";
    scoped EVENT_LAST_OF_KIND =
        "select body from event where org_id = $1 and run_id = $2 and kind = $3 order by seq desc limit 1";
}

/// A stored event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Counts from 1 within the run, without gaps.
    pub seq: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at: i64,
    /// What kind.
    pub kind: EventKind,
    /// The body.
    pub body: serde_json::Value,
}

fn event(mut columns: Columns<'_>) -> Result<Event, StoreError> {
    let (seq, at, word) = (columns.count("seq")?, columns.int()?, columns.text()?);
    let kind = EventKind::from_word(&word)
        .ok_or_else(|| columns.invalid("kind", "it is not a kind of event".to_owned()))?;
    Ok(Event { seq, at, kind, body: columns.json("body")? })
}

impl OrgRead {
    /// Events of a run after number `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn event_list(&mut self, run: RunId, after: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let rows = self.all(EVENT_LIST, values![run, after, i64::from(limit)]).await?;
        rows.iter().map(|row| event(row.read("event"))).collect()
    }

    /// What the set-up of a run came to, where it has ended.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn setup_report(&mut self, run: RunId) -> Result<Option<SetupReport>, StoreError> {
        let row = self.first(EVENT_LAST_OF_KIND, values![run, EventKind::Setup.as_str()]).await?;
        let Some(row) = row else { return Ok(None) };
        let body: serde_json::Value = row.read("event").json("body")?;
        // The last one is the report, unless the set-up was ended from outside.
        Ok(body.get("report").and_then(|report| serde_json::from_value(report.clone()).ok()))
    }
}

impl OrgTx {
    /// Appends events to the story of the lease's run; the number of the last one (0 when the story is empty).
    ///
    /// # Errors
    /// `lease-lost`.
    pub async fn event_add(&mut self, lease: &Lease, events: &[EventDraft]) -> Result<u64, StoreError> {
        self.lease_guard(lease).await?;
        self.event_append(lease.run(), events).await
    }

    /// Makes this transaction the only one that appends to a run's story, until it ends; the same row as a worker's fence
    /// locks. Take it before any other row of the run. Whether there is such a run.
    pub(crate) async fn story_lock(&mut self, run: RunId) -> Result<bool, StoreError> {
        let now = self.inner.now();
        Ok(self.first(STORY_LOCK, values![run, now]).await?.is_some())
    }

    /// Appends for whoever holds the story's lock.
    pub(crate) async fn event_append(
        &mut self,
        run: RunId,
        events: &[EventDraft],
    ) -> Result<u64, StoreError> {
        let row = self.first(EVENT_LAST, values![run]).await?;
        let mut last = row.map_or(Ok(0), |row| row.read("event").int())?;
        let mut rows = Vec::with_capacity(events.len());
        for event in events {
            last += 1;
            rows.push(vec![
                Value::from(last),
                Value::from(event.at),
                Value::from(event.kind.as_str()),
                Value::from(event.body.to_string()),
            ]);
        }
        self.insert_rows(&EVENT_ADD, values![run], &rows).await?;
        self.announce(Topic::Run);
        Ok(u64::try_from(last).unwrap_or(0))
    }
}

//! Steering: what a person tells a run that goes on, in the order in which it was said.
//!
//! Promises: it is taken once; what a run did not take before its end is refused, so that nobody thinks that it was heard.
//! The worker reads the words as they were typed; once it took them, and in the story at all times, they are redacted.

use crate::approval::json_of;
use crate::error::StoreError;
use crate::lease::Lease;
use crate::signal::Topic;
use crate::sql::{Columns, Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use tipstaff_model::steer::MOST_WAITING;
use tipstaff_model::{
    AuditAction, AuditDraft, AuditOutcome, EventDraft, EventKind, MemberId, RunId, RunState, Steer, SteerId,
    SteerKind, SteerState,
};
use tipstaff_seal::redact::Redactor;

macro_rules! steering_columns {
    () => {
        "id, run_id, kind, said_by, said_at, state, note, taken_at"
    };
}

statements! {
    scoped STEERING_ADD =
        "insert into steering (org_id, id, run_id, seq, kind, said_by, said_at, state) \
         values ($1, $2, $3, $4, $5, $6, $7, 'waiting')";
    scoped STEERING_LAST =
        "select coalesce(max(seq), 0) from steering where org_id = $1 and run_id = $2";
    scoped STEERING_WAITING = concat!(
        "select ", steering_columns!(), " from steering where org_id = $1 and run_id = $2 and state = 'waiting' order by seq"
    );
    scoped STEERING_GET = concat!("select ", steering_columns!(), " from steering where org_id = $1 and id = $2");
    scoped STEERING_LIST = concat!(
        "select ", steering_columns!(), " from steering where org_id = $1 and run_id = $2 order by seq"
    );
    scoped STEERING_TAKE =
        "update steering set kind = $3, state = $4, note = $5, taken_at = $6 \
         where org_id = $1 and id = $2 and state = 'waiting' returning id";
}

/// Longest note of a worker, in characters.
const LONGEST_NOTE: usize = 1_000;

/// A stored piece of steering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steering {
    /// Its run.
    pub run: RunId,
    /// What was said, by whom and when.
    pub steer: Steer,
    /// What became of it.
    pub state: SteerState,
    /// Why it was refused, or what else is to be said of it.
    pub note: Option<String>,
    /// When it was taken or refused, in milliseconds since the Unix epoch.
    pub taken_at: Option<i64>,
}

/// What telling a run something did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SteeringAdded {
    /// It waits for the worker.
    Waiting(Steer),
    /// The run is not at work: nothing was kept.
    NotRunning(RunState),
    /// Too much waits already: nothing was kept.
    Full,
}

fn steering(mut columns: Columns<'_>) -> Result<Steering, StoreError> {
    let (id, run) = (columns.parsed("id")?, columns.parsed("run_id")?);
    let kind = columns.json("kind")?;
    let steer = Steer { id, kind, by: columns.text()?, at: columns.int()? };
    Ok(Steering {
        run,
        steer,
        state: columns.parsed("state")?,
        note: columns.text_opt()?,
        taken_at: columns.int_opt()?,
    })
}

/// The same, without what looks like a secret.
fn redacted(kind: &SteerKind) -> SteerKind {
    match kind {
        SteerKind::Message { text } => SteerKind::Message { text: Redactor::new().redact(text).into_owned() },
        other => other.clone(),
    }
}

impl OrgRead {
    /// What waits for a run's worker, in the order in which it was said, as it was typed.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn steer_waiting(&mut self, run: RunId) -> Result<Vec<Steer>, StoreError> {
        let rows = self.all(STEERING_WAITING, values![run]).await?;
        rows.iter().map(|row| steering(row.read("steering")).map(|one| one.steer)).collect()
    }

    /// Everything that was said to a run, in order.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn steer_list(&mut self, run: RunId) -> Result<Vec<Steering>, StoreError> {
        let rows = self.all(STEERING_LIST, values![run]).await?;
        rows.iter().map(|row| steering(row.read("steering"))).collect()
    }
}

impl OrgTx {
    /// Tells a run something. `None` when there is no such run.
    ///
    /// # Errors
    /// `input` for words that can't be sent.
    pub async fn steer_add(
        &mut self,
        who: MemberId,
        run: RunId,
        kind: SteerKind,
    ) -> Result<Option<SteeringAdded>, StoreError> {
        kind.check().map_err(|error| StoreError::Input { what: "message", why: error.to_string() })?;
        if !self.story_lock(run).await? {
            return Ok(None);
        }
        let Some(found) = self.run_get(run).await? else { return Ok(None) };
        if !matches!(found.state, RunState::Running | RunState::NeedsInput) {
            return Ok(Some(SteeringAdded::NotRunning(found.state)));
        }
        let waiting = self.steer_waiting(run).await?.len();
        if u64::try_from(waiting).unwrap_or(u64::MAX) >= MOST_WAITING {
            return Ok(Some(SteeringAdded::Full));
        }
        let last = self.first(STEERING_LAST, values![run]).await?;
        let seq = last.map_or(Ok(0), |row| row.read("steering").int())?.saturating_add(1);
        let steer = Steer {
            id: SteerId::new(&*self.inner.clock, &*self.inner.entropy),
            kind,
            by: format!("member:{who}"),
            at: self.inner.now(),
        };
        let row: &[Value<'_>] =
            values![steer.id, run, seq, json_of("message", &steer.kind)?, &steer.by, steer.at];
        self.change(STEERING_ADD, row).await?;
        self.steer_told(run, &steer, SteerState::Waiting, None, &steer.by.clone()).await?;
        Ok(Some(SteeringAdded::Waiting(steer)))
    }

    /// Notes what became of a piece of steering of the lease's run; whether it waited until now.
    ///
    /// # Errors
    /// `lease-lost`; `input` for a state that is no end.
    pub async fn steer_taken(
        &mut self,
        lease: &Lease,
        id: SteerId,
        state: SteerState,
        note: Option<&str>,
    ) -> Result<bool, StoreError> {
        self.lease_guard(lease).await?;
        if state == SteerState::Waiting {
            return Err(StoreError::Input {
                what: "steering",
                why: "it was taken or refused; it can't wait again".to_owned(),
            });
        }
        let run = lease.run();
        let row = self.first(STEERING_GET, values![id]).await?;
        let found = row.map(|row| steering(row.read("steering"))).transpose()?;
        match found.filter(|found| found.run == run && found.state == SteerState::Waiting) {
            Some(found) => {
                self.steer_end(found, state, note, &format!("run:{run}")).await?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Refuses what a run that ends did not take. Whoever calls holds the story's lock.
    pub(crate) async fn steer_close(&mut self, run: RunId) -> Result<(), StoreError> {
        let rows = self.all(STEERING_WAITING, values![run]).await?;
        for row in &rows {
            let found = steering(row.read("steering"))?;
            self.steer_end(found, SteerState::Refused, Some("the run ended before it was taken"), "system")
                .await?;
        }
        Ok(())
    }

    async fn steer_end(
        &mut self,
        found: Steering,
        state: SteerState,
        note: Option<&str>,
        by: &str,
    ) -> Result<(), StoreError> {
        let now = self.inner.now();
        let note = note.map(|text| {
            let text: String = text.chars().take(LONGEST_NOTE).collect();
            Redactor::new().redact(&text).into_owned()
        });
        let steer = Steer { kind: redacted(&found.steer.kind), ..found.steer };
        let row: &[Value<'_>] =
            values![steer.id, json_of("message", &steer.kind)?, state.as_str(), note.as_deref(), now,];
        if self.first(STEERING_TAKE, row).await?.is_none() {
            return Err(StoreError::Missing { what: "steering that waits" });
        }
        self.steer_told(found.run, &steer, state, note.as_deref(), by).await
    }

    /// Tells story and log what was said, or what became of it.
    async fn steer_told(
        &mut self,
        run: RunId,
        steer: &Steer,
        state: SteerState,
        note: Option<&str>,
        by: &str,
    ) -> Result<(), StoreError> {
        let shown = Steer { kind: redacted(&steer.kind), ..steer.clone() };
        let mut body = serde_json::to_value(&shown)
            .map_err(|error| StoreError::Input { what: "message", why: error.to_string() })?;
        if let Some(object) = body.as_object_mut() {
            object.insert("state".to_owned(), state.as_str().into());
            if let Some(note) = note {
                object.insert("note".to_owned(), note.into());
            }
        }
        let event = EventDraft { kind: EventKind::Steer, at: self.inner.now(), body };
        self.event_append(run, &[event]).await?;
        let outcome = if state == SteerState::Refused { AuditOutcome::Refused } else { AuditOutcome::Ok };
        let mut draft = AuditDraft::new(by, AuditAction::RunSteered, format!("run:{run}"))
            .outcome(outcome)
            .with("steer", steer.id)
            .with("kind", steer.kind.as_str())
            .with("state", state);
        if let SteerKind::Message { text } = &shown.kind {
            draft = draft.with("bytes", text.len());
        }
        if let Some(note) = note {
            draft = draft.with("note", note);
        }
        self.audit_note(draft);
        self.announce(Topic::Run);
        Ok(())
    }
}

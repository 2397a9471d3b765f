//! Approvals: questions to a person, as the worker asks them.
//!
//! Promises: a question is asked once, whatever a worker does again; what it is bound to (warrant and digest) never
//! changes; a question and every step of it stand in the run's story and in the audit log, in the same transaction. A run
//! that ended, a warrant that was narrowed or revoked, takes its open questions with it.

use crate::error::StoreError;
use crate::lease::Lease;
use crate::signal::Topic;
use crate::sql::{Columns, Value, statements, values};
use crate::task::LAST_ID;
use crate::transaction::{OrgRead, OrgTx};
use serde_json::Value as Json;
use tipstaff_model::approval::{LARGEST_ACTION, MOST_OF_RUN, MOST_OPEN};
use tipstaff_model::risk::Place;
use tipstaff_model::{
    Approval, ApprovalAnswer, ApprovalId, ApprovalRequest, ApprovalScope, ApprovalState, AuditAction,
    AuditDraft, AuditOutcome, EventDraft, EventKind, RunId, WarrantId,
};

macro_rules! approval_columns {
    () => {
        "id, run_id, warrant_id, digest, action, risk, because, asked_at, expires_at, state, answer, answered_by, \
         answered_at"
    };
}

statements! {
    scoped APPROVAL_ADD =
        "insert into approval (org_id, id, run_id, warrant_id, digest, action, risk, because, asked_at, expires_at, \
         state, answer, answered_by, answered_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    scoped APPROVAL_GET = concat!("select ", approval_columns!(), " from approval where org_id = $1 and id = $2");
    scoped APPROVAL_LIST_OF_RUN = concat!(
        "select ", approval_columns!(), " from approval where org_id = $1 and run_id = $2 \
         and state = coalesce($3, state) and id < $4 order by id desc limit $5"
    );
    scoped APPROVAL_LIST_IN_STATE = concat!(
        "select ", approval_columns!(), " from approval where org_id = $1 and state = $2 and id < $3 \
         order by id desc limit $4"
    );
    scoped APPROVAL_LIST = concat!(
        "select ", approval_columns!(), " from approval where org_id = $1 and id < $2 order by id desc limit $3"
    );
    scoped APPROVAL_LIST_OPEN = concat!(
        "select ", approval_columns!(), " from approval where org_id = $1 and run_id = $2 \
         and state in ('pending', 'allowed') and warrant_id <> $3 order by id"
    );
    scoped APPROVAL_LIST_OVERDUE = concat!(
        "select ", approval_columns!(), " from approval where org_id = $1 and run_id = $2 \
         and state in ('pending', 'allowed') \
         and expires_at <= case when state = 'pending' then cast($3 as bigint) else cast($4 as bigint) end order by id"
    );
    scoped APPROVAL_LIST_STANDING = concat!(
        "select ", approval_columns!(), " from approval where org_id = $1 and run_id = $2 and standing = 1 \
         order by id desc limit $3"
    );
    scoped APPROVAL_FIND =
        "select id from approval where org_id = $1 and substr(id, cast($2 as integer)) = $3 order by id limit 2";
    scoped APPROVAL_COUNT =
        "select count(*), count(case when state = 'pending' then 1 end) from approval where org_id = $1 and run_id = $2";
    scoped WARRANT_IN_FORCE =
        "select id from warrant where org_id = $1 and id = $2 and revoked_at is null and exists \
         (select 1 from run where org_id = $1 and run.id = $3 and run.warrant_id = warrant.id and run.ended_at is null)";
}

/// Earlier answers that are looked at for a new question, newest first.
const STANDING_LOOKED_AT: i64 = 256;
/// Where every sandbox shows its workspace.
const PLACE: Place<'static> = Place { workspace: "/work" };

/// Which questions to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct ApprovalFilter {
    /// Only those of this run.
    pub run: Option<RunId>,
    /// Only those in this state, as it is stored: see [`Approval::state_at`].
    pub state: Option<ApprovalState>,
    /// Only those older than this one.
    pub before: Option<ApprovalId>,
}

/// What looking for a question by the end of its id found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalFound {
    /// One.
    One(ApprovalId),
    /// Several: more of the id is needed.
    Several,
    /// None.
    None,
}

fn approval(mut columns: Columns<'_>) -> Result<Approval, StoreError> {
    let (id, run) = (columns.parsed("id")?, columns.parsed("run_id")?);
    let request = ApprovalRequest {
        id,
        warrant: columns.parsed("warrant_id")?,
        digest: columns.parsed("digest")?,
        action: columns.json("action")?,
        risk: columns.parsed("risk")?,
        because: columns.json("because")?,
        asked_at: columns.int()?,
        expires_at: columns.int()?,
    };
    let state = columns.parsed("state")?;
    let answer = columns.text_ref_opt()?.map(serde_json::from_str::<ApprovalAnswer>).transpose();
    let answer = answer.map_err(|error| columns.invalid("answer", error.to_string()))?;
    Ok(Approval {
        run,
        request,
        state,
        answer,
        answered_by: columns.text_opt()?,
        answered_at: columns.int_opt()?,
    })
}

pub(crate) fn json_of<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Input { what, why: error.to_string() })
}

fn too_much(why: String) -> StoreError {
    StoreError::Input { what: "question", why }
}

impl OrgRead {
    /// A question.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn approval_get(&mut self, id: ApprovalId) -> Result<Option<Approval>, StoreError> {
        self.first(APPROVAL_GET, values![id]).await?.map(|row| approval(row.read("approval"))).transpose()
    }

    /// Questions, newest first, at most `limit`.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn approval_list(
        &mut self,
        filter: ApprovalFilter,
        limit: u32,
    ) -> Result<Vec<Approval>, StoreError> {
        let before = filter.before.map_or_else(|| LAST_ID.to_owned(), |id| id.to_string());
        let (limit, state) = (i64::from(limit), filter.state.map(ApprovalState::as_str));
        let rows = match (filter.run, state) {
            (Some(run), state) => self.all(APPROVAL_LIST_OF_RUN, values![run, state, &before, limit]).await?,
            (None, Some(state)) => self.all(APPROVAL_LIST_IN_STATE, values![state, &before, limit]).await?,
            (None, None) => self.all(APPROVAL_LIST, values![&before, limit]).await?,
        };
        rows.iter().map(|row| approval(row.read("approval"))).collect()
    }

    /// The question whose id ends in this text: the last digits of it, or all of it.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn approval_find(&mut self, end: &str) -> Result<ApprovalFound, StoreError> {
        let Some(from) = i64::try_from(end.len()).ok().map(|length| 37 - length).filter(|from| *from >= 1)
        else {
            return Ok(ApprovalFound::None);
        };
        let rows = self.all(APPROVAL_FIND, values![from, end]).await?;
        match rows.as_slice() {
            [] => Ok(ApprovalFound::None),
            [row] => Ok(ApprovalFound::One(row.read("approval").parsed("id")?)),
            _ => Ok(ApprovalFound::Several),
        }
    }
}

impl OrgTx {
    /// Asks a person, for the lease's run. Asking again with the same id changes nothing and tells where the question
    /// stands. The answer is `Allowed` at once when an earlier yes covers the action, `Withdrawn` when the warrant is not
    /// the run's any more or is revoked, `Expired` when its time is over already.
    ///
    /// # Errors
    /// `lease-lost`; `approval-mismatch` when the id was used for another action; `input` for an action that is too large,
    /// and for a run that asks too much.
    pub async fn approval_ask(
        &mut self,
        lease: &Lease,
        request: &ApprovalRequest,
    ) -> Result<Approval, StoreError> {
        self.lease_guard(lease).await?;
        let (run, now) = (lease.run(), self.inner.now());
        if let Some(known) = self.approval_get(request.id).await? {
            let same = known.run == run
                && known.request.digest == request.digest
                && known.request.warrant == request.warrant;
            if !same {
                return Err(StoreError::ApprovalMismatch { id: request.id });
            }
            return self.approval_due(known, now).await;
        }
        let (action, because) = (json_of("action", &request.action)?, json_of("question", &request.because)?);
        if action.len().saturating_add(because.len()) > LARGEST_ACTION {
            return Err(too_much(format!(
                "its action has {} bytes, and at most {LARGEST_ACTION} can be judged by reading",
                action.len()
            )));
        }
        let counts = self.first(APPROVAL_COUNT, values![run]).await?;
        if let Some(row) = counts {
            let mut columns = row.read("approval");
            let (all, open) = (columns.count("count")?, columns.count("count")?);
            if open >= MOST_OPEN || all >= MOST_OF_RUN {
                return Err(too_much(format!(
                    "the run has asked {all} questions and {open} wait: at most {MOST_OPEN} wait at a time, and at most {MOST_OF_RUN} are asked"
                )));
            }
        }
        let in_force = self.first(WARRANT_IN_FORCE, values![request.warrant, run]).await?.is_some();
        let mut asked = Approval {
            run,
            request: request.clone(),
            state: ApprovalState::Pending,
            answer: None,
            answered_by: None,
            answered_at: None,
        };
        let mut why = None;
        if !in_force {
            (asked.state, why) = (ApprovalState::Withdrawn, Some("its warrant is not in force"));
        } else if asked.state_at(now) == ApprovalState::Expired {
            asked.state = ApprovalState::Expired;
        } else if let Some(given) = self.approval_standing(run, request, now).await? {
            asked.state = ApprovalState::Allowed;
            asked.answer =
                Some(ApprovalAnswer { allow: true, scope: ApprovalScope::Once, until: None, reason: None });
            asked.answered_by = Some(format!("approval:{given}"));
            asked.answered_at = Some(now);
        }
        let answer = asked.answer.as_ref().map(|answer| json_of("answer", answer)).transpose()?;
        let row: &[Value<'_>] = values![
            request.id,
            run,
            request.warrant,
            request.digest.as_str(),
            &action,
            request.risk.as_str(),
            &because,
            request.asked_at,
            request.expires_at,
            asked.state.as_str(),
            answer,
            asked.answered_by.as_deref(),
            asked.answered_at,
        ];
        self.change(APPROVAL_ADD, row).await?;
        let draft = AuditDraft::new(format!("run:{run}"), AuditAction::ApprovalAsked, subject(&asked))
            .with("run", run)
            .with("warrant", request.warrant)
            .with("digest", &request.digest)
            .with("kind", request.action.kind)
            .with("tool", &request.action.tool)
            .with("risk", request.risk)
            .with("expires_at", request.expires_at);
        self.audit_note(draft);
        match (asked.state, asked.answered_by.clone()) {
            (ApprovalState::Pending, _) => self.approval_told(&asked, &asked.request.action.input).await?,
            (_, by) => self.approval_moved(&asked, &by.unwrap_or_else(|| "system".to_owned()), why).await?,
        }
        Ok(asked)
    }

    /// The newest earlier yes of the run that covers a question.
    async fn approval_standing(
        &mut self,
        run: RunId,
        request: &ApprovalRequest,
        now: i64,
    ) -> Result<Option<ApprovalId>, StoreError> {
        let rows = self.all(APPROVAL_LIST_STANDING, values![run, STANDING_LOOKED_AT]).await?;
        for row in &rows {
            let given = approval(row.read("approval"))?;
            if given.covers(request, PLACE, now) {
                return Ok(Some(given.request.id));
            }
        }
        Ok(None)
    }

    /// The questions of a run that wait for an answer, or for the use of one; `spared` is the warrant whose own stay.
    pub(crate) async fn approval_list_open(
        &mut self,
        run: RunId,
        spared: Option<WarrantId>,
    ) -> Result<Vec<Approval>, StoreError> {
        let spared = spared.map_or_else(String::new, |id| id.to_string());
        let rows = self.all(APPROVAL_LIST_OPEN, values![run, &spared]).await?;
        rows.iter().map(|row| approval(row.read("approval"))).collect()
    }

    /// The questions of a run whose time is over and that nobody has noted as such.
    pub(crate) async fn approval_list_overdue(
        &mut self,
        run: RunId,
        now: i64,
        unused: i64,
    ) -> Result<Vec<Approval>, StoreError> {
        let rows = self.all(APPROVAL_LIST_OVERDUE, values![run, now, unused]).await?;
        rows.iter().map(|row| approval(row.read("approval"))).collect()
    }

    /// Tells the story of a run where a question stands. Whoever calls holds the story's lock.
    async fn approval_told(&mut self, asked: &Approval, input: &Json) -> Result<(), StoreError> {
        let mut shown = asked.clone();
        shown.request.action.input = input.clone();
        let body = serde_json::to_value(&shown)
            .map_err(|error| StoreError::Input { what: "question", why: error.to_string() })?;
        let event = EventDraft { kind: EventKind::Approval, at: self.inner.now(), body };
        self.event_append(asked.run, &[event]).await?;
        self.announce(Topic::Run);
        Ok(())
    }

    /// Tells story and log of a question that went to another state. The story has its arguments once, where it was asked.
    pub(crate) async fn approval_moved(
        &mut self,
        asked: &Approval,
        by: &str,
        why: Option<&str>,
    ) -> Result<(), StoreError> {
        self.approval_told(asked, &Json::Null).await?;
        // A worker uses a yes; whatever else is told of a used one is about its answer.
        let action = match asked.state {
            ApprovalState::Used if by.starts_with("run:") => AuditAction::ApprovalUsed,
            _ => AuditAction::ApprovalAnswered,
        };
        let outcome = match asked.state {
            ApprovalState::Denied | ApprovalState::Expired => AuditOutcome::Refused,
            _ => AuditOutcome::Ok,
        };
        let mut draft = AuditDraft::new(by, action, subject(asked))
            .outcome(outcome)
            .with("run", asked.run)
            .with("digest", &asked.request.digest)
            .with("risk", asked.request.risk)
            .with("state", asked.state);
        if let Some(why) = why {
            draft = draft.with("why", why);
        }
        if asked.state == ApprovalState::Allowed
            && let Some(answer) = &asked.answer
        {
            draft = match &answer.scope {
                ApprovalScope::Once => draft.with("scope", "once"),
                ApprovalScope::Run => draft.with("scope", "run"),
                ApprovalScope::Paths { patterns } => {
                    let patterns: Vec<&str> = patterns.iter().map(|one| one.as_str()).collect();
                    draft.with("scope", "paths").with("paths", patterns.join(" "))
                }
            };
            if let Some(until) = answer.until {
                draft = draft.with("until", until);
            }
        }
        if let Some(reason) = asked.answer.as_ref().and_then(|answer| answer.reason.as_ref()) {
            draft = draft.with("reason", reason);
        }
        self.audit_note(draft);
        Ok(())
    }
}

fn subject(asked: &Approval) -> String {
    format!("approval:{}", asked.request.id)
}

//! The answers to questions: given once, used once.
//!
//! Promises: the first valid answer wins, and the same answer again changes nothing; a yes is used at most once, for the
//! digest that it was given for and under the warrant that is in force; a question whose time is over is a no. Every step
//! compares with the state that it leaves, under the lock that a worker's fence takes.

use crate::approval::json_of;
use crate::error::StoreError;
use crate::lease::Lease;
use crate::sql::{Value, statements, values};
use crate::transaction::OrgTx;
use tipstaff_model::approval::USE_GRACE_MS;
use tipstaff_model::{
    ActionDigest, Approval, ApprovalAnswer, ApprovalId, ApprovalState, MemberId, Risk, RunId, WarrantId,
};
use tipstaff_seal::redact::Redactor;

statements! {
    scoped APPROVAL_DECIDE =
        "update approval set state = $3, answer = $4, answered_by = $5, answered_at = $6, standing = $7 \
         where org_id = $1 and id = $2 and state = 'pending' and expires_at > $6 returning id";
    scoped APPROVAL_SHORTEN =
        "update approval set answer = $3, standing = 0 where org_id = $1 and id = $2 and standing = 1 returning id";
    scoped APPROVAL_MOVE =
        "update approval set state = $3 where org_id = $1 and id = $2 and state = $4 returning id";
    scoped APPROVAL_USE =
        "update approval set state = 'used' where org_id = $1 and id = $2 and run_id = $3 and digest = $4 \
         and state = 'allowed' and expires_at > $5 and exists \
         (select 1 from warrant where org_id = $1 and warrant.id = approval.warrant_id and warrant.revoked_at is null) \
         and exists (select 1 from run where org_id = $1 and run.id = approval.run_id \
         and run.warrant_id = approval.warrant_id and run.ended_at is null) returning id";
}

/// What answering a question did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApprovalAnswered {
    /// It is answered so.
    Now(Approval),
    /// It was answered so before.
    Already(Approval),
    /// It was answered in another way before, or taken back: its state says which.
    Decided(Approval),
    /// Its time was over.
    Expired(Approval),
}

impl OrgTx {
    /// Answers a question for a person. `None` when there is no such question. Commit in any case: a question whose time
    /// is over is marked so.
    ///
    /// A critical action that a person asked for themselves is allowed by somebody else of the org; where there is nobody
    /// else, by them, with a reason.
    ///
    /// # Errors
    /// `input` for an answer that can't be taken; `approval-forbidden` for a person who may not give it.
    pub async fn approval_answer(
        &mut self,
        who: MemberId,
        id: ApprovalId,
        answer: &ApprovalAnswer,
    ) -> Result<Option<ApprovalAnswered>, StoreError> {
        let Some(seen) = self.approval_get(id).await? else { return Ok(None) };
        self.story_lock(seen.run).await?;
        let Some(asked) = self.approval_get(id).await? else { return Ok(None) };
        answer
            .check(asked.request.risk)
            .map_err(|error| StoreError::Input { what: "answer", why: error.to_string() })?;
        self.approval_may_answer(who, &asked, answer).await?;
        let now = self.inner.now();
        match asked.state {
            ApprovalState::Pending => {}
            ApprovalState::Expired => return Ok(Some(ApprovalAnswered::Expired(asked))),
            _ => {
                let same = |given: &ApprovalAnswer| {
                    let alike = given.scope == answer.scope && given.until == answer.until;
                    given.allow == answer.allow && (alike || !given.allow)
                };
                let withdrawn = asked.state == ApprovalState::Withdrawn;
                return Ok(Some(if !withdrawn && asked.answer.as_ref().is_some_and(same) {
                    ApprovalAnswered::Already(asked)
                } else {
                    ApprovalAnswered::Decided(asked)
                }));
            }
        }
        let asked = self.approval_due(asked, now).await?;
        if asked.state == ApprovalState::Expired {
            return Ok(Some(ApprovalAnswered::Expired(asked)));
        }
        let kept = ApprovalAnswer {
            // It goes to the agent, the story and the log.
            reason: answer.reason.as_ref().map(|text| Redactor::new().redact(text).into_owned()),
            ..answer.clone()
        };
        let by = format!("member:{who}");
        let state = if kept.allow { ApprovalState::Allowed } else { ApprovalState::Denied };
        let row: &[Value<'_>] =
            values![id, state.as_str(), json_of("answer", &kept)?, &by, now, i64::from(kept.is_wide()),];
        if self.first(APPROVAL_DECIDE, row).await?.is_none() {
            return Err(StoreError::Missing { what: "open question" });
        }
        let asked = Approval {
            state,
            answer: Some(kept),
            answered_by: Some(by.clone()),
            answered_at: Some(now),
            ..asked
        };
        self.approval_moved(&asked, &by, None).await?;
        Ok(Some(ApprovalAnswered::Now(asked)))
    }

    /// Ends the further reach of a yes: from now on it covers no other question. What it covered before stays as it was.
    /// `None` when there is no such question; else the question, and whether its yes reached further until now.
    ///
    /// # Errors
    /// `approval-forbidden` for a person who may not answer.
    pub async fn approval_shorten(
        &mut self,
        who: MemberId,
        id: ApprovalId,
    ) -> Result<Option<(Approval, bool)>, StoreError> {
        let Some(seen) = self.approval_get(id).await? else { return Ok(None) };
        self.story_lock(seen.run).await?;
        let Some(mut asked) = self.approval_get(id).await? else { return Ok(None) };
        let now = self.inner.now();
        let reaches =
            |answer: &ApprovalAnswer| answer.is_wide() && answer.until.is_none_or(|until| until > now);
        let Some(answer) = asked.answer.clone().filter(reaches) else { return Ok(Some((asked, false))) };
        let shorter = ApprovalAnswer { until: Some(now), ..answer };
        self.approval_may_answer(who, &asked, &ApprovalAnswer { allow: false, ..shorter.clone() }).await?;
        if self.first(APPROVAL_SHORTEN, values![id, json_of("answer", &shorter)?]).await?.is_none() {
            return Ok(Some((asked, false)));
        }
        asked.answer = Some(shorter);
        self.approval_moved(&asked, &format!("member:{who}"), Some("it covers nothing further")).await?;
        Ok(Some((asked, true)))
    }

    /// Refuses a person whose word does not count for this answer.
    async fn approval_may_answer(
        &mut self,
        who: MemberId,
        asked: &Approval,
        answer: &ApprovalAnswer,
    ) -> Result<(), StoreError> {
        const MAY: [&str; 3] = ["owner", "admin", "member"];
        let people = self.member_list().await?;
        let mut may = people.iter().filter(|member| MAY.contains(&member.role.as_str()));
        if !may.clone().any(|member| member.id == who) {
            return Err(StoreError::ApprovalForbidden {
                why: "owners, admins and members of the org answer; a viewer only looks",
            });
        }
        if !answer.allow || asked.request.risk != Risk::Critical {
            return Ok(());
        }
        let run = self.run_get(asked.run).await?.ok_or(StoreError::Missing { what: "run" })?;
        let task = self.task_get(run.task).await?.ok_or(StoreError::Missing { what: "task" })?;
        if task.person.is_some_and(|person| person != who) {
            return Ok(());
        }
        if may.any(|member| member.id != who) {
            return Err(StoreError::ApprovalForbidden {
                why: "the action is critical and you asked for the run yourself; another owner, admin or member has to allow it",
            });
        }
        if answer.reason.as_ref().is_none_or(|reason| reason.trim().is_empty()) {
            return Err(StoreError::ApprovalForbidden {
                why: "the action is critical, you asked for the run yourself and nobody else is in the org; give the reason, which is kept in the log",
            });
        }
        Ok(())
    }

    /// Uses a yes: `true` exactly once, for the very action that it was given for, while its warrant is in force and not
    /// later than [`USE_GRACE_MS`] after the question's time.
    ///
    /// # Errors
    /// `lease-lost`.
    pub async fn approval_use(
        &mut self,
        lease: &Lease,
        id: ApprovalId,
        digest: &ActionDigest,
    ) -> Result<bool, StoreError> {
        self.lease_guard(lease).await?;
        let (run, since) = (lease.run(), self.inner.now().saturating_sub(USE_GRACE_MS));
        if self.first(APPROVAL_USE, values![id, run, digest.as_str(), since]).await?.is_none() {
            return Ok(false);
        }
        let used = self.approval_get(id).await?.ok_or(StoreError::Missing { what: "question" })?;
        self.approval_moved(&used, &format!("run:{run}"), None).await?;
        Ok(true)
    }

    /// Takes a question of the lease's run back; whether it was open until now.
    ///
    /// # Errors
    /// `lease-lost`.
    pub async fn approval_withdraw(&mut self, lease: &Lease, id: ApprovalId) -> Result<bool, StoreError> {
        self.lease_guard(lease).await?;
        let run = lease.run();
        let Some(asked) = self.approval_get(id).await?.filter(|asked| asked.run == run) else {
            return Ok(false);
        };
        if asked.state.is_final() {
            return Ok(false);
        }
        let why = Some("the agent no longer waits");
        self.approval_move(asked, ApprovalState::Withdrawn, &format!("run:{run}"), why).await?;
        Ok(true)
    }

    /// Marks the questions of the lease's run whose time is over; they are denied. Those that were marked.
    ///
    /// # Errors
    /// `lease-lost`.
    pub async fn approval_expire(&mut self, lease: &Lease) -> Result<Vec<Approval>, StoreError> {
        self.lease_guard(lease).await?;
        let now = self.inner.now();
        let overdue = self.approval_list_overdue(lease.run(), now, now.saturating_sub(USE_GRACE_MS)).await?;
        let mut expired = Vec::with_capacity(overdue.len());
        for asked in overdue {
            expired.push(self.approval_due(asked, now).await?);
        }
        Ok(expired)
    }

    /// A question as it stands now: one whose time is over is marked so. Whoever calls holds the story's lock.
    pub(crate) async fn approval_due(&mut self, asked: Approval, now: i64) -> Result<Approval, StoreError> {
        if asked.state_at(now) == asked.state {
            return Ok(asked);
        }
        let why = match asked.state {
            ApprovalState::Allowed => "the yes was not used in time",
            _ => "nobody answered in time",
        };
        self.approval_move(asked, ApprovalState::Expired, "system", Some(why)).await
    }

    /// Takes back every open question of a run, except those under the warrant that is `spared`. Whoever calls holds the
    /// story's lock.
    pub(crate) async fn approval_close(
        &mut self,
        run: RunId,
        spared: Option<WarrantId>,
        why: &str,
    ) -> Result<(), StoreError> {
        for asked in self.approval_list_open(run, spared).await? {
            self.approval_move(asked, ApprovalState::Withdrawn, "system", Some(why)).await?;
        }
        Ok(())
    }

    async fn approval_move(
        &mut self,
        asked: Approval,
        state: ApprovalState,
        by: &str,
        why: Option<&str>,
    ) -> Result<Approval, StoreError> {
        let row: &[Value<'_>] = values![asked.request.id, state.as_str(), asked.state.as_str()];
        if self.first(APPROVAL_MOVE, row).await?.is_none() {
            return Err(StoreError::Missing { what: "open question" });
        }
        let asked = Approval { state, ..asked };
        self.approval_moved(&asked, by, why).await?;
        Ok(asked)
    }
}

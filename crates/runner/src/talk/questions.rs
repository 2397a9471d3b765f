//! The questions of an agent: judged by the policies, put to a person, answered once.

use super::shown::shown;
use super::{End, Present, within};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tipstaff_engine::{Asked, Reply};
use tipstaff_model::policy::{Circumstances, Decision};
use tipstaff_model::risk::{Assessment, Place, assess};
use tipstaff_model::{
    ActionDigest, Approval, ApprovalId, ApprovalRequest, ApprovalState, ControlPlaneError, Entropy, Policies,
    Rule, WarrantId,
};
use tipstaff_seal::redact::Redactor;

/// Questions that may wait for an answer at the same time.
const MOST_OPEN: usize = 64;
/// Questions that one run may put to people.
const MOST_ASKED: usize = 1000;
/// Decisions that are remembered, to answer a question that is asked twice.
const MOST_DECIDED: usize = 4096;
/// Refusals that one run puts on record here.
const MOST_REFUSALS: usize = 500;
/// Where the agent sees the workspace.
const PLACE: Place<'static> = Place { workspace: tipstaff_sandbox::INSIDE_WORK };

/// A question that a person was asked.
struct Open {
    asked: Asked,
    approval: Approval,
    digest: ActionDigest,
}

/// What was decided about a question.
struct Decided {
    action: ActionDigest,
    reply: Reply,
}

/// All questions of one run.
pub(super) struct Questions {
    policies: Policies,
    ask_timeout: Duration,
    redactor: Redactor,
    entropy: Arc<dyn Entropy>,
    /// By the agent's id.
    open: BTreeMap<String, Open>,
    decided: BTreeMap<String, Decided>,
    decided_order: VecDeque<String>,
    asked: usize,
    refused: BTreeSet<(&'static str, String)>,
}

/// An answer to a question, by its id.
pub(super) type Answer = (String, Reply);

/// The digest of an action whatever the warrant: to tell whether a question is the same.
fn sameness(asked: &Asked) -> ActionDigest {
    asked.action.digest(WarrantId::from_bytes([0; 16]), &asked.id)
}

fn no(why: impl Into<String>) -> Reply {
    Reply::Deny { why: why.into(), interrupt: false }
}

impl Questions {
    pub(super) fn new(
        policies: Policies,
        ask_timeout: Duration,
        redactor: Redactor,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            policies,
            ask_timeout,
            redactor,
            entropy,
            open: BTreeMap::new(),
            decided: BTreeMap::new(),
            decided_order: VecDeque::new(),
            asked: 0,
            refused: BTreeSet::new(),
        }
    }

    /// Whether a person is asked.
    pub(super) fn is_waiting(&self) -> bool {
        !self.open.is_empty()
    }

    /// The questions that wait.
    pub(super) fn ids(&self) -> Vec<ApprovalId> {
        self.open.values().map(|open| open.approval.request.id).collect()
    }

    /// Takes a question. `None` while a person is asked.
    pub(super) async fn take(
        &mut self,
        asked: Asked,
        at: &mut Present<'_, '_>,
    ) -> Result<Option<Reply>, End> {
        let same = sameness(&asked);
        if let Some(open) = self.open.get(&asked.id) {
            if sameness(&open.asked) == same {
                return Ok(None);
            }
            // Something else under the name of a question that waits: whoever says yes would not know to what.
            self.withdraw(&asked.id, at).await?;
            let reply = no("this is not what was asked under this id before");
            self.decide(&asked.id, same, &reply);
            return Ok(Some(reply));
        }
        if let Some(decided) = self.decided.get(&asked.id) {
            let other = || no("this is not what was asked under this id before");
            return Ok(Some(if decided.action == same { decided.reply.clone() } else { other() }));
        }
        let reply = self.judge(&asked, at).await?;
        if let Some(reply) = &reply {
            self.decide(&asked.id, same, reply);
        }
        Ok(reply)
    }

    fn decide(&mut self, id: &str, action: ActionDigest, reply: &Reply) {
        if self.decided_order.len() >= MOST_DECIDED
            && let Some(oldest) = self.decided_order.pop_front()
        {
            self.decided.remove(&oldest);
        }
        if self.decided.insert(id.to_owned(), Decided { action, reply: reply.clone() }).is_none() {
            self.decided_order.push_back(id.to_owned());
        }
    }

    async fn judge(&mut self, asked: &Asked, at: &mut Present<'_, '_>) -> Result<Option<Reply>, End> {
        let warrant = at.watch.warrant.warrant();
        let assessment = assess(&asked.action, &warrant, PLACE);
        let about = Circumstances { role: warrant.role, risk: assessment.risk, place: PLACE };
        let judged = self.policies.judge(&asked.action, about);
        match judged.decision {
            Decision::Allow => Ok(Some(Reply::Allow)),
            Decision::Deny => {
                let because = judged.because.join("; ");
                self.refuse(Rule::PolicyDenied, asked, &because, at).await?;
                Ok(Some(no(format!("denied by the policy of {because}"))))
            }
            Decision::Ask => self.ask(asked, warrant.id, assessment, judged.because, at).await,
        }
    }

    async fn ask(
        &mut self,
        asked: &Asked,
        warrant: WarrantId,
        assessment: Assessment,
        mut because: Vec<String>,
        at: &mut Present<'_, '_>,
    ) -> Result<Option<Reply>, End> {
        if self.open.len() >= MOST_OPEN || self.asked >= MOST_ASKED {
            let why = format!("a run asks {MOST_OPEN} questions at once and {MOST_ASKED} in all at most");
            self.refuse(Rule::ApprovalDenied, asked, &why, at).await?;
            return Ok(Some(no(why)));
        }
        self.asked += 1;
        // The question stands in the story behind what led to it.
        let _kept_for_later = at.session.flush(at.watch.control).await;
        because.extend(assessment.because);
        for text in &mut because {
            *text = self.redactor.redact(text).into_owned();
        }
        let now = at.watch.clock.wall_ms();
        let digest = asked.action.digest(warrant, &asked.id);
        let request = ApprovalRequest {
            id: ApprovalId::new(at.watch.clock, self.entropy.as_ref()),
            warrant,
            digest: digest.clone(),
            action: shown(&asked.action, &self.redactor),
            risk: assessment.risk,
            because,
            asked_at: now,
            expires_at: now.saturating_add(i64::try_from(self.ask_timeout.as_millis()).unwrap_or(i64::MAX)),
        };
        let (id, bound) = (request.id, request.expires_at);
        let approval = match within(at.watch.control.approval_ask(request)).await {
            Ok(approval) if approval.request.id == id && approval.request.digest == digest => approval,
            Ok(_) => return self.not_asked(asked, "another question came back", at).await.map(Some),
            Err(ControlPlaneError::LeaseLost) => return Err(End::Control(ControlPlaneError::LeaseLost)),
            Err(error) => return self.not_asked(asked, &error.to_string(), at).await.map(Some),
        };
        at.tell(&approval);
        let mut open = Open { asked: asked.clone(), approval, digest };
        open.approval.request.expires_at = open.approval.request.expires_at.min(bound);
        let reply = self.resolve(&mut open, at).await?;
        if reply.is_none() {
            self.open.insert(asked.id.clone(), open);
        }
        Ok(reply)
    }

    async fn not_asked(
        &mut self,
        asked: &Asked,
        error: &str,
        at: &mut Present<'_, '_>,
    ) -> Result<Reply, End> {
        let why = format!("nobody could be asked: {error}");
        self.refuse(Rule::ApprovalDenied, asked, &why, at).await?;
        at.remark(format!("{}: {why}", asked.action.tool));
        Ok(no(why))
    }

    /// The reply that follows from where a question stands; `None` while it waits.
    async fn resolve(&mut self, open: &mut Open, at: &mut Present<'_, '_>) -> Result<Option<Reply>, End> {
        let approval = &mut open.approval;
        let reason = approval.answer.as_ref().and_then(|answer| answer.reason.clone());
        let (rule, why) = match approval.state {
            ApprovalState::Pending => {
                if at.watch.clock.wall_ms() < approval.request.expires_at {
                    return Ok(None);
                }
                // The control plane has not said so yet; nothing of it is used any more.
                approval.state = ApprovalState::Expired;
                at.tell(approval);
                (Rule::ApprovalExpired, self.late())
            }
            ApprovalState::Allowed => {
                let used =
                    within(at.watch.control.approval_use(approval.request.id, open.digest.clone())).await;
                match used {
                    Ok(true) => {
                        approval.state = ApprovalState::Used;
                        at.tell(approval);
                        return Ok(Some(Reply::Allow));
                    }
                    Ok(false) => (Rule::ApprovalDenied, "the approval can't be used any more".to_owned()),
                    Err(ControlPlaneError::LeaseLost) => {
                        return Err(End::Control(ControlPlaneError::LeaseLost));
                    }
                    Err(error) => {
                        let why = format!("the approval could not be used: {error}");
                        at.remark(why.clone());
                        (Rule::ApprovalDenied, why)
                    }
                }
            }
            ApprovalState::Denied => {
                let said = reason.map_or_else(String::new, |reason| format!(": {reason}"));
                (Rule::ApprovalDenied, format!("a person said no{said}"))
            }
            ApprovalState::Expired => (Rule::ApprovalExpired, self.late()),
            // The control plane takes questions back when their warrant is narrowed, a heartbeat before that is known
            // here: this one is judged anew then.
            ApprovalState::Withdrawn if at.watch.clock.wall_ms() < approval.request.expires_at => {
                return Ok(None);
            }
            ApprovalState::Withdrawn => {
                (Rule::ApprovalDenied, "the question was taken back before it was answered".to_owned())
            }
            ApprovalState::Used => (Rule::ApprovalDenied, "the approval was used before".to_owned()),
        };
        let asked = open.asked.clone();
        self.refuse(rule, &asked, &why, at).await?;
        Ok(Some(no(why)))
    }

    fn late(&self) -> String {
        format!("nobody answered within {} s, which means no", self.ask_timeout.as_secs())
    }

    /// Takes what the control plane says about the questions that wait; the answers that follow.
    pub(super) async fn news(
        &mut self,
        news: Vec<Approval>,
        at: &mut Present<'_, '_>,
    ) -> Result<Vec<Answer>, End> {
        let mut answers = Vec::new();
        let in_force = at.watch.warrant.warrant().id;
        let ids: Vec<String> = self.open.keys().cloned().collect();
        for id in ids {
            let Some(mut open) = self.open.remove(&id) else { continue };
            let request = open.approval.request.id;
            if open.approval.request.warrant != in_force {
                // It was asked under a warrant that granted more: whoever says yes now says it about another one.
                self.take_back(&mut open, at).await?;
                at.remark(format!(
                    "{}: the warrant was narrowed, so it is judged anew",
                    open.asked.action.tool
                ));
                let again = self.judge(&open.asked, at).await?;
                if let Some(reply) = again {
                    self.decide(&id, sameness(&open.asked), &reply);
                    answers.push((id, reply));
                }
                continue;
            }
            if let Some(said) = news.iter().find(|said| said.request.id == request)
                && said.state != open.approval.state
            {
                open.approval.state = said.state;
                open.approval.answer.clone_from(&said.answer);
                open.approval.answered_by.clone_from(&said.answered_by);
                open.approval.answered_at = said.answered_at;
                at.tell(&open.approval);
            }
            match self.resolve(&mut open, at).await? {
                Some(reply) => {
                    self.decide(&id, sameness(&open.asked), &reply);
                    answers.push((id, reply));
                }
                None => {
                    self.open.insert(id, open);
                }
            }
        }
        Ok(answers)
    }

    /// The agent no longer waits for this answer.
    pub(super) async fn withdraw(&mut self, id: &str, at: &mut Present<'_, '_>) -> Result<(), End> {
        match self.open.remove(id) {
            Some(mut open) => self.take_back(&mut open, at).await,
            None => Ok(()),
        }
    }

    /// The agent waits for nothing any more.
    pub(super) async fn withdraw_all(&mut self, at: &mut Present<'_, '_>) {
        for (_, mut open) in std::mem::take(&mut self.open) {
            let _lease_lost = self.take_back(&mut open, at).await;
        }
    }

    async fn take_back(&mut self, open: &mut Open, at: &mut Present<'_, '_>) -> Result<(), End> {
        open.approval.state = ApprovalState::Withdrawn;
        at.tell(&open.approval);
        match within(at.watch.control.approval_withdraw(open.approval.request.id)).await {
            Err(ControlPlaneError::LeaseLost) => Err(End::Control(ControlPlaneError::LeaseLost)),
            Err(error) => {
                at.remark(format!("a question could not be taken back, and expires: {error}"));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn refuse(
        &mut self,
        rule: Rule,
        asked: &Asked,
        why: &str,
        at: &mut Present<'_, '_>,
    ) -> Result<(), End> {
        let title = &asked.action.title;
        let wanted = if title.is_empty() || *title == asked.action.tool {
            asked.action.tool.clone()
        } else {
            format!("{}: {title}", asked.action.tool)
        };
        self.refuse_wanted(rule, &wanted, why, at).await
    }

    /// Puts a refusal on record, each once, up to a bound.
    pub(super) async fn refuse_wanted(
        &mut self,
        rule: Rule,
        wanted: &str,
        why: &str,
        at: &mut Present<'_, '_>,
    ) -> Result<(), End> {
        let known = format!("{wanted}\0{why}").chars().take(1000).collect::<String>();
        if self.refused.len() >= MOST_REFUSALS || !self.refused.insert((rule.id(), known)) {
            return Ok(());
        }
        at.refuse(rule, wanted, why).await
    }
}

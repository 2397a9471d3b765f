//! News of a run from the store, a page at a time.

use crate::context::Context;
use crate::exit::Problem;
use crate::learn::Refused;
use crate::tui::facts::{Facts, InForce, Snapshot};
use std::collections::BTreeMap;
use tipstaff_model::{Approval, ApprovalState, EventKind, MicroUsd, RunId};
use tipstaff_store::{ApprovalFilter, Event, Run};

/// Events that are read at once.
const PAGE: u32 = 500;
/// Questions that are read at once.
const MOST_PENDING: u32 = 100;

/// Where the reading of a run stands.
#[derive(Debug)]
pub(crate) struct Feed {
    run: RunId,
    after: u64,
    warrant: Option<InForce>,
    /// How often something was refused, by rule and what was wanted, where it was more than once.
    counts: BTreeMap<(String, String), u64>,
}

impl Feed {
    /// From the beginning of a run.
    pub(crate) const fn new(run: RunId) -> Self {
        Self { run, after: 0, warrant: None, counts: BTreeMap::new() }
    }

    /// What does not change.
    pub(crate) async fn facts(&self, context: &Context, own: bool) -> anyhow::Result<Facts> {
        let mut read = context.store.read(context.scope()).await?;
        let run = read.run_get(self.run).await?.ok_or_else(gone)?;
        let task = read.task_get(run.task).await?.ok_or_else(gone)?;
        let branch = run.branch.as_ref().map(|branch| branch.short());
        Ok(Facts::new(run.id, run.task, own, &task.spec, branch))
    }

    /// How things stand, and what was said since the last time.
    pub(crate) async fn next(&mut self, context: &Context) -> anyhow::Result<(Snapshot, Vec<Event>)> {
        let mut read = context.store.read(context.scope()).await?;
        let run = read.run_get(self.run).await?.ok_or_else(gone)?;
        let events = read.event_list(self.run, self.after, PAGE).await?;
        if self.warrant.map(|warrant| warrant.id) != run.warrant {
            self.warrant = match run.warrant {
                None => None,
                Some(id) => read.warrant_get(id).await?.map(|stored| {
                    let warrant = stored.signed.warrant;
                    InForce {
                        id: warrant.id,
                        expires_at: warrant.expires_at,
                        wall_ms: warrant.limits.wall_ms,
                        budget: warrant.budget,
                    }
                }),
            };
        }
        let filter =
            ApprovalFilter { run: Some(self.run), state: Some(ApprovalState::Pending), before: None };
        let mut pending = read.approval_list(filter, MOST_PENDING).await?;
        // The one that was asked first comes first.
        pending.reverse();
        let refusals = read.refusal_list(self.run).await?;
        drop(read);
        if let Some(last) = events.last() {
            self.after = last.seq;
        }
        self.count(&events);
        let refused = refusals.into_iter().map(|one| {
            let key = (one.refusal.rule.id().to_owned(), one.refusal.wanted.clone());
            let times = self.counts.get(&key).copied().unwrap_or(1).max(1);
            Refused { run: self.run, refusal: one.refusal, times }
        });
        let refused = refused.collect();
        Ok((self.snapshot(context, &run, (refused, pending)), events))
    }

    fn count(&mut self, events: &[Event]) {
        for event in events.iter().filter(|event| event.kind == EventKind::Refusal) {
            let word = |name: &str| event.body.get(name).and_then(serde_json::Value::as_str);
            if let (Some(rule), Some(wanted), Some(times)) =
                (word("rule"), word("wanted"), event.body.get("times").and_then(serde_json::Value::as_u64))
            {
                let count = self.counts.entry((rule.to_owned(), wanted.to_owned())).or_default();
                *count = count.saturating_add(times);
            }
        }
    }

    fn snapshot(
        &self,
        context: &Context,
        run: &Run,
        (refused, pending): (Vec<Refused>, Vec<Approval>),
    ) -> Snapshot {
        let collected = run.commit.is_some() || run.state.is_final();
        Snapshot {
            now: context.clock.wall_ms(),
            state: run.state,
            reason: run.exit_reason,
            error: run.error.clone(),
            started_at: run.started_at,
            ended_at: run.ended_at,
            warrant: self.warrant,
            spent: MicroUsd::from_micro(run.cost_micro_usd),
            change: collected.then_some((run.files_changed, run.additions, run.deletions)),
            pending,
            refused,
        }
    }

    /// Whether a page was full, so that more waits.
    pub(crate) fn is_full(events: &[Event]) -> bool {
        events.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX)
    }
}

fn gone() -> anyhow::Error {
    Problem::failed("run-unknown", "the run is not in the store any more")
}

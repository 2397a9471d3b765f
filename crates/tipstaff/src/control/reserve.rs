//! The reserve of one run: money that was set aside while the store could be reached, for calls while it can't.
//!
//! Promises: no more is drawn than was set aside; a draw and a settlement are in the spool on disk before they are
//! answered for; nothing that waits is forgotten before the store has it.

use super::spool::{Entry, Spool};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use tipstaff_model::id::RowId;
use tipstaff_model::{ChargeRequest, ChargeSettlement, Clock, Entropy, MicroUsd, OrgId, RunId};

/// Calls that may be paid from one reserve, so that free ones end too.
const MOST_CALLS: usize = 1_000;

/// Where the reserve stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The store was not asked yet.
    Unasked,
    /// It is asked in the transaction that is under way.
    Asked(RowId),
    /// This much is left of it.
    Held(RowId, MicroUsd),
    /// There is none, or it was given up; what was drawn before names it.
    Gone(Option<RowId>),
}

pub(super) struct Reserve {
    folder: PathBuf,
    org: OrgId,
    run: RunId,
    most: MicroUsd,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    state: State,
    /// What the transaction that is under way sets aside.
    asked: Option<MicroUsd>,
    spool: Option<Spool>,
    /// Calls that the store granted and that are open.
    granted: BTreeSet<RowId>,
    /// Calls that were paid from the reserve and that the store does not know yet.
    drawn: BTreeSet<RowId>,
    calls: usize,
    waiting: Vec<Entry>,
}

impl Reserve {
    pub(super) fn new(
        folder: PathBuf,
        org: OrgId,
        run: RunId,
        most: MicroUsd,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            folder,
            org,
            run,
            most,
            clock,
            entropy,
            state: State::Unasked,
            asked: None,
            spool: None,
            granted: BTreeSet::new(),
            drawn: BTreeSet::new(),
            calls: 0,
            waiting: Vec::new(),
        }
    }

    /// What to set aside, the first time; the file that names it is on disk already.
    pub(super) fn wanted(&mut self) -> Option<(RowId, MicroUsd)> {
        if self.most == MicroUsd::ZERO {
            return None;
        }
        let hold = match self.state {
            State::Unasked => {
                let hold = RowId::new(&*self.clock, &*self.entropy);
                // Without a file nobody could say afterwards that nothing was drawn.
                self.spool = Some(Spool::create(&self.folder, self.org, self.run, Some(hold)).ok()?);
                hold
            }
            // The transaction that asked was not kept, or was and nobody knows: the same question again.
            State::Asked(hold) => hold,
            State::Held(..) | State::Gone(_) => return None,
        };
        self.state = State::Asked(hold);
        Some((hold, self.most))
    }

    /// The store sets this much aside; it counts once the transaction is committed.
    pub(super) const fn was_held(&mut self, amount: MicroUsd) {
        self.asked = Some(amount);
    }

    /// A transaction begins: what one before asked for and did not get done is asked for again.
    pub(super) const fn begins(&mut self) {
        self.asked = None;
    }

    /// The reserve gave way to a call.
    pub(super) fn was_let_go(&mut self) {
        self.state = State::Gone(self.hold());
    }

    /// The id of the reserve, left or not.
    pub(super) fn hold(&self) -> Option<RowId> {
        match self.state {
            State::Unasked => None,
            State::Asked(hold) | State::Held(hold, _) => Some(hold),
            State::Gone(hold) => hold,
        }
    }

    /// What is left.
    pub(super) fn left(&self) -> MicroUsd {
        match self.state {
            State::Held(_, left) => left,
            _ => MicroUsd::ZERO,
        }
    }

    /// Pays for a call while the store can't be reached; how much, where there is enough.
    pub(super) fn draw(&mut self, request: &ChargeRequest) -> Option<MicroUsd> {
        let State::Held(hold, left) = self.state else { return None };
        let least = request.least.micro().max(1).min(request.most.micro());
        let amount = MicroUsd::from_micro(request.most.micro().min(left.micro()));
        if amount.micro() < least || self.calls >= MOST_CALLS {
            return None;
        }
        let entry = Entry::Draw { request: request.clone(), amount };
        self.spool.as_mut()?.add(&entry).ok()?;
        self.calls += 1;
        self.waiting.push(entry);
        self.drawn.insert(request.call);
        self.state = State::Held(hold, MicroUsd::from_micro(left.micro().saturating_sub(amount.micro())));
        Some(amount)
    }

    /// Keeps a settlement until the store is back; whether it is on disk. Only calls that were granted are settled here.
    pub(super) fn settle(&mut self, settlement: &ChargeSettlement) -> bool {
        let known = self.drawn.contains(&settlement.call) || self.granted.contains(&settlement.call);
        if !known {
            return false;
        }
        if self.spool.is_none() {
            self.spool = Spool::create(&self.folder, self.org, self.run, self.hold()).ok();
        }
        let entry = Entry::Settle(settlement.clone());
        let kept = self.spool.as_mut().is_some_and(|spool| spool.add(&entry).is_ok());
        if kept {
            self.waiting.push(entry);
            self.granted.remove(&settlement.call);
        }
        kept
    }

    /// What the store has to be told.
    pub(super) fn waiting(&self) -> &[Entry] {
        &self.waiting
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A transaction was committed: the store has what waited, and granted (`true`) or settled these calls.
    pub(super) fn written(&mut self, calls: impl Iterator<Item = (RowId, bool)>) {
        if let (State::Asked(hold), Some(amount)) = (self.state, self.asked.take()) {
            self.state = match amount {
                MicroUsd::ZERO => State::Gone(Some(hold)),
                amount => State::Held(hold, amount),
            };
        }
        for (call, granted) in calls {
            if granted {
                self.granted.insert(call);
            } else {
                self.granted.remove(&call);
            }
        }
        if self.waiting.is_empty() {
            return;
        }
        let settled: BTreeSet<RowId> = self
            .waiting
            .drain(..)
            .filter_map(|entry| match entry {
                Entry::Settle(settlement) => Some(settlement.call),
                Entry::Draw { .. } => None,
            })
            .collect();
        // A call that was drawn and goes on is like any other that the store knows.
        self.granted.extend(self.drawn.iter().filter(|call| !settled.contains(call)).copied());
        self.drawn.clear();
        if let Some(spool) = &mut self.spool {
            // Entries that stay on disk by mistake are written again, which changes nothing.
            let _kept = spool.clear();
        }
    }

    /// The run has ended, and the store knows; what is wrong, if anything is.
    pub(super) fn end(&mut self) -> Option<String> {
        self.state = State::Gone(self.hold());
        if self.is_waiting() {
            return Some("settlements wait for the store; the next command writes them".to_owned());
        }
        match self.spool.take()?.remove() {
            Ok(()) => None,
            Err(error) => Some(format!("the spool of the run can't be removed: {error}")),
        }
    }
}

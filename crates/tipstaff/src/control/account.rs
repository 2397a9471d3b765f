//! Whose money a run spends, remembered for as long as the run has the warrant that it was read under.

use std::sync::{Mutex, MutexGuard, PoisonError};
use tipstaff_store::ChargeAccount;

/// What is remembered.
#[derive(Default)]
pub(super) struct Account {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Option<ChargeAccount>,
    /// The warrant, as it is stored.
    warrant: Option<String>,
    /// How often it was seen to be another one.
    changes: u64,
}

impl Account {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes notice of the warrant that is the run's now: another one may spend less, so the account is read again.
    pub(super) fn warrant_seen(&self, text: Option<&str>) {
        let mut state = self.state();
        if state.warrant.as_deref() != text {
            state.warrant = text.map(ToOwned::to_owned);
            state.known = None;
            state.changes += 1;
        }
    }

    /// What is known, and the moment of asking.
    pub(super) fn known(&self) -> (Option<ChargeAccount>, u64) {
        let state = self.state();
        (state.known.clone(), state.changes)
    }

    /// Remembers what was read since `moment`, unless the warrant changed in between, or others' warrants have a say: then it
    /// is good for one call only.
    pub(super) fn remember(&self, read: ChargeAccount, moment: u64) {
        let mut state = self.state();
        // The runs above may be narrowed without notice.
        if state.changes == moment && read.above.is_empty() {
            state.known = Some(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipstaff_model::MicroUsd;

    #[test]
    fn another_warrant_means_that_the_budget_is_read_again() {
        let of = |micro: u64| ChargeAccount {
            run_budget: MicroUsd::from_micro(micro),
            above: Vec::new(),
            agent: None,
            project: None,
            person: None,
        };
        let account = Account::default();
        account.warrant_seen(Some("first"));
        let (known, moment) = account.known();
        assert_eq!(known, None);
        account.remember(of(5), moment);
        account.warrant_seen(Some("first"));
        assert_eq!(account.known().0, Some(of(5)));
        account.warrant_seen(Some("second"));
        assert_eq!(account.known().0, None);
        // What was read under the first warrant comes too late.
        account.remember(of(5), moment);
        assert_eq!(account.known().0, None);
    }
}

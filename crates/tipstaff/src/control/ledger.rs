//! The ledger of one run: reservations and settlements of calls in parallel, many to a transaction.
//!
//! Promises: an answer is given after its transaction is durable; a call that comes alone waits for nobody; calls that
//! come while a transaction is under way share the next one. A caller that went away before it got its grant spends
//! nothing: the grant is given back.

use super::told;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tipstaff_model::{
    AuditAction, AuditDraft, AuditOutcome, CallOutcome, ChargeAnswer, ChargeRequest, ChargeSettlement,
    ControlPlaneError, MicroUsd, Usage,
};
use tipstaff_store::{ChargeAccount, Lease, OrgTx, Store, StoreError};
use tokio::sync::oneshot;

/// Calls that share a transaction at most.
const MOST_AT_ONCE: usize = 64;

type Answered<T> = Result<T, ControlPlaneError>;

/// The ledger of a lease's run.
pub(super) struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    lease: Lease,
    queue: Mutex<Queue>,
    account: OnceLock<ChargeAccount>,
    /// What the audit log was told already: once is enough.
    noted: Mutex<BTreeSet<String>>,
}

#[derive(Default)]
struct Queue {
    asks: VecDeque<Ask>,
    /// Whether somebody is working it off.
    working: bool,
}

enum Ask {
    Reserve(ChargeRequest, oneshot::Sender<Answered<ChargeAnswer>>),
    Settle(ChargeSettlement, Option<oneshot::Sender<Answered<()>>>),
}

/// What one ask of a batch came to.
enum Outcome {
    Answer(ChargeAnswer),
    Settled,
    Failed(ControlPlaneError),
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    pub(super) fn new(store: Store, lease: Lease) -> Self {
        let (queue, account, noted) = (Mutex::default(), OnceLock::new(), Mutex::default());
        Self { inner: Arc::new(Inner { store, lease, queue, account, noted }) }
    }

    /// Reserves money for a call.
    pub(super) async fn reserve(&self, request: ChargeRequest) -> Answered<ChargeAnswer> {
        let (sender, receiver) = oneshot::channel();
        self.inner.ask(Ask::Reserve(request, sender));
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Settles a call. Once asked for, it is done also when the caller goes away.
    pub(super) async fn settle(&self, settlement: ChargeSettlement) -> Answered<()> {
        let (sender, receiver) = oneshot::channel();
        self.inner.ask(Ask::Settle(settlement, Some(sender)));
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> ControlPlaneError {
    ControlPlaneError::Unavailable("the ledger ended".to_owned())
}

fn copy(error: &ControlPlaneError) -> ControlPlaneError {
    match error {
        ControlPlaneError::LeaseLost => ControlPlaneError::LeaseLost,
        ControlPlaneError::Unavailable(text) => ControlPlaneError::Unavailable(text.clone()),
        ControlPlaneError::Rejected(text) => ControlPlaneError::Rejected(text.clone()),
    }
}

impl Inner {
    fn ask(self: &Arc<Self>, ask: Ask) {
        let mut queue = held(&self.queue);
        queue.asks.push_back(ask);
        if !queue.working {
            queue.working = true;
            // A task of its own: a caller that goes away takes nobody's answer with it.
            tokio::spawn(Arc::clone(self).work());
        }
    }

    async fn work(self: Arc<Self>) {
        loop {
            let batch: Vec<Ask> = {
                let mut queue = held(&self.queue);
                let count = queue.asks.len().min(MOST_AT_ONCE);
                if count == 0 {
                    queue.working = false;
                    return;
                }
                queue.asks.drain(..count).collect()
            };
            self.batch(batch).await;
        }
    }

    async fn batch(self: &Arc<Self>, batch: Vec<Ask>) {
        match self.transaction(&batch).await {
            Ok(outcomes) => self.answer(batch, outcomes),
            // What one of them asks for may break a transaction; that is not the others' fault.
            Err(StoreError::Database(_) | StoreError::Value { .. } | StoreError::TransactionBroken)
                if batch.len() > 1 =>
            {
                for ask in batch {
                    let one = [ask];
                    let outcome = self.transaction(&one).await;
                    let outcomes = outcome.unwrap_or_else(|error| vec![Outcome::Failed(told(error))]);
                    self.answer(one.into(), outcomes);
                }
            }
            Err(error) => {
                let error = told(error);
                let outcomes = batch.iter().map(|_| Outcome::Failed(copy(&error))).collect();
                self.answer(batch, outcomes);
            }
        }
    }

    fn answer(self: &Arc<Self>, batch: Vec<Ask>, outcomes: Vec<Outcome>) {
        for (ask, outcome) in batch.into_iter().zip(outcomes) {
            match ask {
                Ask::Reserve(request, sender) => {
                    let answer = match outcome {
                        Outcome::Answer(answer) => Ok(answer),
                        Outcome::Settled => Err(gone()),
                        Outcome::Failed(error) => Err(error),
                    };
                    // Nobody waits for the grant any more: the call is not made.
                    if let Err(Ok(ChargeAnswer::Granted(_))) = sender.send(answer) {
                        held(&self.queue).asks.push_back(Ask::Settle(unmade(&request), None));
                    }
                }
                Ask::Settle(_, Some(sender)) => {
                    let answer = match outcome {
                        Outcome::Failed(error) => Err(error),
                        _ => Ok(()),
                    };
                    // It is settled, whether or not somebody still wants to know.
                    let _nobody = sender.send(answer);
                }
                Ask::Settle(_, None) => {}
            }
        }
    }

    async fn transaction(&self, batch: &[Ask]) -> Result<Vec<Outcome>, StoreError> {
        let mut tx = self.store.begin(self.lease.scope()).await?;
        let mut noted = Vec::new();
        let mut outcomes: Vec<Option<Outcome>> = batch.iter().map(|_| None).collect();
        // Settlements first: what they free can be granted in the same breath.
        for (ask, slot) in batch.iter().zip(&mut outcomes) {
            if let Ask::Settle(settlement, _) = ask {
                let settled = tx.charge_settle(&self.lease, settlement).await.map(|_| Outcome::Settled);
                *slot = Some(one_of_many(settled)?);
                if settlement.price_unknown {
                    noted.push(self.unknown(&settlement.model));
                }
            }
        }
        for (ask, slot) in batch.iter().zip(&mut outcomes) {
            if let Ask::Reserve(request, _) = ask {
                let answer = self.reserve(&mut tx, request).await;
                if let Ok(ChargeAnswer::Exhausted { scope, limit, spent }) = &answer {
                    let key = format!("budget {scope}");
                    noted.push((key, self.exhausted(request, scope.as_str(), *limit, *spent)));
                }
                *slot = Some(one_of_many(answer.map(Outcome::Answer))?);
            }
        }
        let known = held(&self.noted).clone();
        let mut new = BTreeSet::new();
        for (key, draft) in noted {
            if !known.contains(&key) && new.insert(key) {
                tx.audit_note(draft);
            }
        }
        tx.commit().await?;
        held(&self.noted).append(&mut new);
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Outcome::Failed(gone()))).collect())
    }

    async fn reserve(&self, tx: &mut OrgTx, request: &ChargeRequest) -> Result<ChargeAnswer, StoreError> {
        let account = match self.account.get() {
            Some(account) => account,
            None => {
                let account = tx.charge_account(self.lease.run()).await?;
                let account = account.ok_or(StoreError::Missing { what: "warrant of the run" })?;
                self.account.get_or_init(|| account)
            }
        };
        tx.charge_reserve(&self.lease, account, request).await
    }

    fn exhausted(
        &self,
        request: &ChargeRequest,
        scope: &str,
        limit: MicroUsd,
        spent: MicroUsd,
    ) -> AuditDraft {
        let run = format!("run:{}", self.lease.run());
        AuditDraft::new(&run, AuditAction::BudgetExhausted, &run)
            .outcome(AuditOutcome::Refused)
            .with("scope", scope)
            .with("limit", limit)
            .with("spent", spent)
            .with("provider", &request.provider)
            .with("model", &request.model)
    }

    fn unknown(&self, model: &str) -> (String, AuditDraft) {
        let run = format!("run:{}", self.lease.run());
        let draft = AuditDraft::new(&run, AuditAction::PriceUnknown, &run).with("model", model);
        (format!("price {model}"), draft)
    }
}

/// An error of one call is its own; an error of the database is everybody's.
fn one_of_many(outcome: Result<Outcome, StoreError>) -> Result<Outcome, StoreError> {
    match outcome {
        Err(
            error @ (StoreError::LeaseLost
            | StoreError::Input { .. }
            | StoreError::Missing { .. }
            | StoreError::Conflict(_)),
        ) => Ok(Outcome::Failed(told(error))),
        other => other,
    }
}

/// The settlement of a call that was not made.
fn unmade(request: &ChargeRequest) -> ChargeSettlement {
    ChargeSettlement {
        call: request.call,
        provider: None,
        model: request.model.clone(),
        usage: Usage::default(),
        cost: MicroUsd::ZERO,
        price_unknown: false,
        estimated: false,
        outcome: CallOutcome::Failed,
        status: 0,
        duration_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipstaff_model::id::RowId;
    use tipstaff_model::{AgentRole, EngineKind, FixedClock, FixedEntropy, TaskSpec};
    use tipstaff_seal::{RingKey, SystemEntropy};
    use tipstaff_store::{ChargeState, LocalPrincipal, RunDraft, StoreConfig, TaskDraft};

    const BUDGET: u64 = 5_000;

    struct House {
        ledger: Arc<Ledger>,
        store: Store,
        lease: Lease,
        _folder: tempfile::TempDir,
    }

    async fn house() -> House {
        let folder = tempfile::tempdir().unwrap();
        let (clock, entropy) = (Arc::new(FixedClock::at(1_700_000_000_000)), Arc::new(SystemEntropy));
        let config = StoreConfig::sqlite(folder.path().join("state.db"));
        let key = RingKey::generate(&FixedEntropy::seeded(1));
        let store = Store::open(config, key, clock, entropy).await.unwrap();
        let person = LocalPrincipal { installation: "test".to_owned(), uid: 1, name: "Person".to_owned() };
        let me = store.authenticate_local(&person).await.unwrap();
        let spec = TaskSpec {
            repository: "local/house".parse().unwrap(),
            source: "/srv/house".to_owned(),
            base: None,
            base_commit: "a".repeat(40).parse().unwrap(),
            role: AgentRole::Builder,
            engine: EngineKind::Command,
            agent: None,
            argv: vec!["true".to_owned()],
            prompt: None,
            model: None,
            provider: None,
            instructions: String::new(),
            budget_micro_usd: BUDGET,
            timeout_ms: 60_000,
            allow_hosts: vec![],
            submodules: false,
            lfs: false,
        };
        let draft = TaskDraft {
            repository: None,
            kind: "run".to_owned(),
            spec,
            dedup_key: None,
            max_attempts: 1,
            run_at: None,
        };
        let mut tx = store.begin(&me.scope).await.unwrap();
        let task = tx.task_add(draft).await.unwrap().id();
        let lease = tx.task_claim(task, "worker", 600_000).await.unwrap().unwrap();
        let run = RunDraft { branch: None, base_commit: None, workspace: None, host: "host".to_owned() };
        tx.run_add(&lease, &run).await.unwrap();
        tx.commit().await.unwrap();
        let ledger = Arc::new(Ledger::new(store.clone(), lease.clone()));
        let account = ChargeAccount { run_budget: MicroUsd::from_micro(BUDGET), agent: None };
        ledger.inner.account.set(account).unwrap();
        House { ledger, store, lease, _folder: folder }
    }

    fn ask(number: u64, most: u64) -> ChargeRequest {
        ChargeRequest {
            call: RowId::new(&FixedClock::at(0), &FixedEntropy::seeded(number)),
            provider: "openai".to_owned(),
            model: "gpt".to_owned(),
            most: MicroUsd::from_micro(most),
            least: MicroUsd::from_micro(most),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn calls_in_parallel_share_transactions_and_one_budget() {
        let house = house().await;
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..300 {
            let ledger = Arc::clone(&house.ledger);
            calls.spawn(async move {
                let request = ask(number, 40);
                let answer = ledger.reserve(request.clone()).await.unwrap();
                if matches!(answer, ChargeAnswer::Granted(_)) {
                    let cost = MicroUsd::from_micro(40);
                    let spent = ChargeSettlement { cost, price_unknown: true, ..unmade(&request) };
                    ledger.settle(spent.clone()).await.unwrap();
                    ledger.settle(spent).await.unwrap();
                    return true;
                }
                false
            });
        }
        let granted = calls.join_all().await.into_iter().filter(|granted| *granted).count();
        // 125 calls of 40 are the whole budget; how many asked while it was reserved decides who waits.
        assert!((1..=125).contains(&granted), "{granted}");
        let mut last = house.ledger.reserve(ask(1_000, 40)).await.unwrap();
        if matches!(last, ChargeAnswer::Granted(_)) {
            let spent = ChargeSettlement { cost: MicroUsd::from_micro(BUDGET), ..unmade(&ask(1_000, 40)) };
            house.ledger.settle(spent).await.unwrap();
            last = house.ledger.reserve(ask(1_001, 40)).await.unwrap();
        }
        assert!(matches!(last, ChargeAnswer::Exhausted { .. }), "{last:?}");
        house.ledger.reserve(ask(1_002, 40)).await.unwrap();
        let mut read = house.store.read(house.lease.scope()).await.unwrap();
        let log = read.audit_list(None, 100).await.unwrap();
        let said = |word: &str| log.iter().filter(|entry| format!("{entry:?}").contains(word)).count();
        assert_eq!((said("budget.exhausted"), said("price.unknown")), (1, 1), "once is enough: {log:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_caller_that_went_away_spends_nothing() {
        let house = house().await;
        for number in 0..20 {
            let reserve = house.ledger.reserve(ask(number, 100));
            let mut reserve = Box::pin(reserve);
            // Polled once: it has asked, and then it is gone.
            let polled = std::future::poll_fn(|context| {
                std::task::Poll::Ready(reserve.as_mut().poll(context).is_ready())
            });
            let _answered_already = polled.await;
            drop(reserve);
        }
        // Whoever comes after has the whole budget, once what was given back is settled.
        loop {
            match house.ledger.reserve(ask(999, BUDGET)).await.unwrap() {
                ChargeAnswer::Granted(all) => break assert_eq!(all.micro(), BUDGET),
                ChargeAnswer::Wait => tokio::task::yield_now().await,
                ChargeAnswer::Exhausted { .. } => panic!("money was spent on calls that nobody made"),
            }
        }
        let mut read = house.store.read(house.lease.scope()).await.unwrap();
        let calls = read.charge_list_of_run(house.lease.run()).await.unwrap();
        assert_eq!(calls.iter().filter(|call| call.state == ChargeState::Settled).count(), 20);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_bad_call_is_not_the_others_fault() {
        let house = house().await;
        let bad = ChargeRequest { model: "\u{1b}[2J".to_owned(), ..ask(1, 10) };
        let (good, bad, nothing) = tokio::join!(
            house.ledger.reserve(ask(2, 10)),
            house.ledger.reserve(bad),
            house.ledger.settle(unmade(&ask(3, 10))),
        );
        assert!(matches!(good, Ok(ChargeAnswer::Granted(_))), "{good:?}");
        assert!(matches!(bad, Err(ControlPlaneError::Rejected(_))), "{bad:?}");
        assert!(matches!(nothing, Err(ControlPlaneError::Rejected(_))), "{nothing:?}");
    }
}

//! The ledger of one run: reservations and settlements of calls in parallel, many to a transaction.
//!
//! Promises: an answer is given after its transaction is durable; a call that comes alone waits for nobody; calls that
//! come while a transaction is under way share the next one. A caller that went away before it got its grant spends
//! nothing: the grant is given back. While the store can't be reached, calls are paid from the run's reserve until it is
//! drawn (see [`super::reserve`]); what was settled then is on disk before it is answered for, and written to the store
//! before anything else once it is there again.

use super::account::Account;
use super::reserve::Reserve;
use super::spool::Entry;
use super::teller::Teller;
use super::told;
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tipstaff_model::{
    AuditAction, AuditDraft, AuditOutcome, CallOutcome, ChargeAnswer, ChargeRequest, ChargeSettlement, Clock,
    ControlPlaneError, Entropy, EventDraft, EventKind, MicroUsd, Usage,
};
use tipstaff_store::{BudgetAlert, ChargeAccount, Lease, OrgTx, Slowed, Store, StoreError};
use tokio::sync::oneshot;

/// Calls that share a transaction at most.
const MOST_AT_ONCE: usize = 64;
/// After so long without an answer, the store counts as out of reach; the broker waits for longer than that.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same while it is known to be out of reach.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);
/// The pauses between looks whether the store is back: the first, and the longest.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

type Answered<T> = Result<T, ControlPlaneError>;

/// The ledger of a lease's run.
pub(super) struct Ledger {
    inner: Arc<Inner>,
}

/// What a ledger stands on.
pub(crate) struct LedgerParts {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) teller: Teller,
    /// The folder of spools.
    pub(crate) spool: PathBuf,
    /// What a run may spend while the store can't be reached.
    pub(crate) reserve: MicroUsd,
}

struct Inner {
    store: Store,
    lease: Lease,
    clock: Arc<dyn Clock>,
    teller: Teller,
    queue: Mutex<Queue>,
    account: Account,
    /// What the audit log and the person were told already: once is enough.
    noted: Mutex<BTreeSet<String>>,
    /// Touched by whoever works the queue off, and at the end.
    reserve: tokio::sync::Mutex<Reserve>,
}

#[derive(Default)]
struct Queue {
    asks: VecDeque<Ask>,
    /// Whether somebody is working it off.
    working: bool,
    /// Whether somebody looks if the store is back.
    looking: bool,
}

enum Ask {
    Reserve(ChargeRequest, oneshot::Sender<Answered<ChargeAnswer>>),
    Settle(ChargeSettlement, Option<oneshot::Sender<Answered<()>>>),
    /// Write what waits; whether nothing waits any more.
    Flush(oneshot::Sender<bool>),
}

/// What one ask of a batch came to.
enum Outcome {
    Answer(ChargeAnswer),
    Settled,
    Failed(ControlPlaneError),
}

/// What a transaction came to besides its answers.
#[derive(Default)]
struct News {
    alerts: Vec<BudgetAlert>,
    slowed: Vec<Slowed>,
    /// Entries of the spool that the store has now.
    written: usize,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    pub(super) fn new(parts: LedgerParts, lease: Lease) -> Self {
        let LedgerParts { store, clock, entropy, teller, spool, reserve } = parts;
        let token = lease.token();
        let reserve = Reserve::new(spool, token.org, token.run, reserve, Arc::clone(&clock), entropy);
        Self {
            inner: Arc::new(Inner {
                store,
                clock,
                teller,
                queue: Mutex::default(),
                account: Account::default(),
                noted: Mutex::default(),
                reserve: tokio::sync::Mutex::new(reserve),
                lease,
            }),
        }
    }

    /// Takes notice of the warrant that is the run's now: its money may be less than before.
    pub(super) fn warrant_seen(&self, text: Option<&str>) {
        self.inner.account.warrant_seen(text);
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

    /// Writes what waits for the store, as far as it can be reached; whether nothing waits any more.
    pub(super) async fn flush(&self) -> bool {
        let (sender, receiver) = oneshot::channel();
        self.inner.ask(Ask::Flush(sender));
        receiver.await.unwrap_or(false)
    }

    /// The run has ended, on record: its reserve is given back already.
    pub(super) async fn end(&self) {
        if let Some(trouble) = self.inner.reserve.lock().await.end() {
            self.inner.teller.say(trouble);
        }
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
            let mut reserve = self.reserve.lock().await;
            self.batch(batch, &mut reserve).await;
            if reserve.is_waiting() {
                self.look();
            }
        }
    }

    /// Looks again and again whether the store is back, while something waits for it.
    fn look(self: &Arc<Self>) {
        let mut queue = held(&self.queue);
        if std::mem::replace(&mut queue.looking, true) {
            return;
        }
        let me = Arc::downgrade(self);
        tokio::spawn(async move {
            let (mut pause, longest) = LOOK_AGAIN;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
                let Some(me) = me.upgrade() else { return };
                let (sender, receiver) = oneshot::channel();
                me.ask(Ask::Flush(sender));
                if receiver.await.unwrap_or(true) {
                    held(&me.queue).looking = false;
                    // Something may have come to wait in this very moment.
                    if me.reserve.lock().await.is_waiting() {
                        me.look();
                    }
                    return;
                }
            }
        });
    }

    async fn batch(self: &Arc<Self>, batch: Vec<Ask>, reserve: &mut Reserve) {
        match self.in_time(&batch, reserve).await {
            Ok(outcomes) => self.answer(batch, outcomes),
            // What one of them asks for may break a transaction; that is not the others' fault.
            Err(StoreError::Database(_) | StoreError::Value { .. } | StoreError::TransactionBroken)
                if batch.len() > 1 =>
            {
                for ask in batch {
                    let one = [ask];
                    let outcomes = match self.in_time(&one, reserve).await {
                        Ok(outcomes) => outcomes,
                        Err(error) => self.without_store(&one, told(error), reserve),
                    };
                    self.answer(one.into(), outcomes);
                }
            }
            Err(error) => {
                let outcomes = self.without_store(&batch, told(error), reserve);
                self.answer(batch, outcomes);
            }
        }
    }

    /// The answers of a batch that the store did not take.
    fn without_store(&self, batch: &[Ask], error: ControlPlaneError, reserve: &mut Reserve) -> Vec<Outcome> {
        if !matches!(error, ControlPlaneError::Unavailable(_)) {
            return batch.iter().map(|_| Outcome::Failed(copy(&error))).collect();
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        for ask in batch {
            let outcome = match ask {
                Ask::Reserve(request, _) => reserve.draw(request).map(|amount| {
                    if self.once("reserve") {
                        self.teller.say(format!(
                            "the store can't be reached; model calls are paid from the run's reserve, of which {} is left: {error}",
                            reserve.left()
                        ));
                    }
                    Outcome::Answer(ChargeAnswer::Granted(amount))
                }),
                Ask::Settle(settlement, _) => reserve.settle(settlement).then_some(Outcome::Settled),
                Ask::Flush(_) => None,
            };
            outcomes.push(outcome.unwrap_or_else(|| Outcome::Failed(copy(&error))));
        }
        outcomes
    }

    /// Whether this is told for the first time.
    fn once(&self, key: &str) -> bool {
        held(&self.noted).insert(key.to_owned())
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
                Ask::Flush(sender) => {
                    let _nobody = sender.send(matches!(outcome, Outcome::Settled));
                }
            }
        }
    }

    /// A transaction that does not take too long. One that was given up may have been committed all the same: what it
    /// reserved is then found by the settlement, or by the draw that stands for it.
    async fn in_time(&self, batch: &[Ask], reserve: &mut Reserve) -> Result<Vec<Outcome>, StoreError> {
        let nothing = batch.iter().all(|ask| matches!(ask, Ask::Flush(_))) && !reserve.is_waiting();
        if nothing {
            return Ok(batch.iter().map(|_| Outcome::Settled).collect());
        }
        let patience = if reserve.is_waiting() { SHORT_PATIENCE } else { PATIENCE };
        let took = tokio::time::timeout(patience, self.transaction(batch, reserve)).await;
        let (outcomes, news) = took.unwrap_or(Err(StoreError::Busy {
            waited_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        }))?;
        reserve.written(batch.iter().zip(&outcomes).filter_map(|(ask, outcome)| match (ask, outcome) {
            (Ask::Reserve(request, _), Outcome::Answer(ChargeAnswer::Granted(_))) => {
                Some((request.call, true))
            }
            (Ask::Settle(settlement, _), Outcome::Settled) => Some((settlement.call, false)),
            _ => None,
        }));
        self.tell(news);
        Ok(outcomes)
    }

    fn tell(&self, news: News) {
        if news.written > 0 {
            held(&self.noted).remove("reserve");
            self.teller
                .say(format!("the store is back; {} entries that waited for it are written", news.written));
        }
        for Slowed { holder, period, pause_ms, .. } in news.slowed {
            self.teller.say(slow_text(&holder, period, pause_ms));
        }
        let send = news.alerts.iter().any(|alert| alert.notify);
        for alert in news.alerts {
            self.teller.say(alert.text());
        }
        if send {
            self.teller.send();
        }
    }

    async fn transaction(
        &self,
        batch: &[Ask],
        reserve: &mut Reserve,
    ) -> Result<(Vec<Outcome>, News), StoreError> {
        reserve.begins();
        let mut tx = self.store.begin(self.lease.scope()).await?;
        // The lease before the ledger's gate, as everybody takes them; a settlement needs none.
        match tx.lease_guard(&self.lease).await {
            Ok(()) | Err(StoreError::LeaseLost) => {}
            Err(error) => return Err(error),
        }
        let mut noted = Vec::new();
        let mut outcomes: Vec<Option<Outcome>> = batch.iter().map(|_| None).collect();
        // What waited comes first: the reserve that it was paid from is still set aside.
        let mut news = News { written: self.write_waiting(&mut tx, reserve).await?, ..News::default() };
        let mut settled_any = news.written > 0;
        // Settlements next: what they free can be granted in the same breath.
        for (ask, slot) in batch.iter().zip(&mut outcomes) {
            if let Ask::Settle(settlement, _) = ask {
                let settled = tx.charge_settle(&self.lease, settlement).await.map(|_| Outcome::Settled);
                *slot = Some(one_of_many(settled)?);
                settled_any = true;
                if settlement.price_unknown {
                    noted.push(self.unknown(&settlement.model));
                }
            }
        }
        if settled_any && let Some(account) = self.account(&mut tx).await? {
            news.alerts = tx.budget_alert(&self.lease, &account).await?;
        }
        for (ask, slot) in batch.iter().zip(&mut outcomes) {
            if let Ask::Reserve(request, _) = ask {
                let answer = self.reserve(&mut tx, request, reserve, &mut news).await;
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
        let outcome = |outcome: Option<Outcome>| outcome.unwrap_or(Outcome::Settled);
        Ok((outcomes.into_iter().map(outcome).collect(), news))
    }

    /// Writes what waited for the store; how many entries.
    async fn write_waiting(&self, tx: &mut OrgTx, reserve: &Reserve) -> Result<usize, StoreError> {
        let waiting = reserve.waiting();
        if waiting.is_empty() {
            return Ok(0);
        }
        let draft = write_entries(tx, self.lease.run(), reserve.hold(), waiting).await?;
        tx.audit_note(draft);
        Ok(waiting.len())
    }

    async fn account(&self, tx: &mut OrgTx) -> Result<Option<ChargeAccount>, StoreError> {
        let (known, moment) = self.account.known();
        if known.is_some() {
            return Ok(known);
        }
        let read = tx.charge_account(self.lease.run()).await?;
        if let Some(read) = &read {
            self.account.remember(read.clone(), moment);
        }
        Ok(read)
    }

    async fn reserve(
        &self,
        tx: &mut OrgTx,
        request: &ChargeRequest,
        reserve: &mut Reserve,
        news: &mut News,
    ) -> Result<ChargeAnswer, StoreError> {
        let account = self.account(tx).await?.ok_or(StoreError::Missing { what: "warrant of the run" })?;
        let made = tx.charge_reserve(&self.lease, &account, request).await?;
        if made.let_go {
            reserve.was_let_go();
        }
        news.alerts.extend(made.alert);
        if let Some(slowed) = made.slowed
            && self.once(&format!("slow {}", slowed.budget))
        {
            let text = slow_text(&slowed.holder, slowed.period, slowed.pause_ms);
            let body = serde_json::json!({ "kind": "budget.slow", "holder": slowed.holder.to_string(),
                "per": slowed.period, "pause_ms": slowed.pause_ms, "text": text });
            let event = EventDraft { kind: EventKind::Notice, at: self.clock.wall_ms(), body };
            tx.event_add(&self.lease, &[event]).await?;
            news.slowed.push(slowed);
        }
        if matches!(made.answer, ChargeAnswer::Granted(_))
            && let Some((hold, most)) = reserve.wanted()
        {
            let amount = tx.charge_hold(&self.lease, &account, hold, most).await?;
            reserve.was_held(amount);
        }
        Ok(made.answer)
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

fn slow_text(
    holder: &tipstaff_model::BudgetHolder,
    period: tipstaff_model::BudgetPeriod,
    pause_ms: u64,
) -> String {
    format!(
        "the budget of {holder} per {period} slows its model calls down: one at a time, {} s apart and growing",
        pause_ms.div_ceil(1_000)
    )
}

/// Writes entries of a spool, whoever finds them; the record of it. Writing them again changes nothing.
pub(super) async fn write_entries(
    tx: &mut OrgTx,
    run: tipstaff_model::RunId,
    hold: Option<tipstaff_model::id::RowId>,
    entries: &[Entry],
) -> Result<AuditDraft, StoreError> {
    let (mut calls, mut drawn, mut settled, mut dropped) = (0_u64, 0_u64, 0_u64, 0_u64);
    for entry in entries {
        let written = match (entry, hold) {
            (Entry::Draw { request, amount }, Some(hold)) => {
                calls += 1;
                drawn = drawn.saturating_add(amount.micro());
                tx.charge_draw(run, hold, request, *amount).await
            }
            (Entry::Draw { .. }, None) => Err(StoreError::Missing { what: "reserve" }),
            (Entry::Settle(settlement), _) => {
                settled += 1;
                tx.charge_settle_of(run, settlement).await
            }
        };
        match written {
            Ok(_) => {}
            // An entry that can't be written is counted, and does not keep the others waiting.
            Err(StoreError::Missing { .. } | StoreError::Input { .. } | StoreError::Conflict(_)) => {
                dropped += 1
            }
            Err(error) => return Err(error),
        }
    }
    Ok(AuditDraft::new("system", AuditAction::ReserveDrawn, format!("run:{run}"))
        .with("calls", calls)
        .with("drawn", MicroUsd::from_micro(drawn))
        .with("settled", settled)
        .with("dropped", dropped))
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
        let store = Store::open(config, key, clock.clone(), entropy.clone()).await.unwrap();
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
            protect: Vec::new(),
            host_rules: Vec::new(),
            secrets: Vec::new(),
            setup: Default::default(),
            privacy: Default::default(),
            submodules: false,
            lfs: false,
            attended: false,
            policy: Default::default(),
            ask_timeout_ms: None,
            resumes: None,
            under: None,
        };
        let draft = TaskDraft {
            repository: None,
            kind: "run".to_owned(),
            spec,
            dedup_key: None,
            max_attempts: 1,
            run_at: None,
            person: None,
        };
        let mut tx = store.begin(&me.scope).await.unwrap();
        let task = tx.task_add(draft).await.unwrap().id();
        let lease = tx.task_claim(task, "worker", 600_000).await.unwrap().unwrap();
        let run = RunDraft { branch: None, base_commit: None, workspace: None, host: "host".to_owned() };
        tx.run_add(&lease, &run).await.unwrap();
        tx.commit().await.unwrap();
        let notifier = crate::notify::Notifier {
            store: store.clone(),
            scope: me.scope.clone(),
            command: vec![],
            home: folder.path().to_owned(),
            output: crate::output::Output::new(false, true),
        };
        let parts = LedgerParts {
            store: store.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            teller: Teller::new(notifier),
            spool: folder.path().join("spool"),
            reserve: MicroUsd::from_micro(50_000),
        };
        let ledger = Arc::new(Ledger::new(parts, lease.clone()));
        let account = ChargeAccount {
            run_budget: MicroUsd::from_micro(BUDGET),
            above: Vec::new(),
            agent: None,
            project: None,
            person: None,
        };
        ledger.inner.account.remember(account, 0);
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

//! One call and its money: reserved before, settled once after, whatever happens in between.
//!
//! Promises: whoever drops a call settles it, also when a client goes, a warrant lapses, a task panics or the broker
//! stops; a reservation whose answer nobody waits for any more is settled as soon as it comes.

use super::Pricer;
use super::price::quote;
use crate::limits::Bounds;
use crate::parse::meter::Meter;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tipstaff_model::id::RowId;
use tipstaff_model::{
    CallOutcome, ChargeAnswer, ChargeRequest, ChargeSettlement, Clock, ControlPlane, ControlPlaneError,
    MicroUsd, Price, Surcharge, Usage,
};
use tokio::sync::{Notify, mpsc, oneshot};

/// What all calls of a run came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) usage: Usage,
    pub(crate) cost: MicroUsd,
}

/// What the calls of one broker share.
#[derive(Debug)]
pub(crate) struct Ledger {
    tally: Mutex<Tally>,
    /// Woken when a call was settled.
    pub(crate) settled: Notify,
    /// Each open call holds a copy; it is gone when the broker stops.
    open: Mutex<Option<mpsc::Sender<()>>>,
    ended: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Default for Ledger {
    fn default() -> Self {
        let (open, ended) = mpsc::channel(1);
        Self {
            tally: Mutex::default(),
            settled: Notify::new(),
            open: Mutex::new(Some(open)),
            ended: Mutex::new(Some(ended)),
        }
    }
}

impl Ledger {
    pub(crate) fn tally(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every call is settled, at most `time`. No call begins any more.
    pub(crate) async fn close(&self, time: Duration) {
        drop(self.open.lock().unwrap_or_else(PoisonError::into_inner).take());
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut ended) = ended {
            // Nothing is ever sent: it ends when the last call has ended.
            let _ = tokio::time::timeout(time, ended.recv()).await;
        }
    }
}

/// What a call is, for its ledger.
pub(crate) struct CallPlan {
    pub(crate) id: RowId,
    pub(crate) provider: String,
    pub(crate) model: String,
    /// The price, surcharges included.
    pub(crate) price: Price,
    pub(crate) surcharges: Vec<Surcharge>,
    pub(crate) price_unknown: bool,
    /// Our estimate of the prompt in tokens.
    pub(crate) likely_input: u64,
}

/// Who serves a call, and at which price.
struct Served {
    provider: String,
    model: String,
    price: Price,
    price_unknown: bool,
}

/// A call. Dropping it settles it.
pub(crate) struct Call {
    plan: CallPlan,
    control: Arc<dyn ControlPlane>,
    prices: Arc<dyn Pricer>,
    clock: Arc<dyn Clock>,
    ledger: Arc<Ledger>,
    runtime: tokio::runtime::Handle,
    open: Option<mpsc::Sender<()>>,
    began_ms: i64,
    reserved: bool,
    /// Who was asked last.
    served: Option<Served>,
    sent: bool,
    status: u16,
    cut: bool,
    /// The most tokens that the answer may have.
    pub(crate) most_output: u64,
    pub(crate) meter: Option<Meter>,
}

impl Call {
    /// A call that has reserved nothing yet; `None` when the broker is stopping.
    pub(crate) fn new(
        plan: CallPlan,
        control: Arc<dyn ControlPlane>,
        prices: Arc<dyn Pricer>,
        clock: Arc<dyn Clock>,
        ledger: Arc<Ledger>,
    ) -> Option<Self> {
        let open = ledger.open.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let began_ms = clock.monotonic_ms();
        Some(Self {
            plan,
            control,
            prices,
            clock,
            ledger,
            runtime,
            open: Some(open),
            began_ms,
            reserved: false,
            served: None,
            sent: false,
            status: 0,
            cut: false,
            most_output: 0,
            meter: None,
        })
    }

    /// Asks for money. The call travels with the question, so that an answer that nobody waits for is settled.
    /// `Err` when the control plane did not say anything that counts.
    pub(crate) async fn reserve(
        mut self,
        most: MicroUsd,
        least: MicroUsd,
        bounds: &Bounds,
    ) -> Result<(Self, ChargeAnswer), ControlPlaneError> {
        let request = ChargeRequest {
            call: self.plan.id,
            provider: self.plan.provider.clone(),
            model: self.plan.model.clone(),
            most,
            least,
        };
        let (tell, told) = oneshot::channel();
        let runtime = self.runtime.clone();
        runtime.spawn(async move {
            let answer = self.control.charge_reserve(request).await;
            // An error may hide a reservation that was made.
            self.reserved =
                matches!(answer, Ok(ChargeAnswer::Granted(_)) | Err(ControlPlaneError::Unavailable(_)));
            // Whoever does not take the call drops it, which settles it.
            let _ = tell.send(answer.map(|answer| (self, answer)));
        });
        match tokio::time::timeout(bounds.reserve_time, told).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ControlPlaneError::Unavailable("the question was lost".to_owned())),
            Err(_) => Err(ControlPlaneError::Unavailable("it did not answer in time".to_owned())),
        }
    }

    /// From here on this upstream may have begun to work.
    pub(crate) fn sending(&mut self, upstream: &str, model: &str) {
        let quote = quote(&*self.prices, &self.plan.provider, upstream, model);
        self.served = Some(Served {
            provider: upstream.to_owned(),
            model: model.to_owned(),
            price: with_surcharges(quote.price, &self.plan.surcharges),
            price_unknown: !quote.known,
        });
        self.sent = true;
        self.status = 0;
        self.meter = None;
    }

    /// The request did not leave.
    pub(crate) fn was_not_sent(&mut self) {
        self.sent = false;
    }

    /// The provider's status came.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = status;
    }

    /// The answer ended before its end.
    pub(crate) fn was_cut(&mut self) {
        self.cut = true;
    }

    /// The answer turned out to be none of the provider's.
    pub(crate) fn was_no_answer(&mut self) {
        self.meter = None;
        self.sent = false;
    }

    fn settlement(&self) -> ChargeSettlement {
        let nothing = (Usage::default(), false, CallOutcome::Failed);
        let (usage, estimated, outcome) = match &self.meter {
            _ if !self.sent || self.status >= 300 => nothing,
            // Sent, and nothing came back: the prompt was worked on.
            None => (Usage { input: self.plan.likely_input, ..Usage::default() }, true, CallOutcome::Aborted),
            Some(meter) => {
                let metered = meter.usage(self.plan.likely_input, self.most_output);
                let whole = meter.is_finished() && !self.cut;
                match (whole, meter.has_failed()) {
                    (true, false) => (metered.usage, metered.estimated, CallOutcome::Complete),
                    (_, true) if !meter.has_used() => nothing,
                    _ => (metered.usage, metered.estimated, CallOutcome::Aborted),
                }
            }
        };
        let plan = &self.plan;
        let (provider, asked, price, price_unknown) = match &self.served {
            Some(served) => (&*served.provider, &*served.model, served.price, served.price_unknown),
            None => (&*plan.provider, &*plan.model, plan.price, plan.price_unknown),
        };
        let answered = self.meter.as_ref().and_then(Meter::model).filter(|model| *model != asked);
        let price = answered
            .map(|model| quote(&*self.prices, &plan.provider, provider, model))
            .filter(|quote| quote.known)
            .map_or(price, |quote| with_surcharges(quote.price, &plan.surcharges));
        let duration = self.clock.monotonic_ms().saturating_sub(self.began_ms);
        ChargeSettlement {
            call: plan.id,
            provider: (provider != plan.provider).then(|| provider.to_owned()),
            model: answered.unwrap_or(asked).to_owned(),
            cost: price.cost(&usage),
            usage,
            price_unknown,
            estimated,
            outcome,
            status: self.status,
            duration_ms: u64::try_from(duration).unwrap_or(0),
        }
    }
}

/// A price with all that makes the call dearer.
pub(crate) fn with_surcharges(price: Price, surcharges: &[Surcharge]) -> Price {
    surcharges.iter().fold(price, |price, surcharge| price.with(*surcharge))
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.reserved {
            return;
        }
        let settlement = self.settlement();
        if self.sent {
            let mut tally = self.ledger.tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.calls = tally.calls.saturating_add(1);
            tally.usage = tally.usage.plus(&settlement.usage);
            tally.cost = MicroUsd::from_micro(tally.cost.micro().saturating_add(settlement.cost.micro()));
        }
        let (control, ledger, open) = (Arc::clone(&self.control), Arc::clone(&self.ledger), self.open.take());
        self.runtime.spawn(async move {
            settle(&*control, settlement).await;
            ledger.settled.notify_waiters();
            drop(open);
        });
    }
}

/// Settles, again a few times when the control plane can't be reached. Settling twice settles once.
async fn settle(control: &dyn ControlPlane, settlement: ChargeSettlement) {
    const TIME: Duration = Duration::from_secs(10);
    for pause in [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(3), Duration::ZERO]
    {
        match tokio::time::timeout(TIME, control.charge_settle(settlement.clone())).await {
            Err(_) | Ok(Err(ControlPlaneError::Unavailable(_))) => tokio::time::sleep(pause).await,
            // Settled, or refused for good: the ledger decides about reservations that nobody settles.
            Ok(_) => return,
        }
    }
}

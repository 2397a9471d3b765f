//! Refusals: counted exactly, kept up to a bound, written to the control plane one by one.
//!
//! An agent can be refused a million times a second. What is written down is each distinct refusal once, up to a
//! bound, and one line about the rest; the count per rule stays exact.

use crate::broker::BrokerReport;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tipstaff_model::{ControlPlane, Refusal, Rule};
use tokio::sync::mpsc;

/// How long the control plane may take for one refusal.
const WRITE_TIME: Duration = Duration::from_secs(30);

/// The refusals of one run.
#[derive(Debug)]
pub(crate) struct Refusals {
    inner: Mutex<Inner>,
    kept: usize,
}

#[derive(Debug)]
struct Inner {
    by_rule: BTreeMap<Rule, u64>,
    distinct: Vec<(Refusal, u64)>,
    places: HashMap<(Rule, String), usize>,
    not_kept: u64,
    writer: Option<mpsc::UnboundedSender<Refusal>>,
}

impl Refusals {
    /// An empty list, and the refusals to be written. The channel holds at most `kept` of them in all.
    pub(crate) fn new(kept: usize) -> (Self, mpsc::UnboundedReceiver<Refusal>) {
        let (writer, written) = mpsc::unbounded_channel();
        let inner = Inner {
            by_rule: BTreeMap::new(),
            distinct: Vec::new(),
            places: HashMap::new(),
            not_kept: 0,
            writer: Some(writer),
        };
        (Self { inner: Mutex::new(inner), kept }, written)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a refusal.
    pub(crate) fn add(&self, refusal: &Refusal) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let count = inner.by_rule.entry(refusal.rule).or_insert(0);
        *count = count.saturating_add(1);
        let key = (refusal.rule, refusal.wanted.clone());
        if let Some((_, count)) = inner.places.get(&key).and_then(|at| inner.distinct.get_mut(*at)) {
            *count = count.saturating_add(1);
            return;
        }
        if inner.distinct.len() >= self.kept {
            inner.not_kept = inner.not_kept.saturating_add(1);
            return;
        }
        inner.places.insert(key, inner.distinct.len());
        inner.distinct.push((refusal.clone(), 1));
        if let Some(writer) = &inner.writer {
            // The writer only goes away at the end.
            let _ = writer.send(refusal.clone());
        }
    }

    /// Takes no more; the writer sees the end, after one line about what was not kept.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        let Some(writer) = inner.writer.take() else { return };
        if inner.not_kept > 0 {
            let rest = Refusal::new(
                Rule::LimitReached,
                "refusals",
                format!("{} further refusals were counted and not kept one by one", inner.not_kept),
            );
            let _ = writer.send(rest);
        }
    }

    /// What was met more than once, with how often.
    fn repeated(&self) -> Vec<(Refusal, u64)> {
        self.lock().distinct.iter().filter(|(_, count)| *count > 1).cloned().collect()
    }

    /// Tells the control plane how often each kept refusal was met, once there are no more.
    pub(crate) async fn tell_counts(&self, control: &dyn ControlPlane) {
        let counts = self.repeated();
        if !counts.is_empty() {
            let _ = tokio::time::timeout(WRITE_TIME, control.refusal_counts(counts)).await;
        }
    }

    pub(crate) fn fill(&self, report: &mut BrokerReport) {
        let inner = self.lock();
        report.refusals.clone_from(&inner.distinct);
        report.refusals_by_rule.clone_from(&inner.by_rule);
    }
}

/// Writes refusals until there are no more. A control plane that fails loses none of the counts, and stops nothing: the
/// refusal itself has been given already.
pub(crate) async fn write(mut refusals: mpsc::UnboundedReceiver<Refusal>, control: Arc<dyn ControlPlane>) {
    while let Some(refusal) = refusals.recv().await {
        let _ = tokio::time::timeout(WRITE_TIME, control.refusal(refusal)).await;
    }
}

//! What a run sent to hosts and received from them, against what its warrant lets it.

use crate::server::Link;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tipstaff_model::{Limits, Refusal, Rule};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A sum and its bound.
#[derive(Debug, Default)]
struct Share {
    used: AtomicU64,
    most: AtomicU64,
}

impl Share {
    /// `false` once the bound is passed.
    fn add(&self, amount: usize) -> bool {
        let amount = u64::try_from(amount).unwrap_or(u64::MAX);
        let before = self.used.fetch_add(amount, Ordering::Relaxed);
        before.saturating_add(amount) <= self.most.load(Ordering::Relaxed)
    }

    /// The bound, once it is reached.
    fn spent(&self) -> Option<u64> {
        let most = self.most.load(Ordering::Relaxed);
        (self.used.load(Ordering::Relaxed) >= most).then_some(most)
    }
}

/// The sums of one run, and their bounds.
#[derive(Debug, Default)]
pub(crate) struct EgressTally {
    sent: Share,
    received: Share,
    requests: Share,
}

impl EgressTally {
    pub(crate) fn new(limits: &Limits) -> Self {
        let tally = Self::default();
        tally.set_limits(limits);
        tally
    }

    /// Takes over the bounds of a warrant, whose lower ones count at once.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        self.sent.most.store(limits.egress_sent_bytes, Ordering::Relaxed);
        self.received.most.store(limits.egress_received_bytes, Ordering::Relaxed);
        self.requests.most.store(limits.egress_requests, Ordering::Relaxed);
    }

    /// Counts one more request or tunnel.
    ///
    /// # Errors
    /// `egress-spent`, when there may be no further one.
    pub(crate) fn begin(&self, wanted: &str) -> Result<(), Refusal> {
        self.check_bytes(wanted)?;
        if let Some(most) = self.requests.spent() {
            return Err(spent(wanted, &format!("made {most} requests to hosts")));
        }
        // Two at once may both have seen the last one free.
        if self.requests.add(1) { Ok(()) } else { Err(spent(wanted, "made its last request to a host")) }
    }

    /// # Errors
    /// `egress-spent`, when the run's bytes are used up in one of the directions.
    pub(crate) fn check_bytes(&self, wanted: &str) -> Result<(), Refusal> {
        for (share, done) in [(&self.sent, "sent"), (&self.received, "received")] {
            if let Some(most) = share.spent() {
                return Err(spent(wanted, &format!("{done} {most} bytes")));
            }
        }
        Ok(())
    }
}

fn spent(wanted: &str, what: &str) -> Refusal {
    Refusal::new(
        Rule::EgressSpent,
        wanted,
        format!("the run has {what}, which is all that its warrant grants"),
    )
}

/// A connection to a host whose bytes are counted, and which breaks when they are spent.
#[derive(Debug)]
pub(crate) struct Metered {
    link: Link,
    tally: Arc<EgressTally>,
    /// Bytes that may still come before the answer's head is whole; `None` where nothing is waited for.
    head: Option<Arc<AtomicU64>>,
}

impl Metered {
    pub(crate) fn new(link: Link, tally: Arc<EgressTally>) -> Self {
        Self { link, tally, head: None }
    }

    /// Bounds what may come before the answer has begun, interim answers included. The bound is lifted by storing
    /// [`u64::MAX`].
    pub(crate) fn bound_head(&mut self, bytes: u64) -> Arc<AtomicU64> {
        let left = Arc::new(AtomicU64::new(bytes));
        self.head = Some(Arc::clone(&left));
        left
    }

    fn spent() -> io::Error {
        io::Error::new(io::ErrorKind::QuotaExceeded, "the run's bytes are spent")
    }
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut this.link).poll_read(cx, buf))?;
        let count = buf.filled().len() - before;
        if let Some(head) = &this.head {
            let left = head.load(Ordering::Relaxed);
            if left != u64::MAX {
                let left = left.checked_sub(u64::try_from(count).unwrap_or(u64::MAX));
                let left = left.ok_or_else(|| io::Error::other("the answer's head is too large"))?;
                head.store(left, Ordering::Relaxed);
            }
        }
        Poll::Ready(if this.tally.received.add(count) { Ok(()) } else { Err(Self::spent()) })
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = std::task::ready!(Pin::new(&mut this.link).poll_write(cx, buf))?;
        Poll::Ready(if this.tally.sent.add(count) { Ok(count) } else { Err(Self::spent()) })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link).poll_shutdown(cx)
    }
}

//! One connection's bytes: counted, bounded in idle time, with what was read ahead given back first.

use bytes::{Buf, Bytes};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// What all connections of a run carried.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

/// What carries the bytes. Tests of time put memory in the place of a socket: simulated time doesn't wait for a kernel.
#[derive(Debug)]
pub(crate) enum Link {
    Tcp(TcpStream),
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

impl From<TcpStream> for Link {
    fn from(stream: TcpStream) -> Self {
        // Small answers must not wait for each other; a socket that refuses works all the same.
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }
}

/// Calls the same method on whatever carries the bytes.
macro_rules! on_link {
    ($link:expr, $method:ident $(, $argument:expr)*) => {
        match $link {
            Link::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            #[cfg(test)]
            Link::Memory(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_link!(self.get_mut(), poll_read, cx, buf)
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_link!(self.get_mut(), poll_write, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_link!(self.get_mut(), poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_link!(self.get_mut(), poll_shutdown, cx)
    }
}

/// A connection from the sandbox.
#[derive(Debug)]
pub(crate) struct CountedStream {
    stream: Link,
    ahead: Bytes,
    counters: Arc<Counters>,
    idle_limit: Duration,
    moved: Instant,
    idle: Pin<Box<Sleep>>,
}

impl CountedStream {
    pub(crate) fn new(stream: impl Into<Link>, counters: Arc<Counters>, idle_limit: Duration) -> Self {
        let idle = Box::pin(tokio::time::sleep(idle_limit));
        let moved = Instant::now();
        Self { stream: stream.into(), ahead: Bytes::new(), counters, idle_limit, moved, idle }
    }

    /// Gives bytes back: they are read again before anything else.
    pub(crate) fn give_back(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    /// Sets another bound on the time without a byte.
    pub(crate) fn set_idle_limit(&mut self, limit: Duration) {
        self.idle_limit = limit;
        self.moved = Instant::now();
        self.idle.as_mut().reset(self.moved + limit);
    }

    /// An error once nothing has moved for too long. The alarm is set anew when it rings, not for every byte.
    fn check_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            std::task::ready!(self.idle.as_mut().poll(cx));
            let end = self.moved + self.idle_limit;
            if end <= Instant::now() {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the connection was idle"));
            }
            self.idle.as_mut().reset(end);
        }
    }

    /// Closes so that the peer can still read our answer: a close with unread bytes would discard it.
    pub(crate) async fn linger(mut self) {
        const BYTES: usize = 1024 * 1024;
        if self.shutdown().await.is_err() {
            return;
        }
        let drain = async {
            let mut buffer = vec![0_u8; 16 * 1024];
            let mut left = BYTES;
            while let Ok(count) = self.read(&mut buffer).await {
                left = left.saturating_sub(count);
                if count == 0 || left == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), drain).await;
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.has_remaining() {
            let count = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let count = u64::try_from(buf.filled().len() - before).unwrap_or(0);
                this.counters.bytes_in.fetch_add(count, Ordering::Relaxed);
                this.moved = Instant::now();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.check_idle(cx).map(Err),
        }
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write(cx, buf) {
            Poll::Ready(Ok(count)) => {
                let written = u64::try_from(count).unwrap_or(0);
                this.counters.bytes_out.fetch_add(written, Ordering::Relaxed);
                this.moved = Instant::now();
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.check_idle(cx).map(Err),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

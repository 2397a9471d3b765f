//! What a client is sent within TLS. An answer that was cut never looks whole.

use crate::server::{framing, respond};
use bytes::BytesMut;
use http::StatusCode;
use std::io;
use std::time::Duration;
use tipstaff_model::Refusal;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// How an answer's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// It has no body, whatever its fields say.
    Bodiless,
    /// After so many bytes.
    After(u64),
    /// Chunked.
    Chunked,
}

/// The side of a connection that is written.
#[derive(Debug)]
pub(super) struct Writer<W> {
    stream: W,
    out: BytesMut,
    time: Duration,
    chunked: bool,
    /// Whether an answer was begun since the last request.
    pub(super) begun: bool,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(super) fn new(stream: W, time: Duration) -> Self {
        Self { stream, out: BytesMut::new(), time, chunked: false, begun: false }
    }

    /// Begins an answer. Nothing is sent before [`Writer::flush`].
    pub(super) fn begin<'f>(
        &mut self,
        status: StatusCode,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
        ends: Ends,
        closes: bool,
    ) {
        self.begun = true;
        self.chunked = ends == Ends::Chunked;
        framing::head(&mut self.out, status, fields);
        match ends {
            Ends::Bodiless => {}
            Ends::After(length) => {
                self.out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
            }
            Ends::Chunked => self.out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
        if closes {
            self.out.extend_from_slice(b"connection: close\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// Adds a piece of the body.
    pub(super) fn piece(&mut self, bytes: &[u8]) {
        if self.chunked {
            framing::chunk(&mut self.out, bytes);
        } else {
            self.out.extend_from_slice(bytes);
        }
    }

    /// Ends the body.
    pub(super) fn end(&mut self) {
        if self.chunked {
            self.out.extend_from_slice(framing::LAST_CHUNK);
        }
    }

    /// Bytes that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.out.len()
    }

    /// Sends what waits.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let writing = async {
            self.stream.write_all(&self.out).await?;
            self.stream.flush().await
        };
        tokio::time::timeout(self.time, writing).await.map_err(|_| io::ErrorKind::TimedOut)??;
        self.out.clear();
        Ok(())
    }

    /// An answer of ours.
    pub(super) async fn whole(
        &mut self,
        status: StatusCode,
        kind: &str,
        body: &str,
        (head_only, closes): (bool, bool),
    ) -> io::Result<()> {
        let fields = [("content-type", kind.as_bytes()), ("cache-control", b"no-store".as_slice())];
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        self.begin(status, fields.into_iter(), Ends::After(length), closes);
        if !head_only {
            self.out.extend_from_slice(body.as_bytes());
        }
        self.flush().await
    }

    /// A refusal; JSON for those who ask for it.
    pub(super) async fn refusal(
        &mut self,
        status: StatusCode,
        refusal: &Refusal,
        json: bool,
        ends: (bool, bool),
    ) -> io::Result<()> {
        if json {
            let body = respond::refusal_json(refusal).to_string();
            return self.whole(status, "application/json", &body, ends).await;
        }
        self.whole(status, "text/plain; charset=utf-8", &respond::refusal_text(refusal), ends).await
    }

    /// Says that more may be sent now.
    pub(super) async fn go_on(&mut self) -> io::Result<()> {
        self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        self.flush().await
    }

    /// Says that nothing more comes.
    pub(super) async fn close(&mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.stream.shutdown()).await;
    }
}

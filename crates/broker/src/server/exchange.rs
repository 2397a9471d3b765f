//! One request and its answer, read and written by ourselves: for model traffic, which streams and comes often.
//!
//! Promises: the head was read by the one strict parser, the body ends where that parser says; bytes that come before
//! the answer's end are never served as a request, the connection ends after that answer; an answer that was cut never
//! looks whole.

use super::{CountedStream, framing};
use crate::parse::head::{BodyLength, Head};
use bytes::{Bytes, BytesMut};
use flate2::write::GzDecoder;
use std::future::Future;
use std::io::Write;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes that are inflated at once. A byte inflates to at most about a thousand.
const SLICE: usize = 8 * 1024;

/// The longest line that begins a chunk: its size. Extensions are not accepted.
const LONGEST_SIZE: usize = 16;

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoBody {
    /// The client went away, or was too slow.
    Gone,
    /// The chunks can't be read in one way.
    Framing,
    /// An encoding other than gzip, or bytes that are no gzip.
    Encoding,
    /// More than the bound.
    TooLarge,
}

/// A request with the connection that it came on.
#[derive(Debug)]
pub(crate) struct Exchange {
    stream: CountedStream,
    head: Head,
    body_read: bool,
    /// Whether another request may come on this connection.
    keeps: bool,
    /// Whether the client is watched for going away; not any more once it sent something too early.
    watches: bool,
    out: BytesMut,
    write_time: Duration,
}

impl Exchange {
    /// The stream must stand right after the head.
    pub(crate) fn new(stream: CountedStream, head: Head, write_time: Duration) -> Self {
        let closes = head.fields.iter().any(|(name, value)| {
            name == "upgrade"
                || (name == "connection"
                    && value.split(',').any(|word| !word.trim().eq_ignore_ascii_case("keep-alive")))
        });
        let body_read = head.body == BodyLength::Known(0);
        Self { stream, head, body_read, keeps: !closes, watches: true, out: BytesMut::new(), write_time }
    }

    pub(crate) const fn head(&self) -> &Head {
        &self.head
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// How long the body says it is.
    pub(crate) const fn announced(&self) -> Option<u64> {
        match self.head.body {
            BodyLength::Known(length) => Some(length),
            BodyLength::Chunked => None,
        }
    }

    /// Reads the whole body, decompressed, when it has at most `limit` bytes.
    pub(crate) async fn read_body(&mut self, limit: u64) -> Result<Bytes, NoBody> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let encodings = self.head.fields.iter().filter(|(name, _)| name == "content-encoding").count();
        let gzip = match (encodings, self.field("content-encoding")) {
            (0, _) | (1, Some("identity")) => false,
            (1, Some("gzip" | "x-gzip")) => true,
            _ => return Err(NoBody::Encoding),
        };
        if self.announced().is_some_and(|length| length > u64::try_from(limit).unwrap_or(u64::MAX)) {
            return Err(NoBody::TooLarge);
        }
        if self.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|_| NoBody::Gone)?;
        }
        let raw = match self.head.body {
            BodyLength::Known(length) => {
                self.read_known(usize::try_from(length).unwrap_or(usize::MAX)).await?
            }
            BodyLength::Chunked => self.read_chunks(limit).await?,
        };
        self.body_read = true;
        if gzip { inflate(&raw, limit) } else { Ok(raw) }
    }

    async fn read_known(&mut self, length: usize) -> Result<Bytes, NoBody> {
        // What is announced is not yet there: room is made as it comes.
        let mut body = BytesMut::with_capacity(length.min(64 * 1024));
        while body.len() < length {
            body.reserve((length - body.len()).min(1024 * 1024));
            let mut rest = (&mut self.stream).take(u64::try_from(length - body.len()).unwrap_or(0));
            match rest.read_buf(&mut body).await {
                Ok(0) | Err(_) => return Err(NoBody::Gone),
                Ok(_) => {}
            }
        }
        Ok(body.freeze())
    }

    async fn read_chunks(&mut self, limit: usize) -> Result<Bytes, NoBody> {
        let mut body = BytesMut::new();
        loop {
            let line = self.line().await?;
            let digits = std::str::from_utf8(&line).map_err(|_| NoBody::Framing)?;
            let hex = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let size = if hex { usize::from_str_radix(digits, 16).ok() } else { None };
            let size = size.ok_or(NoBody::Framing)?;
            if size == 0 {
                // Trailers are not accepted.
                return if self.line().await?.is_empty() { Ok(body.freeze()) } else { Err(NoBody::Framing) };
            }
            if body.len().saturating_add(size) > limit {
                return Err(NoBody::TooLarge);
            }
            let chunk = self.read_known(size).await?;
            body.extend_from_slice(&chunk);
            if !self.line().await?.is_empty() {
                return Err(NoBody::Framing);
            }
        }
    }

    /// A short line, without its end.
    async fn line(&mut self) -> Result<Vec<u8>, NoBody> {
        let mut line = Vec::with_capacity(LONGEST_SIZE);
        loop {
            let byte = self.stream.read_u8().await.map_err(|_| NoBody::Gone)?;
            match byte {
                b'\n' if line.last() == Some(&b'\r') => {
                    line.pop();
                    return Ok(line);
                }
                b'\n' => return Err(NoBody::Framing),
                _ if line.len() >= LONGEST_SIZE => return Err(NoBody::Framing),
                _ => line.push(byte),
            }
        }
    }

    /// Waits for `work`, unless the client goes away before; then `None`.
    pub(crate) async fn unless_gone<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            if !self.watches {
                return Some(work.await);
            }
            let mut early = [0_u8; 1];
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                read = self.stream.read(&mut early) => match read {
                    Ok(0) | Err(_) => return None,
                    // It did not wait for the answer: what it sent is never read, and nobody can tell any more when it goes.
                    Ok(_) => {
                        self.watches = false;
                        self.keeps = false;
                    }
                },
            }
        }
    }

    /// Gives a client that is silent on purpose the time that its answer may take.
    pub(crate) fn be_patient(&mut self, time: Duration) {
        self.stream.set_idle_limit(time);
    }

    /// Answers with a whole body. Gives the connection back when another request may come on it.
    pub(crate) async fn answer(
        mut self,
        status: http::StatusCode,
        fields: &[(&str, String)],
        body: &[u8],
    ) -> Option<CountedStream> {
        // The rest of a request that was refused is nobody's business.
        self.keeps &= self.body_read;
        self.write_head(status, fields.iter().map(|(name, value)| (*name, value.as_bytes())));
        self.out.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        self.out.extend_from_slice(body);
        self.flush().await.ok()?;
        self.leave().await
    }

    /// Begins an answer whose length is not known. Nothing is sent before the first piece or [`Exchange::flush`].
    pub(crate) fn begin<'f>(
        &mut self,
        status: http::StatusCode,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
    ) {
        self.keeps &= self.body_read;
        self.write_head(status, fields);
        self.out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
    }

    fn write_head<'f>(
        &mut self,
        status: http::StatusCode,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
    ) {
        framing::head(&mut self.out, status, fields);
        if !self.keeps {
            self.out.extend_from_slice(b"connection: close\r\n");
        }
    }

    /// Adds a piece to what is to be sent.
    pub(crate) fn piece(&mut self, bytes: &[u8]) {
        framing::chunk(&mut self.out, bytes);
    }

    /// Bytes that wait to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.out.len()
    }

    /// Sends what waits.
    pub(crate) async fn flush(&mut self) -> std::io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let writing = self.stream.write_all(&self.out);
        tokio::time::timeout(self.write_time, writing).await.map_err(|_| std::io::ErrorKind::TimedOut)??;
        self.out.clear();
        Ok(())
    }

    /// Ends an answer that was begun.
    pub(crate) async fn end(mut self) -> Option<CountedStream> {
        self.out.extend_from_slice(framing::LAST_CHUNK);
        self.flush().await.ok()?;
        self.leave().await
    }

    async fn leave(self) -> Option<CountedStream> {
        if self.keeps {
            return Some(self.stream);
        }
        self.stream.linger().await;
        None
    }
}

fn inflate(raw: &[u8], limit: usize) -> Result<Bytes, NoBody> {
    let mut gunzip = GzDecoder::new(Vec::new());
    for slice in raw.chunks(SLICE) {
        gunzip.write_all(slice).map_err(|_| NoBody::Encoding)?;
        if gunzip.get_ref().len() > limit {
            return Err(NoBody::TooLarge);
        }
    }
    // Checks the length and the sum at the end.
    let whole = gunzip.finish().map_err(|_| NoBody::Encoding)?;
    if whole.len() > limit { Err(NoBody::TooLarge) } else { Ok(Bytes::from(whole)) }
}

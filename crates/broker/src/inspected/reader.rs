//! What a client sends within TLS: heads and bodies, read by the one strict parser.
//!
//! Promises: a body ends where its head says, and what comes after it is the next head; what comes before the answer's
//! end waits in a bounded buffer and is judged when its turn has come.

use crate::parse::head::{self, BodyLength, Head, HeadError};
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What is read ahead of its turn, in bytes.
const AHEAD: usize = 16 * 1024;

/// The longest line that begins a chunk: its size. Extensions are not accepted.
const LONGEST_SIZE: usize = 16;

/// Why no head came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHead {
    /// The client went away, or was silent for too long.
    Gone,
    /// The head took too long.
    Slow,
    /// It can be read in two ways.
    Bad(HeadError),
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoBody {
    /// The client went away.
    Gone,
    /// The client was silent for too long.
    Slow,
    /// The chunks can't be read in one way.
    Framing,
    /// More than the bound.
    TooLarge,
}

/// Where in a body the reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyState {
    /// So many bytes are to come.
    Left(u64),
    /// A chunk's size is to come.
    Size,
    /// So many bytes of a chunk are to come.
    Chunk(u64),
    /// The whole body was read.
    Done,
}

impl BodyState {
    pub(super) const fn of(length: BodyLength) -> Self {
        match length {
            BodyLength::Known(0) => Self::Done,
            BodyLength::Known(length) => Self::Left(length),
            BodyLength::Chunked => Self::Size,
        }
    }
}

/// The side of a connection that is read.
#[derive(Debug)]
pub(super) struct Reader<R> {
    stream: R,
    buffer: BytesMut,
    /// How long a piece of a body may be waited for.
    patience: Duration,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(stream: R, patience: Duration) -> Self {
        Self { stream, buffer: BytesMut::new(), patience }
    }

    /// Waits for more bytes; how many came.
    async fn fill(&mut self) -> Option<()> {
        self.buffer.reserve(AHEAD);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }

    /// The next head. It may begin when it likes, within the stream's own time; from then on it has `time`.
    pub(super) async fn head(&mut self, time: Duration) -> Result<Head, NoHead> {
        if self.buffer.is_empty() {
            self.fill().await.ok_or(NoHead::Gone)?;
        }
        let end = tokio::time::timeout(time, async {
            loop {
                if let Some(end) = head::end(&self.buffer).map_err(NoHead::Bad)? {
                    return Ok(end);
                }
                self.fill().await.ok_or(NoHead::Gone)?;
            }
        })
        .await
        .unwrap_or(Err(NoHead::Slow))?;
        let bytes = self.buffer.split_to(end);
        head::parse(&bytes).map_err(NoHead::Bad)
    }

    /// The next piece of a body, as soon as it is there; `None` at its end.
    pub(super) async fn piece(&mut self, state: &mut BodyState) -> Result<Option<Bytes>, NoBody> {
        tokio::time::timeout(self.patience, self.next_piece(state)).await.unwrap_or(Err(NoBody::Slow))
    }

    async fn next_piece(&mut self, state: &mut BodyState) -> Result<Option<Bytes>, NoBody> {
        loop {
            match *state {
                BodyState::Done => return Ok(None),
                BodyState::Left(left) => {
                    let piece = self.some(left).await?;
                    let left = left.saturating_sub(length(&piece));
                    *state = if left == 0 { BodyState::Done } else { BodyState::Left(left) };
                    return Ok(Some(piece));
                }
                BodyState::Chunk(left) => {
                    let piece = self.some(left).await?;
                    let left = left.saturating_sub(length(&piece));
                    *state = BodyState::Chunk(left);
                    if left == 0 {
                        if !self.line().await?.is_empty() {
                            return Err(NoBody::Framing);
                        }
                        *state = BodyState::Size;
                    }
                    return Ok(Some(piece));
                }
                BodyState::Size => {
                    let line = self.line().await?;
                    let digits = std::str::from_utf8(&line).map_err(|_| NoBody::Framing)?;
                    let hex =
                        (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
                    let size = if hex { u64::from_str_radix(digits, 16).ok() } else { None };
                    match size.ok_or(NoBody::Framing)? {
                        // Trailers are not accepted.
                        0 if self.line().await?.is_empty() => *state = BodyState::Done,
                        0 => return Err(NoBody::Framing),
                        size => *state = BodyState::Chunk(size),
                    }
                }
            }
        }
    }

    /// The whole body, when it has at most `limit` bytes.
    pub(super) async fn whole(&mut self, state: &mut BodyState, limit: u64) -> Result<Bytes, NoBody> {
        if matches!(state, BodyState::Left(left) if *left > limit) {
            return Err(NoBody::TooLarge);
        }
        let mut body = BytesMut::new();
        while let Some(piece) = self.piece(state).await? {
            if length(&body).saturating_add(length(&piece)) > limit {
                return Err(NoBody::TooLarge);
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    /// Ends when the client is gone. What it sends meanwhile waits for its turn; when that is too much, nothing more is
    /// read, and nobody can tell any more when it goes.
    pub(super) async fn gone(&mut self) {
        while self.buffer.len() < AHEAD {
            if self.fill().await.is_none() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    async fn some(&mut self, most: u64) -> Result<Bytes, NoBody> {
        if self.buffer.is_empty() {
            self.fill().await.ok_or(NoBody::Gone)?;
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.buffer.len());
        Ok(self.buffer.split_to(most).freeze())
    }

    /// A short line, without its end.
    async fn line(&mut self) -> Result<Bytes, NoBody> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(at + 1);
                let line = line.strip_suffix(b"\r\n").ok_or(NoBody::Framing)?;
                return if line.len() > LONGEST_SIZE {
                    Err(NoBody::Framing)
                } else {
                    Ok(Bytes::copy_from_slice(line))
                };
            }
            if self.buffer.len() > LONGEST_SIZE + 2 {
                return Err(NoBody::Framing);
            }
            self.fill().await.ok_or(NoBody::Gone)?;
        }
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(5);

    async fn read(input: &[u8]) -> Vec<Result<(String, Vec<u8>), String>> {
        let mut reader = Reader::new(input, Duration::from_secs(60));
        let mut out = Vec::new();
        loop {
            let head = match reader.head(TIME).await {
                Ok(head) => head,
                Err(NoHead::Gone) => return out,
                Err(error) => {
                    out.push(Err(format!("{error:?}")));
                    return out;
                }
            };
            let mut state = BodyState::of(head.body);
            match reader.whole(&mut state, 64).await {
                Ok(body) => out.push(Ok((head.method, body.to_vec()))),
                Err(error) => {
                    out.push(Err(format!("{error:?}")));
                    return out;
                }
            }
        }
    }

    #[tokio::test]
    async fn requests_end_where_their_heads_say() {
        let input = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhiPUT /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nyo\r\n1\r\n!\r\n0\r\n\r\nGET /c HTTP/1.1\r\nHost: h\r\n\r\n";
        let wanted = [("POST", b"hi".to_vec()), ("PUT", b"yo!".to_vec()), ("GET", Vec::new())];
        let found: Vec<_> = read(input).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(found, wanted.map(|(method, body)| (method.to_owned(), body)));
    }

    #[tokio::test]
    async fn what_can_be_read_in_two_ways_ends_the_connection() {
        let chunked = |body: &str| {
            format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes()
        };
        for (input, why) in [
            (chunked("2;x=1\r\nhi\r\n0\r\n\r\n"), "Framing"),
            (chunked("+2\r\nhi\r\n0\r\n\r\n"), "Framing"),
            (chunked("0x2\r\nhi\r\n0\r\n\r\n"), "Framing"),
            (chunked("2\nhi\r\n0\r\n\r\n"), "Framing"),
            (chunked("2\r\nhi!\r\n0\r\n\r\n"), "Framing"),
            (chunked("0\r\nTrailer: x\r\n\r\n"), "Framing"),
            (chunked("111111111\r\n"), "Framing"),
            (chunked("2\r\nh"), "Gone"),
            (chunked(&format!("41\r\n{}\r\n0\r\n\r\n", "x".repeat(65))), "TooLarge"),
            (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 65\r\n\r\n".to_vec(), "TooLarge"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "Bad(OtherProtocol)"),
            (b"GET / HTTP/1.1\nHost: h\n\n".to_vec(), "Bad(LineEnd)"),
        ] {
            let found = read(&input).await;
            assert_eq!(
                found.last().unwrap().clone().unwrap_err(),
                why,
                "{}",
                String::from_utf8_lossy(&input)
            );
        }
    }
}

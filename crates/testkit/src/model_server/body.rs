//! How an answer travels: whole, in pieces, slowly, without end, or broken.

use super::record::{Ending, Journal};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// How it ends after the last piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Properly.
    Finish,
    /// The connection breaks.
    Break,
    /// Silence, until the client leaves.
    Silence,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    /// The length to announce; without one the body is chunked.
    pub(super) length: Option<u64>,
    pub(super) pieces: Box<dyn Iterator<Item = Bytes> + Send>,
    /// Before every piece but the first.
    pub(super) pace: Duration,
    pub(super) end: End,
}

impl Answer {
    /// One piece with a length.
    pub(super) fn whole(status: u16, content_type: &str, body: String) -> Self {
        let bytes = Bytes::from(body);
        let length = Some(bytes.len() as u64);
        Self { length, ..Self::pieces(status, content_type, vec![bytes]) }
    }

    /// Several, chunked.
    pub(super) fn pieces(status: u16, content_type: &str, pieces: Vec<Bytes>) -> Self {
        Self {
            status,
            headers: vec![("content-type", content_type.to_owned())],
            length: None,
            pieces: Box::new(pieces.into_iter()),
            pace: Duration::ZERO,
            end: End::Finish,
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends it: the head at once, the pieces from a task of their own that says how it ended.
    pub(super) fn send(self, journal: std::sync::Arc<Journal>, number: usize) -> Response<AnswerBody> {
        let (sender, receiver) = mpsc::channel(1);
        let body = AnswerBody { receiver, left: self.length };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::IM_A_TEAPOT);
        for (name, value) in &self.headers {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().append(HeaderName::from_static(name), value);
            }
        }
        journal.change(number, |request| request.status = self.status);
        tokio::spawn(async move {
            let ending = write(self.pieces, self.pace, self.end, &sender).await;
            journal.change(number, |request| request.ending = ending);
        });
        response
    }
}

async fn write(
    pieces: Box<dyn Iterator<Item = Bytes> + Send>,
    pace: Duration,
    end: End,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> Ending {
    for (position, piece) in pieces.enumerate() {
        if position > 0 && !pace.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(pace) => {}
                () = sender.closed() => return Ending::ClientLeft,
            }
        }
        if sender.send(Ok(piece)).await.is_err() {
            return Ending::ClientLeft;
        }
    }
    match end {
        End::Finish => Ending::Complete,
        End::Silence => {
            sender.closed().await;
            Ending::ClientLeft
        }
        End::Break => {
            // There is one thread: when the slot is free, hyper has taken the last piece and written it, too.
            if sender.reserve().await.is_err() {
                return Ending::ClientLeft;
            }
            let _ = sender.send(Err(io::ErrorKind::ConnectionAborted.into())).await;
            Ending::Broken
        }
    }
}

/// A body that a task writes.
#[derive(Debug)]
pub(super) struct AnswerBody {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    left: Option<u64>,
}

impl AnswerBody {
    /// Nothing.
    pub(super) fn empty() -> Self {
        Self { receiver: mpsc::channel(1).1, left: Some(0) }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let piece = std::task::ready!(self.receiver.poll_recv(context));
        if let (Some(Ok(bytes)), Some(left)) = (&piece, &mut self.left) {
            *left = left.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(piece.map(|result| result.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

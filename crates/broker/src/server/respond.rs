//! Answers: plain words for people and programs, never a credential, never a path of the host.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tipstaff_model::{Refusal, Rule};
use tokio::sync::mpsc;

/// The body of every answer.
pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

/// An answer.
pub(crate) type Answer = Response<AnswerBody>;

/// A body that another task writes, of a length that may be known. When the reader goes away, the writer's next send
/// fails.
#[derive(Debug)]
pub(crate) struct ChannelBody {
    pub(crate) pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// How many bytes are to come, where that is known.
    pub(crate) length: Option<u64>,
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.pieces.poll_recv(cx).map(|piece| piece.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.length == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> AnswerBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer with a body and a type; never cached.
pub(crate) fn answer(status: StatusCode, content_type: &'static str, body: AnswerBody) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0, must-revalidate"));
    response
}

/// The status that fits a rule.
pub(crate) const fn status_of(rule: Rule) -> StatusCode {
    match rule {
        Rule::RequestAmbiguous => StatusCode::BAD_REQUEST,
        Rule::ProtocolNotServed => StatusCode::NOT_IMPLEMENTED,
        Rule::RequestNotServed => StatusCode::NOT_FOUND,
        Rule::LimitReached => StatusCode::SERVICE_UNAVAILABLE,
        Rule::AuditUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::FORBIDDEN,
    }
}

/// The words of a refusal: what, which rule, what to do.
pub(crate) fn refusal_text(refusal: &Refusal) -> String {
    format!("tipstaff refused {}: {refusal}\nnext: {}\n", refusal.wanted, refusal.next_step())
}

/// A refusal for programs.
pub(crate) fn refusal_json(refusal: &Refusal) -> serde_json::Value {
    serde_json::json!({
        "code": refusal.rule.id(),
        "wanted": refusal.wanted,
        "why": refusal.why,
        "next": refusal.next_step(),
    })
}

/// A refusal as an answer; JSON for those who ask for it. git and curl show the plain text to their user.
pub(crate) fn refused(refusal: &Refusal, status: StatusCode, wants_json: bool) -> Answer {
    if wants_json {
        return answer(status, "application/json", full(refusal_json(refusal).to_string()));
    }
    answer(status, "text/plain; charset=utf-8", full(refusal_text(refusal)))
}

/// An answer written by hand, for connections on which no request could be read.
pub(crate) fn raw(status: StatusCode, text: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Refused"),
        text.len()
    )
    .into_bytes()
}

//! The answer of an inspected host, passed on as it comes.
//!
//! Promises: it is written anew with one end; an answer that tells its end twice is not passed on; a secret's value that
//! the host sends back is taken out, and what can't be searched for one is not passed on.

use super::fields;
use super::writer::{Ends, Writer};
use crate::gateway::keys::{KeyFilter, KeySpellings};
use crate::server::Shared;
use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use hyper::body::{Body, Incoming};
use std::pin::Pin;
use std::task::Poll;
use tokio::io::AsyncWrite;

/// Pieces of an answer are sent together up to this many bytes.
const TOGETHER: usize = 64 * 1024;

/// How passing on ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// To its end.
    Whole,
    /// Before its end: the connection must show it.
    Cut,
}

/// Why an answer is not passed on, in the words of an answer of ours.
pub(super) fn problem(response: &Response<Incoming>, searched: bool) -> Option<&'static str> {
    let headers = response.headers();
    let count = |name| headers.get_all(name).iter().count();
    let (lengths, codings) = (count(header::CONTENT_LENGTH), count(header::TRANSFER_ENCODING));
    let chunked = headers
        .get(header::TRANSFER_ENCODING)
        .is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    let digits = headers
        .get(header::CONTENT_LENGTH)
        .is_none_or(|length| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit));
    if lengths + codings > 1 || !chunked || !digits {
        return Some("tells the end of its answer twice or in an odd way");
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS || response.status().is_informational() {
        return Some("switches to another protocol, which is not served");
    }
    let plain = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if searched && !plain {
        return Some(
            "compresses its answer although it was asked not to, so it can't be searched for the secret",
        );
    }
    None
}

/// Passes an answer on. `closes`: no further request is served on this connection. Also whether a secret was taken out.
pub(super) async fn pass_on<W: AsyncWrite + Unpin>(
    shared: &Shared,
    writer: &mut Writer<W>,
    response: Response<Incoming>,
    method: &Method,
    spellings: KeySpellings,
    closes: bool,
) -> (Passed, bool) {
    let (parts, body) = response.into_parts();
    let (fields, mut echoed) = fields::answer(&parts.headers, &spellings);
    let bodiless =
        *method == Method::HEAD || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let ends = match (bodiless, body.size_hint().exact()) {
        (true, _) => Ends::Bodiless,
        // What is taken out changes the length.
        (false, Some(length)) if spellings.is_empty() => Ends::After(length),
        (false, _) => Ends::Chunked,
    };
    writer.begin(
        parts.status,
        fields.iter().map(|(name, value)| (name.as_str(), value.as_slice())),
        ends,
        closes,
    );
    let mut filter = KeyFilter::new(spellings);
    let passed = if bodiless {
        if writer.flush().await.is_ok() { Passed::Whole } else { Passed::Cut }
    } else {
        body_of(shared, writer, body, &mut filter).await
    };
    echoed |= filter.found() > 0;
    (passed, echoed)
}

async fn body_of<W: AsyncWrite + Unpin>(
    shared: &Shared,
    writer: &mut Writer<W>,
    mut body: Incoming,
    filter: &mut KeyFilter,
) -> Passed {
    let idle = shared.config.bounds.tunnel_idle_time;
    loop {
        // What is there already is sent together; else what waits is sent first.
        let next = match now(&mut body).await {
            Some(next) if writer.waiting() < TOGETHER => next,
            found => {
                if writer.flush().await.is_err() {
                    return Passed::Cut;
                }
                match found {
                    Some(next) => next,
                    None => match tokio::time::timeout(idle, frame(&mut body)).await {
                        Ok(next) => next,
                        Err(_) => return Passed::Cut,
                    },
                }
            }
        };
        match next {
            Some(Ok(frame)) => {
                // Trailers carry nothing for us.
                if let Ok(data) = frame.into_data() {
                    writer.piece(&filter.push(data));
                }
            }
            Some(Err(_)) => {
                // What came before the break is the client's.
                let _ = writer.flush().await;
                return Passed::Cut;
            }
            None => {
                writer.piece(&filter.finish());
                writer.end();
                return if writer.flush().await.is_ok() { Passed::Whole } else { Passed::Cut };
            }
        }
    }
}

type Next = Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>;

async fn frame(body: &mut Incoming) -> Next {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// The next piece if it is there already.
async fn now(body: &mut Incoming) -> Option<Next> {
    std::future::poll_fn(|cx| {
        Poll::Ready(match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(next) => Some(next),
            Poll::Pending => None,
        })
    })
    .await
}

//! The pieces of an answer, passed on as they come.

use super::call::Call;
use super::keys::KeyFilter;
use crate::server::Shared;
use crate::server::exchange::Exchange;
use bytes::Bytes;
use hyper::body::{Body, Incoming};
use std::pin::Pin;
use std::task::Poll;

/// Pieces of an answer are sent together up to this many bytes.
const TOGETHER: usize = 64 * 1024;

/// How an answer ended.
pub(super) enum Ended {
    Whole,
    Cut,
    TooLong,
}

/// Passes the pieces on as they come; what comes at once is sent at once.
pub(super) async fn stream(
    shared: &Shared,
    exchange: &mut Exchange,
    mut body: Incoming,
    mut filter: KeyFilter,
    call: &mut Option<Call>,
) -> Ended {
    let bounds = &shared.config.bounds;
    let mut left = bounds.model_answer_bytes;
    let mut waited = false;
    // The head goes with the first piece, and both go at once.
    let mut first = true;
    loop {
        let next = if exchange.waiting() > 0 { at_once(&mut body, &mut waited).await } else { None };
        let next = match next {
            Some(next) => next,
            None => {
                if exchange.flush().await.is_err() {
                    return Ended::Cut;
                }
                waited = false;
                match exchange
                    .unless_gone(tokio::time::timeout(bounds.model_idle_time, frame(&mut body)))
                    .await
                {
                    Some(Ok(next)) => next,
                    Some(Err(_)) | None => return Ended::Cut,
                }
            }
        };
        let data = match next {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                // Trailers carry nothing for us.
                Err(_) => continue,
            },
            Some(Err(_)) => {
                // What came before the break is the client's.
                let _ = exchange.flush().await;
                return Ended::Cut;
            }
            None => {
                exchange.piece(&filter.finish());
                if filter.found() > 0 {
                    shared.key_echoed();
                }
                return Ended::Whole;
            }
        };
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if length > left {
            let _ = exchange.flush().await;
            return Ended::TooLong;
        }
        left -= length;
        if let Some(meter) = call.as_mut().and_then(|call| call.meter.as_mut()) {
            meter.push(&data);
        }
        exchange.piece(&filter.push(data));
        if (first || exchange.waiting() >= TOGETHER) && exchange.flush().await.is_err() {
            return Ended::Cut;
        }
        first = false;
    }
}

type Next = Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>;

async fn frame(body: &mut Incoming) -> Next {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// The next piece if it is there already, or as soon as the connection's task had its turn.
async fn at_once(body: &mut Incoming, waited: &mut bool) -> Option<Next> {
    loop {
        let now = std::future::poll_fn(|cx| {
            Poll::Ready(match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(next) => Some(next),
                Poll::Pending => None,
            })
        })
        .await;
        if now.is_some() || *waited {
            *waited = false;
            return now;
        }
        *waited = true;
        tokio::task::yield_now().await;
    }
}

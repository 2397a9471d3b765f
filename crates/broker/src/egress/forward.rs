//! Plain HTTP to a granted host, passed on request by request.
//!
//! Promises: what goes out is written anew from what was understood, never the bytes as they came; `Host` is the granted
//! host; the path is the one that was judged; what concerns one connection only stays on it. What comes back is written
//! anew as well, and only when its length can be told in one way.

use super::admission::{Admission, Wanted};
use super::dial::{NoDial, dial};
use super::patience::Patient;
use super::tally::Metered;
use crate::parse::head::{Authority, Head};
use crate::parse::url_path;
use crate::server::respond::{self, Answer, answer, full};
use crate::server::{CountedStream, Shared, http, wants_json};
use ::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tipstaff_model::{Refusal, Rule};

/// Fields that concern one connection only (RFC 9110 §7.6.1), and those that only a proxy reads.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    // Answered by us.
    "expect",
];

/// Serves the one request of a connection: judges it, passes it on, and the answer back. It ends with the warrant.
pub(crate) async fn forward(
    shared: &Arc<Shared>,
    client: CountedStream,
    head: &Head,
    place: Authority,
    target: String,
) {
    let admission = match admit(shared, head, &place, &target) {
        Ok(admission) => admission,
        Err(refusal) => {
            let refusal = shared.refuse(refusal);
            let answer = |request: Request<Incoming>| {
                let status = respond::status_of(refusal.rule);
                std::future::ready(respond::refused(&refusal, status, wants_json(&request)))
            };
            return bounded(shared, client, answer).await;
        }
    };
    let serving = bounded(shared, client, |request| {
        pass_on(Arc::clone(shared), place.clone(), target.clone(), request)
    });
    tokio::select! {
        () = serving => {}
        refusal = admission.withdrawn() => {
            shared.refuse(refusal);
        }
    }
    if let Err(refusal) = shared.egress.check_bytes(&place.to_string()) {
        shared.refuse(refusal);
    }
}

/// Serves one request within the bounds of time.
pub(super) async fn bounded<F, A>(shared: &Shared, mut client: CountedStream, handle: F)
where
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Answer>,
{
    let bounds = shared.config.bounds;
    // A client is silent while it waits for the host.
    client.set_idle_limit(bounds.answer_time.saturating_add(bounds.idle_time));
    let _ = tokio::time::timeout(bounds.request_time, http(client, handle)).await;
}

/// Asks the warrant about a request as its head tells it.
fn admit(shared: &Arc<Shared>, head: &Head, place: &Authority, target: &str) -> Result<Admission, Refusal> {
    let upgrades = head.fields.iter().filter(|(name, _)| name == "upgrade");
    // An offer of HTTP/2 is one that a server may leave unanswered, and clients make it by themselves.
    let other = upgrades.flat_map(|(_, value)| value.split(',')).map(str::trim).find(|word| *word != "h2c");
    if let Some(word) = other {
        return Err(Refusal::new(
            Rule::ProtocolNotServed,
            format!("{} {place}{target}", head.method),
            format!("an upgrade to {word} is not served on plain HTTP"),
        ));
    }
    shared.secrets.refuse_anywhere(place, target, &head.fields)?;
    let warrant = shared.warrant.in_force()?;
    let bound = warrant.host_rules(&place.host, place.port).any(|rules| !rules.requests.is_empty());
    drop(warrant);
    let request = match url_path::read(target) {
        Ok(path) => Some((head.method.clone(), path)),
        Err(trick) if bound => {
            let wanted = format!("{} {place}{target}", head.method);
            return Err(Refusal::new(Rule::RequestAmbiguous, wanted, trick.to_string()));
        }
        // Where no rule speaks of paths, they are the host's own business.
        Err(_) => None,
    };
    Admission::ask(shared, Wanted { place: place.clone(), request, seen: true })
}

fn bad_gateway(why: &str) -> Answer {
    answer(StatusCode::BAD_GATEWAY, "text/plain; charset=utf-8", full(format!("tipstaff: {why}\n")))
}

/// Passes one request on.
async fn pass_on(
    shared: Arc<Shared>,
    place: Authority,
    target: String,
    request: Request<Incoming>,
) -> Answer {
    match dial(&shared, &place).await {
        Ok(upstream) => exchange(shared, upstream, place, target, request).await,
        Err(NoDial::Refused(refusal)) => {
            let refusal = shared.refuse(refusal);
            respond::refused(&refusal, respond::status_of(refusal.rule), wants_json(&request))
        }
        Err(NoDial::Unreachable(why)) => bad_gateway(&why),
    }
}

/// Sends one request on a connection of its own, and gives the answer back.
pub(super) async fn exchange(
    shared: Arc<Shared>,
    mut upstream: Metered,
    place: Authority,
    target: String,
    request: Request<Incoming>,
) -> Answer {
    let bounds = shared.config.bounds;
    let Some(request) = rewritten(request, &place, &target) else {
        return bad_gateway("the request has no form that can be passed on");
    };
    let stalled = Arc::new(AtomicBool::new(false));
    let request = request.map(|body| Patient::new(body, bounds.idle_time, Arc::clone(&stalled)));
    let head_left = upstream.bound_head(bounds.answer_head_bytes);
    let handshake = hyper::client::conn::http1::Builder::new().handshake(TokioIo::new(upstream)).await;
    let Ok((mut sender, connection)) = handshake else {
        return bad_gateway(&format!("{place} does not speak HTTP"));
    };
    // Ends when the answer's body is read or dropped.
    tokio::spawn(connection);
    let response = match tokio::time::timeout(bounds.answer_time, sender.send_request(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) if stalled.load(Ordering::Relaxed) => {
            let text =
                format!("tipstaff: nothing more of the body came in {} s\n", bounds.idle_time.as_secs());
            return answer(StatusCode::REQUEST_TIMEOUT, "text/plain; charset=utf-8", full(text));
        }
        Ok(Err(_)) => return bad_gateway(&format!("{place} gave no answer that can be read")),
        Err(_) => {
            let text = format!("tipstaff: {place} gave no answer in {} s\n", bounds.answer_time.as_secs());
            return answer(StatusCode::GATEWAY_TIMEOUT, "text/plain; charset=utf-8", full(text));
        }
    };
    head_left.store(u64::MAX, Ordering::Relaxed);
    if let Err(why) = has_one_length(&response) {
        return bad_gateway(&format!("{place} gave an answer that {why}"));
    }
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, body.map_err(io::Error::other).boxed_unsync())
}

/// Whether everybody reads the same end of an answer's body.
fn has_one_length<B>(response: &Response<B>) -> Result<(), &'static str> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err("switches to another protocol");
    }
    let lengths: Vec<_> = response.headers().get_all(header::CONTENT_LENGTH).iter().collect();
    let codings: Vec<_> = response.headers().get_all(header::TRANSFER_ENCODING).iter().collect();
    let fine = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => true,
        ([length], []) => !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit),
        ([], [coding]) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    if fine { Ok(()) } else { Err("tells its length twice or in an odd way") }
}

fn rewritten(request: Request<Incoming>, place: &Authority, target: &str) -> Option<Request<Incoming>> {
    let (mut parts, body) = request.into_parts();
    parts.uri = target.parse::<Uri>().ok()?;
    // What goes out is what was judged, letter by letter.
    if parts.uri.path_and_query().is_none_or(|sent| sent.as_str() != target) {
        return None;
    }
    strip(&mut parts.headers);
    let host = if place.port == 80 { place.host.clone() } else { place.to_string() };
    parts.headers.insert(header::HOST, HeaderValue::from_str(&host).ok()?);
    Some(Request::from_parts(parts, body))
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        // A client may not have the fields removed that say how long the body is and where it goes.
        if name != header::CONTENT_LENGTH && name != header::HOST {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

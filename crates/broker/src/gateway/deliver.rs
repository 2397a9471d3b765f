//! A request on its way: to which upstream, how often, and what comes back.
//!
//! Promises: nothing is sent again once a byte of an answer was passed on, nor what may have been worked on; the money
//! stays reserved once and is settled once, whoever served.

use super::answer::{Ended, stream};
use super::call::Call;
use super::client::{NoAnswer, Received};
use super::errors::{self, OwnAnswer};
use super::keys::{KeyFilter, KeySpellings};
use super::lane::{LaneBounds, NoSeat, Seat};
use super::plan::Asked;
use super::retry::{Attempts, Next, RetryBounds, Trouble, retry_after};
use super::serve::say;
use super::{Upstream, headers};
use crate::limits::Bounds;
use crate::parse::meter::{Framing, Meter};
use crate::server::exchange::Exchange;
use crate::server::{CountedStream, Shared};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use std::num::NonZeroUsize;
use std::sync::Arc;
use tipstaff_model::{Refusal, Rule};

/// A request as one upstream gets it.
pub(super) struct Outgoing<'s> {
    pub(super) upstream: &'s Upstream,
    /// The model, as it is called there; empty where none is asked.
    pub(super) model: String,
    pub(super) path: String,
    pub(super) body: Option<Bytes>,
}

/// An answer that can be passed on.
struct Arrived {
    received: Received,
    /// How it is framed; `None` for an error of the provider's own.
    framing: Option<Framing>,
    spellings: KeySpellings,
    /// Held until the answer ended.
    _seat: Seat,
}

/// An attempt that came to nothing, and what is said when it was the last.
struct Failed {
    trouble: Trouble,
    answer: Last,
}

enum Last {
    Own(OwnAnswer),
    Theirs(Box<Arrived>),
}

impl Failed {
    fn own(trouble: Trouble, answer: OwnAnswer) -> Self {
        Self { trouble, answer: Last::Own(answer) }
    }
}

/// Sends the request, again or elsewhere where that is safe, and passes the answer on as it comes.
pub(super) async fn pass_on(
    shared: &Arc<Shared>,
    asked: &Asked<'_>,
    mut exchange: Exchange,
    requests: Vec<Outgoing<'_>>,
    mut call: Option<Call>,
) -> Option<CountedStream> {
    let fields = exchange.head().fields.clone();
    let sending = send(shared, asked, &fields, &requests, &mut call);
    let arrived = match exchange.unless_gone(sending).await? {
        Ok(arrived) => arrived,
        Err(answer) => {
            drop(call);
            return say(exchange, answer).await;
        }
    };
    // The request's copies are not needed while the answer streams.
    drop(requests);
    let Arrived { received: Received { response, line }, framing, spellings, _seat } = arrived;
    if let (Some(call), Some(api), Some(framing)) = (&mut call, asked.api(), framing) {
        call.meter = Some(Meter::new(api, framing));
    }
    let (parts, body) = response.into_parts();
    let fields = headers::answer(&parts.headers, &spellings);
    exchange.begin(parts.status, fields.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
    match stream(shared, &mut exchange, body, KeyFilter::new(spellings), &mut call).await {
        Ended::Whole => {
            line.give_back();
            // Settles while the client reads the end.
            drop(call);
            drop(_seat);
            exchange.end().await
        }
        Ended::Cut => {
            if let Some(call) = &mut call {
                call.was_cut();
            }
            None
        }
        Ended::TooLong => {
            if let Some(call) = &mut call {
                call.was_cut();
            }
            shared.refuse(Refusal::new(
                Rule::LimitReached,
                asked.provider(),
                format!("the answer has more than {} bytes", shared.config.bounds.model_answer_bytes),
            ));
            None
        }
    }
}

/// Makes attempts until one is good or no other helps.
async fn send(
    shared: &Shared,
    asked: &Asked<'_>,
    fields: &[(String, String)],
    requests: &[Outgoing<'_>],
    call: &mut Option<Call>,
) -> Result<Arrived, OwnAnswer> {
    let bounds = retry_bounds(&shared.config.bounds);
    let mut attempts = Attempts::new(bounds, requests.len(), &*asked.config.entropy);
    let mut at = 0;
    loop {
        let Some(request) = requests.get(at) else {
            let text = "tipstaff: no upstream serves this";
            return Err(errors::error(asked.wire(), StatusCode::BAD_GATEWAY, "route-empty", text));
        };
        let failed = match attempt(shared, asked, fields, request, call).await {
            Ok(arrived) => return Ok(arrived),
            Err(failed) => failed,
        };
        match attempts.after(failed.trouble) {
            Next::Ask(next, pause) => {
                // Its connection and its place are free while it is waited.
                drop(failed);
                tokio::time::sleep(pause).await;
                at = next;
            }
            Next::GiveUp => {
                return match failed.answer {
                    Last::Own(answer) => Err(answer),
                    Last::Theirs(arrived) => Ok(*arrived),
                };
            }
        }
    }
}

const fn retry_bounds(bounds: &Bounds) -> RetryBounds {
    RetryBounds {
        attempts: bounds.model_attempts,
        time: bounds.model_retry_time,
        longest_pause: bounds.model_retry_pause,
        first_pause: bounds.model_first_pause,
    }
}

fn lane_bounds(bounds: &Bounds, upstream: &Upstream) -> LaneBounds {
    LaneBounds {
        calls: upstream.calls.map_or(bounds.upstream_calls, NonZeroUsize::get),
        queue: bounds.upstream_queue,
        wait: bounds.upstream_wait,
        failures: bounds.upstream_failures,
        rest: bounds.upstream_rest,
    }
}

/// One attempt at one upstream.
async fn attempt(
    shared: &Shared,
    asked: &Asked<'_>,
    fields: &[(String, String)],
    outgoing: &Outgoing<'_>,
    call: &mut Option<Call>,
) -> Result<Arrived, Failed> {
    let (bounds, upstream) = (&shared.config.bounds, outgoing.upstream);
    let (wire, name) = (upstream.wire(), upstream.provider());
    let credential = upstream.credential().await.map_err(|problem| {
        let refusal = shared.refuse(Refusal::new(Rule::KeyNotAccepted, name, problem.to_string()));
        let text = format!("tipstaff: {problem}");
        let answer = errors::error(wire, StatusCode::UNAUTHORIZED, refusal.rule.id(), &text);
        Failed::own(Trouble::Final, answer)
    })?;
    let lane = asked.config.client.lane(upstream);
    let seat =
        lane.enter(asked.run, lane_bounds(bounds, upstream)).await.map_err(|why| no_seat(upstream, why))?;
    let head = headers::request(upstream, fields, outgoing.body.is_some(), &credential);
    let request = written(outgoing, head, asked.route.method);
    let spellings = KeySpellings::of(credential.secrets());
    if let Some(call) = call {
        call.sending(name, &outgoing.model);
    }
    let received = match asked.config.client.send(upstream, request, bounds).await {
        Ok(received) => received,
        Err(problem) => {
            seat.went(false);
            let (trouble, status, text) = match problem {
                NoAnswer::Unreachable(why) => {
                    if let Some(call) = call {
                        call.was_not_sent();
                    }
                    (Trouble::Unreached, StatusCode::BAD_GATEWAY, format!("was not reached: {why}"))
                }
                NoAnswer::Broken => {
                    (Trouble::Final, StatusCode::BAD_GATEWAY, "broke the connection".to_owned())
                }
                NoAnswer::Slow => {
                    (Trouble::Final, StatusCode::GATEWAY_TIMEOUT, "gave no answer in time".to_owned())
                }
            };
            let text = format!("tipstaff: the upstream of {name} {text}");
            let answer = errors::error(wire, status, "upstream-unavailable", &text);
            return Err(Failed::own(trouble, OwnAnswer { is_final: false, ..answer }));
        }
    };
    let status = received.response.status();
    // An overloaded upstream, or one that limits, is alive.
    seat.went(!matches!(status.as_u16(), 500..=504));
    if let Some(call) = call {
        call.answered(status.as_u16());
    }
    let framing = judge(shared, upstream, &received.response).map_err(|answer| {
        if let Some(call) = call {
            call.was_no_answer();
        }
        Failed::own(Trouble::Final, answer)
    })?;
    let trouble = if framing.is_none() { trouble_of(status, received.response.headers()) } else { None };
    let arrived = Arrived { received, framing, spellings, _seat: seat };
    match trouble {
        None => Ok(arrived),
        Some(trouble) => Err(Failed { trouble, answer: Last::Theirs(Box::new(arrived)) }),
    }
}

/// What an error of the provider's says about another attempt; `None` where none can help.
fn trouble_of(status: StatusCode, headers: &HeaderMap) -> Option<Trouble> {
    let field = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if field("x-should-retry") == Some("false") || !matches!(status.as_u16(), 429 | 500..=599) {
        return None;
    }
    let pause = retry_after(field("retry-after"), field("retry-after-ms"));
    Some(Trouble::Status(status.as_u16(), pause))
}

/// There is no place at the upstream: at once, in the provider's own words for it.
fn no_seat(upstream: &Upstream, why: NoSeat) -> Failed {
    let (wire, name) = (upstream.wire(), upstream.provider());
    let (trouble, status, code, text, seconds) = match why {
        NoSeat::Resting(left) => {
            let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
            let text = format!(
                "the upstream of {name} failed again and again and is left alone; it is asked again in {seconds} s"
            );
            (Trouble::Resting, StatusCode::SERVICE_UNAVAILABLE, "upstream-resting", text, seconds)
        }
        NoSeat::Full => {
            let text = format!("too many calls wait for the upstream of {name}");
            (Trouble::Final, errors::overloaded(wire), "upstream-full", text, 5)
        }
    };
    let answer = errors::error(wire, status, code, &format!("tipstaff: {text}"));
    Failed::own(trouble, OwnAnswer { is_final: false, retry_after: Some(seconds.max(1)), ..answer })
}

/// The request itself.
fn written(outgoing: &Outgoing<'_>, head: HeaderMap, method: &str) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(outgoing.body.clone().unwrap_or_default()));
    *request.method_mut() = if method == "GET" { http::Method::GET } else { http::Method::POST };
    // The path has plain characters only.
    *request.uri_mut() = outgoing.path.parse().unwrap_or_default();
    *request.headers_mut() = head;
    request
}

/// Whether an answer is one of the provider's that can be passed on, and how it is framed. `None` for errors of the
/// provider's own, which are passed on as they are.
fn judge(
    shared: &Shared,
    upstream: &Upstream,
    response: &http::Response<Incoming>,
) -> Result<Option<Framing>, OwnAnswer> {
    let (wire, provider, status) = (upstream.wire(), upstream.provider(), response.status());
    let field = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let why = match (upstream.login_program(), upstream.has_key()) {
            (Some(program), _) => format!(
                "the login of {program} was not accepted by {provider} ({status}): run `{program}` once, which renews it"
            ),
            (None, true) => format!(
                "the key for {provider} was not accepted ({status}): set a valid one with `tipstaff secrets set`"
            ),
            (None, false) => {
                format!("{provider} asks for a key ({status}), and none is set: `tipstaff secrets set`")
            }
        };
        shared.refuse(Refusal::new(Rule::KeyNotAccepted, provider, &why));
        return Err(errors::error(wire, status, Rule::KeyNotAccepted.id(), &format!("tipstaff: {why}")));
    }
    let bad = |why: String| {
        let text = format!("tipstaff: the upstream of {provider} {why}; check its address");
        // No attempt helps as long as the address is wrong; clients try again after 5xx whatever they are told.
        Err(errors::error(wire, StatusCode::FAILED_DEPENDENCY, "upstream-answer", &text))
    };
    if status.is_redirection() || status.is_informational() {
        return bad(format!("answered {status}, and no redirect is followed"));
    }
    if !matches!(field("content-encoding"), "" | "identity") {
        return bad("answered in an encoding that it was not asked for".to_owned());
    }
    if !status.is_success() {
        return Ok(None);
    }
    let kind = field("content-type");
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/json" => Ok(Some(Framing::Json)),
        "text/event-stream" => Ok(Some(Framing::Events)),
        _ => bad("answered with a type that is neither JSON nor an event stream".to_owned()),
    }
}

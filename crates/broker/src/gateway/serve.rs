//! A model request from its head to the end of its answer.

use super::call::{Call, CallPlan, with_surcharges};
use super::client::{NoAnswer, Received};
use super::errors::{self, OwnAnswer};
use super::keys::{KeyFilter, KeySpellings};
use super::{BudgetEnd, GatewayConfig, Upstream, Wire, headers};
use crate::parse::meter::{Api, Framing, Meter};
use crate::parse::model_body::{BodyProblem, ModelBody};
use crate::parse::model_path::{self, Endpoint, ModelRoute};
use crate::server::exchange::{Exchange, NoBody};
use crate::server::{CountedStream, Shared};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tipstaff_model::id::RowId;
use tipstaff_model::{ChargeAnswer, MicroUsd, PromptCache, Refusal, Rule};

/// What an answer is taken to have at most where neither the request nor the price table says.
const USUAL_OUTPUT: u64 = 32_768;

/// The least answer that makes a call worth while, in tokens.
const LEAST_OUTPUT: u64 = 512;

/// How often money is asked for again while others hold it, if none of ours was settled meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Pieces of an answer are sent together up to this many bytes.
const TOGETHER: usize = 64 * 1024;

/// Serves one request. Gives the connection back when another one may come on it.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    target: &str,
    mut exchange: Exchange,
) -> Option<CountedStream> {
    exchange.be_patient(shared.config.bounds.request_time);
    let asked = match plan(shared, target, &exchange) {
        Ok(asked) => asked,
        Err(answer) => return say(exchange, answer).await,
    };
    let Ok(_permit) = shared.model_calls.try_acquire() else {
        let refusal = shared.refuse(Refusal::new(
            Rule::LimitReached,
            asked.upstream.provider(),
            format!("{} model calls are open already", shared.config.bounds.model_calls),
        ));
        let answer = errors::refused(asked.wire(), StatusCode::TOO_MANY_REQUESTS, &refusal);
        return say(exchange, OwnAnswer { retry_after: Some(1), is_final: false, ..answer }).await;
    };
    match &asked.route.endpoint {
        Endpoint::Models => {
            let request = asked.request(&exchange, None);
            pass_on(shared, &asked, exchange, request, None).await
        }
        Endpoint::Call { .. } | Endpoint::Count { .. } => with_body(shared, &asked, exchange).await,
    }
}

/// What is asked, of whom.
struct Asked<'s> {
    config: &'s GatewayConfig,
    upstream: &'s Upstream,
    route: ModelRoute,
}

impl Asked<'_> {
    const fn wire(&self) -> Wire {
        self.upstream.wire()
    }

    const fn api(&self) -> Option<Api> {
        match self.route.endpoint {
            Endpoint::Call { api, .. } | Endpoint::Count { api, .. } => Some(api),
            Endpoint::Models => None,
        }
    }

    /// The request as the upstream gets it: written anew.
    fn request(&self, exchange: &Exchange, body: Option<Vec<u8>>) -> Request<Full<Bytes>> {
        let mut target = self.upstream.path_for(&self.route.path);
        if !self.route.query.is_empty() {
            target.push('?');
            target.push_str(&self.route.query);
        }
        let headers = headers::request(self.upstream, &exchange.head().fields, body.is_some());
        let mut request = Request::new(Full::new(Bytes::from(body.unwrap_or_default())));
        *request.method_mut() =
            if self.route.method == "GET" { http::Method::GET } else { http::Method::POST };
        // The path has plain characters only.
        *request.uri_mut() = target.parse().unwrap_or_default();
        *request.headers_mut() = headers;
        request
    }
}

async fn say(exchange: Exchange, answer: OwnAnswer) -> Option<CountedStream> {
    let mut fields = vec![("content-type", "application/json".to_owned())];
    if answer.is_final {
        fields.push(("x-should-retry", "false".to_owned()));
    }
    if let Some(seconds) = answer.retry_after {
        fields.push(("retry-after", seconds.to_string()));
    }
    exchange.answer(answer.status, &fields, answer.body.as_bytes()).await
}

/// The shape of an error for a path whose provider is not configured: the one that its last part points to.
fn likely_wire(target: &str) -> Wire {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if path.contains("/v1/messages") {
        Wire::Anthropic
    } else if path.contains("/models/") && path.contains(':') {
        Wire::Gemini
    } else {
        Wire::OpenAi
    }
}

fn refuse(shared: &Shared, wire: Wire, refusal: Refusal) -> OwnAnswer {
    let refusal = shared.refuse(refusal);
    errors::refused(wire, errors::status_of(wire, refusal.rule), &refusal)
}

/// Finds out what is asked of whom, and whether the warrant has anything to say for it.
fn plan<'s>(shared: &'s Shared, target: &str, exchange: &Exchange) -> Result<Asked<'s>, OwnAnswer> {
    let head = exchange.head();
    let wire = likely_wire(target);
    let not_served = |wire, why: &str| {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        Err(refuse(
            shared,
            wire,
            Refusal::new(Rule::RequestNotServed, format!("{} {path}", head.method), why),
        ))
    };
    let Some((provider, rest)) = model_path::split(target) else {
        return not_served(wire, "the path has another spelling that means something else");
    };
    let warrant = shared.warrant.in_force().map_err(|refusal| refuse(shared, wire, refusal))?;
    if !warrant.models.iter().any(|grant| grant.provider == provider) {
        let why = format!("the warrant does not name the provider {provider}");
        return Err(refuse(shared, wire, Refusal::new(Rule::ModelNotGranted, provider, why)));
    }
    let Some(config) = &shared.config.gateway else {
        return not_served(wire, "models are not served in this run");
    };
    let Some(upstream) = config.upstreams.iter().find(|upstream| upstream.provider() == provider) else {
        return not_served(wire, "no upstream is configured for this provider");
    };
    let wire = upstream.wire();
    let Some(route) = model_path::parse(wire, rest) else {
        return not_served(wire, "this endpoint of the provider is not served");
    };
    if route.method != head.method {
        return not_served(wire, "the endpoint takes another method");
    }
    Ok(Asked { config, upstream, route })
}

/// Reads the body, asks the warrant, and goes on.
async fn with_body(shared: &Arc<Shared>, asked: &Asked<'_>, mut exchange: Exchange) -> Option<CountedStream> {
    let (bounds, wire) = (&shared.config.bounds, asked.wire());
    let announced = exchange.announced().unwrap_or(bounds.model_request_bytes);
    let units = u32::try_from(announced.min(bounds.model_request_bytes).div_ceil(1024)).unwrap_or(u32::MAX);
    let held = exchange.unless_gone(shared.model_memory.acquire_many(units)).await?.ok()?;
    let body = match exchange.read_body(bounds.model_request_bytes).await {
        Ok(body) => body,
        Err(NoBody::Gone) => return None,
        Err(problem) => return say(exchange, unread(shared, asked, problem)).await,
    };
    let (Some(api), model) = (
        asked.api(),
        match &asked.route.endpoint {
            Endpoint::Call { model, .. } | Endpoint::Count { model, .. } => model.as_deref(),
            Endpoint::Models => None,
        },
    ) else {
        return None;
    };
    let mut parsed = match ModelBody::parse(api, &body, model) {
        Ok(parsed) => parsed,
        Err(problem) => return say(exchange, misread(shared, asked, &problem)).await,
    };
    let permitted = shared.warrant.in_force().and_then(|warrant| {
        warrant.permits_model(asked.upstream.provider(), parsed.model())?;
        parsed
            .other_models()
            .iter()
            .try_for_each(|other| warrant.permits_model(asked.upstream.provider(), other))
    });
    if let Err(refusal) = permitted {
        return say(exchange, refuse(shared, wire, refusal)).await;
    }
    if matches!(asked.route.endpoint, Endpoint::Count { .. }) {
        let request = asked.request(&exchange, Some(parsed.write()));
        drop(parsed);
        drop((body, held));
        return pass_on(shared, asked, exchange, request, None).await;
    }
    let call = match exchange.unless_gone(pay(shared, asked, api, &mut parsed)).await? {
        Ok(call) => call,
        Err(answer) => return say(exchange, answer).await,
    };
    parsed.ask_for_usage();
    let request = asked.request(&exchange, Some(parsed.write()));
    // The request has its own copy; the room is for what waits.
    drop(parsed);
    drop((body, held));
    pass_on(shared, asked, exchange, request, Some(call)).await
}

fn unread(shared: &Shared, asked: &Asked<'_>, problem: NoBody) -> OwnAnswer {
    let wire = asked.wire();
    let (rule, status, why) = match problem {
        NoBody::Framing | NoBody::Gone => {
            (Rule::RequestAmbiguous, StatusCode::BAD_REQUEST, "its chunks can be read in two ways".to_owned())
        }
        NoBody::Encoding => (
            Rule::RequestNotServed,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "only gzip and identity are accepted as encodings".to_owned(),
        ),
        NoBody::TooLarge => (
            Rule::LimitReached,
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("it has more than {} bytes", shared.config.bounds.model_request_bytes),
        ),
    };
    let wanted = format!("a request for {}", asked.upstream.provider());
    errors::refused(wire, status, &shared.refuse(Refusal::new(rule, wanted, why)))
}

fn misread(shared: &Shared, asked: &Asked<'_>, problem: &BodyProblem) -> OwnAnswer {
    let wanted = format!("a request for {}", asked.upstream.provider());
    let rule = match problem {
        BodyProblem::NotServed(..) => Rule::RequestNotServed,
        _ => Rule::RequestAmbiguous,
    };
    let refusal = shared.refuse(Refusal::new(rule, wanted, problem.to_string()));
    // Not 404: the endpoint is there.
    errors::refused(asked.wire(), StatusCode::BAD_REQUEST, &refusal)
}

/// What a call may cost.
struct Estimate {
    most: MicroUsd,
    least: MicroUsd,
    worst_input: u64,
    likely_input: u64,
    cache: PromptCache,
    output: u64,
    answers: u64,
}

/// Reserves the money for a call, and lowers the request to what was granted.
async fn pay(
    shared: &Arc<Shared>,
    asked: &Asked<'_>,
    api: Api,
    body: &mut ModelBody<'_>,
) -> Result<Call, OwnAnswer> {
    let (bounds, config, wire) = (&shared.config.bounds, asked.config, asked.wire());
    let provider = asked.upstream.provider();
    let quote = config.prices.quote(provider, body.model());
    let surcharges = body.surcharges();
    let price = with_surcharges(quote.price, &surcharges);
    let known = if price.max_output == 0 { USUAL_OUTPUT } else { price.max_output };
    let output = body.most_output().ok().flatten().unwrap_or(known);
    let answers = body.answers().unwrap_or(1);
    let thinking = body.thinking().unwrap_or(0);
    let (worst_input, likely_input) = (body.worst_input(price.context), body.likely_input(price.context));
    let cache = body.cache();
    let least_output = output.min(thinking.saturating_add(LEAST_OUTPUT)).saturating_mul(answers);
    let estimate = Estimate {
        most: price.most(worst_input, output.saturating_mul(answers), cache),
        least: price.most(likely_input, least_output, cache),
        worst_input,
        likely_input,
        cache,
        output,
        answers,
    };
    let plan = CallPlan {
        id: RowId::new(&*config.clock, &*config.entropy),
        provider: provider.to_owned(),
        model: body.model().to_owned(),
        price,
        surcharges,
        price_unknown: !quote.known,
        likely_input,
    };
    let control = Arc::clone(&shared.control);
    let (prices, clock) = (Arc::clone(&config.prices), Arc::clone(&config.clock));
    let mut call = Call::new(plan, control, prices, clock, Arc::clone(&shared.ledger)).ok_or_else(|| {
        errors::error(wire, StatusCode::SERVICE_UNAVAILABLE, "stopping", "tipstaff: the run is ending")
    })?;
    let deadline = tokio::time::Instant::now() + bounds.money_wait_time;
    loop {
        // Before the question, so that a settlement right after it is noticed.
        let settled = shared.ledger.settled.notified();
        let (again, answer) = call.reserve(estimate.most, estimate.least, bounds).await.map_err(|_| {
            let text = "tipstaff: no money could be reserved for the call, so it was not made; the control plane did not answer";
            OwnAnswer { is_final: false, ..errors::error(wire, StatusCode::SERVICE_UNAVAILABLE, "ledger-unavailable", text) }
        })?;
        call = again;
        match answer {
            ChargeAnswer::Granted(amount) => {
                let tokens = affordable(&price, &estimate, amount);
                if tokens < estimate.output {
                    body.set_most_output(tokens, prefers_old_name(asked.upstream));
                }
                call.most_output = tokens.saturating_mul(answers);
                return Ok(call);
            }
            ChargeAnswer::Exhausted { scope, limit, spent } => {
                let why = format!(
                    "the budget of the {scope} of {limit} is spent: {spent}, and this call needs {}",
                    estimate.least
                );
                let refusal = shared.refuse(Refusal::new(
                    Rule::BudgetExceeded,
                    format!("{provider}/{}", body.model()),
                    why,
                ));
                shared.budget_end.send_if_modified(|end| {
                    let first = end.is_none();
                    end.get_or_insert(BudgetEnd { scope, limit, spent });
                    first
                });
                return Err(errors::budget(wire, api == Api::Responses, &refusal));
            }
            ChargeAnswer::Wait if tokio::time::Instant::now() >= deadline => {
                let why = "the money that other calls have reserved was not free in time";
                let refusal = shared.refuse(Refusal::new(
                    Rule::LimitReached,
                    format!("{provider}/{}", body.model()),
                    why,
                ));
                let answer = errors::refused(wire, StatusCode::TOO_MANY_REQUESTS, &refusal);
                return Err(OwnAnswer { retry_after: Some(5), is_final: false, ..answer });
            }
            ChargeAnswer::Wait => {
                let _ = tokio::time::timeout(ASK_AGAIN, settled).await;
            }
        }
    }
}

/// The most tokens of one answer that the granted amount pays for.
fn affordable(price: &tipstaff_model::Price, estimate: &Estimate, amount: MicroUsd) -> u64 {
    if amount >= estimate.most {
        return estimate.output;
    }
    let within =
        |input| price.output_within(amount, input, estimate.cache).map(|tokens| tokens / estimate.answers);
    // The worst case of the prompt leaves room, or the likely one does, since the ledger granted at least that.
    let tokens = within(estimate.worst_input).filter(|tokens| *tokens >= LEAST_OUTPUT);
    tokens.or_else(|| within(estimate.likely_input)).unwrap_or(1).clamp(1, estimate.output)
}

/// Servers that are compatible with OpenAI's know the older name of the bound at least as often.
fn prefers_old_name(upstream: &Upstream) -> bool {
    !upstream.host.ends_with("openai.com")
}

/// Sends the request and passes the answer on as it comes.
async fn pass_on(
    shared: &Arc<Shared>,
    asked: &Asked<'_>,
    mut exchange: Exchange,
    request: Request<Full<Bytes>>,
    mut call: Option<Call>,
) -> Option<CountedStream> {
    let (bounds, wire) = (&shared.config.bounds, asked.wire());
    if let Some(call) = &mut call {
        call.sending();
    }
    let sending = asked.config.client.send(asked.upstream, request, bounds);
    let Received { response, line } = match exchange.unless_gone(sending).await? {
        Ok(received) => received,
        Err(problem) => {
            let provider = asked.upstream.provider();
            let (status, text) = match problem {
                NoAnswer::Unreachable(why) => {
                    if let Some(call) = &mut call {
                        call.was_not_sent();
                    }
                    (
                        StatusCode::BAD_GATEWAY,
                        format!("tipstaff: the upstream of {provider} was not reached: {why}"),
                    )
                }
                NoAnswer::Broken => (
                    StatusCode::BAD_GATEWAY,
                    format!("tipstaff: the upstream of {provider} broke the connection"),
                ),
                NoAnswer::Slow => (
                    StatusCode::GATEWAY_TIMEOUT,
                    format!("tipstaff: the upstream of {provider} gave no answer in time"),
                ),
            };
            drop(call);
            let answer = errors::error(wire, status, "upstream-unavailable", &text);
            return say(exchange, OwnAnswer { is_final: false, ..answer }).await;
        }
    };
    let status = response.status();
    if let Some(call) = &mut call {
        call.answered(status.as_u16());
    }
    let framing = match judge(shared, asked, &response) {
        Ok(framing) => framing,
        Err(answer) => {
            if let Some(call) = &mut call {
                call.was_no_answer();
            }
            drop((call, response, line));
            return say(exchange, answer).await;
        }
    };
    if let (Some(call), Some(api), Some(framing)) = (&mut call, asked.api(), framing) {
        call.meter = Some(Meter::new(api, framing));
    }
    let spellings = KeySpellings::of(asked.upstream.key().map(|key| key.expose().as_str()));
    let (parts, body) = response.into_parts();
    let fields = headers::answer(&parts.headers, &spellings);
    exchange.begin(status, fields.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
    match stream(shared, &mut exchange, body, KeyFilter::new(spellings), &mut call).await {
        Ended::Whole => {
            line.give_back();
            // Settles while the client reads the end.
            drop(call);
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
                asked.upstream.provider(),
                format!("the answer has more than {} bytes", bounds.model_answer_bytes),
            ));
            None
        }
    }
}

/// Whether an answer is one of the provider's that can be passed on, and how it is framed. `None` for errors of the
/// provider's own, which are passed on as they are.
fn judge(
    shared: &Shared,
    asked: &Asked<'_>,
    response: &http::Response<Incoming>,
) -> Result<Option<Framing>, OwnAnswer> {
    let (wire, provider, status) = (asked.wire(), asked.upstream.provider(), response.status());
    let field = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let why = if asked.upstream.has_key() {
            format!(
                "the key for {provider} was not accepted ({status}): set a valid one with `tipstaff secrets set`"
            )
        } else {
            format!("{provider} asks for a key ({status}), and none is set: `tipstaff secrets set`")
        };
        shared.refuse(Refusal::new(Rule::KeyNotAccepted, provider, &why));
        return Err(errors::error(wire, status, Rule::KeyNotAccepted.id(), &format!("tipstaff: {why}")));
    }
    let bad = |why: String| {
        let text = format!("tipstaff: the upstream of {provider} {why}; check its address");
        let answer = errors::error(wire, StatusCode::BAD_GATEWAY, "upstream-answer", &text);
        Err(OwnAnswer { is_final: false, ..answer })
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

enum Ended {
    Whole,
    Cut,
    TooLong,
}

/// Passes the pieces on as they come; what comes at once is sent at once.
async fn stream(
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

//! The body of a model request: read, understood, held against the warrant, and written anew for each upstream.

use super::Upstream;
use super::deliver::{Outgoing, pass_on};
use super::errors::{self, OwnAnswer};
use super::pay::pay;
use super::plan::Asked;
use super::route::{Way, ways};
use super::serve::{refuse, say};
use crate::parse::model_body::{BodyProblem, ModelBody};
use crate::parse::model_path::Endpoint;
use crate::server::exchange::{Exchange, NoBody};
use crate::server::{CountedStream, Shared};
use bytes::Bytes;
use http::StatusCode;
use std::sync::Arc;
use tipstaff_model::{Refusal, Rule};

/// Reads the body, asks the warrant, and goes on.
pub(super) async fn with_body(
    shared: &Arc<Shared>,
    asked: &Asked<'_>,
    mut exchange: Exchange,
) -> Option<CountedStream> {
    let (bounds, wire) = (&shared.config.bounds, asked.wire());
    let announced = exchange.announced().unwrap_or(bounds.model_request_bytes);
    let units = u32::try_from(announced.min(bounds.model_request_bytes).div_ceil(1024)).unwrap_or(u32::MAX);
    let held = exchange.unless_gone(shared.model_memory.acquire_many(units)).await?.ok()?;
    let body = match exchange.read_body(bounds.model_request_bytes).await {
        Ok(body) => body,
        Err(NoBody::Gone) => return None,
        Err(problem) => return say(exchange, unread(shared, asked, problem)).await,
    };
    let (body, noted) = shared.secrets.take_out(body, asked.provider());
    for refusal in noted {
        shared.refuse(refusal);
    }
    let (Some(api), model) = (
        asked.api(),
        match &asked.route.endpoint {
            Endpoint::Call { model, .. } | Endpoint::Count { model, .. } => model.as_deref(),
            Endpoint::Models => None,
        },
    ) else {
        return None;
    };
    let parsed = match ModelBody::parse(api, &body, model) {
        Ok(parsed) => parsed,
        Err(problem) => return say(exchange, misread(shared, asked, &problem)).await,
    };
    let permitted = shared.warrant.in_force().and_then(|warrant| {
        warrant.permits_model(asked.provider(), parsed.model())?;
        parsed.other_models().iter().try_for_each(|other| warrant.permits_model(asked.provider(), other))
    });
    if let Err(refusal) = permitted {
        return say(exchange, refuse(shared, wire, refusal)).await;
    }
    let ways = ways(asked.config, asked.upstream, parsed.model());
    if ways.is_empty() {
        let text = format!(
            "tipstaff: the route of {}/{} leads to no upstream that serves it; `tipstaff models list` shows the routes",
            asked.provider(),
            parsed.model()
        );
        return say(exchange, errors::error(wire, StatusCode::BAD_GATEWAY, "route-empty", &text)).await;
    }
    if matches!(asked.route.endpoint, Endpoint::Count { .. }) {
        let requests = ways.iter().take(1).map(|way| write(asked, *way, &parsed, None)).collect();
        drop(parsed);
        drop((body, held));
        return pass_on(shared, asked, exchange, requests, None).await;
    }
    let (call, limit) = match exchange.unless_gone(pay(shared, asked, api, &ways, &parsed)).await? {
        Ok(paid) => paid,
        Err(answer) => return say(exchange, answer).await,
    };
    let requests = ways.iter().map(|way| write(asked, *way, &parsed, limit)).collect();
    // The requests have their own copies; the room is for what waits.
    drop(parsed);
    drop((body, held));
    pass_on(shared, asked, exchange, requests, Some(call)).await
}

/// The request as one upstream gets it: written anew.
fn write<'s>(asked: &Asked<'s>, way: Way<'s>, parsed: &ModelBody<'_>, limit: Option<u64>) -> Outgoing<'s> {
    let mut body = parsed.clone();
    if let Some(tokens) = limit {
        body.set_most_output(tokens, prefers_old_name(way.upstream));
    }
    if matches!(asked.route.endpoint, Endpoint::Call { .. }) {
        body.ask_for_usage();
    }
    if let Some(name) = way.rename {
        body.set_model(name);
    }
    Outgoing {
        upstream: way.upstream,
        model: way.rename.unwrap_or(parsed.model()).to_owned(),
        path: asked.path(way.upstream, way.rename),
        body: Some(Bytes::from(body.write())),
    }
}

/// Servers that are compatible with OpenAI's know the older name of the bound at least as often.
fn prefers_old_name(upstream: &Upstream) -> bool {
    !upstream.host.ends_with("openai.com")
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
    let wanted = format!("a request for {}", asked.provider());
    errors::refused(wire, status, &shared.refuse(Refusal::new(rule, wanted, why)))
}

fn misread(shared: &Shared, asked: &Asked<'_>, problem: &BodyProblem) -> OwnAnswer {
    let wanted = format!("a request for {}", asked.provider());
    let rule = match problem {
        BodyProblem::NotServed(..) => Rule::RequestNotServed,
        _ => Rule::RequestAmbiguous,
    };
    let refusal = shared.refuse(Refusal::new(rule, wanted, problem.to_string()));
    // Not 404: the endpoint is there.
    errors::refused(asked.wire(), StatusCode::BAD_REQUEST, &refusal)
}

//! A model request, from its head to whoever serves it.

use super::Wire;
use super::ask::with_body;
use super::deliver::{Outgoing, pass_on};
use super::errors::{self, OwnAnswer};
use super::plan::plan;
use crate::parse::model_path::Endpoint;
use crate::server::exchange::Exchange;
use crate::server::{CountedStream, Shared};
use http::StatusCode;
use std::sync::Arc;
use tipstaff_model::{Refusal, Rule};

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
            asked.provider(),
            format!("{} model calls are open already", shared.config.bounds.model_calls),
        ));
        let answer = errors::refused(asked.wire(), StatusCode::TOO_MANY_REQUESTS, &refusal);
        return say(exchange, OwnAnswer { retry_after: Some(1), is_final: false, ..answer }).await;
    };
    match &asked.route.endpoint {
        Endpoint::Models => {
            let request = Outgoing {
                upstream: asked.lister(),
                model: String::new(),
                path: asked.path(asked.lister(), None),
                body: None,
            };
            pass_on(shared, &asked, exchange, vec![request], None).await
        }
        Endpoint::Call { .. } | Endpoint::Count { .. } => with_body(shared, &asked, exchange).await,
    }
}

/// Answers in our own words.
pub(super) async fn say(exchange: Exchange, answer: OwnAnswer) -> Option<CountedStream> {
    let mut fields = vec![("content-type", "application/json".to_owned())];
    if answer.is_final {
        fields.push(("x-should-retry", "false".to_owned()));
    }
    if let Some(seconds) = answer.retry_after {
        fields.push(("retry-after", seconds.to_string()));
    }
    exchange.answer(answer.status, &fields, answer.body.as_bytes()).await
}

/// Refuses in the provider's shape.
pub(super) fn refuse(shared: &Shared, wire: Wire, refusal: Refusal) -> OwnAnswer {
    let refusal = shared.refuse(refusal);
    errors::refused(wire, errors::status_of(wire, refusal.rule), &refusal)
}

//! The money for a call, before it is made.

use super::BudgetEnd;
use super::call::{Call, CallPlan, with_surcharges};
use super::errors::{self, OwnAnswer};
use super::plan::Asked;
use super::price::quote;
use super::route::Way;
use crate::parse::meter::Api;
use crate::parse::model_body::ModelBody;
use crate::server::Shared;
use http::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use tipstaff_model::id::RowId;
use tipstaff_model::{ChargeAnswer, MicroUsd, PromptCache, Quote, Refusal, Rule};

/// What an answer is taken to have at most where neither the request nor the price table says.
const USUAL_OUTPUT: u64 = 32_768;

/// The least answer that makes a call worth while, in tokens.
const LEAST_OUTPUT: u64 = 512;

/// How often money is asked for again while others hold it, if none of ours was settled meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(250);

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

/// Reserves the money for a call, once for whichever upstream serves it. Gives the most tokens of one answer where it
/// must be lower than what was asked for.
pub(super) async fn pay(
    shared: &Arc<Shared>,
    asked: &Asked<'_>,
    api: Api,
    ways: &[Way<'_>],
    body: &ModelBody<'_>,
) -> Result<(Call, Option<u64>), OwnAnswer> {
    let (bounds, config, wire) = (&shared.config.bounds, asked.config, asked.wire());
    let provider = asked.provider();
    let surcharges = body.surcharges();
    // The dearest of those who may serve.
    let quotes = ways.iter().map(|way| {
        let served = way.rename.unwrap_or(body.model());
        quote(&*config.prices, provider, way.upstream.provider(), served)
    });
    let quoted =
        quotes.reduce(|a, b| Quote { price: a.price.dearest(&b.price), known: a.known && b.known, ..a });
    let quoted = quoted.unwrap_or_else(|| config.prices.quote(provider, body.model()));
    let price = with_surcharges(quoted.price, &surcharges);
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
        price_unknown: !quoted.known,
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
                call.most_output = tokens.saturating_mul(answers);
                return Ok((call, (tokens < estimate.output).then_some(tokens)));
            }
            ChargeAnswer::Exhausted { scope, limit, spent } => {
                let why = format!(
                    "the budget of the {} of {limit} is spent: {spent}, and this call needs {}",
                    scope.in_words(),
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

//! Errors in the provider's own shape, so that an agent's client library understands them.

use super::Wire;
use http::StatusCode;
use serde_json::json;
use tipstaff_model::{Refusal, Rule};

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnAnswer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
    /// Seconds after which it may work.
    pub(crate) retry_after: Option<u64>,
    /// Whether another attempt can't help.
    pub(crate) is_final: bool,
}

/// An error in the shape of `wire`.
pub(crate) fn error(wire: Wire, status: StatusCode, code: &str, message: &str) -> OwnAnswer {
    let number = status.as_u16();
    let body = match wire {
        Wire::Anthropic => {
            let kind = match number {
                401 => "authentication_error",
                402 => "billing_error",
                403 => "permission_error",
                404 => "not_found_error",
                413 => "request_too_large",
                424 => "api_error",
                529 => "overloaded_error",
                429 => "rate_limit_error",
                400..=499 => "invalid_request_error",
                503 => "overloaded_error",
                504 => "timeout_error",
                _ => "api_error",
            };
            json!({"type": "error", "error": {"type": kind, "message": message}})
        }
        Wire::OpenAi => {
            let kind = match (number, code) {
                (_, "insufficient_quota") => "insufficient_quota",
                (401, _) => "authentication_error",
                (429, _) => "rate_limit_error",
                (424, _) => "server_error",
                (400..=499, _) => "invalid_request_error",
                _ => "server_error",
            };
            json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
        }
        Wire::Gemini => {
            let word = match number {
                400 | 405 | 413 | 415 => "INVALID_ARGUMENT",
                401 => "UNAUTHENTICATED",
                402 => "FAILED_PRECONDITION",
                403 => "PERMISSION_DENIED",
                404 => "NOT_FOUND",
                429 => "RESOURCE_EXHAUSTED",
                503 => "UNAVAILABLE",
                504 => "DEADLINE_EXCEEDED",
                _ => "INTERNAL",
            };
            json!({"error": {"code": number, "message": message, "status": word}})
        }
    };
    OwnAnswer { status, body: body.to_string(), retry_after: None, is_final: true }
}

/// How a provider says that it has too much to do.
pub(crate) fn overloaded(wire: Wire) -> StatusCode {
    match wire {
        Wire::Anthropic => StatusCode::from_u16(529).unwrap_or(StatusCode::TOO_MANY_REQUESTS),
        Wire::OpenAi | Wire::Gemini => StatusCode::TOO_MANY_REQUESTS,
    }
}

/// A refusal in the shape of `wire`.
pub(crate) fn refused(wire: Wire, status: StatusCode, refusal: &Refusal) -> OwnAnswer {
    let code = match (wire, refusal.rule) {
        (Wire::OpenAi, Rule::ModelNotGranted) => "model_not_found",
        (_, rule) => rule.id(),
    };
    let message =
        format!("tipstaff refused {}: {refusal}; next: {}", refusal.wanted, refusal.rule.next_step());
    error(wire, status, code, &message)
}

/// The end of a budget, as each client stops at once: 429 with `insufficient_quota` for Responses, where other codes are
/// tried again; 402 for the others, where 429 is.
pub(crate) fn budget(wire: Wire, is_responses: bool, refusal: &Refusal) -> OwnAnswer {
    let message =
        format!("tipstaff refused {}: {refusal}; next: {}", refusal.wanted, refusal.rule.next_step());
    match wire {
        Wire::OpenAi if is_responses => {
            error(wire, StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", &message)
        }
        Wire::OpenAi => error(wire, StatusCode::PAYMENT_REQUIRED, "insufficient_quota", &message),
        _ => error(wire, StatusCode::PAYMENT_REQUIRED, refusal.rule.id(), &message),
    }
}

/// The status of a refusal of `wire`. Clients of OpenAI's Responses try 403 and 404 again, but not 400.
pub(crate) const fn status_of(wire: Wire, rule: Rule) -> StatusCode {
    match (wire, rule) {
        (Wire::OpenAi, Rule::ModelNotGranted | Rule::RequestAmbiguous) | (_, Rule::RequestAmbiguous) => {
            StatusCode::BAD_REQUEST
        }
        (_, Rule::RequestNotServed) => StatusCode::NOT_FOUND,
        (_, Rule::LimitReached) => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::FORBIDDEN,
    }
}

//! Plain HTTP to a granted host, passed on request by request.
//!
//! Promises: what goes out is written anew from what was understood, never the bytes as they came; `Host` is the granted
//! host; what concerns one connection only stays on it.

use super::dial::{NoDial, dial};
use crate::parse::head::Authority;
use crate::server::respond::{self, Answer, answer, full};
use crate::server::{Shared, wants_json};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;

/// Fields that concern one connection only (RFC 9110 §7.6.1), and those that only a proxy reads.
const HOP_BY_HOP: [&str; 10] = [
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
];

/// Passes one request on.
pub(crate) async fn forward(
    shared: Arc<Shared>,
    wanted: Authority,
    path: String,
    request: Request<Incoming>,
) -> Answer {
    let json = wants_json(&request);
    let gateway = |why: &str| {
        answer(StatusCode::BAD_GATEWAY, "text/plain; charset=utf-8", full(format!("tipstaff: {why}\n")))
    };
    let dialled = match dial(&shared, &wanted).await {
        Ok(dialled) => dialled,
        Err(NoDial::Refused(refusal)) => {
            let refusal = shared.refuse(refusal);
            return respond::refused(&refusal, respond::status_of(refusal.rule), json);
        }
        Err(NoDial::Unreachable(why)) => return gateway(&why),
    };
    let Some(request) = rewritten(request, &wanted, &path) else {
        return gateway("the request has no form that can be passed on");
    };
    let upstream = TokioIo::new(dialled.stream);
    let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(upstream).await else {
        return gateway(&format!("{wanted} does not speak HTTP"));
    };
    // Ends when the answer's body is read or dropped.
    tokio::spawn(connection);
    match sender.send_request(request).await {
        Ok(response) => {
            let (mut parts, body) = response.into_parts();
            strip(&mut parts.headers);
            parts.version = http::Version::HTTP_11;
            http::Response::from_parts(parts, body.map_err(io::Error::other).boxed_unsync())
        }
        Err(_) => gateway(&format!("{wanted} gave no answer")),
    }
}

fn rewritten(request: Request<Incoming>, wanted: &Authority, path: &str) -> Option<Request<Incoming>> {
    let (mut parts, body) = request.into_parts();
    parts.uri = path.parse::<Uri>().ok()?;
    strip(&mut parts.headers);
    let host = if wanted.port == 80 { wanted.host.clone() } else { wanted.to_string() };
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

//! Tunnels: `CONNECT host:port`.
//!
//! Promises: a tunnel carries TLS, and its client hello names the granted host; before that is known the host gets a
//! connection and not one byte. Afterwards the bytes go through as they are.

use super::admission::{Admission, Wanted};
use super::dial::{NoDial, dial};
use super::hello::{self, NoHello};
use super::tally::Metered;
use crate::inspected;
use crate::parse::client_hello::HelloError;
use crate::parse::head::Authority;
use crate::server::{CountedStream, Shared, respond, say};
use bytes::BytesMut;
use http::StatusCode;
use std::sync::Arc;
use tipstaff_model::Refusal;
use tokio::io::AsyncWriteExt;

/// Bytes on their way to the host and from it. Most tunnels fetch; memory that is never filled is never had.
const PIECES: (usize, usize) = (64 * 1024, 256 * 1024);

/// Opens a tunnel, or says why not. It ends with either side, with the warrant, or after a time without a byte.
pub(crate) async fn connect(shared: &Arc<Shared>, client: CountedStream, place: &Authority) {
    if shared.warrant.warrant().must_inspect(&place.host, place.port) {
        return inspected::serve(shared, client, place).await;
    }
    let refused = |refusal: Refusal| {
        let refusal = shared.refuse(refusal);
        (respond::status_of(refusal.rule), respond::refusal_text(&refusal))
    };
    let admission = match Admission::ask(shared, Wanted::tunnel(place.clone())) {
        Ok(admission) => admission,
        Err(refusal) => {
            let (status, text) = refused(refusal);
            return say(client, status, &text).await;
        }
    };
    let carried = async {
        let upstream = match dial(shared, place).await {
            Ok(upstream) => upstream,
            Err(NoDial::Refused(refusal)) => {
                let (status, text) = refused(refusal);
                return say(client, status, &text).await;
            }
            Err(NoDial::Unreachable(why)) => {
                return say(client, StatusCode::BAD_GATEWAY, &format!("tipstaff: {why}\n")).await;
            }
        };
        carry(shared, client, upstream, place).await;
    };
    tokio::select! {
        () = carried => {}
        // What it carried is dropped where it stands.
        refusal = admission.withdrawn() => {
            shared.refuse(refusal);
        }
    }
}

/// Carries one tunnel from the answer to `CONNECT` to its end.
pub(super) async fn carry(
    shared: &Shared,
    mut client: CountedStream,
    mut upstream: Metered,
    place: &Authority,
) {
    let bounds = shared.config.bounds;
    if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_err() {
        return;
    }
    let mut first = BytesMut::with_capacity(2048);
    if let Err(why) = hello::read(&mut client, &place.host, bounds.hello_time, &mut first).await {
        let Some(refusal) = why.refusal(&place.to_string(), bounds.hello_time) else { return };
        let refusal = shared.refuse(refusal);
        // Some clients send plain HTTP through a tunnel: they get to read why not.
        let speaks_http = first.first().is_some_and(u8::is_ascii_uppercase);
        return if speaks_http && matches!(why, NoHello::Bad(HelloError::NotTls)) {
            say(client, respond::status_of(refusal.rule), &respond::refusal_text(&refusal)).await;
        } else {
            hello::tell(client, &why).await;
        };
    }
    client.set_idle_limit(bounds.tunnel_idle_time);
    if upstream.write_all(&first).await.is_ok() {
        drop(first);
        // Both ends are told by the close; there is nobody else to tell.
        let _ =
            tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, PIECES.0, PIECES.1).await;
    }
    if let Err(refusal) = shared.egress.check_bytes(&place.to_string()) {
        shared.refuse(refusal);
    }
}

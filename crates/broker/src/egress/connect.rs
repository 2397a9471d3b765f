//! Tunnels: `CONNECT host:port`.

use super::dial::{NoDial, dial};
use crate::parse::head::Authority;
use crate::server::{CountedStream, Shared, respond, say};
use http::StatusCode;
use tokio::io::AsyncWriteExt;

/// Opens a tunnel, or says why not. It ends with either side, with the warrant, or after a time without a byte.
pub(crate) async fn connect(shared: &Shared, mut client: CountedStream, wanted: &Authority) {
    let mut upstream = match dial(shared, wanted).await {
        Ok(dialled) => dialled,
        Err(NoDial::Refused(refusal)) => {
            let refusal = shared.refuse(refusal);
            return say(client, respond::status_of(refusal.rule), &respond::refusal_text(&refusal)).await;
        }
        Err(NoDial::Unreachable(why)) => {
            return say(client, StatusCode::BAD_GATEWAY, &format!("tipstaff: {why}\n")).await;
        }
    };
    client.set_idle_limit(shared.config.bounds.tunnel_idle_time);
    if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok() {
        // Both ends are told by the close; there is nobody else to tell.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream.stream).await;
    }
}

//! Answers as HTTP/1.1 writes them (RFC 9112), wherever the broker writes one by itself.

use bytes::BytesMut;
use http::StatusCode;

/// The end of a chunked body, without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes the status line and fields. What says how long the body is, and the empty line, are still to come.
pub(crate) fn head<'f>(
    out: &mut BytesMut,
    status: StatusCode,
    fields: impl Iterator<Item = (&'f str, &'f [u8])>,
) {
    let reason = status.canonical_reason().unwrap_or("Answer");
    out.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).as_bytes());
    for (name, value) in fields {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}

/// Writes a piece of a chunked body. An empty piece would end the body, so it is left out.
pub(crate) fn chunk(out: &mut BytesMut, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}

//! A request's body: streamed, decompressed when it says so, bounded before it is kept.

use bytes::Bytes;
use flate2::write::GzDecoder;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::io::Write;

/// Compressed bytes that are inflated at once. A byte inflates to at most about a thousand.
const SLICE: usize = 8 * 1024;

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The connection broke, or the framing is wrong.
    Broken,
    /// An encoding other than gzip, or bytes that are no gzip.
    Encoding,
    /// More than the bound.
    TooLarge,
}

/// A body being read.
pub(crate) struct BodyReader {
    incoming: Incoming,
    gunzip: Option<GzDecoder<Vec<u8>>>,
    pending: Bytes,
    ended: bool,
}

impl BodyReader {
    pub(crate) fn new(headers: &HeaderMap, incoming: Incoming) -> Result<Self, BodyError> {
        let gunzip = match headers.get(header::CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
            None | Some(b"identity") => None,
            Some(b"gzip" | b"x-gzip") => Some(GzDecoder::new(Vec::new())),
            Some(_) => return Err(BodyError::Encoding),
        };
        Ok(Self { incoming, gunzip, pending: Bytes::new(), ended: false })
    }

    /// The next bytes, decompressed; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            if self.pending.is_empty() {
                match self.incoming.frame().await {
                    Some(Ok(frame)) => {
                        // Trailers carry nothing for us.
                        if let Ok(data) = frame.into_data() {
                            self.pending = data;
                        }
                        continue;
                    }
                    Some(Err(_)) => return Err(BodyError::Broken),
                    None => return self.finish(),
                }
            }
            let Some(gunzip) = &mut self.gunzip else {
                return Ok(Some(std::mem::take(&mut self.pending)));
            };
            let slice = self.pending.split_to(self.pending.len().min(SLICE));
            gunzip.write_all(&slice).map_err(|_| BodyError::Encoding)?;
            let out = std::mem::take(gunzip.get_mut());
            if !out.is_empty() {
                return Ok(Some(Bytes::from(out)));
            }
        }
    }

    fn finish(&mut self) -> Result<Option<Bytes>, BodyError> {
        if self.ended {
            return Ok(None);
        }
        self.ended = true;
        let Some(gunzip) = &mut self.gunzip else { return Ok(None) };
        // Checks the length and the sum at the end of the stream.
        gunzip.try_finish().map_err(|_| BodyError::Encoding)?;
        let out = std::mem::take(gunzip.get_mut());
        Ok((!out.is_empty()).then(|| Bytes::from(out)))
    }

    /// The whole body, when it has at most `limit` bytes.
    pub(crate) async fn collect(mut self, limit: u64) -> Result<Vec<u8>, BodyError> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.next().await? {
            let length = u64::try_from(whole.len() + chunk.len()).unwrap_or(u64::MAX);
            if length > limit {
                return Err(BodyError::TooLarge);
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }

    /// Reads the rest away, so that the client gets to read the answer, up to `limit` bytes as they came. Nothing is
    /// decompressed any more.
    pub(crate) async fn drain(&mut self, limit: u64) {
        let mut left = limit;
        while let Some(Ok(frame)) = self.incoming.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
            if left == 0 {
                break;
            }
        }
    }
}

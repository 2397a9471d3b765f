//! The first words on a tunnel: a TLS client hello that names the host that the tunnel was opened for.

use crate::parse::client_hello::{self, ClientHello, HelloError};
use crate::server::CountedStream;
use bytes::BytesMut;
use std::time::Duration;
use tipstaff_model::{Refusal, Rule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Why a tunnel carries nothing.
#[derive(Debug)]
pub(crate) enum NoHello {
    /// The client went away before it said anything that is wrong.
    Gone,
    /// It took too long.
    Slow,
    /// It is no hello that is accepted.
    Bad(HelloError),
    /// It wants another server: this one.
    Other(String),
}

impl NoHello {
    /// The refusal, where there is one, for a tunnel to `place`.
    pub(crate) fn refusal(&self, place: &str, bound: Duration) -> Option<Refusal> {
        let (rule, why) = match self {
            Self::Gone => return None,
            Self::Slow => {
                (Rule::TlsUnreadable, format!("no TLS client hello came within {} s", bound.as_secs()))
            }
            Self::Bad(error) if error.is_about_the_name() => (Rule::TlsNameMismatch, error.to_string()),
            Self::Bad(error) => (Rule::TlsUnreadable, error.to_string()),
            Self::Other(name) => (Rule::TlsNameMismatch, format!("the TLS client hello names {name}")),
        };
        Some(Refusal::new(rule, place, why))
    }

    /// What the client is told in its own language: a TLS alert (RFC 8446 §6), where it speaks TLS.
    pub(crate) const fn alert(&self) -> Option<[u8; 7]> {
        let description = match self {
            Self::Other(_) | Self::Bad(HelloError::NoName | HelloError::SeveralNames) => 112,
            Self::Bad(HelloError::Encrypted | HelloError::Split | HelloError::TooLarge) => 40,
            Self::Bad(HelloError::Malformed) => 50,
            Self::Gone | Self::Slow | Self::Bad(HelloError::NotTls) => return None,
        };
        Some([21, 3, 3, 0, 2, 2, description])
    }
}

/// Reads the hello of a client that has `time` for it, and what came right after it, into `first`. Nothing is judged by
/// its beginning: the hello is whole and names `host`, or it is refused.
pub(crate) async fn read(
    client: &mut CountedStream,
    host: &str,
    time: Duration,
    first: &mut BytesMut,
) -> Result<ClientHello, NoHello> {
    let reading = async {
        loop {
            match client_hello::read(first) {
                Ok(Some(hello)) if hello.server_name == host => return Ok(hello),
                Ok(Some(hello)) => return Err(NoHello::Other(hello.server_name)),
                Ok(None) => {}
                Err(error) => return Err(NoHello::Bad(error)),
            }
            match client.read_buf(first).await {
                Ok(0) | Err(_) => return Err(NoHello::Gone),
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(time, reading).await.unwrap_or(Err(NoHello::Slow))
}

/// Tells the client why its tunnel ends.
pub(crate) async fn tell(mut client: CountedStream, why: &NoHello) {
    if let Some(alert) = why.alert()
        && client.write_all(&alert).await.is_ok()
    {
        client.linger().await;
    }
}

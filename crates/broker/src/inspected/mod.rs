//! Inspected hosts: TLS ends here, each request is judged by method, path and tool, and secrets are put in on the way
//! out.
//!
//! Promises: nothing of a request goes out before it was judged; what goes out is written anew from what was understood,
//! over TLS that the host was verified for; a secret's value never goes into the sandbox; bodies are passed on and never
//! kept or logged.

mod answer;
mod authority;
mod fields;
mod judge;
mod reader;
mod secrets;
mod serve;
#[cfg(test)]
mod simulated;
mod trust;
mod upstream;
mod writer;

pub use authority::RunAuthority;
pub use secrets::{HeldSecret, LONGEST_VALUE, SHORTEST_VALUE, SecretPlace};
pub(crate) use secrets::{Place, Secrets};
pub(crate) use serve::serve;
pub use trust::UpstreamTrust;

use std::sync::Arc;

/// What a broker is given to serve inspected hosts.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The run's own authority.
    pub authority: Arc<RunAuthority>,
    /// Whom the broker trusts to be a host.
    pub trust: UpstreamTrust,
    /// The secrets of the run.
    pub secrets: Vec<HeldSecret>,
}

/// What keeps hosts from being inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InspectionError {
    /// A certificate could not be made.
    #[error(
        "the run's certificates can't be made: check the machine's clock, and report this if it is right"
    )]
    Certificate,
    /// The operator's additional authorities can't be read.
    #[error("the additional certificate authorities can't be read: give PEM with at least one certificate")]
    ExtraRoots,
    /// TLS could not be set up.
    #[error("TLS could not be set up: report this")]
    Tls,
}

impl InspectionError {
    /// The stable word for this kind of error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Certificate => "inspection-certificate",
            Self::ExtraRoots => "extra-roots-unreadable",
            Self::Tls => "inspection-tls",
        }
    }
}

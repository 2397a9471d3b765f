#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod attest;
mod bitmap;
mod broker;
pub mod checkout;
mod egress;
pub mod error;
pub mod gateway;
pub mod git;
mod history;
mod inspect;
mod inspected;
pub mod limits;
mod lock;
pub mod mirror;
pub mod pack;
pub mod parse;
pub mod provenance;
pub mod publish;
pub mod quarantine;
mod server;
pub mod source;
pub mod workspace;

pub use attest::{Attestation, Attested};
pub use broker::{Broker, BrokerConfig, BrokerHandle, BrokerReport, PushRecord, ServedRepository};
pub use checkout::{Checkout, CheckoutLimits, Checkouts, SharedPlaces, Symlinks};
pub use egress::{Resolver, SystemResolver};
pub use error::BrokerError;
pub use gateway::{
    BudgetEnd, GatewayClient, GatewayConfig, Hop, ListError, Login, LoginError, LoginToken, Pricer, Route,
    Upstream, UpstreamError, Wire,
};
pub use git::Git;
pub use inspect::{Dirty, SourceInfo};
pub use inspected::{
    HeldSecret, Inspection, InspectionError, LONGEST_VALUE, RunAuthority, SHORTEST_VALUE, SecretPlace,
    UpstreamTrust,
};
pub use limits::Bounds;
pub use mirror::{CommitEntry, FileAt, Mirror, MirrorLimits, Mirrors, Pinned};
pub use provenance::{CommitEvidence, CommitReader};
pub use publish::{
    CredentialSource, GitCredential, PublishError, Publisher, Publishing, Pushed, UpstreamLook,
};
pub use quarantine::{Color, CommitSummary, DiffStat, Quarantine};
pub use source::{LocalSource, PlainHttp, RemoteSource, Source};
pub use workspace::{RunFiles, RunRepository, remote_url};

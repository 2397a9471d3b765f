#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod app_api;
pub mod model_server;
pub mod postgres;
pub mod scripted_tls;
pub mod tls_server;

pub use app_api::AppApi;
pub use model_server::{
    ModelServer, ModelServerConfig, RecordedRequest, RequestKind, SIDE_USAGE, script_prompt,
};
pub use postgres::{Durability, HarnessError, PostgresServer};
pub use scripted_tls::{ScriptedTls, SeenRequest, TlsAnswer};
pub use tls_server::{TlsRequest, TlsServer};

//! One story per module, told on both engines.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests attack the store from outside: raw statements, other processes"
)]

mod support;

mod audit;
mod faults;
mod lease;
mod plans;
mod processes;
mod ring;
mod schema;
mod signals;
mod statements;
mod story;
mod two_orgs;
mod walls;

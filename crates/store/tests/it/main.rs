//! One story per module, told on both engines.

#![expect(
    clippy::disallowed_methods,
    reason = "tests attack the store from outside: raw statements, other processes and their environment"
)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails may end where it stands"
)]

mod support;

mod approval;
mod audit;
mod budget;
mod cancel;
mod charge;
mod faults;
mod lease;
mod plans;
mod processes;
mod retention;
mod ring;
mod schema;
mod signals;
mod statements;
mod steering;
mod story;
mod two_orgs;
mod under;
mod walls;

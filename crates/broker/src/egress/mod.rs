//! The way to hosts that the warrant names.
//!
//! Promises: the name is turned into an address here, the address that was checked is the one that is dialled, and a
//! private, local or metadata address is never reached whatever a name says.

mod address;
mod connect;
mod dial;
mod forward;
mod resolver;

pub(crate) use connect::connect;
pub(crate) use forward::forward;
pub use resolver::{Resolver, SystemResolver};

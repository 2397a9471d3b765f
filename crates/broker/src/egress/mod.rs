//! The way to hosts that the warrant names.

mod address;
mod resolver;

pub(crate) use address::is_forbidden;
pub use resolver::{Resolver, SystemResolver};

//! The integration tests of the model: what holds for every warrant and every chain of narrowings.

mod live;
mod narrowing;

#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod postgres;

pub use postgres::{Durability, HarnessError, PostgresServer};

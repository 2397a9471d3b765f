#![doc = include_str!("../README.md")]

pub mod arrows;
pub mod claims;
pub mod code;
pub mod docs;
pub mod limits;
pub mod reference;
pub mod tidy;
pub mod tree;

//! Attacks and journeys against the real broker with a real git over a real loopback listener.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected shall fail at that very line"
)]

mod checkout;
mod docs;
mod egress;
mod egress_support;
mod explain;
mod floods;
mod gateway;
mod gateway_attacks;
mod gateway_money;
mod gateway_support;
mod gateway_tls;
mod gateway_ways;
mod mirror;
mod poisoned;
mod push_bombs;
mod push_rules;
mod pushing;
mod quick;
mod reading;
mod requests;
mod smuggling;
mod support;
mod tunnel;

//! Tests of the engines from outside: what they make of a request, and of what real agents printed.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail as tests do"
)]

mod acp;
mod claude_attended;
mod codex_attended;
mod hostile;
mod invocation;
mod plain;
mod transcripts;

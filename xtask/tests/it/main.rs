//! The checks of the house, as tests; and each check shown something broken.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails the test")]

mod house;
mod power;

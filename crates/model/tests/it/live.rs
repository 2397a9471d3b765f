//! Expiry by two clocks, and revocation.

use crate::narrowing::base_warrant;
use std::sync::Arc;
use tipstaff_model::{FixedClock, LiveWarrant, Rule};

fn live(lifetime_ms: i64) -> (Arc<FixedClock>, LiveWarrant) {
    let clock = Arc::new(FixedClock::at(1_000_000));
    let mut warrant = base_warrant();
    warrant.issued_at = 1_000_000;
    warrant.expires_at = 1_000_000 + lifetime_ms;
    (clock.clone(), LiveWarrant::new(warrant, clock))
}

#[test]
fn it_expires_on_the_millisecond() {
    let (clock, warrant) = live(5_000);
    clock.advance(4_999);
    assert!(warrant.in_force().is_ok());
    clock.advance(1);
    assert_eq!(warrant.in_force().unwrap_err().rule, Rule::WarrantExpired);
}

#[test]
fn turning_the_wall_clock_back_gives_no_second_more() {
    let (clock, warrant) = live(5_000);
    clock.advance(3_000);
    clock.set_wall(0);
    assert!(warrant.left_ms() <= 2_000);
    clock.advance(2_000);
    assert_eq!(warrant.in_force().unwrap_err().rule, Rule::WarrantExpired);
}

#[test]
fn a_wall_clock_beyond_the_expiry_ends_it() {
    let (clock, warrant) = live(5_000);
    clock.set_wall(1_005_000);
    assert_eq!(warrant.in_force().unwrap_err().rule, Rule::WarrantExpired);
}

#[test]
fn a_warrant_put_in_force_late_gets_only_what_is_left() {
    let clock = Arc::new(FixedClock::at(1_000_000));
    let mut warrant = base_warrant();
    warrant.issued_at = 990_000;
    warrant.expires_at = 1_002_000;
    let live = LiveWarrant::new(warrant, clock.clone());
    assert_eq!(live.left_ms(), 2_000);
}

#[test]
fn revocation_is_at_once_and_for_good() {
    let (_, warrant) = live(5_000);
    warrant.revoke();
    assert_eq!(warrant.in_force().unwrap_err().rule, Rule::WarrantRevoked);
    assert_eq!(warrant.left_ms(), 0);
}

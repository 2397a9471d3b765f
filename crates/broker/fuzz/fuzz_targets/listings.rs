//! What git prints about changes: no path is made up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::{changes, numstat};

fuzz_target!(|bytes: &[u8]| {
    for file in numstat::parse(bytes).unwrap_or_default() {
        assert!(!file.path.is_empty() && !file.path.contains(&0));
    }
    for change in changes::parse(bytes).unwrap_or_default() {
        assert!(!change.path.is_empty() && !change.path.contains(&0));
    }
});

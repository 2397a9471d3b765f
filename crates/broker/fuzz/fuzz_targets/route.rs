//! Paths: one spelling each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::route;

fuzz_target!(|target: &str| {
    if let Ok(route) = route::parse(target) {
        assert!(target.starts_with(&format!("/git/{}.git/", route.repository())));
        // Dots within a name are fine; a part made of them is not.
        assert!(target.split('/').skip(1).all(|part| !matches!(part, "" | "." | "..")));
        assert!(!target.contains(['%', '\\']));
    }
});

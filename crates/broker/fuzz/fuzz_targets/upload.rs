//! The body of an upload-pack request: every want is an id.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::upload;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = upload::parse(bytes) {
        for want in &request.wants {
            assert!(matches!(want.len(), 40 | 64) && want.bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }
});

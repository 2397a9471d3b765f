//! Paths of URLs: no reading of an accepted one climbs or hides a part.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::url_path::read;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(path) = read(text) {
        assert!(text.starts_with(path.as_sent()));
        for reading in path.readings() {
            assert!(reading.starts_with('/') && !reading.contains("//") && !reading.contains(['\\', ';', '\0']));
            assert!(!reading.split('/').any(|part| part == "." || part == ".."));
        }
    }
});

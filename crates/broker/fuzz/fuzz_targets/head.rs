//! Request heads: what is accepted has one host and one length, whoever reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::head;

fuzz_target!(|bytes: &[u8]| {
    let _ = head::end(bytes);
    if head::parse(bytes).is_ok() {
        assert_eq!(head::end(bytes), Ok(Some(bytes.len())));
        let text = std::str::from_utf8(bytes).unwrap().to_ascii_lowercase();
        let count = |name: &str| text.split("\r\n").skip(1).filter(|line| line.starts_with(name)).count();
        assert_eq!(count("host:"), 1);
        assert!(count("content-length:") + count("transfer-encoding:") <= 1);
    }
});

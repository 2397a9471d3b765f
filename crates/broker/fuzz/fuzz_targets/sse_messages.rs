//! Events of Anthropic's Messages.
#![no_main]

mod metering;

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::meter::{Api, Framing};

fuzz_target!(|input: &[u8]| metering::check(Api::Messages, Framing::Events, input));

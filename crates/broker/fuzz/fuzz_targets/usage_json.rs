//! The usage in whole answers, of every provider.
#![no_main]

mod metering;

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::meter::{Api, Framing};

fuzz_target!(|input: &[u8]| {
    for api in [Api::Messages, Api::Responses, Api::ChatCompletions, Api::GenerateContent] {
        metering::check(api, Framing::Json, input);
    }
});

//! Events of OpenAI's chat completions.
#![no_main]

mod metering;

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::meter::{Api, Framing};

fuzz_target!(|input: &[u8]| metering::check(Api::ChatCompletions, Framing::Events, input));

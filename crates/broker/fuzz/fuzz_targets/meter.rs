//! Answers of providers: the same whatever the chunking, in bounded memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::meter::{Api, Framing, Meter};

fuzz_target!(|input: (u8, bool, u8, &[u8])| {
    let (api, json, size, bytes) = input;
    let apis = [Api::Messages, Api::Responses, Api::ChatCompletions, Api::GenerateContent];
    let api = apis[usize::from(api) % apis.len()];
    let framing = if json { Framing::Json } else { Framing::Events };
    let (mut whole, mut pieces) = (Meter::new(api, framing), Meter::new(api, framing));
    whole.push(bytes);
    for piece in bytes.chunks(usize::from(size).max(1)) {
        pieces.push(piece);
    }
    assert_eq!(whole.usage(100, 1_000), pieces.usage(100, 1_000));
    assert_eq!((whole.model(), whole.is_finished()), (pieces.model(), pieces.is_finished()));
});

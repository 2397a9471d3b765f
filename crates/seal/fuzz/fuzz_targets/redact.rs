//! Any bytes in any chunks: the same output, and never the registered value. The first byte says how long chunks are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_seal::{Redactor, Secret};

const VALUE: &str = "hunter22";

fuzz_target!(|bytes: &[u8]| {
    let Some((length, bytes)) = bytes.split_first() else { return };
    let redactor = Redactor::new().with_values([&Secret::new(VALUE.to_owned())]);
    let run = |length: usize| {
        let (mut stream, mut out) = (redactor.stream(), Vec::new());
        bytes.chunks(length).for_each(|chunk| stream.push(chunk, &mut out));
        stream.finish(&mut out);
        out
    };
    let whole = run(bytes.len().max(1));
    assert_eq!(run(usize::from(*length).max(1)), whole);
    assert!(!whole.windows(VALUE.len()).any(|part| part == VALUE.as_bytes()));
});

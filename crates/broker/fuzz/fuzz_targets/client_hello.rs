//! TLS client hellos: what is accepted names one server, and no beginning of it is judged otherwise.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::client_hello::{LARGEST, RECORD_HEAD, read};

fuzz_target!(|bytes: &[u8]| {
    let found = read(bytes);
    if let Ok(Some(hello)) = &found {
        assert!(hello.length <= bytes.len() && hello.length <= RECORD_HEAD + LARGEST);
        let whole = &bytes[..hello.length];
        assert_eq!(read(whole).as_ref(), Ok(&Some(hello.clone())));
        assert_eq!(read(&whole[..whole.len() - 1]), Ok(None));
        // The name stands there as it is.
        let text = whole.to_ascii_lowercase();
        let name = hello.server_name.as_bytes();
        assert!(!name.is_empty() && text.windows(name.len()).any(|part| part == name));
    }
    if bytes.len() >= RECORD_HEAD + LARGEST {
        assert_ne!(found, Ok(None));
    }
});

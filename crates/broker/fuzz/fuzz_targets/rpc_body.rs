//! Bodies of calls of tools: what is passed on says the same as what was judged, and no call goes unnamed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::rpc_body::{MOST_CALLS, RpcBody, TOOLS_CALL};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(body) = RpcBody::parse(bytes) {
        assert!((1..=MOST_CALLS).contains(&body.messages.len()));
        for message in &body.messages {
            assert!(message.method.as_deref() != Some(TOOLS_CALL) || message.tool.is_some());
        }
        let again = RpcBody::parse(&body.text).expect("what is written can be read");
        assert_eq!((&again.messages, again.batch), (&body.messages, body.batch));
        assert_eq!(again.text, body.text, "what is written is written once");
    }
});

use super::*;
use proptest::prelude::*;

const MESSAGES: &str = concat!(
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"claude-x-1\",\"usage\":",
    "{\"input_tokens\":10,\"cache_creation_input_tokens\":30,\"cache_read_input_tokens\":5,\"cache_creation\":",
    "{\"ephemeral_5m_input_tokens\":10,\"ephemeral_1h_input_tokens\":20},\"output_tokens\":1}}}\n\n",
    ": a comment\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":",
    "\"say \\\"usage\\\": {\\\"output_tokens\\\": 999999}\"}}\n\n",
    "data: {\"type\":\"content_block_start\",\"content_block\":{\"input\":{\"usage\":{\"output_tokens\":777777}}}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":20}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":42}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);
const RESPONSES: &str = concat!(
    "data: {\"type\":\"response.created\",\"response\":{\"model\":\"gpt-x\",\"usage\":null}}\n\n",
    "data: {\"type\":\"response.output_text.delta\",\"delta\":\"hello\"}\n\n",
    "data: {\"type\":\"response.completed\",\"response\":{\"model\":\"gpt-x\",\"usage\":{\"input_tokens\":100,",
    "\"input_tokens_details\":{\"cached_tokens\":60},\"output_tokens\":50,\"output_tokens_details\":{\"reasoning_tokens\":40},",
    "\"total_tokens\":150}}}\n\n",
);
const CHAT: &str = concat!(
    "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\r\n\r\n",
    "data: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":14,",
    "\"prompt_tokens_details\":{\"cached_tokens\":2}}}\r\n\r\ndata: [DONE]\r\n\r\n",
);
const GEMINI: &str = concat!(
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}],\"modelVersion\":\"gemini-x\",",
    "\"usageMetadata\":{\"promptTokenCount\":50,\"candidatesTokenCount\":1,\"thoughtsTokenCount\":9}}\n\n",
    "data: {\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":50,",
    "\"candidatesTokenCount\":4,\"thoughtsTokenCount\":9,\"cachedContentTokenCount\":20,\"totalTokenCount\":63}}\n\n",
);

fn metered(api: Api, framing: Framing, text: &[u8], size: usize) -> (Metered, Option<String>, bool) {
    let mut meter = Meter::new(api, framing);
    for chunk in text.chunks(size.max(1)) {
        meter.push(chunk);
    }
    (meter.usage(1_000, u64::MAX), meter.model().map(str::to_owned), meter.is_finished())
}

fn cases() -> Vec<(Api, &'static str, Usage)> {
    let usage = |input, cache_read, cache_write, cache_write_1h, output, reasoning| Usage {
        input,
        cache_read,
        cache_write,
        cache_write_1h,
        output,
        reasoning,
    };
    vec![
        (Api::Messages, MESSAGES, usage(10, 5, 10, 20, 42, 0)),
        (Api::Responses, RESPONSES, usage(40, 60, 0, 0, 50, 40)),
        // The total shows four more tokens than prompt and completion: reasoning that was not counted.
        (Api::ChatCompletions, CHAT, usage(5, 2, 0, 0, 7, 0)),
        (Api::GenerateContent, GEMINI, usage(30, 20, 0, 0, 13, 9)),
    ]
}

#[test]
fn each_stream_is_metered_at_every_chunking() {
    for (api, text, usage) in cases() {
        for size in (1..40).chain([usize::MAX]) {
            let (found, model, finished) = metered(api, Framing::Events, text.as_bytes(), size);
            assert_eq!(found, Metered { usage, estimated: false }, "{api:?} by {size}");
            assert!(finished && model.is_some(), "{api:?} by {size}");
        }
    }
}

#[test]
fn whole_documents_are_metered() {
    let messages = r#"{"type":"message","model":"c","content":[{"type":"tool_use","input":{"usage":{"output_tokens":9}}}],
        "usage":{"input_tokens":3,"output_tokens":4}}"#;
    let (found, model, _) = metered(Api::Messages, Framing::Json, messages.as_bytes(), 7);
    assert_eq!((found.usage.input, found.usage.output, found.estimated), (3, 4, false));
    assert_eq!(model.as_deref(), Some("c"));
    let array = r#"[{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":1}},
        {"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":6}}]"#;
    let (found, _, _) = metered(Api::GenerateContent, Framing::Json, array.as_bytes(), 3);
    assert_eq!((found.usage.input, found.usage.output, found.estimated), (5, 6, false));
    let responses =
        r#"{"object":"response","model":"g","usage":{"input_tokens":8,"output_tokens":2,"total_tokens":10}}"#;
    assert_eq!(metered(Api::Responses, Framing::Json, responses.as_bytes(), 2).0.usage.input, 8);
}

#[test]
fn what_did_not_come_is_estimated_and_never_below_what_did() {
    let half = MESSAGES.split("event: message_delta").next().unwrap();
    let (found, _, finished) = metered(Api::Messages, Framing::Events, half.as_bytes(), 9);
    assert!(found.estimated && !finished);
    assert_eq!((found.usage.input, found.usage.cache_write_1h), (10, 20));
    assert!(found.usage.output >= 10, "{found:?}");
    let (found, _, _) = metered(
        Api::ChatCompletions,
        Framing::Events,
        b"data: {\"choices\":[{\"delta\":{\"content\":\"123456789\"}}]}\n\n",
        5,
    );
    assert_eq!((found.usage.input, found.usage.output, found.estimated), (1_000, 3, true));
}

proptest! {
    #[test]
    fn cutting_a_stream_anywhere_never_reports_more_than_all_of_it(which in 0_usize..4, at in 0_usize..2_000, size in 1_usize..64) {
        let (api, text, whole) = cases().swap_remove(which);
        let cut = text.as_bytes().get(..at.min(text.len())).unwrap_or_default();
        let (found, _, _) = metered(api, Framing::Events, cut, size);
        prop_assert!(found.usage.cache_read <= whole.cache_read && found.usage.cache_write_1h <= whole.cache_write_1h);
        // An estimate comes from the text, which is short here.
        prop_assert!(found.usage.output <= whole.output.max(20));
        prop_assert_eq!(&found, &metered(api, Framing::Events, cut, usize::MAX).0);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), which in 0_usize..4, json in any::<bool>()) {
        let api = cases().swap_remove(which).0;
        let framing = if json { Framing::Json } else { Framing::Events };
        let whole = metered(api, framing, &bytes, usize::MAX);
        prop_assert_eq!(metered(api, framing, &bytes, 1), whole);
    }
}

use super::*;
use proptest::prelude::*;

fn of(api: Api, text: &str) -> Result<ModelBody<'_>, BodyProblem> {
    ModelBody::parse(api, text.as_bytes(), None)
}

#[test]
fn what_another_reader_may_read_differently_is_refused() {
    for text in [
        r#"{"model":"a","model":"b"}"#,
        r#"{"model":"a","Model":"b"}"#,
        r#"{"model":"a","mod\u0065l":"b"}"#,
        r#"{"Model":"b"}"#,
        r#"{"model":"a","ｍodel":"b"}"#,
        r#"{"model":"a","max_tokens":1,"max_token\u017f":9}"#,
        r#"{"model":"a","max_tokens":1,"MAX_TOKENS":9}"#,
        r#"{"model":"a","max_tokens":1,"maxTokens":9}"#,
    ] {
        assert!(matches!(of(Api::Messages, text), Err(BodyProblem::Twice(_))), "{text}");
    }
    for text in [
        // Found by fuzzing.
        r#"{"generation_config":{"max_output_tokenS":99,"candkdate_count":2}}"#,
        r#"{"generationConfig":{"MaxOutputTokens":99}}"#,
        r#"{"generationConfig":{"maxoutputtokens":99}}"#,
        r#"{"generationConfig":{"candidatecount":99}}"#,
        r#"{"generationconfig":{}}"#,
    ] {
        let read = ModelBody::parse(Api::GenerateContent, text.as_bytes(), Some("one"));
        assert!(matches!(read, Err(BodyProblem::Twice(_))), "{text}");
    }
    for text in [r#"{"model":"a","maxTokens":9}"#, r#"{"model":"a","thinking":{"budgetTokens":9}}"#] {
        assert!(matches!(of(Api::Messages, text), Err(BodyProblem::Twice(_))), "{text}");
    }
    for text in ["", "[]", "{", "{}{}", "{\"model\":\"a\"} x", "\"a\"", "{'model':1}", "{\"model\":\"a\",}"] {
        assert_eq!(of(Api::Messages, text).unwrap_err(), BodyProblem::Form, "{text}");
    }
    for text in [
        "{}",
        r#"{"model":1}"#,
        r#"{"model":["a"]}"#,
        r#"{"model":""}"#,
        r#"{"model":"a b"}"#,
        r#"{"model":"a\u0000"}"#,
        r#"{"model":null}"#,
    ] {
        assert_eq!(of(Api::Messages, text).unwrap_err(), BodyProblem::Field("model"), "{text}");
    }
    for text in [
        r#"{"model":"a","max_tokens":-1}"#,
        r#"{"model":"a","max_tokens":"9"}"#,
        r#"{"model":"a","max_tokens":1e3}"#,
    ] {
        assert_eq!(of(Api::Messages, text).unwrap_err(), BodyProblem::Field("max_tokens"), "{text}");
    }
    let deep = format!("{{\"model\":\"a\",\"x\":{}{}}}", "[".repeat(300), "]".repeat(300));
    assert_eq!(of(Api::Messages, &deep).unwrap_err(), BodyProblem::Depth);
    assert!(ModelBody::parse(Api::GenerateContent, br#"{"model":"models/other"}"#, Some("one")).is_err());
    assert!(
        ModelBody::parse(
            Api::GenerateContent,
            br#"{"generationConfig":{},"generation_config":{}}"#,
            Some("one")
        )
        .is_err()
    );
}

#[test]
fn what_decides_about_money_has_one_spelling_within_other_fields_too() {
    for (api, text) in [
        // As found by fuzzing: lowered under its own name, it would stand twice for a lenient server.
        (Api::GenerateContent, r#"{"generation_config":{"max_output_tokenS":99,"candndate_count":2}}"#),
        (Api::GenerateContent, r#"{"generationConfig":{"max_outputTokens":99}}"#),
        (Api::GenerateContent, r#"{"generationConfig":{"CandidateCount":100}}"#),
        (Api::GenerateContent, r#"{"generationConfig":{"candidate_Count":100}}"#),
        (Api::Messages, r#"{"model":"a","thinking":{"type":"enabled","budgetTokens":9}}"#),
        (Api::ChatCompletions, r#"{"model":"a","stream":true,"stream_options":{"includeUsage":false}}"#),
        (Api::ChatCompletions, r#"{"model":"a","maxTokens":9}"#),
        (Api::ChatCompletions, r#"{"model":"a","serviceTier":"priority"}"#),
    ] {
        let path = (api == Api::GenerateContent).then_some("g");
        let refused = ModelBody::parse(api, text.as_bytes(), path);
        assert!(matches!(refused, Err(BodyProblem::Twice(_))), "{text}: {refused:?}");
    }
    // Both spellings of Gemini's own are its own.
    for text in [
        r#"{"generationConfig":{"maxOutputTokens":9,"candidateCount":1,"topK":1}}"#,
        r#"{"generation_config":{"max_output_tokens":9,"candidate_count":1,"top_k":1}}"#,
    ] {
        ModelBody::parse(Api::GenerateContent, text.as_bytes(), Some("g")).unwrap();
    }
}

#[test]
fn kept_prompts_and_other_models_are_refused() {
    for (api, text) in [
        (Api::Responses, r#"{"model":"a","previous_response_id":"resp_1"}"#),
        (Api::Responses, r#"{"model":"a","conversation":{"id":"c"}}"#),
        (Api::Responses, r#"{"model":"a","prompt":{"id":"p"}}"#),
        (Api::Responses, r#"{"model":"a","background":true}"#),
        (Api::ChatCompletions, r#"{"model":"a","models":["b"]}"#),
        (Api::ChatCompletions, r#"{"model":"a","fallbacks":["b"]}"#),
        (Api::Messages, r#"{"model":"a","mcp_servers":[{"url":"https://evil.test"}]}"#),
        (Api::Messages, r#"{"model":"a","container":"c"}"#),
    ] {
        assert!(matches!(of(api, text), Err(BodyProblem::NotServed(..))), "{text}");
    }
    of(Api::Responses, r#"{"model":"a","previous_response_id":null,"background":false,"prompt":null}"#)
        .unwrap();
    let body = of(Api::Messages, r#"{"model":"a","tools":[{"type":"advisor","model":"b"}]}"#).unwrap();
    assert_eq!(body.other_models(), ["b"]);
}

#[test]
fn the_answer_is_bounded_and_can_be_lowered() {
    let mut body = of(
        Api::Messages,
        r#"{"model":"a","max_tokens":9000,"thinking":{"type":"enabled","budget_tokens":4000}}"#,
    )
    .unwrap();
    assert_eq!((body.most_output().unwrap(), body.thinking().unwrap()), (Some(9000), 4000));
    body.set_most_output(5000, false);
    assert!(String::from_utf8(body.write()).unwrap().contains("\"max_tokens\":5000"));
    let mut body = of(
        Api::ChatCompletions,
        r#"{"model":"a","n":3,"max_tokens":7,"stream":true,"stream_options":{"x":1}}"#,
    )
    .unwrap();
    assert_eq!((body.most_output().unwrap(), body.answers().unwrap()), (Some(7), 3));
    body.set_most_output(5, false);
    body.ask_for_usage();
    assert_eq!(
        String::from_utf8(body.write()).unwrap(),
        r#"{"model":"a","n":3,"max_tokens":5,"stream":true,"stream_options":{"x":1,"include_usage":true}}"#
    );
    let mut body = ModelBody::parse(
        Api::GenerateContent,
        br#"{"generation_config":{"max_output_tokens":99,"candidate_count":2}}"#,
        Some("g"),
    )
    .unwrap();
    assert_eq!((body.most_output().unwrap(), body.answers().unwrap(), body.model()), (Some(99), 2, "g"));
    body.set_most_output(50, false);
    assert_eq!(
        String::from_utf8(body.write()).unwrap(),
        r#"{"generation_config":{"max_output_tokens":50,"candidate_count":2}}"#
    );
}

#[test]
fn the_prompt_is_bounded_by_its_bytes_or_by_the_context() {
    let plain = format!(r#"{{"model":"a","messages":"{}"}}"#, "word ".repeat(100));
    let body = of(Api::Messages, &plain).unwrap();
    assert_eq!(body.worst_input(0), plain.len() as u64);
    assert_eq!(body.worst_input(100), 100);
    assert!(body.likely_input(0) * 2 >= plain.len() as u64 && body.cache() == PromptCache::Minutes);
    for hiding in [
        r#"{"model":"a","x":{"file_id":"f"}}"#,
        r#"{"model":"a","x":{"fil\u0065_id":"f"}}"#,
        r#"{"model":"a","tools":[{"type":"web_search"}]}"#,
    ] {
        assert_eq!(of(Api::Messages, hiding).unwrap().worst_input(200_000), 200_000, "{hiding}");
    }
    let image = format!(r#"{{"model":"a","data":"{}"}}"#, "QUJD".repeat(100_000));
    let body = of(Api::Messages, &image).unwrap();
    assert!(body.likely_input(0) < 9_000 && body.worst_input(0) > 400_000);
    assert_eq!(of(Api::Messages, r#"{"model":"a","ttl":"1h"}"#).unwrap().cache(), PromptCache::Hour);
    assert_eq!(
        of(Api::Responses, r#"{"model":"a","service_tier":"priority"}"#).unwrap().surcharges(),
        [Surcharge::Priority]
    );
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(keys in prop::collection::btree_set("[a-z]{1,8}", 0..8), value in "[ -~]{0,20}") {
        let mut object = serde_json::Map::new();
        for key in &keys {
            object.insert(key.clone(), serde_json::json!({"k": [value.clone(), 1.5, null]}));
        }
        for name in DECIDING {
            object.remove(*name);
        }
        object.insert("model".into(), "m-1".into());
        let text = serde_json::Value::Object(object).to_string();
        let body = of(Api::Messages, &text).unwrap();
        let again: serde_json::Value = serde_json::from_slice(&body.write()).unwrap();
        prop_assert_eq!(again, serde_json::from_str::<serde_json::Value>(&text).unwrap());
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for api in [Api::Messages, Api::Responses, Api::ChatCompletions, Api::GenerateContent] {
            let _ = ModelBody::parse(api, &bytes, None);
        }
    }
}

//! The scripted model server: every language, every trouble.

use crate::support::{ALL, Api, LIMIT, Reply, ask, open, parse};
use serde_json::{Value, json};
use std::io::Read as _;
use std::net::TcpStream;
use std::time::Duration;
use tipstaff_testkit::model_server::{
    COUNTED_TOKENS, DEFAULT_USAGE, Ending, FINISHED, SIDE_USAGE, UNSCRIPTED,
};
use tipstaff_testkit::{ModelServer, ModelServerConfig, RequestKind, script_prompt};

const KEY: &str = "sk-real-0123456789";

fn start() -> ModelServer {
    ModelServer::start(ModelServerConfig { key: Some(KEY.to_owned()), ..Default::default() }).unwrap()
}

/// Asks with a script and the right key.
fn scripted(server: &ModelServer, api: Api, streaming: bool, steps: Value) -> Reply {
    let request = api.request(&script_prompt("Go.", steps), streaming);
    ask(server.address(), &api.head(streaming, KEY), &request.to_string())
}

/// Asks, reads until the mark has come, and leaves. A flood of unread bytes is no reason to stay either.
fn leave_after(mark: &str, server: &ModelServer, api: Api, streaming: bool, steps: &Value) -> String {
    let request = api.request(&script_prompt("Go.", steps.clone()), streaming);
    let mut stream = open(server.address(), &api.head(streaming, KEY), &request.to_string());
    let mut all = String::new();
    let mut piece = [0; 4096];
    while !all.contains(mark) {
        let length = stream.read(&mut piece).unwrap();
        assert_ne!(length, 0, "{all}");
        all.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    all
}

fn last_ending(server: &ModelServer) -> Ending {
    assert!(server.wait_until_idle(LIMIT), "{:?}", server.requests());
    server.requests().last().unwrap().ending
}

/// One snapshot per language: a text with everything, and a call, as a stream and whole.
fn show(api: Api) -> String {
    let server = start();
    let usage = json!({"input": 11, "cache_read": 22, "cache_write": 33, "cache_write_1h": 44, "output": 55,
        "reasoning": 5});
    let text = json!([{"text": "Hello, reader.", "think": "A thought.", "usage": usage}]);
    let call = json!([{"shell": "git status"}]);
    let patch = json!([{"write": {"path": "a.txt", "content": "a\nb\n"}}]);
    let mut shown = String::new();
    for (name, steps) in [("text", text), ("command", call), ("file", patch)] {
        for streaming in [true, false] {
            let reply = scripted(&server, api, streaming, steps.clone());
            assert!(reply.whole && reply.status == 200, "{reply:?}");
            let kind = reply.headers.lines().find(|line| line.starts_with("content-type")).unwrap();
            let body = if streaming { reply.body } else { format!("{:#}\n", reply.json()) };
            shown.push_str(&format!("==== {name}, {kind}\n{body}"));
        }
    }
    shown
}

#[test]
fn anthropic_messages() {
    insta::assert_snapshot!(show(Api::Messages));
}

#[test]
fn openai_responses() {
    insta::assert_snapshot!(show(Api::Responses));
}

#[test]
fn openai_chat_completions() {
    insta::assert_snapshot!(show(Api::Chat));
}

#[test]
fn gemini() {
    insta::assert_snapshot!(show(Api::Gemini));
}

#[test]
fn gemini_streams_an_array_to_those_who_ask_for_no_events() {
    let server = start();
    let prompt = script_prompt("Go.", json!([{"text": "Hello, reader."}]));
    let head =
        format!("POST /v1beta/models/m-1:streamGenerateContent HTTP/1.1\r\n{}", Api::Gemini.key_header(KEY));
    let reply = ask(server.address(), &head, &Api::Gemini.request(&prompt, true).to_string());
    assert!(reply.headers.contains("application/json"));
    let chunks = reply.json();
    let texts = chunks.as_array().unwrap().iter();
    let text: String =
        texts.map(|chunk| chunk["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(text, "Hello, reader.");
}

#[test]
fn chat_tells_tokens_of_a_stream_only_to_those_who_ask() {
    let server = start();
    let prompt = script_prompt("Go.", json!([{"text": "Hello."}]));
    let mut request = Api::Chat.request(&prompt, true);
    request["stream_options"] = Value::Null;
    let reply = ask(server.address(), &Api::Chat.head(true, KEY), &request.to_string());
    assert!(reply.body.ends_with("data: [DONE]\n\n") && !reply.body.contains("usage"), "{reply:?}");
}

#[test]
fn a_conversation_goes_from_step_to_step() {
    let steps =
        json!([{"shell": "git status"}, {"write": {"path": "a", "content": "b\n"}}, {"text": "Done."}]);
    for api in ALL {
        let server = start();
        let mut request = api.request(&script_prompt("Go.", steps.clone()), false);
        let mut deeds = Vec::new();
        for _ in 0..4 {
            let answer = ask(server.address(), &api.head(false, KEY), &request.to_string()).json();
            deeds.push(api.deed(&answer));
            request = api.follow(request, &answer);
        }
        assert!(deeds[0].contains("git status") && deeds[1].contains('b'), "{deeds:?}");
        assert_eq!(deeds[2..], ["Done.", FINISHED], "{api:?}");
        let kinds: Vec<_> = server.scripted_requests().into_iter().map(|request| request.kind).collect();
        assert_eq!(kinds, [0, 1, 2, 3].map(RequestKind::Scripted));
    }
}

#[test]
fn only_the_key_in_its_header_opens() {
    let steps = json!([{"text": "Hello."}]);
    for api in ALL {
        let server = start();
        let body = api.request(&script_prompt("Go.", steps.clone()), false).to_string();
        let path = api.path(false);
        let wrong = [
            "accept: */*".to_owned(),
            api.key_header("sk-real-012345678"),
            api.key_header(&KEY.to_uppercase()),
            api.key_header(""),
            "x-other-key: sk-other".to_owned(),
        ];
        for header in wrong {
            let reply = ask(server.address(), &format!("POST {path} HTTP/1.1\r\n{header}"), &body);
            assert_eq!(reply.status, 401, "{api:?} {header}");
            let shape = match api {
                Api::Messages => "/error/type",
                Api::Responses | Api::Chat => "/error/code",
                Api::Gemini => "/error/status",
            };
            let word = reply.json().pointer(shape).and_then(Value::as_str).unwrap().to_owned();
            assert!(["authentication_error", "invalid_api_key", "UNAUTHENTICATED"].contains(&word.as_str()));
        }
        assert!(!server.saw_key_elsewhere(), "{:?}", server.key_elsewhere());
        assert_eq!(ask(server.address(), &api.head(false, KEY), &body).status, 200);
        assert!(!server.saw_key_elsewhere(), "{:?}", server.key_elsewhere());
        let kinds: Vec<_> = server.requests().into_iter().map(|request| request.kind).collect();
        assert_eq!(kinds[..5], [const { RequestKind::Unauthorized }; 5]);
        assert_eq!(kinds[5], RequestKind::Scripted(0));
        // A longer one is another one, too.
        assert_eq!(ask(server.address(), &api.head(false, &format!("{KEY}0")), &body).status, 401);
    }
}

#[test]
fn a_server_without_a_key_takes_everybody() {
    let server = ModelServer::start(ModelServerConfig::default()).unwrap();
    let body = Api::Chat.request(&script_prompt("Go.", json!([{"text": "Hello."}])), false).to_string();
    let reply = ask(server.address(), "POST /v1/chat/completions HTTP/1.1\r\naccept: */*", &body);
    assert_eq!(Api::Chat.deed(&reply.json()), "Hello.");
}

#[test]
fn a_key_in_any_other_place_is_noticed() {
    let right = Api::Messages.key_header(KEY);
    let heads = [
        format!("POST /v1/messages?key={KEY} HTTP/1.1\r\n{right}"),
        format!("POST /v1/messages HTTP/1.1\r\n{right}\r\nauthorization: Bearer {KEY}"),
        format!("POST /v1/messages HTTP/1.1\r\n{right}\r\n{right}"),
        format!("POST /v1/messages HTTP/1.1\r\nx-api-key: Bearer {KEY}"),
        format!("GET /nowhere HTTP/1.1\r\n{right}"),
    ];
    for head in heads {
        let server = start();
        ask(server.address(), &head, "{}");
        assert_eq!(server.key_elsewhere().len(), 1, "{head}: {:?}", server.key_elsewhere());
    }
    let server = start();
    ask(server.address(), &format!("POST /v1/messages HTTP/1.1\r\n{right}"), &format!("no json {KEY}"));
    assert!(server.key_elsewhere().concat().ends_with("in the body"));
}

#[test]
fn everything_is_recorded() {
    let server = start();
    let request = Api::Messages.request(&script_prompt("Go.", json!([{"text": "Hello."}])), true);
    let body = request.to_string();
    let head = format!("POST /base/v1/messages?beta=true HTTP/1.1\r\nX-Api-Key: {KEY}\r\nanthropic-beta: b");
    ask(server.address(), &head, &body);
    assert_eq!(last_ending(&server), Ending::Complete);
    let recorded = server.requests().remove(0);
    assert_eq!((recorded.method.as_str(), recorded.path.as_str()), ("POST", "/base/v1/messages?beta=true"));
    assert_eq!(recorded.path_only(), "/base/v1/messages");
    assert_eq!((recorded.header("x-api-key"), recorded.header("anthropic-beta")), (Some(KEY), Some("b")));
    assert_eq!((recorded.body, recorded.body_length), (request, body.len()));
    assert_eq!((recorded.model.as_deref(), recorded.status), (Some("m-1"), 200));
}

#[test]
fn tokens_are_exactly_as_written_and_the_same_when_nothing_is() {
    let usage = json!({"input": 7, "cache_read": 3, "output": 5});
    for api in ALL {
        let server = start();
        let of =
            |answer: &Value| api.usage_places().map(|place| answer.pointer(place).and_then(Value::as_u64));
        let answer = scripted(&server, api, false, json!([{"text": "Hi.", "usage": usage}])).json();
        // Anthropic's input excludes what a cache held.
        let cached = if api == Api::Messages { 0 } else { 3 };
        assert_eq!(of(&answer), [Some(7 + cached), Some(3), Some(5)], "{api:?}");
        let answer = scripted(&server, api, false, json!([{"text": "Hi."}])).json();
        assert_eq!(of(&answer)[1..], [Some(DEFAULT_USAGE.cache_read), Some(DEFAULT_USAGE.output)]);
    }
}

#[test]
fn errors_are_worded_as_the_provider_words_them() {
    let server = start();
    let mut shown = String::new();
    for api in ALL {
        for status in [400, 401, 402, 403, 429, 500, 503, 529] {
            let reply = scripted(&server, api, true, json!([{"status": status}]));
            assert!(!reply.headers.contains("retry"), "{reply:?}");
            assert_eq!(reply.status, status);
            shown.push_str(&format!("{api:?} {status} {}\n", reply.json()));
        }
        let reply =
            scripted(&server, api, false, json!([{"fail": 429, "retry_after": 2, "should_retry": false}]));
        assert!(reply.headers.contains("retry-after: 2") && reply.headers.contains("x-should-retry: false"));
        shown.push_str(&format!("{api:?} 429 after 2 {}\n", reply.json()));
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn an_error_that_happens_twice_is_over_then() {
    let server = start();
    let steps = json!([{"status": 429, "times": 1}, {"status": 500, "times": 1}, {"text": "Hello."}]);
    let statuses: Vec<_> =
        (0..4).map(|_| scripted(&server, Api::Responses, true, steps.clone()).status).collect();
    assert_eq!(statuses, [429, 500, 200, 200]);
}

#[test]
fn silence_lasts_until_the_client_leaves() {
    for api in ALL {
        for streaming in [true, false] {
            let server = start();
            let first = leave_after("\r\n\r\n", &server, api, streaming, &json!([{"stall": "headers"}]));
            assert!(first.starts_with("HTTP/1.1 200 OK") && first.ends_with("\r\n\r\n"), "{first}");
            assert_eq!(last_ending(&server), Ending::ClientLeft);
            let first = leave_after("{", &server, api, streaming, &json!([{"stall": "middle"}]));
            assert!(first.starts_with("HTTP/1.1 200 OK"), "{first}");
            assert_eq!(last_ending(&server), Ending::ClientLeft);
        }
    }
}

#[test]
fn nothing_at_all_is_nothing_at_all() {
    for step in [json!([{"stall": "nothing"}]), json!([{"text": "Late.", "sleep": 3_600_000}])] {
        let server = start();
        let request = Api::Chat.request(&script_prompt("Go.", step), true).to_string();
        let mut stream = open(server.address(), &Api::Chat.head(true, KEY), &request);
        assert!(server.wait_for(LIMIT, |all| all.first().is_some_and(|first| first.is_scripted())));
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(stream.read(&mut [0; 1]).is_err());
        assert_eq!(server.requests()[0].ending, Ending::Underway);
        drop(stream);
        assert_eq!(last_ending(&server), Ending::ClientLeft);
        assert_eq!(server.requests()[0].status, 0);
    }
}

#[test]
fn half_an_answer_ends_in_the_middle() {
    let text = "This text is long enough that its middle is somewhere in it, and not in what frames it.";
    for api in ALL {
        for streaming in [true, false] {
            let server = start();
            let reply = scripted(&server, api, streaming, json!([{ "half": text }]));
            assert_eq!(reply.status, 200);
            assert!(!reply.whole && !reply.body.is_empty(), "{api:?} {reply:?}");
            assert_eq!(last_ending(&server), Ending::Broken);
            if streaming {
                let complete = scripted(&server, api, true, json!([{ "text": text }]));
                assert!(complete.body.starts_with(&reply.body));
                let half = complete.body.len() / 2;
                assert_eq!(reply.body.len(), half);
            }
        }
    }
}

#[test]
fn an_answer_that_is_broken_off_says_so_and_ends_properly() {
    let text = "This text is long enough that its middle is somewhere in it, and not in what frames it.";
    let mut shown = String::new();
    for api in ALL {
        let server = start();
        let reply = scripted(&server, api, true, json!([{ "break_off": text }]));
        assert!(reply.whole && reply.status == 200, "{reply:?}");
        let said = api.streamed_text(&reply);
        assert!(!said.is_empty() && text.starts_with(&said) && said != text, "{api:?} {said}");
        shown.push_str(&format!("{api:?} {}\n", reply.events().last().unwrap()));
        assert_eq!(scripted(&server, api, false, json!([{ "break_off": text }])).status, 529);
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn garbage_is_garbage() {
    for api in ALL {
        let server = start();
        for streaming in [true, false] {
            let reply = scripted(&server, api, streaming, json!([{"garbage": "html"}]));
            assert!(reply.headers.contains("content-type: text/html") && reply.body.starts_with("<!DOCTYPE"));
            let reply = scripted(&server, api, streaming, json!([{"garbage": "broken"}]));
            let expected = if streaming { "text/event-stream" } else { "application/json" };
            assert!(reply.headers.contains(expected) && reply.status == 200);
            let lines = reply.body.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
            let mut objects = lines.filter(|line| line.starts_with('{'));
            assert!(objects.all(|line| serde_json::from_str::<Value>(line).is_err()), "{reply:?}");
        }
        let answer = scripted(&server, api, false, json!([{"garbage": "usage"}])).json();
        assert_eq!(answer.pointer(api.usage_places()[0]), Some(&json!(-7)), "{api:?}");
        assert!(!api.deed(&answer).is_empty());
    }
}

#[test]
fn a_flood_is_long_and_valid() {
    for api in ALL {
        let server = start();
        for (streaming, shape) in [(true, "events"), (true, "line"), (false, "line")] {
            let flood = json!([{"flood": {"megabytes": 2, "shape": shape}}]);
            let reply = scripted(&server, api, streaming, flood);
            assert!(reply.whole, "{api:?} {shape}");
            assert!((2 << 20..3 << 20).contains(&reply.body.len()), "{api:?} {shape} {}", reply.body.len());
            let longest = reply.body.lines().map(str::len).max().unwrap();
            assert_eq!(longest >= 2 << 20, shape == "line");
            if streaming {
                assert!(api.streamed_text(&reply).len() > 1 << 20);
            } else {
                assert!(api.deed(&reply.json()).len() >= 2 << 20);
            }
        }
        // A petabyte, if one would read it: nothing is made before it is wanted.
        let flood = json!([{"flood": {"megabytes": 1_u64 << 30}}]);
        leave_after("xxxx", &server, api, true, &flood);
        assert_eq!(last_ending(&server), Ending::ClientLeft);
    }
}

#[test]
fn a_slow_stream_is_the_same_stream() {
    for api in ALL {
        let server = start();
        let quick = scripted(&server, api, true, json!([{"text": "Hello, reader."}]));
        let slow = scripted(&server, api, true, json!([{"text": "Hello, reader.", "slow": 1}]));
        assert_eq!(quick.body, slow.body);
        let first = leave_after(
            "data: ",
            &server,
            api,
            true,
            &json!([{"text": "Hello, patient reader.", "slow": 3_600_000}]),
        );
        assert!(!first.contains("reader"), "{first}");
        assert_eq!(last_ending(&server), Ending::ClientLeft);
    }
}

#[test]
fn an_echo_has_the_key_in_body_and_header_but_in_no_single_event() {
    for api in ALL {
        let server = start();
        let whole = scripted(&server, api, false, json!([{"echo_key": true}]));
        assert!(whole.body.contains(KEY) && whole.headers.contains(&format!("x-echoed-key: {KEY}")));
        let stream = scripted(&server, api, true, json!([{"echo_key": true}]));
        assert!(stream.headers.contains(KEY));
        assert!(api.streamed_text(&stream).contains(KEY));
        // Only Responses repeats the whole text at the end.
        assert_eq!(stream.body.contains(KEY), api == Api::Responses, "{api:?}");
    }
}

#[test]
fn requests_on_the_side_use_nothing_of_the_script() {
    let server = start();
    let prompt = script_prompt("Go.", json!([{"status": 500, "times": 1}, {"shell": "id"}]));
    let schema = json!({"type": "object", "properties": {"title": {"type": "string"},
        "next_speaker": {"type": "string", "enum": ["user", "model"]}, "score": {"type": "INTEGER"}}});
    let user = json!([{"role": "user", "content": prompt}]);
    let sides = [
        (Api::Messages, json!({"messages": user, "max_tokens": 1})),
        (Api::Messages, json!({"messages": user, "system": [{"type": "text", "text": "Write a title."}]})),
        (
            Api::Messages,
            json!({"messages": user,
            "output_config": {"format": {"type": "json_schema", "schema": schema}}}),
        ),
        (
            Api::Chat,
            json!({"messages": [{"role": "system", "content": "You are a title generator."},
            {"role": "user", "content": prompt}]}),
        ),
        (
            Api::Responses,
            json!({"input": prompt, "text": {"format": {"type": "json_schema", "schema": schema}}}),
        ),
        (
            Api::Gemini,
            json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}],
            "generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": schema}}),
        ),
    ];
    for (api, body) in sides {
        let reply = ask(server.address(), &api.head(false, KEY), &body.to_string());
        assert_eq!(reply.status, 200, "{body}");
        let answer = reply.json();
        assert_eq!(answer.pointer(api.usage_places()[0]), Some(&json!(SIDE_USAGE.input)));
        let text = api.deed(&answer);
        assert!(!text.is_empty() && text.len() < 100);
        if body.to_string().contains("schema") {
            let form: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&form["next_speaker"], &form["score"]), (&json!("user"), &json!(1)));
        }
        assert_eq!(server.requests().last().unwrap().kind, RequestKind::Side);
    }
    // The trouble is still there for the conversation itself.
    let request = Api::Chat.request(&prompt, false).to_string();
    assert_eq!(ask(server.address(), &Api::Chat.head(false, KEY), &request).status, 500);
    assert_eq!(ask(server.address(), &Api::Chat.head(false, KEY), &request).status, 200);
    // One without a script is told so.
    let request = Api::Chat.request("Go.", false).to_string();
    let answer = ask(server.address(), &Api::Chat.head(false, KEY), &request).json();
    assert_eq!(Api::Chat.deed(&answer), UNSCRIPTED);
}

#[test]
fn models_and_counts_are_answered() {
    let server = start();
    let anthropic = format!("x-api-key: {KEY}\r\nanthropic-version: 2023-06-01");
    let openai = Api::Chat.key_header(KEY);
    let gemini = Api::Gemini.key_header(KEY);
    let get = |path: &str, header: &str| {
        ask(server.address(), &format!("{path} HTTP/1.1\r\n{header}"), "{}").json()
    };
    assert_eq!(get("GET /v1/models?limit=1000", &anthropic)["data"][0]["type"], "model");
    assert_eq!(get("GET /v1/models", &openai)["object"], "list");
    assert_eq!(get("GET /v1/models/gpt-5.5", &openai)["id"], "gpt-5.5");
    assert_eq!(get("GET /v1beta/models", &gemini)["models"][0]["name"], "models/scripted-model");
    assert_eq!(get("GET /v1beta/models/m-1", &gemini)["name"], "models/m-1");
    assert_eq!(get("POST /v1/messages/count_tokens", &anthropic)["input_tokens"], COUNTED_TOKENS);
    assert_eq!(get("POST /v1/responses/input_tokens", &openai)["input_tokens"], COUNTED_TOKENS);
    assert_eq!(get("POST /v1beta/models/m-1:countTokens", &gemini)["totalTokens"], COUNTED_TOKENS);
    assert_eq!(get("GET /", "accept: */*")["message"], "alive");
    assert_eq!(ask(server.address(), "GET /v1/models HTTP/1.1\r\naccept: */*", "").status, 401);
}

#[test]
fn what_is_not_understood_is_refused() {
    let server = start();
    let wrong_script = Api::Messages.request("[[fake {\"steps\":[{\"dance\":true}]}]]", true).to_string();
    for (head, body, status) in [
        (Api::Messages.head(true, KEY), wrong_script.as_str(), 400),
        (Api::Messages.head(true, KEY), "no json", 400),
        (Api::Messages.head(true, KEY), "[]", 400),
        (format!("{}\r\ncontent-encoding: gzip", Api::Messages.head(true, KEY)), "{}", 400),
        (
            format!("GET /v1/responses HTTP/1.1\r\n{}\r\nupgrade: websocket", Api::Chat.key_header(KEY)),
            "",
            426,
        ),
        ("POST /v1/embeddings HTTP/1.1\r\naccept: */*".to_owned(), "{}", 404),
    ] {
        let reply = ask(server.address(), &head, body);
        assert_eq!(reply.status, status, "{head} {reply:?}");
        assert_eq!(server.requests().last().unwrap().kind, RequestKind::Rejected, "{head}");
    }
}

#[test]
fn many_conversations_do_not_disturb_each_other() {
    let server = start();
    let threads = (0..16).map(|number: usize| {
        let api = ALL[number % 4];
        let text = format!("I am number {number}.");
        let request = api.request(&script_prompt("Go.", json!([{ "text": text, "slow": 1 }])), true);
        let address = server.address();
        std::thread::spawn(move || {
            let reply = ask(address, &api.head(true, KEY), &request.to_string());
            assert_eq!(api.streamed_text(&reply), text);
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    assert_eq!(server.scripted_requests().len(), 16);
}

#[test]
fn one_connection_serves_many_requests() {
    let server = start();
    let body = Api::Chat.request(&script_prompt("Go.", json!([{"text": "Hello."}])), false).to_string();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let head = Api::Chat.head(false, KEY);
    let request = format!("{head}\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for _ in 0..3 {
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let mut piece = [0; 1024];
        while bytes.is_empty() || !parse(&bytes).whole {
            let length = stream.read(&mut piece).unwrap();
            assert_ne!(length, 0);
            bytes.extend_from_slice(&piece[..length]);
        }
    }
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn it_ends_with_its_connections() {
    let server = start();
    let address = server.address();
    let request = Api::Chat.request(&script_prompt("Go.", json!([{"stall": "nothing"}])), true).to_string();
    let mut stream = open(address, &Api::Chat.head(true, KEY), &request);
    assert!(server.wait_for(LIMIT, |all| all.len() == 1));
    assert!(!server.wait_for(Duration::from_millis(1), |all| all.len() == 2));
    drop(server);
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).is_err());
    // The port is free again.
    let port = address.port();
    drop(ModelServer::start(ModelServerConfig { port, ..Default::default() }).unwrap());
}

//! One request: recorded, its key checked, answered by the script or beside it.

use super::api::{Api, Route};
use super::body::{Answer, AnswerBody, End};
use super::conversation::{Conversation, Event, Figures, Message, PIECE, Reply, SIDE_TEXT};
use super::record::{Ending, Journal, RecordedRequest, RequestKind};
use super::script::{
    self, Action, Counters, FINISHED, Garbage, Manner, Next, Shape, Stall, Step, UNSCRIPTED,
};
use super::{COUNTED_TOKENS, DEFAULT_USAGE, SIDE_USAGE, tools};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Characters of one piece of a flood.
const FLOOD_PIECE: usize = 16 * 1024;
const MEGABYTE: u64 = 1024 * 1024;
const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    key: Option<String>,
    login: bool,
    counters: Counters,
    pub(super) journal: Arc<Journal>,
    elsewhere: Mutex<Vec<String>>,
}

impl Shared {
    pub(super) fn new(key: Option<String>, login: bool) -> Self {
        Self {
            key,
            login,
            counters: Counters::default(),
            journal: Arc::default(),
            elsewhere: Mutex::default(),
        }
    }

    pub(super) fn key_elsewhere(&self) -> Vec<String> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes down every place but the right one that has the key.
    fn look_for_key(&self, request: &RecordedRequest, body: &[u8], api: Option<Api>) {
        let Some(key) = self.key.as_deref().filter(|key| !key.is_empty()) else { return };
        let place = format!("{} {}", request.method, request.path);
        let mut found = Vec::new();
        if request.path.contains(key) {
            found.push(format!("{place}: in the path"));
        }
        let mut right_place = api.map(|api| api.key_header(self.login));
        for (name, value) in request.headers.iter().filter(|(_, value)| value.contains(key)) {
            let is_right = right_place
                .is_some_and(|(header, before)| name == header && value.strip_prefix(before) == Some(key));
            if is_right {
                // Once is enough.
                right_place = None;
            } else {
                found.push(format!("{place}: in the header {name}"));
            }
        }
        if body.windows(key.len()).any(|window| window == key.as_bytes()) {
            found.push(format!("{place}: in the body"));
        }
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
    }

    /// Whether the request has the key where it belongs.
    fn has_key(&self, request: &RecordedRequest, api: Api) -> bool {
        let (header, before) = api.key_header(self.login);
        let told = !self.login
            || api != Api::Messages
            || request
                .headers
                .iter()
                .any(|(name, value)| name == "anthropic-beta" && value.contains("oauth-2025-04-20"));
        told && self.key.as_deref().is_none_or(|key| {
            request.header(header).and_then(|value| value.strip_prefix(before)) == Some(key)
        })
    }
}

/// Marks the answer as given up when nobody waits for it any more.
struct Abandoned {
    journal: Arc<Journal>,
    number: usize,
    armed: bool,
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if self.armed {
            self.journal.change(self.number, |request| request.ending = Ending::ClientLeft);
        }
    }
}

/// Answers one request.
pub(super) async fn handle(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<AnswerBody> {
    let (head, body) = request.into_parts();
    // A client that leaves in the middle of its own request is not recorded.
    let Ok(body) = body.collect().await else { return Response::new(AnswerBody::empty()) };
    let body = body.to_bytes();
    let path = head.uri.path();
    let headers = head.headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let record = RecordedRequest {
        method: head.method.as_str().to_owned(),
        path: head.uri.path_and_query().map_or(path, |path| path.as_str()).to_owned(),
        headers: headers.collect(),
        body_length: body.len(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        model: None,
        kind: RequestKind::Rejected,
        status: 0,
        ending: Ending::Underway,
    };
    let has_anthropic_header =
        head.headers.contains_key("anthropic-version") || head.headers.contains_key("x-api-key");
    let route = Route::of(head.method.as_str(), path, has_anthropic_header);
    shared.look_for_key(&record, &body, route.api());
    let number = shared.journal.add(record.clone());
    let mut abandoned = Abandoned { journal: Arc::clone(&shared.journal), number, armed: true };
    let call = ApiCall { shared, number, record: &record, path, query: head.uri.query().unwrap_or_default() };
    let mut answer = call.answer(&route).await;
    abandoned.armed = false;
    if let Some(name) = route.api().and_then(Api::id_header) {
        answer = answer.with(name, format!("req_scripted{number:04}"));
    }
    answer.send(Arc::clone(&shared.journal), number)
}

/// A request with what is needed to answer it.
struct ApiCall<'r> {
    shared: &'r Shared,
    number: usize,
    record: &'r RecordedRequest,
    path: &'r str,
    query: &'r str,
}

impl ApiCall<'_> {
    fn kind(&self, kind: RequestKind) {
        self.shared.journal.change(self.number, |request| request.kind = kind);
    }

    async fn answer(&self, route: &Route) -> Answer {
        let Some(api) = route.api() else {
            if *route == Route::Alive {
                self.kind(RequestKind::Alive);
                return Answer::whole(200, JSON, json!({ "message": "alive" }).to_string());
            }
            return Answer::whole(404, JSON, json!({ "message": "no such path" }).to_string());
        };
        if self.record.header("upgrade").is_some() {
            return error(api, 426, "This server speaks no WebSocket.");
        }
        if !self.shared.has_key(self.record, api) {
            self.kind(RequestKind::Unauthorized);
            return error(
                api,
                401,
                "The key is missing or is not the one that this server was started with.",
            );
        }
        match route {
            Route::Models(_, name) => {
                self.kind(RequestKind::Models);
                Answer::whole(200, JSON, api.models(name.as_deref()).to_string())
            }
            Route::Count(_) => {
                self.kind(RequestKind::Count);
                Answer::whole(200, JSON, api.count(COUNTED_TOKENS).to_string())
            }
            _ if self.record.header("content-encoding").is_some() => {
                error(api, 400, "This server reads no compressed bodies.")
            }
            _ if !self.record.body.is_object() => error(api, 400, "The body is not a JSON object."),
            _ => self.generate(api).await,
        }
    }

    async fn generate(&self, api: Api) -> Answer {
        let conversation = api.read(self.path, self.query, &self.record.body);
        let model = conversation.model.clone();
        self.shared.journal.change(self.number, |request| request.model = Some(model));
        if let Some(text) = conversation.side_answer() {
            return self.on_the_side(api, &conversation, text);
        }
        let step = |action| Step { action, manner: Manner::default() };
        let (position, step) = match script::next(&format!("{api:?}"), &conversation, &self.shared.counters) {
            Next::Wrong(problem) => return error(api, 400, &format!("The script is wrong: {problem}")),
            Next::None if conversation.tools.is_empty() => {
                return self.on_the_side(api, &conversation, SIDE_TEXT.to_owned());
            }
            Next::None => (0, step(Action::Say(UNSCRIPTED.to_owned()))),
            Next::Finished(count) => (count, step(Action::Say(FINISHED.to_owned()))),
            Next::Step(_, Step { action: Action::Work(_), .. }) if conversation.tools.is_empty() => {
                return self.on_the_side(api, &conversation, SIDE_TEXT.to_owned());
            }
            Next::Step(position, step) => (position, step),
        };
        self.kind(RequestKind::Scripted(position));
        if step.manner.sleep > 0 {
            tokio::time::sleep(Duration::from_millis(step.manner.sleep)).await;
        }
        let mut answer = self.perform(api, &conversation, &step).await;
        answer.pace = Duration::from_millis(step.manner.slow);
        answer
    }

    fn on_the_side(&self, api: Api, conversation: &Conversation, text: String) -> Answer {
        self.kind(RequestKind::Side);
        let manner = Manner { usage: Some(SIDE_USAGE), ..Manner::default() };
        send(api, conversation, &message(conversation, &manner, Reply::Text(text)))
    }

    async fn perform(&self, api: Api, conversation: &Conversation, step: &Step) -> Answer {
        let say = |text: String| message(conversation, &step.manner, Reply::Text(text));
        match &step.action {
            Action::Say(text) => send(api, conversation, &say(conversation.formed(text.clone()))),
            Action::Work(work) => match tools::call(work, conversation) {
                Ok(call) => send(api, conversation, &message(conversation, &step.manner, Reply::Call(call))),
                Err(problem) => send(api, conversation, &say(problem)),
            },
            Action::Status(status) => {
                let words = format!("Scripted error {}.", status.code);
                let body = api.error(status.code, &words, status.retry_after).to_string();
                let mut answer = Answer::whole(status.code, JSON, body);
                if let Some(seconds) = status.retry_after {
                    answer = answer.with("retry-after", seconds.to_string());
                }
                if let Some(should) = status.should_retry {
                    answer = answer.with("x-should-retry", should.to_string());
                }
                answer
            }
            Action::Stall(Stall::Nothing) => std::future::pending().await,
            Action::Stall(Stall::Headers) => {
                let mut answer = Answer::pieces(200, content_type(conversation), Vec::new());
                answer.end = End::Silence;
                answer
            }
            Action::Stall(Stall::Middle) => first_half(
                api,
                conversation,
                &say("This answer stops in its middle.".to_owned()),
                End::Silence,
            ),
            Action::Half(text) => first_half(api, conversation, &say(text.clone()), End::Break),
            Action::BreakOff(text) => {
                let words = "Scripted overload.";
                if !conversation.streaming {
                    return error(api, 529, words);
                }
                let message = say(text.clone());
                let mut frames = api.frames(&message, conversation);
                frames.truncate(frames.len() / 2);
                frames.push(api.error_frame(529, words, &message, conversation.as_array));
                let pieces = frames.into_iter().map(Bytes::from).collect();
                Answer::pieces(200, content_type(conversation), pieces)
            }
            Action::Garbage(kind) => garbage(api, conversation, *kind, say("Nonsense follows.".to_owned())),
            Action::Flood(flood) => {
                let mut message = say("x".repeat(FLOOD_PIECE));
                message.piece = FLOOD_PIECE;
                let bytes = flood.megabytes.saturating_mul(MEGABYTE);
                let shape = if conversation.streaming { flood.shape } else { Shape::Line };
                let frames = frames(api, conversation, &message);
                let mut answer = Answer::pieces(200, content_type(conversation), Vec::new());
                answer.pieces = flooded(frames, shape, bytes);
                answer
            }
            Action::EchoKey => {
                let (header, before) = api.key_header(self.shared.login);
                let sent = self.record.header(header).unwrap_or_default();
                let key = sent.strip_prefix(before).unwrap_or(sent);
                let answer = send(api, conversation, &say(format!("Your key is {key}, isn't it?")));
                answer.with("x-echoed-key", key)
            }
        }
    }
}

fn error(api: Api, status: u16, words: &str) -> Answer {
    Answer::whole(status, JSON, api.error(status, words, None).to_string())
}

fn message(conversation: &Conversation, manner: &Manner, reply: Reply) -> Message {
    let answers = conversation.events.iter().filter(|event| !matches!(event, Event::User(_)));
    Message {
        model: conversation.model.clone(),
        number: answers.count(),
        thinking: manner.think.clone(),
        reply,
        figures: Figures::Exact(manner.usage.unwrap_or(DEFAULT_USAGE)),
        piece: PIECE,
    }
}

const fn content_type(conversation: &Conversation) -> &'static str {
    if conversation.streaming && !conversation.as_array { EVENT_STREAM } else { JSON }
}

/// The frames of a stream, or the one of an answer in one piece.
fn frames(api: Api, conversation: &Conversation, message: &Message) -> Vec<String> {
    if conversation.streaming {
        api.frames(message, conversation)
    } else {
        vec![api.whole(message).to_string()]
    }
}

fn send(api: Api, conversation: &Conversation, message: &Message) -> Answer {
    if conversation.streaming {
        let frames = api.frames(message, conversation).into_iter().map(Bytes::from).collect();
        Answer::pieces(200, content_type(conversation), frames)
    } else {
        Answer::whole(200, JSON, api.whole(message).to_string())
    }
}

/// Half of the bytes, which is hardly ever the end of an event.
fn first_half(api: Api, conversation: &Conversation, message: &Message, end: End) -> Answer {
    let all = frames(api, conversation, message);
    let length: usize = all.iter().map(String::len).sum();
    let mut left = length / 2;
    let mut pieces = Vec::new();
    for frame in all {
        let bytes = Bytes::from(frame);
        let piece = bytes.slice(..left.min(bytes.len()));
        left -= piece.len();
        if !piece.is_empty() {
            pieces.push(piece);
        }
    }
    let mut answer = Answer::pieces(200, content_type(conversation), pieces);
    answer.length = (!conversation.streaming).then_some(length as u64);
    answer.end = end;
    answer
}

fn garbage(api: Api, conversation: &Conversation, kind: Garbage, mut message: Message) -> Answer {
    match kind {
        Garbage::Html => {
            let page = "<!DOCTYPE html><html><body><h1>Welcome to this network</h1></body></html>\n";
            Answer::whole(200, "text/html", page.to_owned())
        }
        Garbage::Broken => {
            let pieces = frames(api, conversation, &message)
                .into_iter()
                .map(|frame| Bytes::from(frame.replace("\":", "\"=").replace('}', "")))
                .collect();
            Answer::pieces(200, content_type(conversation), pieces)
        }
        Garbage::Usage => {
            message.figures = Figures::Nonsense;
            send(api, conversation, &message)
        }
    }
}

/// The frames with the first long text among them repeated until so many bytes are reached.
fn flooded(frames: Vec<String>, shape: Shape, bytes: u64) -> Box<dyn Iterator<Item = Bytes> + Send> {
    let run = "x".repeat(FLOOD_PIECE);
    let at = frames.iter().position(|frame| frame.contains(&run)).unwrap_or_default();
    let mut before: Vec<Bytes> = Vec::new();
    let mut after: Vec<Bytes> = Vec::new();
    let mut unit = Bytes::new();
    for (number, frame) in frames.into_iter().enumerate() {
        match (number.cmp(&at), shape) {
            (std::cmp::Ordering::Less, _) => before.push(frame.into()),
            (std::cmp::Ordering::Greater, _) => after.push(frame.into()),
            (std::cmp::Ordering::Equal, Shape::Events) => unit = frame.into(),
            (std::cmp::Ordering::Equal, Shape::Line) => {
                let (start, end) = frame.split_once(&run).unwrap_or((&frame, ""));
                before.push(start.to_owned().into());
                unit = run.clone().into();
                after.push(end.to_owned().into());
            }
        }
    }
    let times = bytes.div_ceil((unit.len() as u64).max(1));
    let times = usize::try_from(times).unwrap_or(usize::MAX);
    Box::new(before.into_iter().chain(std::iter::repeat_n(unit, times)).chain(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_as_long_as_it_says_and_ends_properly() {
        let run = "x".repeat(FLOOD_PIECE);
        let frames = vec!["a".to_owned(), format!("<{run}>"), "b".to_owned()];
        for (shape, start) in [(Shape::Events, "a<xx"), (Shape::Line, "a<xx")] {
            let all: Vec<u8> = flooded(frames.clone(), shape, 3 * MEGABYTE).flatten().collect();
            let text = String::from_utf8(all).unwrap();
            assert!(text.starts_with(start) && text.ends_with("x>b"), "{shape:?}");
            let units = text.matches('<').count();
            assert_eq!(units == 1, shape == Shape::Line);
            assert!((3 * MEGABYTE as usize..3 * MEGABYTE as usize + FLOOD_PIECE).contains(&text.len()));
        }
    }
}

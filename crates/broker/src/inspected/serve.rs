//! One tunnel to an inspected host: the handshake with the client, and its requests one after another.

#[cfg(test)]
use super::UpstreamTrust;
use super::answer::{self, Passed};
use super::judge::{self, Granted, Judged};
use super::reader::{BodyState, NoBody, NoHead, Reader};
use super::secrets::HandleScan;
use super::upstream::{NoAnswer, Upstream};
use super::writer::Writer;
use super::{Inspection, Place};
use crate::egress::{Admission, Wanted, hello};
use crate::parse::head::{Authority, Head, HeadError};
use crate::parse::rpc_body::RpcBody;
use crate::server::respond::ChannelBody;
use crate::server::{CountedStream, Shared, respond, say};
use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, Uri};
use std::io;
use std::sync::Arc;
use tipstaff_model::{Refusal, Rule};
use tipstaff_seal::Handle;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

/// Pieces of a request's body that are on their way.
const ON_THE_WAY: usize = 4;

/// Serves a tunnel whose host the warrant has inspected. It ends with the client, with the warrant, or with a refusal
/// after which nobody can tell where the next request begins.
pub(crate) async fn serve(shared: &Arc<Shared>, client: CountedStream, wanted: &Authority) {
    let asked = Wanted { place: wanted.clone(), request: None, seen: true };
    let admission = Admission::ask(shared, asked).and_then(|admission| match &shared.config.inspection {
        Some(inspection) => Ok((admission, inspection)),
        None => Err(Refusal::new(
            Rule::ProtocolNotServed,
            wanted.to_string(),
            "the host is inspected, and nothing is inspected in this part of the run",
        )),
    });
    let (admission, inspection) = match admission {
        Ok(admitted) => admitted,
        Err(refusal) => {
            let refusal = shared.refuse(refusal);
            return say(client, respond::status_of(refusal.rule), &respond::refusal_text(&refusal)).await;
        }
    };
    let serving = async {
        if let Some(stream) = accept(shared, inspection, client, wanted).await {
            converse(shared, inspection, stream, wanted).await;
        }
    };
    tokio::select! {
        // A request that is under way sees the same change, and may still say why it ends.
        biased;
        () = serving => {}
        // What was going on is dropped where it stands.
        refusal = admission.withdrawn() => {
            shared.refuse(refusal);
        }
    }
    if let Err(refusal) = shared.egress.check_bytes(&wanted.to_string()) {
        shared.refuse(refusal);
    }
}

/// The handshake: `None` when it came to nothing, which is noted.
async fn accept(
    shared: &Shared,
    inspection: &Inspection,
    mut client: CountedStream,
    wanted: &Authority,
) -> Option<TlsStream<CountedStream>> {
    let bounds = &shared.config.bounds;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
    let mut first = BytesMut::with_capacity(2048);
    if let Err(why) = hello::read(&mut client, &wanted.host, bounds.hello_time, &mut first).await {
        let refusal = shared.refuse(why.refusal(&wanted.to_string(), bounds.hello_time)?);
        // Some clients send plain HTTP through a tunnel: they get to read why not.
        if first.first().is_some_and(u8::is_ascii_uppercase) {
            say(client, respond::status_of(refusal.rule), &respond::refusal_text(&refusal)).await;
        } else {
            hello::tell(client, &why).await;
        }
        return None;
    }
    client.give_back(first.freeze());
    let acceptor = tokio_rustls::LazyConfigAcceptor::new(rustls::server::Acceptor::default(), client);
    let unreadable = |why: String| {
        shared.refuse(Refusal::new(Rule::TlsUnreadable, wanted.to_string(), why));
    };
    let start = match tokio::time::timeout(bounds.hello_time, acceptor).await {
        Ok(Ok(start)) => start,
        Ok(Err(_)) => {
            unreadable("the TLS client hello can't be read".to_owned());
            return None;
        }
        Err(_) => return None,
    };
    let hello = start.client_hello();
    if hello.server_name() != Some(wanted.host.as_str()) {
        let why = "the TLS client hello names another host";
        shared.refuse(Refusal::new(Rule::TlsNameMismatch, wanted.to_string(), why));
        return None;
    }
    let speaks_http1 = hello.alpn().is_none_or(|mut offered| offered.any(|protocol| protocol == b"http/1.1"));
    if !speaks_http1 {
        // The handshake itself fails with `no_application_protocol` below.
        let why = "the client insists on another protocol than HTTP/1.1, and no other is inspected";
        shared.refuse(Refusal::new(Rule::ProtocolNotServed, wanted.to_string(), why));
    }
    let config = match inspection.authority.server_config(&wanted.host) {
        Ok(config) => config,
        Err(error) => {
            unreadable(error.to_string());
            return None;
        }
    };
    match tokio::time::timeout(bounds.hello_time, start.into_stream(config)).await {
        Ok(Ok(mut stream)) => {
            // Requests may be far apart, and answers slow.
            stream.get_mut().0.set_idle_limit(bounds.tunnel_idle_time);
            Some(stream)
        }
        Ok(Err(error)) => {
            if speaks_http1 {
                unreadable(handshake_problem(&error));
            }
            None
        }
        Err(_) => None,
    }
}

/// Why a client did not finish the handshake, so that its user knows what to do.
fn handshake_problem(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(
            rustls::AlertDescription::UnknownCA
            | rustls::AlertDescription::BadCertificate
            | rustls::AlertDescription::CertificateUnknown,
        )) => "the program does not trust the run's certificate authority; it stands in the file that SSL_CERT_FILE names"
            .to_owned(),
        _ => "the TLS handshake failed".to_owned(),
    }
}

/// The requests of one connection to a host that is reached already, both without their TLS.
#[cfg(test)]
pub(super) async fn converse_in_memory(
    shared: &Shared,
    trust: &UpstreamTrust,
    mut client: CountedStream,
    host: tokio::io::DuplexStream,
) {
    client.set_idle_limit(shared.config.bounds.tunnel_idle_time);
    let wanted = Authority { host: "allowed.test".to_owned(), port: 443 };
    let (read, write) = tokio::io::split(client);
    let mut upstream = Upstream::new(shared, trust, &wanted);
    upstream.keep_memory(host).await;
    let mut conversation = Conversation {
        shared,
        wanted: &wanted,
        reader: Reader::new(read, shared.config.bounds.idle_time),
        writer: Writer::new(write, shared.config.bounds.tunnel_idle_time),
        upstream,
    };
    while conversation.one().await == Next::Again {}
    conversation.writer.close().await;
}

/// What happens to the connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Again,
    Close,
}

async fn converse(
    shared: &Shared,
    inspection: &Inspection,
    stream: TlsStream<CountedStream>,
    wanted: &Authority,
) {
    let (read, write) = tokio::io::split(stream);
    let mut conversation = Conversation {
        shared,
        wanted,
        reader: Reader::new(read, shared.config.bounds.idle_time),
        writer: Writer::new(write, shared.config.bounds.tunnel_idle_time),
        upstream: Upstream::new(shared, &inspection.trust, wanted),
    };
    while conversation.one().await == Next::Again {}
    conversation.writer.close().await;
}

struct Conversation<'a, R, W> {
    shared: &'a Shared,
    wanted: &'a Authority,
    reader: Reader<R>,
    writer: Writer<W>,
    upstream: Upstream<'a>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Conversation<'_, R, W> {
    /// Serves the next request.
    async fn one(&mut self) -> Next {
        let (shared, bounds) = (self.shared, &self.shared.config.bounds);
        self.writer.begun = false;
        let at = format!("a request to {}", self.wanted);
        let head = match self.reader.head(bounds.head_time).await {
            Ok(head) => head,
            Err(NoHead::Gone) => return Next::Close,
            Err(problem) => {
                let (rule, why) = match problem {
                    NoHead::Bad(HeadError::OtherProtocol) => {
                        (Rule::ProtocolNotServed, "HTTP/2 is not served on an inspected host".to_owned())
                    }
                    NoHead::Bad(error) => (Rule::RequestAmbiguous, error.to_string()),
                    NoHead::Slow | NoHead::Gone => (
                        Rule::LimitReached,
                        format!("its head took longer than {} s", bounds.head_time.as_secs()),
                    ),
                };
                let refusal = shared.refuse(Refusal::new(rule, at, why));
                let status = respond::status_of(refusal.rule);
                let _ = self.writer.refusal(status, &refusal, false, (false, true)).await;
                return Next::Close;
            }
        };
        let state = BodyState::of(head.body);
        let closes = closes(&head);
        let judged = shared.warrant.in_force().and_then(|warrant| {
            shared.egress.begin(&self.wanted.to_string())?;
            judge::judge(&warrant, &shared.secrets, self.wanted, &head)
        });
        match judged {
            Ok(judged) if judged.by_tool && judged.method == http::Method::POST => {
                self.with_tools(&head, judged, state, closes).await
            }
            Ok(judged) => {
                if self.go_on(&head, state).await.is_err() {
                    return Next::Close;
                }
                self.exchange(&head, judged, Sending::Streamed(state), closes).await
            }
            Err(refusal) => self.refuse(&head, refusal, closes || state != BodyState::Done).await,
        }
    }

    /// Tells a client that waits for it that its body may come.
    async fn go_on(&mut self, head: &Head, state: BodyState) -> io::Result<()> {
        let waits = field(head, "expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        if waits && state != BodyState::Done { self.writer.go_on().await } else { Ok(()) }
    }

    async fn refuse(&mut self, head: &Head, refusal: Refusal, closes: bool) -> Next {
        let refusal = self.shared.refuse(refusal);
        if self.writer.begun {
            return Next::Close;
        }
        let json = field(head, "accept").is_some_and(|accept| accept.contains("application/json"));
        let status = respond::status_of(refusal.rule);
        let ends = (head.method == "HEAD", closes);
        match self.writer.refusal(status, &refusal, json, ends).await {
            Ok(()) if !closes => Next::Again,
            _ => Next::Close,
        }
    }

    /// Reads a body for the tools that it calls, and goes on with what was understood.
    async fn with_tools(
        &mut self,
        head: &Head,
        mut judged: Judged,
        mut state: BodyState,
        closes: bool,
    ) -> Next {
        let (shared, bounds) = (self.shared, &self.shared.config.bounds);
        if self.go_on(head, state).await.is_err() {
            return Next::Close;
        }
        let ambiguous = |wanted: &Authority, why: String| {
            Refusal::new(Rule::RequestAmbiguous, format!("a request to {wanted}"), why)
        };
        let body = match self.reader.whole(&mut state, bounds.rpc_body_bytes).await {
            Ok(body) => body,
            Err(NoBody::Gone) => return Next::Close,
            Err(NoBody::Slow) => return self.refuse(head, stalled(shared, self.wanted), true).await,
            Err(NoBody::Framing) => {
                let refusal = ambiguous(self.wanted, "its chunks can be read in two ways".to_owned());
                return self.refuse(head, refusal, true).await;
            }
            Err(NoBody::TooLarge) => {
                let why = format!("its body has more than {} bytes", bounds.rpc_body_bytes);
                let refusal = Refusal::new(Rule::LimitReached, self.wanted.to_string(), why);
                return self.refuse(head, refusal, true).await;
            }
        };
        let parsed = match RpcBody::parse(&body) {
            Ok(parsed) => parsed,
            Err(problem) => {
                let refusal = ambiguous(self.wanted, problem.to_string());
                return self.refuse(head, refusal, closes).await;
            }
        };
        let allowed = shared
            .warrant
            .in_force()
            .and_then(|warrant| judge::judge_tools(&warrant, self.wanted, &mut judged, &parsed))
            .and_then(|()| match Handle::find(&parsed.text) {
                Some((_, handle)) => Err(self.in_body(&handle)),
                None => Ok(()),
            });
        match allowed {
            Ok(()) => self.exchange(head, judged, Sending::Whole(parsed.text.into()), closes).await,
            Err(refusal) => match judge::rpc_refusal(&parsed, &refusal) {
                // In the client's own language: it tells its model, and goes on.
                Some(answer) => {
                    shared.refuse(refusal);
                    let sent =
                        self.writer.whole(StatusCode::OK, "application/json", &answer, (false, closes)).await;
                    if sent.is_ok() && !closes { Next::Again } else { Next::Close }
                }
                None => self.refuse(head, refusal, closes).await,
            },
        }
    }

    fn in_body(&self, handle: &Handle) -> Refusal {
        self.shared.secrets.misused(handle, &self.wanted.to_string(), "stands in the body of a request")
    }

    /// Sends a request and passes its answer on.
    async fn exchange(&mut self, head: &Head, judged: Judged, sending: Sending, closes: bool) -> Next {
        let shared = self.shared;
        let (feed, pieces) = mpsc::channel(ON_THE_WAY);
        let (mut state, length) = match &sending {
            Sending::Streamed(state) => (
                *state,
                match state {
                    BodyState::Left(length) => Some(*length),
                    BodyState::Done => Some(0),
                    BodyState::Size | BodyState::Chunk(_) => None,
                },
            ),
            Sending::Whole(body) => (BodyState::Done, u64::try_from(body.len()).ok()),
        };
        let feed = match sending {
            Sending::Whole(body) => {
                // There is room for one.
                let _ = feed.try_send(Ok(body));
                None
            }
            Sending::Streamed(_) => Some(feed),
        };
        let (method, granted) = (judged.method.clone(), judged.granted.clone());
        let Some(request) = request_of(judged, ChannelBody { pieces, length }) else {
            let why = "the request has no form that can be passed on";
            let refusal = Refusal::new(Rule::RequestAmbiguous, format!("a request to {}", self.wanted), why);
            return self.refuse(head, refusal, true).await;
        };
        let outcome = {
            let Self { reader, writer, upstream, wanted, .. } = self;
            let pumping = pump(reader, &mut state, feed);
            let answering = answer_to(shared, wanted, upstream, writer, request, &method, closes);
            tokio::select! {
                biased;
                answered = answering => Ok(answered),
                fault = pumping => Err(fault),
                refusal = withdrawn(shared, wanted, &granted) => Err(Fault::Withdrawn(refusal)),
            }
        };
        match outcome {
            // A body that nobody read to its end leaves nobody knowing where the next request begins.
            Ok(Answered::Whole) if !closes && state == BodyState::Done => Next::Again,
            Ok(Answered::Whole | Answered::Cut) => {
                self.upstream.close();
                Next::Close
            }
            Ok(Answered::Refused(refusal)) => {
                self.refuse(head, refusal, closes || state != BodyState::Done).await
            }
            Ok(Answered::Not(status, why)) => {
                self.upstream.close();
                let closes = closes || state != BodyState::Done;
                let text = format!("tipstaff: {why}\n");
                let ends = (head.method == "HEAD", closes);
                let sent = self.writer.whole(status, "text/plain; charset=utf-8", &text, ends).await;
                if sent.is_ok() && !closes { Next::Again } else { Next::Close }
            }
            Err(fault) => {
                // What was sent of the request stays without its end.
                self.upstream.close();
                let refusal = match fault {
                    Fault::Gone => return Next::Close,
                    Fault::Framing => Refusal::new(
                        Rule::RequestAmbiguous,
                        format!("a request to {}", self.wanted),
                        "its chunks can be read in two ways",
                    ),
                    Fault::Stalled => stalled(shared, self.wanted),
                    Fault::Handle(handle) => self.in_body(&handle),
                    Fault::Withdrawn(refusal) => refusal,
                };
                self.refuse(head, refusal, true).await
            }
        }
    }
}

/// What is sent as the body.
enum Sending {
    /// What the client sends, as it comes.
    Streamed(BodyState),
    /// What was understood of it.
    Whole(Bytes),
}

/// Why a request is not sent to its end.
enum Fault {
    Gone,
    Stalled,
    Framing,
    Handle(Handle),
    Withdrawn(Refusal),
}

fn stalled(shared: &Shared, wanted: &Authority) -> Refusal {
    let time = shared.config.bounds.idle_time.as_secs();
    Refusal::new(
        Rule::LimitReached,
        format!("a request to {wanted}"),
        format!("nothing more of its body came in {time} s"),
    )
}

/// Waits until the warrant has changed so that the request would not be let through any more, and says why.
async fn withdrawn(shared: &Shared, wanted: &Authority, granted: &Granted) -> Refusal {
    let mut generation = shared.generation.subscribe();
    loop {
        let asked = shared.warrant.in_force().and_then(|warrant| granted.still(&warrant, wanted));
        if let Err(refusal) = asked {
            return refusal;
        }
        if generation.changed().await.is_err() {
            // The broker is gone, and ends every connection by itself.
            std::future::pending::<()>().await;
        }
    }
}

/// Feeds the body as it comes, and then watches the client. Ends only when something is wrong.
async fn pump<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    state: &mut BodyState,
    feed: Option<mpsc::Sender<io::Result<Bytes>>>,
) -> Fault {
    if let Some(feed) = feed {
        let mut scan = HandleScan::default();
        let fault = loop {
            match reader.piece(state).await {
                Ok(Some(piece)) => match scan.push(piece) {
                    Ok(piece) if piece.is_empty() => {}
                    Ok(piece) => {
                        if feed.send(Ok(piece)).await.is_err() {
                            // Nobody takes it any more: the host answered without reading on.
                            break None;
                        }
                    }
                    Err(handle) => break Some(Fault::Handle(handle)),
                },
                Ok(None) => {
                    let rest = scan.finish();
                    if !rest.is_empty() {
                        let _ = feed.send(Ok(rest)).await;
                    }
                    break None;
                }
                Err(NoBody::Gone) => break Some(Fault::Gone),
                Err(NoBody::Slow) => break Some(Fault::Stalled),
                Err(NoBody::Framing | NoBody::TooLarge) => break Some(Fault::Framing),
            }
        };
        if let Some(fault) = fault {
            let _ = feed.try_send(Err(io::ErrorKind::BrokenPipe.into()));
            return fault;
        }
    }
    if *state == BodyState::Done {
        reader.gone().await;
        return Fault::Gone;
    }
    std::future::pending().await
}

/// How the host answered.
enum Answered {
    Whole,
    Cut,
    Refused(Refusal),
    Not(StatusCode, String),
}

async fn answer_to<W: AsyncWrite + Unpin>(
    shared: &Shared,
    wanted: &Authority,
    upstream: &mut Upstream<'_>,
    writer: &mut Writer<W>,
    request: Request<ChannelBody>,
    method: &http::Method,
    closes: bool,
) -> Answered {
    let place = Place { host: &wanted.host, port: wanted.port };
    let spellings = shared.secrets.spellings(&shared.warrant.warrant(), place);
    let searched = !spellings.is_empty();
    let response = match upstream.send(request).await {
        Ok(response) => response,
        Err(NoAnswer::Refused(refusal)) => return Answered::Refused(refusal),
        Err(NoAnswer::Unreachable(why)) => return Answered::Not(StatusCode::BAD_GATEWAY, why),
        Err(NoAnswer::Broken) => {
            return Answered::Not(
                StatusCode::BAD_GATEWAY,
                format!("{wanted} gave no answer that can be read"),
            );
        }
        Err(NoAnswer::Slow) => {
            return Answered::Not(StatusCode::GATEWAY_TIMEOUT, format!("{wanted} gave no answer in time"));
        }
    };
    if let Some(why) = answer::problem(&response, searched) {
        return Answered::Not(StatusCode::BAD_GATEWAY, format!("{wanted} {why}"));
    }
    let (passed, echoed) = answer::pass_on(shared, writer, response, method, spellings, closes).await;
    if echoed {
        shared.refuse(Refusal::new(
            Rule::SecretMisused,
            format!("an answer of {wanted}"),
            "the host sent a secret's value back; it was taken out of the answer",
        ));
    }
    match passed {
        Passed::Whole => Answered::Whole,
        Passed::Cut => Answered::Cut,
    }
}

fn request_of(judged: Judged, body: ChannelBody) -> Option<Request<ChannelBody>> {
    let mut request = Request::new(body);
    let uri: Uri = judged.target.parse().ok()?;
    // What goes out is what was judged, letter by letter.
    if uri.path_and_query().is_none_or(|sent| sent.as_str() != judged.target) {
        return None;
    }
    *request.method_mut() = judged.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = judged.headers;
    Some(request)
}

fn field<'h>(head: &'h Head, name: &str) -> Option<&'h str> {
    head.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Whether the client wants no further request on this connection.
fn closes(head: &Head) -> bool {
    head.fields
        .iter()
        .filter(|(name, _)| name == "connection")
        .flat_map(|(_, value)| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("close"))
}

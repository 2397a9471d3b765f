//! One connection: its head is read by our own strict parser, judged, and only then given to whoever serves it.

use super::exchange::Exchange;
use super::respond::{self, Answer};
use super::{CountedStream, Link, Shared, git_read, push};
use crate::parse::head::{self, Head, Target};
use crate::parse::model_path;
use crate::parse::route::{self, NoRoute, Route};
use crate::{egress, gateway};
use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use tipstaff_model::{Refusal, Rule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Why no head came.
enum NoHead {
    /// The client went away.
    Gone,
    /// It took too long.
    Slow,
    /// It can be read in two ways.
    Bad(head::HeadError),
}

/// Serves one connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, stream: Link) {
    let bounds = shared.config.bounds;
    let mut stream = CountedStream::new(stream, Arc::clone(&shared.counters), bounds.idle_time);
    let Ok(_permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
        let refusal = shared.refuse(Refusal::new(
            Rule::LimitReached,
            "a connection",
            format!("{} connections are open already", bounds.connections),
        ));
        return say(stream, StatusCode::SERVICE_UNAVAILABLE, &respond::refusal_text(&refusal)).await;
    };
    while let Some(next) = one_request(&shared, stream).await {
        stream = next;
        stream.set_idle_limit(bounds.idle_time);
        // A connection that is kept may be silent until its next request begins, or go.
        let mut beginning = BytesMut::with_capacity(2048);
        let mut lapsed = shared.lapsed.subscribe();
        if *lapsed.borrow_and_update() {
            return;
        }
        tokio::select! {
            read = stream.read_buf(&mut beginning) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => stream.give_back(beginning.freeze()),
            },
            _ = lapsed.changed() => return,
        }
    }
}

/// Serves the next request. Gives the connection back when another one may come on it.
async fn one_request(shared: &Arc<Shared>, mut stream: CountedStream) -> Option<CountedStream> {
    let bounds = shared.config.bounds;
    let head = match tokio::time::timeout(bounds.head_time, read_head(&mut stream)).await {
        Ok(Ok(head)) => head,
        Ok(Err(NoHead::Gone)) => return None,
        Ok(Err(NoHead::Bad(error))) => {
            let rule = match error {
                head::HeadError::OtherProtocol => Rule::ProtocolNotServed,
                _ => Rule::RequestAmbiguous,
            };
            let refusal = shared.refuse(Refusal::new(rule, "a request", error.to_string()));
            say(stream, StatusCode::BAD_REQUEST, &respond::refusal_text(&refusal)).await;
            return None;
        }
        Ok(Err(NoHead::Slow)) | Err(_) => {
            let refusal = shared.refuse(Refusal::new(
                Rule::LimitReached,
                "a request",
                format!("its head took longer than {} s", bounds.head_time.as_secs()),
            ));
            say(stream, StatusCode::REQUEST_TIMEOUT, &respond::refusal_text(&refusal)).await;
            return None;
        }
    };
    // Before the question, so that a lapse right after it is noticed.
    let mut lapsed = shared.lapsed.subscribe();
    if let Err(refusal) = shared.warrant.in_force() {
        let refusal = shared.refuse(refusal);
        say(stream, StatusCode::FORBIDDEN, &respond::refusal_text(&refusal)).await;
        return None;
    }
    tokio::select! {
        next = dispatch(Arc::clone(shared), stream, head) => next,
        // The warrant is over: what was going on under it is dropped where it stands.
        _ = lapsed.changed() => None,
    }
}

async fn dispatch(
    shared: Arc<Shared>,
    mut stream: CountedStream,
    request: (Head, Bytes, usize),
) -> Option<CountedStream> {
    let request_time = shared.config.bounds.request_time;
    let (head, whole, end) = request;
    match &head.target {
        Target::Connect(_) => stream.give_back(whole.slice(end..)),
        _ if is_model(&shared, &head.target) => stream.give_back(whole.slice(end..)),
        _ => stream.give_back(whole),
    }
    match head.target.clone() {
        Target::Connect(authority) => egress::connect(&shared, stream, &authority).await,
        Target::Absolute(authority, path) if !is_own(&shared, &authority) => {
            egress::forward(&shared, stream, &head, authority, path).await;
        }
        Target::Origin(target) | Target::Absolute(_, target) if target.starts_with(model_path::PREFIX) => {
            let exchange = Exchange::new(stream, head, shared.config.bounds.idle_time);
            let serving = gateway::serve(&shared, &target, exchange);
            return tokio::time::timeout(request_time, serving).await.ok().flatten();
        }
        Target::Origin(target) | Target::Absolute(_, target) => {
            if target.ends_with("/git-receive-pack") {
                // While a push is judged nothing moves, and the reason of a refusal must still arrive.
                let bounds = shared.config.bounds;
                stream.set_idle_limit(bounds.idle_time.saturating_add(bounds.check_time));
            }
            let serving = http(stream, |request| own(Arc::clone(&shared), target.clone(), request));
            let _ = tokio::time::timeout(request_time, serving).await;
        }
    }
    None
}

/// Whether a request goes to the gateway, which reads and writes HTTP by itself.
fn is_model(shared: &Shared, target: &Target) -> bool {
    match target {
        Target::Origin(path) => path.starts_with(model_path::PREFIX),
        Target::Absolute(authority, path) => {
            is_own(shared, authority) && path.starts_with(model_path::PREFIX)
        }
        Target::Connect(_) => false,
    }
}

/// Whether a proxied request means us: a sandbox whose proxy variables have no exception for this machine.
fn is_own(shared: &Shared, authority: &head::Authority) -> bool {
    let Some(address) = shared.address() else { return false };
    let this_machine = authority.host == "localhost" || authority.host == address.ip().to_string();
    this_machine && authority.port == address.port()
}

/// Hands the connection to hyper for exactly one request.
pub(crate) async fn http<F, A>(stream: CountedStream, handle: F)
where
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answer = handle(request);
        Box::pin(async { Ok::<_, Infallible>(answer.await) })
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .max_headers(head::MOST_FIELDS + 1)
        .serve_connection(TokioIo::new(stream), service);
    let served = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    if served.is_ok() {
        connection.into_parts().io.into_inner().linger().await;
    }
}

/// Reads exactly one head: what it says, the bytes that were read, and where in them it ends. Whoever serves the
/// request is given the bytes again, so that hyper reads the same.
async fn read_head(stream: &mut CountedStream) -> Result<(Head, Bytes, usize), NoHead> {
    let mut buffer = BytesMut::with_capacity(2048);
    let end = loop {
        match stream.read_buf(&mut buffer).await {
            Ok(0) => return Err(NoHead::Gone),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => return Err(NoHead::Slow),
            Err(_) => return Err(NoHead::Gone),
        }
        if let Some(end) = head::end(&buffer).map_err(NoHead::Bad)? {
            break end;
        }
    };
    let whole: Bytes = buffer.freeze();
    let head = head::parse(whole.get(..end).unwrap_or_default()).map_err(NoHead::Bad)?;
    Ok((head, whole, end))
}

/// Says something and closes so that it can be read.
pub(crate) async fn say(mut stream: CountedStream, status: StatusCode, text: &str) {
    if stream.write_all(&respond::raw(status, text)).await.is_ok() {
        stream.linger().await;
    }
}

/// Serves a path of ours.
async fn own(shared: Arc<Shared>, target: String, request: Request<Incoming>) -> Answer {
    let route = match route::parse(&target) {
        Ok(route) if route.method() == request.method().as_str() => route,
        Ok(route) => {
            let refusal = shared.refuse(Refusal::new(
                Rule::RequestNotServed,
                format!("{} {target}", request.method()),
                format!("only {} is served there", route.method()),
            ));
            return respond::refused(&refusal, StatusCode::METHOD_NOT_ALLOWED, wants_json(&request));
        }
        Err(reason) => {
            let why = match reason {
                NoRoute::Trick => "the path has another spelling that means something else",
                NoRoute::Unknown => "nothing is served there",
            };
            let refusal = shared.refuse(Refusal::new(Rule::RequestNotServed, &target, why));
            return respond::refused(&refusal, StatusCode::NOT_FOUND, wants_json(&request));
        }
    };
    match serve_route(&shared, route) {
        Ok(Served::Refs(view, service)) => git_read::refs(&shared, view, service, &request).await,
        Ok(Served::Read(view)) => git_read::upload_pack(&shared, view, request).await,
        Ok(Served::Push(view)) => push::receive_pack(&shared, view, request).await,
        Err(refusal) => {
            let refusal = shared.refuse(refusal);
            respond::refused(&refusal, respond::status_of(refusal.rule), wants_json(&request))
        }
    }
}

enum Served<'a> {
    Refs(&'a super::View, git_read::Service),
    Read(&'a super::View),
    Push(&'a super::View),
}

/// Finds the repository and asks the warrant about it.
fn serve_route<'a>(shared: &'a Shared, route: Route) -> Result<Served<'a>, Refusal> {
    let name = route.repository();
    let warrant = shared.warrant.in_force()?;
    warrant.permits_read(name)?;
    let view = shared.views.iter().find(|view| view.name == *name).ok_or_else(|| {
        Refusal::new(Rule::RepositoryNotGranted, name.as_str(), "the repository is not served in this run")
    })?;
    Ok(match route {
        Route::UploadRefs(_) => Served::Refs(view, git_read::Service::Upload),
        Route::UploadPack(_) => Served::Read(view),
        Route::ReceiveRefs(_) => {
            push::granted(&warrant, view)?;
            Served::Refs(view, git_read::Service::Receive)
        }
        Route::ReceivePack(_) => {
            push::granted(&warrant, view)?;
            Served::Push(view)
        }
    })
}

/// Whether the client asked for JSON.
pub(crate) fn wants_json(request: &Request<Incoming>) -> bool {
    request
        .headers()
        .get(http::header::ACCEPT)
        .is_some_and(|accept| accept.as_bytes().windows(16).any(|part| part == b"application/json"))
}

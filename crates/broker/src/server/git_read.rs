//! Reading: the refs of a repository, and `git upload-pack` on the run's own view.
//!
//! Promises: a run is shown the base and its own branch, and gets no object that these do not lead to.

use super::Shared;
use super::View;
use super::body::{BodyError, BodyReader};
use super::connection::wants_json;
use super::respond::{self, Answer, ChannelBody, answer, full};
use crate::error::BrokerError;
use crate::git::{GitChild, GitCommand};
use crate::parse::{pkt_line, upload};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::io;
use std::sync::Arc;
use tipstaff_model::{Refusal, Rule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Which half of git is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// Reading.
    Upload,
    /// Pushing.
    Receive,
}

/// What a client may do in a push. What is refused later is offered all the same, so that git shows our reason
/// instead of one of its own.
const PUSH_CAPABILITIES: &str = "report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta push-options object-format=sha1 agent=tipstaff";

/// Answers `info/refs`.
pub(super) async fn refs(
    shared: &Arc<Shared>,
    view: &View,
    service: Service,
    request: &Request<Incoming>,
) -> Answer {
    let result = match service {
        Service::Upload => upload_refs(shared, view, request).await,
        Service::Receive => receive_refs(shared, view).await,
    };
    match result {
        Ok(body) => {
            let content_type = match service {
                Service::Upload => "application/x-git-upload-pack-advertisement",
                Service::Receive => "application/x-git-receive-pack-advertisement",
            };
            answer(StatusCode::OK, content_type, full(body))
        }
        Err(error) => broken(&error),
    }
}

async fn upload_refs(
    shared: &Arc<Shared>,
    view: &View,
    request: &Request<Incoming>,
) -> Result<Vec<u8>, BrokerError> {
    let _permit = permit(shared).await;
    let protocol = protocol(request);
    let output =
        upload_command(view, protocol).arg("--advertise-refs").arg(view.quarantine.path()).run().await?;
    let mut body = Vec::new();
    if protocol != Some("version=2") {
        pkt_line::write(&mut body, b"# service=git-upload-pack\n");
        pkt_line::write_flush(&mut body);
    }
    body.extend_from_slice(&output.stdout);
    Ok(body)
}

/// The refs for a push, written by us: the base as what the client need not send, and the run's own ref.
async fn receive_refs(shared: &Arc<Shared>, view: &View) -> Result<Vec<u8>, BrokerError> {
    let _permit = permit(shared).await;
    let output = view
        .quarantine
        .command("for-each-ref")
        .args(["--format=%(objectname) %(refname)", "refs/heads"])
        .run()
        .await?;
    let listed = output.text();
    let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        // A base without a branch: git takes this as something that need not be sent.
        lines.push(format!("{} .have", view.quarantine.base()));
    }
    let mut body = Vec::new();
    pkt_line::write(&mut body, b"# service=git-receive-pack\n");
    pkt_line::write_flush(&mut body);
    for (position, line) in lines.iter().enumerate() {
        let text = if position == 0 { format!("{line}\0{PUSH_CAPABILITIES}\n") } else { format!("{line}\n") };
        pkt_line::write(&mut body, text.as_bytes());
    }
    pkt_line::write_flush(&mut body);
    Ok(body)
}

/// Answers `git-upload-pack`.
pub(super) async fn upload_pack(shared: &Arc<Shared>, view: &View, request: Request<Incoming>) -> Answer {
    let json = wants_json(&request);
    match upload(shared, view, request).await {
        Ok(answer) => answer,
        Err(No::Refused(refusal, status)) => {
            let refusal = shared.refuse(refusal);
            respond::refused(&refusal, status, json)
        }
        Err(No::Broken(error)) => broken(&error),
    }
}

enum No {
    Refused(Refusal, StatusCode),
    Broken(BrokerError),
}

impl From<BrokerError> for No {
    fn from(error: BrokerError) -> Self {
        Self::Broken(error)
    }
}

async fn upload(shared: &Arc<Shared>, view: &View, request: Request<Incoming>) -> Result<Answer, No> {
    let bounds = shared.config.bounds;
    let protocol = protocol(&request);
    let (parts, incoming) = request.into_parts();
    let body = match BodyReader::new(&parts.headers, incoming) {
        Ok(reader) => reader.collect(bounds.upload_request_bytes).await,
        Err(error) => Err(error),
    };
    let body = body.map_err(|error| body_refusal(error, bounds.upload_request_bytes))?;
    let wanted = upload::parse(&body).map_err(|error| {
        No::Refused(
            Refusal::new(Rule::RequestNotServed, "git-upload-pack", error.to_string()),
            StatusCode::BAD_REQUEST,
        )
    })?;
    let permit = permit(shared).await;
    if let Some(missing) = view.missing(&wanted.wants).await? {
        let why = "no granted ref leads to this object";
        return Err(No::Refused(Refusal::new(Rule::RefNotGranted, missing, why), StatusCode::FORBIDDEN));
    }
    let child = upload_command(view, protocol).arg(view.quarantine.path()).spawn()?;
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(pump(child, body, sender, permit));
    let body = ChannelBody { pieces: receiver, length: None }.boxed_unsync();
    Ok(answer(StatusCode::OK, "application/x-git-upload-pack-result", body))
}

/// Moves git's output to the client. Ends, and kills git, as soon as the client is gone.
async fn pump(
    mut child: GitChild,
    input: Vec<u8>,
    sender: mpsc::Sender<io::Result<Bytes>>,
    _permit: OwnedSemaphorePermit,
) {
    let stdin = child.take_stdin();
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // git may end before it has read everything.
            let _ = stdin.write_all(&input).await;
        }
    };
    let stdout = child.take_stdout();
    let pass = async {
        let Some(mut stdout) = stdout else { return };
        loop {
            let mut buffer = bytes::BytesMut::with_capacity(64 * 1024);
            match stdout.read_buf(&mut buffer).await {
                Ok(0) => return,
                Ok(_) if sender.send(Ok(buffer.freeze())).await.is_ok() => {}
                _ => return,
            }
        }
    };
    let gone = async {
        sender.closed().await;
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(feed, pass) } => {
            match child.wait().await {
                Ok((status, _)) if status.success() => {}
                // Cuts the answer short instead of ending it well.
                _ => {
                    let _ = sender.send(Err(io::Error::other("git upload-pack failed"))).await;
                }
            }
        }
        () = gone => child.kill(),
    }
}

fn upload_command<'a>(view: &'a View, protocol: Option<&str>) -> GitCommand<'a> {
    let command = view
        .quarantine
        .git()
        .command("upload-pack")
        .config("uploadpack.allowFilter", "true")
        // Every object of a view is granted, and one that is wanted was found in it: a partial clone of protocol 0 asks
        // by id for what it lacks.
        .config("uploadpack.allowAnySHA1InWant", "true")
        .config("uploadpack.hideRefs", "refs/tipstaff")
        .config("safe.directory", view.quarantine.path())
        .args(["--strict", "--stateless-rpc"]);
    match protocol {
        Some(version) => command.environment("GIT_PROTOCOL", version),
        None => command,
    }
}

/// The protocol that the client asks for, if it is one of git's own words.
fn protocol(request: &Request<Incoming>) -> Option<&'static str> {
    match request.headers().get("git-protocol")?.as_bytes() {
        b"version=2" => Some("version=2"),
        b"version=1" => Some("version=1"),
        _ => None,
    }
}

pub(super) async fn permit(shared: &Arc<Shared>) -> OwnedSemaphorePermit {
    let semaphore = Arc::clone(&shared.git_processes);
    #[expect(clippy::expect_used, reason = "nobody closes this semaphore")]
    semaphore.acquire_owned().await.expect("an open semaphore")
}

fn body_refusal(error: BodyError, limit: u64) -> No {
    let (rule, why, status) = match error {
        BodyError::TooLarge => (
            Rule::LimitReached,
            format!("the request has more than {limit} bytes"),
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
        BodyError::Encoding => (
            Rule::RequestAmbiguous,
            "the body is not in the encoding that it names".to_owned(),
            StatusCode::BAD_REQUEST,
        ),
        BodyError::Broken => {
            (Rule::RequestAmbiguous, "the body is cut short".to_owned(), StatusCode::BAD_REQUEST)
        }
    };
    No::Refused(Refusal::new(rule, "git-upload-pack", why), status)
}

/// Something of ours broke. The text stays out of the sandbox: it may name a path of the host.
pub(super) fn broken(error: &BrokerError) -> Answer {
    let text = format!("tipstaff: the broker could not do this ({})\n", error.code());
    answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", full(text))
}

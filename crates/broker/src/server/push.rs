//! Pushing: the command list is judged before a byte of the pack is kept, then the pack lands in quarantine.
//!
//! Promises: whatever is refused is answered ref by ref with the rule's id, so that git prints
//! `! [remote rejected] … (rule: reason)`; a refused push is read away up to a bound, so that git gets to the answer.

use super::Shared;
use super::body::BodyReader;
use super::landing;
use super::respond::{self, Answer, answer, full};
use super::view::View;
use crate::parse::pkt_line;
use crate::parse::receive::{self, Command, Front, FrontError};
use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;
use tipstaff_model::{CommitId, RefName, Refusal, Rule, Warrant};

const RESULT: &str = "application/x-git-receive-pack-result";

/// The one update of a push that passed the look at its commands.
#[derive(Debug, Clone)]
pub(super) struct Update {
    pub(super) reference: RefName,
    /// What the client believes is there.
    pub(super) old: Option<CommitId>,
    pub(super) new: CommitId,
}

/// Whether the warrant grants any push to this repository, whatever the ref.
pub(super) fn granted(warrant: &Warrant, view: &View) -> Result<(), Refusal> {
    let own = warrant.push_grant().map_or("", |grant| grant.reference.as_str());
    warrant.permits_push(&view.name, own).map(|_| ())
}

/// Answers `git-receive-pack`.
pub(super) async fn receive_pack(shared: &Arc<Shared>, view: &View, request: Request<Incoming>) -> Answer {
    let json = super::connection::wants_json(&request);
    let refuse = |refusal: Refusal, status: StatusCode| {
        let refusal = shared.refuse(refusal);
        respond::refused(&refusal, status, json)
    };
    let (parts, incoming) = request.into_parts();
    let Ok(mut body) = BodyReader::new(&parts.headers, incoming) else {
        let why = "the body has an encoding other than gzip";
        return refuse(Refusal::new(Rule::RequestAmbiguous, "a push", why), StatusCode::BAD_REQUEST);
    };
    let (front, rest) = match read_front(&mut body).await {
        Ok(read) => read,
        Err(NoFront::Front(FrontError::TooLong)) => {
            body.drain(shared.config.bounds.drain_bytes).await;
            let why = FrontError::TooLong.to_string();
            return refuse(Refusal::new(Rule::LimitReached, "a push", why), StatusCode::PAYLOAD_TOO_LARGE);
        }
        Err(NoFront::Front(error)) => {
            body.drain(shared.config.bounds.drain_bytes).await;
            let refusal = Refusal::new(Rule::RequestAmbiguous, "a push", error.to_string());
            return refuse(refusal, StatusCode::BAD_REQUEST);
        }
        Err(NoFront::Body) => {
            let why = "the body is cut short or is not in the encoding that it names";
            return refuse(Refusal::new(Rule::RequestAmbiguous, "a push", why), StatusCode::BAD_REQUEST);
        }
    };
    if front.commands.is_empty() {
        // The probe before a large push: git wants to know whether it may go on.
        return answer(StatusCode::OK, RESULT, full(Bytes::new()));
    }
    let outcome = match judge(shared, view, &front) {
        Ok(update) => {
            landing::land(shared, view, &update, &mut body, rest).await.map_err(|refusal| vec![refusal])
        }
        Err(refusals) => Err(refusals),
    };
    let refusals = match outcome {
        Ok(()) => Vec::new(),
        Err(refusals) => {
            body.drain(drain_limit(shared)).await;
            refusals.into_iter().map(|refusal| shared.refuse(refusal)).collect()
        }
    };
    answer(StatusCode::OK, RESULT, full(report(&front, &refusals)))
}

/// How much of a refused push is read away.
fn drain_limit(shared: &Shared) -> u64 {
    shared.warrant.warrant().limits.push_bytes.saturating_add(shared.config.bounds.drain_bytes)
}

enum NoFront {
    Front(FrontError),
    Body,
}

/// Reads until the commands are whole; the second value is what was read beyond them.
async fn read_front(body: &mut BodyReader) -> Result<(Front, Bytes), NoFront> {
    let mut buffer = BytesMut::new();
    loop {
        let chunk = body.next().await.map_err(|_| NoFront::Body)?;
        let Some(chunk) = chunk else {
            let error = receive::parse(&buffer).err().unwrap_or(FrontError::Incomplete);
            return Err(NoFront::Front(error));
        };
        buffer.extend_from_slice(&chunk);
        match receive::parse(&buffer) {
            Ok(front) => {
                let rest = buffer.split_off(front.length).freeze();
                return Ok((front, rest));
            }
            Err(FrontError::Incomplete) => {}
            Err(error) => return Err(NoFront::Front(error)),
        }
    }
}

/// The one update, or a refusal for each command.
fn judge(shared: &Shared, view: &View, front: &Front) -> Result<Update, Vec<Refusal>> {
    let warrant = match shared.warrant.in_force() {
        Ok(warrant) => warrant,
        Err(refusal) => return Err(front.commands.iter().map(|_| refusal.clone()).collect()),
    };
    let judged: Vec<Result<Update, Refusal>> =
        front.commands.iter().map(|command| judge_one(&warrant, view, front, command)).collect();
    if let [Ok(update)] = judged.as_slice() {
        return Ok(update.clone());
    }
    let also = |command: &Command| {
        Refusal::new(
            Rule::PushTooManyRefs,
            String::from_utf8_lossy(&command.reference),
            "a push holds exactly one ref; nothing of this one was taken",
        )
    };
    Err(judged
        .into_iter()
        .zip(&front.commands)
        .map(|(result, command)| result.err().unwrap_or_else(|| also(command)))
        .collect())
}

fn judge_one(warrant: &Warrant, view: &View, front: &Front, command: &Command) -> Result<Update, Refusal> {
    let reference = String::from_utf8_lossy(&command.reference);
    if command.is_delete() {
        return Err(Refusal::new(Rule::RefDelete, &reference, "nothing under a warrant deletes a ref"));
    }
    let grant = warrant.permits_push(&view.name, &reference)?;
    if front.options > 0 {
        return Err(Refusal::new(Rule::PushOption, &reference, "push options are not passed on"));
    }
    let id = |text: &str| {
        text.parse::<CommitId>().ok().filter(|id| id.as_str().len() == 40).ok_or_else(|| {
            Refusal::new(Rule::PushObjectCheck, &reference, "only SHA-1 object names are handled")
        })
    };
    let old = if command.is_create() { None } else { Some(id(&command.old)?) };
    Ok(Update { reference: grant.reference.clone(), old, new: id(&command.new)? })
}

/// What git reads as the result: one line for the pack, one for each ref, in the side-band when the client has one.
fn report(front: &Front, refusals: &[Refusal]) -> Vec<u8> {
    let mut lines = Vec::new();
    pkt_line::write(&mut lines, b"unpack ok\n");
    for (position, command) in front.commands.iter().enumerate() {
        let line = match refusals.get(position).or(refusals.first()) {
            Some(refusal) => {
                [b"ng ", command.reference.as_slice(), format!(" {refusal}\n").as_bytes()].concat()
            }
            None => [b"ok ", command.reference.as_slice(), b"\n"].concat(),
        };
        pkt_line::write(&mut lines, &line);
    }
    pkt_line::write_flush(&mut lines);
    let wants_report = front.has("report-status") || front.has("report-status-v2");
    if !front.has("side-band-64k") {
        return if wants_report { lines } else { Vec::new() };
    }
    let mut out = Vec::new();
    let mut told = Vec::new();
    for refusal in refusals {
        if !told.contains(&refusal.rule) {
            told.push(refusal.rule);
            let text = format!("tipstaff: {}: {}\n", refusal.rule, refusal.rule.next_step());
            pkt_line::write_band(&mut out, 2, text.as_bytes());
        }
    }
    if wants_report {
        pkt_line::write_band(&mut out, 1, &lines);
    }
    pkt_line::write_flush(&mut out);
    out
}

/// A refusal for something of ours that broke: the words stay free of paths of the host.
pub(super) fn internal(reference: &RefName, error: &crate::error::BrokerError) -> Refusal {
    Refusal::new(
        Rule::LimitReached,
        reference.as_str(),
        format!("the broker could not check this push ({})", error.code()),
    )
}

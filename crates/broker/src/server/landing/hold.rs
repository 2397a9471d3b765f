//! The first half of a landing: the pack is streamed into a folder of its own and every object of it is checked.

use super::super::Shared;
use super::super::body::BodyReader;
use super::super::push::{Update, internal};
use super::super::view::View;
use crate::error::BrokerError;
use crate::git::GitChild;
use crate::mirror::remove_dir;
use crate::parse::receive;
use crate::quarantine::Quarantine;
use bytes::{Bytes, BytesMut};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tipstaff_model::{Limits, Refusal, Rule};
use tokio::io::AsyncWriteExt;

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Length of a pack's header, and of the sum at its end.
const PACK_HEADER: usize = 12;

/// A push that is held apart. Dropping it removes its objects.
pub(super) struct Held {
    pub(super) path: PathBuf,
    pub(super) objects: u32,
    pub(super) bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        // A later start of the broker sweeps what could not be removed now.
        let _ = remove_dir(&self.path);
    }
}

/// Streams the pack into a folder of its own through `git index-pack`.
pub(super) async fn hold(
    shared: &Arc<Shared>,
    view: &View,
    update: &Update,
    body: &mut BodyReader,
    first: Bytes,
) -> Result<Held, Refusal> {
    let limits = shared.warrant.warrant().limits;
    let wanted = update.reference.as_str();
    let mut buffer = BytesMut::from(&first[..]);
    while buffer.len() < PACK_HEADER {
        match body.next().await {
            Ok(Some(chunk)) => buffer.extend_from_slice(&chunk),
            _ => return Err(Refusal::new(Rule::PushObjectCheck, wanted, "the push ends before its pack")),
        }
    }
    let header: [u8; PACK_HEADER] =
        buffer.get(..PACK_HEADER).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
    let objects = receive::pack_objects(&header)
        .ok_or_else(|| Refusal::new(Rule::PushObjectCheck, wanted, "what follows the commands is no pack"))?;
    if u64::from(objects) > limits.push_objects {
        return Err(Refusal::new(
            Rule::PushTooManyObjects,
            wanted,
            format!("{objects} objects; the warrant allows {}", limits.push_objects),
        ));
    }
    let mut held = make_folder(&view.quarantine).map_err(|error| internal(&update.reference, &error))?;
    held.objects = objects;
    if objects == 0 {
        // Nothing new: the ref is to name a commit that is here already.
        return Ok(held);
    }
    let indexing = index(shared, view, update, &held, body, buffer.freeze(), &limits);
    let bytes = tokio::time::timeout(shared.config.bounds.request_time, indexing)
        .await
        .unwrap_or_else(|_| Err(Refusal::new(Rule::LimitReached, wanted, "the push took too long")))?;
    held.bytes = bytes;
    Ok(held)
}

fn make_folder(quarantine: &Quarantine) -> Result<Held, BrokerError> {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = quarantine.incoming().join(format!("{}-{number}", std::process::id()));
    let held = Held { path, objects: 0, bytes: 0 };
    for folder in ["pack", "info"] {
        let folder = held.path.join(folder);
        fs::create_dir_all(&folder).map_err(BrokerError::state(folder, "created"))?;
    }
    let objects = quarantine.path().join("objects");
    let file = held.path.join("info/alternates");
    let line = [objects.as_os_str().as_bytes(), b"\n"].concat();
    fs::write(&file, line).map_err(BrokerError::state(file, "written"))?;
    Ok(held)
}

/// Runs index-pack over the stream; the size of the pack in bytes.
async fn index(
    shared: &Arc<Shared>,
    view: &View,
    update: &Update,
    held: &Held,
    body: &mut BodyReader,
    first: Bytes,
    limits: &Limits,
) -> Result<u64, Refusal> {
    let wanted = update.reference.as_str();
    let failed = |error: &BrokerError| internal(&update.reference, error);
    let mut child = view
        .quarantine
        .command("index-pack")
        .environment("GIT_OBJECT_DIRECTORY", &held.path)
        .args(["--stdin", "--fix-thin", "--strict"])
        .arg(format!("--max-input-size={}", limits.push_bytes))
        .memory_limit(shared.config.bounds.check_memory)
        .file_limit(limits.push_bytes.saturating_mul(2).max(1024 * 1024))
        .spawn()
        .map_err(|error| failed(&error))?;
    let fed = feed(&mut child, body, first, limits.push_bytes).await;
    let too_large = || {
        Refusal::new(
            Rule::PushTooLarge,
            wanted,
            format!("the pack has more than the {} bytes that the warrant allows", limits.push_bytes),
        )
    };
    let bytes = match fed {
        Ok(bytes) => bytes,
        Err(error) => {
            child.kill();
            let _ = child.wait().await;
            return Err(match error {
                Fed::TooLarge => too_large(),
                Fed::Body => Refusal::new(Rule::PushObjectCheck, wanted, "the pack is cut short"),
            });
        }
    };
    let waited = tokio::time::timeout(shared.config.bounds.check_time, child.wait()).await;
    let (status, message) = match waited {
        Ok(result) => result.map_err(|error| failed(&error))?,
        Err(_) => {
            child.kill();
            return Err(Refusal::new(Rule::LimitReached, wanted, "checking the pack took too long"));
        }
    };
    if status.success() {
        return Ok(bytes);
    }
    if message.contains("exceeds maximum allowed size") || message.contains("File too large") {
        return Err(too_large());
    }
    if message.contains("Out of memory") || message.contains("malloc failed") {
        let why = "an object is larger than can be checked in the memory that a check has";
        return Err(Refusal::new(Rule::PushTooLarge, wanted, why));
    }
    Err(Refusal::new(Rule::PushObjectCheck, wanted, first_line(&message)))
}

enum Fed {
    TooLarge,
    Body,
}

/// Copies the pack to git. A git that stops reading has found a fault; the rest is left unread then.
async fn feed(child: &mut GitChild, body: &mut BodyReader, first: Bytes, limit: u64) -> Result<u64, Fed> {
    let Some(mut stdin) = child.take_stdin() else { return Ok(0) };
    let mut total = 0_u64;
    let mut chunk = Some(first);
    while let Some(bytes) = chunk {
        total = total.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if total > limit {
            return Err(Fed::TooLarge);
        }
        if stdin.write_all(&bytes).await.is_err() {
            break;
        }
        chunk = body.next().await.map_err(|_| Fed::Body)?;
    }
    let _ = stdin.shutdown().await;
    Ok(total)
}

/// What git says first, without paths of the host.
fn first_line(message: &str) -> String {
    let line = message
        .lines()
        .map(|line| line.trim_start_matches("fatal: ").trim_start_matches("error: "))
        .find(|line| !line.is_empty())
        .unwrap_or("git found a fault in the objects");
    if line.contains("/") && !line.contains("object ") {
        "git found a fault in the objects".to_owned()
    } else {
        line.to_owned()
    }
}

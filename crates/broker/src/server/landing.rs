//! Landing: how the objects of a push come into quarantine, and what is checked before its ref moves.
//!
//! Promises, in this order: the objects are held in a folder of their own, where nothing else sees them; `git
//! index-pack --strict` checks each; the new tip is a commit whose history is whole, descends from the base and from
//! what was pushed before; every changed path is granted; the audit record is durable; then, and only then, the
//! objects move into the repository and the ref is swapped against its old value. Whatever ends early leaves nothing.

use super::body::BodyReader;
use super::push::{Update, internal};
use super::view::View;
use super::{Shared, git_read};
use crate::broker::PushRecord;
use crate::error::BrokerError;
use crate::git::{GitChild, GitCommand};
use crate::mirror::remove_dir;
use crate::parse::changes::{self, Change, MODE_SUBMODULE};
use crate::parse::receive;
use crate::quarantine::Quarantine;
use bytes::{Bytes, BytesMut};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tipstaff_model::{AuditAction, AuditDraft, AuditOutcome, CommitId, Limits, Refusal, Rule, Warrant};
use tokio::io::AsyncWriteExt;

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Length of a pack's header, and of the sum at its end.
const PACK_HEADER: usize = 12;

/// A push that is held apart. Dropping it removes its objects.
struct Held {
    path: PathBuf,
    objects: u32,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        // A later start of the broker sweeps what could not be removed now.
        let _ = remove_dir(&self.path);
    }
}

/// Takes a push whose commands were judged.
pub(super) async fn land(
    shared: &Arc<Shared>,
    view: &View,
    update: &Update,
    body: &mut BodyReader,
    first: Bytes,
) -> Result<(), Refusal> {
    let _permit = git_read::permit(shared).await;
    let failed = |error: &BrokerError| internal(&update.reference, error);
    let held = hold(shared, view, update, body, first).await?;
    let checks = Checks { shared, quarantine: &view.quarantine, held: &held, update };
    checks.object_sizes().await?;
    // From here on one push at a time: what is compared must not move before it is written.
    let turn = Arc::clone(&view.landing).lock_owned().await;
    let tip = view.quarantine.tip(&update.reference).await.map_err(|error| failed(&error))?;
    checks.history(tip.as_ref()).await?;
    let files = checks.paths(tip.as_ref()).await?;
    shared.warrant.in_force()?;
    let settle = settle(
        Arc::clone(shared),
        view.name.clone(),
        view.quarantine.clone(),
        update.clone(),
        tip,
        held,
        files,
    );
    // On a task of its own: a client that goes away now, or a warrant that lapses, must not part the record from the
    // ref.
    let settled = tokio::spawn(async move {
        let result = settle.await;
        drop(turn);
        result
    });
    settled.await.unwrap_or_else(|_| {
        Err(Refusal::new(
            Rule::LimitReached,
            update.reference.as_str(),
            "the broker failed while it wrote the push down",
        ))
    })
}

/// Streams the pack into a folder of its own through `git index-pack`.
async fn hold(
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

/// The checks of a push that is held.
struct Checks<'a> {
    shared: &'a Shared,
    quarantine: &'a Quarantine,
    held: &'a Held,
    update: &'a Update,
}

impl Checks<'_> {
    fn refusal(&self, rule: Rule, why: impl AsRef<str>) -> Refusal {
        Refusal::new(rule, self.update.reference.as_str(), why)
    }

    fn failed(&self, error: &BrokerError) -> Refusal {
        match error {
            BrokerError::GitTimeout { .. } => {
                self.refusal(Rule::LimitReached, "checking the push took too long")
            }
            other => internal(&self.update.reference, other),
        }
    }

    /// A command that sees the held objects.
    fn command(&self, name: &'static str) -> GitCommand<'_> {
        self.quarantine
            .command(name)
            .environment("GIT_OBJECT_DIRECTORY", &self.held.path)
            .memory_limit(self.shared.config.bounds.check_memory)
            .timeout(self.shared.config.bounds.check_time)
    }

    /// No object may be larger, once inflated, than a file of the run: a small pack can hold huge ones.
    async fn object_sizes(&self) -> Result<(), Refusal> {
        let limits = self.shared.warrant.warrant().limits;
        if self.held.objects == 0 {
            return Ok(());
        }
        let mut ids = Vec::new();
        let entries = fs::read_dir(self.held.path.join("pack"))
            .map_err(|source| self.failed(&BrokerError::state(&self.held.path, "read")(source)))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "idx") {
                let index = fs::read(&path)
                    .map_err(|source| self.failed(&BrokerError::state(&path, "read")(source)))?;
                let output = self
                    .command("show-index")
                    .output_limit(usize::MAX - 1)
                    .run_with_input(index)
                    .await
                    .map_err(|error| self.failed(&error))?;
                for line in output.stdout.split(|b| *b == b'\n') {
                    if let Some(id) = line.split(|b| *b == b' ').nth(1) {
                        ids.extend_from_slice(id);
                        ids.push(b'\n');
                    }
                }
            }
        }
        let output = self
            .command("cat-file")
            .arg("--batch-check=%(objectsize)")
            .output_limit(usize::MAX - 1)
            .run_with_input(ids)
            .await
            .map_err(|error| self.failed(&error))?;
        let mut sum = 0_u64;
        for size in output.stdout.split(|b| *b == b'\n').filter_map(|line| std::str::from_utf8(line).ok()) {
            let size: u64 = size.parse().unwrap_or(0);
            sum = sum.saturating_add(size);
            if size > limits.file_bytes || sum > limits.disk_bytes {
                return Err(self.refusal(
                    Rule::PushTooLarge,
                    format!(
                        "an object has more than {} bytes, or all of them more than {}",
                        limits.file_bytes, limits.disk_bytes
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The tip is a commit, its history is whole, and it descends from the base and from what was there.
    async fn history(&self, tip: Option<&CommitId>) -> Result<(), Refusal> {
        let Update { old, new, .. } = self.update;
        if old.as_ref() != tip {
            let there = tip.map_or_else(|| "nothing".to_owned(), |tip| tip.short().to_owned());
            return Err(self.refusal(
                Rule::ForcePush,
                format!("the branch is at {there}, not where this push expects it: fetch first"),
            ));
        }
        let kind = self
            .command("cat-file")
            .args(["-t", new.as_str()])
            .finish()
            .await
            .map_err(|error| self.failed(&error))?;
        if kind.text() != "commit" {
            return Err(self.refusal(Rule::PushObjectCheck, format!("{} is not a commit", new.short())));
        }
        let mut input = format!("{new}\n^{}\n", self.quarantine.base());
        if let Some(tip) = tip {
            input.push_str(&format!("^{tip}\n"));
        }
        let whole = self
            .command("rev-list")
            .args(["--objects", "--stdin", "--quiet"])
            .finish_with_input(input.into_bytes())
            .await
            .map_err(|error| self.failed(&error))?;
        if !whole.status.success() {
            return Err(self.refusal(Rule::PushObjectCheck, "an object that the push needs is missing"));
        }
        if !self.descends(self.quarantine.base()).await? {
            return Err(self.refusal(
                Rule::BaseNotAncestor,
                format!("{} does not descend from the base {}", new.short(), self.quarantine.base().short()),
            ));
        }
        match tip {
            Some(tip) if !self.descends(tip).await? => Err(self.refusal(
                Rule::ForcePush,
                format!("{} does not descend from {}, which was pushed before", new.short(), tip.short()),
            )),
            _ => Ok(()),
        }
    }

    async fn descends(&self, ancestor: &CommitId) -> Result<bool, Refusal> {
        let output = self
            .command("merge-base")
            .args(["--is-ancestor", ancestor.as_str(), self.update.new.as_str()])
            .finish()
            .await
            .map_err(|error| self.failed(&error))?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(self.refusal(Rule::PushObjectCheck, "the history of the push can't be followed")),
        }
    }

    /// Every path that any new commit changes, and every path that differs from the base, is granted. Returns how many
    /// files differ from the base.
    async fn paths(&self, tip: Option<&CommitId>) -> Result<usize, Refusal> {
        let warrant = self.shared.warrant.in_force()?;
        let new = self.update.new.as_str();
        let base = self.quarantine.base().as_str();
        let net = self.changes(&[base, new, "--"], Vec::new()).await?;
        let most = usize::try_from(warrant.limits.push_files).unwrap_or(usize::MAX);
        if net.len() > most {
            return Err(self.refusal(
                Rule::PushTooManyFiles,
                format!("{} files differ from the base; the warrant allows {most}", net.len()),
            ));
        }
        let mut range = vec![new.to_owned(), format!("^{base}")];
        range.extend(tip.map(|tip| format!("^{tip}")));
        let commits = self
            .command("rev-list")
            .args(&range)
            .arg("--")
            .run()
            .await
            .map_err(|error| self.failed(&error))?;
        // A merge is compared with each parent: what it took from one side is judged again, which does no harm.
        let each = self.changes(&["--stdin", "--root", "-m"], commits.stdout).await?;
        for change in net.iter().chain(&each) {
            self.permits(warrant, change)?;
        }
        Ok(net.len())
    }

    fn permits(&self, warrant: &Warrant, change: &Change) -> Result<(), Refusal> {
        warrant.permits_path_write(&change.path)?;
        let submodule = change.new_mode == MODE_SUBMODULE || change.old_mode == MODE_SUBMODULE;
        if submodule && !warrant.tools.submodules {
            let path = String::from_utf8_lossy(&change.path);
            return Err(Refusal::new(
                Rule::PathNotGranted,
                &path,
                format!("{path} is a submodule, and the warrant grants none"),
            ));
        }
        Ok(())
    }

    async fn changes(&self, arguments: &[&str], input: Vec<u8>) -> Result<Vec<Change>, Refusal> {
        let output = self
            .command("diff-tree")
            .args(["-r", "-z", "--raw", "--no-abbrev", "--no-renames", "--no-commit-id"])
            .args(["--no-ext-diff", "--no-textconv"])
            .args(arguments)
            .output_limit(256 * 1024 * 1024)
            .run_with_input(input)
            .await
            .map_err(|error| match error {
                BrokerError::GitOutput { .. } => {
                    self.refusal(Rule::PushTooManyFiles, "more files change than can be listed")
                }
                other => self.failed(&other),
            })?;
        changes::parse(&output.stdout)
            .ok_or_else(|| self.failed(&BrokerError::GitUnexpected { command: "diff-tree" }))
    }
}

/// Writes the push down: the audit record first, then the objects, then the ref.
async fn settle(
    shared: Arc<Shared>,
    repository: tipstaff_model::RepositoryName,
    quarantine: Quarantine,
    update: Update,
    tip: Option<CommitId>,
    held: Held,
    files: usize,
) -> Result<(), Refusal> {
    let Update { reference, new, .. } = update;
    let run = shared.warrant.warrant().run;
    let old = tip.as_ref().map_or("none", CommitId::as_str).to_owned();
    let draft = |outcome| {
        AuditDraft::new(format!("run:{run}"), AuditAction::PushAccepted, format!("run:{run}"))
            .outcome(outcome)
            .with("repository", &repository)
            .with("ref", &reference)
            .with("old", &old)
            .with("new", &new)
            .with("base", quarantine.base())
            .with("warrant", shared.warrant.warrant().id)
            .with("objects", held.objects)
            .with("bytes", held.bytes)
            .with("files", files)
    };
    if shared.control.record(draft(AuditOutcome::Ok)).await.is_err() {
        return Err(Refusal::new(
            Rule::AuditUnavailable,
            reference.as_str(),
            "the push could not be written to the audit log",
        ));
    }
    let zeros = "0".repeat(40);
    let moved = match move_objects(&held, &quarantine) {
        Ok(()) => quarantine
            .command("update-ref")
            .args(["--no-deref", reference.as_str(), new.as_str()])
            .arg(tip.as_ref().map_or(zeros.as_str(), CommitId::as_str))
            .run()
            .await
            .map(|_| ()),
        Err(error) => Err(error),
    };
    match moved {
        Ok(()) => {
            shared.pushed(PushRecord { repository, reference, old: tip, new });
            Ok(())
        }
        Err(error) => {
            // The log says that it did not come to pass; if even that fails, the refusal below still says so.
            let _ = shared.control.record(draft(AuditOutcome::Failed)).await;
            Err(internal(&reference, &error))
        }
    }
}

/// Moves the held packs into the repository, the index last: a pack counts from the moment its index is there.
fn move_objects(held: &Held, quarantine: &Quarantine) -> Result<(), BrokerError> {
    let from = held.path.join("pack");
    let to = quarantine.path().join("objects/pack");
    let mut files: Vec<PathBuf> = fs::read_dir(&from)
        .map_err(BrokerError::state(&from, "read"))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_none_or(|extension| extension != "keep"))
        .collect();
    files.sort_by_key(|path| path.extension().is_some_and(|extension| extension == "idx"));
    for file in files {
        let target = to.join(file.file_name().unwrap_or_default());
        fs::rename(&file, &target).map_err(BrokerError::state(target, "written"))?;
    }
    fs::File::open(&to).and_then(|folder| folder.sync_all()).map_err(BrokerError::state(to, "written"))
}

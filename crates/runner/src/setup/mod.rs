//! The set-up of a repository: what `.tipstaff/setup` of the base commit does in a workspace before the command or the agent
//! starts, in a sandbox of its own, under a warrant of its own; and what came of it for later runs.
//!
//! Promises: it is the base commit's, never the run's; it reaches what the warrant grants to set-ups and nothing else, pushes
//! nothing, asks no model and holds no secret; when it fails, nothing else starts; what it makes lies under the run's own
//! layer and is no part of the run's change; a tracked file is always the base's.

mod cache;
mod copied;
mod harvest;
mod key;
mod lay;
mod outlook;
mod table;

pub use cache::{ListedSetup, SetupCache, SetupCacheBounds, SetupEntry};
pub use outlook::SetupOutlook;
pub use table::{SETUP_SCRIPT, SetupPlan, SetupScript, SetupTable};

use crate::RunnerError;
use crate::announce::{Notice, Observer, Stream};
use crate::collect::no_listener;
use crate::compile::{SandboxRules, compile_spec};
use crate::prepare::{Materials, Prepared, prepare};
use crate::runner::{Job, Runner};
use crate::session::Session;
use crate::supervise::{Stall, Supervised, Watch, supervise};
use cache::{HeldEntry, MOST_ENTRIES, NewEntry};
use copied::Copied;
use harvest::patterns;
use lay::lay_files;
use serde_json::json;
use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tipstaff_broker::BrokerHandle;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::{
    AuditAction, AuditDraft, AuditOutcome, ControlPlane, EventDraft, EventKind, ExitReason, LiveWarrant,
    RunState, SetupChoice, SetupOutcome, SetupReport, Warrant, WarrantId,
};
use tipstaff_sandbox::{SandboxError, SandboxSpec, SettledLayer, StdioPolicy, Workspace, settle_layer};
use tokio::time::Instant;

/// In which form what a set-up made is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A tree that lies under the run's own layer.
    Layer,
    /// An archive that is unpacked into the workspace, where there are no layers.
    Archive,
}

impl Form {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Layer => "tree",
            Self::Archive => "archive.tar",
        }
    }
}

/// What a worker is told of the set-up of its job.
#[derive(Debug, Clone)]
pub struct JobSetup {
    /// What is to be done.
    pub plan: SetupPlan,
    /// Whether it is.
    pub choice: SetupChoice,
    /// The person's own tree, where the source is one of this machine.
    pub tree: Option<PathBuf>,
    /// How much of what set-ups made is kept.
    pub bounds: SetupCacheBounds,
}

/// What lies ready for a workspace.
#[derive(Debug)]
pub(crate) struct Laid {
    form: Form,
    /// The layer or the archive.
    content: PathBuf,
    exclude: Vec<String>,
    /// Keeps the entry from being removed.
    _held: Option<HeldEntry>,
}

/// How the set-up of a run came out.
enum SetUp {
    /// There is none.
    Nothing,
    /// It is done.
    Ready(Laid),
    /// It was ended from outside, and so is the run.
    Ended(RunUpdate),
}

/// What a run begins with.
#[expect(clippy::large_enum_variant, reason = "there is one of it in a run")]
pub(crate) enum Ready {
    /// A workspace, and what it is laid upon.
    Workspace(Prepared, Option<Laid>),
    /// The set-up was ended from outside, and so is the run.
    Ended(RunUpdate),
}

/// Who does a set-up, for whom.
pub(crate) struct SettingUp<'a, M, S> {
    pub(crate) runner: &'a Runner,
    pub(crate) job: &'a Job,
    pub(crate) live: &'a LiveWarrant,
    pub(crate) control: &'a Arc<dyn ControlPlane>,
    pub(crate) observer: &'a Arc<dyn Observer>,
    /// What a workspace of this name is made from.
    pub(crate) materials: &'a M,
    /// Serves a listener under a warrant.
    pub(crate) serve: &'a S,
}

/// Tells what a set-up writes beside what the run itself writes.
struct Aside(Arc<dyn Observer>);

impl Observer for Aside {
    fn notice(&self, notice: Notice) {
        self.0.notice(match notice {
            Notice::Output(_, text) => Notice::Output(Stream::Stderr, text),
            other => other,
        });
    }
}

impl Laid {
    /// The layer that lies under the run's own, where it is one.
    pub(crate) fn layer(&self) -> Option<&Path> {
        (self.form == Form::Layer).then_some(self.content.as_path())
    }

    /// What git is told to leave out.
    pub(crate) fn exclude(&self) -> String {
        let mut text = String::new();
        for pattern in &self.exclude {
            text.push_str(pattern);
            text.push('\n');
        }
        text
    }
}

/// A span for people: with tenths of a second below a minute.
fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

impl<'m, M, S> SettingUp<'_, M, S>
where
    M: Fn(bool, &'static str) -> Materials<'m>,
    S: Fn(&Arc<LiveWarrant>, TcpListener) -> Result<BrokerHandle, RunnerError>,
{
    /// Does the set-up of the run, or takes what an earlier one made, and makes the run's workspace upon it.
    ///
    /// # Errors
    /// [`RunnerError::SetupFailed`] when the script fails; what sandbox and control plane say.
    pub(crate) async fn ready(&self) -> Result<Ready, RunnerError> {
        let laid = match self.run().await? {
            SetUp::Nothing => None,
            SetUp::Ready(laid) => Some(laid),
            SetUp::Ended(update) => return Ok(Ready::Ended(update)),
        };
        let prepared = self.workspace(laid.as_ref(), "workspace").await?;
        Ok(Ready::Workspace(prepared, laid))
    }

    /// Another workspace upon the same.
    ///
    /// # Errors
    /// As [`prepare`], and what the sandbox says.
    pub(crate) async fn workspace(
        &self,
        laid: Option<&Laid>,
        name: &'static str,
    ) -> Result<Prepared, RunnerError> {
        let overlay = !self.runner.no_overlay.load(Ordering::Relaxed);
        let over = laid.and_then(Laid::layer).map(Path::to_owned);
        let mut prepared = prepare(Materials { over, ..(self.materials)(overlay, name) }).await?;
        if let Some(laid) = laid {
            self.runner.lay(laid, &mut prepared, &self.live.warrant()).await?;
        }
        Ok(prepared)
    }

    async fn run(&self) -> Result<SetUp, RunnerError> {
        let Some(setup) = &self.job.setup else { return Ok(SetUp::Nothing) };
        if setup.choice == SetupChoice::Skip {
            self.runner.remark("set-up: left out, as asked", self.control, self.observer).await?;
            return Ok(SetUp::Nothing);
        }
        let warrant = self.live.warrant();
        if warrant.permits_exec().is_err() || !warrant.kind.may_write() {
            let text =
                format!("set-up: left out, since a {} warrant of this role executes nothing", warrant.kind);
            self.runner.remark(&text, self.control, self.observer).await?;
            return Ok(SetUp::Nothing);
        }
        let begun = Instant::now();
        let copied = self.copied(setup).await?;
        let overlay = !self.runner.no_overlay.load(Ordering::Relaxed);
        match self.with_form(setup, &copied, overlay, begun).await {
            Err(RunnerError::Sandbox(
                SandboxError::OverlayUnsupported { .. } | SandboxError::IdMapUnsupported { .. },
            )) if !self.runner.no_overlay.swap(true, Ordering::Relaxed) => {
                crate::recover::remove_folder(&self.runner.config.layout, warrant.run)?;
                self.with_form(setup, &copied, false, begun).await
            }
            other => other,
        }
    }

    async fn copied(&self, setup: &JobSetup) -> Result<Copied, RunnerError> {
        let paths = setup.plan.table.copy.clone();
        if paths.is_empty() {
            return Ok(Copied::default());
        }
        let Some(tree) = setup.tree.clone() else {
            let text = "set-up: nothing is copied, since the repository is not one of this machine";
            self.runner.remark(text, self.control, self.observer).await?;
            return Ok(Copied { files: Vec::new(), missing: paths });
        };
        let redactor = self.job.redactor.clone();
        let copied =
            blocking("reading the files of setup.copy", move || Ok(copied::read(&tree, &paths, &redactor)))
                .await??;
        for path in &copied.missing {
            let text = format!("set-up: {path} is not there, so it is not copied");
            self.runner.remark(&text, self.control, self.observer).await?;
        }
        Ok(copied)
    }

    async fn with_form(
        &self,
        setup: &JobSetup,
        copied: &Copied,
        overlay: bool,
        begun: Instant,
    ) -> Result<SetUp, RunnerError> {
        let warrant = self.live.warrant();
        let form = if overlay { Form::Layer } else { Form::Archive };
        let key = key::key(
            &setup.plan,
            copied,
            &key::KeyParts {
                org: warrant.org,
                repository: &self.job.task.repository,
                source: &self.job.task.source,
                form,
                grants: &self.runner.config.grants,
                system: &key::system(),
            },
        );
        let cache = self.runner.setups(warrant.org)?;
        if setup.plan.table.cache && setup.choice == SetupChoice::Usual {
            let (cache, wanted) = (cache.clone(), key.clone());
            // What can't be read is made anew.
            let held = blocking("looking for an earlier set-up", move || cache.find(&wanted, form))
                .await
                .ok()
                .flatten();
            if let Some(held) = held {
                return self.reuse(held, form, begun).await;
            }
        }
        self.make(setup, copied, &cache, (form, key, begun)).await
    }

    /// Takes what an earlier set-up made.
    async fn reuse(&self, held: HeldEntry, form: Form, begun: Instant) -> Result<SetUp, RunnerError> {
        let run = self.live.warrant().run;
        let draft = AuditDraft::new(format!("run:{run}"), AuditAction::SetupReused, format!("run:{run}"))
            .with("key", &held.entry.key)
            .with("script", &held.entry.script)
            .with("made_at", held.entry.made_at)
            .with("entries", held.entry.entries);
        self.control.record(draft).await?;
        let report = SetupReport {
            outcome: SetupOutcome::Cached,
            duration_ms: millis(begun.elapsed()),
            saved_ms: held.entry.duration_ms,
            key: held.entry.key.clone(),
            entries: held.entry.entries,
            bytes: held.entry.bytes,
        };
        self.tell(&report, format!("set-up: from cache (saved {})", seconds(report.saved_ms))).await?;
        let (content, exclude) = (held.content.clone(), held.entry.exclude.clone());
        Ok(SetUp::Ready(Laid { form, content, exclude, _held: Some(held) }))
    }

    /// Does the set-up.
    async fn make(
        &self,
        setup: &JobSetup,
        copied: &Copied,
        cache: &SetupCache,
        (form, key, begun): (Form, String, Instant),
    ) -> Result<SetUp, RunnerError> {
        let runner = self.runner;
        let run = self.live.warrant().run;
        let id = || WarrantId::new(runner.config.clock.as_ref(), runner.config.entropy.as_ref());
        let forged =
            |error: tipstaff_model::warrant::NarrowError| RunnerError::WarrantForged(error.to_string());
        let lesser = self.live.warrant().for_setup(id()).map_err(forged)?;
        let lesser = Arc::new(LiveWarrant::new(lesser, Arc::clone(&runner.config.clock)));
        let prepared = prepare((self.materials)(form == Form::Layer, "setup")).await?;
        lay_files(&prepared, copied)?;
        let script = setup.plan.script.as_ref().map_or("", |script| &script.id);
        let mut draft =
            AuditDraft::new(format!("run:{run}"), AuditAction::SetupStarted, format!("run:{run}"))
                .with("key", &key)
                .with("script", script)
                .with("warrant", lesser.warrant().id)
                .with("parent", self.live.warrant().id)
                .with("hosts", list(&lesser.warrant()));
        for file in &copied.files {
            draft = draft.with("copied", format!("{} sha256:{}", file.path, file.digest));
        }
        self.control.record(draft).await?;
        let mut evidence = String::new();
        if setup.plan.script.is_some() {
            self.say(json!({ "step": "started", "script": script, "hosts": list(&lesser.warrant()) }))
                .await?;
            self.observer.notice(Notice::Remark(format!("set-up: running {SETUP_SCRIPT}")));
            let narrowed = |now: &Warrant| {
                let taken = now.for_setup(id()).ok().and_then(|less| lesser.narrow_to(less).ok());
                if taken.is_none() {
                    lesser.revoke();
                }
            };
            let supervised = self.script(setup, &lesser, &narrowed, &prepared, &mut evidence).await?;
            if let Some(ended) = self.judge(setup, &supervised, (&key, &evidence, begun)).await? {
                return Ok(ended);
            }
        }
        let (laid, settled, report) =
            self.keep(setup, cache, (form, key, begun), &prepared, &lesser.warrant()).await?;
        let mut draft = self.ended(&report, &evidence).with("restored", settled.restored);
        draft.outcome = AuditOutcome::Ok;
        self.control.record(draft).await?;
        if settled.restored > 0 {
            let names: Vec<String> =
                settled.restored_names.iter().take(5).map(|path| path.display().to_string()).collect();
            let more = if settled.restored > 5 { " …" } else { "" };
            let text = format!(
                "set-up: {} tracked file{} that it changed {} as in the base again: {}{more}",
                settled.restored,
                if settled.restored == 1 { "" } else { "s" },
                if settled.restored == 1 { "is" } else { "are" },
                names.join(", ")
            );
            let text = self.job.redactor.redact(&text).into_owned();
            runner.remark(&text, self.control, self.observer).await?;
        }
        self.tell(&report, format!("set-up: {}", seconds(report.duration_ms))).await?;
        Ok(SetUp::Ready(laid))
    }

    /// Runs the script to its end.
    async fn script(
        &self,
        setup: &JobSetup,
        lesser: &Arc<LiveWarrant>,
        narrowed: &(dyn Fn(&Warrant) + Send + Sync),
        prepared: &Prepared,
        evidence: &mut String,
    ) -> Result<Supervised, RunnerError> {
        let warrant = lesser.warrant();
        let spec =
            self.spec(&warrant, prepared, ["sh", "-c", "exec ./.tipstaff/setup"].map(OsString::from).into());
        let before = usage(&prepared.measured);
        let mut running = self.runner.start(spec).await?;
        let broker = (self.serve)(lesser, running.listener.take().ok_or_else(no_listener)?)?;
        let kinds = [EventKind::Setup, EventKind::Setup];
        let mut session = Session::new(&self.job.redactor, None, warrant.limits.output_bytes, kinds);
        let aside = Aside(Arc::clone(self.observer));
        let supervised = supervise(
            &mut running,
            &Watch {
                warrant: self.live,
                key: &self.job.key,
                narrowed,
                control: self.control.as_ref(),
                observer: &aside,
                clock: self.runner.config.clock.as_ref(),
                cancel: &self.job.cancel,
                measured: vec![prepared.measured.clone()],
                measured_before: before,
                wall: setup.plan.table.timeout,
                stall: Stall { warning: None, stop: None },
                broker: None,
            },
            &mut session,
            None,
        )
        .await;
        broker.stop().await;
        *evidence = session.evidence();
        supervised
    }

    fn spec(&self, warrant: &Warrant, prepared: &Prepared, argv: Vec<OsString>) -> SandboxSpec {
        compile_spec(
            warrant,
            SandboxRules {
                identity: prepared.identity.clone(),
                workspace: prepared.workspace.clone(),
                grants: self.runner.config.grants.clone(),
                read_only_mounts: prepared.read_only_mounts.clone(),
                home_folders: Vec::new(),
                env: vec![("CI".to_owned(), "true".to_owned())],
                argv,
                stdio: StdioPolicy::PIPED_OUTPUT,
                // Package managers keep much at home while they work.
                agent: true,
            },
        )
    }

    /// `None` when the script did its work; how the run ends when it was ended from outside.
    async fn judge(
        &self,
        setup: &JobSetup,
        supervised: &Supervised,
        (key, evidence, begun): (&str, &str, Instant),
    ) -> Result<Option<SetUp>, RunnerError> {
        let failed = match supervised.stopped {
            None if supervised.exit.success() => return Ok(None),
            None => match supervised.exit.signal {
                Some(signal) => format!("{SETUP_SCRIPT} was ended by signal {signal}"),
                None => format!("{SETUP_SCRIPT} ended with {}", supervised.exit.code),
            },
            Some(ExitReason::TimedOut) if self.live.lapse().is_none() => format!(
                "{SETUP_SCRIPT} was not done within {} s; setup.timeout in tipstaff.toml sets the time",
                setup.plan.table.timeout.as_secs()
            ),
            Some(reason @ (ExitReason::OutOfMemory | ExitReason::OutOfDisk)) => {
                format!("{SETUP_SCRIPT} needed too much: {reason}")
            }
            Some(reason) => {
                let cancelled = reason == ExitReason::CancelledByPerson;
                let state = if cancelled { RunState::Cancelled } else { RunState::Failed };
                let update =
                    RunUpdate { state: Some(state), exit_reason: Some(reason), ..RunUpdate::default() };
                return Ok(Some(SetUp::Ended(update)));
            }
        };
        let report = SetupReport {
            outcome: SetupOutcome::Failed,
            duration_ms: millis(begun.elapsed()),
            saved_ms: 0,
            key: key.to_owned(),
            entries: 0,
            bytes: 0,
        };
        let mut draft = self.ended(&report, evidence).with("code", supervised.exit.code);
        draft.outcome = AuditOutcome::Failed;
        self.control.record(draft).await?;
        self.tell(&report, format!("set-up: failed after {}", seconds(report.duration_ms))).await?;
        Err(RunnerError::SetupFailed(failed))
    }

    fn ended(&self, report: &SetupReport, evidence: &str) -> AuditDraft {
        let run = self.live.warrant().run;
        AuditDraft::new(format!("run:{run}"), AuditAction::SetupEnded, format!("run:{run}"))
            .with("key", &report.key)
            .with("duration_ms", report.duration_ms)
            .with("entries", report.entries)
            .with("bytes", report.bytes)
            .with("evidence", format!("sha256:{evidence}"))
    }

    /// Makes what the script left into what the run is laid upon, and keeps it for later runs.
    async fn keep(
        &self,
        setup: &JobSetup,
        cache: &SetupCache,
        (form, key, begun): (Form, String, Instant),
        prepared: &Prepared,
        warrant: &Warrant,
    ) -> Result<(Laid, SettledLayer, SetupReport), RunnerError> {
        let folder = self.runner.config.layout.run(warrant.run);
        let (content, settled, list) = match form {
            Form::Layer => {
                let (upper, lower) = (prepared.measured.clone(), prepared.base.clone());
                let owner = std::fs::metadata(&folder)
                    .map(|status| (status.uid(), status.gid()))
                    .map_err(RunnerError::io("looking at the run's folder"))?;
                let settled = blocking("looking through what the set-up made", move || {
                    settle_layer(&upper, &lower, Some(owner), MOST_ENTRIES)
                })
                .await
                .map_err(|error| RunnerError::SetupFailed(format!("what it made can't be used: {error}")))?;
                let workspace = match &prepared.workspace {
                    Workspace::Overlay { lower, .. } => Workspace::Overlay {
                        lower: lower.clone(),
                        over: Some(prepared.measured.clone()),
                        state: folder.join("setup-look"),
                    },
                    other => other.clone(),
                };
                let list = self.harvest(warrant, prepared, workspace, None).await?;
                (prepared.measured.clone(), settled, list)
            }
            Form::Archive => {
                let archive = folder.join("setup.tar");
                let workspace = prepared.workspace.clone();
                let list = self.harvest(warrant, prepared, workspace, Some(&archive)).await?;
                (archive, SettledLayer::default(), list)
            }
        };
        let (exclude, unnamed) = patterns(&list);
        if unnamed {
            let text = "set-up: a file that it made has a name that git can't be told to leave out";
            self.runner.remark(text, self.control, self.observer).await?;
        }
        let duration_ms = millis(begun.elapsed());
        let mut report = SetupReport {
            outcome: SetupOutcome::Done,
            duration_ms,
            saved_ms: 0,
            key: key.clone(),
            entries: settled.entries,
            bytes: usage(&content),
        };
        let mut laid = Laid { form, content: content.clone(), exclude: exclude.clone(), _held: None };
        if setup.plan.table.cache {
            let (cache, bounds) = (cache.clone(), setup.bounds);
            let repository = self.job.task.repository.to_string();
            let script = setup.plan.script.as_ref().map_or_else(String::new, |script| script.id.clone());
            let made_at = self.runner.config.clock.wall_ms();
            let kept = blocking("keeping what the set-up made", move || {
                let new = NewEntry {
                    key: &key,
                    repository: &repository,
                    script: &script,
                    made_at,
                    duration_ms,
                    exclude: &exclude,
                    form,
                };
                let held = cache.keep(&new, &content)?;
                // Room for it is made while it is in use, so it stays.
                let _pruned = cache.prune(bounds);
                Ok(held)
            })
            .await;
            match kept {
                Ok(Some(held)) => {
                    report.entries = held.entry.entries;
                    report.bytes = held.entry.bytes;
                    laid.content.clone_from(&held.content);
                    laid._held = Some(held);
                }
                Ok(None) => {}
                Err(error) => {
                    if !laid.content.exists() {
                        return Err(error);
                    }
                    let text = format!("set-up: what it made is not kept for later runs: {error}");
                    self.runner.remark(&text, self.control, self.observer).await?;
                }
            }
        }
        Ok((laid, settled, report))
    }

    async fn say(&self, body: serde_json::Value) -> Result<(), RunnerError> {
        let at = self.runner.config.clock.wall_ms();
        self.control.events(vec![EventDraft { kind: EventKind::Setup, at, body }]).await?;
        Ok(())
    }

    async fn tell(&self, report: &SetupReport, text: String) -> Result<(), RunnerError> {
        self.observer.notice(Notice::Remark(text));
        self.say(json!({ "report": report })).await
    }
}

/// The hosts of a warrant, for a record.
fn list(warrant: &Warrant) -> String {
    let hosts: Vec<String> = warrant.egress.iter().map(ToString::to_string).collect();
    if hosts.is_empty() { "none".to_owned() } else { hosts.join(" ") }
}

fn usage(path: &Path) -> u64 {
    tipstaff_sandbox::tree_usage(path, Default::default()).map_or(0, |usage| usage.bytes)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Does something that blocks, away from the threads that others wait on.
async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, RunnerError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)
        .and_then(|done| done)
        .map_err(RunnerError::io(action))
}

//! A world of its own per test: a source repository, a mirror, a quarantine, a broker on loopback, and a control plane
//! that remembers.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tipstaff_broker::{
    Bounds, Broker, BrokerConfig, BrokerHandle, BrokerReport, Git, Mirror, MirrorLimits, Mirrors, Pinned,
    PlainHttp, Quarantine, Resolver, ServedRepository, Source, SystemResolver,
};
use tipstaff_model::event::EventDraft;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::warrant::{HostRules, IssueRequest, RepositoryGrant};
use tipstaff_model::{
    AgentRole, AuditDraft, BoxFuture, ControlPlane, ControlPlaneError, FixedClock, FixedEntropy, Heartbeat,
    LiveWarrant, OrgId, RefName, Refusal, RepositoryName, RunId, TaskId, Warrant, WarrantId,
};
use tipstaff_seal::{Redactor, Secret};

/// The wall clock of every test.
pub(crate) const NOW: i64 = 1_800_000_000_000;

/// The name of the repository in every test.
pub(crate) const NAME: &str = "team/app";

/// A control plane that remembers what it was told, and fails when asked to.
#[derive(Default)]
pub(crate) struct FakeControl {
    pub(crate) audits: Mutex<Vec<AuditDraft>>,
    pub(crate) refusals: Mutex<Vec<Refusal>>,
    pub(crate) fail_records: AtomicBool,
}

impl ControlPlane for FakeControl {
    fn heartbeat(&self) -> BoxFuture<'_, Result<Heartbeat, ControlPlaneError>> {
        Box::pin(async { Ok(Heartbeat::default()) })
    }
    fn record(&self, draft: AuditDraft) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async {
            if self.fail_records.load(Ordering::SeqCst) {
                return Err(ControlPlaneError::Unavailable("disk full".to_owned()));
            }
            self.audits.lock().unwrap().push(draft);
            Ok(())
        })
    }
    fn refusal(&self, refusal: Refusal) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async {
            self.refusals.lock().unwrap().push(refusal);
            Ok(())
        })
    }
    fn events(&self, _: Vec<EventDraft>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
    fn run_update(&self, _: RunUpdate) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
}

/// How a command ended and what it said, both streams together.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) ok: bool,
    pub(crate) text: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert!(self.ok, "{}", self.text);
        self.text
    }

    #[track_caller]
    pub(crate) fn refused_with(&self, rule: &str) {
        assert!(!self.ok, "it should have failed: {}", self.text);
        assert!(self.text.contains(rule), "no {rule} in: {}", self.text);
    }
}

/// A command with an empty environment.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests play the agent and the person, who both run programs"
)]
pub(crate) fn command(program: &str) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}

/// Runs git as a person or an agent would, with nobody's configuration and as a builder unless told otherwise.
pub(crate) fn git_at(directory: &Path, environment: &[(&str, &OsStr)], arguments: &[&OsStr]) -> Said {
    let output = command("git")
        .current_dir(directory)
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Tipstaff builder")
        .env("GIT_AUTHOR_EMAIL", "builder@agents.tipstaff.invalid")
        .env("GIT_COMMITTER_NAME", "Tipstaff builder")
        .env("GIT_COMMITTER_EMAIL", "builder@agents.tipstaff.invalid")
        .env("GIT_AUTHOR_DATE", "1700000000 +0000")
        .env("GIT_COMMITTER_DATE", "1700000000 +0000")
        .envs(environment.iter().copied())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Said { ok: output.status.success(), text }
}

/// [`git_at`] with plain arguments, off the async threads.
pub(crate) async fn git(directory: &Path, arguments: &[&str]) -> Said {
    let directory = directory.to_owned();
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        git_at(&directory, &[], &arguments)
    })
    .await
    .unwrap()
}

/// Writes a file, with its folders.
pub(crate) fn write(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// A repository with two commits on `main`, a branch `secret` that is not granted, and a tag.
pub(crate) async fn make_source(path: &Path) {
    std::fs::create_dir_all(path).unwrap();
    git(path, &["init", "-q", "-b", "main"]).await.succeeded();
    write(&path.join("README.md"), "# app\n");
    write(&path.join("src/lib.rs"), "pub fn one() {}\n");
    write(&path.join(".github/workflows/ci.yml"), "on: push\n");
    git(path, &["add", "."]).await.succeeded();
    git(path, &["commit", "-qm", "First"]).await.succeeded();
    write(&path.join("src/lib.rs"), "pub fn one() {}\npub fn two() {}\n");
    git(path, &["commit", "-qam", "Second"]).await.succeeded();
    git(path, &["tag", "-a", "v1", "-m", "v1"]).await.succeeded();
    git(path, &["checkout", "-q", "-b", "secret"]).await.succeeded();
    write(&path.join("secret.txt"), "unreleased\n");
    git(path, &["add", "."]).await.succeeded();
    git(path, &["commit", "-qm", "Secret"]).await.succeeded();
    git(path, &["checkout", "-q", "main"]).await.succeeded();
}

pub(crate) async fn open_git(directory: &Path) -> Arc<Git> {
    let program = Git::find(OsStr::new("/usr/local/bin:/usr/bin:/bin")).unwrap();
    Arc::new(Git::open(program, directory.join("git-home")).await.unwrap())
}

pub(crate) fn source_at(path: &Path) -> Source {
    Source::parse(path.as_os_str(), Path::new("/"), PlainHttp::LoopbackOnly).unwrap()
}

/// Names and their addresses, for tests of the way out.
#[derive(Default)]
pub(crate) struct TableResolver(pub(crate) Vec<(&'static str, Vec<std::net::IpAddr>)>);

impl Resolver for TableResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, std::io::Result<Vec<std::net::IpAddr>>> {
        let found = self.0.iter().find(|(name, _)| *name == host).map(|(_, addresses)| addresses.clone());
        Box::pin(async move { found.ok_or_else(|| std::io::Error::other("no such name")) })
    }
}

/// What a test changes before its broker starts.
pub(crate) struct Options {
    pub(crate) role: AgentRole,
    pub(crate) egress: Vec<&'static str>,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) private: Vec<SocketAddr>,
    pub(crate) bounds: Bounds,
    /// Further rules for hosts.
    pub(crate) host_rules: Vec<HostRules>,
    pub(crate) held: Vec<&'static str>,
    pub(crate) adjust: fn(&mut Warrant),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            role: AgentRole::Builder,
            egress: Vec::new(),
            resolver: Arc::new(SystemResolver),
            private: Vec::new(),
            bounds: Bounds::default(),
            host_rules: Vec::new(),
            held: Vec::new(),
            adjust: |_| {},
        }
    }
}

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) git: Arc<Git>,
    pub(crate) source: PathBuf,
    pub(crate) mirror: Mirror,
    pub(crate) base: Pinned,
    pub(crate) quarantine: Quarantine,
    pub(crate) control: Arc<FakeControl>,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) warrant: Arc<LiveWarrant>,
    pub(crate) address: SocketAddr,
    pub(crate) handle: Option<BrokerHandle>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        make_source(&source).await;
        Self::around(dir, source, options).await
    }

    /// A world around a source that is there already.
    pub(crate) async fn around(dir: TempDir, source: PathBuf, options: Options) -> Self {
        let git = open_git(dir.path()).await;
        let mirrors =
            Mirrors::new(Arc::clone(&git), dir.path().join("mirrors"), MirrorLimits::default()).unwrap();
        let mirror = mirrors.open(&source_at(&source)).await.unwrap();
        let base = mirror.pin(None).await.unwrap();
        let quarantine =
            Quarantine::create(Arc::clone(&git), &dir.path().join("quarantine.git"), &mirror, &base)
                .await
                .unwrap();
        let clock = Arc::new(FixedClock::at(NOW));
        let entropy = FixedEntropy::seeded(7);
        let name: RepositoryName = NAME.parse().unwrap();
        let mut warrant = Warrant::issue(IssueRequest {
            ids: (
                WarrantId::new(&*clock, &entropy),
                OrgId::new(&*clock, &entropy),
                TaskId::new(&*clock, &entropy),
                RunId::new(&*clock, &entropy),
            ),
            subject: "member:test".to_owned(),
            role: options.role,
            repository: RepositoryGrant { name: name.clone(), base: base.commit.clone() },
            budget: None,
            wall_ms: None,
            egress: options.egress.iter().map(|host| host.parse().unwrap()).collect(),
            hosts: Vec::new(),
            secrets: Vec::new(),
            models: Vec::new(),
            submodules: false,
            lfs: false,
            now_ms: NOW,
        })
        .unwrap();
        warrant.hosts = options.host_rules;
        (options.adjust)(&mut warrant);
        let warrant = Arc::new(LiveWarrant::new(warrant, clock.clone()));
        let control = Arc::new(FakeControl::default());
        let held: Vec<Secret<String>> =
            options.held.iter().map(|value| Secret::new((*value).to_owned())).collect();
        let config = BrokerConfig {
            resolver: options.resolver,
            allow_private_addresses: options.private,
            host_addresses: Default::default(),
            bounds: options.bounds,
            redactor: Redactor::new().with_values(&held),
            ..BrokerConfig::new(
                Arc::clone(&git),
                vec![ServedRepository { name, quarantine: quarantine.clone() }],
            )
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handle = Broker::new(config, Arc::clone(&warrant), control.clone()).serve(listener).unwrap();
        Self {
            dir,
            git,
            source,
            mirror,
            base,
            quarantine,
            control,
            clock,
            warrant,
            address,
            handle: Some(handle),
        }
    }

    /// A new broker on the same quarantine, as after a crash.
    pub(crate) fn serve_again(&mut self) {
        let repository =
            ServedRepository { name: NAME.parse().unwrap(), quarantine: self.quarantine.clone() };
        let config = BrokerConfig::new(Arc::clone(&self.git), vec![repository]);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        self.address = listener.local_addr().unwrap();
        let broker = Broker::new(config, Arc::clone(&self.warrant), self.control.clone());
        self.handle = Some(broker.serve(listener).unwrap());
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/git/{NAME}.git", self.address)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The warrant's branch.
    pub(crate) fn own(&self) -> RefName {
        self.warrant.warrant().push_ref().unwrap().clone()
    }

    /// A clone through the broker, with the run's branch checked out.
    pub(crate) async fn clone_to(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        git(self.dir.path(), &["clone", "-q", &self.url(), path.to_str().unwrap()]).await.succeeded();
        git(&path, &["checkout", "-q", "-b", self.own().short()]).await.succeeded();
        path
    }

    /// Commits a file in a clone, as the run does.
    pub(crate) async fn commit(&self, clone: &Path, file: &str, content: &str) {
        write(&clone.join(file), content);
        git(clone, &["add", "-A", "-f", "."]).await.succeeded();
        let identity = self.warrant.warrant().role.git_identity();
        let environment =
            ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|key| {
                (key, OsStr::new(if key.ends_with("NAME") { &identity.name } else { &identity.email }))
            });
        git_at(clone, &environment, &["commit", "-qm", "Change"].map(OsStr::new)).succeeded();
    }

    /// Pushes with further arguments before the ref.
    pub(crate) async fn push(&self, clone: &Path, options: &[&str], refs: &[&str]) -> Said {
        let mut arguments = vec!["push"];
        arguments.extend_from_slice(options);
        arguments.push("origin");
        arguments.extend_from_slice(refs);
        git(clone, &arguments).await
    }

    pub(crate) async fn tip(&self) -> Option<String> {
        self.quarantine.tip(&self.own()).await.unwrap().map(|commit| commit.to_string())
    }

    pub(crate) async fn stop(&mut self) -> BrokerReport {
        self.handle.take().unwrap().stop().await
    }

    /// Files that a refused push must not leave.
    pub(crate) fn held(&self) -> usize {
        std::fs::read_dir(self.quarantine.path().join("incoming")).map_or(0, Iterator::count)
    }

    /// Sends bytes and reads the answer to its end, at most ten seconds.
    pub(crate) async fn raw(&self, request: impl Into<Vec<u8>>) -> String {
        let (address, request) = (self.address, request.into());
        tokio::task::spawn_blocking(move || raw(address, &request)).await.unwrap()
    }
}

pub(crate) fn raw(address: SocketAddr, request: &[u8]) -> String {
    raw_within(address, request, Duration::from_secs(10))
}

/// [`raw`], with another bound on the silence before the answer.
pub(crate) fn raw_within(address: SocketAddr, request: &[u8], silence: Duration) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(silence)).unwrap();
    // The broker may answer and close before it has everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Waits until `done`, with a bound.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never came: {what}");
}

//! Fresh databases from a migrated template, on both engines, and the small things that every story needs.

use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;
use tipstaff_model::warrant::{IssueRequest, RepositoryGrant, Warrant};
use tipstaff_model::{
    AgentRole, AuditAction, AuditDraft, CommitId, EngineKind, EventDraft, EventKind, FixedClock,
    FixedEntropy, MicroUsd, Narrowing, RefName, TaskSpec, WarrantId,
};
use tipstaff_seal::{RingKey, SignedWarrant};
use tipstaff_store::{
    Engine, KeyPurpose, Lease, LocalPrincipal, OrgTx, PostgresPasswords, Principal, RunDraft, Store,
    StoreConfig, StoreError, TaskDraft,
};
use tipstaff_testkit::postgres::OWNER;
use tipstaff_testkit::{Durability, PostgresServer};

/// The moment at which every story begins: 2023-11-14.
pub(crate) const START: i64 = 1_700_000_000_000;
pub(crate) const WORKER: &str = "host:1:worker";
pub(crate) const TIMEOUT_MS: u64 = 2_000;

static SEED: AtomicU64 = AtomicU64::new(1);

/// A source of bytes that no other store of this process repeats.
pub(crate) fn entropy() -> Arc<FixedEntropy> {
    Arc::new(FixedEntropy::seeded(SEED.fetch_add(1, Ordering::SeqCst).wrapping_mul(0x1234_5678_9abc_def1)))
}

pub(crate) fn ring_key() -> RingKey {
    RingKey::generate(&FixedEntropy::seeded(42))
}

/// One server for all tests of this binary; it goes away with the process.
pub(crate) fn server() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(|| PostgresServer::start(Durability::Off).unwrap())
}

const TEMPLATE: &str = "store_template";

async fn postgres_template() -> &'static PostgresServer {
    static READY: tokio::sync::OnceCell<&'static PostgresServer> = tokio::sync::OnceCell::const_new();
    READY
        .get_or_init(|| async {
            let server = tokio::task::spawn_blocking(server).await.unwrap();
            server.database_create(TEMPLATE).unwrap();
            let clock = FixedClock::at(START);
            let passwords = PostgresPasswords::default();
            Store::provision_postgres(&server.url(OWNER, TEMPLATE), &passwords, &clock).await.unwrap();
            server
        })
        .await
}

/// The bytes of a migrated file.
async fn sqlite_template() -> &'static Vec<u8> {
    static READY: tokio::sync::OnceCell<Vec<u8>> = tokio::sync::OnceCell::const_new();
    READY
        .get_or_init(|| async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("template.db");
            let clock = Arc::new(FixedClock::at(START));
            let store = Store::open(StoreConfig::sqlite(&path), ring_key(), clock, entropy()).await.unwrap();
            store.close().await;
            std::fs::read(path).unwrap()
        })
        .await
}

/// A fresh database with one org in it.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) me: Principal,
    pub(crate) config: StoreConfig,
    /// The file, for SQLite.
    pub(crate) file: PathBuf,
    /// The database's name, for PostgreSQL.
    pub(crate) database: String,
    _folder: TempDir,
}

impl World {
    pub(crate) async fn new(engine: Engine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.db");
        let database = format!("world_{}", SEED.fetch_add(1, Ordering::SeqCst));
        let config = match engine {
            Engine::Sqlite => {
                std::fs::write(&file, sqlite_template().await).unwrap();
                StoreConfig::sqlite(&file)
            }
            Engine::Postgres => {
                let server = postgres_template().await;
                server.database_copy(TEMPLATE, &database).unwrap();
                StoreConfig::from_url(&server.url("tipstaff_app", &database)).unwrap().connections(6)
            }
        };
        let config = config.busy_timeout_ms(TIMEOUT_MS * 10);
        let clock = Arc::new(FixedClock::at(START));
        let store = Store::open(config.clone(), ring_key(), clock.clone(), entropy()).await.unwrap();
        let me = store.authenticate_local(&person(1)).await.unwrap();
        Self { engine, store, clock, me, config, file, database, _folder: folder }
    }

    /// Another store on the same database: what another process is.
    pub(crate) async fn again(&self) -> Store {
        Store::open(self.config.clone(), ring_key(), self.clock.clone(), entropy()).await.unwrap()
    }

    pub(crate) async fn begin(&self) -> OrgTx {
        self.store.begin(&self.me.scope).await.unwrap()
    }

    pub(crate) async fn read(&self) -> tipstaff_store::OrgRead {
        self.store.read(&self.me.scope).await.unwrap()
    }

    /// Runs statements around the store, as somebody with the file or the superuser's password would.
    pub(crate) fn vandal(&self, text: &str) -> String {
        match self.engine {
            Engine::Sqlite => sqlite_raw(&self.file, text),
            Engine::Postgres => server().sql(&self.database, text).unwrap(),
        }
    }

    /// A task that was claimed, with its run begun.
    pub(crate) async fn lease(&self) -> Lease {
        let mut tx = self.begin().await;
        let task = tx.task_add(task_draft()).await.unwrap().id();
        let lease = tx.task_claim(task, WORKER, 60_000).await.unwrap().unwrap();
        tx.run_add(&lease, &run_draft()).await.unwrap();
        tx.commit().await.unwrap();
        lease
    }
}

/// Runs statements on a SQLite file without the store; rows by line, columns by `|`.
pub(crate) fn sqlite_raw(file: &std::path::Path, text: &str) -> String {
    use rusqlite::fallible_iterator::FallibleIterator as _;
    use rusqlite::types::ValueRef;
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.execute_batch("pragma foreign_keys = off").unwrap();
    let mut batch = rusqlite::Batch::new(&connection, text);
    let mut lines = Vec::new();
    while let Some(mut statement) = batch.next().unwrap() {
        let width = statement.column_count();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().unwrap() {
            let cells: Vec<String> = (0..width)
                .map(|index| match row.get_ref(index).unwrap() {
                    ValueRef::Null => String::new(),
                    ValueRef::Integer(number) => number.to_string(),
                    ValueRef::Real(number) => number.to_string(),
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                        String::from_utf8_lossy(bytes).into_owned()
                    }
                })
                .collect();
            lines.push(cells.join("|"));
        }
    }
    lines.join("\n")
}

/// Declares a story that is told on both engines.
macro_rules! story {
    ($(#[$meta:meta])* async fn $name:ident($world:ident: World) $body:block) => {
        $(#[$meta])*
        mod $name {
            use super::*;

            async fn told($world: crate::support::World) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                told(crate::support::World::new(tipstaff_store::Engine::Sqlite).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                told(crate::support::World::new(tipstaff_store::Engine::Postgres).await).await;
            }
        }
    };
}
pub(crate) use story;

pub(crate) fn person(uid: u32) -> LocalPrincipal {
    LocalPrincipal { installation: "test".to_owned(), uid, name: format!("Person {uid}") }
}

pub(crate) fn commit(digit: char) -> CommitId {
    digit.to_string().repeat(40).parse().unwrap()
}

pub(crate) fn branch(name: &str) -> RefName {
    RefName::branch(name).unwrap()
}

pub(crate) fn spec() -> TaskSpec {
    TaskSpec {
        repository: "local/house".parse().unwrap(),
        source: "/srv/house".to_owned(),
        base: Some("main".to_owned()),
        base_commit: commit('a'),
        role: AgentRole::Builder,
        engine: EngineKind::Command,
        agent: None,
        argv: vec!["true".to_owned()],
        prompt: None,
        model: None,
        provider: None,
        instructions: String::new(),
        budget_micro_usd: 1_000_000,
        timeout_ms: 60_000,
        allow_hosts: vec![],
        protect: Vec::new(),
        host_rules: Vec::new(),
        secrets: Vec::new(),
        setup: Default::default(),
        privacy: Default::default(),
        submodules: false,
        lfs: false,
        attended: false,
        policy: Default::default(),
        ask_timeout_ms: None,
        resumes: None,
        under: None,
    }
}

pub(crate) fn task_draft() -> TaskDraft {
    TaskDraft {
        repository: None,
        kind: "run".to_owned(),
        spec: spec(),
        dedup_key: None,
        max_attempts: 1,
        run_at: None,
        person: None,
    }
}

pub(crate) fn run_draft() -> RunDraft {
    RunDraft {
        branch: Some(branch("agent/builder-task-1")),
        base_commit: Some(commit('a')),
        workspace: Some("/tmp/workspace".to_owned()),
        host: "host".to_owned(),
    }
}

pub(crate) fn event(text: &str) -> EventDraft {
    EventDraft { kind: EventKind::Stdout, at: START, body: json!({ "text": text }) }
}

pub(crate) fn audit_draft(subject: &str) -> AuditDraft {
    AuditDraft::new("system", AuditAction::RunState, subject).with("to", "running")
}

/// A warrant for the lease's run, signed with the org's key.
pub(crate) async fn warrant(tx: &mut OrgTx, lease: &Lease) -> Result<SignedWarrant, StoreError> {
    let key = tx.signing_key(KeyPurpose::Warrant).await?;
    let id = WarrantId::from_bytes(*lease.run().as_bytes());
    let request = IssueRequest {
        ids: (id, lease.token().org, lease.task(), lease.run()),
        subject: "member:1".to_owned(),
        role: AgentRole::Builder,
        repository: RepositoryGrant { name: "local/house".parse().unwrap(), base: commit('a') },
        budget: None,
        wall_ms: None,
        egress: vec![],
        hosts: Vec::new(),
        secrets: Vec::new(),
        models: vec![],
        submodules: false,
        lfs: false,
        now_ms: START,
    };
    Ok(SignedWarrant::sign(&Warrant::issue(request).unwrap(), &key)?)
}

/// The same with half the money, signed with the org's key.
pub(crate) async fn narrowed(tx: &mut OrgTx, parent: &SignedWarrant) -> SignedWarrant {
    let key = tx.signing_key(KeyPurpose::Warrant).await.unwrap();
    let mut id = *parent.warrant.id.as_bytes();
    id[15] = id[15].wrapping_add(1);
    let budget = MicroUsd::from_micro(parent.warrant.budget.micro() / 2);
    let request = Narrowing { budget: Some(budget), ..Narrowing::default() };
    SignedWarrant::sign(&parent.warrant.narrow(WarrantId::from_bytes(id), request).unwrap(), &key).unwrap()
}

pub(crate) fn code<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> &'static str {
    match answer {
        Ok(value) => panic!("expected an error, got {value:?}"),
        Err(error) => error.code(),
    }
}

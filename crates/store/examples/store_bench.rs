//! Measures the store against what its engines can do at best, in the same run: one JSON object per line,
//! `{"name", "ours", "against", "unit", "target", "note"}`, or `{"name", "skipped"}`.
//!
//! `--quick` takes few rounds; `--verify`, `--sqlite` and `--postgres` measure verifying alone, or one engine. `--dir PATH` says where the files lie (the temporary folder otherwise; a memory file
//! system would flatter both sides). Figures are medians; the two sides of a ratio take turns.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement talks to the engines directly, prints, and may end where it stands"
)]

use serde_json::json;
use sqlx::{ConnectOptions as _, Executor as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tipstaff_model::run::TaskSpec;
use tipstaff_model::{
    AgentRole, AuditAction, AuditDraft, Clock as _, EngineKind, Entropy as _, EventDraft, EventKind,
    RunState, TaskId,
};
use tipstaff_seal::log::{LogVerifier, Tail};
use tipstaff_seal::{RingKey, SystemClock, SystemEntropy};
use tipstaff_store::{
    Lease, LocalPrincipal, OrgScope, PostgresPasswords, RunDraft, Store, StoreConfig, TaskDraft,
};
use tipstaff_testkit::postgres::OWNER;
use tipstaff_testkit::{Durability, PostgresServer};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Records per second that verifying is to reach.
const VERIFY_TARGET: f64 = 500_000.0;

/// Rows in a group.
const GROUP: usize = 100;

#[derive(Clone, Copy)]
struct Rounds {
    rounds: usize,
    /// Operations per round of single commits.
    single: usize,
    /// Operations per round of groups.
    grouped: usize,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn line(name: &str, ours: f64, against: f64, target: &str, note: &str) {
    println!(
        "{}",
        json!({
            "name": name, "ours": ours.round(), "against": against.round(), "unit": "/s", "target": target,
            "ratio": if against > 0.0 { ours / against } else { 0.0 }, "note": note,
        })
    );
}

/// Operations per second of one round.
macro_rules! rate {
    ($count:expr, $work:expr) => {{
        let begun = Instant::now();
        $work;
        ($count) as f64 / begun.elapsed().as_secs_f64().max(1e-6)
    }};
}

fn spec() -> TaskSpec {
    TaskSpec {
        repository: "local/house".parse().unwrap(),
        source: "/srv/house".to_owned(),
        base: Some("main".to_owned()),
        base_commit: "a".repeat(40).parse().unwrap(),
        role: AgentRole::Builder,
        engine: EngineKind::Command,
        agent: None,
        argv: vec!["sh".to_owned(), "-c".to_owned(), "echo hello >> README.md".to_owned()],
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

fn task() -> TaskDraft {
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

fn draft(number: usize) -> AuditDraft {
    AuditDraft::new(
        "run:018bcfe5-6800-7471-a6e2-fd2951e6b1a9",
        AuditAction::RunState,
        format!("run:{number}"),
    )
    .with("from", "preparing")
    .with("to", "running")
    .with("task", "018bcfe5-6800-75a4-84a3-5121f4908964")
}

fn event(number: usize) -> EventDraft {
    EventDraft {
        kind: EventKind::Stdout,
        at: SystemClock.wall_ms(),
        body: json!({ "text": format!("line {number} of the output of a build") }),
    }
}

struct Bench {
    store: Store,
    scope: OrgScope,
    rounds: Rounds,
}

async fn open(config: StoreConfig) -> Result<(Store, OrgScope), Failure> {
    let store = Store::open(
        config,
        RingKey::generate(&SystemEntropy),
        Arc::new(SystemClock),
        Arc::new(SystemEntropy),
    )
    .await?;
    let person = LocalPrincipal { installation: "bench".to_owned(), uid: 1, name: "Bench".to_owned() };
    let scope = store.authenticate_local(&person).await?.scope;
    Ok((store, scope))
}

impl Bench {
    async fn enqueue(&self, count: usize) -> Result<(), Failure> {
        for _ in 0..count {
            let mut tx = self.store.begin(&self.scope).await?;
            tx.task_add(task()).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    async fn enqueue_grouped(&self, count: usize) -> Result<(), Failure> {
        for _ in 0..count / GROUP {
            let mut tx = self.store.begin(&self.scope).await?;
            tx.task_add_batch(vec![task(); GROUP]).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    async fn claim(&self, count: usize) -> Result<Vec<Lease>, Failure> {
        let mut leases = Vec::new();
        while leases.len() < count {
            let more = self.store.task_claim_batch("bench", 600_000, 500).await?;
            if more.is_empty() {
                break;
            }
            leases.extend(more);
        }
        Ok(leases)
    }

    async fn complete(&self, leases: &[Lease], group: usize) -> Result<(), Failure> {
        for group in leases.chunks(group) {
            let mut tx = self.store.begin(&self.scope).await?;
            match group {
                [lease] => tx.task_move(lease, RunState::Failed, None).await?,
                leases => tx.task_end_batch(leases, RunState::Failed, None).await?,
            }
            tx.commit().await?;
        }
        Ok(())
    }

    async fn audit(&self, count: usize, group: usize) -> Result<(), Failure> {
        for _ in 0..count / group {
            let mut tx = self.store.begin(&self.scope).await?;
            tx.audit_append((0..group).map(draft).collect()).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    async fn events(&self, lease: &Lease, count: usize) -> Result<(), Failure> {
        for _ in 0..count / GROUP {
            let mut tx = self.store.begin(&self.scope).await?;
            let events: Vec<_> = (0..GROUP).map(event).collect();
            tx.event_add(lease, &events).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

/// What SQLite does at best: one connection without any layer, prepared statements, the same rows and the same
/// durability.
struct Raw {
    connection: rusqlite::Connection,
    org: String,
}

const RAW_TASK: &str = "insert into task (org_id, created_at, updated_at, id, kind, state, spec, max_attempts, run_at) \
     values ($1, $2, $2, $3, 'run', 'queued', $4, 1, $2)";
const RAW_DONE: &str = "update task set state = 'failed', updated_at = $3 where org_id = $1 and id = $2";
const RAW_AUDIT: &str = "insert into audit_record (org_id, seq, at, action, body, salt, leaf_hash) \
     values ($1, $2, $3, $4, $5, $6, $7)";
const RAW_EVENT: &str =
    "insert into event (org_id, run_id, seq, at, kind, body) values ($1, $2, $3, $4, $5, $6)";

impl Raw {
    fn open(file: &Path, org: String) -> Result<Self, Failure> {
        let connection = rusqlite::Connection::open(file)?;
        connection.execute_batch(
            "pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on",
        )?;
        Ok(Self { connection, org })
    }

    /// Runs `step` for each number below `count`, in transactions of `group`.
    fn groups(
        &self,
        text: &str,
        count: usize,
        group: usize,
        mut step: impl FnMut(&mut rusqlite::Statement<'_>, usize) -> rusqlite::Result<usize>,
    ) -> Result<(), Failure> {
        // Numbered as `?n`: SQLite gives `$n` a place by where it stands in the text.
        let mut statement = self.connection.prepare(&text.replace('$', "?"))?;
        let (mut begin, mut commit) =
            (self.connection.prepare("begin immediate")?, self.connection.prepare("commit")?);
        for from in (0..count).step_by(group) {
            if group > 1 {
                begin.execute([])?;
            }
            for number in from..(from + group).min(count) {
                step(&mut statement, number)?;
            }
            if group > 1 {
                commit.execute([])?;
            }
        }
        Ok(())
    }

    fn enqueue(&self, count: usize, group: usize) -> Result<Vec<String>, Failure> {
        let (spec, now) = (serde_json::to_string(&spec())?, SystemClock.wall_ms());
        let mut ids = Vec::with_capacity(count);
        self.groups(RAW_TASK, count, group, |statement, _| {
            let id = TaskId::new(&SystemClock, &SystemEntropy).to_string();
            let done = statement.execute(rusqlite::params![self.org, now, id, spec]);
            ids.push(id);
            done
        })?;
        Ok(ids)
    }

    fn complete(&self, ids: &[String], group: usize) -> Result<(), Failure> {
        let now = SystemClock.wall_ms();
        self.groups(RAW_DONE, ids.len(), group, |statement, number| {
            statement.execute(rusqlite::params![self.org, ids[number], now])
        })
    }

    fn audit(&self, from: i64, count: usize, group: usize) -> Result<(), Failure> {
        let (body, salt, leaf) = (vec![b'x'; 330], vec![1_u8; 16], vec![2_u8; 32]);
        self.groups(RAW_AUDIT, count, group, |statement, number| {
            let seq = from + number as i64;
            statement.execute(rusqlite::params![self.org, seq, 1_i64, "run.state", body, salt, leaf])
        })
    }

    fn events(&self, run: &str, count: usize) -> Result<(), Failure> {
        let body = event(1).body.to_string();
        self.groups(RAW_EVENT, count, GROUP, |statement, number| {
            statement.execute(rusqlite::params![self.org, run, number as i64, 1_i64, "stdout", body])
        })
    }
}

/// Both sides of every SQLite row, by turns.
async fn sqlite(folder: &Path, rounds: Rounds) -> Result<(), Failure> {
    let (ours_file, raw_file) = (folder.join("ours.db"), folder.join("raw.db"));
    let (store, scope) = open(StoreConfig::sqlite(&ours_file)).await?;
    let (other, other_scope) = open(StoreConfig::sqlite(&raw_file)).await?;
    other.close().await;
    let raw = Raw::open(&raw_file, other_scope.org().to_string())?;
    let bench = Bench { store, scope, rounds };
    let Rounds { single, grouped, rounds } = bench.rounds;
    let mut figures: Vec<[Vec<f64>; 2]> = (0..7).map(|_| [Vec::new(), Vec::new()]).collect();
    let mut seq = 1_000_000;
    for round in 0..=rounds {
        let mut note = |row: usize, ours: f64, limit: f64| {
            // The first round warms up.
            if round > 0 {
                figures[row][0].push(ours);
                figures[row][1].push(limit);
            }
        };
        let ours = rate!(single, bench.enqueue(single).await?);
        let mut ids;
        let limit = rate!(single, ids = raw.enqueue(single, 1)?);
        note(0, ours, limit);
        let leases = bench.claim(single).await?;
        let ours = rate!(leases.len(), bench.complete(&leases, 1).await?);
        let limit = rate!(ids.len(), raw.complete(&ids, 1)?);
        note(1, ours, limit);
        let ours = rate!(grouped, bench.enqueue_grouped(grouped).await?);
        let limit = rate!(grouped, ids = raw.enqueue(grouped, GROUP)?);
        note(2, ours, limit);
        let leases = bench.claim(grouped).await?;
        let ours = rate!(leases.len(), bench.complete(&leases, GROUP).await?);
        let limit = rate!(ids.len(), raw.complete(&ids, GROUP)?);
        note(3, ours, limit);
        let ours = rate!(single, bench.audit(single, 1).await?);
        let limit = rate!(single, raw.audit(seq, single, 1)?);
        seq += 1_000_000;
        note(4, ours, limit);
        let ours = rate!(grouped, bench.audit(grouped, GROUP).await?);
        let limit = rate!(grouped, raw.audit(seq, grouped, GROUP)?);
        seq += 1_000_000;
        note(5, ours, limit);
        let lease = a_run(&bench).await?;
        let ours = rate!(grouped, bench.events(&lease, grouped).await?);
        let limit = rate!(grouped, raw.events(&lease.run().to_string(), grouped)?);
        note(6, ours, limit);
    }
    let names = [
        (
            "SQLite enqueue, single commits",
            ">= 0.7",
            "against plain inserts of the same rows, synchronous full",
        ),
        ("SQLite complete, single commits", ">= 0.7", "fenced by the lease; against a plain update"),
        ("SQLite enqueue, groups of 100", ">= 0.5", "against prepared inserts in one transaction"),
        ("SQLite complete, groups of 100", ">= 0.5", "fenced, state checked; against plain updates"),
        ("SQLite audit append, single commits", ">= 0.5", "hashed, sequenced, a signed checkpoint each"),
        ("SQLite audit append, groups of 100", ">= 0.5", "hashed, sequenced, a signed checkpoint per group"),
        ("SQLite events, groups of 100", ">= 0.5", "fenced by the lease"),
    ];
    for ((name, target, note), [ours, limit]) in names.into_iter().zip(figures) {
        line(name, median(ours), median(limit), target, note);
    }
    verify(&bench).await?;
    bench.store.close().await;
    Ok(())
}

/// A task that is under way.
async fn a_run(bench: &Bench) -> Result<Lease, Failure> {
    let mut tx = bench.store.begin(&bench.scope).await?;
    let id = tx.task_add(task()).await?.id();
    let lease = tx.task_claim(id, "bench", 600_000).await?.ok_or("the task is not there")?;
    let draft = RunDraft { branch: None, base_commit: None, workspace: None, host: "bench".to_owned() };
    tx.run_add(&lease, &draft).await?;
    tx.commit().await?;
    Ok(lease)
}

/// A log of its own, written in groups as a busy worker does.
async fn verify(bench: &Bench) -> Result<(), Failure> {
    let person = LocalPrincipal { installation: "bench".to_owned(), uid: 2, name: "Log".to_owned() };
    let scope = bench.store.authenticate_local(&person).await?.scope;
    let count = bench.rounds.grouped * 5;
    let log = Bench { store: bench.store.clone(), scope, rounds: bench.rounds };
    log.audit(count, GROUP).await?;
    let mut rates = Vec::new();
    for _ in 0..bench.rounds.rounds.max(3) {
        let mut read = log.store.read(&log.scope).await?;
        let key = read.audit_key().await?;
        rates.push(rate!(
            count,
            assert!(read.audit_verify(LogVerifier::new(key, Tail::Sealed)).await?.is_good())
        ));
    }
    let ours = median(rates);
    println!(
        "{}",
        json!({
            "name": "audit verify, read from SQLite", "ours": ours.round(), "against": VERIFY_TARGET, "unit": "/s",
            "ratio": ours / VERIFY_TARGET, "target": ">= 1",
            "note": "a checkpoint per 100 records; against the target; the row of the audit area is the same in memory",
        })
    );
    Ok(())
}

/// Enqueue and complete by ten connections at once, against plain statements by ten connections.
async fn postgres(rounds: Rounds) -> Result<(), Failure> {
    let server = tokio::task::spawn_blocking(|| PostgresServer::start(Durability::Full)).await??;
    server.database_create("bench")?;
    Store::provision_postgres(&server.url(OWNER, "bench"), &PostgresPasswords::default(), &SystemClock)
        .await?;
    let config = StoreConfig::from_url(&server.url("tipstaff_app", "bench"))?.connections(CONNECTIONS as u32);
    let (store, scope) = open(config).await?;
    let bench = Arc::new(Bench { store, scope, rounds });
    let org = bench.scope.org().to_string();
    let options: sqlx::postgres::PgConnectOptions = server.url("postgres", "bench").parse()?;
    let options = options.options([("plan_cache_mode", "force_generic_plan")]);
    let raw = sqlx::postgres::PgPoolOptions::new()
        .max_connections(CONNECTIONS as u32)
        .test_before_acquire(false)
        .connect_with(options.disable_statement_logging())
        .await?;
    let mut figures: Vec<[Vec<f64>; 2]> = (0..4).map(|_| [Vec::new(), Vec::new()]).collect();
    for round in 0..=rounds.rounds {
        let mut note = |row: usize, ours: f64, limit: f64| {
            if round > 0 {
                figures[row][0].push(ours);
                figures[row][1].push(limit);
            }
        };
        let (single, grouped) = (rounds.single, rounds.grouped);
        let ours = rate!(single, by_all(&bench, single, Work::Enqueue).await?);
        let mut ids;
        let limit = rate!(single, ids = raw_enqueue(&raw, &org, single, 1).await?);
        note(0, ours, limit);
        let leases = bench.claim(single).await?;
        let ours = rate!(leases.len(), complete_by_all(&bench, &leases, 1).await?);
        let limit = rate!(ids.len(), raw_complete(&raw, &org, &ids, 1).await?);
        note(1, ours, limit);
        let ours = rate!(grouped, by_all(&bench, grouped, Work::EnqueueGrouped).await?);
        let limit = rate!(grouped, ids = raw_enqueue(&raw, &org, grouped, GROUP).await?);
        note(2, ours, limit);
        let leases = bench.claim(grouped * 2).await?;
        let ours = rate!(leases.len(), complete_by_all(&bench, &leases, GROUP).await?);
        let limit = rate!(ids.len(), raw_complete(&raw, &org, &ids, GROUP).await?);
        note(3, ours, limit);
    }
    let names = [
        ("PostgreSQL enqueue, single commits", "10 connections; scope, row-level security, outbox-safe"),
        ("PostgreSQL complete, single commits", "10 connections; fenced, state checked"),
        ("PostgreSQL enqueue, groups of 100", "10 connections"),
        ("PostgreSQL complete, groups of 100", "10 connections; fenced, state checked"),
    ];
    for ((name, note), [ours, limit]) in names.into_iter().zip(figures) {
        line(name, median(ours), median(limit), ">= 0.5", note);
    }
    row_level_security(&server, rounds).await?;
    raw.close().await;
    bench.store.close().await;
    Ok(())
}

const CONNECTIONS: usize = 10;

#[derive(Clone, Copy)]
enum Work {
    Enqueue,
    EnqueueGrouped,
}

async fn by_all(bench: &Arc<Bench>, count: usize, work: Work) -> Result<(), Failure> {
    let mut workers = Vec::new();
    for _ in 0..CONNECTIONS {
        let bench = Arc::clone(bench);
        workers.push(tokio::spawn(async move {
            match work {
                Work::Enqueue => bench.enqueue(count / CONNECTIONS).await,
                Work::EnqueueGrouped => bench.enqueue_grouped(count / CONNECTIONS).await,
            }
        }));
    }
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

async fn complete_by_all(bench: &Arc<Bench>, leases: &[Lease], group: usize) -> Result<(), Failure> {
    let mut workers = Vec::new();
    for part in leases.chunks(leases.len().div_ceil(CONNECTIONS).max(1)) {
        let (bench, part) = (Arc::clone(bench), part.to_vec());
        workers.push(tokio::spawn(async move { bench.complete(&part, group).await }));
    }
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

async fn raw_enqueue(
    pool: &sqlx::PgPool,
    org: &str,
    count: usize,
    group: usize,
) -> Result<Vec<String>, Failure> {
    let mut workers = Vec::new();
    for _ in 0..CONNECTIONS {
        let (pool, org) = (pool.clone(), org.to_owned());
        workers.push(tokio::spawn(async move {
            let (spec, now) = (serde_json::to_string(&spec())?, SystemClock.wall_ms());
            let mut connection = pool.acquire().await?;
            let mut ids = Vec::new();
            for _ in 0..count / CONNECTIONS / group {
                if group > 1 {
                    connection.execute("begin").await?;
                }
                for _ in 0..group {
                    let id = TaskId::new(&SystemClock, &SystemEntropy).to_string();
                    let query = sqlx::query(RAW_TASK).bind(&org).bind(now).bind(&id).bind(&spec);
                    query.execute(&mut *connection).await?;
                    ids.push(id);
                }
                if group > 1 {
                    connection.execute("commit").await?;
                }
            }
            Ok::<_, Failure>(ids)
        }));
    }
    let mut ids = Vec::new();
    for worker in workers {
        ids.extend(worker.await??);
    }
    Ok(ids)
}

async fn raw_complete(pool: &sqlx::PgPool, org: &str, ids: &[String], group: usize) -> Result<(), Failure> {
    let mut workers = Vec::new();
    for part in ids.chunks(ids.len().div_ceil(CONNECTIONS).max(1)) {
        let (pool, org, part) = (pool.clone(), org.to_owned(), part.to_vec());
        workers.push(tokio::spawn(async move {
            let now = SystemClock.wall_ms();
            let mut connection = pool.acquire().await?;
            for chunk in part.chunks(group) {
                if group > 1 {
                    connection.execute("begin").await?;
                }
                for id in chunk {
                    sqlx::query(RAW_DONE).bind(&org).bind(id).bind(now).execute(&mut *connection).await?;
                }
                if group > 1 {
                    connection.execute("commit").await?;
                }
            }
            Ok::<_, Failure>(())
        }));
    }
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

/// The same statements in the same kind of transaction, by the app's role and by a role that row-level security does
/// not bind.
async fn row_level_security(server: &PostgresServer, rounds: Rounds) -> Result<(), Failure> {
    let rows = rounds.grouped * 20;
    let which = "'org-' || lpad((n % 1000)::text, 32, '0')";
    let id = "'00000000-0000-7000-8000-' || lpad(n::text, 12, '0')";
    server.sql(
        "bench",
        &format!(
            "insert into org select 'org-' || lpad(n::text, 32, '0'), 'n', 'team', 1 from generate_series(0, 999) n; \
             insert into task (org_id, id, kind, state, spec, max_attempts, run_at, created_at, updated_at) \
             select {which}, {id}, 'run', 'done', '{{}}', 1, 1, 1, 1 from generate_series(1, {rows}) n; \
             insert into event select {which}, {id}, s, 1, 'stdout', '{{}}' from generate_series(1, {rows}) n, generate_series(1, 3) s; \
             analyze"
        ),
    )?;
    let app = one_connection(server, "tipstaff_app").await?;
    let plain = one_connection(server, "postgres").await?;
    let queries = [
        ("a task by id", "select id, state, spec from task where org_id = $1 and id = $2"),
        (
            "a page of tasks",
            "select id, state, spec from task where org_id = $1 and id < $2 order by id desc limit 50",
        ),
        (
            "events of a run",
            "select seq, at, kind, body from event where org_id = $1 and run_id = $2 and seq > 0 order by seq limit 100",
        ),
        ("a state change", "update task set updated_at = updated_at + 1 where org_id = $1 and id = $2"),
    ];
    for (name, text) in queries {
        // The two sides take turns transaction by transaction, so that both meet the same weather.
        let transactions = rounds.single / 5;
        let (mut wall, mut cpu) = ([Vec::new(), Vec::new()], [0.0, 0.0]);
        for round in 0..transactions + WARM_UP {
            let mut sides = [(0, &app), (1, &plain)];
            if round % 2 == 1 {
                sides.reverse();
            }
            for (side, (pool, process)) in sides {
                let before = on_processor(*process)?;
                let rate = rate!(STATEMENTS, one_side(pool, text, rows).await?);
                if round >= WARM_UP {
                    wall[side].push(rate);
                    cpu[side] += on_processor(*process)? - before;
                }
            }
        }
        let [with, without] = wall.map(median);
        let [cpu_with, cpu_without] = cpu.map(|seconds| seconds * 1e6 / (transactions * STATEMENTS) as f64);
        println!(
            "{}",
            json!({
                "name": format!("row-level security: {name}"), "ours": with.round(), "against": without.round(),
                "unit": "/s", "target": ">= 0.95", "ratio": with / without, "cpu_us": cpu_with, "cpu_us_against": cpu_without,
                "note": format!("{rows} tasks of 1,000 orgs; the same transaction without it; CPU of the server"),
            })
        );
    }
    for (pool, _) in [app, plain] {
        pool.close().await;
    }
    Ok(())
}

/// Transactions before the measuring begins.
const WARM_UP: usize = 10;

/// Seconds that a process has been on a processor (the first field of `schedstat`, in nanoseconds).
fn on_processor(process: i32) -> Result<f64, Failure> {
    let text = std::fs::read_to_string(format!("/proc/{process}/schedstat"))?;
    Ok(text.split(' ').next().unwrap_or_default().parse::<f64>()? / 1e9)
}

/// One connection as the store opens it, and the server's process behind it.
async fn one_connection(server: &PostgresServer, role: &str) -> Result<(sqlx::PgPool, i32), Failure> {
    let options: sqlx::postgres::PgConnectOptions = server.url(role, "bench").parse()?;
    let options = options.options([("plan_cache_mode", "force_generic_plan")]).disable_statement_logging();
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect_with(options).await?;
    let (process,): (i32,) = sqlx::query_as("select pg_backend_pid()").fetch_one(&pool).await?;
    Ok((pool, process))
}

/// Statements per transaction: enough that it is they that are measured.
const STATEMENTS: usize = 50;

async fn one_side(pool: &sqlx::PgPool, text: &'static str, rows: usize) -> Result<(), Failure> {
    let mut random = [0_u8; 8];
    SystemEntropy.fill(&mut random);
    let number = usize::from_le_bytes(random) % rows;
    let mut tx = pool.begin().await?;
    let org = format!("org-{:032}", (number + 1) % 1000);
    sqlx::query("select set_config('app.org_id', $1, true)").bind(&org).fetch_optional(&mut *tx).await?;
    for step in 0..STATEMENTS {
        let id = format!("00000000-0000-7000-8000-{:012}", (number + 1 + step * 1000) % rows);
        sqlx::query(text).bind(&org).bind(&id).fetch_all(&mut *tx).await?;
    }
    tx.rollback().await?;
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let place =
        arguments.iter().position(|argument| argument == "--dir").and_then(|at| arguments.get(at + 1));
    let rounds = if quick {
        Rounds { rounds: 3, single: 500, grouped: 5_000 }
    } else {
        Rounds { rounds: 5, single: 2_000, grouped: 20_000 }
    };
    let folder = match place {
        Some(place) => tempfile::tempdir_in(place)?,
        None => tempfile::tempdir()?,
    };
    let asked = |name: &str| arguments.iter().any(|argument| argument == name);
    if asked("--verify") {
        let (store, scope) = open(StoreConfig::sqlite(folder.path().join("verify.db"))).await?;
        return verify(&Bench { store, scope, rounds }).await;
    }
    if !asked("--postgres") {
        sqlite(folder.path(), rounds).await?;
    }
    if asked("--sqlite") {
        return Ok(());
    }
    if let Err(error) = postgres(rounds).await {
        println!("{}", json!({ "name": "PostgreSQL", "skipped": error.to_string() }));
    }
    Ok(())
}

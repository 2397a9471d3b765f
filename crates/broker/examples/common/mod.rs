//! What the measurements share: servers in processes of their own, a warrant, figures.

use bytes::Bytes;
use std::io::{BufRead, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tipstaff_broker::Git;
use tipstaff_model::event::EventDraft;
use tipstaff_model::run::RunUpdate;
use tipstaff_model::warrant::{HostPattern, IssueRequest, ModelGrant, RepositoryGrant};
use tipstaff_model::{
    AgentRole, AuditDraft, BoxFuture, ChargeAnswer, ChargeRequest, ChargeSettlement, Clock, ControlPlane,
    ControlPlaneError, Heartbeat, LiveWarrant, OrgId, Refusal, RunId, TaskId, Warrant, WarrantId,
};
use tipstaff_seal::{SystemClock, SystemEntropy};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A server process, ended with this one.
pub(crate) struct Server {
    pub(crate) child: Option<Child>,
    pub(crate) port: u16,
    pub(crate) pid: u32,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// This program with other arguments, on one core where that can be had.
pub(crate) fn command(core: usize, arguments: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let pins = cores > 1 && std::path::Path::new("/usr/bin/taskset").exists();
    let mut command = if pins { Command::new("/usr/bin/taskset") } else { Command::new(&program) };
    if pins {
        command.arg("-c").arg(core.to_string()).arg(&program);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    command.env("RUST_BACKTRACE", "0");
    command
}

/// A record that waits until it is on disk.
type Waiting = (Bytes, oneshot::Sender<()>);

/// A control plane that accepts everything at once. With a file its ledger is durable: a record and a sync for each
/// reservation and settlement; those that wait share one.
pub(crate) struct Control {
    ledger: Option<std::sync::mpsc::Sender<Waiting>>,
}

impl Control {
    pub(crate) fn new(ledger: Option<std::fs::File>) -> Self {
        let Some(mut file) = ledger else { return Self { ledger: None } };
        let (ask, asked) = std::sync::mpsc::channel::<Waiting>();
        std::thread::spawn(move || {
            while let Ok(first) = asked.recv() {
                let batch: Vec<_> = std::iter::once(first).chain(asked.try_iter()).collect();
                for (record, _) in &batch {
                    file.write_all(record).unwrap();
                }
                file.sync_data().unwrap();
                for (_, done) in batch {
                    let _ = done.send(());
                }
            }
        });
        Self { ledger: Some(ask) }
    }

    async fn write(&self, record: impl serde::Serialize) {
        let Some(ledger) = &self.ledger else { return };
        let (done, waits) = oneshot::channel();
        let line = serde_json::to_vec(&record).unwrap();
        ledger.send((Bytes::from(line), done)).unwrap();
        waits.await.unwrap();
    }
}

impl ControlPlane for Control {
    fn heartbeat(&self) -> BoxFuture<'_, Result<Heartbeat, ControlPlaneError>> {
        Box::pin(async { Ok(Heartbeat::default()) })
    }
    fn record(&self, _: AuditDraft) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
    fn refusal(&self, _: Refusal) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
    fn events(&self, _: Vec<EventDraft>) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
    fn run_update(&self, _: RunUpdate) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async { Ok(()) })
    }
    fn charge_reserve(
        &self,
        request: ChargeRequest,
    ) -> BoxFuture<'_, Result<ChargeAnswer, ControlPlaneError>> {
        Box::pin(async move {
            let most = request.most;
            self.write(request).await;
            Ok(ChargeAnswer::Granted(most))
        })
    }
    fn charge_settle(&self, settlement: ChargeSettlement) -> BoxFuture<'_, Result<(), ControlPlaneError>> {
        Box::pin(async move {
            self.write(settlement).await;
            Ok(())
        })
    }
}

/// Starts this program as a server, which prints its port first.
pub(crate) fn start(core: usize, arguments: &[&str]) -> Server {
    let mut child = command(core, arguments).spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = child.id();
    Server { child: Some(child), port: line.trim().parse().expect("a port"), pid }
}

/// Says that a server is there.
pub(crate) fn ready(listener: &TcpListener) {
    println!("{}", listener.local_addr().unwrap().port());
    std::io::stdout().flush().unwrap();
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// CPU time of a process and of the children that it waited for, in microseconds.
pub(crate) fn cpu_us(pid: u32) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0.0 };
    let words: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // In hundredths of a second.
    words[11..15].iter().map(|word| word.parse::<f64>().unwrap()).sum::<f64>() * 10_000.0
}

/// git as the broker runs it, with its folder.
pub(crate) async fn git(dir: &std::path::Path) -> Arc<Git> {
    let git = Git::find(std::ffi::OsStr::new("/usr/local/bin:/usr/bin:/bin")).unwrap();
    Arc::new(Git::open(git, dir.join("git-home")).await.unwrap())
}

/// A builder's warrant in force.
pub(crate) fn warrant(
    repository: RepositoryGrant,
    egress: Vec<HostPattern>,
    models: Vec<ModelGrant>,
) -> Arc<LiveWarrant> {
    let (clock, entropy) = (Arc::new(SystemClock), SystemEntropy);
    let warrant = Warrant::issue(IssueRequest {
        ids: (
            WarrantId::new(&*clock, &entropy),
            OrgId::new(&*clock, &entropy),
            TaskId::new(&*clock, &entropy),
            RunId::new(&*clock, &entropy),
        ),
        subject: "member:bench".to_owned(),
        role: AgentRole::Builder,
        repository,
        budget: None,
        wall_ms: None,
        egress,
        hosts: Vec::new(),
        secrets: Vec::new(),
        models,
        submodules: false,
        lfs: false,
        now_ms: clock.wall_ms(),
    });
    let mut warrant = warrant.unwrap();
    // What is measured is how fast bytes go through, not where they end.
    warrant.limits.egress_received_bytes = 1 << 50;
    Arc::new(LiveWarrant::new(warrant, clock))
}

/// One row of the table, as `script/bench` reads it.
pub(crate) struct Row<'a> {
    pub(crate) area: &'a str,
    pub(crate) name: String,
    pub(crate) ours: f64,
    pub(crate) against: f64,
    pub(crate) unit: &'a str,
    pub(crate) target: Option<&'a str>,
    pub(crate) cpu: (f64, f64),
    pub(crate) note: &'a str,
}

impl Row<'_> {
    pub(crate) fn print(self) {
        let Row { area, name, ours, against, unit, target, cpu, note } = self;
        println!(
            "{}",
            serde_json::json!({
                "area": area, "name": name, "ours": ours, "against": against, "unit": unit, "target": target,
                "ratio": ours / against, "cpu_us": cpu.0, "cpu_us_against": cpu.1, "note": note,
            })
        );
    }
}

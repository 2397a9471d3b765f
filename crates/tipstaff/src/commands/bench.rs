//! `tipstaff bench`: the measurements that script/bench asks for. Ratios come from pairs measured in turn.

use crate::cli::BenchCommand;
use crate::commands::sandbox::bare_runner;
use crate::env::Environment;
use crate::output::Output;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use tipstaff_broker::{PlainHttp, Source, Symlinks};
use tipstaff_model::{AuditAction, AuditDraft, AuditRecord, Clock, OrgId};
use tipstaff_sandbox::{BrokerListener, RunIdentity, SandboxSpec, Stdio, StdioPolicy, Workspace};
use tipstaff_seal::log::{
    Checkpoint, Frontier, Hash, LogKey, LogRecord, LogVerifier, RecordBody, Salt, Step, Tail,
};
use tipstaff_seal::{SigningKey, SystemClock, SystemEntropy};

/// Carries out `tipstaff bench …`.
pub(crate) async fn bench(
    command: BenchCommand,
    env: Environment,
    output: Output,
) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Sandbox { rounds } => sandbox(rounds, &env, &output).await?,
        BenchCommand::Workspace { repo, rounds } => workspace(&repo, rounds, &env, &output).await?,
        BenchCommand::Audit { records } => audit(records, &output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// Microseconds that `work` takes.
#[expect(clippy::disallowed_methods, reason = "a measurement needs the clock itself")]
fn timed<T, E>(work: impl FnOnce() -> Result<T, E>) -> Result<(u64, T), E> {
    let begun = std::time::Instant::now();
    let done = work()?;
    Ok((u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX), done))
}

/// Wall and processor time of a piece of work, in microseconds.
#[derive(Default)]
struct Cost {
    wall: Vec<u64>,
    cpu: u64,
}

impl Cost {
    fn add<T, E>(&mut self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let before = cpu_ticks();
        let (wall, done) = timed(work)?;
        self.wall.push(wall);
        self.cpu += cpu_ticks().saturating_sub(before);
        Ok(done)
    }

    fn json(self) -> serde_json::Value {
        // A tick of /proc is 10 ms; over all rounds the mean is finer than that.
        let rounds = u64::try_from(self.wall.len()).unwrap_or(1).max(1);
        json!({ "wall_us": median(self.wall), "cpu_us": self.cpu * 10_000 / rounds })
    }
}

/// Ticks of processor time of this process and its ended children.
fn cpu_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>())
        .unwrap_or_default();
    // utime, stime, cutime, cstime: fields 14 to 17 of proc(5), here counted from the third.
    (11..15).filter_map(|at| fields.get(at)?.parse::<u64>().ok()).sum()
}

async fn sandbox(rounds: u32, env: &Environment, output: &Output) -> anyhow::Result<()> {
    let runner = bare_runner(env).await?;
    let identity = RunIdentity::acquire(runner.identities())?;
    let quiet = StdioPolicy { stdin: Stdio::Null, stdout: Stdio::Null, stderr: Stdio::Null };
    let mut spec = SandboxSpec::new(identity, Workspace::Empty, ["true"]);
    spec.broker = BrokerListener::HandedOut;
    spec.stdio = quiet;
    let (mut start, mut whole, mut alone, mut bare) = <(Cost, Cost, Cost, Cost)>::default();
    for round in 0..rounds.saturating_add(2) {
        // Two rounds of warm-up.
        if round == 2 {
            (start, whole, alone, bare) = <(Cost, Cost, Cost, Cost)>::default();
        }
        // From the call to the command's exec; then to the end of the whole tree and its cgroup.
        let mut running = start.add(|| runner.sandbox().start(&spec))?;
        running.wait()?;
        whole.add(|| runner.sandbox().start(&spec).and_then(|mut running| running.wait()))?;
        alone.add(|| runner.sandbox().baseline(&spec).and_then(|running| running.wait()))?;
        bare.add(|| run(&mut bare_true()))?;
    }
    output.object(
        &json!({ "rounds": rounds, "sandbox": start.json(), "sandbox_to_end": whole.json(), "bwrap": alone.json(), "exec": bare.json() }),
    );
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the bare exec that the sandbox is compared with")]
fn bare_true() -> std::process::Command {
    let mut command = std::process::Command::new("/bin/true");
    command.env_clear();
    command
}

fn run(command: &mut std::process::Command) -> Result<(), tipstaff_sandbox::SandboxError> {
    let failed =
        |source| tipstaff_sandbox::SandboxError::Io { action: "running the command to compare with", source };
    let status = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status()
        .map_err(failed)?;
    if status.success() { Ok(()) } else { Err(failed(std::io::Error::other(status.to_string()))) }
}

async fn workspace(repo: &Path, rounds: u32, env: &Environment, output: &Output) -> anyhow::Result<()> {
    let runner = bare_runner(env).await?;
    let org = OrgId::from_bytes([0xbe; 16]);
    let source = Source::parse(repo.as_os_str(), Path::new("/"), PlainHttp::LoopbackOnly)?;
    let clock = SystemClock;
    let since = |begun: i64| clock.monotonic_ms() - begun;
    let begun = clock.monotonic_ms();
    let mirror = runner.mirrors(org)?.open(&source).await?;
    let pinned = mirror.pin(None).await?;
    let mirror_ms = since(begun);
    let checkouts = runner.checkouts(org)?;
    let begun = clock.monotonic_ms();
    checkouts.warm(&mirror, &pinned.commit, Symlinks::Links).await?;
    let cold_ms = since(begun);
    let mut warm = Cost::default();
    for _ in 0..rounds {
        let identity = RunIdentity::acquire(runner.identities())?;
        let folder = tempfile::tempdir_in(runner.layout().home())?;
        let state = folder.path().join("state");
        std::fs::create_dir_all(&state)?;
        let before = cpu_ticks();
        let begun = tokio::time::Instant::now();
        let checkout = checkouts.warm(&mirror, &pinned.commit, Symlinks::Links).await?;
        let workspace =
            Workspace::Overlay { lower: checkout.path().to_owned(), over: None, state: state.clone() };
        let mut spec = SandboxSpec::new(identity, workspace, ["true"]);
        spec.stdio = StdioPolicy { stdin: Stdio::Null, stdout: Stdio::Null, stderr: Stdio::Null };
        runner.sandbox().start(&spec)?.wait()?;
        warm.wall.push(u64::try_from(begun.elapsed().as_micros())?);
        warm.cpu += cpu_ticks().saturating_sub(before);
        tipstaff_sandbox::remove_tree(&state)?;
    }
    output.object(&json!({
        "rounds": rounds, "kind": if runner.sandbox().supports_overlay() { "overlay" } else { "shared" },
        "mirror_ms": mirror_ms, "cold_checkout_ms": cold_ms, "workspace": warm.json(),
    }));
    Ok(())
}

fn audit(records: u64, output: &Output) -> anyhow::Result<()> {
    let (clock, entropy) = (SystemClock, SystemEntropy);
    let org = OrgId::new(&clock, &entropy);
    let key = SigningKey::generate(&entropy);
    let mut frontier = Frontier::empty();
    let mut stored = Vec::new();
    let mut notes = Vec::new();
    for seq in 0..records {
        let draft = AuditDraft::new(
            "run:01890a5d-ac96-774b-bcce-b302099a8057",
            AuditAction::PushAccepted,
            "run:01890a5d-ac96-774b-bcce-b302099a8057",
        )
        .with("branch", "refs/heads/agent/builder-task-0a1b2c3d")
        .with("commit", "7f9c2ba4e88f827d616045507605853ed73b8093");
        let bytes = AuditRecord::place(draft, org, seq, clock.wall_ms()).canonical_bytes()?;
        let salt = Salt::random(&entropy);
        let leaf = Hash::leaf(&Hash::commitment(&salt, &bytes));
        frontier.append(leaf)?;
        stored.push((bytes, salt, leaf));
        if seq % 100 == 99 || seq + 1 == records {
            notes.push((
                frontier.size(),
                Checkpoint::new(org, frontier.size(), frontier.root()).sign(org, &key)?,
            ));
        }
    }
    let bytes = stored.iter().map(|(bytes, ..)| bytes.len() as u64).sum::<u64>() / records.max(1);
    let (took, good) = timed(|| {
        let mut verifier = LogVerifier::new(LogKey::new(org, key.verifying_key()), Tail::Sealed);
        let mut next = notes.iter().peekable();
        for (seq, (canonical, salt, leaf)) in (0_u64..).zip(&stored) {
            while let Some((_, note)) = next.next_if(|(size, _)| *size <= seq) {
                if verifier.checkpoint(note) == Step::Stop {
                    return Ok::<_, anyhow::Error>(false);
                }
            }
            let record = LogRecord { seq, leaf: *leaf, body: RecordBody::Kept { salt: *salt, canonical } };
            if verifier.record(&record) == Step::Stop {
                return Ok(false);
            }
        }
        for (_, note) in next {
            if verifier.checkpoint(note) == Step::Stop {
                return Ok(false);
            }
        }
        Ok(verifier.finish().is_good())
    })?;
    let per_second = records.saturating_mul(1_000_000) / took.max(1);
    output.object(
        &json!({ "records": records, "record_bytes": bytes, "verified": good, "verify_per_s": per_second }),
    );
    Ok(())
}

//! Runs a command confined: `confine [--ro] [--installed] [--broker] [--dir D | --overlay LOWER STATE] [--plan] -- COMMAND…`
//! With `--probe` it prints what holds on this machine; with `--time N` it compares N starts with bubblewrap alone.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example speaks to its user")]

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use tipstaff_sandbox::{
    Access, BrokerListener, ExecPolicy, RunIdentity, Sandbox, SandboxConfig, SandboxError, SandboxSpec,
    StdioPolicy, Workspace, discover_toolchains, init_stage_if_requested,
};

fn main() -> ExitCode {
    init_stage_if_requested();
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{}: {error}", error.code());
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<u8, SandboxError> {
    let config = SandboxConfig::default();
    let mut arguments = std::env::args_os().skip(1);
    let identity = RunIdentity::acquire(&config.lock_dir)?;
    let mut spec = SandboxSpec::new(identity, Workspace::Empty, ["true"]);
    spec.stdio = StdioPolicy::INHERITED;
    let (mut plan, mut rounds) = (false, 0_u32);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match argument.to_str() {
            Some("--ro") => spec.access = Access::ReadOnly,
            Some("--installed") => spec.exec = ExecPolicy::InstalledOnly,
            Some("--broker") => spec.broker = BrokerListener::HandedOut,
            Some("--dir") => spec.workspace = Workspace::Directory { path: value().into() },
            Some("--overlay") => {
                spec.workspace =
                    Workspace::Overlay { lower: value().into(), over: None, state: value().into() };
            }
            Some("--tools") => {
                let found = discover_toolchains(std::path::Path::new(&value()), &value());
                for skipped in &found.skipped {
                    eprintln!("not granted: {}: {}", skipped.path.display(), skipped.reason);
                }
                spec.grants = found.grants;
            }
            Some("--plan") => plan = true,
            Some("--time") => rounds = value().to_str().and_then(|text| text.parse().ok()).unwrap_or(30),
            Some("--probe") => {
                for layer in Sandbox::probe(&config).layers {
                    println!("{:<22} {:?} {} {}", layer.layer, layer.state, layer.evidence, layer.remedy);
                }
                return Ok(0);
            }
            _ => {
                spec.argv = arguments.by_ref().collect::<Vec<OsString>>();
            }
        }
    }
    let sandbox = Sandbox::new(config)?;
    if plan {
        print!("{}", sandbox.plan(&spec)?);
        return Ok(0);
    }
    if rounds > 0 {
        compare(&sandbox, &spec, rounds)?;
        return Ok(0);
    }
    let exit = sandbox.start(&spec)?.wait()?;
    Ok(u8::try_from(exit.code).unwrap_or(255))
}

fn compare(sandbox: &Sandbox, spec: &SandboxSpec, rounds: u32) -> Result<(), SandboxError> {
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..rounds {
        for (index, times) in times.iter_mut().enumerate() {
            let began = now();
            if index == 0 {
                sandbox.baseline(spec)?.wait()?;
            } else {
                let mut running = sandbox.start(spec)?;
                if index == 1 {
                    times.push(began.elapsed());
                    running.wait()?;
                    continue;
                }
                running.wait()?;
            }
            times.push(began.elapsed());
        }
    }
    for (name, times) in ["bubblewrap alone", "start to exec", "start to end"].iter().zip(&mut times) {
        times.sort();
        let at = |index: usize| times.get(index).copied().unwrap_or_default();
        println!("{name:<20} least {:?} median {:?}", at(0), at(times.len() / 2));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "this example measures")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

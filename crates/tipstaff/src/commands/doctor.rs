//! `tipstaff doctor`: what this machine offers, and one next step for each thing that is missing.

use crate::context::{key_source, layout, own_uid, sandbox_config, toolchains};
use crate::env::Environment;
use crate::exit::classify;
use crate::output::{Output, Tone};
use serde::Serialize;
use serde_json::json;
use std::process::ExitCode;
use tipstaff_broker::Git;
use tipstaff_engine::REGISTRY;
use tipstaff_runner::find_program;
use tipstaff_sandbox::{LayerState, Sandbox, free_bytes};

/// Free disk below which a person should know, in bytes.
const DISK_LOW: u64 = 2 << 30;

#[derive(Serialize)]
struct Check {
    name: &'static str,
    state: &'static str,
    found: String,
    next: String,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: "ok", found: found.into(), next: String::new() }
    }

    fn warn(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, state: "warning", found: found.into(), next: next.into() }
    }

    fn bad(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, state: "missing", found: found.into(), next: next.into() }
    }
}

/// Carries out `tipstaff doctor`. Exit code 1 when something that a run needs is missing.
pub(crate) async fn doctor(env: Environment, output: Output) -> anyhow::Result<ExitCode> {
    let layout = layout(&env)?;
    let mut checks = Vec::new();
    checks.push(Check::good("state", layout.home().display().to_string()));
    checks.push(match free_bytes(layout.home()) {
        Ok(free) if free < DISK_LOW => {
            Check::warn("disk", format!("{} MiB free", free >> 20), "free some room, or move TIPSTAFF_HOME")
        }
        Ok(free) => Check::good("disk", format!("{} GiB free", free >> 30)),
        Err(error) => Check::bad("disk", error.to_string(), "is TIPSTAFF_HOME on a mounted disk?"),
    });
    checks.push(match key_source(&env, &layout).load(&tipstaff_seal::SystemEntropy) {
        Ok(_) => Check::good("key", key_source(&env, &layout).describe()),
        Err(error) => Check::bad("key", error.to_string(), "no secret can be read without it"),
    });
    checks.push(git_check(&env, &layout).await);
    let config = sandbox_config(&env, &layout)?;
    let probe = tokio::task::spawn_blocking(move || Sandbox::probe(&config)).await?;
    for layer in &probe.layers {
        let found = format!("{}: {}", layer.layer, layer.evidence);
        checks.push(match layer.state {
            LayerState::Holds => continue,
            LayerState::Reduced => Check::warn("layer", found, layer.remedy.clone()),
            LayerState::Missing if layer.required => Check::bad("layer", found, layer.remedy.clone()),
            LayerState::Missing => Check::warn("layer", found, layer.remedy.clone()),
        });
    }
    let holding = probe.layers.iter().filter(|layer| layer.state == LayerState::Holds).count();
    let summary = format!(
        "{holding} of {} layers hold, as {}",
        probe.layers.len(),
        if own_uid()? == 0 { "root" } else { "an ordinary user" }
    );
    checks.push(if probe.usable() {
        Check::good("sandbox", summary)
    } else {
        Check::bad(
            "sandbox",
            summary,
            "nothing runs without it: mend the layers above; `tipstaff sandbox probe` says more",
        )
    });
    let for_tools = env.clone();
    let found = tokio::task::spawn_blocking(move || toolchains(&for_tools)).await?;
    for grant in &found.grants {
        let folders: Vec<String> =
            grant.directories.iter().map(|folder| folder.display().to_string()).collect();
        checks.push(Check::good(
            "toolchain",
            format!("{}: {} (read-only in every sandbox)", grant.name, folders.join(", ")),
        ));
    }
    for skipped in &found.skipped {
        checks.push(Check::warn(
            "toolchain",
            format!("{} is not granted", skipped.path.display()),
            skipped.reason.clone(),
        ));
    }
    for engine in REGISTRY {
        let Some(program) = engine.program() else { continue };
        checks.push(match find_program(program.name, &found.grants) {
            Some(path) => Check::good("engine", format!("{}: {}", engine.kind(), path.display())),
            None => Check::warn("engine", format!("{} is not installed", engine.kind()), program.install),
        });
    }
    let missing = checks.iter().any(|check| check.state == "missing");
    if output.json {
        output.object(&json!({ "ok": !missing, "checks": checks }));
    } else {
        for check in &checks {
            let (mark, tone) = match check.state {
                "ok" => ("ok     ", Tone::Good),
                "warning" => ("warning", Tone::Warn),
                _ => ("missing", Tone::Bad),
            };
            output.line(&format!("{} {:<10} {}", output.tone(tone, mark), check.name, check.found));
            if !check.next.is_empty() {
                output.line(&format!("{:19}{}", "", output.tone(Tone::Dim, &check.next)));
            }
        }
    }
    Ok(ExitCode::from(u8::from(missing)))
}

async fn git_check(env: &Environment, layout: &tipstaff_runner::Layout) -> Check {
    let opened = async {
        let program = Git::find(&env.path)?;
        Git::open(program, layout.home().join("git")).await
    };
    match opened.await {
        Ok(git) => {
            let found = format!("{} at {}", git.version(), git.program().display());
            let advisories = git.version().advisories();
            if advisories.is_empty() {
                return Check::good("git", found);
            }
            let ids: Vec<&str> = advisories.iter().map(|advisory| advisory.ids).collect();
            let text = format!(
                "this version is open to {} unless your distribution has patched it; agents never drive the host's git",
                ids.join(", ")
            );
            Check::warn("git", found, text)
        }
        Err(error) => {
            let (code, _) = classify(&anyhow::Error::from(error));
            Check::bad("git", code, "install git 2.31 or later")
        }
    }
}

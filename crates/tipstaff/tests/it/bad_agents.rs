//! Agents that misbehave: programs under the real names that are too old, crash, lie, flood or ask.

use crate::world::{Ended, World, is_root};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// A world with a program of our own under an agent's name.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) repository: PathBuf,
    // Not below /tmp, which a sandbox has its own of, nor in /opt, where every other run would find it.
    programs: tempfile::TempDir,
}

impl Scene {
    /// `script` is what the program does when it is not asked for its version.
    pub(crate) fn new(name: &str, version: &str, script: &str) -> Self {
        let world = World::new();
        let repository = world.repository("demo");
        let place = PathBuf::from(if is_root() { "/srv".into() } else { std::env::var_os("HOME").unwrap() });
        std::fs::create_dir_all(&place).unwrap();
        let programs = tempfile::Builder::new().prefix("tipstaff-test-").tempdir_in(place).unwrap();
        std::fs::set_permissions(programs.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let bin = programs.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let program = bin.join(name);
        let text =
            format!("#!/bin/sh\ncase \"$*\" in --version) echo '{version}'; exit 0;; esac\n{script}\n");
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { world, repository, programs }
    }

    pub(crate) fn run(&self, engine: &str, env: &[(&str, &str)]) -> Ended {
        crate::world::run(self.command(engine, env))
    }

    /// `tipstaff run` with an engine and a prompt.
    pub(crate) fn command(&self, engine: &str, env: &[(&str, &str)]) -> Command {
        let mut command: Command = self.world.command(self.world.binary());
        command
            .env(
                "PATH",
                format!("{}:/usr/local/bin:/usr/bin:/bin", self.programs.path().join("bin").display()),
            )
            .env("ANTHROPIC_API_KEY", "nobodys-key-0123456789")
            .env("OPENAI_API_KEY", "nobodys-key-0123456789")
            .env("GEMINI_API_KEY", "nobodys-key-0123456789")
            .envs(env.iter().copied())
            .current_dir(&self.repository)
            .args(["run", "--json", "--timeout", "60s", "--engine", engine, "do something"]);
        command
    }
}

pub(crate) const CLAUDE: &str = "2.1.330 (Claude Code)";

#[test]
fn one_that_is_too_old_is_refused_with_how_to_get_another() {
    let scene = Scene::new("claude", "0.2.9 (Claude Code)", "echo never; exit 0");
    let ended = scene.run("claude-code", &[]).expect(1);
    let told = ended.stdout;
    assert!(told.contains("engine-too-old") && told.contains("0.2.9"), "{told}");
    assert!(told.contains("npm install -g @anthropic-ai/claude-code"), "{told}");
}

#[test]
fn one_that_ends_with_0_and_did_nothing_has_failed() {
    for (engine, name, version) in [
        ("claude-code", "claude", CLAUDE),
        ("codex", "codex", "codex-cli 0.169.0"),
        ("gemini", "gemini", "0.61.0"),
        ("opencode", "opencode", "1.18.33"),
    ] {
        let scene = Scene::new(name, version, "exit 0");
        let summary = scene.run(engine, &[]).expect(1).json();
        assert_eq!(
            (&summary["state"], &summary["exit_reason"]),
            (&"failed".into(), &"agent_failed".into()),
            "{engine}"
        );
        assert!(!summary["error"].as_str().unwrap_or_default().is_empty(), "{engine}: {summary}");
    }
}

#[test]
fn one_that_crashes_keeps_its_work() {
    let scene = Scene::new("claude", CLAUDE, "echo half > /work/half.txt; kill -SEGV $$");
    let summary = scene.run("claude-code", &[]).expect(1).json();
    assert_eq!(summary["state"], "failed", "{summary}");
    assert!(["signalled", "agent_failed"].contains(&summary["exit_reason"].as_str().unwrap()), "{summary}");
    assert_eq!(summary["files_changed"], 1, "{summary}");
}

#[test]
fn one_that_floods_is_bounded_and_its_end_is_seen() {
    let script = "yes '{\"type\":\"assistant\"}' | head -c 1000000; echo; \
                  yes \"{\\\"type\\\":\\\"assistant\\\", \\\"x\\\": \\\"$(printf '%01000d' 7)\\\"}\" | head -c 60000000; printf '\\377\\000\\033]0;x\\007 no JSON\\n'; \
                  printf '%0.s[' $(seq 1 20000); echo; head -c 9000000 /dev/zero | tr '\\0' a; echo";
    let scene = Scene::new("claude", CLAUDE, script);
    let ended = scene.run("claude-code", &[]).expect(1);
    assert_eq!(ended.json()["state"], "failed", "{}", ended.stdout);
    assert!(ended.stderr.contains("bytes were dropped"), "{}", ended.stderr.len());
    assert!(!ended.stderr.contains('\u{1b}'), "nothing that a terminal obeys");
    scene.world.tipstaff(&["audit", "verify"]).expect(0);
}

#[test]
fn one_that_asks_on_a_terminal_or_on_its_input_gets_no_answer() {
    let scene = Scene::new(
        "claude",
        CLAUDE,
        "cat >/dev/null; read answer; read other </dev/tty && echo got > /work/got; echo asked > /work/asked; exit 0",
    );
    let summary = scene.run("claude-code", &[]).expect(1).json();
    let diff = scene.world.tipstaff(&["runs", "diff", "--stat"]).expect(0);
    assert!(diff.stdout.contains("asked") && !diff.stdout.contains("got"), "{diff:#?}\n{summary}");
}

#[test]
fn one_that_hangs_is_said_and_stopped() {
    let scene = Scene::new(
        "codex",
        "codex-cli 0.169.0",
        "echo x > /work/x.txt; trap '' TERM INT; while :; do sleep 1; done",
    );
    let ended =
        scene.run("codex", &[("TIPSTAFF_STALL_WARNING", "1s"), ("TIPSTAFF_STALL_STOP", "4s")]).expect(5);
    let summary = ended.json();
    assert_eq!(summary["exit_reason"], "stalled", "{summary}");
    assert_eq!(summary["files_changed"], 1, "{summary}");
    assert!(ended.stderr.contains("done nothing for 1 s"), "{}", ended.stderr);
}

//! The door: probe, plan, start.

use std::path::PathBuf;

use serde::Serialize;

use crate::{Plan, Running, SandboxError, SandboxSpec};

/// Where the sandbox finds what it needs.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// bubblewrap.
    pub bwrap: PathBuf,
    /// The directory of the run identities' locks; see [`RunIdentity::acquire`](crate::RunIdentity::acquire).
    pub lock_dir: PathBuf,
    /// The program that is executed inside as the init stage: one whose `main` begins with
    /// [`init_stage_if_requested`]. `None`: this very program.
    pub init_program: Option<PathBuf>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            bwrap: "/usr/bin/bwrap".into(),
            lock_dir: "/run/lock/tipstaff-runs".into(),
            init_program: None,
        }
    }
}

/// Whether a layer holds on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerState {
    /// It was tried in a real sandbox and held.
    Holds,
    /// A weaker form holds; the report says which.
    Reduced,
    /// It does not hold.
    Missing,
}

/// What the probe found out about one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerReport {
    /// The layer's stable name.
    pub layer: &'static str,
    /// Whether it holds.
    pub state: LayerState,
    /// Whether a sandbox is refused without it.
    pub required: bool,
    /// How it was checked and what was seen.
    pub evidence: String,
    /// What to do when it does not hold. Empty when it holds.
    pub remedy: String,
}

/// What the probe found out about this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbeReport {
    /// One row per layer.
    pub layers: Vec<LayerReport>,
}

impl ProbeReport {
    /// Whether every required layer holds, at least reduced.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.layers.iter().all(|layer| !layer.required || layer.state != LayerState::Missing)
    }
}

/// Starts sandboxes. Cheap to share by reference between threads.
#[derive(Debug)]
pub struct Sandbox {
    config: SandboxConfig,
}

impl Sandbox {
    /// Makes the door, after a real minimal sandbox has run.
    ///
    /// # Errors
    /// The reason for which no sandbox can be had here. There is no way round it.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        Ok(Self { config })
    }

    /// Tries every layer in real sandboxes and says what holds. Never fails: what cannot be tried is missing.
    #[must_use]
    pub fn probe(config: &SandboxConfig) -> ProbeReport {
        let _ = config;
        ProbeReport { layers: Vec::new() }
    }

    /// Whether [`Workspace::Overlay`](crate::Workspace::Overlay) works for this server's user on this machine.
    #[must_use]
    pub fn supports_overlay(&self) -> bool {
        false
    }

    /// The compiled rules, without starting anything.
    ///
    /// # Errors
    /// The same as [`Sandbox::start`] has for a description that contradicts itself.
    pub fn plan(&self, spec: &SandboxSpec) -> Result<Plan, SandboxError> {
        let _ = spec;
        Err(SandboxError::StartFailed { step: "plan", detail: "not built yet".into() })
    }

    /// Starts the command. Returns once it has been executed inside (or has failed to be).
    ///
    /// # Errors
    /// Every [`SandboxError`]; nothing is left running.
    pub fn start(&self, spec: &SandboxSpec) -> Result<Running, SandboxError> {
        let _ = (spec, &self.config);
        Err(SandboxError::StartFailed { step: "start", detail: "not built yet".into() })
    }
}

/// The first line of `main` of every program that hosts the sandbox: when this process is the init stage inside
/// a sandbox, finishes the confinement, executes the command and never returns; else returns at once.
pub fn init_stage_if_requested() {}
